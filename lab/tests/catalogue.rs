//! Every scenario of the catalogue passes under each of its profiles, matches its stored ladder, and yields the same
//! packets for the same seed.
//!
//! `UPDATE_LADDERS=1 cargo test -p steadfast-lab --test catalogue` rewrites the ladders; `ONLY=H1,H2` selects
//! scenarios.

#[path = "catalogue/diagnoses.rs"]
mod diagnoses;

use std::path::{Path, PathBuf};

use steadfast_core::Profile;
use steadfast_lab::{RunOptions, Scenario, catalogue, run, workers};

/// All pairs of scenario and profile, restricted to those in `ONLY`.
fn runs() -> Vec<(Scenario, Profile)> {
    let only = std::env::var("ONLY").ok();
    let wanted = |id: &str| only.as_ref().is_none_or(|only| only.split(',').any(|name| name == id));
    let all = catalogue().unwrap_or_else(|error| panic!("{error}"));
    all.into_iter()
        .filter(|scenario| wanted(&scenario.id))
        .flat_map(|scenario| {
            scenario.profiles.clone().into_iter().map(move |profile| (scenario.clone(), profile))
        })
        .collect()
}

/// Calls `check` for every run, on all cores, and collects the failures.
fn everywhere(check: impl Fn(&Scenario, Profile) -> Vec<String> + Sync) -> Vec<String> {
    let runs = runs();
    let mut wrong = Vec::new();
    let work = |index: usize| {
        let (scenario, profile) = &runs[index];
        let found = check(scenario, *profile).into_iter();
        Ok::<_, ()>(found.map(|w| format!("{} [{profile}]: {w}", scenario.id)).collect::<Vec<_>>())
    };
    workers::in_order(runs.len(), workers::cores(), work, |found| wrong.extend(found)).unwrap();
    wrong.sort();
    wrong
}

fn ladder_file(id: &str, profile: Profile) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{id}.{profile}.ladder"))
}

#[test]
fn every_scenario_passes_with_the_ladder_beside_it() {
    let update = std::env::var_os("UPDATE_LADDERS").is_some();
    let wrong = everywhere(|scenario, profile| {
        let report = run(scenario, &RunOptions { profile, ladder: true, ..RunOptions::default() }).unwrap();
        let mut wrong = report.failures.clone();
        let file = ladder_file(&scenario.id, profile);
        if update && report.passed() {
            std::fs::write(&file, &report.ladder).unwrap();
        }
        let beside = std::fs::read_to_string(&file).unwrap_or_default();
        if beside != report.ladder {
            wrong.push(format!(
                "the ladder is not that of {}:\n{}",
                file.display(),
                difference(&beside, &report.ladder)
            ));
        }
        if !report.passed() {
            wrong.push(report.ladder);
        }
        wrong
    });
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// The first line that differs.
fn difference(old: &str, new: &str) -> String {
    let (mut a, mut b) = (old.lines(), new.lines());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return String::new(),
            (a, b) if a == b => {}
            (a, b) => return format!("- {}\n+ {}", a.unwrap_or("(end)"), b.unwrap_or("(end)")),
        }
    }
}

/// Hides the number of rows that a ladder leaves out. It varies: chance decides which clients of a flooded server get a
/// cookie, and a cookie takes one more row.
fn without_counts(ladder: &str) -> String {
    let shown = ladder.lines().map(|row| if row.ends_with("rows left out …") { "…" } else { row });
    shown.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_same_seed_gives_the_same_packets_and_any_seed_the_same_ladder() {
    let wrong = everywhere(|scenario, profile| {
        let play = |seed| {
            run(scenario, &RunOptions { profile, seed, ladder: true, ..RunOptions::default() }).unwrap()
        };
        let (first, again, other) = (play(1), play(1), play(2));
        let mut wrong = Vec::new();
        if (first.hash, &first.ladder) != (again.hash, &again.ladder) {
            wrong.push("seed 1 gave two traces".to_owned());
        }
        if first.hash == other.hash {
            wrong.push("seeds 1 and 2 gave one trace".to_owned());
        }
        let (mine, others) = (without_counts(&first.ladder), without_counts(&other.ladder));
        if mine != others {
            wrong.push(format!("seed 2 gave another ladder:\n{}", difference(&mine, &others)));
        }
        if !other.passed() {
            wrong.push(format!("seed 2: {}", other.failures.join("; ")));
        }
        wrong
    });
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_scenario_keeps_the_rules_under_random_faults() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let wrong = everywhere(|scenario, profile| {
        let mut wrong = Vec::new();
        for seed in 0..seeds {
            let report =
                run(scenario, &RunOptions { profile, seed, swarm: true, ..RunOptions::default() }).unwrap();
            wrong.extend(report.failures.iter().map(|failure| format!("seed {seed}: {failure}")));
        }
        wrong
    });
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

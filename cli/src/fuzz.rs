//! `steadfast drill fuzz`: generated scripts, played on this stack and on the kernel of this machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use clap::Args;
use steadfast_drill::fuzz::{ADDRESSES, Classes, Record, Script};

use crate::failure::Failure;
use crate::opponent::{Opponent, check_kernel, kernel};
use crate::output::say;

/// Runs on the kernel before a difference counts: its timers share the machine with others.
const TRIES: usize = 3;

/// Play generated scripts with the profile linux and on the kernel of this machine, and compare what both do.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// The other side: the kernel of this machine, in network namespaces and in real time. Needs root.
    #[arg(long, value_name = "WHOM")]
    against: Opponent,
    /// Seeds of the scripts: the first, and the one after the last.
    #[arg(long, value_name = "A..B", default_value = "0..300")]
    seeds: String,
    /// Scripts that are played at the same time.
    #[arg(long, value_name = "N", default_value_t = 16)]
    jobs: usize,
    /// Print how often each class of steps was played: state, event, edges of SEQ and ACK.
    #[arg(long)]
    classes: bool,
    /// Print no more than so many differences.
    #[arg(long, value_name = "N", default_value_t = 10)]
    show: usize,
}

/// A script that the two played differently.
struct Difference {
    seed: u64,
    class: String,
    text: String,
}

#[derive(Default)]
struct Results {
    differences: Vec<Difference>,
    unsteady: usize,
    classes: Classes,
    failed: Option<String>,
}

impl Fuzz {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let Opponent::Kernel = self.against;
        check_kernel()?;
        let expected = || Failure::usage(format!("--seeds {}: expected A..B", self.seeds));
        let (first, end) = self.seeds.split_once("..").ok_or_else(expected)?;
        let first: u64 = first.parse().map_err(|_| expected())?;
        let end: u64 = end.parse().map_err(|_| expected())?;
        let (next, results) = (AtomicU64::new(first), Mutex::new(Results::default()));
        thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, 256) {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end || !one(seed, &results) {
                            return;
                        }
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(failed) = results.failed {
            return Err(Failure::System(failed));
        }
        results.differences.sort_by_key(|difference| difference.seed);
        say(&self.report(&results, end.saturating_sub(first)))?;
        match results.differences.len() {
            0 => Ok(()),
            failed => Err(Failure::Failed { failed, of: (end - first) as usize, what: "scripts" }),
        }
    }

    fn report(&self, results: &Results, all: u64) -> String {
        let mut text = String::new();
        for difference in results.differences.iter().take(self.show) {
            let _ = writeln!(text, "seed {}: {} (- steadfast, + kernel)", difference.seed, difference.class);
            let _ = writeln!(text, "{}", difference.text);
        }
        let mut by_class: BTreeMap<&str, usize> = BTreeMap::new();
        for difference in &results.differences {
            *by_class.entry(&difference.class).or_default() += 1;
        }
        for (class, count) in by_class {
            let _ = writeln!(text, "{count:>7}  {class}");
        }
        if self.classes {
            for ((state, event, edge), count) in &results.classes {
                let _ = writeln!(text, "{count:>7}  {state} × {event} × {edge}");
            }
        }
        let differ = results.differences.len();
        let (unsteady, classes) = (results.unsteady, results.classes.len());
        let _ = writeln!(
            text,
            "{all} scripts of {classes} classes: {differ} differ, {unsteady} agree only at another try"
        );
        text
    }
}

/// Plays the script of one seed. Returns whether to go on.
fn one(seed: u64, results: &Mutex<Results>) -> bool {
    let script = Script::generate(seed);
    let ours = script.play_simulated();
    let found = difference(&script, &ours);
    let shrunk = match &found {
        Ok(Some((theirs, _))) => Ok(shrink(script, ours.clone(), theirs.clone())),
        _ => Err(()),
    };
    let Ok(mut results) = results.lock() else { return false };
    ours.classes.iter().for_each(|class| *results.classes.entry(class.clone()).or_default() += 1);
    match (found, shrunk) {
        (Err(failed), _) => results.failed = Some(failed),
        (Ok(None), _) | (_, Err(())) => {}
        (Ok(Some((_, steady))), _) if !steady => results.unsteady += 1,
        (Ok(Some(_)), Ok((ours, theirs))) => {
            let class = ours.class_of_difference(&theirs);
            let class =
                class.map_or(String::new(), |(state, event, edge)| format!("{state} × {event} × {edge}"));
            results.differences.push(Difference { seed, class, text: ours.compare(&theirs) });
        }
    }
    results.failed.is_none()
}

/// The kernel's run if it differs from ours; and whether it always does.
fn difference(script: &Script, ours: &Record) -> Result<Option<(Record, bool)>, String> {
    let play = || kernel::script::with_kernel(&ADDRESSES, |subject| script.play(subject));
    let first = play().map_err(|error| error.to_string())?;
    if ours.agrees(&first) {
        return Ok(None);
    }
    for _ in 1..TRIES {
        if ours.agrees(&play().map_err(|error| error.to_string())?) {
            return Ok(Some((first, false)));
        }
    }
    Ok(Some((first, true)))
}

/// Leaves out steps as long as the two still differ.
fn shrink(script: Script, ours: Record, theirs: Record) -> (Record, Record) {
    let (mut script, mut runs) = (script, (ours, theirs));
    'shorter: loop {
        for shorter in script.shorter().collect::<Vec<_>>() {
            let ours = shorter.play_simulated();
            if let Ok(Some((theirs, true))) = difference(&shorter, &ours) {
                (script, runs) = (shorter, (ours, theirs));
                continue 'shorter;
            }
        }
        return runs;
    }
}

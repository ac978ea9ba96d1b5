//! `steadfast drill fuzz`: generated scripts, played on this stack and on the kernel of this machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use clap::Args;
use steadfast_drill::fuzz::known::Known;
use steadfast_drill::fuzz::{Classes, Coverage, Record, Script, coverage};

use crate::failure::Failure;
use crate::opponent::{Opponent, check_kernel, kernel};
use crate::output::say;

/// Runs on the kernel before a difference counts: its timers share the machine with others.
const TRIES: usize = 3;
/// The most runs for that. Those in which a step was late do not count.
const MOST_TRIES: usize = 12;

/// The runs on the kernel of a script that the two did not play the same at once.
enum Found {
    /// They did at another try.
    Unsteady,
    /// A step was late in nearly all runs, and none was the same.
    Late,
    Different(Record),
}

/// Play generated scripts with the profile linux and on the kernel of this machine, and compare what both do.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// The other side: the kernel of this machine, in network namespaces and in real time. Needs root.
    #[arg(long, value_name = "WHOM")]
    against: Opponent,
    /// Seeds of the scripts: the first, and the one after the last.
    #[arg(long, value_name = "A..B", default_value = "0..300")]
    seeds: String,
    /// Generate other scripts: with SACK blocks of the script's side, too.
    #[arg(long)]
    sack: bool,
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
    /// Differences with a row, by its name.
    known: BTreeMap<&'static str, usize>,
    unsteady: usize,
    late: usize,
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
                        if seed >= end || !one(seed, self.sack, &results) {
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
        for (name, count) in &results.known {
            let _ = writeln!(text, "{count:>7}  known: {name}");
        }
        if self.classes {
            for ((state, event, edge), count) in &results.classes {
                let _ = writeln!(text, "{count:>7}  {state} × {event} × {edge}");
            }
            for Coverage { state, classes: (hit, all), missing } in coverage(&results.classes) {
                let _ = writeln!(text, "{state}: {hit} of {all} classes; never {}", missing.join(", "));
            }
        }
        let differ = results.differences.len();
        let (unsteady, late, classes) = (results.unsteady, results.late, results.classes.len());
        let known: usize = results.known.values().sum();
        let _ = writeln!(
            text,
            "{all} scripts of {classes} classes: {differ} differ, {known} in a known way, {unsteady} agree only at \
             another try, {late} have no run in time"
        );
        text
    }
}

/// Plays the script of one seed. Returns whether to go on.
fn one(seed: u64, sack: bool, results: &Mutex<Results>) -> bool {
    let script = if sack { Script::generate_with_sack(seed) } else { Script::generate(seed) };
    let (script, ours) = script.with_clear_pauses();
    let found = difference(&script, &ours);
    let shrunk = match &found {
        Ok(Some(Found::Different(theirs))) if Known::of(&ours, theirs).is_none() => {
            Some(shrink(script, ours.clone(), theirs.clone()))
        }
        _ => None,
    };
    let Ok(mut results) = results.lock() else { return false };
    ours.classes().for_each(|class| *results.classes.entry(class.clone()).or_default() += 1);
    match (found, shrunk) {
        (Err(failed), _) => results.failed = Some(failed),
        (Ok(None), _) => {}
        (Ok(Some(Found::Unsteady)), _) => results.unsteady += 1,
        (Ok(Some(Found::Late)), _) => results.late += 1,
        (Ok(Some(Found::Different(theirs))), None) => {
            let name = Known::of(&ours, &theirs).map_or("", |known| known.name);
            *results.known.entry(name).or_default() += 1;
        }
        (Ok(Some(_)), Some((ours, theirs))) => {
            let class = ours.class_of_difference(&theirs);
            let class =
                class.map_or(String::new(), |(state, event, edge)| format!("{state} × {event} × {edge}"));
            results.differences.push(Difference { seed, class, text: ours.compare(&theirs) });
        }
    }
    results.failed.is_none()
}

/// The kernel's runs, if the first differs from ours.
fn difference(script: &Script, ours: &Record) -> Result<Option<Found>, String> {
    let play = || kernel::script::with_kernel(&script.addresses(), |subject| script.play(subject));
    let mut timely = Vec::new();
    for run in 0..MOST_TRIES {
        let theirs = play().map_err(|error| error.to_string())?;
        match (ours.agrees(&theirs), run) {
            (true, 0) => return Ok(None),
            (true, _) => return Ok(Some(Found::Unsteady)),
            (false, _) if theirs.is_timely() => timely.push(theirs),
            (false, _) => {}
        }
        if timely.len() == TRIES {
            break;
        }
    }
    let different = timely.pop().filter(|_| timely.len() + 1 == TRIES);
    Ok(Some(different.map_or(Found::Late, Found::Different)))
}

/// Leaves out steps as long as the two still differ, and no row of the table has the difference.
fn shrink(script: Script, ours: Record, theirs: Record) -> (Record, Record) {
    let (mut script, mut runs) = (script, (ours, theirs));
    'shorter: loop {
        for shorter in script.shorter().collect::<Vec<_>>() {
            let (shorter, ours) = shorter.with_clear_pauses();
            if let Ok(Some(Found::Different(theirs))) = difference(&shorter, &ours)
                && Known::of(&ours, &theirs).is_none()
            {
                (script, runs) = (shorter, (ours, theirs));
                continue 'shorter;
            }
        }
        return runs;
    }
}

//! The search: depth first over copies of the world.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use steadfast_core::Duration;
use steadfast_lab::workers;

use crate::coverage::Coverage;
use crate::fault::{Choice, Fault};
use crate::judge::judge;
use crate::options::{Budget, Options, Shard};
use crate::program::Program;
use crate::world::{Scratch, Stop, World};

/// How far an exploration is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Runs so far.
    pub runs: u64,
    /// Different states so far.
    pub states: u64,
    /// Parts that are done, and all parts. They differ in size.
    pub done: usize,
    /// All parts.
    pub parts: usize,
}

/// The result of an exploration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Schedules that were played.
    pub runs: u64,
    /// Packets that were sent in them, from the last choice on.
    pub packets: u64,
    /// Schedules that broke a rule, up to [`Report::MOST`] of each program and rule.
    pub findings: Vec<Finding>,
    /// All of those.
    pub broken: u64,
    /// The segments that arrived, by their class and by the state that they met.
    pub coverage: Coverage,
    /// Different states, if those known are not explored again.
    pub states: u64,
    /// Most times at which something happened, one after another, in a run.
    pub depth: u64,
    /// The search ended at [`Options::most`] states, with others left.
    pub cut: bool,
}

/// A schedule that breaks a rule, with no fault that is not needed for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The id of the program.
    pub program: String,
    /// Its faults, as `--fault` of `steadfast lab run` reads them.
    pub faults: Vec<String>,
    /// The rule.
    pub text: String,
}

impl Report {
    /// Findings that are kept of each program and rule.
    pub const MOST: usize = 3;

    /// Adds the results of another part.
    pub fn add(&mut self, other: Report) {
        self.runs += other.runs;
        self.packets += other.packets;
        self.broken += other.broken;
        self.coverage.add(&other.coverage);
        self.states += other.states;
        self.depth = self.depth.max(other.depth);
        self.cut |= other.cut;
        for finding in other.findings {
            self.keep(finding);
        }
    }

    fn keep(&mut self, finding: Finding) {
        let alike = |kept: &&Finding| (&kept.program, &kept.text) == (&finding.program, &finding.text);
        if !self.findings.contains(&finding) && self.findings.iter().filter(alike).count() < Report::MOST {
            self.findings.push(finding);
        }
    }
}

/// Plays every schedule of the faults of `options.budget` over every program. `tell` hears of the progress after each
/// part.
pub fn explore(programs: &[Program], options: &Options, mut tell: impl FnMut(&Progress)) -> Report {
    let mut parts = Vec::new();
    for program in programs {
        let known = options.states.then(Known::default).map(Arc::new);
        let (packets, time) = measure(program);
        // A state may be come to at several times.
        let time = (!options.states).then_some(time);
        let (program, packets) = (Arc::new(Program { time, ..program.clone() }), packets.min(options.first));
        parts.extend((0..=packets).map(|first| (program.clone(), known.clone(), first)));
    }
    let Shard { index, count } = options.shard;
    let parts: Vec<_> = parts.into_iter().skip(index as usize).step_by(count.max(1) as usize).collect();
    let mut report = Report::default();
    let mut done = 0;
    let work = |index: usize| {
        let (program, known, first) = &parts[index];
        Ok::<Report, std::convert::Infallible>(Search::new(program, options, known.as_deref()).part(*first))
    };
    let Ok(()) = workers::in_order(parts.len(), options.jobs, work, |part| {
        report.add(part);
        done += 1;
        tell(&Progress { runs: report.runs, states: report.states, done, parts: parts.len() });
    });
    report
}

/// Returns the packets of a run without faults, and how long its applications work.
fn measure(program: &Program) -> (u32, Duration) {
    let mut world = World::new(Arc::new(program.clone()));
    let run = || world.play(&mut Scratch::new(), |_| None);
    // A panic is found again in part 0, which plays the same.
    let _panicked = catch_unwind(AssertUnwindSafe(run));
    (world.packets(), world.worked())
}

/// The states that a search has met, which all its parts share.
#[derive(Debug, Default)]
struct Known {
    sets: [Mutex<HashSet<u64>>; 32],
    count: AtomicU64,
    cut: AtomicBool,
}

impl Known {
    /// Returns whether a state is new.
    fn add(&self, digest: u64) -> bool {
        let set = &self.sets[(digest % self.sets.len() as u64) as usize];
        let new = set.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        self.count.fetch_add(u64::from(new), Ordering::Relaxed);
        new
    }

    /// Returns whether there are at least `most`, and remembers that.
    fn is_full(&self, most: u64) -> bool {
        let full = self.count.load(Ordering::Relaxed) >= most;
        self.cut.fetch_or(full, Ordering::Relaxed);
        full
    }
}

/// The search of one part.
struct Search<'a> {
    program: &'a Arc<Program>,
    options: &'a Options,
    /// Where given, a run ends at a state that is known.
    known: Option<&'a Known>,
    scratch: Scratch,
    schedule: Vec<Choice>,
    report: Report,
    /// How many schedules of each rule were shrunk.
    shrunk: Vec<(String, usize)>,
}

impl<'a> Search<'a> {
    fn new(program: &'a Arc<Program>, options: &'a Options, known: Option<&'a Known>) -> Search<'a> {
        let (scratch, report) = (Scratch::new(), Report::default());
        Search { program, options, known, scratch, schedule: Vec::new(), report, shrunk: Vec::new() }
    }

    /// Plays the schedules whose first fault befalls packet `first`; 0: the one without faults.
    fn part(mut self, first: u32) -> Report {
        let mut world = World::new(self.program.clone());
        if first == 0 {
            self.dive(world, Budget::default(), 0);
        } else if self.go_to(&mut world, first) {
            // Part 0 counts the packets before it.
            self.scratch.coverage = Coverage::default();
            self.fork(&world, &self.options.budget.clone(), 0);
        }
        self.report.coverage = self.scratch.coverage;
        self.report
    }

    /// Plays without faults until a packet is sent. Returns whether it is.
    fn go_to(&mut self, world: &mut World, packet: u32) -> bool {
        loop {
            match self.step(world) {
                Some(Stop::Packet) if world.packets() == packet => return true,
                Some(Stop::Packet) => world.decide(None),
                Some(Stop::Still) => {}
                Some(Stop::Rest) | None => return false,
            }
        }
    }

    /// Plays every schedule that goes on with a fault of the packet that was just sent.
    fn fork(&mut self, world: &World, budget: &Budget, depth: u64) {
        for fault in Fault::every() {
            let Some(left) = budget.without(fault) else { continue };
            let Some(choice) = world.choice(fault) else { continue };
            let mut copy = world.clone();
            copy.decide(Some(fault));
            self.schedule.push(choice);
            self.dive(copy, left, depth);
            self.schedule.pop();
        }
    }

    fn dive(&mut self, mut world: World, budget: Budget, mut depth: u64) {
        let mut path = Vec::new();
        loop {
            match self.step(&mut world) {
                Some(Stop::Packet) => {
                    if !budget.is_spent() && world.packets() <= self.options.first {
                        self.fork(&world, &budget, depth);
                    }
                    world.decide(None);
                    self.report.packets += 1;
                }
                Some(Stop::Still) => {
                    depth += 1;
                    if self.is_known(&mut world, &budget, &mut path) {
                        self.report.depth = self.report.depth.max(depth);
                        return;
                    }
                }
                stop => {
                    self.report.depth = self.report.depth.max(depth);
                    return self.end(world, stop.is_none());
                }
            }
        }
    }

    /// Returns whether the search goes no further from here. `path` has the states since the last fault.
    fn is_known(&mut self, world: &mut World, budget: &Budget, path: &mut Vec<u64>) -> bool {
        let Some(known) = self.known else { return false };
        let mut state = DefaultHasher::new();
        (world.digest(), budget).hash(&mut state);
        let digest = state.finish();
        if known.is_full(self.options.most) {
            self.report.cut = true;
            return true;
        }
        if known.add(digest) {
            self.report.states += 1;
            path.push(digest);
            return false;
        }
        if path.contains(&digest) {
            self.report.runs += 1;
            self.broken("the stacks go in circles".to_owned());
        }
        true
    }

    /// Goes on to the next choice; `None`: a stack panicked.
    fn step(&mut self, world: &mut World) -> Option<Stop> {
        let scratch = &mut self.scratch;
        catch_unwind(AssertUnwindSafe(|| world.run(scratch))).ok()
    }

    fn end(&mut self, mut world: World, panicked: bool) {
        self.report.runs += 1;
        let scratch = &mut self.scratch;
        let verdict = if panicked {
            Some("a stack panicked".to_owned())
        } else {
            catch_unwind(AssertUnwindSafe(|| judge(&mut world, scratch)))
                .unwrap_or_else(|_| Some("a stack panicked".to_owned()))
        };
        if let Some(text) = verdict {
            self.broken(text);
        }
    }

    /// The schedule breaks a rule.
    fn broken(&mut self, text: String) {
        self.report.broken += 1;
        let counted = self.shrunk.iter_mut().find(|(known, _)| *known == text);
        match counted {
            Some((_, count)) if *count >= Report::MOST => return,
            Some((_, count)) => *count += 1,
            None => self.shrunk.push((text.clone(), 1)),
        }
        let schedule = self.shrink(&text);
        let faults = schedule.iter().map(Choice::to_string).collect();
        self.report.keep(Finding { program: self.program.id.clone(), faults, text });
    }

    /// The schedule without the faults that its rule does not need.
    fn shrink(&mut self, text: &str) -> Vec<Choice> {
        let mut schedule = self.schedule.clone();
        let mut index = 0;
        while index < schedule.len() {
            let mut shorter = schedule.clone();
            shorter.remove(index);
            if self.replay(&shorter).as_deref() == Some(text) {
                schedule = shorter;
            } else {
                index += 1;
            }
        }
        schedule
    }

    /// Plays one schedule. Returns the rule that it breaks.
    fn replay(&mut self, schedule: &[Choice]) -> Option<String> {
        let mut world = World::new(self.program.clone());
        let scratch = &mut self.scratch;
        let run = || {
            world.play(scratch, |world| {
                let newest = world.choice(Fault::Lose)?;
                let befalls = |choice: &&Choice| (choice.from, choice.number) == (newest.from, newest.number);
                schedule.iter().find(befalls).map(|choice| choice.fault)
            });
            judge(&mut world, scratch)
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Some("a stack panicked".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::collections::hash_map::Entry;

    use steadfast_lab::Scenario;

    use super::*;
    use crate::programs::program_files;

    /// Worlds by their digests, on the way through all schedules of `left` faults. A world whose digest is known must go
    /// on like the known one.
    fn visit(mut world: World, left: u32, known: &mut HashMap<u64, World>, alike: &mut u32) {
        let mut scratch = Scratch::new();
        loop {
            match world.run(&mut scratch) {
                Stop::Packet if left > 0 => {
                    for fault in Fault::ALL.into_iter().filter(|fault| world.choice(*fault).is_some()) {
                        let mut copy = world.clone();
                        copy.decide(Some(fault));
                        visit(copy, left - 1, known, alike);
                    }
                    world.decide(None);
                }
                Stop::Packet => world.decide(None),
                Stop::Still => match known.entry(world.digest()) {
                    Entry::Vacant(place) => drop(place.insert(world.clone())),
                    Entry::Occupied(place) => {
                        assert_eq!(future(world.clone()), future(place.get().clone()));
                        *alike += 1;
                        return;
                    }
                },
                Stop::Rest => return,
            }
        }
    }

    /// All packets that a world sends without further faults, with the time until then.
    fn future(mut world: World) -> Vec<(Duration, String)> {
        let (start, mut sent) = (world.now, Vec::new());
        world.play(&mut Scratch::new(), |world| {
            sent.push((world.now - start, world.newest()));
            None
        });
        sent
    }

    /// Each program meets states again, on other ways.
    #[test]
    fn worlds_of_one_digest_go_on_alike() {
        let sysctls = vec!["tcp_timestamps=0".to_owned()];
        let options = Options { states: true, sysctls, ..Options::default() };
        let faults = |name: &str| {
            if ["request", "client-closes"].iter().any(|small| name.contains(small)) { 2 } else { 1 }
        };
        for (file, text) in program_files().iter().step_by(4) {
            let program = Program::new(&Scenario::parse(file, text).unwrap(), &options).unwrap();
            let mut alike = 0;
            visit(World::new(Arc::new(program)), faults(file), &mut HashMap::new(), &mut alike);
            assert!(alike > 0, "{file}");
        }
    }
}

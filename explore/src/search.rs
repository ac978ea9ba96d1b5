//! The search: depth first over copies of the world.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use steadfast_lab::workers;

use crate::fault::{Choice, Fault};
use crate::judge::judge;
use crate::options::{Options, Shard};
use crate::program::Program;
use crate::world::{Stop, World};

/// How far an exploration is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Runs so far.
    pub runs: u64,
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

/// Plays every schedule of at most `options.faults` faults of every program. `tell` hears of the progress after each part.
pub fn explore(programs: &[Program], options: &Options, mut tell: impl FnMut(&Progress)) -> Report {
    let mut parts = Vec::new();
    for program in programs {
        let program = Arc::new(program.clone());
        let packets = packets(&program).min(options.first);
        parts.extend((0..=packets).map(|first| (program.clone(), first)));
    }
    let Shard { index, count } = options.shard;
    let parts: Vec<_> = parts.into_iter().skip(index as usize).step_by(count.max(1) as usize).collect();
    let mut report = Report::default();
    let mut done = 0;
    let work = |index: usize| {
        let (program, first): &(Arc<Program>, u32) = &parts[index];
        Ok::<Report, std::convert::Infallible>(Search::new(program, options).part(*first))
    };
    let Ok(()) = workers::in_order(parts.len(), options.jobs, work, |part| {
        report.add(part);
        done += 1;
        tell(&Progress { runs: report.runs, done, parts: parts.len() });
    });
    report
}

/// The packets of a run without faults.
fn packets(program: &Arc<Program>) -> u32 {
    let options = Options::default();
    let mut search = Search::new(program, &options);
    let mut world = World::new(program.clone());
    while search.step(&mut world) == Some(Stop::Packet) {
        world.decide(None);
    }
    world.packets()
}

/// The search of one part.
struct Search<'a> {
    program: &'a Arc<Program>,
    options: &'a Options,
    frame: Vec<u8>,
    schedule: Vec<Choice>,
    report: Report,
    /// How many schedules of each rule were shrunk.
    shrunk: Vec<(String, usize)>,
}

impl<'a> Search<'a> {
    fn new(program: &'a Arc<Program>, options: &'a Options) -> Search<'a> {
        let frame = vec![0; 65_536];
        Search {
            program,
            options,
            frame,
            schedule: Vec::new(),
            report: Report::default(),
            shrunk: Vec::new(),
        }
    }

    /// Plays the schedules whose first fault befalls packet `first`; 0: the one without faults.
    fn part(mut self, first: u32) -> Report {
        let mut world = World::new(self.program.clone());
        loop {
            match self.step(&mut world) {
                Some(Stop::Packet) if world.packets() == first && self.options.faults > 0 => {
                    self.fork(&world, self.options.faults);
                    return self.report;
                }
                Some(Stop::Packet) => world.decide(None),
                stop => {
                    // Part 0 is the run without faults.
                    if first == 0 {
                        self.end(world, stop.is_none());
                    }
                    return self.report;
                }
            }
        }
    }

    /// Plays every schedule that goes on with a fault of the packet that was just sent.
    fn fork(&mut self, world: &World, left: u32) {
        for fault in Fault::ALL {
            let Some(choice) = world.choice(fault) else { continue };
            let mut copy = world.clone();
            copy.decide(Some(fault));
            self.schedule.push(choice);
            self.dive(copy, left - 1);
            self.schedule.pop();
        }
    }

    fn dive(&mut self, mut world: World, left: u32) {
        loop {
            match self.step(&mut world) {
                Some(Stop::Packet) => {
                    if left > 0 && world.packets() <= self.options.first {
                        self.fork(&world, left);
                    }
                    world.decide(None);
                    self.report.packets += 1;
                }
                stop => return self.end(world, stop.is_none()),
            }
        }
    }

    /// Goes on to the next choice; `None`: a stack panicked.
    fn step(&mut self, world: &mut World) -> Option<Stop> {
        let frame = &mut self.frame;
        catch_unwind(AssertUnwindSafe(|| world.run(frame))).ok()
    }

    fn end(&mut self, mut world: World, panicked: bool) {
        self.report.runs += 1;
        let frame = &mut self.frame;
        let verdict = if panicked {
            Some("a stack panicked".to_owned())
        } else {
            catch_unwind(AssertUnwindSafe(|| judge(&mut world, frame)))
                .unwrap_or_else(|_| Some("a stack panicked".to_owned()))
        };
        let Some(text) = verdict else { return };
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
        let frame = &mut self.frame;
        let run = || {
            while world.run(frame) == Stop::Packet {
                let befalls = |choice: &&Choice| world.sent[choice.from] == choice.number;
                let newest = world.choice(Fault::Lose).map(|choice| choice.from);
                let fault = schedule.iter().filter(|choice| Some(choice.from) == newest).find(befalls);
                world.decide(fault.map(|choice| choice.fault));
            }
            judge(&mut world, frame)
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Some("a stack panicked".to_owned()))
    }
}

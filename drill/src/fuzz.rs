//! Generated scripts: calls, and segments with fields near every edge, played on two subjects and compared.
//!
//! A script is an opening and a list of steps, each with a pause behind it. All that a subject does until the next step
//! belongs to the step, so that two subjects with different clocks are compared by what they did and in which pause. A
//! pause never ends near a timer of the stack: see [`Script::with_clear_pauses`]. Numbers of a segment are relative to
//! those that the subject showed, and sockets do not block.

pub mod known;
mod player;
mod steps;

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use steadfast_core::Profile;
use steadfast_core::time::Duration;

use self::player::Player;
use self::steps::{Dice, Opening, Step};
use super::simulated::Simulated;
use super::subject::{Addresses, Subject};

/// The most by which a pause is lengthened, in milliseconds.
const LONGEST_DELAY: u64 = 2_000;
/// A run in which a step was later than this does not tell what the subject does: see [`Record::is_timely`].
const TIMELY: Duration = Duration::from_millis(5);

/// A generated script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    opening: Opening,
    /// The steps, each with the pause behind it in milliseconds.
    steps: Vec<(Step, u64)>,
}

impl Script {
    /// Returns the script of a seed.
    pub fn generate(seed: u64) -> Script {
        Script::of(seed, Step::generate)
    }

    /// As [`generate`](Script::generate), with SACK blocks of the script's side.
    pub fn generate_with_sack(seed: u64) -> Script {
        Script::of(seed, Step::generate_with_sack)
    }

    fn of(seed: u64, step: impl Fn(&mut Dice) -> Step) -> Script {
        let mut dice = Dice::new(seed);
        let opening = Opening::generate(&mut dice);
        let count = 2 + dice.roll(7);
        let steps = (0..count).map(|_| (step(&mut dice), dice.pick(&[20, 20, 90, 320])));
        Script { opening, steps: steps.collect() }
    }

    /// The addresses that it runs with.
    pub fn addresses(&self) -> Addresses {
        let (local, prefix_len, remote): (IpAddr, u8, IpAddr) = if self.opening.ipv6 {
            let local = Ipv6Addr::new(0xfd3d, 0xa0b, 0x17d6, 0, 0, 0, 0, 1);
            (local.into(), 48, Ipv6Addr::new(0xfd3d, 0xfa7b, 0xd17d, 0, 0, 0, 0, 1).into())
        } else {
            (Ipv4Addr::new(192, 168, 0, 1).into(), 16, Ipv4Addr::new(192, 0, 2, 1).into())
        };
        Addresses { local, prefix_len, remote, mtu: 1500 }
    }

    /// Returns the scripts without one of the steps.
    pub fn shorter(&self) -> impl Iterator<Item = Script> + '_ {
        (0..self.steps.len()).rev().map(|left_out| {
            let mut shorter = self.clone();
            shorter.steps.remove(left_out);
            shorter
        })
    }

    /// Plays the script on a fresh stack with the profile `linux`, as the release of this kernel. Returns it with pauses
    /// that no timer of the stack comes near the end of: the timers of a kernel are late by a tick or an eighth.
    pub fn with_clear_pauses(mut self) -> (Script, Record) {
        let mut simulated = Simulated::new(Profile::Linux, &self.addresses());
        let set = simulated.set("steadfast.linux_release", "618");
        debug_assert_eq!(set, Ok(None));
        let mut player = Player::new(&mut simulated, &self);
        player.open();
        let mut steps = std::mem::take(&mut self.steps);
        for (step, pause) in &mut steps {
            player.step(step);
            *pause = player.pause_clear(*pause, LONGEST_DELAY);
        }
        let record = player.into_record();
        (Script { steps, ..self }, record)
    }

    /// Plays the script on a fresh subject with its [`addresses`](Script::addresses).
    pub fn play(&self, subject: &mut dyn Subject) -> Record {
        let mut player = Player::new(subject, self);
        player.open();
        for (step, pause) in &self.steps {
            player.step(step);
            player.pause(*pause);
        }
        player.into_record()
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.opening)?;
        self.steps.iter().try_for_each(|(step, _)| write!(f, "; {step}"))
    }
}

/// A step of a run: the step, and what the subject did until the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) step: Step,
    pub(crate) class: Class,
    pub(crate) did: Vec<String>,
}

/// State, event, and edges of SEQ and ACK.
pub type Class = (String, String, String);

/// How often each class of steps was played.
pub type Classes = BTreeMap<Class, usize>;

/// The classes of steps that were played in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The state.
    pub state: String,
    /// Classes that were played, and all that steps have.
    pub classes: (usize, usize),
    /// Events that were never played, near no edge.
    pub missing: Vec<String>,
}

/// Tells for each state what was played in it, and what not.
pub fn coverage(classes: &Classes) -> Vec<Coverage> {
    let events = steps::events();
    let all = events.iter().map(|(_, edges)| edges.len()).sum();
    let states = classes.keys().map(|(state, ..)| state).collect::<std::collections::BTreeSet<_>>();
    let of = |state: &String| {
        let played = |event: &String, edges: &String| {
            classes.contains_key(&(state.clone(), event.clone(), edges.clone()))
        };
        let count = |(event, edges): &(String, Vec<String>)| {
            edges.iter().filter(|edges| played(event, edges)).count()
        };
        let hit = events.iter().map(count).sum();
        let missing = events.iter().filter(|event| count(event) == 0).map(|(event, _)| event.clone());
        Coverage { state: state.clone(), classes: (hit, all), missing: missing.collect() }
    };
    states.into_iter().map(of).collect()
}

/// The run of a script on one subject.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The opening, and what the subject did in it.
    opening: (String, Vec<String>),
    steps: Vec<Done>,
    /// The most by which a step was late.
    late: Duration,
}

impl Record {
    /// Returns whether the steps came when they should. In real time the machine may have had something else to do.
    pub fn is_timely(&self) -> bool {
        self.late <= TIMELY
    }

    /// Classes of the steps.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.steps.iter().map(|done| &done.class)
    }

    /// Returns whether the subjects did the same.
    pub fn agrees(&self, other: &Record) -> bool {
        self.opening.1 == other.opening.1 && self.first_difference(other).is_none()
    }

    /// The first step at which they differ.
    fn first_difference(&self, other: &Record) -> Option<usize> {
        (0..self.steps.len().max(other.steps.len())).find(|index| {
            self.steps.get(*index).map(|done| &done.did) != other.steps.get(*index).map(|done| &done.did)
        })
    }

    /// Both runs up to the first difference, ours before theirs.
    pub fn compare(&self, theirs: &Record) -> String {
        let mut text = String::new();
        let mut tell = |name: &str, ours: &[String], theirs: &[String]| {
            let _ = writeln!(text, "  {name}");
            if ours == theirs {
                ours.iter().for_each(|line| _ = writeln!(text, "      {line}"));
            } else {
                ours.iter().for_each(|line| _ = writeln!(text, "    - {line}"));
                theirs.iter().for_each(|line| _ = writeln!(text, "    + {line}"));
            }
        };
        tell(&self.opening.0, &self.opening.1, &theirs.opening.1);
        let last = self.first_difference(theirs).unwrap_or(0);
        for (ours, theirs) in self.steps.iter().zip(&theirs.steps).take(last + 1) {
            tell(&ours.step.to_string(), &ours.did, &theirs.did);
        }
        text
    }

    /// The class of the step at which they differ.
    pub fn class_of_difference(&self, theirs: &Record) -> Option<&Class> {
        let index = self.first_difference(theirs)?;
        self.steps.get(index).map(|done| &done.class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same seed gives the same script and the same run; scripts differ, and reach many classes.
    #[test]
    fn a_seed_says_all_and_seeds_reach_many_classes() {
        let mut classes = Classes::new();
        for seed in 0..200 {
            let script = Script::generate(seed);
            assert_eq!(script, Script::generate(seed));
            let (clear, once) = script.clone().with_clear_pauses();
            let (same, again) = clear.clone().with_clear_pauses();
            assert_eq!(clear, same, "clear pauses stay as they are");
            assert!(once.agrees(&again), "{}", once.compare(&again));
            assert_eq!(once.steps.len(), script.steps.len());
            once.classes().for_each(|class| *classes.entry(class.clone()).or_default() += 1);
        }
        assert_ne!(Script::generate(0), Script::generate(1));
        assert!(classes.len() > 100, "{}", classes.len());
        let covered: usize = coverage(&classes).iter().map(|of_state| of_state.classes.0).sum();
        assert_eq!(covered, classes.len(), "a step has a class that is not in the list of all");
        let script = Script::generate(7);
        assert!(script.shorter().all(|shorter| shorter.steps.len() + 1 == script.steps.len()));
    }

    /// A pause of 20 ms after a write ends well before the loss probe, and one that would end with it is longer.
    #[test]
    fn no_pause_ends_near_a_timer_of_the_stack() {
        let write = Step::write(100);
        let pause = |pause| {
            let opening = Opening::PLAIN;
            let (script, _) = Script { opening, steps: vec![(write.clone(), pause)] }.with_clear_pauses();
            script.steps[0].1
        };
        assert_eq!(pause(20), 20);
        let timer = (21..600).find(|at| pause(*at) != *at).unwrap();
        assert!(timer > 100 && pause(timer) >= timer + 30, "{timer} {}", pause(timer));
    }
}

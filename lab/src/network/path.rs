//! The paths between all hosts, and the events of those whose packets wait for a decision.

use steadfast_core::{Duration, Instant};
use steadfast_timeline::Fate;

use super::send::{InFlight, Route};
use super::{Network, SimEvent};
use crate::fault::Direction;
use crate::path::{self, Parcel, PathChange, Setup};
use crate::rng::Rng;

/// A packet on a path, with what the network needs at its end.
pub(super) type Tag = (InFlight, Route);

/// The path from one host to another.
#[derive(Clone, Debug)]
struct One {
    path: path::Path<Tag>,
    /// The setup of the scenario, to which a fault returns at its end.
    planned: Setup,
    /// The event that is scheduled for it.
    armed: Option<Instant>,
}

/// The paths between all hosts.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    names: Vec<String>,
    all: Vec<One>,
}

impl Paths {
    pub(crate) fn new(names: &[String], seed: u64) -> Paths {
        let pairs = names.iter().flat_map(|from| names.iter().map(move |to| format!("{from}>{to}")));
        let one = |pair: String| {
            let seed = Rng::split(seed, &pair).next();
            One { path: path::Path::new(Setup::default(), seed), planned: Setup::default(), armed: None }
        };
        Paths { names: names.to_vec(), all: pairs.map(one).collect() }
    }

    fn one(&mut self, from: usize, to: usize) -> &mut One {
        &mut self.all[from * self.names.len() + to]
    }

    /// The figures of a path.
    pub(crate) fn stats(&self, from: usize, to: usize) -> &path::Stats {
        self.all[from * self.names.len() + to].path.stats()
    }

    pub(super) fn delay(&self, from: usize, to: usize) -> Duration {
        self.all[from * self.names.len() + to].path.setup().delay
    }

    /// The event that is scheduled for a path.
    pub(super) fn armed(&self, from: usize, to: usize) -> Option<Instant> {
        self.all[from * self.names.len() + to].armed
    }

    /// Forgets the event of a path, which happens now.
    pub(super) fn disarm(&mut self, from: usize, to: usize) {
        self.one(from, to).armed = None;
    }

    /// Sets up the paths of a direction, before the start.
    pub(crate) fn plan(&mut self, direction: &Direction, changes: &[PathChange]) {
        for change in changes {
            self.change(direction, change);
        }
        for one in &mut self.all {
            one.planned = one.path.setup().clone();
        }
    }

    /// Changes the paths of a direction.
    pub(crate) fn change(&mut self, direction: &Direction, change: &PathChange) {
        self.each(direction, |setup, _| change.apply(setup));
    }

    /// Takes a change back.
    pub(super) fn revert(&mut self, direction: &Direction, change: &PathChange) {
        self.each(direction, |setup, planned| change.revert(setup, planned));
    }

    fn each(&mut self, direction: &Direction, act: impl Fn(&mut Setup, &Setup)) {
        for (from, from_name) in self.names.iter().enumerate() {
            for (to, to_name) in self.names.iter().enumerate() {
                if direction.fits(Some(from_name), Some(to_name)) {
                    let one = &mut self.all[from * self.names.len() + to];
                    let mut setup = one.path.setup().clone();
                    act(&mut setup, &one.planned);
                    one.path.set_up(setup);
                }
            }
        }
    }
}

impl Network {
    /// Puts a packet on its path.
    pub(super) fn set_off(&mut self, one: InFlight, route: Route) {
        let (now, Route { from, to, .. }) = (self.now, route);
        let bytes = one.packet.clone();
        self.paths.one(from, to).path.offer(now, Parcel { bytes, tag: (one, route) });
        self.follow(from, to);
    }

    /// Does what the path has decided, and arms its next event.
    pub(super) fn follow(&mut self, from: usize, to: usize) {
        let now = self.now;
        while let Some(fate) = self.paths.one(from, to).path.poll(now) {
            match fate {
                path::Fate::Lost { cause, tag: (one, route) } => {
                    let text = if one.copy { format!("copy, {cause}") } else { cause.to_string() };
                    self.timeline.fate(route.entry, Fate::Lost(text));
                }
                path::Fate::Arrives { at, parcel, marked, merged } => {
                    let (mut one, route) = parcel.tag;
                    one.packet = parcel.bytes;
                    if marked {
                        one.say("CE");
                    }
                    for (_, route) in merged {
                        let note = "coalesced".to_owned();
                        self.timeline.fate(route.entry, Fate::Arrived { at, note });
                    }
                    self.leave(one, route, at);
                }
            }
        }
        let path = self.paths.one(from, to);
        let next = path.path.poll_at();
        if next != path.armed {
            path.armed = next;
            if let Some(at) = next {
                self.schedule(at, SimEvent::Path { from, to });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_one_way_leaves_the_other_alone_and_can_be_taken_back() {
        let names = ["C".to_owned(), "S".to_owned()];
        let mut paths = Paths::new(&names, 0);
        let ms = Duration::from_millis;
        let (way, slow) = (Direction::parse("C>S").unwrap(), PathChange::Delay(ms(80)));
        paths.plan(&Direction::parse("*").unwrap(), &[PathChange::Delay(ms(20))]);
        paths.change(&way, &slow);
        assert_eq!([paths.delay(0, 1), paths.delay(1, 0)], [ms(80), ms(20)]);
        paths.revert(&way, &slow);
        assert_eq!([paths.delay(0, 1), paths.delay(1, 0)], [ms(20), ms(20)]);
    }
}

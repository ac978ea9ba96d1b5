//! Random faults: each seed draws its own mix and its own rates, and the network heals after a while.

use steadfast_core::{Duration, Instant};

use crate::fault::Fault;
use crate::rng::Rng;

/// The longest duration of a swarm.
const HEALS_WITHIN: Duration = Duration::from_secs(30);

/// The chance of each kind of change of a path, in parts per million.
const CHANGE: u32 = 100_000;

/// Draws what follows the direction in a fault.
type Draw = fn(&mut Rng) -> String;

/// The changes of a path, by the words of [`PathChange`](crate::path::PathChange).
const CHANGES: [(&str, Draw); 9] = [
    ("rate", |rng| {
        let mut rate = || format!("{}kbit {}ms", 300 + rng.below(30_000), 100 + rng.below(3000));
        let (first, second) = (rate(), rate());
        format!("{first} {second} queue {}", 4 + rng.below(200))
    }),
    ("burst-loss", |rng| format!("{}.{}% {}%", rng.below(4), rng.below(10), 10 + rng.below(80))),
    ("jitter", |rng| {
        let order = if rng.chance(500_000) { " reorder" } else { "" };
        format!("0ms..{}ms{order}", 1 + rng.below(30))
    }),
    ("police", |rng| format!("{}kbit {}", 500 + rng.below(20_000), 4000 + rng.below(60_000))),
    ("aqm", |rng| ["codel", "codel ecn", "pie", "pie ecn"][rng.below(4) as usize].to_owned()),
    ("aggregate", |rng| format!("{}ms", 1 + rng.below(10))),
    ("thin", |rng| (2 + rng.below(31)).to_string()),
    ("gro", |rng| format!("{}ms", 1 + rng.below(5))),
    ("handover", |rng| {
        let pause = 20 + rng.below(480);
        format!("{}ms 20ms..{pause}ms {}%", 1000 + rng.below(5000), rng.below(20))
    }),
];

/// The random faults that hit one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mishap {
    pub(crate) lost: bool,
    pub(crate) delay: Duration,
    /// A copy arrives this much later.
    pub(crate) copy: Option<Duration>,
}

/// The parameters of one seed.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    rng: Rng,
    /// Probabilities in parts per million.
    loss: u32,
    duplication: u32,
    reordering: u32,
    /// Upper bound of the delay of every packet.
    jitter: Duration,
    /// Upper bound of the extra delay of a reordered packet.
    setback: Duration,
    heals_at: Instant,
    /// Changes of the paths until then.
    changes: Vec<Fault>,
}

impl Swarm {
    /// Each kind of fault is switched on or off, so that some seeds have only one and some have all.
    pub(crate) fn new(seed: u64) -> Swarm {
        let mut rng = Rng::split(seed, "swarm");
        let mut rate = |most: u64| if rng.chance(600_000) { rng.below(most) as u32 } else { 0 };
        let (loss, duplication, reordering) = (rate(250_000), rate(200_000), rate(300_000));
        let jitter = Duration::from_micros(u64::from(rate(20_000)));
        let setback = Duration::from_millis(1 + rng.below(400));
        let heals_at = Instant::ZERO + rng.duration(Duration::from_secs(1), HEALS_WITHIN);
        let changes = changes(seed, heals_at);
        Swarm { rng, loss, duplication, reordering, jitter, setback, heals_at, changes }
    }

    /// The changes of the paths.
    pub(crate) fn changes(&self) -> &[Fault] {
        &self.changes
    }

    /// Draws the faults of a packet that is sent now.
    pub(super) fn mishap(&mut self, now: Instant) -> Mishap {
        if now >= self.heals_at {
            return Mishap::default();
        }
        let mut delay = self.rng.duration(Duration::ZERO, self.jitter);
        if self.rng.chance(self.reordering) {
            delay += self.rng.duration(Duration::ZERO, self.setback);
        }
        let copy = self.rng.chance(self.duplication).then(|| self.rng.duration(Duration::ZERO, self.setback));
        Mishap { lost: self.rng.chance(self.loss), delay, copy }
    }
}

/// Draws changes of the paths between C and S. About four seeds in ten have none.
fn changes(seed: u64, heals_at: Instant) -> Vec<Fault> {
    let mut rng = Rng::split(seed, "changes");
    let mut drawn = Vec::new();
    for (verb, draw) in CHANGES {
        if rng.chance(CHANGE) {
            let way = ["C>S", "S>C", "*"][rng.below(3) as usize];
            let text = format!("{verb} {way} {} until {heals_at}", draw(&mut rng));
            drawn.push(text.parse().expect("it is written in the language of faults"));
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_in_their_mix_and_every_one_heals() {
        let mixes: Vec<_> =
            (0..200).map(Swarm::new).map(|s| (s.loss > 0, s.duplication > 0, s.reordering > 0)).collect();
        for kind in [|m: &(bool, bool, bool)| m.0, |m: &(bool, bool, bool)| m.1, |m: &(bool, bool, bool)| m.2]
        {
            let on = mixes.iter().filter(|m| kind(m)).count();
            assert!((80..160).contains(&on), "{on}");
        }
        for seed in 0..200 {
            let mut swarm = Swarm::new(seed);
            assert_eq!(swarm.mishap(Instant::ZERO + HEALS_WITHIN), Mishap::default());
        }
    }

    #[test]
    fn every_change_of_a_path_is_drawn_and_ends_when_the_network_heals() {
        let swarms: Vec<_> = (0..1000).map(Swarm::new).collect();
        for (verb, _) in CHANGES {
            let begins = |fault: &&Fault| fault.to_string().starts_with(&format!("{verb} "));
            let drawn = swarms.iter().flat_map(|s| s.changes()).filter(begins).count();
            assert!((70..130).contains(&drawn), "{verb}: {drawn}");
        }
        for swarm in &swarms {
            let ends = format!("until {}", swarm.heals_at);
            assert!(swarm.changes().iter().all(|fault| fault.to_string().ends_with(&ends)));
        }
        let none = swarms.iter().filter(|swarm| swarm.changes().is_empty()).count();
        assert!((330..450).contains(&none), "{none}");
    }
}

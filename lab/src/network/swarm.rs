//! Random faults: each seed draws its own mix and its own rates, and the network heals after a while.

use steadfast_core::{Duration, Instant};

use crate::rng::Rng;

/// The longest duration of a swarm.
const HEALS_WITHIN: Duration = Duration::from_secs(30);

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
        Swarm { rng, loss, duplication, reordering, jitter, setback, heals_at }
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
}

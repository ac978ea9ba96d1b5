//! HyStart++ (RFC 9406): ends the initial slow start when the round trip grows, before a queue overflows.

use crate::time::Instant;

/// The least and the most growth of the round trip that counts, in microseconds (9406-1).
const MIN_RTT_THRESH: u32 = 4_000;
const MAX_RTT_THRESH: u32 = 16_000;
const MIN_RTT_DIVISOR: u32 = 8;
/// Samples that a round needs.
const N_RTT_SAMPLE: u8 = 8;
/// Conservative slow start grows by this fraction, for this many rounds.
const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u8 = 5;

/// Rounds until all that is acknowledged was sent after a train was seen.
const TRAIN_ROUNDS: u8 = 2;
/// Samples for that in a round that has so many: with fewer jitter looks like a queue.
const N_TRAIN_SAMPLE: u8 = 32;
/// Growth meanwhile: the link may be full, and its queue as well if the window grows by a half.
const TRAIN_GROWTH_DIVISOR: u32 = 8;
/// The longest gap between the ACKs of a train, in microseconds.
const TRAIN_GAP: u128 = 2_000;

/// The round trips of slow start, in microseconds.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct HyStart {
    /// The smallest of all, of the last round, and of this one; `u32::MAX`: none.
    least: u32,
    last: u32,
    current: u32,
    /// Samples in this round.
    samples: u8,
    phase: Phase,
    /// The latest ACKs that followed each other closely: the times of the first and the last one.
    train: Option<(Instant, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Standard,
    /// Conservative slow start: the smallest round trip of the round that began it, and the rounds that have ended.
    Conservative {
        baseline: u32,
        rounds: u8,
    },
    /// A train of ACKs makes slow start conservative, for the rounds until it shows whether there is a queue.
    Suspected {
        rounds: u8,
    },
}

impl HyStart {
    pub(super) fn new() -> HyStart {
        HyStart {
            least: u32::MAX,
            last: u32::MAX,
            current: u32::MAX,
            samples: 0,
            phase: Phase::Standard,
            train: None,
        }
    }

    /// Bytes by which the window grows for `bytes` that count in slow start.
    pub(super) fn growth(&self, bytes: u32) -> u32 {
        match self.phase {
            Phase::Standard => bytes,
            Phase::Conservative { .. } => bytes / CSS_GROWTH_DIVISOR,
            Phase::Suspected { .. } => bytes / TRAIN_GROWTH_DIVISOR,
        }
    }

    /// Takes a round trip into account: slow start becomes conservative where it has grown, and ordinary again where that
    /// was jitter (9406-3). Returns whether slow start ends.
    ///
    /// A window that doubles within a round may fill the link and its queue before the next round trip shows it. ACKs
    /// that follow each other for half of the round trip show it sooner: the window is at least half of what the link
    /// holds (9406-9). Then the queue decides, once the ACKs are of data that was sent since. Where the sender paces, its
    /// own gaps make the trains.
    pub(super) fn sample(&mut self, rtt: u32, now: Instant, paced: bool) -> bool {
        self.least = self.least.min(rtt);
        self.current = self.current.min(rtt);
        self.samples = self.samples.saturating_add(1);
        let train = self.lengthen_train(now);
        if train > u64::from(MIN_RTT_THRESH.max(self.least / 2)) && !paced && self.phase == Phase::Standard {
            self.phase = Phase::Suspected { rounds: 0 };
        }
        if self.samples < N_RTT_SAMPLE {
            return false;
        }
        match self.phase {
            Phase::Conservative { baseline, .. } if self.current < baseline => self.phase = Phase::Standard,
            Phase::Suspected { rounds } if self.samples >= N_TRAIN_SAMPLE => return self.decide(rounds),
            Phase::Standard if self.has_grown_from(self.last) => {
                self.phase = Phase::Conservative { baseline: self.current, rounds: 0 };
            }
            _ => {}
        }
        false
    }

    /// An ACK arrives. Returns the duration of the train, in microseconds.
    fn lengthen_train(&mut self, now: Instant) -> u64 {
        let (first, last) = self.train.get_or_insert((now, now));
        if (now - *last).as_micros() > TRAIN_GAP {
            *first = now;
        }
        *last = now;
        (*last - *first).as_micros() as u64
    }

    /// Ends slow start where there is a queue, and returns whether it does. Goes on where there is none after the last of
    /// `rounds`.
    fn decide(&mut self, rounds: u8) -> bool {
        let ends = self.has_grown_from(self.least);
        if !ends && rounds >= TRAIN_ROUNDS {
            (self.phase, self.train) = (Phase::Standard, None);
        }
        ends
    }

    /// Returns whether the smallest round trip of this round exceeds an earlier one by the threshold.
    fn has_grown_from(&self, earlier: u32) -> bool {
        let threshold = (earlier / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
        self.current >= earlier.saturating_add(threshold) && earlier < u32::MAX
    }

    /// A round ends. Returns whether slow start does.
    pub(super) fn end_round(&mut self) -> bool {
        let ends = match self.phase {
            Phase::Standard => false,
            Phase::Suspected { rounds } => {
                let ends = self.samples >= N_RTT_SAMPLE && self.decide(rounds);
                if let Phase::Suspected { rounds } = &mut self.phase {
                    *rounds = rounds.saturating_add(1);
                }
                ends
            }
            Phase::Conservative { baseline, rounds } => {
                self.phase = Phase::Conservative { baseline, rounds: rounds + 1 };
                rounds + 1 >= CSS_ROUNDS
            }
        };
        (self.last, self.current, self.samples) = (self.current, u32::MAX, 0);
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round trip that is no part of a train.
    fn sample(hystart: &mut HyStart, rtt: u32) {
        assert!(!hystart.sample(rtt, Instant::ZERO, false));
    }

    /// A round of `samples`.
    fn round(hystart: &mut HyStart, samples: impl IntoIterator<Item = u32>) -> bool {
        samples.into_iter().for_each(|rtt| sample(hystart, rtt));
        hystart.end_round()
    }

    fn is_conservative(hystart: &HyStart) -> bool {
        hystart.growth(4000) <= 1000
    }

    /// 9406-1, 9406-5: an eighth of the last round's minimum, but 4 ms at least and 16 ms at most.
    #[test]
    fn growth_beyond_the_threshold_makes_slow_start_conservative_9406_5() {
        for (last, threshold) in
            [(1_000, 4_000), (32_000, 4_000), (80_000, 10_000), (128_000, 16_000), (600_000, 16_000)]
        {
            let mut hystart = HyStart::new();
            round(&mut hystart, [last; 8]);
            let mut below = hystart;
            round(&mut below, [last + threshold - 1; 20]);
            assert!(!is_conservative(&below), "{last}");
            [last + threshold; 8].into_iter().for_each(|rtt| sample(&mut hystart, rtt));
            assert!(is_conservative(&hystart), "{last}");
        }
    }

    /// 9406-5: seven samples are too few, in this round; in the last one a single sample is valid.
    #[test]
    fn eight_samples_in_a_round_decide_9406_5() {
        let mut hystart = HyStart::new();
        round(&mut hystart, [20_000]);
        [90_000; 7].into_iter().for_each(|rtt| sample(&mut hystart, rtt));
        assert!(!is_conservative(&hystart));
        sample(&mut hystart, 90_000);
        assert!(is_conservative(&hystart));
        // Without a round before there is nothing to compare with.
        let mut hystart = HyStart::new();
        round(&mut hystart, [90_000; 20]);
        assert!(!is_conservative(&hystart));
        // A round without samples leaves none.
        round(&mut hystart, []);
        round(&mut hystart, [900_000; 20]);
        assert!(!is_conservative(&hystart));
    }

    /// 9406-6: five rounds, the one that begins it among them.
    #[test]
    fn five_conservative_rounds_end_slow_start_9406_6() {
        let mut hystart = HyStart::new();
        round(&mut hystart, [20_000; 8]);
        let ends: Vec<bool> = (0..5).map(|_| round(&mut hystart, [30_000; 8])).collect();
        assert_eq!(ends, [false, false, false, false, true]);
    }

    /// 9406-3, 9406-6: a round trip below that of the round that began it was jitter, also within that round.
    #[test]
    fn a_round_trip_that_falls_again_resumes_slow_start_9406_3() {
        let mut hystart = HyStart::new();
        round(&mut hystart, [20_000; 8]);
        for _ in 0..4 {
            round(&mut hystart, [30_000; 8]);
        }
        round(&mut hystart, [29_999; 7]);
        assert!(is_conservative(&hystart), "too few samples");
        let mut hystart = HyStart::new();
        round(&mut hystart, [20_000; 8]);
        round(&mut hystart, [30_000; 8]);
        [29_999; 8].into_iter().for_each(|rtt| sample(&mut hystart, rtt));
        assert!(!is_conservative(&hystart));
        let mut hystart = HyStart::new();
        round(&mut hystart, [20_000; 8]);
        [30_000; 8].into_iter().for_each(|rtt| sample(&mut hystart, rtt));
        assert!(is_conservative(&hystart));
        sample(&mut hystart, 21_000);
        assert!(!is_conservative(&hystart));
        assert!(!round(&mut hystart, []), "its rounds begin anew");
    }

    /// 9406-5: a smaller round trip than ever is no growth.
    #[test]
    fn a_shorter_path_does_not_end_slow_start_9406_5() {
        let mut hystart = HyStart::new();
        for rtt in [100_000, 50_000, 20_000, 10_000] {
            round(&mut hystart, [rtt; 16]);
            assert!(!is_conservative(&hystart));
        }
    }

    /// A round of ACKs, `gap` microseconds apart from `from` on, with a queue that grows from `queue` by `more` for each.
    /// Returns whether slow start ends within it, or with it.
    fn train(hystart: &mut HyStart, from: u64, acks: u64, gap: u64, queue: u32, more: u32) -> bool {
        let rtt = |number: u64| 40_000 + queue + more * number as u32;
        let at = |number: u64| Instant::from_micros(from + number * gap);
        (0..acks).any(|number| hystart.sample(rtt(number), at(number), false)) || hystart.end_round()
    }

    /// 9406-9: 160 ACKs of a link that carries a segment in 240 µs. Slow start is conservative from the middle of the round
    /// trip on, and ends where the data that was sent since finds a queue.
    #[test]
    fn a_train_of_acks_and_then_a_queue_end_slow_start_9406_9() {
        let mut hystart = HyStart::new();
        round(&mut hystart, [40_000; 80]);
        (0..84).for_each(|n| assert!(!hystart.sample(40_000, Instant::from_micros(n * 240), false)));
        assert!(!is_conservative(&hystart), "20 ms");
        hystart.sample(40_000, Instant::from_micros(84 * 240), false);
        assert!(is_conservative(&hystart));
        assert!(!hystart.end_round());
        assert!(!train(&mut hystart, 50_000, 250, 240, 0, 100), "its first segments were sent before");
        assert!(!train(&mut hystart.clone(), 120_000, 7, 240, 15_000, 100), "too few");
        assert!(train(&mut hystart, 120_000, 8, 240, 15_000, 100));
    }

    /// 9406-9: without a queue slow start goes on.
    #[test]
    fn a_train_without_a_queue_delays_slow_start_by_two_rounds_9406_9() {
        let mut hystart = HyStart::new();
        round(&mut hystart, [40_000; 80]);
        assert!(!train(&mut hystart, 0, 100, 240, 0, 0));
        assert!(!train(&mut hystart, 50_000, 80, 240, 0, 0));
        assert!(is_conservative(&hystart));
        assert!(!train(&mut hystart, 100_000, 32, 240, 4_900, 0));
        assert!(!is_conservative(&hystart));
    }

    /// 9406-9: a gap ends a train. A short path has none, and a sender that paces makes them itself.
    #[test]
    fn gaps_and_pacing_are_no_trains_9406_9() {
        let mut hystart = HyStart::new();
        round(&mut hystart, [40_000; 8]);
        for start in [0, 20_000, 40_000, 60_000] {
            assert!(!train(&mut hystart, start, 60, 240, 0, 0), "14.4 ms, and then 5.6 ms of silence");
            assert!(!is_conservative(&hystart));
        }
        (0..200).for_each(|n| _ = hystart.sample(40_000, Instant::from_micros(200_000 + n * 240), true));
        assert!(!is_conservative(&hystart), "paced");
        let mut short = HyStart::new();
        (0..16).for_each(|n| _ = short.sample(100, Instant::from_micros(n * 250), false));
        assert!(!is_conservative(&short), "4 ms are no longer than what counts as a queue");
    }
}

//! HyStart++ (RFC 9406): ends the initial slow start when the round trip grows, before a queue overflows.

/// The least and the most growth of the round trip that counts, in microseconds (9406-1).
const MIN_RTT_THRESH: u32 = 4_000;
const MAX_RTT_THRESH: u32 = 16_000;
const MIN_RTT_DIVISOR: u32 = 8;
/// Samples that a round needs.
const N_RTT_SAMPLE: u8 = 8;
/// Conservative slow start grows by this fraction, for this many rounds.
const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u8 = 5;

/// The round trips of slow start, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct HyStart {
    /// The smallest of the last round and of this one; `u32::MAX`: none.
    last: u32,
    current: u32,
    /// Samples in this round.
    samples: u8,
    /// Conservative slow start: the smallest round trip of the round that began it.
    baseline: Option<u32>,
    /// Rounds of conservative slow start that have ended.
    rounds: u8,
}

impl HyStart {
    pub(super) fn new() -> HyStart {
        HyStart { last: u32::MAX, current: u32::MAX, samples: 0, baseline: None, rounds: 0 }
    }

    /// Bytes by which the window grows for `bytes` that count in slow start.
    pub(super) fn growth(&self, bytes: u32) -> u32 {
        if self.baseline.is_some() { bytes / CSS_GROWTH_DIVISOR } else { bytes }
    }

    /// Takes a round trip into account: slow start becomes conservative where it has grown, and ordinary again where that
    /// was jitter (9406-3).
    pub(super) fn sample(&mut self, rtt: u32) {
        self.current = self.current.min(rtt);
        self.samples = self.samples.saturating_add(1);
        if self.samples < N_RTT_SAMPLE {
            return;
        }
        match self.baseline {
            Some(baseline) if self.current < baseline => (self.baseline, self.rounds) = (None, 0),
            None if self.last < u32::MAX && self.current >= self.last.saturating_add(self.threshold()) => {
                self.baseline = Some(self.current);
            }
            _ => {}
        }
    }

    fn threshold(&self) -> u32 {
        (self.last / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH)
    }

    /// A round ends. Returns whether slow start does.
    pub(super) fn end_round(&mut self) -> bool {
        (self.last, self.current, self.samples) = (self.current, u32::MAX, 0);
        self.rounds += u8::from(self.baseline.is_some());
        self.rounds >= CSS_ROUNDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of `samples`.
    fn round(hystart: &mut HyStart, samples: impl IntoIterator<Item = u32>) -> bool {
        samples.into_iter().for_each(|rtt| hystart.sample(rtt));
        hystart.end_round()
    }

    fn is_conservative(hystart: &HyStart) -> bool {
        hystart.growth(4000) == 1000
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
            [last + threshold; 8].into_iter().for_each(|rtt| hystart.sample(rtt));
            assert!(is_conservative(&hystart), "{last}");
        }
    }

    /// 9406-5: seven samples are too few, in this round; in the last one a single sample is valid.
    #[test]
    fn eight_samples_in_a_round_decide_9406_5() {
        let mut hystart = HyStart::new();
        round(&mut hystart, [20_000]);
        [90_000; 7].into_iter().for_each(|rtt| hystart.sample(rtt));
        assert!(!is_conservative(&hystart));
        hystart.sample(90_000);
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
        [29_999; 8].into_iter().for_each(|rtt| hystart.sample(rtt));
        assert!(!is_conservative(&hystart));
        let mut hystart = HyStart::new();
        round(&mut hystart, [20_000; 8]);
        [30_000; 8].into_iter().for_each(|rtt| hystart.sample(rtt));
        assert!(is_conservative(&hystart));
        hystart.sample(21_000);
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
}

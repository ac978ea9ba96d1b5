//! The delivery rate, sampled once a round trip, as draft-ietf-ccwg-bbr §4.1 samples it at every ACK. Nothing is
//! stored for a segment.

use std::hash::{Hash, Hasher};

use crate::time::{Instant, SendTime};

/// The sampler of a connection (RATE-1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    /// The start of this round, and that of the round before.
    start: Option<Edge>,
    before: Option<Edge>,
    /// Bytes per second; zero before the first sample.
    rate: u64,
    app_limited: bool,
}

/// The edge of two rounds, at an ACK.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    pub(crate) at: Instant,
    /// Bytes delivered since the connection began, cumulatively and selectively acknowledged ones. Each counts once
    /// (RATE-4).
    pub(crate) delivered: u64,
    /// When the newest data was sent. It is delivered when the next round ends.
    pub(crate) sent: SendTime,
}

/// Nothing acts on it: it is only shown.
impl Hash for Rate {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Rate {
    /// A round ends. `used`: the window was the limit, and neither the application nor the peer's window (RATE-5).
    pub(super) fn end_round(&mut self, end: Edge, used: bool) {
        if let Some((before, start)) = self.before.zip(self.start) {
            // The data delivered in this round was sent between the two edges before it. ACKs that queued come faster
            // than the data did (RATE-2).
            let acked_in = (end.at - start.at).as_micros() as u64;
            let sent_in = start.sent.since(before.sent).max(0) as u64;
            let bytes = end.delivered.saturating_sub(start.delivered);
            let interval = acked_in.max(sent_in).max(1);
            let rate = bytes.saturating_mul(1_000_000) / interval;
            if used || rate >= self.rate {
                (self.rate, self.app_limited) = (rate, !used);
            }
        }
        (self.before, self.start) = (self.start, Some(end));
    }

    /// Bytes per second, and whether the application or the peer's window was the limit.
    pub(super) fn sample(&self) -> (u64, bool) {
        (self.rate, self.app_limited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edge(millis: u64, delivered: u64, sent_millis: u64) -> Edge {
        Edge {
            at: Instant::from_millis(millis),
            delivered,
            sent: SendTime::at(Instant::from_millis(sent_millis)),
        }
    }

    /// RATE-2: ACKs that queued for 30 ms make a round short. The data was sent in 40 ms.
    #[test]
    fn queued_acks_do_not_raise_the_rate_rate_2() {
        let mut rate = Rate::default();
        rate.end_round(edge(40, 40_000, 40), true);
        rate.end_round(edge(80, 80_000, 80), true);
        assert_eq!(rate.sample(), (0, false), "the first whole round begins at the first edge");
        rate.end_round(edge(120, 120_000, 120), true);
        assert_eq!(rate.sample(), (1_000_000, false));
        rate.end_round(edge(130, 160_000, 130), true);
        assert_eq!(rate.sample(), (1_000_000, false));
    }

    /// RATE-5: what the application limits says nothing of the path, unless it is faster.
    #[test]
    fn a_round_without_use_does_not_lower_the_rate_rate_5() {
        let mut rate = Rate::default();
        for n in 1..=3 {
            rate.end_round(edge(10 * n, 10_000 * n, 10 * n), true);
        }
        rate.end_round(edge(40, 31_000, 40), false);
        assert_eq!(rate.sample(), (1_000_000, false));
        rate.end_round(edge(50, 61_000, 50), false);
        assert_eq!(rate.sample(), (3_000_000, true));
        rate.end_round(edge(60, 71_000, 60), true);
        assert_eq!(rate.sample(), (1_000_000, false));
    }

    proptest! {
        /// RATE-2: no sample exceeds what was delivered by the time in which it was.
        #[test]
        fn no_sample_exceeds_what_the_acks_delivered_rate_2(
            rounds in proptest::collection::vec((0u64..5_000_000, 0u64..1 << 40, 0u64..5_000_000, any::<bool>()), 3..40),
        ) {
            let mut rate = Rate::default();
            let (mut at, mut sent, mut delivered) = (Instant::from_secs(1), Instant::from_secs(1), 0);
            let mut most = 0;
            for (nanos, bytes, sent_nanos, used) in rounds {
                at += std::time::Duration::from_nanos(nanos);
                sent += std::time::Duration::from_nanos(sent_nanos);
                delivered += bytes;
                most = most.max(bytes.saturating_mul(1_000_000) / (nanos / 1000).max(1));
                rate.end_round(Edge { at, delivered, sent: SendTime::at(sent) }, used);
                prop_assert!(rate.sample().0 <= most);
            }
        }
    }
}

//! CUBIC and HyStart as Linux computes them: in whole segments, with integers.
// DRILL-X08

use super::{Acked, Cause, CongestionControl, Window};
use crate::time::Instant;

/// C, and C times 1024 scaled for times in 1/1024 s.
const C: f64 = 0.4;
const SCALE: u64 = 410;
/// The window of Reno grows by a segment for 15/8 windows of acknowledged segments.
const FRIENDLY: u32 = 15;
/// The rate of the curve is computed anew after so many microseconds, or when the window changes.
const STALE: u128 = 31_250;
/// The least window at which slow start may end by HyStart, in segments.
const LOW_WINDOW: u32 = 16;
/// The longest gap between the ACKs of a train, and what segmentation offload adds to it, in microseconds.
const TRAIN_GAP: u64 = 2_000;
const OFFLOAD: u64 = 1_000;
/// Samples of a round that count in full.
const SAMPLES: u8 = 8;
/// The bits of `hystart_detect`.
const BY_TRAIN: u8 = 1;
const BY_DELAY: u8 = 2;

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct LinuxCubic {
    /// The window before the last congestion, in segments.
    last_max: u32,
    epoch: Option<Epoch>,
    /// Segments to acknowledge for one more in the window, and those that were.
    needed: u32,
    counted: u32,
    /// The smallest round trip in microseconds; 0: none.
    least: u32,
    round: Option<Round>,
    found: bool,
}

/// One epoch of congestion avoidance. Windows are in segments.
#[derive(Clone, Debug, Hash)]
struct Epoch {
    start: Instant,
    /// In 1/1024 s.
    k: u64,
    origin: u32,
    /// The window that Reno would have, and the segments acknowledged since it grew.
    reno: u32,
    acked: u32,
    /// The window for which the rate was computed, and when; `None`: it is still to be computed.
    computed: Option<(u32, Instant)>,
}

/// A round of slow start.
#[derive(Clone, Debug, Hash)]
struct Round {
    end: crate::seq::SeqNum,
    start: u64,
    last_ack: u64,
    /// The smallest sample, and their number.
    least: u32,
    samples: u8,
}

impl LinuxCubic {
    /// An ACK delivers data that was sent `rtt` microseconds ago. Returns whether slow start ends.
    pub(super) fn sample(&mut self, rtt: u32, ack: &Acked, window: &Window) -> bool {
        let (rtt, detect) = (rtt.max(1), ack.hystart_detect);
        if self.epoch.as_ref().is_none_or(|epoch| (ack.now - epoch.start).as_secs() > 0) {
            self.least = if self.least == 0 { rtt } else { self.least.min(rtt) };
        }
        if self.found || window.cwnd >= window.ssthresh {
            return false;
        }
        let now = ack.now.as_micros();
        let (una, nxt) = (ack.progress.una, ack.progress.nxt);
        let begins = self.round.as_ref().is_none_or(|round| una.gt(round.end));
        let fresh = Round { end: nxt, start: now, last_ack: now, least: u32::MAX, samples: 0 };
        let round = self.round.get_or_insert_with(|| fresh.clone());
        if begins {
            *round = fresh;
        }
        if window.cwnd / ack.progress.mss < LOW_WINDOW {
            return false;
        }
        if detect & BY_TRAIN != 0 && now - round.last_ack <= TRAIN_GAP {
            round.last_ack = now;
            let whole = u64::from(self.least) + OFFLOAD;
            let threshold = if ack.paced { whole } else { whole / 2 };
            self.found |= now - round.start > threshold;
        }
        if detect & BY_DELAY != 0 {
            round.least = round.least.min(rtt);
            if round.samples < SAMPLES {
                round.samples += 1;
            } else {
                let growth = (self.least >> 3).clamp(4_000, 16_000);
                self.found |= round.least > self.least.saturating_add(growth);
            }
        }
        self.found
    }

    /// Computes how many acknowledged segments make the window grow.
    fn update(&mut self, cwnd: u32, segments: u32, now: Instant) {
        let last_max = self.last_max;
        let distance = f64::from(last_max.saturating_sub(cwnd));
        let epoch = self.epoch.get_or_insert_with(|| Epoch {
            start: now,
            k: ((distance / C).cbrt() * 1024.0) as u64,
            origin: last_max.max(cwnd),
            reno: cwnd,
            acked: 0,
            computed: None,
        });
        epoch.acked = epoch.acked.saturating_add(segments);
        if epoch.computed.is_some_and(|(of, at)| of == cwnd && (now - at).as_micros() <= STALE) {
            return;
        }
        epoch.computed = Some((cwnd, now));
        let passed = (now - epoch.start).as_micros() as u64 + u64::from(self.least);
        let t = (passed << 10) / 1_000_000;
        let off = u128::from(t.abs_diff(epoch.k).min(1 << 30));
        let delta = ((u128::from(SCALE) * off * off * off) >> 40).min(u128::from(u32::MAX)) as u32;
        let before = t < epoch.k;
        let target =
            if before { epoch.origin.saturating_sub(delta) } else { epoch.origin.saturating_add(delta) };
        let mut needed = if target > cwnd { cwnd / (target - cwnd) } else { cwnd.saturating_mul(100) };
        if last_max == 0 {
            needed = needed.min(20);
        }
        let step = (cwnd.saturating_mul(FRIENDLY) >> 3).max(1);
        epoch.reno = epoch.reno.saturating_add(epoch.acked / step);
        epoch.acked %= step;
        if epoch.reno > cwnd {
            needed = needed.min(cwnd / (epoch.reno - cwnd));
        }
        self.needed = needed.max(2);
    }
}

impl CongestionControl for LinuxCubic {
    fn acked(&mut self, window: &mut Window, ack: &Acked, bytes: u32) {
        let mss = ack.progress.mss;
        let (cwnd, segments) = (window.cwnd / mss, bytes.div_ceil(mss));
        self.update(cwnd, segments, ack.now);
        let mut grown = 0;
        if self.counted >= self.needed {
            (self.counted, grown) = (0, 1);
        }
        self.counted += segments;
        grown += self.counted / self.needed;
        self.counted %= self.needed;
        window.cwnd = window.cwnd.saturating_add(grown.saturating_mul(mss));
    }

    fn congested(&mut self, window: &Window, cause: Cause, _: u32, mss: u32) -> u32 {
        let cwnd = window.cwnd / mss;
        let converges = cwnd < self.last_max;
        self.last_max = if converges { (u64::from(cwnd) * 1741 / 2048) as u32 } else { cwnd };
        self.epoch = None;
        if cause == Cause::Timeout {
            *self = LinuxCubic::default();
        }
        ((u64::from(cwnd) * 717 / 1024) as u32).max(2) * mss
    }

    fn unused(&mut self) {
        // Idle time moves the epoch: it begins anew.
        if let Some(epoch) = &mut self.epoch {
            epoch.computed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::acked;
    use super::*;
    use crate::time::Duration;

    /// Fast convergence, and 717/1024 of the window.
    #[test]
    fn congestion_leaves_717_of_1024_in_whole_segments() {
        let mut cubic = LinuxCubic::default();
        let mut reduce = |segments: u32| {
            let window = Window { cwnd: segments * 1000, ssthresh: u32::MAX };
            (cubic.congested(&window, Cause::Loss, 0, 1000), cubic.last_max)
        };
        assert_eq!([reduce(10), reduce(7), reduce(2)], [(7000, 10), (4000, 5), (2000, 1)]);
    }

    /// The path MTU may grow, so that the window is less than one of the new segments.
    #[test]
    fn a_window_below_a_segment_grows() {
        let mut window = Window { cwnd: 1000, ssthresh: 1000 };
        let (mut cubic, ack) = (LinuxCubic::default(), acked(Instant::ZERO, 1400, 1400, Duration::ZERO));
        (0..2).for_each(|_| cubic.acked(&mut window, &ack, 1400));
        assert_eq!(window.cwnd, 2400);
    }
}

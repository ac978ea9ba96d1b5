//! CUBIC (RFC 9438), in bytes and floating point seconds.

use std::hash::{Hash, Hasher};

use super::{Acked, Cause, CongestionControl, Window, reduced};
use crate::time::{Duration, Instant};

/// C, in segments per second cubed.
const C: f64 = 0.4;
/// β_cubic, and β_ecn of RFC 8511, in percent.
const BETA: u32 = 70;
const BETA_ECN: u32 = 85;
/// α_cubic = 3 (1 − β) / (1 + β), which makes the Reno-friendly estimate as aggressive as Reno (9438-3).
const ALPHA: f64 = 3.0 * 0.3 / 1.7;
/// The least growth in a round trip, as a part of the window, where slow start ended before any congestion; and up to
/// which round trip, in smallest ones.
const UNKNOWN: f64 = 1.0 / 20.0;
const NO_QUEUE: f64 = 1.5;

#[derive(Clone, Debug, Default)]
pub(super) struct Cubic {
    /// Window before the last reduction.
    w_max: f64,
    /// Window before the reduction that began this epoch.
    cwnd_prior: f64,
    epoch: Option<Epoch>,
    /// Growth of the window not yet applied, as a fraction of a byte.
    earned: f64,
}

/// One epoch of congestion avoidance.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// Seconds from the start until the window is `origin` again.
    k: f64,
    /// W_max of the curve, or the window at the start if that is larger.
    origin: f64,
    /// The window that Reno would have now, in bytes.
    w_est: f64,
}

impl Cubic {
    /// Returns whether there was no congestion yet, so that nothing is known of what the path carries.
    pub(super) fn explores(&self) -> bool {
        self.cwnd_prior == 0.0
    }
}

/// Floating-point numbers have no hash of their own.
impl Hash for Cubic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Cubic { w_max, cwnd_prior, epoch, earned } = *self;
        [w_max, cwnd_prior, earned].map(f64::to_bits).hash(state);
        epoch
            .map(|Epoch { start, k, origin, w_est }| (start, [k, origin, w_est].map(f64::to_bits)))
            .hash(state);
    }
}

impl CongestionControl for Cubic {
    fn acked(&mut self, window: &mut Window, ack: &Acked, bytes: u32) {
        let (cwnd, mss) = (f64::from(window.cwnd), f64::from(ack.progress.mss));
        let w_max = self.w_max.max(cwnd);
        let epoch = self.epoch.get_or_insert_with(|| Epoch {
            start: ack.now,
            k: ((w_max - cwnd) / mss / C).cbrt(),
            origin: w_max,
            w_est: cwnd,
        });
        let alpha = if epoch.w_est >= self.cwnd_prior { 1.0 } else { ALPHA };
        epoch.w_est += alpha * mss * f64::from(bytes) / cwnd;
        let t = (ack.now - epoch.start).as_secs_f64();
        let w_cubic = |t: f64| C * (t - epoch.k).powi(3) * mss + epoch.origin;
        let grown = if w_cubic(t) < epoch.w_est {
            epoch.w_est.max(cwnd) - cwnd
        } else {
            let target =
                w_cubic(t + Duration::from_micros(ack.srtt.into()).as_secs_f64()).clamp(cwnd, 1.5 * cwnd);
            (target - cwnd) / cwnd * f64::from(bytes)
        };
        // The flat beginning of the curve is meant for the window of the last congestion (9438-13).
        let free = ack.rtt.is_some_and(|rtt| f64::from(rtt) < NO_QUEUE * f64::from(ack.min_rtt));
        let least = if self.explores() && free { UNKNOWN * f64::from(bytes) } else { 0.0 };
        self.earned += grown.max(least);
        window.cwnd = window.cwnd.saturating_add(self.earned as u32);
        self.earned = self.earned.fract();
    }

    fn congested(&mut self, window: &Window, cause: Cause, flight: u32, mss: u32) -> u32 {
        let cwnd = f64::from(window.cwnd);
        // Fast convergence: a flow with a shrinking window releases more bandwidth (9438-4).
        self.w_max = match cause {
            // After a timeout the curve begins where slow start ends (9438-12).
            Cause::Timeout => 0.0,
            _ if cwnd < self.w_max => cwnd * 0.85,
            _ => cwnd,
        };
        self.cwnd_prior = cwnd;
        self.epoch = None;
        self.earned = 0.0;
        let beta = if cause == Cause::Ecn { BETA_ECN } else { BETA };
        reduced(flight, beta, mss)
    }

    fn unused(&mut self) {
        // Time must not advance while the window is not in use (9438-6).
        self.epoch = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 9438-4: W_max is (1 + β) / 2 of the window, with β = 0.7.
    #[test]
    fn a_flow_whose_window_shrinks_aims_lower_each_time_9438_4() {
        let mut cubic = Cubic::default();
        let mut reduce = |cwnd| {
            cubic.congested(&Window { cwnd, ssthresh: u32::MAX }, Cause::Loss, cwnd, 1000);
            cubic.w_max
        };
        let (first, second) = (reduce(100_000), reduce(80_000));
        assert!((first - 100_000.0).abs() < 1.0, "{first}");
        assert!((second - 68_000.0).abs() < 1.0, "{second}");
    }
}

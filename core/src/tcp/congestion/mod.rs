//! Congestion control: how much may be in flight.
//!
//! The controller sees only the inputs of RFC 5681: acknowledged bytes, losses and idle times. The `recovery` module
//! chooses what to retransmit.

mod cubic;
mod reno;

use std::ops::{Deref, DerefMut};

use crate::config::CongestionControl as Choice;
use crate::time::{Duration, Instant};

use self::cubic::Cubic;
use self::reno::Reno;

/// A congestion controller. All sizes are bytes.
pub(crate) trait CongestionControl {
    /// The congestion window.
    fn cwnd(&self) -> u32;

    /// The slow-start threshold; `u32::MAX` before the first loss.
    fn ssthresh(&self) -> u32;

    /// New data was acknowledged outside of recovery, and the window was fully used.
    fn acknowledged(&mut self, ack: Acknowledged);

    /// Duplicate ACKs or an ECN echo showed congestion. Called at most once per window of data.
    fn loss(&mut self, now: Instant, flight: u32, mss: u32);

    /// The retransmission timer fired. `first` is false if it has already fired for the same data (5681-7).
    fn timeout(&mut self, now: Instant, flight: u32, mss: u32, first: bool);

    /// New data was acknowledged, but the window was not fully used: the application or the peer's window was the
    /// limit.
    fn unused(&mut self);

    /// Nothing was sent for longer than an RTO: at most `window` bytes may be sent at once (5681-12).
    fn restart(&mut self, window: u32);

    /// Sets the window of a new connection, or of one that has just learned its MSS.
    fn set_initial(&mut self, window: u32);
}

/// An ACK of new data, as seen by a controller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) now: Instant,
    pub(crate) bytes: u32,
    /// Most bytes that count in slow start.
    pub(crate) most: u32,
    pub(crate) mss: u32,
    pub(crate) srtt: Duration,
}

/// The controller of a connection, stored inline to save an allocation per connection.
#[derive(Clone, Debug)]
pub(crate) enum Controller {
    Cubic(Cubic),
    Reno(Reno),
}

impl Controller {
    pub(crate) fn new(choice: Choice, initial_window: u32) -> Controller {
        match choice {
            Choice::Cubic => Controller::Cubic(Cubic::new(initial_window)),
            Choice::Reno => Controller::Reno(Reno::new(initial_window)),
        }
    }
}

impl Deref for Controller {
    type Target = dyn CongestionControl;

    #[inline]
    fn deref(&self) -> &Self::Target {
        match self {
            Controller::Cubic(cubic) => cubic,
            Controller::Reno(reno) => reno,
        }
    }
}

impl DerefMut for Controller {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Controller::Cubic(cubic) => cubic,
            Controller::Reno(reno) => reno,
        }
    }
}

/// IW = `segments`, limited as RFC 6928 limits ten of them: min(10 SMSS, max(2 SMSS, 14600)) (6928-1).
pub(crate) fn initial_window(segments: u8, mss: u32) -> u32 {
    let segments = u32::from(segments);
    (segments * mss).min((2 * mss).max(segments * 1460))
}

/// ssthresh = max(FlightSize × numerator / 10, 2 SMSS) (5681-6, 9438-5).
fn reduced(flight: u32, tenths: u32, mss: u32) -> u32 {
    ((u64::from(flight) * u64::from(tenths) / 10) as u32).max(2 * mss)
}

/// Slow start by byte counting, within the limit for one ACK (5681-2; THREAT-44). Returns the bytes left over once
/// the threshold is reached.
fn slow_start(cwnd: &mut u32, ssthresh: u32, ack: &Acknowledged) -> u32 {
    if *cwnd >= ssthresh {
        return ack.bytes;
    }
    let counted = ack.bytes.min(ack.most);
    let grown = cwnd.saturating_add(counted).min(ssthresh);
    let used = grown - *cwnd;
    *cwnd = grown;
    counted.saturating_sub(used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_initial_window_is_that_of_rfc_6928_6928_1() {
        assert_eq!(initial_window(10, 1460), 14_600);
        assert_eq!(initial_window(10, 536), 5360);
        assert_eq!(initial_window(10, 8960), 17_920);
        assert_eq!(initial_window(1, 1460), 1460);
    }

    /// Runs `rtts` round trips in which the whole window is sent and acknowledged. Returns the time after them.
    fn whole_windows(cc: &mut dyn CongestionControl, mut now: Instant, srtt: Duration, rtts: u32) -> Instant {
        for _ in 0..rtts {
            now += srtt;
            for _ in 0..cc.cwnd() / 1000 {
                cc.acknowledged(Acknowledged { now, bytes: 1000, most: 8000, mss: 1000, srtt });
            }
        }
        now
    }

    /// 5681-5: slow start continues until the first loss.
    #[test]
    fn nothing_bounds_slow_start_before_the_first_loss_5681_5() {
        for choice in [Choice::Reno, Choice::Cubic] {
            let mut cc = Controller::new(choice, 10_000);
            assert_eq!(cc.ssthresh(), u32::MAX, "{choice:?}");
            whole_windows(&mut *cc, Instant::ZERO, Duration::from_millis(100), 10);
            assert_eq!(cc.cwnd(), 10_000 << 10, "{choice:?}");
        }
    }

    /// 9438-2: however far ahead the cubic function is, one round trip adds at most half of the window.
    #[test]
    fn cubic_grows_by_half_in_a_round_trip_at_the_most_9438_2() {
        let mut cc = Controller::new(Choice::Cubic, 100_000);
        cc.loss(Instant::ZERO, 100_000, 1000);
        let srtt = Duration::from_millis(100);
        whole_windows(&mut *cc, Instant::ZERO, srtt, 1);
        let before = cc.cwnd();
        whole_windows(&mut *cc, Instant::from_secs(100), srtt, 1);
        let grown = f64::from(cc.cwnd()) / f64::from(before);
        // The base window grows within the round trip too, so the factor approaches e^0.5.
        assert!((1.4..1.65).contains(&grown), "{grown}");
    }

    /// 9438-3: on a short path CUBIC grows as fast as Reno. It adds α = 0.53 segments per round trip, and 1 once the
    /// window is back at its size before the loss.
    #[test]
    fn cubic_is_friendly_to_reno_on_short_paths_9438_3() {
        let mut cc = Controller::new(Choice::Cubic, 40_000);
        cc.loss(Instant::ZERO, 40_000, 1000);
        assert_eq!(cc.cwnd(), 28_000);
        let srtt = Duration::from_millis(1);
        let now = whole_windows(&mut *cc, Instant::ZERO, srtt, 10);
        assert!((33_000..=33_400).contains(&cc.cwnd()), "28 + 10 · 0.53: {}", cc.cwnd());
        let now = whole_windows(&mut *cc, now, srtt, 15);
        assert!(
            (41_000..=42_500).contains(&cc.cwnd()),
            "40 after 23 round trips, and two more: {}",
            cc.cwnd()
        );
        let before = cc.cwnd();
        whole_windows(&mut *cc, now, srtt, 10);
        assert!((9_500..=10_100).contains(&(cc.cwnd() - before)), "{} to {}", before, cc.cwnd());
    }

    /// 9438-6: time in which the window was not fully used does not count, whether little or nothing was sent.
    #[test]
    fn cubic_does_not_count_time_without_use_9438_6() {
        let srtt = Duration::from_millis(100);
        let grown = |rest: &dyn Fn(&mut dyn CongestionControl)| {
            let mut cc = Controller::new(Choice::Cubic, 100_000);
            cc.loss(Instant::ZERO, 100_000, 1000);
            whole_windows(&mut *cc, Instant::ZERO, srtt, 5);
            let before = cc.cwnd();
            rest(&mut *cc);
            whole_windows(&mut *cc, Instant::from_secs(60), srtt, 1);
            cc.cwnd() - before
        };
        assert!(grown(&|_| {}) > 30_000, "a minute of use: the window is far beyond the old one");
        assert!(grown(&|cc| cc.restart(100_000)) < 10_000, "a minute of silence");
        assert!(grown(&|cc| cc.unused()) < 10_000, "a minute of little use");
    }

    #[test]
    fn loss_halves_reno_and_takes_three_tenths_off_cubic_5681_6_9438_1() {
        let now = Instant::ZERO;
        for (choice, expected) in [(Choice::Reno, 50_000), (Choice::Cubic, 70_000)] {
            let mut cc = Controller::new(choice, 100_000);
            cc.loss(now, 100_000, 1000);
            assert_eq!((cc.cwnd(), cc.ssthresh()), (expected, expected), "{choice:?}");
            cc.timeout(now, 0, 1000, true);
            assert_eq!((cc.cwnd(), cc.ssthresh()), (1000, 2000), "{choice:?}");
        }
    }

    #[test]
    fn congestion_avoidance_of_reno_adds_one_mss_for_each_window_5681_3() {
        let mut cc = Controller::new(Choice::Reno, 10_000);
        cc.loss(Instant::ZERO, 20_000, 1000);
        assert_eq!(cc.cwnd(), 10_000);
        for _ in 0..10 {
            let ack =
                Acknowledged { now: Instant::ZERO, bytes: 1000, most: 8000, mss: 1000, srtt: Duration::ZERO };
            cc.acknowledged(ack);
        }
        assert_eq!(cc.cwnd(), 11_000);
    }

    #[test]
    fn cubic_reaches_its_old_window_again_after_k_seconds_9438_1() {
        // W_max = 100 segments, cwnd after the loss 70: K = cbrt(30 / 0.4) = 4.217 s.
        let mut cc = Controller::new(Choice::Cubic, 100_000);
        cc.loss(Instant::ZERO, 100_000, 1000);
        let srtt = Duration::from_millis(100);
        let mut at_k = 0;
        for tenth in 0..100u64 {
            let now = Instant::from_millis(tenth * 100);
            if tenth == 42 {
                at_k = cc.cwnd();
            }
            for _ in 0..cc.cwnd() / 1000 {
                cc.acknowledged(Acknowledged { now, bytes: 1000, most: 8000, mss: 1000, srtt });
            }
        }
        assert!((97_000..=103_000).contains(&at_k), "{at_k}");
        assert!(cc.cwnd() > 130_000, "{}", cc.cwnd());
    }

    proptest! {
        /// 9438-8: no sequence of events overflows, and the window never falls below one MSS.
        #[test]
        fn no_input_overflows_or_starves_a_controller(
            cubic: bool,
            mss in 48u32..65_000,
            events in proptest::collection::vec((0u8..5, 0u32..1 << 30, 0u64..1 << 45), 0..100),
        ) {
            let mut cc = Controller::new(if cubic { Choice::Cubic } else { Choice::Reno }, initial_window(10, mss));
            let mut now = Instant::ZERO;
            for (what, bytes, nanos) in events {
                now += Duration::from_nanos(nanos);
                match what {
                    0 => cc.loss(now, bytes, mss),
                    1 => cc.timeout(now, bytes, mss, bytes % 2 == 0),
                    2 => cc.restart(initial_window(10, mss)),
                    3 => cc.unused(),
                    _ => cc.acknowledged(Acknowledged { now, bytes, most: 8 * mss, mss, srtt: Duration::from_nanos(nanos / 7) }),
                }
                prop_assert!(cc.cwnd() >= mss.min(initial_window(1, mss)));
            }
        }
    }
}

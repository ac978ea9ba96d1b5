//! Congestion control: how much may be in flight.
//!
//! A [`Controller`] has the window and the threshold, and grows the window in slow start. An algorithm behind
//! [`CongestionControl`] grows it in congestion avoidance, and says how far congestion lowers the threshold. The
//! `recovery` module chooses what to retransmit. It sets the window while losses are repaired.

mod cubic;
mod hystart;
mod linux;
mod rate;
mod reno;
mod usage;

use crate::config::CongestionControl as Choice;
use crate::seq::SeqNum;
use crate::state::CaState;
use crate::time::{Instant, Tick};

use self::cubic::Cubic;
use self::hystart::HyStart;
use self::linux::LinuxCubic;
pub(crate) use self::rate::Edge;
use self::rate::Rate;
use self::reno::Reno;
pub(crate) use self::usage::Sent;
use self::usage::{Rules, Usage};

/// An algorithm of congestion avoidance. All sizes are bytes.
trait CongestionControl {
    /// An ACK covers `bytes` beyond those that slow start has counted. Grows the window.
    fn acked(&mut self, window: &mut Window, ack: &Acked, bytes: u32);

    /// There is congestion, with `flight` bytes in flight. Returns the new threshold.
    fn congested(&mut self, window: &Window, cause: Cause, flight: u32, mss: u32) -> u32;

    /// The window was not in use for a time: the application or the peer's window was the limit.
    fn unused(&mut self) {}
}

/// The congestion window and the slow-start threshold.
#[derive(Clone, Copy, Debug, Hash)]
struct Window {
    cwnd: u32,
    /// `u32::MAX` before the first congestion.
    ssthresh: u32,
}

impl Window {
    /// Keeps in the threshold what is known of the path, before the window is lowered without congestion.
    fn keep_threshold(&mut self) {
        self.ssthresh = self.ssthresh.max(self.cwnd - self.cwnd / 4);
    }

    /// Slow start by byte counting, of at most `most` bytes (5681-2; THREAT-44). Returns the bytes left over once the
    /// threshold is reached.
    fn slow_start(&mut self, bytes: u32, most: u32) -> u32 {
        if self.cwnd >= self.ssthresh {
            return bytes;
        }
        let counted = bytes.min(most);
        let grown = self.cwnd.saturating_add(counted).min(self.ssthresh);
        let used = grown - self.cwnd;
        self.cwnd = grown;
        counted.saturating_sub(used)
    }
}

/// The part of [`Acked`] that tells whether a flight uses its window. Short flights need no more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// SND.UNA and SND.NXT.
    pub(crate) una: SeqNum,
    pub(crate) nxt: SeqNum,
    /// Bytes by which SND.UNA advanced.
    pub(crate) newly_acked: u32,
    /// Bytes in flight before the ACK.
    pub(crate) prior_flight: u32,
    pub(crate) mss: u32,
    /// The window, or pacing, held data back when it was last tried to send.
    pub(crate) cwnd_limited: bool,
    /// A window that is not used is lowered, to at least this; `None`: it stays.
    pub(crate) restart: Option<u32>,
}

/// An ACK of new data, as seen by a controller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acked {
    pub(crate) now: Instant,
    pub(crate) progress: Progress,
    /// SRTT, RTO and the smallest round trip, in microseconds.
    pub(crate) srtt: u32,
    pub(crate) min_rtt: u32,
    pub(crate) rto: u64,
    /// The round trip of the newest data that the ACK covers, in microseconds, if HyStart++ is on and the controller
    /// [`explores`](Controller::explores).
    pub(crate) rtt: Option<u32>,
    /// The state before the ACK, or after it if that is Recovery or Cwr.
    pub(crate) phase: CaState,
    /// New data is paced.
    pub(crate) paced: bool,
    /// The most segments that count in slow start, unless data is paced; 0: all.
    pub(crate) abc_limit: u8,
    /// By Linux's rules: the bits of `tcp_hystart_detect`.
    pub(crate) hystart_detect: u8,
}

/// The evidence of congestion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Duplicate ACKs or RACK.
    Loss,
    /// The retransmission timer, for the first time for the data in flight (5681-7).
    Timeout,
    /// The peer's echo of a mark, which a queue sets long before it is full (RFC 8511).
    Ecn,
}

/// The congestion control of a connection.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Controller {
    window: Window,
    usage: Usage,
    /// Allocated when the window is first used: most connections are too short for it.
    state: Option<Box<State>>,
}

const _: () = assert!(size_of::<Controller>() <= 32);

#[derive(Clone, Debug, Hash)]
struct State {
    hystart: HyStart,
    rate: Rate,
    algorithm: Algorithm,
    /// The window, and the algorithm's state, when the episode of recovery began.
    remembered: Option<Box<(Window, Algorithm)>>,
}

#[derive(Clone, Debug, Hash)]
enum Algorithm {
    Cubic(Cubic),
    LinuxCubic(Box<LinuxCubic>),
    Reno(Reno),
}

impl Algorithm {
    fn new(rules: Rules) -> Algorithm {
        match rules {
            Rules::LinuxCubic => Algorithm::LinuxCubic(Box::default()),
            Rules::Cubic => Algorithm::Cubic(Cubic::default()),
            Rules::Reno | Rules::LinuxReno => Algorithm::Reno(Reno::default()),
        }
    }
}

impl CongestionControl for Algorithm {
    fn acked(&mut self, window: &mut Window, ack: &Acked, bytes: u32) {
        match self {
            Algorithm::Cubic(cubic) => cubic.acked(window, ack, bytes),
            Algorithm::LinuxCubic(cubic) => cubic.acked(window, ack, bytes),
            Algorithm::Reno(reno) => reno.acked(window, ack, bytes),
        }
    }

    fn congested(&mut self, window: &Window, cause: Cause, flight: u32, mss: u32) -> u32 {
        match self {
            Algorithm::Cubic(cubic) => cubic.congested(window, cause, flight, mss),
            Algorithm::LinuxCubic(cubic) => cubic.congested(window, cause, flight, mss),
            Algorithm::Reno(reno) => reno.congested(window, cause, flight, mss),
        }
    }

    fn unused(&mut self) {
        match self {
            Algorithm::Cubic(cubic) => cubic.unused(),
            Algorithm::LinuxCubic(cubic) => cubic.unused(),
            Algorithm::Reno(reno) => reno.unused(),
        }
    }
}

impl Controller {
    /// For data from `una` on.
    pub(crate) fn new(choice: Choice, initial_window: u32, una: SeqNum, now: Tick) -> Controller {
        let window = Window { cwnd: initial_window, ssthresh: u32::MAX };
        Controller { window, usage: Usage::new(una, now, Rules::of(choice)), state: None }
    }

    /// Takes Linux's rule of the threshold.
    pub(crate) fn follow_linux(&mut self) {
        self.usage.rules.follow_linux();
    }

    /// Whether it was told to [`follow_linux`](Controller::follow_linux).
    #[inline]
    pub(crate) fn follows_linux(&self) -> bool {
        self.usage.rules.are_linux()
    }

    /// The congestion window.
    #[inline]
    pub(crate) fn cwnd(&self) -> u32 {
        self.window.cwnd
    }

    /// The slow-start threshold; `u32::MAX` before the first congestion.
    #[inline]
    pub(crate) fn ssthresh(&self) -> u32 {
        self.window.ssthresh
    }

    /// Sets the window: that of a new connection, or that of recovery.
    pub(crate) fn set_cwnd(&mut self, cwnd: u32) {
        self.window.cwnd = cwnd;
    }

    /// An ACK covers new data, in any phase. In Recovery and Cwr it is PRR that sets the window. `rest` is called if the
    /// window may change.
    /// Returns whether the ACK ends a round, and if so, whether the round used the window.
    #[inline]
    pub(crate) fn acked(
        &mut self,
        progress: &Progress,
        rest: impl FnOnce(Progress) -> Acked,
    ) -> Option<bool> {
        let Window { cwnd, ssthresh } = self.window;
        if self.follows_linux() {
            return self.acked_as_linux(progress, rest);
        }
        self.usage.note(progress, cwnd);
        let used = self.usage.is_full(cwnd, cwnd < ssthresh);
        if used {
            self.use_window(&rest(*progress));
        } else if self.state.is_some() || progress.restart.is_some_and(|restart| cwnd > restart) {
            self.unused(&rest(*progress));
        }
        let ends = self.usage.end_round(progress);
        if ends && self.in_initial_slow_start() {
            self.end_round();
        }
        ends.then_some(used)
    }

    /// As [`acked`](Controller::acked), where Linux has judged the window by what it sent.
    #[cold]
    fn acked_as_linux(&mut self, progress: &Progress, rest: impl FnOnce(Progress) -> Acked) -> Option<bool> {
        let Window { cwnd, ssthresh } = self.window;
        let used = self.usage.is_full_for_linux(cwnd / progress.mss, cwnd < ssthresh);
        match used {
            true => self.use_window(&rest(*progress)),
            false => self.stop_clock(),
        }
        self.usage.has_ended(progress.una).then_some(used)
    }

    /// Linux has sent what it may. A window that was not used for an RTO goes halfway to what was.
    // DRILL-X06
    pub(crate) fn sent_as_linux(&mut self, sent: &Sent, mss: u32) {
        let Window { cwnd, ssthresh } = self.window;
        let cwnd = cwnd / mss;
        let unused = self.usage.note_sent(sent, cwnd, self.window.cwnd < ssthresh);
        if let Some(used) = unused.filter(|used| *used < cwnd) {
            self.window.ssthresh = ssthresh.max((cwnd / 2 + cwnd / 4).saturating_mul(mss));
            self.window.cwnd = (cwnd + used) / 2 * mss;
        }
    }

    /// The retransmission timer fired: the window that Linux leaves.
    pub(crate) fn time_out_as_linux(&mut self, cwnd: u32, now: Tick) {
        self.window.cwnd = cwnd;
        self.usage.note_full(now);
    }

    /// A round uses the window.
    #[inline(never)]
    fn use_window(&mut self, ack: &Acked) {
        if !matches!(ack.phase, CaState::Recovery | CaState::Cwr) {
            if !self.follows_linux() {
                self.usage.note_full(Tick::at(ack.now));
            }
            self.grow(ack);
        }
    }

    /// A round ends, of which the delivery rate is sampled. A connection that never used its window has no rate.
    #[inline]
    pub(crate) fn sample_rate(&mut self, used: bool, end: impl FnOnce() -> Edge) {
        if let Some(state) = &mut self.state {
            state.rate.end_round(end(), used);
        }
    }

    /// The delivery rate in bytes per second, zero before the first sample, and whether the application or the peer's
    /// window was the limit.
    pub(crate) fn delivery_rate(&self) -> (u64, bool) {
        self.state.as_ref().map_or((0, false), |state| state.rate.sample())
    }

    /// The application or the peer's window is the limit. After an RTO without use the window goes halfway to what was
    /// in flight, as in Linux (RFC 2861 §3.2, 7661-1).
    fn unused(&mut self, ack: &Acked) {
        self.stop_clock();
        let Some(restart) = ack.progress.restart.filter(|restart| self.window.cwnd > *restart) else {
            return;
        };
        if let Some(most) = self.usage.unused_for(ack.rto, Tick::at(ack.now)) {
            self.window.keep_threshold();
            self.window.cwnd = (self.window.cwnd / 2 + most.max(restart) / 2).min(self.window.cwnd);
        }
    }

    fn grow(&mut self, ack: &Acked) {
        // In Loss, an ACK that covers a filled hole includes data that left the network long ago (RFC 3465 §2.3).
        let most = match ack.phase {
            CaState::Loss if !self.follows_linux() => ack.progress.mss,
            _ if ack.paced || ack.abc_limit == 0 => u32::MAX,
            _ => u32::from(ack.abc_limit) * ack.progress.mss,
        };
        let mut counted = ack.progress.newly_acked;
        if self.follows_linux() {
            self.sample_by_window(ack);
        } else {
            if self.in_initial_slow_start() {
                counted = self.state().hystart.growth(counted.min(most));
                if let Some(rtt) = ack.rtt {
                    self.note_round_trip(rtt, ack.now, ack.paced);
                }
            }
        }
        let rest = self.window.slow_start(counted, most);
        if self.window.cwnd >= self.window.ssthresh && rest > 0 {
            let mut window = self.window;
            self.state().algorithm.acked(&mut window, ack, rest);
            self.window = window;
        }
    }

    /// Takes a round trip into account by Linux's rules: slow start may end.
    fn sample_by_window(&mut self, ack: &Acked) {
        let window = self.window;
        let Some(rtt) = ack.rtt else { return };
        if let Algorithm::LinuxCubic(cubic) = &mut self.state().algorithm
            && cubic.sample(rtt, ack, &window)
        {
            self.window.ssthresh = self.window.cwnd;
        }
    }

    /// An ACK delivers data that was sent `rtt` microseconds ago, cumulatively or selectively, in the initial slow start
    /// (9406-8). Slow start may end.
    pub(crate) fn note_round_trip(&mut self, rtt: u32, now: Instant, paced: bool) {
        if !self.follows_linux() && self.state().hystart.sample(rtt, now, paced) {
            self.window.ssthresh = self.window.cwnd;
        }
    }

    /// Returns whether the window has grown since the connection began, and was never lowered for congestion. Only then
    /// does HyStart++ want round trips (9406-2).
    #[inline]
    pub(crate) fn in_initial_slow_start(&self) -> bool {
        self.window.ssthresh == u32::MAX
    }

    /// Returns whether there was no congestion yet. Only then do round trips decide on the window.
    #[inline]
    pub(crate) fn explores(&self) -> bool {
        let by_cubic =
            |state: &State| matches!(&state.algorithm, Algorithm::Cubic(cubic) if cubic.explores());
        self.in_initial_slow_start() || self.state.as_deref().is_some_and(by_cubic)
    }

    /// A round of the initial slow start ends. After enough conservative ones, congestion avoidance begins (9406-6).
    fn end_round(&mut self) {
        if let Some(state) = &mut self.state
            && state.hystart.end_round()
        {
            self.window.ssthresh = self.window.cwnd;
        }
    }

    /// There is congestion, with `flight` bytes in flight. Lowers the threshold and returns it; the window is for the
    /// caller to set. Called at most once per window of data.
    pub(crate) fn congested(&mut self, cause: Cause, flight: u32, mss: u32) -> u32 {
        let (window, by_window) = (self.window, self.follows_linux());
        let algorithm = &mut self.state().algorithm;
        let reduced = algorithm.congested(&window, cause, flight, mss);
        let halves = by_window && matches!(algorithm, Algorithm::Reno(_));
        let threshold = if halves { (window.cwnd / mss / 2).max(2) * mss } else { reduced };
        self.window.ssthresh = threshold;
        threshold
    }

    /// Remembers window and state for [`undo`](Controller::undo): an episode of recovery begins.
    pub(crate) fn remember(&mut self) {
        let window = self.window;
        let state = self.state();
        let now = (window, state.algorithm.clone());
        match &mut state.remembered {
            Some(remembered) => **remembered = now,
            None => state.remembered = Some(Box::new(now)),
        }
    }

    /// Restores what was remembered, unless the window has outgrown it: the episode was spurious (9438-7). Linux restores
    /// the threshold whatever the window is, and keeps CUBIC's state.
    pub(crate) fn undo(&mut self) {
        let Some(state) = &mut self.state else { return };
        let Some(remembered) = &state.remembered else { return };
        if self.usage.rules.are_linux() {
            // DRILL-X72
            let before = remembered.0;
            self.window.cwnd = self.window.cwnd.max(before.cwnd);
            self.window.ssthresh = self.window.ssthresh.max(before.ssthresh);
        } else if remembered.0.cwnd > self.window.cwnd {
            (self.window, state.algorithm) = (**remembered).clone();
        }
    }

    fn stop_clock(&mut self) {
        if let Some(state) = &mut self.state {
            state.algorithm.unused();
        }
    }

    /// Nothing was sent for longer than an RTO: at most `restart` bytes may be sent at once (5681-12). Slow start goes
    /// back to three quarters of the window (RFC 2861 §3.2).
    pub(crate) fn idle(&mut self, restart: u32) {
        self.window.keep_threshold();
        self.window.cwnd = self.window.cwnd.min(restart);
        self.stop_clock();
    }

    /// As [`idle`](Controller::idle), but the window is halved for each RTO (RFC 2861 §3.2).
    // DRILL-X10
    pub(crate) fn decay(&mut self, restart: u32, timeouts: u32, mss: u32, now: Tick) {
        let halved = (self.window.cwnd / mss).checked_shr(timeouts).unwrap_or(0) * mss;
        self.usage.note_full(now);
        self.idle(halved.max(restart));
    }

    fn state(&mut self) -> &mut State {
        let rules = self.usage.rules;
        self.state.get_or_insert_with(|| {
            let (hystart, algorithm) = (HyStart::new(), Algorithm::new(rules));
            Box::new(State { hystart, rate: Rate::default(), algorithm, remembered: None })
        })
    }
}

/// IW = `segments`, limited as RFC 6928 limits ten of them: min(10 SMSS, max(2 SMSS, 14600)) (6928-1).
pub(crate) fn initial_window(segments: u8, mss: u32) -> u32 {
    let segments = u32::from(segments);
    (segments * mss).min((2 * mss).max(segments * 1460))
}

/// ssthresh = max(FlightSize × percent / 100, 2 SMSS) (5681-6, 9438-5).
fn reduced(flight: u32, percent: u32, mss: u32) -> u32 {
    ((u64::from(flight) * u64::from(percent) / 100) as u32).max(2 * mss)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use proptest::prelude::*;

    #[test]
    fn the_initial_window_is_that_of_rfc_6928_6928_1() {
        assert_eq!(initial_window(10, 1460), 14_600);
        assert_eq!(initial_window(10, 536), 5360);
        assert_eq!(initial_window(10, 8960), 17_920);
        assert_eq!(initial_window(1, 1460), 1460);
    }

    fn new(choice: Choice, initial_window: u32) -> Controller {
        Controller::new(choice, initial_window, SeqNum(0), Tick(0))
    }

    pub(super) fn acked(now: Instant, newly_acked: u32, mss: u32, srtt: Duration) -> Acked {
        Acked {
            now,
            progress: Progress {
                una: SeqNum(0),
                nxt: SeqNum(0),
                newly_acked,
                prior_flight: 0,
                mss,
                cwnd_limited: true,
                restart: None,
            },
            srtt: srtt.as_micros() as u32,
            min_rtt: srtt.as_micros() as u32,
            rto: 1_000_000,
            rtt: None,
            phase: CaState::Open,
            paced: false,
            abc_limit: 8,
            hystart_detect: 3,
        }
    }

    fn give(cc: &mut Controller, ack: Acked) {
        cc.acked(&ack.progress, |_| ack);
    }

    /// Congestion after which the window is the threshold.
    fn lose(cc: &mut Controller, flight: u32) {
        let ssthresh = cc.congested(Cause::Loss, flight, 1000);
        cc.set_cwnd(ssthresh);
    }

    /// Runs `rtts` round trips in which the whole window is sent and acknowledged. Returns the time after them.
    fn whole_windows(cc: &mut Controller, mut now: Instant, srtt: Duration, rtts: u32) -> Instant {
        for _ in 0..rtts {
            now += srtt;
            for _ in 0..cc.cwnd() / 1000 {
                give(cc, acked(now, 1000, 1000, srtt));
            }
        }
        now
    }

    /// 5681-5: slow start continues until the first loss.
    #[test]
    fn nothing_bounds_slow_start_before_the_first_loss_5681_5() {
        for choice in [Choice::Reno, Choice::Cubic] {
            let mut cc = new(choice, 10_000);
            assert_eq!(cc.ssthresh(), u32::MAX, "{choice:?}");
            whole_windows(&mut cc, Instant::ZERO, Duration::from_millis(100), 10);
            assert_eq!(cc.cwnd(), 10_000 << 10, "{choice:?}");
        }
    }

    /// 9438-12: after a timeout the curve begins where slow start ends, with K = 0, and not below the window of before.
    #[test]
    fn cubic_after_a_timeout_begins_where_slow_start_ends_9438_12() {
        let srtt = Duration::from_millis(100);
        let mut cc = new(Choice::Cubic, 200_000);
        cc.congested(Cause::Timeout, 200_000, 1000);
        cc.set_cwnd(140_000);
        let now = whole_windows(&mut cc, Instant::ZERO, srtt, 1);
        let before = cc.cwnd();
        let end = whole_windows(&mut cc, now, srtt, 20);
        // As Reno, 0.53 segments in each round trip: the curve has 0.4 · 2³. From a W_max of 200 it would have 26.
        assert_eq!(end - now, Duration::from_secs(2));
        assert!((10_000..=11_500).contains(&(cc.cwnd() - before)), "{before} to {}", cc.cwnd());
    }

    /// 9438-13: where HyStart++ has ended slow start, the window grows by a twentieth in a round trip at least, until the
    /// first congestion, or a round trip of one and a half of the smallest.
    #[test]
    fn cubic_before_any_congestion_grows_by_a_twentieth_9438_13() {
        let srtt = Duration::from_millis(20);
        let mut cc = new(Choice::Cubic, 100_000);
        cc.window.ssthresh = 100_000;
        let mut now = Instant::ZERO;
        let mut grown = |cc: &mut Controller, rtt| {
            let before = cc.cwnd();
            for _ in 0..10 {
                now += srtt;
                for _ in 0..cc.cwnd() / 1000 {
                    give(cc, Acked { rtt: Some(rtt), ..acked(now, 1000, 1000, srtt) });
                }
            }
            f64::from(cc.cwnd()) / f64::from(before)
        };
        // 1.05^10 = 1.63.
        let free = grown(&mut cc, 29_999);
        assert!((1.55..1.65).contains(&free), "{free}");
        let queued = grown(&mut cc, 30_000);
        assert!((1.0..1.1).contains(&queued), "{queued}");
        let flight = cc.cwnd();
        lose(&mut cc, flight);
        let later = grown(&mut cc, 20_000);
        assert!((1.0..1.1).contains(&later), "{later}");
    }

    /// 9438-11: the curve after an undo is that of a twin without congestion.
    #[test]
    fn an_undo_brings_the_curve_back_9438_11() {
        let srtt = Duration::from_millis(100);
        let mut cc = new(Choice::Cubic, 200_000);
        lose(&mut cc, 200_000);
        let now = whole_windows(&mut cc, Instant::ZERO, srtt, 10);
        let mut twin = cc.clone();
        cc.remember();
        lose(&mut cc, 140_000);
        cc.undo();
        assert_eq!((cc.cwnd(), cc.ssthresh()), (twin.cwnd(), twin.ssthresh()));
        whole_windows(&mut cc, now, srtt, 30);
        whole_windows(&mut twin, now, srtt, 30);
        assert_eq!(cc.cwnd(), twin.cwnd());
        // A window that has outgrown the one of before stays.
        cc.remember();
        cc.set_cwnd(cc.cwnd() + 1000);
        let grown = cc.cwnd();
        cc.undo();
        assert_eq!(cc.cwnd(), grown);
    }

    /// 7661-1: an idle time lowers the window, and slow start goes back to three quarters of it.
    #[test]
    fn slow_start_after_idle_time_goes_to_three_quarters_7661_1() {
        let mut cc = new(Choice::Reno, 40_000);
        lose(&mut cc, 40_000);
        cc.set_cwnd(100_000);
        cc.idle(10_000);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (10_000, 75_000));
        let mut cc = new(Choice::Reno, 40_000);
        cc.idle(10_000);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (10_000, u32::MAX), "nothing is known of the path");
    }

    /// 9406-4: an ACK counts for eight segments; with pacing, which prevents the burst, for all that it covers.
    #[test]
    fn with_pacing_all_of_an_ack_counts_in_slow_start_9406_4() {
        for (paced, grown) in [(false, 8000), (true, 45_000)] {
            let mut cc = new(Choice::Cubic, 100_000);
            give(&mut cc, Acked { paced, ..acked(Instant::ZERO, 45_000, 1000, Duration::ZERO) });
            assert_eq!(cc.cwnd(), 100_000 + grown);
        }
    }

    /// 9438-2: however far ahead the cubic function is, one round trip adds at most half of the window.
    #[test]
    fn cubic_grows_by_half_in_a_round_trip_at_the_most_9438_2() {
        let mut cc = new(Choice::Cubic, 100_000);
        lose(&mut cc, 100_000);
        let srtt = Duration::from_millis(100);
        whole_windows(&mut cc, Instant::ZERO, srtt, 1);
        let before = cc.cwnd();
        whole_windows(&mut cc, Instant::from_secs(100), srtt, 1);
        let grown = f64::from(cc.cwnd()) / f64::from(before);
        // The base window grows within the round trip too, so the factor approaches e^0.5.
        assert!((1.4..1.65).contains(&grown), "{grown}");
    }

    /// 9438-3: on a short path CUBIC grows as fast as Reno. It adds α = 0.53 segments per round trip, and 1 once the
    /// window is back at its size before the loss.
    #[test]
    fn cubic_is_friendly_to_reno_on_short_paths_9438_3() {
        let mut cc = new(Choice::Cubic, 40_000);
        lose(&mut cc, 40_000);
        assert_eq!(cc.cwnd(), 28_000);
        let srtt = Duration::from_millis(1);
        let now = whole_windows(&mut cc, Instant::ZERO, srtt, 10);
        assert!((33_000..=33_400).contains(&cc.cwnd()), "28 + 10 · 0.53: {}", cc.cwnd());
        let now = whole_windows(&mut cc, now, srtt, 15);
        assert!(
            (41_000..=42_500).contains(&cc.cwnd()),
            "40 after 23 round trips, and two more: {}",
            cc.cwnd()
        );
        let before = cc.cwnd();
        whole_windows(&mut cc, now, srtt, 10);
        assert!((9_500..=10_100).contains(&(cc.cwnd() - before)), "{} to {}", before, cc.cwnd());
    }

    /// 9438-6: time in which the window was not fully used does not count, whether little or nothing was sent.
    #[test]
    fn cubic_does_not_count_time_without_use_9438_6() {
        let srtt = Duration::from_millis(100);
        let grown = |rest: &dyn Fn(&mut Controller)| {
            let mut cc = new(Choice::Cubic, 100_000);
            lose(&mut cc, 100_000);
            whole_windows(&mut cc, Instant::ZERO, srtt, 5);
            let before = cc.cwnd();
            rest(&mut cc);
            whole_windows(&mut cc, Instant::from_secs(60), srtt, 1);
            cc.cwnd() - before
        };
        assert!(grown(&|_| {}) > 30_000, "a minute of use: the window is far beyond the old one");
        assert!(grown(&|cc| cc.idle(100_000)) < 10_000, "a minute of silence");
        assert!(grown(&|cc| cc.stop_clock()) < 10_000, "a minute of little use");
    }

    #[test]
    fn loss_halves_reno_and_takes_three_tenths_off_cubic_5681_6_9438_1() {
        for (choice, expected) in [(Choice::Reno, 50_000), (Choice::Cubic, 70_000)] {
            let mut cc = new(choice, 100_000);
            lose(&mut cc, 100_000);
            assert_eq!((cc.cwnd(), cc.ssthresh()), (expected, expected), "{choice:?}");
            assert_eq!(cc.congested(Cause::Timeout, 0, 1000), 2000, "{choice:?}");
        }
    }

    #[test]
    fn a_mark_reduces_less_than_a_loss_8511_1() {
        for (choice, expected) in [(Choice::Reno, 80_000), (Choice::Cubic, 85_000)] {
            assert_eq!(new(choice, 100_000).congested(Cause::Ecn, 100_000, 1000), expected, "{choice:?}");
        }
    }

    #[test]
    fn congestion_avoidance_of_reno_adds_one_mss_for_each_window_5681_3() {
        let mut cc = new(Choice::Reno, 10_000);
        lose(&mut cc, 20_000);
        assert_eq!(cc.cwnd(), 10_000);
        for _ in 0..10 {
            give(&mut cc, acked(Instant::ZERO, 1000, 1000, Duration::ZERO));
        }
        assert_eq!(cc.cwnd(), 11_000);
    }

    /// 9438-1: beyond the old window the curve goes on from it, not from the window of the moment.
    #[test]
    fn cubic_beyond_its_old_window_follows_the_curve_9438_1() {
        let mut cc = new(Choice::Cubic, 1_000_000);
        lose(&mut cc, 1_000_000);
        // K = cbrt(300 / 0.4) = 9.09 s. After 20 s it is 1000 + 0.4 · 10.91³ = 1520 segments.
        whole_windows(&mut cc, Instant::ZERO, Duration::from_millis(100), 200);
        assert!((1_490_000..=1_560_000).contains(&cc.cwnd()), "{}", cc.cwnd());
    }

    #[test]
    fn cubic_reaches_its_old_window_again_after_k_seconds_9438_1() {
        // W_max = 100 segments, cwnd after the loss 70: K = cbrt(30 / 0.4) = 4.217 s.
        let mut cc = new(Choice::Cubic, 100_000);
        lose(&mut cc, 100_000);
        let srtt = Duration::from_millis(100);
        let mut at_k = 0;
        for tenth in 0..100u64 {
            let now = Instant::from_millis(tenth * 100);
            if tenth == 42 {
                at_k = cc.cwnd();
            }
            for _ in 0..cc.cwnd() / 1000 {
                give(&mut cc, acked(now, 1000, 1000, srtt));
            }
        }
        assert!((97_000..=103_000).contains(&at_k), "{at_k}");
        assert!(cc.cwnd() > 130_000, "{}", cc.cwnd());
    }

    proptest! {
        /// 9438-8: no sequence of events overflows, and the window never falls below one MSS. The MSS may grow.
        #[test]
        fn no_input_overflows_or_starves_a_controller(
            cubic: bool,
            linux: bool,
            mss in 48u32..65_000,
            events in proptest::collection::vec((0u8..6, 0u32..1 << 30, 0u64..1 << 45), 0..100),
        ) {
            let mut cc = new(if cubic { Choice::Cubic } else { Choice::Reno }, initial_window(10, mss));
            if linux {
                cc.follow_linux();
            }
            let mut now = Instant::ZERO;
            for (what, bytes, nanos) in events {
                now += Duration::from_nanos(nanos);
                match what {
                    0 => {
                        cc.remember();
                        let cause = [Cause::Loss, Cause::Ecn, Cause::Timeout][bytes as usize % 3];
                        let ssthresh = cc.congested(cause, bytes, mss);
                        cc.set_cwnd(if cause == Cause::Timeout { mss } else { ssthresh });
                    }
                    1 => cc.undo(),
                    2 => cc.idle(initial_window(10, mss)),
                    3 => {
                        let mut ack = acked(now, bytes, mss, Duration::ZERO);
                        (ack.progress.cwnd_limited, ack.progress.restart) = (false, Some(mss));
                        give(&mut cc, ack);
                    }
                    4 => give(&mut cc, acked(now, bytes, 3 * mss, Duration::ZERO)),
                    _ => give(&mut cc, acked(now, bytes, mss, Duration::from_nanos(nanos / 7))),
                }
                prop_assert!(cc.cwnd() >= mss.min(initial_window(1, mss)));
            }
        }
    }
}

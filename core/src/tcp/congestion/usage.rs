//! Whether a flight uses the window, judged by rounds: from SND.NXT to its acknowledgment.

use super::{Choice, Progress};
use crate::seq::SeqNum;
use crate::time::Tick;

/// The state after Linux has sent what it may. Sizes are segments.
pub(crate) struct Sent {
    /// SND.UNA and SND.NXT.
    pub(crate) una: SeqNum,
    pub(crate) nxt: SeqNum,
    pub(crate) out: u32,
    /// The congestion window holds more back, or is full.
    pub(crate) limited: bool,
    pub(crate) now: Tick,
    /// The RTO in microseconds.
    pub(crate) rto: u64,
    /// A window that is not used is lowered, to at least this; `None`: it stays.
    pub(crate) restart: Option<u32>,
}

/// The algorithm, and whether Linux's rules hold: then the threshold is a part of the window, in whole segments, and not of
/// what was in flight.
// DRILL-X08
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rules {
    Cubic,
    Reno,
    LinuxCubic,
    LinuxReno,
}

impl Rules {
    pub(super) fn of(choice: Choice) -> Rules {
        match choice {
            Choice::Cubic => Rules::Cubic,
            Choice::Reno => Rules::Reno,
        }
    }

    pub(super) fn follow_linux(&mut self) {
        *self = match self {
            Rules::Cubic | Rules::LinuxCubic => Rules::LinuxCubic,
            Rules::Reno | Rules::LinuxReno => Rules::LinuxReno,
        }
    }

    #[inline]
    pub(super) fn are_linux(self) -> bool {
        matches!(self, Rules::LinuxCubic | Rules::LinuxReno)
    }
}

/// The use of the window in the current round.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Usage {
    /// The round ends when this is acknowledged.
    end: SeqNum,
    /// Most bytes in flight in this round, by Linux's rules segments.
    most: u32,
    /// When a round last used the window, or the window was lowered because none did.
    used_at: Tick,
    /// By Linux's rules: the most segments in flight since then.
    idle: u16,
    /// The window limited the sender in this round.
    limited: bool,
    pub(super) rules: Rules,
}

impl Usage {
    pub(super) fn new(una: SeqNum, now: Tick, rules: Rules) -> Usage {
        Usage { end: una, most: 0, used_at: now, idle: 0, limited: false, rules }
    }

    /// Takes an ACK into account, with a window of `cwnd`.
    #[inline]
    pub(super) fn note(&mut self, ack: &Progress, cwnd: u32) {
        // Nothing was in flight where the last round ended: this one began with what was sent then.
        if (ack.una - ack.newly_acked).ge(self.end) {
            (self.end, self.most, self.limited) = (ack.nxt, 0, false);
        }
        self.most = self.most.max(ack.prior_flight);
        self.limited |= ack.cwnd_limited || ack.prior_flight + ack.mss > cwnd;
    }

    /// Returns whether the ACK ends the round. Then the next one begins.
    #[inline]
    pub(super) fn end_round(&mut self, ack: &Progress) -> bool {
        let ends = ack.una.ge(self.end);
        if ends {
            (self.end, self.most, self.limited) = (ack.nxt, 0, false);
        }
        ends
    }

    /// Returns whether the round uses the window, so that it may grow (9438-10). In slow start half of it suffices: the
    /// window doubles in a round, and the flight lags behind.
    #[inline]
    pub(super) fn is_full(&self, cwnd: u32, slow_start: bool) -> bool {
        self.limited || (slow_start && u64::from(self.most) * 2 > u64::from(cwnd))
    }

    pub(super) fn note_full(&mut self, now: Tick) {
        (self.used_at, self.idle) = (now, 0);
    }

    /// Linux has sent what it may, with a window of `cwnd` segments. Returns the segments that the window needed, once it
    /// was not used for an RTO.
    // DRILL-X06
    pub(super) fn note_sent(&mut self, sent: &Sent, cwnd: u32, slow_start: bool) -> Option<u32> {
        let grows = !self.limited && sent.out > self.most;
        if sent.una.ge(self.end) || sent.limited || grows {
            (self.end, self.most, self.limited) = (sent.nxt, sent.out, sent.limited);
        }
        if self.is_full_for_linux(cwnd, slow_start) {
            self.note_full(sent.now);
            return None;
        }
        self.idle = self.idle.max(sent.out.min(u16::MAX.into()) as u16);
        let (restart, elapsed) = (sent.restart?, u64::from(sent.now.elapsed(self.used_at)) * 1_000);
        let used = restart.max(self.idle.into());
        (elapsed >= sent.rto).then(|| {
            self.note_full(sent.now);
            used
        })
    }

    /// Returns whether the last round used a window of `cwnd` segments, or half of it in slow start.
    pub(super) fn is_full_for_linux(&self, cwnd: u32, slow_start: bool) -> bool {
        self.limited || (slow_start && cwnd < 2 * self.most)
    }

    /// Returns whether an ACK of `una` ends the round.
    pub(super) fn has_ended(&self, una: SeqNum) -> bool {
        una.ge(self.end)
    }

    /// Returns the most bytes in flight if no round has used the window for an RTO (in microseconds), once in each RTO.
    pub(super) fn unused_for(&mut self, rto: u64, now: Tick) -> Option<u32> {
        let elapsed = u64::from(now.elapsed(self.used_at)) * 1_000;
        (elapsed >= rto).then(|| {
            self.used_at = now;
            self.most
        })
    }
}

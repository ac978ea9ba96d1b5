//! Whether a flight uses the window, judged by rounds: from SND.NXT to its acknowledgment.

use super::Progress;
use crate::seq::SeqNum;
use crate::time::Tick;

/// The use of the window in the current round.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Usage {
    /// The round ends when this is acknowledged.
    end: SeqNum,
    /// Most bytes in flight in this round.
    most: u32,
    /// When a round last used the window, or the window was lowered because none did.
    used_at: Tick,
    /// The window limited the sender in this round.
    limited: bool,
}

impl Usage {
    pub(super) fn new(una: SeqNum, now: Tick) -> Usage {
        Usage { end: una, most: 0, used_at: now, limited: false }
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
        self.used_at = now;
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

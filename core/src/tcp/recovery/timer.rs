//! The retransmission timer. It is one timer of three: RTO, reordering or loss probe (RFC 8985 §8). The RTO's own
//! deadline is kept behind the other two, so that nothing postpones it.

use super::before::Before;
use super::tlp::Timer;
use crate::seq::SeqNum;
use crate::state::State;
use crate::tcp::tcb::{Connection, Env};
use crate::time::{Deadline, SendTime};

impl Connection {
    /// Starts the timer for the RTO, bounded by the user timeout (6298-10, L5).
    pub(crate) fn arm_retransmit(&mut self, env: &Env<'_>) {
        let rto = self.tcb.rtt.backed_off_micros(env.config);
        self.arm_retransmit_in(rto, env);
    }

    /// As [`arm_retransmit`](Connection::arm_retransmit), in `wait` microseconds.
    fn arm_retransmit_in(&mut self, wait: u64, env: &Env<'_>) {
        self.tail.start_anew();
        self.tcb.timers.retransmit = Some(self.before_user_timeout(Deadline::after_micros(env.now, wait)));
    }

    /// Restarts it after an ACK of new data. If too little is in flight for duplicate ACKs, the RTO runs from when the
    /// oldest data was sent, not from the ACK (7765-1).
    #[inline]
    pub(crate) fn restart_retransmit(&mut self, env: &Env<'_>) {
        /// The threshold of RFC 7765 §4 is four segments: below it there are at most this many full ones.
        const FEW: usize = 3;
        let outstanding = self.flight() as usize + self.unsent();
        if env.config.tcp_rto_restart && outstanding <= FEW * usize::from(self.payload_mss()) {
            self.restart_from_oldest(env);
        } else {
            self.arm_retransmit(env);
        }
    }

    fn restart_from_oldest(&mut self, env: &Env<'_>) {
        let rto = self.tcb.rtt.backed_off_micros(env.config);
        let oldest = self.flight.as_ref().map_or(self.sent, |flight| flight.earliest());
        let age = SendTime::at(env.now).since(oldest).max(0) as u64;
        // A retransmission may be older than the RTO, which its ACK has shortened.
        let wait = rto.checked_sub(age).filter(|wait| *wait > 0).unwrap_or(rto);
        self.arm_retransmit_in(wait, env);
    }

    /// The data at SND.UNA is sent again. The RTO does not come before its ACK can (6298-13). Another purpose of the timer
    /// stays.
    pub(crate) fn give_retransmission_time(&mut self, env: &Env<'_>) {
        self.spare_for(self.tcb.rtt.expected().into(), env);
    }

    /// The RTO does not come within `wait` microseconds.
    fn spare_for(&mut self, wait: u64, env: &Env<'_>) {
        let deadline = Deadline::after_micros(env.now, wait);
        let later = |rto: Deadline| if rto.tick().is_due(deadline.tick()) { deadline } else { rto };
        if let Some(rto) = self.tail.rto {
            self.tail.rto = Some(later(rto));
        } else if let Some(rto) = self.tcb.timers.retransmit {
            self.tcb.timers.retransmit = Some(self.before_user_timeout(later(rto)));
        } else {
            self.arm_retransmit(env);
        }
    }

    /// The device still holds a segment of `len` sequence numbers: it leaves now at the earliest, and its RTO passes from
    /// then on (8985-35). The times of loss probes and of reordered data follow from its send time.
    pub(crate) fn delay(&mut self, start: SeqNum, len: u32, env: &mut Env<'_>) {
        let (una, end) = (self.tcb.snd.una, (start + len).min(self.tcb.snd.nxt));
        let start = start.max(una);
        // The ACK may have come for an earlier copy.
        if start.ge(end) || self.tcb.state == State::SynReceived {
            return;
        }
        self.tcb.rtt.delay((start, end), env.now);
        self.open_flight(env).delay(una, (start, end), SendTime::at(env.now));
        // A peer of which nothing was heard for so long is given up, even if the device never sends again.
        let patient = self.options.r2.is_none_or(|r2| self.unanswered_for(env.tick()) < r2);
        if start == una && patient {
            self.spare_for(self.tcb.rtt.backed_off_micros(env.config), env);
        }
    }

    /// Returns whether data is in flight without a timer, which never happens (8985-12).
    pub(crate) fn lacks_retransmission_timer(&self) -> bool {
        let synchronized = self.tcb.state != State::SynReceived;
        synchronized && self.flight() > 0 && self.tcb.timers.retransmit.is_none()
    }

    /// Nothing is in flight.
    #[inline]
    pub(crate) fn stop_retransmit(&mut self) {
        (self.tail.rto, self.tcb.timers.retransmit) = (None, None);
    }

    /// Waits for reordered data, for `wait` microseconds, unless the RTO comes first (8985-6, 8985-12).
    pub(super) fn arm_reordering(&mut self, wait: u32, env: &Env<'_>) {
        self.restore_rto();
        let deadline = Deadline::after_micros(env.now, wait.into());
        if let Some(rto) = self.tcb.timers.retransmit
            && !rto.tick().is_due(deadline.tick())
        {
            self.tail.wait_before(rto, Timer::Reordering);
            self.tcb.timers.retransmit = Some(deadline);
        }
    }

    #[inline]
    pub(super) fn stop_reordering_timer(&mut self) {
        if self.tail.timer() == Timer::Reordering {
            self.restore_rto();
        }
    }

    /// Makes the timer that of the RTO again.
    pub(super) fn restore_rto(&mut self) {
        if let Some(rto) = self.tail.rto.take() {
            self.tcb.timers.retransmit = Some(self.before_user_timeout(rto));
        }
    }

    /// The time for reordered data is over: it is lost. A timer that runs late detects no more than one that runs in time:
    /// it was set for the last range that could be lost then, and later ones were sent after what was delivered (8985-30).
    pub(crate) fn reordering_timeout(&mut self, env: &mut Env<'_>) {
        self.restore_rto();
        if self.tcb.timers.retransmit.is_some_and(|rto| rto.tick().is_due(env.tick())) {
            // A stall lasted beyond the RTO as well. The retransmission of now has its own.
            self.arm_retransmit(env);
        }
        self.detect_loss(Before::of(self), env);
    }
}

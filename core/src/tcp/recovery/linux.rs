//! Linux's rules of the retransmission timer and of what it sends again (`linux_release`). While the timer is that of a
//! loss probe or of reordering, no deadline of the RTO is kept: it runs from when the oldest data was last sent.

use super::tlp::{Probe, Timer};
use crate::seq::SeqNum;
use crate::state::CaState;
use crate::tcp::tcb::{Connection, Env};
use crate::time::{Deadline, SendTime};

/// An RTO that should have come is due so many microseconds from now.
const SOON: u64 = 1_000;

impl Connection {
    /// New data left, and is accounted for. `probe`: the override timer sent it, and no loss probe follows it.
    // DRILL-X66
    #[cold]
    pub(crate) fn time_new_data_as_linux(&mut self, probe: bool, env: &Env<'_>) {
        if self.tcb.timers.retransmit.is_none() {
            self.arm_retransmit(env);
        } else if self.tail.timer() == Timer::LossProbe {
            self.arm_rto_of_oldest(env);
        }
        if !probe && self.schedules_probe(env) {
            let rto = self.rto_of_oldest(env);
            self.schedule_probe(rto, env);
        }
    }

    /// The data at SND.UNA was sent again: the RTO runs anew.
    // DRILL-X66
    #[cold]
    pub(crate) fn time_retransmission_as_linux(&mut self, env: &Env<'_>) {
        if self.tail.timer() != Timer::Reordering {
            self.arm_rto_of_oldest(env);
        }
    }

    /// The timer after an ACK that covers a segment.
    // DRILL-X66
    #[cold]
    pub(crate) fn restart_timer_as_linux(&mut self, env: &Env<'_>) {
        if self.schedules_probe(env) {
            let rto = Deadline::after_micros(env.now, self.tcb.rtt.backed_off_micros(env.config));
            self.schedule_probe(rto, env);
        } else if self.tail.is_timed() {
            self.arm_rto_of_oldest(env);
        } else {
            self.arm_retransmit(env);
        }
    }

    /// A probe that is out keeps no other from being scheduled, but from being sent.
    // DRILL-X63
    fn schedules_probe(&self, env: &Env<'_>) -> bool {
        self.has_probes(env)
            && matches!(self.ca_state(), CaState::Open | CaState::Cwr)
            && self.flight.as_ref().is_none_or(|flight| flight.trial.is_none())
    }

    /// Schedules a loss probe, no later than `latest`.
    fn schedule_probe(&mut self, latest: Deadline, env: &Env<'_>) {
        let several = self.segments_out().is_none_or(|segments| segments > 1);
        let wait = self.probe_wait_of(several, env.config);
        let deadline = Deadline::after_micros(env.now, wait);
        let rto = self.rto_of_oldest(env);
        self.tail.wait_before(rto, Timer::LossProbe);
        self.tcb.timers.retransmit = Some(Deadline::at(deadline.tick().earlier(latest.tick())));
    }

    /// The RTO from when the oldest data was last sent.
    fn rto_of_oldest(&self, env: &Env<'_>) -> Deadline {
        let oldest = self.flight.as_ref().map_or(self.sent, |flight| flight.earliest());
        let age = SendTime::at(env.now).since(oldest).max(0) as u64;
        let wait = self.tcb.rtt.backed_off_micros(env.config).saturating_sub(age).max(SOON);
        self.before_user_timeout(Deadline::after_micros(env.now, wait))
    }

    pub(crate) fn arm_rto_of_oldest(&mut self, env: &Env<'_>) {
        let rto = self.rto_of_oldest(env);
        self.tail.start_anew();
        self.tcb.timers.retransmit = Some(rto);
    }

    /// The timer of the loss probe fired. Returns `false` if the connection is to be given up instead.
    pub(super) fn loss_probe_timeout_of_linux(&mut self, env: &mut Env<'_>) -> bool {
        if self.user_timeout_at().is_some_and(|end| end.is_due(env.tick())) {
            self.tail.start_anew();
            return false;
        }
        if self.flight() == 0 {
            self.stop_retransmit();
            return true;
        }
        let may = !self.is_recovering();
        match may && self.flight.as_ref().is_none_or(|flight| flight.probe == Probe::None) {
            true => self.make_probe_due(env),
            false => self.arm_rto_of_oldest(env),
        }
        true
    }

    /// The bytes from `start` on, of at most `full`, that may be sent again: what the window takes. Data at SND.UNA probes
    /// a closed one.
    // DRILL-X67
    pub(super) fn room_to_resend(&self, start: SeqNum, full: u32) -> Option<u32> {
        let end = self.tcb.snd.una + self.tcb.snd.wnd;
        if end.gt(start) {
            return Some(end.since(start).min(full));
        }
        (start == self.tcb.snd.una).then_some(full)
    }

    /// An ACK tells the round trip of the last data that it delivers.
    // DRILL-X68
    #[inline]
    pub(crate) fn note_rack_rtt(&mut self, rtt: Option<u32>, env: &Env<'_>) {
        if env.config.follows_linux()
            && self.tcb.snd.sack
            && let Some(rtt) = rtt
            && let Some(quanta) = self.quanta_if_any()
        {
            quanta.rack_rtt = rtt;
        }
    }
}

//! A device that takes no packets, and says so (Linux's `NET_XMIT_DROP`). Nothing that it refuses counts as sent: it is
//! tried again soon, and not ever more slowly.

use super::input::Outcome;
use super::segment::Outgoing;
use super::tcb::{Connection, Env};
use crate::time::{Deadline, Duration};

/// How soon what was refused is tried again.
const RETRY: Duration = Duration::from_millis(500);

impl Connection {
    /// Only an ACK leaves, since nobody misses it. Data waits for its timers.
    // DRILL-X26
    #[cold]
    pub(super) fn next_although_refused(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let pending = &mut self.tcb.snd.pending;
        (pending.window_probe, pending.keepalive_probe) = (false, false);
        let waits = self.unsent() > 0 || (self.tcb.snd.fin_queued && !self.tcb.snd.fin_sent);
        if waits && self.flight() == 0 {
            self.arm_persist(env);
        }
        self.next_ack(out, env)
    }

    /// When the device is asked again to send what is lost.
    pub(super) fn retry_retransmission(&mut self, env: &Env<'_>) {
        let retry = self.before_user_timeout(Deadline::after(env.now, RETRY));
        self.tcb.timers.retransmit = Some(retry);
    }

    /// The persist timer found that the device refuses its probe, or what the window would let out.
    // DRILL-X26
    #[cold]
    pub(super) fn probe_refused(&mut self, env: &mut Env<'_>) -> Outcome {
        let now = env.tick();
        if self.tcb.timers.unanswered_probes == 0 {
            (self.tcb.timers.unanswered_since, self.tcb.snd.stalled_since) = (now, now);
        }
        let probes = self.tcb.timers.unanswered_probes;
        if self.gives_up(self.unanswered_for(now), probes, env) {
            return self.timed_out(env);
        }
        self.tcb.timers.unanswered_probes = probes.saturating_add(1);
        self.tcb.timers.persist = Some(self.before_user_timeout(Deadline::after(env.now, RETRY)));
        Outcome::Keep
    }
}

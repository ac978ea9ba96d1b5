//! What happens when a connection's deadline is over.

use super::congestion::initial_window;
use super::input::{Closed, Outcome};
use super::rtt::model_timeout;
use super::tcb::{Connection, Env, Origin};
use crate::error::Error;
use crate::info::CaState;
use crate::socket::Event;
use crate::time::{Deadline, Duration, Tick};
use crate::trace::{Loss, State, TimerKind, TraceKind};

impl Connection {
    /// Runs every deadline that is due. The connection may have moved them since the wheel's node was armed, so
    /// that often nothing is.
    pub(crate) fn run_timers(&mut self, env: &mut Env<'_>) -> Outcome {
        let now = env.tick();
        let due = |deadline: &mut Option<Deadline>| deadline.take_if(|d| d.tick().is_due(now)).is_some();
        let timers = &mut self.tcb.timers;
        let (retransmit, persist) = (due(&mut timers.retransmit), due(&mut timers.persist));
        let (delayed_ack, life) = (due(&mut timers.delayed_ack), due(&mut timers.life));
        if delayed_ack {
            self.note_timer(TimerKind::DelayedAck, env);
            self.tcb.ack.now = true;
        }
        if retransmit {
            self.note_timer(TimerKind::Retransmit, env);
            if let outcome @ Outcome::Closed(_) = self.retransmission_timeout(env) {
                return outcome;
            }
        }
        if persist {
            self.note_timer(TimerKind::Persist, env);
            if let outcome @ Outcome::Closed(_) = self.persist_timeout(env) {
                return outcome;
            }
        }
        if life {
            return self.life_timeout(env);
        }
        Outcome::Keep
    }

    fn note_timer(&self, kind: TimerKind, env: &mut Env<'_>) {
        env.note(&self.tcb.tuple, TraceKind::Timer(kind));
    }

    /// SA-EST-36, -37 and their kin (6298 §5.4 to §5.7).
    fn retransmission_timeout(&mut self, env: &mut Env<'_>) -> Outcome {
        if self.tcb.state == State::SynReceived {
            return self.syn_ack_timeout(env);
        }
        if self.flight() == 0 {
            return Outcome::Keep;
        }
        let elapsed = since(env.tick(), self.tcb.snd.stalled_since);
        if self.gives_up(elapsed, self.tcb.rtt.backoff, env) {
            return self.timed_out(env);
        }
        let retransmits = self.tcb.rtt.backoff.saturating_add(1);
        env.counters.tcp_timeouts += 1;
        let r1 = model_timeout(env.config, env.config.tcp_retries1);
        let before = elapsed.saturating_sub(self.tcb.rtt.backed_off(env.config));
        if before < r1 && elapsed >= r1 {
            // R1: the application may want to know (SHLD-9). It is a time, as R2 is.
            env.counters.r1_reached += 1;
            self.signal(Event::TROUBLE);
        }
        let (mut flight, mss) = (self.flight(), u32::from(self.payload_mss()));
        if self.recovery.as_ref().is_some_and(|recovery| recovery.phase == CaState::Recovery) {
            // A retransmission was lost too: a second reduction, of what the first one left (5681-14).
            flight = flight.min(self.congestion.cwnd());
        }
        let una = self.tcb.snd.una;
        self.probe_lost(una, true, env);
        if self.tcb.snd.wnd > 0 {
            // A mark of the same window of data has lowered the threshold already (RFC 3168 §6.1.2).
            let repairing = self.recovery.as_ref().is_some_and(|r| r.phase == CaState::Recovery);
            let first = retransmits == 1 && (repairing || !self.reduced_already());
            self.congestion.timeout(env.now, flight, mss, first);
            self.note_reduction();
        }
        self.tcb.rtt.backoff = retransmits;
        self.suspect_black_hole(retransmits, env);
        if let Some(recovery) = self.recovery.as_mut().filter(|_| retransmits > 1) {
            // What was acknowledged selectively is trusted for one round (2018-5).
            recovery.forget_sacked();
        }
        self.resend_all(env, Loss::Timeout);
        self.arm_retransmit(env);
        Outcome::Keep
    }

    /// A SYN-ACK of a full control block: simultaneous open or Fast Open (SA-SYN_RCVD-18, -19).
    fn syn_ack_timeout(&mut self, env: &mut Env<'_>) -> Outcome {
        if self.tcb.rtt.backoff >= env.config.tcp_synack_retries {
            env.counters.synack_retries_exhausted += 1;
            return self.timed_out(env);
        }
        self.tcb.rtt.backoff += 1;
        self.tcb.snd.syn_pending = true;
        env.counters.tcp_syn_retrans += 1;
        env.counters.retrans_segs += 1;
        self.total_retrans += 1;
        self.tcb.rtt.syn_lost();
        // With it goes the initial window (5681-4).
        let mss = u32::from(self.payload_mss());
        self.congestion.set_initial(initial_window(1, mss));
        self.arm_syn_ack(env);
        Outcome::Keep
    }

    pub(crate) fn arm_syn_ack(&mut self, env: &Env<'_>) {
        // Not the RTO of the data to come, which a lost SYN makes longer (6298-11).
        let factor = 1u32.checked_shl(u32::from(self.tcb.rtt.backoff)).unwrap_or(u32::MAX);
        let wait = env.config.tcp_rto_initial.saturating_mul(factor).min(env.config.tcp_rto_max);
        self.tcb.timers.retransmit = Some(Deadline::after(env.now, wait));
    }

    /// Whether `elapsed` without progress, after `retries` retransmissions or probes, is too long: the user
    /// timeout, the limit for orphans, or R2 (MUST-20).
    fn gives_up(&self, elapsed: Duration, retries: u8, env: &Env<'_>) -> bool {
        if !self.options.user_timeout.is_zero() {
            return elapsed >= self.options.user_timeout;
        }
        let orphan_retries = env.config.tcp_orphan_retries;
        if self.is_orphan() && orphan_retries > 0 {
            return retries >= orphan_retries;
        }
        // A clock that jumped says nothing about the peer: without a retransmission there is no R2.
        retries > 0 && self.options.r2.is_some_and(|r2| elapsed >= r2)
    }

    /// SND.WND = 0, data or the FIN waits: probe, ever more slowly, for ever while it is answered (MUST-37).
    fn persist_timeout(&mut self, env: &mut Env<'_>) -> Outcome {
        let waits = self.unsent() > 0 || (self.tcb.snd.fin_queued && !self.tcb.snd.fin_sent);
        if self.flight() > 0 || !waits {
            return Outcome::Keep;
        }
        let timers = &mut self.tcb.timers;
        if timers.probes == 0 {
            timers.probing_since = env.tick();
        }
        let elapsed = since(env.tick(), timers.probing_since);
        let probes = timers.probes;
        if probes > 0 && self.gives_up(elapsed, probes, env) {
            return self.timed_out(env);
        }
        self.tcb.timers.probes = probes.saturating_add(1);
        self.tcb.snd.probe_pending = true;
        self.tcb.rtt.backoff = self.tcb.rtt.backoff.saturating_add(1).min(31);
        let mut next = Deadline::after(env.now, self.tcb.rtt.backed_off(env.config));
        if let Some(end) = self.user_timeout_from(self.tcb.timers.probing_since) {
            next = Deadline::at(next.tick().earlier(end));
        }
        self.tcb.timers.persist = Some(next);
        Outcome::Keep
    }

    fn life_timeout(&mut self, env: &mut Env<'_>) -> Outcome {
        if self.tcb.state == State::FinWait2 && self.is_orphan() {
            // Straight to CLOSED, not to TIME-WAIT: the peer's FIN never came (T5, SA-FIN_WAIT_2-38).
            self.note_timer(TimerKind::FinWait2, env);
            env.counters.tcp_abort_on_linger += 1;
            return Outcome::Closed(Closed { error: None, rst: false });
        }
        if !self.keepalive_on() {
            return Outcome::Keep;
        }
        self.note_timer(TimerKind::Keepalive, env);
        let now = env.tick();
        let idle = since(now, self.tcb.timers.last_received);
        // Only an idle connection is probed (MUST-26).
        if self.flight() > 0 || self.unsent() > 0 {
            // Retransmission and persist timer find out meanwhile; their probes are not for us to forget.
            let wait = self.options.keepalive_time.max(Duration::from_secs(1));
            self.tcb.timers.life = Some(Deadline::after(env.now, wait));
            return Outcome::Keep;
        }
        if idle < self.options.keepalive_time {
            self.tcb.timers.probes = 0;
            self.arm_keepalive(env);
            return Outcome::Keep;
        }
        let timers = &mut self.tcb.timers;
        if timers.probes == 0 {
            timers.probing_since = now;
        }
        let unanswered = since(now, timers.probing_since);
        let exhausted = if self.options.user_timeout.is_zero() {
            timers.probes >= self.options.keepalive_probes
        } else {
            timers.probes > 0 && unanswered >= self.options.user_timeout
        };
        if exhausted {
            return self.timed_out(env);
        }
        timers.probes = timers.probes.saturating_add(1);
        self.tcb.snd.keepalive_pending = true;
        let mut next = Deadline::after(env.now, self.options.keepalive_intvl);
        if let Some(end) = self.user_timeout_from(self.tcb.timers.probing_since) {
            next = Deadline::at(next.tick().earlier(end));
        }
        self.tcb.timers.life = Some(next);
        Outcome::Keep
    }

    fn keepalive_on(&self) -> bool {
        let synchronized = !matches!(self.tcb.state, State::SynReceived);
        self.options.keepalive && synchronized && !self.is_orphan()
    }

    /// Arms the keepalive timer, where it is on: an idle time after the peer was last heard (MUST-26 to -28).
    pub(crate) fn arm_keepalive(&mut self, env: &Env<'_>) {
        if !self.keepalive_on() {
            return;
        }
        let since_heard = since(env.tick(), self.tcb.timers.last_received);
        let wait = self.options.keepalive_time.saturating_sub(since_heard).max(Duration::from_millis(1));
        self.tcb.timers.life = Some(Deadline::after(env.now, wait));
    }

    /// Starts FIN-WAIT-2 of an orphan (T5); while an application holds the socket there is none (T5b).
    pub(crate) fn arm_fin_wait_2(&mut self, env: &Env<'_>) {
        if self.tcb.state == State::FinWait2 && self.is_orphan() && !self.options.fin_timeout.is_zero() {
            self.tcb.timers.life = Some(Deadline::after(env.now, self.options.fin_timeout));
        }
    }

    /// The user timeout was set while something is in flight.
    pub(crate) fn bring_user_timeout_forward(&mut self) {
        if let (Some(deadline), Some(end)) = (self.tcb.timers.retransmit, self.user_timeout_at()) {
            self.tcb.timers.retransmit = Some(Deadline::at(deadline.tick().earlier(end)));
        }
    }

    /// When the user timeout ends what is in flight now.
    pub(crate) fn user_timeout_at(&self) -> Option<Tick> {
        self.user_timeout_from(self.tcb.snd.stalled_since)
    }

    fn user_timeout_from(&self, start: Tick) -> Option<Tick> {
        let timeout = self.options.user_timeout;
        let millis = timeout.as_millis().min(u128::from(Tick::MAX_AHEAD)) as u32;
        (!timeout.is_zero()).then(|| Tick(start.0.wrapping_add(millis)))
    }

    /// The end of patience: the last soft error, if routers reported one, else a timeout (SA-EST-37).
    fn timed_out(&mut self, env: &mut Env<'_>) -> Outcome {
        env.counters.tcp_abort_on_timeout += 1;
        let passive = self.tcb.state == State::SynReceived && self.tcb.origin != Origin::Active;
        let error = self.soft_error.unwrap_or(Error::TimedOut);
        Outcome::Closed(Closed { error: Some(error), rst: !passive })
    }
}

fn since(now: Tick, earlier: Tick) -> Duration {
    Duration::from_millis(u64::from(now.elapsed(earlier)))
}

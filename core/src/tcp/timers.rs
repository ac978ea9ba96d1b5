//! The expiry of a connection's timers.

use super::congestion::{Cause, initial_window};
use super::input::{Closed, Outcome};
use super::recovery::tlp::Timer;
use super::recovery::undo::Frto;
use super::rtt::model_timeout;
use super::tcb::{Connection, Env, Origin};
use crate::error::Error;
use crate::socket::Event;
use crate::state::{CaState, State};
use crate::time::{Deadline, Duration, Tick};
use crate::trace::{TimerKind, TraceKind};

impl Connection {
    /// Runs every deadline that is due. The connection may have moved them since the wheel's node was armed, so
    /// that often nothing is. `idle`: the device holds no packets.
    pub(crate) fn run_timers(&mut self, idle: bool, env: &mut Env<'_>) -> Outcome {
        let now = env.tick();
        let due = |deadline: &mut Option<Deadline>| deadline.take_if(|d| d.tick().is_due(now)).is_some();
        let retransmit = self.retransmit_is_due(idle, env);
        let timers = &mut self.tcb.timers;
        let (persist, delayed_ack, keepalive_or_fin_wait_2) = (
            due(&mut timers.persist),
            due(&mut timers.delayed_ack),
            due(&mut timers.keepalive_or_fin_wait_2),
        );
        if delayed_ack {
            self.note_timer(TimerKind::DelayedAck, env);
            self.tcb.ack.now = true;
        }
        if let Some(target) = retransmit {
            match self.tail.timer() {
                Timer::Reordering => {
                    self.note_timer(TimerKind::Reordering, env);
                    self.reordering_timeout(env);
                }
                Timer::LossProbe if self.loss_probe_timeout(env) => {}
                _ => {
                    self.note_timer(TimerKind::Retransmit, env);
                    if let outcome @ Outcome::Closed(_) = self.retransmission_timeout(target, env) {
                        return outcome;
                    }
                }
            }
        }
        if persist {
            self.note_timer(TimerKind::Persist, env);
            if let outcome @ Outcome::Closed(_) = self.persist_timeout(env) {
                return outcome;
            }
        }
        if keepalive_or_fin_wait_2 {
            return self.keepalive_or_fin_wait_2_timeout(env);
        }
        Outcome::Keep
    }

    pub(super) fn note_timer(&self, kind: TimerKind, env: &mut Env<'_>) {
        env.note(&self.tcb.tuple, TraceKind::Timer(kind));
    }

    /// Takes the deadline of the retransmission timer if it is due. While the device holds packets, an ACK may be among
    /// them, and the timer waits (8985-31).
    fn retransmit_is_due(&mut self, idle: bool, env: &Env<'_>) -> Option<Tick> {
        let deadline = self.tcb.timers.retransmit.filter(|deadline| deadline.tick().is_due(env.tick()))?;
        if !idle && self.tail.postpone(self.tcb.rtt.srtt()) {
            return None;
        }
        self.tcb.timers.retransmit = None;
        Some(deadline.tick())
    }

    /// SA-EST-36, -37 and their kin (6298 §5.4 to §5.7).
    fn retransmission_timeout(&mut self, target: Tick, env: &mut Env<'_>) -> Outcome {
        if self.tcb.state == State::SynReceived {
            return self.syn_ack_timeout(env);
        }
        if self.flight() == 0 {
            return Outcome::Keep;
        }
        let elapsed = self.unanswered_for(env.tick());
        let retransmits = self.tcb.timers.retransmits.saturating_add(1);
        if self.gives_up(elapsed, retransmits - 1, env) {
            return self.timed_out(env);
        }
        if retransmits == 1 && env.config.follows_linux() {
            self.tcb.snd.stalled_since = env.tick();
        }
        env.counters.tcp_timeouts += 1;
        let r1 = model_timeout(env.config, env.config.tcp_retries1);
        let before = elapsed.saturating_sub(self.tcb.rtt.backed_off(env.config));
        if before < r1 && elapsed >= r1 {
            // R1: the application may want to know (SHLD-9). It is a time, as R2 is.
            env.counters.r1_reached += 1;
            self.signal(Event::SOFT_ERROR);
        }
        let (mut flight, mss) = (self.flight(), u32::from(self.payload_mss()));
        let repairing = self.ca_state() == CaState::Recovery;
        if repairing {
            // A retransmission was lost too: a second reduction, of what the first one left (5681-14).
            flight = flight.min(self.reduction().map_or(self.congestion.cwnd(), |prr| prr.ssthresh()));
        }
        let una = self.tcb.snd.una;
        self.pmtu_probe_lost(una, true, env);
        let undo = (!self.is_recovering()).then(|| self.begin_undo(una));
        // Linux takes a closed window for congestion as well. DRILL-X67
        let linux = env.config.follows_linux();
        if self.tcb.snd.wnd > 0 || linux {
            // A mark of the same window of data has lowered the threshold already (RFC 3168 §6.1.2).
            let first = retransmits == 1 && (repairing || !self.reduced_already());
            if first {
                self.congestion.congested(Cause::Timeout, flight, mss);
            }
            self.congestion.set_cwnd(mss);
        }
        self.tcb.timers.retransmits = retransmits;
        if !env.routing.refuses {
            self.tcb.rtt.back_off();
        }
        self.suspect_black_hole(retransmits, env);
        if let Some(flight) = self.flight.as_mut().filter(|_| retransmits > 1) {
            // Selective acknowledgments are trusted for one round (2018-5).
            flight.forget_sacked();
        }
        let was = self.flight.as_ref().map_or(Frto::Off, |flight| flight.frto);
        self.resend_after_timeout(target, env);
        if self.tcb.snd.wnd > 0 || linux {
            self.note_reduction();
        }
        if linux {
            // Beside what is not taken for lost. DRILL-X68
            let segments = self.segments_in_network().unwrap_or(0) + 1;
            self.congestion.time_out_as_linux(segments * mss, env.tick());
        }
        self.begin_frto(undo.is_some(), was, env);
        if let Some(flight) = self.flight.as_mut().filter(|_| undo.is_some()) {
            flight.undo = undo;
        }
        if env.routing.refuses {
            self.retry_retransmission(env)
        } else {
            self.arm_retransmit(env)
        }
        Outcome::Keep
    }

    /// A SYN-ACK of a full control block: simultaneous open or Fast Open (SA-SYN_RCVD-18, -19).
    fn syn_ack_timeout(&mut self, env: &mut Env<'_>) -> Outcome {
        let left = self.handshake_left(env);
        let exhausted = self.tcb.timers.retransmits >= self.syn_ack_retries(env);
        if left.is_some_and(|left| left.is_zero()) || (exhausted && self.handshake_timeout(env).is_zero()) {
            env.counters.synack_retries_exhausted += 1;
            return self.timed_out(env);
        }
        if exhausted {
            self.arm_syn_ack(env);
            return Outcome::Keep;
        }
        self.tcb.timers.retransmits += 1;
        self.tcb.snd.pending.handshake = true;
        self.early_data_is_lost();
        env.counters.tcp_syn_retrans += 1;
        env.counters.retrans_segs += 1;
        self.rare().total_retrans += 1;
        self.tcb.rtt.syn_lost(env.now);
        if self.tcb.timers.retransmits > 1 {
            // With it goes the initial window (5681-4, 6928-1).
            let mss = u32::from(self.payload_mss());
            self.congestion.set_cwnd(initial_window(1, mss));
        }
        self.arm_syn_ack(env);
        Outcome::Keep
    }

    /// How often our SYN-ACK is sent again. Who connects has the patience of a SYN (MUST-23).
    fn syn_ack_retries(&self, env: &Env<'_>) -> u8 {
        if self.tcb.origin == Origin::Active {
            env.config.tcp_syn_retries
        } else {
            env.config.tcp_synack_retries
        }
    }

    /// How long the handshake may take; zero: as long as its retransmissions.
    fn handshake_timeout(&self, env: &Env<'_>) -> Duration {
        let active = self.tcb.origin == Origin::Active;
        if active { self.options.syn_timeout } else { env.config.tcp_synack_timeout }
    }

    /// The rest of that, or of the user timeout (RFC 9293 §3.10.8: in any state), since the first SYN.
    fn handshake_left(&self, env: &Env<'_>) -> Option<Duration> {
        let limits = [self.handshake_timeout(env), self.options.user_timeout];
        let elapsed = since(env.tick(), self.tcb.snd.stalled_since);
        limits.into_iter().filter(|limit| !limit.is_zero()).min().map(|limit| limit.saturating_sub(elapsed))
    }

    /// Arms the timer of the SYN-ACK. Only the SYN-ACKs that it sends itself move it, and nothing that a peer sends.
    pub(crate) fn arm_syn_ack(&mut self, env: &Env<'_>) {
        let retries = self.tcb.timers.retransmits;
        // Not the RTO of the data to come, which a lost SYN makes longer (6298-11).
        let factor = 1u32.checked_shl(u32::from(retries)).unwrap_or(u32::MAX);
        let backed_off = retries > 0 && self.tcb.origin == Origin::Active;
        let slop = if backed_off { env.config.tcp_rto_slop } else { Duration::ZERO };
        let gap = env.config.tcp_rto_initial.saturating_mul(factor) + slop;
        let gap = gap.min(env.config.tcp_rto_max);
        let last = retries >= self.syn_ack_retries(env) && !self.handshake_timeout(env).is_zero();
        let wait = match self.handshake_left(env) {
            Some(left) if last => left,
            Some(left) => gap.min(left),
            None => gap,
        };
        self.tcb.timers.retransmit = Some(Deadline::after(env.now, wait));
    }

    /// How long the peer has said nothing to what is in flight. A peer that answers and keeps its window closed is
    /// alive (SHLD-17); but nobody waits for an orphan.
    pub(super) fn unanswered_for(&self, now: Tick) -> Duration {
        let stalled = since(now, self.tcb.snd.stalled_since);
        if self.is_orphan() { stalled } else { stalled.min(since(now, self.tcb.timers.unanswered_since)) }
    }

    /// Whether the time is over: the user timeout since the last progress; for an orphan `tries` retransmissions or
    /// probes; R2 for a peer that was silent for `unanswered` (MUST-20).
    pub(super) fn gives_up(&self, unanswered: Duration, tries: u8, env: &Env<'_>) -> bool {
        if let Some(end) = self.user_timeout_at() {
            return end.is_due(env.tick());
        }
        let orphan_retries = env.config.tcp_orphan_retries;
        if self.is_orphan() && orphan_retries > 0 {
            return tries >= orphan_retries;
        }
        if env.config.tcp_bsd_rules {
            return tries >= env.config.tcp_retries2;
        }
        // A clock that jumped says nothing about the peer: without a retransmission there is no R2.
        tries > 0 && self.options.r2.is_some_and(|r2| unanswered >= r2)
    }

    /// The window does not let out what waits: probe a closed one, ever more slowly, for as long as somebody wants the
    /// connection and is answered (MUST-37); take a small one as it is (MUST-38).
    fn persist_timeout(&mut self, env: &mut Env<'_>) -> Outcome {
        let waits = self.unsent() > 0 || (self.tcb.snd.fin_queued && !self.tcb.snd.fin_sent);
        if self.flight() > 0 || !waits {
            return Outcome::Keep;
        }
        if env.routing.refuses {
            return self.probe_refused(env);
        }
        let now = env.tick();
        let timers = &mut self.tcb.timers;
        if timers.unanswered_probes == 0 {
            timers.unanswered_since = now;
            if env.config.follows_linux() {
                self.tcb.snd.stalled_since = now;
            }
        }
        // Each probe of an orphan counts, answered or not (RFC 6429 §3). Otherwise only unanswered ones count.
        let (silence, probes) = (self.unanswered_for(now), self.tcb.timers.unanswered_probes);
        let tries = if self.is_orphan() { self.tcb.timers.window_probes } else { probes };
        self.tcb.snd.pending.window_probe = true;
        self.tcb.snd.pending.urgent_probe = self.urgent_end().is_some();
        if self.tcb.snd.wnd == 0 {
            if self.gives_up(silence, tries, env) {
                return self.timed_out(env);
            }
            let timers = &mut self.tcb.timers;
            timers.unanswered_probes = probes.saturating_add(1);
            timers.window_probes = timers.window_probes.saturating_add(1);
        }
        self.tcb.timers.persist = Some(self.persist_deadline(env));
        Outcome::Keep
    }

    /// Something waits that the peer's window does not let out, and nothing is in flight (MUST-36, SHLD-29).
    pub(crate) fn arm_persist(&mut self, env: &Env<'_>) {
        if self.tcb.timers.persist.is_none() {
            self.tcb.snd.stalled_since = env.tick();
            self.tcb.timers.persist = Some(match env.config.follows_linux() {
                true => self.before_user_timeout(Deadline::after(env.now, self.override_wait(env))),
                false => self.persist_deadline(env),
            });
        }
    }

    /// An ACK arrives while nothing is in flight: Linux waits anew.
    // DRILL-X70
    #[inline]
    pub(crate) fn restart_persist_as_linux(&mut self, env: &Env<'_>) {
        if env.config.follows_linux() && self.flight() == 0 && self.tcb.timers.persist.is_some() {
            self.tcb.timers.persist = Some(self.persist_deadline(env));
        }
    }

    /// When a closed window is probed next, or a small one is used after all. The user timeout may come before it.
    fn persist_deadline(&self, env: &Env<'_>) -> Deadline {
        if self.tcb.snd.wnd > 0 {
            return Deadline::after(env.now, self.override_wait(env));
        }
        let doublings = self.tcb.rtt.backoff.saturating_add(self.tcb.timers.window_probes);
        let mut wait = self.tcb.rtt.backed_off_by(env.config, doublings).max(env.config.tcp_rto_min);
        if env.config.follows_linux() {
            wait = self.probe_wait_of_linux(env);
        }
        self.before_user_timeout(Deadline::after(env.now, wait))
    }

    /// How long Linux waits for the next probe. The RTO has its back-off already, which counts twice.
    // DRILL-X70
    fn probe_wait_of_linux(&self, env: &Env<'_>) -> Duration {
        let doublings = self.tcb.rtt.backoff.saturating_add(self.tcb.timers.window_probes);
        let factor = 1u32.checked_shl(doublings.into()).unwrap_or(u32::MAX);
        self.override_wait(env).saturating_mul(factor).min(env.config.tcp_rto_max)
    }

    /// How long silly-window avoidance may wait (RFC 9293 §3.8.6.2.1).
    fn override_wait(&self, env: &Env<'_>) -> Duration {
        if env.config.follows_linux() {
            return self.tcb.rtt.backed_off(env.config).max(env.config.tcp_rto_min);
        }
        self.tcb.rtt.rto(env.config).clamp(Duration::from_millis(100), Duration::from_secs(1))
    }

    /// The window is open, and what waits has not left yet. The timer comes nearer, and never goes further away:
    /// however often the peer speaks, the wait ends.
    #[cold]
    pub(crate) fn window_opened(&mut self, env: &Env<'_>) {
        let soonest = Deadline::after(env.now, self.override_wait(env));
        if let Some(deadline) = &mut self.tcb.timers.persist {
            *deadline = Deadline::at(deadline.tick().earlier(soonest.tick()));
        }
    }

    fn keepalive_or_fin_wait_2_timeout(&mut self, env: &mut Env<'_>) -> Outcome {
        if self.tcb.state == State::FinWait2 && self.is_orphan() {
            // Straight to CLOSED, not to TIME-WAIT: the peer's FIN never came (T5, SA-FIN_WAIT_2-38).
            self.note_timer(TimerKind::FinWait2, env);
            env.counters.tcp_abort_on_linger += 1;
            return Outcome::Closed(Closed { error: None, rst: false });
        }
        if self.is_orphan() {
            self.note_timer(TimerKind::Orphan, env);
            env.counters.orphan_timeouts += 1;
            return self.timed_out(env);
        }
        if !self.keepalive_on(env) {
            return Outcome::Keep;
        }
        self.note_timer(TimerKind::Keepalive, env);
        let now = env.tick();
        let idle = since(now, self.tcb.timers.last_received);
        // Only an idle connection is probed (MUST-26).
        if self.flight() > 0 || self.unsent() > 0 {
            // Retransmission and persist timer find out meanwhile; their probes are not for us to forget.
            let wait = self.options.keepalive_time.max(Duration::from_secs(1));
            self.tcb.timers.keepalive_or_fin_wait_2 = Some(Deadline::after(env.now, wait));
            return Outcome::Keep;
        }
        if idle < self.options.keepalive_time {
            self.tcb.timers.unanswered_probes = 0;
            self.arm_keepalive(env);
            return Outcome::Keep;
        }
        let timers = &mut self.tcb.timers;
        if timers.unanswered_probes == 0 {
            timers.unanswered_since = now;
        }
        let unanswered = since(now, timers.unanswered_since);
        let exhausted = if self.options.user_timeout.is_zero() {
            timers.unanswered_probes >= self.options.keepalive_probes
        } else {
            timers.unanswered_probes > 0 && unanswered >= self.options.user_timeout
        };
        if exhausted {
            return self.give_up(true, env);
        }
        timers.unanswered_probes = timers.unanswered_probes.saturating_add(1);
        self.tcb.snd.pending.keepalive_probe = true;
        let mut next = Deadline::after(env.now, self.options.keepalive_intvl);
        if let Some(end) = self.user_timeout_from(self.tcb.timers.unanswered_since) {
            next = Deadline::at(next.tick().earlier(end));
        }
        self.tcb.timers.keepalive_or_fin_wait_2 = Some(next);
        Outcome::Keep
    }

    // DRILL-F35
    fn keepalive_on(&self, env: &Env<'_>) -> bool {
        let synchronized = !matches!(self.tcb.state, State::SynReceived);
        (self.options.keepalive || env.config.tcp_always_keepalive) && synchronized && !self.is_orphan()
    }

    /// Arms the keepalive timer, where it is on: an idle time after the peer was last heard (MUST-26 to -28).
    pub(crate) fn arm_keepalive(&mut self, env: &Env<'_>) {
        if !self.keepalive_on(env) {
            return;
        }
        let since_heard = since(env.tick(), self.tcb.timers.last_received);
        let wait = self.options.keepalive_time.saturating_sub(since_heard).max(Duration::from_millis(1));
        self.tcb.timers.keepalive_or_fin_wait_2 = Some(Deadline::after(env.now, wait));
    }

    /// Starts FIN-WAIT-2 of an orphan (T5); while an application holds the socket there is none (T5b).
    pub(crate) fn arm_fin_wait_2(&mut self, env: &Env<'_>) {
        if self.tcb.state == State::FinWait2 && self.is_orphan() {
            let limit = Some(self.options.fin_timeout).filter(|limit| !limit.is_zero());
            self.tcb.timers.keepalive_or_fin_wait_2 = limit.map(|limit| Deadline::after(env.now, limit));
            if env.config.follows_linux() {
                // Linux makes another socket of it, which has answered nothing yet. DRILL-X57
                self.forget_answer();
            }
        }
    }

    /// The application is gone. The rest of its data has this much time. Other limits ask only for
    /// progress, which may be a byte per minute.
    pub(crate) fn arm_orphan(&mut self, env: &Env<'_>) {
        let limit = Some(env.config.tcp_orphan_timeout).filter(|limit| !limit.is_zero());
        let queued = Duration::from_secs(self.send_queue.len() as u64 / 1024);
        self.tcb.timers.keepalive_or_fin_wait_2 = limit.map(|limit| Deadline::after(env.now, limit + queued));
    }

    /// The user timeout was set while something waits.
    pub(crate) fn bring_user_timeout_forward(&mut self) {
        let (retransmit, persist) = (self.tcb.timers.retransmit, self.tcb.timers.persist);
        self.tcb.timers.retransmit = retransmit.map(|deadline| self.before_user_timeout(deadline));
        self.tcb.timers.persist = persist.map(|deadline| self.before_user_timeout(deadline));
    }

    /// A deadline, or the user timeout where that is earlier.
    pub(crate) fn before_user_timeout(&self, deadline: Deadline) -> Deadline {
        self.user_timeout_at().map_or(deadline, |end| Deadline::at(deadline.tick().earlier(end)))
    }

    /// When the user timeout ends what is in flight or waits for a window now.
    pub(super) fn user_timeout_at(&self) -> Option<Tick> {
        // Linux counts from the first retransmission. DRILL-X25
        if self.congestion.follows_linux() && self.flight() > 0 && self.tcb.timers.retransmits == 0 {
            return None;
        }
        self.user_timeout_from(self.tcb.snd.stalled_since)
    }

    fn user_timeout_from(&self, start: Tick) -> Option<Tick> {
        let timeout = self.options.user_timeout;
        (!timeout.is_zero()).then(|| {
            let millis = timeout.as_millis().min(u128::from(Tick::MAX_AHEAD)) as u32;
            Tick(start.0.wrapping_add(millis))
        })
    }

    /// The end of patience: the last soft error, if routers reported one, else a timeout (SA-EST-37). The peer is told:
    /// of a passive open, too, an application has the connection, or it would be a half-open entry.
    pub(super) fn timed_out(&mut self, env: &mut Env<'_>) -> Outcome {
        // Linux tells the peer only where keepalive ends. DRILL-X25
        self.give_up(!env.config.follows_linux(), env)
    }

    fn give_up(&mut self, rst: bool, env: &mut Env<'_>) -> Outcome {
        env.counters.tcp_abort_on_timeout += 1;
        let error = self.soft_error.unwrap_or(Error::TimedOut);
        Outcome::Closed(Closed { error: Some(error), rst })
    }
}

fn since(now: Tick, earlier: Tick) -> Duration {
    Duration::from_millis(u64::from(now.elapsed(earlier)))
}

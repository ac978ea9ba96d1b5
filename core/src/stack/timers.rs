//! Passage of time: the wheel, the TIME-WAIT queue, incomplete datagrams.

use std::net::IpAddr;

use super::{Stack, env_of};
use crate::counters::{DropReason, ReplyReason};
use crate::flow::{FlowRef, PackedRef};
use crate::tcp::segment::Reply;
use crate::tcp::tcb::{Armed, Connection};
use crate::time::{Duration, Instant, Tick};
use crate::trace::{TimerKind, TraceKind};
use crate::wheel::{Budget, Due, TimerId, Wheel};
use crate::wire::tcp::Flags;

/// The most work of one [`advance`](Stack::advance): timers of the wheel, ends of TIME-WAIT, and expired datagrams. The
/// limits keep a call short.
const TIMERS: usize = 32;
const TIME_WAITS: usize = 64;
const DATAGRAMS: usize = 16;

/// How far time may run ahead of the timers.
const CATCH_UP: Duration = Duration::from_secs(10 * 86_400);

impl Stack {
    /// Moves time forward without running timers: `advance` runs them. Ticks compare correctly for 24 days only, so
    /// after a longer sleep the timers catch up in steps.
    #[inline]
    pub(super) fn set_now(&mut self, now: Instant) {
        // Compared in nanoseconds: every call comes by here, and a `Duration` would cost a division.
        if now.as_nanos().saturating_sub(self.timers_ran.as_nanos()) > CATCH_UP.as_nanos() as u64 {
            self.catch_up(now);
        } else {
            self.now = self.now.max(now);
        }
    }

    /// Runs a few steps. If timers remain, time stands still until the next call, and `poll_at` says that it is due.
    #[cold]
    fn catch_up(&mut self, now: Instant) {
        const STEPS: usize = 16;
        if self.is_without_timers() {
            self.timers_ran = now;
        }
        for _ in 0..STEPS {
            self.now = self.now.max(now.min(self.timers_ran + CATCH_UP));
            self.run_timers(true);
            if self.now >= now || self.timers_ran < self.now {
                return;
            }
        }
    }

    /// Returns the latest time for the next [`advance`](Stack::advance). It may be earlier than the next timer, and in
    /// the past. It changes with every input, user call and [`transmit`](Stack::transmit).
    pub fn poll_at(&self) -> Option<Instant> {
        let loops = !self.looped.is_empty() || self.astray;
        if loops || !self.closing.is_empty() || !self.forwards.leaving.is_empty() {
            return Some(self.now);
        }
        let (now, at_millis) = (self.tick(), self.now.as_millis());
        let time = |tick: Tick| Instant::from_millis(at_millis + u64::from(tick.since(now)));
        // One by one: a driver asks at each turn and each call, and a chain of iterators costs several times as much.
        let at = earlier(self.wheel.next().map(time), self.time_waits.next().map(time));
        let at = earlier(at, self.fragments.poll_at());
        let at = earlier(at, self.spent_cookies.poll_at());
        let at = earlier(at, self.udp.reports.next_at());
        earlier(earlier(at, self.pacer.next()), self.neighbours_at())
    }

    /// Receives the packets that the stack sent to itself, and runs the timers that are due. If there are too many, it
    /// runs some of them; [`poll_at`](Stack::poll_at) then returns a time that is due at once. Packets thus get their
    /// turn in between.
    ///
    /// The device must be empty: [`receive`](Stack::receive) has taken in what arrived until `now`. Where it may have
    /// more, call [`advance_busy`](Stack::advance_busy).
    #[inline]
    pub fn advance(&mut self, now: Instant) {
        self.advance_with(now, true);
    }

    /// As [`advance`](Stack::advance), for a device that holds more packets than the stack has received, or frames that
    /// it could not send yet. Retransmission timers wait until it holds none, but for a round trip at most: after a stall
    /// of the caller, the ACKs may be among those packets.
    #[inline]
    pub fn advance_busy(&mut self, now: Instant) {
        self.advance_with(now, false);
    }

    #[inline]
    fn advance_with(&mut self, now: Instant, idle: bool) {
        self.set_now(now);
        self.astray = false;
        if !self.looped.is_empty() {
            self.receive_looped();
        }
        if !self.pacer.is_empty() {
            self.release_held();
        }
        self.run_timers(idle);
    }

    /// Runs the timers that are due. `idle`: the device holds no packets.
    #[inline]
    pub(super) fn run_timers(&mut self, idle: bool) {
        let tick = self.tick();
        let mut budget = Budget::of(TIMERS);
        while let Some(target) = self.wheel.pop(tick, &mut budget) {
            match FlowRef::from(PackedRef(target)) {
                FlowRef::Connection(index) => self.connection_timer(index, idle),
                FlowRef::HalfOpen(index) => self.half_open_timer(index),
                FlowRef::Opening(index) => self.opening_timer(index),
                FlowRef::Dormant(index) => {
                    self.dormant[index].timer = TimerId::NONE;
                    let index = self.wake(index);
                    self.connection_timer(index, idle);
                }
                FlowRef::Pending(index) => self.request_timer(index),
                FlowRef::TimeWait(_) => {}
            }
        }
        let mut ended = 0;
        while let Some(index) = self.time_waits.expired(tick).filter(|_| ended < TIME_WAITS) {
            ended += 1;
            let tuple = self.time_waits.tuple(index);
            self.note(&tuple, TraceKind::Timer(TimerKind::TimeWait));
            self.remove_time_wait(index);
        }
        self.expire_fragments();
        self.spent_cookies.expire(self.now);
        let reported = self.udp.reports.is_empty() || self.report_members();
        let minded = (!self.link.is_there() || self.mind_neighbours()) & reported;
        if !self.closing.is_empty() {
            self.close_some();
        }
        if !self.forwards.leaving.is_empty() {
            self.reset_leaving();
        }
        if !budget.is_spent() && ended < TIME_WAITS && minded {
            self.timers_ran = self.now;
        }
    }

    pub(super) fn tick(&self) -> Tick {
        Tick::at(self.now)
    }

    pub(super) fn is_without_timers(&self) -> bool {
        self.wheel.len() == 0 && self.time_waits.len() == 0 && self.fragments.is_empty()
    }

    fn connection_timer(&mut self, index: u32, idle: bool) {
        self.connections[index].armed.node = TimerId::NONE;
        let outcome = self.with_connection(index, |connection, env| {
            let outcome = connection.run_timers(idle, env);
            connection.tcb.timers.move_ahead_of(env.tick());
            outcome
        });
        self.apply(index, outcome, None);
        self.mind_memory();
    }

    /// The SYN-ACK was not answered (SA-SYN_RCVD-18, -19).
    fn half_open_timer(&mut self, index: u32) {
        let retries = self.synack_retries(index);
        let entry = &mut self.half_open[index];
        entry.timer = TimerId::NONE;
        let tuple = entry.tuple;
        if self.listeners[entry.listener].closing {
            return self.forget_half_open(index);
        }
        if entry.waited_enough(&self.config, retries) {
            let (seq, ack, listener) = (entry.iss + 1, entry.irs + 1, entry.listener);
            self.counters.synack_retries_exhausted += 1;
            self.note(&tuple, TraceKind::Timer(TimerKind::Retransmit));
            self.forget_half_open(index);
            if self.config.synack_timeout_rst {
                let mut reply = Reply::ack(tuple, seq, ack, 0, ReplyReason::RstSynAckTimeout);
                reply.header.flags = Flags::RST | Flags::ACK;
                self.reply(reply.with_ip_of(&self.listeners[listener].options));
            }
            return;
        }
        self.note(&tuple, TraceKind::Timer(TimerKind::Retransmit));
        if self.may_repeat_syn_ack(tuple.remote().ip()) {
            self.queue_syn_ack(index, Due::SynAckRetransmit, ReplyReason::SynAckRetransmit);
        } else {
            self.half_open[index].retries += 1;
            self.arm_half_open(index);
        }
    }

    /// Returns whether the network of a client may get another SYN-ACK retransmission. The sources of many SYNs may be
    /// the addresses of one victim, who sent none (THREAT-3). A real client retransmits its SYN, which is always
    /// answered.
    fn may_repeat_syn_ack(&mut self, client: IpAddr) -> bool {
        let limit = self.config.tcp_synack_ratelimit;
        if limit == 0 {
            return true;
        }
        let (slot, jitter) = (self.network_slot(client), self.keys.random());
        let may = self.syn_ack_limit.allow(self.now, slot, limit, jitter);
        self.counters.synack_repeats_saved += u64::from(!may);
        may
    }

    fn opening_timer(&mut self, index: u32) {
        let opening = &mut self.openings[index];
        opening.timer = TimerId::NONE;
        let (tuple, socket) = (opening.tuple, opening.socket);
        let result = opening.timeout(self.now, &self.config);
        let events = std::mem::take(&mut opening.events);
        env_of!(self).note(&tuple, TraceKind::Timer(TimerKind::Retransmit));
        match result {
            Ok(()) => {
                self.notify(socket, events);
                self.queue_opening(index);
            }
            Err(error) => {
                self.counters.tcp_abort_on_timeout += 1;
                self.counters.attempt_fails += 1;
                self.fail_opening(index, error);
            }
        }
    }

    /// The user timeout changed while a SYN is unanswered.
    pub(super) fn rearm_opening(&mut self, index: u32) {
        let opening = &mut self.openings[index];
        // A SYN that waits for its turn uses its node for that.
        if opening.timer != TimerId::NONE && !opening.syn_pending {
            let deadline = Tick::after(opening.last_sent, opening.wait(opening.last_sent, &self.config));
            let target = PackedRef::from(FlowRef::Opening(index)).0;
            opening.timer = self.wheel.rearm(opening.timer, deadline, target);
        }
    }

    /// After a challenge the next SYN leaves as soon as our RST has ended the old connection.
    pub(super) fn hasten_syn(&mut self, index: u32) {
        /// Later than the RST, which leaves at once.
        const SOON: Duration = Duration::from_millis(2);
        let opening = &mut self.openings[index];
        let target = PackedRef::from(FlowRef::Opening(index)).0;
        opening.timer = self.wheel.rearm(opening.timer, Tick::after(self.now, SOON), target);
    }

    pub(super) fn queue_opening(&mut self, index: u32) {
        let opening = &mut self.openings[index];
        if !opening.queued {
            opening.queued = true;
            opening.timer = self.wheel.wait(opening.timer, Due::Syn, index);
        }
    }

    #[inline]
    pub(super) fn expire_fragments(&mut self) {
        if !self.fragments.is_empty() {
            self.expire_some_fragments();
        }
    }

    fn expire_some_fragments(&mut self) {
        for _ in 0..DATAGRAMS {
            let Some(expired) = self.fragments.expire(self.now) else { return };
            self.counters.reasm_timeout += 1;
            self.counters.reasm_fails += 1;
            self.counters.count_drop(DropReason::FragmentTimeout);
            if let Some(quote) = expired.quote {
                self.reassembly_time_exceeded(expired.key.destination, expired.key.source, &quote);
            }
        }
    }
}

/// Arms the wheel for the earliest deadline of a connection, if that is before the armed time. A node that is too early
/// stays: it fires, finds nothing due, and is armed again.
#[inline]
pub(super) fn arm(wheel: &mut Wheel, index: u32, connection: &mut Connection) {
    if connection.tcb.timers.want_arming(&connection.armed) {
        arm_anew(wheel, index, connection);
    }
}

fn arm_anew(wheel: &mut Wheel, index: u32, connection: &mut Connection) {
    let Some(tick) = connection.tcb.timers.earliest() else { return };
    let target = PackedRef::from(FlowRef::Connection(index)).0;
    let node = wheel.rearm(connection.armed.node, tick, target);
    connection.armed = Armed { node, tick };
}

/// Returns the earlier of two times.
#[inline]
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

//! Tail loss probes (RFC 8985 §7). Nothing is sent after the tail of a flight, so that nothing shows its loss. After two
//! round trips without an ACK, one segment more is sent: its ACK shows the losses, long before the RTO.

use crate::config::Config;
use crate::seq::SeqNum;
use crate::state::State;
use crate::tcp::congestion::Cause;
use crate::tcp::flight::Flight;
use crate::tcp::rtt::micros;
use crate::tcp::segment::{Outgoing, Segment};
use crate::tcp::tcb::{Connection, Env};
use crate::time::{Deadline, Duration, SendTime};
use crate::trace::TimerKind;
use crate::wire::tcp::Flags;

/// The lowest value of `tcp_early_retrans` with loss probes.
const ON: u8 = 3;

/// The time for a delayed ACK of a peer to which a probe was needless: the longest delay in common use. In microseconds.
const LONG_ACK_DELAY: u64 = 200_000;

/// The interval before there is a round trip, in microseconds (RFC 8985 §7.2).
const INITIAL: u64 = 1_000_000;

/// The loss probe of a flight: TLP.end_seq and TLP.is_retrans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Probe {
    None,
    /// It leaves with the next turn of the connection.
    Due,
    /// New data up to `end` was sent.
    New {
        end: SeqNum,
    },
    /// The last `len` bytes up to `end` were sent a second time.
    Again {
        end: SeqNum,
        len: u32,
    },
}

impl Probe {
    /// Whether a second copy was sent, and later ACKs decide whether it repaired a loss.
    pub(crate) fn is_copy(self) -> bool {
        matches!(self, Probe::Again { .. })
    }

    /// Bytes of a second copy that are in the network beside the first one (8985-24).
    pub(crate) fn copied(self, una: SeqNum) -> u32 {
        match self {
            Probe::Again { end, len } if una.lt(end) => len,
            _ => 0,
        }
    }
}

/// The purpose of the retransmission timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub(crate) enum Timer {
    #[default]
    Retransmit,
    Reordering,
    LossProbe,
}

/// The part that outlives a flight: the timer, and the experience with loss probes.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(crate) struct Tail {
    /// The deadline of the RTO, while the timer has another purpose.
    pub(super) rto: Option<Deadline>,
    purpose: Timer,
    /// No round trip was measured since the last probe.
    unsampled: bool,
    /// A probe was needless: the peer only delayed its ACK.
    needless: bool,
    /// Times for which the timer was postponed, since it was started.
    postponed: u8,
}

const _: () = assert!(size_of::<Tail>() <= 8);

impl Tail {
    #[inline]
    pub(crate) fn timer(&self) -> Timer {
        if self.rto.is_some() { self.purpose } else { Timer::Retransmit }
    }

    /// Whether the timer has another purpose than the RTO.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.rto.is_some()
    }

    pub(super) fn wait_before(&mut self, rto: Deadline, purpose: Timer) {
        (self.rto, self.purpose, self.postponed) = (Some(rto), purpose, 0);
    }

    /// The timer starts for the RTO.
    #[inline]
    pub(super) fn start_anew(&mut self) {
        (self.rto, self.postponed) = (None, 0);
    }

    /// The timer is due, and may wait for the next tick. Returns `false` once it has waited for a round trip: each time
    /// takes a tick at least.
    pub(crate) fn postpone(&mut self, srtt: Duration) -> bool {
        let most = srtt.as_millis().clamp(1, u128::from(u8::MAX));
        let may = u128::from(self.postponed) < most;
        self.postponed = self.postponed.saturating_add(u8::from(may));
        may
    }

    /// A probe is sent.
    pub(super) fn note_probe(&mut self) {
        self.unsampled = true;
    }

    /// A round trip was measured.
    #[inline]
    pub(crate) fn note_sample(&mut self) {
        self.unsampled = false;
    }

    /// A D-SACK reports a duplicate up to `end`. Returns whether that is the loss probe, which was then needless. It says
    /// nothing about reordering.
    pub(super) fn note_duplicate(&mut self, end: SeqNum, flight: Option<&mut Flight>) -> bool {
        let Some(flight) = flight else { return false };
        let is_probe = matches!(flight.probe, Probe::Again { end: probe, .. } if probe == end);
        if is_probe {
            flight.probe = Probe::None;
            self.needless = true;
        }
        is_probe
    }
}

impl Connection {
    /// Schedules a loss probe for `flight` bytes, never after the RTO (8985-7, 8985-20, 8985-22).
    #[inline]
    pub(crate) fn arm_loss_probe(&mut self, flight: u32, env: &Env<'_>) {
        if self.may_probe(env)
            && let Some(rto) = self.tail.rto.or(self.tcb.timers.retransmit)
        {
            let deadline = Deadline::after_micros(env.now, self.probe_wait(flight, env.config));
            self.wait_for_probe(deadline, rto);
        }
    }

    fn wait_for_probe(&mut self, deadline: Deadline, rto: Deadline) {
        self.tail.wait_before(rto, Timer::LossProbe);
        self.tcb.timers.retransmit = Some(Deadline::at(deadline.tick().earlier(rto.tick())));
    }

    /// Without SACK, while lost data waits, or before a round trip was measured since the last probe, there is none.
    #[inline]
    fn may_probe(&self, env: &Env<'_>) -> bool {
        let repairs = |flight: &Flight| flight.awaits_repair() && !env.config.follows_linux();
        let clear = |flight: &Flight| (flight.shows_no_loss() || repairs(flight)) && flight.trial.is_none();
        let may = !self.tail.unsampled && self.tcb.snd.wnd > 0;
        self.has_probes(env) && may && self.flight.as_ref().is_none_or(|flight| clear(flight))
    }

    /// Whether there are loss probes at all.
    #[inline]
    pub(super) fn has_probes(&self, env: &Env<'_>) -> bool {
        let on = env.config.tcp_early_retrans >= ON;
        self.tcb.snd.sack && on && self.tcb.state != State::SynReceived
    }

    /// PTO of RFC 8985 §7.2 in microseconds (8985-21). A needless probe costs more while losses are repaired, as the window
    /// is reduced again: twice the least wait, which a tick of a coarse clock does not reach.
    #[inline]
    fn probe_wait(&self, flight: u32, config: &Config) -> u64 {
        let wait = self.probe_wait_of(flight > u32::from(self.payload_mss()), config);
        let least = if self.is_recovering() { 2 * u64::from(micros(config.tcp_tlp_min)) } else { 0 };
        wait.max(least)
    }

    /// `several`: more than one segment is in flight.
    pub(super) fn probe_wait_of(&self, several: bool, config: &Config) -> u64 {
        let srtt = self.tcb.rtt.srtt_micros();
        if srtt == 0 {
            return INITIAL;
        }
        let wait = (2 * u64::from(srtt)).max(micros(config.tcp_tlp_min).into());
        if several { wait } else { wait + self.peer_ack_delay(config) }
    }

    fn peer_ack_delay(&self, config: &Config) -> u64 {
        let delay = micros(config.tcp_tlp_max_ack_delay).into();
        if self.tail.needless { LONG_ACK_DELAY.max(delay) } else { delay }
    }

    /// The timer of the loss probe fired. Returns `false` if it is the RTO that is due.
    pub(crate) fn loss_probe_timeout(&mut self, env: &mut Env<'_>) -> bool {
        if env.config.follows_linux() {
            return self.loss_probe_timeout_of_linux(env);
        }
        let Some(rto) = self.tail.rto.take() else { return false };
        let tick = env.tick();
        let given_up = self.user_timeout_at().is_some_and(|end| end.is_due(tick));
        if given_up || self.flight() == 0 || !self.may_probe(env) {
            self.tcb.timers.retransmit = Some(rto).filter(|rto| !rto.tick().is_due(tick));
            return self.tcb.timers.retransmit.is_some();
        }
        // Sending does not move the timer each time.
        let latest = self.flight.as_ref().map_or(self.sent, |flight| flight.latest());
        let passed = SendTime::at(env.now).since(latest).max(0) as u64;
        let wait = self.probe_wait(self.flight(), env.config).saturating_sub(passed);
        if wait > 0 && !rto.tick().is_due(tick) {
            self.wait_for_probe(Deadline::after_micros(env.now, wait), rto);
            return true;
        }
        match self.flight.as_ref().is_some_and(|flight| flight.awaits_repair()) {
            true => self.repeat_repair(env),
            false => self.make_probe_due(env),
        }
        true
    }

    pub(super) fn make_probe_due(&mut self, env: &mut Env<'_>) {
        self.note_timer(TimerKind::LossProbe, env);
        self.open_flight(env).probe = Probe::Due;
        // Whether it leaves or not, the RTO follows (8985-9).
        self.arm_retransmit(env);
    }

    /// Sends the loss probe that is due, whatever the congestion window says: new data, or else the last segment again
    /// (8985-8).
    #[cold]
    pub(crate) fn next_loss_probe(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let due = self.flight.as_mut().filter(|flight| flight.probe == Probe::Due);
        let Some(flight) = due else { return false };
        flight.probe = Probe::None;
        let linux = env.config.follows_linux();
        let may = self.flight() > 0 && (linux || self.may_probe(env)) && self.may_send_now();
        let sent = may && (self.probe_with_new_data(out, env) || self.probe_again(out, env));
        if sent {
            self.tail.note_probe();
            env.counters.tcp_loss_probes += 1;
        } else if linux && self.flight() > 0 {
            self.arm_rto_of_oldest(env);
        }
        sent
    }

    fn probe_with_new_data(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let (unsent, mss) = (self.unsent(), usize::from(self.payload_len_limit()));
        let (nxt, window_end) = (self.tcb.snd.nxt, self.tcb.snd.una + self.tcb.snd.wnd);
        let window = if nxt.lt(window_end) { window_end.since(nxt) as usize } else { 0 };
        let linux = env.config.follows_linux();
        let most = if linux { self.end_of_probe(mss as u32).since(nxt) as usize } else { mss };
        let payload = unsent.min(window).min(most);
        let last = payload == unsent;
        let fin = self.tcb.snd.fin_queued && !self.tcb.snd.fin_sent && last && window > payload;
        // Linux sends whatever it would hold back, if the window takes it. DRILL-X15
        let held_back = match linux {
            true => window < unsent.min(most),
            false => payload < mss && (!last || (self.options.cork && !self.tcb.snd.fin_queued)),
        };
        if held_back || (payload == 0 && !fin) {
            return false;
        }
        let end = nxt + payload as u32 + u32::from(fin);
        if linux {
            self.cut_probe(nxt + payload as u32, fin);
        }
        self.open_flight(env).probe = Probe::New { end };
        let flags = if fin { Flags::FIN } else { Flags::default() };
        self.first_transmission(payload, flags, None, out, env);
        self.note_small_segment(payload, mss);
        if linux {
            self.note_left(env);
            self.arm_retransmit(env);
        }
        true
    }

    fn probe_again(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let full = u32::from(self.payload_len_limit());
        let (una, end, fin) = (self.tcb.snd.una, self.tcb.snd.nxt, self.tcb.snd.fin_sent);
        let window_end = una + self.tcb.snd.wnd;
        let linux = env.config.follows_linux();
        if end.gt(window_end) && !linux {
            return false;
        }
        let (by_quanta, flight) = (self.last_segment(full), self.open_flight(env));
        let len = by_quanta.unwrap_or_else(|| flight.last_segment(una, full, fin));
        let most = if linux { self.room_to_resend(end - len, len) } else { Some(len) };
        let Some(sent) = most else { return false };
        let flight = self.open_flight(env);
        flight.probed(una, len, SendTime::at(env.now));
        flight.probe = Probe::Again { end, len };
        self.resend(end - len, sent, out, env);
        true
    }

    /// Looks at an ACK after a loss probe. `repeats`: it is the last one again. SND.UNA is still that of before.
    #[inline]
    pub(crate) fn end_loss_probe(&mut self, segment: &Segment<'_>, repeats: bool, env: &mut Env<'_>) {
        if self.flight.as_ref().is_some_and(|flight| flight.probe != Probe::None) {
            self.decide_on_probe(segment, repeats, env);
        }
    }

    /// RFC 8985 §7.4.2 (8985-10, 8985-23). A D-SACK has ended a needless probe already.
    #[cold]
    fn decide_on_probe(&mut self, segment: &Segment<'_>, repeats: bool, env: &mut Env<'_>) {
        let ack = segment.ack();
        let advances = ack.gt(self.tcb.snd.una);
        let Some(flight) = self.flight.as_mut() else { return };
        let repaired = matches!(flight.probe, Probe::Again { end, .. } if ack.gt(end));
        let ended = match flight.probe {
            Probe::None => false,
            Probe::Due => advances,
            Probe::New { end } => ack.ge(end),
            // Both copies arrived, at a peer that does not tell which segment is a duplicate.
            Probe::Again { end, .. } => {
                repaired || (repeats && ack == end && segment.options().sack.is_empty())
            }
        };
        if ended {
            flight.probe = Probe::None;
        }
        if repaired {
            // A loss that no ACK shows: it is congestion nevertheless.
            env.counters.tcp_loss_probe_recovery += 1;
            self.reduce_once(Cause::Loss, u32::MAX);
        }
    }
}

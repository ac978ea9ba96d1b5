//! Loss recovery: what an ACK or a timer shows to be lost, and what is retransmitted next. [`rack`] detects losses if
//! the peer supports SACK, [`newreno`] otherwise.
//!
//! An ACK is processed in this order: release what it covers and enter its SACK blocks ([`Connection::deliver`]), grow
//! the window, detect losses ([`Connection::detect_loss`]), enter recovery. Lost data is retransmitted when the congestion
//! window permits.

pub(crate) mod before;
mod linux;
pub(crate) mod newreno;
pub(crate) mod prr;
pub(crate) mod rack;
mod timer;
pub(crate) mod tlp;
pub(crate) mod undo;

use super::congestion::Cause;
use super::flight::Flight;
use super::quanta::LINUX_6_18;
use super::segment::Segment;
use super::tcb::{Connection, Env};
use crate::seq::SeqNum;
use crate::state::CaState;
use crate::time::{Duration, SendTime, Tick};
use crate::trace::{Loss, TimerKind, TraceKind};
use crate::wire::tcp::SackBlocks;
use before::Before;
use prr::{Prr, Report};
use rack::Delivery;
use tlp::Probe;
use undo::Frto;

/// Most ranges of a flight, for each selectively acknowledged one that `tcp_max_sack_ranges` permits.
const RANGES_PER_SACKED: usize = 4;

impl Connection {
    /// Returns whether no loss or reordering is pending.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        self.flight.as_ref().is_none_or(|flight| flight.is_calm())
    }

    pub(crate) fn ca_state(&self) -> CaState {
        self.flight.as_ref().map_or(CaState::Open, |flight| flight.phase)
    }

    /// Returns whether losses are being repaired: the window was reduced for them.
    pub(crate) fn is_recovering(&self) -> bool {
        matches!(self.ca_state(), CaState::Recovery | CaState::Loss)
    }

    /// Returns whether lost data, or a loss probe, waits to be sent.
    #[inline]
    pub(crate) fn has_retransmission(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.has_retransmission())
    }

    fn has_lost_data(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.lost() > 0)
    }

    /// Bytes considered in the network.
    pub(crate) fn in_network(&self) -> u32 {
        let (una, nxt) = (self.tcb.snd.una, self.tcb.snd.nxt);
        self.flight.as_ref().map_or(nxt.since(una), |flight| flight.in_network(una, nxt))
    }

    pub(crate) fn sacked_bytes(&self) -> u32 {
        self.flight.as_ref().map_or(0, |flight| flight.sacked())
    }

    /// Records that new data from SND.NXT on is sent now.
    #[inline]
    pub(super) fn note_sent(&mut self, env: &mut Env<'_>) {
        let now = SendTime::at(env.now);
        let una = self.tcb.snd.una;
        if self.tcb.snd.nxt == una {
            match &mut self.flight {
                None => self.sent = now,
                Some(flight) => flight.sent_anew(una, now),
            }
        } else if self.flight.is_some() || self.sent != now {
            self.note_sent_later(now, env);
        }
    }

    /// Records data that is sent while other data is in flight.
    fn note_sent_later(&mut self, now: SendTime, env: &mut Env<'_>) {
        let nxt = self.tcb.snd.nxt;
        let most = env.config.tcp_max_sack_ranges as usize * RANGES_PER_SACKED;
        self.open_flight(env).sent(nxt, now, most);
    }

    /// The flight with its ranges.
    pub(super) fn open_flight(&mut self, env: &mut Env<'_>) -> &mut Flight {
        let (snd, sent) = (&self.tcb.snd, self.sent);
        let flight = self.flight.get_or_insert_with(|| env.flights.take(snd.una, sent));
        flight.extend_to(snd.nxt);
        flight
    }

    /// Releases what an ACK up to `ack` covers from a calm flight. SND.UNA is still that of before.
    #[inline]
    pub(super) fn release_ranges(&mut self, ack: SeqNum) {
        if let Some(flight) = &mut self.flight {
            flight.release(ack);
        }
    }

    /// Everything is acknowledged: nothing of the flight is left, unless later ACKs decide on a loss probe.
    #[inline]
    pub(super) fn close_flight(&mut self, env: &mut Env<'_>) {
        let linux = env.config.follows_linux();
        // Linux undoes a reduction also after the recovery.
        let open = |flight: &Flight| {
            flight.phase == CaState::Cwr || flight.undo.as_ref().is_some_and(|undo| undo.is_open())
        };
        let lasts = |flight: &Flight| flight.probe.is_copy() || linux && open(flight);
        if let Some(flight) = self.flight.take_if(|flight| !lasts(flight)) {
            env.flights.take_back(flight);
        }
    }

    /// Enters in the flight what a segment acknowledges, cumulatively and selectively (2018-6). SND.UNA is still that of
    /// before. Returns whether its SACK blocks cover new data.
    pub(super) fn deliver(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> bool {
        let una = self.tcb.snd.una;
        let ack = segment.ack().max(una);
        let mut blocks = [(ack, ack); SackBlocks::MAX];
        let mut duplicate = None;
        let blocks: &[_] = if self.tcb.snd.sack && !segment.options().sack.is_empty() {
            self.valid_blocks(segment, &mut blocks, &mut duplicate, env)
        } else {
            &[]
        };
        if self.flight.is_some() {
            self.undo_if_spurious(segment, duplicate, env);
        }
        if blocks.is_empty() && self.is_calm() {
            self.release_ranges(ack);
            return false;
        }
        let min_rtt = self.min_rtt.get().as_micros() as u32;
        let echo_age = self.echo_age(segment, env);
        let most = env.config.tcp_max_sack_ranges;
        let (recover, original) = (self.tcb.snd.recover, self.covers_original(ack));
        let flight = self.open_flight(env);
        let fack = flight.rack.fack.max(una);
        let mut delivery = Delivery::new(SendTime::at(env.now), min_rtt, echo_age, fack);
        delivery.by_last = env.config.follows_linux();
        delivery.originals = env.config.follows_linux().then_some(recover);
        let reneged = flight.acknowledge(una, ack, &mut delivery);
        let mut news = false;
        for block in blocks {
            news |= flight.sack(*block, ack, most, &mut delivery);
        }
        flight.rack.update(&delivery);
        let (of_last, seen) = (flight.rack.rtt, flight.rack.sample().is_some());
        flight.sampled_again = delivery.again;
        delivery.late |= original && env.config.follows_linux();
        if let Some(start) = delivery.reordered {
            let bytes = flight.rack.fack.since(start);
            let mss = u32::from(self.payload_mss());
            self.rare().reordering.note_late(bytes, mss);
        }
        if reneged {
            env.counters.tcp_sack_reneging += 1;
        }
        if seen {
            self.note_rack_rtt(Some(of_last), env);
        }
        self.judge_timeout(segment, delivery.late, news, env);
        news
    }

    /// The SACK blocks that report new data, ascending. A D-SACK block reports a duplicate (2883-1).
    fn valid_blocks<'a>(
        &mut self,
        segment: &Segment<'_>,
        valid: &'a mut [(SeqNum, SeqNum); SackBlocks::MAX],
        duplicate: &mut Option<SeqNum>,
        env: &mut Env<'_>,
    ) -> &'a [(SeqNum, SeqNum)] {
        let (una, nxt) = (self.tcb.snd.una.max(segment.ack()), self.tcb.snd.nxt);
        let mut len = 0;
        let second = segment.options().sack.as_slice().get(1).copied();
        for (i, (left, right)) in segment.options().sack.iter().enumerate() {
            let below = right.le(segment.ack());
            let inside_second = i == 0 && second.is_some_and(|(l, r)| l.le(left) && right.le(r));
            if below || inside_second {
                env.counters.tcp_dsack_recv += 1;
                *duplicate = Some(right);
            } else if left.lt(right) && left.ge(una) && right.le(nxt) {
                valid[len] = (left, right);
                len += 1;
            } else {
                env.counters.tcp_sack_discard += 1;
            }
        }
        *duplicate = duplicate.filter(|_| self.is_credible_duplicate());
        if let Some(end) = *duplicate
            && !self.tail.note_duplicate(end, self.flight.as_deref_mut())
        {
            let flight = self.flight.as_mut();
            if flight.is_none_or(|flight| flight.rack.begins_dsack_round(una, nxt)) {
                self.rare().reordering.widen();
            }
        }
        let valid = &mut valid[..len];
        valid.sort_unstable_by_key(|(left, _)| left.since(una));
        valid
    }

    /// Counts a D-SACK. It reports a needless retransmission, unless there are more of them than of retransmissions: then
    /// the network duplicates packets, or the peer makes them up (8985-33).
    fn is_credible_duplicate(&mut self) -> bool {
        let Some(rare) = self.rare.as_mut() else { return false };
        let credible = rare.dsacks < rare.total_retrans;
        rare.dsacks += u32::from(credible);
        credible
    }

    /// Microseconds since the segment with the echoed timestamp was sent, at least.
    fn echo_age(&self, segment: &Segment<'_>, env: &Env<'_>) -> Option<u32> {
        let ecr = segment.options().timestamps.filter(|_| self.tcb.snd.timestamps)?.ecr;
        let millis = env.timestamp_clock().wrapping_add(self.tcb.ts.offset).wrapping_sub(ecr);
        // The clock counts ticks, which may exceed the elapsed milliseconds by one.
        (ecr != 0 && millis < 1 << 20).then(|| millis.saturating_sub(1) * 1000)
    }

    /// Counts a duplicate ACK: SACK blocks with news, or without SACK an ACK that repeats the last one.
    pub(super) fn count_duplicate_ack(&mut self, env: &mut Env<'_>) {
        let (bytes, mss) = (self.tcb.snd.nxt.since(self.tcb.snd.una), u32::from(self.payload_mss()));
        let sack = self.tcb.snd.sack;
        let flight = self.open_flight(env);
        flight.dupacks += 1;
        if flight.phase == CaState::Recovery && !sack {
            // Forged ones let out no more than was in flight (9937-7).
            let most = flight.prr.map_or(bytes, |prr| prr.recover_fs().min(bytes));
            flight.inflate(mss, most);
        } else if flight.phase == CaState::Open {
            flight.phase = CaState::Disorder;
        }
    }

    /// Detects losses and starts recovery, after an ACK or when the reordering timer fires.
    #[inline]
    pub(crate) fn detect_loss(&mut self, before: Before, env: &mut Env<'_>) {
        if self.flight.is_some() && self.flight() > 0 {
            let before = if self.tcb.snd.sack {
                self.detect_by_time(before, env);
                before
            } else {
                self.detect_by_duplicates(before, env)
            };
            self.reduce_window(before, env.config.linux_release);
        }
    }

    /// In Recovery and Cwr the window follows what an ACK delivers (RFC 9937 §6.2).
    fn reduce_window(&mut self, before: Before, linux_release: u32) {
        let (una, inflight, mss) = (self.tcb.snd.una, self.in_network(), u32::from(self.payload_mss()));
        let sack = self.tcb.snd.sack;
        let Some(flight) = self.flight.as_mut() else { return };
        let (left, marked) = (flight.left(), std::mem::take(&mut flight.marked));
        let phase = flight.phase;
        let Some(prr) = flight.prr.as_mut() else { return };
        let advanced = una.since(before.una);
        let mut delivered = (advanced + left).saturating_sub(before.left);
        if !sack {
            delivered = prr.credible(delivered);
        }
        // Before 6.18 Linux grants no segment more while no loss is being repaired. DRILL-X17
        let sparing = phase == CaState::Cwr && (1..LINUX_6_18).contains(&linux_release);
        let report = Report { delivered, inflight, safe: advanced > 0 && !marked && !sparing };
        if let Some(window) = prr.window(report, mss) {
            self.congestion.set_cwnd(window);
        }
    }

    /// RACK (RFC 8985 §6.2, steps 4 and 5). Without SACKed or retransmitted data there is nothing to detect (8985-18).
    fn detect_by_time(&mut self, before: Before, env: &mut Env<'_>) {
        let in_order = |flight: &Flight| !env.config.follows_linux() || flight.is_delivered_in_order();
        if self.is_calm() && self.flight.as_deref().is_none_or(in_order) {
            self.stop_reordering_timer();
            return;
        }
        let una = self.tcb.snd.una;
        let window = self.reordering_window(env);
        let flight = self.open_flight(env);
        let detected = flight.detect(una, SendTime::at(env.now), window);
        env.counters.tcp_lost_retransmit += u64::from(detected.again);
        match detected.wait {
            Some(wait) => self.arm_reordering(wait, env),
            None => self.stop_reordering_timer(),
        }
        match self.ca_state() {
            CaState::Open | CaState::Disorder | CaState::Cwr if self.has_lost_data() => {
                env.counters.tcp_sack_recovery += 1;
                self.enter_recovery(before, env);
            }
            // Congestion again: the loss of a retransmission is a second sign of it (5681-14).
            // Linux reduces once in an episode. DRILL-X17
            CaState::Recovery if detected.retransmission && !env.config.follows_linux() => {
                self.enter_recovery(before, env);
            }
            _ => {}
        }
    }

    /// The reordering window in microseconds (RFC 8985 §6.2, step 4).
    fn reordering_window(&self, env: &Env<'_>) -> u32 {
        let mss = u32::from(self.payload_mss());
        let threshold = u32::from(env.config.tcp_reordering);
        let enough = self.flight.as_ref().is_some_and(|flight| {
            flight.sacked_ranges() >= threshold || flight.sacked() > (threshold - 1) * mss
        });
        let micros = |time: Duration| time.as_micros() as u32;
        let (min_rtt, srtt) = (micros(self.min_rtt.get()), micros(self.tcb.rtt.srtt()));
        // Two times of a coarse clock may be further apart than what they stand for (8985-29).
        self.reordering().window(enough || self.is_recovering(), min_rtt, srtt)
            + micros(env.config.clock_resolution)
    }

    /// Without SACK, the segment at SND.UNA is lost after enough duplicate ACKs (5681-11), once in a window of data
    /// (6582-1).
    fn detect_by_duplicates(&mut self, before: Before, env: &mut Env<'_>) -> Before {
        let (una, mss) = (self.tcb.snd.una, u32::from(self.payload_mss()));
        let threshold = u32::from(env.config.tcp_reordering);
        let (bytes, behind) = (self.flight(), una.lt(self.tcb.snd.recover));
        if self.is_recovering() || behind {
            return before;
        }
        let flight = self.open_flight(env);
        if flight.dupacks < threshold {
            return before;
        }
        flight.inflation = (threshold * mss).min(bytes);
        flight.mark_head(una, mss);
        env.counters.tcp_reno_recovery += 1;
        // All duplicate ACKs but the last one tell of deliveries before recovery.
        let before = Before { left: ((threshold - 1) * mss).min(bytes), ..before };
        self.enter_recovery(before, env);
        before
    }

    /// Handles the peer's echo of a congestion mark (3168-4). Loss recovery in progress has already reduced the
    /// window.
    pub(super) fn take_ece(&mut self, segment: &Segment<'_>, before: Before, env: &mut Env<'_>) {
        if self.tcb.ecn.on && segment.flags().ece() && self.flight() > 0 && !self.is_recovering() {
            let cause = if env.config.tcp_abe { Cause::Ecn } else { Cause::Loss };
            self.open_flight(env);
            if self.reduce_once(cause, u32::MAX) {
                self.enter_cwr(before, env);
            }
        }
    }

    /// Begins to reduce the window after a mark, over a round trip (9937-9).
    fn enter_cwr(&mut self, before: Before, env: &mut Env<'_>) {
        let prr = Prr::new(self.congestion.ssthresh(), before.flight.saturating_sub(before.left));
        let flight = self.open_flight(env);
        (flight.phase, flight.prr) = (CaState::Cwr, Some(prr));
        if env.config.follows_linux() {
            self.tcb.snd.recover = self.tcb.snd.nxt;
        }
    }

    /// Begins an episode of recovery.
    fn enter_recovery(&mut self, before: Before, env: &mut Env<'_>) {
        let una = self.tcb.snd.una;
        let now = SendTime::at(env.now);
        let again = self.is_recovering();
        // The loss of a retransmission is real, and so are the losses before it.
        let mut undo = (!again).then(|| self.begin_undo(una));
        let flight = self.open_flight(env);
        if let Some(undo) = undo.as_mut().filter(|_| flight.probe.is_copy()) {
            // The probe may be a duplicate as well.
            undo.note_probe();
        }
        flight.undo = undo;
        flight.probe = Probe::None;
        flight.phase = CaState::Recovery;
        flight.forced = true;
        flight.partial_seen = false;
        flight.episode = now;
        self.tcb.snd.recover = self.tcb.snd.nxt;
        let tuple = self.tcb.tuple;
        env.note(&tuple, TraceKind::Loss { seq: una, why: Loss::FastRetransmit });
        // A lost path MTU probe does not indicate congestion (4821-1).
        if !self.pmtu_probe_lost(una, false, env) {
            // Not what limited transmit sent beyond the window (5681-10). In an episode, the flight still includes what was
            // lost in the one before: what that one left counts.
            let left = self.reduction().map_or(self.congestion.cwnd(), |prr| prr.ssthresh());
            self.reduce_once(Cause::Loss, left);
            let prr = Prr::new(self.congestion.ssthresh(), before.flight.saturating_sub(before.left));
            self.open_flight(env).prr = Some(prr);
        }
    }

    /// Nothing was heard of the retransmissions for the time of a probe: the first of them is taken for lost. Its ACK shows
    /// what else is (8985-34).
    #[cold]
    fn repeat_repair(&mut self, env: &mut Env<'_>) {
        self.note_timer(TimerKind::LossProbe, env);
        self.tail.note_probe();
        env.counters.tcp_loss_probes += 1;
        let (before, una, mss) = (Before::of(self), self.tcb.snd.una, u32::from(self.payload_mss()));
        self.open_flight(env).mark_head(una, mss);
        self.enter_recovery(before, env);
        self.arm_retransmit(env);
    }

    /// Updates recovery after SND.UNA advanced by `acked` bytes to `ack`. Returns whether the retransmission
    /// timer must not be restarted (6582-2). `past`: the ACK covers more than what was sent before the window was reduced.
    pub(super) fn acked_in_recovery(&mut self, ack: SeqNum, acked: u32, past: bool) -> bool {
        let mss = u32::from(self.payload_mss());
        let (recover, sack, reduced) = (self.tcb.snd.recover, self.tcb.snd.sack, self.reduced_already());
        let Some(flight) = self.flight.as_mut() else { return false };
        flight.dupacks = 0;
        match flight.phase {
            CaState::Recovery if ack.lt(recover) => {
                if sack {
                    return false;
                }
                let keep_timer = std::mem::replace(&mut flight.partial_seen, true);
                flight.deflate(acked, mss);
                flight.mark_head(ack, mss);
                flight.forced = true;
                return keep_timer;
            }
            // Without SACK Linux waits for an ACK of what follows.
            CaState::Recovery if !sack && !past => {}
            CaState::Recovery => self.end_recovery(),
            CaState::Loss if ack.ge(recover) => self.end_recovery(),
            CaState::Cwr if !reduced && past => self.end_reduction(),
            // The missing segment was only reordered.
            CaState::Disorder if flight.sacked() == 0 => flight.phase = CaState::Open,
            _ => {}
        }
        false
    }

    /// The reduction of the window in Recovery or Cwr.
    pub(crate) fn reduction(&self) -> Option<&Prr> {
        self.flight.as_ref().and_then(|flight| flight.prr.as_ref())
    }

    /// Something is sent while the window is reduced (RFC 9937 §6.3).
    #[inline]
    pub(super) fn note_out(&mut self, bytes: u32) {
        if let Some(prr) = self.flight.as_mut().and_then(|flight| flight.prr.as_mut()) {
            prr.sent(bytes);
        }
    }

    /// The recovery point is acknowledged. Selectively acknowledged ranges beyond it are kept.
    fn end_recovery(&mut self) {
        self.end_reduction();
        let Some(flight) = self.flight.as_mut() else { return };
        (flight.forced, flight.partial_seen, flight.trial, flight.inflation) = (false, false, None, 0);
        flight.frto = Frto::Off;
        if let Some(rare) = &mut self.rare {
            rare.reordering.note_recovery();
        }
    }

    /// The window is the threshold from now on (9937-4).
    pub(super) fn end_reduction(&mut self) {
        let Some(flight) = self.flight.as_mut() else { return };
        if let Some(prr) = flight.prr.take() {
            self.congestion.set_cwnd(prr.ssthresh());
        }
        flight.phase = if flight.sacked() > 0 { CaState::Disorder } else { CaState::Open };
    }

    /// Schedules everything in flight for retransmission, from SND.UNA on. The caller sets the congestion window.
    pub(crate) fn resend_all(&mut self, env: &mut Env<'_>, why: Loss) {
        let una = self.tcb.snd.una;
        let flight = self.open_flight(env);
        flight.mark_all(una);
        // This is no sign of congestion, and the segment size may change.
        flight.undo = None;
        self.begin_loss(env, why);
    }

    /// The retransmission timer fired: the first segment is lost, and of the others those that were sent long enough ago
    /// (8985-17). `target` is the time for which the timer was set: it may run later, after a stall of our own (8985-30).
    /// Without SACK, nothing is known of the others, and all are retransmitted.
    pub(super) fn resend_after_timeout(&mut self, target: Tick, env: &mut Env<'_>) {
        let (una, mss) = (self.tcb.snd.una, u32::from(self.payload_mss()));
        let window = self.reordering_window(env);
        let srtt = self.tcb.rtt.srtt().as_micros() as u32;
        let sack = self.tcb.snd.sack;
        let late = Duration::from_millis(u64::from(env.tick().since(target)));
        // Linux takes the last round trip that RACK saw, in this flight or before. DRILL-X68
        let of_linux = self.quanta().map_or(0, |quanta| quanta.rack_rtt);
        let of_linux = env.config.follows_linux().then_some(of_linux);
        let head = of_linux.map_or(mss, |_| self.first_burst().max(mss));
        let flight = self.open_flight(env);
        if sack {
            let rtt = if flight.rack.newest.is_some() { flight.rack.rtt } else { srtt };
            let age = of_linux.unwrap_or(rtt.saturating_add(window));
            flight.mark_old(una, head, SendTime::at(env.now).earlier_by(late), age);
        } else {
            flight.mark_all(una);
        }
        self.begin_loss(env, Loss::Timeout);
    }

    fn begin_loss(&mut self, env: &mut Env<'_>, why: Loss) {
        let una = self.tcb.snd.una;
        let now = SendTime::at(env.now);
        let flight = self.open_flight(env);
        flight.phase = CaState::Loss;
        flight.probe = Probe::None;
        flight.frto = Frto::Off;
        flight.prr = None;
        flight.dupacks = 0;
        flight.forced = true;
        flight.trial = None;
        flight.inflation = 0;
        flight.episode = now;
        self.tcb.snd.recover = self.tcb.snd.nxt;
        self.tcb.snd.path.forget_in_flight();
        self.tcb.rtt.cancel(env.now);
        let tuple = self.tcb.tuple;
        env.note(&tuple, TraceKind::Loss { seq: una, why });
    }

    /// Start and length of the next retransmission, if one is due and permitted.
    pub(super) fn next_lost(&mut self, env: &mut Env<'_>) -> Option<(SeqNum, u32)> {
        if !self.has_lost_data() || !self.is_recovering() {
            return None;
        }
        let (una, in_network, cwnd) = (self.tcb.snd.una, self.in_network(), self.congestion.cwnd());
        let full = u32::from(self.payload_len_limit());
        let window_end = una + self.tcb.snd.wnd;
        let linux = env.config.follows_linux();
        // In Linux the FIN is a part of the last data, or joins it if that is not full. DRILL-X59
        let fin = u32::from(linux && self.tcb.snd.fin_sent);
        let (start, mut len) = self.open_flight(env).first_lost(una, full + fin)?;
        if len > full && (start + len != self.tcb.snd.nxt || !self.fin_left_with_data()) {
            len = full;
        }
        let end = self.quanta().map(|quanta| quanta.end_of_segment(start, full, window_end));
        if len <= full {
            len = end.map_or(len, |end| len.min(end.since(start)));
        }
        // Old data inside the window is retransmitted normally (SHLD-16), and beyond it only by the timer (MAY-7).
        let mut fits = in_network + len <= cwnd && (start + len).le(window_end);
        if linux {
            let room = self.room_to_resend(start, len);
            len = room.unwrap_or(len);
            fits = room.is_some() && self.quota().0 > 0;
        }
        let flight = self.open_flight(env);
        if flight.frto == Frto::NewData {
            return None;
        }
        if flight.trial.is_some_and(|end| start.ge(end)) {
            return None;
        }
        if !flight.forced && !fits {
            return None;
        }
        flight.forced = false;
        flight.resent(start, len, SendTime::at(env.now));
        if let Some(prr) = &mut flight.prr {
            prr.sent(len);
        }
        if let Some(undo) = &mut flight.undo {
            undo.note_retransmission(start + len, env.timestamp_clock());
        }
        if flight.phase == CaState::Loss {
            env.counters.tcp_slow_start_retrans += 1;
        } else {
            env.counters.tcp_fast_retrans += 1;
        }
        Some((start, len))
    }
}

//! SEGMENT ARRIVES for synchronized connections: the eight checks of RFC 9293 §3.10.7.4, one function each. They
//! include RFC 5961, RFC 7323 and the decisions of `docs/deviations.md`.

use super::quanta::LINUX_6_18;
use super::recovery::before::Before;
use super::segment::Segment;
use super::tcb::{AckKind, Connection, Env, Origin, Tcb};
use crate::counters::{DropReason, ReplyReason};
use crate::error::Error;
use crate::seq::SeqNum;
use crate::socket::Event;
use crate::state::{CaState, State};
use crate::wire::Ecn;
use crate::wire::tcp::Flags;

/// The table update that a handler requests. Only `stack/` performs it.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The connection stays.
    Keep,
    /// The segment was dropped; the connection stays.
    Dropped(DropReason),
    /// The segment was dropped and is answered with a RST as in RFC 9293 §3.5.2; the connection stays.
    Reset(ReplyReason),
    /// SYN-RECEIVED became ESTABLISHED (or CLOSE-WAIT at once).
    Established,
    /// Both FINs are acknowledged: the connection becomes a TIME-WAIT entry.
    TimeWait,
    /// The connection is gone.
    Closed(Closed),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The error reported to the application. `None` if the connection closed normally or the application already
    /// knows.
    pub(crate) error: Option<Error>,
    /// Whether to send a RST to the peer.
    pub(crate) rst: bool,
}

impl Closed {
    const IN_ORDER: Closed = Closed { error: None, rst: false };
}

/// `Ok` passes the segment to the next check; `Err` ends its processing.
pub(super) type Check = Result<(), Outcome>;

impl Connection {
    /// SEGMENT ARRIVES in all states except LISTEN, SYN-SENT and TIME-WAIT.
    #[inline]
    pub(crate) fn segment_arrives(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Outcome {
        if self.is_predicted(segment) {
            return self.take_predicted(segment, env);
        }
        match self.checks(segment, env) {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    /// Like [`segment_arrives`](Connection::segment_arrives), for use while `tcp_mem` is under pressure. Text may be
    /// refused; ACK, RST, FIN and URG are processed as usual.
    pub(crate) fn segment_arrives_under_pressure(
        &mut self,
        segment: &Segment<'_>,
        env: &mut Env<'_>,
    ) -> Outcome {
        match self.checks(segment, env) {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    /// Van Jacobson's header prediction: true for an in-order segment that would pass every check. It carries new
    /// data, a new ACK or a FIN, and no exceptional processing is pending.
    #[inline]
    fn is_predicted(&self, segment: &Segment<'_>) -> bool {
        let Tcb { state, snd, rcv, ts, .. } = &self.tcb;
        let header = segment.header;
        let in_order = match header.options.timestamps {
            // PAWS accepts a timestamp that is not older than TS.Recent.
            Some(timestamps) => !ts.is_ahead_of(timestamps.val),
            None => !snd.timestamps,
        };
        let fin = header.flags.fin();
        let news = match segment.payload.is_empty() {
            false => *state == State::Established && !(rcv.fin_seen || rcv.urgent || rcv.shut),
            true if fin => self.may_receive() && !(rcv.fin_seen || rcv.urgent),
            true => header.ack != snd.una && (*state == State::Established || snd.fin_sent),
        };
        news && Flags(header.flags.0 & !(Flags::PSH | Flags::FIN).0) == Flags::ACK
            && header.seq == rcv.nxt
            && in_order
            && header.options.sack.is_empty()
            && header.window > 0
            && header.ack.since(snd.una) <= snd.nxt.since(snd.una)
            && segment.payload.len() + usize::from(fin) <= rcv.adv.since(rcv.nxt) as usize
            && self.is_calm()
            && self.reassembly.is_none()
    }

    /// Processes a predicted segment: the checks without their exceptional cases.
    #[inline]
    fn take_predicted(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Outcome {
        let (before, rtt) = (Before::of(self), self.round_trip_of(segment.ack(), env));
        self.note_rack_rtt(rtt.filter(|_| segment.ack() != self.tcb.snd.una), env);
        if !env.config.follows_linux() {
            self.resume_quanta();
        } else if self.takes_ack_of(segment) {
            // DRILL-X61
            self.soft_error = None;
            self.resume_quanta();
            self.restart_persist_as_linux(env);
        }
        self.update_window(segment, env);
        if segment.ack() != self.tcb.snd.una {
            let sample = self.sample_of(segment.ack(), env);
            self.release_ranges(segment.ack());
            self.advance(segment.ack(), sample, segment, env);
            self.grow_window(before, rtt, env);
        }
        self.note_heard(segment, env);
        if !segment.payload.is_empty() {
            self.take_in_order(segment.payload, segment.packet, env);
        }
        if segment.flags().fin() || self.tcb.snd.fin_sent || self.tcb.rcv.shut {
            return self.close_predicted(segment, env);
        }
        Outcome::Keep
    }

    /// Ends the processing of a predicted segment if a direction is closed, or closes with it.
    fn close_predicted(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Outcome {
        let mut ended = None;
        if segment.flags().fin() {
            self.note_fin(segment.end() - 1);
            self.resume_quanta();
            ended = self.check_fin(!segment.payload.is_empty(), false, env);
        }
        self.advance_close(env).or(ended).unwrap_or(Outcome::Keep)
    }

    /// The third segment of a handshake, which the half-open entry has checked up to the ACK field.
    pub(crate) fn third_segment_arrives(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Outcome {
        self.complete_handshake(segment, env);
        match self.checks_after_ack(segment, State::SynReceived, env) {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    fn checks(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Result<Outcome, Outcome> {
        let was = self.tcb.state;
        if env.config.follows_linux() && was != State::SynReceived {
            if self.is_half_closed_orphan() {
                // The ACK field is not looked at. DRILL-X57
                self.check_as_linux(segment, env)?;
                return self.checks_after_ack(segment, was, env);
            }
            self.check_flags(segment)?;
            self.check_timestamps(segment, env)?;
            self.check_as_linux(segment, env)?;
        } else {
            let crossing = self.is_crossed_syn_ack(segment);
            self.check_timestamps(segment, env)?;
            self.check_rst(segment, env)?;
            if !crossing {
                self.check_syn(segment, env)?;
                self.check_sequence(segment, env)?;
            }
            self.check_ack_present(segment)?;
        }
        if env.config.follows_linux() && self.is_predicted_by_linux(segment) {
            self.note_timestamp(segment, env);
        }
        self.check_ack(segment, env)?;
        self.checks_after_ack(segment, was, env)
    }

    /// The checks that follow that of the ACK field. `was`: the state before that.
    fn checks_after_ack(
        &mut self,
        segment: &Segment<'_>,
        was: State,
        env: &mut Env<'_>,
    ) -> Result<Outcome, Outcome> {
        let is_late = env.config.follows_linux() && segment.ack().lt(self.tcb.snd.una);
        self.note_heard_at(segment, !is_late, env);
        self.check_urgent(segment);
        let gap = self.reassembly.is_some();
        let forgets = env.config.follows_linux() && self.forgets_text(segment, was);
        let text = if forgets { None } else { self.check_text(segment, env)? };
        let ended = self.check_fin(!segment.payload.is_empty(), gap, env);
        let finished = self.advance_close(env);
        Ok(match (finished.or(ended), was, text) {
            (Some(outcome), ..) => outcome,
            (None, State::SynReceived, _) if self.tcb.state != was => Outcome::Established,
            (None, _, Some(reason)) => Outcome::Dropped(reason),
            (None, ..) => Outcome::Keep,
        })
    }

    /// Returns whether this is the SYN-ACK of a simultaneous open. Its sequence number is RCV.NXT-1, so Table 6 would
    /// reject it (SA-SYN_RCVD-04).
    fn is_crossed_syn_ack(&self, segment: &Segment<'_>) -> bool {
        self.tcb.state == State::SynReceived
            && self.tcb.origin == Origin::Active
            && segment.flags().syn()
            && segment.flags().ack()
            && segment.seq() == self.irs()
            && self.acknowledges_syn(segment)
    }

    /// Returns whether the ACK field covers our SYN and nothing beyond SND.NXT.
    fn acknowledges_syn(&self, segment: &Segment<'_>) -> bool {
        segment.ack().gt(self.tcb.snd.una) && segment.ack().le(self.tcb.snd.nxt)
    }

    /// PAWS, checked first (7323-10).
    fn check_timestamps(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Check {
        // RSTs are exempt. A SYN is challenged whatever its timestamp (5961-5).
        if !self.tcb.snd.timestamps || segment.flags().rst() || segment.flags().syn() {
            return Ok(());
        }
        let Some(timestamps) = segment.options().timestamps else {
            if env.config.tcp_tolerate_missing_ts {
                return Ok(());
            }
            return Err(Outcome::Dropped(DropReason::MissingTimestamp));
        };
        if !self.is_older(timestamps.val, env) {
            return Ok(());
        }
        if env.config.follows_linux() && self.is_reordered_ack(segment) {
            return if segment.seq() == self.tcb.rcv.nxt {
                Ok(())
            } else {
                Err(Outcome::Dropped(DropReason::Paws))
            };
        }
        env.counters.paws_estab += 1;
        self.answer_invalid(segment, false, env);
        Err(Outcome::Dropped(DropReason::Paws))
    }

    /// Returns whether a timestamp is older than a TS.Recent that is still valid (7323-11).
    fn is_older(&self, ts_val: u32, env: &Env<'_>) -> bool {
        /// Seconds without a segment after which TS.Recent is invalid.
        const OLD: u32 = 24 * 24 * 3600;
        let age = || (env.now.as_secs() as u32).wrapping_sub(self.tcb.ts.recent_at);
        self.tcb.ts.is_ahead_of(ts_val) && age() <= OLD
    }

    /// Second check (RFC 5961 §3): a RST is accepted only at RCV.NXT; elsewhere in the window it is challenged.
    fn check_rst(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Check {
        if !segment.flags().rst() {
            return Ok(());
        }
        let (seq, nxt) = (segment.seq(), self.tcb.rcv.nxt);
        // macOS sends a FIN and then a RST with the FIN's sequence number (SA-CLOSE_WAIT-06).
        // FreeBSD drops it. DRILL-F17
        let after_fin = self.peer_has_closed() && seq == nxt - 1 && !env.config.tcp_bsd_rules;
        if seq == nxt || after_fin {
            return Err(self.reset_by_peer(env));
        }
        if seq.within(nxt, self.receive_window()) {
            if env.config.tcp_insecure_rst {
                return Err(self.reset_by_peer(env));
            }
            return Err(self.challenge_or_drop(DropReason::RstChallenged, env));
        }
        Err(Outcome::Dropped(DropReason::RstOutOfWindow))
    }

    pub(super) fn reset_by_peer(&mut self, env: &mut Env<'_>) -> Outcome {
        let error = match self.tcb.state {
            State::SynReceived => {
                env.counters.attempt_fails += 1;
                // After a passive open with Fast Open, the application already holds the connection (N10).
                let active = self.tcb.origin == Origin::Active;
                Some(if active { Error::ConnectionRefused } else { Error::ConnectionReset })
            }
            // The application has closed, and both directions have sent their FIN. FreeBSD tells of it. DRILL-F16
            // Linux too. DRILL-X56
            State::Closing | State::LastAck if !env.config.tcp_bsd_rules && !env.config.follows_linux() => {
                None
            }
            _ if env.config.follows_linux() => Some(self.error_of_reset()),
            _ => Some(Error::ConnectionReset),
        };
        if matches!(self.tcb.state, State::Established | State::CloseWait) {
            env.counters.estab_resets += 1;
        }
        Outcome::Closed(Closed { error, rst: false })
    }

    pub(super) fn peer_has_closed(&self) -> bool {
        matches!(self.tcb.state, State::CloseWait | State::Closing | State::LastAck)
    }

    /// Fourth check, moved before the sequence check: a SYN is challenged whatever its sequence number (5961-5).
    fn check_syn(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Check {
        if !segment.flags().syn() {
            return Ok(());
        }
        if self.tcb.state == State::SynReceived && segment.seq() == self.irs() && !segment.flags().ack() {
            // The peer retransmitted its SYN, so our SYN-ACK was lost (SA-SYN_RCVD-01).
            self.note_timestamp(segment, env);
            if self.acknowledge_invalid(false, env) {
                self.tcb.ack.now = false;
                self.tcb.snd.pending.handshake = true;
                // Data sent after the SYN-ACK is lost too. The next ACK is ambiguous and gives no RTT sample
                // (6298-6).
                self.early_data_is_lost();
                self.tcb.rtt.cancel(env.now);
            }
            return Err(Outcome::Dropped(DropReason::Duplicate));
        }
        if self.tcb.state == State::SynReceived && segment.flags().ack() && !self.acknowledges_syn(segment) {
            // The ACK does not cover our SYN (RFC 9293 §3.5.2 group 2, SA-SYN_RCVD-05).
            return Err(Outcome::Reset(ReplyReason::RstUnacceptableAck));
        }
        if env.config.tcp_insecure_syn && segment.seq().within(self.tcb.rcv.nxt, self.receive_window()) {
            return Err(Outcome::Closed(Closed { error: Some(Error::ConnectionReset), rst: true }));
        }
        Err(self.challenge_syn(env))
    }

    pub(super) fn challenge_syn(&mut self, env: &mut Env<'_>) -> Outcome {
        env.counters.tcp_syn_challenge += 1;
        self.challenge_or_drop(DropReason::SynChallenged, env)
    }

    pub(super) fn challenge_or_drop(&mut self, reason: DropReason, env: &mut Env<'_>) -> Outcome {
        if self.challenge(env) {
            Outcome::Dropped(reason)
        } else {
            Outcome::Dropped(DropReason::ReplyThrottled)
        }
    }

    /// First check: Table 6.
    fn check_sequence(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Check {
        let (seq, len, nxt) = (segment.seq(), segment.len(), self.tcb.rcv.nxt);
        let window = self.receive_window();
        let acceptable = match (len, window) {
            (0, 0) => seq == nxt,
            // FreeBSD takes an empty segment at the right edge itself. DRILL-F37
            (0, _) => seq.within(nxt, window.saturating_add(env.config.tcp_bsd_rules.into())),
            (_, 0) => false,
            _ => seq.within(nxt, window) || (segment.end() - 1).within(nxt, window),
        };
        if acceptable {
            return Ok(());
        }
        let probe = seq == nxt - 1 && segment.payload.len() <= 1;
        let closed_window = window == 0 && seq == nxt;
        let repeated_fin = segment.flags().fin() && segment.end() == nxt;
        // The ACK field is still valid in data sent into a closed window (9293-f). It is also valid in
        // retransmissions while both peers retransmit (RFC 9293 appendix A.2, SA-CLOSING-33).
        if (probe || closed_window || repeated_fin) && self.is_current_ack(segment) {
            self.note_heard(segment, env);
            self.take_ack(segment, env);
            if closed_window {
                self.check_urgent(segment);
            }
            if let Some(outcome) = self.advance_close(env) {
                self.tcb.ack.now = true;
                return Err(outcome);
            }
        }
        let duplicate = self.is_duplicate(segment);
        if duplicate {
            self.note_timestamp_of_duplicate(segment, env);
        }
        self.answer_invalid(segment, probe || closed_window, env);
        Err(Outcome::Dropped(match (duplicate, closed_window) {
            (true, _) => DropReason::Duplicate,
            (_, true) => DropReason::ReceiveBufferFull,
            _ => DropReason::OutOfWindow,
        }))
    }

    /// Answers an unacceptable segment with an ACK. Only empty segments are rate-limited, as in Linux: a sender of
    /// data needs the ACK.
    fn answer_invalid(&mut self, segment: &Segment<'_>, probe: bool, env: &mut Env<'_>) {
        if env.config.follows_linux() && self.tcb.state != State::SynReceived {
            return self.answer_as_linux(segment, env);
        }
        if self.is_duplicate(segment) {
            self.note_duplicate(segment.seq(), segment.seq() + segment.payload.len() as u32);
        }
        /// Payload bytes that make a segment at least as long as an ACK with a full SACK option.
        const PAYS_FOR_BLOCKS: usize = 28;
        if segment.len() > 0 && !segment.flags().syn() {
            // The reply to a forged segment must not be longer than the segment (THREAT-4). The ACK field identifies
            // the peer's own duplicates.
            let snd = &self.tcb.snd;
            let known = segment.ack().ge(snd.una - snd.max_wnd) && segment.ack().le(snd.nxt);
            let short = segment.payload.len() < PAYS_FOR_BLOCKS;
            if short && !known && !self.tcb.ack.now {
                self.tcb.ack.kind = AckKind::Plain;
            }
            self.tcb.ack.now = true;
            let tuple = self.tcb.tuple;
            env.note_reply(&tuple, ReplyReason::UnacceptableAck);
        } else {
            self.acknowledge_invalid(probe, env);
        }
    }

    /// Returns whether everything in the segment was received before.
    fn is_duplicate(&self, segment: &Segment<'_>) -> bool {
        segment.len() > 0 && segment.end().le(self.tcb.rcv.nxt)
    }

    fn is_current_ack(&self, segment: &Segment<'_>) -> bool {
        let (una, nxt) = (self.tcb.snd.una, self.tcb.snd.nxt);
        self.tcb.state != State::SynReceived
            && segment.flags().ack()
            && segment.ack().ge(una)
            && segment.ack().le(nxt)
    }

    /// Linux drops a segment with none of ACK, RST and SYN before it looks at anything else.
    // DRILL-X51
    fn check_flags(&self, segment: &Segment<'_>) -> Check {
        let flags = segment.flags();
        if flags.rst() || flags.syn() { Ok(()) } else { self.check_ack_present(segment) }
    }

    fn check_ack_present(&self, segment: &Segment<'_>) -> Check {
        if segment.flags().ack() { Ok(()) } else { Err(Outcome::Dropped(DropReason::NoAck)) }
    }

    /// Fifth check: the ACK field (RFC 5961 §5).
    fn check_ack(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Check {
        let (ack, una, nxt) = (segment.ack(), self.tcb.snd.una, self.tcb.snd.nxt);
        if self.tcb.state == State::SynReceived {
            if !self.acknowledges_syn(segment) {
                return Err(Outcome::Reset(ReplyReason::RstUnacceptableAck));
            }
            self.complete_handshake(segment, env);
            if self.flight() > 0 {
                self.take_ack_of_early_data(segment, env);
            }
            return Ok(());
        }
        if ack.gt(nxt) {
            // Linux answers since 6.18. DRILL-X45
            if !(1..LINUX_6_18).contains(&env.config.linux_release) {
                self.acknowledge_invalid(false, env);
            }
            return Err(Outcome::Dropped(DropReason::AckOfUnsent));
        }
        // An ACK older than SND.UNA - MAX.SND.WND is unacceptable (5961-7, 5961-8). Before that many numbers are
        // acknowledged, their count is the limit. Our acknowledged FIN counts as one number: an ACK that the peer
        // sent before it is only late.
        // Linux counts the SYN of a connect as well. DRILL-X51
        let syn = env.config.follows_linux() && self.tcb.origin == Origin::Active;
        let numbers = self.bytes_acked + u64::from(self.fin_is_acknowledged()) + u64::from(syn);
        let acked = numbers.min(u64::from(self.tcb.snd.max_wnd)) as u32;
        if ack.lt(una - acked) {
            return Err(self.challenge_or_drop(DropReason::AckTooOld, env));
        }
        if env.config.follows_linux() && !self.takes_ack_of(segment) {
            // DRILL-X61
            self.tcb.snd.wl1 = segment.seq();
        } else if ack.ge(una) {
            self.take_ack(segment, env);
        } else {
            self.take_old_ack(segment, env);
        }
        Ok(())
    }

    /// SYN-RECEIVED becomes ESTABLISHED.
    fn complete_handshake(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) {
        let window = self.advertised_by(segment);
        let syn_end = self.tcb.snd.una + 1;
        self.release_ranges(syn_end);
        let snd = &mut self.tcb.snd;
        snd.una = syn_end;
        (snd.wnd, snd.wl1, snd.wl2) = (window, segment.seq(), segment.ack());
        snd.max_wnd = snd.max_wnd.max(window);
        snd.stalled_since = env.tick();
        snd.pending.handshake = false;
        if let Some(sample) = self.tcb.rtt.completed(segment.ack(), env.now) {
            let edges = (syn_end, self.tcb.snd.nxt);
            self.sample_round_trip(sample, edges, env.config);
            self.min_rtt.note(sample, env.now);
        }
        self.tcb.timers.retransmits = 0;
        self.stop_retransmit();
        self.set_state(State::Established, env);
        if self.tcb.snd.fin_queued {
            self.set_state(State::FinWait1, env);
        }
        if env.config.tcp_bsd_rules {
            self.deliver_syn_data(env);
        }
        if segment.flags().syn() {
            // In a simultaneous open the peer still waits for an ACK.
            self.tcb.ack.now = true;
            if env.config.follows_linux() {
                // Linux takes the second SYN for a duplicate. DRILL-X42
                self.note_duplicate(self.irs(), self.irs() + 1);
            }
        }
        self.arm_keepalive(env);
        self.signal(Event::WRITABLE);
    }

    /// Records that a valid segment arrived and the peer is alive. Keeps its timestamp if it covers the last ACK sent
    /// (7323-9). This runs only after the ACK check (THREAT-29).
    #[inline]
    fn note_heard(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) {
        self.note_heard_at(segment, true, env);
    }

    /// `in_order`: Linux does not keep the timestamp of an old ACK.
    // DRILL-X62
    #[inline]
    fn note_heard_at(&mut self, segment: &Segment<'_>, in_order: bool, env: &mut Env<'_>) {
        self.tcb.timers.last_received = env.tick();
        self.tcb.timers.unanswered_probes = 0;
        if in_order {
            self.note_timestamp(segment, env);
        }
        if self.tcb.ecn.on {
            if segment.flags().cwr() {
                self.tcb.ecn.echo = false;
            }
            if segment.ecn == Ecn::Ce {
                self.tcb.ecn.echo = true;
                self.tcb.ack.now = true;
            }
        }
    }

    #[inline]
    fn note_timestamp(&mut self, segment: &Segment<'_>, env: &Env<'_>) {
        if let Some(timestamps) = segment.options().timestamps.filter(|_| self.tcb.snd.timestamps)
            && segment.seq().le(self.tcb.rcv.last_ack_sent)
            && !self.is_older(timestamps.val, env)
        {
            self.tcb.ts.recent = timestamps.val;
            self.tcb.ts.recent_at = env.now.as_secs() as u32;
            if let Some(rare) = self.rare.as_mut() {
                rare.echo = None;
            }
        }
    }

    /// Echoes the timestamp of duplicate data, although the segment is unacceptable. With the timestamp of the first copy,
    /// the peer's RTT sample would include the time that our ACKs were lost. TS.Recent stays: segments sent before a
    /// needless retransmission may arrive after it, and PAWS must not drop them (RFC 7323 §5.3, R2 before R3).
    ///
    /// The segment must be a plausible retransmission: within a window below RCV.NXT and with a current ACK. Its timestamp
    /// must be one that the peer's clock can have reached at 1000 ticks per second (RFC 7323 §5.4).
    fn note_timestamp_of_duplicate(&mut self, segment: &Segment<'_>, env: &Env<'_>) {
        let Tcb { rcv, ts, .. } = &self.tcb;
        let Some(timestamps) = segment.options().timestamps else { return };
        let sent_again = rcv.nxt.since(segment.seq()) <= rcv.buffer && self.is_current_ack(segment);
        let passed = (env.now.as_secs() as u32).wrapping_sub(ts.recent_at).saturating_add(2);
        let in_time = timestamps.val.wrapping_sub(ts.recent) <= passed.saturating_mul(1000);
        if sent_again && in_time && !self.is_older(timestamps.val, env) {
            self.rare().echo = Some(timestamps.val);
        }
    }

    pub(crate) fn fin_is_acknowledged(&self) -> bool {
        self.tcb.snd.fin_sent && self.tcb.snd.una == self.tcb.snd.nxt
    }

    /// Changes the state when our FIN is acknowledged.
    fn advance_close(&mut self, env: &mut Env<'_>) -> Option<Outcome> {
        if self.tcb.rcv.shut && self.resets_at_end() && self.is_delivered() {
            return Some(Outcome::Closed(Closed { error: None, rst: true }));
        }
        if !self.fin_is_acknowledged() {
            return None;
        }
        match self.tcb.state {
            State::FinWait1 => {
                self.set_state(State::FinWait2, env);
                self.arm_fin_wait_2(env);
                None
            }
            State::Closing => Some(self.begin_time_wait(env)),
            State::LastAck => Some(Outcome::Closed(Closed::IN_ORDER)),
            _ => None,
        }
    }

    /// Sixth check: urgent data is delivered in line. The application is notified once per run of urgent data
    /// (MUST-31, -32).
    fn check_urgent(&mut self, segment: &Segment<'_>) {
        if !segment.flags().urg() || !self.may_receive() {
            return;
        }
        let up = segment.seq() + u32::from(segment.header.urgent);
        let ahead = self.urgent_received().unwrap_or(self.tcb.rcv.nxt).max(self.tcb.rcv.nxt);
        if up.gt(ahead) {
            if !std::mem::replace(&mut self.tcb.rcv.urgent, true) {
                self.signal(Event::URGENT);
            }
            self.rare().urgent_received = Some(up);
        }
    }

    /// Seventh check: takes the text and records the position of the FIN.
    fn check_text(
        &mut self,
        segment: &Segment<'_>,
        env: &mut Env<'_>,
    ) -> Result<Option<DropReason>, Outcome> {
        if segment.payload.is_empty() && !segment.flags().fin() {
            return Ok(None);
        }
        if env.config.follows_linux()
            && let Some(done) = self.text_for_closed_end(segment, env)
        {
            return done;
        }
        if !self.may_receive() {
            // Nothing can follow the peer's FIN, which was already taken (SA-CLOSE_WAIT-18 to -20).
            self.tcb.ack.now = true;
            return Ok((!segment.payload.is_empty()).then_some(DropReason::DataAfterFin));
        }
        let text_end = segment.seq() + segment.payload.len() as u32;
        if self.is_orphan()
            && !self.resets_at_end()
            && text_end.gt(self.tcb.rcv.nxt)
            && !segment.payload.is_empty()
        {
            // The application has closed and will not read the data, so reset (SHLD-3, SA-FIN_WAIT_1-26,
            // SA-FIN_WAIT_2-39). Old text retransmitted with a FIN does not count: it was delivered.
            env.counters.tcp_abort_on_data += 1;
            self.tcb.rcv.nxt = self.tcb.rcv.nxt.max(segment.end());
            return Err(Outcome::Closed(Closed { error: None, rst: true }));
        }
        let dropped = self.take_text(segment, env);
        if self.tcb.rcv.urgent && self.urgent_received().is_none_or(|up| self.tcb.rcv.nxt.ge(up)) {
            self.tcb.rcv.urgent = false;
        }
        Ok(match dropped {
            None if self.tcb.rcv.shut && !segment.payload.is_empty() => Some(DropReason::DataAfterShutdown),
            dropped => dropped,
        })
    }

    /// Eighth check: takes the FIN when it is in order.
    /// The segment has text, and something was missing before it.
    fn check_fin(&mut self, text: bool, gap: bool, env: &mut Env<'_>) -> Option<Outcome> {
        if !self.may_receive() || !self.take_fin() {
            return None;
        }
        if env.config.follows_linux() && self.tcb.state == State::Established {
            self.delay_ack_of_fin(text, gap, env);
        }
        match self.tcb.state {
            State::Established => {
                self.set_state(State::CloseWait, env);
                None
            }
            State::FinWait1 if !self.fin_is_acknowledged() => {
                self.set_state(State::Closing, env);
                None
            }
            // Includes FIN-WAIT-1 when the FIN also acknowledges ours, without passing through FIN-WAIT-2 (RFC 9293
            // §3.3.2 note 2, N3).
            _ => Some(self.begin_time_wait(env)),
        }
    }

    fn begin_time_wait(&mut self, env: &mut Env<'_>) -> Outcome {
        if !self.is_half_closed_orphan() {
            // The entry has answered nothing yet. DRILL-X57
            self.forget_answer();
        }
        self.set_state(State::TimeWait, env);
        Outcome::TimeWait
    }

    /// Handles an ICMP error about a segment in flight (5927-1 to -3). Hard errors are treated as soft once the
    /// connection is synchronized.
    pub(crate) fn icmp_error(&mut self, seq: SeqNum, error: Error, hard: bool, env: &mut Env<'_>) -> Outcome {
        // Linux takes SND.NXT too. DRILL-X61
        let more = u32::from(env.config.follows_linux());
        if !seq.within(self.tcb.snd.una, self.flight() + more) {
            return Outcome::Dropped(DropReason::IcmpNotInFlight);
        }
        if env.config.tcp_bsd_rules {
            // DRILL-F26
            return Outcome::Keep;
        }
        if hard && self.tcb.state == State::SynReceived {
            env.counters.attempt_fails += 1;
            return Outcome::Closed(Closed { error: Some(error), rst: false });
        }
        self.soft_error = Some(error);
        self.signal(Event::SOFT_ERROR);
        Outcome::Keep
    }

    /// A router has no route for the segment at SND.UNA, which was sent again: that is no congestion. One back-off is taken
    /// back (6069-1), as in Linux.
    // DRILL-X69
    pub(crate) fn revert_back_off(&mut self, seq: SeqNum, env: &Env<'_>) {
        let backed_off = self.tcb.timers.retransmits > 0 && self.tcb.rtt.backoff > 0;
        if backed_off && seq == self.tcb.snd.una && self.flight() > 0 && self.ca_state() == CaState::Loss {
            self.tcb.rtt.backoff -= 1;
            self.arm_rto_of_oldest(env);
        }
    }
}

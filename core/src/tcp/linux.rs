//! The rules of Linux that `linux_release` selects: which segments are acceptable, one limit for all answers to the
//! others, when an ACK is delayed, and how a closed end answers data.

use super::input::{Check, Closed, Outcome};
use super::quanta::LINUX_6_17;
use super::segment::Segment;
use super::tcb::{Connection, Env};
use crate::config::Config;
use crate::counters::{DropReason, ReplyReason};
use crate::error::Error;
use crate::state::State;
use crate::time::{Deadline, Duration};

/// How long an ACK waits once data has come.
const ACK_TIMEOUT: Duration = Duration::from_millis(40);
/// How long it waits before: until the next tick of a clock of 250 Hz.
const TICK: Duration = Duration::from_millis(4);
/// Segments that are acknowledged at once after a sign of loss.
const QUICK: u8 = 16;

impl Config {
    /// Whether the rules of a release of Linux count (`linux_release`).
    #[inline]
    pub(crate) fn follows_linux(&self) -> bool {
        self.linux_release > 0
    }
}

impl Connection {
    /// Sequence number, RST and SYN. The ACK field of an unacceptable segment is not looked at.
    // DRILL-X50, DRILL-X51
    pub(super) fn check_as_linux(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Check {
        let flags = segment.flags();
        if self.is_half_closed_orphan() {
            return self.check_for_half_closed_orphan(segment, env);
        }
        if let Some(reason) = self.unacceptable_to_linux(segment, env) {
            if flags.rst() {
                return match self.is_rst_after_fin(segment) {
                    true => Err(self.reset_by_peer(env)),
                    false => Err(Outcome::Dropped(DropReason::RstOutOfWindow)),
                };
            }
            if flags.syn() {
                return Err(self.challenge_syn(env));
            }
            self.answer_as_linux(segment, env);
            return Err(Outcome::Dropped(reason));
        }
        if flags.rst() {
            // A peer resets at the right edge of what it was told by SACK.
            let highest = self.reassembly.as_ref().filter(|_| self.tcb.snd.sack).map(|r| r.end());
            let exact = segment.seq() == self.tcb.rcv.nxt || Some(segment.seq()) == highest;
            if exact || self.is_rst_after_fin(segment) {
                return Err(self.reset_by_peer(env));
            }
            return Err(self.challenge_or_drop(DropReason::RstChallenged, env));
        }
        if flags.syn() { Err(self.challenge_syn(env)) } else { Ok(()) }
    }

    /// macOS sends a FIN and then a RST with the FIN's sequence number.
    fn is_rst_after_fin(&self, segment: &Segment<'_>) -> bool {
        self.peer_has_closed() && segment.seq() == self.tcb.rcv.nxt - 1
    }

    /// The reason why a segment is not acceptable. Both edges of the window are, for empty segments.
    // DRILL-X52
    fn unacceptable_to_linux(&self, segment: &Segment<'_>, env: &Env<'_>) -> Option<DropReason> {
        let (seq, end, rcv) = (segment.seq(), segment.end(), &self.tcb.rcv);
        let edge = rcv.nxt + self.receive_window();
        let is_old = end.lt(rcv.last_ack_sent);
        // The peer's FIN counts as queued data, until the application closes.
        let queued = !self.receive_queue.is_empty() || (self.peer_has_closed() && !self.is_orphan());
        let queued = queued && env.config.linux_release >= LINUX_6_17;
        if is_old {
            Some(if segment.len() > 0 { DropReason::Duplicate } else { DropReason::OutOfWindow })
        } else if seq.gt(edge) {
            Some(DropReason::OutOfWindow)
        } else if (end - u32::from(segment.flags().fin())).gt(edge) && queued {
            Some(DropReason::ReceiveBufferFull)
        } else {
            None
        }
    }

    /// Answers an unacceptable segment: always if it has data, else within the limit. A duplicate is reported, with the
    /// number of its FIN.
    // DRILL-X50, DRILL-X53
    pub(super) fn answer_as_linux(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) {
        let limited = segment.len() == 0 || segment.flags().syn();
        if limited && !self.acknowledge_invalid(false, env) {
            return;
        }
        if segment.len() > 0 && segment.seq().lt(self.tcb.rcv.nxt) {
            self.note_duplicate(segment.seq(), segment.end().min(self.tcb.rcv.nxt));
            self.acknowledge_quickly();
        }
        if !limited {
            let tuple = self.tcb.tuple;
            env.note_reply(&tuple, ReplyReason::UnacceptableAck);
        }
        self.tcb.ack.now = true;
    }

    /// Header prediction of Linux takes the timestamp before it looks at an old ACK. The first data is not predicted: the
    /// socket has no memory for it at hand.
    // DRILL-X62
    pub(super) fn is_predicted_by_linux(&self, segment: &Segment<'_>) -> bool {
        let (snd, rcv) = (&self.tcb.snd, &self.tcb.rcv);
        let has_memory = segment.payload.is_empty()
            || self.unsent() > 0
            || self.bytes_received > 0
            || self.bytes_acked > 0
            || self.flight() > 0;
        let plain = !(segment.flags().syn() || segment.flags().fin() || segment.flags().rst());
        plain
            && has_memory
            && segment.options().sack.is_empty()
            && self.tcb.state == State::Established
            && segment.seq() == rcv.nxt
            && rcv.last_ack_sent == rcv.nxt
            && segment.ack().le(snd.nxt)
            && self.advertised_by(segment) == snd.wnd
            && self.reassembly.is_none()
    }

    /// Header prediction of Linux does not look at the ACK field of data that repeats the last one.
    // DRILL-X61
    pub(super) fn takes_ack_of(&self, segment: &Segment<'_>) -> bool {
        let repeats = segment.ack() == self.tcb.snd.una && !segment.payload.is_empty();
        !(repeats && self.is_predicted_by_linux(segment))
    }

    /// A pure ACK with an old timestamp was overtaken by others: below RCV.NXT it is dropped without an answer, and at
    /// RCV.NXT it is taken if it says nothing new.
    // DRILL-X51
    pub(super) fn is_reordered_ack(&self, segment: &Segment<'_>) -> bool {
        let (snd, rcv) = (&self.tcb.snd, &self.tcb.rcv);
        let is_pure = segment.flags().ack() && segment.len() == 0;
        let repeats = segment.seq() == rcv.nxt && segment.ack() == snd.una;
        is_pure && (segment.seq().lt(rcv.nxt) || (repeats && !self.takes_window(segment)))
    }

    /// Whether Linux takes the window of a segment that acknowledges nothing new: one with the numbers of the last may have
    /// been overtaken, unless its window is larger, or closed.
    // DRILL-X58
    pub(super) fn takes_window(&self, segment: &Segment<'_>) -> bool {
        let (snd, window) = (&self.tcb.snd, self.advertised_by(segment));
        let same = snd.wl1 == segment.seq();
        snd.wl1.lt(segment.seq()) || (same && (window > snd.wnd || window == 0))
    }

    /// There is a sign of loss: the next ACKs are not delayed.
    // DRILL-X55
    pub(super) fn acknowledge_quickly(&mut self) {
        self.tcb.ack.quick = self.tcb.ack.quick.max(QUICK);
        let answers = &mut self.rare().answers;
        (answers.interactive, answers.hastened) = (false, true);
    }

    /// Data arrived, in order or not.
    // DRILL-X55
    pub(super) fn note_data_for_linux(&mut self, env: &Env<'_>) {
        if self.silent_for(env) > self.tcb.rtt.rto(env.config) {
            self.tcb.ack.quick = self.tcb.ack.quick.max(QUICK);
        }
    }

    /// The time since data arrived.
    fn silent_for(&self, env: &Env<'_>) -> Duration {
        Duration::from_millis(u64::from(env.tick().elapsed(self.last_data)))
    }

    /// Data leaves. If it answers what came just now, ACKs wait for more of it.
    // DRILL-X55
    pub(super) fn note_answer_for_linux(&mut self, env: &Env<'_>) {
        if self.bytes_received > 0 && self.silent_for(env) < ACK_TIMEOUT {
            self.rare().answers.interactive = true;
        }
    }

    /// The FIN was taken. Its ACK is delayed, unless it filled a gap: the connection counts as interactive.
    // DRILL-X53, DRILL-X55
    pub(super) fn delay_ack_of_fin(&mut self, with_data: bool, filled_gap: bool, env: &Env<'_>) {
        let rare = self.rare();
        (rare.dsack, rare.answers.interactive) = (Default::default(), true);
        let hastened = rare.answers.hastened;
        self.tcb.ack.now = filled_gap;
        if !filled_gap {
            let full = with_data || self.bytes_received > 0 || hastened;
            let wait = if full { ACK_TIMEOUT } else { TICK };
            self.tcb.timers.delayed_ack.get_or_insert(Deadline::after(env.now, wait));
        }
    }

    /// Data or a FIN arrives when this end reads no more, or the other has closed. `None`: it is taken as ever.
    // DRILL-X54
    pub(super) fn text_for_closed_end(
        &mut self,
        segment: &Segment<'_>,
        env: &mut Env<'_>,
    ) -> Option<Result<Option<DropReason>, Outcome>> {
        let nxt = self.tcb.rcv.nxt;
        let closed_by_peer = self.peer_has_closed();
        if closed_by_peer && segment.seq().ge(nxt) {
            return Some(Ok(Some(DropReason::DataAfterFin)));
        }
        let reads_no_more = self.tcb.rcv.shut || self.rare.as_ref().is_some_and(|rare| rare.read_shut);
        let closing = matches!(self.tcb.state, State::FinWait1 | State::FinWait2) && reads_no_more;
        let is_new = (segment.seq() + segment.payload.len() as u32).gt(nxt);
        if (closed_by_peer || closing) && is_new {
            env.counters.tcp_abort_on_data += 1;
            let error = (!self.is_orphan()).then(|| self.error_of_reset());
            return Some(Err(Outcome::Closed(Closed { error, rst: true })));
        }
        if !closed_by_peer {
            return None;
        }
        self.note_duplicate(segment.seq(), segment.end().min(nxt));
        self.acknowledge_quickly();
        self.tcb.ack.now = true;
        Some(Ok(Some(DropReason::Duplicate)))
    }

    /// The error of a reset connection.
    // DRILL-X56
    pub(super) fn error_of_reset(&self) -> Error {
        if self.tcb.state == State::CloseWait { Error::BrokenPipe } else { Error::ConnectionReset }
    }

    /// An ACK has turned an orphan into that: old text beside it gets no answer.
    // DRILL-X57
    pub(super) fn forgets_text(&self, segment: &Segment<'_>, was: State) -> bool {
        let turned = was == State::FinWait1 && self.is_orphan() && self.fin_is_acknowledged();
        turned && !segment.flags().fin() && segment.end().le(self.tcb.rcv.nxt)
    }

    pub(super) fn is_half_closed_orphan(&self) -> bool {
        self.tcb.state == State::FinWait2 && self.is_orphan()
    }

    /// FIN-WAIT-2 without an application: Linux keeps as little of it as of TIME-WAIT, and waits for the FIN alone.
    // DRILL-X57
    fn check_for_half_closed_orphan(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Check {
        let (seq, end, flags, rcv) = (segment.seq(), segment.end(), segment.flags(), &self.tcb.rcv);
        let timestamps = segment.options().timestamps.filter(|_| self.tcb.snd.timestamps);
        let is_old = timestamps.is_some_and(|timestamps| self.tcb.ts.is_ahead_of(timestamps.val));
        let edge = rcv.nxt + self.receive_window();
        let in_window =
            seq == rcv.nxt || (end.gt(rcv.nxt) && seq.lt(edge)) || (seq == edge && segment.len() == 0);
        if is_old || !in_window {
            let limited = segment.len() == 0 || flags.syn();
            self.tcb.ack.now |= !limited;
            if limited {
                self.acknowledge_invalid(false, env);
            }
            return Err(Outcome::Dropped(if is_old { DropReason::Paws } else { DropReason::OutOfWindow }));
        }
        let reset = Err(Outcome::Closed(Closed { error: None, rst: true }));
        if flags.rst() {
            return Err(Outcome::Closed(Closed { error: None, rst: false }));
        }
        if flags.syn() && seq.ge(rcv.nxt) {
            return reset;
        }
        if !flags.ack() || end.le(rcv.nxt) || segment.len() == 0 {
            return Err(Outcome::Dropped(DropReason::Duplicate));
        }
        if flags.fin() && end == rcv.nxt + 1 { Ok(()) } else { reset }
    }
}

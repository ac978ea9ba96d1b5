//! Undoing a spurious recovery: the data was late and not lost, so that window and threshold are those of before. The
//! proof is an echoed timestamp (Eifel, RFC 3522) or a D-SACK for each retransmission (RFC 3708).

use crate::seq::SeqNum;
use crate::state::CaState;
use crate::tcp::segment::{Segment, is_earlier};
use crate::tcp::tcb::{Connection, Env};

/// The evidence on an episode of recovery that may prove spurious. The controller remembers the window of before.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Undo {
    /// SND.UNA when the episode began.
    marker: SeqNum,
    /// End of the first retransmission, and our timestamp of it; `None` once an ACK has covered it.
    first: Option<(SeqNum, u32)>,
    /// A segment was retransmitted.
    begun: bool,
    /// Retransmissions that no D-SACK has reported as duplicates.
    outstanding: u32,
    /// End of the last one reported. An ACK that comes twice reports nothing new.
    reported: Option<SeqNum>,
}

impl Undo {
    fn new(marker: SeqNum) -> Box<Undo> {
        Box::new(Undo { marker, first: None, begun: false, outstanding: 0, reported: None })
    }

    /// A D-SACK may still prove the episode spurious.
    pub(super) fn is_open(&self) -> bool {
        self.outstanding > 0
    }

    /// A loss probe is among the retransmissions.
    pub(super) fn note_probe(&mut self) {
        self.outstanding += 1;
    }

    /// A segment up to `end` is retransmitted, with a timestamp of `clock`.
    pub(super) fn note_retransmission(&mut self, end: SeqNum, clock: u32) {
        if !self.begun {
            (self.begun, self.first) = (true, Some((end, clock)));
        }
        self.outstanding += 1;
    }
}

/// Forward RTO-recovery (RFC 5682 §3): whether a timeout was spurious, as the ACKs after it tell. It needs no timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Frto {
    Off,
    /// The first segment was sent again.
    Retransmitted,
    /// An ACK has covered it. New data is sent, and nothing that is taken for lost.
    NewData,
    /// New data was sent, and an ACK says nothing of it: Linux repairs, and still judges.
    Repairing,
}

impl Connection {
    /// Begins or repeats F-RTO after a timeout. `first`: nothing was being repaired before (5682-1, 5682-2).
    pub(crate) fn begin_frto(&mut self, first: bool, was: Frto, env: &Env<'_>) {
        let linux = env.config.follows_linux();
        let again = if linux { self.tcb.timers.retransmits > 1 } else { was != Frto::Off };
        let on = env.config.tcp_frto > 0 && (self.tcb.snd.sack || linux) && (first || again);
        if let Some(flight) = self.flight.as_mut().filter(|_| on) {
            flight.frto = Frto::Retransmitted;
        }
    }

    /// Judges a timeout by an ACK. SND.UNA is still that of before. `late`: data has arrived that was taken for lost and
    /// not sent again, so that the timeout was spurious (5682-4, 5682-5). `news`: SACK blocks cover new data.
    #[inline]
    pub(super) fn judge_timeout(&mut self, segment: &Segment<'_>, late: bool, news: bool, env: &mut Env<'_>) {
        if self.flight.as_ref().is_some_and(|flight| flight.frto != Frto::Off) {
            match env.config.follows_linux() {
                true => self.judge_as_linux(segment, late, news, env),
                false => self.judge_by(segment, late, news, env),
            }
        }
    }

    /// Linux judges without SACK too, sends any new data, and believes an ACK of everything. `original`: data arrived that
    /// was sent once.
    // DRILL-X17
    #[cold]
    fn judge_as_linux(&mut self, segment: &Segment<'_>, original: bool, news: bool, env: &mut Env<'_>) {
        let (ack, una, nxt) = (segment.ack(), self.tcb.snd.una, self.tcb.snd.nxt);
        let advances = ack.gt(una);
        let waits = self.unsent() > 0 || (self.tcb.snd.fin_queued && !self.tcb.snd.fin_sent);
        let can_send = waits && (una.max(ack) + self.tcb.snd.wnd).gt(nxt);
        let Some(flight) = self.flight.as_mut() else { return };
        if original && !segment.flags().ece() {
            env.counters.tcp_spurious_rtos += 1;
            self.undo_recovery(env);
        } else if ack.ge(self.tcb.snd.recover) || nxt.gt(self.tcb.snd.recover) {
            let goes_on = advances && !news && ack.lt(self.tcb.snd.recover);
            flight.frto = if goes_on { Frto::Repairing } else { Frto::Off };
        } else if advances && can_send {
            flight.frto = Frto::NewData;
            self.hasten();
        } else if advances {
            flight.frto = Frto::Off;
        }
    }

    #[cold]
    fn judge_by(&mut self, segment: &Segment<'_>, late: bool, news: bool, env: &mut Env<'_>) {
        let (ack, mss) = (segment.ack(), u32::from(self.payload_mss()));
        let (una, nxt) = (self.tcb.snd.una, self.tcb.snd.nxt);
        let advances = ack.gt(una);
        let edge = una.max(ack) + self.tcb.snd.wnd;
        let can_send = self.unsent() >= mss as usize && (nxt + mss).le(edge);
        let Some(flight) = self.flight.as_mut() else { return };
        let undoes = late && !segment.flags().ece();
        if ack.ge(self.tcb.snd.recover) {
            flight.frto = Frto::Off;
        } else if undoes {
            env.counters.tcp_spurious_rtos += 1;
            self.undo_recovery(env);
        } else if flight.frto == Frto::Retransmitted {
            // Without new data the repair goes on (5682-3).
            if advances {
                flight.frto = if can_send { Frto::NewData } else { Frto::Off };
            }
        } else if advances || news {
            flight.frto = Frto::Off;
            let cwnd = self.congestion.cwnd().min(3 * mss);
            self.congestion.set_cwnd(cwnd);
        }
    }

    /// An episode of recovery begins: what it replaces is remembered.
    pub(crate) fn begin_undo(&mut self, una: SeqNum) -> Box<Undo> {
        if self.ca_state() == CaState::Cwr {
            // The mark stays, whatever becomes of the losses.
            self.end_reduction();
        }
        self.congestion.remember();
        Undo::new(una)
    }

    /// Undoes the recovery if the segment proves it spurious, once in an episode (4015-1). `duplicate` is the end of
    /// its D-SACK block. SND.UNA is still that of before. An ECN echo shows congestion, whatever was late.
    pub(super) fn undo_if_spurious(
        &mut self,
        segment: &Segment<'_>,
        duplicate: Option<SeqNum>,
        env: &mut Env<'_>,
    ) {
        let echo =
            segment.options().timestamps.filter(|_| self.tcb.snd.timestamps).map(|timestamps| timestamps.ecr);
        let offset = self.tcb.ts.offset;
        let Some(flight) = self.flight.as_mut() else { return };
        let Some(undo) = flight.undo.as_mut() else { return };
        // The first ACK that covers the retransmission decides. Equal timestamps prove nothing (3522-1).
        let covered = undo.first.take_if(|(end, _)| segment.ack().ge(*end));
        let by_echo = covered.is_some_and(|(_, clock)| {
            echo.is_some_and(|ecr| ecr != 0 && is_earlier(ecr, clock.wrapping_add(offset)))
        });
        let is_news = |end: SeqNum| end.gt(undo.marker) && undo.reported != Some(end);
        let counts = duplicate.is_some_and(is_news) && undo.outstanding > 0;
        undo.reported = duplicate.or(undo.reported);
        undo.outstanding -= u32::from(counts);
        let by_duplicates = counts && undo.outstanding == 0;
        if (by_echo || by_duplicates) && !segment.flags().ece() {
            self.undo_recovery(env);
        }
    }

    #[cold]
    fn undo_recovery(&mut self, env: &mut Env<'_>) {
        let Some(flight) = self.flight.as_mut() else { return };
        flight.undo = None;
        // Nothing is retransmitted because of what was withdrawn.
        flight.withdraw_losses();
        self.rare().reordering.seen = true;
        if self.ca_state() == CaState::Loss {
            self.tcb.rtt.note_spurious_timeout();
        }
        if self.is_recovering() {
            self.end_recovery();
            self.tcb.snd.recover = self.tcb.snd.una;
        }
        self.congestion.undo();
        env.counters.tcp_full_undo += 1;
    }
}

//! Segments as Linux counts them: a short one counts as a whole, and so does one of which a part is acknowledged.

use super::{Quanta, Quantum};
use crate::seq::SeqNum;
use crate::state::CaState;
use crate::tcp::flight::Fate;
use crate::tcp::tcb::Connection;

impl Quanta {
    /// The segments of what lies between `from` and `to`. `mss`: of quanta that were not sent.
    fn segments(&self, from: SeqNum, to: SeqNum, mss: u16) -> u32 {
        let (mut from, mut count) = (from, 0);
        for quantum in &self.list {
            if !from.lt(to) {
                return count;
            }
            if quantum.end.le(from) {
                continue;
            }
            let end = if quantum.end.lt(to) { quantum.end } else { to };
            let size = if quantum.mss > 0 { quantum.mss } else { mss };
            count += end.since(from).div_ceil(size.max(1).into());
            from = end;
        }
        // The FIN is a segment, unless data took it along.
        let fin = from.lt(to) && !(self.fin_with_data && count > 0);
        count + u32::from(fin)
    }

    /// Makes one segment of the range from `start` to `end`, as Linux cuts and joins buffers to send them again.
    // DRILL-X59
    pub(super) fn join(&mut self, una: SeqNum, start: SeqNum, end: SeqNum) {
        self.split(una, start);
        self.split(una, end);
        let first = self.list.iter().position(|quantum| quantum.end.gt(start)).unwrap_or(self.list.len());
        while let (Some(one), Some(next)) = (self.list.get(first).copied(), self.list.get(first + 1).copied())
            && next.end.le(end)
        {
            self.list.remove(first);
            self.list[first] = Quantum { push: one.push || next.push, ..next };
        }
    }

    /// Makes `at` a boundary, if it lies inside a quantum. The first part loses PSH.
    fn split(&mut self, una: SeqNum, at: SeqNum) {
        let Some(index) = self.list.iter().position(|quantum| quantum.end.ge(at)) else { return };
        let begin = if index == 0 { una } else { self.list[index - 1].end };
        if at.gt(begin) && self.list[index].end != at {
            let first = Quantum { end: at, push: false, closed: false, ..self.list[index] };
            self.list.insert(index, first);
        }
    }
}

impl Connection {
    /// The segments between two numbers; `None` without quanta.
    fn segments(&self, from: SeqNum, to: SeqNum) -> Option<u32> {
        let quanta = self.quanta()?;
        Some(quanta.segments(from, to, self.payload_len_limit()))
    }

    /// Segments that were sent and not acknowledged.
    pub(crate) fn segments_out(&self) -> Option<u32> {
        self.segments(self.start_of_queue(), self.tcb.snd.nxt)
    }

    /// Segments that an ACK has covered: those between `before` and SND.UNA.
    pub(crate) fn segments_acked(&self, before: SeqNum) -> u32 {
        let (una, nxt) = (self.tcb.snd.una, self.tcb.snd.nxt);
        let (before, after) = (self.segments(before, nxt), self.segments(una, nxt));
        before.unwrap_or(0).saturating_sub(after.unwrap_or(0))
    }

    /// Segments that were sent, and neither acknowledged nor reported by SACK.
    pub(crate) fn segments_left(&self) -> Option<u32> {
        let Some(flight) = self.flight.as_ref().filter(|flight| flight.left() > 0) else {
            return self.segments_out();
        };
        let fates = [Fate::InNetwork, Fate::Lost];
        Some(self.segments_of(&fates)?.saturating_sub(flight.inflation / u32::from(self.payload_mss())))
    }

    /// Segments in the network.
    pub(crate) fn segments_in_network(&self) -> Option<u32> {
        let Some(flight) = &self.flight else { return self.segments_out() };
        let counted = self.segments_of(&[Fate::InNetwork])?;
        Some(counted.saturating_sub(flight.inflation / u32::from(self.payload_mss())))
    }

    fn segments_of(&self, fates: &[Fate]) -> Option<u32> {
        let flight = self.flight.as_ref()?;
        let (mut from, mut count) = (self.start_of_queue(), 0);
        for range in flight.ranges_up_to(self.tcb.snd.nxt) {
            if fates.contains(&range.fate) {
                count += self.segments(from, range.end)?;
            }
            from = range.end;
        }
        Some(count)
    }

    /// Whether the FIN left in one segment with data.
    pub(crate) fn fin_left_with_data(&self) -> bool {
        self.quanta().is_some_and(|quanta| quanta.fin_with_data)
    }

    /// Lets everything that waits leave now, whatever Nagle's rule holds back.
    pub(crate) fn hasten(&mut self) {
        if let Some(quanta) = self.quanta_if_any() {
            quanta.hasten();
        }
    }

    /// The length of the last segment in flight, where segments sent now have `full` bytes.
    pub(crate) fn last_segment(&self, full: u32) -> Option<u32> {
        let (quanta, fin) = (self.quanta()?, u32::from(self.tcb.snd.fin_sent));
        let end = self.tcb.snd.nxt - fin;
        if fin > 0 && !quanta.fin_with_data {
            return Some(fin);
        }
        let index = quanta.list.iter().position(|quantum| quantum.end.ge(end))?;
        let begin = if index == 0 { self.start_of_queue() } else { quanta.list[index - 1].end };
        let (len, mss) = (end.since(begin), u32::from(quanta.list[index].mss).max(1));
        let before = (len.div_ceil(mss).max(1) - 1) * full;
        Some(fin + if len > before { len - before } else { len })
    }

    /// The length of what is left at SND.UNA of a burst, which Linux takes for lost as a whole.
    // DRILL-X68
    pub(crate) fn first_burst(&self) -> u32 {
        let una = self.start_of_queue();
        let Some(quanta) = self.quanta() else { return 0 };
        let len = quanta.list.iter().find(|quantum| quantum.end.gt(una)).map_or(0, |q| q.end.since(una));
        if quanta.fin_with_data && len + 1 == self.flight() { len + 1 } else { len.min(self.flight()) }
    }

    /// Whether an ACK covers the rest of at least one segment. Linux takes no other for progress of its timers.
    // DRILL-X65
    pub(crate) fn covers_segment(&self, ack: SeqNum) -> bool {
        let (from, nxt) = (self.start_of_queue(), self.tcb.snd.nxt);
        match (self.segments(from, nxt), self.segments(ack, nxt)) {
            (Some(before), Some(after)) => after < before,
            _ => true,
        }
    }

    /// Whether an ACK covers a segment that was sent once, and before the timeout. Without SACK that says nothing if it
    /// covers one that was sent again as well.
    // DRILL-X17
    pub(crate) fn covers_original(&self, ack: SeqNum) -> bool {
        let Some(flight) = &self.flight else { return false };
        let (mut from, mut covers) = (self.start_of_queue(), false);
        for range in flight.ranges_up_to(self.tcb.snd.nxt) {
            if !from.lt(ack) {
                break;
            }
            let end = if range.end.lt(ack) { range.end } else { ack };
            let whole = self.segments(end, range.end) < self.segments(from, range.end);
            if range.retransmitted && whole && !self.tcb.snd.sack {
                return false;
            }
            let before = range.end.le(self.tcb.snd.recover);
            covers |= before && !range.retransmitted && range.fate != Fate::Sacked && whole;
            from = range.end;
        }
        covers
    }

    /// The segments that congestion control permits now, and its whole window.
    pub(crate) fn quota(&self) -> (u32, u32) {
        let cwnd = (self.congestion.cwnd() / u32::from(self.payload_mss())).max(1);
        let extra = match &self.flight {
            Some(flight) if flight.trial.is_some() => return (0, cwnd),
            Some(flight) if flight.phase == CaState::Disorder && !self.tcb.snd.sack => flight.dupacks.min(2),
            _ => 0,
        };
        ((cwnd + extra).saturating_sub(self.segments_in_network().unwrap_or(0)), cwnd)
    }
}

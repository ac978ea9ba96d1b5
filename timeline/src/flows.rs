//! The view of each connection from the wire: relative numbers, retransmissions, and the rules that every sender must
//! keep.

use std::net::SocketAddr;

use steadfast_core::seq::SeqNum;
use steadfast_core::wire::tcp::{Header, Timestamps};

use crate::Map;
use crate::event::Segment;

/// A rule that every sender must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It acknowledges only what has arrived.
    Ack,
    /// The right edge of its window never moves left, and it sends no more than one byte past the peer's window.
    Window,
}

/// One direction of a flow.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// ISS of the current incarnation.
    pub iss: Option<SeqNum>,
    /// The highest sequence number sent, plus one.
    pub nxt: SeqNum,
    /// ISS of the previous incarnation.
    before: Option<SeqNum>,
    /// Sequence numbers used since the ISS, counted through every wrap.
    total: u64,
    /// The window scale option of its SYN.
    scale: Option<u8>,
    /// The furthest right edge of the window that this side has advertised.
    pub edge: Option<SeqNum>,
    /// The furthest right edge of the peer's window that has reached this side.
    allowed: Option<SeqNum>,
    /// The highest sequence number that arrived, plus one: of the current incarnation, and of the previous one.
    pub arrived: Option<SeqNum>,
    arrived_before: Option<SeqNum>,
    /// The last acknowledgment number sent.
    pub ack: Option<SeqNum>,
    /// The last timestamps sent.
    pub timestamps: Option<Timestamps>,
}

/// Two endpoints and the segments between them.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The endpoints, the sender of the first segment first.
    pub ends: [SocketAddr; 2],
    /// The direction from the first endpoint, then the direction from the second.
    pub ways: [Way; 2],
    /// A forged or rewritten segment arrived. Reactions can no longer be judged from the peer's segments.
    pub tainted: bool,
}

/// The observations about one segment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The relative sequence number, and whether it belongs to the previous incarnation.
    pub seq: (u32, bool),
    /// The relative acknowledgment number, and whether it belongs to the previous incarnation.
    pub ack: (u32, bool),
    /// Some of its sequence space was sent before.
    pub retransmission: bool,
    /// An invariant that it violates.
    pub wrong: Option<(Rule, String)>,
}

impl Seen {
    /// Gives a segment its relative numbers.
    pub fn number(&self, segment: &mut Segment) {
        (segment.seq, segment.seq_before) = self.seq;
        (segment.ack, segment.ack_before) = self.ack;
        segment.retransmission = self.retransmission;
    }
}

/// All flows of a timeline.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    /// In order of appearance.
    pub all: Vec<Flow>,
    index: Map<(SocketAddr, SocketAddr), usize>,
}

impl Flows {
    /// Returns the flow between two endpoints, and the direction of a segment from the first of them.
    pub fn find(&self, from: SocketAddr, to: SocketAddr) -> Option<(usize, usize)> {
        let ends = if from < to { (from, to) } else { (to, from) };
        let flow = *self.index.get(&ends)?;
        Some((flow, usize::from(self.all[flow].ends[0] != from)))
    }

    /// As `find`, but opens a flow if there is none.
    pub fn find_or_open(&mut self, from: SocketAddr, to: SocketAddr) -> (usize, usize) {
        if let Some(found) = self.find(from, to) {
            return found;
        }
        let ends = if from < to { (from, to) } else { (to, from) };
        self.index.insert(ends, self.all.len());
        self.all.push(Flow { ends: [from, to], ways: [Way::default(), Way::default()], tainted: false });
        (self.all.len() - 1, 0)
    }

    /// Makes numbers relative to the first that are seen, where there was no SYN.
    pub fn begin(&mut self, (flow, way): (usize, usize), header: &Header) {
        let ways = &mut self.all[flow].ways;
        let own = &mut ways[way];
        if own.iss.is_none() && !header.flags.syn() {
            (own.iss, own.nxt) = (Some(header.seq - 1), header.seq);
        }
        let back = &mut ways[1 - way];
        if back.iss.is_none() && header.flags.ack() {
            (back.iss, back.nxt) = (Some(header.ack - 1), header.ack);
        }
    }

    /// A segment leaves its stack.
    pub fn sent(&mut self, (flow, way): (usize, usize), header: &Header, len: usize) -> Seen {
        let flow = &mut self.all[flow];
        let end = seq_end(header, len);
        if header.flags.syn() && flow.ways[way].iss != Some(header.seq) {
            flow.ways[way].begin(header);
        }
        let back = flow.ways[1 - way].clone();
        let own = &mut flow.ways[way];
        let fresh = own.iss.is_none();
        let retransmission = !fresh && end != header.seq && header.seq.lt(own.nxt);
        let wrong = if flow.tainted || fresh { None } else { own.broken_rule(&back, header, end) };
        if fresh || (end.gt(own.nxt) && !header.flags.rst()) {
            own.total += if fresh { 0 } else { u64::from(end.since(own.nxt)) };
            own.nxt = end;
        }
        own.timestamps = header.options.timestamps.or(own.timestamps);
        if header.flags.ack() && !header.flags.rst() {
            let edge = header.ack + own.window(&back, header);
            own.edge = Some(own.edge.map_or(edge, |old| old.max(edge)));
            own.ack = Some(header.ack);
        }
        Seen { seq: own.relative(header.seq), ack: back.relative(header.ack), retransmission, wrong }
    }

    /// A segment reaches the other stack.
    pub fn arrived(&mut self, (flow, way): (usize, usize), header: &Header, len: usize) {
        let flow = &mut self.all[flow];
        let end = seq_end(header, len);
        let back = flow.ways[1 - way].clone();
        let own = &mut flow.ways[way];
        // A straggler may arrive after its sender is gone and the next incarnation has begun (T4c, T6b). A segment held
        // while 2^31 bytes passed only looks new (L7).
        let (_, before) = own.relative(header.seq);
        let late = !before && own.iss.is_some() && end.gt(own.nxt + (1 << 30));
        if !late {
            let arrived = if before { &mut own.arrived_before } else { &mut own.arrived };
            *arrived = Some(arrived.map_or(end, |old| old.max(end)));
        }
        // The acknowledgment number of a straggler from the previous incarnation belongs to another sequence space.
        let sent = back.total.min(1 << 30) as u32;
        let current = back.iss.is_some() && header.ack.within(back.nxt - sent, sent + 1);
        if header.flags.ack() && !header.flags.rst() && current {
            let edge = header.ack + own.window(&back, header);
            let allowed = &mut flow.ways[1 - way].allowed;
            *allowed = Some(allowed.map_or(edge, |old| old.max(edge)));
        }
    }
}

impl Way {
    /// Starts a new incarnation at a SYN with another ISS.
    fn begin(&mut self, header: &Header) {
        *self = Way {
            iss: Some(header.seq),
            nxt: header.seq,
            scale: header.options.window_scale,
            before: self.iss.or(self.before),
            arrived_before: self.arrived.or(self.arrived_before),
            timestamps: header.options.timestamps,
            ..Way::default()
        };
    }

    /// Returns `number` relative to the ISS. If it fits the previous incarnation better, returns it relative to that
    /// ISS, and true.
    pub fn relative(&self, number: SeqNum) -> (u32, bool) {
        /// No connection of a ladder gets further than this from its ISS.
        const NEAR: u32 = 1 << 26;
        let near = |iss: SeqNum| number.within(iss - NEAR, 2 * NEAR);
        match (self.iss, self.before) {
            (None, _) => (number.0, false),
            (Some(iss), Some(before)) if !near(iss) && near(before) => (number.since(before), true),
            (Some(iss), _) => (number.since(iss), false),
        }
    }

    /// The window that a segment of this direction advertises, in bytes. Scaling is on if both SYNs offered it, and
    /// never applies to a SYN itself (RFC 7323 §2.2).
    fn window(&self, back: &Way, header: &Header) -> u32 {
        let shift = match (self.scale, back.scale) {
            (Some(scale), Some(_)) if !header.flags.syn() => scale.min(14),
            _ => 0,
        };
        u32::from(header.window) << shift
    }

    fn broken_rule(&self, back: &Way, header: &Header, end: SeqNum) -> Option<(Rule, String)> {
        if header.flags.ack() {
            let had_arrived = [back.arrived, back.arrived_before];
            if !had_arrived.iter().flatten().any(|arrived| header.ack.le(*arrived)) && !header.flags.rst() {
                return Some((Rule::Ack, format!("acknowledges {}, which had not arrived", header.ack)));
            }
        }
        if header.flags.rst() {
            return None;
        }
        if header.flags.ack() && !header.flags.syn() {
            let edge = header.ack + self.window(back, header);
            let slack = 1 << self.scale.unwrap_or(0).min(14);
            if let Some(old) = self.edge.filter(|old| old.gt(edge + slack)) {
                return Some((Rule::Window, format!("moves its right edge back by {}", old.since(edge))));
            }
        }
        // One byte past the window is a window probe, or a FIN.
        if let (Some(allowed), false) = (self.allowed, header.flags.syn())
            && end.gt(allowed + 1)
        {
            return Some((Rule::Window, format!("sends {} bytes past the window", end.since(allowed))));
        }
        None
    }
}

/// The sequence number after a segment, SYN and FIN included.
pub fn seq_end(header: &Header, len: usize) -> SeqNum {
    header.seq + len as u32 + u32::from(header.flags.syn()) + u32::from(header.flags.fin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::wire::tcp::{Flags, Options};

    fn flow() -> (Flows, (usize, usize), (usize, usize)) {
        let (a, b) = (SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([10, 0, 0, 2], 2)));
        let mut flows = Flows::default();
        let there = flows.find_or_open(a, b);
        let back = flows.find_or_open(b, a);
        (flows, there, back)
    }

    fn segment(flags: Flags, seq: u32, ack: u32, window: u16) -> Header {
        Header { flags, seq: SeqNum(seq), ack: SeqNum(ack), window, ..Header::default() }
    }

    /// C sends SYN(100), S sends SYN,ACK(900), and both arrive. The windows are 1000 bytes, unscaled.
    fn connected() -> (Flows, (usize, usize), (usize, usize)) {
        let (mut flows, there, back) = flow();
        let syn = segment(Flags::SYN, 100, 0, 1000);
        let syn_ack = segment(Flags::SYN | Flags::ACK, 900, 101, 1000);
        flows.sent(there, &syn, 0);
        flows.arrived(there, &syn, 0);
        assert!(flows.sent(back, &syn_ack, 0).wrong.is_none());
        flows.arrived(back, &syn_ack, 0);
        (flows, there, back)
    }

    #[test]
    fn numbers_are_relative_and_retransmissions_noticed() {
        let (mut flows, there, _) = connected();
        let data = segment(Flags::ACK, 101, 901, 1000);
        let seen = flows.sent(there, &data, 10);
        assert_eq!((seen.seq, seen.ack, seen.retransmission), ((1, false), (1, false), false));
        assert!(flows.sent(there, &data, 10).retransmission);
        assert!(!flows.sent(there, &segment(Flags::ACK, 111, 901, 1000), 0).retransmission);
    }

    #[test]
    fn numbers_of_the_incarnation_before_are_relative_to_its_iss() {
        let (mut flows, there, back) = connected();
        flows.sent(there, &segment(Flags::SYN, 3_000_000_000, 0, 1000), 0);
        let seen = flows.sent(back, &segment(Flags::ACK, 901, 101, 1000), 0);
        assert_eq!((seen.seq, seen.ack), ((1, false), (1, true)));
        let reset = flows.sent(there, &segment(Flags::RST, 101, 0, 0), 0);
        assert_eq!(reset.seq, (1, true));
        assert!(!flows.sent(there, &segment(Flags::ACK, 3_000_000_001, 901, 1000), 5).retransmission);
    }

    #[test]
    fn an_ack_of_what_has_not_arrived_breaks_a_rule() {
        let (mut flows, there, back) = connected();
        let data = segment(Flags::ACK, 101, 901, 1000);
        flows.sent(there, &data, 10);
        let ack = segment(Flags::ACK, 901, 111, 1000);
        assert_eq!(flows.sent(back, &ack, 0).wrong.map(|w| w.0), Some(Rule::Ack));
        flows.arrived(there, &data, 10);
        assert_eq!(flows.sent(back, &ack, 0).wrong, None);
    }

    #[test]
    fn a_right_edge_that_moves_back_breaks_a_rule() {
        let (mut flows, there, _) = connected();
        assert_eq!(flows.sent(there, &segment(Flags::ACK, 101, 901, 1000), 0).wrong, None);
        assert_eq!(
            flows.sent(there, &segment(Flags::ACK, 101, 901, 998), 0).wrong.map(|w| w.0),
            Some(Rule::Window)
        );
    }

    #[test]
    fn one_byte_past_the_window_is_a_probe_and_two_break_a_rule() {
        let (mut flows, there, _) = connected();
        let data = segment(Flags::ACK, 101, 901, 1000);
        assert_eq!(flows.sent(there, &data, 1001).wrong, None);
        assert_eq!(flows.sent(there, &data, 1002).wrong.map(|w| w.0), Some(Rule::Window));
    }

    #[test]
    fn a_straggler_of_the_incarnation_before_opens_no_window() {
        let (mut flows, there, back) = connected();
        let syn = segment(Flags::SYN, 3_000_000_000, 0, 1000);
        flows.sent(there, &syn, 0);
        flows.arrived(back, &segment(Flags::ACK, 901, 101, 1000), 0);
        let syn_ack = segment(Flags::SYN | Flags::ACK, 700_000_000, 3_000_000_001, 1000);
        flows.arrived(there, &syn, 0);
        flows.sent(back, &syn_ack, 0);
        flows.arrived(back, &syn_ack, 0);
        let data = segment(Flags::ACK, 3_000_000_001, 700_000_001, 1000);
        assert_eq!(flows.sent(there, &data, 1000).wrong, None);
        assert_eq!(flows.sent(there, &data, 1002).wrong.map(|w| w.0), Some(Rule::Window));
    }

    #[test]
    fn windows_are_judged_after_sequence_numbers_wrapped_l7() {
        const STEP: u32 = 60_000;
        let (mut flows, there, back) = connected();
        let mut seq = 101u32;
        flows.arrived(back, &segment(Flags::ACK, 901, 101, STEP as u16), 0);
        for _ in 0..u32::MAX / STEP + 10 {
            let data = segment(Flags::ACK, seq, 901, 1000);
            assert_eq!(flows.sent(there, &data, STEP as usize).wrong, None);
            flows.arrived(there, &data, STEP as usize);
            seq = seq.wrapping_add(STEP);
            let ack = segment(Flags::ACK, 901, seq, STEP as u16);
            assert_eq!(flows.sent(back, &ack, 0).wrong, None);
            flows.arrived(back, &ack, 0);
        }
        assert!(flows.sent(there, &segment(Flags::ACK, seq, 901, 1000), STEP as usize + 2).wrong.is_some());
    }

    #[test]
    fn windows_are_scaled_when_both_syns_say_so() {
        let (mut flows, there, back) = flow();
        let options = Options { window_scale: Some(7), ..Options::default() };
        let syn = Header { options, ..segment(Flags::SYN, 100, 0, 1000) };
        let syn_ack = Header { options, ..segment(Flags::SYN | Flags::ACK, 900, 101, 1000) };
        flows.sent(there, &syn, 0);
        flows.arrived(there, &syn, 0);
        flows.sent(back, &syn_ack, 0);
        flows.arrived(back, &syn_ack, 0);
        assert_eq!(flows.sent(there, &segment(Flags::ACK, 101, 901, 10), 0).wrong, None);
        assert_eq!(flows.all[there.0].ways[there.1].edge, Some(SeqNum(901 + 1280)));
    }
}

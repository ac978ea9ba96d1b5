//! RCV.*: what arrives in order, what has to wait for a gap, and the window that is announced.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::segment::Segment;
use super::tcb::{Connection, Env};
use crate::counters::DropReason;
use crate::seq::SeqNum;
use crate::socket::Event;
use crate::time::Deadline;
use crate::trace::State;
use crate::wire::tcp::SackBlocks;

/// What one held piece costs beside its bytes: a tree entry and the handle of a buffer (T-13).
const PIECE_COST: usize = 96;

/// Data beyond a gap (SHLD-31). The first copy of a byte is the one that counts (conformance decision 22).
#[derive(Clone, Debug)]
pub(crate) struct Reassembly {
    /// By distance from `base`; pieces do not overlap.
    pieces: BTreeMap<u64, Bytes>,
    /// The stretches that the pieces cover, ascending and apart.
    ranges: Vec<(SeqNum, SeqNum)>,
    /// A byte of each of the ranges that changed last, the latest first (2018-2, 2018-3).
    recent: Vec<SeqNum>,
    base: SeqNum,
    base_offset: u64,
    held: usize,
}

impl Reassembly {
    fn new(base: SeqNum) -> Reassembly {
        Reassembly {
            pieces: BTreeMap::new(),
            ranges: Vec::new(),
            recent: Vec::new(),
            base,
            base_offset: 0,
            held: 0,
        }
    }

    /// Bytes held, overhead included.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Bytes of the stream held.
    pub(crate) fn len(&self) -> u32 {
        self.ranges.iter().map(|(left, right)| right.since(*left)).sum()
    }

    /// SACK blocks, the one that changed last first.
    pub(crate) fn sack_blocks(&self) -> impl Iterator<Item = (SeqNum, SeqNum)> + '_ {
        let mut told: Vec<SeqNum> = Vec::new();
        self.recent.iter().filter_map(move |seq| {
            let range = self.range_of(*seq)?;
            let new = !told.contains(&range.0);
            told.push(range.0);
            new.then_some(range)
        })
    }

    fn range_of(&self, seq: SeqNum) -> Option<(SeqNum, SeqNum)> {
        let at = self.ranges.partition_point(|(_, right)| right.le(seq));
        self.ranges.get(at).copied().filter(|(left, _)| left.le(seq))
    }

    /// The first part of `left..right` that is held.
    fn overlap(&self, left: SeqNum, right: SeqNum) -> Option<(SeqNum, SeqNum)> {
        let at = self.ranges.partition_point(|(_, end)| end.le(left));
        let (from, to) = *self.ranges.get(at)?;
        from.lt(right).then(|| (from.max(left), to.min(right)))
    }

    fn offset_of(&self, seq: SeqNum) -> u64 {
        self.base_offset + u64::from(seq.since(self.base))
    }

    /// Holds the parts of a payload that are not held yet. Gives why there is no room, if so.
    fn insert(
        &mut self,
        seq: SeqNum,
        payload: Piece<'_>,
        limit: usize,
        max_ranges: usize,
    ) -> Result<(), DropReason> {
        let end = seq + payload.bytes.len() as u32;
        if self.held + payload.bytes.len() + PIECE_COST > limit {
            return Err(DropReason::OutOfOrderFull);
        }
        let first = self.ranges.partition_point(|(_, right)| right.lt(seq));
        let last = self.ranges.partition_point(|(left, _)| left.le(end));
        if first == last && self.ranges.len() >= max_ranges {
            return Err(DropReason::OutOfOrderFull);
        }
        let covered: Vec<_> = self.ranges[first..last].to_vec();
        let mut at = seq;
        for (left, right) in &covered {
            self.hold(at, left.min(end), seq, &payload);
            at = at.max(*right);
        }
        self.hold(at, end, seq, &payload);
        let left = covered.first().map_or(seq, |(left, _)| left.min(seq));
        let right = covered.last().map_or(end, |(_, right)| right.max(end));
        self.ranges.splice(first..last, [(left, right)]);
        self.recent.retain(|s| !s.within(left, right.since(left)));
        self.recent.insert(0, seq);
        self.recent.truncate(SackBlocks::MAX);
        Ok(())
    }

    /// Holds `from..to` of a payload that begins at `start`.
    fn hold(&mut self, from: SeqNum, to: SeqNum, start: SeqNum, payload: &Piece<'_>) {
        if from.lt(to) {
            let bytes = &payload.bytes[from.since(start) as usize..to.since(start) as usize];
            self.held += bytes.len() + PIECE_COST;
            self.pieces.insert(self.offset_of(from), payload.keep(bytes));
        }
    }

    /// Takes out what has become in order at `nxt`.
    fn take(&mut self, nxt: SeqNum) -> Option<Bytes> {
        let offset = self.offset_of(nxt);
        while let Some(entry) = self.pieces.first_entry() {
            let (start, len) = (*entry.key(), entry.get().len() as u64);
            if start > offset {
                break;
            }
            let piece = entry.remove();
            self.held -= piece.len() + PIECE_COST;
            if start + len > offset {
                return Some(piece.slice((offset - start) as usize..));
            }
        }
        (self.base_offset, self.base) = (offset, nxt);
        let done = self.ranges.partition_point(|(_, right)| right.le(nxt));
        self.ranges.drain(..done);
        if let Some((left, _)) = self.ranges.first_mut() {
            *left = left.max(nxt);
        }
        None
    }
}

/// A window as a field says it, rounded up. By a shift: a division takes longer than the rest of the segment.
fn scaled_up(window: u32, shift: u8) -> u32 {
    (window >> shift) + u32::from(window & ((1 << shift) - 1) != 0)
}

/// A payload with the packet that it may be held by.
struct Piece<'a> {
    bytes: &'a [u8],
    packet: Option<&'a Bytes>,
}

impl Piece<'_> {
    fn keep(&self, bytes: &[u8]) -> Bytes {
        match self.packet {
            Some(packet) if bytes.len() * 2 >= packet.len() => packet.slice_ref(bytes),
            _ => Bytes::copy_from_slice(bytes),
        }
    }
}

impl Connection {
    /// RCV.WND: what the peer may still send.
    pub(crate) fn receive_window(&self) -> u32 {
        self.tcb.rcv.adv.since(self.tcb.rcv.nxt)
    }

    /// The window field of a segment that leaves now. Moves the announced right edge, never back, and only by
    /// steps that are worth it (MUST-39, SHLD-14).
    pub(crate) fn announce_window(&mut self, env: &mut Env<'_>) -> u16 {
        let free = self.free_window();
        let rcv = &mut self.tcb.rcv;
        let told = rcv.adv.since(rcv.last_ack_sent);
        let before = rcv.adv.since(rcv.nxt);
        let step = (rcv.buffer / 2).min(u32::from(rcv.adv_mss.max(1)));
        let window =
            if free >= before.saturating_add(step) || free >= rcv.buffer { free.max(before) } else { before };
        // Rounded up, so that the scaled field never takes back a part of what was announced.
        let field = scaled_up(window, rcv.wscale).min(0xffff);
        rcv.adv = rcv.adv.max(rcv.nxt + (field << rcv.wscale));
        let after = rcv.adv.since(rcv.nxt);
        match (told, after) {
            (0, 1..) => env.counters.tcp_from_zero_window_adv += 1,
            (1.., 0) => env.counters.tcp_to_zero_window_adv += 1,
            _ => {}
        }
        (after >> rcv.wscale).min(0xffff) as u16
    }

    /// Whether the application has read so much that the peer should be told: the window would double (SA-EST-31).
    pub(crate) fn window_update_due(&self) -> bool {
        let (free, before) = (self.free_window(), self.receive_window());
        let step = (self.tcb.rcv.buffer / 2).min(u32::from(self.tcb.rcv.adv_mss.max(1)));
        self.may_receive() && !self.tcb.rcv.fin_seen && free >= before.saturating_mul(2).max(before + step)
    }

    fn free_window(&self) -> u32 {
        let rcv = &self.tcb.rcv;
        let free = rcv.buffer.saturating_sub(self.receive_queue.len() as u32);
        free.min(0xffff << rcv.wscale)
    }

    /// Step 7 of RFC 9293 §3.10.7.4: the segment text. The segment is acceptable. Gives why it was dropped, if so.
    pub(crate) fn take_text(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> Option<DropReason> {
        let rcv = &self.tcb.rcv;
        let (seq, payload) = (segment.seq(), segment.payload);
        // Trim to the window (9293-g), and to the peer's own FIN where one was seen (SA-EST-24).
        let limit = if rcv.fin_seen { rcv.fin_at } else { rcv.adv };
        let skip = if seq.lt(rcv.nxt) { rcv.nxt.since(seq) as usize } else { 0 };
        let start = seq + skip as u32;
        let room = if start.lt(limit) { limit.since(start) as usize } else { 0 };
        let fresh = &payload[skip.min(payload.len())..];
        let fits = &fresh[..fresh.len().min(room)];
        let excess = fresh.len() > fits.len();
        // Of what was here before the first stretch is told (2883-1).
        let end = start + fits.len() as u32;
        if skip > 0 {
            self.note_duplicate(seq, seq + (skip as u32).min(payload.len() as u32));
        } else if let Some((left, right)) = self.reassembly.as_ref().and_then(|r| r.overlap(start, end)) {
            self.note_duplicate(left, right);
        }
        let fin_at = segment.seq() + payload.len() as u32;
        let second_fin = segment.flags().fin() && self.tcb.rcv.fin_seen && fin_at.gt(self.tcb.rcv.fin_at);
        if segment.flags().fin() && !self.tcb.rcv.fin_seen && !excess && fin_at.lt(self.tcb.rcv.adv) {
            (self.tcb.rcv.fin_seen, self.tcb.rcv.fin_at) = (true, fin_at);
        }
        if fits.is_empty() {
            self.tcb.ack.now |= excess || skip > 0 || segment.flags().fin();
            let full =
                if self.tcb.rcv.fin_seen { DropReason::DataAfterFin } else { DropReason::ReceiveBufferFull };
            return (excess || second_fin).then_some(full);
        }
        self.tcb.ack.now |= skip > 0 || excess;
        if start == self.tcb.rcv.nxt {
            self.take_in_order(fits, segment.packet, env);
            None
        } else {
            self.note_size(fits);
            self.queue_out_of_order(start, fits, segment.packet, env)
        }
    }

    /// Data on a SYN with a valid Fast Open cookie: it begins one after the SYN (N9).
    pub(crate) fn take_syn_data(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) {
        let room = self.receive_window() as usize;
        let payload = &segment.payload[..segment.payload.len().min(room)];
        if !payload.is_empty() {
            self.take_in_order(payload, segment.packet, env);
        }
        // The SYN-ACK acknowledges it.
        self.tcb.ack.now = false;
        self.tcb.ack.bytes = 0;
        self.tcb.timers.delayed_ack = None;
    }

    /// Takes in what begins at RCV.NXT and lies in the window.
    #[inline]
    pub(crate) fn take_in_order(&mut self, payload: &[u8], packet: Option<&Bytes>, env: &mut Env<'_>) {
        self.note_size(payload);
        if self.reassembly.is_none() {
            self.append(payload, packet, env);
        } else {
            self.fill_gap(payload, packet, env);
        }
        self.note_data_received(payload.len() as u32, env);
    }

    fn note_size(&mut self, payload: &[u8]) {
        self.tcb.rcv.mss = self.tcb.rcv.mss.max(payload.len().min(usize::from(u16::MAX)) as u16);
    }

    #[inline]
    fn append(&mut self, payload: &[u8], packet: Option<&Bytes>, env: &mut Env<'_>) {
        self.tcb.rcv.nxt += payload.len() as u32;
        self.bytes_received += payload.len() as u64;
        if !self.tcb.rcv.shut {
            self.receive_queue.push_payload(payload, packet, env.pool);
            self.signal(Event::READABLE);
        }
    }

    /// Bytes that wait beyond the gap already are not taken again: the first copy counts (T-50).
    fn fill_gap(&mut self, payload: &[u8], packet: Option<&Bytes>, env: &mut Env<'_>) {
        let start = self.tcb.rcv.nxt;
        let end = start + payload.len() as u32;
        while self.tcb.rcv.nxt.lt(end) {
            let waiting = self.reassembly.as_ref().and_then(|r| r.ranges.first());
            let until = waiting.map_or(end, |(left, _)| left.min(end));
            self.append(
                &payload[self.tcb.rcv.nxt.since(start) as usize..until.since(start) as usize],
                packet,
                env,
            );
            self.deliver_waiting(env);
        }
    }

    /// What waited and is in order now.
    fn deliver_waiting(&mut self, env: &mut Env<'_>) {
        let Some(mut reassembly) = self.reassembly.take() else { return };
        // A gap is filled, wholly or in part: the sender wants to know at once (5681-8).
        self.tcb.ack.now = true;
        while let Some(piece) = reassembly.take(self.tcb.rcv.nxt) {
            self.tcb.rcv.nxt += piece.len() as u32;
            self.bytes_received += piece.len() as u64;
            if !self.tcb.rcv.shut {
                self.receive_queue.push_bytes(piece, env.pool);
            }
        }
        if !reassembly.ranges.is_empty() {
            self.reassembly = Some(reassembly);
        }
    }

    fn queue_out_of_order(
        &mut self,
        start: SeqNum,
        payload: &[u8],
        packet: Option<&Bytes>,
        env: &mut Env<'_>,
    ) -> Option<DropReason> {
        self.tcb.ack.now = true;
        let nxt = self.tcb.rcv.nxt;
        let reassembly = self.reassembly.get_or_insert_with(|| Box::new(Reassembly::new(nxt)));
        let (limit, max) = (self.tcb.rcv.buffer as usize, env.config.tcp_max_ooo_ranges as usize);
        let inserted = reassembly.insert(start, Piece { bytes: payload, packet }, limit, max);
        if reassembly.ranges.is_empty() {
            self.reassembly = None;
        }
        match inserted {
            Ok(()) => env.counters.tcp_ofo_queue += 1,
            Err(reason) => {
                env.counters.tcp_ofo_drop += 1;
                return Some(reason);
            }
        }
        None
    }

    /// The peer's FIN, if it is next: RCV.NXT goes over it. Says whether it was.
    pub(crate) fn take_fin(&mut self) -> bool {
        let rcv = &mut self.tcb.rcv;
        let next = rcv.fin_seen && rcv.fin_at == rcv.nxt;
        if next {
            rcv.nxt += 1;
            rcv.adv = rcv.adv.max(rcv.nxt);
            self.tcb.ack.now = true;
            self.reassembly = None;
            self.signal(Event::READABLE);
        }
        next
    }

    /// Data that was received before is reported once, if the peer speaks SACK (2883-1, 2883-2).
    pub(crate) fn note_duplicate(&mut self, left: SeqNum, right: SeqNum) {
        if left.lt(right) {
            self.tcb.ack.dsack = (left, right);
        }
    }

    /// Delayed ACK: at least every second full segment, and never later than the delay (SHLD-18, SHLD-19).
    #[inline]
    fn note_data_received(&mut self, bytes: u32, env: &Env<'_>) {
        let ack = &mut self.tcb.ack;
        ack.bytes += bytes;
        let full = u32::from(self.tcb.rcv.mss.max(1));
        if ack.quick > 0 {
            ack.quick -= 1;
            ack.now = true;
        } else if ack.bytes >= 2 * full.min(u32::from(self.tcb.rcv.adv_mss))
            || env.config.tcp_delack.is_zero()
        {
            ack.now = true;
        } else if self.tcb.timers.delayed_ack.is_none() {
            self.tcb.timers.delayed_ack = Some(Deadline::after(env.now, env.config.tcp_delack));
        }
    }

    /// Puts the blocks of the next SACK option into `blocks`; a D-SACK comes first and is told once.
    #[inline]
    pub(crate) fn tell_blocks(&mut self, blocks: &mut SackBlocks, env: &mut Env<'_>) {
        if self.has_blocks_to_tell() && self.tcb.snd.sack && self.tcb.state != State::SynReceived {
            self.tell_all_blocks(blocks, env);
        }
    }

    #[inline]
    pub(crate) fn has_blocks_to_tell(&self) -> bool {
        self.reassembly.is_some() || self.tcb.ack.dsack.0 != self.tcb.ack.dsack.1
    }

    fn tell_all_blocks(&mut self, blocks: &mut SackBlocks, env: &mut Env<'_>) {
        let (left, right) = std::mem::take(&mut self.tcb.ack.dsack);
        if left != right && env.config.tcp_dsack {
            env.counters.tcp_dsack_sent += 1;
            blocks.push(left, right);
        }
        if let Some(reassembly) = &self.reassembly {
            for (left, right) in reassembly.sack_blocks() {
                blocks.push(left, right);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn insert(reassembly: &mut Reassembly, base: SeqNum, at: u32, bytes: &[u8]) -> Result<(), DropReason> {
        reassembly.insert(base + at, Piece { bytes, packet: None }, 1 << 20, 256)
    }

    #[test]
    fn the_block_that_changed_last_is_told_first_2018_2() {
        let base = SeqNum(u32::MAX - 100);
        let mut reassembly = Reassembly::new(base);
        for at in [100, 300, 500] {
            insert(&mut reassembly, base, at, &[0; 50]).unwrap();
        }
        insert(&mut reassembly, base, 350, &[0; 10]).unwrap();
        let blocks: Vec<_> = reassembly.sack_blocks().map(|(l, r)| (l.since(base), r.since(base))).collect();
        assert_eq!(blocks, [(300, 360), (500, 550), (100, 150)]);
    }

    #[test]
    fn ranges_are_bounded_on_both_sides_t_13() {
        let base = SeqNum(7);
        let mut reassembly = Reassembly::new(base);
        for i in 0..256 {
            insert(&mut reassembly, base, 10 + i * 2, &[1]).unwrap();
        }
        assert_eq!(insert(&mut reassembly, base, 10 + 256 * 2, &[1]), Err(DropReason::OutOfOrderFull));
        assert_eq!(insert(&mut reassembly, base, 11, &[1]), Ok(()), "one that joins two ranges still fits");
        let limit = reassembly.held() + PIECE_COST + 1;
        let piece = |bytes| Piece { bytes, packet: None };
        assert!(reassembly.insert(base + 13, piece(&[1, 2]), limit, 256).is_err());
        assert!(reassembly.insert(base + 13, piece(&[1]), limit, 256).is_ok());
    }

    proptest! {
        /// T-50: whatever overlaps come in whatever order, the first copy of each byte is delivered.
        #[test]
        fn the_first_copy_of_a_byte_wins(
            start: u32,
            pieces in proptest::collection::vec((1u32..300, 1usize..80, any::<u8>()), 1..40),
        ) {
            let base = SeqNum(start);
            let mut reassembly = Reassembly::new(base);
            let mut oracle: Vec<Option<u8>> = vec![None; 400];
            for (at, len, fill) in pieces {
                insert(&mut reassembly, base, at, &vec![fill; len]).unwrap();
                for byte in &mut oracle[at as usize..at as usize + len] {
                    byte.get_or_insert(fill);
                }
                let held = oracle.iter().flatten().count() as u32;
                prop_assert_eq!(reassembly.len(), held);
            }
            // Byte 0 fills the first gap; what follows comes out up to the next one.
            let mut nxt = base + 1;
            let mut got = Vec::new();
            while let Some(piece) = reassembly.take(nxt) {
                got.extend_from_slice(&piece);
                nxt += piece.len() as u32;
            }
            let expected: Vec<u8> = oracle[1..].iter().map_while(|b| *b).collect();
            prop_assert_eq!(got, expected);
            if reassembly.ranges.is_empty() {
                prop_assert_eq!(reassembly.held(), 0);
            }
        }
    }
}

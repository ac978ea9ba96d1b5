//! The out-of-order queue: text received beyond a gap (RFC 9293 §3.10.7.4).
// SHLD-31

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use crate::buffer::is_worth_holding;
use crate::counters::DropReason;
use crate::seq::SeqNum;
use crate::wire::tcp::SackBlocks;

/// Bytes of overhead of a range: its share of a tree with nodes nearly half empty.
const RANGE_COST: usize = 160;
/// Bytes of overhead of a piece for its allocation, besides its data and its slot in the range.
const PIECE_COST: usize = 16;
/// Bytes of the queue itself and of the first node of its tree.
const BASE_COST: usize = size_of::<Reassembly>() + 4 * RANGE_COST;
/// Minimum limit in bytes, however small the receive buffer is.
const LEAST_LIMIT: usize = 4096;
/// Adjacent small pieces are merged into one of at most this many bytes.
const BLOCK: usize = 4096;
/// Most gaps that one segment may fill. The rest of the segment is dropped, and the peer retransmits it.
pub(crate) const MOST_GAPS: usize = 64;
/// Marks an unused slot in `recent`.
const NOWHERE: u64 = u64::MAX;

/// Data beyond a gap. The first copy of a byte counts (docs/deviations.md, "Overlapping data").
///
/// One tree, so that a segment takes steps logarithmic in the number of ranges. A *place* is a 64-bit offset from the
/// start of the queue, which never wraps.
#[derive(Clone, Debug)]
pub(crate) struct Reassembly {
    /// Disjoint ranges, keyed by their first place.
    ranges: BTreeMap<u64, Range>,
    /// A place in each of the most recently changed ranges, the latest first (2018-2, 2018-3).
    recent: [u64; SackBlocks::MAX],
    /// RCV.NXT; `base_place` is its place.
    base: SeqNum,
    base_place: u64,
    /// Whether the last range ends with the peer's FIN.
    fin: bool,
    /// Bytes of stream data held.
    len: usize,
    /// Memory cost of the ranges in bytes.
    held: usize,
}

/// Contiguous bytes of the stream.
#[derive(Clone, Debug)]
struct Range {
    end: u64,
    pieces: VecDeque<Piece>,
    /// Memory cost of the pieces in bytes.
    pieces_held: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// Bytes copied in.
    Own(Vec<u8>),
    /// A slice of a packet, and the packet's length.
    Shared(Bytes, u32),
}

impl Piece {
    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Own(bytes) => bytes,
            Piece::Shared(bytes, _) => bytes,
        }
    }

    /// Memory in bytes: the whole buffer, even if only a part is used.
    fn cost(&self) -> usize {
        PIECE_COST
            + match self {
                Piece::Own(bytes) => bytes.capacity(),
                Piece::Shared(_, packet) => *packet as usize,
            }
    }
}

impl Range {
    /// An empty range at `start`.
    fn new(start: u64) -> Range {
        Range { end: start, pieces: VecDeque::new(), pieces_held: 0 }
    }

    fn cost(&self) -> usize {
        RANGE_COST + self.pieces.capacity() * size_of::<Piece>() + self.pieces_held
    }

    /// Appends a payload as a slice of its packet, or as a copy that first fills the last piece.
    fn push(&mut self, payload: &[u8], packet: Option<&Bytes>) {
        self.end += payload.len() as u64;
        if let Some(packet) = packet.filter(|packet| is_worth_holding(payload.len(), packet.len())) {
            return self.push_piece(Piece::Shared(packet.slice_ref(payload), packet.len() as u32));
        }
        let room = match self.pieces.back() {
            Some(Piece::Own(last)) => BLOCK.saturating_sub(last.len()),
            _ => 0,
        };
        let (now, later) = payload.split_at(payload.len().min(room));
        if let Some(Piece::Own(last)) = self.pieces.back_mut() {
            self.pieces_held -= last.capacity();
            append(last, now);
            self.pieces_held += last.capacity();
        }
        if !later.is_empty() {
            self.push_piece(Piece::Own(later.to_vec()));
        }
    }

    fn push_piece(&mut self, piece: Piece) {
        self.pieces_held += piece.cost();
        if self.pieces.capacity() == 0 {
            // Most ranges of an attacker never get a second piece.
            self.pieces.reserve_exact(1);
        }
        self.pieces.push_back(piece);
    }

    /// Merges the range that begins where this one ends. The shorter list of pieces is moved.
    fn join(&mut self, mut after: Range) {
        self.end = after.end;
        self.pieces_held += after.pieces_held;
        if let (Some(Piece::Own(last)), Some(Piece::Own(first))) =
            (self.pieces.back_mut(), after.pieces.front_mut())
            && last.len() + first.len() <= BLOCK
        {
            self.pieces_held -= PIECE_COST + last.capacity() + first.capacity();
            if first.len() > last.len() {
                prepend(first, last);
                self.pieces_held += first.capacity();
                self.pieces.pop_back();
            } else {
                append(last, first);
                self.pieces_held += last.capacity();
                after.pieces.pop_front();
            }
        }
        if self.pieces.len() >= after.pieces.len() {
            self.pieces.append(&mut after.pieces);
        } else {
            self.pieces.drain(..).rev().for_each(|piece| after.pieces.push_front(piece));
            self.pieces = after.pieces;
        }
    }
}

/// Reserves room for `more` bytes, growing to powers of two.
fn make_room(bytes: &mut Vec<u8>, more: usize) {
    let len = bytes.len() + more;
    if bytes.capacity() < len {
        bytes.reserve_exact(len.next_power_of_two() - bytes.len());
    }
}

fn append(bytes: &mut Vec<u8>, more: &[u8]) {
    make_room(bytes, more.len());
    bytes.extend_from_slice(more);
}

fn prepend(bytes: &mut Vec<u8>, more: &[u8]) {
    make_room(bytes, more.len());
    bytes.splice(..0, more.iter().copied());
}

/// Places count from RCV.NXT: their zero is as good as any.
impl Hash for Reassembly {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Reassembly { ranges, recent, base, base_place, fin, len, held: _ } = self;
        let place = |place: u64| place.wrapping_sub(*base_place);
        (base, fin, len, recent.map(place)).hash(state);
        for (start, range) in ranges {
            (place(*start), place(range.end)).hash(state);
            range.pieces.iter().for_each(|piece| state.write(piece.bytes()));
        }
    }
}

impl Reassembly {
    /// An empty queue at RCV.NXT = `nxt`.
    pub(crate) fn new(nxt: SeqNum) -> Reassembly {
        Reassembly {
            ranges: BTreeMap::new(),
            recent: [NOWHERE; SackBlocks::MAX],
            base: nxt,
            base_place: 0,
            fin: false,
            len: 0,
            held: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Memory in bytes: buffer capacities and the overhead of trees, lists and allocations. A piece that is a slice
    /// of a packet counts as the whole packet.
    pub(crate) fn held(&self) -> usize {
        BASE_COST + self.held
    }

    /// Bytes of the stream held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn place(&self, seq: SeqNum) -> u64 {
        self.base_place + u64::from(seq.since(self.base))
    }

    fn seq(&self, place: u64) -> SeqNum {
        self.base + (place - self.base_place) as u32
    }

    fn end_place(&self) -> u64 {
        self.ranges.last_key_value().map_or(self.base_place, |(_, range)| range.end)
    }

    /// The sequence number just past the last range.
    pub(crate) fn end(&self) -> SeqNum {
        self.seq(self.end_place())
    }

    /// Start of the first range.
    pub(crate) fn start(&self) -> Option<SeqNum> {
        self.ranges.first_key_value().map(|(start, _)| self.seq(*start))
    }

    /// SACK blocks, the most recently changed first.
    pub(crate) fn sack_blocks(&self) -> impl Iterator<Item = (SeqNum, SeqNum)> + '_ {
        let ranges = self.recent.iter().filter_map(|place| self.range_at(*place));
        ranges.map(|(left, right)| (self.seq(left), self.seq(right)))
    }

    fn range_at(&self, place: u64) -> Option<(u64, u64)> {
        let (start, range) = self.ranges.range(..=place).next_back()?;
        (place < range.end).then_some((*start, range.end))
    }

    /// The first part of `left..right` that is held.
    pub(crate) fn overlap(&self, left: SeqNum, right: SeqNum) -> Option<(SeqNum, SeqNum)> {
        let (left, right) = (self.place(left), self.place(right));
        let next = || self.ranges.range(left..right).next().map(|(start, range)| (*start, range.end));
        let (start, end) = self.range_at(left).or_else(next)?;
        Some((self.seq(start.max(left)), self.seq(end.min(right))))
    }

    /// Queues the parts of a payload that are not yet held, within `limit`; see [`fit`](Reassembly::fit). Returns the
    /// reason if nothing could be queued.
    pub(crate) fn insert(
        &mut self,
        seq: SeqNum,
        payload: &[u8],
        packet: Option<&Bytes>,
        limit: usize,
    ) -> Result<(), DropReason> {
        let start = self.place(seq);
        let end = start + payload.len() as u64;
        let cost = payload.len() + RANGE_COST + PIECE_COST + size_of::<Piece>();
        if start >= self.end_place() && self.held() + cost > self.allowance(limit) {
            // The highest text would be the first to be dropped.
            return Err(DropReason::OutOfOrderFull);
        }
        let mut at = start;
        for _ in 0..MOST_GAPS {
            at = self.range_at(at).map_or(at, |(_, end)| end);
            if at >= end {
                break;
            }
            let next = self.ranges.range(at..end).next();
            let until = next.map_or(end, |(next, _)| *next);
            self.fill(at, &payload[(at - start) as usize..(until - start) as usize], packet);
            at = until;
        }
        self.note_change(start);
        Ok(())
    }

    /// Queues bytes that are not yet held.
    fn fill(&mut self, from: u64, bytes: &[u8], packet: Option<&Bytes>) {
        let after = self.ranges.remove(&(from + bytes.len() as u64));
        self.held -= after.as_ref().map_or(0, Range::cost);
        self.len += bytes.len();
        let before = self.ranges.range_mut(..=from).next_back().map(|(_, range)| range);
        let range = match before.filter(|range| range.end == from) {
            Some(range) => {
                self.held -= range.cost();
                range
            }
            None => self.ranges.entry(from).or_insert_with(|| Range::new(from)),
        };
        range.push(bytes, packet);
        if let Some(after) = after {
            range.join(after);
        }
        self.held += range.cost();
    }

    /// Queues the sequence number of a FIN past the last range.
    pub(crate) fn insert_fin(&mut self, seq: SeqNum) {
        let place = self.place(seq);
        match self.ranges.last_entry().filter(|last| last.get().end == place) {
            Some(mut last) => last.get_mut().end += 1,
            None => {
                let range = Range { end: place + 1, ..Range::new(place) };
                self.held += range.cost();
                self.ranges.insert(place, range);
            }
        }
        self.fin = true;
        self.note_change(place);
    }

    /// Records that the range at `place` changed, so that its block is reported first.
    fn note_change(&mut self, place: u64) {
        let (left, right) = self.range_at(place).unwrap_or((place, place));
        let before = std::mem::replace(&mut self.recent, [NOWHERE; SackBlocks::MAX]);
        let others = before.into_iter().filter(|other| !(left..right).contains(other));
        let told = std::iter::once(place).chain(others);
        self.recent.iter_mut().zip(told).for_each(|(slot, place)| *slot = place);
    }

    /// Memory in bytes that the queue may use: `limit`, and a quarter of the data for overhead.
    fn allowance(&self, limit: usize) -> usize {
        limit.max(LEAST_LIMIT) + self.len / 4
    }

    /// Drops the highest pieces until the memory is at most `limit` and a quarter of the data (THREAT-13). Returns
    /// the number of bytes freed.
    pub(crate) fn fit(&mut self, limit: usize) -> usize {
        let before = self.held;
        while self.held() > self.allowance(limit) && self.drop_last() {}
        before - self.held
    }

    /// Drops the highest piece. SACK blocks no longer report it.
    fn drop_last(&mut self) -> bool {
        let Some(mut last) = self.ranges.last_entry() else { return false };
        self.held -= last.get().cost();
        // A FIN at the end of the range is dropped with the last piece. `rcv.fin_seen` still records it.
        let range = last.get_mut();
        range.end -= u64::from(std::mem::take(&mut self.fin));
        if let Some(piece) = range.pieces.pop_back() {
            range.end -= piece.len() as u64;
            range.pieces_held -= piece.cost();
            self.len -= piece.len();
        }
        if range.pieces.is_empty() {
            last.remove();
        } else {
            if range.pieces.capacity() > 4 * range.pieces.len() {
                range.pieces.shrink_to(2 * range.pieces.len());
            }
            self.held += range.cost();
        }
        true
    }

    /// Advances the base to `nxt` (RCV.NXT) and removes the pieces that are now in order.
    pub(crate) fn take(&mut self, nxt: SeqNum) -> VecDeque<Piece> {
        (self.base_place, self.base) = (self.place(nxt), nxt);
        let first = self.ranges.first_entry();
        let Some(first) = first.filter(|first| *first.key() <= self.base_place) else {
            return VecDeque::new();
        };
        debug_assert_eq!(*first.key(), self.base_place, "RCV.NXT went over what is held");
        let range = first.remove();
        self.held -= range.cost();
        self.len -= range.pieces.iter().map(Piece::len).sum::<usize>();
        range.pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use allocation_counter::measure;
    use proptest::prelude::*;

    const NO_LIMIT: usize = 1 << 30;

    fn insert(reassembly: &mut Reassembly, base: SeqNum, at: u32, bytes: &[u8]) -> Result<(), DropReason> {
        reassembly.insert(base + at, bytes, None, NO_LIMIT)
    }

    fn blocks(reassembly: &Reassembly, base: SeqNum) -> Vec<(u32, u32)> {
        reassembly.sack_blocks().map(|(left, right)| (left.since(base), right.since(base))).collect()
    }

    fn bytes_of(pieces: VecDeque<Piece>) -> Vec<u8> {
        let bytes = pieces.into_iter().map(|piece| match piece {
            Piece::Own(bytes) => bytes,
            Piece::Shared(bytes, _) => bytes.into(),
        });
        bytes.flatten().collect()
    }

    #[test]
    fn the_block_that_changed_last_is_told_first_2018_2() {
        let base = SeqNum(u32::MAX - 100);
        let mut reassembly = Reassembly::new(base);
        for at in [100, 300, 500] {
            insert(&mut reassembly, base, at, &[0; 50]).unwrap();
        }
        insert(&mut reassembly, base, 350, &[0; 10]).unwrap();
        assert_eq!(blocks(&reassembly, base), [(300, 360), (500, 550), (100, 150)]);
        // A duplicate moves its block to the front.
        insert(&mut reassembly, base, 110, &[0; 10]).unwrap();
        assert_eq!(blocks(&reassembly, base), [(100, 150), (300, 360), (500, 550)]);
        // Joined ranges are one block, and no block is reported twice.
        insert(&mut reassembly, base, 360, &[0; 140]).unwrap();
        assert_eq!(blocks(&reassembly, base), [(300, 550), (100, 150)]);
    }

    #[test]
    fn four_blocks_are_told_of_any_number_of_ranges_2018_3() {
        let base = SeqNum(9);
        let mut reassembly = Reassembly::new(base);
        for i in 0..5000 {
            insert(&mut reassembly, base, 10 + i * 10, &[0; 5]).unwrap();
        }
        assert_eq!(reassembly.len(), 25_000);
        let last = (4996..5000).rev().map(|i| (10 + i * 10, 15 + i * 10));
        assert_eq!(blocks(&reassembly, base), last.collect::<Vec<_>>());
    }

    #[test]
    fn a_fin_is_the_last_number_of_its_block_2018_2() {
        let base = SeqNum(9);
        let mut reassembly = Reassembly::new(base);
        insert(&mut reassembly, base, 10, &[1; 5]).unwrap();
        reassembly.insert_fin(base + 15);
        assert_eq!((blocks(&reassembly, base), reassembly.len()), (vec![(10, 16)], 5));
        let mut reassembly = Reassembly::new(base);
        insert(&mut reassembly, base, 10, &[1; 5]).unwrap();
        reassembly.insert_fin(base + 20);
        assert_eq!(blocks(&reassembly, base), [(20, 21), (10, 15)]);
        insert(&mut reassembly, base, 15, &[2; 5]).unwrap();
        assert_eq!(blocks(&reassembly, base), [(10, 21)]);
        assert_eq!(bytes_of(reassembly.take(base + 10)), [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
        assert!(reassembly.is_empty() && reassembly.held() == BASE_COST);
    }

    #[test]
    fn the_highest_is_dropped_first_and_told_no_more_threat_13() {
        let base = SeqNum(u32::MAX - 5);
        let mut reassembly = Reassembly::new(base);
        for at in [10_000, 20_000, 30_000] {
            insert(&mut reassembly, base, at, &[0; 5000]).unwrap();
        }
        reassembly.insert_fin(base + 35_000);
        let before = reassembly.held();
        assert!(reassembly.drop_last() && before - reassembly.held() >= 5000);
        assert_eq!(
            (blocks(&reassembly, base), reassembly.len()),
            (vec![(20_000, 25_000), (10_000, 15_000)], 10_000)
        );
        // Lower text has priority over higher text.
        let limit = reassembly.held() - 2500;
        assert_eq!(reassembly.insert(base + 40_000, &[0], None, limit), Err(DropReason::OutOfOrderFull));
        assert_eq!(reassembly.insert(base + 1000, &[0; 5000], None, limit), Ok(()));
        assert!(reassembly.fit(limit) >= 5000);
        assert_eq!(blocks(&reassembly, base), [(1000, 6000), (10_000, 15_000)]);
        while reassembly.drop_last() {}
        assert!(reassembly.is_empty());
        assert_eq!((reassembly.len(), reassembly.held()), (0, BASE_COST));
    }

    #[test]
    fn what_is_refused_and_what_is_dropped_is_just_beyond_the_limit_threat_13() {
        let base = SeqNum(7);
        let mut reassembly = Reassembly::new(base);
        insert(&mut reassembly, base, 10, &[1; 8000]).unwrap();
        let more = 100 + RANGE_COST + PIECE_COST + size_of::<Piece>();
        let limit = reassembly.held() + more - 2000;
        assert_eq!(
            reassembly.insert(base + 9000, &[1; 100], None, limit - 1),
            Err(DropReason::OutOfOrderFull)
        );
        assert_eq!(reassembly.insert(base + 9000, &[1; 100], None, limit), Ok(()));
        let least = reassembly.held() - reassembly.len / 4;
        assert_eq!((reassembly.fit(least), reassembly.len()), (0, 8100));
        assert!(reassembly.fit(least - 1) > 0 && reassembly.len() == 8000);
    }

    #[test]
    fn full_segments_with_a_hole_before_them_fit_into_a_window_of_the_buffer() {
        let base = SeqNum(7);
        // MTU and header length: 576 and 1500 over IPv4 and IPv6, and an offloaded super-segment.
        for (packet, header) in [(576, 52), (1500, 40), (1500, 72), (1500, 100), (65_000, 72)] {
            let (mut reassembly, buffer, full) = (Reassembly::new(base), 1 << 20, packet - header);
            for shared in [true, false] {
                let count = buffer / full;
                for i in 1..count {
                    let packet = Bytes::from(vec![1; packet]);
                    let at = base + (i * full) as u32;
                    let held = reassembly.insert(at, &packet[header..], shared.then_some(&packet), buffer);
                    assert_eq!((held, reassembly.fit(buffer)), (Ok(()), 0), "{i} of {count} of {full} bytes");
                }
                reassembly = Reassembly::new(base);
            }
        }
    }

    /// A segment that spans very many ranges fills some of the gaps; its retransmission fills the others (THREAT-14).
    #[test]
    fn one_segment_fills_a_bounded_number_of_gaps_threat_14() {
        let base = SeqNum(7);
        let mut reassembly = Reassembly::new(base);
        for i in 0..30_000 {
            insert(&mut reassembly, base, 1 + 2 * i, &[1]).unwrap();
        }
        let gaps = MOST_GAPS as u32;
        insert(&mut reassembly, base, 1, &[2; 60_000]).unwrap();
        assert_eq!(blocks(&reassembly, base)[0], (1, 2 * gaps + 2));
        insert(&mut reassembly, base, 2 * gaps + 2, &[2; 59_000]).unwrap();
        assert_eq!(blocks(&reassembly, base)[0], (1, 4 * gaps + 2));
        let text = bytes_of(reassembly.take(base + 1));
        assert!(text.chunks(2).all(|pair| matches!(pair, [1, 2] | [1])), "the first copy counts");
    }

    #[test]
    fn adjacent_bytes_become_large_pieces_from_either_end_threat_13() {
        let base = SeqNum(7);
        for upwards in [true, false] {
            let mut reassembly = Reassembly::new(base);
            for i in 0..50_000 {
                let at = if upwards { 1 + i } else { 50_000 - i };
                insert(&mut reassembly, base, at, &[1]).unwrap();
            }
            assert!(reassembly.held() < 60_000, "{}", reassembly.held());
            assert_eq!(bytes_of(reassembly.take(base + 1)).len(), 50_000);
        }
    }

    #[test]
    fn a_slice_counts_as_its_packet_and_a_small_part_is_copied() {
        let packet = Bytes::from(vec![1; 9000]);
        let mut reassembly = Reassembly::new(SeqNum(0));
        reassembly.insert(SeqNum(1), &packet[..4600], Some(&packet), NO_LIMIT).unwrap();
        assert!(packet.is_unique());
        reassembly.insert(SeqNum(10_000), &packet[500..], Some(&packet), NO_LIMIT).unwrap();
        assert!(!packet.is_unique() && reassembly.held() >= 4600 + 9000);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert { at: u32, len: usize, fill: u8, shared: bool },
        Fit(usize),
        DropLast,
    }

    impl Step {
        fn apply(self, reassembly: &mut Reassembly, base: SeqNum) {
            match self {
                Step::Insert { at, len, fill, shared } => {
                    let packet = Bytes::from(vec![fill; len + 40]);
                    let shared = Some(&packet).filter(|_| shared);
                    reassembly.insert(base + at, &packet[40..], shared, NO_LIMIT).unwrap();
                }
                Step::Fit(limit) => _ = reassembly.fit(limit),
                Step::DropLast => _ = reassembly.drop_last(),
            }
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        let len = prop_oneof![1usize..10, 1usize..400, 1000usize..3000];
        prop_oneof![
            20 => (1u32..20_000, len, any::<u8>(), any::<bool>())
                .prop_map(|(at, len, fill, shared)| Step::Insert { at, len, fill, shared }),
            1 => (0usize..20_000).prop_map(Step::Fit),
            1 => Just(Step::DropLast),
        ]
    }

    proptest! {
        /// THREAT-50: for any overlaps in any order, the first copy of each byte is delivered.
        #[test]
        fn the_first_copy_of_a_byte_wins(start: u32, steps in proptest::collection::vec(step(), 1..200)) {
            let base = SeqNum(start);
            let mut oracle: Vec<Option<u8>> = vec![None; 30_000];
            let mut reassembly = Reassembly::new(base);
            for step in steps {
                let before = reassembly.end_place();
                step.apply(&mut reassembly, base);
                if let Step::Insert { at, len, fill, .. } = step {
                    for byte in &mut oracle[at as usize..at as usize + len] {
                        byte.get_or_insert(fill);
                    }
                } else {
                    prop_assert!(reassembly.end_place() <= before);
                    oracle[reassembly.end_place() as usize..].fill(None);
                }
                prop_assert_eq!(reassembly.len(), oracle.iter().flatten().count());
            }
            // Fill up to the first range, take it, and repeat for the next gap.
            while let Some(first) = reassembly.start() {
                let at = first.since(base) as usize;
                let expected: Vec<u8> = oracle[at..].iter().map_while(|b| *b).collect();
                oracle[at..at + expected.len()].fill(None);
                prop_assert_eq!(bytes_of(reassembly.take(first)), expected);
            }
            prop_assert_eq!((reassembly.len(), reassembly.held), (0, 0));
            prop_assert_eq!(oracle.iter().flatten().count(), 0);
        }

        /// The queue allocates no more than it counts.
        #[test]
        fn what_is_held_is_counted_threat_13(steps in proptest::collection::vec(step(), 1..200)) {
            let base = SeqNum(0);
            let mut reassembly = Reassembly::new(base);
            let info = measure(|| steps.iter().for_each(|step| step.apply(&mut reassembly, base)));
            prop_assert!(info.bytes_current <= reassembly.held() as i64, "{info:?} {}", reassembly.held());
        }
    }
}

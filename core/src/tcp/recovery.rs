//! Loss recovery: RFC 6675 if the peer supports SACK, RFC 6582 otherwise.
//!
//! A [`Recovery`] exists while duplicate ACKs, SACK blocks or a loss are pending. Without one, all data in flight is
//! assumed to be in the network.

use crate::seq::SeqNum;
use crate::state::CaState;

/// The scoreboard and the phase of loss recovery.
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    pub(crate) phase: CaState,
    /// Unacknowledged data below this was retransmitted, or need not be.
    pub(crate) high_rxt: SeqNum,
    /// Consecutive duplicate ACKs.
    pub(crate) dupacks: u32,
    /// Whether the next retransmission is sent regardless of the congestion window (9937-3).
    pub(crate) forced: bool,
    /// Whether a partial ACK has already restarted the timer (6582-2).
    pub(crate) partial_seen: bool,
    /// End of the single segment that tries a smaller path MTU. Nothing else is sent until it is acknowledged, since
    /// another router may still find the size too big (RFC 1191 §6.5).
    pub(crate) trial: Option<SeqNum>,
    /// Bytes that have left the network according to duplicate ACKs without SACK.
    inflation: u32,
    /// Selectively acknowledged ranges, ascending and disjoint.
    sacked: Vec<(SeqNum, SeqNum)>,
    /// Number of ranges visited.
    #[cfg(test)]
    looked_at: std::cell::Cell<usize>,
}

impl Recovery {
    pub(crate) fn new(una: SeqNum) -> Recovery {
        Recovery {
            phase: CaState::Open,
            high_rxt: una,
            dupacks: 0,
            forced: false,
            partial_seen: false,
            trial: None,
            inflation: 0,
            sacked: Vec::new(),
            #[cfg(test)]
            looked_at: Default::default(),
        }
    }

    /// Returns whether it holds no state worth keeping.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == CaState::Open && self.dupacks == 0 && self.sacked.is_empty()
    }

    pub(crate) fn sacked_bytes(&self) -> u32 {
        self.sacked.iter().map(|(left, right)| right.since(*left)).sum()
    }

    /// Adds a SACK block that lies within the data sent, and returns whether it covers new data. A block beyond `max`
    /// ranges is ignored (THREAT-15): its data may then be retransmitted needlessly.
    pub(crate) fn add(&mut self, mut left: SeqNum, mut right: SeqNum, max: usize) -> bool {
        let first = self.sacked.partition_point(|(_, r)| r.lt(left));
        let last = self.sacked.partition_point(|(l, _)| l.le(right));
        if first == last {
            if self.sacked.len() >= max {
                return false;
            }
            self.sacked.insert(first, (left, right));
            return true;
        }
        let (old_left, old_right) = (self.sacked[first].0, self.sacked[last - 1].1);
        if last - first == 1 && old_left.le(left) && right.le(old_right) {
            return false;
        }
        (left, right) = (left.min(old_left), right.max(old_right));
        self.sacked.splice(first..last, [(left, right)]);
        true
    }

    /// Removes everything below `una`. Returns whether the peer reneged, that is, dropped data that it had
    /// selectively acknowledged (2018-4). All its blocks are then discarded.
    pub(crate) fn advance(&mut self, una: SeqNum) -> bool {
        let done = self.sacked.partition_point(|(_, right)| right.le(una));
        self.sacked.drain(..done);
        self.high_rxt = self.high_rxt.max(una);
        self.trial.take_if(|end| una.ge(*end));
        let reneged = self.sacked.first().is_some_and(|(left, _)| left.le(una));
        if reneged {
            self.sacked.clear();
        }
        reneged
    }

    /// Ends recovery: the recovery point is acknowledged. Selectively acknowledged ranges beyond it are kept.
    pub(crate) fn end(&mut self) {
        self.phase = CaState::Open;
        (self.forced, self.partial_seen, self.trial, self.inflation) = (false, false, None, 0);
    }

    pub(crate) fn forget_sacked(&mut self) {
        self.sacked.clear();
    }

    /// End of the unsacked data that RFC 6675 considers lost. Above it, `threshold` ranges or more than `threshold -
    /// 1` segments were selectively acknowledged.
    pub(crate) fn lost_below(&self, una: SeqNum, mss: u32, threshold: u32) -> SeqNum {
        let (mut ranges, mut bytes) = (0, 0);
        for (left, right) in self.sacked.iter().rev() {
            ranges += 1;
            bytes += right.since(*left);
            if ranges >= threshold || bytes > (threshold - 1) * mss {
                return *left;
            }
        }
        una
    }

    /// Ranges that end after `from`. Every walk over the scoreboard uses this, so that an ACK costs at most one visit
    /// per range and not its square (THREAT-15).
    fn ranges_after(&self, from: SeqNum) -> impl Iterator<Item = (SeqNum, SeqNum)> + '_ {
        let first = self.sacked.partition_point(|(_, right)| right.le(from));
        let ranges = self.sacked[first..].iter().copied();
        #[cfg(test)]
        let ranges = ranges.inspect(|_| self.looked_at.set(self.looked_at.get() + 1));
        ranges
    }

    /// The first unsacked range at or after `from` and before `limit`.
    pub(crate) fn hole(&self, from: SeqNum, limit: SeqNum) -> Option<(SeqNum, SeqNum)> {
        self.holes(from, limit).next()
    }

    /// The unsacked ranges at or after `from` and before `limit`.
    fn holes(&self, from: SeqNum, limit: SeqNum) -> impl Iterator<Item = (SeqNum, SeqNum)> + '_ {
        let mut start = from;
        let ends = self.ranges_after(from).take_while(move |(left, _)| left.lt(limit));
        let stretches = ends.chain([(limit, limit)]).map(move |(left, right)| {
            let stretch = (start, left);
            start = start.max(right);
            stretch
        });
        stretches.filter(|(start, end)| start.lt(*end))
    }

    /// Bytes considered in the network: SetPipe of RFC 6675, less NewReno's inflation for a peer without SACK.
    pub(crate) fn pipe(&self, una: SeqNum, nxt: SeqNum, recover: SeqNum, lost_below: SeqNum) -> u32 {
        let lost_below = if self.phase == CaState::Loss { recover.max(lost_below) } else { lost_below };
        // Count the bytes of each range that are not lost, and those that were retransmitted.
        let in_network = |(start, end): (SeqNum, SeqNum)| {
            let lost_end = lost_below.max(start).min(end);
            end.since(lost_end) + self.high_rxt.max(start).min(lost_end).since(start)
        };
        let pipe: u32 = self.holes(una, nxt).map(in_network).sum();
        pipe.saturating_sub(self.inflation)
    }

    /// Counts a duplicate ACK without SACK: one segment has left the network, at most `flight` in total (THREAT-45).
    pub(crate) fn inflate(&mut self, mss: u32, flight: u32) {
        self.inflation = (self.inflation + mss).min(flight);
    }

    pub(crate) fn start_inflation(&mut self, bytes: u32) {
        self.inflation = bytes;
    }

    /// Handles a partial ACK of `acked` bytes: deflates by them and adds back one segment (6582-2).
    pub(crate) fn deflate(&mut self, acked: u32, mss: u32) {
        self.inflation = self.inflation.saturating_sub(acked.saturating_sub(mss));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNA: SeqNum = SeqNum(u32::MAX - 5_000);

    fn board(blocks: &[(u32, u32)]) -> Recovery {
        let mut recovery = Recovery::new(UNA);
        for (left, right) in blocks {
            recovery.add(UNA + *left, UNA + *right, 256);
        }
        recovery
    }

    #[test]
    fn a_hole_is_lost_when_enough_was_acknowledged_above_it_6675_1() {
        let lost = |blocks: &[(u32, u32)]| board(blocks).lost_below(UNA, 1000, 3).since(UNA);
        assert_eq!(lost(&[(1000, 3000)]), 0, "two segments are not enough");
        assert_eq!(lost(&[(1000, 3001)]), 1000, "more than two segments are");
        assert_eq!(lost(&[(1000, 1100), (2000, 2100)]), 0, "two ranges are not enough");
        assert_eq!(lost(&[(1000, 1100), (2000, 2100), (3000, 3100)]), 1000, "three are");
    }

    #[test]
    fn pipe_counts_what_is_not_lost_and_what_was_sent_again_6675_1() {
        let mut recovery = board(&[(1000, 4000)]);
        let (nxt, lost) = (UNA + 6000, UNA + 1000);
        assert_eq!(recovery.pipe(UNA, nxt, UNA, lost), 2000);
        recovery.high_rxt = UNA + 400;
        assert_eq!(recovery.pipe(UNA, nxt, UNA, lost), 2400);
    }

    #[test]
    fn a_block_that_the_cumulative_ack_reaches_shows_reneging_2018_4() {
        let mut recovery = board(&[(1000, 2000), (3000, 4000)]);
        assert!(!recovery.advance(UNA + 500));
        assert!(!recovery.advance(UNA + 2000));
        assert!(recovery.advance(UNA + 3000), "the peer held 3000..4000 and does not acknowledge it");
        assert!(recovery.sacked.is_empty());
    }

    #[test]
    fn the_number_of_ranges_is_bounded_threat_15() {
        let mut recovery = Recovery::new(UNA);
        for i in 0..300 {
            recovery.add(UNA + i * 10, UNA + i * 10 + 1, 256);
        }
        assert_eq!(recovery.sacked.len(), 256);
        assert!(!recovery.add(UNA + 9_000, UNA + 9_001, 256));
        assert!(recovery.add(UNA + 1, UNA + 2, 256), "one that extends a range still counts");
    }

    /// THREAT-15: the cost of an ACK in visited ranges, up to the maximum number of ranges.
    #[test]
    fn the_cost_of_an_ack_is_the_number_of_ranges_not_its_square_threat_15() {
        fn cost<T>(ranges: u32, ask: impl Fn(&Recovery) -> T) -> usize {
            let recovery = board(&(0..ranges).map(|i| (10 + i * 10, 15 + i * 10)).collect::<Vec<_>>());
            recovery.looked_at.set(0);
            ask(&recovery);
            recovery.looked_at.get()
        }
        for ranges in [1, 16, 256] {
            let nxt = UNA + 10_000;
            let pipe = cost(ranges, |r| r.pipe(UNA, nxt, UNA, UNA + 5_000));
            assert_eq!(pipe, ranges as usize);
            let first = cost(ranges, |r| r.hole(UNA, nxt));
            let last = cost(ranges, |r| r.hole(UNA + 10 * ranges, nxt));
            assert!(first <= 1 && last <= 2, "{first}, {last}");
        }
    }

    proptest! {
        #[test]
        fn the_scoreboard_is_a_set_of_bytes(
            blocks in proptest::collection::vec((0u32..400, 1u32..60), 0..30),
            rxt in 0u32..500,
            lost in 0u32..500,
        ) {
            let mut recovery = Recovery::new(UNA);
            let mut oracle = [false; 500];
            for (left, len) in blocks {
                let right = (left + len).min(500);
                let news = oracle[left as usize..right as usize].iter().any(|b| !b);
                prop_assert_eq!(recovery.add(UNA + left, UNA + right, 256), news);
                oracle[left as usize..right as usize].fill(true);
            }
            prop_assert_eq!(recovery.sacked_bytes() as usize, oracle.iter().filter(|b| **b).count());
            recovery.high_rxt = UNA + rxt;
            let counted = |i: usize| u32::from(i as u32 >= lost) + u32::from((i as u32) < rxt && (i as u32) < lost);
            let pipe: u32 = (0..500).filter(|i| !oracle[*i]).map(counted).sum();
            prop_assert_eq!(recovery.pipe(UNA, UNA + 500, UNA, UNA + lost), pipe);
        }
    }
}

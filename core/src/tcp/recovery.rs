//! What is lost and when to send it again: RFC 6675 where the peer speaks SACK, RFC 6582 where it does not.
//!
//! A [`Recovery`] exists while duplicate ACKs, SACK blocks or a loss are pending; without one everything in flight
//! is taken to be in the network.

use crate::info::CaState;
use crate::seq::SeqNum;

/// The scoreboard and the phase of loss recovery.
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    pub(crate) phase: CaState,
    /// Everything below this that is not acknowledged was sent again, or need not be.
    pub(crate) high_rxt: SeqNum,
    /// Duplicate ACKs in a row.
    pub(crate) dupacks: u32,
    /// The next retransmission goes out whatever the window says (9937-3).
    pub(crate) forced: bool,
    /// The timer has been restarted by a partial ACK (6582-2).
    pub(crate) partial_seen: bool,
    /// Where the one segment ends that tries a smaller path MTU: until it is acknowledged nothing else is sent, since
    /// another router may still find the size too big (RFC 1191 §6.5).
    pub(crate) trial: Option<SeqNum>,
    /// Bytes that duplicate ACKs without SACK say have left the network.
    inflation: u32,
    /// Selectively acknowledged ranges, ascending and apart.
    sacked: Vec<(SeqNum, SeqNum)>,
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
        }
    }

    /// Nothing in it is worth keeping.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == CaState::Open && self.dupacks == 0 && self.sacked.is_empty()
    }

    pub(crate) fn sacked_bytes(&self) -> u32 {
        self.sacked.iter().map(|(left, right)| right.since(*left)).sum()
    }

    /// Takes in a SACK block that lies inside of what was sent, and says whether it tells anything new. Above
    /// `max` ranges the block is forgotten (T-15): the data is merely sent again.
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

    /// Everything below `una` is acknowledged. Says whether the peer turns out to have dropped data that it
    /// had acknowledged selectively (2018-4): then its blocks are worth nothing any more.
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

    /// The recovery point is acknowledged. What was acknowledged selectively beyond it stays known.
    pub(crate) fn end(&mut self) {
        self.phase = CaState::Open;
        (self.forced, self.partial_seen, self.trial, self.inflation) = (false, false, None, 0);
    }

    pub(crate) fn forget_sacked(&mut self) {
        self.sacked.clear();
    }

    /// Where the unsacked data ends that RFC 6675 holds for lost: `threshold` ranges, or more than
    /// `threshold - 1` segments, were selectively acknowledged above it.
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

    /// The first unsacked stretch at or after `from` and before `limit`.
    pub(crate) fn hole(&self, from: SeqNum, limit: SeqNum) -> Option<(SeqNum, SeqNum)> {
        let mut start = from;
        for (left, right) in &self.sacked {
            if left.gt(start) {
                let end = left.min(limit);
                return start.lt(end).then_some((start, end));
            }
            start = start.max(*right);
        }
        start.lt(limit).then_some((start, limit))
    }

    /// Bytes held to be in the network (RFC 6675 SetPipe; for a peer without SACK what NewReno's inflation says).
    pub(crate) fn pipe(&self, una: SeqNum, nxt: SeqNum, recover: SeqNum, lost_below: SeqNum) -> u32 {
        let lost_below = if self.phase == CaState::Loss { recover.max(lost_below) } else { lost_below };
        let mut pipe = 0;
        let mut at = una;
        while let Some((start, end)) = self.hole(at, nxt) {
            // Of this stretch count what is not lost, and what was sent again.
            pipe += end.since(start.max(lost_below.min(end)));
            pipe += self.high_rxt.min(end).min(lost_below).since(start).min(end.since(start))
                * u32::from(self.high_rxt.gt(start) && lost_below.gt(start));
            at = end;
        }
        pipe.saturating_sub(self.inflation)
    }

    /// A duplicate ACK of a peer without SACK: a segment of ours has left the network (T-45: at most `flight`).
    pub(crate) fn inflate(&mut self, mss: u32, flight: u32) {
        self.inflation = (self.inflation + mss).min(flight);
    }

    pub(crate) fn start_inflation(&mut self, bytes: u32) {
        self.inflation = bytes;
    }

    /// A partial ACK of `acked` bytes: deflate by them, add one segment (6582-2).
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
    fn the_number_of_ranges_is_bounded_t_15() {
        let mut recovery = Recovery::new(UNA);
        for i in 0..300 {
            recovery.add(UNA + i * 10, UNA + i * 10 + 1, 256);
        }
        assert_eq!(recovery.sacked.len(), 256);
        assert!(!recovery.add(UNA + 9_000, UNA + 9_001, 256));
        assert!(recovery.add(UNA + 1, UNA + 2, 256), "one that extends a range still counts");
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

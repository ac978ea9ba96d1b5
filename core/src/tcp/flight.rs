//! The data in flight: ranges of sequence numbers, each with its send time and its fate.
//!
//! While all data in flight was sent at one time, that time is all that is stored, in [`Snd`](super::tcb::Snd). A
//! [`Flight`] exists while there are several ranges, or while loss recovery has state.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use super::recovery::prr::Prr;
use super::recovery::rack::{Delivery, Rack, sent_after};
use super::recovery::tlp::Probe;
use super::recovery::undo::{Frto, Undo};
use crate::seq::SeqNum;
use crate::state::CaState;
use crate::time::SendTime;

/// A range in flight. It begins where the range before it ends, the first one at SND.UNA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Range {
    pub(crate) end: SeqNum,
    /// The last transmission.
    pub(crate) sent: SendTime,
    pub(crate) fate: Fate,
    /// It was sent more than once.
    pub(crate) retransmitted: bool,
}

const _: () = assert!(size_of::<Range>() == 12);

/// The fate of a range, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    InNetwork,
    /// Considered lost, and not retransmitted since.
    Lost,
    /// Selectively acknowledged.
    Sacked,
}

/// The ranges in flight, and the state of loss recovery.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    /// Ascending, never empty. The last one ends at SND.NXT, which [`extend_to`](Flight::extend_to) records: data of
    /// the same send time only advances SND.NXT.
    ranges: VecDeque<Range>,
    /// Bytes in ranges of each fate.
    sacked: u32,
    lost: u32,
    /// Number of selectively acknowledged ranges. No two of them are adjacent.
    sacked_ranges: u32,
    /// The latest send time, and whether a retransmission has it.
    latest: SendTime,
    latest_is_retransmission: bool,
    pub(crate) phase: CaState,
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
    pub(crate) inflation: u32,
    pub(crate) rack: Rack,
    pub(crate) probe: Probe,
    /// The reduction of the window, in Recovery.
    pub(crate) prr: Option<Prr>,
    /// Something was marked as lost since this was last cleared.
    pub(crate) marked: bool,
    /// When the current episode of recovery began (5681-14).
    pub(crate) episode: SendTime,
    /// When SACK blocks last gave a round-trip sample.
    pub(crate) sampled: SendTime,
    /// The round trip that RACK saw last is that of data that was sent more than once.
    pub(crate) sampled_again: bool,
    pub(crate) undo: Option<Box<Undo>>,
    pub(crate) frto: Frto,
    /// An ECE of data below this reports congestion to which the window was already reduced (3168-4).
    pub(crate) cwr_until: SeqNum,
    /// Number of ranges visited.
    #[cfg(test)]
    pub(crate) visited: std::cell::Cell<usize>,
}

/// The result of [`Flight::detect`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detected {
    /// A retransmission of this episode is lost (5681-14).
    pub(crate) retransmission: bool,
    /// Number of ranges considered lost that were retransmitted before.
    pub(crate) again: u32,
    /// Microseconds until the last range that may be lost or reordered is considered lost.
    pub(crate) wait: Option<u32>,
}

impl Hash for Flight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Flight {
            ranges,
            sacked,
            lost,
            sacked_ranges,
            latest,
            latest_is_retransmission,
            phase,
            dupacks,
            forced,
            partial_seen,
            trial,
            inflation,
            rack,
            probe,
            prr,
            marked,
            episode,
            sampled,
            sampled_again,
            undo,
            frto,
            cwr_until,
            #[cfg(test)]
                visited: _,
        } = self;
        (ranges, sacked, lost, sacked_ranges, latest, latest_is_retransmission).hash(state);
        (phase, dupacks, forced, partial_seen, trial, inflation, rack, probe).hash(state);
        (prr, marked, episode, sampled, sampled_again, undo, frto, cwr_until).hash(state);
    }
}

impl Flight {
    /// The data from `una` on was sent at one time.
    pub(crate) fn new(una: SeqNum, sent: SendTime) -> Flight {
        Flight::with(VecDeque::with_capacity(4), una, sent)
    }

    /// The same, in the memory of `ranges`.
    fn with(mut ranges: VecDeque<Range>, una: SeqNum, sent: SendTime) -> Flight {
        ranges.clear();
        ranges.push_back(Range { end: una, sent, fate: Fate::InNetwork, retransmitted: false });
        Flight {
            ranges,
            sacked: 0,
            lost: 0,
            sacked_ranges: 0,
            latest: sent,
            latest_is_retransmission: false,
            phase: CaState::Open,
            dupacks: 0,
            forced: false,
            partial_seen: false,
            trial: None,
            inflation: 0,
            rack: Rack::new(una),
            probe: Probe::None,
            prr: None,
            marked: false,
            episode: sent,
            sampled: sent,
            sampled_again: false,
            undo: None,
            frto: Frto::Off,
            cwr_until: una,
            #[cfg(test)]
            visited: Default::default(),
        }
    }

    /// Returns whether nothing indicates loss or reordering, and no loss probe is out: an ACK only releases ranges.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        self.phase == CaState::Open && self.shows_no_loss()
    }

    /// Returns whether every ACK was as if nothing were lost or late. A mark is no loss.
    pub(crate) fn shows_no_loss(&self) -> bool {
        matches!(self.phase, CaState::Open | CaState::Cwr)
            && self.sacked == 0
            && self.lost == 0
            && self.dupacks == 0
            && self.probe == Probe::None
    }

    /// Returns whether all that was lost in Recovery was sent again, so that an ACK is to come.
    pub(crate) fn awaits_repair(&self) -> bool {
        self.phase == CaState::Recovery && self.lost == 0 && self.probe == Probe::None
    }

    /// Returns whether lost data, or a loss probe, waits to be sent.
    #[inline]
    pub(crate) fn has_retransmission(&self) -> bool {
        self.lost > 0 || self.probe == Probe::Due
    }

    /// When the latest transmission was sent.
    pub(crate) fn latest(&self) -> SendTime {
        self.latest
    }

    /// When the data at SND.UNA was last sent.
    pub(crate) fn earliest(&self) -> SendTime {
        self.ranges.front().map_or(self.latest, |front| front.sent)
    }

    /// Returns whether nothing was delivered that was sent after the data at SND.UNA: not so after a timeout that was
    /// undone.
    // DRILL-X72
    pub(crate) fn is_delivered_in_order(&self) -> bool {
        let after = |newest, front: &Range| sent_after(newest, (front.sent, front.end));
        let newest = self.rack.newest.zip(self.ranges.front());
        !newest.is_some_and(|(newest, front)| after(newest, front))
    }

    /// Ascending: each begins where the one before it ends, the first one at SND.UNA.
    pub(crate) fn ranges_up_to(&self, nxt: SeqNum) -> impl Iterator<Item = Range> + '_ {
        let last = self.ranges.len() - 1;
        let end = move |index, range: &Range| if index == last { nxt } else { range.end };
        self.ranges.iter().enumerate().map(move |(index, range)| Range { end: end(index, range), ..*range })
    }

    pub(crate) fn sacked(&self) -> u32 {
        self.sacked
    }

    pub(crate) fn lost(&self) -> u32 {
        self.lost
    }

    /// Bytes above SND.UNA that have left the network and arrived, as far as it is known.
    pub(crate) fn left(&self) -> u32 {
        self.sacked + self.inflation
    }

    /// Bytes that were sent more than once, and are in the network.
    pub(crate) fn retransmitted(&self, una: SeqNum) -> u32 {
        let mut start = una;
        let mut bytes = 0;
        for range in &self.ranges {
            let again = range.retransmitted && range.fate == Fate::InNetwork;
            bytes += if again { range.end.since(start) } else { 0 };
            start = range.end;
        }
        bytes
    }

    pub(crate) fn sacked_ranges(&self) -> u32 {
        self.sacked_ranges
    }

    /// Bytes in the network: neither selectively acknowledged nor lost, and the second copy that a loss probe is. Without
    /// SACK, less those that duplicate ACKs show to have left it.
    pub(crate) fn in_network(&self, una: SeqNum, nxt: SeqNum) -> u32 {
        let flight = nxt.since(una) + self.probe.copied(una);
        flight.saturating_sub(self.sacked + self.lost).saturating_sub(self.inflation)
    }

    /// The send time for a transmission now. The order of send times is the order of sending: where a retransmission
    /// follows new data at one instant, or the reverse, the clock has not advanced and the send time does (8985-27).
    fn stamp(&mut self, now: SendTime, retransmission: bool) -> SendTime {
        let changes = retransmission != self.latest_is_retransmission;
        if now.since(self.latest) > 0 {
            self.latest = now;
        } else if changes {
            self.latest = SendTime(self.latest.0.wrapping_add(1));
        }
        self.latest_is_retransmission = retransmission;
        self.latest
    }

    /// Everything was acknowledged, and new data from `start` on is sent now.
    pub(crate) fn sent_anew(&mut self, start: SeqNum, now: SendTime) {
        let sent = self.stamp(now, false);
        self.ranges.clear();
        self.ranges.push_back(Range { end: start, sent, fate: Fate::InNetwork, retransmitted: false });
    }

    /// New data from `start` on is sent now. Where there are `most` ranges, the last one takes the data and its later
    /// send time, so that its loss is detected late rather than early.
    pub(crate) fn sent(&mut self, start: SeqNum, now: SendTime, most: usize) {
        let sent = self.stamp(now, false);
        let full = self.ranges.len() >= most;
        let Some(last) = self.ranges.back_mut() else { return };
        if last.fate == Fate::InNetwork && !last.retransmitted && (last.sent == sent || full) {
            last.sent = sent;
            return;
        }
        last.end = start;
        self.ranges.push_back(Range { end: start, sent, fate: Fate::InNetwork, retransmitted: false });
    }

    /// Records SND.NXT, ahead of all that follows.
    pub(crate) fn extend_to(&mut self, nxt: SeqNum) {
        if let Some(last) = self.ranges.back_mut() {
            last.end = nxt;
        }
    }

    /// Releases what lies below `una`, where the flight is calm.
    #[inline]
    pub(crate) fn release(&mut self, una: SeqNum) {
        while self.ranges.len() > 1 && self.ranges[0].end.le(una) {
            self.ranges.pop_front();
        }
    }

    /// Releases what lies between `from` and `una`, which an ACK covers, and enters in `delivery` what that delivers.
    /// Returns whether the peer reneged, that is, dropped data that it had selectively acknowledged (2018-4).
    pub(crate) fn acknowledge(&mut self, from: SeqNum, una: SeqNum, delivery: &mut Delivery) -> bool {
        let mut start = from;
        while start.lt(una)
            && let Some(front) = self.ranges.front().copied()
        {
            let end = front.end.min(una);
            self.count(front.fate, end.since(start), false);
            if front.fate != Fate::Sacked {
                delivery.note(start, end, &front, false);
            }
            if front.end.gt(una) {
                break;
            }
            start = front.end;
            if front.fate == Fate::Sacked {
                self.sacked_ranges -= 1;
            }
            if self.ranges.len() == 1 {
                // All is acknowledged: the range stays, empty.
                self.ranges[0].fate = Fate::InNetwork;
                break;
            }
            self.ranges.pop_front();
        }
        self.trial.take_if(|end| una.ge(*end));
        let reneged = self.ranges.front().is_some_and(|front| front.fate == Fate::Sacked);
        if reneged {
            self.forget_sacked();
        }
        reneged
    }

    /// Moves `bytes` into a fate, or out of it.
    fn count(&mut self, fate: Fate, bytes: u32, into: bool) {
        let sum = match fate {
            Fate::InNetwork => return,
            Fate::Lost => &mut self.lost,
            Fate::Sacked => &mut self.sacked,
        };
        *sum = if into { *sum + bytes } else { *sum - bytes };
        self.marked |= into && fate == Fate::Lost;
    }

    /// When the byte before `ack` was sent, unless it was retransmitted or delivered before.
    pub(crate) fn sent_once(&self, ack: SeqNum) -> Option<SendTime> {
        let index = self.ranges.partition_point(|range| range.end.lt(ack)).min(self.ranges.len() - 1);
        let range = self.ranges[index];
        (!range.retransmitted && range.fate != Fate::Sacked).then_some(range.sent)
    }

    /// When the first data below `ack` was sent that nothing has delivered; `None` if some data below it was sent again.
    pub(crate) fn first_sent(&self, ack: SeqNum) -> Option<SendTime> {
        let last = self.ranges.partition_point(|range| range.end.lt(ack)).min(self.ranges.len() - 1);
        let covered = self.ranges.range(..=last);
        if covered.clone().any(|range| range.retransmitted) {
            return None;
        }
        covered.into_iter().find(|range| range.fate != Fate::Sacked).map(|range| range.sent)
    }

    /// Where the range at `index` begins.
    fn start_of(&self, index: usize, una: SeqNum) -> SeqNum {
        if index == 0 { una } else { self.ranges[index - 1].end }
    }

    /// Divides the range at `index` at `at`, which lies inside it.
    fn split(&mut self, index: usize, at: SeqNum) {
        let first = Range { end: at, ..self.ranges[index] };
        self.ranges.insert(index, first);
    }

    /// Enters a SACK block that lies between `una` and SND.NXT, and returns whether it covers new data. A block that
    /// would make more than `most` acknowledged ranges is ignored (THREAT-15, 8985-25): its data may then be retransmitted
    /// needlessly.
    pub(crate) fn sack(
        &mut self,
        (left, right): (SeqNum, SeqNum),
        una: SeqNum,
        most: u32,
        delivery: &mut Delivery,
    ) -> bool {
        let is_sacked = |range: Option<&Range>| range.is_some_and(|range| range.fate == Fate::Sacked);
        let mut first = self.ranges.partition_point(|range| range.end.le(left));
        let mut last = self.ranges.partition_point(|range| range.end.lt(right));
        if last >= self.ranges.len() || (first == last && is_sacked(self.ranges.get(first))) {
            return false;
        }
        let joins = (first..=last).any(|index| is_sacked(self.ranges.get(index)))
            || (first > 0 && self.start_of(first, una) == left && is_sacked(self.ranges.get(first - 1)))
            || (self.ranges[last].end == right && is_sacked(self.ranges.get(last + 1)));
        if !joins && self.sacked_ranges >= most {
            return false;
        }
        if self.ranges[last].end != right && !is_sacked(self.ranges.get(last)) {
            self.split(last, right);
        }
        if self.start_of(first, una) != left && !is_sacked(self.ranges.get(first)) {
            self.split(first, left);
            (first, last) = (first + 1, last + 1);
        }
        for index in first..=last {
            self.visit();
            let (start, range) = (self.start_of(index, una), self.ranges[index]);
            if range.fate == Fate::Sacked {
                self.sacked_ranges -= 1;
                continue;
            }
            delivery.note(start, range.end, &range, true);
            let bytes = range.end.since(start);
            self.count(range.fate, bytes, false);
            self.count(Fate::Sacked, bytes, true);
            self.ranges[index].fate = Fate::Sacked;
        }
        // One range of all, and of its neighbours. Their send times have served their purpose.
        if first > 0 && is_sacked(self.ranges.get(first - 1)) {
            (first, self.sacked_ranges) = (first - 1, self.sacked_ranges - 1);
        }
        if is_sacked(self.ranges.get(last + 1)) {
            (last, self.sacked_ranges) = (last + 1, self.sacked_ranges - 1);
        }
        self.sacked_ranges += 1;
        self.ranges.drain(first..last);
        true
    }

    /// Forgets what was selectively acknowledged: it counts as in the network.
    pub(crate) fn forget_sacked(&mut self) {
        for range in self.ranges.iter_mut().filter(|range| range.fate == Fate::Sacked) {
            range.fate = Fate::InNetwork;
        }
        (self.sacked, self.sacked_ranges) = (0, 0);
    }

    /// Marks as lost what was sent before the newest range delivered, if it has been out for longer than that one's
    /// round trip and the reordering window (8985-15, 8985-16). All times are in microseconds.
    pub(crate) fn detect(&mut self, una: SeqNum, now: SendTime, reordering_window: u32) -> Detected {
        let mut detected = Detected::default();
        let Rack { newest: Some((sent, end)), rtt, .. } = self.rack else { return detected };
        let mut start = una;
        for index in 0..self.ranges.len() {
            self.visit();
            let range = self.ranges[index];
            let bytes = range.end.since(start);
            start = range.end;
            if range.fate != Fate::InNetwork || !sent_after((sent, end), (range.sent, range.end)) {
                continue;
            }
            let remaining = i64::from(rtt) + i64::from(reordering_window) - i64::from(now.since(range.sent));
            if remaining > 0 {
                detected.wait =
                    Some(detected.wait.unwrap_or(0).max(remaining.min(i64::from(u32::MAX)) as u32));
                continue;
            }
            detected.again += u32::from(range.retransmitted);
            detected.retransmission |= range.retransmitted && range.sent.since(self.episode) >= 0;
            self.ranges[index].fate = Fate::Lost;
            self.count(Fate::Lost, bytes, true);
        }
        detected
    }

    /// Marks the first `head` bytes as lost, and what was sent at least `age` microseconds ago (8985-17).
    pub(crate) fn mark_old(&mut self, una: SeqNum, head: u32, now: SendTime, age: u32) {
        self.mark_head(una, head);
        self.mark(una, |range| i64::from(now.since(range.sent)) >= i64::from(age));
    }

    /// Marks the first `head` bytes as lost.
    pub(crate) fn mark_head(&mut self, una: SeqNum, head: u32) {
        let end = una + head;
        let last = self.ranges.partition_point(|range| range.end.lt(end));
        if last < self.ranges.len() && self.ranges[last].end != end && self.ranges[last].fate != Fate::Sacked
        {
            self.split(last, end);
        }
        self.mark(una, |range| range.end.le(end));
    }

    /// Counts ranges that are marked as lost, and were not retransmitted, as in the network.
    pub(crate) fn withdraw_losses(&mut self) {
        for range in self.ranges.iter_mut().filter(|range| range.fate == Fate::Lost) {
            range.fate = Fate::InNetwork;
        }
        self.lost = 0;
    }

    /// Marks everything as lost that is not selectively acknowledged.
    pub(crate) fn mark_all(&mut self, una: SeqNum) {
        self.mark(una, |_| true);
    }

    fn mark(&mut self, una: SeqNum, is_lost: impl Fn(&Range) -> bool) {
        let mut start = una;
        for range in &mut self.ranges {
            if range.fate == Fate::InNetwork && is_lost(range) {
                range.fate = Fate::Lost;
                self.lost += range.end.since(start);
                self.marked = true;
            }
            start = range.end;
        }
    }

    /// Start and length of the first lost data, of at most `full` bytes.
    pub(crate) fn first_lost(&self, una: SeqNum, full: u32) -> Option<(SeqNum, u32)> {
        if self.lost == 0 {
            return None;
        }
        let is_lost = |range: &Range| range.fate == Fate::Lost;
        let first = self.ranges.iter().inspect(|_| self.visit()).position(is_lost)?;
        let start = self.start_of(first, una);
        let mut len = 0;
        for range in self.ranges.range(first..).take_while(|range| is_lost(range)) {
            len = range.end.since(start);
            if len >= full {
                break;
            }
        }
        Some((start, len.min(full)))
    }

    /// Lost data is retransmitted now: `len` bytes from `start` on, where [`first_lost`](Flight::first_lost) found them.
    pub(crate) fn resent(&mut self, start: SeqNum, len: u32, now: SendTime) {
        let end = start + len;
        let sent = self.stamp(now, true);
        let mut first = self.ranges.partition_point(|range| range.end.le(start));
        let last = self.ranges.partition_point(|range| range.end.lt(end));
        if last >= self.ranges.len() {
            return;
        }
        if self.ranges[last].end != end {
            self.split(last, end);
        }
        self.lost -= len;
        let range = Range { end, sent, fate: Fate::InNetwork, retransmitted: true };
        self.ranges[last] = range;
        // Joins what was retransmitted at the same time right before it.
        if first > 0 && (Range { end: start, ..range }) == self.ranges[first - 1] {
            first -= 1;
        }
        self.ranges.drain(first..last);
    }

    /// The length of the last segment, if segments are of at most `full` bytes. `fin`: it ends with the FIN.
    pub(crate) fn last_segment(&self, una: SeqNum, full: u32, fin: bool) -> u32 {
        let Some(last) = self.ranges.back() else { return 0 };
        let fin = u32::from(fin);
        let data = last.end.since(self.start_of(self.ranges.len() - 1, una)).saturating_sub(fin);
        let rest = if full > 0 { data % full } else { 0 };
        fin + if rest > 0 { rest } else { data.min(full) }
    }

    /// The last `len` bytes are sent again now, though they are not lost.
    pub(crate) fn probed(&mut self, una: SeqNum, len: u32, now: SendTime) {
        let sent = self.stamp(now, true);
        let index = self.ranges.len() - 1;
        let start = self.ranges[index].end - len;
        if start.gt(self.start_of(index, una)) {
            self.split(index, start);
        }
        if let Some(last) = self.ranges.back_mut() {
            (last.sent, last.retransmitted) = (sent, true);
        }
    }

    /// The segment from `start` to `end` has not left yet: it does so now at the earliest (8985-35). Segments are named in
    /// the order in which they will leave.
    pub(crate) fn delay(&mut self, una: SeqNum, (start, end): (SeqNum, SeqNum), now: SendTime) {
        let mut index = self.ranges.partition_point(|range| range.end.le(start));
        let Some(range) = self.ranges.get(index).copied() else { return };
        if range.fate != Fate::InNetwork || now.since(range.sent) <= 0 {
            return;
        }
        if end.lt(range.end) {
            self.split(index, end);
        }
        if start.gt(self.start_of(index, una)) {
            self.split(index, start);
            index += 1;
        }
        self.ranges[index].sent = self.stamp(now, range.retransmitted);
        if index > 0 && self.ranges[index - 1] == (Range { end: start, ..self.ranges[index] }) {
            self.ranges.remove(index - 1);
        }
    }

    fn visit(&self) {
        #[cfg(test)]
        self.visited.set(self.visited.get() + 1);
    }
}

/// Flights for reuse, so that steady traffic does not allocate.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    #[expect(clippy::vec_box)]
    spare: Vec<Box<Flight>>,
}

/// A clone of a stack begins without spare flights.
impl Clone for Flights {
    fn clone(&self) -> Flights {
        Flights::default()
    }
}

impl Flights {
    /// Most flights that are kept, and most ranges of each.
    const KEPT: usize = 64;
    const LONGEST: usize = 64;

    /// A flight whose data from `una` on was sent at one time.
    pub(crate) fn take(&mut self, una: SeqNum, sent: SendTime) -> Box<Flight> {
        let Some(mut flight) = self.spare.pop() else { return Box::new(Flight::new(una, sent)) };
        *flight = Flight::with(std::mem::take(&mut flight.ranges), una, sent);
        flight
    }

    pub(crate) fn take_back(&mut self, flight: Box<Flight>) {
        if self.spare.len() < Flights::KEPT && flight.ranges.capacity() <= Flights::LONGEST {
            self.spare.push(flight);
        }
    }
}

#[cfg(test)]
mod tests;

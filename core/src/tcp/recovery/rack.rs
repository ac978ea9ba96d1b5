//! RACK: loss detection by send times (RFC 8985 §6). Data is lost when data that was sent later has been delivered,
//! and a reordering window has passed.

use crate::seq::SeqNum;
use crate::tcp::flight::{Fate, Range};
use crate::time::SendTime;

/// The least reordering window that is not zero, in microseconds: the granularity of our timers.
const GRANULARITY: u64 = 1000;

/// Recoveries without a D-SACK until the reordering window shrinks again (8985-5).
const PERSIST: u8 = 16;

/// The evidence of the newest delivery of a flight.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Rack {
    /// Send time and end of the most recently sent range that was delivered: RACK.xmit_ts and RACK.end_seq.
    pub(crate) newest: Option<(SendTime, SeqNum)>,
    /// Its round trip in microseconds: RACK.rtt.
    pub(crate) rtt: u32,
    /// The round trip of the newest data that the last ACK delivered, where it was sent once or it is clear which time.
    /// `u32::MAX`: none.
    sample: u32,
    /// The highest sequence number delivered: RACK.fack.
    pub(crate) fack: SeqNum,
    /// SND.NXT when the reordering window last grew: RACK.dsack_round.
    dsack_round: Option<SeqNum>,
}

impl Rack {
    pub(crate) fn new(una: SeqNum) -> Rack {
        Rack { newest: None, rtt: 0, sample: u32::MAX, fack: una, dsack_round: None }
    }

    /// Learns from what an ACK delivered.
    pub(crate) fn update(&mut self, delivery: &Delivery) {
        self.fack = self.fack.max(delivery.fack);
        self.sample = u32::MAX;
        let Some(newest) = delivery.newest else { return };
        let since = |sent: SendTime| delivery.now.since(sent).max(0) as u32;
        self.sample = since(newest.0);
        self.rtt = since(delivery.last.filter(|_| delivery.by_last).unwrap_or(newest.0));
        if self.newest.is_none_or(|known| sent_after(newest, known)) {
            self.newest = Some(newest);
        }
    }

    /// The round trip that the last ACK tells of.
    pub(crate) fn sample(&self) -> Option<u32> {
        (self.sample != u32::MAX).then_some(self.sample)
    }

    /// Returns whether a D-SACK is the first one of a round trip.
    pub(crate) fn begins_dsack_round(&mut self, una: SeqNum, nxt: SeqNum) -> bool {
        self.dsack_round.take_if(|round| una.ge(*round));
        let begins = self.dsack_round.is_none();
        self.dsack_round.get_or_insert(nxt);
        begins
    }
}

/// Returns whether `a` was sent after `b`. Each is a send time and the end of a range; ranges of one send time were
/// sent in the order of their sequence numbers.
pub(crate) fn sent_after(a: (SendTime, SeqNum), b: (SendTime, SeqNum)) -> bool {
    let later = a.0.since(b.0);
    later > 0 || (later == 0 && a.1.gt(b.1))
}

/// The data that one ACK delivers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    now: SendTime,
    /// Smallest round trip in microseconds.
    min_rtt: u32,
    /// Microseconds since the timestamp that the ACK echoes was sent, at least.
    echo_age: Option<u32>,
    fack: SeqNum,
    newest: Option<(SendTime, SeqNum)>,
    /// That data was sent more than once.
    pub(crate) again: bool,
    /// Where data begins that was sent once and arrived after data above it (8985-14).
    pub(crate) reordered: Option<SeqNum>,
    /// Data that was taken for lost, and was not sent again, has arrived.
    pub(crate) late: bool,
    /// Linux: instead, SACK reports data up to here that was not sent again.
    // DRILL-X17
    pub(crate) originals: Option<SeqNum>,
    /// The round trip is that of the last data that the ACK field covers, or else a block: Linux's rule.
    // DRILL-X16
    pub(crate) by_last: bool,
    last: Option<SendTime>,
    covers: bool,
}

impl Delivery {
    pub(crate) fn new(now: SendTime, min_rtt: u32, echo_age: Option<u32>, fack: SeqNum) -> Delivery {
        Delivery {
            now,
            min_rtt,
            echo_age,
            fack,
            newest: None,
            again: false,
            reordered: None,
            late: false,
            originals: None,
            by_last: false,
            last: None,
            covers: false,
        }
    }

    /// The ACK delivers a range, or its part from `start` to `end`. To be called in the order of sequence numbers.
    pub(crate) fn note(&mut self, start: SeqNum, end: SeqNum, range: &Range, selectively: bool) {
        if end.gt(self.fack) {
            self.fack = end;
        } else if end.lt(self.fack) && !range.retransmitted {
            self.reordered.get_or_insert(start);
        }
        self.late |= !range.retransmitted
            && match self.originals {
                None => range.fate == Fate::Lost,
                Some(last) => selectively && end.le(last),
            };
        let sent = (range.sent, end);
        if !self.is_of_last_transmission(range, selectively) {
            return;
        }
        if !(selectively && self.covers) {
            (self.last, self.covers) = (Some(range.sent), !selectively);
        }
        if self.newest.is_none_or(|newest| sent_after(sent, newest)) {
            (self.newest, self.again) = (Some(sent), range.retransmitted);
        }
    }

    /// Returns whether the delivery is that of the range's last transmission, and not of an earlier one. A selective
    /// acknowledgment echoes a timestamp from before the gap, which indicates nothing (RFC 7323 §4.3).
    fn is_of_last_transmission(&self, range: &Range, selectively: bool) -> bool {
        let age = self.now.since(range.sent).max(0) as u32;
        let echoes_older = !selectively && self.echo_age.is_some_and(|echo| echo > age);
        !range.retransmitted || (!echoes_older && age >= self.min_rtt)
    }
}

/// The reordering that a connection has seen. It outlives the flights (8985-5).
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(crate) struct Reordering {
    /// Reordering was seen: RACK.reordering_seen.
    pub(crate) seen: bool,
    /// RACK.reo_wnd_mult, less one.
    widened: u8,
    /// Recoveries for which it stays: RACK.reo_wnd_persist.
    persist: u8,
    /// The furthest that data came late, in segments; 0: never.
    pub(crate) distance: u16,
    /// How often data came late.
    pub(crate) times: u16,
}

/// Linux's limit of `tcpi_reordering`, in segments (`tcp_max_reordering`).
const MOST_DISTANCE: u32 = 300;

impl Reordering {
    /// An ACK delivers data that was sent once and lies `bytes` below the highest delivered.
    #[cold]
    pub(crate) fn note_late(&mut self, bytes: u32, mss: u32) {
        self.seen = true;
        self.times = self.times.saturating_add(1);
        self.distance = self.distance.max(bytes.div_ceil(mss.max(1)).min(MOST_DISTANCE) as u16);
    }

    /// A D-SACK reported a spurious retransmission, the first one in a round trip. The data that was taken for lost
    /// had been reordered, even if no range that was sent once shows it.
    pub(crate) fn widen(&mut self) {
        self.seen = true;
        self.widened = self.widened.saturating_add(1);
        self.persist = PERSIST;
    }

    /// A recovery has ended.
    pub(crate) fn note_recovery(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.widened = 0;
        }
    }

    /// The reordering window in microseconds: RACK.reo_wnd. `certain`: in recovery, or enough segments were selectively
    /// acknowledged (8985-4).
    pub(crate) fn window(&self, certain: bool, min_rtt: u32, srtt: u32) -> u32 {
        if !self.seen && certain {
            return 0;
        }
        let window = (u64::from(self.widened) + 1) * u64::from(min_rtt) / 4;
        window.min(u64::from(srtt)).max(GRANULARITY) as u32
    }
}

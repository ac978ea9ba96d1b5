//! libpcap's format: one header, then records.

use std::io::{self, Read};

use crate::bytes::Order;
use crate::damage::{Damage, Error};
use crate::record::{Direction, Found, Interface, Options, Resolution};
use crate::window::Window;
use crate::{HARD_LIMIT, RECORD_LIMIT, SEARCH_LIMIT};

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// The format of Alexey Kuznetsov's patches, with 8 more bytes in each record.
const MODIFIED: u32 = 0xa1b2_cd34;
pub(crate) const HEADER_LEN: usize = 24;

/// Seconds between two neighbours of a file that are still plausible, when the next record is searched.
const NEAR: u32 = 7 * 86_400;
/// Length of a packet on the wire that is still plausible, when the next record is searched.
const LONGEST: u32 = 1 << 20;

pub(crate) struct Pcap {
    order: Order,
    /// Fractions of a second in the second word.
    per_second: u32,
    /// Length of a record's header.
    header: usize,
    modified: bool,
    limit: u32,
    last_seconds: Option<u32>,
}

/// The fields of a record's header.
struct Head {
    seconds: u32,
    fraction: u32,
    captured: u32,
    len: u32,
}

impl Pcap {
    /// Returns the byte order that a magic tells, if it is one of pcap's.
    pub(crate) fn order(magic: &[u8]) -> Option<Order> {
        [Order::Little, Order::Big]
            .into_iter()
            .find(|order| [MICROSECONDS, NANOSECONDS, MODIFIED].contains(&order.u32(magic, 0)))
    }

    /// Reads the header of the file.
    pub(crate) fn open<R: Read>(order: Order, window: &mut Window<R>) -> Result<(Pcap, Interface), Error> {
        if !window.need(HEADER_LEN)? {
            return Err(Error::Short { present: window.bytes().len(), expected: HEADER_LEN });
        }
        let head = window.take(HEADER_LEN);
        let magic = order.u32(head, 0);
        let (snaplen, link) = (order.u32(head, 16), order.u32(head, 20) as u16);
        let nanoseconds = magic == NANOSECONDS;
        let modified = magic == MODIFIED;
        let pcap = Pcap {
            order,
            per_second: if nanoseconds { 1_000_000_000 } else { 1_000_000 },
            header: if modified { 24 } else { 16 },
            modified,
            limit: RECORD_LIMIT.max(snaplen.saturating_add(65_536)).min(HARD_LIMIT),
            last_seconds: None,
        };
        let interface = Interface {
            section: 0,
            link,
            name: String::new(),
            snaplen,
            dropped: 0,
            resolution: Some(Resolution::Decimal(if nanoseconds { 9 } else { 6 })),
            offset: 0,
        };
        Ok((pcap, interface))
    }

    /// Finds the next record. It stays in the window.
    pub(crate) fn next<R: Read>(
        &mut self,
        window: &mut Window<R>,
        damage: &mut Damage,
    ) -> io::Result<Option<Found>> {
        loop {
            if !window.need(self.header)? {
                let (offset, present) = (window.offset(), window.bytes().len());
                if present > 0 {
                    damage.add(offset, present as u64, || {
                        format!("cut short: {present} bytes, expected a record header of {}", self.header)
                    });
                    window.advance(present);
                }
                return Ok(None);
            }
            let head = self.head(window.bytes(), 0);
            let whole = self.header + head.captured as usize;
            let wrong = if head.captured > self.limit {
                format!("a record of {} bytes, expected at most {}", head.captured, self.limit)
            } else if !window.need(whole)? {
                let present = window.bytes().len() - self.header;
                format!("cut short: {present} of {} bytes of a packet", head.captured)
            } else {
                self.last_seconds = Some(head.seconds);
                return Ok(Some(self.found(window.bytes(), &head)));
            };
            let offset = window.offset();
            let Some(skipped) = self.search(window)? else {
                let rest = window.bytes().len();
                damage.add(offset, rest as u64, || format!("{wrong}; no plausible record follows"));
                window.advance(rest);
                return Ok(None);
            };
            damage.add(offset, skipped as u64, || wrong);
            window.advance(skipped);
        }
    }

    fn head(&self, bytes: &[u8], at: usize) -> Head {
        let word = |n: usize| self.order.u32(bytes, at + 4 * n);
        Head { seconds: word(0), fraction: word(1), captured: word(2), len: word(3) }
    }

    fn found(&self, bytes: &[u8], head: &Head) -> Found {
        let units = i64::from(head.seconds) * 1_000_000_000;
        let nanos = units + i64::from(head.fraction) * i64::from(1_000_000_000 / self.per_second);
        // Linux's packet types: 4 is outgoing.
        let direction = self.modified.then(|| match bytes.get(22) {
            Some(4) => Some(Direction::Outbound),
            Some(0..=2) => Some(Direction::Inbound),
            _ => None,
        });
        Found {
            interface: 0,
            nanos: Some(nanos),
            len: head.len.max(head.captured),
            data: self.header..self.header + head.captured as usize,
            whole: self.header + head.captured as usize,
            options: Options { direction: direction.flatten(), ..Options::default() },
        }
    }

    /// Distance to the next place with two plausible records in a row, or one at the end of the file.
    fn search<R: Read>(&self, window: &mut Window<R>) -> io::Result<Option<usize>> {
        window.need(SEARCH_LIMIT + 2 * self.header + RECORD_LIMIT as usize)?;
        let bytes = window.bytes();
        let most = bytes.len().min(SEARCH_LIMIT);
        Ok((1..most).find(|at| {
            self.plausible(bytes, *at)
                .is_some_and(|next| next == bytes.len() || self.plausible(bytes, next).is_some())
        }))
    }

    /// Returns where the record at `at` ends, if it is plausible.
    fn plausible(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let head = self.head(bytes, at);
        let near = self.last_seconds.is_none_or(|last| head.seconds.abs_diff(last) <= NEAR);
        let lengths = (14..=self.limit.min(LONGEST)).contains(&head.captured)
            && head.captured <= head.len
            && head.len <= LONGEST;
        let next = at.checked_add(self.header)?.checked_add(head.captured as usize)?;
        (near && lengths && head.fraction < self.per_second && next <= bytes.len()).then_some(next)
    }
}

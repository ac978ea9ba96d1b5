//! Packets that the capture has more than once: seen by two interfaces, or twice by one.

use crate::packet::{FIN, RST, SYN, Segment};

/// Rows of the table. Each holds the last packet with its hash.
const ROWS: usize = 1 << 15;
/// Nanoseconds within which two equal packets without an identification are one.
const SHORT: i64 = 2_000_000;
/// Nanoseconds within which two equal packets with an identification are one.
const LONG: i64 = 1_000_000_000;

#[derive(Clone, Copy, Default)]
struct Row {
    hash: u64,
    at: i64,
    number: u32,
    interface: u32,
    ttl: u8,
}

/// An earlier packet that equals this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twin {
    None,
    /// The same interface saw it before.
    Copy {
        packet: u32,
        after: i64,
    },
    /// Another interface saw it before.
    Elsewhere {
        /// By how much its TTL differs there.
        hops: u8,
    },
}

/// The packets of the last moments, by their hash.
pub(crate) struct Copies {
    rows: Vec<Row>,
    key: u64,
}

impl Copies {
    pub(crate) fn new(key: u64) -> Copies {
        Copies { rows: vec![Row::default(); ROWS], key }
    }

    /// Looks a segment up, and takes it in.
    pub(crate) fn look(&mut self, section: u32, s: &Segment) -> Twin {
        let hash = self.hash(section, s);
        let row = &mut self.rows[hash as usize % ROWS];
        let old = std::mem::replace(
            row,
            Row { hash, at: s.at, number: s.number, interface: s.interface, ttl: s.ttl },
        );
        let after = s.at - old.at;
        if old.number == 0 || old.hash != hash || after.abs() > LONG {
            return Twin::None;
        }
        if old.interface != s.interface {
            return Twin::Elsewhere { hops: old.ttl.abs_diff(s.ttl) };
        }
        // Resets without a socket have no identification, and are equal when they answer equal packets.
        let carries = (s.len > 0 || s.flags & (SYN | FIN) != 0) && !s.has(RST);
        let one = if s.id != 0 {
            true
        } else {
            s.retry && carries || after.abs() < SHORT && (carries && old.ttl >= s.ttl)
        };
        if one { Twin::Copy { packet: old.number, after } } else { Twin::None }
    }

    /// A hash of all that a retransmission changes.
    fn hash(&self, section: u32, s: &Segment) -> u64 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let stamps = s.options.timestamps.unwrap_or_default();
        let words = [
            s.from.address as u64 ^ (s.from.address >> 64) as u64,
            s.to.address as u64 ^ (s.to.address >> 64) as u64,
            u64::from(s.from.port) << 48 | u64::from(s.to.port) << 32 | u64::from(s.seq),
            u64::from(s.ack) << 32 | u64::from(s.flags) << 16 | u64::from(s.window),
            u64::from(s.len) << 32 | u64::from(s.id) << 16 | u64::from(s.sum),
            u64::from(stamps.0) << 32 | u64::from(stamps.1),
        ];
        words.iter().fold(self.key ^ u64::from(section), |hash, word| {
            let mixed = (hash ^ word).wrapping_mul(ODD);
            mixed ^ mixed >> 29
        })
    }
}

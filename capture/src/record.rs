//! A packet of a capture, and the interface that saw it.

use std::ops::Range;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// libpcap's format.
    Pcap,
    /// draft-ietf-opsawg-pcapng.
    Pcapng,
}

impl Format {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Pcap => "pcap",
            Format::Pcapng => "pcapng",
        }
    }
}

/// The direction of a packet as the interface saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Received.
    Inbound,
    /// Sent.
    Outbound,
}

/// An interface of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The section that declares it, from 0.
    pub section: u32,
    /// The link type, by its number in the registry of tcpdump.org.
    pub link: u16,
    /// The name, cut at 64 bytes; empty if the file has none.
    pub name: String,
    /// The declared snapshot length; 0: no limit.
    pub snaplen: u32,
    /// Packets that the interface or the system dropped, if the file says so.
    pub dropped: u64,
    /// Units of a second, or `None` if the declared resolution is not readable.
    pub(crate) resolution: Option<Resolution>,
    /// Seconds to add to each time.
    pub(crate) offset: i64,
}

/// The unit of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// 10 to the power of minus this.
    Decimal(u32),
    /// 2 to the power of minus this.
    Binary(u32),
}

impl Interface {
    /// Converts a time of this interface to nanoseconds.
    pub(crate) fn nanos(&self, units: u64) -> Option<i64> {
        let nanos = match self.resolution? {
            Resolution::Decimal(digits @ 0..=9) => i128::from(units) * 10i128.pow(9 - digits),
            Resolution::Decimal(digits) => i128::from(units) / 10i128.pow(digits - 9),
            Resolution::Binary(bits) => (i128::from(units) * 1_000_000_000) >> bits,
        };
        i64::try_from(nanos + i128::from(self.offset) * 1_000_000_000).ok()
    }
}

/// A packet of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number in the file, from 1, over all sections: that of Wireshark.
    pub number: u64,
    /// Offset of its header in the file.
    pub offset: u64,
    /// The section, from 0.
    pub section: u32,
    /// Index of its interface in [`Reader::interfaces`](crate::Reader::interfaces), over all sections.
    pub interface: usize,
    /// The link type of the interface.
    pub link: u16,
    /// Nanoseconds since the epoch; `None`: unknown.
    pub nanos: Option<i64>,
    /// Length of the packet on the wire. At least the length of `data`.
    pub len: u32,
    /// The captured bytes, from the link header on.
    pub data: &'a [u8],
    /// The direction, if the file says it.
    pub direction: Option<Direction>,
    /// The transport checksum was not yet computed (`epb_flags`, bit 9).
    pub checksum_not_ready: bool,
    /// The packet is to be segmented by the device (`epb_flags`, bit 11).
    pub segmented_later: bool,
    /// Raw options of the block, read by [`Record::comments`].
    pub(crate) options: &'a [u8],
    pub(crate) order: crate::bytes::Order,
}

impl<'a> Record<'a> {
    /// The comments of the packet.
    pub fn comments(&self) -> impl Iterator<Item = &'a str> {
        crate::options::options(self.order, self.options)
            .filter(|(code, _)| *code == 1)
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// A packet at the front of the window.
pub(crate) struct Found {
    pub(crate) interface: usize,
    pub(crate) nanos: Option<i64>,
    pub(crate) len: u32,
    /// The captured bytes, in the window.
    pub(crate) data: Range<usize>,
    /// Length of the record or block.
    pub(crate) whole: usize,
    pub(crate) options: Options,
}

/// The parts of a packet that not every format has.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) direction: Option<Direction>,
    pub(crate) checksum_not_ready: bool,
    pub(crate) segmented_later: bool,
    /// Undecoded options, in the window.
    pub(crate) raw: Range<usize>,
}

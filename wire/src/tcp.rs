//! TCP segments (RFC 9293 §3.1).

mod options;

pub use options::{Cookie, OptionLayout, Options, SackBlocks, Timestamps};

use super::checksum::{Sum, pseudo_header};
use super::{PROTOCOL_TCP, u16_at, u32_at, u64_at};
use crate::seq::SeqNum;
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::ops::{BitOr, BitOrAssign};
use std::str::FromStr;
use steadfast_checksum::add;
use thiserror::Error;

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;
/// Maximum length of the options, in bytes.
pub const MAX_OPTIONS_LEN: usize = 40;
/// Offset of the checksum in a segment.
pub const CHECKSUM_AT: usize = 16;

/// Why a segment is malformed. Such a segment is dropped; it never affects a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Shorter than a header.
    #[error("truncated segment")]
    Truncated,
    /// Data offset below 5, or past the end of the segment.
    // THREAT-58
    #[error("bad data offset")]
    DataOffset,
    /// An option of length 0 or 1 or past the end of the header, or a known one of wrong length.
    // THREAT-57
    #[error("malformed options")]
    Options,
}

/// The control bits: AE, CWR, ECE, URG, ACK, PSH, RST, SYN and FIN, from bit 8 down (RFC 9293 §3.1, RFC 9768 §3.1). The
/// three reserved bits above are ignored when read and zero when written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Flags = Flags(1);
    /// Synchronize sequence numbers.
    pub const SYN: Flags = Flags(1 << 1);
    /// Reset the connection.
    pub const RST: Flags = Flags(1 << 2);
    /// Push.
    pub const PSH: Flags = Flags(1 << 3);
    /// The acknowledgment field is significant.
    pub const ACK: Flags = Flags(1 << 4);
    /// The urgent pointer is significant.
    pub const URG: Flags = Flags(1 << 5);
    /// ECN echo (RFC 3168 §6.1).
    pub const ECE: Flags = Flags(1 << 6);
    /// Congestion window reduced (RFC 3168 §6.1).
    pub const CWR: Flags = Flags(1 << 7);
    /// Accurate ECN (RFC 9768).
    pub const AE: Flags = Flags(1 << 8);

    const MASK: u16 = 0x1ff;

    /// The flags in tcpdump's letters and order.
    const LETTERS: [(Flags, char); 9] = [
        (Flags::FIN, 'F'),
        (Flags::SYN, 'S'),
        (Flags::RST, 'R'),
        (Flags::PSH, 'P'),
        (Flags::ACK, '.'),
        (Flags::URG, 'U'),
        (Flags::ECE, 'E'),
        (Flags::CWR, 'W'),
        (Flags::AE, 'e'),
    ];

    /// Returns whether all of `flags` are set.
    #[inline]
    pub const fn contains(self, flags: Flags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Returns whether SYN is set.
    #[inline]
    pub const fn syn(self) -> bool {
        self.contains(Flags::SYN)
    }

    /// Returns whether ACK is set.
    #[inline]
    pub const fn ack(self) -> bool {
        self.contains(Flags::ACK)
    }

    /// Returns whether RST is set.
    #[inline]
    pub const fn rst(self) -> bool {
        self.contains(Flags::RST)
    }

    /// Returns whether FIN is set.
    #[inline]
    pub const fn fin(self) -> bool {
        self.contains(Flags::FIN)
    }

    /// Returns whether PSH is set.
    #[inline]
    pub const fn psh(self) -> bool {
        self.contains(Flags::PSH)
    }

    /// Returns whether URG is set.
    #[inline]
    pub const fn urg(self) -> bool {
        self.contains(Flags::URG)
    }

    /// Returns whether ECE is set.
    #[inline]
    pub const fn ece(self) -> bool {
        self.contains(Flags::ECE)
    }

    /// Returns whether CWR is set.
    #[inline]
    pub const fn cwr(self) -> bool {
        self.contains(Flags::CWR)
    }
}

impl BitOr for Flags {
    type Output = Flags;
    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Flags) {
        *self = *self | other;
    }
}

/// A letter that names no flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no flag of TCP")]
pub struct UnknownFlag(pub char);

impl FromStr for Flags {
    type Err = UnknownFlag;

    /// Parses tcpdump's letters. `none` and the empty string mean no flags.
    fn from_str(text: &str) -> Result<Flags, UnknownFlag> {
        if text == "none" {
            return Ok(Flags(0));
        }
        text.chars().try_fold(Flags(0), |flags, letter| {
            let known = Flags::LETTERS.iter().find(|(_, known)| *known == letter);
            known.map(|(flag, _)| flags | *flag).ok_or(UnknownFlag(letter))
        })
    }
}

impl fmt::Display for Flags {
    /// Writes the flags in tcpdump's letters and order: `S`, `S.`, `F.`, `P.`, `SEW`, and `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 & Flags::MASK == 0 {
            return f.write_str("none");
        }
        Flags::LETTERS
            .iter()
            .filter(|(flag, _)| self.contains(*flag))
            .try_for_each(|(_, letter)| f.write_char(*letter))
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A segment's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Sequence number of the first byte of data, or of the SYN.
    pub seq: SeqNum,
    /// The next sequence number expected; 0 if ACK is clear.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// The window field as received, before scaling.
    pub window: u16,
    /// The urgent pointer as received, whether URG is set or not.
    pub urgent: u16,
    /// The options.
    pub options: Options,
}

impl Header {
    /// Returns the header and the payload of `segment`. Does not verify the checksum: see [`checksum_ok`].
    ///
    /// # Errors
    ///
    /// The first part of the header that is broken: see [`enum@Error`].
    #[inline]
    pub fn parse(segment: &[u8]) -> Result<(Header, &[u8]), Error> {
        let mut header = Header::default();
        let payload = header.read(segment)?;
        Ok((header, payload))
    }

    /// Like [`parse`](Header::parse), into a default header. This avoids a move of the header, which costs more than
    /// the read.
    ///
    /// # Errors
    ///
    /// As [`parse`](Header::parse). The header may be written in part.
    #[inline]
    pub fn read<'a>(&mut self, segment: &'a [u8]) -> Result<&'a [u8], Error> {
        let (fixed, rest) = segment.split_first_chunk::<HEADER_LEN>().ok_or(Error::Truncated)?;
        let (first, second) = (u64_at(fixed, 0), u64_at(fixed, 8));
        let options_len = ((second >> 28) as usize & 0xf) * 4;
        let options_len = options_len.checked_sub(HEADER_LEN).ok_or(Error::DataOffset)?;
        let (options, payload) = rest.split_at_checked(options_len).ok_or(Error::DataOffset)?;
        (self.source_port, self.destination_port) = ((first >> 48) as u16, (first >> 32) as u16);
        self.seq = SeqNum(first as u32);
        self.flags = Flags((second >> 16) as u16 & Flags::MASK);
        self.ack = SeqNum(if self.flags.ack() { (second >> 32) as u32 } else { 0 });
        (self.window, self.urgent) = (second as u16, u16_at(fixed, 18));
        self.options.read(options)?;
        Ok(payload)
    }

    /// Returns the length of the header with its options, in bytes: 20 to 60, a multiple of 4.
    #[inline]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.emitted_len()
    }

    /// Writes [`header_len`](Header::header_len) bytes with a checksum of 0; see [`set_checksum`].
    ///
    /// The buffer must hold that many bytes. Otherwise nothing is written (a debug build asserts).
    pub fn emit(&self, buffer: &mut [u8]) {
        let header_len = self.header_len();
        match buffer.get_mut(..header_len) {
            Some(buffer) => self.emit_and_add(buffer, &mut Sum::new()),
            None => debug_assert!(false, "no room for a TCP header of {header_len} bytes"),
        }
    }

    /// Like [`emit`](Header::emit), into a buffer of exactly [`header_len`](Header::header_len) bytes. Also adds the
    /// written bytes to `sum`.
    #[inline]
    pub fn emit_and_add(&self, buffer: &mut [u8], sum: &mut Sum) {
        debug_assert_eq!(buffer.len(), self.header_len());
        let data_offset = buffer.len() as u64 / 4;
        let Some((out, options)) = buffer.split_first_chunk_mut::<HEADER_LEN>() else { return };
        let ack = if self.flags.ack() { self.ack.0 } else { 0 };
        let first = u64::from(self.source_port) << 48
            | u64::from(self.destination_port) << 32
            | u64::from(self.seq.0);
        let second = u64::from(ack) << 32
            | data_offset << 28
            | u64::from(self.flags.0 & Flags::MASK) << 16
            | u64::from(self.window);
        out[0..8].copy_from_slice(&first.to_be_bytes());
        out[8..16].copy_from_slice(&second.to_be_bytes());
        // The checksum is 0.
        out[16..20].copy_from_slice(&u32::from(self.urgent).to_be_bytes());
        let words = add(add(first.to_be(), second.to_be()), u64::from(self.urgent.to_be()));
        sum.add_words(add(words, self.options.emit_and_sum(options)));
    }

    /// Formats the segment as tcpdump does, with a payload of `payload_len` bytes and absolute numbers: `Flags [P.],
    /// seq 1:101, ack 1, win 512, options [nop,nop,TS val 1 ecr 0], length 100`.
    pub fn tcpdump(&self, payload_len: usize) -> Line<'_> {
        Line { header: self, payload_len }
    }
}

/// The display of [`Header::tcpdump`].
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    header: &'a Header,
    payload_len: usize,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (header, len) = (self.header, self.payload_len);
        let flags = header.flags;
        write!(f, "Flags [{flags}]")?;
        if len > 0 {
            write!(f, ", seq {}:{}", header.seq, header.seq + len as u32)?;
        } else if flags.syn() || flags.fin() || flags.rst() {
            write!(f, ", seq {}", header.seq)?;
        }
        if flags.ack() {
            write!(f, ", ack {}", header.ack)?;
        }
        write!(f, ", win {}", header.window)?;
        if flags.urg() {
            write!(f, ", urg {}", header.urgent)?;
        }
        if header.options.emitted_len() > 0 {
            write!(f, ", options [{}]", header.options)?;
        }
        write!(f, ", length {len}")
    }
}

/// Returns whether the checksum of a whole segment, header and payload, is right (RFC 9293 §3.1).
// MUST-3
#[inline]
pub fn checksum_ok(source: IpAddr, destination: IpAddr, segment: &[u8]) -> bool {
    let Ok(len) = u32::try_from(segment.len()) else { return false };
    pseudo_header(source, destination, PROTOCOL_TCP, len).verifies(segment)
}

/// Writes `checksum`, from [`Sum::finish`], into a segment (RFC 9293 §3.1).
// MUST-2
#[inline]
pub fn set_checksum(segment: &mut [u8], checksum: u16) {
    match segment.get_mut(CHECKSUM_AT..CHECKSUM_AT + 2) {
        Some(field) => field.copy_from_slice(&checksum.to_be_bytes()),
        None => debug_assert!(false, "no TCP header to hold a checksum"),
    }
}

/// Computes the checksum of a whole segment, header and payload, and writes it (RFC 9293 §3.1).
// MUST-2
pub fn write_checksum(source: IpAddr, destination: IpAddr, segment: &mut [u8]) {
    set_checksum(segment, 0);
    // A longer segment fits no packet.
    let len = u32::try_from(segment.len()).unwrap_or(u32::MAX);
    let mut sum = pseudo_header(source, destination, PROTOCOL_TCP, len);
    sum.add_bytes(segment);
    set_checksum(segment, sum.finish());
}

/// Writes the sequence number into a segment.
#[inline]
pub fn set_seq(segment: &mut [u8], seq: SeqNum) {
    match segment.get_mut(4..8) {
        Some(field) => field.copy_from_slice(&seq.0.to_be_bytes()),
        None => debug_assert!(false, "no TCP header to hold a sequence number"),
    }
}

/// Returns source port, destination port and sequence number: the 8 bytes that every ICMP error quotes at least (RFC
/// 1122 §3.2.2).
pub fn parse_quoted(bytes: &[u8]) -> Option<(u16, u16, SeqNum)> {
    let head = bytes.first_chunk::<8>()?;
    Some((u16_at(head, 0), u16_at(head, 2), SeqNum(u32_at(head, 4))))
}

#[cfg(test)]
mod tests;

//! IPv6 with its extension headers (RFC 8200).

use super::{Ecn, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, u16_at, u32_at};
use std::net::Ipv6Addr;
use thiserror::Error;

/// Length of the fixed header, in bytes. Emitted headers have no extensions.
pub const HEADER_LEN: usize = 40;
/// The most extension headers that a packet may have; one with more is dropped.
// THREAT-66
pub const MAX_EXTENSION_HEADERS: usize = 8;
/// The most bytes of extension headers that a packet may have; one with more is dropped.
// THREAT-66
pub const MAX_EXTENSION_BYTES: usize = 256;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// Next-header number of the fragment header.
pub const FRAGMENT: u8 = 44;
/// Length of a fragment header, in bytes.
pub const FRAGMENT_LEN: usize = 8;
/// Nothing follows this header (RFC 8200 §4.7).
pub const NO_NEXT_HEADER: u8 = 59;
/// Offset of the next-header field in the fixed header.
const NEXT_HEADER_AT: usize = 6;
const DESTINATION_OPTIONS: u8 = 60;

const OPTION_PAD1: u8 = 0;
const OPTION_PADN: u8 = 1;
/// The two high bits of an option's type: the action for an unknown option. 0 means skip it (RFC 8200 §4.2).
const OPTION_ACTION: u8 = 0xc0;

/// An IPv6 header, with the information of its extension headers that a host needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Claimed source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Protocol number of the payload, past the extension headers. In a fragment, the next header that the fragment
    /// header names, which may be another extension header.
    pub protocol: u8,
    /// Remaining hops.
    pub hop_limit: u8,
    /// Differentiated services codepoint, 6 bits (RFC 2474 §3).
    pub dscp: u8,
    /// Congestion notification.
    pub ecn: Ecn,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Set if the payload is only a part of a datagram. Never emitted.
    pub fragment: Option<Fragment>,
}

/// The fields of a fragment header (RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identifies the fragments of one datagram.
    pub identification: u32,
    /// Offset of the payload in the datagram, in bytes: a multiple of 8, at most 65 528.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
}

impl Fragment {
    /// Writes [`FRAGMENT_LEN`] bytes before a part of the datagram whose protocol is `next_header`.
    ///
    /// The buffer must hold that many bytes. Otherwise nothing is written (a debug build asserts).
    pub fn emit(&self, next_header: u8, buffer: &mut [u8]) {
        let Some(out) = buffer.first_chunk_mut::<FRAGMENT_LEN>() else {
            debug_assert!(false, "no room for a fragment header");
            return;
        };
        let offset_and_more = self.offset & !7 | u16::from(self.more);
        out[0..2].copy_from_slice(&[next_header, 0]);
        out[2..4].copy_from_slice(&offset_and_more.to_be_bytes());
        out[4..8].copy_from_slice(&self.identification.to_be_bytes());
    }
}

/// Why a packet is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Shorter than a header, or not version 6.
    #[error("not an IPv6 packet")]
    Version,
    /// The payload length is past the end of the packet.
    #[error("bad payload length")]
    PayloadLength,
    /// An extension header, or in [`parse_upper`] the transport header, extends past the end of the payload.
    #[error("truncated header chain")]
    Truncated,
    /// More than [`MAX_EXTENSION_HEADERS`] or [`MAX_EXTENSION_BYTES`].
    #[error("too many extension headers")]
    ExtensionLimit,
    /// A hop-by-hop header that is not the first, or a second fragment header.
    #[error("misplaced extension header")]
    ExtensionOrder,
    /// A routing header with segments left. This host does not forward.
    #[error("routing header with segments left")]
    RoutingHeader,
    /// An option extends past the end of its header.
    #[error("malformed options")]
    Options,
    /// An unknown option that must not be skipped, such as a jumbo payload.
    #[error("unknown option")]
    UnknownOption,
}

/// Returns the header and the payload of `packet`, which may be longer than the datagram (link padding).
///
/// The payload of a fragment begins after the fragment header. An atomic fragment, which is a whole datagram with a
/// fragment header, counts as unfragmented (RFC 6946 §4).
///
/// # Errors
///
/// The first header that is broken, or a limit that the chain exceeds: see [`enum@Error`].
pub fn parse(packet: &[u8]) -> Result<(Header, &[u8]), Error> {
    let (mut header, rest) = split(packet)?;
    let payload = rest.get(..usize::from(u16_at(packet, 4))).ok_or(Error::PayloadLength)?;
    let mut chain = Chain::new(header.protocol, payload);
    if chain.next_header == HOP_BY_HOP {
        check_options(chain.take_extension()?)?;
    }
    chain.walk()?;
    if chain.next_header == FRAGMENT {
        let fragment = chain.take_fragment()?;
        if fragment.offset != 0 || fragment.more {
            header.fragment = Some(fragment);
            header.protocol = chain.next_header;
            return Ok((header, chain.rest));
        }
        chain.walk()?;
    }
    let (protocol, payload) = chain.upper()?;
    header.protocol = protocol;
    Ok((header, payload))
}

/// Continues [`parse`] past a fragment header: skips the extension headers at the start of a reassembled datagram, or
/// of a first fragment, whose first header is `next_header`. Returns the transport's protocol number and its bytes.
///
/// # Errors
///
/// As [`parse`]; [`Truncated`](Error::Truncated) also if the transport header is incomplete: a first fragment must
/// contain the whole header chain (RFC 7112 §5).
// THREAT-66
pub fn parse_upper(next_header: u8, payload: &[u8]) -> Result<(u8, &[u8]), Error> {
    let mut chain = Chain::new(next_header, payload);
    chain.walk()?;
    let (protocol, payload) = chain.upper()?;
    let header_len = match protocol {
        PROTOCOL_TCP => payload.get(12).map_or(20, |offset| usize::from(offset >> 4) * 4).max(20),
        PROTOCOL_UDP | PROTOCOL_ICMPV6 => 8,
        _ => 0,
    };
    if payload.len() < header_len { Err(Error::Truncated) } else { Ok((protocol, payload)) }
}

/// Returns the header that an ICMP error quotes, and as much of its payload as the error includes, which may be less
/// than the header says.
///
/// A routing header may have segments left, and options are not checked. In a first fragment the extension headers
/// behind the fragment header are skipped too. Returns `None` if the quote ends within the extension headers.
pub fn parse_quoted(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let (mut header, rest) = split(bytes).ok()?;
    let payload = &rest[..rest.len().min(usize::from(u16_at(bytes, 4)))];
    let mut chain = Chain::new(header.protocol, payload);
    loop {
        match chain.next_header {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                chain.take_extension().ok()?;
            }
            FRAGMENT => {
                let fragment = chain.take_fragment().ok()?;
                header.fragment = Some(fragment);
                if fragment.offset != 0 {
                    break;
                }
            }
            _ => break,
        }
    }
    header.protocol = chain.next_header;
    Some((header, chain.rest))
}

/// Returns the offset of the byte that names the payload's protocol: in the fixed header, or in the last extension
/// header.
pub fn protocol_at(packet: &[u8]) -> usize {
    let Ok((header, rest)) = split(packet) else { return NEXT_HEADER_AT };
    let mut at = NEXT_HEADER_AT;
    let mut chain = Chain::new(header.protocol, rest);
    loop {
        let start = packet.len() - chain.rest.len();
        let taken = match chain.next_header {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => chain.take_extension().map(drop),
            FRAGMENT => chain.take_fragment().map(drop),
            _ => return at,
        };
        if taken.is_err() {
            return at;
        }
        at = start;
    }
}

/// Returns the fixed header and the bytes after it. `protocol` is the next-header field as received.
fn split(packet: &[u8]) -> Result<(Header, &[u8]), Error> {
    let (fixed, rest) = packet.split_first_chunk::<HEADER_LEN>().ok_or(Error::Version)?;
    let word = u32_at(fixed, 0);
    if word >> 28 != 6 {
        return Err(Error::Version);
    }
    let traffic_class = (word >> 20) as u8;
    let header = Header {
        source: address_at(fixed, 8),
        destination: address_at(fixed, 24),
        protocol: fixed[6],
        hop_limit: fixed[7],
        dscp: traffic_class >> 2,
        ecn: Ecn::from_bits(traffic_class),
        flow_label: word & 0x000f_ffff,
        fragment: None,
    };
    Ok((header, rest))
}

fn address_at(fixed: &[u8; HEADER_LEN], at: usize) -> Ipv6Addr {
    let bytes = fixed.get(at..).and_then(|rest| rest.first_chunk::<16>());
    bytes.map_or(Ipv6Addr::UNSPECIFIED, |bytes| Ipv6Addr::from(*bytes))
}

/// A walk along extension headers, within the limits.
struct Chain<'a> {
    next_header: u8,
    rest: &'a [u8],
    headers: usize,
    bytes: usize,
}

impl<'a> Chain<'a> {
    fn new(next_header: u8, rest: &'a [u8]) -> Chain<'a> {
        Chain { next_header, rest, headers: 0, bytes: 0 }
    }

    /// Walks to the first header that must not be skipped: a fragment header or the transport.
    fn walk(&mut self) -> Result<(), Error> {
        loop {
            match self.next_header {
                HOP_BY_HOP => return Err(Error::ExtensionOrder),
                ROUTING => {
                    let segments_left = self.take_extension()?.get(3);
                    if segments_left != Some(&0) {
                        return Err(Error::RoutingHeader);
                    }
                }
                DESTINATION_OPTIONS => check_options(self.take_extension()?)?,
                _ => return Ok(()),
            }
        }
    }

    /// Ends the walk; fails at another fragment header.
    fn upper(self) -> Result<(u8, &'a [u8]), Error> {
        match self.next_header {
            FRAGMENT => Err(Error::ExtensionOrder),
            NO_NEXT_HEADER => Ok((NO_NEXT_HEADER, &[])),
            protocol => Ok((protocol, self.rest)),
        }
    }

    /// Takes a header whose second byte is its length in units of 8 bytes, without the first unit.
    fn take_extension(&mut self) -> Result<&'a [u8], Error> {
        let units = *self.rest.get(1).ok_or(Error::Truncated)?;
        self.take((usize::from(units) + 1) * 8)
    }

    fn take_fragment(&mut self) -> Result<Fragment, Error> {
        let header = self.take(8)?;
        let offset_and_more = u16_at(header, 2);
        Ok(Fragment {
            identification: u32_at(header, 4),
            offset: offset_and_more & !7,
            more: offset_and_more & 1 != 0,
        })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        self.headers += 1;
        self.bytes += len;
        if self.headers > MAX_EXTENSION_HEADERS || self.bytes > MAX_EXTENSION_BYTES {
            return Err(Error::ExtensionLimit);
        }
        let (header, rest) = self.rest.split_at_checked(len).ok_or(Error::Truncated)?;
        self.next_header = header[0];
        self.rest = rest;
        Ok(header)
    }
}

/// Checks the options of a hop-by-hop or destination options header (RFC 8200 §4.2). Only padding is known here, so
/// every other option must allow skipping. Each turn takes at least one of at most [`MAX_EXTENSION_BYTES`].
fn check_options(header: &[u8]) -> Result<(), Error> {
    let mut rest = header.get(2..).unwrap_or_default();
    while let Some((&kind, after)) = rest.split_first() {
        if kind == OPTION_PAD1 {
            rest = after;
            continue;
        }
        let (&len, data) = after.split_first().ok_or(Error::Options)?;
        rest = data.get(usize::from(len)..).ok_or(Error::Options)?;
        if kind != OPTION_PADN && kind & OPTION_ACTION != 0 {
            return Err(Error::UnknownOption);
        }
    }
    Ok(())
}

impl Header {
    /// Returns the header of an unfragmented packet: hop limit 64, and all else zero.
    #[inline]
    pub const fn new(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8) -> Header {
        Header {
            source,
            destination,
            protocol,
            hop_limit: 64,
            dscp: 0,
            ecn: Ecn::NotEct,
            flow_label: 0,
            fragment: None,
        }
    }

    /// Writes [`HEADER_LEN`] bytes for a payload of `payload_len` bytes, and ignores `fragment`.
    ///
    /// The buffer must hold that many bytes, and the payload must not exceed 65 535 bytes. Otherwise nothing is written
    /// (a debug build asserts).
    #[inline]
    pub fn emit(&self, payload_len: usize, buffer: &mut [u8]) {
        let (Ok(len), Some(out)) = (u16::try_from(payload_len), buffer.first_chunk_mut::<HEADER_LEN>())
        else {
            debug_assert!(false, "no room for an IPv6 header, or {payload_len} bytes of payload");
            return;
        };
        let traffic_class = u32::from(self.dscp << 2 | self.ecn.bits());
        let word = 6 << 28 | traffic_class << 20 | self.flow_label & 0x000f_ffff;
        let next = u16::from_be_bytes([self.protocol, self.hop_limit]);
        let first = u64::from(word) << 32 | u64::from(len) << 16 | u64::from(next);
        out[0..8].copy_from_slice(&first.to_be_bytes());
        out[8..24].copy_from_slice(&self.source.octets());
        out[24..40].copy_from_slice(&self.destination.octets());
    }
}

#[cfg(test)]
mod tests;

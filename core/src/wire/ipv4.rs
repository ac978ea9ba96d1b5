//! IPv4 (RFC 791 §3.1, RFC 1122 §3.2.1).

use super::checksum::Sum;
use super::{Ecn, u16_at, u32_at};
use std::net::Ipv4Addr;
use thiserror::Error;

/// Length of a header without options, in bytes: the only one that is emitted.
pub const HEADER_LEN: usize = 20;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;

/// An IPv4 header, options reduced to what a host needs to know of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where it claims to come from.
    pub source: Ipv4Addr,
    /// Where it goes.
    pub destination: Ipv4Addr,
    /// The payload's protocol number.
    pub protocol: u8,
    /// Hops left.
    pub ttl: u8,
    /// Differentiated services codepoint, 6 bits (RFC 2474 §3).
    pub dscp: u8,
    /// Congestion notification.
    pub ecn: Ecn,
    /// Ties fragments of one datagram together.
    pub identification: u16,
    /// Routers must not fragment it.
    pub dont_fragment: bool,
    /// Not the last fragment.
    pub more_fragments: bool,
    /// Where the payload lies in the datagram, in bytes: a multiple of 8, at most 65 528.
    pub fragment_offset: u16,
    /// A loose or strict source route option was present (MUST-51 to MUST-53, T-64). Never emitted.
    pub source_route: bool,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Shorter than a header, or not version 4.
    #[error("not an IPv4 packet")]
    Version,
    /// IHL below 5, or past the end of the packet.
    #[error("bad header length")]
    HeaderLength,
    /// Total length below the header's, or past the end of the packet.
    #[error("bad total length")]
    TotalLength,
    /// The header checksum does not match.
    #[error("bad header checksum")]
    Checksum,
    /// An option of length 0 or 1, or past the end of the header.
    #[error("malformed options")]
    Options,
}

/// The header and the payload of `packet`, which may be longer than the datagram (link padding).
pub fn parse(packet: &[u8]) -> Result<(Header, &[u8]), Error> {
    let (fixed, header_len) = split(packet)?;
    let total = usize::from(u16_at(fixed, 2));
    if total < header_len {
        return Err(Error::TotalLength);
    }
    let datagram = packet.get(..total).ok_or(Error::TotalLength)?;
    let (head, payload) = datagram.split_at_checked(header_len).ok_or(Error::TotalLength)?;
    let mut sum = Sum::new();
    sum.add_bytes(head);
    if sum.finish() != 0 {
        return Err(Error::Checksum);
    }
    let mut header = read(fixed);
    header.source_route = source_route(&head[HEADER_LEN..])?;
    Ok((header, payload))
}

/// The header that an ICMP error quotes, and as much of its payload as came along. The checksum is not verified
/// (routers changed the TTL), the total length may exceed what is there, and broken options are ignored.
pub fn parse_quoted(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let (fixed, header_len) = split(bytes).ok()?;
    let (head, rest) = bytes.split_at_checked(header_len)?;
    let payload_len = usize::from(u16_at(fixed, 2)).checked_sub(header_len);
    let payload = &rest[..payload_len.unwrap_or(rest.len()).min(rest.len())];
    let mut header = read(fixed);
    header.source_route = source_route(&head[HEADER_LEN..]).unwrap_or(false);
    Some((header, payload))
}

/// The fixed part, and the header's length with options, which lies within the packet.
fn split(packet: &[u8]) -> Result<(&[u8; HEADER_LEN], usize), Error> {
    let fixed = packet.first_chunk::<HEADER_LEN>().ok_or(Error::Version)?;
    if fixed[0] >> 4 != 4 {
        return Err(Error::Version);
    }
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    if header_len < HEADER_LEN || header_len > packet.len() {
        return Err(Error::HeaderLength);
    }
    Ok((fixed, header_len))
}

fn read(fixed: &[u8; HEADER_LEN]) -> Header {
    let fragment = u16_at(fixed, 6);
    Header {
        source: Ipv4Addr::from_bits(u32_at(fixed, 12)),
        destination: Ipv4Addr::from_bits(u32_at(fixed, 16)),
        protocol: fixed[9],
        ttl: fixed[8],
        dscp: fixed[1] >> 2,
        ecn: Ecn::from_bits(fixed[1]),
        identification: u16_at(fixed, 4),
        dont_fragment: fragment & DONT_FRAGMENT != 0,
        more_fragments: fragment & MORE_FRAGMENTS != 0,
        fragment_offset: (fragment & OFFSET_MASK) << 3,
        source_route: false,
    }
}

/// Whether the options hold a source route. Every turn takes at least one of at most 40 bytes.
fn source_route(options: &[u8]) -> Result<bool, Error> {
    let mut found = false;
    let mut rest = options;
    while let Some((&kind, after)) = rest.split_first() {
        match kind {
            OPTION_END => break,
            OPTION_NOP => rest = after,
            _ => {
                let len = usize::from(*after.first().ok_or(Error::Options)?);
                if len < 2 {
                    return Err(Error::Options);
                }
                rest = rest.get(len..).ok_or(Error::Options)?;
                found |= matches!(kind, OPTION_LOOSE_SOURCE_ROUTE | OPTION_STRICT_SOURCE_ROUTE);
            }
        }
    }
    Ok(found)
}

impl Header {
    /// Writes [`HEADER_LEN`] bytes, checksum included, for a payload of `payload_len` bytes.
    ///
    /// The buffer holds at least that, and header and payload together at most 65 535 bytes: otherwise nothing
    /// is written (a debug build asserts).
    pub fn emit(&self, payload_len: usize, buffer: &mut [u8]) {
        let total = payload_len.checked_add(HEADER_LEN).and_then(|n| u16::try_from(n).ok());
        let (Some(total), Some(out)) = (total, buffer.first_chunk_mut::<HEADER_LEN>()) else {
            debug_assert!(false, "no room for an IPv4 header, or {payload_len} bytes of payload");
            return;
        };
        let mut fragment = self.fragment_offset >> 3;
        if self.dont_fragment {
            fragment |= DONT_FRAGMENT;
        }
        if self.more_fragments {
            fragment |= MORE_FRAGMENTS;
        }
        out[0] = 0x45;
        out[1] = self.dscp << 2 | self.ecn.bits();
        out[2..4].copy_from_slice(&total.to_be_bytes());
        out[4..6].copy_from_slice(&self.identification.to_be_bytes());
        out[6..8].copy_from_slice(&fragment.to_be_bytes());
        out[8] = self.ttl;
        out[9] = self.protocol;
        out[10..12].fill(0);
        out[12..16].copy_from_slice(&self.source.octets());
        out[16..20].copy_from_slice(&self.destination.octets());
        let mut sum = Sum::new();
        sum.add_bytes(out);
        out[10..12].copy_from_slice(&sum.finish().to_be_bytes());
    }
}

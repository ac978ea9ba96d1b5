//! IPv4 (RFC 791 §3.1, RFC 1122 §3.2.1).

use super::checksum::{Sum, fold};
use super::{Ecn, u16_at, u32_at, u64_at};
use std::net::Ipv4Addr;
use steadfast_checksum::add;
use thiserror::Error;

/// Length of a header without options, in bytes. Emitted headers have no options.
pub const HEADER_LEN: usize = 20;

/// The first byte of a header without options.
const PLAIN: u8 = 0x45;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;

/// An IPv4 header, with its options reduced to the information that a host needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Claimed source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// The payload's protocol number.
    pub protocol: u8,
    /// Remaining hops.
    pub ttl: u8,
    /// Differentiated services codepoint, 6 bits (RFC 2474 §3).
    pub dscp: u8,
    /// Congestion notification.
    pub ecn: Ecn,
    /// Identifies the fragments of one datagram.
    pub identification: u16,
    /// Routers must not fragment the packet.
    pub dont_fragment: bool,
    /// More fragments follow.
    pub more_fragments: bool,
    /// Offset of the payload in the datagram, in bytes: a multiple of 8, at most 65 528.
    pub fragment_offset: u16,
    /// A loose or strict source route option is present (RFC 9293 §3.9.2.1). Never emitted.
    // MUST-51, MUST-52, MUST-53, THREAT-64
    pub source_route: bool,
}

/// Why a header is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Shorter than a header, or not version 4.
    #[error("not an IPv4 packet")]
    Version,
    /// IHL below 5, or past the end of the packet.
    #[error("bad header length")]
    HeaderLength,
    /// Total length smaller than the header, or past the end of the packet.
    #[error("bad total length")]
    TotalLength,
    /// The header checksum does not match.
    #[error("bad header checksum")]
    Checksum,
    /// An option of length 0 or 1, or past the end of the header.
    #[error("malformed options")]
    Options,
}

/// Returns the header and the payload of `packet`, which may be longer than the datagram (link padding).
///
/// # Errors
///
/// The first part of the header that is broken: see [`enum@Error`].
#[inline]
pub fn parse(packet: &[u8]) -> Result<(Header, &[u8]), Error> {
    let Some((fixed, rest)) = packet.split_first_chunk::<HEADER_LEN>().filter(|(fixed, _)| fixed[0] == PLAIN)
    else {
        return parse_with_options(packet);
    };
    let words = [u64_at(fixed, 0), u64_at(fixed, 8), u64::from(u32_at(fixed, 16))];
    let payload_len = usize::from((words[0] >> 32) as u16).checked_sub(HEADER_LEN);
    let payload = payload_len.and_then(|len| rest.get(..len)).ok_or(Error::TotalLength)?;
    if sum_of(words) != 0xffff {
        return Err(Error::Checksum);
    }
    Ok((of_words(words), payload))
}

#[cold]
fn parse_with_options(packet: &[u8]) -> Result<(Header, &[u8]), Error> {
    let (fixed, header_len) = split(packet)?;
    let total = usize::from(u16_at(fixed, 2));
    let datagram = packet.get(..total).ok_or(Error::TotalLength)?;
    let (head, payload) = datagram.split_at_checked(header_len).ok_or(Error::TotalLength)?;
    if !Sum::new().verifies(head) {
        return Err(Error::Checksum);
    }
    let mut header = read(fixed);
    header.source_route = source_route(&head[HEADER_LEN..])?;
    Ok((header, payload))
}

/// Returns the header that an ICMP error quotes, and as much of its payload as the error includes. The checksum is not
/// verified (routers change the TTL), the total length may exceed the quoted bytes, and broken options are ignored.
pub fn parse_quoted(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let (fixed, header_len) = split(bytes).ok()?;
    let (head, rest) = bytes.split_at_checked(header_len)?;
    let payload_len = usize::from(u16_at(fixed, 2)).checked_sub(header_len);
    let payload = &rest[..payload_len.unwrap_or(rest.len()).min(rest.len())];
    let mut header = read(fixed);
    header.source_route = source_route(&head[HEADER_LEN..]).unwrap_or(false);
    Some((header, payload))
}

/// Returns the fixed part and the length of the header with its options. That length lies within the packet.
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
    of_words([u64_at(fixed, 0), u64_at(fixed, 8), u64::from(u32_at(fixed, 16))])
}

/// Returns the header in two words of 64 bits and one of 32.
#[inline]
fn of_words([first, second, destination]: [u64; 3]) -> Header {
    let fragment = first as u16;
    let service = (first >> 48) as u8;
    Header {
        source: Ipv4Addr::from_bits(second as u32),
        destination: Ipv4Addr::from_bits(destination as u32),
        protocol: (second >> 48) as u8,
        ttl: (second >> 56) as u8,
        dscp: service >> 2,
        ecn: Ecn::from_bits(service),
        identification: (first >> 16) as u16,
        dont_fragment: fragment & DONT_FRAGMENT != 0,
        more_fragments: fragment & MORE_FRAGMENTS != 0,
        fragment_offset: (fragment & OFFSET_MASK) << 3,
        source_route: false,
    }
}

/// Returns the sum of these header words in network order: 0xffff if their checksum is right.
#[inline]
fn sum_of([first, second, destination]: [u64; 3]) -> u16 {
    fold(add(add(first, second), destination))
}

/// Returns whether the options contain a source route. Each turn takes at least one of at most 40 bytes.
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
    /// Returns the header of an unfragmented packet: TTL 64, DF set, and all else zero.
    #[inline]
    pub const fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Header {
        Header {
            source,
            destination,
            protocol,
            ttl: 64,
            dscp: 0,
            ecn: Ecn::NotEct,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            source_route: false,
        }
    }

    /// Writes [`HEADER_LEN`] bytes, checksum included, for a payload of `payload_len` bytes.
    ///
    /// The buffer must hold that many bytes, and header and payload together must not exceed 65 535 bytes. Otherwise
    /// nothing is written (a debug build asserts).
    #[inline]
    pub fn emit(&self, payload_len: usize, buffer: &mut [u8]) {
        let total = payload_len.checked_add(HEADER_LEN).and_then(|n| u16::try_from(n).ok());
        let (Some(total), Some(out)) = (total, buffer.first_chunk_mut::<HEADER_LEN>()) else {
            debug_assert!(false, "no room for an IPv4 header, or {payload_len} bytes of payload");
            return;
        };
        let fragment = self.fragment_offset >> 3
            | if self.dont_fragment { DONT_FRAGMENT } else { 0 }
            | if self.more_fragments { MORE_FRAGMENTS } else { 0 };
        let service = self.dscp << 2 | self.ecn.bits();
        let first = u64::from(u16::from_be_bytes([PLAIN, service])) << 48
            | u64::from(total) << 32
            | u64::from(self.identification) << 16
            | u64::from(fragment);
        let second =
            u64::from(u16::from_be_bytes([self.ttl, self.protocol])) << 48 | u64::from(self.source.to_bits());
        let destination = self.destination.to_bits();
        // The values are at hand; reading the buffer back would be slower.
        let checksum = !sum_of([first, second, u64::from(destination)]);
        out[0..8].copy_from_slice(&first.to_be_bytes());
        out[8..16].copy_from_slice(&(second | u64::from(checksum) << 32).to_be_bytes());
        out[16..20].copy_from_slice(&destination.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Options};
    use proptest::collection::vec;
    use proptest::prelude::*;

    prop_compose! {
        fn headers()(
            (source, destination, identification) in any::<(u32, u32, u16)>(),
            (protocol, ttl) in any::<(u8, u8)>(),
            (dscp, ecn, offset) in (0u8..64, 0u8..4, 0u16..0x2000),
            (dont_fragment, more_fragments) in any::<(bool, bool)>(),
        ) -> Header {
            Header {
                source: Ipv4Addr::from_bits(source),
                destination: Ipv4Addr::from_bits(destination),
                protocol,
                ttl,
                dscp,
                ecn: Ecn::from_bits(ecn),
                identification,
                dont_fragment,
                more_fragments,
                fragment_offset: offset * 8,
                source_route: false,
            }
        }
    }

    fn theirs(header: &Header, payload_len: u16) -> etherparse::Ipv4Header {
        let protocol = IpNumber(header.protocol);
        let (source, destination) = (header.source.octets(), header.destination.octets());
        let mut theirs =
            etherparse::Ipv4Header::new(payload_len, header.ttl, protocol, source, destination).unwrap();
        theirs.dscp = IpDscp::try_new(header.dscp).unwrap();
        theirs.ecn = IpEcn::try_new(header.ecn.bits()).unwrap();
        theirs.identification = header.identification;
        theirs.dont_fragment = header.dont_fragment;
        theirs.more_fragments = header.more_fragments;
        theirs.fragment_offset = IpFragOffset::try_new(header.fragment_offset / 8).unwrap();
        theirs.header_checksum = theirs.calc_header_checksum();
        theirs
    }

    fn emitted(header: &Header, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xee; HEADER_LEN];
        header.emit(payload.len(), &mut packet);
        packet.extend(payload);
        packet
    }

    /// Returns a packet with these options, whose length is a multiple of 4, and a correct checksum.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45 + (options.len() / 4) as u8, 0, 0, (20 + options.len() + 3) as u8];
        packet.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(options);
        let mut sum = Sum::new();
        sum.add_bytes(&packet);
        packet[10..12].copy_from_slice(&sum.finish().to_be_bytes());
        packet.extend(b"abc");
        packet
    }

    fn good() -> Vec<u8> {
        with_options(&[])
    }

    #[test]
    fn lengths_are_checked_against_each_other_threat_58() {
        for ihl in 0..16u8 {
            for total in 0..70u16 {
                for len in 0..70usize {
                    let mut packet = [0; 70];
                    packet[0] = 0x40 | ihl;
                    packet[2..4].copy_from_slice(&total.to_be_bytes());
                    let header_len = usize::from(ihl) * 4;
                    if header_len >= HEADER_LEN {
                        let mut sum = Sum::new();
                        sum.add_bytes(&packet[..header_len]);
                        packet[10..12].copy_from_slice(&sum.finish().to_be_bytes());
                    }
                    let total = usize::from(total);
                    let fits = header_len >= 20 && header_len <= total && total <= len;
                    match parse(&packet[..len]) {
                        Ok((_, payload)) => assert!(fits && payload.len() == total - header_len),
                        Err(error) => assert!(!fits, "{error:?}: ihl {ihl}, total {total}, {len} bytes"),
                    }
                }
            }
        }
    }

    #[test]
    fn other_versions_and_wrong_checksums_are_refused_must_57() {
        let mut packet = good();
        assert!(parse(&packet).is_ok());
        packet[8] ^= 1;
        assert_eq!(parse(&packet), Err(Error::Checksum));
        packet[0] = 0x65;
        assert_eq!(parse(&packet), Err(Error::Version));
        assert_eq!(parse(&good()[..19]), Err(Error::Version));
    }

    #[test]
    fn link_padding_is_not_payload() {
        let mut packet = good();
        packet.extend([0; 20]);
        assert_eq!(parse(&packet).unwrap().1, b"abc");
    }

    #[test]
    fn source_routes_are_noticed_and_other_options_ignored_threat_64() {
        let cases: [(&[u8], bool); 7] = [
            (&[1, 1, 1, 0], false),
            (&[7, 7, 4, 0, 0, 0, 0, 0], false),
            (&[131, 7, 4, 0, 0, 0, 0, 0], true),
            (&[1, 137, 7, 4, 0, 0, 0, 0], true),
            (&[148, 4, 0, 0, 131, 3, 4, 0], true),
            (&[0, 131, 3, 4], false),
            (&[7, 4, 131, 3], false),
        ];
        for (options, source_route) in cases {
            let packet = with_options(options);
            let (header, payload) = parse(&packet).unwrap();
            assert_eq!((header.source_route, payload), (source_route, &b"abc"[..]), "{options:?}");
            assert_eq!(parse_quoted(&packet).unwrap().0, header);
        }
    }

    #[test]
    fn malformed_options_are_refused_but_not_in_quotes() {
        for options in [[7, 0, 0, 0], [7, 1, 0, 0], [7, 5, 0, 0], [1, 1, 1, 7]] {
            let packet = with_options(&options);
            assert_eq!(parse(&packet), Err(Error::Options), "{options:?}");
            assert_eq!(parse_quoted(&packet).unwrap().1, b"abc");
        }
    }

    #[test]
    fn a_quote_may_be_cut_off_and_changed_on_the_way() {
        let mut packet = good();
        packet[8] = 1;
        packet[2..4].copy_from_slice(&1500u16.to_be_bytes());
        let (header, payload) = parse_quoted(&packet).unwrap();
        assert_eq!((header.ttl, payload), (1, &b"abc"[..]));
        assert_eq!(parse_quoted(&packet[..20]).unwrap().1, b"");
        assert_eq!(parse_quoted(&packet[..19]), None);
        packet[2..4].copy_from_slice(&22u16.to_be_bytes());
        assert_eq!(parse_quoted(&packet).unwrap().1, b"ab");
    }

    #[test]
    fn the_largest_datagram_can_be_emitted() {
        let (header, _) = parse(&good()).map(|(header, payload)| (header, payload.len())).unwrap();
        let packet = emitted(&header, &vec![7; 65_515]);
        assert_eq!(parse(&packet).unwrap().1.len(), 65_515);
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(header in headers(), payload in vec(any::<u8>(), 0..60)) {
            let packet = emitted(&header, &payload);
            prop_assert_eq!(parse(&packet), Ok((header, &payload[..])));
            prop_assert_eq!(parse_quoted(&packet), Some((header, &payload[..])));
        }

        #[test]
        fn etherparse_writes_the_same_bytes(header in headers(), payload in vec(any::<u8>(), 0..60)) {
            let ours = emitted(&header, &payload);
            prop_assert_eq!(&ours[..20], &theirs(&header, payload.len() as u16).to_bytes()[..]);
        }

        #[test]
        fn packets_of_etherparse_with_options_are_parsed(header in headers(), nops in 0usize..=10) {
            let mut theirs = theirs(&header, 3);
            theirs.options = Ipv4Options::try_from(&vec![1; nops * 4][..]).unwrap();
            theirs.set_payload_len(3).unwrap();
            theirs.header_checksum = theirs.calc_header_checksum();
            let mut packet = theirs.to_bytes().to_vec();
            packet.extend(b"abc");
            prop_assert_eq!(parse(&packet), Ok((header, &b"abc"[..])));
        }

        #[test]
        fn no_bytes_panic(mut bytes in vec(any::<u8>(), 0..100), version in prop::bool::weighted(0.9)) {
            if version && !bytes.is_empty() {
                bytes[0] = 0x40 | bytes[0] & 0x0f;
            }
            let _ = parse(&bytes);
            let _ = parse_quoted(&bytes);
        }

        #[test]
        fn no_options_panic(bytes in vec(any::<u8>(), 0..41)) {
            let _ = source_route(&bytes);
        }
    }
}

use super::*;
use etherparse::{IpNumber, Ipv6FlowLabel, Ipv6RawExtHeader};
use proptest::collection::vec;
use proptest::prelude::*;

const TCP: u8 = PROTOCOL_TCP;

prop_compose! {
    fn headers()(
        (source, destination) in any::<(u128, u128)>(),
        protocol in prop_oneof![Just(TCP), Just(PROTOCOL_ICMPV6), Just(255u8)],
        (hop_limit, dscp, ecn, flow_label) in (any::<u8>(), 0u8..64, 0u8..4, 0u32..1 << 20),
    ) -> Header {
        Header {
            source: Ipv6Addr::from_bits(source),
            destination: Ipv6Addr::from_bits(destination),
            protocol,
            hop_limit,
            dscp,
            ecn: Ecn::from_bits(ecn),
            flow_label,
            fragment: None,
        }
    }
}

fn header(protocol: u8) -> Header {
    Header::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, protocol)
}

fn emitted(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xee; HEADER_LEN];
    header.emit(payload.len(), &mut packet);
    packet.extend(payload);
    packet
}

/// Builds a chain of extension headers, given by kind and body (all but the first byte), that `upper` follows. Returns
/// the first kind and the bytes.
fn chain(extensions: &[(u8, &[u8])], upper: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    let next = extensions.iter().skip(1).map(|(kind, _)| *kind).chain([upper]);
    let mut bytes = Vec::new();
    for ((_, body), next) in extensions.iter().zip(next) {
        bytes.push(next);
        bytes.extend(*body);
    }
    bytes.extend(payload);
    (extensions.first().map_or(upper, |(kind, _)| *kind), bytes)
}

fn packet(extensions: &[(u8, &[u8])], upper: u8, payload: &[u8]) -> Vec<u8> {
    let (first, bytes) = chain(extensions, upper, payload);
    emitted(&header(first), &bytes)
}

/// The result of parsing a packet with these extensions before TCP.
fn outcome(extensions: &[(u8, &[u8])]) -> Result<(), Error> {
    let packet = packet(extensions, TCP, b"abc");
    let (header, payload) = parse(&packet)?;
    assert_eq!((header.protocol, header.fragment, payload), (TCP, None, &b"abc"[..]));
    Ok(())
}

/// Six bytes of padding options.
const PADDED: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
const ATOMIC: &[u8] = &[0, 0, 0, 0, 0, 0, 9];
const ROUTED: &[u8] = &[0, 0, 0, 0, 0, 0, 0];

#[test]
fn known_extension_headers_are_passed_over() {
    assert_eq!(outcome(&[]), Ok(()));
    assert_eq!(outcome(&[(HOP_BY_HOP, PADDED), (DESTINATION_OPTIONS, PADDED)]), Ok(()));
    assert_eq!(outcome(&[(ROUTING, ROUTED), (DESTINATION_OPTIONS, &[0; 7])]), Ok(()));
    assert_eq!(outcome(&[(HOP_BY_HOP, &[1, 5, 2, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0, 0])]), Ok(()));
}

#[test]
fn hop_by_hop_comes_first_or_the_packet_is_dropped() {
    let misplaced = [(DESTINATION_OPTIONS, PADDED), (HOP_BY_HOP, PADDED)];
    assert_eq!(outcome(&misplaced), Err(Error::ExtensionOrder));
    assert_eq!(outcome(&[(HOP_BY_HOP, PADDED), (HOP_BY_HOP, PADDED)]), Err(Error::ExtensionOrder));
    assert_eq!(outcome(&[(FRAGMENT, ATOMIC), (HOP_BY_HOP, PADDED)]), Err(Error::ExtensionOrder));
}

#[test]
fn routing_headers_with_segments_left_are_refused_rfc_5095() {
    for kind in 0..=255u8 {
        assert_eq!(outcome(&[(ROUTING, &[0, kind, 1, 0, 0, 0, 0])]), Err(Error::RoutingHeader));
        assert_eq!(outcome(&[(ROUTING, &[0, kind, 0, 0, 0, 0, 0])]), Ok(()));
    }
}

#[test]
fn unknown_options_are_skipped_or_cost_the_packet_by_their_action_bits() {
    for kind in 2..=255u8 {
        for extension in [HOP_BY_HOP, DESTINATION_OPTIONS] {
            let expected = if kind >> 6 == 0 { Ok(()) } else { Err(Error::UnknownOption) };
            assert_eq!(outcome(&[(extension, &[0, kind, 4, 0, 0, 0, 0])]), expected, "{kind:#x}");
        }
    }
}

#[test]
fn jumbo_payloads_are_dropped() {
    assert_eq!(outcome(&[(HOP_BY_HOP, &[0, 0xc2, 4, 0, 1, 0, 0])]), Err(Error::UnknownOption));
}

#[test]
fn options_past_their_header_are_refused() {
    for len in 5..=255 {
        assert_eq!(outcome(&[(DESTINATION_OPTIONS, &[0, 1, len, 0, 0, 0, 0])]), Err(Error::Options));
    }
    assert_eq!(outcome(&[(HOP_BY_HOP, &[0, 1, 3, 0, 0, 0, 1])]), Err(Error::Options));
}

#[test]
fn chains_are_bounded_threat_66() {
    let many = [(DESTINATION_OPTIONS, PADDED); 9];
    assert_eq!(outcome(&many[..8]), Ok(()));
    assert_eq!(outcome(&many), Err(Error::ExtensionLimit));
    assert_eq!(outcome(&[&[(FRAGMENT, ATOMIC)], &many[..8]].concat()), Err(Error::ExtensionLimit));
    let long = |units: u8| [&[units], &[0; 6][..], &vec![0; usize::from(units) * 8][..]].concat();
    assert_eq!(outcome(&[(DESTINATION_OPTIONS, &long(31))]), Ok(()));
    assert_eq!(outcome(&[(DESTINATION_OPTIONS, &long(32))]), Err(Error::ExtensionLimit));
    let two = [(HOP_BY_HOP, &long(15)[..]), (DESTINATION_OPTIONS, &long(16)[..])];
    assert_eq!(outcome(&two), Err(Error::ExtensionLimit));
}

#[test]
fn a_chain_past_the_end_is_refused_at_every_length_threat_58() {
    let extensions = [(HOP_BY_HOP, PADDED), (DESTINATION_OPTIONS, PADDED), (FRAGMENT, ATOMIC)];
    let (first, bytes) = chain(&extensions, TCP, b"");
    for len in 0..bytes.len() {
        let packet = emitted(&header(first), &bytes[..len]);
        assert_eq!(parse(&packet), Err(Error::Truncated), "{len} bytes");
        assert_eq!(parse_quoted(&packet), None);
    }
    assert!(parse(&emitted(&header(first), &bytes)).is_ok());
}

#[test]
fn lengths_are_checked_against_the_packet_threat_58() {
    let mut packet = packet(&[], TCP, b"abc");
    for len in 0..40 {
        assert_eq!(parse(&packet[..len]), Err(Error::Version));
    }
    for len in 40..43 {
        assert_eq!(parse(&packet[..len]), Err(Error::PayloadLength));
        assert_eq!(parse_quoted(&packet[..len]).unwrap().1, &b"abc"[..len - 40]);
    }
    packet.extend([0; 9]);
    assert_eq!(parse(&packet).unwrap().1, b"abc", "link padding");
    packet[0] = 0x45;
    assert_eq!(parse(&packet), Err(Error::Version));
}

#[test]
fn no_next_header_means_no_payload() {
    let packet = packet(&[(DESTINATION_OPTIONS, PADDED)], NO_NEXT_HEADER, b"abc");
    let (header, payload) = parse(&packet).unwrap();
    assert_eq!((header.protocol, payload), (NO_NEXT_HEADER, &b""[..]));
}

#[test]
fn fragments_end_the_walk_and_atomic_ones_do_not_rfc_6946() {
    let fragment = |offset_and_more: u16| {
        let [high, low] = offset_and_more.to_be_bytes();
        packet(&[(HOP_BY_HOP, PADDED), (FRAGMENT, &[0, high, low, 0, 0, 1, 2])], DESTINATION_OPTIONS, b"a\0c")
    };
    for (word, offset, more) in [(1, 0, true), (8, 8, false), (0xfff9, 0xfff8, true), (0xffff, 0xfff8, true)]
    {
        let packet = fragment(word);
        let (header, payload) = parse(&packet).unwrap();
        assert_eq!(header.fragment, Some(Fragment { identification: 0x102, offset, more }));
        assert_eq!((header.protocol, payload), (DESTINATION_OPTIONS, &b"a\0c"[..]));
    }
    assert_eq!(parse(&fragment(0)), Err(Error::Truncated), "an atomic fragment is walked through");
    assert_eq!(outcome(&[(FRAGMENT, ATOMIC)]), Ok(()));
    assert_eq!(outcome(&[(FRAGMENT, ATOMIC), (DESTINATION_OPTIONS, PADDED)]), Ok(()));
    assert_eq!(outcome(&[(FRAGMENT, ATOMIC), (FRAGMENT, ATOMIC)]), Err(Error::ExtensionOrder));
    let nested = packet(&[(FRAGMENT, ATOMIC), (FRAGMENT, &[0, 0, 1, 0, 0, 0, 9])], TCP, b"abc");
    assert_eq!(parse(&nested), Err(Error::ExtensionOrder));
}

#[test]
fn a_first_fragment_holds_the_whole_chain_rfc_7112_threat_66() {
    let mut segment = [0u8; 24];
    segment[12] = 0x60;
    let (first, bytes) = chain(&[(DESTINATION_OPTIONS, PADDED), (ROUTING, ROUTED)], TCP, &segment);
    for len in 0..bytes.len() {
        assert_eq!(parse_upper(first, &bytes[..len]), Err(Error::Truncated), "{len} bytes");
    }
    assert_eq!(parse_upper(first, &bytes), Ok((TCP, &segment[..])));
    assert_eq!(parse_upper(PROTOCOL_UDP, &[0; 7]), Err(Error::Truncated));
    assert_eq!(parse_upper(PROTOCOL_ICMPV6, &[0; 8]), Ok((PROTOCOL_ICMPV6, &[0; 8][..])));
    assert_eq!(parse_upper(NO_NEXT_HEADER, b"abc"), Ok((NO_NEXT_HEADER, &b""[..])));
    assert_eq!(parse_upper(FRAGMENT, &[0; 60]), Err(Error::ExtensionOrder));
    assert_eq!(parse_upper(HOP_BY_HOP, &[0; 60]), Err(Error::ExtensionOrder));
}

#[test]
fn quotes_are_read_leniently() {
    let packet =
        packet(&[(HOP_BY_HOP, &[0, 0xc2, 9, 0, 0, 0, 0]), (ROUTING, &[0, 0, 1, 0, 0, 0, 0])], TCP, b"abc");
    assert!(parse(&packet).is_err());
    let (header, payload) = parse_quoted(&packet).unwrap();
    assert_eq!((header.protocol, payload), (TCP, &b"abc"[..]));
    let first = self::packet(&[(FRAGMENT, &[0, 0, 1, 0, 0, 0, 9])], TCP, b"abc");
    let (header, payload) = parse_quoted(&first).unwrap();
    let fragment = Fragment { identification: 9, offset: 0, more: true };
    assert_eq!((header.fragment, header.protocol, payload), (Some(fragment), TCP, &b"abc"[..]));
}

/// A packet whose fixed and hop-by-hop headers are written by etherparse. The fragment header is written by hand, since
/// etherparse 0.18 puts its M flag and the low bits of the offset in the wrong places.
fn of_etherparse(ours: &Header, padding: usize, fragment: &Fragment) -> Vec<u8> {
    let padding = [&[1, 4 + 8 * padding as u8][..], &vec![0; 4 + 8 * padding]].concat();
    let hop_by_hop = Ipv6RawExtHeader::new_raw(IpNumber(FRAGMENT), &padding).unwrap();
    let reserved_bits = 0b110;
    let offset_and_more = fragment.offset | reserved_bits | u16::from(fragment.more);
    let mut extensions = hop_by_hop.to_bytes().to_vec();
    extensions.extend([ours.protocol, 0xff]);
    extensions.extend(offset_and_more.to_be_bytes());
    extensions.extend(fragment.identification.to_be_bytes());
    let mut packet = theirs(ours, HOP_BY_HOP, extensions.len() + 3).to_bytes().to_vec();
    packet.extend(extensions);
    packet.extend(b"abc");
    packet
}

fn theirs(header: &Header, next_header: u8, payload_len: usize) -> etherparse::Ipv6Header {
    etherparse::Ipv6Header {
        traffic_class: header.dscp << 2 | header.ecn.bits(),
        flow_label: Ipv6FlowLabel::try_new(header.flow_label).unwrap(),
        payload_length: payload_len as u16,
        next_header: IpNumber(next_header),
        hop_limit: header.hop_limit,
        source: header.source.octets(),
        destination: header.destination.octets(),
    }
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_and_is_what_etherparse_writes(
        header in headers(),
        payload in vec(any::<u8>(), 0..60),
    ) {
        let packet = emitted(&header, &payload);
        prop_assert_eq!(parse(&packet), Ok((header, &payload[..])));
        prop_assert_eq!(parse_quoted(&packet), Some((header, &payload[..])));
        prop_assert_eq!(&packet[..40], theirs(&header, header.protocol, payload.len()).to_bytes());
    }

    #[test]
    fn extension_headers_of_etherparse_are_parsed(
        header in headers(),
        padding in 0usize..8,
        (identification, offset, more) in (any::<u32>(), prop_oneof![Just(0), 0u16..0x2000], any::<bool>()),
    ) {
        let fragment = Fragment { identification, offset: offset * 8, more };
        let packet = of_etherparse(&header, padding, &fragment);
        let atomic = fragment.offset == 0 && !fragment.more;
        let expected = Header { fragment: (!atomic).then_some(fragment), ..header };
        prop_assert_eq!(parse(&packet), Ok((expected, &b"abc"[..])));
    }

    #[test]
    fn no_bytes_panic(
        first in prop::sample::select(vec![HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS, TCP]),
        // Small numbers often make valid lengths and next headers.
        mut bytes in vec(prop_oneof![0u8..3, Just(FRAGMENT), Just(ROUTING), Just(60u8), any::<u8>()], 0..400),
        valid in prop::bool::weighted(0.9),
    ) {
        if valid {
            bytes = emitted(&header(first), &bytes);
        }
        if let Ok((_, payload)) = parse(&bytes) {
            prop_assert!(payload.len() <= bytes.len() - HEADER_LEN);
        }
        let _ = parse_quoted(&bytes);
        let _ = parse_upper(first, &bytes);
    }
}

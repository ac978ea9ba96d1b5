//! Builds and parses packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use steadfast_core::wire::checksum::pseudo_header;
use steadfast_core::wire::icmp::{self, ErrorKind, Message};
use steadfast_core::wire::tcp::{self, Header};
use steadfast_core::wire::{Ecn, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, ipv4, ipv6};

/// Returns an IPv4 header with the fields that all test packets share.
pub fn ipv4_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> ipv4::Header {
    ipv4::Header {
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

/// Returns an IPv6 header with the fields that all test packets share.
pub fn ipv6_header(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8) -> ipv6::Header {
    let (hop_limit, dscp, ecn, flow_label, fragment) = (64, 0, Ecn::NotEct, 0, None);
    ipv6::Header { source, destination, protocol, hop_limit, dscp, ecn, flow_label, fragment }
}

/// Builds an IP packet around `payload`.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    marked_ip(source, destination, protocol, Ecn::NotEct, payload)
}

/// Builds an IP packet with an ECN codepoint.
pub fn marked_ip(source: IpAddr, destination: IpAddr, protocol: u8, ecn: Ecn, payload: &[u8]) -> Vec<u8> {
    let mut packet;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet = vec![0; ipv4::HEADER_LEN];
            let header = ipv4::Header { ecn, ..ipv4_header(source, destination, protocol) };
            header.emit(payload.len(), &mut packet);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet = vec![0; ipv6::HEADER_LEN];
            let header = ipv6::Header { ecn, ..ipv6_header(source, destination, protocol) };
            header.emit(payload.len(), &mut packet);
        }
        _ => panic!("addresses of two families"),
    }
    packet.extend_from_slice(payload);
    packet
}

/// Builds a packet with a segment and a valid checksum. The ports are those of `source` and `destination`.
pub fn segment(source: SocketAddr, destination: SocketAddr, header: Header, payload: &[u8]) -> Vec<u8> {
    marked_segment(source, destination, header, Ecn::NotEct, payload)
}

/// Builds a packet with a segment and an ECN codepoint.
pub fn marked_segment(
    source: SocketAddr,
    destination: SocketAddr,
    header: Header,
    ecn: Ecn,
    payload: &[u8],
) -> Vec<u8> {
    let header = Header { source_port: source.port(), destination_port: destination.port(), ..header };
    let mut bytes = vec![0; header.header_len()];
    header.emit(&mut bytes);
    bytes.extend_from_slice(payload);
    let mut sum = pseudo_header(source.ip(), destination.ip(), PROTOCOL_TCP, bytes.len() as u32);
    sum.add_bytes(&bytes);
    tcp::set_checksum(&mut bytes, sum.finish());
    marked_ip(source.ip(), destination.ip(), PROTOCOL_TCP, ecn, &bytes)
}

/// Builds a packet with an ICMP message, or returns `None` if the family has no such message.
pub fn icmp(source: IpAddr, destination: IpAddr, message: &Message<'_>) -> Option<Vec<u8>> {
    let body = match message {
        Message::EchoRequest { data, .. } | Message::EchoReply { data, .. } => data.len(),
        Message::Error { quoted, .. } => quoted.len(),
        Message::Other => return None,
    };
    let mut bytes = vec![0; icmp::HEADER_LEN + body];
    let (len, protocol) = match (source, destination) {
        (IpAddr::V6(s), IpAddr::V6(d)) => (icmp::emit_v6(s, d, message, &mut bytes)?, PROTOCOL_ICMPV6),
        _ => (icmp::emit_v4(message, &mut bytes)?, PROTOCOL_ICMP),
    };
    Some(ip(source, destination, protocol, &bytes[..len]))
}

/// Builds an ICMP error about the packet that starts with `quoted`.
pub fn icmp_error(source: IpAddr, destination: IpAddr, kind: ErrorKind, quoted: &[u8]) -> Option<Vec<u8>> {
    icmp(source, destination, &Message::Error { kind, quoted })
}

/// Cuts a packet into fragments with `size` bytes of payload, rounded down to a multiple of 8.
pub fn fragments(packet: &[u8], identification: u16, size: usize) -> Vec<Vec<u8>> {
    let size = (size / 8 * 8).max(8);
    let v4 = packet[0] >> 4 == 4;
    let (head, body) = packet.split_at(if v4 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN });
    let count = body.len().div_ceil(size).max(1);
    let piece = |(n, part): (usize, &[u8])| {
        let (offset, more) = (n * size, n + 1 < count);
        let mut out = head.to_vec();
        if v4 {
            let (Ok((header, _)), field) = (ipv4::parse(packet), offset as u16) else {
                return packet.to_vec();
            };
            let header = ipv4::Header {
                identification,
                dont_fragment: false,
                more_fragments: more,
                fragment_offset: field,
                ..header
            };
            header.emit(part.len(), &mut out);
        } else {
            let next = std::mem::replace(&mut out[6], 44);
            out[4..6].copy_from_slice(&(part.len() as u16 + 8).to_be_bytes());
            out.extend_from_slice(&[next, 0]);
            out.extend_from_slice(&(offset as u16 | u16::from(more)).to_be_bytes());
            out.extend_from_slice(&u32::from(identification).to_be_bytes());
        }
        out.extend_from_slice(part);
        out
    };
    body.chunks(size).enumerate().map(piece).collect()
}

/// A packet that a stack sent.
#[derive(Clone, Debug)]
pub enum Sent<'a> {
    /// A segment.
    Tcp {
        /// Address and port of the stack.
        local: SocketAddr,
        /// Address and port of the peer.
        remote: SocketAddr,
        /// The TCP header.
        header: Header,
        /// The payload.
        payload: &'a [u8],
    },
    /// An ICMP message.
    Icmp {
        /// The sender's address.
        source: IpAddr,
        /// The receiver's address.
        destination: IpAddr,
        /// It reports an error.
        error: bool,
    },
}

/// Parses a packet that a stack sent, and panics if it is invalid. With `offload`, the device still has to compute the
/// TCP checksum.
pub fn read(packet: &[u8], offload: bool) -> Sent<'_> {
    let (source, destination, protocol, payload): (IpAddr, IpAddr, _, _) = if packet[0] >> 4 == 4 {
        let (header, payload) = ipv4::parse(packet).expect("a sound IPv4 header");
        assert_eq!(packet.len(), ipv4::HEADER_LEN + payload.len(), "IPv4 total length");
        (header.source.into(), header.destination.into(), header.protocol, payload)
    } else {
        let (header, payload) = ipv6::parse(packet).expect("a sound IPv6 header");
        assert_eq!(packet.len(), ipv6::HEADER_LEN + payload.len(), "IPv6 payload length");
        (header.source.into(), header.destination.into(), header.protocol, payload)
    };
    match (protocol, source, destination) {
        (PROTOCOL_TCP, ..) => {
            assert!(offload || tcp::checksum_ok(source, destination, payload), "TCP checksum");
            let (header, payload) = Header::parse(payload).expect("a sound TCP header");
            let (local, remote) =
                ((source, header.source_port).into(), (destination, header.destination_port).into());
            Sent::Tcp { local, remote, header, payload }
        }
        (PROTOCOL_ICMP, IpAddr::V4(_), _) => {
            let message = icmp::parse_v4(payload).expect("a sound ICMP message");
            Sent::Icmp { source, destination, error: matches!(message, Message::Error { .. }) }
        }
        (PROTOCOL_ICMPV6, IpAddr::V6(s), IpAddr::V6(d)) => {
            let message = icmp::parse_v6(s, d, payload).expect("a sound ICMPv6 message");
            Sent::Icmp { source, destination, error: matches!(message, Message::Error { .. }) }
        }
        _ => panic!("protocol {protocol} sent"),
    }
}

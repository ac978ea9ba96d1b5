//! Builds and parses packets.

use std::net::{IpAddr, SocketAddr};

use steadfast_core::wire;
use steadfast_core::wire::icmp::{ErrorKind, Message};
use steadfast_core::wire::tcp::{self, Header};
use steadfast_core::wire::{
    Ecn, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_IGMP, PROTOCOL_TCP, PROTOCOL_UDP, build, groups, ipv4, ipv6,
};

pub use steadfast_core::wire::build::icmp;

/// Builds an IP packet around `payload`.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    build::ip(source, destination, protocol, payload).expect("addresses of one family")
}

/// Builds a packet with a segment and a valid checksum. The ports are those of `source` and `destination`.
pub fn segment(source: SocketAddr, destination: SocketAddr, header: Header, payload: &[u8]) -> Vec<u8> {
    build::tcp(source, destination, header, payload).expect("addresses of one family")
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
    let segment = build::segment(source.ip(), destination.ip(), &header, payload);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = ipv4::Header::new(source, destination, PROTOCOL_TCP);
            build::ipv4(&ipv4::Header { ecn, ..header }, &segment)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = ipv6::Header::new(source, destination, PROTOCOL_TCP);
            build::ipv6(&ipv6::Header { ecn, ..header }, &segment)
        }
        _ => panic!("addresses of two families"),
    }
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
    /// A datagram of UDP, or a fragment of one.
    Udp {
        /// The sender's address.
        source: IpAddr,
        /// The receiver's address.
        destination: IpAddr,
    },
    /// A message of ICMP or IGMP.
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
        // Reports of IGMP have a router alert.
        let options = if header.protocol == PROTOCOL_IGMP { 4 } else { 0 };
        assert_eq!(packet.len(), ipv4::HEADER_LEN + options + payload.len(), "IPv4 total length");
        (header.source.into(), header.destination.into(), header.protocol, payload)
    } else {
        let (header, payload) = ipv6::parse(packet).expect("a sound IPv6 header");
        // Reports of MLD have a router alert.
        let options = if groups::has_router_alert(packet) { 8 } else { 0 };
        let headers = ipv6::HEADER_LEN + options + header.fragment.map_or(0, |_| ipv6::FRAGMENT_LEN);
        assert_eq!(packet.len(), headers + payload.len(), "IPv6 payload length");
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
            let message = wire::icmp::parse_v4(payload).expect("a sound ICMP message");
            Sent::Icmp { source, destination, error: matches!(message, Message::Error { .. }) }
        }
        (PROTOCOL_ICMPV6, IpAddr::V6(s), IpAddr::V6(d)) => {
            let message = wire::icmp::parse_v6(s, d, payload).expect("a sound ICMPv6 message");
            Sent::Icmp { source, destination, error: matches!(message, Message::Error { .. }) }
        }
        (PROTOCOL_IGMP, ..) => {
            assert!(wire::checksum::Sum::new().verifies(payload), "IGMP checksum");
            Sent::Icmp { source, destination, error: false }
        }
        (PROTOCOL_UDP, ..) => Sent::Udp { source, destination },
        _ => panic!("protocol {protocol} sent"),
    }
}

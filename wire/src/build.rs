//! Whole packets from headers and payloads, for tests, simulations and forgers. A stack writes its headers straight
//! into a frame instead.
//!
//! ```
//! use steadfast_wire::tcp::{Flags, Header};
//! use steadfast_wire::{build, ipv4};
//!
//! let syn = Header { flags: Flags::SYN, window: 65_535, ..Header::default() };
//! let (client, server) = ("192.0.2.1:4000".parse().unwrap(), "192.0.2.2:80".parse().unwrap());
//! let packet = build::tcp(client, server, syn, b"").unwrap();
//! let (ip, segment) = ipv4::parse(&packet).unwrap();
//! let (header, _) = Header::parse(segment).unwrap();
//! assert_eq!((ip.ttl, header.source_port, header.flags), (64, 4000, Flags::SYN));
//! ```

use crate::icmp::{self, Message};
use crate::tcp;
use crate::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, arp, ethernet, ipv4, ipv6, ndp};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Builds an IPv4 packet. See [`ipv4::Header::emit`] for what happens if the payload is too long.
pub fn ipv4(header: &ipv4::Header, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ipv4::HEADER_LEN];
    header.emit(payload.len(), &mut packet);
    packet.extend_from_slice(payload);
    packet
}

/// Builds an IPv6 packet without extension headers. See [`ipv6::Header::emit`] for what happens if the payload is too
/// long.
pub fn ipv6(header: &ipv6::Header, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ipv6::HEADER_LEN];
    header.emit(payload.len(), &mut packet);
    packet.extend_from_slice(payload);
    packet
}

/// Builds a packet with the usual header of its version: [`ipv4::Header::new`], [`ipv6::Header::new`]. Returns `None`
/// for addresses of two families.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Option<Vec<u8>> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Some(ipv4(&ipv4::Header::new(source, destination, protocol), payload))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Some(ipv6(&ipv6::Header::new(source, destination, protocol), payload))
        }
        _ => None,
    }
}

/// Builds a TCP segment with its checksum, to be put into a packet between these addresses, which are of one family.
pub fn segment(source: IpAddr, destination: IpAddr, header: &tcp::Header, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; header.header_len()];
    header.emit(&mut segment);
    segment.extend_from_slice(payload);
    tcp::write_checksum(source, destination, &mut segment);
    segment
}

/// Builds a packet with a TCP segment. The ports are those of `source` and `destination`. Returns `None` for addresses
/// of two families.
pub fn tcp(
    source: SocketAddr,
    destination: SocketAddr,
    header: tcp::Header,
    payload: &[u8],
) -> Option<Vec<u8>> {
    // A checksum covers addresses of one family.
    if source.is_ipv4() != destination.is_ipv4() {
        return None;
    }
    let header = tcp::Header { source_port: source.port(), destination_port: destination.port(), ..header };
    let (source, destination) = (source.ip(), destination.ip());
    ip(source, destination, PROTOCOL_TCP, &segment(source, destination, &header, payload))
}

/// Builds a packet with an ICMP message. Returns `None` for addresses of two families, and for a message that the
/// family does not have.
pub fn icmp(source: IpAddr, destination: IpAddr, message: &Message<'_>) -> Option<Vec<u8>> {
    let mut body = vec![0; message.emitted_len()];
    let (len, protocol) = match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (icmp::emit_v4(message, &mut body)?, PROTOCOL_ICMP),
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (icmp::emit_v6(source, destination, message, &mut body)?, PROTOCOL_ICMPV6)
        }
        _ => return None,
    };
    ip(source, destination, protocol, &body[..len])
}

/// Builds a packet of neighbour discovery, with the hop limit that proves that no router forwarded it (RFC 4861 §3.1).
pub fn ndp(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    message: &ndp::Message,
    options: &[ndp::NdpOption<'_>],
) -> Vec<u8> {
    let body = ndp::emit(source, destination, message, options);
    let header = ipv6::Header::new(source, destination, PROTOCOL_ICMPV6);
    ipv6(&ipv6::Header { hop_limit: ndp::HOP_LIMIT, ..header }, &body)
}

/// Builds an Ethernet frame.
pub fn ethernet(header: &ethernet::Header, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; ethernet::HEADER_LEN];
    header.emit(&mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// Builds an Ethernet frame with an ARP packet.
pub fn arp(source: ethernet::Address, destination: ethernet::Address, packet: &arp::Packet) -> Vec<u8> {
    let mut body = [0; arp::LEN];
    packet.emit(&mut body);
    ethernet(&ethernet::Header::new(source, destination, ethernet::TYPE_ARP), &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::icmp::ErrorKind;
    use crate::seq::SeqNum;
    use crate::tcp::{Flags, Header, Options};
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    const PAYLOAD: &[u8] = b"odd";

    fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
        match v6 {
            false => ("192.0.2.1:4000".parse().unwrap(), "198.51.100.2:80".parse().unwrap()),
            true => ("[2001:db8::1]:4000".parse().unwrap(), "[fd00::2]:80".parse().unwrap()),
        }
    }

    #[test]
    fn etherparse_reads_a_segment_that_was_built() {
        for v6 in [false, true] {
            let (source, destination) = ends(v6);
            let options = Options { mss: Some(1460), ..Options::default() };
            let header = Header { seq: SeqNum(7), flags: Flags::SYN, options, ..Header::default() };
            let packet = tcp(source, destination, header, PAYLOAD).unwrap();
            let sliced = SlicedPacket::from_ip(&packet).unwrap();
            let Some(TransportSlice::Tcp(segment)) = sliced.transport else { panic!("a segment") };
            assert_eq!((segment.source_port(), segment.destination_port()), (4000, 80));
            assert_eq!((segment.sequence_number(), segment.payload()), (7, PAYLOAD));
            let checksum = match sliced.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
                    segment.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
                }
                NetSlice::Ipv6(ip) => {
                    segment.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                }
                NetSlice::Arp(_) => panic!("an IP packet"),
            };
            assert_eq!(checksum.unwrap(), segment.checksum());
        }
    }

    #[test]
    fn an_icmp_error_is_read_back() {
        for v6 in [false, true] {
            let (source, destination) = ends(v6);
            let (source, destination) = (source.ip(), destination.ip());
            let message = Message::Error { kind: ErrorKind::PacketTooBig { mtu: 1300 }, quoted: PAYLOAD };
            let packet = icmp(source, destination, &message).unwrap();
            let read = match (source, destination) {
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    icmp::parse_v6(source, destination, ipv6::parse(&packet).unwrap().1)
                }
                _ => icmp::parse_v4(ipv4::parse(&packet).unwrap().1),
            };
            assert_eq!(read, Some(message));
        }
    }

    #[test]
    fn two_families_make_no_packet() {
        let ((v4, _), (v6, _)) = (ends(false), ends(true));
        assert_eq!(ip(v4.ip(), v6.ip(), PROTOCOL_TCP, PAYLOAD), None);
        assert_eq!(tcp(v6, v4, Header::default(), PAYLOAD), None);
        let echo = Message::EchoRequest { ident: 1, sequence: 2, data: PAYLOAD };
        assert_eq!(icmp(v4.ip(), v6.ip(), &echo), None);
        assert!(icmp(v4.ip(), ends(false).1.ip(), &echo).is_some());
    }
}

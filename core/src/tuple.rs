//! The 4-tuple of a connection, and how it is read from packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::seq::SeqNum;
use crate::wire::checksum::Sum;
use crate::wire::{PROTOCOL_TCP, PROTOCOL_UDP, ipv4, ipv6, tcp, udp};

/// Both ends of a connection. IPv4 addresses are stored as IPv4-mapped IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FourTuple {
    pub(crate) local_address: Ipv6Addr,
    pub(crate) remote_address: Ipv6Addr,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
}

impl FourTuple {
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr) -> FourTuple {
        FourTuple::of(&local.ip(), local.port(), &remote.ip(), remote.port())
    }

    #[inline]
    pub(crate) fn of(local: &IpAddr, local_port: u16, remote: &IpAddr, remote_port: u16) -> FourTuple {
        FourTuple { local_address: mapped(local), remote_address: mapped(remote), local_port, remote_port }
    }

    /// Returns the tuple of two IPv4 hosts, with ports 0.
    #[inline]
    pub(crate) fn between_v4(local: Ipv4Addr, remote: Ipv4Addr) -> FourTuple {
        let (local, remote) = (local.into(), remote.into());
        FourTuple::of(&local, 0, &remote, 0)
    }

    /// Returns the tuple with the ports of a received segment.
    #[inline]
    pub(crate) fn with_ports_of(&self, segment: &[u8]) -> FourTuple {
        let [a, b, c, d] = segment.first_chunk().copied().unwrap_or_default();
        let (remote_port, local_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        FourTuple { local_port, remote_port, ..*self }
    }

    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::new(self.local_address.to_canonical(), self.local_port)
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.remote_address.to_canonical(), self.remote_port)
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        unmapped(self.local_address).is_some()
    }

    /// Returns the local and the remote address if they are IPv4.
    #[inline]
    pub(crate) fn ipv4(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        Some((unmapped(self.local_address)?, unmapped(self.remote_address)?))
    }

    /// Returns the sum of the pseudo-header for a segment of `length` bytes.
    #[inline]
    pub(crate) fn pseudo_header(&self, length: u32) -> Sum {
        self.pseudo_header_of(PROTOCOL_TCP, length)
    }

    /// Returns the sum of the pseudo-header for `length` bytes of a protocol. An IPv4-mapped address has the sum of its
    /// IPv4 address: its 0xffff is zero in ones' complement.
    #[inline]
    pub(crate) fn pseudo_header_of(&self, protocol: u8, length: u32) -> Sum {
        let mut sum = Sum::new();
        for address in [self.local_address, self.remote_address] {
            sum.add_u128(address.to_bits());
        }
        sum.add_u32(length);
        sum.add_u16(u16::from(protocol));
        sum
    }
}

const MAPPED: u128 = 0xffff << 32;

#[inline]
pub(crate) fn mapped(address: &IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => Ipv6Addr::from_bits(MAPPED | u128::from(v4.to_bits())),
        IpAddr::V6(v6) => *v6,
    }
}

/// Like `Ipv6Addr::to_ipv4_mapped`, without its byte-by-byte comparison.
#[inline]
fn unmapped(address: Ipv6Addr) -> Option<Ipv4Addr> {
    const PREFIX: [u8; 12] = *Ipv6Addr::from_bits(MAPPED).octets().first_chunk().unwrap();
    let octets = address.octets();
    let v4 = octets.last_chunk::<4>().filter(|_| octets.starts_with(&PREFIX))?;
    Some(Ipv4Addr::from(*v4))
}

/// Returns the addresses of an outgoing packet, with ports 0. `None` for a malformed packet.
pub(crate) fn ends_of(packet: &[u8]) -> Option<FourTuple> {
    if packet.first()? >> 4 == 4 {
        let octets = packet.get(12..20)?.first_chunk::<8>()?;
        let [a, b, c, d, e, f, g, h] = *octets;
        Some(FourTuple::between_v4(Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h)))
    } else {
        let source = Ipv6Addr::from(*packet.get(8..24)?.first_chunk::<16>()?);
        let destination = Ipv6Addr::from(*packet.get(24..40)?.first_chunk::<16>()?);
        Some(FourTuple::of(&source.into(), 0, &destination.into(), 0))
    }
}

/// The packet of ours that an error quotes (5927-2). Its source is the address at which the error arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quoted {
    /// A segment, by its flow and sequence number.
    Segment(FourTuple, SeqNum),
    /// A datagram of UDP, by its flow and length.
    Udp(FourTuple, u16),
}

pub(crate) fn quoted_packet(arrived_at: IpAddr, quoted: &[u8]) -> Option<Quoted> {
    let (source, destination, protocol, payload) = match arrived_at {
        IpAddr::V4(_) => {
            let (header, payload) = ipv4::parse_quoted(quoted)?;
            let whole = header.fragment_offset == 0;
            let protocol = if whole { header.protocol } else { return None };
            (IpAddr::V4(header.source), IpAddr::V4(header.destination), protocol, payload)
        }
        IpAddr::V6(_) => {
            let (header, payload) = ipv6::parse_quoted(quoted)?;
            if header.fragment.is_some_and(|fragment| fragment.offset > 0) {
                return None;
            }
            (IpAddr::V6(header.source), IpAddr::V6(header.destination), header.protocol, payload)
        }
    };
    if source != arrived_at {
        return None;
    }
    let tuple = |from: u16, to: u16| FourTuple::new((source, from).into(), (destination, to).into());
    match protocol {
        PROTOCOL_TCP => {
            let (from, to, seq) = tcp::parse_quoted(payload)?;
            Some(Quoted::Segment(tuple(from, to), seq))
        }
        PROTOCOL_UDP => {
            let (header, len) = udp::parse_quoted(payload)?;
            Some(Quoted::Udp(tuple(header.source_port, header.destination_port), len))
        }
        _ => None,
    }
}

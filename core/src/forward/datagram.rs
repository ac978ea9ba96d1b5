//! Datagrams and echo requests to addresses of other hosts, as their forwarder sees them.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::Reject;
use crate::tuple::FourTuple;
use crate::udp::{Fields, checksum_of};
use crate::wire::icmp::{self, ErrorKind, Message};
use crate::wire::{Ecn, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_UDP, ipv4, ipv6, udp};

/// TTL or hop limit of a packet that is made, not taken (`ip_default_ttl`).
const TTL: u8 = 64;

/// The most payload that a quotation needs: an ICMP error is no longer than the least MTU of IPv6.
const QUOTED: usize = 1280;

/// A datagram of UDP on its way through a forwarder.
///
/// ```
/// use steadfast_core::UdpPacket;
///
/// let (guest, server) = ("10.9.0.2:4000".parse().unwrap(), "198.51.100.7:53".parse().unwrap());
/// let question = UdpPacket::new(guest, server, &b"?"[..]);
/// let answer = question.answer(&b"!"[..]);
/// assert_eq!((answer.source, answer.destination), (server, guest));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UdpPacket {
    /// Who sends it.
    pub source: SocketAddr,
    /// Who is to receive it.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// No router may fragment it. Always so over IPv6, unless it came in fragments.
    pub dont_fragment: bool,
    /// The bytes behind the header.
    pub payload: Bytes,
}

impl UdpPacket {
    /// Returns a datagram with a TTL of 64, that routers may fragment.
    pub fn new(source: SocketAddr, destination: SocketAddr, payload: impl Into<Bytes>) -> UdpPacket {
        UdpPacket { source, destination, ttl: TTL, tos: 0, dont_fragment: false, payload: payload.into() }
    }

    /// Returns an answer of the destination, with a TTL of 64.
    pub fn answer(&self, payload: impl Into<Bytes>) -> UdpPacket {
        UdpPacket::new(self.destination, self.source, payload)
    }

    /// Returns the start of its packet, for an ICMP error to quote: the headers, and as much of the payload as an error
    /// can hold. The identification of the IPv4 header is not kept, and is 0.
    pub fn quote(&self) -> Vec<u8> {
        let tuple = FourTuple::new(self.source, self.destination);
        let len = self.payload.len().min(65_535 - udp::HEADER_LEN);
        let header = udp::Header {
            source_port: self.source.port(),
            destination_port: self.destination.port(),
            checksum: checksum_of(&tuple, &self.payload[..len]),
        };
        let mut upper = vec![0; udp::HEADER_LEN];
        header.emit(len, &mut upper);
        upper.extend(&self.payload[..len.min(QUOTED)]);
        let fields = Fields { ttl: self.ttl, tos: self.tos, dont_fragment: self.dont_fragment };
        quote(&tuple, PROTOCOL_UDP, fields, udp::HEADER_LEN + len, &upper)
    }
}

/// An ICMP echo request on its way through a forwarder, or the reply to one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Echo {
    /// Who sends it.
    pub source: IpAddr,
    /// Who is to receive it.
    pub destination: IpAddr,
    /// Chosen by the sender of the request, with `sequence`.
    pub ident: u16,
    /// See `ident`.
    pub sequence: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// No router may fragment it. Always so over IPv6, unless it came in fragments.
    pub dont_fragment: bool,
    /// The bytes that the reply returns.
    pub data: Bytes,
}

impl Echo {
    /// Returns an echo with a TTL of 64, that routers may fragment.
    pub fn new(
        source: IpAddr,
        destination: IpAddr,
        ident: u16,
        sequence: u16,
        data: impl Into<Bytes>,
    ) -> Echo {
        let data = data.into();
        Echo { source, destination, ident, sequence, ttl: TTL, tos: 0, dont_fragment: false, data }
    }

    /// Returns the reply of the destination: the same data, with the same TOS and a TTL of 64.
    pub fn reply(&self) -> Echo {
        let Echo { source, destination, ident, sequence, .. } = *self;
        Echo { tos: self.tos, ..Echo::new(destination, source, ident, sequence, self.data.clone()) }
    }

    /// Returns the start of the packet of a request, as [`UdpPacket::quote`] does.
    pub fn quote(&self) -> Vec<u8> {
        let tuple = FourTuple::new((self.source, 0).into(), (self.destination, 0).into());
        let Echo { ident, sequence, .. } = *self;
        let message = Message::EchoRequest { ident, sequence, data: &self.data };
        let mut upper = self.emit(&message).unwrap_or_default();
        let len = upper.len();
        upper.truncate(icmp::HEADER_LEN + QUOTED);
        let protocol = if tuple.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
        let fields = Fields { ttl: self.ttl, tos: self.tos, dont_fragment: self.dont_fragment };
        quote(&tuple, protocol, fields, len, &upper)
    }

    /// Returns the bytes of the ICMP message. `None`: addresses of two families.
    pub(crate) fn emit(&self, message: &Message<'_>) -> Option<Vec<u8>> {
        let mut bytes = vec![0; message.emitted_len()];
        match (self.source, self.destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => icmp::emit_v4(message, &mut bytes)?,
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                icmp::emit_v6(source, destination, message, &mut bytes)?
            }
            _ => return None,
        };
        Some(bytes)
    }
}

/// Writes the IP header of a packet with `len` bytes behind it, of which `start` is the beginning.
fn quote(tuple: &FourTuple, protocol: u8, fields: Fields, len: usize, start: &[u8]) -> Vec<u8> {
    let Fields { ttl, tos, dont_fragment } = fields;
    let (dscp, ecn) = (tos >> 2, Ecn::from_bits(tos));
    let mut packet = Vec::new();
    match tuple.ipv4() {
        Some((source, destination)) => {
            packet.resize(ipv4::HEADER_LEN, 0);
            let header = ipv4::Header::new(source, destination, protocol);
            let len = len.min(usize::from(u16::MAX) - ipv4::HEADER_LEN);
            ipv4::Header { ttl, dscp, ecn, dont_fragment, ..header }.emit(len, &mut packet);
        }
        None => {
            packet.resize(ipv6::HEADER_LEN, 0);
            let header = ipv6::Header::new(tuple.local_address, tuple.remote_address, protocol);
            ipv6::Header { hop_limit: ttl, dscp, ecn, ..header }.emit(len, &mut packet);
        }
    }
    packet.extend(start);
    packet
}

impl Reject {
    /// The ICMP error by which a datagram of UDP is refused. Nobody listens there: that is an error, not a RST.
    pub(crate) fn of_datagram(self) -> Option<ErrorKind> {
        if self == Reject::Reset { Some(ErrorKind::PortUnreachable) } else { self.icmp() }
    }

    /// The ICMP error by which an echo request is refused. It has no port.
    pub(crate) fn of_echo(self) -> Option<ErrorKind> {
        match self {
            Reject::Reset | Reject::PortUnreachable => Some(ErrorKind::HostUnreachable),
            how => how.icmp(),
        }
    }
}

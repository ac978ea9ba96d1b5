//! A packet's bytes: the parts that a timeline needs.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use steadfast_core::wire::icmp::{self, ErrorKind, Message};
use steadfast_core::wire::tcp::Header;
use steadfast_core::wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, ipv6, udp};

use crate::event::Datagram;

/// An IP packet and the header of its payload.
#[derive(Clone, Debug)]
pub struct View {
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// Length of the IP header.
    pub ip_len: usize,
    /// The payload.
    pub kind: Kind,
}

/// The payload of a packet.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A TCP segment.
    Tcp {
        /// Its header.
        header: Header,
        /// Where its payload lies in the packet.
        payload: Range<usize>,
    },
    /// A UDP datagram.
    Udp {
        /// Its header.
        header: udp::Header,
        /// The length in its header, which counts the header too.
        length: u16,
        /// Where its payload lies in the packet.
        payload: Range<usize>,
    },
    /// An ICMP message.
    Icmp,
    /// A fragment.
    Fragment(Fragment),
    /// Something else.
    Other,
}

/// A fragment of a packet.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// The protocol of the whole packet's payload.
    pub protocol: u8,
    /// Where its data belongs, in bytes.
    pub offset: usize,
    /// More fragments follow.
    pub more: bool,
    /// Where its data lies in the packet.
    pub data: Range<usize>,
}

impl Fragment {
    /// Reads the place of a fragment; `None` if the packet is whole.
    fn of(packet: &[u8], ip_len: usize) -> Option<Fragment> {
        let (place, protocol, begin) = if packet[0] >> 4 == 4 {
            (u16::from_be_bytes([packet[6], packet[7]]), packet[9], ip_len)
        } else {
            let header = packet.get(ip_len..ip_len + ipv6::FRAGMENT_LEN)?;
            if packet[6] != ipv6::FRAGMENT {
                return None;
            }
            // The units of both versions are eight bytes, and only IPv6 has the flag at the lowest bit.
            let place = u16::from_be_bytes([header[2], header[3]]);
            (place >> 3 | (place & 1) << 13, header[0], ip_len + ipv6::FRAGMENT_LEN)
        };
        let (offset, more) = (usize::from(place & 0x1fff) * 8, place >> 13 & 1 == 1);
        let whole = packet[0] >> 4 == 4 && offset == 0 && !more;
        let data = begin.min(packet.len())..packet.len();
        (!whole).then_some(Fragment { protocol, offset, more, data })
    }
}

impl View {
    /// Parses a packet. `None` if it is not an IP packet.
    pub fn new(packet: &[u8]) -> Option<View> {
        let (source, destination, ip_len, protocol) = match packet.first()? >> 4 {
            4 => {
                let head = packet.first_chunk::<20>()?;
                let address = |at: usize| IpAddr::from([head[at], head[at + 1], head[at + 2], head[at + 3]]);
                (address(12), address(16), usize::from(head[0] & 15) * 4, head[9])
            }
            6 => {
                let (head, _) = packet.split_first_chunk::<40>()?;
                let address =
                    |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(head.get(at..at + 16)?).ok()?));
                (address(8)?, address(24)?, 40, head[6])
            }
            _ => return None,
        };
        let kind = match (Fragment::of(packet, ip_len), protocol, packet.get(ip_len..)) {
            (Some(fragment), ..) => Kind::Fragment(fragment),
            (None, PROTOCOL_TCP, Some(segment)) => match Header::parse(segment) {
                Ok((header, payload)) => {
                    Kind::Tcp { header, payload: packet.len() - payload.len()..packet.len() }
                }
                Err(_) => Kind::Other,
            },
            (None, PROTOCOL_UDP, Some(bytes)) => match udp::parse_quoted(bytes) {
                Some((header, length)) => {
                    Kind::Udp { header, length, payload: ip_len + udp::HEADER_LEN..packet.len() }
                }
                None => Kind::Other,
            },
            (None, PROTOCOL_ICMP | PROTOCOL_ICMPV6, _) => Kind::Icmp,
            _ => Kind::Other,
        };
        Some(View { source, destination, ip_len, kind })
    }

    /// Source and destination of a TCP segment or a UDP datagram.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let (source, destination) = match &self.kind {
            Kind::Tcp { header, .. } => (header.source_port, header.destination_port),
            Kind::Udp { header, .. } => (header.source_port, header.destination_port),
            _ => return None,
        };
        Some((SocketAddr::new(self.source, source), SocketAddr::new(self.destination, destination)))
    }

    /// The UDP datagram in the packet of this view, or the fragment of one.
    pub fn datagram(&self, packet: &[u8]) -> Option<Datagram> {
        let is_ipv4 = self.source.is_ipv4();
        let of = |header: &udp::Header, length: u16| Datagram {
            is_ipv4,
            ports: Some((header.source_port, header.destination_port)),
            len: usize::from(length).saturating_sub(udp::HEADER_LEN),
        };
        match &self.kind {
            Kind::Udp { header, length, .. } => Some(of(header, *length)),
            Kind::Fragment(Fragment { protocol: PROTOCOL_UDP, offset: 0, data, .. }) => {
                udp::parse_quoted(&packet[data.clone()]).map(|(header, length)| of(&header, length))
            }
            Kind::Fragment(Fragment { protocol: PROTOCOL_UDP, data, .. }) => {
                Some(Datagram { is_ipv4, ports: None, len: data.len() })
            }
            _ => None,
        }
    }
}

/// Describes a packet that is not TCP, as tcpdump does; empty for a TCP segment.
pub fn text(packet: &[u8]) -> String {
    let Some(view) = View::new(packet) else { return "ip".to_owned() };
    match &view.kind {
        Kind::Tcp { .. } => String::new(),
        Kind::Udp { length, payload, .. } => {
            let length = usize::from(*length).saturating_sub(udp::HEADER_LEN);
            if length > payload.len() {
                return format!("UDP, bad length {length} > {}", payload.len());
            }
            format!("UDP, length {length}")
        }
        Kind::Fragment(Fragment { offset, data, .. }) => {
            let first = view.datagram(packet).filter(|datagram| datagram.ports.is_some());
            let first = first.map_or(String::new(), |datagram| format!(" UDP, length {}", datagram.len));
            format!("frag ({offset}|{}){first}", data.len())
        }
        Kind::Icmp => icmp_text(packet),
        Kind::Other => "ip".to_owned(),
    }
}

/// Describes an ICMP packet.
pub fn icmp_text(packet: &[u8]) -> String {
    let Some(view) = View::new(packet) else { return "ip".to_owned() };
    let body = &packet[view.ip_len.min(packet.len())..];
    let message = match (view.source, view.destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => icmp::parse_v6(source, destination, body),
        _ => icmp::parse_v4(body),
    };
    match message {
        Some(Message::EchoRequest { .. }) => "icmp echo request".to_owned(),
        Some(Message::EchoReply { .. }) => "icmp echo reply".to_owned(),
        Some(Message::Error { kind: ErrorKind::PacketTooBig { mtu }, .. }) => {
            format!("icmp too big, mtu {mtu}")
        }
        Some(Message::Error { kind, .. }) => format!("icmp {}", error_name(kind)),
        Some(Message::Other) => "icmp".to_owned(),
        None => "icmp, broken".to_owned(),
    }
}

fn error_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NetworkUnreachable => "net unreachable",
        ErrorKind::HostUnreachable => "host unreachable",
        ErrorKind::ProtocolUnreachable => "protocol unreachable",
        ErrorKind::PortUnreachable => "port unreachable",
        ErrorKind::PacketTooBig { .. } => "too big",
        ErrorKind::SourceRouteFailed => "source route failed",
        ErrorKind::AdminProhibited => "admin prohibited",
        ErrorKind::TimeExceeded => "time exceeded",
        ErrorKind::ReassemblyTimeExceeded => "reassembly time exceeded",
        ErrorKind::ParameterProblem => "parameter problem",
        ErrorKind::SourceQuench => "source quench",
        ErrorKind::OtherUnreachable => "unreachable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::wire::{build, ipv4};

    /// A datagram from port 5000 to port 53, and its length in the header.
    fn datagram(payload: usize, length: u16) -> Vec<u8> {
        let mut bytes = vec![0; udp::HEADER_LEN + payload];
        udp::Header { source_port: 5000, destination_port: 53, checksum: 0 }.emit(payload, &mut bytes);
        bytes[4..6].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    #[test]
    fn datagrams_and_their_fragments_are_shown_as_tcpdump_shows_them() {
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let header = ipv4::Header::new(a, b, PROTOCOL_UDP);
        let of = |header: &ipv4::Header, bytes: &[u8]| {
            let packet = build::ipv4(header, bytes);
            (text(&packet), View::new(&packet).unwrap().datagram(&packet))
        };
        let known = |len| Some(Datagram { is_ipv4: true, ports: Some((5000, 53)), len });
        assert_eq!(of(&header, &datagram(100, 108)), ("UDP, length 100".to_owned(), known(100)));
        assert_eq!(of(&header, &datagram(100, 90)), ("UDP, length 82".to_owned(), known(82)));
        assert_eq!(of(&header, &datagram(100, 200)), ("UDP, bad length 192 > 100".to_owned(), known(192)));
        let first = ipv4::Header { more_fragments: true, ..header };
        assert_eq!(
            of(&first, &datagram(100, 2008)),
            ("frag (0|108) UDP, length 2000".to_owned(), known(2000))
        );
        let last = ipv4::Header { fragment_offset: 1480, ..header };
        let rest = Some(Datagram { is_ipv4: true, ports: None, len: 108 });
        assert_eq!(of(&last, &datagram(100, 108)), ("frag (1480|108)".to_owned(), rest));
        assert_eq!(of(&header, &[0; 7]), ("ip".to_owned(), None));
    }

    #[test]
    fn a_fragment_of_ipv6_has_a_header_of_its_own() {
        let fragment = ipv6::Fragment { identification: 7, offset: 1448, more: true };
        let mut bytes = vec![0; ipv6::FRAGMENT_LEN];
        fragment.emit(PROTOCOL_UDP, &mut bytes);
        bytes.extend(datagram(100, 108));
        let (a, b) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let packet = build::ipv6(&ipv6::Header::new(a, b, ipv6::FRAGMENT), &bytes);
        assert_eq!(text(&packet), "frag (1448|108)");
        // The header is cut off.
        assert_eq!(text(&packet[..44]), "ip");
    }
}

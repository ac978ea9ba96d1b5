//! A packet's bytes: the parts that a timeline needs.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use steadfast_core::wire::icmp::{self, ErrorKind, Message};
use steadfast_core::wire::tcp::Header;
use steadfast_core::wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP};

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
    /// An ICMP message.
    Icmp,
    /// Something else, or a fragment.
    Other,
}

impl View {
    /// Parses a packet. `None` if it is not an IP packet.
    pub fn new(packet: &[u8]) -> Option<View> {
        let (source, destination, ip_len, protocol, whole) = match packet.first()? >> 4 {
            4 => {
                let head = packet.first_chunk::<20>()?;
                let address = |at: usize| IpAddr::from([head[at], head[at + 1], head[at + 2], head[at + 3]]);
                let whole = u16::from_be_bytes([head[6], head[7]]) & 0x3fff == 0;
                (address(12), address(16), usize::from(head[0] & 15) * 4, head[9], whole)
            }
            6 => {
                let (head, _) = packet.split_first_chunk::<40>()?;
                let address =
                    |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(head.get(at..at + 16)?).ok()?));
                (address(8)?, address(24)?, 40, head[6], true)
            }
            _ => return None,
        };
        let kind = match (protocol, packet.get(ip_len..)) {
            (PROTOCOL_TCP, Some(segment)) if whole => match Header::parse(segment) {
                Ok((header, payload)) => {
                    Kind::Tcp { header, payload: packet.len() - payload.len()..packet.len() }
                }
                Err(_) => Kind::Other,
            },
            (PROTOCOL_ICMP | PROTOCOL_ICMPV6, _) => Kind::Icmp,
            _ => Kind::Other,
        };
        Some(View { source, destination, ip_len, kind })
    }

    /// Source and destination of a TCP segment.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        match &self.kind {
            Kind::Tcp { header, .. } => Some((
                SocketAddr::new(self.source, header.source_port),
                SocketAddr::new(self.destination, header.destination_port),
            )),
            _ => None,
        }
    }
}

/// Describes a packet that is not TCP; empty for a TCP segment.
pub fn text(packet: &[u8]) -> String {
    match View::new(packet).map(|view| view.kind) {
        Some(Kind::Tcp { .. }) => String::new(),
        Some(Kind::Icmp) => icmp_text(packet),
        Some(Kind::Other) | None => "ip".to_owned(),
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

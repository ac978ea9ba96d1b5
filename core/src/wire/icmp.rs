//! ICMP for IPv4 (RFC 792, RFC 1122 §3.2.2, RFC 1191 §4) and for IPv6 (RFC 4443), as far as a TCP needs them:
//! echo, and the errors that quote a packet.

use super::checksum::{Sum, pseudo_header};
use super::{PROTOCOL_ICMPV6, u16_at, u32_at};
use std::net::{IpAddr, Ipv6Addr};

/// Length of type, code, checksum and the four bytes after, which every message here has.
pub const HEADER_LEN: usize = 8;

const V4_ECHO_REPLY: u8 = 0;
const V4_UNREACHABLE: u8 = 3;
const V4_SOURCE_QUENCH: u8 = 4;
const V4_ECHO_REQUEST: u8 = 8;
const V4_TIME_EXCEEDED: u8 = 11;
const V4_PARAMETER_PROBLEM: u8 = 12;

const V6_UNREACHABLE: u8 = 1;
const V6_PACKET_TOO_BIG: u8 = 2;
const V6_TIME_EXCEEDED: u8 = 3;
const V6_PARAMETER_PROBLEM: u8 = 4;
const V6_ECHO_REQUEST: u8 = 128;
const V6_ECHO_REPLY: u8 = 129;

/// Where the next header field lies in an IPv6 packet without extension headers.
const V6_NEXT_HEADER_AT: u32 = 6;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A ping.
    EchoRequest {
        /// Chosen by the sender, together with `sequence`.
        ident: u16,
        /// See `ident`.
        sequence: u16,
        /// Any data, to be sent back.
        data: &'a [u8],
    },
    /// The answer to a ping: all fields are those of the request.
    EchoReply {
        /// As in the request.
        ident: u16,
        /// As in the request.
        sequence: u16,
        /// As in the request.
        data: &'a [u8],
    },
    /// Something happened to a packet that this host sent, or so it says.
    Error {
        /// What happened.
        kind: ErrorKind,
        /// The packet from its IP header on, possibly cut off.
        quoted: &'a [u8],
    },
    /// Anything else, well-formed or not. Never emitted.
    Other,
}

/// What an error message says, in terms of both versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No route, or the network is unknown, or not for this type of service.
    NetworkUnreachable,
    /// The host does not answer, or is unknown, or not for this type of service.
    HostUnreachable,
    /// The host does not speak the protocol.
    ProtocolUnreachable,
    /// Nobody listens at the port.
    PortUnreachable,
    /// A router could not forward it whole (RFC 1191, RFC 8201).
    PacketTooBig {
        /// The next hop's MTU in bytes; 0 where an old router left it out.
        mtu: u32,
    },
    /// The source route could not be followed.
    SourceRouteFailed,
    /// Forbidden by policy.
    AdminProhibited,
    /// The hop limit ran out on the way.
    TimeExceeded,
    /// The host waited too long for other fragments.
    ReassemblyTimeExceeded,
    /// Some field of the header made no sense.
    ParameterProblem,
    /// IPv4 only, deprecated (RFC 6633).
    SourceQuench,
    /// Unreachable for a reason that has no name here. Never emitted.
    OtherUnreachable,
}

/// The message in the payload of an IPv4 packet; `None` where it is too short or its checksum is wrong.
pub fn parse_v4(payload: &[u8]) -> Option<Message<'_>> {
    let (head, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
    let mut sum = Sum::new();
    sum.add_bytes(payload);
    if sum.finish() != 0 {
        return None;
    }
    let [kind, code, ..] = *head;
    let error = match kind {
        V4_ECHO_REQUEST | V4_ECHO_REPLY => return Some(echo(kind == V4_ECHO_REQUEST, head, rest)),
        V4_UNREACHABLE => match code {
            0 | 6 | 8 | 11 => ErrorKind::NetworkUnreachable,
            1 | 7 | 12 => ErrorKind::HostUnreachable,
            2 => ErrorKind::ProtocolUnreachable,
            3 => ErrorKind::PortUnreachable,
            4 => ErrorKind::PacketTooBig { mtu: u32::from(u16_at(head, 6)) },
            5 => ErrorKind::SourceRouteFailed,
            9 | 10 | 13 => ErrorKind::AdminProhibited,
            _ => ErrorKind::OtherUnreachable,
        },
        V4_SOURCE_QUENCH => ErrorKind::SourceQuench,
        V4_TIME_EXCEEDED if code == 0 => ErrorKind::TimeExceeded,
        V4_TIME_EXCEEDED if code == 1 => ErrorKind::ReassemblyTimeExceeded,
        V4_PARAMETER_PROBLEM => ErrorKind::ParameterProblem,
        _ => return Some(Message::Other),
    };
    Some(Message::Error { kind: error, quoted: rest })
}

/// The message in the payload of an IPv6 packet between these addresses; `None` where it is too short or its
/// checksum is wrong.
pub fn parse_v6(source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Option<Message<'_>> {
    let (head, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
    let mut sum = pseudo_header_v6(source, destination, payload.len())?;
    sum.add_bytes(payload);
    if sum.finish() != 0 {
        return None;
    }
    let [kind, code, ..] = *head;
    let error = match kind {
        V6_ECHO_REQUEST | V6_ECHO_REPLY => return Some(echo(kind == V6_ECHO_REQUEST, head, rest)),
        V6_UNREACHABLE => match code {
            0 | 2 => ErrorKind::NetworkUnreachable,
            1 | 5 | 6 => ErrorKind::AdminProhibited,
            3 => ErrorKind::HostUnreachable,
            4 => ErrorKind::PortUnreachable,
            7 => ErrorKind::SourceRouteFailed,
            _ => ErrorKind::OtherUnreachable,
        },
        V6_PACKET_TOO_BIG => ErrorKind::PacketTooBig { mtu: u32_at(head, 4) },
        V6_TIME_EXCEEDED if code == 0 => ErrorKind::TimeExceeded,
        V6_TIME_EXCEEDED if code == 1 => ErrorKind::ReassemblyTimeExceeded,
        // An unrecognized next header is what IPv4 calls an unreachable protocol.
        V6_PARAMETER_PROBLEM if code == 1 => ErrorKind::ProtocolUnreachable,
        V6_PARAMETER_PROBLEM => ErrorKind::ParameterProblem,
        _ => return Some(Message::Other),
    };
    Some(Message::Error { kind: error, quoted: rest })
}

/// Writes `message` with its checksum for IPv4 and returns its length in bytes. `None`, and nothing written,
/// where the buffer is too small or IPv4 cannot say it. An MTU above 65 535 is written as that.
pub fn emit_v4(message: &Message<'_>, buffer: &mut [u8]) -> Option<usize> {
    let (head, rest) = match *message {
        Message::EchoRequest { ident, sequence, data } => (echo_head(V4_ECHO_REQUEST, ident, sequence), data),
        Message::EchoReply { ident, sequence, data } => (echo_head(V4_ECHO_REPLY, ident, sequence), data),
        Message::Error { kind, quoted } => (error_head_v4(kind)?, quoted),
        Message::Other => return None,
    };
    write(Sum::new(), head, rest, buffer)
}

/// As [`emit_v4`], for IPv6 between these addresses.
pub fn emit_v6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    message: &Message<'_>,
    buffer: &mut [u8],
) -> Option<usize> {
    let (head, rest) = match *message {
        Message::EchoRequest { ident, sequence, data } => (echo_head(V6_ECHO_REQUEST, ident, sequence), data),
        Message::EchoReply { ident, sequence, data } => (echo_head(V6_ECHO_REPLY, ident, sequence), data),
        Message::Error { kind, quoted } => (error_head_v6(kind)?, quoted),
        Message::Other => return None,
    };
    let len = rest.len().checked_add(HEADER_LEN)?;
    write(pseudo_header_v6(source, destination, len)?, head, rest, buffer)
}

fn echo<'a>(request: bool, head: &[u8; HEADER_LEN], data: &'a [u8]) -> Message<'a> {
    let (ident, sequence) = (u16_at(head, 4), u16_at(head, 6));
    if request {
        Message::EchoRequest { ident, sequence, data }
    } else {
        Message::EchoReply { ident, sequence, data }
    }
}

fn echo_head(kind: u8, ident: u16, sequence: u16) -> [u8; HEADER_LEN] {
    head(kind, 0, u32::from(ident) << 16 | u32::from(sequence))
}

fn error_head_v4(kind: ErrorKind) -> Option<[u8; HEADER_LEN]> {
    Some(match kind {
        ErrorKind::NetworkUnreachable => head(V4_UNREACHABLE, 0, 0),
        ErrorKind::HostUnreachable => head(V4_UNREACHABLE, 1, 0),
        ErrorKind::ProtocolUnreachable => head(V4_UNREACHABLE, 2, 0),
        ErrorKind::PortUnreachable => head(V4_UNREACHABLE, 3, 0),
        ErrorKind::PacketTooBig { mtu } => head(V4_UNREACHABLE, 4, mtu.min(u32::from(u16::MAX))),
        ErrorKind::SourceRouteFailed => head(V4_UNREACHABLE, 5, 0),
        ErrorKind::AdminProhibited => head(V4_UNREACHABLE, 13, 0),
        ErrorKind::TimeExceeded => head(V4_TIME_EXCEEDED, 0, 0),
        ErrorKind::ReassemblyTimeExceeded => head(V4_TIME_EXCEEDED, 1, 0),
        ErrorKind::ParameterProblem => head(V4_PARAMETER_PROBLEM, 0, 0),
        ErrorKind::SourceQuench => head(V4_SOURCE_QUENCH, 0, 0),
        ErrorKind::OtherUnreachable => return None,
    })
}

fn error_head_v6(kind: ErrorKind) -> Option<[u8; HEADER_LEN]> {
    Some(match kind {
        ErrorKind::NetworkUnreachable => head(V6_UNREACHABLE, 0, 0),
        ErrorKind::AdminProhibited => head(V6_UNREACHABLE, 1, 0),
        ErrorKind::HostUnreachable => head(V6_UNREACHABLE, 3, 0),
        ErrorKind::PortUnreachable => head(V6_UNREACHABLE, 4, 0),
        ErrorKind::SourceRouteFailed => head(V6_UNREACHABLE, 7, 0),
        ErrorKind::PacketTooBig { mtu } => head(V6_PACKET_TOO_BIG, 0, mtu),
        ErrorKind::TimeExceeded => head(V6_TIME_EXCEEDED, 0, 0),
        ErrorKind::ReassemblyTimeExceeded => head(V6_TIME_EXCEEDED, 1, 0),
        ErrorKind::ParameterProblem => head(V6_PARAMETER_PROBLEM, 0, 0),
        ErrorKind::ProtocolUnreachable => head(V6_PARAMETER_PROBLEM, 1, V6_NEXT_HEADER_AT),
        ErrorKind::SourceQuench | ErrorKind::OtherUnreachable => return None,
    })
}

fn head(kind: u8, code: u8, word: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = word.to_be_bytes();
    [kind, code, 0, 0, a, b, c, d]
}

fn pseudo_header_v6(source: Ipv6Addr, destination: Ipv6Addr, len: usize) -> Option<Sum> {
    let len = u32::try_from(len).ok()?;
    Some(pseudo_header(IpAddr::V6(source), IpAddr::V6(destination), PROTOCOL_ICMPV6, len))
}

/// Puts head and rest together, with the checksum that starts from `sum`.
fn write(mut sum: Sum, head: [u8; HEADER_LEN], rest: &[u8], buffer: &mut [u8]) -> Option<usize> {
    let len = rest.len().checked_add(HEADER_LEN)?;
    let (out, body) = buffer.get_mut(..len)?.split_first_chunk_mut::<HEADER_LEN>()?;
    *out = head;
    sum.add_bytes(&head);
    sum.copy_and_add(body, rest);
    out[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    Some(len)
}

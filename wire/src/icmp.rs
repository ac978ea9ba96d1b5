//! ICMP for IPv4 (RFC 792, RFC 1122 §3.2.2, RFC 1191 §4) and for IPv6 (RFC 4443), as far as TCP needs it: echo, and the
//! errors that quote a packet.

use super::checksum::{Sum, pseudo_header};
use super::{PROTOCOL_ICMPV6, ipv6, u16_at, u32_at};
use std::net::{IpAddr, Ipv6Addr};

/// Length in bytes of type, code, checksum and the next four bytes, which every message here has.
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

/// An ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// An echo request.
    EchoRequest {
        /// Chosen by the sender, together with `sequence`.
        ident: u16,
        /// See `ident`.
        sequence: u16,
        /// Arbitrary data, returned in the reply.
        data: &'a [u8],
    },
    /// An echo reply. All fields are those of the request.
    EchoReply {
        /// As in the request.
        ident: u16,
        /// As in the request.
        sequence: u16,
        /// As in the request.
        data: &'a [u8],
    },
    /// An error that claims to be about a packet of this host.
    Error {
        /// The kind of error.
        kind: ErrorKind,
        /// The quoted packet from its IP header on, possibly truncated.
        quoted: &'a [u8],
    },
    /// Anything else, well-formed or not. Never emitted.
    Other,
}

impl Message<'_> {
    /// Returns the length of the emitted message, in bytes.
    pub fn emitted_len(&self) -> usize {
        HEADER_LEN
            + match self {
                Message::EchoRequest { data, .. } | Message::EchoReply { data, .. } => data.len(),
                Message::Error { quoted, .. } => quoted.len(),
                Message::Other => 0,
            }
    }
}

/// The meaning of an error message, common to both versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No route, or the network is unknown or unreachable for this type of service.
    NetworkUnreachable,
    /// The host does not answer, is unknown, or is unreachable for this type of service.
    HostUnreachable,
    /// The host does not support the protocol.
    ProtocolUnreachable,
    /// No socket is bound to the port.
    PortUnreachable,
    /// The packet exceeds the MTU of the next hop (RFC 1191, RFC 8201).
    PacketTooBig {
        /// The next hop's MTU in bytes; 0 if an old router left it out.
        mtu: u32,
    },
    /// The source route failed.
    SourceRouteFailed,
    /// Prohibited by policy.
    AdminProhibited,
    /// The hop limit was exceeded in transit.
    TimeExceeded,
    /// Fragment reassembly timed out at the host.
    ReassemblyTimeExceeded,
    /// A header field is invalid.
    ParameterProblem,
    /// IPv4 only, deprecated (RFC 6633).
    SourceQuench,
    /// Unreachable for a reason that has no variant here. Never emitted.
    OtherUnreachable,
}

/// Parses the payload of an IPv4 packet. Returns `None` if it is too short or its checksum is wrong.
pub fn parse_v4(payload: &[u8]) -> Option<Message<'_>> {
    let (head, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
    if !Sum::new().verifies(payload) {
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

/// Parses the payload of an IPv6 packet between these addresses. Returns `None` if it is too short or its checksum is
/// wrong.
pub fn parse_v6(source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Option<Message<'_>> {
    let (head, rest) = payload.split_first_chunk::<HEADER_LEN>()?;
    if !pseudo_header_v6(source, destination, payload.len())?.verifies(payload) {
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
        // IPv4 calls an unrecognized next header an unreachable protocol.
        V6_PARAMETER_PROBLEM if code == 1 => ErrorKind::ProtocolUnreachable,
        V6_PARAMETER_PROBLEM => ErrorKind::ParameterProblem,
        _ => return Some(Message::Other),
    };
    Some(Message::Error { kind: error, quoted: rest })
}

/// Writes `message` with its checksum for IPv4 and returns its length in bytes. Returns `None` and writes nothing if
/// the buffer is too small or IPv4 has no such message. An MTU above 65 535 is written as 65 535.
pub fn emit_v4(message: &Message<'_>, buffer: &mut [u8]) -> Option<usize> {
    let (head, rest) = match *message {
        Message::EchoRequest { ident, sequence, data } => (echo_head(V4_ECHO_REQUEST, ident, sequence), data),
        Message::EchoReply { ident, sequence, data } => (echo_head(V4_ECHO_REPLY, ident, sequence), data),
        Message::Error { kind, quoted } => (error_head_v4(kind)?, quoted),
        Message::Other => return None,
    };
    write(Sum::new(), head, rest, buffer)
}

/// Like [`emit_v4`], for IPv6 between these addresses.
pub fn emit_v6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    message: &Message<'_>,
    buffer: &mut [u8],
) -> Option<usize> {
    let (head, rest) = match *message {
        Message::EchoRequest { ident, sequence, data } => (echo_head(V6_ECHO_REQUEST, ident, sequence), data),
        Message::EchoReply { ident, sequence, data } => (echo_head(V6_ECHO_REPLY, ident, sequence), data),
        Message::Error { kind, quoted } => (error_head_v6(kind, quoted)?, quoted),
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

fn error_head_v6(kind: ErrorKind, quoted: &[u8]) -> Option<[u8; HEADER_LEN]> {
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
        // The pointer is the offset of the field with the unknown protocol (RFC 4443 §3.4).
        ErrorKind::ProtocolUnreachable => head(V6_PARAMETER_PROBLEM, 1, ipv6::protocol_at(quoted) as u32),
        ErrorKind::SourceQuench | ErrorKind::OtherUnreachable => return None,
    })
}

fn head(kind: u8, code: u8, word: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = word.to_be_bytes();
    [kind, code, 0, 0, a, b, c, d]
}

pub(super) fn pseudo_header_v6(source: Ipv6Addr, destination: Ipv6Addr, len: usize) -> Option<Sum> {
    let len = u32::try_from(len).ok()?;
    Some(pseudo_header(IpAddr::V6(source), IpAddr::V6(destination), PROTOCOL_ICMPV6, len))
}

/// Writes `head` and `rest` with a checksum that starts from `sum`.
fn write(mut sum: Sum, head: [u8; HEADER_LEN], rest: &[u8], buffer: &mut [u8]) -> Option<usize> {
    let len = rest.len().checked_add(HEADER_LEN)?;
    let (out, body) = buffer.get_mut(..len)?.split_first_chunk_mut::<HEADER_LEN>()?;
    *out = head;
    sum.add_bytes(&head);
    sum.copy_and_add(body, rest);
    out[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

    fn v4(kind: u8, code: u8, word: u32) -> Vec<u8> {
        let mut buffer = [0; 12];
        write(Sum::new(), head(kind, code, word), b"quot", &mut buffer).unwrap();
        buffer.to_vec()
    }

    fn v6(kind: u8, code: u8, word: u32) -> Vec<u8> {
        let mut buffer = [0; 12];
        write(pseudo_header_v6(A, B, 12).unwrap(), head(kind, code, word), b"quot", &mut buffer).unwrap();
        buffer.to_vec()
    }

    fn error(kind: ErrorKind) -> Message<'static> {
        Message::Error { kind, quoted: b"quot" }
    }

    #[test]
    fn v4_codes_mean_what_rfc_792_and_rfc_1122_say() {
        use ErrorKind::*;
        let unreachable = [
            NetworkUnreachable,
            HostUnreachable,
            ProtocolUnreachable,
            PortUnreachable,
            PacketTooBig { mtu: 1400 },
            SourceRouteFailed,
            NetworkUnreachable,
            HostUnreachable,
            NetworkUnreachable,
            AdminProhibited,
            AdminProhibited,
            NetworkUnreachable,
            HostUnreachable,
            AdminProhibited,
            OtherUnreachable,
            OtherUnreachable,
            OtherUnreachable,
        ];
        for (code, kind) in (0u8..).zip(unreachable) {
            assert_eq!(parse_v4(&v4(3, code, 1400)), Some(error(kind)), "code {code}");
        }
        assert_eq!(parse_v4(&v4(3, 4, 0)), Some(error(PacketTooBig { mtu: 0 })));
        // The upper half of the word was unused before RFC 1191. RFC 4884 uses it today.
        assert_eq!(parse_v4(&v4(3, 4, 0x0005_0578)), Some(error(PacketTooBig { mtu: 1400 })));
        assert_eq!(parse_v4(&v4(4, 0, 0)), Some(error(SourceQuench)));
        assert_eq!(parse_v4(&v4(11, 0, 0)), Some(error(TimeExceeded)));
        assert_eq!(parse_v4(&v4(11, 1, 0)), Some(error(ReassemblyTimeExceeded)));
        assert_eq!(parse_v4(&v4(11, 2, 0)), Some(Message::Other));
        assert_eq!(parse_v4(&v4(12, 1, 0)), Some(error(ParameterProblem)));
        assert_eq!(parse_v4(&v4(5, 1, 0)), Some(Message::Other), "redirects are not errors");
    }

    #[test]
    fn v6_codes_mean_what_rfc_4443_says() {
        use ErrorKind::*;
        let unreachable = [
            NetworkUnreachable,
            AdminProhibited,
            NetworkUnreachable,
            HostUnreachable,
            PortUnreachable,
            AdminProhibited,
            AdminProhibited,
            SourceRouteFailed,
            OtherUnreachable,
        ];
        for (code, kind) in (0u8..).zip(unreachable) {
            assert_eq!(parse_v6(A, B, &v6(1, code, 0)), Some(error(kind)), "code {code}");
        }
        assert_eq!(parse_v6(A, B, &v6(2, 0, 1280)), Some(error(PacketTooBig { mtu: 1280 })));
        assert_eq!(parse_v6(A, B, &v6(2, 0, 0x1_0000)), Some(error(PacketTooBig { mtu: 0x1_0000 })));
        assert_eq!(parse_v6(A, B, &v6(3, 0, 0)), Some(error(TimeExceeded)));
        assert_eq!(parse_v6(A, B, &v6(3, 1, 0)), Some(error(ReassemblyTimeExceeded)));
        assert_eq!(parse_v6(A, B, &v6(4, 0, 4)), Some(error(ParameterProblem)));
        assert_eq!(parse_v6(A, B, &v6(4, 1, 6)), Some(error(ProtocolUnreachable)));
        assert_eq!(parse_v6(A, B, &v6(135, 0, 0)), Some(Message::Other));
    }

    #[test]
    fn a_wrong_checksum_or_a_short_message_is_nothing() {
        for bit in 0..96 {
            let (mut four, mut six) = (v4(8, 0, 7), v6(128, 0, 7));
            four[bit / 8] ^= 1 << (bit % 8);
            six[bit / 8] ^= 1 << (bit % 8);
            assert_eq!((parse_v4(&four), parse_v6(A, B, &six)), (None, None), "bit {bit}");
        }
        assert_eq!(parse_v6(A, A, &v6(128, 0, 7)), None, "the pseudo-header counts");
        for len in 0..HEADER_LEN {
            assert_eq!((parse_v4(&[0; HEADER_LEN][..len]), parse_v6(A, B, &[0; 8][..len])), (None, None));
        }
    }

    #[test]
    fn what_a_version_cannot_say_is_not_emitted() {
        let mut buffer = [0xee; 64];
        assert_eq!(emit_v4(&Message::Other, &mut buffer), None);
        assert_eq!(emit_v6(A, B, &Message::Other, &mut buffer), None);
        assert_eq!(emit_v4(&error(ErrorKind::OtherUnreachable), &mut buffer), None);
        assert_eq!(emit_v6(A, B, &error(ErrorKind::OtherUnreachable), &mut buffer), None);
        assert_eq!(emit_v6(A, B, &error(ErrorKind::SourceQuench), &mut buffer), None);
        assert_eq!(emit_v4(&error(ErrorKind::PortUnreachable), &mut buffer[..11]), None);
        assert_eq!(emit_v6(A, B, &error(ErrorKind::PortUnreachable), &mut buffer[..11]), None);
        assert_eq!(buffer, [0xee; 64]);
    }

    #[test]
    fn an_mtu_past_16_bits_is_the_largest_in_v4() {
        let mut buffer = [0; 12];
        let len = emit_v4(&error(ErrorKind::PacketTooBig { mtu: 0x1_0001 }), &mut buffer).unwrap();
        assert_eq!(buffer[4..8], [0, 0, 0xff, 0xff]);
        assert_eq!(parse_v4(&buffer[..len]), Some(error(ErrorKind::PacketTooBig { mtu: 0xffff })));
    }

    fn kinds() -> impl Strategy<Value = ErrorKind> {
        use ErrorKind::*;
        prop_oneof![
            prop::sample::select(vec![
                NetworkUnreachable,
                HostUnreachable,
                ProtocolUnreachable,
                PortUnreachable,
                SourceRouteFailed,
                AdminProhibited,
                TimeExceeded,
                ReassemblyTimeExceeded,
                ParameterProblem,
            ]),
            any::<u16>().prop_map(|mtu| PacketTooBig { mtu: u32::from(mtu) }),
        ]
    }

    proptest! {
        #[test]
        fn errors_are_parsed_as_emitted(kind in kinds(), quoted in vec(any::<u8>(), 0..80)) {
            let message = Message::Error { kind, quoted: &quoted };
            let mut buffer = vec![0xee; HEADER_LEN + quoted.len() + 5];
            let len = emit_v4(&message, &mut buffer).unwrap();
            prop_assert_eq!(len, HEADER_LEN + quoted.len());
            prop_assert_eq!(parse_v4(&buffer[..len]), Some(message));
            let len = emit_v6(A, B, &message, &mut buffer).unwrap();
            prop_assert_eq!(parse_v6(A, B, &buffer[..len]), Some(message));
        }

        #[test]
        fn echoes_are_those_of_etherparse(ident: u16, sequence: u16, data in vec(any::<u8>(), 0..80)) {
            use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type};
            let echo = IcmpEchoHeader { id: ident, seq: sequence };
            let request = Message::EchoRequest { ident, sequence, data: &data };
            let reply = Message::EchoReply { ident, sequence, data: &data };
            let types = [
                (request, Icmpv4Type::EchoRequest(echo), Icmpv6Type::EchoRequest(echo)),
                (reply, Icmpv4Type::EchoReply(echo), Icmpv6Type::EchoReply(echo)),
            ];
            let mut ours = vec![0xee; HEADER_LEN + data.len()];
            for (message, type_v4, type_v6) in types {
                let theirs = Icmpv4Header::with_checksum(type_v4, &data);
                prop_assert_eq!(emit_v4(&message, &mut ours), Some(ours.len()));
                prop_assert_eq!(&ours[..], [&theirs.to_bytes()[..], &data].concat());
                prop_assert_eq!(parse_v4(&ours), Some(message));
                let theirs = Icmpv6Header::with_checksum(type_v6, A.octets(), B.octets(), &data).unwrap();
                prop_assert_eq!(emit_v6(A, B, &message, &mut ours), Some(ours.len()));
                prop_assert_eq!(&ours[..], [&theirs.to_bytes()[..], &data].concat());
                prop_assert_eq!(parse_v6(A, B, &ours), Some(message));
            }
        }

        #[test]
        fn no_bytes_panic(mut bytes in vec(any::<u8>(), 0..60), valid: bool) {
            if valid && bytes.len() >= HEADER_LEN {
                bytes[2..4].fill(0);
                let mut sum = Sum::new();
                sum.add_bytes(&bytes);
                bytes[2..4].copy_from_slice(&sum.finish().to_be_bytes());
                prop_assert!(parse_v4(&bytes).is_some());
            }
            let _ = parse_v4(&bytes);
            let _ = parse_v6(A, B, &bytes);
        }
    }
}

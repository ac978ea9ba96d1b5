//! Parses packets of the stack, independently of the stack's own code.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use steadfast_core::wire::checksum::{Sum, pseudo_header};
use steadfast_core::wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP};

use super::ast::TcpOption;

/// A packet from the stack.
#[derive(Clone, Debug)]
pub(crate) struct ParsedPacket {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) version: u8,
    pub(crate) header_len: usize,
    /// The length in the header, and the actual length.
    pub(crate) total_len: (usize, usize),
    /// The whole octet: TOS or traffic class.
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) flow_label: u32,
    pub(crate) checksum_ok: bool,
    pub(crate) body: PacketBody,
}

#[derive(Clone, Debug)]
pub(crate) enum PacketBody {
    Tcp(ParsedTcp),
    Icmp(ParsedIcmp),
    /// Another protocol, or a truncated packet.
    Other(u8),
}

#[derive(Clone, Debug)]
pub(crate) struct ParsedTcp {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// Data offset in 32-bit words.
    pub(crate) data_offset: u8,
    /// The twelve bits after the data offset, reserved bits included.
    pub(crate) flags: u16,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    pub(crate) checksum_ok: bool,
    pub(crate) options: Vec<TcpOption>,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct ParsedIcmp {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) rest: u32,
    pub(crate) checksum_ok: bool,
    /// First sequence number and length of the TCP segment that it quotes.
    pub(crate) quoted: Option<(u32, u32)>,
}

impl ParsedTcp {
    /// Returns whether a flag is set.
    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

impl ParsedPacket {
    /// Parses a packet; `None` if it is not an IP packet.
    pub(crate) fn parse(bytes: &[u8]) -> Option<ParsedPacket> {
        match bytes.first()? >> 4 {
            4 => parse_v4(bytes),
            6 => parse_v6(bytes),
            _ => None,
        }
    }

    pub(crate) fn tcp(&self) -> Option<&ParsedTcp> {
        match &self.body {
            PacketBody::Tcp(tcp) => Some(tcp),
            _ => None,
        }
    }

    /// The source and destination endpoints.
    pub(crate) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let tcp = self.tcp()?;
        let source = SocketAddr::new(self.source, tcp.source_port);
        Some((source, SocketAddr::new(self.destination, tcp.destination_port)))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

fn parse_v4(bytes: &[u8]) -> Option<ParsedPacket> {
    let header_len = usize::from(bytes[0] & 15) * 4;
    let header = bytes.get(..header_len).filter(|header| header.len() >= 20)?;
    let source: IpAddr = Ipv4Addr::from_bits(u32_at(bytes, 12)).into();
    let destination: IpAddr = Ipv4Addr::from_bits(u32_at(bytes, 16)).into();
    let total = usize::from(u16_at(bytes, 2));
    Some(ParsedPacket {
        source,
        destination,
        version: 4,
        header_len,
        total_len: (total, bytes.len()),
        tos: bytes[1],
        ttl: bytes[8],
        flow_label: 0,
        checksum_ok: Sum::new().verifies(header),
        body: body(bytes[9], source, destination, &bytes[header_len..]),
    })
}

fn parse_v6(bytes: &[u8]) -> Option<ParsedPacket> {
    let payload = bytes.get(40..)?;
    let address =
        |at: usize| bytes[at..at + 16].try_into().map(|octets: [u8; 16]| Ipv6Addr::from(octets)).ok();
    let (source, destination): (IpAddr, IpAddr) = (address(8)?.into(), address(24)?.into());
    Some(ParsedPacket {
        source,
        destination,
        version: 6,
        header_len: 40,
        total_len: (usize::from(u16_at(bytes, 4)) + 40, bytes.len()),
        tos: (u16_at(bytes, 0) >> 4) as u8,
        ttl: bytes[7],
        flow_label: u32_at(bytes, 0) & 0xf_ffff,
        checksum_ok: true,
        body: body(bytes[6], source, destination, payload),
    })
}

fn body(protocol: u8, source: IpAddr, destination: IpAddr, payload: &[u8]) -> PacketBody {
    let len = u32::try_from(payload.len()).unwrap_or(0);
    let parsed = match protocol {
        PROTOCOL_TCP => tcp(payload, pseudo_header(source, destination, protocol, len)).map(PacketBody::Tcp),
        PROTOCOL_ICMP => icmp(payload, Sum::new(), false).map(PacketBody::Icmp),
        PROTOCOL_ICMPV6 => {
            icmp(payload, pseudo_header(source, destination, protocol, len), true).map(PacketBody::Icmp)
        }
        _ => None,
    };
    parsed.unwrap_or(PacketBody::Other(protocol))
}

fn tcp(bytes: &[u8], sum: Sum) -> Option<ParsedTcp> {
    if bytes.len() < 20 {
        return None;
    }
    let data_offset = bytes[12] >> 4;
    let header_len = (usize::from(data_offset) * 4).clamp(20, bytes.len());
    Some(ParsedTcp {
        source_port: u16_at(bytes, 0),
        destination_port: u16_at(bytes, 2),
        seq: u32_at(bytes, 4),
        ack: u32_at(bytes, 8),
        data_offset,
        flags: u16_at(bytes, 12) & 0xfff,
        window: u16_at(bytes, 14),
        urgent: u16_at(bytes, 18),
        checksum_ok: sum.verifies(bytes),
        options: options(&bytes[20..header_len]),
        payload: bytes[header_len..].to_vec(),
    })
}

/// All options in order. A malformed option ends the list, as an option of its own.
fn options(mut bytes: &[u8]) -> Vec<TcpOption> {
    let mut options = Vec::new();
    while let Some((&kind, rest)) = bytes.split_first() {
        match kind {
            0 => options.push(TcpOption::End),
            1 => options.push(TcpOption::Nop),
            _ => {
                let len = usize::from(rest.first().copied().unwrap_or(0));
                let Some(data) = bytes.get(2..len) else {
                    options.push(TcpOption::Other(kind, rest.to_vec()));
                    return options;
                };
                options.push(option(kind, data));
                bytes = &bytes[len..];
                continue;
            }
        }
        bytes = rest;
    }
    options
}

fn option(kind: u8, data: &[u8]) -> TcpOption {
    match (kind, data.len()) {
        (2, 2) => TcpOption::Mss(u16_at(data, 0)),
        (3, 1) => TcpOption::WindowScale(data[0]),
        (4, 0) => TcpOption::SackPermitted,
        (5, len) if len > 0 && len % 8 == 0 => {
            TcpOption::Sack(data.chunks(8).map(|block| (u32_at(block, 0), u32_at(block, 4))).collect())
        }
        (8, 8) => TcpOption::Timestamps { val: Some(u32_at(data, 0)), ecr: Some(u32_at(data, 4)) },
        (19, 16) => TcpOption::Md5(data.to_vec()),
        (34, _) => TcpOption::FastOpen(data.to_vec()),
        (172 | 174, len) if len % 3 == 0 => {
            let counter = |b: &[u8]| u32::from(b[0]) << 16 | u32::from(b[1]) << 8 | u32::from(b[2]);
            TcpOption::AccEcn(kind, data.chunks(3).map(counter).collect())
        }
        (254, 2..) => TcpOption::Experiment(u16_at(data, 0), data[2..].to_vec()),
        _ => TcpOption::Other(kind, data.to_vec()),
    }
}

fn icmp(bytes: &[u8], sum: Sum, v6: bool) -> Option<ParsedIcmp> {
    if bytes.len() < 8 {
        return None;
    }
    let quoted = &bytes[8..];
    let segment = match quoted.first().map(|first| first >> 4) {
        Some(4) if !v6 => quoted.get(usize::from(quoted[0] & 15) * 4..),
        Some(6) if v6 => quoted.get(40..),
        _ => None,
    };
    let total = if v6 { usize::from(u16_at(quoted, 4)) + 40 } else { usize::from(u16_at(quoted, 2)) };
    let of_tcp = segment.filter(|segment| segment.len() >= 8).map(|segment| {
        let head = quoted.len() - segment.len() + usize::from(segment.get(12).map_or(5, |b| b >> 4)) * 4;
        (u32_at(segment, 4), total.saturating_sub(head) as u32)
    });
    Some(ParsedIcmp {
        kind: bytes[0],
        code: bytes[1],
        rest: u32_at(bytes, 4),
        checksum_ok: sum.verifies(bytes),
        quoted: of_tcp,
    })
}

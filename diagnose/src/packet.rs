//! A packet as the tracker needs it. Parsing is lenient: captured bytes may end anywhere.

use std::net::{IpAddr, Ipv6Addr};

use steadfast_wire::checksum::pseudo_header;
use steadfast_wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP};

/// An endpoint: the address, IPv4 mapped into IPv6, and the port. Without gaps, since each connection has two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(Rust, packed(2))]
pub struct End {
    /// The address.
    pub address: u128,
    /// The port.
    pub port: u16,
}

impl End {
    /// The address in its own family.
    pub fn ip(self) -> IpAddr {
        let six = Ipv6Addr::from(self.address);
        six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::SocketAddr::new(self.ip(), self.port).fmt(f)
    }
}

/// The state of a TCP checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// Not all bytes were captured, or the sender left it to its device.
    #[default]
    Unknown,
    Good,
    Bad,
    /// The field has the sum of the pseudo-header: the device computes the rest.
    Partial,
}

/// TCP options that matter to the tracker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    pub(crate) timestamps: Option<(u32, u32)>,
    pub(crate) fast_open: bool,
    pub(crate) sack: [(u32, u32); 4],
    pub(crate) sacks: u8,
    /// The captured bytes end within the header.
    pub(crate) cut: bool,
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segment {
    /// Its number in the file.
    pub(crate) number: u32,
    /// Nanoseconds.
    pub(crate) at: i64,
    pub(crate) interface: u32,
    pub(crate) from: End,
    pub(crate) to: End,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u16,
    pub(crate) window: u16,
    /// Bytes of payload on the wire.
    pub(crate) len: u32,
    pub(crate) ttl: u8,
    /// The identification of IPv4; 0 in IPv6.
    pub(crate) id: u16,
    pub(crate) sum: u16,
    pub(crate) checksum: Checksum,
    /// A device segments it later, or several were merged.
    pub(crate) offload: bool,
    /// The link layer sent the frame again.
    pub(crate) retry: bool,
    /// The file has less of the packet than its IP header declares, and does not say so.
    pub(crate) short: bool,
    pub(crate) options: Options,
    /// A hash of the first bytes of the payload; 0: fewer were captured.
    pub(crate) head: u32,
}

pub(crate) const FIN: u16 = 1;
pub(crate) const SYN: u16 = 2;
pub(crate) const RST: u16 = 4;
pub(crate) const ACK: u16 = 16;

impl Segment {
    pub(crate) fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    /// The sequence number after it.
    pub(crate) fn end(&self) -> u32 {
        let syn_fin = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(self.len).wrapping_add(syn_fin)
    }

    /// Neither data nor a control flag.
    pub(crate) fn is_bare_ack(&self) -> bool {
        self.len == 0 && self.flags & (SYN | FIN | RST | ACK) == ACK
    }
}

/// An ICMP error that quotes a TCP segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Icmp {
    pub(crate) number: u32,
    pub(crate) at: i64,
    /// The quoted segment's ends and sequence number.
    pub(crate) from: End,
    pub(crate) to: End,
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) v6: bool,
    /// The MTU of a message that a packet is too big.
    pub(crate) mtu: u32,
}

impl Icmp {
    /// A packet did not fit.
    pub(crate) fn is_too_big(&self) -> bool {
        if self.v6 { self.kind == 2 } else { (self.kind, self.code) == (3, 4) }
    }

    /// The destination cannot be reached.
    pub(crate) fn is_unreachable(&self) -> bool {
        if self.v6 { self.kind == 1 } else { self.kind == 3 && self.code != 4 }
    }

    /// Version, type and code as one number.
    pub(crate) fn packed(&self) -> u32 {
        u32::from(self.v6) << 16 | u32::from(self.kind) << 8 | u32::from(self.code)
    }

    /// The message of a packed number in words.
    pub(crate) fn words(packed: u32) -> &'static str {
        match (packed >> 16 == 1, packed >> 8 & 0xff, packed & 0xff) {
            (false, 3, 0) | (true, 1, 0) => "no route",
            (false, 3, 1) | (true, 1, 3) => "host unreachable",
            (false, 3, 2) => "protocol unreachable",
            (false, 3, 3) | (true, 1, 4) => "port unreachable",
            (false, 3, 4) | (true, 2, _) => "packet too big",
            (false, 3, 9 | 10 | 13) | (true, 1, 1 | 5 | 6) => "administratively prohibited",
            (false, 11, _) | (true, 3, _) => "time exceeded",
            _ => "unreachable",
        }
    }
}

/// The content of an IP packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    Tcp(Segment),
    Icmp(Icmp),
    /// A fragment other than the first of a TCP segment.
    Fragment,
    Other,
    /// The captured bytes end before the TCP header.
    Cut,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u16::from_be_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
}

fn mapped(four: &[u8]) -> u128 {
    0xffff_0000_0000 | u128::from(u32_at(four, 0))
}

fn six(bytes: &[u8], at: usize) -> u128 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u128::from_be_bytes(*b))
}

/// The fields of an IP header.
struct Ip {
    source: u128,
    destination: u128,
    protocol: u8,
    header: usize,
    /// Length of the packet on the wire, as the header has it.
    len: usize,
    ttl: u8,
    id: u16,
    /// Offset of a fragment in bytes, and whether more follow.
    fragment: (usize, bool),
    /// The header has no length, since the packet is too long for it.
    big: bool,
}

fn ip(bytes: &[u8], wire_len: usize) -> Option<Ip> {
    match bytes.first()? >> 4 {
        4 if bytes.len() >= 20 => {
            let header = usize::from(bytes[0] & 15) * 4;
            let declared = usize::from(u16_at(bytes, 2));
            let fragment = u16_at(bytes, 6);
            (header >= 20).then(|| Ip {
                source: mapped(&bytes[12..]),
                destination: mapped(&bytes[16..]),
                protocol: bytes[9],
                header,
                len: if declared == 0 { wire_len } else { declared },
                ttl: bytes[8],
                id: u16_at(bytes, 4),
                fragment: (usize::from(fragment & 0x1fff) * 8, fragment & 0x2000 != 0),
                big: declared == 0,
            })
        }
        6 if bytes.len() >= 40 => {
            let declared = usize::from(u16_at(bytes, 4));
            let mut ip = Ip {
                source: six(bytes, 8),
                destination: six(bytes, 24),
                protocol: bytes[6],
                header: 40,
                len: if declared == 0 { wire_len } else { 40 + declared },
                ttl: bytes[7],
                id: 0,
                fragment: (0, false),
                big: declared == 0,
            };
            for _ in 0..8 {
                let at = ip.header;
                let (next, len) = match ip.protocol {
                    0 | 43 | 60 => (*bytes.get(at)?, (usize::from(*bytes.get(at + 1)?) + 1) * 8),
                    44 => {
                        let word = u16_at(bytes, at + 2);
                        ip.fragment = (usize::from(word & 0xfff8), word & 1 != 0);
                        ip.id = u16_at(bytes, at + 6);
                        (*bytes.get(at)?, 8)
                    }
                    51 => (*bytes.get(at)?, (usize::from(*bytes.get(at + 1)?) + 2) * 4),
                    _ => break,
                };
                (ip.protocol, ip.header) = (next, at + len);
            }
            Some(ip)
        }
        _ => None,
    }
}

/// Parses an IP packet, of which `wire_len` bytes were on the wire. Number, time and interface are the caller's.
pub(crate) fn parse(bytes: &[u8], wire_len: usize) -> Content {
    let Some(ip) = ip(bytes, wire_len) else { return Content::Other };
    match ip.protocol {
        PROTOCOL_TCP if ip.fragment.0 > 0 => Content::Fragment,
        PROTOCOL_TCP => segment(bytes, &ip, wire_len),
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => icmp(bytes, &ip).map_or(Content::Other, Content::Icmp),
        _ => Content::Other,
    }
}

fn segment(bytes: &[u8], ip: &Ip, wire_len: usize) -> Content {
    // With the flags and the window, 16 bytes tell most of it.
    let Some(tcp) = bytes.get(ip.header..).filter(|tcp| tcp.len() >= 16) else { return Content::Cut };
    let offset = usize::from(tcp[12] >> 4) * 4;
    if offset < 20 || ip.len < ip.header + offset {
        return Content::Other;
    }
    let captured = &tcp[..tcp.len().min(ip.len - ip.header)];
    let mut options = Options { cut: captured.len() < offset, ..Options::default() };
    if offset > 20 {
        read_options(captured.get(20..offset.min(captured.len())).unwrap_or_default(), &mut options);
    }
    let whole = captured.len() == ip.len - ip.header && ip.fragment == (0, false);
    let flags = u16_at(tcp, 12) & 0x1ff;
    let sum = u16_at(tcp, 16);
    Content::Tcp(Segment {
        from: End { address: ip.source, port: u16_at(tcp, 0) },
        to: End { address: ip.destination, port: u16_at(tcp, 2) },
        seq: u32_at(tcp, 4),
        ack: if flags & ACK != 0 { u32_at(tcp, 8) } else { 0 },
        flags,
        window: u16_at(tcp, 14),
        len: (ip.len - ip.header - offset) as u32,
        ttl: ip.ttl,
        id: ip.id,
        sum,
        checksum: if whole { checksum(ip, captured, sum) } else { Checksum::Unknown },
        offload: ip.big,
        short: wire_len < ip.len,
        options,
        head: captured.get(offset..).and_then(head).unwrap_or(0),
        ..Segment::default()
    })
}

/// Hashes the first 16 bytes of a payload.
fn head(payload: &[u8]) -> Option<u32> {
    let (words, _) = payload.first_chunk::<16>()?.as_chunks::<8>();
    let hash = words.iter().fold(0x9e37_79b9_7f4a_7c15u64, |hash, word| {
        let mixed = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 29
    });
    Some((hash >> 32) as u32 | 1)
}

fn address(address: u128) -> IpAddr {
    End { address, port: 0 }.ip()
}

fn checksum(ip: &Ip, segment: &[u8], field: u16) -> Checksum {
    let pseudo =
        pseudo_header(address(ip.source), address(ip.destination), PROTOCOL_TCP, segment.len() as u32);
    if pseudo.verifies(segment) {
        Checksum::Good
    } else if pseudo.finish() == !field {
        Checksum::Partial
    } else {
        Checksum::Bad
    }
}

fn read_options(mut rest: &[u8], options: &mut Options) {
    // NOP, NOP, timestamps: nearly all segments of a connection with timestamps.
    if let [1, 1, 8, 10, value @ ..] = rest
        && value.len() == 8
    {
        options.timestamps = Some((u32_at(value, 0), u32_at(value, 4)));
        return;
    }
    while let [kind, tail @ ..] = rest {
        if *kind == 0 {
            break;
        }
        if *kind == 1 {
            rest = tail;
            continue;
        }
        let len = usize::from(tail.first().copied().unwrap_or(0));
        let Some(value) = rest.get(2..len.max(2)).filter(|_| len >= 2) else { break };
        match (kind, value.len()) {
            (2, 2) => options.mss = Some(u16_at(value, 0)),
            (3, 1) => options.scale = Some(value[0].min(14)),
            (4, 0) => options.sack_permitted = true,
            (5, 8 | 16 | 24 | 32) => {
                for (slot, block) in options.sack.iter_mut().zip(value.chunks_exact(8)) {
                    *slot = (u32_at(block, 0), u32_at(block, 4));
                    options.sacks += 1;
                }
            }
            (8, 8) => options.timestamps = Some((u32_at(value, 0), u32_at(value, 4))),
            (34, _) => options.fast_open = true,
            _ => {}
        }
        rest = &rest[len..];
    }
}

fn icmp(bytes: &[u8], outer: &Ip) -> Option<Icmp> {
    let message = bytes.get(outer.header..).filter(|message| message.len() > 28)?;
    let v6 = outer.protocol == PROTOCOL_ICMPV6;
    let (kind, code) = (message[0], message[1]);
    let is_error = if v6 { (1..=4).contains(&kind) } else { matches!(kind, 3 | 4 | 11 | 12) };
    let quoted = &message[8..];
    let inner = ip(quoted, quoted.len()).filter(|inner| is_error && inner.protocol == PROTOCOL_TCP)?;
    let tcp = quoted.get(inner.header..).filter(|tcp| tcp.len() >= 8)?;
    Some(Icmp {
        number: 0,
        at: 0,
        from: End { address: inner.source, port: u16_at(tcp, 0) },
        to: End { address: inner.destination, port: u16_at(tcp, 2) },
        kind,
        code,
        v6,
        mtu: if v6 { u32_at(message, 4) } else { u32::from(u16_at(message, 6)) },
    })
}

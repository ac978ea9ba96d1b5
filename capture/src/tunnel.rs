//! Tunnels: the IP packet that another one carries.

use crate::bytes::Order;
use crate::link;
use crate::record::Record;

const IPV4: u8 = 4;
const UDP: u8 = 17;
const IPV6: u8 = 41;
const GRE: u8 = 47;

const VXLAN_PORT: u16 = 4789;
const GENEVE_PORT: u16 = 6081;

/// Limit of the tunnels in each other, and of the extension headers of a packet.
const DEPTH: usize = 8;

/// The number of a raw IP packet in the registry of link types.
const RAW: u16 = 101;
const ETHERNET: u16 = 1;

impl<'a> Record<'a> {
    /// The packet inside all tunnels, as a record of link type `raw`; without a tunnel, the record itself.
    ///
    /// Tunnels are IP in IP (RFC 2003, RFC 2473, RFC 4213), GRE (RFC 2784, RFC 2890), VXLAN (RFC 7348) and Geneve
    /// (RFC 8926). A fragment of a tunnel's packet stays as it is. No checksum of a tunnel is verified.
    pub fn inner(&self) -> Record<'a> {
        let Ok(outer) = link::ip(self.link, self.data) else { return *self };
        let mut packet = outer.bytes;
        for _ in 0..DEPTH {
            let Some(inner) = carried(packet) else { break };
            packet = inner;
        }
        if packet.len() == outer.bytes.len() {
            return *self;
        }
        let headers = (self.data.len() - packet.len()) as u32;
        Record { link: RAW, len: self.len.saturating_sub(headers), data: packet, ..*self }
    }
}

/// The IP packet in a packet of a tunnel.
fn carried(packet: &[u8]) -> Option<&[u8]> {
    let (protocol, payload) = payload(packet)?;
    match protocol {
        IPV4 | IPV6 => ip(payload),
        GRE => gre(payload),
        UDP => match Order::Big.u16(payload, 2) {
            VXLAN_PORT => vxlan(payload.get(8..)?),
            GENEVE_PORT => geneve(payload.get(8..)?),
            _ => None,
        },
        _ => None,
    }
}

/// The protocol and the payload of an IP packet. A fragment has none.
fn payload(packet: &[u8]) -> Option<(u8, &[u8])> {
    match packet.first()? >> 4 {
        4 => {
            let whole = Order::Big.u16(packet, 6) & 0x3fff == 0;
            let header = usize::from(packet[0] & 15) * 4;
            (whole && header >= 20).then_some((*packet.get(9)?, packet.get(header..)?))
        }
        6 => {
            let (mut protocol, mut rest) = (*packet.get(6)?, packet.get(40..)?);
            for _ in 0..DEPTH {
                // Hop-by-hop options, routing, and destination options, which has the limit of encapsulation.
                if !matches!(protocol, 0 | 43 | 60) {
                    break;
                }
                let len = (usize::from(*rest.get(1)?) + 1) * 8;
                (protocol, rest) = (rest[0], rest.get(len..)?);
            }
            Some((protocol, rest))
        }
        _ => None,
    }
}

fn ip(bytes: &[u8]) -> Option<&[u8]> {
    link::ip(RAW, bytes).ok().map(|ip| ip.bytes)
}

/// The payload of an Ethernet type: GRE and Geneve have them.
fn by_type(kind: u16, bytes: &[u8]) -> Option<&[u8]> {
    const TRANSPARENT_ETHERNET: u16 = 0x6558;
    match kind {
        0x0800 | 0x86dd => ip(bytes),
        TRANSPARENT_ETHERNET => link::ip(ETHERNET, bytes).ok().map(|ip| ip.bytes),
        _ => None,
    }
}

fn gre(bytes: &[u8]) -> Option<&[u8]> {
    const CHECKSUM: u16 = 0x8000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    let flags = Order::Big.u16(bytes, 0);
    // Routing was deprecated, and version 1 is PPTP's.
    if flags & !(CHECKSUM | KEY | SEQUENCE) != 0 {
        return None;
    }
    let fields = [CHECKSUM, KEY, SEQUENCE].iter().filter(|field| flags & **field != 0).count();
    by_type(Order::Big.u16(bytes, 2), bytes.get(4 + 4 * fields..)?)
}

fn vxlan(bytes: &[u8]) -> Option<&[u8]> {
    const HAS_NETWORK: u8 = 8;
    (bytes.first()? & HAS_NETWORK != 0).then_some(())?;
    link::ip(ETHERNET, bytes.get(8..)?).ok().map(|ip| ip.bytes)
}

fn geneve(bytes: &[u8]) -> Option<&[u8]> {
    let first = *bytes.first()?;
    // The version, which is zero, and the length of options in words.
    let options = usize::from(first & 0x3f) * 4;
    (first >> 6 == 0).then_some(())?;
    by_type(Order::Big.u16(bytes, 2), bytes.get(8 + options..)?)
}

//! Link layers: where the IP packet begins. Link types have the numbers of tcpdump.org's registry.

use crate::bytes::Order;
use crate::record::Direction;

const NULL: u16 = 0;
const ETHERNET: u16 = 1;
const PPP: u16 = 9;
const RAW_BSD: u16 = 12;
const RAW_OPENBSD: u16 = 14;
const PPP_HDLC: u16 = 50;
const RAW: u16 = 101;
const CISCO_HDLC: u16 = 104;
const IEEE802_11: u16 = 105;
const LOOP: u16 = 108;
const LINUX_SLL: u16 = 113;
const PRISM: u16 = 119;
const RADIOTAP: u16 = 127;
const AVS: u16 = 163;
const IPV4: u16 = 228;
const IPV6: u16 = 229;
const NFLOG: u16 = 239;
const PKTAP: u16 = 258;
const LINUX_SLL2: u16 = 276;

/// Limit of nested headers, such as VLAN tags.
const DEPTH: usize = 8;

/// An IP packet and the remarks of its link layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ip<'a> {
    /// From the IP header on, with what the link layer may have added at the end.
    pub bytes: &'a [u8],
    /// The link layer sent the frame again: the retry bit of 802.11.
    pub retry: bool,
    /// The direction, if the link header says it.
    pub direction: Option<Direction>,
    /// Number of the interface, if the link header says it.
    pub interface: Option<u32>,
}

/// Why a record has no IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The link type is not supported.
    Unknown(u16),
    /// The frame has another protocol, or none.
    NotIp,
    /// The captured bytes end before the IP header.
    Cut,
    /// The link layer encrypts the frame.
    Encrypted,
}

/// Finds the IP packet of a record.
#[inline]
pub fn ip(link: u16, data: &[u8]) -> Result<Ip<'_>, Unread> {
    match link {
        // The usual frame: Ethernet, without tags.
        ETHERNET if data.len() > 14 && (data[12..14] == [8, 0] || data[12..14] == [0x86, 0xdd]) => {
            Ok(Ip { bytes: &data[14..], ..Ip::default() })
        }
        ETHERNET => ethernet(data),
        _ => other(link, data),
    }
}

/// The name of a link type in the registry, if it is supported or common.
pub fn name(link: u16) -> Option<&'static str> {
    Some(match link {
        NULL => "null",
        ETHERNET => "ethernet",
        6 => "token ring",
        PPP => "ppp",
        10 => "fddi",
        RAW_BSD | RAW_OPENBSD | RAW => "raw",
        PPP_HDLC => "ppp_hdlc",
        51 => "ppp_ether",
        CISCO_HDLC => "c_hdlc",
        IEEE802_11 => "ieee802_11",
        107 => "frelay",
        LOOP => "loop",
        LINUX_SLL => "linux_sll",
        PRISM => "ieee802_11_prism",
        RADIOTAP => "ieee802_11_radiotap",
        AVS => "ieee802_11_avs",
        187 | 201 => "bluetooth_hci",
        189 | 220 | 249 => "usb",
        195 | 230 => "ieee802_15_4",
        IPV4 => "ipv4",
        IPV6 => "ipv6",
        NFLOG => "nflog",
        240 => "netanalyzer",
        PKTAP => "pktap",
        LINUX_SLL2 => "linux_sll2",
        _ => return None,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    Order::Big.u16(bytes, at)
}

fn from(data: &[u8], at: usize) -> Result<&[u8], Unread> {
    data.get(at..).filter(|rest| !rest.is_empty()).ok_or(Unread::Cut)
}

/// A packet whose version says what it is.
fn raw(bytes: &[u8]) -> Result<Ip<'_>, Unread> {
    match bytes.first().map(|byte| byte >> 4) {
        Some(4 | 6) => Ok(Ip { bytes, ..Ip::default() }),
        Some(_) => Err(Unread::NotIp),
        None => Err(Unread::Cut),
    }
}

fn other(link: u16, data: &[u8]) -> Result<Ip<'_>, Unread> {
    match link {
        RAW_BSD | RAW_OPENBSD | RAW | IPV4 | IPV6 => raw(data),
        // The address family's number depends on the system, so the version of IP decides.
        NULL | LOOP => raw(from(data, 4)?),
        PPP | PPP_HDLC => ppp(if data.starts_with(&[0xff, 3]) { &data[2..] } else { data }),
        51 => ppp(from(data, 6)?),
        CISCO_HDLC => by_type(u16_at(data, 2), from(data, 4)?, 0),
        LINUX_SLL => {
            let direction = sll_direction(u16_at(data, 0));
            by_type(u16_at(data, 14), from(data, 16)?, 0).map(|ip| Ip { direction, ..ip })
        }
        LINUX_SLL2 => {
            let interface = Some(Order::Big.u32(data, 4));
            let direction = sll_direction(u16::from(data.get(10).copied().unwrap_or(9)));
            by_type(u16_at(data, 0), from(data, 20)?, 0).map(|ip| Ip { direction, interface, ..ip })
        }
        IEEE802_11 => wireless(data, false),
        RADIOTAP => {
            let len = usize::from(Order::Little.u16(data, 2));
            wireless(from(data, len.max(8))?, radiotap_pads(data))
        }
        PRISM => wireless(from(data, (Order::Little.u32(data, 4) as usize).max(8))?, false),
        AVS => wireless(from(data, (Order::Big.u32(data, 4) as usize).max(8))?, false),
        NFLOG => nflog(data),
        PKTAP => {
            let len = Order::Little.u32(data, 0) as usize;
            match Order::Little.u32(data, 8) as u16 {
                PKTAP => Err(Unread::Unknown(PKTAP)),
                inner => ip(inner, from(data, len.max(12))?),
            }
        }
        _ => Err(Unread::Unknown(link)),
    }
}

fn sll_direction(kind: u16) -> Option<Direction> {
    match kind {
        0..=2 => Some(Direction::Inbound),
        4 => Some(Direction::Outbound),
        _ => None,
    }
}

fn ethernet(data: &[u8]) -> Result<Ip<'_>, Unread> {
    by_type(u16_at(data, 12), from(data, 14)?, 0)
}

/// The payload of an Ethernet type, or of a length with LLC.
fn by_type(kind: u16, data: &[u8], depth: usize) -> Result<Ip<'_>, Unread> {
    if depth == DEPTH {
        return Err(Unread::NotIp);
    }
    match kind {
        0x0800 | 0x86dd => raw(data),
        // 802.1Q, 802.1ad, and two from before the standard.
        0x8100 | 0x88a8 | 0x9100 | 0x9200 => by_type(u16_at(data, 2), from(data, 4)?, depth + 1),
        0x8847 | 0x8848 => {
            let last = data.chunks_exact(4).position(|label| label[2] & 1 == 1).ok_or(Unread::NotIp)?;
            let inner = from(data, 4 * (last + 1))?;
            // A pseudowire has a control word of zeros, then Ethernet.
            if inner.len() > 4 && inner[0] >> 4 == 0 { ethernet_at(inner, 4, depth) } else { raw(inner) }
        }
        0x8864 => ppp(from(data, 6)?),
        0..=1500 => logical_link(data, depth),
        _ => Err(Unread::NotIp),
    }
}

fn ethernet_at(data: &[u8], at: usize, depth: usize) -> Result<Ip<'_>, Unread> {
    let frame = from(data, at)?;
    by_type(u16_at(frame, 12), from(frame, 14)?, depth + 1)
}

/// LLC, with SNAP or with IP's own service access point.
fn logical_link(data: &[u8], depth: usize) -> Result<Ip<'_>, Unread> {
    match data {
        [0xaa, 0xaa, 3, _, _, _, rest @ ..] => by_type(u16_at(rest, 0), from(rest, 2)?, depth + 1),
        [6, 6, 3, rest @ ..] => raw(rest),
        _ => Err(Unread::NotIp),
    }
}

fn ppp(data: &[u8]) -> Result<Ip<'_>, Unread> {
    // A protocol number may be compressed to one odd byte.
    let (protocol, len) = match data {
        [first, ..] if first & 1 == 1 => (u16::from(*first), 1),
        _ => (u16_at(data, 0), 2),
    };
    match protocol {
        0x21 | 0x57 => raw(from(data, len)?),
        _ => Err(Unread::NotIp),
    }
}

/// Whether the flags of a radiotap header say that the 802.11 header is padded to a multiple of four.
fn radiotap_pads(data: &[u8]) -> bool {
    const TSFT: u32 = 1;
    const FLAGS: u32 = 2;
    const MORE: u32 = 1 << 31;
    let present = Order::Little.u32(data, 4);
    if present & FLAGS == 0 {
        return false;
    }
    let words = (0..8).take_while(|n| Order::Little.u32(data, 4 + 4 * n) & MORE != 0).count() + 1;
    let mut at = 4 + 4 * words;
    if present & TSFT != 0 {
        at = at.next_multiple_of(8) + 8;
    }
    data.get(at).is_some_and(|flags| flags & 0x20 != 0)
}

/// A data frame of 802.11.
fn wireless(data: &[u8], padded: bool) -> Result<Ip<'_>, Unread> {
    let [control, flags, ..] = *data else { return Err(Unread::Cut) };
    let (kind, subtype) = (control >> 2 & 3, control >> 4);
    if kind != 2 || subtype & 4 != 0 {
        return Err(Unread::NotIp);
    }
    if flags & 0x40 != 0 {
        return Err(Unread::Encrypted);
    }
    let mut len: usize = 24;
    if flags & 3 == 3 {
        len += 6;
    }
    if subtype & 8 != 0 {
        len += 2;
        // HT control.
        len += if flags & 0x80 != 0 { 4 } else { 0 };
    }
    if padded {
        len = len.next_multiple_of(4);
    }
    let retry = flags & 8 != 0;
    logical_link(from(data, len)?, 0).map(|ip| Ip { retry, ..ip })
}

/// Netfilter's log: a header, then attributes in the byte order of the machine.
fn nflog(data: &[u8]) -> Result<Ip<'_>, Unread> {
    const PAYLOAD: u16 = 9;
    let mut rest = from(data, 4)?;
    for _ in 0..64 {
        let len = usize::from(Order::Little.u16(rest, 0));
        // Bit 15 marks nested attributes.
        if Order::Little.u16(rest, 2) & 0x7fff == PAYLOAD {
            return raw(rest.get(4..len.min(rest.len())).ok_or(Unread::Cut)?);
        }
        rest = from(rest, len.max(4).next_multiple_of(4))?;
    }
    Err(Unread::NotIp)
}

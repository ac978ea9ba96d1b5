//! Neighbour discovery for IPv6 (RFC 4861): ICMPv6 messages between the hosts and routers of one link, and their options.
//!
//! ```
//! use steadfast_wire::ethernet::Address;
//! use steadfast_wire::ndp::{self, Message, NdpOption};
//!
//! let (source, target) = ("fe80::1".parse().unwrap(), "fe80::2".parse().unwrap());
//! let group = ndp::solicited_node(target);
//! let hardware = NdpOption::SourceLinkLayer(Address([2, 0, 0, 0, 0, 1]));
//! let message = Message::NeighborSolicitation { target };
//! let bytes = ndp::emit(source, group, &message, &[hardware]);
//! let (read, options) = ndp::parse(source, group, 255, &bytes).unwrap();
//! assert_eq!((read, options.collect::<Vec<_>>()), (message, vec![hardware]));
//! ```

use std::net::Ipv6Addr;

use super::ethernet::Address;
use super::icmp::pseudo_header_v6;
use super::u32_at;

/// The hop limit of every message. A router would have lowered it (RFC 4861 §3.1).
pub const HOP_LIMIT: u8 = 255;

/// The group of all hosts of a link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The group of all routers of a link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;

const ROUTER_FLAG: u32 = 1 << 31;
const SOLICITED_FLAG: u32 = 1 << 30;
const OVERRIDE_FLAG: u32 = 1 << 29;

/// Returns whether a message of ICMPv6 is one of neighbour discovery, redirects among them.
pub const fn is_ndp(icmp_type: u8) -> bool {
    matches!(icmp_type, ROUTER_SOLICITATION..=REDIRECT)
}

/// Returns the group that the host with an address has joined (RFC 4291 §2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let group = 0xff02_u128 << 112 | 1 << 32 | 0xff << 24;
    Ipv6Addr::from_bits(group | address.to_bits() & 0x00ff_ffff)
}

/// A message without its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A host asks for advertisements of routers (RFC 4861 §4.1).
    RouterSolicitation,
    /// A router tells about itself and the link (RFC 4861 §4.2).
    RouterAdvertisement(Router),
    /// Who has the target address (RFC 4861 §4.3)?
    NeighborSolicitation {
        /// The address whose hardware address is sought.
        target: Ipv6Addr,
    },
    /// The sender has the target address (RFC 4861 §4.4).
    NeighborAdvertisement {
        /// The address.
        target: Ipv6Addr,
        /// The sender is a router.
        router: bool,
        /// It answers a solicitation.
        solicited: bool,
        /// The hardware address replaces a known one.
        overrides: bool,
    },
}

/// The fields of a router advertisement (RFC 4861 §4.2). 0 stands for a value that the router does not specify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Router {
    /// The hop limit for outgoing packets.
    pub hop_limit: u8,
    /// Addresses are available by DHCPv6.
    pub managed: bool,
    /// Other settings are available by DHCPv6, such as the servers of DNS.
    pub other: bool,
    /// Seconds for which the router is a default router; 0: it is none.
    pub lifetime: u16,
    /// Milliseconds for which a neighbour counts as reachable after a confirmation.
    pub reachable_time: u32,
    /// Milliseconds between solicitations.
    pub retrans_timer: u32,
}

/// A prefix of the link (RFC 4861 §4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix. Its bits beyond the length are reserved.
    pub prefix: Ipv6Addr,
    /// Length of the prefix, in bits.
    pub len: u8,
    /// Hosts with such addresses are neighbours.
    pub on_link: bool,
    /// Hosts may form addresses with the prefix (RFC 4862).
    pub autonomous: bool,
    /// Seconds for which the prefix is valid; `u32::MAX` is for ever.
    pub valid: u32,
    /// Seconds for which such addresses are preferred.
    pub preferred: u32,
}

/// An option of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdpOption<'a> {
    /// The sender's hardware address.
    SourceLinkLayer(Address),
    /// The target's hardware address.
    TargetLinkLayer(Address),
    /// A prefix of the link.
    Prefix(Prefix),
    /// The MTU of the link.
    Mtu(u32),
    /// Servers of DNS (RFC 8106 §5.1).
    Dns {
        /// Seconds for which they may be used.
        lifetime: u32,
        /// Their addresses, 16 bytes each. Bytes beyond the last whole address are not emitted.
        servers: &'a [u8],
    },
    /// Another option, or one of an unexpected length.
    Other {
        /// Its type.
        kind: u8,
        /// The bytes behind type and length. It is emitted with zeros, up to a multiple of eight bytes.
        body: &'a [u8],
    },
}

/// The options of a received message.
#[derive(Clone, Debug)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = NdpOption<'a>;

    fn next(&mut self) -> Option<NdpOption<'a>> {
        let (option, rest) = split_option(self.0)?;
        self.0 = rest;
        Some(read_option(option))
    }
}

impl Options<'_> {
    /// Returns the sender's hardware address, if an option has it.
    pub fn source(&self) -> Option<Address> {
        self.clone().find_map(|option| match option {
            NdpOption::SourceLinkLayer(address) => Some(address),
            _ => None,
        })
    }

    /// Returns the target's hardware address, if an option has it.
    pub fn target(&self) -> Option<Address> {
        self.clone().find_map(|option| match option {
            NdpOption::TargetLinkLayer(address) => Some(address),
            _ => None,
        })
    }
}

/// Returns the message of a packet with these addresses and this hop limit, and its options. `None`: it is another
/// message, or it fails a check of RFC 4861 §6.1 or §7.1, such as that of the hop limit or of the checksum.
pub fn parse(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    payload: &[u8],
) -> Option<(Message, Options<'_>)> {
    let &[kind, code, ..] = payload.first_chunk::<8>()?;
    let sum = pseudo_header_v6(source, destination, payload.len())?;
    if hop_limit != HOP_LIMIT || code != 0 || !sum.verifies(payload) {
        return None;
    }
    let word = u32_at(payload, 4);
    let (message, options) = match kind {
        ROUTER_SOLICITATION => (Message::RouterSolicitation, payload.get(8..)?),
        ROUTER_ADVERTISEMENT => (Message::RouterAdvertisement(router(payload)), payload.get(16..)?),
        NEIGHBOR_SOLICITATION => {
            (Message::NeighborSolicitation { target: target(payload)? }, payload.get(24..)?)
        }
        NEIGHBOR_ADVERTISEMENT => {
            let message = Message::NeighborAdvertisement {
                target: target(payload)?,
                router: word & ROUTER_FLAG != 0,
                solicited: word & SOLICITED_FLAG != 0,
                overrides: word & OVERRIDE_FLAG != 0,
            };
            (message, payload.get(24..)?)
        }
        _ => return None,
    };
    let mut rest = options;
    while !rest.is_empty() {
        (_, rest) = split_option(rest)?;
    }
    let options = Options(options);
    let fits = match message {
        // An unspecified source has no hardware address to tell.
        Message::RouterSolicitation => !source.is_unspecified() || options.source().is_none(),
        Message::RouterAdvertisement(_) => source.is_unicast_link_local(),
        Message::NeighborSolicitation { target } => {
            let claims = destination == solicited_node(target) && options.source().is_none();
            !target.is_multicast() && (!source.is_unspecified() || claims)
        }
        Message::NeighborAdvertisement { target, solicited, .. } => {
            !(target.is_multicast() || solicited && destination.is_multicast())
        }
    };
    fits.then_some((message, options))
}

fn router(payload: &[u8]) -> Router {
    let word = u32_at(payload, 4);
    Router {
        hop_limit: (word >> 24) as u8,
        managed: word & 1 << 23 != 0,
        other: word & 1 << 22 != 0,
        lifetime: word as u16,
        reachable_time: u32_at(payload, 8),
        retrans_timer: u32_at(payload, 12),
    }
}

fn target(payload: &[u8]) -> Option<Ipv6Addr> {
    address_at(payload, 8)
}

fn address_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    bytes.get(at..)?.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes))
}

/// Splits the first option off, with its type and length. `None`: none is left, or its length is wrong.
fn split_option(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let units = *bytes.get(1)?;
    if units == 0 { None } else { bytes.split_at_checked(usize::from(units) * 8) }
}

fn read_option(option: &[u8]) -> NdpOption<'_> {
    let kind = option.first().copied().unwrap_or_default();
    let hardware = || option.get(2..)?.first_chunk().map(|bytes| Address(*bytes));
    let read = match (kind, option.len()) {
        (SOURCE_LINK_LAYER, 8) => hardware().map(NdpOption::SourceLinkLayer),
        (TARGET_LINK_LAYER, 8) => hardware().map(NdpOption::TargetLinkLayer),
        (PREFIX, 32) if option[2] <= 128 => address_at(option, 16).map(|prefix| {
            NdpOption::Prefix(Prefix {
                prefix,
                len: option[2],
                on_link: option[3] & 0x80 != 0,
                autonomous: option[3] & 0x40 != 0,
                valid: u32_at(option, 4),
                preferred: u32_at(option, 8),
            })
        }),
        (MTU, 8) => Some(NdpOption::Mtu(u32_at(option, 4))),
        (RDNSS, 24..) if option.len() % 16 == 8 => {
            Some(NdpOption::Dns { lifetime: u32_at(option, 4), servers: &option[8..] })
        }
        _ => None,
    };
    read.unwrap_or(NdpOption::Other { kind, body: option.get(2..).unwrap_or_default() })
}

/// Returns a message with its options and its checksum, to be put into a packet between these addresses with
/// [`HOP_LIMIT`]. An option that is too long for its field of length is left out.
pub fn emit(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    message: &Message,
    options: &[NdpOption<'_>],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    match *message {
        Message::RouterSolicitation => bytes.extend([ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]),
        Message::RouterAdvertisement(router) => {
            let flags = u8::from(router.managed) << 7 | u8::from(router.other) << 6;
            bytes.extend([ROUTER_ADVERTISEMENT, 0, 0, 0, router.hop_limit, flags]);
            bytes.extend(router.lifetime.to_be_bytes());
            bytes.extend(router.reachable_time.to_be_bytes());
            bytes.extend(router.retrans_timer.to_be_bytes());
        }
        Message::NeighborSolicitation { target } => {
            bytes.extend([NEIGHBOR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend(target.octets());
        }
        Message::NeighborAdvertisement { target, router, solicited, overrides } => {
            let flags = [(router, ROUTER_FLAG), (solicited, SOLICITED_FLAG), (overrides, OVERRIDE_FLAG)];
            let word = flags.iter().filter(|(set, _)| *set).fold(0, |word, (_, flag)| word | flag);
            bytes.extend([NEIGHBOR_ADVERTISEMENT, 0, 0, 0]);
            bytes.extend(word.to_be_bytes());
            bytes.extend(target.octets());
        }
    }
    options.iter().for_each(|option| write_option(option, &mut bytes));
    if let Some(mut sum) = pseudo_header_v6(source, destination, bytes.len()) {
        sum.add_bytes(&bytes);
        bytes[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    }
    bytes
}

fn write_option(option: &NdpOption<'_>, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    let kind = match *option {
        NdpOption::SourceLinkLayer(_) => SOURCE_LINK_LAYER,
        NdpOption::TargetLinkLayer(_) => TARGET_LINK_LAYER,
        NdpOption::Prefix(_) => PREFIX,
        NdpOption::Mtu(_) => MTU,
        NdpOption::Dns { .. } => RDNSS,
        NdpOption::Other { kind, .. } => kind,
    };
    bytes.extend([kind, 0]);
    match *option {
        NdpOption::SourceLinkLayer(address) | NdpOption::TargetLinkLayer(address) => bytes.extend(address.0),
        NdpOption::Prefix(prefix) => {
            bytes.extend([prefix.len, u8::from(prefix.on_link) << 7 | u8::from(prefix.autonomous) << 6]);
            bytes.extend(prefix.valid.to_be_bytes());
            bytes.extend(prefix.preferred.to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(prefix.prefix.octets());
        }
        NdpOption::Mtu(mtu) => {
            bytes.extend([0; 2]);
            bytes.extend(mtu.to_be_bytes());
        }
        NdpOption::Dns { lifetime, servers } => {
            bytes.extend([0; 2]);
            bytes.extend(lifetime.to_be_bytes());
            bytes.extend(&servers[..servers.len() / 16 * 16]);
        }
        NdpOption::Other { body, .. } => bytes.extend(body),
    }
    bytes.resize(start + (bytes.len() - start).next_multiple_of(8), 0);
    match u8::try_from((bytes.len() - start) / 8) {
        Ok(units) => bytes[start + 1] = units,
        Err(_) => bytes.truncate(start),
    }
}

#[cfg(test)]
mod tests;

//! pcapng (draft-ietf-opsawg-pcapng): sections of blocks.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::IpAddr;

use crate::bytes::Order;
use crate::damage::{Damage, Error};
use crate::options::options;
use crate::record::{Direction, Found, Interface, Options, Resolution};
use crate::window::Window;
use crate::{HARD_LIMIT, INTERFACE_LIMIT, NAMES_LIMIT, SEARCH_LIMIT};

pub(crate) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const NAME_RESOLUTION: u32 = 4;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
/// Block types that a search for the next block accepts: those of the draft.
const KNOWN: [u32; 9] = [SECTION_HEADER, 1, 2, 3, 4, 5, 6, 10, 0x0bad];
/// Header of any block, with the length at its end.
const LEAST: usize = 12;
/// Length of the names that are kept.
const NAME_LIMIT: usize = 64;

pub(crate) struct Pcapng {
    order: Order,
    /// The current section, from 0; `None` before the first.
    pub(crate) section: Option<u32>,
    /// Index of the first interface of the section.
    first: usize,
    /// Names of addresses, as the file has them.
    pub(crate) names: BTreeMap<IpAddr, String>,
}

impl Pcapng {
    pub(crate) fn new() -> Pcapng {
        Pcapng { order: Order::Little, section: None, first: 0, names: BTreeMap::new() }
    }

    pub(crate) fn order(&self) -> Order {
        self.order
    }

    /// Reads the first section header.
    pub(crate) fn open<R: Read>(&mut self, window: &mut Window<R>) -> Result<(), Error> {
        const EXPECTED: usize = 28;
        if !window.need(EXPECTED)? {
            return Err(Error::Short { present: window.bytes().len(), expected: EXPECTED });
        }
        match byte_order(window.bytes()) {
            Some(order) => self.order = order,
            None => return Err(Error::NotACapture { first: window.bytes()[..12].to_vec() }),
        }
        Ok(())
    }

    /// Finds the next packet. Its block stays in the window.
    pub(crate) fn next<R: Read>(
        &mut self,
        window: &mut Window<R>,
        interfaces: &mut Vec<Interface>,
        damage: &mut Damage,
    ) -> io::Result<Option<Found>> {
        loop {
            if !window.need(LEAST)? {
                let (offset, present) = (window.offset(), window.bytes().len());
                if present > 0 {
                    damage.add(offset, present as u64, || {
                        format!("cut short: {present} bytes, expected a block of at least {LEAST}")
                    });
                    window.advance(present);
                }
                return Ok(None);
            }
            match self.block_len(window)? {
                Ok(len) => {
                    let offset = window.offset();
                    let block = &window.bytes()[..len];
                    match self.block(block, offset, interfaces, damage) {
                        Some(found) => return Ok(Some(found)),
                        None => window.advance(len),
                    }
                }
                Err(wrong) => {
                    let offset = window.offset();
                    let Some(skipped) = self.search(window)? else {
                        let rest = window.bytes().len();
                        damage.add(offset, rest as u64, || format!("{wrong}; no plausible block follows"));
                        window.advance(rest);
                        return Ok(None);
                    };
                    damage.add(offset, skipped as u64, || wrong);
                    window.advance(skipped);
                }
            }
        }
    }

    /// The length of the block at the front, or what is wrong with it.
    fn block_len<R: Read>(&mut self, window: &mut Window<R>) -> io::Result<Result<usize, String>> {
        let bytes = window.bytes();
        if self.order.u32(bytes, 0) == SECTION_HEADER {
            match byte_order(bytes) {
                Some(order) => self.order = order,
                None => return Ok(Err("a section header without a byte-order magic (1a2b3c4d)".to_owned())),
            }
        }
        let declared = self.order.u32(bytes, 4);
        let len = declared as usize;
        if !(LEAST..=HARD_LIMIT as usize).contains(&len) || !len.is_multiple_of(4) {
            return Ok(Err(format!(
                "a block of {declared} bytes, expected a multiple of 4 from {LEAST} to {HARD_LIMIT}"
            )));
        }
        if !window.need(len)? {
            return Ok(Err(format!("cut short: {} of {len} bytes of a block", window.bytes().len())));
        }
        let twin = self.order.u32(window.bytes(), len - 4);
        if twin != declared {
            return Ok(Err(format!("a block of {len} bytes that ends with the length {twin}")));
        }
        Ok(Ok(len))
    }

    fn block(
        &mut self,
        block: &[u8],
        offset: u64,
        interfaces: &mut Vec<Interface>,
        damage: &mut Damage,
    ) -> Option<Found> {
        let order = self.order;
        let body = &block[8..block.len() - 4];
        match order.u32(block, 0) {
            SECTION_HEADER => {
                self.section = Some(self.section.map_or(0, |section| section + 1));
                self.first = interfaces.len();
            }
            INTERFACE_DESCRIPTION => {
                if interfaces.len() < INTERFACE_LIMIT {
                    interfaces.push(interface(order, self.section.unwrap_or(0), body));
                } else {
                    damage.add(offset, block.len() as u64, || {
                        format!("an interface beyond {INTERFACE_LIMIT}; its packets are not read")
                    });
                }
            }
            NAME_RESOLUTION => resolve(order, body, &mut self.names),
            INTERFACE_STATISTICS => {
                let index = self.first + order.u32(body, 0) as usize;
                if let Some(interface) = interfaces.get_mut(index) {
                    // isb_ifdrop and isb_osdrop.
                    let drops = options(order, body.get(12..).unwrap_or_default())
                        .filter(|(code, value)| matches!(code, 5 | 7) && value.len() == 8);
                    interface.dropped =
                        drops.map(|(_, value)| order.u64(value, 0)).fold(0, u64::saturating_add);
                }
            }
            kind @ (ENHANCED_PACKET | PACKET | SIMPLE_PACKET) => {
                return self.packet(kind, body, offset, interfaces, damage);
            }
            _ => {}
        }
        None
    }

    fn packet(
        &self,
        kind: u32,
        body: &[u8],
        offset: u64,
        interfaces: &[Interface],
        damage: &mut Damage,
    ) -> Option<Found> {
        let order = self.order;
        let (fixed, id) = match kind {
            SIMPLE_PACKET => (4, 0),
            PACKET => (20, usize::from(order.u16(body, 0))),
            _ => (20, order.u32(body, 0) as usize),
        };
        let Some(interface) = interfaces.get(self.first.saturating_add(id)) else {
            let known = interfaces.len() - self.first;
            damage.add(offset, body.len() as u64, || {
                format!("a packet of interface {id}, which no block declares ({known} declared)")
            });
            return None;
        };
        let room = body.len().saturating_sub(fixed);
        let (captured, len) = if kind == SIMPLE_PACKET {
            let len = order.u32(body, 0);
            let snaplen = if interface.snaplen == 0 { len } else { len.min(interface.snaplen) };
            (snaplen.min(room as u32) as usize, len)
        } else {
            (order.u32(body, 12) as usize, order.u32(body, 16))
        };
        if captured > room {
            damage.add(offset, body.len() as u64, || {
                format!("a packet of {captured} bytes in a block that has room for {room}")
            });
            return None;
        }
        let nanos = if kind == SIMPLE_PACKET {
            None
        } else {
            interface.nanos(u64::from(order.u32(body, 4)) << 32 | u64::from(order.u32(body, 8)))
        };
        let padded = (fixed + captured).next_multiple_of(4).min(body.len());
        let mut found = Found {
            interface: self.first + id,
            nanos,
            len: len.max(captured as u32),
            data: 8 + fixed..8 + fixed + captured,
            whole: body.len() + LEAST,
            options: Options { raw: 8 + padded..8 + body.len(), ..Options::default() },
        };
        if kind != SIMPLE_PACKET && padded < body.len() {
            let flags = options(order, &body[padded..]).find(|(code, value)| *code == 2 && value.len() == 4);
            if let Some((_, value)) = flags {
                let flags = order.u32(value, 0);
                found.options.direction = match flags & 3 {
                    1 => Some(Direction::Inbound),
                    2 => Some(Direction::Outbound),
                    _ => None,
                };
                found.options.checksum_not_ready = flags >> 9 & 1 == 1;
                found.options.segmented_later = flags >> 11 & 1 == 1;
            }
        }
        Some(found)
    }

    /// Distance to the next plausible block.
    fn search<R: Read>(&self, window: &mut Window<R>) -> io::Result<Option<usize>> {
        window.need(2 * SEARCH_LIMIT)?;
        let bytes = window.bytes();
        Ok((1..bytes.len().min(SEARCH_LIMIT)).find(|at| {
            let kind = self.order.u32(bytes, *at);
            let len = self.order.u32(bytes, at + 4) as usize;
            KNOWN.contains(&kind)
                && (LEAST..=HARD_LIMIT as usize).contains(&len)
                && len.is_multiple_of(4)
                && at + len <= bytes.len()
                && self.order.u32(bytes, at + len - 4) as usize == len
        }))
    }
}

/// Reads the records of a name resolution block. The first name of an address counts.
fn resolve(order: Order, body: &[u8], names: &mut BTreeMap<IpAddr, String>) {
    let mut rest = body;
    while rest.len() >= 4 {
        let (kind, len) = (order.u16(rest, 0), usize::from(order.u16(rest, 2)));
        let Some(value) = rest.get(4..4 + len).filter(|_| kind != 0) else { return };
        let found = match kind {
            1 => value.split_first_chunk::<4>().map(|(four, name)| (IpAddr::from(*four), name)),
            2 => value.split_first_chunk::<16>().map(|(six, name)| (IpAddr::from(*six), name)),
            _ => None,
        };
        if let Some((address, name)) = found
            && names.len() < NAMES_LIMIT
        {
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(&name[..name.len().min(NAME_LIMIT)]);
            names.entry(address).or_insert_with(|| name.replace(char::is_control, "?"));
        }
        rest = rest.get((4 + len).next_multiple_of(4)..).unwrap_or_default();
    }
}

/// The byte order that a section header tells.
fn byte_order(block: &[u8]) -> Option<Order> {
    [Order::Little, Order::Big].into_iter().find(|order| order.u32(block, 8) == BYTE_ORDER_MAGIC)
}

fn interface(order: Order, section: u32, body: &[u8]) -> Interface {
    let mut interface = Interface {
        section,
        link: order.u16(body, 0),
        name: String::new(),
        snaplen: order.u32(body, 4),
        dropped: 0,
        resolution: Some(Resolution::Decimal(6)),
        offset: 0,
    };
    for (code, value) in options(order, body.get(8..).unwrap_or_default()) {
        match (code, value) {
            (2, name) => {
                let name = &name[..name.len().min(NAME_LIMIT)];
                interface.name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
            }
            (9, [resolution, ..]) => {
                let power = u32::from(resolution & 0x7f);
                // Beyond these, 64 bits of units are no time that anything can have.
                interface.resolution = match resolution & 0x80 == 0 {
                    true => (power <= 19).then_some(Resolution::Decimal(power)),
                    false => (power <= 63).then_some(Resolution::Binary(power)),
                };
            }
            (14, value) if value.len() == 8 => interface.offset = order.u64(value, 0) as i64,
            _ => {}
        }
    }
    interface
}

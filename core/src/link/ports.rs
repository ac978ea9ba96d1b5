//! The interfaces that carry Ethernet frames, the frames that wait for them, and the way to the last destinations.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};

use super::neighbours::Neighbours;
use crate::ip::routes::InterfaceId;
use crate::time::Instant;
use crate::wire::ethernet::{Address, HEADER_LEN};
use crate::wire::ndp::{Prefix, Router};

/// The advertisement of a router to the hosts of its link: see [`Stack::advertise`](crate::Stack::advertise).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouterAdvertisement {
    /// The fields of the message.
    pub router: Router,
    /// The prefixes of the link.
    pub prefixes: Vec<Prefix>,
    /// The servers of DNS.
    pub dns: Vec<Ipv6Addr>,
}

/// An interface that advertises a router.
#[derive(Clone, Debug)]
pub(crate) struct Advertising {
    pub(crate) advertisement: RouterAdvertisement,
    /// The time of the last advertisement to all, and that of the next one.
    pub(crate) last: Option<Instant>,
    pub(crate) next: Instant,
}

/// An interface that carries Ethernet frames.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    /// The router that it advertises.
    pub(crate) router: Option<Box<Advertising>>,
    /// Addresses of others for which it answers.
    pub(crate) proxies: Vec<IpAddr>,
    pub(crate) id: InterfaceId,
    pub(crate) hardware: Address,
    /// The time when it last defended an address.
    pub(crate) defended: Option<Instant>,
}

/// A frame that waits for the device.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) interface: InterfaceId,
    /// The frame with its header.
    pub(crate) bytes: Vec<u8>,
    pub(crate) segment_size: Option<u16>,
    pub(crate) checksum_offload: bool,
}

/// The row of the neighbour through which packets to a destination leave.
#[derive(Clone, Copy, Debug)]
struct Hop {
    destination: u128,
    interface: InterfaceId,
    /// Those of the neighbours and of the routes.
    generation: (u32, u32),
    row: u32,
}

/// Destinations whose neighbour is remembered.
const HOPS: usize = 256;

/// The state of the link layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkLayer {
    ports: Vec<Port>,
    pub(crate) neighbours: Neighbours,
    /// Empty while there is no port.
    hops: Vec<Option<Hop>>,
    /// Changes with the routes.
    routes: u32,
    out: VecDeque<Outgoing>,
    /// Bytes of these frames.
    held: usize,
    /// Frames of the link layer and packets take turns.
    pub(crate) yields: bool,
}

impl LinkLayer {
    /// Bytes before a packet: the room of the longest header of any interface.
    #[inline]
    pub(crate) fn headroom(&self) -> usize {
        if self.ports.is_empty() { 0 } else { HEADER_LEN }
    }

    #[inline]
    pub(crate) fn is_there(&self) -> bool {
        !self.ports.is_empty()
    }

    /// Returns an interface, unless it carries bare packets.
    #[inline]
    pub(crate) fn port(&self, id: InterfaceId) -> Option<&Port> {
        self.ports.iter().find(|port| port.id == id)
    }

    /// Returns whether the interface with this hardware address advertises a router.
    pub(crate) fn is_router(&self, hardware: Address) -> bool {
        self.ports.iter().any(|port| port.hardware == hardware && port.router.is_some())
    }

    /// Returns whether an interface answers for this address of another.
    pub(crate) fn is_proxy(&self, id: InterfaceId, address: IpAddr) -> bool {
        self.port(id).is_some_and(|port| port.proxies.contains(&address))
    }

    pub(crate) fn port_mut(&mut self, id: InterfaceId) -> Option<&mut Port> {
        self.ports.iter_mut().find(|port| port.id == id)
    }

    pub(crate) fn add_port(&mut self, id: InterfaceId, hardware: Address) {
        self.ports.push(Port { id, hardware, defended: None, router: None, proxies: Vec::new() });
        self.hops.resize(HOPS, None);
    }

    pub(crate) fn remove_port(&mut self, id: InterfaceId) {
        self.ports.retain(|port| port.id != id);
        self.neighbours.remove_interface(id);
        self.out.retain(|frame| frame.interface != id);
        self.held = self.out.iter().map(|frame| frame.bytes.len()).sum();
    }

    /// Returns the next time for an advertisement of a router, and its interface.
    pub(crate) fn router_at(&self) -> Option<(Instant, InterfaceId)> {
        self.ports.iter().filter_map(|port| port.router.as_ref().map(|router| (router.next, port.id))).min()
    }

    /// Forgets the ways to destinations: the routes have changed.
    pub(crate) fn routes_changed(&mut self) {
        self.routes = self.routes.wrapping_add(1);
    }

    fn place(destination: u128) -> usize {
        let folded = (destination >> 64) as u64 ^ destination as u64;
        (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % HOPS
    }

    /// Returns the row of the neighbour through which the last packet to a destination left.
    #[inline]
    pub(crate) fn hop(&self, destination: u128, interface: InterfaceId) -> Option<u32> {
        let hop = self.hops[LinkLayer::place(destination)]?;
        let generation = (self.neighbours.generation(), self.routes);
        let valid = hop.destination == destination && hop.interface == interface;
        (valid && hop.generation == generation).then_some(hop.row)
    }

    pub(crate) fn remember(&mut self, destination: u128, interface: InterfaceId, row: u32) {
        let generation = (self.neighbours.generation(), self.routes);
        self.hops[LinkLayer::place(destination)] = Some(Hop { destination, interface, generation, row });
    }

    /// Number of frames that wait for the device.
    pub(crate) fn waiting(&self) -> usize {
        self.out.len()
    }

    /// Bytes of these frames and of the packets that wait for a hardware address.
    pub(crate) fn held(&self) -> usize {
        self.held + self.neighbours.held()
    }

    #[inline]
    pub(crate) fn wants_transmit(&self) -> bool {
        !self.out.is_empty()
    }

    pub(crate) fn push(&mut self, frame: Outgoing) {
        self.held += frame.bytes.len();
        self.out.push_back(frame);
    }

    pub(crate) fn pop(&mut self) -> Option<Outgoing> {
        let frame = self.out.pop_front()?;
        self.held -= frame.bytes.len();
        Some(frame)
    }

    /// Recounts what is maintained, and returns the first difference.
    pub(crate) fn check(&self) -> Result<(), String> {
        let held: usize = self.out.iter().map(|frame| frame.bytes.len()).sum();
        if held != self.held {
            return Err(format!("frames: {} bytes for {held}", self.held));
        }
        self.neighbours.check()
    }
}

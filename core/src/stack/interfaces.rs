//! Interfaces, addresses and routes, which come and go while connections live.
//!
//! A connection does not belong to an interface. Each of its packets leaves by the route of that moment. Where none leads
//! to the peer, packets are lost and counted (`OutNoRoutes`), until a route returns or the connection's timers end it.

use std::net::{IpAddr, SocketAddr};

use super::{Interface, Medium, Stack};
use crate::error::Error;
use crate::ip::addresses::Addresses;
use crate::ip::policy;
use crate::ip::routes::{InterfaceId, Link, Route, Routing, connected};
use crate::link::ports::LinkLayer;
use crate::tcp::room::{MIN_MTU_V4, MIN_MTU_V6};
use crate::tuple::FourTuple;

/// The least MSS that a route may have connections advertise: that of the smallest IPv4 path.
const MIN_ADVMSS: u16 = MIN_MTU_V4 - 40;

/// Returns the tables of a stack with one interface.
pub(super) fn first(interface: &Interface) -> (Addresses, Routing, LinkLayer) {
    let addresses = Addresses::new(interface.addresses.iter().copied());
    let mut routing = Routing::new(interface.link(InterfaceId::FIRST));
    for &(address, len) in &interface.addresses {
        routing.address_added(address, InterfaceId::FIRST);
        connected(address, len, InterfaceId::FIRST).into_iter().for_each(|route| routing.add_route(route));
    }
    let mut link = LinkLayer::default();
    if let Medium::Ethernet { address } = interface.medium {
        link.add_port(InterfaceId::FIRST, address);
    }
    (addresses, routing, link)
}

impl Stack {
    /// Adds an interface, with its addresses and the routes to their networks. [`transmit`](Stack::transmit) names it
    /// in its packets from now on, and [`Packet::on`](crate::Packet::on) says that a packet came by it. A frame must hold
    /// [`frame_len`](Stack::frame_len) bytes, which may grow.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), [`Interface::validate`] rejects it;
    /// [`AddrInUse`](Error::AddrInUse), another interface has one of the addresses;
    /// [`NoBufferSpace`](Error::NoBufferSpace), `interface_max`.
    pub fn add_interface(&mut self, interface: Interface) -> Result<InterfaceId, Error> {
        interface.validate().map_err(|_| Error::InvalidArgument)?;
        if self.routing.len() >= self.config.interface_max as usize {
            return Err(Error::NoBufferSpace);
        }
        if interface.addresses.iter().any(|(address, _)| self.addresses.interface_of(*address).is_some()) {
            return Err(Error::AddrInUse);
        }
        let id = self.routing.add(interface.link(InterfaceId::NONE));
        if let Medium::Ethernet { address } = interface.medium {
            self.link.add_port(id, address);
        }
        interface.addresses.iter().for_each(|&(address, len)| self.insert_address(id, address, len));
        self.turns.fit(&interface);
        self.routes_changed();
        Ok(id)
    }

    /// Removes an interface with its addresses and routes. Returns false for the [first](InterfaceId::FIRST), which
    /// stays, and for one that is not there.
    ///
    /// Connections stay, as in Linux. Their packets leave by the routes that are left.
    pub fn remove_interface(&mut self, id: InterfaceId) -> bool {
        if id == InterfaceId::FIRST || self.routing.get(id).is_none() {
            return false;
        }
        let addresses: Vec<_> = self.addresses.of(id).map(|(address, _)| address).collect();
        addresses.into_iter().for_each(|address| _ = self.remove_address(address));
        self.routing.remove(id);
        self.link.remove_port(id);
        self.udp.reports.forget(id);
        self.pmtu.clear();
        self.routes_changed();
        true
    }

    /// Says whether the devices refuse all packets, as a device with a queue of no length does. They are
    /// dropped, and connections know: they try again every half second, without back-off.
    pub fn refuse_packets(&mut self, refuse: bool) {
        self.routing.refuses = refuse;
    }

    /// Lists the interfaces with their present addresses.
    pub fn interfaces(&self) -> Vec<(InterfaceId, Interface)> {
        let describe = |link: Link| {
            let mut interface = Interface::new(link.mtu, self.addresses.of(link.id));
            interface.segmentation_offload = link.segmentation_offload;
            interface.checksum_offload = link.checksum_offload;
            interface.medium = self.medium_of(link.id);
            (link.id, interface)
        };
        self.routing.iter().map(describe).collect()
    }

    fn medium_of(&self, id: InterfaceId) -> Medium {
        self.link.port(id).map_or(Medium::Ip, |port| Medium::Ethernet { address: port.hardware })
    }

    /// Returns the interface that has an address.
    pub fn interface_of(&self, address: IpAddr) -> Option<InterfaceId> {
        self.addresses.interface_of(address)
    }

    /// Returns the length of a frame for [`transmit`](Stack::transmit): no frame of any interface exceeds it.
    pub fn frame_len(&self) -> usize {
        self.frame_len
    }

    /// Adds an address to the first interface: see [`add_address_to`](Stack::add_address_to). It is not added where that
    /// fails.
    pub fn add_address(&mut self, address: IpAddr, prefix_len: u8) {
        // The caller sees in `interfaces` whether it is there.
        let _ = self.add_address_to(InterfaceId::FIRST, address, prefix_len);
    }

    /// Adds an address to an interface, and a route to its network. Listeners on all addresses accept connections to it
    /// too. For an address that the interface has, this changes the prefix.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), no such interface, or an IPv6 address where the MTU is below
    /// 1280; [`AddrInUse`](Error::AddrInUse), another interface has the address.
    pub fn add_address_to(&mut self, id: InterfaceId, address: IpAddr, prefix_len: u8) -> Result<(), Error> {
        let link = self.routing.get(id).ok_or(Error::InvalidArgument)?;
        if address.is_ipv6() && link.mtu < MIN_MTU_V6 {
            return Err(Error::InvalidArgument);
        }
        if self.addresses.interface_of(address).is_some_and(|there| there != id) {
            return Err(Error::AddrInUse);
        }
        let before = self.addresses.len_of(address);
        self.insert_address(id, address, prefix_len);
        before.into_iter().for_each(|len| self.leave_network(id, address, len));
        self.routes_changed();
        Ok(())
    }

    /// Removes an address and returns whether it was there. The route to its network goes with the last address in it.
    ///
    /// Its connections stay: their own timers end them, unless the address returns first.
    // THREAT-83
    pub fn remove_address(&mut self, address: IpAddr) -> bool {
        let Some(id) = self.addresses.interface_of(address) else { return false };
        let len = self.addresses.len_of(address);
        self.addresses.remove(address);
        self.routing.address_removed(address);
        len.into_iter().for_each(|len| self.leave_network(id, address, len));
        self.routes_changed();
        true
    }

    /// Removes the route to a network unless another address of the interface is in it.
    fn leave_network(&mut self, id: InterfaceId, address: IpAddr, len: u8) {
        let Some(route) = connected(address, len, id) else { return };
        let mut others = self.addresses.of(id).filter_map(|(there, len)| connected(there, len, id));
        if !others.any(|other| other == route) {
            self.routing.remove_route(&route);
        }
    }

    fn insert_address(&mut self, id: InterfaceId, address: IpAddr, len: u8) {
        self.addresses.add(address, len, id);
        self.routing.address_added(address, id);
        let route = self.addresses.len_of(address).and_then(|len| connected(address, len, id));
        route.into_iter().for_each(|route| self.routing.add_route(route));
    }

    /// Adds a route. One that is there already stays as it is.
    ///
    /// The route of the longest prefix that contains a destination is used, then that of the smallest
    /// metric, then the oldest. A stack has a default route of each family to its first interface, of the largest
    /// metric. An address brings a route to its network, of metric 0.
    ///
    /// A device that carries bare IP packets has one neighbour, so a gateway decides there about source addresses alone.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), no such interface, bits beyond the prefix, two families, an IPv6
    /// route by an interface whose MTU is below 1280, a path MTU below 68 (IPv6: 1280), or an advertised MSS below
    /// 28; [`NetworkUnreachable`](Error::NetworkUnreachable), the gateway is no neighbour on that interface;
    /// [`NoBufferSpace`](Error::NoBufferSpace), `route_max`.
    pub fn add_route(&mut self, route: Route) -> Result<(), Error> {
        let link = self.routing.get(route.interface).ok_or(Error::InvalidArgument)?;
        let ipv4 = route.destination.is_ipv4();
        let least = if ipv4 { MIN_MTU_V4 } else { MIN_MTU_V6 };
        let too_small = (1..least).contains(&route.path.mtu) || (1..MIN_ADVMSS).contains(&route.path.advmss);
        if !route.is_well_formed() || too_small || !ipv4 && link.mtu < MIN_MTU_V6 {
            return Err(Error::InvalidArgument);
        }
        let is_neighbour = |gateway: IpAddr| self.routing.is_neighbour(gateway, route.interface);
        if !route.gateway.is_none_or(is_neighbour) {
            return Err(Error::NetworkUnreachable);
        }
        if self.routing.routes_len() >= self.config.route_max as usize {
            return Err(Error::NoBufferSpace);
        }
        self.routing.add_route(route);
        self.routes_changed();
        Ok(())
    }

    /// Removes a route, also one that an address or the first interface brought. Returns whether it was there.
    pub fn remove_route(&mut self, route: &Route) -> bool {
        let removed = self.routing.remove_route(route);
        self.routes_changed();
        removed
    }

    /// Lists the routes: IPv6 before IPv4, and each by falling prefix length.
    pub fn routes(&self) -> Vec<Route> {
        self.routing.routes().collect()
    }

    /// Returns the route of packets to a destination (`ip route get`).
    pub fn route_to(&self, destination: IpAddr) -> Option<Route> {
        self.routing.route(destination)
    }

    /// Sorts destinations, the one to try first at the front: by RFC 6724 §6, with the source addresses that this stack
    /// would use. Those that are equal by its rules keep their order, and those without a route come last.
    pub fn sort_destinations(&mut self, destinations: &mut [IpAddr]) {
        destinations.sort_by_cached_key(|destination| {
            let source = self.source_towards((*destination, 0).into()).ok();
            policy::rank(
                *destination,
                source.map(|source| (source, self.addresses.len_of(source).unwrap_or(0))),
            )
        });
    }

    /// Returns the source address of packets to a destination where the user names none.
    ///
    /// Errors: [`NetworkUnreachable`](Error::NetworkUnreachable), no route or no address.
    pub(super) fn source_towards(&mut self, remote: SocketAddr) -> Result<IpAddr, Error> {
        let destination = remote.ip();
        if let SocketAddr::V6(v6) = remote
            && v6.ip().is_unicast_link_local()
            && v6.scope_id() != 0
        {
            return self.source_on_link(destination, InterfaceId::from_index(v6.scope_id()));
        }
        if let Some(source) = self.addresses.last_source(destination) {
            return Ok(source);
        }
        let route = self.routing.route(destination);
        let route = route.or_else(|| {
            self.addresses.is_local(destination).then(|| Route::new(destination, 0, InterfaceId::FIRST))
        });
        let route = route.ok_or(Error::NetworkUnreachable)?;
        let next_hop = route.gateway.unwrap_or(destination);
        self.addresses.source_for(destination, next_hop, route.interface).ok_or(Error::NetworkUnreachable)
    }

    /// Returns the address from which to send to a link-local destination on a given link.
    fn source_on_link(&mut self, destination: IpAddr, id: InterfaceId) -> Result<IpAddr, Error> {
        let source = self.addresses.source_for(destination, destination, id);
        // The last answer is kept by destination alone.
        self.addresses.forget();
        let is_there = |source: &IpAddr| self.addresses.interface_of(*source) == Some(id);
        source.filter(is_there).ok_or(Error::NetworkUnreachable)
    }

    /// Returns whether packets between two addresses have a way.
    pub(super) fn leads_to(&self, local: IpAddr, remote: IpAddr) -> bool {
        !self.routing.is_many()
            || self.addresses.is_local(remote)
            || self.routing.find(&FourTuple::of(&local, 0, &remote, 0)).id != InterfaceId::NONE
    }

    /// Returns the MTU of the interface by which a flow leaves, or the smaller one of its route.
    pub(super) fn interface_mtu(&self, tuple: &FourTuple) -> u16 {
        self.routing.find(tuple).mtu
    }

    /// Forgets what was derived from interfaces, addresses and routes. A path MTU belongs to the path of before.
    fn routes_changed(&mut self) {
        self.interface.addresses = self.addresses.of(InterfaceId::FIRST).collect();
        let longest = self.interfaces().iter().map(|(_, interface)| interface.packet_len()).max();
        self.frame_len = longest.unwrap_or(0) + self.link.headroom();
        self.link.routes_changed();
        self.addresses.forget();
        self.connections.end_template();
        if self.routing.is_many() {
            self.pmtu.clear();
        }
    }
}

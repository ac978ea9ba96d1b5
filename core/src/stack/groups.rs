//! Datagrams for many: broadcast (RFC 919) and multicast (RFC 1112, RFC 4291 §2.7).
//!
//! A socket hears the groups that it has joined, each on one interface. Routers hear of the first member of a group and of
//! the end of the last one (`stack/membership.rs`).
// 1112-1, 1122-8

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Stack;
use crate::error::Error;
use crate::ip::routes::InterfaceId;
use crate::socket::SocketId;
use crate::tally::uncount;
use crate::tuple::FourTuple;
use crate::wire::Ecn;
use crate::wire::groups::RecordKind;

impl Stack {
    /// Makes a UDP socket hear a multicast group on an interface, that of the route to the group if none is named
    /// (`IP_ADD_MEMBERSHIP`, `IPV6_JOIN_GROUP`). It may join several. Closing the socket leaves them.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), no multicast address, no such interface, not a UDP socket, or an
    /// address of a family that the socket does not take; [`AddrInUse`](Error::AddrInUse), it is a member already;
    /// [`NoBufferSpace`](Error::NoBufferSpace), `igmp_max_memberships`;
    /// [`NetworkUnreachable`](Error::NetworkUnreachable), no route to the group;
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn join_multicast(
        &mut self,
        id: SocketId,
        group: IpAddr,
        interface: Option<InterfaceId>,
    ) -> Result<(), Error> {
        let index = self.udp_index(id)?;
        let interface = self.interface_of_group(group, interface)?;
        let socket = &mut self.udp.sockets[index];
        let local = socket.local.ip();
        if local.is_ipv4() != group.is_ipv4() && !(group.is_ipv4() && socket.is_dual()) {
            return Err(Error::InvalidArgument);
        }
        if socket.groups.contains(&(group, interface)) {
            return Err(Error::AddrInUse);
        }
        if socket.groups.len() >= self.config.igmp_max_memberships as usize {
            return Err(Error::NoBufferSpace);
        }
        socket.groups.push((group, interface));
        let members = self.udp.groups.entry((group, interface)).or_default();
        *members += 1;
        if *members == 1 {
            self.membership_changed(group, interface, RecordKind::Joined);
        }
        Ok(())
    }

    /// Leaves a multicast group.
    ///
    /// # Errors
    ///
    /// [`AddrNotAvailable`](Error::AddrNotAvailable), it is no member; those of
    /// [`join_multicast`](Stack::join_multicast).
    pub fn leave_multicast(
        &mut self,
        id: SocketId,
        group: IpAddr,
        interface: Option<InterfaceId>,
    ) -> Result<(), Error> {
        let index = self.udp_index(id)?;
        let interface = self.interface_of_group(group, interface)?;
        let groups = &mut self.udp.sockets[index].groups;
        let at = groups.iter().position(|there| *there == (group, interface));
        groups.swap_remove(at.ok_or(Error::AddrNotAvailable)?);
        self.member_gone((group, interface));
        Ok(())
    }

    fn member_gone(&mut self, (group, interface): (IpAddr, InterfaceId)) {
        uncount(&mut self.udp.groups, &(group, interface));
        if !self.udp.groups.contains_key(&(group, interface)) {
            self.membership_changed(group, interface, RecordKind::Left);
        }
    }

    /// Lists the groups that a UDP socket has joined.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), not a UDP socket; [`NoSuchSocket`](Error::NoSuchSocket), a handle
    /// that was closed.
    pub fn multicast_groups(&self, id: SocketId) -> Result<&[(IpAddr, InterfaceId)], Error> {
        Ok(&self.udp.sockets[self.udp_index(id)?].groups)
    }

    /// Leaves the groups of a socket that closes.
    pub(super) fn leave_all(&mut self, index: u32) {
        let groups = std::mem::take(&mut self.udp.sockets[index].groups);
        groups.into_iter().for_each(|group| self.member_gone(group));
    }

    fn interface_of_group(
        &self,
        group: IpAddr,
        interface: Option<InterfaceId>,
    ) -> Result<InterfaceId, Error> {
        if !group.is_multicast() {
            return Err(Error::InvalidArgument);
        }
        match interface {
            Some(id) => self.routing.get(id).map(|link| link.id).ok_or(Error::InvalidArgument),
            None => self.routing.route(group).map(|route| route.interface).ok_or(Error::NetworkUnreachable),
        }
    }

    /// Returns whether datagrams to this address are taken: to a group that a socket has joined on the interface, or to a
    /// broadcast address while there are sockets.
    pub(super) fn takes_for_many(&self, destination: IpAddr, interface: InterfaceId) -> bool {
        if destination.is_multicast() {
            return self.udp.groups.contains_key(&(destination, interface));
        }
        self.udp.sockets.len() > 0 && self.addresses.is_for_many(destination)
    }

    /// Delivers a datagram to each socket that hears its destination. Returns whether there is one.
    pub(super) fn deliver_to_many(
        &mut self,
        tuple: &FourTuple,
        ecn: Ecn,
        interface: InterfaceId,
        payload: &[u8],
    ) -> bool {
        let (local, from) = (tuple.local(), tuple.remote());
        let group = (local.ip(), interface);
        let hears = |index: &u32| {
            let socket = &self.udp.sockets[*index];
            socket.hears(from) && (!group.0.is_multicast() || socket.groups.contains(&group))
        };
        let bound = self.udp.bindings.all_at(local.ip(), local.port());
        let hearers: Vec<_> = bound.filter(hears).collect();
        for index in &hearers {
            self.deliver_udp(*index, tuple, ecn, interface, payload);
        }
        !hearers.is_empty()
    }

    /// Queues a datagram for many. Sockets of this stack hear it too, unless `multicast_loop` is off.
    pub(super) fn send_to_many(&mut self, index: u32, payload: &[u8], to: SocketAddr) -> Result<(), Error> {
        let socket = &self.udp.sockets[index];
        let (options, multicast) = (&socket.options, to.ip().is_multicast());
        if !multicast && !options.broadcast {
            return Err(Error::Prohibited);
        }
        let (ecn, loops) = (options.ecn, !multicast || options.multicast_loop);
        let ttl = if multicast { options.multicast_ttl } else { options.ttl };
        let scope = match to {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(InterfaceId::from_index(v6.scope_id())),
            _ => options.multicast_if.filter(|_| multicast),
        };
        let by_route = || self.routing.route(to.ip()).map(|route| route.interface);
        let link =
            scope.or_else(by_route).and_then(|id| self.routing.get(id)).ok_or(Error::NetworkUnreachable)?;
        let local = socket.local;
        let source = match local.ip() {
            bound if !bound.is_unspecified() && !bound.is_multicast() => bound,
            _ => self.source_to_many(to.ip(), link.id).ok_or(Error::NetworkUnreachable)?,
        };
        let tuple = FourTuple::new((source, local.port()).into(), to);
        if ttl > 0 {
            self.queue_datagram(index, &tuple, payload, ttl, (link.mtu, Some(link.id)))?;
        }
        if loops && (!multicast || self.udp.groups.contains_key(&(to.ip(), link.id))) {
            let arriving = FourTuple::new(SocketAddr::new(to.ip(), to.port()), tuple.local());
            self.deliver_to_many(&arriving, ecn, link.id, payload);
        }
        Ok(())
    }

    /// Returns the source address of a datagram for many that leaves by an interface.
    fn source_to_many(&mut self, destination: IpAddr, id: InterfaceId) -> Option<IpAddr> {
        // A group of the link is spoken to from a link-local address (RFC 4291 §2.7).
        let alike = match destination {
            IpAddr::V6(v6) if v6.segments()[0] & 0xf == 2 => {
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into()
            }
            _ => destination,
        };
        let source = self.addresses.source_for(alike, alike, id);
        // The last answer is kept by destination alone.
        self.addresses.forget();
        source
    }
}

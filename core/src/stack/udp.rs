//! The stack's part of UDP: user calls, arriving datagrams and ICMP errors, and fragments on the way out.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::Stack;
use super::bindings::{Bindings, Reach, choose};
use super::inbound::Datagram;
use super::io::Sent;
use super::sockets::{SocketKind, as_mapped};
use crate::counters::DropReason;
use crate::error::Error;
use crate::forward::ForwardRule;
use crate::ip::membership::Reports;
use crate::ip::pmtu;
use crate::ip::routes::InterfaceId;
use crate::socket::{Event, SocketId};
use crate::table::Table;
use crate::tuple::FourTuple;
use crate::udp::{
    Arrived, Cost, Fields, Forwarded, MAX_PAYLOAD_V4, MAX_PAYLOAD_V6, Received, UdpOptions, UdpSocket,
    Waiting, cost, datagram,
};
use crate::wire::icmp::ErrorKind;
use crate::wire::{Ecn, PROTOCOL_UDP, ipv4, ipv6, udp};

impl Stack {
    /// Creates a UDP socket at a local address and port. `0.0.0.0` stands for all IPv4 addresses, `[::]` for all
    /// addresses of both families, or with [`only_v6`](UdpOptions::only_v6) for those of IPv6. A socket at a multicast
    /// address hears that group alone, once it has [joined](Stack::join_multicast) it. Port 0 chooses a port.
    /// [`close`](Stack::close) ends the socket; datagrams that wait for the device still leave.
    ///
    /// # Errors
    ///
    /// [`AddrNotAvailable`](Error::AddrNotAvailable), not an address of ours or no port left;
    /// [`AddrInUse`](Error::AddrInUse), another UDP socket is bound there, unless both
    /// [share](UdpOptions::reuse_port) it; [`NoBufferSpace`](Error::NoBufferSpace), `udp_max_sockets`.
    pub fn bind_udp(&mut self, mut local: SocketAddr, options: UdpOptions) -> Result<SocketId, Error> {
        let binds = |ip: IpAddr| ip.is_unspecified() || ip.is_multicast() || self.addresses.is_local(ip);
        if !binds(local.ip()) {
            return Err(Error::AddrNotAvailable);
        }
        if self.udp.sockets.len() >= self.config.udp_max_sockets as usize {
            return Err(Error::NoBufferSpace);
        }
        if local.port() == 0 {
            local.set_port(self.free_udp_port(local.ip(), &options).ok_or(Error::AddrNotAvailable)?);
        }
        if self.udp.bindings.is_taken(local, Reach::of_udp(&options)) {
            return Err(Error::AddrInUse);
        }
        let index = self.udp.sockets.next();
        let id = self.sockets.open(SocketKind::Udp(index));
        self.udp.bindings.insert(local, Reach::of_udp(&options), Some(index));
        self.udp.sockets.insert(UdpSocket::new(id, local, options));
        Ok(id)
    }

    /// Sets the peer of a UDP socket. [`send_to`](Stack::send_to) needs no destination then, datagrams of others are
    /// refused, and ICMP errors are reported. Another call sets another peer.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), port 0, no unicast address, not a UDP socket, or an address of
    /// the family that the socket does not take; [`NetworkUnreachable`](Error::NetworkUnreachable), no route or no
    /// local address of its family; [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn connect_udp(&mut self, id: SocketId, remote: SocketAddr) -> Result<(), Error> {
        let index = self.udp_index(id)?;
        let remote = canonical(remote);
        let source = self.udp_source(index, remote)?;
        if !self.leads_to(source, remote.ip()) {
            return Err(Error::NetworkUnreachable);
        }
        self.udp.sockets[index].remote = Some(remote);
        Ok(())
    }

    /// Queues a datagram, to `to` or else to the peer of [`connect_udp`](Stack::connect_udp). All of it is queued, or
    /// nothing.
    ///
    /// # Errors
    ///
    /// An error that ICMP reported, once; [`WouldBlock`](Error::WouldBlock), the send buffer is full, and
    /// [`Event::WRITABLE`] follows; [`NoBufferSpace`](Error::NoBufferSpace), `udp_mem`;
    /// [`MessageTooLong`](Error::MessageTooLong), no datagram is that long, or
    /// [`dont_fragment`](UdpOptions::dont_fragment) is set and the path MTU is smaller;
    /// [`DestinationAddressRequired`](Error::DestinationAddressRequired), neither of both addresses is known;
    /// [`Prohibited`](Error::Prohibited), a broadcast without [`broadcast`](UdpOptions::broadcast); those of
    /// [`connect_udp`](Stack::connect_udp).
    pub fn send_to(&mut self, id: SocketId, payload: &[u8], to: Option<SocketAddr>) -> Result<(), Error> {
        let index = self.udp_index(id)?;
        let socket = &mut self.udp.sockets[index];
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let to = to.map(canonical).or(socket.remote).ok_or(Error::DestinationAddressRequired)?;
        if self.addresses.is_for_many(to.ip()) && to.port() != 0 && self.udp.sockets[index].takes(to) {
            return self.send_to_many(index, payload, to);
        }
        let (source, port) = (self.udp_source(index, to)?, self.udp.sockets[index].local.port());
        let tuple = FourTuple::new((source, port).into(), to);
        let (mtu, ttl) = (self.udp_mtu(&tuple)?, self.udp.sockets[index].options.ttl);
        self.queue_datagram(index, &tuple, payload, ttl, (mtu, None))?;
        self.udp.sockets[index].note_destination(plain(to));
        Ok(())
    }

    /// Queues a datagram for a path MTU, and for an interface if not the route decides.
    pub(super) fn queue_datagram(
        &mut self,
        index: u32,
        tuple: &FourTuple,
        payload: &[u8],
        ttl: u8,
        (mtu, via): (u16, Option<InterfaceId>),
    ) -> Result<(), Error> {
        let options = &self.udp.sockets[index].options;
        let way = Way {
            ip: Fields { ttl, tos: options.dscp << 2 | options.ecn.bits(), dont_fragment: true },
            whole: options.dont_fragment,
            mtu,
            via,
        };
        self.queue_waiting(index, tuple, PROTOCOL_UDP, way, payload.len(), || datagram(tuple, payload))?;
        self.counters.udp_out_datagrams += 1;
        Ok(())
    }

    /// Queues a datagram with `len` bytes of payload, which `write` makes if there is room for it.
    pub(super) fn queue_waiting(
        &mut self,
        index: u32,
        tuple: &FourTuple,
        protocol: u8,
        way: Way,
        len: usize,
        write: impl FnOnce() -> Box<[u8]>,
    ) -> Result<(), Error> {
        let ipv4 = tuple.is_ipv4();
        let longest = if ipv4 { MAX_PAYLOAD_V4 } else { MAX_PAYLOAD_V6 };
        let headers = udp::HEADER_LEN + if ipv4 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        if len > longest || way.whole && len + headers > usize::from(way.mtu) {
            return Err(Error::MessageTooLong);
        }
        let (identification, cost) = (self.keys.random(), cost(len));
        let socket = &mut self.udp.sockets[index];
        // One datagram of any length always fits into an empty buffer.
        let room = socket.waiting.is_empty()
            || socket.waiting.held() + cost <= socket.options.sndbuf as usize
                && socket.waiting.len() < socket.most_waiting(&self.config);
        if !room {
            socket.blocked = true;
            self.counters.udp_sndbuf_errors += 1;
            return Err(Error::WouldBlock);
        }
        if self.udp.held + cost > self.config.udp_mem as usize {
            self.counters.udp_mem_errors += 1;
            return Err(Error::NoBufferSpace);
        }
        if socket.waiting.is_empty() {
            self.udp.ready.push_back(index);
        }
        let Way { ip, mtu, via, .. } = way;
        let (tuple, bytes) = (*tuple, write());
        socket.waiting.push(Waiting { tuple, protocol, bytes, ip, mtu, via, identification, sent: 0 });
        self.udp.held += cost;
        Ok(())
    }

    /// Takes the next datagram. The rest of a datagram longer than the buffer is lost.
    ///
    /// # Errors
    ///
    /// An error that ICMP reported, once; [`WouldBlock`](Error::WouldBlock), there is none;
    /// [`InvalidArgument`](Error::InvalidArgument), not a UDP socket; [`NoSuchSocket`](Error::NoSuchSocket), a handle
    /// that was closed.
    pub fn recv_from(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<Received, Error> {
        let received = self.peek_from(id, buffer)?;
        let index = self.udp_index(id)?;
        if let Some(datagram) = self.udp.sockets[index].received.pop() {
            self.udp.held -= datagram.cost();
        }
        Ok(received)
    }

    /// As [`recv_from`](Stack::recv_from), but the datagram stays.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](Stack::recv_from).
    pub fn peek_from(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<Received, Error> {
        let index = self.udp_index(id)?;
        let socket = &mut self.udp.sockets[index];
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let (dual, several) = (socket.is_dual(), self.routing.is_many());
        let datagram = socket.received.front().ok_or(Error::WouldBlock)?;
        let len = datagram.payload.len().min(buffer.len());
        buffer[..len].copy_from_slice(&datagram.payload[..len]);
        let mut from = if dual { as_mapped(datagram.from) } else { datagram.from };
        if let SocketAddr::V6(v6) = &mut from
            && v6.ip().is_unicast_link_local()
            && several
        {
            v6.set_scope_id(datagram.interface.index());
        }
        let &mut Arrived { to, ip, interface, .. } = datagram;
        let (to, ecn) = (to.ip(), Ecn::from_bits(ip.tos));
        Ok(Received { len, full_len: datagram.payload.len(), from, to, ecn, interface })
    }

    /// Returns the options of a UDP socket.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), not a UDP socket; [`NoSuchSocket`](Error::NoSuchSocket), a handle
    /// that was closed.
    pub fn udp_options(&self, id: SocketId) -> Result<&UdpOptions, Error> {
        Ok(&self.udp.sockets[self.udp_index(id)?].options)
    }

    /// Changes the options of a UDP socket, for datagrams from now on.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), not a UDP socket; [`NoSuchSocket`](Error::NoSuchSocket), a handle
    /// that was closed.
    pub fn set_udp_options(&mut self, id: SocketId, options: UdpOptions) -> Result<(), Error> {
        let index = self.udp_index(id)?;
        let UdpOptions { only_v6, reuse_port, .. } = self.udp.sockets[index].options;
        self.udp.sockets[index].options = UdpOptions { only_v6, reuse_port, ..options };
        Ok(())
    }

    pub(super) fn udp_index(&self, id: SocketId) -> Result<u32, Error> {
        match self.socket(id)?.kind {
            SocketKind::Udp(index) => Ok(index),
            _ => Err(Error::InvalidArgument),
        }
    }

    /// Returns the local address from which a socket sends to a peer.
    fn udp_source(&mut self, index: u32, to: SocketAddr) -> Result<IpAddr, Error> {
        let socket = &self.udp.sockets[index];
        let local = socket.local.ip();
        if !socket.takes(to) || to.port() == 0 || !self.addresses.is_unicast(to.ip()) {
            return Err(Error::InvalidArgument);
        }
        // A socket at a group hears it; no packet comes from there (RFC 1122 §3.2.1.3 (e)).
        if !local.is_unspecified() && !local.is_multicast() {
            return Ok(local);
        }
        self.source_towards(to)
    }

    /// Returns the path MTU of a datagram.
    pub(super) fn udp_mtu(&mut self, tuple: &FourTuple) -> Result<u16, Error> {
        if self.addresses.is_local(tuple.remote().ip()) {
            return Ok(self.interface.mtu);
        }
        let link = self.routing.towards(tuple);
        if link.id != InterfaceId::NONE { Ok(self.path_mtu(tuple)) } else { Err(Error::NetworkUnreachable) }
    }

    /// Returns a free port, a random one unless nearly all are taken.
    fn free_udp_port(&mut self, address: IpAddr, options: &UdpOptions) -> Option<u16> {
        let range = self.config.ip_local_port_range;
        let count = u32::from(range.last() - range.first()) + 1;
        // A port that others share is not a free one.
        let reach = Reach { shared: false, ..Reach::of_udp(options) };
        let is_free = |port: &u16| !self.udp.bindings.is_taken(SocketAddr::new(address, *port), reach);
        // Every port is drawn anew: a run of neighbours would tell the next port to who knows the last (RFC 5452 §10).
        let mut drawn =
            std::iter::repeat_with(|| range.first() + (self.keys.random() % count) as u16).take(32);
        drawn.find(is_free).or_else(|| (range.first()..=range.last()).find(is_free))
    }

    /// Closes a socket or a forwarder. Datagrams that wait for the device still leave.
    pub(super) fn close_udp(&mut self, index: u32) {
        self.leave_all(index);
        let socket = &mut self.udp.sockets[index];
        self.udp.held -= socket.received.held();
        socket.received = Default::default();
        socket.socket = None;
        match socket.forwards {
            Some(_) => self.udp.rules.retain(|(_, of)| *of != index),
            None => _ = self.udp.bindings.remove(socket.local, Some(index)),
        }
        if socket.waiting.is_empty() {
            self.udp.sockets.discard(index);
        }
    }

    /// A datagram for some port (RFC 1122 §4.1.3).
    pub(super) fn udp_arrives(&mut self, datagram: &Datagram<'_>) {
        let Some((header, payload)) = udp::parse(datagram.payload) else {
            self.counters.udp_in_errors += 1;
            return self.counters.count_drop(DropReason::UdpHeader);
        };
        let tuple = FourTuple {
            local_port: header.destination_port,
            remote_port: header.source_port,
            ..datagram.ends
        };
        if !datagram.checksum_trusted && !self.udp_checksum_holds(&tuple, &header, datagram.payload, payload)
        {
            self.counters.udp_in_errors += 1;
            self.counters.udp_in_csum_errors += 1;
            return self.counters.count_drop(DropReason::UdpChecksum);
        }
        let (local, from) = (tuple.local(), tuple.remote());
        if self.addresses.is_for_many(local.ip()) {
            // Nobody answers a datagram for many (RFC 1122 §3.2.2).
            if !self.deliver_to_many(&tuple, datagram.ecn, datagram.interface, payload) {
                self.counters.udp_no_ports += 1;
                self.counters.count_drop(DropReason::UdpNoPort);
            }
            return;
        }
        let ours = !self.addresses.accepts_any() || self.addresses.is_local(local.ip());
        // A socket on all addresses is on all of ours.
        let hearer = |udp: &Udp| udp.hearer(local, from, || self.keys.flow_hash(&tuple));
        if let Some(index) = ours.then(|| hearer(&self.udp)).flatten() {
            return self.deliver_udp(index, &tuple, datagram.ecn, datagram.interface, payload);
        }
        if let Some(index) = self.udp.forwarder_of(Forwarded::Udp, local) {
            return self.forward_datagram(index, &tuple, datagram, payload);
        }
        if !ours {
            return self.not_ours();
        }
        self.counters.udp_no_ports += 1;
        self.counters.count_drop(DropReason::UdpNoPort);
        self.unreachable(datagram, ErrorKind::PortUnreachable);
    }

    /// Puts a datagram into the receive queue of a socket, if there is room.
    pub(super) fn deliver_udp(
        &mut self,
        index: u32,
        tuple: &FourTuple,
        ecn: Ecn,
        interface: InterfaceId,
        payload: &[u8],
    ) {
        let tos = ecn.bits();
        let ip = Fields { ttl: 0, tos, dont_fragment: false };
        if self.receive_datagram(index, tuple, ip, interface, payload) {
            self.counters.udp_in_datagrams += 1;
        }
    }

    /// Puts a datagram into a receive queue. Returns whether there was room.
    pub(super) fn receive_datagram(
        &mut self,
        index: u32,
        tuple: &FourTuple,
        ip: Fields,
        interface: InterfaceId,
        payload: &[u8],
    ) -> bool {
        let socket = &mut self.udp.sockets[index];
        let cost = cost(payload.len());
        let full = socket.received.held() + cost > socket.options.rcvbuf as usize
            || socket.received.len() >= socket.most_waiting(&self.config);
        if full || self.udp.held + cost > self.config.udp_mem as usize {
            let forwards = socket.forwards.is_some();
            self.counters.udp_mem_errors += u64::from(!full);
            if forwards {
                self.counters.forward_queue_full += u64::from(full);
                self.counters.count_drop(DropReason::ForwardQueueFull);
            } else {
                self.counters.udp_in_errors += 1;
                self.counters.udp_rcvbuf_errors += u64::from(full);
                self.counters.count_drop(DropReason::ReceiveBufferFull);
            }
            return false;
        }
        // A copy of its own: the packet may be a slice of a much larger buffer.
        let payload = Bytes::copy_from_slice(payload);
        let (from, to) = (tuple.remote(), tuple.local());
        socket.received.push(Arrived { from, to, ip, interface, payload });
        self.udp.held += cost;
        let id = socket.socket;
        self.notify(id, Event::READABLE);
        true
    }

    /// Over IPv4 a sender may leave the checksum out (RFC 1122 §4.1.3.4); over IPv6 it may not (RFC 8200 §8.1).
    fn udp_checksum_holds(
        &self,
        tuple: &FourTuple,
        header: &udp::Header,
        bytes: &[u8],
        payload: &[u8],
    ) -> bool {
        if header.checksum == 0 {
            return tuple.is_ipv4();
        }
        let len = udp::HEADER_LEN + payload.len();
        tuple.pseudo_header_of(PROTOCOL_UDP, len as u32).verifies(&bytes[..len])
    }

    /// An ICMP error about a datagram that this stack allegedly sent. `hard`: the peer will not take it. Only a
    /// connected socket hears of an error (RFC 1122 §4.1.3.3 leaves the rest to options that nobody has here).
    pub(super) fn udp_error(&mut self, tuple: &FourTuple, error: Error, hard: bool) {
        let (local, remote) = (tuple.local(), tuple.remote());
        let known = self.udp.at(local, |socket| socket.is_peer(remote));
        let Some(index) = known.filter(|_| hard) else {
            return self.dropped(tuple, DropReason::IcmpUnmatched);
        };
        let socket = &mut self.udp.sockets[index];
        socket.error = Some(error);
        let id = socket.socket;
        self.notify(id, Event::ERROR | Event::READABLE | Event::WRITABLE);
    }

    /// A router's report that a datagram of `len` bytes exceeds the MTU. The socket must have sent to that destination
    /// lately, and the datagram must not fit what the report claims.
    pub(super) fn udp_too_big(&mut self, tuple: &FourTuple, len: u16, mtu: u32) {
        let (local, remote) = (tuple.local(), tuple.remote());
        let sent = self.udp.at(local, |socket| socket.sent_to(remote)).is_some();
        let header_len = if tuple.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let fits = usize::from(len) + header_len <= mtu as usize;
        if fits || !sent {
            return self.dropped(tuple, DropReason::IcmpUnmatched);
        }
        let (current, interface_mtu) = (self.path_mtu(tuple), self.interface_mtu(tuple));
        match pmtu::lowered(&self.config, remote.ip(), mtu, current, interface_mtu) {
            Some(mtu) => self.pmtu.remember(self.now, &self.config, remote.ip(), mtu),
            None => self.dropped(tuple, DropReason::IcmpInvalid),
        }
    }

    /// Sends a packet of the next socket in turn: a datagram or a fragment.
    pub(super) fn transmit_udp(&mut self, frame: &mut [u8]) -> Option<Sent> {
        let index = self.udp.ready.pop_front()?;
        let socket = &mut self.udp.sockets[index];
        let waiting = socket.waiting.front()?;
        let by_route = || self.routing.find(&waiting.tuple);
        let link = waiting.via.map_or_else(by_route, |id| self.routing.link(id));
        waiting.mtu = waiting.mtu.min(link.mtu);
        let len = waiting.next_packet(frame);
        if waiting.sent >= waiting.bytes.len()
            && let Some(gone) = socket.waiting.pop()
        {
            self.udp.held -= gone.cost();
        }
        let (id, more) = (socket.socket, !socket.waiting.is_empty());
        let room = socket.waiting.held() <= socket.options.sndbuf as usize / 2
            && socket.waiting.len() <= socket.most_waiting(&self.config) / 2;
        let wake = socket.blocked && room;
        socket.blocked &= !wake;
        if more {
            self.udp.ready.push_back(index);
        } else if id.is_none() {
            self.udp.sockets.discard(index);
        }
        if wake {
            self.notify(id, Event::WRITABLE);
        }
        Some(Sent::new(len, link.id, false))
    }
}

impl Waiting {
    /// Writes the next packet of the datagram: all of it, or the next fragment. Returns the packet's length.
    fn next_packet(&mut self, frame: &mut [u8]) -> usize {
        let mtu = usize::from(self.mtu).min(frame.len());
        let rest = self.bytes.len() - self.sent;
        let header_len = if self.tuple.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let whole = self.sent == 0 && header_len + rest <= mtu;
        let v6_fragment = if whole || self.tuple.is_ipv4() { 0 } else { ipv6::FRAGMENT_LEN };
        let room = mtu - header_len - v6_fragment;
        let more = rest > room;
        // All fragments but the last are multiples of eight bytes.
        let len = if more { room & !7 } else { rest };
        let offset = self.sent as u16;
        let Fields { ttl, tos, dont_fragment } = self.ip;
        let (dscp, ecn) = (tos >> 2, Ecn::from_bits(tos));
        let (head, body) = frame.split_at_mut(header_len + v6_fragment);
        match self.tuple.ipv4() {
            Some((source, destination)) => {
                let dont_fragment = whole && dont_fragment;
                let header = ipv4::Header {
                    ttl,
                    dscp,
                    ecn,
                    dont_fragment,
                    identification: if dont_fragment { 0 } else { self.identification as u16 },
                    more_fragments: more,
                    fragment_offset: offset,
                    ..ipv4::Header::new(source, destination, self.protocol)
                };
                header.emit(len, head);
            }
            None => {
                let protocol = if whole { self.protocol } else { ipv6::FRAGMENT };
                let header = ipv6::Header {
                    hop_limit: ttl,
                    dscp,
                    ecn,
                    ..ipv6::Header::new(self.tuple.local_address, self.tuple.remote_address, protocol)
                };
                header.emit(v6_fragment + len, head);
                if !whole {
                    let fragment = ipv6::Fragment { identification: self.identification, offset, more };
                    fragment.emit(self.protocol, &mut head[ipv6::HEADER_LEN..]);
                }
            }
        }
        body[..len].copy_from_slice(&self.bytes[self.sent..self.sent + len]);
        self.sent += len;
        header_len + v6_fragment + len
    }
}

/// The UDP sockets of a stack.
#[derive(Clone, Debug, Default)]
pub(super) struct Udp {
    pub(super) sockets: Table<UdpSocket>,
    pub(super) bindings: Bindings,
    /// The multicast groups of all sockets, with the number of members.
    pub(super) groups: BTreeMap<(IpAddr, InterfaceId), u32>,
    /// The reports of them that are owed to routers.
    pub(super) reports: Reports,
    /// The rules of forwarders with their rows, the most specific first.
    pub(super) rules: Vec<(ForwardRule, u32)>,
    /// Sockets with datagrams that wait for the device, each once, in turn.
    pub(super) ready: VecDeque<u32>,
    /// The cost of all waiting datagrams.
    pub(super) held: usize,
}

impl Udp {
    /// Returns the first socket at a local end for which `is` holds.
    fn at(&self, local: SocketAddr, is: impl Fn(&UdpSocket) -> bool) -> Option<u32> {
        self.bindings.nearest(local.ip(), local.port())?.find(|index| is(&self.sockets[*index]))
    }

    /// Returns the socket that hears a sender at a local end: one that is connected to it, else one without a peer. If
    /// several share the end, `spread` chooses.
    fn hearer(&self, local: SocketAddr, from: SocketAddr, spread: impl FnOnce() -> u64) -> Option<u32> {
        let mut takers = self.bindings.nearest(local.ip(), local.port())?;
        let without_peer = takers.clone().filter(|index| self.sockets[*index].remote.is_none());
        takers.find(|index| self.sockets[*index].is_peer(from)).or_else(|| choose(without_peer, spread))
    }

    /// Returns the forwarder of datagrams of a kind to a destination.
    pub(super) fn forwarder_of(&self, kind: Forwarded, destination: SocketAddr) -> Option<u32> {
        let takes = |(rule, index): &&(ForwardRule, u32)| {
            self.sockets[*index].forwards == Some(kind)
                && match kind {
                    Forwarded::Udp => rule.covers(destination),
                    Forwarded::Echo => rule.covers_address(destination.ip()),
                }
        };
        self.rules.iter().find(takes).map(|(_, index)| *index)
    }
}

/// How a datagram leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) ip: Fields,
    /// Refuse it rather than send it in fragments.
    pub(super) whole: bool,
    pub(super) mtu: u16,
    /// The interface, where not the route decides.
    pub(super) via: Option<InterfaceId>,
}

/// An IPv4-mapped address as the IPv4 address that it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => address,
        _ => SocketAddr::new(address.ip().to_canonical(), address.port()),
    }
}

/// The address and port that packets carry: no scope id.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

//! Interfaces with a link layer: frames in and out, and the questions for hardware addresses and their answers.
//!
//! The header of a frame is a prefix: a packet is written behind the room for it, and the header is filled in last. So a
//! stack without such interfaces pays one comparison for each packet.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::inbound::{Arrival, Through};
use super::timers::earlier;
use super::{Packet, PacketBytes, Stack, Transmit};
use crate::counters::{DropReason, ReplyReason};
use crate::error::Error;
use crate::flow::FlowRef;
use crate::ip::prefix::prefix_covers;
use crate::ip::routes::InterfaceId;
use crate::link::neighbours::{Expired, Heard, Key, Neighbour, Resolved, Told, Waiting};
use crate::link::ports::Outgoing;
use crate::time::{Duration, Instant};
use crate::tuple::{Quoted, mapped, quoted_packet};
use crate::wire::ethernet::{self, Address, HEADER_LEN};
use crate::wire::ndp::{self, Message, NdpOption};
use crate::wire::{PROTOCOL_ICMPV6, arp, build, ipv6};

/// Packets that one call of `transmit` sends to the queues of neighbours.
const UNRESOLVED: usize = 64;

/// Addresses of others for which an interface answers.
const PROXIES: usize = 64;

/// Timers of neighbours that one call runs.
const TIMERS: usize = 32;

/// An address is defended at most this often (RFC 5227 §2.4).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

impl Stack {
    /// Lists the neighbours on links with hardware addresses (`ip neigh`).
    pub fn neighbours(&self) -> Vec<Neighbour> {
        self.link.neighbours.iter().collect()
    }

    /// Sets the hardware address of a neighbour for good (`ip neigh replace … nud permanent`). Packets that waited for it
    /// leave.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), an interface of bare packets, or an address that is not that of a
    /// single host; [`NoBufferSpace`](Error::NoBufferSpace), `gc_thresh3`.
    pub fn add_neighbour(
        &mut self,
        id: InterfaceId,
        address: IpAddr,
        hardware: Address,
    ) -> Result<(), Error> {
        let unicast = hardware.is_unicast() && self.addresses.is_unicast(address);
        if !unicast || self.link.port(id).is_none() {
            return Err(Error::InvalidArgument);
        }
        let key = (id, address);
        let neighbours = &mut self.link.neighbours;
        let released = neighbours.set(self.now, &self.config, &mut self.counters, key, hardware);
        self.release(id, hardware, released.ok_or(Error::NoBufferSpace)?);
        Ok(())
    }

    /// Removes a neighbour, and drops the packets that wait for its hardware address. Returns whether it was there.
    pub fn remove_neighbour(&mut self, id: InterfaceId, address: IpAddr) -> bool {
        self.link.neighbours.remove(&(id, address))
    }

    /// Answers questions for the hardware address of another host, whose packets a forwarder takes (`ip neigh add proxy`,
    /// RFC 1027, RFC 4861 §7.2.8).
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), an interface of bare packets, or an address that is not that of a
    /// single host; [`NoBufferSpace`](Error::NoBufferSpace), 64 of them.
    pub fn add_neighbour_proxy(&mut self, id: InterfaceId, address: IpAddr) -> Result<(), Error> {
        let unicast = self.addresses.is_unicast(address);
        let port = self.link.port_mut(id).filter(|_| unicast).ok_or(Error::InvalidArgument)?;
        if port.proxies.contains(&address) {
            return Ok(());
        }
        if port.proxies.len() >= PROXIES {
            return Err(Error::NoBufferSpace);
        }
        port.proxies.push(address);
        Ok(())
    }

    /// Returns whether an interface answers for an address.
    fn answers_for(&self, id: InterfaceId, address: IpAddr) -> bool {
        self.addresses.interface_of(address) == Some(id) || self.link.is_proxy(id, address)
    }

    // Out.

    /// As [`transmit`](Stack::transmit), where packets may need the header of a frame. They are written behind the room for
    /// it.
    #[inline(never)]
    pub(super) fn transmit_framed(&mut self, frame: &mut [u8]) -> Option<Transmit> {
        for _ in 0..UNRESOLVED {
            self.link.yields = !self.link.yields;
            if self.link.yields
                && let Some(sent) = self.transmit_link(frame)
            {
                return Some(sent);
            }
            let Some(packet) = self.transmit_packet(&mut frame[HEADER_LEN..]) else {
                return self.transmit_link(frame);
            };
            let sent = self.complete_frame(packet, frame);
            if sent.is_some() {
                return sent;
            }
        }
        // The caller calls `advance`, and then again.
        self.astray = true;
        None
    }

    /// Sends a frame that waits: of the link layer, or one whose hardware address was found.
    fn transmit_link(&mut self, frame: &mut [u8]) -> Option<Transmit> {
        let Outgoing { interface, bytes, segment_size, checksum_offload } = self.link.pop()?;
        frame.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(Transmit { len: bytes.len(), sliced: 0, segment_size, checksum_offload, interface })
    }

    /// Writes the header before a packet. `None`: the packet waits for the hardware address, or is lost.
    #[inline]
    fn complete_frame(&mut self, packet: Transmit, frame: &mut [u8]) -> Option<Transmit> {
        let id = packet.interface;
        let Some(hardware) = self.link.port(id).map(|port| port.hardware) else {
            // Interfaces of both kinds: a bare packet begins where the frame does.
            frame.copy_within(HEADER_LEN..HEADER_LEN + packet.len, 0);
            return Some(packet);
        };
        let (head, bytes) = frame.split_at_mut(HEADER_LEN);
        let bytes = &bytes[..packet.len];
        let (destination, ethertype) = destination_of(bytes)?;
        let resolved = match self.link.hop(mapped(&destination).to_bits(), id) {
            Some(row) => self.link.neighbours.hardware(self.now, &self.config, row),
            None => self.resolve(destination, id),
        };
        match resolved {
            Resolved::To(to) => {
                ethernet::Header::new(hardware, to, ethertype).emit(head);
                Some(Transmit { len: HEADER_LEN + packet.len, ..packet })
            }
            Resolved::Wait { row, ask } => {
                self.wait(packet, bytes, row, ask);
                None
            }
            Resolved::Full => {
                self.link_failed(bytes);
                None
            }
        }
    }

    /// Returns the hardware address for packets to a destination that leave by an interface.
    #[inline(never)]
    fn resolve(&mut self, destination: IpAddr, id: InterfaceId) -> Resolved {
        if let Some(group) = Address::of_group(destination) {
            return Resolved::To(group);
        }
        if self.addresses.is_for_many(destination) {
            return Resolved::To(Address::BROADCAST);
        }
        let key = self.next_hop(destination, id);
        let neighbours = &mut self.link.neighbours;
        let resolved = neighbours.resolve(self.now, &self.config, &mut self.counters, key);
        if let Some(row) = self.link.neighbours.find(&key) {
            self.link.remember(mapped(&destination).to_bits(), id, row);
        }
        resolved
    }

    fn next_hop(&self, destination: IpAddr, id: InterfaceId) -> Key {
        let route = self.routing.route(destination).filter(|route| route.interface == id);
        (id, route.and_then(|route| route.gateway).unwrap_or(destination))
    }

    #[cold]
    fn wait(&mut self, packet: Transmit, bytes: &[u8], row: u32, ask: bool) {
        let Transmit { segment_size, checksum_offload, interface, .. } = packet;
        let source = source_of(bytes);
        let packet = self.slices.behind(bytes).into();
        let waiting = Waiting { packet, segment_size, checksum_offload };
        self.link.neighbours.hold(&self.config, &mut self.counters, row, waiting);
        if ask && let Some((destination, _)) = destination_of(bytes) {
            let key = self.next_hop(destination, interface);
            self.ask(key, None, source);
        }
    }

    /// Sends the question for a hardware address: to all, or to the address that is to be confirmed.
    fn ask(&mut self, (id, target): Key, confirm: Option<Address>, source: Option<IpAddr>) {
        let Some(hardware) = self.link.port(id).map(|port| port.hardware) else { return };
        let source = self.asking(id, target, source);
        let frame = match target {
            IpAddr::V4(target) => {
                let source = match source {
                    Some(IpAddr::V4(source)) => source,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                let to = confirm.unwrap_or(Address::BROADCAST);
                build::arp(hardware, to, &arp::Packet::request(hardware, source, target))
            }
            IpAddr::V6(target) => {
                // Without a source the question would look like a claim to the address.
                let Some(IpAddr::V6(source)) = source else { return };
                let group = ndp::solicited_node(target);
                let destination = if confirm.is_some() { target } else { group };
                let to = confirm.or(Address::of_group(group.into())).unwrap_or(Address::BROADCAST);
                let message = Message::NeighborSolicitation { target };
                let packet =
                    build::ndp(source, destination, &message, &[NdpOption::SourceLinkLayer(hardware)]);
                build::ethernet(&ethernet::Header::new(hardware, to, ethernet::TYPE_IPV6), &packet)
            }
        };
        self.push_frame(id, frame);
    }

    /// Returns the address of ours from which to ask for a neighbour: that of the packet, or one of the link.
    fn asking(&self, id: InterfaceId, target: IpAddr, wish: Option<IpAddr>) -> Option<IpAddr> {
        let wish = wish.filter(|address| self.addresses.interface_of(*address) == Some(id));
        let alike = || self.addresses.of(id).filter(|(address, _)| address.is_ipv4() == target.is_ipv4());
        let covers = |&(address, len): &(IpAddr, u8)| prefix_covers(address, len, target);
        wish.or_else(|| alike().find(covers).or_else(|| alike().next()).map(|(address, _)| address))
    }

    /// Queues a frame of the link layer, if there is room (`reply_queue`).
    pub(super) fn push_frame(&mut self, interface: InterfaceId, bytes: Vec<u8>) -> bool {
        let room = self.link.waiting() < self.config.reply_queue as usize;
        if room {
            self.link.push(Outgoing { interface, bytes, segment_size: None, checksum_offload: false });
        } else {
            self.counters.count_drop(DropReason::ReplyQueueFull);
        }
        room
    }

    /// Lets the packets leave whose hardware address was found.
    fn release(&mut self, interface: InterfaceId, to: Address, released: VecDeque<Waiting>) {
        let Some(hardware) = self.link.port(interface).map(|port| port.hardware) else { return };
        for Waiting { packet, segment_size, checksum_offload } in released {
            let Some((_, ethertype)) = destination_of(&packet) else { continue };
            let bytes = build::ethernet(&ethernet::Header::new(hardware, to, ethertype), &packet);
            self.link.push(Outgoing { interface, bytes, segment_size, checksum_offload });
        }
    }

    // Time.

    /// Runs the timers of neighbours that are due. Returns whether none is left.
    pub(super) fn mind_neighbours(&mut self) -> bool {
        self.advertise_due();
        for _ in 0..TIMERS {
            match self.link.neighbours.expire(self.now, &self.config, &mut self.counters) {
                Some(Expired::Ask(key, confirm)) => self.ask(key, confirm, None),
                Some(Expired::Failed(packets)) => {
                    packets.iter().for_each(|lost| self.link_failed(&lost.packet))
                }
                Some(Expired::Settled) => {}
                None => return true,
            }
        }
        false
    }

    /// A packet is lost because the next hop does not answer. Its sender hears that the host is unreachable, as from Linux:
    /// this ends an attempt to connect, and other connections go on.
    #[cold]
    fn link_failed(&mut self, packet: &[u8]) {
        let about = source_of(packet).and_then(|source| quoted_packet(source, packet));
        let Some(Quoted::Segment(tuple, seq)) = about else { return };
        match self.find(&tuple) {
            Some(FlowRef::Opening(index)) => {
                self.counters.attempt_fails += 1;
                self.fail_opening(index, Error::HostUnreachable);
            }
            Some(FlowRef::HalfOpen(index)) => self.forget_half_open(index),
            Some(FlowRef::Connection(index)) => {
                let error = Error::HostUnreachable;
                let outcome = self
                    .with_connection(index, |connection, env| connection.icmp_error(seq, error, false, env));
                self.apply(index, outcome, None);
            }
            _ => {}
        }
    }

    // In.

    /// Takes in a frame, or a packet of an interface of bare packets.
    #[inline(never)]
    pub(super) fn frame_arrives(&mut self, packet: Packet<'_>) {
        let Packet { bytes, checksum_trusted, interface } = packet;
        let how = Arrival { checksum_trusted, interface, through: Through::Device };
        let (bytes, shared) = match &bytes {
            PacketBytes::Borrowed(bytes) => (*bytes, None),
            PacketBytes::Shared(shared) => (&shared[..], Some(shared)),
        };
        let Some(hardware) = self.link.port(interface).map(|port| port.hardware) else {
            return self.ip_arrives(bytes, shared, how);
        };
        let parsed = ethernet::parse(bytes).filter(|(header, _)| {
            header.source.is_unicast() && header.source != hardware && header.vlan() == 0
        });
        let Some((header, payload)) = parsed else {
            return self.counters.count_drop(DropReason::FrameHeader);
        };
        let group = header.destination.is_group();
        let reason = match header.ethertype {
            _ if !group && header.destination != hardware => DropReason::FrameNotOurs,
            ethernet::TYPE_ARP => return self.arp_arrives(interface, &header, payload),
            ethernet::TYPE_IPV6 if is_ndp(payload) => return self.ndp_arrives(interface, &header, payload),
            ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6 if group && !self.is_group_packet(payload) => {
                DropReason::LinkBroadcast
            }
            ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6 => return self.ip_arrives(payload, shared, how),
            _ => DropReason::FrameType,
        };
        self.counters.count_drop(reason);
    }

    /// Returns whether a packet is for many. One for a single host must not come in a frame for many (RFC 1122 §3.3.6).
    fn is_group_packet(&self, packet: &[u8]) -> bool {
        destination_of(packet).is_none_or(|(destination, _)| self.addresses.is_for_many(destination))
    }

    /// RFC 826, with the checks of the sender that it leaves out.
    fn arp_arrives(&mut self, id: InterfaceId, frame: &ethernet::Header, payload: &[u8]) {
        let Some(packet) = arp::parse(payload).filter(|packet| packet.sender_hardware == frame.source) else {
            return self.counters.count_drop(DropReason::ArpInvalid);
        };
        let (sender, target) = (IpAddr::V4(packet.sender), IpAddr::V4(packet.target));
        if self.is_in_conflict(id, sender) {
            return;
        }
        let ours = self.answers_for(id, target);
        let probes = packet.sender.is_unspecified();
        if !probes && !self.is_neighbour(id, sender) || probes && packet.operation == arp::Operation::Reply {
            return self.counters.count_drop(DropReason::ArpInvalid);
        }
        let asks = packet.operation == arp::Operation::Request;
        let told = match asks {
            true if ours => Told::Asking,
            true => Told::Claiming { solicited: false, overrides: true },
            false => Told::Claiming { solicited: ours && !frame.destination.is_group(), overrides: true },
        };
        if !probes {
            // Requests for others are heard by all: nothing is wrong if their senders are unknown.
            self.hear((id, sender), frame.source, told, !asks);
        }
        if asks
            && ours
            && let Some(hardware) = self.link.port(id).map(|port| port.hardware)
            && self.push_frame(id, build::arp(hardware, frame.source, &packet.answer(hardware)))
        {
            self.counters.count_reply(ReplyReason::ArpReply);
        }
    }

    /// Returns whether a host of the link uses an address of ours. Then the address is defended (RFC 5227 §2.4 (b)).
    fn is_in_conflict(&mut self, id: InterfaceId, sender: IpAddr) -> bool {
        if !self.addresses.is_local(sender) {
            return false;
        }
        self.counters.count_drop(DropReason::AddressConflict);
        let ours = self.addresses.interface_of(sender) == Some(id);
        let now = self.now;
        if let Some(port) = self.link.port_mut(id).filter(|_| ours)
            && port.defended.is_none_or(|last| now >= last + DEFEND_INTERVAL)
        {
            port.defended = Some(now);
            let hardware = port.hardware;
            self.announce(id, hardware, sender);
        }
        true
    }

    /// Tells all hosts of the link that we have an address.
    fn announce(&mut self, id: InterfaceId, hardware: Address, address: IpAddr) {
        let frame = match address {
            IpAddr::V4(v4) => {
                build::arp(hardware, Address::BROADCAST, &arp::Packet::request(hardware, v4, v4))
            }
            IpAddr::V6(v6) => self.advertisement(
                hardware,
                v6,
                (ndp::ALL_NODES, Address::of_group(ndp::ALL_NODES.into())),
                false,
            ),
        };
        self.push_frame(id, frame);
    }

    fn advertisement(
        &self,
        hardware: Address,
        target: Ipv6Addr,
        (to, at): (Ipv6Addr, Option<Address>),
        solicited: bool,
    ) -> Vec<u8> {
        let router = self.link.is_router(hardware);
        let overrides = self.addresses.is_local(target.into());
        let message = Message::NeighborAdvertisement { target, router, solicited, overrides };
        let options = [NdpOption::TargetLinkLayer(hardware)];
        let packet = build::ndp(target, to, &message, &options);
        let to = at.unwrap_or(Address::BROADCAST);
        build::ethernet(&ethernet::Header::new(hardware, to, ethernet::TYPE_IPV6), &packet)
    }

    /// Returns whether a host with this address can be on the link: it is that of a single host, and packets to it leave
    /// by the same interface.
    fn is_neighbour(&self, id: InterfaceId, sender: IpAddr) -> bool {
        let on_link = match sender {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => true,
            _ => self.routing.route(sender).is_some_and(|route| route.interface == id),
        };
        on_link && self.addresses.is_unicast(sender) && !sender.is_loopback()
    }

    /// Takes in what a neighbour says about its hardware address. `count`: an unknown neighbour is a reason to drop.
    pub(super) fn hear(&mut self, key: Key, hardware: Address, told: Told, count: bool) {
        let mut released = VecDeque::new();
        // Hosts do not ask all at the same time (RFC 4861 §6.3.4).
        let factor = 0.5 + f64::from(self.keys.random()) / f64::from(u32::MAX);
        let reachable = self.config.base_reachable_time.mul_f64(factor);
        let claim = (key, hardware, told);
        let heard = self.link.neighbours.hear(self.now, &self.config, claim, reachable, &mut released);
        match heard {
            Heard::Taken => {}
            Heard::Unknown if count => self.counters.count_drop(DropReason::NeighUnsolicited),
            Heard::Unknown => {}
            Heard::Locked => self.counters.count_drop(DropReason::NeighLocked),
        }
        self.release(key.0, hardware, released);
    }

    /// RFC 4861 §7.2. The sender is checked as for ARP.
    fn ndp_arrives(&mut self, id: InterfaceId, frame: &ethernet::Header, packet: &[u8]) {
        self.counters.in_receives += 1;
        self.counters.icmp_in_msgs += 1;
        let parsed = ipv6::parse(packet).ok().and_then(|(header, payload)| {
            let (source, destination) = (header.source, header.destination);
            let (message, options) = ndp::parse(source, destination, header.hop_limit, payload)?;
            let told = options.source().or(options.target());
            // An option that names another host than the frame is a lie, or the work of a proxy.
            (told.is_none_or(|told| told == frame.source)).then_some((header, message, told))
        });
        let Some((header, message, told)) = parsed else {
            return self.counters.count_drop(DropReason::NdpInvalid);
        };
        let source = IpAddr::V6(header.source);
        if self.is_in_conflict(id, source) {
            return;
        }
        if !header.source.is_unspecified() && !self.is_neighbour(id, source) {
            return self.counters.count_drop(DropReason::NdpInvalid);
        }
        match message {
            Message::NeighborSolicitation { target } => {
                self.solicited(id, (header.source, frame.source), target, told.is_some());
            }
            Message::NeighborAdvertisement { target, solicited, overrides, .. } => {
                let target = IpAddr::V6(target);
                if self.is_in_conflict(id, target) {
                    return;
                }
                if !self.is_neighbour(id, target) {
                    return self.counters.count_drop(DropReason::NdpInvalid);
                }
                self.hear((id, target), frame.source, Told::Claiming { solicited, overrides }, true);
            }
            Message::RouterSolicitation => {
                self.router_solicited(id, (header.source, frame.source), told.is_some());
            }
            // Hosts here are configured by their users, not by routers.
            Message::RouterAdvertisement(_) => {
                self.counters.count_drop(DropReason::NdpIgnored);
            }
        }
    }

    /// A neighbour asks for an address, or claims it if it has no source yet (RFC 4862 §5.4.3).
    fn solicited(
        &mut self,
        id: InterfaceId,
        (source, from): (Ipv6Addr, Address),
        target: Ipv6Addr,
        names_itself: bool,
    ) {
        if !self.answers_for(id, target.into()) {
            // Groups are shared by addresses with the same last bytes.
            return self.counters.count_drop(DropReason::NotOurs);
        }
        let Some(hardware) = self.link.port(id).map(|port| port.hardware) else { return };
        let claims = source.is_unspecified();
        if !claims && names_itself {
            self.hear((id, source.into()), from, Told::Asking, false);
        }
        let to = if claims {
            (ndp::ALL_NODES, Address::of_group(ndp::ALL_NODES.into()))
        } else {
            (source, Some(from))
        };
        let frame = self.advertisement(hardware, target, to, !claims);
        if self.push_frame(id, frame) {
            self.counters.icmp_out_msgs += 1;
            self.counters.count_reply(ReplyReason::NeighborAdvertisement);
        }
    }

    /// Returns the next time for [`mind_neighbours`](Stack::mind_neighbours).
    #[inline]
    pub(super) fn neighbours_at(&self) -> Option<Instant> {
        earlier(self.link.neighbours.poll_at(), self.router_at())
    }
}

/// Returns the destination of a packet, and the EtherType of its version.
fn destination_of(packet: &[u8]) -> Option<(IpAddr, u16)> {
    if packet.first()? >> 4 == 4 {
        let octets = *packet.get(16..20)?.first_chunk::<4>()?;
        Some((IpAddr::V4(octets.into()), ethernet::TYPE_IPV4))
    } else {
        let octets = *packet.get(24..40)?.first_chunk::<16>()?;
        Some((IpAddr::V6(octets.into()), ethernet::TYPE_IPV6))
    }
}

fn source_of(packet: &[u8]) -> Option<IpAddr> {
    if packet.first()? >> 4 == 4 {
        Some(IpAddr::V4((*packet.get(12..16)?.first_chunk::<4>()?).into()))
    } else {
        Some(IpAddr::V6((*packet.get(8..24)?.first_chunk::<16>()?).into()))
    }
}

/// Returns whether an IPv6 packet is one of neighbour discovery, without extension headers: RFC 6980 forbids fragments,
/// and no option has a use there.
fn is_ndp(packet: &[u8]) -> bool {
    packet.get(6) == Some(&PROTOCOL_ICMPV6)
        && packet.get(ipv6::HEADER_LEN).is_some_and(|kind| ndp::is_ndp(*kind))
}

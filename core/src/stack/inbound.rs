//! Incoming packets: IP, then dispatch to the table of the 4-tuple.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;

use super::sockets::SocketKind;
use super::tables::FULL_ORPHANS;
use super::{Packet, PacketBytes, Stack, env_of};
use crate::counters::{DropReason, ReplyReason};
use crate::flow::FlowRef;
use crate::ip::fragments::{Key, Piece, Whole};
use crate::ip::routes::InterfaceId;
use crate::tcp::closed;
use crate::tcp::input::Outcome;
use crate::tcp::segment::{Reply, Segment};
use crate::tcp::syn_sent::SynSentOutcome;
use crate::tcp::tcb::{Connection, Env};
use crate::tcp::time_wait::{self, TimeWaitOutcome};
use crate::time::Instant;
use crate::trace::TraceKind;
use crate::tuple::FourTuple;
use crate::wire::icmp::ErrorKind;
use crate::wire::tcp::{self, Flags, Header};
use crate::wire::{
    Ecn, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_IGMP, PROTOCOL_TCP, PROTOCOL_UDP, ipv4, ipv6,
};

/// Bytes kept of a first fragment for a reassembly error: the IPv6 headers, including the fragment header, and eight
/// more bytes, by which the sender identifies the connection.
const FRAGMENT_QUOTE: usize = ipv6::HEADER_LEN + 8 + 8;

/// A complete IP datagram.
pub(super) struct Datagram<'a> {
    /// Its addresses; the ports are 0.
    pub(super) ends: FourTuple,
    pub(super) protocol: u8,
    pub(super) ecn: Ecn,
    pub(super) payload: &'a [u8],
    /// The packet that contains the payload, if it may be kept.
    pub(super) packet: Option<&'a Bytes>,
    /// IP header and the bytes after it, for ICMP errors to quote.
    pub(super) quote: &'a [u8],
    pub(super) checksum_trusted: bool,
    pub(super) interface: InterfaceId,
}

impl Datagram<'_> {
    pub(super) fn source(&self) -> IpAddr {
        self.ends.remote().ip()
    }

    pub(super) fn destination(&self) -> IpAddr {
        self.ends.local().ip()
    }
}

/// Returns whether routers ask for members of groups by this protocol.
fn is_membership(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_IGMP | PROTOCOL_ICMPV6)
}

/// The metadata of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) checksum_trusted: bool,
    pub(super) interface: InterfaceId,
    pub(super) through: Through,
}

/// The way by which a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    Device,
    /// From this stack to itself.
    Loop,
}

impl Stack {
    /// Receives a packet. Never fails: drops are counted and traced.
    ///
    /// `now` is the time at which the packet arrived, as exactly as the caller knows it, and not that of the call: round
    /// trips are measured with it. Read the clock after the device, and before anything that may take long.
    pub fn receive<'a>(&mut self, now: Instant, packet: impl Into<Packet<'a>>) {
        self.set_now(now);
        if self.link.is_there() {
            return self.frame_arrives(packet.into());
        }
        self.packet_arrives(packet.into(), Through::Device);
    }

    /// Receives the packets that the stack sent to itself. None is added meanwhile: replies wait for `transmit`.
    #[cold]
    pub(super) fn receive_looped(&mut self) {
        while let Some(packet) = self.looped.pop_front() {
            let packet = Packet::new(PacketBytes::Shared(packet), true);
            self.packet_arrives(packet, Through::Loop);
        }
    }

    #[inline(always)] // Inlined, so that a borrowed packet is taken apart before it is in memory.
    fn packet_arrives(&mut self, packet: Packet<'_>, through: Through) {
        let Packet { bytes, checksum_trusted, interface } = packet;
        let how = Arrival { checksum_trusted, interface, through };
        let (bytes, shared) = match &bytes {
            PacketBytes::Borrowed(bytes) => (*bytes, None),
            PacketBytes::Shared(shared) => (&shared[..], Some(shared)),
        };
        self.ip_arrives(bytes, shared, how);
    }

    #[inline]
    pub(super) fn ip_arrives(&mut self, bytes: &[u8], shared: Option<&Bytes>, how: Arrival) {
        self.counters.in_receives += 1;
        match bytes.first().map_or(0, |b| b >> 4) {
            4 => self.ipv4_arrives(bytes, shared, how),
            6 => self.ipv6_arrives(bytes, shared, how),
            _ => self.header_error(DropReason::IpHeader),
        }
    }

    fn ipv4_arrives(&mut self, packet: &[u8], shared: Option<&Bytes>, how: Arrival) {
        let (header, payload) = match ipv4::parse(packet) {
            Ok(parsed) => parsed,
            Err(ipv4::Error::Checksum) => return self.header_error(DropReason::IpChecksum),
            Err(_) => return self.header_error(DropReason::IpHeader),
        };
        if !self.addresses.fit_v4(header.source, header.destination)
            && !self.addresses_fit(header.source.into(), header.destination.into(), header.protocol, how)
        {
            return;
        }
        if header.source_route {
            return self.header_error(DropReason::SourceRoute);
        }
        let datagram = Datagram {
            ends: FourTuple::between_v4(header.destination, header.source),
            protocol: header.protocol,
            ecn: header.ecn,
            payload,
            packet: shared,
            quote: packet,
            checksum_trusted: how.checksum_trusted,
            interface: how.interface,
        };
        if !header.more_fragments && header.fragment_offset == 0 {
            return self.datagram_arrives(datagram);
        }
        let (source, destination) = (header.source.into(), header.destination.into());
        let identification = u32::from(header.identification);
        let key = Key { source, destination, identification, protocol: header.protocol };
        let (offset, more) = (usize::from(header.fragment_offset), header.more_fragments);
        self.fragment_arrives(key, offset, more, datagram);
    }

    fn ipv6_arrives(&mut self, packet: &[u8], shared: Option<&Bytes>, how: Arrival) {
        let Ok((header, payload)) = ipv6::parse(packet) else {
            return self.header_error(DropReason::IpHeader);
        };
        let (source, destination) = (IpAddr::V6(header.source), IpAddr::V6(header.destination));
        if !self.addresses_fit(source, destination, header.protocol, how) {
            return;
        }
        let datagram = Datagram {
            ends: FourTuple::of(&destination, 0, &source, 0),
            protocol: header.protocol,
            ecn: header.ecn,
            payload,
            packet: shared,
            quote: packet,
            checksum_trusted: how.checksum_trusted,
            interface: how.interface,
        };
        let Some(fragment) = header.fragment else {
            return self.datagram_arrives(datagram);
        };
        if fragment.offset == 0 && ipv6::parse_upper(header.protocol, payload).is_err() {
            // The first fragment must contain the whole header chain (RFC 7112).
            return self.header_error(DropReason::BadFragment);
        }
        let key =
            Key { source, destination, identification: fragment.identification, protocol: header.protocol };
        self.fragment_arrives(key, usize::from(fragment.offset), fragment.more, datagram);
    }

    fn addresses_fit(&mut self, source: IpAddr, destination: IpAddr, protocol: u8, how: Arrival) -> bool {
        let fit =
            match how.through {
                Through::Device if self.is_of_another_link(destination, how.interface) => {
                    Err(DropReason::NotOurs)
                }
                // A host that has no address yet asks for one (RFC 1122 §3.2.1.3 (a)).
                Through::Device if protocol == PROTOCOL_UDP && self.asks_for_address(source, destination) => {
                    Ok(())
                }
                // Only UDP is for many; TCP and ICMP answer a single host (MUST-57).
                Through::Device
                    if protocol == PROTOCOL_UDP && self.takes_for_many(destination, how.interface) =>
                {
                    self.addresses.check_source(source)
                }
                Through::Device
                    if is_membership(protocol) && self.hears_queries(destination, how.interface) =>
                {
                    if source.is_unspecified() { Ok(()) } else { self.addresses.check_source(source) }
                }
                Through::Device => self.addresses.check(source, destination),
                // The address may have been removed since the packet was sent.
                Through::Loop if self.addresses.is_local(destination) => Ok(()),
                Through::Loop => Err(DropReason::NotOurs),
            };
        match fit {
            Ok(()) => true,
            Err(reason) => {
                self.counters.in_addr_errors += 1;
                self.counters.count_drop(reason);
                false
            }
        }
    }

    fn asks_for_address(&self, source: IpAddr, destination: IpAddr) -> bool {
        source == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            && destination == IpAddr::V4(Ipv4Addr::BROADCAST)
            && self.link.is_there()
    }

    fn is_for_us(&self, destination: IpAddr) -> bool {
        self.addresses.is_local(destination) || self.addresses.is_for_many(destination)
    }

    /// A link-local address is that of its link (RFC 4291 §2.5.6).
    fn is_of_another_link(&self, destination: IpAddr, interface: InterfaceId) -> bool {
        matches!(destination, IpAddr::V6(v6) if v6.is_unicast_link_local())
            && self.addresses.interface_of(destination).is_some_and(|owner| owner != interface)
    }

    fn header_error(&mut self, reason: DropReason) {
        self.counters.in_hdr_errors += 1;
        self.counters.count_drop(reason);
    }

    fn fragment_arrives(&mut self, key: Key, offset: usize, more: bool, datagram: Datagram<'_>) {
        self.expire_fragments();
        self.counters.reasm_reqds += 1;
        let quote = &datagram.quote[..datagram.quote.len().min(FRAGMENT_QUOTE)];
        let piece = Piece { offset, more, payload: datagram.payload, quote };
        let evicted = self.fragments.evicted();
        let whole = self.fragments.insert(self.now, &self.config, key, piece);
        self.counters.reasm_fails += self.fragments.evicted() - evicted;
        match whole {
            Ok(None) => {}
            Ok(Some(Whole { payload, quote })) => {
                self.counters.reasm_oks += 1;
                let upper = match key.source {
                    IpAddr::V4(_) => Ok((key.protocol, &payload[..])),
                    IpAddr::V6(_) => ipv6::parse_upper(key.protocol, &payload),
                };
                let Ok((protocol, payload)) = upper else {
                    return self.header_error(DropReason::BadFragment);
                };
                let ends = (datagram.source(), datagram.destination());
                if self.share.is_some_and(|share| !share.has_datagram(ends.0, ends.1, protocol, payload)) {
                    // The stack that owns it has reassembled it as well.
                    return;
                }
                let checksum_trusted = false;
                self.datagram_arrives(Datagram {
                    protocol,
                    payload,
                    packet: None,
                    // An error quotes the fragment with the header behind that of IP (RFC 1122 §3.2.2).
                    quote: &quote,
                    checksum_trusted,
                    ..datagram
                });
            }
            Err(reason) => {
                self.counters.reasm_fails += 1;
                self.counters.count_drop(reason);
            }
        }
    }

    fn datagram_arrives(&mut self, datagram: Datagram<'_>) {
        match datagram.protocol {
            PROTOCOL_TCP => self.tcp_arrives(&datagram),
            PROTOCOL_ICMP if datagram.ends.is_ipv4() => self.icmp_arrives(&datagram),
            PROTOCOL_ICMPV6 if !datagram.ends.is_ipv4() => self.icmp_arrives(&datagram),
            PROTOCOL_UDP => self.udp_arrives(&datagram),
            PROTOCOL_IGMP if datagram.ends.is_ipv4() && !self.udp.groups.is_empty() => {
                self.igmp_arrives(&datagram);
            }
            // Forwarders take none of them.
            _ if self.addresses.accepts_any() && !self.is_for_us(datagram.destination()) => {
                self.not_ours();
            }
            _ => {
                self.counters.count_drop(DropReason::UnknownProtocol);
                self.unreachable(&datagram, ErrorKind::ProtocolUnreachable);
            }
        }
    }

    /// Drops a packet to an address of another host that no forwarder takes.
    pub(super) fn not_ours(&mut self) {
        self.counters.in_addr_errors += 1;
        self.counters.count_drop(DropReason::NotOurs);
    }

    /// Steps P1 to P5 of the pipeline, then demultiplexing (P4).
    fn tcp_arrives(&mut self, datagram: &Datagram<'_>) {
        self.counters.in_segs += 1;
        let mut header = Header::default();
        let payload = match self.sound_segment(datagram, &mut header) {
            Ok(payload) => payload,
            Err(reason) => {
                self.counters.in_errs += 1;
                return self.counters.count_drop(reason);
            }
        };
        // The ports come from the packet: reading those of `header`, just written, as one word would stall.
        let segment = Segment {
            tuple: datagram.ends.with_ports_of(datagram.payload),
            header: &header,
            payload,
            packet: datagram.packet,
            ecn: datagram.ecn,
        };
        let tuple = &segment.tuple;
        if self.trace.is_on() {
            self.note(tuple, TraceKind::SegmentIn { header, payload_len: payload.len() });
        }
        match self.find_last_or(tuple) {
            Some(FlowRef::Connection(index)) => self.connection_segment(index, &segment),
            Some(FlowRef::Dormant(index)) => {
                let index = self.wake(index);
                self.connection_segment(index, &segment);
            }
            Some(FlowRef::HalfOpen(index)) => self.half_open_segment(index, &segment),
            Some(FlowRef::Opening(index)) => self.opening_segment(index, &segment),
            Some(FlowRef::TimeWait(index)) => self.time_wait_segment(index, &segment, datagram),
            Some(FlowRef::Pending(index)) => self.pending_segment(index, &segment, datagram),
            None => match self.listener_at(tuple) {
                Some(listener) => self.listen_segment(listener, &segment, datagram),
                None if self.addresses.accepts_any() => self.unbound_segment(&segment, datagram, None),
                None => self.closed_segment(&segment),
            },
        }
    }

    /// Returns who listens at an address. A listener on all addresses is on all of ours, and not on those of others that
    /// forwarders take in. A keyed hash of the 4-tuple chooses among
    /// listeners that share an end.
    #[inline]
    pub(super) fn listener_at(&self, tuple: &FourTuple) -> Option<u32> {
        let (address, port) = (tuple.local().ip(), tuple.local_port);
        let listener = self.bindings.at(address, port, || self.keys.flow_hash(tuple))?;
        let ours = !self.addresses.accepts_any() || self.addresses.is_local(address);
        ours.then_some(listener)
    }

    fn sound_segment<'a>(
        &mut self,
        datagram: &Datagram<'a>,
        header: &mut Header,
    ) -> Result<&'a [u8], DropReason> {
        let bytes = datagram.payload;
        if bytes.len() < tcp::HEADER_LEN {
            return Err(DropReason::TcpHeader);
        }
        if !datagram.checksum_trusted {
            let pseudo_header = datagram.ends.pseudo_header(bytes.len() as u32);
            if !pseudo_header.verifies(bytes) {
                self.counters.in_csum_errors += 1;
                return Err(DropReason::TcpChecksum);
            }
        }
        let payload = header.read(bytes).map_err(|error| match error {
            tcp::Error::Options => DropReason::TcpOptions,
            tcp::Error::Truncated | tcp::Error::DataOffset => DropReason::TcpHeader,
        })?;
        if header.source_port == 0 || header.destination_port == 0 {
            return Err(DropReason::TcpHeader);
        }
        let flags = header.flags;
        let none = !(flags.syn() || flags.ack() || flags.rst() || flags.fin());
        let synfin = flags.contains(Flags::SYN | Flags::FIN) && self.drops_synfin(datagram, header);
        if none || synfin || flags.contains(Flags::SYN | Flags::RST) {
            return Err(DropReason::TcpFlags);
        }
        Ok(payload)
    }

    /// Whether a segment with SYN and FIN is dropped. In FreeBSD that does not hold for TIME-WAIT.
    // DRILL-F19, DRILL-F20
    #[cold]
    fn drops_synfin(&mut self, datagram: &Datagram<'_>, header: &Header) -> bool {
        let (local_port, remote_port) = (header.destination_port, header.source_port);
        let tuple = FourTuple { local_port, remote_port, ..datagram.ends };
        let rests = matches!(self.find(&tuple), Some(FlowRef::TimeWait(_)));
        self.config.tcp_drop_synfin && !(self.config.tcp_bsd_rules && rests)
    }

    pub(super) fn closed_segment(&mut self, segment: &Segment<'_>) {
        match closed::segment_arrives(segment) {
            Ok(reason) => {
                let mut rst = Reply::rst_to(segment, reason);
                // DRILL-F34
                if self.config.tcp_bsd_rules
                    && let Some(marks) = self.bindings.marks_at(segment.tuple.local())
                {
                    (rst.ttl, rst.dscp) = marks;
                }
                self.reset(segment, rst);
            }
            Err(reason) => self.dropped(&segment.tuple, reason),
        }
    }

    pub(super) fn connection_segment(&mut self, index: u32, segment: &Segment<'_>) {
        let pressed = self.gauge().is_above_pressure() && !segment.payload.is_empty();
        self.run_segment(index, segment, |connection, env| {
            if pressed {
                connection.segment_arrives_under_pressure(segment, env)
            } else {
                connection.segment_arrives(segment, env)
            }
        });
    }

    /// Runs a handler of a segment on its connection.
    #[inline]
    pub(super) fn run_segment(
        &mut self,
        index: u32,
        segment: &Segment<'_>,
        handle: impl FnOnce(&mut Connection, &mut Env<'_>) -> Outcome,
    ) {
        let outcome = self.with_connection(index, handle);
        self.apply(index, outcome, Some(segment));
        if self.orphans > FULL_ORPHANS {
            self.lay_down(index);
        }
        // A RST is never answered with one: relief may reset the connection.
        if !segment.payload.is_empty() && !segment.flags().rst() {
            self.mind_memory();
        }
    }

    fn opening_segment(&mut self, index: u32, segment: &Segment<'_>) {
        let outcome = self.openings[index].segment_arrives(segment, &mut env_of!(self));
        match outcome {
            SynSentOutcome::Dropped(reason) => self.dropped_stray(segment, reason),
            SynSentOutcome::Reset { hasten } => {
                self.dropped(&segment.tuple, DropReason::AckOfUnsent);
                let reply = Reply::rst_to(segment, ReplyReason::RstUnacceptableAck);
                let reply = reply.with_ip_of(&self.openings[index].options);
                self.reset(segment, reply);
                if hasten {
                    self.hasten_syn(index);
                }
            }
            SynSentOutcome::Failed(error) => self.fail_opening(index, error),
            SynSentOutcome::Synchronized => self.synchronize(index, segment),
        }
    }

    /// The opening becomes a connection.
    fn synchronize(&mut self, index: u32, segment: &Segment<'_>) {
        let opening = &self.openings[index];
        let lesson = opening.lesson(segment);
        if let Some(first) = opening.first_sent.filter(|_| segment.flags().ack()) {
            self.histograms.handshake.note(self.now - first);
        }
        let (agreed, handover) = self.take_opening(index).synchronize(segment, &env_of!(self));
        let socket = handover.socket;
        let index = self.add_connection(agreed, Some(FlowRef::Opening(index)));
        self.last_flow = index;
        let connection = &mut self.connections[index];
        handover.complete(connection, segment, &mut env_of!(self));
        self.memory.add(connection);
        if let Some(lesson) = lesson {
            self.cookies.learn(segment.tuple.remote().ip(), &lesson, &self.config, self.now);
        }
        if let Some(socket) = self.sockets.get_mut(socket) {
            socket.kind = SocketKind::Connection(index);
        }
        self.with_connection(index, |_, _| ());
    }

    fn time_wait_segment(&mut self, index: u32, segment: &Segment<'_>, datagram: &Datagram<'_>) {
        match self.time_waits.segment_arrives(index, segment, &mut env_of!(self)) {
            TimeWaitOutcome::Dropped(reason) => self.dropped_stray(segment, reason),
            TimeWaitOutcome::Reply { reply, restart } => {
                if restart {
                    let length = time_wait::length(&self.config);
                    self.time_waits.restart(index, self.now, length);
                }
                self.dropped_stray(segment, DropReason::TimeWaitSegment);
                self.reply(reply);
            }
            TimeWaitOutcome::Delete => self.remove_time_wait(index),
            TimeWaitOutcome::Reset(reply) => {
                self.reply(reply);
                self.remove_time_wait(index);
            }
            TimeWaitOutcome::GiveWay { above } => {
                match self.listener_at(&segment.tuple) {
                    Some(listener) => self.syn_segment(listener, segment, datagram, Some((index, above))),
                    // Nothing is sent before the decision, so the SYN cannot be tested by a SYN-ACK meanwhile: as
                    // RFC 6191 §2 has it, it ends TIME-WAIT.
                    None if self.is_forwarded(segment) => {
                        self.counters.tw_recycled += 1;
                        self.remove_time_wait(index);
                        self.unbound_segment(segment, datagram, Some(above));
                    }
                    // Nobody listens. Linux says that the connection is over. DRILL-X57
                    None if self.config.follows_linux() => {
                        let reply = self.time_waits.acknowledgment(index, &env_of!(self));
                        self.dropped_stray(segment, DropReason::TimeWaitSegment);
                        self.reply(reply);
                    }
                    // The listener is gone: handle the SYN as in CLOSED, and keep the entry.
                    None => self.closed_segment(segment),
                }
            }
        }
    }
}

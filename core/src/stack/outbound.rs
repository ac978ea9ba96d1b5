//! Filling frames, and choosing which connection or reply sends next.
//!
//! Connections share by bytes. Each has a turn of [`Turns::bytes`]; bytes sent beyond that are subtracted from its next
//! turn. Replies are packets outside of connections: SYN-ACKs, cookies, RSTs, ICMP messages, and the SYNs of our own
//! connects. While connections have something to send, replies get as many wire packets as they do, and the sorts of
//! replies take turns.

use bytes::Bytes;

use super::io::Sent;
use super::replies::Queued;
use super::template::HeaderTemplate;
use super::timers::arm;
use super::{Interface, Stack, Transmit, env_of};
use crate::buffer::Rope;
use crate::counters::ReplyReason;
use crate::error::Error;
use crate::flow::{FlowRef, PackedRef};
use crate::ip::routes::{InterfaceId, Link};
use crate::socket::SocketOptions;
use crate::tcp::room::room_in;
use crate::tcp::segment::{Outgoing, Reply};
use crate::tcp::tcb::{Connection, Env};
use crate::time::{Instant, Tick};
use crate::trace::TraceKind;
use crate::tuple::{FourTuple, ends_of};
use crate::wheel::{Due, TimerId};
use crate::wire::tcp::{self, Header};
use crate::wire::{Ecn, PROTOCOL_TCP, ipv4, ipv6};

/// A shorter payload is copied even if slices are asked for.
const SLICED_FROM: usize = 4096;

/// The fields of the IP header that a connection decides.
struct IpFields {
    ttl: u8,
    dscp: u8,
    ecn: Ecn,
}

/// The turns of connections and replies.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    /// Wire packets by which replies are ahead of connections.
    replies_ahead: i32,
    /// The sort of the last reply.
    sort: u8,
    /// The connection whose turn it is, and the bytes left in the turn.
    index: u32,
    left: i32,
    /// Bytes in one connection's turn. It covers several segments, so that templates serve for several and each wakeup
    /// of the peer's application is worthwhile. It is never less than one packet of any length.
    bytes: i32,
}

impl Turns {
    const NOBODY: u32 = u32::MAX;

    pub(super) fn new(interface: &Interface) -> Turns {
        const SOME_SEGMENTS: i32 = 32 * 1024;
        let mut turns =
            Turns { replies_ahead: 0, sort: 0, index: Turns::NOBODY, left: 0, bytes: SOME_SEGMENTS };
        turns.fit(interface);
        turns
    }

    /// Makes a turn as long as a packet of this interface.
    pub(super) fn fit(&mut self, interface: &Interface) {
        let longest = if interface.segmentation_offload { u16::MAX } else { interface.mtu };
        self.bytes = self.bytes.max(longest.into());
    }

    /// Charges a connection for the bytes that it sent. Returns whether its turn continues.
    #[inline]
    fn count(&mut self, index: u32, bytes: usize, connection: &mut Connection) -> bool {
        if self.index != index {
            (self.index, self.left) = (index, self.bytes - i32::from(connection.overdrawn));
        }
        self.left -= bytes as i32;
        // The longest packet is shorter than 64 KiB.
        connection.overdrawn = (-self.left).max(0) as u16;
        self.left > 0
    }
}

/// Slices of a send queue: the payload of the packet that is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Slices {
    /// The caller takes slices.
    wanted: bool,
    bytes: Vec<Bytes>,
}

impl Slices {
    fn len(&self) -> usize {
        self.bytes.iter().map(Bytes::len).sum()
    }

    /// Returns the whole packet, which begins with `head`.
    pub(super) fn behind(&mut self, head: &[u8]) -> Vec<u8> {
        let mut packet = Vec::with_capacity(head.len() + self.len());
        packet.extend_from_slice(head);
        self.bytes.drain(..).for_each(|slice| packet.extend_from_slice(&slice));
        packet
    }
}

impl Stack {
    /// Fills `frame` with the next packet to send. `None`: nothing to send before the next input, user call or
    /// [`advance`](Stack::advance).
    ///
    /// # Panics
    ///
    /// Panics if there is something to send and `frame` is shorter than [`frame_len`](Stack::frame_len): the packet might
    /// not fit.
    #[inline]
    pub fn transmit(&mut self, now: Instant, frame: &mut [u8]) -> Option<Transmit> {
        self.set_now(now);
        // Every turn ends with a check that finds nothing, so that check must be cheap.
        if !self.wants_transmit() || self.looped.len() >= self.config.loop_queue as usize {
            return None;
        }
        self.transmit_next(frame)
    }

    /// As [`transmit`](Stack::transmit), but a long payload is not copied where the device computes checksums: slices of
    /// the send queue are appended to `slices`, and [`Transmit::sliced`] says how long they are together. They keep the
    /// memory of the queue, which no longer counts once the peer has acknowledged the bytes: the caller holds few of
    /// them, and not for long.
    ///
    /// # Panics
    ///
    /// As [`transmit`](Stack::transmit).
    ///
    /// ```
    /// use steadfast_core::{Config, Instant, Interface, Stack};
    ///
    /// # let interface = Interface::new(1500, [("10.0.0.2".parse().unwrap(), 24)]);
    /// # let mut stack = Stack::new(Config::default(), interface);
    /// let (mut frame, mut slices) = (vec![0; stack.frame_len()], Vec::new());
    /// while let Some(sent) = stack.transmit_slices(Instant::ZERO, &mut frame, &mut slices) {
    ///     let packet = [&frame[..sent.len], &slices.concat()].concat();
    ///     assert_eq!(packet.len(), sent.len + sent.sliced);
    ///     slices.clear();
    /// }
    /// ```
    #[inline]
    pub fn transmit_slices(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        slices: &mut Vec<Bytes>,
    ) -> Option<Transmit> {
        self.slices.wanted = true;
        let transmit = self.transmit(now, frame);
        self.slices.wanted = false;
        match transmit {
            Some(sent) if sent.sliced > 0 => slices.append(&mut self.slices.bytes),
            // There may be those of a packet that was dropped.
            _ => self.slices.bytes.clear(),
        }
        transmit
    }

    /// Whether [`transmit`](Stack::transmit) may have something to send now.
    #[inline]
    pub fn wants_transmit(&self) -> bool {
        !self.ready.is_empty() || self.any_reply()
    }

    #[inline]
    fn any_reply(&self) -> bool {
        !self.replies.is_empty()
            || self.wheel.any_due()
            || !self.udp.ready.is_empty()
            || self.link.wants_transmit()
    }

    #[inline(never)]
    fn transmit_next(&mut self, frame: &mut [u8]) -> Option<Transmit> {
        let (len, needed) = (frame.len(), self.frame_len);
        assert!(len >= needed, "a frame of {len} bytes: expected at least {needed}");
        if self.link.is_there() { self.transmit_framed(frame) } else { self.transmit_packet(frame) }
    }

    /// Fills the frame with the next packet, without a header before it.
    pub(super) fn transmit_packet(&mut self, frame: &mut [u8]) -> Option<Transmit> {
        /// Packets without a route that one call drops.
        const ASTRAY: usize = 64;
        let mut astray = 0;
        loop {
            if self.slices.wanted {
                // There may be those of a packet that was dropped.
                self.slices.bytes.clear();
            }
            let transmit = if self.any_reply() {
                self.transmit_in_turn(frame)
            } else {
                self.transmit_ready(frame).map(|sent| self.sent_data(sent))
            }?;
            self.counters.out_requests += 1;
            let packet = &frame[..transmit.len];
            if !self.addresses.loops(packet) {
                if self.routing.refuses {
                    continue;
                }
                if transmit.interface != InterfaceId::NONE {
                    return Some(transmit);
                }
                self.counters.out_no_routes += 1;
                astray += 1;
                if astray == ASTRAY {
                    self.astray = true;
                    return None;
                }
            } else if !self.loop_back(packet) {
                return None;
            }
        }
    }

    /// A packet to one of our own addresses never reaches the device (RFC 1122 §3.2.1.3 (g)). The next `advance`
    /// receives it, so that no reply is made within the call that causes it. Returns whether there is room for
    /// another one.
    #[cold]
    fn loop_back(&mut self, packet: &[u8]) -> bool {
        self.looped.push_back(self.slices.behind(packet).into());
        let room = self.looped.len() < self.config.loop_queue as usize;
        self.counters.loop_queue_full += u64::from(!room);
        room
    }

    fn sent_data(&self, sent: Sent) -> Transmit {
        let sliced = if self.slices.wanted { self.slices.len() } else { 0 };
        sent.transmit(self.outgoing.segment_size, sliced)
    }

    /// Sends when replies wait; connections may wait too.
    fn transmit_in_turn(&mut self, frame: &mut [u8]) -> Option<Transmit> {
        if self.turns.replies_ahead > 0
            && let Some(sent) = self.transmit_ready(frame)
        {
            let transmit = self.sent_data(sent);
            self.turns.replies_ahead -= self.outgoing.packets() as i32;
            return Some(transmit);
        }
        if let Some(sent) = self.transmit_some_reply(frame) {
            self.turns.replies_ahead = (self.turns.replies_ahead + 1).min(1);
            return Some(sent.transmit(None, 0));
        }
        self.transmit_ready(frame).map(|sent| self.sent_data(sent))
    }

    fn transmit_some_reply(&mut self, frame: &mut [u8]) -> Option<Sent> {
        if !self.wheel.any_due() && self.udp.ready.is_empty() {
            self.turns.sort = 0;
            return self.transmit_reply(frame);
        }
        let mut waiting = self.waiting_sorts();
        while waiting != 0 {
            let after = waiting & u8::MAX << (self.turns.sort + 1);
            self.turns.sort = if after == 0 { waiting } else { after }.trailing_zeros() as u8;
            waiting &= !(1 << self.turns.sort);
            let sent = match self.turns.sort {
                0 => self.transmit_reply(frame),
                1 => self.transmit_syn_ack(Due::SynAck, frame),
                2 => self.transmit_syn_ack(Due::SynAckRetransmit, frame),
                3 => self.transmit_udp(frame),
                _ => self.transmit_opening(frame),
            };
            if sent.is_some() {
                return sent;
            }
        }
        None
    }

    /// Returns a bit for each sort of reply that waits.
    fn waiting_sorts(&self) -> u8 {
        let waits = |due: Due| self.wheel.due() >> due as u8 & 1;
        u8::from(!self.replies.is_empty())
            | waits(Due::SynAck) << 1
            | waits(Due::SynAckRetransmit) << 2
            | u8::from(!self.udp.ready.is_empty()) << 3
            | waits(Due::Syn) << 4
    }

    #[inline]
    fn transmit_ready(&mut self, frame: &mut [u8]) -> Option<Sent> {
        while let Some(index) = self.ready.first() {
            let sent = self.transmit_connection(index, frame);
            if sent.is_some() {
                return sent;
            }
        }
        None
    }

    fn transmit_reply(&mut self, frame: &mut [u8]) -> Option<Sent> {
        match self.replies.pop_front()? {
            Queued::Packet(packet) => {
                let interface =
                    ends_of(&packet).map_or(InterfaceId::NONE, |ends| self.routing.towards(&ends).id);
                Some(copied(&packet, interface, frame))
            }
            Queued::Report(interface, packet) => Some(copied(&packet, interface, frame)),
            Queued::Segment(mut reply) => Some(self.transmit_segment_reply(&mut reply, frame)),
        }
    }

    /// Sends the SYN-ACK of a half-open connection. It counts as a try, and its timer runs, from the time it leaves.
    fn transmit_syn_ack(&mut self, due: Due, frame: &mut [u8]) -> Option<Sent> {
        let index = self.wheel.next_due(due)?;
        if due == Due::SynAckRetransmit {
            self.half_open[index].retries += 1;
            self.counters.tcp_syn_retrans += 1;
            self.counters.retrans_segs += 1;
        }
        self.arm_half_open(index);
        let mut reply = self.syn_ack_of(index, ReplyReason::SynAck);
        Some(self.transmit_segment_reply(&mut reply, frame))
    }

    fn transmit_segment_reply(&mut self, reply: &mut Reply, frame: &mut [u8]) -> Sent {
        let header = &mut reply.header;
        // Others always fit.
        if header.options.fast_open.is_some() || !header.options.sack.is_empty() {
            let mtu = self.path_mtu(&reply.tuple);
            header.options.layout = self.config.tcp_option_layout;
            header.options.fit_into(room_in(mtu, reply.tuple.is_ipv4()).into());
        }
        let ttl = if reply.ttl > 0 { reply.ttl } else { self.config.ip_default_ttl };
        let ip = IpFields { ttl, dscp: reply.dscp, ecn: Ecn::NotEct };
        finish(&mut env_of!(self), &reply.tuple, header, 0);
        let link = self.routing.towards(&reply.tuple);
        emit(&reply.tuple, header, &ip, Payload::None, &link, frame)
    }

    #[inline(never)]
    fn transmit_connection(&mut self, index: u32, frame: &mut [u8]) -> Option<Sent> {
        let tick = Tick::at(self.now);
        if self.routing.is_many() {
            self.follow_route(index);
        }
        let (connection, template) = self.connections.sender(index, tick);
        let link = self.routing.towards(&connection.tcb.tuple);
        // Another segment always follows one with a template.
        let mut more = true;
        if template.is_some() {
            connection.next_alike(&mut self.outgoing);
        } else {
            let any =
                connection.next_segment(link.segmentation_offload, &mut self.outgoing, &mut env_of!(self));
            arm(&mut self.wheel, index, connection);
            if !any {
                self.end_turn(index);
                self.hold(index);
                return None;
            }
            more = connection.wants_to_send();
        }
        let tuple = &connection.tcb.tuple;
        finish(&mut env_of!(self), tuple, &mut self.outgoing.header, self.outgoing.payload_len);
        let (queue, outgoing) = (&mut connection.send_queue, &self.outgoing);
        let sent = match template {
            Some(template) => template.emit(outgoing.header.seq, outgoing.offset, queue, frame),
            None => {
                let SocketOptions { ttl, dscp, .. } = *connection.options;
                let ip = IpFields { ttl, dscp, ecn: outgoing.ecn };
                let (offset, len) = (outgoing.offset, outgoing.payload_len);
                // A template copies.
                let slices = self.slices.wanted && len >= SLICED_FROM && outgoing.alike == 0;
                let sliced = slices && link.checksum_offload && {
                    let slices = &mut self.slices.bytes;
                    self.memory.change(queue, |queue| queue.share(offset, len, slices))
                };
                let payload = if sliced { Payload::Sliced(len) } else { Payload::Queued(queue, offset, len) };
                let sent = emit(tuple, &outgoing.header, &ip, payload, &link, frame);
                if outgoing.alike > 0 {
                    *template = HeaderTemplate::of(index, tick, tuple, sent, outgoing.payload_len, frame);
                }
                sent
            }
        };
        if outgoing.alike == 0 {
            *template = None;
        }
        if self.turns.count(index, sent.len, connection) && more {
            return Some(sent);
        }
        // The connection goes to the back of the queue for the rest.
        match (more, self.ready.is_alone(index)) {
            (true, true) => {}
            (true, false) => self.ready.rotate(&mut self.connections),
            (false, true) => self.ready.remove_alone(&mut connection.ready),
            (false, false) => self.ready.remove(index, &mut self.connections),
        }
        self.turns.index = Turns::NOBODY;
        Some(sent)
    }

    /// Fits a connection to its present route. A later segment of a template follows the same route as the first.
    #[inline(never)]
    fn follow_route(&mut self, index: u32) {
        let Some(connection) = self.connections.get(index) else { return };
        let link = self.routing.towards(&connection.tcb.tuple);
        let mtu = connection.tcb.snd.path.mtu;
        let locked = link.mtu != mtu && self.routing.path(&connection.tcb.tuple).mtu_lock;
        if link.mtu < mtu || locked {
            self.with_connection(index, |connection, env| connection.fit_interface(link.mtu, env));
        }
        if link.id == InterfaceId::NONE {
            self.connections[index].soft_error = Some(Error::NetworkUnreachable);
        }
    }

    /// Removes a connection from the queue: it has nothing more to send, or has ended.
    #[inline]
    pub(super) fn end_turn(&mut self, index: u32) {
        self.ready.remove(index, &mut self.connections);
        if self.turns.index == index {
            self.turns.index = Turns::NOBODY;
        }
    }

    fn transmit_opening(&mut self, frame: &mut [u8]) -> Option<Sent> {
        loop {
            let index = self.wheel.next_due(Due::Syn)?;
            let sent = self.transmit_syn(index, frame);
            if sent.is_some() {
                return sent;
            }
        }
    }

    fn transmit_syn(&mut self, index: u32, frame: &mut [u8]) -> Option<Sent> {
        let opening = &mut self.openings[index];
        opening.queued = false;
        let link = self.routing.towards(&opening.tuple);
        opening.pmtu = opening.pmtu.min(link.mtu);
        if link.id == InterfaceId::NONE {
            opening.soft_error = Some(Error::NetworkUnreachable);
        }
        // Not in `self.outgoing`, from which the segments of a template continue.
        let mut outgoing = Outgoing::bare(Header::default());
        if !opening.next_segment(&mut outgoing, &mut env_of!(self)) {
            self.wheel.remove(std::mem::replace(&mut opening.timer, TimerId::NONE));
            return None;
        }
        let deadline = Tick::after(self.now, opening.wait(self.now, &self.config));
        let target = PackedRef::from(FlowRef::Opening(index)).0;
        opening.timer = self.wheel.rearm(opening.timer, deadline, target);
        let ip = IpFields { ttl: opening.options.ttl, dscp: opening.options.dscp, ecn: Ecn::NotEct };
        finish(&mut env_of!(self), &opening.tuple, &mut outgoing.header, outgoing.payload_len);
        let payload = Payload::Queued(&mut opening.send_queue, outgoing.offset, outgoing.payload_len);
        Some(emit(&opening.tuple, &outgoing.header, &ip, payload, &link, frame))
    }
}

/// Writes a packet that is complete.
fn copied(packet: &[u8], interface: InterfaceId, frame: &mut [u8]) -> Sent {
    let len = packet.len().min(frame.len());
    frame[..len].copy_from_slice(&packet[..len]);
    Sent::new(len, interface, false)
}

/// Prepares any segment before it is written: lays out its options, counts it, and traces it.
#[inline]
fn finish(env: &mut Env<'_>, tuple: &FourTuple, header: &mut Header, payload_len: usize) {
    header.options.layout = env.config.tcp_option_layout;
    env.counters.out_segs += 1;
    env.counters.out_rsts += u64::from(header.flags.rst());
    if env.trace.is_on() {
        let header = *header;
        env.note(tuple, TraceKind::SegmentOut { header, payload_len });
    }
}

/// The payload of a segment.
enum Payload<'a> {
    None,
    /// Bytes of a queue, from an offset on.
    Queued(&'a mut Rope, usize, usize),
    /// That many bytes, which do not go into the frame. The device computes the checksum.
    Sliced(usize),
}

impl Payload<'_> {
    fn len(&self) -> usize {
        match self {
            Payload::None => 0,
            Payload::Queued(_, _, len) | Payload::Sliced(len) => *len,
        }
    }
}

/// Writes IP header, TCP header and payload. The payload is summed during the copy, unless the device computes checksums.
fn emit(
    tuple: &FourTuple,
    header: &Header,
    ip: &IpFields,
    payload: Payload<'_>,
    link: &Link,
    frame: &mut [u8],
) -> Sent {
    let checksum_offload = link.checksum_offload;
    let header_len = header.header_len();
    let segment_len = header_len + payload.len();
    let ip_len = emit_ip(tuple, ip, segment_len, frame);
    let (head, rest) = frame[ip_len..].split_at_mut(header_len);
    let mut sum = tuple.pseudo_header(segment_len as u32);
    let pseudo_header = sum;
    header.emit_and_add(head, &mut sum);
    if checksum_offload {
        // The device adds the rest to the sum of the pseudo-header.
        tcp::set_checksum(head, !pseudo_header.finish());
        if let Payload::Queued(queue, offset, len) = payload {
            queue.peek(offset, &mut rest[..len]);
        }
    } else {
        if let Payload::Queued(queue, offset, len) = payload
            && len > 0
        {
            queue.copy_out(offset, &mut rest[..len], &mut sum);
        }
        tcp::set_checksum(head, sum.finish());
    }
    Sent::new(ip_len + segment_len, link.id, checksum_offload)
}

fn emit_ip(tuple: &FourTuple, ip: &IpFields, payload_len: usize, frame: &mut [u8]) -> usize {
    match tuple.ipv4() {
        Some((source, destination)) => {
            // With DF the identification has no meaning (RFC 6864), and zero leaks nothing (THREAT-25).
            let header = ipv4::Header {
                ttl: ip.ttl,
                dscp: ip.dscp,
                ecn: ip.ecn,
                ..ipv4::Header::new(source, destination, PROTOCOL_TCP)
            };
            header.emit(payload_len, frame);
            ipv4::HEADER_LEN
        }
        None => {
            let header = ipv6::Header {
                hop_limit: ip.ttl,
                dscp: ip.dscp,
                ecn: ip.ecn,
                ..ipv6::Header::new(tuple.local_address, tuple.remote_address, PROTOCOL_TCP)
            };
            header.emit(payload_len, frame);
            ipv6::HEADER_LEN
        }
    }
}

//! Filling frames: stateless answers first, then connections in turn.

use super::train::Train;
use super::{Reply, Stack, Transmit, arm, env};
use crate::buffer::Rope;
use crate::flow::{FlowRef, FourTuple, PackedRef};
use crate::socket::SocketOptions;
use crate::tcp::segment::{Answer, Outgoing};
use crate::tcp::tcb::Env;
use crate::time::{Instant, Tick};
use crate::trace::TraceKind;
use crate::wire::tcp::{self, Header};
use crate::wire::{Ecn, PROTOCOL_TCP, ipv4, ipv6};

/// What of the IP header a connection decides.
struct IpFields {
    ttl: u8,
    dscp: u8,
    ecn: Ecn,
}

/// Of what [`Transmit`] says the part that the packet itself decides; it fits into two registers.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) len: usize,
    pub(super) checksum_offload: bool,
}

impl Stack {
    /// Fills `frame` with the next packet to send. `None`: nothing to send now, or `frame` is shorter than the MTU
    /// (with segmentation offload: than 65,535 bytes).
    #[inline]
    pub fn transmit(&mut self, now: Instant, frame: &mut [u8]) -> Option<Transmit> {
        self.set_now(now);
        // Every turn ends with a look that finds nothing: it should cost no more than that.
        if self.ready.is_empty() && self.replies.is_empty() { None } else { self.transmit_next(frame) }
    }

    #[inline(never)]
    fn transmit_next(&mut self, frame: &mut [u8]) -> Option<Transmit> {
        let offload = self.interface.segmentation_offload;
        let least = if offload { 65_535 } else { usize::from(self.interface.mtu) };
        if frame.len() < least {
            return None;
        }
        let Sent { len, checksum_offload } = match self.replies.pop_front() {
            Some(reply) => self.transmit_reply(&reply, frame),
            None => self.transmit_ready(frame)?,
        };
        self.counters.out_requests += 1;
        Some(Transmit { len, segment_size: self.outgoing.segment_size, checksum_offload })
    }

    fn transmit_ready(&mut self, frame: &mut [u8]) -> Option<Sent> {
        while let Some(packed) = self.ready.pop_front() {
            let sent = match FlowRef::from(packed) {
                FlowRef::Connection(index) => self.transmit_connection(index, frame),
                FlowRef::Opening(index) => self.transmit_opening(index, frame),
                FlowRef::HalfOpen(_) | FlowRef::TimeWait(_) => None,
            };
            if sent.is_some() {
                return sent;
            }
        }
        None
    }

    fn transmit_reply(&mut self, reply: &Reply, frame: &mut [u8]) -> Sent {
        match reply {
            Reply::Packet(packet) => {
                let len = packet.len().min(frame.len());
                frame[..len].copy_from_slice(&packet[..len]);
                self.outgoing.segment_size = None;
                Sent { len, checksum_offload: false }
            }
            Reply::Segment(answer) => self.transmit_answer(answer, frame),
        }
    }

    fn transmit_answer(&mut self, answer: &Answer, frame: &mut [u8]) -> Sent {
        let header = Header {
            source_port: answer.tuple.local_port,
            destination_port: answer.tuple.remote_port,
            seq: answer.seq,
            ack: answer.ack,
            flags: answer.flags,
            window: answer.window,
            options: answer.options,
            ..Header::default()
        };
        self.train_out = None;
        self.outgoing = Outgoing::bare(header);
        let ttl = if answer.ttl > 0 { answer.ttl } else { self.config.ip_default_ttl };
        let ip = IpFields { ttl, dscp: answer.dscp, ecn: Ecn::NotEct };
        finish(&mut env!(self), &answer.tuple, &mut self.outgoing);
        emit(&answer.tuple, &self.outgoing, &ip, &mut Rope::default(), self.interface.checksum_offload, frame)
    }

    fn transmit_connection(&mut self, index: u32, frame: &mut [u8]) -> Option<Sent> {
        let connection = self.connections.get_mut(index)?;
        let tick = Tick::at(self.now);
        self.train_out.take_if(|train| !train.goes_on(index, tick));
        if self.train_out.is_some() {
            connection.follow(&mut self.outgoing);
        } else {
            let offload = self.interface.segmentation_offload;
            let any = connection.next_segment(offload, &mut self.outgoing, &mut env!(self));
            arm(&mut self.wheel, index, connection);
            connection.queued = any && connection.wants_to_send();
            if !any {
                return None;
            }
        }
        if connection.queued {
            // What there is more waits for its next turn behind the others.
            self.ready.push_back(FlowRef::Connection(index).into());
        }
        let tuple = &connection.tcb.tuple;
        finish(&mut env!(self), tuple, &mut self.outgoing);
        let (queue, outgoing) = (&mut connection.send_queue, &self.outgoing);
        let sent = match &self.train_out {
            Some(train) => train.emit(outgoing.header.seq, outgoing.offset, queue, frame),
            None => {
                let SocketOptions { ttl, dscp, .. } = *connection.options;
                let ip = IpFields { ttl, dscp, ecn: outgoing.ecn };
                let sent = emit(tuple, outgoing, &ip, queue, self.interface.checksum_offload, frame);
                if outgoing.train > 0 {
                    self.train_out = Train::begin(index, tick, tuple, sent, outgoing.payload_len, frame);
                }
                sent
            }
        };
        if outgoing.train == 0 {
            self.train_out = None;
        }
        Some(sent)
    }

    fn transmit_opening(&mut self, index: u32, frame: &mut [u8]) -> Option<Sent> {
        let opening = self.openings.get_mut(index)?;
        opening.queued = false;
        self.train_out = None;
        if !opening.next_segment(&mut self.outgoing, &mut env!(self)) {
            return None;
        }
        let deadline = Tick::after(self.now, opening.wait(self.now, &self.config));
        self.wheel.remove(opening.timer);
        let target = PackedRef::from(FlowRef::Opening(index)).0;
        opening.timer = self.wheel.insert(deadline, target);
        let ip = IpFields { ttl: opening.options.ttl, dscp: opening.options.dscp, ecn: Ecn::NotEct };
        finish(&mut env!(self), &opening.tuple, &mut self.outgoing);
        let offload = self.interface.checksum_offload;
        Some(emit(&opening.tuple, &self.outgoing, &ip, &mut opening.send_queue, offload, frame))
    }
}

/// What every segment gets before it is written: the layout of its options, a place in the counters, and in the trace.
#[inline]
fn finish(env: &mut Env<'_>, tuple: &FourTuple, outgoing: &mut Outgoing) {
    outgoing.header.options.layout = env.config.tcp_option_layout;
    env.counters.out_segs += 1;
    env.counters.out_rsts += u64::from(outgoing.header.flags.rst());
    if env.trace.is_on() {
        let (header, payload_len) = (outgoing.header, outgoing.payload_len);
        env.note(tuple, TraceKind::SegmentOut { header, payload_len });
    }
}

/// Writes IP header, TCP header and payload. The payload is summed while it is copied, unless the device does that.
fn emit(
    tuple: &FourTuple,
    outgoing: &Outgoing,
    ip: &IpFields,
    queue: &mut Rope,
    checksum_offload: bool,
    frame: &mut [u8],
) -> Sent {
    let header = &outgoing.header;
    let header_len = header.header_len();
    let segment_len = header_len + outgoing.payload_len;
    let ip_len = emit_ip(tuple, ip, segment_len, frame);
    let segment = &mut frame[ip_len..ip_len + segment_len];
    let (head, payload) = segment.split_at_mut(header_len);
    let mut sum = tuple.pseudo_header(segment_len as u32);
    let pseudo_header = sum;
    header.emit_and_add(head, &mut sum);
    if checksum_offload {
        // The device adds the rest to the sum of the pseudo-header.
        tcp::set_checksum(head, !pseudo_header.finish());
        queue.peek(outgoing.offset, payload);
    } else {
        queue.copy_out(outgoing.offset, payload, &mut sum);
        tcp::set_checksum(head, sum.finish());
    }
    Sent { len: ip_len + segment_len, checksum_offload }
}

fn emit_ip(tuple: &FourTuple, ip: &IpFields, payload_len: usize, frame: &mut [u8]) -> usize {
    match tuple.ipv4() {
        Some((source, destination)) => {
            let header = ipv4::Header {
                source,
                destination,
                protocol: PROTOCOL_TCP,
                ttl: ip.ttl,
                dscp: ip.dscp,
                ecn: ip.ecn,
                // With DF the identification means nothing (RFC 6864), and zero tells nobody anything (T-25).
                identification: 0,
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: 0,
                source_route: false,
            };
            header.emit(payload_len, frame);
            ipv4::HEADER_LEN
        }
        None => {
            let header = ipv6::Header {
                source: tuple.local_address,
                destination: tuple.remote_address,
                protocol: PROTOCOL_TCP,
                hop_limit: ip.ttl,
                dscp: ip.dscp,
                ecn: ip.ecn,
                flow_label: 0,
                fragment: None,
            };
            header.emit(payload_len, frame);
            ipv6::HEADER_LEN
        }
    }
}

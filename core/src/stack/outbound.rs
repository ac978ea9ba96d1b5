//! Filling frames: stateless answers first, then connections in turn.

use super::{Reply, Stack, Transmit, arm, env};
use crate::buffer::Rope;
use crate::flow::{FlowRef, FourTuple, PackedRef};
use crate::tcp::segment::{Answer, Outgoing};
use crate::tcp::tcb::Env;
use crate::time::{Instant, Tick};
use crate::trace::TraceKind;
use crate::wire::tcp::{self, Header, OptionLayout};
use crate::wire::{Ecn, PROTOCOL_TCP, ipv4, ipv6};

/// Full segments of new data that follow one another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Train {
    pub(super) index: u32,
    /// When it began: later its timestamps would be others.
    tick: Tick,
    last: Outgoing,
}

/// What of the IP header a connection decides.
struct IpFields {
    ttl: u8,
    dscp: u8,
    ecn: Ecn,
}

impl Stack {
    /// Fills `frame` with the next packet to send. `None`: nothing to send now, or `frame` is shorter than the MTU
    /// (with segmentation offload: than 65,535 bytes).
    pub fn transmit(&mut self, now: Instant, frame: &mut [u8]) -> Option<Transmit> {
        self.set_now(now);
        let offload = self.interface.segmentation_offload;
        let least = if offload { 65_535 } else { usize::from(self.interface.mtu) };
        if frame.len() < least {
            return None;
        }
        if let Some(reply) = self.replies.pop_front() {
            return Some(self.transmit_reply(reply, frame));
        }
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

    fn transmit_reply(&mut self, reply: Reply, frame: &mut [u8]) -> Transmit {
        self.counters.out_requests += 1;
        match reply {
            Reply::Packet(packet) => {
                let len = packet.len().min(frame.len());
                frame[..len].copy_from_slice(&packet[..len]);
                Transmit { len, segment_size: None, checksum_offload: false }
            }
            Reply::Segment(answer) => self.transmit_answer(&answer, frame),
        }
    }

    fn transmit_answer(&mut self, answer: &Answer, frame: &mut [u8]) -> Transmit {
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
        let outgoing =
            Outgoing { header, offset: 0, payload_len: 0, segment_size: None, ecn: Ecn::NotEct, train: 0 };
        let ip = IpFields { ttl: self.config.ip_default_ttl, dscp: 0, ecn: Ecn::NotEct };
        note_sent(&mut env!(self), &answer.tuple, &outgoing);
        let offload = self.interface.checksum_offload;
        emit(&answer.tuple, &outgoing, &ip, &Rope::default(), offload, self.config.tcp_option_layout, frame)
    }

    fn transmit_connection(&mut self, index: u32, frame: &mut [u8]) -> Option<Transmit> {
        let connection = self.connections.get_mut(index)?;
        let tick = Tick::at(self.now);
        let train = self.train_out.take().filter(|train| train.index == index && train.tick == tick);
        let outgoing = match train {
            Some(mut train) => {
                connection.follow(&mut train.last);
                Some(train.last)
            }
            None => {
                let offload = self.interface.segmentation_offload;
                let outgoing = connection.next_segment(offload, &mut env!(self));
                arm(&mut self.wheel, index, &mut connection.tcb.timers);
                connection.queued = outgoing.is_some() && connection.wants_to_send();
                outgoing
            }
        };
        if connection.queued {
            // What there is more waits for its next turn behind the others.
            self.ready.push_back(FlowRef::Connection(index).into());
        }
        let outgoing = outgoing?;
        self.train_out = (outgoing.train > 0).then_some(Train { index, tick, last: outgoing });
        self.counters.out_requests += 1;
        let tuple = connection.tcb.tuple;
        note_sent(&mut env!(self), &tuple, &outgoing);
        let ip = IpFields { ttl: connection.options.ttl, dscp: connection.options.dscp, ecn: outgoing.ecn };
        let checksum_offload = self.interface.checksum_offload;
        let layout = self.config.tcp_option_layout;
        Some(emit(&tuple, &outgoing, &ip, &connection.send_queue, checksum_offload, layout, frame))
    }

    fn transmit_opening(&mut self, index: u32, frame: &mut [u8]) -> Option<Transmit> {
        let opening = self.openings.get_mut(index)?;
        opening.queued = false;
        let outgoing = opening.next_segment(&mut env!(self))?;
        self.counters.out_requests += 1;
        let deadline = Tick::after(self.now, opening.wait(self.now, &self.config));
        self.wheel.remove(opening.timer);
        let target = PackedRef::from(FlowRef::Opening(index)).0;
        opening.timer = self.wheel.insert(deadline, target);
        let ip = IpFields { ttl: opening.options.ttl, dscp: opening.options.dscp, ecn: Ecn::NotEct };
        note_sent(&mut env!(self), &opening.tuple, &outgoing);
        let (offload, layout) = (self.interface.checksum_offload, self.config.tcp_option_layout);
        Some(emit(&opening.tuple, &outgoing, &ip, &opening.send_queue, offload, layout, frame))
    }
}

#[inline]
fn note_sent(env: &mut Env<'_>, tuple: &FourTuple, outgoing: &Outgoing) {
    env.counters.out_segs += 1;
    env.counters.out_rsts += u64::from(outgoing.header.flags.rst());
    let (header, payload_len) = (outgoing.header, outgoing.payload_len);
    env.note(tuple, TraceKind::SegmentOut { header, payload_len });
}

/// Writes IP header, TCP header and payload. The payload is summed while it is copied, unless the device does that.
fn emit(
    tuple: &FourTuple,
    outgoing: &Outgoing,
    ip: &IpFields,
    queue: &Rope,
    checksum_offload: bool,
    layout: OptionLayout,
    frame: &mut [u8],
) -> Transmit {
    let mut header = outgoing.header;
    header.options.layout = layout;
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
    Transmit { len: ip_len + segment_len, segment_size: outgoing.segment_size, checksum_offload }
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

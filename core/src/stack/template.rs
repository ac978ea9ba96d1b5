//! The header template: consecutive full segments of new data copy their headers from the first.

use super::io::Sent;
use crate::buffer::Rope;
use crate::ip::routes::InterfaceId;
use crate::seq::SeqNum;
use crate::time::Tick;
use crate::tuple::FourTuple;
use crate::wire::checksum::Sum;
use crate::wire::{ipv4, ipv6, tcp};

/// The longest headers in a template: IPv6, TCP, timestamps.
const MAX_HEAD: usize = ipv6::HEADER_LEN + tcp::HEADER_LEN + 12;

/// The common part of segments that differ only in sequence number and payload. Copying the headers is much cheaper
/// than building them.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeaderTemplate {
    /// The connection.
    pub(super) index: u32,
    /// The tick of the first segment; in a later tick the timestamps differ.
    tick: Tick,
    /// IP and TCP header with sequence number and checksum 0.
    head: [u8; MAX_HEAD],
    head_len: usize,
    ip_len: usize,
    payload_len: usize,
    interface: InterfaceId,
    /// Sum of the TCP header and the pseudo-header. `None`: the device computes the checksum, and `head` holds its
    /// input.
    sum: Option<Sum>,
}

impl HeaderTemplate {
    /// Makes a template of the packet in `frame`. Returns `None` if its headers are longer than usual.
    pub(super) fn of(
        index: u32,
        tick: Tick,
        tuple: &FourTuple,
        first: Sent,
        payload_len: usize,
        frame: &[u8],
    ) -> Option<HeaderTemplate> {
        let ip_len = if tuple.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let head_len = first.len - payload_len;
        let mut head = *frame.first_chunk::<MAX_HEAD>()?;
        let segment_head = head.get_mut(ip_len..head_len)?;
        tcp::set_seq(segment_head, SeqNum(0));
        let sum = (!first.checksum_offload()).then(|| {
            tcp::set_checksum(segment_head, 0);
            let mut sum = tuple.pseudo_header((first.len - ip_len) as u32);
            sum.add_bytes(segment_head);
            sum
        });
        let interface = first.interface();
        Some(HeaderTemplate { index, tick, head, head_len, ip_len, payload_len, interface, sum })
    }

    pub(super) fn goes_on(&self, index: u32, tick: Tick) -> bool {
        self.index == index && self.tick == tick
    }

    /// Writes the segment whose payload begins at `seq`, and at `offset` in the queue. `frame` holds the packet.
    pub(super) fn emit(&self, seq: SeqNum, offset: usize, queue: &mut Rope, frame: &mut [u8]) -> Sent {
        let len = self.head_len + self.payload_len;
        // Copies all of `head`, even into the payload's place: a copy of fixed length is a few stores.
        match frame.first_chunk_mut::<MAX_HEAD>() {
            Some(head) => *head = self.head,
            None => frame[..self.head_len].copy_from_slice(&self.head[..self.head_len]),
        }
        let (head, payload) = frame[self.ip_len..len].split_at_mut(self.head_len - self.ip_len);
        tcp::set_seq(head, seq);
        match self.sum {
            Some(mut sum) => {
                sum.add_u32(seq.0);
                queue.copy_out(offset, payload, &mut sum);
                tcp::set_checksum(head, sum.finish());
            }
            None => _ = queue.peek(offset, payload),
        }
        Sent::new(len, self.interface, self.sum.is_none())
    }
}

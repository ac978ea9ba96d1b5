//! Segments on their way in and out, free of the packets that carry them.

use bytes::Bytes;

use crate::counters::ReplyReason;
use crate::flow::FourTuple;
use crate::seq::SeqNum;
use crate::socket::SocketOptions;
use crate::wire::Ecn;
use crate::wire::tcp::{Flags, Header, Options, Timestamps};

/// A segment that arrived: sound, and addressed to us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) tuple: FourTuple,
    pub(crate) header: &'a Header,
    pub(crate) payload: &'a [u8],
    /// The packet, where it may be kept.
    pub(crate) packet: Option<&'a Bytes>,
    pub(crate) ecn: Ecn,
}

impl Segment<'_> {
    pub(crate) fn seq(&self) -> SeqNum {
        self.header.seq
    }

    pub(crate) fn ack(&self) -> SeqNum {
        self.header.ack
    }

    pub(crate) fn flags(&self) -> Flags {
        self.header.flags
    }

    pub(crate) fn options(&self) -> &Options {
        &self.header.options
    }

    /// SEG.LEN: payload, SYN and FIN.
    pub(crate) fn len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.flags().syn()) + u32::from(self.flags().fin())
    }

    /// The sequence number after the segment.
    pub(crate) fn end(&self) -> SeqNum {
        self.seq() + self.len()
    }
}

/// A segment without payload that answers from the 4-tuple alone, whether a connection lives there or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) tuple: FourTuple,
    pub(crate) seq: SeqNum,
    pub(crate) ack: SeqNum,
    pub(crate) flags: Flags,
    pub(crate) window: u16,
    pub(crate) options: Options,
    /// The TTL of the socket that it answers for (MUST-49, SHLD-22); 0: `ip_default_ttl`, where no socket is.
    pub(crate) ttl: u8,
    pub(crate) dscp: u8,
    pub(crate) reason: ReplyReason,
}

impl Answer {
    /// A bare ACK, as challenges are.
    pub(crate) fn ack(
        tuple: FourTuple,
        seq: SeqNum,
        ack: SeqNum,
        window: u16,
        reason: ReplyReason,
    ) -> Answer {
        let options = Options::default();
        Answer { tuple, seq, ack, flags: Flags::ACK, window, options, ttl: 0, dscp: 0, reason }
    }

    /// The same, for this socket.
    pub(crate) fn with_ip_of(self, socket: &SocketOptions) -> Answer {
        Answer { ttl: socket.ttl, dscp: socket.dscp, ..self }
    }

    /// The RST that answers a segment (RFC 9293 §3.5.2): `<SEQ=SEG.ACK>` to an ACK, else
    /// `<SEQ=0><ACK=SEG.SEQ+SEG.LEN>`. Its timestamps echo the segment's (7323-17), and what the segment echoes, which
    /// is its sender's TS.Recent: a peer that holds a RST against PAWS takes it as well.
    pub(crate) fn rst_to(segment: &Segment<'_>, reason: ReplyReason) -> Answer {
        let (seq, ack, flags) = if segment.flags().ack() {
            (segment.ack(), SeqNum(0), Flags::RST)
        } else {
            (SeqNum(0), segment.end(), Flags::RST | Flags::ACK)
        };
        let val = |ts: Timestamps| if segment.flags().ack() { ts.ecr } else { 0 };
        let timestamps = segment.options().timestamps.map(|ts| Timestamps { val: val(ts), ecr: ts.val });
        let options = Options { timestamps, ..Options::default() };
        Answer { tuple: segment.tuple, seq, ack, flags, window: 0, options, ttl: 0, dscp: 0, reason }
    }
}

/// A segment of a connection that is to be sent; its payload lies in the send queue. It is filled in place: to hand it
/// from function to function took longer than to decide on it.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) header: Header,
    /// Where the payload begins in the send queue.
    pub(crate) offset: usize,
    pub(crate) payload_len: usize,
    /// The device cuts the payload into pieces of this size.
    pub(crate) segment_size: Option<u16>,
    pub(crate) ecn: Ecn,
    /// So many more like it may follow as long as nothing happens to the connection: full segments of new data that
    /// differ in their sequence number alone.
    pub(crate) train: u32,
}

impl Outgoing {
    /// A segment without payload.
    #[inline]
    pub(crate) fn bare(header: Header) -> Outgoing {
        Outgoing { header, offset: 0, payload_len: 0, segment_size: None, ecn: Ecn::NotEct, train: 0 }
    }

    /// Packets that it is on the wire.
    pub(crate) fn packets(&self) -> usize {
        self.segment_size.map_or(1, |size| self.payload_len.div_ceil(usize::from(size)))
    }
}

//! Incoming and outgoing segments, independent of the packets that carry them.

use bytes::Bytes;

use crate::counters::ReplyReason;
use crate::seq::SeqNum;
use crate::socket::SocketOptions;
use crate::tuple::FourTuple;
use crate::wire::Ecn;
use crate::wire::tcp::{Flags, Header, Options, Timestamps};

/// Returns whether a timestamp is earlier than another one, modulo 2^32 (RFC 7323 §5.2).
#[inline]
pub(crate) fn is_earlier(timestamp: u32, than: u32) -> bool {
    (timestamp.wrapping_sub(than) as i32) < 0
}

/// A received segment, validated and addressed to this stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) tuple: FourTuple,
    pub(crate) header: &'a Header,
    pub(crate) payload: &'a [u8],
    /// The packet, if its buffer may be retained.
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

    /// The sequence number just past the segment.
    pub(crate) fn end(&self) -> SeqNum {
        self.seq() + self.len()
    }
}

/// A reply without payload that needs only the 4-tuple, whether or not a connection exists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    pub(crate) tuple: FourTuple,
    pub(crate) header: Header,
    /// TTL of the socket that replies (MUST-49, SHLD-22). 0 selects `ip_default_ttl` when there is no socket.
    pub(crate) ttl: u8,
    pub(crate) dscp: u8,
    pub(crate) reason: ReplyReason,
}

impl Reply {
    /// A bare ACK, such as a challenge ACK.
    pub(crate) fn ack(tuple: FourTuple, seq: SeqNum, ack: SeqNum, window: u16, reason: ReplyReason) -> Reply {
        let header = Header { seq, ack, flags: Flags::ACK, window, ..header_of(&tuple) };
        Reply { tuple, header, ttl: 0, dscp: 0, reason }
    }

    /// Sets the TTL and DSCP of `socket`.
    pub(crate) fn with_ip_of(self, socket: &SocketOptions) -> Reply {
        Reply { ttl: socket.ttl, dscp: socket.dscp, ..self }
    }

    /// The RST that answers a segment (RFC 9293 §3.5.2): `<SEQ=SEG.ACK>` to an ACK, else
    /// `<SEQ=0><ACK=SEG.SEQ+SEG.LEN>`. TSecr echoes the segment's TSval (7323-17). TSval repeats the segment's TSecr,
    /// so that a peer that applies PAWS to RSTs accepts it as well.
    pub(crate) fn rst_to(segment: &Segment<'_>, reason: ReplyReason) -> Reply {
        let (seq, ack, flags) = if segment.flags().ack() {
            (segment.ack(), SeqNum(0), Flags::RST)
        } else {
            (SeqNum(0), segment.end(), Flags::RST | Flags::ACK)
        };
        let val = |ts: Timestamps| if segment.flags().ack() { ts.ecr } else { 0 };
        let timestamps = segment.options().timestamps.map(|ts| Timestamps { val: val(ts), ecr: ts.val });
        let options = Options { timestamps, ..Options::default() };
        let header = Header { seq, ack, flags, options, ..header_of(&segment.tuple) };
        Reply { tuple: segment.tuple, header, ttl: 0, dscp: 0, reason }
    }
}

/// A header with the ports of a tuple.
#[inline]
pub(crate) fn header_of(tuple: &FourTuple) -> Header {
    Header { source_port: tuple.local_port, destination_port: tuple.remote_port, ..Header::default() }
}

/// A segment to send; its payload is in the send queue. It is filled in place to avoid moving it between functions.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) header: Header,
    /// Offset of the payload in the send queue.
    pub(crate) offset: usize,
    pub(crate) payload_len: usize,
    /// Size in bytes of the pieces into which the device cuts the payload.
    pub(crate) segment_size: Option<u16>,
    pub(crate) ecn: Ecn,
    /// Number of segments like it that may follow until the connection's next event. They are full segments of new
    /// data whose headers differ only in the sequence number.
    pub(crate) alike: u32,
}

impl Outgoing {
    /// A segment without payload.
    #[inline]
    pub(crate) fn bare(header: Header) -> Outgoing {
        Outgoing { header, offset: 0, payload_len: 0, segment_size: None, ecn: Ecn::NotEct, alike: 0 }
    }

    /// Begins anew, except for the header, which the caller writes.
    #[inline]
    pub(crate) fn begin(&mut self) {
        (self.offset, self.payload_len, self.segment_size) = (0, 0, None);
        (self.ecn, self.alike) = (Ecn::NotEct, 0);
    }

    /// Number of packets on the wire.
    pub(crate) fn packets(&self) -> usize {
        self.segment_size.map_or(1, |size| self.payload_len.div_ceil(usize::from(size)))
    }
}

/// Rounds a buffer that is larger than a segment down to whole segments.
// DRILL-X35
pub(super) fn whole_segments(buffer: u32, mss: u16) -> u32 {
    let mss = u32::from(mss.max(1));
    if buffer > mss { buffer - buffer % mss } else { buffer }
}

//! A TCP peer that follows no rules of its own.

use std::net::SocketAddr;

use steadfast_core::seq::SeqNum;
use steadfast_core::wire::tcp::{Flags, Header, Options, Timestamps};
use steadfast_core::{Instant, SocketId, Stack, Transmit};

use crate::packets::{self, Sent};

/// A TCP peer that opens a connection to a stack. It tracks its sequence numbers, and sends whatever a test asks for,
/// correct or not.
#[derive(Clone, Debug)]
pub struct Client {
    /// Address and port of the client.
    pub end: SocketAddr,
    /// Address and port of the stack.
    pub server: SocketAddr,
    /// Next sequence number to send (SND.NXT). The test advances it.
    pub seq: SeqNum,
    /// Next sequence number expected (RCV.NXT); 0 before a SYN arrives.
    pub ack: SeqNum,
    /// The window field of its segments.
    pub window: u16,
    /// The options of its SYN.
    pub offer: Options,
    /// The timestamps of its other segments.
    pub timestamps: Option<Timestamps>,
    /// Bytes received in order.
    pub received: usize,
    /// A RST arrived.
    pub reset: bool,
}

impl Client {
    /// Creates a client that has sent nothing and offers an MSS of 1460.
    pub fn new(end: impl Into<SocketAddr>, server: impl Into<SocketAddr>) -> Client {
        Client {
            end: end.into(),
            server: server.into(),
            seq: SeqNum(7000),
            ack: SeqNum(0),
            window: 0xffff,
            offer: Options { mss: Some(1460), ..Options::default() },
            timestamps: None,
            received: 0,
            reset: false,
        }
    }

    /// Returns the client with other options on its SYN.
    pub fn offering(self, offer: Options) -> Client {
        Client { offer, ..self }
    }

    /// Returns a copy of the client that sends from `seq` on.
    pub fn at(&self, seq: SeqNum) -> Client {
        Client { seq, ..self.clone() }
    }

    /// Builds a packet with its numbers. Only a SYN carries options besides timestamps.
    pub fn packet(&self, flags: Flags, payload: &[u8]) -> Vec<u8> {
        let options = match flags.syn() {
            true => self.offer,
            false => Options { timestamps: self.timestamps, ..Options::default() },
        };
        let header =
            Header { seq: self.seq, ack: self.ack, flags, window: self.window, options, ..Header::default() };
        packets::segment(self.end, self.server, header, payload)
    }

    /// Builds its SYN.
    pub fn syn(&self) -> Vec<u8> {
        self.packet(Flags::SYN, &[])
    }

    /// Builds an ACK without payload, such as the third segment of the handshake.
    pub fn acknowledges(&self) -> Vec<u8> {
        self.packet(Flags::ACK, &[])
    }

    /// Processes a segment of the stack: the SYN-ACK, data in order, or a RST. Returns whether it was for this client.
    pub fn hears(&mut self, segment: &Segment) -> bool {
        if segment.to != self.end || segment.from != self.server {
            return false;
        }
        let header = &segment.header;
        if header.flags.rst() {
            self.reset = true;
        } else if header.flags.syn() && self.ack == SeqNum(0) {
            (self.seq, self.ack) = (self.seq + 1, header.seq + 1);
            self.timestamps = self
                .offer
                .timestamps
                .zip(header.options.timestamps)
                .map(|(own, theirs)| Timestamps { val: own.val, ecr: theirs.val });
        } else if segment.len > 0 && header.seq == self.ack {
            self.ack += segment.len as u32;
            self.received += segment.len;
        }
        true
    }

    /// Completes a handshake with a listener, and accepts the connection for the stack's application.
    pub fn connect(&mut self, stack: &mut Stack, now: Instant, listener: SocketId) -> SocketId {
        stack.receive(now, &self.syn()[..]);
        let mut frame = vec![0; 65_535];
        while let Some(segment) = next_segment(stack, now, &mut frame) {
            self.hears(&segment);
        }
        assert_ne!(self.ack, SeqNum(0), "the SYN is answered");
        stack.receive(now, &self.acknowledges()[..]);
        stack.accept(listener).expect("a connection to accept").0
    }
}

/// A segment that a stack sent.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Address and port of the stack.
    pub from: SocketAddr,
    /// Address and port of the peer.
    pub to: SocketAddr,
    /// The TCP header.
    pub header: Header,
    /// Bytes of payload.
    pub len: usize,
    /// Packets on a wire: a device cuts a super-segment into several.
    pub packets: usize,
}

impl Segment {
    /// Parses a packet that a stack sent. Panics if it is no valid segment.
    pub fn read(packet: &[u8], sent: Transmit) -> Segment {
        let Sent::Tcp { local, remote, header, payload } = packets::read(packet, sent.checksum_offload)
        else {
            panic!("an ICMP message was sent");
        };
        let len = payload.len();
        let packets = sent.segment_size.map_or(1, |size| len.div_ceil(usize::from(size)));
        Segment { from: local, to: remote, header, len, packets }
    }
}

/// Returns the next segment that a stack sends. `frame` holds its packet afterwards.
pub fn next_segment(stack: &mut Stack, now: Instant, frame: &mut [u8]) -> Option<Segment> {
    let sent = stack.transmit(now, frame)?;
    Some(Segment::read(&frame[..sent.len], sent))
}

//! The end of a connection that keeps no rules of its own.

use std::net::SocketAddr;

use steadfast_core::seq::SeqNum;
use steadfast_core::wire::tcp::{Flags, Header, Options, Timestamps};
use steadfast_core::{Instant, SocketId, Stack, Transmit};

use crate::packets::{self, Sent};

/// A TCP peer that opens a connection to a stack. It knows where its connection stands, and sends what a test tells it
/// to, whether that is right or not.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its own end.
    pub end: SocketAddr,
    /// The end of the stack.
    pub server: SocketAddr,
    /// What it sends next (SND.NXT). The test moves it on.
    pub seq: SeqNum,
    /// What it expects next (RCV.NXT); 0 before it hears a SYN.
    pub ack: SeqNum,
    /// The window field of its segments.
    pub window: u16,
    /// The options of its SYN.
    pub offer: Options,
    /// The timestamps of its other segments.
    pub timestamps: Option<Timestamps>,
    /// Bytes that came in order.
    pub received: usize,
    /// A RST came.
    pub reset: bool,
}

impl Client {
    /// A client that has sent nothing. It offers an MSS of 1460.
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

    /// The same client with other options on its SYN.
    pub fn offering(self, offer: Options) -> Client {
        Client { offer, ..self }
    }

    /// The same client where it sends from another place.
    pub fn at(&self, seq: SeqNum) -> Client {
        Client { seq, ..self.clone() }
    }

    /// A packet with its numbers. What is no SYN has no options but timestamps.
    pub fn packet(&self, flags: Flags, payload: &[u8]) -> Vec<u8> {
        let options = match flags.syn() {
            true => self.offer,
            false => Options { timestamps: self.timestamps, ..Options::default() },
        };
        let header =
            Header { seq: self.seq, ack: self.ack, flags, window: self.window, options, ..Header::default() };
        packets::segment(self.end, self.server, header, payload)
    }

    /// Its SYN.
    pub fn syn(&self) -> Vec<u8> {
        self.packet(Flags::SYN, &[])
    }

    /// The third segment of the handshake, and every ACK after it.
    pub fn acknowledges(&self) -> Vec<u8> {
        self.packet(Flags::ACK, &[])
    }

    /// Takes in what the stack sent: the SYN-ACK, text in order, a RST. Says whether it was for this client.
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

    /// The handshake with a listener, all of it now; the stack's application has the connection afterwards.
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
    /// The stack's end.
    pub from: SocketAddr,
    /// The peer's end.
    pub to: SocketAddr,
    /// Its header.
    pub header: Header,
    /// Bytes of its text.
    pub len: usize,
    /// Packets that it is on a wire: a device that cuts super-segments makes several.
    pub packets: usize,
}

impl Segment {
    /// Reads a packet that a stack sent. Panics where that is no sound segment.
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

/// The next segment that a stack has to send. The packet is in `frame`.
pub fn next_segment(stack: &mut Stack, now: Instant, frame: &mut [u8]) -> Option<Segment> {
    let sent = stack.transmit(now, frame)?;
    Some(Segment::read(&frame[..sent.len], sent))
}

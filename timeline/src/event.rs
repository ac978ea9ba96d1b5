//! The things that happen: packets and their fates, socket calls, changes of states.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use steadfast_core::Instant;
use steadfast_core::info::Info;
use steadfast_core::trace::State;
use steadfast_core::wire::tcp::{Flags, Header};

/// The endpoints of a connection: the local one and the remote one, or the sender and the receiver.
pub type Ends = (SocketAddr, SocketAddr);

/// A host that sends and receives packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its addresses. Pictures show the first.
    pub addresses: Vec<IpAddr>,
}

/// Something that happened. Hosts are indices of [`Timeline::hosts`](crate::Timeline::hosts).
#[derive(Clone, Debug)]
pub enum Event {
    /// A packet on the wire.
    Packet(Packet),
    /// A socket call of an application, or its result.
    Call {
        /// When it happened.
        at: Instant,
        /// The host of the application.
        host: usize,
        /// The call or the result.
        text: String,
    },
    /// A connection of a host changed its state.
    State {
        /// When it changed.
        at: Instant,
        /// The host.
        host: usize,
        /// The connection, with the endpoints that the hosts themselves have: not those of a NAT.
        ends: Ends,
        /// The state before.
        from: State,
        /// The state after.
        to: State,
    },
    /// A host began to listen, or stopped.
    Listening {
        /// When.
        at: Instant,
        /// The host.
        host: usize,
        /// It began.
        on: bool,
    },
    /// The numbers of a connection changed, as its own stack tells them.
    Info {
        /// When.
        at: Instant,
        /// The host.
        host: usize,
        /// The connection, with the endpoints that the hosts themselves have.
        ends: Ends,
        /// The numbers.
        info: Box<Info>,
    },
    /// Anything else that a reader must know.
    Note {
        /// When it happened.
        at: Instant,
        /// The host; `None`: the network.
        host: Option<usize>,
        /// The connection that it is about.
        ends: Option<Ends>,
        /// The description.
        text: String,
    },
}

impl Event {
    /// When it happened.
    pub fn at(&self) -> Instant {
        match self {
            Event::Packet(packet) => packet.at,
            Event::Call { at, .. }
            | Event::State { at, .. }
            | Event::Info { at, .. }
            | Event::Listening { at, .. }
            | Event::Note { at, .. } => *at,
        }
    }
}

/// A packet on the wire.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When it was sent.
    pub at: Instant,
    /// Its number in the capture that it comes from.
    pub number: Option<u64>,
    /// The host that sent it, or in whose name it was forged; `None`: a router.
    pub from: Option<usize>,
    /// The host that it is for.
    pub to: Option<usize>,
    /// Index of the flow, in order of appearance.
    pub flow: Option<usize>,
    /// The TCP segment in it.
    pub tcp: Option<(Segment, Header)>,
    /// The UDP datagram in it.
    pub udp: Option<Datagram>,
    /// It is an ICMP message.
    pub icmp: bool,
    /// Description of a packet that is not TCP.
    pub text: String,
    /// Size of the IP packet in bytes.
    pub size: usize,
    /// No stack sent it.
    pub forged: bool,
    /// The fates of the packet and of its copies.
    pub fates: Vec<Fate>,
}

/// A UDP datagram, or a fragment of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// It is in a packet of IPv4, and not of IPv6.
    pub is_ipv4: bool,
    /// The ports of source and destination. Only the first fragment has them.
    pub ports: Option<(u16, u16)>,
    /// Bytes of payload, as its header says; without a header those of the fragment.
    pub len: usize,
}

/// The fate of a packet or of a copy of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrived.
    Arrived {
        /// When it arrived. Without a delay of its own, when it was sent plus the delay of the path.
        at: Instant,
        /// The faults that hit it on the path.
        note: String,
    },
    /// It was lost, and why.
    Lost(String),
}

/// A TCP segment, with numbers relative to the ISS of each direction if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The flags.
    pub flags: Flags,
    /// Bytes of payload.
    pub len: usize,
    /// The relative sequence number.
    pub seq: u32,
    /// The relative acknowledgment number.
    pub ack: u32,
    /// `seq` is relative to the ISS of the previous incarnation.
    pub seq_before: bool,
    /// `ack` is relative to the ISS of the previous incarnation.
    pub ack_before: bool,
    /// The window, as the header has it.
    pub win: u16,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// The sender's state after it sent the segment.
    pub state: State,
    /// It is a retransmission, or a later sequence number was sent before it.
    pub retransmission: bool,
}

impl Segment {
    /// A segment of an unknown flow: its numbers are absolute.
    pub fn new(header: &Header, len: usize, state: State) -> Segment {
        Segment {
            flags: header.flags,
            len,
            seq: header.seq.0,
            ack: header.ack.0,
            seq_before: false,
            ack_before: false,
            win: header.window,
            source_port: header.source_port,
            destination_port: header.destination_port,
            state,
            retransmission: false,
        }
    }
}

/// A packet as one host saw it.
#[derive(Clone, Debug)]
pub struct Captured {
    /// When it passed the host's interface.
    pub at: Instant,
    /// The host.
    pub host: usize,
    /// The host sent it.
    pub outbound: bool,
    /// The packet, from its IP header on.
    pub bytes: Bytes,
    /// Index of its event.
    pub event: Option<usize>,
    /// The faults that hit it on the path.
    pub note: String,
}

//! UDP (RFC 768): sockets, and the datagrams that wait in them.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::config::Config;
use crate::error::Error;
use crate::ip::routes::InterfaceId;
use crate::socket::SocketId;
use crate::tuple::FourTuple;
use crate::wire::{Ecn, PROTOCOL_UDP, ipv4, ipv6, udp};

/// The longest payload of a datagram over IPv4, in bytes; over IPv6 it may be 20 bytes longer.
pub(crate) const MAX_PAYLOAD_V4: usize = 65_535 - crate::wire::ipv4::HEADER_LEN - udp::HEADER_LEN;
pub(crate) const MAX_PAYLOAD_V6: usize = 65_535 - udp::HEADER_LEN;

/// The options of a UDP socket.
///
/// ```
/// use steadfast_core::{Config, UdpOptions};
///
/// let options = UdpOptions::new(&Config::default()).with(|o| o.dont_fragment = true);
/// assert!(options.dont_fragment && !options.only_v6);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UdpOptions {
    /// Receive buffer, in bytes (`SO_RCVBUF`). Each datagram that waits takes [`UdpOptions::OVERHEAD`] beside its
    /// payload. One that does not fit is dropped.
    pub rcvbuf: u32,
    /// Send buffer, in bytes (`SO_SNDBUF`), counted like `rcvbuf`. A datagram that does not fit is refused with
    /// [`WouldBlock`](Error::WouldBlock).
    pub sndbuf: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DiffServ code point.
    pub dscp: u8,
    /// ECN codepoint of sent packets (`IP_TOS`).
    pub ecn: Ecn,
    /// Refuse a datagram longer than the path MTU with [`MessageTooLong`](Error::MessageTooLong), instead of sending it
    /// in fragments (`IP_PMTUDISC_DO`).
    pub dont_fragment: bool,
    /// Allow datagrams to broadcast addresses (`SO_BROADCAST`).
    pub broadcast: bool,
    /// TTL or hop limit of multicast datagrams (`IP_MULTICAST_TTL`). With 0 they stay in this stack.
    pub multicast_ttl: u8,
    /// Sockets of this stack hear a multicast datagram as well (`IP_MULTICAST_LOOP`).
    pub multicast_loop: bool,
    /// The interface by which multicast datagrams leave (`IP_MULTICAST_IF`). `None`: that of the route to the group.
    pub multicast_if: Option<InterfaceId>,
    /// A socket on `[::]` takes no IPv4 datagrams (`IPV6_V6ONLY`). Takes effect only when passed to `bind_udp`.
    pub only_v6: bool,
    /// Others that set this too may be bound to the same end (`SO_REUSEPORT`). A keyed hash of addresses and ports assigns
    /// each sender to one of those without a peer; a socket that is connected to the sender comes first. All of them hear a
    /// datagram for many. Takes effect only when passed to `bind_udp`.
    pub reuse_port: bool,
}

impl UdpOptions {
    /// Bytes that a waiting datagram costs beside its payload.
    pub const OVERHEAD: usize = 256;

    /// Returns the defaults of `config`.
    pub fn new(config: &Config) -> UdpOptions {
        UdpOptions {
            rcvbuf: config.udp_rcvbuf,
            sndbuf: config.udp_sndbuf,
            ttl: config.ip_default_ttl,
            dscp: 0,
            ecn: Ecn::NotEct,
            dont_fragment: false,
            broadcast: false,
            multicast_ttl: 1,
            multicast_loop: true,
            multicast_if: None,
            only_v6: false,
            reuse_port: false,
        }
    }

    /// Returns the options after a change.
    pub fn with(mut self, change: impl FnOnce(&mut UdpOptions)) -> UdpOptions {
        change(&mut self);
        self
    }
}

/// A received datagram, as [`recv_from`](crate::Stack::recv_from) describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Bytes written to the buffer.
    pub len: usize,
    /// Length of the payload; more than `len` if the buffer was too short for it.
    pub full_len: usize,
    /// The sender.
    pub from: SocketAddr,
    /// The local address at which it arrived (`IP_PKTINFO`).
    pub to: IpAddr,
    /// ECN codepoint of its packet (`IP_RECVTOS`).
    pub ecn: Ecn,
    /// The interface by which it came (`IP_PKTINFO`); the first for one from the stack itself.
    pub interface: InterfaceId,
}

/// A bound socket and its queues.
#[derive(Clone, Debug)]
pub(crate) struct UdpSocket {
    /// The application's handle. `None`: it is closed, and the rest of its datagrams leaves.
    pub(crate) socket: Option<SocketId>,
    pub(crate) local: SocketAddr,
    /// The peer, once connected: others are not heard.
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) options: UdpOptions,
    pub(crate) received: Line<Arrived>,
    pub(crate) waiting: Line<Waiting>,
    /// A datagram was refused for lack of room: the application hears when there is some.
    pub(crate) blocked: bool,
    /// Reported by ICMP; a call returns it once.
    pub(crate) error: Option<Error>,
    /// The multicast groups that it has joined.
    pub(crate) groups: Vec<(IpAddr, InterfaceId)>,
    /// The last destinations, to one of which a report of the path MTU must belong.
    pub(crate) recent: [Option<SocketAddr>; 4],
    /// It is a forwarder: it takes datagrams to addresses of other hosts, and has no binding.
    pub(crate) forwards: Option<Forwarded>,
}

/// The datagrams that a forwarder takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarded {
    Udp,
    /// ICMP echo requests. Their identifier stands for the port of the source, and their sequence number for that of the
    /// destination.
    Echo,
}

/// A datagram that waits for the application.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// For a socket, only the ECN codepoint in it is known.
    pub(crate) ip: Fields,
    pub(crate) interface: InterfaceId,
    pub(crate) payload: Bytes,
}

/// A datagram that waits for the device.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) tuple: FourTuple,
    pub(crate) protocol: u8,
    /// Header of UDP or ICMP, and payload.
    pub(crate) bytes: Box<[u8]>,
    /// `dont_fragment`: routers must not fragment a packet that is the whole datagram.
    pub(crate) ip: Fields,
    /// The path MTU: a longer packet leaves in fragments.
    pub(crate) mtu: u16,
    /// The interface by which it leaves, where not the route decides.
    pub(crate) via: Option<InterfaceId>,
    /// Identifies its fragments.
    pub(crate) identification: u32,
    /// Bytes that have left in fragments.
    pub(crate) sent: usize,
}

/// The fields of the IP header of a datagram that its ends may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) dont_fragment: bool,
}

impl Fields {
    /// Reads them from a packet whose IP header is valid.
    pub(crate) fn of(packet: &[u8]) -> Fields {
        let tos = |dscp: u8, ecn: Ecn| dscp << 2 | ecn.bits();
        if let Some((header, _)) = ipv4::parse_quoted(packet) {
            let ipv4::Header { ttl, dscp, ecn, dont_fragment, .. } = header;
            return Fields { ttl, tos: tos(dscp, ecn), dont_fragment };
        }
        let header = ipv6::parse_quoted(packet).map(|(header, _)| header);
        header.map_or(Fields { ttl: 0, tos: 0, dont_fragment: false }, |header| Fields {
            ttl: header.hop_limit,
            tos: tos(header.dscp, header.ecn),
            dont_fragment: header.fragment.is_none(),
        })
    }
}

/// A queue of datagrams that knows what it costs.
#[derive(Clone, Debug)]
pub(crate) struct Line<T> {
    queue: VecDeque<T>,
    held: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Line<T> {
        Line { queue: VecDeque::new(), held: 0 }
    }
}

/// The cost of a datagram while it waits.
pub(crate) trait Cost {
    fn cost(&self) -> usize;
}

impl Cost for Arrived {
    fn cost(&self) -> usize {
        cost(self.payload.len())
    }
}

impl Cost for Waiting {
    fn cost(&self) -> usize {
        cost(self.bytes.len() - udp::HEADER_LEN)
    }
}

/// Returns what a datagram with this many bytes of payload costs.
pub(crate) fn cost(payload: usize) -> usize {
    payload + UdpOptions::OVERHEAD
}

impl<T: Cost> Line<T> {
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    pub(crate) fn recount(&self) -> usize {
        self.queue.iter().map(T::cost).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn front(&mut self) -> Option<&mut T> {
        self.queue.front_mut()
    }

    pub(crate) fn push(&mut self, datagram: T) {
        self.held += datagram.cost();
        self.queue.push_back(datagram);
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let datagram = self.queue.pop_front()?;
        self.held -= datagram.cost();
        // A burst leaves no memory behind, except the place of one datagram: the next one finds it.
        if self.queue.len() < self.queue.capacity() / 4 {
            self.queue.shrink_to((2 * self.queue.len()).max(1));
        }
        Some(datagram)
    }
}

impl UdpSocket {
    pub(crate) fn new(id: SocketId, local: SocketAddr, options: UdpOptions) -> UdpSocket {
        UdpSocket {
            socket: Some(id),
            local,
            remote: None,
            options,
            received: Line::default(),
            waiting: Line::default(),
            blocked: false,
            error: None,
            groups: Vec::new(),
            recent: [None; 4],
            forwards: None,
        }
    }

    /// Returns the most datagrams that may wait, each way. Only bytes limit those of a socket.
    pub(crate) fn most_waiting(&self, config: &Config) -> usize {
        if self.forwards.is_some() { config.forward_queue as usize } else { usize::MAX }
    }

    /// Returns whether it takes IPv4 and IPv6.
    pub(crate) fn is_dual(&self) -> bool {
        self.local.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) && !self.options.only_v6
    }

    /// Returns whether it can send to an address of this family.
    pub(crate) fn takes(&self, to: SocketAddr) -> bool {
        self.local.is_ipv4() == to.is_ipv4() || to.is_ipv4() && self.is_dual()
    }

    /// Returns its peer as it shows it: that of a socket for both families is an IPv6 address.
    pub(crate) fn shown_peer(&self) -> Option<SocketAddr> {
        let shown = |peer: SocketAddr| match peer {
            SocketAddr::V4(v4) if self.is_dual() => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            peer => peer,
        };
        self.remote.map(shown)
    }

    /// Returns whether it hears a peer.
    pub(crate) fn hears(&self, from: SocketAddr) -> bool {
        self.remote.is_none() || self.is_peer(from)
    }

    /// Returns whether it is connected to this end. Packets carry no scope id.
    pub(crate) fn is_peer(&self, end: SocketAddr) -> bool {
        self.remote.is_some_and(|remote| (remote.ip(), remote.port()) == (end.ip(), end.port()))
    }

    /// Remembers a destination.
    pub(crate) fn note_destination(&mut self, to: SocketAddr) {
        if !self.recent.contains(&Some(to)) {
            self.recent.rotate_right(1);
            self.recent[0] = Some(to);
        }
    }

    /// Returns whether it sent to a peer lately.
    pub(crate) fn sent_to(&self, to: SocketAddr) -> bool {
        self.recent.contains(&Some(to))
    }
}

/// Returns a datagram with its header and checksum.
pub(crate) fn datagram(tuple: &FourTuple, payload: &[u8]) -> Box<[u8]> {
    let len = udp::HEADER_LEN + payload.len();
    let mut bytes = vec![0; len].into_boxed_slice();
    let (head, body) = bytes.split_at_mut(udp::HEADER_LEN);
    body.copy_from_slice(payload);
    let checksum = checksum_of(tuple, body);
    let (source_port, destination_port) = (tuple.local_port, tuple.remote_port);
    udp::Header { source_port, destination_port, checksum }.emit(payload.len(), head);
    bytes
}

/// Returns the checksum of a datagram from the local end to the remote one.
pub(crate) fn checksum_of(tuple: &FourTuple, payload: &[u8]) -> u16 {
    let (source_port, destination_port) = (tuple.local_port, tuple.remote_port);
    let mut head = [0; udp::HEADER_LEN];
    udp::Header { source_port, destination_port, checksum: 0 }.emit(payload.len(), &mut head);
    let mut sum = tuple.pseudo_header_of(PROTOCOL_UDP, (udp::HEADER_LEN + payload.len()) as u32);
    sum.add_bytes(&head);
    sum.add_bytes(payload);
    // Zero would mean that there is no checksum.
    match sum.finish() {
        0 => 0xffff,
        checksum => checksum,
    }
}

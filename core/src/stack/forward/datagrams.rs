//! Forwarders of UDP and of echo requests, and the ICMP errors that answer for other hosts.
//!
//! Such a forwarder is a row among the UDP sockets: it shares their queues, their limits and their turns.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::counters::ReplyReason;
use crate::error::Error;
use crate::forward::{Echo, ForwardRule, Reject, UdpPacket};
use crate::socket::SocketId;
use crate::stack::Stack;
use crate::stack::inbound::Datagram;
use crate::stack::sockets::SocketKind;
use crate::stack::udp::Way;
use crate::time::Instant;
use crate::tuple::FourTuple;
use crate::udp::{Arrived, Cost, Fields, Forwarded, UdpOptions, UdpSocket, datagram};
use crate::wire::icmp::{ErrorKind, Message};
use crate::wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_UDP, ipv4, ipv6};

impl Stack {
    /// Creates a forwarder of UDP, which takes the datagrams to addresses of other hosts that `rule` covers.
    /// [`Event::READABLE`](crate::Event::READABLE) announces them, [`next_datagram`](Stack::next_datagram) takes one, and
    /// [`send_datagram`](Stack::send_datagram) sends one from any address. [`close`](Stack::close) ends it.
    ///
    /// A socket that is bound at one of our addresses comes first, and then the most specific rule. Broadcasts and
    /// multicasts go to no forwarder. Fragments are reassembled before.
    ///
    /// Limits: `forward_queue`, `forward_queue_bytes`, `udp_max_sockets`, `udp_mem`. A datagram looks at each rule, so
    /// there should be few. From the first forwarder on, the stack takes in packets to any address, as with
    /// [`forward`](Stack::forward).
    ///
    /// # Errors
    ///
    /// Those of [`forward`](Stack::forward); [`NoBufferSpace`](Error::NoBufferSpace), `udp_max_sockets`.
    pub fn forward_udp(&mut self, rule: ForwardRule) -> Result<SocketId, Error> {
        self.forward_datagrams(rule, Forwarded::Udp)
    }

    /// Creates a forwarder of ICMP echo requests, as [`forward_udp`](Stack::forward_udp) does; the ports of the rule do not
    /// matter. The stack answers those to its own addresses itself. [`next_echo`](Stack::next_echo) takes one, and
    /// [`send_echo_reply`](Stack::send_echo_reply) answers it.
    ///
    /// # Errors
    ///
    /// As [`forward_udp`](Stack::forward_udp).
    pub fn forward_echo(&mut self, rule: ForwardRule) -> Result<SocketId, Error> {
        self.forward_datagrams(rule, Forwarded::Echo)
    }

    fn forward_datagrams(&mut self, rule: ForwardRule, kind: Forwarded) -> Result<SocketId, Error> {
        rule.check()?;
        let sockets = &self.udp.sockets;
        let is_there =
            |(there, index): &(ForwardRule, u32)| *there == rule && sockets[*index].forwards == Some(kind);
        if self.udp.rules.iter().any(is_there) {
            return Err(Error::AddrInUse);
        }
        if sockets.len() >= self.config.udp_max_sockets as usize {
            return Err(Error::NoBufferSpace);
        }
        let index = sockets.next();
        let id = self.sockets.open(SocketKind::Datagrams(index));
        let bytes = self.config.forward_queue_bytes;
        let options = UdpOptions::new(&self.config).with(|options| {
            (options.rcvbuf, options.sndbuf) = (bytes, bytes);
        });
        let local = (Ipv6Addr::UNSPECIFIED, 0).into();
        let socket = UdpSocket { forwards: Some(kind), ..UdpSocket::new(id, local, options) };
        self.udp.sockets.insert(socket);
        let place = self.udp.rules.partition_point(|(there, _)| there.rank() <= rule.rank());
        self.udp.rules.insert(place, (rule, index));
        self.addresses.accept_any();
        Ok(id)
    }

    /// Takes the next datagram of a forwarder of UDP.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](Error::WouldBlock), there is none; [`InvalidArgument`](Error::InvalidArgument), not such a
    /// forwarder; [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn next_datagram(&mut self, forwarder: SocketId) -> Result<UdpPacket, Error> {
        let Arrived { from, to, ip, payload, .. } = self.next_forwarded(forwarder, Forwarded::Udp)?;
        let Fields { ttl, tos, dont_fragment } = ip;
        Ok(UdpPacket { ttl, tos, dont_fragment, ..UdpPacket::new(from, to, payload) })
    }

    /// Takes the next echo request of a forwarder.
    ///
    /// # Errors
    ///
    /// As [`next_datagram`](Stack::next_datagram).
    pub fn next_echo(&mut self, forwarder: SocketId) -> Result<Echo, Error> {
        let Arrived { from, to, ip, payload, .. } = self.next_forwarded(forwarder, Forwarded::Echo)?;
        let Fields { ttl, tos, dont_fragment } = ip;
        let echo = Echo::new(from.ip(), to.ip(), from.port(), to.port(), payload);
        Ok(Echo { ttl, tos, dont_fragment, ..echo })
    }

    fn next_forwarded(&mut self, forwarder: SocketId, kind: Forwarded) -> Result<Arrived, Error> {
        let index = self.forwarder_index(forwarder, kind)?;
        let arrived = self.udp.sockets[index].received.pop().ok_or(Error::WouldBlock)?;
        self.udp.held -= arrived.cost();
        Ok(arrived)
    }

    /// Queues a datagram from any address, such as an answer of a server to a guest. Where it exceeds the path MTU, it
    /// leaves in fragments.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](Error::WouldBlock), `forward_queue` or `forward_queue_bytes`, and
    /// [`Event::WRITABLE`](crate::Event::WRITABLE) follows; [`NoBufferSpace`](Error::NoBufferSpace), `udp_mem`;
    /// [`MessageTooLong`](Error::MessageTooLong), no datagram is that long, or
    /// [`dont_fragment`](UdpPacket::dont_fragment) is set and the path MTU is smaller;
    /// [`NetworkUnreachable`](Error::NetworkUnreachable), no route; [`InvalidArgument`](Error::InvalidArgument), not
    /// a forwarder of UDP, an end that no host can have, two families, port 0, or a TTL of 0;
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn send_datagram(&mut self, forwarder: SocketId, packet: &UdpPacket) -> Result<(), Error> {
        let index = self.forwarder_index(forwarder, Forwarded::Udp)?;
        let UdpPacket { source, destination, ttl, tos, dont_fragment, ref payload } = *packet;
        if source.port() == 0 || destination.port() == 0 {
            return Err(Error::InvalidArgument);
        }
        let way = Fields { ttl, tos, dont_fragment };
        let (tuple, way) = self.way_between(source, destination, way)?;
        self.queue_waiting(index, &tuple, PROTOCOL_UDP, way, payload.len(), || datagram(&tuple, payload))?;
        self.counters.udp_out_datagrams += 1;
        Ok(())
    }

    /// Queues an echo reply from any address.
    ///
    /// # Errors
    ///
    /// As [`send_datagram`](Stack::send_datagram).
    pub fn send_echo_reply(&mut self, forwarder: SocketId, reply: &Echo) -> Result<(), Error> {
        let index = self.forwarder_index(forwarder, Forwarded::Echo)?;
        let Echo { source, destination, ident, sequence, ttl, tos, dont_fragment, ref data } = *reply;
        let way = Fields { ttl, tos, dont_fragment };
        let (tuple, way) = self.way_between((source, 0).into(), (destination, 0).into(), way)?;
        let protocol = if tuple.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
        let message = Message::EchoReply { ident, sequence, data };
        let write = || reply.emit(&message).unwrap_or_default().into_boxed_slice();
        self.queue_waiting(index, &tuple, protocol, way, data.len(), write)?;
        self.counters.icmp_out_msgs += 1;
        Ok(())
    }

    /// Refuses a datagram with an ICMP error that quotes it: see [`send_icmp_error`](Stack::send_icmp_error).
    /// [`Reject::Reset`] says that nobody listens there, and [`Reject::Silent`] sends nothing.
    ///
    /// # Errors
    ///
    /// Those of [`send_icmp_error`](Stack::send_icmp_error).
    pub fn reject_datagram(&mut self, now: Instant, packet: &UdpPacket, how: Reject) -> Result<(), Error> {
        how.of_datagram().map_or(Ok(()), |kind| self.send_icmp_error(now, &packet.quote(), kind, None))
    }

    /// Refuses an echo request, as [`reject_datagram`](Stack::reject_datagram) does. It has no port, so
    /// [`Reject::Reset`] and [`Reject::PortUnreachable`] say that the host does not answer.
    ///
    /// # Errors
    ///
    /// Those of [`send_icmp_error`](Stack::send_icmp_error).
    pub fn reject_echo(&mut self, now: Instant, request: &Echo, how: Reject) -> Result<(), Error> {
        how.of_echo().map_or(Ok(()), |kind| self.send_icmp_error(now, &request.quote(), kind, None))
    }

    /// Sends an ICMP error about a packet that begins with `quoted`, its IP header first, to the packet's source.
    /// [`UdpPacket::quote`] and [`Echo::quote`] return such bytes. The error counts towards `icmp_ratelimit`, and is
    /// dropped above it.
    ///
    /// `from` is the address from which the error comes: that of the router or host that met it. `None`: the
    /// destination, where that speaks for its port or protocol, and else an address of this stack.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), a packet about which no error may be sent (RFC 1122 §3.2.2, RFC
    /// 4443 §2.4): a later fragment, an ICMP error, a broadcast or multicast, or one whose source is not one host; a
    /// kind that the family does not have; a `from` of another family, or that no host can have.
    pub fn send_icmp_error(
        &mut self,
        now: Instant,
        quoted: &[u8],
        kind: ErrorKind,
        from: Option<IpAddr>,
    ) -> Result<(), Error> {
        self.set_now(now);
        let (source, destination) = ends_of_cause(quoted).ok_or(Error::InvalidArgument)?;
        let is_one_host = |address: IpAddr| self.addresses.is_unicast(address) && !address.is_loopback();
        let named = from.is_none_or(|from| is_one_host(from) && from.is_ipv4() == source.is_ipv4());
        let is_said = match kind {
            ErrorKind::SourceQuench | ErrorKind::OtherUnreachable => false,
            ErrorKind::PacketTooBig { mtu } => mtu > 0,
            _ => true,
        };
        if !is_one_host(source) || !is_one_host(destination) || !named || !is_said {
            return Err(Error::InvalidArgument);
        }
        let from = from.unwrap_or_else(|| self.speaker(source, destination, kind));
        self.send_error(from, source, kind, quoted, ReplyReason::IcmpForward);
        Ok(())
    }

    /// Returns the address from which an error about a packet to another host comes. A host speaks for its ports and
    /// protocols; of what lies on the way we report as a router does.
    pub(super) fn speaker(&mut self, source: IpAddr, destination: IpAddr, kind: ErrorKind) -> IpAddr {
        let speaks = matches!(kind, ErrorKind::PortUnreachable | ErrorKind::ProtocolUnreachable);
        let router = if speaks { None } else { self.source_towards((source, 0).into()).ok() };
        router.unwrap_or(destination)
    }

    /// A datagram of UDP for a forwarder.
    pub(in crate::stack) fn forward_datagram(
        &mut self,
        index: u32,
        tuple: &FourTuple,
        datagram: &Datagram<'_>,
        payload: &[u8],
    ) {
        let ip = Fields::of(datagram.quote);
        if self.receive_datagram(index, tuple, ip, datagram.interface, payload) {
            self.counters.forward_datagrams += 1;
        }
    }

    /// An echo request to another host.
    pub(in crate::stack) fn forward_echo_request(
        &mut self,
        datagram: &Datagram<'_>,
        ident: u16,
        sequence: u16,
        data: &[u8],
    ) {
        let tuple = FourTuple { local_port: sequence, remote_port: ident, ..datagram.ends };
        let Some(index) = self.udp.forwarder_of(Forwarded::Echo, tuple.local()) else {
            return self.not_ours();
        };
        let ip = Fields::of(datagram.quote);
        if self.receive_datagram(index, &tuple, ip, datagram.interface, data) {
            self.counters.forward_echoes += 1;
        }
    }

    fn forwarder_index(&self, id: SocketId, kind: Forwarded) -> Result<u32, Error> {
        match self.socket(id)?.kind {
            SocketKind::Datagrams(index) if self.udp.sockets[index].forwards == Some(kind) => Ok(index),
            _ => Err(Error::InvalidArgument),
        }
    }

    /// Returns how a packet gets from any address to a peer.
    fn way_between(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        ip: Fields,
    ) -> Result<(FourTuple, Way), Error> {
        let is_one_host = |end: SocketAddr| self.addresses.is_unicast(end.ip()) && !end.ip().is_loopback();
        if from.is_ipv4() != to.is_ipv4() || !is_one_host(from) || !is_one_host(to) || ip.ttl == 0 {
            return Err(Error::InvalidArgument);
        }
        let tuple = FourTuple::new(from, to);
        let mtu = self.udp_mtu(&tuple)?;
        Ok((tuple, Way { ip, whole: ip.dont_fragment, mtu, via: None }))
    }
}

/// Returns source and destination of a packet about which an error may be sent.
fn ends_of_cause(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (source, destination, is_first, protocol, upper) = match packet.first()? >> 4 {
        4 => {
            let (header, upper) = ipv4::parse_quoted(packet)?;
            let is_first = header.fragment_offset == 0;
            (header.source.into(), header.destination.into(), is_first, header.protocol, upper)
        }
        _ => {
            let (header, upper) = ipv6::parse_quoted(packet)?;
            let is_first = header.fragment.is_none_or(|fragment| fragment.offset == 0);
            (header.source.into(), header.destination.into(), is_first, header.protocol, upper)
        }
    };
    let is_error = match protocol {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        PROTOCOL_ICMP => matches!(upper.first(), None | Some(3 | 4 | 5 | 11 | 12)),
        PROTOCOL_ICMPV6 => matches!(upper.first(), None | Some(..128 | 137)),
        _ => false,
    };
    (is_first && !is_error).then_some((source, destination))
}

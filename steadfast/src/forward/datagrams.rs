//! Forwarders of UDP and of ICMP echo requests.

use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};

use steadfast_core::{Echo, Error, ForwardRule, IcmpError, Instant, Reject, SocketId, Stack, UdpPacket};
use tokio::io::Interest;

use crate::net::{Net, begin};
use crate::shared::{Side, State, Waiting, into_io};
use crate::socket::Socket;

/// Takes the datagrams of UDP that hosts behind this network send to addresses of others, and sends answers from there.
///
/// Sockets of the network come first, and then the most specific rule. Fragments arrive as whole datagrams, of up to
/// 65,507 bytes. Broadcasts and multicasts go to no forwarder. Dropping it ends it; datagrams that were sent before still
/// leave.
///
/// Memory: `forward_queue` datagrams and `forward_queue_bytes` each way, see [`Config`](crate::Config). A datagram that
/// arrives beyond is dropped and counted. In a network with several queues the first stack has them all.
///
/// ```
/// use steadfast::{ForwardRule, Net, UdpForwarder, UdpSocket, device};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (left, right) = device::memory::pair(1500);
/// # let gateway = Net::builder().address([10, 9, 0, 1], 24).start(left)?;
/// # let guest = Net::builder().address([10, 9, 0, 2], 24).start(right)?;
/// let forwarder = UdpForwarder::bind(&gateway, ForwardRule::all())?;
/// let socket = UdpSocket::bind(&guest, "10.9.0.2:0").await?;
/// socket.send_to(b"hold", "198.51.100.7:53").await?;
///
/// let question = forwarder.recv().await?;
/// assert_eq!(question.destination, "198.51.100.7:53".parse().unwrap());
/// forwarder.try_send(&question.answer(&b"fast"[..]))?;
///
/// let mut buffer = [0; 512];
/// let (len, from) = socket.recv_from(&mut buffer).await?;
/// assert_eq!((&buffer[..len], from), (&b"fast"[..], question.destination));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct UdpForwarder {
    socket: Socket,
}

impl UdpForwarder {
    /// Creates a forwarder for the destinations that `rule` covers.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the prefix of the rule is too long, or it has no port.
    /// - `AddrInUse`: the network has a forwarder of UDP with this rule.
    /// - `ENOBUFS`: `udp_max_sockets`.
    /// - `NetworkDown`: the network is closing.
    pub fn bind(net: &Net, rule: ForwardRule) -> io::Result<UdpForwarder> {
        bind(net, |stack| stack.forward_udp(rule)).map(|socket| UdpForwarder { socket })
    }

    /// Waits for a datagram. Several tasks may call it at once.
    ///
    /// # Errors
    ///
    /// `NetworkDown`: the network has ended, and all that had arrived was taken.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a future that is dropped before it is ready has taken nothing.
    pub async fn recv(&self) -> io::Result<UdpPacket> {
        self.socket.wait(Interest::READABLE, || self.try_recv()).await
    }

    /// Takes a datagram that has arrived.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none, else as [`recv`](UdpForwarder::recv).
    pub fn try_recv(&self) -> io::Result<UdpPacket> {
        self.socket.attempt(|state, id| state.take_forwarded(|stack| stack.next_datagram(id)))
    }

    /// Polls as [`recv`](UdpForwarder::recv) does. Only the task that polled last is woken.
    ///
    /// # Errors
    ///
    /// As [`recv`](UdpForwarder::recv).
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<UdpPacket>> {
        let id = self.socket.id;
        self.socket
            .poll_with_budget(cx, Side::Read, |state| state.take_forwarded(|stack| stack.next_datagram(id)))
    }

    /// Sends a datagram from any address to a host behind this network, in fragments where it exceeds the path MTU. It
    /// copies the payload once.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: `forward_queue` or `forward_queue_bytes`. [`writable`](UdpForwarder::writable) waits for room; a
    ///   gateway rather drops the datagram, as a router does.
    /// - `EMSGSIZE`: no datagram is that long, or [`dont_fragment`](UdpPacket::dont_fragment) is set and the path MTU is
    ///   smaller.
    /// - `InvalidInput`: an end that no host can have, two families, port 0, or a TTL of 0.
    /// - `ENOBUFS`: `udp_mem`. `NetworkUnreachable`: no route. `NetworkDown`: the network has ended.
    pub fn try_send(&self, packet: &UdpPacket) -> io::Result<()> {
        self.socket.attempt(|state, id| state.send_forwarded(id, |stack| stack.send_datagram(id, packet)))
    }

    /// Waits until there is room for another datagram to send.
    ///
    /// # Errors
    ///
    /// `NetworkDown`: the network has ended.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.ready(Interest::WRITABLE).await.map(drop)
    }

    /// Refuses a datagram, so that its sender learns what the way beyond met. [`Reject::Reset`] says that nobody
    /// listens there, and [`Reject::Silent`] nothing.
    ///
    /// # Errors
    ///
    /// As [`send_error`](UdpForwarder::send_error).
    pub fn reject(&self, packet: &UdpPacket, how: Reject) -> io::Result<()> {
        self.socket.icmp(|stack, now| stack.reject_datagram(now, packet, how))
    }

    /// Sends an ICMP error about a datagram to its sender. It comes from `from`, the router or host that met it, as the
    /// kernel reports it with `IP_RECVERR`; or where that is unknown, from the destination or this network.
    ///
    /// It counts towards `icmp_ratelimit`. Above that it is dropped, and the drop counted.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: a datagram about which no error may be sent, a kind that its family does not have, or a `from` that
    /// no host can have. `NetworkDown`: the network has ended.
    pub fn send_error(&self, packet: &UdpPacket, kind: IcmpError, from: Option<IpAddr>) -> io::Result<()> {
        let quote = packet.quote();
        self.socket.icmp(|stack, now| stack.send_icmp_error(now, &quote, kind, from))
    }
}

/// Takes the ICMP echo requests that hosts behind this network send to addresses of others, and answers from there.
///
/// The network answers those to its own addresses itself. Otherwise it is like [`UdpForwarder`], with the same limits. The
/// ports of a rule do not matter.
///
/// ```
/// use steadfast::{EchoForwarder, ForwardRule, Net, device};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (left, _right) = device::memory::pair(1500);
/// # let gateway = Net::builder().address([10, 9, 0, 1], 24).start(left)?;
/// let forwarder = EchoForwarder::bind(&gateway, ForwardRule::all())?;
/// tokio::spawn(async move {
///     loop {
///         let request = forwarder.recv().await?;
///         // A gateway asks the destination first.
///         forwarder.try_send(&request.reply())?;
///     }
///     # #[allow(unreachable_code)]
///     std::io::Result::Ok(())
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EchoForwarder {
    socket: Socket,
}

impl EchoForwarder {
    /// Creates a forwarder for the destinations that `rule` covers.
    ///
    /// # Errors
    ///
    /// As [`UdpForwarder::bind`].
    pub fn bind(net: &Net, rule: ForwardRule) -> io::Result<EchoForwarder> {
        bind(net, |stack| stack.forward_echo(rule)).map(|socket| EchoForwarder { socket })
    }

    /// Waits for an echo request.
    ///
    /// # Errors
    ///
    /// As [`UdpForwarder::recv`].
    pub async fn recv(&self) -> io::Result<Echo> {
        self.socket.wait(Interest::READABLE, || self.try_recv()).await
    }

    /// Takes a request that has arrived.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none, else as [`recv`](EchoForwarder::recv).
    pub fn try_recv(&self) -> io::Result<Echo> {
        self.socket.attempt(|state, id| state.take_forwarded(|stack| stack.next_echo(id)))
    }

    /// Polls as [`recv`](EchoForwarder::recv) does. Only the task that polled last is woken.
    ///
    /// # Errors
    ///
    /// As [`recv`](EchoForwarder::recv).
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Echo>> {
        let id = self.socket.id;
        self.socket
            .poll_with_budget(cx, Side::Read, |state| state.take_forwarded(|stack| stack.next_echo(id)))
    }

    /// Sends an echo reply, such as [`Echo::reply`] makes of a request.
    ///
    /// # Errors
    ///
    /// As [`UdpForwarder::try_send`].
    pub fn try_send(&self, reply: &Echo) -> io::Result<()> {
        self.socket.attempt(|state, id| state.send_forwarded(id, |stack| stack.send_echo_reply(id, reply)))
    }

    /// Waits until there is room for another reply.
    ///
    /// # Errors
    ///
    /// `NetworkDown`: the network has ended.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.ready(Interest::WRITABLE).await.map(drop)
    }

    /// Refuses a request, as [`UdpForwarder::reject`] does. An echo has no port: [`Reject::Reset`] says that the host does
    /// not answer.
    ///
    /// # Errors
    ///
    /// As [`UdpForwarder::send_error`].
    pub fn reject(&self, request: &Echo, how: Reject) -> io::Result<()> {
        self.socket.icmp(|stack, now| stack.reject_echo(now, request, how))
    }

    /// Sends an ICMP error about a request, as [`UdpForwarder::send_error`] does.
    ///
    /// # Errors
    ///
    /// As [`UdpForwarder::send_error`].
    pub fn send_error(&self, request: &Echo, kind: IcmpError, from: Option<IpAddr>) -> io::Result<()> {
        let quote = request.quote();
        self.socket.icmp(|stack, now| stack.send_icmp_error(now, &quote, kind, from))
    }
}

/// Opens a forwarder in the first stack, to which datagrams are steered.
fn bind(net: &Net, open: impl FnOnce(&mut Stack) -> Result<SocketId, Error>) -> io::Result<Socket> {
    let handle = &net.all_stacks()[0];
    let id = begin(handle, |state, _| {
        let id = open(&mut state.stack)?;
        state.sockets.insert(id, Waiting::Stream(Default::default()));
        Ok(id)
    })?;
    Ok(Socket { handle: handle.clone(), id })
}

impl Socket {
    fn icmp(&self, send: impl FnOnce(&mut Stack, Instant) -> Result<(), Error>) -> io::Result<()> {
        self.handle.call(|state, now| {
            state.check_running()?;
            send(&mut state.stack, now).map_err(into_io)
        })
    }
}

impl State {
    fn send_forwarded(
        &mut self,
        id: SocketId,
        send: impl FnOnce(&mut Stack) -> Result<(), Error>,
    ) -> io::Result<Option<()>> {
        self.check_running()?;
        let sent = send(&mut self.stack);
        self.of_sent(id, sent)
    }

    fn take_forwarded<R>(
        &mut self,
        take: impl FnOnce(&mut Stack) -> Result<R, Error>,
    ) -> io::Result<Option<R>> {
        let taken = take(&mut self.stack);
        self.of_datagram(taken)
    }
}

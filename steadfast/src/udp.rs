//! The UDP socket.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use steadfast_core::{Error, InterfaceId, Received, SocketId, Stack, UdpOptions};
use tokio::io::{Interest, ReadBuf, Ready};

use crate::addr::{self, ToSocketAddrs};
use crate::net::{Net, begin};
use crate::options::ttl_of;
use crate::shared::{Handle, Side, State, Waiting, into_io};
use crate::socket::Socket;

/// A UDP socket, as `tokio::net::UdpSocket`. Dropping it frees the port; datagrams that were sent before still leave.
///
/// A datagram that is longer than the path MTU travels in fragments, unless
/// [`dont_fragment`](UdpOptions::dont_fragment) is set. A socket that is [connected](UdpSocket::connect) hears its peer
/// alone, and one of its calls returns `ConnectionRefused` if ICMP reports that nobody listens there.
///
/// Memory: `udp_rcvbuf` and `udp_sndbuf` limit the datagrams that wait in a socket, `udp_mem` those of the whole
/// network. A datagram that arrives beyond is dropped and counted.
///
/// A socket sends to a multicast group without being a member of it, and hears the groups that it
/// [joined](UdpSocket::join_multicast_v4). Unlike on Linux, it hears only its own groups (`IP_MULTICAST_ALL` is off).
///
/// ```
/// use steadfast::{Net, UdpSocket, device};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (left, right) = device::memory::pair(1500);
/// # let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
/// # let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
/// let server = UdpSocket::bind(&server, "10.9.0.2:53").await?;
/// let client = UdpSocket::bind(&client, "10.9.0.1:0").await?;
/// client.connect("10.9.0.2:53").await?;
/// client.send(b"hold").await?;
///
/// let mut buffer = [0; 512];
/// let (len, peer) = server.recv_from(&mut buffer).await?;
/// assert_eq!((&buffer[..len], peer), (&b"hold"[..], client.local_addr()?));
/// server.send_to(b"fast", peer).await?;
/// assert_eq!(client.recv(&mut buffer).await?, 4);
/// # Ok(())
/// # }
/// ```
pub struct UdpSocket {
    net: Net,
    pub(crate) socket: Socket,
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("local_addr", &self.local_addr().ok()).finish_non_exhaustive()
    }
}

impl UdpSocket {
    /// Binds a socket to `local`, or to the first address of several that can be bound.
    ///
    /// `0.0.0.0` stands for all IPv4 addresses of the network, `[::]` for all addresses, as on Linux. Port 0 picks a
    /// random free port.
    ///
    /// # Errors
    ///
    /// The error of the last address: `AddrNotAvailable`, `AddrInUse`, or `ENOBUFS` above `udp_max_sockets`;
    /// `NetworkDown` if the network is closing; the resolver's error.
    ///
    /// # Cancel safety
    ///
    /// The future waits only for the resolver of a name: otherwise the first poll binds the socket or fails.
    pub fn bind<A: ToSocketAddrs>(
        net: &Net,
        local: A,
    ) -> impl Future<Output = io::Result<UdpSocket>> + Send + 'static + use<A> {
        let (net, target) = (net.clone(), local.to_target());
        async move {
            let mut error = None;
            for local in net.resolve(target).await? {
                match UdpSocket::bind_one(&net, local, |_| ()) {
                    Ok(socket) => return Ok(socket),
                    Err(e) => error = Some(e),
                }
            }
            Err(error.unwrap_or_else(addr::no_address))
        }
    }

    /// Binds a socket with options: `options` changes the defaults of the network. With
    /// [`reuse_port`](UdpOptions::reuse_port), several sockets share an address and port (`SO_REUSEPORT`).
    ///
    /// # Errors
    ///
    /// As [`bind`](UdpSocket::bind).
    pub fn bind_with(
        net: &Net,
        local: SocketAddr,
        options: impl FnOnce(&mut UdpOptions),
    ) -> io::Result<UdpSocket> {
        UdpSocket::bind_one(net, local, options)
    }

    fn bind_one(
        net: &Net,
        local: SocketAddr,
        options: impl FnOnce(&mut UdpOptions),
    ) -> io::Result<UdpSocket> {
        // The first stack has all UDP sockets: datagrams are steered to it.
        let handle: &Arc<Handle> = &net.all_stacks()[0];
        let id = begin(handle, |state, _| {
            let options = UdpOptions::new(state.stack.config()).with(options);
            let id = state.stack.bind_udp(local, options)?;
            state.sockets.insert(id, Waiting::Stream(Default::default()));
            Ok(id)
        })?;
        Ok(UdpSocket { net: net.clone(), socket: Socket { handle: handle.clone(), id } })
    }

    /// Sets the peer: [`send`](UdpSocket::send) and [`recv`](UdpSocket::recv) use it, and datagrams of others are
    /// refused. Several addresses are tried in turn; nothing is sent.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: port 0, no unicast address, or not of the socket's family. `NetworkUnreachable`: the network has
    /// no address of that family.
    pub async fn connect<A: ToSocketAddrs>(&self, peer: A) -> io::Result<()> {
        let mut error = None;
        for peer in self.net.resolve(peer.to_target()).await? {
            let connected = self.socket.handle.call_untimed(|state| {
                state.check_running()?;
                state.stack.connect_udp(self.socket.id, peer).map_err(into_io)
            });
            match connected {
                Ok(()) => return Ok(()),
                Err(e) => error = Some(e),
            }
        }
        Err(error.unwrap_or_else(addr::no_address))
    }

    /// Returns the address to which the socket is bound.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Returns the peer.
    ///
    /// # Errors
    ///
    /// `NotConnected`: the socket has no peer.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    /// Sends a datagram to the peer, and returns its length. Waits while the send buffer is full.
    ///
    /// # Errors
    ///
    /// `EDESTADDRREQ`: the socket has no peer. `EMSGSIZE`: no datagram is that long, or
    /// [`dont_fragment`](UdpOptions::dont_fragment) is set and the path MTU is smaller. `ENOBUFS`: `udp_mem` is used up.
    /// `ConnectionRefused`: ICMP said so of an earlier datagram.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a future that is dropped before it is ready has sent nothing.
    pub async fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        self.socket.wait(Interest::WRITABLE, || self.try_send(datagram)).await
    }

    /// Sends a datagram to `target`, to the first address if it has several.
    ///
    /// # Errors
    ///
    /// As [`send`](UdpSocket::send). Also `InvalidInput`: port 0, or an address of a family that the socket does not
    /// take; `NetworkUnreachable`: no route; `PermissionDenied`: a broadcast without
    /// [`set_broadcast`](UdpSocket::set_broadcast); and the resolver's error.
    pub async fn send_to<A: ToSocketAddrs>(&self, datagram: &[u8], target: A) -> io::Result<usize> {
        let to = self.net.resolve(target.to_target()).await?.next();
        let to = to.ok_or_else(addr::no_address)?;
        self.socket.wait(Interest::WRITABLE, || self.try_send_to(datagram, to)).await
    }

    /// Sends a datagram to the peer without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the send buffer is full, else as [`send`](UdpSocket::send).
    pub fn try_send(&self, datagram: &[u8]) -> io::Result<usize> {
        self.socket.attempt(|state, id| state.send_datagram(id, datagram, None))
    }

    /// Like [`try_send`](UdpSocket::try_send), to `target`.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the send buffer is full, else as [`send_to`](UdpSocket::send_to).
    pub fn try_send_to(&self, datagram: &[u8], target: SocketAddr) -> io::Result<usize> {
        self.socket.attempt(|state, id| state.send_datagram(id, datagram, Some(target)))
    }

    /// Polls as [`send`](UdpSocket::send) does. Only the task that polled last is woken.
    ///
    /// # Errors
    ///
    /// As [`send`](UdpSocket::send).
    pub fn poll_send(&self, cx: &mut Context<'_>, datagram: &[u8]) -> Poll<io::Result<usize>> {
        let id = self.socket.id;
        self.socket.poll_with_budget(cx, Side::Write, |state| state.send_datagram(id, datagram, None))
    }

    /// Polls as [`send_to`](UdpSocket::send_to) does. Only the task that polled last is woken.
    ///
    /// # Errors
    ///
    /// As [`send_to`](UdpSocket::send_to).
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        datagram: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let id = self.socket.id;
        self.socket.poll_with_budget(cx, Side::Write, |state| state.send_datagram(id, datagram, Some(target)))
    }

    /// Receives a datagram and returns its length. The rest of a datagram longer than `buffer` is lost.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused`: ICMP said so of an earlier datagram. `NetworkDown`: the network has ended, and all that had
    /// arrived was read.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a future that is dropped before it is ready has taken nothing.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.wait(Interest::READABLE, || self.try_recv(buffer)).await
    }

    /// Like [`recv`](UdpSocket::recv), and returns the sender too.
    ///
    /// # Errors
    ///
    /// As [`recv`](UdpSocket::recv).
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.wait(Interest::READABLE, || self.try_recv_from(buffer)).await
    }

    /// Like [`recv_from`](UdpSocket::recv_from), with all that is known of the datagram.
    ///
    /// # Errors
    ///
    /// As [`recv`](UdpSocket::recv).
    pub async fn recv_msg(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut attempt = || self.socket.attempt(|state, id| state.take_datagram(id, buffer));
        self.socket.wait(Interest::READABLE, &mut attempt).await
    }

    /// Receives a datagram that has arrived.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none, else as [`recv`](UdpSocket::recv).
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_recv_from(buffer).map(|(len, _)| len)
    }

    /// Like [`try_recv`](UdpSocket::try_recv), and returns the sender too.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](UdpSocket::try_recv).
    pub fn try_recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let received = self.socket.attempt(|state, id| state.take_datagram(id, buffer))?;
        Ok((received.len, received.from))
    }

    /// Polls as [`recv`](UdpSocket::recv) does. Only the task that polled last is woken.
    ///
    /// # Errors
    ///
    /// As [`recv`](UdpSocket::recv).
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_recv_from(cx, buffer).map_ok(drop)
    }

    /// Polls as [`recv_from`](UdpSocket::recv_from) does. Only the task that polled last is woken.
    ///
    /// # Errors
    ///
    /// As [`recv`](UdpSocket::recv).
    pub fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        let (id, unfilled) = (self.socket.id, buffer.initialize_unfilled());
        let polled = self.socket.poll_with_budget(cx, Side::Read, |state| state.take_datagram(id, unfilled));
        polled.map_ok(|received| {
            buffer.advance(received.len);
            received.from
        })
    }

    /// Receives a datagram without taking it.
    ///
    /// # Errors
    ///
    /// As [`recv`](UdpSocket::recv).
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.peek_from(buffer).await.map(|(len, _)| len)
    }

    /// Like [`peek`](UdpSocket::peek), and returns the sender too.
    ///
    /// # Errors
    ///
    /// As [`recv`](UdpSocket::recv).
    pub async fn peek_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.wait(Interest::READABLE, || self.try_peek_from(buffer)).await
    }

    /// Like [`peek_from`](UdpSocket::peek_from), without waiting.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](UdpSocket::try_recv).
    pub fn try_peek_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let received = self.socket.attempt(|state, id| {
            let received = state.stack.peek_from(id, buffer);
            state.of_datagram(received)
        })?;
        Ok((received.len, received.from))
    }

    /// Waits until the socket is ready for one of `interest`, and returns for which. Cancel-safe.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else. An error of the socket counts as ready.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.socket.ready(interest).await
    }

    /// Waits until a datagram or an error has arrived. Cancel-safe.
    ///
    /// # Errors
    ///
    /// As [`ready`](UdpSocket::ready).
    pub async fn readable(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await.map(drop)
    }

    /// Waits until there is room in the send buffer. Cancel-safe.
    ///
    /// # Errors
    ///
    /// As [`ready`](UdpSocket::ready).
    pub async fn writable(&self) -> io::Result<()> {
        self.ready(Interest::WRITABLE).await.map(drop)
    }

    /// Polls as [`readable`](UdpSocket::readable) does. Only the task that polled last is woken.
    ///
    /// # Errors
    ///
    /// As [`ready`](UdpSocket::ready).
    pub fn poll_recv_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_ready(cx, Side::Read)
    }

    /// Polls as [`writable`](UdpSocket::writable) does. Only the task that polled last is woken.
    ///
    /// # Errors
    ///
    /// As [`ready`](UdpSocket::ready).
    pub fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_ready(cx, Side::Write)
    }

    /// Returns the options.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn options(&self) -> io::Result<UdpOptions> {
        self.socket.handle.read(|state| state.stack.udp_options(self.socket.id).cloned().map_err(into_io))
    }

    /// Changes options, for datagrams from now on.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn set_options(&self, change: impl FnOnce(&mut UdpOptions)) -> io::Result<()> {
        let options = self.options()?.with(change);
        self.socket
            .handle
            .call_untimed(|state| state.stack.set_udp_options(self.socket.id, options).map_err(into_io))
    }

    /// Returns the TTL, or hop limit, of sent packets.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn ttl(&self) -> io::Result<u32> {
        self.options().map(|options| options.ttl.into())
    }

    /// Sets the TTL, or hop limit, of sent packets.
    ///
    /// # Errors
    ///
    /// `InvalidInput` unless it is from 1 to 255; `Other` if the stack has panicked.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        let ttl = ttl_of(ttl)?;
        self.set_options(|options| options.ttl = ttl)
    }

    /// Returns whether datagrams to broadcast addresses may be sent (`SO_BROADCAST`).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.options().map(|options| options.broadcast)
    }

    /// Allows or forbids datagrams to broadcast addresses (`SO_BROADCAST`). Without it, sending one fails with
    /// `PermissionDenied`.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn set_broadcast(&self, on: bool) -> io::Result<()> {
        self.set_options(|options| options.broadcast = on)
    }

    /// Returns whether sockets of this network hear multicast datagrams of this socket (`IP_MULTICAST_LOOP`).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn multicast_loop_v4(&self) -> io::Result<bool> {
        self.options().map(|options| options.multicast_loop)
    }

    /// Sets whether sockets of this network hear multicast datagrams of this socket (`IP_MULTICAST_LOOP`). Unlike on Linux,
    /// both families share the setting.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn set_multicast_loop_v4(&self, on: bool) -> io::Result<()> {
        self.set_options(|options| options.multicast_loop = on)
    }

    /// As [`multicast_loop_v4`](UdpSocket::multicast_loop_v4).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn multicast_loop_v6(&self) -> io::Result<bool> {
        self.multicast_loop_v4()
    }

    /// As [`set_multicast_loop_v4`](UdpSocket::set_multicast_loop_v4).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn set_multicast_loop_v6(&self, on: bool) -> io::Result<()> {
        self.set_multicast_loop_v4(on)
    }

    /// Returns the TTL, or hop limit, of multicast datagrams (`IP_MULTICAST_TTL`).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn multicast_ttl_v4(&self) -> io::Result<u32> {
        self.options().map(|options| options.multicast_ttl.into())
    }

    /// Sets the TTL, or hop limit, of multicast datagrams (`IP_MULTICAST_TTL`): 1 by default, and 0 for this network
    /// alone.
    ///
    /// # Errors
    ///
    /// `InvalidInput` above 255; `Other` if the stack has panicked.
    pub fn set_multicast_ttl_v4(&self, ttl: u32) -> io::Result<()> {
        let ttl = u8::try_from(ttl).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.set_options(|options| options.multicast_ttl = ttl)
    }

    /// Hears a multicast group on the interface with the address `interface`, or with `0.0.0.0` on that of the route to the
    /// group (`IP_ADD_MEMBERSHIP`). Routers hear of it (IGMPv3).
    ///
    /// # Errors
    ///
    /// `InvalidInput`: no multicast address. `AddrNotAvailable`: no interface has the address. `AddrInUse`: it hears the group
    /// already. `ENOBUFS`: `igmp_max_memberships`.
    pub fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.group_call(|stack, id| {
            let interface = interface_at(stack, interface)?;
            stack.join_multicast(id, group.into(), interface)
        })
    }

    /// Leaves a multicast group.
    ///
    /// # Errors
    ///
    /// `AddrNotAvailable` if it is no member, else as [`join_multicast_v4`](UdpSocket::join_multicast_v4).
    pub fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.group_call(|stack, id| {
            let interface = interface_at(stack, interface)?;
            stack.leave_multicast(id, group.into(), interface)
        })
    }

    /// Hears a multicast group on the interface of this [number](steadfast_core::InterfaceId::index), or with 0 on
    /// that of the route to the group (`IPV6_JOIN_GROUP`). Routers hear of it (MLDv2).
    ///
    /// # Errors
    ///
    /// As [`join_multicast_v4`](UdpSocket::join_multicast_v4), and `InvalidInput` without such an interface.
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        let interface = Some(InterfaceId::from_index(interface)).filter(|_| interface > 0);
        self.group_call(|stack, id| stack.join_multicast(id, (*group).into(), interface))
    }

    /// Leaves a multicast group.
    ///
    /// # Errors
    ///
    /// `AddrNotAvailable` if it is no member, else as [`join_multicast_v6`](UdpSocket::join_multicast_v6).
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        let interface = Some(InterfaceId::from_index(interface)).filter(|_| interface > 0);
        self.group_call(|stack, id| stack.leave_multicast(id, (*group).into(), interface))
    }

    fn group_call(&self, call: impl FnOnce(&mut Stack, SocketId) -> Result<(), Error>) -> io::Result<()> {
        self.socket.handle.call_untimed(|state| {
            state.check_running()?;
            call(&mut state.stack, self.socket.id).map_err(into_io)
        })
    }

    /// Returns and clears the error that ICMP reported.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else. The reported error is part of the result.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.handle.call_untimed(|state| {
            state.check_whole()?;
            let error = state.stack.take_error(self.socket.id).map_err(into_io)?;
            Ok(error.map(into_io))
        })
    }
}

/// Returns the interface with an address. `None` for the unspecified one: the route chooses.
fn interface_at(stack: &Stack, address: Ipv4Addr) -> Result<Option<InterfaceId>, Error> {
    if address.is_unspecified() {
        return Ok(None);
    }
    stack.interface_of(address.into()).map(Some).ok_or(Error::AddrNotAvailable)
}

impl State {
    /// Queues a datagram. Returns `None` if there is no room.
    fn send_datagram(
        &mut self,
        id: SocketId,
        datagram: &[u8],
        to: Option<SocketAddr>,
    ) -> io::Result<Option<usize>> {
        self.check_running()?;
        let sent = self.stack.send_to(id, datagram, to);
        self.of_sent(id, sent.map(|()| datagram.len()))
    }

    /// Turns the result of a sending call into that of an attempt.
    pub(crate) fn of_sent<R>(&mut self, id: SocketId, sent: Result<R, Error>) -> io::Result<Option<R>> {
        match sent {
            Ok(sent) => Ok(Some(sent)),
            Err(Error::WouldBlock) => {
                if let Some(wakers) = self.wakers(id) {
                    wakers.write_refused = true;
                }
                Ok(None)
            }
            Err(error) => Err(self.error_of(error)),
        }
    }

    pub(crate) fn take_datagram(&mut self, id: SocketId, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let received = self.stack.recv_from(id, buffer);
        self.of_datagram(received)
    }

    /// Turns the result of a receiving call into that of an attempt.
    pub(crate) fn of_datagram<R>(&mut self, received: Result<R, Error>) -> io::Result<Option<R>> {
        self.check_whole()?;
        match received {
            // Datagrams that had arrived are read before the end of the network is reported.
            Err(Error::WouldBlock) => self.check_running().map(|()| None),
            Err(error) => Err(self.error_of(error)),
            Ok(received) => Ok(Some(received)),
        }
    }
}

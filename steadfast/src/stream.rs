//! The connected socket.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use steadfast_core::info::Info;
use steadfast_core::{ConnectOptions, Error, Instant, SocketId, SocketOptions, Stack};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::addr::{self, ToSocketAddrs};
use crate::net::{Net, begin};
use crate::options::{TcpKeepalive, dscp_of, tos_of, ttl_of};
use crate::shared::{Handle, Waiting, into_io};
use crate::socket::Socket;

/// A TCP connection, as `tokio::net::TcpStream`.
///
/// Dropping it closes the connection. Written data is still delivered, but if received data is unread, the peer gets a
/// RST instead.
///
/// Reading and writing are cancel-safe, as in Tokio: a pending poll has moved no bytes. An error that ended the
/// connection is returned once, after the bytes that arrived before it. Later reads then return 0. A read into an empty
/// buffer returns at once; in Tokio it waits until there is something to read.
///
/// ```
/// use steadfast::{Net, TcpListener, TcpStream, device};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (left, right) = device::memory::pair(1500);
/// # let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
/// # let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
/// # let listener = TcpListener::bind(&server, ([10, 9, 0, 2], 7)).await?;
/// let mut stream = TcpStream::connect(&client, ([10, 9, 0, 2], 7)).await?;
/// stream.set_nodelay(true)?;
/// stream.write_all(b"hold fast").await?;
/// // A FIN after the written data. Dropping the stream would send it too.
/// stream.shutdown().await?;
///
/// let (mut accepted, _) = listener.accept().await?;
/// let mut text = String::new();
/// accepted.read_to_string(&mut text).await?;
/// assert_eq!(text, "hold fast");
/// assert_eq!(accepted.info()?.bytes_received, 9);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TcpStream {
    pub(crate) socket: Arc<Socket>,
}

impl TcpStream {
    pub(crate) fn new(handle: Arc<Handle>, id: SocketId) -> TcpStream {
        TcpStream { socket: Arc::new(Socket { handle, id }) }
    }

    /// Connects to `remote` (RFC 9293 §3.5), and returns once the handshake is complete. A name is resolved by the
    /// network's resolver. If `remote` names several addresses, each is tried in turn.
    ///
    /// The future owns what it needs and is `'static`; that of Tokio borrows `remote`.
    ///
    /// # Errors
    ///
    /// If all addresses fail, it returns the error of the last one:
    ///
    /// - `InvalidInput`: the address is no unicast address, or its port is 0; or there is no address.
    /// - `NetworkUnreachable`: the network has no address of this family.
    /// - `AddrNotAvailable`: no local port is free for this peer.
    /// - `ENOBUFS`: the limit of connections is reached (`tcp_max_connections`).
    /// - `NetworkDown`: the network is closing.
    /// - The error that ended the handshake, such as `ConnectionRefused` or `TimedOut`.
    /// - The resolver's error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub fn connect<A: ToSocketAddrs>(
        net: &Net,
        remote: A,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send + 'static + use<A> {
        TcpStream::connect_with(net, remote, ConnectOptions::default())
    }

    /// Like [`connect`](TcpStream::connect), from a given local address or port, or with other options. Dropping the
    /// future abandons the attempt.
    ///
    /// # Errors
    ///
    /// As [`connect`](TcpStream::connect). `AddrNotAvailable` also for a local address that is not the network's, and
    /// for a local end that another connection to this peer has; `InvalidInput` also for one of another family.
    pub fn connect_with<A: ToSocketAddrs>(
        net: &Net,
        remote: A,
        options: ConnectOptions,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send + 'static + use<A> {
        let (net, target) = (net.clone(), remote.to_target());
        async move {
            let mut error = None;
            for remote in net.resolve(target).await? {
                match TcpStream::connect_to(&net, remote, options.clone()).await {
                    Ok(stream) => return Ok(stream),
                    Err(e) => error = Some(e),
                }
            }
            Err(error.unwrap_or_else(addr::no_address))
        }
    }

    async fn connect_to(net: &Net, remote: SocketAddr, options: ConnectOptions) -> io::Result<TcpStream> {
        TcpStream::open(net, |stack, now| stack.connect(now, remote, options.clone())).await
    }

    /// Connects from an address that is not the network's, such as that of a client for whom a gateway opens the
    /// connection. The peer must route its answers to the network, which from then on takes in packets to any address.
    ///
    /// # Errors
    ///
    /// As [`connect`](TcpStream::connect). `InvalidInput` also for a source that is a loopback or no unicast address, is
    /// of another family than `remote`, or has port 0; `AddrNotAvailable` if a connection has both ends.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    ///
    /// ```
    /// use steadfast::{Net, TcpListener, TcpStream, device};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let (left, right) = device::memory::pair(1500);
    /// # let gateway = Net::builder().address([10, 9, 0, 1], 24).start(left)?;
    /// # let guest = Net::builder().address([10, 9, 0, 2], 24).start(right)?;
    /// let listener = TcpListener::bind(&guest, "10.9.0.2:80").await?;
    /// let (client, server) = ("203.0.113.7:50000".parse().unwrap(), "10.9.0.2:80".parse().unwrap());
    /// let _stream = TcpStream::connect_from(&gateway, client, server).await?;
    /// assert_eq!(listener.accept().await?.1, client);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_from(net: &Net, source: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::open(net, |stack, now| stack.connect_from(now, source, remote, None)).await
    }

    /// Opens a connection in the stack that can own it, and waits for the handshake.
    async fn open(
        net: &Net,
        connect: impl Fn(&mut Stack, Instant) -> Result<SocketId, Error>,
    ) -> io::Result<TcpStream> {
        let mut connected = Err(io::ErrorKind::AddrNotAvailable.into());
        for stack in net.stacks() {
            connected = begin(stack, |state, now| {
                let id = connect(&mut state.stack, now)?;
                state.sockets.insert(id, Waiting::Stream(Default::default()));
                Ok((stack, id))
            });
            // With several stacks, only one can own the requested local port for this peer.
            if !matches!(&connected, Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable) {
                break;
            }
        }
        let (stack, id) = connected?;
        let stream = TcpStream::new(stack.clone(), id);
        poll_fn(|cx| stream.socket.poll_connected(cx)).await?;
        Ok(stream)
    }

    /// Resets the connection (RFC 9293 §3.10.5): queued data is discarded, and the peer gets a RST.
    pub fn abort(self) {
        self.socket.handle.call(|state, now| {
            // It fails only if the connection is gone already.
            let _ = state.stack.abort(now, self.socket.id);
        });
    }

    /// Returns the local address.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Returns the peer's address.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    /// Returns the state of the connection, with the fields of Linux's `tcp_info`. After its end, it returns those that
    /// it had at its end, with the state `Closed`.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn info(&self) -> io::Result<Info> {
        self.socket.info()
    }

    /// Returns and clears the error that ended the connection, or the last soft error from an ICMP message
    /// (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else. The error of the connection is part of the result.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.handle.read(|state| {
            let error = state.stack.take_error(self.socket.id).map_err(into_io)?;
            Ok(error.map(|error| state.error_of(error)))
        })
    }

    /// Returns the options in force.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn options(&self) -> io::Result<SocketOptions> {
        let id = self.socket.id;
        self.socket.handle.read(|state| state.stack.options(id).cloned().map_err(into_io))
    }

    /// Changes options. `change` gets those in force, and may use this stream and others. Only fields that it changes
    /// are set: the rest keep values that other tasks set meanwhile.
    ///
    /// | options | take effect |
    /// |---|---|
    /// | `nodelay`, `cork`, `notsent_lowat`, `sndbuf`, `ttl`, `dscp`, `max_segment` | with the next segment or write |
    /// | `keepalive` and its parameters, `user_timeout`, `r2` | at once: running timers are set anew |
    /// | `linger`, `fin_timeout` | when the stream is dropped |
    /// | `rcvbuf`, `rcvbuf_max`, `congestion` | only before the connection is made: see [`TcpSocket`](crate::TcpSocket), [`connect_with`](TcpStream::connect_with) and [`bind_with`](crate::TcpListener::bind_with) |
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn set_options(&self, change: impl FnOnce(&mut SocketOptions)) -> io::Result<()> {
        let before = self.options()?;
        let mut after = before.clone();
        change(&mut after);
        self.socket.handle.call(|state, now| {
            state.check_whole()?;
            let mut options = state.stack.options(self.socket.id).cloned().map_err(into_io)?;
            options.apply_changes(&before, after);
            state.stack.set_options(now, self.socket.id, options).map_err(into_io)
        })
    }

    /// Returns whether the Nagle algorithm (RFC 9293 §3.7.4) is off (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(self.options()?.nodelay)
    }

    /// Turns the Nagle algorithm off (true) or on (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.set_options(|o| o.nodelay = nodelay)
    }

    /// Turns keepalive probes (RFC 9293 §3.8.4) on an idle connection on or off (`SO_KEEPALIVE`).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn set_keepalive(&self, keepalive: bool) -> io::Result<()> {
        self.set_options(|o| o.keepalive = keepalive)
    }

    /// Returns whether keepalive probes are on (`SO_KEEPALIVE`).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn keepalive(&self) -> io::Result<bool> {
        Ok(self.options()?.keepalive)
    }

    /// Turns keepalive probes on, with these parameters.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if one of them is zero; `Other` if the stack has panicked.
    pub fn set_tcp_keepalive(&self, keepalive: &TcpKeepalive) -> io::Result<()> {
        keepalive.check()?;
        self.set_options(|options| keepalive.apply(options))
    }

    /// Returns whether the ACK of the next segment is not delayed (`TCP_QUICKACK`).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn quickack(&self) -> io::Result<bool> {
        self.socket.handle.read(|state| match state.stack.quickack(self.socket.id) {
            Ok(quick) => Ok(quick),
            // Nothing is acknowledged any more.
            Err(Error::NotConnected) => Ok(false),
            Err(error) => Err(into_io(error)),
        })
    }

    /// Acknowledges the next segments at once, or delays ACKs (`TCP_QUICKACK`). As on Linux, this is not permanent.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        self.socket.handle.call(|state, now| {
            state.check_whole()?;
            match state.stack.set_quickack(now, self.socket.id, quickack) {
                Ok(()) | Err(Error::NotConnected) => Ok(()),
                Err(error) => Err(into_io(error)),
            }
        })
    }

    /// Returns the TOS (IPv4) or traffic class (IPv6) of outgoing packets, without the bits of ECN.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn tos(&self) -> io::Result<u32> {
        Ok(tos_of(self.options()?.dscp))
    }

    /// Sets the TOS (IPv4) or traffic class (IPv6) of outgoing packets (RFC 9293 §3.9.1.9). The bits of ECN are
    /// ignored, as on Linux.
    ///
    /// # Errors
    ///
    /// `InvalidInput` above 255; `Other` if the stack has panicked.
    pub fn set_tos(&self, tos: u32) -> io::Result<()> {
        let dscp = dscp_of(tos)?;
        self.set_options(|o| o.dscp = dscp)
    }

    /// Returns how dropping the stream closes the connection (`SO_LINGER`).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        Ok(self.options()?.linger)
    }

    /// Sets how dropping the stream closes the connection (`SO_LINGER`). Zero resets it; any other value closes it in
    /// good order. Dropping never blocks, while the kernel's `close` may wait that long.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.set_options(|o| o.linger = linger)
    }

    /// Makes dropping the stream reset the connection: data that is still queued is discarded, and the peer gets a RST.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        self.set_linger(Some(Duration::ZERO))
    }

    /// Sets the longest time that sent data may stay unacknowledged (`TCP_USER_TIMEOUT`). Zero leaves it to the
    /// configured limits.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn set_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_options(|o| o.user_timeout = timeout)
    }

    /// Returns the TTL (IPv4) or hop limit (IPv6) of outgoing packets (`IP_TTL`).
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn ttl(&self) -> io::Result<u32> {
        Ok(self.options()?.ttl.into())
    }

    /// Sets the TTL (IPv4) or hop limit (IPv6) of outgoing packets (`IP_TTL`).
    ///
    /// # Errors
    ///
    /// `InvalidInput` unless it is from 1 to 255; `Other` if the stack has panicked.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        let ttl = ttl_of(ttl)?;
        self.set_options(|o| o.ttl = ttl)
    }

    /// Returns the identifier under which [`Net::sockets`] lists the connection.
    pub fn id(&self) -> SocketId {
        self.socket.id
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket.poll_read(cx, buffer)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_write(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_write(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: written data is sent without a flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends a FIN after the written data.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown_write())
    }
}

//! A socket that is neither connected nor listening yet.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use steadfast_core::{ConnectOptions, ListenOptions, SocketOptions};

use crate::listener::TcpListener;
use crate::net::{Net, begin};
use crate::options::{TcpKeepalive, dscp_of, invalid, tos_of};
use crate::shared::Handle;
use crate::stream::TcpStream;

/// A socket whose options and address are set before it connects or listens, as `tokio::net::TcpSocket`.
///
/// It differs from that of Tokio:
///
/// - A connection does not hold the port from which it was [bound](TcpSocket::bind): another socket may bind it.
/// - Buffer sizes are used as they are given; Linux doubles them.
/// - A listener that ends leaves its address free at once, so `reuseaddr` changes nothing.
///
/// ```
/// use steadfast::{Net, TcpSocket, device};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (left, right) = device::memory::pair(1500);
/// # let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
/// # let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
/// let socket = TcpSocket::new_v4(&server)?;
/// socket.bind("10.9.0.2:7".parse().unwrap())?;
/// let listener = socket.listen(16)?;
///
/// let socket = TcpSocket::new_v4(&client)?;
/// socket.set_nodelay(true)?;
/// let stream = socket.connect(listener.local_addr()?).await?;
/// assert!(stream.nodelay()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TcpSocket {
    net: Net,
    v6: bool,
    draft: Mutex<Draft>,
}

#[derive(Debug)]
struct Draft {
    options: SocketOptions,
    reuseaddr: bool,
    reuseport: bool,
    bound: Option<Bound>,
}

/// A reserved address and port, which is given back when dropped.
#[derive(Debug)]
struct Bound {
    /// The first stack, which listens before the others.
    handle: Arc<Handle>,
    local: SocketAddr,
    reserved: bool,
}

impl Bound {
    /// Returns the address for the caller to give back.
    fn hand_over(mut self) -> SocketAddr {
        self.reserved = false;
        self.local
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.reserved {
            self.handle.call_last(|state, _| _ = state.stack.unbind(self.local));
        }
    }
}

impl TcpSocket {
    /// Creates a socket for IPv4.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn new_v4(net: &Net) -> io::Result<TcpSocket> {
        TcpSocket::new(net, false)
    }

    /// Creates a socket for IPv6.
    ///
    /// # Errors
    ///
    /// `Other` if the stack has panicked, and nothing else.
    pub fn new_v6(net: &Net) -> io::Result<TcpSocket> {
        TcpSocket::new(net, true)
    }

    fn new(net: &Net, v6: bool) -> io::Result<TcpSocket> {
        let options = net.all_stacks()[0].read(|state| Ok(SocketOptions::new(state.stack.config())))?;
        let draft = Draft { options, reuseaddr: false, reuseport: false, bound: None };
        Ok(TcpSocket { net: net.clone(), v6, draft: Mutex::new(draft) })
    }

    fn draft(&self) -> MutexGuard<'_, Draft> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all options.
    pub fn options(&self) -> SocketOptions {
        self.draft().options.clone()
    }

    /// Changes options. All of them take effect, since the connection is not made yet.
    pub fn set_options(&self, change: impl FnOnce(&mut SocketOptions)) {
        // `change` is foreign code, and runs without the lock.
        let mut options = self.options();
        change(&mut options);
        self.draft().options = options;
    }

    /// Returns whether keepalive probes are on (`SO_KEEPALIVE`).
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn keepalive(&self) -> io::Result<bool> {
        Ok(self.draft().options.keepalive)
    }

    /// Turns keepalive probes on or off (`SO_KEEPALIVE`).
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn set_keepalive(&self, keepalive: bool) -> io::Result<()> {
        self.draft().options.keepalive = keepalive;
        Ok(())
    }

    /// Turns keepalive probes on, with these parameters.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if one of them is zero.
    pub fn set_tcp_keepalive(&self, keepalive: &TcpKeepalive) -> io::Result<()> {
        keepalive.check()?;
        keepalive.apply(&mut self.draft().options);
        Ok(())
    }

    /// Returns the value of [`set_reuseaddr`](TcpSocket::set_reuseaddr).
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn reuseaddr(&self) -> io::Result<bool> {
        Ok(self.draft().reuseaddr)
    }

    /// Keeps the value for [`reuseaddr`](TcpSocket::reuseaddr) (`SO_REUSEADDR`). It changes nothing: an address is free
    /// once its listener is dropped, whatever connections are left.
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn set_reuseaddr(&self, reuseaddr: bool) -> io::Result<()> {
        self.draft().reuseaddr = reuseaddr;
        Ok(())
    }

    /// Returns whether the socket shares its address (`SO_REUSEPORT`).
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn reuseport(&self) -> io::Result<bool> {
        Ok(self.draft().reuseport)
    }

    /// Shares the address with other sockets that set this too (`SO_REUSEPORT`). A keyed hash of the addresses and ports
    /// assigns each client to one of the listeners: see [`ListenOptions::reuse_port`]. It takes effect at
    /// [`bind`](TcpSocket::bind), or at [`listen`](TcpSocket::listen) without it.
    ///
    /// Several tasks that accept from one listener share their load too, and none waits while another has clients.
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn set_reuseport(&self, reuseport: bool) -> io::Result<()> {
        self.draft().reuseport = reuseport;
        Ok(())
    }

    /// Returns the size of the send buffer in bytes (`SO_SNDBUF`).
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn send_buffer_size(&self) -> io::Result<u32> {
        Ok(self.draft().options.sndbuf)
    }

    /// Sets the size of the send buffer in bytes (`SO_SNDBUF`).
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn set_send_buffer_size(&self, size: u32) -> io::Result<()> {
        self.draft().options.sndbuf = size;
        Ok(())
    }

    /// Returns the size of the receive buffer in bytes (`SO_RCVBUF`).
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn recv_buffer_size(&self) -> io::Result<u32> {
        Ok(self.draft().options.rcvbuf)
    }

    /// Sets the size of the receive buffer in bytes (`SO_RCVBUF`), and the window scale for it.
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn set_recv_buffer_size(&self, size: u32) -> io::Result<()> {
        let options = &mut self.draft().options;
        (options.rcvbuf, options.rcvbuf_max) = (size, size);
        Ok(())
    }

    /// Returns how dropping the stream closes the connection (`SO_LINGER`).
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        Ok(self.draft().options.linger)
    }

    /// Sets how dropping the stream closes the connection: see [`TcpStream::set_linger`].
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.draft().options.linger = linger;
        Ok(())
    }

    /// Makes dropping the stream reset the connection: see [`TcpStream::set_zero_linger`].
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        self.set_linger(Some(Duration::ZERO))
    }

    /// Returns whether the Nagle algorithm (RFC 9293 §3.7.4) is off (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(self.draft().options.nodelay)
    }

    /// Turns the Nagle algorithm off (true) or on (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.draft().options.nodelay = nodelay;
        Ok(())
    }

    /// Returns the TOS of outgoing packets (`IP_TOS`), without the bits of ECN.
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn tos_v4(&self) -> io::Result<u32> {
        Ok(tos_of(self.draft().options.dscp))
    }

    /// Sets the TOS of outgoing packets (`IP_TOS`, RFC 9293 §3.9.1.9). The bits of ECN are ignored, as on Linux.
    ///
    /// # Errors
    ///
    /// `InvalidInput` above 255.
    pub fn set_tos_v4(&self, tos: u32) -> io::Result<()> {
        self.draft().options.dscp = dscp_of(tos)?;
        Ok(())
    }

    /// Returns the traffic class of outgoing packets (`IPV6_TCLASS`), without the bits of ECN.
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn tclass_v6(&self) -> io::Result<u32> {
        self.tos_v4()
    }

    /// Sets the traffic class of outgoing packets (`IPV6_TCLASS`): see [`set_tos_v4`](TcpSocket::set_tos_v4).
    ///
    /// # Errors
    ///
    /// `InvalidInput` above 255.
    pub fn set_tclass_v6(&self, tclass: u32) -> io::Result<()> {
        self.set_tos_v4(tclass)
    }

    /// Returns the address that it is bound to. Before that, the unspecified address and port 0.
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.draft().bound.as_ref().map_or(self.anywhere(), |bound| bound.local))
    }

    fn anywhere(&self) -> SocketAddr {
        match self.v6 {
            true => (Ipv6Addr::UNSPECIFIED, 0).into(),
            false => (Ipv4Addr::UNSPECIFIED, 0).into(),
        }
    }

    /// Returns `None`: an error of this socket is returned by the call that caused it.
    ///
    /// # Errors
    ///
    /// Never: the result is that of Tokio.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(None)
    }

    /// Sets the local address, and reserves it until the socket connects, listens or is dropped. Port 0 picks a free port.
    ///
    /// # Errors
    ///
    /// - `AddrNotAvailable`: it is no address of the network, or no port is free.
    /// - `AddrInUse`: a listener or another bound socket has the address and port.
    /// - `InvalidInput`: it is of the other family, or the socket is bound already.
    /// - `NetworkDown`: the network is closing.
    pub fn bind(&self, local: SocketAddr) -> io::Result<()> {
        self.check_family(local)?;
        let bound_already = || Err(invalid("the socket is bound already"));
        if self.draft().bound.is_some() {
            return bound_already();
        }
        let options = ListenOptions { reuse_port: self.reuseport()?, ..ListenOptions::default() };
        let handle = &self.net.all_stacks()[0];
        // The call may wake tasks, so it runs without the lock of the draft.
        let local = begin(handle, |state, _| state.stack.bind(local, &options))?;
        let bound = Bound { handle: handle.clone(), local, reserved: true };
        let mut draft = self.draft();
        if draft.bound.is_some() {
            return bound_already();
        }
        draft.bound = Some(bound);
        Ok(())
    }

    fn check_family(&self, address: SocketAddr) -> io::Result<()> {
        if address.is_ipv6() == self.v6 { Ok(()) } else { Err(invalid("an address of the other family")) }
    }

    /// Connects: see [`TcpStream::connect`].
    ///
    /// # Errors
    ///
    /// As [`TcpStream::connect`], and `InvalidInput` if `remote` is of the other family.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub async fn connect(self, remote: SocketAddr) -> io::Result<TcpStream> {
        self.check_family(remote)?;
        let Draft { options, bound, .. } = self.draft.into_inner().unwrap_or_else(PoisonError::into_inner);
        let local = bound.as_ref().map(|bound| bound.local);
        let options = ConnectOptions {
            local_address: local.map(|local| local.ip()).filter(|address| !address.is_unspecified()),
            local_port: local.map(|local| local.port()),
            socket: Some(options),
            ..ConnectOptions::default()
        };
        TcpStream::connect_with(&self.net, remote, options).await
    }

    /// Listens. At most `backlog` established connections wait for `accept`. A socket that is not bound gets a free port.
    ///
    /// # Errors
    ///
    /// As [`TcpListener::bind`].
    pub fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        let anywhere = self.anywhere();
        let draft = self.draft.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Draft { options, reuseport: reuse_port, bound, .. } = draft;
        let options =
            ListenOptions { backlog, reuse_port, socket: Some(options), ..ListenOptions::default() };
        let reserved = bound.is_some();
        let local = bound.map_or(anywhere, Bound::hand_over);
        TcpListener::listen(&self.net, local, &options, reserved)
    }
}

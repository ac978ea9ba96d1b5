//! The listening socket.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use steadfast_core::{Error, ListenOptions, SocketId};
use tokio::task::coop;

use crate::addr::{self, ToSocketAddrs};
use crate::net::{Net, begin};
use crate::options::ttl_of;
use crate::shared::{Handle, Waiting, into_io};
use crate::stream::TcpStream;
use crate::waiting::Arrivals;

/// A listening socket, as `tokio::net::TcpListener`. Dropping it frees the address at once and resets the connections
/// that were not accepted.
///
/// ```
/// use steadfast::{ListenOptions, Net, TcpListener, TcpStream, device};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (left, right) = device::memory::pair(1500);
/// # let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
/// # let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
/// let options = ListenOptions { backlog: 16, ..ListenOptions::default() };
/// let listener = TcpListener::bind_with(&server, ([0, 0, 0, 0], 7), options).await?;
/// let (connected, accepted) =
///     tokio::join!(TcpStream::connect(&client, ([10, 9, 0, 2], 7)), listener.accept());
/// let (stream, peer) = accepted?;
/// assert_eq!(peer, connected?.local_addr()?);
/// assert_eq!(stream.local_addr()?, ([10, 9, 0, 2], 7).into());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TcpListener {
    /// One listener in each stack of the network.
    parts: Vec<Part>,
    /// Counts calls of `accept`. Each call asks another part first, so that none is starved.
    turn: AtomicUsize,
    arrivals: Arc<Arrivals>,
}

/// The listener in one stack.
#[derive(Debug)]
struct Part {
    handle: Arc<Handle>,
    id: SocketId,
}

impl TcpListener {
    /// Listens on `local`. If `local` names several addresses, it listens on the first that can be bound.
    ///
    /// `0.0.0.0` listens on all IPv4 addresses, and `[::]` on all addresses of both families, as on Linux. A dual-stack
    /// listener shows an IPv4 client as `[::ffff:10.0.0.1]:4000`; [`only_v6`](ListenOptions::only_v6) excludes IPv4
    /// clients. Port 0 picks a free port.
    ///
    /// # Errors
    ///
    /// If no address can be bound, it returns the error of the last one:
    ///
    /// - `AddrNotAvailable`: it is no address of the network, or no port is free.
    /// - `AddrInUse`: another listener or bound socket has the address and port.
    /// - `NetworkDown`: the network is closing.
    /// - `InvalidInput`: there is no address.
    /// - The resolver's error.
    ///
    /// # Cancel safety
    ///
    /// The future waits only for the resolver of a name: otherwise the first poll binds the listener or fails.
    pub fn bind<A: ToSocketAddrs>(
        net: &Net,
        local: A,
    ) -> impl Future<Output = io::Result<TcpListener>> + Send + 'static + use<A> {
        TcpListener::bind_with(net, local, ListenOptions::default())
    }

    /// Like [`bind`](TcpListener::bind), with a backlog and options for the accepted streams.
    ///
    /// # Errors
    ///
    /// As [`bind`](TcpListener::bind).
    pub fn bind_with<A: ToSocketAddrs>(
        net: &Net,
        local: A,
        options: ListenOptions,
    ) -> impl Future<Output = io::Result<TcpListener>> + Send + 'static + use<A> {
        let (net, target) = (net.clone(), local.to_target());
        async move {
            let mut error = None;
            for local in net.resolve(target).await? {
                match TcpListener::listen(&net, local, &options, false) {
                    Ok(listener) => return Ok(listener),
                    Err(e) => error = Some(e),
                }
            }
            Err(error.unwrap_or_else(addr::no_address))
        }
    }

    /// `reserved`: the first stack has reserved `local` for this listener.
    pub(crate) fn listen(
        net: &Net,
        mut local: SocketAddr,
        options: &ListenOptions,
        mut reserved: bool,
    ) -> io::Result<TcpListener> {
        let arrivals = Arc::<Arrivals>::default();
        let mut parts = Vec::new();
        for handle in net.all_stacks() {
            let part = begin(handle, |state, _| {
                if std::mem::take(&mut reserved) {
                    state.stack.unbind(local);
                }
                let id = state.stack.listen(local, options.clone())?;
                state.sockets.insert(id, Waiting::Listener(arrivals.clone()));
                // All stacks listen on the port that the first one picked.
                local = state.stack.local_addr(id)?;
                Ok(Part { handle: handle.clone(), id })
            })?;
            parts.push(part);
        }
        Ok(TcpListener { parts, turn: AtomicUsize::new(0), arrivals })
    }

    /// Waits for an established connection, and returns it with the peer's address. Several tasks may call it at once.
    ///
    /// # Errors
    ///
    /// An error means that the network is closing or has ended: no connection follows.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future loses no connection.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            // A server that always finds a connection must still yield to other tasks.
            tokio::task::consume_budget().await;
            let mut arrival = pin!(self.arrivals.tasks.notified());
            arrival.as_mut().enable();
            match self.try_accept() {
                accepted if is_pending(&accepted) => arrival.await,
                accepted => return accepted,
            }
        }
    }

    /// Polls for an established connection, as [`accept`](TcpListener::accept) does. Only the task that polled last is
    /// woken; tasks in `accept` are woken too.
    ///
    /// # Errors
    ///
    /// As [`accept`](TcpListener::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let progress = ready!(coop::poll_proceed(cx));
        let mut accepted = self.try_accept();
        if is_pending(&accepted) {
            self.arrivals.register(cx.waker());
            accepted = self.try_accept();
        }
        if is_pending(&accepted) {
            return Poll::Pending;
        }
        progress.made_progress();
        Poll::Ready(accepted)
    }

    /// Returns the TTL (IPv4) or hop limit (IPv6) that accepted streams start with (`IP_TTL`).
    ///
    /// # Errors
    ///
    /// `EBADF`, the network is closing and has closed the listener; `Other`, the stack has panicked.
    pub fn ttl(&self) -> io::Result<u32> {
        let Part { handle, id } = &self.parts[0];
        handle.read(|state| state.stack.options(*id).map(|options| options.ttl.into()).map_err(into_io))
    }

    /// Sets the TTL (IPv4) or hop limit (IPv6) of SYN-ACKs and of the streams that are accepted later (`IP_TTL`).
    ///
    /// # Errors
    ///
    /// `InvalidInput`, it is not from 1 to 255; `EBADF`, the network is closing and has closed the listener; `Other`,
    /// the stack has panicked.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        let ttl = ttl_of(ttl)?;
        self.parts.iter().try_for_each(|Part { handle, id }| {
            handle.call(|state, now| {
                state.check_whole()?;
                let options = state.stack.options(*id).map_err(into_io)?.clone().with(|o| o.ttl = ttl);
                state.stack.set_options(now, *id, options).map_err(into_io)
            })
        })
    }

    /// Accepts a waiting connection.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if none waits, else as [`accept`](TcpListener::accept).
    pub fn try_accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.parts.len();
        let (later, earlier) = self.parts.split_at(first);
        let mut accepted = Err(io::ErrorKind::WouldBlock.into());
        for part in earlier.iter().chain(later) {
            accepted = part.try_accept();
            if !is_pending(&accepted) {
                break;
            }
        }
        accepted
    }

    /// Returns the address that it listens on, with the port that was picked for port 0.
    ///
    /// # Errors
    ///
    /// `EBADF`, the network is closing and has closed the listener; `Other`, the stack has panicked.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let Part { handle, id } = &self.parts[0];
        handle.read(|state| state.stack.local_addr(*id).map_err(into_io))
    }

    /// Returns the identifier under which [`Net::sockets`] lists it; on a device with several queues, that of the first
    /// queue's listener.
    pub fn id(&self) -> SocketId {
        self.parts[0].id
    }
}

/// Returns whether no connection waits.
fn is_pending<T>(accepted: &io::Result<T>) -> bool {
    matches!(accepted, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

impl Part {
    fn try_accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (id, peer) = self.handle.call(|state, now| {
            state.check_whole()?;
            // The stack measures how long the connection waited.
            state.stack.tell_time(now);
            let accepted = state.stack.accept(self.id);
            if let Ok((id, _)) = accepted {
                state.sockets.insert(id, Waiting::Stream(Default::default()));
            } else {
                // Connections that arrived before the network ended are accepted first.
                state.check_open()?;
            }
            accepted.map_err(into_io)
        })?;
        Ok((TcpStream::new(self.handle.clone(), id), peer))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.handle.call_last(|state, now| {
            state.sockets.remove(self.id);
            let closed = state.stack.close(now, self.id);
            debug_assert!(matches!(closed, Ok(()) | Err(Error::NoSuchSocket)), "{closed:?}");
        });
    }
}

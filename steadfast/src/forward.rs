//! Forwarders: connections to addresses of other hosts, each decided before it is answered. Datagrams are in `datagrams`.

mod datagrams;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use steadfast_core::{Error, ForwardRule, Reject, SocketId, SocketOptions, Syn};
use tokio::task::coop;

use crate::net::{Net, begin};
use crate::relay::{RelayConfig, RelayEnd, Report, relay};
use crate::shared::{Handle, Side, Waiting, into_io};
use crate::socket::Socket;
use crate::stream::TcpStream;
use crate::waiting::Arrivals;

pub use self::datagrams::{EchoForwarder, UdpForwarder};

/// Takes the connections that hosts behind this network open to addresses of others, as a gateway or a proxy does.
///
/// Each arrives as a [`TcpRequest`] before anything is sent, so that what the program learns while it dials decides how
/// the peer is answered. Listeners of the network come first. Where several forwarders cover a destination, the most
/// specific rule takes the connection.
///
/// Dropping it resets the requests that nobody has taken. Requests and connections that were taken live on.
///
/// Limits: `forward_max_pending`, and the same of a source and to a destination, in [`Config`](crate::Config). A SYN
/// beyond them is dropped and counted, and its sender repeats it.
///
/// ```
/// use steadfast::{ForwardRule, Net, TcpForwarder, TcpStream, device};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (left, right) = device::memory::pair(1500);
/// # let gateway = Net::builder().address([10, 9, 0, 1], 24).start(left)?;
/// # let guest = Net::builder().address([10, 9, 0, 2], 24).start(right)?;
/// let forwarder = TcpForwarder::bind(&gateway, ForwardRule::all()).await?;
/// tokio::spawn(async move {
///     let request = forwarder.accept().await?;
///     assert_eq!(request.destination(), "198.51.100.7:80".parse().unwrap());
///     let mut stream = request.accept().await?;
///     stream.write_all(b"hold fast").await
/// });
///
/// let mut stream = TcpStream::connect(&guest, "198.51.100.7:80").await?;
/// let mut text = String::new();
/// stream.read_to_string(&mut text).await?;
/// assert_eq!(text, "hold fast");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TcpForwarder {
    /// One forwarder in each stack of the network.
    parts: Vec<Part>,
    /// Counts calls of `accept`. Each call asks another part first, so that none is starved.
    turn: AtomicUsize,
    arrivals: Arc<Arrivals>,
}

/// The forwarder in one stack.
#[derive(Debug)]
struct Part {
    handle: Arc<Handle>,
    id: SocketId,
}

impl TcpForwarder {
    /// Creates a forwarder for the destinations that `rule` covers.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the prefix of the rule is too long, or it has no port.
    /// - `AddrInUse`: the network has a forwarder with this rule.
    /// - `NetworkDown`: the network is closing.
    ///
    /// # Cancel safety
    ///
    /// The first poll creates it or fails.
    pub async fn bind(net: &Net, rule: ForwardRule) -> io::Result<TcpForwarder> {
        let arrivals = Arc::<Arrivals>::default();
        let mut parts = Vec::new();
        for handle in net.all_stacks() {
            let part = begin(handle, |state, _| {
                let id = state.stack.forward(rule.clone())?;
                state.sockets.insert(id, Waiting::Listener(arrivals.clone()));
                Ok(Part { handle: handle.clone(), id })
            })?;
            parts.push(part);
        }
        Ok(TcpForwarder { parts, turn: AtomicUsize::new(0), arrivals })
    }

    /// Waits for a request. Several tasks may call it at once.
    ///
    /// # Errors
    ///
    /// An error means that the network is closing or has ended: no request follows.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future loses no request.
    pub async fn accept(&self) -> io::Result<TcpRequest> {
        loop {
            tokio::task::consume_budget().await;
            let mut arrival = pin!(self.arrivals.tasks.notified());
            arrival.as_mut().enable();
            match self.next()? {
                Some(request) => return Ok(request),
                None => arrival.await,
            }
        }
    }

    /// Polls for a request, as [`accept`](TcpForwarder::accept) does. Only the task that polled last is woken; tasks in
    /// `accept` are woken too.
    ///
    /// # Errors
    ///
    /// As [`accept`](TcpForwarder::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<TcpRequest>> {
        let progress = ready!(coop::poll_proceed(cx));
        let mut next = self.next();
        if let Ok(None) = next {
            self.arrivals.register(cx.waker());
            next = self.next();
        }
        match next.transpose() {
            None => Poll::Pending,
            Some(request) => {
                progress.made_progress();
                Poll::Ready(request)
            }
        }
    }

    fn next(&self) -> io::Result<Option<TcpRequest>> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.parts.len();
        let (later, earlier) = self.parts.split_at(first);
        for part in earlier.iter().chain(later) {
            if let Some(request) = part.next()? {
                return Ok(Some(request));
            }
        }
        Ok(None)
    }
}

impl Part {
    fn next(&self) -> io::Result<Option<TcpRequest>> {
        let taken = self.handle.call_untimed(|state| {
            // Nothing can be decided any more once the network has ended.
            state.check_open()?;
            match state.stack.next_request(self.id) {
                Ok(id) => {
                    state.sockets.insert(id, Waiting::Stream(Default::default()));
                    state.stack.request(id).map(|syn| Some((id, syn))).map_err(into_io)
                }
                Err(Error::WouldBlock) => Ok(None),
                Err(error) => Err(into_io(error)),
            }
        })?;
        Ok(taken.map(|(id, syn)| TcpRequest { socket: Socket { handle: self.handle.clone(), id }, syn }))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.handle.call_last(|state, now| {
            state.sockets.remove(self.id);
            // It fails if the network has closed it.
            let _ = state.stack.close(now, self.id);
        });
    }
}

/// A connection that a peer asks for, and that has not been answered. Dropping it refuses it with a RST.
#[derive(Debug)]
#[must_use = "a request that is dropped is refused"]
pub struct TcpRequest {
    socket: Socket,
    syn: Syn,
}

impl TcpRequest {
    /// Returns who asks.
    pub fn source(&self) -> SocketAddr {
        self.syn.source
    }

    /// Returns whom the peer asks for.
    pub fn destination(&self) -> SocketAddr {
        self.syn.destination
    }

    /// Returns the SYN, as it was when the request was taken.
    pub fn syn(&self) -> &Syn {
        &self.syn
    }

    /// Waits until the request is gone: the peer has reset it or stopped asking, or the network has ended. A dial that
    /// is made for the request can stop then.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it changes nothing.
    pub async fn gone(&self) {
        poll_fn(|cx| self.poll_gone(cx)).await;
    }

    fn poll_gone(&self, cx: &Context<'_>) -> Poll<()> {
        let polled = self.socket.poll(cx, Side::Read, |state| {
            let gone = state.check_running().is_err() || state.stack.request(self.socket.id).is_err();
            Ok(gone.then_some(()))
        });
        polled.map(|_| ())
    }

    /// Accepts the request: sends the SYN-ACK, and returns the stream once the handshake is complete.
    ///
    /// # Errors
    ///
    /// - `ConnectionReset`: the peer has reset the request, or the connection before it was complete.
    /// - `TimedOut`: the peer has stopped asking, or does not answer.
    /// - `ENOBUFS`: the limit of connections is reached (`tcp_max_connections`). The peer gets no answer, and may ask
    ///   again.
    /// - `NetworkDown`: the network is closing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resets the connection.
    pub async fn accept(self) -> io::Result<TcpStream> {
        self.accept_as(None).await
    }

    /// Like [`accept`](TcpRequest::accept), with options for the stream.
    ///
    /// # Errors
    ///
    /// As [`accept`](TcpRequest::accept).
    pub async fn accept_with(self, options: SocketOptions) -> io::Result<TcpStream> {
        self.accept_as(Some(options)).await
    }

    async fn accept_as(self, options: Option<SocketOptions>) -> io::Result<TcpStream> {
        let id = self.socket.id;
        let accepted = self.socket.handle.call(|state, now| {
            state.check_open()?;
            match state.stack.accept_request(now, id, options) {
                Err(Error::NoBufferSpace) => {
                    // A RST would tell the peer that nobody listens there.
                    let _ = state.stack.reject_request(now, id, Reject::Silent);
                    Err(into_io(Error::NoBufferSpace))
                }
                accepted => accepted.map_err(into_io),
            }
        });
        accepted?;
        let handshake = Handshake(Some(TcpStream { socket: Arc::new(self.socket) }));
        handshake.complete().await
    }

    /// Refuses the request.
    pub fn reject(self, how: Reject) {
        self.socket.handle.call_last(|state, now| {
            // It fails only if the network has ended.
            let _ = state.stack.reject_request(now, self.socket.id, how);
        });
    }

    /// Dials, answers as the dial went, and relays until both directions have ended: the whole of a gateway in one call.
    ///
    /// A dial that fails refuses the request as [`Reject::from_io`] says. The dial is dropped if the request is gone
    /// before it is done. If the handshake with the peer fails after that, the dialled end is reset.
    ///
    /// # Errors
    ///
    /// The error of the dial; `ConnectionAborted` if the request is gone first; that of
    /// [`accept`](TcpRequest::accept). An error of the relay is part of the report.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future refuses the request, or resets both ends.
    pub async fn splice_with<F, U>(self, dial: F, config: &RelayConfig) -> io::Result<Report>
    where
        F: Future<Output = io::Result<U>>,
        U: RelayEnd,
    {
        let mut dial = pin!(dial);
        let dialled = poll_fn(|cx| match dial.as_mut().poll(cx) {
            Poll::Ready(dialled) => Poll::Ready(dialled),
            Poll::Pending => self.poll_gone(cx).map(|()| Err(io::ErrorKind::ConnectionAborted.into())),
        })
        .await;
        let upstream = match dialled {
            Ok(upstream) => upstream,
            Err(error) => {
                self.reject(Reject::from_io(&error));
                return Err(error);
            }
        };
        let mut upstream = ResetOnDrop(Some(upstream));
        let stream = self.accept().await?;
        // The other end decides what waits for more data.
        stream.set_nodelay(true)?;
        match upstream.0.take() {
            Some(upstream) => Ok(relay(stream, upstream, config).await),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// An end that is reset unless it is taken out.
struct ResetOnDrop<U: RelayEnd>(Option<U>);

impl<U: RelayEnd> Drop for ResetOnDrop<U> {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end.abort();
        }
    }
}

/// A stream whose handshake is not complete. Dropping it resets the connection.
struct Handshake(Option<TcpStream>);

impl Handshake {
    async fn complete(mut self) -> io::Result<TcpStream> {
        poll_fn(|cx| match &self.0 {
            Some(stream) => stream.socket.poll_connected(cx),
            None => Poll::Ready(Ok(())),
        })
        .await?;
        self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.abort();
        }
    }
}

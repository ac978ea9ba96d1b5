//! The ends of relays.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
#[cfg(unix)]
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::{RelayEnd, Reset};
use crate::options::TcpKeepalive;
use crate::shared::Side;
use crate::stream::TcpStream;

impl RelayEnd for TcpStream {
    fn reset(&self) -> Reset {
        let socket = self.socket.clone();
        Box::pin(async move {
            let is_reset = |cx: &mut Context<'_>| {
                socket.poll(cx, Side::Read, |state| {
                    let error = state.stack.readiness(socket.id).is_ok_and(|ready| ready.error);
                    Ok((error || state.check_running().is_err()).then_some(()))
                })
            };
            // It has no error.
            let _ = poll_fn(is_reset).await;
        })
    }

    fn abort(self) {
        TcpStream::abort(self);
    }

    fn abort_after_drain(self, limit: Duration) {
        self.socket.handle.call_last(|state, now| {
            // It fails only if the connection is gone already.
            let _ = state.stack.abort_after(now, self.socket.id, limit);
        });
    }

    /// A slice of the packet that brought the bytes, without a copy.
    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
        self.socket.poll_with_budget(cx, Side::Read, |state| {
            state.receive(self.socket.id, |state, id| state.stack.recv_bytes(id, most))
        })
    }

    /// The send queue holds the bytes themselves, without a copy.
    fn poll_write_bytes(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_with_budget(cx, Side::Write, |state| state.send_bytes(self.socket.id, data))
    }

    fn probe(&self, keepalive: &TcpKeepalive) {
        // It fails if the connection is gone, which a read or write tells.
        let _ = self.set_tcp_keepalive(keepalive);
    }
}

impl RelayEnd for tokio::net::TcpStream {
    #[cfg(unix)]
    fn reset(&self) -> Reset {
        use std::os::fd::AsFd;

        // A copy of the descriptor, since the wait must not borrow the stream.
        let copy = self.as_fd().try_clone_to_owned().map(std::net::TcpStream::from);
        let copy = copy.and_then(tokio::net::TcpStream::from_std);
        Box::pin(async move {
            match copy {
                Ok(copy) if copy.ready(Interest::ERROR).await.is_ok() => {}
                // Without a descriptor to spare, the next write tells of the reset.
                _ => std::future::pending().await,
            }
        })
    }

    /// Data that the kernel has not sent yet is lost.
    fn abort(self) {
        // It fails only for a socket that is closed already.
        let _ = self.set_zero_linger();
    }

    fn probe(&self, keepalive: &TcpKeepalive) {
        // It fails only for a socket that is closed already.
        let _ = socket2::SockRef::from(self).set_tcp_keepalive(&keepalive.of_kernel());
    }
}

#[cfg(unix)]
impl RelayEnd for tokio::net::UnixStream {
    /// UNIX sockets have no reset: the peer reads the end of the stream.
    fn abort(self) {}
}

impl RelayEnd for DuplexStream {
    /// A duplex has no reset: the peer reads the end of the stream.
    fn abort(self) {}
}

/// A stream over another one that is an end of a relay, such as TLS over TCP. Resets, aborts and probes are those of the
/// stream below; bytes, ends and errors those of the one above.
///
/// An abort must not write a farewell such as `close_notify`: the peer would take what it has for everything.
///
/// ```
/// use steadfast::TcpStream;
/// use steadfast::relay::Layered;
/// # struct TlsStream<T>(T);
/// # impl<T> TlsStream<T> {
/// #     fn get_ref(&self) -> (&T, ()) { (&self.0, ()) }
/// #     fn into_inner(self) -> (T, ()) { (self.0, ()) }
/// # }
///
/// fn end_of(tls: TlsStream<TcpStream>) -> Layered<TlsStream<TcpStream>, TcpStream> {
///     Layered::new(tls, |tls| tls.get_ref().0, |tls| tls.into_inner().0)
/// }
/// ```
#[derive(Debug)]
pub struct Layered<S, T> {
    stream: S,
    below: fn(&S) -> &T,
    into_below: fn(S) -> T,
}

impl<S, T> Layered<S, T> {
    /// Makes an end of `stream`. `below` and `into_below` return the stream below it.
    pub fn new(stream: S, below: fn(&S) -> &T, into_below: fn(S) -> T) -> Layered<S, T> {
        Layered { stream, below, into_below }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, T: RelayEnd> RelayEnd for Layered<S, T> {
    fn reset(&self) -> Reset {
        (self.below)(&self.stream).reset()
    }

    fn abort(self) {
        (self.into_below)(self.stream).abort();
    }

    fn abort_after_drain(self, limit: Duration) {
        (self.into_below)(self.stream).abort_after_drain(limit);
    }

    fn probe(&self, keepalive: &TcpKeepalive) {
        (self.below)(&self.stream).probe(keepalive);
    }
}

impl<S: AsyncRead + Unpin, T> AsyncRead for Layered<S, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin, T> AsyncWrite for Layered<S, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Unpin, T> Unpin for Layered<S, T> {}

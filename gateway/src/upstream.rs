//! The connections of the kernel's that carry those of guests.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use steadfast::relay::Reset;
use steadfast::{RelayEnd, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection to the outside. It counts as an upload until the guest has sent everything.
#[derive(Debug)]
pub(crate) struct Upstream {
    stream: TcpStream,
    upload: Upload,
}

/// Counts one upload for as long as it lives.
#[derive(Debug)]
struct Upload(Option<Arc<AtomicUsize>>);

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(uploads) = self.0.take() {
            uploads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Upstream {
    pub(crate) fn new(stream: TcpStream, uploads: Arc<AtomicUsize>) -> Upstream {
        uploads.fetch_add(1, Ordering::Relaxed);
        Upstream { stream, upload: Upload(Some(uploads)) }
    }
}

impl RelayEnd for Upstream {
    fn reset(&self) -> Reset {
        self.stream.reset()
    }

    fn abort(self) {
        RelayEnd::abort(self.stream);
    }

    fn abort_after_drain(self, limit: Duration) {
        self.stream.abort_after_drain(limit);
    }

    fn probe(&self, keepalive: &TcpKeepalive) {
        self.stream.probe(keepalive);
    }
}

impl AsyncRead for Upstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Upstream {
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
        let ended = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
        self.upload = Upload(None);
        Poll::Ready(ended)
    }
}

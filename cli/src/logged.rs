//! Connections of servers, which are logged if the user asks for it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use steadfast::{ReadHalf, TcpListener, TcpStream, WriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// A listener that logs connections.
pub(crate) struct LoggingListener {
    listener: TcpListener,
    verbose: bool,
}

impl LoggingListener {
    pub(crate) fn new(listener: TcpListener, verbose: bool) -> LoggingListener {
        LoggingListener { listener, verbose }
    }

    pub(crate) async fn accept(&self) -> io::Result<(LoggedStream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        // Every service here writes all its data at once: Nagle's algorithm would only add delay.
        stream.set_nodelay(true).ok();
        if self.verbose {
            eprintln!("{peer}: connected");
        }
        Ok((LoggedStream { stream, peer, since: Instant::now(), verbose: self.verbose }, peer))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// An accepted connection.
pub(crate) struct LoggedStream {
    stream: TcpStream,
    peer: SocketAddr,
    since: Instant,
    verbose: bool,
}

impl LoggedStream {
    /// Both directions, for use by two tasks.
    pub(crate) fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        self.stream.split()
    }

    /// Reports something about the connection.
    pub(crate) fn log(&self, what: impl fmt::Display) {
        if self.verbose {
            eprintln!("{}: {what}", self.peer);
        }
    }
}

impl Drop for LoggedStream {
    fn drop(&mut self) {
        if !self.verbose {
            return;
        }
        let seconds = self.since.elapsed().as_secs_f64();
        match self.stream.info() {
            Ok(info) => eprintln!(
                "{}: closed after {seconds:.3} s, {} bytes received, {} acknowledged, {} segments resent",
                self.peer, info.bytes_received, info.bytes_acked, info.total_retrans
            ),
            Err(_) => eprintln!("{}: gone after {seconds:.3} s", self.peer),
        }
    }
}

impl AsyncRead for LoggedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for LoggedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
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

/// Resolves once it is time to stop.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    // This fails only when the program is ending.
    let _ = stop.wait_for(|stop| *stop).await;
}

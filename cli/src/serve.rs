//! `steadfast serve`: small servers on a TUN device.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use clap::{Args, ValueEnum};
use steadfast::{ListenOptions, TcpListener, TcpStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::attach::{Attach, CLOSE_LIMIT};
use crate::failure::{Failure, describe};
use crate::http;
use crate::socket_options::SocketArgs;

/// Serve on a TUN device.
#[derive(Args)]
pub(crate) struct Serve {
    /// The service.
    service: Service,
    /// Port; by default the service's own: 7, 9, 19 or 80.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Directory for `http`, in addition to `/bytes/LENGTH` and `/upload`.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Connections that may wait to be accepted, `somaxconn` at the most; of each queue.
    #[arg(long, value_name = "COUNT", default_value_t = ListenOptions::default().backlog,
        value_parser = clap::value_parser!(u32).range(1..))]
    backlog: u32,
    /// Log each connection.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    socket: SocketArgs,
    #[command(flatten)]
    attach: Attach,
}

/// A service.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// Sends all data back (RFC 862).
    Echo,
    /// Discards all data (RFC 863).
    Discard,
    /// Sends lines of characters until the peer closes (RFC 864).
    Chargen,
    /// Serves a directory and `/bytes/LENGTH`; answers PUT or POST to `/upload` with length and SHA-256.
    Http,
}

impl Service {
    fn port(self) -> u16 {
        match self {
            Service::Echo => 7,
            Service::Discard => 9,
            Service::Chargen => 19,
            Service::Http => 80,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Echo => "echo",
            Service::Discard => "discard",
            Service::Chargen => "chargen",
            Service::Http => "http",
        })
    }
}

impl Serve {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        self.check()?;
        let stop = stop_signal()?;
        let attached = self.attach.open().await?;
        let port = self.port.unwrap_or(self.service.port());
        let mut servers = JoinSet::new();
        for &address in &attached.addresses {
            let address = SocketAddr::new(address, port);
            let options = ListenOptions {
                backlog: self.backlog,
                socket: self.socket.socket(&attached.config),
                ..ListenOptions::default()
            };
            let listener = TcpListener::bind_with(&attached.net, address, options).await;
            let listener = listener.map_err(|e| Failure::system(format_args!("listen on {address}"), e))?;
            eprintln!("listening on {address} ({}, device {})", self.service, attached.tun);
            let listener = Door { listener, verbose: self.verbose };
            match self.service {
                Service::Http => servers.spawn(http::serve(listener, self.dir.clone(), stop.clone())),
                service => servers.spawn(serve(listener, service, stop.clone())),
            };
        }
        while let Some(ended) = servers.join_next().await {
            ended.expect("a server does not panic").map_err(|e| Failure::system(self.service, e))?;
        }
        match attached.net.close(CLOSE_LIMIT).await {
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                eprintln!("steadfast: connections were reset that did not close within {CLOSE_LIMIT:?}");
                Ok(())
            }
            result => result.map_err(|e| Failure::system("close", e)),
        }
    }

    fn check(&self) -> Result<(), Failure> {
        let Some(dir) = &self.dir else { return Ok(()) };
        if self.service != Service::Http {
            return Err(Failure::usage(format!(
                "--dir: `{}` serves no directory, only `http` does",
                self.service
            )));
        }
        if !dir.is_dir() {
            return Err(Failure::usage(format!("--dir {}: expected a directory", dir.display())));
        }
        Ok(())
    }
}

/// A channel that becomes true at Ctrl-C or SIGTERM.
fn stop_signal() -> Result<watch::Receiver<bool>, Failure> {
    let failed = |e| Failure::system("cannot watch for signals", e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        sender.send_replace(true);
        // Keep the sender until the program ends, so that waiting for a change never fails.
        sender.closed().await;
    });
    Ok(receiver)
}

/// Resolves once it is time to stop.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    // This fails only when the program is ending.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn serve(door: Door, service: Service, stop: watch::Receiver<bool>) -> io::Result<()> {
    let mut stop = std::pin::pin!(stopped(stop));
    let mut guests = JoinSet::new();
    loop {
        tokio::select! {
            guest = door.accept() => {
                let (mut guest, _) = guest?;
                guests.spawn(async move {
                    let served = attend(&mut guest, service).await;
                    if let Err(e) = &served && guest.verbose {
                        eprintln!("{}: {}", guest.peer, describe(e));
                    }
                });
            }
            Some(_) = guests.join_next() => {}
            () = &mut stop => break,
        }
    }
    // These services never end on their own, so nothing is gained by waiting.
    guests.shutdown().await;
    Ok(())
}

async fn attend(guest: &mut Guest, service: Service) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    match service {
        Service::Echo => loop {
            let len = guest.read(&mut buffer).await?;
            if len == 0 {
                return guest.shutdown().await;
            }
            guest.write_all(&buffer[..len]).await?;
        },
        Service::Discard => loop {
            if guest.read(&mut buffer).await? == 0 {
                return guest.shutdown().await;
            }
        },
        Service::Chargen => generate(guest, &mut buffer).await,
        Service::Http => unreachable!("http has a server of its own"),
    }
}

/// Sends the pattern of RFC 864 until the peer closes, and discards received data.
async fn generate(guest: &mut Guest, buffer: &mut [u8]) -> io::Result<()> {
    let pattern = pattern();
    let (mut from, mut to) = guest.stream.split();
    let send = async {
        loop {
            to.write_all(&pattern).await?;
        }
    };
    let receive = async {
        while from.read(buffer).await? > 0 {}
        Ok(())
    };
    tokio::select! {
        result = send => result,
        result = receive => result,
    }
}

/// Lines of 72 of the 95 printable characters; each line starts one character later than the one before.
fn pattern() -> Vec<u8> {
    let line = |start: u8| (0..72).map(move |i| b' ' + (start + i) % 95).chain(*b"\r\n");
    (0..95).flat_map(line).collect()
}

/// A listener that logs connections.
pub(crate) struct Door {
    listener: TcpListener,
    verbose: bool,
}

impl Door {
    pub(crate) async fn accept(&self) -> io::Result<(Guest, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        // Every service here writes all its data at once: Nagle's algorithm would only add delay.
        stream.set_nodelay(true).ok();
        if self.verbose {
            eprintln!("{peer}: connected");
        }
        Ok((Guest { stream, peer, since: Instant::now(), verbose: self.verbose }, peer))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// An accepted connection.
pub(crate) struct Guest {
    stream: TcpStream,
    peer: SocketAddr,
    since: Instant,
    verbose: bool,
}

impl Drop for Guest {
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

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Guest {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chargen_sends_the_lines_of_rfc_864() {
        let pattern = pattern();
        let lines: Vec<_> = pattern.split_inclusive(|&b| b == b'\n').collect();
        assert_eq!(lines.len(), 95);
        assert!(lines.iter().all(|line| line.len() == 74));
        assert!(lines[0].starts_with(b" !\"#$%&'()"));
        assert!(lines[1].starts_with(b"!\"#$%&'()"));
        assert!(lines[94].starts_with(b"~ !"));
    }
}

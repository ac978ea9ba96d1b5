//! `steadfast serve`: small servers on a TUN device.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use steadfast::{ListenOptions, TcpListener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::attach::{Attach, CLOSE_LIMIT};
use crate::failure::{Failure, describe};
use crate::http;
use crate::logged::{LoggedStream, LoggingListener, stopped};
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
            let listener = LoggingListener::new(listener, self.verbose);
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

async fn serve(listener: LoggingListener, service: Service, stop: watch::Receiver<bool>) -> io::Result<()> {
    let mut stop = std::pin::pin!(stopped(stop));
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            stream = listener.accept() => {
                let (mut stream, _) = stream?;
                tasks.spawn(async move {
                    let served = attend(&mut stream, service).await;
                    if let Err(e) = &served {
                        stream.log(describe(e));
                    }
                });
            }
            Some(_) = tasks.join_next() => {}
            () = &mut stop => break,
        }
    }
    // These services never end on their own, so nothing is gained by waiting.
    tasks.shutdown().await;
    Ok(())
}

async fn attend(stream: &mut LoggedStream, service: Service) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    match service {
        Service::Echo => loop {
            let len = stream.read(&mut buffer).await?;
            if len == 0 {
                return stream.shutdown().await;
            }
            stream.write_all(&buffer[..len]).await?;
        },
        Service::Discard => loop {
            if stream.read(&mut buffer).await? == 0 {
                return stream.shutdown().await;
            }
        },
        Service::Chargen => generate(stream, &mut buffer).await,
        Service::Http => unreachable!("http has a server of its own"),
    }
}

/// Sends the pattern of RFC 864 until the peer closes, and discards received data.
async fn generate(stream: &mut LoggedStream, buffer: &mut [u8]) -> io::Result<()> {
    let pattern = pattern();
    let (mut from, mut to) = stream.split();
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

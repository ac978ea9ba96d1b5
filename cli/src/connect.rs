//! `steadfast connect`: relays standard input and output over a connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use steadfast::{ConnectOptions, TcpStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::attach::Attach;
use crate::failure::Failure;
use crate::socket_options::SocketArgs;

/// Connect standard input and output to a server.
#[derive(Args)]
pub(crate) struct Connect {
    /// Server, such as `10.9.0.1:80`, `[fd09::1]:80`, or a name that this machine can resolve.
    #[arg(value_name = "HOST:PORT")]
    server: String,
    /// Port of our end; by default one of `ip_local_port_range`.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    source_port: Option<u16>,
    #[command(flatten)]
    socket: SocketArgs,
    #[command(flatten)]
    attach: Attach,
}

impl Connect {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let server = self.server().await?;
        let attached = self.attach.open().await?;
        let what = format!("connect {server}");
        let options = ConnectOptions {
            local_port: self.source_port,
            socket: self.socket.socket(&attached.config),
            ..ConnectOptions::default()
        };
        let stream = TcpStream::connect_with(&attached.net, server, options).await;
        let stream = stream.map_err(|e| Failure::connection(&what, e))?;
        exchange(stream, tokio::io::stdin(), tokio::io::stdout())
            .await
            .map_err(|e| e.into_failure(server))?;
        // No time limit: a slow reader must get everything, and TCP itself detects a lost peer.
        let closed = attached.net.close(Duration::MAX).await;
        closed.map_err(|e| Failure::connection(format_args!("close {server}"), e))
    }

    /// Resolves the server: the first address whose family the stack has.
    async fn server(&self) -> Result<SocketAddr, Failure> {
        let name = &self.server;
        let port = name.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            let text = format!("`{name}`: expected HOST:PORT, as 10.9.0.1:80 or [fd09::1]:80");
            return Err(Failure::usage(text));
        }
        let found =
            tokio::net::lookup_host(name).await.map_err(|e| Failure::system(format_args!("`{name}`"), e))?;
        let found: Vec<_> = found.collect();
        let ours = self.attach.addresses()?;
        let fits = |server: &&SocketAddr| ours.iter().any(|(ip, _)| ip.is_ipv4() == server.is_ipv4());
        found.iter().find(fits).copied().ok_or_else(|| {
            let families = found.first().map_or("anything".to_owned(), |server| server.ip().to_string());
            Failure::usage(format!("`{name}`: no --address is of the family of {families}"))
        })
    }
}

/// Copies in both directions until both have ended. The end of the input half-closes the connection.
async fn exchange(
    stream: TcpStream,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
) -> Result<(), Broken> {
    let (mut from, mut to) = stream.into_split();
    let mut send = Box::pin(async {
        copy(input, &mut to, Broken::Input, Broken::Connection).await?;
        to.shutdown().await.map_err(Broken::Connection)
    });
    let mut receive = Box::pin(copy(&mut from, output, Broken::Connection, Broken::Output));
    let mut sent = None;
    loop {
        tokio::select! {
            received = &mut receive => break received?,
            // Data that the peer sent before the connection broke can still be read.
            result = &mut send, if sent.is_none() => sent = Some(result),
        }
    }
    match sent {
        Some(sent) => sent,
        None => send.await,
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    read_error: fn(io::Error) -> Broken,
    write_error: fn(io::Error) -> Broken,
) -> Result<(), Broken> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = from.read(&mut buffer).await.map_err(read_error)?;
        if len == 0 {
            return to.flush().await.map_err(write_error);
        }
        to.write_all(&buffer[..len]).await.map_err(write_error)?;
        to.flush().await.map_err(write_error)?;
    }
}

/// The part that failed during the copy.
#[derive(Debug)]
enum Broken {
    Input(io::Error),
    Output(io::Error),
    Connection(io::Error),
}

impl Broken {
    fn into_failure(self, server: SocketAddr) -> Failure {
        match self {
            Broken::Input(e) => Failure::system("standard input", e),
            Broken::Output(e) => Failure::system("standard output", e),
            Broken::Connection(e) => Failure::connection(server, e),
        }
    }
}

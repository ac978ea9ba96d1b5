//! Forwards: ports of the machine that lead to guests.
//!
//! A guest sees the address of the client. Only clients with a loopback address, which no network carries, and those of
//! the other family appear as the gateway.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use steadfast::{Net, RelayEnd, TcpStream, relay};
use tokio::task::AbortHandle;

use crate::counters::{add, count};
use crate::malformed::Malformed;
use crate::shared::Shared;
use crate::udp::Table;
use crate::upstream::Upstream;

/// The pause after a failure to accept a connection, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The largest datagram.
const LARGEST: usize = 65_535;

/// A port of the machine that leads to a port of a guest: `[ADDRESS:]PORT[:[GUEST:]PORT][/tcp|/udp]`, such as
/// `127.0.0.1:8080:80`.
///
/// Without an address of the machine it is 127.0.0.1: `0.0.0.0:8080:80` serves others, too. Without a guest it is the
/// first one. IPv6 addresses are in brackets.
///
/// ```
/// use steadfast_gateway::Forward;
///
/// let forward: Forward = "8080:80".parse().unwrap();
/// assert_eq!(forward.to_string(), "127.0.0.1:8080:80/tcp");
/// let wrong = "8080:http".parse::<Forward>().unwrap_err();
/// assert_eq!(wrong.to_string(), "`8080:http`: expected a port or an address, found `http`");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    listen: SocketAddr,
    guest: Option<IpAddr>,
    port: u16,
    udp: bool,
}

/// A word of a forward.
enum Word {
    Address(IpAddr),
    Port(u16),
}

/// The words between colons. Brackets enclose the address that holds colons.
fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        let (word, after) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']').ok_or_else(|| "`]` after an address".to_owned())?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = || word.parse().ok().filter(|port| *port > 0).map(Word::Port);
        let word = word.parse().ok().map(Word::Address).or_else(port);
        let found = &rest[..rest.len() - after.len()];
        words.push(word.ok_or_else(|| format!("a port or an address, found `{found}`"))?);
        rest = match after.strip_prefix(':') {
            Some(rest) => rest,
            None if after.is_empty() => return Ok(words),
            None => return Err("`:` after `]`".to_owned()),
        };
    }
}

impl FromStr for Forward {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Forward, Malformed> {
        let wrong = |expected: String| Malformed::new(text, expected);
        let (ends, udp) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), false),
            Some((ends, "udp")) => (ends, true),
            Some((_, other)) => return Err(wrong(format!("`tcp` or `udp`, found `{other}`"))),
        };
        use Word::{Address, Port};
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (listen, port, guest, to) = match words(ends).map_err(wrong)?[..] {
            [Port(port)] => (local, port, None, port),
            [Port(port), Port(to)] => (local, port, None, to),
            [Port(port), Address(guest), Port(to)] => (local, port, Some(guest), to),
            [Address(listen), Port(port)] => (listen, port, None, port),
            [Address(listen), Port(port), Port(to)] => (listen, port, None, to),
            [Address(listen), Port(port), Address(guest), Port(to)] => (listen, port, Some(guest), to),
            _ => return Err(wrong("[ADDRESS:]PORT[:[GUEST:]PORT], as 127.0.0.1:8080:80".to_owned())),
        };
        Ok(Forward { listen: SocketAddr::new(listen, port), guest, port: to, udp })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.udp { "udp" } else { "tcp" };
        match self.guest {
            Some(guest) => write!(f, "{}:{}/{protocol}", self.listen, SocketAddr::new(guest, self.port)),
            None => write!(f, "{}:{}/{protocol}", self.listen, self.port),
        }
    }
}

/// A forward whose port of the machine is taken.
#[derive(Debug)]
pub(crate) struct Bound {
    forward: Forward,
    socket: Listening,
}

#[derive(Debug)]
enum Listening {
    Tcp(std::net::TcpListener),
    Udp(std::net::UdpSocket),
}

impl Bound {
    pub(crate) fn new(forward: Forward) -> io::Result<Bound> {
        let socket = if forward.udp {
            let socket = std::net::UdpSocket::bind(forward.listen)?;
            socket.set_nonblocking(true)?;
            Listening::Udp(socket)
        } else {
            let listener = std::net::TcpListener::bind(forward.listen)?;
            listener.set_nonblocking(true)?;
            Listening::Tcp(listener)
        };
        Ok(Bound { forward, socket })
    }
}

/// The forwards of a gateway that are being served.
#[derive(Debug, Default)]
pub(crate) struct Forwards {
    all: Vec<(Forward, AbortHandle)>,
}

impl Forwards {
    /// Serves a forward on the current runtime.
    pub(crate) fn serve(&mut self, bound: &Bound, table: &Arc<Table>, parts: &Parts) -> io::Result<()> {
        let forward = bound.forward.clone();
        let task = match &bound.socket {
            Listening::Tcp(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
                tokio::spawn(serve_tcp(listener, forward.clone(), parts.clone()))
            }
            Listening::Udp(socket) => {
                let socket = Arc::new(tokio::net::UdpSocket::from_std(socket.try_clone()?)?);
                tokio::spawn(serve_udp(socket, forward.clone(), table.clone(), parts.shared.clone()))
            }
        };
        self.all.push((forward, task.abort_handle()));
        Ok(())
    }

    pub(crate) fn remove(&mut self, forward: &Forward) -> bool {
        let before = self.all.len();
        let is_other = |(one, task): &(Forward, AbortHandle)| {
            let other = one != forward;
            if !other {
                task.abort();
            }
            other
        };
        self.all.retain(is_other);
        self.all.len() < before
    }

    pub(crate) fn list(&self) -> Vec<Forward> {
        self.all.iter().map(|(forward, _)| forward.clone()).collect()
    }
}

impl Drop for Forwards {
    fn drop(&mut self) {
        self.all.iter().for_each(|(_, task)| task.abort());
    }
}

/// The network and the settings that a forward uses.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) net: Net,
    pub(crate) shared: Arc<Shared>,
}

/// The ends of a connection on the guests' side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    /// The client as the guest sees it. `None`: the gateway.
    client: Option<SocketAddr>,
    guest: SocketAddr,
}

impl Shared {
    fn ends(&self, forward: &Forward, client: SocketAddr) -> Option<Ends> {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let first = |v4: bool| self.subnet.guest().find(|guest| guest.is_ipv4() == v4);
        let same_family = || first(client.is_ipv4()).filter(|_| client.is_ipv4() || self.fixed_guest);
        let guest = forward.guest.or_else(same_family).or_else(|| first(true))?;
        let is_foreign = !client.ip().is_loopback() && !self.subnet.contains(client.ip());
        let kept = is_foreign && client.is_ipv4() == guest.is_ipv4();
        Some(Ends { client: kept.then_some(client), guest: SocketAddr::new(guest, forward.port) })
    }
}

/// Takes connections until it is aborted. While as many live as the gateway permits, clients wait in the kernel's queue.
async fn serve_tcp(listener: tokio::net::TcpListener, forward: Forward, parts: Parts) {
    loop {
        // It is never closed.
        let Ok(permit) = parts.shared.limit.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, from)) => {
                count(&parts.shared.counts.forward_connections);
                let (parts, forward) = (parts.clone(), forward.clone());
                tokio::spawn(async move {
                    parts.carry(client, from, &forward).await;
                    drop(permit);
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Above all too many open files: others close theirs.
            Err(_) => {
                count(&parts.shared.counts.forward_pauses);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Parts {
    async fn carry(&self, client: tokio::net::TcpStream, from: SocketAddr, forward: &Forward) {
        let counts = &self.shared.counts;
        // It fails only for a socket that is closed already.
        let _ = client.set_nodelay(true);
        let gone = client.reset();
        let connected = tokio::select! {
            connected = self.connect(forward, from) => connected,
            () = gone => Err(io::ErrorKind::ConnectionReset.into()),
        };
        let Ok(guest) = connected else {
            count(&counts.forward_failed);
            return RelayEnd::abort(client);
        };
        let upstream = Upstream::new(client, self.shared.uploads.clone());
        let report = relay(guest, upstream, &self.shared.relay).await;
        add(&counts.tcp_bytes_out, report.a_to_b.bytes);
        add(&counts.tcp_bytes_in, report.b_to_a.bytes);
    }

    async fn connect(&self, forward: &Forward, from: SocketAddr) -> io::Result<TcpStream> {
        let ends = self.shared.ends(forward, from).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let stream = match ends.client {
            Some(client) => match TcpStream::connect_from(&self.net, client, ends.guest).await {
                // A connection of the client to another port of the machine leads to the same one of the guest.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    TcpStream::connect(&self.net, ends.guest).await?
                }
                connected => connected?,
            },
            None => TcpStream::connect(&self.net, ends.guest).await?,
        };
        // The client decides what waits for more data.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Carries datagrams to the guest until it is aborted. The answers come by the table.
async fn serve_udp(
    socket: Arc<tokio::net::UdpSocket>,
    forward: Forward,
    table: Arc<Table>,
    shared: Arc<Shared>,
) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier answer found a closed port.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(ends) = shared.ends(&forward, from) else { continue };
        table.take_in(&socket, from, ends.client, ends.guest, &buffer[..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_reads_as_it_is_written() {
        for (text, same) in [
            ("80", "127.0.0.1:80:80/tcp"),
            ("8080:80/udp", "127.0.0.1:8080:80/udp"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80/tcp"),
            ("[::]:8080:80/tcp", "[::]:8080:80/tcp"),
            ("8080:10.0.2.16:80", "127.0.0.1:8080:10.0.2.16:80/tcp"),
            ("[::1]:1:[fd00::2]:2/udp", "[::1]:1:[fd00::2]:2/udp"),
        ] {
            let forward = text.parse::<Forward>().unwrap();
            assert_eq!(forward.to_string(), same);
            assert_eq!(same.parse::<Forward>().unwrap(), forward);
        }
    }

    #[test]
    fn a_bad_forward_says_what_was_expected() {
        for (text, expected) in [
            ("", "``: expected a port or an address, found ``"),
            ("0:80", "`0:80`: expected a port or an address, found `0`"),
            ("8080:80/sctp", "`8080:80/sctp`: expected `tcp` or `udp`, found `sctp`"),
            ("127.0.0.1", "`127.0.0.1`: expected [ADDRESS:]PORT[:[GUEST:]PORT], as 127.0.0.1:8080:80"),
            ("1:2:3", "`1:2:3`: expected [ADDRESS:]PORT[:[GUEST:]PORT]"),
            ("[::1:80", "`[::1:80`: expected `]` after an address"),
            ("[::1]80", "`[::1]80`: expected `:` after `]`"),
            ("70000", "`70000`: expected a port or an address, found `70000`"),
        ] {
            let error = text.parse::<Forward>().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}

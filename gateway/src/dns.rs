//! Names: queries to the gateway's name server go to those of the machine, as they are, over UDP and TCP.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use steadfast::{Net, TcpListener, UdpSocket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::counters::count;
use crate::names::HEADER_LEN;
use crate::servers::PORT;
use crate::shared::Shared;

/// The time that a server has to answer before the next one is asked (resolv.conf(5), `timeout`).
const PATIENCE: Duration = Duration::from_secs(5);

/// Queries over UDP that wait for an answer at a time. More are dropped, and the resolver repeats them.
const IN_FLIGHT: usize = 256;

/// The largest message over UDP.
const LARGEST: usize = 65_535;

/// Serves queries at an address of the gateway.
pub(crate) async fn serve(
    net: &Net,
    address: IpAddr,
    shared: &Arc<Shared>,
    services: &mut JoinSet<()>,
) -> io::Result<()> {
    let socket = Arc::new(UdpSocket::bind(net, (address, PORT)).await?);
    let listener = TcpListener::bind(net, (address, PORT)).await?;
    services.spawn(serve_udp(socket, shared.clone()));
    services.spawn(serve_tcp(listener, shared.clone()));
    Ok(())
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let limit = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut buffer = vec![0; LARGEST];
    loop {
        let (len, guest) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // A guest that did not wait for its answer.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(_) => return,
        };
        // Neither a query, nor worth an answer.
        if len < HEADER_LEN || buffer[2] & 0x80 != 0 {
            continue;
        }
        count(&shared.counts.dns_queries);
        let Ok(permit) = limit.clone().try_acquire_owned() else {
            count(&shared.counts.dns_dropped);
            continue;
        };
        let query = buffer[..len].to_vec();
        let (socket, shared) = (socket.clone(), shared.clone());
        tokio::spawn(async move {
            let answer = ask_all(&shared.dns.servers(), &query).await.unwrap_or_else(|| {
                count(&shared.counts.dns_failed);
                failure_of(&query)
            });
            shared.learn(&answer);
            // It fails if the guest is gone.
            let _ = socket.send_to(&answer, guest).await;
            drop(permit);
        });
    }
}

/// Asks one server after the other.
async fn ask_all(servers: &[SocketAddr], query: &[u8]) -> Option<Vec<u8>> {
    for server in servers {
        if let Ok(Ok(answer)) = timeout(PATIENCE, ask(*server, query)).await {
            return Some(answer);
        }
    }
    None
}

/// Asks a server, from a port and with an id that nobody can guess (RFC 5452).
async fn ask(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = tokio::net::UdpSocket::bind((local, 0)).await?;
    socket.connect(server).await?;
    let id = (RandomState::new().build_hasher().finish() as u16).to_be_bytes();
    let mut asked = query.to_vec();
    asked[..2].copy_from_slice(&id);
    socket.send(&asked).await?;
    let mut answer = vec![0; LARGEST];
    loop {
        let len = socket.recv(&mut answer).await?;
        let is_answer = len >= HEADER_LEN && answer[..2] == id && answer[2] & 0x80 != 0;
        if is_answer && question(&answer[..len]).is_none_or(|answered| question(query) == Some(answered)) {
            answer.truncate(len);
            answer[..2].copy_from_slice(&query[..2]);
            return Ok(answer);
        }
    }
}

/// The question of a message: its name, in any case of letters, type and class. `None` if there is not exactly one, or
/// if it is malformed.
fn question(message: &[u8]) -> Option<Vec<u8>> {
    let mut rest = message.get(HEADER_LEN..)?;
    if message[4..6] != [0, 1] {
        return None;
    }
    let start = rest;
    loop {
        let (&len, after) = rest.split_first()?;
        match len {
            0 => {
                let name = start.len() - after.len();
                return Some(start.get(..name + 4)?.to_ascii_lowercase());
            }
            1..=63 => rest = after.get(usize::from(len)..)?,
            _ => return None,
        }
    }
}

/// The answer SERVFAIL to a query, which repeats its question.
fn failure_of(query: &[u8]) -> Vec<u8> {
    const SERVFAIL: u8 = 2;
    let question = question(query).map_or(0, |question| question.len());
    let mut answer = query[..HEADER_LEN + question].to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | SERVFAIL;
    answer[4..HEADER_LEN].fill(0);
    answer[5] = u8::from(question > 0);
    answer
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((guest, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            for server in shared.dns.servers() {
                if let Ok(Ok(upstream)) = timeout(PATIENCE, tokio::net::TcpStream::connect(server)).await {
                    if shared.rules.has_names() {
                        // It fails if one of them is gone.
                        let _ = carry_messages(guest, upstream, &shared).await;
                    } else {
                        steadfast::relay(guest, upstream, &shared.relay).await;
                    }
                    return;
                }
            }
            count(&shared.counts.dns_failed);
            guest.abort();
        });
    }
}

/// Carries messages one by one, each behind its length (RFC 1035 §4.2.2), so that rules by name learn from them.
async fn carry_messages(
    mut guest: steadfast::TcpStream,
    mut server: tokio::net::TcpStream,
    shared: &Shared,
) -> io::Result<()> {
    /// A guest that asks nothing for this long is let go (RFC 7766 §6.2.3).
    const IDLE: Duration = Duration::from_secs(10);
    while let Ok(query) = timeout(IDLE, read_message(&mut guest)).await {
        server.write_all(&query?).await?;
        let answer =
            timeout(PATIENCE, read_message(&mut server)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        shared.learn(&answer[2..]);
        guest.write_all(&answer).await?;
    }
    Ok(())
}

/// Reads a message with its length.
async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 2];
    stream.read_exact(&mut message).await?;
    let len = u16::from_be_bytes([message[0], message[1]]);
    message.resize(2 + usize::from(len), 0);
    stream.read_exact(&mut message[2..]).await?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x03www\x02eu\x00\x00\x01\x00\x01\
                           \x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";

    #[test]
    fn a_failure_repeats_the_question_and_nothing_else() {
        let failure = failure_of(QUERY);
        assert_eq!(
            failure,
            b"\x12\x34\x81\x82\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x02eu\x00\x00\x01\x00\x01"
        );
        assert_eq!(failure_of(&QUERY[..14]).len(), HEADER_LEN);
    }

    #[test]
    fn a_malformed_question_is_none() {
        assert_eq!(question(QUERY).unwrap().len(), 12);
        for cut in HEADER_LEN..HEADER_LEN + 12 {
            assert_eq!(question(&QUERY[..cut]), None, "{cut}");
        }
        let mut pointer = QUERY.to_vec();
        pointer[HEADER_LEN] = 0xc0;
        assert_eq!(question(&pointer), None);
    }
}

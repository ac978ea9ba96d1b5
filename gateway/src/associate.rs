//! Datagrams that leave by a server of SOCKS5 (RFC 1928 §7).

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::net::UdpSocket;

use crate::sockets::send;

/// Types of addresses (RFC 1928 §5).
pub(crate) const V4: u8 = 1;
pub(crate) const NAME: u8 = 3;
pub(crate) const V6: u8 = 4;

/// Datagrams that wait for the proxy's answer. More are lost.
const WAITING: usize = 16;

/// An address as SOCKS5 writes it: type, address and port.
pub(crate) fn address(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(v4) => [&[V4][..], &v4.octets(), &port].concat(),
        IpAddr::V6(v6) => [&[V6][..], &v6.octets(), &port].concat(),
    }
}

/// Reads an address behind its type. Returns the bytes behind it, too. `None`: a name, or too few bytes.
pub(crate) fn parse_address(kind: u8, bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (address, rest): (IpAddr, _) = match kind {
        V4 => bytes.split_first_chunk::<4>().map(|(v4, rest)| (IpAddr::from(*v4), rest))?,
        V6 => bytes.split_first_chunk::<16>().map(|(v6, rest)| (IpAddr::from(*v6), rest))?,
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((SocketAddr::new(address, u16::from_be_bytes(*port)), rest))
}

/// A datagram for `to` as the proxy takes it.
fn wrap(to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    // Reserved bytes, and no fragment.
    [&[0, 0, 0], &address(to)[..], payload].concat()
}

/// The sender and the payload of a datagram of the proxy. `None`: a fragment, a name, or no such datagram.
fn unwrap(datagram: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let ([_, _, 0, kind], rest) = datagram.split_first_chunk::<4>()? else { return None };
    parse_address(*kind, rest)
}

/// The way of one socket's datagrams by the proxy.
#[derive(Debug)]
pub(crate) struct Association(Mutex<State>);

#[derive(Debug)]
enum State {
    /// The proxy has not answered. These wait.
    Asked(Vec<Vec<u8>>),
    /// The proxy takes datagrams there.
    Open(SocketAddr),
}

impl Association {
    pub(crate) fn new() -> Association {
        Association(Mutex::new(State::Asked(Vec::new())))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a datagram, or lets it wait.
    pub(crate) fn send(&self, socket: &UdpSocket, payload: &[u8], to: SocketAddr) -> io::Result<()> {
        let datagram = wrap(to, payload);
        match &mut *self.lock() {
            State::Open(relay) => send(socket, &datagram, *relay),
            State::Asked(waiting) if waiting.len() < WAITING => {
                waiting.push(datagram);
                Ok(())
            }
            State::Asked(_) => Ok(()),
        }
    }

    /// The proxy takes datagrams at this address.
    pub(crate) fn open(&self, socket: &UdpSocket, relay: SocketAddr) {
        if let State::Asked(waiting) = std::mem::replace(&mut *self.lock(), State::Open(relay)) {
            for datagram in waiting {
                // An error would be that of the proxy, whose connection tells of its end.
                let _ = send(socket, &datagram, relay);
            }
        }
    }

    /// The sender and the payload of a datagram that came from `from`.
    ///
    /// # Errors
    ///
    /// It is none of the proxy's.
    pub(crate) fn receive<'a>(
        &self,
        from: SocketAddr,
        datagram: &'a [u8],
    ) -> io::Result<(SocketAddr, &'a [u8])> {
        let is_relay = matches!(*self.lock(), State::Open(relay) if relay == from);
        unwrap(datagram).filter(|_| is_relay).ok_or_else(|| ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_has_its_other_end_before_its_payload() {
        let v4: SocketAddr = "203.0.113.1:53".parse().unwrap();
        assert_eq!(wrap(v4, b"query"), b"\0\0\0\x01\xcb\0\x71\x01\0\x35query");
        for to in [v4, "[2001:db8::1]:443".parse().unwrap()] {
            assert_eq!(unwrap(&wrap(to, b"x")), Some((to, &b"x"[..])));
        }
    }

    #[test]
    fn a_fragment_a_name_and_a_short_datagram_are_none() {
        let whole = wrap("203.0.113.1:53".parse().unwrap(), b"");
        for len in 0..whole.len() {
            assert_eq!(unwrap(&whole[..len]), None, "{len}");
        }
        let fragment = [&[0, 0, 1][..], &whole[3..]].concat();
        let name = b"\0\0\0\x03\x01x\0\x35payload";
        for datagram in [&fragment[..], name, b"\0\0\0\x07aaaaaaaaaaaaaaaaaaaa"] {
            assert_eq!(unwrap(datagram), None, "{datagram:?}");
        }
    }
}

//! Datagram sockets of the kernel that carry those of guests.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::UdpSocket;

/// Sends a datagram now, whatever the runtime knows of the socket. If the kernel's queue is full, it is lost.
pub(crate) fn send(socket: &UdpSocket, payload: &[u8], to: SocketAddr) -> io::Result<()> {
    let to = to.into();
    let attempt = || match SockRef::from(socket).send_to(payload, &to) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        sent => sent.map(drop),
    };
    // The socket tells of an error of an earlier datagram once.
    attempt().or_else(|_| attempt())
}

/// Gives what a socket sends the TTL and the TOS of a guest's packet.
pub(crate) fn set_header(socket: &UdpSocket, v4: bool, (ttl, tos): (u8, u8)) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if v4 {
        socket.set_ttl_v4(ttl.into())?;
        socket.set_tos_v4(tos.into())
    } else {
        socket.set_unicast_hops_v6(ttl.into())?;
        socket.set_tclass_v6(tos.into())
    }
}

//! Datagram sockets of the kernel that carry those of guests.

use std::io;
use std::net::SocketAddr;

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
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

/// The fields of a guest's packet that the packets of its socket take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) dont_fragment: bool,
}

impl Header {
    /// Gives what `socket` sends these fields. A packet that may not be fragmented is not held to the path MTU that the
    /// kernel knows: the router that cannot carry it says so again, to the guest.
    pub(crate) fn set(self, socket: &UdpSocket, v4: bool) -> io::Result<()> {
        let socket = SockRef::from(socket);
        if v4 {
            let discovery =
                if self.dont_fragment { Ipv4PathMtuDiscovery::PROBE } else { Ipv4PathMtuDiscovery::DONT };
            set_ip_mtu_discover(&*socket, discovery)?;
            socket.set_ttl_v4(self.ttl.into())?;
            socket.set_tos_v4(self.tos.into())
        } else {
            let discovery =
                if self.dont_fragment { Ipv6PathMtuDiscovery::PROBE } else { Ipv6PathMtuDiscovery::DONT };
            set_ipv6_mtu_discover(&*socket, discovery)?;
            socket.set_unicast_hops_v6(self.ttl.into())?;
            socket.set_tclass_v6(self.tos.into())
        }
    }
}

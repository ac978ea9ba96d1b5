//! Datagram sockets of the kernel that carry those of guests.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::sockopt::{IpRecvTos, Ipv4RecvTtl, Ipv6RecvHopLimit, Ipv6RecvTClass};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::errors::socket_address;

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

/// A datagram that a socket has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) len: usize,
    pub(crate) from: SocketAddr,
    /// TTL or hop limit behind this gateway, which is a hop.
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
}

/// Asks the kernel to tell the fields of [`Arrived`].
pub(crate) fn ask_fields(socket: &UdpSocket, v4: bool) -> io::Result<()> {
    if v4 {
        setsockopt(socket, Ipv4RecvTtl, &true)?;
        setsockopt(socket, IpRecvTos, &true)?;
    } else {
        setsockopt(socket, Ipv6RecvHopLimit, &true)?;
        setsockopt(socket, Ipv6RecvTClass, &true)?;
    }
    Ok(())
}

/// Takes the next datagram, if there is one.
pub(crate) fn take(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Arrived> {
    socket.try_io(Interest::READABLE, || read(socket, buffer))
}

fn read(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Arrived> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!(i32, i32);
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let from = received.address.and_then(|address| socket_address(&address));
    let from = from.ok_or(io::ErrorKind::InvalidData)?;
    let mut arrived = Arrived { len: received.bytes, from, ttl: 64, tos: 0 };
    for field in received.cmsgs()? {
        match field {
            // It is at its goal, whatever its TTL.
            ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => {
                arrived.ttl = (ttl - 1).clamp(1, 255) as u8;
            }
            ControlMessageOwned::Ipv4Tos(tos) => arrived.tos = tos,
            ControlMessageOwned::Ipv6TClass(class) => arrived.tos = class as u8,
            _ => {}
        }
    }
    Ok(arrived)
}

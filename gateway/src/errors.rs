//! The ICMP errors that the kernel keeps for a socket (`IP_RECVERR`, ip(7)).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::libc::sock_extended_err;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use steadfast::stack::IcmpError;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// An error about something that a socket has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// The destination of the datagram.
    pub(crate) about: SocketAddr,
    pub(crate) kind: IcmpError,
    /// Who says so. `None`: the kernel of this machine.
    pub(crate) from: Option<IpAddr>,
}

/// Asks the kernel to keep errors for a socket.
pub(crate) fn keep(socket: &UdpSocket, v4: bool) -> io::Result<()> {
    let kept =
        if v4 { setsockopt(socket, Ipv4RecvErr, &true) } else { setsockopt(socket, Ipv6RecvErr, &true) };
    Ok(kept?)
}

/// Takes the next error. `None`: there is no more.
pub(crate) fn next(socket: &UdpSocket) -> Option<Told> {
    loop {
        match socket.try_io(Interest::ERROR, || read(socket)) {
            // One that no packet could carry to the guest.
            Ok(None) => {}
            Ok(told) => return told,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn read(socket: &UdpSocket) -> io::Result<Option<Told>> {
    // The start of the datagram, which is not needed.
    let mut start = [0; 8];
    let mut parts = [IoSliceMut::new(&mut start)];
    // The fields of the packet come first, where the socket asks for them.
    let mut space = nix::cmsg_space!(i32, i32, sock_extended_err, nix::libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let Some(about) = received.address.and_then(|address| socket_address(&address)) else { return Ok(None) };
    for message in received.cmsgs()? {
        let (error, from) = match message {
            ControlMessageOwned::Ipv4RecvErr(error, from) => {
                (error, from.map(|from| IpAddr::V4(u32::from_be(from.sin_addr.s_addr).into())))
            }
            ControlMessageOwned::Ipv6RecvErr(error, from) => {
                (error, from.map(|from| IpAddr::V6(from.sin6_addr.s6_addr.into())))
            }
            _ => continue,
        };
        let is_local = u32::from(error.ee_origin) == u32::from(LOCAL);
        let from = from.filter(|from| !is_local && !from.is_unspecified());
        return Ok(kind_of(&error).map(|kind| Told { about, kind, from }));
    }
    Ok(None)
}

pub(crate) fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// Origins of an error: this kernel, ICMP, ICMPv6.
const LOCAL: u8 = 1;
const ICMP: u8 = 2;
const ICMP6: u8 = 3;

fn kind_of(error: &sock_extended_err) -> Option<IcmpError> {
    let too_big = IcmpError::PacketTooBig { mtu: error.ee_info };
    Some(match (error.ee_origin, error.ee_type, error.ee_code) {
        (LOCAL, ..) if error.ee_errno == nix::libc::EMSGSIZE as u32 => too_big,
        (ICMP, 3, 0 | 6) | (ICMP6, 1, 0) => IcmpError::NetworkUnreachable,
        (ICMP, 3, 1 | 7) | (ICMP6, 1, 3) => IcmpError::HostUnreachable,
        (ICMP, 3, 2) => IcmpError::ProtocolUnreachable,
        (ICMP, 3, 3) | (ICMP6, 1, 4) => IcmpError::PortUnreachable,
        (ICMP, 3, 4) | (ICMP6, 2, _) => too_big,
        (ICMP, 3, 9 | 10 | 13) | (ICMP6, 1, 1) => IcmpError::AdminProhibited,
        (ICMP, 11, 0) | (ICMP6, 3, 0) => IcmpError::TimeExceeded,
        _ => return None,
    })
}

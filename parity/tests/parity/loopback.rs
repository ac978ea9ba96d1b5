//! `tokio::net` on both sides, over the loopback interface.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
pub(crate) use tokio::net as near;
pub(crate) use tokio::net as far;

use crate::tools::in_real_time;

#[path = "cases/mod.rs"]
mod cases;

/// The addresses of both sides, and the calls that need a network.
pub(crate) struct World;

pub(crate) fn run(case: impl AsyncFn(World)) {
    in_real_time(case(World));
}

impl World {
    pub(crate) fn ip(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    pub(crate) fn peer_ip(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    pub(crate) async fn bind(&self, local: impl near::ToSocketAddrs) -> io::Result<near::TcpListener> {
        near::TcpListener::bind(local).await
    }

    pub(crate) async fn connect(&self, remote: impl near::ToSocketAddrs) -> io::Result<near::TcpStream> {
        near::TcpStream::connect(remote).await
    }

    pub(crate) fn socket(&self) -> near::TcpSocket {
        near::TcpSocket::new_v4().unwrap()
    }

    pub(crate) async fn lookup(
        &self,
        host: impl near::ToSocketAddrs,
    ) -> io::Result<impl Iterator<Item = SocketAddr>> {
        near::lookup_host(host).await
    }

    pub(crate) async fn peer_bind(&self, local: impl far::ToSocketAddrs) -> io::Result<far::TcpListener> {
        far::TcpListener::bind(local).await
    }

    pub(crate) async fn bind_udp(&self, local: impl near::ToSocketAddrs) -> io::Result<near::UdpSocket> {
        near::UdpSocket::bind(local).await
    }

    pub(crate) async fn bind_udp_shared(&self, local: SocketAddr) -> io::Result<near::UdpSocket> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&local.into())?;
        near::UdpSocket::from_std(socket.into())
    }

    pub(crate) async fn peer_bind_udp(&self, local: impl far::ToSocketAddrs) -> io::Result<far::UdpSocket> {
        far::UdpSocket::bind(local).await
    }

    pub(crate) async fn peer_connect(&self, remote: impl far::ToSocketAddrs) -> io::Result<far::TcpStream> {
        far::TcpStream::connect(remote).await
    }
}

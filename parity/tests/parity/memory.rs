//! `steadfast` on both sides, over a wire in memory, in virtual time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(crate) use steadfast as near;
pub(crate) use steadfast as far;
use steadfast::{Net, device};

use crate::tools::in_virtual_time;

#[path = "cases/mod.rs"]
mod cases;

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// The networks of both sides, their addresses, and the calls that need a network.
pub(crate) struct World {
    net: Net,
    peer: Net,
}

pub(crate) fn run(case: impl AsyncFn(World)) {
    in_virtual_time(async {
        let (left, right) = device::memory::pair(1500);
        let net = Net::builder().secret([2; 32]).address(NEAR, 24).start(left).unwrap();
        let peer = Net::builder().secret([1; 32]).address(FAR, 24).start(right).unwrap();
        case(World { net: net.clone(), peer: peer.clone() }).await;
        for net in [net, peer] {
            net.check_consistent().unwrap();
        }
    });
}

impl World {
    pub(crate) fn ip(&self) -> IpAddr {
        NEAR.into()
    }

    pub(crate) fn peer_ip(&self) -> IpAddr {
        FAR.into()
    }

    pub(crate) async fn bind(&self, local: impl near::ToSocketAddrs) -> io::Result<near::TcpListener> {
        near::TcpListener::bind(&self.net, local).await
    }

    pub(crate) async fn connect(&self, remote: impl near::ToSocketAddrs) -> io::Result<near::TcpStream> {
        near::TcpStream::connect(&self.net, remote).await
    }

    pub(crate) fn socket(&self) -> near::TcpSocket {
        near::TcpSocket::new_v4(&self.net).unwrap()
    }

    pub(crate) async fn lookup(
        &self,
        host: impl near::ToSocketAddrs,
    ) -> io::Result<impl Iterator<Item = SocketAddr>> {
        near::lookup_host(&self.net, host).await
    }

    pub(crate) async fn peer_bind(&self, local: impl far::ToSocketAddrs) -> io::Result<far::TcpListener> {
        far::TcpListener::bind(&self.peer, local).await
    }

    pub(crate) async fn bind_udp(&self, local: impl near::ToSocketAddrs) -> io::Result<near::UdpSocket> {
        near::UdpSocket::bind(&self.net, local).await
    }

    pub(crate) async fn bind_udp_shared(&self, local: SocketAddr) -> io::Result<near::UdpSocket> {
        near::UdpSocket::bind_with(&self.net, local, |options| options.reuse_port = true)
    }

    pub(crate) async fn peer_bind_udp(&self, local: impl far::ToSocketAddrs) -> io::Result<far::UdpSocket> {
        far::UdpSocket::bind(&self.peer, local).await
    }

    pub(crate) async fn peer_connect(&self, remote: impl far::ToSocketAddrs) -> io::Result<far::TcpStream> {
        far::TcpStream::connect(&self.peer, remote).await
    }
}

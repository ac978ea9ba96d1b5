//! `steadfast` over a TUN device, with `tokio::net` on the kernel as its peer. Each test has a network namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(crate) use steadfast as near;
use steadfast::Net;
use steadfast::device::{Tun, TunOptions};
pub(crate) use tokio::net as far;

use crate::tools::in_real_time;

#[path = "cases/mod.rs"]
mod cases;

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// Our network, the addresses of both sides, and the calls that need a network.
pub(crate) struct World {
    net: Net,
}

pub(crate) fn run(case: impl AsyncFn(World)) {
    run_beside(&[], case);
}

/// Runs a case that needs programs.
pub(crate) fn run_beside(programs: &[&str], case: impl AsyncFn(World)) {
    if !steadfast_witness::enter_namespace(programs) {
        return;
    }
    in_real_time(async {
        let mut options = TunOptions::new("sf0");
        options.host = vec![(FAR.into(), 24)];
        let tun = Tun::open(&options).await.unwrap();
        let net = Net::builder().address(NEAR, 24).start(tun).unwrap();
        case(World { net: net.clone() }).await;
        net.check_consistent().unwrap();
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
        far::TcpListener::bind(local).await
    }

    pub(crate) async fn bind_udp(&self, local: impl near::ToSocketAddrs) -> io::Result<near::UdpSocket> {
        near::UdpSocket::bind(&self.net, local).await
    }

    pub(crate) async fn bind_udp_shared(&self, local: SocketAddr) -> io::Result<near::UdpSocket> {
        near::UdpSocket::bind_with(&self.net, local, |options| options.reuse_port = true)
    }

    pub(crate) async fn peer_bind_udp(&self, local: impl far::ToSocketAddrs) -> io::Result<far::UdpSocket> {
        far::UdpSocket::bind(local).await
    }

    pub(crate) async fn peer_connect(&self, remote: impl far::ToSocketAddrs) -> io::Result<far::TcpStream> {
        far::TcpStream::connect(remote).await
    }
}

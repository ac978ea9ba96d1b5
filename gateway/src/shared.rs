//! The part of a gateway that all its services use.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use steadfast::{RelayConfig, UdpSocket};
use tokio::sync::Semaphore;

use crate::counters::Counts;
use crate::rules::{Action, Rules};
use crate::servers::Dns;
use crate::subnet::Subnet;

/// The part of a gateway that its tasks use.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) subnet: Subnet,
    pub(crate) rules: Rules,
    pub(crate) relay: RelayConfig,
    pub(crate) counts: Counts,
    pub(crate) dns: Dns,
    /// Connections whose guest may still send.
    pub(crate) uploads: Arc<AtomicUsize>,
    /// A permit for each connection.
    pub(crate) limit: Arc<Semaphore>,
    /// The first guest has its addresses of both families.
    pub(crate) fixed_guest: bool,
}

impl Shared {
    /// The address of the machine that a destination of the guest stands for.
    pub(crate) fn real_destination(&self, destination: SocketAddr) -> SocketAddr {
        let mut aliases = self.subnet.localhost();
        let localhost: IpAddr = match aliases.find(|alias| *alias == destination.ip()) {
            None => return destination,
            Some(IpAddr::V4(_)) => Ipv4Addr::LOCALHOST.into(),
            Some(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
        };
        SocketAddr::new(localhost, destination.port())
    }

    /// The gateway's address in the family of a guest's.
    pub(crate) fn gateway_of(&self, guest: IpAddr) -> Option<IpAddr> {
        self.subnet.gateway().find(|gateway| gateway.is_ipv4() == guest.is_ipv4())
    }

    pub(crate) fn decide(&self, destination: SocketAddr) -> Action {
        self.rules.decide(destination)
    }
}

/// Receives the next datagram of a server's socket: its length and its sender. `None`: the network is closed.
pub(crate) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer).await {
            Ok(received) => return Some(received),
            // An earlier answer found a closed port.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => return None,
        }
    }
}

//! The part of a gateway that all its services use.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use steadfast::{RelayConfig, UdpSocket};
use tokio::sync::Semaphore;

use crate::counters::Counts;
use crate::names::Names;
use crate::proxy::Proxy;
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
    /// For rules by name.
    pub(crate) names: Mutex<Names>,
    /// Connections leave by it.
    pub(crate) proxy: Option<Proxy>,
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
        if !self.rules.has_names() {
            return self.rules.decide(destination);
        }
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<&str> = names.of(destination.ip().to_canonical()).collect();
        self.rules.decide_by_names(destination, &names)
    }

    /// Decides about a datagram. None passes by a proxy that carries none.
    pub(crate) fn decide_datagram(&self, destination: SocketAddr) -> Action {
        match &self.proxy {
            Some(proxy) if !proxy.carries_datagrams() => Action::Deny,
            _ => self.decide(destination),
        }
    }

    /// Decides about a ping. No proxy carries it, and none passes by a proxy.
    pub(crate) fn decide_ping(&self, destination: SocketAddr) -> Action {
        if self.proxy.is_some() { Action::Deny } else { self.decide(destination) }
    }

    /// Notes what an answer of a name server says.
    pub(crate) fn learn(&self, answer: &[u8]) {
        if self.rules.has_names() {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.learn(answer, |name, address| self.rules.wants(name, address));
        }
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

//! The clients of forwarded ports of UDP: who gets the answers of guests.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use steadfast::stack::UdpPacket;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::flows::Flow;
use crate::sockets::send;

/// Clients at a time. Beyond that the one that was silent for the longest gives up its place.
const CLIENTS: usize = 4096;

/// A client is forgotten this long after the last datagram in either direction (RFC 4787 REQ-5).
const IDLE: Duration = Duration::from_secs(300);

/// A guest's socket, and a client as the guest sees it.
type Key = (SocketAddr, SocketAddr);

/// The clients by guest and by what the guest sees of them.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    all: HashMap<Key, Client>,
    /// The ports of the gateway that stand for clients which the guest cannot see.
    hidden: HashMap<(SocketAddr, SocketAddr), SocketAddr>,
}

#[derive(Debug)]
struct Client {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    used: Instant,
}

impl Clients {
    /// Notes a datagram of a client. Returns the address that the guest sees it under; `None`: it has none.
    pub(crate) fn seen(
        &mut self,
        socket: &Arc<UdpSocket>,
        client: SocketAddr,
        seen: Option<SocketAddr>,
        gateway: Option<IpAddr>,
        guest: SocketAddr,
    ) -> Option<SocketAddr> {
        let seen = match seen.or_else(|| self.hidden.get(&(client, guest)).copied()) {
            Some(seen) => seen,
            None => {
                self.make_room();
                let gateway = gateway?;
                // The client's own port, or the next one that no other has.
                let ports = (client.port()..=u16::MAX).chain(1024..client.port());
                let mut all = ports.map(|port| SocketAddr::new(gateway, port));
                let seen = all.find(|seen| !self.all.contains_key(&(guest, *seen)))?;
                self.hidden.insert((client, guest), seen);
                seen
            }
        };
        if !self.all.contains_key(&(guest, seen)) {
            self.make_room();
        }
        let entry = Client { socket: socket.clone(), address: client, used: Instant::now() };
        self.all.insert((guest, seen), entry);
        Some(seen)
    }

    /// Forgets clients that were silent for long, and at the limit the one that was so for the longest.
    fn make_room(&mut self) {
        if self.all.len() < CLIENTS {
            return;
        }
        let now = Instant::now();
        self.all.retain(|_, client| client.used + IDLE > now);
        if self.all.len() >= CLIENTS
            && let Some(oldest) = self.all.iter().min_by_key(|(_, client)| client.used).map(|(key, _)| *key)
        {
            self.all.remove(&oldest);
        }
        let Clients { all, hidden } = self;
        hidden.retain(|(_, guest), seen| all.contains_key(&(*guest, *seen)));
    }

    /// Sends a guest's datagram to its client. Returns false if it is for nobody here.
    pub(crate) fn answer(&mut self, packet: &UdpPacket) -> bool {
        let Some(client) = self.all.get_mut(&(packet.source, packet.destination)) else { return false };
        let now = Instant::now();
        if client.used + IDLE <= now {
            return false;
        }
        client.used = now;
        // A client that is gone needs no answer.
        let _ = send(&client.socket, &packet.payload, client.address);
        true
    }

    pub(crate) fn flows(&self, now: Instant) -> Vec<Flow> {
        let flow = |(key, client): (&Key, &Client)| Flow {
            protocol: "udp",
            state: "FORWARDED",
            guest: key.0,
            remote: key.1,
            age: now - client.used,
        };
        self.all.iter().map(flow).collect()
    }
}

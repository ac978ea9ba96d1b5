//! Network address translation (NAT).

use std::net::{IpAddr, SocketAddr};

use steadfast_core::{Duration, Instant};

/// A NAT.
#[derive(Clone, Debug)]
pub(crate) struct Nat {
    pub(crate) address: IpAddr,
    /// The hosts behind it, and their addresses.
    pub(crate) inside: Vec<(usize, IpAddr)>,
    pub(crate) expiry: Duration,
    /// Forwarded ports: outer port and inner endpoint.
    pub(crate) forwards: Vec<(u16, SocketAddr)>,
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) next_port: u16,
}

/// An inner endpoint and its outer port.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    inner: SocketAddr,
    port: u16,
    used: Instant,
}

/// All NATs of a network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nats {
    pub(crate) all: Vec<Nat>,
}

/// The first port that a NAT allocates.
pub(crate) const FIRST_PORT: u16 = 40_000;

impl Nats {
    /// Returns the translated source of a segment that leaves `host`; `None` if it passes no NAT.
    pub(super) fn outward(
        &mut self,
        now: Instant,
        host: usize,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<SocketAddr> {
        let nat = self.all.iter_mut().find(|nat| nat.inside.iter().any(|(inside, _)| *inside == host))?;
        if nat.inside.iter().any(|(_, address)| *address == to.ip()) || from.ip().is_ipv6() {
            return None;
        }
        if let Some((port, _)) = nat.forwards.iter().find(|(_, inner)| *inner == from) {
            return Some(SocketAddr::new(nat.address, *port));
        }
        let expiry = nat.expiry;
        nat.mappings.retain(|mapping| now.saturating_since(mapping.used) < expiry);
        if let Some(mapping) = nat.mappings.iter_mut().find(|mapping| mapping.inner == from) {
            mapping.used = now;
            return Some(SocketAddr::new(nat.address, mapping.port));
        }
        let port = nat.next_port;
        nat.next_port = nat.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        nat.mappings.push(Mapping { inner: from, port, used: now });
        Some(SocketAddr::new(nat.address, port))
    }

    /// Returns the inner destination of a segment. `None` if it is not addressed to a NAT; `Some(None)` if the port has
    /// no mapping.
    pub(super) fn inward(&mut self, now: Instant, to: SocketAddr) -> Option<Option<SocketAddr>> {
        let nat = self.all.iter_mut().find(|nat| nat.address == to.ip())?;
        if let Some((_, inner)) = nat.forwards.iter().find(|(port, _)| *port == to.port()) {
            return Some(Some(*inner));
        }
        let expiry = nat.expiry;
        let alive = |m: &&mut Mapping| m.port == to.port() && now.saturating_since(m.used) < expiry;
        Some(nat.mappings.iter_mut().find(alive).map(|mapping| {
            mapping.used = now;
            mapping.inner
        }))
    }

    /// The inner endpoint of an outer address, or the address itself.
    pub(crate) fn inner(&self, end: SocketAddr) -> SocketAddr {
        let Some(nat) = self.all.iter().find(|nat| nat.address == end.ip()) else { return end };
        let forward = nat.forwards.iter().find(|(port, _)| *port == end.port()).map(|(_, inner)| *inner);
        let mapped = || nat.mappings.iter().rev().find(|m| m.port == end.port()).map(|m| m.inner);
        forward.or_else(mapped).unwrap_or(end)
    }

    pub(crate) fn is_outer(&self, address: IpAddr) -> bool {
        self.all.iter().any(|nat| nat.address == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn nat() -> Nats {
        Nats {
            all: vec![Nat {
                address: "192.0.2.1".parse().unwrap(),
                inside: vec![(0, "10.0.0.1".parse().unwrap()), (2, "10.0.0.3".parse().unwrap())],
                expiry: Duration::from_secs(60),
                forwards: vec![(80, end("10.0.0.3:8080"))],
                mappings: Vec::new(),
                next_port: FIRST_PORT,
            }],
        }
    }

    #[test]
    fn two_hosts_behind_one_address_get_ports_of_their_own_t9c() {
        let mut nats = nat();
        let now = Instant::ZERO;
        let server = end("10.0.0.2:80");
        assert_eq!(nats.outward(now, 0, end("10.0.0.1:5000"), server), Some(end("192.0.2.1:40000")));
        assert_eq!(nats.outward(now, 2, end("10.0.0.3:5000"), server), Some(end("192.0.2.1:40001")));
        assert_eq!(nats.outward(now, 0, end("10.0.0.1:5000"), server), Some(end("192.0.2.1:40000")));
        assert_eq!(nats.inward(now, end("192.0.2.1:40001")), Some(Some(end("10.0.0.3:5000"))));
        assert_eq!(nats.inner(end("192.0.2.1:40000")), end("10.0.0.1:5000"));
        assert_eq!(nats.inner(server), server);
    }

    #[test]
    fn a_mapping_that_is_idle_for_too_long_is_forgotten() {
        let mut nats = nat();
        nats.outward(Instant::ZERO, 0, end("10.0.0.1:5000"), end("10.0.0.2:80"));
        let outer = end("192.0.2.1:40000");
        assert_eq!(nats.inward(Instant::from_millis(59_999), outer), Some(Some(end("10.0.0.1:5000"))));
        assert_eq!(nats.inward(Instant::from_millis(119_999), outer), Some(None));
    }

    #[test]
    fn forwarded_ports_lead_inside_and_other_traffic_passes_by() {
        let mut nats = nat();
        assert_eq!(nats.inward(Instant::ZERO, end("192.0.2.1:80")), Some(Some(end("10.0.0.3:8080"))));
        let back = nats.outward(Instant::ZERO, 2, end("10.0.0.3:8080"), end("10.0.0.2:9"));
        assert_eq!(back, Some(end("192.0.2.1:80")));
        assert_eq!(nats.inward(Instant::ZERO, end("10.0.0.2:80")), None);
        assert_eq!(nats.outward(Instant::ZERO, 1, end("10.0.0.2:80"), end("192.0.2.1:40000")), None);
    }
}

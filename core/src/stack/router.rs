//! Advertisements of a router (RFC 4861 §6.2): hosts of a link find the gateway and its prefixes by them.

use std::net::{IpAddr, Ipv6Addr};

use super::Stack;
use crate::counters::{DropReason, ReplyReason};
use crate::error::Error;
use crate::ip::routes::InterfaceId;
use crate::link::neighbours::Told;
use crate::link::ports::{Advertising, RouterAdvertisement};
use crate::time::{Duration, Instant};
use crate::wire::build;
use crate::wire::ethernet::{self, Address};
use crate::wire::ndp::{self, Message, NdpOption};

/// Bounds of the time between two advertisements to all (RFC 4861 §6.2.1).
const MIN_INTERVAL: Duration = Duration::from_secs(200);
const MAX_INTERVAL: Duration = Duration::from_secs(600);
/// Advertisements to all are at least this far apart (RFC 4861 §10, MIN_DELAY_BETWEEN_RAS).
const MIN_DELAY: Duration = Duration::from_secs(3);

/// Prefixes, and servers, of one advertisement.
const MOST: usize = 8;

impl Stack {
    /// Advertises this stack as a router on an interface, or no more. The next `transmit` tells all hosts of the link, and
    /// later ones answer solicitations and repeat it. Packets are not forwarded by this.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), an interface of bare packets or without a link-local address, or
    /// more than eight prefixes or servers.
    pub fn advertise(&mut self, id: InterfaceId, router: Option<RouterAdvertisement>) -> Result<(), Error> {
        let fits = |router: &RouterAdvertisement| router.prefixes.len() <= MOST && router.dns.len() <= MOST;
        let source = self.link_local(id);
        let (now, is_set) = (self.now, router.is_some());
        let port = self.link.port_mut(id).ok_or(Error::InvalidArgument)?;
        if !router.as_ref().is_none_or(fits) || is_set && source.is_none() {
            return Err(Error::InvalidArgument);
        }
        port.router =
            router.map(|advertisement| Box::new(Advertising { advertisement, last: None, next: now }));
        if is_set {
            self.advertise_to_all(id);
        }
        Ok(())
    }

    /// Returns the link-local address of an interface.
    fn link_local(&self, id: InterfaceId) -> Option<Ipv6Addr> {
        self.addresses.of(id).find_map(|(address, _)| match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(v6),
            _ => None,
        })
    }

    /// Sends the advertisements that are due.
    pub(super) fn advertise_due(&mut self) {
        while let Some((_, id)) = self.link.router_at().filter(|(at, _)| *at <= self.now) {
            self.advertise_to_all(id);
        }
    }

    fn advertise_to_all(&mut self, id: InterfaceId) {
        let spread = f64::from(self.keys.random()) / f64::from(u32::MAX);
        let wait = MIN_INTERVAL + (MAX_INTERVAL - MIN_INTERVAL).mul_f64(spread);
        let now = self.now;
        if let Some(router) = self.link.port_mut(id).and_then(|port| port.router.as_mut()) {
            (router.last, router.next) = (Some(now), now + wait);
        }
        let to = Address::of_group(ndp::ALL_NODES.into()).unwrap_or(Address::BROADCAST);
        self.send_advertisement(id, ndp::ALL_NODES, to);
    }

    /// A host asks for routers. One that has no address yet gets the answer with all others.
    pub(super) fn router_solicited(
        &mut self,
        id: InterfaceId,
        (source, from): (Ipv6Addr, Address),
        names_itself: bool,
    ) {
        let now = self.now;
        let Some(router) = self.link.port_mut(id).and_then(|port| port.router.as_mut()) else {
            return self.counters.count_drop(DropReason::NdpIgnored);
        };
        self.counters.count_reply(ReplyReason::RouterAdvertisement);
        if source.is_unspecified() {
            let earliest = router.last.map_or(now, |last| last + MIN_DELAY);
            router.next = router.next.min(earliest);
            return self.advertise_due();
        }
        if names_itself {
            self.hear((id, source.into()), from, Told::Asking, false);
        }
        self.send_advertisement(id, source, from);
    }

    fn send_advertisement(&mut self, id: InterfaceId, destination: Ipv6Addr, to: Address) {
        let (Some(source), Some(link)) = (self.link_local(id), self.routing.get(id)) else { return };
        let Some(port) = self.link.port(id) else { return };
        let Some(Advertising { advertisement, .. }) = port.router.as_deref() else { return };
        let hardware = port.hardware;
        let servers: Vec<u8> = advertisement.dns.iter().flat_map(Ipv6Addr::octets).collect();
        let lifetime = advertisement.router.lifetime.into();
        let dns = (!servers.is_empty()).then_some(NdpOption::Dns { lifetime, servers: &servers });
        let options: Vec<_> = [NdpOption::SourceLinkLayer(hardware), NdpOption::Mtu(link.mtu.into())]
            .into_iter()
            .chain(advertisement.prefixes.iter().copied().map(NdpOption::Prefix))
            .chain(dns)
            .collect();
        let message = Message::RouterAdvertisement(advertisement.router);
        let packet = build::ndp(source, destination, &message, &options);
        let header = ethernet::Header::new(hardware, to, ethernet::TYPE_IPV6);
        if self.push_frame(id, build::ethernet(&header, &packet)) {
            self.counters.icmp_out_msgs += 1;
        }
    }

    /// Returns the next time for [`advertise_due`](Stack::advertise_due).
    pub(super) fn router_at(&self) -> Option<Instant> {
        self.link.router_at().map(|(at, _)| at)
    }
}

//! Who a local address and port belongs to: a listener, or a UDP socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use super::Stack;
use crate::error::Error;
use crate::socket::ListenOptions;
use crate::tuple::{FourTuple, mapped};
use crate::udp::UdpOptions;

impl Stack {
    /// Reserves a local end for a later [`listen`](Stack::listen) or [`connect`](Stack::connect), and returns it; port 0
    /// chooses a port. Nobody listens at the end meanwhile. `options` are those of the later listener.
    ///
    /// # Errors
    ///
    /// As [`listen`](Stack::listen).
    pub fn bind(&mut self, local: SocketAddr, options: &ListenOptions) -> Result<SocketAddr, Error> {
        let reach = Reach::of_tcp(options);
        let local = self.free_end(local, reach)?;
        self.bindings.insert(local, reach, None);
        if let Some(socket) = &options.socket {
            self.bindings.mark_reserved(local, (socket.ttl, socket.dscp));
        }
        Ok(local)
    }

    /// Gives an end back that [`bind`](Stack::bind) has reserved. Returns whether it was reserved.
    pub fn unbind(&mut self, local: SocketAddr) -> bool {
        self.bindings.remove(local, None)
    }

    /// Returns a local end of TCP that may be bound. It chooses a port for port 0.
    pub(super) fn free_end(&mut self, mut local: SocketAddr, reach: Reach) -> Result<SocketAddr, Error> {
        if !local.ip().is_unspecified() && !self.addresses.is_local(local.ip()) {
            return Err(Error::AddrNotAvailable);
        }
        if local.port() == 0 {
            let tuple = FourTuple::new(local, local);
            let mut ports = self.keys.ports(self.now, self.config.ip_local_port_range, &tuple);
            // A port that others share is not a free one.
            let alone = Reach { shared: false, ..reach };
            let free = ports.find(|port| {
                local.set_port(*port);
                !self.bindings.is_taken(local, alone)
            });
            local.set_port(free.ok_or(Error::AddrNotAvailable)?);
        }
        if self.bindings.is_taken(local, reach) { Err(Error::AddrInUse) } else { Ok(local) }
    }
}

/// The local ends of the sockets of one protocol, sorted. Sockets that share an end stand beside each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Bindings(Vec<Binding>);

#[derive(Clone, Copy, Debug)]
struct Binding {
    key: (u16, u128),
    /// The socket that takes packets; `None` while the end is only reserved.
    taker: Option<u32>,
    reach: Reach,
    /// TTL and DSCP of the socket that has reserved the end, if it said so.
    marks: Option<(u8, u8)>,
}

/// How far a binding goes beyond its address, and with whom it is shared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// On `[::]`, it takes no IPv4.
    pub(super) only_v6: bool,
    /// Others that share may have the same binding (`SO_REUSEPORT`).
    pub(super) shared: bool,
}

impl Reach {
    pub(super) fn of_tcp(options: &ListenOptions) -> Reach {
        Reach { only_v6: options.only_v6, shared: options.reuse_port }
    }

    pub(super) fn of_udp(options: &UdpOptions) -> Reach {
        Reach { only_v6: options.only_v6, shared: options.reuse_port }
    }
}

impl Bindings {
    /// Returns who has a local address and port: one bound to that address, else one bound to all addresses of its
    /// family, else one bound to all addresses of both. `spread` chooses among those that share an end.
    pub(super) fn at(&self, address: IpAddr, port: u16, spread: impl FnOnce() -> u64) -> Option<u32> {
        choose(self.nearest(address, port)?, spread)
    }

    /// Returns all that share the nearest end with [`at`](Bindings::at).
    pub(super) fn nearest(&self, address: IpAddr, port: u16) -> Option<impl Iterator<Item = u32> + Clone> {
        let mut takers = ends(address).into_iter().map(move |end| self.takers(end, port, address));
        takers.find(|takers| takers.clone().next().is_some())
    }

    /// Returns all that are bound to an address or stand for it: to itself, to all addresses of its family, and to all
    /// addresses of both.
    pub(super) fn all_at(&self, address: IpAddr, port: u16) -> impl Iterator<Item = u32> {
        ends(address).into_iter().flat_map(move |end| self.takers(end, port, address))
    }

    /// Returns who takes packets to `address` by a binding to `end`.
    fn takers(
        &self,
        end: Option<IpAddr>,
        port: u16,
        address: IpAddr,
    ) -> impl Iterator<Item = u32> + Clone + use<'_> {
        let at_end = end.map_or(&[][..], |end| self.at_end(end, port));
        let crosses = address.is_ipv4() && end.is_some_and(|end| end.is_ipv6());
        at_end
            .iter()
            .filter(move |binding| !crosses || binding.is_for_both())
            .filter_map(|binding| binding.taker)
    }

    /// Returns whether a socket at `local` would have the binding of another one, or share its peers. A wildcard socket
    /// stands for its family, and one on `[::]` for both unless it is IPv6-only.
    pub(super) fn is_taken(&self, local: SocketAddr, reach: Reach) -> bool {
        let (port, excludes) = (local.port(), |other: &Binding| !(reach.shared && other.reach.shared));
        let overlaps = match local.ip() {
            IpAddr::V4(v4) if v4.is_unspecified() => {
                let all_v6 = self.at_end(Ipv6Addr::UNSPECIFIED.into(), port).iter();
                all_v6.filter(|binding| binding.is_for_both()).any(excludes)
            }
            IpAddr::V6(v6) if v6.is_unspecified() && !reach.only_v6 => {
                self.at_end(Ipv4Addr::UNSPECIFIED.into(), port).iter().any(excludes)
            }
            _ => false,
        };
        overlaps || self.at_end(local.ip(), port).iter().any(excludes)
    }

    /// Adds a binding that is not taken.
    pub(super) fn insert(&mut self, local: SocketAddr, reach: Reach, taker: Option<u32>) {
        let key = key(local.ip(), local.port());
        let place = self.0.partition_point(|binding| binding.key <= key);
        self.0.insert(place, Binding { key, taker, reach, marks: None });
    }

    /// Notes TTL and DSCP of the socket that has reserved an end.
    fn mark_reserved(&mut self, local: SocketAddr, marks: (u8, u8)) {
        let range = self.range(local.ip(), local.port());
        let reserved = self.0[range].iter_mut().find(|binding| binding.taker.is_none());
        reserved.into_iter().for_each(|binding| binding.marks = Some(marks));
    }

    /// Returns TTL and DSCP of the socket that has reserved an end.
    pub(super) fn marks_at(&self, local: SocketAddr) -> Option<(u8, u8)> {
        let mut ends = ends(local.ip()).into_iter().flatten();
        ends.find_map(|end| self.at_end(end, local.port()).iter().find_map(|binding| binding.marks))
    }

    /// Removes the binding of a socket, or with `None` one that reserves the end. Returns whether it was there.
    pub(super) fn remove(&mut self, local: SocketAddr, taker: Option<u32>) -> bool {
        let range = self.range(local.ip(), local.port());
        let place = range.clone().find(|place| self.0[*place].taker == taker);
        place.map(|place| self.0.remove(place)).is_some()
    }

    /// Returns the place of a socket's binding among all.
    #[cfg(feature = "model")]
    pub(super) fn place_of(&self, taker: u32) -> Option<usize> {
        self.0.iter().position(|binding| binding.taker == Some(taker))
    }

    /// Returns the ends that are reserved, and how far they reach.
    #[cfg(feature = "model")]
    pub(super) fn reserved(&self) -> impl Iterator<Item = impl std::hash::Hash> {
        let reserved = self.0.iter().filter(|binding| binding.taker.is_none());
        reserved.map(|binding| (binding.key, binding.reach.only_v6, binding.reach.shared))
    }

    /// Returns the bindings to exactly an end.
    fn at_end(&self, address: IpAddr, port: u16) -> &[Binding] {
        &self.0[self.range(address, port)]
    }

    fn range(&self, address: IpAddr, port: u16) -> Range<usize> {
        let wanted = key(address, port);
        let from = self.0.partition_point(|binding| binding.key < wanted);
        let len = self.0[from..].iter().take_while(|binding| binding.key == wanted).count();
        from..from + len
    }
}

impl Binding {
    /// It is on `[::]`, and takes IPv4 too.
    fn is_for_both(&self) -> bool {
        self.key.1 == 0 && !self.reach.only_v6
    }
}

/// Returns one of those that share an end: `spread` chooses.
pub(super) fn choose(
    mut takers: impl Iterator<Item = u32> + Clone,
    spread: impl FnOnce() -> u64,
) -> Option<u32> {
    let first = takers.next();
    match takers.clone().count() as u64 {
        0 => first,
        others => first.into_iter().chain(takers).nth((spread() % (others + 1)) as usize),
    }
}

/// Returns the ends that take packets to an address, the nearest first.
fn ends(address: IpAddr) -> [Option<IpAddr>; 3] {
    let all_v4 = address.is_ipv4().then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    [Some(address), all_v4, Some(Ipv6Addr::UNSPECIFIED.into())]
}

/// The key of a local end. It is made of numbers, which compare faster than addresses. The unspecified address of a
/// family stands for the whole family.
fn key(address: IpAddr, port: u16) -> (u16, u128) {
    (port, mapped(&address).to_bits())
}

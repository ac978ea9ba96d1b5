//! The interfaces of a stack, and its routes: by which interface a packet leaves (RFC 1122 §3.3.1).
// 1122-5, 1122-6

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::prefix::{prefix_covers, prefix_of};
use crate::tally::uncount;
use crate::tuple::{FourTuple, mapped};

/// Names an interface of a stack. The number of a removed interface is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(u32);

impl InterfaceId {
    /// The interface that [`Stack::new`](crate::Stack::new) was given.
    pub const FIRST: InterfaceId = InterfaceId(1);
    /// No interface: nothing leads to the destination.
    pub(crate) const NONE: InterfaceId = InterfaceId(0);

    /// Returns the number of the interface, from 1 (`ifindex`). It is the scope id of link-local addresses.
    pub const fn index(self) -> u32 {
        self.0
    }

    /// Returns the interface of this number, whether or not there is one.
    pub const fn from_index(index: u32) -> InterfaceId {
        InterfaceId(index)
    }
}

/// A route: packets to a network leave by an interface.
///
/// ```
/// use steadfast_core::{InterfaceId, Route};
///
/// let route = Route::new("0.0.0.0".parse().unwrap(), 0, InterfaceId::FIRST)
///     .via("10.0.0.254".parse().unwrap())
///     .metric(100);
/// assert_eq!(route.to_string(), "0.0.0.0/0 via 10.0.0.254 dev 1 metric 100");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Route {
    /// The address of the network; bits beyond the prefix are zero.
    pub destination: IpAddr,
    /// Length of the prefix, in bits.
    pub prefix_len: u8,
    /// The router. `None`: the destinations are neighbours.
    pub gateway: Option<IpAddr>,
    /// The interface by which packets leave.
    pub interface: InterfaceId,
    /// The route of the smaller metric is used where two lead to one network.
    pub metric: u32,
    /// The properties of its path.
    pub path: PathMetrics,
}

/// The properties of a path that the user knows (`ip route … mtu lock 1200 advmss 1000 initcwnd 4`). 0 stands for
/// unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathMetrics {
    /// The path MTU in bytes. That of the interface limits it.
    pub mtu: u16,
    /// Path MTU discovery changes nothing: reports of routers are dropped (`mtu lock`).
    pub mtu_lock: bool,
    /// The MSS that connections advertise, in place of that which follows from the MTU. `TCP_MAXSEG` limits it.
    pub advmss: u16,
    /// The initial window in segments, in place of `tcp_init_cwnd`.
    pub initcwnd: u8,
}

impl PathMetrics {
    const NONE: PathMetrics = PathMetrics { mtu: 0, mtu_lock: false, advmss: 0, initcwnd: 0 };

    /// The MTU of a path by an interface of this MTU.
    fn limit(&self, mtu: u16) -> u16 {
        if self.mtu > 0 { mtu.min(self.mtu) } else { mtu }
    }
}

impl Route {
    /// Returns a route without a gateway, of metric 0.
    pub const fn new(destination: IpAddr, prefix_len: u8, interface: InterfaceId) -> Route {
        Route { destination, prefix_len, gateway: None, interface, metric: 0, path: PathMetrics::NONE }
    }

    /// Returns the route through a gateway.
    pub const fn via(self, gateway: IpAddr) -> Route {
        Route { gateway: Some(gateway), ..self }
    }

    /// Returns the route with a metric.
    pub const fn metric(self, metric: u32) -> Route {
        Route { metric, ..self }
    }

    /// Returns the route with properties of its path.
    pub const fn path(self, path: PathMetrics) -> Route {
        Route { path, ..self }
    }

    /// Returns whether the addresses are of one family, and no bit stands beyond the prefix.
    pub(crate) fn is_well_formed(&self) -> bool {
        let longest = if self.destination.is_ipv4() { 32 } else { 128 };
        let families = self.gateway.is_none_or(|gateway| gateway.is_ipv4() == self.destination.is_ipv4());
        families
            && self.prefix_len <= longest
            && prefix_of(self.destination, self.prefix_len) == prefix_of(self.destination, longest)
    }

    fn key(&self) -> (Family, Reverse<u8>, u128, u32) {
        let Route { destination, prefix_len, metric, .. } = *self;
        (destination.is_ipv4(), Reverse(prefix_len), prefix_of(destination, prefix_len), metric)
    }
}

/// The form of `ip route`.
impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.destination, self.prefix_len)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " dev {} metric {}", self.interface.0, self.metric)?;
        let PathMetrics { mtu, mtu_lock, advmss, initcwnd } = self.path;
        if mtu > 0 {
            write!(f, " mtu {}{mtu}", if mtu_lock { "lock " } else { "" })?;
        }
        if advmss > 0 {
            write!(f, " advmss {advmss}")?;
        }
        if initcwnd > 0 {
            write!(f, " initcwnd {initcwnd}")?;
        }
        Ok(())
    }
}

/// True for IPv4.
type Family = bool;

/// The routes, found by the longest prefix, then by the smallest metric, then by age.
#[derive(Clone, Debug, Default)]
struct Routes {
    rows: BTreeMap<(Family, Reverse<u8>, u128, u32, u64), Route>,
    /// Number of routes of each prefix length.
    lengths: BTreeMap<(Family, Reverse<u8>), u32>,
    /// Number of routes that know something of their path.
    with_path: usize,
    added: u64,
}

impl Routes {
    fn add(&mut self, route: Route) {
        self.added += 1;
        self.with_path += usize::from(route.path != PathMetrics::NONE);
        let (family, len, prefix, metric) = route.key();
        self.rows.insert((family, len, prefix, metric, self.added), route);
        *self.lengths.entry((family, len)).or_default() += 1;
    }

    fn remove(&mut self, route: &Route) -> bool {
        let (family, len, prefix, metric) = route.key();
        let mut alike =
            self.rows.range((family, len, prefix, metric, 0)..=(family, len, prefix, metric, u64::MAX));
        let Some(key) = alike.find(|(_, there)| *there == route).map(|(key, _)| *key) else { return false };
        self.take(key);
        true
    }

    fn take(&mut self, key: (Family, Reverse<u8>, u128, u32, u64)) {
        let gone = self.rows.remove(&key);
        self.with_path -= usize::from(gone.is_some_and(|route| route.path != PathMetrics::NONE));
        uncount(&mut self.lengths, &(key.0, key.1));
    }

    fn remove_interface(&mut self, interface: InterfaceId) {
        let gone: Vec<_> =
            self.rows.iter().filter(|(_, route)| route.interface == interface).map(|(key, _)| *key).collect();
        gone.into_iter().for_each(|key| self.take(key));
    }

    fn contains(&self, route: &Route) -> bool {
        let (family, len, prefix, metric) = route.key();
        let alike =
            self.rows.range((family, len, prefix, metric, 0)..=(family, len, prefix, metric, u64::MAX));
        alike.map(|(_, there)| there).any(|there| there == route)
    }

    fn find(&self, destination: IpAddr) -> Option<&Route> {
        let family = destination.is_ipv4();
        let lengths = self.lengths.range((family, Reverse(u8::MAX))..=(family, Reverse(0)));
        lengths.map(|((_, len), _)| *len).find_map(|len| {
            let prefix = prefix_of(destination, len.0);
            let alike = (family, len, prefix, 0, 0)..=(family, len, prefix, u32::MAX, u64::MAX);
            self.rows.range(alike).next().map(|(_, route)| route)
        })
    }
}

/// The properties of an interface that decide about the packets that leave by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// [`NONE`](InterfaceId::NONE): no route leads to the destination.
    pub(crate) id: InterfaceId,
    pub(crate) mtu: u16,
    pub(crate) segmentation_offload: bool,
    pub(crate) checksum_offload: bool,
}

/// The interfaces and the routes.
#[derive(Clone, Debug)]
pub(crate) struct Routing {
    /// The interface of every packet, where there is no choice.
    only: Option<Link>,
    /// Ascending.
    all: Vec<Link>,
    routes: Routes,
    /// Link-local addresses, with the interface of each.
    scoped: Vec<(u128, InterfaceId)>,
    /// The last answers, by their destinations. Empty while there is no choice.
    cache: Vec<Option<Answer>>,
    next: InterfaceId,
    /// No device takes packets, and connections know.
    pub(crate) refuses: bool,
}

/// A destination and its interface. The local address matters to a link-local destination alone.
#[derive(Clone, Copy, Debug)]
struct Answer {
    local: u128,
    remote: u128,
    link: Link,
}

/// Answers that are remembered.
const CACHE: usize = 256;

impl Routing {
    /// One interface, to which default routes lead. Their metric is the largest: any other default route comes first.
    pub(crate) fn new(first: Link) -> Routing {
        let mut routing = Routing {
            only: Some(first),
            all: vec![first],
            routes: Routes::default(),
            scoped: Vec::new(),
            cache: Vec::new(),
            next: InterfaceId(first.id.0 + 1),
            refuses: false,
        };
        Routing::defaults().into_iter().for_each(|route| routing.routes.add(route));
        routing
    }

    fn defaults() -> [Route; 2] {
        [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
            .map(|all| Route::new(all, 0, InterfaceId::FIRST).metric(u32::MAX))
    }

    /// Returns the interface by which packets of a flow leave.
    #[inline]
    pub(crate) fn towards(&mut self, tuple: &FourTuple) -> Link {
        match self.only {
            Some(link) => link,
            None => self.look_up(tuple),
        }
    }

    /// As [`towards`](Routing::towards), and remembers nothing.
    pub(crate) fn find(&self, tuple: &FourTuple) -> Link {
        self.only.unwrap_or_else(|| self.search(tuple))
    }

    /// Returns whether there may be a choice.
    #[inline]
    pub(crate) fn is_many(&self) -> bool {
        self.only.is_none()
    }

    #[inline(never)]
    fn look_up(&mut self, tuple: &FourTuple) -> Link {
        let remote = tuple.remote_address.to_bits();
        let local = if is_scoped(tuple.remote_address) { tuple.local_address.to_bits() } else { 0 };
        let folded = (remote >> 64) as u64 ^ remote as u64 ^ local as u64;
        let place = (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % CACHE;
        self.cache.resize(CACHE, None);
        match self.cache[place] {
            Some(answer) if answer.local == local && answer.remote == remote => answer.link,
            _ => {
                let link = self.search(tuple);
                self.cache[place] = Some(Answer { local, remote, link });
                link
            }
        }
    }

    fn search(&self, tuple: &FourTuple) -> Link {
        let local = tuple.local_address.to_bits();
        let of_scope = || self.scoped.iter().find(|(address, _)| *address == local).map(|(_, id)| *id);
        let scoped = is_scoped(tuple.remote_address).then(of_scope).flatten();
        if let Some(id) = scoped {
            return self.link(id);
        }
        let Some(route) = self.route(tuple.remote().ip()) else { return self.nowhere() };
        let link = self.link(route.interface);
        Link { mtu: route.path.limit(link.mtu), ..link }
    }

    /// Returns what the route of a flow says of its path.
    #[inline]
    pub(crate) fn path(&self, tuple: &FourTuple) -> PathMetrics {
        if self.routes.with_path == 0 { PathMetrics::NONE } else { self.path_of_route(tuple) }
    }

    #[cold]
    fn path_of_route(&self, tuple: &FourTuple) -> PathMetrics {
        self.route(tuple.remote().ip()).map_or(PathMetrics::NONE, |route| route.path)
    }

    /// Segments that lead nowhere are made for the first interface, and then dropped.
    fn nowhere(&self) -> Link {
        Link {
            id: InterfaceId::NONE,
            mtu: self.all[0].mtu,
            segmentation_offload: false,
            checksum_offload: false,
        }
    }

    /// Returns the route to a destination.
    pub(crate) fn route(&self, destination: IpAddr) -> Option<Route> {
        self.routes.find(destination).copied()
    }

    /// Returns an interface.
    pub(crate) fn get(&self, id: InterfaceId) -> Option<Link> {
        self.all.iter().find(|link| link.id == id).copied()
    }

    /// Returns an interface, or nowhere if it is gone.
    pub(crate) fn link(&self, id: InterfaceId) -> Link {
        self.get(id).unwrap_or(self.nowhere())
    }

    /// Iterates over the interfaces.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Link> + '_ {
        self.all.iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Iterates over the routes, longest prefixes first.
    pub(crate) fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.routes.rows.values().copied()
    }

    /// Returns whether a gateway can be reached directly.
    pub(crate) fn is_neighbour(&self, gateway: IpAddr, interface: InterfaceId) -> bool {
        let direct = |route: &Route| route.interface == interface && route.gateway.is_none();
        let covers = |route: Route| prefix_covers(route.destination, route.prefix_len, gateway);
        is_scoped(mapped(&gateway)) || self.routes().filter(direct).any(covers)
    }

    pub(crate) fn routes_len(&self) -> usize {
        self.routes.rows.len()
    }

    /// Adds an interface, and gives it its number.
    pub(crate) fn add(&mut self, link: Link) -> InterfaceId {
        let id = self.next;
        self.next = InterfaceId(id.0 + 1);
        self.all.push(Link { id, ..link });
        self.changed();
        id
    }

    /// Removes an interface and its routes. Its addresses are removed before.
    pub(crate) fn remove(&mut self, id: InterfaceId) {
        self.all.retain(|link| link.id != id);
        self.routes.remove_interface(id);
        self.changed();
    }

    pub(crate) fn add_route(&mut self, route: Route) {
        if !self.routes.contains(&route) {
            self.routes.add(route);
            self.changed();
        }
    }

    pub(crate) fn remove_route(&mut self, route: &Route) -> bool {
        let removed = self.routes.remove(route);
        self.changed();
        removed
    }

    /// Notes an address of an interface, for link-local destinations.
    pub(crate) fn address_added(&mut self, address: IpAddr, interface: InterfaceId) {
        self.address_removed(address);
        if is_scoped(mapped(&address)) {
            self.scoped.push((mapped(&address).to_bits(), interface));
        }
    }

    pub(crate) fn address_removed(&mut self, address: IpAddr) {
        let bits = mapped(&address).to_bits();
        self.scoped.retain(|(there, _)| *there != bits);
        self.changed();
    }

    fn changed(&mut self) {
        self.cache.clear();
        let only = self.all.len() == 1
            && self.routes.with_path == 0
            && Routing::defaults().iter().all(|route| self.routes.contains(route));
        self.only = only.then(|| self.all[0]);
    }
}

/// Returns the route to the neighbours of an address: none for that of a single host.
pub(crate) fn connected(address: IpAddr, len: u8, interface: InterfaceId) -> Option<Route> {
    let single = if address.is_ipv4() { 32 } else { 128 };
    let bits = prefix_of(address, len);
    let destination = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    };
    (len < single && !address.is_loopback()).then(|| Route::new(destination, len, interface))
}

/// A link-local address does not say to which of several links it belongs (RFC 4007 §6).
fn is_scoped(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local()
}

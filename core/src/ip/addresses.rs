//! The local addresses, and those that no host can have (RFC 9293 §3.9.1.1, §3.9.2.3).
// P0, MUST-44, MUST-46, MUST-57, MUST-63, THREAT-40, THREAT-63

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::policy::policy_of;
use super::prefix::{common_prefix, prefix_of};
use super::routes::InterfaceId;
use crate::counters::DropReason;
use crate::tally::uncount;
use crate::tuple::mapped;

/// The addresses of all interfaces with their prefix lengths. A packet costs a search or two, however many addresses
/// there are.
///
/// The host model is the weak one of RFC 1122 §3.3.4.2, as in Linux: a packet to any of the addresses is taken,
/// whatever interface it came by. Only a link-local address belongs to its link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    /// In order of addition.
    all: Vec<Ours>,
    /// All addresses as numbers, ascending. IPv4 addresses are IPv4-mapped.
    ours: Vec<u128>,
    /// The interface of each of `ours`.
    owners: Vec<InterfaceId>,
    /// The directed broadcast addresses of the local networks, ascending, one for each address: every packet is
    /// compared with them.
    broadcasts: Vec<u32>,
    /// Addresses by network and order of addition. Each is listed under its own network and under that of its scope.
    networks: BTreeMap<(Network, u64), IpAddr>,
    /// Number of addresses of each scope and prefix length.
    lengths: BTreeMap<(Scope, u8), u32>,
    added: u64,
    /// The ends of the last packet that [`fit_v4`](Addresses::fit_v4) accepted: usually those of the next one too.
    fitting: Option<(Ipv4Addr, Ipv4Addr)>,
    /// The last destination of each family that was not local.
    foreign: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// The last destination that needed a source address, and that address.
    nearest: Option<(IpAddr, IpAddr)>,
    /// Packets to addresses of others are taken in, for forwarders.
    any: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ours {
    address: IpAddr,
    len: u8,
    order: u64,
    interface: InterfaceId,
}

/// A class of addresses that can reach each other. A loopback address does not leave the host, and an IPv6 link-local
/// address does not leave the link (RFC 4291 §2.5.6).
type Scope = (bool, bool, bool);

/// A scope, a prefix length, and the prefix itself, padded with zeros.
type Network = (Scope, u8, u128);

/// Stands for the prefix length in the network of all addresses of a scope.
const ANY: u8 = u8::MAX;

impl Addresses {
    /// Returns the addresses of the first interface.
    pub(crate) fn new(addresses: impl IntoIterator<Item = (IpAddr, u8)>) -> Addresses {
        let mut all = Addresses::default();
        addresses
            .into_iter()
            .for_each(|(address, prefix_len)| all.add(address, prefix_len, InterfaceId::FIRST));
        all
    }

    /// Checks that a packet is for a local address and from a possible sender (P0).
    ///
    /// The destination is checked first: packets to other hosts are ignored whatever their source.
    pub(crate) fn check(&self, source: IpAddr, destination: IpAddr) -> Result<(), DropReason> {
        if self.is_for_many(destination) || destination.is_unspecified() {
            return Err(DropReason::BadDestination);
        }
        let taken = self.is_local(destination) || self.any && self.is_unicast(destination);
        if !taken {
            return Err(DropReason::NotOurs);
        }
        if source == destination {
            return Err(DropReason::Land);
        }
        // Packets to the stack itself do not use the wire, and loopback addresses must not appear there (RFC 1122
        // §3.2.1.3 (g)).
        if destination.is_loopback() {
            return Err(DropReason::BadDestination);
        }
        self.check_source(source)
    }

    /// Checks that another host can have sent a packet.
    pub(crate) fn check_source(&self, source: IpAddr) -> Result<(), DropReason> {
        if !self.is_unicast(source) || source.is_loopback() || self.is_local(source) {
            return Err(DropReason::BadSource);
        }
        Ok(())
    }

    /// Returns whether packets to an address are for many: multicast, or a broadcast.
    pub(crate) fn is_for_many(&self, address: IpAddr) -> bool {
        is_for_many(address) || self.is_directed_broadcast(address)
    }

    /// Returns whether an outgoing packet is for a local address. False for a malformed packet.
    #[inline]
    pub(crate) fn loops(&mut self, packet: &[u8]) -> bool {
        let v4 = |header: &[u8; 20]| Ipv4Addr::from(*header.last_chunk().expect("four of twenty"));
        let v6 = |header: &[u8; 40]| Ipv6Addr::from(*header.last_chunk().expect("sixteen of forty"));
        let foreign = self.foreign;
        match (packet.first_chunk().map(v4), packet.first_chunk().map(v6)) {
            (Some(destination), _) if packet[0] >> 4 == 4 => {
                foreign.0 != Some(destination) && self.is_ours(destination.into())
            }
            (_, Some(destination)) => foreign.1 != Some(destination) && self.is_ours(destination.into()),
            _ => false,
        }
    }

    fn is_ours(&mut self, destination: IpAddr) -> bool {
        let ours = self.is_local(destination);
        match destination {
            IpAddr::V4(destination) if !ours => self.foreign.0 = Some(destination),
            IpAddr::V6(destination) if !ours => self.foreign.1 = Some(destination),
            _ => {}
        }
        ours
    }

    /// A fast path of [`check`](Addresses::check) for the usual packet, between two IPv4 hosts without loopback
    /// addresses. A result of false is inconclusive.
    #[inline]
    pub(crate) fn fit_v4(&mut self, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
        if self.fitting == Some((source, destination)) {
            return true;
        }
        let fit = self.are_plain(source, destination);
        if fit {
            self.fitting = Some((source, destination));
        }
        fit
    }

    /// From now on, packets to unicast addresses of others are taken in too.
    pub(crate) fn accept_any(&mut self) {
        self.any = true;
    }

    #[inline]
    pub(crate) fn accepts_any(&self) -> bool {
        self.any
    }

    fn are_plain(&self, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
        // Unicast by the first octet: below 224, not 0 and not 127.
        let plain = |address: Ipv4Addr| !matches!(address.to_bits() >> 24, 0 | 127 | 224..);
        plain(source)
            && plain(destination)
            && !self.is_local(source.into())
            && (self.is_local(destination.into()) || self.any && source != destination)
            && !self.is_broadcast(source)
            && !self.is_broadcast(destination)
    }

    /// Returns whether an address is local. An IPv4 loopback address makes its whole prefix local, usually 127.0.0.0/8.
    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        self.is_added(address)
            || matches!(address, IpAddr::V4(v4) if v4.is_loopback() && self.on_link(address, |_| true).is_some())
    }

    fn is_added(&self, address: IpAddr) -> bool {
        self.ours.binary_search(&number(address)).is_ok()
    }

    /// Returns whether a single host can have this address (MUST-46, MUST-63).
    pub(crate) fn is_unicast(&self, address: IpAddr) -> bool {
        let assignable = match address {
            // 0/8 is "this network" (RFC 1122 §3.2.1.3); 240/4 was never assigned (RFC 1112 §4).
            IpAddr::V4(v4) => v4.octets()[0] != 0 && v4.octets()[0] < 240,
            // On the wire, IPv6 addresses that embed an IPv4 address only serve to evade filters.
            IpAddr::V6(v6) => v6 == Ipv6Addr::LOCALHOST || !embeds_v4(v6),
        };
        assignable && !is_for_many(address) && !self.is_directed_broadcast(address)
    }

    /// Returns the source address for `destination` if the user names none (MUST-44). Packets leave by `interface`
    /// towards `next_hop`. Candidates are the addresses of the destination's scope.
    ///
    /// For IPv4 it is an address of that interface, as in Linux: the one whose network contains the next hop with the
    /// longest prefix, else the first. An interface without an address borrows one. For IPv6, RFC 6724 §5 decides.
    pub(crate) fn source_for(
        &mut self,
        destination: IpAddr,
        next_hop: IpAddr,
        interface: InterfaceId,
    ) -> Option<IpAddr> {
        let source = if self.is_added(destination) {
            Some(destination) // RFC 6724 §5, rule 1
        } else if destination.is_ipv4() {
            self.on_link(next_hop, |address| self.is_of(address, interface))
                .or_else(|| {
                    self.first_of(network(destination, ANY), |address| self.is_of(address, interface))
                })
                .or_else(|| self.first_of(network(destination, ANY), |_| true))
        } else {
            self.best_v6(destination, interface)
        };
        self.nearest = source.map(|source| (destination, source));
        source
    }

    /// Returns the result of the last search, if it was for this destination.
    pub(crate) fn last_source(&self, destination: IpAddr) -> Option<IpAddr> {
        self.nearest.filter(|(last, _)| *last == destination).map(|(_, source)| source)
    }

    /// Chooses by the rules of RFC 6724 §5 that apply. Rule 2 is the candidates' scope. No address is deprecated (3),
    /// a home address (4) or temporary (7), and no router advertised one (5.5): all are configured by hand.
    // 6724-1, 6724-2, 6724-3
    fn best_v6(&self, destination: IpAddr, interface: InterfaceId) -> Option<IpAddr> {
        let (all, label) = (network(destination, ANY), policy_of(destination).label);
        let candidates = self.networks.range((all, 0)..=(all, u64::MAX)).map(|(_, address)| *address);
        candidates.min_by_key(|address| {
            let len = self.len_of(*address).unwrap_or(0);
            Reverse((
                self.is_of(*address, interface),                          // rule 5
                policy_of(*address).label == label,                       // rule 6
                common_prefix(*address, destination).min(u32::from(len)), // rule 8
            ))
        })
    }

    /// Returns the prefix length of an address.
    pub(crate) fn len_of(&self, address: IpAddr) -> Option<u8> {
        self.all.iter().find(|ours| ours.address == address).map(|ours| ours.len)
    }

    fn is_of(&self, address: IpAddr, interface: InterfaceId) -> bool {
        self.interface_of(address) == Some(interface)
    }

    /// Returns the interface of an address.
    pub(crate) fn interface_of(&self, address: IpAddr) -> Option<InterfaceId> {
        self.ours.binary_search(&number(address)).ok().map(|at| self.owners[at])
    }

    /// Returns the local address on the smallest network that contains `destination`, of those that `fits` lets through.
    fn on_link(&self, destination: IpAddr, fits: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let scope = scope(destination);
        let mut lengths = self.lengths.range((scope, 0)..=(scope, 128)).rev().map(|((_, len), _)| *len);
        lengths.find_map(|len| self.first_of(network(destination, len), &fits))
    }

    fn first_of(&self, network: Network, fits: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let mut all = self.networks.range((network, 0)..=(network, u64::MAX)).map(|(_, address)| *address);
        all.find(|address| fits(*address))
    }

    /// Adds an address of an interface, or changes the prefix of a present one, which stays where it is.
    pub(crate) fn add(&mut self, address: IpAddr, prefix_len: u8, interface: InterfaceId) {
        let len = prefix_len.min(if address.is_ipv4() { 32 } else { 128 });
        let ours = Ours { address, len, order: self.added, interface };
        match self.all.iter().position(|ours| ours.address == address) {
            Some(at) => {
                let before = self.all[at];
                let ours = Ours { order: before.order, interface: before.interface, ..ours };
                self.unindex(&before);
                self.all[at] = ours;
                self.index(&ours);
            }
            None => {
                self.added += 1;
                self.all.push(ours);
                self.index(&ours);
            }
        }
    }

    /// Removes an address. Returns whether it was present.
    pub(crate) fn remove(&mut self, address: IpAddr) -> bool {
        let Some(at) = self.all.iter().position(|ours| ours.address == address) else { return false };
        let ours = self.all.remove(at);
        self.unindex(&ours);
        true
    }

    /// Iterates over the addresses of an interface in order of addition.
    pub(crate) fn of(&self, interface: InterfaceId) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
        let of_it = self.all.iter().filter(move |ours| ours.interface == interface);
        of_it.map(|ours| (ours.address, ours.len))
    }

    fn is_directed_broadcast(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if self.is_broadcast(v4))
    }

    fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        self.broadcasts.binary_search(&address.to_bits()).is_ok()
    }

    fn index(&mut self, ours: &Ours) {
        let at = self.ours.partition_point(|there| *there < number(ours.address));
        self.ours.insert(at, number(ours.address));
        self.owners.insert(at, ours.interface);
        ours.broadcast().into_iter().for_each(|broadcast| insert(&mut self.broadcasts, broadcast));
        for len in [ANY, ours.len] {
            self.networks.insert((network(ours.address, len), ours.order), ours.address);
        }
        *self.lengths.entry((scope(ours.address), ours.len)).or_default() += 1;
        self.forget();
    }

    /// Clears the cached results, which a change of addresses or routes invalidates.
    pub(crate) fn forget(&mut self) {
        (self.fitting, self.foreign, self.nearest) = (None, (None, None), None);
    }

    fn unindex(&mut self, ours: &Ours) {
        if let Ok(at) = self.ours.binary_search(&number(ours.address)) {
            self.ours.remove(at);
            self.owners.remove(at);
        }
        ours.broadcast().into_iter().for_each(|broadcast| remove(&mut self.broadcasts, &broadcast));
        for len in [ANY, ours.len] {
            self.networks.remove(&(network(ours.address, len), ours.order));
        }
        uncount(&mut self.lengths, &(scope(ours.address), ours.len));
        self.forget();
    }
}

impl Ours {
    /// /31 and /32 have no broadcast address (RFC 3021).
    fn broadcast(&self) -> Option<u32> {
        match self.address {
            IpAddr::V4(v4) if self.len <= 30 => Some(v4.to_bits() | u32::MAX >> self.len),
            _ => None,
        }
    }
}

fn number(address: IpAddr) -> u128 {
    mapped(&address).to_bits()
}

fn insert<T: Ord>(sorted: &mut Vec<T>, element: T) {
    let at = sorted.partition_point(|there| *there < element);
    sorted.insert(at, element);
}

fn remove<T: Ord>(sorted: &mut Vec<T>, element: &T) {
    if let Ok(at) = sorted.binary_search(element) {
        sorted.remove(at);
    }
}

/// Returns the network of `len` bits that contains the address, in its scope.
fn network(address: IpAddr, len: u8) -> Network {
    (scope(address), len, if len == ANY { 0 } else { prefix_of(address, len) })
}

fn scope(address: IpAddr) -> Scope {
    let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    (address.is_ipv4(), address.is_loopback(), is_link_local)
}

/// Multicast or limited broadcast.
fn is_for_many(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// `::/96`, which includes the unspecified address, and `::ffff:0:0/96`.
fn embeds_v4(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [0, 0, 0, 0, 0, 0 | 0xffff, _, _])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::prefix::prefix_covers;
    use proptest::prelude::*;

    impl Addresses {
        /// The source towards a neighbour on the first interface.
        fn source(&mut self, destination: IpAddr) -> Option<IpAddr> {
            self.source_for(destination, destination, InterfaceId::FIRST)
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ours() -> Addresses {
        let all =
            ["192.0.2.1/24", "10.1.2.3/30", "10.9.9.8/31", "172.16.5.5/32", "127.0.0.1/8", "198.18.0.9/15"];
        let v6 = ["2001:db8::1/64", "fe80::1/64", "::1/128"];
        Addresses::new(all.into_iter().chain(v6).map(|text| {
            let (address, len) = text.split_once('/').unwrap();
            (ip(address), len.parse().unwrap())
        }))
    }

    const BAD: Result<(), DropReason> = Err(DropReason::BadSource);
    const LAND: Result<(), DropReason> = Err(DropReason::Land);

    #[test]
    fn the_short_way_lets_through_only_what_the_whole_check_does() {
        let mut ours = ours();
        let all = [
            "192.0.2.1",
            "192.0.2.255",
            "192.0.2.7",
            "10.1.2.3",
            "127.0.0.1",
            "0.0.0.1",
            "224.0.0.1",
            "8.8.8.8",
        ];
        let mut through = 0;
        for (source, destination) in all.iter().flat_map(|a| all.iter().map(move |b| (ip(a), ip(b)))) {
            let (IpAddr::V4(a), IpAddr::V4(b)) = (source, destination) else { unreachable!() };
            if ours.fit_v4(a, b) {
                through += 1;
                assert_eq!(ours.check(source, destination), Ok(()), "{source} {destination}");
            }
        }
        assert!(through > 0);
    }

    #[test]
    fn what_was_let_through_is_not_once_the_address_is_gone_threat_83() {
        let mut ours = ours();
        let (source, destination) = (Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(192, 0, 2, 1));
        assert!(ours.fit_v4(source, destination));
        assert!(ours.remove(destination.into()));
        assert!(!ours.fit_v4(source, destination));
        ours.add(destination.into(), 24, InterfaceId::FIRST);
        assert!(ours.fit_v4(source, destination));
    }

    #[test]
    fn sources_that_nobody_can_have_are_dropped_and_their_neighbours_are_not_threat_63() {
        #[rustfmt::skip]
        let table = [
            ("0.0.0.0", BAD), ("0.0.0.1", BAD), ("0.255.255.255", BAD), ("1.0.0.0", Ok(())), ("1.0.0.1", Ok(())),
            ("126.255.255.254", Ok(())), ("127.0.0.0", BAD), ("127.0.0.1", BAD), ("127.255.255.254", BAD),
            ("128.0.0.1", Ok(())), ("10.0.0.1", Ok(())), ("100.64.0.1", Ok(())), ("169.254.1.1", Ok(())),
            ("172.16.5.5", BAD), ("192.168.0.1", Ok(())), ("192.0.2.1", LAND), ("192.0.2.254", Ok(())),
            ("192.0.2.255", BAD), ("192.0.3.255", Ok(())), ("192.0.1.255", Ok(())), ("10.1.2.2", Ok(())),
            ("10.1.2.3", BAD), ("10.1.2.7", Ok(())), ("10.9.9.8", BAD), ("10.9.9.9", Ok(())),
            ("198.18.255.255", Ok(())), ("198.19.255.255", BAD), ("198.19.255.254", Ok(())),
            ("223.255.255.254", Ok(())), ("224.0.0.0", BAD), ("224.0.0.1", BAD), ("239.255.255.255", BAD),
            ("240.0.0.0", BAD), ("240.0.0.1", BAD), ("255.255.255.254", BAD), ("255.255.255.255", BAD),
        ];
        for (source, expected) in table {
            assert_eq!(ours().check(ip(source), ip("192.0.2.1")), expected, "from {source}");
        }
        #[rustfmt::skip]
        let table = [
            ("::", BAD), ("::1", BAD), ("::2", BAD), ("::192.0.2.7", BAD), ("::ffff:ffff", BAD),
            ("::1:0:0", Ok(())), ("::ffff:0:0", BAD), ("::ffff:192.0.2.7", BAD), ("::ffff:ffff:ffff", BAD),
            ("::1:0:0:0", Ok(())), ("::fffe:192.0.2.7", Ok(())), ("64:ff9b::192.0.2.7", Ok(())),
            ("2001:db8::1", LAND), ("2001:db8::ffff", Ok(())), ("2002:c000:201::1", Ok(())),
            ("fc00::1", Ok(())), ("fe80::9", Ok(())), ("fec0::1", Ok(())),
            ("feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Ok(())), ("ff00::", BAD), ("ff02::1", BAD),
            ("ff0e::101", BAD), ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", BAD),
        ];
        for (source, expected) in table {
            assert_eq!(ours().check(ip(source), ip("2001:db8::1")), expected, "from {source}");
        }
    }

    #[test]
    fn neither_loopback_nor_what_is_ours_comes_from_the_wire_threat_39_threat_63() {
        for own in ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(ours().check(ip(own), ip(own)), LAND, "{own}");
        }
        assert_eq!(ours().check(ip("127.9.9.9"), ip("127.0.0.1")), Err(DropReason::BadDestination));
        assert_eq!(ours().check(ip("127.0.0.1"), ip("127.0.0.2")), Err(DropReason::BadDestination));
        assert_eq!(ours().check(ip("192.0.2.9"), ip("127.0.0.1")), Err(DropReason::BadDestination));
        assert_eq!(ours().check(ip("127.255.255.255"), ip("127.0.0.1")), Err(DropReason::BadDestination));
        assert_eq!(ours().check(ip("10.1.2.3"), ip("192.0.2.1")), BAD);
        assert_eq!(ours().check(ip("2001:db8::1"), ip("fe80::1")), BAD);
        let mut without = ours();
        assert!(without.remove(ip("127.0.0.1")) && without.remove(ip("::1")));
        assert_eq!(without.check(ip("127.0.0.1"), ip("127.0.0.1")), Err(DropReason::NotOurs));
        assert_eq!(without.check(ip("::1"), ip("::1")), Err(DropReason::NotOurs));
    }

    #[test]
    fn only_a_packet_to_an_address_of_ours_is_taken_threat_40_threat_63() {
        let (bad, not_ours) = (Err(DropReason::BadDestination), Err(DropReason::NotOurs));
        #[rustfmt::skip]
        let table = [
            ("192.0.2.1", Ok(())), ("192.0.2.2", not_ours), ("172.16.5.5", Ok(())), ("10.9.9.8", Ok(())),
            ("192.0.2.255", bad), ("192.0.3.255", not_ours), ("255.255.255.255", bad), ("0.0.0.0", bad),
            ("224.0.0.1", bad), ("239.1.2.3", bad), ("10.9.9.9", not_ours), ("198.19.255.255", bad),
            ("240.0.0.1", not_ours), ("127.0.0.2", bad),
        ];
        for (destination, expected) in table {
            assert_eq!(ours().check(ip("192.0.2.9"), ip(destination)), expected, "to {destination}");
            // The destination is checked first.
            let from_nobody = ours().check(ip("224.0.0.1"), ip(destination));
            assert_eq!(from_nobody, if expected.is_ok() { BAD } else { expected }, "to {destination}");
        }
        for (destination, expected) in [
            ("2001:db8::1", Ok(())),
            ("fe80::1", Ok(())),
            ("2001:db8::2", not_ours),
            ("::", bad),
            ("ff02::1", bad),
        ] {
            assert_eq!(ours().check(ip("2001:db8::9"), ip(destination)), expected, "to {destination}");
        }
    }

    #[test]
    fn a_connection_cannot_be_opened_to_many_must_46() {
        for good in ["192.0.2.9", "127.0.0.1", "::1", "fe80::2", "8.8.8.8", "2001:db8::2"] {
            assert!(ours().is_unicast(ip(good)), "{good}");
        }
        let bad = ["0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.255", "240.1.1.1", "::", "ff02::1"];
        for bad in bad.into_iter().chain(["::ffff:8.8.8.8", "::8.8.8.8"]) {
            assert!(!ours().is_unicast(ip(bad)), "{bad}");
        }
        assert!(Addresses::default().is_unicast(ip("192.0.2.255")), "a broadcast only where we are");
    }

    #[test]
    fn the_source_is_chosen_by_the_longest_prefix_of_the_right_scope_must_44() {
        let mut all = Addresses::new(
            [("127.0.0.1", 8), ("10.0.0.1", 8), ("10.1.0.1", 16), ("10.1.0.2", 16), ("::1", 128)]
                .map(|(address, len)| (ip(address), len)),
        );
        let v6 = [("fe80::1", 64), ("2001:db8::1", 32), ("2001:db8:7::1", 48), ("fe80::2", 10)];
        v6.into_iter().for_each(|(address, len)| all.add(ip(address), len, InterfaceId::FIRST));
        #[rustfmt::skip]
        let table = [
            ("10.2.0.9", "10.0.0.1"), ("10.1.0.9", "10.1.0.1"), ("8.8.8.8", "10.0.0.1"),
            ("10.1.0.2", "10.1.0.2"), ("127.0.0.9", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"),
            ("2001:db8:7::9", "2001:db8:7::1"), ("2001:db8:8::9", "2001:db8:7::1"), ("2a00::1", "2001:db8::1"),
            ("fe80::9", "fe80::1"), ("fe81::9", "fe80::1"), ("::1", "::1"),
        ];
        // RFC 6724 §5, rule 8, counts the bits in common up to the length of the source's prefix, also beyond its network.
        for (destination, source) in table {
            assert_eq!(all.source(ip(destination)), Some(ip(source)), "to {destination}");
        }
        let only = |address| Addresses::new([(ip(address), 64)]);
        assert_eq!(only("fe80::1").source(ip("2001:db8::9")), None);
        assert_eq!(only("2001:db8::1").source(ip("fe80::9")), None);
        assert_eq!(only("2001:db8::1").source(ip("8.8.8.8")), None);
        assert_eq!(only("127.0.0.1").source(ip("8.8.8.8")), None);
        assert_eq!(only("10.0.0.1").source(ip("2001:db8::9")), None);
        assert_eq!(Addresses::default().source(ip("8.8.8.8")), None);
    }

    /// Rules 1, 6 and 8 among the addresses of one interface.
    #[test]
    fn an_ipv6_source_is_chosen_by_rfc_6724_6724_1_6724_2_6724_3() {
        let addresses =
            ["2001:db8::1/64", "2001:db8:8000::1/64", "fd00::1/64", "2002:c000:201::1/48", "2001:0:1::1/32"];
        let mut all = Addresses::new(addresses.map(|text| {
            let (address, len) = text.split_once('/').unwrap();
            (ip(address), len.parse().unwrap())
        }));
        #[rustfmt::skip]
        let table = [
            // 1: itself.
            ("2001:db8:8000::1", "2001:db8:8000::1"),
            // 6: the label of the destination, though another address has more bits in common.
            ("fd77::9", "fd00::1"), ("2002:c633::9", "2002:c000:201::1"), ("2001:0:99::9", "2001:0:1::1"),
            ("2001:1::9", "2001:db8::1"), ("fc00::9", "fd00::1"),
            // 8: the longest prefix in common.
            ("2001:db8:7fff::9", "2001:db8::1"), ("2001:db8:8001::9", "2001:db8:8000::1"),
            // None is better: the first.
            ("2a00::9", "2001:db8::1"),
        ];
        for (destination, source) in table {
            assert_eq!(all.source(ip(destination)), Some(ip(source)), "to {destination}");
        }
    }

    proptest! {
        /// A search through all of them is the oracle.
        #[test]
        fn the_indexes_say_what_a_search_through_all_would(
            steps in proptest::collection::vec((any::<bool>(), 0usize..8, 0u8..40), 0..40),
        ) {
            let known = ["10.0.0.1", "10.0.0.2", "10.128.0.1", "192.0.2.1", "127.0.0.1", "fe80::1", "2001:db8::1"];
            let known = known.map(ip).into_iter().chain([ip("2001:db8:7::1")]).collect::<Vec<_>>();
            let others = ["10.0.0.9", "10.127.255.255", "192.0.2.255", "127.0.0.9", "fe80::9", "2001:db8:7::9"];
            let (mut all, mut oracle) = (Addresses::default(), Vec::<(IpAddr, u8)>::new());
            for (add, which, len) in steps {
                let address = known[which];
                if add {
                    all.add(address, len, InterfaceId::FIRST);
                    let len = len.min(if address.is_ipv4() { 32 } else { 128 });
                    match oracle.iter_mut().find(|(there, _)| *there == address) {
                        Some(there) => there.1 = len,
                        None => oracle.push((address, len)),
                    }
                } else {
                    let there = oracle.iter().position(|(there, _)| *there == address);
                    prop_assert_eq!(all.remove(address), there.map(|at| oracle.remove(at)).is_some());
                }
                prop_assert_eq!(all.of(InterfaceId::FIRST).collect::<Vec<_>>(), oracle.clone());
                // The last address comes first again after the next change.
                for address in known.iter().copied().chain(others.map(ip)).chain([known[0]]) {
                    let is_ours = oracle.iter().any(|(there, _)| *there == address);
                    // A loopback address makes its whole network local.
                    let loops = |(there, len): &(IpAddr, u8)| {
                        there.is_ipv4() && there.is_loopback() && address.is_loopback()
                            && prefix_covers(*there, *len, address)
                    };
                    prop_assert_eq!(all.is_local(address), is_ours || oracle.iter().any(loops));
                    let in_scope = || oracle.iter().filter(|(there, _)| scope(*there) == scope(address));
                    let on_link = in_scope().filter(|(there, len)| prefix_covers(*there, *len, address));
                    let nearest = on_link.min_by_key(|(_, len)| std::cmp::Reverse(*len));
                    let source = nearest.or_else(|| in_scope().next()).map(|(there, _)| *there);
                    prop_assert_eq!(all.source(address), if is_ours { Some(address) } else { source });
                    let ends = |(there, len): &(IpAddr, u8)| match (there, address) {
                        (IpAddr::V4(there), IpAddr::V4(address)) if *len <= 30 => {
                            there.to_bits() | u32::MAX >> len == address.to_bits()
                        }
                        _ => false,
                    };
                    prop_assert_eq!(all.is_directed_broadcast(address), oracle.iter().any(ends));
                }
            }
        }
    }

    #[test]
    fn addresses_come_and_go() {
        let mut all = Addresses::default();
        all.add(ip("192.0.2.1"), 24, InterfaceId::FIRST);
        all.add(ip("192.0.2.2"), 200, InterfaceId::FIRST);
        all.add(ip("192.0.2.1"), 25, InterfaceId::FIRST);
        assert_eq!(
            all.of(InterfaceId::FIRST).collect::<Vec<_>>(),
            [(ip("192.0.2.1"), 25), (ip("192.0.2.2"), 32)]
        );
        assert!(!all.is_unicast(ip("192.0.2.127")));
        assert!(all.remove(ip("192.0.2.1")));
        assert!(!all.remove(ip("192.0.2.1")));
        assert!(!all.is_local(ip("192.0.2.1")) && all.is_local(ip("192.0.2.2")));
        assert!(all.is_unicast(ip("192.0.2.127")));
    }
}

//! The local addresses, and those that no host can have (RFC 9293 §3.9.1.1, §3.9.2.3).
// P0, MUST-44, MUST-46, MUST-57, MUST-63, THREAT-40, THREAT-63

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::counters::DropReason;
use crate::tuple::mapped;

/// The addresses of the interface with their prefix lengths. A packet and a connect cost a search or two, however many
/// addresses there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    /// In order of addition.
    all: Vec<Ours>,
    /// All addresses as numbers, ascending. IPv4 addresses are IPv4-mapped.
    ours: Vec<u128>,
    /// The directed broadcast addresses of the local networks, ascending, one for each address: every packet is
    /// compared with them.
    broadcasts: Vec<u32>,
    /// Addresses by network and order of addition. Each is listed under its own network and under that of its scope.
    networks: BTreeMap<(Network, u64), IpAddr>,
    /// Number of addresses of each scope and prefix length.
    lengths: BTreeMap<(Scope, u8), usize>,
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
}

/// A class of addresses that can reach each other. A loopback address does not leave the host, and an IPv6 link-local
/// address does not leave the link (RFC 4291 §2.5.6).
type Scope = (bool, bool, bool);

/// A scope, a prefix length, and the prefix itself, padded with zeros.
type Network = (Scope, u8, u128);

/// Stands for the prefix length in the network of all addresses of a scope.
const ANY: u8 = u8::MAX;

impl Addresses {
    pub(crate) fn new(addresses: impl IntoIterator<Item = (IpAddr, u8)>) -> Addresses {
        let mut all = Addresses::default();
        addresses.into_iter().for_each(|(address, prefix_len)| all.add(address, prefix_len));
        all
    }

    /// Checks that a packet is for a local address and from a possible sender (P0).
    ///
    /// The destination is checked first: packets to other hosts are ignored whatever their source.
    pub(crate) fn check(&self, source: IpAddr, destination: IpAddr) -> Result<(), DropReason> {
        if is_for_many(destination) || destination.is_unspecified() || self.is_directed_broadcast(destination)
        {
            return Err(DropReason::BadDestination);
        }
        if !self.is_local(destination) && !(self.any && self.is_unicast(destination)) {
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
        if !self.is_unicast(source) || source.is_loopback() || self.is_local(source) {
            return Err(DropReason::BadSource);
        }
        Ok(())
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
            || matches!(address, IpAddr::V4(v4) if v4.is_loopback() && self.on_link(address).is_some())
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

    /// Returns the source address for `destination` if the user names none (MUST-44). Candidates are the addresses of
    /// the destination's scope: the one whose network contains it with the longest prefix, else the first.
    pub(crate) fn source_for(&mut self, destination: IpAddr) -> Option<IpAddr> {
        if let Some((last, source)) = self.nearest
            && last == destination
        {
            return Some(source);
        }
        let source = if self.is_added(destination) {
            Some(destination) // RFC 6724 §5, rule 1
        } else {
            self.on_link(destination).or_else(|| self.first_of(network(destination, ANY)))
        };
        self.nearest = source.map(|source| (destination, source));
        source
    }

    /// Returns the local address on the smallest network that contains `destination`.
    fn on_link(&self, destination: IpAddr) -> Option<IpAddr> {
        let scope = scope(destination);
        let mut lengths = self.lengths.range((scope, 0)..=(scope, 128)).rev().map(|((_, len), _)| *len);
        lengths.find_map(|len| self.first_of(network(destination, len)))
    }

    fn first_of(&self, network: Network) -> Option<IpAddr> {
        self.networks.range((network, 0)..=(network, u64::MAX)).next().map(|(_, first)| *first)
    }

    /// Adds an address, or changes the prefix of a present one.
    pub(crate) fn add(&mut self, address: IpAddr, prefix_len: u8) {
        let len = prefix_len.min(if address.is_ipv4() { 32 } else { 128 });
        let ours = Ours { address, len, order: self.added };
        match self.all.iter().position(|ours| ours.address == address) {
            Some(at) => {
                let before = self.all[at];
                self.unindex(&before);
                self.all[at] = Ours { order: before.order, ..ours };
                self.index(&Ours { order: before.order, ..ours });
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

    /// Iterates in order of addition.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
        self.all.iter().map(|ours| (ours.address, ours.len))
    }

    fn is_directed_broadcast(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if self.is_broadcast(v4))
    }

    fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        self.broadcasts.binary_search(&address.to_bits()).is_ok()
    }

    fn index(&mut self, ours: &Ours) {
        insert(&mut self.ours, number(ours.address));
        ours.broadcast().into_iter().for_each(|broadcast| insert(&mut self.broadcasts, broadcast));
        for len in [ANY, ours.len] {
            self.networks.insert((network(ours.address, len), ours.order), ours.address);
        }
        *self.lengths.entry((scope(ours.address), ours.len)).or_default() += 1;
        self.forget();
    }

    /// Clears the cached results, which a change of addresses invalidates.
    fn forget(&mut self) {
        (self.fitting, self.foreign, self.nearest) = (None, (None, None), None);
    }

    fn unindex(&mut self, ours: &Ours) {
        remove(&mut self.ours, &number(ours.address));
        ours.broadcast().into_iter().for_each(|broadcast| remove(&mut self.broadcasts, &broadcast));
        for len in [ANY, ours.len] {
            self.networks.remove(&(network(ours.address, len), ours.order));
        }
        if let Entry::Occupied(mut count) = self.lengths.entry((scope(ours.address), ours.len)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
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
    let bits = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let shift = 128u32.checked_sub(u32::from(len));
    let mask = shift.and_then(|shift| u128::MAX.checked_shl(shift)).unwrap_or(0);
    (scope(address), len, bits & mask)
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
        ours.add(destination.into(), 24);
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
        v6.into_iter().for_each(|(address, len)| all.add(ip(address), len));
        #[rustfmt::skip]
        let table = [
            ("10.2.0.9", "10.0.0.1"), ("10.1.0.9", "10.1.0.1"), ("8.8.8.8", "10.0.0.1"),
            ("10.1.0.2", "10.1.0.2"), ("127.0.0.9", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"),
            ("2001:db8:7::9", "2001:db8:7::1"), ("2001:db8:8::9", "2001:db8::1"), ("2a00::1", "2001:db8::1"),
            ("fe80::9", "fe80::1"), ("fe81::9", "fe80::2"), ("::1", "::1"),
        ];
        for (destination, source) in table {
            assert_eq!(all.source_for(ip(destination)), Some(ip(source)), "to {destination}");
        }
        let only = |address| Addresses::new([(ip(address), 64)]);
        assert_eq!(only("fe80::1").source_for(ip("2001:db8::9")), None);
        assert_eq!(only("2001:db8::1").source_for(ip("fe80::9")), None);
        assert_eq!(only("2001:db8::1").source_for(ip("8.8.8.8")), None);
        assert_eq!(only("127.0.0.1").source_for(ip("8.8.8.8")), None);
        assert_eq!(only("10.0.0.1").source_for(ip("2001:db8::9")), None);
        assert_eq!(Addresses::default().source_for(ip("8.8.8.8")), None);
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
                    all.add(address, len);
                    let len = len.min(if address.is_ipv4() { 32 } else { 128 });
                    match oracle.iter_mut().find(|(there, _)| *there == address) {
                        Some(there) => there.1 = len,
                        None => oracle.push((address, len)),
                    }
                } else {
                    let there = oracle.iter().position(|(there, _)| *there == address);
                    prop_assert_eq!(all.remove(address), there.map(|at| oracle.remove(at)).is_some());
                }
                prop_assert_eq!(all.iter().collect::<Vec<_>>(), oracle.clone());
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
                    prop_assert_eq!(all.source_for(address), if is_ours { Some(address) } else { source });
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
        all.add(ip("192.0.2.1"), 24);
        all.add(ip("192.0.2.2"), 200);
        all.add(ip("192.0.2.1"), 25);
        assert_eq!(all.iter().collect::<Vec<_>>(), [(ip("192.0.2.1"), 25), (ip("192.0.2.2"), 32)]);
        assert!(!all.is_unicast(ip("192.0.2.127")));
        assert!(all.remove(ip("192.0.2.1")));
        assert!(!all.remove(ip("192.0.2.1")));
        assert!(!all.is_local(ip("192.0.2.1")) && all.is_local(ip("192.0.2.2")));
        assert!(all.is_unicast(ip("192.0.2.127")));
    }
}

//! Which addresses are ours, and which ones nobody can have (P0, MUST-44, MUST-46, MUST-57, MUST-63; T-40, T-63).

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::prefix_covers;
use crate::counters::DropReason;

/// The addresses of our interface, each with the length of its prefix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    all: Vec<(IpAddr, u8)>,
    /// The directed broadcast addresses of our networks: every packet is held against them.
    broadcasts: Vec<Ipv4Addr>,
    /// The ends of the last packet that [`fit_v4`](Addresses::fit_v4) let through: those of the next one, mostly.
    fitting: Option<(Ipv4Addr, Ipv4Addr)>,
}

impl Addresses {
    pub(crate) fn new(addresses: impl IntoIterator<Item = (IpAddr, u8)>) -> Addresses {
        let mut all = Addresses::default();
        addresses.into_iter().for_each(|(address, prefix_len)| all.add(address, prefix_len));
        all
    }

    /// Whether a packet between these two is for us and from someone who can exist (P0).
    ///
    /// The destination comes first: who sends to others is none of our business.
    pub(crate) fn check(&self, source: IpAddr, destination: IpAddr) -> Result<(), DropReason> {
        if is_for_many(destination) || destination.is_unspecified() || self.is_directed_broadcast(destination)
        {
            return Err(DropReason::BadDestination);
        }
        if !self.is_local(destination) {
            return Err(DropReason::NotOurs);
        }
        if !self.is_unicast(source) || source.is_loopback() && !destination.is_loopback() {
            return Err(DropReason::BadSource);
        }
        Ok(())
    }

    /// As [`check`](Addresses::check), for what nearly every packet is: between two IPv4 hosts, neither of them a
    /// loopback address. `false` says nothing.
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

    fn are_plain(&self, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
        // Unicast by their first octet: below 224, not 0 and not 127.
        let plain = |address: Ipv4Addr| !matches!(address.to_bits() >> 24, 0 | 127 | 224..);
        let broadcast = |address| self.broadcasts.contains(&address);
        plain(source)
            && plain(destination)
            && self.all.iter().any(|(ours, _)| matches!(ours, IpAddr::V4(ours) if *ours == destination))
            && !broadcast(source)
            && !broadcast(destination)
    }

    /// Whether it is one of ours. Of 127.0.0.0/8, only what was added is.
    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        self.all.iter().any(|(ours, _)| *ours == address)
    }

    /// Whether a single host can have this address (MUST-46, MUST-63).
    pub(crate) fn is_unicast(&self, address: IpAddr) -> bool {
        let assignable = match address {
            // 0/8 is "this network" (RFC 1122 §3.2.1.3); 240/4 was never assigned (RFC 1112 §4).
            IpAddr::V4(v4) => v4.octets()[0] != 0 && v4.octets()[0] < 240,
            // On the wire those that embed an IPv4 address only serve to get around filters.
            IpAddr::V6(v6) => v6 == Ipv6Addr::LOCALHOST || !embeds_v4(v6),
        };
        assignable && !is_for_many(address) && !self.is_directed_broadcast(address)
    }

    /// The address from which to reach `destination` where the user names none (MUST-44): of those that can be
    /// heard there, the one with the longest prefix in common with the network it is on, else the first.
    pub(crate) fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        if self.is_local(destination) {
            return Some(destination); // RFC 6724 §5, rule 1
        }
        let fit = || self.all.iter().filter(|(ours, _)| same_scope(*ours, destination));
        let on_link = fit().filter(|(ours, len)| prefix_covers(*ours, *len, destination));
        let nearest = on_link.min_by_key(|(_, len)| Reverse(*len));
        nearest.or_else(|| fit().next()).map(|(ours, _)| *ours)
    }

    /// Adds an address, or changes the prefix of one that is there.
    pub(crate) fn add(&mut self, address: IpAddr, prefix_len: u8) {
        let prefix_len = prefix_len.min(if address.is_ipv4() { 32 } else { 128 });
        match self.all.iter_mut().find(|(ours, _)| *ours == address) {
            Some(entry) => entry.1 = prefix_len,
            None => self.all.push((address, prefix_len)),
        }
        self.find_broadcasts();
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, address: IpAddr) -> bool {
        let before = self.all.len();
        self.all.retain(|(ours, _)| *ours != address);
        self.find_broadcasts();
        self.all.len() < before
    }

    /// In the order in which they were added.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
        self.all.iter().copied()
    }

    fn is_directed_broadcast(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if self.broadcasts.contains(&v4))
    }

    fn find_broadcasts(&mut self) {
        let broadcast = |(ours, len): &(IpAddr, u8)| match ours {
            // /31 and /32 have no broadcast address (RFC 3021).
            IpAddr::V4(v4) if *len <= 30 => Some(Ipv4Addr::from_bits(v4.to_bits() | u32::MAX >> len)),
            _ => None,
        };
        self.broadcasts = self.all.iter().filter_map(broadcast).collect();
        self.fitting = None;
    }
}

/// Multicast, or the broadcast that every network knows.
fn is_for_many(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// `::/96` (which holds the unspecified address) and `::ffff:0:0/96`.
fn embeds_v4(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [0, 0, 0, 0, 0, 0 | 0xffff, _, _])
}

/// Whether a packet from `ours` can reach `destination` and be answered: a loopback address does not leave the
/// host, an IPv6 link-local one does not leave the link (RFC 4291 §2.5.6).
fn same_scope(ours: IpAddr, destination: IpAddr) -> bool {
    let is_link_local = |address| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    ours.is_ipv4() == destination.is_ipv4()
        && ours.is_loopback() == destination.is_loopback()
        && is_link_local(ours) == is_link_local(destination)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_was_let_through_is_not_once_the_address_is_gone_t_83() {
        let mut ours = ours();
        let (source, destination) = (Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(192, 0, 2, 1));
        assert!(ours.fit_v4(source, destination));
        assert!(ours.remove(destination.into()));
        assert!(!ours.fit_v4(source, destination));
        ours.add(destination.into(), 24);
        assert!(ours.fit_v4(source, destination));
    }

    #[test]
    fn sources_that_nobody_can_have_are_dropped_and_their_neighbours_are_not_t_63() {
        #[rustfmt::skip]
        let table = [
            ("0.0.0.0", BAD), ("0.0.0.1", BAD), ("0.255.255.255", BAD), ("1.0.0.0", Ok(())), ("1.0.0.1", Ok(())),
            ("126.255.255.254", Ok(())), ("127.0.0.0", BAD), ("127.0.0.1", BAD), ("127.255.255.254", BAD),
            ("128.0.0.1", Ok(())), ("10.0.0.1", Ok(())), ("100.64.0.1", Ok(())), ("169.254.1.1", Ok(())),
            ("172.16.5.5", Ok(())), ("192.168.0.1", Ok(())), ("192.0.2.1", Ok(())), ("192.0.2.254", Ok(())),
            ("192.0.2.255", BAD), ("192.0.3.255", Ok(())), ("192.0.1.255", Ok(())), ("10.1.2.2", Ok(())),
            ("10.1.2.3", BAD), ("10.1.2.7", Ok(())), ("10.9.9.8", Ok(())), ("10.9.9.9", Ok(())),
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
            ("2001:db8::1", Ok(())), ("2001:db8::ffff", Ok(())), ("2002:c000:201::1", Ok(())),
            ("fc00::1", Ok(())), ("fe80::9", Ok(())), ("fec0::1", Ok(())),
            ("feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Ok(())), ("ff00::", BAD), ("ff02::1", BAD),
            ("ff0e::101", BAD), ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", BAD),
        ];
        for (source, expected) in table {
            assert_eq!(ours().check(ip(source), ip("2001:db8::1")), expected, "from {source}");
        }
    }

    #[test]
    fn loopback_talks_to_loopback_only_t_63() {
        assert_eq!(ours().check(ip("127.0.0.1"), ip("127.0.0.1")), Ok(()));
        assert_eq!(ours().check(ip("127.9.9.9"), ip("127.0.0.1")), Ok(()));
        assert_eq!(ours().check(ip("::1"), ip("::1")), Ok(()));
        assert_eq!(ours().check(ip("127.0.0.1"), ip("127.0.0.2")), Err(DropReason::NotOurs));
        assert_eq!(ours().check(ip("127.255.255.255"), ip("127.0.0.1")), BAD);
        let mut without = ours();
        assert!(without.remove(ip("127.0.0.1")) && without.remove(ip("::1")));
        assert_eq!(without.check(ip("127.0.0.1"), ip("127.0.0.1")), Err(DropReason::NotOurs));
        assert_eq!(without.check(ip("::1"), ip("::1")), Err(DropReason::NotOurs));
    }

    #[test]
    fn only_a_packet_to_an_address_of_ours_is_taken_t_40_t_63() {
        let (bad, not_ours) = (Err(DropReason::BadDestination), Err(DropReason::NotOurs));
        #[rustfmt::skip]
        let table = [
            ("192.0.2.1", Ok(())), ("192.0.2.2", not_ours), ("172.16.5.5", Ok(())), ("10.9.9.8", Ok(())),
            ("192.0.2.255", bad), ("192.0.3.255", not_ours), ("255.255.255.255", bad), ("0.0.0.0", bad),
            ("224.0.0.1", bad), ("239.1.2.3", bad), ("10.9.9.9", not_ours), ("198.19.255.255", bad),
            ("240.0.0.1", not_ours), ("127.0.0.2", not_ours),
        ];
        for (destination, expected) in table {
            assert_eq!(ours().check(ip("192.0.2.9"), ip(destination)), expected, "to {destination}");
            // The destination is looked at first.
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

//! The network of the guests, and the addresses in it that have a meaning.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// The network that guests see: its prefix, the gateway, the name server and the first guest.
///
/// By default it is 10.0.2.0/24 with the gateway 10.0.2.2, the name server 10.0.2.3, the address 10.0.2.4 for the
/// loopback address of the machine, and the guest 10.0.2.15. The IPv6 network has the same host numbers. It is copied
/// from no interface of the machine, so that it stays when these come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subnet {
    /// The IPv4 network.
    pub v4: Ipv4Addr,
    /// The IPv6 network, a /64. `None`: guests have no IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Default for Subnet {
    fn default() -> Subnet {
        Subnet { v4: Ipv4Addr::new(10, 0, 2, 0), v6: None }
    }
}

impl Subnet {
    /// Prefix length of the IPv4 network.
    pub const V4_LEN: u8 = 24;
    /// Prefix length of the IPv6 network.
    pub const V6_LEN: u8 = 64;
    /// The IPv6 network where there is one: a unique local one (RFC 4193).
    pub const V6: Ipv6Addr = Ipv6Addr::new(0xfd73, 0x7465, 0x6164, 0, 0, 0, 0, 0);

    const GATEWAY: u8 = 2;
    const DNS: u8 = 3;
    const LOCALHOST: u8 = 4;
    const GUEST: u8 = 15;

    /// The default, with IPv6.
    pub fn with_v6() -> Subnet {
        Subnet { v6: Some(Subnet::V6), ..Subnet::default() }
    }

    fn v4_host(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.v4.to_bits() & !0xff | u32::from(number))
    }

    fn hosts(&self, number: u8) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = self.v6.map(|network| {
            // The number is read as decimal digits in either family.
            let digits = u128::from(u16::from(number) / 10 * 16 + u16::from(number) % 10);
            IpAddr::V6(Ipv6Addr::from_bits(network.to_bits() & !u128::from(u64::MAX) | digits))
        });
        std::iter::once(IpAddr::V4(self.v4_host(number))).chain(v6)
    }

    /// The addresses of the gateway.
    pub fn gateway(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.hosts(Subnet::GATEWAY)
    }

    /// The addresses of the name server.
    pub fn dns(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.hosts(Subnet::DNS)
    }

    /// The addresses that stand for the loopback addresses of the machine.
    pub fn localhost(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.hosts(Subnet::LOCALHOST)
    }

    /// The addresses of the first guest.
    pub fn guest(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.hosts(Subnet::GUEST)
    }

    /// The IPv4 addresses for guests, as numbers.
    pub(crate) fn leases(&self) -> RangeInclusive<u32> {
        self.v4_host(Subnet::GUEST).to_bits()..=self.v4_host(254).to_bits()
    }

    /// The prefix length of an address of this network.
    pub fn prefix_len(address: IpAddr) -> u8 {
        if address.is_ipv4() { Subnet::V4_LEN } else { Subnet::V6_LEN }
    }

    /// Returns whether an address is in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.to_bits() >> 8 == self.v4.to_bits() >> 8,
            IpAddr::V6(address) => self.v6.is_some_and(|v6| address.to_bits() >> 64 == v6.to_bits() >> 64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_have_the_same_host_numbers() {
        let subnet = Subnet::with_v6();
        let text = |hosts: &mut dyn Iterator<Item = IpAddr>| {
            hosts.map(|host| host.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text(&mut subnet.gateway()), "10.0.2.2 fd73:7465:6164::2");
        assert_eq!(text(&mut subnet.guest()), "10.0.2.15 fd73:7465:6164::15");
        assert!(subnet.guest().chain(subnet.dns()).all(|host| subnet.contains(host)));
        assert!(
            !subnet.contains("10.0.3.15".parse().unwrap()) && !subnet.contains("fd00::15".parse().unwrap())
        );
    }
}

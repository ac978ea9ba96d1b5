//! Who a local address and port belongs to: a listener, or a UDP socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::tuple::mapped;

/// The local ends of the sockets of one protocol, sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct Bindings(Vec<Binding>);

#[derive(Clone, Copy, Debug)]
struct Binding {
    key: (u16, u128),
    index: u32,
    /// It is on `[::]`, and takes IPv4 too.
    both: bool,
}

impl Bindings {
    /// Returns who has a local address and port: one bound to that address, else one bound to all addresses of its
    /// family, else one bound to all addresses of both.
    pub(super) fn at(&self, address: IpAddr, port: u16) -> Option<u32> {
        let all_v6 = || self.find(Ipv6Addr::UNSPECIFIED.into(), port).ok();
        let all = || match address {
            IpAddr::V4(_) => {
                let all_v4 = self.find(Ipv4Addr::UNSPECIFIED.into(), port).ok();
                all_v4.or_else(|| all_v6().filter(|place| self.0[*place].both))
            }
            IpAddr::V6(_) => all_v6(),
        };
        self.find(address, port).ok().or_else(all).map(|place| self.0[place].index)
    }

    /// Returns all that are bound to an address or stand for it: to itself, to all addresses of its family, and to all
    /// addresses of both.
    pub(super) fn all_at(&self, address: IpAddr, port: u16) -> [Option<u32>; 3] {
        let all_v4 = match address {
            IpAddr::V4(_) => self.find(Ipv4Addr::UNSPECIFIED.into(), port).ok(),
            IpAddr::V6(_) => None,
        };
        let all_v6 = self.find(Ipv6Addr::UNSPECIFIED.into(), port).ok();
        let all_v6 = all_v6.filter(|place| address.is_ipv6() || self.0[*place].both);
        [self.find(address, port).ok(), all_v4, all_v6].map(|place| place.map(|place| self.0[place].index))
    }

    /// Returns whether a socket at `local` would have the binding of another one, or share its peers. A wildcard socket
    /// stands for its family, and one on `[::]` for both unless it is IPv6-only.
    pub(super) fn is_taken(&self, local: SocketAddr, only_v6: bool) -> bool {
        let shares = || match local.ip() {
            IpAddr::V4(v4) if v4.is_unspecified() => {
                let all_v6 = self.find(Ipv6Addr::UNSPECIFIED.into(), local.port());
                all_v6.is_ok_and(|place| self.0[place].both)
            }
            IpAddr::V6(v6) if v6.is_unspecified() && !only_v6 => {
                self.find(Ipv4Addr::UNSPECIFIED.into(), local.port()).is_ok()
            }
            _ => false,
        };
        self.find(local.ip(), local.port()).is_ok() || shares()
    }

    /// Adds a binding that is not taken.
    pub(super) fn insert(&mut self, local: SocketAddr, only_v6: bool, index: u32) {
        let both = local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !only_v6;
        let Err(place) = self.find(local.ip(), local.port()) else { return };
        self.0.insert(place, Binding { key: key(local.ip(), local.port()), index, both });
    }

    pub(super) fn remove(&mut self, local: SocketAddr) {
        if let Ok(place) = self.find(local.ip(), local.port()) {
            self.0.remove(place);
        }
    }

    /// Returns the place of exactly this binding, or else the place at which it would be inserted.
    fn find(&self, address: IpAddr, port: u16) -> Result<usize, usize> {
        let wanted = key(address, port);
        self.0.binary_search_by_key(&wanted, |binding| binding.key)
    }
}

/// The key of a local end. It is made of numbers, which compare faster than addresses. The unspecified address of a
/// family stands for the whole family.
fn key(address: IpAddr, port: u16) -> (u16, u128) {
    (port, mapped(&address).to_bits())
}

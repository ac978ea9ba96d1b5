//! Which listener a local address and port belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Stack;
use crate::tuple::mapped;

impl Stack {
    /// Returns the listener for a local address and port: one bound to that address, else one bound to all addresses of
    /// its family, else one bound to all addresses of both.
    pub(super) fn listener_at(&self, address: IpAddr, port: u16) -> Option<u32> {
        let all_v6 = || self.bound(Ipv6Addr::UNSPECIFIED.into(), port);
        let all = || match address {
            IpAddr::V4(_) => {
                let all_v4 = self.bound(Ipv4Addr::UNSPECIFIED.into(), port);
                all_v4.or_else(|_| all_v6()).ok().filter(|index| self.listeners[*index].takes_v4())
            }
            IpAddr::V6(_) => all_v6().ok(),
        };
        self.bound(address, port).ok().or_else(all)
    }

    /// Returns whether a wildcard listener would share clients with another one. There is one for each family, and one
    /// on `[::]` accepts both unless it is IPv6-only.
    pub(super) fn shares_clients(&self, local: SocketAddr, only_v6: bool) -> bool {
        match local.ip() {
            IpAddr::V4(v4) if v4.is_unspecified() => {
                let all_v6 = self.bound(Ipv6Addr::UNSPECIFIED.into(), local.port());
                all_v6.is_ok_and(|index| self.listeners[index].takes_v4())
            }
            IpAddr::V6(v6) if v6.is_unspecified() && !only_v6 => {
                self.bound(Ipv4Addr::UNSPECIFIED.into(), local.port()).is_ok()
            }
            _ => false,
        }
    }

    /// Returns the listener with exactly this binding, or else the index among the bindings at which it would be
    /// inserted.
    pub(super) fn bound(&self, address: IpAddr, port: u16) -> Result<u32, usize> {
        self.binding_of(address, port).map(|place| self.bindings[place].1)
    }

    /// Returns the index of exactly this binding, or else the index at which it would be inserted.
    pub(super) fn binding_of(&self, address: IpAddr, port: u16) -> Result<usize, usize> {
        let wanted = binding(address, port);
        self.bindings.binary_search_by_key(&wanted, |(bound, _)| *bound)
    }
}

/// The key of a listener's local end. It is made of numbers, which compare faster than addresses. The unspecified
/// address of a family stands for the whole family.
pub(super) fn binding(address: IpAddr, port: u16) -> (u16, u128) {
    (port, mapped(&address).to_bits())
}

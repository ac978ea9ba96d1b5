//! From a 4-tuple to what lives there: one keyed-hash probe for every segment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hashbrown::HashTable;

use crate::keys::Keys;
use crate::wire::PROTOCOL_TCP;
use crate::wire::checksum::Sum;

/// Both ends of a connection. IPv4 addresses are held as IPv4-mapped IPv6 ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FourTuple {
    pub(crate) local_address: Ipv6Addr,
    pub(crate) remote_address: Ipv6Addr,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
}

impl FourTuple {
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr) -> FourTuple {
        FourTuple::of(&local.ip(), local.port(), &remote.ip(), remote.port())
    }

    #[inline]
    pub(crate) fn of(local: &IpAddr, local_port: u16, remote: &IpAddr, remote_port: u16) -> FourTuple {
        FourTuple { local_address: mapped(local), remote_address: mapped(remote), local_port, remote_port }
    }

    /// Between two IPv4 hosts, with ports 0.
    #[inline]
    pub(crate) fn between_v4(local: Ipv4Addr, remote: Ipv4Addr) -> FourTuple {
        let (local, remote) = (local.into(), remote.into());
        FourTuple::of(&local, 0, &remote, 0)
    }

    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::new(self.local_address.to_canonical(), self.local_port)
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.remote_address.to_canonical(), self.remote_port)
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        unmapped(self.local_address).is_some()
    }

    /// Both addresses, where they are IPv4 ones: local and remote.
    #[inline]
    pub(crate) fn ipv4(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        Some((unmapped(self.local_address)?, unmapped(self.remote_address)?))
    }

    /// Both ends are one (T-02).
    pub(crate) fn is_land(&self) -> bool {
        self.local_port == self.remote_port && self.local_address == self.remote_address
    }

    /// The pseudo-header's sum for a segment of `length` bytes. An IPv4-mapped address has the sum of the IPv4 one:
    /// 0xffff counts as nothing.
    #[inline]
    pub(crate) fn pseudo_header(&self, length: u32) -> Sum {
        let mut sum = Sum::new();
        for address in [self.local_address, self.remote_address] {
            sum.add_u128(address.to_bits());
        }
        sum.add_u32(length);
        sum.add_u16(u16::from(PROTOCOL_TCP));
        sum
    }
}

const MAPPED: u128 = 0xffff << 32;

#[inline]
fn mapped(address: &IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => Ipv6Addr::from_bits(MAPPED | u128::from(v4.to_bits())),
        IpAddr::V6(v6) => *v6,
    }
}

/// As `Ipv6Addr::to_ipv4_mapped`, which goes byte by byte: of a small segment that was a tenth.
#[inline]
fn unmapped(address: Ipv6Addr) -> Option<Ipv4Addr> {
    const PREFIX: [u8; 12] = *Ipv6Addr::from_bits(MAPPED).octets().first_chunk().unwrap();
    let octets = address.octets();
    let v4 = octets.last_chunk::<4>().filter(|_| octets.starts_with(&PREFIX))?;
    Some(Ipv4Addr::from(*v4))
}

/// What lives at a 4-tuple, and in which row of its table. Four bytes, so that a million of them are small; the
/// wheel carries it as the target of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowRef {
    HalfOpen(u32),
    Opening(u32),
    Connection(u32),
    TimeWait(u32),
}

/// The four bytes of a [`FlowRef`]: two bits of kind, thirty of index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedRef(pub(crate) u32);

impl From<FlowRef> for PackedRef {
    fn from(flow: FlowRef) -> PackedRef {
        let (kind, index) = match flow {
            FlowRef::HalfOpen(i) => (0, i),
            FlowRef::Opening(i) => (1, i),
            FlowRef::Connection(i) => (2, i),
            FlowRef::TimeWait(i) => (3, i),
        };
        debug_assert!(index < 1 << 30);
        PackedRef(kind << 30 | index)
    }
}

impl From<PackedRef> for FlowRef {
    fn from(PackedRef(bits): PackedRef) -> FlowRef {
        let index = bits & ((1 << 30) - 1);
        match bits >> 30 {
            0 => FlowRef::HalfOpen(index),
            1 => FlowRef::Opening(index),
            2 => FlowRef::Connection(index),
            _ => FlowRef::TimeWait(index),
        }
    }
}

/// The table. It holds no tuples itself: whoever lives there knows its own, which the caller looks up.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlowTable {
    table: HashTable<Entry>,
    /// The tuple that was hashed last: what a segment or a call does to the table, it does to one tuple.
    hashed: Option<(FourTuple, u32)>,
}

/// The hash is kept, so that a table grows without looking at whoever lives there.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    flow: PackedRef,
}

impl Entry {
    /// A table takes the place of an entry from the low bits of its hash, and its tag from the high ones.
    #[inline]
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

impl FlowTable {
    /// What lives at `tuple`. `is_there` says whether a flow's own tuple is this one.
    pub(crate) fn find(
        &mut self,
        keys: &Keys,
        tuple: &FourTuple,
        is_there: impl Fn(FlowRef) -> bool,
    ) -> Option<FlowRef> {
        let hash = self.hash(keys, tuple);
        let found =
            self.table.find(Entry::spread(hash), |entry| entry.hash == hash && is_there(entry.flow.into()));
        found.map(|entry| entry.flow.into())
    }

    /// Puts `flow` at `tuple`, where nothing lives.
    pub(crate) fn insert(&mut self, keys: &Keys, tuple: &FourTuple, flow: FlowRef) {
        let hash = self.hash(keys, tuple);
        let entry = Entry { hash, flow: flow.into() };
        self.table.insert_unique(Entry::spread(hash), entry, |entry| Entry::spread(entry.hash));
    }

    /// Puts `new` in the place of `old`, which lives at `tuple`.
    pub(crate) fn replace(&mut self, keys: &Keys, tuple: &FourTuple, old: FlowRef, new: FlowRef) {
        let (hash, old) = (self.hash(keys, tuple), PackedRef::from(old));
        let entry = self.table.find_mut(Entry::spread(hash), |entry| entry.flow == old);
        debug_assert!(entry.is_some(), "{old:?} does not live at {tuple:?}");
        entry.into_iter().for_each(|entry| entry.flow = new.into());
    }

    /// Takes `flow` away from `tuple`, if it is what lives there.
    pub(crate) fn remove(&mut self, keys: &Keys, tuple: &FourTuple, flow: FlowRef) {
        let (hash, flow) = (self.hash(keys, tuple), PackedRef::from(flow));
        if let Ok(entry) = self.table.find_entry(Entry::spread(hash), |entry| entry.flow == flow) {
            entry.remove();
        }
    }

    #[inline]
    fn hash(&mut self, keys: &Keys, tuple: &FourTuple) -> u32 {
        match self.hashed {
            Some((hashed, hash)) if hashed == *tuple => hash,
            _ => {
                let hash = keys.flow_hash(tuple) as u32;
                self.hashed = Some((*tuple, hash));
                hash
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reference_survives_packing() {
        for flow in [
            FlowRef::HalfOpen(0),
            FlowRef::Opening((1 << 30) - 1),
            FlowRef::Connection(77),
            FlowRef::TimeWait(1 << 29),
        ] {
            assert_eq!(FlowRef::from(PackedRef::from(flow)), flow);
        }
    }

    #[test]
    fn a_tuple_keeps_its_family() {
        let tuple = FourTuple::new("10.0.0.1:80".parse().unwrap(), "10.0.0.2:99".parse().unwrap());
        assert!(tuple.is_ipv4());
        assert_eq!(tuple.local(), "10.0.0.1:80".parse().unwrap());
        let tuple = FourTuple::new("[2001:db8::1]:80".parse().unwrap(), "[2001:db8::2]:99".parse().unwrap());
        assert!(!tuple.is_ipv4());
        assert_eq!(tuple.remote(), "[2001:db8::2]:99".parse().unwrap());
    }

    proptest! {
        /// Against a map as oracle: what moves from row to row stays at its tuple, once, also when the table grows.
        #[test]
        fn behaves_as_a_map_of_tuples_would(
            steps in proptest::collection::vec((0u8..4, 0u16..50, 0u32..1 << 30), 0..400),
        ) {
            let keys = Keys::new(&[7; 32]);
            let tuple = |port| FourTuple {
                local_address: mapped(&Ipv4Addr::new(10, 0, 0, 1).into()),
                remote_address: mapped(&Ipv4Addr::new(10, 0, 0, 2).into()),
                local_port: 80,
                remote_port: port,
            };
            let (mut table, mut oracle) = (FlowTable::default(), BTreeMap::new());
            for (row, (what, port, number)) in (0..).zip(steps) {
                let new = if number % 2 == 0 { FlowRef::Connection(row) } else { FlowRef::TimeWait(row) };
                match (what, oracle.get(&port).copied()) {
                    (0 | 1, None) => {
                        table.insert(&keys, &tuple(port), new);
                        oracle.insert(port, new);
                    }
                    (0 | 1, Some(old)) => {
                        table.replace(&keys, &tuple(port), old, new);
                        oracle.insert(port, new);
                    }
                    // What does not live there is not taken away.
                    (2, Some(_)) if number % 3 == 0 => table.remove(&keys, &tuple(port), FlowRef::HalfOpen(row)),
                    (2, Some(old)) => {
                        table.remove(&keys, &tuple(port), old);
                        oracle.remove(&port);
                    }
                    _ => {}
                }
                prop_assert_eq!(table.table.len(), oracle.len());
                for port in 0..50 {
                    let lives = oracle.get(&port).copied();
                    let found = table.find(&keys, &tuple(port), |flow| lives == Some(flow));
                    prop_assert_eq!(found, lives);
                }
            }
        }
    }
}

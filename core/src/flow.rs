//! From a 4-tuple to what lives there: one keyed-hash probe for every segment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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
pub(crate) fn mapped(address: &IpAddr) -> Ipv6Addr {
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
///
/// Entries lie in buckets of a cache line, in that of their hash or, where that is full, in the next that is not: so
/// to find, to add and to take away costs one line from memory. (A table whose tags lie apart from its entries, as
/// hashbrown's do, takes two: with 262,144 entries that was a tenth of the time of a connection that opens and closes.)
#[derive(Clone, Debug, Default)]
pub(crate) struct FlowTable {
    /// None, or a power of two of them, of whose places at most seven of eight are taken.
    buckets: Vec<Bucket>,
    len: usize,
    /// The tuple that was hashed last: what a segment or a call does to the table, it does to one tuple.
    hashed: Option<(FourTuple, u32)>,
}

const WAYS: usize = 8;

/// Entries, and after them vacant places.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket([Entry; WAYS]);

const _: () = assert!(size_of::<Bucket>() == 64);

/// A hash and a reference in one word, which are compared at once. The hash is kept, so that a table grows without
/// looking at whoever lives there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    const VACANT: Entry = Entry(0);

    /// `hash` is not zero.
    #[inline]
    fn new(hash: u32, flow: FlowRef) -> Entry {
        Entry(u64::from(hash) << 32 | u64::from(PackedRef::from(flow).0))
    }

    #[inline]
    fn hash(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    fn flow(self) -> FlowRef {
        PackedRef(self.0 as u32).into()
    }
}

impl Bucket {
    #[inline]
    fn len(&self) -> usize {
        self.0.iter().filter(|entry| **entry != Entry::VACANT).count()
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.0[WAYS - 1] != Entry::VACANT
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
        let (bucket, way) = self.position(hash, |entry| entry.hash() == hash && is_there(entry.flow()))?;
        Some(self.buckets[bucket].0[way].flow())
    }

    /// Puts `flow` at `tuple`, where nothing lives.
    pub(crate) fn insert(&mut self, keys: &Keys, tuple: &FourTuple, flow: FlowRef) {
        let hash = self.hash(keys, tuple);
        self.len += 1;
        if self.len > self.buckets.len() * (WAYS - 1) {
            self.grow();
        }
        self.put(Entry::new(hash, flow));
    }

    /// Puts `new` in the place of `old`, which lives at `tuple`.
    pub(crate) fn replace(&mut self, keys: &Keys, tuple: &FourTuple, old: FlowRef, new: FlowRef) {
        let hash = self.hash(keys, tuple);
        let entry = Entry::new(hash, old);
        let position = self.position(hash, |there| there == entry);
        debug_assert!(position.is_some(), "{old:?} does not live at {tuple:?}");
        if let Some((bucket, way)) = position {
            self.buckets[bucket].0[way] = Entry::new(hash, new);
        }
    }

    /// Takes `flow` away from `tuple`, if it is what lives there.
    pub(crate) fn remove(&mut self, keys: &Keys, tuple: &FourTuple, flow: FlowRef) {
        let hash = self.hash(keys, tuple);
        let entry = Entry::new(hash, flow);
        if let Some((bucket, way)) = self.position(hash, |there| there == entry) {
            self.len -= 1;
            self.vacate(bucket, way);
        }
    }

    #[inline]
    fn hash(&mut self, keys: &Keys, tuple: &FourTuple) -> u32 {
        match self.hashed {
            Some((hashed, hash)) if hashed == *tuple => hash,
            _ => {
                let hash = (keys.flow_hash(tuple) as u32).max(1);
                self.hashed = Some((*tuple, hash));
                hash
            }
        }
    }

    /// The bucket where an entry of this hash lies if there is room.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    #[inline]
    fn after(&self, bucket: usize) -> usize {
        (bucket + 1) & (self.buckets.len() - 1)
    }

    /// The bucket and the place in it of the entry of this hash that is wanted.
    #[inline]
    fn position(&self, hash: u32, is_wanted: impl Fn(Entry) -> bool) -> Option<(usize, usize)> {
        if self.len == 0 {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let bucket = &self.buckets[at];
            if let Some(way) = bucket.0.iter().position(|entry| is_wanted(*entry)) {
                return Some((at, way));
            }
            if !bucket.is_full() {
                return None;
            }
            at = self.after(at);
        }
    }

    fn put(&mut self, entry: Entry) {
        let mut at = self.home(entry.hash());
        loop {
            if let Some(vacant) = self.buckets[at].0.iter_mut().find(|there| **there == Entry::VACANT) {
                *vacant = entry;
                return;
            }
            at = self.after(at);
        }
    }

    /// Between an entry and its home all buckets are full, so that nobody has to look further than to one that is not.
    /// Where a full one gets a vacant place, it is for the next entry that had to go past it.
    fn vacate(&mut self, mut at: usize, mut way: usize) {
        loop {
            let bucket = &mut self.buckets[at];
            let last = bucket.len() - 1;
            bucket.0.swap(way, last);
            bucket.0[last] = Entry::VACANT;
            if last < WAYS - 1 {
                return;
            }
            let Some((from, past)) = self.next_past(at) else { return };
            self.buckets[at].0[last] = self.buckets[from].0[past];
            (at, way) = (from, past);
        }
    }

    /// The next entry after this bucket whose home is this one or lies before it.
    fn next_past(&self, bucket: usize) -> Option<(usize, usize)> {
        let mask = self.buckets.len() - 1;
        let mut at = bucket;
        loop {
            at = self.after(at);
            let distance = at.wrapping_sub(bucket) & mask;
            let is_past = |entry: &Entry| {
                *entry != Entry::VACANT && at.wrapping_sub(self.home(entry.hash())) & mask >= distance
            };
            if let Some(way) = self.buckets[at].0.iter().position(is_past) {
                return Some((at, way));
            }
            if !self.buckets[at].is_full() {
                return None;
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        let count = (self.buckets.len() * 2).max(1);
        let old = std::mem::replace(&mut self.buckets, vec![Bucket([Entry::VACANT; WAYS]); count]);
        let entries = old.iter().flat_map(|bucket| bucket.0).filter(|entry| *entry != Entry::VACANT);
        entries.for_each(|entry| self.put(entry));
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
        /// Against a map as oracle: what lives at a tuple is found there, once, when it moves from row to row and when
        /// others come and go around it.
        #[test]
        fn behaves_as_a_map_of_tuples_would(
            steps in proptest::collection::vec((0u8..5, 0u16..120, any::<bool>()), 0..600),
        ) {
            let keys = Keys::new(&[7; 32]);
            let ends = FourTuple::new("10.0.0.1:80".parse().unwrap(), "10.0.0.2:1".parse().unwrap());
            let tuple = |remote_port| FourTuple { remote_port, ..ends };
            let (mut table, mut oracle) = (FlowTable::default(), BTreeMap::new());
            for (row, (what, port, over)) in (0..).zip(steps) {
                let new = if over { FlowRef::TimeWait(row) } else { FlowRef::Connection(row) };
                match (what, oracle.get(&port).copied()) {
                    (0..3, None) => {
                        table.insert(&keys, &tuple(port), new);
                        oracle.insert(port, new);
                    }
                    (0, Some(old)) => {
                        table.replace(&keys, &tuple(port), old, new);
                        oracle.insert(port, new);
                    }
                    // What does not live there is not taken away.
                    (1, _) => table.remove(&keys, &tuple(port), FlowRef::HalfOpen(row)),
                    (_, Some(old)) => {
                        table.remove(&keys, &tuple(port), old);
                        oracle.remove(&port);
                    }
                    _ => {}
                }
                let entries = table.buckets.iter().map(Bucket::len).sum::<usize>();
                prop_assert_eq!((table.len, entries), (oracle.len(), oracle.len()));
                for port in 0..120 {
                    let lives = oracle.get(&port).copied();
                    let found = table.find(&keys, &tuple(port), |flow| lives == Some(flow));
                    prop_assert_eq!(found, lives);
                }
            }
        }
    }
}

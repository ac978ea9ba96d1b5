//! The flow table: maps the 4-tuple of a segment to its flow by a keyed hash.

use crate::keys::Keys;
use crate::table::{Link, Table};
use crate::tuple::FourTuple;

/// The kind of a flow and its row in the table of that kind. [`PackedRef`] stores it in four bytes, to keep a million
/// of them small. The timing wheel carries it as the target of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowRef {
    HalfOpen(u32),
    Opening(u32),
    Connection(u32),
    TimeWait(u32),
    Dormant(u32),
    Pending(u32),
}

/// The four bytes of a [`FlowRef`]: three bits of kind, and an index below [`INDEXES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedRef(pub(crate) u32);

const INDEX_BITS: u32 = 29;
const INDEXES: u32 = 1 << INDEX_BITS;

impl From<FlowRef> for PackedRef {
    fn from(flow: FlowRef) -> PackedRef {
        let (kind, index) = match flow {
            FlowRef::HalfOpen(i) => (0, i),
            FlowRef::Opening(i) => (1, i),
            FlowRef::Connection(i) => (2, i),
            FlowRef::TimeWait(i) => (3, i),
            FlowRef::Dormant(i) => (4, i),
            FlowRef::Pending(i) => (5, i),
        };
        debug_assert!(index < INDEXES);
        PackedRef(kind << INDEX_BITS | index)
    }
}

impl From<PackedRef> for FlowRef {
    fn from(PackedRef(bits): PackedRef) -> FlowRef {
        let index = bits & (INDEXES - 1);
        match bits >> INDEX_BITS {
            0 => FlowRef::HalfOpen(index),
            1 => FlowRef::Opening(index),
            2 => FlowRef::Connection(index),
            3 => FlowRef::TimeWait(index),
            4 => FlowRef::Dormant(index),
            _ => FlowRef::Pending(index),
        }
    }
}

/// A hash table from tuples to flows. It stores no tuples: the caller compares the tuple of a flow.
///
/// A bucket is a cache line, and each tuple has one home bucket. A full home continues in overflow buckets behind it.
/// The table grows and shrinks by one bucket at a time (linear hashing): a new bucket takes its entries from the one
/// that it is split from. No call therefore moves more than one bucket's entries, and no memory moves but that of the
/// first page.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlowTable {
    /// The home buckets, in pages.
    pages: Vec<Vec<Bucket>>,
    /// Number of home buckets.
    count: usize,
    /// The smallest power of two that is at least `count`, minus one.
    mask: usize,
    /// The overflow buckets.
    behind: Table<Bucket>,
    len: usize,
    /// The last tuple hashed, with its hash: a segment or a call usually needs the hash of one tuple several times.
    hashed: Option<(FourTuple, u32)>,
}

const WAYS: usize = 7;
/// Buckets in a page of 64 KiB.
const PAGE: usize = 1024;
/// The table grows by a bucket above this many entries per bucket.
const FILL: usize = 4;
/// The table shrinks by a bucket below this many entries per bucket.
const LEAST_FILL: usize = 2;

/// Entries first, then vacant slots.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    entries: [Entry; WAYS],
    /// The overflow bucket behind this one.
    next: Link,
}

const _: () = assert!(size_of::<Bucket>() == 64 && Table::<Bucket>::ROW == 64);

/// A hash and a reference in one word, compared at once. The stored hash lets the table grow without looking at the
/// flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    const VACANT: Entry = Entry(0);

    /// `hash` must not be zero.
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
    const EMPTY: Bucket = Bucket { entries: [Entry::VACANT; WAYS], next: Link::NONE };

    fn len(&self) -> usize {
        self.entries.iter().filter(|entry| **entry != Entry::VACANT).count()
    }

    fn iter(&self) -> impl Iterator<Item = Entry> {
        self.entries.into_iter().filter(|entry| *entry != Entry::VACANT)
    }
}

/// Position of an entry: its home, the overflow bucket (none for the home itself), and the slot in the bucket.
#[derive(Clone, Copy)]
struct Position {
    home: usize,
    behind: Link,
    way: usize,
}

impl FlowTable {
    /// Bytes per entry: its share of a home bucket, plus an average share of overflow buckets.
    pub(crate) const PLACE: usize = size_of::<Bucket>() / FILL + 2;

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the flow at `tuple`. `is_there` returns whether a flow's own tuple is this one.
    pub(crate) fn find(
        &mut self,
        keys: &Keys,
        tuple: &FourTuple,
        is_there: impl Fn(FlowRef) -> bool,
    ) -> Option<FlowRef> {
        if self.count == 0 {
            return None;
        }
        let hash = self.hash(keys, tuple);
        let home = self.home(hash);
        let mut bucket = &self.pages[home / PAGE][home % PAGE];
        loop {
            let is_wanted = |entry: &&Entry| entry.hash() == hash && is_there(entry.flow());
            if let Some(entry) = bucket.entries.iter().find(is_wanted) {
                return Some(entry.flow());
            }
            if bucket.next == Link::NONE {
                return None;
            }
            bucket = &self.behind[bucket.next.index()];
        }
    }

    /// Inserts `flow` at `tuple`, which must be vacant.
    pub(crate) fn insert(&mut self, keys: &Keys, tuple: &FourTuple, flow: FlowRef) {
        let hash = self.hash(keys, tuple);
        self.len += 1;
        if self.len > self.count * FILL {
            self.split();
        }
        self.put(Entry::new(hash, flow));
    }

    /// Replaces `old`, which must be the flow at `tuple`, by `new`.
    pub(crate) fn replace(&mut self, keys: &Keys, tuple: &FourTuple, old: FlowRef, new: FlowRef) {
        let hash = self.hash(keys, tuple);
        let position = self.position(Entry::new(hash, old));
        debug_assert!(position.is_some(), "{old:?} does not live at {tuple:?}");
        if let Some(Position { home, behind, way }) = position {
            self.bucket_mut(home, behind).entries[way] = Entry::new(hash, new);
        }
    }

    /// Removes `flow` from `tuple`, if it is the flow there.
    pub(crate) fn remove(&mut self, keys: &Keys, tuple: &FourTuple, flow: FlowRef) {
        let hash = self.hash(keys, tuple);
        if let Some(position) = self.position(Entry::new(hash, flow)) {
            self.len -= 1;
            self.vacate(position);
            if self.len < self.count * LEAST_FILL && self.count > 1 {
                self.merge();
            }
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

    /// Returns the home bucket of a hash. Entries of a bucket that does not exist yet are in the one that it will be
    /// split from.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        let home = hash as usize & self.mask;
        if home < self.count { home } else { home & (self.mask >> 1) }
    }

    #[inline]
    fn bucket(&self, home: usize, behind: Link) -> &Bucket {
        match behind.get() {
            None => &self.pages[home / PAGE][home % PAGE],
            Some(index) => &self.behind[index],
        }
    }

    #[inline]
    fn bucket_mut(&mut self, home: usize, behind: Link) -> &mut Bucket {
        match behind.get() {
            None => &mut self.pages[home / PAGE][home % PAGE],
            Some(index) => &mut self.behind[index],
        }
    }

    /// Returns the position of an entry.
    #[inline]
    fn position(&self, entry: Entry) -> Option<Position> {
        if self.count == 0 {
            return None;
        }
        let home = self.home(entry.hash());
        let mut behind = Link::NONE;
        loop {
            let bucket = self.bucket(home, behind);
            if let Some(way) = bucket.entries.iter().position(|there| *there == entry) {
                return Some(Position { home, behind, way });
            }
            behind = bucket.next;
            behind.get()?;
        }
    }

    /// Appends an entry to its home.
    fn put(&mut self, entry: Entry) {
        let home = self.home(entry.hash());
        let mut behind = Link::NONE;
        loop {
            let bucket = self.bucket_mut(home, behind);
            if let Some(vacant) = bucket.entries.iter_mut().find(|there| **there == Entry::VACANT) {
                *vacant = entry;
                return;
            }
            if bucket.next == Link::NONE {
                break;
            }
            behind = bucket.next;
        }
        let mut last = Bucket::EMPTY;
        last.entries[0] = entry;
        let last = Link::of(self.behind.insert(last));
        self.bucket_mut(home, behind).next = last;
    }

    /// Fills a vacated slot with the last entry of its home, so that only the last bucket has vacant slots.
    fn vacate(&mut self, Position { home, behind, way }: Position) {
        let (mut before, mut last) = (None, behind);
        loop {
            let next = self.bucket(home, last).next;
            if next == Link::NONE {
                break;
            }
            (before, last) = (Some(last), next);
        }
        let bucket = self.bucket_mut(home, last);
        let left = bucket.len() - 1;
        let entry = std::mem::replace(&mut bucket.entries[left], Entry::VACANT);
        if (last, left) != (behind, way) {
            self.bucket_mut(home, behind).entries[way] = entry;
        }
        if left == 0
            && let Some(index) = last.get()
        {
            let before = before.unwrap_or_else(|| self.before(home, last));
            self.bucket_mut(home, before).next = Link::NONE;
            self.behind.discard(index);
        }
    }

    /// Returns the bucket before an overflow bucket.
    fn before(&self, home: usize, wanted: Link) -> Link {
        let mut at = Link::NONE;
        loop {
            let next = self.bucket(home, at).next;
            if next == wanted {
                return at;
            }
            at = next;
        }
    }

    /// Adds a bucket.
    #[cold]
    fn split(&mut self) {
        let new = self.count;
        self.count += 1;
        self.mask = self.count.next_power_of_two() - 1;
        if new.is_multiple_of(PAGE) {
            // The first page grows as it fills, since most stacks are small.
            self.pages.push(Vec::with_capacity(if new == 0 { 0 } else { PAGE }));
        }
        if let Some(page) = self.pages.last_mut() {
            page.push(Bucket::EMPTY);
        }
        if new > 0 {
            let first = std::mem::replace(self.bucket_mut(new & (self.mask >> 1), Link::NONE), Bucket::EMPTY);
            self.put_all(first);
        }
    }

    /// Removes a bucket.
    #[cold]
    fn merge(&mut self) {
        let only = self.pages.len() == 1;
        let Some(page) = self.pages.last_mut() else { return };
        let Some(last) = page.pop() else { return };
        self.count -= 1;
        self.mask = self.count.next_power_of_two() - 1;
        let (left, room) = (page.len(), page.capacity());
        if left == 0 {
            self.pages.pop();
        } else if only && left < room / 4 {
            page.shrink_to(room / 2);
        }
        self.put_all(last);
    }

    /// Reinserts the entries of a bucket that was taken from the table, and of its overflow buckets.
    fn put_all(&mut self, mut bucket: Bucket) {
        loop {
            bucket.iter().for_each(|entry| self.put(entry));
            let Some(next) = bucket.next.get() else { return };
            bucket = self.behind.remove(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reference_survives_packing() {
        for flow in [
            FlowRef::HalfOpen(0),
            FlowRef::Opening(INDEXES - 1),
            FlowRef::Connection(77),
            FlowRef::TimeWait(1 << 28),
            FlowRef::Dormant(INDEXES - 1),
            FlowRef::Pending(3),
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

    fn tuple(number: u32) -> FourTuple {
        let remote = Ipv4Addr::from(0x0b00_0000 + number);
        FourTuple::new("10.0.0.1:80".parse().unwrap(), (remote, 4000).into())
    }

    #[test]
    fn a_table_grows_and_shrinks_a_bucket_at_a_time() {
        let keys = Keys::new(&[7; 32]);
        let mut table = FlowTable::default();
        let homes = |table: &FlowTable| table.pages.iter().map(Vec::len).sum::<usize>();
        for number in 0..50_000 {
            let before = homes(&table);
            table.insert(&keys, &tuple(number), FlowRef::Connection(number));
            assert!(homes(&table) - before <= 1);
        }
        // Most lookups need one bucket.
        assert!(table.behind.len() < homes(&table) / 5, "{} of {}", table.behind.len(), homes(&table));
        for number in 0..50_000 {
            let before = homes(&table);
            table.remove(&keys, &tuple(number), FlowRef::Connection(number));
            assert!(before - homes(&table) <= 1);
            if number == 40_000 {
                for left in number + 1..50_000 {
                    let found = table.find(&keys, &tuple(left), |flow| flow == FlowRef::Connection(left));
                    assert_eq!(found, Some(FlowRef::Connection(left)));
                }
            }
        }
        assert_eq!((homes(&table), table.behind.len()), (1, 0));
        assert!(table.pages[0].capacity() <= 16 && table.pages.len() == 1);
    }

    proptest! {
        /// A map is the oracle: a flow is found at its tuple, once, while it moves from row to row and others come and
        /// go.
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
                    // A remove does nothing to a tuple that has no flow.
                    (1, _) => table.remove(&keys, &tuple(port), FlowRef::HalfOpen(row)),
                    (_, Some(old)) => {
                        table.remove(&keys, &tuple(port), old);
                        oracle.remove(&port);
                    }
                    _ => {}
                }
                let homes = table.pages.iter().flatten();
                let buckets = homes.chain(table.behind.iter().map(|(_, bucket)| bucket));
                let entries = buckets.map(Bucket::len).sum::<usize>();
                prop_assert_eq!((table.len, entries), (oracle.len(), oracle.len()));
                prop_assert_eq!(table.count, table.pages.iter().map(Vec::len).sum::<usize>());
                for port in 0..120 {
                    let lives = oracle.get(&port).copied();
                    let found = table.find(&keys, &tuple(port), |flow| lives == Some(flow));
                    prop_assert_eq!(found, lives);
                }
            }
        }
    }
}

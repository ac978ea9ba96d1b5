//! Reassembly of IPv4 and IPv6 datagrams (RFC 791 §3.2, RFC 8200 §4.5, RFC 5722).
//!
//! No fragment is ever trimmed: one that overlaps another condemns its datagram. RFC 791 lets the later fragment win.
//! This stack is as strict for IPv4 as RFC 5722 is for IPv6, like Linux since 4.19.
// THREAT-18, THREAT-65, 8200-3

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::ops::Bound;

use crate::config::Config;
use crate::counters::DropReason;
use crate::time::Instant;

/// The fields that identify the datagram of a fragment.
///
/// RFC 8200 excludes the protocol and uses that of the first fragment. Here fragments with different protocols are
/// never combined, so the protocol of the last fragment to arrive is that of the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) identification: u32,
    pub(crate) protocol: u8,
}

/// One fragment as it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// Offset in the datagram, in bytes.
    pub(crate) offset: usize,
    /// More fragments follow.
    pub(crate) more: bool,
    pub(crate) payload: &'a [u8],
    /// IP header and first bytes of the payload, to quote in an ICMP error.
    pub(crate) quote: &'a [u8],
}

/// A reassembled datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) payload: Vec<u8>,
    /// As of its first fragment.
    pub(crate) quote: Box<[u8]>,
}

/// A datagram whose reassembly timed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) key: Key,
    /// The bytes to quote to the sender; `None` without fragment zero (RFC 792, RFC 8200 §4.5).
    pub(crate) quote: Option<Vec<u8>>,
}

/// All incomplete datagrams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fragments {
    datagrams: BTreeMap<Key, Datagram>,
    by_age: BTreeMap<Age, Key>,
    by_pair: BTreeSet<(Pair, Age)>,
    usage: BTreeMap<Pair, Usage>,
    held: usize,
    born: u64,
    evicted: u64,
}

type Pair = (IpAddr, IpAddr);

/// The deadline, and the order of arrival among those with the same deadline.
type Age = (Instant, u64);

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    datagrams: usize,
    held: usize,
}

#[derive(Clone, Debug)]
struct Datagram {
    age: Age,
    /// Memory in use, including all overhead.
    cost: usize,
    /// Length of the datagram, known once its last fragment has arrived.
    end: Option<usize>,
    received: usize,
    /// By offset. Disjoint, never empty.
    pieces: BTreeMap<usize, Box<[u8]>>,
    quote: Option<Box<[u8]>>,
    /// The reason why it was given up. It stays until its deadline to absorb the fragments still under way, which might
    /// otherwise complete another datagram.
    condemned: Option<DropReason>,
}

/// How to treat a fragment of a known datagram.
enum Verdict {
    Keep,
    /// An exact copy of a held fragment.
    Ignore,
    Refuse(DropReason),
    Condemn(DropReason),
}

/// The longest datagram has 65,535 bytes; in IPv4 that includes its header.
const MAX_PAYLOAD_V4: usize = 65_535 - crate::wire::ipv4::HEADER_LEN;
const MAX_PAYLOAD_V6: usize = 65_535;

/// A pair that holds more than one part in this many of the memory makes room at its own expense.
const SHARES: usize = 16;

/// Allocator overhead of a block, in bytes.
const BLOCK: usize = 16;
/// Nodes of a B-tree are at least half full.
const SLACK: usize = 2;
/// Entries of a leaf: a tree of one piece already allocates a whole leaf.
const LEAF: usize = 11;
const PIECE_ENTRY: usize = size_of::<(usize, Box<[u8]>)>();
const PIECE_OVERHEAD: usize = SLACK * PIECE_ENTRY + BLOCK;
const DATAGRAM_OVERHEAD: usize = SLACK
    * (size_of::<(Key, Datagram)>()
        + size_of::<(Age, Key)>()
        + size_of::<(Pair, Age)>()
        + size_of::<(Pair, Usage)>())
    + LEAF * PIECE_ENTRY
    + BLOCK;

/// The other fields follow from these.
impl Hash for Fragments {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Fragments { datagrams, by_age, by_pair: _, usage: _, held: _, born: _, evicted: _ } = self;
        by_age.iter().for_each(|((deadline, _), key)| (deadline, key).hash(state));
        for datagram in datagrams.values() {
            let Datagram { age: _, cost: _, end, received: _, pieces, quote, condemned } = datagram;
            (end, pieces, quote, condemned.is_some()).hash(state);
        }
    }
}

impl Fragments {
    /// Adds a fragment, and returns the datagram if that completes it.
    ///
    /// The caller handles a fragment that is the whole datagram (RFC 6946). Call [`expire`](Fragments::expire) first: a
    /// datagram past its deadline accepts no more fragments.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        config: &Config,
        key: Key,
        piece: Piece<'_>,
    ) -> Result<Option<Whole>, DropReason> {
        if piece.is_malformed() {
            return Err(DropReason::BadFragment);
        }
        let verdict = match self.datagrams.get(&key) {
            None if piece.is_oversized(&key) => return Err(DropReason::BadFragment),
            None => Verdict::Keep,
            Some(datagram) => datagram.judge(now, config, &key, &piece),
        };
        match verdict {
            Verdict::Ignore => return Ok(None),
            Verdict::Refuse(reason) => return Err(reason),
            Verdict::Condemn(reason) => {
                self.condemn(&key, reason);
                return Err(reason);
            }
            Verdict::Keep => {}
        }
        self.make_room(config, &key, &piece)?;
        if !self.datagrams.contains_key(&key) {
            self.begin(now, config, key);
        }
        self.keep(&key, &piece);
        if !self.datagrams.get(&key).is_some_and(Datagram::is_complete) {
            return Ok(None);
        }
        Ok(self.release(&key).map(Datagram::assemble))
    }

    /// Returns the time at which [`expire`](Fragments::expire) must be called.
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        self.by_age.first_key_value().map(|(age, _)| age.0)
    }

    /// Removes and returns one datagram past its deadline; call it until it returns `None`. Condemned datagrams are
    /// removed silently, since they were already reported.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Expired> {
        loop {
            let (&(deadline, _), &key) = self.by_age.first_key_value()?;
            if now < deadline {
                return None;
            }
            let datagram = self.release(&key)?;
            if datagram.condemned.is_none() {
                return Some(Expired { key, quote: datagram.quote.map(Vec::from) });
            }
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Returns the number of incomplete datagrams, including condemned ones.
    pub(crate) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Returns the bytes of memory in use.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Returns the total number of datagrams evicted to make room.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Evicts datagrams until the piece fits, or fails.
    ///
    /// The newest datagram is the one most likely to be completed, so the oldest is evicted. Refusing new ones instead
    /// would let one burst of garbage block reassembly until it expires (THREAT-18). A pair that holds much evicts its
    /// own datagrams, so that a flood from one source displaces nobody else. During a flood from many sources, a
    /// datagram stays until the whole memory has been replaced.
    fn make_room(&mut self, config: &Config, key: &Key, piece: &Piece<'_>) -> Result<(), DropReason> {
        let limit = config.ipfrag_high_thresh as usize;
        let (own, begun) = self.datagrams.get(key).map_or((0, DATAGRAM_OVERHEAD), |d| (d.cost, 0));
        let cost = begun + piece.cost();
        if own + cost > limit {
            return Err(DropReason::FragmentLimit);
        }
        let max_datagrams = config.ipfrag_max_datagrams as usize;
        while begun > 0 && self.usage(key.pair()).datagrams >= max_datagrams {
            let oldest = self.oldest_of(key).ok_or(DropReason::FragmentLimit)?;
            self.evict(&oldest);
        }
        while self.held + cost > limit {
            let pays_itself = self.usage(key.pair()).held > limit / SHARES;
            let own_oldest = if pays_itself { self.oldest_of(key) } else { None };
            let victim = own_oldest.or_else(|| self.oldest_but(key)).ok_or(DropReason::FragmentLimit)?;
            self.evict(&victim);
        }
        Ok(())
    }

    fn usage(&self, pair: Pair) -> Usage {
        self.usage.get(&pair).copied().unwrap_or_default()
    }

    /// Returns the oldest other datagram of the same pair.
    fn oldest_of(&self, key: &Key) -> Option<Key> {
        let pair = key.pair();
        let from = Bound::Included((pair, (Instant::ZERO, 0)));
        let to = Bound::Included((pair, (Instant::from_nanos(u64::MAX), u64::MAX)));
        let keys = self.by_pair.range((from, to)).filter_map(|(_, age)| self.by_age.get(age));
        keys.copied().find(|other| other != key)
    }

    /// Returns the oldest other datagram of all.
    fn oldest_but(&self, key: &Key) -> Option<Key> {
        self.by_age.values().copied().find(|other| other != key)
    }

    fn evict(&mut self, key: &Key) {
        if self.release(key).is_some_and(|datagram| datagram.condemned.is_none()) {
            self.evicted += 1;
        }
    }

    fn begin(&mut self, now: Instant, config: &Config, key: Key) {
        // The timer starts with the first fragment to arrive; later ones do not extend it (1122-2).
        let age = (now + config.ipfrag_time, self.born);
        self.born += 1;
        self.datagrams.insert(key, Datagram::new(age));
        self.by_age.insert(age, key);
        self.by_pair.insert((key.pair(), age));
        let usage = self.usage.entry(key.pair()).or_default();
        usage.datagrams += 1;
        usage.held += DATAGRAM_OVERHEAD;
        self.held += DATAGRAM_OVERHEAD;
    }

    fn keep(&mut self, key: &Key, piece: &Piece<'_>) {
        let Some(datagram) = self.datagrams.get_mut(key) else { return };
        datagram.keep(piece);
        self.held += piece.cost();
        self.usage.entry(key.pair()).or_default().held += piece.cost();
    }

    fn condemn(&mut self, key: &Key, reason: DropReason) {
        let Some(datagram) = self.datagrams.get_mut(key) else { return };
        let freed = datagram.cost - DATAGRAM_OVERHEAD;
        *datagram = Datagram { condemned: Some(reason), ..Datagram::new(datagram.age) };
        self.held -= freed;
        self.usage.entry(key.pair()).or_default().held -= freed;
    }

    fn release(&mut self, key: &Key) -> Option<Datagram> {
        let datagram = self.datagrams.remove(key)?;
        let pair = key.pair();
        self.by_age.remove(&datagram.age);
        self.by_pair.remove(&(pair, datagram.age));
        self.held -= datagram.cost;
        let usage = self.usage.entry(pair).or_default();
        usage.datagrams -= 1;
        usage.held -= datagram.cost;
        if usage.datagrams == 0 {
            self.usage.remove(&pair);
        }
        Some(datagram)
    }
}

impl Key {
    fn pair(&self) -> Pair {
        (self.source, self.destination)
    }
}

impl Piece<'_> {
    fn end(&self) -> usize {
        self.offset.saturating_add(self.payload.len())
    }

    /// Returns whether the fragment is invalid by itself. Only the fragment is dropped then (RFC 8200 §4.5). An empty
    /// one adds nothing and no sender makes it; Linux drops it too.
    fn is_malformed(&self) -> bool {
        let unaligned = self.more && !self.payload.len().is_multiple_of(8);
        self.payload.is_empty() || unaligned || !self.offset.is_multiple_of(8)
    }

    /// Returns whether it extends past the longest possible datagram: the ping of death.
    fn is_oversized(&self, key: &Key) -> bool {
        self.end() > if key.source.is_ipv4() { MAX_PAYLOAD_V4 } else { MAX_PAYLOAD_V6 }
    }

    /// Returns the memory needed to keep it, in bytes.
    fn cost(&self) -> usize {
        let quote = if self.offset == 0 { self.quote.len() + BLOCK } else { 0 };
        self.payload.len() + PIECE_OVERHEAD + quote
    }
}

impl Datagram {
    fn new(age: Age) -> Datagram {
        Datagram {
            age,
            cost: DATAGRAM_OVERHEAD,
            end: None,
            received: 0,
            pieces: BTreeMap::new(),
            quote: None,
            condemned: None,
        }
    }

    fn judge(&self, now: Instant, config: &Config, key: &Key, piece: &Piece<'_>) -> Verdict {
        if let Some(reason) = self.condemned {
            return Verdict::Refuse(reason);
        }
        if now >= self.age.0 {
            return Verdict::Refuse(DropReason::FragmentTimeout);
        }
        if self.holds(piece) {
            return Verdict::Ignore;
        }
        if piece.is_oversized(key) || self.contradicts(piece) || self.overlaps(piece) {
            return Verdict::Condemn(DropReason::BadFragment);
        }
        // The datagram can no longer be completed, so its fragments are useless (FragmentSmack, CVE-2018-5391).
        if self.pieces.len() >= config.ipfrag_max_fragments as usize {
            return Verdict::Condemn(DropReason::FragmentLimit);
        }
        Verdict::Keep
    }

    /// Returns whether an exact copy is held: the network may duplicate packets, so that is no overlap (RFC 8200 §4.5).
    /// Other bytes at the same place are one.
    fn holds(&self, piece: &Piece<'_>) -> bool {
        let is_last = self.end == Some(piece.end());
        piece.more != is_last && self.pieces.get(&piece.offset).is_some_and(|held| **held == *piece.payload)
    }

    /// Returns whether the piece contradicts the known length of the datagram.
    fn contradicts(&self, piece: &Piece<'_>) -> bool {
        let reached = self.pieces.last_key_value().map_or(0, |(offset, held)| offset + held.len());
        match self.end {
            Some(end) => piece.end() > end || !piece.more,
            None => !piece.more && piece.end() < reached,
        }
    }

    fn overlaps(&self, piece: &Piece<'_>) -> bool {
        // Held pieces are disjoint, so the last one that begins before the end of this piece also ends last.
        let before = self.pieces.range(..piece.end()).next_back();
        before.is_some_and(|(offset, held)| offset + held.len() > piece.offset)
    }

    fn keep(&mut self, piece: &Piece<'_>) {
        self.cost += piece.cost();
        self.received += piece.payload.len();
        self.pieces.insert(piece.offset, piece.payload.into());
        if !piece.more {
            self.end = Some(piece.end());
        }
        if piece.offset == 0 {
            self.quote = Some(piece.quote.into());
        }
    }

    fn is_complete(&self) -> bool {
        // Pieces are disjoint and none extends past the end, so there is no gap.
        self.end == Some(self.received)
    }

    fn assemble(self) -> Whole {
        let mut payload = Vec::with_capacity(self.received);
        for piece in self.pieces.values() {
            payload.extend_from_slice(piece);
        }
        Whole { payload, quote: self.quote.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests;

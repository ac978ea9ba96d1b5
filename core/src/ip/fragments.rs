//! Reassembly of IPv4 and IPv6 datagrams (RFC 791 §3.2, RFC 8200 §4.5, RFC 5722; T-18, T-65).
//!
//! Nothing is ever trimmed: a fragment that overlaps another one condemns its datagram. RFC 791 lets the later
//! fragment win; we are as strict for IPv4 as RFC 5722 is for IPv6, as Linux is since 4.19 (8200-3).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use crate::config::Config;
use crate::counters::DropReason;
use crate::time::Instant;

/// What fragments of one datagram have in common.
///
/// RFC 8200 leaves the protocol out and believes that of the first fragment. Here fragments that disagree on it
/// never come together, so that the protocol known when the last one arrives is that of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) identification: u32,
    pub(crate) protocol: u8,
}

/// One fragment as it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// Where it lies in the datagram, bytes.
    pub(crate) offset: usize,
    /// It is not the last.
    pub(crate) more: bool,
    pub(crate) payload: &'a [u8],
    /// IP header and first bytes of the payload: what an ICMP error about it quotes.
    pub(crate) quote: &'a [u8],
}

/// A datagram that stayed incomplete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) key: Key,
    /// What to quote to the sender; nothing without fragment zero (RFC 792, RFC 8200 §4.5).
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

/// The deadline, and the order of arrival among those that share one.
type Age = (Instant, u64);

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    datagrams: usize,
    held: usize,
}

#[derive(Clone, Debug)]
struct Datagram {
    age: Age,
    /// What it takes of the memory, all overhead included.
    cost: usize,
    /// Length of the whole, known since the last fragment arrived.
    end: Option<usize>,
    received: usize,
    /// By offset. Disjoint, never empty.
    pieces: BTreeMap<usize, Box<[u8]>>,
    quote: Option<Box<[u8]>>,
    /// Why it was given up. It stays until its deadline to swallow the fragments still on their way, which
    /// otherwise might complete another datagram.
    condemned: Option<DropReason>,
}

/// What to do with a fragment of a datagram that is held.
enum Verdict {
    Keep,
    /// Already held, byte for byte.
    Ignore,
    Refuse(DropReason),
    Condemn(DropReason),
}

/// A datagram may come to 65,535 bytes; IPv4 counts its header in.
const MAX_PAYLOAD_V4: usize = 65_535 - crate::wire::ipv4::HEADER_LEN;
const MAX_PAYLOAD_V6: usize = 65_535;

/// A pair that holds more than this part of the memory makes room at its own expense.
const SHARES: usize = 16;

/// What an allocator adds to a block.
const BLOCK: usize = 16;
/// Nodes of a B-tree are at least half full.
const SLACK: usize = 2;
/// Entries of a leaf: a tree of one piece already takes a whole leaf.
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

impl Fragments {
    /// Takes a fragment in and returns the payload of the datagram if that completes it.
    ///
    /// A fragment that is the whole datagram (RFC 6946) does not belong here. Call
    /// [`expire`](Fragments::expire) first: a datagram past its deadline takes nothing more.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        config: &Config,
        key: Key,
        piece: Piece<'_>,
    ) -> Result<Option<Vec<u8>>, DropReason> {
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

    /// When [`expire`](Fragments::expire) has something to do.
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        self.by_age.first_key_value().map(|(age, _)| age.0)
    }

    /// Gives up one datagram whose time is over. Call it until it returns `None`. Those condemned earlier go
    /// without a word, as they were reported then.
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

    /// Incomplete datagrams, condemned ones included.
    pub(crate) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Bytes of memory that they take.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Datagrams given up, ever, to make room for another.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Evicts until the piece fits in, or finds that it cannot.
    ///
    /// The newest datagram is the one most likely to be completed, so the oldest goes: refusing newcomers
    /// instead would let one burst of garbage block reassembly until it expires (T-18). A pair that holds
    /// much pays itself, so that a flood by one source displaces nobody else; a flood from everywhere leaves
    /// each datagram as long as it takes to turn the whole memory over.
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

    /// The oldest datagram of the same pair, other than this one itself.
    fn oldest_of(&self, key: &Key) -> Option<Key> {
        let pair = key.pair();
        let from = Bound::Included((pair, (Instant::ZERO, 0)));
        let to = Bound::Included((pair, (Instant::from_nanos(u64::MAX), u64::MAX)));
        let keys = self.by_pair.range((from, to)).filter_map(|(_, age)| self.by_age.get(age));
        keys.copied().find(|other| other != key)
    }

    /// The oldest datagram of all, other than this one itself.
    fn oldest_but(&self, key: &Key) -> Option<Key> {
        self.by_age.values().copied().find(|other| other != key)
    }

    fn evict(&mut self, key: &Key) {
        if self.release(key).is_some_and(|datagram| datagram.condemned.is_none()) {
            self.evicted += 1;
        }
    }

    fn begin(&mut self, now: Instant, config: &Config, key: Key) {
        // From the fragment that arrived first, whichever it was; later ones do not prolong it (1122-2).
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

    /// Wrong whatever else arrives. Only the fragment itself is dropped then (RFC 8200 §4.5). An empty one adds
    /// nothing and no sender makes it; Linux drops it too.
    fn is_malformed(&self) -> bool {
        let unaligned = self.more && !self.payload.len().is_multiple_of(8);
        self.payload.is_empty() || unaligned || !self.offset.is_multiple_of(8)
    }

    /// It reaches beyond the longest datagram there can be: the ping of death.
    fn is_oversized(&self, key: &Key) -> bool {
        self.end() > if key.source.is_ipv4() { MAX_PAYLOAD_V4 } else { MAX_PAYLOAD_V6 }
    }

    /// What keeping it takes of the memory.
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
        // It can no longer be completed: what it holds is of no use (FragmentSmack, CVE-2018-5391).
        if self.pieces.len() >= config.ipfrag_max_fragments as usize {
            return Verdict::Condemn(DropReason::FragmentLimit);
        }
        Verdict::Keep
    }

    /// The network may duplicate packets, so an exact copy is no overlap (RFC 8200 §4.5). The same place with
    /// other bytes is one.
    fn holds(&self, piece: &Piece<'_>) -> bool {
        let is_last = self.end == Some(piece.end());
        piece.more != is_last && self.pieces.get(&piece.offset).is_some_and(|held| **held == *piece.payload)
    }

    /// Not all that is known of the length of the whole can be true.
    fn contradicts(&self, piece: &Piece<'_>) -> bool {
        let reached = self.pieces.last_key_value().map_or(0, |(offset, held)| offset + held.len());
        match self.end {
            Some(end) => piece.end() > end || !piece.more,
            None => !piece.more && piece.end() < reached,
        }
    }

    fn overlaps(&self, piece: &Piece<'_>) -> bool {
        // Those held are disjoint, so the last one that begins before the end of the piece also ends last.
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
        // They are disjoint and none reaches beyond the end, so there is no gap.
        self.end == Some(self.received)
    }

    fn assemble(self) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.received);
        for piece in self.pieces.values() {
            whole.extend_from_slice(piece);
        }
        whole
    }
}

#[cfg(test)]
mod tests;

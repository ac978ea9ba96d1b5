//! The tracker: takes each segment to its connection, and notes what it means there.

mod acks;
mod data;
mod open;
mod resets;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use hashbrown::HashTable;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::conn::{CLIENT, Conn, Kind, Leap, Previous, SERVER, before, fact, state};
use crate::copies::{Copies, Twin};
use crate::packet::{ACK, Checksum, End, FIN, Icmp, RST, SYN, Segment};

/// Nanoseconds after which a closed connection may leave the table.
const CLOSED_FOR: i64 = 120_000_000_000;
/// Nanoseconds after which an idle connection may leave the table.
const IDLE_FOR: i64 = 3_600_000_000_000;
/// Connections in the table from which on closed ones leave it before the end of the file.
const ROOMY: usize = 16_384;
/// Limit of the addresses whose newest timestamp is kept: what fits a table of 65,536 places.
const STAMPS: usize = 57_344;
/// Twice the maximum segment lifetime: how long TIME-WAIT may last, in nanoseconds.
const TWO_MSL: i64 = 120_000_000_000;

/// A keyed hash of 128 bits, in place of what it is the hash of: nobody can choose two that collide.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key([u64; 2]);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// Takes the hash that a [`Key`] is.
#[derive(Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn write(&mut self, _: &[u8]) {
        // A key is a number.
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type ByKey<V> = HashMap<Key, V, BuildHasherDefault<Taken>>;

/// Makes the keys.
#[derive(Clone, Copy)]
struct Keys(SipHasher13);

impl Keys {
    fn key(self, words: [u128; 2], low: u64) -> Key {
        let mut bytes = [0; 40];
        for (slot, word) in bytes.chunks_exact_mut(16).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        bytes[32..].copy_from_slice(&low.to_le_bytes());
        let mut hasher = self.0;
        hasher.write(&bytes);
        let hash = hasher.finish128();
        Key([hash.h1, hash.h2])
    }

    /// The hash of a connection, whichever end comes first.
    fn connection(self, section: u32, a: End, b: End) -> u64 {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let ports = u64::from(section) << 32 | u64::from(low.port) << 16 | u64::from(high.port);
        self.key([low.address, high.address], ports).0[0]
    }

    /// The key of a client's address and a service.
    fn service(self, client: u128, service: End) -> Key {
        self.key([client, service.address], u64::from(service.port))
    }
}

/// Follows all connections.
pub(crate) struct Tracker {
    keys: Keys,
    /// Indices of `conns`. An entry without its key takes a fifth of the room.
    table: HashTable<u32>,
    conns: Vec<Option<Box<Conn>>>,
    free: Vec<u32>,
    copies: Copies,
    hand: usize,
    /// Connections that have ended, to be judged.
    #[allow(clippy::vec_box, reason = "they come from the table in their boxes")]
    pub(crate) ended: Vec<Box<Conn>>,
    /// Number of connections seen.
    pub(crate) count: u32,
    /// Limit of connections in the table.
    limit: usize,
    /// Connections that left the table because it was full.
    pub(crate) evicted: u64,
    /// Packets of other interfaces: seen before elsewhere, and not.
    pub(crate) twins: u64,
    pub(crate) alone: u64,
    /// Newest timestamp of each client's address towards a service.
    stamps: ByKey<(u32, i64)>,
}

impl Tracker {
    pub(crate) fn new(key: [u64; 2], limit: usize) -> Tracker {
        Tracker {
            keys: Keys(SipHasher13::new_with_keys(key[0], key[1])),
            table: HashTable::new(),
            conns: Vec::new(),
            free: Vec::new(),
            copies: Copies::new(key[0] ^ key[1].rotate_left(32)),
            hand: 0,
            ended: Vec::new(),
            count: 0,
            limit,
            evicted: 0,
            twins: 0,
            alone: 0,
            stamps: ByKey::default(),
        }
    }

    /// Takes in a segment.
    pub(crate) fn segment(&mut self, section: u32, s: &Segment) {
        let twin = self.copies.look(section, s);
        let index = self.find(section, s);
        let Some(conn) = self.conns[index as usize].as_deref_mut() else { return };
        let way = conn.way_of(s);
        if let Twin::Elsewhere { hops } = twin {
            self.twins += 1;
            conn.set(state::TWO_VANTAGES);
            conn.rare().hops[way].get_or_insert(hops);
        }
        if s.interface != conn.interface {
            // The other interface sees the same packets, unless each direction has an interface of its own.
            self.alone += u64::from(twin == Twin::None);
            if self.twins > 0 || self.alone < 64 {
                return;
            }
        }
        conn.last_packet = s.number;
        if let Twin::Copy { packet, after } = twin {
            let tally = &mut conn.trouble(way).copies;
            tally.add(s.number, s.at, s.len, after);
            if tally.count == 1 {
                tally.packets.insert(0, (packet, s.at - after));
            }
            return;
        }
        if self.stamps.len() < STAMPS && s.options.timestamps.is_some() {
            note_stamp(&mut self.stamps, self.keys, conn, way, s);
        }
        follow(conn, way, s);
        self.retire(s.at);
    }

    /// Takes in an ICMP error.
    pub(crate) fn icmp(&mut self, section: u32, icmp: &Icmp) {
        let hash = self.keys.connection(section, icmp.from, icmp.to);
        let index = self.index(hash, section, icmp.from, icmp.to);
        let Some(conn) = index.and_then(|index| self.conns[index as usize].as_deref_mut()) else { return };
        let way = usize::from(icmp.from != conn.ends[CLIENT]);
        let kind = if icmp.is_too_big() {
            Kind::TooBig
        } else if icmp.is_unreachable() {
            Kind::Unreachable
        } else {
            return;
        };
        let value = if icmp.is_too_big() { icmp.mtu } else { icmp.packed() };
        conn.mark_at(way, kind, icmp.number, icmp.at, value);
    }

    /// Ends all connections.
    pub(crate) fn finish(&mut self) {
        for conn in self.conns.drain(..).flatten() {
            self.ended.push(conn);
        }
        self.table.clear();
    }

    /// The index of a segment's connection. Opens one if there is none, or if a SYN begins another incarnation.
    fn find(&mut self, section: u32, s: &Segment) -> u32 {
        let hash = self.keys.connection(section, s.from, s.to);
        let Some(index) = self.index(hash, section, s.from, s.to) else {
            let conn = self.open(section, s);
            let index = self.put(conn);
            let (keys, conns) = (self.keys, &self.conns);
            self.table.insert_unique(hash, index, |index| hash_of(keys, conns, *index));
            return index;
        };
        let begins = match self.conns[index as usize].as_deref() {
            Some(conn) => s.has(SYN) && !s.has(ACK) && open::begins_anew(conn, s),
            None => true,
        };
        if !begins {
            return index;
        }
        let mut conn = self.open(section, s);
        let old = self.conns[index as usize].take();
        if let Some(old) = old {
            conn.rare().previous = Some(previous(&old));
            open::note_reuse(&mut conn, &old, s, TWO_MSL);
            self.ended.push(old);
        }
        self.conns[index as usize] = Some(Box::new(conn));
        index
    }

    /// The index of the connection between two ends.
    fn index(&self, hash: u64, section: u32, a: End, b: End) -> Option<u32> {
        let is_it = |index: &u32| {
            let conn = self.conns[*index as usize].as_deref();
            conn.is_some_and(|conn| conn.section == section && (conn.ends == [a, b] || conn.ends == [b, a]))
        };
        self.table.find(hash, is_it).copied()
    }

    fn open(&mut self, section: u32, s: &Segment) -> Conn {
        self.count += 1;
        let from_client = match (s.has(SYN), s.has(ACK)) {
            (true, acks) => !acks,
            // Without a SYN, the lower port is that of a service.
            (false, _) => s.from.port >= s.to.port,
        };
        let (client, server) = if from_client { (s.from, s.to) } else { (s.to, s.from) };
        Conn::new(self.count, section, client, server, s)
    }

    fn put(&mut self, conn: Conn) -> u32 {
        let conn = Some(Box::new(conn));
        match self.free.pop() {
            Some(index) => {
                self.conns[index as usize] = conn;
                index
            }
            None => {
                self.conns.push(conn);
                self.conns.len() as u32 - 1
            }
        }
    }

    /// Looks at a few connections, and takes those out of the table that are over.
    fn retire(&mut self, now: i64) {
        if self.table.len() <= ROOMY {
            return;
        }
        let full = self.table.len() > self.limit;
        for _ in 0..4 {
            self.hand = (self.hand + 1) % self.conns.len();
            let Some(conn) = self.conns[self.hand].as_deref() else { continue };
            let idle = now - conn.last;
            if full || idle > IDLE_FOR || conn.is_closed() && idle > CLOSED_FOR {
                self.evicted += u64::from(full);
                let hash = hash_of(self.keys, &self.conns, self.hand as u32);
                if let Ok(entry) = self.table.find_entry(hash, |index| *index as usize == self.hand) {
                    entry.remove();
                }
                self.free.push(self.hand as u32);
                self.ended.extend(self.conns[self.hand].take());
            }
        }
    }
}

/// The hash of a connection of the table.
fn hash_of(keys: Keys, conns: &[Option<Box<Conn>>], index: u32) -> u64 {
    let conn = conns[index as usize].as_deref();
    conn.map_or(0, |conn| keys.connection(conn.section, conn.ends[0], conn.ends[1]))
}

fn previous(old: &Conn) -> Previous {
    Previous { n: old.n, last: old.last, last_packet: old.last_packet }
}

/// Keeps the newest timestamp of a client's address, and notes a SYN that is older.
fn note_stamp(stamps: &mut ByKey<(u32, i64)>, keys: Keys, conn: &mut Conn, way: usize, s: &Segment) {
    let Some((value, _)) = s.options.timestamps.filter(|_| way == CLIENT) else { return };
    let service = keys.service(conn.ends[CLIENT].address, conn.ends[SERVER]);
    if s.has(SYN) {
        let known = stamps.get(&service);
        if known.is_some_and(|(newest, at)| before(value, *newest) && s.at - at < 60_000_000_000) {
            conn.set(state::OLD_STAMP);
        }
    } else if conn.is(state::SYN_ACK) {
        // The server took it, so this is what it remembers of the address.
        stamps
            .entry(service)
            .and_modify(|entry| {
                if before(entry.0, value) {
                    *entry = (value, s.at);
                }
            })
            .or_insert((value, s.at));
    }
}

/// Takes a segment into its connection.
fn follow(conn: &mut Conn, way: usize, s: &Segment) {
    if s.options.cut {
        conn.set(state::CUT);
    }
    note_size(conn, way, s);
    if is_corrupt(conn, way, s) {
        return;
    }
    let idle = s.at - conn.last;
    note_leap(conn, way, s);
    conn.last = conn.last.max(s.at);
    conn.ways[way].packets += 1;
    if s.has(RST) {
        if !open::resets_before(conn, way, s) {
            resets::reset(conn, way, s);
        }
        return;
    }
    if conn.ways[way].is(fact::RST) {
        conn.ways[way].after_reset = conn.ways[way].after_reset.saturating_add(1);
    }
    if s.has(SYN) {
        open::syn(conn, way, s);
        return;
    }
    if open::is_of_before(conn, way, s) {
        return;
    }
    if idle > 5_000_000_000 {
        let millis = (idle / 1_000_000).min(i64::from(u32::MAX));
        conn.mark(way, Kind::AfterIdle, s, millis as u32);
    }
    note_sender(conn, way, s);
    if s.has(ACK) {
        acks::acknowledge(conn, way, s);
    }
    open::establish(conn, way, s);
    let probe = data::probe(conn, way, s, idle);
    if !probe && (s.len > 0 || s.has(FIN)) {
        data::send(conn, way, s);
    }
    let sender = &mut conn.ways[way];
    sender.last_at = s.at;
    if !probe {
        sender.window = s.window;
        sender.max_window = sender.max_window.max(s.window);
    }
}

/// Notes a pause that neither end's timestamps know. Near one end at least, a timestamp is as old as its packet.
fn note_leap(conn: &mut Conn, way: usize, s: &Segment) {
    /// Ticks that tell the pace of an end's clock.
    const MEASURED: u32 = 8;
    /// The least step that is told.
    const STEP: i64 = 1_000_000_000;
    let Some((value, _)) = s.options.timestamps.filter(|_| !s.has(RST)) else { return };
    let w = &mut conn.ways[way];
    if !w.is(fact::STAMPED) {
        w.set(fact::STAMPED);
        (w.first_stamp, w.first_stamp_at) = (value, s.at);
        w.stamp = value;
        return;
    }
    let (known, passed) = (w.last_at, s.at - w.last_at);
    let (ticks, before) = (value.wrapping_sub(w.stamp), w.stamp.wrapping_sub(w.first_stamp));
    w.stamp = value;
    if passed < STEP || before < MEASURED || ticks.max(before) > 1 << 30 {
        return;
    }
    // The pace so far, with room for delays on the path.
    let tick = (known - w.first_stamp_at).max(0) / i64::from(before - 1) * 2;
    if passed.saturating_sub((i64::from(ticks) + 1).saturating_mul(tick)) < STEP {
        return;
    }
    let last = conn.last;
    let leap = conn.rare.as_mut().and_then(|rare| rare.leap.as_mut());
    match leap {
        Some(leap) if leap.sure => {}
        Some(leap) if usize::from(leap.way) != way && known < leap.at && s.at - leap.at < STEP => {
            leap.sure = true
        }
        _ if s.at - last >= STEP => {
            let lasted = s.at - last;
            conn.rare().leap = Some(Leap { packet: s.number, at: s.at, lasted, way: way as u8, sure: false });
        }
        _ => {}
    }
}

/// Notes what identifies the sender: TTL, identifications, timestamps.
fn note_sender(conn: &mut Conn, way: usize, s: &Segment) {
    note_ttl(conn, way, s);
    let w = &mut conn.ways[way];
    if !w.is(fact::SEEN) {
        w.set(fact::SEEN);
        w.ttl = s.ttl;
    } else {
        let step = s.id.wrapping_sub(w.id);
        if (1..=256).contains(&step) {
            w.id_steps = w.id_steps.saturating_add(1);
            if w.id_steps >= 8 {
                w.set(fact::IDS_GROW);
            }
        } else if !(0xff00..=0xffff).contains(&step) {
            w.id_steps = 0;
            w.clear(fact::IDS_GROW);
        }
    }
}

/// Notes a TTL that is not that of the sender. One that stays is its TTL from then on.
fn note_ttl(conn: &mut Conn, way: usize, s: &Segment) {
    /// Segments in a row with which another TTL stays.
    const STAYS: u8 = 3;
    /// Limit of the marks of single segments.
    const SINGLE: usize = 8;
    let w = &mut conn.ways[way];
    if !w.is(fact::SEEN) || w.ttl == s.ttl {
        w.other_ttls = 0;
        return;
    }
    let old = w.ttl;
    w.other_ttls = if w.other_ttl == s.ttl { w.other_ttls + 1 } else { 1 };
    w.other_ttl = s.ttl;
    if w.other_ttls == STAYS {
        (w.ttl, w.other_ttls) = (s.ttl, 0);
        conn.mark(way, Kind::TtlChange, s, u32::from(old) << 8 | u32::from(s.ttl));
    } else if s.len > 0 && old.abs_diff(s.ttl) >= 2 && conn.marks_of(way, Kind::OddTtl).count() < SINGLE {
        conn.mark(way, Kind::OddTtl, s, u32::from(s.ttl));
    }
}

/// Whether the path has damaged the segment. The end does not take it, and so neither do we.
fn is_corrupt(conn: &mut Conn, way: usize, s: &Segment) -> bool {
    let w = &mut conn.ways[way];
    match s.checksum {
        Checksum::Unknown => false,
        Checksum::Good => {
            w.good = w.good.saturating_add(1);
            false
        }
        Checksum::Partial => {
            w.partial = w.partial.saturating_add(1);
            false
        }
        Checksum::Bad => {
            w.bad = w.bad.saturating_add(1);
            let odd = w.good >= 2 && w.bad < w.good && w.partial == 0;
            if odd {
                conn.trouble(way).corrupt.add(s.number, s.at, s.len, 0);
                conn.mark(way, Kind::Corrupt, s, s.len);
            }
            odd
        }
    }
}

/// Notes a segment larger than any that the path carries.
fn note_size(conn: &mut Conn, way: usize, s: &Segment) {
    let peer = &conn.ways[1 - way];
    let largest = if peer.is(fact::SYN) { u32::from(peer.mss.max(536)) } else { 9216 };
    if s.offload || s.len > largest {
        conn.set(state::OFFLOAD);
        let first = &mut conn.trouble(way).offload;
        if *first == 0 {
            *first = s.number;
        }
    }
}

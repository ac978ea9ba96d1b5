//! The neighbour cache: the hardware addresses of the hosts of a link, and the packets that wait for them (RFC 4861 §5,
//! §7.3). ARP has the same states, as in Linux.
//!
//! Hosts of the link can claim anything, so a claim has little weight. It makes no entry above `gc_thresh2`, it displaces
//! none, and a changed hardware address is used only until the next probe fails to confirm it.
// THREAT-84, THREAT-85, THREAT-86

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crate::config::Config;
use crate::counters::Counters;
use crate::ip::routes::InterfaceId;
use crate::table::Table;
use crate::time::{Duration, Instant};
use crate::wire::ethernet::Address;

/// The state of a neighbour: RFC 4861 §7.3.2, with FAILED and PERMANENT of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NeighbourState {
    /// Its hardware address is sought; packets wait.
    Incomplete,
    /// It was confirmed lately.
    Reachable,
    /// It was reachable once. The next packet leads to a probe.
    Stale,
    /// A packet was sent to it, and a probe follows.
    Delay,
    /// It is asked whether it is still there.
    Probe,
    /// It did not answer.
    Failed,
    /// The user named its hardware address.
    Permanent,
}

/// The form of `ip neigh`.
impl std::fmt::Display for NeighbourState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NeighbourState::Incomplete => "INCOMPLETE",
            NeighbourState::Reachable => "REACHABLE",
            NeighbourState::Stale => "STALE",
            NeighbourState::Delay => "DELAY",
            NeighbourState::Probe => "PROBE",
            NeighbourState::Failed => "FAILED",
            NeighbourState::Permanent => "PERMANENT",
        })
    }
}

/// A neighbour, as [`Stack::neighbours`](crate::Stack::neighbours) lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// The interface to its link.
    pub interface: InterfaceId,
    /// Its hardware address, if it is known.
    pub hardware: Option<Address>,
    /// The state of the entry.
    pub state: NeighbourState,
}

/// The form of `ip neigh`.
impl std::fmt::Display for Neighbour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} dev {}", self.address, self.interface.index())?;
        if let Some(hardware) = self.hardware {
            write!(f, " lladdr {hardware}")?;
        }
        write!(f, " {}", self.state)
    }
}

/// A packet that waits for a hardware address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) packet: Box<[u8]>,
    pub(crate) segment_size: Option<u16>,
    pub(crate) checksum_offload: bool,
}

impl Waiting {
    /// The memory of a packet, with what stands around it.
    fn cost(&self) -> usize {
        self.packet.len() + Waiting::OVERHEAD
    }

    pub(crate) const OVERHEAD: usize = 64;
}

/// The interface and the address of a neighbour.
pub(crate) type Key = (InterfaceId, IpAddr);

#[derive(Clone, Debug)]
struct Row {
    key: Key,
    hardware: Address,
    state: NeighbourState,
    /// Solicitations since the state was entered.
    probes: u8,
    deadline: Option<Instant>,
    /// The time when the hardware address last changed.
    updated: Instant,
    /// The place among the rows that may give way.
    rank: Option<Rank>,
    waiting: VecDeque<Waiting>,
    /// Their cost.
    held: usize,
}

/// The order in which rows give way: those that failed, those that did not answer the first solicitation, those that
/// nobody used for the longest time.
type Rank = (Worth, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Failed,
    Silent,
    Stale,
}

/// How the hardware address of a neighbour became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The neighbour asked us, so we will talk to it.
    Asking,
    /// It claims the address. `solicited`: to us alone. `overrides`: a known hardware address is replaced.
    Claiming { solicited: bool, overrides: bool },
}

/// The fate of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The entry agrees with it now, or needs no change.
    Taken,
    /// There is no entry, and none is made.
    Unknown,
    /// The hardware address changed less than `locktime` ago.
    Locked,
}

/// The answer to the question for a hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// The address.
    To(Address),
    /// The packet must wait in this row. `ask`: with the first solicitation.
    Wait { row: u32, ask: bool },
    /// The cache is full.
    Full,
}

/// The effect of a timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// A solicitation: to the hardware address, or to all if there is none.
    Ask(Key, Option<Address>),
    /// The neighbour does not answer: these packets are lost.
    Failed(Vec<Waiting>),
    /// Nothing.
    Settled,
}

/// The neighbours of all links.
#[derive(Clone, Debug, Default)]
pub(crate) struct Neighbours {
    rows: Table<Row>,
    index: BTreeMap<Key, u32>,
    timers: BTreeSet<(Instant, u32)>,
    /// The rows that may give way.
    idle: BTreeSet<(Rank, u32)>,
    /// Numbers the rows as they come to rest.
    rested: u64,
    /// The cost of all waiting packets.
    held: usize,
    /// Changes when a row goes: then its number may come to mean another one.
    generation: u32,
}

impl Neighbours {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The memory of waiting packets.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// A number that changes when a row goes.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Neighbour> + '_ {
        self.index.values().map(|&at| {
            let row = &self.rows[at];
            let hardware = (row.hardware != Address::UNSPECIFIED).then_some(row.hardware);
            Neighbour { address: row.key.1, interface: row.key.0, hardware, state: row.state }
        })
    }

    /// Returns the row of a neighbour.
    pub(crate) fn find(&self, key: &Key) -> Option<u32> {
        self.index.get(key).copied()
    }

    /// Returns the hardware address of a row for a packet that is about to leave. A row that has none begins to look for
    /// it.
    #[inline]
    pub(crate) fn hardware(&mut self, now: Instant, config: &Config, at: u32) -> Resolved {
        match self.rows[at].state {
            NeighbourState::Reachable
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent => Resolved::To(self.rows[at].hardware),
            _ => self.hardware_at_rest(now, config, at),
        }
    }

    #[cold]
    fn hardware_at_rest(&mut self, now: Instant, config: &Config, at: u32) -> Resolved {
        match self.rows[at].state {
            NeighbourState::Incomplete => Resolved::Wait { row: at, ask: false },
            NeighbourState::Failed => {
                self.ask(now, config, at);
                Resolved::Wait { row: at, ask: true }
            }
            _ => {
                self.enter(at, NeighbourState::Delay, Some(now + config.delay_first_probe_time));
                Resolved::To(self.rows[at].hardware)
            }
        }
    }

    /// As [`hardware`](Neighbours::hardware), for a neighbour whose row is not known. It is added.
    pub(crate) fn resolve(
        &mut self,
        now: Instant,
        config: &Config,
        counters: &mut Counters,
        key: Key,
    ) -> Resolved {
        if let Some(at) = self.find(&key) {
            return self.hardware(now, config, at);
        }
        if self.rows.len() >= config.gc_thresh3 as usize && !self.evict(counters) {
            counters.neigh_table_fulls += 1;
            return Resolved::Full;
        }
        let at = self.add(now, key, NeighbourState::Incomplete);
        self.ask(now, config, at);
        Resolved::Wait { row: at, ask: true }
    }

    fn add(&mut self, now: Instant, key: Key, state: NeighbourState) -> u32 {
        let row = Row {
            key,
            hardware: Address::UNSPECIFIED,
            state,
            probes: 0,
            deadline: None,
            updated: now,
            rank: None,
            waiting: VecDeque::new(),
            held: 0,
        };
        let at = self.rows.insert(row);
        self.index.insert(key, at);
        at
    }

    /// Begins to look for the hardware address. The caller sends the first solicitation.
    fn ask(&mut self, now: Instant, config: &Config, at: u32) {
        self.rows[at].hardware = Address::UNSPECIFIED;
        self.enter(at, NeighbourState::Incomplete, Some(now + config.retrans_time));
        self.rows[at].probes = 1;
    }

    /// Lets a packet wait. The oldest packets of the neighbour give way to it (`unres_qlen_bytes`).
    pub(crate) fn hold(&mut self, config: &Config, counters: &mut Counters, at: u32, packet: Waiting) {
        let cost = packet.cost();
        let row = &mut self.rows[at];
        let full = |row: &Row, held: usize| {
            row.held + cost > config.unres_qlen_bytes as usize || held + cost > config.neigh_mem as usize
        };
        while full(row, self.held)
            && let Some(gone) = row.waiting.pop_front()
        {
            row.held -= gone.cost();
            self.held -= gone.cost();
            counters.neigh_unresolved_discards += 1;
        }
        if full(row, self.held) {
            counters.neigh_unresolved_discards += 1;
            return;
        }
        row.held += cost;
        self.held += cost;
        row.waiting.push_back(packet);
    }

    /// Takes all packets that wait in a row.
    fn release(&mut self, at: u32) -> VecDeque<Waiting> {
        let row = &mut self.rows[at];
        self.held -= std::mem::take(&mut row.held);
        std::mem::take(&mut row.waiting)
    }

    /// Takes in what a host of the link said about a neighbour's hardware address. `released` gets the packets that
    /// waited for it.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        config: &Config,
        (key, hardware, told): (Key, Address, Told),
        reachable: Duration,
        released: &mut VecDeque<Waiting>,
    ) -> Heard {
        let Some(at) = self.find(&key) else {
            // The answer goes to the hardware address that asked, so no entry is needed for it.
            if told == Told::Asking && self.rows.len() < config.gc_thresh2 as usize {
                let at = self.add(now, key, NeighbourState::Stale);
                self.rows[at].hardware = hardware;
                self.enter(at, NeighbourState::Stale, None);
                return Heard::Taken;
            }
            return if told == Told::Asking { Heard::Taken } else { Heard::Unknown };
        };
        let row = &mut self.rows[at];
        let asked = matches!(row.state, NeighbourState::Incomplete | NeighbourState::Probe);
        let (confirms, overrides) = match told {
            Told::Asking => (false, true),
            // A confirmation that was not asked for confirms nothing.
            Told::Claiming { solicited, overrides } => (solicited && asked, overrides),
        };
        let unknown = row.hardware == Address::UNSPECIFIED;
        let differs = row.hardware != hardware;
        if row.state == NeighbourState::Permanent {
            return Heard::Taken;
        }
        if differs && !unknown {
            if !overrides {
                if row.state == NeighbourState::Reachable {
                    self.enter(at, NeighbourState::Stale, None);
                }
                return Heard::Taken;
            }
            if now < row.updated + config.locktime {
                return Heard::Locked;
            }
        }
        if differs {
            (row.hardware, row.updated) = (hardware, now);
        }
        if confirms {
            self.enter(at, NeighbourState::Reachable, Some(now + reachable));
        } else if differs {
            self.enter(at, NeighbourState::Stale, None);
        }
        if unknown {
            released.append(&mut self.release(at));
        }
        Heard::Taken
    }

    /// Sets the hardware address of a neighbour for good, and returns the packets that waited for it. `None`: the cache is
    /// full.
    pub(crate) fn set(
        &mut self,
        now: Instant,
        config: &Config,
        counters: &mut Counters,
        key: Key,
        hardware: Address,
    ) -> Option<VecDeque<Waiting>> {
        let at = match self.find(&key) {
            Some(at) => at,
            None if self.rows.len() >= config.gc_thresh3 as usize && !self.evict(counters) => return None,
            None => self.add(now, key, NeighbourState::Permanent),
        };
        self.rows[at].hardware = hardware;
        self.enter(at, NeighbourState::Permanent, None);
        Some(self.release(at))
    }

    /// Returns the next time for [`expire`](Neighbours::expire).
    #[inline]
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Runs the next timer that is due.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        config: &Config,
        counters: &mut Counters,
    ) -> Option<Expired> {
        let at = self.timers.first().filter(|(deadline, _)| *deadline <= now)?.1;
        let again = Some(now + config.retrans_time);
        let row = &mut self.rows[at];
        let (key, hardware, probes) = (row.key, row.hardware, row.probes);
        Some(match row.state {
            NeighbourState::Incomplete if probes < config.mcast_solicit => {
                row.probes += 1;
                self.set_deadline(at, again);
                self.rank(at, Some(Worth::Silent));
                Expired::Ask(key, None)
            }
            NeighbourState::Delay => {
                self.enter(at, NeighbourState::Probe, again);
                self.rows[at].probes = 1;
                Expired::Ask(key, Some(hardware))
            }
            NeighbourState::Probe if probes < config.ucast_solicit => {
                row.probes += 1;
                self.set_deadline(at, again);
                Expired::Ask(key, Some(hardware))
            }
            NeighbourState::Incomplete | NeighbourState::Probe => {
                counters.neigh_res_failed += 1;
                self.enter(at, NeighbourState::Failed, None);
                Expired::Failed(self.release(at).into())
            }
            NeighbourState::Reachable => {
                self.enter(at, NeighbourState::Stale, None);
                Expired::Settled
            }
            NeighbourState::Stale | NeighbourState::Failed | NeighbourState::Permanent => {
                self.set_deadline(at, None);
                Expired::Settled
            }
        })
    }

    /// Removes a neighbour. Returns whether it was there.
    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        let found = self.find(key);
        found.into_iter().for_each(|at| self.take(at));
        found.is_some()
    }

    /// Removes the neighbours of an interface.
    pub(crate) fn remove_interface(&mut self, interface: InterfaceId) {
        let gone: Vec<_> = self.index.keys().filter(|key| key.0 == interface).copied().collect();
        gone.iter().for_each(|key| _ = self.remove(key));
    }

    /// Removes the row that is worth least. Returns whether there was one that may go.
    fn evict(&mut self, counters: &mut Counters) -> bool {
        let Some(&(_, at)) = self.idle.first() else { return false };
        counters.neigh_unresolved_discards += self.rows[at].waiting.len() as u64;
        counters.neigh_forced_gc_runs += 1;
        self.take(at);
        true
    }

    fn take(&mut self, at: u32) {
        self.set_deadline(at, None);
        self.rank(at, None);
        self.release(at);
        let row = self.rows.remove(at);
        self.index.remove(&row.key);
        self.generation = self.generation.wrapping_add(1);
    }

    fn enter(&mut self, at: u32, state: NeighbourState, deadline: Option<Instant>) {
        let row = &mut self.rows[at];
        (row.state, row.probes) = (state, 0);
        self.set_deadline(at, deadline);
        self.rank(
            at,
            match state {
                NeighbourState::Failed => Some(Worth::Failed),
                NeighbourState::Stale => Some(Worth::Stale),
                _ => None,
            },
        );
    }

    fn set_deadline(&mut self, at: u32, deadline: Option<Instant>) {
        let before = std::mem::replace(&mut self.rows[at].deadline, deadline);
        before.into_iter().for_each(|before| _ = self.timers.remove(&(before, at)));
        deadline.into_iter().for_each(|deadline| _ = self.timers.insert((deadline, at)));
    }

    fn rank(&mut self, at: u32, worth: Option<Worth>) {
        self.rested += 1;
        let rank = worth.map(|worth| (worth, self.rested));
        let before = std::mem::replace(&mut self.rows[at].rank, rank);
        before.into_iter().for_each(|before| _ = self.idle.remove(&(before, at)));
        rank.into_iter().for_each(|rank| _ = self.idle.insert((rank, at)));
    }

    /// Recounts what is maintained, and returns the first difference.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut held = 0;
        for (at, row) in self.rows.iter() {
            let cost: usize = row.waiting.iter().map(Waiting::cost).sum();
            held += cost;
            let timed = row.deadline.is_none_or(|deadline| self.timers.contains(&(deadline, at)));
            let ranked = row.rank.is_none_or(|rank| self.idle.contains(&(rank, at)));
            let waits = row.waiting.is_empty() || row.state == NeighbourState::Incomplete;
            if row.held != cost || !timed || !ranked || !waits || self.find(&row.key) != Some(at) {
                return Err(format!("neighbour {:?}: {row:?}", row.key));
            }
        }
        let timers = self.rows.iter().filter(|(_, row)| row.deadline.is_some()).count();
        let ranks = self.rows.iter().filter(|(_, row)| row.rank.is_some()).count();
        let counted = (held, self.rows.len(), timers, ranks);
        let kept = (self.held, self.index.len(), self.timers.len(), self.idle.len());
        if counted == kept { Ok(()) } else { Err(format!("neighbours: {kept:?} for {counted:?}")) }
    }
}

//! The record of a run, in order of time: the source of ladders, captures and judgements.

use std::net::SocketAddr;

use bytes::Bytes;
use steadfast_core::Instant;
use steadfast_core::trace::State;
use steadfast_core::wire::tcp::Header;

use crate::fault::{Sighted, SightedTcp};
use crate::stream::Map;

/// Limit of recorded segments in one run. A flood is not worth more.
const SEGMENTS: usize = 20_000;
/// Limit of recorded states and notes.
const NOTES: usize = 20_000;
/// Limit of tuples per host whose states are recorded.
const TUPLES: usize = 2_000;

/// A packet on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) at: Instant,
    pub(crate) from: Option<usize>,
    pub(crate) to: Option<usize>,
    /// Index of the flow, in order of appearance.
    pub(crate) flow: Option<usize>,
    pub(crate) tcp: Option<(SightedTcp, Header)>,
    pub(crate) icmp: bool,
    /// Description of a packet that is not TCP.
    pub(crate) text: String,
    pub(crate) size: usize,
    /// No stack sent it.
    pub(crate) forged: bool,
    pub(crate) fates: Vec<Fate>,
}

impl Segment {
    /// The segment as a pattern sees it.
    pub(crate) fn sighted<'a>(&self, names: &'a [String]) -> Sighted<'a> {
        let name = |host: Option<usize>| host.map(|host| names[host].as_str());
        Sighted {
            at: self.at,
            from: if self.forged { None } else { name(self.from) },
            to: name(self.to),
            tcp: self.tcp.map(|(tcp, _)| tcp),
            icmp: self.icmp,
            size: self.size,
        }
    }
}

/// The fate of a packet or of a copy of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrived.
    Arrived { at: Instant, note: String },
    /// It was lost, and why.
    Lost(String),
}

/// An entry of the record.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Segment(Segment),
    State {
        at: Instant,
        host: usize,
        tuple: usize,
        from: State,
        to: State,
    },
    /// A host began to listen, or stopped.
    Listening {
        at: Instant,
        host: usize,
        on: bool,
    },
    /// An action of a host's application or stack; without a host, of the network.
    Note {
        at: Instant,
        host: Option<usize>,
        ends: Option<(SocketAddr, SocketAddr)>,
        text: String,
    },
}

impl Entry {
    pub(crate) fn at(&self) -> Instant {
        match self {
            Entry::Segment(segment) => segment.at,
            Entry::State { at, .. } | Entry::Listening { at, .. } | Entry::Note { at, .. } => *at,
        }
    }
}

/// A packet as one host saw it.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    pub(crate) at: Instant,
    pub(crate) host: usize,
    pub(crate) outbound: bool,
    pub(crate) bytes: Bytes,
    /// Its segment in the record.
    pub(crate) entry: Option<usize>,
    /// The faults that hit it on the path.
    pub(crate) note: String,
}

/// The states of one pair of endpoints at one host.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// The same endpoints without NAT translation.
    pub(crate) key: (SocketAddr, SocketAddr),
    /// Each state with the time it was entered; the first is the initial state.
    pub(crate) states: Vec<(Instant, State)>,
}

impl History {
    pub(crate) fn state_at(&self, at: Instant) -> State {
        let before = self.states.iter().rev().find(|(since, _)| *since <= at);
        before.or(self.states.first()).map_or(State::Closed, |(_, state)| *state)
    }

    /// The states between two times, the state at `from` included.
    pub(crate) fn states_between(&self, from: Instant, to: Instant) -> impl Iterator<Item = State> {
        let within = self.states.iter().filter(move |(since, _)| from < *since && *since <= to);
        std::iter::once(self.state_at(from)).chain(within.map(|(_, state)| *state))
    }
}

/// The record of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    on: bool,
    pub(crate) entries: Vec<Entry>,
    segments: usize,
    notes: usize,
    /// Number of packets that were not recorded.
    pub(crate) unrecorded: u64,
    /// For each host, its tuples in order of appearance.
    pub(crate) histories: Vec<Vec<History>>,
    tuples: Map<(usize, SocketAddr, SocketAddr), usize>,
    pub(crate) captures: Option<Vec<Captured>>,
}

impl Record {
    pub(crate) fn new(hosts: usize, on: bool, capture: bool) -> Record {
        Record {
            on,
            histories: vec![Vec::new(); hosts],
            captures: capture.then(Vec::new),
            ..Record::default()
        }
    }

    /// Records a segment. Returns its index, so that its fate can be added.
    pub(crate) fn segment(&mut self, segment: Segment) -> Option<usize> {
        if !self.on {
            return None;
        }
        if self.segments == SEGMENTS {
            self.unrecorded += 1;
            return None;
        }
        self.segments += 1;
        self.entries.push(Entry::Segment(segment));
        Some(self.entries.len() - 1)
    }

    pub(crate) fn fate(&mut self, entry: Option<usize>, fate: Fate) {
        if let Some(Entry::Segment(segment)) = entry.and_then(|index| self.entries.get_mut(index)) {
            segment.fates.push(fate);
        }
    }

    pub(crate) fn note(&mut self, at: Instant, host: Option<usize>, text: impl FnOnce() -> String) {
        self.note_about(at, host, None, text);
    }

    /// Records a note about the connection between these endpoints.
    pub(crate) fn note_about(
        &mut self,
        at: Instant,
        host: Option<usize>,
        ends: Option<(SocketAddr, SocketAddr)>,
        text: impl FnOnce() -> String,
    ) {
        if self.on && self.notes < NOTES {
            self.notes += 1;
            self.entries.push(Entry::Note { at, host, ends, text: text() });
        }
    }

    /// Returns the index of a tuple in the history of a host, and adds a new tuple.
    pub(crate) fn tuple(
        &mut self,
        host: usize,
        (local, remote): (SocketAddr, SocketAddr),
        key: (SocketAddr, SocketAddr),
        first: State,
    ) -> Option<usize> {
        if !self.on {
            return None;
        }
        if let Some(found) = self.tuples.get(&(host, local, remote)) {
            return Some(*found);
        }
        let histories = &mut self.histories[host];
        if histories.len() == TUPLES {
            return None;
        }
        histories.push(History { local, remote, key, states: vec![(Instant::ZERO, first)] });
        self.tuples.insert((host, local, remote), histories.len() - 1);
        Some(histories.len() - 1)
    }

    pub(crate) fn state(&mut self, at: Instant, host: usize, tuple: usize, from: State, to: State) {
        let states = &mut self.histories[host][tuple].states;
        if states.last().is_some_and(|(_, last)| *last != from) {
            states.push((at, from));
        }
        states.push((at, to));
        if self.notes < NOTES {
            self.notes += 1;
            self.entries.push(Entry::State { at, host, tuple, from, to });
        }
    }

    pub(crate) fn listening(&mut self, at: Instant, host: usize, on: bool) {
        self.entries.push(Entry::Listening { at, host, on });
    }

    pub(crate) fn capture(&mut self, captured: impl FnOnce() -> Captured) {
        if let Some(captures) = &mut self.captures
            && captures.len() < SEGMENTS * 4
        {
            captures.push(captured());
        }
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Segment(segment) => Some(segment),
            _ => None,
        })
    }
}

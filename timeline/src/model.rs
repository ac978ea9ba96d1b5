//! The model: events in order of time, the flows of their packets, and the history of each connection.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use steadfast_core::Instant;
use steadfast_core::counters::ReplyReason;
use steadfast_core::info::Info;
use steadfast_core::time::Duration;
use steadfast_core::trace::{State, TraceKind};
use steadfast_core::wire::tcp::Header;

use crate::Map;
use crate::event::{Captured, Ends, Event, Fate, Host, Packet, Segment};
use crate::flows::Flows;
use crate::view::{self, Kind, View};

/// Limit of packets in one timeline. A flood is not worth more.
const PACKETS: usize = 20_000;
/// Limit of states, and of calls and notes.
const NOTES: usize = 20_000;
/// Limit of connections per host whose states are recorded.
const HISTORIES: usize = 2_000;

/// The states of one connection at one host.
#[derive(Clone, Debug)]
pub struct History {
    /// Its endpoints, as the host knows them.
    pub ends: Ends,
    /// Its endpoints without a NAT, as both hosts know themselves.
    pub inner: Ends,
    /// Each state with the time it was entered; the first is the initial state.
    pub states: Vec<(Instant, State)>,
}

impl History {
    /// The state at a time.
    pub fn state_at(&self, at: Instant) -> State {
        let before = self.states.iter().rev().find(|(since, _)| *since <= at);
        before.or(self.states.first()).map_or(State::Closed, |(_, state)| *state)
    }

    /// The states between two times, the state at `from` included.
    pub fn states_between(&self, from: Instant, to: Instant) -> impl Iterator<Item = State> {
        let within = self.states.iter().filter(move |(since, _)| from < *since && *since <= to);
        std::iter::once(self.state_at(from)).chain(within.map(|(_, state)| *state))
    }
}

/// The parts of a timeline that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Events and histories.
    pub events: bool,
    /// The bytes of packets, for a capture.
    pub bytes: bool,
    /// The numbers that stacks tell of their connections.
    pub info: bool,
}

/// The events of some hosts, and all that is derived from them.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// The hosts. Pictures show the second on the right.
    pub hosts: Vec<Host>,
    /// The events, in the order in which they were added.
    pub events: Vec<Event>,
    /// The flows of the packets.
    pub flows: Flows,
    /// For each host, its connections in order of appearance.
    pub histories: Vec<Vec<History>>,
    /// The packets that passed the interfaces of hosts, if their bytes are kept.
    pub captured: Vec<Captured>,
    /// Number of packets beyond the limit.
    pub unrecorded: u64,
    keep: Keep,
    packets: usize,
    limit: Option<usize>,
    notes: usize,
    known: Map<(usize, SocketAddr, SocketAddr), usize>,
    infos: usize,
    told: Map<(usize, SocketAddr, SocketAddr), Told>,
}

/// The last numbers of a connection, without those that change by themselves, and when its timers are due.
type Told = (Info, [Option<Instant>; 4]);

impl Timeline {
    /// An empty timeline.
    pub fn new(hosts: Vec<Host>, keep: Keep) -> Timeline {
        Timeline { histories: vec![Vec::new(); hosts.len()], hosts, keep, ..Timeline::default() }
    }

    /// The same with another limit of packets.
    pub fn with_limit(self, packets: usize) -> Timeline {
        Timeline { limit: Some(packets), ..self }
    }

    /// The host with an address.
    pub fn host_with(&self, address: IpAddr) -> Option<usize> {
        self.hosts.iter().position(|host| host.addresses.contains(&address))
    }

    /// Adds a packet that `from` sends, given its bytes. Returns its index for [`Timeline::fate`].
    pub fn sent(&mut self, at: Instant, from: usize, bytes: &Bytes) -> Option<usize> {
        let view = View::new(bytes)?;
        let mut packet = Packet {
            at,
            number: None,
            from: Some(from),
            to: self.host_with(view.destination),
            flow: None,
            tcp: None,
            udp: view.datagram(bytes),
            icmp: matches!(view.kind, Kind::Icmp),
            text: view::text(bytes),
            size: bytes.len(),
            forged: false,
            fates: Vec::new(),
        };
        if let (Kind::Tcp { header, payload }, Some(ends)) = (&view.kind, view.ends()) {
            self.number(&mut packet, from, ends, header, payload.len());
        }
        let event = self.packet(packet);
        let captured =
            || Captured { at, host: from, outbound: true, bytes: bytes.clone(), event, note: String::new() };
        self.capture(captured);
        event
    }

    /// Adds a segment that one host sends to another, given its header and the length of its payload. Where the SYN of a
    /// connection is missing, its numbers are relative to the first that are seen.
    pub fn segment(
        &mut self,
        at: Instant,
        (from, to): (usize, usize),
        ends: Ends,
        header: &Header,
        len: usize,
    ) -> Option<usize> {
        let found = self.flows.find_or_open(ends.0, ends.1);
        self.flows.begin(found, header);
        let mut packet = Packet {
            at,
            number: None,
            from: Some(from),
            to: Some(to),
            flow: None,
            tcp: None,
            udp: None,
            icmp: false,
            text: String::new(),
            size: 0,
            forged: false,
            fates: Vec::new(),
        };
        self.number(&mut packet, from, ends, header, len);
        self.packet(packet)
    }

    /// Gives a packet its segment, with the numbers of its flow.
    fn number(&mut self, packet: &mut Packet, from: usize, ends: Ends, header: &Header, len: usize) {
        let history = self.known.get(&(from, ends.0, ends.1)).map(|i| &self.histories[from][*i]);
        let state = history.map_or(State::Closed, |history| history.state_at(packet.at));
        let mut segment = Segment::new(header, len, state);
        let found = self.flows.find_or_open(ends.0, ends.1);
        self.flows.sent(found, header, len).number(&mut segment);
        packet.flow = Some(found.0);
        packet.tcp = Some((segment, *header));
    }

    /// Adds the arrival of a packet, given its bytes.
    pub fn arrived(&mut self, at: Instant, host: usize, bytes: &Bytes, event: Option<usize>) {
        self.fate(event, Fate::Arrived { at, note: String::new() });
        if let Some(view) = View::new(bytes)
            && let (Kind::Tcp { header, payload }, Some((source, destination))) = (&view.kind, view.ends())
            && let Some(found) = self.flows.find(source, destination)
        {
            self.flows.arrived(found, header, payload.len());
        }
        let captured =
            || Captured { at, host, outbound: false, bytes: bytes.clone(), event, note: String::new() };
        self.capture(captured);
    }

    /// Adds a packet. Returns its index, so that its fate can be added.
    pub fn packet(&mut self, packet: Packet) -> Option<usize> {
        if !self.keep.events {
            return None;
        }
        if self.packets == self.limit.unwrap_or(PACKETS) {
            self.unrecorded += 1;
            return None;
        }
        self.packets += 1;
        self.events.push(Event::Packet(packet));
        Some(self.events.len() - 1)
    }

    /// Adds the fate of a packet or of a copy of it.
    pub fn fate(&mut self, event: Option<usize>, fate: Fate) {
        if let Some(Event::Packet(packet)) = event.and_then(|index| self.events.get_mut(index)) {
            packet.fates.push(fate);
        }
    }

    /// Adds a socket call or its result.
    pub fn call(&mut self, at: Instant, host: usize, text: impl FnOnce() -> String) {
        self.add(|| Event::Call { at, host, text: text() });
    }

    /// Adds a note about a host, or about the network.
    pub fn note(&mut self, at: Instant, host: Option<usize>, text: impl FnOnce() -> String) {
        self.add(|| Event::Note { at, host, ends: None, text: text() });
    }

    /// Adds a note about a connection of a host.
    pub fn note_about(&mut self, at: Instant, host: usize, ends: Ends, text: impl FnOnce() -> String) {
        self.add(|| Event::Note { at, host: Some(host), ends: Some(ends), text: text() });
    }

    fn add(&mut self, event: impl FnOnce() -> Event) {
        if self.keep.events && self.notes < NOTES {
            self.notes += 1;
            self.events.push(event());
        }
    }

    /// Adds a change of state. `ends` are the endpoints that the host knows; `inner` are those without a NAT.
    pub fn state(&mut self, at: Instant, host: usize, ends: Ends, inner: Ends, from: State, to: State) {
        if let Some(history) = self.history(host, ends, inner, from) {
            self.state_of(at, host, history, from, to);
        }
    }

    fn state_of(&mut self, at: Instant, host: usize, history: usize, from: State, to: State) {
        let History { inner, states, .. } = &mut self.histories[host][history];
        let ends = *inner;
        if states.last().is_some_and(|(_, last)| *last != from) {
            states.push((at, from));
        }
        states.push((at, to));
        self.add(|| Event::State { at, host, ends, from, to });
    }

    /// Adds that a host lost all its connections.
    pub fn crashed(&mut self, at: Instant, host: usize) {
        for history in 0..self.histories[host].len() {
            let last = self.histories[host][history].states.last().map_or(State::Closed, |(_, state)| *state);
            if last != State::Closed {
                self.state_of(at, host, history, last, State::Closed);
            }
        }
    }

    /// Adds an event of a stack's trace. `ends` are the endpoints that the host knows; `inner` are those without a NAT.
    pub fn traced(&mut self, at: Instant, host: usize, ends: Ends, inner: Ends, kind: TraceKind) {
        match kind {
            TraceKind::State { from, to } => self.state(at, host, ends, inner, from, to),
            TraceKind::Drop(reason) => self.note_about(at, host, inner, || format!("drops it: {reason}")),
            // The wire shows a SYN-ACK.
            TraceKind::Reply(reason) if reason != ReplyReason::SynAck => {
                self.note_about(at, host, inner, || format!("answers: {reason}"));
            }
            TraceKind::PathMtu(mtu) => self.note_about(at, host, inner, || format!("path MTU is {mtu}")),
            _ => {}
        }
    }

    /// Returns the index of a connection in the histories of a host, and adds a new connection.
    fn history(&mut self, host: usize, ends: Ends, inner: Ends, first: State) -> Option<usize> {
        if !self.keep.events {
            return None;
        }
        if let Some(found) = self.known.get(&(host, ends.0, ends.1)) {
            return Some(*found);
        }
        let histories = &mut self.histories[host];
        if histories.len() == HISTORIES {
            return None;
        }
        histories.push(History { ends, inner, states: vec![(Instant::ZERO, first)] });
        self.known.insert((host, ends.0, ends.1), histories.len() - 1);
        Some(histories.len() - 1)
    }

    /// Adds the numbers of a connection as its stack tells them, if they are kept and any of them changed.
    pub fn info(&mut self, at: Instant, host: usize, ends: Ends, info: Info) {
        if !self.keeps_info() {
            return;
        }
        let mut told = info.clone();
        told.state_age = Duration::ZERO;
        let timers = [
            &mut told.retransmit_timer,
            &mut told.persist_timer,
            &mut told.delayed_ack_timer,
            &mut told.keepalive_timer,
        ];
        let due = timers.map(|left| left.take().map(|left| at + left));
        if self.told.get(&(host, ends.0, ends.1)).is_some_and(|last| last.0 == told && last.1 == due) {
            return;
        }
        self.told.insert((host, ends.0, ends.1), (told, due));
        self.infos += 1;
        self.events.push(Event::Info { at, host, ends, info: Box::new(info) });
    }

    /// Whether the numbers of connections are kept, and there is room for more of them.
    pub fn keeps_info(&self) -> bool {
        self.keep.info && self.infos < NOTES * 2
    }

    /// Adds that a host begins to listen, or stops.
    pub fn listening(&mut self, at: Instant, host: usize, on: bool) {
        self.events.push(Event::Listening { at, host, on });
    }

    /// Adds the bytes of a packet, if they are kept.
    pub fn capture(&mut self, captured: impl FnOnce() -> Captured) {
        if self.keep.bytes && self.captured.len() < PACKETS * 4 {
            self.captured.push(captured());
        }
    }

    /// The packets, in the order in which they were added.
    pub fn packets(&self) -> impl Iterator<Item = &Packet> {
        self.events.iter().filter_map(|event| match event {
            Event::Packet(packet) => Some(packet),
            _ => None,
        })
    }
}

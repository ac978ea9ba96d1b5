//! The stack: packets and time in, packets and events out.
//!
//! This module and its children are the only code that moves anything between the tables. This file holds the tables
//! and the moves. `inbound` demultiplexes packets, `outbound` fills frames, `timers` runs expired timers, `calls` holds
//! the user calls, and `view` reports state.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::buffer::{Pool, Rope};
use crate::config::Config;
use crate::counters::{Counters, DropReason, ReplyReason};
use crate::error::Error;
use crate::flow::{FlowRef, FlowTable, PackedRef};
use crate::ip::addresses::Addresses;
use crate::ip::fragments::Fragments;
use crate::ip::limit::{self, RateLimiter, Shares};
use crate::ip::pmtu::PmtuCache;
use crate::keys::Keys;
use crate::list::List;
use crate::memory::Account;
use crate::ports::Ports;
use crate::queue::Queue;
use crate::socket::{Event, SocketId, SocketOptions};
use crate::state::State;
use crate::steer::{Share, Steering};
use crate::table::Table;
use crate::tcp::cookie::SpentCookies;
use crate::tcp::dormant::Dormant;
use crate::tcp::fast_open::CookieCache;
use crate::tcp::input::{Closed, Outcome};
use crate::tcp::listen::{HalfOpen, Listener, synack_patience};
use crate::tcp::room::{MAX_PACKET, MIN_MTU_V4, MIN_MTU_V6};
use crate::tcp::segment::{Answer, Outgoing, Segment};
use crate::tcp::syn_sent::Opening;
use crate::tcp::tcb::{Agreed, Armed, Connection, Origin};
use crate::tcp::time_wait::{self, Peers, TimeWait, TimeWaits};
use crate::time::{Duration, Instant, Tick};
use crate::trace::{Trace, TraceEvent, TraceKind};
use crate::tuple::{FourTuple, mapped};
use crate::wheel::Wheel;
use crate::wire::tcp::{Flags, Header, Options};

use self::connections::{Connections, Ready};
use self::memory::Ladder;
use self::outbound::Turns;
use self::replies::Replies;
use self::sockets::{Finished, Socket, SocketKind, Sockets};

mod calls;
mod connections;
mod consistent;
mod icmp;
mod inbound;
mod memory;
mod outbound;
mod passive;
mod replies;
mod sockets;
mod template;
mod timers;
mod view;

/// The device that the stack is attached to. It carries bare IP packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Largest IP packet, bytes. At least 68 (IPv4) or 1280 (IPv6).
    pub mtu: u16,
    /// Our addresses with their prefix lengths. An IPv4 prefix of up to 30 bits implies a broadcast address.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The device segments: [`Transmit::segment_size`] may be set and a frame may hold 64 KiB.
    pub segmentation_offload: bool,
    /// The device fills in TCP checksums: the field then holds the sum of the pseudo-header, not complemented.
    pub checksum_offload: bool,
}

impl Interface {
    /// A device without offload.
    pub fn new(mtu: u16, addresses: impl IntoIterator<Item = (IpAddr, u8)>) -> Interface {
        Interface {
            mtu,
            addresses: addresses.into_iter().collect(),
            segmentation_offload: false,
            checksum_offload: false,
        }
    }

    /// Checks that the MTU is at least 68 (RFC 791), and at least 1280 where there is an IPv6 address (RFC 8200 §5). An
    /// error says what was expected.
    pub fn validate(&self) -> Result<(), String> {
        let v6 = self.addresses.iter().any(|(address, _)| address.is_ipv6());
        let least = if v6 { MIN_MTU_V6 } else { MIN_MTU_V4 };
        if self.mtu >= least { Ok(()) } else { Err(format!("MTU {}: expected at least {least}", self.mtu)) }
    }

    fn expect_valid(&self) {
        if let Err(error) = self.validate() {
            panic!("interface: {error}");
        }
    }

    /// The length of a frame for [`Stack::transmit`], which no packet exceeds: the MTU, or 65,535 bytes where the
    /// device cuts segments.
    pub fn frame_len(&self) -> usize {
        let longest = if self.segmentation_offload { MAX_PACKET } else { self.mtu };
        usize::from(longest)
    }
}

/// A received packet and its metadata from the device.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    /// The IP packet: as received from the wire, or a super-segment of up to 64 KiB.
    pub bytes: PacketBytes<'a>,
    /// The device has verified the TCP checksum, or the packet never left this machine.
    pub checksum_trusted: bool,
}

/// Who owns the bytes of a packet.
#[derive(Clone, Debug)]
pub enum PacketBytes<'a> {
    /// The caller owns them: the stack copies the payload.
    Borrowed(&'a [u8]),
    /// The buffer is shared: the stack keeps a large payload as a slice of it.
    Shared(Bytes),
}

impl<'a> From<&'a [u8]> for Packet<'a> {
    fn from(bytes: &'a [u8]) -> Packet<'a> {
        Packet { bytes: PacketBytes::Borrowed(bytes), checksum_trusted: false }
    }
}

impl From<Bytes> for Packet<'_> {
    fn from(bytes: Bytes) -> Self {
        Packet { bytes: PacketBytes::Shared(bytes), checksum_trusted: false }
    }
}

/// Describes the packet that [`Stack::transmit`] put into the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Bytes of the IP packet.
    pub len: usize,
    /// The device must cut the payload into segments of this many bytes.
    pub segment_size: Option<u16>,
    /// The device must fill in the TCP checksum.
    pub checksum_offload: bool,
}

/// A TCP/IP stack on one interface.
///
/// Methods are of four kinds. *Getters* only read. *Inputs* ([`receive`](Stack::receive), [`advance`](Stack::advance))
/// take in packets and time. *User calls* (`listen` … `abort`) are those of RFC 9293 §3.9.1. *Polls*
/// ([`transmit`](Stack::transmit), [`poll_event`](Stack::poll_event), [`poll_at`](Stack::poll_at)) are called until
/// they return nothing, after each input or user call. Any order is legal.
#[derive(Clone, Debug)]
pub struct Stack {
    config: Config,
    interface: Interface,
    counters: Counters,
    trace: Trace,
    keys: Keys,
    pool: Pool,
    /// The default options of a socket, and the options set most recently. Sockets mostly share options, so these
    /// copies suffice.
    default_options: Arc<SocketOptions>,
    last_options: Arc<SocketOptions>,
    now: Instant,
    /// The latest time up to which all timers have run.
    timers_ran: Instant,

    addresses: Addresses,
    /// This stack's share of the connections, where several stacks share an interface.
    share: Option<Share>,
    fragments: Fragments,
    pmtu: PmtuCache,
    rst_limit: RateLimiter,
    icmp_limit: RateLimiter,
    syn_ack_limit: Shares,

    flows: FlowTable,
    half_open: Table<HalfOpen>,
    openings: Table<Opening>,
    connections: Connections,
    /// Orphans in FIN-WAIT-2, once there are many.
    dormant: Table<Dormant>,
    /// The connection that received the last segment. Most segments belong to the same connection as the one before.
    last_flow: u32,
    /// The last segment that a connection sent, or the next one while it is built.
    outgoing: Outgoing,
    time_waits: TimeWaits,
    /// Half-open entries that replaced a TIME-WAIT, each with that entry. The entry is restored if the SYN turns out to
    /// be an old duplicate (6191-5).
    gave_way: BTreeMap<u32, u32>,
    listeners: Table<Listener>,
    /// Closed listeners that still have connections or half-open entries, and the next one to clean up.
    closing: Vec<(u32, u32)>,
    /// Sorted by the [`binding`] of their local ends, for binary search.
    bindings: Vec<((u16, u128), u32)>,
    sockets: Sockets,
    /// The local ports of active opens.
    ports: Ports,
    orphans: usize,
    /// A connection that was not settled at the last check.
    unsettled: u32,
    /// The memory that all queues take.
    memory: Account,
    ladder: Ladder,
    cookies: CookieCache,
    spent_cookies: SpentCookies,
    peers: Peers,

    /// Timers, and the queues of SYNs and SYN-ACKs that are due.
    wheel: Wheel,
    /// Connections that may have something to send.
    ready: List<Ready>,
    turns: Turns,
    /// Stateless answers.
    replies: Replies,
    /// Packets to our own addresses, which `advance` receives.
    looped: VecDeque<Bytes>,
    events: Queue<SocketId>,
}

/// This many orphans remain full connections in FIN-WAIT-2.
const FULL_ORPHANS: usize = 64;

/// How far time may run ahead of the timers.
const CATCH_UP: Duration = Duration::from_secs(10 * 86_400);

/// Packets that wait for the device, apart from segments of connections.
#[derive(Clone, Debug)]
enum Reply {
    Segment(Answer),
    /// A whole packet, such as an ICMP message.
    Packet(Vec<u8>),
}

/// Borrows all parts of the stack that a handler may use besides its connection.
macro_rules! env {
    ($stack:expr) => {
        crate::tcp::tcb::Env {
            now: $stack.now,
            config: &$stack.config,
            counters: &mut $stack.counters,
            trace: &mut $stack.trace,
            keys: &$stack.keys,
            pool: &mut $stack.pool,
            interface_mtu: $stack.interface.mtu,
            memory: $stack.memory.gauge($stack.config.tcp_mem),
        }
    };
}
use env;

impl Stack {
    /// Creates an empty stack.
    ///
    /// # Panics
    ///
    /// Panics if [`Config::validate`] or [`Interface::validate`] rejects an argument. Checking here keeps later calls
    /// from panicking.
    pub fn new(config: Config, interface: Interface) -> Stack {
        config.expect_valid();
        interface.expect_valid();
        let default_options = Arc::new(SocketOptions::new(&config));
        Stack {
            keys: Keys::new(&config.secret),
            addresses: Addresses::new(interface.addresses.iter().copied()),
            share: None,
            counters: Counters::default(),
            trace: Trace::default(),
            pool: Pool::default(),
            last_options: Arc::clone(&default_options),
            default_options,
            now: Instant::ZERO,
            timers_ran: Instant::ZERO,
            fragments: Fragments::default(),
            pmtu: PmtuCache::default(),
            rst_limit: RateLimiter::default(),
            icmp_limit: RateLimiter::default(),
            syn_ack_limit: Shares::default(),
            flows: FlowTable::default(),
            half_open: Table::default(),
            openings: Table::default(),
            connections: Connections::default(),
            dormant: Table::default(),
            last_flow: 0,
            outgoing: Outgoing::bare(Header::default()),
            time_waits: TimeWaits::default(),
            gave_way: BTreeMap::new(),
            listeners: Table::default(),
            closing: Vec::new(),
            bindings: Vec::new(),
            sockets: Sockets::default(),
            ports: Ports::default(),
            orphans: 0,
            unsettled: 0,
            memory: Account::default(),
            ladder: Ladder::default(),
            cookies: CookieCache::default(),
            spent_cookies: SpentCookies::default(),
            peers: Peers::default(),
            wheel: Wheel::new(),
            ready: List::default(),
            turns: Turns::new(&interface),
            replies: Replies::default(),
            looped: VecDeque::new(),
            events: Queue::default(),
            config,
            interface,
        }
    }

    /// Makes this stack number `index` of several on one interface. It must then be given the packets that `steering`
    /// assigns to it. It opens only connections whose replies are steered back to it.
    pub fn set_share(&mut self, steering: Steering, index: u16) {
        self.share = Some(Share { steering, index });
    }

    /// Adds an address to the interface. Listeners on all addresses accept connections to it too. An IPv6 address is
    /// not added if the MTU is below 1280.
    pub fn add_address(&mut self, address: IpAddr, prefix_len: u8) {
        if address.is_ipv6() && self.interface.mtu < MIN_MTU_V6 {
            return;
        }
        self.addresses.add(address, prefix_len);
        self.interface.addresses = self.addresses.iter().collect();
    }

    /// Removes an address and returns whether it was there. Its connections stay: their own timers end them, unless the
    /// address returns first (THREAT-83).
    pub fn remove_address(&mut self, address: IpAddr) -> bool {
        let removed = self.addresses.remove(address);
        self.interface.addresses = self.addresses.iter().collect();
        removed
    }

    /// Moves time forward without running timers: `advance` runs them. Ticks compare correctly for 24 days only, so
    /// after a longer sleep the timers catch up in steps.
    #[inline]
    fn set_now(&mut self, now: Instant) {
        if now - self.timers_ran > CATCH_UP {
            self.catch_up(now);
        } else {
            self.now = self.now.max(now);
        }
    }

    /// Runs a few steps. If timers remain, time stands still until the next call, and `poll_at` says that it is due.
    #[cold]
    fn catch_up(&mut self, now: Instant) {
        const STEPS: usize = 16;
        if self.is_without_timers() {
            self.timers_ran = now;
        }
        for _ in 0..STEPS {
            self.now = self.now.max(now.min(self.timers_ran + CATCH_UP));
            self.run_timers();
            if self.now >= now || self.timers_ran < self.now {
                return;
            }
        }
    }

    /// Returns the flow of an arriving segment's tuple. Tries the last flow first, which saves the hash and the probe.
    fn find_last_or(&mut self, tuple: &FourTuple) -> Option<FlowRef> {
        if self.connections.get(self.last_flow).is_some_and(|connection| connection.tcb.tuple == *tuple) {
            return Some(FlowRef::Connection(self.last_flow));
        }
        let found = self.find(tuple);
        if let Some(FlowRef::Connection(index)) = found {
            self.last_flow = index;
        }
        found
    }

    fn find(&mut self, tuple: &FourTuple) -> Option<FlowRef> {
        let Stack { flows, keys, half_open, openings, connections, time_waits, dormant, .. } = self;
        flows.find(keys, tuple, |flow| {
            *tuple
                == match flow {
                    FlowRef::HalfOpen(i) => half_open[i].tuple,
                    FlowRef::Opening(i) => openings[i].tuple,
                    FlowRef::Connection(i) => connections[i].tcb.tuple,
                    FlowRef::TimeWait(i) => time_waits.tuple(i),
                    FlowRef::Dormant(i) => dormant[i].tuple,
                }
        })
    }

    /// Inserts `flow` at a tuple that is free.
    fn place(&mut self, tuple: &FourTuple, flow: FlowRef) {
        self.flows.insert(&self.keys, tuple, flow);
        self.ports.came(tuple);
    }

    /// Replaces the flow at `tuple`, whose row has changed, usually to another table.
    fn replace(&mut self, tuple: &FourTuple, old: FlowRef, new: FlowRef) {
        self.flows.replace(&self.keys, tuple, old, new);
    }

    /// Removes `flow` from the flow table.
    fn displace(&mut self, tuple: &FourTuple, flow: FlowRef) {
        self.flows.remove(&self.keys, tuple, flow);
        self.ports.gone(tuple);
    }

    #[inline]
    fn note(&mut self, tuple: &FourTuple, kind: TraceKind) {
        let at = self.now;
        self.trace.push(|| TraceEvent { at, local: tuple.local(), remote: tuple.remote(), kind });
    }

    fn note_state(&mut self, tuple: &FourTuple, from: State, to: State) {
        self.note(tuple, TraceKind::State { from, to });
    }

    fn dropped(&mut self, tuple: &FourTuple, reason: DropReason) {
        self.counters.count_drop(reason);
        self.note(tuple, TraceKind::Drop(reason));
    }

    // Moves between the tables.

    /// Adds a connection, which takes over the flow table entry of its predecessor.
    fn add_connection(&mut self, agreed: Agreed, from: Option<FlowRef>) -> u32 {
        let tuple = agreed.tuple;
        let index = self.connections.insert_with(|| Connection::new(agreed, &env!(self)));
        match from {
            Some(old) => self.replace(&tuple, old, FlowRef::Connection(index)),
            None => self.place(&tuple, FlowRef::Connection(index)),
        }
        index
    }

    /// Releases all that a finished connection holds, except its row and its entry in the flow table.
    fn settle_accounts(&mut self, index: u32) {
        self.end_turn(index);
        self.delist(index);
        let connection = &self.connections[index];
        let tcb = &connection.tcb;
        self.wheel.remove(connection.armed.node);
        self.memory.remove(connection);
        if connection.is_orphan() {
            self.orphans -= 1;
        }
        if tcb.state == State::CloseWait {
            self.counters.close_wait_left += 1;
        }
        if tcb.origin == Origin::FastOpen {
            self.fast_open_over(index);
        }
    }

    /// A Fast Open request is no longer pending: its third segment has arrived, or it has ended.
    #[cold]
    fn fast_open_over(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        connection.tcb.origin = Origin::Passive;
        let tcb = &connection.tcb;
        let listener = self.sockets.get(connection.listener);
        let Some(Socket { kind: SocketKind::Listener(listener), .. }) = listener else { return };
        let pending = &mut self.listeners[*listener].fast_open_pending;
        if tcb.state == State::SynReceived {
            let waited = Duration::from_millis(Tick::at(self.now).elapsed(tcb.snd.stalled_since).into());
            let left = synack_patience(&self.config).saturating_sub(waited);
            pending.end(self.now, self.now + left);
        } else {
            pending.confirm();
        }
    }

    /// Applies to the tables the outcome that a handler of this connection returned.
    #[inline]
    fn apply(&mut self, index: u32, outcome: Outcome, segment: Option<&Segment<'_>>) {
        if outcome != Outcome::Keep {
            self.apply_change(index, outcome, segment);
        }
    }

    fn apply_change(&mut self, index: u32, outcome: Outcome, segment: Option<&Segment<'_>>) {
        let tuple = self.connections[index].tcb.tuple;
        match outcome {
            Outcome::Keep => {}
            Outcome::Dropped(reason) => match segment {
                Some(segment) => self.dropped_stray(segment, reason),
                None => self.dropped(&tuple, reason),
            },
            Outcome::Reset(reason) => {
                self.dropped(&tuple, DropReason::AckOfUnsent);
                if let Some(segment) = segment {
                    let answer = Answer::rst_to(segment, reason).with_ip_of(&self.connections[index].options);
                    self.reset(segment, answer);
                }
            }
            Outcome::Established => self.established(index),
            Outcome::TimeWait => self.enter_time_wait(index),
            Outcome::Closed(closed) => self.finish_connection(index, closed),
        }
    }

    fn established(&mut self, index: u32) {
        let Connection { ref tcb, socket, .. } = self.connections[index];
        match tcb.origin {
            Origin::Active => self.notify(socket, Event::CONNECTED),
            Origin::FastOpen => self.fast_open_over(index),
            Origin::Passive => {}
        }
    }

    /// Turns the connection into a compact entry. Its socket, if the application still holds it, keeps the unread data.
    fn enter_time_wait(&mut self, index: u32) {
        // Its last ACK leaves as a stateless answer, because the connection is gone before the device asks.
        let now = self.now;
        let last_ack = {
            let connection = &mut self.connections[index];
            let due = connection.tcb.ack.now;
            due.then(|| connection.final_ack(&mut env!(self)))
        };
        self.settle_accounts(index);
        if let Some(ack) = last_ack {
            self.push_reply(Reply::Segment(ack));
        }
        let tcb = &self.connections[index].tcb;
        if self.config.tcp_tw_recycle && tcb.ts.on {
            let (peer, limit) = (tcb.tuple.remote().ip(), self.config.tcp_tw_recycle_peers as usize);
            self.peers.remember(peer, tcb.ts.recent, now, limit);
        }
        self.add_time_wait(index);
        self.finish_socket(index, None);
    }

    /// Reduces an orphan in FIN-WAIT-2 to a compact entry. The first few stay full connections, because most of those
    /// end within a round trip.
    fn lay_down(&mut self, index: u32) {
        if self.orphans <= FULL_ORPHANS || !self.connections.get(index).is_some_and(Dormant::may_be) {
            return;
        }
        let connection = &mut self.connections[index];
        if connection.tcb.ack.now || connection.tcb.timers.delayed_ack.is_some() {
            let ack = connection.final_ack(&mut env!(self));
            self.push_reply(Reply::Segment(ack));
        }
        self.end_turn(index);
        self.delist(index);
        let connection = &self.connections[index];
        let dormant = Dormant::of(connection);
        let tuple = dormant.tuple;
        self.wheel.remove(connection.armed.node);
        self.connections.discard(index);
        let end = dormant.fin_wait_2;
        let to = self.dormant.insert(dormant);
        if let Some(end) = end {
            let target = PackedRef::from(FlowRef::Dormant(to)).0;
            self.dormant[to].timer = self.wheel.insert(end.tick(), target);
        }
        self.replace(&tuple, FlowRef::Connection(index), FlowRef::Dormant(to));
    }

    /// Turns such an orphan back into a full connection for an event.
    fn wake(&mut self, index: u32) -> u32 {
        let dormant = self.dormant.remove(index);
        let tuple = dormant.tuple;
        self.wheel.remove(dormant.timer);
        let to = self.connections.insert_with(|| dormant.wake(&env!(self)));
        self.replace(&tuple, FlowRef::Dormant(index), FlowRef::Connection(to));
        to
    }

    /// Replaces the connection with a TIME-WAIT entry for 2MSL, if there is room for one.
    fn add_time_wait(&mut self, index: u32) {
        let connection = &self.connections[index];
        let tuple = connection.tcb.tuple;
        let length = time_wait::length(&self.config);
        let full = self.time_waits.len() >= self.config.tcp_max_tw_buckets as usize
            || self.time_waits.held_with(&tuple) > self.config.tcp_tw_mem;
        if full || length.is_zero() {
            self.counters.tcp_time_wait_overflow += u64::from(full);
            self.displace(&tuple, FlowRef::Connection(index));
            return self.note_state(&tuple, State::TimeWait, State::Closed);
        }
        self.counters.tw += 1;
        let entry = TimeWait::new(connection, self.now, length);
        if entry.timestamps_on() {
            self.ports.rest(&tuple);
        }
        let entry = self.time_waits.insert(&entry);
        self.replace(&tuple, FlowRef::Connection(index), FlowRef::TimeWait(entry));
    }

    fn remove_time_wait(&mut self, index: u32) {
        let tuple = self.time_waits.tuple(index);
        match self.find(&tuple) {
            // A half-open connection had replaced it, and can no longer restore it.
            Some(FlowRef::HalfOpen(successor)) => drop(self.gave_way.remove(&successor)),
            _ => {
                self.displace(&tuple, FlowRef::TimeWait(index));
                self.note_state(&tuple, State::TimeWait, State::Closed);
            }
        }
        self.time_waits.remove(index);
    }

    /// Removes the connection for good.
    fn finish_connection(&mut self, index: u32, closed: Closed) {
        self.settle_accounts(index);
        let connection = &self.connections[index];
        let (tuple, state) = (connection.tcb.tuple, connection.tcb.state);
        if closed.rst {
            let tcb = &connection.tcb;
            let mut answer = Answer::ack(tuple, tcb.snd.nxt, tcb.rcv.nxt, 0, ReplyReason::RstAbort)
                .with_ip_of(&connection.options);
            answer.flags = Flags::RST | Flags::ACK;
            let timestamps = connection.timestamps(&env!(self));
            answer.options = Options { timestamps, ..Options::default() };
            if matches!(state, State::Established | State::CloseWait) {
                self.counters.estab_resets += 1;
            }
            self.push_reply(Reply::Segment(answer));
            env!(self).note_reply(&tuple, ReplyReason::RstAbort);
        }
        self.displace(&tuple, FlowRef::Connection(index));
        self.note_state(&tuple, state, State::Closed);
        self.finish_socket(index, closed.error);
    }

    /// Removes the connection's row. Its socket, if the application still holds it, keeps the unread data.
    fn finish_socket(&mut self, index: u32, error: Option<Error>) {
        let connection = &mut self.connections[index];
        let (id, events) = (connection.socket, connection.events);
        if let Some(socket) = self.sockets.get_mut(id) {
            let receive_queue = std::mem::take(&mut connection.receive_queue);
            self.memory.add(&receive_queue);
            let (local, remote) = (connection.tcb.tuple.local(), connection.tcb.tuple.remote());
            let options = Arc::clone(&connection.options);
            socket.kind =
                SocketKind::Finished(Box::new(Finished { receive_queue, error, local, remote, options }));
            let failed = if error.is_some() { Event::ERROR } else { Event::default() };
            self.notify(id, Event::READABLE | Event::WRITABLE | Event::CLOSED | failed | events);
        }
        self.connections.discard(index);
    }

    fn remove_opening(&mut self, index: u32) -> Opening {
        let opening = self.take_opening(index);
        self.displace(&opening.tuple, FlowRef::Opening(index));
        opening
    }

    /// Removes an opening from its table. The caller reuses its entry in the flow table.
    fn take_opening(&mut self, index: u32) -> Opening {
        let opening = self.openings.remove(index);
        self.wheel.remove(opening.timer);
        self.memory.remove(&opening.send_queue);
        opening
    }

    /// Handles a failed connect.
    fn fail_opening(&mut self, index: u32, error: Error) {
        let opening = self.remove_opening(index);
        self.note_state(&opening.tuple, State::SynSent, State::Closed);
        if let Some(socket) = self.sockets.get_mut(opening.socket) {
            let (local, remote) = (opening.tuple.local(), opening.tuple.remote());
            let options = opening.options;
            let finished =
                Finished { receive_queue: Rope::default(), error: Some(error), local, remote, options };
            socket.kind = SocketKind::Finished(Box::new(finished));
            let events = Event::READABLE | Event::WRITABLE | Event::CLOSED | Event::ERROR;
            self.notify(opening.socket, events);
        }
    }

    /// Removes a half-open connection and restores the TIME-WAIT that it had replaced.
    fn remove_half_open(&mut self, index: u32) -> HalfOpen {
        let entry = self.take_half_open(index);
        match self.gave_way.remove(&index) {
            Some(old) => self.replace(&entry.tuple, FlowRef::HalfOpen(index), FlowRef::TimeWait(old)),
            None => self.displace(&entry.tuple, FlowRef::HalfOpen(index)),
        }
        entry
    }

    /// Removes a half-open connection from its table. The caller reuses its entry in the flow table.
    fn take_half_open(&mut self, index: u32) -> HalfOpen {
        let entry = self.half_open.remove(index);
        self.wheel.remove(entry.timer);
        self.listeners[entry.listener].half_open -= 1;
        entry
    }

    #[inline]
    fn notify(&mut self, id: SocketId, events: Event) {
        if let Some(socket) = self.sockets.get_mut(id) {
            socket.events |= events;
            if socket.accepted && !socket.queued {
                socket.queued = true;
                self.queue_event(id);
            }
        }
    }

    /// Sockets that are gone leave entries behind, which must not accumulate while nobody polls.
    #[inline(never)]
    fn queue_event(&mut self, id: SocketId) {
        if self.events.len() > 2 * self.sockets.len() + 64 {
            let sockets = &self.sockets;
            self.events.tidy(|id| sockets.contains(*id));
        }
        self.events.push_back(id);
    }

    // Answers.

    /// Queues an answer that belongs to no connection.
    fn reply(&mut self, answer: Answer) {
        env!(self).note_reply(&answer.tuple, answer.reason);
        self.push_reply(Reply::Segment(answer));
    }

    fn push_reply(&mut self, reply: Reply) {
        if !self.replies.has_room(&reply, &self.config) {
            return self.displace_reply(reply);
        }
        self.replies.push(reply);
    }

    /// Drops an answer from the full queue: a random one of those waiting, or the new one. All answers since the queue
    /// filled have the same chance, so a flood that arrives first does not shut out later senders.
    #[cold]
    fn displace_reply(&mut self, reply: Reply) {
        self.counters.count_drop(DropReason::ReplyQueueFull);
        let chance = self.keys.random();
        self.replies.displace(reply, chance, &self.config);
    }

    /// Sends the RST for `segment`, which belongs to no connection (RFC 9293 §3.5.2). A SYN always gets one, as a
    /// listener would answer it: the RST is no larger. For other segments a budget limits RSTs (SA-CLOSED-05).
    fn reset(&mut self, segment: &Segment<'_>, rst: Answer) {
        if !is_stray(segment) || self.charge(segment) {
            self.reply(rst);
        } else {
            self.dropped(&segment.tuple, DropReason::ReplyThrottled);
        }
    }

    /// As [`dropped`](Stack::dropped), for a segment whose tuple is in use. It takes from the RST budget what it would
    /// take if the tuple were free. Otherwise an attacker could count RSTs and learn that the tuple is in use
    /// (THREAT-24, THREAT-25).
    fn dropped_stray(&mut self, segment: &Segment<'_>, reason: DropReason) {
        if is_stray(segment) {
            self.charge(segment);
        }
        self.dropped(&segment.tuple, reason);
    }

    /// Takes one RST from the budget of the source network of `segment`. Returns whether there was one.
    fn charge(&mut self, segment: &Segment<'_>) -> bool {
        let limit = self.config.tcp_rst_limit;
        if limit == 0 {
            return true;
        }
        let slot = self.network_slot(segment.tuple.remote().ip());
        let jitter = self.keys.random();
        self.rst_limit.allow(self.now, slot, limit, jitter)
    }

    /// The slot of an address's network in a [`RateLimiter`].
    fn network_slot(&self, address: IpAddr) -> usize {
        let (prefix, len) = limit::prefix(address);
        self.keys.bucket(&prefix[..len], limit::SLOTS)
    }

    fn connections_full(&self) -> bool {
        self.connections.len() + self.dormant.len() + self.openings.len()
            >= self.config.tcp_max_connections as usize
    }

    fn tick(&self) -> Tick {
        Tick::at(self.now)
    }
}

/// Whether a segment would draw a RST within the budget if its tuple were free and nobody listened there.
fn is_stray(segment: &Segment<'_>) -> bool {
    let flags = segment.flags();
    !flags.rst() && (flags.ack() || !flags.syn())
}

/// The key of a listener's local end. It is made of numbers, which compare faster than addresses. The unspecified
/// address of a family stands for the whole family.
fn binding(address: IpAddr, port: u16) -> (u16, u128) {
    (port, mapped(&address).to_bits())
}

/// Arms the wheel for the earliest deadline of a connection, if that is before the armed time. A node that is too early
/// stays: it fires, finds nothing due, and is armed again.
#[inline]
fn arm(wheel: &mut Wheel, index: u32, connection: &mut Connection) {
    if connection.tcb.timers.want_arming(&connection.armed) {
        arm_anew(wheel, index, connection);
    }
}

fn arm_anew(wheel: &mut Wheel, index: u32, connection: &mut Connection) {
    let Some(tick) = connection.tcb.timers.earliest() else { return };
    let target = PackedRef::from(FlowRef::Connection(index)).0;
    let node = wheel.rearm(connection.armed.node, tick, target);
    connection.armed = Armed { node, tick };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::ConnectOptions;

    #[test]
    fn what_is_gone_takes_no_place_while_nobody_polls_and_nothing_is_sent() {
        let interface = Interface::new(1500, [("10.0.0.1".parse().unwrap(), 24)]);
        let mut stack = Stack::new(Config::default(), interface);
        for _ in 0..10_000 {
            let options = ConnectOptions::default();
            let id = stack.connect(Instant::ZERO, "10.0.0.2:80".parse().unwrap(), options).unwrap();
            stack.notify(id, Event::TROUBLE);
            stack.abort(Instant::ZERO, id).unwrap();
        }
        assert_eq!(stack.wheel.len(), 0);
        assert!(stack.events.len() < 100);
    }

    #[test]
    fn one_call_catches_up_with_a_month_of_sleep() {
        let interface = Interface::new(1500, [("10.0.0.1".parse().unwrap(), 24)]);
        let mut stack = Stack::new(Config::default(), interface);
        stack.connect(Instant::ZERO, "10.0.0.2:80".parse().unwrap(), ConnectOptions::default()).unwrap();
        assert!(stack.transmit(Instant::ZERO, &mut [0; 1500]).is_some(), "a SYN, which arms a timer");
        let month = Instant::from_millis(30 * 86_400_000);
        stack.advance(month);
        assert_eq!(stack.now, month);
        assert!(stack.poll_at().is_none_or(|at| at > month));
    }
}

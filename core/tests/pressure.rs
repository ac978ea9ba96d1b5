//! `tcp_mem` against peers that take memory and release nothing. One stack faces a crowd of hostile peers, together
//! with an honest transfer and new connections. Time is virtual, and a counting allocator compares the accounting with
//! the memory in use.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use allocation_counter::measure;
use steadfast_core::seq::SeqNum;
use steadfast_core::wire::tcp::{Flags, Options};
use steadfast_core::{Config, Duration, Error, Event, Instant, Interface, ListenOptions, SocketId, Stack};
use steadfast_testkit::{Client, Segment};

/// The memory limit of the stack: smaller than the default, so that a thousand peers fill it quickly.
const TCP_MEM: u64 = 64 << 20;
/// Memory of a stack that is not counted: spare buffers, a mebibyte of each of five sizes and 256 queues.
const SPARE: u64 = 6 << 20;
/// Memory of a connection apart from its queues: its rows in the tables, its loss state, and its peer in this test.
const RECORD: u64 = 4 << 10;
const PEERS: usize = 1000;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PORT: u16 = 80;
const MSS: u32 = 1460;

/// The behavior of a hostile peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// It sends everything but the first byte of its window, again and again.
    Hole,
    /// It advertises a zero window once the server has data to send.
    ZeroWindow,
    /// The server has closed, and the peer takes nothing.
    Orphan,
    /// It acknowledges half of the data sent, once.
    HalfAcknowledged,
    /// It takes one byte per second.
    SlowReader,
    /// The server has closed, and the peer takes one byte per second.
    SlowDrain,
}

const SORTS: [Sort; 6] =
    [Sort::Hole, Sort::ZeroWindow, Sort::Orphan, Sort::HalfAcknowledged, Sort::SlowReader, Sort::SlowDrain];

impl Sort {
    fn closes(self) -> bool {
        matches!(self, Sort::Orphan | Sort::SlowDrain)
    }

    fn writes(self) -> bool {
        self != Sort::Hole
    }

    /// The window after the handshake, in units of 128 bytes.
    fn window(self) -> u16 {
        match self {
            Sort::ZeroWindow | Sort::Orphan => 0,
            _ => 0xffff,
        }
    }

    fn is_slow(self) -> bool {
        matches!(self, Sort::SlowReader | Sort::SlowDrain)
    }

    /// The number of bytes that it acknowledges as fast as they come.
    fn takes(self) -> usize {
        if self == Sort::HalfAcknowledged { 100_000 } else { 0 }
    }
}

/// The number of bytes that a peer with a hole sends beyond it.
const BEYOND: u32 = 256 << 10;

/// The stack, its application, hostile peers, and an honest client.
struct World {
    now: Instant,
    server: Stack,
    client: Stack,
    listener: SocketId,
    wire: VecDeque<(Instant, bool, Vec<u8>)>,
    sort: Sort,
    peers: Vec<Client>,
    by_end: BTreeMap<SocketAddr, usize>,
    frame: Vec<u8>,
    /// Sockets of the server with a hostile peer.
    hostile: BTreeMap<SocketId, ()>,
    roles: BTreeMap<SocketId, Role>,
    client_sockets: BTreeMap<SocketId, Role>,
    /// Bytes read: downloads by the client, and uploads by the server.
    goodput: [u64; 2],
    asked: usize,
    answered: usize,
    block: Vec<u8>,
    /// The most memory held after any call.
    most: u64,
    /// A peer that opens its window once a minute.
    honest: Option<usize>,
}

/// The purpose of an honest connection, given by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Unknown,
    Down,
    Up,
    Ask,
}

const DELAY: Duration = Duration::from_millis(5);

impl World {
    fn new(sort: Sort, configure: impl Fn(&mut Config)) -> World {
        let mut config = Config { tcp_mem: TCP_MEM, secret: [1; 32], ..Config::default() };
        configure(&mut config);
        let mut server = Stack::new(config, Interface::new(1500, [(SERVER.into(), 8)]));
        let quiet =
            Config { tcp_rcvbuf: 128 << 10, tcp_sndbuf: 128 << 10, secret: [2; 32], ..Config::default() };
        let client = Stack::new(quiet, Interface::new(1500, [(Ipv4Addr::new(10, 0, 0, 2).into(), 8)]));
        let listener = server.listen((SERVER, PORT).into(), ListenOptions::default()).unwrap();
        World {
            now: Instant::from_secs(1000),
            server,
            client,
            listener,
            wire: VecDeque::new(),
            sort,
            peers: Vec::with_capacity(PEERS),
            by_end: BTreeMap::new(),
            frame: vec![0; 65_535],
            hostile: BTreeMap::new(),
            roles: BTreeMap::new(),
            client_sockets: BTreeMap::new(),
            goodput: [0; 2],
            asked: 0,
            answered: 0,
            block: vec![7; 64 << 10],
            most: 0,
            honest: None,
        }
    }

    /// A hostile peer's SYN.
    fn attack(&mut self) {
        let n = self.peers.len() as u32;
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 1)) + n);
        let offer = Options { mss: Some(MSS as u16), window_scale: Some(7), ..Options::default() };
        let peer = Client::new((address, 1000), (SERVER, PORT)).offering(offer);
        let syn = peer.syn();
        self.by_end.insert(peer.end, self.peers.len());
        self.peers.push(peer);
        self.give(syn);
    }

    fn give(&mut self, packet: Vec<u8>) {
        self.server.receive(self.now, &packet[..]);
        self.look();
    }

    /// Checks that the held bytes are within `tcp_mem`, and that no measure is taken below its mark.
    fn look(&mut self) {
        let (held, limit) = (self.server.usage().held, self.server.config().tcp_mem);
        assert!(held <= limit, "{held} of {limit}");
        self.most = self.most.max(held);
        let counters = self.server.counters();
        let pressed = counters.tcp_memory_pressures + counters.prune_called;
        let aborted = counters.tcp_abort_on_memory + counters.stalled_aborted;
        // A call that exceeds a mark may at once release the memory of one connection.
        let one = 1 << 20;
        assert!(pressed == 0 || self.most + one > limit / 4 * 3, "pressure with {} held", self.most);
        assert!(aborted == 0 || self.most + one > limit / 8 * 7, "an abort with {} held", self.most);
    }

    /// A hostile peer's reaction to a segment.
    fn peer_hears(&mut self, at: usize, segment: &Segment) {
        let (sort, peer) = (self.sort, &mut self.peers[at]);
        let takes = if Some(at) == self.honest { peer.window > 0 } else { peer.received < sort.takes() };
        let fresh = segment.len > 0 && segment.header.seq == peer.ack && takes;
        let syn = segment.header.flags.syn();
        if fresh || syn || segment.header.flags.rst() {
            peer.hears(segment);
        }
        if peer.reset {
            return;
        }
        if syn {
            peer.window = sort.window();
        }
        // Window probes are always answered.
        if fresh || syn || (segment.len == 0 && segment.header.seq.lt(peer.ack) && !sort.is_slow()) {
            let ack = peer.acknowledges();
            self.give(ack);
        }
        if syn && sort == Sort::Hole {
            self.beyond_the_hole(at);
        }
    }

    fn beyond_the_hole(&mut self, at: usize) {
        let text = [9; MSS as usize];
        let mut offset = 1;
        while offset + MSS < BEYOND && !self.peers[at].reset {
            let peer = &self.peers[at];
            let packet = peer.at(peer.seq + offset).packet(Flags::ACK, &text);
            self.give(packet);
            offset += MSS;
        }
    }

    /// All hostile peers reset their connections.
    fn peers_reset(&mut self) {
        for at in 0..self.peers.len() {
            let peer = &self.peers[at];
            let reset = peer.packet(Flags::RST | Flags::ACK, &[]);
            self.give(reset);
        }
    }

    /// Called once a second.
    fn peers_nag(&mut self) {
        for at in 0..self.peers.len() {
            if self.peers[at].reset || self.peers[at].ack == SeqNum(0) {
                continue;
            }
            if self.sort.is_slow() {
                let peer = &mut self.peers[at];
                peer.ack += 1;
                let ack = peer.acknowledges();
                self.give(ack);
            }
        }
    }

    fn transmit(&mut self) {
        while let Some(sent) = self.server.transmit(self.now, &mut self.frame) {
            let packet = &self.frame[..sent.len];
            let segment = Segment::read(packet, sent);
            match self.by_end.get(&segment.to) {
                Some(at) => self.peer_hears(*at, &segment),
                None => self.wire.push_back((self.now + DELAY, true, packet.to_vec())),
            }
        }
        while let Some(sent) = self.client.transmit(self.now, &mut self.frame) {
            self.wire.push_back((self.now + DELAY, false, self.frame[..sent.len].to_vec()));
        }
    }

    /// Writes as much as there is room for, then closes if the behavior requires it.
    fn write(&mut self, id: SocketId) {
        loop {
            match self.server.send(id, &self.block) {
                Ok(_) => self.look(),
                Err(Error::WouldBlock) => break,
                Err(_) => return,
            }
        }
        if self.sort.closes() && self.hostile.remove(&id).is_some() {
            self.server.close(self.now, id).unwrap();
        }
    }

    fn server_acts(&mut self) {
        while let Some((id, event)) = self.server.poll_event() {
            if id == self.listener {
                while let Ok((stream, peer)) = self.server.accept(id) {
                    if peer.ip() == Ipv4Addr::new(10, 0, 0, 2) {
                        self.roles.insert(stream, Role::Unknown);
                    } else {
                        self.hostile.insert(stream, ());
                        if self.sort.writes() {
                            self.write(stream);
                        }
                    }
                }
            } else if self.hostile.contains_key(&id) {
                if event.contains(Event::ERROR) || event.contains(Event::CLOSED) {
                    self.hostile.remove(&id);
                    self.server.close(self.now, id).unwrap();
                } else if event.contains(Event::WRITABLE) && self.sort.writes() {
                    self.write(id);
                }
            } else if self.roles.contains_key(&id) {
                self.serve(id);
            }
        }
    }

    /// The honest part of the server.
    fn serve(&mut self, id: SocketId) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.server.recv(id, &mut buffer) {
                Ok(0) => {
                    self.roles.remove(&id);
                    self.server.close(self.now, id).unwrap();
                    return;
                }
                Ok(count) => {
                    let role = self.roles.get_mut(&id).unwrap();
                    if *role == Role::Unknown {
                        *role = [Role::Down, Role::Up, Role::Ask][usize::from(buffer[0])];
                    }
                    match *role {
                        Role::Up => self.goodput[1] += count as u64,
                        Role::Ask => assert_eq!(self.server.send(id, &[5; 1000]), Ok(1000), "a short answer"),
                        _ => {}
                    }
                }
                Err(Error::WouldBlock) => break,
                Err(error) => panic!("an honest connection fails: {error}"),
            }
        }
        if self.roles[&id] == Role::Down {
            while self.server.send(id, &self.block).is_ok() {}
        }
    }

    fn connect(&mut self, role: Role) {
        let id = self.client.connect(self.now, (SERVER, PORT).into(), Default::default()).unwrap();
        self.client_sockets.insert(id, role);
        self.client.send(id, &[role as u8 - 1]).unwrap();
        self.asked += usize::from(role == Role::Ask);
    }

    fn client_acts(&mut self) {
        let mut buffer = vec![0; 64 << 10];
        while let Some((id, _)) = self.client.poll_event() {
            let Some(role) = self.client_sockets.get(&id).copied() else { continue };
            loop {
                match self.client.recv(id, &mut buffer) {
                    Ok(0) => break,
                    Ok(count) if role == Role::Ask => {
                        assert_eq!(count, 1000);
                        self.answered += 1;
                        self.client_sockets.remove(&id);
                        self.client.close(self.now, id).unwrap();
                        break;
                    }
                    Ok(count) => self.goodput[0] += count as u64,
                    Err(Error::WouldBlock) => break,
                    Err(error) => panic!("an honest connection fails: {error}"),
                }
            }
            if role == Role::Up {
                while self.client.send(id, &self.block).is_ok() {}
            }
        }
    }

    /// Advances by one millisecond.
    fn tick(&mut self) {
        self.step(1);
    }

    fn step(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.server.advance(self.now);
        self.client.advance(self.now);
        while self.wire.front().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, to_client, packet) = self.wire.pop_front().unwrap();
            if to_client { self.client.receive(self.now, &packet[..]) } else { self.give(packet) }
        }
        self.server_acts();
        self.client_acts();
        self.transmit();
    }

    /// Runs an honest transfer each way for ten seconds, and a new connection every 50 ms. The hostile peers arrive in
    /// the first two seconds. Returns the goodput of the transfers.
    fn run(&mut self, peers: usize) -> [u64; 2] {
        self.connect(Role::Down);
        self.connect(Role::Up);
        (0..500).for_each(|_| self.tick());
        self.goodput = [0; 2];
        for millis in 0..10_000 {
            if millis % 2 == 0 && self.peers.len() < peers {
                self.attack();
            }
            if millis % 50 == 0 && millis < 9_900 {
                self.connect(Role::Ask);
            }
            if millis % 1000 == 999 {
                self.peers_nag();
                assert_eq!(self.server.check_consistent(), Ok(()));
            }
            self.tick();
        }
        self.goodput
    }
}

#[test]
fn a_thousand_hostile_peers_of_any_sort_leave_honest_ones_their_rate_threat_8() {
    let alone = World::new(Sort::ZeroWindow, |_| {}).run(0);
    println!("alone {alone:?}");
    for sort in SORTS {
        let mut world = World::new(sort, |_| {});
        let beside = world.run(PEERS);
        let (usage, counters) = (world.server.usage(), world.server.counters());
        println!(
            "{sort:?} {beside:?} of {alone:?}, {} of {}, held {} of {TCP_MEM}, {} connections, pressed {} times for {} ms, \
             pruned {}, orphans aborted {}, stalled {}",
            world.answered,
            world.asked,
            usage.held,
            usage.connections,
            counters.tcp_memory_pressures,
            counters.tcp_memory_pressures_chrono,
            counters.ofo_pruned,
            counters.tcp_abort_on_memory,
            counters.stalled_aborted,
        );
        // Both sides of the marks: no measure was taken unless its mark was exceeded.
        let aborted = counters.tcp_abort_on_memory + counters.stalled_aborted;
        assert!(counters.tcp_memory_pressures > 0 || world.most <= TCP_MEM / 4 * 3, "{sort:?}");
        assert!(counters.prune_called > 0 || sort != Sort::Hole, "{sort:?}");
        assert!(aborted > 0 || world.most <= TCP_MEM / 8 * 7 || sort.is_slow(), "{sort:?}");
        for (with, without) in beside.into_iter().zip(alone) {
            assert!(with * 10 >= without * 9, "{sort:?}: {beside:?} of {alone:?}");
        }
        assert_eq!(world.answered, world.asked, "{sort:?}");
    }
}

#[test]
fn what_is_counted_is_what_is_held_and_what_is_freed_is_given_back() {
    const FEW: usize = 300;
    for sort in SORTS {
        let mut world = World::new(sort, |_| {});
        let info = measure(|| {
            for _ in 0..FEW {
                world.attack();
                (0..3).for_each(|_| world.tick());
            }
        });
        let (heap, usage) = (info.bytes_current as u64, world.server.usage());
        println!("{sort:?}: {heap} on the heap, {} counted", usage.held);
        assert!(usage.held > 16 << 20, "{sort:?} takes memory: {usage:?}");
        let beside = SPARE + FEW as u64 * RECORD;
        assert!(heap >= usage.held && heap <= usage.held + beside, "{sort:?}: {heap} on the heap, {usage:?}");
        world.peers_reset();
        (0..10).for_each(|_| world.tick());
        let usage = world.server.usage();
        assert_eq!((usage.connections, usage.held, usage.buffered), (0, 0, 0), "{sort:?}");
        assert_eq!(world.server.check_consistent(), Ok(()));
    }
}

/// THREAT-8: for ten minutes ten new peers a second take nothing, and one peer opens its window once a minute. That
/// peer has been there for two minutes when they come.
#[test]
fn an_honest_slow_peer_outlives_those_that_take_nothing_threat_8() {
    let mut world = World::new(Sort::ZeroWindow, |config| config.tcp_mem = 8 << 20);
    world.attack();
    world.honest = Some(0);
    world.step(10);
    let begin = world.peers[0].ack;
    for tick in 1..72_000u64 {
        if tick % 10 == 0 && tick > 12_000 {
            world.attack();
        }
        let opens = tick % 6000 == 5990;
        if opens || tick % 6000 == 0 {
            let peer = &mut world.peers[0];
            peer.window = if opens { 512 } else { 0 };
            let ack = peer.acknowledges();
            world.give(ack);
        }
        world.step(10);
    }
    let counters = world.server.counters();
    let read = world.peers[0].ack.since(begin);
    println!("aborted {}, read {read}", counters.stalled_aborted);
    assert!(counters.stalled_aborted > 100, "there was need to abort: {}", counters.stalled_aborted);
    assert!(!world.peers[0].reset && read > 11 * 60_000, "the slow peer lives, and has read {read} bytes");
    assert_eq!(world.server.check_consistent(), Ok(()));
}

#[test]
fn who_was_refused_is_told_in_turn_when_memory_is_free() {
    let mut world = World::new(Sort::ZeroWindow, |config| config.tcp_mem = 65_536);
    (0..40).for_each(|_| world.attack());
    world.transmit();
    let streams: Vec<SocketId> =
        std::iter::from_fn(|| world.server.accept(world.listener).ok()).map(|(id, _)| id).collect();
    while world.server.poll_event().is_some() {}
    let mut refused = Vec::new();
    for id in streams.iter().copied() {
        if world.server.send(id, &world.block) == Err(Error::WouldBlock) {
            refused.push(id);
        }
        while world.server.send(id, &world.block).is_ok() {}
    }
    assert!(refused.len() > 10, "{} of {} were refused", refused.len(), streams.len());
    assert_eq!(world.server.poll_event(), None, "nobody is told before memory is free");
    // No socket is notified twice, or before its turn; a promise is valid for the tick in which it was made.
    let mut round = 0;
    while !refused.is_empty() {
        world.server.abort(world.now, streams[round]).unwrap();
        let told: Vec<SocketId> = std::iter::from_fn(|| world.server.poll_event())
            .map(|(id, event)| {
                assert!(event.contains(Event::WRITABLE));
                id
            })
            .collect();
        assert!(!told.is_empty() && told.len() < 10, "{} are told", told.len());
        assert_eq!(told[..], refused[..told.len()], "in turn");
        refused.drain(..told.len());
        for id in told {
            assert!(world.server.send(id, &[1; 200]).is_ok(), "there is room for whoever was told");
        }
        world.now += Duration::from_millis(1);
        world.server.advance(world.now);
        round += 1;
    }
    assert_eq!(world.server.poll_event(), None);
    assert_eq!(world.server.check_consistent(), Ok(()));
}

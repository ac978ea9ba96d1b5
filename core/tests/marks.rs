//! The marks of `tcp_mem` from both sides: below each nothing happens of what happens above it.

use std::net::Ipv4Addr;

use steadfast_core::trace::State;
use steadfast_core::wire::tcp::{Flags, Options};
use steadfast_core::{Config, Duration, Error, Instant, Interface, ListenOptions, SocketId, Stack};
use steadfast_testkit::Client;

const TCP_MEM: u64 = 1 << 20;
/// The table of `memory.rs`.
const LOW: u64 = TCP_MEM / 2;
const PRESSURE: u64 = TCP_MEM / 4 * 3;
const CRITICAL: u64 = TCP_MEM / 8 * 7;
const HIGH: u64 = TCP_MEM / 16 * 15;
/// Most memory of a queue with one byte in it: memory is filled this near to a mark.
const NEAR: u64 = 600;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// A stack whose memory fills with what peers do not take.
struct Filled {
    stack: Stack,
    now: Instant,
    listener: SocketId,
    clients: u32,
    frame: Vec<u8>,
    /// A connection that has nothing queued.
    other: (Client, SocketId),
}

impl Filled {
    fn new() -> Filled {
        // No timer of a connection runs before those that are tested here.
        let config = Config {
            tcp_mem: TCP_MEM,
            tcp_rto_min: Duration::from_secs(60),
            tcp_orphan_timeout: Duration::ZERO,
            secret: [1; 32],
            ..Config::default()
        };
        let mut stack = Stack::new(config, Interface::new(1500, [(SERVER.into(), 24)]));
        let listener = stack.listen((SERVER, 80).into(), ListenOptions::default()).unwrap();
        let now = Instant::from_secs(1000);
        let mut client = client(0);
        let id = client.connect(&mut stack, now, listener);
        Filled { stack, now, listener, clients: 1, frame: vec![0; 1500], other: (client, id) }
    }

    fn held(&self) -> u64 {
        self.stack.usage().held
    }

    fn connect(&mut self) -> (Client, SocketId) {
        let mut client = client(self.clients);
        self.clients += 1;
        let id = client.connect(&mut self.stack, self.now, self.listener);
        (client, id)
    }

    /// A peer that has closed its window.
    fn closed(&mut self) -> (Client, SocketId) {
        let (mut client, id) = self.connect();
        client.window = 0;
        self.give(&client.acknowledges());
        (client, id)
    }

    fn give(&mut self, packet: &[u8]) {
        self.stack.receive(self.now, packet);
        self.drain();
    }

    fn drain(&mut self) {
        while self.stack.transmit(self.now, &mut self.frame).is_some() {}
        while self.stack.poll_event().is_some() {}
    }

    /// The application writes to peers that take nothing until as much is held, but for less than [`NEAR`].
    fn fill(&mut self, target: u64, then: fn(&mut Filled, SocketId)) {
        while self.held() + NEAR < target {
            let (_, id) = self.closed();
            let len = if self.held() + 5000 < target { 2000 } else { 1 };
            self.stack.send(id, &[0; 2000][..len]).unwrap();
            then(self, id);
            self.drain();
        }
    }

    /// Text comes for the other connection, and is read: memory is looked at.
    fn poke(&mut self) {
        let (client, id) = self.other.clone();
        self.give(&client.packet(Flags::ACK, &[1]));
        assert_eq!(self.stack.recv(id, &mut [0; 9]), Ok(1));
        self.other.0.seq += 1;
    }

    /// Time passes, and the timers run that are due.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.stack.poll_at().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.stack.advance(self.now);
            self.drain();
        }
        self.now = until;
        self.stack.advance(self.now);
        self.drain();
    }

    fn aborted(&self) -> u64 {
        let counters = self.stack.counters();
        counters.stalled_aborted + counters.tcp_abort_on_memory
    }

    fn is_alive(&self, id: SocketId) -> bool {
        self.stack.state(id) == Ok(State::Established)
    }
}

fn client(number: u32) -> Client {
    let offer = Options { mss: Some(1460), sack_permitted: true, ..Options::default() };
    Client::new((Ipv4Addr::from_bits(0x0a00_0100 + number), 4000), (SERVER, 80)).offering(offer)
}

fn keep(_: &mut Filled, _: SocketId) {}

fn close(filled: &mut Filled, id: SocketId) {
    filled.stack.close(filled.now, id).unwrap();
}

/// Pressure begins above three quarters, and what waits out of order goes; it ends at a half.
#[test]
fn out_of_order_text_goes_above_three_quarters_threat_8() {
    let mut filled = Filled::new();
    let (holder, id) = filled.connect();
    filled.give(&holder.at(holder.seq + 1).packet(Flags::ACK, &[1; 1000]));
    let waits = |filled: &Filled| filled.stack.info(filled.now, id).unwrap().out_of_order;
    filled.fill(PRESSURE - NEAR, keep);
    filled.poke();
    let counters = filled.stack.counters();
    assert_eq!((counters.tcp_memory_pressures, counters.prune_called, waits(&filled)), (0, 0, 1000));
    // Pruning makes room, so the test fills in more than that.
    let (_, last) = filled.closed();
    filled.fill(PRESSURE, keep);
    assert_eq!(filled.stack.send(last, &[0; 2000]), Ok(2000));
    filled.poke();
    let counters = filled.stack.counters();
    assert_eq!((counters.tcp_memory_pressures, counters.prune_called, waits(&filled)), (1, 1, 0));
    assert_eq!(counters.ofo_pruned, 1);
    // Above a half it lasts.
    filled.wait(Duration::from_millis(700));
    assert!(filled.held() > LOW);
    filled.poke();
    assert_eq!(filled.stack.counters().tcp_memory_pressures_chrono, 0);
    let ids: Vec<_> = filled.stack.sockets(filled.now).into_iter().filter_map(|entry| entry.socket).collect();
    for id in ids.into_iter().filter(|id| *id != filled.listener && *id != filled.other.1) {
        if filled.held() > LOW {
            filled.stack.abort(filled.now, id).unwrap();
        }
    }
    filled.drain();
    filled.poke();
    let counters = filled.stack.counters();
    assert_eq!((counters.tcp_memory_pressures, counters.tcp_memory_pressures_chrono), (1, 700));
    assert_eq!(filled.stack.check_consistent(), Ok(()));
}

/// Above seven eighths connections are aborted whose peer takes nothing, as many as it takes to get below it.
#[test]
fn stalled_connections_are_aborted_above_seven_eighths_threat_8() {
    let mut filled = Filled::new();
    filled.fill(CRITICAL - NEAR, keep);
    filled.wait(Duration::from_secs(5));
    filled.poke();
    assert_eq!(filled.aborted(), 0);
    let (_, id) = filled.closed();
    filled.stack.send(id, &[0; 2000]).unwrap();
    filled.poke();
    assert_eq!((filled.aborted(), filled.stack.counters().stalled_aborted), (1, 1));
    assert!(filled.held() <= CRITICAL);
    assert_eq!(filled.stack.check_consistent(), Ok(()));
}

/// A peer has a second to show that it takes something.
#[test]
fn who_has_been_sent_to_for_a_second_may_be_aborted_threat_8() {
    let mut filled = Filled::new();
    filled.fill(CRITICAL + 4 * NEAR, keep);
    filled.wait(Duration::from_millis(999));
    filled.poke();
    assert_eq!(filled.aborted(), 0);
    filled.wait(Duration::from_millis(1));
    filled.poke();
    assert!(filled.aborted() > 0 && filled.held() <= CRITICAL, "{} aborted", filled.aborted());
}

/// A peer that takes something, but too little, has a minute and a half; one that takes a sixteenth has no end.
#[test]
fn who_takes_less_than_a_sixteenth_in_ninety_seconds_may_be_aborted_threat_8() {
    for (time, missing, lives) in
        [(89_999, 1, true), (90_000, 1, false), (90_000, 0, true), (200_000, 0, true)]
    {
        let mut filled = Filled::new();
        let (mut client, id) = filled.connect();
        filled.stack.send(id, &[0; 6000]).unwrap();
        filled.drain();
        let enough = (filled.held() / 16) as u32;
        filled.wait(Duration::from_secs(1));
        client.ack += enough - missing;
        filled.give(&client.acknowledges());
        // Others are there to be aborted, but it comes first.
        filled.fill(CRITICAL - NEAR, keep);
        filled.wait(Duration::from_millis(time - 1000));
        assert_eq!(filled.aborted(), 0);
        let (_, last) = filled.closed();
        filled.stack.send(last, &[0; 2000]).unwrap();
        filled.poke();
        assert!(filled.aborted() > 0 && filled.held() <= CRITICAL);
        assert_eq!(filled.is_alive(id), lives, "after {time} ms, {missing} bytes too few");
    }
}

/// Orphans go first, and above fifteen sixteenths however young they are.
#[test]
fn orphans_are_aborted_before_others_and_above_fifteen_sixteenths_at_once_threat_8() {
    let mut filled = Filled::new();
    filled.fill(LOW, keep);
    filled.fill(CRITICAL - NEAR, close);
    let orphans = filled.stack.usage().orphans;
    filled.wait(Duration::from_secs(5));
    filled.poke();
    assert_eq!((filled.aborted(), filled.stack.usage().orphans), (0, orphans));
    filled.fill(CRITICAL + 4 * NEAR, keep);
    let counters = filled.stack.counters();
    assert!(counters.tcp_abort_on_memory > 0 && counters.stalled_aborted == 0, "{counters:?}");

    let mut filled = Filled::new();
    filled.fill(LOW, keep);
    filled.fill(HIGH - NEAR, close);
    filled.poke();
    assert_eq!(filled.aborted(), 0);
    let (_, id) = filled.closed();
    let _ = filled.stack.send(id, &[0; 2000]);
    filled.fill(HIGH, close);
    filled.poke();
    assert!(filled.stack.counters().tcp_abort_on_memory > 0, "young orphans go above it");
    assert!(filled.held() < HIGH);
}

/// Above fifteen sixteenths whoever has something unread gets no text; whoever has nothing unread gets a little, up to
/// the limit itself.
#[test]
fn text_is_refused_above_fifteen_sixteenths_threat_8() {
    let mut filled = Filled::new();
    let (mut reader, unread) = filled.connect();
    filled.give(&reader.packet(Flags::ACK, &[1; 100]));
    reader.seq += 100;
    filled.fill(HIGH - 2 * NEAR, keep);
    filled.give(&reader.packet(Flags::ACK, &[1; 100]));
    reader.seq += 100;
    assert_eq!(filled.stack.readable(unread), Ok((200, 0)));
    assert_eq!(filled.stack.counters().tcp_rcv_q_drop, 0);
    // Nobody may write above it, so it is text that fills the rest.
    while filled.held() < HIGH {
        let (client, _) = filled.connect();
        filled.give(&client.packet(Flags::ACK, &[1; 1400]));
    }
    assert_eq!(filled.stack.send(unread, &[1]), Err(Error::WouldBlock));
    filled.give(&reader.packet(Flags::ACK, &[1; 100]));
    assert_eq!(filled.stack.readable(unread), Ok((200, 0)));
    assert_eq!(filled.stack.counters().tcp_rcv_q_drop, 1);
    filled.poke();
    while filled.held() < TCP_MEM {
        let (client, _) = filled.connect();
        filled.give(&client.packet(Flags::ACK, &[1; 1400]));
    }
    let refused = filled.stack.counters().tcp_rcv_q_drop;
    let (client, id) = filled.other.clone();
    filled.give(&client.packet(Flags::ACK, &[1]));
    assert_eq!(filled.stack.recv(id, &mut [0; 9]), Err(Error::WouldBlock));
    assert_eq!(filled.stack.counters().tcp_rcv_q_drop, refused + 1);
    assert_eq!(filled.stack.check_consistent(), Ok(()));
}

/// Below half of `tcp_mem` a connection with little to send has no place in line: its second begins once memory is short.
#[test]
fn a_connection_with_little_to_send_is_young_when_memory_gets_short_threat_8() {
    let mut filled = Filled::new();
    let (_, id) = filled.closed();
    filled.stack.send(id, &[0; 100]).unwrap();
    filled.drain();
    filled.wait(Duration::from_secs(5));
    filled.fill(CRITICAL + 4 * NEAR, keep);
    filled.poke();
    assert_eq!((filled.aborted(), filled.is_alive(id)), (0, true));
}

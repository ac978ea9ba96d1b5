//! One connection carries 12 GiB: sequence numbers wrap three times, and the same events every 512 MiB have the same
//! effects as the first time.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use steadfast_core::config::EcnMode;
use steadfast_core::counters::Counters;
use steadfast_core::wire::ipv6;
use steadfast_core::wire::tcp::Header;
use steadfast_core::{
    Config, Duration, Error, Event, Instant, Interface, Packet, PacketBytes, SocketId, SocketOptions, Stack,
};

const REST: Duration = Duration::from_secs(200);
const DELAY: Duration = Duration::from_millis(1);
const MTU: u16 = u16::MAX;
/// Bytes carried between two rounds of events.
const STRETCH: u64 = 512 << 20;

/// The fate of the client's segments with payload, counted from the beginning of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Drop(usize),
    Mark(usize),
}

/// The effects of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reaction {
    /// Segments with payload, including retransmissions, and those with a flag.
    segments: usize,
    urgent: usize,
    cwr: usize,
    ece: usize,
    sack: usize,
    retransmitted: u64,
    timeouts: u64,
    fast_recoveries: u64,
    window_probes: u64,
    /// Whether the congestion window is smaller than the initial ten segments.
    reduced: bool,
    /// The most urgent bytes that the reader was told of, and the number of urgent events.
    urgent_bytes: usize,
    urgent_events: usize,
    milliseconds: u64,
}

struct Wire {
    now: Instant,
    client: (Stack, SocketId),
    server: (Stack, SocketId),
    in_flight: VecDeque<(Instant, bool, Bytes)>,
    lent: VecDeque<Bytes>,
    fault: Fault,
    seen: Reaction,
    buffer: Vec<u8>,
    block: Bytes,
    written: u64,
    read: u64,
    /// Whether the server's application reads.
    reads: bool,
}

impl Wire {
    fn new() -> Wire {
        let stack = |address: &str, secret| {
            let config = Config {
                secret: [secret; 32],
                tcp_ecn: EcnMode::On,
                tcp_notsent_lowat: u32::MAX,
                // The lost tail is for the RTO.
                tcp_early_retrans: 0,
                ..Config::default()
            };
            let mut interface = Interface::new(MTU, [(address.parse().unwrap(), 64)]);
            interface.checksum_offload = true;
            Stack::new(config, interface)
        };
        let (mut client, mut server) = (stack("fd00::1", 1), stack("fd00::2", 2));
        let (now, address) = (Instant::from_secs(1), "[fd00::2]:80".parse().unwrap());
        let listener = server.listen(address, Default::default()).unwrap();
        let stream = client.connect(now, address, Default::default()).unwrap();
        let mut wire = Wire {
            now,
            client: (client, stream),
            server: (server, SocketId::default()),
            in_flight: VecDeque::new(),
            lent: VecDeque::new(),
            fault: Fault::None,
            seen: Reaction::default(),
            buffer: vec![0; 1 << 20],
            block: Bytes::from(vec![7; 1 << 20]),
            written: 0,
            read: 0,
            reads: true,
        };
        wire.run_for(Duration::from_secs(1));
        wire.server.1 = wire.server.0.accept(listener).unwrap().0;
        wire
    }

    fn frame(&mut self) -> BytesMut {
        let len = usize::from(MTU);
        let free = self.lent.front().is_some_and(Bytes::is_unique).then(|| self.lent.pop_front()).flatten();
        let frame = free.and_then(|bytes| bytes.try_into_mut().ok());
        frame.unwrap_or_else(|| BytesMut::zeroed(len))
    }

    /// Sends all pending packets, and reads the data that arrived.
    fn flush(&mut self) {
        for from_client in [true, false] {
            loop {
                let mut frame = self.frame();
                let stack = if from_client { &mut self.client.0 } else { &mut self.server.0 };
                let Some(sent) = stack.transmit(self.now, &mut frame) else {
                    self.lent.push_front(frame.freeze());
                    break;
                };
                let lost = self.look(from_client, &mut frame[..sent.len]);
                let whole = frame.freeze();
                if !lost {
                    self.in_flight.push_back((self.now + DELAY, from_client, whole.slice(..sent.len)));
                }
                self.lent.push_back(whole);
            }
        }
        while let Some((id, event)) = self.server.0.poll_event() {
            self.seen.urgent_events += usize::from(id == self.server.1 && event.contains(Event::URGENT));
        }
        while self.client.0.poll_event().is_some() {}
        if self.reads && self.server.1 != SocketId::default() {
            self.read_all();
        }
    }

    fn read_all(&mut self) {
        let (stack, id) = &mut self.server;
        let (_, urgent) = stack.readable(*id).unwrap();
        self.seen.urgent_bytes = self.seen.urgent_bytes.max(urgent);
        loop {
            match stack.recv(*id, &mut self.buffer) {
                Ok(count) => self.read += count as u64,
                Err(Error::WouldBlock) => return,
                Err(error) => panic!("{error} after {} bytes", self.read),
            }
        }
    }

    /// Counts a packet, and returns whether it is lost.
    fn look(&mut self, from_client: bool, packet: &mut [u8]) -> bool {
        let (_, segment) = ipv6::parse(packet).unwrap();
        let (header, payload) = Header::parse(segment).unwrap();
        let flags = header.flags;
        if !from_client {
            self.seen.ece += usize::from(flags.ece() && !flags.syn());
            self.seen.sack += usize::from(!header.options.sack.is_empty());
            return false;
        }
        if payload.is_empty() {
            return false;
        }
        let nth = self.seen.segments;
        self.seen.segments += 1;
        self.seen.urgent += usize::from(flags.urg());
        self.seen.cwr += usize::from(flags.cwr());
        if self.fault == Fault::Mark(nth) {
            // The low bits of the traffic class.
            packet[1] |= 0x30;
        }
        self.fault == Fault::Drop(nth)
    }

    /// Advances to the next event, at most to `until`. Returns whether there was one.
    fn step(&mut self, until: Instant) -> bool {
        self.flush();
        let arrival = self.in_flight.front().map(|(at, ..)| *at);
        let timers = [self.client.0.poll_at(), self.server.0.poll_at()];
        let next = timers.into_iter().flatten().chain(arrival).min().map(|at| at.max(self.now));
        let more = next.is_some_and(|next| next <= until);
        self.now = next.filter(|_| more).unwrap_or(until);
        self.client.0.advance(self.now);
        self.server.0.advance(self.now);
        while self.in_flight.front().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, from_client, bytes) = self.in_flight.pop_front().unwrap();
            let to = if from_client { &mut self.server.0 } else { &mut self.client.0 };
            to.receive(self.now, Packet::new(PacketBytes::Shared(bytes), true));
            self.flush();
        }
        self.flush();
        more
    }

    fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step(until) {}
    }

    fn write(&mut self, data: &mut Bytes) {
        match self.client.0.send_bytes(self.client.1, data) {
            Ok(count) => self.written += count as u64,
            Err(error) => assert_eq!(error, Error::WouldBlock),
        }
    }

    /// Carries `bytes` and waits until all of them are read and acknowledged.
    fn carry(&mut self, bytes: u64) {
        let end = self.written + bytes;
        let until = self.now + Duration::from_secs(600);
        while self.written < end {
            let len = (end - self.written).min(1 << 20) as usize;
            self.write(&mut self.block.slice(..len));
            self.step(until);
        }
        self.rest();
        assert_eq!(self.read, self.written);
    }

    /// Carries a stretch without events.
    fn stretch(&mut self) -> Reaction {
        let begun = self.now;
        self.seen = Reaction::default();
        self.carry(STRETCH);
        let milliseconds = ((self.now - begun) - REST).as_millis() as u64;
        Reaction { milliseconds, ..std::mem::take(&mut self.seen) }
    }

    /// Rests until all data is acknowledged and the congestion window is that of a restart.
    fn rest(&mut self) {
        self.run_for(REST);
    }

    fn small_writes(&mut self, count: usize) {
        for _ in 0..count {
            self.write(&mut self.block.slice(..1000));
            self.flush();
        }
    }

    /// Plays an event from rest to rest.
    fn event(&mut self, fault: Fault, play: impl FnOnce(&mut Wire)) -> Reaction {
        let counters = |wire: &Wire| {
            let Counters { retrans_segs, tcp_timeouts, tcp_sack_recovery, tcp_win_probe, .. } =
                *wire.client.0.counters();
            [retrans_segs, tcp_timeouts, tcp_sack_recovery, tcp_win_probe]
        };
        // The congestion window grows beyond that of a restart.
        self.carry(1 << 20);
        let before = counters(self);
        let begun = self.now;
        (self.seen, self.fault) = (Reaction::default(), fault);
        play(self);
        while self.read < self.written || self.unacked() > 0 {
            self.step(begun + Duration::from_secs(600));
        }
        let milliseconds = (self.now - begun).as_millis() as u64;
        let reduced = self.cwnd() < 10_000;
        self.rest();
        self.fault = Fault::None;
        let after = counters(self);
        let [retransmitted, timeouts, fast_recoveries, window_probes] =
            std::array::from_fn(|i| after[i] - before[i]);
        let seen = std::mem::take(&mut self.seen);
        Reaction { retransmitted, timeouts, fast_recoveries, window_probes, reduced, milliseconds, ..seen }
    }

    fn cwnd(&self) -> u32 {
        self.client.0.info(self.now, self.client.1).unwrap().snd_cwnd
    }

    fn unacked(&self) -> u32 {
        self.client.0.info(self.now, self.client.1).unwrap().unacked
    }

    fn set_max_segment(&mut self, max_segment: Option<u16>) {
        let (stack, id) = &mut self.client;
        let options =
            SocketOptions::new(stack.config()).with(|o| (o.nodelay, o.max_segment) = (true, max_segment));
        stack.set_options(self.now, *id, options).unwrap();
    }

    /// One event of each kind, beginning with `first`. Segments of 1000 bytes make a window many of them.
    fn round(&mut self, first: usize) -> [Reaction; EVENTS.len()] {
        self.set_max_segment(Some(1012));
        let mut reactions: [Reaction; EVENTS.len()] = Default::default();
        for nth in 0..EVENTS.len() {
            let which = (first + nth) % EVENTS.len();
            let (_, fault, play) = EVENTS[which];
            reactions[which] = self.event(fault, play);
        }
        // The persist timeout depends on the round trips of the stretch before.
        reactions[WINDOW].milliseconds = 0;
        // The CWR of the last event is sent with it.
        self.carry(1 << 20);
        self.set_max_segment(None);
        reactions
    }
}

type Play = fn(&mut Wire);

const EVENTS: [(&str, Fault, Play); 6] = [
    ("nothing", Fault::None, |wire| wire.small_writes(10)),
    ("the last segment is lost", Fault::Drop(9), |wire| wire.small_writes(10)),
    ("a hole", Fault::Drop(3), |wire| wire.small_writes(10)),
    ("a mark", Fault::Mark(3), |wire| {
        wire.small_writes(10);
        wire.run_for(Duration::from_millis(20));
        wire.small_writes(3);
    }),
    ("an urgent byte", Fault::None, |wire| {
        wire.small_writes(2);
        wire.written += wire.client.0.send_urgent(wire.client.1, b"!").unwrap() as u64;
        wire.small_writes(2);
    }),
    ("a closed window", Fault::None, |wire| {
        wire.reads = false;
        for _ in 0..4 {
            wire.write(&mut wire.block.clone());
            wire.run_for(Duration::from_secs(5));
        }
        wire.reads = true;
    }),
];
const HOLE: usize = 2;
const MARK: usize = 3;
const WINDOW: usize = 5;

/// Carries stretches, with a round of events after each given number of them. The round begins with the given event.
fn carry(rounds: &[(usize, usize)]) {
    let mut wire = Wire::new();
    // Once, so that thresholds and estimates are those of a connection with a past.
    wire.round(0);
    let (mut first, mut first_stretch) = (None, None);
    for (round, (stretches, begin)) in rounds.iter().enumerate() {
        for _ in 0..*stretches {
            let stretch = wire.stretch();
            let Reaction { urgent, cwr, ece, sack, urgent_bytes, .. } = stretch;
            assert_eq!((urgent, cwr, ece, sack, urgent_bytes), (0, 0, 0, 0, 0), "before round {round}");
            let first_stretch = first_stretch.get_or_insert_with(|| stretch.clone());
            let more = stretch.segments.abs_diff(first_stretch.segments);
            assert!(more <= 10, "{} and {} segments", first_stretch.segments, stretch.segments);
        }
        let now = wire.round(*begin);
        if round == 0 {
            let [nothing, tail, hole, mark, urgent, window] = now.clone();
            assert_eq!((nothing.segments, nothing.retransmitted, nothing.urgent, nothing.cwr), (10, 0, 0, 0));
            assert_eq!((tail.retransmitted, tail.timeouts), (1, 1), "{tail:?}");
            assert_eq!((hole.retransmitted, hole.timeouts, hole.fast_recoveries), (1, 0, 1), "{hole:?}");
            assert!(hole.sack > 0 && hole.milliseconds < 100 && hole.reduced, "{hole:?}");
            assert_eq!((mark.cwr, mark.retransmitted, mark.reduced), (1, 0, true), "{mark:?}");
            assert!(mark.ece > 0, "{mark:?}");
            assert_eq!((urgent.urgent, urgent.urgent_events, urgent.urgent_bytes), (1, 1, 1), "{urgent:?}");
            assert!(window.window_probes > 0 && window.retransmitted == 0, "{window:?}");
        }
        let first = first.get_or_insert_with(|| now.clone());
        for ((name, ..), (first, now)) in EVENTS.iter().zip(first.iter().zip(&now)) {
            assert_eq!(first, now, "{name}, round {round}");
        }
    }
    assert!(wire.read >= 12 << 30, "{} bytes", wire.read);
}

#[test]
fn what_happens_every_512_mib_is_what_happened_at_first() {
    carry(&[(1, 0); 24]);
}

/// A number that stays the same for 2^31 bytes seems to lie ahead for the next 2^31.
#[test]
fn what_happens_after_gigabytes_of_nothing_is_what_happened_at_first() {
    // The number of the first event of each round is as old as the stretches are long.
    carry(&[(1, 0), (5, HOLE), (1, 0), (5, MARK), (5, HOLE), (7, MARK)]);
}

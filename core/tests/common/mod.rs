//! Two stacks and a wire between them, under a clock that the test controls.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::collections::VecDeque;
use std::net::SocketAddr;

use steadfast_core::wire::checksum::Sum;
use steadfast_core::wire::{ipv4, ipv6, tcp};
use steadfast_core::{
    Config, ConnectOptions, Duration, Error, Event, Instant, Interface, ListenOptions, SocketId, Stack,
    Transmit,
};

/// One of the two stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// Two stacks whose packets take `delay` to the other side. `wire` decides the fate of each packet.
pub struct Pair {
    pub now: Instant,
    pub client: Stack,
    pub server: Stack,
    pub delay: Duration,
    in_flight: VecDeque<(Instant, Side, Vec<u8>)>,
    pub events: Vec<(Side, SocketId, Event)>,
    /// Packets sent by each side.
    pub sent: [usize; 2],
    /// Returns whether a packet, the n-th of its side, gets through.
    pub wire: Wire,
}

/// Returns whether a packet, the n-th of its side, gets through.
pub type Wire = Box<dyn FnMut(Side, usize, &[u8]) -> bool>;

pub const SERVER: &str = "10.0.0.2:80";
pub const SERVER_V6: &str = "[fd00::2]:80";

impl Pair {
    pub fn new(config: Config) -> Pair {
        Pair::with_checksum_offload(config, false)
    }

    /// With `offload`, the devices fill in TCP checksums.
    pub fn with_checksum_offload(config: Config, offload: bool) -> Pair {
        let stack = |address: &str, v6: &str, secret: u8| {
            let config = Config { secret: [secret; 32], ..config.clone() };
            let addresses = [(address.parse().unwrap(), 24), (v6.parse().unwrap(), 64)];
            let mut interface = Interface::new(1500, addresses);
            interface.checksum_offload = offload;
            Stack::new(config, interface)
        };
        Pair {
            now: Instant::from_secs(1),
            client: stack("10.0.0.1", "fd00::1", 1),
            server: stack("10.0.0.2", "fd00::2", 2),
            delay: Duration::from_millis(10),
            in_flight: VecDeque::new(),
            events: Vec::new(),
            sent: [0; 2],
            wire: Box::new(|_, _, _| true),
        }
    }

    pub fn stack(&mut self, side: Side) -> &mut Stack {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Lets both stacks send their pending packets.
    pub fn flush(&mut self) {
        for side in [Side::Client, Side::Server] {
            let mut frame = vec![0; 65_535];
            let now = self.now;
            while let Some(transmit) = self.stack(side).transmit(now, &mut frame) {
                let packet = on_the_wire(&frame, transmit);
                let count = &mut self.sent[side as usize];
                *count += 1;
                if (self.wire)(side, *count, &packet) {
                    let to = if side == Side::Client { Side::Server } else { Side::Client };
                    self.in_flight.push_back((self.now + self.delay, to, packet));
                }
            }
            while let Some((id, event)) = self.stack(side).poll_event() {
                self.events.push((side, id, event));
            }
        }
    }

    /// Advances to the next event, at most to `until`. Returns whether there was one.
    pub fn step(&mut self, until: Instant) -> bool {
        self.flush();
        let arrival = self.in_flight.front().map(|(at, ..)| *at);
        let timers = [self.client.poll_at(), self.server.poll_at()];
        let next = timers.into_iter().flatten().chain(arrival).min().map(|at| at.max(self.now));
        let Some(next) = next.filter(|next| *next <= until) else {
            self.now = until;
            self.client.advance(until);
            self.server.advance(until);
            self.flush();
            return false;
        };
        self.now = next;
        self.client.advance(next);
        self.server.advance(next);
        while self.in_flight.front().is_some_and(|(at, ..)| *at <= next) {
            let (_, side, packet) = self.in_flight.pop_front().unwrap();
            self.stack(side).receive(next, &packet[..]);
        }
        self.flush();
        true
    }

    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        let mut steps = 0;
        while self.step(until) {
            steps += 1;
            assert!(steps < 10_000_000, "livelock at {}", self.now);
        }
        for stack in [&self.client, &self.server] {
            // With many sockets it takes long.
            if stack.usage().sockets < 64 {
                assert_eq!(stack.check_consistent(), Ok(()));
            }
        }
    }

    /// Establishes a connection. Returns the client's socket and the server's.
    pub fn connect(&mut self) -> (SocketId, SocketId) {
        self.connect_to(SERVER)
    }

    pub fn connect_to(&mut self, server: &str) -> (SocketId, SocketId) {
        let server: SocketAddr = server.parse().unwrap();
        let listener = self.server.listen(server, ListenOptions::default()).unwrap();
        let client = self.client.connect(self.now, server, ConnectOptions::default()).unwrap();
        self.run_for(Duration::from_millis(100));
        let (accepted, _) = self.server.accept(listener).unwrap();
        (client, accepted)
    }

    /// Sends `data` one way while the other side reads. Returns the data read.
    pub fn transfer(&mut self, from: (Side, SocketId), to: (Side, SocketId), data: &[u8]) -> Vec<u8> {
        let (mut sent, mut got) = (0, Vec::new());
        let deadline = self.now + Duration::from_secs(3600);
        let mut buffer = vec![0; 65_536];
        while got.len() < data.len() {
            if sent < data.len() {
                match self.stack(from.0).send(from.1, &data[sent..]) {
                    Ok(count) => sent += count,
                    Err(Error::WouldBlock) => {}
                    Err(error) => panic!("send after {sent} bytes at {}: {error}", self.now),
                }
            }
            self.step(deadline);
            loop {
                match self.stack(to.0).recv(to.1, &mut buffer) {
                    Ok(0) | Err(Error::WouldBlock) => break,
                    Ok(count) => got.extend_from_slice(&buffer[..count]),
                    Err(error) => panic!("recv after {} bytes at {}: {error}", got.len(), self.now),
                }
            }
            assert!(self.now < deadline, "{} of {} bytes after an hour", got.len(), data.len());
        }
        got
    }
}

/// Returns the packet as a device sends it, with the checksum filled in if that was offloaded.
pub fn on_the_wire(frame: &[u8], transmit: Transmit) -> Vec<u8> {
    let mut packet = frame[..transmit.len].to_vec();
    if transmit.checksum_offload {
        let ip_len = if packet[0] >> 4 == 4 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let mut sum = Sum::new();
        sum.add_bytes(&packet[ip_len..]);
        tcp::set_checksum(&mut packet[ip_len..], sum.finish());
    }
    packet
}

/// Bytes that vary with their position.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

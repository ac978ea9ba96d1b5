//! While data flows nothing is allocated, neither for a segment nor for a call; nor while connections come and go. What
//! waits takes what it needs, and what is gone takes nothing.

use allocation_counter::measure;
use std::net::Ipv4Addr;

use steadfast_core::wire::icmp::{self, Message};
use steadfast_core::wire::{Ecn, PROTOCOL_ICMP, ipv4};
use steadfast_core::{Config, Instant, Interface, SocketId, SocketOptions, Stack};

/// A connection between two stacks, and frames for what is between them.
struct Pair {
    client: (Stack, SocketId),
    server: (Stack, SocketId),
    now: Instant,
    frames: Vec<(Vec<u8>, usize)>,
}

type End = (Stack, SocketId);

impl Pair {
    fn new() -> Pair {
        let stack = |address: &str, secret| {
            let config = Config { secret: [secret; 32], ..Config::default() };
            Stack::new(config, Interface::new(1500, [(address.parse().unwrap(), 24)]))
        };
        let (mut client, mut server) = (stack("10.0.0.1", 1), stack("10.0.0.2", 2));
        let address = "10.0.0.2:80".parse().unwrap();
        let listener = server.listen(address, Default::default()).unwrap();
        let now = Instant::from_secs(1);
        let stream = client.connect(now, address, Default::default()).unwrap();
        let nodelay = SocketOptions { nodelay: true, ..SocketOptions::new(client.config()) };
        client.set_options(now, stream, nodelay).unwrap();
        let frames = vec![(vec![0; 1500], 0); 32];
        let mut pair = Pair { client: (client, stream), server: (server, SocketId::default()), now, frames };
        while pair.reach_server() | pair.reach_client() {}
        pair.server.1 = pair.server.0.accept(listener).unwrap().0;
        pair
    }

    fn reach_server(&mut self) -> bool {
        carry(&mut self.client, &mut self.server, self.now, &mut self.frames)
    }

    fn reach_client(&mut self) -> bool {
        carry(&mut self.server, &mut self.client, self.now, &mut self.frames)
    }

    fn tick(&mut self) {
        self.now += std::time::Duration::from_micros(10);
        for (stack, _) in [&mut self.client, &mut self.server] {
            stack.advance(self.now);
            while stack.poll_event().is_some() {}
        }
    }
}

fn carry(from: &mut End, to: &mut End, now: Instant, frames: &mut [(Vec<u8>, usize)]) -> bool {
    let mut count = 0;
    while let Some((frame, len)) = frames.get_mut(count)
        && let Some(sent) = from.0.transmit(now, frame)
    {
        *len = sent.len;
        count += 1;
    }
    frames[..count].iter().for_each(|(frame, len)| to.0.receive(now, &frame[..*len]));
    count > 0
}

#[test]
fn bulk_in_steady_state_allocates_nothing() {
    let mut pair = Pair::new();
    let (data, mut buffer) = (vec![7; 100_000], vec![0; 100_000]);
    let mut received = 0;
    let mut turn = |pair: &mut Pair| {
        pair.tick();
        while pair.client.0.send(pair.client.1, &data).is_ok() {}
        pair.reach_server();
        while let Ok(count) = pair.server.0.recv(pair.server.1, &mut buffer) {
            received += count;
        }
        pair.reach_client();
    };
    // Until the windows are open and the buffers have been filled once.
    (0..1000).for_each(|_| turn(&mut pair));
    let info = measure(|| (0..1000).for_each(|_| turn(&mut pair)));
    assert_eq!(info.count_total, 0, "{info:?}");
    assert!(received > 60_000_000, "{received}");
}

#[test]
fn messages_there_and_back_allocate_nothing() {
    let mut pair = Pair::new();
    let mut buffer = [0; 64];
    let mut turn = |pair: &mut Pair| {
        pair.tick();
        pair.client.0.send(pair.client.1, &[1; 64]).unwrap();
        pair.reach_server();
        assert_eq!(pair.server.0.recv(pair.server.1, &mut buffer), Ok(64));
        pair.server.0.send(pair.server.1, &buffer).unwrap();
        pair.reach_client();
        assert_eq!(pair.client.0.recv(pair.client.1, &mut buffer), Ok(64));
    };
    (0..100).for_each(|_| turn(&mut pair));
    let info = measure(|| (0..1000).for_each(|_| turn(&mut pair)));
    assert_eq!(info.count_total, 0, "{info:?}");
}

#[test]
fn connections_that_come_and_go_allocate_nothing() {
    let mut pair = Pair::new();
    for (stack, _) in [&mut pair.client, &mut pair.server] {
        // So few that the table is full before it is measured.
        stack.set_config(Config { tcp_max_tw_buckets: 64, ..stack.config().clone() });
    }
    let address = "10.0.0.2:81".parse().unwrap();
    let listener = pair.server.0.listen(address, Default::default()).unwrap();
    let turn = |pair: &mut Pair| {
        pair.tick();
        let stream = pair.client.0.connect(pair.now, address, Default::default()).unwrap();
        while pair.reach_server() | pair.reach_client() {}
        let (accepted, _) = pair.server.0.accept(listener).unwrap();
        pair.client.0.close(pair.now, stream).unwrap();
        pair.reach_server();
        pair.server.0.close(pair.now, accepted).unwrap();
        while pair.reach_client() | pair.reach_server() {}
    };
    (0..1000).for_each(|_| turn(&mut pair));
    assert_eq!(pair.client.0.usage().time_wait, 64);
    let info = measure(|| (0..1000).for_each(|_| turn(&mut pair)));
    assert_eq!(info.count_total, 0, "{info:?}");
    assert_eq!(pair.server.0.usage().connections, 1);
}

/// A ping without data, from any of many networks.
fn ping(number: u32) -> Vec<u8> {
    let mut packet = vec![0; ipv4::HEADER_LEN + icmp::HEADER_LEN];
    let header = ipv4::Header {
        source: Ipv4Addr::from(0x0b00_0000 + number * 256),
        destination: Ipv4Addr::new(10, 0, 0, 1),
        protocol: PROTOCOL_ICMP,
        ttl: 64,
        dscp: 0,
        ecn: Ecn::NotEct,
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        source_route: false,
    };
    header.emit(icmp::HEADER_LEN, &mut packet);
    let message = Message::EchoRequest { ident: 1, sequence: 1, data: &[] };
    icmp::emit_v4(&message, &mut packet[ipv4::HEADER_LEN..]).unwrap();
    packet
}

/// Whatever the MTU is, an answer that waits holds its own bytes.
#[test]
fn an_answer_that_waits_holds_its_own_bytes() {
    let interface = Interface::new(65_535, [("10.0.0.1".parse().unwrap(), 24)]);
    let mut stack = Stack::new(Config { secret: [1; 32], ..Config::default() }, interface);
    let now = Instant::from_secs(1);
    let pings: Vec<_> = (0..2000).map(ping).collect();
    let held = measure(|| pings.iter().for_each(|ping| stack.receive(now, &ping[..])));
    let waiting = stack.usage().replies;
    assert!(waiting > 100, "{waiting}");
    // 28 bytes each, a place in the queue, and what a chunk of it has left.
    let each = held.bytes_current as usize / waiting;
    assert!(each < 28 + 256, "{each}");
    let mut frame = vec![0; 65_535];
    let left = measure(|| while stack.transmit(now, &mut frame).is_some() {});
    let kept = held.bytes_current + left.bytes_current;
    assert!(kept <= 3 * 4096, "{kept} bytes are kept");
}

//! Steady traffic does not allocate, neither for a segment nor for a call, nor when connections come and go. Waiting
//! connections take only what they need, and finished ones take nothing.

use allocation_counter::measure;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use steadfast_core::trace::State;
use steadfast_core::wire::icmp::Message;
use steadfast_core::wire::tcp::{Flags, Options, Timestamps};
use steadfast_core::{Config, Instant, Interface, SocketId, SocketOptions, Stack};
use steadfast_testkit::{Client, next_segment, packets};

/// A connection between two stacks, and frames for the packets between them.
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
        let nodelay = SocketOptions::new(client.config()).with(|o| o.nodelay = true);
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
        // So few that the table is full before the measurement.
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

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const NOW: Instant = Instant::from_secs(1);

/// A host that opens connections to port 80 of a stack.
fn client(number: u32) -> Client {
    let timestamps = Some(Timestamps { val: 1, ecr: 0 });
    let offer = Options { mss: Some(1460), timestamps, ..Options::default() };
    Client::new((Ipv4Addr::from(0x0b00_0000 + number), 4000), (SERVER, 80)).offering(offer)
}

fn send(client: &Client, stack: &mut Stack, flags: Flags) {
    stack.receive(NOW, &client.packet(flags, &[])[..]);
}

fn server(change: impl FnOnce(&mut Config)) -> (Stack, SocketId) {
    let mut config = Config { secret: [1; 32], ..Config::default() };
    change(&mut config);
    let mut stack = Stack::new(config, Interface::new(1500, [(SERVER.into(), 24), (SERVER_V6.into(), 64)]));
    stack.advance(NOW);
    let listener = stack.listen("10.0.0.1:80".parse().unwrap(), Default::default()).unwrap();
    (stack, listener)
}

fn drain(stack: &mut Stack, now: Instant) -> usize {
    let mut frame = [0; 1500];
    while stack.poll_event().is_some() {}
    std::iter::from_fn(|| stack.transmit(now, &mut frame)).count()
}

/// Runs timers until none is due. Returns the number of calls.
fn run_until(stack: &mut Stack, now: Instant) -> usize {
    let mut calls = 0;
    while stack.poll_at().is_some_and(|at| at <= now) {
        stack.advance(now);
        drain(stack, now);
        calls += 1;
    }
    calls
}

const COUNT: u32 = 20_000;

/// Makes connections that the server has closed first, up to FIN-WAIT-2.
fn fin_wait_2(stack: &mut Stack, listener: SocketId, peers: impl Iterator<Item = Client>) -> Vec<Client> {
    let mut peers: Vec<_> = peers.collect();
    for peer in &mut peers {
        let id = peer.connect(stack, NOW, listener);
        stack.close(NOW, id).unwrap();
        drain(stack, NOW);
        peer.ack += 1;
        send(peer, stack, Flags::ACK);
    }
    peers
}

/// THREAT-10: an orphan whose peer does not close takes at most 256 bytes in total, and nothing after it ends.
#[test]
fn an_orphan_in_fin_wait_2_takes_256_bytes_threat_10() {
    let (mut stack, listener) = server(|_| {});
    let mut peers = Vec::new();
    let list = (size_of::<Client>() * COUNT as usize) as i64;
    let held =
        measure(|| peers = fin_wait_2(&mut stack, listener, (0..COUNT).map(client))).bytes_current - list;
    let usage = stack.usage();
    assert_eq!((usage.orphans, usage.connections), (COUNT as usize, COUNT as usize));
    assert!(held <= 256 * i64::from(COUNT), "{} bytes each", held / i64::from(COUNT));
    let listed = stack.sockets(NOW).into_iter().filter(|entry| entry.state == State::FinWait2);
    assert_eq!(listed.count(), COUNT as usize);
    // Each probe of a peer triggers one ACK, and the orphans do not grow.
    let probes = measure(|| {
        for peer in &peers {
            send(&peer.at(peer.seq - 1), &mut stack, Flags::ACK);
            assert_eq!(drain(&mut stack, NOW), 1);
        }
    });
    assert!(held + probes.bytes_current <= 256 * i64::from(COUNT), "{probes:?}");
    // A RST ends one, and a FIN another.
    for (number, flags) in [(0, Flags::RST), (1, Flags::FIN | Flags::ACK)] {
        send(&peers[number], &mut stack, flags);
        drain(&mut stack, NOW);
    }
    let usage = stack.usage();
    assert_eq!((usage.orphans, usage.time_wait), (COUNT as usize - 2, 1));
    let end = NOW + stack.config().tcp_fin_timeout + std::time::Duration::from_secs(1);
    let ended = measure(|| assert!(run_until(&mut stack, end) > 100, "it goes in steps"));
    assert_eq!((stack.usage().orphans, stack.usage().timers), (0, 0));
    assert_eq!(stack.counters().tcp_abort_on_linger, u64::from(COUNT) - 2);
    let kept = held + probes.bytes_current + ended.bytes_current;
    assert!(kept < held / 10, "{kept} bytes are kept of {held}");
}

/// THREAT-11: entries of either family take no more than their limit in total. They end in steps, and then take
/// nothing.
#[test]
fn time_wait_takes_what_its_limit_says_and_gives_it_back_threat_11() {
    let ends = |v6: bool, number: u32| -> (SocketAddr, SocketAddr) {
        match v6 {
            false => (client(number).end, (SERVER, 80).into()),
            true => {
                let address = Ipv6Addr::from_bits(SERVER_V6.to_bits() + 1 + u128::from(number));
                ((address, 4000).into(), (SERVER_V6, 80).into())
            }
        }
    };
    for (v6, each) in [(false, 58), (true, 82)] {
        const FIT: u32 = COUNT - 1000;
        let (mut stack, mut listener) = server(|config| config.tcp_tw_mem = u64::from(FIT * each + each - 1));
        if v6 {
            listener = stack.listen((SERVER_V6, 80).into(), Default::default()).unwrap();
        }
        let offer = client(0).offer;
        let clients = (0..COUNT).map(|number| {
            let (end, server) = ends(v6, number);
            Client::new(end, server).offering(offer)
        });
        let mut peers = Vec::new();
        let list = (size_of::<Client>() * COUNT as usize) as i64;
        let held = measure(|| {
            peers = fin_wait_2(&mut stack, listener, clients);
            for peer in &peers {
                send(peer, &mut stack, Flags::FIN | Flags::ACK);
                drain(&mut stack, NOW);
            }
        });
        let held = held.bytes_current - list;
        assert_eq!(stack.usage().time_wait, FIT as usize);
        assert_eq!(stack.counters().tcp_time_wait_overflow, 1000);
        // Each of the other tables keeps a page, and so does that of connections.
        let pages = 6 * 65_536;
        let limit = stack.config().tcp_tw_mem as i64;
        assert!(held - pages <= limit, "{} bytes each", held / i64::from(FIT));
        let ended = measure(|| {
            let calls = run_until(&mut stack, NOW + std::time::Duration::from_secs(61));
            assert!(calls > 100, "{calls}: it goes in steps");
        });
        assert_eq!(stack.usage().time_wait, 0);
        let kept = held + ended.bytes_current;
        assert!(kept <= pages, "{kept} bytes are kept of {held}");
    }
    let config = Config::default();
    assert_eq!(config.tcp_tw_mem, 16 << 20);
    assert!(u64::from(config.tcp_max_tw_buckets) * 58 <= config.tcp_tw_mem, "of IPv4 all fit in");
}

/// SA-LISTEN-15: the half-open entries of a closed listener go in steps; meanwhile segments find no listener.
#[test]
fn a_listener_with_many_half_open_connections_closes_in_steps_sa_listen_15() {
    let (mut stack, listener) = server(|config| {
        (config.tcp_max_half_open, config.tcp_max_syn_backlog) = (1 << 20, 1 << 20);
    });
    for number in 0..COUNT {
        send(&client(number), &mut stack, Flags::SYN);
        drain(&mut stack, NOW);
    }
    assert_eq!(stack.usage().half_open, COUNT as usize);
    stack.close(NOW, listener).unwrap();
    let usage = stack.usage();
    assert_eq!(usage.listeners, 0);
    assert!(usage.half_open > COUNT as usize - 100, "{}", usage.half_open);
    // The last SYN again: the listener is gone.
    let before = stack.usage().half_open;
    send(&client(COUNT - 1), &mut stack, Flags::SYN);
    let mut frame = [0; 1500];
    assert!(next_segment(&mut stack, NOW, &mut frame).unwrap().header.flags.rst());
    assert_eq!(stack.usage().half_open, before - 1);
    // A new listener at the same address is unaffected by the entries that go.
    stack.listen("10.0.0.1:80".parse().unwrap(), Default::default()).unwrap();
    send(&client(COUNT), &mut stack, Flags::SYN);
    drain(&mut stack, NOW);
    assert!(run_until(&mut stack, NOW) > 100);
    assert_eq!((stack.usage().listeners, stack.usage().half_open), (1, 1));
}

/// A ping without data, each from another network.
fn ping(number: u32) -> Vec<u8> {
    let source = Ipv4Addr::from(0x0b00_0000 + number * 256);
    let message = Message::EchoRequest { ident: 1, sequence: 1, data: &[] };
    packets::icmp(source.into(), SERVER.into(), &message).unwrap()
}

/// A waiting reply holds only its own bytes, whatever the MTU.
#[test]
fn an_answer_that_waits_holds_its_own_bytes() {
    let interface = Interface::new(65_535, [("10.0.0.1".parse().unwrap(), 24)]);
    let config = Config { secret: [1; 32], icmp_ratelimit: 1_000_000, ..Config::default() };
    let mut stack = Stack::new(config, interface);
    let now = Instant::from_secs(1);
    let pings: Vec<_> = (0..2000).map(ping).collect();
    let held = measure(|| pings.iter().for_each(|ping| stack.receive(now, &ping[..])));
    let waiting = stack.usage().replies;
    assert!(waiting > 100, "{waiting}");
    // 28 bytes each, a slot in the queue, and the unused rest of a chunk.
    let each = held.bytes_current as usize / waiting;
    assert!(each < 28 + 256, "{each}");
    let mut frame = vec![0; 65_535];
    let left = measure(|| while stack.transmit(now, &mut frame).is_some() {});
    let kept = held.bytes_current + left.bytes_current;
    assert!(kept <= 3 * 4096, "{kept} bytes are kept");
}

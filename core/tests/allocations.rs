//! While data flows nothing is allocated, neither for a segment nor for a call; nor while connections come and go.

use allocation_counter::measure;
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

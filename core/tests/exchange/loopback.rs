//! Packets to the own addresses of a stack never reach the device. Which listener gets a client, if one listens on all
//! addresses.

use std::net::SocketAddr;

use steadfast_core::config::PortRange;
use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;
use steadfast_core::{
    Config, ConnectOptions, Error, Event, Instant, Interface, ListenOptions, SocketId, Stack,
};

use crate::harness::pattern;

const MTU: u16 = 1500;

fn stack(configure: impl Fn(&mut Config)) -> Stack {
    let mut config = Config { secret: [3; 32], ..Config::default() };
    configure(&mut config);
    let addresses = [("10.0.0.2", 24), ("10.0.0.3", 24), ("127.0.0.1", 8), ("fd00::2", 64), ("::1", 128)];
    Stack::new(config, Interface::new(MTU, addresses.map(|(ip, len)| (ip.parse().unwrap(), len))))
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Turns until nothing happens any more. Nothing may reach the device.
fn settle(stack: &mut Stack, now: Instant) {
    for _ in 0..100_000 {
        let mut frame = [0; MTU as usize];
        assert_eq!(stack.transmit(now, &mut frame), None, "a packet reached the device");
        if stack.poll_at().is_none_or(|at| at > now) {
            return;
        }
        stack.advance(now);
    }
    panic!("it goes round for ever");
}

/// A connection from `options` to `to`: the client's socket and the server's.
fn connect(stack: &mut Stack, to: SocketAddr, listener: SocketId, options: ConnectOptions) -> [SocketId; 2] {
    let now = Instant::from_secs(2);
    let client = stack.connect(now, to, options).unwrap();
    settle(stack, now);
    [client, stack.accept(listener).unwrap().0]
}

fn carry(stack: &mut Stack, from: SocketId, to: SocketId, data: &[u8]) {
    let (mut sent, mut received, mut buffer) = (0, Vec::new(), vec![0; 100_000]);
    let mut now = Instant::from_secs(2);
    while received.len() < data.len() {
        sent += stack.send(from, &data[sent..]).unwrap_or(0);
        settle(stack, now);
        match stack.recv(to, &mut buffer) {
            Ok(len) => received.extend_from_slice(&buffer[..len]),
            // An ACK may be delayed; nothing may take longer.
            Err(error) => {
                assert_eq!(error, Error::WouldBlock);
                now = stack.poll_at().expect("a timer runs");
                assert!(now < Instant::from_secs(3));
            }
        }
    }
    assert!(received == data);
}

#[test]
fn a_connection_to_an_own_address_carries_both_ways_and_ends_without_the_device() {
    for to in ["10.0.0.2:80", "127.0.0.1:80", "127.200.7.9:80", "[fd00::2]:80", "[::1]:80"] {
        let mut stack = stack(|_| {});
        let listener = stack.listen(at(to), ListenOptions::default()).unwrap();
        let [client, server] = connect(&mut stack, at(to), listener, ConnectOptions::default());
        let data = pattern(0, 300_000);
        carry(&mut stack, client, server, &data);
        carry(&mut stack, server, client, &data);
        let now = Instant::from_secs(3);
        stack.close(now, client).unwrap();
        settle(&mut stack, now);
        assert_eq!(stack.recv(server, &mut [0; 1]), Ok(0));
        stack.close(now, server).unwrap();
        settle(&mut stack, now);
        let usage = stack.usage();
        assert_eq!((usage.connections, usage.time_wait), (0, 1), "{to}");
        assert_eq!(stack.counters().retrans_segs, 0);
    }
}

#[test]
fn from_one_own_address_to_another() {
    let mut stack = stack(|_| {});
    let listener = stack.listen(at("10.0.0.3:80"), ListenOptions::default()).unwrap();
    let options = ConnectOptions::from_local(at("10.0.0.2:4000"));
    let [client, server] = connect(&mut stack, at("10.0.0.3:80"), listener, options);
    assert_eq!(stack.peer_addr(server), Ok(at("10.0.0.2:4000")));
    carry(&mut stack, client, server, b"hold fast");
}

#[test]
fn who_connects_to_a_loopback_address_comes_from_the_one_that_the_interface_has() {
    let mut stack = stack(|_| {});
    let listener = stack.listen(at("127.5.5.5:80"), ListenOptions::default()).unwrap();
    let [client, _] = connect(&mut stack, at("127.5.5.5:80"), listener, ConnectOptions::default());
    assert_eq!(stack.local_addr(client).unwrap().ip(), at("127.0.0.1:0").ip());
}

#[test]
fn a_closed_port_of_our_own_refuses() {
    for to in ["10.0.0.2:80", "[::1]:80"] {
        let mut stack = stack(|_| {});
        let now = Instant::from_secs(2);
        let client = stack.connect(now, at(to), ConnectOptions::default()).unwrap();
        settle(&mut stack, now);
        assert_eq!(stack.take_error(client), Ok(Some(Error::ConnectionRefused)));
    }
}

/// RFC 9293 §3.5: a simultaneous open, with itself. SA-SYN_SENT-09, P5.
#[test]
fn a_socket_that_is_bound_to_where_it_connects_to_connects_to_itself_sa_syn_sent_09() {
    for end in ["10.0.0.2:4000", "[fd00::2]:4000"] {
        let mut stack = stack(|_| {});
        let now = Instant::from_secs(2);
        let itself = stack.connect(now, at(end), ConnectOptions::from_local(at(end))).unwrap();
        settle(&mut stack, now);
        assert_eq!(
            stack.poll_event().map(|(id, event)| (id, event.contains(Event::CONNECTED))),
            Some((itself, true))
        );
        assert_eq!(stack.info(now, itself).unwrap().state, State::Established);
        carry(&mut stack, itself, itself, b"to whom it may concern");
    }
}

/// Both sides of `loop_queue`: the one SYN of a connect fills a queue of one and not a queue of two.
#[test]
fn packets_to_ourselves_wait_in_a_bounded_queue_and_none_is_lost() {
    for (limit, full) in [(1, 1), (2, 0)] {
        let mut stack = stack(|config| config.loop_queue = limit);
        let now = Instant::from_secs(2);
        stack.connect(now, at("10.0.0.2:80"), ConnectOptions::default()).unwrap();
        assert_eq!(stack.transmit(now, &mut [0; MTU as usize]), None);
        assert_eq!(stack.counters().loop_queue_full, full, "a queue of {limit}");
    }
    let mut stack = stack(|config| config.loop_queue = 2);
    let listener = stack.listen(at("10.0.0.2:80"), ListenOptions::default()).unwrap();
    let [client, server] = connect(&mut stack, at("10.0.0.2:80"), listener, ConnectOptions::default());
    carry(&mut stack, client, server, &pattern(0, 300_000));
    let counters = stack.counters();
    assert_eq!((counters.retrans_segs, counters.loop_queue_full > 100), (0, true));
}

/// An address that is taken away while a packet to it is under way is not ours any more (THREAT-83).
#[test]
fn a_packet_to_ourselves_whose_address_is_gone_is_dropped() {
    let mut stack = stack(|_| {});
    let now = Instant::from_secs(2);
    stack.connect(now, at("10.0.0.2:80"), ConnectOptions::default()).unwrap();
    assert_eq!(stack.transmit(now, &mut [0; MTU as usize]), None);
    assert!(stack.remove_address("10.0.0.2".parse().unwrap()));
    stack.advance(now);
    assert_eq!(stack.counters().dropped(DropReason::NotOurs), 1);
}

fn dual(only_v6: bool) -> ListenOptions {
    ListenOptions { only_v6, ..ListenOptions::default() }
}

/// As Linux has it with `IPV6_V6ONLY` off, which is its default.
#[test]
fn a_listener_of_all_addresses_takes_both_families_and_shows_ipv4_ends_as_mapped_ones() {
    let mut stack = stack(|_| {});
    let listener = stack.listen(at("[::]:80"), dual(false)).unwrap();
    let [client, server] = connect(&mut stack, at("10.0.0.2:80"), listener, ConnectOptions::default());
    let port = stack.local_addr(client).unwrap().port();
    assert_eq!(stack.local_addr(server), Ok(at("[::ffff:10.0.0.2]:80")));
    assert_eq!(stack.peer_addr(server), Ok(at(&format!("[::ffff:10.0.0.2]:{port}"))));
    carry(&mut stack, client, server, b"hold fast");
    let [client, server] = connect(&mut stack, at("[fd00::2]:80"), listener, ConnectOptions::default());
    assert_eq!(stack.local_addr(server), Ok(at("[fd00::2]:80")));
    carry(&mut stack, client, server, b"hold fast");
}

#[test]
fn a_listener_of_ipv6_alone_takes_no_ipv4_clients() {
    let mut stack = stack(|_| {});
    stack.listen(at("[::]:80"), dual(true)).unwrap();
    let now = Instant::from_secs(2);
    let client = stack.connect(now, at("10.0.0.2:80"), ConnectOptions::default()).unwrap();
    settle(&mut stack, now);
    assert_eq!(stack.take_error(client), Ok(Some(Error::ConnectionRefused)));
}

#[test]
fn two_listeners_never_share_the_clients_of_a_family() {
    for (first, second) in [("[::]:80", "0.0.0.0:80"), ("0.0.0.0:80", "[::]:80")] {
        let mut stack = stack(|_| {});
        let listener = stack.listen(at(first), dual(false)).unwrap();
        assert_eq!(stack.listen(at(second), dual(false)), Err(Error::AddrInUse), "{second} beside {first}");
        stack.close(Instant::from_secs(2), listener).unwrap();
        stack.listen(at(second), dual(false)).unwrap();
    }
    for (first, second) in [("[::]:80", "0.0.0.0:80"), ("0.0.0.0:80", "[::]:80")] {
        let mut stack = stack(|_| {});
        stack.listen(at(first), dual(true)).unwrap();
        stack.listen(at(second), dual(true)).unwrap();
    }
}

#[test]
fn a_port_that_is_chosen_is_free_in_both_families() {
    let mut stack = stack(|config| config.ip_local_port_range = PortRange::new(5000, 5001).unwrap());
    let v4 = stack.listen(at("0.0.0.0:0"), dual(false)).unwrap();
    let both = stack.listen(at("[::]:0"), dual(false)).unwrap();
    assert_ne!(stack.local_addr(v4).unwrap().port(), stack.local_addr(both).unwrap().port());
    assert_eq!(stack.listen(at("[::]:0"), dual(false)), Err(Error::AddrNotAvailable));
}

/// The nearest listener has a client: that of its address, of its family, of both families.
#[test]
fn a_client_goes_to_the_listener_of_its_address_first() {
    let mut stack = stack(|_| {});
    let both = stack.listen(at("[::]:80"), dual(false)).unwrap();
    let exact = stack.listen(at("10.0.0.2:80"), dual(false)).unwrap();
    connect(&mut stack, at("10.0.0.2:80"), exact, ConnectOptions::default());
    connect(&mut stack, at("10.0.0.3:80"), both, ConnectOptions::default());
    connect(&mut stack, at("[::1]:80"), both, ConnectOptions::default());
}

#[test]
fn a_full_queue_of_packets_to_ourselves_takes_none_however_often_the_device_asks() {
    let mut stack = stack(|config| config.loop_queue = 1);
    let now = Instant::from_secs(2);
    for _ in 0..3 {
        stack.connect(now, at("10.0.0.2:80"), ConnectOptions::default()).unwrap();
        assert_eq!(stack.transmit(now, &mut [0; MTU as usize]), None);
    }
    assert_eq!((stack.counters().loop_queue_full, stack.counters().out_requests), (1, 1));
}

fn shared() -> ListenOptions {
    ListenOptions { reuse_port: true, ..ListenOptions::default() }
}

#[test]
fn listeners_that_share_an_end_divide_the_clients_by_their_tuples() {
    let mut stack = stack(|_| {});
    let end = at("10.0.0.3:80");
    let listeners = [(); 3].map(|()| stack.listen(end, shared()).unwrap());
    assert_eq!(stack.listen(end, ListenOptions::default()), Err(Error::AddrInUse));
    let alone = stack.listen(at("10.0.0.3:81"), ListenOptions::default()).unwrap();
    assert_eq!(stack.listen(at("10.0.0.3:81"), shared()), Err(Error::AddrInUse));
    stack.close(Instant::from_secs(2), alone).unwrap();

    let now = Instant::from_secs(2);
    let assigned = |stack: &mut Stack, ports: std::ops::Range<u16>| {
        for port in ports {
            let from = ConnectOptions::from_local(SocketAddr::new(at("10.0.0.2:0").ip(), port));
            stack.connect(now, end, from).unwrap();
        }
        settle(stack, now);
        listeners
            .map(|listener| std::iter::from_fn(|| Some(stack.accept(listener).ok()?.1)).collect::<Vec<_>>())
    };
    let all = assigned(&mut stack, 1000..1300);
    let lens = all.each_ref().map(Vec::len);
    assert_eq!(lens.iter().sum::<usize>(), 300);
    assert!(lens.iter().all(|len| (70..130).contains(len)), "{lens:?}");

    // The first has gone, and the others have all clients.
    stack.close(now, listeners[0]).unwrap();
    let [none, second, third] = assigned(&mut stack, 1300..1400);
    assert_eq!((none.len(), second.len() + third.len()), (0, 100));
    stack.check_consistent().unwrap();
}

#[test]
fn port_0_is_a_free_port_also_for_a_listener_that_shares() {
    let mut stack = stack(|config| config.ip_local_port_range = PortRange::new(4000, 4001).unwrap());
    let mut bind = || stack.bind(at("10.0.0.2:0"), &shared());
    let (first, second) = (bind().unwrap(), bind().unwrap());
    assert_ne!(first, second);
    assert_eq!(bind(), Err(Error::AddrNotAvailable));
    assert_eq!(stack.bind(first, &shared()), Ok(first));
}

#[test]
fn a_reserved_end_is_taken_and_answers_nobody() {
    let mut stack = stack(|_| {});
    let (end, plain, now) = (at("10.0.0.3:80"), ListenOptions::default(), Instant::from_secs(2));
    assert_eq!(stack.bind(at("10.0.0.9:80"), &plain), Err(Error::AddrNotAvailable));
    assert_eq!(stack.bind(end, &plain), Ok(end));
    assert_eq!(stack.bind(end, &plain), Err(Error::AddrInUse));
    assert_eq!(stack.listen(end, plain.clone()), Err(Error::AddrInUse));
    let refused = stack.connect(now, end, ConnectOptions::default()).unwrap();
    settle(&mut stack, now);
    assert_eq!(stack.take_error(refused), Ok(Some(Error::ConnectionRefused)));

    // A listener on all addresses takes the clients meanwhile.
    let all = stack.listen(at("0.0.0.0:80"), plain.clone()).unwrap();
    connect(&mut stack, end, all, ConnectOptions::default());
    assert!(stack.unbind(end) && !stack.unbind(end));
    let one = stack.listen(end, plain.clone()).unwrap();
    connect(&mut stack, end, one, ConnectOptions::default());
    assert!(!stack.unbind(end), "that of a listener is not given back");

    // One on all addresses of both families excludes those of IPv4.
    assert_eq!(stack.bind(at("[::]:81"), &plain), Ok(at("[::]:81")));
    assert_eq!(stack.listen(at("0.0.0.0:81"), plain), Err(Error::AddrInUse));
}

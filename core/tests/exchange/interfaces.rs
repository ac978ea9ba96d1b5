//! Several interfaces: routes, source addresses, and what becomes of connections when interfaces, addresses and routes
//! come and go.

use std::net::{IpAddr, SocketAddr};

use steadfast_core::counters::DropReason;
use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::wire::tcp::{Flags, Header};
use steadfast_core::wire::{PROTOCOL_UDP, build, udp};
use steadfast_core::{
    Config, ConnectOptions, Duration, Error, Event, Instant, Interface, InterfaceId, ListenOptions, Packet,
    PacketBytes, Route, SocketId, Stack, Transmit, UdpOptions,
};
use steadfast_testkit::packets;

const LAN: InterfaceId = InterfaceId::FIRST;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn route(network: &str, interface: InterfaceId) -> Route {
    let (address, len) = network.split_once('/').unwrap();
    Route::new(ip(address), len.parse().unwrap(), interface)
}

/// The source and the header of a segment.
fn segment(packet: &[u8]) -> (SocketAddr, Header) {
    match packets::read(packet, false) {
        packets::Sent::Tcp { local, header, .. } => (local, header),
        sent => panic!("{sent:?}"),
    }
}

fn interface(mtu: u16, addresses: &[&str]) -> Interface {
    Interface::new(
        mtu,
        addresses.iter().map(|text| {
            let (address, len) = text.split_once('/').unwrap();
            (ip(address), len.parse().unwrap())
        }),
    )
}

fn single(number: u8, address: &str) -> Stack {
    let config = Config { secret: [number; 32], ..Config::default() };
    Stack::new(config, interface(1500, &[address]))
}

/// A host with two interfaces, and a host on each of the two links.
struct Links {
    host: Stack,
    wan: InterfaceId,
    peers: [Stack; 2],
    now: Instant,
    /// Packets that the host sent by each interface.
    sent: [Vec<Vec<u8>>; 2],
}

impl Links {
    /// The host is 10.0.0.1 and fe80::1 on the LAN, 192.0.2.1 and fe80::2 on the WAN.
    fn new(wan_mtu: u16) -> Links {
        let lan = interface(1500, &["10.0.0.1/24", "fd00::1/64", "fe80::1/64"]);
        let mut host = Stack::new(Config { secret: [1; 32], ..Config::default() }, lan);
        let addresses = ["192.0.2.1/24", "2001:db8::1/64", "fe80::2/64"];
        let wan = interface(wan_mtu, if wan_mtu < 1280 { &addresses[..1] } else { &addresses });
        let wan = host.add_interface(wan).unwrap();
        let peers = [single(2, "10.0.0.2/24"), single(3, "192.0.2.2/24")];
        Links { host, wan, peers, now: Instant::from_secs(1), sent: Default::default() }
    }

    /// Returns 0 for the LAN, 1 for the WAN.
    fn side(&self, interface: InterfaceId) -> usize {
        assert!([LAN, self.wan].contains(&interface), "no such interface: {interface:?}");
        usize::from(interface == self.wan)
    }

    fn id(&self, side: usize) -> InterfaceId {
        [LAN, self.wan][side]
    }

    fn transmit(&mut self) -> Option<(usize, Vec<u8>)> {
        let mut frame = vec![0; self.host.frame_len()];
        let Transmit { len, interface, .. } = self.host.transmit(self.now, &mut frame)?;
        frame.truncate(len);
        let side = self.side(interface);
        self.sent[side].push(frame.clone());
        Some((side, frame))
    }

    /// Carries packets until all are silent.
    fn carry(&mut self) {
        let mut frame = [0; 1500];
        loop {
            if let Some((side, packet)) = self.transmit() {
                self.peers[side].receive(self.now, &packet[..]);
                continue;
            }
            let mut silent = true;
            for side in 0..2 {
                if let Some(sent) = self.peers[side].transmit(self.now, &mut frame) {
                    self.arrives(side, &frame[..sent.len]);
                    silent = false;
                }
            }
            assert_eq!(self.host.check_consistent(), Ok(()));
            if silent {
                return;
            }
        }
    }

    fn arrives(&mut self, side: usize, packet: &[u8]) {
        let interface = self.id(side);
        self.host.receive(self.now, Packet::new(PacketBytes::Borrowed(packet), false).on(interface));
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        self.carry();
        loop {
            let all = [&self.host, &self.peers[0], &self.peers[1]];
            let next = all.into_iter().filter_map(Stack::poll_at).min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            let [lan, wan] = &mut self.peers;
            [&mut self.host, lan, wan].into_iter().for_each(|stack| stack.advance(self.now));
            self.carry();
        }
        self.now = end;
    }

    fn connect(&mut self, remote: &str) -> SocketId {
        self.host.connect(self.now, at(remote), ConnectOptions::default()).unwrap()
    }

    /// A connection from the host to the peer on a link: both sockets.
    fn connected(&mut self, side: usize, remote: &str) -> (SocketId, SocketId) {
        let listener = self.peers[side].listen(at(remote), ListenOptions::default()).unwrap();
        let id = self.connect(remote);
        self.carry();
        (id, self.peers[side].accept(listener).unwrap().0)
    }

    fn error_of(&mut self, id: SocketId) -> Result<usize, Error> {
        self.host.recv(id, &mut [0; 10])
    }

    fn no_default(&mut self) {
        for network in ["0.0.0.0/0", "::/0"] {
            assert!(self.host.remove_route(&route(network, LAN).metric(u32::MAX)));
        }
    }
}

#[test]
fn packets_leave_by_the_longest_prefix_then_by_the_smallest_metric_1122_5() {
    let mut links = Links::new(1500);
    let wan = links.wan;
    let all = [
        route("198.51.100.0/24", LAN).via(ip("10.0.0.254")),
        route("198.51.100.128/25", wan),
        route("198.51.0.0/16", wan).metric(5),
        route("198.51.0.0/16", LAN).metric(6),
        route("0.0.0.0/0", wan).via(ip("192.0.2.254")).metric(1),
    ];
    all.iter().for_each(|route| links.host.add_route(*route).unwrap());
    #[rustfmt::skip]
    let table = [
        ("10.0.0.9", 0), ("192.0.2.9", 1), ("198.51.100.1", 0), ("198.51.100.128", 1), ("198.51.100.255", 1),
        ("198.51.7.7", 1), ("198.52.0.1", 1), ("8.8.8.8", 1),
    ];
    for (destination, side) in table {
        links.connect(&format!("{destination}:80"));
        let sent = links.transmit().map(|(side, _)| side);
        assert_eq!(sent, Some(side), "to {destination}");
    }
    // The route of the next smallest metric takes its place.
    assert!(links.host.remove_route(&all[2]) && !links.host.remove_route(&all[2]));
    links.connect("198.51.7.8:80");
    assert_eq!(links.transmit().map(|(side, _)| side), Some(0));
    assert_eq!(links.host.route_to(ip("198.51.7.7")), Some(all[3]));
}

#[test]
fn the_source_is_an_address_of_the_interface_that_the_route_names_must_44() {
    let mut links = Links::new(1500);
    let wan = links.wan;
    links.host.add_address(ip("10.7.0.1"), 16);
    for (address, len) in [("198.18.0.1", 30), ("2001:db8:1::1", 64)] {
        links.host.add_address_to(wan, ip(address), len).unwrap();
    }
    for (network, interface, gateway) in [
        ("100.64.0.0/16", LAN, "10.7.0.254"),
        ("100.65.0.0/16", wan, "198.18.0.2"),
        ("100.66.0.0/16", wan, "192.0.2.9"),
        ("2001:db8:1::/48", wan, "2001:db8::99"),
    ] {
        links.host.add_route(route(network, interface).via(ip(gateway))).unwrap();
    }
    #[rustfmt::skip]
    let table = [
        ("100.64.1.1", "10.7.0.1"), ("100.65.1.1", "198.18.0.1"), ("100.66.1.1", "192.0.2.1"),
        ("8.8.8.8", "10.0.0.1"), ("192.0.2.77", "192.0.2.1"), ("192.0.2.1", "192.0.2.1"),
        // RFC 6724: the longest prefix of the interface's addresses, whatever their label (6724-2, 6724-3).
        ("2001:db8:1:ff::9", "2001:db8:1::1"), ("2001:db9::9", "fd00::1"), ("2001:db8:1::9", "2001:db8:1::1"),
    ];
    for (destination, source) in table {
        let id = links.connect(&SocketAddr::new(ip(destination), 80).to_string());
        assert_eq!(links.host.local_addr(id).map(|end| end.ip()), Ok(ip(source)), "to {destination}");
    }
}

/// ENETUNREACH, as Linux says.
#[test]
fn a_call_towards_no_route_fails_1122_5() {
    let mut links = Links::new(1500);
    links.no_default();
    let connect = |links: &mut Links, options| links.host.connect(links.now, at("8.8.8.8:80"), options);
    let bound = ConnectOptions { local_address: Some(ip("10.0.0.1")), ..ConnectOptions::default() };
    for options in [ConnectOptions::default(), bound] {
        assert_eq!(connect(&mut links, options), Err(Error::NetworkUnreachable));
    }
    let options = UdpOptions::new(links.host.config());
    for local in ["0.0.0.0:53", "10.0.0.1:54"] {
        let id = links.host.bind_udp(at(local), options.clone()).unwrap();
        assert_eq!(links.host.send_to(id, b"?", Some(at("8.8.8.8:53"))), Err(Error::NetworkUnreachable));
        assert_eq!(links.host.connect_udp(id, at("8.8.8.8:53")), Err(Error::NetworkUnreachable));
        assert_eq!(links.host.send_to(id, b"?", Some(at("10.0.0.2:53"))), Ok(()));
    }
    links.host.add_route(route("0.0.0.0/0", links.wan)).unwrap();
    assert!(connect(&mut links, ConnectOptions::default()).is_ok());
}

/// Interface and source address need not belong together, neither on the way in nor on the way out.
#[test]
fn the_host_model_is_the_weak_one_1122_6() {
    let mut links = Links::new(1500);
    links.host.listen(at("0.0.0.0:80"), ListenOptions::default()).unwrap();
    let syn = |source: &str, destination: &str| {
        let header = Header { flags: Flags::SYN, window: 1000, ..Header::default() };
        packets::segment(SocketAddr::new(ip(source), 999), SocketAddr::new(ip(destination), 80), header, &[])
    };
    // To the address of the other interface, from a host of either link.
    for (came_by, source, leaves_by) in [(0, "192.0.2.9", 1), (1, "10.0.0.9", 0), (0, "10.0.0.9", 0)] {
        for destination in ["10.0.0.1", "192.0.2.1"] {
            links.arrives(came_by, &syn(source, destination));
            let (side, packet) = links.transmit().expect("a SYN-ACK");
            assert_eq!(side, leaves_by, "from {source} to {destination}");
            assert_eq!(segment(&packet).0.ip(), ip(destination), "1122-4");
        }
    }
    // A link-local address is the exception.
    let echo = |links: &mut Links, side: usize, destination: &str| {
        links.arrives(side, &syn("fe80::9", destination));
        let answer = links.transmit();
        answer.map(|(side, _)| side)
    };
    links.host.listen(at("[::]:80"), ListenOptions::default()).unwrap_err();
    links.host.listen(at("[fe80::1]:80"), ListenOptions::default()).unwrap();
    links.host.listen(at("[fe80::2]:80"), ListenOptions::default()).unwrap();
    let not_ours = links.host.counters().dropped(DropReason::NotOurs);
    assert_eq!(echo(&mut links, 0, "fe80::1"), Some(0));
    assert_eq!(echo(&mut links, 1, "fe80::2"), Some(1));
    assert_eq!(echo(&mut links, 1, "fe80::1"), None);
    assert_eq!(echo(&mut links, 0, "fe80::2"), None);
    assert_eq!(links.host.counters().dropped(DropReason::NotOurs), not_ours + 2);
}

#[test]
fn a_scope_id_names_the_link_of_a_link_local_peer() {
    let mut links = Links::new(1500);
    for (side, source) in [(1, "fe80::2"), (0, "fe80::1"), (1, "fe80::2")] {
        let id = links.connect(&format!("[fe80::9%{}]:80", links.id(side).index()));
        assert_eq!(links.host.local_addr(id).unwrap().ip(), ip(source));
        assert_eq!(links.transmit().map(|(side, _)| side), Some(side));
    }
    let nowhere = links.host.connect(links.now, at("[fe80::9%9]:80"), ConnectOptions::default());
    assert_eq!(nowhere, Err(Error::NetworkUnreachable));
}

#[test]
fn a_datagram_says_by_which_interface_it_came() {
    let mut links = Links::new(1500);
    let options = UdpOptions::new(links.host.config());
    let id = links.host.bind_udp(at("[::]:53"), options).unwrap();
    let datagram = |source: &str, destination: &str| {
        let mut bytes = vec![0; udp::HEADER_LEN];
        udp::Header { source_port: 9, destination_port: 53, checksum: 0 }.emit(0, &mut bytes);
        let (source, destination) = (ip(source), ip(destination));
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else { unreachable!() };
        build::ipv4(&steadfast_core::wire::ipv4::Header::new(source, destination, PROTOCOL_UDP), &bytes)
    };
    for side in [0, 1, 0] {
        links.arrives(side, &datagram("198.51.100.9", "10.0.0.1"));
        let received = links.host.recv_from(id, &mut [0; 10]).unwrap();
        assert_eq!(received.interface, links.id(side));
    }
}

#[test]
fn an_icmp_error_leaves_by_the_route_to_its_receiver_1122_5() {
    let mut links = Links::new(1500);
    links.host.add_route(route("198.51.100.0/24", links.wan)).unwrap();
    let packet = packets::ip(ip("198.51.100.9"), ip("10.0.0.1"), 99, &[0; 20]);
    links.arrives(0, &packet);
    let (side, error) = links.transmit().expect("a protocol unreachable");
    assert_eq!((side, error[9], error[20]), (1, 1, 3));
}

#[test]
fn the_advertised_mss_is_that_of_the_interface_towards_the_peer_must_67() {
    let mut links = Links::new(1400);
    for (remote, mss) in [("10.0.0.2:80", 1460), ("192.0.2.2:80", 1360), ("8.8.8.8:80", 1460)] {
        links.connect(remote);
        let (_, packet) = links.transmit().unwrap();
        assert_eq!(segment(&packet).1.options.mss, Some(mss), "{remote}");
    }
}

/// As in Linux: what is sent meanwhile is lost, and the retransmission timer repairs it once a route is there.
#[test]
fn a_connection_survives_a_route_that_goes_and_returns_1122_7() {
    let mut links = Links::new(1500);
    links.no_default();
    let (id, peer) = links.connected(1, "192.0.2.2:80");
    let gone = route("192.0.2.0/24", links.wan);
    assert!(links.host.remove_route(&gone));
    assert_eq!(links.host.send(id, b"data"), Ok(4));
    links.wait(Duration::from_secs(3));
    assert!(links.host.counters().out_no_routes > 1);
    assert_eq!(links.peers[1].recv(peer, &mut [0; 10]), Err(Error::WouldBlock));
    links.host.add_route(gone).unwrap();
    links.wait(Duration::from_secs(10));
    assert_eq!(links.peers[1].recv(peer, &mut [0; 10]), Ok(4));
}

#[test]
fn without_a_route_the_timers_end_a_connection_with_enetunreach_1122_7() {
    let mut links = Links::new(1500);
    links.no_default();
    let (id, _) = links.connected(1, "192.0.2.2:80");
    let opening = links.connect("192.0.2.2:81");
    assert!(links.host.remove_interface(links.wan));
    links.host.send(id, b"data").unwrap();
    links.wait(Duration::from_secs(3600));
    assert_eq!(links.error_of(id), Err(Error::NetworkUnreachable));
    assert_eq!(links.error_of(opening), Err(Error::NetworkUnreachable));
    assert_eq!(links.sent[1].iter().filter(|packet| packet.ends_with(b"data")).count(), 0);
}

/// The new interface takes less: the rest leaves in smaller packets, and the sockets notice nothing.
#[test]
fn a_connection_moves_to_another_interface_and_to_its_mtu_1122_7() {
    let mut links = Links::new(600);
    let far = route("198.51.100.0/24", LAN);
    links.host.add_route(far).unwrap();
    links.peers[0] = single(2, "198.51.100.2/8");
    let (id, peer) = links.connected(0, "198.51.100.2:80");
    assert_eq!(links.host.send(id, &[7; 4000]), Ok(4000));
    links.carry();
    assert_eq!(links.peers[0].recv(peer, &mut [0; 9000]), Ok(4000));
    assert!(links.sent[0].iter().any(|packet| packet.len() == 1500));

    assert!(links.host.remove_route(&far));
    links.host.add_route(route("198.51.100.0/24", links.wan)).unwrap();
    links.peers.swap(0, 1);
    links.sent[0].clear();
    assert_eq!(links.host.send(id, &[7; 4000]), Ok(4000));
    links.carry();
    links.wait(Duration::from_secs(2));
    assert_eq!(links.peers[1].recv(peer, &mut [0; 9000]), Ok(4000));
    assert!(links.sent[0].is_empty() && links.sent[1].iter().any(|packet| packet.len() == 600));
    assert!(links.sent[1].iter().all(|packet| packet.len() <= 600));
}

#[test]
fn an_address_takes_its_route_along_unless_another_one_needs_it() {
    let mut links = Links::new(1500);
    let wan = links.wan;
    let has = |links: &Links, network| links.host.routes().contains(&route(network, wan));
    links.host.add_address_to(wan, ip("192.0.2.7"), 24).unwrap();
    assert!(links.host.remove_address(ip("192.0.2.1")));
    assert!(has(&links, "192.0.2.0/24"));
    // The prefix of an address changes.
    links.host.add_address_to(wan, ip("192.0.2.7"), 25).unwrap();
    assert!(!has(&links, "192.0.2.0/24") && has(&links, "192.0.2.0/25"));
    assert!(links.host.remove_address(ip("192.0.2.7")) && !links.host.remove_address(ip("192.0.2.7")));
    assert!(!has(&links, "192.0.2.0/25"));
    // A single host has no neighbours.
    links.host.add_address_to(wan, ip("192.0.2.9"), 32).unwrap();
    assert!(!has(&links, "192.0.2.9/32"));
    let addresses: Vec<_> = links.host.interfaces().into_iter().map(|(_, i)| i.addresses.len()).collect();
    assert_eq!(addresses, [3, 3]);
}

/// A connection whose address goes stays, and lives on if the address returns (THREAT-83).
#[test]
fn a_connection_survives_an_address_that_goes_and_returns_threat_83() {
    let mut links = Links::new(1500);
    let (id, peer) = links.connected(1, "192.0.2.2:80");
    assert!(links.host.remove_address(ip("192.0.2.1")));
    links.host.send(id, b"data").unwrap();
    links.wait(Duration::from_secs(2));
    let segments = links.host.info(links.now, id).unwrap().retransmits;
    assert!(segments > 0, "no acknowledgment reaches us");
    links.host.add_address_to(links.wan, ip("192.0.2.1"), 24).unwrap();
    links.wait(Duration::from_secs(10));
    assert_eq!(links.peers[1].recv(peer, &mut [0; 10]), Ok(4));
    assert_eq!(links.host.send(id, b"more"), Ok(4));
    links.carry();
    assert_eq!(links.peers[1].recv(peer, &mut [0; 10]), Ok(4));
}

#[test]
fn what_the_stack_cannot_have_is_refused() {
    let mut links = Links::new(1500);
    let wan = links.wan;
    let host = &mut links.host;
    assert_eq!(host.add_interface(interface(67, &["10.9.0.1/24"])), Err(Error::InvalidArgument));
    assert_eq!(host.add_interface(interface(1279, &["fd09::1/64"])), Err(Error::InvalidArgument));
    assert_eq!(host.add_interface(interface(1500, &["10.9.0.1/24", "10.0.0.1/24"])), Err(Error::AddrInUse));
    assert_eq!(host.add_address_to(wan, ip("10.0.0.1"), 24), Err(Error::AddrInUse));
    let none = InterfaceId::from_index(9);
    assert_eq!(host.add_address_to(none, ip("10.9.0.1"), 24), Err(Error::InvalidArgument));
    #[rustfmt::skip]
    let table = [
        (route("10.9.0.0/16", none), Error::InvalidArgument),
        (route("10.9.0.1/16", wan), Error::InvalidArgument),
        (route("10.9.0.0/33", wan), Error::InvalidArgument),
        (route("10.9.0.0/16", wan).via(ip("fe80::9")), Error::InvalidArgument),
        (route("10.9.0.0/16", wan).via(ip("10.9.0.1")), Error::NetworkUnreachable),
        (route("10.9.0.0/16", wan).via(ip("192.0.3.1")), Error::NetworkUnreachable),
    ];
    for (route, error) in table {
        assert_eq!(host.add_route(route), Err(error), "{route}");
    }
    assert_eq!(host.add_route(route("10.9.0.0/16", wan).via(ip("192.0.2.9"))), Ok(()));
    let small = host.add_interface(interface(1279, &["10.9.0.1/24"])).unwrap();
    assert_eq!(host.add_address_to(small, ip("fd09::1"), 64), Err(Error::InvalidArgument));
    assert_eq!(host.add_route(route("fd09::/64", small)), Err(Error::InvalidArgument));
    assert!(!host.remove_interface(LAN) && !host.remove_interface(none));
    assert!(host.remove_interface(small) && !host.remove_interface(small));
    let again = host.add_interface(interface(9000, &["10.9.0.1/24"])).unwrap();
    assert!(again != small && host.frame_len() == 9000);
}

/// Both sides of `interface_max` and of `route_max`.
#[test]
fn interfaces_and_routes_are_limited() {
    let mut stack = single(1, "10.0.0.1/24");
    let mut config = stack.config().clone();
    (config.interface_max, config.route_max) = (2, 6);
    stack.set_config(config);
    let second = stack.add_interface(interface(1500, &["10.1.0.1/24"])).unwrap();
    assert_eq!(stack.add_interface(interface(1500, &["10.2.0.1/24"])), Err(Error::NoBufferSpace));
    assert_eq!(stack.routes().len(), 4, "two default routes, two networks");
    for (network, expected) in
        [("1.0.0.0/8", Ok(())), ("2.0.0.0/8", Ok(())), ("3.0.0.0/8", Err(Error::NoBufferSpace))]
    {
        assert_eq!(stack.add_route(route(network, second)), expected, "{network}");
    }
    assert!(stack.remove_interface(second));
    assert_eq!(stack.routes().len(), 3);
    assert!(stack.add_interface(interface(1500, &["10.2.0.1/24"])).is_ok());
}

/// A call drops a few packets, whatever number of connections has no route; `poll_at` says that there is more to do.
#[test]
fn a_call_drops_a_bounded_number_of_packets_without_a_route() {
    const CONNECTIONS: usize = 1000;
    let mut links = Links::new(1500);
    links.no_default();
    for n in 0..CONNECTIONS {
        links.connect(&format!("192.0.2.2:{}", n + 1));
    }
    assert!(links.host.remove_interface(links.wan));
    let mut calls = 0;
    while links.host.counters().out_no_routes < CONNECTIONS as u64 {
        let before = links.host.counters().out_no_routes;
        assert_eq!(links.transmit(), None);
        assert!(links.host.counters().out_no_routes <= before + 64);
        let due = links.host.poll_at().is_some_and(|at| at <= links.now);
        assert!(due || links.host.counters().out_no_routes == CONNECTIONS as u64);
        links.host.advance(links.now);
        calls += 1;
    }
    assert!(calls >= CONNECTIONS / 64, "{calls}");
}

/// A router's report about the old path does not hold for the new one.
#[test]
fn a_new_route_forgets_the_path_mtu_1191_2() {
    let mut links = Links::new(1500);
    let options = UdpOptions::new(links.host.config()).with(|options| options.dont_fragment = true);
    let id = links.host.bind_udp(at("10.0.0.1:53"), options).unwrap();
    let send = |links: &mut Links| links.host.send_to(id, &[0; 1400], Some(at("8.8.8.8:53")));
    assert_eq!(send(&mut links), Ok(()));
    let (side, packet) = links.transmit().unwrap();
    let kind = ErrorKind::PacketTooBig { mtu: 1000 };
    let error = packets::icmp_error(ip("10.0.0.254"), ip("10.0.0.1"), kind, &packet).unwrap();
    links.arrives(side, &error);
    assert_eq!(send(&mut links), Err(Error::MessageTooLong));
    links.host.add_route(route("8.0.0.0/8", links.wan)).unwrap();
    assert_eq!(send(&mut links), Ok(()));
    assert_eq!(links.transmit().map(|(side, _)| side), Some(1));
}

#[test]
fn a_peer_that_connects_hears_of_nothing() {
    let mut links = Links::new(1500);
    let listener = links.host.listen(at("192.0.2.1:80"), ListenOptions::default()).unwrap();
    let now = links.now;
    let id = links.peers[1].connect(now, at("192.0.2.1:80"), ConnectOptions::default()).unwrap();
    links.carry();
    let (accepted, _) = links.host.accept(listener).unwrap();
    assert!(links.peers[1].poll_event().is_some_and(|(_, event)| event.contains(Event::CONNECTED)));
    assert_eq!(links.peers[1].send(id, b"hello"), Ok(5));
    links.carry();
    assert_eq!(links.host.recv(accepted, &mut [0; 10]), Ok(5));
    assert!(links.sent[0].is_empty());
}

/// Each line lists destinations in the order in which they are to be tried. The test shuffles them, unless no rule
/// decides.
#[test]
fn destinations_are_sorted_by_rfc_6724_6724_4_6724_5() {
    let addresses = [("192.0.2.1", 24), ("169.254.0.1", 16), ("2001:db8::1", 64), ("fe80::1", 64)];
    let interface = |v6: bool| {
        let addresses = addresses.iter().filter(|(text, _)| v6 || !text.contains(':'));
        Interface::new(1500, addresses.map(|(text, len)| (ip(text), *len)))
    };
    let stack = |v6| Stack::new(Config { secret: [3; 32], ..Config::default() }, interface(v6));
    #[rustfmt::skip]
    let table: [(bool, bool, &[&str]); 7] = [
        // 1: what can be reached, also where precedence says otherwise.
        (false, true, &["198.51.100.1", "2001:db8::9"]),
        // 5: the label of the source, 6: the precedence.
        (true, true, &["2001:db8::9", "192.0.2.9", "2002:c633:6401::1", "fd00::1"]),
        (true, true, &["2001:db8:77::9", "198.51.100.1"]),
        // 8: the smaller scope.
        (true, true, &["fe80::9", "2001:db8::9"]),
        // 9: the longest prefix in common with the source, no longer than that of the source.
        (true, true, &["2001:db8::9", "2001:db8:1::9", "2a00::9"]),
        // 10: the others stay in their order.
        (true, false, &["2001:db8::9", "2001:db8::8", "2001:db8::7"]),
        (true, false, &["198.51.100.1", "192.0.2.9", "192.0.2.8"]),
    ];
    for (v6, decided, sorted) in table {
        let sorted: Vec<_> = sorted.iter().map(|text| ip(text)).collect();
        let mut shuffled = vec![sorted.clone()];
        if decided {
            shuffled.extend((0..sorted.len()).map(|at| [&sorted[at..], &sorted[..at]].concat()));
            shuffled.push(sorted.iter().rev().copied().collect());
        }
        for mut destinations in shuffled {
            stack(v6).sort_destinations(&mut destinations);
            assert_eq!(destinations, sorted);
        }
    }
}

//! Interfaces that carry Ethernet frames: the cache of neighbours, ARP and neighbour discovery.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use steadfast_core::counters::{DropReason, ReplyReason};
use steadfast_core::wire::arp::{self, Operation};
use steadfast_core::wire::ethernet::{self, Address};
use steadfast_core::wire::icmp;
use steadfast_core::wire::ndp::{self, Message, NdpOption};
use steadfast_core::wire::tcp::{Flags, Header};
use steadfast_core::wire::{PROTOCOL_UDP, build, ipv4, ipv6, udp};
use steadfast_core::{
    Config, ConnectOptions, Duration, Error, Event, Instant, Interface, InterfaceId, ListenOptions, Medium,
    NeighbourState, Packet, Route, RouterAdvertisement, SocketId, Stack, UdpOptions,
};

const OURS: Address = Address([2, 0, 0, 0, 0, 1]);
const PEER: Address = Address([2, 0, 0, 0, 0, 2]);
const OTHER: Address = Address([2, 0, 0, 0, 0, 3]);
const V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// A stack on a link, and what it sends.
struct Link {
    stack: Stack,
    now: Instant,
}

impl Link {
    fn new(configure: impl FnOnce(&mut Config)) -> Link {
        let mut config = Config { secret: [7; 32], ..Config::default() };
        configure(&mut config);
        let interface = Interface::ethernet(1500, OURS, [(V4.into(), 24), (V6.into(), 64)]);
        Link { stack: Stack::new(config, interface), now: Instant::from_secs(1) }
    }

    fn usual() -> Link {
        Link::new(|_| ())
    }

    fn hears(&mut self, frame: &[u8]) {
        self.stack.receive(self.now, frame);
        assert_eq!(self.stack.check_consistent(), Ok(()));
    }

    fn sends(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; self.stack.frame_len()];
        let sent = self.stack.transmit(self.now, &mut frame)?;
        frame.truncate(sent.len);
        Some(frame)
    }

    /// The frames that it sends now, parsed.
    fn all(&mut self) -> Vec<(ethernet::Header, Vec<u8>)> {
        let frames: Vec<_> = std::iter::from_fn(|| self.sends()).collect();
        let parsed = frames.iter().map(|frame| ethernet::parse(frame).expect("a frame"));
        parsed.map(|(header, payload)| (header, payload.to_vec())).collect()
    }

    /// The frame that it sends now: one.
    #[track_caller]
    fn one(&mut self) -> (ethernet::Header, Vec<u8>) {
        let mut all = self.all();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// Runs the timers until `end` seconds after the start, and returns what is sent, each with its time in milliseconds.
    fn until(&mut self, end: u64) -> Vec<(u64, ethernet::Header, Vec<u8>)> {
        let start = Instant::from_secs(1);
        let end = start + Duration::from_secs(end);
        let mut sent = Vec::new();
        while let Some(at) = self.stack.poll_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.stack.advance(self.now);
            let millis = self.now.saturating_since(start).as_millis() as u64;
            sent.extend(self.all().into_iter().map(|(header, payload)| (millis, header, payload)));
        }
        self.now = end;
        sent
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.stack.counters().dropped(reason)
    }

    fn connects(&mut self, to: &str) -> SocketId {
        self.stack.connect(self.now, to.parse().unwrap(), ConnectOptions::default()).unwrap()
    }

    /// The state and the hardware address of a neighbour.
    fn neighbour(&self, address: impl Into<IpAddr>) -> Option<(NeighbourState, Option<Address>)> {
        let address = address.into();
        let found = self.stack.neighbours().into_iter().find(|neighbour| neighbour.address == address);
        found.map(|neighbour| (neighbour.state, neighbour.hardware))
    }

    /// The peer answers the question for its address, and the packet that waited leaves.
    fn resolve(&mut self) {
        self.hears(&answer(PEER, PEER_V4));
    }
}

/// An answer to us from the host that has this address.
fn answer(hardware: Address, address: Ipv4Addr) -> Vec<u8> {
    let packet = arp::Packet {
        operation: Operation::Reply,
        sender_hardware: hardware,
        sender: address,
        target_hardware: OURS,
        target: V4,
    };
    build::arp(hardware, OURS, &packet)
}

/// A question of a host for our address.
fn question(hardware: Address, address: Ipv4Addr) -> Vec<u8> {
    build::arp(hardware, Address::BROADCAST, &arp::Packet::request(hardware, address, V4))
}

fn announcement(hardware: Address, address: Ipv4Addr) -> Vec<u8> {
    build::arp(hardware, Address::BROADCAST, &arp::Packet::request(hardware, address, address))
}

fn in_frame(from: Address, to: Address, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { ethernet::TYPE_IPV4 } else { ethernet::TYPE_IPV6 };
    build::ethernet(&ethernet::Header::new(from, to, ethertype), packet)
}

fn advertises(from: Address, target: Ipv6Addr, solicited: bool, overrides: bool) -> Vec<u8> {
    let message = Message::NeighborAdvertisement { target, router: false, solicited, overrides };
    in_frame(from, OURS, &build::ndp(target, V6, &message, &[NdpOption::TargetLinkLayer(from)]))
}

fn solicits(from: Address, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let options = [NdpOption::SourceLinkLayer(from)];
    let options = if source.is_unspecified() { &[][..] } else { &options[..] };
    let group = ndp::solicited_node(target);
    let packet = build::ndp(source, group, &Message::NeighborSolicitation { target }, options);
    in_frame(from, Address::of_group(group.into()).unwrap(), &packet)
}

#[test]
fn a_connect_asks_for_the_hardware_address_first_and_its_syn_waits() {
    let mut link = Link::usual();
    link.connects("10.0.0.2:80");
    let (header, payload) = link.one();
    assert_eq!((header.source, header.destination), (OURS, Address::BROADCAST));
    assert_eq!(arp::parse(&payload), Some(arp::Packet::request(OURS, V4, PEER_V4)));
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Incomplete, None)));
    link.resolve();
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Reachable, Some(PEER))));
    let (header, payload) = link.one();
    assert_eq!((header.source, header.destination, header.ethertype), (OURS, PEER, ethernet::TYPE_IPV4));
    let (ip, segment) = ipv4::parse(&payload).unwrap();
    assert_eq!((ip.destination, Header::parse(segment).unwrap().0.flags), (PEER_V4, Flags::SYN));
    assert_eq!(link.stack.usage().neighbour_bytes, 0);
}

#[test]
fn over_ipv6_the_question_is_a_solicitation_to_the_group_of_the_address() {
    let mut link = Link::usual();
    link.connects("[fe80::2]:80");
    let (header, payload) = link.one();
    let group = ndp::solicited_node(PEER_V6);
    assert_eq!(header.destination, Address([0x33, 0x33, 0xff, 0, 0, 2]));
    let (ip, body) = ipv6::parse(&payload).unwrap();
    let (message, options) = ndp::parse(ip.source, ip.destination, ip.hop_limit, body).unwrap();
    assert_eq!((ip.source, ip.destination), (V6, group));
    assert_eq!((message, options.source()), (Message::NeighborSolicitation { target: PEER_V6 }, Some(OURS)));
    link.hears(&advertises(PEER, PEER_V6, true, true));
    assert_eq!(link.neighbour(PEER_V6), Some((NeighbourState::Reachable, Some(PEER))));
    assert_eq!(link.one().0.destination, PEER);
}

#[test]
fn a_neighbour_that_does_not_answer_fails_a_connect_after_three_seconds() {
    for to in ["10.0.0.2:80", "[fe80::2]:80"] {
        let mut link = Link::usual();
        let id = link.connects(to);
        let first = link.all().len();
        let asked: Vec<_> = link.until(10).into_iter().map(|(at, ..)| at).collect();
        // The SYN is repeated meanwhile, and waits too.
        assert_eq!((first, asked), (1, vec![1000, 2000]), "{to}");
        assert_eq!(link.stack.take_error(id), Ok(Some(Error::HostUnreachable)), "{to}");
        let events: Vec<_> = std::iter::from_fn(|| link.stack.poll_event()).collect();
        assert!(events.iter().any(|(there, event)| *there == id && event.contains(Event::ERROR)), "{to}");
        assert_eq!(link.stack.counters().neigh_res_failed, 1);
        assert_eq!(link.stack.usage().opening, 0);
    }
}

#[test]
fn a_connection_survives_a_neighbour_that_goes_and_returns() {
    let mut link = Link::usual();
    let id = link.connects("10.0.0.2:80");
    link.all();
    link.resolve();
    let (_, payload) = link.one();
    let (ip, syn) = ipv4::parse(&payload).unwrap();
    let (syn, _) = Header::parse(syn).unwrap();
    let header =
        Header { flags: Flags::SYN | Flags::ACK, ack: syn.seq + 1, window: 65_535, ..Header::default() };
    let (from, to) = ((ip.destination, 80), (ip.source, syn.source_port));
    link.hears(&in_frame(PEER, OURS, &build::tcp(from.into(), to.into(), header, b"").unwrap()));
    assert_eq!(link.all().len(), 1);
    // REACHABLE, then STALE; data leads to DELAY, then PROBE.
    link.until(60);
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Stale, Some(PEER))));
    link.stack.send(id, b"hello").unwrap();
    assert_eq!(link.one().0.destination, PEER);
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Delay, Some(PEER))));
    let arp = |sent: &[(u64, ethernet::Header, Vec<u8>)]| -> Vec<_> {
        let asked = sent.iter().filter(|(_, header, _)| header.ethertype == ethernet::TYPE_ARP);
        asked.map(|(at, header, _)| (*at, header.destination)).collect()
    };
    let sent = link.until(67);
    // Three questions to the known address, and then to all again.
    assert_eq!(arp(&sent)[..2], [(65_000, PEER), (66_000, PEER)]);
    link.until(75);
    assert_ne!(link.neighbour(PEER_V4).unwrap().1, Some(PEER));
    link.until(80);
    while link.neighbour(PEER_V4).unwrap().0 != NeighbourState::Incomplete {
        let next = link.now.saturating_since(Instant::from_secs(1)).as_secs() + 1;
        link.until(next);
    }
    link.hears(&answer(OTHER, PEER_V4));
    let data = link.all();
    assert!(data.iter().all(|(header, _)| header.destination == OTHER) && !data.is_empty());
    assert_eq!(link.stack.info(link.now, id).unwrap().state.to_string(), "ESTABLISHED");
}

#[test]
fn a_probe_that_is_answered_keeps_the_neighbour() {
    let mut link = Link::usual();
    link.connects("10.0.0.2:80");
    link.all();
    link.hears(&announcement(PEER, PEER_V4));
    // An announcement was not asked for, so it confirms nothing, but packets can leave.
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Stale, Some(PEER))));
    assert_eq!(link.one().0.destination, PEER);
    link.until(3);
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Delay, Some(PEER))));
    let sent = link.until(6);
    assert!(sent.iter().any(|(_, header, _)| header.ethertype == ethernet::TYPE_ARP));
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Probe, Some(PEER))));
    link.resolve();
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Reachable, Some(PEER))));
}

#[test]
fn packets_to_other_networks_go_to_the_gateway_and_a_change_of_routes_is_followed() {
    let mut link = Link::usual();
    let all: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    let route = Route::new(all, 0, InterfaceId::FIRST).via(PEER_V4.into());
    link.stack.add_route(route).unwrap();
    link.connects("192.0.2.1:80");
    let (_, payload) = link.one();
    assert_eq!(arp::parse(&payload).unwrap().target, PEER_V4);
    link.resolve();
    assert_eq!(link.one().0.destination, PEER);
    // Another packet to the same destination finds the new gateway.
    let third = Ipv4Addr::new(10, 0, 0, 3);
    link.stack.remove_route(&route);
    link.stack.add_route(Route::new(all, 0, InterfaceId::FIRST).via(third.into())).unwrap();
    link.connects("192.0.2.1:81");
    assert_eq!(arp::parse(&link.one().1).unwrap().target, third);
}

#[test]
fn questions_for_our_addresses_are_answered_and_for_others_not() {
    let mut link = Link::usual();
    link.hears(&question(PEER, PEER_V4));
    let (header, payload) = link.one();
    assert_eq!(header.destination, PEER);
    let expected = arp::Packet::request(PEER, PEER_V4, V4).answer(OURS);
    assert_eq!(arp::parse(&payload), Some(expected));
    // A probe before the first use of an address (RFC 5227 §2.1).
    link.hears(&question(OTHER, Ipv4Addr::UNSPECIFIED));
    assert_eq!(link.one().0.destination, OTHER);
    link.hears(&solicits(PEER, PEER_V6, V6));
    let (header, payload) = link.one();
    let (ip, body) = ipv6::parse(&payload).unwrap();
    let (message, options) = ndp::parse(ip.source, ip.destination, ip.hop_limit, body).unwrap();
    assert_eq!((header.destination, ip.destination, options.target()), (PEER, PEER_V6, Some(OURS)));
    let expected =
        Message::NeighborAdvertisement { target: V6, router: false, solicited: true, overrides: true };
    assert_eq!(message, expected);
    // Somebody claims our address (RFC 4862 §5.4.3): all shall know.
    link.hears(&solicits(OTHER, Ipv6Addr::UNSPECIFIED, V6));
    let (header, payload) = link.one();
    assert_eq!(header.destination, Address([0x33, 0x33, 0, 0, 0, 1]));
    assert_eq!(ipv6::parse(&payload).unwrap().0.destination, ndp::ALL_NODES);
    let counters = link.stack.counters();
    assert_eq!(counters.replied(ReplyReason::ArpReply), 2);
    assert_eq!(counters.replied(ReplyReason::NeighborAdvertisement), 2);

    let third = Ipv4Addr::new(10, 0, 0, 3);
    let for_another = arp::Packet::request(PEER, PEER_V4, third);
    link.hears(&build::arp(PEER, Address::BROADCAST, &for_another));
    link.hears(&solicits(PEER, PEER_V6, "fe80::3".parse().unwrap()));
    assert!(link.all().is_empty());
}

#[test]
fn who_asked_us_needs_no_question_of_ours() {
    let mut link = Link::usual();
    link.stack.listen("10.0.0.1:80".parse().unwrap(), ListenOptions::default()).unwrap();
    link.hears(&question(PEER, PEER_V4));
    link.all();
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Stale, Some(PEER))));
    let syn = Header { flags: Flags::SYN, window: 65_535, ..Header::default() };
    let syn = build::tcp((PEER_V4, 9).into(), (V4, 80).into(), syn, b"").unwrap();
    link.hears(&in_frame(PEER, OURS, &syn));
    let (header, _) = link.one();
    assert_eq!((header.destination, header.ethertype), (PEER, ethernet::TYPE_IPV4));
}

// THREAT-84
#[test]
fn claims_that_nobody_asked_for_make_no_entry_threat_84() {
    let mut link = Link::usual();
    link.hears(&answer(PEER, PEER_V4));
    link.hears(&advertises(PEER, PEER_V6, true, true));
    link.hears(&announcement(PEER, PEER_V4));
    assert_eq!(link.stack.neighbours(), []);
    assert_eq!(link.drops(DropReason::NeighUnsolicited), 2);
    assert!(link.all().is_empty());
}

// THREAT-85
#[test]
fn a_flood_of_questions_makes_few_entries_and_displaces_none_threat_85() {
    let mut link = Link::new(|config| (config.gc_thresh2, config.gc_thresh3) = (4, 8));
    link.connects("10.0.0.2:80");
    link.all();
    link.resolve();
    link.all();
    for host in 10..200 {
        let hardware = Address([2, 0, 0, 0, 1, host]);
        link.hears(&question(hardware, Ipv4Addr::new(10, 0, 0, host)));
        // Each is answered all the same.
        assert_eq!(link.one().0.destination, hardware);
    }
    assert_eq!(link.stack.usage().neighbours, 4);
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Reachable, Some(PEER))));
    assert_eq!(link.stack.counters().neigh_forced_gc_runs, 0);
}

// THREAT-85: both sides of `gc_thresh3`.
#[test]
fn a_full_cache_gives_up_who_is_silent_and_keeps_who_answered_threat_85() {
    let mut link = Link::new(|config| (config.gc_thresh2, config.gc_thresh3) = (2, 3));
    link.connects("10.0.0.2:80");
    link.all();
    link.resolve();
    link.all();
    link.connects("10.0.0.10:80");
    link.connects("10.0.0.11:80");
    link.all();
    assert_eq!(link.stack.usage().neighbours, 3);
    // Nobody has been silent for long enough.
    let id = link.connects("10.0.0.12:80");
    assert!(link.all().is_empty());
    assert_eq!(link.stack.counters().neigh_table_fulls, 1);
    assert_eq!(link.stack.take_error(id), Ok(Some(Error::HostUnreachable)));
    link.until(1);
    link.connects("10.0.0.12:80");
    assert_eq!(arp::parse(&link.one().1).unwrap().target, Ipv4Addr::new(10, 0, 0, 12));
    assert_eq!((link.stack.usage().neighbours, link.stack.counters().neigh_forced_gc_runs), (3, 1));
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Reachable, Some(PEER))));
    assert_eq!(link.stack.check_consistent(), Ok(()));
}

// THREAT-85: both sides of `unres_qlen_bytes`, and of `neigh_mem`.
#[test]
fn the_oldest_packets_give_way_in_a_full_queue_threat_85() {
    type Configure = fn(&mut Config);
    let limits: [Configure; 2] = [|config| config.unres_qlen_bytes = 300, |config| config.neigh_mem = 300];
    for configure in limits {
        let mut link = Link::new(configure);
        for port in 1..=3 {
            link.connects(&format!("10.0.0.2:{port}"));
        }
        link.all();
        // A SYN takes 60 bytes and 64 beside it.
        assert_eq!(link.stack.counters().neigh_unresolved_discards, 1);
        assert_eq!(link.stack.usage().neighbour_bytes, 248);
        link.resolve();
        let ports = link.all().into_iter().map(|(_, payload)| {
            let (_, segment) = ipv4::parse(&payload).unwrap();
            Header::parse(segment).unwrap().0.destination_port
        });
        assert_eq!(ports.collect::<Vec<_>>(), [2, 3]);
    }
}

// THREAT-86
#[test]
fn an_answer_that_contradicts_a_fresh_one_is_dropped_threat_86() {
    let mut link = Link::usual();
    link.connects("10.0.0.2:80");
    link.all();
    link.resolve();
    link.all();
    link.hears(&answer(OTHER, PEER_V4));
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Reachable, Some(PEER))));
    assert_eq!(link.drops(DropReason::NeighLocked), 1);
    // Later it is taken, since a host may change its address, but it is not confirmed: a probe follows its use.
    link.until(2);
    link.hears(&answer(OTHER, PEER_V4));
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Stale, Some(OTHER))));
    // Without the override flag a known address stays (RFC 4861 §7.2.5).
    link.connects("[fe80::2]:80");
    link.all();
    link.hears(&advertises(PEER, PEER_V6, true, true));
    link.until(5);
    link.hears(&advertises(OTHER, PEER_V6, false, false));
    assert_eq!(link.neighbour(PEER_V6), Some((NeighbourState::Stale, Some(PEER))));
}

// THREAT-86
#[test]
fn senders_that_cannot_be_on_the_link_are_dropped_threat_86() {
    let mut link = Link::usual();
    let wan = Interface::ethernet(1500, OURS, [(Ipv4Addr::new(192, 0, 2, 1).into(), 24)]);
    let wan = link.stack.add_interface(wan).unwrap();
    let spoofs = [
        // An address of the other link, a group, a broadcast address, a loopback address.
        question(PEER, Ipv4Addr::new(192, 0, 2, 9)),
        question(PEER, Ipv4Addr::new(224, 0, 0, 1)),
        question(PEER, Ipv4Addr::BROADCAST),
        question(PEER, Ipv4Addr::LOCALHOST),
        // An answer without an address.
        answer(PEER, Ipv4Addr::UNSPECIFIED),
        // Another hardware address than that of the frame.
        build::arp(OTHER, OURS, &arp::Packet::request(PEER, PEER_V4, V4)),
        build::ethernet(&ethernet::Header::new(PEER, OURS, ethernet::TYPE_ARP), &[0; 28]),
    ];
    for (count, spoof) in (1..).zip(&spoofs) {
        link.hears(spoof);
        assert_eq!(link.drops(DropReason::ArpInvalid), count);
    }
    let message =
        Message::NeighborAdvertisement { target: PEER_V6, router: false, solicited: true, overrides: true };
    let mut far = build::ndp(PEER_V6, V6, &message, &[]);
    far[7] = 64;
    let lies = build::ndp(PEER_V6, V6, &message, &[NdpOption::TargetLinkLayer(OTHER)]);
    for (count, packet) in (1..).zip([far, lies]) {
        link.hears(&in_frame(PEER, OURS, &packet));
        assert_eq!(link.drops(DropReason::NdpInvalid), count);
    }
    // A question that came by the other interface is not for an address of that one.
    link.stack.receive(link.now, Packet::from(&question(PEER, PEER_V4)[..]).on(wan));
    assert_eq!(link.drops(DropReason::ArpInvalid), spoofs.len() as u64 + 1);
    assert!(link.all().is_empty());
    assert_eq!(link.stack.neighbours(), []);
}

#[test]
fn routers_configure_nothing_here() {
    let mut link = Link::usual();
    let advertisement = Message::RouterAdvertisement(ndp::Router { lifetime: 1800, ..Default::default() });
    let packet = build::ndp(PEER_V6, ndp::ALL_NODES, &advertisement, &[NdpOption::Mtu(1280)]);
    link.hears(&in_frame(PEER, Address([0x33, 0x33, 0, 0, 0, 1]), &packet));
    assert_eq!(link.drops(DropReason::NdpIgnored), 1);
}

#[test]
fn a_router_tells_all_hosts_and_answers_those_that_ask() {
    let mut link = Link::usual();
    let mut router = RouterAdvertisement::default();
    router.router.lifetime = 1800;
    router.dns.push(V6);
    let prefix: Ipv6Addr = "2001:db8::".parse().unwrap();
    let forever = u32::MAX;
    let prefix =
        ndp::Prefix { prefix, len: 64, on_link: true, autonomous: true, valid: forever, preferred: forever };
    router.prefixes.push(prefix);
    link.stack.advance(link.now);
    link.stack.advertise(InterfaceId::FIRST, Some(router.clone())).unwrap();
    let all = Address([0x33, 0x33, 0, 0, 0, 1]);
    let (header, payload) = link.one();
    assert_eq!(header.destination, all);
    let (ip, body) = ipv6::parse(&payload).unwrap();
    let (message, options) = ndp::parse(ip.source, ip.destination, ip.hop_limit, body).unwrap();
    assert_eq!((ip.source, message), (V6, Message::RouterAdvertisement(router.router)));
    let expected = [
        NdpOption::SourceLinkLayer(OURS),
        NdpOption::Mtu(1500),
        NdpOption::Prefix(prefix),
        NdpOption::Dns { lifetime: 1800, servers: &V6.octets() },
    ];
    assert_eq!(options.collect::<Vec<_>>(), expected);
    // A host that asks gets an answer of its own; those without an address get one with all, in three seconds.
    let asks = |source: Ipv6Addr| {
        let packet = build::ndp(source, ndp::ALL_ROUTERS, &Message::RouterSolicitation, &[]);
        in_frame(PEER, Address([0x33, 0x33, 0, 0, 0, 2]), &packet)
    };
    link.hears(&asks(PEER_V6));
    assert_eq!(link.one().0.destination, PEER);
    for _ in 0..100 {
        link.hears(&asks(Ipv6Addr::UNSPECIFIED));
    }
    assert!(link.all().is_empty());
    assert_eq!(link.stack.counters().replied(ReplyReason::RouterAdvertisement), 101);
    let repeated: Vec<_> =
        link.until(10).into_iter().map(|(at, header, _)| (at, header.destination)).collect();
    assert_eq!(repeated, [(3000, all)]);
    // Without a question it is repeated after 200 to 600 seconds.
    let sent = link.until(1300);
    assert!((2..=6).contains(&sent.len()), "{sent:?}");
    link.stack.advertise(InterfaceId::FIRST, None).unwrap();
    assert!(link.until(3000).is_empty());
    link.hears(&asks(PEER_V6));
    assert_eq!((link.all().len(), link.drops(DropReason::NdpIgnored)), (0, 1));

    let mut many = router.clone();
    many.dns = vec![V6; 9];
    assert_eq!(link.stack.advertise(InterfaceId::FIRST, Some(many)), Err(Error::InvalidArgument));
    link.stack.remove_address(V6.into());
    assert_eq!(link.stack.advertise(InterfaceId::FIRST, Some(router)), Err(Error::InvalidArgument));
}

#[test]
fn a_proxy_answers_for_others() {
    let mut link = Link::usual();
    let (third, third_6) = (Ipv4Addr::new(10, 0, 0, 3), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 3));
    let asks = build::arp(PEER, Address::BROADCAST, &arp::Packet::request(PEER, PEER_V4, third));
    for address in [IpAddr::V4(third), IpAddr::V6(third_6), IpAddr::V4(third)] {
        link.stack.add_neighbour_proxy(InterfaceId::FIRST, address).unwrap();
    }
    link.hears(&asks);
    let (_, payload) = link.one();
    let expected = arp::Packet::request(PEER, PEER_V4, third).answer(OURS);
    assert_eq!(arp::parse(&payload), Some(expected));
    link.hears(&solicits(PEER, PEER_V6, third_6));
    let (_, payload) = link.one();
    let (ip, body) = ipv6::parse(&payload).unwrap();
    let (message, options) = ndp::parse(ip.source, ip.destination, ip.hop_limit, body).unwrap();
    let expected =
        Message::NeighborAdvertisement { target: third_6, router: false, solicited: true, overrides: false };
    assert_eq!((message, options.target()), (expected, Some(OURS)));
    let add = |link: &mut Link, address: Ipv4Addr| {
        link.stack.add_neighbour_proxy(InterfaceId::FIRST, address.into())
    };
    assert_eq!(add(&mut link, Ipv4Addr::BROADCAST), Err(Error::InvalidArgument));
    assert!((10..72).all(|host| add(&mut link, Ipv4Addr::new(10, 0, 0, host)).is_ok()));
    assert_eq!(add(&mut link, Ipv4Addr::new(10, 0, 0, 72)), Err(Error::NoBufferSpace));
}

#[test]
fn a_host_without_an_address_can_ask_for_one_by_broadcast_only() {
    let mut link = Link::usual();
    let id =
        link.stack.bind_udp("0.0.0.0:67".parse().unwrap(), UdpOptions::new(link.stack.config())).unwrap();
    let asks = |to: Ipv4Addr| {
        let mut datagram = vec![0; 8];
        let header = udp::Header { source_port: 68, destination_port: 67, checksum: 0 };
        header.emit(3, &mut datagram);
        datagram.extend(b"who");
        let packet = build::ipv4(&ipv4::Header::new(Ipv4Addr::UNSPECIFIED, to, PROTOCOL_UDP), &datagram);
        in_frame(PEER, if to == V4 { OURS } else { Address::BROADCAST }, &packet)
    };
    link.hears(&asks(Ipv4Addr::BROADCAST));
    let received = link.stack.recv_from(id, &mut [0; 9]).unwrap();
    assert_eq!((received.len, received.from), (3, "0.0.0.0:68".parse().unwrap()));
    link.hears(&asks(V4));
    link.hears(&asks(Ipv4Addr::new(10, 0, 0, 255)));
    assert_eq!(link.drops(DropReason::BadSource), 2);
    assert_eq!(link.stack.recv_from(id, &mut [0; 9]).unwrap_err(), Error::WouldBlock);
    assert_eq!(link.stack.neighbours(), []);
}

// THREAT-87
#[test]
fn who_uses_our_address_is_told_so_once_in_ten_seconds_threat_87() {
    let mut link = Link::usual();
    for _ in 0..100 {
        link.hears(&announcement(OTHER, V4));
        link.hears(&advertises(OTHER, V6, false, true));
    }
    let (header, payload) = link.one();
    assert_eq!((header.source, header.destination), (OURS, Address::BROADCAST));
    assert_eq!(arp::parse(&payload), Some(arp::Packet::request(OURS, V4, V4)));
    assert_eq!(link.drops(DropReason::AddressConflict), 200);
    assert_eq!(link.stack.neighbours(), []);
    link.until(10);
    link.hears(&advertises(OTHER, V6, false, true));
    let (header, payload) = link.one();
    assert_eq!(header.destination, Address([0x33, 0x33, 0, 0, 0, 1]));
    assert_eq!(ipv6::parse(&payload).unwrap().0.destination, ndp::ALL_NODES);
}

// THREAT-88
#[test]
fn a_packet_for_one_host_in_a_frame_for_many_is_dropped_threat_88() {
    let mut link = Link::usual();
    link.stack.listen("10.0.0.1:80".parse().unwrap(), ListenOptions::default()).unwrap();
    let syn = Header { flags: Flags::SYN, window: 65_535, ..Header::default() };
    let syn = build::tcp((PEER_V4, 9).into(), (V4, 80).into(), syn, b"").unwrap();
    let ping = icmp::Message::EchoRequest { ident: 1, sequence: 1, data: b"" };
    let ping = build::icmp(PEER_V6.into(), V6.into(), &ping).unwrap();
    link.hears(&in_frame(PEER, Address::BROADCAST, &syn));
    link.hears(&in_frame(PEER, Address([0x33, 0x33, 0, 0, 0, 1]), &ping));
    assert_eq!(link.drops(DropReason::LinkBroadcast), 2);
    assert!(link.all().is_empty());
}

#[test]
fn frames_that_are_not_for_us_are_dropped_with_a_reason() {
    let mut link = Link::usual();
    let packet = build::ipv4(&ipv4::Header::new(PEER_V4, V4, 99), b"");
    let mut tagged = in_frame(PEER, OURS, &packet);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let header = [
        in_frame(Address::BROADCAST, OURS, &packet),
        in_frame(Address::UNSPECIFIED, OURS, &packet),
        in_frame(OURS, OURS, &packet),
        vec![0; 13],
        tagged.clone(),
    ];
    header.iter().for_each(|frame| link.hears(frame));
    assert_eq!(link.drops(DropReason::FrameHeader), header.len() as u64);
    link.hears(&in_frame(PEER, OTHER, &packet));
    assert_eq!(link.drops(DropReason::FrameNotOurs), 1);
    link.hears(&build::ethernet(&ethernet::Header::new(PEER, OURS, 0x88cc), &packet));
    assert_eq!(link.drops(DropReason::FrameType), 1);
    // A tag of no VLAN carries a priority.
    tagged[15] = 0;
    link.hears(&tagged);
    assert_eq!(link.drops(DropReason::UnknownProtocol), 1);
}

#[test]
fn padding_behind_a_short_packet_is_not_part_of_it() {
    let mut link = Link::usual();
    link.stack.add_neighbour(InterfaceId::FIRST, PEER_V4.into(), PEER).unwrap();
    let ping = icmp::Message::EchoRequest { ident: 1, sequence: 1, data: b"abc" };
    let mut frame = in_frame(PEER, OURS, &build::icmp(PEER_V4.into(), V4.into(), &ping).unwrap());
    frame.resize(60, 0xee);
    link.hears(&frame);
    let (_, payload) = link.one();
    let (_, body) = ipv4::parse(&payload).unwrap();
    let reply = icmp::Message::EchoReply { ident: 1, sequence: 1, data: b"abc" };
    assert_eq!(icmp::parse_v4(body), Some(reply));
}

#[test]
fn a_neighbour_that_the_user_names_is_asked_nothing_and_no_claim_changes_it() {
    let mut link = Link::usual();
    link.connects("10.0.0.2:80");
    link.all();
    link.stack.add_neighbour(InterfaceId::FIRST, PEER_V4.into(), PEER).unwrap();
    assert_eq!(link.one().0.destination, PEER);
    link.until(3);
    link.hears(&answer(OTHER, PEER_V4));
    assert_eq!(link.neighbour(PEER_V4), Some((NeighbourState::Permanent, Some(PEER))));
    let text = link.stack.neighbours()[0].to_string();
    assert_eq!(text, "10.0.0.2 dev 1 lladdr 02:00:00:00:00:02 PERMANENT");
    let refused = |link: &mut Link, id, address: Ipv4Addr, hardware| {
        assert_eq!(link.stack.add_neighbour(id, address.into(), hardware), Err(Error::InvalidArgument));
    };
    refused(&mut link, InterfaceId::from_index(9), PEER_V4, PEER);
    refused(&mut link, InterfaceId::FIRST, PEER_V4, Address::BROADCAST);
    refused(&mut link, InterfaceId::FIRST, Ipv4Addr::BROADCAST, PEER);
    assert!(link.stack.remove_neighbour(InterfaceId::FIRST, PEER_V4.into()));
    assert_eq!(link.neighbour(PEER_V4), None);
}

#[test]
fn interfaces_of_both_kinds_stand_side_by_side() {
    let mut link = Link::usual();
    let tun = Interface::new(1400, [(Ipv4Addr::new(10, 9, 0, 1).into(), 24)]);
    let tun = link.stack.add_interface(tun).unwrap();
    assert_eq!(link.stack.frame_len(), 1514);
    let media: Vec<_> = link.stack.interfaces().iter().map(|(_, interface)| interface.medium).collect();
    assert_eq!(media, [Medium::Ethernet { address: OURS }, Medium::Ip]);
    link.connects("10.9.0.2:80");
    let frame = link.sends().unwrap();
    assert_eq!(ipv4::parse(&frame).unwrap().0.destination, Ipv4Addr::new(10, 9, 0, 2));
    let ping = icmp::Message::EchoRequest { ident: 1, sequence: 1, data: b"abc" };
    let ping = build::icmp("10.9.0.2".parse().unwrap(), "10.9.0.1".parse().unwrap(), &ping).unwrap();
    link.stack.receive(link.now, Packet::from(&ping[..]).on(tun));
    assert_eq!(ipv4::parse(&link.sends().unwrap()).unwrap().0.destination, Ipv4Addr::new(10, 9, 0, 2));
    assert!(link.stack.remove_interface(tun));
    link.connects("10.0.0.2:80");
    assert_eq!(link.one().0.destination, Address::BROADCAST);
}

#[test]
fn a_group_has_its_hardware_address_without_a_question() {
    let mut link = Link::usual();
    let mut options = UdpOptions::new(link.stack.config());
    options.broadcast = true;
    let id = link.stack.bind_udp("10.0.0.1:9".parse().unwrap(), options).unwrap();
    for (to, expected) in [
        ("224.0.0.251:5353", "01:00:5e:00:00:fb"),
        ("255.255.255.255:9", "ff:ff:ff:ff:ff:ff"),
        ("10.0.0.255:9", "ff:ff:ff:ff:ff:ff"),
    ] {
        link.stack.send_to(id, b"hello", Some(to.parse().unwrap())).unwrap();
        assert_eq!(link.one().0.destination.to_string(), expected, "{to}");
    }
    assert_eq!(link.stack.neighbours(), []);
}

#[test]
fn a_hardware_address_is_that_of_a_single_host() {
    for address in [Address::BROADCAST, Address::UNSPECIFIED] {
        let error = Interface::ethernet(1500, address, []).validate().unwrap_err();
        assert_eq!(error, format!("hardware address {address}: expected that of a single host"));
    }
}

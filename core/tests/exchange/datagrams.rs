//! Forwarders of UDP and of echo requests, between a guest and a gateway.

use std::net::{IpAddr, SocketAddr};

use steadfast_core::counters::{DropReason, ReplyReason};
use steadfast_core::wire::icmp::{self, Message};
use steadfast_core::wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_UDP, build, ipv4, ipv6};
use steadfast_core::{
    Config, Echo, Error, Event, ForwardRule, IcmpError, Reject, SocketId, Stack, UdpOptions, UdpPacket,
};

use crate::udp::{Hosts, NOW, at, bind, datagram, take};

const GUESTS: [&str; 2] = ["10.0.0.1", "fd00::1"];
/// Addresses of no host here.
const SERVERS: [&str; 2] = ["198.51.100.7", "2001:db8::7"];
const GATEWAYS: [&str; 2] = ["10.0.0.2", "fd00::2"];

/// A guest with a socket, and a gateway with a forwarder.
struct Scene {
    hosts: Hosts,
    guest: SocketId,
    forwarder: SocketId,
    server: SocketAddr,
}

impl Scene {
    fn new(v6: bool, configure: impl Fn(&mut Config)) -> Scene {
        let mut hosts = Hosts::new(configure);
        let guest = bind(&mut hosts.ours, if v6 { "[fd00::1]:4000" } else { "10.0.0.1:4000" });
        let forwarder = hosts.peer.forward_udp(ForwardRule::all()).unwrap();
        let server = SocketAddr::new(ip(SERVERS[usize::from(v6)]), 53);
        Scene { hosts, guest, forwarder, server }
    }

    fn gateway(&mut self) -> &mut Stack {
        &mut self.hosts.peer
    }

    /// The guest sends to the server.
    fn asks(&mut self, payload: &[u8]) {
        self.hosts.ours.send_to(self.guest, payload, Some(self.server)).unwrap();
        self.hosts.carry();
    }

    #[track_caller]
    fn next(&mut self) -> UdpPacket {
        let taken = self.hosts.peer.next_datagram(self.forwarder);
        taken.expect("a datagram")
    }

    fn guest_address(&self) -> SocketAddr {
        self.hosts.ours.local_addr(self.guest).unwrap()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn both(run: impl Fn(bool)) {
    [false, true].into_iter().for_each(run);
}

fn limited(config: &mut Config) {
    config.icmp_ratelimit = 0;
}

#[test]
fn a_datagram_to_another_host_reaches_its_forwarder_and_is_answered_from_there_fwd_17() {
    both(|v6| {
        let mut scene = Scene::new(v6, |_| {});
        for len in [0, 1, 1472, 1473, 9000, 65_507] {
            let question: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            scene.asks(&question);
            let packet = scene.next();
            assert_eq!((packet.source, packet.destination), (scene.guest_address(), scene.server));
            assert_eq!(packet.payload, question, "{len} bytes");
            let whole = len <= if v6 { 1452 } else { 1472 };
            assert_eq!((packet.ttl, packet.tos, packet.dont_fragment), (64, 0, whole), "{len} bytes");
            let answer = packet.answer(question.clone());
            let Scene { hosts, forwarder, guest, server } = &mut scene;
            assert_eq!(hosts.peer.send_datagram(*forwarder, &answer), Ok(()));
            hosts.carry();
            assert_eq!(take(&mut hosts.ours, *guest), Ok((question, *server)));
        }
        let counters = scene.gateway().counters();
        assert_eq!((counters.forward_datagrams, counters.udp_out_datagrams), (6, 6));
        assert_eq!((counters.udp_in_datagrams, counters.reasm_oks > 0), (0, true));
        assert_eq!(scene.gateway().usage().udp_held, 0);
    });
}

/// The fields of the IP header come through, each way.
#[test]
fn ttl_service_and_dont_fragment_are_carried_fwd_17() {
    both(|v6| {
        let mut scene = Scene::new(v6, |_| {});
        let options = UdpOptions::new(scene.hosts.ours.config()).with(|options| {
            (options.ttl, options.dscp, options.ecn) = (7, 46, steadfast_core::wire::Ecn::Ect0);
        });
        scene.hosts.ours.set_udp_options(scene.guest, options).unwrap();
        scene.asks(b"?");
        let packet = scene.next();
        assert_eq!((packet.ttl, packet.tos, packet.dont_fragment), (7, 46 << 2 | 2, true));
        for dont_fragment in [false, true] {
            let mut answer = packet.answer(&b"!"[..]);
            (answer.ttl, answer.tos, answer.dont_fragment) = (9, 0x29, dont_fragment);
            let Scene { hosts, forwarder, .. } = &mut scene;
            hosts.peer.send_datagram(*forwarder, &answer).unwrap();
            hosts.crossed.clear();
            hosts.carry();
            let (_, sent) = &hosts.crossed[0];
            if v6 {
                let (header, _) = ipv6::parse(sent).unwrap();
                assert_eq!((header.hop_limit, header.dscp, header.ecn.bits()), (9, 10, 1));
            } else {
                let (header, _) = ipv4::parse(sent).unwrap();
                assert_eq!((header.ttl, header.dscp, header.ecn.bits()), (9, 10, 1));
                assert_eq!(header.dont_fragment, dont_fragment);
                // Only a packet that nobody fragments needs no identification (RFC 6864 §4).
                assert_eq!(header.identification == 0, dont_fragment);
            }
        }
    });
}

#[test]
fn a_socket_comes_first_and_then_the_most_specific_rule_fwd_17() {
    both(|v6| {
        let mut scene = Scene::new(v6, |_| {});
        let (network, len) = (scene.server.ip(), if v6 { 64 } else { 24 });
        let all = scene.forwarder;
        let gateway = scene.gateway();
        assert_eq!(gateway.forward_udp(ForwardRule::all()), Err(Error::AddrInUse));
        assert_eq!(gateway.forward_udp(ForwardRule::to(network, 129)), Err(Error::InvalidArgument));
        let subnet = gateway.forward_udp(ForwardRule::to(network, len)).unwrap();
        let dns = gateway.forward_udp(ForwardRule::to(network, len).with_ports(53..=53)).unwrap();
        // A socket on all addresses is on all of the gateway's.
        let socket = bind(gateway, if v6 { "[::]:53" } else { "0.0.0.0:53" });
        scene.asks(b"dns");
        scene.server.set_port(54);
        scene.asks(b"subnet");
        scene.server = SocketAddr::new(ip(GATEWAYS[usize::from(v6)]), 53);
        scene.asks(b"socket");
        scene.server.set_port(54);
        scene.asks(b"all");
        let gateway = scene.gateway();
        for (forwarder, payload) in [(dns, "dns"), (subnet, "subnet"), (all, "all")] {
            assert_eq!(gateway.next_datagram(forwarder).unwrap().payload, payload);
            assert_eq!(gateway.next_datagram(forwarder), Err(Error::WouldBlock));
        }
        assert_eq!(take(gateway, socket).unwrap().0, b"socket");
        // A rule that is gone leaves its destinations to the others.
        gateway.close(NOW, dns).unwrap();
        scene.server = SocketAddr::new(network, 53);
        scene.asks(b"again");
        assert_eq!(scene.gateway().next_datagram(subnet).unwrap().payload, "again");
        assert_eq!(scene.gateway().counters().udp_no_ports, 0);
    });
}

#[test]
fn without_a_rule_that_covers_it_a_datagram_to_another_host_is_dropped_fwd_17() {
    both(|v6| {
        let mut scene = Scene::new(v6, |_| {});
        let forwarder = scene.forwarder;
        let gateway = scene.gateway();
        gateway.close(NOW, forwarder).unwrap();
        gateway.forward_udp(ForwardRule::to(ip("192.0.2.0"), 24)).unwrap();
        gateway.forward_echo(ForwardRule::to(ip("192.0.2.0"), 24)).unwrap();
        scene.hosts.crossed.clear();
        scene.asks(b"?");
        assert_eq!(scene.hosts.crossed.len(), 1, "no answer");
        assert_eq!(scene.gateway().counters().dropped(DropReason::NotOurs), 1);
    });
}

#[test]
fn broadcasts_and_multicasts_go_to_no_forwarder_fwd_17() {
    let mut scene = Scene::new(false, |_| {});
    for destination in [[10, 0, 0, 255], [255, 255, 255, 255], [239, 1, 2, 3], [127, 0, 0, 1], [240, 0, 0, 1]]
    {
        let header = ipv4::Header::new([10, 0, 0, 1].into(), destination.into(), PROTOCOL_UDP);
        scene.gateway().receive(NOW, &build::ipv4(&header, &datagram(1, 2, b"x"))[..]);
    }
    // A sender that is no host is none here either.
    let header = ipv4::Header::new([0, 0, 0, 0].into(), [198, 51, 100, 7].into(), PROTOCOL_UDP);
    scene.gateway().receive(NOW, &build::ipv4(&header, &datagram(1, 2, b"x"))[..]);
    let forwarder = scene.forwarder;
    assert_eq!(scene.gateway().next_datagram(forwarder), Err(Error::WouldBlock));
    assert_eq!(scene.gateway().counters().forward_datagrams, 0);
    scene.hosts.carry();
}

#[test]
fn a_forwarder_holds_so_many_datagrams_and_drops_the_others_fwd_18() {
    let mut scene = Scene::new(false, |config| config.forward_queue = 3);
    for number in 0..5 {
        scene.asks(&[number]);
    }
    assert_eq!(scene.gateway().usage().udp_held, 3 * 257);
    for number in 0..3 {
        assert_eq!(scene.next().payload, [number][..]);
    }
    let forwarder = scene.forwarder;
    assert_eq!(scene.gateway().next_datagram(forwarder), Err(Error::WouldBlock));
    let counters = scene.gateway().counters();
    assert_eq!((counters.forward_datagrams, counters.forward_queue_full), (3, 2));
    assert_eq!(counters.dropped(DropReason::ForwardQueueFull), 2);
}

#[test]
fn a_forwarder_holds_so_many_bytes_and_drops_the_others_fwd_18() {
    let mut scene = Scene::new(false, |config| config.forward_queue_bytes = 4096);
    let exactly = 4096 - 256;
    scene.asks(&vec![1; exactly + 1]);
    scene.asks(&vec![2; exactly]);
    scene.asks(b"");
    assert_eq!(scene.next().payload.len(), exactly);
    assert_eq!(scene.gateway().counters().forward_queue_full, 2);
    // Its end frees the datagrams that nobody took.
    scene.asks(b"x");
    let forwarder = scene.forwarder;
    scene.gateway().close(NOW, forwarder).unwrap();
    assert_eq!((scene.gateway().usage().udp_held, scene.gateway().usage().udp_sockets), (0, 0));
    scene.hosts.carry();
}

#[test]
fn the_memory_of_all_datagrams_bounds_those_of_forwarders_fwd_18() {
    let mut scene = Scene::new(false, |config| config.udp_mem = 4096);
    for _ in 0..2 {
        scene.asks(&[0; 2000]);
    }
    let counters = scene.gateway().counters();
    assert_eq!((counters.forward_datagrams, counters.udp_mem_errors, counters.forward_queue_full), (1, 1, 0));
    let packet = scene.next();
    let Scene { hosts, forwarder, .. } = &mut scene;
    assert_eq!(
        hosts.peer.send_datagram(*forwarder, &packet.answer(vec![0; 3841])),
        Err(Error::NoBufferSpace)
    );
    assert_eq!(hosts.peer.send_datagram(*forwarder, &packet.answer(vec![0; 3840])), Ok(()));
}

#[test]
fn what_waits_for_the_device_is_bounded_and_room_is_announced_fwd_18() {
    let mut scene = Scene::new(false, |config| config.forward_queue = 4);
    let answer = UdpPacket::new(scene.server, scene.guest_address(), &b"!"[..]);
    let Scene { hosts, forwarder, .. } = &mut scene;
    let (gateway, id) = (&mut hosts.peer, *forwarder);
    for _ in 0..4 {
        assert!(gateway.readiness(id).unwrap().writable);
        gateway.send_datagram(id, &answer).unwrap();
    }
    assert!(!gateway.readiness(id).unwrap().writable);
    assert_eq!(gateway.send_datagram(id, &answer), Err(Error::WouldBlock));
    assert_eq!((gateway.counters().udp_sndbuf_errors, gateway.poll_event()), (1, None));
    hosts.carry();
    assert_eq!(hosts.peer.poll_event(), Some((id, Event::WRITABLE)));
    // A datagram that was sent before its end still leaves.
    hosts.peer.send_datagram(id, &answer).unwrap();
    hosts.peer.close(NOW, id).unwrap();
    let before = hosts.crossed.len();
    hosts.carry();
    assert_eq!((hosts.crossed.len(), hosts.peer.usage().udp_sockets), (before + 1, 0));
}

#[test]
fn calls_of_a_forwarder_without_sense_are_refused_fwd_19() {
    let mut scene = Scene::new(false, |_| {});
    let (guest, server) = (scene.guest_address(), scene.server);
    let echoes = scene.gateway().forward_echo(ForwardRule::all()).unwrap();
    let (forwarder, gateway) = (scene.forwarder, &mut scene.hosts.peer);
    let answer = |source, destination| UdpPacket::new(source, destination, &b"!"[..]);
    let nonsense = [
        (at("198.51.100.7:0"), guest),
        (server, at("10.0.0.1:0")),
        (server, at("[fd00::1]:9")),
        (server, at("255.255.255.255:9")),
        (server, at("10.0.0.255:9")),
        (at("239.1.2.3:53"), guest),
        (at("0.0.0.0:53"), guest),
        (at("127.0.0.1:53"), guest),
        (server, at("127.0.0.1:53")),
    ];
    for (source, destination) in nonsense {
        let sent = gateway.send_datagram(forwarder, &answer(source, destination));
        assert_eq!(sent, Err(Error::InvalidArgument), "{source} to {destination}");
    }
    let mut dead = answer(server, guest);
    dead.ttl = 0;
    assert_eq!(gateway.send_datagram(forwarder, &dead), Err(Error::InvalidArgument));
    let long = |len| UdpPacket::new(server, guest, vec![0; len]);
    assert_eq!(gateway.send_datagram(forwarder, &long(65_508)), Err(Error::MessageTooLong));
    for (len, sent) in [(1472, Ok(())), (1473, Err(Error::MessageTooLong))] {
        let mut packet = long(len);
        packet.dont_fragment = true;
        assert_eq!(gateway.send_datagram(forwarder, &packet), sent, "{len} bytes");
    }
    // One sort of socket is not another.
    assert_eq!(gateway.next_echo(forwarder), Err(Error::InvalidArgument));
    assert_eq!(gateway.next_datagram(echoes), Err(Error::InvalidArgument));
    assert_eq!(gateway.send_datagram(echoes, &answer(server, guest)), Err(Error::InvalidArgument));
    assert_eq!(gateway.send_to(forwarder, b"x", Some(guest)), Err(Error::InvalidArgument));
    assert_eq!(gateway.recv_from(forwarder, &mut [0]), Err(Error::InvalidArgument));
    assert_eq!(gateway.local_addr(forwarder), Err(Error::InvalidArgument));
    assert_eq!(gateway.peer_addr(forwarder), Err(Error::NotConnected));
    scene.hosts.carry();
}

/// The sender and the kind of the ICMP error that crossed last, and the bytes that it quotes.
fn last_error(hosts: &Hosts) -> (IpAddr, IcmpError, Vec<u8>) {
    let (_, packet) = hosts.crossed.last().expect("a packet");
    let (from, to, message): (IpAddr, IpAddr, _) = if packet[0] >> 4 == 4 {
        let (header, message) = ipv4::parse(packet).unwrap();
        (header.source.into(), header.destination.into(), message)
    } else {
        let (header, message) = ipv6::parse(packet).unwrap();
        (header.source.into(), header.destination.into(), message)
    };
    let message = match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => icmp::parse_v6(from, to, message),
        _ => icmp::parse_v4(message),
    };
    match message {
        Some(Message::Error { kind, quoted }) => (from, kind, quoted.to_vec()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refusal_of_a_datagram_is_an_icmp_error_that_quotes_it_fwd_20() {
    both(|v6| {
        let mut scene = Scene::new(v6, limited);
        let (server, us) = (scene.server.ip(), ip(GATEWAYS[usize::from(v6)]));
        scene.hosts.ours.connect_udp(scene.guest, scene.server).unwrap();
        let prohibited = if v6 { Error::Prohibited } else { Error::HostUnreachable };
        let table = [
            (Reject::Reset, IcmpError::PortUnreachable, server, Some(Error::ConnectionRefused)),
            (Reject::PortUnreachable, IcmpError::PortUnreachable, server, Some(Error::ConnectionRefused)),
            (Reject::NetUnreachable, IcmpError::NetworkUnreachable, us, None),
            (Reject::HostUnreachable, IcmpError::HostUnreachable, us, None),
            (Reject::AdminProhibited, IcmpError::AdminProhibited, us, Some(prohibited)),
            (Reject::TimeExceeded, IcmpError::TimeExceeded, us, None),
        ];
        for (how, kind, from, seen) in table {
            scene.asks(&[7; 300]);
            let packet = scene.next();
            let (_, question) = scene.hosts.crossed.last().unwrap().clone();
            scene.gateway().reject_datagram(NOW, &packet, how).unwrap();
            scene.hosts.carry();
            let (sender, told, quoted) = last_error(&scene.hosts);
            assert_eq!((sender, told), (from, kind), "{how:?}");
            assert_eq!(quoted, question[..quoted.len()], "as it was sent");
            assert!(quoted.len() >= 28 + usize::from(v6) * 20, "{} bytes", quoted.len());
            assert_eq!(scene.hosts.ours.take_error(scene.guest), Ok(seen), "{how:?}");
        }
        assert_eq!(scene.gateway().counters().replied(ReplyReason::IcmpForward), 6);
        scene.asks(b"?");
        let (packet, before) = (scene.next(), scene.hosts.crossed.len());
        scene.gateway().reject_datagram(NOW, &packet, Reject::Silent).unwrap();
        scene.hosts.carry();
        assert_eq!(scene.hosts.crossed.len(), before);
    });
}

/// As the kernel of a gateway reports a router's error on the way beyond.
#[test]
fn an_icmp_error_comes_from_the_address_that_the_forwarder_names_fwd_20() {
    both(|v6| {
        let mut scene = Scene::new(v6, limited);
        let router = ip(if v6 { "2001:db8:1::9" } else { "203.0.113.9" });
        for kind in [IcmpError::TimeExceeded, IcmpError::PacketTooBig { mtu: 1400 }] {
            scene.asks(&[1; 1440]);
            let packet = scene.next();
            scene.gateway().send_icmp_error(NOW, &packet.quote(), kind, Some(router)).unwrap();
            scene.hosts.carry();
            let (sender, told, _) = last_error(&scene.hosts);
            assert_eq!((sender, told), (router, kind));
        }
        // The guest believes the path MTU: its next datagram leaves in two fragments.
        let before = scene.hosts.crossed.len();
        scene.asks(&[1; 1440]);
        assert_eq!(scene.hosts.crossed.len(), before + 2);
        assert_eq!(scene.next().payload, [1; 1440][..]);
    });
}

#[test]
fn errors_count_towards_the_limit_of_icmp_fwd_20() {
    let mut scene = Scene::new(false, |config| config.icmp_ratelimit = 40);
    scene.asks(b"?");
    let packet = scene.next();
    for _ in 0..20 {
        assert_eq!(scene.gateway().reject_datagram(NOW, &packet, Reject::Reset), Ok(()));
    }
    let counters = scene.gateway().counters();
    let sent = counters.icmp_out_msgs;
    assert!((1..=2).contains(&sent), "{sent}");
    assert_eq!(counters.dropped(DropReason::ReplyThrottled), 20 - sent);
    scene.hosts.carry();
}

#[test]
fn no_error_is_sent_about_what_must_not_draw_one_fwd_20() {
    both(|v6| {
        let mut scene = Scene::new(v6, limited);
        let (guest, server) = (ip(GUESTS[usize::from(v6)]), scene.server.ip());
        let gateway = scene.gateway();
        let mut send = |quoted: &[u8], kind, from| gateway.send_icmp_error(NOW, quoted, kind, from);
        let udp = |source: IpAddr, destination: IpAddr| {
            UdpPacket::new((source, 1).into(), (destination, 2).into(), &b"x"[..]).quote()
        };
        let plain = udp(guest, server);
        let kind = IcmpError::HostUnreachable;
        let error = Message::Error { kind, quoted: &plain };
        let reply = Message::EchoReply { ident: 1, sequence: 1, data: b"" };
        let (multicast, broadcast) =
            if v6 { ("ff02::1", "ff02::2") } else { ("224.0.0.1", "255.255.255.255") };
        let nobody = if v6 { "::" } else { "0.0.0.0" };
        let family = ip(GUESTS[usize::from(!v6)]);
        let bad = [
            (vec![], None),
            (vec![0x45; 7], None),
            (build::icmp(guest, server, &error).unwrap(), None),
            (udp(guest, ip(multicast)), None),
            (udp(guest, ip(broadcast)), None),
            (udp(ip(multicast), server), None),
            (udp(ip(nobody), server), None),
            (plain.clone(), Some(family)),
            (plain.clone(), Some(ip(multicast))),
            (plain.clone(), Some(ip(nobody))),
        ];
        for (quoted, from) in bad {
            assert_eq!(send(&quoted, kind, from), Err(Error::InvalidArgument), "{quoted:?} {from:?}");
        }
        for kind in [IcmpError::SourceQuench, IcmpError::OtherUnreachable] {
            assert_eq!(send(&plain, kind, None), Err(Error::InvalidArgument));
        }
        if !v6 {
            let mut later = plain.clone();
            later[7] = 9;
            assert_eq!(send(&later, kind, None), Err(Error::InvalidArgument));
        }
        assert_eq!(send(&build::icmp(guest, server, &reply).unwrap(), kind, None), Ok(()));
        assert_eq!(send(&plain, kind, None), Ok(()));
        scene.hosts.carry();
        assert_eq!(scene.hosts.crossed.len(), 2);
    });
}

/// The guest sends an echo request, which a raw packet is here. Returns the message that comes back.
fn ping(scene: &mut Scene, to: IpAddr, data: &[u8]) -> Option<Vec<u8>> {
    let guest = ip(GUESTS[usize::from(to.is_ipv6())]);
    let message = Message::EchoRequest { ident: 77, sequence: 9, data };
    let packet = build::icmp(guest, to, &message).unwrap();
    for piece in steadfast_testkit::packets::fragments(&packet, 5, 1400) {
        scene.gateway().receive(NOW, &piece[..]);
    }
    scene.hosts.carry();
    scene.hosts.crossed.last().map(|(_, packet)| packet.clone())
}

#[test]
fn an_echo_request_to_another_host_reaches_its_forwarder_and_is_answered_fwd_21() {
    both(|v6| {
        let mut scene = Scene::new(v6, |_| {});
        let (guest, server) = (ip(GUESTS[usize::from(v6)]), scene.server.ip());
        let echoes = scene.gateway().forward_echo(ForwardRule::all()).unwrap();
        assert_eq!(scene.gateway().forward_echo(ForwardRule::all()), Err(Error::AddrInUse));
        for len in [0, 8, 1472, 60_000] {
            let data = vec![3; len];
            scene.hosts.crossed.clear();
            assert_eq!(ping(&mut scene, server, &data), None, "nobody answers for it");
            let request = scene.gateway().next_echo(echoes).unwrap();
            assert_eq!((request.source, request.destination), (guest, server));
            assert_eq!((request.ident, request.sequence, request.ttl), (77, 9, 64));
            assert_eq!(request.data, data);
            scene.gateway().send_echo_reply(echoes, &request.reply()).unwrap();
            scene.hosts.carry();
            let pieces: usize = scene.hosts.crossed.iter().map(|(_, packet)| payload_len(packet)).sum();
            assert_eq!(pieces, len + icmp::HEADER_LEN, "of all fragments");
            if len <= 8 {
                let expected = Message::EchoReply { ident: 77, sequence: 9, data: &data };
                let expected = build::icmp(server, guest, &expected).unwrap();
                let (_, sent) = &scene.hosts.crossed[0];
                let header = if v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
                assert_eq!(sent[header..], expected[header..]);
            }
        }
        let counters = scene.gateway().counters();
        assert_eq!((counters.forward_echoes, counters.icmp_out_msgs), (4, 4));
        // The stack answers for itself.
        let us = ip(GATEWAYS[usize::from(v6)]);
        assert!(ping(&mut scene, us, b"x").is_some());
        assert_eq!(scene.gateway().next_echo(echoes), Err(Error::WouldBlock));
    });
}

fn payload_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 {
        ipv4::parse(packet).unwrap().1.len()
    } else {
        ipv6::parse(packet).unwrap().1.len()
    }
}

#[test]
fn a_refusal_of_an_echo_request_is_an_icmp_error_that_quotes_it_fwd_21() {
    both(|v6| {
        let mut scene = Scene::new(v6, limited);
        let (server, us) = (scene.server.ip(), ip(GATEWAYS[usize::from(v6)]));
        let echoes = scene.gateway().forward_echo(ForwardRule::all()).unwrap();
        for how in [Reject::Reset, Reject::PortUnreachable, Reject::HostUnreachable] {
            ping(&mut scene, server, &[9; 56]);
            let request = scene.gateway().next_echo(echoes).unwrap();
            scene.gateway().reject_echo(NOW, &request, how).unwrap();
            scene.hosts.carry();
            let (from, kind, quoted) = last_error(&scene.hosts);
            assert_eq!((from, kind), (us, IcmpError::HostUnreachable));
            let (protocol, message) = if v6 {
                let (header, message) = ipv6::parse_quoted(&quoted).unwrap();
                (header.protocol, message)
            } else {
                let (header, message) = ipv4::parse_quoted(&quoted).unwrap();
                (header.protocol, message)
            };
            assert_eq!(protocol, if v6 { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP });
            assert_eq!(message[4..8], [0, 77, 0, 9], "by which ping finds its request");
        }
        let request = Echo::new(ip(GUESTS[usize::from(v6)]), server, 1, 2, &b"x"[..]);
        assert_eq!(scene.gateway().reject_echo(NOW, &request, Reject::Silent), Ok(()));
        let mixed = Echo::new(server, ip(GUESTS[usize::from(!v6)]), 1, 2, &b"x"[..]);
        assert_eq!(scene.gateway().send_echo_reply(echoes, &mixed), Err(Error::InvalidArgument));
    });
}

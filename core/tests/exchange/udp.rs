//! UDP between two stacks: datagrams, ICMP errors, fragments, limits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use steadfast_core::config::PortRange;
use steadfast_core::counters::DropReason;
use steadfast_core::wire::icmp::{ErrorKind, Message};
use steadfast_core::wire::{PROTOCOL_ICMP, PROTOCOL_UDP, build, icmp, ipv4, ipv6, udp};
use steadfast_core::{Config, Error, Event, Instant, Interface, SocketId, Stack, UdpOptions};

pub(crate) const NOW: Instant = Instant::from_secs(1);
const MTU: usize = 1500;

pub(crate) struct Hosts {
    pub(crate) ours: Stack,
    pub(crate) peer: Stack,
    /// Packets that crossed, with their direction: true is towards the peer.
    pub(crate) crossed: Vec<(bool, Vec<u8>)>,
}

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn stack(number: u8, configure: impl Fn(&mut Config)) -> Stack {
    let mut config = Config { secret: [number; 32], ..Config::default() };
    configure(&mut config);
    let v4 = (IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)), 24);
    let v6 = (IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into())), 64);
    Stack::new(config, Interface::new(MTU as u16, [v4, v6]))
}

impl Hosts {
    pub(crate) fn new(configure: impl Fn(&mut Config)) -> Hosts {
        Hosts { ours: stack(1, &configure), peer: stack(2, &configure), crossed: Vec::new() }
    }

    /// Carries packets until both are silent.
    pub(crate) fn carry(&mut self) {
        let mut frame = [0; MTU];
        loop {
            if let Some(sent) = self.ours.transmit(NOW, &mut frame) {
                self.crossed.push((true, frame[..sent.len].to_vec()));
                self.peer.receive(NOW, &frame[..sent.len]);
            } else if let Some(sent) = self.peer.transmit(NOW, &mut frame) {
                self.crossed.push((false, frame[..sent.len].to_vec()));
                self.ours.receive(NOW, &frame[..sent.len]);
            } else {
                break;
            }
            assert_eq!((self.ours.check_consistent(), self.peer.check_consistent()), (Ok(()), Ok(())));
        }
    }
}

pub(crate) fn bind(stack: &mut Stack, local: &str) -> SocketId {
    let options = UdpOptions::new(stack.config());
    stack.bind_udp(at(local), options).unwrap()
}

fn with(stack: &Stack, change: impl FnOnce(&mut UdpOptions)) -> UdpOptions {
    UdpOptions::new(stack.config()).with(change)
}

/// Takes the next datagram: its payload and its sender.
pub(crate) fn take(stack: &mut Stack, id: SocketId) -> Result<(Vec<u8>, SocketAddr), Error> {
    let mut buffer = vec![0; 70_000];
    let received = stack.recv_from(id, &mut buffer)?;
    assert_eq!(received.len, received.full_len);
    buffer.truncate(received.len);
    Ok((buffer, received.from))
}

/// A packet from the peer's address 10.0.0.2 to ours.
fn packet(datagram: &[u8]) -> Vec<u8> {
    build::ipv4(&ipv4::Header::new([10, 0, 0, 2].into(), [10, 0, 0, 1].into(), PROTOCOL_UDP), datagram)
}

/// A datagram without a checksum.
pub(crate) fn datagram(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; udp::HEADER_LEN];
    udp::Header { source_port: from, destination_port: to, checksum: 0 }.emit(payload.len(), &mut bytes);
    bytes.extend(payload);
    bytes
}

#[test]
fn datagrams_go_there_and_back_over_both_versions() {
    for (ours, peer) in [("10.0.0.1:0", "10.0.0.2:53"), ("[fd00::1]:0", "[fd00::2]:53")] {
        let mut hosts = Hosts::new(|_| {});
        let (client, server) = (bind(&mut hosts.ours, ours), bind(&mut hosts.peer, peer));
        let local = hosts.ours.local_addr(client).unwrap();
        for question in [&b"first"[..], b"", &[7; 1400]] {
            hosts.ours.send_to(client, question, Some(at(peer))).unwrap();
            hosts.carry();
            assert_eq!(take(&mut hosts.peer, server), Ok((question.to_vec(), local)));
            hosts.peer.send_to(server, question, Some(local)).unwrap();
            hosts.carry();
            assert_eq!(take(&mut hosts.ours, client), Ok((question.to_vec(), at(peer))));
        }
        assert_eq!(take(&mut hosts.ours, client), Err(Error::WouldBlock));
        let counters = hosts.ours.counters();
        assert_eq!((counters.udp_out_datagrams, counters.udp_in_datagrams), (3, 3));
        assert_eq!(hosts.ours.poll_event(), Some((client, Event::READABLE)));
    }
}

#[test]
fn a_socket_on_all_addresses_of_both_families_answers_ipv4_as_mapped() {
    let mut hosts = Hosts::new(|_| {});
    let server = bind(&mut hosts.peer, "[::]:53");
    let client = bind(&mut hosts.ours, "10.0.0.1:4000");
    hosts.ours.send_to(client, b"?", Some(at("10.0.0.2:53"))).unwrap();
    hosts.carry();
    let (payload, from) = take(&mut hosts.peer, server).unwrap();
    assert_eq!((&payload[..], from), (&b"?"[..], at("[::ffff:10.0.0.1]:4000")));
    hosts.peer.send_to(server, b"!", Some(from)).unwrap();
    hosts.carry();
    assert_eq!(take(&mut hosts.ours, client), Ok((b"!".to_vec(), at("10.0.0.2:53"))));
}

#[test]
fn the_closest_binding_gets_a_datagram_and_no_two_share_one() {
    let mut hosts = Hosts::new(|_| {});
    let one = bind(&mut hosts.peer, "10.0.0.2:53");
    let all = bind(&mut hosts.peer, "0.0.0.0:53");
    let options = UdpOptions::new(hosts.peer.config());
    for taken in ["10.0.0.2:53", "0.0.0.0:53", "[::]:53"] {
        assert_eq!(hosts.peer.bind_udp(at(taken), options.clone()), Err(Error::AddrInUse), "{taken}");
    }
    let v6 = with(&hosts.peer, |o| o.only_v6 = true);
    let v6 = hosts.peer.bind_udp(at("[::]:53"), v6).unwrap();
    assert_eq!(hosts.peer.bind_udp(at("10.0.0.9:53"), options), Err(Error::AddrNotAvailable));
    let client = bind(&mut hosts.ours, "10.0.0.1:0");
    let client_v6 = bind(&mut hosts.ours, "[fd00::1]:0");
    hosts.ours.send_to(client, b"v4", Some(at("10.0.0.2:53"))).unwrap();
    hosts.ours.send_to(client_v6, b"v6", Some(at("[fd00::2]:53"))).unwrap();
    hosts.carry();
    assert_eq!(take(&mut hosts.peer, one).unwrap().0, b"v4");
    assert_eq!(take(&mut hosts.peer, v6).unwrap().0, b"v6");
    hosts.peer.close(NOW, one).unwrap();
    hosts.ours.send_to(client, b"now all", Some(at("10.0.0.2:53"))).unwrap();
    hosts.carry();
    assert_eq!(take(&mut hosts.peer, all).unwrap().0, b"now all");
}

#[test]
fn a_closed_port_is_reported_to_a_connected_socket_once_and_to_no_other() {
    for peer in ["10.0.0.2:9", "[fd00::2]:9"] {
        let mut hosts = Hosts::new(|_| {});
        let local = if peer.starts_with('[') { "[fd00::1]:0" } else { "10.0.0.1:0" };
        let (connected, other) = (bind(&mut hosts.ours, local), bind(&mut hosts.ours, local));
        hosts.ours.connect_udp(connected, at(peer)).unwrap();
        assert_eq!(hosts.ours.peer_addr(connected), Ok(at(peer)));
        hosts.ours.send_to(connected, b"?", None).unwrap();
        hosts.ours.send_to(other, b"?", Some(at(peer))).unwrap();
        hosts.carry();
        let counters = hosts.peer.counters();
        assert_eq!((counters.udp_no_ports, counters.dropped(DropReason::UdpNoPort)), (2, 2));
        let told = hosts.ours.poll_event().expect("an event");
        assert!(told.0 == connected && told.1.contains(Event::ERROR), "{told:?}");
        assert_eq!(hosts.ours.send_to(connected, b"?", None), Err(Error::ConnectionRefused));
        assert_eq!(take(&mut hosts.ours, connected), Err(Error::WouldBlock));
        assert_eq!(hosts.ours.poll_event(), None);
        assert_eq!(hosts.ours.counters().dropped(DropReason::IcmpUnmatched), 1);
    }
}

#[test]
fn a_connected_socket_hears_its_peer_alone() {
    let mut hosts = Hosts::new(|_| {});
    let client = bind(&mut hosts.ours, "10.0.0.1:4000");
    let (server, stranger) = (bind(&mut hosts.peer, "10.0.0.2:53"), bind(&mut hosts.peer, "10.0.0.2:54"));
    hosts.ours.connect_udp(client, at("10.0.0.2:53")).unwrap();
    for from in [server, stranger] {
        hosts.peer.send_to(from, b"!", Some(at("10.0.0.1:4000"))).unwrap();
    }
    hosts.carry();
    assert_eq!(take(&mut hosts.ours, client), Ok((b"!".to_vec(), at("10.0.0.2:53"))));
    assert_eq!(take(&mut hosts.ours, client), Err(Error::WouldBlock));
    assert_eq!(hosts.ours.counters().udp_no_ports, 1);
}

/// Binds a socket that shares its end with others.
fn bind_shared(stack: &mut Stack, local: &str) -> Result<SocketId, Error> {
    let options = with(stack, |options| options.reuse_port = true);
    stack.bind_udp(at(local), options)
}

#[test]
fn sockets_that_share_an_end_divide_the_senders_by_their_addresses_and_ports() {
    for (end, local) in [("10.0.0.2:53", "10.0.0.1"), ("[fd00::2]:53", "[fd00::1]")] {
        let mut hosts = Hosts::new(|_| {});
        let servers = [(); 3].map(|()| bind_shared(&mut hosts.peer, end).unwrap());
        let alone = UdpOptions::new(hosts.peer.config());
        assert_eq!(hosts.peer.bind_udp(at(end), alone), Err(Error::AddrInUse));
        let send = |hosts: &mut Hosts, ports: std::ops::Range<u16>| {
            for port in ports {
                let client = bind(&mut hosts.ours, &format!("{local}:{port}"));
                hosts.ours.send_to(client, b"?", Some(at(end))).unwrap();
                hosts.ours.close(NOW, client).unwrap();
            }
            hosts.carry();
            servers.map(|server| std::iter::from_fn(|| Some(take(&mut hosts.peer, server).ok()?.1)).collect())
        };
        let first: [Vec<SocketAddr>; 3] = send(&mut hosts, 1000..1300);
        let lens = first.each_ref().map(Vec::len);
        assert_eq!(lens.iter().sum::<usize>(), 300);
        assert!(lens.iter().all(|len| (70..130).contains(len)), "{lens:?}");
        assert_eq!(send(&mut hosts, 1000..1300), first, "a sender stays with its socket");

        hosts.peer.close(NOW, servers[0]).unwrap();
        let [none, second, third] = send(&mut hosts, 1000..1300);
        assert_eq!((none.len(), second.len() + third.len()), (0, 300), "the others have all senders");
    }
}

#[test]
fn of_sockets_that_share_an_end_one_hears_its_peer_and_the_errors_from_there() {
    let mut hosts = Hosts::new(|_| {});
    let free = bind_shared(&mut hosts.ours, "10.0.0.1:4000").unwrap();
    let of_peer = bind_shared(&mut hosts.ours, "10.0.0.1:4000").unwrap();
    hosts.ours.connect_udp(of_peer, at("10.0.0.2:53")).unwrap();
    let (peer, stranger) = (bind(&mut hosts.peer, "10.0.0.2:53"), bind(&mut hosts.peer, "10.0.0.2:54"));
    for from in [peer, stranger] {
        hosts.peer.send_to(from, b"!", Some(at("10.0.0.1:4000"))).unwrap();
    }
    hosts.carry();
    for (socket, from) in [(of_peer, "10.0.0.2:53"), (free, "10.0.0.2:54")] {
        assert_eq!(take(&mut hosts.ours, socket), Ok((b"!".to_vec(), at(from))));
        assert_eq!(take(&mut hosts.ours, socket), Err(Error::WouldBlock));
    }
    // Nobody listens there any more.
    hosts.peer.close(NOW, peer).unwrap();
    hosts.ours.send_to(of_peer, b"?", None).unwrap();
    hosts.carry();
    let errors = [free, of_peer].map(|socket| hosts.ours.take_error(socket));
    assert_eq!(errors, [Ok(None), Ok(Some(Error::ConnectionRefused))]);
    // The socket with that peer hears no other, and so nobody does.
    hosts.ours.close(NOW, free).unwrap();
    hosts.peer.send_to(stranger, b"!", Some(at("10.0.0.1:4000"))).unwrap();
    hosts.carry();
    assert_eq!(take(&mut hosts.ours, of_peer), Err(Error::WouldBlock));
    assert_eq!(hosts.ours.counters().udp_no_ports, 1);
}

#[test]
fn port_0_is_a_free_port_also_for_a_socket_that_shares() {
    let range = PortRange::new(4000, 4001).unwrap();
    let mut stack = stack(1, |config| config.ip_local_port_range = range);
    let mut bind = |local| bind_shared(&mut stack, local);
    let (first, second) = (bind("10.0.0.1:0").unwrap(), bind("10.0.0.1:0").unwrap());
    assert_eq!(bind("10.0.0.1:0"), Err(Error::AddrNotAvailable));
    bind("10.0.0.1:4000").unwrap();
    assert_ne!(stack.local_addr(first), stack.local_addr(second));
    // The way of sharing is that of the beginning.
    let options = UdpOptions::new(stack.config());
    stack.set_udp_options(first, options).unwrap();
    assert!(stack.udp_options(first).unwrap().reuse_port);
}

#[test]
fn calls_without_sense_are_refused() {
    let mut hosts = Hosts::new(|_| {});
    let v4 = bind(&mut hosts.ours, "10.0.0.1:0");
    let tcp = hosts.ours.listen(at("10.0.0.1:80"), Default::default()).unwrap();
    let stack = &mut hosts.ours;
    assert_eq!(stack.send_to(v4, b"", None), Err(Error::DestinationAddressRequired));
    for nobody in ["10.0.0.2:0", "0.0.0.0:5", "224.0.0.1:0", "[ff02::1]:5", "[fd00::2]:5"] {
        assert_eq!(stack.send_to(v4, b"", Some(at(nobody))), Err(Error::InvalidArgument), "{nobody}");
    }
    for nobody in ["10.0.0.2:0", "0.0.0.0:5", "224.0.0.1:5", "[fd00::2]:5"] {
        assert_eq!(stack.connect_udp(v4, at(nobody)), Err(Error::InvalidArgument), "{nobody}");
    }
    assert_eq!(stack.send_to(tcp, b"", Some(at("10.0.0.2:5"))), Err(Error::InvalidArgument));
    assert_eq!(stack.recv_from(tcp, &mut []), Err(Error::InvalidArgument));
    assert_eq!(stack.send(v4, b"x"), Err(Error::InvalidArgument));
    assert_eq!(stack.recv(v4, &mut [0]), Err(Error::InvalidArgument));
    assert_eq!(stack.peer_addr(v4), Err(Error::NotConnected));
    stack.close(NOW, v4).unwrap();
    assert_eq!(stack.send_to(v4, b"", None), Err(Error::NoSuchSocket));
}

#[test]
fn a_checksum_is_checked_and_may_be_left_out_over_ipv4_alone() {
    let mut hosts = Hosts::new(|_| {});
    let socket = bind(&mut hosts.ours, "[::]:5");
    hosts.ours.receive(NOW, &packet(&datagram(6, 5, b"none"))[..]);
    assert_eq!(take(&mut hosts.ours, socket).unwrap().0, b"none");
    let header = ipv6::Header::new("fd00::2".parse().unwrap(), "fd00::1".parse().unwrap(), PROTOCOL_UDP);
    let mut v6 = vec![0; ipv6::HEADER_LEN];
    let bytes = datagram(6, 5, b"none");
    header.emit(bytes.len(), &mut v6);
    v6.extend(bytes);
    hosts.ours.receive(NOW, &v6[..]);
    let mut wrong = datagram(6, 5, b"wrong");
    wrong[udp::CHECKSUM_AT] ^= 0x55;
    hosts.ours.receive(NOW, &packet(&wrong)[..]);
    assert_eq!(take(&mut hosts.ours, socket), Err(Error::WouldBlock));
    let counters = hosts.ours.counters();
    assert_eq!((counters.udp_in_csum_errors, counters.dropped(DropReason::UdpChecksum)), (2, 2));
    // Ours are right, also where the sum comes to zero.
    let (client, server) = (bind(&mut hosts.ours, "10.0.0.1:7"), bind(&mut hosts.peer, "10.0.0.2:7"));
    for word in 0..=u16::MAX {
        hosts.ours.send_to(client, &word.to_be_bytes(), Some(at("10.0.0.2:7"))).unwrap();
        let mut frame = [0; MTU];
        let sent = hosts.ours.transmit(NOW, &mut frame).unwrap();
        assert_ne!(frame[ipv4::HEADER_LEN + udp::CHECKSUM_AT..][..2], [0, 0]);
        hosts.peer.receive(NOW, &frame[..sent.len]);
        assert_eq!(take(&mut hosts.peer, server).unwrap().0, word.to_be_bytes());
    }
}

#[test]
fn a_length_that_lies_is_refused() {
    let mut hosts = Hosts::new(|_| {});
    let socket = bind(&mut hosts.ours, "10.0.0.1:5");
    for (len, taken) in [(7, None), (8, Some(&b""[..])), (10, Some(b"ab")), (11, None)] {
        let mut bytes = datagram(6, 5, b"ab");
        bytes[5] = len;
        hosts.ours.receive(NOW, &packet(&bytes)[..]);
        let got = take(&mut hosts.ours, socket).ok().map(|(payload, _)| payload);
        assert_eq!(got.as_deref(), taken, "{len}");
    }
    hosts.ours.receive(NOW, &packet(&[0; 7])[..]);
    assert_eq!(hosts.ours.counters().dropped(DropReason::UdpHeader), 3);
}

#[test]
fn long_datagrams_travel_in_fragments_both_ways() {
    for (ours, peer, most) in [("10.0.0.1:5", "10.0.0.2:5", 65_507), ("[fd00::1]:5", "[fd00::2]:5", 65_527)] {
        let mut hosts = Hosts::new(|_| {});
        let (client, server) = (bind(&mut hosts.ours, ours), bind(&mut hosts.peer, peer));
        let header_len = if most == 65_507 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let whole = MTU - header_len - udp::HEADER_LEN;
        for len in [whole, whole + 1, 5000, most] {
            let payload: Vec<u8> = (0..len).map(|n| (n * 7 / 3) as u8).collect();
            hosts.crossed.clear();
            hosts.ours.send_to(client, &payload, Some(at(peer))).unwrap();
            hosts.carry();
            assert_eq!(take(&mut hosts.peer, server), Ok((payload.clone(), at(ours))), "{len}");
            assert_eq!(hosts.crossed.len() > 1, len > whole);
            let longest = hosts.crossed.iter().map(|(_, packet)| packet.len()).max().unwrap();
            assert!(longest <= MTU && (len <= whole || longest > MTU - 8), "{longest}");
            hosts.peer.send_to(server, &payload, Some(at(ours))).unwrap();
            hosts.carry();
            assert_eq!(take(&mut hosts.ours, client), Ok((payload, at(peer))), "{len}");
        }
        assert_eq!(hosts.ours.counters().reasm_oks, 3);
        let too_long = vec![0; most + 1];
        assert_eq!(hosts.ours.send_to(client, &too_long, Some(at(peer))), Err(Error::MessageTooLong));
    }
}

/// A router's report that a packet of `length` bytes of UDP from port 5 to port `to` exceeds `mtu`.
fn too_big(to: u16, length: u16, mtu: u32) -> Vec<u8> {
    let mut quoted = datagram(5, to, &[]);
    quoted[4..6].copy_from_slice(&length.to_be_bytes());
    let header = ipv4::Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), PROTOCOL_UDP);
    let quoted = build::ipv4(&header, &quoted);
    let message = Message::Error { kind: ErrorKind::PacketTooBig { mtu }, quoted: &quoted };
    let mut bytes = vec![0; message.emitted_len()];
    icmp::emit_v4(&message, &mut bytes).unwrap();
    build::ipv4(&ipv4::Header::new([10, 0, 0, 254].into(), [10, 0, 0, 1].into(), PROTOCOL_ICMP), &bytes)
}

#[test]
fn a_smaller_path_mtu_is_believed_of_a_datagram_that_was_sent_and_is_too_long() {
    let mut hosts = Hosts::new(|_| {});
    let strict = with(&hosts.ours, |o| o.dont_fragment = true);
    let socket = hosts.ours.bind_udp(at("10.0.0.1:5"), strict).unwrap();
    let to = Some(at("10.0.0.2:9"));
    assert_eq!(hosts.ours.send_to(socket, &[0; 1473], to), Err(Error::MessageTooLong));
    for forged in [too_big(9, 1480, 1200), too_big(8, 1480, 1200)] {
        hosts.ours.receive(NOW, &forged[..]);
    }
    hosts.ours.send_to(socket, &[0; 1472], to).unwrap();
    for forged in [too_big(8, 1480, 1200), too_big(9, 1180, 1200)] {
        hosts.ours.receive(NOW, &forged[..]);
        hosts.ours.send_to(socket, &[0; 1472], to).expect("the path MTU is what it was");
    }
    hosts.ours.receive(NOW, &too_big(9, 1181, 1200)[..]);
    assert_eq!(hosts.ours.send_to(socket, &[0; 1173], to), Err(Error::MessageTooLong));
    hosts.ours.send_to(socket, &[0; 1172], to).unwrap();
    // Another socket sends longer ones in fragments that fit.
    hosts.carry();
    hosts.crossed.clear();
    let other = bind(&mut hosts.ours, "10.0.0.1:6");
    hosts.ours.send_to(other, &[0; 1473], to).unwrap();
    hosts.carry();
    let lengths: Vec<_> =
        hosts.crossed.iter().filter(|(ours, _)| *ours).map(|(_, packet)| packet.len()).collect();
    assert_eq!(lengths, [1196, 325], "1,176 bytes are the most of eight that fit");
}

#[test]
fn a_full_receive_buffer_drops_and_is_counted() {
    let mut hosts = Hosts::new(|config| config.udp_rcvbuf = 12 * (100 + UdpOptions::OVERHEAD as u32));
    let (client, server) = (bind(&mut hosts.ours, "10.0.0.1:5"), bind(&mut hosts.peer, "10.0.0.2:5"));
    for number in 0..13 {
        hosts.ours.send_to(client, &[number; 100], Some(at("10.0.0.2:5"))).unwrap();
    }
    hosts.carry();
    assert_eq!(hosts.peer.counters().udp_rcvbuf_errors, 1);
    assert_eq!(hosts.peer.usage().udp_held, 12 * 356);
    for number in 0..12 {
        assert_eq!(take(&mut hosts.peer, server).unwrap().0, [number; 100]);
    }
    assert_eq!(take(&mut hosts.peer, server), Err(Error::WouldBlock));
    assert_eq!(hosts.peer.usage().udp_held, 0);
}

#[test]
fn a_full_send_buffer_refuses_and_tells_when_there_is_room() {
    let mut hosts = Hosts::new(|config| config.udp_sndbuf = 4096);
    let client = bind(&mut hosts.ours, "10.0.0.1:5");
    let to = Some(at("10.0.0.2:5"));
    let most = 4096 / (1000 + UdpOptions::OVERHEAD);
    for _ in 0..most {
        hosts.ours.send_to(client, &[0; 1000], to).unwrap();
    }
    assert_eq!(hosts.ours.send_to(client, &[0; 1000], to), Err(Error::WouldBlock));
    assert_eq!(hosts.ours.counters().udp_sndbuf_errors, 1);
    assert_eq!(hosts.ours.poll_event(), None);
    hosts.carry();
    assert_eq!(hosts.ours.poll_event(), Some((client, Event::WRITABLE)));
    hosts.ours.send_to(client, &[0; 60_000], to).expect("one of any length fits into an empty buffer");
    assert_eq!(hosts.ours.send_to(client, &[], to), Err(Error::WouldBlock));
}

#[test]
fn the_memory_of_all_datagrams_has_a_limit() {
    const ALL: u64 = 10 * (1000 + UdpOptions::OVERHEAD as u64);
    let mut hosts = Hosts::new(|config| config.udp_mem = ALL);
    let server = bind(&mut hosts.ours, "10.0.0.1:5");
    let bytes = datagram(6, 5, &[0; 1000]);
    for _ in 0..20 {
        hosts.ours.receive(NOW, &packet(&bytes)[..]);
    }
    assert_eq!((hosts.ours.usage().udp_held, hosts.ours.counters().udp_mem_errors), (ALL, 10));
    assert_eq!(hosts.ours.send_to(server, b"", Some(at("10.0.0.2:6"))), Err(Error::NoBufferSpace));
    take(&mut hosts.ours, server).unwrap();
    hosts.ours.send_to(server, b"", Some(at("10.0.0.2:6"))).unwrap();
    hosts.carry();
    hosts.ours.close(NOW, server).unwrap();
    assert_eq!((hosts.ours.usage().udp_held, hosts.ours.usage().udp_sockets), (0, 0));
}

#[test]
fn sockets_have_a_limit() {
    let mut stack = stack(1, |config| config.udp_max_sockets = 2);
    let ids = [bind(&mut stack, "10.0.0.1:0"), bind(&mut stack, "10.0.0.1:0")];
    let options = UdpOptions::new(stack.config());
    assert_eq!(stack.bind_udp(at("10.0.0.1:0"), options.clone()), Err(Error::NoBufferSpace));
    stack.close(NOW, ids[0]).unwrap();
    stack.bind_udp(at("10.0.0.1:0"), options).unwrap();
}

#[test]
fn what_was_sent_before_a_close_still_leaves_and_the_port_is_free() {
    let mut hosts = Hosts::new(|_| {});
    let (client, server) = (bind(&mut hosts.ours, "10.0.0.1:5"), bind(&mut hosts.peer, "10.0.0.2:5"));
    hosts.ours.send_to(client, &[1; 3000], Some(at("10.0.0.2:5"))).unwrap();
    hosts.ours.close(NOW, client).unwrap();
    let next = bind(&mut hosts.ours, "10.0.0.1:5");
    hosts.carry();
    assert_eq!(take(&mut hosts.peer, server).unwrap().0, [1; 3000]);
    assert_eq!(hosts.ours.usage().udp_sockets, 1);
    hosts.ours.close(NOW, next).unwrap();
    assert_eq!(hosts.ours.usage().udp_sockets, 0);
}

#[test]
fn sockets_send_in_turn_and_beside_tcp() {
    let mut hosts = Hosts::new(|_| {});
    let (one, two) = (bind(&mut hosts.ours, "10.0.0.1:1"), bind(&mut hosts.ours, "10.0.0.1:2"));
    for _ in 0..3 {
        for socket in [one, one, two] {
            hosts.ours.send_to(socket, b"x", Some(at("10.0.0.2:5"))).unwrap();
        }
    }
    hosts.ours.connect(NOW, at("10.0.0.2:80"), Default::default()).unwrap();
    let mut frame = [0; MTU];
    let mut order = Vec::new();
    while let Some(sent) = hosts.ours.transmit(NOW, &mut frame) {
        let (header, payload) = ipv4::parse(&frame[..sent.len]).unwrap();
        let is_udp = header.protocol == PROTOCOL_UDP;
        order.push(if is_udp { udp::parse(payload).unwrap().0.source_port } else { 0 });
    }
    assert_eq!(order.iter().filter(|port| **port == 0).count(), 1);
    assert!(order.iter().position(|port| *port == 0) < Some(2), "the SYN waits for no queue: {order:?}");
    order.retain(|port| *port > 0);
    assert_eq!(order, [1, 2, 1, 2, 1, 2, 1, 1, 1]);
}

#[test]
fn a_chosen_port_tells_nothing_about_the_next() {
    let mut stack = stack(1, |config| config.udp_max_sockets = 1000);
    let ports: Vec<_> = (0..1000)
        .map(|_| {
            let id = bind(&mut stack, "0.0.0.0:0");
            stack.local_addr(id).unwrap().port()
        })
        .collect();
    let range = stack.config().ip_local_port_range;
    assert!(ports.iter().all(|port| range.contains(*port)));
    let mut steps: Vec<_> = ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    steps.sort_unstable();
    steps.dedup();
    assert!(steps.len() > 950, "{} different steps", steps.len());
}

/// The error quotes the first fragment, which has the ports.
#[test]
fn a_closed_port_is_reported_of_a_datagram_in_fragments_too() {
    for (ours, peer) in [("10.0.0.1:0", "10.0.0.2:53"), ("[fd00::1]:0", "[fd00::2]:53")] {
        let mut hosts = Hosts::new(|_| {});
        let client = bind(&mut hosts.ours, ours);
        hosts.ours.connect_udp(client, at(peer)).unwrap();
        hosts.ours.send_to(client, &[1; 9000], None).unwrap();
        hosts.carry();
        assert_eq!(hosts.ours.take_error(client), Ok(Some(Error::ConnectionRefused)), "{peer}");
    }
}

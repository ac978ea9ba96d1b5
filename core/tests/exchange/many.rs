//! Datagrams for many: broadcast and multicast.

use std::net::{IpAddr, SocketAddr};

use steadfast_core::counters::DropReason;
use steadfast_core::wire::ipv4;
use steadfast_core::wire::tcp::{Flags, Header};
use steadfast_core::{
    Config, Error, Event, Instant, Interface, InterfaceId, ListenOptions, Packet, PacketBytes, SocketId,
    Stack, UdpOptions,
};
use steadfast_testkit::packets;

const NOW: Instant = Instant::from_secs(1);
const GROUP: &str = "239.1.2.3";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A host with two interfaces: 10.0.0.`number` and 10.1.0.`number`.
fn host(number: u8) -> (Stack, InterfaceId) {
    let config = Config { secret: [number; 32], ..Config::default() };
    let addresses = |net: u8| {
        let v4 = ip(&format!("10.{net}.0.{number}"));
        [(v4, 24), (ip(&format!("fd0{net}::{number}")), 64), (ip(&format!("fe80::{net}:{number}")), 64)]
    };
    let mut stack = Stack::new(config, Interface::new(1500, addresses(0)));
    let second = stack.add_interface(Interface::new(1500, addresses(1))).unwrap();
    (stack, second)
}

fn bind(stack: &mut Stack, local: &str, change: impl FnOnce(&mut UdpOptions)) -> SocketId {
    let options = UdpOptions::new(stack.config()).with(change);
    stack.bind_udp(at(local), options).unwrap()
}

/// Carries what a stack sends to another one, over links of the same number. Returns the packets with their interfaces.
fn carry(from: &mut Stack, to: &mut Stack) -> Vec<(InterfaceId, Vec<u8>)> {
    let (mut frame, mut carried) = ([0; 1500], Vec::new());
    while let Some(sent) = from.transmit(NOW, &mut frame) {
        let packet = &frame[..sent.len];
        to.receive(NOW, Packet::new(PacketBytes::Borrowed(packet), false).on(sent.interface));
        carried.push((sent.interface, packet.to_vec()));
    }
    assert_eq!((from.check_consistent(), to.check_consistent()), (Ok(()), Ok(())));
    carried
}

/// Takes the payloads that wait.
fn heard(stack: &mut Stack, id: SocketId) -> Vec<Vec<u8>> {
    let mut buffer = [0; 100];
    std::iter::from_fn(|| {
        stack.recv_from(id, &mut buffer).ok().map(|received| buffer[..received.len].to_vec())
    })
    .collect()
}

#[test]
fn a_socket_hears_the_groups_that_it_joined_on_their_interfaces_1112_1() {
    let ((mut ours, second), (mut peer, _)) = (host(1), host(2));
    let sender = bind(&mut ours, "0.0.0.0:0", |_| ());
    let member = bind(&mut peer, "0.0.0.0:5353", |_| ());
    let stranger = bind(&mut peer, "10.0.0.2:5353", |_| ());
    for (group, joined, interface, hears) in [
        (GROUP, None, None, false),
        (GROUP, Some(InterfaceId::FIRST), None, true),
        (GROUP, Some(InterfaceId::FIRST), Some(second), false),
        (GROUP, Some(second), Some(second), true),
        ("239.1.2.4", None, None, false),
    ] {
        if let Some(joined) = joined {
            peer.join_multicast(member, ip(group), Some(joined)).unwrap();
        }
        let options =
            ours.udp_options(sender).unwrap().clone().with(|options| options.multicast_if = interface);
        ours.set_udp_options(sender, options).unwrap();
        ours.send_to(sender, b"who?", Some(SocketAddr::new(ip(group), 5353))).unwrap();
        let carried = carry(&mut ours, &mut peer);
        assert_eq!(carried.len(), 1);
        let (header, _) = ipv4::parse(&carried[0].1).unwrap();
        let source = if interface.is_some() { "10.1.0.1" } else { "10.0.0.1" };
        assert_eq!((IpAddr::from(header.source), header.ttl), (ip(source), 1), "MUST-44");
        assert_eq!(carried[0].0, interface.unwrap_or(InterfaceId::FIRST));
        assert_eq!(heard(&mut peer, member).len(), usize::from(hears), "{group} {joined:?} {interface:?}");
        assert_eq!(carry(&mut peer, &mut ours), [], "nobody answers");
        if let Some(joined) = joined.filter(|_| hears) {
            peer.leave_multicast(member, ip(group), Some(joined)).unwrap();
        }
    }
    assert_eq!(heard(&mut peer, stranger).len(), 0);
}

#[test]
fn all_sockets_that_share_an_end_hear_a_datagram_for_many() {
    let ((mut ours, _), (mut peer, _)) = (host(1), host(2));
    let sender = bind(&mut ours, "0.0.0.0:0", |options| options.broadcast = true);
    let members = [(); 3].map(|()| bind(&mut peer, "0.0.0.0:5353", |options| options.reuse_port = true));
    members[..2].iter().for_each(|id| peer.join_multicast(*id, ip(GROUP), None).unwrap());
    for (to, hear) in [(GROUP, [1, 1, 0]), ("10.0.0.255", [1, 1, 1])] {
        ours.send_to(sender, b"who?", Some(SocketAddr::new(ip(to), 5353))).unwrap();
        carry(&mut ours, &mut peer);
        assert_eq!(members.map(|id| heard(&mut peer, id).len()), hear, "{to}");
    }
}

#[test]
fn an_ipv6_group_of_the_link_is_spoken_to_from_a_link_local_address_1112_1() {
    let ((mut ours, second), (mut peer, _)) = (host(1), host(2));
    let sender = bind(&mut ours, "[::]:0", |_| ());
    let member = bind(&mut peer, "[::]:5353", |_| ());
    for (group, interface, source) in [
        ("ff02::fb", InterfaceId::FIRST, "fe80::0:1"),
        ("ff02::fb", second, "fe80::1:1"),
        ("ff05::fb", second, "fd01::1"),
    ] {
        peer.join_multicast(member, ip(group), Some(interface)).unwrap();
        ours.send_to(sender, b"who?", Some(at(&format!("[{group}%{}]:5353", interface.index())))).unwrap();
        carry(&mut ours, &mut peer);
        let received = peer.recv_from(member, &mut [0; 10]).unwrap();
        let shown = (received.from.ip(), received.to, received.interface);
        assert_eq!(shown, (ip(source), ip(group), interface));
        // The answer goes back by the link from which the question came.
        peer.send_to(member, b"me", Some(received.from)).unwrap();
        assert_eq!(carry(&mut peer, &mut ours)[0].0, interface);
        assert_eq!(heard(&mut ours, sender), [b"me"]);
    }
}

#[test]
fn a_multicast_datagram_loops_to_members_unless_it_may_not_and_ttl_0_stays_inside_1112_1() {
    let ((mut ours, _), (mut peer, _)) = (host(1), host(2));
    let group = SocketAddr::new(ip(GROUP), 7);
    for (multicast_loop, multicast_ttl, inside) in [(true, 1, 1), (false, 1, 0), (true, 0, 1), (false, 0, 0)]
    {
        let id = bind(&mut ours, "0.0.0.0:7", |options| {
            (options.multicast_loop, options.multicast_ttl) = (multicast_loop, multicast_ttl);
        });
        ours.join_multicast(id, ip(GROUP), None).unwrap();
        ours.send_to(id, b"hi", Some(group)).unwrap();
        if inside == 1 {
            let mut events = std::iter::from_fn(|| ours.poll_event());
            assert!(events.any(|(which, event)| which == id && event.contains(Event::READABLE)));
        }
        assert_eq!(heard(&mut ours, id).len(), inside);
        assert_eq!(carry(&mut ours, &mut peer).len(), usize::from(multicast_ttl > 0));
        ours.close(NOW, id).unwrap();
    }
}

#[test]
fn a_broadcast_needs_permission_and_reaches_every_socket_on_its_port_1122_8() {
    let ((mut ours, _), (mut peer, _)) = (host(1), host(2));
    let all = bind(&mut peer, "0.0.0.0:67", |_| ());
    for (to, interface) in [("10.0.0.255:67", 1), ("10.1.0.255:67", 2), ("255.255.255.255:67", 1)] {
        let id = bind(&mut ours, "0.0.0.0:68", |_| ());
        assert_eq!(ours.send_to(id, b"?", Some(at(to))), Err(Error::Prohibited), "EACCES");
        assert_eq!(ours.connect_udp(id, at(to)), Err(Error::InvalidArgument));
        ours.close(NOW, id).unwrap();
        let id = bind(&mut ours, "0.0.0.0:68", |options| options.broadcast = true);
        assert_eq!(ours.send_to(id, b"?", Some(at(to))), Ok(()));
        let carried = carry(&mut ours, &mut peer);
        assert_eq!(carried.iter().map(|(by, _)| by.index()).collect::<Vec<_>>(), [interface], "{to}");
        assert_eq!(heard(&mut peer, all), [b"?"], "{to}");
        ours.close(NOW, id).unwrap();
    }
    peer.close(NOW, all).unwrap();
}

/// Neither a port unreachable nor a reset nor an echo: many would answer at once.
#[test]
fn a_packet_for_many_draws_no_answer_must_57_1122_8() {
    let ((mut ours, _), (mut peer, _)) = (host(1), host(2));
    let member = bind(&mut ours, "0.0.0.0:9", |_| ());
    ours.join_multicast(member, ip(GROUP), None).unwrap();
    ours.listen(at("0.0.0.0:80"), ListenOptions::default()).unwrap();
    let sender = bind(&mut peer, "0.0.0.0:0", |options| options.broadcast = true);
    for to in [GROUP, "10.0.0.255", "255.255.255.255"] {
        peer.send_to(sender, b"?", Some(SocketAddr::new(ip(to), 10))).unwrap();
        assert_eq!(carry(&mut peer, &mut ours).len(), 1);
        let header = Header { flags: Flags::SYN, window: 1000, ..Header::default() };
        let syn = packets::segment(at("10.0.0.2:99"), SocketAddr::new(ip(to), 80), header, &[]);
        let bad = ours.counters().dropped(DropReason::BadDestination);
        for packet in [syn, packets::ip(ip("10.0.0.2"), ip(to), 1, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])] {
            ours.receive(NOW, &packet[..]);
        }
        assert_eq!(ours.counters().dropped(DropReason::BadDestination), bad + 2);
        assert_eq!(carry(&mut ours, &mut peer), []);
    }
    assert_eq!(ours.counters().udp_no_ports, 3);
}

/// Both sides of `igmp_max_memberships`, and every way to fail.
#[test]
fn memberships_are_limited_and_end_with_their_socket_1112_1() {
    let (mut stack, second) = host(1);
    let mut config = stack.config().clone();
    config.igmp_max_memberships = 2;
    stack.set_config(config);
    let id = bind(&mut stack, "0.0.0.0:7", |_| ());
    let group = |n: u8| ip(&format!("239.0.0.{n}"));
    let mut join = |group, interface| stack.join_multicast(id, group, interface);
    assert_eq!(join(ip("10.0.0.2"), None), Err(Error::InvalidArgument));
    assert_eq!(join(ip("ff02::1"), None), Err(Error::InvalidArgument));
    assert_eq!(join(group(1), Some(InterfaceId::from_index(9))), Err(Error::InvalidArgument));
    assert_eq!(join(group(1), None), Ok(()));
    assert_eq!(join(group(1), Some(InterfaceId::FIRST)), Err(Error::AddrInUse));
    assert_eq!(join(group(1), Some(second)), Ok(()));
    assert_eq!(join(group(2), None), Err(Error::NoBufferSpace));
    assert_eq!(stack.leave_multicast(id, group(2), None), Err(Error::AddrNotAvailable));
    assert_eq!(stack.leave_multicast(id, group(1), Some(second)), Ok(()));
    assert_eq!(stack.join_multicast(id, group(2), None), Ok(()));
    assert_eq!(
        stack.multicast_groups(id).unwrap(),
        [group(1), group(2)].map(|group| (group, InterfaceId::FIRST))
    );
    assert_eq!(stack.check_consistent(), Ok(()));
    stack.close(NOW, id).unwrap();
    assert_eq!(stack.check_consistent(), Ok(()));
}

/// As the sender of a datagram that it receives.
#[test]
fn a_socket_for_both_families_shows_its_ipv4_peer_as_an_ipv6_address() {
    let (mut stack, _) = host(1);
    let id = bind(&mut stack, "[::]:7", |_| ());
    stack.connect_udp(id, at("10.0.0.2:7")).unwrap();
    assert_eq!(stack.peer_addr(id), Ok(at("[::ffff:10.0.0.2]:7")));
    stack.connect_udp(id, at("[fd00::2]:7")).unwrap();
    assert_eq!(stack.peer_addr(id), Ok(at("[fd00::2]:7")));
    let v4 = bind(&mut stack, "0.0.0.0:8", |_| ());
    stack.connect_udp(v4, at("10.0.0.2:7")).unwrap();
    assert_eq!(stack.peer_addr(v4), Ok(at("10.0.0.2:7")));
}

/// A group is no address of a host, so a packet cannot come from there.
#[test]
fn a_socket_at_a_group_sends_from_an_address_of_its_host() {
    let ((mut ours, _), (mut peer, _)) = (host(1), host(2));
    let member = bind(&mut ours, &format!("{GROUP}:55"), |_| ());
    let listener = bind(&mut peer, "10.0.0.2:53", |_| ());
    ours.send_to(member, b"x", Some(at("10.0.0.2:53"))).unwrap();
    carry(&mut ours, &mut peer);
    assert_eq!(peer.recv_from(listener, &mut [0]).unwrap().from, at("10.0.0.1:55"));
}

//! A network of several devices: routes, interfaces that come and go, and turns that are fair.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::task::{Context, Poll};
use std::time::Duration;

use steadfast::device::memory::{MemoryDevice, pair};
use steadfast::device::{Capabilities, Device, Frame, Received};
use steadfast::{Config, InterfaceId, Net, Route, TcpListener, TcpStream, UdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::pattern;

const LAN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const WAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LAN_PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const WAN_PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const LIMIT: Duration = Duration::from_secs(30);

/// A network on two devices, and a network at the other end of each.
struct Links {
    host: Net,
    wan: InterfaceId,
    lan_peer: Net,
    wan_peer: Net,
}

fn start(address: Ipv4Addr, device: MemoryDevice) -> Net {
    Net::builder().address(address, 24).start(device).unwrap()
}

impl Links {
    fn new() -> Links {
        let ((lan, lan_peer), (wan, wan_peer)) = (pair(1500), pair(1400));
        let host = start(LAN, lan);
        let wan = host.add_interface(wan, [(WAN.into(), 24)]).unwrap();
        Links { host, wan, lan_peer: start(LAN_PEER, lan_peer), wan_peer: start(WAN_PEER, wan_peer) }
    }
}

/// Carries data from a client to a listener at `address`.
async fn carry(client: &Net, server: &Net, address: Ipv4Addr, data: &[u8]) {
    let listener = TcpListener::bind(server, (address, 0)).await.unwrap();
    let local = listener.local_addr().unwrap();
    let send = async {
        let mut stream = TcpStream::connect(client, local).await.unwrap();
        stream.write_all(data).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let receive = async {
        let mut received = Vec::new();
        listener.accept().await.unwrap().0.read_to_end(&mut received).await.unwrap();
        received
    };
    let (_, received) = timeout(LIMIT, async { tokio::join!(send, receive) }).await.unwrap();
    assert!(received == data);
}

#[tokio::test(start_paused = true)]
async fn a_network_speaks_through_two_devices_at_once() {
    let links = Links::new();
    let data = pattern(1_000_000);
    tokio::join!(
        carry(&links.host, &links.lan_peer, LAN_PEER, &data),
        carry(&links.host, &links.wan_peer, WAN_PEER, &data),
        carry(&links.lan_peer, &links.host, LAN, &data),
        carry(&links.wan_peer, &links.host, WAN, &data),
    );
    links.host.check_consistent().unwrap();
    let listed = links.host.interfaces();
    let listed: Vec<_> = listed.iter().map(|(id, i)| (*id, i.mtu, i.addresses[0].0)).collect();
    assert_eq!(listed, [(InterfaceId::FIRST, 1500, LAN.into()), (links.wan, 1400, WAN.into())]);
    links.host.close(LIMIT).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_network_starts_on_several_devices_with_a_gateway() {
    let ((lan, lan_peer), (wan, router)) = (pair(1500), pair(1400));
    let builder = Net::builder().address(LAN, 24).interface(wan, [(WAN.into(), 24)]).gateway(WAN_PEER);
    let host = builder.start(lan).unwrap();
    let lan_peer = start(LAN_PEER, lan_peer);
    let remote = Ipv4Addr::new(198, 51, 100, 1);
    let router = Net::builder().address(WAN_PEER, 24).address(remote, 32).start(router).unwrap();
    let data = pattern(100_000);
    carry(&host, &lan_peer, LAN_PEER, &data).await;
    carry(&host, &router, remote, &data).await;
    carry(&router, &host, WAN, &data).await;
    let wan = InterfaceId::from_index(2);
    assert_eq!(host.route_to(remote), Some(Route::new([0, 0, 0, 0].into(), 0, wan).via(WAN_PEER.into())));
}

#[tokio::test]
async fn a_builder_says_which_interface_or_gateway_is_wrong() {
    let lan = || Net::builder().address(LAN, 24);
    let device = || pair(1500).0;
    let full = lan().config(Config { interface_max: 2, ..Config::default() });
    let full = full.interface(device(), [(WAN.into(), 24)]).interface(device(), [([10, 1, 0, 1].into(), 24)]);
    for (builder, kind, text) in [
        (
            lan().interface(device(), [(LAN.into(), 24)]),
            ErrorKind::AddrInUse,
            "an interface with 10.0.0.1/24: Address already in use (os error 98)",
        ),
        (
            lan().interface(device(), [(WAN.into(), 33)]),
            ErrorKind::InvalidInput,
            "192.0.2.1/33: expected a prefix of at most 32",
        ),
        (
            lan().interface(pair(1000).0, [([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), 64)]),
            ErrorKind::InvalidInput,
            "fd00::1 needs an MTU of at least 1280, the device has 1000",
        ),
        (
            lan().gateway(WAN_PEER),
            ErrorKind::InvalidInput,
            "gateway 192.0.2.2: expected an address in the network of an interface",
        ),
    ] {
        let error = builder.start(device()).unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (kind, text));
    }
    let error = full.start(device()).unwrap_err();
    assert_eq!(error.to_string(), "an interface with 10.1.0.1/24: No buffer space available (os error 105)");
    let queues = lan().interface(device(), [(WAN.into(), 24)]).start_queues(vec![device(), device()]);
    assert_eq!(queues.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_datagram_tells_its_interface() {
    let links = Links::new();
    let socket = UdpSocket::bind(&links.host, "0.0.0.0:53").await.unwrap();
    for (peer, address, id) in [(&links.lan_peer, LAN, InterfaceId::FIRST), (&links.wan_peer, WAN, links.wan)]
    {
        let client = UdpSocket::bind(peer, "0.0.0.0:0").await.unwrap();
        client.send_to(b"?", (address, 53)).await.unwrap();
        let received = timeout(LIMIT, socket.recv_msg(&mut [0; 10])).await.unwrap().unwrap();
        assert_eq!((received.interface, received.to), (id, IpAddr::from(address)));
        socket.send_to(b"!", received.from).await.unwrap();
        assert_eq!(timeout(LIMIT, client.recv(&mut [0; 10])).await.unwrap().unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn groups_and_broadcasts_have_the_calls_of_tokio_1112_1_1122_8() {
    let links = Links::new();
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let member = UdpSocket::bind(&links.lan_peer, "0.0.0.0:5353").await.unwrap();
    let sender = UdpSocket::bind(&links.host, "0.0.0.0:0").await.unwrap();
    let hears = async || timeout(Duration::from_secs(1), member.recv(&mut [0; 10])).await.is_ok();
    sender.send_to(b"?", (group, 5353)).await.unwrap();
    assert!(!hears().await);
    let elsewhere = member.join_multicast_v4(group, WAN).unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::AddrNotAvailable);
    member.join_multicast_v4(group, LAN_PEER).unwrap();
    assert_eq!(member.join_multicast_v4(group, LAN_PEER).unwrap_err().kind(), ErrorKind::AddrInUse);
    sender.send_to(b"?", (group, 5353)).await.unwrap();
    assert!(hears().await);
    member.leave_multicast_v4(group, LAN_PEER).unwrap();
    sender.send_to(b"?", (group, 5353)).await.unwrap();
    assert!(!hears().await);

    let all = ("10.0.0.255", 5353);
    assert_eq!(sender.send_to(b"?", all).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    sender.set_broadcast(true).unwrap();
    sender.send_to(b"?", all).await.unwrap();
    assert!(sender.broadcast().unwrap() && hears().await);

    assert_eq!((sender.multicast_ttl_v4().unwrap(), sender.multicast_loop_v4().unwrap()), (1, true));
    assert_eq!(sender.set_multicast_ttl_v4(256).unwrap_err().kind(), ErrorKind::InvalidInput);
    sender.set_multicast_ttl_v4(8).unwrap();
    sender.set_multicast_loop_v4(false).unwrap();
    assert_eq!((sender.multicast_ttl_v4().unwrap(), sender.multicast_loop_v4().unwrap()), (8, false));
}

/// The connection lives on: its packets are lost meanwhile, as on Linux.
#[tokio::test(start_paused = true)]
async fn a_connection_outlives_its_interface_1122_7() {
    let links = Links::new();
    let listener = TcpListener::bind(&links.wan_peer, (WAN_PEER, 7)).await.unwrap();
    let (mut ours, accepted) =
        tokio::try_join!(TcpStream::connect(&links.host, (WAN_PEER, 7)), listener.accept()).unwrap();
    let mut theirs = accepted.0;
    links.host.remove_interface(links.wan).unwrap();
    assert_eq!(links.host.remove_interface(links.wan).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(links.host.remove_interface(InterfaceId::FIRST).unwrap_err().kind(), ErrorKind::InvalidInput);
    // The default route leads to the LAN now, where nobody answers.
    ours.write_all(b"hello").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    // The driver has dropped the device, which the other end of the wire notices.
    let gone = timeout(LIMIT, theirs.read(&mut [0; 10])).await.unwrap();
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::NetworkDown);

    // Another device brings the address back.
    let (wan, wan_peer) = pair(1400);
    let other = start(WAN_PEER, wan_peer);
    links.host.add_interface(wan, [(WAN.into(), 24)]).unwrap();
    let reset = timeout(Duration::from_secs(300), ours.read(&mut [0; 10])).await.unwrap();
    assert_eq!(reset.unwrap_err().kind(), ErrorKind::ConnectionReset, "the new peer does not know it");
    carry(&links.host, &other, WAN_PEER, &pattern(10_000)).await;
}

#[tokio::test(start_paused = true)]
async fn routes_and_addresses_come_and_go() {
    let links = Links::new();
    let far = Ipv4Addr::new(198, 51, 100, 7);
    links.wan_peer.add_address(far, 24);
    let route = Route::new([198, 51, 100, 0].into(), 24, links.wan).via(WAN_PEER.into());
    links.host.add_route(route).unwrap();
    assert_eq!(links.host.route_to(far), Some(route));
    carry(&links.host, &links.wan_peer, far, &pattern(10_000)).await;
    assert!(links.host.routes().contains(&route) && links.host.remove_route(&route));
    assert!(!links.host.remove_route(&route) && links.host.route_to(far).unwrap().prefix_len == 0);

    let second = Ipv4Addr::new(192, 0, 2, 9);
    links.host.add_address_to(links.wan, second, 24).unwrap();
    carry(&links.wan_peer, &links.host, second, &pattern(10_000)).await;
    assert_eq!(
        links.host.add_address_to(InterfaceId::FIRST, second, 24).unwrap_err().kind(),
        ErrorKind::AddrInUse
    );
    assert!(links.host.remove_address(second) && !links.host.remove_address(second));
    let defaults: Vec<_> = links.host.routes().into_iter().filter(|route| route.prefix_len == 0).collect();
    assert!(defaults.iter().all(|route| links.host.remove_route(route)));
    let error = TcpStream::connect(&links.host, (far, 7)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
    carry(&links.host, &links.wan_peer, WAN_PEER, &pattern(10_000)).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_network_cannot_have_is_refused() {
    let links = Links::new();
    let add = |mtu, address: IpAddr, len| links.host.add_interface(pair(mtu).0, [(address, len)]);
    assert_eq!(add(1500, LAN.into(), 24).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(add(1500, [10, 1, 0, 1].into(), 33).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(add(1279, "fd00::1".parse().unwrap(), 64).unwrap_err().kind(), ErrorKind::InvalidInput);
    let queues = Net::builder().address(LAN, 24).start_queues(vec![pair(1500).0, pair(1500).0]).unwrap();
    let error = queues.add_interface(pair(1500).0, []).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    links.host.close(Duration::ZERO).await.unwrap();
    assert_eq!(add(1500, [10, 1, 0, 1].into(), 24).unwrap_err().kind(), ErrorKind::NetworkDown);
}

/// A device that fails after its first packet, and one that never takes any.
enum Bad {
    Fails,
    IsFull,
}

impl Device for Bad {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(1500)
    }

    fn poll_recv(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<Received>> {
        Poll::Pending
    }

    fn poll_send(&mut self, _: &mut Context<'_>, _: Frame<'_>) -> Poll<io::Result<()>> {
        match self {
            Bad::Fails => Poll::Ready(Err(ErrorKind::NetworkDown.into())),
            Bad::IsFull => Poll::Pending,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_fails_takes_its_interface_along_and_nothing_else() {
    let links = Links::new();
    let bad = links.host.add_interface(Bad::Fails, [([172, 16, 0, 1].into(), 16)]).unwrap();
    let connect = TcpStream::connect(&links.host, "172.16.0.2:7");
    assert!(timeout(Duration::from_secs(1), connect).await.is_err(), "nobody answers");
    assert!(links.host.interfaces().iter().all(|(id, _)| *id != bad));
    carry(&links.host, &links.wan_peer, WAN_PEER, &pattern(10_000)).await;
}

/// Both sides of `txqueuelen`: more than that does not wait for a device that is full, and the other devices work on.
#[tokio::test(start_paused = true)]
async fn a_device_that_is_full_keeps_the_others_from_nothing() {
    let ((lan, lan_peer), config) = (pair(1500), Config { txqueuelen: 100, ..Config::default() });
    let host = Net::builder().config(config).address(LAN, 24).start(lan).unwrap();
    let lan_peer = start(LAN_PEER, lan_peer);
    host.add_interface(Bad::IsFull, [([172, 16, 0, 1].into(), 16)]).unwrap();
    let socket = UdpSocket::bind(&host, "0.0.0.0:0").await.unwrap();
    for sent in 1..=110 {
        socket.send_to(b"lost", "172.16.0.2:7").await.unwrap();
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        // The drops of one turn are counted in the next.
        let dropped = host.counters().tx_dropped;
        assert!(if sent <= 100 { dropped == 0 } else { dropped + 101 >= sent }, "{dropped} of {sent}");
    }
    carry(&host, &lan_peer, LAN_PEER, &pattern(1_000_000)).await;
    assert_eq!(host.counters().tx_dropped, 10);
}

/// An endless flood on one device does not shut the other one out, whichever of them is the first.
#[tokio::test(start_paused = true)]
async fn a_flood_on_one_device_leaves_the_other_its_turns() {
    struct Flood;
    impl Device for Flood {
        fn capabilities(&self) -> Capabilities {
            Capabilities::new(1500)
        }
        fn poll_recv(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
            buffer[..40].fill(0);
            Poll::Ready(Ok(Received::new(40)))
        }
        fn poll_send(&mut self, _: &mut Context<'_>, _: Frame<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    for flood_first in [true, false] {
        let (near, far) = pair(1500);
        let flooded = [172, 16, 0, 1].into();
        let host = if flood_first {
            let host = Net::builder().address(flooded, 16).start(Flood).unwrap();
            host.add_interface(near, [(LAN.into(), 24)]).unwrap();
            host
        } else {
            let host = start(LAN, near);
            host.add_interface(Flood, [(flooded, 16)]).unwrap();
            host
        };
        let peer = start(LAN_PEER, far);
        carry(&host, &peer, LAN_PEER, &pattern(100_000)).await;
        carry(&peer, &host, LAN, &pattern(100_000)).await;
        let counters = host.counters();
        assert!(counters.in_hdr_errors > counters.in_segs, "{counters:?}");
    }
}

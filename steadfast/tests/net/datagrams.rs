//! Forwarders of UDP and of echo requests.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use steadfast::{Config, EchoForwarder, ForwardRule, Reject, UdpForwarder, UdpPacket, UdpSocket};
use tokio::time::timeout;

use crate::{CLIENT, Pair, SERVER};

/// A port of no host here.
const FOREIGN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), 53);

async fn socket(pair: &Pair) -> UdpSocket {
    UdpSocket::bind(&pair.client, (CLIENT, 0)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn datagrams_to_others_are_taken_and_answered_fwd_17() {
    let pair = Pair::new();
    let forwarder = UdpForwarder::bind(&pair.server, ForwardRule::all()).unwrap();
    assert_eq!(forwarder.try_recv().unwrap_err().kind(), ErrorKind::WouldBlock);
    let client = socket(&pair).await;
    client.connect(FOREIGN).await.unwrap();
    let data = crate::pattern(65_507);
    for len in [1, 1473, 65_507] {
        let (sent, packet) = tokio::join!(client.send(&data[..len]), forwarder.recv());
        assert_eq!(sent.unwrap(), len);
        let packet = packet.unwrap();
        assert_eq!((packet.source, packet.destination), (client.local_addr().unwrap(), FOREIGN));
        forwarder.try_send(&packet.answer(packet.payload.clone())).unwrap();
        let mut buffer = vec![0; 70_000];
        let got = client.recv(&mut buffer).await.unwrap();
        assert!(buffer[..got] == data[..len], "{got} of {len}");
    }
    let sent = client.send(b"?").await;
    let packet = poll_fn(|cx| forwarder.poll_recv(cx)).await.unwrap();
    forwarder.reject(&packet, Reject::Reset).unwrap();
    assert_eq!(
        (sent.unwrap(), client.recv(&mut [0]).await.unwrap_err().kind()),
        (1, ErrorKind::ConnectionRefused)
    );
    let mixed =
        forwarder.send_error(&packet, steadfast::IcmpError::HostUnreachable, Some("::1".parse().unwrap()));
    assert_eq!(mixed.unwrap_err().kind(), ErrorKind::InvalidInput);
    pair.server.check_consistent().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_receive_that_is_given_up_loses_nothing_fwd_17() {
    let pair = Pair::new();
    let forwarder = UdpForwarder::bind(&pair.server, ForwardRule::all()).unwrap();
    let client = socket(&pair).await;
    for number in 0..20u8 {
        client.send_to(&[number], FOREIGN).await.unwrap();
        let packet = loop {
            if let Ok(packet) = timeout(Duration::from_micros(1), forwarder.recv()).await {
                break packet.unwrap();
            }
        };
        assert_eq!(packet.payload[..], [number]);
    }
}

/// A sender that waits is told of room.
#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_room_is_announced_fwd_18() {
    let pair = Pair::with(Config { forward_queue: 4, ..Config::default() });
    let forwarder = UdpForwarder::bind(&pair.server, ForwardRule::all()).unwrap();
    let client = socket(&pair).await;
    let packet = UdpPacket::new(FOREIGN, client.local_addr().unwrap(), &b"x"[..]);
    let mut sent = 0;
    while forwarder.try_send(&packet).map_err(|error| assert_eq!(error.kind(), ErrorKind::WouldBlock)).is_ok()
    {
        sent += 1;
    }
    assert_eq!(sent, 4);
    forwarder.writable().await.unwrap();
    forwarder.try_send(&packet).unwrap();
    for _ in 0..5 {
        client.recv(&mut [0]).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn forwarders_end_with_their_network_fwd_17() {
    let pair = Pair::new();
    let forwarder = UdpForwarder::bind(&pair.server, ForwardRule::all()).unwrap();
    let echoes = EchoForwarder::bind(&pair.server, ForwardRule::all()).unwrap();
    assert!(echoes.try_recv().is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    echoes.writable().await.unwrap();
    let again = UdpForwarder::bind(&pair.server, ForwardRule::all());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    let bad = EchoForwarder::bind(&pair.server, ForwardRule::to(SERVER.into(), 33));
    assert_eq!(bad.unwrap_err().kind(), ErrorKind::InvalidInput);
    let net = pair.server.clone();
    let (closed, received, echo) =
        tokio::join!(net.close(Duration::from_secs(5)), forwarder.recv(), echoes.recv());
    closed.unwrap();
    assert_eq!(received.unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(echo.unwrap_err().kind(), ErrorKind::NetworkDown);
    let packet = UdpPacket::new(FOREIGN, (CLIENT, 9).into(), &b"x"[..]);
    assert_eq!(forwarder.try_send(&packet).unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(forwarder.reject(&packet, Reject::Reset).unwrap_err().kind(), ErrorKind::NetworkDown);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_forwarder_leaves_nothing_and_its_rule_is_free_fwd_17() {
    let pair = Pair::new();
    let client = socket(&pair).await;
    for _ in 0..3 {
        let forwarder = UdpForwarder::bind(&pair.server, ForwardRule::all()).unwrap();
        client.send_to(b"nobody takes it", FOREIGN).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(forwarder);
        let usage = pair.server.usage();
        assert_eq!((usage.sockets, usage.udp_sockets, usage.udp_held), (0, 0, 0));
    }
}

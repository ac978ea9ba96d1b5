//! Connections to addresses of the network itself, and dual-stack listeners.

use std::io::ErrorKind;
use std::net::Ipv6Addr;
use std::task::{Context, Poll};
use std::time::Duration;

use steadfast::device::{Capabilities, Device, Frame, Received};
use steadfast::{ListenOptions, Net, TcpListener, TcpStream, device};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::{CLIENT, CLIENT_6, Pair, SERVER, SERVER_6, at, pattern};

/// A device into which nothing may be sent.
struct Untouched;

impl Device for Untouched {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(1500)
    }

    fn poll_recv(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<std::io::Result<Received>> {
        Poll::Pending
    }

    fn poll_send(&mut self, _: &mut Context<'_>, frame: Frame<'_>) -> Poll<std::io::Result<()>> {
        panic!("sent: {:?}", frame.bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_to_an_own_address_stays_inside_on_one_queue_and_on_several() {
    for queues in [1, 4] {
        let devices = (0..queues).map(|_| Untouched).collect();
        let builder = Net::builder().address(SERVER, 24).address(SERVER_6, 64);
        let builder = builder.address([127, 0, 0, 1], 8).address(Ipv6Addr::LOCALHOST, 128);
        let net = builder.start_queues(devices).unwrap();
        for to in [at(SERVER, 7), at(SERVER_6, 7), at([127, 9, 9, 9], 7), at(Ipv6Addr::LOCALHOST, 7)] {
            let listener = TcpListener::bind(&net, to).await.unwrap();
            let data = pattern(1_000_000);
            let sent = data.clone();
            let echo = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.unwrap();
                to.shutdown().await.unwrap();
            });
            let (mut from, mut to) = TcpStream::connect(&net, to).await.unwrap().into_split();
            let writer = tokio::spawn(async move { to.write_all(&sent).await.unwrap() });
            let mut received = Vec::new();
            let read = timeout(Duration::from_secs(60), from.read_to_end(&mut received)).await;
            read.unwrap().unwrap();
            assert!(received == data);
            writer.await.unwrap();
            echo.await.unwrap();
        }
        assert_eq!(net.counters().retrans_segs, 0);
        net.close(Duration::from_secs(1)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_leads_nowhere_connects_to_itself() {
    let builder = Net::builder().address([127, 0, 0, 1], 8).address(Ipv6Addr::LOCALHOST, 128);
    let net = builder.start(device::memory::loopback()).unwrap();
    for text in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(&net, text).await.unwrap();
        let to = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(&net, to), listener.accept());
        let (mut near, (mut far, _)) = (near.unwrap(), far.unwrap());
        near.write_all(b"hold fast").await.unwrap();
        drop(near);
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hold fast");
    }
    // Another host is not there.
    assert_eq!(
        TcpStream::connect(&net, "10.9.0.1:7").await.unwrap_err().kind(),
        ErrorKind::NetworkUnreachable
    );
}

#[tokio::test(start_paused = true)]
async fn a_listener_of_both_families_shows_ipv4_clients_as_linux_does() {
    let pair = Pair::new();
    let listener = TcpListener::bind(&pair.server, (Ipv6Addr::UNSPECIFIED, 80)).await.unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(&pair.client, (SERVER, 80)), listener.accept());
    let (client, (server, peer)) = (client.unwrap(), accepted.unwrap());
    let port = client.local_addr().unwrap().port();
    assert_eq!(peer, at(CLIENT.to_ipv6_mapped(), port));
    assert_eq!(server.peer_addr().unwrap(), peer);
    assert_eq!(server.local_addr().unwrap(), at(SERVER.to_ipv6_mapped(), 80));
    assert_eq!(client.peer_addr().unwrap(), at(SERVER, 80));
    let (client, accepted) =
        tokio::join!(TcpStream::connect(&pair.client, (SERVER_6, 80)), listener.accept());
    assert_eq!((client.is_ok(), accepted.unwrap().1.ip()), (true, CLIENT_6.into()));
    let error = TcpListener::bind(&pair.server, at([0; 4], 80)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[tokio::test(start_paused = true)]
async fn a_listener_of_ipv6_alone_leaves_ipv4_to_another_one() {
    let pair = Pair::new();
    let options = ListenOptions { only_v6: true, ..ListenOptions::default() };
    let all_6 = (Ipv6Addr::UNSPECIFIED, 80);
    let _listener = TcpListener::bind_with(&pair.server, all_6, options).await.unwrap();
    let error = TcpStream::connect(&pair.client, (SERVER, 80)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let listener = TcpListener::bind(&pair.server, at([0; 4], 80)).await.unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(&pair.client, (SERVER, 80)), listener.accept());
    assert_eq!((client.is_ok(), accepted.unwrap().1.ip()), (true, CLIENT.into()));
}

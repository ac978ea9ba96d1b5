use std::io::ErrorKind;
use std::time::Duration;

use steadfast::{Config, ConnectOptions, Net, TcpListener, TcpStream, device};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::{CLIENT, CLIENT_6, Pair, SERVER, SERVER_6, at};

#[tokio::test(start_paused = true)]
async fn both_ends_know_both_addresses() {
    let pair = Pair::new();
    let listener = pair.listen(7).await;
    assert_eq!(listener.local_addr().unwrap(), at(SERVER, 7));
    let (client, accepted) = tokio::join!(pair.connect(7), listener.accept());
    let (client, (server, peer)) = (client.unwrap(), accepted.unwrap());
    assert_eq!(peer.ip(), CLIENT);
    assert_eq!(client.local_addr().unwrap(), peer);
    assert_eq!(client.peer_addr().unwrap(), at(SERVER, 7));
    assert_eq!(server.peer_addr().unwrap(), peer);
    assert_eq!(server.local_addr().unwrap(), at(SERVER, 7));
}

#[tokio::test(start_paused = true)]
async fn an_unspecified_address_takes_connections_of_its_family_ipv6_too() {
    let pair = Pair::new();
    let listener = TcpListener::bind(&pair.server, at([0; 16], 80)).await.unwrap();
    let connect = TcpStream::connect(&pair.client, at(SERVER_6, 80));
    let (client, accepted) = tokio::join!(connect, listener.accept());
    assert_eq!(accepted.unwrap().1.ip(), CLIENT_6);
    assert_eq!(client.unwrap().peer_addr().unwrap(), at(SERVER_6, 80));
}

#[tokio::test(start_paused = true)]
async fn a_closed_port_refuses_at_once_with_the_posix_error() {
    let pair = Pair::new();
    let before = tokio::time::Instant::now();
    let error = pair.connect(81).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    if cfg!(target_os = "linux") {
        assert_eq!(error.raw_os_error(), Some(111));
    }
    assert!(before.elapsed() < Duration::from_millis(100));
    assert_eq!(pair.client.usage().sockets, 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_never_answers_times_out() {
    let pair = Pair::new();
    let error = TcpStream::connect(&pair.client, ([10, 9, 0, 77], 7)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn an_address_can_be_bound_once_and_is_free_when_the_listener_is_dropped() {
    let pair = Pair::new();
    let listener = pair.listen(7).await;
    let error = TcpListener::bind(&pair.server, (SERVER, 7)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(listener);
    pair.listen(7).await;
    let error = TcpListener::bind(&pair.server, ([10, 9, 0, 99], 7)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_accepted_is_reset_when_its_listener_is_dropped() {
    let pair = Pair::new();
    let listener = pair.listen(7).await;
    let mut client = pair.connect(7).await.unwrap();
    // The client's ACK may still be on its way. The stack has received it once it acknowledges this byte.
    client.write_all(b"?").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(listener);
    let error = client.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_full_backlog_makes_the_next_connection_wait_until_one_is_accepted() {
    let pair = Pair::new();
    let listener = pair.listen_with_backlog(7, 2).await;
    let _first = pair.connect(7).await.unwrap();
    let _second = pair.connect(7).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let queued =
        || pair.server.sockets().iter().find(|s| s.local.port() == 7 && s.send_q == 2).map(|s| s.recv_q);
    assert_eq!(queued(), Some(2));

    let client = pair.client.clone();
    let third = tokio::spawn(async move {
        let mut third = TcpStream::connect(&client, (SERVER, 7)).await.unwrap();
        third.write_all(b"third").await.unwrap();
        third
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(queued(), Some(2), "the third is not taken in while two wait");
    for _ in 0..2 {
        listener.accept().await.unwrap();
    }
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut word = [0; 5];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"third");
    third.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_accept_that_is_given_up_loses_no_connection() {
    let pair = Pair::new();
    let listener = pair.listen(7).await;
    for _ in 0..3 {
        timeout(Duration::from_millis(1), listener.accept()).await.unwrap_err();
    }
    let client = pair.connect(7).await.unwrap();
    let (_stream, peer) = listener.accept().await.unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_is_given_up_leaves_nothing_behind() {
    let pair = Pair::new();
    let nobody = ([10, 9, 0, 77], 7);
    timeout(Duration::from_secs(3), TcpStream::connect(&pair.client, nobody)).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let usage = pair.client.usage();
    assert_eq!((usage.sockets, usage.opening, usage.connections), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn several_tasks_may_accept_from_one_listener() {
    let pair = Pair::new();
    let listener = std::sync::Arc::new(pair.listen(7).await);
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let listener = listener.clone();
            tokio::spawn(async move { listener.accept().await.unwrap().1 })
        })
        .collect();
    tokio::task::yield_now().await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(pair.connect(7).await.unwrap());
    }
    let mut accepted = Vec::new();
    for task in tasks {
        accepted.push(timeout(Duration::from_secs(10), task).await.unwrap().unwrap());
    }
    let mut local: Vec<_> = clients.iter().map(|c| c.local_addr().unwrap()).collect();
    accepted.sort();
    local.sort();
    assert_eq!(accepted, local);
}

#[tokio::test(start_paused = true)]
async fn a_connect_can_choose_its_own_end() {
    let pair = Pair::new();
    let _listener = pair.listen(7).await;
    let options = ConnectOptions::from_local(at(CLIENT, 4242));
    let stream = TcpStream::connect_with(&pair.client, (SERVER, 7), options.clone()).await.unwrap();
    assert_eq!(stream.local_addr().unwrap(), at(CLIENT, 4242));
    let error = TcpStream::connect_with(&pair.client, (SERVER, 7), options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}

#[tokio::test]
async fn a_network_that_cannot_work_does_not_start() {
    let start = |builder: steadfast::NetBuilder, mtu| {
        let (device, _other) = device::memory::pair(mtu);
        builder.start(device).map(drop).map_err(|e| (e.kind(), e.to_string()))
    };
    let kind = ErrorKind::InvalidInput;
    assert_eq!(start(Net::builder(), 1500), Err((kind, "a network needs at least one address".into())));
    assert_eq!(
        start(Net::builder().address(SERVER_6, 64), 1279),
        Err((kind, "fd09::2 needs an MTU of at least 1280, the device has 1279".into()))
    );
    assert_eq!(start(Net::builder().address(SERVER_6, 64), 1280), Ok(()));
    assert_eq!(
        start(Net::builder().address(SERVER, 33), 1500),
        Err((kind, "10.9.0.2/33: expected a prefix of at most 32".into()))
    );
    assert_eq!(start(Net::builder().address(SERVER, 32), 68), Ok(()));
    let config = Config { tcp_reordering: 0, ..Config::default() };
    assert_eq!(
        start(Net::builder().config(config).address(SERVER, 24), 1500),
        Err((kind, "tcp_reordering: `0`: expected a number from 1 to 127".into()))
    );
}

/// Whoever found the accept queue full is called when there is room, not when a timer fires.
#[tokio::test(start_paused = true)]
async fn who_waits_for_room_in_the_accept_queue_is_called_by_the_next_accept() {
    let pair = Pair::new();
    let listener = pair.listen_with_backlog(7, 1).await;
    let (first, second) = tokio::join!(pair.connect(7), pair.connect(7));
    let streams = [first.unwrap(), second.unwrap()];
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = tokio::time::Instant::now();
    for _ in &streams {
        listener.accept().await.unwrap();
    }
    assert!(before.elapsed() < Duration::from_millis(50), "{:?}", before.elapsed());
}

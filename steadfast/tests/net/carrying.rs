use std::time::Duration;

use sha2::{Digest, Sha256};
use steadfast::stack::trace::State;
use steadfast::{CongestionControl, TcpKeepalive, TcpSocket, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::{Pair, SERVER, pattern};

#[tokio::test(start_paused = true)]
async fn what_is_echoed_is_what_was_sent() {
    let pair = Pair::new();
    let (client, mut server) = pair.streams().await;
    let echo = tokio::spawn(async move {
        let (mut from, mut to) = server.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let data = pattern(300_000);
    let (mut from, mut to) = client.into_split();
    let sent = data.clone();
    let sender = tokio::spawn(async move { to.write_all(&sent).await.unwrap() });
    let mut received = Vec::new();
    from.read_to_end(&mut received).await.unwrap();
    assert!(received == data);
    sender.await.unwrap();
    echo.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_arrive_with_the_same_hash() {
    const BLOCKS: usize = 1600;
    let pair = Pair::new();
    let (mut client, mut server) = pair.streams().await;
    let sender = tokio::spawn(async move {
        let mut hash = Sha256::new();
        for i in 0..BLOCKS {
            let block: Vec<u8> = pattern(65_536).iter().map(|b| b ^ i as u8).collect();
            hash.update(&block);
            server.write_all(&block).await.unwrap();
        }
        server.shutdown().await.unwrap();
        hash.finalize()
    });
    let (mut hash, mut total) = (Sha256::new(), 0);
    let mut buffer = vec![0; 100_000];
    loop {
        let len = client.read(&mut buffer).await.unwrap();
        if len == 0 {
            break;
        }
        hash.update(&buffer[..len]);
        total += len;
    }
    assert_eq!(total, BLOCKS * 65_536);
    assert_eq!(hash.finalize(), sender.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_connections_at_once_carry_their_own_bytes() {
    let pair = Pair::new();
    let listener = pair.listen(7).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.unwrap();
                to.shutdown().await.unwrap();
            });
        }
    });
    let clients: Vec<_> = (0..500_usize)
        .map(|i| {
            let net = pair.client.clone();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(&net, (SERVER, 7)).await.unwrap();
                let data = pattern(10_000 + i).split_off(i);
                stream.write_all(&data).await.unwrap();
                stream.shutdown().await.unwrap();
                let mut received = Vec::new();
                stream.read_to_end(&mut received).await.unwrap();
                assert!(received == data, "connection {i}");
            })
        })
        .collect();
    for client in clients {
        timeout(Duration::from_secs(60), client).await.expect("no wake-up is lost").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_for_a_slow_reader_and_is_woken_by_it() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.streams().await;
    let data = pattern(16 << 20);
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        server.write_all(&sent).await.unwrap();
        server.shutdown().await.unwrap();
    });
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!writer.is_finished(), "16 MiB do not fit into the buffers");
    let mut received = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let len = client.read(&mut buffer).await.unwrap();
        if len == 0 {
            break;
        }
        received.extend_from_slice(&buffer[..len]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(received == data);
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_between_threads() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.streams().await;
    let answers = tokio::spawn(async move {
        let mut word = [0; 8];
        while server.read_exact(&mut word).await.is_ok() {
            server.write_all(&word).await.unwrap();
        }
    });
    client.set_nodelay(true).unwrap();
    for i in 0..20_000_u64 {
        let round = async {
            client.write_all(&i.to_be_bytes()).await.unwrap();
            let mut word = [0; 8];
            client.read_exact(&mut word).await.unwrap();
            assert_eq!(word, i.to_be_bytes());
        };
        timeout(Duration::from_secs(20), round).await.expect("an answer");
    }
    drop(client);
    answers.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn peeking_takes_nothing() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.streams().await;
    server.write_all(b"once").await.unwrap();
    let mut buffer = [0; 16];
    assert_eq!(client.peek(&mut buffer[..2]).await.unwrap(), 2);
    assert_eq!(client.peek(&mut buffer).await.unwrap(), 4);
    assert_eq!(client.read(&mut buffer).await.unwrap(), 4);
    assert_eq!(&buffer[..4], b"once");
    server.shutdown().await.unwrap();
    assert_eq!(client.peek(&mut buffer).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn slices_are_written_one_after_the_other() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.streams().await;
    let slices = [b"one ".as_slice(), b"", b"two ", b"three"].map(std::io::IoSlice::new);
    assert_eq!(server.write_vectored(&slices).await.unwrap(), 13);
    drop(server);
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "one two three");
}

#[tokio::test(start_paused = true)]
async fn options_read_back_as_they_were_set_and_info_counts() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.streams().await;
    assert!(!client.nodelay().unwrap());
    client.set_nodelay(true).unwrap();
    client.set_keepalive(true).unwrap();
    client.set_ttl(3).unwrap();
    client.set_user_timeout(Duration::from_secs(9)).unwrap();
    client.set_linger(Some(Duration::from_secs(1))).unwrap();
    let options = client.options().unwrap();
    assert!(options.nodelay && options.keepalive);
    assert_eq!((options.ttl, options.user_timeout), (3, Duration::from_secs(9)));
    assert_eq!(options.linger, Some(Duration::from_secs(1)));

    client.write_all(&[7; 1000]).await.unwrap();
    server.read_exact(&mut [0; 1000]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(client.info().unwrap().bytes_acked, 1000);
    assert_eq!(server.info().unwrap().bytes_received, 1000);
    assert!(client.take_error().unwrap().is_none());

    server.abort();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let info = client.info().unwrap();
    assert_eq!((info.state, info.bytes_acked), (State::Closed, 1000));
}

#[tokio::test(start_paused = true)]
async fn keepalive_takes_its_parameters_and_leaves_the_others() {
    let pair = Pair::new();
    let (client, _server) = pair.streams().await;
    let before = client.options().unwrap();
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_retries(3);
    client.set_tcp_keepalive(&keepalive).unwrap();
    let options = client.options().unwrap();
    assert!(options.keepalive && client.keepalive().unwrap());
    assert_eq!((options.keepalive_time, options.keepalive_probes), (Duration::from_secs(60), 3));
    assert_eq!(options.keepalive_intvl, before.keepalive_intvl);
    for zero in [keepalive.with_retries(0), keepalive.with_interval(Duration::ZERO)] {
        assert_eq!(client.set_tcp_keepalive(&zero).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
    client.set_tos(0b1011_1011).unwrap();
    assert_eq!((client.tos().unwrap(), client.options().unwrap().dscp), (0b1011_1000, 0b10_1110));
    assert_eq!(client.set_tos(256).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn a_socket_hands_its_options_to_its_streams() {
    let pair = Pair::new();
    let socket = TcpSocket::new_v4(&pair.server).unwrap();
    socket.set_recv_buffer_size(5000).unwrap();
    socket.set_options(|o| o.congestion = CongestionControl::Reno);
    socket.bind((SERVER, 0).into()).unwrap();
    let at = socket.local_addr().unwrap();
    let listener = socket.listen(4).unwrap();
    assert_eq!(listener.local_addr().unwrap(), at);
    let socket = TcpSocket::new_v4(&pair.client).unwrap();
    socket.set_send_buffer_size(7000).unwrap();
    let (client, accepted) = tokio::join!(socket.connect(at), listener.accept());
    let (client, server) = (client.unwrap().options().unwrap(), accepted.unwrap().0.options().unwrap());
    assert_eq!((client.sndbuf, server.rcvbuf, server.congestion), (7000, 5000, CongestionControl::Reno));
}

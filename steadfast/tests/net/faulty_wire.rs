//! A wire with the faults of the lab.

use std::io::ErrorKind;
use std::time::Duration;

use steadfast::{Net, TcpListener, TcpStream, lab};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::{CLIENT, Pair, SERVER, pattern};

fn networks(there: &str, back: &str, seed: u64) -> Pair {
    let (left, right) = lab::pair(1500, there.parse().unwrap(), back.parse().unwrap(), seed);
    let client = Net::builder().address(CLIENT, 24).secret([1; 32]).start(left).unwrap();
    let server = Net::builder().address(SERVER, 24).secret([2; 32]).start(right).unwrap();
    Pair { server, client }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_takes_the_delay_of_both_ways() {
    let pair = networks("delay 30ms", "delay 12ms", 1);
    let _listener = pair.listen(80).await;
    let start = Instant::now();
    pair.connect(80).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(42));
}

/// Carries 200 kB over a path with losses. Returns the time and the retransmissions.
async fn carry(seed: u64) -> (Duration, u64) {
    let pair = networks("delay 10ms rate 10mbit queue 50 loss 2%", "delay 10ms loss 2%", seed);
    let listener = TcpListener::bind(&pair.server, (SERVER, 80)).await.unwrap();
    let text = pattern(200_000);
    let start = Instant::now();
    let expected = text.clone();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        assert!(read == expected);
    });
    let mut stream = TcpStream::connect(&pair.client, (SERVER, 80)).await.unwrap();
    stream.write_all(&text).await.unwrap();
    stream.shutdown().await.unwrap();
    served.await.unwrap();
    (start.elapsed(), pair.client.counters().retrans_segs)
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_a_run_to_the_nanosecond() {
    let first = carry(7).await;
    assert!(first.1 > 0, "nothing was lost");
    assert_eq!(carry(7).await, first);
    assert_ne!(carry(8).await, first);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_arrives_before_the_wire_is_gone() {
    let pair = networks("delay 50ms", "delay 50ms", 1);
    let listener = pair.listen(80).await;
    let (client, server) = tokio::join!(pair.connect(80), listener.accept());
    let (mut client, (mut server, _)) = (client.unwrap(), server.unwrap());
    client.write_all(b"last").await.unwrap();
    tokio::task::yield_now().await;
    // Its device goes with it.
    drop(client);
    pair.client.close(Duration::ZERO).await.ok();
    drop(pair.client);
    let mut read = [0; 4];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"last");
    assert_eq!(pair.server.closed().await.unwrap_err().kind(), ErrorKind::NetworkDown);
}

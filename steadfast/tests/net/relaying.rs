//! Relays: ends, resets, half-closed directions, slow readers.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use steadfast::device::{Capabilities, Device, Frame, Received};
use steadfast::relay::{End, Side};
use steadfast::{Net, RelayConfig, RelayEnd, Report, TcpStream, device, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::{Pair, pattern};

/// A client, a relay and a server; the networks are kept.
struct Chain {
    client: TcpStream,
    server: TcpStream,
    relayed: JoinHandle<Report>,
    left: Pair,
    right: Pair,
}

impl Chain {
    async fn new(config: RelayConfig) -> Chain {
        let (left, right) = (Pair::new(), Pair::new());
        let (client, near) = left.streams().await;
        let (far, server) = right.streams().await;
        let relayed = tokio::spawn(async move { relay(near, far, &config).await });
        Chain { client, server, relayed, left, right }
    }
}

/// A device whose packets are lost once it is cut.
struct Cut(device::memory::MemoryDevice, Arc<AtomicBool>);

impl Device for Cut {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        self.0.poll_recv(cx, buffer)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        if self.1.load(Ordering::Relaxed) { Poll::Ready(Ok(())) } else { self.0.poll_send(cx, frame) }
    }
}

fn is_reset(result: io::Result<usize>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[tokio::test(start_paused = true)]
async fn the_end_of_each_side_becomes_that_of_the_other_fwd_13() {
    for client_first in [true, false] {
        let Chain { mut client, mut server, relayed, .. } = Chain::new(RelayConfig::default()).await;
        let (first, second) =
            if client_first { (&mut client, &mut server) } else { (&mut server, &mut client) };
        let data = pattern(300_000);
        let send = async {
            first.write_all(&data).await.unwrap();
            first.shutdown().await.unwrap();
            let mut answer = Vec::new();
            first.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let answer = async {
            let mut question = Vec::new();
            second.read_to_end(&mut question).await.unwrap();
            // The other direction stays open.
            sleep(Duration::from_secs(600)).await;
            second.write_all(&question).await.unwrap();
            second.shutdown().await.unwrap();
        };
        let (back, ()) = tokio::join!(send, answer);
        assert!(back == data);
        let report = relayed.await.unwrap();
        assert!(matches!(report.end, End::Finished), "{report:?}");
        assert_eq!((report.a_to_b.bytes, report.b_to_a.bytes), (300_000, 300_000));
        assert_eq!((report.a_to_b.lost, report.b_to_a.lost), (0, 0));
        let (early, late) =
            if client_first { (report.a_to_b, report.b_to_a) } else { (report.b_to_a, report.a_to_b) };
        assert!(early.eof.unwrap() < Duration::from_secs(10), "{report:?}");
        assert!(late.first.unwrap() >= Duration::from_secs(600) && report.took >= late.eof.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_becomes_a_reset_after_the_data_before_it_fwd_14() {
    for by in [Side::A, Side::B] {
        let Chain { client, server, relayed, left, right } = Chain::new(RelayConfig::default()).await;
        let (mut first, mut second) = if by == Side::A { (client, server) } else { (server, client) };
        let all = pattern(2_000_000);
        first.write_all(&all).await.unwrap();
        // The peer has everything, or the reset would discard it.
        while first.info().unwrap().send_q > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        first.abort();
        // Much of it is on its way when the reset comes, and no end may overtake it.
        sleep(Duration::from_millis(100)).await;
        let mut data = vec![0; all.len()];
        second.read_exact(&mut data).await.unwrap();
        assert!(data == all);
        assert!(is_reset(second.read(&mut [0]).await));
        let report = relayed.await.unwrap();
        assert!(matches!(report.end, End::Reset { by: side } if side == by), "{report:?}");
        for net in [&left.server, &right.client] {
            assert_eq!(net.usage().connections, 0);
            net.check_consistent().unwrap();
        }
    }
}

/// Its stream was read to the end before, so that only a wait tells.
#[tokio::test(start_paused = true)]
async fn a_reset_after_the_end_of_the_stream_is_noticed_fwd_14() {
    let Chain { mut client, mut server, relayed, .. } = Chain::new(RelayConfig::default()).await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    client.abort();
    let report = timeout(Duration::from_secs(1), relayed).await.expect("at once").unwrap();
    assert!(matches!(report.end, End::Reset { by: Side::A }), "{report:?}");
    assert!(is_reset(server.read(&mut [0]).await) || is_reset(server.write(&[0; 9]).await));
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_holds_is_bounded_however_slow_a_reader_is_fwd_15() {
    let (near, mut server) = duplex(1000);
    let pair = Pair::new();
    let (mut client, ours) = pair.streams().await;
    let config = RelayConfig::default().with(|config| config.buffer = 5000);
    let relayed = tokio::spawn(async move { relay(ours, near, &config).await });
    let data = pattern(8 << 20);
    let mut sent = 0;
    // The server reads nothing: the client stops.
    while let Ok(len) = timeout(Duration::from_secs(5), client.write(&data[sent..])).await {
        sent += len.unwrap();
    }
    let limits = pair.client.usage().buffered + pair.server.usage().buffered;
    let inside = sent as u64 - limits;
    assert!(inside <= 1000 + 5000, "{inside} bytes of {sent} are in the relay");
    // Nothing was lost.
    let mut read = vec![0; sent];
    let send_end = async {
        client.shutdown().await.unwrap();
    };
    let (result, ()) = tokio::join!(server.read_exact(&mut read), send_end);
    result.unwrap();
    assert!(read == data[..sent]);
    drop(server);
    assert_eq!(relayed.await.unwrap().a_to_b.bytes, sent as u64);
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_relay_lives_while_its_ends_answer_fwd_16() {
    let Chain { mut client, mut server, relayed, left, .. } = Chain::new(RelayConfig::default()).await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    sleep(Duration::from_secs(3600)).await;
    assert!(!relayed.is_finished());
    assert!(left.server.counters().tcp_keep_alive > 50, "it was probed");
    // The client's program has closed: its stack resets the probe, long before an hour has passed.
    drop(client);
    let begin = Instant::now();
    let report = relayed.await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(130), "{:?}", begin.elapsed());
    assert!(matches!(report.end, End::Reset { by: Side::A }), "{report:?}");
    assert!(is_reset(server.read(&mut [0]).await) || is_reset(server.write(&[0; 9]).await));
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_relay_ends_when_an_end_is_silent_fwd_16() {
    let cut = Arc::<AtomicBool>::default();
    let (one, other) = device::memory::pair(1500);
    let gateway = Net::builder().address(crate::SERVER, 24).start(one).unwrap();
    let guest = Net::builder().address(crate::CLIENT, 24).start(Cut(other, cut.clone())).unwrap();
    let left = Pair { server: gateway, client: guest };
    let ((mut client, near), right) = (left.streams().await, Pair::new());
    let (far, mut server) = right.streams().await;
    let relayed = tokio::spawn(async move { relay(near, far, &RelayConfig::default()).await });
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    sleep(Duration::from_secs(1)).await;
    cut.store(true, Ordering::Relaxed);
    let begin = Instant::now();
    let report = relayed.await.unwrap();
    let took = begin.elapsed();
    assert!((Duration::from_secs(180)..Duration::from_secs(250)).contains(&took), "{took:?}");
    assert!(
        matches!(&report.end, End::Failed { side: Side::A, error } if error.kind() == ErrorKind::TimedOut),
        "{report:?}"
    );
    assert!(is_reset(server.write(&[0; 9]).await) || is_reset(server.read(&mut [0]).await));
}

#[tokio::test(start_paused = true)]
async fn an_idle_relay_ends_at_its_limit() {
    let second = Duration::from_secs(1);
    for (half_closed, expected) in [(false, 10 * second), (true, 3 * second)] {
        let config = RelayConfig::default().with(|config| {
            (config.idle, config.half_closed_idle) = (Some(10 * second), Some(3 * second));
        });
        let Chain { mut client, mut server, relayed, .. } = Chain::new(config).await;
        // A byte begins the time anew.
        sleep(5 * second).await;
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        if half_closed {
            client.shutdown().await.unwrap();
        }
        let begin = Instant::now();
        let report = relayed.await.unwrap();
        let took = begin.elapsed();
        assert!(took >= expected - Duration::from_millis(10) && took < expected + second, "{took:?}");
        assert_eq!(matches!(report.end, End::HalfClosedIdle), half_closed, "{report:?}");
        assert_eq!(matches!(report.end, End::Idle), !half_closed, "{report:?}");
        sleep(second).await;
        assert!(is_reset(client.read(&mut [0]).await));
        let server = server.read(&mut [0]).await;
        assert!(is_reset(server));
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_dropped_resets_both_ends() {
    let Chain { mut client, mut server, relayed, .. } = Chain::new(RelayConfig::default()).await;
    client.write_all(b"hold").await.unwrap();
    server.read_exact(&mut [0; 4]).await.unwrap();
    relayed.abort();
    assert!(relayed.await.unwrap_err().is_cancelled());
    assert!(is_reset(client.read(&mut [0]).await) && is_reset(server.read(&mut [0]).await));
}

#[tokio::test(start_paused = true)]
async fn the_report_counts_what_was_lost() {
    let (left, right) = (duplex(100), Pair::new());
    let (far, server) = right.streams().await;
    let (mut client, near): (DuplexStream, DuplexStream) = left;
    let config = RelayConfig::default().with(|config| config.drain = Duration::from_millis(100));
    let relayed = tokio::spawn(async move { relay(far, near, &config).await });
    let mut server = server;
    server.write_all(&pattern(1000)).await.unwrap();
    let mut some = [0; 10];
    client.read_exact(&mut some).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    server.abort();
    let report = relayed.await.unwrap();
    assert!(matches!(report.end, End::Reset { by: Side::A }), "{report:?}");
    assert_eq!((report.a_to_b.bytes, report.a_to_b.lost), (110, 890));
    assert_eq!(&some, &pattern(10)[..]);
}

/// Pairs of streams of the kernel: the peer's, and the one that is relayed.
async fn kernel_streams() -> (tokio::net::TcpStream, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (peer, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
    (peer.unwrap(), accepted.unwrap().0)
}

#[tokio::test]
async fn resets_of_kernel_sockets_go_both_ways_fwd_14() {
    for after_end in [false, true] {
        let (mut client, near) = kernel_streams().await;
        let (mut server, far) = kernel_streams().await;
        let relayed = tokio::spawn(async move { relay(near, far, &RelayConfig::default()).await });
        client.write_all(b"hold").await.unwrap();
        let mut text = [0; 4];
        server.read_exact(&mut text).await.unwrap();
        if after_end {
            client.shutdown().await.unwrap();
            assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        }
        RelayEnd::abort(client);
        let report = timeout(Duration::from_secs(5), relayed).await.expect("at once").unwrap();
        assert!(matches!(report.end, End::Reset { by: Side::A }), "{report:?}");
        let read = server.read(&mut [0]).await;
        let written = server.write(&[0; 9]).await;
        assert!(read.is_err() || written.is_err(), "{read:?} {written:?}");
        assert_eq!(&text, b"hold");
    }
}

#[tokio::test]
async fn a_reset_that_a_write_meets_is_no_end_of_the_stream_fwd_14() {
    let (mut client, near) = kernel_streams().await;
    let (server, far) = kernel_streams().await;
    client.write_all(b"hold").await.unwrap();
    RelayEnd::abort(server);
    // The relay reads the text first, and learns of the reset as it writes it.
    near.readable().await.unwrap();
    far.ready(tokio::io::Interest::ERROR).await.unwrap();
    let report = relay(near, far, &RelayConfig::default()).await;
    assert!(matches!(report.end, End::Reset { by: Side::B }), "{report:?}");
    assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_are_relayed_to_their_ends_fwd_13() {
    let (mut client, near) = tokio::net::UnixStream::pair().unwrap();
    let (mut server, far) = kernel_streams().await;
    let relayed = tokio::spawn(async move { relay(near, far, &RelayConfig::default()).await });
    client.write_all(b"hold").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    server.write_all(b"fast").await.unwrap();
    drop(server);
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "holdfast");
    assert!(matches!(relayed.await.unwrap().end, End::Finished));
}

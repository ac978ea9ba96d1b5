//! How a network ends (closed, cut off, with its driver or its device), and what its streams return then.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use steadfast::device::{Capabilities, Device, Frame, Received};
use steadfast::stack::wire::{ipv4, tcp};
use steadfast::{Net, TcpListener, TcpStream, device};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::{CLIENT, Pair, SERVER, pattern};

/// The faults of a device.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// It reports more bytes than the buffer has.
    Lies,
    Panics,
}

/// A device that fails once a packet was sent into it.
struct Bad {
    wrong: Wrong,
    sent: bool,
}

impl Device for Bad {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(1500)
    }

    fn poll_recv(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<std::io::Result<Received>> {
        match self.wrong {
            _ if !self.sent => Poll::Pending,
            Wrong::Lies => Poll::Ready(Ok(Received::new(buffer.len() + 1))),
            Wrong::Panics => panic!("the device has a bug"),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, _: Frame<'_>) -> Poll<std::io::Result<()>> {
        self.sent = true;
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_goes_wrong_is_an_error_with_a_name_for_everybody() {
    for (wrong, text) in [
        (Wrong::Lies, "the device says that it read 1501 bytes into a buffer of 1500"),
        (Wrong::Panics, "the driver panicked: the device has a bug"),
    ] {
        let net = Net::builder().address(CLIENT, 24).start(Bad { wrong, sent: false }).unwrap();
        let listener = TcpListener::bind(&net, (CLIENT, 7)).await.unwrap();
        let closed = tokio::spawn({
            let net = net.clone();
            async move { net.closed().await }
        });
        tokio::task::yield_now().await;
        assert!(!closed.is_finished());
        let error = TcpStream::connect(&net, (SERVER, 7)).await.unwrap_err();
        assert!(error.to_string().ends_with(text), "{error}");
        for error in [
            timeout(Duration::from_secs(1), closed).await.unwrap().unwrap().unwrap_err(),
            net.closed().await.unwrap_err(),
            net.close(Duration::ZERO).await.unwrap_err(),
            listener.accept().await.unwrap_err(),
            TcpListener::bind(&net, (CLIENT, 8)).await.unwrap_err(),
        ] {
            assert!(error.to_string().ends_with(text), "{error}");
        }
    }
}

#[tokio::test]
async fn a_driver_gives_back_what_its_device_panicked_with() {
    let (net, driver) =
        Net::builder().address(CLIENT, 24).build(Bad { wrong: Wrong::Panics, sent: true }).unwrap();
    let error = driver.await.unwrap_err();
    assert_eq!(error.to_string(), "the driver panicked: the device has a bug");
    drop(net);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_end_hears_of_a_good_one() {
    let pair = Pair::new();
    let closed = tokio::spawn({
        let net = pair.server.clone();
        async move { net.closed().await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!closed.is_finished());
    pair.server.close(Duration::from_secs(1)).await.unwrap();
    closed.await.unwrap().unwrap();
}

/// The peer's network is stopped, so that it acknowledges nothing.
#[tokio::test(start_paused = true)]
async fn what_is_left_after_the_limit_is_reset_orphans_too() {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address(SERVER, 24).start(left).unwrap();
    let (client, driver) = Net::builder().address(CLIENT, 24).build(right).unwrap();
    let mut driver = Box::pin(driver);
    let listener = TcpListener::bind(&server, (SERVER, 7)).await.unwrap();
    let both = async { tokio::join!(TcpStream::connect(&client, (SERVER, 7)), listener.accept()) };
    let (connected, accepted) = tokio::select! {
        streams = both => streams,
        end = &mut driver => panic!("{end:?}"),
    };
    let (mut connected, (mut orphan, _)) = (connected.unwrap(), accepted.unwrap());
    orphan.write_all(b"never acknowledged").await.unwrap();
    drop(orphan);
    assert_eq!(server.close(Duration::from_secs(1)).await.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(server.counters().out_rsts, 1);
    // The data is on the wire, with the RST behind it.
    let mut received = Vec::new();
    let read = tokio::select! {
        biased;
        read = connected.read_to_end(&mut received) => read,
        end = &mut driver => panic!("{end:?}"),
    };
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_for_a_peer_that_has_everything_and_holds_its_half_open() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.streams().await;
    let data = pattern(100_000);
    server.write_all(&data).await.unwrap();
    drop(server);
    // Nobody reads yet: delivered data must outlive the network.
    let before = Instant::now();
    pair.server.close(Duration::from_secs(60)).await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert!(received == data);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_outlives_the_limit_gives_what_arrived_and_then_says_that_the_network_is_down() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.streams().await;
    let (_other, mut waits) = pair.streams().await;
    let waits = tokio::spawn(async move { waits.read(&mut [0; 1]).await });
    client.write_all(b"arrived").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let error = pair.server.close(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let mut buffer = [0; 20];
    assert_eq!(server.peek(&mut buffer).await.unwrap(), 7);
    assert_eq!(server.read(&mut buffer).await.unwrap(), 7);
    assert_eq!(&buffer[..7], b"arrived");
    for _ in 0..2 {
        let errors = [
            server.read(&mut buffer).await.unwrap_err(),
            server.write(b"x").await.unwrap_err(),
            server.shutdown().await.unwrap_err(),
            server.take_error().unwrap().unwrap(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::NetworkDown, "{error}");
            assert_eq!(error.to_string(), "this network was closed");
        }
    }
    assert!(server.peer_addr().is_ok() && server.nodelay().is_ok());
    assert_eq!(waits.await.unwrap().unwrap_err().kind(), ErrorKind::NetworkDown);
}

/// Starts a server on a runtime of its own. It returns what it reads from its first connection.
fn reads_all(
    device: device::memory::MemoryDevice,
) -> std::thread::JoinHandle<(Vec<u8>, std::io::Result<usize>)> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let net = Net::builder().address(SERVER, 24).start(device).unwrap();
            let listener = TcpListener::bind(&net, (SERVER, 7)).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = Vec::new();
            let read = stream.read_to_end(&mut received).await;
            (received, read)
        })
    })
}

/// Runs a program that writes data and ends with its runtime. It keeps its stream, or shuts it down and drops it.
fn writes_and_ends(device: device::memory::MemoryDevice, data: &[u8], keep: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kept = runtime.block_on(async {
        let net = Net::builder().address(CLIENT, 24).start(device).unwrap();
        let mut stream = loop {
            // The server may not listen yet.
            match TcpStream::connect(&net, (SERVER, 7)).await {
                Ok(stream) => break stream,
                Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionRefused),
            }
        };
        stream.write_all(data).await.unwrap();
        if keep {
            return Some(stream);
        }
        stream.shutdown().await.unwrap();
        None
    });
    drop(runtime);
    if let Some(mut stream) = kept {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = runtime.block_on(stream.write(b"x")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NetworkDown);
        assert!(error.to_string().ends_with("the driver of this network was dropped"), "{error}");
    }
}

#[test]
fn what_was_written_is_sent_when_the_runtime_ends_and_the_end_of_it_too() {
    for keep in [false, true] {
        let (left, right) = device::memory::pair(1500);
        let server = reads_all(left);
        let data = pattern(1000);
        writes_and_ends(right, &data, keep);
        let (received, read) = server.join().unwrap();
        // The wire is cut afterwards. The reader must not notice, because the FIN came first.
        assert_eq!((received == data, read.ok()), (true, Some(1000)), "the stream is kept: {keep}");
    }
}

/// A device that records the segments sent into it.
struct Recording {
    device: device::memory::MemoryDevice,
    sent: Arc<Mutex<Vec<(tcp::Flags, usize)>>>,
}

impl Device for Recording {
    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<std::io::Result<Received>> {
        self.device.poll_recv(cx, buffer)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<std::io::Result<()>> {
        let sent = self.device.poll_send(cx, frame);
        if sent.is_ready() {
            let (_, segment) = ipv4::parse(frame.bytes).unwrap();
            let (header, payload) = tcp::Header::parse(segment).unwrap();
            self.sent.lock().unwrap().push((header.flags, payload.len()));
        }
        sent
    }
}

#[test]
fn who_has_not_got_everything_when_the_runtime_ends_is_reset() {
    let (left, right) = device::memory::pair(1500);
    let sent = Arc::new(Mutex::new(Vec::new()));
    let device = Recording { device: right, sent: sent.clone() };
    let lives_on =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_server, _listener) = lives_on.block_on(async {
        let server = Net::builder().address(SERVER, 24).start(left).unwrap();
        let listener = TcpListener::bind(&server, (SERVER, 7)).await.unwrap();
        (server, listener)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Net::builder().address(CLIENT, 24).start(device).unwrap();
        let mut stream = TcpStream::connect(&client, (SERVER, 7)).await.unwrap();
        sent.lock().unwrap().clear();
        // More than the first window, and the runtime ends before an ACK arrives.
        assert!(stream.write(&pattern(100_000)).await.unwrap() > 15_000);
    });
    drop(runtime);
    let sent = sent.lock().unwrap();
    let carried: usize = sent.iter().map(|(_, len)| len).sum();
    // An initial window of ten segments (RFC 6928 §2).
    assert_eq!(carried, 10 * 1448, "{sent:?}");
    assert_eq!(sent.last().map(|(flags, _)| flags.rst()), Some(true));
    assert!(!sent.iter().any(|(flags, _)| flags.fin()));
}

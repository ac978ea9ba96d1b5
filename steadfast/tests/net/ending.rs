use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use steadfast::device::{Capabilities, Device, Frame, Received};
use steadfast::{Net, TcpListener, TcpStream, device};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::{CLIENT, Pair, SERVER, pattern};

#[tokio::test(start_paused = true)]
async fn half_a_connection_can_close_and_the_other_half_goes_on_either_way() {
    for client_first in [true, false] {
        let pair = Pair::new();
        let (client, server) = pair.streams().await;
        let (mut first, mut last) = if client_first { (client, server) } else { (server, client) };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        let mut question = String::new();
        last.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        assert_eq!(first.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);

        let answer = pattern(3_000_000);
        let sent = answer.clone();
        let writer = tokio::spawn(async move {
            last.write_all(&sent).await.unwrap();
            last.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        first.read_to_end(&mut received).await.unwrap();
        assert!(received == answer);
        writer.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_arrives_though_the_writer_is_dropped_at_once() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.streams().await;
    let data = pattern(900_000);
    server.write_all(&data).await.unwrap();
    drop(server);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert!(received == data);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_stream_with_unread_bytes_resets_it() {
    let pair = Pair::new();
    let (mut client, server) = pair.streams().await;
    client.write_all(b"nobody reads this").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(server);
    let error = client.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_is_woken_by_the_end_and_by_a_reset() {
    let pair = Pair::new();
    for abort in [false, true] {
        let (mut client, server) = pair.streams().await;
        let reader = tokio::spawn(async move { client.read(&mut [0; 1]).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        if abort {
            server.abort()
        } else {
            drop(server)
        }
        let result = timeout(Duration::from_secs(1), reader).await.unwrap().unwrap();
        match result {
            Ok(len) => assert!(!abort && len == 0),
            Err(e) => assert!(abort && e.kind() == ErrorKind::ConnectionReset),
        }
    }
}

/// As `tokio::net` behaves on the kernel.
#[tokio::test(start_paused = true)]
async fn to_shut_down_what_has_ended_is_no_error() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.streams().await;
    client.shutdown().await.unwrap();
    client.shutdown().await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!((client.read(&mut [0; 1]).await.unwrap(), server.read(&mut [0; 1]).await.unwrap()), (0, 0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.shutdown().await.unwrap();
    server.shutdown().await.unwrap();

    let (mut client, server) = pair.streams().await;
    server.abort();
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.shutdown().await.unwrap();
    // The next read or write returns the error.
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    client.shutdown().await.unwrap();
}

/// As `write(2)` behaves, even without data.
#[tokio::test(start_paused = true)]
async fn an_empty_write_shows_the_end_of_the_stream() {
    let pair = Pair::new();
    let (mut client, server) = pair.streams().await;
    assert_eq!(client.write(b"").await.unwrap(), 0);
    client.shutdown().await.unwrap();
    assert_eq!(client.write(b"").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(client.write_vectored(&[]).await.unwrap(), 0);
    server.abort();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(client.write(b"").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(client.write(b"").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn linger_zero_makes_a_drop_reset() {
    let pair = Pair::new();
    let (mut client, server) = pair.streams().await;
    server.set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_write_half_sends_its_fin_when_it_is_dropped_and_none_when_reunited() {
    let pair = Pair::new();
    let (client, mut server) = pair.streams().await;
    let (reader, writer) = client.into_split();
    let mut client = reader.reunite(writer).unwrap();
    client.write_all(b"still open").await.unwrap();
    let (mut reader, writer) = client.into_split();
    drop(writer);
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "still open");
    server.write_all(b"and this way too").await.unwrap();
    drop(server);
    let mut text = String::new();
    reader.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "and this way too");
}

#[tokio::test(start_paused = true)]
async fn halves_of_two_streams_are_not_reunited() {
    let pair = Pair::new();
    let (a, b) = pair.streams().await;
    let ((reader, _keep), (_other, writer)) = (a.into_split(), b.into_split());
    let error = reader.reunite(writer).unwrap_err();
    assert_eq!(error.to_string(), "the two halves are not of the same stream");
}

#[tokio::test(start_paused = true)]
async fn closing_a_network_waits_until_what_was_written_has_arrived() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.streams().await;
    let data = pattern(900_000);
    server.write_all(&data).await.unwrap();
    drop(server);
    let reader = tokio::spawn(async move {
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        received
    });
    pair.server.close(Duration::from_secs(60)).await.unwrap();
    drop(pair.server);
    assert!(reader.await.unwrap() == data);
}

#[tokio::test(start_paused = true)]
async fn closing_without_a_limit_waits_for_a_slow_reader() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.streams().await;
    let data = pattern(2_000_000);
    let sent = data.clone();
    let reader = tokio::spawn(async move {
        let mut received = Vec::new();
        let mut buffer = vec![0; 100_000];
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            match client.read(&mut buffer).await.unwrap() {
                0 => break received,
                len => received.extend_from_slice(&buffer[..len]),
            }
        }
    });
    server.write_all(&sent).await.unwrap();
    drop(server);
    pair.server.close(Duration::MAX).await.unwrap();
    assert!(reader.await.unwrap() == data);
}

#[tokio::test(start_paused = true)]
async fn a_closed_network_takes_and_makes_nothing_new() {
    let pair = Pair::new();
    let listener = pair.listen(7).await;
    let accept = tokio::spawn(async move { listener.accept().await.map(drop) });
    tokio::task::yield_now().await;
    pair.server.close(Duration::from_secs(1)).await.unwrap();
    pair.server.close(Duration::from_secs(1)).await.unwrap();
    assert_eq!(accept.await.unwrap().unwrap_err().kind(), ErrorKind::NetworkDown);
    let error = TcpListener::bind(&pair.server, (SERVER, 8)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
    let error = TcpStream::connect(&pair.server, (CLIENT, 8)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_close_within_the_limit_is_reset() {
    let pair = Pair::new();
    let (mut client, server) = pair.streams().await;
    let before = Instant::now();
    let error = pair.server.close(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!((3..4).contains(&before.elapsed().as_secs()));
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn a_network_without_handles_ends_when_its_last_connection_has() {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address(SERVER, 24).start(left).unwrap();
    let (client, driver) = Net::builder().address(CLIENT, 24).build(right).unwrap();
    let driver = tokio::spawn(driver);
    let listener = TcpListener::bind(&server, (SERVER, 7)).await.unwrap();
    let mut stream = TcpStream::connect(&client, (SERVER, 7)).await.unwrap();
    let data = pattern(500_000);
    stream.write_all(&data).await.unwrap();
    drop((stream, client));
    let (mut accepted, _) = listener.accept().await.unwrap();
    let mut received = Vec::new();
    accepted.read_to_end(&mut received).await.unwrap();
    assert!(received == data);
    assert!(!driver.is_finished(), "the other direction is still open");
    drop(accepted);
    timeout(Duration::from_secs(60), driver).await.unwrap().unwrap().unwrap();
}

/// A device that fails once `gone` is set.
struct Mortal {
    device: device::memory::MemoryDevice,
    gone: Arc<AtomicBool>,
}

impl Device for Mortal {
    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<std::io::Result<Received>> {
        match self.gone.load(Ordering::Relaxed) {
            true => Poll::Ready(Err(ErrorKind::NotFound.into())),
            false => self.device.poll_recv(cx, buffer),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<std::io::Result<()>> {
        self.device.poll_send(cx, frame)
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_hears_of_a_device_that_fails() {
    let (left, right) = device::memory::pair(1500);
    let gone = Arc::new(AtomicBool::new(false));
    let mortal = Mortal { device: left, gone: gone.clone() };
    let server = Net::builder().address(SERVER, 24).start(mortal).unwrap();
    let (client, driver) = Net::builder().address(CLIENT, 24).build(right).unwrap();
    let driver = tokio::spawn(driver);
    let listener = TcpListener::bind(&server, (SERVER, 7)).await.unwrap();
    let mut stream = TcpStream::connect(&client, (SERVER, 7)).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    let reader = tokio::spawn(async move { accepted.read(&mut [0; 1]).await });
    tokio::task::yield_now().await;
    gone.store(true, Ordering::Relaxed);
    stream.write_all(b"too late").await.unwrap();

    let error = timeout(Duration::from_secs(1), reader).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().starts_with("the device failed: "), "{error}");
    assert_eq!(listener.accept().await.unwrap_err().kind(), ErrorKind::NotFound);
    let error = server.close(Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().starts_with("the device failed: "), "{error}");

    // The peer learns it from its own device.
    let error = driver.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(stream.write(b"x").await.unwrap_err().kind(), ErrorKind::NetworkDown);
}

#[tokio::test(start_paused = true)]
async fn who_drops_the_driver_ends_the_network_for_everybody() {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address(SERVER, 24).start(left).unwrap();
    let (client, driver) = Net::builder().address(CLIENT, 24).build(right).unwrap();
    let driver = tokio::spawn(driver);
    let listener = TcpListener::bind(&server, (SERVER, 7)).await.unwrap();
    let mut stream = TcpStream::connect(&client, (SERVER, 7)).await.unwrap();
    let (mut accepted, _) = listener.accept().await.unwrap();
    let reader = tokio::spawn(async move { accepted.read(&mut [0; 1]).await });
    tokio::task::yield_now().await;
    driver.abort();
    assert!(driver.await.unwrap_err().is_cancelled());
    // The peer gets a FIN, as when a program exits.
    assert_eq!(timeout(Duration::from_secs(1), reader).await.unwrap().unwrap().unwrap(), 0);
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(stream.write(b"x").await.unwrap_err().kind(), ErrorKind::NetworkDown);
    assert_eq!(client.closed().await.unwrap_err().kind(), ErrorKind::NetworkDown);
}

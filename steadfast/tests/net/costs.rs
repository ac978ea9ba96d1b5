//! The cost of a connection that does nothing: memory, and wake-ups without a change.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use steadfast::TcpStream;
use steadfast_testkit::Count;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::{Pair, SERVER};

fn poll_read(stream: &mut TcpStream, waker: &Waker) -> Poll<io::Result<()>> {
    let mut buffer = [0; 64];
    Pin::new(stream).poll_read(&mut Context::from_waker(waker), &mut ReadBuf::new(&mut buffer))
}

/// Time in which everything on the wire arrives, and delayed ACKs are sent.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[test]
fn an_idle_connection_takes_at_most_a_kib_with_its_handle_and_wakers() {
    const CONNECTIONS: usize = 1000;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let pair = runtime.block_on(async { Pair::new() });
    let listener = runtime.block_on(pair.listen(80));
    let (_, waker) = Count::new();
    let open = |count: usize| {
        runtime.block_on(async {
            let mut streams = Vec::with_capacity(2 * count);
            for _ in 0..count {
                let mut client = TcpStream::connect(&pair.client, (SERVER, 80)).await.unwrap();
                let (mut server, _) = listener.accept().await.unwrap();
                assert!(poll_read(&mut client, &waker).is_pending());
                assert!(poll_read(&mut server, &waker).is_pending());
                streams.extend([client, server]);
            }
            settle().await;
            streams
        })
    };
    // Tables double: the first connections pay for their room.
    let first = open(24);
    let mut streams = Vec::new();
    let info = allocation_counter::measure(|| streams = open(CONNECTIONS));
    let each = info.bytes_current / streams.len() as i64;
    assert!(each <= 1024, "{each} bytes");
    drop((first, streams));
}

/// A clone of a waker is foreign code, and takes the lock once more.
#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_the_same_stream_again_needs_no_other_clone_of_its_waker() {
    let (mut client, mut server) = Pair::new().streams().await;
    let (count, waker) = Count::new();
    assert!(poll_read(&mut client, &waker).is_pending());
    let clones = Arc::strong_count(&count);
    for _ in 0..3 {
        server.write_all(b"one").await.unwrap();
        settle().await;
        assert_eq!((count.take(), Arc::strong_count(&count)), (1, clones));
        assert!(poll_read(&mut client, &waker).is_ready() && poll_read(&mut client, &waker).is_pending());
        assert_eq!(Arc::strong_count(&count), clones);
    }
    drop(client);
    assert_eq!(Arc::strong_count(&count), clones - 1, "none is left behind");
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_woken_by_data_alone_and_once() {
    let pair = Pair::new();
    let listener = pair.listen(80).await;
    let mut client = TcpStream::connect(&pair.client, (SERVER, 80)).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let (count, waker) = Count::new();
    assert!(poll_read(&mut client, &waker).is_pending());
    // Its data is acknowledged, and the window of the peer moves.
    client.write_all(&[1; 10_000]).await.unwrap();
    let mut read = vec![0; 10_000];
    server.read_exact(&mut read).await.unwrap();
    settle().await;
    assert_eq!(count.get(), 0);
    for _ in 0..10 {
        server.write_all(b"one").await.unwrap();
        settle().await;
    }
    assert_eq!(count.get(), 1, "it has not read yet");
    assert!(poll_read(&mut client, &waker).is_ready());
    assert!(poll_read(&mut client, &waker).is_pending());
    server.shutdown().await.unwrap();
    settle().await;
    assert_eq!(count.get(), 2, "the end is a change");
}

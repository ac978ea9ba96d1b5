//! Reading and writing.

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::pin::{Pin, pin};

use bytes::BytesMut;
use tokio::io::{AsyncRead as _, AsyncReadExt, AsyncWrite as _, AsyncWriteExt, ReadBuf};

use super::*;
use crate::tools::{pattern, poll_once};

#[test]
fn bytes_go_both_ways() {
    both(async |mut near, mut far| {
        near.write_all(b"there").await.unwrap();
        far.write_all(b"back").await.unwrap();
        let (mut there, mut back) = ([0; 5], [0; 4]);
        far.read_exact(&mut there).await.unwrap();
        near.read_exact(&mut back).await.unwrap();
        assert_eq!((&there, &back), (b"there", b"back"));
    });
}

#[test]
fn a_large_transfer_waits_for_its_reader_and_arrives_whole() {
    both(async |mut near, mut far| {
        let data = pattern(5_000_000);
        let (sent, received) = tokio::join!(
            async {
                near.write_all(&data).await.unwrap();
                near.shutdown().await
            },
            async {
                let mut received = Vec::new();
                far.read_to_end(&mut received).await.map(|_| received)
            }
        );
        sent.unwrap();
        assert!(received.unwrap() == data);
        let (sent, received) = tokio::join!(
            async {
                far.write_all(&data).await.unwrap();
                far.shutdown().await
            },
            async {
                let mut received = Vec::new();
                near.read_to_end(&mut received).await.map(|_| received)
            }
        );
        sent.unwrap();
        assert!(received.unwrap() == data);
    });
}

#[test]
fn a_read_returns_at_most_what_fits() {
    both(async |mut near, mut far| {
        far.write_all(b"abcdef").await.unwrap();
        let mut buffer = [0; 4];
        near.read_exact(&mut buffer[..1]).await.unwrap();
        near.readable().await.unwrap();
        assert_eq!(near.read(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer, b"bcde");
        assert_eq!(near.read(&mut buffer).await.unwrap(), 1);
    });
}

#[test]
fn an_empty_write_returns_at_once() {
    both(async |mut near, _far| {
        assert_eq!(near.write(b"").await.unwrap(), 0);
        near.write_all(b"").await.unwrap();
    });
}

#[test]
fn several_slices_are_written_in_order() {
    both(async |mut near, mut far| {
        assert!(near.is_write_vectored());
        let slices = [b"one ".as_slice(), b"", b"two ", b"three"].map(IoSlice::new);
        assert_eq!(near.write_vectored(&slices).await.unwrap(), 13);
        near.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "one two three");
    });
}

#[test]
fn a_buffer_that_grows_is_read_into() {
    both(async |mut near, mut far| {
        far.write_all(b"hold fast").await.unwrap();
        far.shutdown().await.unwrap();
        let mut buffer = BytesMut::new();
        while near.read_buf(&mut buffer).await.unwrap() > 0 {}
        assert_eq!(&buffer[..], b"hold fast");
    });
}

#[test]
fn a_filled_part_of_a_buffer_is_kept() {
    both(async |mut near, mut far| {
        far.write_all(b"new").await.unwrap();
        near.readable().await.unwrap();
        let mut space = *b"old....";
        let mut buffer = ReadBuf::new(&mut space);
        buffer.set_filled(3);
        poll_fn(|cx| Pin::new(&mut near).poll_read(cx, &mut buffer)).await.unwrap();
        assert_eq!(buffer.filled(), b"oldnew");
    });
}

#[test]
fn a_stream_that_ends_too_early_is_an_unexpected_end() {
    both(async |mut near, mut far| {
        far.write_all(b"abc").await.unwrap();
        drop(far);
        let error = near.read_exact(&mut [0; 4]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_pending_read_is_woken_by_data() {
    both(async |mut near, mut far| {
        let mut buffer = [0; 8];
        let mut read = pin!(near.read(&mut buffer));
        assert!(poll_once(read.as_mut()).await.is_pending());
        far.write_all(b"now").await.unwrap();
        assert_eq!(read.await.unwrap(), 3);
        assert_eq!(&buffer[..3], b"now");
    });
}

#[test]
fn a_pending_write_is_woken_by_its_reader() {
    both(async |near, mut far| {
        let (_reader, mut writer) = near.into_split();
        // It fills every buffer on the way, however they grow.
        let writer = tokio::spawn(async move { writer.write_all(&vec![7; 30_000_000]).await });
        let (mut total, mut buffer) = (0, vec![0; 65_536]);
        crate::tools::tick().await;
        assert!(!writer.is_finished());
        while total < 30_000_000 {
            total += far.read(&mut buffer).await.unwrap();
        }
        writer.await.unwrap().unwrap();
    });
}

#[test]
fn a_flush_returns_at_once() {
    both(async |mut near, _far| {
        near.write_all(&pattern(100_000)).await.unwrap();
        near.flush().await.unwrap();
    });
}

#[test]
fn a_peek_takes_nothing() {
    both(async |mut near, mut far| {
        far.write_all(b"once").await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(near.peek(&mut buffer).await.unwrap(), 4);
        assert_eq!(near.peek(&mut buffer[..2]).await.unwrap(), 2);
        assert_eq!(near.read(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer[..4], b"once");
    });
}

#[test]
fn a_peek_waits_for_data_and_sees_the_end() {
    both(async |near, mut far| {
        let mut buffer = [0; 8];
        let mut peek = pin!(near.peek(&mut buffer));
        assert!(poll_once(peek.as_mut()).await.is_pending());
        far.write_all(b"x").await.unwrap();
        assert_eq!(peek.await.unwrap(), 1);
        near.try_read(&mut [0; 1]).unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(near.peek(&mut [0; 8]).await.unwrap(), 0);
    });
}

#[test]
fn a_peek_can_be_polled() {
    both(async |near, mut far| {
        let mut space = [0; 8];
        let mut buffer = ReadBuf::new(&mut space);
        let pending = poll_fn(|cx| std::task::Poll::Ready(near.poll_peek(cx, &mut buffer).is_pending()));
        assert!(pending.await);
        far.write_all(b"seen").await.unwrap();
        assert_eq!(poll_fn(|cx| near.poll_peek(cx, &mut buffer)).await.unwrap(), 4);
        assert_eq!(buffer.filled(), b"seen");
        assert_eq!(near.try_read(&mut [0; 8]).unwrap(), 4);
    });
}

#[test]
fn two_tasks_may_peek() {
    both(async |near, mut far| {
        let (mut first, mut second) = ([0; 4], [0; 4]);
        let (peeks, written) =
            tokio::join!(async { tokio::join!(near.peek(&mut first), near.peek(&mut second)) }, async {
                tokio::task::yield_now().await;
                far.write_all(b"both").await
            });
        written.unwrap();
        assert!(peeks.0.unwrap() > 0 && peeks.1.unwrap() > 0);
    });
}

#[test]
fn bytes_are_copied_from_one_stream_to_another() {
    run(async |world| {
        let (mut first, mut source) = world.accepted().await;
        let (mut second, mut sink) = world.connected().await;
        let data = pattern(300_000);
        let (copied, written, received) = tokio::join!(
            async {
                let copied = tokio::io::copy(&mut first, &mut second).await;
                second.shutdown().await.unwrap();
                copied
            },
            async {
                source.write_all(&data).await.unwrap();
                source.shutdown().await
            },
            async {
                let mut received = Vec::new();
                sink.read_to_end(&mut received).await.map(|_| received)
            }
        );
        written.unwrap();
        assert_eq!(copied.unwrap(), 300_000);
        assert!(received.unwrap() == data);
    });
}

#[test]
fn two_streams_are_copied_both_ways() {
    run(async |world| {
        let (mut first, mut client) = world.accepted().await;
        let (mut second, mut server) = world.connected().await;
        let (copied, asked, answered) = tokio::join!(
            tokio::io::copy_bidirectional(&mut first, &mut second),
            async {
                client.write_all(b"question").await.unwrap();
                client.shutdown().await.unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.map(|_| answer)
            },
            async {
                // It answers after the end of the question.
                let mut question = String::new();
                server.read_to_string(&mut question).await.unwrap();
                server.write_all(b"the answer").await.unwrap();
                server.shutdown().await.map(|()| question)
            }
        );
        assert_eq!(copied.unwrap(), (8, 10));
        assert_eq!((&*asked.unwrap(), &*answered.unwrap()), ("the answer", "question"));
    });
}

#[test]
fn a_dropped_read_task_does_not_disturb_its_successor() {
    both(async |mut near, mut far| {
        {
            let mut buffer = [0; 4];
            let mut read = pin!(near.read(&mut buffer));
            assert!(poll_once(read.as_mut()).await.is_pending());
        }
        far.write_all(b"kept").await.unwrap();
        let mut buffer = [0; 4];
        near.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"kept");
    });
}

//! Readiness, and calls that do not wait.

use std::io::{Error, ErrorKind, IoSlice, IoSliceMut};
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

use super::*;
use crate::tools::{Count, poll_once, tick, until};

#[test]
fn a_new_stream_can_be_written_and_not_be_read() {
    both(async |near, _far| {
        settle(&near).await;
        let ready = near.ready(Interest::READABLE | Interest::WRITABLE).await.unwrap();
        assert!(ready.is_writable() && !ready.is_readable());
        assert!(!ready.is_read_closed() && !ready.is_write_closed());
        near.writable().await.unwrap();
        assert!(poll_once(pin!(near.readable())).await.is_pending());
    });
}

#[test]
fn without_data_a_try_would_block() {
    both(async |near, _far| {
        let mut space = [0; 4];
        assert_eq!(near.try_read(&mut space).unwrap_err().kind(), ErrorKind::WouldBlock);
        let mut slices = [IoSliceMut::new(&mut space)];
        assert_eq!(near.try_read_vectored(&mut slices).unwrap_err().kind(), ErrorKind::WouldBlock);
        let mut buffer = Vec::with_capacity(4);
        assert_eq!(near.try_read_buf(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn data_makes_a_stream_readable() {
    both(async |near, mut far| {
        settle(&near).await;
        let mut readable = pin!(near.readable());
        assert!(poll_once(readable.as_mut()).await.is_pending());
        far.write_all(b"data").await.unwrap();
        readable.await.unwrap();
        let mut space = [0; 8];
        assert_eq!(near.try_read(&mut space).unwrap(), 4);
        assert_eq!(&space[..4], b"data");
        assert_eq!(near.try_read(&mut space).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn what_is_left_unread_keeps_a_stream_readable() {
    both(async |near, mut far| {
        far.write_all(b"data").await.unwrap();
        for _ in 0..4 {
            near.readable().await.unwrap();
            assert_eq!(near.try_read(&mut [0; 1]).unwrap(), 1);
        }
        assert_eq!(near.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_try_reads_into_several_buffers() {
    both(async |near, mut far| {
        far.write_all(b"abcdefg").await.unwrap();
        near.readable().await.unwrap();
        let (mut first, mut empty, mut second, mut third) = ([0; 3], [], [0; 2], [0; 8]);
        let mut slices = [
            IoSliceMut::new(&mut first),
            IoSliceMut::new(&mut empty),
            IoSliceMut::new(&mut second),
            IoSliceMut::new(&mut third),
        ];
        assert_eq!(near.try_read_vectored(&mut slices).unwrap(), 7);
        assert_eq!((&first, &second, &third[..2]), (b"abc", b"de", &b"fg"[..]));
    });
}

#[test]
fn a_try_reads_into_a_buffer_that_grows() {
    both(async |near, mut far| {
        far.write_all(b"abcdefg").await.unwrap();
        near.readable().await.unwrap();
        let mut small = Vec::with_capacity(4);
        small.push(b'>');
        let room = small.capacity() - 1;
        assert_eq!(near.try_read_buf(&mut small).unwrap(), room.min(7));
        assert!(small.starts_with(b">abc"));
        let mut rest = BytesMut::with_capacity(64);
        if room < 7 {
            assert_eq!(near.try_read_buf(&mut rest).unwrap(), 7 - room);
        }
        assert_eq!([&small[1..], &rest[..]].concat(), b"abcdefg");
    });
}

#[test]
fn a_try_reads_more_than_a_segment_into_a_buffer_that_grows() {
    both(async |near, mut far| {
        let data = crate::tools::pattern(20_000);
        far.write_all(&data).await.unwrap();
        let mut received = Vec::with_capacity(32_000);
        while received.len() < data.len() {
            near.readable().await.unwrap();
            near.try_read_buf(&mut received).unwrap();
        }
        assert!(received == data);
    });
}

#[test]
fn the_end_makes_a_stream_readable_and_closed() {
    both(async |near, mut far| {
        settle(&near).await;
        let mut readable = pin!(near.readable());
        assert!(poll_once(readable.as_mut()).await.is_pending());
        far.shutdown().await.unwrap();
        readable.await.unwrap();
        let ready = near.ready(Interest::READABLE).await.unwrap();
        assert!(ready.is_readable() && ready.is_read_closed() && !ready.is_write_closed());
        assert_eq!(near.try_read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(near.try_read(&mut [0; 1]).unwrap(), 0);
        near.readable().await.unwrap();
        near.writable().await.unwrap();
    });
}

#[test]
fn a_reset_makes_a_stream_ready_in_both_directions() {
    both(async |near, far| {
        settle(&near).await;
        let mut readable = pin!(near.readable());
        assert!(poll_once(readable.as_mut()).await.is_pending());
        far.set_zero_linger().unwrap();
        drop(far);
        readable.await.unwrap();
        let ready = near.ready(Interest::READABLE | Interest::WRITABLE).await.unwrap();
        assert!(ready.is_readable() && ready.is_writable());
        assert!(ready.is_read_closed() && ready.is_write_closed());
        assert_eq!(near.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn an_error_can_be_waited_for() {
    both(async |near, far| {
        settle(&near).await;
        let mut error = pin!(near.ready(Interest::ERROR));
        assert!(poll_once(error.as_mut()).await.is_pending());
        far.set_zero_linger().unwrap();
        drop(far);
        assert!(error.await.unwrap().is_error());
    });
}

#[test]
fn a_full_stream_is_writable_again_once_its_reader_reads() {
    both(async |near, mut far| {
        let mut sent = 0;
        // The kernel makes its buffers larger while they fill.
        let mut idle = 0;
        while idle < 3 {
            match near.try_write(&[7; 65_536]) {
                Ok(len) => (sent, idle) = (sent + len, 0),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    idle += 1;
                    tick().await;
                }
            }
        }
        assert!(poll_once(pin!(near.writable())).await.is_pending());
        let (mut left, mut buffer) = (sent, vec![0; 65_536]);
        let (writable, ()) = tokio::join!(near.writable(), async {
            while left > 0 {
                left -= far.read(&mut buffer).await.unwrap();
            }
        });
        writable.unwrap();
        assert!(near.try_write(b"x").is_ok());
    });
}

#[test]
fn a_try_writes_several_slices() {
    both(async |near, mut far| {
        near.writable().await.unwrap();
        let slices = [b"ab".as_slice(), b"", b"cd"].map(IoSlice::new);
        assert_eq!(near.try_write_vectored(&slices).unwrap(), 4);
        let mut text = [0; 4];
        far.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"abcd");
    });
}

#[test]
fn after_a_shutdown_a_stream_is_writable_and_the_write_fails() {
    both(async |mut near, _far| {
        near.shutdown().await.unwrap();
        near.writable().await.unwrap();
        assert_eq!(near.try_write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn once_both_directions_are_closed_readiness_says_so() {
    both(async |mut near, mut far| {
        near.shutdown().await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
        loop {
            let ready = near.ready(Interest::READABLE | Interest::WRITABLE).await.unwrap();
            if ready.is_read_closed() && ready.is_write_closed() {
                break;
            }
            tick().await;
        }
    });
}

#[test]
fn all_tasks_that_wait_are_woken() {
    both(async |near, mut far| {
        settle(&near).await;
        let (first, second, third, written) =
            tokio::join!(near.readable(), near.readable(), near.ready(Interest::READABLE), async {
                tick().await;
                far.write_all(b"x").await
            });
        written.unwrap();
        first.and(second).unwrap();
        assert!(third.unwrap().is_readable());
    });
}

#[test]
fn a_task_that_waits_for_both_is_woken_by_either() {
    both(async |near, mut far| {
        let both = Interest::READABLE | Interest::WRITABLE;
        assert!(near.ready(both).await.unwrap().is_writable());
        far.write_all(b"x").await.unwrap();
        near.readable().await.unwrap();
        let ready = near.ready(both).await.unwrap();
        assert!(ready.is_readable() && ready.is_writable());
    });
}

#[test]
fn read_readiness_can_be_polled() {
    both(async |near, mut far| {
        settle(&near).await;
        let (count, waker) = Count::new();
        let mut context = Context::from_waker(&waker);
        assert!(near.poll_read_ready(&mut context).is_pending());
        assert_eq!(count.get(), 0);
        far.write_all(b"x").await.unwrap();
        until(|| count.get() > 0).await;
        assert!(matches!(near.poll_read_ready(&mut context), Poll::Ready(Ok(()))));
        assert_eq!(near.try_read(&mut [0; 2]).unwrap(), 1);
        assert_eq!(near.try_read(&mut [0; 2]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(near.poll_read_ready(&mut context).is_pending());
    });
}

#[test]
fn write_readiness_can_be_polled() {
    both(async |near, _far| {
        near.writable().await.unwrap();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(near.poll_write_ready(&mut context), Poll::Ready(Ok(()))));
    });
}

#[test]
fn of_two_tasks_that_poll_for_reading_the_last_is_woken() {
    both(async |near, mut far| {
        settle(&near).await;
        let (first, first_waker) = Count::new();
        let (last, last_waker) = Count::new();
        assert!(near.poll_read_ready(&mut Context::from_waker(&first_waker)).is_pending());
        assert!(near.poll_read_ready(&mut Context::from_waker(&last_waker)).is_pending());
        far.write_all(b"x").await.unwrap();
        until(|| last.get() > 0).await;
        assert_eq!(first.get(), 0);
    });
}

#[test]
fn an_operation_is_tried_only_if_the_stream_is_ready() {
    both(async |near, mut far| {
        settle(&near).await;
        let refused = near.try_io(Interest::READABLE, || -> std::io::Result<()> { panic!("not ready") });
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::WouldBlock);
        far.write_all(b"x").await.unwrap();
        near.readable().await.unwrap();
        assert_eq!(near.try_io(Interest::READABLE, || Ok(7)).unwrap(), 7);
        let failed: std::io::Result<()> = near.try_io(Interest::READABLE, || Err(Error::other("no")));
        assert_eq!(failed.unwrap_err().to_string(), "no");
        near.writable().await.unwrap();
        assert_eq!(near.try_io(Interest::WRITABLE, || Ok("w")).unwrap(), "w");
    });
}

#[test]
fn an_operation_is_repeated_while_it_would_block() {
    both(async |near, mut far| {
        let mut calls = 0;
        let operation = near.async_io(Interest::READABLE, || {
            calls += 1;
            if calls < 2 { Err(ErrorKind::WouldBlock.into()) } else { Ok(calls) }
        });
        let (done, ()) = tokio::join!(operation, async {
            for _ in 0..2 {
                tick().await;
                far.write_all(b"x").await.unwrap();
            }
        });
        assert_eq!(done.unwrap(), 2);
    });
}

#[test]
fn a_loop_of_tries_echoes_everything() {
    both(async |near, far| {
        let data = crate::tools::pattern(400_000);
        let echo = tokio::spawn(async move {
            let mut waiting: Vec<u8> = Vec::new();
            let mut ended = false;
            while !ended || !waiting.is_empty() {
                let interest = match (ended, waiting.is_empty()) {
                    (true, _) => Interest::WRITABLE,
                    (false, true) => Interest::READABLE,
                    (false, false) => Interest::READABLE | Interest::WRITABLE,
                };
                let ready = near.ready(interest).await.unwrap();
                if ready.is_readable() && !ended {
                    match near.try_read_buf(&mut waiting) {
                        Ok(0) => ended = true,
                        Ok(_) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                    waiting.reserve(8192);
                }
                if ready.is_writable() {
                    match near.try_write(&waiting) {
                        Ok(len) => drop(waiting.drain(..len)),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                }
            }
        });
        let (mut reader, mut writer) = far.into_split();
        let sent = data.clone();
        let writer = tokio::spawn(async move { writer.write_all(&sent).await });
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.unwrap();
        assert!(received == data);
        writer.await.unwrap().unwrap();
        echo.await.unwrap();
    });
}

//! Futures that are dropped before they are done. Each case drops a future after no poll, after one, and so on, until
//! it is done, so that it is dropped at each of its await points. Then nothing may be lost.

use std::io::{ErrorKind, IoSlice};

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

use super::*;
use crate::tools::{cancel_after, pattern, tick};

/// The most polls of a case.
const POLLS: usize = 6;

#[test]
fn an_accept_that_is_dropped_loses_no_connection() {
    run(async |world| {
        let listener = world.bind((world.ip(), 0)).await.unwrap();
        for polls in 0..POLLS {
            let (accepted, far) = tokio::join!(
                cancel_after(polls, listener.accept()),
                world.peer_connect(listener.local_addr().unwrap())
            );
            let (_, peer) = match accepted {
                Some(accepted) => accepted.unwrap(),
                None => listener.accept().await.unwrap(),
            };
            assert_eq!(peer, far.unwrap().local_addr().unwrap());
        }
    });
}

#[test]
fn a_connect_that_is_dropped_leaves_a_closed_connection_or_none() {
    run(async |world| {
        let listener = world.peer_bind((world.peer_ip(), 0)).await.unwrap();
        for polls in 0..POLLS {
            drop(cancel_after(polls, world.connect(listener.local_addr().unwrap())).await);
            // The next one works. Connections of those that were dropped are at their end.
            let mut stream = world.connect(listener.local_addr().unwrap()).await.unwrap();
            let local = stream.local_addr().unwrap();
            loop {
                let (mut far, peer) = listener.accept().await.unwrap();
                if peer == local {
                    far.write_all(b"x").await.unwrap();
                    break;
                }
                assert!(matches!(far.read(&mut [0; 1]).await, Ok(0) | Err(_)));
            }
            stream.read_exact(&mut [0; 1]).await.unwrap();
        }
    });
}

#[test]
fn a_bind_that_is_dropped_leaves_the_address_free() {
    run(async |world| {
        let at = world.bind((world.ip(), 0)).await.unwrap().local_addr().unwrap();
        for polls in 0..POLLS {
            drop(cancel_after(polls, world.bind(at)).await);
            world.bind(at).await.unwrap();
        }
    });
}

#[test]
fn a_lookup_that_is_dropped_can_be_repeated() {
    run(async |world| {
        for polls in 0..POLLS {
            drop(cancel_after(polls, world.lookup("192.0.2.1:80")).await);
            assert_eq!(world.lookup("192.0.2.1:80").await.unwrap().count(), 1);
        }
    });
}

#[test]
fn a_read_that_is_dropped_loses_no_byte() {
    both(async |mut near, mut far| {
        let data = pattern(POLLS * 1000);
        let mut received = Vec::new();
        let mut buffer = [0; 700];
        for (polls, part) in data.chunks(1000).enumerate() {
            let (read, written) =
                tokio::join!(cancel_after(polls, near.read(&mut buffer)), far.write_all(part));
            written.unwrap();
            if let Some(len) = read {
                received.extend_from_slice(&buffer[..len.unwrap()]);
            }
        }
        drop(far);
        near.read_to_end(&mut received).await.unwrap();
        assert!(received == data);
    });
}

#[test]
fn a_read_into_a_buffer_that_grows_loses_no_byte() {
    both(async |mut near, mut far| {
        let data = pattern(POLLS * 1000);
        let mut received = Vec::new();
        for (polls, part) in data.chunks(1000).enumerate() {
            let (_, written) =
                tokio::join!(cancel_after(polls, near.read_buf(&mut received)), far.write_all(part));
            written.unwrap();
        }
        drop(far);
        near.read_to_end(&mut received).await.unwrap();
        assert!(received == data);
    });
}

#[test]
fn a_peek_that_is_dropped_takes_nothing() {
    both(async |mut near, mut far| {
        let mut buffer = [0; 16];
        for polls in 0..POLLS {
            let (_, written) =
                tokio::join!(cancel_after(polls, near.peek(&mut buffer)), far.write_all(b"ab"));
            written.unwrap();
            near.read_exact(&mut buffer[..2]).await.unwrap();
            assert_eq!(&buffer[..2], b"ab");
        }
    });
}

#[test]
fn a_wait_for_reading_that_is_dropped_changes_nothing() {
    both(async |mut near, mut far| {
        for polls in 0..POLLS {
            let (_, written) = tokio::join!(cancel_after(polls, near.readable()), far.write_all(b"ab"));
            written.unwrap();
            near.readable().await.unwrap();
            near.read_exact(&mut [0; 2]).await.unwrap();
        }
    });
}

#[test]
fn a_wait_for_an_interest_that_is_dropped_changes_nothing() {
    both(async |mut near, mut far| {
        for polls in 0..POLLS {
            let ready = near.ready(Interest::READABLE | Interest::ERROR);
            let (_, written) = tokio::join!(cancel_after(polls, ready), far.write_all(b"ab"));
            written.unwrap();
            assert!(near.ready(Interest::READABLE).await.unwrap().is_readable());
            near.read_exact(&mut [0; 2]).await.unwrap();
        }
    });
}

#[test]
fn a_wait_for_writing_that_is_dropped_changes_nothing() {
    both(async |mut near, mut far| {
        for polls in 0..POLLS {
            drop(cancel_after(polls, near.writable()).await);
            near.write_all(b"ab").await.unwrap();
            far.read_exact(&mut [0; 2]).await.unwrap();
        }
    });
}

#[test]
fn a_write_that_is_dropped_has_written_all_of_what_it_told_and_nothing_else() {
    both(async |mut near, far| {
        let (mut reader, _writer) = far.into_split();
        let received = tokio::spawn(async move {
            let mut received = Vec::new();
            let mut buffer = vec![0; 50_000];
            loop {
                tick().await;
                match reader.read(&mut buffer).await.unwrap() {
                    0 => break received,
                    len => received.extend_from_slice(&buffer[..len]),
                }
            }
        });
        let mut sent = Vec::new();
        for round in 0..30 {
            let data: Vec<u8> = pattern(300_000).iter().map(|byte| byte ^ round as u8).collect();
            if let Some(len) = cancel_after(round % POLLS, near.write(&data)).await {
                sent.extend_from_slice(&data[..len.unwrap()]);
            }
        }
        drop(near);
        assert!(received.await.unwrap() == sent);
    });
}

#[test]
fn a_write_of_slices_that_is_dropped_has_written_what_it_told() {
    both(async |mut near, mut far| {
        let mut sent = Vec::new();
        for polls in 0..POLLS {
            let data = pattern(5000 + polls);
            let slices = [IoSlice::new(&data[..2000]), IoSlice::new(&data[2000..])];
            if let Some(len) = cancel_after(polls, near.write_vectored(&slices)).await {
                sent.extend_from_slice(&data[..len.unwrap()]);
            }
        }
        drop(near);
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert!(received == sent);
    });
}

#[test]
fn a_shutdown_that_is_never_polled_does_nothing() {
    both(async |mut near, mut far| {
        assert!(cancel_after(0, near.shutdown()).await.is_none());
        near.write_all(b"x").await.unwrap();
        far.read_exact(&mut [0; 1]).await.unwrap();
        assert_eq!(far.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        cancel_after(1, near.shutdown()).await.unwrap().unwrap();
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn an_operation_that_is_dropped_is_not_called_any_more() {
    both(async |near, mut far| {
        for polls in 0..POLLS {
            let mut calls = 0;
            let operation = near.async_io(Interest::READABLE, || {
                calls += 1;
                near.try_read(&mut [0; 1])
            });
            let done = cancel_after(polls, operation).await;
            assert!(done.is_none());
            far.write_all(b"x").await.unwrap();
            near.readable().await.unwrap();
            let before = calls;
            tick().await;
            assert_eq!(calls, before);
            while near.try_read(&mut [0; 1]).is_ok() {}
        }
    });
}

#[test]
fn a_copy_that_is_dropped_leaves_both_streams_usable() {
    run(async |world| {
        let (mut first, mut source) = world.accepted().await;
        let (mut second, mut sink) = world.connected().await;
        for polls in 0..POLLS {
            let copy = tokio::io::copy_bidirectional(&mut first, &mut second);
            assert!(cancel_after(polls, copy).await.is_none());
        }
        source.write_all(b"after").await.unwrap();
        let mut text = [0; 5];
        first.read_exact(&mut text).await.unwrap();
        second.write_all(&text).await.unwrap();
        sink.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"after");
    });
}

#[test]
fn a_read_half_whose_read_was_dropped_is_joined_again() {
    both(async |near, mut far| {
        let (mut reader, writer) = near.into_split();
        for polls in 0..POLLS {
            assert!(cancel_after(polls, reader.read(&mut [0; 4])).await.is_none());
        }
        let mut near = reader.reunite(writer).unwrap();
        far.write_all(b"kept").await.unwrap();
        let mut text = [0; 4];
        near.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"kept");
    });
}

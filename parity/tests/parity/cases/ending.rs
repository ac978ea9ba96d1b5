//! How connections end.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::tools::{pattern, poll_once, until};

#[test]
fn a_shutdown_is_the_end_of_the_stream_once_all_is_read() {
    both(async |mut near, mut far| {
        far.write_all(b"last").await.unwrap();
        far.shutdown().await.unwrap();
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "last");
        // Again and again.
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn after_a_shutdown_the_other_direction_goes_on() {
    both(async |mut near, mut far| {
        near.shutdown().await.unwrap();
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        let data = pattern(200_000);
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
fn after_the_peers_shutdown_a_write_still_arrives() {
    both(async |mut near, mut far| {
        far.shutdown().await.unwrap();
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
        near.write_all(b"late").await.unwrap();
        near.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "late");
    });
}

#[test]
fn a_write_after_a_shutdown_is_a_broken_pipe() {
    both(async |mut near, _far| {
        near.shutdown().await.unwrap();
        assert_eq!(near.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(near.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_second_shutdown_is_no_error() {
    both(async |mut near, mut far| {
        near.shutdown().await.unwrap();
        near.shutdown().await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
        near.shutdown().await.unwrap();
    });
}

#[test]
fn a_dropped_stream_is_the_end_for_its_peer() {
    both(async |near, mut far| {
        drop(near);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn written_data_arrives_after_the_stream_is_dropped() {
    both(async |mut near, mut far| {
        let data = pattern(100_000);
        near.write_all(&data).await.unwrap();
        drop(near);
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert!(received == data);
    });
}

#[test]
fn unread_data_makes_a_dropped_stream_reset() {
    both(async |near, mut far| {
        far.write_all(b"nobody reads this").await.unwrap();
        near.readable().await.unwrap();
        drop(near);
        let error = far.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::ConnectionReset, Some(104)));
    });
}

#[test]
fn zero_linger_makes_a_dropped_stream_reset() {
    both(async |near, mut far| {
        near.set_zero_linger().unwrap();
        drop(near);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_reset_is_told_once_then_the_stream_is_at_its_end() {
    both(async |mut near, far| {
        far.set_zero_linger().unwrap();
        drop(far);
        let error = near.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::ConnectionReset, Some(104)));
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(near.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_write_after_a_reset_tells_it() {
    both(async |mut near, far| {
        far.set_zero_linger().unwrap();
        drop(far);
        near.readable().await.unwrap();
        assert_eq!(near.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(near.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn a_shutdown_after_a_reset_is_no_error() {
    both(async |mut near, far| {
        far.set_zero_linger().unwrap();
        drop(far);
        near.readable().await.unwrap();
        near.shutdown().await.unwrap();
    });
}

#[test]
fn a_pending_read_is_woken_by_the_end() {
    both(async |mut near, mut far| {
        let mut buffer = [0; 1];
        let mut read = pin!(near.read(&mut buffer));
        assert!(poll_once(read.as_mut()).await.is_pending());
        far.shutdown().await.unwrap();
        assert_eq!(read.await.unwrap(), 0);
    });
}

#[test]
fn a_pending_read_is_woken_by_a_reset() {
    both(async |mut near, far| {
        let mut buffer = [0; 1];
        let mut read = pin!(near.read(&mut buffer));
        assert!(poll_once(read.as_mut()).await.is_pending());
        far.set_zero_linger().unwrap();
        drop(far);
        assert_eq!(read.await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_pending_write_is_woken_by_a_reset() {
    both(async |near, far| {
        while near.try_write(&[7; 65_536]).is_ok() {}
        let mut near = near;
        let data = vec![7; 30_000_000];
        let (written, ()) = tokio::join!(near.write_all(&data), async {
            crate::tools::tick().await;
            far.set_zero_linger().unwrap();
            drop(far);
        });
        assert_eq!(written.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn the_error_of_a_reset_can_be_taken() {
    both(async |mut near, far| {
        assert!(near.take_error().unwrap().is_none());
        far.set_zero_linger().unwrap();
        drop(far);
        near.readable().await.unwrap();
        let error = near.take_error().unwrap().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(near.take_error().unwrap().is_none());
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn data_before_a_reset_is_lost_or_read_but_never_the_end() {
    both(async |mut near, mut far| {
        far.write_all(b"then").await.unwrap();
        near.readable().await.unwrap();
        far.set_zero_linger().unwrap();
        drop(far);
        let mut received = Vec::new();
        let error = near.read_to_end(&mut received).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(received.is_empty() || received == b"then");
    });
}

#[test]
fn a_write_to_a_peer_that_is_gone_fails_in_the_end() {
    both(async |mut near, far| {
        drop(far);
        let mut failed = None;
        while failed.is_none() {
            failed = near.write(b"x").await.err();
            crate::tools::tick().await;
        }
        let kind = failed.unwrap().kind();
        assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{kind}");
    });
}

#[test]
fn both_sides_may_close_at_once() {
    both(async |mut near, mut far| {
        let (ours, theirs) = tokio::join!(near.shutdown(), far.shutdown());
        ours.and(theirs).unwrap();
        let (mut one, mut other) = ([0; 1], [0; 1]);
        let (ours, theirs) = tokio::join!(near.read(&mut one), far.read(&mut other));
        assert_eq!((ours.unwrap(), theirs.unwrap()), (0, 0));
    });
}

#[test]
fn a_reader_that_is_slow_gets_everything_from_a_dropped_writer() {
    both(async |mut near, mut far| {
        let data = pattern(60_000);
        far.write_all(&data).await.unwrap();
        drop(far);
        let (mut received, mut buffer) = (Vec::new(), [0; 7000]);
        loop {
            tokio::time::sleep(Duration::from_micros(100)).await;
            match near.read(&mut buffer).await.unwrap() {
                0 => break,
                len => received.extend_from_slice(&buffer[..len]),
            }
        }
        assert!(received == data);
    });
}

#[test]
fn a_peer_that_shut_down_and_reads_on_does_not_end_our_writes() {
    both(async |near, mut far| {
        far.shutdown().await.unwrap();
        until(|| near.try_read(&mut [0; 1]).is_ok()).await;
        for _ in 0..3 {
            near.writable().await.unwrap();
            assert_eq!(near.try_write(b"on").unwrap(), 2);
        }
        far.read_exact(&mut [0; 6]).await.unwrap();
    });
}

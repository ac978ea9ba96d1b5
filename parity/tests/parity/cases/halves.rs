//! The halves of streams.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

use super::*;
use crate::tools::pattern;

#[test]
fn borrowed_halves_read_and_write_at_once() {
    both(async |mut near, mut far| {
        let data = pattern(1_000_000);
        let echo = tokio::spawn(async move {
            let (mut reader, mut writer) = far.split();
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let (mut reader, mut writer) = near.split();
        let mut received = Vec::new();
        let (written, read) = tokio::join!(
            async {
                writer.write_all(&data).await.unwrap();
                writer.shutdown().await
            },
            reader.read_to_end(&mut received)
        );
        written.unwrap();
        assert_eq!(read.unwrap(), data.len());
        assert!(received == data);
        echo.await.unwrap();
    });
}

#[test]
fn owned_halves_live_in_two_tasks() {
    both(async |near, far| {
        let data = pattern(500_000);
        let ((mut near_reader, mut near_writer), (mut far_reader, mut far_writer)) =
            (near.into_split(), far.into_split());
        let sent = data.clone();
        let writer = tokio::spawn(async move { near_writer.write_all(&sent).await });
        let echo = tokio::spawn(async move { tokio::io::copy(&mut far_reader, &mut far_writer).await });
        let mut received = Vec::new();
        near_reader.read_to_end(&mut received).await.unwrap();
        assert!(received == data);
        writer.await.unwrap().unwrap();
        assert_eq!(echo.await.unwrap().unwrap(), 500_000);
    });
}

#[test]
fn a_dropped_write_half_ends_the_stream_and_the_read_half_goes_on() {
    both(async |near, mut far| {
        let (mut reader, mut writer) = near.into_split();
        writer.write_all(b"bye").await.unwrap();
        drop(writer);
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "bye");
        far.write_all(b"and to you").await.unwrap();
        drop(far);
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "and to you");
    });
}

#[test]
fn a_forgotten_write_half_leaves_the_stream_open() {
    both(async |near, mut far| {
        let (reader, writer) = near.into_split();
        writer.forget();
        assert_eq!(far.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(reader);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn a_dropped_read_half_leaves_the_stream_open() {
    both(async |near, mut far| {
        let (reader, mut writer) = near.into_split();
        drop(reader);
        writer.write_all(b"on").await.unwrap();
        far.read_exact(&mut [0; 2]).await.unwrap();
        drop(writer);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn halves_are_joined_again() {
    both(async |near, mut far| {
        let (reader, writer) = near.into_split();
        let (reader, writer) = reader.reunite(writer).unwrap().into_split();
        let mut near = writer.reunite(reader).unwrap();
        near.write_all(b"whole").await.unwrap();
        far.read_exact(&mut [0; 5]).await.unwrap();
        assert_eq!(far.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn halves_of_two_streams_are_not_joined() {
    run(async |world| {
        let (first, _first_far) = world.connected().await;
        let (second, mut second_far) = world.accepted().await;
        let ((first_reader, first_writer), (second_reader, second_writer)) =
            (first.into_split(), second.into_split());
        let near::tcp::ReuniteError(first_reader, second_writer) =
            first_reader.reunite(second_writer).unwrap_err();
        let error = second_writer.reunite(first_reader).unwrap_err();
        let (first_reader, mut second_writer) = (error.0, error.1);
        // They are as they were.
        second_writer.write_all(b"x").await.unwrap();
        second_far.read_exact(&mut [0; 1]).await.unwrap();
        second_reader.reunite(second_writer).unwrap();
        first_reader.reunite(first_writer).unwrap();
    });
}

#[test]
fn halves_know_their_addresses_and_their_stream() {
    both(async |mut near, _far| {
        let (local, peer) = (near.local_addr().unwrap(), near.peer_addr().unwrap());
        let (reader, writer) = near.split();
        assert_eq!((reader.local_addr().unwrap(), reader.peer_addr().unwrap()), (local, peer));
        assert_eq!((writer.local_addr().unwrap(), writer.peer_addr().unwrap()), (local, peer));
        let stream: &near::TcpStream = reader.as_ref();
        assert_eq!(stream.local_addr().unwrap(), local);
        let stream: &near::TcpStream = writer.as_ref();
        assert_eq!(stream.local_addr().unwrap(), local);
        let (reader, writer) = near.into_split();
        assert_eq!((reader.local_addr().unwrap(), reader.peer_addr().unwrap()), (local, peer));
        assert_eq!((writer.local_addr().unwrap(), writer.peer_addr().unwrap()), (local, peer));
        let stream: &near::TcpStream = reader.as_ref();
        stream.set_nodelay(true).unwrap();
        let stream: &near::TcpStream = writer.as_ref();
        assert!(stream.nodelay().unwrap());
    });
}

#[test]
fn borrowed_halves_tell_readiness() {
    both(async |mut near, mut far| {
        let (mut reader, writer) = near.split();
        assert_eq!(reader.try_read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        writer.writable().await.unwrap();
        assert_eq!(writer.try_write(b"ab").unwrap(), 2);
        assert!(writer.ready(Interest::WRITABLE).await.unwrap().is_writable());
        far.read_exact(&mut [0; 2]).await.unwrap();
        far.write_all(b"cde").await.unwrap();
        reader.readable().await.unwrap();
        assert!(reader.ready(Interest::READABLE).await.unwrap().is_readable());
        assert_eq!(reader.peek(&mut [0; 8]).await.unwrap(), 3);
        let mut text = Vec::with_capacity(8);
        assert_eq!(reader.try_read_buf(&mut text).unwrap(), 3);
        assert_eq!(text, b"cde");
    });
}

#[test]
fn owned_halves_tell_readiness() {
    both(async |near, mut far| {
        let (mut reader, writer) = near.into_split();
        assert_eq!(reader.try_read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        writer.writable().await.unwrap();
        assert_eq!(writer.try_write(b"ab").unwrap(), 2);
        assert!(writer.ready(Interest::WRITABLE).await.unwrap().is_writable());
        far.read_exact(&mut [0; 2]).await.unwrap();
        far.write_all(b"cde").await.unwrap();
        reader.readable().await.unwrap();
        assert!(reader.ready(Interest::READABLE).await.unwrap().is_readable());
        assert_eq!(reader.peek(&mut [0; 8]).await.unwrap(), 3);
        assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 3);
    });
}

#[test]
fn shutting_a_half_down_ends_the_stream() {
    both(async |mut near, mut far| {
        let (_reader, mut writer) = near.split();
        writer.shutdown().await.unwrap();
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        let (_reader, mut writer) = far.into_split();
        writer.shutdown().await.unwrap();
        assert_eq!(writer.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

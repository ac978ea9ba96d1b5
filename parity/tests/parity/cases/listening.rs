//! Listeners.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::tools::{Count, poll_once, until};

#[test]
fn port_0_picks_a_free_port() {
    run(async |world| {
        let first = world.bind((world.ip(), 0)).await.unwrap();
        let second = world.bind((world.ip(), 0)).await.unwrap();
        let ports = [&first, &second].map(|listener| listener.local_addr().unwrap().port());
        assert!(ports[0] != ports[1] && !ports.contains(&0));
    });
}

#[test]
fn a_taken_address_is_in_use_until_its_listener_is_dropped() {
    run(async |world| {
        let listener = world.bind((world.ip(), 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        assert_eq!(world.bind(at).await.unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(listener);
        world.bind(at).await.unwrap();
    });
}

#[test]
fn a_foreign_address_is_not_available() {
    run(async |world| {
        let error = world.bind("198.51.100.1:80").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn a_port_that_nobody_listens_on_refuses() {
    run(async |world| {
        let at = world.peer_bind((world.peer_ip(), 0)).await.unwrap().local_addr().unwrap();
        let error = world.connect(at).await.unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::ConnectionRefused, Some(111)));
        let at = world.bind((world.ip(), 0)).await.unwrap().local_addr().unwrap();
        assert_eq!(world.peer_connect(at).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn the_unspecified_address_takes_connections_to_each_address() {
    run(async |world| {
        let listener = world.bind("0.0.0.0:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        assert!(at.ip().is_unspecified());
        let _far = world.peer_connect((world.ip(), at.port())).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), SocketAddr::from((world.ip(), at.port())));
    });
}

#[test]
fn both_ends_know_both_addresses() {
    run(async |world| {
        for (near, far) in [world.connected().await, world.accepted().await] {
            assert_eq!(near.local_addr().unwrap(), far.peer_addr().unwrap());
            assert_eq!(near.peer_addr().unwrap(), far.local_addr().unwrap());
        }
    });
}

#[test]
fn connections_are_accepted_in_their_order() {
    run(async |world| {
        let listener = world.bind((world.ip(), 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut peers = Vec::new();
        for _ in 0..5 {
            let mut far = world.peer_connect(at).await.unwrap();
            far.write_all(b"x").await.unwrap();
            peers.push(far);
        }
        for far in &peers {
            let (mut near, peer) = listener.accept().await.unwrap();
            assert_eq!(peer, far.local_addr().unwrap());
            assert_eq!(near.read(&mut [0; 2]).await.unwrap(), 1);
        }
    });
}

#[test]
fn data_that_came_before_the_accept_is_read() {
    run(async |world| {
        let listener = world.bind((world.ip(), 0)).await.unwrap();
        let mut far = world.peer_connect(listener.local_addr().unwrap()).await.unwrap();
        far.write_all(b"early").await.unwrap();
        far.shutdown().await.unwrap();
        let (mut near, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "early");
    });
}

#[test]
fn a_connection_that_its_peer_closed_is_still_accepted() {
    run(async |world| {
        let listener = world.bind((world.ip(), 0)).await.unwrap();
        let far = world.peer_connect(listener.local_addr().unwrap()).await.unwrap();
        let from = far.local_addr().unwrap();
        drop(far);
        let (mut near, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, from);
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn connections_that_nobody_accepted_are_reset_when_the_listener_is_dropped() {
    run(async |world| {
        let listener = world.bind((world.ip(), 0)).await.unwrap();
        let mut far = world.peer_connect(listener.local_addr().unwrap()).await.unwrap();
        let mut context = Context::from_waker(std::task::Waker::noop());
        // The connection is in the queue once the listener could accept it.
        let (mut near, _) = listener.accept().await.unwrap();
        let mut second = world.peer_connect(listener.local_addr().unwrap()).await.unwrap();
        near.write_all(b"x").await.unwrap();
        far.read_exact(&mut [0; 1]).await.unwrap();
        drop(listener);
        assert_eq!(second.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(pin!(far.read(&mut [0; 1])).as_mut().poll(&mut context).is_pending());
    });
}

#[test]
fn several_tasks_may_accept() {
    run(async |world| {
        let listener = Arc::new(world.bind((world.ip(), 0)).await.unwrap());
        let accept = || {
            let listener = listener.clone();
            tokio::spawn(async move { listener.accept().await.unwrap().1 })
        };
        let tasks = [accept(), accept(), accept()];
        tokio::task::yield_now().await;
        let mut local = Vec::new();
        let mut peers = Vec::new();
        for _ in 0..3 {
            let far = world.peer_connect(listener.local_addr().unwrap()).await.unwrap();
            local.push(far.local_addr().unwrap());
            peers.push(far);
        }
        let mut accepted = Vec::new();
        for task in tasks {
            accepted.push(task.await.unwrap());
        }
        local.sort();
        accepted.sort();
        assert_eq!(accepted, local);
    });
}

#[test]
fn a_polled_accept_is_pending_until_a_connection_comes_and_then_wakes() {
    run(async |world| {
        let listener = world.bind((world.ip(), 0)).await.unwrap();
        let (count, waker) = Count::new();
        let mut context = Context::from_waker(&waker);
        assert!(listener.poll_accept(&mut context).is_pending());
        assert_eq!(count.get(), 0);
        let far = world.peer_connect(listener.local_addr().unwrap()).await.unwrap();
        until(|| count.get() > 0).await;
        match listener.poll_accept(&mut context) {
            Poll::Ready(Ok((_, peer))) => assert_eq!(peer, far.local_addr().unwrap()),
            other => panic!("{other:?}"),
        }
        assert!(listener.poll_accept(&mut context).is_pending());
    });
}

#[test]
fn of_two_tasks_that_poll_the_last_is_woken() {
    run(async |world| {
        let listener = world.bind((world.ip(), 0)).await.unwrap();
        let (first, first_waker) = Count::new();
        let (last, last_waker) = Count::new();
        assert!(listener.poll_accept(&mut Context::from_waker(&first_waker)).is_pending());
        assert!(listener.poll_accept(&mut Context::from_waker(&last_waker)).is_pending());
        let _far = world.peer_connect(listener.local_addr().unwrap()).await.unwrap();
        until(|| last.get() > 0).await;
        assert_eq!(first.get(), 0);
    });
}

#[test]
fn a_polled_accept_and_a_task_in_accept_both_wait() {
    run(async |world| {
        let listener = world.bind((world.ip(), 0)).await.unwrap();
        let (count, waker) = Count::new();
        assert!(listener.poll_accept(&mut Context::from_waker(&waker)).is_pending());
        let mut accept = pin!(listener.accept());
        assert!(poll_once(accept.as_mut()).await.is_pending());
        let far = world.peer_connect(listener.local_addr().unwrap()).await.unwrap();
        assert_eq!(accept.await.unwrap().1, far.local_addr().unwrap());
        until(|| count.get() > 0).await;
    });
}

#[test]
fn the_ttl_of_a_listener_is_that_of_its_streams() {
    run(async |world| {
        let listener = world.bind((world.ip(), 0)).await.unwrap();
        assert_eq!(listener.ttl().unwrap(), 64);
        listener.set_ttl(7).unwrap();
        assert_eq!(listener.ttl().unwrap(), 7);
        let _far = world.peer_connect(listener.local_addr().unwrap()).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().0.ttl().unwrap(), 7);
        for ttl in [0, 256] {
            assert_eq!(listener.set_ttl(ttl).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    });
}

//! UDP sockets.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{Interest, ReadBuf};

use super::*;
use crate::tools::{Count, cancel_after, pattern, until};

/// The tested socket and the peer's, not connected, with their addresses.
struct Sockets {
    near: near::UdpSocket,
    far: far::UdpSocket,
    near_at: SocketAddr,
    far_at: SocketAddr,
}

fn with_sockets(case: impl AsyncFn(Sockets)) {
    run(async |world| {
        let near = world.bind_udp((world.ip(), 0)).await.unwrap();
        let far = world.peer_bind_udp((world.peer_ip(), 0)).await.unwrap();
        let (near_at, far_at) = (near.local_addr().unwrap(), far.local_addr().unwrap());
        case(Sockets { near, far, near_at, far_at }).await;
    });
}

#[test]
fn datagrams_keep_their_borders() {
    with_sockets(async |Sockets { near, far, near_at, far_at }| {
        for len in [0, 1, 1000, 1472] {
            assert_eq!(near.send_to(&pattern(len), far_at).await.unwrap(), len);
        }
        let mut buffer = [0; 2000];
        for len in [0, 1, 1000, 1472] {
            assert_eq!(far.recv_from(&mut buffer).await.unwrap(), (len, near_at));
            assert_eq!(&buffer[..len], pattern(len));
            far.send_to(&buffer[..len], near_at).await.unwrap();
            assert_eq!(near.recv_from(&mut buffer).await.unwrap(), (len, far_at));
            assert_eq!(&buffer[..len], pattern(len));
        }
    });
}

#[test]
fn a_datagram_longer_than_the_mtu_arrives_whole() {
    with_sockets(async |Sockets { near, far, near_at, far_at }| {
        let mut buffer = vec![0; 65_536];
        near.send_to(&pattern(20_000), far_at).await.unwrap();
        assert_eq!(far.recv(&mut buffer).await.unwrap(), 20_000);
        assert_eq!(&buffer[..20_000], pattern(20_000));
        far.send_to(&pattern(30_000), near_at).await.unwrap();
        assert_eq!(near.recv(&mut buffer).await.unwrap(), 30_000);
        assert_eq!(&buffer[..30_000], pattern(30_000));
    });
}

#[test]
fn a_datagram_that_no_packet_can_carry_is_refused() {
    with_sockets(async |Sockets { near, far_at, .. }| {
        let error = near.send_to(&vec![0; 65_508], far_at).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(90), "EMSGSIZE");
    });
}

#[test]
fn what_does_not_fit_into_the_buffer_is_lost() {
    with_sockets(async |Sockets { near, far, near_at, .. }| {
        far.send_to(b"too long", near_at).await.unwrap();
        far.send_to(b"next", near_at).await.unwrap();
        let mut buffer = [0; 3];
        assert_eq!(near.recv(&mut buffer).await.unwrap(), 3);
        assert_eq!(&buffer, b"too");
        assert_eq!(near.recv(&mut buffer).await.unwrap(), 3);
        assert_eq!(&buffer, b"nex");
    });
}

#[test]
fn without_a_peer_send_fails() {
    with_sockets(async |Sockets { near, .. }| {
        assert_eq!(near.send(b"?").await.unwrap_err().raw_os_error(), Some(89), "EDESTADDRREQ");
        assert_eq!(near.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn a_connected_socket_hears_its_peer_alone() {
    run(async |world| {
        let near = world.bind_udp((world.ip(), 0)).await.unwrap();
        let near_at = near.local_addr().unwrap();
        let far = world.peer_bind_udp((world.peer_ip(), 0)).await.unwrap();
        let stranger = world.peer_bind_udp((world.peer_ip(), 0)).await.unwrap();
        near.connect(far.local_addr().unwrap()).await.unwrap();
        assert_eq!(near.peer_addr().unwrap(), far.local_addr().unwrap());
        stranger.send_to(b"stranger", near_at).await.unwrap();
        far.send_to(b"peer", near_at).await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(near.recv(&mut buffer).await.unwrap(), 4);
        assert_eq!(near.send(b"to the peer").await.unwrap(), 11);
        assert_eq!(far.recv(&mut buffer).await.unwrap(), 11);
        assert_eq!(near.try_recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_connected_socket_is_told_once_that_nobody_listens() {
    with_sockets(async |Sockets { near, far, far_at, .. }| {
        drop(far);
        near.connect(far_at).await.unwrap();
        near.send(b"?").await.unwrap();
        assert_eq!(near.recv(&mut [0; 16]).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(near.try_recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
        near.send(b"?").await.unwrap();
        until(|| near.take_error().unwrap().is_some()).await;
        assert!(near.take_error().unwrap().is_none());
    });
}

#[test]
fn a_port_that_is_taken_is_refused_until_it_is_free() {
    run(async |world| {
        let near = world.bind_udp((world.ip(), 0)).await.unwrap();
        let at = near.local_addr().unwrap();
        assert_eq!(world.bind_udp(at).await.unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(near);
        world.bind_udp(at).await.unwrap();
        let foreign = world.bind_udp("192.0.2.77:0").await.unwrap_err();
        assert_eq!(foreign.kind(), ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn a_receive_that_is_given_up_takes_nothing() {
    with_sockets(async |Sockets { near, far, near_at, .. }| {
        for times in 0..4 {
            let mut buffer = [0; 16];
            assert!(cancel_after(times, near.recv(&mut buffer)).await.is_none());
            far.send_to(b"kept", near_at).await.unwrap();
            assert_eq!(near.recv(&mut buffer).await.unwrap(), 4);
        }
    });
}

#[test]
fn peeking_takes_nothing() {
    with_sockets(async |Sockets { near, far, near_at, far_at }| {
        far.send_to(b"seen", near_at).await.unwrap();
        let mut buffer = [0; 16];
        for _ in 0..3 {
            assert_eq!(near.peek_from(&mut buffer).await.unwrap(), (4, far_at));
        }
        assert_eq!(near.recv_from(&mut buffer).await.unwrap(), (4, far_at));
        assert_eq!(near.try_recv_from(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn readiness_follows_what_has_arrived() {
    with_sockets(async |Sockets { near, far, near_at, .. }| {
        assert!(near.ready(Interest::READABLE | Interest::WRITABLE).await.unwrap().is_writable());
        assert_eq!(near.try_recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(poll_once(pin!(near.readable())).await.is_pending());
        far.send_to(b"!", near_at).await.unwrap();
        near.readable().await.unwrap();
        assert_eq!(near.try_recv(&mut [0; 16]).unwrap(), 1);
        near.writable().await.unwrap();
    });
}

#[test]
fn a_poll_that_waits_is_woken() {
    with_sockets(async |Sockets { near, far, near_at, far_at }| {
        let (count, waker) = Count::new();
        let mut cx = Context::from_waker(&waker);
        let mut bytes = [0; 16];
        let mut buffer = ReadBuf::new(&mut bytes);
        assert!(near.poll_recv_from(&mut cx, &mut buffer).is_pending());
        far.send_to(b"woken", near_at).await.unwrap();
        until(|| count.get() > 0).await;
        let polled = near.poll_recv_from(&mut cx, &mut buffer);
        assert!(matches!(polled, std::task::Poll::Ready(Ok(from)) if from == far_at), "{polled:?}");
        assert_eq!(buffer.filled(), b"woken");
        let sent = near.poll_send_to(&mut cx, b"back", far_at);
        assert!(matches!(sent, std::task::Poll::Ready(Ok(4))), "{sent:?}");
        assert_eq!(far.recv(&mut [0; 16]).await.unwrap(), 4);
    });
}

#[test]
fn two_tasks_share_a_socket() {
    with_sockets(async |Sockets { near, far, near_at, .. }| {
        let near = Arc::new(near);
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let near = near.clone();
                tokio::spawn(async move { near.recv(&mut [0; 16]).await.unwrap() })
            })
            .collect();
        tick().await;
        for datagram in [&b"a"[..], b"b"] {
            far.send_to(datagram, near_at).await.unwrap();
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), 1);
        }
    });
}

#[test]
fn a_ttl_can_be_set() {
    with_sockets(async |Sockets { near, .. }| {
        near.set_ttl(7).unwrap();
        assert_eq!(near.ttl().unwrap(), 7);
        assert_eq!(near.set_ttl(0).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(near.set_ttl(256).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_socket_on_all_addresses_answers_from_the_one_that_was_asked() {
    run(async |world| {
        let near = world.bind_udp("0.0.0.0:0").await.unwrap();
        let at = SocketAddr::new(world.ip(), near.local_addr().unwrap().port());
        let far = world.peer_bind_udp((world.peer_ip(), 0)).await.unwrap();
        far.connect(at).await.unwrap();
        far.send(b"?").await.unwrap();
        let (_, from) = near.recv_from(&mut [0; 16]).await.unwrap();
        near.send_to(b"!", from).await.unwrap();
        assert_eq!(far.recv(&mut [0; 16]).await.unwrap(), 1);
    });
}

#[test]
fn a_connected_socket_knows_its_peer() {
    with_sockets(async |Sockets { near, far_at, .. }| {
        assert_eq!(near.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        near.connect(far_at).await.unwrap();
        assert_eq!(near.peer_addr().unwrap(), far_at);
    });
}

#[test]
fn the_ports_of_tcp_and_udp_are_apart() {
    run(async |world| {
        let listener = world.bind((world.ip(), 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        assert_eq!(world.bind_udp(at).await.unwrap().local_addr().unwrap(), at);
    });
}

/// Sends one datagram each from `count` sockets of the peer to `at`. Returns how many came to each of `near`.
async fn divided(world: &World, near: &[&near::UdpSocket], at: SocketAddr, count: usize) -> Vec<usize> {
    let mut senders = Vec::new();
    for _ in 0..count {
        let far = world.peer_bind_udp((world.peer_ip(), 0)).await.unwrap();
        far.send_to(b"?", at).await.unwrap();
        senders.push(far);
    }
    let mut heard = vec![0; near.len()];
    while heard.iter().sum::<usize>() < count {
        for (socket, heard) in near.iter().zip(&mut heard) {
            // Tokio learns of a datagram while it waits.
            while let Poll::Ready(one) = poll_once(pin!(socket.recv(&mut [0; 10]))).await {
                assert_eq!(one.unwrap(), 1);
                *heard += 1;
            }
        }
        tick().await;
    }
    heard
}

#[test]
fn sockets_that_share_a_port_divide_the_senders_until_one_goes() {
    run(async |world| {
        let first = world.bind_udp_shared((world.ip(), 0).into()).await.unwrap();
        let at = first.local_addr().unwrap();
        let second = world.bind_udp_shared(at).await.unwrap();
        assert_eq!(second.local_addr().unwrap(), at);
        let heard = divided(&world, &[&first, &second], at, 40).await;
        assert!(heard.iter().all(|heard| *heard > 0), "a hash divides them: {heard:?}");
        drop(first);
        assert_eq!(divided(&world, &[&second], at, 20).await, [20]);
    });
}

#[test]
fn a_port_of_udp_is_shared_only_among_those_that_say_so() {
    run(async |world| {
        let shared = world.bind_udp_shared((world.ip(), 0).into()).await.unwrap();
        let taken = world.bind_udp(shared.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        let alone = world.bind_udp((world.ip(), 0)).await.unwrap();
        let taken = world.bind_udp_shared(alone.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn of_sockets_that_share_a_port_the_one_with_a_peer_hears_it() {
    run(async |world| {
        let far = world.peer_bind_udp((world.peer_ip(), 0)).await.unwrap();
        let stranger = world.peer_bind_udp((world.peer_ip(), 0)).await.unwrap();
        let free = world.bind_udp_shared((world.ip(), 0).into()).await.unwrap();
        let at = free.local_addr().unwrap();
        let connected = world.bind_udp_shared(at).await.unwrap();
        connected.connect(far.local_addr().unwrap()).await.unwrap();
        for _ in 0..5 {
            far.send_to(b"peer", at).await.unwrap();
            stranger.send_to(b"stranger", at).await.unwrap();
            let mut buffer = [0; 10];
            assert_eq!(connected.recv(&mut buffer).await.unwrap(), 4);
            assert_eq!(free.recv(&mut buffer).await.unwrap(), 8);
        }
    });
}

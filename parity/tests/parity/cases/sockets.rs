//! Sockets that are neither connected nor listening yet.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;
use crate::tools::{poll_once, tick};

#[test]
fn a_socket_connects() {
    run(async |world| {
        let listener = world.peer_bind((world.peer_ip(), 0)).await.unwrap();
        let stream = world.socket().connect(listener.local_addr().unwrap()).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1, stream.local_addr().unwrap());
    });
}

#[test]
fn a_socket_that_is_bound_connects_from_its_address() {
    run(async |world| {
        let listener = world.peer_bind((world.peer_ip(), 0)).await.unwrap();
        let socket = world.socket();
        socket.bind((world.ip(), 0).into()).unwrap();
        let local = socket.local_addr().unwrap();
        assert!(local.port() > 0);
        let stream = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), local);
        assert_eq!(listener.accept().await.unwrap().1, local);
    });
}

#[test]
fn a_socket_listens_on_the_port_that_it_was_bound_to() {
    run(async |world| {
        let socket = world.socket();
        assert_eq!(socket.local_addr().unwrap(), "0.0.0.0:0".parse().unwrap());
        socket.bind((world.ip(), 0).into()).unwrap();
        let local = socket.local_addr().unwrap();
        let listener = socket.listen(16).unwrap();
        assert_eq!(listener.local_addr().unwrap(), local);
        let far = world.peer_connect(local).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1, far.local_addr().unwrap());
    });
}

#[test]
fn a_socket_that_is_not_bound_listens_on_a_free_port() {
    run(async |world| {
        let listener = world.socket().listen(16).unwrap();
        let at = listener.local_addr().unwrap();
        assert!(at.ip().is_unspecified() && at.port() > 0);
        let _far = world.peer_connect((world.ip(), at.port())).await.unwrap();
        listener.accept().await.unwrap();
    });
}

#[test]
fn a_socket_is_bound_once_to_an_address_of_its_own() {
    run(async |world| {
        let taken = world.bind((world.ip(), 0)).await.unwrap();
        let socket = world.socket();
        let bind = |at: SocketAddr| socket.bind(at).unwrap_err().kind();
        assert_eq!(bind(taken.local_addr().unwrap()), ErrorKind::AddrInUse);
        assert_eq!(bind("198.51.100.1:80".parse().unwrap()), ErrorKind::AddrNotAvailable);
        socket.bind((world.ip(), 0).into()).unwrap();
        assert_eq!(bind((world.ip(), 0).into()), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_socket_whose_connect_is_refused_says_so() {
    run(async |world| {
        let at = world.peer_bind((world.peer_ip(), 0)).await.unwrap().local_addr().unwrap();
        assert_eq!(world.socket().connect(at).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn the_options_of_a_socket_read_back() {
    run(async |world| {
        let socket = world.socket();
        assert!(!socket.nodelay().unwrap() && !socket.keepalive().unwrap() && !socket.reuseaddr().unwrap());
        assert_eq!(socket.linger().unwrap(), None);
        socket.set_nodelay(true).unwrap();
        socket.set_keepalive(true).unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.set_zero_linger().unwrap();
        assert!(socket.nodelay().unwrap() && socket.keepalive().unwrap() && socket.reuseaddr().unwrap());
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
        socket.set_tos_v4(0xb8).unwrap();
        assert_eq!(socket.tos_v4().unwrap(), 0xb8);
        socket.set_send_buffer_size(100_000).unwrap();
        socket.set_recv_buffer_size(50_000).unwrap();
        assert!(socket.send_buffer_size().unwrap() >= 100_000);
        assert!(socket.recv_buffer_size().unwrap() >= 50_000);
        assert!(socket.take_error().unwrap().is_none());
    });
}

#[test]
fn a_stream_has_the_options_of_its_socket() {
    run(async |world| {
        let listener = world.peer_bind((world.peer_ip(), 0)).await.unwrap();
        let socket = world.socket();
        socket.set_nodelay(true).unwrap();
        socket.set_zero_linger().unwrap();
        let stream = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(stream.nodelay().unwrap());
        let (mut far, _) = listener.accept().await.unwrap();
        drop(stream);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_bound_port_is_taken_until_its_socket_is_dropped() {
    run(async |world| {
        let socket = world.socket();
        socket.bind((world.ip(), 0).into()).unwrap();
        let local = socket.local_addr().unwrap();
        assert_eq!(world.socket().bind(local).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(world.bind(local).await.unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(socket);
        world.bind(local).await.unwrap();
    });
}

#[test]
fn a_bound_port_refuses_clients_until_its_socket_listens() {
    run(async |world| {
        let socket = world.socket();
        socket.bind((world.ip(), 0).into()).unwrap();
        let local = socket.local_addr().unwrap();
        assert_eq!(world.peer_connect(local).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let listener = socket.listen(16).unwrap();
        let _far = world.peer_connect(local).await.unwrap();
        listener.accept().await.unwrap();
    });
}

#[test]
fn a_bound_socket_takes_clients_from_nobody() {
    run(async |world| {
        let all = world.socket();
        all.set_reuseport(true).unwrap();
        all.bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = all.local_addr().unwrap().port();
        let listener = all.listen(16).unwrap();
        let socket = world.socket();
        socket.set_reuseport(true).unwrap();
        socket.bind((world.ip(), port).into()).unwrap();
        let _far = world.peer_connect((world.ip(), port)).await.unwrap();
        listener.accept().await.unwrap();
    });
}

#[test]
fn bound_sockets_have_different_free_ports() {
    run(async |world| {
        let sockets = [world.socket(), world.socket(), world.socket()];
        let ports = sockets.each_ref().map(|socket| {
            socket.bind((world.ip(), 0).into()).unwrap();
            socket.local_addr().unwrap().port()
        });
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[2] != ports[0], "{ports:?}");
    });
}

/// Returns a listener that shares a port, or another one at `at`.
fn sharing(world: &World, at: SocketAddr) -> near::TcpListener {
    let socket = world.socket();
    socket.set_reuseport(true).unwrap();
    assert!(socket.reuseport().unwrap());
    socket.bind(at).unwrap();
    socket.listen(64).unwrap()
}

/// Accepts everything that comes to two listeners, until they have `count` connections.
async fn accepted_by(listeners: [&near::TcpListener; 2], count: usize) -> [Vec<near::TcpStream>; 2] {
    let mut accepted = [Vec::new(), Vec::new()];
    while accepted[0].len() + accepted[1].len() < count {
        for (listener, accepted) in listeners.iter().zip(&mut accepted) {
            if let Poll::Ready(one) = poll_once(pin!(listener.accept())).await {
                accepted.push(one.unwrap().0);
            }
        }
        tick().await;
    }
    accepted
}

#[test]
fn listeners_that_share_a_port_divide_the_clients() {
    run(async |world| {
        let first = sharing(&world, (world.ip(), 0).into());
        let local = first.local_addr().unwrap();
        let second = sharing(&world, local);
        assert_eq!(second.local_addr().unwrap(), local);
        let mut far = Vec::new();
        for _ in 0..40 {
            far.push(world.peer_connect(local).await.unwrap());
        }
        let accepted = accepted_by([&first, &second], 40).await;
        assert!(accepted.iter().all(|accepted| !accepted.is_empty()), "a hash divides them");
    });
}

#[test]
fn a_listener_that_shares_a_port_goes_and_the_other_takes_all_clients() {
    run(async |world| {
        let first = sharing(&world, (world.ip(), 0).into());
        let local = first.local_addr().unwrap();
        let second = sharing(&world, local);
        drop(first);
        for _ in 0..10 {
            let _far = world.peer_connect(local).await.unwrap();
            second.accept().await.unwrap();
        }
    });
}

#[test]
fn a_port_is_shared_only_among_those_that_say_so() {
    run(async |world| {
        let shared = sharing(&world, (world.ip(), 0).into());
        let local = shared.local_addr().unwrap();
        assert_eq!(world.socket().bind(local).unwrap_err().kind(), ErrorKind::AddrInUse);
        let alone = world.bind((world.ip(), 0)).await.unwrap();
        let socket = world.socket();
        socket.set_reuseport(true).unwrap();
        let taken = socket.bind(alone.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn a_connect_that_is_given_up_frees_the_bound_port() {
    run(async |world| {
        let listener = world.peer_bind((world.peer_ip(), 0)).await.unwrap();
        let socket = world.socket();
        socket.bind((world.ip(), 0).into()).unwrap();
        let local = socket.local_addr().unwrap();
        drop(socket.connect(listener.local_addr().unwrap()));
        world.bind(local).await.unwrap();
    });
}

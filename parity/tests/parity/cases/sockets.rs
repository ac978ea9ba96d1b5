//! Sockets that are neither connected nor listening yet.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;

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

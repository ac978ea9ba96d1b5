//! The forms of addresses that `bind` and `connect` take.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use super::*;

/// Connects with one form of an address, and checks where the connection leads.
macro_rules! connects {
    ($($name:ident: $form:expr;)+) => { $(
        #[test]
        fn $name() {
            run(async |world| {
                let listener = world.peer_bind((world.peer_ip(), 0)).await.unwrap();
                let remote = listener.local_addr().unwrap();
                let form: fn(SocketAddr) -> _ = $form;
                let stream = world.connect(form(remote)).await.unwrap();
                assert_eq!(stream.peer_addr().unwrap(), remote);
                let (_, peer) = listener.accept().await.unwrap();
                assert_eq!(peer, stream.local_addr().unwrap());
            });
        }
    )+ };
}

connects! {
    a_connect_takes_text: |at| at.to_string();
    a_connect_takes_a_socket_address: |at| at;
    a_connect_takes_an_address_and_a_port: |at| (at.ip(), at.port());
    a_connect_takes_an_ipv4_address_and_a_port: |at| (v4(at), at.port());
    a_connect_takes_a_socket_address_of_ipv4: |at| SocketAddrV4::new(v4(at), at.port());
    a_connect_takes_text_and_a_port: |at| (at.ip().to_string(), at.port());
}

fn v4(at: SocketAddr) -> Ipv4Addr {
    match at.ip() {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => panic!("{v6}"),
    }
}

/// Binds with one form of an address.
macro_rules! binds {
    ($($name:ident: $form:expr;)+) => { $(
        #[test]
        fn $name() {
            run(async |world| {
                let form: fn(SocketAddr) -> _ = $form;
                let listener = world.bind(form((world.ip(), 0).into())).await.unwrap();
                let at = listener.local_addr().unwrap();
                assert!(at.ip() == world.ip() && at.port() > 0);
                let (far, accepted) = tokio::join!(world.peer_connect(at), listener.accept());
                assert_eq!(accepted.unwrap().1, far.unwrap().local_addr().unwrap());
            });
        }
    )+ };
}

binds! {
    a_bind_takes_text: |at| at.to_string();
    a_bind_takes_a_socket_address: |at| at;
    a_bind_takes_an_address_and_a_port: |at| (at.ip(), at.port());
    a_bind_takes_an_ipv4_address_and_a_port: |at| (v4(at), at.port());
    a_bind_takes_a_socket_address_of_ipv4: |at| SocketAddrV4::new(v4(at), at.port());
    a_bind_takes_text_and_a_port: |at| (at.ip().to_string(), at.port());
}

#[test]
fn references_are_taken_too() {
    run(async |world| {
        let listener = world.peer_bind((world.peer_ip(), 0)).await.unwrap();
        let remote = listener.local_addr().unwrap();
        let (text, host) = (remote.to_string(), remote.ip().to_string());
        world.connect(&remote).await.unwrap();
        world.connect(&text).await.unwrap();
        world.connect(&*text).await.unwrap();
        world.connect((&*host, remote.port())).await.unwrap();
        world.connect(&(&*host, remote.port())).await.unwrap();
        world.connect(&[remote][..]).await.unwrap();
    });
}

#[test]
fn a_connect_tries_each_address_in_turn() {
    run(async |world| {
        let listener = world.peer_bind((world.peer_ip(), 0)).await.unwrap();
        let free = world.peer_bind((world.peer_ip(), 0)).await.unwrap().local_addr().unwrap();
        let taken = listener.local_addr().unwrap();
        let stream = world.connect(&[free, taken][..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), taken);
        let error = world.connect(&[free, free][..]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_bind_takes_the_first_address_that_is_free() {
    run(async |world| {
        let taken = world.bind((world.ip(), 0)).await.unwrap().local_addr().unwrap();
        let listener = world.bind(taken).await.unwrap();
        let other = SocketAddr::from((world.ip(), 0));
        let second = world.bind(&[taken, other][..]).await.unwrap();
        assert_ne!(second.local_addr().unwrap().port(), listener.local_addr().unwrap().port());
        let error = world.bind(&[taken, taken][..]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn no_address_is_an_invalid_input() {
    run(async |world| {
        let none: &[SocketAddr] = &[];
        assert_eq!(world.connect(none).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(world.bind(none).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn text_that_is_no_address_is_an_invalid_input() {
    run(async |world| {
        for text in ["", "10.9.0.1", "10.9.0.1:", "10.9.0.1:x", "10.9.0.1:65536"] {
            assert_eq!(world.connect(text).await.unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
            assert_eq!(world.bind(text).await.unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
            assert_eq!(world.lookup(text).await.map(drop).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn a_lookup_of_an_address_returns_it() {
    run(async |world| {
        for text in ["192.0.2.1:80", "[2001:db8::1]:443"] {
            let found: Vec<SocketAddr> = world.lookup(text).await.unwrap().collect();
            assert_eq!(found, [text.parse().unwrap()]);
        }
        let found: Vec<SocketAddr> = world.lookup(("2001:db8::1", 1)).await.unwrap().collect();
        assert_eq!(found, ["[2001:db8::1]:1".parse().unwrap()]);
    });
}

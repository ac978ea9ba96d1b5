//! Options of streams.

use std::io::ErrorKind;
use std::time::Duration;

use super::*;

#[test]
fn nodelay_is_off_until_it_is_set() {
    both(async |near, _far| {
        assert!(!near.nodelay().unwrap());
        near.set_nodelay(true).unwrap();
        assert!(near.nodelay().unwrap());
        near.set_nodelay(false).unwrap();
        assert!(!near.nodelay().unwrap());
    });
}

#[test]
fn linger_is_off_until_it_is_set() {
    both(async |near, _far| {
        assert_eq!(near.linger().unwrap(), None);
        near.set_zero_linger().unwrap();
        assert_eq!(near.linger().unwrap(), Some(Duration::ZERO));
    });
}

#[test]
fn the_ttl_is_64_until_it_is_set() {
    both(async |near, _far| {
        assert_eq!(near.ttl().unwrap(), 64);
        near.set_ttl(5).unwrap();
        assert_eq!(near.ttl().unwrap(), 5);
        for ttl in [0, 256, u32::MAX - 1] {
            assert_eq!(near.set_ttl(ttl).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(near.ttl().unwrap(), 5);
    });
}

#[test]
fn quick_acknowledgements_are_switched() {
    both(async |near, _far| {
        near.set_quickack(false).unwrap();
        assert!(!near.quickack().unwrap());
        near.set_quickack(true).unwrap();
        assert!(near.quickack().unwrap());
    });
}

#[test]
fn an_accepted_stream_has_the_options_of_its_listener() {
    run(async |world| {
        let socket = world.socket();
        socket.set_nodelay(true).unwrap();
        socket.bind((world.ip(), 0).into()).unwrap();
        let listener = socket.listen(4).unwrap();
        let _far = world.peer_connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        assert!(near.nodelay().unwrap());
    });
}

#[test]
fn a_stream_without_an_error_has_none_to_take() {
    both(async |near, _far| {
        assert!(near.take_error().unwrap().is_none());
    });
}

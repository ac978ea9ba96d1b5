//! The cases. Each file sees the carrier's `World` and its types: `near` is the tested side, `far` its peer.

use std::io::ErrorKind;
use std::pin::pin;

use crate::tools::{poll_once, tick};

pub(crate) use super::{World, far, near, run};

mod addresses;
mod cancelling;
mod ending;
mod halves;
mod listening;
mod options;
mod readiness;
mod sockets;
mod streams;
mod udp;

impl World {
    /// Connects to the peer. Returns the tested stream and the peer's.
    async fn connected(&self) -> (near::TcpStream, far::TcpStream) {
        let listener = self.peer_bind((self.peer_ip(), 0)).await.unwrap();
        let near = self.connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    /// Accepts a connection of the peer. Returns the tested stream and the peer's.
    async fn accepted(&self) -> (near::TcpStream, far::TcpStream) {
        let listener = self.bind((self.ip(), 0)).await.unwrap();
        let far = self.peer_connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, far)
    }
}

/// Waits until a stream is known not to be readable. Tokio takes a new stream for readable until a read has found
/// nothing.
async fn settle(near: &near::TcpStream) {
    while poll_once(pin!(near.readable())).await.is_ready() {
        assert_eq!(near.try_read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        tick().await;
    }
}

/// Runs a case with a stream that connected, then with one that was accepted.
fn both(case: impl AsyncFn(near::TcpStream, far::TcpStream)) {
    run(async |world| {
        let (near, far) = world.connected().await;
        case(near, far).await;
        let (near, far) = world.accepted().await;
        case(near, far).await;
    });
}

//! The connections of a listener, one after the other (feature `futures`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::listener::TcpListener;
use crate::stream::TcpStream;

/// The connections of a listener as a `Stream`: see [`TcpListener::incoming`].
#[derive(Debug)]
#[must_use = "streams do nothing unless they are polled"]
pub struct Incoming<'a>(&'a TcpListener);

impl TcpListener {
    /// Returns the connections of the listener as a `Stream`, which never ends. After an error no connection follows:
    /// the network is closing. It replaces the task of [`poll_accept`](TcpListener::poll_accept).
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming(self)
    }
}

impl Stream for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<TcpStream>>> {
        self.0.poll_accept(cx).map(|accepted| Some(accepted.map(|(stream, _)| stream)))
    }
}

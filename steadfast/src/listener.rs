//! Listeners.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use steadfast_core::{Error, ListenOptions, SocketId};
use tokio::sync::Notify;

use crate::net::Net;
use crate::shared::{Handle, Waiting, into_io};
use crate::stream::TcpStream;

/// Takes connections, as `tokio::net::TcpListener` does. Dropping it closes it: the address is free at once,
/// and connections that were not accepted are reset.
#[derive(Debug)]
pub struct TcpListener {
    handle: Arc<Handle>,
    id: SocketId,
    arrivals: Arc<Notify>,
}

impl TcpListener {
    /// Listens on `local`. An unspecified address listens on all addresses of its family; port 0 chooses one.
    pub async fn bind(net: &Net, local: impl Into<SocketAddr>) -> io::Result<TcpListener> {
        TcpListener::bind_with(net, local, ListenOptions::default()).await
    }

    /// As [`bind`](TcpListener::bind), with a backlog and options for the streams.
    pub async fn bind_with(
        net: &Net,
        local: impl Into<SocketAddr>,
        options: ListenOptions,
    ) -> io::Result<TcpListener> {
        let arrivals = Arc::new(Notify::new());
        let id = net.begin(|state, _| {
            let id = state.stack.listen(local.into(), options)?;
            state.sockets.insert(id, Waiting::Listener(arrivals.clone()));
            Ok(id)
        })?;
        Ok(TcpListener { handle: net.handle.clone(), id, arrivals })
    }

    /// The next connection, and who made it.
    ///
    /// Cancel-safe: where the future is dropped, no connection is lost. Several tasks may accept at once.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            // A server that always finds a connection must let other tasks run too.
            tokio::task::consume_budget().await;
            let mut arrival = pin!(self.arrivals.notified());
            arrival.as_mut().enable();
            match self.try_accept() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => arrival.await,
                result => return result,
            }
        }
    }

    /// The next connection if one waits, the error `WouldBlock` if none does.
    pub fn try_accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.handle.call(|state, _| {
            state.check_open()?;
            let (id, peer) = state.stack.accept(self.id).map_err(into_io)?;
            state.sockets.insert(id, Waiting::Stream(Default::default()));
            Ok((TcpStream::new(self.handle.clone(), id), peer))
        })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.handle.lock().stack.local_addr(self.id).map_err(into_io)
    }

    /// The identifier that [`Net::sockets`] lists it under.
    pub fn id(&self) -> SocketId {
        self.id
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.handle.call_last(|state, now| {
            state.sockets.remove(self.id);
            let closed = state.stack.close(now, self.id);
            debug_assert!(matches!(closed, Ok(()) | Err(Error::NoSuchSocket)), "{closed:?}");
            state.work = true;
        });
    }
}

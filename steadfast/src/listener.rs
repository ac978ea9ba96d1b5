//! Listeners.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use steadfast_core::{Error, ListenOptions, SocketId};
use tokio::sync::Notify;

use crate::net::{Net, begin};
use crate::shared::{Handle, Waiting, into_io};
use crate::stream::TcpStream;

/// Takes connections, as `tokio::net::TcpListener` does. Dropping it closes it: the address is free at once,
/// and connections that were not accepted are reset.
#[derive(Debug)]
pub struct TcpListener {
    /// One in each stack of the network.
    parts: Vec<Part>,
    /// Which part is asked first: each in its turn, so that none is starved.
    turn: AtomicUsize,
    arrivals: Arc<Notify>,
}

/// The listener of one stack.
#[derive(Debug)]
struct Part {
    handle: Arc<Handle>,
    id: SocketId,
}

impl TcpListener {
    /// Listens on `local`. `0.0.0.0` listens on all IPv4 addresses, `[::]` on all of both families, as on Linux: an
    /// IPv4 client shows as `[::ffff:10.0.0.1]:4000`, and [`only_v6`](ListenOptions::only_v6) leaves them out. Port 0
    /// chooses a port.
    pub async fn bind(net: &Net, local: impl Into<SocketAddr>) -> io::Result<TcpListener> {
        TcpListener::bind_with(net, local, ListenOptions::default()).await
    }

    /// As [`bind`](TcpListener::bind), with a backlog and options for the streams.
    pub async fn bind_with(
        net: &Net,
        local: impl Into<SocketAddr>,
        options: ListenOptions,
    ) -> io::Result<TcpListener> {
        let mut local = local.into();
        let arrivals = Arc::new(Notify::new());
        let mut parts = Vec::new();
        for handle in net.all_stacks() {
            let part = begin(handle, |state, _| {
                let id = state.stack.listen(local, options.clone())?;
                state.sockets.insert(id, Waiting::Listener(arrivals.clone()));
                // The port that the first one chose is for all.
                local = state.stack.local_addr(id)?;
                Ok(Part { handle: handle.clone(), id })
            })?;
            parts.push(part);
        }
        Ok(TcpListener { parts, turn: AtomicUsize::new(0), arrivals })
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
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.parts.len();
        let (later, earlier) = self.parts.split_at(first);
        let mut accepted = Err(io::ErrorKind::WouldBlock.into());
        for part in earlier.iter().chain(later) {
            accepted = part.try_accept();
            if !matches!(&accepted, Err(e) if e.kind() == io::ErrorKind::WouldBlock) {
                break;
            }
        }
        accepted
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let Part { handle, id } = &self.parts[0];
        handle.read(|state| state.stack.local_addr(*id).map_err(into_io))
    }

    /// The identifier that [`Net::sockets`] lists it under; on a device with several queues, that of the first one.
    pub fn id(&self) -> SocketId {
        self.parts[0].id
    }
}

impl Part {
    fn try_accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (id, peer) = self.handle.call(|state, _| {
            state.check_whole()?;
            let accepted = state.stack.accept(self.id);
            if let Ok((id, _)) = accepted {
                state.sockets.insert(id, Waiting::Stream(Default::default()));
            } else {
                // A connection that was there before the network ended comes first.
                state.check_open()?;
            }
            accepted.map_err(into_io)
        })?;
        Ok((TcpStream::new(self.handle.clone(), id), peer))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.handle.call_last(|state, now| {
            state.sockets.remove(self.id);
            let closed = state.stack.close(now, self.id);
            debug_assert!(matches!(closed, Ok(()) | Err(Error::NoSuchSocket)), "{closed:?}");
            state.work = true;
        });
    }
}

//! An end that is not ours: what the lab asks of a TCP that plays one of its hosts.
//!
//! Applications call [`Sockets`], which our stack offers too, so that one script runs on either.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use steadfast_core::trace::State;
use steadfast_core::{
    Config, ConnectOptions, Duration, Error, Event, Instant, ListenOptions, Shutdown, SocketId,
    SocketOptions, Stack,
};

/// The calls of applications. None of them waits: they mean what they mean to [`Stack`].
#[allow(missing_docs)]
pub trait Sockets {
    fn config(&self) -> &Config;
    fn listen(&mut self, local: SocketAddr, options: ListenOptions) -> Result<SocketId, Error>;
    fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        options: ConnectOptions,
    ) -> Result<SocketId, Error>;
    fn accept(&mut self, listener: SocketId) -> Result<(SocketId, SocketAddr), Error>;
    fn local_addr(&self, id: SocketId) -> Result<SocketAddr, Error>;
    fn send_bytes(&mut self, id: SocketId, data: &mut Bytes) -> Result<usize, Error>;
    fn recv(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<usize, Error>;
    fn shutdown(&mut self, now: Instant, id: SocketId, how: Shutdown) -> Result<(), Error>;
    fn close(&mut self, now: Instant, id: SocketId) -> Result<(), Error>;
    fn abort(&mut self, now: Instant, id: SocketId) -> Result<(), Error>;
    fn take_error(&mut self, id: SocketId) -> Result<Option<Error>, Error>;
    fn options(&self, id: SocketId) -> Result<SocketOptions, Error>;
    fn set_options(&mut self, now: Instant, id: SocketId, options: SocketOptions) -> Result<(), Error>;
    /// Bytes that were received and not read, and that were sent and not acknowledged.
    fn queued(&mut self, now: Instant, id: SocketId) -> Result<(u64, u64), Error>;
}

/// A TCP that is not ours, with the link to it. Dropping it is what a loss of power is: nothing more is sent.
pub trait Foreign: Sockets {
    /// A packet reaches it.
    fn receive(&mut self, packet: &[u8]);
    /// The next packet that it has sent, and its length.
    fn transmit(&mut self, frame: &mut [u8]) -> Option<usize>;
    /// What changed on a socket.
    fn poll_event(&mut self) -> Option<(SocketId, Event)>;
    /// Its connections and listeners as its own tools list them.
    fn entries(&mut self) -> Vec<ForeignEntry>;
    /// What made it unusable, if something did.
    fn failure(&self) -> Option<String>;
    /// Waits until it has something to say, at most so long. For whoever keeps the time: the lab never calls it.
    fn wait(&mut self, at_most: Duration);
}

/// A line of the foreign end's socket listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignEntry {
    /// State.
    pub state: State,
    /// Its end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Unread bytes; of a listener, connections that wait to be accepted.
    pub recv_q: u64,
    /// A timer of it runs: it may act by itself.
    pub timer: bool,
}

/// What a foreign end is to be like.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The host that it plays.
    pub name: String,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    /// MTU of its interface.
    pub mtu: u16,
    /// Settings, by their short names, and their values.
    pub sysctls: Vec<(String, String)>,
    /// What the scenario's defaults for sockets come from.
    pub config: Config,
}

/// Makes a foreign end, once for each time that its host boots.
pub type Booter = Box<dyn FnMut(&Boot) -> Result<Box<dyn Foreign>, String>>;

impl Sockets for Stack {
    fn config(&self) -> &Config {
        self.config()
    }

    fn listen(&mut self, local: SocketAddr, options: ListenOptions) -> Result<SocketId, Error> {
        self.listen(local, options)
    }

    fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        options: ConnectOptions,
    ) -> Result<SocketId, Error> {
        self.connect(now, remote, options)
    }

    fn accept(&mut self, listener: SocketId) -> Result<(SocketId, SocketAddr), Error> {
        self.accept(listener)
    }

    fn local_addr(&self, id: SocketId) -> Result<SocketAddr, Error> {
        self.local_addr(id)
    }

    fn send_bytes(&mut self, id: SocketId, data: &mut Bytes) -> Result<usize, Error> {
        self.send_bytes(id, data)
    }

    fn recv(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<usize, Error> {
        self.recv(id, buffer)
    }

    fn shutdown(&mut self, now: Instant, id: SocketId, how: Shutdown) -> Result<(), Error> {
        self.shutdown(now, id, how)
    }

    fn close(&mut self, now: Instant, id: SocketId) -> Result<(), Error> {
        self.close(now, id)
    }

    fn abort(&mut self, now: Instant, id: SocketId) -> Result<(), Error> {
        self.abort(now, id)
    }

    fn take_error(&mut self, id: SocketId) -> Result<Option<Error>, Error> {
        self.take_error(id)
    }

    fn options(&self, id: SocketId) -> Result<SocketOptions, Error> {
        self.options(id).cloned()
    }

    fn set_options(&mut self, now: Instant, id: SocketId, options: SocketOptions) -> Result<(), Error> {
        self.set_options(now, id, options)
    }

    fn queued(&mut self, now: Instant, id: SocketId) -> Result<(u64, u64), Error> {
        self.info(now, id).map(|info| (info.recv_q, info.send_q))
    }
}

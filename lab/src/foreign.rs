//! The interface to a foreign TCP that plays one of the lab's hosts.
//!
//! Applications call [`Sockets`]. Our stack implements it too, so that one script runs on either.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use steadfast_core::trace::State;
use steadfast_core::{
    Config, ConnectOptions, Duration, Error, Event, Instant, ListenOptions, Shutdown, SocketId,
    SocketOptions, Stack, UdpOptions,
};

/// The calls of applications. None of them blocks; each means what it means in [`Stack`].
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
    /// Sends urgent data, which is read in line. No kernel does that by itself.
    fn send_urgent(&mut self, _id: SocketId, _data: &[u8]) -> Result<usize, Error> {
        Err(Error::InvalidArgument)
    }
    fn recv(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<usize, Error>;
    fn bind_udp(&mut self, local: SocketAddr, options: UdpOptions) -> Result<SocketId, Error>;
    fn connect_udp(&mut self, id: SocketId, remote: SocketAddr) -> Result<(), Error>;
    fn send_to(&mut self, id: SocketId, payload: &[u8], to: Option<SocketAddr>) -> Result<(), Error>;
    /// The length of the next datagram, and its sender.
    fn recv_from(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<(usize, SocketAddr), Error>;
    fn shutdown(&mut self, now: Instant, id: SocketId, how: Shutdown) -> Result<(), Error>;
    fn close(&mut self, now: Instant, id: SocketId) -> Result<(), Error>;
    fn abort(&mut self, now: Instant, id: SocketId) -> Result<(), Error>;
    fn take_error(&mut self, id: SocketId) -> Result<Option<Error>, Error>;
    fn options(&self, id: SocketId) -> Result<SocketOptions, Error>;
    fn set_options(&mut self, now: Instant, id: SocketId, options: SocketOptions) -> Result<(), Error>;
    /// Bytes received and not yet read, and bytes sent and not yet acknowledged.
    fn queued(&mut self, now: Instant, id: SocketId) -> Result<(u64, u64), Error>;
}

/// A foreign TCP and the link to it. Dropping it is a loss of power: it sends nothing more.
pub trait Foreign: Sockets + Send {
    /// A packet reaches it.
    fn receive(&mut self, packet: &[u8]);
    /// Writes the next packet that it sent to `frame`, and returns its length.
    fn transmit(&mut self, frame: &mut [u8]) -> Option<usize>;
    /// The next event of a socket.
    fn poll_event(&mut self) -> Option<(SocketId, Event)>;
    /// Its connections and listeners, as its own tools list them.
    fn entries(&mut self) -> Vec<ForeignEntry>;
    /// Why it became unusable, if it did.
    fn failure(&self) -> Option<String>;
    /// Waits for output of the foreign TCP, at most `at_most`. For the keeper of the clock; the lab never calls it.
    fn wait(&mut self, at_most: Duration);
}

/// A line of the foreign TCP's socket listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignEntry {
    /// State.
    pub state: State,
    /// The local address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Unread bytes; for a listener, connections that wait to be accepted.
    pub recv_q: u64,
    /// One of its timers runs, so it may act without input.
    pub timer: bool,
}

/// The configuration of a foreign TCP.
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
    /// Settings: short name and value.
    pub sysctls: Vec<(String, String)>,
    /// The configuration that provides the scenario's defaults for sockets.
    pub config: Config,
}

/// Constructs a foreign TCP. Called each time its host boots.
pub type Booter = Box<dyn FnMut(&Boot) -> Result<Box<dyn Foreign>, String> + Send>;

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
    fn send_urgent(&mut self, id: SocketId, data: &[u8]) -> Result<usize, Error> {
        self.send_urgent(id, data)
    }

    fn recv(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<usize, Error> {
        self.recv(id, buffer)
    }

    fn bind_udp(&mut self, local: SocketAddr, options: UdpOptions) -> Result<SocketId, Error> {
        self.bind_udp(local, options)
    }

    fn connect_udp(&mut self, id: SocketId, remote: SocketAddr) -> Result<(), Error> {
        self.connect_udp(id, remote)
    }

    fn send_to(&mut self, id: SocketId, payload: &[u8], to: Option<SocketAddr>) -> Result<(), Error> {
        self.send_to(id, payload, to)
    }

    fn recv_from(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        self.recv_from(id, buffer).map(|received| (received.len, received.from))
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

//! The stack: packets and time in, packets and events out.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::config::Config;
use crate::counters::Counters;
use crate::error::Error;
use crate::info::{Diagnosis, Info, SocketEntry, Usage};
use crate::socket::{ConnectOptions, Event, ListenOptions, Shutdown, SocketId, SocketOptions};
use crate::time::{Duration, Instant};
use crate::trace::TraceEvent;

/// What the stack is attached to: a device that carries bare IP packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Largest IP packet, bytes. At least 68 (IPv4) or 1280 (IPv6).
    pub mtu: u16,
    /// Our addresses with the length of their prefix. A broadcast address follows from an IPv4 prefix up to 30.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The device cuts super-segments: [`Transmit::segment_size`] may be set and a frame may hold 64 KiB.
    pub segmentation_offload: bool,
    /// The device fills in TCP checksums: the field then holds the sum of the pudo-header, not complemented.
    pub checksum_offload: bool,
}

impl Interface {
    /// A device without offload.
    pub fn new(mtu: u16, addresses: impl IntoIterator<Item = (IpAddr, u8)>) -> Interface {
        Interface {
            mtu,
            addresses: addresses.into_iter().collect(),
            segmentation_offload: false,
            checksum_offload: false,
        }
    }
}

/// A packet that arrives, and what the device says of it.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    /// The IP packet: one of the wire, or a super-segment of up to 64 KiB.
    pub bytes: PacketBytes<'a>,
    /// The device has verified the TCP checksum, or the packet never left this machine.
    pub checksum_trusted: bool,
}

/// Who owns the bytes of a packet.
#[derive(Clone, Debug)]
pub enum PacketBytes<'a> {
    /// The caller: payload is copied out of it.
    Borrowed(&'a [u8]),
    /// Shared: a large payload is kept as a slice of it.
    Shared(Bytes),
}

impl<'a> From<&'a [u8]> for Packet<'a> {
    fn from(bytes: &'a [u8]) -> Packet<'a> {
        Packet { bytes: PacketBytes::Borrowed(bytes), checksum_trusted: false }
    }
}

impl From<Bytes> for Packet<'_> {
    fn from(bytes: Bytes) -> Self {
        Packet { bytes: PacketBytes::Shared(bytes), checksum_trusted: false }
    }
}

/// What [`Stack::transmit`] put into the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Bytes of the IP packet.
    pub len: usize,
    /// The device must cut the payload into segments of so many bytes.
    pub segment_size: Option<u16>,
    /// The device must fill in the TCP checksum.
    pub checksum_offload: bool,
}

/// A TCP/IP stack on one interface.
#[derive(Clone)]
pub struct Stack {
    config: Config,
}

#[allow(unused_variables, missing_docs)]
impl Stack {
    pub fn new(config: Config, interface: Interface) -> Stack {
        todo!()
    }

    // Getters.

    pub fn config(&self) -> &Config {
        &self.config
    }
    pub fn interface(&self) -> &Interface {
        todo!()
    }
    pub fn counters(&self) -> &Counters {
        todo!()
    }
    pub fn usage(&self) -> Usage {
        todo!()
    }
    /// All that `ss -a` would show: listeners, half-open, connections, orphans, TIME-WAIT.
    pub fn sockets(&self, now: Instant) -> Vec<SocketEntry> {
        todo!()
    }
    /// Connections that the application seems to have forgotten: in CLOSE-WAIT for longer than `older_than`.
    pub fn diagnose(&self, now: Instant, older_than: Duration) -> Vec<Diagnosis> {
        todo!()
    }
    /// Errors: `NoSuchSocket`; `NotConnected` (a listener, or the connection is gone).
    pub fn info(&self, now: Instant, id: SocketId) -> Result<Info, Error> {
        todo!()
    }
    pub fn local_addr(&self, id: SocketId) -> Result<SocketAddr, Error> {
        todo!()
    }
    pub fn peer_addr(&self, id: SocketId) -> Result<SocketAddr, Error> {
        todo!()
    }
    pub fn options(&self, id: SocketId) -> Result<&SocketOptions, Error> {
        todo!()
    }

    // Packets and time.

    /// Takes in a packet. Never fails: what is dropped is counted and traced.
    pub fn receive<'a>(&mut self, now: Instant, packet: impl Into<Packet<'a>>) {
        todo!()
    }
    /// Fills `frame` with the next packet to send. `None`: nothing to send now. `frame` holds at least the MTU
    /// (with segmentation offload: 65,535 bytes).
    pub fn transmit(&mut self, now: Instant, frame: &mut [u8]) -> Option<Transmit> {
        todo!()
    }
    /// When [`advance`](Stack::advance) must be called at the latest; it may be earlier than the next timer.
    pub fn poll_at(&self) -> Option<Instant> {
        todo!()
    }
    /// Runs the timers that are due.
    pub fn advance(&mut self, now: Instant) {
        todo!()
    }
    /// The next socket on which something changed.
    pub fn poll_event(&mut self) -> Option<(SocketId, Event)> {
        todo!()
    }
    /// Switches tracing on or off.
    pub fn set_tracing(&mut self, on: bool) {
        todo!()
    }
    /// The next trace event, oldest first.
    pub fn poll_trace(&mut self) -> Option<TraceEvent> {
        todo!()
    }

    // User calls.

    /// Passive OPEN. An unspecified address listens on all addresses of its family; port 0 chooses one.
    pub fn listen(&mut self, local: SocketAddr, options: ListenOptions) -> Result<SocketId, Error> {
        todo!()
    }
    /// Active OPEN. `Event::CONNECTED` or `Event::ERROR` follows.
    pub fn connect(&mut self, now: Instant, remote: SocketAddr, options: ConnectOptions) -> Result<SocketId, Error> {
        todo!()
    }
    /// Errors: `WouldBlock`.
    pub fn accept(&mut self, listener: SocketId) -> Result<(SocketId, SocketAddr), Error> {
        todo!()
    }
    /// Queues bytes: copies as many of `data` as there is room for and says how many.
    /// Errors: `WouldBlock`, `BrokenPipe`, `NotConnected`, or what ended the connection (once).
    pub fn send(&mut self, id: SocketId, data: &[u8]) -> Result<usize, Error> {
        todo!()
    }
    /// As `send`, without a copy: takes from the front of `data` what there is room for.
    pub fn send_bytes(&mut self, id: SocketId, data: &mut Bytes) -> Result<usize, Error> {
        todo!()
    }
    /// Reads bytes. `Ok(0)`: the peer closed in good order. Errors: `WouldBlock`, `NotConnected`, or what ended
    /// the connection (once, after the bytes that came before it).
    pub fn recv(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<usize, Error> {
        todo!()
    }
    /// As `recv`, but the bytes stay in the queue.
    pub fn peek(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<usize, Error> {
        todo!()
    }
    pub fn shutdown(&mut self, now: Instant, id: SocketId, how: Shutdown) -> Result<(), Error> {
        todo!()
    }
    /// CLOSE: gives the handle back. What is queued is still delivered; with unread data the peer gets a RST.
    pub fn close(&mut self, now: Instant, id: SocketId) -> Result<(), Error> {
        todo!()
    }
    /// ABORT: gives the handle back and resets the connection.
    pub fn abort(&mut self, now: Instant, id: SocketId) -> Result<(), Error> {
        todo!()
    }
    pub fn set_options(&mut self, now: Instant, id: SocketId, options: SocketOptions) -> Result<(), Error> {
        todo!()
    }
    /// What ended the connection, or the last soft error (`SO_ERROR`); reading it clears it.
    pub fn take_error(&mut self, id: SocketId) -> Result<Option<Error>, Error> {
        todo!()
    }
    /// Adds an address to the interface; what listens on all addresses answers there too.
    pub fn add_address(&mut self, address: IpAddr, prefix_len: u8) {
        todo!()
    }
}

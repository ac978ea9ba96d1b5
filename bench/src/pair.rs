//! What is measured: two hosts on one thread, joined by a wire that loses nothing, with an application on each.

/// Bytes that an application writes or reads at once.
pub(crate) const WRITE: usize = 64 * 1024;
/// Bytes of a request, and of its response.
pub(crate) const MESSAGE: usize = 64;
/// Ports that the server listens on, from [`FIRST_PORT`] on.
pub(crate) const PORTS: u16 = 64;
/// The first of them.
pub(crate) const FIRST_PORT: u16 = 1000;

/// What the two hosts are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Largest packet.
    pub(crate) mtu: u16,
    /// Segments of up to 64 KiB.
    pub(crate) super_segments: bool,
    /// Established connections beside the one that works.
    pub(crate) idle: usize,
}

impl Setup {
    /// MTU 1500, nothing beside.
    pub(crate) const PLAIN: Setup = Setup { mtu: 1500, super_segments: false, idle: 0 };
}

/// Two hosts with one connection that works.
pub(crate) trait Pair {
    /// The hosts, the idle connections, and the connection that works. `progress` is told how many of the idle ones
    /// are there.
    fn new(setup: &Setup, progress: &dyn Fn(usize)) -> Self;

    /// The client writes as much as there is room for, what it sends arrives, the server reads all of it, and the
    /// ACKs go back. Gives the bytes read.
    fn bulk_turn(&mut self) -> usize;

    /// A message there and back, each written, sent, received and read.
    fn round_trip(&mut self);

    /// A connection is opened, accepted, closed by the client and then by the server.
    fn connect_close(&mut self);

    /// A turn of the server's driver in which nothing happens, save that time passes.
    fn empty_turn(&mut self);
}

//! The system under test: two hosts on one thread, connected by a lossless wire, with an application on each.

/// Bytes that an application writes or reads at once.
pub(crate) const WRITE: usize = 64 * 1024;
/// Bytes of a request, and of its response.
pub(crate) const MESSAGE: usize = 64;
/// Number of ports that the server listens on.
pub(crate) const PORTS: u16 = 64;
/// The first of these ports.
pub(crate) const FIRST_PORT: u16 = 1000;

/// The configuration of the two hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Largest packet in bytes.
    pub(crate) mtu: u16,
    /// Send segments of up to 64 KiB.
    pub(crate) super_segments: bool,
    /// Idle established connections besides the active one.
    pub(crate) idle: usize,
}

impl Setup {
    /// MTU 1500 and no idle connections.
    pub(crate) const PLAIN: Setup = Setup { mtu: 1500, super_segments: false, idle: 0 };
}

/// Two hosts with one active connection.
pub(crate) trait Pair {
    /// Creates the hosts, the idle connections and the active one. `progress` gets the number of idle connections so
    /// far.
    fn new(setup: &Setup, progress: &dyn Fn(usize)) -> Self;

    /// The client fills its send buffer, its segments arrive, the server reads everything, and the ACKs return. Returns
    /// the bytes read.
    fn bulk_turn(&mut self) -> usize;

    /// Exchanges a message in each direction: written, sent, received and read.
    fn round_trip(&mut self);

    /// Opens a connection, accepts it, and closes it at the client and then at the server.
    fn connect_close(&mut self);

    /// Runs a turn of the server's driver in which only time passes.
    fn empty_turn(&mut self);
}

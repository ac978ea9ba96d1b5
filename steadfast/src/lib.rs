//! A TCP/IP stack in user space with the API of `tokio::net`.
//!
//! A [`Net`] is a TCP/IP stack on a packet device, driven by a Tokio task. [`TcpListener`], [`TcpStream`] and
//! [`UdpSocket`] belong to a `Net` and otherwise behave as their namesakes in Tokio.
//!
//! ```
//! use steadfast::{Net, TcpListener, TcpStream, device};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! // Two stacks and a wire between them. `device::Tun` reaches the kernel instead.
//! let (left, right) = device::memory::pair(1500);
//! let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
//! let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
//!
//! let listener = TcpListener::bind(&server, ([10, 9, 0, 2], 7)).await?;
//! tokio::spawn(async move {
//!     let (mut stream, _peer) = listener.accept().await?;
//!     let (mut from, mut to) = stream.split();
//!     tokio::io::copy(&mut from, &mut to).await?;
//!     to.shutdown().await
//! });
//!
//! let mut stream = TcpStream::connect(&client, ([10, 9, 0, 2], 7)).await?;
//! stream.write_all(b"hold fast").await?;
//! stream.shutdown().await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "hold fast");
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! A [`Driver`] is one task for one device and its stack. A turn reads a batch of packets, runs the timers that are due,
//! wakes the tasks whose sockets changed, and writes what the stack has to send. Calls of the application take a lock for
//! the time of a copy. They wake the driver if it is idle and they left work for it. Neither a device nor a waker nor a
//! closure of yours runs under the lock.
//!
//! Packets come from a [`device::Device`]: [`Tun`](device::Tun) and [`PacketSocket`](device::PacketSocket) of Linux,
//! [`device::memory`], or one of your own (`examples/own_device.rs`). A program with its own event loop takes
//! [`stack::Stack`] instead, which has no I/O and no clock (`examples/own_loop.rs`).
//!
//! # What it does not do
//!
//! - A network is an end system: it forwards no packets from one interface to another. A [`TcpForwarder`] and its kin
//!   take connections and datagrams to other hosts.
//! - Addresses and routes are those that the program gives: there is no DHCP and no autoconfiguration (RFC 4862). Names
//!   go to the system's resolver, or to one of your own ([`NetBuilder::resolver`]).
//! - Buffers do not grow by themselves: [`SocketOptions`] and [`Config`] set their sizes. Congestion control is CUBIC or
//!   Reno, and only connections that ask for it are paced.
//! - There are no raw sockets, and no descriptors: `poll(2)` and `select(2)` do not see a socket.
//!
//! # What it costs
//!
//! An idle connection takes less than a KiB with its handle and wakers, and no task and no timer of Tokio. Queues take
//! memory while they hold bytes, within `tcp_mem` and the buffers of each socket. Each limit has a name in [`Config`],
//! and a counter in [`Net::counters`] for the times it applied. A read and a write copy the bytes once. A write costs no
//! system call: the driver's next turn sends a batch.
//!
//! # How a connection ends
//!
//! - [`shutdown`](tokio::io::AsyncWriteExt::shutdown) sends a FIN after the written data. The stream can still be read.
//! - Dropping a stream closes the connection. The stack delivers the written data and completes the closing sequence of
//!   RFC 9293 §3.6. If received data is unread, the peer gets a RST (RFC 9293 §3.6.1), so that it does not take the
//!   data for read.
//! - [`TcpStream::abort`] resets the connection.
//! - [`Net::close`] waits until the peers have acknowledged all written data and the FINs. [`Net::closed`] waits until
//!   the network has ended for any reason, and returns that reason.
//! - When the runtime ends or the [`Driver`] is dropped, the stack sends the written data and a FIN. It sends only what
//!   the windows and the device accept at once, and resets a connection that has more to send. Lost segments are not
//!   retransmitted any more: call [`Net::close`] first to be sure of delivery.
//! - A stream that outlives its network returns the bytes that had arrived, then an error that says how the network
//!   ended.
//!
//! # Where a network runs
//!
//! - [`NetBuilder::start`] spawns the driver on the current runtime, which needs time enabled, and I/O for a device of
//!   the kernel. A runtime of one thread is the fastest for few connections: no wake-up crosses threads.
//! - On several threads, the driver is one task among others. They gain where the program works on its data for longer
//!   than the stack does. [`NetBuilder::start_queues`] has a stack and a task for each queue of a device, and
//!   [`NetBuilder::build_threads`] a runtime, too.
//! - [`NetBuilder::start_thread`] gives the network a thread of its own. A program that blocks its runtime does not hold
//!   the network up then; otherwise nothing is acknowledged while it blocks.
//! - [`NetBuilder::build`] returns the driver, to be polled or spawned elsewhere.
//!
//! The network ends with its runtime: call [`Net::close`] before.
//!
//! # Tests of your program
//!
//! [`device::memory::pair`] connects two networks in one program: a test needs no privileges and no ports. With
//! `tokio::time::pause` it takes no time either: the timers of a network follow the paused clock, so that an hour of
//! keepalive is over at once. [`NetBuilder::secret`] makes each run the same.
//!
//! With the feature `lab` the wire has a delay, a rate, losses, reordering and the other faults of the lab:
//!
//! ```
//! use steadfast::{Net, TcpListener, TcpStream, lab};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] // `#[tokio::test(start_paused = true)]`
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (left, right) = lab::pair(1500, "delay 20ms loss 5%".parse()?, "delay 20ms".parse()?, 7);
//! let server = Net::builder().address([10, 9, 0, 2], 24).secret([2; 32]).start(right)?;
//! let client = Net::builder().address([10, 9, 0, 1], 24).secret([1; 32]).start(left)?;
//!
//! let listener = TcpListener::bind(&server, "10.9.0.2:80").await?;
//! let upload = async {
//!     let mut stream = TcpStream::connect(&client, "10.9.0.2:80").await?;
//!     stream.write_all(&[7; 200_000]).await?;
//!     stream.shutdown().await
//! };
//! let download = async {
//!     let mut bytes = Vec::new();
//!     listener.accept().await?.0.read_to_end(&mut bytes).await?;
//!     std::io::Result::Ok(bytes)
//! };
//! let ((), bytes) = tokio::try_join!(upload, download)?;
//! assert_eq!(bytes.len(), 200_000);
//! assert!(client.counters().retrans_segs > 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Differences from `tokio::net`
//!
//! - Calls that open a socket take the [`Net`] first: `TcpStream::connect(&net, "10.9.0.2:80")`.
//! - Readiness is the state of a connection, not a memory of events: see [`TcpStream::ready`].
//! - A read into an empty buffer returns at once.
//! - A connect to an unspecified address fails with `InvalidInput`; the kernel connects to itself.
//! - A connection does not hold the port that [`TcpSocket::bind`] reserved for it.
//!
//! The crate `parity` of the repository runs the same tests on both.
//!
//! # Local addresses
//!
//! A packet to an address of the network itself never reaches the device. With `127.0.0.1/8` among the addresses, all
//! of 127.0.0.0/8 is local.
//!
//! # Gateways and proxies
//!
//! A [`TcpForwarder`] takes connections to addresses of other hosts, and decides about each before it is answered.
//! [`relay()`] joins two streams of any kind, such as the accepted one and one of the kernel, and carries ends and resets
//! across. [`TcpRequest::splice_with`] does both. A [`UdpForwarder`] and an [`EchoForwarder`] take datagrams and pings, and
//! answer with replies or ICMP errors.
//!
//! # Wake-ups
//!
//! A stream wakes one reading and one writing task: those that polled it last. The halves of
//! [`into_split`](TcpStream::into_split) may live in two tasks.
//!
//! # Features
//!
//! All are off by default. `lab` brings a wire with faults; the others implement the traits of another crate.
//!
//! | feature | brings |
//! |---|---|
//! | `axum` | `axum::serve(listener, app)` |
//! | `futures` | `TcpListener::incoming`, a `Stream` |
//! | `hyper` | `hyper::Connector` for the clients of `hyper-util` |
//! | `lab` | `lab::pair`, a wire with faults |
//! | `quinn` | `quinn::AsyncUdpSocket` for the UDP socket |
//! | `tokio-util` | `tokio_util::net::Listener` for the listener |
//! | `tonic` | `tonic::transport::server::Connected` for the streams of a server; it turns on `futures` and `hyper` |
#![forbid(unsafe_code)]
// A user reads when a call fails, or panics.
#![deny(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod addr;
mod alarm;
mod batch;
#[cfg(all(feature = "control", unix))]
mod control;
mod driver;
#[cfg(any(feature = "axum", feature = "tokio-util", feature = "tonic"))]
mod foreign_traits;
mod forward;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "futures")]
mod incoming;
#[cfg(feature = "lab")]
pub mod lab;
mod listener;
mod lookup;
mod net;
mod options;
mod ports;
mod queue;
#[cfg(feature = "quinn")]
mod quinn;
mod readiness;
pub mod relay;
mod shared;
mod socket;
mod split;
mod stream;
#[cfg(all(feature = "control", unix))]
mod tap;
mod tcp_socket;
mod udp;
mod waiting;

pub use steadfast_core as stack;
pub use steadfast_core::config::{Config, CongestionControl, Profile};
pub use steadfast_core::{
    ConnectOptions, Echo, ForwardRule, IcmpError, Interface, InterfaceId, ListenOptions, Reject, Route,
    SocketId, SocketOptions, Syn, UdpOptions, UdpPacket,
};
pub use steadfast_device as device;

pub use addr::{Resolver, Resolving, SystemResolver, ToSocketAddrs};
#[cfg(all(feature = "control", unix))]
pub use control::{ControlSocket, SocketFilter};
pub use driver::Driver;
pub use forward::{EchoForwarder, TcpForwarder, TcpRequest, UdpForwarder};
#[cfg(feature = "futures")]
pub use incoming::Incoming;
pub use listener::TcpListener;
pub use lookup::lookup_host;
pub use net::{Net, NetBuilder, QueueThread};
pub use options::TcpKeepalive;
pub use relay::{RelayConfig, RelayEnd, Report, relay};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use stream::TcpStream;
pub use tcp_socket::TcpSocket;
pub use udp::UdpSocket;

/// The halves of a stream, under the path that `tokio::net` has for them.
pub mod tcp {
    pub use crate::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
}

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

//! TCP that does not let go: connections in user space, in the shape of `tokio::net`.
//!
//! A [`Net`] is a network of one's own: a TCP/IP stack on a packet device, driven by a Tokio task. On it live
//! [`TcpListener`] and [`TcpStream`], which do what their namesakes in Tokio do.
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
//! # How a connection ends
//!
//! - [`shutdown`](tokio::io::AsyncWriteExt::shutdown) sends a FIN after what was written; reading goes on.
//! - Dropping a stream closes it: what was written is still delivered, and the stack waits out what TCP asks
//!   for. If bytes were received that nobody read, the peer gets a RST, for it must not take them for read.
//! - [`TcpStream::abort`] resets the connection.
//! - [`Net::close`] waits until what was written has arrived, and the end of it. [`Net::closed`] waits for the end,
//!   whatever brings it, and says what it was.
//! - When the runtime ends, or the [`Driver`] is dropped, what was written is sent, and a FIN after it, as far as the
//!   windows and the device take it at once. A connection that is not done with it is reset. Nobody is left to send
//!   again what gets lost: a program that wants to be sure calls [`Net::close`] first.
//! - A stream that is held longer than its network lives gives the bytes that had arrived, then an error that says how
//!   the network ended.
//!
//! # Addresses of one's own
//!
//! A packet to an address of the network itself stays inside, and never reaches the device. With `127.0.0.1/8` among
//! the addresses, all of 127.0.0.0/8 is such an address.
//!
//! # Wake-ups
//!
//! A stream wakes one reading and one writing task: those that polled last. The halves of
//! [`into_split`](TcpStream::into_split) may live in two tasks.
#![forbid(unsafe_code)]

mod batch;
mod driver;
mod listener;
mod net;
mod queue;
mod shared;
mod split;
mod stream;

pub use steadfast_core as core;
pub use steadfast_core::config::{Config, Profile};
pub use steadfast_core::{ConnectOptions, ListenOptions, SocketId, SocketOptions};
pub use steadfast_device as device;

pub use driver::Driver;
pub use listener::TcpListener;
pub use net::{Builder, Net};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use stream::TcpStream;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

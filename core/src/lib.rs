//! A sans-IO TCP/IP stack: packets and time in, packets and events out.
//!
//! A [`Stack`] owns no device, no clock and no thread. Its driver calls four kinds of methods:
//!
//! - *inputs* pass in a packet ([`Stack::receive`]) or the passage of time ([`Stack::advance`]);
//! - *user calls* are those of RFC 9293 §3.9.1: [`listen`](Stack::listen), [`connect`](Stack::connect),
//!   [`accept`](Stack::accept), [`send`](Stack::send), [`recv`](Stack::recv), [`shutdown`](Stack::shutdown),
//!   [`close`](Stack::close), [`abort`](Stack::abort);
//! - *polls* are called after each input or user call until they return nothing: [`Stack::transmit`] for packets,
//!   [`Stack::poll_event`] for sockets that changed, [`Stack::poll_at`] for the time of the next
//!   [`advance`](Stack::advance);
//! - *getters* inspect: [`info`](Stack::info), [`sockets`](Stack::sockets), [`counters`](Stack::counters),
//!   [`usage`](Stack::usage).
//!
//! Any order is legal. The same inputs give the same outputs, byte for byte: randomness comes from [`Config::secret`],
//! and time from the caller. A `Stack` can be cloned, so a test can fork the world.
//!
//! ```
//! use steadfast_core::{Config, ConnectOptions, Error, Event, Instant, Interface, ListenOptions, Stack};
//!
//! let stack = |address: &str, secret| {
//!     let config = Config { secret: [secret; 32], ..Config::default() };
//!     Stack::new(config, Interface::new(1500, [(address.parse().unwrap(), 24)]))
//! };
//! let (mut client, mut server) = (stack("10.0.0.1", 1), stack("10.0.0.2", 2));
//! let now = Instant::ZERO;
//!
//! // Carries packets between the two until both are silent.
//! let carry = |client: &mut Stack, server: &mut Stack| {
//!     let mut frame = [0; 1500];
//!     loop {
//!         if let Some(sent) = client.transmit(now, &mut frame) {
//!             server.receive(now, &frame[..sent.len]);
//!         } else if let Some(sent) = server.transmit(now, &mut frame) {
//!             client.receive(now, &frame[..sent.len]);
//!         } else {
//!             break;
//!         }
//!     }
//! };
//!
//! let listener = server.listen("10.0.0.2:7".parse().unwrap(), ListenOptions::default())?;
//! let stream = client.connect(now, "10.0.0.2:7".parse().unwrap(), ConnectOptions::default())?;
//! carry(&mut client, &mut server);
//! let (id, event) = client.poll_event().unwrap();
//! assert!(id == stream && event.contains(Event::CONNECTED));
//!
//! client.send(stream, b"hello")?;
//! carry(&mut client, &mut server);
//! let (accepted, peer) = server.accept(listener)?;
//! let mut buffer = [0; 16];
//! assert_eq!(server.recv(accepted, &mut buffer)?, 5);
//! assert_eq!(peer, client.local_addr(stream)?);
//!
//! client.close(now, stream)?;
//! carry(&mut client, &mut server);
//! assert_eq!(server.recv(accepted, &mut buffer)?, 0); // the peer closed in good order
//! server.close(now, accepted)?;
//! carry(&mut client, &mut server);
//! assert_eq!(server.usage().connections, 0);
//! assert_eq!(client.usage().time_wait, 1); // the active closer waits out 2MSL
//! # Ok::<(), Error>(())
//! ```
#![forbid(unsafe_code)]
// A user reads when a call fails, or panics.
#![deny(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod buffer;
pub mod config;
pub mod counters;
pub mod error;
mod flow;
mod forward;
pub mod histograms;
pub mod info;
mod ip;
mod keys;
mod link;
mod list;
mod memory;
mod ports;
mod queue;
pub mod socket;
mod stack;
mod state;
pub mod steer;
mod table;
mod tally;
mod tcp;
pub mod time;
pub mod trace;
mod tuple;
mod udp;
mod wheel;

pub use bytes::Bytes;
pub use config::{Config, Profile};
pub use error::Error;
pub use forward::{Echo, ForwardRule, Reject, Syn, UdpPacket};
pub use ip::prefix::prefix_covers;
pub use ip::routes::{InterfaceId, PathMetrics, Route};
pub use link::neighbours::{Neighbour, NeighbourState};
pub use link::ports::RouterAdvertisement;
pub use socket::{
    ConnectOptions, Event, IcmpReport, ListenOptions, Readiness, SendFlags, Shutdown, SocketId,
    SocketOptions, Spare,
};
#[cfg(feature = "model")]
pub use stack::{AgreedOptions, Variables};
pub use stack::{Interface, Medium, Packet, PacketBytes, Stack, Transmit};
pub use steadfast_wire as wire;
pub use time::{Duration, Instant};
pub use udp::{Received, UdpOptions};
pub use wire::icmp::ErrorKind as IcmpError;
pub use wire::seq;

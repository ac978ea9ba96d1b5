//! A sans-IO TCP/IP stack.
#![forbid(unsafe_code)]

mod buffer;
pub mod config;
pub mod counters;
pub mod error;
mod flow;
pub mod info;
mod ip;
mod keys;
pub mod seq;
pub mod socket;
mod stack;
mod tcp;
pub mod time;
mod timer;
pub mod trace;
pub mod wire;

pub use bytes::Bytes;
pub use config::{Config, Profile};
pub use error::Error;
pub use socket::{ConnectOptions, Event, ListenOptions, Shutdown, SocketId, SocketOptions};
pub use stack::{Interface, Packet, PacketBytes, Stack, Transmit};
pub use time::{Duration, Instant};

//! A sans-IO TCP/IP stack.
#![forbid(unsafe_code)]

pub mod config;
pub mod counters;
pub mod error;
pub mod info;
pub mod seq;
pub mod socket;
mod stack;
mod tcp;
pub mod time;
pub mod trace;
pub mod wire;

pub use bytes::Bytes;
pub use config::{Config, Profile};
pub use error::Error;
pub use socket::{ConnectOptions, Event, ListenOptions, Shutdown, SocketId, SocketOptions};
pub use stack::{Interface, Packet, PacketBytes, Stack, Transmit};
pub use time::{Duration, Instant};

//! A timeline of a network, and its pictures.
//!
//! A [`Timeline`] is a list of [`Event`]s and the [`Flows`](flows::Flows) that they belong to. Its producers are
//! simulated networks, scripts, stacks with a trace, and readers of captures. Its pictures are the [`ladder`] and the
//! [`capture`]. Nothing here reads a clock.
#![forbid(unsafe_code)]

pub mod capture;
pub mod event;
pub mod flows;
pub mod junit;
pub mod ladder;
mod model;
pub mod page;
pub mod pcapng;
pub mod view;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

pub use event::{Captured, Datagram, Event, Fate, Host, Packet, Segment};
pub use model::{History, Keep, Timeline};

/// A `HashMap` whose order does not depend on the system's randomness.
pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<std::hash::DefaultHasher>>;

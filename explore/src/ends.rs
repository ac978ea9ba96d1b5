//! The two hosts, and the time at which they begin.

use steadfast_core::Instant;

/// The hosts by their numbers.
pub(crate) const END_NAMES: [&str; 2] = ["C", "S"];

/// The time at which a run begins: times in the past exist.
pub(crate) const START: Instant = Instant::from_secs(1000);

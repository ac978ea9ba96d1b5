//! Helpers for tests and benches: packets built and parsed ([`packets`]), a TCP peer under a test's control ([`Client`]),
//! and a waker that counts ([`Count`]).
//!
//! Everything here panics on an invalid packet: that is a finding.

pub mod packets;

mod client;
mod count;

pub use client::{Client, Segment, next_segment};
pub use count::Count;

//! Helpers for tests and benches: packets built and parsed ([`packets`]), a TCP peer under a test's control ([`Client`]),
//! a waker that counts ([`Count`]), and random numbers ([`Chance`]).
//!
//! Everything here panics on an invalid packet: that is a finding.

pub mod packets;

mod chance;
mod client;
mod count;

pub use chance::Chance;
pub use client::{Client, Segment, next_segment};
pub use count::Count;

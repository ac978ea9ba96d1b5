//! Helpers for tests and benches: packets built and parsed ([`packets`]), and a TCP peer under a test's control
//! ([`Client`]).
//!
//! Everything here panics on an invalid packet: that is a finding.

pub mod packets;

mod client;

pub use client::{Client, Segment, next_segment};

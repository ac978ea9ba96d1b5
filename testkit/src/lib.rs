//! For tests and benches: packets made and read ([`packets`]), and a TCP peer that says what a test wants it to say
//! ([`Client`]).
//!
//! Everything here panics where a packet is not sound: that is a finding.

pub mod packets;

mod client;

pub use client::{Client, Segment, next_segment};

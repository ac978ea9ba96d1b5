//! A sans-IO TCP/IP stack.
#![forbid(unsafe_code)]

pub mod error;
pub mod seq;
pub mod time;
pub mod wire;

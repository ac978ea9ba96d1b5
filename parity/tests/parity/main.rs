//! One source of cases, compiled for each carrier: see the documentation of the crate.

mod loopback;
mod memory;
mod tools;
#[cfg(target_os = "linux")]
mod tun;

//! One source of cases, compiled for each carrier: see the documentation of the crate.
#![allow(clippy::duplicate_mod, reason = "the cases are compiled once for the types of each carrier")]

#[cfg(target_os = "linux")]
mod dns;
#[cfg(target_os = "linux")]
mod interfaces;
mod loopback;
mod memory;
mod tools;
#[cfg(target_os = "linux")]
mod tun;

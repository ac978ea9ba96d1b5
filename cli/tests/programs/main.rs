//! Common programs as peers: curl, wrk, nginx, and thousands of the kernel's clients, slow ones included. tshark checks
//! the packets of both ends.
//!
//! With `STEADFAST_FULL=1` wrk runs for 30 seconds instead of 5.
#![cfg(target_os = "linux")]

mod captures;
mod many;
// Only part of it is used here.
#[allow(dead_code)]
#[path = "../tun/namespace.rs"]
mod namespace;
mod pace;
mod pages;
mod requests;
mod transfers;

/// Returns whether `STEADFAST_FULL` is set.
fn full() -> bool {
    std::env::var_os("STEADFAST_FULL").is_some_and(|value| value != "0")
}

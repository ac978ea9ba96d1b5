//! Programs of every day on the other end: curl, wrk, nginx, and clients of the kernel by the thousand, slow ones among
//! them. What they and the tool put on the wire is read by tshark.
//!
//! With `STEADFAST_FULL=1` wrk runs for 30 seconds instead of 5.

mod captures;
mod many;
// Not all of it is used here.
#[allow(dead_code)]
#[path = "../tun/namespace.rs"]
mod namespace;
mod pace;
mod requests;
mod transfers;

/// Whether the full figures are asked for.
fn full() -> bool {
    std::env::var_os("STEADFAST_FULL").is_some_and(|value| value != "0")
}

//! Floods and forgeries from the wire, next to well-behaved clients of the kernel, in the test's own network namespace.
//! Each test takes a few seconds and prints its figures (`--nocapture` shows them).
//!
//! Injected packets leave through the TUN device of `steadfast serve`, as if the kernel had routed them there. A flood
//! is as fast as the device reads it: the packets in flight never overflow the device's queue, since a loss there says
//! nothing about the stack.
#![cfg(target_os = "linux")]

mod accept;
mod forgeries;
mod malformed;
// Only part of it is used here.
#[allow(dead_code)]
#[path = "../tun/namespace.rs"]
mod namespace;
mod scene;
mod segments;
mod syn;
mod wire;

//! Floods and forgeries from the wire, beside clients that mean well: the kernel's, in a network namespace of the
//! test's own. Each test is over in a few seconds and prints its figures (`--nocapture` shows them).
//!
//! What is injected goes out of the TUN device of `steadfast serve` as if the kernel had routed it there. A flood is as
//! fast as the device takes it: never so many packets are under way that its queue would overflow, since a packet
//! lost there says nothing of the stack.

mod accept;
mod forgeries;
mod malformed;
// Not all of it is used here.
#[allow(dead_code)]
#[path = "../tun/namespace.rs"]
mod namespace;
mod scene;
mod segments;
mod syn;
mod wire;

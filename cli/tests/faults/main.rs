//! Our stack against the kernel, with faults between them, in real time: a soak of mixed traffic, and how each end uses
//! TCP options.
#![cfg(target_os = "linux")]

mod faulty;
// Only part of it is used here.
#[allow(dead_code)]
#[path = "../tun/namespace.rs"]
mod namespace;
mod options;
mod soak;

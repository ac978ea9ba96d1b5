//! Our stack and the kernel with faults between them, in real time: a soak of mixed traffic, and what each end does
//! with TCP's options.

mod faulty;
// Programs are not started here.
#[allow(dead_code)]
#[path = "../tun/namespace.rs"]
mod namespace;
mod options;
mod soak;

//! The kernel of this machine as the peer of a [`scenario`] or of a [`script`], in real time.
//!
//! Each run has a network [`namespace`] of its own, and a [`Link`] to it: a TUN device whose far end is the lab's
//! network or the script. Scenarios call the kernel's sockets without blocking; scripts make blocking calls as they are
//! written, from a thread of their own. [`sock_diag`] lists the sockets for both.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod error;
mod link;
pub mod namespace;
pub mod scenario;
pub mod script;
pub mod sock_diag;

pub use error::Error;
pub use link::Link;

use std::path::Path;

/// The device file from which TUN devices are made.
const TUN_DEVICE: &str = "/dev/net/tun";

/// Checks that this process may create namespaces and devices. Uses a thread of its own, whose namespace changes.
pub fn check() -> Result<(), Error> {
    if !Path::new(TUN_DEVICE).exists() {
        return Err(Error::NoTunDevice);
    }
    std::thread::spawn(namespace::enter).join().map_err(|_| Error::Panicked)?
}

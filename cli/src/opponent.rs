//! `--against`: who plays the other end.

use clap::ValueEnum;

#[cfg(not(target_os = "linux"))]
pub(crate) use crate::elsewhere::kernel;
use crate::failure::Failure;
#[cfg(target_os = "linux")]
pub(crate) use steadfast_kernel as kernel;

/// Who plays the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Opponent {
    /// The kernel of this machine.
    Kernel,
}

/// Fails with one line unless the kernel of this machine can be the peer.
pub(crate) fn check_kernel() -> Result<(), Failure> {
    let needs = "--against kernel needs Linux with network namespaces and TUN devices";
    kernel::check().map_err(|error| Failure::usage(format!("{needs}: {error}")))
}

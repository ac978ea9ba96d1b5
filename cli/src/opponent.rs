//! `--against`: who plays the other end.

use clap::ValueEnum;

/// Who plays the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Opponent {
    /// The kernel of this machine.
    Kernel,
}

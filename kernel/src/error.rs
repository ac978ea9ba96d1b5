//! Why the kernel cannot be the peer.

use std::io;

use nix::errno::Errno;
use steadfast_device::TunError;
use steadfast_lab::RunError;

use crate::TUN_DEVICE;

/// Why the kernel cannot be the peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system has no TUN devices.
    #[error("{TUN_DEVICE} is not there; modprobe tun")]
    NoTunDevice,
    /// No network namespace can be made.
    #[error("cannot make a network namespace: {}{}", .0.desc().to_lowercase(), hint(*.0))]
    Namespace(Errno),
    /// A sysctl cannot be set.
    #[error("{0}")]
    Sysctl(#[from] SysctlError),
    /// The kernel has no setting of this name.
    #[error("the kernel has no setting `{0}`")]
    NoSetting(String),
    /// The device cannot be opened.
    #[error("{0}")]
    Device(#[from] TunError),
    /// A system call failed.
    #[error("{what}: {error}")]
    System {
        /// The attempt.
        what: &'static str,
        /// The reason.
        error: io::Error,
    },
    /// The scenario cannot be run with these options.
    #[error("{0}")]
    Scenario(#[from] RunError),
    /// A thread panicked.
    #[error("a thread failed")]
    Panicked,
}

impl Error {
    /// For `map_err`: the system refused `what`.
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
        move |error| Error::System { what, error: error.into() }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        match error {
            Error::Namespace(errno) => io::Error::new(io::Error::from(errno).kind(), error.to_string()),
            error => io::Error::other(error),
        }
    }
}

impl From<SysctlError> for io::Error {
    fn from(error: SysctlError) -> io::Error {
        io::Error::other(error)
    }
}

fn hint(errno: Errno) -> &'static str {
    if errno == Errno::EPERM { "; run as root" } else { "" }
}

/// Why a sysctl cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SysctlError {
    /// It does not belong to a network namespace.
    #[error("sysctl {0} is none of a network namespace")]
    Foreign(String),
    /// The kernel has none of this name in a network namespace.
    #[error("sysctl {0}: this kernel has none in a network namespace")]
    Missing(String),
    /// It exists only for the whole machine.
    #[error("sysctl {0} cannot be set for one network namespace alone")]
    Global(String),
    /// The kernel refuses the value.
    #[error("sysctl {0}={1}: the kernel refuses it")]
    Refused(String, String),
}

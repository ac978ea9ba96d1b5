//! Why a machine refuses a namespace, and the remedy.

use std::io;

use nix::errno::Errno;

use crate::machine::{Machine, apparmor};

/// Exit code for our own failures, as of `env`, `timeout` and `docker run`.
pub(super) const OURS: u8 = 125;

/// Why the command does not start.
pub(super) struct Failed {
    pub(super) code: u8,
    pub(super) text: String,
}

impl Failed {
    pub(super) fn new(what: impl std::fmt::Display, error: impl Into<io::Error>) -> Failed {
        Failed { code: OURS, text: format!("{what}: {}", crate::run::plain(&error.into())) }
    }
}

/// The kernel has refused a user namespace.
pub(super) fn of_unshare(error: Errno) -> String {
    let machine = Machine::own();
    let cause = if error == Errno::ENOSPC { Some(machine.limit()) } else { machine.obstacle() };
    let cause = cause.or_else(|| machine.container().map(str::to_owned));
    let text = format!("cannot make a user namespace: {}", crate::run::plain(&error.into()));
    cause.map_or(text.clone(), |cause| format!("{text}; {cause}"))
}

/// The kernel has refused the mapping of the identity, in a file of `/proc/self`.
pub(super) fn of_map(file: &str, error: &io::Error) -> String {
    let text = format!("cannot write /proc/self/{file}: {}", crate::run::plain(error));
    if matches!(error.raw_os_error(), Some(code) if code == Errno::EPERM as i32) {
        return with_apparmor(text);
    }
    if error.kind() == io::ErrorKind::NotFound {
        return format!("{text}; /proc is not mounted: mount -t proc proc /proc");
    }
    text
}

/// The kernel has refused a mount in the new namespace.
pub(super) fn of_mount(error: Errno) -> String {
    let text = format!("cannot make the mounts private: {}", crate::run::plain(&error.into()));
    if error == Errno::EINVAL {
        let remedy = "before the chroot, mount --rbind DIR DIR";
        return format!("{text}; the root directory is no mount point, as in a chroot: {remedy}");
    }
    with_apparmor(text)
}

fn with_apparmor(text: String) -> String {
    if Machine::own().is_apparmor() { format!("{text}; {}", apparmor()) } else { text }
}

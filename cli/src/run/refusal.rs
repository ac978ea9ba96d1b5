//! Why a machine refuses a namespace, and the remedy.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;

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

/// The remedies that a container needs: its default filter of system calls forbids namespaces.
const CONTAINER: &str =
    "in a container, start it with `--security-opt seccomp=unconfined`, or with `--cap-add SYS_ADMIN`";

/// The kernel has refused a user namespace.
pub(crate) fn of_unshare(error: Errno) -> String {
    let cause = cause_of_unshare(error);
    format!("cannot make a user namespace: {}; {cause}", crate::run::plain(&error.into()))
}

fn cause_of_unshare(error: Errno) -> String {
    let number =
        |name: &str| read(&format!("/proc/sys/{name}")).and_then(|text| text.trim().parse::<u64>().ok());
    if error == Errno::ENOSPC {
        let limit = number("user/max_user_namespaces").map_or(String::new(), |n| format!(" (it is {n})"));
        return format!("the limit is reached: sysctl user.max_user_namespaces=10000{limit}");
    }
    if number("kernel/unprivileged_userns_clone") == Some(0) {
        return "this system allows them to root alone: sysctl kernel.unprivileged_userns_clone=1".to_owned();
    }
    if number("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return apparmor();
    }
    if is_chroot() {
        return "the kernel allows none in a chroot: use `unshare --root` or a mount namespace instead"
            .to_owned();
    }
    if is_filtered() {
        return format!("a seccomp filter forbids it: {CONTAINER}");
    }
    if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() {
        return CONTAINER.to_owned();
    }
    "`steadfast doctor` looks for the cause".to_owned()
}

/// The kernel has refused the mapping of the identity, in a file of `/proc/self`.
pub(crate) fn of_map(file: &str, error: &io::Error) -> String {
    let text = format!("cannot write /proc/self/{file}: {}", crate::run::plain(error));
    if matches!(error.raw_os_error(), Some(code) if code == Errno::EPERM as i32) && is_apparmor() {
        return format!("{text}; {}", apparmor());
    }
    if error.kind() == io::ErrorKind::NotFound {
        return format!("{text}; /proc is not mounted: mount -t proc proc /proc");
    }
    text
}

/// The kernel has refused a mount in the new namespace.
pub(crate) fn of_mount(error: Errno) -> String {
    let text = format!("cannot make the mounts private: {}", crate::run::plain(&error.into()));
    if is_apparmor() { format!("{text}; {}", apparmor()) } else { text }
}

/// AppArmor's profile that lets this program make user namespaces, as Ubuntu wants it since 23.10.
pub(crate) fn apparmor() -> String {
    let path = std::env::current_exe().map_or("PATH".to_owned(), |path| path.display().to_string());
    format!(
        "AppArmor forbids it: write the line `abi <abi/4.0>, include <tunables/global> profile steadfast {path} \
         flags=(unconfined) {{ userns, }}` to /etc/apparmor.d/steadfast, then run `apparmor_parser -r \
         /etc/apparmor.d/steadfast`"
    )
}

pub(crate) fn is_apparmor() -> bool {
    read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").is_some_and(|text| text.trim() == "1")
}

/// Returns whether a filter of system calls is in force.
pub(crate) fn is_filtered() -> bool {
    let status = read("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"]))
}

/// Returns whether the root directory is not that of the mount namespace.
pub(crate) fn is_chroot() -> bool {
    // A mount point of the namespace's root has `/` in the fifth field.
    let mounts = read("/proc/self/mountinfo").unwrap_or_default();
    !mounts.is_empty() && !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

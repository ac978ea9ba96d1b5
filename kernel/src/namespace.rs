//! Network namespaces: creation and sysctls.

use std::fs;
use std::io::ErrorKind;

use nix::sched::{CloneFlags, unshare};

use crate::Error;
pub use crate::error::SysctlError;

/// The size of the connection table in namespaces created from this one (Linux 6.1).
const CHILD_TABLE: &str = "/proc/sys/net/ipv4/tcp_child_ehash_entries";
const CHILD_ENTRIES: &str = "1024";

/// Settings of IPv6 for future interfaces: they send nothing on their own, and use their addresses at once.
const QUIET: [(&str, &str); 4] =
    [("accept_dad", "0"), ("router_solicitations", "0"), ("autoconf", "0"), ("addr_gen_mode", "1")];

/// Moves this thread and its later children into a new network namespace. It ends with the last of them.
pub fn enter() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(Error::Namespace)
}

/// Moves this thread into a new network namespace whose connection table is small.
///
/// Listing the sockets walks the whole table, and namespaces share the machine's large one unless told otherwise.
pub fn enter_small() -> Result<(), Error> {
    enter()?;
    if fs::write(CHILD_TABLE, CHILD_ENTRIES).is_ok() {
        enter()?;
    }
    Ok(())
}

/// Configures future interfaces to send nothing on their own, and to use their addresses at once.
pub fn quieten() -> Result<(), SysctlError> {
    if !fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
        return Ok(());
    }
    QUIET.iter().try_for_each(|(name, value)| set(&format!("net.ipv6.conf.default.{name}"), value))
}

/// Sets a sysctl of the namespace. Other `net` sysctls are read-only or absent there.
pub fn set(name: &str, value: &str) -> Result<(), SysctlError> {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    if !name.starts_with("net.") || !name.split('.').all(part) {
        return Err(SysctlError::Foreign(name.to_owned()));
    }
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::write(path, value).map_err(|error| match error.kind() {
        ErrorKind::NotFound => SysctlError::Missing(name.to_owned()),
        ErrorKind::PermissionDenied => SysctlError::Global(name.to_owned()),
        _ => SysctlError::Refused(name.to_owned(), value.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sysctls_of_the_network_are_set() {
        for name in ["kernel.panic", "net", "net.", "net..x", "net.../kernel", "net.ipv4/../../vm", "vm.x"] {
            assert_eq!(set(name, "1"), Err(SysctlError::Foreign(name.to_owned())), "{name}");
        }
    }
}

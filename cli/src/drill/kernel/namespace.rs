//! Network namespaces: creation, sysctls, sockets.

use std::fs;
use std::io;
use std::net::SocketAddr;

use nix::sched::{CloneFlags, unshare};
use steadfast_drill::subject::Listed;

use crate::failure::Failure;
use crate::kernel::{Diag, Line};

/// Moves this thread and its later children into a new network namespace. It ends with the last of them.
pub(super) fn enter() -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
        nix::Error::EPERM => {
            Failure::usage("cannot make a network namespace: operation not permitted; run as root")
        }
        errno => Failure::system("cannot make a network namespace", errno.into()),
    })
}

/// Configures future interfaces to send nothing on their own, and to use their addresses at once.
pub(super) fn quieten() -> Result<(), Failure> {
    if !fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
        return Ok(());
    }
    for (name, value) in
        [("accept_dad", "0"), ("router_solicitations", "0"), ("autoconf", "0"), ("addr_gen_mode", "1")]
    {
        set(&format!("net.ipv6.conf.default.{name}"), value).map_err(Failure::usage)?;
    }
    Ok(())
}

/// Sets a sysctl of the namespace. Other `net` sysctls are read-only or absent there.
pub(super) fn set(name: &str, value: &str) -> Result<(), String> {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    if !name.starts_with("net.") || !name.split('.').all(part) {
        return Err(format!("sysctl {name} is none of a network namespace"));
    }
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::write(path, value).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("sysctl {name}: this kernel has none in a network namespace"),
        io::ErrorKind::PermissionDenied => {
            format!("sysctl {name} cannot be set for one network namespace alone")
        }
        _ => format!("sysctl {name}={value}: the kernel refuses it"),
    })
}

/// All sockets of the namespace, those without a descriptor included.
pub(super) fn sockets() -> Vec<Listed> {
    let listed = |line: &Line| Listed {
        local: canonical(line.entry.local),
        remote: canonical(line.entry.remote),
        state: line.entry.state,
    };
    lines().iter().map(listed).collect()
}

/// Bytes that a connection has queued and its peer has not acknowledged.
pub(super) fn send_queue(local: SocketAddr, remote: SocketAddr) -> Option<i64> {
    let all = lines();
    let same = |line: &&Line| (canonical(line.entry.local), canonical(line.entry.remote)) == (local, remote);
    all.iter().find(same).and_then(|line| i64::try_from(line.send_q).ok())
}

fn lines() -> Vec<Line> {
    // An error yields an empty list: the caller then reports that its socket is missing.
    Diag::open().and_then(|mut diag| diag.list()).unwrap_or_default()
}

/// Converts an IPv4-mapped address to IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sysctls_of_the_network_are_set() {
        for name in ["kernel.panic", "net", "net.", "net..x", "net.../kernel", "net.ipv4/../../vm", "vm.x"] {
            assert!(set(name, "1").is_err_and(|why| why.ends_with("none of a network namespace")), "{name}");
        }
    }
}

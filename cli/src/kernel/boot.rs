//! Boots a kernel for one phase: a network namespace, its settings, and its TUN device.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use steadfast::device::{Tun, TunOptions};
use steadfast_lab::{Boot, Foreign};

use super::sockets::Kernel;

const TUN_DEVICE: &str = "/dev/net/tun";

/// The size of the connection table in namespaces created from this one (Linux 6.1).
const CHILD_TABLE: &str = "/proc/sys/net/ipv4/tcp_child_ehash_entries";
const CHILD_ENTRIES: &str = "1024";

/// Checks that this process may create namespaces and devices; the error says what is missing. Uses a thread of its
/// own, whose namespace changes.
pub(crate) fn check() -> Result<(), String> {
    if !Path::new(TUN_DEVICE).exists() {
        return Err(format!("--against kernel needs {TUN_DEVICE}, which is not there; modprobe tun"));
    }
    let tried = std::thread::spawn(enter_namespace).join();
    match tried {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let reason = error.desc().to_lowercase();
            Err(format!("--against kernel needs a network namespace of its own: {reason}; run as root"))
        }
        Err(_) => Err("--against kernel: a thread failed".to_owned()),
    }
}

fn enter_namespace() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
}

/// Moves this thread into a new network namespace, and sets up the kernel there.
pub(super) fn boot(boot: &Boot) -> Result<Box<dyn Foreign>, String> {
    enter_namespace().map_err(|e| format!("no network namespace can be made: {e}"))?;
    // Listing the sockets walks the whole connection table, and the machine's is large: give this namespace its own.
    if fs::write(CHILD_TABLE, CHILD_ENTRIES).is_ok() {
        enter_namespace().map_err(|e| format!("no network namespace can be made: {e}"))?;
    }
    let defaults = [
        // The only algorithm that every kernel offers in every namespace.
        ("net/ipv4/tcp_congestion_control", "reno"),
        // A tail loss probe fires after two round trips, when a busy machine may only be slow.
        ("net/ipv4/tcp_early_retrans", "0"),
        // The link has no other hosts.
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/router_solicitations", "0"),
    ];
    for (name, value) in defaults {
        write(&Path::new("/proc/sys").join(name), value)?;
    }
    for (name, value) in &boot.sysctls {
        let (path, value) = kernel_setting(name, value)?;
        write(&path, &value)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("cannot start the runtime: {e}"))?;
    let mut options = TunOptions::new("sf0");
    options.mtu = Some(boot.mtu);
    options.host = vec![(boot.v4, 24), (boot.v6, 64)];
    // Faults apply to packets as on a wire.
    options.offload = false;
    // Routers and forged sources are outside the kernel's networks.
    options.routes = vec![(IpAddr::from([0, 0, 0, 0]), 0)];
    let tun = runtime.block_on(Tun::open(&options)).map_err(|e| e.to_string())?;
    Ok(Box::new(Kernel::new(tun, runtime, boot.config.clone())?))
}

/// The kernel's path and value for one of our settings.
fn kernel_setting(name: &str, value: &str) -> Result<(PathBuf, String), String> {
    let (known, value) = match name {
        "tcp_rcvbuf" => ("tcp_rmem", format!("{value} {value} {value}")),
        "tcp_sndbuf" => ("tcp_wmem", format!("{value} {value} {value}")),
        name => (name, value.to_owned()),
    };
    let places = ["net/ipv4", "net/core"].map(|place| Path::new("/proc/sys").join(place).join(known));
    let path = places.into_iter().find(|path| path.exists());
    path.map(|path| (path, value)).ok_or_else(|| format!("the kernel has no setting `{name}`"))
}

fn write(path: &Path, value: &str) -> Result<(), String> {
    fs::write(path, value).map_err(|e| format!("cannot write `{value}` to {}: {e}", path.display()))
}

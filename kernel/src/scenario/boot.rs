//! Boots a kernel for one phase: a network namespace, its settings, and its TUN device.

use std::net::IpAddr;

use steadfast_lab::foreign::{Boot, Foreign};

use super::sockets::Kernel;
use crate::namespace::{self, SysctlError};
use crate::{Error, Link};

/// Settings for every scenario.
const DEFAULTS: [(&str, &str); 2] = [
    // The only algorithm that every kernel offers in every namespace.
    ("net.ipv4.tcp_congestion_control", "reno"),
    // A tail loss probe fires after two round trips, when a busy machine may only be slow.
    ("net.ipv4.tcp_early_retrans", "0"),
];

/// Moves this thread into a new network namespace, and sets up the kernel there.
pub(super) fn boot(boot: &Boot) -> Result<Box<dyn Foreign>, Error> {
    namespace::enter_small()?;
    namespace::quieten()?;
    for (name, value) in DEFAULTS {
        namespace::set(name, value)?;
    }
    for (name, value) in &boot.sysctls {
        set(name, value)?;
    }
    // Routers and forged sources are outside the kernel's networks.
    let everything = IpAddr::from([0; 4]);
    let link = Link::open("sf0", boot.mtu, vec![(boot.v4, 24), (boot.v6, 64)], everything)?;
    Ok(Box::new(Kernel::new(link, boot.config.clone())?))
}

/// Sets the kernel's setting for one of ours.
fn set(name: &str, value: &str) -> Result<(), Error> {
    let (known, value) = match name {
        "tcp_rcvbuf" => ("tcp_rmem", format!("{value} {value} {value}")),
        "tcp_sndbuf" => ("tcp_wmem", format!("{value} {value} {value}")),
        name => (name, value.to_owned()),
    };
    for place in ["net.ipv4", "net.core"] {
        match namespace::set(&format!("{place}.{known}"), &value) {
            Err(SysctlError::Missing(_)) => {}
            set => return Ok(set?),
        }
    }
    Err(Error::NoSetting(name.to_owned()))
}

//! The name servers of the machine.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};

/// Who answers the queries of guests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dns {
    /// The servers that `/etc/resolv.conf` of the machine names, which is read anew for each query.
    #[default]
    Host,
    /// The servers that a file in the syntax of resolv.conf(5) names.
    File(PathBuf),
    /// These servers.
    Servers(Vec<SocketAddr>),
    /// Nobody: the address of the name server is closed.
    None,
}

/// The port of name servers.
pub(crate) const PORT: u16 = 53;

/// The file of the system's servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

impl Dns {
    /// The servers to ask, in order. Empty if there is none or the file cannot be read.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        match self {
            Dns::Host => servers_in(Path::new(RESOLV_CONF)),
            Dns::File(path) => servers_in(path),
            Dns::Servers(servers) => servers.clone(),
            Dns::None => Vec::new(),
        }
    }
}

/// Reads a file that is small: it costs less than to watch it.
fn servers_in(path: &Path) -> Vec<SocketAddr> {
    std::fs::read(path).map(|bytes| servers_of(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
}

/// The servers of a text in the syntax of resolv.conf(5).
fn servers_of(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // An IPv6 address may name an interface.
        let (address, scope) = address.split_once('%').map_or((address, None), |(a, scope)| (a, Some(scope)));
        match (address.parse().ok()?, scope.and_then(interface_number)) {
            (IpAddr::V6(v6), Some(scope)) => Some(SocketAddrV6::new(v6, PORT, 0, scope).into()),
            (address, _) => Some(SocketAddr::new(address, PORT)),
        }
    };
    text.lines().filter_map(server).collect()
}

fn interface_number(name: &str) -> Option<u32> {
    let read = || std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok();
    name.parse().ok().or_else(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_resolv_conf_5_says() {
        let text = "# nameserver 1.1.1.1\nsearch example.org\nnameserver 9.9.9.9\n\
                    nameserver\t2620:fe::fe extra\nnameserver fe80::1%7\nnameserver nonsense\n";
        let servers: Vec<String> = servers_of(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["9.9.9.9:53", "[2620:fe::fe]:53", "[fe80::1%7]:53"]);
    }
}

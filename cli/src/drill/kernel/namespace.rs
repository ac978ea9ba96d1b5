//! A network namespace: making it, its sysctls, and its sockets.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::sched::{CloneFlags, unshare};
use steadfast::core::trace::State;
use steadfast_lab::drill::subject::Listed;

use crate::failure::Failure;

/// Puts this thread, and those that it starts, into a network namespace of its own. It ends with the last of them.
pub(super) fn enter() -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
        nix::Error::EPERM => {
            Failure::usage("cannot make a network namespace: operation not permitted; run as root")
        }
        errno => Failure::system("cannot make a network namespace", errno.into()),
    })
}

/// Interfaces that are made from now on say nothing by themselves, and use their addresses at once.
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

/// Sets a sysctl of the namespace. The kernel shows the others of `net` there only to be read, or not at all.
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

/// All sockets of the namespace, also those that no descriptor stands for.
pub(super) fn sockets() -> Vec<Listed> {
    rows().into_iter().map(|row| row.listed).collect()
}

/// What a connection was given to send and its peer has not acknowledged.
pub(super) fn send_queue(local: SocketAddr, remote: SocketAddr) -> Option<i64> {
    let found = rows().into_iter().find(|row| (row.listed.local, row.listed.remote) == (local, remote));
    found.map(|row| row.send_queue)
}

/// A row of `/proc/net/tcp`.
struct Row {
    listed: Listed,
    send_queue: i64,
}

fn rows() -> Vec<Row> {
    let mut all = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        all.extend(text.lines().skip(1).filter_map(row));
    }
    all
}

/// Number, both ends, state, both queues, and more.
fn row(text: &str) -> Option<Row> {
    let mut words = text.split_whitespace().skip(1);
    let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
    let state = state(u8::from_str_radix(words.next()?, 16).ok()?)?;
    let (send_queue, _) = words.next()?.split_once(':')?;
    let send_queue = i64::from_str_radix(send_queue, 16).ok()?;
    Some(Row { listed: Listed { local, remote, state }, send_queue })
}

/// `0100007F:0050`: words as this machine reads them, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words = ip.as_bytes().chunks(8).map(|word| {
        let word = str::from_utf8(word).ok()?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    let octets: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    let ip = match <[u8; 4]>::try_from(octets.as_slice()) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(octets.as_slice()).ok()?),
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

/// The kernel's numbers; one more is for half-open connections of a listener.
fn state(number: u8) -> Option<State> {
    Some(match number {
        1 => State::Established,
        2 => State::SynSent,
        3 | 12 => State::SynReceived,
        4 => State::FinWait1,
        5 => State::FinWait2,
        6 => State::TimeWait,
        7 => State::Closed,
        8 => State::CloseWait,
        9 => State::LastAck,
        10 => State::Listen,
        11 => State::Closing,
        _ => return None,
    })
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

    #[cfg(target_endian = "little")]
    #[test]
    fn rows_of_the_table_are_read() {
        let text = "   0: 0100007F:0016 0200000A:C350 01 0000012C:00000000 00:00000000 00000000     0";
        let Row { listed, send_queue } = row(text).unwrap();
        assert_eq!(send_queue, 300);
        assert_eq!(listed.local, "127.0.0.1:22".parse().unwrap());
        assert_eq!((listed.remote, listed.state), ("10.0.0.2:50000".parse().unwrap(), State::Established));
        let mapped = address("0000000000000000FFFF00000100A8C0:1F90");
        assert_eq!(mapped, Some("192.168.0.1:8080".parse().unwrap()));
        let v6 = address("0B0A3DFD0000D6170000000001000000:1F90");
        assert_eq!(v6, Some("[fd3d:a0b:17d6::1]:8080".parse().unwrap()));
    }
}

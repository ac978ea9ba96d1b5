//! Names from C headers, with Linux's values.

use super::IpVersion;

const NAMES: [(&str, i64); 88] = [
    ("O_RDONLY", 0),
    ("O_WRONLY", 1),
    ("O_RDWR", 2),
    ("O_CREAT", 0o100),
    ("O_NONBLOCK", O_NONBLOCK),
    ("F_GETFL", 3),
    ("F_SETFL", 4),
    ("F_GETFD", 1),
    ("F_SETFD", 2),
    ("FD_CLOEXEC", 1),
    ("SOCK_STREAM", 1),
    ("SOCK_DGRAM", 2),
    ("SOCK_RAW", 3),
    ("SOCK_SEQPACKET", 5),
    ("SOCK_NONBLOCK", O_NONBLOCK),
    ("SOCK_CLOEXEC", 0o2_000_000),
    ("AF_INET", 2),
    ("AF_INET6", 10),
    ("PF_INET", 2),
    ("PF_INET6", 10),
    ("IPPROTO_IP", 0),
    ("IPPROTO_TCP", 6),
    ("IPPROTO_UDP", 17),
    ("IPPROTO_SCTP", 132),
    ("IPPROTO_MPTCP", 262),
    ("SHUT_RD", 0),
    ("SHUT_WR", 1),
    ("SHUT_RDWR", 2),
    ("MSG_OOB", MSG_OOB),
    ("MSG_PEEK", MSG_PEEK),
    ("MSG_DONTROUTE", 4),
    ("MSG_TRUNC", MSG_TRUNC),
    ("MSG_DONTWAIT", MSG_DONTWAIT),
    ("MSG_EOR", MSG_EOR),
    ("MSG_WAITALL", MSG_WAITALL),
    ("MSG_ERRQUEUE", MSG_ERRQUEUE),
    ("MSG_NOSIGNAL", 0x4000),
    ("MSG_MORE", MSG_MORE),
    ("MSG_ZEROCOPY", MSG_ZEROCOPY),
    ("MSG_FASTOPEN", MSG_FASTOPEN),
    ("POLLIN", 1),
    ("POLLPRI", 2),
    ("POLLOUT", 4),
    ("POLLERR", 8),
    ("POLLHUP", 0x10),
    ("POLLNVAL", 0x20),
    ("POLLRDNORM", 0x40),
    ("POLLWRNORM", 0x100),
    ("POLLRDHUP", 0x2000),
    ("POLLINIGNEOF", 0x2000),
    ("EPOLLIN", 1),
    ("EPOLLPRI", 2),
    ("EPOLLOUT", 4),
    ("EPOLLERR", 8),
    ("EPOLLHUP", 0x10),
    ("EPOLLRDHUP", 0x2000),
    ("EPOLLONESHOT", 1 << 30),
    ("EPOLLET", 1 << 31),
    ("EPOLL_CTL_ADD", 1),
    ("EPOLL_CTL_DEL", 2),
    ("EPOLL_CTL_MOD", 3),
    ("SPLICE_F_MOVE", 1),
    ("SPLICE_F_NONBLOCK", SPLICE_NONBLOCK),
    ("NULL", 0),
    ("AF_UNSPEC", 0),
    ("SOL_SOCKET", 1),
    ("SOL_IP", 0),
    ("SOL_TCP", 6),
    ("SOL_IPV6", 41),
    ("IPPROTO_IPV6", 41),
    ("IPTOS_LOWDELAY", 0x10),
    ("IPTOS_THROUGHPUT", 0x08),
    ("IPTOS_RELIABILITY", 0x04),
    ("IPTOS_MINCOST", 0x02),
    ("IPTOS_ECN_NOTECT", 0),
    ("IPTOS_ECN_ECT1", 1),
    ("IPTOS_ECN_ECT0", 2),
    ("IPTOS_ECN_CE", 3),
    ("IP_PMTUDISC_DONT", 0),
    ("IP_PMTUDISC_WANT", 1),
    ("IP_PMTUDISC_DO", 2),
    ("IP_PMTUDISC_PROBE", 3),
    ("IP_RECVERR", 11),
    ("IPV6_RECVERR", 25),
    ("TCP_INQ", 36),
    ("TCP_CM_INQ", 36),
    ("SO_EE_ORIGIN_ICMP", 2),
    ("SO_EE_ORIGIN_ICMP6", 3),
];

pub(crate) const O_NONBLOCK: i64 = 0o4000;
pub(crate) const MSG_OOB: i64 = 1;
pub(crate) const MSG_PEEK: i64 = 2;
pub(crate) const MSG_TRUNC: i64 = 0x20;
pub(crate) const MSG_DONTWAIT: i64 = 0x40;
pub(crate) const MSG_WAITALL: i64 = 0x100;
pub(crate) const MSG_ERRQUEUE: i64 = 0x2000;
pub(crate) const MSG_MORE: i64 = 0x8000;
/// Ends a record.
pub(crate) const MSG_EOR: i64 = 0x80;
pub(crate) const MSG_ZEROCOPY: i64 = 0x400_0000;
pub(crate) const MSG_FASTOPEN: i64 = 0x2000_0000;
pub(crate) const SPLICE_NONBLOCK: i64 = 2;

/// Returns the value of a name.
pub(crate) fn value(name: &str) -> Option<i64> {
    let known = NAMES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    known.or_else(|| code_point(name))
}

/// The octet of a class selector or of a class of assured forwarding: `IPTOS_DSCP_CS1`, `IPTOS_DSCP_AF11`.
fn code_point(name: &str) -> Option<i64> {
    let name = name.strip_prefix("IPTOS_DSCP_")?;
    if name == "EF" {
        return Some(0xb8);
    }
    let digit = |text: &str| text.parse::<i64>().ok().filter(|digit| (0..8).contains(digit));
    match (name.strip_prefix("CS"), name.strip_prefix("AF").filter(|rest| rest.len() == 2)) {
        (Some(class), _) => digit(class).map(|class| class << 5),
        (None, Some(rest)) => Some(digit(&rest[..1])? << 5 | digit(&rest[1..])? << 3),
        (None, None) => None,
    }
}

/// Names that the runner of the Linux suite defines for a version of IP.
// DRILL-L06
pub(crate) fn of_runner(ip_version: IpVersion) -> [(&'static str, &'static str); 4] {
    let v4 = ip_version == IpVersion::V4;
    let v6 = ip_version == IpVersion::V6;
    [
        ("TFO_COOKIE", if v6 { "c1d1e9742a47a9bc" } else { "3021b9d889017eeb" }),
        ("CODE", if v6 { "address_unreachable" } else { "host_unreachable" }),
        ("CMSG_LEVEL_IP", if v4 { "SOL_IP" } else { "SOL_IPV6" }),
        ("CMSG_TYPE_RECVERR", if v4 { "IP_RECVERR" } else { "IPV6_RECVERR" }),
    ]
}

/// Formats flags of `poll` or `epoll`.
pub(crate) fn events(events: i64) -> String {
    let names: Vec<_> = NAMES
        .iter()
        .filter(|(name, value)| name.starts_with("POLL") && *name != "POLLINIGNEOF" && events & value != 0)
        .map(|(name, _)| *name)
        .collect();
    if names.is_empty() { "0".to_owned() } else { names.join("|") }
}

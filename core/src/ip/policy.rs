//! The policy table of RFC 6724, and the order of destinations.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::prefix::common_prefix;

/// A row of the default policy table (RFC 6724 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    precedence: u8,
    pub(crate) label: u8,
}

/// Returns the row of an address.
pub(crate) fn policy_of(address: IpAddr) -> Policy {
    let IpAddr::V6(address) = address else { return Policy { precedence: 35, label: 4 } };
    let (precedence, label) = match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => (50, 0),
        [0, 0, 0, 0, 0, 0, ..] => (1, 3),
        [0x2001, 0, ..] => (5, 5),
        [0x2002, ..] => (30, 2),
        [0x3ffe, ..] => (1, 12),
        [first, ..] if first & 0xfe00 == 0xfc00 => (3, 13),
        [first, ..] if first & 0xffc0 == 0xfec0 => (1, 11),
        _ => (40, 1),
    };
    Policy { precedence, label }
}

/// Returns the scope of a destination (RFC 6724 §3.1); a smaller number is a smaller scope.
fn scope(address: IpAddr) -> u8 {
    const LINK_LOCAL: u8 = 2;
    const SITE_LOCAL: u8 = 5;
    const GLOBAL: u8 = 14;
    match address {
        IpAddr::V4(v4) if v4.is_loopback() || v4.is_link_local() => LINK_LOCAL,
        IpAddr::V6(v6) if v6.is_loopback() || v6.is_unicast_link_local() => LINK_LOCAL,
        IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfec0 => SITE_LOCAL,
        _ => GLOBAL,
    }
}

/// Returns the key by which destinations are sorted (RFC 6724 §6). `source` has the source address and the length of its
/// prefix; `None` for a destination that cannot be reached.
///
/// Rules 3, 4 and 7 do not apply: no address is deprecated or a home address, and no way is a tunnel. Rule 9 is that of
/// IPv6 alone. It would undo the rotation by which IPv4 servers share their load, and §6 leaves that to us.
// 6724-4, 6724-5
pub(crate) fn rank(destination: IpAddr, source: Option<(IpAddr, u8)>) -> impl Ord {
    let (there, from) = (policy_of(destination), source.map(|(source, _)| source));
    let in_common = source
        .filter(|_| destination.is_ipv6())
        .map_or(0, |(source, len)| common_prefix(source, destination).min(u32::from(len)));
    (
        from.is_none(),                                               // rule 1
        from.is_none_or(|from| scope(from) != scope(destination)),    // rule 2
        from.is_none_or(|from| policy_of(from).label != there.label), // rule 5
        Reverse(there.precedence),                                    // rule 6
        scope(destination),                                           // rule 8
        Reverse(in_common),                                           // rule 9
    )
}

//! Prefixes of addresses.

use std::net::IpAddr;

/// Returns whether the network `network/prefix_len` contains `address`. A network contains no address of the other
/// family.
///
/// ```
/// use steadfast_core::prefix_covers;
///
/// let network = "192.0.2.0".parse().unwrap();
/// assert!(prefix_covers(network, 24, "192.0.2.7".parse().unwrap()));
/// assert!(!prefix_covers(network, 24, "192.0.3.7".parse().unwrap()));
/// ```
pub fn prefix_covers(network: IpAddr, prefix_len: u8, address: IpAddr) -> bool {
    let (a, b) = match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()) << 96, u128::from(b.to_bits()) << 96),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits()),
        _ => return false,
    };
    (a ^ b).leading_zeros() >= u32::from(prefix_len)
}

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
    network.is_ipv4() == address.is_ipv4() && common_prefix(network, address) >= u32::from(prefix_len)
}

/// Returns the number of leading bits that two addresses of one family have in common; for IPv4, at least 32 if they are
/// equal.
pub(crate) fn common_prefix(a: IpAddr, b: IpAddr) -> u32 {
    (left_aligned(a) ^ left_aligned(b)).leading_zeros()
}

/// Returns the first `len` bits of an address, left-aligned and padded with zeros. All bits for a longer prefix.
pub(crate) fn prefix_of(address: IpAddr, len: u8) -> u128 {
    let shift = 128u32.checked_sub(u32::from(len));
    let mask = shift.map_or(u128::MAX, |shift| u128::MAX.checked_shl(shift).unwrap_or(0));
    left_aligned(address) & mask
}

fn left_aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

//! Wire formats of the headers. No state, no policy, no clock.
//!
//! Each module converts between bytes and a plain value. `parse` takes any bytes and never panics; `emit` writes into
//! the caller's buffer. Header fields use natural units (fragment offsets are bytes), not those of the wire. The rest
//! of the stack decides whether a valid header is acceptable.
#![forbid(unsafe_code)]
// A user reads when a call fails, or panics.
#![deny(clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub mod arp;
pub mod build;
pub mod checksum;
pub mod ethernet;
pub mod groups;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod seq;
pub mod tcp;
pub mod udp;

/// Protocol number of ICMP in IPv4.
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of IGMP in IPv4.
pub const PROTOCOL_IGMP: u8 = 2;
/// Protocol number of TCP in both IP versions.
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of UDP in both IP versions.
pub const PROTOCOL_UDP: u8 = 17;
/// Next-header number of ICMPv6 in IPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// The ECN field of an IP header: the low two bits of the former type of service or traffic class (RFC 3168 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The sender's transport does not understand ECN.
    #[default]
    NotEct,
    /// ECN-capable, codepoint 01.
    Ect1,
    /// ECN-capable, codepoint 10: the one that classic senders use.
    Ect0,
    /// A router marked congestion.
    Ce,
}

impl Ecn {
    /// Returns the codepoint in the low two bits and ignores the others.
    #[inline]
    pub const fn from_bits(bits: u8) -> Ecn {
        match bits & 3 {
            0 => Ecn::NotEct,
            1 => Ecn::Ect1,
            2 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    /// Returns the codepoint, 0 to 3.
    #[inline]
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

/// Returns the big-endian number at `at`, or 0 past the end. Callers check lengths first; the 0 keeps a mistake there
/// from being a panic.
#[inline]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u16::from_be_bytes(*b))
}

/// Like [`u16_at`], for four bytes.
#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
}

/// Like [`u16_at`], for eight bytes: one read covers several header fields.
#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u64::from_be_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecn_codepoints_are_those_of_rfc_3168() {
        let all = [(0, Ecn::NotEct), (1, Ecn::Ect1), (2, Ecn::Ect0), (3, Ecn::Ce)];
        for (bits, ecn) in all {
            assert_eq!(Ecn::from_bits(bits | 0xfc), ecn);
            assert_eq!(ecn.bits(), bits);
        }
    }
}

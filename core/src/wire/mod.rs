//! Headers as they stand on the wire, and nothing else: no state, no policy, no clock.
//!
//! Each module turns bytes into a plain value and back: `parse` takes any bytes and never panics, `emit` writes
//! into the caller's buffer. Header fields have their natural unit in the values (fragment offsets are bytes),
//! not that of the wire. Whether a valid header is welcome is decided elsewhere.

pub mod checksum;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;

/// ICMP, as IPv4's protocol number.
pub const PROTOCOL_ICMP: u8 = 1;
/// TCP, in both IP versions.
pub const PROTOCOL_TCP: u8 = 6;
/// UDP, in both IP versions.
pub const PROTOCOL_UDP: u8 = 17;
/// ICMPv6, as IPv6's next header.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// The ECN field of an IP header: the low two bits of the former type of service or traffic class
/// (RFC 3168 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The sender's transport does not understand ECN.
    #[default]
    NotEct,
    /// ECN-capable, codepoint 01.
    Ect1,
    /// ECN-capable, codepoint 10: what classic senders use.
    Ect0,
    /// A router marked congestion.
    Ce,
}

impl Ecn {
    /// The codepoint in the low two bits; the others are ignored.
    pub const fn from_bits(bits: u8) -> Ecn {
        match bits & 3 {
            0 => Ecn::NotEct,
            1 => Ecn::Ect1,
            2 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    /// The codepoint, 0 to 3.
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

/// The big-endian number at `at`, or 0 past the end: callers check lengths first, this only keeps a mistake
/// there from being a panic.
#[inline]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u16::from_be_bytes(*b))
}

/// As [`u16_at`], four bytes.
#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
}

/// As [`u16_at`], eight bytes: of a header's fields as many as that has are read at once.
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

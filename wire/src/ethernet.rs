//! Ethernet II frames (RFC 894, RFC 2464), and the tag of IEEE 802.1Q.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::u16_at;

/// Length of the header without a tag, in bytes.
pub const HEADER_LEN: usize = 14;
/// Length of a tag of IEEE 802.1Q, in bytes.
pub const TAG_LEN: usize = 4;

/// The EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// The EtherType of ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// The EtherType of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;
/// The EtherType that announces a tag.
const TYPE_TAG: u16 = 0x8100;

/// A hardware address of 48 bits.
///
/// ```
/// use steadfast_wire::ethernet::Address;
///
/// let address: Address = "52:54:00:12:34:56".parse().unwrap();
/// assert_eq!(address.to_string(), "52:54:00:12:34:56");
/// assert_eq!(address.link_local().to_string(), "fe80::5054:ff:fe12:3456");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub [u8; 6]);

impl Address {
    /// All zeros: no address. ARP has it where the address is sought.
    pub const UNSPECIFIED: Address = Address([0; 6]);
    /// All ones: every host of the link.
    pub const BROADCAST: Address = Address([0xff; 6]);

    /// Returns whether the address is that of a single host.
    #[inline]
    pub const fn is_unicast(self) -> bool {
        !self.is_group() && u64::from_be_bytes(self.padded()) != 0
    }

    /// Returns whether frames to the address are for many: multicast or broadcast.
    #[inline]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    const fn padded(self) -> [u8; 8] {
        let [a, b, c, d, e, f] = self.0;
        [0, 0, a, b, c, d, e, f]
    }

    /// Returns the address of packets to a group (RFC 1112 §6.4, RFC 2464 §7), or to the limited broadcast address.
    /// `None`: the IP address is that of a single host, or a directed broadcast.
    pub fn of_group(group: IpAddr) -> Option<Address> {
        match group {
            IpAddr::V4(Ipv4Addr::BROADCAST) => Some(Address::BROADCAST),
            IpAddr::V4(v4) if v4.is_multicast() => {
                let [_, b, c, d] = v4.octets();
                Some(Address([0x01, 0x00, 0x5e, b & 0x7f, c, d]))
            }
            IpAddr::V6(v6) if v6.is_multicast() => {
                let [.., a, b, c, d] = v6.octets();
                Some(Address([0x33, 0x33, a, b, c, d]))
            }
            _ => None,
        }
    }

    /// Returns the link-local IPv6 address that is made of this address (RFC 4291 appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let id = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(id))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected six hexadecimal bytes like 52:54:00:12:34:56")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let mut address = Address::UNSPECIFIED;
        let mut parts = text.split(':');
        for byte in &mut address.0 {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(AddressError)?;
            // `from_str_radix` takes a sign, which no hexadecimal digit is.
            let digits = part.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or(AddressError)?;
        }
        if parts.next().is_none() { Ok(address) } else { Err(AddressError) }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The receiver, or a group.
    pub destination: Address,
    /// The sender.
    pub source: Address,
    /// The protocol of the payload. Below 1536 it is a length of IEEE 802.3, and LLC follows.
    pub ethertype: u16,
    /// The tag control information of IEEE 802.1Q: priority, drop eligibility and VLAN.
    pub tag: Option<u16>,
}

/// Returns the header of a frame and its payload, which may end with padding. `None`: the frame ends within the header.
///
/// One tag is read. Behind it, another one counts as a payload of the EtherType 0x8100.
#[inline]
pub fn parse(frame: &[u8]) -> Option<(Header, &[u8])> {
    let (fixed, payload) = frame.split_first_chunk::<HEADER_LEN>()?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, high, low] = *fixed;
    let header = Header {
        destination: Address([d0, d1, d2, d3, d4, d5]),
        source: Address([s0, s1, s2, s3, s4, s5]),
        ethertype: u16::from_be_bytes([high, low]),
        tag: None,
    };
    if header.ethertype != TYPE_TAG {
        return Some((header, payload));
    }
    let (tag, payload) = payload.split_first_chunk::<TAG_LEN>()?;
    Some((Header { ethertype: u16_at(tag, 2), tag: Some(u16_at(tag, 0)), ..header }, payload))
}

impl Header {
    /// Returns the header of a frame without a tag.
    #[inline]
    pub const fn new(source: Address, destination: Address, ethertype: u16) -> Header {
        Header { destination, source, ethertype, tag: None }
    }

    /// Returns the VLAN of the frame. 0: none, which a tag may say too, to carry a priority.
    pub fn vlan(&self) -> u16 {
        self.tag.map_or(0, |tag| tag & 0x0fff)
    }

    /// Writes [`HEADER_LEN`] bytes, and ignores `tag`.
    ///
    /// The buffer must hold that many bytes. Otherwise nothing is written (a debug build asserts).
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) {
        let Some(out) = buffer.first_chunk_mut::<HEADER_LEN>() else {
            debug_assert!(false, "no room for an Ethernet header");
            return;
        };
        out[0..6].copy_from_slice(&self.destination.0);
        out[6..12].copy_from_slice(&self.source.0);
        out[12..14].copy_from_slice(&self.ethertype.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{EtherType, Ethernet2Header, LinkSlice, SlicedPacket};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_six_bytes_in_hexadecimal() {
        assert_eq!(address("00:1B:2c:ff:0e:10"), Address([0, 0x1b, 0x2c, 0xff, 0x0e, 0x10]));
        for text in ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "52:54:0:12:34:56", "+2:54:00:12:34:56"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError), "{text}");
        }
        assert_eq!(address("52:54:00:12:34:56").to_string(), "52:54:00:12:34:56");
    }

    #[test]
    fn one_host_or_many() {
        for (text, unicast, group) in [
            ("00:00:00:00:00:00", false, false),
            ("ff:ff:ff:ff:ff:ff", false, true),
            ("01:00:5e:00:00:01", false, true),
            ("00:00:00:00:00:01", true, false),
            ("52:54:00:12:34:56", true, false),
        ] {
            assert_eq!((address(text).is_unicast(), address(text).is_group()), (unicast, group), "{text}");
        }
    }

    #[test]
    fn groups_have_the_addresses_of_rfc_1112_and_rfc_2464() {
        let of = |text: &str| Address::of_group(text.parse().unwrap());
        assert_eq!(of("224.0.0.251"), Some(address("01:00:5e:00:00:fb")));
        assert_eq!(of("239.255.255.250"), Some(address("01:00:5e:7f:ff:fa")));
        assert_eq!(of("255.255.255.255"), Some(Address::BROADCAST));
        assert_eq!(of("ff02::1:ff12:3456"), Some(address("33:33:ff:12:34:56")));
        assert_eq!((of("192.0.2.1"), of("2001:db8::1")), (None, None));
    }

    #[test]
    fn the_universal_bit_is_turned_in_a_link_local_address() {
        // The example of RFC 2464 §4.
        let expected: Ipv6Addr = "fe80::3656:78ff:fe9a:bcde".parse().unwrap();
        assert_eq!(address("34:56:78:9A:BC:DE").link_local(), expected);
    }

    #[test]
    fn a_tag_is_read_and_a_second_one_is_payload() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0x00, 0xe0, 0x05, 0x81, 0x00, 0, 7, 8, 0]);
        let (header, payload) = parse(&frame).unwrap();
        assert_eq!((header.tag, header.vlan(), header.ethertype), (Some(0xe005), 5, TYPE_TAG));
        assert_eq!(payload, [0, 7, 8, 0]);
        assert_eq!(parse(&frame[..17]), None);
        assert_eq!(parse(&frame[..13]), None);
    }

    proptest! {
        #[test]
        fn a_header_is_that_of_etherparse(
            (destination, source, ethertype) in any::<([u8; 6], [u8; 6], u16)>(),
            payload in vec(any::<u8>(), 0..40),
        ) {
            prop_assume!(ethertype != TYPE_TAG);
            let header = Header::new(Address(source), Address(destination), ethertype);
            let mut frame = vec![0xee; HEADER_LEN];
            header.emit(&mut frame);
            let theirs = Ethernet2Header { source, destination, ether_type: EtherType(ethertype) };
            prop_assert_eq!(&frame[..], &theirs.to_bytes()[..]);
            frame.extend(&payload);
            prop_assert_eq!(parse(&frame), Some((header, &payload[..])));
        }

        #[test]
        fn no_bytes_panic(bytes in vec(any::<u8>(), 0..40), tagged: bool) {
            let mut bytes = bytes;
            if tagged && bytes.len() >= HEADER_LEN {
                bytes[12..14].copy_from_slice(&TYPE_TAG.to_be_bytes());
            }
            if let Some((header, payload)) = parse(&bytes) {
                let head = HEADER_LEN + header.tag.map_or(0, |_| TAG_LEN);
                prop_assert_eq!(payload, &bytes[head..]);
            }
            if let Ok(sliced) = SlicedPacket::from_ethernet(&bytes)
                && let Some(LinkSlice::Ethernet2(theirs)) = sliced.link
            {
                prop_assert_eq!(parse(&bytes).map(|(ours, _)| ours.source.0), Some(theirs.source()));
            }
        }
    }
}

//! The Internet checksum: the ones'-complement sum of 16-bit words (RFC 1071, RFC 9293 §3.1).

use std::net::IpAddr;

/// A checksum in progress. It takes one stream of bytes in pieces of any length; a piece that ends on an odd byte is
/// continued by the next one.
///
/// Words are added in native byte order. Swapping the bytes of the folded sum gives network order (RFC 1071 §2(B)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Sum of the words so far, with end-around carry.
    words: u64,
    /// True if the next byte is the second half of a word.
    odd: bool,
}

impl Sum {
    /// Returns the sum of an empty stream.
    pub const fn new() -> Sum {
        Sum { words: 0, odd: false }
    }

    /// Adds `bytes` at the end of the stream.
    #[inline]
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        self.add_words(steadfast_checksum::sum(bytes));
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// Copies `src` to `dst` and adds it at the end of the stream. Both must have the same length; if not, only the
    /// shorter length is copied and added.
    #[inline]
    pub fn copy_and_add(&mut self, dst: &mut [u8], src: &[u8]) {
        debug_assert_eq!(dst.len(), src.len());
        let len = dst.len().min(src.len());
        self.add_words(steadfast_checksum::copy_and_sum(&mut dst[..len], &src[..len]));
        self.odd ^= len % 2 == 1;
    }

    /// Adds a number as its two bytes in network order.
    #[inline]
    pub fn add_u16(&mut self, n: u16) {
        self.add_words(u64::from(n.to_be()));
    }

    /// Adds a number as its four bytes in network order.
    #[inline]
    pub fn add_u32(&mut self, n: u32) {
        self.add_words(u64::from(n.to_be()));
    }

    /// Adds a number as its sixteen bytes in network order.
    #[inline]
    pub fn add_u128(&mut self, n: u128) {
        let words = n.to_be();
        self.add_words(words as u64);
        self.add_words((words >> 64) as u64);
    }

    /// Adds a sum of words in native byte order that continues the stream here.
    #[inline]
    pub(crate) fn add_words(&mut self, words: u64) {
        // From an odd offset on, each byte belongs to the other half of its word.
        let words = if self.odd { words.rotate_left(8) } else { words };
        self.words = steadfast_checksum::add(self.words, words);
    }

    /// Returns the checksum: the complement of the sum, to be written in network order. It is 0 for data that include
    /// their own correct checksum.
    #[inline]
    pub fn finish(self) -> u16 {
        !u16::from_be(fold(self.words))
    }

    /// Returns whether the stream, with `bytes` added at its end, contains its own correct checksum.
    #[inline]
    pub fn verifies(mut self, bytes: &[u8]) -> bool {
        self.add_bytes(bytes);
        self.finish() == 0
    }
}

/// Folds to the 16-bit ones'-complement sum with the same residue. Adding a number to itself with its halves exchanged
/// leaves the sum of the halves, with the carry, in the upper half.
#[inline]
pub(super) const fn fold(sum: u64) -> u16 {
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// Returns the sum of the pseudo-header that a transport checksum starts with: RFC 9293 §3.1 for IPv4, RFC 8200 §8.1
/// for IPv6. `length` counts the transport's header and payload, in bytes.
///
/// Both addresses must be of one family; if not, the IPv4 address counts as its IPv4-mapped IPv6 address.
#[inline]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: u32) -> Sum {
    debug_assert_eq!(source.is_ipv4(), destination.is_ipv4());
    let mut sum = Sum::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            sum.add_u32(source.to_bits());
            sum.add_u32(destination.to_bits());
        }
        _ => {
            for address in [source, destination] {
                let address = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                sum.add_u128(address.to_bits());
            }
        }
    }
    // The length field has 16 bits in IPv4 and 32 in IPv6. The sum is the same for a length that fits both.
    sum.add_u32(length);
    sum.add_u16(u16::from(protocol));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// RFC 1071 §1, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u16;
        for pair in bytes.chunks(2) {
            let word = u16::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u16::from(low));
            let (added, carry) = sum.overflowing_add(word);
            sum = added + u16::from(carry);
        }
        !sum
    }

    fn of(bytes: &[u8]) -> u16 {
        let mut sum = Sum::new();
        sum.add_bytes(bytes);
        sum.finish()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(of(&[]), 0xffff);
        assert_eq!(of(&[0x12]), !0x1200);
    }

    #[test]
    fn carries_survive_the_largest_packets() {
        for len in [65_535, 65_536, 262_144, 262_145] {
            let ones = vec![0xff; len];
            assert_eq!(of(&ones), naive(&ones), "{len} bytes");
        }
    }

    #[test]
    fn folding_carries_from_every_half() {
        for sum in
            [0, 1, 0xffff, 0x1_0000, 0xffff_ffff, 1 << 32, u64::MAX, u64::MAX - 1, 0xffff_ffff_0000_0000]
        {
            assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff, "{sum:x}");
            assert_eq!(fold(sum) == 0, sum == 0, "{sum:x}");
        }
    }

    /// An error goes unnoticed if it keeps the ones'-complement sum (RFC 1071 §2). Two flipped bits keep it only if
    /// they have the same weight and flip in opposite directions.
    #[test]
    fn bit_flips_are_detected_as_theory_says_threat_59() {
        let mut bytes: Vec<u8> = (0..41u8).map(|n| n.wrapping_mul(89) ^ 0x5a).collect();
        let good = of(&bytes);
        let bits = bytes.len() * 8;
        let weight = |bit: usize| bit % 16;
        for a in 0..bits {
            let a_set = bytes[a / 8] & 0x80 >> (a % 8) != 0;
            bytes[a / 8] ^= 0x80 >> (a % 8);
            assert_ne!(of(&bytes), good, "bit {a}");
            for b in a + 1..bits {
                let b_set = bytes[b / 8] & 0x80 >> (b % 8) != 0;
                bytes[b / 8] ^= 0x80 >> (b % 8);
                let unnoticed = weight(a) == weight(b) && a_set != b_set;
                assert_eq!(of(&bytes) == good, unnoticed, "bits {a} and {b}");
                bytes[b / 8] ^= 0x80 >> (b % 8);
            }
            bytes[a / 8] ^= 0x80 >> (a % 8);
        }
    }

    #[test]
    fn the_pseudo_header_is_that_of_rfc_9293_and_rfc_8200() {
        let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 255));
        let by_hand = [192, 0, 2, 1, 198, 51, 100, 255, 0, 6, 0xab, 0xcd];
        assert_eq!(pseudo_header(a.into(), b.into(), 6, 0xabcd).finish(), naive(&by_hand));

        let (a, b): (Ipv6Addr, Ipv6Addr) = ("2001:db8::1".parse().unwrap(), "fe80::abcd:1".parse().unwrap());
        let mut by_hand = [a.octets(), b.octets()].concat();
        by_hand.extend([0x12, 0x34, 0x56, 0x78, 0, 0, 0, 58]);
        assert_eq!(pseudo_header(a.into(), b.into(), 58, 0x1234_5678).finish(), naive(&by_hand));
    }

    /// Bytes, and the offsets at which to cut them.
    fn pieces() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
        (vec(any::<u8>(), 0..400), vec(0usize..400, 0..6)).prop_map(|(bytes, mut cuts)| {
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(bytes.len()));
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            (bytes, cuts)
        })
    }

    #[test]
    fn copying_goes_on_at_an_odd_place() {
        for len in [4095, 4096, 4097, 12_321] {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 7 + n / 256) as u8).collect();
            let mut copy = vec![0; len + 1];
            let mut sum = Sum::new();
            sum.copy_and_add(&mut copy[..1], &[0x12]);
            sum.copy_and_add(&mut copy[1..], &bytes);
            assert_eq!(copy, [&[0x12][..], &bytes].concat());
            assert_eq!(sum.finish(), naive(&copy), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn folding_keeps_the_residue_and_only_zero_folds_to_zero(sum in prop_oneof![any::<u64>(), any::<u64>().prop_map(|n| n - n % 0xffff)]) {
            prop_assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff);
            prop_assert_eq!(fold(sum) == 0, sum == 0);
        }

        #[test]
        fn any_split_gives_the_naive_sum_and_etherparse_s((bytes, cuts) in pieces()) {
            let mut sum = Sum::new();
            for cut in cuts.windows(2) {
                sum.add_bytes(&bytes[cut[0]..cut[1]]);
            }
            prop_assert_eq!(sum.finish(), naive(&bytes));
            let theirs = etherparse::checksum::Sum16BitWords::new().add_slice(&bytes);
            prop_assert_eq!(sum.finish(), u16::from_be(theirs.ones_complement()));
        }

        #[test]
        fn copying_and_adding_is_a_copy_and_an_addition((bytes, cuts) in pieces()) {
            let mut sum = Sum::new();
            let mut copy = vec![0xee; bytes.len()];
            for cut in cuts.windows(2) {
                sum.copy_and_add(&mut copy[cut[0]..cut[1]], &bytes[cut[0]..cut[1]]);
            }
            prop_assert_eq!(sum.finish(), naive(&bytes));
            prop_assert_eq!(copy, bytes);
        }

        #[test]
        fn numbers_are_part_of_the_stream_at_even_and_odd_places(
            head in vec(any::<u8>(), 0..40),
            (a, b, c) in any::<(u16, u32, u128)>(),
        ) {
            let mut sum = Sum::new();
            sum.add_bytes(&head);
            sum.add_u16(a);
            sum.add_u32(b);
            sum.add_u128(c);
            sum.add_bytes(&head);
            let stream = [&head[..], &a.to_be_bytes(), &b.to_be_bytes(), &c.to_be_bytes(), &head].concat();
            prop_assert_eq!(sum.finish(), naive(&stream));
        }
    }
}

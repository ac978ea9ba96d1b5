//! The Internet checksum: the ones'-complement sum of 16-bit words (RFC 1071, RFC 9293 §3.1).

use std::net::IpAddr;

/// How much the inner loop takes at a time: four 64-bit words, which compilers turn into vector code.
const BLOCK: usize = 32;

/// A checksum under way. It takes one stream of bytes, in pieces of any length: a piece that ends on an odd
/// byte is continued by the next one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Sum of the big-endian words so far. Each call adds less than 2^18, so 2^46 calls fit.
    words: u64,
    /// The next byte is the low half of a word.
    odd: bool,
}

impl Sum {
    /// The sum of no bytes.
    pub const fn new() -> Sum {
        Sum { words: 0, odd: false }
    }

    /// Adds `bytes` at the end of the stream.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if self.odd
            && let Some((first, after)) = rest.split_first()
        {
            self.add_low(*first);
            rest = after;
        }
        let (blocks, tail) = rest.as_chunks::<BLOCK>();
        let mut lanes = Lanes::default();
        for block in blocks {
            lanes.add(block);
        }
        self.words += lanes.fold();
        self.add_tail(tail);
    }

    /// Copies `src` to `dst` and adds it at the end of the stream, touching the bytes once. Both are of one
    /// length; if not, only what fits in both is copied and added.
    pub fn copy_and_add(&mut self, dst: &mut [u8], src: &[u8]) {
        debug_assert_eq!(dst.len(), src.len());
        let len = dst.len().min(src.len());
        let (mut dst, mut src) = (&mut dst[..len], &src[..len]);
        if self.odd
            && let (Some((to, dst_after)), Some((from, src_after))) =
                (std::mem::take(&mut dst).split_first_mut(), src.split_first())
        {
            *to = *from;
            self.add_low(*from);
            (dst, src) = (dst_after, src_after);
        }
        let (to, to_tail) = dst.as_chunks_mut::<BLOCK>();
        let (from, tail) = src.as_chunks::<BLOCK>();
        let mut lanes = Lanes::default();
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
            lanes.add(from);
        }
        to_tail.copy_from_slice(tail);
        self.words += lanes.fold();
        self.add_tail(tail);
    }

    /// Adds a number as its two bytes in network order.
    pub fn add_u16(&mut self, n: u16) {
        self.words += u64::from(if self.odd { n.swap_bytes() } else { n });
    }

    /// Adds a number as its four bytes in network order.
    pub fn add_u32(&mut self, n: u32) {
        self.add_u16((n >> 16) as u16);
        self.add_u16(n as u16);
    }

    /// The checksum: the complement of the sum, to be written in network order. Over bytes that include their
    /// own correct checksum it is 0.
    pub fn finish(self) -> u16 {
        !fold(self.words)
    }

    /// A byte that completes a word.
    fn add_low(&mut self, byte: u8) {
        self.words += u64::from(byte);
        self.odd = false;
    }

    /// Fewer bytes than a block, from an even position.
    fn add_tail(&mut self, tail: &[u8]) {
        let (words, last) = tail.as_chunks::<2>();
        for word in words {
            self.words += u64::from(u16::from_be_bytes(*word));
        }
        if let [byte] = last {
            self.words += u64::from(*byte) << 8;
            self.odd = true;
        }
    }
}

/// Sums of 32-bit halves in the machine's own byte order: swapping the folded result gives the sum in network
/// order (RFC 1071 §2(B)). No lane overflows before 2^32 blocks.
#[derive(Default)]
struct Lanes {
    low: [u64; 4],
    high: [u64; 4],
}

impl Lanes {
    #[inline(always)]
    fn add(&mut self, block: &[u8; BLOCK]) {
        let (words, _) = block.as_chunks::<8>();
        for ((word, low), high) in words.iter().zip(&mut self.low).zip(&mut self.high) {
            let word = u64::from_ne_bytes(*word);
            *low += word & 0xffff_ffff;
            *high += word >> 32;
        }
    }

    fn fold(&self) -> u64 {
        let folded: u64 = self.low.iter().chain(&self.high).map(|&lane| u64::from(fold(lane))).sum();
        u64::from(u16::from_be(fold(folded)))
    }
}

/// The 16-bit ones'-complement sum with the same residue.
fn fold(mut sum: u64) -> u16 {
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The sum of the pseudo-header that a transport's checksum starts with: RFC 9293 §3.1 for IPv4, RFC 8200 §8.1
/// for IPv6. `length` counts the transport's header and payload, in bytes.
///
/// Both addresses are of one family; if not, the IPv4 one counts as its IPv4-mapped IPv6 address.
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
                for segment in address.segments() {
                    sum.add_u16(segment);
                }
            }
        }
    }
    // IPv4 has 16 bits for the length, IPv6 32: the sum is the same where the length fits both.
    sum.add_u32(length);
    sum.add_u16(u16::from(protocol));
    sum
}

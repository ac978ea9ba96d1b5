//! The sum under the Internet checksum (RFC 1071), with the widest vectors that the processor has: chosen at run time,
//! so that a default build has them too.
//!
//! There is one loop. The compiler turns it into vector code for each set of instructions that it is inlined into, and
//! that is all that differs.

/// Below this, choosing costs more than it brings.
const SHORT: usize = 64;

/// The sum of the 16-bit words of `bytes` in the machine's own byte order; an odd last byte counts as followed by a
/// zero. It is not folded: to be taken modulo 2^16 − 1. Right for 16 GiB.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    if bytes.len() < SHORT { sum_of_few(bytes) } else { sum_of_many(bytes) }
}

/// A header: with carries that go around, which no compiler turns into vectors and their preparations.
#[inline]
fn sum_of_few(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let (pairs, single) = words.as_chunks::<2>();
    let mut sum = 0u64;
    for [low, high] in pairs {
        let word = u64::from(u32::from_ne_bytes(*low)) | u64::from(u32::from_ne_bytes(*high)) << 32;
        let (added, carry) = sum.overflowing_add(word);
        sum = added + u64::from(carry);
    }
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum += single.first().map_or(0, |word| u64::from(u32::from_ne_bytes(*word)));
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        sum += u64::from(u32::from_ne_bytes(last));
    }
    sum
}

fn sum_of_many(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions that the function is compiled for.
            return unsafe { sum_avx512(bytes) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { sum_avx2(bytes) };
        }
    }
    sum_of_words(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_avx512(bytes: &[u8]) -> u64 {
    sum_of_words(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(bytes: &[u8]) -> u64 {
    sum_of_words(bytes)
}

/// Words of 32 bits into sums of 64: what compilers vectorize well, and nothing carries.
#[inline(always)]
fn sum_of_words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_ne_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §1, word by word.
    fn naive(bytes: &[u8]) -> u64 {
        let pair = |pair: &[u8]| u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        bytes.chunks(2).map(pair).sum()
    }

    /// What counts of a sum.
    fn residue(sum: u64) -> u64 {
        sum % 0xffff
    }

    #[test]
    fn carries_survive_the_largest_packets() {
        for len in [65_535, 65_536, 1 << 20, (1 << 20) + 1] {
            let ones = vec![0xff; len];
            assert_eq!(residue(sum(&ones)), residue(naive(&ones)), "{len} bytes");
        }
    }

    /// Dispatch shows only one of them.
    #[test]
    fn all_variants_that_this_processor_has_agree() {
        let bytes: Vec<u8> = (0..5000usize).map(|i| (i * 7 + i / 256) as u8).collect();
        for len in [0, 1, 2, 3, 63, 64, 65, 127, 128, 129, 1447, 1448, 4999] {
            let bytes = &bytes[..len];
            let expected = residue(naive(bytes));
            assert_eq!(residue(sum_of_words(bytes)), expected);
            assert_eq!(residue(sum_of_few(bytes)), expected);
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has AVX2.
                assert_eq!(residue(unsafe { sum_avx2(bytes) }), expected);
            }
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has AVX-512.
                assert_eq!(residue(unsafe { sum_avx512(bytes) }), expected);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_at_any_place_have_the_naive_sum(
            bytes in proptest::collection::vec(any::<u8>(), 0..1000),
            skip in 0usize..8,
        ) {
            let bytes = &bytes[skip.min(bytes.len())..];
            prop_assert_eq!(residue(sum(bytes)), residue(naive(bytes)));
        }
    }
}

//! The sum of the Internet checksum (RFC 1071), computed with the widest vectors of the processor. The choice is made
//! at run time, so that a default build uses them too.
//!
//! Sums are only meaningful modulo 2^16 − 1. As 2^64 − 1 is a multiple of it, words of any width can be added. The
//! carry must be added back at the bottom ([`add`]). Two different sums can therefore stand for the same checksum.

#[cfg(target_arch = "x86_64")]
mod x86;

/// Length in bytes from which a vector loop is chosen at run time. It lies above the break-even of the loops alone:
/// data that was just written in words stalls a vector load (store forwarding).
const SHORT: usize = 128;

/// Bytes copied before they are summed, where no loop does both at once. A usual segment fits, and a piece is far
/// smaller than a first-level cache.
const PIECE: usize = 4096;

/// Returns the sum of the 16-bit words of `bytes` in native byte order. An odd last byte is padded with a zero. Correct
/// for up to 16 GiB.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    if bytes.len() < SHORT { sum_of_few(bytes) } else { sum_of_many(bytes) }
}

/// Copies `from` to `to` and returns the [`sum`] of the bytes.
///
/// # Panics
///
/// Panics if the lengths differ.
#[inline]
pub fn copy_and_sum(to: &mut [u8], from: &[u8]) -> u64 {
    if from.len() < SHORT {
        to.copy_from_slice(from);
        sum_of_few(from)
    } else {
        copy_and_sum_many(to, from)
    }
}

/// Adds two sums, with the carry added back at the bottom.
#[inline]
pub const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// Sums a header or a small segment in machine words. The 128-bit sum collects the carries, which also keeps the
/// compiler from vectorizing the loop: its set-up would cost more than it saves.
#[inline]
fn sum_of_few(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut sum = 0u128;
    for block in blocks {
        block.as_chunks::<8>().0.iter().for_each(|word| sum += u128::from(u64::from_ne_bytes(*word)));
    }
    if !rest.is_empty() {
        let (words, rest) = rest.as_chunks::<4>();
        words.iter().for_each(|word| sum += u128::from(u32::from_ne_bytes(*word)));
        let mut last = [0; 4];
        rest.iter().zip(&mut last).for_each(|(byte, last)| *last = *byte);
        sum += u128::from(u32::from_ne_bytes(last));
    }
    add(sum as u64, (sum >> 64) as u64)
}

fn sum_of_many(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            // SAFETY: the processor supports the instructions that the function is compiled for.
            return unsafe { x86::sum_avx512(bytes) };
        }
        if has_avx2() {
            // SAFETY: as above.
            return unsafe { x86::sum_avx2(bytes) };
        }
    }
    sum_of_words(bytes)
}

/// A build with `STEADFAST_VECTORS=avx2`, or `sse2`, hides wider vectors, to measure older processors.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    option_env!("STEADFAST_VECTORS").is_none() && std::arch::is_x86_feature_detected!("avx512bw")
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    option_env!("STEADFAST_VECTORS") != Some("sse2") && std::arch::is_x86_feature_detected!("avx2")
}

fn copy_and_sum_many(to: &mut [u8], from: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            // SAFETY: the processor supports the instructions that the function is compiled for.
            return unsafe { x86::copy_and_sum_avx512(to, from) };
        }
        if has_avx2() {
            // SAFETY: as above.
            return unsafe { x86::copy_and_sum_avx2(to, from) };
        }
    }
    copy_and_sum_words(to, from)
}

/// Adds 32-bit words into 64-bit sums: compilers vectorize it well, and nothing carries.
fn sum_of_words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    add(sum, sum_of_few(rest))
}

/// Works piece by piece, so that each piece is summed while it is in the nearest cache.
fn copy_and_sum_words(to: &mut [u8], from: &[u8]) -> u64 {
    assert_eq!(to.len(), from.len());
    let mut sum = 0;
    for (to, from) in to.chunks_mut(PIECE).zip(from.chunks(PIECE)) {
        to.copy_from_slice(from);
        sum = add(sum, sum_of_words(from));
    }
    sum
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

    /// The part of a sum that counts.
    fn residue(sum: u64) -> u64 {
        sum % 0xffff
    }

    type Variant = (&'static str, fn(&[u8]) -> u64, fn(&mut [u8], &[u8]) -> u64);

    /// All variants that this processor supports: dispatch alone would test only one.
    fn variants() -> Vec<Variant> {
        let few: Variant = ("few", sum_of_few, |to, from| {
            to.copy_from_slice(from);
            sum_of_few(from)
        });
        // Only x86-64 has more.
        #[allow(unused_mut)]
        let mut all: Vec<Variant> =
            vec![("chosen", sum, copy_and_sum), few, ("words", sum_of_words, copy_and_sum_words)];
        #[cfg(target_arch = "x86_64")]
        {
            // SAFETY: the processor has AVX2.
            let avx2: Variant = (
                "avx2",
                |bytes| unsafe { x86::sum_avx2(bytes) },
                |to, from| unsafe { x86::copy_and_sum_avx2(to, from) },
            );
            // SAFETY: the processor has AVX-512.
            let avx512: Variant = (
                "avx512",
                |bytes| unsafe { x86::sum_avx512(bytes) },
                |to, from| unsafe { x86::copy_and_sum_avx512(to, from) },
            );
            all.extend(std::arch::is_x86_feature_detected!("avx2").then_some(avx2));
            all.extend(std::arch::is_x86_feature_detected!("avx512bw").then_some(avx512));
        }
        all
    }

    /// Compares each variant at each length and alignment with the naive sum. A copy must be right and write nothing
    /// beyond its end or before its start.
    #[test]
    fn all_variants_that_this_processor_has_agree() {
        let bytes: Vec<u8> = (0..5100usize).map(|i| (i * 89 + i / 256) as u8 | (i % 3) as u8).collect();
        let lengths = || (0..=300).chain([447, 448, 511, 1447, 1448, 1460, 4095, 4096, 4097, 4999]);
        for (name, sum, copy_and_sum) in variants() {
            for (len, skip) in lengths().flat_map(|len| [0, 1, 2, 5, 20, 63].map(|skip| (len, skip))) {
                let from = &bytes[skip..skip + len];
                let expected = residue(naive(from));
                assert_eq!(residue(sum(from)), expected, "{name}: {len} bytes from {skip}");
                let mut to = vec![0xee; 1 + skip + len + 1];
                let inner = 1 + skip..1 + skip + len;
                assert_eq!(
                    residue(copy_and_sum(&mut to[inner.clone()], from)),
                    expected,
                    "{name}: {len} bytes"
                );
                assert_eq!(&to[inner.clone()], from, "{name}: {len} bytes");
                assert!(
                    to[..inner.start].iter().chain(&to[inner.end..]).all(|byte| *byte == 0xee),
                    "{name}: {len}"
                );
            }
        }
    }

    #[test]
    fn carries_survive_the_largest_packets() {
        for len in [64, 65_535, 65_536, 1 << 20, (1 << 20) + 1] {
            let ones = vec![0xff; len];
            for (name, sum, copy_and_sum) in variants() {
                assert_eq!(residue(sum(&ones)), residue(naive(&ones)), "{name}: {len} bytes");
                let copied = copy_and_sum(&mut vec![0; len], &ones);
                assert_eq!(residue(copied), residue(naive(&ones)), "{name}: {len} bytes");
            }
        }
    }

    /// A sum is 0 only if all bytes are, even though 0xffff has the same residue.
    #[test]
    fn only_zeros_sum_to_zero() {
        for (name, sum, _) in variants() {
            for len in [1, 2, 8, 20, 64, 100, 300] {
                let mut bytes = vec![0; len];
                assert_eq!(sum(&bytes), 0, "{name}");
                for at in 0..len {
                    bytes[at] = 1;
                    assert_ne!(sum(&bytes), 0, "{name}: {at} of {len}");
                    bytes[at] = 0;
                }
                assert_ne!(sum(&vec![0xff; len]), 0, "{name}: {len}");
            }
        }
    }

    #[test]
    #[should_panic]
    fn a_copy_of_another_length_is_refused() {
        copy_and_sum(&mut [0; 99], &[0; 100]);
    }

    proptest! {
        #[test]
        fn any_bytes_at_any_place_have_the_naive_sum(
            bytes in proptest::collection::vec(any::<u8>(), 0..1000),
            skip in 0usize..8,
        ) {
            let bytes = &bytes[skip.min(bytes.len())..];
            for (_, sum, copy_and_sum) in variants() {
                prop_assert_eq!(residue(sum(bytes)), residue(naive(bytes)));
                let mut copy = vec![0; bytes.len()];
                prop_assert_eq!(residue(copy_and_sum(&mut copy, bytes)), residue(naive(bytes)));
                prop_assert_eq!(&copy, bytes);
            }
        }

        #[test]
        fn sums_add_up(a: u64, b: u64) {
            prop_assert_eq!(residue(add(a, b)), (residue(a) + residue(b)) % 0xffff);
        }
    }
}

//! Vector loops for x86-64, which copy on the way if asked to: additions limit the loop, so that a store beside each
//! load is nearly free.
//!
//! Each 64-bit word is added whole, without its carries (`all`), and its high half is added separately (`high`). The
//! sum of the low halves is then `all - (high << 32)`, since it fits into 64 bits. This takes one operation less than
//! extracting both halves.

use std::arch::x86_64::*;
use std::ptr::null_mut;

use super::{add, sum_of_few};

#[target_feature(enable = "avx512bw")]
pub(crate) fn sum_avx512(bytes: &[u8]) -> u64 {
    // SAFETY: nothing is copied.
    unsafe { walk_avx512::<false>(null_mut(), bytes) }
}

#[target_feature(enable = "avx512bw")]
pub(crate) fn copy_and_sum_avx512(to: &mut [u8], from: &[u8]) -> u64 {
    assert_eq!(to.len(), from.len());
    // SAFETY: `to` has room for `from`, and does not overlap it because it is borrowed mutably.
    unsafe { walk_avx512::<true>(to.as_mut_ptr(), from) }
}

#[target_feature(enable = "avx2")]
pub(crate) fn sum_avx2(bytes: &[u8]) -> u64 {
    // SAFETY: nothing is copied.
    unsafe { walk_avx2::<false>(null_mut(), bytes) }
}

#[target_feature(enable = "avx2")]
pub(crate) fn copy_and_sum_avx2(to: &mut [u8], from: &[u8]) -> u64 {
    assert_eq!(to.len(), from.len());
    // SAFETY: `to` has room for `from`, and does not overlap it because it is borrowed mutably.
    unsafe { walk_avx2::<true>(to.as_mut_ptr(), from) }
}

/// # Safety
///
/// If `COPY` is set, `to` must be valid for writes of `from.len()` bytes, and must not overlap `from`.
#[target_feature(enable = "avx512bw")]
#[inline]
unsafe fn walk_avx512<const COPY: bool>(to: *mut u8, from: &[u8]) -> u64 {
    let zero = _mm512_setzero_si512();
    let (mut all, mut high) = ([zero; 2], [zero; 2]);
    let mut step = |lane: usize, words: __m512i| {
        all[lane] = _mm512_add_epi64(all[lane], words);
        high[lane] = _mm512_add_epi64(high[lane], _mm512_srli_epi64::<32>(words));
    };
    let mut at = 0;
    // SAFETY: loads stay within `from`, and stores go to the same offsets from `to`, for which the caller vouches.
    // Bytes that a mask excludes are neither read nor written.
    unsafe {
        let load = |at: usize| _mm512_loadu_si512(from.as_ptr().add(at).cast());
        let store = |at: usize, words: __m512i| _mm512_storeu_si512(to.add(at).cast(), words);
        while from.len() - at >= 128 {
            let words = [load(at), load(at + 64)];
            if COPY {
                store(at, words[0]);
                store(at + 64, words[1]);
            }
            step(0, words[0]);
            step(1, words[1]);
            at += 128;
        }
        if from.len() - at >= 64 {
            let words = load(at);
            if COPY {
                store(at, words);
            }
            step(0, words);
            at += 64;
        }
        let rest = (1 << (from.len() - at)) - 1;
        let words = _mm512_maskz_loadu_epi8(rest, from.as_ptr().add(at).cast());
        if COPY {
            _mm512_mask_storeu_epi8(to.add(at).cast(), rest, words);
        }
        step(1, words);
    }
    let (all, high) = (_mm512_add_epi64(all[0], all[1]), _mm512_add_epi64(high[0], high[1]));
    let low = _mm512_sub_epi64(all, _mm512_slli_epi64::<32>(high));
    _mm512_reduce_add_epi64(_mm512_add_epi64(low, high)) as u64
}

/// # Safety
///
/// As [`walk_avx512`].
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn walk_avx2<const COPY: bool>(to: *mut u8, from: &[u8]) -> u64 {
    let zero = _mm256_setzero_si256();
    let (mut all, mut high) = ([zero; 2], [zero; 2]);
    let mut step = |lane: usize, words: __m256i| {
        all[lane] = _mm256_add_epi64(all[lane], words);
        high[lane] = _mm256_add_epi64(high[lane], _mm256_srli_epi64::<32>(words));
    };
    let (pairs, rest) = from.as_chunks::<64>();
    for (i, pair) in pairs.iter().enumerate() {
        // SAFETY: a pair has 64 bytes, and the caller vouches for as many at the same offset from `to`.
        unsafe {
            let (low, high) =
                (_mm256_loadu_si256(pair.as_ptr().cast()), _mm256_loadu_si256(pair.as_ptr().add(32).cast()));
            if COPY {
                _mm256_storeu_si256(to.add(i * 64).cast(), low);
                _mm256_storeu_si256(to.add(i * 64 + 32).cast(), high);
            }
            step(0, low);
            step(1, high);
        }
    }
    if COPY {
        // SAFETY: as above. The rest lies behind the pairs.
        unsafe { to.add(pairs.len() * 64).copy_from_nonoverlapping(rest.as_ptr(), rest.len()) };
    }
    let (all, high) = (_mm256_add_epi64(all[0], all[1]), _mm256_add_epi64(high[0], high[1]));
    let low = _mm256_sub_epi64(all, _mm256_slli_epi64::<32>(high));
    let sums = _mm256_add_epi64(low, high);
    let sums = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let sums = _mm_add_epi64(sums, _mm_unpackhi_epi64(sums, sums));
    add(_mm_cvtsi128_si64(sums) as u64, sum_of_few(rest))
}

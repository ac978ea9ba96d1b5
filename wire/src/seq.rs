//! Sequence numbers: arithmetic modulo 2^32 (RFC 9293 §3.4).
// 9293-a

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A sequence number. It has no `Ord`: on a circle an order exists only within half of it. [`lt`](SeqNum::lt) and its
/// siblings compare in that sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// Returns whether `self` is before `other`.
    #[inline]
    pub const fn lt(self, other: SeqNum) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Returns whether `self` is before `other` or equal.
    #[inline]
    pub const fn le(self, other: SeqNum) -> bool {
        !other.lt(self)
    }

    /// Returns whether `self` is after `other`.
    #[inline]
    pub const fn gt(self, other: SeqNum) -> bool {
        other.lt(self)
    }

    /// Returns whether `self` is after `other` or equal.
    #[inline]
    pub const fn ge(self, other: SeqNum) -> bool {
        !self.lt(other)
    }

    /// Returns whether `self` is in `[start, start + len)`.
    #[inline]
    pub const fn within(self, start: SeqNum, len: u32) -> bool {
        self.0.wrapping_sub(start.0) < len
    }

    /// Returns the distance from `earlier` to `self`, modulo 2^32.
    #[inline]
    pub const fn since(self, earlier: SeqNum) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Returns the later of the two.
    #[inline]
    pub const fn max(self, other: SeqNum) -> SeqNum {
        if self.lt(other) { other } else { self }
    }

    /// Returns the earlier of the two.
    #[inline]
    pub const fn min(self, other: SeqNum) -> SeqNum {
        if self.lt(other) { self } else { other }
    }
}

impl Add<u32> for SeqNum {
    type Output = SeqNum;
    #[inline]
    fn add(self, n: u32) -> SeqNum {
        SeqNum(self.0.wrapping_add(n))
    }
}

impl AddAssign<u32> for SeqNum {
    #[inline]
    fn add_assign(&mut self, n: u32) {
        *self = *self + n;
    }
}

impl Sub<u32> for SeqNum {
    type Output = SeqNum;
    #[inline]
    fn sub(self, n: u32) -> SeqNum {
        SeqNum(self.0.wrapping_sub(n))
    }
}

impl fmt::Display for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_holds_within_half_the_circle_9293_a(start: u32, ahead in 1u32..0x8000_0000) {
            let (a, b) = (SeqNum(start), SeqNum(start) + ahead);
            prop_assert_eq!(a.lt(b), ahead != 0x8000_0000);
            prop_assert!(b.gt(a) && a.le(b) && b.ge(a) && !b.lt(a));
            prop_assert_eq!(b.since(a), ahead);
            prop_assert_eq!(a.max(b), b);
            prop_assert_eq!(a.min(b), a);
        }

        #[test]
        fn within_counts_from_the_start(start: u32, len: u32, at: u32) {
            let inside = (u64::from(at) + (1 << 32) - u64::from(start)) % (1 << 32) < u64::from(len);
            prop_assert_eq!(SeqNum(at).within(SeqNum(start), len), inside);
        }

        #[test]
        fn adding_and_subtracting_undo_each_other(start: u32, n: u32) {
            prop_assert_eq!(SeqNum(start) + n - n, SeqNum(start));
        }
    }
}

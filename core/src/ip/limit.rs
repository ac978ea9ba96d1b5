//! Rate limits of replies that others can trigger (RFC 4443 §2.4(f), RFC 5961 §7).
//!
//! A shared counter of known size tells an outsider what others do: he uses up the rest and counts (CVE-2016-5696,
//! CVE-2020-25705). The size of a bucket therefore changes at random from one fraction of a second to the next. One
//! network gets only a share of it, so a single sender cannot use up the budget of the others. Randomness alone does
//! not hide what can be measured repeatedly: the caller must ensure that charges do not depend on a secret.
// THREAT-5, THREAT-24, THREAT-25

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use crate::time::Instant;

/// Rate limits of replies of one kind.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct RateLimiter {
    /// The common budget of all networks.
    all: Bucket,
    shares: Shares,
}

/// Separate budgets of networks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares {
    /// Empty until first used, then [`SLOTS`] long.
    buckets: Vec<Bucket>,
}

#[derive(Clone, Copy, Debug, Default, Hash)]
struct Bucket {
    /// `None` before the first use.
    filled: Option<Instant>,
    left: u32,
}

/// Number of budgets. Only the hash key reveals which networks share one.
pub(crate) const SLOTS: usize = 256;

/// One network gets one part in this many of the common budget.
const SHARE: u32 = 4;

/// A full bucket holds the budget of one second divided by this.
const FILLS_PER_SECOND: u32 = 8;

impl RateLimiter {
    /// Returns whether one more reply may go to the networks of `slot`, and charges it.
    ///
    /// `slot` is a keyed hash of the destination's [`prefix`]; its remainder modulo [`SLOTS`] is used. `jitter` is a
    /// fresh random number. In the long run at most `per_second` replies pass per second, and at least half of that if
    /// there is demand. In any one second at most a bucket more passes. One network gets one part in [`SHARE`] of it,
    /// but at least one reply per second. A limit of 0 is none.
    pub(crate) fn allow(&mut self, now: Instant, slot: usize, per_second: u32, jitter: u32) -> bool {
        if per_second == 0 {
            return true;
        }
        let share = self.shares.filled(now, slot, (per_second / SHARE).max(1), jitter);
        self.all.fill(now, per_second, jitter.rotate_left(16));
        let allowed = share.left > 0 && self.all.left > 0;
        if allowed {
            share.left -= 1;
            self.all.left -= 1;
        }
        allowed
    }
}

/// A budget that was never used is as good as none.
impl Hash for Shares {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.buckets
            .iter()
            .enumerate()
            .filter(|(_, bucket)| bucket.filled.is_some())
            .for_each(|used| used.hash(state));
    }
}

impl Shares {
    /// Like [`RateLimiter::allow`], with `per_second` as the limit of one network.
    pub(crate) fn allow(&mut self, now: Instant, slot: usize, per_second: u32, jitter: u32) -> bool {
        let share = self.filled(now, slot, per_second, jitter);
        let allowed = share.left > 0;
        share.left -= u32::from(allowed);
        allowed
    }

    fn filled(&mut self, now: Instant, slot: usize, per_second: u32, jitter: u32) -> &mut Bucket {
        if self.buckets.is_empty() {
            self.buckets = vec![Bucket::default(); SLOTS];
        }
        let share = &mut self.buckets[slot % SLOTS];
        share.fill(now, per_second, jitter);
        share
    }
}

impl Bucket {
    /// Refills the bucket at once when the time for a full one has passed. A gradual refill would be smoother, but a
    /// bucket that is always empty would then pass exactly the known rate, whatever its size.
    fn fill(&mut self, now: Instant, per_second: u32, jitter: u32) {
        let size = (per_second / FILLS_PER_SECOND).max(1);
        let due = self.filled.is_none_or(|filled| {
            let elapsed = now.saturating_since(filled).as_nanos();
            elapsed * u128::from(per_second) >= u128::from(size) * 1_000_000_000
        });
        if due {
            self.filled = Some(now);
            self.left = size - jitter % (size / 2 + 1);
        }
    }
}

/// Returns the network that `address` counts as, IPv4 /24 or IPv6 /64: its bytes, and how many of them are significant.
/// The owner of a whole network would otherwise get a budget for each of its addresses.
pub(crate) fn prefix(address: IpAddr) -> ([u8; 8], usize) {
    let mut bytes = [0; 8];
    let (octets, len): (&[u8], usize) = match &address {
        IpAddr::V4(v4) => (&v4.octets(), 3),
        IpAddr::V6(v6) => (&v6.octets(), 8),
    };
    bytes.iter_mut().zip(octets).take(len).for_each(|(to, from)| *to = *from);
    (bytes, len)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Returns how many calls, one each `gap`, pass within `span`. The calls rotate among `networks`.
    fn passed(start: Instant, span: Duration, gap: Duration, rate: u32, networks: usize) -> u32 {
        let mut limiter = RateLimiter::default();
        let (mut now, mut random, mut count) = (start, 12_345_u32, 0);
        for call in 0.. {
            if now >= start + span {
                break;
            }
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            count += u32::from(limiter.allow(now, call % networks, rate, random >> 8));
            now += gap;
        }
        count
    }

    /// One network gets its share; all together get the limit, however many they are.
    #[test]
    fn a_flood_gets_no_more_than_the_limit_and_no_less_than_half_threat_5() {
        for (networks, part) in [(1, SHARE), (200, 1)] {
            for rate in [1, 2, 3, 7, 8, 9, 15, 16, 200, 1000, 100_000] {
                let gap = Duration::from_nanos(1_000_000_000 / (u64::from(rate) * 10));
                let seconds = 10;
                let span = Duration::from_secs(seconds);
                let count = passed(Instant::from_secs(1), span, gap, rate, networks);
                let limit = (rate / part).max(1);
                let bucket = (limit / FILLS_PER_SECOND).max(1);
                assert!(count <= limit * seconds as u32 + bucket, "{rate}/s: {count}");
                assert!(count >= limit * seconds as u32 * 45 / 100, "{rate}/s: {count}");
            }
        }
    }

    /// A limit with which one network gets 80 a second: a bucket of ten.
    const LIMIT: u32 = 80 * SHARE;

    #[test]
    fn a_burst_gets_one_bucket_even_after_a_long_rest() {
        let mut limiter = RateLimiter::default();
        for start in [Instant::ZERO, Instant::from_secs(1000)] {
            let count = (0..1000).filter(|_| limiter.allow(start, 0, LIMIT, 0)).count();
            assert_eq!(count, 10);
        }
        // Both sides of the time until the next refill.
        let filled = Instant::from_secs(1000);
        assert!(!limiter.allow(Instant::from_nanos(filled.as_nanos() + 124_999_999), 0, LIMIT, 0));
        assert!(limiter.allow(filled + Duration::from_millis(125), 0, LIMIT, 0));
        assert!(limiter.allow(Instant::ZERO, 0, LIMIT, 0), "a clock that went back changes nothing");
    }

    #[test]
    fn a_burst_to_many_networks_gets_one_bucket_for_all_threat_5() {
        let mut limiter = RateLimiter::default();
        let count = (0..1000).filter(|call| limiter.allow(Instant::ZERO, *call, LIMIT, 0)).count();
        assert_eq!(count, 40);
        assert!(!limiter.allow(Instant::from_millis(124), 255, LIMIT, 0));
        assert!(limiter.allow(Instant::from_millis(125), 255, LIMIT, 0));
    }

    #[test]
    fn the_size_of_a_bucket_is_as_random_as_the_jitter_threat_24_threat_25() {
        let count = |jitter| {
            let mut limiter = RateLimiter::default();
            (0..1000).filter(|_| limiter.allow(Instant::ZERO, 0, LIMIT, jitter)).count()
        };
        let sizes: std::collections::BTreeSet<_> = (0..100).map(count).collect();
        assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10]);
        assert!((5..=10).contains(&count(u32::MAX)));
        let all = |jitter: u32| {
            let mut limiter = RateLimiter::default();
            (0..1000)
                .filter(|call| limiter.allow(Instant::ZERO, *call, LIMIT, jitter.rotate_right(16)))
                .count()
        };
        assert_eq!([all(0), all(1), all(20), all(21)], [40, 39, 20, 40]);
        // A drained bucket is refilled with a different number each time, too.
        let mut limiter = RateLimiter::default();
        let counts: Vec<_> = [0, 1, 2, 3]
            .into_iter()
            .map(|n| {
                let now = Instant::from_millis(125 * n);
                (0..100).filter(|_| limiter.allow(now, 0, LIMIT, n as u32)).count()
            })
            .collect();
        assert_eq!(counts, [10, 9, 8, 7]);
    }

    #[test]
    fn the_smallest_limits() {
        let mut limiter = RateLimiter::default();
        assert!((0..10_000).all(|_| limiter.allow(Instant::from_secs(9), 0, 0, 0)), "0 is no limit");
        assert!(limiter.shares.buckets.is_empty(), "nothing is allocated without a limit");
        for jitter in [0, 1, 2, u32::MAX] {
            let mut limiter = RateLimiter::default();
            assert!(limiter.allow(Instant::ZERO, 0, 1, jitter));
            assert!(!limiter.allow(Instant::from_millis(999), 0, 1, jitter));
            assert!(limiter.allow(Instant::from_millis(1000), 0, 1, jitter));
        }
        assert!(limiter.allow(Instant::from_nanos(u64::MAX), usize::MAX, u32::MAX, u32::MAX));
        assert!(limiter.allow(Instant::from_nanos(u64::MAX), usize::MAX, u32::MAX, u32::MAX));
    }

    #[test]
    fn one_network_that_used_up_its_share_takes_nothing_from_the_next_threat_25() {
        let mut limiter = RateLimiter::default();
        assert_eq!((0..1000).filter(|_| limiter.allow(Instant::ZERO, 0, LIMIT, 0)).count(), 10);
        assert_eq!((0..1000).filter(|_| limiter.allow(Instant::ZERO, 1, LIMIT, 0)).count(), 10);
        assert!(!limiter.allow(Instant::ZERO, SLOTS, LIMIT, 0), "the same as slot 0");
        assert_eq!(limiter.shares.buckets.len(), SLOTS);
    }

    #[test]
    fn a_network_counts_as_one_and_its_neighbour_as_another() {
        let p = |text: &str| prefix(text.parse().unwrap());
        assert_eq!(p("192.0.2.1"), ([192, 0, 2, 0, 0, 0, 0, 0], 3));
        assert_eq!(p("192.0.2.1"), p("192.0.2.255"));
        assert_ne!(p("192.0.2.1"), p("192.0.3.1"));
        assert_eq!(p("2001:db8:1:2::1"), ([0x20, 1, 0xd, 0xb8, 0, 1, 0, 2], 8));
        assert_eq!(p("2001:db8:1:2::1"), p("2001:db8:1:2:ffff::"));
        assert_ne!(p("2001:db8:1:2::1"), p("2001:db8:1:3::1"));
    }
}

//! Path MTUs learned from ICMP errors, by destination (RFC 1191, RFC 8201).
//!
//! The caller has already validated the error: it quotes a segment in flight.
// THREAT-31

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::Config;
use crate::time::Instant;

/// The path MTUs that are below that of the interface.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct PmtuCache {
    entries: BTreeMap<IpAddr, Entry>,
    by_expiry: BTreeSet<(Instant, IpAddr)>,
}

#[derive(Clone, Copy, Debug, Hash)]
struct Entry {
    mtu: u16,
    expires: Instant,
}

/// The minimum MTU of every IPv6 link (8200-2).
const MIN_MTU_V6: u32 = 1280;

/// RFC 1191 §7.1, table 7-1.
const PLATEAUS: [u16; 11] = [65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296, 68];

/// A second report lowers a path MTU by at least one part in this many.
const LEAST_STEP: u16 = 16;

/// Returns the path MTU after a router reports that only `mtu` bytes fit, for a connection that assumed `current`.
/// `None`: the report is not new, or not possible (8201-1).
///
/// The first report below the interface's MTU takes effect exactly. Each later one lowers the path MTU by at least a
/// sixteenth: each costs a segment, and a forger could otherwise send one for every byte.
pub(crate) fn lowered(
    config: &Config,
    destination: IpAddr,
    mtu: u32,
    current: u16,
    interface_mtu: u16,
) -> Option<u16> {
    let (mtu, floor) = match destination {
        IpAddr::V4(_) => (next_hop_v4(config, mtu, current), config.min_pmtu),
        IpAddr::V6(_) if mtu < MIN_MTU_V6 => return None,
        IpAddr::V6(_) => (mtu, MIN_MTU_V6 as u16),
    };
    let mtu = u16::try_from(mtu).ok().filter(|mtu| *mtu < current)?;
    let again = current < interface_mtu;
    Some(if again { mtu.min(current - current / LEAST_STEP).max(floor) } else { mtu })
}

impl PmtuCache {
    /// Returns the path MTU to `destination`, unless it is unknown or expired (1191-2).
    pub(crate) fn get(&self, now: Instant, destination: IpAddr) -> Option<u16> {
        self.entries.get(&destination).filter(|entry| now < entry.expires).map(|entry| entry.mtu)
    }

    /// Remembers the path MTU to `destination`. Only the passage of time raises it (1191-2).
    pub(crate) fn remember(&mut self, now: Instant, config: &Config, destination: IpAddr, mtu: u16) {
        if self.get(now, destination).is_some_and(|known| known <= mtu) {
            return;
        }
        self.forget(destination);
        self.evict(now, config.pmtu_cache as usize);
        if config.pmtu_cache > 0 {
            let expires = now + config.mtu_expires;
            self.entries.insert(destination, Entry { mtu, expires });
            self.by_expiry.insert((expires, destination));
        }
    }

    /// Forgets all path MTUs.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.by_expiry.clear();
    }

    /// Forgets the path MTU to `destination`, whose path has changed.
    pub(crate) fn forget(&mut self, destination: IpAddr) {
        if let Some(entry) = self.entries.remove(&destination) {
            self.by_expiry.remove(&(entry.expires, destination));
        }
    }

    /// Returns the number of entries, including expired ones that were not yet replaced.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Evicts expired entries, and those that expire next, to make room for one more of `limit`. The work per call is
    /// bounded, but it evicts more entries than are added.
    fn evict(&mut self, now: Instant, limit: usize) {
        const MOST: usize = 16;
        for _ in 0..MOST {
            match self.by_expiry.first() {
                Some(&(expires, destination)) if expires <= now || self.entries.len() >= limit => {
                    self.forget(destination);
                }
                _ => return,
            }
        }
    }
}

/// Returns the MTU that an IPv4 router's report means. A router from before RFC 1191 leaves the field zero; the next
/// lower plateau is then assumed (RFC 1191 §5). The floor prevents forged reports from forcing tiny segments
/// (THREAT-31).
fn next_hop_v4(config: &Config, mtu: u32, believed: u16) -> u32 {
    let mtu = match mtu {
        0 => u32::from(PLATEAUS.into_iter().find(|plateau| *plateau < believed).unwrap_or(0)),
        mtu => mtu,
    };
    mtu.max(u32::from(config.min_pmtu))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    impl PmtuCache {
        /// Both steps at once, for a connection that uses the cache.
        fn lower(
            &mut self,
            now: Instant,
            config: &Config,
            destination: IpAddr,
            mtu: u32,
            current: u16,
        ) -> Option<u16> {
            let believed = self.get(now, destination).map_or(current, |known| known.min(current));
            let mtu = lowered(config, destination, mtu, believed, current)?;
            self.remember(now, config, destination, mtu);
            Some(mtu)
        }
    }

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

    fn nth(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    #[test]
    fn a_report_lowers_and_never_raises_1191_1_8201_1() {
        let (mut cache, config, now) = (PmtuCache::default(), Config::default(), Instant::from_secs(1));
        assert_eq!(cache.get(now, V4), None);
        for destination in [V4, V6] {
            assert_eq!(cache.lower(now, &config, destination, 1500, 1500), None);
            assert_eq!(cache.lower(now, &config, destination, 9000, 1500), None);
            assert_eq!(cache.lower(now, &config, destination, u32::MAX, 1500), None);
            assert_eq!(
                cache.lower(now, &config, destination, 65_536 + 1300, 1500),
                None,
                "not cut to 16 bits"
            );
            assert_eq!(cache.get(now, destination), None);
            assert_eq!(cache.lower(now, &config, destination, 1400, 1500), Some(1400));
            // A connection that has not heard of the decrease yet does not undo it.
            assert_eq!(cache.lower(now, &config, destination, 1450, 1500), None);
            assert_eq!(cache.lower(now, &config, destination, 1400, 1500), None);
            assert_eq!(cache.get(now, destination), Some(1400));
            // A second decrease is at least a sixteenth, which limits the effect of forged reports (THREAT-31).
            assert_eq!(cache.lower(now, &config, destination, 1399, 1500), Some(1400 - 1400 / 16));
            assert_eq!(cache.lower(now, &config, destination, 1350, 1300), None, "lower already, by a probe");
        }
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn an_old_router_s_zero_means_the_next_plateau_1191_1() {
        let config = Config { min_pmtu: 68, ..Config::default() };
        let lower = |current| PmtuCache::default().lower(Instant::ZERO, &config, V4, 0, current);
        let steps = [(9000, 8166), (1500, 1492), (1492, 1006), (1006, 508), (508, 296), (296, 68), (69, 68)];
        for (current, plateau) in steps {
            assert_eq!(lower(current), Some(plateau), "below {current}");
        }
        assert_eq!(lower(68), None);
        // Each zero goes a step below the result of the one before.
        let (mut cache, now) = (PmtuCache::default(), Instant::ZERO);
        assert_eq!(cache.lower(now, &config, V4, 0, 1500), Some(1492));
        assert_eq!(cache.lower(now, &config, V4, 0, 1500), Some(1006));
        // With the usual floor, the last step is the floor.
        assert_eq!(PmtuCache::default().lower(now, &Config::default(), V4, 0, 1006), Some(552));
    }

    #[test]
    fn an_ipv4_report_goes_no_lower_than_min_pmtu_1191_1_threat_31() {
        for floor in [552, 68] {
            let config = Config { min_pmtu: floor, ..Config::default() };
            let lower = |mtu, current| PmtuCache::default().lower(Instant::ZERO, &config, V4, mtu, current);
            let f = u32::from(floor);
            assert_eq!(lower(f + 1, 1500), Some(floor + 1));
            assert_eq!(lower(f, 1500), Some(floor));
            assert_eq!(lower(f - 1, 1500), Some(floor));
            assert_eq!(lower(1, 1500), Some(floor));
            assert_eq!(lower(1, floor), None);
            assert_eq!(lower(1, floor - 1), None, "a floor is no reason to go up");
        }
    }

    #[test]
    fn an_ipv6_report_below_1280_is_discarded_8201_1() {
        let (mut cache, config, now) = (PmtuCache::default(), Config::default(), Instant::ZERO);
        for mtu in [0, 1, 68, 1279] {
            assert_eq!(cache.lower(now, &config, V6, mtu, 1500), None);
        }
        assert_eq!(cache.len(), 0);
        assert_eq!(cache.lower(now, &config, V6, 1280, 1500), Some(1280));
    }

    #[test]
    fn a_decrease_lasts_mtu_expires_from_the_last_one_1191_2() {
        let (mut cache, config) = (PmtuCache::default(), Config::default());
        let start = Instant::from_secs(5);
        cache.lower(start, &config, V4, 1400, 1500);
        let later = start + Duration::from_secs(100);
        assert_eq!(cache.lower(later, &config, V4, 1400, 1400), None, "a repeated report prolongs nothing");
        let end = start + config.mtu_expires;
        assert_eq!(cache.get(Instant::from_nanos(end.as_nanos() - 1), V4), Some(1400));
        assert_eq!(cache.get(end, V4), None);

        cache.lower(later, &config, V4, 1300, 1400);
        assert_eq!(cache.get(end, V4), Some(1300), "a new decrease counts from its own time");
        assert_eq!(cache.get(later + config.mtu_expires, V4), None);
        // An expired entry has no effect.
        assert_eq!(cache.lower(later + config.mtu_expires, &config, V4, 1450, 1500), Some(1450));
        assert_eq!((cache.len(), cache.by_expiry.len()), (1, 1));
    }

    #[test]
    fn the_cache_is_bounded_and_the_next_to_expire_goes_first() {
        let config = Config { pmtu_cache: 3, ..Config::default() };
        let mut cache = PmtuCache::default();
        // Entry 0 is lowered again, so that 1 is the next to expire.
        for (second, n) in [0, 1, 2, 0].into_iter().enumerate() {
            let now = Instant::from_secs(second as u64);
            assert!(cache.lower(now, &config, nth(n), 1400 - second as u32, 1500).is_some());
        }
        let now = Instant::from_secs(10);
        assert_eq!(cache.len(), 3);
        assert!(cache.lower(now, &config, nth(3), 1400, 1500).is_some());
        assert_eq!((cache.len(), cache.by_expiry.len()), (3, 3));
        assert_eq!([0, 1, 2, 3].map(|n| cache.get(now, nth(n)).is_some()), [true, false, true, true]);

        cache.forget(nth(2));
        cache.forget(nth(77));
        assert_eq!((cache.get(now, nth(2)), cache.len(), cache.by_expiry.len()), (None, 2, 2));
    }

    #[test]
    fn without_a_cache_the_caller_still_learns_the_value() {
        let config = Config { pmtu_cache: 0, ..Config::default() };
        let mut cache = PmtuCache::default();
        assert_eq!(cache.lower(Instant::ZERO, &config, V4, 1400, 1500), Some(1400));
        assert_eq!((cache.get(Instant::ZERO, V4), cache.len()), (None, 0));
    }

    #[test]
    fn what_has_expired_leaves_when_something_else_comes() {
        let (mut cache, config) = (PmtuCache::default(), Config::default());
        (0..10).for_each(|n| assert!(cache.lower(Instant::ZERO, &config, nth(n), 1400, 1500).is_some()));
        cache.lower(Instant::ZERO + config.mtu_expires, &config, nth(10), 1400, 1500);
        assert_eq!((cache.len(), cache.by_expiry.len()), (1, 1));
    }
}

//! An LRU cache by address. Operations on a full cache cost as much as on an empty one.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Values for the most recently used addresses.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Recent<T> {
    entries: BTreeMap<IpAddr, (u64, T)>,
    /// Addresses by time of last use.
    by_use: BTreeMap<u64, IpAddr>,
    used: u64,
}

impl<T> Default for Recent<T> {
    fn default() -> Recent<T> {
        Recent { entries: BTreeMap::new(), by_use: BTreeMap::new(), used: 0 }
    }
}

impl<T> Recent<T> {
    pub(crate) fn get(&self, address: IpAddr) -> Option<&T> {
        self.entries.get(&address).map(|(_, value)| value)
    }

    /// Like [`get`](Recent::get), and counts as a use.
    pub(crate) fn touch(&mut self, address: IpAddr) -> Option<&T> {
        let (used, value) = self.entries.get_mut(&address)?;
        self.by_use.remove(used);
        self.used += 1;
        *used = self.used;
        self.by_use.insert(self.used, address);
        Some(value)
    }

    /// Adds a value and keeps at most `limit` of them. After the limit was lowered, the surplus goes in steps.
    pub(crate) fn remember(&mut self, address: IpAddr, value: T, limit: usize) {
        /// The most evictions per call, to keep the call short.
        const MOST: usize = 8;
        self.used += 1;
        if let Some((used, _)) = self.entries.insert(address, (self.used, value)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.used, address);
        for _ in 0..self.entries.len().saturating_sub(limit).min(MOST) {
            if let Some((_, oldest)) = self.by_use.pop_first() {
                self.entries.remove(&oldest);
            }
        }
    }

    #[cfg(test)]
    fn is_sound(&self) -> bool {
        self.entries.len() == self.by_use.len()
            && self.by_use.iter().all(|(used, address)| self.entries[address].0 == *used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A list by use is the oracle.
        #[test]
        fn forgets_what_was_used_least_recently(
            limit in 0usize..6,
            steps in proptest::collection::vec((any::<bool>(), 0u8..10), 0..200),
        ) {
            let (mut cache, mut oracle) = (Recent::default(), Vec::<(u8, usize)>::new());
            for (number, (remember, n)) in steps.into_iter().enumerate() {
                let address = IpAddr::from([10, 0, 0, n]);
                let known = oracle.iter().position(|(other, _)| *other == n).map(|at| oracle.remove(at));
                if remember {
                    cache.remember(address, number, limit);
                    oracle.push((n, number));
                    oracle.drain(..oracle.len().saturating_sub(limit));
                } else {
                    prop_assert_eq!(cache.touch(address).copied(), known.map(|(_, value)| value));
                    oracle.extend(known);
                }
                prop_assert!(cache.is_sound());
                for n in 0..10 {
                    let value = oracle.iter().find(|(other, _)| *other == n).map(|(_, value)| *value);
                    prop_assert_eq!(cache.get(IpAddr::from([10, 0, 0, n])).copied(), value);
                }
            }
        }
    }

    #[test]
    fn a_limit_that_was_lowered_is_reached_in_steps() {
        let mut cache = Recent::default();
        (0..100).for_each(|n| cache.remember(IpAddr::from([10, 0, 0, n]), (), 100));
        cache.remember(IpAddr::from([10, 0, 0, 100]), (), 1);
        assert_eq!(cache.entries.len(), 93);
        (101..120).for_each(|n| cache.remember(IpAddr::from([10, 0, 0, n]), (), 1));
        assert_eq!(cache.entries.len(), 1);
        assert!(cache.get(IpAddr::from([10, 0, 0, 119])).is_some());
    }
}

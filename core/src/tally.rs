//! Counts by key, in a map that holds no zero.

use std::collections::BTreeMap;

/// Takes one from the count of a key, and forgets the key with its last one.
pub(crate) fn uncount<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

//! The connections whose new data waits for its time. A stack without paced connections has nothing here.

use std::collections::BTreeSet;

use super::Stack;
use crate::time::Instant;

/// Wake-ups are multiples of this, in nanoseconds, so that one serves several connections.
const SLOT: u64 = 64_000;

/// Most connections that one [`advance`](Stack::advance) releases.
const RELEASED: usize = 64;

/// Connections by the time at which they may send again.
#[derive(Clone, Debug, Default)]
pub(super) struct Pacer {
    held: BTreeSet<(Instant, u32)>,
}

impl Pacer {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// When the first of them may send.
    pub(super) fn next(&self) -> Option<Instant> {
        self.held.first().map(|(at, _)| *at)
    }

    pub(super) fn contains(&self, at: Instant, index: u32) -> bool {
        self.held.contains(&(at, index))
    }
}

impl Stack {
    /// Returns whether data waits for its time because it is paced. [`poll_at`](Stack::poll_at) then is exact to 64 µs,
    /// and a wake-up that is a millisecond late may lower a high rate.
    pub fn is_pacing(&self) -> bool {
        !self.pacer.is_empty()
    }

    /// A connection had its turn and sends no new data now. If that waits for its time, this is noted.
    pub(super) fn hold(&mut self, index: u32) {
        let Some(pace) = self.connections[index].pace() else { return };
        let Some(at) = pace.take_wait() else { return };
        let slot = Instant::from_nanos(at.as_nanos().div_ceil(SLOT).saturating_mul(SLOT));
        if let Some(old) = pace.held.replace(slot) {
            self.pacer.held.remove(&(old, index));
        }
        self.pacer.held.insert((slot, index));
    }

    /// The connections whose time has come join the ready list.
    #[cold]
    pub(super) fn release_held(&mut self) {
        for _ in 0..RELEASED {
            let Some((at, index)) = self.pacer.held.first().copied().filter(|(at, _)| *at <= self.now) else {
                return;
            };
            self.let_go(index);
            debug_assert!(!self.pacer.contains(at, index));
            self.with_connection(index, |_, _| {});
        }
    }

    /// Forgets that a connection waits.
    pub(super) fn let_go(&mut self, index: u32) {
        if let Some(pace) = self.connections[index].pace()
            && let Some(at) = pace.held.take()
        {
            self.pacer.held.remove(&(at, index));
        }
    }
}

//! Accounting of `tcp_mem`: the memory of all queues, and the share of it that one connection may take.

/// The fill level of `tcp_mem`. The marks are fractions of it:
///
/// | mark | of `tcp_mem` | above it |
/// |---|---|---|
/// | low | 1/2 | each connection has a share, which its send buffer and its window respect |
/// | pressure | 3/4 | text beyond the share is dropped, out-of-order queues are pruned |
/// | critical | 7/8 | orphans are aborted, then connections whose peer takes nothing |
/// | high | 15/16 | text is refused, except a little for a connection with nothing unread |
/// | the limit | 1 | all text is refused |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gauge {
    /// Memory of all queues, in bytes.
    pub(crate) held: u64,
    /// `tcp_mem`, in bytes.
    pub(crate) limit: u64,
}

/// Bytes that a connection may hold while that much is free: the first values of Linux's `tcp_rmem` and `tcp_wmem`.
pub(crate) const LEAST: u64 = 4096;

impl Gauge {
    #[inline]
    pub(crate) fn low(self) -> u64 {
        self.limit / 2
    }

    #[inline]
    pub(crate) fn pressure(self) -> u64 {
        self.limit - self.limit / 4
    }

    pub(crate) fn critical(self) -> u64 {
        self.limit - self.limit / 8
    }

    #[inline]
    pub(crate) fn high(self) -> u64 {
        self.limit - self.limit / 16
    }

    /// Returns whether `wanted` more bytes may exceed the low mark, even if copied with the most overhead.
    #[inline]
    pub(crate) fn is_tight(self, wanted: usize) -> bool {
        self.held + 4 * wanted as u64 > self.low()
    }

    #[inline]
    pub(crate) fn is_above_low(self) -> bool {
        self.held > self.low()
    }

    #[inline]
    pub(crate) fn is_above_pressure(self) -> bool {
        self.held > self.pressure()
    }

    #[inline]
    pub(crate) fn is_above_high(self) -> bool {
        self.held >= self.high()
    }

    /// Returns the memory that a connection may take in addition to the `own` bytes that its queues hold. `carried` is
    /// the number of bytes that it has carried so far, in both directions.
    ///
    /// Up to the low mark a connection may take whatever is free. Above it, a connection may hold its share, or as much
    /// as it has carried, up to 64 shares. The share falls with the square of the free memory. However many connections
    /// take theirs and release nothing, the next one still finds enough.
    pub(crate) fn room(self, own: u64, carried: u64) -> u64 {
        let free = self.high().saturating_sub(self.held);
        let freely = self.low().saturating_sub(self.held);
        let share = (free / 64) * (free * 1024 / self.limit.max(1)) / 1024;
        let entitled = share.max(carried.min(64 * share)).max(LEAST);
        freely.max(entitled.saturating_sub(own)).min(free)
    }
}

/// Queues that take memory of `tcp_mem`.
pub(crate) trait Holds {
    /// Returns the bytes that they take, including spare room and lists.
    fn held(&self) -> u64;
}

/// The memory that all queues take. Every queue that changes, comes or goes does so through one of these methods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    held: u64,
}

impl Account {
    #[inline]
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Returns the fill level where `tcp_mem` is `limit`.
    #[inline]
    pub(crate) fn gauge(&self, limit: u64) -> Gauge {
        Gauge { held: self.held, limit }
    }

    /// Runs a change of queues that are accounted for.
    #[inline]
    pub(crate) fn change<Q: Holds, R>(&mut self, queues: &mut Q, run: impl FnOnce(&mut Q) -> R) -> R {
        let before = queues.held();
        let result = run(queues);
        self.held = self.held + queues.held() - before;
        result
    }

    /// Accounts for queues that came.
    pub(crate) fn add(&mut self, queues: &impl Holds) {
        self.held += queues.held();
    }

    /// Accounts for queues that go.
    pub(crate) fn remove(&mut self, queues: &impl Holds) {
        self.held -= queues.held();
    }
}

/// The list in which a connection with data to send is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Group {
    #[default]
    Nowhere,
    Orphans,
    Unproven,
    Proven,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 64 << 20;

    fn gauge(held: u64) -> Gauge {
        Gauge { held, limit: LIMIT }
    }

    #[test]
    fn below_the_low_mark_a_connection_takes_what_it_likes() {
        assert_eq!(gauge(0).room(0, 0), LIMIT / 2);
        assert_eq!(gauge(LIMIT / 2 - 1_000_000).room(1 << 30, 0), 1_000_000);
        assert_eq!(gauge(LIMIT / 2).room(1 << 30, 0), 0);
    }

    #[test]
    fn above_it_a_connection_has_a_share_and_more_where_it_has_carried_more() {
        let at_low = gauge(LIMIT / 2);
        let free = LIMIT / 16 * 7;
        let share = free / 64 * 7 / 16;
        assert_eq!(at_low.room(0, 0), share);
        assert_eq!(at_low.room(share, 0), 0);
        assert_eq!(at_low.room(share - 1, 0), 1);
        assert_eq!(at_low.room(0, 1 << 20), 1 << 20);
        assert_eq!(at_low.room(0, 1 << 40), 64 * share);
    }

    #[test]
    fn what_is_free_bounds_all_of_it() {
        assert_eq!(gauge(LIMIT / 16 * 15).room(0, 1 << 40), 0);
        assert_eq!(gauge(LIMIT / 16 * 15 - 1000).room(0, 0), 1000);
        assert_eq!(gauge(LIMIT / 16 * 15 - 10_000).room(0, 0), LEAST);
        assert_eq!(gauge(u64::MAX).room(0, 0), 0);
    }

    /// Each takes its room and releases nothing: the last one still gets its least.
    #[test]
    fn a_thousand_that_give_nothing_back_leave_room_for_the_next() {
        let mut all = gauge(0);
        for n in 0..1000 {
            let room = all.room(0, 0).min(1 << 20);
            assert!(room >= LEAST, "{n} gets {room}");
            all.held += room;
        }
        assert!(all.held < all.high(), "{all:?}");
        assert!(all.room(0, 1 << 30) >= 128 << 10, "{all:?} leaves {}", all.room(0, 1 << 30));
    }
}

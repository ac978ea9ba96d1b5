//! Time in the core: a number that the caller passes in.
//!
//! The core never reads a clock. An [`Instant`] counts nanoseconds since an epoch that the caller chooses, such as the
//! start of the program or of a simulation. It must not go backwards; if it does, the stack treats time as standing
//! still.
// THREAT-82

use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::ops::{Add, AddAssign, Sub};
pub use std::time::Duration;

/// A point in time: nanoseconds since the caller's epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

/// The units of times. A time hashes as one `i128`, with its unit above the number, and nothing else of the core does:
/// a digest recognises times by that, and counts them from now.
pub(crate) mod unit {
    pub(crate) const NANOS: u64 = 0;
    pub(crate) const MILLIS: u64 = 1;
    pub(crate) const MICROS: u64 = 2;
}

/// Hashes a time of so many units.
fn hash_time(time: u64, unit: u64, state: &mut impl Hasher) {
    state.write_i128(i128::from(unit) << 64 | i128::from(time));
}

impl Hash for Instant {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_time(self.0, unit::NANOS, state);
    }
}

impl Instant {
    /// The epoch itself.
    pub const ZERO: Instant = Instant(0);

    /// Returns the instant `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Returns the instant `micros` microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Instant {
        Instant(micros * 1_000)
    }

    /// Returns the instant `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    /// Returns the instant `secs` seconds after the epoch.
    pub const fn from_secs(secs: u64) -> Instant {
        Instant(secs * 1_000_000_000)
    }

    /// Returns the nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the whole microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Returns the whole milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Returns the whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Returns the seconds since the epoch.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Returns the time from `earlier` to `self`, or zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, d: Duration) -> Instant {
        let nanos = d.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(d.subsec_nanos()));
        Instant(self.0.saturating_add(nanos))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_since(earlier)
    }
}

impl fmt::Display for Instant {
    /// Writes seconds with microseconds, as tcpdump does: `12.345678`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000)
    }
}

/// A deadline or the time of an event of a connection, in four bytes: milliseconds since the epoch modulo 2^32,
/// compared like sequence numbers. Comparison is valid for spans below 24 days. Every timer is shorter than that, and
/// checks again when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Tick(pub(crate) u32);

impl Hash for Tick {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_time(u64::from(self.0), unit::MILLIS, state);
    }
}

impl Tick {
    /// The longest span to a deadline, in milliseconds.
    pub(crate) const MAX_AHEAD: u32 = 1 << 30;

    /// Returns the tick that contains `now`.
    pub(crate) fn at(now: Instant) -> Tick {
        Tick(now.as_millis() as u32)
    }

    /// Returns the first tick that is not before `now + delay`, so that no timer fires early (6298-9).
    #[inline]
    pub(crate) fn after(now: Instant, delay: Duration) -> Tick {
        const MOST: Duration = Duration::from_millis(Tick::MAX_AHEAD as u64);
        // A delay shorter than `MOST` by a second cannot overflow.
        let delay = if delay.as_secs() < MOST.as_secs() { delay } else { delay.min(MOST) };
        let nanos = delay.as_secs() * 1_000_000_000 + u64::from(delay.subsec_nanos());
        Tick(now.as_nanos().saturating_add(nanos).div_ceil(1_000_000) as u32)
    }

    /// Returns whether a deadline of `self` is due at `now`.
    pub(crate) fn is_due(self, now: Tick) -> bool {
        now.0.wrapping_sub(self.0) as i32 >= 0
    }

    /// Returns the milliseconds from `earlier` to `self`, or zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Tick) -> u32 {
        (self.0.wrapping_sub(earlier.0) as i32).max(0) as u32
    }

    /// Returns the milliseconds since a timestamp. A timestamp is never in the future, so this is right for 49 days.
    pub(crate) fn elapsed(self, stamp: Tick) -> u32 {
        self.0.wrapping_sub(stamp.0)
    }

    /// Returns the earlier of two deadlines.
    pub(crate) fn earlier(self, other: Tick) -> Tick {
        if self.is_due(other) { self } else { other }
    }
}

/// The start of something, in sixteenths of a second modulo 2^32. Its four bytes are right for eight years, since a
/// leaked connection may stay for months (T7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since(u32);

impl Since {
    pub(crate) fn at(now: Instant) -> Since {
        Since((now.as_nanos() / 62_500_000) as u32)
    }

    /// Returns the time since then.
    pub(crate) fn age(self, now: Instant) -> Duration {
        Duration::from_nanos(u64::from(Since::at(now).0.wrapping_sub(self.0)) * 62_500_000)
    }
}

/// A tick with a niche, so that an optional deadline takes four bytes. Tick 0 counts as tick 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(NonZeroU32);

impl Hash for Deadline {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tick().hash(state);
    }
}

impl Deadline {
    pub(crate) fn at(tick: Tick) -> Deadline {
        Deadline(NonZeroU32::new(tick.0).unwrap_or(NonZeroU32::MIN))
    }

    /// Returns the time from `now` to it; zero once it is due.
    pub(crate) fn left(self, now: Instant) -> Duration {
        let whole = Duration::from_millis(self.tick().since(Tick::at(now)).into());
        whole.saturating_sub(Duration::from_nanos(now.as_nanos() % 1_000_000))
    }

    /// Returns the first tick that is not before `now + delay`.
    #[inline]
    pub(crate) fn after(now: Instant, delay: Duration) -> Deadline {
        Deadline::at(Tick::after(now, delay))
    }

    /// As [`after`](Deadline::after), for a delay in microseconds: most are in them.
    #[inline]
    pub(crate) fn after_micros(now: Instant, micros: u64) -> Deadline {
        let micros = micros.min(u64::from(Tick::MAX_AHEAD) * 1_000);
        let nanos = now.as_nanos().saturating_add(micros * 1_000);
        Deadline::at(Tick(nanos.div_ceil(1_000_000) as u32))
    }

    pub(crate) fn tick(self) -> Tick {
        Tick(self.0.get())
    }
}

/// The tick of a past event, with the niche of a [`Deadline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(NonZeroU32);

impl Hash for Stamp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tick().hash(state);
    }
}

impl Stamp {
    pub(crate) fn at(tick: Tick) -> Stamp {
        Stamp(NonZeroU32::new(tick.0).unwrap_or(NonZeroU32::MIN))
    }

    pub(crate) fn tick(self) -> Tick {
        Tick(self.0.get())
    }
}

/// A send time: microseconds modulo 2^32. Comparison is valid for spans below 35 minutes; nothing stays in flight for
/// that long without a retransmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct SendTime(pub(crate) u32);

impl SendTime {
    pub(crate) fn at(now: Instant) -> SendTime {
        SendTime(now.as_micros() as u32)
    }

    /// The send time `span` before this one.
    pub(crate) fn earlier_by(self, span: Duration) -> SendTime {
        SendTime(self.0.wrapping_sub(span.as_micros() as u32))
    }

    /// Microseconds from `earlier` to `self`; negative if `earlier` is later.
    pub(crate) fn since(self, earlier: SendTime) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }
}

impl Hash for SendTime {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_time(u64::from(self.0), unit::MICROS, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early_and_at_most_a_tick_late_6298_9() {
        let now = Instant::from_nanos(10_500_001);
        let deadline = Tick::after(now, Duration::from_millis(200));
        assert!(!deadline.is_due(Tick::at(Instant::from_nanos(210_500_000))));
        assert!(deadline.is_due(Tick::at(Instant::from_millis(211))));
        let exact = Tick::after(Instant::from_millis(10), Duration::from_millis(200));
        assert!(exact.is_due(Tick::at(Instant::from_millis(210))));
        assert!(!exact.is_due(Tick::at(Instant::from_nanos(209_999_999))));
    }

    #[test]
    fn ticks_compare_across_the_wrap() {
        let before = Tick(u32::MAX - 5);
        let after = Tick(10);
        assert!(before.is_due(after));
        assert!(!after.is_due(before));
        assert_eq!(after.since(before), 16);
        assert_eq!(before.since(after), 0);
        assert_eq!(before.earlier(after), before);
    }

    #[test]
    fn what_passed_since_a_stamp_is_right_where_ticks_already_seem_to_lie_ahead() {
        let days = |n: u64| Instant::from_secs(n * 86_400);
        let (then, now) = (Tick::at(days(3)), Tick::at(days(43)));
        assert!(!then.is_due(now), "as deadlines they compare the other way round");
        assert_eq!(now.elapsed(then), 40 * 86_400_000);
        assert_eq!(Since::at(days(3)).age(days(3000)), Duration::from_secs(2997 * 86_400));
    }

    #[test]
    fn an_instant_prints_as_tcpdump_does() {
        assert_eq!(Instant::from_nanos(12_345_678_901).to_string(), "12.345678");
    }
}

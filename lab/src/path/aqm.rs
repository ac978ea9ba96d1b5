//! Active queue management: CoDel (RFC 8289) and PIE (RFC 8033).

use steadfast_core::{Duration, Instant};

use crate::rng::Rng;

/// A wait up to this is good (RFC 8289 §4.4).
const TARGET: Duration = Duration::from_millis(5);
/// A worse wait must last this long.
const INTERVAL: Duration = Duration::from_millis(100);
/// A queue of one packet is never shortened.
const PACKET: usize = 1500;

/// The state of CoDel (RFC 8289 §5).
#[derive(Clone, Debug, Default)]
pub(super) struct CoDel {
    /// When the wait will have been bad for an interval.
    first_above: Option<Instant>,
    dropping: bool,
    drop_next: Instant,
    count: u32,
    last_count: u32,
    /// A packet was dropped at this dequeue: its successor is judged by the rest of the pseudocode's step.
    just_dropped: Option<Started>,
}

/// Which branch of the pseudocode dropped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    /// The state was entered with it.
    Now,
    /// The state lasts.
    Before,
}

impl CoDel {
    /// Judges the packet at the head of the queue: returns whether to drop or mark it. A caller that drops says so with
    /// [`CoDel::dropped`], and asks for the next packet.
    pub(super) fn signals(&mut self, now: Instant, wait: Duration, behind: usize) -> bool {
        let bad = self.is_bad(now, wait, behind);
        match self.just_dropped.take() {
            // The packet after the first drop is sent in any case.
            Some(Started::Now) => return false,
            Some(Started::Before) if !bad => {
                self.dropping = false;
                return false;
            }
            _ => {}
        }
        if self.dropping {
            if !bad {
                self.dropping = false;
                return false;
            }
            if now < self.drop_next {
                return false;
            }
            self.count += 1;
            self.drop_next = control_law(self.drop_next, self.count);
            return true;
        }
        if bad {
            self.enter(now);
        }
        bad
    }

    /// The packet that [`CoDel::signals`] meant was dropped, not marked.
    pub(super) fn dropped(&mut self) {
        let first = self.count == self.last_count;
        self.just_dropped = Some(if first { Started::Now } else { Started::Before });
    }

    fn is_bad(&mut self, now: Instant, wait: Duration, behind: usize) -> bool {
        if wait < TARGET || behind <= PACKET {
            self.first_above = None;
            return false;
        }
        now >= *self.first_above.get_or_insert(now + INTERVAL)
    }

    /// Begins to drop, faster if that ended only a while ago.
    fn enter(&mut self, now: Instant) {
        self.dropping = true;
        let delta = self.count - self.last_count;
        let recent = now.saturating_since(self.drop_next) < 16 * INTERVAL;
        self.count = if delta > 1 && recent { delta } else { 1 };
        self.drop_next = control_law(now, self.count);
        self.last_count = self.count;
    }
}

fn control_law(at: Instant, count: u32) -> Instant {
    at + Duration::from_secs_f64(INTERVAL.as_secs_f64() / f64::from(count).sqrt())
}

/// The delay that PIE aims at, and how often it looks (RFC 8033 §4.2).
const REFERENCE: f64 = 0.015;
const UPDATE: Duration = Duration::from_millis(15);
/// A burst of this length passes.
const MAX_BURST: f64 = 0.150;
/// Beyond this chance, packets are dropped even if they could be marked (RFC 8033 §5.1).
const MARK_LIMIT: f64 = 0.1;

/// The state of PIE (RFC 8033 §4).
#[derive(Clone, Debug)]
pub(super) struct Pie {
    chance: f64,
    burst_allowance: f64,
    delay: f64,
    old_delay: f64,
    updated: Instant,
}

impl Default for Pie {
    fn default() -> Pie {
        Pie { chance: 0.0, burst_allowance: MAX_BURST, delay: 0.0, old_delay: 0.0, updated: Instant::ZERO }
    }
}

/// The verdict about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Drop it, or mark it if that may be.
    Signal {
        markable: bool,
    },
}

impl Pie {
    /// Judges a packet that finds `bytes` in the queue. The link has sent them all at `empty`.
    pub(super) fn enqueue(&mut self, now: Instant, empty: Instant, bytes: usize, rng: &mut Rng) -> Verdict {
        let drawn = rng.below(1 << 32) as f64 / (1u64 << 32) as f64;
        // After a long silence the figures have decayed anyway.
        const STEPS: u32 = 1000;
        let before = now.saturating_since(self.updated);
        if before > UPDATE * STEPS {
            *self = Pie { updated: now, ..Pie::default() };
        }
        while now.saturating_since(self.updated) >= UPDATE {
            self.updated += UPDATE;
            self.update(empty.saturating_since(self.updated).as_secs_f64());
        }
        if self.burst_allowance > 0.0
            || self.old_delay < REFERENCE / 2.0 && self.chance < 0.2
            || bytes <= 2 * PACKET
            || drawn >= self.chance
        {
            return Verdict::Pass;
        }
        Verdict::Signal { markable: self.chance < MARK_LIMIT }
    }

    fn update(&mut self, delay: f64) {
        (self.old_delay, self.delay) = (self.delay, delay);
        let step = 0.125 * (self.delay - REFERENCE) + 1.25 * (self.delay - self.old_delay);
        let scale = match self.chance {
            ..0.000_001 => 2048.0,
            ..0.000_01 => 512.0,
            ..0.000_1 => 128.0,
            ..0.001 => 32.0,
            ..0.01 => 8.0,
            ..0.1 => 2.0,
            _ => 1.0,
        };
        self.chance += step / scale;
        if self.delay == 0.0 && self.old_delay == 0.0 {
            self.chance *= 0.98;
        }
        self.chance = self.chance.clamp(0.0, 1.0);
        self.burst_allowance = (self.burst_allowance - UPDATE.as_secs_f64()).max(0.0);
        if self.chance == 0.0 && self.delay < REFERENCE / 2.0 && self.old_delay < REFERENCE / 2.0 {
            self.burst_allowance = MAX_BURST;
        }
    }
}

//! A hierarchical timing wheel: arming, moving and cancelling a timer take constant time.
//!
//! A node is four words. Levels have 64 slots; a slot of level *l* is 64^*l* ticks wide. A timer is at the level of the
//! highest bit group in which its tick differs from the wheel's own time. When that time enters a slot of a higher
//! level, the slot's timers move down.
//!
//! A row whose timer has fired may have something to send. It then waits for its turn with a node of the same kind, in
//! the line of its sort ([`Due`]). It never has both nodes, so one field of the row can name either.
// THREAT-19

use std::num::NonZeroU32;

use crate::table::Table;
use crate::time::Tick;

/// Names an armed timer. It is never zero: a table whose rows contain one uses that niche to mark vacant rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId(NonZeroU32);

impl TimerId {
    /// No timer.
    pub(crate) const NONE: TimerId = TimerId(NonZeroU32::MAX);

    /// Marks the end of a line.
    const fn end_of(line: usize) -> TimerId {
        match NonZeroU32::new(u32::MAX - 1 - line as u32) {
            Some(end) => TimerId(end),
            None => TimerId::NONE,
        }
    }

    /// Returns whether it names a node.
    fn is_node(self) -> bool {
        self.0.get() < u32::MAX - LINES as u32
    }

    fn of(index: u32) -> TimerId {
        TimerId(NonZeroU32::MIN.saturating_add(index))
    }

    fn index(self) -> u32 {
        self.0.get() - 1
    }
}

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 6;

/// The rows that wait to send, one FIFO line for each sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A SYN-ACK in reply to a SYN.
    SynAck,
    /// A SYN-ACK that the timer retransmits.
    SynAckRetransmit,
    /// A SYN.
    Syn,
}

const LINES: usize = 3;

/// Both ends of a line. In an empty line each has the value that an outermost node would have as its neighbour there.
#[derive(Clone, Copy, Debug)]
struct Line {
    first: TimerId,
    last: u32,
}

impl Line {
    const fn empty(line: usize) -> Line {
        Line { first: TimerId::end_of(line), last: !((LEVELS * SLOTS + line) as u32) }
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    tick: Tick,
    /// The value that `pop` returns when the timer fires.
    target: u32,
    next: TimerId,
    /// The previous node. The first node of a slot or line has the inverted number of that, so that unlinking need not
    /// search.
    prev: u32,
}

const _: () = assert!(Table::<Node>::ROW <= 16);

/// The timers of a stack.
#[derive(Clone, Debug)]
pub(crate) struct Wheel {
    /// The tick up to which everything has fired.
    now: Tick,
    nodes: Table<Node>,
    heads: [[TimerId; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    lines: [Line; LINES],
    /// A bit for each line that has a node.
    due: u8,
    /// The level and the slot whose timers are moving down, if that takes more than one call.
    moving: Option<(usize, usize)>,
}

/// The work that calls of [`pop`](Wheel::pop) may still do before other work gets its turn. Firing a timer costs as
/// much as moving eight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget(usize);

impl Budget {
    const FIRE: usize = 8;

    /// Returns a budget for firing this many timers.
    pub(crate) fn of(timers: usize) -> Budget {
        Budget(timers * Budget::FIRE)
    }

    pub(crate) fn is_spent(self) -> bool {
        self.0 == 0
    }

    fn spend(&mut self, cost: usize) {
        self.0 = self.0.saturating_sub(cost);
    }
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel {
            now: Tick(0),
            nodes: Table::default(),
            heads: [[TimerId::NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            lines: std::array::from_fn(Line::empty),
            due: 0,
            moving: None,
        }
    }

    /// Returns when a timer fires. The owner of one that waits in a line gets a time that has passed.
    pub(crate) fn tick(&self, timer: TimerId) -> Option<Tick> {
        self.nodes.get(timer.index()).map(|node| node.tick)
    }

    /// Returns the number of armed timers and of owners that wait in a line.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Arms a timer. A tick in the past fires at the next [`pop`](Wheel::pop).
    pub(crate) fn insert(&mut self, tick: Tick, target: u32) -> TimerId {
        let (level, slot) = self.place(tick);
        let prev = !((level * SLOTS + slot) as u32);
        let next = self.heads[level][slot];
        let index = self.nodes.insert_with(|| Node { tick, target, next, prev });
        self.lead(level, slot, index, next);
        TimerId::of(index)
    }

    /// Like [`insert`](Wheel::insert), for an owner that may already be armed or wait in a line: it keeps its node.
    pub(crate) fn rearm(&mut self, id: TimerId, tick: Tick, target: u32) -> TimerId {
        if id == TimerId::NONE {
            return self.insert(tick, target);
        }
        self.unlink(id.index());
        let node = &mut self.nodes[id.index()];
        (node.tick, node.target) = (tick, target);
        self.link(id.index());
        id
    }

    /// Appends an owner to a line. If it is armed or waits in another line, it leaves that.
    pub(crate) fn wait(&mut self, id: TimerId, due: Due, target: u32) -> TimerId {
        let line = due as usize;
        let (tick, next) = (self.now, TimerId::end_of(line));
        let index = if id == TimerId::NONE {
            self.nodes.insert_with(|| Node { tick, target, next, prev: 0 })
        } else {
            self.unlink(id.index());
            let node = &mut self.nodes[id.index()];
            (node.tick, node.target, node.next) = (tick, target, next);
            id.index()
        };
        let prev = std::mem::replace(&mut self.lines[line].last, index);
        self.nodes[index].prev = prev;
        match self.lines[line].first.is_node() {
            true => self.nodes[prev].next = TimerId::of(index),
            false => self.lines[line].first = TimerId::of(index),
        }
        self.due |= 1 << line;
        TimerId::of(index)
    }

    /// Returns the first target of a line. It stays there until it is armed or removed.
    pub(crate) fn next_due(&self, due: Due) -> Option<u32> {
        let first = self.lines[due as usize].first;
        first.is_node().then(|| self.nodes[first.index()].target)
    }

    /// Returns whether any line has a waiting owner.
    #[inline]
    pub(crate) fn any_due(&self) -> bool {
        self.due != 0
    }

    /// Returns the bits of the lines that have a waiting owner, in the order of [`Due`].
    #[inline]
    pub(crate) fn due(&self) -> u8 {
        self.due
    }

    /// Disarms a timer, or removes its owner from its line.
    pub(crate) fn remove(&mut self, id: TimerId) {
        if id != TimerId::NONE {
            self.unlink(id.index());
            self.nodes.discard(id.index());
        }
    }

    /// Removes one timer that is due at `now` and returns its target. `None`: no timer is due, or the budget is spent.
    #[inline]
    pub(crate) fn pop(&mut self, now: Tick, budget: &mut Budget) -> Option<u32> {
        // The usual case: the tick of the last call, and nothing was armed for it since.
        let current = 1 << (now.0 as usize % SLOTS);
        if self.is_at_rest(now) && self.occupied[0] & current == 0 { None } else { self.pop_due(now, budget) }
    }

    #[inline]
    fn is_at_rest(&self, now: Tick) -> bool {
        now == self.now && self.moving.is_none()
    }

    fn pop_due(&mut self, now: Tick, budget: &mut Budget) -> Option<u32> {
        self.move_down(budget);
        while let Some((level, slot, start)) = self.first_slot() {
            if !start.is_due(now) {
                break;
            }
            if budget.is_spent() {
                return None;
            }
            self.now = start;
            if level == 0 {
                budget.spend(Budget::FIRE);
                let index = self.heads[0][slot].index();
                self.unlink(index);
                return Some(self.nodes.remove(index).target);
            }
            self.moving = Some((level, slot));
            self.move_down(budget);
        }
        if self.nodes.len() == 0 || self.now.is_due(now) {
            self.now = now;
        }
        None
    }

    /// All timers of a slot must move down before any fires; one left behind would be missed.
    fn move_down(&mut self, budget: &mut Budget) {
        let Some((level, slot)) = self.moving else { return };
        while self.heads[level][slot] != TimerId::NONE {
            if budget.is_spent() {
                return;
            }
            budget.spend(1);
            let index = self.heads[level][slot].index();
            self.unlink(index);
            self.link(index);
        }
        self.moving = None;
    }

    /// Returns a tick at or before the first timer, and not before the wheel's own time.
    pub(crate) fn next(&self) -> Option<Tick> {
        self.first_slot().map(|(_, _, start)| start)
    }

    /// Returns the first occupied slot and the tick at which it begins.
    fn first_slot(&self) -> Option<(usize, usize, Tick)> {
        if let Some((level, slot)) = self.moving {
            return Some((level, slot, self.now));
        }
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        let shift = SLOT_BITS * level as u32;
        let current = self.now.0 >> shift & (SLOTS as u32 - 1);
        // Below the top level no slot lies behind the current one. At the top level, time itself wraps.
        let ahead = self.occupied[level].rotate_right(current).trailing_zeros();
        let slot = (current + ahead) % SLOTS as u32;
        let start = if ahead == 0 {
            self.now
        } else {
            let top = self.now.0.checked_shr(shift + SLOT_BITS).unwrap_or(0);
            Tick(top.checked_shl(shift + SLOT_BITS).unwrap_or(0) | slot << shift)
        };
        Some((level, slot as usize, start))
    }

    /// Returns the level and slot of a tick, relative to the wheel's own time.
    fn place(&self, tick: Tick) -> (usize, usize) {
        let tick = if tick.is_due(self.now) { self.now } else { tick };
        let differ = (tick.0 ^ self.now.0) | (SLOTS as u32 - 1);
        let level = ((31 - differ.leading_zeros()) / SLOT_BITS) as usize;
        let slot = (tick.0 >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        (level, slot)
    }

    fn link(&mut self, index: u32) {
        let (level, slot) = self.place(self.nodes[index].tick);
        let head = self.heads[level][slot];
        let node = &mut self.nodes[index];
        (node.next, node.prev) = (head, !((level * SLOTS + slot) as u32));
        self.lead(level, slot, index, head);
    }

    /// Makes a node the head of its slot, in front of the old head `next`.
    #[inline]
    fn lead(&mut self, level: usize, slot: usize, index: u32, next: TimerId) {
        if next != TimerId::NONE {
            self.nodes[next.index()].prev = index;
        }
        self.heads[level][slot] = TimerId::of(index);
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let Node { next, prev, .. } = self.nodes[index];
        if next.is_node() {
            self.nodes[next.index()].prev = prev;
        } else if next != TimerId::NONE {
            let line = TimerId::end_of(0).0.get() - next.0.get();
            self.lines[line as usize].last = prev;
        }
        let place = !prev as usize;
        if place < LEVELS * SLOTS {
            let (level, slot) = (place / SLOTS, place % SLOTS);
            self.heads[level][slot] = next;
            if next == TimerId::NONE {
                self.occupied[level] &= !(1 << slot);
            }
        } else if place < LEVELS * SLOTS + LINES {
            let line = place - LEVELS * SLOTS;
            self.lines[line].first = next;
            if !next.is_node() {
                self.due &= !(1 << line);
            }
        } else {
            self.nodes[prev].next = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const ALL: Budget = Budget(usize::MAX);

    fn drain(wheel: &mut Wheel, now: u32) -> Vec<u32> {
        std::iter::from_fn(|| wheel.pop(Tick(now), &mut ALL.clone())).collect()
    }

    #[test]
    fn a_timer_fires_at_its_tick_and_not_before() {
        let mut wheel = Wheel::new();
        for tick in [1, 63, 64, 65, 4095, 4096, 300_000, 1 << 29] {
            wheel.insert(Tick(tick), tick);
            assert_eq!(drain(&mut wheel, tick - 1), vec![]);
            assert_eq!(drain(&mut wheel, tick), vec![tick]);
        }
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn a_past_tick_fires_at_once() {
        let mut wheel = Wheel::new();
        assert_eq!(drain(&mut wheel, 100), vec![]);
        wheel.insert(Tick(40), 7);
        assert_eq!(wheel.next(), Some(Tick(100)));
        assert_eq!(drain(&mut wheel, 100), vec![7]);
    }

    /// Lines and armed timers together: each line is a queue, and any owner may leave it.
    #[test]
    fn lines_are_queues_that_anybody_may_leave() {
        let mut wheel = Wheel::new();
        let all = [Due::SynAck, Due::SynAckRetransmit, Due::Syn];
        let mut waiting = Vec::new();
        for target in 0..30 {
            wheel.insert(Tick(target), 1000 + target);
            let due = all[target as usize % 3];
            waiting.push((due, target, wheel.wait(TimerId::NONE, due, target)));
        }
        // The first, the last and one in the middle of each line.
        for gone in [0, 1, 2, 27, 28, 29, 12, 13, 14] {
            wheel.remove(waiting[gone].2);
        }
        for (line, due) in all.into_iter().enumerate() {
            assert!(wheel.any_due());
            let ids: Vec<_> =
                waiting.iter().filter(|waits| waits.0 == due).map(|waits| (waits.1, waits.2)).collect();
            let mut next = || {
                let target = wheel.next_due(due)?;
                let (_, id) = ids.iter().find(|(waits, _)| *waits == target)?;
                wheel.remove(*id);
                Some(target)
            };
            let got: Vec<_> = std::iter::from_fn(&mut next).collect();
            let expected: Vec<_> = (0..30)
                .filter(|t| t % 3 == line as u32 && !(3..=11).chain(15..=26).all(|left| left != *t))
                .collect();
            assert_eq!(got, expected);
        }
        assert!(!wheel.any_due());
        assert_eq!((wheel.len(), drain(&mut wheel, 30).len()), (30, 30));
        assert_eq!((wheel.next_due(Due::Syn), wheel.len()), (None, 0));
    }

    #[test]
    fn time_may_wrap() {
        let mut wheel = Wheel::new();
        let mut now = 0u32;
        for _ in 0..10 {
            let due = now.wrapping_add(1 << 29);
            wheel.insert(Tick(due), 1);
            assert_eq!(drain(&mut wheel, due.wrapping_sub(1)), vec![]);
            assert_eq!(drain(&mut wheel, due), vec![1]);
            now = due;
        }
    }

    proptest! {
        /// A sorted map is the oracle: random arming, cancelling and passing of time, across the wrap.
        #[test]
        fn fires_exactly_what_a_sorted_map_would(
            start: u32,
            budget in 1usize..20,
            steps in proptest::collection::vec((0u8..3, 0u32..200_000), 1..200),
        ) {
            let mut wheel = Wheel::new();
            let mut oracle = BTreeMap::new();
            let mut now = 0u64;
            let tick = |t: u64| Tick((t as u32).wrapping_add(start));
            while wheel.pop(tick(0), &mut ALL.clone()).is_some() {}
            wheel.now = tick(0);
            for (id, (what, span)) in steps.into_iter().enumerate() {
                let id = id as u32;
                match what {
                    0 => {
                        let due = now + u64::from(span);
                        oracle.insert((due, id), wheel.insert(tick(due), id));
                    }
                    1 => {
                        if let Some(key) = oracle.keys().nth(span as usize % oracle.len().max(1)).copied() {
                            wheel.remove(oracle.remove(&key).unwrap());
                        }
                    }
                    _ => {
                        now += u64::from(span);
                        let mut fired = Vec::new();
                        loop {
                            // In steps. Between them, the wheel reports that more is due.
                            let mut budget = Budget(budget);
                            fired.extend(std::iter::from_fn(|| wheel.pop(tick(now), &mut budget)));
                            if !wheel.next().is_some_and(|next| next.is_due(tick(now))) {
                                break;
                            }
                            prop_assert!(budget.is_spent());
                        }
                        let later = oracle.split_off(&(now + 1, 0));
                        let mut expected: Vec<_> = std::mem::replace(&mut oracle, later).into_keys().map(|k| k.1).collect();
                        fired.sort_unstable();
                        expected.sort_unstable();
                        prop_assert_eq!(fired, expected);
                    }
                }
                prop_assert_eq!(wheel.len(), oracle.len());
                if let (Some(next), Some((first, _))) = (wheel.next(), oracle.keys().next()) {
                    prop_assert!(next.is_due(tick(*first)), "next() is after the first timer");
                }
            }
        }
    }
}

//! A line of rows that wait for their turn. Its links lie in the rows themselves: whoever goes leaves no place behind,
//! so that a row's next owner inherits none.

use crate::table::Table;

/// Nobody stands there.
const NIL: u32 = u32::MAX;
/// The row stands in no line.
const OUT: u32 = u32::MAX - 1;

/// Where a row stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Who is behind it.
    next: u32,
    /// Who is before it.
    previous: u32,
}

impl Default for Place {
    fn default() -> Place {
        Place { next: OUT, previous: OUT }
    }
}

impl Place {
    /// Whether the row stands in a line.
    #[inline]
    pub(crate) fn is_taken(self) -> bool {
        self.next != OUT
    }
}

/// A row that can stand in a line.
pub(crate) trait Waits {
    fn place(&mut self) -> &mut Place;
}

/// Rows of one table, first come, first served.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    first: u32,
    last: u32,
}

impl Default for Line {
    fn default() -> Line {
        Line { first: NIL, last: NIL }
    }
}

impl Line {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first == NIL
    }

    /// The row whose turn it is.
    #[inline]
    pub(crate) fn first(&self) -> Option<u32> {
        (!self.is_empty()).then_some(self.first)
    }

    /// Puts a row that stands nowhere at the end.
    pub(crate) fn join<T: Waits>(&mut self, index: u32, rows: &mut Table<T>) {
        *rows[index].place() = Place { next: NIL, previous: self.last };
        match std::mem::replace(&mut self.last, index) {
            NIL => self.first = index,
            last => rows[last].place().next = index,
        }
    }

    /// As [`join`](Line::join) for a row at hand, where nobody waits: as nearly always. Says whether that was so.
    #[inline]
    pub(crate) fn join_alone(&mut self, index: u32, place: &mut Place) -> bool {
        let alone = self.is_empty();
        if alone {
            *place = Place { next: NIL, previous: NIL };
            (self.first, self.last) = (index, index);
        }
        alone
    }

    /// Whether a row stands in line, and nobody else does.
    #[inline]
    pub(crate) fn is_alone(&self, index: u32) -> bool {
        self.first == index && self.last == index
    }

    /// Takes out a row at hand that is alone.
    #[inline]
    pub(crate) fn leave_alone(&mut self, place: &mut Place) {
        (self.first, self.last, *place) = (NIL, NIL, Place::default());
    }

    /// Takes a row out, wherever it stands.
    pub(crate) fn leave<T: Waits>(&mut self, index: u32, rows: &mut Table<T>) {
        let Place { next, previous } = std::mem::take(rows[index].place());
        match previous {
            OUT => return,
            NIL => self.first = next,
            previous => rows[previous].place().next = next,
        }
        match next {
            NIL => self.last = previous,
            next => rows[next].place().previous = previous,
        }
    }

    /// Puts the first row at the end.
    pub(crate) fn rotate<T: Waits>(&mut self, rows: &mut Table<T>) {
        if self.first != self.last {
            let first = self.first;
            self.leave(first, rows);
            self.join(first, rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    impl Waits for Place {
        fn place(&mut self) -> &mut Place {
            self
        }
    }

    proptest! {
        /// Against a queue as oracle. A row that is removed from the table leaves the line; the next one in it is out.
        #[test]
        fn stands_as_a_queue_would(steps in proptest::collection::vec((0u8..4, any::<u8>()), 0..300)) {
            let (mut rows, mut line, mut oracle) = (Table::default(), Line::default(), VecDeque::new());
            for (what, number) in steps {
                let pick = usize::from(number) % oracle.len().max(1);
                match what {
                    0 => {
                        let index = rows.insert(Place::default());
                        prop_assert!(!rows[index].is_taken());
                        if !line.join_alone(index, &mut rows[index]) {
                            line.join(index, &mut rows);
                        }
                        oracle.push_back(index);
                    }
                    1 => {
                        if let Some(index) = oracle.remove(pick) {
                            prop_assert_eq!(line.is_alone(index), oracle.is_empty());
                            match line.is_alone(index) {
                                true => line.leave_alone(&mut rows[index]),
                                false => line.leave(index, &mut rows),
                            }
                            rows.remove(index);
                        }
                    }
                    2 => {
                        if let Some(index) = oracle.get(pick).copied() {
                            // A second time changes nothing.
                            oracle.retain(|waiting| *waiting != index);
                            line.leave(index, &mut rows);
                            line.leave(index, &mut rows);
                            prop_assert!(!rows[index].is_taken());
                            rows.remove(index);
                        }
                    }
                    _ => {
                        line.rotate(&mut rows);
                        oracle.rotate_left(usize::from(!oracle.is_empty()));
                    }
                }
                let mut stands = Vec::new();
                let mut at = line.first();
                while let Some(index) = at {
                    prop_assert!(rows[index].is_taken());
                    stands.push(index);
                    at = (rows[index].next != NIL).then_some(rows[index].next);
                }
                prop_assert!(stands.iter().eq(&oracle), "{:?} {:?}", stands, oracle);
                prop_assert_eq!(line.last, oracle.back().copied().unwrap_or(NIL));
            }
        }
    }
}

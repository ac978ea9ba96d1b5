//! A linked list of waiting rows. The links are in the rows themselves: a row that leaves takes its place with it, so
//! the next owner of the row does not inherit it.

use crate::table::Table;

/// End of the list.
const NIL: u32 = u32::MAX;
/// The row is in no line.
const OUT: u32 = u32::MAX - 1;

/// The links of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The row behind.
    next: u32,
    /// The row before.
    previous: u32,
}

impl Default for Place {
    fn default() -> Place {
        Place { next: OUT, previous: OUT }
    }
}

impl Place {
    /// Returns whether the row is in a line.
    #[inline]
    pub(crate) fn is_taken(self) -> bool {
        self.next != OUT
    }
}

/// A row that can wait in a line.
pub(crate) trait Waits {
    fn place(&mut self) -> &mut Place;
    fn standing(&self) -> Place;
}

/// Rows of one table, in FIFO order.
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

    /// Returns the first row.
    #[inline]
    pub(crate) fn first(&self) -> Option<u32> {
        (!self.is_empty()).then_some(self.first)
    }

    /// Iterates over the rows in line. It ends even if the line is broken.
    pub(crate) fn walk<T: Waits>(&self, rows: &Table<T>) -> impl Iterator<Item = u32> {
        let next = |index: &u32| rows.get(*index).map(|row| row.standing().next).filter(|next| *next != NIL);
        std::iter::successors(self.first(), next).take(rows.len() + 1)
    }

    /// Appends a row that is in no line.
    pub(crate) fn join<T: Waits>(&mut self, index: u32, rows: &mut Table<T>) {
        *rows[index].place() = Place { next: NIL, previous: self.last };
        match std::mem::replace(&mut self.last, index) {
            NIL => self.first = index,
            last => rows[last].place().next = index,
        }
    }

    /// Like [`join`](Line::join) for a row at hand, if the line is empty, which is the usual case. Returns whether it
    /// was.
    #[inline]
    pub(crate) fn join_alone(&mut self, index: u32, place: &mut Place) -> bool {
        let alone = self.is_empty();
        if alone {
            *place = Place { next: NIL, previous: NIL };
            (self.first, self.last) = (index, index);
        }
        alone
    }

    /// Returns whether the row is in the line and is the only one.
    #[inline]
    pub(crate) fn is_alone(&self, index: u32) -> bool {
        self.first == index && self.last == index
    }

    /// Removes a row at hand that is the only one.
    #[inline]
    pub(crate) fn leave_alone(&mut self, place: &mut Place) {
        (self.first, self.last, *place) = (NIL, NIL, Place::default());
    }

    /// Removes a row at any position.
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

    /// Moves the first row to the end.
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

        fn standing(&self) -> Place {
            *self
        }
    }

    proptest! {
        /// A queue is the oracle. A row removed from the table leaves the line; the next row at its index is in no
        /// line.
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
                            // A second removal changes nothing.
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

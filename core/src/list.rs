//! A linked list of rows. The links are in the rows themselves: a row that leaves takes its place with it, so the next
//! owner of the row does not inherit it.

use std::fmt;
use std::marker::PhantomData;

/// End of the list.
const NIL: u32 = u32::MAX;
/// The row is in no list.
const OUT: u32 = u32::MAX - 1;

/// The links of a row in one list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    /// The row behind.
    next: u32,
    /// The row before.
    previous: u32,
}

impl Default for Links {
    fn default() -> Links {
        Links { next: OUT, previous: OUT }
    }
}

impl Links {
    /// Returns whether the row is in a list.
    #[inline]
    pub(crate) fn is_listed(self) -> bool {
        self.next != OUT
    }
}

/// Rows that can be in a list of the sort `S`. A row can be in one list of each sort.
pub(crate) trait Rows<S> {
    /// Returns the links of a row, or `None` if the row is vacant.
    fn links(&self, index: u32) -> Option<Links>;
    /// Returns the links of a row. Panics if the row is vacant.
    fn links_mut(&mut self, index: u32) -> &mut Links;
}

/// A list of rows of one table, in FIFO order.
pub(crate) struct List<S> {
    first: u32,
    last: u32,
    sort: PhantomData<S>,
}

impl<S> Default for List<S> {
    fn default() -> List<S> {
        List { first: NIL, last: NIL, sort: PhantomData }
    }
}

impl<S> Clone for List<S> {
    fn clone(&self) -> List<S> {
        List { ..*self }
    }
}

impl<S> fmt::Debug for List<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("first", &self.first).field("last", &self.last).finish()
    }
}

impl<S> List<S> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first == NIL
    }

    /// Returns the first row.
    #[inline]
    pub(crate) fn first(&self) -> Option<u32> {
        (!self.is_empty()).then_some(self.first)
    }

    /// Iterates over the rows, from the first. It may not end if the list is broken.
    pub(crate) fn iter(&self, rows: &impl Rows<S>) -> impl Iterator<Item = u32> {
        let next = |index: &u32| rows.links(*index).map(|links| links.next).filter(|next| *next < OUT);
        std::iter::successors(self.first(), next)
    }

    /// Appends a row that is in no list of this sort.
    pub(crate) fn push(&mut self, index: u32, rows: &mut impl Rows<S>) {
        *rows.links_mut(index) = Links { next: NIL, previous: self.last };
        match std::mem::replace(&mut self.last, index) {
            NIL => self.first = index,
            last => rows.links_mut(last).next = index,
        }
    }

    /// Like [`push`](List::push) for a row at hand, if the list is empty, which is the usual case. Returns whether it
    /// was.
    #[inline]
    pub(crate) fn push_alone(&mut self, index: u32, links: &mut Links) -> bool {
        let alone = self.is_empty();
        if alone {
            *links = Links { next: NIL, previous: NIL };
            (self.first, self.last) = (index, index);
        }
        alone
    }

    /// Returns whether the row is in the list and is the only one.
    #[inline]
    pub(crate) fn is_alone(&self, index: u32) -> bool {
        self.first == index && self.last == index
    }

    /// Removes a row at hand that is the only one.
    #[inline]
    pub(crate) fn remove_alone(&mut self, links: &mut Links) {
        (self.first, self.last, *links) = (NIL, NIL, Links::default());
    }

    /// Removes a row at any position. A row that is in no list of this sort stays as it is.
    pub(crate) fn remove(&mut self, index: u32, rows: &mut impl Rows<S>) {
        let Links { next, previous } = std::mem::take(rows.links_mut(index));
        match previous {
            OUT => return,
            NIL => self.first = next,
            previous => rows.links_mut(previous).next = next,
        }
        match next {
            NIL => self.last = previous,
            next => rows.links_mut(next).previous = previous,
        }
    }

    /// Moves the first row to the end.
    pub(crate) fn rotate(&mut self, rows: &mut impl Rows<S>) {
        if self.first != self.last {
            let first = self.first;
            self.remove(first, rows);
            self.push(first, rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::table::Table;

    struct Any;

    impl Rows<Any> for Table<Links> {
        fn links(&self, index: u32) -> Option<Links> {
            self.get(index).copied()
        }

        fn links_mut(&mut self, index: u32) -> &mut Links {
            &mut self[index]
        }
    }

    proptest! {
        /// A queue is the oracle. A row removed from the table leaves the list; the next row at its index is in no
        /// list.
        #[test]
        fn stands_as_a_queue_would(steps in proptest::collection::vec((0u8..4, any::<u8>()), 0..300)) {
            let (mut rows, mut list, mut oracle) = (Table::default(), List::<Any>::default(), VecDeque::new());
            for (what, number) in steps {
                let pick = usize::from(number) % oracle.len().max(1);
                match what {
                    0 => {
                        let index = rows.insert(Links::default());
                        prop_assert!(!rows[index].is_listed());
                        if !list.push_alone(index, &mut rows[index]) {
                            list.push(index, &mut rows);
                        }
                        oracle.push_back(index);
                    }
                    1 => {
                        if let Some(index) = oracle.remove(pick) {
                            prop_assert_eq!(list.is_alone(index), oracle.is_empty());
                            match list.is_alone(index) {
                                true => list.remove_alone(&mut rows[index]),
                                false => list.remove(index, &mut rows),
                            }
                            rows.remove(index);
                        }
                    }
                    2 => {
                        if let Some(index) = oracle.get(pick).copied() {
                            // A second removal changes nothing.
                            oracle.retain(|waiting| *waiting != index);
                            list.remove(index, &mut rows);
                            list.remove(index, &mut rows);
                            prop_assert!(!rows[index].is_listed());
                            rows.remove(index);
                        }
                    }
                    _ => {
                        list.rotate(&mut rows);
                        oracle.rotate_left(usize::from(!oracle.is_empty()));
                    }
                }
                let listed: Vec<_> = list.iter(&rows).take(rows.len() + 1).collect();
                prop_assert!(listed.iter().all(|index| rows[*index].is_listed()));
                prop_assert!(listed.iter().eq(&oracle), "{:?} {:?}", listed, oracle);
                prop_assert_eq!(list.last, oracle.back().copied().unwrap_or(NIL));
            }
        }
    }
}

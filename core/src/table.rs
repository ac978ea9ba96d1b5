//! Rows by index, in pages. A table grows without moving its rows, and it frees a page that has lost all its rows.

use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

const NIL: u32 = u32::MAX;

/// A row's index, or none. It is never zero: a table whose rows contain a link uses that niche to mark vacant rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link(NonZeroU32);

impl Link {
    /// No row.
    pub(crate) const NONE: Link = Link(NonZeroU32::MAX);

    pub(crate) fn of(index: u32) -> Link {
        Link(NonZeroU32::MIN.saturating_add(index))
    }

    /// Returns the row's index. For `NONE` that is an index which no row has.
    pub(crate) fn index(self) -> u32 {
        self.0.get() - 1
    }

    pub(crate) fn get(self) -> Option<u32> {
        (self != Link::NONE).then(|| self.index())
    }
}

/// A table of rows. An index names a row until the row is removed; a later insertion may reuse the index.
#[derive(Clone, Debug)]
pub(crate) struct Table<T> {
    pages: Vec<Page<T>>,
    /// Pages with a vacant row. The next insertion uses the last of them.
    open: Vec<u32>,
    /// The page that lost its last row most recently. It keeps its memory, so that a row that comes and goes at the
    /// edge of a page does not allocate.
    emptied: u32,
    len: usize,
}

#[derive(Clone, Debug)]
struct Page<T> {
    rows: Vec<Row<T>>,
    /// The vacant row for the next insertion.
    vacant: u32,
    /// Number of occupied rows.
    live: u32,
}

#[derive(Clone, Debug)]
enum Row<T> {
    Occupied(T),
    /// The next vacant row of the page.
    Vacant(u32),
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { pages: Vec::new(), open: Vec::new(), emptied: NIL, len: 0 }
    }
}

impl<T> Page<T> {
    fn is_full(&self) -> bool {
        self.vacant == NIL && self.rows.len() == Table::<T>::PAGE
    }

    /// Notes that a row is vacant now. Returns whether all are.
    #[inline]
    fn vacated(&mut self, row: usize) -> bool {
        self.vacant = row as u32;
        self.live -= 1;
        self.live == 0
    }
}

impl<T> Table<T> {
    /// Size of a row, in bytes. A niche in the row type marks vacant rows.
    pub(crate) const ROW: usize = size_of::<Row<T>>();

    /// Rows in a page, a power of two: as many as fit into 64 KiB. A page is then cheap to allocate, and a million rows
    /// need few pages.
    const PAGE: usize = {
        let fit = (1 << 16) / Table::<T>::ROW;
        if fit < 2 { 1 } else { 1 << fit.ilog2() }
    };

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns an exclusive upper bound of all indexes.
    pub(crate) fn bound(&self) -> u32 {
        (self.pages.len() * Table::<T>::PAGE) as u32
    }

    /// Returns the index that the next insertion will use.
    pub(crate) fn next(&self) -> u32 {
        let number = self.open.last().map_or(self.pages.len(), |number| *number as usize);
        let row = match self.pages.get(number) {
            Some(page) if page.vacant == NIL => page.rows.len(),
            Some(page) => page.vacant as usize,
            None => 0,
        };
        (number * Table::<T>::PAGE + row) as u32
    }

    #[inline]
    pub(crate) fn insert(&mut self, row: T) -> u32 {
        self.insert_with(|| row)
    }

    /// Like [`insert`](Table::insert), but constructs the row in place.
    #[inline]
    pub(crate) fn insert_with(&mut self, make: impl FnOnce() -> T) -> u32 {
        if let Some(&number) = self.open.last()
            && let Some(page) = self.pages.get_mut(number as usize)
            && let Some(place) = page.rows.get_mut(page.vacant as usize)
            && let Row::Vacant(next) = *place
        {
            *place = Row::Occupied(make());
            let row = std::mem::replace(&mut page.vacant, next);
            page.live += 1;
            self.len += 1;
            if page.is_full() {
                self.open.pop();
            }
            return number * Table::<T>::PAGE as u32 + row;
        }
        self.push(make)
    }

    /// Appends a row to the last open page, or to a new page.
    #[cold]
    fn push(&mut self, make: impl FnOnce() -> T) -> u32 {
        let number = self.open.last().copied().unwrap_or_else(|| {
            let number = self.pages.len() as u32;
            self.pages.push(Page { rows: Vec::new(), vacant: NIL, live: 0 });
            self.open.push(number);
            number
        });
        let page = &mut self.pages[number as usize];
        if page.rows.capacity() == 0 && number > 0 {
            // The first page grows as it fills, since most stacks are small.
            page.rows.reserve_exact(Table::<T>::PAGE);
        }
        page.rows.push(Row::Occupied(make()));
        page.live += 1;
        self.len += 1;
        let row = page.rows.len() - 1;
        if page.is_full() {
            self.open.pop();
        }
        (number as usize * Table::<T>::PAGE + row) as u32
    }

    /// Removes and returns a row. Panics if the index is vacant.
    pub(crate) fn remove(&mut self, index: u32) -> T {
        let (number, row) = Table::<T>::place(index);
        let page = &mut self.pages[number];
        let was_full = page.is_full();
        let vacated = Row::Vacant(page.vacant);
        let Row::Occupied(row_there) = std::mem::replace(&mut page.rows[row], vacated) else {
            panic!("row {index} is vacant");
        };
        let empty = page.vacated(row);
        self.vacated(number, was_full, empty);
        row_there
    }

    /// Like [`remove`](Table::remove), but drops the row in place.
    pub(crate) fn discard(&mut self, index: u32) {
        let (number, row) = Table::<T>::place(index);
        let page = &mut self.pages[number];
        let was_full = page.is_full();
        assert!(matches!(page.rows[row], Row::Occupied(_)), "row {index} is vacant");
        page.rows[row] = Row::Vacant(page.vacant);
        let empty = page.vacated(row);
        self.vacated(number, was_full, empty);
    }

    #[inline]
    fn vacated(&mut self, number: usize, was_full: bool, empty: bool) {
        self.len -= 1;
        if was_full {
            self.open.push(number as u32);
        }
        if empty && self.emptied != number as u32 {
            self.page_emptied(number as u32);
        }
    }

    /// Notes that another page has lost its last row, and frees the one that did so before it.
    #[cold]
    fn page_emptied(&mut self, number: u32) {
        let before = std::mem::replace(&mut self.emptied, number);
        if let Some(page) = self.pages.get_mut(before as usize)
            && page.live == 0
        {
            *page = Page { rows: Vec::new(), vacant: NIL, live: 0 };
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let (number, row) = Table::<T>::place(index);
        match self.pages.get(number)?.rows.get(row)? {
            Row::Occupied(row) => Some(row),
            Row::Vacant(_) => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (number, row) = Table::<T>::place(index);
        match self.pages.get_mut(number)?.rows.get_mut(row)? {
            Row::Occupied(row) => Some(row),
            Row::Vacant(_) => None,
        }
    }

    /// Iterates over all rows and their indexes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.iter_from(0)
    }

    /// Iterates over the rows from an index on, and their indexes.
    pub(crate) fn iter_from(&self, from: u32) -> impl Iterator<Item = (u32, &T)> {
        let (number, row) = Table::<T>::place(from);
        let pages = self.pages.get(number..).unwrap_or_default();
        let numbered = pages.iter().zip((from - row as u32..).step_by(Table::<T>::PAGE));
        let rows = numbered.flat_map(move |(page, first)| {
            let before = from.saturating_sub(first) as usize;
            page.rows.iter().zip(first..).skip(before)
        });
        rows.filter_map(|(row, index)| match row {
            Row::Occupied(row) => Some((index, row)),
            Row::Vacant(_) => None,
        })
    }

    #[inline]
    fn place(index: u32) -> (usize, usize) {
        (index as usize / Table::<T>::PAGE, index as usize % Table::<T>::PAGE)
    }
}

impl<T> Index<u32> for Table<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        self.get(index).expect("the row is there")
    }
}

impl<T> IndexMut<u32> for Table<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.get_mut(index).expect("the row is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Large rows, so that a page has few of them.
    type Large = [u64; 1024];

    #[test]
    fn pages_without_rows_are_given_back_but_for_one() {
        let mut table = Table::<Large>::default();
        let rows = |table: &Table<Large>| table.pages.iter().map(|page| page.rows.capacity()).sum::<usize>();
        let indexes: Vec<_> = (0..1000).map(|_| table.insert([0; 1024])).collect();
        assert!(rows(&table) >= 1000);
        // Every second row first, so that no page is empty until the end.
        indexes.iter().step_by(2).for_each(|index| table.discard(*index));
        assert!(rows(&table) >= 1000);
        indexes.iter().skip(1).step_by(2).for_each(|index| table.discard(*index));
        assert!(rows(&table) <= Table::<Large>::PAGE);
        let again: Vec<_> = (0..1000).map(|_| table.insert([1; 1024])).collect();
        assert!(again.iter().max() <= indexes.iter().max(), "what was given back is used again");
        assert!(again.iter().all(|index| table[*index][0] == 1));
    }

    #[test]
    fn a_row_that_comes_and_goes_at_the_edge_of_a_page_keeps_the_page() {
        let mut table = Table::<Large>::default();
        let page = Table::<Large>::PAGE;
        (0..page).for_each(|_| _ = table.insert([0; 1024]));
        for _ in 0..3 {
            let index = table.insert([0; 1024]);
            assert_eq!(index as usize, page);
            table.discard(index);
            assert!(table.pages[1].rows.capacity() >= page);
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_would(steps in proptest::collection::vec((any::<bool>(), any::<u16>()), 0..600)) {
            let (mut table, mut oracle) = (Table::<(u16, Large)>::default(), BTreeMap::new());
            let row = |number| (number, [0; 1024]);
            for (insert, number) in steps {
                if insert || oracle.is_empty() {
                    let next = table.next();
                    let index = table.insert(row(number));
                    prop_assert_eq!(index, next);
                    prop_assert_eq!(oracle.insert(index, number), None, "a row was given twice");
                } else {
                    let index = *oracle.keys().nth(usize::from(number) % oracle.len()).unwrap();
                    let expected = oracle.remove(&index).unwrap();
                    if number % 2 == 0 {
                        prop_assert_eq!(table.remove(index).0, expected);
                    } else {
                        table.discard(index);
                    }
                    prop_assert!(table.get(index).is_none());
                }
                prop_assert_eq!(table.len(), oracle.len());
                prop_assert!(table.iter().map(|(index, row)| (index, row.0)).eq(oracle.clone()));
                let from = u32::from(number) % (table.bound() + 2);
                let rest = table.iter_from(from).map(|(index, row)| (index, row.0));
                prop_assert!(rest.eq(oracle.range(from..).map(|(index, number)| (*index, *number))));
            }
        }
    }
}

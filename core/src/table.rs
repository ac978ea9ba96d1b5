//! Rows by index, in pages: a table grows without moving what is in it, and without room for as much again.

use std::ops::{Index, IndexMut};

/// Rows of a page.
const PAGE: usize = 64;
const NIL: u32 = u32::MAX;

/// A table of rows. An index names a row until it is removed; then the next row that is inserted gets it.
#[derive(Clone, Debug)]
pub(crate) struct Table<T> {
    pages: Vec<Vec<Row<T>>>,
    /// The vacant row that the next insertion takes.
    vacant: u32,
    len: usize,
}

#[derive(Clone, Debug)]
enum Row<T> {
    Occupied(T),
    /// The next vacant row.
    Vacant(u32),
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { pages: Vec::new(), vacant: NIL, len: 0 }
    }
}

impl<T> Table<T> {
    /// What a row takes. Where a field of it leaves a value unused, that says that the row is vacant.
    pub(crate) const ROW: usize = size_of::<Row<T>>();

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn insert(&mut self, row: T) -> u32 {
        self.insert_with(|| row)
    }

    /// As [`insert`](Table::insert), for a row that is made where it will be.
    #[inline]
    pub(crate) fn insert_with(&mut self, make: impl FnOnce() -> T) -> u32 {
        self.len += 1;
        let index = self.vacant;
        if let Some(place) = self.row_mut(index)
            && let Row::Vacant(next) = *place
        {
            *place = Row::Occupied(make());
            self.vacant = next;
            return index;
        }
        self.push(make)
    }

    /// A row at the end.
    #[cold]
    fn push(&mut self, make: impl FnOnce() -> T) -> u32 {
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            // The first page grows as it fills, since most stacks are small.
            let room = if self.pages.is_empty() { 0 } else { PAGE };
            self.pages.push(Vec::with_capacity(room));
        }
        let page = self.pages.len() - 1;
        self.pages[page].push(Row::Occupied(make()));
        (page * PAGE + self.pages[page].len() - 1) as u32
    }

    /// Takes a row out. Panics where there is none.
    pub(crate) fn remove(&mut self, index: u32) -> T {
        let vacant = self.vacant;
        let place = self.row_mut(index).expect("the row is there");
        let Row::Occupied(row) = std::mem::replace(place, Row::Vacant(vacant)) else {
            panic!("row {index} is vacant");
        };
        self.vacant = index;
        self.len -= 1;
        row
    }

    /// As [`remove`](Table::remove), for a row that nobody wants: it goes from where it is.
    pub(crate) fn discard(&mut self, index: u32) {
        let vacant = self.vacant;
        let place = self.row_mut(index).expect("the row is there");
        assert!(matches!(place, Row::Occupied(_)), "row {index} is vacant");
        *place = Row::Vacant(vacant);
        self.vacant = index;
        self.len -= 1;
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        match self.pages.get(index as usize / PAGE)?.get(index as usize % PAGE)? {
            Row::Occupied(row) => Some(row),
            Row::Vacant(_) => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.row_mut(index)? {
            Row::Occupied(row) => Some(row),
            Row::Vacant(_) => None,
        }
    }

    /// All rows by their index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.pages.iter().flatten().zip(0..).filter_map(|(row, index)| match row {
            Row::Occupied(row) => Some((index, row)),
            Row::Vacant(_) => None,
        })
    }

    #[inline]
    fn row_mut(&mut self, index: u32) -> Option<&mut Row<T>> {
        self.pages.get_mut(index as usize / PAGE)?.get_mut(index as usize % PAGE)
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

    proptest! {
        #[test]
        fn behaves_as_a_map_would(steps in proptest::collection::vec((any::<bool>(), any::<u16>()), 0..600)) {
            let (mut table, mut oracle) = (Table::default(), BTreeMap::new());
            for (insert, number) in steps {
                if insert || oracle.is_empty() {
                    let index = table.insert(number);
                    prop_assert_eq!(oracle.insert(index, number), None, "a row was given twice");
                } else {
                    let index = *oracle.keys().nth(usize::from(number) % oracle.len()).unwrap();
                    let expected = oracle.remove(&index).unwrap();
                    if number % 2 == 0 {
                        prop_assert_eq!(table.remove(index), expected);
                    } else {
                        table.discard(index);
                    }
                    prop_assert_eq!(table.get(index), None);
                }
                prop_assert_eq!(table.len(), oracle.len());
                prop_assert!(table.iter().eq(oracle.iter().map(|(index, number)| (*index, number))));
            }
        }
    }
}

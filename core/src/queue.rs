//! A queue in chunks. Its elements do not move when it grows, and it frees memory when it drains.

use std::collections::VecDeque;

/// A queue of any length. Neither a push nor a pop touches more than a chunk.
#[derive(Clone, Debug)]
pub(crate) struct Queue<T> {
    /// The first chunk, empty only if the whole queue is.
    front: VecDeque<T>,
    /// The chunks behind it, none of them empty.
    rest: VecDeque<VecDeque<T>>,
    /// A drained chunk, kept so that a queue at the edge of a chunk does not allocate.
    spare: VecDeque<T>,
    len: usize,
    /// The next chunk for [`tidy`](Queue::tidy); 0 is the front.
    next_to_tidy: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue {
            front: VecDeque::new(),
            rest: VecDeque::new(),
            spare: VecDeque::new(),
            len: 0,
            next_to_tidy: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Elements in a chunk, which is a page of memory.
    pub(crate) const CHUNK: usize = if size_of::<T>() > 256 { 16 } else { 4096 / size_of::<T>() };

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.front.is_empty()
    }

    /// Iterates over all elements, from the front.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.front.iter().chain(self.rest.iter().flatten())
    }

    /// Returns the element at an index, counted from the front.
    pub(crate) fn get_mut(&mut self, mut place: usize) -> Option<&mut T> {
        for chunk in std::iter::once(&mut self.front).chain(&mut self.rest) {
            if place < chunk.len() {
                return chunk.get_mut(place);
            }
            place -= chunk.len();
        }
        None
    }

    #[inline]
    pub(crate) fn push_back(&mut self, element: T) {
        self.len += 1;
        if self.rest.is_empty() && self.front.len() < Queue::<T>::CHUNK {
            self.front.push_back(element);
        } else {
            self.push_behind(element);
        }
    }

    fn push_behind(&mut self, element: T) {
        if self.rest.back().is_none_or(|chunk| chunk.len() >= Queue::<T>::CHUNK) {
            let mut chunk = std::mem::take(&mut self.spare);
            chunk.reserve_exact(Queue::<T>::CHUNK);
            self.rest.push_back(chunk);
        }
        if let Some(chunk) = self.rest.back_mut() {
            chunk.push_back(element);
        }
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let element = self.front.pop_front()?;
        self.len -= 1;
        if self.front.is_empty() && !self.rest.is_empty() {
            self.next_chunk();
        }
        Some(element)
    }

    fn next_chunk(&mut self) {
        let Some(chunk) = self.rest.pop_front() else { return };
        self.spare = std::mem::replace(&mut self.front, chunk);
        self.next_to_tidy = self.next_to_tidy.saturating_sub(1);
        if self.rest.is_empty() {
            (self.rest, self.spare) = (VecDeque::new(), VecDeque::new());
        }
    }

    /// Removes from one chunk the elements that `keep` rejects. Repeated calls visit all chunks in turn.
    pub(crate) fn tidy(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let at = self.next_to_tidy;
        let Some(chunk) = (if at == 0 { Some(&mut self.front) } else { self.rest.get_mut(at - 1) }) else {
            self.next_to_tidy = 0;
            return;
        };
        self.len -= chunk.len();
        chunk.retain(|element| keep(element));
        self.len += chunk.len();
        if at == 0 {
            self.next_to_tidy = 1;
            if self.front.is_empty() {
                self.next_chunk();
            }
            return;
        }
        // Merge the rest into the chunk before, if it fits.
        let left = chunk.len();
        let before = if at == 1 { &mut self.front } else { &mut self.rest[at - 2] };
        if before.len() + left <= Queue::<T>::CHUNK {
            let mut chunk = self.rest.remove(at - 1).unwrap_or_default();
            let before = if at == 1 { &mut self.front } else { &mut self.rest[at - 2] };
            before.append(&mut chunk);
        } else {
            self.next_to_tidy = at + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Words = Queue<u64>;

    #[test]
    fn it_gives_memory_back_when_it_drains() {
        let mut queue = Words::default();
        (0..100_000).for_each(|n| queue.push_back(n));
        while queue.pop_front().is_some() {}
        let room = queue.front.capacity() + queue.spare.capacity();
        assert!(room <= 2 * Words::CHUNK && queue.rest.capacity() == 0, "{room}");
    }

    #[test]
    fn at_the_edge_of_a_chunk_a_chunk_is_kept() {
        let mut queue = Words::default();
        (0..3 * Words::CHUNK as u64).for_each(|n| queue.push_back(n));
        (0..Words::CHUNK + 1).for_each(|_| _ = queue.pop_front());
        assert!(queue.spare.capacity() >= Words::CHUNK, "the next chunk needs no allocation");
    }

    proptest! {
        #[test]
        fn behaves_as_one_long_queue_would(
            steps in proptest::collection::vec((0u8..4, 0u64..2000), 0..60),
        ) {
            let (mut queue, mut oracle) = (Words::default(), VecDeque::new());
            let mut pushed = 0;
            for (what, count) in steps {
                match what {
                    0 | 1 => for _ in 0..count {
                        queue.push_back(pushed);
                        oracle.push_back(pushed);
                        pushed += 1;
                    },
                    2 => for _ in 0..count {
                        prop_assert_eq!(queue.pop_front(), oracle.pop_front());
                    },
                    _ => {
                        let stays = |n: &u64| n % 3 == count % 3;
                        // One full turn: each chunk is visited, some of them twice.
                        (0..=2 * queue.rest.len() + 2).for_each(|_| queue.tidy(stays));
                        oracle.retain(stays);
                    }
                }
                let places = [0, oracle.len() / 2, oracle.len().saturating_sub(1), oracle.len()];
                prop_assert!(places.iter().all(|place| queue.get_mut(*place) == oracle.get_mut(*place)));
                prop_assert_eq!((queue.len(), queue.is_empty()), (oracle.len(), oracle.is_empty()));
                prop_assert!(queue.front.iter().chain(queue.rest.iter().flatten()).eq(oracle.iter()));
                let full = queue.rest.len() * Words::CHUNK;
                prop_assert!(full <= 2 * (oracle.len() + Words::CHUNK), "{} elements in {full}", oracle.len());
            }
        }
    }
}

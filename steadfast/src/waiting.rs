//! The tasks that wait for sockets, and a map from sockets to them, whose memory follows the number of sockets.

use std::sync::{Mutex, PoisonError};
use std::task::Waker;

use slotmap::Key;
use steadfast_core::SocketId;
use tokio::sync::Notify;

/// The tasks that wait for a connection of a listener.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Tasks in `accept`.
    pub(crate) tasks: Notify,
    /// The task that last polled `poll_accept`.
    polled: Mutex<Option<Waker>>,
}

impl Arrivals {
    /// Registers the task that polls. A caller then looks for a connection once more.
    pub(crate) fn register(&self, waker: &Waker) {
        // Cloned, and the old one dropped, with the lock released: both run foreign code.
        let clone = waker.clone();
        let stale = self.slot().replace(clone);
        drop(stale);
    }

    /// Wakes all tasks. They run foreign code, so no lock may be held.
    pub(crate) fn notify(&self) {
        let polled = self.slot().take();
        self.tasks.notify_waiters();
        polled.into_iter().for_each(Waker::wake);
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.polled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tasks that wait until a stream is ready. There may be many, unlike those that poll a read or a write.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    pub(crate) reads: Notify,
    pub(crate) writes: Notify,
}

/// Sockets in a page.
const PAGE: usize = 64;

/// The handle of a socket names a row of the stack, and rows are reused. A page that has lost all its sockets is freed,
/// except the last one that did so: a socket that comes and goes does not allocate.
pub(crate) struct SocketMap<T> {
    pages: Vec<Page<T>>,
    /// The page that lost its last socket most recently.
    emptied: usize,
}

/// The slots of a page, or none if it is freed.
struct Page<T> {
    slots: Vec<Option<(SocketId, T)>>,
    used: usize,
}

impl<T> SocketMap<T> {
    pub(crate) fn new() -> SocketMap<T> {
        SocketMap { pages: Vec::new(), emptied: 0 }
    }

    /// Adds a socket. It takes the place of an earlier one in its row.
    pub(crate) fn insert(&mut self, id: SocketId, value: T) {
        let (page, slot) = place(id);
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || Page { slots: Vec::new(), used: 0 });
        }
        let page = &mut self.pages[page];
        if page.slots.is_empty() {
            page.slots.resize_with(PAGE, || None);
        }
        page.used += usize::from(page.slots[slot].is_none());
        page.slots[slot] = Some((id, value));
    }

    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut T> {
        let (page, slot) = place(id);
        match self.pages.get_mut(page)?.slots.get_mut(slot)? {
            Some((there, value)) if *there == id => Some(value),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, id: SocketId) -> Option<T> {
        let (number, slot) = place(id);
        let page = self.pages.get_mut(number)?;
        let (_, value) = page.slots.get_mut(slot)?.take_if(|(there, _)| *there == id)?;
        page.used -= 1;
        if page.used == 0 {
            let before = std::mem::replace(&mut self.emptied, number);
            if before != number
                && let Some(page) = self.pages.get_mut(before).filter(|page| page.used == 0)
            {
                page.slots = Vec::new();
            }
        }
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SocketId, &T)> {
        self.pages.iter().flat_map(|page| &page.slots).flatten().map(|(id, value)| (*id, value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = SocketId> {
        self.iter().map(|(id, _)| id)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages.iter_mut().flat_map(|page| &mut page.slots).flatten().map(|(_, value)| value)
    }
}

/// Returns the page and the slot of a socket.
fn place(id: SocketId) -> (usize, usize) {
    // The lower half of a handle is the number of its row.
    let row = id.data().as_ffi() as u32 as usize;
    (row / PAGE, row % PAGE)
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn a_socket_is_found_until_it_is_removed_and_its_successor_is_another() {
        let (mut ids, mut map) = (SlotMap::<SocketId, ()>::with_key(), SocketMap::new());
        let old = ids.insert(());
        map.insert(old, 1);
        assert_eq!(map.get_mut(old), Some(&mut 1));
        ids.remove(old);
        let new = ids.insert(());
        assert_eq!(place(old), place(new));
        assert!(map.get_mut(new).is_none() && map.remove(new).is_none());
        map.insert(new, 2);
        assert!(map.get_mut(old).is_none() && map.remove(old).is_none());
        assert!(map.iter().eq([(new, &2)]) && map.keys().eq([new]));
        map.values_mut().for_each(|value| *value = 3);
        assert_eq!((map.remove(new), map.remove(new)), (Some(3), None));
        assert_eq!(map.get_mut(SocketId::default()), None);
    }

    #[test]
    fn sockets_that_are_gone_take_no_memory_but_for_one_page() {
        let (mut ids, mut map) = (SlotMap::<SocketId, ()>::with_key(), SocketMap::new());
        let all: Vec<_> = (0..10_000).map(|_| ids.insert(())).collect();
        all.iter().for_each(|id| map.insert(*id, [0; 10]));
        assert_eq!(map.keys().count(), 10_000);
        all.iter().for_each(|id| assert!(map.remove(*id).is_some()));
        let slots: usize = map.pages.iter().map(|page| page.slots.capacity()).sum();
        assert_eq!((map.keys().count(), slots), (0, PAGE));
    }
}

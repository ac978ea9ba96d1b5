//! The sockets of the application, by handles that are never reused.

use std::net::SocketAddr;
use std::sync::Arc;

use slotmap::{Key, KeyData};

use super::Stack;
use crate::buffer::Rope;
use crate::error::Error;
use crate::info::Info;
use crate::socket::{Event, IcmpReport, SocketId, SocketOptions};
use crate::table::Table;
use crate::tuple::mapped;

/// The application's side of a connection.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    pub(super) kind: SocketKind,
    /// Distinguishes the socket from earlier ones in its row. Odd, like the version in a handle.
    generation: u32,
    /// Changes not polled yet.
    pub(super) events: Event,
    pub(super) place: Place,
    /// The socket reports IPv4 ends as IPv4-mapped addresses, since its listener is IPv6.
    pub(super) mapped: bool,
    /// The socket is in the queue of those that wait for memory.
    pub(super) refused: bool,
}

/// Who has the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// Nobody yet: it waits to be accepted.
    AcceptQueue,
    /// The application.
    Held,
    /// The application, which will find it in the event queue.
    EventQueue,
}

#[derive(Clone, Debug)]
pub(super) enum SocketKind {
    Listener(u32),
    Opening(u32),
    Connection(u32),
    Finished(u32),
    Udp(u32),
    /// A forwarder of UDP or of echo requests: a row among the UDP sockets.
    Datagrams(u32),
    Forwarder(u32),
    Request(u32),
}

#[cfg(feature = "model")]
impl SocketKind {
    /// Whether it is a listener, or a connection of an application.
    pub(super) fn is_of_tcp(&self) -> bool {
        use SocketKind::{Connection, Finished, Listener, Opening};
        matches!(self, Listener(_) | Opening(_) | Connection(_) | Finished(_))
    }
}

/// The rest of a finished connection while the application holds its socket.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    /// Unread bytes.
    pub(super) receive_queue: Rope,
    /// Why the connection ended; taken when reported.
    pub(super) error: Option<Error>,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) options: Arc<SocketOptions>,
    /// The connection as it was at its end; none for a connect that failed.
    pub(super) info: Option<Box<Info>>,
    /// The message that ended a handshake; taken when reported.
    pub(super) icmp: Option<Box<IcmpReport>>,
}

/// Returns an IPv4 end as the IPv4-mapped address that a dual-stack socket shows.
pub(super) fn as_mapped(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(mapped(&end.ip()).into(), end.port())
}

impl Finished {
    /// Returns the error that ended the connection, once. `NetworkDown` persists.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        match self.error {
            Some(Error::NetworkDown) => self.error,
            _ => self.error.take(),
        }
    }
}

const _: () = assert!(Table::<Socket>::ROW <= 16);

/// All sockets. A handle names a row and the generation of its socket. The generation is counted for the whole stack,
/// so it survives pages that the table frees.
#[derive(Clone, Debug)]
pub(super) struct Sockets {
    rows: Table<Socket>,
    next_generation: u32,
}

impl Default for Sockets {
    fn default() -> Sockets {
        Sockets { rows: Table::default(), next_generation: 1 }
    }
}

impl Sockets {
    /// Adds a socket that the application gets at once.
    pub(super) fn open(&mut self, kind: SocketKind) -> SocketId {
        self.insert(kind, Place::Held, false)
    }

    /// Adds a socket that waits in an accept queue.
    pub(super) fn queue(&mut self, kind: SocketKind, mapped: bool) -> SocketId {
        self.insert(kind, Place::AcceptQueue, mapped)
    }

    fn insert(&mut self, kind: SocketKind, place: Place, mapped: bool) -> SocketId {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(2);
        let events = Event::default();
        let make = || Socket { kind, generation, events, place, mapped, refused: false };
        let index = self.rows.insert_with(make);
        id(index, generation)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn contains(&self, id: SocketId) -> bool {
        self.get(id).is_some()
    }

    #[inline]
    pub(super) fn get(&self, id: SocketId) -> Option<&Socket> {
        let (index, generation) = parts(id);
        self.rows.get(index).filter(|socket| socket.generation == generation)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        let (index, generation) = parts(id);
        self.rows.get_mut(index).filter(|socket| socket.generation == generation)
    }

    pub(super) fn remove(&mut self, id: SocketId) -> Option<Socket> {
        self.contains(id).then(|| self.rows.remove(parts(id).0))
    }

    /// Iterates over all sockets in the order of their rows.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketId, &Socket)> {
        self.rows.iter().map(|(index, socket)| (id(index, socket.generation), socket))
    }
}

impl std::ops::Index<SocketId> for Sockets {
    type Output = Socket;

    fn index(&self, id: SocketId) -> &Socket {
        self.get(id).expect("the socket is there")
    }
}

impl std::ops::IndexMut<SocketId> for Sockets {
    fn index_mut(&mut self, id: SocketId) -> &mut Socket {
        self.get_mut(id).expect("the socket is there")
    }
}

impl Stack {
    /// Queues events for the application that holds the socket. An orphan has none.
    #[inline]
    pub(super) fn notify(&mut self, id: impl Into<Option<SocketId>>, events: Event) {
        let Some(id) = id.into() else { return };
        if let Some(socket) = self.sockets.get_mut(id) {
            socket.events |= events;
            if socket.place == Place::Held {
                socket.place = Place::EventQueue;
                self.queue_event(id);
            }
        }
    }

    /// Sockets that are gone leave entries behind, which must not accumulate while nobody polls.
    #[inline(never)]
    pub(super) fn queue_event(&mut self, id: SocketId) {
        if self.events.len() > 2 * self.sockets.len() + 64 {
            let sockets = &self.sockets;
            self.events.tidy(|id| sockets.contains(*id));
        }
        self.events.push_back(id);
    }
}

#[inline]
fn id(index: u32, generation: u32) -> SocketId {
    KeyData::from_ffi(u64::from(generation) << 32 | u64::from(index)).into()
}

#[inline]
fn parts(id: SocketId) -> (u32, u32) {
    let key = id.data().as_ffi();
    (key as u32, (key >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_handle_is_not_reused_though_its_page_was_given_back() {
        let mut sockets = Sockets::default();
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let ids: Vec<_> = (0..10_000).map(|n| sockets.open(SocketKind::Listener(n))).collect();
            assert!(ids.iter().all(|id| seen.insert(*id)), "a handle was given twice");
            ids.iter().for_each(|id| assert!(sockets.remove(*id).is_some() && sockets.remove(*id).is_none()));
            assert_eq!(sockets.len(), 0);
        }
        let new = sockets.open(SocketKind::Listener(0));
        assert!(seen.iter().all(|old| sockets.get(*old).is_none()));
        assert!(sockets.contains(new) && !sockets.contains(SocketId::default()));
    }

    #[test]
    fn sockets_that_are_gone_take_no_memory() {
        let info = allocation_counter::measure(|| {
            let mut sockets = Sockets::default();
            let ids: Vec<_> = (0..100_000).map(|n| sockets.open(SocketKind::Listener(n))).collect();
            ids.into_iter().for_each(|id| _ = sockets.remove(id));
            std::mem::forget(sockets);
        });
        // The list of pages, and the one page that an empty table keeps.
        assert!(info.bytes_current < 160 << 10, "{} bytes are held", info.bytes_current);
    }
}

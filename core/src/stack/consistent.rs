//! Consistency checks of the running sums of a stack.

use super::{SocketKind, Stack};
use crate::memory::Group;

impl Stack {
    /// Recomputes the sums and flags that the stack maintains, and returns the first difference. For tests, fuzz
    /// targets and the lab: it visits every row of every table.
    pub fn check_consistent(&self) -> Result<(), String> {
        self.check_held()?;
        self.check_flows()?;
        self.check_lists()
    }

    fn check_held(&self) -> Result<(), String> {
        let mut held = 0;
        for (index, connection) in self.connections.iter() {
            for queue in [&connection.send_queue, &connection.receive_queue] {
                equal(
                    &format!("bytes held by a queue of connection {index}"),
                    queue.held(),
                    queue.recount(),
                )?;
            }
            held += connection.held();
        }
        for (_, opening) in self.openings.iter() {
            equal("bytes held by an opening", opening.send_queue.held(), opening.send_queue.recount())?;
            held += opening.send_queue.held() as u64;
        }
        for (_, socket) in self.sockets.iter() {
            if let SocketKind::Finished(finished) = &socket.kind {
                let queue = &finished.receive_queue;
                equal("bytes held by a finished socket", queue.held(), queue.recount())?;
                held += queue.held() as u64;
            }
        }
        equal("bytes held", self.held, held)
    }

    fn check_flows(&self) -> Result<(), String> {
        let orphans = self.connections.iter().filter(|(_, connection)| connection.is_orphan()).count();
        equal("orphans", self.orphans, orphans + self.dormant.len())?;
        // A TIME-WAIT entry that was replaced by a half-open connection has no flow of its own.
        let time_waits = self.time_waits.len() - self.gave_way.len();
        let rows = self.half_open.len()
            + self.openings.len()
            + self.connections.len()
            + self.dormant.len()
            + time_waits;
        equal("flows", self.flows.len(), rows)?;
        equal("flows by their ends", self.ports.flows(), rows)?;
        for (id, socket) in self.sockets.iter() {
            let owner = match socket.kind {
                SocketKind::Connection(index) => self.connections.get(index).map(|row| row.socket),
                SocketKind::Opening(index) => self.openings.get(index).map(|row| row.socket),
                SocketKind::Listener(index) => self.listeners.get(index).map(|row| row.socket),
                SocketKind::Finished(_) => Some(id),
            };
            equal("the owner of a socket's row", owner, Some(id))?;
        }
        Ok(())
    }

    /// Checks the lists of connections that hold memory.
    fn check_lists(&self) -> Result<(), String> {
        let mut lens = [0; 4];
        for (index, connection) in self.connections.iter() {
            let [gaps, orphans, unproven, proven] = &mut lens;
            *gaps += usize::from(connection.has_gap);
            match connection.listed.group {
                Group::Nowhere => {}
                Group::Orphans => *orphans += 1,
                Group::Unproven => *unproven += 1,
                Group::Proven => *proven += 1,
            }
            let wrong = connection.has_gap != connection.reassembly.is_some()
                || (connection.listed.group == Group::Orphans)
                    != (connection.is_orphan() && !connection.send_queue.is_empty())
                || (connection.listed.group != Group::Nowhere && connection.send_queue.is_empty());
            equal(&format!("the place of connection {index} on a list"), wrong, false)?;
        }
        equal("connections on lists", self.ladder.lens(), lens)
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, kept: T, counted: T) -> Result<(), String> {
    if kept == counted { Ok(()) } else { Err(format!("{what}: {kept:?} kept, {counted:?} counted")) }
}

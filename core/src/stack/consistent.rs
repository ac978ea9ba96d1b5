//! Consistency checks of the running sums of a stack.

use std::collections::BTreeMap;

use super::{Socket, SocketKind, Stack};
use crate::memory::Group;
use crate::tcp::tcb::Origin;
use crate::timer::TimerId;
use crate::trace::State;

impl Stack {
    /// Recomputes the sums and flags that the stack maintains, and returns the first difference. For tests, fuzz
    /// targets and the lab: it visits every row of every table.
    pub fn check_consistent(&self) -> Result<(), String> {
        self.check_held()?;
        self.check_flows()?;
        self.check_lists()?;
        self.check_turns()?;
        self.check_timers()?;
        self.check_listeners()?;
        self.check_sockets()
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

    /// Every connection with a pending segment is in line, and the line has no vacant row. Data that waits for a window
    /// need not be in line.
    fn check_turns(&self) -> Result<(), String> {
        let line: Vec<_> = self.ready.walk(&self.connections).collect();
        let waiting = self.connections.iter().filter(|(_, connection)| connection.place.is_taken());
        equal("connections in line", line.len(), waiting.count())?;
        for (index, connection) in self.connections.iter() {
            let sends = connection.has_pending_segment();
            equal(&format!("the turn of connection {index}"), sends && !connection.place.is_taken(), false)?;
        }
        for index in line {
            let stands = self.connections.get(index).is_some_and(|row| row.place.is_taken());
            equal(&format!("row {index} in line"), stands, true)?;
        }
        equal("bytes of answers", self.replies.held(), self.replies.recount())
    }

    /// Every timer belongs to a row and fires no later than the row's first deadline.
    fn check_timers(&self) -> Result<(), String> {
        let connections = self.connections.iter().map(|(_, connection)| connection.armed.node);
        let half_open = self.half_open.iter().map(|(_, entry)| entry.timer);
        let openings = self.openings.iter().map(|(_, opening)| opening.timer);
        let dormant = self.dormant.iter().map(|(_, dormant)| dormant.timer);
        let timers = connections.chain(half_open).chain(openings).chain(dormant);
        let armed = timers.filter(|timer| *timer != TimerId::NONE).count();
        equal("timers", self.wheel.len(), armed)?;
        for (index, connection) in self.connections.iter() {
            let late = connection.tcb.timers.want_arming(&connection.armed);
            equal(&format!("a late timer of connection {index}"), late, false)?;
        }
        Ok(())
    }

    /// The counts of a listener match its rows.
    fn check_listeners(&self) -> Result<(), String> {
        let mut half_open = BTreeMap::new();
        for (_, entry) in self.half_open.iter() {
            *half_open.entry(entry.listener).or_insert(0) += 1;
        }
        let mut pending = BTreeMap::new();
        for (_, connection) in self.connections.iter() {
            let tcb = &connection.tcb;
            if tcb.origin == Origin::FastOpen && tcb.state == State::SynReceived {
                *pending.entry(connection.listener).or_insert(0) += 1;
            }
        }
        let mut waiting = 0;
        for (index, listener) in self.listeners.iter() {
            waiting += listener.accept_queue.len();
            let of_it = half_open.remove(&index).unwrap_or(0);
            equal(&format!("half-open entries of listener {index}"), listener.half_open, of_it)?;
            let of_it = pending.remove(&listener.socket).unwrap_or(0);
            let told = if listener.closing { of_it } else { listener.fast_open_pending.waiting() };
            equal(&format!("Fast Open connections of listener {index}"), told, of_it)?;
        }
        equal("half-open entries of no listener", half_open.len(), 0)?;
        let not_accepted = self.sockets.iter().filter(|(_, socket)| !socket.accepted).count();
        equal("sockets in accept queues", waiting, not_accepted)
    }

    /// A socket is in the queues that its flags name, once each.
    fn check_sockets(&self) -> Result<(), String> {
        for (what, queue, flag) in [
            (
                "events",
                self.events.iter().collect::<Vec<_>>(),
                (|socket| socket.queued) as fn(&Socket) -> bool,
            ),
            ("refused writes", self.refused().collect(), |socket| socket.refused),
        ] {
            let mut queued = queue.into_iter().filter(|id| self.sockets.contains(**id)).collect::<Vec<_>>();
            queued.sort_unstable();
            let mut flagged: Vec<_> =
                self.sockets.iter().filter(|(_, socket)| flag(socket)).map(|(id, _)| id).collect();
            flagged.sort_unstable();
            let same = queued.into_iter().eq(&flagged);
            equal(&format!("sockets in the queue of {what}"), same, true)?;
        }
        Ok(())
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, kept: T, counted: T) -> Result<(), String> {
    if kept == counted { Ok(()) } else { Err(format!("{what}: {kept:?} kept, {counted:?} counted")) }
}

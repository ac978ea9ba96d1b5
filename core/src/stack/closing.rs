//! How sockets end: CLOSE and ABORT of one, of all, and of a listener with its clients.

use super::Stack;
use super::sockets::{Socket, SocketKind};
use super::tables::FULL_ORPHANS;
use crate::error::Error;
use crate::flow::FlowRef;
use crate::forward::Reject;
use crate::socket::{Event, Shutdown, SocketId, Spare};
use crate::state::State;
use crate::tcp::input::{Closed, Outcome};
use crate::tcp::listen::Listener;
use crate::tcp::tcb::{Connection, Env};
use crate::time::Instant;

impl Stack {
    /// Ends one direction or both; the socket stays.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](Error::NotConnected), the connection is not there yet or no more;
    /// [`NetworkDown`](Error::NetworkDown), [`abort_all`](Stack::abort_all) ended it;
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn shutdown(&mut self, now: Instant, id: SocketId, how: Shutdown) -> Result<(), Error> {
        self.set_now(now);
        let index = match &self.socket(id)?.kind {
            SocketKind::Connection(index) => *index,
            SocketKind::Finished(index) if self.finished[*index].error == Some(Error::NetworkDown) => {
                return Err(Error::NetworkDown);
            }
            _ => return Err(Error::NotConnected),
        };
        self.with_connection(index, |connection, env| {
            if how != Shutdown::Read {
                connection.shutdown_write(env);
            }
            if how != Shutdown::Write {
                connection.shutdown_read(env);
                connection.signal(Event::READABLE);
            }
        });
        Ok(())
    }

    /// CLOSE: releases the handle. Queued data is still delivered, by an orphan if need be. With unread data, or with
    /// `linger` zero, the peer gets a RST instead. Closing a listener resets the connections that nobody accepted. A
    /// request of a forwarder is refused.
    ///
    /// # Errors
    ///
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed before.
    pub fn close(&mut self, now: Instant, id: SocketId) -> Result<(), Error> {
        self.set_now(now);
        self.socket(id)?;
        let orphans_full = self.orphans >= self.config.tcp_max_orphans as usize;
        self.give_back(id, |connection, env| connection.close(orphans_full, env));
        Ok(())
    }

    /// ABORT: releases the handle and resets the connection.
    ///
    /// # Errors
    ///
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn abort(&mut self, now: Instant, id: SocketId) -> Result<(), Error> {
        self.set_now(now);
        self.socket(id)?;
        self.give_back(id, |connection, _| connection.abort());
        Ok(())
    }

    /// Takes the stack down: resets all connections except those that `spare` selects, and drops those that are not
    /// established. Sockets stay until they are closed. Data received earlier can be read; after that, calls return
    /// [`NetworkDown`](Error::NetworkDown). Listeners stay as they are.
    ///
    /// Each call does a bounded amount of work, because the resets wait in the queue of replies. Returns `false` if
    /// some are left: call [`transmit`](Stack::transmit), then call this again.
    pub fn abort_all(&mut self, now: Instant, spare: Spare) -> bool {
        /// Connections that one call resets.
        const STEP: usize = 64;
        self.set_now(now);
        let room = (self.config.reply_queue as usize).saturating_sub(self.replies.len());
        let most = room.clamp(1, STEP);
        let spared = |connection: &Connection| match spare {
            Spare::Nothing => false,
            Spare::Delivered => connection.is_settled(),
            Spare::Sent => connection.is_spent(),
        };
        let half_open = self.half_open.iter().map(|(index, _)| FlowRef::HalfOpen(index));
        let openings = self.openings.iter().map(|(index, _)| FlowRef::Opening(index));
        let connections = self.connections.iter().filter(|(_, connection)| !spared(connection));
        let connections = connections.map(|(index, _)| FlowRef::Connection(index));
        let dormant = self.dormant.iter().filter(|_| spare == Spare::Nothing);
        let dormant = dormant.map(|(index, _)| FlowRef::Dormant(index));
        let requests = self.forwards.requests.iter().map(|(index, _)| FlowRef::Pending(index));
        let all = half_open.chain(requests).chain(openings).chain(connections).chain(dormant);
        let doomed: Vec<FlowRef> = all.take(most).collect();
        doomed.iter().for_each(|flow| self.end_flow(*flow));
        doomed.len() < most
    }

    /// Ends a connection of any kind. Its socket returns [`NetworkDown`](Error::NetworkDown).
    pub(super) fn end_flow(&mut self, flow: FlowRef) {
        match flow {
            FlowRef::HalfOpen(index) => self.forget_half_open(index),
            FlowRef::Pending(index) => self.end_request(index, Error::NetworkDown),
            FlowRef::Opening(index) => self.fail_opening(index, Error::NetworkDown),
            FlowRef::Connection(index) => self.abort_connection(index),
            FlowRef::Dormant(index) => {
                let index = self.wake(index);
                self.abort_connection(index);
            }
            FlowRef::TimeWait(_) => {}
        }
    }

    fn abort_connection(&mut self, index: u32) {
        let outcome = match self.with_connection(index, |connection, _| connection.abort()) {
            Outcome::Closed(closed) => Outcome::Closed(Closed { error: Some(Error::NetworkDown), ..closed }),
            outcome => outcome,
        };
        self.apply(index, outcome, None);
    }

    /// Whether no handshake is in progress and every connection is settled: no application holds it, and its peer has
    /// acknowledged everything including the FIN.
    pub fn is_settled(&mut self) -> bool {
        if self.half_open.len() + self.openings.len() > 0 || self.connections.len() > self.orphans {
            return false;
        }
        // The connection that was not settled before is checked first, because it usually still is not.
        let unsettled = |(index, connection): (u32, &Connection)| (!connection.is_settled()).then_some(index);
        let before = self.connections.get(self.unsettled).map(|connection| (self.unsettled, connection));
        let found = before.and_then(unsettled).or_else(|| self.connections.iter().find_map(unsettled));
        self.unsettled = found.unwrap_or(0);
        found.is_none()
    }

    pub(super) fn give_back(
        &mut self,
        id: SocketId,
        end: impl FnOnce(&mut Connection, &mut Env<'_>) -> Outcome,
    ) {
        let Some(socket) = self.sockets.get(id) else { return };
        match socket.kind {
            SocketKind::Listener(index) => self.close_listener(id, index),
            SocketKind::Opening(index) => {
                // Nothing is sent; later segments are answered from CLOSED (SA-SYN_SENT-22, -23).
                let opening = self.remove_opening(index);
                self.note_state(&opening.tuple, State::SynSent, State::Closed);
                self.sockets.remove(id);
            }
            SocketKind::Connection(index) => {
                let outcome = self.with_connection(index, end);
                if self.connections[index].is_orphan() {
                    self.orphans += 1;
                }
                self.apply(index, outcome, None);
                self.forget_socket(id);
                if self.orphans > FULL_ORPHANS {
                    self.lay_down(index);
                }
            }
            SocketKind::Finished(_) => self.forget_socket(id),
            SocketKind::Forwarder(index) => self.close_forwarder(index),
            SocketKind::Request(index) => self.refuse_request(index, Reject::Reset),
            SocketKind::Udp(index) | SocketKind::Datagrams(index) => {
                self.close_udp(index);
                self.sockets.remove(id);
            }
        }
    }

    fn forget_socket(&mut self, id: SocketId) {
        if let Some(Socket { kind: SocketKind::Finished(index), .. }) = self.sockets.remove(id) {
            self.memory.remove(&self.finished.remove(index).receive_queue);
        }
    }

    /// SA-LISTEN-15: removes half-open entries silently and resets connections that nobody accepted. Many of them are
    /// removed in steps.
    fn close_listener(&mut self, id: SocketId, index: u32) {
        let listener = &mut self.listeners[index];
        listener.closing = true;
        self.bindings.remove(listener.local, Some(index));
        self.sockets.remove(id);
        self.closing.push((index, 0));
        self.close_some();
    }

    /// Does one step of cleaning up after closed listeners.
    pub(super) fn close_some(&mut self) {
        /// Connections, half-open entries, and rows of those that are looked at.
        const MOST: [usize; 3] = [16, 32, 4096];
        let Some((index, mut from)) = self.closing.pop() else { return };
        for _ in 0..MOST[0] {
            let Some((child, _)) = self.listeners[index].accept_queue.pop_front() else { break };
            self.give_back(child, |connection, _| connection.abort());
        }
        let (mut forgotten, mut looked_at) = (0, 0);
        while self.listeners[index].half_open > 0 && forgotten < MOST[1] && looked_at < MOST[2] {
            if self.half_open.get(from).is_some_and(|entry| entry.listener == index) {
                self.forget_half_open(from);
                forgotten += 1;
            }
            looked_at += 1;
            from = if from + 1 < self.half_open.bound() { from + 1 } else { 0 };
        }
        let Listener { half_open, ref accept_queue, .. } = self.listeners[index];
        if half_open > 0 || !accept_queue.is_empty() {
            self.closing.push((index, from));
        } else {
            self.listeners.remove(index);
        }
    }
}

//! The readiness of sockets, as `poll(2)` tells it.

use super::Stack;
use super::sockets::SocketKind;
use crate::error::Error;
use crate::socket::{Readiness, SocketId};
use crate::state::State;

impl Stack {
    /// Returns which calls of a socket would succeed or fail at once, instead of returning
    /// [`WouldBlock`](Error::WouldBlock). Memory pressure may still refuse a write. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn readiness(&self, id: SocketId) -> Result<Readiness, Error> {
        Ok(match &self.socket(id)?.kind {
            SocketKind::Listener(index) => {
                let readable = !self.listeners[*index].accept_queue.is_empty();
                Readiness { readable, ..Readiness::default() }
            }
            SocketKind::Opening(index) => {
                let opening = &self.openings[*index];
                let writable = opening.send_queue.len() < opening.options.sndbuf as usize;
                Readiness { writable, ..Readiness::default() }
            }
            SocketKind::Connection(index) => {
                let connection = &self.connections[*index];
                let synchronized = connection.tcb.state != State::SynReceived;
                // Reads are over although data is still queued (`tcp_shut_rd_keeps`). DRILL-X20
                let reads_ended = connection.rare.as_ref().is_some_and(|rare| rare.read_shut);
                let read_closed =
                    synchronized && !connection.may_receive() || connection.tcb.rcv.shut || reads_ended;
                let fin_queued = connection.tcb.snd.fin_queued;
                Readiness {
                    readable: !connection.receive_queue.is_empty() || read_closed && synchronized,
                    writable: fin_queued || connection.room_to_write() > 0,
                    read_closed,
                    write_closed: read_closed && fin_queued,
                    error: false,
                    urgent: connection.urgent_ahead() > 0,
                }
            }
            SocketKind::Forwarder(index) => {
                let queue = &self.forwards.forwarders[*index].queue;
                let readable = queue.iter().any(|id| self.sockets.contains(*id));
                Readiness { readable, ..Readiness::default() }
            }
            SocketKind::Request(_) => Readiness::default(),
            SocketKind::Udp(index) | SocketKind::Datagrams(index) => {
                let socket = &self.udp.sockets[*index];
                let (received, waiting) = (&socket.received, &socket.waiting);
                let error = socket.error.is_some();
                let room = waiting.held() < socket.options.sndbuf as usize
                    && waiting.len() < socket.most_waiting(&self.config);
                Readiness {
                    readable: error || !received.is_empty(),
                    writable: error || waiting.is_empty() || room,
                    error,
                    ..Readiness::default()
                }
            }
            SocketKind::Finished(index) => Readiness {
                readable: true,
                writable: true,
                read_closed: true,
                write_closed: true,
                error: self.finished[*index].error.is_some(),
                urgent: false,
            },
        })
    }
}

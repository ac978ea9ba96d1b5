//! Options of sockets.

use super::Stack;
use super::sockets::SocketKind;
use crate::error::Error;
use crate::socket::{SocketId, SocketOptions};
use crate::time::Instant;

impl Stack {
    /// Sets the options of a socket. The receive buffer keeps the size given to `listen` or `connect`: the SYN or
    /// SYN-ACK has advertised its window and scale (tcp(7) says the same). The choice of congestion control takes
    /// effect only before the connection is made.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), a request, or a socket or forwarder of datagrams;
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn set_options(&mut self, now: Instant, id: SocketId, options: SocketOptions) -> Result<(), Error> {
        self.set_now(now);
        let &SocketOptions { rcvbuf, rcvbuf_max, .. } = self.options(id)?;
        let options = self.shared_options(Some(SocketOptions { rcvbuf, rcvbuf_max, ..options }));
        match &mut self.sockets.get_mut(id).ok_or(Error::NoSuchSocket)?.kind {
            SocketKind::Listener(index) => self.listeners[*index].options = options,
            SocketKind::Opening(index) => {
                let index = *index;
                self.openings[index].options = options;
                self.rearm_opening(index);
            }
            SocketKind::Finished(index) => self.finished[*index].options = options,
            SocketKind::Udp(_)
            | SocketKind::Datagrams(_)
            | SocketKind::Forwarder(_)
            | SocketKind::Request(_) => {
                return Err(Error::InvalidArgument);
            }
            SocketKind::Connection(index) => {
                let index = *index;
                self.with_connection(index, |connection, env| connection.set_options(options, env));
            }
        }
        Ok(())
    }

    /// Returns whether the ACK of the next segment is not delayed (`TCP_QUICKACK`).
    ///
    /// # Errors
    ///
    /// [`NotConnected`](Error::NotConnected), no connection is there; [`NoSuchSocket`](Error::NoSuchSocket), a handle
    /// that was closed.
    pub fn quickack(&self, id: SocketId) -> Result<bool, Error> {
        match self.socket(id)?.kind {
            SocketKind::Connection(index) => Ok(self.connections[index].tcb.ack.quick > 0),
            _ => Err(Error::NotConnected),
        }
    }

    /// Acknowledges the next segments at once, and a delayed ACK now; or delays ACKs again (`TCP_QUICKACK`). As on Linux,
    /// this is not permanent: it holds for 16 segments.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](Error::NotConnected), no connection is there; [`NoSuchSocket`](Error::NoSuchSocket), a handle
    /// that was closed.
    pub fn set_quickack(&mut self, now: Instant, id: SocketId, quick: bool) -> Result<(), Error> {
        /// Linux's `TCP_MAX_QUICKACKS`.
        const SEGMENTS: u8 = 16;
        self.set_now(now);
        let SocketKind::Connection(index) = self.socket(id)?.kind else { return Err(Error::NotConnected) };
        self.with_connection(index, |connection, _| {
            let tcb = &mut connection.tcb;
            tcb.ack.quick = if quick { SEGMENTS } else { 0 };
            tcb.ack.now |= quick && tcb.timers.delayed_ack.is_some();
        });
        Ok(())
    }
}

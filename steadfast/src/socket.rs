//! The connection behind a stream and its halves.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use steadfast_core::info::Info;
use steadfast_core::{Bytes, Error, Shutdown, SocketId};
use tokio::io::ReadBuf;
use tokio::task::coop;

use crate::shared::{Handle, Side, State, into_io};

/// The connection that a stream or its halves share. Dropping the last reference closes it.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) handle: Arc<Handle>,
    pub(crate) id: SocketId,
}

impl Socket {
    pub(crate) fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, Side::Write, |state| {
            state.check_running()?;
            let wakers = state.wakers(self.id).expect("a socket that is held has its wakers");
            if wakers.connected {
                return Ok(Some(()));
            }
            if wakers.failed {
                let error = state.stack.take_error(self.id).unwrap_or_else(Some);
                return Err(state.error_of(error.unwrap_or(Error::ConnectionAborted)));
            }
            Ok(None)
        })
    }

    /// Runs `attempt` under the lock until it returns a value or an error. `None` registers the waker: the first time,
    /// that needs a clone made with the lock released, and another attempt.
    pub(crate) fn poll<R>(
        &self,
        cx: &Context<'_>,
        side: Side,
        mut attempt: impl FnMut(&mut State) -> io::Result<Option<R>>,
    ) -> Poll<io::Result<R>> {
        let mut waker = None;
        loop {
            let polled = self.handle.call_untimed(|state| match attempt(state) {
                Ok(Some(result)) => Some(Poll::Ready(Ok(result))),
                Ok(None) => state.wait(self.id, side, cx.waker(), &mut waker).then_some(Poll::Pending),
                Err(e) => Some(Poll::Ready(Err(e))),
            });
            match polled {
                Some(polled) => return polled,
                // Cloning a waker runs foreign code, which needs the lock released.
                None => waker = Some(Arc::new(cx.waker().clone())),
            }
        }
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let unfilled = buffer.initialize_unfilled();
        let len = ready!(self.poll_recv(cx, |state, id| state.stack.recv(id, unfilled)))?;
        buffer.advance(len);
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let unfilled = buffer.initialize_unfilled();
        let len = ready!(self.poll_recv(cx, |state, id| state.stack.peek(id, unfilled)))?;
        buffer.advance(len);
        Poll::Ready(Ok(len))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        mut recv: impl FnMut(&mut State, SocketId) -> Result<usize, Error>,
    ) -> Poll<io::Result<usize>> {
        self.poll_with_budget(cx, Side::Read, |state| state.receive(self.id, &mut recv))
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_with_budget(cx, Side::Write, |state| state.send(self.id, data))
    }

    /// Polls as a resource of Tokio does: a task that always succeeds yields at times.
    pub(crate) fn poll_with_budget<R>(
        &self,
        cx: &mut Context<'_>,
        side: Side,
        mut attempt: impl FnMut(&mut State) -> io::Result<Option<R>>,
    ) -> Poll<io::Result<R>> {
        let progress = ready!(coop::poll_proceed(cx));
        let polled = self.poll(cx, side, &mut attempt);
        if polled.is_ready() {
            progress.made_progress();
        }
        polled
    }

    /// Runs an attempt that does not wait.
    pub(crate) fn attempt<R>(
        &self,
        attempt: impl FnOnce(&mut State, SocketId) -> io::Result<Option<R>>,
    ) -> io::Result<R> {
        let done = self.handle.call_untimed(|state| attempt(state, self.id))?;
        done.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Shuts down writing. As in Tokio, a direction that is already closed is no error.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.handle.call(|state, now| {
            state.check_whole()?;
            match state.stack.shutdown(now, self.id, Shutdown::Write) {
                Ok(()) => state.check_running(),
                Err(Error::NotConnected) => Ok(()),
                Err(error) => Err(state.error_of(error)),
            }
        })
    }

    /// Like [`shutdown_write`](Socket::shutdown_write), for `Drop`.
    pub(crate) fn end(&self) {
        self.handle.call_last(|state, now| {
            // It fails if the connection is gone already.
            let _ = state.stack.shutdown(now, self.id, Shutdown::Write);
        });
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.handle.read(|state| state.stack.local_addr(self.id).map_err(into_io))
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.handle.read(|state| state.stack.peer_addr(self.id).map_err(into_io))
    }

    pub(crate) fn info(&self) -> io::Result<Info> {
        self.handle.call(|state, now| {
            state.check_whole()?;
            state.stack.info(now, self.id).map_err(into_io)
        })
    }
}

impl State {
    /// Receives with `recv`. Returns `None` if nothing has arrived.
    pub(crate) fn receive<R>(
        &mut self,
        id: SocketId,
        recv: impl FnOnce(&mut State, SocketId) -> Result<R, Error>,
    ) -> io::Result<Option<R>> {
        self.check_whole()?;
        match recv(self, id) {
            // Bytes that had arrived are read before the end of the network is reported.
            Err(Error::WouldBlock) => self.check_running().map(|()| None),
            Err(error) => Err(self.error_of(error)),
            Ok(received) => Ok(Some(received)),
        }
    }

    /// Queues the slices in order, up to the first that does not fit whole. Returns `None` if there is no room.
    pub(crate) fn send(&mut self, id: SocketId, data: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        self.check_running()?;
        let sent = send_all(self, id, data);
        self.of_sent(id, sent)
    }

    /// Queues bytes without a copy, in order, as far as there is room, and takes them out of `data`. Returns `None` if
    /// there is no room.
    pub(crate) fn send_bytes(
        &mut self,
        id: SocketId,
        data: &mut VecDeque<Bytes>,
    ) -> io::Result<Option<usize>> {
        self.check_running()?;
        let mut total = 0;
        while let Some(bytes) = data.front_mut() {
            match self.stack.send_bytes(id, bytes) {
                Ok(sent) => total += sent,
                Err(Error::WouldBlock) if total > 0 => break,
                Err(error) => return self.of_sent(id, Err(error)),
            }
            if !bytes.is_empty() {
                break;
            }
            data.pop_front();
        }
        Ok(Some(total))
    }
}

/// Queues the slices in order, up to the first that does not fit whole.
fn send_all(state: &mut State, id: SocketId, data: &[IoSlice<'_>]) -> Result<usize, Error> {
    let mut total = 0;
    if !data.is_empty() && data.iter().all(|slice| slice.is_empty()) {
        // An empty write queues nothing, but still reports a closed stream.
        return state.stack.send(id, &[]);
    }
    for slice in data.iter().filter(|s| !s.is_empty()) {
        match state.stack.send(id, slice) {
            Ok(sent) => {
                total += sent;
                if sent < slice.len() {
                    break;
                }
            }
            // A later slice fails only for want of room: report what was queued.
            Err(Error::WouldBlock) if total > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(total)
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.handle.call_last(|state, now| {
            state.forget(self.id);
            // It fails if `abort` closed the socket before.
            let _ = state.stack.close(now, self.id);
        });
    }
}

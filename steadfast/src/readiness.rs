//! Readiness: waiting until a stream can be read or written, and calls that do not wait.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BufMut;
use steadfast_core::{Error, SocketId};
use tokio::io::{Interest, ReadBuf, Ready};
use tokio::task::consume_budget;

use crate::shared::{Side, State, into_io};
use crate::socket::Socket;
use crate::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use crate::stream::TcpStream;
use crate::waiting::Waiters;

/// Bytes that [`try_read_buf`](TcpStream::try_read_buf) moves at a time.
const PIECE: usize = 4096;

impl TcpStream {
    /// Waits until the stream is ready for one of `interest`, and returns for which.
    ///
    /// The end of a stream counts as ready, because a read or write returns at once. Several tasks may wait at the same
    /// time. In Tokio, readiness is a memory of events and may be out of date. Here it is the state of the connection,
    /// so a call that follows at once succeeds, unless another task was faster or `tcp_mem` is used up.
    ///
    /// # Errors
    ///
    /// Only if the stack has panicked. An error of the connection counts as ready, and the next call returns it.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it changes nothing.
    ///
    /// ```
    /// use std::io::ErrorKind;
    ///
    /// use steadfast::{Net, TcpListener, TcpStream, device};
    /// use tokio::io::Interest;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let (left, right) = device::memory::pair(1500);
    /// # let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
    /// # let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
    /// # let listener = TcpListener::bind(&server, "10.9.0.2:7").await?;
    /// let stream = TcpStream::connect(&client, "10.9.0.2:7").await?;
    /// # let (peer, _) = listener.accept().await?;
    /// assert_eq!(stream.try_read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// assert!(stream.ready(Interest::READABLE | Interest::WRITABLE).await?.is_writable());
    /// stream.try_write(b"hold fast")?;
    ///
    /// peer.readable().await?;
    /// let mut text = Vec::with_capacity(16);
    /// assert_eq!(peer.try_read_buf(&mut text)?, 9);
    /// assert_eq!(text, b"hold fast");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.socket.ready(interest).await
    }

    /// Reads without consuming: the next read returns the same bytes again. `Ok(0)` is the end of the stream.
    /// Cancel-safe: it never consumes a byte.
    ///
    /// # Errors
    ///
    /// `ConnectionReset`, `TimedOut` and other errors that ended the connection, once; `NetworkDown` or the error of
    /// the device, once the network has ended. The bytes that arrived before come first.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.peek(buffer).await
    }

    /// Polls as [`peek`](Self::peek) does. Like a pending read, it replaces the reading task.
    ///
    /// # Errors
    ///
    /// As [`peek`](Self::peek).
    pub fn poll_peek(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        self.socket.poll_peek(cx, buffer)
    }

    /// Polls whether the stream can be read. Like a pending read, it replaces the reading task: only the task that
    /// polled last is woken.
    ///
    /// # Errors
    ///
    /// As [`ready`](Self::ready).
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_ready(cx, Side::Read)
    }

    /// Polls whether the stream can be written. Like a pending write, it replaces the writing task: only the task that
    /// polled last is woken.
    ///
    /// # Errors
    ///
    /// As [`ready`](Self::ready).
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_ready(cx, Side::Write)
    }

    /// Runs `call` if the stream is ready for `interest`, and returns its result. Otherwise it fails with `WouldBlock`.
    ///
    /// `call` runs without a lock and may use the stream. Its `WouldBlock` does not clear the readiness, unlike in
    /// Tokio.
    ///
    /// # Errors
    ///
    /// `WouldBlock`, the stream is not ready; `Other`, the stack has panicked; that of `call`.
    pub fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.socket.attempt(|state, id| state.ready(id, interest))?;
        call()
    }

    /// Runs `call` until it returns something else than `WouldBlock`, and waits for an event of `interest` between the
    /// attempts.
    ///
    /// # Errors
    ///
    /// That of `call`, unless it is `WouldBlock`; `Other`, the stack has panicked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the wait; a call that was made has had its effect.
    pub async fn async_io<R>(
        &self,
        interest: Interest,
        mut call: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        self.socket.wait(interest, &mut call).await
    }
}

macro_rules! reads {
    ($($type:ty, $($socket:tt).+;)+) => { $(
        impl $type {
            /// Waits until a read returns bytes, the end of the stream or an error. See [`TcpStream::ready`] for the
            /// difference from Tokio. Cancel-safe: it changes nothing.
            ///
            /// # Errors
            ///
            /// `Other` if the stack has panicked, and nothing else. An error of the connection counts as readable.
            pub async fn readable(&self) -> io::Result<()> {
                self.$($socket).+.ready(Interest::READABLE).await.map(drop)
            }

            /// Reads what has arrived, without waiting. `Ok(0)` is the end of the stream.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if nothing has arrived, and otherwise as a read.
            pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
                self.$($socket).+.try_read(buffer)
            }

            /// Like [`try_read`](Self::try_read), into several buffers, one after the other.
            ///
            /// # Errors
            ///
            /// As [`try_read`](Self::try_read).
            pub fn try_read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.$($socket).+.try_read_vectored(buffers)
            }

            /// Like [`try_read`](Self::try_read), to the end of a buffer that grows. It reads at most as many bytes as
            /// fit into the current chunk of the buffer, and copies them once more than `try_read`.
            ///
            /// # Errors
            ///
            /// As [`try_read`](Self::try_read).
            pub fn try_read_buf<B: BufMut>(&self, buffer: &mut B) -> io::Result<usize> {
                self.$($socket).+.try_read_buf(buffer)
            }
        }
    )+ };
}

macro_rules! writes {
    ($($type:ty, $($socket:tt).+;)+) => { $(
        impl $type {
            /// Waits until a write queues bytes or returns an error. See [`TcpStream::ready`] for the difference from
            /// Tokio. Cancel-safe: it changes nothing.
            ///
            /// # Errors
            ///
            /// `Other` if the stack has panicked, and nothing else. An error of the connection counts as writable.
            pub async fn writable(&self) -> io::Result<()> {
                self.$($socket).+.ready(Interest::WRITABLE).await.map(drop)
            }

            /// Queues bytes for sending, without waiting, and returns their number.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if the send buffer is full, and otherwise as a write.
            pub fn try_write(&self, data: &[u8]) -> io::Result<usize> {
                self.try_write_vectored(&[IoSlice::new(data)])
            }

            /// Like [`try_write`](Self::try_write), from several buffers, one after the other.
            ///
            /// # Errors
            ///
            /// As [`try_write`](Self::try_write).
            pub fn try_write_vectored(&self, data: &[IoSlice<'_>]) -> io::Result<usize> {
                self.$($socket).+.attempt(|state, id| state.send(id, data))
            }
        }
    )+ };
}

macro_rules! halves {
    ($($type:ty, $($socket:tt).+;)+) => { $(
        impl $type {
            /// As [`TcpStream::ready`].
            ///
            /// # Errors
            ///
            /// `Other` if the stack has panicked, and nothing else.
            pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
                self.$($socket).+.ready(interest).await
            }
        }
    )+ };
}

macro_rules! peeks {
    ($($type:ty, $($socket:tt).+;)+) => { $(
        impl $type {
            /// Reads without consuming: the next read returns the same bytes again. `Ok(0)` is the end of the stream.
            /// Cancel-safe: it never consumes a byte.
            ///
            /// # Errors
            ///
            /// As [`TcpStream::peek`].
            pub async fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.$($socket).+.peek(buffer).await
            }

            /// Polls as [`peek`](Self::peek) does. Like a pending read, it replaces the reading task.
            ///
            /// # Errors
            ///
            /// As [`peek`](Self::peek).
            pub fn poll_peek(
                &mut self,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<usize>> {
                self.$($socket).+.poll_peek(cx, buffer)
            }
        }
    )+ };
}

peeks! {
    ReadHalf<'_>, 0.socket;
    OwnedReadHalf, stream.socket;
}

reads! {
    TcpStream, socket;
    ReadHalf<'_>, 0.socket;
    OwnedReadHalf, stream.socket;
}

writes! {
    TcpStream, socket;
    WriteHalf<'_>, 0.socket;
    OwnedWriteHalf, stream.socket;
}

halves! {
    ReadHalf<'_>, 0.socket;
    WriteHalf<'_>, 0.socket;
    OwnedReadHalf, stream.socket;
    OwnedWriteHalf, stream.socket;
}

impl Socket {
    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.wait(interest, || self.attempt(|state, id| state.ready(id, interest))).await
    }

    async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut peek =
            || self.attempt(|state, id| state.receive(id, |state, id| state.stack.peek(id, buffer)));
        self.wait(Interest::READABLE, &mut peek).await
    }

    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>, side: Side) -> Poll<io::Result<()>> {
        let interest = match side {
            Side::Read => Interest::READABLE,
            Side::Write => Interest::WRITABLE,
        };
        let polled = self.poll_with_budget(cx, side, |state| state.ready(self.id, interest));
        polled.map_ok(drop)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.attempt(|state, id| state.receive(id, |state, id| state.stack.recv(id, buffer)))
    }

    fn try_read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.attempt(|state, id| {
            state.receive(id, |state, id| {
                let mut total = 0;
                for buffer in buffers.iter_mut().filter(|buffer| !buffer.is_empty()) {
                    total += state.stack.recv(id, buffer)?;
                    if is_drained(state, id) {
                        return Ok(total);
                    }
                }
                // Without room nothing is read, but the end of the stream and its error are told.
                if total > 0 { Ok(total) } else { state.stack.recv(id, &mut []) }
            })
        })
    }

    /// Foreign code holds the buffer: the bytes are copied to it with the lock released.
    fn try_read_buf(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        let room = buffer.chunk_mut().len();
        let (mut piece, mut total) = ([0; PIECE], 0);
        loop {
            let most = PIECE.min(room - total);
            let mut drained = false;
            let len = self.attempt(|state, id| {
                let len = state.receive(id, |state, id| state.stack.recv(id, &mut piece[..most]));
                drained = is_drained(state, id);
                len
            })?;
            buffer.put_slice(&piece[..len]);
            total += len;
            // An error that follows is left to the next call.
            if drained || total == room {
                return Ok(total);
            }
        }
    }

    /// Repeats `attempt` while it fails with `WouldBlock`, each time that an event of `interest` has come.
    pub(crate) async fn wait<R>(
        &self,
        interest: Interest,
        mut attempt: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        let mut attempt = || match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            result => Some(result),
        };
        // A task that always finds the stream ready must still yield to others.
        consume_budget().await;
        if let Some(result) = attempt() {
            return result;
        }
        let waiters = self.handle.call_untimed(|state| state.waiters(self.id))?;
        loop {
            let (mut reads, mut writes) = (pin!(waiters.reads.notified()), pin!(waiters.writes.notified()));
            // An event between the attempt and the wait is not missed.
            reads.as_mut().enable();
            writes.as_mut().enable();
            if let Some(result) = attempt() {
                return result;
            }
            poll_fn(|cx| {
                let of_error = interest.is_error();
                let read = (of_error || reads_with(interest)) && reads.as_mut().poll(cx).is_ready();
                let write = (of_error || interest.is_writable()) && writes.as_mut().poll(cx).is_ready();
                if read || write { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            consume_budget().await;
        }
    }
}

impl State {
    /// Returns for which of `interest` a stream is ready, or `None`.
    fn ready(&mut self, id: SocketId, interest: Interest) -> io::Result<Option<Ready>> {
        self.check_whole()?;
        let mut ready = Ready::EMPTY;
        if self.check_running().is_err() {
            // A read returns what is left, then the error. A write returns the error.
            ready |= Ready::READABLE | Ready::WRITABLE | Ready::READ_CLOSED | Ready::WRITE_CLOSED;
        } else {
            let now = self.stack.readiness(id).map_err(into_io)?;
            let refused = self.wakers(id).is_some_and(|wakers| wakers.write_refused);
            let flags = [
                (now.readable, Ready::READABLE),
                (now.writable && (!refused || now.write_closed), Ready::WRITABLE),
                (now.read_closed, Ready::READ_CLOSED),
                (now.write_closed, Ready::WRITE_CLOSED),
                (now.error, Ready::ERROR),
                #[cfg(target_os = "linux")]
                (now.urgent, Ready::PRIORITY),
            ];
            flags.into_iter().filter(|(is_set, _)| *is_set).for_each(|(_, flag)| ready |= flag);
        }
        ready = ready & mask(interest);
        Ok((!ready.is_empty()).then_some(ready))
    }

    /// Returns the tasks that wait until a stream is ready.
    fn waiters(&mut self, id: SocketId) -> io::Result<Arc<Waiters>> {
        let wakers = self.wakers(id).ok_or_else(|| into_io(Error::NoSuchSocket))?;
        Ok(wakers.waiters.get_or_insert_default().clone())
    }
}

/// Returns whether nothing more has arrived.
fn is_drained(state: &State, id: SocketId) -> bool {
    state.stack.readable(id).is_ok_and(|(len, _)| len == 0)
}

/// Returns whether an event of the reading side matters.
fn reads_with(interest: Interest) -> bool {
    #[cfg(target_os = "linux")]
    if interest.is_priority() {
        return true;
    }
    interest.is_readable()
}

/// Returns the kinds of readiness that end a wait for `interest`, as in Tokio.
fn mask(interest: Interest) -> Ready {
    let mut mask = Ready::EMPTY;
    if interest.is_readable() {
        mask |= Ready::READABLE | Ready::READ_CLOSED;
    }
    if interest.is_writable() {
        mask |= Ready::WRITABLE | Ready::WRITE_CLOSED;
    }
    if interest.is_error() {
        mask |= Ready::ERROR;
    }
    #[cfg(target_os = "linux")]
    if interest.is_priority() {
        mask |= Ready::PRIORITY | Ready::READ_CLOSED;
    }
    mask
}

//! What the driver and the sockets share: one stack behind one lock, and who waits for what.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use slotmap::SecondaryMap;
use steadfast_core::{Error, Event, Instant, SocketId, Stack};
use tokio::sync::Notify;
use tokio::time::Instant as TokioInstant;

/// What every handle that the application holds points at. When the last one goes, the driver ends as soon as
/// nothing is under way any more.
#[derive(Debug)]
pub(crate) struct Handle(pub(crate) Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.call_last(|state, _| {
            if matches!(state.phase, Phase::Open) {
                state.phase = Phase::Closing { deadline: None };
            }
            state.work = true;
        });
    }
}

impl std::ops::Deref for Handle {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// A stack, its clock and its lock.
pub(crate) struct Shared {
    state: Mutex<State>,
    epoch: TokioInstant,
    /// Notified when the driver has ended.
    pub(crate) ended: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(stack: Stack) -> Shared {
        let state = State {
            stack,
            sockets: SecondaryMap::new(),
            phase: Phase::Open,
            driver: None,
            asleep: false,
            work: false,
            stale: Vec::new(),
        };
        Shared { state: Mutex::new(state), epoch: TokioInstant::now(), ended: Notify::new() }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::ZERO + self.epoch.elapsed()
    }

    /// The instant of Tokio's clock at which the stack's clock shows `at`.
    pub(crate) fn tokio_instant(&self, at: Instant) -> TokioInstant {
        self.epoch + at.saturating_since(Instant::ZERO)
    }

    /// Panics if the stack panicked before: what is left of it is not to be trusted.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the stack is whole")
    }

    /// For the driver's end, which does not touch the stack.
    pub(crate) fn lock_to_end(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call of the application: runs `call` under the lock, and wakes the driver if it left work.
    pub(crate) fn call<R>(&self, call: impl FnOnce(&mut State, Instant) -> R) -> R {
        self.call_locked(self.lock(), call)
    }

    /// As [`call`](Shared::call), for `Drop`: where the stack panicked before, it does nothing.
    pub(crate) fn call_last(&self, call: impl FnOnce(&mut State, Instant)) {
        if let Ok(state) = self.state.lock() {
            self.call_locked(state, call);
        }
    }

    fn call_locked<R>(
        &self,
        mut state: MutexGuard<'_, State>,
        call: impl FnOnce(&mut State, Instant) -> R,
    ) -> R {
        let result = call(&mut state, self.now());
        let waker = state.driver_to_wake();
        let stale = std::mem::take(&mut state.stale);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        // Only now: the last waker of a task may drop the task, and with it a stream that wants the lock.
        drop(stale);
        result
    }
}

pub(crate) struct State {
    pub(crate) stack: Stack,
    pub(crate) sockets: SecondaryMap<SocketId, Waiting>,
    pub(crate) phase: Phase,
    pub(crate) driver: Option<Waker>,
    /// The driver has nothing to do and will look again only when woken.
    pub(crate) asleep: bool,
    /// Something was done that may have given the stack something to send, or an earlier timer.
    pub(crate) work: bool,
    /// Wakers that were replaced, to be dropped when the lock is free.
    stale: Vec<Waker>,
}

/// How far the life of the network has come.
pub(crate) enum Phase {
    /// It takes and makes connections.
    Open,
    /// It ends when no connection is left, or at the deadline.
    Closing {
        /// When what is left is cut off.
        deadline: Option<Instant>,
    },
    /// The driver has ended.
    Closed {
        /// Why, if the device failed.
        failure: Option<(io::ErrorKind, String)>,
        /// Connections were cut off by the deadline.
        cut_off: bool,
    },
}

/// Who waits for what happens on a socket.
pub(crate) enum Waiting {
    Listener(Arc<Notify>),
    Stream(Wakers),
}

/// The tasks that wait for a stream, and what they have not looked at yet.
#[derive(Default)]
pub(crate) struct Wakers {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    pub(crate) connected: bool,
    pub(crate) failed: bool,
}

impl State {
    fn driver_to_wake(&mut self) -> Option<Waker> {
        if !(self.work && self.asleep) {
            return None;
        }
        self.asleep = false;
        self.driver.clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }

    /// Fails once the driver has ended: nothing would be sent any more.
    pub(crate) fn check_running(&self) -> io::Result<()> {
        match &self.phase {
            Phase::Open | Phase::Closing { .. } => Ok(()),
            Phase::Closed { failure: Some((kind, text)), .. } => Err(io::Error::new(*kind, text.clone())),
            Phase::Closed { failure: None, .. } => Err(closed()),
        }
    }

    /// Fails once [`close`](crate::Net::close) was called: nothing new begins.
    pub(crate) fn check_open(&self) -> io::Result<()> {
        self.check_running()?;
        if matches!(self.phase, Phase::Closing { .. }) { Err(closed()) } else { Ok(()) }
    }

    pub(crate) fn wakers(&mut self, id: SocketId) -> Option<&mut Wakers> {
        match self.sockets.get_mut(id) {
            Some(Waiting::Stream(wakers)) => Some(wakers),
            _ => None,
        }
    }

    /// Keeps the waker of the task that last tried to read.
    pub(crate) fn wait_to_read(&mut self, id: SocketId, waker: &Waker) {
        let stale = self.wakers(id).and_then(|wakers| replace(&mut wakers.reader, waker));
        self.stale.extend(stale);
    }

    /// Keeps the waker of the task that last tried to connect or write.
    pub(crate) fn wait_to_write(&mut self, id: SocketId, waker: &Waker) {
        let stale = self.wakers(id).and_then(|wakers| replace(&mut wakers.writer, waker));
        self.stale.extend(stale);
    }

    /// Forgets who waits for a socket, which closes.
    pub(crate) fn forget(&mut self, id: SocketId) {
        if let Some(Waiting::Stream(wakers)) = self.sockets.remove(id) {
            self.stale.extend(wakers.reader.into_iter().chain(wakers.writer));
        }
    }

    /// Looks up who is to hear of what changed.
    pub(crate) fn dispatch(&mut self, woken: &mut Woken) {
        while let Some((id, event)) = self.stack.poll_event() {
            match self.sockets.get_mut(id) {
                Some(Waiting::Listener(arrivals)) => woken.listeners.push(arrivals.clone()),
                Some(Waiting::Stream(wakers)) => wakers.note(event, &mut woken.tasks),
                // In an accept queue, or closed a moment ago.
                None => {}
            }
        }
    }

    /// Everybody is to hear that the network has ended.
    pub(crate) fn dispatch_end(&mut self, woken: &mut Woken) {
        for waiting in self.sockets.values_mut() {
            match waiting {
                Waiting::Listener(arrivals) => woken.listeners.push(arrivals.clone()),
                Waiting::Stream(wakers) => {
                    woken.tasks.extend(wakers.reader.take().into_iter().chain(wakers.writer.take()));
                }
            }
        }
    }
}

/// Who is to be woken when the lock is free: what a waker does is not ours to know.
#[derive(Default)]
pub(crate) struct Woken {
    tasks: Vec<Waker>,
    listeners: Vec<Arc<Notify>>,
}

impl Woken {
    pub(crate) fn wake(&mut self) {
        self.tasks.drain(..).for_each(Waker::wake);
        self.listeners.drain(..).for_each(|arrivals| arrivals.notify_waiters());
    }
}

impl Wakers {
    fn note(&mut self, event: Event, woken: &mut Vec<Waker>) {
        let over = event.contains(Event::ERROR) || event.contains(Event::CLOSED);
        self.connected |= event.contains(Event::CONNECTED);
        self.failed |= event.contains(Event::ERROR);
        if over || event.contains(Event::READABLE) {
            woken.extend(self.reader.take());
        }
        if over || event.contains(Event::WRITABLE) || event.contains(Event::CONNECTED) {
            woken.extend(self.writer.take());
        }
    }
}

/// Puts `waker` into `slot`; gives what was there and is of another task.
pub(crate) fn replace(slot: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    match slot {
        Some(old) if old.will_wake(waker) => None,
        _ => slot.replace(waker.clone()),
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NetworkDown, "this network was closed")
}

/// The error under its POSIX number, so that kind and message are those of a kernel socket.
pub(crate) fn into_io(error: Error) -> io::Error {
    if cfg!(target_os = "linux") {
        return io::Error::from_raw_os_error(error.errno());
    }
    let kind = match error {
        Error::WouldBlock => io::ErrorKind::WouldBlock,
        Error::ConnectionRefused => io::ErrorKind::ConnectionRefused,
        Error::ConnectionReset => io::ErrorKind::ConnectionReset,
        Error::ConnectionAborted => io::ErrorKind::ConnectionAborted,
        Error::TimedOut => io::ErrorKind::TimedOut,
        Error::HostUnreachable => io::ErrorKind::HostUnreachable,
        Error::NetworkUnreachable => io::ErrorKind::NetworkUnreachable,
        Error::Prohibited => io::ErrorKind::PermissionDenied,
        Error::AddrInUse => io::ErrorKind::AddrInUse,
        Error::AddrNotAvailable => io::ErrorKind::AddrNotAvailable,
        Error::NotConnected => io::ErrorKind::NotConnected,
        Error::BrokenPipe => io::ErrorKind::BrokenPipe,
        Error::InvalidArgument => io::ErrorKind::InvalidInput,
        Error::NoBufferSpace => io::ErrorKind::OutOfMemory,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

//! The state that the driver and the sockets share: one stack behind one lock, and the tasks that wait.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use steadfast_core::{Error, Event, Instant, InterfaceId, SocketId, Stack};
use steadfast_device::Device;
use tokio::sync::Notify;
use tokio::time::Instant as TokioInstant;

#[cfg(all(feature = "control", unix))]
use crate::tap::Tap;
use crate::waiting::{Arrivals, SocketMap, Waiters};

/// The reference that every handle of the application holds. After the last one is dropped, the driver ends once no
/// connection is left.
#[derive(Debug)]
pub(crate) struct Handle(pub(crate) Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.call_last(|state, _| {
            if matches!(state.phase, Phase::Open) {
                state.phase = Phase::Closing { deadline: None };
            }
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
    ended: Notify,
    /// Copies of packets, while somebody captures.
    #[cfg(all(feature = "control", unix))]
    pub(crate) tap: Tap,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// `devices` belong to the other interfaces of `stack`. The first turn of the driver takes them over.
    pub(crate) fn new(stack: Stack, devices: Vec<(InterfaceId, Box<dyn Device>)>) -> Shared {
        let state = State {
            stack,
            sockets: SocketMap::new(),
            phase: Phase::Open,
            driver: None,
            rest: None,
            devices_changed: !devices.is_empty(),
            new_devices: devices,
            stale: Vec::new(),
            broken: false,
        };
        Shared {
            state: Mutex::new(state),
            epoch: TokioInstant::now(),
            ended: Notify::new(),
            #[cfg(all(feature = "control", unix))]
            tap: Tap::default(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::ZERO + self.epoch.elapsed()
    }

    /// Converts an instant of the stack's clock to one of Tokio's clock.
    pub(crate) fn tokio_instant(&self, at: Instant) -> TokioInstant {
        self.epoch + at.saturating_since(Instant::ZERO)
    }

    /// Waits until the network has ended, and returns how.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        loop {
            let mut ended = pin!(self.ended.notified());
            ended.as_mut().enable();
            if let Some(end) = self.lock().end() {
                return end;
            }
            ended.await;
        }
    }

    /// Takes the lock. No foreign code runs under it: no wakers, closures or devices.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            let mut state = poisoned.into_inner();
            state.broken = true;
            state.fail("the stack panicked");
            state
        })
    }

    /// Runs a call of the application under the lock. Then wakes the tasks whose sockets it changed, and the driver if
    /// the call left work for it.
    pub(crate) fn call<R>(&self, call: impl FnOnce(&mut State, Instant) -> R) -> R {
        self.call_untimed(|state| call(state, self.now()))
    }

    /// Like [`call`](Shared::call), for one that does not need the time: reading the clock costs as much as the lock.
    pub(crate) fn call_untimed<R>(&self, call: impl FnOnce(&mut State) -> R) -> R {
        let alarm = Alarm(self);
        let mut state = self.lock();
        let result = call(&mut state);
        std::mem::forget(alarm);
        let (mut woken, mut driver) = (Woken::default(), None);
        if !state.broken {
            state.dispatch(&mut woken);
            driver = state.driver_to_wake();
        }
        let stale = std::mem::take(&mut state.stale);
        drop(state);
        if let Some(waker) = driver {
            // A waker that panics must not look like an error of the call.
            unharmed(|| waker.wake_by_ref());
        }
        woken.wake();
        // Dropped with the lock released: the last waker may drop its task, and with it a stream that takes the lock.
        drop(stale);
        result
    }

    /// Reads from the stack. Fails if the stack has panicked.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.lock();
        state.check_whole()?;
        look(&mut state)
    }

    /// Like [`call`](Shared::call), for `Drop`: it does nothing if the stack has panicked.
    pub(crate) fn call_last(&self, call: impl FnOnce(&mut State, Instant)) {
        self.call(|state, now| {
            if !state.broken {
                call(state, now);
            }
        });
    }

    /// Wakes every waiting task, because the network has ended.
    pub(crate) fn tell_the_end(&self, woken: &mut Woken) {
        self.lock().dispatch_end(woken);
        woken.wake();
        unharmed(|| self.ended.notify_waiters());
    }
}

/// Dropped if a call panics: wakes every task, so that none waits for a stack that can no longer be trusted.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.tell_the_end(&mut Woken::default());
        let driver = self.0.lock().driver.clone();
        if let Some(waker) = driver {
            unharmed(|| waker.wake_by_ref());
        }
    }
}

/// Runs foreign code, and contains its panic. The panic hook has reported it, and no other task must suffer for it.
pub(crate) fn unharmed(run: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        // Dropping the payload may panic too.
        catch_unwind(AssertUnwindSafe(|| drop(payload))).unwrap_or_else(std::mem::forget);
    }
}

pub(crate) struct State {
    pub(crate) stack: Stack,
    pub(crate) sockets: SocketMap<Waiting>,
    pub(crate) phase: Phase,
    /// An `Arc`, since cloning a waker runs foreign code.
    pub(crate) driver: Option<Arc<Waker>>,
    /// Present while the driver is idle: it polls again only when it is woken.
    pub(crate) rest: Option<Rest>,
    /// Devices that the driver has not taken over yet, with their interfaces.
    pub(crate) new_devices: Vec<(InterfaceId, Box<dyn Device>)>,
    /// Interfaces have come or gone since the driver last looked.
    pub(crate) devices_changed: bool,
    /// Replaced wakers, to be dropped with the lock released.
    stale: Vec<Arc<Waker>>,
    /// The stack has panicked: its state is not to be trusted.
    pub(crate) broken: bool,
}

/// The events that an idle driver waits for. Other work must wake it.
pub(crate) struct Rest {
    /// The time at which it wakes by itself.
    pub(crate) until: Option<Instant>,
    /// Packets wait for the device, which will wake it.
    pub(crate) device_full: bool,
}

/// The phases in the life of a network.
pub(crate) enum Phase {
    /// Connections are opened and accepted.
    Open,
    /// The network ends when no connection is left, or at the deadline.
    Closing {
        /// The time at which the remaining connections are reset.
        deadline: Option<Instant>,
    },
    /// The driver has ended.
    Closed {
        /// The error of the device, if it failed.
        failure: Option<(io::ErrorKind, String)>,
        /// The deadline cut off connections.
        cut_off: bool,
    },
}

/// The tasks that wait for a socket.
pub(crate) enum Waiting {
    Listener(Arc<Arrivals>),
    Stream(Wakers),
}

/// The direction of a stream that a task waits for. Connecting counts as `Write`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Read,
    Write,
}

/// The task that waited last, and whether it still does. Its waker stays once it was woken: the next wait of the same task
/// needs no clone, which is foreign code and would take a second attempt.
#[derive(Default)]
struct Waiter {
    waker: Option<Arc<Waker>>,
    waits: bool,
}

impl Waiter {
    /// Returns the waker, if the task still waits.
    fn wake(&mut self) -> Option<Arc<Waker>> {
        if std::mem::take(&mut self.waits) { self.waker.clone() } else { None }
    }
}

/// The tasks that wait for a stream, and the events that they have not seen yet.
#[derive(Default)]
pub(crate) struct Wakers {
    reader: Waiter,
    writer: Waiter,
    /// Present once a task has waited for readiness.
    pub(crate) waiters: Option<Arc<Waiters>>,
    pub(crate) connected: bool,
    pub(crate) failed: bool,
    /// The stack has refused a write, and will tell when it may succeed.
    pub(crate) write_refused: bool,
}

impl State {
    /// Returns the waker of the driver if it is idle and has work. The answer follows from the state alone: a call need
    /// not say what it changed, so none can forget to.
    fn driver_to_wake(&mut self) -> Option<Arc<Waker>> {
        let rest = self.rest.as_ref()?;
        let sends = self.stack.wants_transmit() && !rest.device_full;
        let is_earlier = |at| rest.until.is_none_or(|until| at < until);
        // While the network closes, any call may be the one after which it is over.
        let closing = matches!(self.phase, Phase::Closing { .. });
        if !(sends || closing || self.devices_changed || self.stack.poll_at().is_some_and(is_earlier)) {
            return None;
        }
        self.rest = None;
        self.driver.clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }

    /// Ends the network with the error `what`, unless it has ended already.
    pub(crate) fn fail(&mut self, what: &str) {
        self.fail_with(&io::Error::other(what));
    }

    pub(crate) fn fail_with(&mut self, error: &io::Error) {
        if !self.is_closed() {
            self.phase = Phase::Closed { failure: Some((error.kind(), error.to_string())), cut_off: true };
        }
    }

    /// Returns how the network ended, once it has.
    pub(crate) fn end(&self) -> Option<io::Result<()>> {
        match &self.phase {
            Phase::Open | Phase::Closing { .. } => None,
            Phase::Closed { failure: Some((kind, text)), .. } => {
                Some(Err(io::Error::new(*kind, text.clone())))
            }
            Phase::Closed { failure: None, cut_off: true } => Some(Err(io::ErrorKind::TimedOut.into())),
            Phase::Closed { failure: None, cut_off: false } => Some(Ok(())),
        }
    }

    /// Fails once the driver has ended: nothing would be sent any more.
    pub(crate) fn check_running(&self) -> io::Result<()> {
        match &self.phase {
            Phase::Open | Phase::Closing { .. } => Ok(()),
            Phase::Closed { failure: Some((kind, text)), .. } => Err(io::Error::new(*kind, text.clone())),
            Phase::Closed { failure: None, .. } => Err(closed()),
        }
    }

    /// Fails if the stack has panicked: it must not be called any more.
    pub(crate) fn check_whole(&self) -> io::Result<()> {
        if self.broken { self.check_running() } else { Ok(()) }
    }

    /// Converts an error of a socket. Once the network has ended, `NetworkDown` becomes the reason for it.
    pub(crate) fn error_of(&self, error: Error) -> io::Error {
        match self.check_running() {
            Err(end) if error == Error::NetworkDown => end,
            _ => into_io(error),
        }
    }

    /// Fails once [`close`](crate::Net::close) was called: no connection is opened or accepted any more.
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

    /// Registers the task that last waited on this side of a stream. Returns false if it needs `clone`, a clone of the
    /// waker that the caller makes with the lock released.
    pub(crate) fn wait(
        &mut self,
        id: SocketId,
        side: Side,
        waker: &Waker,
        clone: &mut Option<Arc<Waker>>,
    ) -> bool {
        let Some(wakers) = self.wakers(id) else { return true };
        let waiter = match side {
            Side::Read => &mut wakers.reader,
            Side::Write => &mut wakers.writer,
        };
        let mut stale = None;
        if !waiter.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            let Some(clone) = clone.take() else { return false };
            stale = waiter.waker.replace(clone);
        }
        waiter.waits = true;
        self.stale.extend(stale);
        true
    }

    /// Forgets the tasks that wait for a socket that closes.
    pub(crate) fn forget(&mut self, id: SocketId) {
        if let Some(Waiting::Stream(wakers)) = self.sockets.remove(id) {
            self.stale.extend(wakers.reader.waker.into_iter().chain(wakers.writer.waker));
        }
    }

    /// Collects the tasks to wake for the events of the stack.
    pub(crate) fn dispatch(&mut self, woken: &mut Woken) {
        while let Some((id, event)) = self.stack.poll_event() {
            match self.sockets.get_mut(id) {
                Some(Waiting::Listener(arrivals)) => woken.listeners.push(arrivals.clone()),
                Some(Waiting::Stream(wakers)) => wakers.note(event, woken),
                // The socket waits in an accept queue, or has just closed.
                None => {}
            }
        }
    }

    /// Collects all waiting tasks, because the network has ended.
    pub(crate) fn dispatch_end(&mut self, woken: &mut Woken) {
        for waiting in self.sockets.values_mut() {
            match waiting {
                Waiting::Listener(arrivals) => woken.listeners.push(arrivals.clone()),
                Waiting::Stream(wakers) => {
                    woken.tasks.extend(wakers.reader.wake().into_iter().chain(wakers.writer.wake()));
                    woken.ready.extend(wakers.waiters.clone().map(|waiters| (waiters, true, true)));
                }
            }
        }
    }
}

/// The tasks to wake once the lock is released: a waker runs foreign code.
#[derive(Default)]
pub(crate) struct Woken {
    tasks: Vec<Arc<Waker>>,
    listeners: Vec<Arc<Arrivals>>,
    /// Those of a stream that became ready to read or to write.
    ready: Vec<(Arc<Waiters>, bool, bool)>,
}

impl Woken {
    /// Wakes them. A waker that panics does not keep the others from their wake-up.
    pub(crate) fn wake(&mut self) {
        if self.tasks.is_empty() && self.listeners.is_empty() && self.ready.is_empty() {
            return;
        }
        // The last clone of a waker may be dropped here, which runs foreign code too.
        self.tasks.drain(..).for_each(|waker| unharmed(move || waker.wake_by_ref()));
        self.listeners.drain(..).for_each(|arrivals| unharmed(|| arrivals.notify()));
        for (waiters, reads, writes) in self.ready.drain(..) {
            if reads {
                unharmed(|| waiters.reads.notify_waiters());
            }
            if writes {
                unharmed(|| waiters.writes.notify_waiters());
            }
        }
    }
}

impl Wakers {
    fn note(&mut self, event: Event, woken: &mut Woken) {
        let over = event.contains(Event::ERROR) || event.contains(Event::CLOSED);
        self.connected |= event.contains(Event::CONNECTED);
        self.failed |= event.contains(Event::ERROR);
        let reads = over || event.contains(Event::READABLE);
        let writes = over || event.contains(Event::WRITABLE) || event.contains(Event::CONNECTED);
        if reads {
            woken.tasks.extend(self.reader.wake());
        }
        if writes {
            self.write_refused = false;
            woken.tasks.extend(self.writer.wake());
        }
        if let Some(waiters) = &self.waiters {
            woken.ready.push((waiters.clone(), reads || event.contains(Event::URGENT), writes));
        }
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NetworkDown, "this network was closed")
}

/// Converts an error through its POSIX number, so that kind and message are those of a kernel socket.
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
        Error::NetworkDown => io::ErrorKind::NetworkDown,
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use steadfast_core::{Config, ConnectOptions, Interface, Spare};
    use steadfast_testkit::Count;

    use super::*;

    fn shared() -> Shared {
        let interface = Interface::new(1500, [(Ipv4Addr::new(10, 0, 0, 1).into(), 24)]);
        Shared::new(Stack::new(Config::default(), interface), Vec::new())
    }

    fn connect(state: &mut State, now: Instant) -> SocketId {
        let remote = (Ipv4Addr::new(10, 0, 0, 2), 80).into();
        let id = state.stack.connect(now, remote, ConnectOptions::default()).unwrap();
        state.sockets.insert(id, Waiting::Stream(Wakers::default()));
        id
    }

    /// Returns whether a call wakes the idle driver.
    fn wakes(shared: &Shared, rest: Rest, call: impl FnOnce(&mut State, Instant)) -> bool {
        let (driver, waker) = Count::new();
        let mut state = shared.lock();
        (state.driver, state.rest) = (Some(Arc::new(waker)), Some(rest));
        drop(state);
        shared.call(call);
        driver.take() > 0
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_wakes_the_driver_where_it_leaves_work_and_only_there() {
        let shared = shared();
        let rest = |until, device_full| Rest { until, device_full };
        assert!(!wakes(&shared, rest(None, false), |_, _| ()), "nothing happened");
        assert!(wakes(&shared, rest(None, false), |state, now| _ = connect(state, now)), "a SYN is due");
        assert!(!wakes(&shared, rest(None, true), |_, _| ()), "the device wakes it when it has room");

        assert!(shared.lock().stack.transmit(Instant::ZERO, &mut [0; 1500]).is_some());
        let timer = shared.lock().stack.poll_at().expect("the SYN has a timer");
        assert!(!wakes(&shared, rest(Some(timer), false), |_, _| ()), "it wakes by itself");
        let later = Some(timer + std::time::Duration::from_millis(1));
        assert!(wakes(&shared, rest(later, false), |_, _| ()), "it would wake too late");
        assert!(wakes(&shared, rest(None, false), |_, _| ()), "it would not wake");

        shared.lock().phase = Phase::Closing { deadline: None };
        assert!(wakes(&shared, rest(Some(timer), false), |_, _| ()), "the network may be over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_wakes_the_tasks_whose_sockets_it_changed() {
        let (shared, (task, waker)) = (shared(), Count::new());
        shared.call(|state, now| {
            let id = connect(state, now);
            state.wait(id, Side::Read, &waker, &mut Some(Arc::new(waker.clone())));
        });
        assert_eq!(task.take(), 0);
        shared.call(|state, now| _ = state.stack.abort_all(now, Spare::Nothing));
        assert_eq!(task.take(), 1, "the driver need not run for that");
    }
}

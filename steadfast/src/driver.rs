//! The task that joins a stack to its device.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use steadfast_core::Instant;
use steadfast_device::Device;
use tokio::time::Sleep;

use crate::batch::{Flow, Inbox, Outbox};
use crate::queue::Exchange;
use crate::shared::{Phase, Shared, State, Woken, replace};

/// Drives a [`Net`](crate::Net): moves packets between stack and device, and runs the stack's timers. It
/// resolves when the network is closed, or with the error that ended the device.
#[must_use = "a network does nothing unless its driver is polled"]
pub struct Driver<D> {
    shared: Arc<Shared>,
    device: D,
    inbox: Inbox,
    outbox: Outbox,
    alarm: Pin<Box<Sleep>>,
    /// What `alarm` is set to.
    armed: Option<Instant>,
    /// Kept to spare the allocation.
    woken: Woken,
    /// The last turn could not send all that there was.
    pressed: bool,
}

impl<D: Device> Driver<D> {
    pub(crate) fn new(shared: Arc<Shared>, device: D, exchange: Option<Exchange>) -> Driver<D> {
        let frame_len = device.capabilities().frame_len();
        let alarm = Box::pin(tokio::time::sleep_until(shared.tokio_instant(Instant::ZERO)));
        Driver {
            shared,
            device,
            inbox: Inbox::new(frame_len, exchange),
            outbox: Outbox::new(frame_len),
            alarm,
            armed: None,
            woken: Woken::default(),
            pressed: false,
        }
    }

    /// One turn: packets in, timers, wake-ups, packets out. The turn is limited, so that on a busy device the
    /// tasks that it woke get to run before the next one. The lock is taken once, and not while the device works.
    fn turn(&mut self, cx: &mut Context<'_>) -> io::Result<Turn> {
        let received = self.inbox.fill(cx, &mut self.device, self.pressed)?;
        let now = self.shared.now();
        let mut state = self.shared.lock();
        // What is done from now on by others wakes this task.
        state.asleep = false;
        self.inbox.deliver(now, &mut state.stack);
        if state.stack.poll_at().is_some_and(|at| at <= now) {
            state.stack.advance(now);
        }
        state.work = false;
        let filled = self.outbox.fill(now, &mut state.stack);
        self.pressed = filled != Flow::Dry;
        state.dispatch(&mut self.woken);
        let over = is_over(&mut state, now, self.outbox.is_empty());
        // To find that it is over, or that the device has room again, takes another turn.
        let closing = matches!(state.phase, Phase::Closing { .. });
        let look_again = filled == Flow::Full || (closing && !self.outbox.is_empty());
        let dry = received == Flow::Dry && filled != Flow::Limited;
        let asleep = dry.then(|| fall_asleep(&mut state, cx));
        drop(state);
        let wake_at = asleep.map(|(wake_at, stale)| {
            // Only now: the last waker of a task may drop the task, and with it something that wants the lock.
            drop(stale);
            wake_at
        });
        self.woken.wake();
        let sent = self.outbox.send(cx, &mut self.device)?;
        Ok(match wake_at {
            _ if over => Turn::Over,
            Some(wake_at) if !(look_again && sent == Flow::Dry) => self.rest(cx, now, wake_at),
            _ => Turn::Again,
        })
    }

    /// Waits for the clock; device and application wake the task by themselves.
    fn rest(&mut self, cx: &mut Context<'_>, now: Instant, wake_at: Option<Instant>) -> Turn {
        let Some(wake_at) = wake_at else { return Turn::Rest };
        if wake_at <= now {
            return Turn::Again;
        }
        // An alarm that rings too early costs less than setting it anew for every packet.
        if self.armed.is_none_or(|armed| armed > wake_at) {
            self.alarm.as_mut().reset(self.shared.tokio_instant(wake_at));
            self.armed = Some(wake_at);
        }
        if self.alarm.as_mut().poll(cx).is_ready() {
            self.armed = None;
            return Turn::Again;
        }
        Turn::Rest
    }

    /// Sends the resets of what was cut off, as far as the device takes them: there is nobody left to retry for.
    fn send_rest(&mut self, cx: &mut Context<'_>) {
        let now = self.shared.now();
        while let Ok(Flow::Dry) = self.outbox.send(cx, &mut self.device) {
            self.outbox.fill(now, &mut self.shared.lock().stack);
            if self.outbox.is_empty() {
                break;
            }
        }
    }

    /// Tells everybody that the network has ended.
    fn end(&mut self, failure: Option<&io::Error>) {
        let mut state = self.shared.lock();
        if let Some(error) = failure {
            let failure = Some((error.kind(), format!("the device failed: {error}")));
            state.phase = Phase::Closed { failure, cut_off: true };
        }
        state.dispatch_end(&mut self.woken);
        drop(state);
        self.woken.wake();
        self.shared.ended.notify_waiters();
    }
}

// The device is never pinned, only polled through `&mut`.
impl<D> Unpin for Driver<D> {}

impl<D: Device> Future for Driver<D> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let driver = self.get_mut();
        match driver.turn(cx) {
            Ok(Turn::Rest) => Poll::Pending,
            Ok(Turn::Again) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(Turn::Over) => {
                driver.send_rest(cx);
                driver.end(None);
                Poll::Ready(Ok(()))
            }
            Err(e) => {
                driver.end(Some(&e));
                Poll::Ready(Err(e))
            }
        }
    }
}

impl<D> Drop for Driver<D> {
    fn drop(&mut self) {
        // The runtime is going down, or the stack panicked: whoever still waits must not wait for ever.
        let mut state = self.shared.lock_to_end();
        if !state.is_closed() {
            state.phase = Phase::Closed { failure: None, cut_off: true };
        }
        state.dispatch_end(&mut self.woken);
        drop(state);
        self.woken.wake();
        self.shared.ended.notify_waiters();
    }
}

/// Whether the network is closed and nothing is left to do for it.
fn is_over(state: &mut State, now: Instant, all_sent: bool) -> bool {
    let Phase::Closing { deadline } = state.phase else { return false };
    let usage = state.stack.usage();
    let under_way = usage.connections + usage.opening + usage.half_open;
    let cut_off = deadline.is_some_and(|at| at <= now);
    if !cut_off && (under_way > 0 || !all_sent) {
        return false;
    }
    let held: Vec<_> = state.sockets.keys().collect();
    for id in held {
        // It can only fail because the connection is gone.
        let _ = state.stack.abort(now, id);
    }
    state.phase = Phase::Closed { failure: None, cut_off: cut_off && under_way > 0 };
    true
}

/// From now on the application wakes the driver when it leaves work. Gives the time by which it wakes by itself, and the
/// waker that it had before.
fn fall_asleep(state: &mut State, cx: &Context<'_>) -> (Option<Instant>, Option<Waker>) {
    let stale = replace(&mut state.driver, cx.waker());
    state.asleep = true;
    let deadline = match state.phase {
        Phase::Closing { deadline } => deadline,
        _ => None,
    };
    ([state.stack.poll_at(), deadline].into_iter().flatten().min(), stale)
}

/// How a turn ended.
enum Turn {
    Rest,
    Again,
    Over,
}

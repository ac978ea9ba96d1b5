//! The task that connects a stack to its device.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use steadfast_core::{Instant, InterfaceId, Shutdown, Spare};
use steadfast_device::Device;

use crate::alarm::Alarm;
use crate::batch::{Flow, Inbox, Outbox};
use crate::ports::Ports;
use crate::queue::Exchange;
use crate::shared::{Phase, Rest, Shared, State, Woken, unharmed};

/// Drives a [`Net`](crate::Net): moves packets between stack and device, and runs the stack's timers.
///
/// It resolves when the network has closed, or with the device's error. A device that panics has failed.
///
/// Dropping it ends the network at once. Written data and FINs are sent as far as the windows and the device allow.
/// Connections that have more to send are reset.
///
/// ```
/// use std::time::Duration;
///
/// use steadfast::{Net, device};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (device, _other_end) = device::memory::pair(1500);
/// let (net, driver) = Net::builder().address([10, 9, 0, 2], 24).build(device)?;
/// // It runs in this task, beside the application.
/// let (ended, closed) = tokio::join!(driver, net.close(Duration::from_secs(5)));
/// ended.and(closed)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a network does nothing unless its driver is polled"]
pub struct Driver<D: Device> {
    shared: Arc<Shared>,
    device: D,
    inbox: Inbox,
    outbox: Outbox,
    /// The devices of the other interfaces.
    ports: Ports,
    alarm: Alarm,
    /// Kept to reuse its allocations.
    woken: Woken,
    /// The last turn could not send everything that the stack had.
    pressed: bool,
    /// Our own waker, as in the state. It is cloned with the lock released.
    waker: Option<Arc<Waker>>,
    ended: bool,
}

impl<D: Device> Driver<D> {
    pub(crate) fn new(shared: Arc<Shared>, device: D, exchange: Option<Exchange>) -> Driver<D> {
        let frame_len = device.capabilities().frame_len();
        let max_backlog = shared.lock().stack.config().netdev_max_backlog as usize;
        let alarm = Alarm::new();
        Driver {
            shared,
            device,
            inbox: Inbox::new(frame_len, max_backlog, exchange),
            outbox: Outbox::new(frame_len),
            ports: Ports::default(),
            alarm,
            woken: Woken::default(),
            pressed: false,
            waker: None,
            ended: false,
        }
    }

    /// Runs one turn: packets in, timers, wake-ups, packets out. A turn is bounded, so that on a busy device the tasks
    /// that it woke run before the next one. The lock is taken once, and never while the device works.
    fn turn(&mut self, cx: &mut Context<'_>) -> io::Result<Turn> {
        let mut received = self.inbox.fill(cx, &mut self.device, self.pressed)?;
        if self.ports.are_many() && self.ports.fill(cx, self.pressed) != Flow::Dry {
            received = Flow::Limited;
        }
        #[cfg(all(feature = "control", unix))]
        self.tap_received();
        let now = self.shared.now();
        let moved = self.keep_waker(cx);
        let mut state = self.shared.lock();
        if state.is_closed() {
            // The stack panicked during a call of the application.
            return state.check_running().map(|()| Turn::Over { cut_off: true });
        }
        if moved.is_some() {
            state.driver.clone_from(&self.waker);
        }
        // From here on, work that others leave must wake this task.
        state.rest = None;
        // Before their ACKs, which come once they have left.
        self.outbox.delay(now, &mut state.stack);
        self.ports.delay(now, &mut state.stack);
        self.inbox.deliver(now, &mut state.stack, InterfaceId::FIRST);
        let gone = self.ports.mind(now, &mut state, &mut self.inbox, &mut self.outbox);
        if state.stack.poll_at().is_some_and(|at| at <= now) {
            // An ACK may wait in the device, and a frame in the outbox: neither means a loss.
            if received == Flow::Dry && self.outbox.is_empty() {
                state.stack.advance(now);
            } else {
                state.stack.advance_busy(now);
            }
        }
        let filled = self.outbox.fill(now, &mut state.stack, self.gathers());
        self.pressed = filled != Flow::Dry;
        state.dispatch(&mut self.woken);
        let all_sent = self.outbox.is_empty() && self.ports.all_sent();
        let over = is_over(&mut state, now, all_sent);
        // Another turn must find that the network is over, or that the device has room again. A new device must be read.
        let closing = matches!(state.phase, Phase::Closing { .. });
        let (look_again, changed) = (filled == Flow::Full || (closing && !all_sent), gone.is_some());
        let dry = received == Flow::Dry && filled != Flow::Limited;
        let wake_at = dry.then(|| fall_asleep(&mut state, filled == Flow::Full));
        let paced = state.stack.is_pacing();
        drop(state);
        drop((moved, gone));
        self.woken.wake();
        #[cfg(all(feature = "control", unix))]
        if filled != Flow::Full {
            self.tap_sent();
        }
        let sent = self.send(cx)?;
        if let Some(cut_off) = over {
            return Ok(Turn::Over { cut_off });
        }
        Ok(match wake_at {
            Some(wake_at) if !(changed || look_again && sent == Flow::Dry && self.ports.all_sent()) => {
                self.rest(cx, now, wake_at, paced)
            }
            _ => Turn::Again,
        })
    }

    /// Whether the device takes payloads in slices. With several devices, any of them may be the one of a packet.
    fn gathers(&self) -> bool {
        self.device.gathers() && !self.ports.are_many()
    }

    /// Writes the packets that the stack has filled in.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<Flow> {
        if !self.ports.are_many() {
            return self.outbox.send(cx, &mut self.device);
        }
        self.ports.send(cx, &mut self.device, &mut self.outbox)?;
        if self.ports.has_failed() {
            // The next turn removes its interface.
            cx.waker().wake_by_ref();
        }
        Ok(Flow::Dry)
    }

    /// Copies what the devices have read, if somebody captures.
    #[cfg(all(feature = "control", unix))]
    fn tap_received(&self) {
        let tap = &self.shared.tap;
        if tap.is_on() {
            tap.received(
                InterfaceId::FIRST,
                self.device.capabilities().ethernet.is_some(),
                self.inbox.packets(),
            );
            for (id, inbox, ethernet) in self.ports.interfaces() {
                tap.received(id, ethernet, inbox.packets());
            }
        }
    }

    /// Copies what the stack has just filled in, if somebody captures. Frames that a full device left are copied already.
    #[cfg(all(feature = "control", unix))]
    fn tap_sent(&self) {
        let tap = &self.shared.tap;
        if tap.is_on() {
            let first = self.device.capabilities().ethernet.is_some();
            let ethernet = |wanted| match wanted {
                InterfaceId::FIRST => first,
                _ => self.ports.interfaces().any(|(id, _, ethernet)| id == wanted && ethernet),
            };
            tap.sent(ethernet, self.outbox.frames());
        }
    }

    /// Waits for the next timer. The device and the application wake the task themselves.
    fn rest(&mut self, cx: &mut Context<'_>, now: Instant, wake_at: Option<Instant>, paced: bool) -> Turn {
        let Some(wake_at) = wake_at else { return Turn::Rest };
        let [now_there, at] = [now, wake_at].map(|at| self.shared.tokio_instant(at));
        if wake_at <= now || self.alarm.poll(cx, now_there, at, paced).is_ready() {
            return Turn::Again;
        }
        Turn::Rest
    }

    /// Clones the waker if it changed, and returns the old one if so. The caller drops it with the lock released.
    fn keep_waker(&mut self, cx: &Context<'_>) -> Option<Option<Arc<Waker>>> {
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return None;
        }
        self.alarm.moved();
        Some(self.waker.replace(Arc::new(cx.waker().clone())))
    }

    /// Resets all connections but those that `spare` names, and sends what the device accepts. Nothing is retried: the
    /// driver ends.
    fn wind_up(&mut self, cx: &mut Context<'_>, spare: Spare) {
        let now = self.shared.now();
        self.send_rest(cx, now);
        loop {
            let all = self.shared.lock().stack.abort_all(now, spare);
            self.send_rest(cx, now);
            if all {
                break;
            }
        }
    }

    fn send_rest(&mut self, cx: &mut Context<'_>, now: Instant) {
        while let Ok(Flow::Dry) = self.send(cx) {
            let mut state = self.shared.lock();
            let gone = self.ports.mind(now, &mut state, &mut self.inbox, &mut self.outbox);
            // Takes in packets to the stack's own addresses.
            if state.stack.poll_at().is_some_and(|at| at <= now) {
                state.stack.advance(now);
            }
            self.outbox.fill(now, &mut state.stack, self.gathers());
            drop(state);
            drop(gone);
            #[cfg(all(feature = "control", unix))]
            self.tap_sent();
            if self.outbox.is_empty() {
                break;
            }
        }
    }

    /// Ends the network with `error`: the device is gone or something panicked, so nothing can be sent.
    fn fail(&mut self, error: &io::Error) {
        self.ended = true;
        let mut state = self.shared.lock();
        state.fail_with(error);
        drop(state);
        self.shared.tell_the_end(&mut self.woken);
    }

    /// Ends the closed network, and resets what could not be delivered within the limit.
    fn close(&mut self, cx: &mut Context<'_>, cut_off: bool) {
        self.wind_up(cx, Spare::Delivered);
        self.ended = true;
        self.shared.lock().phase = Phase::Closed { failure: None, cut_off };
        self.shared.tell_the_end(&mut self.woken);
    }

    /// Ends the network because the driver is dropped. Sends written data and FINs as far as the windows and the device
    /// allow, and resets the connections that have more.
    fn give_up(&mut self) {
        let mut state = self.shared.lock();
        let now = self.shared.now();
        let held: Vec<_> = state.sockets.keys().collect();
        for id in held {
            // Unread data draws a reset, and a listener sends nothing.
            if state.stack.readable(id) == Ok((0, 0)) {
                let _ = state.stack.shutdown(now, id, Shutdown::Write);
            }
        }
        drop(state);
        let mut cx = Context::from_waker(Waker::noop());
        self.wind_up(&mut cx, Spare::Sent);
    }
}

// The device is only polled through `&mut`, never pinned.
impl<D: Device> Unpin for Driver<D> {}

impl<D: Device> Future for Driver<D> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let driver = self.get_mut();
        // A panic of the device must end the network with an error, not look like a good end.
        let turn = catch_unwind(AssertUnwindSafe(|| match driver.turn(cx)? {
            Turn::Over { cut_off } => {
                driver.close(cx, cut_off);
                Ok::<_, io::Error>(Poll::Ready(()))
            }
            Turn::Again => {
                cx.waker().wake_by_ref();
                Ok(Poll::Pending)
            }
            Turn::Rest => Ok(Poll::Pending),
        }));
        let (end, told) = match turn {
            Ok(Ok(Poll::Pending)) => return Poll::Pending,
            Ok(Ok(Poll::Ready(()))) => return Poll::Ready(Ok(())),
            Ok(Err(e)) => {
                let told = io::Error::new(e.kind(), format!("the device failed: {e}"));
                (e, told)
            }
            Err(payload) => (panicked(&*payload), panicked(&*payload)),
        };
        driver.fail(&told);
        Poll::Ready(Err(end))
    }
}

/// Converts the panic of a device or of the stack into the driver's error.
fn panicked(payload: &(dyn Any + Send)) -> io::Error {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    io::Error::other(format!("the driver panicked: {}", text.unwrap_or("without a word")))
}

impl<D: Device> Drop for Driver<D> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // A second panic while another one unwinds would abort the process.
        if !self.shared.lock().broken {
            unharmed(|| self.give_up());
        }
        let error = io::Error::new(io::ErrorKind::NetworkDown, "the driver of this network was dropped");
        self.fail(&error);
    }
}

/// Returns `Some` once the network is closed and has nothing left to do. The value is true if a connection was cut off.
fn is_over(state: &mut State, now: Instant, all_sent: bool) -> Option<bool> {
    let Phase::Closing { deadline } = state.phase else { return None };
    let usage = state.stack.usage();
    let under_way = usage.connections + usage.opening + usage.half_open;
    // A caller of `close` waits for the delivery of written data. If nobody waits, peers may take their time.
    let settled = all_sent && (under_way == 0 || deadline.is_some() && state.stack.is_settled());
    let late = deadline.is_some_and(|at| at <= now);
    (settled || late).then_some(!settled)
}

/// Makes calls of the application wake the driver when they leave work. Returns the time of the next timer or
/// deadline.
fn fall_asleep(state: &mut State, device_full: bool) -> Option<Instant> {
    let deadline = match state.phase {
        Phase::Closing { deadline } => deadline,
        _ => None,
    };
    let until = [state.stack.poll_at(), deadline].into_iter().flatten().min();
    state.rest = Some(Rest { until, device_full });
    until
}

/// How a turn ended.
enum Turn {
    Rest,
    Again,
    Over {
        /// Something was left undelivered.
        cut_off: bool,
    },
}

//! The task that joins a stack to its device.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use steadfast_core::{Bytes, Instant, Packet, PacketBytes, Transmit};
use steadfast_device::{Device, Frame};
use tokio::time::Sleep;

use crate::shared::{Phase, Shared, Woken};

/// Packets that one turn takes in, and sends out, at the most. Then tasks get to run that the turn has woken.
const BATCH: usize = 64;

/// From this size on, a packet is handed to the stack with its buffer, which spares a copy of the payload.
const SHARED_FROM: usize = 16 * 1024;

/// Drives a [`Net`](crate::Net): moves packets between stack and device, and runs the stack's timers. It
/// resolves when the network is closed, or with the error that ended the device.
#[must_use = "a network does nothing unless its driver is polled"]
pub struct Driver<D> {
    shared: Arc<Shared>,
    device: D,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// A packet in `outgoing` that the device had no room for.
    unsent: Option<Transmit>,
    alarm: Pin<Box<Sleep>>,
    /// What `alarm` is set to.
    armed: Option<Instant>,
    /// Kept to spare the allocation.
    woken: Woken,
}

impl<D: Device> Driver<D> {
    pub(crate) fn new(shared: Arc<Shared>, device: D) -> Driver<D> {
        let frame_len = device.capabilities().frame_len();
        let alarm = Box::pin(tokio::time::sleep_until(shared.tokio_instant(Instant::ZERO)));
        Driver {
            shared,
            device,
            incoming: vec![0; frame_len],
            outgoing: vec![0; frame_len],
            unsent: None,
            alarm,
            armed: None,
            woken: Woken::default(),
        }
    }

    /// One turn: packets in, timers, wake-ups, packets out. The turn is limited, so that on a busy device the
    /// tasks that it woke get to run before the next one.
    fn turn(&mut self, cx: &mut Context<'_>) -> io::Result<Turn> {
        let now = self.shared.now();
        let received = self.receive(cx, now)?;
        self.advance(now);
        let sent = self.transmit(cx, now)?;
        if self.is_over(now, sent) {
            return Ok(Turn::Over);
        }
        if received == Flow::Limited || sent == Flow::Limited {
            return Ok(Turn::Again);
        }
        Ok(self.rest(cx, now))
    }

    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<Flow> {
        for _ in 0..BATCH {
            let received = match self.device.poll_recv(cx, &mut self.incoming) {
                Poll::Ready(received) => received?,
                Poll::Pending => return Ok(Flow::Dry),
            };
            let bytes = if received.len >= SHARED_FROM {
                let fresh = vec![0; self.incoming.len()];
                let mut full = std::mem::replace(&mut self.incoming, fresh);
                full.truncate(received.len);
                PacketBytes::Shared(Bytes::from(full))
            } else {
                PacketBytes::Borrowed(&self.incoming[..received.len])
            };
            let packet = Packet { bytes, checksum_trusted: received.checksum_trusted };
            self.shared.lock().stack.receive(now, packet);
        }
        Ok(Flow::Limited)
    }

    /// Runs the timers that are due, and wakes those for whom something changed.
    fn advance(&mut self, now: Instant) {
        let mut state = self.shared.lock();
        if state.stack.poll_at().is_some_and(|at| at <= now) {
            state.stack.advance(now);
        }
        state.dispatch(&mut self.woken);
        drop(state);
        self.woken.wake();
    }

    fn transmit(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<Flow> {
        for _ in 0..BATCH {
            if self.unsent.is_none() {
                let mut state = self.shared.lock();
                // Cleared before the stack is asked: what is done after that sets it again.
                state.work = false;
                self.unsent = state.stack.transmit(now, &mut self.outgoing);
            }
            let Some(packet) = self.unsent else { return Ok(Flow::Dry) };
            let mut frame = Frame::new(&self.outgoing[..packet.len]);
            frame.segment_size = packet.segment_size;
            frame.checksum_offload = packet.checksum_offload;
            match self.device.poll_send(cx, frame) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => return Ok(Flow::Full),
            }
            self.unsent = None;
        }
        Ok(Flow::Limited)
    }

    /// Whether the network is closed and nothing is left to do for it.
    fn is_over(&mut self, now: Instant, sent: Flow) -> bool {
        let mut state = self.shared.lock();
        let Phase::Closing { deadline } = state.phase else { return false };
        let usage = state.stack.usage();
        let under_way = usage.connections + usage.opening + usage.half_open;
        let cut_off = deadline.is_some_and(|at| at <= now);
        if !cut_off && (under_way > 0 || sent != Flow::Dry) {
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

    /// Waits for the device, the clock or the application, unless one of them was faster.
    fn rest(&mut self, cx: &mut Context<'_>, now: Instant) -> Turn {
        let mut state = self.shared.lock();
        // What sending changed.
        state.dispatch(&mut self.woken);
        if state.work && self.unsent.is_none() {
            drop(state);
            self.woken.wake();
            return Turn::Again;
        }
        match &mut state.driver {
            Some(waker) => waker.clone_from(cx.waker()),
            None => state.driver = Some(cx.waker().clone()),
        }
        state.asleep = true;
        let deadline = match state.phase {
            Phase::Closing { deadline } => deadline,
            _ => None,
        };
        let wake_at = [state.stack.poll_at(), deadline].into_iter().flatten().min();
        drop(state);
        self.woken.wake();
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
                // The resets of what was cut off; there is nobody left to retry for.
                let now = driver.shared.now();
                while let Ok(Flow::Limited) = driver.transmit(cx, now) {}
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

/// How moving packets in one direction ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// There was nothing more.
    Dry,
    /// The device has no room.
    Full,
    /// The turn was used up.
    Limited,
}

/// How a turn ended.
enum Turn {
    Rest,
    Again,
    Over,
}

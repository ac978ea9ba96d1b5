//! A device behind a wire with the lab's faults.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use steadfast::device::{Capabilities, Device, Frame, Received};
use steadfast::stack::Instant;
use steadfast_lab::wire::{End, Wire};
use tokio::time::Sleep;

use crate::capture::{ip_at, set_checksum};

/// The wire, shared by the device and by those who look at what happened.
#[derive(Clone)]
pub(crate) struct Line(Arc<Mutex<Inner>>);

struct Inner {
    wire: Wire,
    /// When its time begins. Until then it is zero.
    start: Option<tokio::time::Instant>,
}

impl Inner {
    fn now(&self) -> Instant {
        Instant::ZERO + self.start.map_or_else(Default::default, |start| start.elapsed())
    }
}

impl Line {
    pub(crate) fn new(wire: Wire) -> Line {
        Line(Arc::new(Mutex::new(Inner { wire, start: None })))
    }

    /// Starts the time of the wire.
    pub(crate) fn start(&self) {
        self.lock().start = Some(tokio::time::Instant::now());
    }

    /// Looks at the wire.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Wire) -> R) -> R {
        look(&self.lock().wire)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device, at the end C of a wire whose end S is that of the stack.
pub(crate) struct Faulty<D> {
    device: D,
    line: Line,
    /// A packet for the device, which was full.
    waiting: Option<bytes::Bytes>,
    buffer: Vec<u8>,
    /// The Ethernet headers of the last packets from the device and to it. Empty where the device carries bare packets.
    headers: [Vec<u8>; 2],
    /// Fires when the wire has something to do.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<D: Device> Faulty<D> {
    /// `device` must have no segmentation offload: faults are about packets of the wire.
    pub(crate) fn new(device: D, line: Line) -> Faulty<D> {
        let buffer = vec![0; device.capabilities().frame_len()];
        Faulty { device, line, waiting: None, buffer, headers: Default::default(), alarm: None }
    }

    /// Writes what has come through the wire to the device, as far as it takes it.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let arrived = || self.line.lock().wire.arrived(End::C);
            let Some(packet) = self.waiting.take().or_else(arrived) else { return Ok(()) };
            let frame;
            let bytes = match &self.headers[TO_DEVICE][..] {
                [] => &packet[..],
                header => {
                    frame = [header, &packet].concat();
                    &frame[..]
                }
            };
            match self.device.poll_send(cx, Frame::new(bytes)) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => {
                    self.waiting = Some(packet);
                    return Ok(());
                }
            }
        }
    }

    /// Pending until the wire has something to do.
    fn poll_wire(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut line = self.line.lock();
        let now = line.now();
        line.wire.advance(now);
        let Some(next) = line.wire.next_at() else {
            self.alarm = None;
            return Poll::Pending;
        };
        // Before the start its time stands still.
        let Some(start) = line.start else { return Poll::Pending };
        drop(line);
        let due = start + next.saturating_since(Instant::ZERO);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        let fired = alarm.as_mut().poll(cx);
        if fired.is_ready() {
            self.alarm = None;
        }
        fired
    }
}

impl<D: Device> Device for Faulty<D> {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(self.device.capabilities().mtu);
        capabilities.ethernet = self.device.capabilities().ethernet;
        capabilities
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        loop {
            if let Err(error) = self.flush(cx) {
                return Poll::Ready(Err(error));
            }
            let arrived = self.line.lock().wire.arrived(End::S);
            let header = &self.headers[FROM_DEVICE];
            // A fault may have made it larger than any packet of the wire.
            if let Some(packet) = arrived.filter(|packet| header.len() + packet.len() <= buffer.len()) {
                let len = header.len() + packet.len();
                buffer[..header.len()].copy_from_slice(header);
                buffer[header.len()..len].copy_from_slice(&packet);
                return Poll::Ready(Ok(Received::new(len)));
            }
            match self.device.poll_recv(cx, &mut self.buffer) {
                Poll::Ready(Ok(received)) => {
                    let frame = &mut self.buffer[..received.len];
                    let Some(at) = ip_at(&self.device.capabilities(), frame) else {
                        // The link's own business.
                        buffer[..frame.len()].copy_from_slice(frame);
                        return Poll::Ready(Ok(received));
                    };
                    let (header, packet) = frame.split_at_mut(at);
                    self.headers[FROM_DEVICE] = header.to_vec();
                    if received.checksum_trusted {
                        set_checksum(packet);
                    }
                    let packet = bytes::Bytes::copy_from_slice(packet);
                    let mut line = self.line.lock();
                    let now = line.now();
                    line.wire.send(now, End::C, packet);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.poll_wire(cx).is_pending() && !self.has_arrivals() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        let Some(at) = ip_at(&self.device.capabilities(), frame.bytes) else {
            return self.device.poll_send(cx, frame);
        };
        self.headers[TO_DEVICE] = frame.bytes[..at].to_vec();
        let packet = bytes::Bytes::copy_from_slice(&frame.bytes[at..]);
        let mut line = self.line.lock();
        let now = line.now();
        line.wire.send(now, End::S, packet);
        drop(line);
        // The read side keeps the time of the wire, and takes what it answers.
        cx.waker().wake_by_ref();
        Poll::Ready(self.flush(cx))
    }
}

/// Indexes of `headers`.
const FROM_DEVICE: usize = 0;
const TO_DEVICE: usize = 1;

impl<D> Faulty<D> {
    /// Returns whether a packet can move on now. One that waits for the device cannot.
    fn has_arrivals(&self) -> bool {
        let line = self.line.lock();
        line.wire.has_arrived(End::S) || self.waiting.is_none() && line.wire.has_arrived(End::C)
    }
}

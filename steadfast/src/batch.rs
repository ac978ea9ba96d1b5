//! Packets between device and stack: many at a time, in buffers that are used again, so that the stack's lock is taken
//! once for all of them and never while the device is at work.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll};

use bytes::BytesMut;
use steadfast_core::{Bytes, Instant, Packet, PacketBytes, Stack, Transmit};
use steadfast_device::{Device, Frame};

use crate::queue::{Exchange, Handed};

/// Packets that one turn takes in, and sends out, at the most. Then tasks get to run that the turn has woken.
const PACKETS: usize = 64;

/// Bytes of them, about: what was just copied is still in the cache when it is looked at next.
const BYTES: usize = 256 * 1024;

/// From this size on, a packet is handed to the stack with its buffer, which spares a copy of the payload. Half a
/// buffer, so that a connection holds at most twice the memory that its queue counts.
const SHARED_FROM: usize = 32 * 1024;

/// Shared buffers that are kept to be used again.
const SPARE: usize = 64;

/// How moving packets in one direction ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// There was nothing more.
    Dry,
    /// The device has no room.
    Full,
    /// The batch was used up.
    Limited,
}

/// Packets that came from the device, for the stack.
pub(crate) struct Inbox {
    frame_len: usize,
    /// What the device reads into.
    buffer: BytesMut,
    /// Small packets, one after the other.
    small: Vec<u8>,
    packets: Vec<Arrived>,
    /// Buffers that the stack was given a share of. It is the only one left when the stack has let go.
    lent: VecDeque<Bytes>,
    /// What connects it to other queues of the device.
    exchange: Option<Exchange>,
}

/// A packet in the inbox.
struct Arrived {
    bytes: Place,
    checksum_trusted: bool,
}

enum Place {
    Small(Range<usize>),
    Shared(Bytes),
}

impl Inbox {
    pub(crate) fn new(frame_len: usize, exchange: Option<Exchange>) -> Inbox {
        Inbox {
            frame_len,
            buffer: BytesMut::zeroed(frame_len),
            small: Vec::new(),
            packets: Vec::new(),
            lent: VecDeque::new(),
            exchange,
        }
    }

    /// Takes what other queues handed over, and reads until the device has nothing more, or the batch is full.
    pub(crate) fn fill(&mut self, cx: &mut Context<'_>, device: &mut impl Device) -> io::Result<Flow> {
        while self.packets.len() < PACKETS
            && let Some(Handed { bytes, checksum_trusted }) =
                self.exchange.as_mut().and_then(|exchange| exchange.poll(cx))
        {
            self.packets.push(Arrived { bytes: Place::Shared(bytes), checksum_trusted });
        }
        let mut total = 0;
        while self.packets.len() < PACKETS && total < BYTES {
            let received = match device.poll_recv(cx, &mut self.buffer) {
                Poll::Ready(Ok(received)) => received,
                Poll::Ready(Err(e)) if self.packets.is_empty() => return Err(e),
                // What came before the end comes first; the device says it again.
                Poll::Ready(Err(_)) => break,
                Poll::Pending => return Ok(Flow::Dry),
            };
            total += received.len;
            let packet = &self.buffer[..received.len];
            if let Some(exchange) = &self.exchange
                && !exchange.keeps(packet, received.checksum_trusted)
            {
                continue;
            }
            let bytes = self.place(received.len);
            self.packets.push(Arrived { bytes, checksum_trusted: received.checksum_trusted });
        }
        Ok(Flow::Limited)
    }

    fn place(&mut self, len: usize) -> Place {
        if len < SHARED_FROM {
            let start = self.small.len();
            self.small.extend_from_slice(&self.buffer[..len]);
            return Place::Small(start..start + len);
        }
        let fresh = self.spare_buffer();
        let whole = std::mem::replace(&mut self.buffer, fresh).freeze();
        let packet = whole.slice(..len);
        self.lent.push_back(whole);
        Place::Shared(packet)
    }

    /// A buffer that nobody holds any more, the one that was lent first if possible.
    fn spare_buffer(&mut self) -> BytesMut {
        if let Some(free) = self.lent.iter().position(Bytes::is_unique)
            && let Some(buffer) = self.lent.remove(free)
            && let Ok(buffer) = buffer.try_into_mut()
        {
            return buffer;
        }
        if self.lent.len() >= SPARE {
            self.lent.pop_front();
        }
        BytesMut::zeroed(self.frame_len)
    }

    /// Hands everything to the stack.
    pub(crate) fn deliver(&mut self, now: Instant, stack: &mut Stack) {
        for Arrived { bytes, checksum_trusted } in self.packets.drain(..) {
            let bytes = match bytes {
                Place::Small(range) => PacketBytes::Borrowed(&self.small[range]),
                Place::Shared(bytes) => PacketBytes::Shared(bytes),
            };
            stack.receive(now, Packet { bytes, checksum_trusted });
        }
        self.small.clear();
    }
}

/// Packets that came from the stack, for the device.
pub(crate) struct Outbox {
    frame_len: usize,
    arena: Vec<u8>,
    /// Where each lies in the arena.
    frames: VecDeque<(usize, Transmit)>,
}

impl Outbox {
    pub(crate) fn new(frame_len: usize) -> Outbox {
        let arena = vec![0; (PACKETS * frame_len).min(BYTES.max(frame_len))];
        Outbox { frame_len, arena, frames: VecDeque::new() }
    }

    /// Takes what the stack has to send, unless something waits for the device already.
    pub(crate) fn fill(&mut self, now: Instant, stack: &mut Stack) -> Flow {
        if !self.frames.is_empty() {
            return Flow::Full;
        }
        let mut at = 0;
        while self.frames.len() < PACKETS && at + self.frame_len <= self.arena.len() {
            let Some(packet) = stack.transmit(now, &mut self.arena[at..]) else { return Flow::Dry };
            self.frames.push_back((at, packet));
            at += packet.len;
        }
        Flow::Limited
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Writes until everything is sent or the device is full. Says which of the two.
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, device: &mut impl Device) -> io::Result<Flow> {
        while let Some(&(at, packet)) = self.frames.front() {
            let mut frame = Frame::new(&self.arena[at..at + packet.len]);
            frame.segment_size = packet.segment_size;
            frame.checksum_offload = packet.checksum_offload;
            match device.poll_send(cx, frame) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => return Ok(Flow::Full),
            }
            self.frames.pop_front();
        }
        Ok(Flow::Dry)
    }
}

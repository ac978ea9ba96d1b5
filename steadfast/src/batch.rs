//! Moves packets between device and stack in batches. Buffers are reused. The stack's lock is taken once per batch, and
//! never while the device works.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use steadfast_core::{Bytes, Instant, InterfaceId, Packet, PacketBytes, Stack, Transmit};
use steadfast_device::{Device, Frame};

use crate::queue::{Exchange, Handed};

/// Most packets that one turn takes in, and most that it sends. After that the tasks run that the turn has woken. A
/// turn also takes in at most `netdev_max_backlog`.
const PACKETS: usize = 64;

/// Soft limit of a batch in bytes: what was just copied is still in the cache when it is read next.
const BYTES: usize = 256 * 1024;

/// Largest answer in bytes: a SYN-ACK or a RST over IPv6.
const ANSWER: usize = 100;

/// Size in bytes from which a packet is handed to the stack with its buffer, which saves a copy of the payload. It is
/// half a buffer, so that a connection holds at most twice the memory that its queue counts.
const SHARED_FROM: usize = 32 * 1024;

/// A frame that waits for the device is late after this time. No timer of the stack is finer.
pub(crate) const LATE: Duration = Duration::from_millis(1);

/// Most shared buffers kept for reuse.
const SPARE: usize = 64;

/// How moving packets in one direction ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Nothing is left to move.
    Dry,
    /// The device has no room.
    Full,
    /// The budget of the batch is spent.
    Limited,
}

/// Packets from the device, for the stack.
pub(crate) struct Inbox {
    frame_len: usize,
    /// Most packets of one batch.
    limit: usize,
    /// The bytes of small packets, one after the other. The device reads into it, if all of its packets are small.
    small: Vec<u8>,
    /// Length of the packets in `small`.
    used: usize,
    /// The device reads into it, if its packets may be large.
    buffer: BytesMut,
    packets: Vec<Arrived>,
    /// Buffers shared with the stack. Once the stack has dropped its reference, ours is the only one.
    lent: VecDeque<Bytes>,
    /// Connects it to the other queues of the device.
    exchange: Option<Exchange>,
    /// Packets dropped because the queue that owns them was full. The stack counts them at the next delivery.
    dropped: u64,
}

/// The rest of a batch.
struct Budget {
    packets: usize,
    bytes: usize,
}

impl Budget {
    fn is_left(&self) -> bool {
        self.packets > 0 && self.bytes > 0
    }

    fn spend(&mut self, bytes: usize) {
        self.packets -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Takes half of the budget away, rounded down, and returns it.
    fn split(&mut self) -> Budget {
        let half = Budget { packets: self.packets / 2, bytes: self.bytes / 2 };
        self.packets -= half.packets;
        self.bytes -= half.bytes;
        half
    }

    /// Gives back the rest of the half.
    fn add(&mut self, half: Budget) {
        self.packets += half.packets;
        self.bytes += half.bytes;
    }
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
    pub(crate) fn new(frame_len: usize, max_backlog: usize, exchange: Option<Exchange>) -> Inbox {
        // One packet each for the own device and the other queues.
        let least = if exchange.is_some() { 2 } else { 1 };
        let (small, buffer) =
            if are_small(frame_len) { (small_packets(frame_len), 0) } else { (0, frame_len) };
        Inbox {
            frame_len,
            limit: PACKETS.min(max_backlog).max(least),
            small: vec![0; small],
            used: 0,
            buffer: BytesMut::zeroed(buffer),
            packets: Vec::new(),
            lent: VecDeque::new(),
            exchange,
            dropped: 0,
        }
    }

    /// Lets `devices` devices share the packets of a turn.
    pub(crate) fn share(&mut self, devices: usize, max_backlog: usize) {
        self.limit = (PACKETS / devices.max(1)).max(4).min(max_backlog).max(1);
    }

    /// Takes the packets that other queues handed over and reads the device, until both are empty or the batch is full.
    /// While both have more, each gets half of the batch.
    ///
    /// `pressed` says that the last turn could not send everything that the stack had. It halves the batch: each packet
    /// may draw an answer, and answers get half of the outgoing packets.
    pub(crate) fn fill(
        &mut self,
        cx: &mut Context<'_>,
        device: &mut impl Device,
        pressed: bool,
    ) -> io::Result<Flow> {
        let mut budget = Budget { packets: self.batch(pressed), bytes: BYTES };
        if self.exchange.is_none() {
            return self.read(cx, device, &mut budget);
        }
        let mut half = budget.split();
        self.take_over(cx, &mut half);
        budget.add(half);
        let read = self.read(cx, device, &mut budget)?;
        // Uses the part of the budget that the device left.
        let taken_over = self.take_over(cx, &mut budget);
        Ok(if read == Flow::Dry { taken_over } else { read })
    }

    /// Most packets of the next batch.
    fn batch(&self, pressed: bool) -> usize {
        if pressed { self.limit.min(PACKETS / 2) } else { self.limit }
    }

    /// Takes packets that other queues handed over.
    fn take_over(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Flow {
        let Some(exchange) = &mut self.exchange else { return Flow::Dry };
        while budget.is_left() {
            let Some(Handed { bytes, checksum_trusted }) = exchange.poll(cx) else { return Flow::Dry };
            budget.spend(bytes.len());
            self.packets.push(Arrived { bytes: Place::Shared(bytes), checksum_trusted });
        }
        Flow::Limited
    }

    /// Reads the device. Packets for other queues are handed over, and count against the budget.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        device: &mut impl Device,
        budget: &mut Budget,
    ) -> io::Result<Flow> {
        while budget.is_left() {
            let buffer = if are_small(self.frame_len) {
                &mut self.small[self.used..][..self.frame_len]
            } else {
                &mut self.buffer[..]
            };
            let received = match device.poll_recv(cx, buffer) {
                Poll::Ready(Ok(received)) => received,
                Poll::Ready(Err(e)) if self.packets.is_empty() => return Err(e),
                // Deliver first what came before the error; the device returns it again.
                Poll::Ready(Err(_)) => break,
                Poll::Pending => return Ok(Flow::Dry),
            };
            let Some(packet) = buffer.get(..received.len) else {
                let (said, had) = (received.len, buffer.len());
                let text = format!("the device says that it read {said} bytes into a buffer of {had}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            };
            budget.spend(received.len);
            if let Some(exchange) = &self.exchange
                && !exchange.keeps(packet, received.checksum_trusted, &mut self.dropped)
            {
                continue;
            }
            let bytes = self.place(received.len);
            self.packets.push(Arrived { bytes, checksum_trusted: received.checksum_trusted });
        }
        Ok(Flow::Limited)
    }

    fn place(&mut self, len: usize) -> Place {
        if are_small(len) {
            let start = self.used;
            self.used += len;
            if !are_small(self.frame_len) {
                self.small.extend_from_slice(&self.buffer[..len]);
            }
            return Place::Small(start..self.used);
        }
        let fresh = self.spare_buffer();
        let whole = std::mem::replace(&mut self.buffer, fresh).freeze();
        let packet = whole.slice(..len);
        self.lent.push_back(whole);
        Place::Shared(packet)
    }

    /// Returns a buffer that nobody else holds, preferably the one that was lent first.
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

    /// The packets that were read, and whether their checksums are trusted.
    #[cfg(all(feature = "control", unix))]
    pub(crate) fn packets(&self) -> impl Iterator<Item = (&[u8], bool)> {
        self.packets.iter().map(|Arrived { bytes, checksum_trusted }| {
            let bytes = match bytes {
                Place::Small(range) => &self.small[range.clone()],
                Place::Shared(bytes) => &bytes[..],
            };
            (bytes, *checksum_trusted)
        })
    }

    /// Delivers all packets to the stack.
    pub(crate) fn deliver(&mut self, now: Instant, stack: &mut Stack, interface: InterfaceId) {
        for Arrived { bytes, checksum_trusted } in self.packets.drain(..) {
            let bytes = match bytes {
                Place::Small(range) => PacketBytes::Borrowed(&self.small[range]),
                Place::Shared(bytes) => PacketBytes::Shared(bytes),
            };
            stack.receive(now, Packet::new(bytes, checksum_trusted).on(interface));
        }
        self.used = 0;
        if !are_small(self.frame_len) {
            self.small.clear();
        }
        stack.count_backlog_drops(std::mem::take(&mut self.dropped));
    }
}

/// Whether packets of at most this length are copied, and never shared with the stack.
fn are_small(len: usize) -> bool {
    len < SHARED_FROM
}

/// The room that a batch of packets of at most `frame_len` bytes takes.
fn small_packets(frame_len: usize) -> usize {
    (PACKETS * frame_len).min(BYTES + frame_len)
}

/// Packets from the stack, for the device.
pub(crate) struct Outbox {
    frame_len: usize,
    arena: Vec<u8>,
    frames: VecDeque<Filled>,
    /// Payloads that the stack did not copy. They are dropped once all frames are sent.
    slices: Vec<Bytes>,
    /// When the frames count as sent.
    sent: Instant,
}

/// A frame in the arena.
struct Filled {
    at: usize,
    packet: Transmit,
    /// Its payload among the slices, if it is not in the arena.
    slices: Range<usize>,
}

impl Outbox {
    pub(crate) fn new(frame_len: usize) -> Outbox {
        Outbox {
            frame_len,
            arena: vec![0; arena_len(frame_len)],
            frames: VecDeque::new(),
            slices: Vec::new(),
            sent: Instant::ZERO,
        }
    }

    /// Tells the stack of the frames that the device has not taken: they leave now at the earliest.
    pub(crate) fn delay(&mut self, now: Instant, stack: &mut Stack) {
        if !self.frames.is_empty() && now.saturating_since(self.sent) >= LATE {
            self.sent = now;
            for Filled { at, packet, .. } in &self.frames {
                stack.delay(now, &self.arena[*at..at + packet.len], packet);
            }
        }
    }

    /// Makes room for frames of this length.
    pub(crate) fn grow(&mut self, frame_len: usize) {
        if frame_len > self.frame_len {
            self.frame_len = frame_len;
            self.arena.resize(arena_len(frame_len), 0);
        }
    }

    /// Takes packets from the stack, unless some still wait for the device. `gathers`: the device takes slices. A batch is
    /// as long as without them.
    pub(crate) fn fill(&mut self, now: Instant, stack: &mut Stack, gathers: bool) -> Flow {
        if !self.frames.is_empty() {
            return Flow::Full;
        }
        self.sent = now;
        let (mut at, mut sliced) = (0, 0);
        while self.frames.len() < PACKETS && at + sliced + self.frame_len <= self.arena.len() {
            let (frame, first) = (&mut self.arena[at..], self.slices.len());
            let packet = match gathers {
                true => stack.transmit_slices(now, frame, &mut self.slices),
                false => stack.transmit(now, frame),
            };
            let Some(packet) = packet else { return Flow::Dry };
            self.frames.push_back(Filled { at, packet, slices: first..self.slices.len() });
            at += packet.len;
            sliced += packet.sliced;
        }
        Flow::Limited
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Writes until everything is sent (`Dry`) or the device is full (`Full`).
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, device: &mut impl Device) -> io::Result<Flow> {
        while let Some((frame, _)) = self.front() {
            match device.poll_send(cx, frame) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => return Ok(Flow::Full),
            }
            self.frames.pop_front();
        }
        self.slices.clear();
        Ok(Flow::Dry)
    }

    fn front(&self) -> Option<(Frame<'_>, Transmit)> {
        let first = self.frames.front()?;
        Some((self.frame(first), first.packet))
    }

    fn frame(&self, Filled { at, packet, slices }: &Filled) -> Frame<'_> {
        let mut frame = frame(&self.arena[*at..at + packet.len], packet);
        frame.slices = &self.slices[slices.clone()];
        frame
    }

    /// The packets that wait for their devices, each with its interface.
    #[cfg(all(feature = "control", unix))]
    pub(crate) fn frames(&self) -> impl Iterator<Item = (Frame<'_>, InterfaceId)> {
        self.frames.iter().map(|filled| (self.frame(filled), filled.packet.interface))
    }

    /// Hands over each packet to `send`, which copies it if the device is full.
    pub(crate) fn drain<E>(
        &mut self,
        mut send: impl FnMut(Frame<'_>, Transmit) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some((frame, packet)) = self.front() {
            send(frame, packet)?;
            self.frames.pop_front();
        }
        self.slices.clear();
        Ok(())
    }
}

/// Room for the answers to a batch, besides as many 64 KiB frames as fit without them.
fn arena_len(frame_len: usize) -> usize {
    (PACKETS * frame_len).min(BYTES.max(frame_len) + PACKETS * ANSWER)
}

/// Returns the frame of a packet of the stack.
pub(crate) fn frame<'a>(bytes: &'a [u8], packet: &Transmit) -> Frame<'a> {
    let mut frame = Frame::new(bytes);
    frame.segment_size = packet.segment_size;
    frame.checksum_offload = packet.checksum_offload;
    frame
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::task::Waker;

    use steadfast_core::steer::{Steer, Steering};
    use steadfast_core::wire::{PROTOCOL_TCP, build, ipv4};
    use steadfast_device::{Capabilities, Received};

    use super::*;

    /// A device with this many copies of one packet left.
    struct Device(usize, Vec<u8>);

    impl steadfast_device::Device for Device {
        fn capabilities(&self) -> Capabilities {
            Capabilities::new(1500)
        }

        fn poll_recv(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
            let Some(left) = self.0.checked_sub(1) else { return Poll::Pending };
            self.0 = left;
            buffer[..self.1.len()].copy_from_slice(&self.1);
            Poll::Ready(Ok(Received::new(self.1.len())))
        }

        fn poll_send(&mut self, _: &mut Context<'_>, _: Frame<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn steering() -> Steering {
        Steering::new(&[1; 32], 2)
    }

    /// A packet that queue number `queue` owns.
    fn packet_for(queue: u16) -> Vec<u8> {
        let packet = |host: u8| {
            let (source, destination) = (Ipv4Addr::new(10, 0, 1, host), Ipv4Addr::new(10, 0, 0, 1));
            build::ipv4(&ipv4::Header::new(source, destination, PROTOCOL_TCP), &[0; 20])
        };
        (0..=255)
            .map(packet)
            .find(|packet| steering().steer(packet) == Steer::To(queue))
            .expect("one is for it")
    }

    fn exchanges(max_backlog: usize) -> [Exchange; 2] {
        <[Exchange; 2]>::try_from(Exchange::all(steering(), 2, max_backlog)).ok().expect("two")
    }

    /// Hands `packets` packets to queue 0. Returns how many of them were dropped because it was full.
    fn hand_over(from: &Exchange, packets: usize) -> u64 {
        let mut dropped = 0;
        for _ in 0..packets {
            assert!(!from.keeps(&packet_for(0), false, &mut dropped));
        }
        dropped
    }

    /// Lets queue 0 take in a batch, from `handed` packets of queue 1 and `own` packets on its own device for queue
    /// `to`. Returns how many handed-over packets it took, how many packets the device still has, and how the batch
    /// ended.
    fn taken(handed: usize, own: usize, to: u16, pressed: bool) -> (usize, usize, Flow) {
        taken_of(1000, handed, own, to, pressed)
    }

    /// The same with another `netdev_max_backlog`.
    fn taken_of(
        max_backlog: usize,
        handed: usize,
        own: usize,
        to: u16,
        pressed: bool,
    ) -> (usize, usize, Flow) {
        let [first, second] = exchanges(max_backlog);
        hand_over(&second, handed);
        let (mut inbox, mut device) =
            (Inbox::new(1500, max_backlog, Some(first)), Device(own, packet_for(to)));
        let mut cx = Context::from_waker(Waker::noop());
        let Ok(flow) = inbox.fill(&mut cx, &mut device, pressed) else { panic!("the device has not failed") };
        let taken_over =
            inbox.packets.iter().filter(|packet| matches!(packet.bytes, Place::Shared(_))).count();
        (taken_over, device.0, flow)
    }

    #[test]
    fn what_is_handed_over_and_the_own_device_share_a_batch() {
        assert!(taken(100, 100, 0, false) == (PACKETS / 2, 100 - PACKETS / 2, Flow::Limited));
        assert!(taken(100, 100, 0, true) == (PACKETS / 4, 100 - PACKETS / 4, Flow::Limited));
        // Either source gets what the other does not need.
        assert!(taken(100, 0, 0, false) == (PACKETS, 0, Flow::Limited));
        assert!(taken(100, 10, 0, false) == (PACKETS - 10, 0, Flow::Limited));
        assert!(taken(0, 100, 0, false) == (0, 100 - PACKETS, Flow::Limited));
        assert!(taken(10, 100, 0, false) == (10, 100 - (PACKETS - 10), Flow::Limited));
        assert!(taken(10, 10, 0, false) == (10, 0, Flow::Dry));
    }

    #[test]
    fn what_a_queue_only_hands_over_counts_as_well() {
        assert!(taken(0, 100, 1, false) == (0, 100 - PACKETS, Flow::Limited));
    }

    #[test]
    fn what_waits_for_a_queue_is_bounded_by_netdev_max_backlog() {
        for max_backlog in [1, 3, 3000] {
            let [_first, second] = exchanges(max_backlog);
            assert_eq!(hand_over(&second, max_backlog), 0);
            assert_eq!(hand_over(&second, 5), 5);
        }
    }

    #[test]
    fn a_queue_has_room_again_when_it_has_taken_what_waited() {
        let [first, second] = exchanges(3);
        assert_eq!(hand_over(&second, 4), 1);
        let mut inbox = Inbox::new(1500, 3, Some(first));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(inbox.fill(&mut cx, &mut Device(0, Vec::new()), false).is_ok());
        assert_eq!(hand_over(&second, 4), 1);
    }

    #[test]
    fn the_stack_counts_what_its_driver_dropped() {
        let [_first, second] = exchanges(10);
        let mut inbox = Inbox::new(1500, 10, Some(second));
        let mut cx = Context::from_waker(Waker::noop());
        let mut device = Device(12, packet_for(0));
        let interface = steadfast_core::Interface::new(1500, [(Ipv4Addr::new(10, 0, 0, 1).into(), 24)]);
        let mut stack = Stack::new(steadfast_core::Config::default(), interface);
        for dropped in [0, 2] {
            assert!(inbox.fill(&mut cx, &mut device, false).is_ok());
            inbox.deliver(Instant::ZERO, &mut stack, InterfaceId::FIRST);
            assert_eq!(stack.counters().softnet_dropped, dropped);
        }
    }

    #[test]
    fn a_turn_reads_no_more_than_netdev_max_backlog() {
        let alone = |max_backlog: usize| {
            let (mut inbox, mut device) = (Inbox::new(1500, max_backlog, None), Device(100, packet_for(0)));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(inbox.fill(&mut cx, &mut device, false).is_ok());
            100 - device.0
        };
        assert_eq!([1, 10, PACKETS, PACKETS + 1].map(alone), [1, 10, PACKETS, PACKETS]);
        assert!(taken_of(10, 100, 100, 0, false) == (5, 95, Flow::Limited));
        // Neither of the two is left with nothing.
        assert!(taken_of(1, 100, 100, 0, false) == (1, 99, Flow::Limited));
    }
}

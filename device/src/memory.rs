//! Devices in memory: two with a wire between them, and one that leads nowhere.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::{Capabilities, Device, Frame, HardwareAddress, Received};

/// Frames that a wire holds in each direction. A sender waits while it is full.
pub const QUEUE_LEN: usize = 256;

/// Creates two connected devices: a packet sent into one comes out of the other, in order and unchanged. Packets above
/// `mtu` bytes are lost.
///
/// Once one device is dropped, the other fails with `NetworkDown`. Packets sent before are still received.
///
/// ```
/// use std::future::poll_fn;
///
/// use steadfast_device::{Device, Frame, memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (mut left, mut right) = memory::pair(1500);
/// poll_fn(|cx| left.poll_send(cx, Frame::new(b"a packet"))).await?;
/// let mut buffer = [0; 1500];
/// let received = poll_fn(|cx| right.poll_recv(cx, &mut buffer)).await?;
/// assert_eq!(&buffer[..received.len], b"a packet");
/// # Ok(())
/// # }
/// ```
pub fn pair(mtu: u16) -> (MemoryDevice, MemoryDevice) {
    connected(Capabilities::new(mtu))
}

/// Creates two connected devices with offload, like Linux's `veth`: a super-segment of up to 64 KiB crosses as one frame,
/// and no checksum is computed or verified. It carries bulk several times faster than [`pair`], which shows the packets
/// of a real wire.
///
/// ```
/// use steadfast_device::{Device, memory};
///
/// let (left, _right) = memory::pair_with_offload(1500);
/// assert!(left.capabilities().segmentation_offload);
/// ```
pub fn pair_with_offload(mtu: u16) -> (MemoryDevice, MemoryDevice) {
    connected(Capabilities { segmentation_offload: true, checksum_offload: true, ..Capabilities::new(mtu) })
}

/// Creates two connected devices that carry Ethernet frames, each with the hardware address of its end. An embedder, such
/// as a monitor of virtual machines in the same program, keeps one end and polls it.
///
/// ```
/// use steadfast_device::{Device, memory};
///
/// let addresses = ["02:00:00:00:00:01", "02:00:00:00:00:02"].map(|text| text.parse().unwrap());
/// let (left, right) = memory::frames(1500, addresses);
/// assert_eq!([left.capabilities().ethernet, right.capabilities().ethernet], addresses.map(Some));
/// ```
pub fn frames(mtu: u16, [left, right]: [HardwareAddress; 2]) -> (MemoryDevice, MemoryDevice) {
    let (mut ours, mut theirs) = pair(mtu);
    ours.capabilities.ethernet = Some(left);
    theirs.capabilities.ethernet = Some(right);
    (ours, theirs)
}

fn connected(capabilities: Capabilities) -> (MemoryDevice, MemoryDevice) {
    let (a, b) = (Arc::new(Wire::default()), Arc::new(Wire::default()));
    let left = MemoryDevice { capabilities, incoming: a.clone(), outgoing: b.clone() };
    let right = MemoryDevice { capabilities, incoming: b, outgoing: a };
    (left, right)
}

/// Creates a device that leads nowhere: nothing arrives, and packets sent into it are lost. It is for a network that
/// only connects to its own addresses, which takes no device. Its MTU is 65,535 bytes, about that of Linux's `lo`.
///
/// ```
/// use steadfast_device::{Device, memory};
///
/// let device = memory::loopback();
/// assert_eq!(device.capabilities().mtu, 65_535);
/// ```
pub fn loopback() -> Loopback {
    Loopback(())
}

/// A device that leads nowhere: see [`loopback`].
#[derive(Debug)]
pub struct Loopback(());

impl Device for Loopback {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(u16::MAX)
    }

    fn poll_recv(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<Received>> {
        Poll::Pending
    }

    fn poll_send(&mut self, _: &mut Context<'_>, _: Frame<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// One end of a [`pair`] or of a [`pair_with_offload`].
#[derive(Debug)]
pub struct MemoryDevice {
    capabilities: Capabilities,
    incoming: Arc<Wire>,
    outgoing: Arc<Wire>,
}

impl Device for MemoryDevice {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        // A checksum that nobody computed cannot be verified. The memory of a program does not alter packets.
        let checksum_trusted = self.capabilities.checksum_offload;
        self.incoming.poll(
            cx,
            |queue| &mut queue.receiver,
            |queue, woken| {
                let Some(frame) = queue.frames.pop_front() else {
                    return if queue.cut { Poll::Ready(Err(cut())) } else { Poll::Pending };
                };
                let Some(place) = buffer.get_mut(..frame.len()) else {
                    let text = format!("a frame of {} bytes for a buffer of {}", frame.len(), buffer.len());
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, text)));
                };
                place.copy_from_slice(&frame);
                let len = frame.len();
                queue.keep(frame);
                // Wake a waiting sender for half a queue of room, not for each frame.
                if queue.frames.len() <= QUEUE_LEN / 2 {
                    *woken = queue.sender.wake();
                }
                Poll::Ready(Ok(Received { len, checksum_trusted }))
            },
        )
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        let longest = match frame.segment_size {
            // The stack cut it for the segments' MTU.
            Some(_) if self.capabilities.segmentation_offload => self.capabilities.frame_len(),
            _ => Capabilities { segmentation_offload: false, ..self.capabilities }.frame_len(),
        };
        self.outgoing.poll(
            cx,
            |queue| &mut queue.sender,
            |queue, woken| {
                if queue.cut {
                    return Poll::Ready(Err(cut()));
                }
                if frame.packet_len() > longest {
                    // A real link also drops a packet above its MTU.
                    return Poll::Ready(Ok(()));
                }
                if queue.frames.len() >= QUEUE_LEN {
                    return Poll::Pending;
                }
                let mut place = queue.spare.pop().unwrap_or_default();
                frame.copy_to(&mut place);
                queue.frames.push_back(place);
                *woken = queue.receiver.wake();
                Poll::Ready(Ok(()))
            },
        )
    }

    fn gathers(&self) -> bool {
        true
    }
}

impl Drop for MemoryDevice {
    fn drop(&mut self) {
        for wire in [&self.incoming, &self.outgoing] {
            let mut queue = wire.lock();
            queue.cut = true;
            let waiting = [queue.sender.wake(), queue.receiver.wake()];
            drop(queue);
            waiting.into_iter().flatten().for_each(|waker| waker.wake_by_ref());
        }
    }
}

#[derive(Debug, Default)]
struct Wire(Mutex<Queue>);

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `attempt`, and registers the waker in its slot if the result is pending. Wakers are cloned, woken and
    /// dropped with the lock released, because they run foreign code.
    fn poll<R>(
        &self,
        cx: &Context<'_>,
        slot: impl Fn(&mut Queue) -> &mut Waiter,
        mut attempt: impl FnMut(&mut Queue, &mut Option<Arc<Waker>>) -> Poll<R>,
    ) -> Poll<R> {
        let (mut clone, mut woken) = (None, None);
        loop {
            let mut queue = self.lock();
            let polled = attempt(&mut queue, &mut woken);
            if polled.is_ready() {
                drop(queue);
                woken.into_iter().for_each(|waker| waker.wake_by_ref());
                return polled;
            }
            let slot = slot(&mut queue);
            let known = slot.waker.as_ref().is_some_and(|old| old.will_wake(cx.waker()));
            if known || clone.is_some() {
                slot.waits = true;
                if !known {
                    // `clone` now holds the old waker, which is dropped after the lock is released.
                    std::mem::swap(&mut slot.waker, &mut clone);
                }
                drop(queue);
                return Poll::Pending;
            }
            drop(queue);
            clone = Some(Arc::new(cx.waker().clone()));
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    /// Buffers for reuse. Otherwise one thread allocates each buffer and another one frees it.
    spare: Vec<Vec<u8>>,
    receiver: Waiter,
    sender: Waiter,
    cut: bool,
}

/// The task that waited last, and whether it still does. Its waker stays once it was woken, so that its next wait needs no
/// clone.
#[derive(Debug, Default)]
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

impl Queue {
    fn keep(&mut self, mut frame: Vec<u8>) {
        if self.spare.len() < QUEUE_LEN {
            frame.clear();
            self.spare.push(frame);
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::NetworkDown, "the other end of the wire is gone")
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;

    use super::*;

    async fn recv(device: &mut MemoryDevice) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 1500];
        let received = poll_fn(|cx| device.poll_recv(cx, &mut buffer)).await?;
        Ok(buffer[..received.len].to_vec())
    }

    async fn send(device: &mut MemoryDevice, bytes: &[u8]) -> io::Result<()> {
        poll_fn(|cx| device.poll_send(cx, Frame::new(bytes))).await
    }

    #[tokio::test]
    async fn frames_come_out_whole_and_in_order() {
        let (mut a, mut b) = pair(1500);
        send(&mut a, b"one").await.unwrap();
        send(&mut a, b"two").await.unwrap();
        assert_eq!(recv(&mut b).await.unwrap(), b"one");
        assert_eq!(recv(&mut b).await.unwrap(), b"two");
    }

    #[tokio::test]
    async fn a_full_wire_makes_the_sender_wait_and_wakes_it() {
        let (mut a, mut b) = pair(1500);
        for _ in 0..QUEUE_LEN {
            send(&mut a, b"x").await.unwrap();
        }
        let sender = tokio::spawn(async move {
            send(&mut a, b"last").await.unwrap();
            a
        });
        tokio::task::yield_now().await;
        assert!(!sender.is_finished());
        for _ in 0..QUEUE_LEN {
            assert_eq!(recv(&mut b).await.unwrap(), b"x");
        }
        let _a = sender.await.unwrap();
        assert_eq!(recv(&mut b).await.unwrap(), b"last");
    }

    #[tokio::test]
    async fn a_wire_whose_other_end_is_gone_says_so_after_what_was_sent() {
        let (mut a, mut b) = pair(1500);
        send(&mut a, b"bye").await.unwrap();
        drop(a);
        assert_eq!(recv(&mut b).await.unwrap(), b"bye");
        assert_eq!(recv(&mut b).await.unwrap_err().kind(), io::ErrorKind::NetworkDown);
        assert_eq!(send(&mut b, b"?").await.unwrap_err().kind(), io::ErrorKind::NetworkDown);
    }

    #[tokio::test]
    async fn a_frame_above_the_mtu_does_not_arrive() {
        let (mut a, mut b) = pair(100);
        send(&mut a, &[0; 101]).await.unwrap();
        send(&mut a, &[1; 100]).await.unwrap();
        assert_eq!(recv(&mut b).await.unwrap(), [1; 100]);
    }

    #[tokio::test]
    async fn a_frame_in_slices_crosses_as_one() {
        let (mut a, mut b) = pair(100);
        let slices = [&b"two, "[..], b"three"].map(Bytes::from_static);
        for (rest, expected) in [(&slices[..], &b"one, two, three"[..]), (&[], b"one, ")] {
            let frame = Frame { slices: rest, ..Frame::new(b"one, ") };
            assert_eq!(frame.packet_len(), expected.len());
            poll_fn(|cx| a.poll_send(cx, frame)).await.unwrap();
            assert_eq!(recv(&mut b).await.unwrap(), expected);
        }
        // The length of all of it counts.
        let long = [Bytes::from_static(&[0; 96])];
        poll_fn(|cx| a.poll_send(cx, Frame { slices: &long, ..Frame::new(b"long ") })).await.unwrap();
        send(&mut a, b"next").await.unwrap();
        assert_eq!(recv(&mut b).await.unwrap(), b"next");
    }

    #[tokio::test]
    async fn with_offload_a_super_segment_crosses_whole_and_a_long_packet_does_not() {
        let (mut a, mut b) = pair_with_offload(100);
        send(&mut a, &[0; 101]).await.unwrap();
        let frame = Frame { segment_size: Some(60), checksum_offload: true, ..Frame::new(&[1; 1000]) };
        poll_fn(|cx| a.poll_send(cx, frame)).await.unwrap();
        let mut buffer = [0; 1500];
        let received = poll_fn(|cx| b.poll_recv(cx, &mut buffer)).await.unwrap();
        assert_eq!((received.len, received.checksum_trusted), (1000, true));
    }
}

//! A wire with faults between two networks of a program (feature `lab`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use steadfast_core::Instant;
use steadfast_device::{Capabilities, Device, Frame, Received};
pub use steadfast_lab::path::Setup;
use steadfast_lab::path::{Fate, Parcel, Path};
use tokio::time::Sleep;

/// Packets that a direction holds beside those of its path's queue. A sender loses more.
const ARRIVING: usize = 65_536;

/// Creates two connected devices whose wire has the faults of the lab: `there` acts on packets of the first device,
/// `back` on those of the second. Both are paths in the words of the lab's scenarios, such as `delay 20ms rate 10mbit
/// queue 100 loss 1%`; `docs/scenario-language.md` has them all. The same `seed` loses the same packets by number.
///
/// Time is that of Tokio. With `tokio::time::pause` a test takes none of its own, and each run is the same. Packets
/// arrive at full milliseconds, as far as Tokio's timer goes.
///
/// `gro` has no effect. Packets above `mtu` bytes are lost. Once one device is dropped, the other fails with `NetworkDown` after the packets
/// that are on their way.
///
/// ```
/// use steadfast::{Net, TcpListener, TcpStream, lab};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (left, right) = lab::pair(1500, "delay 20ms loss 10%".parse()?, "delay 20ms".parse()?, 1);
/// let client = Net::builder().address([10, 9, 0, 1], 24).start(left)?;
/// let server = Net::builder().address([10, 9, 0, 2], 24).start(right)?;
/// let listener = TcpListener::bind(&server, "10.9.0.2:80").await?;
/// let mut stream = TcpStream::connect(&client, "10.9.0.2:80").await?;
/// let (mut accepted, _) = listener.accept().await?;
/// let mut buffer = vec![0; 100_000];
/// tokio::try_join!(stream.write_all(&[7; 100_000]), accepted.read_exact(&mut buffer))?;
/// assert!(client.counters().retrans_segs > 0);
/// # Ok(())
/// # }
/// ```
pub fn pair(mtu: u16, there: Setup, back: Setup, seed: u64) -> (PathDevice, PathDevice) {
    let start = tokio::time::Instant::now();
    // Each direction draws its own numbers.
    let [there, back] = [(there, seed), (back, !seed)].map(|(setup, seed)| {
        Arc::new(Direction(Mutex::new(Half {
            // A device delivers packets as they were sent.
            path: Path::new(Setup { gro: None, ..setup }, seed),
            arriving: BinaryHeap::new(),
            sent: 0,
            receiver: None,
            cut: false,
        })))
    });
    let device = |outgoing: &Arc<Direction>, incoming: &Arc<Direction>| PathDevice {
        mtu,
        start,
        outgoing: outgoing.clone(),
        incoming: incoming.clone(),
        alarm: None,
    };
    (device(&there, &back), device(&back, &there))
}

/// One end of a [`pair`].
pub struct PathDevice {
    mtu: u16,
    start: tokio::time::Instant,
    outgoing: Arc<Direction>,
    incoming: Arc<Direction>,
    /// Fires when a packet arrives, or when the path has something to decide.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for PathDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathDevice").field("mtu", &self.mtu).finish_non_exhaustive()
    }
}

struct Direction(Mutex<Half>);

struct Half {
    path: Path<()>,
    /// Packets by their arrival, and by their number where it is the same.
    arriving: BinaryHeap<Reverse<(Instant, u64, Bytes)>>,
    sent: u64,
    receiver: Option<Waker>,
    cut: bool,
}

impl Direction {
    fn lock(&self) -> MutexGuard<'_, Half> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Half {
    /// Takes from the path what it has decided.
    fn settle(&mut self, now: Instant) {
        while let Some(fate) = self.path.poll(now) {
            if let Fate::Arrives { at, parcel, .. } = fate
                && self.arriving.len() < ARRIVING
            {
                self.sent += 1;
                self.arriving.push(Reverse((at, self.sent, parcel.bytes)));
            }
        }
    }

    /// When the next packet arrives, or the path decides.
    fn next_at(&self) -> Option<Instant> {
        let arrival = self.arriving.peek().map(|Reverse((at, ..))| *at);
        arrival.into_iter().chain(self.path.poll_at()).min()
    }
}

impl PathDevice {
    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }
}

impl Device for PathDevice {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(self.mtu)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
        loop {
            let now = self.now();
            let mut half = self.incoming.lock();
            half.settle(now);
            if half.arriving.peek().is_some_and(|Reverse((at, ..))| *at <= now)
                && let Some(Reverse((.., packet))) = half.arriving.pop()
            {
                buffer[..packet.len()].copy_from_slice(&packet);
                return Poll::Ready(Ok(Received::new(packet.len())));
            }
            let next = half.next_at();
            if half.cut && next.is_none() {
                return Poll::Ready(Err(gone()));
            }
            // The old waker is foreign code: it is dropped once the lock is free.
            let old = half.receiver.replace(cx.waker().clone());
            drop(half);
            drop(old);
            let Some(next) = next else {
                self.alarm = None;
                return Poll::Pending;
            };
            let due = self.start + next.saturating_since(Instant::ZERO);
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if alarm.deadline() != due {
                alarm.as_mut().reset(due);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.alarm = None;
        }
    }

    fn poll_send(&mut self, _: &mut Context<'_>, frame: Frame<'_>) -> Poll<io::Result<()>> {
        if frame.bytes.len() > usize::from(self.mtu) {
            return Poll::Ready(Ok(()));
        }
        let now = self.now();
        let mut half = self.outgoing.lock();
        if half.cut {
            return Poll::Ready(Err(gone()));
        }
        half.path.offer(now, Parcel { bytes: Bytes::copy_from_slice(frame.bytes), tag: () });
        half.settle(now);
        let receiver = half.receiver.take();
        drop(half);
        receiver.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl Drop for PathDevice {
    fn drop(&mut self) {
        for direction in [&self.incoming, &self.outgoing] {
            let mut half = direction.lock();
            half.cut = true;
            let receiver = half.receiver.take();
            drop(half);
            receiver.into_iter().for_each(Waker::wake);
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NetworkDown, "the other end of the wire is gone")
}

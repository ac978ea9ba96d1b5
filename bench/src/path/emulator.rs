//! The path model between devices, by the clock of this machine.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time;

use bytes::Bytes;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use steadfast::device::{Device, Frame};
use steadfast_core::{Duration, Instant};
use steadfast_lab::path::{Fate, Parcel, Path, Setup, Stats};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::unconstrained;

use super::watch::{Copy, Seen, Watch};

/// Packets that a device may have in hand before the others have their turn.
const BATCH: usize = 32;
/// A packet due within this time is awaited without sleeping.
const SPIN: Duration = Duration::from_micros(30);

/// An order to the emulator.
pub(super) enum Order {
    /// Use these paths, from the senders to the receiver and back, with this seed.
    Begin { down: Box<Setup>, up: Box<Setup>, seed: u64 },
    /// Report on the round.
    End(oneshot::Sender<Report>),
}

/// The figures of a round, as the emulator saw it.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// The path from the senders to the receiver.
    pub(super) down: Stats,
    /// Transmissions and retransmissions.
    pub(super) seen: Seen,
    /// The 99th percentile of the emulator's delay beyond that of the model.
    pub(super) late: Duration,
}

/// A packet on its way out.
struct Due {
    at: Instant,
    order: u64,
    bytes: Bytes,
    down: bool,
}

impl Due {
    fn key(&self) -> (Instant, u64) {
        (self.at, self.order)
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// A timer of the kernel, which is finer than that of the runtime.
struct Timer {
    file: AsyncFd<OwnedFd>,
    armed: Option<Instant>,
}

impl Timer {
    fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, and this file is neither replaced nor closed before"
        )]
        let file = AsyncFd::new(timer)?;
        Ok(Timer { file, armed: None })
    }

    /// Wakes this task at `at`.
    fn poll(&mut self, cx: &mut Context<'_>, now: Instant, at: Instant) -> io::Result<()> {
        if self.armed != Some(at) {
            let left = at.saturating_since(now).max(Duration::from_nanos(1));
            let it_value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            timerfd_settime(&self.file, TimerfdTimerFlags::empty(), &once)?;
            self.armed = Some(at);
        }
        while let Poll::Ready(ready) = self.file.poll_read_ready(cx) {
            let mut ready = ready?;
            let mut fired = [0; 8];
            if rustix::io::read(&self.file, &mut fired).is_err() {
                ready.clear_ready();
                continue;
            }
            // Whatever is due now is seen in the next turn.
            self.armed = None;
            cx.waker().wake_by_ref();
            break;
        }
        Ok(())
    }
}

/// The emulator: a receiver on the near side, and senders on the far side, each with its address.
pub(super) struct Emulator {
    near: Box<dyn Device>,
    far: Vec<(Ipv4Addr, Box<dyn Device>)>,
    orders: mpsc::UnboundedReceiver<Order>,
    down: Path<Option<Copy>>,
    up: Path<()>,
    due: BinaryHeap<Reverse<Due>>,
    order: u64,
    watch: Watch,
    late: Vec<Duration>,
    /// The last packet was due then.
    last_due: Instant,
    timer: Timer,
    epoch: time::Instant,
    buffer: Vec<u8>,
}

impl Emulator {
    pub(super) fn new(
        near: Box<dyn Device>,
        far: Vec<(Ipv4Addr, Box<dyn Device>)>,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> io::Result<Emulator> {
        Ok(Emulator {
            near,
            far,
            orders,
            down: Path::new(Setup::default(), 0),
            up: Path::new(Setup::default(), 0),
            due: BinaryHeap::new(),
            order: 0,
            watch: Watch::default(),
            late: Vec::new(),
            last_due: Instant::ZERO,
            timer: Timer::new()?,
            epoch: time::Instant::now(),
            buffer: vec![0; 65_536],
        })
    }

    /// Carries packets until the orders end.
    pub(super) async fn run(mut self) -> io::Result<()> {
        // Without this, the runtime's budget of a task makes devices look idle that are not.
        unconstrained(poll_fn(|cx| self.poll(cx))).await
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.epoch.elapsed().as_nanos() as u64)
    }

    /// Does one turn. The task comes again at once if there may be more to do.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Poll::Ready(order) = self.orders.poll_recv(cx) {
            match order {
                None => return Poll::Ready(Ok(())),
                Some(order) => self.obey(order),
            }
        }
        let busy = self.take_in(cx)?;
        self.decide();
        let full = self.send(cx)?;
        let next = [self.due.peek().map(|Reverse(due)| due.at), self.down.poll_at(), self.up.poll_at()];
        let next = next.into_iter().flatten().min();
        let now = self.now();
        if busy || !full && next.is_some_and(|next| next <= now + SPIN) {
            cx.waker().wake_by_ref();
        } else if let Some(next) = next.filter(|_| !full) {
            self.timer.poll(cx, now, next)?;
        }
        Poll::Pending
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin { down, up, seed } => {
                // The model's time starts anew, so that handovers and rates of both sides meet the same packets.
                self.epoch = time::Instant::now();
                (self.down, self.up) = (Path::new(*down, seed), Path::new(*up, !seed));
                self.due.clear();
                self.late.clear();
                self.watch = Watch::default();
            }
            Order::End(answer) => {
                self.late.sort_unstable();
                let late = self.late.get(self.late.len() * 99 / 100).copied().unwrap_or_default();
                let report = Report { down: self.down.stats().clone(), seen: self.watch.seen, late };
                // The round was given up if nobody waits.
                answer.send(report).ok();
            }
        }
    }

    /// Reads packets. Returns true if there may be more.
    fn take_in(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut busy = false;
        for side in 0..=self.far.len() {
            for _ in 0..BATCH {
                let device = match side.checked_sub(1) {
                    None => &mut self.near,
                    Some(index) => &mut self.far[index].1,
                };
                let Poll::Ready(received) = device.poll_recv(cx, &mut self.buffer) else { break };
                let bytes = Bytes::copy_from_slice(&self.buffer[..received?.len]);
                let now = self.now();
                if side == 0 {
                    self.up.offer(now, Parcel { bytes, tag: () });
                } else {
                    let tag = self.watch.sent(&bytes);
                    self.down.offer(now, Parcel { bytes, tag });
                }
                busy = true;
            }
        }
        Ok(busy)
    }

    /// Schedules packets whose fate is known.
    fn decide(&mut self) {
        let now = self.now();
        while let Some(fate) = self.down.poll(now) {
            match fate {
                Fate::Arrives { at, parcel, .. } => self.schedule(at, parcel.bytes, true),
                Fate::Lost { tag, .. } => self.watch.lost(tag),
            }
        }
        while let Some(fate) = self.up.poll(now) {
            if let Fate::Arrives { at, parcel, .. } = fate {
                self.schedule(at, parcel.bytes, false);
            }
        }
    }

    fn schedule(&mut self, at: Instant, bytes: Bytes, down: bool) {
        self.order += 1;
        self.due.push(Reverse(Due { at, order: self.order, bytes, down }));
    }

    /// Writes the packets that are due. Returns true if a device is full, which then wakes the task.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while let Some(Reverse(due)) = self.due.peek() {
            let now = self.now();
            let late = now.saturating_since(due.at);
            if due.at > now {
                break;
            }
            let to = if due.down { None } else { destination(&due.bytes) };
            let device = match to {
                None => Some(&mut self.near),
                Some(to) => self.far.iter_mut().find(|(address, _)| *address == to).map(|(_, device)| device),
            };
            if let Some(device) = device
                && device.poll_send(cx, Frame::new(&due.bytes)).is_pending()
            {
                return Ok(true);
            }
            // Those of a group are due at one time, and written one after the other.
            if std::mem::replace(&mut self.last_due, due.at) != due.at {
                self.late.push(late);
            }
            self.due.pop();
        }
        Ok(false)
    }
}

fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    match IpAddr::from(address) {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

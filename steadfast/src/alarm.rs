//! The driver's timer. Tokio's has a resolution of a millisecond. While data is paced, Linux's `timerfd` helps it to
//! wake earlier: at a rate above a quantum a millisecond, a later wake-up would be the limit.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::coop;
use tokio::time::{Instant, Sleep};

/// Wakes the driver at a time.
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// The time that `sleep` is set to.
    armed: Option<Instant>,
    /// `sleep` wakes the task that polls.
    registered: bool,
    fine: fine::Timer,
}

impl Alarm {
    pub(crate) fn new() -> Alarm {
        let sleep = Box::pin(tokio::time::sleep_until(Instant::now()));
        Alarm { sleep, armed: None, registered: false, fine: fine::Timer::default() }
    }

    /// Must be called when another task or waker polls from now on.
    pub(crate) fn moved(&mut self) {
        self.registered = false;
    }

    // PACE-3
    /// Returns `Ready` once it is `at`, or earlier: resetting the timer for every packet would cost more than a turn in
    /// vain. `now` is the time, or a little earlier. `fine`: a millisecond late is too late.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Instant, at: Instant, fine: bool) -> Poll<()> {
        if self.armed.is_none_or(|armed| armed > at) {
            self.sleep.as_mut().reset(at);
            self.armed = Some(at);
            self.registered = false;
        }
        // Before its time, a timer that was polled has nothing new to say.
        if !self.registered || self.armed.is_none_or(|armed| armed <= now) {
            // A task that has used up its budget is not registered, but polled again.
            let registers = coop::has_budget_remaining();
            if self.sleep.as_mut().poll(cx).is_ready() {
                self.armed = None;
                return Poll::Ready(());
            }
            self.registered = registers;
        }
        if fine { self.fine.poll(cx, at) } else { Poll::Pending }
    }
}

#[cfg(target_os = "linux")]
mod fine {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::task::{Context, Poll, ready};
    use std::time::Instant as RealInstant;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    /// A `timerfd`, made when it is first needed. Where it cannot be had, nothing is finer than Tokio's timer.
    #[derive(Default)]
    pub(super) struct Timer {
        file: Option<io::Result<AsyncFd<OwnedFd>>>,
        armed: Option<Instant>,
    }

    impl Timer {
        pub(super) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
            if !clock_is_real() {
                return Poll::Pending;
            }
            let Ok(file) = self.file.get_or_insert_with(make) else { return Poll::Pending };
            if self.armed != Some(at) {
                let wait = at.saturating_duration_since(Instant::now());
                // Zero would disarm it.
                let nanos = i64::from(wait.subsec_nanos()).max(1);
                let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: nanos };
                let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
                if timerfd_settime(file.get_ref(), TimerfdTimerFlags::empty(), &once).is_err() {
                    return Poll::Pending;
                }
                self.armed = Some(at);
            }
            loop {
                let Ok(mut guard) = ready!(file.poll_read_ready(cx)) else { return Poll::Pending };
                // The time at which it was armed may be another one.
                if rustix::io::read(file.get_ref(), &mut [0; 8]).is_ok() {
                    self.armed = None;
                    return Poll::Ready(());
                }
                guard.clear_ready();
            }
        }
    }

    fn make() -> io::Result<AsyncFd<OwnedFd>> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, and this file is neither replaced nor closed before"
        )]
        AsyncFd::new(timer)
    }

    /// Returns whether Tokio's clock is that of the machine. A paused one goes by `Sleep` alone.
    fn clock_is_real() -> bool {
        let before = RealInstant::now();
        let now = Instant::now().into_std();
        before <= now && now <= RealInstant::now()
    }
}

#[cfg(not(target_os = "linux"))]
mod fine {
    use std::task::{Context, Poll};

    use tokio::time::Instant;

    /// Nothing is finer than Tokio's timer.
    #[derive(Default)]
    pub(super) struct Timer;

    impl Timer {
        pub(super) fn poll(&mut self, _: &mut Context<'_>, _: Instant) -> Poll<()> {
            Poll::Pending
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    async fn wait(alarm: &mut Alarm, at: Instant) {
        while Instant::now() < at {
            poll_fn(|cx| alarm.poll(cx, Instant::now(), at, true)).await;
        }
    }

    /// PACE-3: twenty waits of 100 µs. Tokio's timer would end each at a millisecond of its own.
    #[tokio::test]
    async fn a_fine_alarm_waits_less_than_a_millisecond_pace_3() {
        let mut alarm = Alarm::new();
        let mut best = Duration::MAX;
        for _ in 0..20 {
            let started = Instant::now();
            for _ in 0..20 {
                let at = Instant::now() + Duration::from_micros(100);
                wait(&mut alarm, at).await;
            }
            best = best.min(started.elapsed());
        }
        assert!((Duration::from_millis(2)..Duration::from_millis(10)).contains(&best), "{best:?}");
    }

    /// A timer that is polled without a budget does not register the task: the next poll must.
    #[tokio::test(start_paused = true)]
    async fn an_alarm_that_was_set_without_a_budget_still_wakes() {
        let (mut alarm, at) = (Alarm::new(), Instant::now() + Duration::from_secs(1));
        let mut polls = 0;
        let ring = poll_fn(|cx| {
            polls += 1;
            while polls == 1
                && let Poll::Ready(progress) = coop::poll_proceed(cx)
            {
                progress.made_progress();
            }
            alarm.poll(cx, Instant::now(), at, false)
        });
        tokio::time::timeout(Duration::from_secs(60), ring).await.expect("it rings");
        assert_eq!((polls, Instant::now()), (3, at));
    }

    /// In paused time the alarm is exact, and an hour takes no time.
    #[tokio::test(start_paused = true)]
    async fn a_fine_alarm_keeps_to_paused_time_pace_3() {
        let mut alarm = Alarm::new();
        let at = Instant::now() + Duration::from_secs(3600);
        wait(&mut alarm, at).await;
        assert_eq!(Instant::now(), at);
    }
}

//! How long a connection had something to send, and what limited it meanwhile, as Linux's `tcp_info` shows it.

use super::tcb::{Connection, Env};
use crate::time::{Duration, Tick};

/// The limit of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Limit {
    /// Nothing is queued or in flight.
    #[default]
    Idle,
    /// The application, or congestion control.
    Busy,
    /// The peer's window.
    Window,
    /// The send buffer: a writer waits for room, and everything that it wrote has left.
    Buffer,
}

/// The time under each limit.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(crate) struct Limits {
    now: Limit,
    since: Tick,
    /// Milliseconds of [`Busy`](Limit::Busy), [`Window`](Limit::Window) and [`Buffer`](Limit::Buffer).
    spent: [u32; 3],
}

/// `tcpi_busy_time`, `tcpi_rwnd_limited` and `tcpi_sndbuf_limited`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) busy: Duration,
    pub(crate) window: Duration,
    pub(crate) buffer: Duration,
}

impl Limits {
    fn begin(&mut self, limit: Limit, now: Tick) {
        if limit != self.now {
            (self.spent, self.now, self.since) = (self.spent_until(now), limit, now);
        }
    }

    fn spent_until(&self, now: Tick) -> [u32; 3] {
        let mut spent = self.spent;
        let index = match self.now {
            Limit::Idle => return spent,
            Limit::Busy => 0,
            Limit::Window => 1,
            Limit::Buffer => 2,
        };
        spent[index] = spent[index].saturating_add(now.elapsed(self.since));
        spent
    }

    /// Limited time is busy time too.
    pub(crate) fn times(&self, now: Tick) -> Times {
        let [busy, window, buffer] = self.spent_until(now).map(|ms| Duration::from_millis(ms.into()));
        Times { busy: busy + window + buffer, window, buffer }
    }
}

impl Connection {
    /// Something was acknowledged, or was `sent` or to be sent. Linux finds the send buffer short when it sends the last of
    /// what it holds.
    // DRILL-X19
    #[cold]
    pub(super) fn note_limit(&mut self, sent: bool, env: &Env<'_>) {
        let limit = self.limit(sent);
        if let Some(quanta) = self.quanta_if_any() {
            quanta.limits.begin(limit, env.tick());
        }
    }

    fn limit(&self, sent: bool) -> Limit {
        let (unsent, flight) = (self.unsent(), self.flight());
        let fin_due = self.tcb.snd.fin_queued && !self.tcb.snd.fin_sent;
        if unsent == 0 && flight == 0 && !fin_due {
            return Limit::Idle;
        }
        let Some(quanta) = self.quanta() else { return Limit::Busy };
        if unsent > 0 && self.window_is_short(quanta) {
            return Limit::Window;
        }
        let (cwnd, threshold) = (self.congestion.cwnd(), self.congestion.ssthresh());
        let uses_window = flight >= cwnd || (cwnd < threshold && cwnd < 2 * flight);
        let ran_out = quanta.limits.now == Limit::Buffer || (sent && unsent == 0 && !uses_window);
        if quanta.starved && ran_out { Limit::Buffer } else { Limit::Busy }
    }
}

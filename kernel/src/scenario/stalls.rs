//! How long the machine keeps a thread from running.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// The stalls of one thread, by the scheduler's count of its time in a run queue.
pub(super) struct Stalls {
    /// `None` where the kernel does not count. Late events still show stalls.
    counts: Option<File>,
    queued: Duration,
    longest: Duration,
}

impl Stalls {
    /// Starts to count for the calling thread.
    pub(super) fn new() -> Stalls {
        let counts = File::open("/proc/thread-self/schedstat").ok();
        let queued = counts.as_ref().and_then(|counts| queued(counts).ok()).unwrap_or_default();
        Stalls { counts, queued, longest: Duration::ZERO }
    }

    /// Notes how long the thread was queued since the last call.
    pub(super) fn look(&mut self) {
        if let Some(now) = self.counts.as_ref().and_then(|counts| queued(counts).ok()) {
            self.note(now.saturating_sub(self.queued));
            self.queued = now;
        }
    }

    /// Notes a stall that was seen otherwise.
    pub(super) fn note(&mut self, stall: Duration) {
        self.longest = self.longest.max(stall);
    }

    /// The longest stall.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }
}

/// The second of the three numbers: nanoseconds in a run queue.
fn queued(counts: &File) -> io::Result<Duration> {
    let mut text = [0; 64];
    let length = counts.read_at(&mut text, 0)?;
    let text = std::str::from_utf8(&text[..length]).map_err(io::Error::other)?;
    let queued = text.split_ascii_whitespace().nth(1).and_then(|word| word.parse().ok());
    queued.map(Duration::from_nanos).ok_or_else(|| io::Error::other("no time in the run queue"))
}

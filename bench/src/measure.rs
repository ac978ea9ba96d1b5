//! Measuring: rounds that alternate between the two sides, in CPU time of this thread.

use rustix::time::{ClockId, clock_gettime};

/// The extent of the measurements.
pub(crate) struct Effort {
    /// Rounds of each side.
    pub(crate) rounds: usize,
    /// Seconds of one round.
    pub(crate) seconds: f64,
    /// At most 10,000 idle connections.
    pub(crate) quick: bool,
    /// Leave out the peer.
    pub(crate) alone: bool,
}

/// Returns the CPU time of this thread in seconds. Other load on the machine disturbs it less than the wall clock.
pub(crate) fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Repeats `turn` for about `seconds` of CPU time. Each call returns how much it did; the result is the amount per
/// second.
pub(crate) fn rate(seconds: f64, mut turn: impl FnMut() -> f64) -> f64 {
    let (mut done, mut turns) = (0.0, 1);
    let start = thread_seconds();
    loop {
        for _ in 0..turns {
            done += turn();
        }
        let elapsed = thread_seconds() - start;
        if elapsed >= seconds {
            return done / elapsed;
        }
        // Check often enough to stop in time, and rarely enough not to matter.
        turns = if elapsed < seconds / 100.0 { turns * 2 } else { turns };
    }
}

/// The figures of all rounds of one side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(pub(crate) Vec<f64>);

impl Rounds {
    /// Returns the median.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            len if len % 2 == 0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        }
    }

    /// Returns the range between the lowest and the highest round, as a fraction of the median.
    pub(crate) fn spread(&self) -> f64 {
        let low = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.0.iter().copied().fold(0.0, f64::max);
        if high == low { 0.0 } else { (high - low) / self.median() }
    }
}

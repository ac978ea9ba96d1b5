//! The figures of a path.

use steadfast_core::Duration;

use super::Cause;

/// So many samples are kept; beyond them every second one, and so on.
const SAMPLES: usize = 1 << 18;

/// The queue as a packet finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// How long the packet waits.
    pub wait: Duration,
    /// Packets before it, the one that is being sent included.
    pub packets: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// The figures of a path so far.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Packets offered.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that arrived, coalesced ones counted apart.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Packets that the AQM marked.
    pub marked: u64,
    pub(super) lost: [u64; Cause::ALL.len()],
    samples: Vec<Sample>,
    stride: u64,
    seen: u64,
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            packets: 0,
            bytes: 0,
            delivered: 0,
            delivered_bytes: 0,
            marked: 0,
            lost: [0; Cause::ALL.len()],
            samples: Vec::new(),
            stride: 1,
            seen: 0,
        }
    }
}

impl Stats {
    /// Packets lost for a reason.
    pub fn lost(&self, cause: Cause) -> u64 {
        self.lost[cause as usize]
    }

    /// Packets lost for any reason, except ACKs that a later one replaced.
    pub fn all_lost(&self) -> u64 {
        Cause::ALL.iter().filter(|cause| **cause != Cause::Thinned).map(|cause| self.lost(*cause)).sum()
    }

    /// The value below which `part` in a thousand of the samples lie, by `key`; `None` without a sample.
    pub fn quantile<K: Ord>(&self, part: usize, key: impl Fn(&Sample) -> K) -> Option<K> {
        let mut all: Vec<K> = self.samples.iter().map(key).collect();
        all.sort_unstable();
        let rank = (all.len() * part).div_ceil(1000).max(1) - 1;
        (rank < all.len()).then(|| all.swap_remove(rank))
    }

    /// The mean wait in the queue.
    pub fn mean_wait(&self) -> Duration {
        let sum: Duration = self.samples.iter().map(|sample| sample.wait).sum();
        sum / (self.samples.len() as u32).max(1)
    }

    pub(super) fn offered(&mut self, size: usize) {
        self.packets += 1;
        self.bytes += size as u64;
    }

    pub(super) fn delivered(&mut self, size: usize, packets: usize) {
        self.delivered += packets as u64;
        self.delivered_bytes += size as u64;
    }

    pub(super) fn sample(&mut self, sample: Sample) {
        self.seen += 1;
        if !self.seen.is_multiple_of(self.stride) {
            return;
        }
        if self.samples.len() == SAMPLES {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride *= 2;
        }
        self.samples.push(sample);
    }
}

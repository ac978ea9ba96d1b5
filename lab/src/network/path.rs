//! Paths: delay, rate and queue of one direction.

use std::collections::VecDeque;

use steadfast_core::{Duration, Instant};

use crate::fault::{Direction, PathChange};

/// The path from one host to another.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    delay: Duration,
    /// Bits per second; `None`: no limit.
    rate: Option<u64>,
    /// Limit of queued packets; `None`: no limit.
    queue: Option<usize>,
    busy_until: Instant,
    /// When each queued packet leaves.
    waiting: VecDeque<Instant>,
}

impl Default for Path {
    fn default() -> Path {
        Path {
            delay: Duration::from_millis(10),
            rate: None,
            queue: None,
            busy_until: Instant::ZERO,
            waiting: VecDeque::new(),
        }
    }
}

impl Path {
    /// Returns the transit time of a packet of `size` bytes that is sent now; `None` if the queue is full.
    pub(super) fn admit(&mut self, now: Instant, size: usize) -> Option<Duration> {
        let Some(rate) = self.rate else { return Some(self.delay) };
        while self.waiting.front().is_some_and(|leaves| *leaves <= now) {
            self.waiting.pop_front();
        }
        if self.queue.is_some_and(|limit| self.waiting.len() > limit) {
            return None;
        }
        let nanos = (size as u128 * 8 * 1_000_000_000).div_ceil(u128::from(rate)) as u64;
        self.busy_until = self.busy_until.max(now) + Duration::from_nanos(nanos);
        self.waiting.push_back(self.busy_until);
        Some(self.busy_until.saturating_since(now) + self.delay)
    }

    fn change(&mut self, change: PathChange) {
        match change {
            PathChange::Delay(delay) => self.delay = delay,
            PathChange::Rate { rate, queue } => (self.rate, self.queue) = (Some(rate), queue),
        }
    }
}

/// The paths between all hosts.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    names: Vec<String>,
    all: Vec<Path>,
}

impl Paths {
    pub(crate) fn new(names: &[String]) -> Paths {
        Paths { names: names.to_vec(), all: vec![Path::default(); names.len() * names.len()] }
    }

    pub(super) fn one(&mut self, from: usize, to: usize) -> &mut Path {
        &mut self.all[from * self.names.len() + to]
    }

    pub(super) fn delay(&self, from: usize, to: usize) -> Duration {
        self.all[from * self.names.len() + to].delay
    }

    pub(crate) fn change(&mut self, direction: &Direction, change: PathChange) {
        for (from, from_name) in self.names.iter().enumerate() {
            for (to, to_name) in self.names.iter().enumerate() {
                if direction.fits(Some(from_name), Some(to_name)) {
                    self.all[from * self.names.len() + to].change(change);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_spaces_packets_and_a_full_queue_drops() {
        let mut path = Path::default();
        path.change(PathChange::Rate { rate: 1_000_000, queue: Some(1) });
        let ms = Duration::from_millis;
        assert_eq!(path.admit(Instant::ZERO, 1250), Some(ms(20)));
        assert_eq!(path.admit(Instant::ZERO, 1250), Some(ms(30)));
        assert_eq!(path.admit(Instant::ZERO, 1250), None);
        assert_eq!(path.admit(Instant::from_millis(10), 1250), Some(ms(30)));
    }

    #[test]
    fn a_change_of_one_way_leaves_the_other_alone() {
        let names = ["C".to_owned(), "S".to_owned()];
        let mut paths = Paths::new(&names);
        let slow = PathChange::Delay(Duration::from_millis(80));
        paths.change(&Direction::parse("C>S").unwrap(), slow);
        assert_eq!(paths.delay(0, 1), Duration::from_millis(80));
        assert_eq!(paths.delay(1, 0), Duration::from_millis(10));
    }
}

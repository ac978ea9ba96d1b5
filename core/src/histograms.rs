//! Histograms of times: how many were at most so long.

use crate::time::Duration;

/// The largest time of each bucket but the last, in microseconds.
const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// A histogram of times. Its buckets are fixed.
///
/// ```
/// use steadfast_core::histograms::Histogram;
///
/// let none = Histogram::default();
/// assert_eq!((none.count(), none.counts().len()), (0, Histogram::bounds().len() + 1));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// Returns the largest time of each bucket but the last, which takes all longer ones. In microseconds.
    pub const fn bounds() -> &'static [u64] {
        &BOUNDS
    }

    /// Returns how many times are in each bucket.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Returns how many times there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all times.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Takes a time of a clock of milliseconds. A shorter one counts as one of them, as it is not known better.
    pub(crate) fn note_millis(&mut self, time: Duration) {
        self.note(time.max(Duration::from_millis(1)));
    }

    #[inline(never)]
    pub(crate) fn note(&mut self, time: Duration) {
        let micros = time.as_secs().saturating_mul(1_000_000) + u64::from(time.subsec_micros());
        self.counts[BOUNDS.partition_point(|bound| *bound < micros)] += 1;
        self.sum = self.sum.saturating_add(time);
    }

    fn add(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(other.counts).for_each(|(ours, theirs)| *ours += theirs);
        self.sum = self.sum.saturating_add(other.sum);
    }
}

/// The histograms of a stack. Each takes a time where a connection begins or ends, and none where a segment arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histograms {
    /// The smoothed round-trip time of each connection at its end, if it has a sample.
    pub rtt: Histogram,
    /// The time from the third segment of a handshake to [`accept`](crate::Stack::accept), at least a millisecond.
    pub accept_wait: Histogram,
    /// The time from the first SYN to ESTABLISHED, of a passive open at least a millisecond. A handshake with a cookie or
    /// with Fast Open is not in it.
    pub handshake: Histogram,
}

impl Histograms {
    /// Iterates over all histograms, each with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        [("rtt", &self.rtt), ("accept_wait", &self.accept_wait), ("handshake", &self.handshake)].into_iter()
    }

    /// Adds the histograms of another stack.
    pub fn add(&mut self, other: &Histograms) {
        self.rtt.add(&other.rtt);
        self.accept_wait.add(&other.accept_wait);
        self.handshake.add(&other.handshake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_it_does_not_exceed() {
        let mut histogram = Histogram::default();
        for micros in [0, 100, 101, 10_000_000, 10_000_001] {
            histogram.note(Duration::from_micros(micros));
        }
        histogram.note(Duration::from_nanos(100_999));
        let mut expected = [0; BOUNDS.len() + 1];
        (expected[0], expected[1], expected[15], expected[16]) = (3, 1, 1, 1);
        assert_eq!((histogram.counts(), histogram.count()), (&expected[..], 6));
        assert_eq!(histogram.sum(), Duration::from_nanos(20_000_302_999));
        let mut both = Histograms::default();
        both.rtt.add(&histogram);
        both.add(&both.clone());
        assert_eq!(both.iter().map(|(_, one)| one.count()).collect::<Vec<_>>(), [12, 0, 0]);
        assert!(BOUNDS.is_sorted());
    }
}

//! Pacing: new data leaves at a rate, in quanta, instead of as fast as the window allows. Retransmissions, probes and
//! ACKs are never held back.

use super::tcb::{Connection, Env};
use crate::config::Config;
use crate::time::Instant;

/// A quantum is the data of a millisecond, within these bounds (PACE-3).
const QUANTA_PER_SECOND: u64 = 1000;
const MIN_QUANTUM_SEGMENTS: u32 = 2;
const MAX_QUANTUM: u32 = 65_536;

/// Segments that leave unpaced at the start of a connection (PACE-4).
const UNPACED_SEGMENTS: u32 = 10;

/// The shortest round trip from which a rate is computed, in microseconds (PACE-6).
const MIN_RTT: u64 = 1000;

/// The state of a paced connection.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Pace {
    /// When all that was sent has left at the rate.
    next: Instant,
    /// Bytes per second, and bytes that leave at once.
    rate: u64,
    quantum: u32,
    /// Bytes left of the quantum.
    left: u32,
    /// New data waits until `next`, which the stack has yet to note.
    waits: bool,
    /// The time that the stack has noted.
    pub(crate) held: Option<Instant>,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { next: now, rate: 1, quantum: 0, left: 0, waits: false, held: None }
    }

    /// Returns the bytes that may leave now, in whole segments; zero: none before `next`.
    fn room(&mut self, rate: u64, mss: u32, now: Instant) -> u32 {
        if self.left < mss {
            if self.next > now {
                return 0;
            }
            let quantum = (rate / QUANTA_PER_SECOND).min(u64::from(MAX_QUANTUM)) as u32;
            self.quantum = quantum.max(MIN_QUANTUM_SEGMENTS * mss) / mss * mss;
            (self.rate, self.left) = (rate, self.quantum);
        }
        self.left / mss * mss
    }

    /// `len` bytes leave. A late wake-up loses no rate, up to a quantum, so that at most two leave at once (PACE-5).
    fn charge(&mut self, len: u32, now: Instant) {
        let nanos = |bytes: u32| u64::from(bytes) * 1_000_000_000 / self.rate;
        let earliest = now.as_nanos().saturating_sub(nanos(self.quantum));
        self.next = Instant::from_nanos(self.next.as_nanos().max(earliest).saturating_add(nanos(len)));
        self.left = self.left.saturating_sub(len);
    }

    /// Returns the time until which new data waits, if the stack has not noted it.
    pub(crate) fn take_wait(&mut self) -> Option<Instant> {
        std::mem::take(&mut self.waits).then_some(self.next)
    }
}

impl Connection {
    #[inline]
    pub(super) fn is_paced(&self, config: &Config) -> bool {
        config.tcp_pacing || self.options.max_pacing_rate < u64::MAX
    }

    #[inline]
    pub(crate) fn pace(&mut self) -> Option<&mut Pace> {
        self.rare.as_mut()?.pace.as_mut()
    }

    /// The time for which it waits in the stack.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.rare.as_ref()?.pace.as_ref()?.held
    }

    /// The rate in bytes per second at which new data leaves; `None`: it is not paced (PACE-1).
    pub(crate) fn pacing_rate(&self, config: &Config) -> Option<u64> {
        if !self.is_paced(config) {
            return None;
        }
        let (cwnd, ssthresh) = (self.congestion.cwnd(), self.congestion.ssthresh());
        let slow_start = cwnd < ssthresh / 2;
        let percent = if slow_start { config.tcp_pacing_ss_ratio } else { config.tcp_pacing_ca_ratio };
        let srtt = self.tcb.rtt.srtt().as_micros() as u64;
        let by_window = if srtt < MIN_RTT {
            u64::MAX
        } else {
            u64::from(cwnd.max(self.flight())) * u64::from(percent) * 10_000 / srtt
        };
        let rate = by_window.min(self.options.max_pacing_rate);
        (rate < u64::MAX).then_some(rate.max(1))
    }

    /// Returns the bytes of new data that may leave now, in whole segments; `None`: pacing is no limit.
    pub(super) fn pacing_room(&mut self, mss: u32, env: &Env<'_>) -> Option<u32> {
        let starts = self.bytes_acked == 0 && self.flight() < UNPACED_SEGMENTS * mss;
        let rate = self.pacing_rate(env.config).filter(|_| !starts)?;
        let pace = self.rare().pace.get_or_insert_with(|| Pace::new(env.now));
        Some(pace.room(rate, mss, env.now))
    }

    /// New data waits for its time. The window counts as used, since it is not the application that waits (PACE-7).
    pub(super) fn hold_back(&mut self) {
        self.tcb.snd.cwnd_limited = true;
        if let Some(pace) = self.pace() {
            pace.waits = true;
        }
    }

    /// `len` bytes of data leave now.
    #[inline]
    pub(super) fn note_paced(&mut self, len: usize, env: &Env<'_>) {
        if let Some(pace) = self.pace() {
            pace.charge(len as u32, env.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use proptest::prelude::*;

    proptest! {
        /// PACE-5: whenever and however much is sent, no interval carries more than its share and two quanta.
        #[test]
        fn no_interval_carries_more_than_its_share_and_two_quanta_pace_5(
            rate in 1_000u64..2_000_000_000,
            mss in 100u32..9000,
            steps in proptest::collection::vec((0u64..5_000_000, 1u32..80_000, any::<bool>()), 1..80),
        ) {
            let mut now = Instant::from_secs(1);
            let mut pace = Pace::new(now);
            let mut sent = Vec::new();
            for (nanos, wanted, on_time) in steps {
                now = if on_time { now.max(pace.next) } else { now + Duration::from_nanos(nanos) };
                let mut wanted = wanted;
                while wanted > 0 {
                    let len = pace.room(rate, mss, now).min(wanted);
                    if len == 0 {
                        break;
                    }
                    pace.charge(len, now);
                    sent.push((now, u64::from(len)));
                    wanted -= len;
                }
            }
            for first in 0..sent.len() {
                let mut bytes = 0;
                for &(at, len) in &sent[first..] {
                    bytes += len;
                    let share = (at - sent[first].0).as_nanos() * u128::from(rate) / 1_000_000_000;
                    // Each charge rounds down by a nanosecond.
                    let rounding = 1 + sent.len() as u128 * (u128::from(rate) / 1_000_000_000 + 1);
                    prop_assert!(u128::from(bytes) <= share + 2 * u128::from(pace.quantum) + rounding);
                }
            }
        }
    }

    /// PACE-3: the data of a millisecond, in whole segments, from two of them to 64 KiB.
    #[test]
    fn a_quantum_is_the_data_of_a_millisecond_pace_3() {
        for (rate, quantum) in
            [(1, 2000), (2_999_999, 2000), (3_000_000, 3000), (10_900_000, 10_000), (1 << 40, 65_000)]
        {
            assert_eq!(Pace::new(Instant::ZERO).room(rate, 1000, Instant::ZERO), quantum, "{rate}");
        }
    }
}

//! Round-trip times, the RTO, and the time until R2 (RFC 6298, RFC 9293 §3.8.3).

use crate::config::Config;
use crate::seq::SeqNum;
use crate::time::{Duration, Instant, SendTime};

/// Clock granularity G in microseconds (6298-8).
const GRANULARITY: u32 = 1_000;
/// Half of the time after which the smallest round trip is forgotten, in seconds. The path may have changed (8985-13).
const MIN_PERIOD: u64 = 5;
/// RTO when data begins after the SYN timed out (6298-11).
const FALLBACK: Duration = Duration::from_secs(3);

/// Measured round-trip times of a connection, in microseconds.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Rtt {
    /// 0: no sample yet.
    srtt: u32,
    var: u32,
    /// The RTO computed from them, without back-off.
    rto: u32,
    /// Doublings of the RTO since the last sample (MUST-18).
    pub(crate) backoff: u8,
    /// Before the first sample: the SYN was lost. Later: a timeout was spurious, and the next sample adapts to it.
    surprised: bool,
    timing: bool,
    /// Whether there was a retransmission since the last sample.
    ambiguous: bool,
    /// End of the segment being timed. Its ACK gives a sample.
    timed_end: SeqNum,
    /// Time of its transmission, or of the last retransmission, in microseconds modulo 2^32.
    timed_at: SendTime,
}

/// With `tcp_rto_var_min`: the largest four times RTTVAR of this round trip, and where the round trip ends.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(crate) struct VarRound {
    max: u32,
    end: SeqNum,
}

impl Rtt {
    pub(crate) fn new(after_syn_loss: bool) -> Rtt {
        Rtt {
            srtt: 0,
            var: 0,
            rto: 0,
            backoff: 0,
            surprised: after_syn_loss,
            timing: false,
            ambiguous: after_syn_loss,
            timed_end: SeqNum(0),
            timed_at: SendTime::default(),
        }
    }

    pub(crate) fn srtt(&self) -> Duration {
        Duration::from_micros(u64::from(self.srtt))
    }

    #[inline]
    pub(crate) fn srtt_micros(&self) -> u32 {
        self.srtt
    }

    pub(crate) fn var(&self) -> Duration {
        Duration::from_micros(u64::from(self.var))
    }

    /// The time within which an ACK is to be expected, in microseconds: the RTO without its least value.
    pub(crate) fn expected(&self) -> u32 {
        self.srtt.saturating_add(GRANULARITY.max(self.var.saturating_mul(4)))
    }

    /// Begins to time a first transmission, unless a segment is already being timed (6298-7).
    pub(crate) fn start(&mut self, end: SeqNum, now: Instant) {
        if !self.timing {
            (self.timing, self.timed_end, self.timed_at) = (true, end, SendTime::at(now));
        }
    }

    /// The timed segment, if it ends between `start` and `end`, has not left yet (8985-35).
    pub(crate) fn delay(&mut self, (start, end): (SeqNum, SeqNum), now: Instant) {
        if self.timing && start.lt(self.timed_end) && self.timed_end.le(end) {
            self.timed_at = SendTime::at(now);
        }
    }

    /// Stops timing after a retransmission, since an ACK would be ambiguous (Karn, 6298-6).
    pub(crate) fn cancel(&mut self, now: Instant) {
        (self.timing, self.timed_at) = (false, SendTime::at(now));
        self.ambiguous = true;
    }

    /// Doubles the RTO after a timeout (6298 §5.5).
    pub(crate) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// Returns whether only a timestamp can give a sample now. Otherwise the timed segment gives one sample per
    /// window, with or without timestamps (7323-14).
    pub(crate) fn needs_timestamp(&self) -> bool {
        self.ambiguous
    }

    /// Returns whether a timestamp sample is valid: the echoed segment was not sent before the last retransmission.
    /// An older echo may answer a duplicate with the timestamp of the first copy. The sample would then include all
    /// the time that the path was silent.
    pub(crate) fn is_valid_sample(&self, sample: u32, now: Instant) -> bool {
        let since = SendTime::at(now).0.wrapping_sub(self.timed_at.0);
        // The sample counts ticks, which may exceed the elapsed milliseconds by one.
        sample <= since.saturating_add(1_000)
    }

    /// Records that our SYN-ACK is retransmitted (6298-11).
    pub(crate) fn syn_lost(&mut self, now: Instant) {
        self.surprised = true;
        self.cancel(now);
    }

    /// Records that a timeout was spurious: the RTO was too short (4015-2).
    pub(crate) fn note_spurious_timeout(&mut self) {
        self.surprised = true;
    }

    /// Returns the sample that an ACK up to `ack` completes, in microseconds.
    pub(crate) fn completed(&mut self, ack: SeqNum, now: Instant) -> Option<u32> {
        (self.timing && ack.ge(self.timed_end)).then(|| {
            self.timing = false;
            SendTime::at(now).0.wrapping_sub(self.timed_at.0)
        })
    }

    /// Updates SRTT, RTTVAR and the RTO with a sample in microseconds (6298-2, 6298-3). `round`: with `tcp_rto_var_min`
    /// its state, and SND.UNA and SND.NXT.
    pub(crate) fn sample(
        &mut self,
        sample: u32,
        round: Option<(&mut VarRound, (SeqNum, SeqNum))>,
        config: &Config,
    ) {
        (self.ambiguous, self.backoff) = (false, 0);
        let r = sample.clamp(1, u32::MAX >> 4);
        let surprised = std::mem::take(&mut self.surprised) && round.is_none();
        let before = (self.srtt > 0).then(|| self.rto.saturating_sub(self.srtt));
        if self.srtt == 0 {
            self.srtt = r;
            self.var = r / 2;
        } else if surprised {
            self.srtt = r.max(self.srtt.saturating_add(2 * GRANULARITY));
            self.var = self.var.max(r / 2);
        } else {
            // Update the deviation first: it uses the old mean.
            let off = self.srtt.abs_diff(r);
            let damped = round.is_some() && r < self.srtt && off > self.var;
            self.var = if damped {
                // A fall of the round trip is no reason to wait longer.
                self.var + (off - self.var) / 32
            } else {
                self.var - self.var / 4 + off / 4
            };
            self.srtt = (self.srtt - self.srtt / 8 + r / 8).max(1);
        }
        let least = micros(config.tcp_rto_min);
        let rto = match round {
            Some((round, edges)) => self.srtt.saturating_add(round.note(self.var, before, edges, least)),
            None => self.expected().max(least),
        };
        // If the minimum exceeds the maximum, the maximum applies.
        self.rto = rto.saturating_add(micros(config.tcp_rto_slop)).min(micros(config.tcp_rto_max));
    }

    /// The RTO without back-off.
    #[inline]
    pub(crate) fn rto(&self, config: &Config) -> Duration {
        if self.srtt == 0 {
            let initial = config.tcp_rto_initial;
            return if self.surprised { initial.max(FALLBACK) } else { initial };
        }
        Duration::from_micros(u64::from(self.rto))
    }

    /// The RTO without back-off, in microseconds.
    #[inline]
    pub(crate) fn rto_micros(&self, config: &Config) -> u64 {
        if self.srtt > 0 { self.rto.into() } else { self.rto(config).as_micros() as u64 }
    }

    /// The RTO with back-off, in microseconds.
    #[inline]
    pub(crate) fn backed_off_micros(&self, config: &Config) -> u64 {
        if self.srtt > 0 && self.backoff == 0 {
            return self.rto.into();
        }
        self.backed_off(config).as_micros() as u64
    }

    /// The RTO with back-off (6298 §5.5).
    #[inline]
    pub(crate) fn backed_off(&self, config: &Config) -> Duration {
        self.backed_off_by(config, self.backoff)
    }

    /// The RTO after `doublings`.
    #[inline]
    pub(crate) fn backed_off_by(&self, config: &Config, doublings: u8) -> Duration {
        let rto = self.rto(config);
        if doublings == 0 {
            return rto.min(config.tcp_rto_max);
        }
        // The slop of a measured one is not doubled. DRILL-F06
        let slop = config.tcp_rto_slop;
        let base = if self.srtt > 0 { rto.saturating_sub(slop) } else { rto };
        let factor = 1u32.checked_shl(u32::from(doublings)).unwrap_or(u32::MAX);
        base.saturating_mul(factor).saturating_add(slop).min(config.tcp_rto_max)
    }
}

impl VarRound {
    /// Four times RTTVAR, at least `least`, after a sample; `before`: before it. It rises at once, and falls by a quarter of
    /// the difference in a round trip.
    // DRILL-X14
    fn note(&mut self, var: u32, before: Option<u32>, (una, nxt): (SeqNum, SeqNum), least: u32) -> u32 {
        let var = var.saturating_mul(4);
        let Some(before) = before else {
            (self.max, self.end) = (var.max(least), nxt);
            return self.max;
        };
        self.max = self.max.max(var);
        let mut now = before.max(self.max);
        if una.gt(self.end) {
            now -= (now - self.max) / 4;
            (self.max, self.end) = (least, nxt);
        }
        now
    }
}

/// The smallest round trip of the last five to ten seconds in which there were samples, in microseconds. Packed, as
/// every connection has it: the period takes one byte then, not four.
#[derive(Clone, Copy, Debug, Default, Hash)]
#[repr(Rust, packed)]
pub(crate) struct MinRtt {
    /// The smallest sample of this period, and of the one before; 0: none.
    recent: u32,
    before: u32,
    period: u8,
}

impl MinRtt {
    pub(crate) fn get(&self) -> Duration {
        Duration::from_micros(u64::from(self.recent.min(self.before)))
    }

    #[inline]
    pub(crate) fn note(&mut self, sample: u32, now: Instant) {
        let r = sample.max(1);
        let period = (now.as_secs() / MIN_PERIOD) as u8;
        (self.recent, self.before) = match period.wrapping_sub(self.period) {
            _ if self.recent == 0 => (r, r),
            0 => (self.recent.min(r), self.before),
            1 => (r, self.recent),
            _ => (r, r),
        };
        self.period = period;
    }
}

/// A duration in microseconds, of those that matter here.
#[inline]
pub(crate) fn micros(time: Duration) -> u32 {
    /// The whole seconds that fit.
    const MOST: u64 = u32::MAX as u64 / 1_000_000;
    if time.as_secs() >= MOST { u32::MAX } else { time.as_secs() as u32 * 1_000_000 + time.subsec_micros() }
}

/// The duration of `retries` backed-off timeouts and one more, starting at the smallest RTO. Linux calls it the
/// hypothetical timeout. With the Linux defaults, 15 retries take 924.6 s.
pub(crate) fn model_timeout(config: &Config, retries: u8) -> Duration {
    let (mut total, mut rto) = (Duration::ZERO, config.tcp_rto_min + config.tcp_rto_slop);
    for _ in 0..=retries {
        total += rto;
        rto = (rto * 2).min(config.tcp_rto_max);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;

    #[test]
    fn r2_is_the_model_time_of_each_profile_shld_11() {
        let seconds = Profile::ALL.map(|profile| {
            let config = Config::profile(profile);
            model_timeout(&config, config.tcp_retries2).as_millis()
        });
        assert_eq!(seconds, [924_600, 924_600, 511_000, 123_000, 373_530]);
    }

    /// 6298-1: one second before there is a sample (8961-1).
    #[test]
    fn samples_follow_rfc_6298_6298_2_6298_3() {
        let config = Config { tcp_rto_min: Duration::from_millis(1), ..Config::default() };
        let mut rtt = Rtt::new(false);
        assert_eq!(rtt.rto(&config), Duration::from_secs(1));
        rtt.sample(80_000, None, &config);
        assert_eq!((rtt.srtt().as_millis(), rtt.var().as_millis()), (80, 40));
        assert_eq!(rtt.rto(&config), Duration::from_millis(240));
        rtt.sample(160_000, None, &config);
        // RTTVAR = 3/4 · 40 + 1/4 · |80 − 160| = 50; SRTT = 7/8 · 80 + 1/8 · 160 = 90.
        assert_eq!((rtt.srtt().as_millis(), rtt.var().as_millis()), (90, 50));
    }

    /// 4015-2: after a spurious timeout SRTT and RTTVAR are at least those of the next sample. Then they decay as ever.
    #[test]
    fn a_spurious_timeout_makes_the_rto_that_of_the_next_sample_4015_2() {
        let config = Config::default();
        let mut rtt = Rtt::new(false);
        (0..50).for_each(|_| rtt.sample(20_000, None, &config));
        let mut shorter = rtt.clone();
        rtt.note_spurious_timeout();
        rtt.sample(400_000, None, &config);
        assert_eq!((rtt.srtt().as_millis(), rtt.var().as_millis()), (400, 200));
        assert_eq!(rtt.rto(&config), Duration::from_millis(1200));
        rtt.sample(80_000, None, &config);
        assert_eq!(rtt.srtt(), Duration::from_millis(360));
        shorter.note_spurious_timeout();
        shorter.sample(10_000, None, &config);
        assert_eq!(shorter.srtt(), Duration::from_millis(22), "2 G more than before");
    }

    /// 8985-13: the path has become longer. The time of a shorter one does not count for ever.
    #[test]
    fn a_smallest_round_trip_is_forgotten_after_ten_seconds_8985_13() {
        let mut min_rtt = MinRtt::default();
        let mut min_at = |secs, millis: u32| {
            min_rtt.note(millis * 1000, Instant::from_secs(secs));
            min_rtt.get().as_millis()
        };
        assert_eq!([min_at(3, 20), min_at(4, 80), min_at(9, 80)], [20, 20, 20]);
        assert_eq!([min_at(14, 80), min_at(15, 70), min_at(100, 90)], [80, 70, 90]);
    }

    /// 6298-8: without variation, the clock granularity remains.
    #[test]
    fn without_variance_the_granularity_is_left_6298_8() {
        let config = Config { tcp_rto_min: Duration::from_millis(1), ..Config::default() };
        let mut rtt = Rtt::new(false);
        (0..100).for_each(|_| rtt.sample(80_000, None, &config));
        assert_eq!(rtt.rto(&config), Duration::from_millis(81));
    }

    /// 8961-1.
    #[test]
    fn back_off_doubles_up_to_the_maximum_6298_5() {
        let config = Config::default();
        let mut rtt = Rtt::new(false);
        rtt.sample(20_000, None, &config);
        let waits: Vec<_> = (0..12)
            .map(|n| {
                rtt.backoff = n;
                rtt.backed_off(&config).as_millis()
            })
            .collect();
        assert_eq!(
            waits,
            [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 102_400, 120_000, 120_000]
        );
    }

    #[test]
    fn a_lost_syn_makes_the_first_rto_three_seconds_6298_11() {
        assert_eq!(Rtt::new(true).rto(&Config::default()), Duration::from_secs(3));
    }

    #[test]
    fn a_segment_sent_again_gives_no_sample_6298_6() {
        let mut rtt = Rtt::new(false);
        rtt.start(SeqNum(100), Instant::ZERO);
        assert_eq!(rtt.completed(SeqNum(99), Instant::from_millis(5)), None);
        rtt.cancel(Instant::from_millis(5));
        assert_eq!(rtt.completed(SeqNum(100), Instant::from_millis(5)), None);
        rtt.start(SeqNum(200), Instant::from_millis(5));
        assert_eq!(rtt.completed(SeqNum(200), Instant::from_millis(9)), Some(4_000));
    }

    // DRILL-X14
    #[test]
    fn the_least_rto_bounds_the_deviation_which_falls_once_a_round_trip() {
        let config = Config { tcp_rto_var_min: true, ..Config::default() };
        let (mut rtt, mut round) = (Rtt::new(false), VarRound::default());
        let mut sample = |millis: u32, una, nxt| {
            rtt.sample(millis * 1000, Some((&mut round, (SeqNum(una), SeqNum(nxt)))), &config);
            rtt.rto(&config).as_millis()
        };
        assert_eq!(sample(50, 1, 1), 250);
        assert_eq!(sample(50, 101, 201), 250);
        // SRTT = 50 + 450 / 8, RTTVAR = 25 - 6 + 450 / 4, less what the second sample took.
        assert_eq!(sample(500, 151, 201), 106 + 4 * (18_750 * 3 / 4 + 112_500) / 1000);
        let high = sample(106, 152, 201);
        assert!(high >= 600, "the round trip is not over: {high}");
        assert!(sample(106, 202, 301) >= 600, "a round trip with a high sample ends");
        let lower = sample(106, 302, 401);
        assert!((500..600).contains(&lower), "by a quarter: {lower}");
    }
}

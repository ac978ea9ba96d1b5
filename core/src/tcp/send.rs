//! Processes ACKs on the send side (SND.*), and begins and ends loss recovery.

use super::congestion::Acknowledged;
use super::recovery::Recovery;
use super::segment::Segment;
use super::tcb::{Connection, Env};
use crate::seq::SeqNum;
use crate::socket::Event;
use crate::state::CaState;
use crate::time::{Deadline, Duration};
use crate::trace::{Loss, TraceKind};

/// Most segments that one ACK adds to cwnd in slow start: L of RFC 9406 §4.3 for a sender without pacing.
const SLOW_START_SEGMENTS: u32 = 8;

impl Connection {
    /// The window in bytes that the segment advertises. It is unscaled only in a SYN (7323-2).
    pub(crate) fn advertised_by(&self, segment: &Segment<'_>) -> u32 {
        let shift = if segment.flags().syn() { 0 } else { self.tcb.snd.wscale };
        u32::from(segment.header.window) << shift
    }

    /// Processes the ACK field of an acceptable segment (SA-EST-14 to -16). SEG.ACK must not exceed SND.NXT.
    pub(crate) fn take_ack(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) {
        let ack = segment.ack();
        let una = self.tcb.snd.una;
        let flight_before = self.flight();
        let duplicate = self.is_duplicate_ack(segment);
        self.update_window(segment, env);
        let sack_news = self.take_sack(segment, env);
        self.take_ece(segment, env);
        if ack.gt(una) {
            self.advance(ack, segment, flight_before, env);
        } else if sack_news || (duplicate && !self.tcb.snd.sack) {
            self.count_duplicate_ack(env);
        }
        if self.tcb.snd.wnd == 0 && self.flight() > 0 {
            // The peer is alive and has only closed its window, so R2 does not run (SHLD-17).
            self.tcb.timers.unanswered_since = env.tick();
        }
        self.recover_if_lost(env);
        if self.recovery.as_ref().is_some_and(|r| r.is_idle()) {
            self.recovery = None;
        }
    }

    /// Processes an ACK below SND.UNA, overtaken by a later one. Only its SACK blocks may be new (SA-EST-16).
    pub(crate) fn take_old_ack(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) {
        self.take_sack(segment, env);
        self.recover_if_lost(env);
    }

    /// Updates SND.WND, guarded by SND.WL1 and SND.WL2 (9293-i).
    #[inline]
    pub(crate) fn update_window(&mut self, segment: &Segment<'_>, env: &Env<'_>) {
        let window = self.advertised_by(segment);
        let snd = &mut self.tcb.snd;
        let (seq, ack) = (segment.seq(), segment.ack());
        let newer = ack.gt(snd.una) || snd.wl1.lt(seq) || (snd.wl1 == seq && snd.wl2.le(ack));
        if newer && ack.ge(snd.una) {
            (snd.wnd, snd.wl1, snd.wl2) = (window, seq, ack);
            snd.max_wnd = snd.max_wnd.max(window);
        }
        if ack.ge(snd.una) {
            // The peer answered and is alive, however small its window (MUST-37).
            self.tcb.timers.unanswered_probes = 0;
        }
        if self.tcb.snd.wnd > 0 && self.tcb.timers.persist.is_some() {
            self.window_opened(env);
        }
    }

    /// Tests the strict definition of a duplicate ACK (5681-9).
    fn is_duplicate_ack(&self, segment: &Segment<'_>) -> bool {
        self.flight() > 0
            && segment.payload.is_empty()
            && segment.len() == 0
            && segment.ack() == self.tcb.snd.una
            && self.advertised_by(segment) == self.tcb.snd.wnd
    }

    /// Enters the SACK blocks in the scoreboard (2018-6). Returns whether they covered new data.
    fn take_sack(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> bool {
        if !self.tcb.snd.sack || segment.options().sack.is_empty() {
            return false;
        }
        let (una, nxt) = (self.tcb.snd.una.max(segment.ack()), self.tcb.snd.nxt);
        let mut news = false;
        let first_wraps = segment.options().sack.as_slice().get(1).copied();
        for (i, (left, right)) in segment.options().sack.iter().enumerate() {
            let below = right.le(segment.ack());
            let inside_second = i == 0 && first_wraps.is_some_and(|(l, r)| l.le(left) && right.le(r));
            if below || inside_second {
                // A D-SACK block reports a duplicate (2883-1) and gives no new information about loss.
                env.counters.tcp_dsack_recv += 1;
            } else if left.lt(right) && left.ge(una) && right.le(nxt) {
                let recovery = self.recovery.get_or_insert_with(|| Box::new(Recovery::new(una)));
                news |= recovery.add(left, right, env.config.tcp_max_sack_ranges as usize);
            } else {
                env.counters.tcp_sack_discard += 1;
            }
        }
        news
    }

    /// Bytes that the application may write.
    pub(crate) fn room_to_write(&self) -> usize {
        let buffer = (self.options.sndbuf as usize).saturating_sub(self.send_queue.len());
        let unsent = (self.options.notsent_lowat as usize).saturating_sub(self.unsent());
        buffer.min(unsent)
    }

    /// Returns whether a third of the send buffer and half of `tcp_notsent_lowat` are free, as in Linux. Waking the
    /// application for each ACK costs more than a few free bytes are worth.
    fn is_worth_writing(&self) -> bool {
        let queued = self.send_queue.len();
        (self.options.sndbuf as usize).saturating_sub(queued) >= queued / 2
            && self.unsent() <= self.options.notsent_lowat as usize / 2
    }

    /// Advances SND.UNA to `ack`.
    pub(crate) fn advance(
        &mut self,
        ack: SeqNum,
        segment: &Segment<'_>,
        flight_before: u32,
        env: &mut Env<'_>,
    ) {
        let acked = ack.since(self.tcb.snd.una);
        let fin = u32::from(self.tcb.snd.fin_sent && ack == self.tcb.snd.nxt);
        self.tcb.snd.una = ack;
        self.keep_up_with(ack);
        self.bytes_acked += u64::from(acked - fin);
        self.send_queue.release((acked - fin) as usize, env.pool);
        self.measure(ack, segment, env);
        self.confirm_path(ack, env);
        (self.tcb.timers.retransmits, self.tcb.timers.window_probes) = (0, 0);
        self.soft_error = None;
        self.tcb.snd.stalled_since = env.tick();
        if acked > fin && self.is_worth_writing() {
            self.signal(Event::WRITABLE);
        }
        let partial = self.acked_in_recovery(ack, acked, flight_before, env);
        if self.flight() == 0 {
            self.tcb.timers.retransmit = None;
        } else if !partial {
            self.arm_retransmit(env);
        }
    }

    /// Raises stored sequence numbers to SND.UNA. Otherwise they would appear to lie ahead of it after 2^31 bytes.
    #[inline]
    fn keep_up_with(&mut self, una: SeqNum) {
        self.tcb.snd.recover = self.tcb.snd.recover.max(una);
        self.tcb.ecn.keep_up_with(una);
        self.small_end = self.small_end.max(una);
        self.urgent_end = self.urgent_end.filter(|end| end.gt(una));
    }

    /// Updates recovery and the congestion window. Returns whether the retransmission timer must not be restarted
    /// (6582-2).
    fn acked_in_recovery(&mut self, ack: SeqNum, acked: u32, flight_before: u32, env: &mut Env<'_>) -> bool {
        let mss = u32::from(self.payload_mss());
        let recover = self.tcb.snd.recover;
        let mut keep_timer = false;
        let mut grow = true;
        let mut most_segments = SLOW_START_SEGMENTS;
        if let Some(recovery) = self.recovery.as_mut() {
            if recovery.advance(ack) {
                env.counters.tcp_sack_reneging += 1;
            }
            recovery.dupacks = 0;
            if recovery.phase == CaState::Loss {
                // An ACK that covers a filled hole includes data that left the network long ago (RFC 3465 §2.3).
                most_segments = 1;
            }
            match recovery.phase {
                CaState::Recovery if ack.lt(recover) => {
                    keep_timer = std::mem::replace(&mut recovery.partial_seen, true);
                    grow = false;
                    if !self.tcb.snd.sack {
                        recovery.deflate(acked, mss);
                        recovery.high_rxt = ack;
                        recovery.forced = true;
                    }
                }
                CaState::Recovery => {
                    grow = false;
                    recovery.end();
                }
                CaState::Loss if ack.ge(recover) => recovery.end(),
                // The missing segment was only reordered.
                CaState::Disorder if recovery.sacked_bytes() == 0 => recovery.end(),
                _ => {}
            }
        }
        if !self.window_is_used(flight_before) {
            self.congestion.unused();
        } else if grow {
            let srtt = self.tcb.rtt.srtt();
            self.congestion.acknowledged(Acknowledged {
                now: env.now,
                bytes: acked,
                most: most_segments * mss,
                mss,
                srtt,
            });
        }
        keep_timer
    }

    /// Returns whether cwnd limited the sender, with `flight` bytes in flight. cwnd must not grow while the
    /// application or the peer's window is the limit (RFC 9438 §5.8). In slow start, half of cwnd in flight suffices,
    /// as in Linux: cwnd doubles each round trip, and the flight lags behind.
    fn window_is_used(&self, flight: u32) -> bool {
        let cwnd = self.congestion.cwnd();
        self.tcb.snd.cwnd_limited
            || flight + u32::from(self.payload_mss()) > cwnd
            || (flight * 2 >= cwnd && cwnd < self.congestion.ssthresh())
    }

    fn measure(&mut self, ack: SeqNum, segment: &Segment<'_>, env: &mut Env<'_>) {
        let timed = self.tcb.rtt.completed(ack, env.now);
        let by_timestamp = || {
            let usable = self.tcb.ts.on && self.tcb.rtt.needs_timestamp();
            let ecr = segment.options().timestamps.filter(|_| usable)?.ecr;
            let elapsed = env.timestamp_clock().wrapping_add(self.tcb.ts.offset).wrapping_sub(ecr);
            // Ignore an echo of a timestamp that we never sent, or that is hours old (7323-14).
            let plausible = ecr != 0 && elapsed < 1 << 24;
            plausible.then(|| Duration::from_millis(u64::from(elapsed)))
        };
        let by_timestamp = || by_timestamp().filter(|sample| self.tcb.rtt.is_valid_sample(*sample, env.now));
        if let Some(sample) = timed.or_else(by_timestamp) {
            self.tcb.rtt.sample(sample, env.config);
            if env.trace.is_on() {
                let (tuple, rto) = (self.tcb.tuple, self.tcb.rtt.rto(env.config));
                env.note(&tuple, TraceKind::Rtt { sample, rto });
            }
        }
    }

    fn count_duplicate_ack(&mut self, env: &Env<'_>) {
        let (una, flight, mss) = (self.tcb.snd.una, self.flight(), u32::from(self.payload_mss()));
        let sack = self.tcb.snd.sack;
        let threshold = u32::from(env.config.tcp_reordering);
        let recovery = self.recovery.get_or_insert_with(|| Box::new(Recovery::new(una)));
        recovery.dupacks += 1;
        if recovery.phase == CaState::Recovery && !sack {
            recovery.inflate(mss, flight);
        } else if recovery.phase == CaState::Open && recovery.dupacks < threshold {
            recovery.phase = CaState::Disorder;
        }
    }

    /// Starts fast recovery when the segment at SND.UNA is considered lost (5681-11, 6675-1). This happens once per
    /// window of data (6582-1, 6675-2).
    #[inline]
    fn recover_if_lost(&mut self, env: &mut Env<'_>) {
        if self.recovery.is_some() {
            self.recover_if_enough_is_missing(env);
        }
    }

    fn recover_if_enough_is_missing(&mut self, env: &mut Env<'_>) {
        let (una, mss) = (self.tcb.snd.una, u32::from(self.payload_mss()));
        let threshold = u32::from(env.config.tcp_reordering);
        let flight = self.flight();
        let sack = self.tcb.snd.sack;
        let behind = una.lt(self.tcb.snd.recover);
        let Some(recovery) = self.recovery.as_mut() else { return };
        let lost = recovery.dupacks >= threshold || recovery.lost_below(una, mss, threshold).gt(una);
        let busy = matches!(recovery.phase, CaState::Recovery | CaState::Loss);
        if busy || behind || !lost || flight == 0 {
            return;
        }
        recovery.phase = CaState::Recovery;
        recovery.high_rxt = una;
        recovery.forced = true;
        recovery.partial_seen = false;
        if sack {
            env.counters.tcp_sack_recovery += 1;
        } else {
            recovery.start_inflation((threshold * mss).min(flight));
            env.counters.tcp_reno_recovery += 1;
        }
        self.tcb.snd.recover = self.tcb.snd.nxt;
        let tuple = self.tcb.tuple;
        env.note(&tuple, TraceKind::Loss { seq: una, why: Loss::FastRetransmit });
        // A lost path MTU probe does not indicate congestion (4821-1).
        if !self.pmtu_probe_lost(una, false, env) {
            self.reduce_once(env);
        }
    }

    /// Schedules everything in flight for retransmission, from SND.UNA on. The caller sets the congestion window.
    pub(crate) fn resend_all(&mut self, env: &mut Env<'_>, why: Loss) {
        let una = self.tcb.snd.una;
        let recovery = self.recovery.get_or_insert_with(|| Box::new(Recovery::new(una)));
        recovery.phase = CaState::Loss;
        recovery.high_rxt = una;
        recovery.dupacks = 0;
        recovery.forced = true;
        recovery.trial = None;
        recovery.start_inflation(0);
        self.tcb.snd.recover = self.tcb.snd.nxt;
        self.tcb.snd.path.forget_in_flight();
        self.tcb.rtt.cancel(env.now);
        let tuple = self.tcb.tuple;
        env.note(&tuple, TraceKind::Loss { seq: una, why });
    }

    /// Restarts the retransmission timer, bounded by the user timeout (6298-10, L5).
    pub(crate) fn arm_retransmit(&mut self, env: &Env<'_>) {
        let rto = self.tcb.rtt.backed_off(env.config);
        self.tcb.timers.retransmit = Some(self.before_user_timeout(Deadline::after(env.now, rto)));
    }
}

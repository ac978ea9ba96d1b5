//! Processes ACKs on the send side (SND.*), and begins and ends loss recovery.

use super::congestion::{Acked, Edge, Progress, initial_window};
use super::recovery::before::Before;
use super::segment::Segment;
use super::tcb::{Connection, Env};
use crate::seq::SeqNum;
use crate::socket::Event;
use crate::state::CaState;
use crate::time::{Duration, SendTime};
use crate::trace::TraceKind;

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
        let (before, rtt) = (Before::of(self), self.round_trip_of(ack, env));
        let sample = self.sample_of(ack, env);
        self.note_rack_rtt(rtt.filter(|_| ack.gt(una) && self.covers_segment(ack)), env);
        let repeats = self.repeats_last_ack(segment, env);
        let duplicate = repeats && before.flight > 0;
        if env.config.follows_linux() {
            // DRILL-X61
            self.soft_error = None;
        }
        self.update_window(segment, env);
        self.restart_persist_as_linux(env);
        self.resume_quanta();
        let sack_news = self.deliver(segment, env);
        self.end_loss_probe(segment, repeats, env);
        self.take_ece(segment, before, env);
        if ack.gt(una) {
            self.advance(ack, sample, segment, env);
        } else if sack_news || (duplicate && !self.tcb.snd.sack) {
            self.count_duplicate_ack(env);
            self.note_selective_round_trip(env);
            if sack_news && (env.config.tcp_rto_var_min || self.begins_selective_round(env)) {
                self.take_selective_sample(env);
            }
        }
        if self.tcb.snd.wnd == 0 && self.flight() > 0 {
            // The peer is alive and has only closed its window, so R2 does not run (SHLD-17).
            self.tcb.timers.unanswered_since = env.tick();
        }
        self.detect_loss(before, env);
        self.grow_window(before, rtt, env);
        if ack.gt(una) && rtt.is_none() {
            // The newest data that the ACK covers had been delivered before.
            self.note_selective_round_trip(env);
        }
        if self.flight() == 0 {
            self.close_flight(env);
        }
    }

    /// Processes an ACK below SND.UNA, overtaken by a later one. Only its SACK blocks may be new (SA-EST-16).
    pub(crate) fn take_old_ack(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) {
        let (before, cwnd) = (Before::of(self), self.congestion.cwnd());
        self.resume_quanta();
        self.deliver(segment, env);
        self.detect_loss(before, env);
        if env.config.follows_linux() {
            // The next ACK reduces it. DRILL-X17
            self.congestion.set_cwnd(cwnd);
        }
    }

    /// Updates SND.WND, guarded by SND.WL1 and SND.WL2 (9293-i).
    #[inline]
    pub(crate) fn update_window(&mut self, segment: &Segment<'_>, env: &Env<'_>) {
        let window = self.advertised_by(segment);
        let (seq, ack, linux) = (segment.seq(), segment.ack(), env.config.follows_linux());
        let taken = linux && self.takes_window(segment);
        let snd = &self.tcb.snd;
        let same = !linux && snd.wl1 == seq && snd.wl2.le(ack);
        let newer = ack.gt(snd.una) || snd.wl1.lt(seq) || same || taken;
        if linux && newer && ack.ge(snd.una) && window != snd.wnd && self.unsent() > 0 {
            self.note_begun();
        }
        let snd = &mut self.tcb.snd;
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

    /// Tests the strict definition of a duplicate ACK (5681-9), if something is in flight.
    fn repeats_last_ack(&self, segment: &Segment<'_>, env: &Env<'_>) -> bool {
        // Linux asks whether it takes the window. DRILL-X58
        let same_window = match env.config.follows_linux() {
            true => !self.takes_window(segment),
            false => self.advertised_by(segment) == self.tcb.snd.wnd,
        };
        segment.len() == 0 && segment.ack() == self.tcb.snd.una && same_window
    }

    /// Bytes that the application may write.
    pub(crate) fn room_to_write(&self) -> usize {
        if let Some(quanta) = self.quanta() {
            return self.room_in_quanta(quanta);
        }
        let buffer = (self.options.sndbuf as usize).saturating_sub(self.send_queue.len());
        let unsent = (self.options.notsent_lowat as usize).saturating_sub(self.unsent());
        buffer.min(unsent)
    }

    /// Returns whether a third of the send buffer and half of `tcp_notsent_lowat` are free, as in Linux. Waking the
    /// application for each ACK costs more than a few free bytes are worth.
    pub(crate) fn is_worth_writing(&self) -> bool {
        if let Some(quanta) = self.quanta() {
            return self.wakes_writer_of(quanta);
        }
        let queued = self.send_queue.len();
        (self.options.sndbuf as usize).saturating_sub(queued) >= queued / 2
            && self.unsent() <= self.options.notsent_lowat as usize / 2
    }

    /// Advances SND.UNA to `ack`.
    /// `sample`: that of [`sample_of`](Connection::sample_of).
    pub(crate) fn advance(
        &mut self,
        ack: SeqNum,
        sample: Option<u32>,
        segment: &Segment<'_>,
        env: &mut Env<'_>,
    ) {
        let acked = ack.since(self.tcb.snd.una);
        let fin = u32::from(self.tcb.snd.fin_sent && ack == self.tcb.snd.nxt);
        // Linux stays in CWR until an ACK covers what follows: then CWR has arrived.
        let linux = env.config.follows_linux();
        let past = !linux || ack.gt(self.tcb.snd.recover);
        let covers = !linux || self.covers_segment(ack);
        let before = std::mem::replace(&mut self.tcb.snd.una, ack);
        self.keep_up_with(before, ack);
        if acked > fin {
            self.bytes_acked += u64::from(acked - fin);
            self.send_queue.release((acked - fin) as usize, env.pool);
        }
        if covers {
            self.measure(ack, sample, segment, env);
        }
        self.confirm_path(ack, env);
        (self.tcb.timers.retransmits, self.tcb.timers.window_probes) = (0, 0);
        self.soft_error = None;
        self.tcb.snd.stalled_since = env.tick();
        if acked > fin && self.is_worth_writing() {
            self.signal(Event::WRITABLE);
            if let Some(quanta) = self.quanta_if_any() {
                quanta.starved = false;
            }
        }
        let keep_timer = self.acked_in_recovery(ack, acked, past);
        if self.flight() == 0 {
            self.stop_retransmit();
            self.close_flight(env);
        } else if linux {
            if covers {
                self.restart_timer_as_linux(env);
            }
        } else if !keep_timer {
            self.restart_retransmit(env);
            self.arm_loss_probe(self.flight(), env);
        }
        if self.quanta().is_some() {
            self.note_limit(false, env);
        }
    }

    /// Raises stored sequence numbers to SND.UNA. Otherwise they would appear to lie ahead of it after 2^31 bytes.
    #[inline]
    fn keep_up_with(&mut self, before: SeqNum, una: SeqNum) {
        self.tcb.snd.recover = self.tcb.snd.recover.max(una);
        if let Some(flight) = &mut self.flight {
            flight.cwr_until = flight.cwr_until.max(una);
        }
        self.small_end = self.small_end.max(una);
        let delivered = if self.rare.is_some() { self.segments_acked(before) } else { 0 };
        if let Some(rare) = self.rare.as_mut() {
            rare.urgent_end = rare.urgent_end.filter(|end| end.gt(una));
            if let Some(quanta) = &mut rare.quanta {
                quanta.keep_up_with(una, delivered);
            }
        }
    }

    /// The bytes of an ACK that Linux counts: what it delivers, and not again what SACK blocks had delivered before. Without
    /// much reordering only an ACK of new data counts.
    // DRILL-X06
    fn delivered_since(&self, before: Before, advanced: u32, env: &Env<'_>) -> u32 {
        let left = self.flight.as_ref().map_or(0, |flight| flight.left());
        let counts = advanced > 0 || self.reordering().distance > u16::from(env.config.tcp_reordering);
        match (before.segments_left, self.segments_left()) {
            _ if !counts => 0,
            // A short segment counts as a whole.
            (Some(before), Some(now)) => before.saturating_sub(now) * u32::from(self.payload_mss()),
            _ => (advanced + left).saturating_sub(before.left),
        }
    }

    /// Updates the congestion window, once losses are detected.
    #[inline]
    pub(super) fn grow_window(&mut self, before: Before, rtt: Option<u32>, env: &Env<'_>) {
        let mut newly_acked = self.tcb.snd.una.since(before.una);
        if env.config.follows_linux() {
            newly_acked = self.delivered_since(before, newly_acked, env);
        }
        if newly_acked == 0 {
            return;
        }
        let phase = match self.ca_state() {
            reducing @ (CaState::Recovery | CaState::Cwr) => reducing,
            // Linux asks for the state after the ACK.
            now if env.config.follows_linux() => now,
            _ => before.phase,
        };
        let mss = u32::from(self.payload_mss());
        let restart = env.config.tcp_slow_start_after_idle;
        let snd = &self.tcb.snd;
        let progress = Progress {
            una: snd.una,
            nxt: snd.nxt,
            newly_acked,
            prior_flight: before.flight,
            mss,
            cwnd_limited: snd.cwnd_limited,
            restart: restart.then(|| initial_window(env.initial_segments(&self.tcb.tuple), mss)),
        };
        let paced = self.is_paced(env.config);
        let (rtts, min_rtt) = (&self.tcb.rtt, self.min_rtt);
        let round = self.congestion.acked(&progress, |progress| Acked {
            now: env.now,
            progress,
            srtt: rtts.srtt_micros(),
            min_rtt: min_rtt.get().as_micros() as u32,
            rto: rtts.rto_micros(env.config),
            rtt,
            phase,
            paced,
            abc_limit: env.config.tcp_abc_limit,
            hystart_detect: env.config.tcp_hystart_detect,
        });
        if let Some(used) = round {
            let delivered = self.bytes_acked + u64::from(self.sacked_bytes());
            let sent = self.flight.as_ref().map_or(self.sent, |flight| flight.latest());
            self.congestion.sample_rate(used, || Edge { at: env.now, delivered, sent });
        }
    }

    /// Microseconds since the byte before `ack` was sent, if this ACK is the first to deliver it and it was sent once
    /// (9406-8). `None` where HyStart++ does not ask for it.
    #[inline]
    pub(super) fn round_trip_of(&self, ack: SeqNum, env: &Env<'_>) -> Option<u32> {
        let wanted = self.congestion.explores() || env.config.follows_linux();
        if !wanted || !env.config.tcp_hystart {
            return None;
        }
        let sent = match &self.flight {
            None => self.sent,
            Some(flight) => flight.sent_once(ack)?,
        };
        Some(SendTime::at(env.now).since(sent).max(0) as u32)
    }

    /// SACK blocks have delivered data. Its round trip tells of the queue, even where something is missing before it.
    #[cold]
    fn note_selective_round_trip(&mut self, env: &Env<'_>) {
        let wanted = self.congestion.in_initial_slow_start() && env.config.tcp_hystart && self.tcb.snd.sack;
        if let Some(rtt) = self.flight.as_ref().and_then(|flight| flight.rack.sample()).filter(|_| wanted) {
            self.congestion.note_round_trip(rtt, env.now, self.is_paced(env.config));
        }
    }

    /// With `tcp_rto_var_min`: microseconds since the oldest data was sent that an ACK delivers, if all that it covers was
    /// sent once.
    #[inline]
    pub(super) fn sample_of(&self, ack: SeqNum, env: &Env<'_>) -> Option<u32> {
        if !env.config.tcp_rto_var_min || !ack.gt(self.tcb.snd.una) {
            return None;
        }
        let sent = match &self.flight {
            None => self.sent,
            Some(flight) => flight.first_sent(ack)?,
        };
        Some(SendTime::at(env.now).since(sent).max(0) as u32)
    }

    fn measure(&mut self, ack: SeqNum, sample: Option<u32>, segment: &Segment<'_>, env: &mut Env<'_>) {
        let timed = self.tcb.rtt.completed(ack, env.now).filter(|_| !env.config.tcp_rto_var_min);
        let by_timestamp = || {
            let usable = self.tcb.snd.timestamps && self.tcb.rtt.needs_timestamp();
            let ecr = segment.options().timestamps.filter(|_| usable)?.ecr;
            let elapsed = env.timestamp_clock().wrapping_add(self.tcb.ts.offset).wrapping_sub(ecr);
            // Ignore an echo of a timestamp that we never sent, or that is hours old (7323-14).
            let plausible = ecr != 0 && elapsed < 1 << 24;
            plausible.then(|| elapsed.saturating_mul(1000))
        };
        let by_timestamp = || by_timestamp().filter(|sample| self.tcb.rtt.is_valid_sample(*sample, env.now));
        if let Some(sample) = sample.or(timed).or_else(by_timestamp) {
            self.take_sample(sample, env);
        }
    }

    /// Returns whether SACK blocks deliver data that was sent once, and after they last gave a sample: once in a round trip
    /// (6298-14). While losses are repaired, SND.UNA may stay for longer than the RTO, and the queue grow.
    #[cold]
    fn begins_selective_round(&mut self, env: &Env<'_>) -> bool {
        let now = SendTime::at(env.now);
        let Some(flight) = self.flight.as_mut().filter(|flight| !flight.sampled_again) else { return false };
        let age = now.since(flight.sampled).max(0) as u32;
        let begins = flight.rack.sample().is_some_and(|rtt| rtt <= age);
        if begins {
            flight.sampled = now;
        }
        begins
    }

    #[cold]
    fn take_selective_sample(&mut self, env: &mut Env<'_>) {
        if let Some(sample) = self.flight.as_ref().and_then(|flight| flight.rack.sample()) {
            self.take_sample(sample, env);
        }
    }

    #[inline]
    fn take_sample(&mut self, sample: u32, env: &mut Env<'_>) {
        let edges = (self.tcb.snd.una, self.tcb.snd.nxt);
        self.sample_round_trip(sample, edges, env.config);
        self.min_rtt.note(sample, env.now);
        self.tail.note_sample();
        if env.trace.is_on() {
            let (tuple, rto) = (self.tcb.tuple, self.tcb.rtt.rto(env.config));
            let sample = Duration::from_micros(u64::from(sample));
            env.note(&tuple, TraceKind::Rtt { sample, rto });
        }
    }
}

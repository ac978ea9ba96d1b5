//! The one place that decides what a connection sends next.
//!
//! Nothing is queued but intents; a segment comes into being when the device has room for it. The order is: a
//! SYN-ACK, the third segment of the handshake, what is to be sent again, new data and the FIN, probes, and last a bare
//! ACK.

use super::mtu::Probe;
use super::segment::{Answer, Outgoing};
use super::tcb::{Connection, Env};
use crate::counters::ReplyReason;
use crate::info::CaState;
use crate::seq::SeqNum;
use crate::socket::SocketOptions;
use crate::time::{Deadline, Duration};
use crate::trace::State;
use crate::wire::Ecn;
use crate::wire::tcp::{Flags, Header, Options};

impl Connection {
    /// Puts what is to be sent now into `out` and takes it for sent. `false`: nothing; the connection need not be asked
    /// again before something happens to it.
    pub(crate) fn next_segment(
        &mut self,
        segmentation_offload: bool,
        out: &mut Outgoing,
        env: &mut Env<'_>,
    ) -> bool {
        if self.tcb.state == State::SynReceived {
            return self.next_in_handshake(out, env);
        }
        if self.tcb.snd.handshake_due {
            // A server that answers with cookies knows the connection by SEQ = IRS + 1 alone. Were there data in the third
            // segment, and that lost, what follows would be reset.
            self.tcb.snd.handshake_due = false;
            return self.next_ack(out, env);
        }
        self.next_retransmission(out, env)
            || self.next_data(segmentation_offload, out, env)
            || self.next_probe(out, env)
            || self.next_ack(out, env)
    }

    /// Whether the connection needs a turn in `transmit` and has none yet; the caller gives it one.
    #[inline]
    pub(crate) fn claims_turn(&self) -> bool {
        !self.place.is_taken() && self.wants_to_send()
    }

    /// Whether asking [`next_segment`](Connection::next_segment) may give something that waiting does not.
    #[inline]
    pub(crate) fn wants_to_send(&self) -> bool {
        let snd = &self.tcb.snd;
        // One after the other: as one word they would have to wait for the store to the last of them that was set, which
        // took a twentieth of a round trip.
        self.tcb.ack.now
            || self.unsent() > 0
            || (snd.fin_queued && !snd.fin_sent)
            || snd.handshake_due
            || snd.probe_pending
            || snd.keepalive_pending
            || self.recovery.as_ref().is_some_and(|r| matches!(r.phase, CaState::Recovery | CaState::Loss))
    }

    fn next_in_handshake(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        if std::mem::take(&mut self.tcb.snd.handshake_due) {
            self.syn_ack(out, env);
            return true;
        }
        // A Fast Open connection answers before the third segment.
        self.next_early_data(out, env) || self.next_ack(out, env)
    }

    fn syn_ack(&mut self, out: &mut Outgoing, env: &mut Env<'_>) {
        let wscale = self.tcb.snd.wscale_on.then_some(self.tcb.rcv.wscale);
        let options = Options {
            mss: Some(self.tcb.rcv.adv_mss),
            window_scale: wscale,
            sack_permitted: self.tcb.snd.sack,
            timestamps: self.timestamps(env),
            ..Options::default()
        };
        let mut flags = Flags::SYN | Flags::ACK;
        if self.tcb.snd.ecn {
            flags |= Flags::ECE;
        }
        let window = self.tcb.rcv.adv.since(self.tcb.rcv.nxt).min(0xffff) as u16;
        self.tcb.ack.now = false;
        self.tcb.rcv.last_ack_sent = self.tcb.rcv.nxt;
        let seq = self.tcb.snd.iss;
        *out = Outgoing::bare(Header { seq, ack: self.tcb.rcv.nxt, flags, window, options, ..self.header() });
    }

    /// Rule 1 of NextSeg (RFC 6675), the go-back of a timeout, and the holes of NewReno.
    #[inline]
    fn next_retransmission(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        // As nearly always: nothing is lost.
        let hole = if self.recovery.is_some() { self.next_hole(env) } else { None };
        if let Some((start, len)) = hole {
            self.resend(start, len, out, env);
        }
        hole.is_some()
    }

    /// Where what is to be sent again begins, and its length.
    fn next_hole(&mut self, env: &mut Env<'_>) -> Option<(SeqNum, u32)> {
        let (una, nxt, recover) = (self.tcb.snd.una, self.tcb.snd.nxt, self.tcb.snd.recover);
        let (mss, full) = (u32::from(self.payload_mss()), u32::from(self.payload_len_limit()));
        let threshold = u32::from(env.config.tcp_reordering);
        let sack = self.tcb.snd.sack;
        let cwnd = self.congestion.cwnd();
        let window_end = una + self.tcb.snd.wnd;
        let recovery = self.recovery.as_mut()?;
        let lost_below = recovery.lost_below(una, mss, threshold);
        let limit = match recovery.phase {
            CaState::Loss => recovery.trial.unwrap_or(recover).min(recover).min(nxt),
            CaState::Recovery if sack => lost_below.max((una + mss).min(nxt)),
            CaState::Recovery => (una + mss).min(nxt),
            CaState::Open | CaState::Disorder => return None,
        };
        let (start, end) = recovery.hole(recovery.high_rxt.max(una), limit)?;
        let len = end.since(start).min(full);
        let pipe = recovery.pipe(una, nxt, recover, lost_below);
        // Old data inside the window goes out as ever (SHLD-16); beyond it only by the timer (MAY-7).
        let fits = pipe + len <= cwnd && (start + len).le(window_end);
        if !recovery.forced && !fits {
            return None;
        }
        recovery.forced = false;
        recovery.high_rxt = start + len;
        if recovery.phase == CaState::Loss {
            env.counters.tcp_slow_start_retrans += 1;
        } else {
            env.counters.tcp_fast_retrans += 1;
        }
        Some((start, len))
    }

    fn resend(&mut self, start: SeqNum, len: u32, out: &mut Outgoing, env: &mut Env<'_>) {
        env.counters.retrans_segs += 1;
        self.total_retrans += 1;
        self.tcb.rtt.cancel(env.now);
        if self.tcb.timers.retransmit.is_none() {
            self.arm_retransmit(env);
        }
        let fin = self.tcb.snd.fin_sent && start + len == self.tcb.snd.nxt;
        let payload = len - u32::from(fin);
        let flags = if fin { Flags::FIN } else { Flags::default() };
        self.data_segment(start, payload as usize, flags, out, env);
    }

    /// New data and the FIN, as far as the peer's window, congestion control, Nagle and silly-window avoidance
    /// let them.
    fn next_data(&mut self, segmentation_offload: bool, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let unsent = self.unsent();
        let fin_due = self.tcb.snd.fin_queued && !self.tcb.snd.fin_sent;
        if (unsent == 0 && !fin_due) || !self.may_send_now() {
            return false;
        }
        self.restart_after_idle(env);
        self.raise_expired_pmtu(env);
        let nxt = self.tcb.snd.nxt;
        let window_end = self.tcb.snd.una + self.tcb.snd.wnd;
        let window = if nxt.lt(window_end) { window_end.since(nxt) } else { 0 };
        let room = self.congestion_room(env);
        let mss = usize::from(self.payload_len_limit());
        match self.next_mtu_probe(unsent, window, room, env) {
            Probe::No => {}
            Probe::Soon => return false,
            Probe::Now(payload) => {
                self.first_transmission(payload, Flags::default(), None, out, env);
                return true;
            }
        }
        let limit = if segmentation_offload { self.super_payload(mss) } else { mss };
        let allowed = unsent.min(window as usize);
        self.tcb.snd.cwnd_limited = allowed.min(limit) > room as usize;
        let mut payload = allowed.min(limit).min(room as usize);
        let last = payload == unsent;
        if payload > mss && !last {
            payload -= payload % mss;
        }
        // The FIN needs no room in the window of congestion control, but one number of the peer's.
        let fin = fin_due && last && window as usize > payload;
        let cut_by_cwnd = payload < allowed.min(mss);
        if !self.worth_sending(payload, last, fin, mss, cut_by_cwnd) {
            if self.flight() == 0 {
                // Nobody will answer what is not sent: probe, or send it after all when the time is over.
                self.arm_persist(env);
            }
            return false;
        }
        let flags = if fin { Flags::FIN } else { Flags::default() };
        let segment_size = (payload > mss).then_some(mss as u16);
        self.first_transmission(payload, flags, segment_size, out, env);
        self.note_small_segment(payload, mss);
        if payload == mss && limit == mss && self.is_plain(out) {
            // The last byte of the queue has a PSH on its segment, so that one does not look like the others.
            let like_it = allowed.min(room as usize).min(unsent - 1) / mss;
            out.train = like_it.saturating_sub(1) as u32;
        }
        true
    }

    /// Remembers where new data ends that just left and is no multiple of full segments.
    #[inline]
    pub(super) fn note_small_segment(&mut self, payload: usize, mss: usize) {
        if payload != mss && !payload.is_multiple_of(mss) {
            self.small_end = self.tcb.snd.nxt;
        }
    }

    /// Whether a segment is one of many: nothing in it or in the connection is for once.
    fn is_plain(&self, outgoing: &Outgoing) -> bool {
        let exceptional = self.recovery.is_some() || self.probing.is_some() || self.urgent_end.is_some();
        !exceptional && !self.tcb.snd.ecn && outgoing.header.options.sack.is_empty()
    }

    /// The next segment of a train: what [`next_segment`](Connection::next_segment) would give, for a sixth of the
    /// instructions.
    pub(crate) fn follow(&mut self, train: &mut Outgoing) {
        let len = train.payload_len as u32;
        self.tcb.snd.nxt += len;
        train.header.seq += len;
        train.offset += train.payload_len;
        train.train -= 1;
    }

    fn may_send_now(&self) -> bool {
        matches!(
            self.tcb.state,
            State::Established | State::CloseWait | State::FinWait1 | State::Closing | State::LastAck
        )
    }

    /// What congestion control lets out now; the first duplicate ACKs let one segment each out (5681-10).
    fn congestion_room(&self, env: &Env<'_>) -> u32 {
        let (una, nxt, recover) = (self.tcb.snd.una, self.tcb.snd.nxt, self.tcb.snd.recover);
        let mss = u32::from(self.payload_mss());
        let cwnd = self.congestion.cwnd();
        match &self.recovery {
            None => cwnd.saturating_sub(nxt.since(una)),
            Some(recovery) if recovery.trial.is_some() => 0,
            Some(recovery) => {
                let lost_below = recovery.lost_below(una, mss, u32::from(env.config.tcp_reordering));
                let pipe = recovery.pipe(una, nxt, recover, lost_below);
                let extra = if recovery.phase == CaState::Disorder && !self.tcb.snd.sack {
                    recovery.dupacks.min(2) * mss
                } else {
                    0
                };
                cwnd.saturating_add(extra).saturating_sub(pipe)
            }
        }
    }

    /// Nagle (SHLD-7) and sender-side silly-window avoidance (MUST-38), after RFC 9293 §3.8.6.2.1: a full segment;
    /// or all there is, when no small segment is in flight or Nagle is off; or half of the largest window ever seen; or
    /// whatever the override timer lets out. Small segments alone are waited for, in Minshall's variant (appendix A.3):
    /// otherwise the tail of every long write would wait for an ACK, which its receiver may delay.
    pub(super) fn worth_sending(
        &self,
        payload: usize,
        last: bool,
        fin: bool,
        mss: usize,
        cut_by_cwnd: bool,
    ) -> bool {
        if payload == 0 {
            return fin;
        }
        if self.options.cork && payload < mss && !self.tcb.snd.fin_queued && !self.tcb.snd.probe_pending {
            return false;
        }
        let idle = self.tcb.snd.nxt == self.start_of_queue();
        let small_in_flight = self.small_end.gt(self.tcb.snd.una);
        payload >= mss
            || fin
            || (last && (!small_in_flight || self.options.nodelay || self.tcb.snd.fin_queued))
            || (!cut_by_cwnd && payload as u32 >= self.tcb.snd.max_wnd / 2)
            || (cut_by_cwnd && idle)
            || self.tcb.snd.probe_pending
    }

    /// Idle for longer than an RTO: the window that was earned says nothing about the path any more (5681-12).
    #[inline]
    fn restart_after_idle(&mut self, env: &Env<'_>) {
        let started = self.bytes_acked > 0;
        if self.flight() > 0 || !env.config.tcp_slow_start_after_idle || !started {
            return;
        }
        let idle = env.tick().elapsed(self.tcb.snd.last_sent);
        if idle > 0 && Duration::from_millis(u64::from(idle)) > self.tcb.rtt.rto(env.config) {
            let mss = u32::from(self.payload_mss());
            let window = super::congestion::initial_window(env.config.tcp_init_cwnd, mss);
            self.congestion.restart(window);
            self.tcb.snd.last_sent = env.tick();
        }
    }

    pub(super) fn first_transmission(
        &mut self,
        payload: usize,
        flags: Flags,
        segment_size: Option<u16>,
        out: &mut Outgoing,
        env: &mut Env<'_>,
    ) {
        let start = self.tcb.snd.nxt;
        let end = start + payload as u32 + u32::from(flags.fin());
        if self.flight() == 0 {
            self.tcb.snd.stalled_since = env.tick();
            self.tcb.timers.unanswered_since = env.tick();
        }
        self.tcb.snd.nxt = end;
        self.tcb.snd.fin_sent |= flags.fin();
        self.tcb.snd.probe_pending = false;
        self.tcb.timers.persist = None;
        self.tcb.rtt.start(end, env.now);
        self.note_packet_size(end, payload);
        if self.tcb.timers.retransmit.is_none() {
            self.arm_retransmit(env);
        }
        self.data_segment(start, payload, flags, out, env);
        out.segment_size = segment_size;
        if self.tcb.snd.ecn && payload > 0 {
            out.ecn = Ecn::Ect0;
            if std::mem::take(&mut self.tcb.snd.cwr_pending) {
                out.header.flags |= Flags::CWR;
            }
        }
    }

    fn data_segment(
        &mut self,
        seq: SeqNum,
        payload_len: usize,
        flags: Flags,
        out: &mut Outgoing,
        env: &mut Env<'_>,
    ) {
        let offset = seq.since(self.start_of_queue()) as usize;
        // PSH on the last byte that is queued: nothing more is on its way (MUST-61).
        let push = payload_len > 0 && offset + payload_len == self.send_queue.len();
        let flags = if push { flags | Flags::PSH } else { flags };
        self.acknowledging(seq, Flags::ACK | flags, Connection::blocks_beside_data, out, env);
        if let Some(end) = self.urgent_end.filter(|end| end.gt(seq)) {
            // The octet after the urgent data (MUST-62); what is too far ahead is told later.
            out.header.flags |= Flags::URG;
            out.header.urgent = end.since(seq).min(0xffff) as u16;
        }
        out.offset = offset;
        out.payload_len = payload_len;
        self.tcb.snd.last_sent = env.tick();
    }

    /// Zero-window and keepalive probes: an old sequence number and no data, which the peer must answer (SHLD-12).
    fn next_probe(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let snd = &mut self.tcb.snd;
        let window_probe = std::mem::take(&mut snd.probe_pending);
        let keepalive = std::mem::take(&mut snd.keepalive_pending);
        if !window_probe && !keepalive {
            return false;
        }
        if window_probe {
            env.counters.tcp_win_probe += 1;
        } else {
            env.counters.tcp_keep_alive += 1;
        }
        let seq = self.tcb.snd.una - 1;
        self.bare(seq, Flags::ACK, out, env);
        true
    }

    fn next_ack(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        if self.tcb.ack.now {
            let seq = self.acceptable_seq();
            self.bare(seq, Flags::ACK, out, env);
            return true;
        }
        false
    }

    /// SND.NXT; or the right edge of a window that the peer took back, since it need not accept what lies beyond
    /// (Linux does the same). A window that is short by its scale alone was not taken back.
    fn acceptable_seq(&self) -> SeqNum {
        let snd = &self.tcb.snd;
        let edge = snd.una + snd.wnd;
        let synchronized = self.tcb.state != State::SynReceived;
        let taken_back = synchronized && edge.lt(snd.nxt) && snd.nxt.since(edge) >= 1 << snd.wscale;
        if taken_back { edge } else { snd.nxt }
    }

    /// The ACK that is due when the connection becomes a TIME-WAIT entry: the stack sends it in its place.
    pub(crate) fn final_ack(&mut self, env: &mut Env<'_>) -> Answer {
        let seq = self.tcb.snd.nxt;
        let mut out = Outgoing::bare(Header::default());
        self.bare(seq, Flags::ACK, &mut out, env);
        let Header { ack, flags, window, options, .. } = out.header;
        let reason = ReplyReason::UnacceptableAck;
        let SocketOptions { ttl, dscp, .. } = *self.options;
        Answer { tuple: self.tcb.tuple, seq, ack, flags, window, options, ttl, dscp, reason }
    }

    /// A segment without payload.
    fn bare(&mut self, seq: SeqNum, flags: Flags, out: &mut Outgoing, env: &mut Env<'_>) {
        self.acknowledging(seq, flags, Connection::blocks_beside_nothing, out, env);
    }

    /// A segment, its payload to be added. It acknowledges: whatever ACK was due is done with. `room` says how many SACK
    /// blocks it has room for.
    #[inline]
    fn acknowledging(
        &mut self,
        seq: SeqNum,
        mut flags: Flags,
        room: impl FnOnce(&Connection) -> usize,
        out: &mut Outgoing,
        env: &mut Env<'_>,
    ) {
        let window = self.announce_window(env);
        let options = Options { timestamps: self.timestamps(env), ..Options::default() };
        self.tcb.ack.now = false;
        self.tcb.ack.bytes = 0;
        self.tcb.timers.delayed_ack = None;
        self.tcb.rcv.last_ack_sent = self.tcb.rcv.nxt;
        if self.tcb.rcv.ece {
            flags |= Flags::ECE;
        }
        *out = Outgoing::bare(Header { seq, ack: self.tcb.rcv.nxt, flags, window, options, ..self.header() });
        if !std::mem::take(&mut self.tcb.ack.plain) && self.has_blocks_to_tell() {
            let most = room(self);
            self.tell_blocks(&mut out.header.options.sack, env);
            out.header.options.sack.truncate(most);
        }
    }

    fn header(&self) -> Header {
        let tuple = &self.tcb.tuple;
        Header { source_port: tuple.local_port, destination_port: tuple.remote_port, ..Header::default() }
    }

    /// A challenge ACK, within the limit for the connection (5961-3, -5, -9, -10). Says whether it is sent.
    pub(crate) fn challenge(&mut self, env: &mut Env<'_>) -> bool {
        let now = env.tick();
        let ack = &mut self.tcb.ack;
        if now.elapsed(ack.challenge_from) >= 1000 {
            (ack.challenge_from, ack.challenges) = (now, 0);
        }
        if ack.challenges >= env.config.tcp_challenge_ack_limit {
            return false;
        }
        ack.challenges += 1;
        ack.plain |= !ack.now;
        ack.now = true;
        env.counters.tcp_challenge_ack += 1;
        let tuple = self.tcb.tuple;
        env.note_reply(&tuple, ReplyReason::ChallengeAck);
        true
    }

    /// The answer to a segment that is not acceptable, at most one in `tcp_invalid_ratelimit`; `probe` says that
    /// it may be a keepalive or window probe, which have a budget of their own. Says whether it is sent.
    pub(crate) fn acknowledge_invalid(&mut self, probe: bool, env: &mut Env<'_>) -> bool {
        let now = env.tick();
        let last = if probe { &mut self.tcb.ack.probe_at } else { &mut self.tcb.ack.invalid_at };
        let limit = env.config.tcp_invalid_ratelimit.as_millis() as u32;
        if last.is_some_and(|last| now.elapsed(last.tick()) < limit) {
            return false;
        }
        *last = Some(Deadline::at(now));
        self.tcb.ack.plain |= !self.tcb.ack.now;
        self.tcb.ack.now = true;
        let tuple = self.tcb.tuple;
        env.note_reply(&tuple, ReplyReason::UnacceptableAck);
        true
    }
}

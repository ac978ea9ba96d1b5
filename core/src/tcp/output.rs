//! Decides which segment a connection sends next.
//!
//! Only intents are queued; a segment is built when the device has room for it. The order is: SYN-ACK, third segment
//! of the handshake, retransmissions, new data and the FIN, probes, and last a bare ACK.

use super::mtu::PmtuProbe;
use super::recovery::undo::Frto;
use super::segment::{Outgoing, Reply, header_of};
use super::tcb::{AckKind, Connection, Env, Origin};
use crate::counters::ReplyReason;
use crate::seq::SeqNum;
use crate::socket::SocketOptions;
use crate::state::{CaState, State};
use crate::time::{Duration, Stamp};
use crate::wire::Ecn;
use crate::wire::tcp::{Flags, Header, Options};

impl Connection {
    /// Writes the segment to send now to `out` and accounts for it as sent. Returns `false` if there is none; the
    /// caller need not ask again before the connection's next event.
    pub(crate) fn next_segment(
        &mut self,
        segmentation_offload: bool,
        out: &mut Outgoing,
        env: &mut Env<'_>,
    ) -> bool {
        if self.tcb.state == State::SynReceived {
            return self.next_in_handshake(out, env);
        }
        if self.tcb.snd.pending.handshake {
            // A server that uses SYN cookies recognizes the connection only by SEQ = IRS + 1. If the third segment
            // carried data and were lost, the server would reset the next one.
            self.tcb.snd.pending.handshake = false;
            return self.next_ack(out, env);
        }
        if env.routing.refuses {
            return self.next_although_refused(out, env);
        }
        self.next_retransmission(out, env)
            || self.next_data(segmentation_offload, out, env)
            || self.repair_without_new_data(out, env)
            || self.next_probe(out, env)
            || self.next_ack(out, env)
    }

    /// Returns whether the connection needs a turn in `transmit` and has none yet. The caller must then schedule it.
    #[inline]
    pub(crate) fn claims_turn(&self) -> bool {
        !self.ready.is_listed() && self.wants_to_send()
    }

    /// Returns whether [`next_segment`](Connection::next_segment) may have a segment to send now.
    #[inline]
    pub(crate) fn wants_to_send(&self) -> bool {
        let snd = &self.tcb.snd;
        // Tested one by one: loading the flags as one word would stall on a recent store to any of them.
        self.tcb.ack.now
            || self.unsent() > 0
            || (snd.fin_queued && !snd.fin_sent)
            || snd.pending.handshake
            || snd.pending.window_probe
            || snd.pending.keepalive_probe
            || self.has_retransmission()
    }

    /// Returns whether a segment is due that no window can hold back.
    pub(crate) fn has_pending_segment(&self) -> bool {
        let pending = &self.tcb.snd.pending;
        self.tcb.ack.now || pending.handshake || pending.window_probe || pending.keepalive_probe
    }

    fn next_in_handshake(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        if std::mem::take(&mut self.tcb.snd.pending.handshake) {
            self.syn_ack(out, env);
            return true;
        }
        // A Fast Open connection may send data before the third segment.
        self.next_early_data(out, env) || self.next_ack(out, env)
    }

    fn syn_ack(&mut self, out: &mut Outgoing, env: &mut Env<'_>) {
        // Linux's answer to a crossing SYN has the options of its SYN. DRILL-X42
        let all = env.config.follows_linux() && self.tcb.origin == Origin::Active;
        let own = || self.options.window_scale();
        let wscale = self.tcb.snd.wscale_on.then_some(self.tcb.rcv.wscale);
        let options = Options {
            mss: Some(self.tcb.rcv.adv_mss).filter(|_| !self.options.no_options),
            window_scale: wscale.or_else(|| (all && env.config.tcp_window_scaling).then(own)),
            sack_permitted: self.tcb.snd.sack || all && env.config.tcp_sack,
            timestamps: self.timestamps(env),
            fast_open: self.rare.as_mut().and_then(|rare| rare.cookie.take()),
            ..Options::default()
        };
        let mut flags = Flags::SYN | Flags::ACK;
        if self.tcb.ecn.on {
            flags |= Flags::ECE;
        }
        let window = self.tcb.rcv.adv.since(self.tcb.rcv.nxt).min(0xffff) as u16;
        self.tcb.ack.now = false;
        self.tcb.rcv.last_ack_sent = self.tcb.rcv.nxt;
        let seq = self.tcb.snd.una;
        let header = header_of(&self.tcb.tuple);
        *out = Outgoing::bare(Header { seq, ack: self.tcb.rcv.nxt, flags, window, options, ..header });
    }

    /// Retransmits what is lost, or sends a loss probe.
    #[inline]
    fn next_retransmission(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        // The common case: there is neither.
        if !self.has_retransmission() {
            return false;
        }
        if let Some((start, len)) = self.next_lost(env) {
            self.resend(start, len, out, env);
            return true;
        }
        self.next_loss_probe(out, env)
    }

    /// After a timeout new data was due first, by F-RTO, and none could leave: the repair goes on.
    // DRILL-X17
    #[inline]
    fn repair_without_new_data(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let waits = self.has_retransmission() && self.tcb.snd.nxt == self.tcb.snd.recover;
        if waits && let Some(flight) = self.flight.as_mut().filter(|flight| flight.frto == Frto::NewData) {
            flight.frto = Frto::Off;
            return self.next_retransmission(out, env);
        }
        false
    }

    pub(super) fn resend(&mut self, start: SeqNum, len: u32, out: &mut Outgoing, env: &mut Env<'_>) {
        env.counters.retrans_segs += 1;
        self.rare().total_retrans += 1;
        self.tcb.rtt.cancel(env.now);
        if start == self.tcb.snd.una || self.tcb.timers.retransmit.is_none() {
            match env.config.follows_linux() {
                true => self.time_retransmission_as_linux(env),
                false => self.give_retransmission_time(env),
            }
        }
        if !self.tail.is_timed() {
            self.arm_loss_probe(self.flight(), env);
        }
        let fin = self.tcb.snd.fin_sent && start + len == self.tcb.snd.nxt;
        let payload = len - u32::from(fin);
        self.note_resent(start, payload, fin);
        let flags = if fin { Flags::FIN } else { Flags::default() };
        self.data_segment(start, payload as usize, flags, out, env);
    }

    /// Sends new data and the FIN, within the limits of the peer's window, congestion control, Nagle and silly-window
    /// avoidance.
    fn next_data(&mut self, segmentation_offload: bool, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let unsent = self.unsent();
        let fin_due = self.tcb.snd.fin_queued && !self.tcb.snd.fin_sent;
        if (unsent == 0 && !fin_due) || !self.may_send_now() {
            return false;
        }
        if unsent == 0 && !env.config.tcp_gso_quanta {
            return self.next_fin(out, env);
        }
        self.restart_after_idle(env);
        self.raise_expired_pmtu(env);
        let nxt = self.tcb.snd.nxt;
        let window_end = self.tcb.snd.una + self.tcb.snd.wnd;
        let window = if nxt.lt(window_end) { window_end.since(nxt) } else { 0 };
        let room = self.congestion_room();
        let mss = usize::from(self.payload_len_limit());
        match self.next_mtu_probe(unsent, window, room, env) {
            PmtuProbe::No => {}
            PmtuProbe::Soon => return false,
            PmtuProbe::Now(payload) => {
                self.first_transmission(payload, Flags::default(), None, out, env);
                return true;
            }
        }
        if env.config.tcp_gso_quanta && !self.is_paced(env.config) {
            let limits = (window, mss as u32);
            let sent = self.next_in_quanta((unsent, fin_due), limits, segmentation_offload, out, env);
            self.note_limit(sent, env);
            return sent;
        }
        let limit = if segmentation_offload { self.super_payload(mss) } else { mss };
        // A super-segment keeps to the quantum. Where none is left, what would be sent decides whether to wait.
        let paced = self.pacing_room(mss as u32, env);
        let limit = paced.filter(|room| *room > 0).map_or(limit, |room| limit.min(room as usize));
        let allowed = unsent.min(window as usize);
        self.tcb.snd.cwnd_limited = allowed.min(limit) > room as usize;
        let mut payload = allowed.min(limit).min(room as usize);
        let last = payload == unsent;
        if payload > mss && !last {
            payload -= payload % mss;
        }
        // The FIN needs no room in cwnd, but one sequence number in the peer's window.
        let fin = fin_due && last && window as usize > payload;
        let cut_by_cwnd = payload < allowed.min(mss);
        if !self.worth_sending(payload, last, fin, mss, cut_by_cwnd) {
            if self.flight() == 0 {
                // With nothing in flight no ACK will arrive. The persist timer probes, or sends the small segment
                // after all.
                self.arm_persist(env);
            }
            return false;
        }
        if paced == Some(0) && payload > 0 {
            self.hold_back();
            return false;
        }
        let flags = if fin { Flags::FIN } else { Flags::default() };
        let segment_size = (payload > mss).then_some(mss as u16);
        self.first_transmission(payload, flags, segment_size, out, env);
        self.note_small_segment(payload, mss);
        if payload == mss && limit == mss && paced.is_none() && self.is_plain(out) {
            // The segment with the last byte of the queue carries PSH, so its header differs.
            let like_it = allowed.min(room as usize).min(unsent - 1) / mss;
            out.alike = like_it.saturating_sub(1) as u32;
            if out.alike > 0 && self.flight() as usize == mss {
                // They follow at once: the peer will not delay its ACK.
                self.arm_loss_probe(2 * mss as u32, env);
            }
        }
        true
    }

    /// Sends a FIN behind data that was sent before. It needs no room in cwnd, but one sequence number in the peer's
    /// window.
    fn next_fin(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let snd = &mut self.tcb.snd;
        snd.cwnd_limited = false;
        if snd.nxt.lt(snd.una + snd.wnd) {
            self.first_transmission(0, Flags::FIN, None, out, env);
            return true;
        }
        if self.flight() == 0 {
            self.arm_persist(env);
        }
        false
    }

    /// Records the end of new data just sent if it is not a multiple of full segments.
    #[inline]
    pub(super) fn note_small_segment(&mut self, payload: usize, mss: usize) {
        if payload != mss && !payload.is_multiple_of(mss) {
            self.small_end = self.tcb.snd.nxt;
        }
    }

    /// Returns whether the segment's header can serve as a template: neither it nor the connection has exceptional
    /// state.
    fn is_plain(&self, outgoing: &Outgoing) -> bool {
        let rare = self.rare.as_ref();
        let exceptional = !self.is_calm()
            || rare.is_some_and(|rare| rare.pmtu_search.is_some() || rare.urgent_end.is_some());
        !exceptional && !self.tcb.ecn.on && outgoing.header.options.sack.is_empty()
    }

    /// Advances `out` to the next of the segments like it: the result is that of
    /// [`next_segment`](Connection::next_segment), at less cost.
    pub(crate) fn next_alike(&mut self, out: &mut Outgoing) {
        let len = out.payload_len as u32;
        self.tcb.snd.nxt += len;
        out.header.seq += len;
        out.offset += out.payload_len;
        out.alike -= 1;
    }

    pub(super) fn may_send_now(&self) -> bool {
        matches!(
            self.tcb.state,
            State::Established | State::CloseWait | State::FinWait1 | State::Closing | State::LastAck
        )
    }

    /// Bytes that congestion control permits now. Each of the first two duplicate ACKs permits one segment (5681-10).
    pub(super) fn congestion_room(&self) -> u32 {
        let cwnd = self.congestion.cwnd();
        match &self.flight {
            None => cwnd.saturating_sub(self.flight()),
            Some(flight) if flight.trial.is_some() => 0,
            Some(flight) => {
                let limited = flight.phase == CaState::Disorder && !self.tcb.snd.sack;
                let extra = if limited { flight.dupacks.min(2) * u32::from(self.payload_mss()) } else { 0 };
                cwnd.saturating_add(extra).saturating_sub(self.in_network())
            }
        }
    }

    /// Nagle (SHLD-7) and sender-side silly-window avoidance (MUST-38), as in RFC 9293 §3.8.6.2.1. Permits a full
    /// segment, or half of the largest window ever seen, or any data after the override timer. Also permits all
    /// remaining data when no small segment is in flight or Nagle is off. This is Minshall's variant (appendix A.3):
    /// only small segments in flight delay data. Otherwise the tail of every long write would wait for an ACK, which
    /// the receiver may delay.
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
        if self.options.cork
            && payload < mss
            && !self.tcb.snd.fin_queued
            && !self.tcb.snd.pending.window_probe
        {
            return false;
        }
        let idle = self.tcb.snd.nxt == self.start_of_queue();
        let small_in_flight = self.small_end.gt(self.tcb.snd.una);
        payload >= mss
            || fin
            || (last && (!small_in_flight || self.options.nodelay || self.tcb.snd.fin_queued))
            || (!cut_by_cwnd && payload as u32 >= self.tcb.snd.max_wnd / 2)
            || (cut_by_cwnd && idle)
            || self.tcb.snd.pending.window_probe
    }

    /// Reduces cwnd after idling for longer than an RTO: it no longer reflects the state of the path (5681-12).
    #[inline]
    fn restart_after_idle(&mut self, env: &Env<'_>) {
        if env.config.follows_linux() && !self.takes_note_of_write() {
            return;
        }
        let started = self.bytes_acked > 0;
        if self.flight() > 0 || !env.config.tcp_slow_start_after_idle || !started {
            return;
        }
        let idle = env.tick().elapsed(self.tcb.snd.last_sent);
        if idle == 0 {
            return;
        }
        let rto = self.tcb.rtt.rto(env.config);
        if Duration::from_millis(u64::from(idle)) > rto {
            let mss = u32::from(self.payload_mss());
            let window = super::congestion::initial_window(env.initial_segments(&self.tcb.tuple), mss);
            if env.config.follows_linux() {
                let timeouts = u128::from(idle - 1) / rto.as_millis().max(1);
                let timeouts = u32::try_from(timeouts).unwrap_or(u32::MAX);
                self.congestion.decay(window, timeouts, mss, env.tick());
            } else {
                self.congestion.idle(window);
            }
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
        let before = self.flight();
        if before == 0 {
            self.tcb.snd.stalled_since = env.tick();
            self.tcb.timers.unanswered_since = env.tick();
        }
        self.note_sent(env);
        self.note_out(end.since(start));
        self.tcb.snd.nxt = end;
        self.tcb.snd.fin_sent |= flags.fin();
        let probe = std::mem::take(&mut self.tcb.snd.pending.window_probe);
        self.tcb.timers.persist = None;
        self.tcb.rtt.start(end, env.now);
        self.note_packet_size(end, payload);
        if env.config.follows_linux() {
            self.time_new_data_as_linux(probe, env);
        } else if self.tcb.timers.retransmit.is_none() {
            self.arm_retransmit(env);
            self.arm_loss_probe(self.flight(), env);
        } else if !self.tail.is_timed() || before <= u32::from(self.payload_mss()) {
            self.arm_loss_probe(self.flight(), env);
        }
        self.data_segment(start, payload, flags, out, env);
        out.segment_size = segment_size;
        if env.config.follows_linux() && payload > 0 {
            self.note_answer_for_linux(env);
        }
        if self.tcb.ecn.on && payload > 0 {
            out.ecn = Ecn::Ect0;
            if std::mem::take(&mut self.tcb.ecn.cwr_pending) {
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
        // Set PSH on the last byte in the queue (MUST-61), or where the boundaries of writes and bursts say so.
        let push = payload_len > 0
            && match self.quanta() {
                None => offset + payload_len == self.send_queue.len(),
                Some(quanta) => quanta.pushes(seq + payload_len as u32),
            };
        let flags = if push { flags | Flags::PSH } else { flags };
        out.begin();
        self.acknowledging(seq, Flags::ACK | flags, Connection::blocks_beside_data, &mut out.header, env);
        self.announce_urgent(seq, &mut out.header);
        out.offset = offset;
        out.payload_len = payload_len;
        self.note_paced(payload_len, env);
        self.tcb.snd.last_sent = env.tick();
    }

    /// Sets URG in a segment that begins at `seq` and before the end of urgent data.
    #[inline]
    fn announce_urgent(&self, seq: SeqNum, header: &mut Header) {
        if let Some(end) = self.urgent_end().filter(|end| end.gt(seq)) {
            // The pointer refers to the octet after the urgent data (MUST-62). A distance above 65535 is clamped;
            // later segments carry the exact one.
            header.flags |= Flags::URG;
            header.urgent = end.since(seq).min(0xffff) as u16;
        }
    }

    /// Sends zero-window and keepalive probes: an old sequence number and no data, which the peer must answer
    /// (SHLD-12). A segment at SND.UNA goes ahead that announces urgent data, as in Linux: a peer whose window is closed
    /// takes URG there and nowhere else (MUST-66).
    fn next_probe(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let snd = &mut self.tcb.snd;
        if snd.pending.window_probe && std::mem::take(&mut snd.pending.urgent_probe) {
            let seq = snd.una;
            self.bare(seq, Flags::ACK, out, env);
            self.announce_urgent(seq, &mut out.header);
            return true;
        }
        let window_probe = std::mem::take(&mut snd.pending.window_probe);
        let keepalive = std::mem::take(&mut snd.pending.keepalive_probe);
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

    pub(super) fn next_ack(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        if !self.tcb.ack.now {
            return false;
        }
        if self.repeats_fin(env) {
            self.bare(self.tcb.snd.nxt - 1, Flags::ACK | Flags::FIN, out, env);
            return true;
        }
        let seq = self.acceptable_seq();
        self.bare(seq, Flags::ACK, out, env);
        true
    }

    /// SND.NXT, or the right edge of the window if the peer has shrunk it: the peer need not accept a number beyond
    /// it. Linux does the same. A shortfall below one unit of the window scale is rounding, not shrinking.
    pub(crate) fn acceptable_seq(&self) -> SeqNum {
        let snd = &self.tcb.snd;
        let edge = snd.una + snd.wnd;
        let synchronized = self.tcb.state != State::SynReceived;
        let taken_back = synchronized && edge.lt(snd.nxt) && snd.nxt.since(edge) >= 1 << snd.wscale;
        if taken_back { edge } else { snd.nxt }
    }

    /// Builds the ACK that is due when the connection becomes a TIME-WAIT entry. The stack sends it on the
    /// connection's behalf.
    pub(crate) fn final_ack(&mut self, env: &mut Env<'_>) -> Reply {
        let SocketOptions { ttl, dscp, .. } = *self.options;
        let (tuple, reason) = (self.tcb.tuple, ReplyReason::UnacceptableAck);
        let mut reply = Reply { tuple, header: Header::default(), ttl, dscp, reason };
        let (seq, room) = (self.tcb.snd.nxt, Connection::blocks_beside_nothing);
        self.acknowledging(seq, Flags::ACK, room, &mut reply.header, env);
        reply
    }

    /// Builds a segment without payload.
    fn bare(&mut self, seq: SeqNum, flags: Flags, out: &mut Outgoing, env: &mut Env<'_>) {
        out.begin();
        self.acknowledging(seq, flags, Connection::blocks_beside_nothing, &mut out.header, env);
    }

    /// Builds the header of a segment. It carries an ACK and so clears any pending one. `room` returns how many SACK
    /// blocks fit.
    #[inline]
    fn acknowledging(
        &mut self,
        seq: SeqNum,
        mut flags: Flags,
        room: impl FnOnce(&Connection) -> usize,
        header: &mut Header,
        env: &mut Env<'_>,
    ) {
        let window = self.advertise_window(env);
        let options = Options { timestamps: self.timestamps(env), ..Options::default() };
        self.tcb.ack.now = false;
        self.tcb.ack.bytes = 0;
        self.tcb.timers.delayed_ack = None;
        self.tcb.rcv.last_ack_sent = self.tcb.rcv.nxt;
        if self.tcb.ecn.echo {
            flags |= Flags::ECE;
        }
        *header = Header { seq, ack: self.tcb.rcv.nxt, flags, window, options, ..header_of(&self.tcb.tuple) };
        if std::mem::take(&mut self.tcb.ack.kind) == AckKind::Usual && self.has_sack_blocks() {
            let most = room(self);
            self.push_sack_blocks(&mut header.options.sack, env);
            header.options.sack.truncate(most);
        }
    }

    /// Schedules a challenge ACK, within the limit for the connection (5961-3, -5, -9, -10). Returns whether it is
    /// sent.
    pub(crate) fn challenge(&mut self, env: &mut Env<'_>) -> bool {
        if env.config.follows_linux() {
            let sent = self.answer_invalid_within_limit(false, env);
            if sent {
                env.counters.tcp_challenge_ack += 1;
                let tuple = self.tcb.tuple;
                env.note_reply(&tuple, ReplyReason::ChallengeAck);
            }
            return sent;
        }
        let now = env.tick();
        let answers = &mut self.rare().answers;
        if now.elapsed(answers.challenge_from) >= 1000 {
            (answers.challenge_from, answers.challenges) = (now, 0);
        }
        if answers.challenges >= env.config.tcp_challenge_ack_limit {
            return false;
        }
        answers.challenges += 1;
        let ack = &mut self.tcb.ack;
        if !ack.now {
            ack.kind = AckKind::Challenge;
        }
        ack.now = true;
        env.counters.tcp_challenge_ack += 1;
        let tuple = self.tcb.tuple;
        env.note_reply(&tuple, ReplyReason::ChallengeAck);
        true
    }

    /// One answer of the budget that probes and other invalid segments have.
    fn answer_invalid_within_limit(&mut self, probe: bool, env: &Env<'_>) -> bool {
        let now = env.tick();
        // Linux has one budget for all. DRILL-X50
        let own = probe && !env.config.follows_linux();
        let last =
            if own { &mut self.tcb.ack.probe_answered_at } else { &mut self.rare().answers.invalid_at };
        let limit = env.config.tcp_invalid_ratelimit.as_millis() as u32;
        if last.is_some_and(|last| now.elapsed(last.tick()) < limit) {
            return false;
        }
        *last = Some(Stamp::at(now));
        // Linux's answers carry SACK blocks. DRILL-X53
        if !self.tcb.ack.now && !env.config.follows_linux() {
            self.tcb.ack.kind = AckKind::Plain;
        }
        self.tcb.ack.now = true;
        true
    }

    /// Schedules the ACK that answers an unacceptable segment, at most one per `tcp_invalid_ratelimit`. `probe` marks
    /// a possible keepalive or window probe; these have a separate limit. Returns whether the ACK is sent.
    pub(crate) fn acknowledge_invalid(&mut self, probe: bool, env: &mut Env<'_>) -> bool {
        let sent = self.answer_invalid_within_limit(probe, env);
        if sent {
            let tuple = self.tcb.tuple;
            env.note_reply(&tuple, ReplyReason::UnacceptableAck);
        }
        sent
    }
}

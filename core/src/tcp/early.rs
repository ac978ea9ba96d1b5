//! Data sent before our SYN is acknowledged (RFC 7413 §4.2). A client sends its request on the SYN. A server answers
//! a request that came with a valid cookie, which proves the client's address.

use super::recovery::before::Before;
use super::segment::{Outgoing, Segment};
use super::tcb::{Connection, Env, Origin};
use crate::trace::Loss;
use crate::wire::tcp::{Cookie, Flags};

impl Connection {
    /// Enters SYN-RECEIVED after a SYN with a valid cookie: takes its data and allows an answer before the handshake
    /// completes.
    pub(crate) fn open_fast(&mut self, segment: &Segment<'_>, cookie: Option<Cookie>, env: &mut Env<'_>) {
        let snd = &mut self.tcb.snd;
        snd.wnd = u32::from(segment.header.window);
        snd.max_wnd = snd.wnd;
        snd.pending.handshake = true;
        self.tcb.rtt.start(snd.nxt, env.now);
        self.arm_syn_ack(env);
        self.take_syn_data(segment, env);
        if !segment.payload.is_empty() {
            self.rare().syn_data = true;
        }
        if let Some(cookie) = cookie {
            self.rare().cookie = Some(cookie);
        }
    }

    /// Enters SYN-RECEIVED because a forwarder has accepted the request of a SYN.
    pub(crate) fn answer_syn(&mut self, env: &mut Env<'_>) {
        self.tcb.snd.pending.handshake = true;
        self.tcb.rtt.start(self.tcb.snd.nxt, env.now);
        self.arm_syn_ack(env);
    }

    /// Writes data to `out` before the third segment of the handshake, within the initial window and the window of
    /// the SYN. It is sent once: if the client does not answer, only the SYN-ACK is retransmitted.
    pub(super) fn next_early_data(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let silent = self.tcb.timers.retransmits > 0;
        if self.tcb.origin != Origin::FastOpen || silent {
            return false;
        }
        let (unsent, mss) = (self.unsent(), usize::from(self.payload_len_limit()));
        // Linux: close sends its FIN at once. DRILL-X34
        let fin_due = env.config.follows_linux()
            && self.is_orphan()
            && self.tcb.snd.fin_queued
            && !self.tcb.snd.fin_sent;
        let out_already = self.tcb.snd.nxt.since(self.start_of_queue());
        let cwnd = self.congestion.cwnd();
        let room = self.tcb.snd.wnd.min(cwnd).saturating_sub(out_already) as usize;
        if env.config.tcp_gso_quanta {
            let limits = (self.tcb.snd.wnd.saturating_sub(out_already), mss as u32);
            let due = unsent > 0 || fin_due;
            return due && self.next_in_quanta((unsent, fin_due), limits, false, out, env);
        }
        let payload = unsent.min(room).min(mss);
        let cut_by_cwnd = cwnd < self.tcb.snd.wnd && payload < unsent.min(mss);
        if !self.worth_sending(payload, payload == unsent, false, mss, cut_by_cwnd) {
            return false;
        }
        self.first_transmission(payload, Flags::default(), None, out, env);
        self.note_small_segment(payload, mss);
        true
    }

    /// Marks data sent before the third segment as lost. It is retransmitted when the handshake completes.
    pub(crate) fn early_data_is_lost(&mut self) {
        self.tcb.snd.recover = self.tcb.snd.nxt;
    }

    /// Completes a handshake with early data: SEG.ACK may cover some of it.
    #[cold]
    pub(super) fn take_ack_of_early_data(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) {
        let before = Before::of(self);
        self.arm_retransmit(env);
        if segment.ack().gt(self.tcb.snd.una) {
            let sample = self.sample_of(segment.ack(), env);
            self.deliver(segment, env);
            self.advance(segment.ack(), sample, segment, env);
            self.grow_window(before, None, env);
        }
        // Linux leaves what the peer has not acknowledged to the timer. DRILL-X34
        if self.tcb.snd.una.lt(self.tcb.snd.recover) && !env.config.follows_linux() {
            self.resend_early_data(env);
        }
    }

    /// Retransmits the early data that the peer has not acknowledged, within the peer's window.
    pub(super) fn resend_early_data(&mut self, env: &mut Env<'_>) {
        self.resend_all(env, Loss::Handshake);
        if let Some(flight) = &mut self.flight {
            flight.forced = false;
        }
        self.arm_retransmit(env);
    }
}

//! Data that leaves before our SYN is acknowledged (RFC 7413 §4.2): the request on the SYN of a client, and the answer of
//! a server to a request that came with a valid cookie. The cookie has proved the client's address.

use super::segment::{Outgoing, Segment};
use super::tcb::{Connection, Env, Origin};
use crate::trace::Loss;
use crate::wire::tcp::Flags;

impl Connection {
    /// SYN-RECEIVED of a SYN with a valid cookie: its data is here, and an answer may leave.
    pub(crate) fn open_fast(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) {
        let snd = &mut self.tcb.snd;
        snd.wnd = u32::from(segment.header.window);
        snd.max_wnd = snd.wnd;
        snd.handshake_due = true;
        self.tcb.rtt.start(snd.nxt, env.now);
        self.arm_syn_ack(env);
        self.take_syn_data(segment, env);
    }

    /// Puts data before the third segment into `out`, as far as the initial window and that of the SYN let it. It leaves
    /// once: to a client that does not answer only the SYN-ACK goes again.
    pub(super) fn next_early_data(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        let silent = self.tcb.timers.retransmits > 0;
        if self.tcb.origin != Origin::FastOpen || silent {
            return false;
        }
        let (unsent, mss) = (self.unsent(), usize::from(self.payload_len_limit()));
        let out_already = self.tcb.snd.nxt.since(self.start_of_queue());
        let cwnd = self.congestion.cwnd();
        let room = self.tcb.snd.wnd.min(cwnd).saturating_sub(out_already) as usize;
        let payload = unsent.min(room).min(mss);
        let cut_by_cwnd = cwnd < self.tcb.snd.wnd && payload < unsent.min(mss);
        if !self.worth_sending(payload, payload == unsent, false, mss, cut_by_cwnd) {
            return false;
        }
        self.first_transmission(payload, Flags::default(), None, out, env);
        self.note_small_segment(payload, mss);
        true
    }

    /// What left before the third segment counts as lost: it leaves again when the handshake is complete.
    pub(crate) fn early_data_is_lost(&mut self) {
        self.tcb.snd.recover = self.tcb.snd.nxt;
    }

    /// The handshake is complete, and there was data before it: SEG.ACK may cover some of that.
    #[cold]
    pub(super) fn take_ack_of_early_data(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) {
        let flight = self.flight();
        self.arm_retransmit(env);
        if segment.ack().gt(self.tcb.snd.una) {
            self.advance(segment.ack(), segment, flight, env);
        }
        if self.tcb.snd.una.lt(self.tcb.snd.recover) {
            self.resend_early_data(env);
        }
    }

    /// What of it the peer has not taken leaves again, as far as its window lets it.
    pub(super) fn resend_early_data(&mut self, env: &mut Env<'_>) {
        self.resend_all(env, Loss::Handshake);
        if let Some(recovery) = &mut self.recovery {
            recovery.forced = false;
        }
        self.arm_retransmit(env);
    }
}

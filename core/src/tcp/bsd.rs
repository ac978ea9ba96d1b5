//! The rules of FreeBSD that `tcp_bsd_rules` selects: buffers of whole segments, windows without steps, a FIN on every
//! ACK, and the meaning of ICMP errors during a connect.

use super::tcb::{AckKind, Connection, Env, Origin};
use crate::config::Config;
use crate::error::Error;
use crate::memory::Gauge;
use crate::state::State;
use crate::wire::icmp::ErrorKind;

/// The error with which an ICMP message ends a connect; `None`: it is ignored.
// DRILL-F26, DRILL-F27
pub(crate) fn connect_error(kind: ErrorKind, config: &Config) -> Option<Error> {
    match kind {
        _ if !config.tcp_icmp_may_rst => None,
        ErrorKind::ProtocolUnreachable | ErrorKind::PortUnreachable | ErrorKind::AdminProhibited => {
            Some(Error::ConnectionRefused)
        }
        ErrorKind::TimeExceeded => Some(Error::HostUnreachable),
        _ => None,
    }
}

impl Connection {
    /// Unread bytes leave this much of the receive buffer. Bytes beyond a gap do not count.
    // DRILL-F02
    pub(super) fn free_buffer(&self) -> u32 {
        self.tcb.rcv.buffer.saturating_sub(self.receive_queue.len() as u32)
    }

    /// Returns the window field: all of the free buffer, or nothing if that is little. It is rounded up, so that the edge
    /// never moves back.
    // DRILL-F04
    pub(super) fn advertise_free_buffer(&mut self, memory: Gauge) -> u16 {
        let free = self.free_bytes(memory);
        let mss = u32::from(self.tcb.snd.mss);
        let rcv = &mut self.tcb.rcv;
        let free = if free < rcv.buffer / 4 && free < mss { 0 } else { free };
        let window = free.max(rcv.adv.since(rcv.nxt)).min(0xffff << rcv.wscale);
        let window = window.next_multiple_of(1 << rcv.wscale);
        rcv.adv = rcv.adv.max(rcv.nxt + window);
        (window >> rcv.wscale).min(0xffff) as u16
    }

    /// Returns whether reading has freed enough for a window update.
    // DRILL-F05
    pub(super) fn free_buffer_is_news(&self, memory: Gauge) -> bool {
        let (rcv, mss) = (&self.tcb.rcv, u32::from(self.tcb.snd.mss));
        let largest = 0xffff << rcv.wscale;
        let free = self.free_bytes(memory);
        let before = rcv.adv.since(rcv.nxt);
        let gain = free.min(largest).saturating_sub(before);
        if before >> rcv.wscale >= (before + gain) >> rcv.wscale || self.tcb.timers.delayed_ack.is_some() {
            return false;
        }
        let large =
            gain >= rcv.buffer / 4 || free <= rcv.buffer / 8 || rcv.buffer <= 8 * mss || gain >= largest;
        (gain >= 2 * mss && large) || 2 * u64::from(gain) >= u64::from(rcv.buffer)
    }

    /// Whether an ACK that is no challenge repeats our FIN.
    // DRILL-F14, DRILL-F15
    pub(super) fn repeats_fin(&self, env: &Env<'_>) -> bool {
        env.config.tcp_bsd_rules
            && self.tcb.snd.fin_sent
            && self.tcb.snd.una != self.tcb.snd.nxt
            && self.tcb.ack.kind != AckKind::Challenge
            && matches!(self.tcb.state, State::FinWait1 | State::Closing | State::LastAck)
    }

    /// Keeps the data of the SYN that crossed ours. It is delivered when the handshake is over.
    // DRILL-F23
    pub(super) fn keep_syn_data(&mut self, segment: &super::segment::Segment<'_>, env: &mut Env<'_>) {
        let room = self.receive_window() as usize;
        let payload = &segment.payload[..segment.payload.len().min(room)];
        if !payload.is_empty() {
            let start = self.tcb.rcv.nxt;
            // Without memory for it the peer sends it again.
            let _ = self.hold(start, payload, segment.packet, env);
        }
    }

    /// Delivers what [`keep_syn_data`](Connection::keep_syn_data) kept.
    pub(super) fn deliver_syn_data(&mut self, env: &mut Env<'_>) {
        if self.tcb.origin == Origin::Active && self.reassembly.is_some() {
            let (now, before) = (self.tcb.ack.now, self.tcb.rcv.nxt);
            self.deliver_waiting(env);
            self.tcb.ack.now = now;
            let taken = self.tcb.rcv.nxt.since(before);
            if taken > 0 {
                self.signal(crate::socket::Event::READABLE);
                self.note_data_received(taken, env);
            }
        }
    }
}

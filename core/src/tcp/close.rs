//! The user's ways to end a connection: CLOSE, half-close, ABORT.

use std::sync::Arc;

use super::input::{Closed, Outcome};
use super::tcb::{Connection, Env};
use crate::state::State;
use crate::time::{Deadline, Duration};

impl Connection {
    /// Half-close: FIN after what is queued (SA-EST-32, SA-CLOSE_WAIT-27). The state changes at once, the FIN
    /// leaves when it can. In SYN-RECEIVED it waits until the connection is established.
    pub(crate) fn shutdown_write(&mut self, env: &mut Env<'_>) {
        if self.tcb.snd.fin_queued {
            return;
        }
        self.tcb.snd.fin_queued = true;
        match self.tcb.state {
            State::Established => self.set_state(State::FinWait1, env),
            State::CloseWait => self.set_state(State::LastAck, env),
            _ => {}
        }
    }

    /// Unread and later data is discarded (SA-EST-25). Data beyond a gap is discarded too: the peer retransmits it, and
    /// only its sequence numbers count.
    pub(crate) fn shutdown_read(&mut self, env: &mut Env<'_>) {
        // Linux keeps it after its FIN too. DRILL-X54
        let keeps = env.config.follows_linux() || !self.tcb.snd.fin_queued;
        if env.config.tcp_shut_rd_keeps && !self.is_orphan() && keeps {
            self.rare().read_shut = true;
            return;
        }
        self.tcb.rcv.shut = true;
        let len = self.receive_queue.len();
        self.receive_queue.release(len, env.pool);
        self.reassembly = None;
    }

    /// CLOSE: the application gives the connection up in both directions (MAY-1).
    pub(crate) fn close(&mut self, orphans_full: bool, env: &mut Env<'_>) -> Outcome {
        if self.options.linger == Some(Duration::ZERO) {
            return self.abort();
        }
        // Linux resets in these states too. DRILL-X54
        let open = !matches!(self.tcb.state, State::Closing | State::LastAck) || env.config.follows_linux();
        if env.config.tcp_bsd_rules {
            // FreeBSD throws unread data away and sends its FIN. DRILL-F36
            let len = self.receive_queue.len();
            self.receive_queue.release(len, env.pool);
        }
        if open && !self.receive_queue.is_empty() {
            // The peer must not believe that its data was read (SHLD-3, T11).
            env.counters.tcp_abort_on_close += 1;
            return Outcome::Closed(Closed { error: None, rst: true });
        }
        self.socket = None;
        self.tcb.rcv.shut = true;
        if !env.config.follows_linux() {
            self.reassembly = None;
        }
        self.arm_orphan(env);
        self.shutdown_write(env);
        if orphans_full {
            env.counters.tcp_abort_on_memory += 1;
            return Outcome::Closed(Closed { error: None, rst: true });
        }
        self.arm_fin_wait_2(env);
        Outcome::Keep
    }

    /// ABORT once everything queued is acknowledged, or after `limit`. A `linger` of zero marks it: no other orphan has
    /// that.
    pub(crate) fn abort_after(&mut self, limit: Duration, env: &mut Env<'_>) -> Outcome {
        if self.is_delivered() {
            return self.abort();
        }
        self.socket = None;
        self.options =
            Arc::new((*self.options).clone().with(|options| options.linger = Some(Duration::ZERO)));
        self.shutdown_read(env);
        self.tcb.timers.keepalive_or_fin_wait_2 = Some(Deadline::after(env.now, limit));
        Outcome::Keep
    }

    /// Whether it is an orphan that ends with a RST.
    pub(super) fn resets_at_end(&self) -> bool {
        self.is_orphan() && self.options.linger == Some(Duration::ZERO)
    }

    pub(super) fn is_delivered(&self) -> bool {
        self.send_queue.is_empty() && self.flight() == 0
    }

    /// Nothing is left to do for the peer: no application has the connection, and its FIN is acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_orphan() && self.fin_is_acknowledged()
    }

    /// The peer was sent everything, and everything that came was read.
    pub(crate) fn is_spent(&self) -> bool {
        self.tcb.snd.fin_sent && self.receive_queue.is_empty()
    }

    /// ABORT: RST, except where both FINs are on their way already (SA-CLOSING-29, SA-LAST_ACK-29).
    pub(crate) fn abort(&mut self) -> Outcome {
        let rst = !matches!(self.tcb.state, State::Closing | State::LastAck);
        Outcome::Closed(Closed { error: None, rst })
    }
}

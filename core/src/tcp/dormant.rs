//! FIN-WAIT-2 without an application: all sent data is acknowledged, and nobody reads data that arrives. Only the
//! fields that the checks of RFC 9293 §3.10.7.4 need remain. A segment or the timer restores the connection.
// THREAT-10

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::ecn::EcnState;
use super::rare::Answers;
use super::tcb::{AckState, Agreed, Connection, Env, Origin, Rcv, TsState};
use crate::error::Error;
use crate::seq::SeqNum;
use crate::socket::{SocketId, SocketOptions};
use crate::state::State;
use crate::time::{Deadline, Since};
use crate::tuple::FourTuple;
use crate::wheel::TimerId;

/// An orphan in FIN-WAIT-2 with empty queues.
#[derive(Clone, Debug)]
pub(crate) struct Dormant {
    pub(crate) tuple: FourTuple,
    pub(crate) snd_nxt: SeqNum,
    /// How far below SND.UNA an ACK may lie (5961-7).
    pub(crate) acked: u32,
    pub(crate) rcv: Rcv,
    ts: TsState,
    ack: AckState,
    answers: Answers,
    /// When FIN-WAIT-2 ends.
    pub(crate) fin_wait_2: Option<Deadline>,
    pub(crate) state_since: Since,
    options: Arc<SocketOptions>,
    pub(crate) listener: Option<SocketId>,
    pub(crate) timer: TimerId,
    peer_mss: u16,
    pmtu: u16,
    snd_wscale: Option<u8>,
    sack: bool,
    timestamps: bool,
    ecn: EcnState,
    origin: Origin,
    soft_error: Option<Error>,
}

/// With its place in the flow table and its timer it stays below 256 bytes.
const _: () = assert!(size_of::<Dormant>() <= 208);

impl Hash for Dormant {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Dormant {
            tuple,
            snd_nxt,
            acked,
            rcv,
            ts,
            ack,
            answers,
            fin_wait_2,
            state_since: _,
            options,
            listener: _,
            timer: _,
            peer_mss,
            pmtu,
            snd_wscale,
            sack,
            timestamps,
            ecn,
            origin,
            soft_error,
        } = self;
        (tuple, snd_nxt, acked, rcv, ts, ack, answers, fin_wait_2, options).hash(state);
        (peer_mss, pmtu, snd_wscale, sack, timestamps, ecn, origin, soft_error).hash(state);
    }
}

impl Dormant {
    /// Whether nothing of a connection is lost that is kept so.
    pub(crate) fn may_be(connection: &Connection) -> bool {
        connection.tcb.state == State::FinWait2
            && connection.is_orphan()
            && connection.flight() == 0
            && connection.send_queue.is_empty()
            && connection.receive_queue.is_empty()
            && connection.reassembly.is_none()
    }

    pub(crate) fn of(connection: &Connection) -> Dormant {
        let tcb = &connection.tcb;
        let numbers = connection.bytes_acked.saturating_add(1);
        Dormant {
            tuple: tcb.tuple,
            snd_nxt: tcb.snd.nxt,
            acked: numbers.min(u64::from(tcb.snd.max_wnd)) as u32,
            rcv: tcb.rcv.clone(),
            ts: tcb.ts.clone(),
            ack: tcb.ack.clone(),
            answers: connection.answers(),
            fin_wait_2: tcb.timers.keepalive_or_fin_wait_2,
            state_since: tcb.state_since,
            options: Arc::clone(&connection.options),
            listener: connection.listener,
            timer: TimerId::NONE,
            peer_mss: tcb.snd.peer_mss,
            pmtu: tcb.snd.path.mtu,
            snd_wscale: tcb.snd.wscale_on.then_some(tcb.snd.wscale),
            sack: tcb.snd.sack,
            timestamps: tcb.snd.timestamps,
            ecn: tcb.ecn.clone(),
            origin: tcb.origin,
            soft_error: connection.soft_error,
        }
    }

    /// Restores the connection.
    pub(crate) fn wake(self, env: &Env<'_>) -> Connection {
        let Dormant { tuple, snd_nxt, acked, rcv, ts, origin, options, .. } = self;
        let agreed = Agreed {
            tuple,
            origin,
            iss: snd_nxt - 1,
            irs: rcv.nxt - 1,
            advertised: 0,
            peer_mss: self.peer_mss,
            adv_mss: rcv.adv_mss,
            pmtu: self.pmtu,
            snd_wscale: self.snd_wscale,
            sack: self.sack,
            ecn: self.ecn.on,
            ts_recent: self.timestamps.then_some(ts.recent),
            ts_offset: ts.offset,
            syn_retransmissions: 0,
            rtt: None,
            options,
        };
        let mut connection = Connection::new(agreed, env);
        let tcb = &mut connection.tcb;
        tcb.state = State::FinWait2;
        (tcb.snd.una, tcb.snd.wl1, tcb.snd.wl2) = (snd_nxt, rcv.nxt, snd_nxt);
        (tcb.snd.fin_queued, tcb.snd.fin_sent) = (true, true);
        tcb.snd.max_wnd = acked;
        (tcb.rcv, tcb.ts, tcb.ecn, tcb.ack) = (rcv, ts, self.ecn, self.ack);
        tcb.timers.keepalive_or_fin_wait_2 = self.fin_wait_2;
        tcb.state_since = self.state_since;
        connection.bytes_acked = u64::from(acked);
        connection.listener = self.listener;
        connection.soft_error = self.soft_error;
        if self.answers != Answers::default() {
            connection.rare().answers = self.answers;
        }
        connection
    }
}

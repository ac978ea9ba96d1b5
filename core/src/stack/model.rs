//! For searches through states: a digest of all that decides what a stack does next, and the state of a connection.
//!
//! Times count from now, tables are in the order of their tuples, and bytes are bytes in whatever buffers they lie. Each
//! type says with `Hash` what decides of it; this file says it for the stack.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::Stack;
use super::sockets::{Finished, SocketKind};
use crate::flow::FlowRef;
use crate::ip::routes::InterfaceId;
use crate::seq::SeqNum;
use crate::socket::SocketId;
use crate::state::State;
use crate::tcp::dormant::Dormant;
use crate::tcp::listen::Listener;
use crate::tcp::tcb::{Origin, Tcb};
use crate::tcp::time_wait::TimeWait;
use crate::time::{Instant, unit};
use crate::tuple::FourTuple;

/// How a segment finds a stack (RFC 9293 §3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variables {
    /// The state.
    pub state: State,
    /// SND.UNA and SND.NXT; 0 in CLOSED and LISTEN.
    pub snd: (SeqNum, SeqNum),
    /// RCV.NXT and RCV.WND, once the peer's SYN is known. RCV.WND is 0 in TIME-WAIT.
    pub rcv: Option<(SeqNum, u32)>,
    /// Our FIN was sent.
    pub fin_sent: bool,
    /// MAX.SND.WND (RFC 5961 §5): the largest window that the peer has offered.
    pub max_window: u32,
    /// It began with a connect.
    pub active: bool,
    /// The options that both ends have agreed on, of a connection in its own table.
    pub agreed: Option<AgreedOptions>,
}

/// The options that the two ends of a connection agree on. Those of one end tell those of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgreedOptions {
    /// SACK (RFC 2018).
    pub sack: bool,
    /// Timestamps (RFC 7323).
    pub timestamps: bool,
    /// ECN (RFC 3168).
    pub ecn: bool,
    /// The shift of the windows that this end reads, and that of those it writes (RFC 7323 §2).
    pub shifts: (u8, u8),
    /// The MSS option of the peer, and that of this end (RFC 9293 §3.7.1).
    pub mss: (u16, u16),
}

impl Stack {
    /// Returns a digest of the state at `now`. Two stacks of one configuration with the same digest, which get the same
    /// packets, calls and times from then on, send the same packets and report the same events.
    ///
    /// The digest leaves out what is only shown (counters, ages, the trace), and which rows and buffers hold the state.
    /// It leaves out interfaces, routes and neighbours, which are to be the same.
    ///
    /// # Panics
    ///
    /// Panics if something is left to do at `now`: timers are due, or [`transmit`](Stack::transmit) or
    /// [`poll_event`](Stack::poll_event) have something to return. Panics if the stack has sockets of UDP or forwarders:
    /// the digest does not cover them.
    pub fn digest(&self, now: Instant) -> u128 {
        assert!(self.poll_at().is_none_or(|at| at > now), "timers are due");
        assert!(
            self.replies.is_empty() && self.looped.is_empty() && self.events.is_empty(),
            "the stack is busy"
        );
        assert!(self.sockets.iter().all(|(_, socket)| socket.kind.is_of_tcp()), "not all sockets are of TCP");
        let mut state = Digest::new(now);
        self.hash_openings(&mut state);
        self.hash_connections(now, &mut state);
        self.hash_sockets(&mut state);
        self.bindings.reserved().for_each(|end| end.hash(&mut state));
        self.addresses.of(InterfaceId::FIRST).for_each(|address| address.hash(&mut state));
        self.fragments.hash(&mut state);
        (&self.pmtu, &self.rst_limit, &self.icmp_limit, &self.syn_ack_limit).hash(&mut state);
        (&self.cookies, &self.spent_cookies, &self.peers, self.keys.drawn(), self.astray).hash(&mut state);
        state.hash.finish128().as_u128()
    }

    /// Stops the clock of initial sequence numbers: it goes on with each of them instead. States that differ in the time
    /// at which a connection began then have one digest. For models alone: the next number can be guessed.
    pub fn stop_clock(&mut self) {
        self.keys.stop_clock();
    }

    /// Returns how a segment between these ends finds the stack.
    pub fn variables(&mut self, local: SocketAddr, remote: SocketAddr) -> Variables {
        let tuple = FourTuple::new(local, remote);
        let snd = (SeqNum(0), SeqNum(0));
        let none = |state| {
            let (rcv, fin_sent, max_window) = (None, false, 0);
            Variables { state, snd, rcv, fin_sent, max_window, active: false, agreed: None }
        };
        match self.find(&tuple) {
            Some(FlowRef::Opening(index)) => {
                let opening = &self.openings[index];
                Variables { snd: (opening.iss, opening.snd_nxt()), active: true, ..none(State::SynSent) }
            }
            Some(FlowRef::HalfOpen(index)) => {
                let entry = &self.half_open[index];
                let options = &self.listeners[entry.listener].options;
                let adv_mss = self.advertised_mss(&tuple, options.max_segment);
                let window = u32::from(entry.window(options.rcvbuf, adv_mss, &self.config));
                let (snd, rcv) = ((entry.iss, entry.iss + 1), Some((entry.irs + 1, window)));
                Variables { snd, rcv, ..none(State::SynReceived) }
            }
            Some(FlowRef::Connection(index)) => {
                let connection = &self.connections[index];
                let Tcb { state, snd, rcv, ecn, origin, .. } = &connection.tcb;
                let agreed = AgreedOptions {
                    sack: snd.sack,
                    timestamps: snd.timestamps,
                    ecn: ecn.on,
                    shifts: (snd.wscale, rcv.wscale),
                    mss: (snd.peer_mss, rcv.adv_mss),
                };
                Variables {
                    state: *state,
                    snd: (snd.una, snd.nxt),
                    rcv: Some((rcv.nxt, connection.receive_window())),
                    fin_sent: snd.fin_sent,
                    max_window: snd.max_wnd,
                    active: *origin == Origin::Active,
                    agreed: Some(agreed),
                }
            }
            Some(FlowRef::Dormant(index)) => {
                let Dormant { snd_nxt, acked: max_window, rcv, .. } = &self.dormant[index];
                let (snd, rcv) = ((*snd_nxt, *snd_nxt), Some((rcv.nxt, rcv.adv.since(rcv.nxt))));
                let max_window = *max_window;
                Variables { snd, rcv, fin_sent: true, max_window, ..none(State::FinWait2) }
            }
            Some(FlowRef::TimeWait(index)) => {
                let TimeWait { rcv_nxt, snd_nxt, .. } = self.time_waits.get(index);
                let (snd, rcv) = ((snd_nxt, snd_nxt), Some((rcv_nxt, 0)));
                Variables { snd, rcv, fin_sent: true, ..none(State::TimeWait) }
            }
            Some(FlowRef::Pending(_)) | None if self.listener_at(&tuple).is_some() => none(State::Listen),
            Some(FlowRef::Pending(_)) | None => none(State::Closed),
        }
    }

    fn hash_openings(&self, state: &mut Digest) {
        for (index, entry) in in_order(self.half_open.iter(), state, |entry| entry.tuple) {
            (entry, self.wheel.tick(entry.timer), self.gave_way.contains_key(&index)).hash(state);
            (self.listeners[entry.listener].local, self.bindings.place_of(entry.listener)).hash(state);
        }
        for (_, opening) in in_order(self.openings.iter(), state, |opening| opening.tuple) {
            (opening, self.wheel.tick(opening.timer), self.side_of(opening.socket)).hash(state);
        }
    }

    fn hash_connections(&self, now: Instant, state: &mut Digest) {
        for (_, connection) in in_order(self.connections.iter(), state, |connection| connection.tcb.tuple) {
            (connection, connection.socket.map(|id| self.side_of(id))).hash(state);
        }
        for (_, dormant) in in_order(self.dormant.iter(), state, |dormant| dormant.tuple) {
            dormant.hash(state);
        }
        let time_waits = self.time_waits.iter().map(|entry| (0, entry));
        for (_, entry) in in_order(time_waits, state, |entry| entry.tuple) {
            entry.digest(now, state);
        }
    }

    fn hash_sockets(&self, state: &mut Digest) {
        for (_, listener) in in_order_of(self.listeners.iter(), state, |row, listener| {
            // Those that share an end are chosen by their places.
            (listener.local, self.bindings.place_of(row))
        }) {
            let Listener {
                socket,
                local,
                backlog,
                options,
                fast_open,
                closing,
                half_open: _,
                since: _,
                accept_queue,
                waiting,
                fast_open_pending,
                cookies_sent_at,
            } = listener;
            (self.side_of(*socket), local, backlog, options, fast_open, closing).hash(state);
            (accept_queue.len(), waiting.len(), fast_open_pending, cookies_sent_at).hash(state);
            accept_queue.iter().for_each(|(id, _)| self.ends_of(*id).hash(state));
            for (row, iss) in waiting.iter() {
                let entry = self.half_open.get(*row).filter(|entry| entry.iss == *iss);
                entry.map(|entry| entry.tuple).hash(state);
            }
        }
        for (_, finished) in
            in_order(self.finished.iter(), state, |finished| (finished.local, finished.remote))
        {
            let Finished { receive_queue, error, local, remote, options: _, info: _, icmp } = finished;
            (receive_queue, error, local, remote, icmp).hash(state);
        }
    }

    /// The application's side of a socket.
    fn side_of(&self, id: SocketId) -> Option<impl Hash> {
        self.sockets.get(id).map(|socket| (socket.place, socket.events, socket.mapped, socket.refused))
    }

    /// The ends of a connection, by its socket.
    fn ends_of(&self, id: SocketId) -> Option<(SocketAddr, SocketAddr)> {
        match self.sockets.get(id)?.kind {
            SocketKind::Connection(index) => {
                let tuple = self.connections[index].tcb.tuple;
                Some((tuple.local(), tuple.remote()))
            }
            SocketKind::Finished(index) => Some((self.finished[index].local, self.finished[index].remote)),
            _ => None,
        }
    }
}

/// Rows by what they are, not by where they are. Their number is hashed.
fn in_order<T, K: Ord>(
    rows: impl Iterator<Item = (u32, T)>,
    state: &mut Digest,
    key: impl Fn(&T) -> K,
) -> Vec<(u32, T)> {
    in_order_of(rows, state, |_, row| key(row))
}

fn in_order_of<T, K: Ord>(
    rows: impl Iterator<Item = (u32, T)>,
    state: &mut Digest,
    key: impl Fn(u32, &T) -> K,
) -> Vec<(u32, T)> {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|(index, row)| key(*index, row));
    rows.len().hash(state);
    rows
}

/// Hashes values, and times as what lies between them and now.
struct Digest {
    now: Instant,
    hash: SipHasher13,
}

impl Digest {
    fn new(now: Instant) -> Digest {
        let mut digest = Digest { now, hash: SipHasher13::new() };
        // Deadlines are whole milliseconds: it matters where within one we are.
        (now.as_nanos() % 1_000_000).hash(&mut digest);
        digest
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.hash.write(bytes);
    }

    /// A time, with its unit.
    fn write_i128(&mut self, time: i128) {
        let value = time as u64;
        let from_now = match (time >> 64) as u64 {
            unit::MILLIS => u64::from((value as u32).wrapping_sub(self.now.as_millis() as u32)),
            unit::MICROS => u64::from((value as u32).wrapping_sub(self.now.as_micros() as u32)),
            _ => value.wrapping_sub(self.now.as_nanos()),
        };
        self.hash.write_u64(from_now);
    }

    fn finish(&self) -> u64 {
        self.hash.finish()
    }
}

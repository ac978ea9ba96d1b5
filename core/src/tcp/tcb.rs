//! The transmission control block: one synchronized connection.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::segment::whole_segments;
use crate::buffer::{Pool, Rope};
use crate::config::{Config, MtuProbing};
use crate::counters::{Counters, ReplyReason};
use crate::error::Error;
use crate::ip::routes::Routing;
use crate::keys::Keys;
use crate::list::Links;
use crate::memory::{Gauge, Group, Holds};
use crate::seq::SeqNum;
use crate::socket::{Event, SocketId, SocketOptions};
use crate::state::State;
use crate::table::{Link, Table};
use crate::tcp::congestion::{self, Controller};
use crate::tcp::ecn::EcnState;
use crate::tcp::flight::{Flight, Flights};
use crate::tcp::mtu::PathMtu;
use crate::tcp::rare::Rare;
use crate::tcp::reassembly::Reassembly;
use crate::tcp::recovery::tlp::Tail;
use crate::tcp::room::{payload_of, room_in};
use crate::tcp::rtt::{MinRtt, Rtt, micros};
use crate::tcp::segment::is_earlier;
use crate::time::{Deadline, Duration, Instant, SendTime, Since, Stamp, Tick};
use crate::trace::{Trace, TraceEvent, TraceKind};
use crate::tuple::FourTuple;
use crate::wheel::TimerId;
use crate::wire::tcp::Timestamps;

/// The parts of the stack that a handler may use.
pub(crate) struct Env<'a> {
    pub(crate) now: Instant,
    pub(crate) config: &'a Config,
    pub(crate) counters: &'a mut Counters,
    pub(crate) trace: &'a mut Trace,
    pub(crate) keys: &'a Keys,
    /// Buffers for the queues.
    pub(crate) pool: &'a mut Pool,
    pub(crate) flights: &'a mut Flights,
    pub(crate) routing: &'a Routing,
    pub(crate) memory: Gauge,
}

impl Env<'_> {
    /// Returns the MTU of the interface by which a flow leaves.
    #[cold]
    pub(crate) fn interface_mtu(&self, tuple: &FourTuple) -> u16 {
        self.routing.find(tuple).mtu
    }

    pub(crate) fn tick(&self) -> Tick {
        Tick::at(self.now)
    }

    /// Our millisecond clock for timestamps, before the offset of the connection (7323-12).
    pub(crate) fn timestamp_clock(&self) -> u32 {
        self.now.as_millis() as u32
    }

    #[inline]
    pub(crate) fn note(&mut self, tuple: &FourTuple, kind: TraceKind) {
        let at = self.now;
        self.trace.push(|| TraceEvent { at, local: tuple.local(), remote: tuple.remote(), kind });
    }

    pub(crate) fn note_reply(&mut self, tuple: &FourTuple, reason: ReplyReason) {
        self.counters.count_reply(reason);
        self.note(tuple, TraceKind::Reply(reason));
    }
}

/// A synchronized connection with its queues. The parts behind boxes exist only while they are needed.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) tcb: Tcb,
    /// From SND.UNA on.
    pub(crate) send_queue: Rope,
    /// In order, not read by the application yet.
    pub(crate) receive_queue: Rope,
    pub(crate) reassembly: Option<Box<Reassembly>>,
    /// The data in flight, if it is more than one range.
    pub(crate) flight: Option<Box<Flight>>,
    /// When everything in flight was sent, while that is one range.
    pub(crate) sent: SendTime,
    pub(crate) tail: Tail,
    pub(crate) min_rtt: MinRtt,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) congestion: Controller,
    pub(crate) options: Arc<SocketOptions>,
    /// The application's handle. An orphan has none.
    pub(crate) socket: Option<SocketId>,
    /// The listener's socket, for passive connections.
    pub(crate) listener: Option<SocketId>,
    pub(crate) bytes_acked: u64,
    pub(crate) bytes_received: u64,
    /// When data was last received.
    pub(crate) last_data: Tick,
    /// End of the last segment that was not full. While it is in flight, Nagle's algorithm holds back the next one.
    pub(crate) small_end: SeqNum,
    /// Changes that were not reported to the application yet.
    pub(crate) events: Event,
    /// Reported by a router; becomes the error if the connection fails (MUST-47).
    pub(crate) soft_error: Option<Error>,
    /// Its place in the ready list, which is of connections that may have something to send.
    pub(crate) ready: Links,
    /// Bytes that it sent in its last turn beyond its share, which its next one lacks.
    pub(crate) overdrawn: u16,
    pub(crate) armed: Armed,
    /// Its list of connections with data to send, by age.
    pub(crate) group: Group,
    /// Its row among those that hold memory.
    pub(crate) holder: Link,
}

const _: () = assert!(Table::<Connection>::ROW <= 384);

/// Places in lists and tables, what is only shown, and the memory of buffers decide nothing.
impl Hash for Connection {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Connection {
            tcb,
            send_queue,
            receive_queue,
            reassembly,
            flight,
            sent,
            tail,
            min_rtt,
            rare,
            congestion,
            options,
            socket,
            listener,
            small_end,
            bytes_acked: _,
            bytes_received: _,
            last_data: _,
            events,
            soft_error,
            ready,
            overdrawn,
            armed: _,
            group: _,
            holder: _,
        } = self;
        let Tcb {
            tuple,
            state: of,
            origin,
            snd,
            rcv,
            ts,
            ecn,
            rtt,
            ack,
            timers,
            whole_buffer,
            state_since: _,
        } = tcb;
        (tuple, of, origin, snd, rcv, ts, ecn, rtt, ack, timers, whole_buffer).hash(state);
        (send_queue, receive_queue, reassembly, flight, sent, tail).hash(state);
        (min_rtt, rare, congestion, options, socket.is_some(), listener.is_some(), small_end).hash(state);
        (events, soft_error, ready.is_listed(), overdrawn).hash(state);
        (*of == State::SynReceived).then(|| self.irs()).hash(state);
    }
}

impl Holds for Connection {
    #[inline]
    fn held(&self) -> u64 {
        Connection::held(self)
    }
}

/// Who began the connection (MUST-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Active,
    Passive,
    /// Passive, and the application has it before the third segment, which has not come yet.
    FastOpen,
}

/// The state of RFC 9293 §3.3.1.
#[derive(Clone, Debug)]
pub(crate) struct Tcb {
    pub(crate) tuple: FourTuple,
    pub(crate) state: State,
    pub(crate) origin: Origin,
    /// All of the free receive buffer is offered and accepted (`tcp_bsd_rules`).
    pub(crate) whole_buffer: bool,
    pub(crate) snd: Snd,
    pub(crate) rcv: Rcv,
    pub(crate) ts: TsState,
    pub(crate) ecn: EcnState,
    pub(crate) rtt: Rtt,
    pub(crate) ack: AckState,
    pub(crate) timers: Timers,
    pub(crate) state_since: Since,
}

/// The send sequence space and what is pending in it.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Snd {
    pub(crate) una: SeqNum,
    /// After the highest sequence number ever sent.
    pub(crate) nxt: SeqNum,
    pub(crate) wnd: u32,
    pub(crate) wl1: SeqNum,
    pub(crate) wl2: SeqNum,
    pub(crate) max_wnd: u32,
    /// After the highest sequence number of the last loss (6582-1, 6675-2).
    pub(crate) recover: SeqNum,
    /// Since when the oldest data has been out, or has waited for the window, without progress (user timeout). In
    /// SYN-RECEIVED since when the handshake has lasted.
    pub(crate) stalled_since: Tick,
    pub(crate) last_sent: Tick,
    /// Payload of a full segment, header options not subtracted.
    pub(crate) mss: u16,
    /// The peer's MSS option.
    pub(crate) peer_mss: u16,
    pub(crate) path: PathMtu,
    pub(crate) wscale: u8,
    /// The application closed its sending side: FIN after the queue.
    pub(crate) fin_queued: bool,
    pub(crate) fin_sent: bool,
    pub(crate) pending: Pending,
    /// The window of congestion control, not the application, holds data back.
    pub(crate) cwnd_limited: bool,
    pub(crate) wscale_on: bool,
    pub(crate) sack: bool,
    pub(crate) timestamps: bool,
}

/// Segments without new data that are due. Each flag is cleared when its segment leaves.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Pending {
    /// A segment of the handshake, ahead of all others: in SYN-RECEIVED the SYN-ACK, later the third one.
    pub(crate) handshake: bool,
    pub(crate) window_probe: bool,
    /// Urgent data is announced ahead of the window probe.
    pub(crate) urgent_probe: bool,
    pub(crate) keepalive_probe: bool,
}

/// The receive sequence space.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Rcv {
    pub(crate) nxt: SeqNum,
    /// The furthest right edge advertised: RCV.NXT + RCV.WND. It never moves back (9293-h).
    pub(crate) adv: SeqNum,
    pub(crate) last_ack_sent: SeqNum,
    pub(crate) fin_at: SeqNum,
    /// The receive buffer, in whole units of the window field.
    pub(crate) buffer: u32,
    /// Largest payload seen.
    pub(crate) mss: u16,
    /// The MSS that we advertised.
    pub(crate) adv_mss: u16,
    pub(crate) wscale: u8,
    /// A FIN was seen, at `fin_at`; it may still lie behind a gap.
    pub(crate) fin_seen: bool,
    pub(crate) urgent: bool,
    /// The application reads no more (shutdown).
    pub(crate) shut: bool,
}

/// Timestamps (RFC 7323). [`Snd::timestamps`] says whether they are in use.
#[derive(Clone, Debug, Hash)]
pub(crate) struct TsState {
    pub(crate) recent: u32,
    /// When `recent` was taken, in seconds: it is void after 24 days (7323-11).
    pub(crate) recent_at: u32,
    pub(crate) offset: u32,
}

impl TsState {
    /// Whether TS.Recent is later than a timestamp.
    #[inline]
    pub(crate) fn is_ahead_of(&self, ts_val: u32) -> bool {
        is_earlier(ts_val, self.recent)
    }
}

/// The content of the ACK that is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum AckKind {
    #[default]
    Usual,
    /// It carries no SACK blocks: they would make it longer than the segment that it answers (THREAT-4).
    Plain,
    /// A plain one that is a challenge, and nothing else is due.
    Challenge,
}

/// When to acknowledge, and how often to answer probes.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct AckState {
    /// An ACK is due at once.
    pub(crate) now: bool,
    pub(crate) kind: AckKind,
    /// Payload received since the last ACK.
    pub(crate) bytes: u32,
    /// Segments that are still acknowledged at once.
    pub(crate) quick: u8,
    /// The last ACK of a probe. Other segments that are not acceptable have a budget of their own, in [`Answers`].
    ///
    /// [`Answers`]: super::rare::Answers
    pub(crate) probe_answered_at: Option<Stamp>,
}

/// Deadlines of a connection.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Timers {
    pub(crate) retransmit: Option<Deadline>,
    pub(crate) persist: Option<Deadline>,
    pub(crate) delayed_ack: Option<Deadline>,
    /// Keepalive; the end of FIN-WAIT-2, or of any other state, for an orphan.
    pub(crate) keepalive_or_fin_wait_2: Option<Deadline>,
    pub(crate) last_received: Tick,
    /// Unanswered zero-window or keepalive probes.
    pub(crate) unanswered_probes: u8,
    /// Probes of the closed window, answered or not, since the last progress: the doublings of their interval.
    pub(crate) window_probes: u8,
    /// Timeouts since the last progress.
    pub(crate) retransmits: u8,
    /// Since when the peer has been silent to what it has to answer (R2): the first unanswered probe, or what is in
    /// flight.
    pub(crate) unanswered_since: Tick,
}

const _: () = assert!(size_of::<Tcb>() <= 216);

/// The wheel's node of a connection, and when it fires: at or before the earliest deadline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Armed {
    pub(crate) node: TimerId,
    /// Means nothing where there is no node.
    pub(crate) tick: Tick,
}

impl Timers {
    /// Whether a deadline lies before the one that the wheel has.
    #[inline]
    pub(crate) fn want_arming(&self, armed: &Armed) -> bool {
        let unarmed = armed.node == TimerId::NONE;
        let wants = |deadline: Option<Deadline>| {
            deadline.is_some_and(|deadline| unarmed || !armed.tick.is_due(deadline.tick()))
        };
        wants(self.retransmit)
            || wants(self.delayed_ack)
            || wants(self.keepalive_or_fin_wait_2)
            || wants(self.persist)
    }

    /// A timer that ran arms the next one ahead of now, whatever the options say: else running them would never end.
    pub(crate) fn move_ahead_of(&mut self, now: Tick) {
        let next = Deadline::at(Tick(now.0.wrapping_add(1)));
        for deadline in [
            &mut self.retransmit,
            &mut self.persist,
            &mut self.delayed_ack,
            &mut self.keepalive_or_fin_wait_2,
        ] {
            if deadline.is_some_and(|deadline| deadline.tick().is_due(now)) {
                *deadline = Some(next);
            }
        }
    }

    pub(crate) fn earliest(&self) -> Option<Tick> {
        let earlier = |a: Option<Deadline>, b: Option<Deadline>| match (a, b) {
            (Some(a), Some(b)) => Some(if a.tick().is_due(b.tick()) { a } else { b }),
            (a, b) => a.or(b),
        };
        let earliest = earlier(
            earlier(self.retransmit, self.persist),
            earlier(self.delayed_ack, self.keepalive_or_fin_wait_2),
        );
        earliest.map(Deadline::tick)
    }
}

/// The result of the handshake: all parameters of a new connection.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    pub(crate) tuple: FourTuple,
    pub(crate) origin: Origin,
    pub(crate) iss: SeqNum,
    pub(crate) irs: SeqNum,
    /// Right edge of the window that our SYN advertised, as a length.
    pub(crate) advertised: u16,
    pub(crate) peer_mss: u16,
    pub(crate) adv_mss: u16,
    pub(crate) pmtu: u16,
    /// Shift of the peer's windows; `None`: scaling is off.
    pub(crate) snd_wscale: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) ecn: bool,
    /// The peer's last timestamp; `None`: timestamps are off.
    pub(crate) ts_recent: Option<u32>,
    /// Offset of our timestamps from our clock.
    pub(crate) ts_offset: u32,
    /// Times that our SYN or SYN-ACK was retransmitted.
    pub(crate) syn_retransmissions: u8,
    /// The round trip of our SYN or SYN-ACK, if it is not ambiguous (6298-2, 6298-6).
    pub(crate) rtt: Option<Duration>,
    pub(crate) options: Arc<SocketOptions>,
}

impl Connection {
    /// A connection both of whose SYNs are known. Its state is SYN-RECEIVED: SND.UNA is still the ISS.
    #[inline(always)] // Inlined, so that it is constructed in its row.
    pub(crate) fn new(agreed: Agreed, env: &Env<'_>) -> Connection {
        let Agreed { tuple, origin, iss, irs, advertised, peer_mss, adv_mss, pmtu, .. } = agreed;
        let bsd = env.config.tcp_bsd_rules;
        let wscale = if agreed.snd_wscale.is_some() { agreed.options.window_scale() } else { 0 };
        // Rounded up, as an ACK of the half-open connection may have advertised it.
        let unit = 1 << wscale;
        let advertised = match env.config.linux_release {
            0 => u32::from(advertised).div_ceil(unit) * unit,
            // Linux rounds when it says it. DRILL-X35
            _ => u32::from(advertised),
        };
        let now = env.tick();
        let mss = effective_mss(peer_mss, pmtu, tuple.is_ipv4(), &agreed.options, env.config);
        let options = if bsd { in_whole_segments(&agreed.options, mss) } else { agreed.options };
        // As a window field can say it, and at least the least that it can.
        let sayable = || (options.rcvbuf.min(0xffff << wscale) & !(unit - 1)).max(unit);
        let buffer = match () {
            _ if bsd => options.rcvbuf,
            // Linux: whole segments, rounded up. DRILL-X35
            _ if env.config.follows_linux() && options.rcvbuf > u32::from(adv_mss) => {
                let timestamps = origin != Origin::Active && agreed.ts_recent.is_some();
                let segment = payload_of(adv_mss, timestamps);
                whole_segments(options.rcvbuf, segment).min(0xffff << wscale).next_multiple_of(unit)
            }
            _ => sayable(),
        };
        // A SYN that was lost takes the initial window with it (5681-4). One retransmission alone is no evidence: the round
        // trip may be longer than the initial RTO (6928-1).
        let segments = if agreed.syn_retransmissions > 1 { 1 } else { env.initial_segments(&tuple) };
        let full = payload_of(mss, agreed.ts_recent.is_some());
        let window = congestion::initial_window(segments, u32::from(full));
        // In one piece, so that it is written where it will be.
        Connection {
            tcb: Tcb {
                tuple,
                state: State::SynReceived,
                origin,
                whole_buffer: bsd,
                snd: Snd {
                    una: iss,
                    nxt: iss + 1,
                    wnd: 0,
                    wl1: irs,
                    wl2: iss,
                    max_wnd: 0,
                    recover: iss,
                    stalled_since: now,
                    last_sent: now,
                    mss,
                    peer_mss,
                    path: PathMtu::new(pmtu, iss),
                    wscale: agreed.snd_wscale.unwrap_or(0),
                    fin_queued: false,
                    fin_sent: false,
                    pending: Pending::default(),
                    cwnd_limited: false,
                    wscale_on: agreed.snd_wscale.is_some(),
                    sack: agreed.sack,
                    timestamps: agreed.ts_recent.is_some(),
                },
                rcv: Rcv {
                    nxt: irs + 1,
                    adv: irs + 1 + advertised,
                    last_ack_sent: irs + 1,
                    fin_at: irs,
                    buffer,
                    mss: 0,
                    adv_mss,
                    wscale,
                    fin_seen: false,
                    urgent: false,
                    shut: false,
                },
                ts: TsState {
                    recent: agreed.ts_recent.unwrap_or(0),
                    recent_at: env.now.as_secs() as u32,
                    offset: agreed.ts_offset,
                },
                ecn: EcnState::new(agreed.ecn),
                rtt: Rtt::new(agreed.syn_retransmissions > 0),
                ack: AckState { quick: env.config.tcp_quickack, ..AckState::default() },
                timers: Timers {
                    retransmit: None,
                    persist: None,
                    delayed_ack: None,
                    keepalive_or_fin_wait_2: None,
                    last_received: now,
                    unanswered_probes: 0,
                    window_probes: 0,
                    retransmits: 0,
                    unanswered_since: now,
                },
                state_since: Since::at(env.now),
            },
            send_queue: Rope::default(),
            receive_queue: Rope::default(),
            reassembly: None,
            flight: None,
            sent: SendTime::at(env.now),
            tail: Tail::default(),
            min_rtt: MinRtt::default(),
            rare: None,
            congestion: Controller::new(options.congestion, window, iss + 1, now),
            options,
            socket: None,
            listener: None,
            bytes_acked: 0,
            bytes_received: 0,
            last_data: now,
            small_end: iss,
            events: Event::default(),
            soft_error: None,
            ready: Links::default(),
            overdrawn: 0,
            armed: Armed { node: TimerId::NONE, tick: now },
            group: Group::Nowhere,
            holder: Link::NONE,
        }
    }

    /// Takes the round trip of the handshake into account. The caller does so once the connection is in its row: a sample
    /// before that would be moved there.
    pub(crate) fn note_handshake(&mut self, round_trip: Duration, env: &Env<'_>) {
        let edges = (self.tcb.snd.nxt, self.tcb.snd.nxt);
        self.sample_round_trip(micros(round_trip), edges, env.config);
        self.min_rtt.note(micros(round_trip), env.now);
    }

    /// Takes a round trip in microseconds into account. `edges`: SND.UNA and SND.NXT.
    #[inline]
    pub(super) fn sample_round_trip(&mut self, sample: u32, edges: (SeqNum, SeqNum), config: &Config) {
        let rare = config.tcp_rto_var_min.then(|| self.rare.get_or_insert_default());
        self.tcb.rtt.sample(sample, rare.map(|rare| (&mut rare.var_round, edges)), config);
    }

    /// Linux's rules of the window, and its count of retransmissions.
    #[cold]
    pub(crate) fn follow_linux(&mut self, syn_retransmissions: u8, config: &Config) {
        self.congestion.follow_linux();
        if config.tcp_mtu_probing == MtuProbing::Always {
            self.begin_search_as_linux(config);
        }
        if syn_retransmissions > 0 {
            self.rare().total_retrans = syn_retransmissions.into();
        }
    }

    /// Learns the effective send MSS anew.
    pub(crate) fn update_mss(&mut self, config: &Config) {
        let snd = &mut self.tcb.snd;
        snd.mss = effective_mss(snd.peer_mss, snd.path.mtu, self.tcb.tuple.is_ipv4(), &self.options, config);
    }

    /// Bytes (and FIN) sent and not acknowledged.
    pub(crate) fn flight(&self) -> u32 {
        self.tcb.snd.nxt.since(self.tcb.snd.una)
    }

    /// The sequence number of the first byte in the send queue: behind our SYN, where that is not acknowledged.
    #[inline]
    pub(crate) fn start_of_queue(&self) -> SeqNum {
        self.tcb.snd.una + u32::from(self.tcb.state == State::SynReceived)
    }

    /// The sequence number after all that the application wrote.
    pub(crate) fn end_of_queue(&self) -> SeqNum {
        self.start_of_queue() + self.send_queue.len() as u32
    }

    /// Bytes that the application wrote and that were never sent.
    #[inline]
    pub(crate) fn unsent(&self) -> usize {
        if self.tcb.snd.fin_sent {
            // The FIN follows all data.
            return 0;
        }
        self.send_queue.len() - self.tcb.snd.nxt.since(self.start_of_queue()) as usize
    }

    /// Returns where the urgent data ends that the application sent.
    #[inline]
    pub(crate) fn urgent_end(&self) -> Option<SeqNum> {
        self.rare.as_ref()?.urgent_end
    }

    #[inline]
    pub(super) fn urgent_received(&self) -> Option<SeqNum> {
        self.rare.as_ref()?.urgent_received
    }

    /// The peer's initial sequence number, in SYN-RECEIVED.
    pub(crate) fn irs(&self) -> SeqNum {
        let rcv = &self.tcb.rcv;
        let fin = u32::from(rcv.fin_seen && rcv.nxt == rcv.fin_at + 1);
        rcv.nxt - 1 - fin - self.bytes_received as u32
    }

    /// The sequence number of the next byte that the application reads.
    fn read_up_to(&self) -> SeqNum {
        let rcv = &self.tcb.rcv;
        let fin = u32::from(rcv.fin_seen && rcv.nxt == rcv.fin_at + 1);
        rcv.nxt - fin - self.receive_queue.len() as u32
    }

    /// Bytes up to the end of the urgent data, of what the application has not read.
    pub(crate) fn urgent_ahead(&self) -> usize {
        let up = self.urgent_received().filter(|up| up.gt(self.read_up_to()));
        up.map_or(0, |up| up.since(self.read_up_to()) as usize)
    }

    /// The application has read from the receive queue: a window update may be due.
    #[inline]
    pub(crate) fn note_read(&mut self, memory: Gauge) {
        self.forget_urgent_read();
        self.tcb.ack.now |= self.window_update_due(memory);
    }

    /// The application has written urgent data: all that is queued is urgent.
    pub(crate) fn note_urgent_written(&mut self) {
        self.rare().urgent_end = Some(self.end_of_queue());
    }

    /// Applies other socket options. `rcvbuf` must be that of before.
    pub(crate) fn set_options(&mut self, options: Arc<SocketOptions>, env: &Env<'_>) {
        let before = std::mem::replace(&mut self.options, options);
        let keepalive = before.keepalive;
        if before.cork && !self.options.cork {
            // It takes back what a write has said about more to come, too. DRILL-X11
            self.resume_quanta();
        }
        if self.options.nodelay && !before.nodelay {
            self.hasten();
        }
        self.update_mss(env.config);
        let keeps = self.options.keepalive || env.config.tcp_always_keepalive;
        if keeps {
            self.arm_keepalive(env);
        } else if keepalive {
            self.tcb.timers.keepalive_or_fin_wait_2 = None;
        }
        self.bring_user_timeout_forward();
    }

    /// Forgets RCV.UP once the application has read so far. Otherwise it would seem to lie ahead after 2^31 bytes.
    fn forget_urgent_read(&mut self) {
        let read = self.read_up_to();
        if let Some(rare) = self.rare.as_mut() {
            rare.urgent_received.take_if(|up| !up.gt(read));
        }
    }

    /// The memory that its queues take: room to spare, lists and shared packets included.
    #[inline]
    pub(crate) fn held(&self) -> u64 {
        (self.send_queue.held() + self.receive_queue.held() + self.out_of_order()) as u64
    }

    /// The bytes in its queues.
    pub(crate) fn buffered(&self) -> u64 {
        (self.send_queue.len() + self.receive_queue.len() + self.out_of_order()) as u64
    }

    /// The bytes that wait out of order, with what holding them costs.
    #[inline]
    fn out_of_order(&self) -> usize {
        self.reassembly.as_ref().map_or(0, |reassembly| reassembly.held())
    }

    /// The memory that it may take beside what it holds. It has carried what the peer acknowledged and what the
    /// application has read.
    pub(crate) fn memory_room(&self, gauge: Gauge) -> u64 {
        let read = self.bytes_received.saturating_sub(self.receive_queue.len() as u64);
        gauge.room(self.held(), self.bytes_acked + read)
    }

    /// How many of `wanted` bytes may be queued for sending where memory is short.
    #[cold]
    pub(crate) fn send_room(&self, gauge: Gauge, wanted: usize) -> usize {
        let room = usize::try_from(self.memory_room(gauge)).unwrap_or(usize::MAX);
        self.send_queue.fit(wanted, room)
    }

    pub(crate) fn is_orphan(&self) -> bool {
        self.socket.is_none()
    }

    /// Whether the peer may still send data that somebody reads.
    pub(crate) fn may_receive(&self) -> bool {
        matches!(self.tcb.state, State::Established | State::FinWait1 | State::FinWait2)
    }

    /// Whether reads of an empty queue find the end, since no more data will come into it.
    pub(crate) fn is_read_up(&self) -> bool {
        let read_shut = self.rare.as_ref().is_some_and(|rare| rare.read_shut);
        let more = self.may_receive() && !self.tcb.rcv.shut && !read_shut;
        !more && self.tcb.state != State::SynReceived
    }

    pub(crate) fn set_state(&mut self, to: State, env: &mut Env<'_>) {
        let from = std::mem::replace(&mut self.tcb.state, to);
        self.tcb.state_since = Since::at(env.now);
        if to == State::CloseWait {
            env.counters.close_wait_entered += 1;
        }
        if from == State::CloseWait {
            env.counters.close_wait_left += 1;
        }
        let tuple = self.tcb.tuple;
        env.note(&tuple, TraceKind::State { from, to });
    }

    pub(crate) fn signal(&mut self, event: Event) {
        self.events |= event;
    }

    /// The timestamps of a segment that leaves now.
    pub(crate) fn timestamps(&self, env: &Env<'_>) -> Option<Timestamps> {
        self.tcb.snd.timestamps.then(|| Timestamps {
            val: env.timestamp_clock().wrapping_add(self.tcb.ts.offset),
            ecr: self.rare.as_ref().and_then(|rare| rare.echo).unwrap_or(self.tcb.ts.recent),
        })
    }
}

/// The window that a SYN advertises: never scaled (7323-2). Linux offers whole segments of this size. DRILL-X35
pub(crate) fn syn_window(buffer: u32, segment: u16, config: &Config) -> u16 {
    let buffer = if config.follows_linux() { whole_segments(buffer, segment) } else { buffer };
    buffer.min(0xffff) as u16
}

/// The effective send MSS (MUST-16): what the peer takes and what the path carries, options not subtracted.
fn effective_mss(peer_mss: u16, pmtu: u16, ipv4: bool, options: &SocketOptions, config: &Config) -> u16 {
    let limit = options.max_segment.unwrap_or(u16::MAX);
    let peer = peer_mss.max(config.tcp_min_snd_mss).min(limit.max(48));
    peer.min(room_in(pmtu, ipv4))
}

/// Rounds buffers that are larger than a segment up to whole segments.
// DRILL-F01
fn in_whole_segments(options: &Arc<SocketOptions>, mss: u16) -> Arc<SocketOptions> {
    let mss = u32::from(mss.max(1));
    let rounded = |size: u32| {
        let whole = if size > mss { size.checked_next_multiple_of(mss) } else { None };
        whole.unwrap_or(size)
    };
    let (rcvbuf, sndbuf) = (rounded(options.rcvbuf), rounded(options.sndbuf));
    if (rcvbuf, sndbuf) == (options.rcvbuf, options.sndbuf) {
        return Arc::clone(options);
    }
    Arc::new(SocketOptions { rcvbuf, sndbuf, ..(**options).clone() })
}

//! SYN-SENT, and the way into SYN-RECEIVED of a simultaneous open (RFC 9293 §3.10.7.3).

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::fast_open::{FastOpen, Lesson};
use super::listen::peer_mss;
use super::room::room_in;
use super::segment::{Outgoing, Segment, header_of};
use super::tcb::{Agreed, Connection, Env, Origin, syn_window};
use crate::buffer::Rope;
use crate::config::Config;
use crate::config::EcnMode;
use crate::counters::DropReason;
use crate::error::Error;
use crate::seq::SeqNum;
use crate::socket::{Event, SocketId, SocketOptions};
use crate::state::State;
use crate::time::{Duration, Instant, SendTime, Since, Tick};
use crate::tuple::FourTuple;
use crate::wheel::TimerId;
use crate::wire::tcp::{Flags, Header, MAX_OPTIONS_LEN, Options, Timestamps};

/// An active open that nobody has answered yet. There is no RCV.NXT, because there is no IRS.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) tuple: FourTuple,
    pub(crate) socket: SocketId,
    pub(crate) iss: SeqNum,
    pub(crate) options: Arc<SocketOptions>,
    /// Written before the connection is there (SA-SYN_SENT-20).
    pub(crate) send_queue: Rope,
    /// Sent on the first SYN only.
    pub(crate) fast_open: FastOpen,
    /// The MSS of an earlier SYN-ACK of this server; 0: none.
    pub(crate) known_mss: u16,
    /// Bytes that went out with the first SYN. SND.NXT is past them for good: a SYN-ACK may acknowledge them however
    /// late it comes.
    pub(crate) syn_data: usize,
    pub(crate) retries: u8,
    /// One of the retries came early, because the peer challenged the SYN: that one was not lost.
    pub(crate) challenged: bool,
    /// When the first SYN left.
    pub(crate) first_sent: Option<Instant>,
    pub(crate) last_sent: Instant,
    pub(crate) syn_pending: bool,
    pub(crate) queued: bool,
    pub(crate) timer: TimerId,
    pub(crate) soft_error: Option<Error>,
    pub(crate) adv_mss: u16,
    pub(crate) pmtu: u16,
    /// Offset of our timestamps from our clock.
    pub(crate) ts_offset: u32,
    pub(crate) state_since: Since,
    pub(crate) events: Event,
}

/// The effect of a segment on an opening.
#[must_use]
pub(crate) enum SynSentOutcome {
    Dropped(DropReason),
    /// Dropped, and answered by a RST. `hasten`: the next SYN leaves soon.
    Reset {
        hasten: bool,
    },
    Failed(Error),
    /// Both SYNs are known: [`Opening::synchronize`] returns what the connection is made of.
    Synchronized,
}

/// The socket and the timer are rows of tables.
impl Hash for Opening {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Opening {
            tuple,
            socket: _,
            iss,
            options,
            send_queue,
            fast_open,
            known_mss,
            syn_data,
            retries,
            challenged,
            first_sent,
            last_sent,
            syn_pending,
            queued,
            timer: _,
            soft_error,
            adv_mss,
            pmtu,
            ts_offset,
            state_since: _,
            events,
        } = self;
        (tuple, iss, options, send_queue, fast_open, known_mss, syn_data, retries).hash(state);
        (challenged, first_sent, last_sent, syn_pending, queued, soft_error).hash(state);
        (adv_mss, pmtu, ts_offset, events).hash(state);
    }
}

impl Opening {
    pub(crate) fn snd_nxt(&self) -> SeqNum {
        self.iss + 1 + self.syn_data as u32
    }

    /// Puts the SYN into `out`, if one is due.
    pub(crate) fn next_segment(&mut self, out: &mut Outgoing, env: &mut Env<'_>) -> bool {
        if !std::mem::take(&mut self.syn_pending) {
            return false;
        }
        let config = env.config;
        let is_retransmission = self.first_sent.is_some();
        self.first_sent.get_or_insert(env.now);
        self.last_sent = env.now;
        if is_retransmission {
            env.counters.retrans_segs += 1;
            env.counters.tcp_syn_retrans += 1;
        }
        let mut flags = Flags::SYN;
        if config.tcp_ecn == EcnMode::On && self.retries <= config.tcp_ecn_maxretries {
            flags |= Flags::ECE | Flags::CWR;
        }
        if is_retransmission || self.fast_open == FastOpen::Off {
            // A box on the way may dislike what is new: data, cookie and ECN are left out (7413-3, 3168-6).
            out.begin();
            self.write_syn(flags, FastOpen::Off, &mut out.header, env);
            return true;
        }
        let room = usize::from(room_in(self.pmtu, self.tuple.is_ipv4()));
        out.begin();
        self.write_syn(flags, self.fast_open, &mut out.header, env);
        if out.header.options.emitted_len() > room {
            self.fast_open = FastOpen::Off;
            self.write_syn(flags, self.fast_open, &mut out.header, env);
        }
        self.syn_data = self.send_queue.len().min(self.syn_data_room());
        out.payload_len = self.syn_data;
        true
    }

    /// The bytes that fit on the SYN: a full segment as the server took it before, less the longest options, since a box
    /// on the way may add its own.
    // DRILL-X36
    pub(crate) fn syn_data_room(&self) -> usize {
        if !matches!(self.fast_open, FastOpen::Data(_)) {
            return 0;
        }
        let known = if self.known_mss > 0 { self.known_mss } else { self.adv_mss };
        let most = known.min(self.options.max_segment.unwrap_or(u16::MAX));
        let room = most.min(room_in(self.pmtu, self.tuple.is_ipv4()));
        usize::from(room).saturating_sub(MAX_OPTIONS_LEN)
    }

    fn write_syn(&self, flags: Flags, fast_open: FastOpen, header: &mut Header, env: &Env<'_>) {
        let config = env.config;
        let more = self.offers_more(config);
        *header = Header {
            seq: self.iss,
            flags,
            window: syn_window(self.options.rcvbuf, self.adv_mss, config),
            options: Options {
                mss: Some(self.adv_mss).filter(|_| !self.options.no_options),
                window_scale: (config.tcp_window_scaling && more).then(|| self.options.window_scale()),
                sack_permitted: config.tcp_sack && more,
                timestamps: (config.tcp_timestamps && more)
                    .then(|| Timestamps { val: self.timestamp(env), ecr: 0 }),
                fast_open: fast_open.option().filter(|_| more),
                ..Options::default()
            },
            ..header_of(&self.tuple)
        };
    }

    /// Whether the SYN has more options than the MSS.
    // DRILL-F07, DRILL-F11
    fn offers_more(&self, config: &Config) -> bool {
        /// The retransmission from which on `tcp_rexmit_drop_options` applies.
        const DROPS: u8 = 3;
        !(self.options.no_options || config.tcp_rexmit_drop_options && self.retries >= DROPS)
    }

    fn timestamp(&self, env: &Env<'_>) -> u32 {
        env.timestamp_clock().wrapping_add(self.ts_offset)
    }

    /// SEGMENT ARRIVES.
    pub(crate) fn segment_arrives(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> SynSentOutcome {
        let flags = segment.flags();
        let fits = segment.ack().gt(self.iss) && segment.ack().le(self.snd_nxt());
        if flags.ack() && !fits {
            return if flags.rst() {
                SynSentOutcome::Dropped(DropReason::SynSentRst)
            } else {
                // FreeBSD leaves the next SYN to its timer. DRILL-F38
                SynSentOutcome::Reset { hasten: !env.config.tcp_bsd_rules && self.hasten() }
            };
        }
        if flags.rst() {
            // Without an ACK of our SYN it may come from anybody (5961-4).
            return if flags.ack() {
                env.counters.attempt_fails += 1;
                SynSentOutcome::Failed(Error::ConnectionRefused)
            } else {
                SynSentOutcome::Dropped(DropReason::SynSentRst)
            };
        }
        if !flags.syn() {
            return SynSentOutcome::Dropped(DropReason::SynSentNoSyn);
        }
        if flags.ack() && !self.echo_is_ours(segment, env) {
            env.counters.paws_active += 1;
            return SynSentOutcome::Reset { hasten: false };
        }
        SynSentOutcome::Synchronized
    }

    /// The echoed timestamp must lie between our first SYN and now (SA-SYN_SENT-06).
    fn echo_is_ours(&self, segment: &Segment<'_>, env: &Env<'_>) -> bool {
        let on = env.config.tcp_timestamps && self.offers_more(env.config);
        let Some(timestamps) = segment.options().timestamps.filter(|_| on) else {
            return true;
        };
        let first = self.first_sent.unwrap_or(env.now).as_millis() as u32;
        let age = self.timestamp(env).wrapping_sub(timestamps.ecr);
        // In ticks: between two moments there may be one more of them than milliseconds.
        timestamps.ecr == 0 || age <= env.timestamp_clock().wrapping_sub(first)
    }

    /// Returns the lesson of a SYN-ACK about its server, if our first SYN was one of Fast Open. The cookie of a SYN is
    /// for the other direction.
    pub(crate) fn lesson(&self, segment: &Segment<'_>) -> Option<Lesson> {
        let asked = segment.flags().ack() && self.fast_open != FastOpen::Off;
        let options = segment.options();
        asked.then(|| Lesson {
            asked: self.fast_open,
            cookie: options.fast_open.filter(|cookie| !cookie.is_request()),
            mss: peer_mss(options.mss, self.tuple.is_ipv4()),
            retried: self.retries > 0,
            took_nothing: segment.ack() == self.iss + 1,
        })
    }

    /// The peer has answered for an old connection, which our RST ends. Says whether the next SYN leaves soon, as that
    /// of Linux does: once, and in the place of the first retry.
    fn hasten(&mut self) -> bool {
        let may = self.retries == 0 && !self.challenged && !self.syn_pending;
        self.challenged |= may;
        may
    }

    /// Both SYNs are known: what the connection is made of, and what goes over to it.
    #[inline]
    pub(crate) fn synchronize(self, segment: &Segment<'_>, env: &Env<'_>) -> (Agreed, Handover) {
        let (config, options, flags) = (env.config, segment.options(), segment.flags());
        let more = self.offers_more(config);
        let wscale = options.window_scale.filter(|_| config.tcp_window_scaling && more);
        // With ECE alone a SYN-ACK agrees, and with both flags it is an echo of ours. A SYN asks with both (3168-1,
        // 3168-5).
        let ecn_setup = flags.ece() && flags.cwr() != flags.ack();
        // FreeBSD takes the request of a crossing SYN whether or not ours asked. DRILL-F25
        let crossing = config.tcp_bsd_rules && !flags.ack();
        let asked = config.tcp_ecn == EcnMode::On && self.retries <= config.tcp_ecn_maxretries;
        let ecn = (asked || crossing && config.tcp_ecn != EcnMode::Off) && ecn_setup;
        let agreed = Agreed {
            tuple: self.tuple,
            origin: Origin::Active,
            iss: self.iss,
            irs: segment.seq(),
            advertised: syn_window(self.options.rcvbuf, self.adv_mss, config),
            peer_mss: peer_mss(options.mss.filter(|_| !self.options.no_options), self.tuple.is_ipv4()),
            adv_mss: self.adv_mss,
            pmtu: self.pmtu,
            snd_wscale: wscale.map(|shift| shift.min(14)),
            sack: options.sack_permitted && config.tcp_sack && more,
            ecn,
            ts_recent: options.timestamps.filter(|_| config.tcp_timestamps && more).map(|ts| ts.val),
            ts_offset: self.ts_offset,
            syn_retransmissions: self.retries.saturating_sub(self.challenged.into()),
            rtt: (flags.ack() && self.retries == 0).then(|| env.now - self.last_sent),
            options: self.options,
        };
        let Opening { socket, send_queue, syn_data, soft_error, .. } = self;
        let since = Tick::at(self.first_sent.unwrap_or(env.now));
        // DRILL-F22
        let takes_data = self.fast_open != FastOpen::Off || config.tcp_bsd_rules;
        (agreed, Handover { socket, send_queue, syn_data, takes_data, soft_error, since })
    }

    /// An ICMP error that quotes our SYN (SA-SYN_SENT-17 to -19). `Some`: it ends the attempt.
    pub(crate) fn icmp_error(
        &mut self,
        seq: SeqNum,
        error: Error,
        hard: bool,
    ) -> Result<Option<Error>, DropReason> {
        if seq != self.iss || self.first_sent.is_none() {
            return Err(DropReason::IcmpNotInFlight);
        }
        self.soft_error = Some(error);
        self.events |= if hard { Event::default() } else { Event::SOFT_ERROR };
        Ok(hard.then_some(error))
    }

    /// The SYN timer (SA-SYN_SENT-14 to -16): what to wait for next, or what the attempt failed with.
    pub(crate) fn timeout(&mut self, now: Instant, config: &Config) -> Result<(), Error> {
        let doubled = self.options.syn_retries.unwrap_or(config.tcp_syn_retries);
        let retries = config.tcp_syn_linear_timeouts.saturating_add(doubled);
        let limit = self.options.syn_timeout;
        let user = self.options.user_timeout;
        let elapsed = now - self.first_sent.unwrap_or(now);
        let over = !limit.is_zero() && elapsed >= limit || !user.is_zero() && elapsed >= user;
        // Linux: or the time is over that they would take without the linear ones. DRILL-X27
        let factor = 2u32.checked_shl(doubled.into()).map_or(u32::MAX, |factor| factor - 1);
        let modelled = self.options.syn_retries.is_some() && user.is_zero();
        let over = over || modelled && elapsed >= config.tcp_rto_initial.saturating_mul(factor);
        if over || self.retries >= retries {
            return Err(self.soft_error.unwrap_or(Error::TimedOut));
        }
        self.retries += 1;
        if self.retries == config.tcp_retries1 {
            self.events |= Event::SOFT_ERROR;
        }
        self.syn_pending = true;
        Ok(())
    }

    /// How long after the SYN that leaves at `now` the timer fires.
    pub(crate) fn wait(&self, now: Instant, config: &Config) -> Duration {
        let linear = config.tcp_syn_linear_timeouts;
        let doublings = u32::from(self.retries.saturating_sub(linear));
        let computed = || match doublings {
            0 => config.tcp_rto_initial,
            _ => {
                let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
                config.tcp_rto_initial.saturating_mul(factor).saturating_add(config.tcp_rto_slop)
            }
        };
        let wait = config.tcp_syn_intervals.get(usize::from(self.retries)).copied();
        let wait = wait.unwrap_or_else(|| computed().min(config.tcp_rto_max));
        let elapsed = now - self.first_sent.unwrap_or(now);
        [self.options.syn_timeout, self.options.user_timeout]
            .into_iter()
            .filter(|limit| !limit.is_zero())
            .fold(wait, |wait, limit| wait.min(limit.saturating_sub(elapsed)))
    }
}

/// The part of an opening that the connection takes over.
pub(crate) struct Handover {
    pub(crate) socket: SocketId,
    send_queue: Rope,
    syn_data: usize,
    /// Our SYN asked for Fast Open, so the SYN-ACK may have data.
    takes_data: bool,
    soft_error: Option<Error>,
    /// When the first SYN left.
    since: Tick,
}

impl Handover {
    /// The new connection takes it over, and is ESTABLISHED, or in SYN-RECEIVED where the peer has not acknowledged
    /// our SYN.
    pub(crate) fn complete(self, connection: &mut Connection, segment: &Segment<'_>, env: &mut Env<'_>) {
        connection.socket = Some(self.socket);
        connection.send_queue = self.send_queue;
        connection.soft_error = self.soft_error;
        connection.tcb.state = State::SynSent;
        if segment.flags().ack() {
            acknowledged(connection, self.syn_data, segment, env);
            let all = connection.tcb.snd.una == connection.tcb.snd.nxt || env.config.tcp_bsd_rules;
            if self.takes_data && all {
                take_data_of_syn_ack(connection, segment, env);
            }
        } else {
            connection.set_state(State::SynReceived, env);
            if env.config.tcp_bsd_rules {
                connection.keep_syn_data(segment, env);
                connection.tcb.ack.now = false;
            }
            let snd = &mut connection.tcb.snd;
            snd.pending.handshake = true;
            // A peer that is opening itself need not have kept the data of our SYN.
            snd.nxt += self.syn_data as u32;
            snd.recover = snd.nxt;
            // The limits of a connect go on counting.
            connection.tcb.snd.stalled_since = self.since;
            connection.arm_syn_ack(env);
        }
    }
}

/// A server answers a SYN with Fast Open by its first data, once it has taken all of the SYN's. Other data of a SYN-ACK
/// comes again (N8).
// DRILL-X30
#[cold]
fn take_data_of_syn_ack(connection: &mut Connection, segment: &Segment<'_>, env: &mut Env<'_>) {
    if !segment.payload.is_empty() {
        connection.take_syn_data(segment, env);
        connection.rare().syn_data = true;
        connection.tcb.ack.now = true;
    }
}

/// Our SYN is acknowledged: ESTABLISHED. The data of our SYN leaves again where the peer has not taken it.
fn acknowledged(connection: &mut Connection, syn_data: usize, segment: &Segment<'_>, env: &mut Env<'_>) {
    let taken = segment.ack().since(connection.tcb.snd.una + 1) as usize;
    if syn_data > 0 {
        if taken > 0 {
            env.counters.tcp_fast_open_active += 1;
            connection.rare().syn_data = taken == syn_data;
        } else {
            env.counters.tcp_fast_open_active_fail += 1;
        }
    }
    connection.send_queue.release(taken, env.pool);
    let snd = &mut connection.tcb.snd;
    snd.nxt = snd.una + 1 + syn_data as u32;
    snd.una = segment.ack();
    connection.sent = SendTime::at(env.now);
    snd.recover = segment.ack();
    snd.wnd = u32::from(segment.header.window);
    (snd.wl1, snd.wl2, snd.max_wnd) = (segment.seq(), segment.ack(), snd.wnd);
    connection.bytes_acked = taken as u64;
    // The rest of the data on our SYN leaves with the ACK (RFC 7413 §4.2.2).
    // With FreeBSD's rules any data does.
    let waits = env.config.tcp_bsd_rules && !connection.send_queue.is_empty();
    (connection.tcb.ack.now, connection.tcb.snd.pending.handshake) = (true, syn_data == 0 && !waits);
    connection.set_state(State::Established, env);
    if syn_data > 0 && env.config.tcp_gso_quanta {
        connection.cover_queue();
    }
    if taken < syn_data {
        connection.resend_early_data(env);
    }
    connection.arm_keepalive(env);
    connection.signal(Event::CONNECTED | Event::WRITABLE);
}

//! LISTEN: offers, the half-open table's entries, and what completes them (RFC 9293 §3.10.7.2, SYN-RECEIVED of
//! §3.10.7.4).

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use super::fast_open::PendingRequests;
use super::room::payload_of;
use super::segment::{Reply, Segment, header_of, is_earlier};
use super::tcb::{Agreed, Env, Origin, syn_window};
use crate::config::{Config, EcnMode};
use crate::counters::{DropReason, ReplyReason};
use crate::queue::Queue;
use crate::seq::SeqNum;
use crate::socket::{SocketId, SocketOptions};
use crate::table::Table;
use crate::time::{Duration, Instant, Since, Tick};
use crate::tuple::FourTuple;
use crate::wheel::TimerId;
use crate::wire::tcp::{Cookie, Flags, Header, Options, Timestamps};

/// A listener.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) socket: SocketId,
    pub(crate) local: SocketAddr,
    pub(crate) backlog: usize,
    pub(crate) options: Arc<SocketOptions>,
    /// The most Fast Open connections with an incomplete handshake; 0: Fast Open is off.
    pub(crate) fast_open: u32,
    /// The application has closed it; what it leaves behind goes in steps.
    pub(crate) closing: bool,
    /// Established connections that the application has not accepted, oldest first, with the times since when they wait.
    pub(crate) accept_queue: Queue<(SocketId, Tick)>,
    /// Half-open entries whose third segment found the accept queue full, oldest first: row and ISS. A place may
    /// outlive its entry.
    pub(crate) waiting: Queue<(u32, SeqNum)>,
    /// Entries of the half-open table that are ours.
    pub(crate) half_open: usize,
    /// 7413-2.
    pub(crate) fast_open_pending: PendingRequests,
    /// When a cookie was last sent: only then is it worth looking for one in an ACK.
    pub(crate) cookies_sent_at: Option<Instant>,
    pub(crate) since: Since,
}

/// How long after the last cookie an ACK may still bring one back.
const COOKIE_MEMORY: Duration = Duration::from_secs(120);

impl Listener {
    pub(crate) fn accept_queue_full(&self) -> bool {
        self.accept_queue.len() >= self.backlog
    }

    pub(crate) fn expects_cookies(&self, now: Instant) -> bool {
        self.cookies_sent_at.is_some_and(|at| now - at <= COOKIE_MEMORY)
    }
}

/// The options of a SYN that we agree to. A half-open entry stores them in one byte beside the MSS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) peer_mss: u16,
    pub(crate) bits: u8,
}

impl Offer {
    const WSCALE: u8 = 0x0f;
    const NO_WSCALE: u8 = 0x0f;
    const SACK: u8 = 0x20;
    const TIMESTAMPS: u8 = 0x40;
    const ECN: u8 = 0x80;

    /// Selects the options of a SYN that we agree to.
    pub(crate) fn of(segment: &Segment<'_>, config: &Config, ipv4: bool) -> Offer {
        let options = segment.options();
        let wscale = options.window_scale.filter(|_| config.tcp_window_scaling);
        Offer::new(
            peer_mss(options.mss, ipv4),
            wscale.map(|shift| shift.min(14)),
            options.sack_permitted && config.tcp_sack,
            options.timestamps.is_some() && config.tcp_timestamps,
            // An ECN-setup SYN has both (3168-1).
            segment.flags().contains(Flags::ECE | Flags::CWR) && config.tcp_ecn != EcnMode::Off,
        )
    }

    /// The rest of an offer for a socket without options.
    // DRILL-F11
    pub(crate) fn without_options(self, ipv4: bool) -> Offer {
        Offer::new(peer_mss(None, ipv4), None, false, false, self.ecn())
    }

    pub(crate) fn new(peer_mss: u16, wscale: Option<u8>, sack: bool, timestamps: bool, ecn: bool) -> Offer {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        let bits = wscale.unwrap_or(Offer::NO_WSCALE)
            | bit(sack, Offer::SACK)
            | bit(timestamps, Offer::TIMESTAMPS)
            | bit(ecn, Offer::ECN);
        Offer { peer_mss, bits }
    }

    pub(crate) fn wscale(self) -> Option<u8> {
        Some(self.bits & Offer::WSCALE).filter(|shift| *shift != Offer::NO_WSCALE)
    }

    pub(crate) fn sack(self) -> bool {
        self.bits & Offer::SACK != 0
    }

    pub(crate) fn timestamps(self) -> bool {
        self.bits & Offer::TIMESTAMPS != 0
    }

    pub(crate) fn ecn(self) -> bool {
        self.bits & Offer::ECN != 0
    }

    /// The window of the SYN-ACK that agrees to it. Linux's segments have room for the timestamps.
    // DRILL-X35
    pub(crate) fn window(self, rcvbuf: u32, adv_mss: u16, config: &Config) -> u16 {
        syn_window(rcvbuf, payload_of(adv_mss, self.timestamps()), config)
    }
}

/// The peer's MSS, or what stands for it when the option is missing (MUST-15).
pub(crate) fn peer_mss(option: Option<u16>, ipv4: bool) -> u16 {
    option.unwrap_or(if ipv4 { 536 } else { 1220 })
}

/// SYN-RECEIVED of a passive open: all that is kept until the third segment comes (4987-1).
#[derive(Clone, Debug)]
pub(crate) struct HalfOpen {
    pub(crate) tuple: FourTuple,
    pub(crate) iss: SeqNum,
    pub(crate) irs: SeqNum,
    pub(crate) ts_recent: u32,
    pub(crate) listener: u32,
    pub(crate) timer: TimerId,
    /// The last answer that a segment got; before there is one, [`LONG_BEFORE`] the SYN-ACK.
    pub(crate) answered_at: Tick,
    peer_mss: u16,
    offer_bits: u8,
    /// SYN-ACKs that the timer retransmitted.
    pub(crate) retries: u8,
}

const _: () = assert!(Table::<HalfOpen>::ROW <= 64);

/// So long before the SYN-ACK the last answer is taken to have been (ms), so that the first is never held back.
const LONG_BEFORE: u32 = 300_000;

/// The effect of a segment on a half-open connection.
#[must_use]
pub(crate) enum HalfOpenOutcome {
    Dropped(DropReason),
    /// The segment is dropped and answered.
    Reply(Reply, DropReason),
    /// The segment acknowledges what was never sent: it is dropped, and answered by a RST.
    Reset(ReplyReason),
    /// The peer retransmitted its SYN: the SYN-ACK is retransmitted at once (RFC 9293 §3.10.7.4).
    // SA-SYN_RCVD-01
    SynAgain,
    /// The entry is removed, and nothing is sent.
    Delete(DropReason),
    /// The entry is removed, and the segment answered by a RST.
    DeleteAndReset(DropReason),
    /// The third segment: the connection is established (RFC 9293 §3.10.7.4).
    // SA-SYN_RCVD-06
    Complete,
}

/// The listener and the timer are rows of tables.
impl Hash for HalfOpen {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let HalfOpen {
            tuple,
            iss,
            irs,
            ts_recent,
            listener: _,
            timer: _,
            answered_at,
            peer_mss,
            offer_bits,
            retries,
        } = self;
        (tuple, iss, irs, ts_recent, answered_at, peer_mss, offer_bits, retries).hash(state);
    }
}

impl HalfOpen {
    /// Beside the bits of an offer: the entry is in [`Listener::waiting`].
    const WAITS: u8 = 0x10;

    /// The entry that a SYN makes; the caller gives it a timer.
    #[inline]
    pub(crate) fn new(
        segment: &Segment<'_>,
        listener: u32,
        iss: SeqNum,
        offer: Offer,
        now: Tick,
    ) -> HalfOpen {
        HalfOpen {
            tuple: segment.tuple,
            iss,
            irs: segment.seq(),
            ts_recent: segment.options().timestamps.map_or(0, |ts| ts.val),
            listener,
            timer: TimerId::NONE,
            answered_at: Tick(now.0.wrapping_sub(LONG_BEFORE)),
            peer_mss: offer.peer_mss,
            offer_bits: offer.bits,
            retries: 0,
        }
    }

    /// The entry for a returned cookie, if the accept queue has no room for its connection.
    pub(crate) fn of_cookie(
        segment: &Segment<'_>,
        listener: u32,
        (iss, irs): (SeqNum, SeqNum),
        offer: Offer,
        now: Tick,
    ) -> HalfOpen {
        HalfOpen { irs, ..HalfOpen::new(segment, listener, iss, offer, now) }
    }

    fn offer(&self) -> Offer {
        Offer { peer_mss: self.peer_mss, bits: self.offer_bits & !HalfOpen::WAITS }
    }

    /// The third segment found no room. Returns whether it is the first one. The segment that completes the handshake
    /// later is no sample of the round trip.
    pub(crate) fn begin_to_wait(&mut self, now: Tick) -> bool {
        self.answered_at = now;
        let new = !self.waits();
        self.offer_bits |= HalfOpen::WAITS;
        new
    }

    pub(crate) fn waits(&self) -> bool {
        self.offer_bits & HalfOpen::WAITS != 0
    }

    pub(crate) fn end_waiting(&mut self) {
        self.offer_bits &= !HalfOpen::WAITS;
    }

    fn rcv_nxt(&self) -> SeqNum {
        self.irs + 1
    }

    /// The window of our SYN-ACK.
    pub(crate) fn window(&self, rcvbuf: u32, adv_mss: u16, config: &Config) -> u16 {
        self.offer().window(rcvbuf, adv_mss, config)
    }

    /// The SYN-ACK, first or retransmitted.
    #[inline]
    pub(crate) fn syn_ack(&self, syn: &SynAck<'_>, env: &Env<'_>, reason: ReplyReason) -> Reply {
        syn.reply(&self.tuple, self.iss, self.irs, self.offer(), self.ts_recent, None, env, reason)
    }

    /// A segment arrives. The listener's options and the MSS are those by which our SYN-ACK advertised the window.
    /// `replaces_time_wait`: a TIME-WAIT returns if the entry ends.
    pub(crate) fn segment_arrives(
        &mut self,
        segment: &Segment<'_>,
        offered: (&SocketOptions, u16),
        replaces_time_wait: bool,
        env: &mut Env<'_>,
    ) -> HalfOpenOutcome {
        use HalfOpenOutcome::{Complete, Delete, DeleteAndReset, Dropped, Reset, SynAgain};
        let (flags, nxt) = (segment.flags(), self.rcv_nxt());
        let window_len = u32::from(self.window(offered.0.rcvbuf, offered.1, env.config)).max(1);
        let in_window = match env.config.follows_linux() {
            true => overlaps(segment, nxt, window_len),
            false => segment.seq().within(nxt, window_len),
        };
        if flags.rst() {
            return match (segment.seq() == nxt, in_window) {
                (true, _) => Delete(DropReason::HalfOpenRst),
                // DRILL-F18
                (_, true) if env.config.tcp_insecure_rst => Delete(DropReason::HalfOpenRst),
                (_, true) => {
                    let reason = DropReason::RstChallenged;
                    self.acknowledge(segment, offered, ReplyReason::ChallengeAck, reason, env)
                }
                _ => Dropped(DropReason::RstOutOfWindow),
            };
        }
        if flags.ack() && segment.ack() != self.iss + 1 {
            // RFC 9293 §3.5.2 group 2, before the sequence number: a TIME-WAIT of the peer that an old SYN of its own
            // woke would take an ACK for one more segment to acknowledge, and so on for ever.
            return Reset(ReplyReason::RstUnacceptableAck);
        }
        if flags.syn() && env.config.tcp_bsd_rules {
            return match !flags.ack() && self.may_answer(segment, env) {
                true => SynAgain,
                false => Dropped(DropReason::SynChallenged),
            };
        }
        // A forged SYN must not bring a TIME-WAIT back under an ESTABLISHED peer. A peer that has crashed answers the
        // challenge with a RST.
        let challenged = !in_window || replaces_time_wait && !env.config.follows_linux();
        if flags.syn() && !flags.ack() && segment.seq() != self.irs && challenged {
            // A SYN of another incarnation (SA-SYN_RCVD-03); its timestamp says nothing.
            let reason = DropReason::SynChallenged;
            return self.acknowledge(segment, offered, ReplyReason::HalfOpenAck, reason, env);
        }
        if self.offer().timestamps() && self.is_older(segment, env) {
            return self.acknowledge(segment, offered, ReplyReason::HalfOpenAck, DropReason::Paws, env);
        }
        if flags.syn() {
            return match (flags.ack(), segment.seq() == self.irs) {
                // DRILL-X57
                (true, false) if env.config.follows_linux() && in_window => {
                    DeleteAndReset(DropReason::HalfOpenSyn)
                }
                (true, _) => {
                    let reason = DropReason::SynChallenged;
                    self.acknowledge(segment, offered, ReplyReason::HalfOpenAck, reason, env)
                }
                (false, true) if self.may_answer(segment, env) => {
                    self.note_timestamp(segment);
                    SynAgain
                }
                (false, true) => Dropped(DropReason::ReplyThrottled),
                // DRILL-X57
                (false, false) if env.config.follows_linux() => DeleteAndReset(DropReason::HalfOpenSyn),
                (false, false) => Delete(DropReason::HalfOpenSyn),
            };
        }
        let acceptable = in_window || (segment.len() > 0 && (segment.end() - 1).within(nxt, window_len));
        match (flags.ack(), acceptable) {
            (true, true) => {
                self.note_timestamp(segment);
                self.fall_back(segment, env);
                Complete
            }
            // DRILL-X57
            (false, _) if acceptable || !env.config.follows_linux() => Dropped(DropReason::NoAck),
            _ => {
                let reason = DropReason::OutOfWindow;
                self.acknowledge(segment, offered, ReplyReason::HalfOpenAck, reason, env)
            }
        }
    }

    /// PAWS (SA-SYN_RCVD-12).
    fn is_older(&self, segment: &Segment<'_>, env: &mut Env<'_>) -> bool {
        let val = segment.options().timestamps.map_or(self.ts_recent, |ts| ts.val);
        let older = is_earlier(val, self.ts_recent);
        env.counters.paws_estab += u64::from(older);
        older
    }

    /// TS.Recent follows what the peer sends again: the first SYN-ACK was lost, and the round trip is that of the
    /// second (7323-9). The caller has held the timestamp against PAWS.
    fn note_timestamp(&mut self, segment: &Segment<'_>) {
        if let Some(timestamps) = segment.options().timestamps.filter(|_| segment.seq().le(self.rcv_nxt())) {
            self.ts_recent = timestamps.val;
        }
    }

    /// Completed by a segment without timestamps: our SYN-ACK lost the option on its way, and the peer knows nothing
    /// of any. To insist on them would drop all that it sends, for ever (H13; RFC 7323 §3.2 only says SHOULD).
    fn fall_back(&mut self, segment: &Segment<'_>, env: &Env<'_>) {
        if segment.options().timestamps.is_none() && !env.config.tcp_tolerate_missing_ts {
            self.offer_bits &= !Offer::TIMESTAMPS;
        }
    }

    /// Whether a segment is answered within the limit. Linux answers data always.
    // DRILL-X71
    fn may_answer(&mut self, segment: &Segment<'_>, env: &Env<'_>) -> bool {
        if env.config.follows_linux() && segment.len() > 0 && !segment.flags().syn() {
            return true;
        }
        let limit = env.config.tcp_invalid_ratelimit.as_millis() as u32;
        let may = env.tick().elapsed(self.answered_at) >= limit;
        if may {
            self.answered_at = env.tick();
        }
        may
    }

    fn acknowledge(
        &mut self,
        segment: &Segment<'_>,
        (options, adv_mss): (&SocketOptions, u16),
        reply: ReplyReason,
        reason: DropReason,
        env: &Env<'_>,
    ) -> HalfOpenOutcome {
        if !self.may_answer(segment, env) {
            return HalfOpenOutcome::Dropped(DropReason::ReplyThrottled);
        }
        // No SYN, so the field is scaled (7323-2); rounded up, so that nothing is taken back.
        let shift = if self.offer().wscale().is_some() { options.window_scale() } else { 0 };
        let window = self.window(options.rcvbuf, adv_mss, env.config).div_ceil(1 << shift);
        let mut reply = Reply::ack(self.tuple, self.iss + 1, self.rcv_nxt(), window, reply);
        reply.header.options.timestamps = self.timestamps(env);
        HalfOpenOutcome::Reply(reply.with_ip_of(options), reason)
    }

    fn timestamps(&self, env: &Env<'_>) -> Option<Timestamps> {
        self.offer().timestamps().then(|| Timestamps {
            val: env.timestamp_clock().wrapping_add(env.keys.timestamp_offset(&self.tuple)),
            ecr: self.ts_recent,
        })
    }

    /// The time since the SYN-ACK, if only one was sent (6298-6).
    fn round_trip(&self, now: Tick) -> Option<Duration> {
        let millis = now.elapsed(self.answered_at).checked_sub(LONG_BEFORE).filter(|_| self.retries == 0)?;
        Some(Duration::from_millis(u64::from(millis)))
    }

    /// The parameters of the connection once it is established.
    #[inline]
    pub(crate) fn agreed(&self, syn: &SynAck<'_>, pmtu: u16, config: &Config, now: Tick) -> Agreed {
        Agreed {
            tuple: self.tuple,
            origin: Origin::Passive,
            iss: self.iss,
            irs: self.irs,
            advertised: self.window(syn.options.rcvbuf, syn.adv_mss, config),
            peer_mss: self.offer().peer_mss,
            adv_mss: syn.adv_mss,
            pmtu,
            snd_wscale: self.offer().wscale(),
            sack: self.offer().sack(),
            ecn: self.offer().ecn(),
            ts_recent: self.offer().timestamps().then_some(self.ts_recent),
            ts_offset: syn.ts_offset,
            syn_retransmissions: self.retries,
            rtt: self.round_trip(now),
            options: Arc::clone(syn.options),
        }
    }

    /// How often the SYN-ACK is sent again, where `limit` is the most. Once less to a SYN without an MSS option, which
    /// is shorter than its SYN-ACK: a forged one must not draw more than six times its bytes (THREAT-3).
    pub(crate) fn retries_allowed(&self, limit: u8) -> u8 {
        let no_option = self.peer_mss == peer_mss(None, self.tuple.is_ipv4());
        if no_option { limit.min(4) } else { limit }
    }

    /// How long until the SYN-ACK is sent again, or, after the last time, until the entry goes (H2b).
    pub(crate) fn wait(&self, config: &Config, retries: u8) -> Duration {
        let gap = synack_gap(self.retries, config);
        let wait = match self.left(config) {
            Some(left) if self.retries >= retries => left,
            Some(left) => gap.min(left),
            None => gap,
        };
        wait.max(Duration::from_millis(1))
    }

    /// The time since the SYN, `left` before the timer fires. Only the timer starts a wait, so the waits give the age.
    pub(crate) fn age(&self, left: Duration, config: &Config) -> Duration {
        let before = (0..self.retries).map(|n| synack_gap(n, config)).sum::<Duration>();
        // The SYN-ACK waits for its turn, and the timer does not run.
        let this = if left.is_zero() { left } else { synack_gap(self.retries, config) };
        (before + this).saturating_sub(left)
    }

    /// Whether the wait that is over now was the last one.
    pub(crate) fn waited_enough(&self, config: &Config, retries: u8) -> bool {
        let in_time = |left: Duration| left > synack_gap(self.retries, config);
        self.retries >= retries || !self.left(config).is_none_or(in_time)
    }

    /// The rest of `tcp_synack_timeout` when this wait began. Only the timer starts a wait, so the earlier waits give
    /// the age of the entry.
    fn left(&self, config: &Config) -> Option<Duration> {
        let passed = || (0..self.retries).map(|n| synack_gap(n, config)).sum();
        let timeout = Some(config.tcp_synack_timeout).filter(|timeout| !timeout.is_zero());
        timeout.map(|timeout| timeout.saturating_sub(passed()))
    }
}

/// Whether a segment lies in a window for Linux: at its left edge, with a part of it inside, or empty at its right edge.
// DRILL-X52
fn overlaps(segment: &Segment<'_>, left: SeqNum, len: u32) -> bool {
    let (seq, end, right) = (segment.seq(), segment.end(), left + len);
    seq == left || (end.gt(left) && seq.lt(right)) || (seq == right && segment.len() == 0)
}

/// How long an unanswered SYN-ACK of a listener is waited for, all its retransmissions included.
pub(crate) fn synack_patience(config: &Config) -> Duration {
    if config.tcp_synack_timeout.is_zero() {
        (0..=config.tcp_synack_retries).map(|n| synack_gap(n, config)).sum()
    } else {
        config.tcp_synack_timeout
    }
}

/// The wait after the `n`-th retransmission of the SYN-ACK.
fn synack_gap(n: u8, config: &Config) -> Duration {
    let doubled = || config.tcp_rto_initial.saturating_mul(1u32.checked_shl(n.into()).unwrap_or(u32::MAX));
    if n == 0 { config.tcp_rto_initial } else { doubled() }.min(config.tcp_rto_max)
}

/// The properties of a SYN-ACK beside those of its entry.
#[derive(Clone, Copy)]
pub(crate) struct SynAck<'a> {
    pub(crate) options: &'a Arc<SocketOptions>,
    pub(crate) adv_mss: u16,
    /// Offset of our timestamps from our clock.
    pub(crate) ts_offset: u32,
}

impl SynAck<'_> {
    /// A SYN-ACK; `ts_val` overrides our timestamp (cookies hide options in it).
    #[inline]
    pub(crate) fn reply(
        &self,
        tuple: &FourTuple,
        iss: SeqNum,
        irs: SeqNum,
        offer: Offer,
        ts_recent: u32,
        ts_val: Option<u32>,
        env: &Env<'_>,
        reason: ReplyReason,
    ) -> Reply {
        let clock = || env.timestamp_clock().wrapping_add(self.ts_offset);
        let timestamps =
            offer.timestamps().then(|| Timestamps { val: ts_val.unwrap_or_else(clock), ecr: ts_recent });
        let mut flags = Flags::SYN | Flags::ACK;
        if offer.ecn() {
            flags |= Flags::ECE;
        }
        Reply {
            tuple: *tuple,
            header: Header {
                seq: iss,
                ack: irs + 1,
                flags,
                window: offer.window(self.options.rcvbuf, self.adv_mss, env.config),
                options: Options {
                    mss: Some(self.adv_mss).filter(|_| !self.options.no_options),
                    // Only if the SYN had it (7323-4).
                    window_scale: offer.wscale().map(|_| self.options.window_scale()),
                    sack_permitted: offer.sack(),
                    timestamps,
                    ..Options::default()
                },
                ..header_of(tuple)
            },
            ttl: self.options.ttl,
            dscp: self.options.dscp,
            reason,
        }
    }
}

/// A Fast Open cookie that goes out with a SYN-ACK.
pub(crate) fn with_cookie(mut reply: Reply, cookie: Cookie) -> Reply {
    reply.header.options.fast_open = Some(cookie);
    reply
}

//! TIME-WAIT: compact entries in a queue, since 2MSL is one constant.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::segment::{Answer, Segment};
use super::tcb::{Connection, Env};
use crate::config::{Config, PortRange};
use crate::counters::{DropReason, ReplyReason};
use crate::flow::FourTuple;
use crate::ip::recent::Recent;
use crate::seq::SeqNum;
use crate::table::Table;
use crate::time::{Duration, Instant, Tick};
use crate::wire::tcp::Timestamps;

/// A connection that is over and keeps its 4-tuple for 2MSL (MUST-13).
#[derive(Clone, Debug)]
pub(crate) struct TimeWait {
    pub(crate) tuple: FourTuple,
    pub(crate) rcv_nxt: SeqNum,
    pub(crate) snd_nxt: SeqNum,
    ts_recent: u32,
    deadline: Tick,
    /// Window field of our ACKs.
    window: u16,
    /// When the next rate-limited answer may go out, in 1/16 s, and whether timestamps are on.
    answer_from: u16,
}

const _: () = assert!(size_of::<TimeWait>() <= 56);

/// Bit of `answer_from` that says that timestamps are on.
const TS_ON: u16 = 1 << 15;

/// What a segment means to an entry.
#[must_use]
pub(crate) enum TimeWaitOutcome {
    Dropped(DropReason),
    /// Dropped and answered; `restart` begins 2MSL anew.
    Answer {
        answer: Answer,
        restart: bool,
    },
    /// A RST ends it (`tcp_rfc1337 = 0`).
    Delete,
    /// A new SYN takes the 4-tuple over: its connection must start above this sequence number (RFC 6191).
    GiveWay {
        above: SeqNum,
    },
}

impl TimeWait {
    pub(crate) fn new(connection: &Connection, now: Instant, length: Duration) -> TimeWait {
        let tcb = &connection.tcb;
        TimeWait {
            tuple: tcb.tuple,
            rcv_nxt: tcb.rcv.nxt,
            snd_nxt: tcb.snd.nxt,
            ts_recent: tcb.ts.recent,
            deadline: Tick::after(now, length),
            window: (connection.receive_window() >> tcb.rcv.wscale).min(0xffff) as u16,
            answer_from: if tcb.ts.on { TS_ON } else { 0 } | (coarse(now) & !TS_ON),
        }
    }

    pub(crate) fn timestamps_on(&self) -> bool {
        self.answer_from & TS_ON != 0
    }

    /// How long the entry has left.
    pub(crate) fn remaining(&self, now: Instant) -> Duration {
        Duration::from_millis(u64::from(self.deadline.since(Tick::at(now))))
    }

    /// SEGMENT ARRIVES (SA-TIME_WAIT).
    pub(crate) fn segment_arrives(&mut self, segment: &Segment<'_>, env: &mut Env<'_>) -> TimeWaitOutcome {
        let (flags, seq) = (segment.flags(), segment.seq());
        if flags.rst() {
            let kills = seq == self.rcv_nxt && !env.config.tcp_rfc1337;
            return if kills {
                TimeWaitOutcome::Delete
            } else {
                TimeWaitOutcome::Dropped(DropReason::TimeWaitRst)
            };
        }
        if flags.syn() && !flags.ack() && self.is_newer(segment) {
            return TimeWaitOutcome::GiveWay { above: self.snd_nxt };
        }
        if flags.syn() {
            env.counters.tcp_syn_challenge += 1;
            return self.limited(ReplyReason::ChallengeAck, env);
        }
        if !flags.ack() {
            return TimeWaitOutcome::Dropped(DropReason::TimeWaitSegment);
        }
        if self.is_old(segment) {
            env.counters.paws_estab += 1;
            return self.limited(ReplyReason::TimeWaitAck, env);
        }
        if flags.fin() && segment.end() == self.rcv_nxt && segment.ack() == self.snd_nxt {
            // Our last ACK was lost (T4a).
            return TimeWaitOutcome::Answer {
                answer: self.ack(ReplyReason::TimeWaitFinAck, env),
                restart: true,
            };
        }
        if seq == self.rcv_nxt && segment.len() == 0 && segment.ack().le(self.snd_nxt) {
            return TimeWaitOutcome::Dropped(DropReason::TimeWaitSegment);
        }
        self.limited(ReplyReason::TimeWaitAck, env)
    }

    /// PAWS (7323-10, SA-TIME_WAIT-10).
    fn is_old(&self, segment: &Segment<'_>) -> bool {
        let timestamps = segment.options().timestamps.filter(|_| self.timestamps_on());
        timestamps.is_some_and(|ts| (ts.val.wrapping_sub(self.ts_recent) as i32) < 0)
    }

    /// RFC 6191: whether a SYN cannot be an old duplicate (6191-1 to -4).
    fn is_newer(&self, segment: &Segment<'_>) -> bool {
        // RCV.NXT is one past the peer's FIN, the last number seen.
        let later = segment.seq().ge(self.rcv_nxt);
        match (self.timestamps_on(), segment.options().timestamps) {
            (true, Some(ts)) => match ts.val.wrapping_sub(self.ts_recent) as i32 {
                1.. => true,
                0 => later,
                _ => false,
            },
            (false, Some(_)) => true,
            (_, None) => later,
        }
    }

    /// An ACK, unless one went out a moment ago.
    fn limited(&mut self, reason: ReplyReason, env: &Env<'_>) -> TimeWaitOutcome {
        let now = coarse(env.now) & !TS_ON;
        let wait = now.wrapping_sub(self.answer_from & !TS_ON) & !TS_ON;
        if wait >= 1 << 14 {
            return TimeWaitOutcome::Dropped(DropReason::ReplyThrottled);
        }
        let limit = (env.config.tcp_invalid_ratelimit.as_millis() * 16).div_ceil(1000) as u16;
        self.answer_from = self.answer_from & TS_ON | (now.wrapping_add(limit) & !TS_ON);
        TimeWaitOutcome::Answer { answer: self.ack(reason, env), restart: false }
    }

    fn ack(&self, reason: ReplyReason, env: &Env<'_>) -> Answer {
        let mut answer = Answer::ack(self.tuple, self.snd_nxt, self.rcv_nxt, self.window, reason);
        answer.options.timestamps = self.timestamps_on().then(|| Timestamps {
            val: env.timestamp_clock().wrapping_add(env.keys.timestamp_offset(&self.tuple)),
            ecr: self.ts_recent,
        });
        answer
    }

    /// Whether a connect may take the 4-tuple over (SA-TIME_WAIT-15): by timestamps, when the entry is old enough.
    pub(crate) fn may_be_reused(&self, now: Instant, config: &Config) -> bool {
        let loopback = self.tuple.remote().ip().is_loopback();
        let allowed = config.tcp_tw_reuse == 1 || config.tcp_tw_reuse == 2 && loopback;
        let age = length(config).saturating_sub(self.remaining(now));
        allowed && self.timestamps_on() && age >= config.tcp_tw_reuse_delay
    }
}

fn coarse(now: Instant) -> u16 {
    (now.as_millis() * 16 / 1000) as u16
}

/// 2MSL, or what `tcp_tw_recycle` makes of it.
pub(crate) fn length(config: &Config) -> Duration {
    if config.tcp_tw_recycle { config.tcp_rto_min * 7 / 2 } else { config.tcp_tw_timeout }
}

/// All entries, and the order in which they end.
#[derive(Clone, Debug, Default)]
pub(crate) struct TimeWaits {
    pub(crate) entries: Table<TimeWait>,
    /// Entry and deadline, ascending. An element whose deadline is no longer the entry's is stale.
    order: VecDeque<(u32, Tick)>,
}

impl TimeWaits {
    pub(crate) fn insert(&mut self, entry: TimeWait) -> u32 {
        let deadline = entry.deadline;
        let index = self.entries.insert(entry);
        self.push(index, deadline);
        index
    }

    pub(crate) fn restart(&mut self, index: u32, now: Instant, length: Duration) {
        let deadline = Tick::after(now, length);
        if let Some(entry) = self.entries.get_mut(index)
            && entry.deadline != deadline
        {
            entry.deadline = deadline;
            self.push(index, deadline);
        }
    }

    fn push(&mut self, index: u32, deadline: Tick) {
        if self.order.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.order.retain(|(i, at)| entries.get(*i).is_some_and(|e| e.deadline == *at));
        }
        self.order.push_back((index, deadline));
    }

    fn is_stale(&self, (index, deadline): &(u32, Tick)) -> bool {
        self.entries.get(*index).is_none_or(|entry| entry.deadline != *deadline)
    }

    /// The first entry that is over at `now`; the caller removes it.
    #[inline]
    pub(crate) fn pop_expired(&mut self, now: Tick) -> Option<u32> {
        while let Some(&element) = self.order.front()
            && element.1.is_due(now)
        {
            self.order.pop_front();
            if !self.is_stale(&element) {
                return Some(element.0);
            }
        }
        None
    }

    pub(crate) fn next(&self) -> Option<Tick> {
        self.order.front().map(|(_, deadline)| *deadline)
    }

    /// The tuple of the oldest entry between the address and the end of `ends`, with a local port in `range`. Only
    /// the first few entries are looked at: with more peers than that, few ports of one are taken.
    pub(crate) fn oldest_towards(&mut self, ends: &FourTuple, range: PortRange) -> Option<FourTuple> {
        const LOOK: usize = 64;
        while self.order.front().is_some_and(|element| self.is_stale(element)) {
            self.order.pop_front();
        }
        let first = self.order.iter().take(LOOK).filter(|element| !self.is_stale(element));
        let tuples = first.map(|(index, _)| self.entries[*index].tuple);
        let mut fit = tuples.filter(|tuple| {
            (range.0..=range.1).contains(&tuple.local_port) && FourTuple { local_port: 0, ..*tuple } == *ends
        });
        fit.next()
    }

    /// No entry ends or may be reused before this; that one is removed otherwise is not counted.
    pub(crate) fn next_change(&self, now: Instant, config: &Config) -> Tick {
        let soon = Tick(Tick::at(now).0.wrapping_add(1));
        let Some(end) = self.next() else { return soon };
        let early = length(config).saturating_sub(config.tcp_tw_reuse_delay).as_millis() as u32;
        let reusable = Tick(end.0.wrapping_sub(early));
        if reusable.is_due(soon) { soon } else { reusable }
    }
}

/// The last timestamp of each peer, for `tcp_tw_recycle` (T9c).
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers(Recent<(u32, Instant)>);

impl Peers {
    /// For how long a timestamp counts.
    const MSL: Duration = Duration::from_secs(60);

    pub(crate) fn remember(&mut self, peer: IpAddr, ts_val: u32, now: Instant, limit: usize) {
        self.0.remember(peer, (ts_val, now), limit);
    }

    /// Whether a SYN of `peer` looks older than what it sent before.
    pub(crate) fn refuses(&self, peer: IpAddr, ts_val: u32, now: Instant) -> bool {
        self.0
            .get(peer)
            .is_some_and(|(last, at)| now - *at < Peers::MSL && (ts_val.wrapping_sub(*last) as i32) < 0)
    }
}

//! TIME-WAIT: compact entries in a queue, since 2MSL is one constant.

use std::collections::BTreeMap;
#[cfg(feature = "model")]
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::segment::{Reply, Segment, is_earlier};
use super::tcb::{Connection, Env};
use crate::config::{Config, PortRange, TwReuse};
use crate::counters::{DropReason, ReplyReason};
use crate::flow::FlowTable;
use crate::seq::SeqNum;
use crate::table::{Link, Table};
use crate::time::{Duration, Instant, Stamp, Tick};
use crate::tuple::FourTuple;
use crate::wire::tcp::{Flags, Timestamps};

/// A connection that is over and keeps its 4-tuple for 2MSL (MUST-13). This is what [`TimeWaits`] gives out; it keeps a
/// row that is shorter.
#[derive(Clone, Copy, Debug)]
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
    /// TTL and DSCP of the socket, if they are not the usual ones (MUST-49, SHLD-22).
    // DRILL-F34
    ip: Option<(u8, u8)>,
}

/// Bit of `answer_from` that says that timestamps are on.
const TS_ON: u16 = 1 << 15;

/// The effect of a segment on an entry.
#[must_use]
pub(crate) enum TimeWaitOutcome {
    Dropped(DropReason),
    /// Dropped and answered; `restart` begins 2MSL anew.
    Reply {
        reply: Reply,
        restart: bool,
    },
    /// A RST ends it (`tcp_rfc1337 = 0`).
    Delete,
    /// A SYN ends it, and gets this RST (`tcp_insecure_syn = 1`).
    Reset(Reply),
    /// A new SYN takes the 4-tuple over: its connection must start above this sequence number (RFC 6191).
    GiveWay {
        above: SeqNum,
    },
}

impl TimeWait {
    #[inline]
    pub(crate) fn new(connection: &Connection, now: Instant, config: &Config) -> TimeWait {
        let tcb = &connection.tcb;
        let ip = (connection.options.ttl, connection.options.dscp);
        // Linux's half-closed orphan becomes one, with its last answer. DRILL-X57
        let answered = if config.follows_linux() { connection.answers().invalid_at } else { None };
        let since = |at: Stamp| Duration::from_millis(Tick::at(now).elapsed(at.tick()).into());
        let wait = answered.map(|at| config.tcp_invalid_ratelimit.saturating_sub(since(at)));
        let answer_from = coarse(now + wait.unwrap_or_default());
        TimeWait {
            tuple: tcb.tuple,
            rcv_nxt: tcb.rcv.nxt,
            snd_nxt: tcb.snd.nxt,
            ts_recent: tcb.ts.recent,
            deadline: Tick::after(now, length(config)),
            window: (connection.receive_window() >> tcb.rcv.wscale).min(0xffff) as u16,
            answer_from: if tcb.snd.timestamps { TS_ON } else { 0 } | (answer_from & !TS_ON),
            ip: (ip != (config.ip_default_ttl, 0)).then_some(ip),
        }
    }

    /// Hashes what decides its answers from `now` on.
    #[cfg(feature = "model")]
    pub(crate) fn digest(&self, now: Instant, state: &mut impl Hasher) {
        let TimeWait { tuple, rcv_nxt, snd_nxt, ts_recent, deadline, window, answer_from, ip } = *self;
        (tuple, rcv_nxt, snd_nxt, ts_recent, deadline, window, answer_from & TS_ON, ip).hash(state);
        // How long it still answers nothing. Once that is over, it does not matter since when.
        let wait = (answer_from & !TS_ON).wrapping_sub(coarse(now)) & !TS_ON;
        if (1..=1 << 14).contains(&wait) {
            (wait, now.as_nanos() % 62_500_000).hash(state);
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
        let by_number = segment.seq().gt(self.rcv_nxt);
        let opens = match env.config.tcp_tw_syn {
            // Linux wants a larger number than the one that is next. DRILL-X57
            0 if env.config.follows_linux() && seq == self.rcv_nxt => {
                let timestamps = segment.options().timestamps.filter(|_| self.timestamps_on());
                timestamps.is_some_and(|ts| is_earlier(self.ts_recent, ts.val))
            }
            0 => self.is_newer(segment),
            1 => false,
            _ => by_number,
        };
        if flags.syn() && !flags.ack() && opens {
            return TimeWaitOutcome::GiveWay { above: self.snd_nxt };
        }
        // DRILL-F19
        if flags.syn() && !flags.ack() && env.config.tcp_tw_syn == 2 {
            return TimeWaitOutcome::Dropped(DropReason::TimeWaitSegment);
        }
        if flags.syn() && env.config.tcp_insecure_syn && seq.within(self.rcv_nxt, 0xffff) {
            return TimeWaitOutcome::Reset(self.reset());
        }
        if flags.syn() {
            env.counters.tcp_syn_challenge += 1;
            return self.limited(ReplyReason::ChallengeAck, env);
        }
        if env.config.follows_linux() && segment.len() > 0 {
            // Data and FINs are always answered, with ACK or without. DRILL-X57
            return TimeWaitOutcome::Reply {
                reply: self.ack(ReplyReason::TimeWaitAck, env),
                restart: flags.ack(),
            };
        }
        if !flags.ack() {
            return TimeWaitOutcome::Dropped(DropReason::TimeWaitSegment);
        }
        if self.is_old(segment) {
            env.counters.paws_estab += 1;
            return self.limited(ReplyReason::TimeWaitAck, env);
        }
        if flags.fin() && segment.end() == self.rcv_nxt && segment.ack() == self.snd_nxt {
            // Our last ACK was lost (T4a), and this one answers the FIN that came now (7323-9).
            self.note_timestamp(segment);
            return TimeWaitOutcome::Reply {
                reply: self.ack(ReplyReason::TimeWaitFinAck, env),
                restart: true,
            };
        }
        let acks_all = segment.ack() == self.snd_nxt && flags == Flags::ACK;
        let old = segment.ack().le(self.snd_nxt) && !env.config.tcp_bsd_rules;
        // Linux does not look at the ACK field. DRILL-X57
        let nothing_new = acks_all || old || env.config.follows_linux();
        if seq == self.rcv_nxt && segment.len() == 0 && nothing_new {
            if segment.ack() == self.snd_nxt {
                self.note_timestamp(segment);
            }
            return TimeWaitOutcome::Dropped(DropReason::TimeWaitSegment);
        }
        self.limited(ReplyReason::TimeWaitAck, env)
    }

    /// PAWS (7323-10, SA-TIME_WAIT-10).
    fn is_old(&self, segment: &Segment<'_>) -> bool {
        let timestamps = segment.options().timestamps.filter(|_| self.timestamps_on());
        timestamps.is_some_and(|ts| is_earlier(ts.val, self.ts_recent))
    }

    /// TS.Recent goes on, so that a later SYN is held against what the peer sent last (RFC 6191). The caller has looked
    /// at both numbers of the segment: nobody off the path knows them.
    fn note_timestamp(&mut self, segment: &Segment<'_>) {
        if let Some(timestamps) = segment.options().timestamps.filter(|_| self.timestamps_on()) {
            self.ts_recent = timestamps.val;
        }
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
        TimeWaitOutcome::Reply { reply: self.ack(reason, env), restart: false }
    }

    fn reset(&self) -> Reply {
        let mut reply = self.bare(0, ReplyReason::RstAbort);
        reply.header.flags = Flags::RST | Flags::ACK;
        reply
    }

    fn bare(&self, window: u16, reason: ReplyReason) -> Reply {
        let mut reply = Reply::ack(self.tuple, self.snd_nxt, self.rcv_nxt, window, reason);
        if let Some((ttl, dscp)) = self.ip {
            (reply.ttl, reply.dscp) = (ttl, dscp);
        }
        reply
    }

    fn ack(&self, reason: ReplyReason, env: &Env<'_>) -> Reply {
        let mut reply = self.bare(self.window, reason);
        reply.header.options.timestamps = self.timestamps_on().then(|| Timestamps {
            val: env.timestamp_clock().wrapping_add(env.keys.timestamp_offset(&self.tuple)),
            ecr: self.ts_recent,
        });
        reply
    }

    /// Whether a connect may take the 4-tuple over (SA-TIME_WAIT-15): by timestamps, when the entry is old enough.
    pub(crate) fn may_be_reused(&self, now: Instant, config: &Config) -> bool {
        let loopback = self.tuple.remote().ip().is_loopback();
        let allowed =
            config.tcp_tw_reuse == TwReuse::Always || config.tcp_tw_reuse == TwReuse::Loopback && loopback;
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

/// An entry as it is kept, with addresses of one family, and its place in the order in which entries end. Each word
/// counts, because there may be two hundred thousand entries (THREAT-11).
#[derive(Clone, Copy, Debug)]
struct Row<A> {
    local_address: A,
    remote_address: A,
    local_port: u16,
    remote_port: u16,
    rcv_nxt: SeqNum,
    snd_nxt: SeqNum,
    ts_recent: u32,
    deadline: Tick,
    window: u16,
    answer_from: u16,
    order: Order,
}

/// Who ends just before an entry, and who just after it.
#[derive(Clone, Copy, Debug)]
struct Order {
    before: Link,
    after: Link,
}

const _: () = assert!(Table::<Row<Ipv4Addr>>::ROW == 40 && Table::<Row<Ipv6Addr>>::ROW == 64);

impl<A> Row<A> {
    #[inline]
    fn new(entry: &TimeWait, local_address: A, remote_address: A) -> Row<A> {
        let TimeWait { tuple, rcv_nxt, snd_nxt, ts_recent, deadline, window, answer_from, ip: _ } = *entry;
        let FourTuple { local_port, remote_port, .. } = tuple;
        let order = Order { before: Link::NONE, after: Link::NONE };
        Row {
            local_address,
            remote_address,
            local_port,
            remote_port,
            rcv_nxt,
            snd_nxt,
            ts_recent,
            deadline,
            window,
            answer_from,
            order,
        }
    }
}

impl<A: Copy + Into<IpAddr>> Row<A> {
    #[inline]
    fn tuple(&self) -> FourTuple {
        let (local, remote) = (self.local_address.into(), self.remote_address.into());
        FourTuple::of(&local, self.local_port, &remote, self.remote_port)
    }

    fn entry(&self, ip: Option<(u8, u8)>) -> TimeWait {
        let Row { rcv_nxt, snd_nxt, ts_recent, deadline, window, answer_from, .. } = *self;
        TimeWait { tuple: self.tuple(), rcv_nxt, snd_nxt, ts_recent, deadline, window, answer_from, ip }
    }
}

/// All entries, and the order in which they end. The lowest bit of an index says which table the row is in.
#[derive(Clone, Debug)]
pub(crate) struct TimeWaits {
    v4: Table<Row<Ipv4Addr>>,
    v6: Table<Row<Ipv6Addr>>,
    /// TTL and DSCP of the few that do not have the usual ones.
    ip: BTreeMap<u32, (u8, u8)>,
    first: Link,
    last: Link,
}

impl Default for TimeWaits {
    fn default() -> TimeWaits {
        let (v4, v6, ip) = (Table::default(), Table::default(), BTreeMap::new());
        TimeWaits { v4, v6, ip, first: Link::NONE, last: Link::NONE }
    }
}

/// An estimate of the bytes of an entry in `ip`.
const IP_PLACE: usize = 16;

/// The part that both kinds of rows have, of the row of this index.
macro_rules! field {
    ($all:expr, $index:expr, $field:ident) => {
        if $index & 1 == 0 { &mut $all.v4[$index >> 1].$field } else { &mut $all.v6[$index >> 1].$field }
    };
}

impl TimeWaits {
    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// The memory that they take, and one more between such ends.
    pub(crate) fn held_with(&self, tuple: &FourTuple) -> u64 {
        let (v4, v6) = (Table::<Row<Ipv4Addr>>::ROW, Table::<Row<Ipv6Addr>>::ROW);
        let rows = self.v4.len() * v4 + self.v6.len() * v6 + if tuple.is_ipv4() { v4 } else { v6 };
        (rows + (self.len() + 1) * FlowTable::PLACE + self.ip.len() * IP_PLACE) as u64
    }

    #[inline]
    pub(crate) fn insert(&mut self, entry: &TimeWait) -> u32 {
        let index = match entry.tuple.ipv4() {
            Some((local, remote)) => self.v4.insert_with(|| Row::new(entry, local, remote)) << 1,
            None => {
                let (local, remote) = (entry.tuple.local_address, entry.tuple.remote_address);
                self.v6.insert_with(|| Row::new(entry, local, remote)) << 1 | 1
            }
        };
        if let Some(ip) = entry.ip {
            self.ip.insert(index, ip);
        }
        self.join(index);
        index
    }

    /// Takes an entry out. Panics where there is none.
    pub(crate) fn remove(&mut self, index: u32) {
        self.leave(index);
        if !self.ip.is_empty() {
            self.ip.remove(&index);
        }
        if index & 1 == 0 { self.v4.discard(index >> 1) } else { self.v6.discard(index >> 1) }
    }

    #[inline]
    pub(crate) fn tuple(&self, index: u32) -> FourTuple {
        if index & 1 == 0 { self.v4[index >> 1].tuple() } else { self.v6[index >> 1].tuple() }
    }

    pub(crate) fn get(&self, index: u32) -> TimeWait {
        let ip = if self.ip.is_empty() { None } else { self.ip.get(&index).copied() };
        if index & 1 == 0 { self.v4[index >> 1].entry(ip) } else { self.v6[index >> 1].entry(ip) }
    }

    /// All entries, in no order.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = TimeWait> {
        let all = self.rows_from(false, 0).chain(self.rows_from(true, 0));
        all.map(|(_, entry)| entry)
    }

    /// The entries of one IP version, from a row on, with their rows.
    pub(crate) fn rows_from(&self, v6: bool, from: u32) -> impl Iterator<Item = (u32, TimeWait)> {
        // One of both has no rows to give.
        let [v4, v6] = [!v6, v6].map(|wanted| if wanted { from } else { u32::MAX });
        let v4 = self.v4.iter_from(v4).map(|(row, _)| (row, self.get(row << 1)));
        v4.chain(self.v6.iter_from(v6).map(|(row, _)| (row, self.get(row << 1 | 1))))
    }

    /// SEGMENT ARRIVES for the entry of this index.
    pub(crate) fn segment_arrives(
        &mut self,
        index: u32,
        segment: &Segment<'_>,
        env: &mut Env<'_>,
    ) -> TimeWaitOutcome {
        let mut entry = self.get(index);
        let outcome = entry.segment_arrives(segment, env);
        *field!(self, index, ts_recent) = entry.ts_recent;
        *field!(self, index, answer_from) = entry.answer_from;
        outcome
    }

    /// The ACK of an entry.
    pub(crate) fn acknowledgment(&self, index: u32, env: &Env<'_>) -> Reply {
        self.get(index).ack(ReplyReason::TimeWaitAck, env)
    }

    /// 2MSL begins anew.
    pub(crate) fn restart(&mut self, index: u32, now: Instant, length: Duration) {
        *field!(self, index, deadline) = Tick::after(now, length);
        self.leave(index);
        self.join(index);
    }

    fn join(&mut self, index: u32) {
        let (link, before) = (Link::of(index), self.last);
        *field!(self, index, order) = Order { before, after: Link::NONE };
        match before.get() {
            Some(before) => field!(self, before, order).after = link,
            None => self.first = link,
        }
        self.last = link;
    }

    fn leave(&mut self, index: u32) {
        let Order { before, after } = *field!(self, index, order);
        match before.get() {
            Some(before) => field!(self, before, order).after = after,
            None => self.first = after,
        }
        match after.get() {
            Some(after) => field!(self, after, order).before = before,
            None => self.last = before,
        }
    }

    /// The first entry that is over at `now`; the caller removes it.
    #[inline]
    pub(crate) fn expired(&self, now: Tick) -> Option<u32> {
        let first = self.first.get()?;
        self.deadline(first).is_due(now).then_some(first)
    }

    pub(crate) fn next(&self) -> Option<Tick> {
        self.first.get().map(|first| self.deadline(first))
    }

    fn deadline(&self, index: u32) -> Tick {
        if index & 1 == 0 { self.v4[index >> 1].deadline } else { self.v6[index >> 1].deadline }
    }

    fn after(&self, index: u32) -> Option<u32> {
        let order = if index & 1 == 0 { self.v4[index >> 1].order } else { self.v6[index >> 1].order };
        order.after.get()
    }

    /// The tuple of the oldest entry between the address and the end of `ends`, with a local port in `range`. Only
    /// the first few entries are looked at: with more peers than that, few ports of one are taken.
    pub(crate) fn oldest_towards(&self, ends: &FourTuple, range: PortRange) -> Option<FourTuple> {
        const LOOK: usize = 64;
        let first = std::iter::successors(self.first.get(), |index| self.after(*index)).take(LOOK);
        let mut fit = first.map(|index| self.tuple(index)).filter(|tuple| {
            range.contains(tuple.local_port) && FourTuple { local_port: 0, ..*tuple } == *ends
        });
        fit.next()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use proptest::prelude::*;

    fn entry(number: u32, deadline: u32) -> TimeWait {
        let tuple = if number.is_multiple_of(3) {
            FourTuple::new("[2001:db8::1]:80".parse().unwrap(), "[2001:db8::2]:4000".parse().unwrap())
        } else {
            FourTuple::new("10.0.0.1:80".parse().unwrap(), (Ipv4Addr::from(number), 4000).into())
        };
        TimeWait {
            tuple,
            rcv_nxt: SeqNum(number),
            snd_nxt: SeqNum(number + 1),
            ts_recent: number,
            deadline: Tick(deadline),
            window: 7,
            answer_from: 0,
            ip: None,
        }
    }

    proptest! {
        /// Against a queue as oracle: entries of both families end in order, whatever leaves or begins anew between.
        #[test]
        fn entries_end_in_the_order_of_their_deadlines(
            steps in proptest::collection::vec((0u8..5, any::<u8>()), 0..300),
        ) {
            let (mut all, mut oracle) = (TimeWaits::default(), VecDeque::<(u32, u32, u32)>::new());
            for (now, (what, pick)) in (1u32..).zip(steps) {
                let pick = usize::from(pick) % oracle.len().max(1);
                match what {
                    0 | 1 => {
                        let index = all.insert(&entry(now, now + 100));
                        oracle.push_back((index, now, now + 100));
                    }
                    2 => {
                        if let Some((index, ..)) = oracle.remove(pick) {
                            all.remove(index);
                        }
                    }
                    3 => {
                        if let Some((index, number, _)) = oracle.remove(pick) {
                            let length = Duration::from_millis(100);
                            all.restart(index, Instant::from_millis(u64::from(now)), length);
                            oracle.push_back((index, number, now + 100));
                        }
                    }
                    _ => {
                        let first = oracle.front().copied();
                        prop_assert_eq!(all.next(), first.map(|(_, _, deadline)| Tick(deadline)));
                        if let Some((index, number, deadline)) = first {
                            prop_assert_eq!(all.expired(Tick(deadline - 1)), None);
                            prop_assert_eq!(all.expired(Tick(deadline)), Some(index));
                            let there = all.get(index);
                            prop_assert_eq!((there.tuple, there.rcv_nxt), (entry(number, 0).tuple, SeqNum(number)));
                            all.remove(index);
                            oracle.pop_front();
                        }
                    }
                }
                prop_assert_eq!((all.len(), all.iter().count()), (oracle.len(), oracle.len()));
            }
        }
    }
}

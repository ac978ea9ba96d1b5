//! The send queue in quanta, as Linux keeps it in buffers for segmentation offload. The boundaries of writes decide
//! where bursts end, which of them carry PSH, and how much a writer may queue.

mod segments;

use std::collections::VecDeque;

use super::congestion::Sent;
use super::limits::Limits;
use super::segment::Outgoing;
use super::tcb::{Connection, Env};
use crate::seq::SeqNum;
use crate::socket::SendFlags;
use crate::state::CaState;
use crate::wire::tcp::Flags;

/// Memory that the bookkeeping of one quantum counts as.
const OVERHEAD: usize = 1280;
/// The largest packet for segmentation offload, less Linux's room for headers.
const LARGEST: u32 = 65_536 - 321;
/// ACKs do not move the end of what was marked for PSH, but a number 2^31 below would seem to be above.
const FURTHEST: u32 = 1 << 30;
/// Where releases of Linux differ, from this one on.
pub(crate) const LINUX_6_10: u32 = 610;
pub(crate) const LINUX_6_17: u32 = 617;
pub(crate) const LINUX_6_18: u32 = 618;

/// The quanta from SND.UNA on.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Quanta {
    /// Oldest first. Those before SND.NXT were sent.
    list: VecDeque<Quantum>,
    /// The end of the burst that is leaving, and whether it is of several segments.
    burst: Option<(SeqNum, bool)>,
    /// The end of the last quantum that was marked for PSH while it was written.
    pushed: SeqNum,
    haste: Haste,
    /// The last write said that more follows.
    more: bool,
    /// The last write stopped in the middle, and goes on.
    stopped: bool,
    /// A write has begun a quantum since data left, or the peer has changed its window.
    begun: bool,
    /// A write, or the peer, has asked for more to be sent.
    asked: bool,
    /// Payload of full segments since then; 0: none was sent.
    mss: u16,
    /// Segments that the peer acknowledged.
    delivered: u64,
    /// The last round trip by which RACK judges after a timeout, in microseconds.
    pub(super) rack_rtt: u32,
    /// The FIN left in one segment with data.
    fin_with_data: bool,
    /// Segments left since it was last judged whether they use the congestion window.
    unjudged: bool,
    /// A write found no room, and nobody was woken since.
    pub(super) starved: bool,
    pub(super) limits: Limits,
}

#[derive(Clone, Copy, Debug, Hash)]
struct Quantum {
    end: SeqNum,
    /// Payload of its segments; 0: it was not sent.
    mss: u16,
    /// Its last segment carries PSH.
    push: bool,
    /// Nothing is appended to it (`MSG_EOR`).
    closed: bool,
}

/// How the next burst leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Haste {
    /// By Nagle's rule, and deferred if that fills it.
    No,
    /// The first quantum is full, and the write goes on: one burst of it.
    One,
    /// Whatever is there, as far as windows allow.
    All,
    /// Nothing leaves until the write goes on, or the peer acknowledges something.
    Rest,
}

/// The decision about the next burst.
enum Choice {
    /// It leaves, and ends there.
    Burst(SeqNum),
    /// Windows or Nagle's rule hold it back.
    Wait,
    /// It waits for the next ACK, to be longer; whether the congestion window cut it.
    Defer(bool),
}

impl Quanta {
    fn new(from: SeqNum) -> Quanta {
        let list = VecDeque::new();
        Quanta {
            list,
            burst: None,
            pushed: from,
            haste: Haste::No,
            more: false,
            stopped: false,
            begun: false,
            asked: true,
            mss: 0,
            delivered: 0,
            rack_rtt: 0,
            fin_with_data: false,
            unjudged: false,
            starved: false,
            limits: Limits::default(),
        }
    }

    /// The index of the first quantum that was not sent entirely.
    fn head(&self, nxt: SeqNum) -> usize {
        self.list.iter().position(|quantum| quantum.end.gt(nxt)).unwrap_or(self.list.len())
    }

    /// Drops what is acknowledged, `delivered` segments.
    pub(crate) fn keep_up_with(&mut self, una: SeqNum, delivered: u32) {
        self.delivered += u64::from(delivered);
        while self.list.front().is_some_and(|quantum| quantum.end.le(una)) {
            self.list.pop_front();
        }
        self.pushed = self.pushed.max(una - FURTHEST);
        self.burst.take_if(|(end, _)| end.le(una));
        self.more = false;
    }

    /// The peer has answered: a deferred burst may leave, and so may what a write held back.
    pub(crate) fn resume(&mut self) {
        self.more = false;
        (self.asked, self.mss) = (true, 0);
        if matches!(self.haste, Haste::Rest | Haste::All) {
            self.haste = Haste::No;
        }
    }

    /// Segments that the peer acknowledged.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether a segment that ends there carries PSH: at the end of a write, and of a burst of several segments.
    // DRILL-X01
    pub(crate) fn pushes(&self, end: SeqNum) -> bool {
        self.burst == Some((end, true))
            || self.list.iter().find(|quantum| quantum.end.ge(end)).is_some_and(|q| q.end == end && q.push)
    }

    /// Where a retransmission of what begins at `start` ends: with the quantum, unless following ones fit into the same
    /// segment and into the window. Data that left in a burst of several segments stays apart.
    // DRILL-X59, DRILL-X67
    pub(crate) fn end_of_segment(&self, start: SeqNum, mss: u32, window_end: SeqNum) -> SeqNum {
        let mut quanta = self.list.iter().skip_while(|quantum| quantum.end.le(start));
        let Some(first) = quanta.next() else { return start + mss };
        let (mut end, mut closed) = (first.end, first.closed);
        for next in quanta {
            let fits = next.end.since(start) <= mss && next.end.le(window_end);
            if closed || !fits {
                return end.min(start + mss);
            }
            (end, closed) = (next.end, next.closed);
        }
        // The FIN follows.
        if closed && !self.fin_with_data { end.min(start + mss) } else { start + mss }
    }

    /// The bytes that the queue takes of the send buffer.
    pub(crate) fn memory(&self, bytes: usize) -> usize {
        bytes + OVERHEAD * self.list.len()
    }

    /// Puts a boundary at `end`: what lies between it and `nxt` is one quantum of segments of `mss` bytes, whose end may
    /// carry PSH.
    fn cut(&mut self, nxt: SeqNum, end: SeqNum, mss: u16, push: bool) {
        let index = self.head(nxt);
        while self.list.get(index).is_some_and(|quantum| quantum.end.lt(end)) {
            self.list.remove(index);
        }
        match self.list.get_mut(index) {
            Some(quantum) if quantum.end == end => (quantum.push, quantum.mss) = (quantum.push || push, mss),
            _ => self.list.insert(index, Quantum { end, mss, push, closed: false }),
        }
    }

    /// Puts what a path MTU probe takes from its neighbours into a quantum of its own.
    // DRILL-X28
    pub(super) fn take_for_probe(&mut self, nxt: SeqNum, end: SeqNum) {
        self.cut(nxt, end, end.since(nxt) as u16, false);
    }

    /// A write goes on after what leaves now.
    pub(super) fn is_being_written(&self) -> bool {
        self.haste == Haste::One
    }

    fn mark_push(&mut self) {
        if let Some(last) = self.list.back_mut() {
            last.push = true;
            self.pushed = last.end;
        }
    }

    /// Sends what waits, whatever holds it back.
    pub(crate) fn hasten(&mut self) {
        self.haste = Haste::All;
        self.more = false;
    }
}

impl Connection {
    #[inline]
    pub(crate) fn quanta(&self) -> Option<&Quanta> {
        self.rare.as_ref()?.quanta.as_deref()
    }

    #[inline]
    pub(super) fn quanta_if_any(&mut self) -> Option<&mut Quanta> {
        self.rare.as_mut()?.quanta.as_deref_mut()
    }

    fn quanta_mut(&mut self) -> &mut Quanta {
        let from = self.start_of_queue();
        self.rare().quanta.get_or_insert_with(|| Box::new(Quanta::new(from)))
    }

    /// The size of a quantum: at most half of the largest window ever seen, in whole segments.
    fn quantum_goal(&self) -> u32 {
        let (mss, largest) = (u32::from(self.payload_mss()), self.tcb.snd.max_wnd);
        let half = if largest > 536 { largest / 2 } else { largest };
        let most = if half > 0 { half.min(LARGEST) } else { LARGEST };
        (most / mss).max(1) * mss
    }

    /// Takes quanta for up to `len` bytes that are written. Returns how many bytes they have; the caller appends these. A
    /// write stops where Linux would send before it goes on.
    // DRILL-X03, DRILL-X04, DRILL-X07, DRILL-X09
    pub(crate) fn write_in_quanta(&mut self, len: usize, flags: SendFlags) -> usize {
        self.cover_queue();
        let (goal, nxt, max_wnd) = (self.quantum_goal(), self.tcb.snd.nxt, self.tcb.snd.max_wnd);
        let (sndbuf, lowat) = (self.options.sndbuf as usize, self.options.notsent_lowat);
        let (start, mut end) = (self.start_of_queue(), self.end_of_queue());
        let nxt = nxt.max(start);
        let quanta = self.quanta_mut();
        quanta.haste = Haste::No;
        let goes_on = std::mem::take(&mut quanta.stopped);
        (quanta.asked, quanta.mss) = (true, 0);
        let mut taken = 0;
        if len == 0 {
            return 0;
        }
        loop {
            let unsent = |quantum: &Quantum| quantum.end.gt(nxt) && !quantum.closed;
            let open = quanta.list.back().filter(|last| unsent(last)).map(|_| {
                let index = quanta.list.len() - 1;
                let begin = if index > 0 { quanta.list[index - 1].end.max(nxt) } else { nxt };
                end.since(begin)
            });
            let room = match open.and_then(|size| goal.checked_sub(size)).filter(|room| *room > 0) {
                Some(room) => room,
                None => {
                    let held = quanta.memory(end.since(start) as usize);
                    if held >= sndbuf || end.since(nxt) >= lowat {
                        if taken > 0 {
                            quanta.mark_push();
                            quanta.more = false;
                        }
                        quanta.starved = true;
                        return taken;
                    }
                    quanta.list.push_back(Quantum { end, mss: 0, push: false, closed: false });
                    quanta.begun = true;
                    goal
                }
            };
            let count = (room as usize).min(len - taken);
            taken += count;
            end += count as u32;
            let forced = end.since(quanta.pushed) > max_wnd / 2;
            let Some(last) = quanta.list.back_mut() else { return taken };
            last.end = end;
            if taken == count && !goes_on {
                last.push = false;
            }
            if taken == len {
                last.closed = flags.end_of_record;
                if !flags.more || forced {
                    quanta.mark_push();
                }
                quanta.more = flags.more;
                return taken;
            }
            if forced {
                quanta.mark_push();
                (quanta.haste, quanta.stopped) = (Haste::All, true);
                return taken;
            }
            if quanta.head(nxt) + 1 == quanta.list.len() {
                (quanta.haste, quanta.stopped) = (Haste::One, true);
                return taken;
            }
        }
    }

    /// Makes quanta of what was queued otherwise: before the connection was there, or in one piece.
    pub(super) fn cover_queue(&mut self) {
        let (goal, end, nxt) = (self.quantum_goal(), self.end_of_queue(), self.tcb.snd.nxt);
        let (start, mss) = (self.start_of_queue(), self.payload_len_limit());
        let quanta = self.quanta_mut();
        let mut last = quanta.list.back().map_or(start, |last| last.end);
        if last.ge(end) {
            return;
        }
        if last.lt(nxt) && nxt.lt(end) {
            quanta.list.push_back(Quantum { end: nxt, mss, push: true, closed: true });
            last = nxt;
        }
        while last.lt(end) {
            last = if end.since(last) > goal { last + goal } else { end };
            quanta.list.push_back(Quantum { end: last, mss: 0, push: last == end, closed: false });
        }
    }

    /// Bytes that a write may queue.
    pub(super) fn room_in_quanta(&self, quanta: &Quanta) -> usize {
        let bytes = self.send_queue.len();
        let free = quanta.memory(bytes) < self.options.sndbuf as usize
            && self.unsent() < self.options.notsent_lowat as usize;
        let nxt = self.tcb.snd.nxt;
        let begin = quanta.list.iter().rev().nth(1).map_or(nxt, |before| before.end.max(nxt));
        let open = quanta.list.back().is_some_and(|last| last.end.gt(nxt) && !last.closed);
        let spare =
            if open { self.quantum_goal().saturating_sub(self.end_of_queue().since(begin)) } else { 0 };
        if free { self.quantum_goal().max(spare) as usize } else { spare as usize }
    }

    /// Whether a writer that found no room is woken: a third of the buffer and half of the unsent limit are free.
    pub(super) fn wakes_writer_of(&self, quanta: &Quanta) -> bool {
        let (held, sndbuf) = (quanta.memory(self.send_queue.len()), self.options.sndbuf as usize);
        sndbuf.saturating_sub(held) >= held / 2 && 2 * self.unsent() < self.options.notsent_lowat as usize
    }

    /// Whether the peer's window, and not congestion control, holds back the next segment.
    // DRILL-X19
    pub(super) fn window_is_short(&self, quanta: &Quanta) -> bool {
        let (mss, nxt) = (u32::from(self.payload_mss()), self.tcb.snd.nxt);
        let edge = self.tcb.snd.una + self.tcb.snd.wnd;
        let window = if nxt.lt(edge) { edge.since(nxt) } else { 0 };
        let next = quanta.list.get(quanta.head(nxt)).map_or(mss, |head| head.end.since(nxt).min(mss));
        self.quota().0 > 0 && window < next
    }

    /// The most segments of a burst.
    fn most_of_burst(&self, mss: u32, env: &Env<'_>) -> u32 {
        let config = env.config;
        let least = u32::from(config.tcp_min_tso_segs);
        if config.linux_release < LINUX_6_18 {
            return (self.quantum_goal() / mss).max(least);
        }
        // By the pacing rate, although nothing is paced.
        let srtt = self.tcb.rtt.srtt().as_micros().max(1) as u64;
        let (cwnd, threshold) = (u64::from(self.congestion.cwnd()), u64::from(self.congestion.ssthresh()));
        let starting = cwnd < threshold / 2;
        let ratio = if starting { config.tcp_pacing_ss_ratio } else { config.tcp_pacing_ca_ratio };
        let per_ms = (cwnd * u64::from(ratio) / 100 * 1_000_000 / srtt) >> 10;
        let shift = self.min_rtt.get().as_micros() as u64 >> 9;
        let near = if shift < 32 { u64::from(LARGEST) >> shift } else { 0 };
        let bytes = (per_ms + near).min(u64::from(LARGEST)) as u32;
        (bytes / mss).max(least)
    }

    /// The peer has answered: a deferred burst may leave.
    #[inline]
    pub(super) fn resume_quanta(&mut self) {
        if let Some(quanta) = self.quanta_if_any() {
            quanta.resume();
        }
    }

    /// Sends the next segment of a burst, or of a new one. The bulk of the rules is Linux's `tcp_write_xmit`.
    // DRILL-X01, DRILL-X02
    #[cold]
    pub(super) fn next_in_quanta(
        &mut self,
        (unsent, fin_due): (usize, bool),
        (window, mss): (u32, u32),
        offload: bool,
        out: &mut Outgoing,
        env: &mut Env<'_>,
    ) -> bool {
        self.cover_queue();
        let nxt = self.tcb.snd.nxt;
        let mss = self.mss_of_turn(mss);
        let leaving = self.quanta().and_then(|quanta| quanta.burst).filter(|(end, _)| end.gt(nxt));
        let (mut end, mut by_window) = (leaving.map(|(end, _)| end), false);
        if leaving.is_none() {
            match self.choose_burst(fin_due, window, mss, env) {
                Choice::Burst(chosen) => end = Some(chosen),
                Choice::Wait => {}
                Choice::Defer(cut) => {
                    by_window = cut;
                    self.quanta_mut().haste = Haste::Rest;
                }
            }
        }
        let (free, _) = self.quota();
        self.tcb.snd.cwnd_limited = unsent as u32 > free.saturating_mul(mss);
        let Some(end) = end else {
            // The FIN is a segment like others. DRILL-X60
            let held = free == 0 && env.config.follows_linux();
            if unsent == 0 && fin_due && window > 0 && !held {
                self.first_transmission(0, Flags::FIN, None, out, env);
                self.note_left(env);
                return true;
            }
            self.judge_use(by_window, env);
            if self.flight() == 0 {
                self.arm_persist(env);
            }
            return false;
        };
        let probe = self.tcb.snd.pending.window_probe;
        if leaving.is_none() {
            let quanta = self.quanta_mut();
            quanta.cut(nxt, end, mss as u16, probe);
            quanta.burst = Some((end, end.since(nxt) > mss));
        }
        let rest = end.since(nxt) as usize;
        let most = if offload { self.super_payload(mss as usize) } else { mss as usize };
        let payload = rest.min(most);
        let fin = fin_due && payload == unsent && window as usize > payload;
        let flags = if fin { Flags::FIN } else { Flags::default() };
        let segment_size = (payload > mss as usize).then_some(mss as u16);
        self.quanta_mut().fin_with_data |= fin;
        self.first_transmission(payload, flags, segment_size, out, env);
        let quanta = self.quanta_mut();
        if payload == rest {
            quanta.burst = None;
            if quanta.haste == Haste::One {
                quanta.haste = Haste::Rest;
            }
        }
        // Linux's rules of Nagle and of the window do not look at what the override timer sent. DRILL-X64
        if !(probe && env.config.follows_linux()) {
            self.note_small_segment(payload, mss as usize);
            self.note_left(env);
        }
        true
    }

    /// Linux looks whether the connection idled when a write begins a quantum, and when the peer changes its window.
    // DRILL-X10
    pub(super) fn note_begun(&mut self) {
        if self.flight() == 0
            && let Some(quanta) = self.quanta_if_any()
        {
            quanta.begun = true;
        }
    }

    pub(super) fn takes_note_of_write(&mut self) -> bool {
        let quanta = self.quanta_if_any();
        quanta.is_none_or(|quanta| std::mem::take(&mut quanta.begun))
    }

    /// All that leaves at once has segments of one size, also if the first of them had a D-SACK.
    fn mss_of_turn(&mut self, mss: u32) -> u32 {
        let quanta = self.quanta_mut();
        if quanta.mss == 0 || u32::from(quanta.mss) > mss {
            quanta.mss = mss as u16;
        }
        quanta.mss.into()
    }

    /// A segment left. If nothing follows, it is judged whether they use the congestion window.
    pub(super) fn note_left(&mut self, env: &Env<'_>) {
        self.quanta_mut().unjudged = true;
        if self.unsent() == 0 && (self.tcb.snd.fin_sent || !self.tcb.snd.fin_queued) {
            self.judge_use(false, env);
        }
    }

    /// Nothing more leaves now. `by_window`: a burst waits since the congestion window cut it.
    // DRILL-X06
    fn judge_use(&mut self, by_window: bool, env: &Env<'_>) {
        if !env.config.follows_linux() {
            return;
        }
        let (free, _) = self.quota();
        let quanta = self.quanta_mut();
        let (left, asked) = (std::mem::take(&mut quanta.unjudged), std::mem::take(&mut quanta.asked));
        let limited = by_window || free == 0;
        if left || (limited && asked) {
            let restart = env.config.tcp_slow_start_after_idle && self.ca_state() == CaState::Open;
            let sent = Sent {
                una: self.tcb.snd.una,
                nxt: self.tcb.snd.nxt,
                out: self.segments_out().unwrap_or(0),
                limited,
                now: env.tick(),
                rto: self.tcb.rtt.backed_off_micros(env.config),
                restart: restart.then(|| env.initial_segments(&self.tcb.tuple).into()),
            };
            self.congestion.sent_as_linux(&sent, self.payload_mss().into());
        }
    }

    fn choose_burst(&self, fin_due: bool, window: u32, mss: u32, env: &Env<'_>) -> Choice {
        let (Some(quanta), nxt) = (self.quanta(), self.tcb.snd.nxt) else { return Choice::Wait };
        let index = quanta.head(nxt);
        let Some(head) = quanta.list.get(index) else { return Choice::Wait };
        let (free, cwnd) = self.quota();
        let probe = self.tcb.snd.pending.window_probe;
        if (free == 0 && !probe) || quanta.haste == Haste::Rest {
            return Choice::Wait;
        }
        let most = self.most_of_burst(mss, env);
        let quota = (cwnd / 2).max(1).min(free).min(most).max(1);
        let (mut len, mut end) = (head.end.since(nxt), head.end);
        // Before, Linux did not fill a burst from the next quantum.
        let fills = !(1..LINUX_6_10).contains(&env.config.linux_release);
        if let Some(next) = quanta.list.get(index + 1).filter(|_| fills && !head.closed) {
            let grown = (quota * mss).saturating_sub(len).min(next.end.since(head.end));
            (len, end) = (len + grown, end + grown);
        }
        let tail = end == self.end_of_queue();
        let fin = tail && fin_due;
        if window < len.min(mss) {
            // The override timer sends what fits.
            return if probe && window > 0 { Choice::Burst(nxt + window.min(len)) } else { Choice::Wait };
        }
        if probe {
            return Choice::Burst(nxt + len.min(mss));
        }
        let cork = self.options.cork || quanta.more;
        let small_in_flight = self.small_end.gt(self.tcb.snd.una) && self.flight() > 0;
        let by_nagle = cork || (!self.options.nodelay && small_in_flight);
        let holds = tail && !fin && quanta.haste == Haste::No && by_nagle;
        if len <= mss {
            return if len == mss || !holds { Choice::Burst(end) } else { Choice::Wait };
        }
        let whole = fin || quanta.list.iter().any(|quantum| quantum.end == end && quantum.closed);
        if quanta.haste != Haste::One && self.defers((len, tail, whole), (window, free), (cwnd, most), env) {
            let by_cwnd = free * u32::from(self.payload_mss());
            return Choice::Defer(by_cwnd < window && by_cwnd <= len);
        }
        let (allowed, needed) = (mss * quota, len.min(window));
        let partial = needed % mss;
        let limit = if allowed <= needed || (allowed <= window && !tail) {
            allowed
        } else if partial > 0 && holds {
            needed - partial
        } else {
            needed
        };
        Choice::Burst(nxt + len.min(limit))
    }

    /// The end of the segment of new data that a loss probe may be, whatever Linux would hold back for Nagle's rule.
    // DRILL-X15
    pub(super) fn end_of_probe(&mut self, mss: u32) -> SeqNum {
        self.cover_queue();
        let (nxt, end) = (self.tcb.snd.nxt, self.end_of_queue());
        let Some(quanta) = self.quanta() else { return end };
        let index = quanta.head(nxt);
        match (quanta.list.get(index), quanta.list.get(index + 1)) {
            (Some(head), Some(_)) if !head.closed => end.min(nxt + mss),
            (Some(head), _) => head.end.min(nxt + mss),
            (None, _) => end,
        }
    }

    /// A loss probe of new data is to leave, up to `end`.
    pub(super) fn cut_probe(&mut self, end: SeqNum, fin: bool) {
        let (nxt, mss) = (self.tcb.snd.nxt, self.payload_len_limit());
        let quanta = self.quanta_mut();
        if end.gt(nxt) {
            quanta.cut(nxt, end, mss, false);
            quanta.fin_with_data |= fin;
        }
    }

    /// Lost data, or a loss probe, leaves as one segment.
    pub(super) fn note_resent(&mut self, start: SeqNum, payload: u32, fin: bool) {
        let una = self.start_of_queue();
        if payload > 0
            && let Some(quanta) = self.quanta_if_any()
        {
            quanta.join(una, start, start + payload);
            quanta.fin_with_data |= fin;
        }
    }

    /// Whether a burst that a window cuts waits for the next ACK, to be longer (Linux's `tcp_tso_should_defer`).
    // DRILL-X02b
    fn defers(
        &self,
        (len, tail, whole): (u32, bool, bool),
        (window, free): (u32, u32),
        (cwnd, most): (u32, u32),
        env: &Env<'_>,
    ) -> bool {
        let mss = u32::from(self.payload_mss());
        if matches!(self.ca_state(), CaState::Recovery | CaState::Loss)
            || env.tick().elapsed(self.tcb.snd.last_sent) >= 1
            || self.flight() == 0
        {
            return false;
        }
        let by_cwnd = free * mss;
        let limit = window.min(by_cwnd);
        let share = match u32::from(env.config.tcp_tso_win_divisor) {
            0 => 3 * mss + 1,
            divisor => self.tcb.snd.wnd.min(cwnd * mss) / divisor,
        };
        if limit >= most * mss || (!tail && limit >= len) || limit >= share {
            return false;
        }
        if env.config.linux_release >= LINUX_6_18 {
            let sent = self.flight.as_ref().map_or(self.sent, |flight| flight.earliest());
            let age = crate::time::SendTime::at(env.now).since(sent).max(0) as u64;
            let srtt = self.tcb.rtt.srtt().as_micros() as u64;
            if srtt.saturating_sub(age) > (srtt / 2).min(1000) {
                return false;
            }
        }
        limit <= len || !whole
    }
}

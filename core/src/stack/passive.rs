//! LISTEN and SYN-RECEIVED: from a SYN to a connection in the accept queue.

use std::sync::Arc;

use super::inbound::Datagram;
use super::sockets::SocketKind;
use super::{Stack, env_of};
use crate::config::{FastOpenKeys, RefuseWith, SynCookies};
use crate::counters::{DropReason, ReplyReason};
use crate::flow::{FlowRef, PackedRef};
use crate::keys::fast_open_cookie;
use crate::seq::SeqNum;
use crate::socket::{Event, SocketOptions};
use crate::state::State;
use crate::tcp::cookie;
use crate::tcp::listen::{HalfOpen, HalfOpenOutcome, Listener, Offer, SynAck, with_cookie};
use crate::tcp::room::room_in;
use crate::tcp::segment::{Reply, Segment};
use crate::tcp::tcb::{Agreed, Origin};
use crate::time::{Duration, Instant, Tick};
use crate::tuple::FourTuple;
use crate::wheel::Due;
use crate::wire::tcp::Cookie;

/// The decision about a SYN that may be one of Fast Open.
enum FastOpenRequest {
    /// An ordinary SYN.
    None,
    /// The connection begins with this SYN. A cookie of an older key is replaced.
    Take(Option<Cookie>),
    /// The SYN-ACK gives a cookie.
    Give(Cookie),
}

impl Stack {
    /// SEGMENT ARRIVES in LISTEN (SA-LISTEN).
    pub(super) fn listen_segment(&mut self, listener: u32, segment: &Segment<'_>, datagram: &Datagram<'_>) {
        let flags = segment.flags();
        if flags.rst() {
            return self.dropped(&segment.tuple, DropReason::RstUnmatched);
        }
        if flags.ack() && flags.syn() && self.config.tcp_bsd_rules {
            // DRILL-F20
            return self.dropped_stray(segment, DropReason::ListenNoFlags);
        }
        if flags.ack() {
            let expected = self.listeners[listener].expects_cookies(self.now);
            if !flags.syn() && expected && self.cookie_returns(listener, segment) {
                return;
            }
            return self.reset(segment, Reply::rst_to(segment, ReplyReason::RstListen));
        }
        if !flags.syn() {
            return self.dropped_stray(segment, DropReason::ListenNoFlags);
        }
        self.syn_segment(listener, segment, datagram, None);
    }

    /// Handles a SYN for a listener. `old`: the TIME-WAIT entry that the SYN replaces, and its last sequence number.
    pub(super) fn syn_segment(
        &mut self,
        listener: u32,
        segment: &Segment<'_>,
        datagram: &Datagram<'_>,
        old: Option<(u32, SeqNum)>,
    ) {
        if self.refuses(segment, datagram) {
            return;
        }
        let tuple = segment.tuple;
        let source = tuple.remote().ip();
        if self.config.tcp_tw_recycle
            && let Some(timestamps) = segment.options().timestamps
            && self.peers.refuses(source, timestamps.val, self.now)
        {
            self.counters.paws_passive += 1;
            return self.dropped(&tuple, DropReason::RecycledTimestamp);
        }
        if self.listeners[listener].accept_queue_full() {
            self.counters.listen_overflows += 1;
            self.counters.listen_drops += 1;
            return self.dropped(&tuple, DropReason::AcceptQueueFull);
        }
        let mut offer = Offer::of(segment, &self.config, tuple.is_ipv4());
        if self.listeners[listener].options.no_options {
            offer = offer.without_options(tuple.is_ipv4());
        }
        let mut give_cookie = None;
        let asks = segment.options().fast_open.is_some() || !segment.payload.is_empty();
        if asks && old.is_none() && self.serves_fast_open(listener) {
            match self.fast_open_request(listener, segment) {
                FastOpenRequest::Take(cookie) => {
                    if self.fast_open(listener, segment, offer, cookie) {
                        return;
                    }
                }
                FastOpenRequest::Give(cookie) => give_cookie = Some(cookie),
                FastOpenRequest::None => {}
            }
        }
        self.half_open(listener, segment, offer, give_cookie, old);
    }

    #[cold]
    fn serves_fast_open(&self, listener: u32) -> bool {
        let bits = self.config.tcp_fastopen;
        bits.server() && (bits.all_listeners() || self.listeners[listener].fast_open > 0)
    }

    /// Decides about a SYN with an option of Fast Open, or with data.
    // DRILL-X31 to DRILL-X33
    fn fast_open_request(&mut self, listener: u32, segment: &Segment<'_>) -> FastOpenRequest {
        let options = &self.listeners[listener].options;
        if self.config.tcp_fastopen.server_without_cookie() || options.fast_open_no_cookie {
            return FastOpenRequest::Take(None);
        }
        let Some(option) = segment.options().fast_open else { return FastOpenRequest::None };
        let (current, other) = self.fast_open_cookies(listener, &segment.tuple);
        let current = current.carried_by_experiment(option.is_experiment());
        if option.as_bytes() == current.as_bytes() {
            return FastOpenRequest::Take(None);
        }
        if !option.is_request() && other.is_some_and(|other| option.as_bytes() == other.as_bytes()) {
            return FastOpenRequest::Take(Some(current));
        }
        self.counters.tcp_fast_open_cookie_reqd += 1;
        self.counters.tcp_fast_open_passive_fail += u64::from(!option.is_request());
        FastOpenRequest::Give(current)
    }

    /// The Fast Open cookie of a client, and another one that counts too. A configured key has a backup. Otherwise each
    /// lifetime of a key has its own (RFC 7413 §4.1.2).
    fn fast_open_cookies(&self, listener: u32, tuple: &FourTuple) -> (Cookie, Option<Cookie>) {
        let own = self.listeners[listener].options.fast_open_key;
        let keys = own.or(self.config.tcp_fastopen_key).unwrap_or_else(|| {
            let life = self.config.tcp_fastopen_key_life.as_secs();
            let number = self.now.as_secs().checked_div(life).unwrap_or(0);
            let before = number.checked_sub(1).map(|before| self.keys.fast_open_key(before));
            FastOpenKeys::new(self.keys.fast_open_key(number), before)
        });
        let cookie = |key| Cookie::new(&fast_open_cookie(key, tuple)).unwrap_or_default();
        (cookie(keys.primary), keys.backup.map(cookie))
    }

    /// Refuses a SYN if `tcp_refuse` says so. Returns whether it does.
    pub(super) fn refuses(&mut self, segment: &Segment<'_>, datagram: &Datagram<'_>) -> bool {
        let tuple = segment.tuple;
        match self.config.tcp_refuse.decide(tuple.remote().ip(), tuple.local_port) {
            None => return false,
            Some(RefuseWith::TcpReset) => {
                self.reset(segment, Reply::rst_to(segment, ReplyReason::RstRefused));
            }
            Some(RefuseWith::AdminProhibited) => self.prohibited(datagram),
            Some(RefuseWith::Drop) => self.dropped(&tuple, DropReason::Refused),
        }
        true
    }

    /// Makes a half-open entry, or its substitute when there is no room (SA-LISTEN-04, -07).
    fn half_open(
        &mut self,
        listener: u32,
        segment: &Segment<'_>,
        offer: Offer,
        give_cookie: Option<Cookie>,
        old: Option<(u32, SeqNum)>,
    ) {
        let tuple = segment.tuple;
        let backlog = self.config.tcp_max_syn_backlog as usize;
        let most = self.config.tcp_max_half_open as usize;
        let (used, used_by_all) = (self.listeners[listener].half_open, self.half_open.len());
        let full = match self.config.tcp_syncookies {
            SynCookies::Never => self.half_open_full(listener),
            _ => self.early_full(used, backlog) || self.early_full(used_by_all, most),
        };
        let cookies = match self.config.tcp_syncookies {
            SynCookies::Never => false,
            SynCookies::WhenFull => full,
            SynCookies::Always => true,
        };
        if cookies && old.is_none() {
            self.counters.tcp_req_q_full_do_cookies += u64::from(full);
            return self.send_cookie(listener, segment, offer);
        }
        // A client that replaces a TIME-WAIT is genuine, and a flood of strangers must not keep it out. The table has
        // room for as many such entries again.
        let full = if old.is_some() { self.gave_way.len() >= most } else { full };
        if full {
            self.counters.tcp_req_q_full_drop += 1;
            self.counters.listen_drops += 1;
            return self.dropped(&tuple, DropReason::SynBacklogFull);
        }
        let mut iss = self.keys.iss(self.now, &tuple);
        if let Some((_, above)) = old
            && iss.le(above)
        {
            iss = above + 65_537;
        }
        let now = self.tick();
        let index = self.add_half_open(listener, || HalfOpen::new(segment, listener, iss, offer, now));
        if let Some((time_wait, _)) = old {
            self.replace(&tuple, FlowRef::TimeWait(time_wait), FlowRef::HalfOpen(index));
            self.gave_way.insert(index, time_wait);
            self.note_state(&tuple, State::TimeWait, State::SynReceived);
        } else {
            self.place(&tuple, FlowRef::HalfOpen(index));
            self.note_listen(&tuple, State::SynReceived);
        }
        match give_cookie {
            None => self.queue_syn_ack(index, Due::SynAck, ReplyReason::SynAck),
            // The entry does not record that it goes with this SYN-ACK.
            Some(cookie) => {
                let reply = self.syn_ack_of(index, ReplyReason::SynAck);
                self.reply(with_cookie(reply, cookie));
                self.arm_half_open(index);
            }
        }
    }

    /// Puts an entry into the table and counts it for its listener. The caller gives it a place in the flow table.
    #[inline]
    fn add_half_open(&mut self, listener: u32, make: impl FnOnce() -> HalfOpen) -> u32 {
        self.listeners[listener].half_open += 1;
        self.half_open.insert_with(make)
    }

    /// Queues a SYN-ACK. It is built when its turn comes, and its timer starts then.
    pub(super) fn queue_syn_ack(&mut self, index: u32, due: Due, reason: ReplyReason) {
        env_of!(self).note_reply(&self.half_open[index].tuple, reason);
        let entry = &mut self.half_open[index];
        entry.timer = self.wheel.wait(entry.timer, due, index);
    }

    /// Whether a listener has no row for one more entry.
    fn half_open_full(&self, listener: u32) -> bool {
        self.listeners[listener].half_open >= self.config.tcp_max_syn_backlog as usize
            || self.half_open.len() >= self.config.tcp_max_half_open as usize
    }

    /// Whether a table counts as full. The threshold is drawn at random each time, between half of the table and all of
    /// it. With a known threshold, an attacker who fills the rest could count the entries of others (THREAT-25).
    ///
    /// The threshold is the median of three uniform draws, so the chance changes slowly everywhere. In a table of 2048,
    /// one more entry shows no sooner than after some 100,000 SYNs, however full the table is.
    fn early_full(&mut self, used: usize, size: usize) -> bool {
        let half = size / 2;
        let (over, range) = (used.saturating_sub(half), size - half);
        if over == 0 || over >= range {
            return over >= range;
        }
        let (over, range) = (over as u128, range as u128);
        // P(middle one of three <= x) = x²(3 − 2x).
        u128::from(self.keys.random()) * range.pow(3) < (over * over * (3 * range - 2 * over)) << u32::BITS
    }

    pub(super) fn syn_ack_of(&mut self, index: u32, reason: ReplyReason) -> Reply {
        let entry = &self.half_open[index];
        let options = &self.listeners[entry.listener].options;
        let adv_mss = self.advertised_mss(&entry.tuple, options.max_segment);
        let ts_offset = self.keys.recent_timestamp_offset(&entry.tuple);
        let syn = SynAck { options, adv_mss, ts_offset };
        entry.syn_ack(&syn, &env_of!(self), reason)
    }

    /// The MSS that we advertise: what the interface towards the peer takes, options not subtracted (MUST-67), unless the
    /// route says another one.
    // DRILL-L10
    pub(super) fn advertised_mss(&self, tuple: &FourTuple, limit: Option<u16>) -> u16 {
        let most = match self.routing.path(tuple).advmss {
            0 => room_in(self.interface_mtu(tuple), tuple.is_ipv4()),
            said => said,
        };
        limit.unwrap_or(u16::MAX).max(48).min(most)
    }

    fn send_cookie(&mut self, listener: u32, segment: &Segment<'_>, offer: Offer) {
        let tuple = segment.tuple;
        self.counters.syncookies_sent += 1;
        self.listeners[listener].cookies_sent_at = Some(self.now);
        let options = &self.listeners[listener].options;
        let adv_mss = self.advertised_mss(&tuple, options.max_segment);
        let iss = cookie::iss(&self.keys, self.now, &tuple, segment.seq(), offer);
        let ts_recent = segment.options().timestamps.map_or(0, |ts| ts.val);
        let ts_offset = self.keys.timestamp_offset(&tuple);
        let env = env_of!(self);
        let clock = env.timestamp_clock().wrapping_add(ts_offset);
        let ts_val = Some(cookie::timestamp(clock, offer));
        let syn = SynAck { options, adv_mss, ts_offset };
        let reason = ReplyReason::SynAckCookie;
        let mut reply = syn.reply(&tuple, iss, segment.seq(), offer, ts_recent, ts_val, &env, reason);
        if !offer.timestamps() && offer.ecn() {
            // No entry exists to remember it.
            reply.header.flags = crate::wire::tcp::Flags::SYN | crate::wire::tcp::Flags::ACK;
        }
        self.reply(reply);
    }

    /// Whether an ACK returns a valid cookie. If so, makes its connection.
    fn cookie_returns(&mut self, listener: u32, segment: &Segment<'_>) -> bool {
        let returned = cookie::check(&self.keys, self.now, segment);
        let Some(cookie) = returned.filter(|cookie| !self.spent_cookies.contains(cookie.token)) else {
            self.counters.syncookies_failed += 1;
            return false;
        };
        self.counters.syncookies_recv += 1;
        let tuple = segment.tuple;
        let numbers = (cookie.iss, cookie.irs);
        let room = self.room_for_child(listener, segment);
        let waits = !room && self.may_wait(listener) && !self.half_open_full(listener);
        if !room && !waits {
            return true;
        }
        let limit = self.config.tcp_max_spent_cookies as usize;
        let kept = self.spent_cookies.insert(cookie.token, self.now, limit);
        self.counters.syncookies_not_kept += u64::from(!kept);
        if waits {
            let now = self.tick();
            let make = || HalfOpen::of_cookie(segment, listener, numbers, cookie.offer, now);
            let index = self.add_half_open(listener, make);
            self.place(&tuple, FlowRef::HalfOpen(index));
            self.note_listen(&tuple, State::SynReceived);
            self.arm_half_open(index);
            self.wait_for_room(index);
            return true;
        }
        let agreed = self.agreed_for_child(listener, segment, cookie.offer, Origin::Passive, numbers);
        self.note_listen(&tuple, State::SynReceived);
        let index = self.adopt(listener, agreed, None);
        self.connection_segment(index, segment);
        true
    }

    /// The agreed options of a connection of a listener whose segment says all: a cookie, or Fast Open.
    fn agreed_for_child(
        &self,
        listener: u32,
        segment: &Segment<'_>,
        offer: Offer,
        origin: Origin,
        numbers: (SeqNum, SeqNum),
    ) -> Agreed {
        let options = Arc::clone(&self.listeners[listener].options);
        let ts_recent = segment.options().timestamps.filter(|_| offer.timestamps()).map(|ts| ts.val);
        self.agreed_without_entry(segment.tuple, options, offer, origin, numbers, ts_recent)
    }

    /// The agreed options where no half-open entry holds them: a cookie, Fast Open, or a forwarder's request. `numbers`:
    /// ISS and IRS.
    pub(super) fn agreed_without_entry(
        &self,
        tuple: FourTuple,
        options: Arc<SocketOptions>,
        offer: Offer,
        origin: Origin,
        numbers: (SeqNum, SeqNum),
        ts_recent: Option<u32>,
    ) -> Agreed {
        let adv_mss = self.advertised_mss(&tuple, options.max_segment);
        Agreed {
            tuple,
            origin,
            iss: numbers.0,
            irs: numbers.1,
            advertised: offer.window(options.rcvbuf, adv_mss, &self.config),
            peer_mss: offer.peer_mss,
            adv_mss,
            pmtu: self.path_mtu(&tuple),
            snd_wscale: offer.wscale(),
            sack: offer.sack(),
            ecn: offer.ecn(),
            ts_recent,
            ts_offset: self.keys.timestamp_offset(&tuple),
            syn_retransmissions: 0,
            rtt: None,
            options,
        }
    }

    /// Whether a listener may get one more connection. If not, this function handles the segment (SA-SYN_RCVD-07, -08).
    fn room_for_child(&mut self, listener: u32, segment: &Segment<'_>) -> bool {
        if self.listeners[listener].accept_queue_full() {
            self.counters.listen_overflows += 1;
            if self.config.tcp_abort_on_overflow {
                // Not charged: the sender has proven its address, and draws no second RST.
                self.reply(Reply::rst_to(segment, ReplyReason::RstOverflow));
            } else {
                self.counters.listen_drops += 1;
                self.dropped(&segment.tuple, DropReason::AcceptQueueFull);
            }
            return false;
        }
        if self.connections_full() {
            self.counters.listen_drops += 1;
            self.dropped(&segment.tuple, DropReason::NoMemory);
            return false;
        }
        true
    }

    /// Whether a third segment that finds no room makes its half-open entry wait in line.
    fn may_wait(&self, listener: u32) -> bool {
        self.listeners[listener].accept_queue_full() && !self.config.tcp_abort_on_overflow
    }

    /// Queues a half-open entry whose third segment found the accept queue full. Its timer is unchanged.
    fn wait_for_room(&mut self, index: u32) {
        let now = self.tick();
        let entry = &mut self.half_open[index];
        let (listener, iss) = (entry.listener, entry.iss);
        if !entry.begin_to_wait(now) {
            return;
        }
        let Listener { waiting, half_open: entries, .. } = &mut self.listeners[listener];
        if waiting.len() > 2 * *entries + 64 {
            let half_open = &self.half_open;
            let waits = |&(index, iss): &(u32, SeqNum)| {
                half_open.get(index).is_some_and(|entry| entry.iss == iss && entry.waits())
            };
            waiting.tidy(waits);
        }
        waiting.push_back((index, iss));
    }

    /// The accept queue has room: retransmits the SYN-ACK of the oldest waiting entry, so that its peer retransmits the
    /// third segment. The timers alone would retransmit all SYN-ACKs in step, and few of the third segments would find
    /// room.
    pub(super) fn call_waiting(&mut self, listener: u32) {
        /// Places that one call checks: many may belong to entries that are gone.
        const LOOK: usize = 256;
        for _ in 0..LOOK {
            let Some((index, iss)) = self.listeners[listener].waiting.pop_front() else { return };
            let entry = self.half_open.get_mut(index).filter(|entry| entry.iss == iss && entry.waits());
            if let Some(entry) = entry {
                entry.end_waiting();
                self.counters.tcp_syn_retrans += 1;
                self.counters.retrans_segs += 1;
                // The timer is not restarted, which would extend the life of the entry.
                let reply = self.syn_ack_of(index, ReplyReason::SynAckRetransmit);
                return self.reply(reply);
            }
        }
    }

    /// SEGMENT ARRIVES in SYN-RECEIVED of a passive open (SA-SYN_RCVD).
    pub(super) fn half_open_segment(&mut self, index: u32, segment: &Segment<'_>) {
        let listener = self.half_open[index].listener;
        if self.listeners[listener].closing {
            self.forget_half_open(index);
            return self.closed_segment(segment);
        }
        let adv_mss = self.advertised_mss(&segment.tuple, self.listeners[listener].options.max_segment);
        let replaces = self.gave_way.contains_key(&index);
        let entry = &mut self.half_open[index];
        let options = &self.listeners[listener].options;
        match entry.segment_arrives(segment, (options, adv_mss), replaces, &mut env_of!(self)) {
            HalfOpenOutcome::Dropped(reason) => self.dropped_stray(segment, reason),
            HalfOpenOutcome::Reply(reply, reason) => {
                self.dropped_stray(segment, reason);
                self.reply(reply);
            }
            HalfOpenOutcome::Reset(reason) => {
                let reply = Reply::rst_to(segment, reason).with_ip_of(options);
                self.dropped(&segment.tuple, DropReason::AckOfUnsent);
                self.reset(segment, reply);
            }
            HalfOpenOutcome::SynAgain => {
                self.counters.tcp_syn_retrans += 1;
                // The timer is not restarted, or a peer that retransmits its SYN would keep the entry for ever.
                let reply = self.syn_ack_of(index, ReplyReason::SynAckRetransmit);
                self.reply(reply);
            }
            HalfOpenOutcome::Delete(reason) => {
                if reason == DropReason::HalfOpenRst {
                    self.counters.embryonic_rsts += 1;
                }
                self.dropped(&segment.tuple, reason);
                self.forget_half_open(index);
            }
            HalfOpenOutcome::DeleteAndReset(reason) => {
                let reply = Reply::rst_to(segment, ReplyReason::RstAbort).with_ip_of(options);
                self.dropped(&segment.tuple, reason);
                self.forget_half_open(index);
                self.reset(segment, reply);
            }
            HalfOpenOutcome::Complete => self.complete(index, segment),
        }
    }

    /// Removes the entry: back to LISTEN, or to the TIME-WAIT that it replaced.
    pub(super) fn forget_half_open(&mut self, index: u32) {
        let back_to = if self.gave_way.contains_key(&index) { State::TimeWait } else { State::Listen };
        let entry = self.remove_half_open(index);
        self.counters.attempt_fails += 1;
        self.note_state(&entry.tuple, State::SynReceived, back_to);
    }

    pub(super) fn arm_half_open(&mut self, index: u32) {
        let retries = self.synack_retries(index);
        let entry = &mut self.half_open[index];
        let target = PackedRef::from(FlowRef::HalfOpen(index)).0;
        let deadline = Tick::after(self.now, entry.wait(&self.config, retries));
        entry.timer = self.wheel.rearm(entry.timer, deadline, target);
    }

    /// The time until the timer of a half-open entry fires; zero while its SYN-ACK waits for its turn.
    pub(super) fn half_open_left(&self, index: u32, now: Instant) -> Duration {
        let due = self.wheel.tick(self.half_open[index].timer);
        due.map_or(Duration::ZERO, |due| Duration::from_millis(due.since(Tick::at(now)).into()))
    }

    /// The time since the SYN of a half-open entry.
    pub(super) fn half_open_age(&self, index: u32, now: Instant) -> Duration {
        self.half_open[index].age(self.half_open_left(index, now), &self.config)
    }

    /// The limit of SYN-ACK retransmissions for an entry. It is lower when its listener's part of the table is more
    /// than half full (4987-3).
    pub(super) fn synack_retries(&mut self, index: u32) -> u8 {
        let (most, backlog) = (self.config.tcp_synack_retries, self.config.tcp_max_syn_backlog as usize);
        let used = self.listeners[self.half_open[index].listener].half_open;
        let pressed = self.early_full(used, backlog);
        self.half_open[index].retries_allowed(if pressed { most.min(2) } else { most })
    }

    /// Handles the third segment of the handshake.
    fn complete(&mut self, index: u32, segment: &Segment<'_>) {
        let entry = &self.half_open[index];
        let listener = entry.listener;
        if !self.room_for_child(listener, segment) {
            if self.may_wait(listener) {
                self.wait_for_room(index);
            } else if self.listeners[listener].accept_queue_full() {
                self.forget_half_open(index);
            }
            return;
        }
        if !self.gave_way.is_empty()
            && let Some(old) = self.gave_way.remove(&index)
        {
            self.time_waits.remove(old);
            self.counters.tw_recycled += 1;
        }
        let age = self.half_open_age(index, self.now);
        self.histograms.handshake.note_millis(age);
        let entry = self.take_half_open(index);
        let options = &self.listeners[listener].options;
        let adv_mss = self.advertised_mss(&entry.tuple, options.max_segment);
        let pmtu = self.path_mtu(&entry.tuple);
        let ts_offset = self.keys.recent_timestamp_offset(&entry.tuple);
        let agreed = entry.agreed(&SynAck { options, adv_mss, ts_offset }, pmtu, &self.config, self.tick());
        let index = self.adopt(listener, agreed, Some(FlowRef::HalfOpen(index)));
        self.last_flow = index;
        self.run_segment(index, segment, |connection, env| connection.third_segment_arrives(segment, env));
    }

    /// Adds a connection to the accept queue of a listener. `from`: its previous form.
    fn adopt(&mut self, listener: u32, agreed: Agreed, from: Option<FlowRef>) -> u32 {
        self.counters.passive_opens += 1;
        let Listener { socket: parent, local, .. } = self.listeners[listener];
        let mapped = local.is_ipv6() && agreed.tuple.is_ipv4();
        let index = self.add_connection(agreed, from);
        let id = self.sockets.queue(SocketKind::Connection(index), mapped);
        let connection = &mut self.connections[index];
        (connection.listener, connection.socket) = (Some(parent), Some(id));
        let since = self.tick();
        self.listeners[listener].accept_queue.push_back((id, since));
        self.notify(parent, Event::READABLE);
        index
    }

    /// Handles a SYN with a valid Fast Open cookie: the application gets the connection and its data before the third
    /// segment (SA-LISTEN-06, N9). Returns `false` if there are too many such connections, or no room.
    fn fast_open(
        &mut self,
        listener: u32,
        segment: &Segment<'_>,
        offer: Offer,
        cookie: Option<Cookie>,
    ) -> bool {
        let asked = match self.listeners[listener].fast_open {
            // `tcp_fastopen` serves all listeners.
            0 => u32::MAX,
            most => most,
        };
        let most = self.config.tcp_fastopen_pending.min(asked) as usize;
        if !self.listeners[listener].fast_open_pending.have_room(self.now, most) {
            self.counters.tcp_fast_open_listen_overflow += 1;
            return false;
        }
        if self.connections_full() || self.gauge().is_above_pressure() {
            return false;
        }
        let tuple = segment.tuple;
        let numbers = (self.keys.iss(self.now, &tuple), segment.seq());
        let agreed = self.agreed_for_child(listener, segment, offer, Origin::FastOpen, numbers);
        self.note_listen(&tuple, State::SynReceived);
        self.counters.tcp_fast_open_passive += 1;
        self.listeners[listener].fast_open_pending.add();
        let index = self.adopt(listener, agreed, None);
        self.with_connection(index, |connection, env| connection.open_fast(segment, cookie, env));
        true
    }
}

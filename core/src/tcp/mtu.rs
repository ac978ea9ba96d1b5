//! Path MTU discovery of a connection, by ICMP errors (RFC 1191, 8201, 5927) and by probing (RFC 4821). The route limits it.

use super::room::fixed_headers;
use super::tcb::{Connection, Env, Origin};
use crate::config::{Config, MtuProbing};
use crate::seq::SeqNum;
use crate::state::State;
use crate::time::{Deadline, Instant};
use crate::trace::{Loss, TraceKind};
use crate::tuple::FourTuple;

/// The path MTU and what supports it. Sizes are those of IP packets, in bytes.
#[derive(Clone, Debug, Hash)]
pub(crate) struct PathMtu {
    pub(crate) mtu: u16,
    /// Largest packet that was acknowledged (5927-4).
    confirmed: u16,
    /// A smaller path MTU that an ICMP error claimed and nothing confirmed yet (5927-4); 0: none.
    claimed: u16,
    /// Size of the packet in flight that would raise `confirmed`; 0: none.
    larger_size: u16,
    /// End of that packet.
    larger_end: SeqNum,
}

impl PathMtu {
    pub(crate) fn new(mtu: u16, iss: SeqNum) -> PathMtu {
        PathMtu { mtu, confirmed: 0, claimed: 0, larger_size: 0, larger_end: iss }
    }

    /// Forgets the packet in flight: after a loss its ACK may be that of a retransmission.
    pub(crate) fn forget_in_flight(&mut self) {
        self.larger_size = 0;
    }
}

/// The search for a larger path MTU. Sizes are those of IP packets, in bytes.
#[derive(Clone, Debug, Hash)]
pub(crate) struct PmtuSearch {
    /// The largest size known to get through.
    low: u16,
    /// The largest size worth probing.
    high: u16,
    /// The probe in flight: its start, its end, and its size.
    probe: Option<(SeqNum, SeqNum, u16)>,
    /// Earliest time of the next probe.
    next_at: Instant,
}

/// Whether to send a path MTU probe now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PmtuProbe {
    No,
    /// As soon as an ACK makes room in cwnd. New data waits until then.
    Soon,
    /// With this many bytes of payload.
    Now(usize),
}

impl Env<'_> {
    /// The segments of the initial window towards a peer.
    #[inline]
    pub(crate) fn initial_segments(&self, tuple: &FourTuple) -> u8 {
        match self.routing.path(tuple).initcwnd {
            0 => self.config.tcp_init_cwnd,
            segments => segments,
        }
    }
}

impl Connection {
    /// Handles a router's report that the packet in flight at `seq` exceeded `mtu` (H8a). Returns whether it is believed
    /// at once.
    pub(crate) fn packet_too_big(&mut self, seq: SeqNum, mtu: u16, env: &mut Env<'_>) -> bool {
        if mtu >= self.tcb.snd.path.mtu {
            return false;
        }
        // Packets of this size got through before. Believe the report only if the segment is lost as well (5927-4).
        if self.tcb.snd.path.confirmed > mtu {
            let first = self.tcb.snd.path.claimed == 0;
            self.tcb.snd.path.claimed = mtu;
            let last = &mut self.rare().too_big;
            *last = if first { seq } else { last.max(seq) };
            return false;
        }
        let before = u32::from(self.payload_mss());
        self.lower_pmtu(mtu, env);
        if env.config.follows_linux() {
            self.keep_segments_of(before);
        }
        if self.tcb.state == State::SynReceived {
            // The SYN-ACK is shorter than any MTU, so only early data can have been too big.
            self.early_data_is_lost();
            return true;
        }
        self.resend_all(env, Loss::PacketTooBig);
        let trial = (self.tcb.snd.una + u32::from(self.payload_mss())).min(self.tcb.snd.nxt);
        // Linux sends all of it again.
        if let Some(flight) = self.flight.as_mut().filter(|_| !env.config.follows_linux()) {
            flight.trial = Some(trial);
        }
        self.arm_retransmit(env);
        true
    }

    /// Lowers the path MTU for `mtu_expires` (1191-2).
    fn lower_pmtu(&mut self, mtu: u16, env: &mut Env<'_>) {
        self.set_pmtu(mtu, env);
        let snd = &mut self.tcb.snd;
        snd.path.confirmed = snd.path.confirmed.min(mtu);
        self.rare().pmtu_until = Some(Deadline::after(env.now, env.config.mtu_expires));
    }

    /// Sets the path MTU to that of a new route or its interface. Segments in flight may have left before.
    #[cold]
    pub(crate) fn fit_interface(&mut self, mtu: u16, env: &mut Env<'_>) {
        self.lower_pmtu(mtu, env);
    }

    /// Restores the interface's MTU after the lowered path MTU expires (RFC 1191 §6.3). A router reports if that is
    /// still too big.
    #[inline]
    pub(crate) fn raise_expired_pmtu(&mut self, env: &mut Env<'_>) {
        let Some(rare) = self.rare.as_mut() else { return };
        if rare.pmtu_until.take_if(|until| until.tick().is_due(env.tick())).is_some() {
            let mtu = env.interface_mtu(&self.tcb.tuple);
            self.set_pmtu(mtu, env);
        }
    }

    fn set_pmtu(&mut self, mtu: u16, env: &mut Env<'_>) {
        self.tcb.snd.path.mtu = mtu;
        self.tcb.snd.path.claimed = 0;
        self.update_mss(env.config);
        let tuple = self.tcb.tuple;
        env.note(&tuple, TraceKind::PathMtu(mtu));
    }

    #[inline]
    fn searches_pmtu(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.pmtu_search.is_some())
    }

    fn pmtu_search_mut(&mut self) -> Option<&mut PmtuSearch> {
        self.rare.as_mut()?.pmtu_search.as_mut()
    }

    /// Looks for a black hole when the retransmission timer fires for the `retransmits`-th time in a row.
    pub(crate) fn suspect_black_hole(&mut self, retransmits: u8, env: &mut Env<'_>) {
        if let Some(search) = self.pmtu_search_mut() {
            search.probe = None;
        }
        if self.tcb.snd.path.claimed != 0 {
            let mtu = self.tcb.snd.path.claimed;
            self.lower_pmtu(mtu, env);
            return;
        }
        let (config, headers) = (env.config, self.usual_headers());
        let pmtu = self.tcb.snd.path.mtu;
        let full_sized = self.flight() > u32::from(self.payload_mss()) / 2;
        // A full stop is R1 (RFC 4821 §7.7): earlier losses may be congestion. With a closed window, a timeout shows
        // nothing.
        let full_stop = retransmits >= config.tcp_retries1 && self.tcb.snd.wnd > 0;
        if config.tcp_mtu_probing == MtuProbing::Never || !full_stop || !full_sized {
            return;
        }
        // Go down to the base, then halve (4821-2).
        let floor = if self.tcb.tuple.is_ipv4() { config.min_pmtu.max(68) } else { 1280 };
        let base = config.tcp_base_mss.saturating_add(headers).max(floor);
        let target = if pmtu > base { base } else { (pmtu / 2).max(floor) };
        if target >= pmtu {
            return;
        }
        env.counters.mtu_black_holes += 1;
        self.set_pmtu(target, env);
        let next_at = env.now + config.tcp_probe_interval;
        self.rare().pmtu_search = Some(PmtuSearch { low: target, high: pmtu - 1, probe: None, next_at });
    }

    /// Decides whether to send a path MTU probe (4821-1, 8899-2, RFC 4821 §7.4). In bytes, `unsent` is the data
    /// waiting, `window` the peer's window, and `room` the limit of congestion control.
    #[inline]
    pub(crate) fn next_mtu_probe(
        &mut self,
        unsent: usize,
        window: u32,
        room: u32,
        env: &Env<'_>,
    ) -> PmtuProbe {
        let off = !self.searches_pmtu() && env.config.tcp_mtu_probing != MtuProbing::Always;
        match () {
            _ if off => PmtuProbe::No,
            _ if env.config.follows_linux() => self.next_step_as_linux(unsent, window, env),
            _ => self.next_step_of_search(unsent, window, room, env),
        }
    }

    /// Linux searches from the base to the peer's MSS, where it probes without a black hole. Only an active open begins with
    /// segments of the base.
    // DRILL-X28
    pub(super) fn begin_search_as_linux(&mut self, config: &Config) {
        let (mtu, headers) = (self.tcb.snd.path.mtu, self.headers());
        let most = self.tcb.snd.peer_mss.saturating_add(fixed_headers(self.tcb.tuple.is_ipv4()));
        let (low, before) = (config.tcp_base_mss.saturating_add(headers), u32::from(self.payload_mss()));
        if self.tcb.origin == Origin::Active {
            self.tcb.snd.path.mtu = mtu.min(low);
            self.update_mss(config);
            self.keep_segments_of(before);
        }
        let search = PmtuSearch { low, high: most.min(mtu), probe: None, next_at: Instant::ZERO };
        self.rare().pmtu_search = Some(search);
    }

    /// Linux counts the congestion window in segments, whatever their size: `before` was their payload.
    fn keep_segments_of(&mut self, before: u32) {
        let segments = self.congestion.cwnd() / before;
        self.congestion.set_cwnd(segments * u32::from(self.payload_mss()));
    }

    /// Linux probes midway, once the window has eleven segments and five more wait. The probe takes two of the window.
    // DRILL-X28
    fn next_step_as_linux(&mut self, unsent: usize, window: u32, env: &Env<'_>) -> PmtuProbe {
        /// Linux probes with no smaller window.
        const LEAST_WINDOW: u32 = 11;
        let (mss, headers) = (u32::from(self.payload_mss()), self.headers());
        let (start, wnd, cwnd) = (self.tcb.snd.nxt, self.tcb.snd.wnd, self.congestion.cwnd());
        let out = self.segments_out().unwrap_or(self.flight().div_ceil(mss));
        let written = self.quanta().is_some_and(|quanta| quanta.is_being_written());
        let ready = self.is_calm() && !self.has_sack_blocks() && !written && cwnd / mss >= LEAST_WINDOW;
        let behind = mss * (u32::from(env.config.tcp_reordering) + 1);
        let Some(search) = self.pmtu_search_mut().filter(|search| ready && search.probe.is_none()) else {
            return PmtuProbe::No;
        };
        if search.high < search.low.saturating_add(env.config.tcp_probe_threshold) {
            return PmtuProbe::No;
        }
        let size = search.low + (search.high - search.low) / 2;
        let payload = u32::from(size - headers);
        let needed = payload + behind;
        if (unsent as u64) < u64::from(needed) || wnd < needed {
            return PmtuProbe::No;
        }
        if window < needed || out + 2 > cwnd / mss {
            return if out > 0 { PmtuProbe::Soon } else { PmtuProbe::No };
        }
        search.probe = Some((start, start + payload, size));
        self.congestion.set_cwnd(cwnd - mss);
        if let Some(quanta) = self.quanta_if_any() {
            quanta.take_for_probe(start, start + payload);
        }
        PmtuProbe::Now(payload as usize)
    }

    fn next_step_of_search(&mut self, unsent: usize, window: u32, room: u32, env: &Env<'_>) -> PmtuProbe {
        let interface_mtu = env.interface_mtu(&self.tcb.tuple);
        if !self.searches_pmtu() && env.config.tcp_mtu_probing == MtuProbing::Always {
            let next_at = env.now;
            let (low, high) = (self.tcb.snd.path.mtu, interface_mtu);
            self.rare().pmtu_search = Some(PmtuSearch { low, high, probe: None, next_at });
        }
        let headers = self.headers();
        let payload_mss = self.payload_mss();
        let (recovering, flight) = (!self.is_calm(), self.flight());
        let (start, cwnd) = (self.tcb.snd.nxt, self.congestion.cwnd());
        // The peer's MSS excludes the headers but includes the options (MUST-16).
        let peer_mss = self.tcb.snd.peer_mss.min(self.options.max_segment.unwrap_or(u16::MAX));
        let limit = peer_mss.saturating_add(fixed_headers(self.tcb.tuple.is_ipv4()));
        let Some(search) = self.pmtu_search_mut() else { return PmtuProbe::No };
        if search.probe.is_some() || recovering || env.now < search.next_at {
            return PmtuProbe::No;
        }
        let high = search.high.min(interface_mtu).min(limit);
        if high < search.low || high - search.low < env.config.tcp_probe_threshold {
            // The search is complete. Search again after an interval, when the path may have changed.
            search.high = interface_mtu;
            search.next_at = env.now + env.config.tcp_probe_interval;
            return PmtuProbe::No;
        }
        let size = search.low + (high - search.low).div_ceil(2);
        let payload = u32::from(size - headers);
        // Enough data must follow the probe for duplicate ACKs to reveal its loss.
        let needed = payload + u32::from(payload_mss) * 4;
        if (unsent as u64) < u64::from(needed) || window < needed || cwnd < needed {
            return PmtuProbe::No;
        }
        if room < payload {
            return if flight > 0 { PmtuProbe::Soon } else { PmtuProbe::No };
        }
        search.probe = Some((start, start + payload, size));
        PmtuProbe::Now(payload as usize)
    }

    /// Learns from an ACK up to `ack` which sizes get through.
    pub(crate) fn confirm_path(&mut self, ack: SeqNum, env: &mut Env<'_>) {
        if self.searches_pmtu() {
            self.confirm_probe(ack, env);
        }
        let snd = &mut self.tcb.snd;
        // The ACK of an earlier segment says nothing about the one that was too big.
        if snd.path.claimed != 0 && self.rare.as_ref().is_none_or(|rare| ack.gt(rare.too_big)) {
            snd.path.claimed = 0;
        }
        if snd.path.larger_size > 0 && ack.ge(snd.path.larger_end) {
            snd.path.confirmed = snd.path.confirmed.max(snd.path.larger_size);
            snd.path.larger_size = 0;
        }
    }

    /// Learns from an ACK up to `ack` whether a probe got through.
    #[cold]
    fn confirm_probe(&mut self, ack: SeqNum, env: &mut Env<'_>) {
        let (srtt, before) = (self.tcb.rtt.srtt(), (self.tcb.snd.path.mtu, u32::from(self.payload_mss())));
        let probed = self.pmtu_search_mut().and_then(|search| {
            let (_, _, size) = search.probe.take_if(|(_, end, _)| ack.ge(*end))?;
            search.low = size;
            // Probes are at least one round trip apart (8899-2).
            search.next_at = env.now + srtt;
            Some(size)
        });
        if let Some(size) = probed {
            env.counters.tcp_mtup_success += 1;
            self.set_pmtu(size, env);
            if env.config.follows_linux() {
                self.fit_window_to(before, size);
            }
        }
    }

    /// Linux keeps the bytes of the window when its segments become larger: from those of an MTU and MSS to those of
    /// another MTU.
    // DRILL-X28
    fn fit_window_to(&mut self, (mtu, mss): (u16, u32), larger: u16) {
        let segments = self.congestion.cwnd() / mss * u32::from(mtu) / u32::from(larger);
        self.congestion.set_cwnd(segments.max(1) * u32::from(self.payload_mss()));
    }

    /// Records the first transmission of a segment of `payload` bytes that ends at `end`. Its ACK will show that
    /// packets of its size get through.
    pub(crate) fn note_packet_size(&mut self, end: SeqNum, payload: usize) {
        let size = (payload.min(usize::from(self.tcb.snd.mss)) as u16).saturating_add(self.headers());
        let snd = &mut self.tcb.snd;
        if snd.path.larger_size == 0 && size > snd.path.confirmed {
            (snd.path.larger_size, snd.path.larger_end) = (size.min(snd.path.mtu), end);
        }
    }

    /// Returns whether the lost segment at `seq` was a probe, and if so continues the search below its size after a
    /// wait. Losses hidden from congestion control must be rarer than the others (RFC 4821 §7.6.2), and rarer still
    /// after a timeout (§7.6.3).
    pub(crate) fn pmtu_probe_lost(&mut self, seq: SeqNum, timeout: bool, env: &mut Env<'_>) -> bool {
        let srtt = self.tcb.rtt.srtt();
        let packets = self.congestion.cwnd() / u32::from(self.payload_mss());
        let Some(search) = self.pmtu_search_mut() else { return false };
        let Some((_, _, size)) = search.probe.take_if(|(start, ..)| *start == seq) else { return false };
        search.high = size - 1;
        let wait = srtt.saturating_mul(packets.max(1) * if timeout { 5 } else { 1 });
        search.next_at = env.now + wait.min(env.config.tcp_probe_interval);
        if env.config.follows_linux() {
            self.congestion.set_cwnd(self.congestion.cwnd() + u32::from(self.payload_mss()));
        }
        env.counters.tcp_mtup_fail += 1;
        true
    }
}

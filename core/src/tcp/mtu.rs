//! Path MTU discovery of a connection, by ICMP errors (RFC 1191, 8201, 5927) and by probing (RFC 4821).

use super::room::fixed_headers;
use super::tcb::{Connection, Env};
use crate::seq::SeqNum;
use crate::time::{Deadline, Instant};
use crate::trace::{Loss, State, TraceKind};

/// The search for a larger path MTU. Sizes are those of IP packets, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Probing {
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
pub(crate) enum Probe {
    No,
    /// As soon as an ACK makes room in cwnd. New data waits until then.
    Soon,
    /// With this many bytes of payload.
    Now(usize),
}

impl Connection {
    /// Handles a router's report that a packet in flight exceeded `mtu` (H8a). Returns whether it is believed at
    /// once.
    pub(crate) fn packet_too_big(&mut self, mtu: u16, env: &mut Env<'_>) -> bool {
        if mtu >= self.tcb.snd.pmtu {
            return false;
        }
        // Packets of this size got through before. Believe the report only if the segment is lost as well (5927-4).
        if self.tcb.snd.pmtu_confirmed > mtu {
            self.tcb.snd.pmtu_claimed = mtu;
            return false;
        }
        self.lower_pmtu(mtu, env);
        if self.tcb.state == State::SynReceived {
            // The SYN-ACK is shorter than any MTU, so only early data can have been too big.
            self.early_data_is_lost();
            return true;
        }
        self.resend_all(env, Loss::PacketTooBig);
        let trial = (self.tcb.snd.una + u32::from(self.payload_mss())).min(self.tcb.snd.nxt);
        if let Some(recovery) = self.recovery.as_mut() {
            recovery.trial = Some(trial);
        }
        self.arm_retransmit(env);
        true
    }

    /// Lowers the path MTU for `mtu_expires` (1191-2).
    fn lower_pmtu(&mut self, mtu: u16, env: &mut Env<'_>) {
        self.set_pmtu(mtu, env);
        let snd = &mut self.tcb.snd;
        snd.pmtu_confirmed = snd.pmtu_confirmed.min(mtu);
        self.pmtu_until = Some(Deadline::after(env.now, env.config.mtu_expires));
    }

    /// Restores the interface's MTU after the lowered path MTU expires (RFC 1191 §6.3). A router reports if that is
    /// still too big.
    #[inline]
    pub(crate) fn raise_expired_pmtu(&mut self, env: &mut Env<'_>) {
        if self.pmtu_until.is_some_and(|until| until.tick().is_due(env.tick())) {
            self.pmtu_until = None;
            self.set_pmtu(env.interface_mtu, env);
        }
    }

    fn set_pmtu(&mut self, mtu: u16, env: &mut Env<'_>) {
        self.tcb.snd.pmtu = mtu;
        self.tcb.snd.pmtu_claimed = 0;
        self.update_mss(env.config);
        let tuple = self.tcb.tuple;
        env.note(&tuple, TraceKind::PathMtu(mtu));
    }

    /// Looks for a black hole when the retransmission timer fires for the `retransmits`-th time in a row.
    pub(crate) fn suspect_black_hole(&mut self, retransmits: u8, env: &mut Env<'_>) {
        if let Some(probing) = self.probing.as_mut() {
            probing.probe = None;
        }
        if self.tcb.snd.pmtu_claimed != 0 {
            let mtu = self.tcb.snd.pmtu_claimed;
            self.lower_pmtu(mtu, env);
            return;
        }
        let (config, headers) = (env.config, self.usual_headers());
        let pmtu = self.tcb.snd.pmtu;
        let full_sized = self.flight() > u32::from(self.payload_mss()) / 2;
        // A full stop is R1 (RFC 4821 §7.7): earlier losses may be congestion. With a closed window, a timeout shows
        // nothing.
        let full_stop = retransmits >= config.tcp_retries1 && self.tcb.snd.wnd > 0;
        if config.tcp_mtu_probing == 0 || !full_stop || !full_sized {
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
        self.probing = Some(Box::new(Probing { low: target, high: pmtu - 1, probe: None, next_at }));
    }

    /// Decides whether to send a path MTU probe (4821-1, 8899-2, RFC 4821 §7.4). In bytes, `unsent` is the data
    /// waiting, `window` the peer's window, and `room` the limit of congestion control.
    #[inline]
    pub(crate) fn next_mtu_probe(&mut self, unsent: usize, window: u32, room: u32, env: &Env<'_>) -> Probe {
        let off = self.probing.is_none() && env.config.tcp_mtu_probing != 2;
        if off { Probe::No } else { self.next_step_of_search(unsent, window, room, env) }
    }

    fn next_step_of_search(&mut self, unsent: usize, window: u32, room: u32, env: &Env<'_>) -> Probe {
        if self.probing.is_none() && env.config.tcp_mtu_probing == 2 {
            let next_at = env.now;
            let (low, high) = (self.tcb.snd.pmtu, env.interface_mtu);
            self.probing = Some(Box::new(Probing { low, high, probe: None, next_at }));
        }
        let headers = self.headers();
        let payload_mss = self.payload_mss();
        let (recovering, flight) = (self.recovery.is_some(), self.flight());
        let cwnd = self.congestion.cwnd();
        // The peer's MSS excludes the headers but includes the options (MUST-16).
        let peer_mss = self.tcb.snd.peer_mss.min(self.options.max_segment.unwrap_or(u16::MAX));
        let limit = peer_mss.saturating_add(fixed_headers(self.tcb.tuple.is_ipv4()));
        let Some(probing) = self.probing.as_mut() else { return Probe::No };
        if probing.probe.is_some() || recovering || env.now < probing.next_at {
            return Probe::No;
        }
        let high = probing.high.min(env.interface_mtu).min(limit);
        if high < probing.low || high - probing.low < env.config.tcp_probe_threshold {
            // The search is complete. Search again after an interval, when the path may have changed.
            probing.high = env.interface_mtu;
            probing.next_at = env.now + env.config.tcp_probe_interval;
            return Probe::No;
        }
        let size = probing.low + (high - probing.low).div_ceil(2);
        let payload = u32::from(size - headers);
        // Enough data must follow the probe for duplicate ACKs to reveal its loss.
        let needed = payload + u32::from(payload_mss) * 4;
        if (unsent as u64) < u64::from(needed) || window < needed || cwnd < needed {
            return Probe::No;
        }
        if room < payload {
            return if flight > 0 { Probe::Soon } else { Probe::No };
        }
        let start = self.tcb.snd.nxt;
        probing.probe = Some((start, start + payload, size));
        Probe::Now(payload as usize)
    }

    /// Learns from an ACK up to `ack` which sizes get through.
    pub(crate) fn confirm_path(&mut self, ack: SeqNum, env: &mut Env<'_>) {
        let srtt = self.tcb.rtt.srtt();
        let probed = self.probing.as_mut().and_then(|probing| {
            let (_, _, size) = probing.probe.take_if(|(_, end, _)| ack.ge(*end))?;
            probing.low = size;
            // Probes are at least one round trip apart (8899-2).
            probing.next_at = env.now + srtt;
            Some(size)
        });
        if let Some(size) = probed {
            env.counters.tcp_mtup_success += 1;
            self.set_pmtu(size, env);
        }
        let snd = &mut self.tcb.snd;
        snd.pmtu_claimed = 0;
        if snd.larger_size > 0 && ack.ge(snd.larger_end) {
            snd.pmtu_confirmed = snd.pmtu_confirmed.max(snd.larger_size);
            snd.larger_size = 0;
        }
    }

    /// Records the first transmission of a segment of `payload` bytes that ends at `end`. Its ACK will show that
    /// packets of its size get through.
    pub(crate) fn note_packet_size(&mut self, end: SeqNum, payload: usize) {
        let size = (payload.min(usize::from(self.tcb.snd.mss)) as u16).saturating_add(self.headers());
        let snd = &mut self.tcb.snd;
        if snd.larger_size == 0 && size > snd.pmtu_confirmed {
            (snd.larger_size, snd.larger_end) = (size.min(snd.pmtu), end);
        }
    }

    /// Returns whether the lost segment at `seq` was a probe, and if so continues the search below its size after a
    /// wait. Losses hidden from congestion control must be rarer than the others (RFC 4821 §7.6.2), and rarer still
    /// after a timeout (§7.6.3).
    pub(crate) fn probe_lost(&mut self, seq: SeqNum, timeout: bool, env: &mut Env<'_>) -> bool {
        let srtt = self.tcb.rtt.srtt();
        let packets = self.congestion.cwnd() / u32::from(self.payload_mss());
        let Some(probing) = self.probing.as_mut() else { return false };
        let Some((_, _, size)) = probing.probe.take_if(|(start, ..)| *start == seq) else { return false };
        probing.high = size - 1;
        let wait = srtt.saturating_mul(packets.max(1) * if timeout { 5 } else { 1 });
        probing.next_at = env.now + wait.min(env.config.tcp_probe_interval);
        env.counters.tcp_mtup_fail += 1;
        true
    }
}

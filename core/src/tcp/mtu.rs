//! The path MTU of a connection: what ICMP errors claim (RFC 1191, 8201, 5927) and what probing finds out without
//! them (RFC 4821).

use super::room::fixed_headers;
use super::tcb::{Connection, Env};
use crate::seq::SeqNum;
use crate::time::{Deadline, Instant};
use crate::trace::{Loss, State, TraceKind};

/// The search for a larger path MTU. Sizes are IP packets.
#[derive(Clone, Debug)]
pub(crate) struct Probing {
    /// The largest size known to get through.
    low: u16,
    /// The largest size that is worth a try.
    high: u16,
    /// The probe in flight: where it begins and ends, and its size.
    probe: Option<(SeqNum, SeqNum, u16)>,
    /// No probe before this.
    next_at: Instant,
}

/// Whether a path MTU probe goes out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    No,
    /// When an ACK has made room in the window of congestion control: new data waits for that.
    Soon,
    /// With so much payload.
    Now(usize),
}

impl Connection {
    /// A router says that a packet in flight was too big for `mtu` (H8a). Gives whether it is believed at once.
    pub(crate) fn packet_too_big(&mut self, mtu: u16, env: &mut Env<'_>) -> bool {
        if mtu >= self.tcb.snd.pmtu {
            return false;
        }
        // What got through before does not suddenly become too big: that is believed when the segment turns out
        // to be lost as well (5927-4).
        if self.tcb.snd.pmtu_confirmed > mtu {
            self.tcb.snd.pmtu_claimed = mtu;
            return false;
        }
        self.lower_pmtu(mtu, env);
        if self.tcb.state == State::SynReceived {
            // The SYN-ACK is shorter than any MTU: what was too big, if anything was, came after it.
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

    /// Believes a report, for as long as reports are believed (1191-2).
    fn lower_pmtu(&mut self, mtu: u16, env: &mut Env<'_>) {
        self.set_pmtu(mtu, env);
        let snd = &mut self.tcb.snd;
        snd.pmtu_confirmed = snd.pmtu_confirmed.min(mtu);
        self.pmtu_until = Some(Deadline::after(env.now, env.config.mtu_expires));
    }

    /// The path may carry more again after a while: RFC 1191 §6.3 goes back to the interface's MTU, and a router tells
    /// if that is still too much.
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

    /// The retransmission timer fired for the `retransmits`-th time in a row.
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
        // A full stop is R1 (RFC 4821 §7.7): what is lost before may be congestion. A closed window tells nothing.
        let full_stop = retransmits >= config.tcp_retries1 && self.tcb.snd.wnd > 0;
        if config.tcp_mtu_probing == 0 || !full_stop || !full_sized {
            return;
        }
        // Down to the base, then by halves (4821-2).
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

    /// Whether a path MTU probe should go out (4821-1, 8899-2, RFC 4821 §7.4). `unsent` bytes wait, `window` bytes the
    /// peer takes, `room` congestion control lets out.
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
        // The peer's MSS leaves out the headers, but not the options (MUST-16).
        let peer_mss = self.tcb.snd.peer_mss.min(self.options.max_segment.unwrap_or(u16::MAX));
        let limit = peer_mss.saturating_add(fixed_headers(self.tcb.tuple.is_ipv4()));
        let Some(probing) = self.probing.as_mut() else { return Probe::No };
        if probing.probe.is_some() || recovering || env.now < probing.next_at {
            return Probe::No;
        }
        let high = probing.high.min(env.interface_mtu).min(limit);
        if high < probing.low || high - probing.low < env.config.tcp_probe_threshold {
            // Found: look again when the path may have changed.
            probing.high = env.interface_mtu;
            probing.next_at = env.now + env.config.tcp_probe_interval;
            return Probe::No;
        }
        let size = probing.low + (high - probing.low).div_ceil(2);
        let payload = u32::from(size - headers);
        // What follows must be able to show the probe's loss by duplicate ACKs.
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

    /// An ACK up to `ack` says what sizes get through.
    pub(crate) fn confirm_path(&mut self, ack: SeqNum, env: &mut Env<'_>) {
        let srtt = self.tcb.rtt.srtt();
        let probed = self.probing.as_mut().and_then(|probing| {
            let (_, _, size) = probing.probe.take_if(|(_, end, _)| ack.ge(*end))?;
            probing.low = size;
            // At least a round trip apart (8899-2).
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

    /// A segment of `payload` bytes that ends at `end` leaves for the first time: its acknowledgement will show
    /// that packets of its size get through.
    pub(crate) fn note_packet_size(&mut self, end: SeqNum, payload: usize) {
        let size = (payload.min(usize::from(self.tcb.snd.mss)) as u16).saturating_add(self.headers());
        let snd = &mut self.tcb.snd;
        if snd.larger_size == 0 && size > snd.pmtu_confirmed {
            (snd.larger_size, snd.larger_end) = (size.min(snd.pmtu), end);
        }
    }

    /// Whether the segment at `seq`, now lost, was a probe; then the search goes on below it. Not at once: losses that
    /// congestion control does not hear of must be rarer than those that it does (RFC 4821 §7.6.2), and where a timeout
    /// told, still rarer (§7.6.3).
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

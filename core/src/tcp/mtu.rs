//! The path MTU of a connection: what ICMP errors claim (RFC 1191, 8201, 5927) and what probing finds out without
//! them (RFC 4821).

use super::tcb::{Connection, Env};
use crate::seq::SeqNum;
use crate::time::Deadline;
use crate::trace::{Loss, TraceKind};

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
    next_at: Deadline,
}

impl Connection {
    fn headers(&self) -> u16 {
        let ip = if self.tcb.tuple.is_ipv4() { 20 } else { 40 };
        ip + 20 + if self.tcb.ts.on { 12 } else { 0 }
    }

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
        self.set_pmtu(mtu, env);
        self.resend_all(env, Loss::PacketTooBig);
        self.arm_retransmit(env);
        true
    }

    pub(crate) fn set_pmtu(&mut self, mtu: u16, env: &mut Env<'_>) {
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
            self.set_pmtu(mtu, env);
            return;
        }
        let (config, headers) = (env.config, self.headers());
        let pmtu = self.tcb.snd.pmtu;
        let full_sized = self.flight() > u32::from(self.payload_mss()) / 2;
        if config.tcp_mtu_probing == 0 || retransmits < 2 || !full_sized {
            return;
        }
        // Down to the base, then by halves (4821-2).
        let floor = if self.tcb.tuple.is_ipv4() { config.min_pmtu.max(68) } else { 1280 };
        let base = (config.tcp_base_mss + headers).max(floor);
        let target = if pmtu > base { base } else { (pmtu / 2).max(floor) };
        if target >= pmtu {
            return;
        }
        env.counters.mtu_black_holes += 1;
        self.set_pmtu(target, env);
        let next_at = Deadline::after(env.now, config.tcp_probe_interval);
        self.probing = Some(Box::new(Probing { low: target, high: pmtu - 1, probe: None, next_at }));
    }

    /// The payload of a path MTU probe, if one should go out now (4821-1, 8899-2). `unsent` bytes wait, `room`
    /// may go out.
    pub(crate) fn probe_payload(&mut self, unsent: usize, room: u32, env: &Env<'_>) -> Option<usize> {
        if self.probing.is_none() && env.config.tcp_mtu_probing == 2 {
            let next_at = Deadline::at(env.tick());
            let (low, high) = (self.tcb.snd.pmtu, env.interface_mtu);
            self.probing = Some(Box::new(Probing { low, high, probe: None, next_at }));
        }
        let headers = self.headers();
        let payload_mss = self.payload_mss();
        let recovering = self.recovery.is_some();
        let limit = self.tcb.snd.peer_mss.saturating_sub(headers - 20).saturating_add(headers);
        let probing = self.probing.as_mut()?;
        if probing.probe.is_some() || recovering || !probing.next_at.tick().is_due(env.tick()) {
            return None;
        }
        let high = probing.high.min(env.interface_mtu).min(limit);
        if high < probing.low + env.config.tcp_probe_threshold {
            // Found: look again when the path may have changed.
            probing.high = env.interface_mtu;
            probing.next_at = Deadline::after(env.now, env.config.tcp_probe_interval);
            return None;
        }
        let size = probing.low + (high - probing.low).div_ceil(2);
        let payload = usize::from(size - headers);
        // What follows must be able to show the probe's loss by duplicate ACKs.
        let behind = usize::from(payload_mss) * 4;
        (unsent >= payload + behind && room as usize >= payload + behind).then(|| {
            let start = self.tcb.snd.nxt;
            probing.probe = Some((start, start + payload as u32, size));
            payload
        })
    }

    /// An ACK up to `ack` says what sizes get through.
    pub(crate) fn confirm_path(&mut self, ack: SeqNum, env: &mut Env<'_>) {
        let srtt = self.tcb.rtt.srtt();
        let probed = self.probing.as_mut().and_then(|probing| {
            let (_, _, size) = probing.probe.take_if(|(_, end, _)| ack.ge(*end))?;
            probing.low = size;
            // At least a round trip apart (8899-2).
            probing.next_at = Deadline::after(env.now, srtt);
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

    /// Whether the segment at `seq`, now lost, was a probe; then the search goes on below it.
    pub(crate) fn probe_lost(&mut self, seq: SeqNum, env: &mut Env<'_>) -> bool {
        let srtt = self.tcb.rtt.srtt();
        let Some(probing) = self.probing.as_mut() else { return false };
        let Some((_, _, size)) = probing.probe.take_if(|(start, ..)| *start == seq) else { return false };
        probing.high = size - 1;
        probing.next_at = Deadline::after(env.now, srtt * 4);
        env.counters.tcp_mtup_fail += 1;
        true
    }
}

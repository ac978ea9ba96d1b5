//! The state of a connection as `tcp_info` shows it.

use super::tcb::{Connection, Origin};
use crate::config::Config;
use crate::info::{Info, SocketTimer};
use crate::state::{CaState, State};
use crate::time::{Deadline, Duration, Instant, Tick};
use crate::trace::TimerKind;

impl Connection {
    /// Bytes that were retransmitted and are in the network, and those that were taken for lost and are not acknowledged.
    // DRILL-X18
    fn retransmitted_and_lost(&self) -> (u32, u32) {
        let Some(flight) = &self.flight else { return (0, 0) };
        let (una, again) = (self.tcb.snd.una, flight.retransmitted(self.tcb.snd.una));
        // Nothing says that the data of a loss probe is lost.
        let repaired = again.saturating_sub(flight.probe.copied(una));
        (repaired, flight.lost() + repaired)
    }

    /// `tcpi_delivered`: the SYN counts once it is acknowledged, with its data.
    // DRILL-X18
    fn delivered_segments(&self) -> u64 {
        let synchronized = u64::from(self.tcb.state != State::SynReceived);
        let mss = u32::from(self.payload_mss());
        let acked = self.quanta().map_or(0, |quanta| quanta.delivered());
        // Linux counts duplicates of which the peer tells.
        let duplicates = self.rare.as_ref().map_or(0, |rare| rare.dsacks);
        synchronized + acked + u64::from(self.sacked_bytes().div_ceil(mss)) + u64::from(duplicates)
    }

    /// `tcpi_rcv_mss`: Linux begins with an estimate.
    fn received_mss(&self, config: &Config) -> u16 {
        /// Linux's `TCP_MIN_MSS` and `TCP_MSS_DEFAULT`.
        const GUESS: std::ops::RangeInclusive<u16> = 88..=536;
        let tcb = &self.tcb;
        let guess = tcb.rcv.adv_mss.min(tcb.snd.mss).clamp(*GUESS.start(), *GUESS.end());
        let least = if !config.follows_linux() { 0 } else { guess };
        tcb.rcv.mss.max(least)
    }

    /// The timer that fires next.
    pub(crate) fn next_timer(&self, now: Instant) -> Option<SocketTimer> {
        let timers = &self.tcb.timers;
        let (retries, probes) = (timers.retransmits.into(), timers.unanswered_probes.into());
        let orphan = self.is_orphan() && self.tcb.state == State::FinWait2;
        let last = if orphan { TimerKind::FinWait2 } else { TimerKind::Keepalive };
        let all = [
            (timers.retransmit, TimerKind::Retransmit, retries),
            (timers.persist, TimerKind::Persist, probes),
            (timers.delayed_ack, TimerKind::DelayedAck, 0),
            (timers.keepalive_or_fin_wait_2, last, probes),
        ];
        let timer = |(deadline, kind, retries): (Option<Deadline>, TimerKind, u32)| {
            Some(SocketTimer::new(kind, deadline?.left(now), retries))
        };
        all.into_iter().filter_map(timer).min_by_key(|timer| timer.left)
    }

    /// Returns the fields of `tcp_info`.
    pub(crate) fn info(&self, now: Instant, config: &Config) -> Info {
        let tcb = &self.tcb;
        let since = |tick: Tick| Duration::from_millis(Tick::at(now).elapsed(tick).into());
        let left = |deadline: Option<Deadline>| deadline.map(|deadline| deadline.left(now));
        let (una, nxt) = (tcb.snd.una, tcb.snd.nxt);
        let (retrans, lost) = self.retransmitted_and_lost();
        // Linux counts the SYN of a connect.
        let syn = config.follows_linux() && tcb.origin == Origin::Active && tcb.state != State::SynReceived;
        let (delivery_rate, delivery_rate_app_limited) = self.congestion.delivery_rate();
        let limited = self.quanta().map(|quanta| quanta.limits.times(Tick::at(now))).unwrap_or_default();
        Info {
            state: tcb.state,
            local: tcb.tuple.local(),
            remote: tcb.tuple.remote(),
            state_age: tcb.state_since.age(now),
            ca_state: match self.ca_state() {
                CaState::Open if config.follows_linux() && self.sacked_bytes() > 0 => CaState::Disorder,
                state => state,
            },
            retransmits: u32::from(tcb.timers.retransmits),
            probes: u32::from(tcb.timers.unanswered_probes),
            backoff: u32::from(match tcb.state {
                State::SynReceived => tcb.timers.retransmits,
                _ => tcb.rtt.backoff.saturating_add(tcb.timers.window_probes),
            }),
            timestamps: tcb.snd.timestamps,
            sack: tcb.snd.sack,
            ecn: tcb.ecn.on,
            syn_data: self.rare.as_ref().is_some_and(|rare| rare.syn_data),
            snd_wscale: tcb.snd.wscale_on.then_some(tcb.snd.wscale),
            rcv_wscale: tcb.snd.wscale_on.then_some(tcb.rcv.wscale),
            rto: tcb.rtt.rto(config),
            rtt: tcb.rtt.srtt(),
            rttvar: tcb.rtt.var(),
            min_rtt: self.min_rtt.get(),
            snd_mss: self.payload_mss(),
            rcv_mss: self.received_mss(config),
            advmss: tcb.rcv.adv_mss,
            pmtu: tcb.snd.path.mtu,
            snd_cwnd: self.congestion.cwnd(),
            snd_ssthresh: self.congestion.ssthresh(),
            in_flight: self.in_network(),
            unacked: nxt.since(una),
            sacked: self.sacked_bytes(),
            lost,
            retrans,
            segs_unacked: self.segments_out().unwrap_or(nxt.since(una).div_ceil(self.payload_mss().into())),
            delivered: self.delivered_segments(),
            reordering: u32::from(self.reordering().distance).max(config.tcp_reordering.into()),
            reord_seen: self.reordering().times.into(),
            wmem_queued: self.quanta().map_or(self.send_queue.len(), |q| q.memory(self.send_queue.len()))
                as u64,
            snd_wnd: tcb.snd.wnd,
            rcv_wnd: self.receive_window(),
            total_retrans: self.rare.as_ref().map_or(0, |rare| rare.total_retrans),
            delivery_rate,
            delivery_rate_app_limited,
            busy_time: limited.busy,
            rwnd_limited: limited.window,
            sndbuf_limited: limited.buffer,
            notsent_bytes: self.unsent() as u64,
            bytes_acked: self.bytes_acked + u64::from(syn),
            bytes_received: self.bytes_received,
            recv_q: self.receive_queue.len() as u64,
            send_q: self.send_queue.len() as u64,
            last_data_sent: since(tcb.snd.last_sent),
            last_data_recv: since(self.last_data),
            last_ack_recv: since(tcb.timers.last_received),
            retransmit_timer: left(tcb.timers.retransmit),
            persist_timer: left(tcb.timers.persist),
            delayed_ack_timer: left(tcb.timers.delayed_ack),
            keepalive_timer: left(tcb.timers.keepalive_or_fin_wait_2),
            out_of_order: self.reassembly.as_ref().map_or(0, |r| r.len() as u64),
        }
    }
}

//! The state of a connection as `tcp_info` shows it.

use super::tcb::{Connection, Origin};
use crate::config::Config;
use crate::info::Info;
use crate::state::State;
use crate::time::{Deadline, Instant};

impl Connection {
    fn retransmitted(&self) -> u32 {
        let flight = self.flight.as_ref();
        let once = self.flight().saturating_sub(flight.map_or(0, |flight| flight.sacked() + flight.lost()));
        self.in_network().saturating_sub(once)
    }

    /// `tcpi_delivered`: the SYN counts once it is acknowledged, and its data counts apart.
    // DRILL-X18
    fn delivered_segments(&self) -> u64 {
        let synchronized = u64::from(self.tcb.state != State::SynReceived);
        let mss = u32::from(self.payload_mss());
        let active = self.tcb.origin == Origin::Active;
        let data = self.rare.as_ref().is_some_and(|rare| rare.syn_data && active && self.bytes_acked > 0);
        let acked = self.quanta().map_or(0, |quanta| quanta.delivered());
        synchronized + u64::from(data) + acked + u64::from(self.sacked_bytes().div_ceil(mss))
    }

    /// Returns the fields of `tcp_info`.
    pub(crate) fn info(&self, now: Instant, config: &Config) -> Info {
        let tcb = &self.tcb;
        let left = |deadline: Option<Deadline>| deadline.map(|deadline| deadline.left(now));
        let (una, nxt) = (tcb.snd.una, tcb.snd.nxt);
        let (delivery_rate, delivery_rate_app_limited) = self.congestion.delivery_rate();
        Info {
            state: tcb.state,
            local: tcb.tuple.local(),
            remote: tcb.tuple.remote(),
            state_age: tcb.state_since.age(now),
            ca_state: self.ca_state(),
            retransmits: u32::from(tcb.timers.retransmits),
            probes: u32::from(tcb.timers.unanswered_probes),
            backoff: u32::from(match tcb.state {
                State::SynReceived => tcb.timers.retransmits,
                _ => tcb.rtt.backoff.saturating_add(tcb.timers.window_probes),
            }),
            timestamps: tcb.ts.on,
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
            rcv_mss: tcb.rcv.mss,
            advmss: tcb.rcv.adv_mss,
            pmtu: tcb.snd.path.mtu,
            snd_cwnd: self.congestion.cwnd(),
            snd_ssthresh: self.congestion.ssthresh(),
            in_flight: self.in_network(),
            unacked: nxt.since(una),
            sacked: self.sacked_bytes(),
            lost: self.flight.as_ref().map_or(0, |flight| flight.lost()),
            retrans: self.retransmitted(),
            segs_unacked: self.segments_out().unwrap_or(nxt.since(una).div_ceil(self.payload_mss().into())),
            delivered: self.delivered_segments(),
            wmem_queued: self.quanta().map_or(self.send_queue.len(), |q| q.memory(self.send_queue.len()))
                as u64,
            snd_wnd: tcb.snd.wnd,
            rcv_wnd: self.receive_window(),
            total_retrans: self.rare.as_ref().map_or(0, |rare| rare.total_retrans),
            delivery_rate,
            delivery_rate_app_limited,
            notsent_bytes: self.unsent() as u64,
            bytes_acked: self.bytes_acked,
            bytes_received: self.bytes_received,
            recv_q: self.receive_queue.len() as u64,
            send_q: self.send_queue.len() as u64,
            retransmit_timer: left(tcb.timers.retransmit),
            persist_timer: left(tcb.timers.persist),
            delayed_ack_timer: left(tcb.timers.delayed_ack),
            keepalive_timer: left(tcb.timers.keepalive_or_fin_wait_2),
            out_of_order: self.reassembly.as_ref().map_or(0, |r| r.len() as u64),
        }
    }
}

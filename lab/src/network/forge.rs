//! Faults at a given time: crashes and reboots, clock jumps, forged segments, floods.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use steadfast_core::Duration;
use steadfast_core::seq::SeqNum;
use steadfast_core::trace::State;
use steadfast_core::wire::tcp::{Flags, Header, Options};
use steadfast_timeline::flows::{Flow, Way};
use steadfast_timeline::view::{self, View};
use steadfast_timeline::{Packet, Segment};

use super::send::router;
use super::{Network, SimEvent};
use crate::fault::{Fault, FaultKind, Flood, IcmpInjection, Injection, SeqSpec, TimestampSpec};
use crate::mangle;

/// Limit of a flood's packets in the record.
const FLOOD_ROWS: u32 = 3;

impl Network {
    /// Runs a fault whose time has come. Some faults take several steps.
    pub(super) fn start_fault(&mut self, index: usize, step: u32) {
        let fault: Fault = self.faults[index].fault.clone();
        // Those that change a path count the packets that pass it.
        if !matches!(fault.kind, FaultKind::Path { .. }) {
            self.faults[index].hits += 1;
        }
        match &fault.kind {
            FaultKind::Crash { host, .. } => self.crash(host),
            FaultKind::Reboot { host, same_secret, same_clock, .. } => {
                self.crash(host);
                let (Some(host), seed, now) = (self.host(host), self.seed, self.now) else { return };
                self.timeline.note(now, Some(host), || "reboots".to_owned());
                self.hosts[host].reboot(seed, now, *same_secret, *same_clock);
                self.run_host(host);
            }
            FaultKind::Clock { host, nanos, .. } => {
                let Some(host) = self.host(host) else { return };
                self.timeline.note(self.now, Some(host), || fault.to_string());
                self.hosts[host].ahead += i128::from(*nanos);
                self.hosts[host].timer = None;
                self.run_host(host);
            }
            FaultKind::Stall { .. } => self.stall(&fault.kind),
            FaultKind::LoseAddress { host, .. } => {
                let Some(host) = self.host(host) else { return };
                let end = if step == 0 { "loses its addresses" } else { "has its addresses again" };
                self.timeline.note(self.now, Some(host), || end.to_owned());
                self.hosts[host].has_addresses(step > 0);
                self.run_host(host);
            }
            FaultKind::Path { direction, change, .. } => {
                if step == 0 {
                    self.paths.change(direction, change);
                } else {
                    self.paths.revert(direction, change);
                }
                if self.now.as_nanos() > 0 {
                    let end = if step == 0 { "" } else { " ends" };
                    self.timeline.note(self.now, None, || format!("{fault}{end}"));
                }
            }
            FaultKind::Inject(injection) => {
                self.inject(injection);
                if step + 1 < injection.times {
                    self.schedule(self.now + injection.every, SimEvent::Fault { index, step: step + 1 });
                }
            }
            FaultKind::InjectIcmp(injection) => self.inject_icmp(injection),
            FaultKind::Flood(flood) => {
                self.flood(flood, step);
                if step + 1 < flood.count {
                    let nanos = flood.over.as_nanos() * u128::from(step + 1) / u128::from(flood.count);
                    let at = flood.at + Duration::from_nanos(nanos as u64);
                    self.schedule(at, SimEvent::Fault { index, step: step + 1 });
                }
            }
            _ => {}
        }
    }

    fn host(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|host| host == name)
    }

    fn crash(&mut self, name: &str) {
        let Some(host) = self.host(name) else { return };
        if !self.hosts[host].is_up() {
            return;
        }
        self.collect_trace(host);
        self.timeline.note(self.now, Some(host), || "crashes".to_owned());
        let reads = self.hosts[host].host_apps.io.reads();
        self.streams.crash(host, reads.into_iter());
        self.timeline.crashed(self.now, host);
        self.hosts[host].crash();
    }

    /// Returns the flow between two hosts that one of them opened last, and its direction from the first host to the
    /// second.
    ///
    /// With ports, only a flow with these ports counts. A flow that only forged segments opened is the last choice.
    fn last_flow(&self, from: usize, to: usize, ports: (Option<u16>, Option<u16>)) -> Option<(usize, usize)> {
        let owner = |end: SocketAddr| self.host_at(end.ip());
        let fits = |wanted: Option<u16>, end: SocketAddr| wanted.is_none_or(|port| port == end.port());
        let all = self.timeline.flows.all.iter().enumerate().rev().filter_map(|(index, flow)| {
            (0..2).find_map(|way| {
                let (a, b) = (flow.ends[way], flow.ends[1 - way]);
                let these = owner(a) == Some(from) && owner(b) == Some(to);
                (these && fits(ports.0, a) && fits(ports.1, b)).then_some((index, way))
            })
        });
        all.clone()
            .find(|(index, way)| self.timeline.flows.all[*index].ways[*way].iss.is_some())
            .or_else(|| all.clone().next())
    }

    fn inject(&mut self, injection: &Injection) {
        let (Some(from), Some(to)) = (self.host(&injection.from), self.host(&injection.to)) else { return };
        // Port 0 is no part of any flow.
        let [source, destination] =
            [injection.source_port, injection.destination_port].map(|port| port.filter(|port| *port > 0));
        let found = self.last_flow(from, to, (source, destination));
        let flow = found.map(|(flow, _)| self.timeline.flows.all[flow].clone());
        let nowhere =
            Flow { ends: [self.end_of(from), self.end_of(to)], ways: Default::default(), tainted: false };
        let (flow, way) = (flow.unwrap_or(nowhere), found.map_or(0, |(_, way)| way));
        let (there, back) = (&flow.ways[way], &flow.ways[1 - way]);
        let timestamps = match injection.timestamps {
            TimestampSpec::Absent => None,
            TimestampSpec::Given(timestamps) => Some(timestamps),
            TimestampSpec::Last => there.timestamps,
        };
        let options = Options {
            mss: injection.mss,
            window_scale: injection.window_scale,
            sack_permitted: injection.sack,
            timestamps,
            ..Options::default()
        };
        let header = Header {
            source_port: injection.source_port.unwrap_or(flow.ends[way].port()),
            destination_port: injection.destination_port.unwrap_or(flow.ends[1 - way].port()),
            seq: resolve(injection.seq, there, back),
            // The acknowledgment number that the sender would use, with the roles of the two directions swapped.
            ack: if injection.flags.ack() { resolve_ack(injection.ack, there, back) } else { SeqNum(0) },
            flags: injection.flags,
            window: injection.window,
            urgent: injection.urgent,
            options,
        };
        let payload = vec![b'!'; injection.len];
        let (source, destination) = (flow.ends[way].ip(), flow.ends[1 - way].ip());
        let numbers = (there.relative(header.seq), back.relative(header.ack));
        let packet = mangle::forged(source, destination, &header, &payload);
        let source = SocketAddr::new(source, header.source_port);
        let destination = SocketAddr::new(destination, header.destination_port);
        let index = self.timeline.flows.find_or_open(source, destination).0;
        let mut tcp = Segment::new(&header, payload.len(), State::Closed);
        ((tcp.seq, tcp.seq_before), (tcp.ack, tcp.ack_before)) = numbers;
        self.arrive(Some(from), to, Some(index), Some((tcp, header)), packet);
    }

    /// An endpoint of a host, with port 0.
    fn end_of(&self, host: usize) -> SocketAddr {
        let host = &self.hosts[host];
        SocketAddr::new(if self.directory.ipv6 { host.v6 } else { host.v4 }, 0)
    }

    /// Delivers a forged packet to a host now.
    fn arrive(
        &mut self,
        from: Option<usize>,
        to: usize,
        flow: Option<usize>,
        tcp: Option<(Segment, Header)>,
        packet: Bytes,
    ) {
        let text = view::text(&packet);
        let entry = self.timeline.packet(Packet {
            at: self.now,
            number: None,
            from,
            to: Some(to),
            flow,
            tcp,
            udp: None,
            icmp: tcp.is_none(),
            text,
            size: packet.len(),
            forged: true,
            fates: Vec::new(),
        });
        let forged = tcp.is_some();
        self.schedule(
            self.now,
            SimEvent::Deliver { host: to, packet, entry, note: "forged".to_owned(), forged },
        );
    }

    fn inject_icmp(&mut self, injection: &IcmpInjection) {
        let (Some(from), Some(to)) = (self.host(&injection.from), self.host(&injection.to)) else { return };
        let Some((index, way)) = self.last_flow(from, to, (None, None)) else {
            return self.inject_icmp_about_datagram(injection, from, to);
        };
        let flow = &self.timeline.flows.all[index];
        let (there, back) = (&flow.ways[way], &flow.ways[1 - way]);
        // The last segment started at the first unacknowledged sequence number, or at the ISS.
        let last = back.ack.or(there.iss).unwrap_or(there.nxt);
        let seq = injection.seq.map_or(last, |seq| resolve(seq, there, back));
        let header = Header {
            source_port: flow.ends[way].port(),
            destination_port: flow.ends[1 - way].port(),
            seq,
            flags: Flags::ACK,
            ack: there.ack.unwrap_or_default(),
            ..Header::default()
        };
        let quoted = mangle::forged(flow.ends[way].ip(), flow.ends[1 - way].ip(), &header, &[]);
        if let Some(packet) = mangle::icmp_error(router(&quoted), &quoted, injection.kind) {
            self.arrive(None, from, Some(index), None, packet);
        }
    }

    /// Delivers an ICMP error about the last datagram between two hosts.
    fn inject_icmp_about_datagram(&mut self, injection: &IcmpInjection, from: usize, to: usize) {
        let Some(last) = self.last_datagrams.get(&(from, to)) else { return };
        let Some((mut source, mut destination)) = View::new(last).and_then(|view| view.ends()) else {
            return;
        };
        source.set_port(injection.ports.0.unwrap_or(source.port()));
        destination.set_port(injection.ports.1.unwrap_or(destination.port()));
        let quoted = mangle::datagram::with_ends(last, source, destination);
        if let Some(packet) = mangle::icmp_error(router(&quoted), &quoted, injection.kind) {
            self.arrive(None, from, None, None, packet);
        }
    }

    fn flood(&mut self, flood: &Flood, step: u32) {
        let Some(host) = self.host(&flood.host) else { return };
        let victim = &self.hosts[host];
        let (destination, source) = match flood.prefix {
            (IpAddr::V4(prefix), len) => {
                let hosts = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                let source = prefix.to_bits() & !hosts | self.rng.next() as u32 & hosts;
                (victim.v4, IpAddr::from(source.to_be_bytes()))
            }
            (IpAddr::V6(prefix), len) => {
                let hosts = u128::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                let bits = u128::from(self.rng.next()) << 64 | u128::from(self.rng.next());
                (victim.v6, IpAddr::from((prefix.to_bits() & !hosts | bits & hosts).to_be_bytes()))
            }
        };
        let header = Header {
            source_port: 1024 + self.rng.below(64_000) as u16,
            destination_port: flood.port,
            seq: SeqNum(self.rng.next() as u32),
            flags: Flags::SYN,
            window: 65_535,
            options: Options { mss: Some(1460), ..Options::default() },
            ..Header::default()
        };
        let packet = mangle::forged(source, destination, &header, &[]);
        if step < FLOOD_ROWS {
            let rest = flood.count - FLOOD_ROWS.min(flood.count);
            let text = if step + 1 == FLOOD_ROWS {
                format!("flood, {rest} more follow")
            } else {
                "flood".to_owned()
            };
            // Note the prefix, not the source: ladders must not depend on the seed.
            let (prefix, len) = flood.prefix;
            self.timeline.note(self.now, None, || format!("{text}: [S] from {prefix}/{len}"));
        }
        let what = SimEvent::Deliver { host, packet, entry: None, note: String::new(), forged: true };
        self.schedule(self.now, what);
    }
}

/// Resolves a sequence number in the direction `there`.
fn resolve(spec: SeqSpec, there: &Way, back: &Way) -> SeqNum {
    let add = |base: SeqNum, offset: i64| base + offset as u32;
    match spec {
        SeqSpec::Absolute(n) => SeqNum(n),
        SeqSpec::Relative(n) => add(there.iss.unwrap_or_default(), n),
        SeqSpec::RcvNxt(n) => add(back.ack.unwrap_or(there.nxt), n),
        SeqSpec::RcvEnd(n) => add(back.edge.unwrap_or(there.nxt), n),
        SeqSpec::SndNxt(n) => add(there.nxt, n),
    }
}

/// Resolves the acknowledgment number of a segment in the direction `there`. It refers to the direction `back`.
fn resolve_ack(spec: SeqSpec, there: &Way, back: &Way) -> SeqNum {
    let add = |base: SeqNum, offset: i64| base + offset as u32;
    match spec {
        SeqSpec::Relative(n) => add(back.iss.unwrap_or_default(), n),
        // The last acknowledgment number sent, or else the peer's highest sequence number.
        SeqSpec::RcvNxt(n) => add(there.ack.unwrap_or(back.nxt), n),
        SeqSpec::SndNxt(n) => add(back.nxt, n),
        SeqSpec::RcvEnd(n) => add(there.edge.unwrap_or(back.nxt), n),
        SeqSpec::Absolute(n) => SeqNum(n),
    }
}

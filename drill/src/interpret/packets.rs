//! Packets in both directions, and their flows.

use std::net::SocketAddr;

use steadfast_core::time::Duration;
use steadfast_core::trace::State;

use super::super::ast::{Body, Direction, Event, IpInfo, Packet, Scale, Tcp, TcpOption};
use super::super::compare::{self, Field, Rules};
use super::super::flow::Flow;
use super::super::parsed::{PacketBody, ParsedPacket};
use super::super::world::Sent;
use super::super::{Verdict, build};
use super::timing::Due;
use super::{Interpreter, Run, Stop, fail};

/// How long to wait for a late packet, in order to report how late it was.
const GRACE: Duration = Duration::from_secs(5);
/// Allowance for a delayed ACK whose time is open, in nanoseconds.
const DELAYED: i64 = 500_000_000;

const FIN: u16 = 1;
const SYN: u16 = 1 << 1;
const RST: u16 = 1 << 2;
const PSH: u16 = 1 << 3;
const ACK: u16 = 1 << 4;
const CWR: u16 = 1 << 7;
/// Flags of a line that may be on any of the segments that make it up.
const JOINED: u16 = FIN | PSH | CWR;

/// The segments of a line: as many as `mss` makes of it. PSH and FIN are on the last.
// DRILL-L21
fn segments(tcp: &Tcp, mss: Option<u16>) -> Vec<Tcp> {
    let most = mss.map_or(tcp.len, u32::from).max(1);
    let count = tcp.len.div_ceil(most).max(1);
    let part = |index: u32| {
        let (start, last) = (index * most, index + 1 == count);
        let flags = if last { tcp.flags } else { tcp.flags & !(PSH | FIN) };
        Tcp { seq: tcp.seq.wrapping_add(start), len: most.min(tcp.len - start), flags, ..tcp.clone() }
    };
    (0..count).map(part).collect()
}

impl Interpreter<'_> {
    // Inbound packets.

    pub(super) fn inject(&mut self, event: &Event, packet: &Packet) -> Run {
        self.refuse_encapsulation(event, packet)?;
        let packets = match &packet.body {
            Body::Tcp(tcp) => {
                let index = self.flow_of_injected(tcp);
                let opening = tcp.flags & SYN != 0 && self.is_in(index, State::SynSent);
                let flow = &mut self.flows[index];
                if tcp.flags & SYN != 0 && tcp.scale == Scale::Initial {
                    flow.note_syn(tcp.seq, tcp.len, opening);
                }
                if let Some(window) = tcp.window {
                    flow.window = window;
                }
                let parts = segments(tcp, self.settings.mss);
                parts.iter().map(|part| build::segment(part, &packet.ip, flow)).collect()
            }
            Body::Icmp(icmp) => {
                let index = self.current_or_new();
                let Some(bytes) = build::icmp(icmp, &packet.ip, &self.flows[index]) else {
                    let reason = "no such type or code of ICMP in this version of IP".to_owned();
                    return Err(Stop { verdict: Verdict::Skip, ..fail(icmp.at, reason) });
                };
                vec![bytes]
            }
            Body::Udp(len) => {
                let ends = &self.world.calls.ends;
                let local = SocketAddr::new(ends.local, ends.bind_port);
                let remote = SocketAddr::new(ends.remote, ends.connect_port);
                vec![build::datagram(*len, &packet.ip, remote, local)]
            }
        };
        self.world.inject(packets);
        Ok(())
    }

    fn refuse_encapsulation(&self, event: &Event, packet: &Packet) -> Run {
        match &packet.encapsulation {
            None => Ok(()),
            Some(name) => {
                let reason = format!("packets in {name} are not interpreted");
                Err(Stop { verdict: Verdict::Skip, ..fail(event.at, reason) })
            }
        }
    }

    fn flow_of_injected(&mut self, tcp: &Tcp) -> usize {
        let fresh_syn = tcp.flags & (SYN | ACK | RST) == SYN;
        if let Some(ports) = tcp.ports {
            let known = self.flows.iter().position(|flow| flow.script_ports == Some(ports));
            return match known {
                Some(index) => self.use_flow(index, fresh_syn),
                None => self.new_flow(Some(ports)),
            };
        }
        // If a socket was created since, a SYN that opens a connection is for that socket.
        let another = fresh_syn && self.world.calls.sockets_made > self.current_since;
        match self.current {
            Some(index) if !another => self.use_flow(index, fresh_syn),
            _ => self.new_flow(None),
        }
    }

    /// Uses a flow. A SYN on a flow without a connection in the stack starts a new one.
    fn use_flow(&mut self, index: usize, fresh_syn: bool) -> usize {
        if fresh_syn {
            let state = self.state_of(index);
            self.flows[index].may_begin_again = state.is_none_or(|state| state == State::TimeWait);
        }
        self.current = Some(index);
        index
    }

    /// The state that the stack has of a flow.
    fn state_of(&self, index: usize) -> Option<State> {
        let flow = &self.flows[index];
        let all = self.world.subject.sockets();
        let ours = all.iter().filter(|entry| entry.local == flow.local && entry.remote == flow.remote);
        let mut ours = ours.filter(|entry| entry.state != State::Closed);
        ours.next().map(|entry| entry.state)
    }

    fn is_in(&self, index: usize, state: State) -> bool {
        self.state_of(index) == Some(state)
    }

    fn current_or_new(&mut self) -> usize {
        self.current.unwrap_or_else(|| self.new_flow(None))
    }

    /// Opens a flow from the script to the latest listener.
    fn new_flow(&mut self, ports: Option<(u16, u16)>) -> usize {
        let ends = &self.world.calls.ends;
        let listening = self.world.subject.listeners().last().map(SocketAddr::port);
        let local_port = ports.map(|(_, local)| local).or(listening).unwrap_or(ends.bind_port);
        let remote_port = ports.map_or(self.next_port, |(remote, _)| remote);
        let local = SocketAddr::new(ends.local, local_port);
        let remote = SocketAddr::new(ends.remote, remote_port);
        self.next_port = self.next_port.wrapping_add(1).max(50_000);
        self.add_flow(Flow::new(local, remote, ports))
    }

    fn add_flow(&mut self, flow: Flow) -> usize {
        self.flows.push(flow);
        self.current = Some(self.flows.len() - 1);
        self.current_since = self.world.calls.sockets_made;
        self.flows.len() - 1
    }

    // Outbound packets.

    pub(super) fn expect(&mut self, event: &Event, packet: &Packet, due: Due) -> Run {
        self.refuse_encapsulation(event, packet)?;
        self.refuse_patience(event, due)?;
        match &packet.body {
            Body::Tcp(tcp) if self.options.neutral => self.expect_neutral(event, tcp, &packet.ip, due),
            Body::Tcp(tcp) => self.expect_segments(event, tcp, &packet.ip, due),
            Body::Icmp(icmp) => {
                let index = self.current_or_new();
                let (sent, live) = self.next_packet(event, due, false)?;
                let fields = compare::message(icmp, &packet.ip, &live, &self.flows[index]);
                self.judge(event, &fields, &live, index)?;
                self.in_time(event, due, &sent, &live, index)
            }
            Body::Udp(_) => {
                let reason = "the stack speaks no UDP".to_owned();
                Err(Stop { verdict: Verdict::Skip, ..fail(event.at, reason) })
            }
        }
    }

    /// Returns the next packet of the stack that the script sees. `opens`: the first one of a connect is expected.
    fn next_packet(&mut self, event: &Event, due: Due, opens: bool) -> Run<(Sent, ParsedPacket)> {
        loop {
            let (sent, live) = self.next_of_any(event, due)?;
            if !self.is_passed_over(&live, opens) {
                return Ok((sent, live));
            }
        }
    }

    /// Whether a packet belongs to a connection of which the script no longer speaks: a newer one took its place.
    fn is_passed_over(&self, live: &ParsedPacket, opens: bool) -> bool {
        let ends = live.ends();
        let of_ends = |flow: &Flow| flow.script_ports.is_none() && ends == Some((flow.local, flow.remote));
        let Some(current) = self.current.filter(|current| self.flows[*current].script_ports.is_none()) else {
            return false;
        };
        match self.flows.iter().rposition(of_ends) {
            Some(index) if index == current => {
                let is_old = self.world.calls.sockets_made > self.current_since;
                opens && is_old && live.tcp().is_some_and(|tcp| !tcp.has(SYN))
            }
            other => other.is_some(),
        }
    }

    /// Returns the next packet of the stack. Waits for its latest time and a grace period.
    fn next_of_any(&mut self, event: &Event, due: Due) -> Run<(Sent, ParsedPacket)> {
        let patience = if due.any { self.world.subject.patience() } else { GRACE };
        let latest = due.end.saturating_add(self.tolerance(due.start));
        let limit = self.instant(latest).max(self.world.now()) + patience;
        self.world.run_until(limit, |world| !world.outbox.is_empty() || world.idle());
        let Some(sent) = self.world.outbox.pop_front() else {
            let waited =
                if due.any { String::new() } else { format!(" until {}", super::timing::seconds(latest)) };
            let reason = format!("no packet came{waited}");
            return Err(Stop {
                details: format!("script: {}\ncame:   nothing\n", event.text),
                ..fail(event.at, reason)
            });
        };
        match ParsedPacket::parse(&sent.bytes) {
            Some(live) => Ok((sent, live)),
            None => Err(fail(event.at, "what came is no IP packet".to_owned())),
        }
    }

    /// Expects the segment of one line. Several segments together may make it up.
    fn expect_segments(&mut self, event: &Event, spec: &Tcp, ip: &IpInfo, due: Due) -> Run {
        let mut rest = spec.clone();
        let mut due = due;
        let opens = spec.flags & (SYN | ACK) == SYN;
        let mut said = 0;
        loop {
            let (sent, live) = self.next_packet(event, due, opens)?;
            let index = self.flow_of_expected(&rest, &live);
            let part = self.part(&rest, &live, index);
            let mut now = part.clone().unwrap_or_else(|| rest.clone());
            // A flag of the whole that was on an earlier part may be on this one too.
            let flags = live.tcp().map_or(0, |tcp| tcp.flags);
            now.flags = now.flags & !said | flags & said;
            let fields = compare::segment(&now, ip, &live, &self.flows[index], self.rules());
            self.judge(event, &fields, &live, index)?;
            self.in_time(event, due, &sent, &live, index)?;
            self.learn(&now, &live, index);
            let Some(part) = part else { return Ok(()) };
            said |= part.flags & JOINED;
            rest.seq = rest.seq.wrapping_add(part.len);
            rest.len -= part.len;
            // The rest follows at once.
            let at = self.elapsed(sent.at);
            due = Due { start: at, end: at.max(due.end), any: due.any };
        }
    }

    /// Returns the part of a line that a shorter segment must match; `None` if it must match all of it.
    fn part(&self, spec: &Tcp, live: &ParsedPacket, flow: usize) -> Option<Tcp> {
        let tcp = live.tcp().filter(|_| !self.settings.strict_segments)?;
        let len = tcp.payload.len() as u32;
        let begins = match spec.scale {
            Scale::Initial => self.flows[flow].local_to_script(tcp.seq, tcp.has(SYN)) == spec.seq,
            Scale::Wire => tcp.seq == spec.seq,
            Scale::Open => true,
        };
        if !begins || len == 0 || len >= spec.len || tcp.has(FIN) {
            return None;
        }
        // A flag of the whole may be on any part.
        let flags = spec.flags & !JOINED | spec.flags & tcp.flags & JOINED;
        Some(Tcp { len, flags, ..spec.clone() })
    }

    /// Returns the flow of an expected segment. The stack's SYN, or else its first segment, reveals its sequence
    /// numbers.
    fn flow_of_expected(&mut self, spec: &Tcp, live: &ParsedPacket) -> usize {
        let ends = live.ends();
        let pure_syn = spec.flags & (SYN | ACK) == SYN;
        let same = |flow: &Flow| ends == Some((flow.local, flow.remote));
        let index = match spec.ports {
            Some((local, remote)) => {
                let ports = Some((remote, local));
                self.flows.iter().position(|flow| flow.script_ports == ports)
            }
            None => self.current.filter(|index| !pure_syn || same(&self.flows[*index])),
        };
        let index = match (index, ends) {
            (Some(index), _) => index,
            (None, Some((local, remote))) if pure_syn => {
                let ports = spec.ports.map(|(local, remote)| (remote, local));
                // The destination must be the application's; otherwise the segment is wrong.
                self.add_flow(Flow::new(local, self.expected_peer(remote), ports))
            }
            _ => self.current_or_new(),
        };
        self.current = Some(index);
        if let Some(tcp) = live.tcp()
            && same(&self.flows[index])
            && spec.flags & SYN != 0
            && tcp.has(SYN)
        {
            let flow = &mut self.flows[index];
            if spec.scale == Scale::Initial && (!flow.knows_local() || flow.may_begin_again) {
                flow.begin_again();
                flow.learn_local(spec.seq, tcp.seq);
            }
            if tcp.has(ACK) {
                flow.note_acknowledged(tcp.ack);
            }
        }
        index
    }

    /// Returns the expected destination of a connect: the one in the options, unless the script gave another.
    fn expected_peer(&self, came: SocketAddr) -> SocketAddr {
        let calls = &self.world.calls;
        let ends = &calls.ends;
        if calls.destinations.contains(&came) {
            came
        } else {
            SocketAddr::new(ends.remote, ends.connect_port)
        }
    }

    fn rules(&self) -> Rules {
        // Or a part of the time since the script began. DRILL-L20
        let passed = self.elapsed(self.world.now()).max(0) as f64 / 1000.0;
        let part = (passed * self.settings.tolerance_percent / 100.0) as u64;
        let slack = self.settings.tolerance_usecs.max(self.settings.tick_usecs).max(part);
        let tick = (self.settings.tick_usecs > 0).then_some((self.settings.tick_usecs, slack));
        Rules { neutral: self.options.neutral, tick }
    }

    /// Learns the script's value of the stack's timestamp, and the stack's cookie.
    fn learn(&mut self, spec: &Tcp, live: &ParsedPacket, flow: usize) {
        let of = |options: &[TcpOption]| {
            options.iter().find_map(|option| match option {
                TcpOption::Timestamps { val, .. } => *val,
                _ => None,
            })
        };
        let options = live.tcp().map_or(&[][..], |tcp| &tcp.options);
        if let Some(TcpOption::FastOpen(cookie)) =
            options.iter().find(|o| matches!(o, TcpOption::FastOpen(_)))
        {
            self.flows[flow].cookie.clone_from(cookie);
        }
        let Some(live_val) = of(options) else { return };
        if let Some(script) = spec.options.as_deref().and_then(of) {
            self.flows[flow].learn_timestamp(script, live_val);
        }
    }

    fn judge(&self, event: &Event, fields: &[Field], live: &ParsedPacket, flow: usize) -> Run {
        let wrong: Vec<&Field> = fields.iter().filter(|field| !field.right).collect();
        let Some(first) = wrong.first() else { return Ok(()) };
        let mut reason = format!("{}: expected {}, came {}", first.name, first.expected, first.came);
        if wrong.len() > 1 {
            let names: Vec<_> = wrong[1..].iter().map(|field| field.name).collect();
            reason.push_str(&format!(" (also wrong: {})", names.join(", ")));
        }
        let line = compare::line(live, self.flows.get(flow), Direction::Out);
        let mut details = format!("script: {}\ncame:   {line}\n", event.text);
        let width = fields.iter().map(|field| field.name.len()).max().unwrap_or(0);
        let wide = fields.iter().map(|field| field.expected.chars().count()).max().unwrap_or(0).max(8);
        details.push_str(&format!("  {:width$}  {:wide$}  came\n", "", "expected"));
        for field in fields {
            let mark = if field.right { ' ' } else { '*' };
            details.push_str(&format!(
                "{mark} {:width$}  {:wide$}  {}\n",
                field.name, field.expected, field.came
            ));
        }
        Err(Stop { details, ..fail(event.at, reason) })
    }

    fn in_time(&self, event: &Event, due: Due, sent: &Sent, live: &ParsedPacket, flow: usize) -> Run {
        let Some(off) = self.off(due, sent.at) else { return Ok(()) };
        let line = compare::line(live, self.flows.get(flow), Direction::Out);
        let details = format!("script: {}\ncame:   {line}\n", event.text);
        Err(Stop { details, ..fail(event.at, format!("the packet is {off}")) })
    }

    // The neutral mode.

    /// As [`expect_segments`](Interpreter::expect_segments), but the timing of pure ACKs is open. Unexpected ones are
    /// skipped. An expected one may have come before, or may come with data.
    fn expect_neutral(&mut self, event: &Event, spec: &Tcp, ip: &IpInfo, due: Due) -> Run {
        let pure = |len: usize, flags: u16| len == 0 && flags & (SYN | FIN | RST) == 0;
        let expects_ack = pure(spec.len as usize, spec.flags);
        let acked = self.current.and_then(|index| self.acked.get(&index).copied());
        let fresh =
            expects_ack && acked.is_none_or(|acked| acked.wrapping_sub(spec.ack.unwrap_or(0)) as i32 <= 0);
        loop {
            let mut due = due;
            if expects_ack && !due.any {
                due = Due {
                    start: due.start.min(self.elapsed(self.world.now())),
                    end: due.end + DELAYED,
                    any: false,
                };
            }
            let patience = self.instant(due.end).max(self.world.now()) + GRACE;
            self.world.run_until(patience, |world| !world.outbox.is_empty() || world.idle());
            let next = self.world.outbox.front().and_then(|sent| ParsedPacket::parse(&sent.bytes));
            let PacketBody::Tcp(tcp) = (match &next {
                Some(live) => live.body.clone(),
                None => PacketBody::Other(0),
            }) else {
                return self.expect_segments(event, spec, ip, due);
            };
            let Some(index) = self.current.filter(|_| next.is_some()) else {
                return self.expect_segments(event, spec, ip, due);
            };
            let came_ack = pure(tcp.payload.len(), tcp.flags);
            let ack = self.flows[index].remote_to_script(tcp.ack, tcp.has(SYN));
            let behind = spec.ack.unwrap_or(0).wrapping_sub(ack) as i32 > 0;
            if came_ack && (!expects_ack || (fresh && behind)) {
                self.world.outbox.pop_front();
                self.acked.insert(index, ack);
                continue;
            }
            // Acknowledged before, or by a segment with data.
            if expects_ack && !behind && (!came_ack || ack != spec.ack.unwrap_or(0)) {
                return Ok(());
            }
            self.acked.insert(index, ack);
            return self.expect_segments(event, spec, ip, due);
        }
    }
}

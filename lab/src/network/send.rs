//! The journey of a packet: recorded, translated by NATs, hit by faults, delayed by its path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use steadfast_core::trace::State;
use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::{Duration, Instant};
use steadfast_timeline::view::{self, Kind, View};
use steadfast_timeline::{Captured, Fate, Packet, Segment};

use super::{Choice, Network, SimEvent};
use crate::app::Violation;
use crate::fault::{Count, Effect, FaultKind, Observed, Pattern, Rejection, When};
use crate::mangle;
use crate::scenario::expect::Invariant;
use crate::stream;

/// The router in the middle of every path.
const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 254);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xff, 0, 0, 0, 0, 0, 0xfe);

/// Bytes of a packet that the hash covers: the longest headers and the start of the payload.
const HASHED: usize = 160;

/// How long a packet waits for others to overtake it.
const OVERTAKING: Duration = Duration::from_millis(500);

/// A packet or a copy of it in transit.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) packet: Bytes,
    /// Delay in addition to the path's.
    extra: Duration,
    /// Fixed time of arrival, regardless of the path.
    arrives: Option<Instant>,
    /// How many packets must still overtake it.
    overtaken_by: u32,
    pub(super) copy: bool,
    tampered: bool,
    note: String,
}

impl InFlight {
    fn new(packet: Bytes) -> InFlight {
        let (extra, note) = (Duration::ZERO, String::new());
        InFlight { packet, extra, arrives: None, overtaken_by: 0, copy: false, tampered: false, note }
    }

    pub(super) fn say(&mut self, text: &str) {
        if !self.note.is_empty() {
            self.note.push_str(", ");
        }
        self.note.push_str(text);
    }
}

/// A packet that waits for others to overtake it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: u64,
    from: usize,
    to: usize,
    left: u32,
    in_flight: InFlight,
    entry: Option<usize>,
}

/// The source and destination of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) entry: Option<usize>,
    flow: Option<(usize, usize)>,
}

/// A packet as patterns see it.
pub(crate) fn observed<'a>(packet: &Packet, names: &'a [String]) -> Observed<'a> {
    let name = |host: Option<usize>| host.map(|host| names[host].as_str());
    Observed {
        at: packet.at,
        from: if packet.forged { None } else { name(packet.from) },
        to: name(packet.to),
        tcp: packet.tcp.map(|(tcp, _)| tcp),
        udp: packet.udp,
        icmp: packet.icmp,
        size: packet.size,
    }
}

impl Network {
    /// Sends a packet from a host's stack.
    pub(crate) fn send(&mut self, from: usize, packet: Bytes) {
        self.update_hash(&packet);
        let Some(view) = View::new(&packet) else {
            let text = format!("{} sends what is no IP packet", self.names[from]);
            self.violations.push(Violation { at: self.now, rule: Invariant::Empty, text });
            return;
        };
        let (outer, to_end) = self.translate(from, &packet, &view);
        let to = to_end.map_or(view.destination, |end| end.ip());
        let to = self.host_at(to);
        let (seen, flow) = self.sent(from, to, to_end, &packet, &view);
        let hits = self.matching_faults(&seen);
        let entry = if to.is_some() || self.nats.is_outer(view.destination) {
            self.timeline.packet(seen)
        } else {
            None
        };
        self.timeline.capture(|| Captured {
            at: self.now,
            host: from,
            outbound: true,
            bytes: packet.clone(),
            event: entry,
            note: String::new(),
        });
        let Some(outer) = outer else {
            self.timeline.fate(entry, Fate::Lost("no mapping".to_owned()));
            return;
        };
        let Some(to) = to else { return };
        let route = Route { from, to, entry, flow };
        let mut in_flight = vec![InFlight::new(outer)];
        for hit in hits {
            in_flight = self.apply_fault(hit, in_flight, route, &packet);
        }
        self.pass_held(from, to);
        for one in in_flight {
            self.propagate(one, route, &packet);
        }
    }

    /// Adds a packet and its time to the hash of the run. The TCP checksum, which the hash covers, stands for the rest
    /// of the payload.
    fn update_hash(&mut self, packet: &[u8]) {
        let packet = &packet[..packet.len().min(HASHED)];
        let mut hash = self.hash ^ self.now.as_nanos();
        let mut add = |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        let (words, rest) = packet.as_chunks::<8>();
        words.iter().for_each(|word| add(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| add(u64::from(*byte)));
        self.hash = hash;
    }

    /// Returns the packet after NAT, and its final destination. `None` if a NAT has no mapping for it.
    fn translate(&mut self, from: usize, packet: &Bytes, view: &View) -> (Option<Bytes>, Option<SocketAddr>) {
        let Some((source, destination)) = view.ends() else { return (Some(packet.clone()), None) };
        let outward = self.nats.outward(self.now, from, source, destination);
        let inward = self.nats.inward(self.now, destination);
        if outward.is_none() && inward.is_none() {
            return (Some(packet.clone()), Some(destination));
        }
        let Some(to) = inward.unwrap_or(Some(destination)) else { return (None, None) };
        (Some(mangle::readdressed(packet, outward.unwrap_or(source), to)), Some(to))
    }

    /// Adds a packet to its flow. Returns its description and its flow.
    fn sent(
        &mut self,
        from: usize,
        to: Option<usize>,
        to_end: Option<SocketAddr>,
        packet: &Bytes,
        view: &View,
    ) -> (Packet, Option<(usize, usize)>) {
        let mut seen = Packet {
            at: self.now,
            number: None,
            from: Some(from),
            to,
            flow: None,
            tcp: None,
            udp: view.datagram(packet),
            icmp: matches!(view.kind, Kind::Icmp),
            text: view::text(packet),
            size: packet.len(),
            forged: false,
            fates: Vec::new(),
        };
        if let (Kind::Udp { .. }, Some(to)) = (&view.kind, to) {
            self.last_datagrams.insert((from, to), packet.clone());
        }
        let (Kind::Tcp { header, payload }, Some((source, destination))) = (&view.kind, view.ends()) else {
            return (seen, None);
        };
        let state = self.hosts[from].states.get(&(source, destination)).copied().unwrap_or(State::Closed);
        let mut tcp = Segment::new(header, payload.len(), state);
        let (Some(_), Some(end)) = (to, to_end) else {
            seen.tcp = Some((tcp, *header));
            return (seen, None);
        };
        let found = self.timeline.flows.find_or_open(source, end);
        let before = self.timeline.flows.all[found.0].ways[found.1].clone();
        let numbers = self.timeline.flows.sent(found, header, payload.len());
        if header.flags.syn() && before.iss != Some(header.seq) {
            let iss = header.seq.0;
            let before = before.iss.map(|_| before.nxt.0);
            self.iss.push(Choice { at: self.now, host: from, flow: found.0, iss, before });
        }
        numbers.number(&mut tcp);
        if let Some((rule, text)) = numbers.wrong {
            let text = format!("{} {text}", self.names[from]);
            self.violations.push(Violation { at: self.now, rule: rule.into(), text });
        }
        if header.flags.rst() && self.reset == Some(found.0) {
            let text = format!("{} answers a RST with a RST", self.names[from]);
            self.violations.push(Violation { at: self.now, rule: Invariant::Reset, text });
        }
        seen.flow = Some(found.0);
        seen.tcp = Some((tcp, *header));
        (seen, Some(found))
    }

    /// Returns the faults that hit a packet, in order. Each counts the packets that match its pattern.
    fn matching_faults(&mut self, packet: &Packet) -> Vec<usize> {
        let mut hits = Vec::new();
        let observed = observed(packet, &self.names);
        for (index, armed) in self.faults.iter_mut().enumerate() {
            let FaultKind::Packets { pattern, .. } = &armed.fault.kind else { continue };
            if pattern.fits(&observed) && counts(pattern, &mut armed.met, &mut self.rng) {
                hits.push(index);
                armed.hits += 1;
            }
        }
        hits
    }

    /// Applies a fault to a packet and its copies.
    fn apply_fault(
        &mut self,
        index: usize,
        in_flight: Vec<InFlight>,
        route: Route,
        original: &Bytes,
    ) -> Vec<InFlight> {
        let fault = self.faults[index].fault.clone();
        let FaultKind::Packets { effect, .. } = &fault.kind else { return in_flight };
        let text = fault.to_string();
        let mut out = Vec::new();
        for mut one in in_flight {
            if one.copy {
                out.push(one);
                continue;
            }
            match effect {
                Effect::Lose => self.timeline.fate(route.entry, Fate::Lost(text.clone())),
                Effect::Reject(rejection) => {
                    self.timeline.fate(route.entry, Fate::Lost(text.clone()));
                    self.reject(*rejection, route, original);
                }
                Effect::Duplicate { when, times } => {
                    let mut copy = InFlight { copy: true, ..one.clone() };
                    copy.say("copy");
                    match when {
                        When::After(d) => copy.extra += *d,
                        When::At(at) => copy.arrives = Some(*at),
                    }
                    out.push(one);
                    out.extend(std::iter::repeat_n(copy, *times as usize));
                }
                Effect::Split(flags) => {
                    for piece in mangle::split(&one.packet, flags) {
                        let mut piece = InFlight { packet: piece, copy: true, tampered: true, ..one.clone() };
                        piece.say("split");
                        out.push(piece);
                    }
                }
                Effect::Fragment { size, lose, overlap } => {
                    let pieces = mangle::fragments(&one.packet, *size, *overlap);
                    for (index, packet) in pieces.iter().enumerate().filter(|(n, _)| Some(n + 1) != *lose) {
                        let mut piece = InFlight { packet: packet.clone(), copy: true, ..one.clone() };
                        piece.say(&format!("fragment {} of {}", index + 1, pieces.len()));
                        out.push(piece);
                    }
                    // The original segment never arrives as such.
                    if let Some((flow, _)) = route.flow {
                        self.timeline.flows.all[flow].tainted = true;
                    }
                }
                _ => {
                    self.apply_effect(effect, &mut one, route, &text);
                    out.push(one);
                }
            }
        }
        out
    }

    /// Applies an effect that yields exactly one packet.
    fn apply_effect(&mut self, effect: &Effect, one: &mut InFlight, route: Route, text: &str) {
        match effect {
            Effect::Delay { low, high } => one.extra += self.rng.duration(*low, *high),
            Effect::Hold { release } => one.arrives = Some(*release),
            Effect::Reorder { past } => one.overtaken_by = *past,
            Effect::Corrupt(part) => one.packet = mangle::corrupted(&one.packet, *part, &mut self.rng),
            Effect::Truncate { len } => one.packet = one.packet.slice(..one.packet.len().min(*len)),
            Effect::Rewrite(changes) => {
                let streams = &self.streams;
                let end = View::new(&one.packet).and_then(|view| view.ends());
                let content = |len: usize| match end.and_then(|(from, to)| streams.latest(from, to)) {
                    Some(index) => stream::content(streams.get(index).content, 0, len as u64),
                    None => Bytes::from(vec![b'x'; len]),
                };
                one.packet = mangle::rewritten(&one.packet, changes, content);
                one.tampered = true;
            }
            Effect::Strip(options) => {
                one.packet = mangle::stripped(&one.packet, options);
                one.tampered = true;
            }
            _ => {}
        }
        if one.tampered
            && let Some((flow, _)) = route.flow
        {
            self.timeline.flows.all[flow].tainted = true;
        }
        one.say(text);
    }

    fn reject(&mut self, rejection: Rejection, route: Route, packet: &Bytes) {
        let (answer, text) = match rejection {
            Rejection::Rst => (mangle::rst_for(packet), "rst".to_owned()),
            Rejection::Icmp(kind) => {
                let router = router(packet);
                let answer = mangle::icmp_error(router, packet, kind);
                let text = answer.as_deref().map(view::icmp_text).unwrap_or_default();
                (answer, text)
            }
        };
        if let Some(answer) = answer {
            self.answer(answer, route, text);
        }
    }

    /// Sends a reply from a router in the middle of the path.
    fn answer(&mut self, packet: Bytes, route: Route, text: String) {
        let delay = (self.paths.delay(route.from, route.to) + self.paths.delay(route.to, route.from)) / 2;
        let icmp = View::new(&packet).is_some_and(|view| matches!(view.kind, Kind::Icmp));
        let entry = self.timeline.packet(Packet {
            at: self.now + delay,
            number: None,
            from: None,
            to: Some(route.from),
            flow: route.flow.map(|(flow, _)| flow),
            tcp: None,
            udp: None,
            icmp,
            text,
            size: packet.len(),
            forged: true,
            fates: Vec::new(),
        });
        let note = "from a router".to_owned();
        let what = SimEvent::Deliver { host: route.from, packet, entry, note, forged: !icmp };
        self.schedule(self.now + delay, what);
    }

    /// Counts one packet that overtakes the held ones.
    fn pass_held(&mut self, from: usize, to: usize) {
        let mut ripe = Vec::new();
        for held in self.held.iter_mut().filter(|held| (held.from, held.to) == (from, to)) {
            held.left -= 1;
            if held.left == 0 {
                ripe.push(held.id);
            }
        }
        // Scheduled after the overtaking packet with the same delay, it arrives behind it.
        for id in ripe {
            let at = self.now + self.paths.delay(from, to);
            if let Some(held) = self.held.iter().position(|held| held.id == id).map(|at| self.held.remove(at))
            {
                let route = Route { from, to, entry: held.entry, flow: None };
                self.schedule_arrival(held.in_flight, route, at + Duration::from_nanos(1));
            }
        }
    }

    /// Sends a held packet that has waited long enough.
    pub(super) fn release(&mut self, id: u64) {
        if let Some(held) = self.held.iter().position(|held| held.id == id).map(|at| self.held.remove(at)) {
            let at = self.now + self.paths.delay(held.from, held.to);
            let route = Route { from: held.from, to: held.to, entry: held.entry, flow: None };
            self.schedule_arrival(held.in_flight, route, at);
        }
    }

    /// Applies partitions, MTU, swarm, rate and delay.
    fn propagate(&mut self, mut one: InFlight, route: Route, original: &Bytes) {
        let lost = |text: String| Fate::Lost(if one.copy { format!("copy, {text}") } else { text });
        if let Some(text) = self.partition(route.from, route.to) {
            self.timeline.fate(route.entry, lost(text));
            return;
        }
        if let Some((mtu, icmp, text)) = self.too_big(route.from, route.to, one.packet.len()) {
            self.timeline.fate(route.entry, lost(text));
            if icmp {
                self.reject(Rejection::Icmp(ErrorKind::PacketTooBig { mtu: mtu as u32 }), route, original);
            }
            return;
        }
        self.count_changed_paths(route.from, route.to);
        let mishap = self.swarm.as_mut().map(|swarm| swarm.mishap(self.now)).unwrap_or_default();
        if let Some(later) = mishap.copy {
            let mut copy = InFlight { copy: true, extra: one.extra + later, ..one.clone() };
            copy.say("copy at random");
            self.set_off(copy, route);
        }
        if mishap.lost {
            self.timeline.fate(route.entry, Fate::Lost("at random".to_owned()));
            return;
        }
        one.extra += mishap.delay;
        self.set_off(one, route);
    }

    /// Schedules the arrival of a packet that its path delivers at `at`, unless others are to overtake it.
    pub(super) fn leave(&mut self, one: InFlight, route: Route, at: Instant) {
        if one.overtaken_by > 0 {
            self.order += 1;
            let id = self.order;
            let Route { from, to, entry, .. } = route;
            self.held.push(Held { id, from, to, left: one.overtaken_by, in_flight: one, entry });
            self.schedule(self.now + OVERTAKING, SimEvent::Release { held: id });
            return;
        }
        let at = one.arrives.unwrap_or(at + one.extra);
        self.schedule_arrival(one, route, at);
    }

    fn schedule_arrival(&mut self, one: InFlight, route: Route, at: Instant) {
        let InFlight { packet, note, .. } = one;
        self.schedule(
            at,
            SimEvent::Deliver { host: route.to, packet, entry: route.entry, note, forged: false },
        );
    }

    /// Returns the partition that stops a packet, if any.
    fn partition(&mut self, from: usize, to: usize) -> Option<String> {
        let (now, from, to) = (self.now, Some(self.names[from].as_str()), Some(self.names[to].as_str()));
        self.faults.iter_mut().find_map(|armed| match &armed.fault.kind {
            FaultKind::Partition { direction, window }
                if window.contains(now) && direction.fits(from, to) =>
            {
                armed.hits += 1;
                Some(armed.fault.to_string())
            }
            _ => None,
        })
    }

    /// Returns the smallest MTU of the path if it is below `len`, and whether its router sends an ICMP error.
    fn too_big(&mut self, from: usize, to: usize, len: usize) -> Option<(usize, bool, String)> {
        let (now, from, to) = (self.now, Some(self.names[from].as_str()), Some(self.names[to].as_str()));
        let links = self.faults.iter_mut().filter_map(|armed| match &armed.fault.kind {
            FaultKind::Mtu { direction, mtu, icmp, window }
                if window.contains(now) && direction.fits(from, to) =>
            {
                Some((*mtu, *icmp, armed))
            }
            _ => None,
        });
        let (mtu, icmp, armed) = links.min_by_key(|(mtu, ..)| *mtu).filter(|(mtu, ..)| *mtu < len)?;
        armed.hits += 1;
        Some((mtu, icmp, armed.fault.to_string()))
    }

    /// Counts a packet that passes paths which faults have changed.
    fn count_changed_paths(&mut self, from: usize, to: usize) {
        let (now, from, to) = (self.now, Some(self.names[from].as_str()), Some(self.names[to].as_str()));
        for armed in &mut self.faults {
            if let FaultKind::Path { direction, window, .. } = &armed.fault.kind
                && window.contains(now)
                && direction.fits(from, to)
            {
                armed.hits += 1;
            }
        }
    }
}

/// Counts a packet that matches the pattern, and returns whether its [`Count`] selects it.
fn counts(pattern: &Pattern, met: &mut u64, rng: &mut crate::rng::Rng) -> bool {
    *met += 1;
    match pattern.count {
        Count::Every => true,
        Count::Nth(first, last) => (first..=last).contains(met),
        Count::Chance(chance) => rng.chance(chance),
    }
}

/// The router's address, in the address family of a packet.
pub(super) fn router(packet: &[u8]) -> IpAddr {
    if packet.first().is_some_and(|byte| byte >> 4 == 6) {
        IpAddr::V6(ROUTER_V6)
    } else {
        IpAddr::V4(ROUTER_V4)
    }
}

//! The simulated network: hosts, one queue of events, one clock, one seed.
//!
//! Only events advance the clock: an arriving packet, a stack's timer, a waking application, a fault. An idle hour
//! costs nothing.

mod forge;
pub(crate) mod host;
pub(crate) mod nat;
mod path;
pub(crate) mod send;
mod stall;
pub(crate) mod swarm;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use steadfast_core::info::SocketCursor;
use steadfast_core::trace::{State, TraceEvent, TraceKind};
use steadfast_core::{Event, Instant, SocketId};
use steadfast_timeline::view::{Kind, View};
use steadfast_timeline::{Captured, Fate, Keep, Map, Timeline};

use self::host::Host;
use self::nat::Nats;
pub(crate) use self::path::Paths;
use self::stall::Stall;
use self::swarm::Swarm;
use crate::app::{AppContext, Directory, Violation};
use crate::datagrams::Datagrams;
use crate::fault::{Fault, FaultKind};
use crate::foreign::ForeignEntry;
use crate::mangle;
use crate::rng::Rng;
use crate::scenario::expect::Invariant;
use crate::scenario::script::App;
use crate::stream::Streams;
use crate::text::Tolerance;

/// More events than this in one second of virtual time mean a runaway.
const EVENTS_PER_SECOND: u64 = 3_000_000;
/// More rounds than this of one host at one event mean a runaway.
const ROUNDS: u32 = 10_000;
/// The end of virtual time: ten years.
const END_OF_TIME: u64 = 10 * 365 * 86_400;

/// A scheduled event.
#[derive(Clone, Debug)]
enum SimEvent {
    Deliver {
        host: usize,
        packet: Bytes,
        entry: Option<usize>,
        note: String,
        forged: bool,
    },
    Timer {
        host: usize,
    },
    Wake {
        host: usize,
    },
    Fault {
        index: usize,
        step: u32,
    },
    /// A packet that others were to overtake has waited long enough.
    Release {
        held: u64,
    },
    /// A path has something to decide.
    Path {
        from: usize,
        to: usize,
    },
    /// Check an expectation about the stacks.
    Check {
        index: usize,
    },
}

#[derive(Clone, Debug)]
struct Scheduled {
    at: Instant,
    /// Checks come after all other events of the same time.
    late: bool,
    order: u64,
    what: SimEvent,
}

impl Scheduled {
    fn key(&self) -> (Instant, bool, u64) {
        (self.at, self.late, self.order)
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// A fault, and how many packets have matched its pattern.
#[derive(Clone, Debug)]
struct Armed {
    fault: Fault,
    met: u64,
    /// How many packets it has hit.
    hits: u64,
}

/// The plan of a network.
pub(crate) struct Plan {
    pub(crate) hosts: Vec<Host>,
    pub(crate) directory: Directory,
    pub(crate) nats: Nats,
    pub(crate) paths: Paths,
    pub(crate) faults: Vec<Fault>,
    pub(crate) apps: Vec<App>,
    /// Times of checks of the stacks, with the index of the expectation.
    pub(crate) checks: Vec<(Instant, usize)>,
    pub(crate) seed: u64,
    pub(crate) swarm: Option<Swarm>,
    pub(crate) lenient: bool,
    pub(crate) tolerance: Tolerance,
    /// Keep segments and notes.
    pub(crate) record: bool,
    /// Keep packets.
    pub(crate) capture: bool,
    /// Keep what stacks tell of their connections.
    pub(crate) info: bool,
}

/// A running network.
pub(crate) struct Network {
    pub(crate) now: Instant,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) names: Vec<String>,
    addresses: Map<IpAddr, usize>,
    /// The host that all other addresses belong to, if one does.
    pub(crate) rest: Option<usize>,
    pub(crate) directory: Directory,
    nats: Nats,
    pub(crate) paths: Paths,
    faults: Vec<Armed>,
    stalls: Vec<Stall>,
    held: Vec<send::Held>,
    swarm: Option<Swarm>,
    rng: Rng,
    seed: u64,
    pub(crate) timeline: Timeline,
    pub(crate) streams: Streams,
    pub(crate) datagrams: Datagrams,
    /// The last datagram from one host to another.
    last_datagrams: Map<(usize, usize), Bytes>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) lenient: bool,
    /// How far a time may be from the expected one.
    pub(crate) tolerance: Tolerance,
    /// The flow of the RST that a host is receiving.
    reset: Option<usize>,
    /// A hash of every packet and its time.
    pub(crate) hash: u64,
    /// The current virtual second, and the number of events in it.
    busy: (u64, u64),
    frame: Vec<u8>,
    /// Initial sequence numbers that hosts chose.
    pub(crate) iss: Vec<Choice>,
}

/// An initial sequence number that a host chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) at: Instant,
    pub(crate) host: usize,
    pub(crate) flow: usize,
    pub(crate) iss: u32,
    /// The highest sequence number of the previous incarnation, plus one.
    pub(crate) before: Option<u32>,
}

/// The hosts as the timeline shows them.
fn sites(plan: &Plan) -> Vec<steadfast_timeline::Host> {
    let site = |host: &Host| {
        let addresses = if plan.directory.ipv6 { vec![host.v6, host.v4] } else { vec![host.v4, host.v6] };
        steadfast_timeline::Host { name: host.name.clone(), addresses }
    };
    plan.hosts.iter().map(site).collect()
}

impl Network {
    pub(crate) fn new(plan: Plan) -> Network {
        let names: Vec<String> = plan.hosts.iter().map(|host| host.name.clone()).collect();
        let mut addresses = Map::default();
        for (index, host) in plan.hosts.iter().enumerate() {
            addresses.insert(host.v4, index);
            addresses.insert(host.v6, index);
        }
        let timeline =
            Timeline::new(sites(&plan), Keep { events: plan.record, bytes: plan.capture, info: plan.info });
        let mut network = Network {
            now: Instant::ZERO,
            queue: BinaryHeap::new(),
            order: 0,
            hosts: plan.hosts,
            names,
            addresses,
            rest: None,
            directory: plan.directory,
            nats: plan.nats,
            paths: plan.paths,
            faults: Vec::new(),
            stalls: Vec::new(),
            held: Vec::new(),
            swarm: plan.swarm,
            rng: Rng::split(plan.seed, "faults"),
            seed: plan.seed,
            timeline,
            streams: Streams::default(),
            datagrams: Datagrams::new(plan.seed),
            last_datagrams: Map::default(),
            violations: Vec::new(),
            lenient: plan.lenient,
            tolerance: plan.tolerance,
            reset: None,
            hash: 0,
            busy: (0, 0),
            frame: vec![0; 65_536],
            iss: Vec::new(),
        };
        network.start(plan.faults, plan.apps, plan.checks);
        network
    }

    fn start(&mut self, faults: Vec<Fault>, apps: Vec<App>, checks: Vec<(Instant, usize)>) {
        for (index, fault) in faults.into_iter().enumerate() {
            let at = match &fault.kind {
                FaultKind::Crash { at, .. } | FaultKind::Reboot { at, .. } | FaultKind::Clock { at, .. } => {
                    Some(*at)
                }
                FaultKind::Path { window, .. } => {
                    if let Some(until) = window.until {
                        self.schedule(until, SimEvent::Fault { index, step: 1 });
                    }
                    Some(window.from.unwrap_or(Instant::ZERO))
                }
                FaultKind::Stall { from, .. } => Some(*from),
                FaultKind::LoseAddress { from, until, .. } => {
                    self.schedule(*until, SimEvent::Fault { index, step: 1 });
                    Some(*from)
                }
                FaultKind::Inject(injection) => Some(injection.at),
                FaultKind::InjectIcmp(injection) => Some(injection.at),
                FaultKind::Flood(flood) => Some(flood.at),
                _ => None,
            };
            if let Some(at) = at {
                self.schedule(at, SimEvent::Fault { index, step: 0 });
            }
            self.faults.push(Armed { fault, met: 0, hits: 0 });
        }
        for (at, index) in checks {
            self.schedule(at, SimEvent::Check { index });
        }
        // Servers are declared after their clients, and must listen before these connect.
        for host in (0..self.hosts.len()).rev() {
            self.hosts[host].boot(self.seed, &apps, self.now);
            self.schedule(Instant::ZERO, SimEvent::Wake { host });
        }
    }

    fn schedule(&mut self, at: Instant, what: SimEvent) {
        self.order += 1;
        let late = matches!(what, SimEvent::Check { .. });
        self.queue.push(Reverse(Scheduled { at: at.max(self.now), late, order: self.order, what }));
    }

    /// The host with this address.
    pub(crate) fn host_at(&self, address: IpAddr) -> Option<usize> {
        self.addresses.get(&address).copied().or(self.rest)
    }

    /// The faults, each with the number of packets that it has hit.
    pub(crate) fn hits(&self) -> impl Iterator<Item = (&Fault, u64)> {
        self.faults.iter().map(|armed| (&armed.fault, armed.hits))
    }

    /// Runs until `until`, or until no event is left; returns true in the latter case. `check` is called for each look
    /// at the stacks, and returns when to repeat it, if at all.
    pub(crate) fn run(
        &mut self,
        until: Option<Instant>,
        mut check: impl FnMut(&mut Network, usize) -> Option<Instant>,
    ) -> bool {
        while let Some(Reverse(next)) = self.queue.pop() {
            if until.is_some_and(|until| next.at > until) {
                self.now = until.unwrap_or(self.now);
                self.queue.push(Reverse(next));
                return false;
            }
            if self.is_stale(&next) {
                continue;
            }
            self.now = next.at;
            if let SimEvent::Check { index } = next.what {
                (0..self.hosts.len()).for_each(|host| self.observe(host));
                if let Some(at) = check(self, index) {
                    self.schedule(at, SimEvent::Check { index });
                }
                continue;
            }
            if self.runs_wild() {
                return false;
            }
            self.process(next.what);
        }
        true
    }

    /// When the next event is due.
    pub(crate) fn next_at(&mut self) -> Option<Instant> {
        while let Some(Reverse(next)) = self.queue.peek() {
            if !self.is_stale(next) {
                return Some(next.at);
            }
            self.queue.pop();
        }
        None
    }

    /// Returns whether only timers of our stacks and checks that do not concern `host` are left. `about` tells whether
    /// a check concerns the host.
    pub(crate) fn leaves_alone(&self, host: usize, about: impl Fn(usize) -> bool) -> bool {
        self.queue.iter().map(|Reverse(next)| next).filter(|next| !self.is_stale(next)).all(|next| match next
            .what
        {
            SimEvent::Timer { host: whose } => whose != host,
            SimEvent::Check { index } => !about(index),
            _ => false,
        })
    }

    /// Returns whether a timer or wake-up was superseded. A stale event must not even advance the clock.
    fn is_stale(&self, next: &Scheduled) -> bool {
        match next.what {
            SimEvent::Timer { host } => self.hosts[host].timer != Some(next.at),
            SimEvent::Wake { host } => self.hosts[host].wake.is_some_and(|wake| wake != next.at),
            SimEvent::Release { held } => !self.held.iter().any(|h| h.id == held),
            SimEvent::Path { from, to } => self.paths.armed(from, to) != Some(next.at),
            _ => false,
        }
    }

    fn runs_wild(&mut self) -> bool {
        let second = self.now.as_nanos() / 1_000_000_000;
        self.busy = if self.busy.0 == second { (second, self.busy.1 + 1) } else { (second, 1) };
        let wild = self.busy.1 > EVENTS_PER_SECOND || second > END_OF_TIME;
        if wild {
            let text = format!("{} events in virtual second {second}", self.busy.1);
            self.violations.push(Violation { at: self.now, rule: Invariant::Livelock, text });
        }
        wild
    }

    fn process(&mut self, what: SimEvent) {
        let Some(what) = self.unless_stalled(what) else { return };
        match what {
            SimEvent::Deliver { host, packet, entry, note, forged } => {
                self.deliver(host, &packet, entry, note, forged);
            }
            SimEvent::Timer { host } => {
                self.hosts[host].timer = None;
                let now = self.hosts[host].clock_at(self.now);
                if let Some(stack) = &mut self.hosts[host].stack {
                    stack.advance(now);
                }
                self.run_host(host);
            }
            SimEvent::Wake { host } => {
                self.hosts[host].wake = None;
                self.run_host(host);
            }
            SimEvent::Fault { index, step } => self.start_fault(index, step),
            SimEvent::Release { held } => self.release(held),
            SimEvent::Path { from, to } => {
                self.paths.disarm(from, to);
                self.follow(from, to);
            }
            SimEvent::Check { .. } => {}
        }
    }

    fn deliver(&mut self, host: usize, packet: &Bytes, entry: Option<usize>, note: String, forged: bool) {
        if !self.hosts[host].is_up() {
            self.timeline.fate(entry, Fate::Lost("host is down".to_owned()));
            return;
        }
        // Leave truncated and unreadable packets out of the capture: a dissector would complain about them.
        if mangle::is_whole(packet) {
            self.timeline.capture(|| Captured {
                at: self.now,
                host,
                outbound: false,
                bytes: packet.clone(),
                event: entry,
                note: note.clone(),
            });
        }
        self.timeline.fate(entry, Fate::Arrived { at: self.now, note });
        self.reset = None;
        if let Some(view) = View::new(packet)
            && let (Kind::Tcp { header, payload }, Some((from, to))) = (&view.kind, view.ends())
            && let Some(found) = self.timeline.flows.find(self.nats.inner(from), self.nats.inner(to))
        {
            self.timeline.flows.arrived(found, header, payload.len());
            self.timeline.flows.all[found.0].tainted |= forged;
            if header.flags.rst() {
                self.reset = Some(found.0);
            }
        }
        self.hosts[host].receive(self.now, packet);
        self.run_host(host);
        self.reset = None;
    }

    /// Runs the applications and the stack of a host until they have nothing more to do at this time.
    pub(crate) fn run_host(&mut self, host: usize) {
        let mut changed: Vec<(SocketId, Event)> = Vec::new();
        for round in 0..=ROUNDS {
            changed.clear();
            let entry = &mut self.hosts[host];
            if !entry.is_up() {
                return;
            }
            changed.extend(std::iter::from_fn(|| entry.poll_event()));
            if round > 0 && changed.is_empty() {
                break;
            }
            self.collect_trace(host);
            self.with_context(host, |host_apps, context| host_apps.run(context, &changed));
            self.collect_trace(host);
            self.look(host);
            self.transmit(host);
            self.check_consistent(host);
            if round == ROUNDS {
                let text = format!("{} never comes to rest", self.names[host]);
                self.violations.push(Violation { at: self.now, rule: Invariant::Livelock, text });
            }
        }
        self.arm(host);
    }

    /// Records the numbers of the host's connections, as far as they are among its first sockets.
    fn look(&mut self, host: usize) {
        const FEW: usize = 64;
        if !self.timeline.keeps_info() {
            return;
        }
        let entry = &self.hosts[host];
        let Some(stack) = &entry.stack else { return };
        let now = entry.clock_at(self.now);
        let mut sockets = Vec::new();
        stack.sockets_from(now, SocketCursor::default(), FEW, &mut sockets);
        for socket in sockets {
            let Some(Ok(info)) = socket.socket.map(|id| stack.info(now, id)) else { continue };
            let inner = (self.nats.inner(socket.local), self.nats.inner(socket.remote));
            self.timeline.info(self.now, host, inner, info);
        }
    }

    /// Checks the stack's running totals against a recount, if that is cheap.
    fn check_consistent(&mut self, host: usize) {
        const FEW: usize = 64;
        let Some(stack) = self.hosts[host].stack.as_ref().filter(|_| cfg!(debug_assertions)) else { return };
        let usage = stack.usage();
        if usage.connections + usage.opening + usage.sockets + usage.half_open + usage.time_wait > FEW {
            return;
        }
        if let Err(text) = stack.check_consistent() {
            let text = format!("{}: {text}", self.names[host]);
            self.violations.push(Violation { at: self.now, rule: Invariant::Consistent, text });
        }
    }

    /// Calls `act` with the applications of a host.
    pub(crate) fn with_context<T>(
        &mut self,
        host: usize,
        act: impl FnOnce(&mut crate::app::HostApps, &mut AppContext<'_>) -> T,
    ) -> Option<T> {
        let entry = &mut self.hosts[host];
        let host_now = entry.clock_at(self.now);
        let mut context = AppContext {
            now: self.now,
            host_now,
            host,
            stack: match (&mut entry.stack, &mut entry.foreign) {
                (Some(stack), _) => stack,
                (None, foreign) => &mut **foreign.as_mut()?,
            },
            streams: &mut self.streams,
            datagrams: &mut self.datagrams,
            timeline: &mut self.timeline,
            directory: &self.directory,
            nats: &self.nats,
            born: &entry.born,
            violations: &mut self.violations,
            lenient: self.lenient,
            tolerance: self.tolerance,
        };
        Some(act(&mut entry.host_apps, &mut context))
    }

    /// Sends all packets that the stack has ready.
    fn transmit(&mut self, host: usize) {
        let mut frame = std::mem::take(&mut self.frame);
        while let Some(len) = self.hosts[host].transmit(self.now, &mut frame) {
            self.collect_trace(host);
            self.send(host, Bytes::copy_from_slice(&frame[..len]));
            self.look(host);
        }
        self.frame = frame;
    }

    /// Schedules the next wake-up of the host's stack and programs.
    fn arm(&mut self, host: usize) {
        let entry = &self.hosts[host];
        if !entry.is_up() {
            return;
        }
        let timer = entry.stack.as_ref().and_then(|stack| stack.poll_at());
        let timer = timer.map(|at| entry.when(at).max(self.now));
        let wake = entry.host_apps.wakes_at();
        if timer != self.hosts[host].timer {
            self.hosts[host].timer = timer;
            if let Some(at) = timer {
                self.schedule(at, SimEvent::Timer { host });
            }
        }
        if wake != self.hosts[host].wake {
            self.hosts[host].wake = wake;
            if let Some(at) = wake {
                self.schedule(at, SimEvent::Wake { host });
            }
        }
    }

    /// Records the stack's trace events.
    fn collect_trace(&mut self, host: usize) {
        if self.hosts[host].foreign.is_some() {
            self.observe(host);
            return;
        }
        loop {
            let Some(event) = self.hosts[host].stack.as_mut().and_then(|stack| stack.poll_trace()) else {
                return;
            };
            self.traced(host, event);
        }
    }

    /// Records changes in the foreign TCP's listing.
    pub(crate) fn observe(&mut self, host: usize) {
        let Some(foreign) = &mut self.hosts[host].foreign else { return };
        let entries = foreign.entries();
        let changed = |network: &mut Network, ends: (SocketAddr, SocketAddr), from: State, to: State| {
            let (local, remote) = ends;
            let kind = TraceKind::State { from, to };
            network.traced(host, TraceEvent::new(network.now, local, remote, kind));
        };
        let mut known: Vec<_> = self.hosts[host].states.iter().map(|(ends, state)| (*ends, *state)).collect();
        known.sort_unstable_by_key(|(ends, _)| *ends);
        for entry in entries.iter().filter(|entry| entry.state != State::Listen) {
            let ends = (entry.local, entry.remote);
            let before = known.iter().find(|(known, _)| *known == ends).map(|(_, state)| *state);
            let idle = matches!(before, None | Some(State::Closed | State::Listen));
            let passive = matches!(entry.state, State::SynReceived | State::Established);
            let before = if idle && passive { State::Listen } else { before.unwrap_or(State::Closed) };
            if before != entry.state {
                changed(self, ends, before, entry.state);
            }
        }
        for (ends, before) in known {
            let listed = entries.iter().any(|entry| (entry.local, entry.remote) == ends);
            if !listed && !matches!(before, State::Closed | State::Listen) {
                // A half-open connection that is given up leaves its listener as it was.
                let listens = |entry: &ForeignEntry| {
                    entry.state == State::Listen && entry.local.port() == ends.0.port()
                };
                let half_open = before == State::SynReceived && entries.iter().any(listens);
                let to = if half_open { State::Listen } else { State::Closed };
                changed(self, ends, before, to);
            }
        }
        self.hosts[host].entries = entries;
    }

    fn traced(&mut self, host: usize, event: TraceEvent) {
        let TraceEvent { local, remote, kind, .. } = event;
        // Spoofed sources of a flood get neither a state nor a row.
        let known = self.addresses.contains_key(&remote.ip()) || self.nats.is_outer(remote.ip());
        let inner = (self.nats.inner(local), self.nats.inner(remote));
        if !known {
            return;
        }
        if let TraceKind::State { from, to } = kind {
            if remote.port() == 0 {
                return;
            }
            let entry = &mut self.hosts[host];
            entry.states.insert((local, remote), to);
            if matches!(from, State::Closed | State::Listen | State::TimeWait) {
                entry.born.insert((local, remote), self.now);
            }
        }
        self.timeline.traced(self.now, host, (local, remote), inner, kind);
    }
}

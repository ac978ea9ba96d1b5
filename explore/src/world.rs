//! The world: two stacks, their applications and the path between them. A copy of it goes its own way.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use steadfast_core::trace::State;
use steadfast_core::{Duration, Instant, Stack};
use steadfast_wire::icmp::ErrorKind;
use steadfast_wire::tcp::Flags;

use crate::app::{App, Context};
use crate::arrival::{Arrived, parse};
use crate::coverage::Coverage;
use crate::delays::{Delays, OVERTAKING};
use crate::ends::START;
use crate::fault::{ADDRESS_LOST, Choice, FRAGMENT, Fault, NARROW};
use crate::forge::{AGAIN, Forgery, router_error};
use crate::program::Program;
use crate::streams::Streams;

mod answers;

use self::answers::Owed;

/// One way of the path.
const DELAY: Duration = Duration::from_millis(10);

/// A run with more packets has a loop.
const PACKETS: u32 = 2000;

/// A run that goes on for longer never comes to rest.
const LONGEST: Duration = Duration::from_secs(3600);

/// Turns of the stacks without a packet, at one time.
const TURNS: u32 = 1000;

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) program: Arc<Program>,
    pub(crate) now: Instant,
    pub(crate) ends: [End; 2],
    path: Vec<Arrival>,
    /// Packets that wait to be overtaken, with the end that sent them.
    held: Vec<(usize, Bytes)>,
    order: u32,
    /// Packets by their sender.
    pub(crate) sent: [u32; 2],
    /// Until when the path is cut.
    dark_until: Instant,
    /// The packets of this end pass a narrow link.
    narrow: [bool; 2],
    /// A packet that was sent, and whose fate is not decided.
    pending: Option<(usize, Bytes)>,
    /// The state that its receiver is in.
    far: State,
    streams: Streams,
    pub(crate) accepts: u32,
    pub(crate) connects: u32,
    /// Nothing happened that TCP does not mend.
    pub(crate) mended: bool,
    /// Packets were lost or marked at most: none is older than what was sent after it.
    pub(crate) in_order: bool,
    /// A forged packet has arrived.
    forged: bool,
    /// RSTs sent.
    pub(crate) resets: u32,
    /// Segments that may have ended a TIME-WAIT.
    disturbances: u32,
    /// The first thing that went wrong.
    pub(crate) wrong: Option<String>,
    turns: u32,
    /// That nothing is left to do at this time was told.
    still: bool,
    /// The answer that an end has to send now.
    owed: [Option<Owed>; 2],
    /// When an end last had to answer what is invalid, and when a probe.
    answered: [[Instant; 2]; 2],
    delays: Delays,
    /// When a SYN was last sent.
    syn_at: Instant,
}

/// The memory that all worlds of a search use, and what it has seen.
pub(crate) struct Scratch {
    frame: Vec<u8>,
    pub(crate) coverage: Coverage,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch { frame: vec![0; 65_536], coverage: Coverage::default() }
    }
}

/// A host.
#[derive(Clone)]
pub(crate) struct End {
    pub(crate) stack: Stack,
    pub(crate) apps: Vec<App>,
    boots: u32,
    /// It may have packets to send.
    sending: bool,
}

#[derive(Clone)]
struct Arrival {
    at: Instant,
    order: u32,
    to: usize,
    what: What,
}

#[derive(Clone, Hash)]
enum What {
    Packet(Bytes),
    /// A packet in fragments. With `true` one of them is lost.
    Fragments(Bytes, bool),
    /// A packet with a wrong checksum.
    Corrupt(Bytes),
    /// A forged packet that goes with this one. With `true` it is the second of its kind.
    Forged(Forgery, Bytes, bool),
    /// It loses its addresses, or has them again.
    Addresses(bool),
    /// The packet that waits longest is overtaken by time.
    Release,
    Reboot,
    /// The last moment of a TIME-WAIT.
    TimeWait(Watch),
}

/// A TIME-WAIT that has to last, unless one of these counts changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Watch {
    local: SocketAddr,
    remote: SocketAddr,
    boots: u32,
    connects: u32,
    disturbances: u32,
}

/// Why a world stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A packet was sent: [`World::decide`] says its fate.
    Packet,
    /// All that happens at this time has happened.
    Still,
    /// Nothing is left to happen, or something is wrong.
    Rest,
}

impl World {
    pub(crate) fn new(program: Arc<Program>) -> World {
        let end = |host: usize| {
            let host = &program.hosts[host];
            let apps = (0..host.apps.len()).map(|index| App::new(index, START)).collect();
            End { stack: host.stack.clone(), apps, boots: 0, sending: false }
        };
        let ends = [end(0), end(1)];
        let mut world = World {
            program,
            now: START,
            ends,
            path: Vec::new(),
            held: Vec::new(),
            order: 0,
            sent: [0; 2],
            dark_until: Instant::ZERO,
            narrow: [false; 2],
            pending: None,
            far: State::Established,
            streams: Streams::default(),
            accepts: 0,
            connects: 0,
            mended: true,
            in_order: true,
            forged: false,
            resets: 0,
            disturbances: 0,
            wrong: None,
            turns: 0,
            still: false,
            owed: [None; 2],
            answered: [[Instant::ZERO; 2]; 2],
            delays: Delays::default(),
            syn_at: START,
        };
        // Servers listen before their clients connect.
        world.run_apps(1);
        world.run_apps(0);
        world
    }

    pub(crate) fn packets(&self) -> u32 {
        self.sent[0] + self.sent[1]
    }

    /// The fault as a choice about the packet whose fate is undecided; `None` if it cannot befall it.
    pub(crate) fn choice(&self, fault: Fault) -> Option<Choice> {
        let (from, packet) = self.pending.as_ref()?;
        let befalls = match fault {
            Fault::Mark => is_ect(packet),
            Fault::Corrupt => parse(packet).is_some(),
            Fault::Fragment | Fault::FragmentLost => packet.len() > FRAGMENT,
            _ => true,
        };
        if !befalls {
            return None;
        }
        // Hosts that have spoken are met when they speak.
        if matches!(fault, Fault::Forge(Forgery { ahead: true, .. }))
            && !matches!(self.far, State::Listen | State::Closed)
        {
            return None;
        }
        Some(Choice { from: *from, number: self.sent[*from], at: self.now, fault })
    }

    /// Goes on until a packet is sent, until the end of a time, or until rest.
    pub(crate) fn run(&mut self, scratch: &mut Scratch) -> Stop {
        while self.wrong.is_none() {
            if let Some(from) = self.ends.iter().position(|end| end.sending) {
                let end = &mut self.ends[from];
                let frame = &mut scratch.frame;
                if let Some(sent) = end.stack.transmit(self.now, frame) {
                    self.sent[from] += 1;
                    let packet = &scratch.frame[..sent.len];
                    self.resets += u32::from(is_rst(packet));
                    self.pending = Some((from, Bytes::copy_from_slice(packet)));
                    self.settle(from, packet);
                    self.turns = 0;
                    if self.packets() > PACKETS {
                        self.wrong = Some(format!("{PACKETS} packets, and no end"));
                    }
                    return Stop::Packet;
                }
                end.sending = false;
                self.miss(from);
                if self.hear_events(from) {
                    self.run_apps(from);
                }
                continue;
            }
            let Some(at) = self.next_at() else { return Stop::Rest };
            if at > self.now && !self.still {
                self.still = true;
                return Stop::Still;
            }
            if at > START + LONGEST {
                return Stop::Rest;
            }
            if at > self.now {
                (self.now, self.turns, self.still) = (at, 0, false);
            }
            self.turns += 1;
            if self.turns > TURNS {
                self.wrong = Some("the stacks never come to rest".to_owned());
            }
            self.happen(&mut scratch.coverage);
        }
        Stop::Rest
    }

    /// Goes on until rest. `fault` chooses what befalls each packet.
    pub(crate) fn play(&mut self, scratch: &mut Scratch, mut fault: impl FnMut(&World) -> Option<Fault>) {
        loop {
            match self.run(scratch) {
                Stop::Packet => self.decide(fault(self)),
                Stop::Still => {}
                Stop::Rest => return,
            }
        }
    }

    /// Returns whether the applications took longer than the faults explain.
    pub(crate) fn is_late(&self) -> bool {
        if self.ends.iter().any(|end| end.stack.counters().listen_drops > 0) {
            // A full table loses packets too.
            return false;
        }
        let (initial, min, delayed) = self.program.timeouts();
        let more = self.delays.all(initial, min, delayed);
        self.program.time.is_some_and(|time| self.worked() > time + more)
    }

    /// How long after the start the last step of an application ended.
    pub(crate) fn worked(&self) -> Duration {
        let since = self.ends.iter().flat_map(|end| &end.apps).map(|app| app.since).max();
        since.unwrap_or(START).saturating_since(START)
    }

    /// Returns whether nothing is left that could happen.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.next_at().is_none()
    }

    fn next_at(&self) -> Option<Instant> {
        let apps = self.ends.iter().flat_map(|end| &end.apps).filter_map(|app| app.wakes_at);
        let timers = self.ends.iter().filter_map(|end| end.stack.poll_at());
        let arrivals = self.path.iter().map(|arrival| arrival.at);
        apps.chain(timers).chain(arrivals).min()
    }

    /// Lets happen what is due: an arrival, or else timers and applications.
    fn happen(&mut self, coverage: &mut Coverage) {
        let due = self.path.iter().enumerate().filter(|(_, arrival)| arrival.at <= self.now);
        if let Some((index, _)) = due.min_by_key(|(_, arrival)| (arrival.at, arrival.order)) {
            let arrival = self.path.swap_remove(index);
            let to = arrival.to;
            match arrival.what {
                What::Packet(packet) => self.receive(to, packet, None, Some(coverage)),
                What::Fragments(packet, lost) => self.receive_fragments(to, packet, lost, coverage),
                What::Corrupt(packet) => self.receive_corrupt(to, packet),
                What::Forged(forgery, packet, again) => self.forge(to, forgery, &packet, again),
                What::Addresses(has) => self.has_addresses(to, has),
                What::Release => {
                    if let Some(held) = self.held.iter().position(|(from, _)| *from == 1 - to) {
                        let (_, packet) = self.held.remove(held);
                        self.arrive(to, self.now + DELAY, What::Packet(packet));
                    }
                    return;
                }
                What::TimeWait(watch) => return self.check_time_wait(to, watch),
                What::Reboot => return self.reboot(to),
            }
            self.hear_events(to);
            self.run_apps(to);
            return;
        }
        for host in 0..2 {
            let end = &mut self.ends[host];
            let timer = end.stack.poll_at().is_some_and(|at| at <= self.now);
            let app = end.apps.iter().any(|app| app.wakes_at.is_some_and(|at| at <= self.now));
            if timer {
                end.stack.advance(self.now);
            }
            if timer || app {
                self.hear_events(host);
                self.run_apps(host);
            }
        }
    }

    /// The packet whose fate is undecided, for comparison.
    #[cfg(test)]
    pub(crate) fn newest(&self) -> String {
        format!("{:?}", self.pending)
    }

    /// A digest of all that decides how the world goes on and how it is judged. The world has to be still.
    pub(crate) fn digest(&self) -> u64 {
        let mut state = DefaultHasher::new();
        let until = |at: Instant| at.saturating_since(self.now);
        for (End { stack, apps, boots, sending: _ }, host) in self.ends.iter().zip(&self.program.hosts) {
            (stack.digest(self.now), boots).hash(&mut state);
            apps.iter().for_each(|app| app.hash(self.now, stack, &mut state));
            // Later steps name a time.
            host.apps
                .iter()
                .chain(&host.apps_rebooted)
                .flatten()
                .any(|op| op.at.is_some())
                .then_some(self.now)
                .hash(&mut state);
        }
        let mut path: Vec<_> = self.path.iter().collect();
        path.sort_by_key(|arrival| (arrival.at, arrival.order));
        path.into_iter().for_each(|arrival| (until(arrival.at), arrival.to, &arrival.what).hash(&mut state));
        (&self.held, until(self.dark_until), self.narrow, &self.streams).hash(&mut state);
        for (answered, host) in self.answered.iter().zip(&self.program.hosts) {
            answered.map(|at| host.answers_every().saturating_sub(self.now - at)).hash(&mut state);
        }
        (self.accepts, self.connects, self.mended, self.in_order, self.forged, self.resets > 0)
            .hash(&mut state);
        state.finish()
    }

    /// TIME-WAIT lasts for 2MSL from its last FIN, whatever else arrives but a SYN (RFC 9293 §3.6.1, RFC 1337).
    fn watch_time_wait(&mut self, host: usize, arrived: &Arrived, after: State) {
        let length = self.program.hosts[host].time_wait();
        let Arrived { local, remote, before, .. } = *arrived;
        let (before, flags) = (before.state, arrived.header.flags);
        let syn = flags.contains(Flags::SYN);
        let killed = flags.contains(Flags::RST) && !self.program.hosts[host].keeps_time_wait();
        self.disturbances += u32::from((syn || killed) && before == State::TimeWait);
        if before == State::TimeWait && after != before && !syn && self.program.hosts[host].keeps_time_wait()
        {
            self.wrong.get_or_insert(format!("{flags} ended TIME-WAIT"));
        }
        // A copy of a FIN may be old, and then begins nothing. Nor does a SYN that comes to nothing.
        let begins = match before {
            State::FinWait1 | State::FinWait2 | State::Closing => true,
            State::TimeWait => flags.contains(Flags::FIN) && self.in_order,
            _ => false,
        };
        if after == State::TimeWait && begins && !length.is_zero() {
            let boots = self.ends[host].boots;
            let watch =
                Watch { local, remote, boots, connects: self.connects, disturbances: self.disturbances };
            self.arrive(
                host,
                self.now + length.saturating_sub(Duration::from_millis(1)),
                What::TimeWait(watch),
            );
        }
    }

    fn check_time_wait(&mut self, host: usize, watch: Watch) {
        let end = &mut self.ends[host];
        let undisturbed =
            Watch { boots: end.boots, connects: self.connects, disturbances: self.disturbances, ..watch }
                == watch;
        let state = end.stack.variables(watch.local, watch.remote).state;
        if undisturbed && state != State::TimeWait {
            self.wrong.get_or_insert("TIME-WAIT ended before 2MSL".to_owned());
        }
    }

    /// Decides the fate of the packet that was sent last.
    pub(crate) fn decide(&mut self, fault: Option<Fault>) {
        let Some((from, packet)) = self.pending.take() else { return };
        let (to, soon) = (1 - from, self.now + DELAY);
        self.mended &= fault.is_none_or(Fault::is_mended);
        if let Some(fault) = fault {
            // The first packets have no round trip to go by.
            let first = self.now.saturating_since(self.syn_at) < DELAY * 6;
            self.delays.add(fault, first);
        }
        self.in_order &= fault.is_none_or(|fault| matches!(fault, Fault::Lose | Fault::Mark));
        // The RST that a forged packet draws has any number. A late one may have the number that it must have.
        self.mended &= !(self.forged && is_rst(&packet) && fault.is_some_and(Fault::is_late));
        if let Some(time) = fault.and_then(Fault::cut) {
            self.dark_until = self.now + time;
        }
        if self.now < self.dark_until {
            return;
        }
        self.narrow[from] |= fault == Some(Fault::Narrow);
        let error = match fault {
            Some(Fault::Reject) => Some(ErrorKind::HostUnreachable),
            _ if self.narrow[from] && packet.len() > NARROW as usize => {
                Some(ErrorKind::PacketTooBig { mtu: NARROW })
            }
            _ => None,
        };
        if let Some(kind) = error {
            if let Some(error) = router_error(kind, &packet) {
                self.arrive(from, soon, What::Packet(error));
            }
            return;
        }
        match fault {
            Some(Fault::Lose) => return,
            Some(Fault::Reorder) => {
                self.held.push((from, packet));
                self.arrive(to, self.now + OVERTAKING, What::Release);
                return;
            }
            Some(Fault::Delay) => self.arrive(to, soon + Duration::from_millis(1500), What::Packet(packet)),
            Some(Fault::Mark) => self.arrive(to, soon, What::Packet(marked(&packet))),
            Some(Fault::Duplicate | Fault::DuplicateLate) => {
                let late = if fault == Some(Fault::Duplicate) { 30 } else { 3000 };
                self.arrive(to, soon, What::Packet(packet.clone()));
                self.arrive(to, soon + Duration::from_millis(late), What::Packet(packet));
            }
            Some(Fault::Reboot) => {
                self.arrive(to, self.now + DELAY / 2, What::Reboot);
                self.arrive(to, soon, What::Packet(packet));
            }
            Some(Fault::Corrupt) => self.arrive(to, soon, What::Corrupt(corrupted(&packet))),
            Some(Fault::Fragment) => self.arrive(to, soon, What::Fragments(packet, false)),
            Some(Fault::FragmentLost) => self.arrive(to, soon, What::Fragments(packet, true)),
            Some(Fault::LoseAddress) => {
                let from = self.now + DELAY / 2;
                self.arrive(to, from, What::Addresses(false));
                self.arrive(to, from + ADDRESS_LOST, What::Addresses(true));
                self.arrive(to, soon, What::Packet(packet));
            }
            Some(Fault::Forge(forgery)) => {
                let victim = if forgery.ahead { to } else { from };
                let at = self.now + DELAY / 2;
                self.arrive(victim, at, What::Forged(forgery, packet.clone(), false));
                if forgery.is_sent_twice() {
                    self.arrive(victim, at + AGAIN, What::Forged(forgery, packet.clone(), true));
                }
                self.arrive(to, soon, What::Packet(packet));
            }
            _ => self.arrive(to, soon, What::Packet(packet)),
        }
        // It overtakes what waits for it.
        while let Some(held) = self.held.iter().position(|(sender, _)| *sender == from) {
            let (_, packet) = self.held.remove(held);
            self.arrive(to, soon + Duration::from_nanos(1), What::Packet(packet));
        }
    }

    fn arrive(&mut self, to: usize, at: Instant, what: What) {
        self.order += 1;
        self.path.push(Arrival { at, order: self.order, to, what });
    }

    fn reboot(&mut self, host: usize) {
        let end = &mut self.ends[host];
        end.boots += 1;
        let program = &self.program.hosts[host];
        end.stack = program.reboot(end.boots);
        end.apps = (0..program.apps_rebooted.len()).map(|index| App::new(index, self.now)).collect();
        self.run_apps(host);
    }

    fn has_addresses(&mut self, host: usize, has: bool) {
        let program = self.program.clone();
        for (address, len) in program.hosts[host].interface() {
            if has {
                self.ends[host].stack.add_address(address, len);
            } else {
                self.ends[host].stack.remove_address(address);
            }
        }
    }

    /// Tells the applications of an end what its stack reports. Returns whether there was anything.
    fn hear_events(&mut self, host: usize) -> bool {
        let End { stack, apps, .. } = &mut self.ends[host];
        let mut any = false;
        while let Some((id, event)) = stack.poll_event() {
            any = true;
            apps.iter_mut().for_each(|app| app.happened(id, event));
        }
        any
    }

    fn run_apps(&mut self, host: usize) {
        self.with_apps(host, |app, ops, context| app.run(ops, context));
    }

    /// Closes every handle that an application of either end has.
    pub(crate) fn close_all(&mut self) {
        for host in 0..2 {
            self.with_apps(host, |app, _, context| app.close_all(context));
        }
    }

    fn with_apps(
        &mut self,
        host: usize,
        mut call: impl FnMut(&mut App, &[Vec<crate::program::Op>], &mut Context<'_>),
    ) {
        let End { stack, apps, boots, sending } = &mut self.ends[host];
        let program = &self.program.hosts[host];
        let ops = if *boots == 0 { &program.apps } else { &program.apps_rebooted };
        let mut context = Context {
            now: self.now,
            stack,
            streams: &mut self.streams,
            wrong: &mut self.wrong,
            strict: self.mended && self.program.orderly,
            accepts: &mut self.accepts,
            connects: &mut self.connects,
        };
        apps.iter_mut().for_each(|app| call(app, ops, &mut context));
        *sending = true;
    }
}

fn is_rst(packet: &[u8]) -> bool {
    let headers = if packet[0] >> 4 == 4 { usize::from(packet[0] & 15) * 4 } else { 40 };
    let protocol = if packet[0] >> 4 == 4 { packet[9] } else { packet[6] };
    protocol == 6 && packet.get(headers + 13).is_some_and(|flags| flags & 4 != 0)
}

/// A segment whose checksum no longer fits: its flag RST is another one.
fn corrupted(packet: &[u8]) -> Bytes {
    let headers = if packet[0] >> 4 == 4 { usize::from(packet[0] & 15) * 4 } else { 40 };
    let mut corrupted = packet.to_vec();
    corrupted.get_mut(headers + 13).into_iter().for_each(|flags| *flags ^= 4);
    corrupted.into()
}

/// Returns whether a packet may be marked: ECN-capable transport.
fn is_ect(packet: &[u8]) -> bool {
    let ecn = match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet[1] & 3,
        Some(6) => packet[1] >> 4 & 3,
        _ => 0,
    };
    matches!(ecn, 1 | 2)
}

fn marked(packet: &[u8]) -> Bytes {
    let mut marked = packet.to_vec();
    if packet[0] >> 4 == 6 {
        marked[1] |= 0x30;
        return marked.into();
    }
    // The checksum of IPv4 counts the field (RFC 1624).
    let change = 3 - u32::from(packet[1] & 3);
    marked[1] |= 3;
    let sum = u32::from(u16::from_be_bytes([packet[10], packet[11]]));
    let sum = (!sum & 0xffff) + change;
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    marked[10..12].copy_from_slice(&sum.to_be_bytes());
    marked.into()
}

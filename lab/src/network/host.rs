//! A host: a stack with its own clock, and its applications.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use steadfast_core::counters::Counters;
use steadfast_core::trace::State;
use steadfast_core::{Config, Event, Instant, Interface, SocketId, Stack};
use steadfast_timeline::Map;

use crate::app::{HostApps, Program};
use crate::foreign::{Boot, Booter, Foreign, ForeignEntry};
use crate::rng::Rng;
use crate::scenario::script::{App, Start};
use crate::scenario::topology::HostSpec;

/// Packets that wait to be taken from a host outside of the simulation. More are lost.
const ARRIVED: usize = 65_536;

/// A host.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) v4: IpAddr,
    pub(crate) v6: IpAddr,
    spec: HostSpec,
    pub(crate) config: Config,
    /// How far its clock is ahead of the network's, in nanoseconds.
    pub(crate) ahead: i128,
    /// `None`: crashed, or played by a foreign TCP.
    pub(crate) stack: Option<Stack>,
    /// The foreign TCP; `None`: crashed.
    pub(crate) foreign: Option<Box<dyn Foreign>>,
    /// The packets that have reached a host that lies outside of the simulation. `None` for all others.
    pub(crate) outside: Option<VecDeque<Bytes>>,
    /// Constructs the foreign TCP. `None` for a host of our own.
    booter: Option<(Booter, Vec<(String, String)>)>,
    /// The last listing of the foreign TCP.
    pub(crate) entries: Vec<ForeignEntry>,
    /// Why the foreign TCP could not be started.
    pub(crate) failure: Option<String>,
    /// How many times it got a new secret.
    secrets: u32,
    boots: u32,
    apps: Vec<App>,
    pub(crate) host_apps: HostApps,
    /// Results of programs of earlier boots that differ from their scripts.
    pub(crate) earlier_mismatches: Vec<crate::app::Mismatch>,
    /// The counters of earlier stacks.
    pub(crate) past: Vec<Counters>,
    /// The scheduled times of the stack's timer and of the programs' next wake-up.
    pub(crate) timer: Option<Instant>,
    pub(crate) wake: Option<Instant>,
    /// The states last seen in the trace.
    pub(crate) states: Map<(SocketAddr, SocketAddr), State>,
    /// When each connection last left CLOSED or LISTEN.
    pub(crate) born: Map<(SocketAddr, SocketAddr), Instant>,
}

impl Host {
    pub(crate) fn new(spec: &HostSpec, v4: IpAddr, v6: IpAddr, config: Config) -> Host {
        Host {
            name: spec.name.clone(),
            v4,
            v6,
            spec: spec.clone(),
            config,
            ahead: spec.clock.as_nanos() as i128,
            stack: None,
            foreign: None,
            outside: None,
            booter: None,
            entries: Vec::new(),
            failure: None,
            secrets: 0,
            boots: 0,
            apps: Vec::new(),
            host_apps: HostApps::default(),
            earlier_mismatches: Vec::new(),
            past: Vec::new(),
            timer: None,
            wake: None,
            states: Map::default(),
            born: Map::default(),
        }
    }

    /// A host outside of the simulation: its packets are given, and those that reach it are taken.
    pub(crate) fn outside(name: &str, v4: IpAddr, v6: IpAddr) -> Host {
        let host = Host::new(&HostSpec::new(name), v4, v6, Config::default());
        Host { outside: Some(VecDeque::new()), ..host }
    }

    /// Lets a foreign TCP play this host.
    pub(crate) fn play(&mut self, booter: Booter, sysctls: Vec<(String, String)>) {
        self.booter = Some((booter, sysctls));
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.booter.is_some()
    }

    /// Boots for the first time.
    pub(super) fn boot(&mut self, seed: u64, apps: &[App], now: Instant) {
        self.apps = apps.iter().filter(|app| app.host == self.name).cloned().collect();
        self.start(seed, now);
    }

    /// Boots after a crash.
    pub(super) fn reboot(&mut self, seed: u64, now: Instant, same_secret: bool, same_clock: bool) {
        if !same_secret {
            self.secrets += 1;
        }
        if same_clock {
            self.ahead = self.spec.clock.as_nanos() as i128 - i128::from(now.as_nanos());
        }
        self.start(seed, now);
    }

    fn start(&mut self, seed: u64, now: Instant) {
        if self.outside.is_some() {
            // It runs already.
        } else if self.is_foreign() {
            self.start_foreign();
        } else {
            self.start_stack(seed);
        }
        let first = self.boots == 0;
        let wanted = |start: Start| match start {
            Start::Always => true,
            Start::First => first,
            Start::Rebooted => !first,
        };
        self.boots += 1;
        self.host_apps = HostApps::default();
        self.host_apps.programs =
            self.apps.iter().filter(|app| wanted(app.start)).map(|app| Program::new(app, now)).collect();
    }

    fn start_foreign(&mut self) {
        let Some((booter, sysctls)) = &mut self.booter else { return };
        let boot = Boot {
            name: self.name.clone(),
            v4: self.v4,
            v6: self.v6,
            mtu: self.spec.mtu,
            sysctls: sysctls.clone(),
            config: self.config.clone(),
        };
        match booter(&boot) {
            Ok(foreign) => self.foreign = Some(foreign),
            Err(text) => self.failure = Some(text),
        }
    }

    fn start_stack(&mut self, seed: u64) {
        let mut rng = match self.spec.secret {
            Some(number) => Rng::split(number, &format!("shared secret {}", self.secrets)),
            None => Rng::split(seed, &format!("secret of {} {}", self.name, self.secrets)),
        };
        let config = Config { secret: rng.bytes(), ..self.config.clone() };
        let interface = Interface::new(self.spec.mtu, [(self.v4, 24), (self.v6, 64)]);
        let mut stack = Stack::new(config, interface);
        stack.set_tracing(true);
        self.stack = Some(stack);
    }

    /// Gives it its addresses, or takes them away. The addresses of a TCP that is not ours stay.
    pub(super) fn has_addresses(&mut self, has: bool) {
        let Some(stack) = &mut self.stack else { return };
        for (address, len) in [(self.v4, 24), (self.v6, 64)] {
            if has {
                stack.add_address(address, len);
            } else {
                stack.remove_address(address);
            }
        }
    }

    /// Loses all state.
    pub(super) fn crash(&mut self) {
        if let Some(stack) = self.stack.take() {
            self.past.push(stack.counters().clone());
        }
        self.foreign = None;
        self.entries.clear();
        let host_apps = std::mem::take(&mut self.host_apps);
        self.earlier_mismatches.extend(host_apps.mismatches);
        self.host_apps.io.known = host_apps.io.known;
        self.timer = None;
        self.wake = None;
        self.states.clear();
    }

    pub(crate) fn is_up(&self) -> bool {
        self.stack.is_some() || self.foreign.is_some() || self.outside.is_some()
    }

    pub(super) fn poll_event(&mut self) -> Option<(SocketId, Event)> {
        match (&mut self.stack, &mut self.foreign) {
            (Some(stack), _) => stack.poll_event(),
            (None, foreign) => foreign.as_mut()?.poll_event(),
        }
    }

    pub(super) fn receive(&mut self, now: Instant, packet: &Bytes) {
        let now = self.clock_at(now);
        if let Some(stack) = &mut self.stack {
            stack.receive(now, packet.clone());
        } else if let Some(foreign) = &mut self.foreign {
            foreign.receive(packet);
        } else if let Some(arrived) = self.outside.as_mut().filter(|arrived| arrived.len() < ARRIVED) {
            arrived.push_back(packet.clone());
        }
    }

    /// Writes the next packet that it sends to `frame`, and returns its length.
    pub(super) fn transmit(&mut self, now: Instant, frame: &mut [u8]) -> Option<usize> {
        let now = self.clock_at(now);
        match (&mut self.stack, &mut self.foreign) {
            (Some(stack), _) => stack.transmit(now, frame).map(|sent| sent.len),
            (None, foreign) => foreign.as_mut()?.transmit(frame),
        }
    }

    /// The time on its clock when the network's clock shows `now`.
    pub(crate) fn clock_at(&self, now: Instant) -> Instant {
        Instant::from_nanos(u64::try_from(i128::from(now.as_nanos()) + self.ahead).unwrap_or(0))
    }

    /// The network's time when its clock will show `at`.
    pub(crate) fn when(&self, at: Instant) -> Instant {
        Instant::from_nanos(u64::try_from(i128::from(at.as_nanos()) - self.ahead).unwrap_or(0))
    }

    /// The value of a counter, summed over all boots.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.each_counters().filter_map(|counters| counters.value(name)).sum()
    }

    /// The counters of every boot.
    pub(crate) fn each_counters(&self) -> impl Iterator<Item = &Counters> {
        self.past.iter().chain(self.stack.as_ref().map(Stack::counters))
    }
}

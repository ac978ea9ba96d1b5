//! A wire with the lab's faults between two ends in the real world: C, and S, which has all other addresses.
//!
//! The network, its faults and its records are those of every scenario. Only the ends and the clock are given: the
//! caller brings packets and times, and takes the packets that arrive.
//!
//! ```
//! use steadfast_core::Instant;
//! use steadfast_lab::wire::{End, Wire, WireOptions};
//!
//! let fault = "lose C>S all 1".parse().unwrap();
//! let mut wire = Wire::new([fault], WireOptions::new(["10.0.2.15".parse().unwrap()])).unwrap();
//! let packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 2, 15, 198, 51, 100, 1];
//! for _ in 0..2 {
//!     wire.send(Instant::ZERO, End::C, packet.to_vec().into());
//! }
//! assert_eq!(wire.arrived(End::S).as_deref(), Some(&packet[..]));
//! assert_eq!(wire.arrived(End::S), None);
//! assert_eq!(wire.hits().next().unwrap().1, 1);
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use steadfast_core::{Duration, Instant, Profile};
use steadfast_timeline::Timeline;
use steadfast_timeline::view::View;

use crate::app::Directory;
use crate::fault::{Direction, Fault, FaultKind};
use crate::network::host::Host;
use crate::network::nat::Nats;
use crate::network::{Network, Paths, Plan};
use crate::path::PathChange;
use crate::scenario::{Case, Scenario};
use crate::text::Tolerance;

/// An end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The end with the given addresses.
    C,
    /// The end with all others.
    S,
}

impl End {
    fn index(self) -> usize {
        self as usize
    }
}

/// How a wire is made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WireOptions {
    /// The addresses of C: at most one of each family counts.
    pub addresses: Vec<IpAddr>,
    /// The seed of all randomness.
    pub seed: u64,
    /// Keep what happens, for a ladder.
    pub record: bool,
    /// Keep the packets, for a capture.
    pub capture: bool,
}

impl WireOptions {
    /// These addresses for C, the seed 0, and no record.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> WireOptions {
        WireOptions { addresses: addresses.into_iter().collect(), seed: 0, record: false, capture: false }
    }
}

/// A wire with faults.
pub struct Wire {
    network: Network,
}

impl Wire {
    /// A wire without delay, on which these faults act. Times in them count from [`Instant::ZERO`].
    ///
    /// # Errors
    ///
    /// A fault names another host than C and S, needs a host that can crash, or the state of a connection. The message
    /// tells which one, and what was expected.
    pub fn new(faults: impl IntoIterator<Item = Fault>, options: WireOptions) -> Result<Wire, String> {
        let faults: Vec<Fault> = faults.into_iter().collect();
        faults.iter().try_for_each(check)?;
        let of_family = |v4: bool| options.addresses.iter().copied().find(|address| address.is_ipv4() == v4);
        let v4 = of_family(true).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let v6 = of_family(false).unwrap_or(Ipv6Addr::UNSPECIFIED.into());
        // No packet has these as an address.
        let none: (IpAddr, IpAddr) = (Ipv4Addr::BROADCAST.into(), Ipv6Addr::from_bits(u128::MAX).into());
        let hosts = vec![Host::outside("C", v4, v6), Host::outside("S", none.0, none.1)];
        let mut paths = Paths::new(&["C".to_owned(), "S".to_owned()], options.seed);
        let both = Direction::parse("*").expect("`*` is a direction");
        paths.plan(&both, &[PathChange::Delay(Duration::ZERO)]);
        let mut network = Network::new(Plan {
            hosts,
            directory: Directory::default(),
            nats: Nats::default(),
            paths,
            faults,
            apps: Vec::new(),
            checks: Vec::new(),
            seed: options.seed,
            swarm: None,
            lenient: true,
            tolerance: Tolerance::NONE,
            info: false,
            record: options.record,
            capture: options.capture,
        });
        network.rest = Some(End::S.index());
        let hosts = &mut network.timeline.hosts;
        hosts[End::C.index()].addresses = options.addresses;
        hosts[End::S.index()].addresses.clear();
        Ok(Wire { network })
    }

    /// Sends an IP packet from an end. One that is not for the other end is dropped.
    pub fn send(&mut self, now: Instant, from: End, packet: Bytes) {
        self.advance(now);
        let destination = View::new(&packet).map(|view| view.destination);
        if destination.is_none_or(|destination| self.network.host_at(destination) == Some(from.index())) {
            return;
        }
        self.network.send(from.index(), packet);
        self.advance(now);
    }

    /// Does all that is due by `now`.
    pub fn advance(&mut self, now: Instant) {
        let now = now.max(self.network.now);
        self.network.run(Some(now), |_, _| None);
        self.network.now = now;
        // They are judged in scenarios, and would grow without end here.
        self.network.violations.clear();
        self.network.iss.clear();
    }

    /// When [`advance`](Wire::advance) has something to do.
    pub fn next_at(&mut self) -> Option<Instant> {
        self.network.next_at()
    }

    /// Takes the next packet that has arrived at an end.
    pub fn arrived(&mut self, at: End) -> Option<Bytes> {
        self.network.hosts[at.index()].outside.as_mut()?.pop_front()
    }

    /// Returns whether a packet has arrived at an end.
    pub fn has_arrived(&self, at: End) -> bool {
        self.network.hosts[at.index()].outside.as_ref().is_some_and(|arrived| !arrived.is_empty())
    }

    /// The faults, each with the number of packets that it has hit.
    pub fn hits(&self) -> impl Iterator<Item = (&Fault, u64)> {
        self.network.hits()
    }

    /// The record of all packets.
    pub fn timeline(&self) -> &Timeline {
        &self.network.timeline
    }
}

/// Checks that a fault can act on a wire.
fn check(fault: &Fault) -> Result<(), String> {
    if let Some(host) = fault.hosts().into_iter().find(|host| !matches!(*host, "C" | "S")) {
        return Err(format!("`{fault}`: expected C, the program, or S, the network, found `{host}`"));
    }
    let needs = match &fault.kind {
        FaultKind::Crash { .. } | FaultKind::Reboot { .. } | FaultKind::Stall { .. } => {
            "a host that can stop"
        }
        FaultKind::Clock { .. } => "a host whose clock can jump",
        FaultKind::LoseAddress { .. } => "a host whose addresses can go",
        FaultKind::Flood(_) => "a host with one address",
        FaultKind::Packets { pattern, .. } if pattern.state.is_some() => "the state of the sender",
        _ => return Ok(()),
    };
    Err(format!("`{fault}`: expected a fault of packets or paths, and this one needs {needs}"))
}

/// The faults of a scenario that can act on a wire, as it has them in its first phase.
///
/// # Errors
///
/// The scenario has no fault, or one that cannot act on a wire.
pub fn faults_of(scenario: &Scenario) -> Result<Vec<Fault>, String> {
    let phase = scenario.phases.first().map_or("", |phase| phase.name.as_str());
    let case = Case { profile: Profile::Default, phase, kernel: None };
    let faults: Vec<Fault> = scenario.faults(&case).into_iter().cloned().collect();
    if faults.is_empty() {
        return Err(format!("scenario {}: expected one with faults, and it has none", scenario.id));
    }
    faults.iter().try_for_each(check).map_err(|error| format!("scenario {}: {error}", scenario.id))?;
    Ok(faults)
}

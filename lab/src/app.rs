//! Applications: programs of blocking calls, servers and crowds of clients. They call the stack's public API.

mod clients;
mod datagrams;
mod io;
mod program;
mod serve;

use std::net::{IpAddr, SocketAddr};

use steadfast_core::{Error, Event, Instant, SocketId};
use steadfast_timeline::{Map, Timeline};

pub(crate) use self::io::Io;
pub(crate) use self::program::Program;
use crate::datagrams::Datagrams;
use crate::foreign::Sockets;
use crate::network::nat::Nats;
use crate::scenario::expect::Invariant;
use crate::scenario::script::{Endpoint, Target};
use crate::stream::Streams;
use crate::text::Tolerance;

/// The context of a program: the stack of its host and the records of the lab.
pub(crate) struct AppContext<'a> {
    pub(crate) now: Instant,
    /// Time on the host's own clock, which may have jumped.
    pub(crate) host_now: Instant,
    pub(crate) host: usize,
    pub(crate) stack: &'a mut dyn Sockets,
    pub(crate) streams: &'a mut Streams,
    pub(crate) datagrams: &'a mut Datagrams,
    pub(crate) timeline: &'a mut Timeline,
    pub(crate) directory: &'a Directory,
    pub(crate) nats: &'a Nats,
    /// When each connection of this host was created.
    pub(crate) born: &'a Map<(SocketAddr, SocketAddr), Instant>,
    pub(crate) violations: &'a mut Vec<Violation>,
    /// Do not judge outcomes; end a program at the first call that fails.
    pub(crate) lenient: bool,
    pub(crate) tolerance: Tolerance,
}

/// An invariant that was violated.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) at: Instant,
    pub(crate) rule: Invariant,
    pub(crate) text: String,
}

impl AppContext<'_> {
    /// Records a socket call or its result.
    pub(crate) fn record(&mut self, text: impl FnOnce() -> String) {
        self.timeline.call(self.now, self.host, text);
    }

    pub(crate) fn violated(&mut self, rule: Invariant, text: String) {
        self.violations.push(Violation { at: self.now, rule, text });
    }
}

/// Addresses of the hosts, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    pub(crate) hosts: Vec<(String, IpAddr, IpAddr)>,
    pub(crate) ipv6: bool,
}

impl Directory {
    /// Returns the socket address of an endpoint. `None` for an unknown host, which the parser rules out.
    pub(crate) fn resolve(&self, (target, port): &Endpoint) -> Option<SocketAddr> {
        let address = match target {
            Target::Address(address) => *address,
            Target::Host(name) => {
                let (_, v4, v6) = self.hosts.iter().find(|(host, ..)| host == name)?;
                if self.ipv6 { *v6 } else { *v4 }
            }
        };
        Some(SocketAddr::new(address, *port))
    }

    /// The index of the host with this address.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<usize> {
        self.hosts.iter().position(|(_, v4, v6)| *v4 == address || *v6 == address)
    }

    /// The wildcard address of the address family in use.
    pub(crate) fn unspecified(&self) -> IpAddr {
        if self.ipv6 { IpAddr::from([0u16; 8]) } else { IpAddr::from([0u8; 4]) }
    }
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Done,
    /// End of the stream, after this many bytes.
    Eof(u64),
    /// End of the stream before all wanted bytes arrived.
    EarlyEof(u64),
    /// A datagram with this many bytes.
    Datagram(u64),
    /// How many connections succeeded.
    Number {
        got: u64,
        wanted: u64,
    },
    Error(Error),
}

impl std::fmt::Display for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Got::Done => f.write_str("ok"),
            Got::Eof(bytes) => write!(f, "eof after {bytes} bytes"),
            Got::EarlyEof(bytes) => write!(f, "eof after only {bytes} bytes"),
            Got::Datagram(bytes) => write!(f, "{bytes} bytes"),
            Got::Number { got, wanted } => write!(f, "{got} of {wanted}"),
            Got::Error(error) => f.write_str(error.name()),
        }
    }
}

/// A result that differs from the one in the script.
#[derive(Clone, Debug)]
pub(crate) struct Mismatch {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// The applications of one host between two boots.
#[derive(Default)]
pub(crate) struct HostApps {
    pub(crate) io: Io,
    pub(crate) programs: Vec<Program>,
    pub(crate) mismatches: Vec<Mismatch>,
}

impl HostApps {
    /// Runs every program as far as it can go. `changed` lists the stack's events since the last call.
    pub(crate) fn run(&mut self, context: &mut AppContext<'_>, changed: &[(SocketId, Event)]) {
        for (id, event) in changed {
            self.io.happened(*id, *event);
        }
        for program in &mut self.programs {
            program.run(&mut self.io, context, changed, &mut self.mismatches);
        }
    }

    /// When the next program wants to run without an event.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.programs.iter().filter_map(Program::wakes_at).min()
    }

    /// Closes every socket.
    pub(crate) fn close_all(&mut self, context: &mut AppContext<'_>) {
        self.programs.clear();
        for id in self.io.open_sockets() {
            let _gone = self.io.close(context, id);
        }
    }
}

//! Programs: scenarios without faults, made ready to be played many times.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use steadfast_core::{Config, Duration, Instant, Interface, Shutdown, Stack};
use steadfast_lab::Scenario;
use steadfast_lab::scenario::Case;
use steadfast_lab::scenario::script::{Call, Expected, Read, Setting, Start, Step, Target, Wait};

use crate::ends::{END_NAMES, START};
use crate::options::Options;

/// A scenario that can be explored: hosts C and S, each with its applications.
#[derive(Clone, Debug)]
pub struct Program {
    /// The scenario's id.
    pub id: String,
    /// Its title.
    pub title: String,
    pub(crate) hosts: [Host; 2],
    /// Every outcome must be the expected one while TCP mends what happens: no application breaks a connection.
    pub(crate) orderly: bool,
    /// How long its applications work without faults. Without it, no run is late.
    pub(crate) time: Option<Duration>,
}

/// A host of a program.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Freshly booted, and copied for each run.
    pub(crate) stack: Stack,
    config: Config,
    /// The clock of its initial sequence numbers stands still.
    stopped: bool,
    addresses: [IpAddr; 2],
    pub(crate) apps: Vec<Vec<Op>>,
    /// The programs that start after a crash.
    pub(crate) apps_rebooted: Vec<Vec<Op>>,
}

impl Host {
    /// Its addresses and the lengths of their prefixes.
    pub(crate) fn interface(&self) -> [(IpAddr, u8); 2] {
        interface(self.addresses)
    }

    /// 2MSL.
    pub(crate) fn time_wait(&self) -> Duration {
        self.config.tcp_tw_timeout
    }

    /// Whether its arrivals are judged by RFC 9293. Linux and BSD check in another order.
    pub(crate) fn follows_rfc(&self) -> bool {
        let Config { tcp_insecure_rst, tcp_insecure_syn, tcp_bsd_rules, .. } = self.config;
        !(tcp_insecure_rst || tcp_insecure_syn || tcp_bsd_rules || self.config.linux_release > 0)
    }

    /// How soon after an answer to an invalid segment the next one may go out.
    pub(crate) fn answers_every(&self) -> Duration {
        self.config.tcp_invalid_ratelimit
    }

    /// Whether it reports duplicates (RFC 2883), where SACK is agreed on.
    pub(crate) fn reports_duplicates(&self) -> bool {
        self.config.tcp_dsack
    }

    /// Whether FIN-WAIT-2 ends without the peer's FIN, once the application has closed.
    pub(crate) fn ends_fin_wait_2(&self) -> bool {
        !self.config.tcp_fin_timeout.is_zero()
    }

    /// Whether a RST does not end TIME-WAIT.
    pub(crate) fn keeps_time_wait(&self) -> bool {
        self.config.tcp_rfc1337
    }

    /// The stack after a crash: it has another secret.
    pub(crate) fn reboot(&self, boots: u32) -> Stack {
        boot(&self.config, self.addresses, boots, self.stopped)
    }
}

fn interface([v4, v6]: [IpAddr; 2]) -> [(IpAddr, u8); 2] {
    [(v4, 24), (v6, 64)]
}

fn boot(config: &Config, addresses: [IpAddr; 2], boots: u32, stopped: bool) -> Stack {
    let mut secret = config.secret;
    secret[0] ^= boots as u8;
    let interface = Interface::new(1500, interface(addresses));
    let mut stack = Stack::new(Config { secret, ..config.clone() }, interface);
    if stopped {
        stack.stop_clock();
    }
    stack
}

/// A step of an application.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) text: String,
    pub(crate) at: Option<Instant>,
    pub(crate) after: Duration,
    /// The place of its socket; `None`: the last one of the application.
    pub(crate) socket: Option<usize>,
    pub(crate) call: Action,
    pub(crate) expected: Expected,
}

/// A call.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Connect {
        to: SocketAddr,
        port: Option<u16>,
        fast_open: bool,
        nowait: bool,
        options: Vec<Setting>,
        place: usize,
    },
    Listen {
        local: SocketAddr,
        backlog: Option<u32>,
        fast_open: bool,
        options: Vec<Setting>,
        place: usize,
    },
    Accept {
        place: usize,
    },
    Send {
        len: u64,
        urgent: bool,
    },
    Read(Read),
    Shutdown(Shutdown),
    Close,
    Abort,
    Set(Vec<Setting>),
    Wait(Wait),
    Sleep,
}

/// Why a scenario is no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {text}")]
pub struct ProgramError {
    /// The file.
    pub file: String,
    /// The line and what is wrong.
    pub text: String,
}

impl Program {
    /// Makes a scenario ready. Fails if it has faults, hosts other than C and S, phases, or calls that are not explored:
    /// `clients`, `serve`, `send` in chunks.
    pub fn new(scenario: &Scenario, options: &Options) -> Result<Program, ProgramError> {
        let wrong = |text: String| ProgramError { file: scenario.file.to_string(), text };
        let case = Case { profile: options.profile, ..Case::default() };
        if !scenario.faults(&case).is_empty() {
            return Err(wrong("expected a scenario without faults: these are explored".to_owned()));
        }
        let v4 = |host: u8| IpAddr::from(Ipv4Addr::new(10, 0, 0, host));
        let v6 = |host: u16| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host));
        let addresses = [[v4(1), v6(1)], [v4(2), v6(2)]];
        let apps = scenario.apps(&case);
        if let Some(app) = apps.iter().find(|app| !END_NAMES.contains(&app.host.as_str())) {
            return Err(wrong(format!("expected the hosts C and S, found `{}`", app.host)));
        }
        let host = |end: usize| {
            let mut config = Config::profile(options.profile);
            let own = |sysctl: &&steadfast_lab::scenario::Sysctl| {
                sysctl.host.as_ref().is_none_or(|host| host == END_NAMES[end])
            };
            let sysctls = scenario.sysctls(&case);
            let settings = sysctls.into_iter().filter(own).map(|sysctl| &sysctl.text).chain(&options.sysctls);
            for text in settings {
                config.apply(text).map_err(|error| wrong(format!("`{text}`: {}", error.message())))?;
            }
            config.secret = [end as u8 + 1; 32];
            let peer = addresses[1 - end][usize::from(scenario.ipv6)];
            let compile = |start: &dyn Fn(Start) -> bool| {
                let own = apps.iter().filter(|app| app.host == END_NAMES[end] && start(app.start));
                own.map(|app| compile(&app.steps, peer).map_err(wrong)).collect::<Result<Vec<_>, _>>()
            };
            Ok(Host {
                stack: boot(&config, addresses[end], 0, options.states),
                stopped: options.states,
                apps: compile(&|start| start != Start::Rebooted)?,
                apps_rebooted: compile(&|start| start != Start::First)?,
                addresses: addresses[end],
                config,
            })
        };
        let hosts = [host(0)?, host(1)?];
        let breaks = |op: &Op| {
            matches!(op.call, Action::Abort)
                || matches!(op.expected, Expected::Any | Expected::Error(_) | Expected::Waits)
        };
        let orderly = !hosts.iter().flat_map(|host| &host.apps).flatten().any(breaks);
        Ok(Program { id: scenario.id.clone(), title: scenario.title.clone(), hosts, orderly, time: None })
    }

    /// The longest first timeout of a handshake, the longest smallest RTO, and the longest delay of an ACK.
    pub(crate) fn timeouts(&self) -> (Duration, Duration, Duration) {
        let [c, s] = self.hosts.each_ref().map(|host| {
            let Config { tcp_syn_intervals, tcp_rto_initial, tcp_rto_min, tcp_delack, .. } = &host.config;
            (tcp_syn_intervals.first().unwrap_or(tcp_rto_initial), tcp_rto_min, tcp_delack)
        });
        (*c.0.max(s.0), *c.1.max(s.1), *c.2.max(s.2))
    }
}

/// The names of the sockets of an application, by their places.
#[derive(Default)]
struct Names(Vec<Option<String>>);

impl Names {
    fn add(&mut self, name: &Option<String>) -> usize {
        self.0.push(name.clone());
        self.0.len() - 1
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().rposition(|other| other.as_deref() == Some(name))
    }
}

/// The wildcard address of a peer's address family.
fn unspecified(peer: IpAddr) -> IpAddr {
    if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn compile(steps: &[Step], peer: IpAddr) -> Result<Vec<Op>, String> {
    let (mut ops, mut names) = (Vec::new(), Names::default());
    compile_into(steps, peer, &mut names, &mut ops)?;
    Ok(ops)
}

fn compile_into(steps: &[Step], peer: IpAddr, names: &mut Names, ops: &mut Vec<Op>) -> Result<(), String> {
    for step in steps {
        if let Call::Repeat { times, body } = &step.call {
            for _ in 0..*times {
                compile_into(body, peer, names, ops)?;
            }
            continue;
        }
        let line = |text: &str| format!("line {}: `{}`: {text}", step.line, step.text);
        let socket = match &step.socket {
            None => None,
            Some(name) => Some(names.find(name).ok_or_else(|| line("no socket has this name before it"))?),
        };
        let mut after = step.after.unwrap_or_default();
        let call = match &step.call {
            Call::Connect { to: (Target::Host(_), port), from, name, fast_open, nowait, options } => {
                Action::Connect {
                    to: SocketAddr::new(peer, *port),
                    port: from.map(|(_, port)| port),
                    fast_open: *fast_open,
                    nowait: *nowait,
                    options: options.clone(),
                    place: names.add(name),
                }
            }
            Call::Listen { on: (None, port), backlog, fast_open, name, options } => Action::Listen {
                local: SocketAddr::new(unspecified(peer), *port),
                backlog: *backlog,
                fast_open: *fast_open,
                options: options.clone(),
                place: names.add(name),
            },
            Call::Accept { name } => Action::Accept { place: names.add(name) },
            Call::Send { len, chunk: None, to: None, urgent } => Action::Send { len: *len, urgent: *urgent },
            Call::Read(how) => Action::Read(*how),
            Call::Shutdown(how) => Action::Shutdown(*how),
            Call::Close => Action::Close,
            Call::Abort => Action::Abort,
            Call::Set(settings) => Action::Set(settings.clone()),
            Call::Wait(what) => Action::Wait(*what),
            Call::Sleep(time) => {
                after += *time;
                Action::Sleep
            }
            _ => return Err(line("this call is not explored")),
        };
        let expected = step.outcome().map_or(Expected::Ok, |outcome| outcome.what.clone());
        let at = step.at.map(|at| START + (at - Instant::ZERO));
        ops.push(Op { text: step.text.clone(), at, after, socket, call, expected });
    }
    Ok(())
}

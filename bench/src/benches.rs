//! The benchmarks by name.

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use steadfast_core::Config;

use crate::flood;
use crate::footprint;
use crate::library;
use crate::listing;
use crate::lossy;
use crate::measure::{Effort, Rounds, rate};
use crate::ours::Stacks;
use crate::pair::{Pair, Setup};
use crate::peer::Peers;
use crate::report::{Goal, Row, Unit};
use crate::sharing;
use crate::tun;
use crate::tun_flood;
use crate::{Arguments, Command, gateway, path, pcap, report};

/// A benchmark.
pub(crate) struct Bench {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// A description in one line.
    pub(crate) what: &'static str,
    /// Runs it and returns its rows. The second argument reports progress.
    pub(crate) run: fn(&Effort, &dyn Fn(String)) -> Vec<Row>,
}

/// All benchmarks.
pub(crate) const ALL: &[Bench] = &[
    Bench {
        name: "mem_bulk_1500",
        what: "one connection, MTU 1500, checksums on, copying API",
        run: |effort, progress| {
            vec![versus("mem_bulk_1500", &Setup::PLAIN, Work::Bulk, Goal::Ratio(2.0), effort, progress)]
        },
    },
    Bench {
        name: "mem_bulk_super",
        what: "the same with segments of 64 KiB",
        run: |effort, progress| {
            let setup = Setup { super_segments: true, ..Setup::PLAIN };
            vec![versus("mem_bulk_super", &setup, Work::Bulk, Goal::Ratio(2.0), effort, progress)]
        },
    },
    Bench {
        name: "mem_rr_64",
        what: "64 bytes there and back",
        run: |effort, progress| {
            vec![versus("mem_rr_64", &Setup::PLAIN, Work::RoundTrip, Goal::Ratio(1.3), effort, progress)]
        },
    },
    Bench {
        name: "mem_crr",
        what: "connect and close; TIME-WAIT is kept (the peer's is not)",
        run: |effort, progress| {
            vec![versus("mem_crr", &Setup::PLAIN, Work::ConnectClose, Goal::Ratio(1.0), effort, progress)]
        },
    },
    Bench {
        name: "mem_one_port",
        what: "connect and close to one port, with every local port in TIME-WAIT: the oldest is taken over",
        run: one_port,
    },
    Bench {
        name: "mem_time_wait",
        what: "connect and close beside a thousand and a million TIME-WAIT entries",
        run: time_wait,
    },
    Bench {
        name: "mem_flows",
        what: "a thousand transfers over paths of 20 ms, without losses and with 1 %",
        run: lossy::run,
    },
    Bench { name: "mem_scale", what: "all of these beside 1 to 1,000,000 idle connections", run: scale },
    Bench { name: "mem_idle", what: "a turn in which nothing happens, beside as many", run: idle },
    Bench {
        name: "synflood_mem",
        what: "SYNs in, cookies out, handshakes between them; fails if one of those does",
        run: flood::run,
    },
    Bench {
        name: "flood_beside",
        what: "what a transfer carries beside a flood that fills every turn, as a part of what it carries alone",
        run: sharing::flood_beside,
    },
    Bench {
        name: "fair_share",
        what: "the least share of 100 transfers as a part of the most, while others are reset",
        run: sharing::fair_share,
    },
    Bench { name: "bytes_idle", what: "memory of an idle connection", run: footprint::idle },
    Bench { name: "bytes_timewait", what: "memory of a TIME-WAIT entry", run: footprint::time_wait },
    Bench { name: "bytes_halfopen", what: "memory of a half-open connection", run: footprint::half_open },
    Bench {
        name: "bytes_cookie",
        what: "memory that a SYN takes which a cookie answers",
        run: footprint::cookie,
    },
    Bench {
        name: "library_bulk",
        what: "the library in one program, in memory and over TUN; the peer: Tokio over loopback",
        run: library::bulk,
    },
    Bench { name: "library_rr", what: "the same, 64 bytes there and back", run: library::round_trips },
    Bench {
        name: "ss_100k",
        what: "100,000 sockets listed while a connection transfers",
        run: listing::rows,
    },
    Bench { name: "library_cc", what: "the same, connect and close", run: library::connections },
    Bench {
        name: "tun_bulk_1500_in",
        what: "one connection of the kernel's to us over TUN",
        run: tun::bulk_in,
    },
    Bench { name: "tun_bulk_1500_out", what: "the same from us", run: tun::bulk_out },
    Bench { name: "tun_bulk_1500_plain", what: "both without offload", run: tun::bulk_plain },
    Bench { name: "tun_flows", what: "many connections at a time, to one queue and to two", run: tun::flows },
    Bench {
        name: "tun_rr",
        what: "64 bytes there and back; the peer: kernel over veth",
        run: tun::round_trip,
    },
    Bench {
        name: "tun_crr",
        what: "connect, a byte there and back, close; the peer: kernel over veth",
        run: tun::connect_request_response,
    },
    Bench {
        name: "synflood_tun",
        what: "cookies in a second of CPU time; the peer: the kernel; fails if a client in between does",
        run: tun_flood::run,
    },
    Bench {
        name: "flood_beside_tun",
        what: "what the kernel reads from us beside 200,000 SYNs a second, as a part of what it reads without them",
        run: tun_flood::beside,
    },
];

/// Runs the chosen benchmarks, or a subcommand.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if let Some(command) = &arguments.command {
        let result = match command {
            Command::Paths(arguments) => path::run(arguments).map_err(|error| error.to_string()),
            Command::Gateway(arguments) => return gateway::run(arguments),
            Command::GatewayClient(arguments) => return gateway::client(arguments),
            Command::Pcap => pcap::run().map_err(|error| error.to_string()),
        };
        return match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::from(2)
            }
        };
    }
    let chosen = match choose(&arguments.names) {
        Ok(chosen) => chosen,
        Err(name) => {
            eprintln!("error: no bench begins with `{name}`; --list names them");
            return ExitCode::from(2);
        }
    };
    if arguments.list {
        chosen.iter().for_each(|bench| println!("{:<22}{}", bench.name, bench.what));
        return ExitCode::SUCCESS;
    }
    let effort = Effort {
        rounds: arguments.rounds.max(1),
        seconds: if arguments.quick { 0.1 } else { 0.3 },
        quick: arguments.quick,
        alone: arguments.alone,
    };
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{elapsed} {msg}").expect("a template"));
    let progress = |message| {
        bar.set_message(message);
        bar.tick();
    };
    let rows: Vec<_> = chosen.iter().flat_map(|bench| (bench.run)(&effort, &progress)).collect();
    bar.finish_and_clear();
    if arguments.json {
        println!("{:#}", report::json(&rows));
    } else {
        print!("{}", report::table(&rows));
    }
    ExitCode::SUCCESS
}

/// Returns the benchmarks whose names begin with one of `names`, or the first name that no benchmark begins with.
fn choose(names: &[String]) -> Result<Vec<&'static Bench>, &str> {
    let begins = |bench: &Bench, name: &String| bench.name.starts_with(name.as_str());
    if let Some(name) = names.iter().find(|name| !ALL.iter().any(|bench| begins(bench, name))) {
        return Err(name);
    }
    let chosen = |bench: &&Bench| names.is_empty() || names.iter().any(|name| begins(bench, name));
    Ok(ALL.iter().filter(chosen).collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Bulk,
    RoundTrip,
    ConnectClose,
    Empty,
}

impl Work {
    fn unit(self) -> Unit {
        match self {
            Work::Bulk => Unit::Bits,
            Work::RoundTrip | Work::ConnectClose => Unit::Events,
            Work::Empty => Unit::Seconds,
        }
    }

    /// Measures one round.
    fn measure(self, pair: &mut impl Pair, seconds: f64) -> f64 {
        let per_second = rate(seconds, || match self {
            Work::Bulk => pair.bulk_turn() as f64 * 8.0,
            Work::RoundTrip => {
                pair.round_trip();
                1.0
            }
            Work::ConnectClose => {
                pair.connect_close();
                1.0
            }
            Work::Empty => {
                pair.empty_turn();
                1.0
            }
        });
        if self == Work::Empty { 1.0 / per_second } else { per_second }
    }
}

/// Measures our side and the peer's in alternating rounds. The first round of each is a warm-up.
fn versus(
    name: &str,
    setup: &Setup,
    work: Work,
    goal: Goal,
    effort: &Effort,
    progress: &dyn Fn(String),
) -> Row {
    let mut ours = Stacks::new(setup, &|_| {});
    let mut peers = (!effort.alone).then(|| Peers::new(setup, &|_| {}));
    alternate(name, work, goal, &mut ours, peers.as_mut(), effort, progress)
}

fn alternate(
    name: &str,
    work: Work,
    goal: Goal,
    ours: &mut Stacks,
    mut peers: Option<&mut Peers>,
    effort: &Effort,
    progress: &dyn Fn(String),
) -> Row {
    let (mut our_rounds, mut peer_rounds) = (Rounds::default(), Rounds::default());
    for round in 0..=effort.rounds {
        progress(format!("{name}: round {round} of {}", effort.rounds));
        let figure = work.measure(ours, effort.seconds);
        let peer = peers.as_deref_mut().map(|peers| work.measure(peers, effort.seconds));
        if round > 0 {
            our_rounds.0.push(figure);
            peer_rounds.0.extend(peer);
        }
    }
    let peer = peers.is_some().then_some(peer_rounds);
    Row { name: name.to_string(), unit: work.unit(), ours: our_rounds, peer, goal }
}

/// Connects as often, in virtual time, as a port in TIME-WAIT becomes available for reuse, and no more often.
fn one_port(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    const BETWEEN: Duration = Duration::from_micros(25);
    let mut stacks = Stacks::new(&Setup::PLAIN, &|_| {});
    (0..60_000).for_each(|_| stacks.connect_close_to(0, BETWEEN));
    let mut ours = Rounds::default();
    for round in 0..effort.rounds {
        progress(format!("mem_one_port: round {round} of {}", effort.rounds));
        ours.0.push(rate(effort.seconds, || {
            stacks.connect_close_to(0, BETWEEN);
            1.0
        }));
    }
    vec![Row { name: "mem_one_port".into(), unit: Unit::Events, ours, peer: None, goal: Goal::Open }]
}

/// Connects as often, in virtual time, as an entry expires, so that their number stays.
fn time_wait(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let sizes = [(1_000, "1k", Goal::Open), (1_000_000, "1M", Goal::Part(0.9, "mem_time_wait 1k"))];
    let row = |(entries, size, goal)| {
        let name = format!("mem_time_wait {size}");
        let change = |config: &mut Config| {
            config.tcp_max_tw_buckets = 2 * entries;
            config.tcp_tw_mem = u64::from(entries) * 256;
        };
        let mut stacks = Stacks::connected(&Setup::PLAIN, change, &|_| {});
        progress(format!("{name}: fills the table"));
        let between = stacks.client.config().tcp_tw_timeout / entries;
        (0..entries + entries / 10).for_each(|_| stacks.connect_close_from_next(between));
        let mut ours = Rounds::default();
        for round in 0..effort.rounds {
            progress(format!("{name}: round {round} of {}", effort.rounds));
            ours.0.push(rate(effort.seconds, || {
                stacks.connect_close_from_next(between);
                1.0
            }));
        }
        let held = stacks.client.usage().time_wait;
        assert!(held.abs_diff(entries as usize) < entries as usize / 10, "{held} entries");
        Row { name, unit: Unit::Events, ours, peer: None, goal }
    };
    sizes.into_iter().map(row).collect()
}

/// Numbers of idle connections, each with its label.
const SIZES: [(usize, &str); 5] = [(0, "1"), (999, "1k"), (9_999, "10k"), (99_999, "100k"), (999_999, "1M")];
/// Most idle connections with which the peer is fast enough to be measured.
const PEER_MOST: usize = 10_000;

fn sizes(effort: &Effort) -> impl Iterator<Item = (usize, &'static str)> + use<> {
    let most = if effort.quick { 10_000 } else { usize::MAX };
    SIZES.into_iter().filter(move |(idle, _)| *idle < most)
}

fn pairs(name: &str, idle: usize, effort: &Effort, progress: &dyn Fn(String)) -> (Stacks, Option<Peers>) {
    let setup = Setup { idle, ..Setup::PLAIN };
    let opened = |count| progress(format!("{name}: {count} of {idle} connections opened"));
    let ours = Stacks::new(&setup, &opened);
    (ours, (idle <= PEER_MOST && !effort.alone).then(|| Peers::new(&setup, &opened)))
}

fn scale(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let mut rows = Vec::new();
    let works = [
        (Work::RoundTrip, "rr", "mem_scale rr 1"),
        (Work::Bulk, "bulk", "mem_scale bulk 1"),
        (Work::ConnectClose, "crr", "mem_scale crr 1"),
    ];
    for (idle, size) in sizes(effort) {
        let (mut ours, mut peers) = pairs("mem_scale", idle, effort, progress);
        for (work, short, alone) in works {
            let goal = match size {
                "10k" => Goal::Ratio(100.0),
                "100k" => Goal::Part(0.7, alone),
                _ => Goal::Open,
            };
            let name = format!("mem_scale {short} {size}");
            rows.push(alternate(&name, work, goal, &mut ours, peers.as_mut(), effort, progress));
        }
    }
    rows
}

fn idle(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let mut rows = Vec::new();
    for (idle, size) in sizes(effort) {
        let (mut ours, mut peers) = pairs("mem_idle", idle, effort, progress);
        let goal = if size == "1M" { Goal::Value(100e-9) } else { Goal::Open };
        let name = format!("mem_idle {size}");
        rows.push(alternate(&name, Work::Empty, goal, &mut ours, peers.as_mut(), effort, progress));
    }
    rows
}

//! The guard against slow decay. It counts instructions, which other load on the machine does not disturb.
//!
//! Each path runs under callgrind with two lengths. Their difference is the cost of the steps, without set-up and
//! tear-down. `instructions.txt` holds the recorded cost of a step.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, ExitCode};

use steadfast_core::{ForwardRule, Instant, SocketId, Stack};

use crate::flood::{Flood, syn, syn_to};
use crate::ours::Stacks;
use crate::pair::{Pair, Setup};
#[cfg(feature = "peers")]
use crate::peer::Peers;
use crate::worst;

/// Largest change of a path from its baseline, in either direction.
const BOUND: f64 = 0.05;
/// The two lengths.
const STEPS: [usize; 2] = [10, 40];
/// The file with the baseline.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

/// Prefix of the names of the dearest single calls.
const WORST: &str = "worst/";
/// Prefix of the names of the peer's paths, which are counted by hand.
#[cfg(feature = "peers")]
const PEER: &str = "peer/";

/// A path's name, and the function that runs a number of its steps.
type Steps = (&'static str, fn(usize));

const PATHS: [Steps; 10] = [
    ("transmit", |steps| drop(transmitted(steps))),
    ("receive", |steps| {
        let (mut stacks, segments) = transmitted(STEPS[1]);
        let now = stacks.now();
        segments.iter().take(steps).for_each(|segment| stacks.server.receive(now, segment));
    }),
    ("bulk_turn", |steps| repeat(steps, |stacks: &mut Stacks| _ = stacks.bulk_turn())),
    ("round_trip", |steps| repeat(steps, Stacks::round_trip)),
    ("paced_round_trip", |steps| {
        let mut stacks = Stacks::connected(&Setup::PLAIN, |config| config.tcp_pacing = true, &|_| {});
        (0..steps).for_each(|_| stacks.round_trip());
    }),
    ("recovery", |steps| {
        let mut stacks = Stacks::unconnected(&Setup::PLAIN, |_| {});
        // Each connection is used once: a loss lowers its window.
        let connections: Vec<_> = (0..STEPS[1]).map(|_| stacks.connect(0, None)).collect();
        connections[..steps].iter().for_each(|ends| stacks.lose_and_repair(*ends));
    }),
    ("connect_close", |steps| repeat(steps, Stacks::connect_close)),
    ("cookie", |steps| {
        let mut flood = Flood::new();
        let syns: Vec<_> = (0..STEPS[1] as u32).map(syn).collect();
        syns[..steps].iter().for_each(|syn| flood.syn(syn));
    }),
    ("forward", |steps| {
        let mut gateway = Stacks::unconnected(&Setup::PLAIN, |_| {}).server;
        let forwarder = gateway.forward(ForwardRule::all()).expect("there is no other rule");
        let syns: Vec<_> = (0..STEPS[1] as u32).map(|n| syn_to(FOREIGN, n)).collect();
        syns[..steps].iter().for_each(|syn| accept_forwarded(&mut gateway, forwarder, syn));
    }),
    ("datagrams", |steps| {
        let mut stacks = Stacks::unconnected(&Setup::PLAIN, |_| {});
        let ends = stacks.bind_udp();
        (0..steps).for_each(|_| stacks.exchange_datagrams(ends));
    }),
];

/// The address of a host behind the gateway.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Delivers a SYN to a forwarder, which accepts it, and takes the SYN-ACK.
fn accept_forwarded(gateway: &mut Stack, forwarder: SocketId, syn: &[u8]) {
    let (now, mut frame) = (Instant::from_secs(1), [0; 1500]);
    gateway.receive(now, syn);
    let request = gateway.next_request(forwarder).expect("the SYN waits for a decision");
    gateway.accept_request(now, request, None).expect("the request is there");
    gateway.transmit(now, &mut frame).expect("a SYN-ACK");
    while gateway.poll_event().is_some() {}
}

/// Full segments, in memory that is the same for each length of a run. A buffer for each of them would cost half of what
/// is counted, and a tenth more or less with the state of the allocator.
struct Segments {
    frames: Vec<u8>,
    lens: Vec<usize>,
}

impl Segments {
    const FRAME: usize = 1500;

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.chunks(Segments::FRAME).zip(&self.lens).map(|(frame, len)| &frame[..*len])
    }
}

/// Returns full segments on their way from client to server, within one window.
fn transmitted(count: usize) -> (Stacks, Segments) {
    let mut stacks = Stacks::new(&Setup::PLAIN, &|_| {});
    (0..100).for_each(|_| _ = stacks.bulk_turn());
    stacks.write();
    let (now, mut frames) = (stacks.now(), vec![0; STEPS[1] * Segments::FRAME]);
    let mut lens = Vec::with_capacity(STEPS[1]);
    for frame in frames.chunks_mut(Segments::FRAME).take(count) {
        lens.push(stacks.client.transmit(now, frame).expect("the window is open").len);
    }
    (stacks, Segments { frames, lens })
}

fn repeat<P: Pair>(steps: usize, step: fn(&mut P)) {
    let mut pair = P::new(&Setup::PLAIN, &|_| {});
    (0..steps).for_each(|_| step(&mut pair));
}

/// Runs `count` steps of a path of the peer.
#[cfg(feature = "peers")]
fn peer_steps(path: &str, count: usize) {
    let step: fn(&mut Peers) = match path {
        "bulk_turn" => |peers| _ = peers.bulk_turn(),
        "round_trip" => Peers::round_trip,
        "connect_close" => Peers::connect_close,
        _ => panic!("{path}: expected bulk_turn, round_trip or connect_close"),
    };
    repeat(count, step);
}

/// Runs `count` steps of the named path, under callgrind.
pub(crate) fn steps(name: &str, count: usize) {
    if let Some(name) = name.strip_prefix(WORST) {
        return worst::play(name);
    }
    #[cfg(feature = "peers")]
    if let Some(path) = name.strip_prefix(PEER) {
        return peer_steps(path, count);
    }
    let path = PATHS.iter().find(|(path, _)| *path == name);
    path.expect("a path of this name").1(count);
}

/// Counts every path, and compares the counts with the baseline or records them.
pub(crate) fn run(update: bool) -> Result<ExitCode, String> {
    let mut counted = String::new();
    for (name, _) in PATHS {
        let [few, many] = STEPS.map(|steps| instructions(name, steps, &[]));
        writeln!(counted, "{name} {}", (many? - few?) / (STEPS[1] - STEPS[0]) as u64).expect("text grows");
    }
    if update {
        std::fs::write(BASELINE, &counted).map_err(|error| format!("{BASELINE}: {error}"))?;
        print!("{counted}");
        return Ok(ExitCode::SUCCESS);
    }
    let baseline = std::fs::read_to_string(BASELINE).map_err(|error| format!("{BASELINE}: {error}"))?;
    let within = compare(&baseline, &counted)? & hold_worst()?;
    Ok(if within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Counts the dearest single calls, and returns whether each is within its bound.
fn hold_worst() -> Result<bool, String> {
    println!("\n{:<28}{:>14}{:>14}", "worst single call", "bound", "now");
    let mut within = true;
    for input in &worst::INPUTS {
        let name = format!("{WORST}{}", input.name);
        let count = instructions(&name, 1, &["--collect-atstart=no", "--toggle-collect=*worst*measured*"])?;
        let verdict = if (1..=input.bound).contains(&count) { "" } else { "  beyond the bound" };
        within &= verdict.is_empty();
        println!("{:<28}{:>14}{count:>14}{verdict}", input.name, input.bound);
    }
    Ok(within)
}

/// Prints baseline and counts side by side, and returns whether each path is within the bound.
fn compare(baseline: &str, counted: &str) -> Result<bool, String> {
    println!("{:<16}{:>14}{:>14}{:>10}", "instructions", "written down", "now", "");
    let mut within = true;
    for line in counted.lines() {
        let (name, now) = line.split_once(' ').unwrap_or((line, ""));
        let before = baseline.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let before = before.ok_or_else(|| format!("{BASELINE}: no line for {name}"))?;
        let number = |text: &str| text.trim().parse::<f64>().map_err(|error| format!("{text}: {error}"));
        let change = number(now)? / number(before)? - 1.0;
        let verdict = if change.abs() <= BOUND { "" } else { "  beyond the bound" };
        within &= verdict.is_empty();
        println!("{name:<16}{before:>14}{now:>14}{:>+9.1} %{verdict}", change * 100.0);
    }
    if !within {
        println!(
            "A path that got cheaper is written down with --guard --update, a dearer one with its reason."
        );
    }
    Ok(within)
}

/// Counts the instructions of a whole run.
fn instructions(name: &str, steps: usize, options: &[&str]) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(options)
        .arg(Path::new(&program))
        .args(["--steps", &format!("{name}={steps}")])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected
        .filter(|_| output.status.success())
        .ok_or_else(|| format!("valgrind did not count {name}:\n{text}"))
}

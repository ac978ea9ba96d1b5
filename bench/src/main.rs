//! Benchmarks in memory and over TUN, each beside a peer: `cargo run --release -p steadfast-bench -- [NAME…]`.
#![forbid(unsafe_code)]
// The guard uses a part of what the benches share.
#![cfg_attr(not(feature = "peers"), allow(dead_code, unused_imports))]

#[cfg(feature = "peers")]
mod benches;
mod flood;
#[cfg(feature = "peers")]
mod footprint;
#[cfg(feature = "peers")]
mod gateway;
mod guard;
#[cfg(feature = "peers")]
mod library;
#[cfg(feature = "peers")]
mod listing;
#[cfg(feature = "peers")]
mod lossy;
mod measure;
mod ours;
mod pair;
#[cfg(feature = "peers")]
mod path;
#[cfg(feature = "peers")]
mod pcap;
#[cfg(feature = "peers")]
mod peer;
mod report;
#[cfg(feature = "peers")]
mod sharing;
#[cfg(feature = "peers")]
mod tun;
#[cfg(feature = "peers")]
mod tun_flood;
#[cfg(feature = "peers")]
mod tun_peer;
mod wire;
mod worst;

use std::process::ExitCode;

use clap::Parser;

/// Measures the core in memory: both ends on one thread, in CPU time, in rounds that alternate with the peer's.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[cfg(feature = "peers")]
    #[command(subcommand)]
    command: Option<Command>,
    /// Benchmarks to run, or prefixes of their names. Default: all.
    names: Vec<String>,
    /// Rounds of each side.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Take a third of the time, and open at most 10,000 idle connections.
    #[arg(long)]
    quick: bool,
    /// Leave out the peer, for profiling.
    #[arg(long)]
    alone: bool,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// List the benchmarks and exit.
    #[arg(long)]
    list: bool,
    /// Count instructions under callgrind and compare them with the recorded baseline.
    #[arg(long, conflicts_with = "names")]
    guard: bool,
    /// Record the counts as the new baseline.
    #[arg(long, requires = "guard")]
    update: bool,
    /// Time the dearest single calls.
    #[arg(long, conflicts_with_all = ["names", "guard"])]
    worst: bool,
    /// Run COUNT steps of a path, for callgrind.
    #[arg(long, hide = true, value_name = "PATH=COUNT")]
    steps: Option<String>,
}

#[cfg(feature = "peers")]
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run senders over emulated paths, beside the kernel.
    Paths(path::Arguments),
    /// Put the gateway beside pasta and slirp4netns.
    Gateway(gateway::Arguments),
    #[command(hide = true)]
    GatewayClient(gateway::ClientArguments),
    /// Read captures that it makes, beside tshark and tcptrace.
    Pcap,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some((path, count)) = arguments.steps.as_deref().and_then(|steps| steps.split_once('=')) {
        guard::steps(path, count.parse().expect("a number of steps"));
        return ExitCode::SUCCESS;
    }
    if arguments.guard {
        return guard::run(arguments.update).unwrap_or_else(|error| {
            eprintln!("error: {error}");
            ExitCode::from(2)
        });
    }
    if arguments.worst {
        worst::table(&|message| eprintln!("{message}"));
        return ExitCode::SUCCESS;
    }
    #[cfg(feature = "peers")]
    return benches::run(&arguments);
    #[cfg(not(feature = "peers"))]
    {
        eprintln!(
            "error: built without the feature `peers`, which the benches need; there are --guard and --worst"
        );
        ExitCode::from(2)
    }
}

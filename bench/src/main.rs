//! Benchmarks in memory and over TUN, each beside a peer: `cargo run --release -p steadfast-bench -- [NAME…]`.
#![forbid(unsafe_code)]

mod benches;
mod flood;
mod footprint;
mod guard;
mod library;
mod measure;
mod ours;
mod pair;
mod path;
mod peer;
mod report;
mod sharing;
mod tun;
mod tun_flood;
mod tun_peer;
mod wire;
mod worst;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::benches::{ALL, Bench};
use crate::measure::Effort;

/// Measures the core in memory: both ends on one thread, in CPU time, in rounds that alternate with the peer's.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
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

#[derive(Debug, Subcommand)]
enum Command {
    /// Run senders over emulated paths, beside the kernel.
    Paths(path::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Paths(arguments)) = &arguments.command {
        return match path::run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::from(2)
            }
        };
    }
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

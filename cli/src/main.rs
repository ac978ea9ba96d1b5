//! The `steadfast` tool.
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod attach;
#[cfg(target_os = "linux")]
mod cage;
#[cfg(target_os = "linux")]
mod capture;
mod config;
#[cfg(target_os = "linux")]
mod connect;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod doctor;
mod drill;
#[cfg(any(test, not(target_os = "linux")))]
mod elsewhere;
mod explore;
mod failure;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod faulty;
mod fuzz;
#[cfg(target_os = "linux")]
mod gateway;
#[cfg(target_os = "linux")]
mod http;
mod lab;
#[cfg(target_os = "linux")]
mod live;
#[cfg(target_os = "linux")]
mod logged;
#[cfg(target_os = "linux")]
mod machine;
mod opponent;
mod output;
mod pcap;
#[cfg(target_os = "linux")]
mod policy;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod serve;
mod settings;
#[cfg(target_os = "linux")]
mod socket_options;
#[cfg(target_os = "linux")]
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(target_os = "linux")]
use crate::failure::Failure;

/// TCP that does not let go: a TCP/IP stack in user space.
///
/// Exit status: 0 success, 1 a connection or a scenario failed, 2 the command was wrong or the system refused.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve echo, discard, chargen or HTTP on a TUN device.
    ///
    /// SIGUSR1 prints connections, counters and the fill of the tables to standard error.
    #[cfg(target_os = "linux")]
    Serve(serve::Serve),
    /// Connect standard input and output to a server, over a TUN device.
    ///
    /// SIGUSR1 prints the state of the stack, as with `serve`.
    #[cfg(target_os = "linux")]
    Connect(connect::Connect),
    /// Serve echo, discard, chargen or HTTP on a TUN device, on Linux.
    #[cfg(not(target_os = "linux"))]
    Serve(elsewhere::Needless),
    /// Connect standard input and output to a server over a TUN device, on Linux.
    #[cfg(not(target_os = "linux"))]
    Connect(elsewhere::Needless),
    /// Run a command in a network of its own, whose TCP is ours. Needs no rights.
    ///
    /// The command reaches what this machine reaches, but the machine's loopback addresses only where an option says so.
    /// Its exit status is ours: 128 + n if signal n has ended it, 127 if it is not found, 126 if it cannot be executed,
    /// and 125 for a failure of our own.
    #[cfg(target_os = "linux")]
    Run(run::Run),
    /// The child of `run`.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    RunInside(run::Inside),
    /// Run a command in a network of its own, on Linux.
    #[cfg(not(target_os = "linux"))]
    Run(elsewhere::Needless),
    /// Carry the traffic of a namespace, a container or a virtual machine with our TCP.
    ///
    /// Guests get addresses by DHCP behind Ethernet devices, and reach what this machine reaches, except its loopback
    /// addresses. SIGTERM and SIGINT end it, with status 0. If the device ends, the status is 1.
    #[cfg(target_os = "linux")]
    Gateway(gateway::Gateway),
    /// Carry the traffic of a namespace or of a virtual machine, on Linux.
    #[cfg(not(target_os = "linux"))]
    Gateway(elsewhere::Needless),
    /// Say what this machine lacks for `run` and `gateway`, and the remedies. The exit status is 1 if `run` does not work.
    #[cfg(target_os = "linux")]
    Doctor(doctor::Doctor),
    /// Say what this machine lacks for `run` and `gateway`, on Linux.
    #[cfg(not(target_os = "linux"))]
    Doctor(elsewhere::Needless),
    /// Print every setting, as `--sysctl` takes it: name, value, unit and what it does.
    Config(config::Settings),
    /// Play scenarios of the fault catalogue on a simulated network.
    #[command(subcommand)]
    Lab(lab::Lab),
    /// Run scripts in the packetdrill language, in virtual time.
    #[command(subcommand)]
    Drill(drill::DrillCommand),
    /// List the sockets of a running network.
    #[cfg(target_os = "linux")]
    Ss(live::Ss),
    /// Print the counters of a running network.
    #[cfg(target_os = "linux")]
    Nstat(live::Nstat),
    /// Print or change the settings of a running network.
    #[cfg(target_os = "linux")]
    Sysctl(live::Sysctl),
    /// Print the state of a running network as OpenMetrics, or serve it.
    #[cfg(target_os = "linux")]
    Metrics(live::Metrics),
    /// Show a running network at work.
    #[cfg(target_os = "linux")]
    Top(live::Top),
    /// Print the events of a running network.
    #[cfg(target_os = "linux")]
    Trace(live::Trace),
    /// Record the packets of a running network.
    #[cfg(target_os = "linux")]
    Capture(live::Capture),
    /// Read captures: list, show and diagnose their connections.
    #[command(subcommand)]
    Pcap(pcap::Pcap),
}

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return wrong_usage(&error),
    };
    let result = match command {
        #[cfg(target_os = "linux")]
        Command::Serve(command) => run(command.run()),
        #[cfg(target_os = "linux")]
        Command::Connect(command) => run(command.run()),
        #[cfg(target_os = "linux")]
        Command::Run(command) => return command.run(),
        #[cfg(target_os = "linux")]
        Command::Doctor(command) => match command.run() {
            Ok(status) => return status,
            Err(failure) => Err(failure),
        },
        #[cfg(not(target_os = "linux"))]
        Command::Doctor(command) => command.run("doctor"),
        #[cfg(target_os = "linux")]
        Command::Gateway(command) => command.run(),
        #[cfg(not(target_os = "linux"))]
        Command::Gateway(command) => command.run("gateway"),
        #[cfg(target_os = "linux")]
        Command::RunInside(command) => return command.run(),
        #[cfg(not(target_os = "linux"))]
        Command::Run(command) => command.run("run"),
        #[cfg(not(target_os = "linux"))]
        Command::Serve(command) => command.run("serve"),
        #[cfg(not(target_os = "linux"))]
        Command::Connect(command) => command.run("connect"),
        #[cfg(target_os = "linux")]
        Command::Ss(command) => command.run(),
        #[cfg(target_os = "linux")]
        Command::Nstat(command) => command.run(),
        #[cfg(target_os = "linux")]
        Command::Sysctl(command) => command.run(),
        #[cfg(target_os = "linux")]
        Command::Metrics(command) => command.run(),
        #[cfg(target_os = "linux")]
        Command::Top(command) => command.run(),
        #[cfg(target_os = "linux")]
        Command::Trace(command) => command.run(),
        #[cfg(target_os = "linux")]
        Command::Capture(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::Lab(command) => command.run(),
        Command::Drill(command) => command.run(),
        Command::Pcap(command) => match command.run() {
            Ok(status) => return status,
            Err(failure) => Err(failure),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("steadfast: {failure}");
            failure.exit_code()
        }
    }
}

/// Prints what is wrong with the command line, or the help. `run` leaves all other statuses to its command.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    // It fails if nobody reads any more.
    let _ = error.print();
    let is_run = std::env::args_os().nth(1).is_some_and(|word| word == "run");
    let code = if is_run && error.use_stderr() { 125 } else { error.exit_code() };
    ExitCode::from(u8::try_from(code).unwrap_or(2))
}

#[cfg(target_os = "linux")]
fn run(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::system("cannot start the runtime", e))?;
    let result = runtime.block_on(command);
    // Do not wait: a thread may block on standard input forever.
    runtime.shutdown_background();
    result
}

//! `steadfast run`: a command in a network namespace of its own, whose network is our gateway.

mod control;
mod existing;
mod inside;
mod launch;
mod links;
mod refusal;
mod signals;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::Args;
use nix::unistd::Pid;
use steadfast::ControlSocket;
use steadfast_gateway::{Counters, GatewayBuilder, Subnet};

use self::control::Message;
use self::launch::Launched;
use self::refusal::OURS;
use crate::cage;
use crate::control::ControlOptions;
use crate::failure::Failure;
use crate::faults::{FaultOptions, Plan};
use crate::machine::Machine;
use crate::policy::Policy;

pub(crate) use self::inside::Inside;
pub(crate) use self::launch::{Launch, PassedDevice, Place, Refused};

/// MTU of the device: that of Ethernet, with which paths on the way have no trouble.
const MTU: u16 = 1500;

/// How long data that the command has sent may take to reach its peer once the command has ended.
const DRAIN: Duration = Duration::from_secs(2);

/// Command in its own network.
#[derive(Args)]
pub(crate) struct Run {
    #[command(flatten)]
    policy: Policy,
    #[command(flatten)]
    faults: FaultOptions,
    #[command(flatten)]
    control: ControlOptions,
    /// Lead connections to this port of 127.0.0.1 to that of this machine. May be repeated.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    localhost: Vec<u16>,
    #[command(flatten)]
    queues: QueueOptions,
    /// Appear as root inside, as `ip`, `tcpdump` and `tc` need it.
    #[arg(long)]
    root: bool,
    /// Say on standard error what the gateway did, and how often each fault hit.
    #[arg(long)]
    report: bool,
    /// Say on standard error how the command is connected.
    #[arg(short, long)]
    verbose: bool,
    /// The command and its arguments.
    // All words from the command on are its own. A hyphen before it begins an option of ours, so no such value is allowed.
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    /// Runs the command, and returns its exit code: 128 + n if signal n has ended it, 127 if it is not found, 126 if it
    /// cannot be executed, 125 for a failure of ours.
    pub(crate) fn run(&self) -> ExitCode {
        match self.start() {
            Ok(code) => ExitCode::from(code),
            Err(failure) => {
                eprintln!("steadfast: {failure}");
                ExitCode::from(OURS)
            }
        }
    }

    fn start(&self) -> Result<u8, Failure> {
        // Everything that the user gave is checked before anything is started.
        let subnet = offered_subnet();
        let builder = self.policy.builder(&self.localhost)?.subnet(subnet).fixed_guest(true);
        let plan = self.faults.plan(subnet.guest())?;
        let queues = self.queues.check(&plan)?;
        raise_file_limit();
        let socket = self.control.bind()?;
        let (command, root, dns) = (&self.command[..], self.root, self.policy.has_dns());
        let place = Place::Command { command, root, dns };
        let (offload, localhost) = (plan.offload(), &self.localhost[..]);
        let launch = Launch { place, subnet, mtu: MTU, offload, queues, localhost };
        let launched = match launch.start() {
            Ok(launched) => launched,
            Err(Refused::Failure(failure)) => return Err(failure),
            Err(Refused::Told(code, text)) => {
                eprintln!("steadfast: {text}");
                return Ok(code);
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::system("cannot start the runtime", e))?;
        let code = runtime.block_on(self.carry(launched, socket, builder, &plan));
        runtime.shutdown_background();
        code
    }

    /// Carries the command's traffic until it has ended.
    async fn carry(
        &self,
        launched: Launched,
        socket: Option<ControlSocket>,
        builder: GatewayBuilder,
        plan: &Plan<'_>,
    ) -> Result<u8, Failure> {
        let Launched { mut child, control, device } = launched;
        let command = Pid::from_raw(child.id() as i32);
        cage::shut()?;
        let end = signals::watch(command).map_err(|e| Failure::system("cannot watch the command", e))?;
        if self.verbose {
            eprintln!("steadfast: the command is connected by a {device} device");
        }
        let gateway = device.start(builder, MTU, plan).await?;
        if let Some(socket) = socket {
            gateway.net().serve_control(socket).map_err(|e| Failure::system("--control", e))?;
        }
        plan.start();
        control.send(&Message::Go, None).map_err(|_| launch::died(&mut child))?;
        let watched = end.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
        watched.map_err(|e| Failure::system("cannot watch the command", e))?;
        let status = child.wait().map_err(|e| Failure::system("cannot wait for the command", e))?;
        if let Ok(Some((Message::Failed(code, text), _))) = control.receive() {
            eprintln!("steadfast: {text}");
            return Ok(code);
        }
        gateway.drain(DRAIN).await;
        if self.report {
            eprintln!("steadfast: {}", report(&gateway.counters(), &plan.hits()));
        }
        warn(&gateway.counters());
        plan.finish()?;
        Ok(code_of(status))
    }
}

/// How many threads carry the traffic.
#[derive(Args)]
pub(crate) struct QueueOptions {
    /// Queues of the TUN device, each with a thread that carries its connections. More than one take neither faults nor a
    /// ladder.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    queues: u16,
}

impl QueueOptions {
    /// The number, if there is a way to have so many.
    pub(crate) fn check(&self, plan: &Plan<'_>) -> Result<u16, Failure> {
        // The packets of a wire have one order.
        if self.queues > 1 && !plan.offload() {
            let text = format!("--queues {}: expected neither --fault nor --ladder", self.queues);
            return Err(Failure::usage(text));
        }
        Ok(self.queues)
    }
}

/// Says what the machine has forbidden.
pub(crate) fn warn(counters: &Counters) {
    if counters.echo_forbidden > 0 {
        eprintln!("steadfast: the machine forbids pings: sysctl net.ipv4.ping_group_range=\"0 2147483647\"");
    }
}

/// The events of a run, in one line.
pub(crate) fn report(counters: &Counters, hits: &[String]) -> String {
    let counted =
        counters.iter().filter(|(_, value)| *value > 0).map(|(name, value)| format!("{name} {value}"));
    counted.chain(hits.iter().cloned()).collect::<Vec<_>>().join(", ")
}

/// The exit code for a status, as shells have it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(OURS.into());
    u8::try_from(code).unwrap_or(OURS)
}

/// The network of the guests. It has IPv6 only where the machine has.
pub(crate) fn offered_subnet() -> Subnet {
    if Machine::own().has_ipv6() { Subnet::with_v6() } else { Subnet::default() }
}

/// Each connection takes a file. The command inherits nothing of this, since it runs already or is started by the child.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it there are fewer connections.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// An error of the system in words, without its number.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_a_shell() {
        let of_wait = ExitStatus::from_raw;
        assert_eq!([code_of(of_wait(0)), code_of(of_wait(7 << 8)), code_of(of_wait(9))], [0, 7, 137]);
    }
}

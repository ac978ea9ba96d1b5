//! `steadfast run`: a command in a network namespace of its own, whose network is our gateway.

mod control;
mod inside;
mod links;
mod refusal;
mod signals;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use nix::unistd::Pid;
use steadfast::device::{PacketSocket, Tun};
use steadfast_gateway::{Counters, GatewayBuilder, Subnet};

use self::control::{Control, Kind, Message};
use self::inside::OURS;
use crate::cage;
use crate::failure::Failure;
use crate::faults::{FaultOptions, Plan};
use crate::policy::Policy;

pub(crate) use self::inside::Inside;

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
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
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
        let builder = self.policy.builder()?;
        let subnet = if has_ipv6() { Subnet::with_v6() } else { Subnet::default() };
        let plan = self.faults.plan(subnet.guest())?;
        raise_file_limit();
        let (control, theirs) = Control::pair().map_err(|e| Failure::system("cannot make a socket", e))?;
        let mut child = self.spawn(theirs, &subnet, plan.offload())?;
        let input = io::stdin();
        let passed = control.send(&Message::Input, Some(input.as_fd()));
        let made = passed.and_then(|()| control.receive());
        let device = match made {
            Ok(Some((Message::Device(kind), Some(file)))) => (kind, file),
            Ok(Some((Message::Failed(code, text), _))) => return Ok(ended(&mut child, code, &text)),
            Ok(_) => return Err(died(&mut child)),
            Err(error) => return Err(Failure::system("cannot talk to the child", error)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::system("cannot start the runtime", e))?;
        let code = runtime.block_on(self.carry(device, builder.subnet(subnet), &plan, &control, &mut child));
        runtime.shutdown_background();
        code
    }

    /// Starts the child, with the socket as its standard input. The command's own follows over the socket.
    fn spawn(&self, socket: OwnedFd, subnet: &Subnet, offload: bool) -> Result<Child, Failure> {
        let mut child = Command::new("/proc/self/exe");
        child.args(["run-inside", "--parent", &std::process::id().to_string(), "--mtu", &MTU.to_string()]);
        let flags = [
            ("--ipv6", subnet.v6.is_some()),
            ("--offload", offload),
            ("--root", self.root),
            ("--dns", self.policy.has_dns()),
        ];
        child.args(flags.into_iter().filter(|(_, on)| *on).map(|(flag, _)| flag));
        child.args(self.policy.localhost().iter().map(|port| format!("--localhost={port}")));
        child.arg("--").args(&self.command).stdin(Stdio::from(socket));
        child.spawn().map_err(|e| Failure::system("cannot start /proc/self/exe", e))
    }

    /// Carries the command's traffic until it has ended.
    async fn carry(
        &self,
        (kind, file): (Kind, OwnedFd),
        builder: GatewayBuilder,
        plan: &Plan<'_>,
        control: &Control,
        child: &mut Child,
    ) -> Result<u8, Failure> {
        let command = Pid::from_raw(child.id() as i32);
        cage::shut()?;
        let end = signals::watch(command).map_err(|e| Failure::system("cannot watch the command", e))?;
        let device = match kind {
            Kind::Tun => {
                let tun = Tun::from_fd(file, MTU, plan.offload());
                plan.wrap(tun.map_err(|e| Failure::System(e.to_string()))?)
            }
            Kind::Packet => {
                let socket = PacketSocket::from_fd(file);
                plan.wrap(socket.map_err(|e| Failure::system("cannot use the packet socket", e))?)
            }
        };
        let gateway = builder.start(device).await;
        let gateway = gateway.map_err(|e| Failure::system("cannot start the gateway", e))?;
        if self.verbose {
            eprintln!("steadfast: the command is connected by a {kind:?} device");
        }
        plan.start();
        control.send(&Message::Go, None).map_err(|_| died(child))?;
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
        if gateway.counters().echo_forbidden > 0 {
            eprintln!(
                "steadfast: the machine forbids pings: sysctl net.ipv4.ping_group_range=\"0 2147483647\""
            );
        }
        plan.finish()?;
        Ok(code_of(status))
    }
}

/// The events of a run, in one line.
fn report(counters: &Counters, hits: &[String]) -> String {
    let counted =
        counters.iter().filter(|(_, value)| *value > 0).map(|(name, value)| format!("{name} {value}"));
    counted.chain(hits.iter().cloned()).collect::<Vec<_>>().join(", ")
}

/// The exit code for a status, as shells have it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(OURS.into());
    u8::try_from(code).unwrap_or(OURS)
}

/// The child has told why it ends.
fn ended(child: &mut Child, code: u8, text: &str) -> u8 {
    let _ = child.wait();
    eprintln!("steadfast: {text}");
    code
}

/// The child has ended without a word.
fn died(child: &mut Child) -> Failure {
    let how = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
    Failure::System(format!("the child has ended before the command began: {how}"))
}

/// Returns whether this machine has a way to the IPv6 world. Guests without one must not be offered any.
fn has_ipv6() -> bool {
    let routes = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    routes.lines().any(|route| {
        let fields: Vec<&str> = route.split_whitespace().collect();
        matches!(&fields[..], [_, "00", .., device] if *device != "lo")
    })
}

/// Each connection takes a file. The command inherits nothing of this, since it runs already or is started by the child.
fn raise_file_limit() {
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

//! The start of the child, which makes the device in another network namespace and passes it on.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use steadfast::device::{Device, PacketSocket, Tun};
use steadfast_gateway::{Gateway, GatewayBuilder, Subnet};

use super::control::{Control, Kind, Message};
use crate::failure::Failure;
use crate::faults::Plan;

/// The namespace, and how its network is to be.
pub(crate) struct Launch<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) subnet: Subnet,
    pub(crate) mtu: u16,
    pub(crate) offload: bool,
    /// Queues of a TUN device. A pair of virtual Ethernet devices has one.
    pub(crate) queues: u16,
    /// Ports of 127.0.0.1 that lead into the device.
    pub(crate) localhost: &'a [u16],
}

/// Where the device is to be.
pub(crate) enum Place<'a> {
    /// In a new namespace, in which a command starts.
    Command { command: &'a [OsString], root: bool, dns: bool },
    /// In the namespace of this process or with this name.
    Existing(&'a str),
}

/// A child, and the device that it has made.
pub(crate) struct Launched {
    pub(crate) child: Child,
    pub(super) control: Control,
    pub(crate) device: PassedDevice,
}

/// A device that another process has made.
pub(crate) struct PassedDevice {
    kind: Kind,
    /// One for each queue.
    files: Vec<OwnedFd>,
}

impl Launched {
    /// Ends the child before it becomes the command. Returns the device in words.
    pub(crate) fn give_up(self) -> String {
        let Launched { mut child, control, device } = self;
        // The child waits for a word.
        drop(control);
        let _ = child.wait();
        match device.kind {
            Kind::Tun => "a TUN device".to_owned(),
            Kind::Packet => "a pair of virtual Ethernet devices".to_owned(),
        }
    }
}

/// Why there is no device.
pub(crate) enum Refused {
    /// The child has told its exit code and why.
    Told(u8, String),
    Failure(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused::Failure(failure)
    }
}

impl Launch<'_> {
    /// Starts the child, and waits for its device.
    pub(crate) fn start(&self) -> Result<Launched, Refused> {
        let (control, theirs) = Control::pair().map_err(|e| Failure::system("cannot make a socket", e))?;
        let mut child = self.spawn(theirs)?;
        let input = io::stdin();
        let passed = control.send(&Message::Input, Some(input.as_fd()));
        match passed.and_then(|()| control.receive()) {
            Ok(Some((Message::Device(kind), Some(file)))) => {
                let mut files = vec![file];
                while kind == Kind::Tun && files.len() < self.queues.into() {
                    match control.receive() {
                        Ok(Some((Message::Device(Kind::Tun), Some(file)))) => files.push(file),
                        _ => return Err(died(&mut child).into()),
                    }
                }
                Ok(Launched { child, control, device: PassedDevice { kind, files } })
            }
            Ok(Some((Message::Failed(code, text), _))) => {
                // It ends by itself.
                let _ = child.wait();
                Err(Refused::Told(code, text))
            }
            Ok(_) => Err(died(&mut child).into()),
            Err(error) => Err(Failure::system("cannot talk to the child", error).into()),
        }
    }

    /// Starts the child, with the socket as its standard input. The command's own follows over the socket.
    fn spawn(&self, socket: OwnedFd) -> Result<Child, Failure> {
        let mut child = Command::new("/proc/self/exe");
        child.args(["run-inside", "--parent", &std::process::id().to_string()]);
        child.args(["--mtu", &self.mtu.to_string(), "--queues", &self.queues.to_string()]);
        child.args(self.localhost.iter().map(|port| format!("--localhost={port}")));
        let common = [("--ipv6", self.subnet.v6.is_some()), ("--offload", self.offload)];
        let special = match self.place {
            Place::Command { root, dns, .. } => [("--root", root), ("--dns", dns)],
            Place::Existing(_) => [("", false); 2],
        };
        let flags = common.into_iter().chain(special).filter(|(_, on)| *on);
        child.args(flags.map(|(flag, _)| flag));
        match self.place {
            Place::Command { command, .. } => child.arg("--").args(command),
            Place::Existing(namespace) => child.arg(format!("--netns={namespace}")),
        };
        child.stdin(Stdio::from(socket));
        child.spawn().map_err(|e| Failure::system("cannot start /proc/self/exe", e))
    }
}

/// The child has ended without a word.
pub(super) fn died(child: &mut Child) -> Failure {
    let how = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
    Failure::System(format!("the child has ended before the command began: {how}"))
}

impl PassedDevice {
    /// Starts the gateway on the device, with faults and records around it.
    pub(crate) async fn start(
        self,
        builder: GatewayBuilder,
        mtu: u16,
        plan: &Plan<'_>,
    ) -> Result<Gateway, Failure> {
        let PassedDevice { kind, files } = self;
        let (queues, mut files) = (files.len(), files.into_iter());
        let mut open = || -> io::Result<Box<dyn Device>> {
            let file = files.next().ok_or(io::ErrorKind::NotFound)?;
            Ok(match kind {
                Kind::Tun => plan.wrap(Tun::from_fd(file, mtu, plan.offload()).map_err(io::Error::other)?),
                Kind::Packet => plan.wrap(PacketSocket::from_fd(file)?),
            })
        };
        let started = match queues {
            1 => builder.start(open().map_err(|e| Failure::system("cannot use the device", e))?).await,
            _ => builder.start_queues(queues, open).await,
        };
        started.map_err(|e| Failure::system("cannot start the gateway", e))
    }
}

impl fmt::Display for PassedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

//! Where the guests of `steadfast gateway` are: the device that leads to them.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use steadfast::device::{
    Device, HardwareAddress, PacketSocket, Tun, UnixDatagramFrames, UnixStreamFrames, free_socket_path,
};
use steadfast_gateway::{Gateway, GatewayBuilder, Subnet};
use tokio::sync::oneshot;

use crate::failure::Failure;
use crate::faults::Plan;
use crate::run::{Launch, PassedDevice, Refused};

/// The device; exactly one of these.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Place {
    /// Make a device in the network namespace of this process, until it ends; or in that with this name or path.
    #[arg(long, value_name = "PID|NAME")]
    netns: Option<String>,
    /// Serve the host behind this interface of ours, such as a TAP device of a virtual machine or one end of a veth pair.
    #[arg(long, value_name = "INTERFACE")]
    tap: Option<String>,
    /// Use an open file: a TUN device, a packet socket, or a UNIX socket that carries frames.
    #[arg(long, value_name = "NUMBER")]
    fd: Option<i32>,
    /// Take frames at this UNIX socket, each behind its length, as QEMU's `-netdev stream` and libkrun send them.
    #[arg(long, value_name = "PATH")]
    unix_stream: Option<PathBuf>,
    /// Take frames at this UNIX socket, one in each datagram, as vfkit and gvproxy send them.
    #[arg(long, value_name = "PATH")]
    unix_dgram: Option<PathBuf>,
}

/// The hardware address of our end where we choose it: one that is administered locally.
const HARDWARE: HardwareAddress = HardwareAddress([0x02, 0x73, 0x66, 0, 0, 2]);

/// A device that needs a runtime to work.
pub(super) enum Opened {
    /// With the process whose namespace it is in, if that is known.
    Passed(PassedDevice, Option<OwnedFd>),
    Tap(OwnedFd),
    Tun(OwnedFd),
    Listener(UnixListener),
    Stream(UnixStream),
    /// Whether it is connected to its peer.
    Datagram(UnixDatagram, bool),
}

/// Frames that the peer of a socket did not take.
#[derive(Clone, Default)]
pub(super) struct Lost(Option<Arc<AtomicU64>>);

impl Lost {
    /// The counter in words, where the device has one.
    pub(super) fn told(&self) -> Option<String> {
        self.0.as_ref().map(|lost| format!("frames_lost {}", lost.load(Ordering::Relaxed)))
    }
}

impl Place {
    /// Returns whether the device gets its addresses from us.
    pub(super) fn is_namespace(&self) -> bool {
        self.netns.is_some()
    }

    pub(super) fn open(
        &self,
        subnet: Subnet,
        mtu: u16,
        offload: bool,
        queues: u16,
    ) -> Result<Opened, Failure> {
        if queues > 1 && !self.is_namespace() {
            return Err(Failure::usage(format!("--queues {queues}: expected --netns")));
        }
        if let Some(namespace) = &self.netns {
            // It is opened first: the number may belong to another process later.
            let process = namespace.parse().ok().and_then(Pid::from_raw);
            let process = process.map(|pid| pidfd_open(pid, PidfdFlags::empty())).transpose();
            let failed = |e: Errno| Failure::system(format!("--netns {namespace}"), e.into());
            let process = process.map_err(failed)?;
            let place = crate::run::Place::Existing(namespace);
            return match (Launch { place, subnet, mtu, offload, queues, localhost: &[] }).start() {
                Ok(mut launched) => {
                    // Its work is done.
                    let _ = launched.child.wait();
                    Ok(Opened::Passed(launched.device, process))
                }
                Err(Refused::Told(_, text)) => Err(Failure::System(text)),
                Err(Refused::Failure(failure)) => Err(failure),
            };
        }
        if let Some(name) = &self.tap {
            let socket = PacketSocket::bind(name);
            return socket.map(Opened::Tap).map_err(|e| Failure::system(format!("--tap {name}"), e));
        }
        if let Some(number) = self.fd {
            return open_file(number).map_err(|e| Failure::system(format!("--fd {number}"), e));
        }
        let stream = |path: &Path| {
            let listener = free_socket_path(path).and_then(|()| UnixListener::bind(path));
            let listener = listener.map_err(|e| Failure::system(path_option("--unix-stream", path), e));
            listener.map(Opened::Listener)
        };
        let datagram = |path: &Path| {
            let socket = free_socket_path(path).and_then(|()| UnixDatagram::bind(path));
            let socket = socket.map_err(|e| Failure::system(path_option("--unix-dgram", path), e));
            socket.map(|socket| Opened::Datagram(socket, false))
        };
        match (&self.unix_stream, &self.unix_dgram) {
            (Some(path), _) => stream(path),
            (_, Some(path)) => datagram(path),
            _ => unreachable!("clap requires one of them"),
        }
    }
}

fn path_option(option: &str, path: &Path) -> String {
    format!("{option} {}", path.display())
}

/// A copy of a file that this program has inherited. The number stays open.
fn inherited(number: i32) -> io::Result<OwnedFd> {
    if number == 0 {
        return rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).map_err(Into::into);
    }
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(own, number, PidfdGetfdFlags::empty())?)
}

fn open_file(number: i32) -> io::Result<Opened> {
    let file = inherited(number)?;
    let expected = "expected a TUN device, a packet socket, or a UNIX stream or datagram socket";
    let unknown = || io::Error::new(ErrorKind::InvalidInput, expected);
    let Ok(family) = sockopt::socket_domain(&file) else { return Ok(Opened::Tun(file)) };
    match (family, sockopt::socket_type(&file)?) {
        (AddressFamily::PACKET, _) => Ok(Opened::Tap(file)),
        (AddressFamily::UNIX, SocketType::STREAM) if sockopt::socket_acceptconn(&file)? => {
            Ok(Opened::Listener(file.into()))
        }
        (AddressFamily::UNIX, SocketType::STREAM) => Ok(Opened::Stream(file.into())),
        (AddressFamily::UNIX, SocketType::DGRAM) => {
            let is_connected = rustix::net::getpeername(&file).is_ok_and(|peer| peer.is_some());
            Ok(Opened::Datagram(file.into(), is_connected))
        }
        _ => Err(unknown()),
    }
}

/// Returns what tells the end of a process.
pub(super) fn end_of(process: OwnedFd) -> io::Result<oneshot::Receiver<()>> {
    let (sender, end) = oneshot::channel();
    // The kernel's file for it has no safe counterpart in Tokio.
    std::thread::Builder::new().name("process".to_owned()).spawn(move || {
        let mut files = [PollFd::new(&process, PollFlags::IN)];
        while matches!(poll(&mut files, None), Err(Errno::INTR)) {}
        // It fails only if the gateway has ended for another reason.
        let _ = sender.send(());
    })?;
    Ok(end)
}

impl Opened {
    /// Returns the process whose namespace the device is in, if that is known. The device itself outlives it.
    pub(super) fn take_process(&mut self) -> Option<OwnedFd> {
        if let Opened::Passed(_, process) = self { process.take() } else { None }
    }

    /// Starts the gateway on the device, with faults and records around it.
    pub(super) async fn start(
        self,
        builder: GatewayBuilder,
        mtu: u16,
        plan: &Plan<'_>,
    ) -> Result<(Gateway, Lost), Failure> {
        let failed = |e| Failure::system("cannot use the device", e);
        let mut lost = Lost::default();
        let device: Box<dyn Device> = match self {
            Opened::Passed(device, _) => return Ok((device.start(builder, mtu, plan).await?, lost)),
            Opened::Tap(file) => plan.wrap(PacketSocket::from_fd(file).map_err(failed)?),
            Opened::Tun(file) => {
                let tun = Tun::from_fd(file, mtu, plan.offload());
                plan.wrap(tun.map_err(|e| Failure::System(e.to_string()))?)
            }
            Opened::Listener(listener) => {
                listener.set_nonblocking(true).map_err(failed)?;
                let listener = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
                plan.wrap(UnixStreamFrames::listening(listener, HARDWARE, mtu))
            }
            Opened::Stream(stream) => {
                stream.set_nonblocking(true).map_err(failed)?;
                let stream = tokio::net::UnixStream::from_std(stream).map_err(failed)?;
                plan.wrap(UnixStreamFrames::connected(stream, HARDWARE, mtu))
            }
            Opened::Datagram(socket, is_connected) => {
                socket.set_nonblocking(true).map_err(failed)?;
                let socket = tokio::net::UnixDatagram::from_std(socket).map_err(failed)?;
                let device = match is_connected {
                    true => UnixDatagramFrames::connected(socket, HARDWARE, mtu),
                    false => UnixDatagramFrames::bound(socket, HARDWARE, mtu),
                };
                lost = Lost(Some(device.lost_counter()));
                plan.wrap(device)
            }
        };
        let gateway = builder.start(device).await;
        Ok((gateway.map_err(|e| Failure::system("cannot start the gateway", e))?, lost))
    }
}

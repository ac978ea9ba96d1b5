//! The child of `steadfast run`: makes the namespaces, the device and its network, and becomes the command.
//!
//! It is a process of its own with one thread, since a user namespace cannot be made otherwise.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::Args;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid, getppid};
use steadfast::device::{PacketSocket, Tun, TunError, TunOptions};
use steadfast_gateway::Subnet;

use super::control::{Control, Kind, Message};
use super::existing;
use super::links;
use super::refusal::{self, Failed, OURS};
use crate::machine::Machine;

/// Exit code of a command that cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code of a command that is not found.
const NOT_FOUND: u8 = 127;

/// Name of the device inside.
pub(super) const DEVICE: &str = "sf0";

/// The other end of a pair, in its own namespace.
const FAR: &str = "far0";

/// The child's part of `run`.
#[derive(Args)]
pub(crate) struct Inside {
    /// The process that must be the parent.
    #[arg(long)]
    parent: i32,
    #[arg(long)]
    mtu: u16,
    #[arg(long)]
    ipv6: bool,
    #[arg(long)]
    offload: bool,
    /// Queues of a TUN device.
    #[arg(long, default_value_t = 1)]
    queues: u16,
    #[arg(long)]
    root: bool,
    /// The name server; none: `/etc/resolv.conf` stays.
    #[arg(long)]
    dns: bool,
    /// Ports of 127.0.0.1 that lead into the device.
    #[arg(long)]
    localhost: Vec<u16>,
    /// Make the device in the namespace of this process or with this name, and end.
    #[arg(long)]
    netns: Option<String>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required_unless_present = "netns")]
    command: Vec<OsString>,
}

impl Inside {
    /// Becomes the command.
    pub(crate) fn run(&self) -> ExitCode {
        let control = match Control::from_stdin() {
            Ok(control) => control,
            Err(error) => {
                eprintln!("steadfast: this command is for `steadfast run` alone: {error}");
                return ExitCode::from(OURS);
            }
        };
        let Err(Failed { code, text }) = self.enter(&control) else { return ExitCode::SUCCESS };
        // If the parent is gone, nobody wants to know.
        let _ = control.send(&Message::Failed(code, text), None);
        ExitCode::from(code)
    }

    /// Returns only without a command.
    fn enter(&self, control: &Control) -> Result<(), Failed> {
        let system = |what: &'static str| move |error: Errno| Failed::new(what, error);
        set_pdeathsig(Signal::SIGKILL).map_err(system("cannot follow the parent"))?;
        if getppid().as_raw() != self.parent {
            return Err(Failed { code: OURS, text: "the parent has died".to_owned() });
        }
        match &self.netns {
            Some(namespace) => existing::join(namespace)?,
            None => self.unshare()?,
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failed::new("cannot start the runtime", e))?;
        runtime.block_on(self.pass_device(control))?;
        drop(runtime);
        if self.netns.is_some() {
            return Ok(());
        }
        self.set_sysctls();
        if self.dns {
            replace_resolv_conf(&resolv_conf(&self.subnet()));
        }
        match control.receive() {
            Ok(Some((Message::Go, _))) => {}
            _ => return Err(Failed { code: OURS, text: "the parent has died".to_owned() }),
        }
        // The command may have a handler. Its own children are not concerned.
        set_pdeathsig(Signal::SIGTERM).map_err(system("cannot follow the parent"))?;
        let (program, args) = self.command.split_first().expect("clap requires a command");
        let error = Command::new(program).args(args).exec();
        let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
        Err(Failed { code, ..Failed::new(program.display(), error) })
    }

    fn subnet(&self) -> Subnet {
        if self.ipv6 { Subnet::with_v6() } else { Subnet::default() }
    }

    /// Makes the namespaces. Who may do so directly keeps their identity; others get a user namespace that maps it.
    fn unshare(&self) -> Result<(), Failed> {
        let (uid, gid) = (geteuid(), getegid());
        let own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        if Machine::own().may_unshare() && unshare(own).is_ok() {
            return private_mounts();
        }
        let refused = |error| Failed { code: OURS, text: refusal::of_unshare(error) };
        unshare(own | CloneFlags::CLONE_NEWUSER).map_err(refused)?;
        let (inner_uid, inner_gid) = if self.root { (0, 0) } else { (uid.as_raw(), gid.as_raw()) };
        let maps = [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{inner_uid} {uid} 1")),
            ("gid_map", format!("{inner_gid} {gid} 1")),
        ];
        for (file, text) in maps {
            let refused = |error| Failed { code: OURS, text: refusal::of_map(file, &error) };
            fs::write(Path::new("/proc/self").join(file), text).map_err(refused)?;
        }
        private_mounts()
    }

    /// Makes the device with its addresses and routes, and passes it on.
    async fn pass_device(&self, control: &Control) -> Result<(), Failed> {
        links::bring_up_loopback().await.map_err(|e| Failed::new("cannot bring lo up", e))?;
        // Neither router advertisements nor an address of its own choice. Another's namespace keeps its defaults.
        let ipv6 =
            if self.ipv6 { [("accept_ra", "0"), ("addr_gen_mode", "1")] } else { [("disable_ipv6", "1"); 2] };
        for (name, value) in ipv6.into_iter().filter(|_| self.netns.is_none()) {
            set(&format!("net/ipv6/conf/default/{name}"), value);
        }
        let pass = |kind, file: BorrowedFd<'_>| {
            let passed = control.send(&Message::Device(kind), Some(file));
            passed.map_err(|e| Failed::new("cannot pass the device", e))
        };
        match self.open_tun().await {
            Ok(queues) => queues.iter().try_for_each(|queue| pass(Kind::Tun, queue.as_fd()))?,
            // A device that is missing or that others may not open, as in many containers. A pair of virtual Ethernet
            // devices needs none.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                let socket = self.open_pair().await.map_err(|e| {
                    let text =
                        format!("{error}; nor a pair of virtual Ethernet devices: {}", super::plain(&e));
                    Failed { code: OURS, text }
                })?;
                pass(Kind::Packet, socket.as_fd())?;
            }
            Err(error) => return Err(Failed { code: OURS, text: error.to_string() }),
        }
        self.divert_localhost(&self.subnet()).await
    }

    async fn open_tun(&self) -> Result<Vec<Tun>, TunError> {
        let subnet = self.subnet();
        let mut options = TunOptions::new(DEVICE);
        options.mtu = Some(self.mtu);
        options.queue_len = Some(2000);
        options.offload = self.offload;
        options.host = subnet.guest().map(|address| (address, Subnet::prefix_len(address))).collect();
        let all = |address: IpAddr| match address {
            IpAddr::V4(_) => ([0; 4].into(), 0),
            IpAddr::V6(_) => ([0u16; 8].into(), 0),
        };
        options.routes = subnet.guest().map(all).collect();
        Tun::open_queues(&options, self.queues.into()).await
    }

    /// Makes a pair of virtual Ethernet devices, one here and one in a namespace of its own, and returns a packet socket
    /// on the far one.
    async fn open_pair(&self) -> io::Result<OwnedFd> {
        let here = fs::File::open("/proc/self/ns/net")?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        // The socket keeps the namespace.
        let made = links::make_pair(FAR, DEVICE, &here).await;
        let socket = made.and_then(|()| PacketSocket::bind(FAR));
        setns(&here, CloneFlags::CLONE_NEWNET)?;
        links::configure(DEVICE, &self.subnet(), self.mtu, self.offload).await?;
        socket
    }

    async fn divert_localhost(&self, subnet: &Subnet) -> Result<(), Failed> {
        if self.localhost.is_empty() {
            return Ok(());
        }
        // Answers come from 127.0.0.1, which is a local address too.
        for name in ["route_localnet", "accept_local"] {
            set(&format!("net/ipv4/conf/{DEVICE}/{name}"), "1");
        }
        let v4 = |address| if let IpAddr::V4(address) = address { Some(address) } else { None };
        let ends = subnet.guest().find_map(v4).zip(subnet.gateway().find_map(v4));
        let (guest, gateway) = ends.expect("a subnet has an IPv4 network");
        let diverted = links::divert_localhost(DEVICE, guest, gateway, &self.localhost).await;
        diverted.map_err(|e| Failed::new("cannot route localhost into the device", e))
    }

    /// Sets what a program may expect of a network that is its own. Where `/proc/sys` is read-only, as in some
    /// containers, it does without.
    fn set_sysctls(&self) {
        set("net/ipv4/ip_unprivileged_port_start", "0");
        let group = getegid();
        set("net/ipv4/ping_group_range", &format!("{group} {group}"));
    }
}

fn set(name: &str, value: &str) {
    let _ = fs::write(Path::new("/proc/sys").join(name), value);
}

/// Mounts made from here on stay here.
fn private_mounts() -> Result<(), Failed> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .map_err(|error| Failed { code: OURS, text: refusal::of_mount(error) })
}

/// The text of resolv.conf(5) inside: our servers, with the search list and the options of the machine.
fn resolv_conf(subnet: &Subnet) -> String {
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let kept = |line: &&str| matches!(line.split_whitespace().next(), Some("search" | "domain" | "options"));
    let servers = subnet.dns().map(|address| format!("nameserver {address}\n"));
    let kept = host.lines().filter(kept).map(|line| format!("{line}\n"));
    servers.chain(kept).collect()
}

/// Puts a file of ours in the place of `/etc/resolv.conf`, and closes the doors by which programs look names up past the
/// network. If that fails, names are looked up as outside, which the user is told.
fn replace_resolv_conf(text: &str) {
    if let Err(error) = bind_resolv_conf(text) {
        eprintln!("steadfast: /etc/resolv.conf stays that of the machine: {}", super::plain(&error));
    }
    for socket in ["/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"] {
        if Path::new(socket).exists() {
            let _ = bind(Path::new("/dev/null"), Path::new(socket));
        }
    }
}

/// Mounts the file from a file system in memory, which lives for as long as the mount: nothing has to be removed.
fn bind_resolv_conf(text: &str) -> io::Result<()> {
    // A mount must be on the file itself.
    let target = fs::canonicalize("/etc/resolv.conf")?;
    let folder = std::env::temp_dir();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &folder, Some("tmpfs"), flags, Some("size=64k"))?;
    let file = folder.join("resolv.conf");
    let written = fs::write(&file, text);
    let readable = written.and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o644)));
    let bound = readable.and_then(|()| bind(&file, &target));
    // The folder is as it was.
    umount2(&folder, MntFlags::MNT_DETACH)?;
    bound
}

fn bind(file: &Path, target: &Path) -> io::Result<()> {
    let none = None::<&str>;
    Ok(mount(Some(file), target, none, MsFlags::MS_BIND, none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_inside_are_ours_alone() {
        let text = resolv_conf(&Subnet::with_v6());
        let servers: Vec<&str> = text.lines().filter(|line| line.starts_with("nameserver")).collect();
        assert_eq!(servers, ["nameserver 10.0.2.3", "nameserver fd73:7465:6164::3"]);
    }
}

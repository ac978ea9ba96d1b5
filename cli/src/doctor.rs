//! `steadfast doctor`: what this machine lacks for `run` and `gateway`, and the remedies.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use steadfast_gateway::Subnet;

use crate::failure::Failure;
use crate::machine::Machine;
use crate::output::say;
use crate::run::{Launch, Place, Refused};

/// The machine to look at.
#[derive(Args)]
pub(crate) struct Doctor {
    /// Read the files of another machine beneath this directory, and try nothing.
    #[arg(long, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// All is well.
    Fine,
    /// Something works less well.
    Note,
    /// `run` does not work.
    Lacking,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    text: String,
}

impl Finding {
    fn new(level: Level, text: impl Into<String>) -> Finding {
        Finding { level, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Fine => "ok",
            Level::Note => "note",
            Level::Lacking => "lacking",
        };
        writeln!(f, "{level:<8} {}", self.text)
    }
}

impl Doctor {
    /// Prints the findings. The exit status is 1 if something is lacking.
    pub(crate) fn run(&self) -> Result<ExitCode, Failure> {
        let (machine, tried) = match &self.root {
            Some(root) => (Machine::at(root), None),
            None => (Machine::own(), Some(attempt())),
        };
        let first = tried.unwrap_or_else(|| namespaces(&machine));
        let findings: Vec<Finding> = std::iter::once(first).chain(details(&machine)).collect();
        say(&findings.iter().map(Finding::to_string).collect::<String>())?;
        let lacking = findings.iter().any(|finding| finding.level == Level::Lacking);
        Ok(ExitCode::from(u8::from(lacking)))
    }
}

/// Makes the namespaces and the device of a command that is never started.
fn attempt() -> Finding {
    let command = [OsString::from("true")];
    let place = Place::Command { command: &command, root: false, dns: false };
    let subnet = Subnet::default();
    let launch = Launch { place, subnet, mtu: 1500, offload: true, queues: 1, localhost: &[] };
    match launch.start() {
        Ok(launched) => Finding::new(Level::Fine, format!("run: a command gets {}", launched.give_up())),
        Err(Refused::Told(_, text)) => Finding::new(Level::Lacking, format!("run: {text}")),
        Err(Refused::Failure(failure)) => Finding::new(Level::Lacking, format!("run: {failure}")),
    }
}

/// Whether a user may make the namespaces, by what the machine's files say.
fn namespaces(machine: &Machine) -> Finding {
    if machine.may_unshare() {
        return Finding::new(Level::Fine, "namespaces: this process may make them");
    }
    match machine.obstacle() {
        Some(text) => Finding::new(Level::Lacking, format!("namespaces: {text}")),
        None => Finding::new(Level::Fine, "namespaces: users may make them"),
    }
}

/// Everything that makes `run` or `gateway` work less well.
fn details(machine: &Machine) -> impl Iterator<Item = Finding> {
    [
        kernel(machine),
        tun(machine),
        ping(machine),
        ipv6(machine),
        names(machine),
        files(machine),
        landlock(machine),
    ]
    .into_iter()
    .flatten()
}

fn kernel(machine: &Machine) -> Option<Finding> {
    let release = machine.sysctl("kernel/osrelease")?;
    Some(Finding::new(Level::Fine, format!("kernel: Linux {}", release.trim())))
}

fn tun(machine: &Machine) -> Option<Finding> {
    let opened = fs::OpenOptions::new().read(true).write(true).open(machine.path("/dev/net/tun"));
    let instead = "a pair of virtual Ethernet devices takes its place";
    Some(match opened.map_err(|error| error.kind()) {
        Ok(_) => Finding::new(Level::Fine, "TUN: /dev/net/tun is open"),
        Err(ErrorKind::PermissionDenied) => {
            let text = format!("TUN: /dev/net/tun is closed, and {instead}: chmod 666 /dev/net/tun");
            Finding::new(Level::Note, text)
        }
        Err(_) => {
            let remedy = "modprobe tun, or start the container with `--device /dev/net/tun`";
            Finding::new(Level::Note, format!("TUN: there is no /dev/net/tun, and {instead}: {remedy}"))
        }
    })
}

/// Pings leave by the kernel's ping sockets (icmp(7)).
fn ping(machine: &Machine) -> Option<Finding> {
    let range = machine.sysctl("net/ipv4/ping_group_range")?;
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<u32>().ok());
    let (low, high) = (ends.next()?, ends.next()?);
    let groups = machine.groups();
    let allowed = groups.iter().any(|group| (low..=high).contains(group));
    Some(if allowed {
        Finding::new(Level::Fine, "ping: the machine lets this user ping")
    } else {
        let remedy = "sysctl net.ipv4.ping_group_range=\"0 2147483647\"";
        Finding::new(Level::Note, format!("ping: the machine forbids it to this user: {remedy}"))
    })
}

fn ipv6(machine: &Machine) -> Option<Finding> {
    Some(if machine.has_ipv6() {
        Finding::new(Level::Fine, "IPv6: the machine has a route, and guests have IPv6")
    } else {
        Finding::new(Level::Note, "IPv6: the machine has no route, and guests have no IPv6")
    })
}

fn names(machine: &Machine) -> Option<Finding> {
    let text = machine.read("/etc/resolv.conf");
    let is_server = |line: &str| line.split_whitespace().next() == Some("nameserver");
    let remedy = "write `nameserver ADDRESS` there, or use --dns ADDRESS";
    Some(match text {
        None => Finding::new(Level::Note, format!("names: /etc/resolv.conf cannot be read: {remedy}")),
        Some(text) if !text.lines().any(is_server) => {
            Finding::new(Level::Note, format!("names: /etc/resolv.conf names no server: {remedy}"))
        }
        Some(_) => Finding::new(Level::Fine, "names: /etc/resolv.conf names servers"),
    })
}

/// Each connection takes a file.
fn files(machine: &Machine) -> Option<Finding> {
    const ENOUGH: u64 = 65_536;
    let limits = machine.read("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let hard = line.split_whitespace().nth(1)?;
    let number = hard.parse().unwrap_or(u64::MAX);
    Some(if number < ENOUGH {
        let remedy = format!("ulimit -Hn {ENOUGH}, or LimitNOFILE={ENOUGH} of systemd");
        Finding::new(Level::Note, format!("files: at most {number} connections: {remedy}"))
    } else {
        Finding::new(Level::Fine, format!("files: {hard} may be open"))
    })
}

/// The cage uses it where the kernel has it.
fn landlock(machine: &Machine) -> Option<Finding> {
    let modules = machine.read("/sys/kernel/security/lsm")?;
    Some(if modules.trim().split(',').any(|module| module == "landlock") {
        Finding::new(Level::Fine, "cage: the kernel has Landlock")
    } else {
        let remedy = "add `landlock` to the kernel's option `lsm=`";
        Finding::new(Level::Note, format!("cage: the kernel does not use Landlock: {remedy}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A machine where nothing is wrong, and then these files.
    fn told(files: &[(&str, &str)], without: &[&str]) -> Vec<Finding> {
        let folder = tempfile::tempdir().unwrap();
        let sound = [
            ("dev/net/tun", ""),
            ("etc/resolv.conf", "nameserver 192.0.2.53\n"),
            (
                "proc/self/limits",
                "Max open files            1024                 524288               files\n",
            ),
            ("proc/self/mountinfo", "1 1 0:1 / / rw - ext4 /dev/vda rw\n"),
            ("proc/self/ns/user", ""),
            (
                "proc/self/status",
                "Gid:\t1001\t1001\t1001\t1001\nGroups:\t27 \nCapEff:\t0000000000000000\nSeccomp:\t0\n",
            ),
            ("proc/net/ipv6_route", "0 00 0 00 0 0 0 0 0 eth0\n"),
            ("proc/sys/net/ipv4/ping_group_range", "0\t2147483647\n"),
            ("proc/sys/kernel/osrelease", "6.12.9-amd64\n"),
            ("proc/sys/user/max_user_namespaces", "31000\n"),
            ("sys/kernel/security/lsm", "capability,landlock,yama"),
        ];
        for (name, text) in sound.iter().chain(files) {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        without.iter().for_each(|name| fs::remove_file(folder.path().join(name)).unwrap());
        let machine = Machine::at(Path::new(folder.path()));
        std::iter::once(namespaces(&machine)).chain(details(&machine)).collect()
    }

    #[test]
    fn a_sound_machine_lacks_nothing() {
        let findings = told(&[], &[]);
        assert!(findings.iter().all(|finding| finding.level == Level::Fine), "{findings:?}");
        assert_eq!(findings.len(), 8);
        assert_eq!(findings[1].text, "kernel: Linux 6.12.9-amd64");
    }

    #[test]
    fn each_obstacle_is_named_with_its_remedy() {
        let status = |seccomp: u8, caps: &str| {
            format!("Gid:\t1001\t1001\t1001\t1001\nCapEff:\t{caps}\nSeccomp:\t{seccomp}\n")
        };
        let (filtered, root) = (status(2, "0000000000000000"), status(2, "000001ffffffffff"));
        let restricted = ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
        let chroot = ("proc/self/mountinfo", "1 1 0:1 / /somewhere rw - ext4 /dev/vda rw\n");
        for (files, without, level, expected) in [
            (
                &[("proc/sys/user/max_user_namespaces", "0\n")][..],
                &[][..],
                Level::Lacking,
                "namespaces: the limit is reached: sysctl user.max_user_namespaces=10000 (it is 0)",
            ),
            (
                &[("proc/sys/kernel/unprivileged_userns_clone", "0\n")],
                &[],
                Level::Lacking,
                "namespaces: this system allows them to root alone: sysctl kernel.unprivileged_userns_clone=1",
            ),
            (
                &[restricted],
                &[],
                Level::Lacking,
                "namespaces: AppArmor forbids it: write the line `abi <abi/4.0>, ",
            ),
            (
                &[restricted, ("proc/self/attr/current", "steadfast (unconfined)\n")],
                &[],
                Level::Fine,
                "namespaces: users may make them",
            ),
            (&[chroot], &[], Level::Lacking, "namespaces: the kernel allows none in a chroot"),
            (
                &[("proc/self/status", &filtered)],
                &[],
                Level::Lacking,
                "namespaces: a seccomp filter forbids it: in a container, start it with",
            ),
            (&[("proc/self/status", &root)], &[], Level::Fine, "namespaces: this process may make them"),
            (&[], &["proc/self/ns/user"], Level::Lacking, "namespaces: the kernel has no user namespaces"),
            (&[], &["dev/net/tun"], Level::Note, "TUN: there is no /dev/net/tun, and a pair of virtual"),
            (
                &[("proc/sys/net/ipv4/ping_group_range", "1\t0\n")],
                &[],
                Level::Note,
                "ping: the machine forbids it to this user: sysctl net.ipv4.ping_group_range=\"0 2147483647\"",
            ),
            (&[("proc/net/ipv6_route", "")], &[], Level::Note, "IPv6: the machine has no route"),
            (
                &[("etc/resolv.conf", "search x\n")],
                &[],
                Level::Note,
                "names: /etc/resolv.conf names no server",
            ),
            (&[], &["etc/resolv.conf"], Level::Note, "names: /etc/resolv.conf cannot be read"),
            (
                &[("proc/self/limits", "Max open files 1024 4096 files\n")],
                &[],
                Level::Note,
                "files: at most 4096 connections: ulimit -Hn 65536",
            ),
            (
                &[("sys/kernel/security/lsm", "capability,yama")],
                &[],
                Level::Note,
                "cage: the kernel does not use",
            ),
        ] {
            let findings = told(files, without);
            let found = findings.iter().find(|finding| finding.text.starts_with(expected));
            assert_eq!(found.map(|finding| finding.level), Some(level), "{expected}: {findings:?}");
        }
    }
}

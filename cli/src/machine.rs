//! The files of a machine that say what it allows, and the remedies where it does not.

use std::fs;
use std::path::{Path, PathBuf};

/// The remedies that a container needs: its default filter of system calls forbids namespaces.
const CONTAINER: &str =
    "in a container, start it with `--security-opt seccomp=unconfined`, or with `--cap-add SYS_ADMIN`";

/// A machine, by its root directory.
pub(crate) struct Machine {
    root: PathBuf,
}

impl Machine {
    /// This machine.
    pub(crate) fn own() -> Machine {
        Machine::at(Path::new("/"))
    }

    pub(crate) fn at(root: &Path) -> Machine {
        Machine { root: root.to_owned() }
    }

    /// The place of an absolute path.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(crate) fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    pub(crate) fn sysctl(&self, name: &str) -> Option<String> {
        self.read(&format!("/proc/sys/{name}"))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.sysctl(name)?.trim().parse().ok()
    }

    /// A field of the status of this process.
    fn status(&self, name: &str) -> Option<String> {
        let status = self.read("/proc/self/status")?;
        let mut fields = status.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| *field == name).map(|(_, value)| value.trim().to_owned())
    }

    /// Returns whether this process has the capabilities to make namespaces and to configure them.
    pub(crate) fn may_unshare(&self) -> bool {
        const CAP_NET_ADMIN: u64 = 1 << 12;
        const CAP_SYS_ADMIN: u64 = 1 << 21;
        let effective = self.status("CapEff").and_then(|hex| u64::from_str_radix(&hex, 16).ok());
        let wanted = CAP_NET_ADMIN | CAP_SYS_ADMIN;
        effective.unwrap_or(0) & wanted == wanted
    }

    /// The groups of this process.
    pub(crate) fn groups(&self) -> Vec<u32> {
        // The effective one of four.
        let own = self.status("Gid").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
        let others = self.status("Groups").unwrap_or_default();
        own.into_iter().chain(others.split_whitespace().filter_map(|id| id.parse().ok())).collect()
    }

    /// Returns whether the machine has a way to the IPv6 world.
    pub(crate) fn has_ipv6(&self) -> bool {
        let routes = self.read("/proc/net/ipv6_route").unwrap_or_default();
        routes.lines().any(|route| {
            let fields: Vec<&str> = route.split_whitespace().collect();
            matches!(&fields[..], [_, "00", .., device] if *device != "lo")
        })
    }

    /// Why a user may not make a user namespace, and the remedy, by what the files say. `None`: they say nothing.
    pub(crate) fn obstacle(&self) -> Option<String> {
        if self.number("user/max_user_namespaces") == Some(0) {
            return Some(self.limit());
        }
        if self.number("kernel/unprivileged_userns_clone") == Some(0) {
            let remedy = "sysctl kernel.unprivileged_userns_clone=1";
            return Some(format!("this system allows them to root alone: {remedy}"));
        }
        if self.read("/proc").is_none() && !self.path("/proc/self/ns").exists() {
            return Some("/proc is not mounted: mount -t proc proc /proc".to_owned());
        }
        if !self.path("/proc/self/ns/user").exists() {
            return Some("the kernel has no user namespaces: it needs CONFIG_USER_NS".to_owned());
        }
        if self.is_apparmor() {
            return Some(apparmor());
        }
        if self.is_chroot() {
            let instead = "use `unshare --root` or a mount namespace instead";
            return Some(format!("the kernel allows none in a chroot: {instead}"));
        }
        if self.is_filtered() {
            return Some(format!("a seccomp filter forbids it: {CONTAINER}"));
        }
        None
    }

    /// No more namespaces are allowed.
    pub(crate) fn limit(&self) -> String {
        let limit =
            self.number("user/max_user_namespaces").map_or(String::new(), |n| format!(" (it is {n})"));
        format!("the limit is reached: sysctl user.max_user_namespaces=10000{limit}")
    }

    /// The remedy in a container, if this is one.
    pub(crate) fn container(&self) -> Option<&'static str> {
        let marks = ["/.dockerenv", "/run/.containerenv"];
        marks.iter().any(|mark| self.path(mark).exists()).then_some(CONTAINER)
    }

    /// Returns whether AppArmor forbids user namespaces to this program, which has no profile.
    pub(crate) fn is_apparmor(&self) -> bool {
        let profile = self.read("/proc/self/attr/current");
        let is_unconfined =
            profile.is_none_or(|profile| profile.trim_end_matches(['\n', '\0']) == "unconfined");
        self.number("kernel/apparmor_restrict_unprivileged_userns") == Some(1) && is_unconfined
    }

    /// Returns whether a filter of system calls is in force.
    fn is_filtered(&self) -> bool {
        self.status("Seccomp").as_deref() == Some("2")
    }

    /// Returns whether the root directory is not that of the mount namespace.
    fn is_chroot(&self) -> bool {
        // A mount point of the namespace's root has `/` in the fifth field.
        let mounts = self.read("/proc/self/mountinfo").unwrap_or_default();
        !mounts.is_empty() && !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"))
    }
}

/// AppArmor's profile that lets this program make user namespaces, as Ubuntu wants it since 23.10.
pub(crate) fn apparmor() -> String {
    let path = std::env::current_exe().map_or("PATH".to_owned(), |path| path.display().to_string());
    format!(
        "AppArmor forbids it: write the line `abi <abi/4.0>, include <tunables/global> profile steadfast {path} \
         flags=(unconfined) {{ userns, }}` to /etc/apparmor.d/steadfast, then run `apparmor_parser -r \
         /etc/apparmor.d/steadfast`"
    )
}

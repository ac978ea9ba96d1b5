//! Requirements that a machine does not meet, and their remedies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::NotRun;

/// The Debian package of a program.
const PACKAGES: [(&str, &str); 17] = [
    ("busybox", "busybox-static"),
    ("chromium", "chromium"),
    ("curl", "curl"),
    ("dhclient", "isc-dhcp-client"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("networkctl", "systemd"),
    ("nginx", "nginx-light"),
    ("nsenter", "util-linux"),
    ("ping", "iputils-ping"),
    ("python3", "python3"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setpriv", "util-linux"),
    ("tshark", "tshark"),
    ("udhcpc", "udhcpc"),
    ("unshare", "util-linux"),
    ("wrk", "wrk"),
];

/// A requirement of a test that this machine does not meet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// The rights of root.
    Root,
    /// `/dev/net/tun`.
    Device,
    /// The right to make a network namespace; with the system's reason.
    Namespace(String),
    /// A program of this name.
    Tool(String),
    /// A kernel for a virtual machine.
    GuestKernel,
}

impl Missing {
    /// The remedy.
    fn remedy(&self) -> Remedy {
        match self {
            Missing::Root => Remedy::AsRoot,
            Missing::Device => Remedy::LoadModule,
            Missing::Namespace(_) => Remedy::OutsideOfContainer,
            Missing::Tool(tool) => {
                let package = PACKAGES.iter().find(|(name, _)| name == tool).map_or(&**tool, |(_, p)| p);
                Remedy::Install(package.to_owned())
            }
            Missing::GuestKernel => Remedy::FetchKernel,
        }
    }

    /// The form of a record.
    pub(crate) fn code(&self) -> String {
        match self {
            Missing::Root => "root".to_owned(),
            Missing::Device => "tun".to_owned(),
            Missing::Namespace(reason) => format!("namespace {reason}"),
            Missing::Tool(tool) => format!("tool {tool}"),
            Missing::GuestKernel => "guest-kernel".to_owned(),
        }
    }

    /// Reads what [`code`](Missing::code) wrote.
    pub(crate) fn from_code(code: &str) -> Option<Missing> {
        Some(match code.split_once(' ') {
            None if code == "root" => Missing::Root,
            None if code == "tun" => Missing::Device,
            None if code == "guest-kernel" => Missing::GuestKernel,
            Some(("namespace", reason)) => Missing::Namespace(reason.to_owned()),
            Some(("tool", tool)) => Missing::Tool(tool.to_owned()),
            _ => return None,
        })
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Root => f.write_str("it takes root to make a network namespace"),
            Missing::Device => f.write_str("/dev/net/tun is not there"),
            Missing::Namespace(reason) => write!(f, "no network namespace can be made: {reason}"),
            Missing::Tool(tool) => write!(f, "{tool} is not installed"),
            Missing::GuestKernel => f.write_str("there is no kernel for a virtual machine"),
        }
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Remedy {
    Install(String),
    FetchKernel,
    LoadModule,
    OutsideOfContainer,
    AsRoot,
}

/// Lists the tests that did not run, the reasons, and the commands that make them run.
pub fn summary(not_run: &[NotRun]) -> String {
    if not_run.is_empty() {
        return "Every test ran that was asked for.\n".to_owned();
    }
    let mut reasons: BTreeMap<&Missing, usize> = BTreeMap::new();
    let mut remedies = BTreeSet::new();
    let mut text = "Tests that did not run:\n".to_owned();
    for test in not_run {
        text.push_str(&format!("  {}\n", test.test));
        for missing in &test.missing {
            *reasons.entry(missing).or_default() += 1;
            remedies.insert(missing.remedy());
        }
    }
    let count = not_run.len();
    let tests = if count == 1 { "1 test" } else { &format!("{count} tests") };
    text.push_str(&format!("\n{tests} DID NOT RUN, though counted as passed:\n"));
    text.extend(reasons.iter().map(|(missing, count)| format!("{count:>5}  {missing}\n")));
    text.push_str("To run all of them:\n");
    let packages: Vec<&str> = remedies
        .iter()
        .filter_map(|remedy| match remedy {
            Remedy::Install(package) => Some(&**package),
            _ => None,
        })
        .collect();
    if !packages.is_empty() {
        text.push_str(&format!("       apt-get install {}\n", packages.join(" ")));
    }
    for (remedy, what) in [
        (Remedy::FetchKernel, ".ci/guest"),
        (Remedy::LoadModule, "modprobe tun"),
        (Remedy::OutsideOfContainer, "give it the right to make network namespaces (CAP_SYS_ADMIN)"),
        (Remedy::AsRoot, "run the same command as root"),
    ] {
        if remedies.contains(&remedy) {
            text.push_str(&format!("       {what}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> Missing {
        Missing::Tool(name.to_owned())
    }

    fn not_run(test: &str, missing: &[Missing]) -> NotRun {
        NotRun { test: test.to_owned(), missing: missing.to_vec() }
    }

    #[test]
    fn the_summary_names_tests_reasons_and_remedies() {
        let text = summary(&[
            not_run("tun: a", &[Missing::Root]),
            not_run("programs: b", &[Missing::Root, tool("nginx"), tool("tshark")]),
            not_run("programs: c", &[tool("tshark")]),
        ]);
        let expected = "Tests that did not run:\n  tun: a\n  programs: b\n  programs: c\n\n\
                        3 tests DID NOT RUN, though counted as passed:\n    \
                        2  it takes root to make a network namespace\n    \
                        1  nginx is not installed\n    \
                        2  tshark is not installed\n\
                        To run all of them:\n       \
                        apt-get install nginx-light tshark\n       \
                        run the same command as root\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn where_all_ran_the_summary_says_that() {
        assert_eq!(summary(&[]), "Every test ran that was asked for.\n");
    }

    /// The README names them, and CI installs them. `util-linux` is on every Debian machine.
    #[test]
    fn every_package_is_in_the_readme_and_installed_in_ci() {
        let (readme, ci) = (include_str!("../../README.md"), include_str!("../../.ci/run"));
        let install = readme.lines().find(|line| line.contains("apt-get install")).unwrap();
        for (tool, package) in PACKAGES.iter().filter(|(_, package)| *package != "util-linux") {
            assert!(install.split(' ').any(|word| word == *package), "{package} in the README");
            assert!(ci.contains(&format!("{tool}:{package}")), "{package} in .ci/run");
        }
    }
}

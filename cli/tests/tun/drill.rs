//! `drill run --against kernel`: this machine's kernel runs the scripts that the lab's own stack passes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::namespace::enter_namespace;

/// Tolerance in microseconds, for a busy machine.
const TOLERANCE: u32 = 200_000;
/// Scripts with another outcome on Linux, and why.
const DIFFERENT: [(&str, &str); 2] = [
    ("icmp.pkt", "Linux ends a connect for a host that is unreachable, which RFC 1122 calls a soft error"),
    ("retransmit.pkt", "it waits for an hour"),
];

fn drill(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.current_dir(folder).args(["drill", "run", "--against", "kernel"]).args(args);
    command.output().unwrap()
}

/// Runs a script over IPv4.
fn run(text: &str) -> (Option<i32>, String) {
    run_within(TOLERANCE, text)
}

fn run_within(tolerance: u32, text: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("script.pkt"), text).unwrap();
    let output = drill(folder.path(), &["script.pkt", &format!("--tolerance_usecs={tolerance}")]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../drill/tests/interpreter/pass")
}

#[test]
fn the_kernel_passes_the_scripts_that_our_stack_passes() {
    if !enter_namespace(&[]) {
        return;
    }
    let names =
        fs::read_dir(scripts()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.retain(|name| !DIFFERENT.iter().any(|(other, _)| other == name));
    names.sort();
    let tolerance = format!("--tolerance_usecs={TOLERANCE}");
    let mut args =
        vec![&*tolerance, "--ip-version=ipv4", "--ip-version=ipv6", "--ip-version=ipv4-mapped-ipv6"];
    args.extend(names.iter().map(String::as_str));
    let output = drill(&scripts(), &args);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let numbers: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
    // One of the scripts selects IPv4 itself.
    let runs = (3 * (names.len() - 1) + 1).to_string();
    assert_eq!(numbers, [".", &runs, "0", "0", "0", "0"], "{text}");
}

#[test]
fn the_kernel_retransmits_and_backs_off() {
    if !enter_namespace(&[]) {
        return;
    }
    let text = fs::read_to_string(scripts().join("retransmit.pkt")).unwrap();
    let (status, said) = run(&text);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("an event is 3600 s ahead, and no more than 60 s are waited for"), "{said}");
    // With a tick of 4 ms, timers of two seconds and more are accurate to a quarter of a second on Linux.
    let (status, said) =
        run_within(500_000, &text.replace("+3600 ", "+.1 ").replace("+.1 < . 1:1(0)", "+.01 < . 1:1(0)"));
    assert_eq!(status, Some(0), "{said}");
    assert!(!said.contains("skipped"), "{said}");
}

#[test]
fn where_the_kernel_differs_the_report_is_as_for_our_stack() {
    if !enter_namespace(&[]) {
        return;
    }
    let text = fs::read_to_string(scripts().join("passive.pkt")).unwrap();
    let (status, said) = run(&text.replace("+0 > P. 1:1001(1000) ack 1", "+0 > . 1:1001(1000) ack 2"));
    assert_eq!(status, Some(1), "{said}");
    let line = 1 + text.lines().position(|line| line.starts_with("+0 > P. 1:1001(1000)")).unwrap();
    let first = format!(
        "script.pkt:{line}: fail (ipv4): flags: expected ., came P. (also wrong: acknowledgment number)"
    );
    assert!(said.starts_with(&first), "{said}");
    for part in [
        "came:   > P. 1:1001(1000) ack 1 win",
        "* acknowledgment number  2",
        "  sequence number        1",
        "accept(3, ..., ...) = 4",
        "-- P. 1:1001(1000) ack 1 win",
    ] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    let (status, said) = run(&text.replace("accept(3, ..., ...) = 4", "accept(3, ..., ...) = -1 EINVAL"));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("accept returned ") && said.contains("expected -1 EINVAL"), "{said}");
    let (status, said) = run(&text.replace("4, ..., 4096) = 500", "4, ..., 4096) = 501"));
    assert!(status == Some(1) && said.contains("read returned 500, expected 501"), "{said}");
    let (status, said) = run(&text.replace("+0 > S. 0:0(0) ack 1", "+1 > S. 0:0(0) ack 1"));
    assert!(status == Some(1) && said.contains("early: it came at"), "{said}");
}

#[test]
fn sysctls_of_a_script_end_with_its_namespace() {
    if !enter_namespace(&[]) {
        return;
    }
    let before = sysctls();
    assert!(before.len() > 20 && before["tcp_sack"].trim() == "1", "{before:?}");
    let text = fs::read_to_string(scripts().join("ifdef.pkt")).unwrap();
    let kept = text.replace("`sysctl -q net.ipv4.tcp_sack=1`", "");
    assert!(kept.contains("sysctl -q net.ipv4.tcp_sack=0") && kept.len() < text.len());
    let (status, said) = run(&kept);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(sysctls(), before);
}

#[test]
fn what_is_not_of_the_namespace_is_not_touched() {
    if !enter_namespace(&[]) {
        return;
    }
    let skipped = |command: &str, reason: &str| {
        let (status, said) = run(&format!("`{command}`\n0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n"));
        assert!(status == Some(0) && said.contains(reason), "{said}");
    };
    skipped("sysctl -w vm.swappiness=60", "sysctl vm.swappiness is none of a network namespace");
    skipped("sysctl -w net.inet.tcp.sack.enable=1", "this kernel has none in a network namespace");
    skipped("sysctl -w net.ipv4.tcp_mem='1 2 3'", "sysctl net.ipv4.tcp_mem");
    skipped("iptables -F", "the command `iptables -F` is not interpreted");
}

/// All TCP settings of the kernel in this thread's namespace.
fn sysctls() -> BTreeMap<String, String> {
    let files = fs::read_dir("/proc/sys/net/ipv4").unwrap().map(|entry| entry.unwrap());
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        // Some cannot be read.
        name.starts_with("tcp_").then(|| fs::read_to_string(entry.path()).ok().map(|value| (name, value)))?
    };
    files.filter_map(read).collect()
}

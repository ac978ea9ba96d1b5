//! The kernel as judge: scenarios against this machine's kernel, with faults in between, in real time.
//!
//! If namespaces or TUN devices are not available, a test says so and passes; with `STEADFAST_REQUIRE_TUN=1` it fails.
#![cfg(target_os = "linux")]

#[path = "tun/namespace.rs"]
#[allow(dead_code)]
mod namespace;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::namespace::{enter_namespace, refused_without_rights};

/// Run with our stack as C and as S.
const BOTH: &str = "N1 N2 N3 N4 N5 N5b N6 N7 N8 N11 H1 H1b H2 H2b H3a H3b H5 H6 H7a H7b H7d H8a H8b H9a H9b H11 T1 T2 T3a T3b \
                    T4a T4b T4c T5 T5b T6a T6b T7 T8a T9b T10 T11 T13 L1 L2 L3 L4 L8";
/// Run with our stack as C only.
const AS_CLIENT: &str = "H7c H7e H10a H12 H14 L5 L9 T12 T14";
/// Run with our stack as S only.
const AS_SERVER: &str = "H3c H4b H10b H13 L10 N12 T1b";

/// Time limit for all of it.
const LIMIT: Duration = Duration::from_secs(90);

fn steadfast(args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_steadfast")).args(args.split(' ')).output().unwrap()
}

#[test]
fn every_scenario_with_a_kernel_comes_out_as_its_file_says_in_every_role() {
    if !enter_namespace(&[]) {
        return;
    }
    let since = Instant::now();
    let output = steadfast("lab run --against kernel --json");
    let took = since.elapsed();
    let mut roles: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let report: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| report[key].as_str().unwrap().to_owned();
        roles.entry(text("id")).or_default().insert(text("role"));
        if text("result") != "pass" {
            wrong.push(format!("{} with ours as {}:\n{}", text("id"), text("role"), text("reason")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    for (ids, wanted) in [(BOTH, ["C", "S"].as_slice()), (AS_CLIENT, &["C"]), (AS_SERVER, &["S"])] {
        for id in ids.split(' ') {
            let played: Vec<&str> = roles.get(id).into_iter().flatten().map(String::as_str).collect();
            assert_eq!(played, wanted, "{id}");
        }
    }
    assert!(took < LIMIT, "it took {took:?}");
}

/// H3b: the ladder shows both ends, and a fault from the command line applies to the kernel, too.
#[test]
fn the_ladder_shows_both_ends_and_a_fault_of_the_command_line_acts_between_them() {
    if !enter_namespace(&[]) {
        return;
    }
    let output = steadfast("lab run H3b --against kernel --role C --ladder");
    let ladder = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{ladder}");
    assert!(ladder.contains("[linux, S is the kernel]"), "{ladder}");
    for row in [
        "S: listen 80 | LISTEN",
        "lost: lose C>S [.] 1",
        "[P.] seq 1:1001 ack 1",
        "S: read 1000 = ok | ESTABLISHED",
        "S: read eof = eof after 0 bytes | CLOSE-WAIT",
    ] {
        assert!(ladder.contains(row), "`{row}` is not in\n{ladder}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.args("lab run N1 --against kernel --role C --ladder --fault".split(' '));
    let output = command.arg("lose S>C [S.] 1").output().unwrap();
    let ladder = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{ladder}");
    assert!(ladder.contains("lost: lose S>C [S.] 1") && ladder.contains("again"), "{ladder}");
}

#[test]
fn what_cannot_be_run_is_one_clear_line_and_status_2() {
    if !enter_namespace(&[]) {
        return;
    }
    for (args, expected) in [
        (
            "lab run H10a --against kernel --role S",
            "steadfast: H10a does not run against the kernel with ours as S: ",
        ),
        ("lab run L7 --against kernel", "steadfast: L7 does not run against the kernel: "),
        ("lab run X9 --against kernel", "steadfast: `X9`: no such scenario and no such file"),
        ("lab run N1 --against kernel --role Q", "steadfast: --role Q: in N1 ours can be C or S"),
        (
            "lab run N1 --against kernel --sysctl tcp_rto_initial_ms=500",
            "the kernel has no setting `tcp_rto_initial_ms`",
        ),
    ] {
        let output = steadfast(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args}: {stderr}");
        assert!(stderr.contains(expected) && stderr.lines().count() == 1, "{args}: {stderr}");
    }
}

#[test]
fn without_the_right_to_make_a_namespace_one_line_says_so() {
    let stderr = refused_without_rights("lab run N1 --against kernel");
    assert!(stderr.starts_with("steadfast: --against kernel needs "), "{stderr}");
}

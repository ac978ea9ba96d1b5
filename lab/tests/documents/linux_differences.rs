//! `docs/linux-differences.md` agrees with the remarks in the scenario files.

use std::fmt::Write;

use steadfast_drill::fuzz::known::KNOWN;
use steadfast_drill::fuzz::{Classes, Coverage, Script, coverage};
use steadfast_lab::{SERIES, Scenario, catalogue};

use crate::check_document;

const HEAD: &str = "\
# Where Linux differs

Scenarios that run with the Linux kernel as one end found these differences from our stack (`steadfast lab run --against
kernel`, checked in `cli/tests/kernel.rs`). A test writes this file from the `kernel` parts of `lab/scenarios/*.scenario`, so
change those. Conditions in the same files (`[S=kernel]`) give the expectations for the kernel.

Two differences hold everywhere. Its RTO is at least SRTT + 200 ms, since `tcp_rto_min_us` bounds only the deviation; ours
is the larger of 200 ms and the value of RFC 6298. It sends data before the next call of the application, ours when the
application waits. In these runs its tail loss probes are off, and its congestion control is Reno.

";

const SCRIPTS: &str = "
## Generated scripts

`steadfast drill fuzz --against kernel` plays generated scripts on the profile `linux` and on the kernel of this machine.
CI plays these of the seeds 0 to 299, and fails on a difference without a row. The rows are in `drill/src/fuzz/known.rs`,
each with a predicate. Edges of windows are those that each side has shown. A run in which the machine was late by more
than 5 ms does not count. The seeds 0 to 19,999 were played on Linux 6.18 in November 2026: 273 scripts differ, each with a
row.

| difference | smallest script | what the kernel does otherwise, and why |
|---|---|---|
";

const CLASSES: &str = "
The steps of these scripts, by the state in which they meet the stack. A class is an event and the edges that its SEQ and
ACK are near:

| state | classes played | events that are never played |
|---|---|---|
";

/// The seeds that CI plays.
const SEEDS: std::ops::Range<u64> = 0..300;

fn classes() -> Classes {
    let mut classes = Classes::new();
    for seed in SEEDS {
        let (_, record) = Script::generate(seed).with_clear_pauses();
        record.classes().for_each(|class| *classes.entry(class.clone()).or_default() += 1);
    }
    classes
}

fn document(all: &[Scenario]) -> String {
    let mut out = HEAD.to_owned();
    out.push_str("| scenario | the kernel as | what it does otherwise, and why |\n|---|---|---|\n");
    for scenario in all {
        for role in &scenario.kernel {
            for text in &role.differences {
                let text = capitalised(text).replace('|', "\\|");
                let _ = writeln!(out, "| {} {} | {} | {text} |", scenario.id, scenario.title, role.host);
            }
        }
    }
    out.push_str(SCRIPTS);
    for known in KNOWN {
        let _ = writeln!(out, "| {} | {} | {} |", known.name, known.script(), known.reason);
    }
    out.push_str(CLASSES);
    for Coverage { state, classes: (hit, all), missing } in coverage(&classes()) {
        let missing = if missing.is_empty() { "none".to_owned() } else { missing.join(", ") };
        let _ = writeln!(out, "| {state} | {hit} of {all} | {missing} |");
    }
    out.push_str("\n## Roles that the kernel cannot play\n\n");
    for scenario in all {
        for role in &scenario.kernel {
            if let Some(reason) = &role.not {
                let _ = writeln!(out, "- {} as {}: {reason}", scenario.id, role.host);
            }
        }
    }
    for (heading, count) in [
        ("No difference found, in either role", 2),
        ("No difference found, in the one role that it can play", 1),
    ] {
        let _ = writeln!(out, "\n## {heading}\n");
        for (letter, _) in SERIES {
            let same = all.iter().filter(|s| s.id.starts_with(letter) && agrees(s) && played(s) == count);
            let same: Vec<&str> = same.map(|s| s.id.as_str()).collect();
            if !same.is_empty() {
                let _ = writeln!(out, "- {}", same.join(", "));
            }
        }
    }
    out
}

/// Returns how many ends the kernel can play.
fn played(scenario: &Scenario) -> usize {
    scenario.kernel.iter().filter(|role| role.not.is_none()).count()
}

/// Returns whether there is no remark on the ends that the kernel can play.
fn agrees(scenario: &Scenario) -> bool {
    scenario.kernel.iter().all(|role| role.differences.is_empty())
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

#[test]
fn the_document_says_what_the_scenarios_say() {
    check_document("docs/linux-differences.md", &document(&catalogue().unwrap()));
}

/// The kernel plays both ends, or the file says why not.
#[test]
fn every_scenario_says_of_both_ends_whether_the_kernel_can_play_them() {
    for scenario in catalogue().unwrap() {
        let mut hosts: Vec<&str> = scenario.kernel.iter().map(|role| role.host.as_str()).collect();
        hosts.sort_unstable();
        assert_eq!(hosts, ["C", "S"], "{}", scenario.id);
    }
}

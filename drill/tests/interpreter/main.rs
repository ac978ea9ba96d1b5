//! The interpreter of drill scripts: scripts that pass, scripts with one error, and invalid scripts.

mod facts;
mod family;
mod pages;
mod parse;
mod wrong;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use steadfast_core::Profile;
use steadfast_drill::{DrillOptions, IpVersion, Outcome, Verdict, run_script};

/// Runs a script over IPv4 with the Linux profile.
pub(crate) fn run(text: &str) -> Outcome {
    run_script(text, &DrillOptions::default())
}

#[track_caller]
pub(crate) fn passes(text: &str) {
    let outcome = run(text);
    assert_eq!(outcome.verdict, Verdict::Pass, "{}\n{}{}", outcome.reason, outcome.details, outcome.ladder);
}

fn scripts() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interpreter/pass");
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn good_scripts_pass_with_every_version_of_ip() {
    let mut wrong = String::new();
    for (name, text) in scripts() {
        for ip_version in IpVersion::ALL {
            let outcome = run_script(&text, &DrillOptions { ip_version, ..DrillOptions::default() });
            if outcome.verdict != Verdict::Pass {
                let line = outcome.at.map_or(0, |at| at.line);
                let (verdict, reason) = (outcome.verdict.name(), &outcome.reason);
                wrong.push_str(&format!("{name}:{line} ({ip_version}): {verdict}: {reason}\n"));
                wrong.push_str(&format!("{}{}\n", outcome.details, outcome.ladder));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_same_script_is_the_same_run() {
    for (_, text) in scripts() {
        let (first, second) = (run(&text), run(&text));
        assert_eq!((first.ladder, first.took), (second.ladder, second.took));
    }
}

#[test]
fn without_regard_to_how_windows_and_the_order_of_options_are_open() {
    let text = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 bind(3, ..., ...) = 0\n+0 listen(3, 1) = 0\n\
                +0 < S 0:0(0) win 32792 <mss 1000,sackOK,nop,nop>\n\
                +.05 > S. 0:0(0) ack 1 win 1 <sackOK,mss 1460,nop,nop>\n";
    let neutral = DrillOptions { neutral: true, ..DrillOptions::default() };
    assert_eq!(run(text).verdict, Verdict::Fail);
    let outcome = run_script(text, &neutral);
    assert_eq!(outcome.verdict, Verdict::Pass, "{}", outcome.reason);
    // The neutral mode still checks the semantics.
    let wrong = text.replace("ack 1 ", "ack 2 ");
    assert_eq!(run_script(&wrong, &neutral).verdict, Verdict::Fail);
}

/// A sender may push at each segment or at the end of what was written: no standard says how.
#[test]
fn without_regard_to_how_psh_is_open() {
    let text = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 bind(3, ..., ...) = 0\n+0 listen(3, 1) = 0\n\
                +0 < S 0:0(0) win 32792 <mss 1000>\n+0 > S. 0:0(0) ack 1 <mss 1460>\n\
                +.1 < . 1:1(0) ack 1 win 32792\n+0 accept(3, ..., ...) = 4\n\
                +0 write(4, ..., 100) = 100\n+0 > . 1:101(100) ack 1\n";
    let neutral = DrillOptions { neutral: true, ..DrillOptions::default() };
    let strict = run(text);
    assert_eq!((strict.verdict, strict.at.map(|at| at.line)), (Verdict::Fail, Some(9)), "{}", strict.reason);
    let outcome = run_script(text, &neutral);
    assert_eq!(outcome.verdict, Verdict::Pass, "{}", outcome.reason);
    let with_fin = text.replace("> . 1:101", "> F. 1:101");
    assert_eq!(run_script(&with_fin, &neutral).verdict, Verdict::Fail);
}

/// A report shows the line as it stands in the script.
#[test]
fn a_failure_shows_the_line_without_the_comments_that_follow() {
    let text = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 bind(3, ..., ...) = 0\n+0 listen(3, 1) = 0\n\
                +0 < S 0:0(0) win 32792 <mss 1000>\n+0 > S. 0:0(0) ack 2 <mss 1460>  // here\n\
                // The next one\n/* is another. */\n+.1 < . 1:1(0) ack 1 win 32792\n";
    let outcome = run(text);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert!(outcome.details.contains("script: +0 > S. 0:0(0) ack 2 <mss 1460>\n"), "{}", outcome.details);
}

#[test]
fn every_profile_runs_every_script_to_a_verdict() {
    for (_, text) in scripts() {
        for profile in Profile::ALL {
            let outcome = run_script(&text, &DrillOptions { profile, ..DrillOptions::default() });
            assert!(outcome.verdict != Verdict::Error, "{}", outcome.reason);
        }
    }
}

#[test]
fn defines_of_the_command_line_switch_parts_on() {
    let text = "#ifdef ON\n+0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n#endif\n";
    assert_eq!(run(text).verdict, Verdict::Empty);
    let defines = BTreeMap::from([("ON".to_owned(), "1".to_owned())]);
    let outcome = run_script(text, &DrillOptions { defines, ..DrillOptions::default() });
    assert_eq!(outcome.verdict, Verdict::Pass);
}

#[test]
fn what_does_not_apply_is_skipped_with_a_reason() {
    let skips = |text: &str, reason: &str| {
        let outcome = run(text);
        assert_eq!((outcome.verdict, outcome.reason.as_str()), (Verdict::Skip, reason), "{text}");
    };
    skips("0 socket(..., SOCK_DGRAM, IPPROTO_UDP) = 3", "sockets of SOCK_DGRAM are not interpreted");
    skips("0 futex(1) = 0", "the system call futex is not interpreted");
    skips(
        "`sysctl -w net.ipv4.tcp_nonsense=1`\n0 close(3) = -1",
        "sysctl net.ipv4.tcp_nonsense cannot be mapped",
    );
    skips("`iptables -F`\n0 close(3) = -1", "the command `iptables -F` is not interpreted");
    skips("0 < gre: S 0:0(0) win 1\n+0 close(3) = -1", "packets in gre are not interpreted");
    let option = "0 socket(..., SOCK_STREAM, 0) = 3\n+0 setsockopt(3, SOL_SOCKET, SO_ZEROCOPY, [1], 4) = 0";
    skips(option, "the socket option SOL_SOCKET SO_ZEROCOPY is not kept");
}

#[test]
fn a_script_without_a_verdict_is_empty() {
    for text in ["", "// nothing\n", "`sysctl -q net.ipv4.tcp_sack=0`\n", "0 < S 0:0(0) win 1\n"] {
        assert_eq!(run(text).verdict, Verdict::Empty, "{text}");
    }
}

#[test]
fn what_is_not_fatal_is_noted() {
    let text = "--non_fatal=syscall\n0 socket(..., SOCK_STREAM, 0) = 3\n+0 listen(3, 1) = -1 EINVAL\n";
    let outcome = run(text);
    assert_eq!(outcome.verdict, Verdict::Pass);
    assert_eq!(outcome.notes, ["line 3: listen returned 0, expected -1 EINVAL"]);
}

#[test]
fn reports_for_machines_say_what_is_promised() {
    let outcome = run("0 socket(..., SOCK_STREAM, 0) = 3\n+0 listen(3, 1) = -1 EINVAL\n");
    let json = outcome.to_json("a/b.pkt");
    assert_eq!((&json["file"], &json["ip_version"]), (&"a/b.pkt".into(), &"ipv4".into()));
    assert_eq!((&json["result"], &json["line"]), (&"fail".into(), &2.into()));
    assert_eq!(json["reason"], "listen returned 0, expected -1 EINVAL");
    let junit = steadfast_drill::junit(&[("a/b.pkt".to_owned(), outcome)]);
    assert!(junit.contains("tests=\"1\" failures=\"1\" errors=\"0\" skipped=\"0\""), "{junit}");
    let pass = run("0 socket(..., SOCK_STREAM, 0) = 3\n").to_json("x");
    assert!(pass["result"] == "pass" && pass["reason"].is_null() && pass["line"].is_null());
}

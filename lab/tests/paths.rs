//! What paths do to transfers: the faults of a path in the network, and the expectations about transfers.

use steadfast_lab::{Report, RunOptions, Scenario, run};

fn play(text: &str) -> Report {
    let scenario =
        Scenario::parse("test", &format!("id X\ntitle T\n{text}")).unwrap_or_else(|error| panic!("{error}"));
    let options = RunOptions { ladder: true, capture: true, ..RunOptions::default() };
    run(&scenario, &options).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn passes(text: &str) -> Report {
    let report = play(text);
    assert!(report.passed(), "{}\n{}", report.failures.join("\n"), report.ladder);
    report
}

/// Checks that exactly one thing fails, with this message.
#[track_caller]
fn fails(text: &str, message: &str) {
    let report = play(text);
    let [failure] = &report.failures[..] else {
        panic!("{message}: {:#?}\n{}", report.failures, report.ladder)
    };
    assert!(failure.contains(message), "expected `{message}`: {failure}");
}

/// S sends 500 kB to each of two connections over a path of 8 Mbit/s, and both stay.
const BASE: &str = "
path C|S delay 10ms rate 8mbit queue 64K bytes
app C
  connect S:80 as a
  read eof
  close
app C
  connect S:80 as b
  read eof
  close
app S
  serve 80 stream 500000
";

/// Drops and replies that losses and reordering bring about.
const ANY: &str = "
expect
  drops C any
  drops S any
  replies C any
  replies S any
";

#[test]
fn expectations_about_transfers_hold_on_both_sides_of_their_bounds() {
    // 1 MB and its headers at 8 Mbit/s: slow start ends early, and the rest of the second is full.
    for (line, fits, not) in [
        ("goodput S>C", ">=7mbit", ">=8mbit"),
        ("goodput S>C", "<=8mbit", "<=7mbit"),
        ("goodput S>C", "7mbit..8mbit", "1mbit..7mbit"),
        ("completion S>C max", "1s..1.3s", "<=1s"),
        ("completion S>C p50", ">=500ms", "<=500ms"),
        ("share S>C", ">=0.9", "<=0.5"),
        ("queue S>C max", "<=66ms", "<=20ms"),
        ("queue S>C max", "20..44 packets", "<=20 packets"),
        ("queue S>C max", "<=64K bytes", "<=30K bytes"),
        ("queue S>C p50", ">=1us", "0us"),
    ] {
        let (wanted, unit) = fits.split_once(' ').map_or((fits, ""), |(w, u)| (w, u));
        passes(&format!("{BASE}{ANY}expect\n  {line} {wanted} {unit}\n"));
        fails(
            &format!("{BASE}{ANY}expect\n  {line} {not}\n"),
            &format!("expected {}", not.split(' ').next().unwrap()),
        );
    }
}

#[test]
fn a_window_of_time_restricts_goodput_and_share() {
    passes(&format!("{BASE}{ANY}expect\n  goodput S>C 6mbit..10mbit from 0.5 until 1\n"));
    fails(
        &format!("{BASE}{ANY}expect\n  goodput S>C >=1mbit from 2 until 3\n"),
        "0.000 Mbit/s from 2.000000 until 3.000000, expected >=1mbit",
    );
    passes(&format!("{BASE}{ANY}expect\n  share S>C 1 until 0.01\n"));
}

#[test]
fn expectations_about_nothing_fail() {
    fails(&format!("{BASE}{ANY}expect\n  goodput C>S >=1mbit\n"), "nothing was sent");
    let alone = BASE
        .replacen("app C", "[x] app C", 0)
        .replace("app C\n  connect S:80 as b\n  read eof\n  close\n", "");
    fails(&format!("{alone}{ANY}expect\n  share S>C >=0.9\n"), "one stream shares with nobody");
}

#[test]
fn an_expectation_that_is_not_understood_says_what_was_expected() {
    for (line, message) in [
        ("goodput", "expected a direction such as `C>S`, found the end of the line"),
        ("goodput C>S 5", "expected a rate such as `>=40mbit`, found `5`"),
        (
            "completion C>S p100 <=1s",
            "expected `p50`, `p99`, another one from p1 to p99, or `max`, found `p100`",
        ),
        ("completion C>S p99 <=1x", "expected a time such as `<=300ms`, found `<=1x`"),
        ("share C>S >=1.5", "expected a fraction such as `>=0.95`, found `>=1.5`"),
        ("queue C>S p99 <=x", "expected a time such as `<=20ms`, `N packets` or `N bytes`, found `<=x`"),
    ] {
        let error =
            Scenario::parse("test", &format!("id X\ntitle T\nexpect {line}\n")).unwrap_err().to_string();
        assert!(error.contains(message), "{line}: {error}");
    }
}

#[test]
fn every_fault_of_a_path_leaves_its_trace_and_the_data_arrives() {
    for (fault, trace) in [
        ("burst-loss S>C 1% 30%", "lost: burst loss"),
        ("police S>C 4mbit 16K", "lost: policed"),
        ("handover S>C 400ms 50ms 20%", "lost: handover"),
        ("aqm S>C codel", "lost: aqm"),
        ("aqm S>C pie", "lost: aqm"),
        ("thin C>S 8", "lost: thinned"),
        ("gro S>C 2ms", "coalesced"),
        ("jitter S>C 0ms..15ms reorder", ""),
        ("aggregate S>C 4ms", ""),
        ("rate S>C 2mbit 100ms 8mbit 100ms queue 30", ""),
    ] {
        let text = format!("{BASE}ladder 3000\nfault {fault}\n{ANY}expect\n  completion S>C max <=9s\n");
        let report = passes(&text);
        assert!(report.ladder.contains(trace), "{fault}\n{}", report.ladder);
    }
}

#[test]
fn an_aqm_marks_what_allows_it() {
    let large = BASE.replace("64K bytes", "1000");
    let report = passes(&format!("{large}ladder 3000\nsysctl * tcp_ecn = 1\nfault aqm S>C codel ecn\n{ANY}"));
    let lines = |what: &str| report.ladder.lines().filter(|line| line.contains(what)).count();
    assert!(lines("CE: arrives") > 2, "{}", report.ladder);
    // RFC 3168 §6.1.5 forbids ECT on a retransmission.
    assert_eq!(lines("lost: aqm"), lines("again; lost: aqm"));
}

#[test]
fn a_change_of_a_path_ends_and_what_was_planned_comes_back() {
    let text = format!(
        "{BASE}ladder 3000\nfault rate S>C 1mbit queue 64K bytes from 0.2 until 0.7\n{ANY}expect
  goodput S>C <=2mbit from 0.4 until 0.7
  goodput S>C >=6mbit from 1.2 until 1.5\n"
    );
    let report = passes(&text);
    let note = "rate S>C 1mbit queue 64K bytes from 0.2 until 0.7";
    assert!(report.ladder.contains(note) && report.ladder.contains(&format!("{note} ends")));
}

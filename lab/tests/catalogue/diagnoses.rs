//! Scenarios as captures: the diagnoses from the client's side, from the server's, and from both together.

use std::collections::{BTreeMap, BTreeSet};

use steadfast_capture::Reader;
use steadfast_diagnose::catalogue::{DIAGNOSES, diagnosis};
use steadfast_diagnose::{Check, Options, Report, Severity};
use steadfast_lab::{RunOptions, Scenario, catalogue, run};

/// A scenario, and the diagnoses that are right from C and from S: one of them must be made. Without any, it cannot be
/// told from there, and nothing above an information may be said.
type Told = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Every scenario of the catalogue.
const TOLD: &[Told] = &[
    ("N1", &[], &[]),
    ("N2", &["close-half-closed"], &["close-half-closed"]),
    ("N3", &[], &[]),
    ("N4", &["close-half-closed"], &["close-half-closed"]),
    ("N5", &["open-simultaneous"], &["open-simultaneous"]),
    ("N5b", &["open-simultaneous"], &["open-simultaneous"]),
    ("N6", &["close-simultaneous"], &["close-simultaneous"]),
    ("N7", &[], &[]),
    ("N8", &[], &[]),
    ("N9", &["open-tfo-used"], &["open-tfo-used"]),
    ("N9b", &["open-syn-data", "open-syn-lost"], &["open-tfo-used"]),
    ("N10", &["open-syn-in-established", "open-synack-changed"], &["open-synack-changed", "open-abandoned"]),
    ("N11", &["open-split-handshake"], &[]),
    // A fragment that is missing is a lost segment.
    ("N12", &["loss-rto", "loss-tlp"], &["loss-rto"]),
    ("H1", &["open-syn-lost"], &[]),
    ("H1b", &["open-no-answer"], &[]),
    // C cannot tell a lost SYN from a lost SYN-ACK; S cannot tell a lost SYN-ACK from a lost ACK.
    ("H2", &["open-synack-lost", "open-syn-lost"], &["open-synack-lost", "open-ack-lost"]),
    ("H2b", &["open-no-answer"], &["open-synack-lost"]),
    ("H3a", &["open-ack-lost"], &["open-ack-lost", "open-synack-lost"]),
    // The data completes the handshake: nothing comes again.
    ("H3b", &[], &[]),
    // From C, a lost acknowledgment and a full backlog look the same.
    ("H3c", &["open-ack-lost", "open-backlog-full"], &["open-ack-lost", "open-synack-lost"]),
    ("H4a", &["open-no-answer"], &["open-syn-flood"]),
    // C gets in.
    ("H4b", &[], &["open-syn-flood"]),
    ("H4c", &[], &["open-syn-flood"]),
    ("H4d", &["loss-fast-retransmit"], &["loss-fast-retransmit"]),
    ("H4e", &["open-syn-lost"], &["open-syn-flood"]),
    ("H5", &[], &[]),
    ("H6", &["open-refused"], &["open-refused"]),
    ("H7a", &["open-syn-in-established"], &["open-syn-in-established"]),
    ("H7b", &["open-syn-in-established"], &["open-syn-in-established"]),
    ("H7c", &["open-syn-in-established"], &["open-syn-in-established"]),
    ("H7d", &["open-timewait-reused"], &["open-timewait-reused"]),
    ("H7e", &["open-timewait-reused", "open-isn-reused"], &["open-timewait-reused", "open-isn-reused"]),
    // One SYN, whose copy is answered with another number.
    ("H7f", &["open-synack-changed"], &["open-synack-changed"]),
    ("H8a", &["path-pmtu-lowered"], &[]),
    ("H8b", &["path-mtu-blackhole"], &["loss-before-here"]),
    ("H8c", &["open-syn-lost"], &["open-syn-lost", "open-synack-lost"]),
    ("H9a", &["open-syn-lost"], &[]),
    ("H9b", &["open-no-answer"], &[]),
    ("H10a", &["open-abort-on-overflow"], &["open-abort-on-overflow"]),
    ("H10b", &["open-rejected-icmp"], &["open-rejected-icmp"]),
    ("H11", &["open-ack-lost", "open-backlog-full"], &["open-backlog-full"]),
    ("H12", &["open-timewait-reused"], &["open-timewait-reused"]),
    ("H13", &["opt-sack-missing", "opt-wscale-missing"], &["opt-sack-missing", "opt-wscale-stripped"]),
    ("H14", &["open-no-answer"], &["open-synack-lost"]),
    ("T1", &["close-fin-lost"], &[]),
    ("T1b", &["close-fin-unanswered"], &[]),
    ("T2", &["close-fin-lost", "close-last-ack-lost"], &["close-last-ack-lost"]),
    // The other FIN is lost on its way to C.
    ("T3a", &[], &["close-last-ack-lost", "close-fin-lost"]),
    ("T3b", &["close-finwait2-orphan"], &["close-fin-unanswered"]),
    ("T4a", &["close-last-ack-lost"], &["close-last-ack-lost", "close-fin-lost"]),
    ("T4b", &[], &["close-fin-unanswered", "close-last-ack-lost", "close-fin-lost"]),
    ("T4c", &["close-last-ack-lost"], &["close-last-ack-lost"]),
    // Nothing comes after the FIN and its acknowledgment, so the capture ends there.
    ("T5", &[], &[]),
    ("T5b", &["close-half-closed"], &["close-half-closed"]),
    ("T6a", &[], &["live-retries-exhausted"]),
    (
        "T6b",
        &["open-syn-in-established", "open-timewait-refused"],
        &["open-syn-in-established", "open-timewait-refused"],
    ),
    ("T7", &["close-wait-leak"], &["close-wait-leak"]),
    ("T8a", &["open-timewait-reused"], &["open-timewait-reused"]),
    (
        "T8b",
        &["open-timewait-refused", "open-timewait-reused"],
        &["open-timewait-refused", "open-timewait-reused"],
    ),
    // A capture has room for a tenth of it.
    ("T9a", &[], &[]),
    ("T9b", &["open-timewait-reused"], &["open-timewait-reused"]),
    ("T9c", &[], &["open-paws-nat", "open-no-answer"]),
    ("T10", &["close-timewait-assassination"], &["close-timewait-assassination"]),
    ("T11", &["reset-data-after-close", "reset-abort"], &["reset-data-after-close", "reset-abort"]),
    ("T12", &["reset-abort"], &["reset-abort"]),
    ("T13", &["reset-not-exact"], &["reset-not-exact"]),
    ("T14", &["close-fin-unanswered", "close-wait-leak"], &[]),
    ("T15", &["open-timewait-reused"], &["open-timewait-reused"]),
    ("L1", &["live-keepalive-dead"], &[]),
    ("L2", &["reset-peer-gone"], &["reset-peer-gone"]),
    ("L3", &["live-retries-exhausted"], &[]),
    ("L4", &["window-zero"], &["window-zero", "window-update-lost"]),
    ("L5", &["live-retries-exhausted"], &[]),
    (
        "L6",
        &["live-retries-exhausted", "live-keepalive-dead", "path-one-direction-dead"],
        &["live-keepalive-dead", "live-retries-exhausted"],
    ),
    // The clock that jumps is that of a stack, not of the capture.
    ("L7", &[], &[]),
    ("L8", &["loss-ack-lost"], &["loss-ack-lost"]),
    ("L9", &["live-keepalive-dead"], &[]),
    ("L10", &[], &[]),
    // A capture has no connections of UDP.
    ("U1", &[], &[]),
    ("U2", &[], &[]),
    ("U3", &[], &[]),
    ("U4", &[], &[]),
    ("U5", &[], &[]),
    ("U6", &[], &[]),
    ("U7", &[], &[]),
    ("U7b", &[], &[]),
    ("U8", &[], &[]),
    ("U9", &[], &[]),
    ("U10", &[], &[]),
    ("U11", &[], &[]),
    ("U12", &[], &[]),
    ("U13", &[], &[]),
    ("U14", &[], &[]),
];

/// Scenarios in which nothing goes wrong.
const SOUND: &[&str] = &["N1", "N2", "N3", "N4", "N5", "N6", "N7", "N8", "N11"];

/// The diagnoses of a run, by the place of the capture: C, S, and both.
fn told(scenario: &Scenario) -> [BTreeMap<&'static str, Severity>; 3] {
    let options = RunOptions { profile: scenario.profiles[0], capture: true, ..RunOptions::default() };
    let file = run(scenario, &options).unwrap().pcap;
    [Some("C"), Some("S"), None].map(|host| {
        let mut told = BTreeMap::new();
        for report in reports(&file, host) {
            for finding in report.all().filter(|finding| !finding.id.starts_with("cap-")) {
                let worst = told.entry(finding.id).or_insert(finding.severity);
                *worst = finding.severity.max(*worst);
            }
        }
        told
    })
}

/// A report for each phase. The phases of a scenario begin at the same time, each in a section of its own.
fn reports(file: &[u8], host: Option<&str>) -> Vec<Report> {
    let mut all = Reader::new(file).unwrap();
    while all.next().unwrap().is_some() {}
    let here: Vec<bool> =
        all.interfaces().iter().map(|interface| host.is_none_or(|host| host == interface.name)).collect();
    let mut reader = Reader::new(file).unwrap();
    let mut checks: Vec<Check> = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        checks.resize_with(checks.len().max(record.section as usize + 1), || Check::new(Options::default()));
        if here[record.interface] {
            checks[record.section as usize].record(&record);
        }
    }
    assert!(reader.damage().is_empty());
    let finish =
        |check: Check| check.finish(reader.format(), reader.position(), reader.interfaces(), reader.damage());
    checks.into_iter().map(finish).collect()
}

#[test]
fn every_scenario_is_diagnosed_from_each_side_and_from_both_or_cannot_be_told() {
    let all = catalogue().unwrap();
    let listed: Vec<&str> = TOLD.iter().map(|(id, ..)| *id).collect();
    let known: Vec<&str> = all.iter().map(|scenario| scenario.id.as_str()).collect();
    assert_eq!(listed, known, "a row for each scenario, in the order of the catalogue");
    let mut wrong = Vec::new();
    for (scenario, (id, from_c, from_s)) in all.iter().zip(TOLD) {
        // Two vantage points are judged from the client's: what S alone can tell may stay unsaid.
        let both: Vec<&str> =
            if from_c.is_empty() { Vec::new() } else { from_c.iter().chain(*from_s).copied().collect() };
        let said = told(scenario);
        for (place, said, accepted) in
            [("C", &said[0], *from_c), ("S", &said[1], *from_s), ("both", &said[2], &both)]
        {
            assert!(accepted.iter().all(|id| diagnosis(id).is_some()), "{id}");
            let right = if accepted.is_empty() {
                place == "both" || said.values().all(|severity| *severity == Severity::Info)
            } else {
                accepted.iter().any(|id| said.contains_key(id))
            };
            if !right {
                wrong.push(format!("{id} from {place}: {said:?}, expected one of {accepted:?}"));
            }
            if SOUND.contains(id) && said.values().any(|severity| *severity > Severity::Info) {
                wrong.push(format!("{id} from {place}: {said:?}, though nothing goes wrong"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scenarios_that_diagnoses_name_exist() {
    let known: BTreeSet<String> = catalogue().unwrap().into_iter().map(|scenario| scenario.id).collect();
    for one in DIAGNOSES {
        for case in one.cases {
            // A group, such as H4, stands for its members.
            let exists = known
                .iter()
                .any(|id| id == case || id.strip_prefix(case).is_some_and(|rest| rest.len() == 1));
            assert!(exists, "{} names {case}", one.id);
        }
    }
}

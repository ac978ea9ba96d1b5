//! Scenarios as captures: the diagnoses from the client's side, from the server's, and from both together.

use std::collections::BTreeSet;

use steadfast_capture::Reader;
use steadfast_diagnose::catalogue::{DIAGNOSES, diagnosis};
use steadfast_diagnose::{Check, Options, Report, Severity};
use steadfast_lab::{RunOptions, Scenario, catalogue, run};

/// A scenario, and the diagnoses that are right from C and from S: one of them must be made. Without any, it cannot be
/// told from there.
type Told = (&'static str, &'static [&'static str], &'static [&'static str]);

const TOLD: &[Told] = &[
    ("H1", &["open-syn-lost"], &[]),
    ("H1b", &["open-no-answer"], &[]),
    // C cannot tell a lost SYN from a lost SYN-ACK; S cannot tell a lost SYN-ACK from a lost ACK.
    ("H2", &["open-synack-lost", "open-syn-lost"], &["open-synack-lost", "open-ack-lost"]),
    ("H2b", &["open-no-answer"], &["open-synack-lost"]),
    ("H3a", &["open-ack-lost"], &["open-ack-lost", "open-synack-lost"]),
    // From C, a lost acknowledgment and a full backlog look the same.
    ("H3c", &["open-ack-lost", "open-backlog-full"], &["open-ack-lost", "open-synack-lost"]),
    ("H6", &["open-refused"], &["open-refused"]),
    ("H7a", &["open-syn-in-established"], &["open-syn-in-established"]),
    ("H7d", &["open-timewait-reused"], &["open-timewait-reused"]),
    ("H9a", &["open-syn-lost"], &[]),
    ("H9b", &["open-no-answer"], &[]),
    ("L1", &["live-keepalive-dead"], &[]),
    ("L2", &["reset-peer-gone"], &["reset-peer-gone"]),
    ("L3", &["live-retries-exhausted"], &[]),
    ("L4", &["window-zero"], &["window-zero"]),
    ("L5", &["live-retries-exhausted"], &[]),
    (
        "L6",
        &["live-retries-exhausted", "live-keepalive-dead"],
        &["live-keepalive-dead", "live-retries-exhausted"],
    ),
    ("N5", &["open-simultaneous"], &["open-simultaneous"]),
    ("N6", &["close-simultaneous"], &["close-simultaneous"]),
    ("T1", &["close-fin-lost"], &[]),
    ("T3b", &["close-finwait2-orphan"], &["close-fin-unanswered"]),
    ("T4a", &["close-last-ack-lost"], &["close-last-ack-lost", "close-fin-lost"]),
    ("T4b", &[], &["close-fin-unanswered", "close-last-ack-lost", "close-fin-lost"]),
    (
        "T6b",
        &["open-syn-in-established", "open-timewait-refused"],
        &["open-syn-in-established", "open-timewait-refused"],
    ),
    ("T7", &["close-wait-leak"], &["close-wait-leak"]),
    ("T10", &["close-timewait-assassination"], &["close-timewait-assassination"]),
    ("T11", &["reset-data-after-close", "reset-abort"], &["reset-data-after-close", "reset-abort"]),
];

/// Scenarios in which nothing goes wrong.
const SOUND: &[&str] = &["N1", "N2", "N3", "N4", "N5", "N6"];

/// The diagnoses of a run, captured at one host or at all of them.
fn report(scenario: &Scenario, host: Option<&str>) -> Report {
    let options = RunOptions {
        profile: scenario.profiles[0],
        capture: true,
        capture_host: host.map(str::to_owned),
        ..RunOptions::default()
    };
    let file = run(scenario, &options).unwrap().pcap;
    let mut reader = Reader::new(&file[..]).unwrap();
    let mut check = Check::new(Options::default());
    while let Some(record) = reader.next().unwrap() {
        check.record(&record);
    }
    assert!(reader.damage().is_empty());
    check.finish(reader.format(), reader.position(), reader.interfaces(), reader.damage())
}

fn named(id: &str) -> Scenario {
    catalogue()
        .unwrap()
        .into_iter()
        .find(|scenario| scenario.id == id)
        .unwrap_or_else(|| panic!("no scenario {id}"))
}

#[test]
fn scenarios_are_diagnosed_from_each_side_and_from_both() {
    let mut wrong = Vec::new();
    for (id, from_c, from_s) in TOLD {
        let scenario = named(id);
        // Two vantage points are judged from the client's: what S alone can tell may stay unsaid.
        let both: Vec<&str> =
            if from_c.is_empty() { Vec::new() } else { from_c.iter().chain(*from_s).copied().collect() };
        for (host, accepted) in [(Some("C"), *from_c), (Some("S"), *from_s), (None, &both)] {
            assert!(accepted.iter().all(|id| diagnosis(id).is_some()), "{id}");
            let report = report(&scenario, host);
            let said: BTreeSet<&str> = report.all().map(|finding| finding.id).collect();
            if !accepted.is_empty() && !accepted.iter().any(|id| said.contains(id)) {
                wrong.push(format!(
                    "{id} from {}: {said:?}, expected one of {accepted:?}",
                    host.unwrap_or("both")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sound_scenarios_are_told_to_be_sound() {
    for id in SOUND {
        for host in [Some("C"), Some("S"), None] {
            let report = report(&named(id), host);
            let bad: Vec<&str> = report
                .all()
                .filter(|finding| finding.severity > Severity::Info)
                .map(|finding| finding.id)
                .collect();
            assert!(
                bad.is_empty() && report.sound == report.connections_total,
                "{id} from {host:?}: {bad:?}"
            );
        }
    }
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

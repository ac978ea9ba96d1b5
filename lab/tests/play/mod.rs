//! Plays scenarios that a test writes out, and judges the reports.

use steadfast_lab::{Report, RunOptions, Scenario, run};

pub(crate) fn play(text: &str) -> Report {
    play_with(text, &RunOptions { ladder: true, capture: true, ..RunOptions::default() })
}

pub(crate) fn play_with(text: &str, options: &RunOptions) -> Report {
    let scenario =
        Scenario::parse("test", &format!("id X\ntitle T\n{text}")).unwrap_or_else(|error| panic!("{error}"));
    run(&scenario, options).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
pub(crate) fn passes(text: &str) -> Report {
    let report = play(text);
    assert!(report.passed(), "{}\n{}", report.failures.join("\n"), report.ladder);
    report
}

/// Checks that exactly one thing fails, with this message.
#[track_caller]
pub(crate) fn fails(text: &str, message: &str) {
    let report = play(text);
    let [failure] = &report.failures[..] else {
        panic!("{message}: {:#?}\n{}", report.failures, report.ladder)
    };
    assert!(failure.contains(message), "expected `{message}`: {failure}");
}

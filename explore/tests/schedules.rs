//! Schedules of few faults over the project's programs.

use std::path::Path;

use steadfast_core::Instant;
use steadfast_core::trace::State;
use steadfast_explore::{
    Budget, Choice, Coverage, Fault, Options, Part, Program, Segment, Shard, explore, merge, program_files,
};
use steadfast_lab::{RunOptions, Scenario, run};

fn all(options: &Options) -> Vec<Program> {
    let program =
        |(file, text): &(&str, &str)| Program::new(&Scenario::parse(file, text).unwrap(), options).unwrap();
    program_files().iter().map(program).collect()
}

/// No schedule of one fault breaks a rule.
#[test]
fn one_fault_breaks_nothing() {
    let options = Options { budget: Budget::any(1), ..Options::default() };
    let report = explore(&all(&options), &options, |_| {});
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert!(report.runs > 3000, "{}", report.runs);
}

/// Two losses break this program. They are found among schedules of three faults, without the third. The lab plays them
/// again.
#[test]
fn a_finding_has_the_faults_that_it_needs_and_no_others() {
    let text = "id X0\ntitle Two SYNs\nsysctl C tcp_syn_retries = 1\nsysctl C tcp_syn_linear_timeouts = 0\n\napp C\n  connect S:80\n  at 1 close\n\napp S\n  listen 80\n";
    let scenario = Scenario::parse("x0", text).unwrap();
    let options = Options { budget: Budget::any(3), first: 4, ..Options::default() };
    let report = explore(&[Program::new(&scenario, &options).unwrap()], &options, |_| {});
    let lost = ["lose C>S all 1", "lose C>S all 2"];
    let found = report.findings.iter().find(|finding| finding.faults == lost);
    assert!(found.is_some_and(|finding| finding.text.contains("TimedOut")), "{:#?}", report.findings);
    let faults = lost.map(|fault| fault.parse().unwrap()).into();
    let again = run(&scenario, &RunOptions { faults, ladder: true, ..RunOptions::default() }).unwrap();
    assert!(again.ladder.contains("connect = ETIMEDOUT"), "{}", again.ladder);
}

/// The lab reads every fault as it is written.
#[test]
fn every_fault_is_written_as_the_lab_reads_it() {
    for fault in Fault::ALL {
        let choice = Choice { from: 0, number: 3, at: Instant::from_millis(1_000_020), fault };
        choice.to_string().parse::<steadfast_lab::Fault>().unwrap();
    }
}

/// Every file of the folder is a program, under its own name.
#[test]
fn no_program_is_left_out() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let files = files.filter(|name| name.to_string_lossy().ends_with(".scenario")).count();
    assert_eq!(program_files().len(), files);
    for (file, text) in program_files() {
        let name = Scenario::parse(file, text).unwrap().name;
        assert_eq!(*file, format!("programs/{name}.scenario"));
    }
}

/// Shards are parts of the whole: nothing is explored twice, and nothing is left out.
#[test]
fn shards_add_up_to_the_whole() {
    let options = Options { budget: Budget::any(1), ..Options::default() };
    let ids = vec!["all".to_owned()];
    let whole = explore(&all(&options), &options, |_| {});
    let part = |index| {
        let options = Options { shard: Shard { index, count: 3 }, ..options.clone() };
        Part::new(ids.clone(), &options, explore(&all(&options), &options, |_| {}))
    };
    let parts = [part(2), part(0), part(1), part(0)];
    let merged = merge(&parts).unwrap();
    assert_eq!((merged.report.runs, merged.report.packets), (whole.runs, whole.packets));
    assert_eq!((merged.missing, merged.repeated), (vec![], vec![0]));
    let merged = merge(&parts[..2]).unwrap();
    assert_eq!((merged.missing, merged.repeated), (vec![1], vec![]));
    let other = Part { budget: Budget::any(2), ..parts[1].clone() };
    assert_eq!(merge(&[parts[0].clone(), other]), Err(1));
    assert_eq!(merge(&[]), Err(0));
}

/// Handshake, one segment of data and its end: no state is left, after three losses, a duplicate, a reordering and a crash.
#[test]
fn every_state_of_one_request_is_explored() {
    let budget: Budget = "lose=3,duplicate=1,reorder=1,reboot=1".parse().unwrap();
    let sysctls = vec!["tcp_timestamps=0".to_owned()];
    let options = Options { budget, states: true, first: u32::MAX, sysctls, ..Options::default() };
    let program: Vec<_> = all(&options).into_iter().filter(|program| program.id == "X5").collect();
    let report = explore(&program, &options, |_| {});
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert!(!report.cut && report.states > 100_000, "{report:?}");
    let cut = explore(&program, &Options { most: 1000, ..options }, |_| {});
    assert!(cut.cut && (1000..1100).contains(&cut.states), "{cut:?}");
}

/// Every pair of state and segment is met, or has a reason why it cannot be. The table in the documentation says which.
#[test]
fn every_state_meets_every_segment_that_it_can_meet() {
    let mut met = Coverage::default();
    let mut play = |options: Options, which: &dyn Fn(&Program) -> bool| {
        let programs: Vec<_> = all(&options).into_iter().filter(which).collect();
        let report = explore(&programs, &options, |_| {});
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        met.add(&report.coverage);
    };
    play(Options { budget: Budget::any(1), ..Options::default() }, &|_| true);
    play(Options::default(), &|program| ["X34", "X46", "X50", "X51", "X52"].contains(&program.id.as_str()));
    for (state, segment) in
        State::ALL.into_iter().flat_map(|state| Segment::ALL.map(|segment| (state, segment)))
    {
        let (reason, hits) = (Coverage::why_not(state, segment), met.hits(state, segment));
        assert_eq!(
            reason.is_none(),
            hits > 0,
            "{state} and {}: met {hits} times; {reason:?}",
            segment.name()
        );
    }
    let doc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/explore.md");
    let text = std::fs::read_to_string(doc).unwrap();
    assert!(
        text.contains(&Coverage::table()),
        "expected this table in docs/explore.md:\n{}",
        Coverage::table()
    );
}

#[test]
fn a_budget_is_read_as_it_is_written() {
    for text in ["0", "2", "lose=3,duplicate=1,reorder=1,reboot=1", "1,cut=2"] {
        assert_eq!(text.parse::<Budget>().unwrap().to_string(), text);
    }
    for wrong in ["", "lose", "lost=1", "lose=x", "-1", "lose=1,,"] {
        let error = wrong.parse::<Budget>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{wrong}`: expected")), "{error}");
    }
}

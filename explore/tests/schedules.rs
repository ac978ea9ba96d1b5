//! Schedules of few faults over the project's programs.

use steadfast_core::Instant;
use steadfast_explore::{Choice, Fault, Options, Part, Program, Shard, explore, merge, program_files};
use steadfast_lab::{RunOptions, Scenario, run};

fn all(options: &Options) -> Vec<Program> {
    let program =
        |(file, text): &(&str, &str)| Program::new(&Scenario::parse(file, text).unwrap(), options).unwrap();
    program_files().iter().map(program).collect()
}

/// No schedule of one fault breaks a rule.
#[test]
fn one_fault_breaks_nothing() {
    let options = Options { faults: 1, ..Options::default() };
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
    let options = Options { faults: 3, first: 4, ..Options::default() };
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
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
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
    let options = Options { faults: 1, ..Options::default() };
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
    let other = Part { faults: 2, ..parts[1].clone() };
    assert_eq!(merge(&[parts[0].clone(), other]), Err(1));
    assert_eq!(merge(&[]), Err(0));
}

//! Schedules of few faults over the project's programs.

use std::path::Path;

use steadfast_core::trace::State;
use steadfast_core::{Config, Instant, Interface, ListenOptions, Profile, Stack};
use steadfast_explore::{
    Budget, Choice, Coverage, Fault, Options, Part, Program, Report, Segment, Shard, explore, merge,
    program_files,
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
    for profile in [Profile::Default, Profile::Linux, Profile::Rfc, Profile::Bsd] {
        let options = Options { budget: Budget::any(1), profile, ..Options::default() };
        let report = explore(&all(&options), &options, |_| {});
        assert!(report.findings.is_empty(), "{profile}: {:#?}", report.findings);
        assert!(report.runs > 5000, "{}", report.runs);
    }
}

/// Nor does one without timestamps. States are explored without them.
#[test]
fn one_fault_breaks_nothing_without_timestamps() {
    let sysctls = vec!["tcp_timestamps=0".to_owned()];
    let options = Options { budget: Budget::any(1), sysctls, ..Options::default() };
    let report = explore(&all(&options), &options, |_| {});
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert!(report.runs > 5000, "{}", report.runs);
}

/// One forged packet breaks nothing: each breaks a check of RFC 9293 §3.10.7 or of RFC 5961, which has to notice.
#[test]
fn one_forged_packet_breaks_nothing() {
    for profile in [Profile::Default, Profile::Linux, Profile::Rfc] {
        let options = Options { budget: "0,forge=1".parse().unwrap(), profile, ..Options::default() };
        let report = explore(&all(&options), &options, |_| {});
        assert!(report.findings.is_empty(), "{profile}: {:#?}", report.findings);
        assert!(report.runs > 20_000, "{}", report.runs);
    }
}

/// Without the challenge of RFC 5961 a RST breaks in that only lies in the window.
#[test]
fn a_forged_packet_that_breaks_in_is_found() {
    let sysctls = vec!["tcp_insecure_rst=1".to_owned()];
    let options = Options { budget: "0,forge=1".parse().unwrap(), sysctls, ..Options::default() };
    let programs: Vec<_> = all(&options).into_iter().filter(|program| program.id == "X5").collect();
    let report = explore(&programs, &options, |_| {});
    let forged = |finding: &steadfast_explore::Finding| finding.faults[0].starts_with("inject ");
    assert!(report.broken > 0 && report.findings.iter().all(forged), "{:#?}", report.findings);
}

/// A run may take as long as timers need for what is lost, and no longer.
#[test]
fn a_run_that_takes_too_long_is_found() {
    let sysctls = vec!["tcp_syn_intervals=1000 9000".to_owned()];
    let options = Options { budget: Budget::any(2), first: 3, sysctls, ..Options::default() };
    let programs: Vec<_> = all(&options).into_iter().filter(|program| program.id == "X5").collect();
    let report = explore(&programs, &options, |_| {});
    let late = |finding: &steadfast_explore::Finding| finding.text.contains("longer than the faults explain");
    assert!(report.findings.iter().any(late), "{:#?}", report.findings);
}

/// Ends that are reserved, and listeners that share one, decide who gets a connection. Their rows do not.
#[test]
fn a_digest_covers_reserved_and_shared_ends() {
    let stack = || Stack::new(Config::default(), Interface::new(1500, [([10, 0, 0, 1].into(), 24)]));
    let (now, end) = (Instant::from_secs(1), "10.0.0.1:80".parse().unwrap());
    let listen = |stack: &mut Stack, backlog| {
        stack.listen(end, ListenOptions { backlog, reuse_port: true, ..ListenOptions::default() }).unwrap()
    };
    let digest = |change: &dyn Fn(&mut Stack)| {
        let mut stack = stack();
        change(&mut stack);
        stack.digest(now)
    };
    let none = digest(&|_| {});
    let reserved = digest(&|stack| {
        stack.bind(end, &ListenOptions::default()).unwrap();
    });
    assert_ne!(reserved, none);
    let in_order = digest(&|stack| {
        listen(stack, 1);
        listen(stack, 2);
    });
    let in_other_rows = digest(&|stack| {
        let first = stack.listen("10.0.0.1:81".parse().unwrap(), ListenOptions::default()).unwrap();
        listen(stack, 1);
        stack.close(now, first).unwrap();
        listen(stack, 2);
    });
    let the_other_way = digest(&|stack| {
        listen(stack, 2);
        listen(stack, 1);
    });
    assert_eq!(in_order, in_other_rows);
    assert_ne!(in_order, the_other_way);
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
    for fault in Fault::every() {
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

/// Shards of a search through states do not know what others have met. Together they leave nothing out.
#[test]
fn shards_of_states_leave_nothing_out() {
    let sysctls = vec!["tcp_timestamps=0".to_owned()];
    let budget = "lose=1,duplicate=1".parse().unwrap();
    let options = Options { budget, states: true, sysctls, ..Options::default() };
    let programs: Vec<_> = all(&options).into_iter().filter(|program| program.id == "X5").collect();
    let whole = explore(&programs, &options, |_| {});
    let part = |index| {
        let options = Options { shard: Shard { index, count: 3 }, ..options.clone() };
        Part::new(vec!["X5".to_owned()], &options, explore(&programs, &options, |_| {}))
    };
    let merged = merge(&[part(0), part(1), part(2)]).unwrap();
    assert!(merged.missing.is_empty() && !merged.report.cut && !whole.cut);
    assert!(merged.report.states >= whole.states && whole.states > 100, "{whole:?}");
    for (state, segment) in
        State::ALL.into_iter().flat_map(|state| Segment::ALL.map(|segment| (state, segment)))
    {
        let met = |report: &Report| report.coverage.hits(state, segment) > 0;
        assert_eq!(met(&merged.report), met(&whole), "{state} and {}", segment.name());
    }
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
    for text in ["0", "2", "lose=3,duplicate=1,reorder=1,reboot=1", "1,cut=2", "1,forge=1"] {
        assert_eq!(text.parse::<Budget>().unwrap().to_string(), text);
    }
    for wrong in ["", "lose", "lost=1", "lose=x", "-1", "lose=1,,"] {
        let error = wrong.parse::<Budget>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{wrong}`: expected")), "{error}");
    }
}

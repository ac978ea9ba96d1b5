//! `lab/scenarios/README.md` lists the scenarios.

use std::collections::BTreeSet;
use std::fmt::Write;

use steadfast_lab::{SERIES, Scenario, catalogue};

use crate::check_document;

const HEAD: &str = "\
# The scenarios

One file a scenario, in the language of [docs/scenario-language.md](../../docs/scenario-language.md), and beside it the
expected ladder for each profile. `steadfast lab run` and `steadfast lab explain` take the id or the name:
`steadfast lab explain syn-lost-every`. A test writes this index from the files.
";

fn document(all: &[Scenario]) -> String {
    let mut out = HEAD.to_owned();
    for (letter, meaning) in SERIES {
        let _ = write!(out, "\n## {letter}: {meaning}\n\n| id | name | |\n|---|---|---|\n");
        for scenario in all.iter().filter(|scenario| scenario.id.starts_with(letter)) {
            let Scenario { id, name, title, .. } = scenario;
            let _ = writeln!(out, "| [{id}]({id}.scenario) | `{name}` | {title} |");
        }
    }
    out
}

#[test]
fn the_index_lists_the_scenarios_of_all_series() {
    let all = catalogue().unwrap();
    let wanted = document(&all);
    let listed = wanted.lines().filter(|line| line.starts_with("| [")).count();
    assert_eq!(listed, all.len(), "a scenario belongs to no series");
    check_document("lab/scenarios/README.md", &wanted);
}

#[test]
fn every_scenario_has_a_name_of_its_own_that_is_no_id() {
    let all = catalogue().unwrap();
    let names: BTreeSet<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
    assert_eq!(names.len(), all.len());
    for scenario in &all {
        assert!(!scenario.name.is_empty(), "{}", scenario.id);
        assert!(!all.iter().any(|other| other.id.eq_ignore_ascii_case(&scenario.name)), "{}", scenario.name);
    }
}

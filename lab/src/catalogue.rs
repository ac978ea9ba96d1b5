//! The catalogue: every scenario of the project, compiled into the library.

use std::fmt::Write;

use steadfast_core::{Config, Profile};

use crate::error::RunError;
use crate::run::{RunOptions, run};
use crate::scenario::{Case, Scenario};
use crate::text::ParseError;

/// File name and text of every scenario.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// All scenarios of the project, ordered by letter (N, H, T, L, U) and then by number.
pub fn catalogue() -> Result<Vec<Scenario>, ParseError> {
    let mut all: Vec<Scenario> =
        FILES.iter().map(|(name, text)| Scenario::parse(name, text)).collect::<Result<_, _>>()?;
    all.sort_by_key(|scenario| order(&scenario.id));
    Ok(all)
}

/// The text of a scenario of the catalogue.
pub fn text_of(scenario: &Scenario) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| **name == *scenario.file).map(|(_, text)| *text)
}

/// The series of the catalogue, in order: their letters, and what they stand for.
pub const SERIES: [(&str, &str); 5] = [
    ("N", "the normal life of a connection"),
    ("H", "trouble in the handshake"),
    ("T", "trouble in the termination"),
    ("L", "trouble in a long life"),
    ("U", "the life of a datagram"),
];

/// The sort key of an id: its letter, its number, its suffix.
fn order(id: &str) -> (usize, u32, String) {
    let letters = id.find(|c: char| c.is_ascii_digit()).unwrap_or(id.len());
    let (letter, rest) = id.split_at(letters);
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(digits);
    let letter = SERIES.iter().position(|(l, _)| *l == letter).unwrap_or(SERIES.len());
    (letter, number.parse().unwrap_or(u32::MAX), suffix.to_owned())
}

/// Describes a scenario: why it matters, what happens, its citations, the settings that change it, and its ladder.
pub fn explain(scenario: &Scenario, profile: Profile) -> Result<String, RunError> {
    let mut out = format!("{}  {}\n", scenario.id, scenario.title);
    if !scenario.name.is_empty() {
        let _ = writeln!(out, "{}", scenario.name);
    }
    for (name, text) in [("Why", &scenario.why), ("What happens", &scenario.what)] {
        if !text.is_empty() {
            let _ = write!(out, "\n{name}\n\n{}\n", indented(text));
        }
    }
    let faults: Vec<String> =
        scenario.phases.iter().flat_map(|p| faults_of(scenario, profile, &p.name)).collect();
    if !faults.is_empty() {
        let _ = write!(out, "\nFaults\n\n{}\n", indented(&faults.join("\n")));
    }
    if !scenario.cites.is_empty() {
        let _ = write!(out, "\nCites\n\n{}\n", indented(&scenario.cites));
    }
    if !scenario.settings.is_empty() {
        out.push_str("\nSettings that change it\n\n");
        for setting in scenario.settings.iter().filter_map(|name| Config::setting(name)) {
            let values: Vec<String> =
                Profile::ALL.iter().map(|p| format!("{p} {}", setting.value(&Config::profile(*p)))).collect();
            let unit = if setting.unit.is_empty() { String::new() } else { format!(" ({})", setting.unit) };
            let _ = writeln!(out, "  {}{unit}: {}", setting.name, values.join(", "));
            let _ = writeln!(out, "     {}", setting.doc.trim());
        }
    }
    let names: Vec<&str> = scenario.profiles.iter().map(|p| p.name()).collect();
    let _ = write!(out, "\nProfiles\n\n  {}\n\nLadder\n\n", names.join(", "));
    let report = run(scenario, &RunOptions { profile, ladder: true, ..RunOptions::default() })?;
    out.push_str(&report.ladder);
    Ok(out)
}

fn faults_of(scenario: &Scenario, profile: Profile, phase: &str) -> Vec<String> {
    let phase_name = if phase.is_empty() { String::new() } else { format!("[{phase}] ") };
    scenario
        .faults(&Case { profile, phase, kernel: None })
        .into_iter()
        .map(|fault| format!("{phase_name}{fault}"))
        .collect()
}

fn indented(text: &str) -> String {
    let lines: Vec<String> =
        text.lines().map(|line| if line.is_empty() { String::new() } else { format!("  {line}") }).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_is_compiled_in_can_be_read_and_bears_the_name_of_its_file() {
        let all = catalogue().unwrap();
        assert_eq!(all.len(), FILES.len());
        for scenario in all {
            assert_eq!(&*scenario.file, format!("scenarios/{}.scenario", scenario.id));
        }
    }

    #[test]
    fn ids_are_in_the_order_of_the_catalogue() {
        let mut ids = ["T8b", "X1", "H10a", "N2", "H2", "H2b", "N10", "L1"];
        ids.sort_by_key(|id| order(id));
        assert_eq!(ids, ["N2", "N10", "H2", "H2b", "H10a", "T8b", "L1", "X1"]);
    }
}

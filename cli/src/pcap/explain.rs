//! `pcap explain`: a diagnosis, or a scenario of the lab. Each names the other.

use std::fmt::Write;

use clap::Args;
use steadfast_diagnose::catalogue::{DIAGNOSES, Diagnosis, diagnosis, of_case};

use super::text::paragraph;
use crate::failure::Failure;
use crate::lab;
use crate::output::say;

/// Explain a diagnosis, or a scenario of the lab.
#[derive(Args)]
pub(crate) struct Explain {
    /// The id of a diagnosis, or of a scenario; without one, all diagnoses are listed.
    #[arg(value_name = "ID")]
    id: Option<String>,
}

impl Explain {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Some(id) = self.id else {
            return say(&DIAGNOSES
                .iter()
                .map(|one| format!("{:<26}{}\n", one.id, one.title))
                .collect::<String>());
        };
        match diagnosis(&id) {
            Some(found) => say(&text(found)),
            None => lab::explain_case(&id).map_err(|_| {
                Failure::usage(format!(
                    "`{id}`: no such diagnosis and no such scenario; `pcap explain` and `lab list` show them"
                ))
            }),
        }
    }
}

fn text(one: &Diagnosis) -> String {
    let mut out = format!("{}: {}\n\n", one.id, one.title);
    paragraph(&mut out, &format!("Shown by: {}.", one.shown_by));
    if !one.advice.is_empty() {
        paragraph(&mut out, &format!("What to do: {}.", one.advice));
    }
    if !one.cites.is_empty() {
        let _ = writeln!(out, "See: {}", one.cites);
    }
    for case in one.cases {
        let _ = writeln!(out, "Scenario: steadfast lab explain {case}");
    }
    out
}

/// The lines about diagnoses that an explanation of a scenario ends with.
pub(crate) fn diagnoses_of(case: &str) -> String {
    of_case(case)
        .map(|one| format!("Diagnosis: {} ({}): steadfast pcap explain {}\n", one.id, one.title, one.id))
        .collect()
}

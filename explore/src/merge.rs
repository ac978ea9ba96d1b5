//! Adds up the results of shards.

use serde::{Deserialize, Serialize};

use crate::options::{Budget, Options, Shard};
use crate::search::Report;

/// The result of one shard, and what it explored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The ids of the programs, with everything that decides which runs there are.
    pub programs: Vec<String>,
    /// The faults of a run.
    pub budget: Budget,
    /// Whether a run ends at a state that is known.
    pub states: bool,
    /// The packets that faults befall.
    pub first: u32,
    /// The profile.
    pub profile: String,
    /// The settings.
    pub sysctls: Vec<String>,
    /// The shard.
    pub shard: Shard,
    /// Its findings.
    pub report: Report,
}

/// The results of several shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// The sum, in which each shard counts once.
    pub report: Report,
    /// Shards of which there is no result.
    pub missing: Vec<u32>,
    /// Shards of which there is more than one.
    pub repeated: Vec<u32>,
}

impl Part {
    /// The result of an exploration of `programs`.
    pub fn new(programs: Vec<String>, options: &Options, report: Report) -> Part {
        Part {
            programs,
            budget: options.budget.clone(),
            states: options.states,
            first: options.first,
            profile: options.profile.name().to_owned(),
            sysctls: options.sysctls.clone(),
            shard: options.shard,
            report,
        }
    }

    fn plan(&self) -> (&[String], &Budget, bool, u32, &str, &[String], u32) {
        (
            &self.programs,
            &self.budget,
            self.states,
            self.first,
            &self.profile,
            &self.sysctls,
            self.shard.count,
        )
    }
}

/// Adds up shards in any order. Fails if there are none, or if they are parts of different explorations: then it returns
/// the place of the first one that does not fit.
pub fn merge(parts: &[Part]) -> Result<Merged, usize> {
    let first = parts.first().ok_or(0usize)?;
    if let Some(other) = parts.iter().position(|part| part.plan() != first.plan()) {
        return Err(other);
    }
    let mut merged = Merged { report: Report::default(), missing: Vec::new(), repeated: Vec::new() };
    for index in 0..first.shard.count {
        let mut those = parts.iter().filter(|part| part.shard.index == index);
        match those.next() {
            None => merged.missing.push(index),
            Some(part) => merged.report.add(part.report.clone()),
        }
        if those.next().is_some() {
            merged.repeated.push(index);
        }
    }
    Ok(merged)
}

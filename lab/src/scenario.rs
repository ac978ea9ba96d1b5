//! Scenarios: text files that say what goes wrong, what the applications do, and what must come of it.
//!
//! The language is described in `docs/scenario-language.md`.

pub mod expect;
mod parse;
pub mod script;
pub mod topology;

use std::path::Path;
use std::sync::Arc;

use steadfast_core::{Config, Instant, Profile};

use self::expect::Expectation;
use self::script::App;
use self::topology::{HostSpec, NatSpec, PathSpec};
use crate::fault::Fault;
use crate::text::ParseError;

/// A scenario as its file says it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its id: `H1b`.
    pub id: String,
    /// One line.
    pub title: String,
    /// What it rests on: RFC sections, requirement ids.
    pub cites: String,
    /// The profiles that it runs under.
    pub profiles: Vec<Profile>,
    /// Settings that change its outcome.
    pub settings: Vec<String>,
    /// The runs that it consists of; one without a name where it declares none.
    pub phases: Vec<Phase>,
    /// Why this happens in life, and matters.
    pub why: String,
    /// What happens here, and why that is right.
    pub what: String,
    /// Names of hosts stand for their IPv6 addresses.
    pub ipv6: bool,
    /// Rows of the ladder at the most; 0: no ladder.
    pub ladder_rows: usize,
    /// Where it came from.
    pub file: Arc<str>,
    parts: Parts,
}

/// One of several runs of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phase {
    /// As conditions name it.
    pub name: String,
    /// One line.
    pub title: String,
}

/// What stands in a file, with the condition under which it counts.
#[derive(Clone, Debug, Default)]
struct Parts {
    until: Vec<(Condition, Instant)>,
    hosts: Vec<(Condition, HostSpec)>,
    paths: Vec<(Condition, PathSpec)>,
    nats: Vec<(Condition, NatSpec)>,
    sysctls: Vec<(Condition, Sysctl)>,
    faults: Vec<(Condition, Fault)>,
    apps: Vec<(Condition, App)>,
    expectations: Vec<(Condition, Stated)>,
}

/// A setting for one host or for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// The host; `None`: all.
    pub host: Option<String>,
    /// `name = value`.
    pub text: String,
}

impl Sysctl {
    /// Checks that the stack knows the setting and the value fits.
    pub(crate) fn new(host: Option<String>, text: &str) -> Result<Sysctl, String> {
        match Config::default().apply(text) {
            Ok(()) => Ok(Sysctl { host, text: text.to_owned() }),
            Err(error) => Err(error.to_string().trim_start_matches("line 1: ").to_owned()),
        }
    }
}

/// An expectation and the line it stands on.
#[derive(Clone, Debug)]
pub struct Stated {
    /// Line of the file.
    pub line: usize,
    /// As it stands there.
    pub text: String,
    /// What it means.
    pub expectation: Expectation,
}

/// Profiles and phases that a line is for. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    profiles: Vec<(Profile, bool)>,
    phases: Vec<(String, bool)>,
}

impl Condition {
    fn holds(&self, profile: Profile, phase: &str) -> bool {
        fn fits(terms: impl Iterator<Item = (bool, bool)> + Clone) -> bool {
            let denied = terms.clone().any(|(same, wanted)| same && !wanted);
            let mut wanted = terms.filter(|(_, wanted)| *wanted).peekable();
            !denied && (wanted.peek().is_none() || wanted.any(|(same, _)| same))
        }
        fits(self.profiles.iter().map(|(p, wanted)| (*p == profile, *wanted)))
            && fits(self.phases.iter().map(|(p, wanted)| (p == phase, *wanted)))
    }
}

/// What of a scenario counts under one profile in one phase.
#[derive(Clone, Debug)]
pub(crate) struct Selected<'a> {
    pub(crate) until: Option<Instant>,
    pub(crate) hosts: Vec<&'a HostSpec>,
    pub(crate) paths: Vec<&'a PathSpec>,
    pub(crate) nats: Vec<&'a NatSpec>,
    pub(crate) sysctls: Vec<&'a Sysctl>,
    pub(crate) faults: Vec<&'a Fault>,
    pub(crate) apps: Vec<App>,
    pub(crate) expectations: Vec<&'a Stated>,
}

impl Scenario {
    /// Reads a scenario; `file` is how errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Scenario, ParseError> {
        parse::scenario(file, text)
    }

    /// Reads a scenario from a file.
    pub fn load(path: &Path) -> Result<Scenario, LoadError> {
        let name = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| LoadError::Io { file: name.clone(), source })?;
        Ok(Scenario::parse(&name, &text)?)
    }

    /// The faults that count under `profile` in the phase called `phase`.
    pub fn faults(&self, profile: Profile, phase: &str) -> Vec<&Fault> {
        self.parts.faults.iter().filter(|(c, _)| c.holds(profile, phase)).map(|(_, fault)| fault).collect()
    }

    pub(crate) fn select(&self, profile: Profile, phase: &str) -> Selected<'_> {
        fn those<'a, T>(all: &'a [(Condition, T)], profile: Profile, phase: &str) -> Vec<&'a T> {
            all.iter()
                .filter(|(condition, _)| condition.holds(profile, phase))
                .map(|(_, part)| part)
                .collect()
        }
        let parts = &self.parts;
        Selected {
            until: those(&parts.until, profile, phase).last().map(|at| **at),
            hosts: those(&parts.hosts, profile, phase),
            paths: those(&parts.paths, profile, phase),
            nats: those(&parts.nats, profile, phase),
            sysctls: those(&parts.sysctls, profile, phase),
            faults: those(&parts.faults, profile, phase),
            apps: those(&parts.apps, profile, phase)
                .into_iter()
                .map(|app| app.select(profile, phase))
                .collect(),
            expectations: those(&parts.expectations, profile, phase),
        }
    }
}

/// Why a scenario could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no scenario.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

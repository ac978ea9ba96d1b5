//! Scenarios: text files with faults, the calls of applications, and the expected results.
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

/// A parsed scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its id: `H1b`.
    pub id: String,
    /// Its spoken name: `syn-lost-every`. Empty for a scenario outside the catalogue that has none.
    pub name: String,
    /// Its title, one line.
    pub title: String,
    /// Its sources: RFC sections, requirement ids.
    pub cites: String,
    /// The profiles that it runs under.
    pub profiles: Vec<Profile>,
    /// Settings that change its outcome.
    pub settings: Vec<String>,
    /// The runs that it consists of. A scenario that declares none has one, without a name.
    pub phases: Vec<Phase>,
    /// Why this happens in practice, and why it matters.
    pub why: String,
    /// The course of the scenario, and why it is right.
    pub what: String,
    /// Host names resolve to IPv6 addresses.
    pub ipv6: bool,
    /// The hosts that a kernel can play and those that it cannot, with remarks on each.
    pub kernel: Vec<KernelRole>,
    /// Limit of rows in the ladder; 0: no ladder.
    pub ladder_rows: usize,
    /// The file it was read from.
    pub file: Arc<str>,
    parts: Parts,
}

/// Whether a kernel can play a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelRole {
    /// The host.
    pub host: String,
    /// Why a kernel cannot play it; `None` if it can.
    pub not: Option<String>,
    /// Where its behaviour differs from that of our stack, and why.
    pub differences: Vec<String>,
}

/// One of several runs of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phase {
    /// Its name in conditions.
    pub name: String,
    /// One line.
    pub title: String,
}

/// The lines of a file, each with its condition.
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
    /// Checks that the stack knows the setting and that the value fits.
    pub(crate) fn new(host: Option<String>, text: &str) -> Result<Sysctl, String> {
        match Config::default().apply(text) {
            Ok(()) => Ok(Sysctl { host, text: text.to_owned() }),
            Err(error) => Err(error.message()),
        }
    }
}

/// An expectation and its line.
#[derive(Clone, Debug)]
pub struct Stated {
    /// Line number in the file.
    pub line: usize,
    /// The text of the line.
    pub text: String,
    /// The parsed expectation.
    pub expectation: Expectation,
}

/// The case that a scenario runs in. The conditions of its lines refer to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Case<'a> {
    /// The profile of our stacks.
    pub profile: Profile,
    /// The name of the phase.
    pub phase: &'a str,
    /// The host that a kernel plays, if any.
    pub kernel: Option<&'a str>,
}

/// The host that a kernel plays, in a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Played {
    /// Any: `[kernel]`.
    Any,
    /// This one: `[S=kernel]`.
    Host(String),
}

/// The profiles, phases and kernel-played hosts that a line applies to. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    profiles: Vec<(Profile, bool)>,
    phases: Vec<(String, bool)>,
    kernels: Vec<(Played, bool)>,
}

impl Condition {
    fn holds(&self, case: &Case<'_>) -> bool {
        fn fits(terms: impl Iterator<Item = (bool, bool)> + Clone) -> bool {
            let denied = terms.clone().any(|(same, wanted)| same && !wanted);
            let mut wanted = terms.filter(|(_, wanted)| *wanted).peekable();
            !denied && (wanted.peek().is_none() || wanted.any(|(same, _)| same))
        }
        let played = |kernel: &Played| match kernel {
            Played::Any => case.kernel.is_some(),
            Played::Host(host) => case.kernel == Some(host),
        };
        fits(self.profiles.iter().map(|(p, wanted)| (*p == case.profile, *wanted)))
            && fits(self.phases.iter().map(|(p, wanted)| (p == case.phase, *wanted)))
            && fits(self.kernels.iter().map(|(k, wanted)| (played(k), *wanted)))
    }
}

/// The lines of a scenario that apply under one profile in one phase.
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
    /// Parses a scenario. Errors call it `file`.
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

    /// The faults that apply in this case.
    pub fn faults(&self, case: &Case<'_>) -> Vec<&Fault> {
        those(&self.parts.faults, case)
    }

    /// The programs of the hosts that apply in this case.
    pub fn apps(&self, case: &Case<'_>) -> Vec<App> {
        those(&self.parts.apps, case).into_iter().map(|app| app.select(case)).collect()
    }

    /// The settings that apply in this case.
    pub fn sysctls(&self, case: &Case<'_>) -> Vec<&Sysctl> {
        those(&self.parts.sysctls, case)
    }

    pub(crate) fn select(&self, case: &Case<'_>) -> Selected<'_> {
        let parts = &self.parts;
        Selected {
            until: those(&parts.until, case).last().map(|at| **at),
            hosts: those(&parts.hosts, case),
            paths: those(&parts.paths, case),
            nats: those(&parts.nats, case),
            sysctls: self.sysctls(case),
            faults: those(&parts.faults, case),
            apps: self.apps(case),
            expectations: those(&parts.expectations, case),
        }
    }
}

fn those<'a, T>(all: &'a [(Condition, T)], case: &Case<'_>) -> Vec<&'a T> {
    all.iter().filter(|(condition, _)| condition.holds(case)).map(|(_, part)| part).collect()
}

/// Why a scenario could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file is not a valid scenario.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

//! Drill: scripts in the packetdrill language, in virtual time.
//!
//! A script lists the packets that reach a stack, the calls of the application, and the packets that must leave the
//! stack. [`Drill::parse`] reads it, and [`Drill::run`] plays it against a fresh stack and returns an [`Outcome`].
//! [`Drill::run_against`] plays it against another [`subject`]. The dialects of Linux and FreeBSD are both understood.
//! Scripts execute nothing: commands in backticks and code are interpreted.
#![forbid(unsafe_code)]

mod ast;
mod build;
mod call;
mod code;
mod command;
mod compare;
mod family;
mod flow;
pub mod fuzz;
mod interpret;
mod lex;
mod options;
mod parse;
mod parsed;
mod posix;
mod report;
mod show;
mod simulated;
pub mod subject;
mod symbol;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use steadfast_core::Profile;
use steadfast_core::time::Duration;
use steadfast_timeline::page::Chapter;

use self::simulated::Simulated;
use self::subject::{Addresses, Subject};

pub use family::{Source, SourceError, is_drill_file, read_scripts};
pub use lex::{Position, SyntaxError};
pub use report::{junit, page};

/// The addresses and packets that a script runs with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpVersion {
    /// IPv4.
    #[default]
    V4,
    /// IPv6 sockets with IPv4-mapped addresses, and IPv4 packets.
    V4Mapped,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// All versions.
    pub const ALL: [IpVersion; 3] = [IpVersion::V4, IpVersion::V4Mapped, IpVersion::V6];

    /// The value of the option `ip_version`.
    pub const fn name(self) -> &'static str {
        match self {
            IpVersion::V4 => "ipv4",
            IpVersion::V4Mapped => "ipv4-mapped-ipv6",
            IpVersion::V6 => "ipv6",
        }
    }
}

impl fmt::Display for IpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for IpVersion {
    type Err = String;
    fn from_str(text: &str) -> Result<IpVersion, String> {
        let found = IpVersion::ALL.into_iter().find(|version| version.name() == text);
        found.ok_or_else(|| format!("`{text}`: expected ipv4, ipv4-mapped-ipv6 or ipv6"))
    }
}

/// How to run a script.
#[derive(Clone)]
pub struct DrillOptions<'a> {
    /// The profile of the stack: its timers, sizes and option layouts.
    pub profile: Profile,
    /// Check semantics only: leave open the order of options, windows, and the timing of pure ACKs.
    pub neutral: bool,
    /// The IP version, unless the script names one.
    pub ip_version: IpVersion,
    /// MTU of the link, unless the script names one. `None`: 1500; but where these options choose IPv6, and not the script,
    /// 1520, so that segments of the same size fit. With the profile `freebsd` it is 1500 in any case.
    pub mtu: Option<u16>,
    /// How early or late an event may be. Overrides the script's tolerance.
    pub tolerance_usecs: Option<u64>,
    /// Symbols defined with `-D NAME=VAL`.
    pub defines: BTreeMap<String, String>,
    /// Options as at the top of a script, by name and value. Those of the script come after them.
    pub script_options: Vec<(String, String)>,
    /// Keep the packets for a capture file.
    pub capture: bool,
    /// Keep the connections for a page.
    pub page: bool,
    /// Reads a set-up script, given the path in the script.
    pub files: &'a (dyn Fn(&str) -> Option<String> + Sync),
}

impl Default for DrillOptions<'_> {
    fn default() -> Self {
        DrillOptions {
            profile: Profile::Linux,
            neutral: false,
            ip_version: IpVersion::V4,
            mtu: None,
            tolerance_usecs: None,
            defines: BTreeMap::new(),
            script_options: Vec::new(),
            capture: false,
            page: false,
            files: &|_| None,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Everything matched the script.
    Pass,
    /// Something did not match.
    Fail,
    /// Something in the script does not apply to this stack.
    Skip,
    /// The script contains nothing that could fail.
    Empty,
    /// The script is not valid.
    Error,
}

impl Verdict {
    /// `pass`, `fail`, `skip`, `empty`, `error`.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Skip => "skip",
            Verdict::Empty => "empty",
            Verdict::Error => "error",
        }
    }
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// The IP version of the run.
    pub ip_version: IpVersion,
    /// The place in the script that decided the verdict; `None` for a pass.
    pub at: Option<Position>,
    /// The reason, in one line.
    pub reason: String,
    /// Expected and actual values, field by field.
    pub details: String,
    /// The ladder up to the deciding place.
    pub ladder: String,
    /// Settings that the stack does not have, and the output of the script.
    pub notes: Vec<String>,
    /// Virtual time that passed.
    pub took: Duration,
    /// The packets as pcapng, if they were kept.
    pub pcap: Vec<u8>,
    /// The connections for a page; empty unless requested.
    pub chapters: Vec<Chapter>,
}

/// A parsed script.
#[derive(Clone, Debug)]
pub struct Drill {
    script: ast::Script,
    options: options::ScriptOptions,
}

impl Drill {
    /// Parses a script. `defines` holds the symbols from the command line.
    pub fn parse(text: &str, defines: &BTreeMap<String, String>) -> Result<Drill, SyntaxError> {
        Drill::parse_for(text, defines, IpVersion::V4)
    }

    /// As [`parse`](Drill::parse). A suite's runner defines some names for each version, which scripts use; they are
    /// known as well: `TFO_COOKIE`, `CODE`, `CMSG_LEVEL_IP`, `CMSG_TYPE_RECVERR`.
    pub fn parse_for(
        text: &str,
        defines: &BTreeMap<String, String>,
        ip_version: IpVersion,
    ) -> Result<Drill, SyntaxError> {
        let script = parse::script(text, defines, ip_version)?;
        let options = options::ScriptOptions::read(&script.options)?;
        Ok(Drill { script, options })
    }

    /// As [`parse_for`](Drill::parse_for), with all that `options` say.
    pub fn parse_with(text: &str, options: &DrillOptions<'_>) -> Result<Drill, SyntaxError> {
        let drill = Drill::parse_for(text, &options.defines, options.ip_version)?;
        let mut all = as_options(&options.script_options);
        all.extend(drill.script.options.iter().cloned());
        Ok(Drill { options: options::ScriptOptions::read(&all)?, ..drill })
    }

    /// The outcome of a script that is only read: it is in the language.
    pub fn unplayed(&self, options: &DrillOptions<'_>) -> Outcome {
        let ip_version = self.options.ip_version.unwrap_or(options.ip_version);
        Outcome { verdict: Verdict::Pass, reason: String::new(), ..Outcome::empty(ip_version) }
    }

    /// The IP version that the script itself names.
    pub fn ip_version(&self) -> Option<IpVersion> {
        self.options.ip_version
    }

    /// Plays the script against a fresh stack.
    pub fn run(&self, options: &DrillOptions<'_>) -> Outcome {
        let mut simulated = Simulated::new(options.profile, &self.addresses(options));
        if options.profile == Profile::FreeBsd && options.defines.contains_key("FreeBSD") {
            // Scripts have two variants, for the standard and for what the system does with a SYN in TIME-WAIT.
            simulated.follow_system();
        }
        self.run_against(&mut simulated, options)
    }

    /// The addresses that the script runs with.
    pub fn addresses(&self, options: &DrillOptions<'_>) -> Addresses {
        interpret::addresses(&self.options, options)
    }

    /// Plays the script against a fresh subject, which must have the addresses of [`Drill::addresses`].
    pub fn run_against(&self, subject: &mut dyn Subject, options: &DrillOptions<'_>) -> Outcome {
        if !interpret::says_something(&self.script) {
            return Outcome::empty(self.options.ip_version.unwrap_or(options.ip_version));
        }
        interpret::run(&self.script, &self.options, options, subject)
    }
}

/// Checks options as at the top of a script, by name and value. An error says what was expected.
pub fn check_script_options(given: &[(String, String)]) -> Result<(), String> {
    let wrong = |error: SyntaxError| format!("expected {}, found {}", error.expected, error.found);
    options::ScriptOptions::read(&as_options(given)).map(|_| ()).map_err(wrong)
}

fn as_options(given: &[(String, String)]) -> Vec<ast::ScriptOption> {
    let option = |(name, value): &(String, String)| ast::ScriptOption {
        at: Position { line: 1, column: 1 },
        name: name.clone(),
        value: value.clone(),
    };
    given.iter().map(option).collect()
}

/// Parses and plays a script. A script that does not parse yields [`Verdict::Error`].
pub fn run_script(text: &str, options: &DrillOptions<'_>) -> Outcome {
    match Drill::parse_with(text, options) {
        Ok(drill) => drill.run(options),
        Err(error) => Outcome::unreadable(&error, options.ip_version),
    }
}

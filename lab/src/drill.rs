//! Drill: scripts in the packetdrill language, in virtual time.
//!
//! A script says what reaches a stack, what the application does, and what must leave the stack when. [`Drill::parse`]
//! reads it, [`Drill::run`] plays it against a fresh stack and gives an [`Outcome`]; [`Drill::run_against`] plays it against
//! another [`subject`]. Both dialects are read, Linux's and FreeBSD's. Nothing of a script is executed: commands in backticks
//! and code are interpreted.

mod ast;
mod build;
mod call;
mod code;
mod command;
mod compare;
mod family;
mod flow;
mod interpret;
mod lex;
mod live;
mod options;
mod parse;
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

use self::simulated::Simulated;
use self::subject::{Network, Subject};

pub use family::{Source, SourceError, is_drill_file, read_scripts};
pub use lex::{Position, SyntaxError};
pub use report::drill_junit;

/// What addresses and packets a script is run with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpVersion {
    /// IPv4.
    #[default]
    V4,
    /// Sockets of IPv6 with addresses that are mapped, packets of IPv4.
    V4Mapped,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// All of them.
    pub const ALL: [IpVersion; 3] = [IpVersion::V4, IpVersion::V4Mapped, IpVersion::V6];

    /// As the option `ip_version` has it.
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

/// How a script is run.
#[derive(Clone)]
pub struct DrillOptions<'a> {
    /// Whose timers, sizes and layouts the stack has.
    pub profile: Profile,
    /// Check what is said, not how: the order of options, windows and when pure ACKs are sent are left open.
    pub neutral: bool,
    /// Unless the script says another.
    pub ip_version: IpVersion,
    /// In place of what the script says: how early or late an event may be.
    pub tolerance_usecs: Option<u64>,
    /// `-D NAME=VAL`
    pub defines: BTreeMap<String, String>,
    /// Keep the packets for a capture file.
    pub capture: bool,
    /// Reads a set-up script by the path that the script has for it.
    pub files: &'a (dyn Fn(&str) -> Option<String> + Sync),
}

impl Default for DrillOptions<'_> {
    fn default() -> Self {
        DrillOptions {
            profile: Profile::Linux,
            neutral: false,
            ip_version: IpVersion::V4,
            tolerance_usecs: None,
            defines: BTreeMap::new(),
            capture: false,
            files: &|_| None,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// All was as the script says.
    Pass,
    /// Something was not.
    Fail,
    /// Something in it does not apply to this stack.
    Skip,
    /// There is nothing in it that could fail.
    Empty,
    /// It is not of the language.
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

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// What it was run with.
    pub ip_version: IpVersion,
    /// The place in the script that decided; of a pass none.
    pub at: Option<Position>,
    /// Why, in one line.
    pub reason: String,
    /// What was expected and what came, field by field.
    pub details: String,
    /// What happened up to there.
    pub ladder: String,
    /// What the script set and the stack does not have, and what it printed.
    pub notes: Vec<String>,
    /// Virtual time that passed.
    pub took: Duration,
    /// The packets, as pcapng, where they were kept.
    pub pcap: Vec<u8>,
}

/// A script that was read.
#[derive(Clone, Debug)]
pub struct Drill {
    script: ast::Script,
    options: options::ScriptOptions,
}

impl Drill {
    /// Reads a script, with what is defined on the command line.
    pub fn parse(text: &str, defines: &BTreeMap<String, String>) -> Result<Drill, SyntaxError> {
        let script = parse::script(text, defines)?;
        let options = options::ScriptOptions::read(&script.options)?;
        Ok(Drill { script, options })
    }

    /// The IP version that the script itself asks for.
    pub fn ip_version(&self) -> Option<IpVersion> {
        self.options.ip_version
    }

    /// Plays the script against a fresh stack.
    pub fn run(&self, options: &DrillOptions<'_>) -> Outcome {
        let mut simulated = Simulated::new(options.profile, &self.network(options));
        self.run_against(&mut simulated, options)
    }

    /// The addresses that the script is played with.
    pub fn network(&self, options: &DrillOptions<'_>) -> Network {
        interpret::network(&self.options, self.options.ip_version.unwrap_or(options.ip_version))
    }

    /// Plays the script against something that has the addresses of [`Drill::network`] and was not used before.
    pub fn run_against(&self, subject: &mut dyn Subject, options: &DrillOptions<'_>) -> Outcome {
        if !interpret::says_something(&self.script) {
            return Outcome::empty(self.options.ip_version.unwrap_or(options.ip_version));
        }
        interpret::run(&self.script, &self.options, options, subject)
    }
}

/// Reads and plays a script; one that cannot be read ends in [`Verdict::Error`].
pub fn run_drill(text: &str, options: &DrillOptions<'_>) -> Outcome {
    match Drill::parse(text, &options.defines) {
        Ok(drill) => drill.run(options),
        Err(error) => Outcome::unreadable(&error, options.ip_version),
    }
}

//! `steadfast pcap`: reads anybody's capture, and says what went wrong in it.

mod drawing;
mod explain;
mod html;
mod list;
mod show;
mod text;

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use steadfast_capture::{Reader, Record};
use steadfast_diagnose::{Check, Confidence, Finding, Options, Report, Severity, json, json_lines};

use crate::failure::Failure;
use crate::output::say;

pub(crate) use explain::diagnoses_of;

/// Captures.
#[derive(Subcommand)]
pub(crate) enum Pcap {
    /// List the connections of captures.
    List(list::List),
    /// Show a connection as a ladder, with the states of both ends.
    Show(show::Show),
    /// Write connections as a page for a browser.
    Html(html::Html),
    /// Diagnose: what went wrong, at which end, how sure that is, and what to do.
    Check(CheckFiles),
    /// Write one connection to a capture of its own.
    Split(show::Split),
    /// Explain a diagnosis, or a scenario of the lab.
    Explain(explain::Explain),
}

impl Pcap {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Pcap::List(command) => command.run(),
            Pcap::Show(command) => command.run(),
            Pcap::Html(command) => command.run(),
            Pcap::Check(command) => command.run(),
            Pcap::Split(command) => command.run(),
            Pcap::Explain(command) => command.run().map(|()| ExitCode::SUCCESS),
        }
    }
}

/// How a capture is read.
#[derive(Args, Clone, Copy, Default)]
pub(crate) struct Reading {
    /// Open tunnels: IP in IP, GRE, VXLAN, Geneve.
    #[arg(long)]
    decap: bool,
}

/// Diagnose captures: pcap or pcapng, also under gzip.
///
/// Exit status: 0 sound, 1 findings at or above `--fail-on`, 2 not readable as a capture, 3 readable in part.
#[derive(Args)]
pub(crate) struct CheckFiles {
    /// The captures; `-` is standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON object for each file.
    #[arg(long)]
    json: bool,
    /// Print one JSON object for each connection on a line of its own, and then one for the file.
    #[arg(long, conflicts_with = "json")]
    json_lines: bool,
    /// Print each finding with its evidence, its reasons and the advice.
    #[arg(long)]
    explain: bool,
    /// Exit with status 1 if there is a finding of at least this severity.
    #[arg(long, value_name = "SEVERITY", default_value = "warning")]
    fail_on: Least,
    /// Only these diagnoses.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// Only findings that are at least as sure.
    #[arg(long, value_name = "CONFIDENCE", default_value = "possible")]
    min_confidence: Sure,
    /// Print all connections, also those without findings (with `--json`), and what is as it should be.
    #[arg(long)]
    all: bool,
    /// Connections that are followed at once. Beyond, the oldest are given up.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_connections: usize,
    #[command(flatten)]
    reading: Reading,
}

#[derive(Clone, Copy, ValueEnum)]
enum Least {
    Info,
    Warning,
    Error,
    Never,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sure {
    Possible,
    Likely,
    Certain,
}

impl CheckFiles {
    fn run(self) -> Result<ExitCode, Failure> {
        if let Some(unknown) =
            self.only.iter().find(|id| steadfast_diagnose::catalogue::diagnosis(id).is_none())
        {
            return Err(Failure::usage(format!(
                "--only {unknown}: no such diagnosis; `pcap explain` lists them"
            )));
        }
        let mut status = 0;
        for path in &self.files {
            let options = Options { key: random_key(), connections: self.max_connections, all: self.all };
            let mut report = match check(path, self.reading, options) {
                Ok(report) => report,
                Err(failure) if self.files.len() > 1 => {
                    eprintln!("steadfast: {failure}");
                    status = 2;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            self.select(&mut report);
            let name = path.display().to_string();
            if self.json {
                say(&format!("{}\n", json(&name, &report)))?;
            } else if self.json_lines {
                json_lines(&name, &report).try_for_each(|line| say(&format!("{line}\n")))?;
            } else {
                say(&text::check(&name, &report, self.explain))?;
            }
            let worst = report.all().filter(|one| !one.is_plain()).map(|one| one.severity).max();
            let fails = match self.fail_on {
                Least::Info => worst.is_some(),
                Least::Warning => worst >= Some(Severity::Warning),
                Least::Error => worst >= Some(Severity::Error),
                Least::Never => false,
            };
            status = status.max(if report.captured.damaged > 0 { 3 } else { u8::from(fails) });
        }
        Ok(ExitCode::from(status))
    }

    /// Removes the findings that are not asked for.
    fn select(&self, report: &mut Report) {
        let least = match self.min_confidence {
            Sure::Possible => Confidence::Possible,
            Sure::Likely => Confidence::Likely,
            Sure::Certain => Confidence::Certain,
        };
        let wanted = |finding: &Finding| {
            finding.confidence >= least
                && (self.only.is_empty() || self.only.iter().any(|id| id == finding.id))
        };
        report.findings.retain(wanted);
        for connection in &mut report.connections {
            connection.findings.retain(wanted);
        }
        if !self.all {
            report.connections.retain(|connection| !connection.findings.is_empty());
        }
    }
}

/// A key that the sender of a packet cannot predict.
fn random_key() -> [u64; 2] {
    [0, 1].map(|_| RandomState::new().build_hasher().finish())
}

/// Opens a capture.
fn open(path: &Path) -> Result<Reader<Box<dyn Read>>, Failure> {
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| Failure::system(path.display(), error))?)
    };
    Reader::new(input).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// Reads a capture, and gives each record to `take`.
fn read(
    path: &Path,
    reading: Reading,
    mut take: impl FnMut(&Record<'_>),
) -> Result<Reader<Box<dyn Read>>, Failure> {
    let mut reader = open(path)?;
    loop {
        match reader.next() {
            Ok(Some(record)) if reading.decap => take(&record.inner()),
            Ok(Some(record)) => take(&record),
            Ok(None) => return Ok(reader),
            Err(error) => return Err(Failure::system(path.display(), error)),
        }
    }
}

fn check(path: &Path, reading: Reading, options: Options) -> Result<Report, Failure> {
    let mut check = Check::new(options);
    let reader = read(path, reading, |record| check.record(record))?;
    let mut report = check.finish(reader.format(), reader.position(), reader.interfaces(), reader.damage());
    report.captured.names = reader.names();
    Ok(report)
}

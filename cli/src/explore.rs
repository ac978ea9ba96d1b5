//! `steadfast lab explore`: every schedule of few faults over programs, which are scenarios without faults.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use steadfast::Profile;
use steadfast_explore::{
    Budget, Finding, Merged, Options, Part, Program, Report, Shard, explore, merge, program_files,
};
use steadfast_lab::{RunOptions, Scenario, run, workers};

use crate::failure::Failure;
use crate::output::say;
use crate::settings::Sysctls;

/// Explore every schedule of few faults.
///
/// A program is a scenario without faults. It is played once for each schedule of at most K faults among its first N
/// packets: losses, duplicates, delays, reordering, marks, crashes, cuts. Each run is judged at its end. A schedule that
/// breaks a rule is shown without the faults that it does not need.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Explore {
    #[command(subcommand)]
    merge: Option<Merge>,
    /// Ids (`X1`) or names (`client-closes`) of programs, or files; all programs of the project by default.
    #[arg(value_name = "PROGRAM")]
    programs: Vec<String>,
    /// Most faults in a run: a number of any, or of each sort, such as `lose=3,duplicate=1,reorder=1,reboot=1`. Forged
    /// packets are a sort by themselves: `1,forge=1`.
    #[arg(long, value_name = "K", default_value = "2")]
    faults: Budget,
    /// Explore states instead of schedules: a run ends where it comes to a state that is known. Timestamps are off, and
    /// the clock of initial sequence numbers stands still.
    #[arg(long)]
    states: bool,
    /// Explore at most N states of each program.
    #[arg(long, value_name = "N", default_value_t = 100_000_000, requires = "states")]
    most: u64,
    /// Show how often each class of segments met each state.
    #[arg(long)]
    coverage: bool,
    /// Faults befall the first N packets of a run.
    #[arg(long, value_name = "N", default_value_t = 20)]
    first: u32,
    /// The profile of both stacks.
    #[arg(long, default_value = "default")]
    profile: Profile,
    #[command(flatten)]
    sysctls: Sysctls,
    /// Threads; as many as the machine runs at once by default.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Take part I of N, from 0 on. Parts need not know of each other; `lab explore merge` adds up what they print with
    /// `--json`.
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<Shard>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
    /// Write each finding to this folder: a scenario with its faults, and its ladder.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Merge {
    /// Add up the results of all shards.
    Merge {
        /// Files with what `lab explore --shard I/N --json` printed.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Print the sum as one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Parses `3/16`.
fn shard(text: &str) -> Result<Shard, String> {
    let expected = || format!("`{text}`: expected a part and how many there are, such as 0/4 to 3/4");
    let (index, count) = text.split_once('/').ok_or_else(expected)?;
    let (index, count) = (index.parse().map_err(|_| expected())?, count.parse().map_err(|_| expected())?);
    if index < count { Ok(Shard { index, count }) } else { Err(expected()) }
}

/// A program with its text.
struct Source {
    scenario: Scenario,
    text: String,
}

impl Explore {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if let Some(Merge::Merge { files, json }) = &self.merge {
            return merge_files(files, *json);
        }
        let mut sysctls = self.sysctls.assignments()?;
        if self.states {
            sysctls.push("tcp_timestamps=0".to_owned());
        }
        let options = Options {
            budget: self.faults.clone(),
            states: self.states,
            most: self.most,
            first: self.first,
            profile: self.profile,
            sysctls,
            jobs: self.jobs.unwrap_or_else(workers::cores).max(1),
            shard: self.shard.unwrap_or(Shard { index: 0, count: 1 }),
        };
        let sources = self.sources()?;
        let programs = sources.iter().map(|source| Program::new(&source.scenario, &options));
        let programs: Vec<_> =
            programs.collect::<Result<_, _>>().map_err(|error| Failure::usage(error.to_string()))?;
        if let Some(folder) = &self.keep {
            fs::create_dir_all(folder)
                .map_err(|error| Failure::System(format!("{}: {error}", folder.display())))?;
        }
        let bar = bar();
        let report = explore(&programs, &options, |progress| {
            bar.set_length(progress.parts as u64);
            bar.set_position(progress.done as u64);
            let states = if self.states { format!(", {} states", progress.states) } else { String::new() };
            bar.set_message(format!("{} runs{states}", progress.runs));
        });
        bar.finish_and_clear();
        if let Some(folder) = &self.keep {
            report
                .findings
                .iter()
                .enumerate()
                .try_for_each(|(n, finding)| keep(folder, n, finding, &sources))?;
        }
        let verdict = judged(&report);
        if self.json {
            let ids = programs.iter().map(|program| program.id.clone()).collect();
            say(&format!("{}\n", serde_json::json!(Part::new(ids, &options, report))))?;
        } else {
            say(&text(&report))?;
            if self.coverage {
                say(&format!("\n{}", report.coverage))?;
            }
        }
        verdict
    }

    fn sources(&self) -> Result<Vec<Source>, Failure> {
        let parse = |file: &str, text: &str| {
            let scenario = Scenario::parse(file, text).map_err(|error| Failure::usage(error.to_string()))?;
            Ok(Source { scenario, text: text.to_owned() })
        };
        let known: Vec<Source> =
            program_files().iter().map(|(file, text)| parse(file, text)).collect::<Result<_, Failure>>()?;
        if self.programs.is_empty() {
            return Ok(known);
        }
        let find = |name: &String| {
            let called = |source: &&Source| {
                source.scenario.id.eq_ignore_ascii_case(name) || source.scenario.name == *name
            };
            if let Some(source) = known.iter().find(called) {
                return parse(&source.scenario.file, &source.text);
            }
            let text = fs::read_to_string(name).map_err(|error| {
                Failure::usage(format!(
                    "`{name}`: expected a program such as X1 or client-closes, or a file: {error}"
                ))
            })?;
            parse(name, &text)
        };
        self.programs.iter().map(find).collect()
    }
}

fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} parts, {msg}, about {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn judged(report: &Report) -> Result<(), Failure> {
    if report.broken == 0 {
        return Ok(());
    }
    Err(Failure::Failed { failed: report.broken as usize, of: report.runs as usize, what: "runs" })
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for Finding { program, faults, text } in &report.findings {
        let faults = if faults.is_empty() { "without a fault".to_owned() } else { faults.join("\n      ") };
        out += &format!("{program}: {text}\n      {faults}\n");
    }
    let Report { runs, packets, broken, findings, states, depth, cut, coverage: _ } = report;
    let shown =
        if *broken > findings.len() as u64 { format!(", {} shown", findings.len()) } else { String::new() };
    out += &format!("{runs} runs, {packets} packets: {broken} break a rule{shown}\n");
    if *states > 0 {
        let frontier = if *cut { "others are left" } else { "none is left" };
        out += &format!("{states} states, at most {depth} times of events in a run: {frontier}\n");
    }
    out
}

/// Writes a finding as a scenario with its ladder.
fn keep(folder: &Path, number: usize, finding: &Finding, sources: &[Source]) -> Result<(), Failure> {
    let Some(source) = sources.iter().find(|source| source.scenario.id == finding.program) else {
        return Ok(());
    };
    let faults: String = finding.faults.iter().map(|fault| format!("fault {fault}\n")).collect();
    let place = source.text.find("\napp ").map_or(source.text.len(), |at| at + 1);
    let (head, apps) = source.text.split_at(place);
    let text = format!("{head}# {}\n{faults}\n{apps}", finding.text);
    let name = folder.join(format!("{}-{}", finding.program, number + 1));
    let file = name.with_extension("scenario");
    let failed = |error: &dyn std::fmt::Display| Failure::System(format!("{}: {error}", file.display()));
    let scenario = Scenario::parse(&file.display().to_string(), &text).map_err(|error| failed(&error))?;
    fs::write(&file, &text).map_err(|error| failed(&error))?;
    let report =
        run(&scenario, &RunOptions { ladder: true, ..RunOptions::default() }).map_err(|e| failed(&e))?;
    fs::write(name.with_extension("ladder"), report.ladder).map_err(|error| failed(&error))
}

fn merge_files(files: &[PathBuf], json: bool) -> Result<(), Failure> {
    let wrong =
        |file: &Path, error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", file.display()));
    let read = |file: &PathBuf| {
        let text = fs::read_to_string(file).map_err(|error| wrong(file, &error))?;
        serde_json::from_str::<Part>(&text)
            .map_err(|error| wrong(file, &format!("expected what `lab explore --json` prints: {error}")))
    };
    let parts = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let merged = merge(&parts)
        .map_err(|at| wrong(&files[at], &"it is a shard of another exploration than the first file"))?;
    let Merged { report, missing, repeated } = &merged;
    if json {
        say(&format!("{}\n", serde_json::json!(merged)))?;
    } else {
        say(&text(report))?;
        if !repeated.is_empty() {
            say(&format!("given more than once, counted once: shards {repeated:?}\n"))?;
        }
        if !missing.is_empty() {
            say(&format!("not given: shards {missing:?}\n"))?;
        }
    }
    judged(report)?;
    if missing.is_empty() {
        return Ok(());
    }
    let count = parts.first().map_or(0, |part| part.shard.count);
    Err(Failure::Failed { failed: missing.len(), of: count as usize, what: "shards" })
}

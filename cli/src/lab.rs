//! `steadfast lab`: scenarios of the fault catalogue, and the user's own.

use std::io::{self, IsTerminal};
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use steadfast::Profile;
use steadfast_lab::{Fault, Report, RunOptions, Scenario, catalogue, explain, junit, page, run, workers};

use crate::explore::Explore;
use crate::failure::Failure;
use crate::opponent::{Opponent, check_kernel, kernel};
use crate::output::say;
use crate::pcap::diagnoses_of;
use crate::settings::Sysctls;

/// The lab.
#[derive(Subcommand)]
pub(crate) enum Lab {
    /// List the scenarios of the catalogue.
    List,
    /// Run scenarios: all of the catalogue, or those named.
    Run(Run),
    /// Explain what happens in a scenario, and why.
    Explain(Explain),
    /// Explore every schedule of few faults.
    Explore(Explore),
}

/// Run scenarios.
///
/// With settings or faults on top of the scenario's, its expectations are shown but not judged. Such settings are for
/// all hosts.
#[derive(Args)]
pub(crate) struct Run {
    /// Ids (`H1b`) or names (`syn-lost-every`) of the catalogue, or files; the whole catalogue by default.
    #[arg(value_name = "ID|NAME|FILE")]
    scenarios: Vec<String>,
    /// Use only this profile. A scenario that is named uses it even if it does not list it.
    #[arg(long)]
    profile: Option<Profile>,
    /// Let this machine's kernel play one end, in a network namespace and in real time: one run for each end that it
    /// can play. Needs root. Without `--profile`, our stack uses `linux` if the scenario supports it.
    #[arg(long, value_name = "WHOM", conflicts_with_all = ["seeds", "pcap"])]
    against: Option<Opponent>,
    /// Only with our stack as this host.
    #[arg(long, value_name = "HOST", requires = "against")]
    role: Option<String>,
    #[command(flatten)]
    sysctls: Sysctls,
    /// Where all chance comes from.
    #[arg(long, default_value_t = 0, conflicts_with = "seeds")]
    seed: u64,
    /// Add random loss, delay, duplication, reordering and changes of paths, with seeds from A up to, but not
    /// including, B.
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// A fault on top of the scenario's, such as 'lose S>C [S.] 1'; may be repeated.
    #[arg(long, value_name = "FAULT")]
    fault: Vec<String>,
    /// Write the packets to this file (pcapng).
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Only the packets that this host sends and receives: a capture as anybody would take it.
    #[arg(long, value_name = "HOST", requires = "pcap")]
    pcap_host: Option<String>,
    /// Write a page to this file (HTML): the ladder of each connection, and the state of both ends at any time.
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    html: Option<PathBuf>,
    /// Print the ladder of each run.
    #[arg(long)]
    ladder: bool,
    /// Print only one JSON object per line for each run.
    #[arg(long)]
    json: bool,
    /// Write a JUnit report to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Explain a scenario.
#[derive(Args)]
pub(crate) struct Explain {
    /// An id or a name of the catalogue, or a file.
    #[arg(value_name = "ID|NAME|FILE")]
    scenario: String,
    /// The profile whose ladder is shown.
    #[arg(long, default_value = "default")]
    profile: Profile,
}

/// Parses `0..1000`.
fn seeds(text: &str) -> Result<Range<u64>, String> {
    let expected = || format!("`{text}`: expected two numbers with `..` between them, such as 0..1000");
    let (from, to) = text.split_once("..").ok_or_else(expected)?;
    let range = from.parse().map_err(|_| expected())?..to.parse().map_err(|_| expected())?;
    if range.is_empty() {
        Err(format!("`{text}`: expected the second number to be larger"))
    } else {
        Ok(range)
    }
}

impl Lab {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Lab::List => list(),
            Lab::Run(command) => command.run(),
            Lab::Explore(command) => command.run(),
            Lab::Explain(command) => {
                let scenario = find(&known()?, &command.scenario)?;
                explained(&scenario, command.profile)
            }
        }
    }
}

/// Explains a scenario of the catalogue, with its default profile.
pub(crate) fn explain_case(id: &str) -> Result<(), Failure> {
    explained(&find(&known()?, id)?, Profile::Default)
}

fn explained(scenario: &Scenario, profile: Profile) -> Result<(), Failure> {
    let text = explain(scenario, profile).map_err(|e| Failure::usage(e.to_string()))?;
    say(&(text + &diagnoses_of(&scenario.id)))
}

fn list() -> Result<(), Failure> {
    let all = known()?;
    let profiles = |scenario: &Scenario| {
        let names: Vec<_> = scenario.profiles.iter().map(|profile| profile.name()).collect();
        names.join(" ")
    };
    let width = all.iter().map(|scenario| scenario.id.len()).max().unwrap_or(0);
    let wide = all.iter().map(|scenario| profiles(scenario).len()).max().unwrap_or(0);
    let name = all.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    let row = |scenario: &Scenario| {
        let Scenario { id, name: spoken, title, .. } = scenario;
        format!("{id:<width$}  {spoken:<name$}  {:<wide$}  {title}\n", profiles(scenario))
    };
    say(&all.iter().map(row).collect::<String>())
}

fn known() -> Result<Vec<Scenario>, Failure> {
    catalogue().map_err(|error| Failure::usage(error.to_string()))
}

/// Finds a scenario by its id or its name, or reads it from a file.
fn find(known: &[Scenario], name: &str) -> Result<Scenario, Failure> {
    if let Some(scenario) = known.iter().find(|scenario| is_called(scenario, name)) {
        return Ok(scenario.clone());
    }
    let path = Path::new(name);
    if !path.exists() {
        return Err(Failure::usage(format!(
            "`{name}`: no such scenario and no such file; `lab list` shows the ids and names"
        )));
    }
    Scenario::load(path).map_err(|error| Failure::usage(error.to_string()))
}

/// Whether a scenario has this id or this name.
fn is_called(scenario: &Scenario, name: &str) -> bool {
    scenario.id.eq_ignore_ascii_case(name) || !name.is_empty() && scenario.name == name
}

/// A scenario under a profile, with all its seeds.
struct Job {
    scenario: Scenario,
    profile: Profile,
    /// The host that the kernel plays.
    kernel: Option<String>,
}

impl Run {
    fn run(self) -> Result<(), Failure> {
        let jobs = self.jobs()?;
        let template = self.options()?;
        let seeds = self.seeds.clone().unwrap_or(self.seed..self.seed + 1);
        let per_job = (seeds.end - seeds.start) as usize;
        let width = jobs.iter().map(|job| job.scenario.id.len()).max().unwrap_or(0);
        let mut printer = Printer {
            command: &self,
            width,
            per_job,
            reports: Vec::new(),
            packets: Vec::new(),
            held: Vec::new(),
        };
        let mut output = Ok(());
        let bar = progress(jobs.len() * per_job);
        // Runs against the kernel mostly wait.
        let threads = if self.against.is_some() { jobs.len() } else { workers::cores() };
        let result = workers::in_order(
            jobs.len() * per_job,
            threads,
            |index| {
                let job = &jobs[index / per_job];
                let seed = seeds.start + (index % per_job) as u64;
                let options = RunOptions { profile: job.profile, seed, ..template.clone() };
                let report = match &job.kernel {
                    None => run(&job.scenario, &options).map_err(|e| Failure::usage(e.to_string())),
                    Some(host) => kernel::scenario::play(&job.scenario, host, &options)
                        .map_err(|e| Failure::System(e.to_string())),
                };
                bar.inc(1);
                report
            },
            |report| {
                if output.is_ok() {
                    output = bar.suspend(|| printer.take(report));
                }
            },
        );
        bar.finish_and_clear();
        result?;
        output?;
        printer.finish()
    }

    fn jobs(&self) -> Result<Vec<Job>, Failure> {
        let known = known()?;
        let named = !self.scenarios.is_empty();
        let scenarios = if named {
            self.scenarios.iter().map(|name| find(&known, name)).collect::<Result<Vec<_>, _>>()?
        } else {
            known
        };
        if self.against.is_some() {
            return self.jobs_against_kernel(scenarios, named);
        }
        let mut jobs = Vec::new();
        for scenario in scenarios {
            let profiles = match self.profile {
                None => scenario.profiles.clone(),
                Some(profile) if named || scenario.profiles.contains(&profile) => vec![profile],
                Some(_) => Vec::new(),
            };
            jobs.extend(profiles.into_iter().map(|profile| Job {
                scenario: scenario.clone(),
                profile,
                kernel: None,
            }));
        }
        Ok(jobs)
    }

    /// One job for each host of each scenario that the kernel can play.
    fn jobs_against_kernel(&self, scenarios: Vec<Scenario>, named: bool) -> Result<Vec<Job>, Failure> {
        check_kernel()?;
        let mut jobs = Vec::new();
        for scenario in scenarios {
            let linux = scenario.profiles.contains(&Profile::Linux);
            let profile = self.profile.unwrap_or(if linux { Profile::Linux } else { Profile::Default });
            let before = jobs.len();
            for (kernel, ours) in ENDS {
                if can_play(&scenario, kernel)
                    && self.role.as_deref().is_none_or(|role| role.eq_ignore_ascii_case(ours))
                {
                    let (scenario, kernel) = (scenario.clone(), Some(kernel.to_owned()));
                    jobs.push(Job { scenario, profile, kernel });
                }
            }
            if named && jobs.len() == before {
                return Err(Failure::usage(why_not(&scenario, self.role.as_deref())));
            }
        }
        Ok(jobs)
    }

    /// Checks all options before anything runs.
    fn options(&self) -> Result<RunOptions, Failure> {
        let faults = self.fault.iter().map(|fault| fault.parse::<Fault>());
        Ok(RunOptions {
            swarm: self.seeds.is_some(),
            sysctls: self.sysctls.assignments()?,
            faults: faults.collect::<Result<_, _>>().map_err(|error| Failure::usage(error.to_string()))?,
            ladder: self.ladder,
            page: self.html.is_some(),
            capture: self.pcap.is_some(),
            capture_host: self.pcap_host.clone(),
            ..RunOptions::default()
        })
    }
}

/// The ends of a scenario: where one is the kernel, ours is the other.
const ENDS: [(&str, &str); 2] = [("S", "C"), ("C", "S")];

/// Whether the kernel can play this host.
fn can_play(scenario: &Scenario, host: &str) -> bool {
    scenario.kernel.iter().any(|role| role.host == host && role.not.is_none())
}

/// Why a scenario cannot be run against the kernel.
fn why_not(scenario: &Scenario, role: Option<&str>) -> String {
    let id = &scenario.id;
    let roles: Vec<&str> =
        ENDS.into_iter().filter(|(kernel, _)| can_play(scenario, kernel)).map(|(_, ours)| ours).collect();
    let unknown = role.filter(|role| !ENDS.iter().any(|(_, ours)| ours.eq_ignore_ascii_case(role)));
    if let (Some(unknown), false) = (unknown, roles.is_empty()) {
        return format!("--role {unknown}: in {id} ours can be {}", roles.join(" or "));
    }
    let reasons: Vec<String> = scenario
        .kernel
        .iter()
        .filter_map(|kernel| Some(format!("the kernel cannot be {}: {}", kernel.host, kernel.not.as_ref()?)))
        .collect();
    let role = role.map_or(String::new(), |role| format!(" with ours as {role}"));
    let reasons =
        if reasons.is_empty() { "its file says nothing of it".to_owned() } else { reasons.join("; ") };
    format!("{id} does not run against the kernel{role}: {reasons}")
}

fn progress(runs: usize) -> ProgressBar {
    // A few runs end before a bar is of use.
    if runs < 200 || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(runs as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// Prints reports as they arrive, and keeps those needed at the end.
struct Printer<'a> {
    command: &'a Run,
    width: usize,
    per_job: usize,
    reports: Vec<Report>,
    packets: Vec<u8>,
    /// Reports of the current job.
    held: Vec<Report>,
}

impl Printer<'_> {
    fn take(&mut self, mut report: Report) -> Result<(), Failure> {
        self.packets.append(&mut report.pcap);
        let ladder = std::mem::take(&mut report.ladder);
        if self.command.json {
            say(&format!("{}\n", report.to_json()))?;
        } else if self.command.ladder {
            say(&format!("{ladder}\n"))?;
        }
        self.held.push(report);
        if self.held.len() == self.per_job {
            let held = std::mem::take(&mut self.held);
            if !self.command.json {
                say(&row(&held, self.width))?;
            }
            self.reports.extend(held);
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        let failed = self.reports.iter().filter(|report| !report.passed()).count();
        let total = self.reports.len();
        let seconds: f64 = self.reports.iter().map(|report| report.virtual_seconds).sum();
        if !self.command.json {
            say(&format!(
                "\n{} runs: {} passed, {failed} failed, {seconds:.0} s of virtual time\n",
                total,
                total - failed
            ))?;
        }
        if let Some(file) = &self.command.pcap {
            write(file, &self.packets)?;
        }
        if let Some(file) = &self.command.html {
            let page = page(&self.reports);
            let html = page.html().map_err(|error| {
                Failure::usage(format!("--html {}: {error}; name fewer scenarios", file.display()))
            })?;
            write(file, html.as_bytes())?;
        }
        if let Some(file) = &self.command.junit {
            write(file, junit(&self.reports).as_bytes())?;
        }
        match failed {
            0 => Ok(()),
            failed => Err(Failure::Failed { failed, of: total, what: "runs" }),
        }
    }
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(file, bytes).map_err(|error| Failure::system(file.display(), error))
}

/// The lines of one job in the table: its result, and its failures below.
fn row(reports: &[Report], width: usize) -> String {
    const REASONS: usize = 5;
    let Some(first) = reports.first() else { return String::new() };
    let failed: Vec<&Report> = reports.iter().filter(|report| !report.passed()).collect();
    let result = if failed.is_empty() { "pass" } else { "FAIL" };
    let time = reports.iter().map(|report| report.virtual_seconds).fold(0.0, f64::max);
    let seeds = match (reports.len(), failed.len()) {
        (1, _) => String::new(),
        (all, 0) => format!("  ({all} seeds)"),
        (all, failed) => format!("  ({failed} of {all} seeds)"),
    };
    let role = first.role.as_ref().map_or(String::new(), |role| format!("ours {role}  "));
    let mut text = format!(
        "{:<width$}  {:<7}  {role}{result}  {time:>12.3} s  {}{seeds}\n",
        first.id,
        first.profile.name(),
        first.title,
    );
    let many = reports.len() > 1;
    for report in failed.iter().take(REASONS) {
        let seed = if many { format!("seed {}: ", report.seed) } else { String::new() };
        report
            .failures
            .iter()
            .for_each(|reason| text.push_str(&format!("{:width$}    {seed}{reason}\n", "")));
    }
    if !many {
        let differences = first.differences.iter().take(REASONS);
        differences
            .for_each(|difference| text.push_str(&format!("{:width$}    differs: {difference}\n", "")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_two_numbers() {
        assert_eq!(seeds("0..200"), Ok(0..200));
        for wrong in ["5", "5..", "..5", "a..b", "5..5", "6..5"] {
            assert!(seeds(wrong).unwrap_err().contains("expected"), "{wrong}");
        }
    }
}

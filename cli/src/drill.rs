//! `steadfast drill`: scripts in the packetdrill language.

mod dialect;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use steadfast::Profile;
use steadfast_drill::{
    Drill, DrillOptions, IpVersion, Outcome, Source, SourceError, Verdict, check_script_options,
    is_drill_file, junit, page, read_scripts, run_script,
};

use self::dialect::Dialect;
use crate::failure::Failure;
use crate::fuzz::Fuzz;
use crate::opponent::{Opponent, check_kernel, kernel};
use crate::output::say;

/// Limit of the nesting of directories.
const DEPTH: usize = 16;
/// Limit of skip reasons in the table.
const REASONS: usize = 20;

/// Scripts.
#[derive(Subcommand)]
pub(crate) enum DrillCommand {
    /// Run scripts: files, and all `.pkt` and `.pkt.jinja` files in directories.
    Run(Box<Run>),
    /// Print the scripts of a family (`.pkt.jinja`) as they are run.
    Show(Show),
    /// Play generated scripts on this stack and on the kernel of this machine, and compare.
    Fuzz(Fuzz),
}

/// Run scripts.
#[derive(Args)]
pub(crate) struct Run {
    /// Scripts, and directories of scripts.
    #[arg(value_name = "FILE|DIR", required = true)]
    paths: Vec<PathBuf>,
    /// Profile of the stack, with its timers, sizes and option layouts: linux, freebsd, default, bsd or rfc.
    #[arg(long, default_value = "linux")]
    profile: Profile,
    /// Check what is said and not how: the order of options, windows, PSH and when pure ACKs come are left open.
    #[arg(long)]
    neutral: bool,
    /// Play the scripts against this machine's kernel, in a network namespace and in real time. Needs root.
    #[arg(long, value_name = "WHOM")]
    against: Option<Opponent>,
    /// MTU of the link, unless the script names one.
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u16>,
    /// Allow events to be early or late by this much, overriding the script. For a busy machine.
    #[arg(long = "tolerance_usecs", value_name = "MICROSECONDS")]
    tolerance_usecs: Option<u64>,
    /// Define NAME for `#ifdef` and as a value. May be repeated.
    #[arg(short = 'D', long = "define", value_name = "NAME=VAL")]
    defines: Vec<String>,
    /// IP version, unless the script names one. May be repeated. IPv4 by default.
    #[arg(long, visible_alias = "ip_version", value_name = "ipv4|ipv4-mapped-ipv6|ipv6")]
    ip_version: Vec<IpVersion>,
    /// Name every script with its result, not only those that failed.
    #[arg(short, long)]
    verbose: bool,
    /// Only read the scripts, and report those that are not in the language.
    #[arg(long = "dry_run", alias = "dry-run")]
    dry_run: bool,
    #[command(flatten)]
    dialect: Dialect,
    /// Print one JSON object a line for each script and version, and nothing else.
    #[arg(long, conflicts_with = "verbose")]
    json: bool,
    /// Write a JUnit report to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the packets of all scripts to this file (pcapng).
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Write a page to this file (HTML): the ladder of each connection, and the state of the stack at any time.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the ladder of each script.
    #[arg(long)]
    ladder: bool,
}

/// Print the scripts of a family.
#[derive(Args)]
pub(crate) struct Show {
    /// A family, or a script.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print only the script of this name, without its heading: its line numbers are those that `run` reports.
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl DrillCommand {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            DrillCommand::Run(command) => command.run(),
            DrillCommand::Show(command) => command.run(),
            DrillCommand::Fuzz(command) => command.run(),
        }
    }
}

impl Show {
    fn run(&self) -> Result<(), Failure> {
        let wrong = |error: SourceError| Failure::usage(format!("{}: {error}", self.file.display()));
        let scripts = read_scripts(&self.file).map_err(wrong)?;
        let Some(name) = &self.name else {
            let whole = |script: &Source| match &script.name {
                Some(name) => format!("=== {name}\n{}", script.text),
                None => script.text.clone(),
            };
            return say(&scripts.iter().map(whole).collect::<String>());
        };
        let named = scripts.iter().find(|script| script.name.as_ref() == Some(name));
        let none = || Failure::usage(format!("{}: no script of the name `{name}`", self.file.display()));
        say(&named.ok_or_else(none)?.text)
    }
}

impl Run {
    fn run(&self) -> Result<(), Failure> {
        let files = self.files()?;
        check_script_options(&self.dialect.given()).map_err(Failure::usage)?;
        if self.against == Some(Opponent::Kernel) {
            check_kernel()?;
        }
        let outcomes = self.play(&files)?;
        self.write(&outcomes)?;
        if !self.json {
            say(&table(&outcomes))?;
        }
        let wrong =
            outcomes.iter().filter(|(_, o)| matches!(o.verdict, Verdict::Fail | Verdict::Error)).count();
        match wrong {
            0 => Ok(()),
            failed => Err(Failure::Failed { failed, of: outcomes.len(), what: "scripts" }),
        }
    }

    /// Returns the files in a fixed order.
    fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut files = Vec::new();
        for path in &self.paths {
            if path.is_dir() {
                collect(path, 0, &mut files)?;
            } else if path.is_file() {
                files.push(path.clone());
            } else {
                return Err(Failure::usage(format!("{}: expected a script or a directory", path.display())));
            }
        }
        if files.is_empty() {
            return Err(Failure::usage("no .pkt or .pkt.jinja file in the directories given"));
        }
        Ok(files)
    }

    fn defined(&self) -> BTreeMap<String, String> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, "1"));
            (name.to_owned(), value.to_owned())
        };
        self.defines.iter().map(pair).collect()
    }

    fn play(&self, files: &[PathBuf]) -> Result<Vec<(String, Outcome)>, Failure> {
        let quiet = self.json || !io::stderr().is_terminal();
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(files.len() as u64) };
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let mut outcomes = Vec::new();
        for file in files {
            bar.set_message(file.display().to_string());
            let scripts = match read_scripts(file) {
                Err(SourceError::Io(e)) => return Err(Failure::system(file.display(), e)),
                scripts => scripts,
            };
            for (title, text, outcome) in self.play_file(file, scripts)? {
                bar.suspend(|| self.tell(&title, &text, &outcome))?;
                outcomes.push((title, outcome));
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(outcomes)
    }

    /// Plays the scripts of a file. Returns the title, text and outcome of each run.
    fn play_file(
        &self,
        file: &Path,
        scripts: Result<Vec<Source>, SourceError>,
    ) -> Result<Vec<(String, String, Outcome)>, Failure> {
        let scripts = match scripts {
            Ok(scripts) => scripts,
            Err(error) => {
                let version = self.ip_version.first().copied().unwrap_or_default();
                let title = file.display().to_string();
                return Ok(vec![(title, String::new(), Outcome::no_scripts(&error, version))]);
            }
        };
        let mut all = Vec::new();
        for script in scripts {
            let outcomes = self.play_script(file, &script.text)?;
            let titled =
                outcomes.into_iter().map(|outcome| (script.title(file), script.text.clone(), outcome));
            all.extend(titled);
        }
        Ok(all)
    }

    /// Plays a script once for each version; only once if it names a version or is invalid.
    fn play_script(&self, file: &Path, text: &str) -> Result<Vec<Outcome>, Failure> {
        let beside = |path: &str| fs::read_to_string(file.parent().unwrap_or(Path::new(".")).join(path)).ok();
        let options = DrillOptions {
            profile: self.profile,
            neutral: self.neutral,
            ip_version: self.ip_version.first().copied().unwrap_or_default(),
            mtu: self.mtu,
            tolerance_usecs: self.tolerance_usecs,
            defines: self.defined(),
            script_options: self.dialect.given(),
            capture: self.pcap.is_some(),
            page: self.html.is_some(),
            files: &beside,
        };
        let Ok(drill) = Drill::parse_with(text, &options) else {
            return Ok(vec![run_script(text, &options)]);
        };
        if self.dry_run {
            return Ok(vec![drill.unplayed(&options)]);
        }
        let play = |options: &DrillOptions<'_>| match self.against {
            None => Ok(drill.run(options)),
            Some(Opponent::Kernel) => {
                kernel::script::play(&drill, options).map_err(|e| Failure::System(e.to_string()))
            }
        };
        if drill.ip_version().is_some() || self.ip_version.is_empty() {
            return Ok(vec![play(&options)?]);
        }
        let with = |version: &IpVersion| play(&DrillOptions { ip_version: *version, ..options.clone() });
        self.ip_version.iter().map(with).collect()
    }

    /// Says how a script went: for a person only what is wrong, unless all is asked for.
    fn tell(&self, title: &str, script: &str, outcome: &Outcome) -> Result<(), Failure> {
        if self.json {
            return say(&format!("{}\n", outcome.to_json(title)));
        }
        let mut text = String::new();
        if matches!(outcome.verdict, Verdict::Fail | Verdict::Error) {
            let place = match (outcome.verdict, outcome.at) {
                (Verdict::Fail, Some(at)) => format!("{title}:{}", at.line),
                (_, Some(at)) => format!("{title}:{}:{}", at.line, at.column),
                (_, None) => title.to_owned(),
            };
            let (verdict, version) = (outcome.verdict.name(), outcome.ip_version);
            text.push_str(&format!("{place}: {verdict} ({version}): {}\n", outcome.reason));
            if let Some((at, line)) = outcome.at.and_then(|at| Some((at, script.lines().nth(at.line - 1)?))) {
                text.push_str(&format!("{:>5} | {line}\n", at.line));
            }
            text.push_str(&outcome.details);
            outcome.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
        } else if self.verbose {
            let (verdict, version) = (outcome.verdict.name(), outcome.ip_version);
            let why = if outcome.verdict == Verdict::Pass { "" } else { &format!(": {}", outcome.reason) };
            text.push_str(&format!("{title}: {verdict} ({version}){why}\n"));
        }
        if (self.ladder || outcome.verdict == Verdict::Fail) && !outcome.ladder.is_empty() {
            text.push_str(&format!("{}\n", outcome.ladder));
        }
        say(&text)
    }

    fn write(&self, outcomes: &[(String, Outcome)]) -> Result<(), Failure> {
        let to = |option: &str, path: &Path, bytes: &[u8]| {
            fs::write(path, bytes).map_err(|e| Failure::system(format!("{option} {}", path.display()), e))
        };
        if let Some(path) = &self.junit {
            to("--junit", path, junit(outcomes).as_bytes())?;
        }
        if let Some(path) = &self.pcap {
            let all: Vec<u8> = outcomes.iter().flat_map(|(_, outcome)| outcome.pcap.clone()).collect();
            to("--pcap", path, &all)?;
        }
        if let Some(path) = &self.html {
            let html = page(outcomes).html().map_err(|error| {
                Failure::usage(format!("--html {}: {error}; name fewer scripts", path.display()))
            })?;
            to("--html", path, html.as_bytes())?;
        }
        Ok(())
    }
}

fn collect(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let wrong = |e| Failure::system(directory.display(), e);
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(wrong)? {
        paths.push(entry.map_err(wrong)?.path());
    }
    paths.sort();
    for path in paths {
        if path.is_dir() && depth < DEPTH {
            collect(&path, depth + 1, files)?;
        } else if is_drill_file(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// Formats a row for each folder, and the reasons of skips, the most frequent first.
fn table(outcomes: &[(String, Outcome)]) -> String {
    const VERDICTS: [Verdict; 5] =
        [Verdict::Pass, Verdict::Fail, Verdict::Skip, Verdict::Empty, Verdict::Error];
    let mut folders: BTreeMap<String, [usize; 5]> = BTreeMap::new();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (file, outcome) in outcomes {
        let folder = Path::new(file).parent().map_or(String::new(), |folder| folder.display().to_string());
        let folder = if folder.is_empty() { ".".to_owned() } else { folder };
        let column = VERDICTS.iter().position(|verdict| *verdict == outcome.verdict).unwrap_or(0);
        folders.entry(folder).or_default()[column] += 1;
        if outcome.verdict == Verdict::Skip {
            *reasons.entry(&outcome.reason).or_default() += 1;
        }
    }
    let mut sum = [0; 5];
    folders.values().for_each(|counts| sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count));
    if folders.len() > 1 {
        folders.insert("~ all".to_owned(), sum);
    }
    let width = folders.keys().map(|folder| folder.chars().count()).max().unwrap_or(0).max(6);
    let mut text = format!("{:width$}", "folder");
    VERDICTS.iter().for_each(|verdict| text.push_str(&format!("{:>7}", verdict.name())));
    text.push('\n');
    for (folder, counts) in &folders {
        text.push_str(&format!("{:width$}", folder.trim_start_matches("~ ")));
        counts.iter().for_each(|count| text.push_str(&format!("{count:>7}")));
        text.push('\n');
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
    if !reasons.is_empty() {
        text.push_str("\nskipped because\n");
    }
    for (reason, count) in reasons.iter().take(REASONS) {
        text.push_str(&format!("{count:>7}  {reason}\n"));
    }
    if reasons.len() > REASONS {
        text.push_str(&format!("         and {} other reasons\n", reasons.len() - REASONS));
    }
    text
}

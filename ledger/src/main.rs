//! Generates `docs/conformance.md`: every requirement of `docs/requirements.txt`, its state, and its citations.
//!
//! `cargo run -p steadfast-ledger` writes the file. With `-- --check` it fails if the file is out of date; with `--
//! --strict` also if a `must` has no test.
//!
//! A test cites an id in its name (`a_rst_resets_sa_est_03_must_12`) or in its doc comment (`SA-EST-03`). A scenario
//! cites in its `cites` line, and a drill script in its name or anywhere in its text.
#![forbid(unsafe_code)]

mod cite;
mod docs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use steadfast_drill::is_drill_file;

use crate::cite::Citations;

const REQUIREMENTS: &str = "docs/requirements.txt";
const LEDGER: &str = "docs/conformance.md";

/// A line of the requirements.
struct Requirement {
    id: String,
    weight: String,
    source: String,
    text: String,
}

fn main() -> ExitCode {
    match run() {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("steadfast-ledger: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<Vec<String>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let flags: Vec<String> = env::args().skip(1).collect();
    if let Some(unknown) = flags.iter().find(|f| !matches!(f.as_str(), "--check" | "--strict")) {
        return Err(format!("`{unknown}`: expected --check or --strict"));
    }
    let strict = flags.iter().any(|f| f == "--strict");
    let requirements = read_requirements(&root.join(REQUIREMENTS))?;
    let citations = Citations::collect(&root).map_err(|e| format!("cannot read the tests: {e}"))?;
    let text = ledger(&requirements, &citations);
    let mut problems = Vec::new();
    if strict {
        let open = requirements.iter().filter(|r| r.weight == "must" && citations.of(&r.id).is_empty());
        problems.extend(open.map(|r| format!("{}: no test cites it: {}", r.id, r.text)));
    }
    let known: BTreeSet<&str> = requirements.iter().map(|r| r.id.as_str()).collect();
    if known.len() < requirements.len() {
        problems.push(format!("{REQUIREMENTS}: an id is defined twice"));
    }
    let mentioned = Citations::mentioned(&root).map_err(|e| format!("cannot read what is written: {e}"))?;
    let unknown = mentioned.iter().filter(|(id, _)| !known.contains(id.as_str()));
    problems.extend(unknown.map(|(id, place)| format!("{place}: {id} is no id of {REQUIREMENTS}")));
    problems
        .extend(docs::ids_in_public_docs(&root).map_err(|e| format!("cannot read the documentation: {e}"))?);
    if flags.is_empty() {
        fs::write(root.join(LEDGER), text).map_err(|e| format!("{LEDGER}: {e}"))?;
    } else if fs::read_to_string(root.join(LEDGER)).unwrap_or_default() != text {
        problems.push(format!("{LEDGER} is not up to date: run `cargo run -p steadfast-ledger`"));
    }
    Ok(problems)
}

fn read_requirements(path: &Path) -> Result<Vec<Requirement>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{REQUIREMENTS}: {e}"))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(index, line)| match line.splitn(4, " | ").collect::<Vec<_>>()[..] {
            [id, weight, source, text] => Ok(Requirement {
                id: id.to_owned(),
                weight: weight.to_owned(),
                source: source.to_owned(),
                text: text.to_owned(),
            }),
            _ => Err(format!("{REQUIREMENTS}:{}: expected `id | weight | source | text`", index + 1)),
        })
        .collect()
}

/// The state of a requirement.
fn state(requirement: &Requirement, cited: bool) -> &'static str {
    match (requirement.weight.as_str(), cited) {
        ("deviation", _) => "deviation",
        ("n/a", _) => "n/a",
        ("docs", _) => "docs",
        (_, true) => "done",
        ("must", false) => "open",
        _ => "later",
    }
}

fn ledger(requirements: &[Requirement], citations: &Citations) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut body = String::new();
    let mut group = "";
    for requirement in requirements {
        let source = requirement.source.split(" §").next().unwrap_or_default();
        if source != group {
            group = source;
            let _ =
                write!(body, "\n## {group}\n\n| id | state | requirement | cited by |\n|---|---|---|---|\n");
        }
        let cited = citations.of(&requirement.id);
        let state = state(requirement, !cited.is_empty());
        *counts.entry(state).or_default() += 1;
        let text = requirement.text.replace('|', "\\|");
        let _ = writeln!(body, "| {} | {state} | {text} | {} |", requirement.id, shown(cited));
    }
    let summary: Vec<_> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    format!(
        "# Conformance\n\nMade by `cargo run -p steadfast-ledger` from `docs/requirements.txt` and the tests; do not \
         edit. Of {} requirements: {}.\n\n*done*: a test cites it. *open*: none does yet. *deviation*: see \
         [deviations.md](deviations.md). *later*: not in this release. *n/a*: consciously not done.\n{body}",
        requirements.len(),
        summary.join(", ")
    )
}

/// The first three places, and the number of further ones.
fn shown(places: &[String]) -> String {
    let mut text = places.iter().take(3).map(|p| format!("`{p}`")).collect::<Vec<_>>().join(", ");
    if places.len() > 3 {
        let _ = write!(text, " and {} more", places.len() - 3);
    }
    text
}

/// All tests, scenarios and scripts below `root`, sorted.
fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let cites = |path: &Path| has_ending(path, &["rs", "scenario"]) || is_drill_file(path);
    files_where(root, cites)
}

/// Code, documents, scenarios and scripts below `root`, sorted.
fn written_files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let written = |path: &Path| has_ending(path, &["rs", "md", "scenario"]) || is_drill_file(path);
    files_where(root, |path| written(path) && !path.ends_with(LEDGER))
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| endings.contains(&ending))
}

fn files_where(root: &Path, wanted: impl Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if wanted(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

//! The decision tables as scripts: everything in `drill/scripts` passes over IPv4 and IPv6, and covers every row.
//!
//! `ONLY=SA-EST-03 cargo test -p steadfast-drill --test decision_tables` runs only the scripts of that name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use steadfast_drill::{
    DrillOptions, IpVersion, Outcome, Source, Verdict, is_drill_file, read_scripts, run_script,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The scripts and their files.
fn scripts() -> Vec<(PathBuf, Source)> {
    let folder = root().join("drill/scripts");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| is_drill_file(path));
    files.sort();
    let of = |path: PathBuf| {
        let scripts = read_scripts(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        scripts.into_iter().map(move |script| (path.clone(), script))
    };
    files.into_iter().flat_map(of).collect()
}

/// The name of a script in its family, or the name of its file.
fn name(path: &Path, script: &Source) -> String {
    let file = path.file_stem().unwrap().to_string_lossy().into_owned();
    script.name.clone().unwrap_or(file)
}

fn told(path: &Path, script: &Source, outcome: &Outcome) -> String {
    let at = outcome.at.map_or(0, |at| at.line);
    let line = script.text.lines().nth(at.saturating_sub(1)).unwrap_or_default();
    let (verdict, version) = (outcome.verdict.name(), outcome.ip_version);
    let title = script.title(path.strip_prefix(root()).unwrap_or(path));
    let head = format!("{title}:{at}: {verdict} ({version}): {}\n{at:>5} | {line}", outcome.reason);
    format!("{head}\n{}{}", outcome.details, outcome.ladder)
}

#[test]
fn every_script_passes_over_ipv4_and_ipv6() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut scripts = scripts();
    scripts.retain(|(path, script)| name(path, script).starts_with(&only));
    assert!(!scripts.is_empty(), "no script's name begins with {only}");
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((path, script)) = scripts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for ip_version in [IpVersion::V4, IpVersion::V6] {
                        let options = DrillOptions { ip_version, ..DrillOptions::default() };
                        let outcome = run_script(&script.text, &options);
                        if outcome.verdict != Verdict::Pass {
                            wrong.lock().unwrap().push(told(path, script, &outcome));
                        }
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// The ids of the tables' rows.
fn rows() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/requirements.txt")).unwrap();
    let ids = text.lines().filter_map(|line| line.split(" | ").next()).filter(|id| id.starts_with("SA-"));
    ids.map(str::to_owned).collect()
}

#[test]
fn every_row_has_a_script_of_its_name() {
    let mut rows = rows();
    for (path, script) in scripts() {
        let name = name(&path, &script);
        let id = name.split(' ').next().unwrap_or_default();
        rows.remove(id);
    }
    assert!(rows.is_empty(), "{} rows without a script: {rows:?}", rows.len());
}

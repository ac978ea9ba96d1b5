//! Searches in parts: `deploy/`, with processes in the place of machines.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// A command that finds `steadfast` and `shard`.
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let tool = Path::new(env!("CARGO_BIN_EXE_steadfast")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new(program);
    command.env("PATH", format!("{}:{}:{path}", tool.display(), deploy().display()));
    command
}

fn shard(args: &[&str]) -> Output {
    command("shard").args(args).output().unwrap()
}

#[track_caller]
fn text(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn merge(folder: &Path, parts: &[u32]) -> Output {
    let files = parts.iter().map(|part| folder.join(format!("explore-{part}.json")));
    command("steadfast").args(["lab", "explore", "merge"]).args(files).output().unwrap()
}

/// A part that is lost is named, one that is given twice counts once, and all of them are the whole.
#[test]
fn the_parts_of_an_exploration_are_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let whole = text(command("steadfast").args(["lab", "explore", "X1", "X5"]).output().unwrap());
    for part in ["0", "1", "2", "1"] {
        text(shard(&["explore", part, "3", folder.path().to_str().unwrap(), "X1", "X5"]));
    }
    assert_eq!(text(merge(folder.path(), &[0, 1, 2])), whole);
    let repeated = text(merge(folder.path(), &[0, 1, 2, 2]));
    assert_eq!(repeated, format!("{whole}given more than once, counted once: shards [2]\n"));
    let lost = merge(folder.path(), &[0, 2]);
    assert_eq!(lost.status.code(), Some(1));
    assert!(String::from_utf8(lost.stdout).unwrap().ends_with("not given: shards [1]\n"));
}

/// Every seed is in one part.
#[test]
fn the_parts_of_a_range_of_seeds_are_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut seeds = Vec::new();
    for part in 0..3 {
        let folder = folder.path();
        text(shard(&[
            "lab",
            &part.to_string(),
            "3",
            folder.to_str().unwrap(),
            "10..17",
            "H1",
            "--profile",
            "rfc",
        ]));
        let runs = std::fs::read_to_string(folder.join(format!("lab-{part}.json"))).unwrap();
        seeds.extend(
            runs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seed"].as_u64().unwrap()),
        );
    }
    assert_eq!(seeds, (10..17).collect::<Vec<_>>());
    // Fewer seeds than parts.
    let none = shard(&["lab", "2", "3", folder.path().join("few").to_str().unwrap(), "0..2", "H1"]);
    assert!(
        none.status.success() && String::from_utf8_lossy(&none.stderr).contains("has no seeds"),
        "{none:?}"
    );
}

/// The engines' files start the same parts, as far as a shell can tell.
#[test]
fn engines_start_the_parts() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().to_str().unwrap();
    let part = |task: &str| {
        let mut slurm = command("sh");
        slurm.arg(deploy().join("slurm/explore.sbatch")).args(["explore", results, "X1", "--faults", "1"]);
        slurm
            .env("SLURM_ARRAY_TASK_ID", task)
            .env("SLURM_ARRAY_TASK_MIN", "4")
            .env("SLURM_ARRAY_TASK_COUNT", "2");
        text(slurm.output().unwrap());
    };
    ["4", "5"].into_iter().for_each(part);
    assert!(merge(folder.path(), &[0, 1]).status.success());

    let manifest = std::fs::read_to_string(deploy().join("kubernetes/explore.yaml")).unwrap();
    let line = manifest.lines().find_map(|line| line.trim().strip_prefix("args: ['")).unwrap();
    let line = line.strip_suffix("']").unwrap();
    assert!(manifest.contains("completions: 64") && line.contains(" 64 /results --faults 3"), "{line}");
    let small = line.replace("/results --faults 3", &format!("{results} X1 --faults 1"));
    text(command("sh").args(["-c", &small]).env("JOB_COMPLETION_INDEX", "63").output().unwrap());
    assert!(folder.path().join("explore-63.json").exists());
}

#[test]
fn a_part_that_cannot_be_leaves_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().to_str().unwrap();
    let wrong: [&[&str]; 5] = [
        &["explore", "0"],
        &["explore", "3", "3", results],
        &["dig", "0", "3", results],
        &["lab", "0", "3", results, "1-9"],
        &["explore", "0", "3", results, "X9999"],
    ];
    for args in wrong {
        let output = shard(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty());
        let left = std::fs::read_dir(results).unwrap().filter(|entry| {
            entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "json")
        });
        assert_eq!(left.count(), 0, "{args:?}");
    }
}

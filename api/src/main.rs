//! Compares the public API of the published crates with the lists in `docs/api`, so that a change is seen in review.
//!
//! ```sh
//! cargo run -p steadfast-api               # fails if an item was added, changed or removed
//! cargo run -p steadfast-api -- --update   # writes the lists
//! ```
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;

/// The crates that others build on.
const CRATES: [&str; 4] = ["steadfast", "steadfast-core", "steadfast-device", "steadfast-gateway"];

/// Compares the public API of the published crates with the lists in `docs/api`.
#[derive(Debug, Parser)]
struct Arguments {
    /// Write the lists.
    #[arg(long)]
    update: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?;
    let mut differ = false;
    for name in CRATES {
        let file = root.join("docs/api").join(name).with_extension("txt");
        let items = list(root, name)?;
        if arguments.update {
            fs::write(&file, items).with_context(|| file.display().to_string())?;
            continue;
        }
        let recorded = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for line in differences(&recorded, &items) {
            println!("{line}");
            differ = true;
        }
    }
    if differ {
        eprintln!("The public API has changed. If it is meant to: `cargo run -p steadfast-api -- --update`.");
    }
    Ok(if differ { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns the public items of a crate with all its features, one a line.
fn list(root: &Path, name: &str) -> Result<String> {
    let built = Command::new(env!("CARGO"))
        .args(["rustdoc", "--quiet", "--lib", "--all-features", "--package", name])
        .args(["--", "-Zunstable-options", "--output-format", "json"])
        .env("RUSTDOC", root.join("api/rustdoc-json"))
        .current_dir(root)
        .status()
        .context("cargo rustdoc")?;
    ensure!(built.success(), "cargo rustdoc -p {name}: {built}");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let json = target.join("doc").join(name.replace('-', "_")).with_extension("json");
    let api = public_api::Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()
        .with_context(|| json.display().to_string())?;
    Ok(api.items().map(|item| format!("{item}\n")).collect())
}

/// Returns the lines that only one of two lists has, as a diff shows them.
fn differences(recorded: &str, now: &str) -> Vec<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (recorded.lines().collect(), now.lines().collect());
    let gone = old.difference(&new).map(|line| format!("-{line}"));
    gone.chain(new.difference(&old).map(|line| format!("+{line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_and_what_is_new_is_told() {
        let differ = differences("pub fn a()\npub fn b()\n", "pub fn b()\npub fn c()\n");
        assert_eq!(differ, ["-pub fn a()", "+pub fn c()"]);
        assert!(differences("pub fn a()\n", "pub fn a()\n").is_empty());
    }
}

//! Lists the files of the catalogue, so that they are compiled in.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs, io};

fn missing(folder: &Path, why: &str) -> io::Error {
    io::Error::other(format!("the catalogue of scenarios, {}: {why}", folder.display()))
}

fn main() -> io::Result<()> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let folder = Path::new(&root).join("scenarios");
    println!("cargo::rerun-if-changed={}", folder.display());
    let entries: io::Result<Vec<_>> = fs::read_dir(&folder).and_then(Iterator::collect);
    let entries = entries.map_err(|error| missing(&folder, &error.to_string()))?;
    let mut files: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "scenario"));
    files.sort();
    if files.is_empty() {
        // An empty catalogue would pass every test.
        return Err(missing(&folder, "no .scenario file there"));
    }
    let mut out = String::from("&[\n");
    for path in &files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let path = path.canonicalize()?;
        println!("cargo::rerun-if-changed={}", path.display());
        let _ = writeln!(out, "    (\"scenarios/{name}\", include_str!({:?})),", path.display().to_string());
    }
    out.push_str("]\n");
    let target = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&target).join("catalogue.rs"), out)
}

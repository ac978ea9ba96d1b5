//! A new network namespace for a test.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};

use crate::{Missing, NotRun, REQUIRE, Records, is_required};

/// Moves this thread, and the threads and processes that it starts later, into a new network namespace. The kernel
/// removes the namespace with the last of them, however the test ends.
///
/// Returns false if that is impossible or one of `tools` is not installed. The reason is then reported, and the test
/// must return.
#[must_use]
#[track_caller]
pub fn enter_namespace(tools: &[&str]) -> bool {
    let missing = try_enter(tools);
    if !missing.is_empty() {
        not_run(missing);
        return false;
    }
    true
}

/// Returns the folder with the kernel of a virtual machine, `vmlinuz`, and its drivers, which `.ci/guest` has made. `None`:
/// it is missing, which is reported, and the test must return.
#[must_use]
#[track_caller]
pub fn guest_kernel() -> Option<PathBuf> {
    // target/debug/deps/NAME-HASH
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.ancestors().nth(3).unwrap_or(Path::new(".")).join("guest");
    if !folder.join("vmlinuz").exists() {
        not_run(vec![Missing::GuestKernel]);
        return None;
    }
    Some(folder)
}

/// The requirements that are not met. If there is none, this thread is in its namespace.
fn try_enter(tools: &[&str]) -> Vec<Missing> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push(Missing::Root);
    }
    if !Path::new("/dev/net/tun").exists() {
        missing.push(Missing::Device);
    }
    let absent = tools.iter().filter(|tool| !is_installed(tool));
    missing.extend(absent.map(|tool| Missing::Tool((*tool).to_owned())));
    if missing.is_empty()
        && let Err(error) = unshare(CloneFlags::CLONE_NEWNET)
    {
        missing.push(Missing::Namespace(error.desc().to_lowercase()));
    }
    missing
}

/// Reports that the test of this thread does not run, and records it for the summary.
#[track_caller]
fn not_run(missing: Vec<Missing>) {
    let test = NotRun { test: this_test(), missing };
    assert!(!is_required(), "{REQUIRE} is set, but {}", test.reason());
    // The test runner captures `eprintln!`, but not this.
    writeln!(io::stderr(), "not run: {}: {}", test.test, test.reason()).ok();
    if let Err(error) = Records::of_this_run().and_then(|records| records.add(&test)) {
        writeln!(io::stderr(), "the summary will not know of it: {error}").ok();
    }
}

/// Names the test target and the test. The test runner names each thread after its test, unless it runs one at a time.
#[track_caller]
fn this_test() -> String {
    let target = std::env::current_exe().ok();
    let target = target.as_deref().and_then(Path::file_stem).unwrap_or_default().to_string_lossy();
    let target = target.rsplit_once('-').map_or(&*target, |(name, _hash)| name);
    let place = std::panic::Location::caller();
    match std::thread::current().name() {
        Some(name) if name != "main" => format!("{target}: {name}"),
        _ => format!("{target}: {}:{}", place.file(), place.line()),
    }
}

/// True if `PATH` has a program of this name.
fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).exists())
}

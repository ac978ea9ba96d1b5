//! The last target of `cargo test --workspace`: prints which tests did not run, why, and what to install. It has no
//! harness, because the harness captures output.

use std::process::ExitCode;

use steadfast_witness::{Records, is_required, summary};

fn main() -> ExitCode {
    // A test runner that only lists tests.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    if cfg!(not(target_os = "linux")) {
        eprintln!("\nTests with real peers DID NOT RUN: they need Linux.\n");
        return ExitCode::SUCCESS;
    }
    let not_run = match Records::of_this_run().and_then(|records| records.take()) {
        Ok(not_run) => not_run,
        Err(error) => {
            eprintln!("\nNobody knows which tests did not run: {error}\n");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("\n{}", summary(&not_run));
    if is_required() && !not_run.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

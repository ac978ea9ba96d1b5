//! Requirements of tests with real peers, and a report of the tests that did not run.
//!
//! A test that cannot run passes. It prints one line to standard error at once, past the test runner, which swallows
//! the output of passed tests. It also adds a record to a file of this run of `cargo test`. The last test target of the
//! workspace, `what_did_not_run`, prints a summary of the records, and the packages to install.
//!
//! With `STEADFAST_REQUIRE_TUN=1` a test that cannot run fails.
#![forbid(unsafe_code)]

mod missing;
#[cfg(target_os = "linux")]
mod namespace;
mod record;

pub use self::missing::{Missing, summary};
#[cfg(target_os = "linux")]
pub use self::namespace::{enter_namespace, guest_kernel};
pub use self::record::{NotRun, Records};

/// Environment variable that makes every test fail that cannot run.
pub const REQUIRE: &str = "STEADFAST_REQUIRE_TUN";

/// Whether every test must run.
pub fn is_required() -> bool {
    std::env::var_os(REQUIRE).is_some_and(|value| value != "0")
}

//! Explores every schedule of few faults: two real stacks, virtual time, and at each packet a choice.
//!
//! A [`Program`] is a scenario of the lab without faults. [`explore`] plays it once for every schedule of at most
//! [`Options::budget`] faults among its first [`Options::first`] packets. It copies the world at each packet and goes on
//! with the copy, so that no prefix is played twice. Each run is judged when it has come to rest. A schedule that breaks
//! a rule becomes a [`Finding`], whose faults are those of the lab, so that `steadfast lab run` plays it again.
//!
//! ```
//! use steadfast_explore::{Budget, Options, Program, explore};
//! use steadfast_lab::Scenario;
//!
//! let text = "id X1\ntitle One byte\n\napp C\n  connect S:80\n  send 1\n  close\n\napp S\n  listen 80\n  accept\n  read eof => 1\n  close\n";
//! let program = Program::new(&Scenario::parse("x1", text)?, &Options::default())?;
//! let report = explore(&[program], &Options { budget: Budget::any(1), ..Options::default() }, |_| {});
//! assert!(report.findings.is_empty() && report.runs > 40);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod app;
mod arrival;
mod coverage;
mod delays;
mod ends;
mod fault;
mod forge;
mod judge;
mod merge;
mod options;
mod program;
mod programs;
mod search;
mod streams;
mod world;

pub use self::coverage::{Coverage, Segment};
pub use self::fault::{Choice, Fault};
pub use self::forge::Forgery;
pub use self::merge::{Merged, Part, merge};
pub use self::options::{Budget, BudgetError, Options, Shard};
pub use self::program::{Program, ProgramError};
pub use self::programs::program_files;
pub use self::search::{Finding, Progress, Report, explore};

//! A laboratory for TCP: stacks on a simulated network with a virtual clock, where every fault is reproducible.
//!
//! A [`Scenario`] is a text file with faults, the calls of applications, and the expected results. [`run()`] plays and
//! judges it. Nothing here reads a clock or the system's random source: the same seed produces the same packets, byte
//! for byte.
#![forbid(unsafe_code)]

mod app;
mod catalogue;
mod datagrams;
mod error;
pub mod fault;
pub mod foreign;
mod judge;
mod mangle;
mod network;
pub mod path;
mod real_time;
mod report;
mod rng;
mod run;
pub mod scenario;
mod stream;
mod text;
pub mod wire;
pub mod workers;

pub use catalogue::{SERIES, catalogue, explain, text_of};
pub use error::RunError;
pub use fault::Fault;
pub use mangle::fragments;
pub use real_time::{NextAction, RealTimeRun};
pub use report::{junit, page};
pub use run::{Report, RunOptions, run};
pub use scenario::{Case, KernelRole, LoadError, Phase, Scenario};
pub use text::{Bounds, ParseError, Times, Tolerance};

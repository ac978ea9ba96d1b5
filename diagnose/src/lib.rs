//! Diagnoses of TCP connections from a capture: what went wrong, at which end, how sure that is, and what to do.
//!
//! A [`Check`] takes the records of a capture in one pass and returns a [`Report`]. Memory is bounded by the number of
//! connections that are followed at once. Nothing here reads a file or a clock.
#![forbid(unsafe_code)]

pub mod catalogue;
mod check;
mod conn;
mod copies;
mod finding;
mod json;
mod many;
mod packet;
mod report;
mod rules;
mod track;

pub use check::{Check, Options};
pub use finding::{Alternative, Confidence, Evidence, Finding, Place, Severity};
pub use json::{finding as finding_json, json, json_lines};
pub use many::{Client, Service};
pub use packet::End;
pub use report::{Captured, Connection, Report};

#[cfg(test)]
mod tests;

//! `steadfast run` on this machine: its client must see what it sees directly.
//!
//! Each test makes the namespaces that it needs. If that is not possible, it says so and passes; with
//! `STEADFAST_REQUIRE_TUN=1` it fails. The numbers are those of the gateway's acceptance tests.
#![cfg(target_os = "linux")]

mod command;
mod datagrams;
mod faults;
mod forwards;
mod gateway;
mod machine;
mod names;
mod places;
mod scene;
mod tcp;

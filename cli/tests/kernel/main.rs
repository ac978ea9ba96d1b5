//! The kernel as judge: scenarios whose other end is the kernel of this machine, with faults in between, in real time.
//! Where namespaces and TUN devices cannot be made, a test says so and passes; with `STEADFAST_REQUIRE_TUN=1` it
//! fails.

#[path = "../tun/namespace.rs"]
#[allow(dead_code)]
mod namespace;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

use crate::namespace::enter_namespace;

/// Each of these with our stack as C and as S, where not one role only.
const CASES: [&str; 38] = [
    "N1", "N2", "N3", "N4", "N5", "N6", "N7", "H1", "H1b", "H2", "H2b", "H3a", "H3b", "H5", "H6", "H7a",
    "H7d", "H8a", "H8b", "H9a", "H10a", "H11", "T1", "T2", "T3a", "T3b", "T4a", "T4c", "T5", "T6b", "T8a",
    "T11", "T13", "L1", "L2", "L3", "L4", "H6",
];

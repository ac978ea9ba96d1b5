//! The bounds of an exploration.

use serde::{Deserialize, Serialize};
use steadfast_core::Profile;
use steadfast_lab::workers;

/// The bounds of an exploration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most faults in a run.
    pub faults: u32,
    /// Faults befall the first packets of a run only.
    pub first: u32,
    /// The profile of both stacks.
    pub profile: Profile,
    /// Settings of both stacks: `name = value`.
    pub sysctls: Vec<String>,
    /// Threads.
    pub jobs: usize,
    /// The part of the runs that this process takes.
    pub shard: Shard,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            faults: 2,
            first: 20,
            profile: Profile::Default,
            sysctls: Vec::new(),
            jobs: workers::cores(),
            shard: Shard { index: 0, count: 1 },
        }
    }
}

/// A part of the runs: those that begin with certain faults. Parts do not overlap, and need not know of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its number, from 0 on.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

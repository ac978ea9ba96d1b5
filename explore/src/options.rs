//! The bounds of an exploration.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use steadfast_core::Profile;
use steadfast_lab::workers;

use crate::fault::Fault;

/// The bounds of an exploration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The faults of a run.
    pub budget: Budget,
    /// Explore states: a run ends where it comes to a state that another one has explored.
    ///
    /// The stacks should have `tcp_timestamps=0`, since a timestamp tells one time from another. Their clocks of initial
    /// sequence numbers stand still.
    pub states: bool,
    /// Most states.
    pub most: u64,
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
            budget: Budget::any(2),
            states: false,
            most: 100_000_000,
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

/// How many faults may befall the packets of a run: so many of each sort, and so many of any. Forged packets are not
/// among the latter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Budget {
    any: u32,
    of: [u32; Fault::SORTS.len()],
}

impl Budget {
    /// So many faults of any sort.
    pub fn any(faults: u32) -> Budget {
        Budget { any: faults, ..Budget::default() }
    }

    /// Returns whether there are none left.
    pub(crate) fn is_spent(&self) -> bool {
        *self == Budget::default()
    }

    /// Returns the rest after a fault, if there may be one.
    pub(crate) fn without(&self, fault: Fault) -> Option<Budget> {
        let mut left = self.clone();
        let own = &mut left.of[fault.sort()];
        let from = if *own > 0 || matches!(fault, Fault::Forge(_)) { own } else { &mut left.any };
        *from = from.checked_sub(1)?;
        Some(left)
    }
}

/// A text that is no budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}`: expected faults and how many, such as `lose=3,duplicate=1,reorder=1,reboot=1`, or a number of any"
)]
pub struct BudgetError(String);

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Budget, BudgetError> {
        let error = || BudgetError(text.to_owned());
        let mut budget = Budget::default();
        for part in text.split(',') {
            let (number, place) = match part.split_once('=') {
                None => (part, &mut budget.any),
                Some((name, number)) => {
                    let sort = Fault::SORTS.iter().position(|sort| *sort == name).ok_or_else(error)?;
                    (number, &mut budget.of[sort])
                }
            };
            *place = number.parse().map_err(|_| error())?;
        }
        Ok(budget)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = Fault::SORTS.iter().zip(self.of).filter(|(_, number)| *number > 0);
        let of = of.map(|(sort, number)| format!("{sort}={number}"));
        let any = (self.any > 0 || self.is_spent()).then(|| self.any.to_string());
        f.write_str(&any.into_iter().chain(of).collect::<Vec<_>>().join(","))
    }
}

//! `lab run --against kernel`: a scenario whose other end is the kernel of this machine, in real time.
//!
//! Each phase has a network namespace of its own, joined to our stack by a TUN device, with the lab's network and
//! its faults in between. The kernel's applications are the scenario's scripts on the kernel's own sockets.

mod boot;
mod diag;
mod sockets;

use std::time::{Duration, Instant};

use clap::ValueEnum;
use steadfast::core;
use steadfast_lab::{Live, Report, Rest, RunOptions, Scenario};

pub(crate) use self::boot::check;
pub(crate) use self::diag::{Diag, Line};

/// Who plays the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Opponent {
    /// The kernel of this machine.
    Kernel,
}

/// The longest that a phase may take in real time: twice Linux's TIME-WAIT, which cannot be set, fits in.
const LIMIT: Duration = Duration::from_secs(150);

/// How long the kernel must have been quiet before it is believed that it waits for us. Its timers show in its
/// listing, save that of delayed ACKs, which is 200 ms at the most.
const QUIET: Duration = Duration::from_millis(300);

/// How often the kernel is looked at while one of its timers runs.
const LOOK: Duration = Duration::from_millis(50);

/// Plays all phases of a scenario, the kernel as `host`. An error: the system or the options do not let it begin.
pub(crate) fn play(scenario: &Scenario, host: &str, options: &RunOptions) -> Result<Report, String> {
    let mut report = Report::new(scenario, options, Some(host));
    for phase in &scenario.phases {
        let mut live = Live::start(scenario, phase, options, host, Box::new(boot::boot))?;
        let failure = drive(&mut live);
        live.conclude(failure, &mut report);
    }
    Ok(report)
}

/// Keeps the time of a phase, until nothing is left to happen. Time in which the kernel waits for us, and we for
/// nothing but our own timers, is skipped. Gives what kept the phase from its end.
fn drive(live: &mut Live<'_>) -> Option<String> {
    let start = Instant::now();
    let mut skipped = Duration::ZERO;
    let mut quiet_since = start;
    while start.elapsed() < LIMIT {
        let now = start.elapsed() + skipped;
        if live.advance(moment(now)) {
            quiet_since = Instant::now();
        }
        let due = live.next_at().map(|at| Duration::from_nanos(at.as_nanos()).saturating_sub(now));
        let quiet_for = (quiet_since + QUIET).saturating_duration_since(Instant::now());
        match live.rest() {
            Rest::Nothing if quiet_for.is_zero() => return None,
            Rest::Until(_) if quiet_for.is_zero() => skipped += due.unwrap_or_default(),
            Rest::Timer => wait(live, due.map_or(LOOK, |due| due.min(LOOK))),
            Rest::Nothing | Rest::Until(_) => wait(live, due.map_or(quiet_for, |due| due.min(quiet_for))),
        }
    }
    Some(format!("it is not over after {} s of real time", LIMIT.as_secs()))
}

fn wait(live: &mut Live<'_>, at_most: Duration) {
    match live.foreign() {
        Some(foreign) => foreign.wait(at_most),
        None => std::thread::sleep(at_most),
    }
}

fn moment(since_start: Duration) -> core::Instant {
    core::Instant::from_nanos(since_start.as_nanos() as u64)
}

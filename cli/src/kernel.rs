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
use steadfast_lab::{Live, Phase, Report, Rest, RunOptions, Scenario};

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

/// What is due and comes later than this holds the clock up.
const LATE: Duration = Duration::from_millis(2);

/// Plays all phases of a scenario at the same time, the kernel as `host`. An error: the system or the options do not
/// let it begin.
pub(crate) fn play(scenario: &Scenario, host: &str, options: &RunOptions) -> Result<Report, String> {
    let mut report = Report::new(scenario, options, Some(host));
    let phases: Vec<_> = std::thread::scope(|scope| {
        let phase = |phase| scope.spawn(move || play_phase(scenario, phase, host, options));
        let running: Vec<_> = scenario.phases.iter().map(phase).collect();
        running.into_iter().map(|thread| thread.join()).collect()
    });
    for phase in phases {
        report.add(phase.map_err(|_| "a thread failed")??);
    }
    Ok(report)
}

fn play_phase(
    scenario: &Scenario,
    phase: &Phase,
    host: &str,
    options: &RunOptions,
) -> Result<Report, String> {
    let mut live = Live::start(scenario, phase, options, host, Box::new(boot::boot))?;
    let failure = drive(&mut live);
    Ok(live.conclude(failure))
}

/// Keeps the time of a phase, until nothing is left to happen. Gives what kept it from its end.
///
/// The clock is real time, but for two things. Time in which the kernel waits for us, and we for nothing but our own
/// timers, is skipped. And what the machine comes to late holds the clock up, so that the kernel has as much time
/// between two of our packets as the scenario says, or more, and never less.
fn drive(live: &mut Live<'_>) -> Option<String> {
    let start = Instant::now();
    let (mut skipped, mut held) = (Duration::ZERO, Duration::ZERO);
    let mut quiet_since = start;
    while start.elapsed() < LIMIT {
        let mut now = start.elapsed() + skipped - held;
        let due = live.next_at().map(since_start);
        if let Some(late) = due.and_then(|due| now.checked_sub(due)) {
            now -= late;
            if late > LATE {
                held += late;
                live.held_up(late);
            }
        }
        if live.advance(core::Instant::ZERO + now) {
            quiet_since = Instant::now();
        }
        let left = live.next_at().map(|at| since_start(at).saturating_sub(now));
        let quiet_for = (quiet_since + QUIET).saturating_duration_since(Instant::now());
        match live.rest() {
            Rest::Nothing if quiet_for.is_zero() => return None,
            Rest::Until(_) if quiet_for.is_zero() => skipped += left.unwrap_or_default(),
            Rest::Timer => wait(live, left.map_or(LOOK, |left| left.min(LOOK))),
            Rest::Nothing | Rest::Until(_) => wait(live, left.map_or(quiet_for, |left| left.min(quiet_for))),
        }
    }
    Some(format!("it is not over after {} s of real time", LIMIT.as_secs()))
}

fn since_start(at: core::Instant) -> Duration {
    Duration::from_nanos(at.as_nanos())
}

fn wait(live: &mut Live<'_>, at_most: Duration) {
    match live.foreign() {
        Some(foreign) => foreign.wait(at_most),
        None => std::thread::sleep(at_most),
    }
}

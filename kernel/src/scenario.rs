//! The kernel plays one end of a scenario, in real time.
//!
//! Each phase has its own network namespace. A TUN device joins it to the stack, with the lab's network and its faults
//! in between. The kernel's applications are the scenario's scripts, on the kernel's sockets.

mod boot;
mod sockets;
mod stalls;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use steadfast_core as core;
use steadfast_lab::{NextAction, Phase, RealTimeRun, Report, RunOptions, Scenario};

use self::stalls::Stalls;
use crate::Error;

/// The longest that a phase may take in real time: twice Linux's TIME-WAIT, which cannot be set, fits in.
const LIMIT: Duration = Duration::from_secs(150);

/// How long the kernel must be quiet before it counts as waiting for us. Its listing shows all timers except that of
/// delayed ACKs, which is at most 200 ms.
const QUIET: Duration = Duration::from_millis(300);

/// Interval between looks at the kernel while one of its timers runs.
const LOOK: Duration = Duration::from_millis(50);

/// An event that is later than this holds up the clock.
const LATE: Duration = Duration::from_millis(2);

/// A phase is void if the machine held it up for longer than this at once. The kernel then measures a round trip that
/// is not the scenario's, and its RTO grows with it.
const STALL: Duration = Duration::from_millis(20);

/// How often a phase is played while it fails and is void.
const ATTEMPTS: usize = 3;

/// Held while a phase starts. A start costs more processor time than the whole phase, so many at once would stall the
/// phases that already run.
static STARTING: Mutex<()> = Mutex::new(());

/// Plays all phases of a scenario concurrently, with the kernel as `host`. A phase that fails is played again if the
/// machine was too busy for it, and the report says so. Fails if the system or the options prevent a start.
pub fn play(scenario: &Scenario, host: &str, options: &RunOptions) -> Result<Report, Error> {
    let mut report = Report::new(scenario, options, Some(host));
    let phases: Vec<_> = std::thread::scope(|scope| {
        let phase = |phase| scope.spawn(move || judge_phase(scenario, phase, host, options));
        let running: Vec<_> = scenario.phases.iter().map(phase).collect();
        running.into_iter().map(|thread| thread.join()).collect()
    });
    for phase in phases {
        report.add(phase.map_err(|_| Error::Panicked)??);
    }
    Ok(report)
}

/// Plays a phase until it passes or fails without a stall.
fn judge_phase(
    scenario: &Scenario,
    phase: &Phase,
    host: &str,
    options: &RunOptions,
) -> Result<Report, Error> {
    let mut void = Vec::new();
    loop {
        // A thread cannot leave its namespace, so each attempt has its own.
        let attempt = std::thread::scope(|scope| {
            scope.spawn(|| play_phase(scenario, phase, host, options)).join().map_err(|_| Error::Panicked)
        });
        let (mut report, stall) = attempt??;
        let is_void = !report.passed() && stall > STALL;
        if is_void {
            void.push(format!("{} ms", stall.as_millis()));
        }
        if !is_void || void.len() == ATTEMPTS {
            if !void.is_empty() {
                report.differences.push(format!("the machine held up failed runs for {}", void.join(", ")));
            }
            return Ok(report);
        }
    }
}

/// Plays a phase. Returns the longest stall beside the report.
fn play_phase(
    scenario: &Scenario,
    phase: &Phase,
    host: &str,
    options: &RunOptions,
) -> Result<(Report, Duration), Error> {
    let boot = Box::new(|boot: &_| boot::boot(boot).map_err(|error| error.to_string()));
    let mut run = {
        // The lock guards no data that a panic could spoil.
        let _one = STARTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        RealTimeRun::start(scenario, phase, options, host, boot)?
    };
    let mut stalls = Stalls::new();
    let failure = drive(&mut run, &mut stalls);
    Ok((run.conclude(failure), stalls.longest()))
}

/// Drives the clock of a phase until no event is left. Returns the reason if it stops early.
///
/// The clock is real time, with two exceptions. Time is skipped while the kernel waits for us and we wait only for our
/// own timers. An event that the machine processes late holds up the clock, so that the kernel never has less time
/// between two of our packets than the scenario says.
fn drive(run: &mut RealTimeRun<'_>, stalls: &mut Stalls) -> Option<String> {
    let start = Instant::now();
    let (mut skipped, mut held) = (Duration::ZERO, Duration::ZERO);
    let mut quiet_since = start;
    while start.elapsed() < LIMIT {
        let mut now = start.elapsed() + skipped - held;
        let due = run.next_at().map(since_start);
        if let Some(late) = due.and_then(|due| now.checked_sub(due)) {
            now -= late;
            if late > LATE {
                stalls.note(late);
                held += late;
                run.held_up(late);
            }
        }
        if run.advance(core::Instant::ZERO + now) {
            quiet_since = Instant::now();
        }
        let left = run.next_at().map(|at| since_start(at).saturating_sub(now));
        let quiet_for = (quiet_since + QUIET).saturating_duration_since(Instant::now());
        match run.next_action() {
            NextAction::Nothing if quiet_for.is_zero() => return None,
            NextAction::Until(_) if quiet_for.is_zero() => skipped += left.unwrap_or_default(),
            NextAction::Timer => wait(run, stalls, left.map_or(LOOK, |left| left.min(LOOK))),
            NextAction::Nothing | NextAction::Until(_) => {
                wait(run, stalls, left.map_or(quiet_for, |left| left.min(quiet_for)))
            }
        }
        stalls.look();
    }
    Some(format!("it is not over after {} s of real time", LIMIT.as_secs()))
}

fn since_start(at: core::Instant) -> Duration {
    Duration::from_nanos(at.as_nanos())
}

fn wait(run: &mut RealTimeRun<'_>, stalls: &mut Stalls, at_most: Duration) {
    let since = Instant::now();
    match run.foreign() {
        Some(foreign) => foreign.wait(at_most),
        None => std::thread::sleep(at_most),
    }
    stalls.note(since.elapsed().saturating_sub(at_most));
}

//! The due times of events, and their tolerances.

use steadfast_core::Instant;
use steadfast_core::time::Duration;

use super::super::Verdict;
use super::super::ast::{Event, When};
use super::{Interpreter, Run, Stop, fail};

/// Tolerance of the neutral mode, in microseconds.
const NEUTRAL_TOLERANCE: u64 = 100_000;

/// When an event is due, in nanoseconds from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) start: i64,
    pub(super) end: i64,
    /// The event may happen at any time.
    pub(super) any: bool,
}

impl When {
    /// The start time, if this is the time of the first event.
    pub(super) fn first(self) -> i64 {
        match self {
            When::Absolute(time) | When::AbsoluteRange(time, _) => time,
            _ => 0,
        }
    }
}

impl Interpreter<'_> {
    pub(super) fn elapsed(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_since(self.start).as_nanos()).unwrap_or(i64::MAX)
    }

    pub(super) fn instant(&self, elapsed: i64) -> Instant {
        self.start + Duration::from_nanos(u64::try_from(elapsed).unwrap_or(0))
    }

    /// Returns the due time of the next event.
    pub(super) fn due(&self, event: &Event) -> Due {
        let now = self.elapsed(self.world.now());
        let due = |start: i64, end: i64| Due { start, end, any: false };
        match event.when {
            When::Absolute(time) => due(time - self.script_start, time - self.script_start),
            When::AbsoluteRange(start, end) => due(start - self.script_start, end - self.script_start),
            When::Relative(time) => due(now + time, now + time),
            When::RelativeRange(start, end) => due(now + start, now + end),
            When::Any => Due { start: now, end: now, any: true },
        }
    }

    /// The tolerance of an event, in nanoseconds.
    pub(super) fn tolerance(&self, due: i64) -> i64 {
        let least = self.fixed_tolerance();
        let gap = due.saturating_sub(self.last_time).max(0) as f64;
        least.max((gap * self.settings.tolerance_percent / 100.0) as i64)
    }

    /// The part of the tolerance that does not grow with elapsed time.
    fn fixed_tolerance(&self) -> i64 {
        let said = self.options.tolerance_usecs.unwrap_or(self.settings.tolerance_usecs);
        let usecs = said.max(if self.options.neutral { NEUTRAL_TOLERANCE } else { 0 });
        i64::try_from(usecs.saturating_mul(1000)).unwrap_or(i64::MAX)
    }

    /// Describes the deviation of an event at `at`; `None` if it was in time.
    pub(super) fn off(&self, due: Due, at: Instant) -> Option<String> {
        if due.any {
            return None;
        }
        let came = self.elapsed(at);
        // A range needs only the fixed tolerance.
        let tolerance = if due.start == due.end { self.tolerance(due.start) } else { self.fixed_tolerance() };
        let expected = if due.start == due.end {
            format!("at {}", seconds(due.start))
        } else {
            format!("from {} to {}", seconds(due.start), seconds(due.end))
        };
        let within = format!("expected {expected}, give or take {}", seconds(tolerance));
        if came < due.start.saturating_sub(tolerance) {
            return Some(format!(
                "{} early: it came at {}, {within}",
                seconds(due.start - came),
                seconds(came)
            ));
        }
        if came > due.end.saturating_add(tolerance) {
            return Some(format!("{} late: it came at {}, {within}", seconds(came - due.end), seconds(came)));
        }
        None
    }

    /// Refuses an event that is further ahead than the subject's patience.
    pub(super) fn refuse_patience(&self, event: &Event, due: Due) -> Run {
        let ahead = due.start.saturating_sub(self.elapsed(self.world.now()));
        let patience = self.world.subject.patience();
        if ahead <= i64::try_from(patience.as_nanos()).unwrap_or(i64::MAX) {
            return Ok(());
        }
        let (ahead, patience) = ((ahead + 500_000_000) / 1_000_000_000, patience.as_secs());
        let reason = format!("an event is {ahead} s ahead, and no more than {patience} s are waited for");
        Err(Stop { verdict: Verdict::Skip, ..fail(event.at, reason) })
    }

    /// Waits for the time of an event that the script itself causes.
    pub(super) fn wait_for(&mut self, event: &Event, due: Due) -> Run {
        if due.any {
            return Ok(());
        }
        self.refuse_patience(event, due)?;
        let at = self.instant(due.start);
        self.world.run_until(at, |_| false);
        match self.off(due, self.world.now()) {
            None => Ok(()),
            Some(off) => Err(fail(event.at, format!("the event is {off}"))),
        }
    }

    /// Checks that a blocking call returned in time.
    pub(super) fn check_end(&self, event: &Event, until: i64, at: Instant) -> Run {
        let begun = self.begun.get(&event.at).copied().unwrap_or_default();
        let end = match event.when {
            When::Absolute(_) => until - self.script_start,
            When::Relative(start) => begun - start + until,
            _ => return Ok(()),
        };
        let due = Due { start: end, end, any: false };
        let came = self.elapsed(at);
        let tolerance = self.tolerance_from(begun, end);
        if (came - end).abs() <= tolerance {
            return Ok(());
        }
        let direction = if came < end { "early" } else { "late" };
        let (off, due, came) = (seconds((came - end).abs()), seconds(due.start), seconds(came));
        let within = seconds(tolerance);
        Err(fail(
            event.at,
            format!(
                "the call returned {off} {direction}: at {came}, expected at {due}, give or take {within}"
            ),
        ))
    }

    /// As `tolerance`, for a time that is counted from `from`.
    fn tolerance_from(&self, from: i64, due: i64) -> i64 {
        let gap = (due - from).max(0) as f64;
        self.tolerance(self.last_time).max((gap * self.settings.tolerance_percent / 100.0) as i64)
    }
}

/// Formats nanoseconds as seconds.
pub(super) fn seconds(nanos: i64) -> String {
    let micros = nanos.unsigned_abs() / 1000;
    let sign = if nanos < 0 { "-" } else { "" };
    format!("{sign}{}.{:06} s", micros / 1_000_000, micros % 1_000_000)
}

//! A phase of a scenario in which a foreign TCP plays one host, in real time.
//!
//! The network, its faults, applications and judgements are those of every other run; only the clock is external. An
//! event happens at the time it was due, even if the machine processes it later. Immediate replies of the foreign TCP
//! get the same timestamp. Order and causality therefore do not depend on the load of the machine; only events from the
//! foreign TCP's own timers are seen late.

use steadfast_core::trace::State;
use steadfast_core::{Config, Duration, Instant};

use crate::error::RunError;
use crate::foreign::{Booter, Foreign};
use crate::judge;
use crate::network::Network;
use crate::run::{Played, Report, RunOptions, plan};
use crate::scenario::{Case, Phase, Scenario};
use crate::text::Tolerance;

/// Interval between repetitions of a check that failed, until its deadline.
const RETRY_CHECK: Duration = Duration::from_millis(5);

/// A phase in progress.
pub struct RealTimeRun<'a> {
    played: Played<'a>,
    network: Network,
    /// The host that the foreign TCP plays.
    host: usize,
}

/// The next thing that the phase waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextAction {
    /// Nothing: the phase is over.
    Nothing,
    /// The foreign TCP waits for us, and we do nothing before this time.
    Until(Instant),
    /// A timer of the foreign TCP.
    Timer,
}

impl<'a> RealTimeRun<'a> {
    /// Starts both ends. Fails if the options do not fit the scenario, or if the foreign TCP cannot be made.
    pub fn start(
        scenario: &'a Scenario,
        phase: &'a Phase,
        options: &'a RunOptions,
        host: &'a str,
        booter: Booter,
    ) -> Result<RealTimeRun<'a>, RunError> {
        let case = Case { profile: options.profile, phase: &phase.name, kernel: Some(host) };
        let selected = scenario.select(&case);
        let mut plan = plan(scenario, &selected, options)?;
        let index = plan.hosts.iter().position(|known| known.name == host);
        let index =
            index.ok_or_else(|| RunError::NoHost { scenario: scenario.id.clone(), host: host.to_owned() })?;
        let own = selected.sysctls.iter().filter(|s| s.host.as_deref().is_none_or(|name| name == host));
        let texts = own.map(|sysctl| &sysctl.text).chain(&options.sysctls);
        let split = |text: &String| {
            let (name, value) = text.split_once('=')?;
            let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
            // It knows no `4M`.
            let mut config = Config::default();
            let plain = config.apply(text).ok().and_then(|()| config.value(&name));
            Some((name, plain.unwrap_or(value)))
        };
        plan.hosts[index].play(booter, texts.filter_map(split).collect());
        plan.tolerance = Tolerance::KERNEL;
        let network = Network::new(plan);
        if let Some(failure) = &network.hosts[index].failure {
            return Err(RunError::Foreign(failure.clone()));
        }
        let played = Played { scenario, phase, options, selected, failed_checks: Vec::new(), finished: true };
        Ok(RealTimeRun { played, network, host: index })
    }

    /// Runs all events due by `now`, and collects the output of the foreign TCP. Returns whether anything happened.
    pub fn advance(&mut self, now: Instant) -> bool {
        let before = (self.network.timeline.events.len(), self.network.hash, self.network.next_at());
        let now = self.played.selected.until.map_or(now, |until| until.min(now));
        let Played { selected, failed_checks, .. } = &mut self.played;
        self.network.run(Some(now), |network, index| {
            let stated = selected.expectations[index];
            let text = judge::evaluate(network, &stated.expectation).err()?;
            let latest = stated.expectation.evaluated_at().map(|at| network.tolerance.latest(at));
            if latest.is_some_and(|latest| network.now < latest) {
                return Some(network.now + RETRY_CHECK);
            }
            failed_checks.push((index, text));
            None
        });
        self.network.now = self.network.now.max(now);
        self.network.run_host(self.host);
        before != (self.network.timeline.events.len(), self.network.hash, self.network.next_at())
    }

    /// Reports that the clock was held up by `time`. Timers of the foreign TCP kept running, and may fire that much
    /// early.
    pub fn held_up(&mut self, time: Duration) {
        self.network.tolerance.allow_early(time);
    }

    /// When the next event is due.
    pub fn next_at(&mut self) -> Option<Instant> {
        let until = self.played.selected.until;
        self.network.next_at().filter(|at| until.is_none_or(|until| *at <= until)).or(until)
    }

    /// Returns the next thing that the phase waits for, as far as the foreign TCP's listing shows.
    pub fn next_action(&mut self) -> NextAction {
        let over = self.played.selected.until.is_some_and(|until| self.network.now >= until);
        if over || self.network.hosts[self.host].failure.is_some() {
            return NextAction::Nothing;
        }
        let entries = &self.network.hosts[self.host].entries;
        let waits = entries.iter().any(|entry| entry.state == State::TimeWait);
        if entries.iter().any(|entry| entry.timer && entry.state != State::TimeWait) {
            return NextAction::Timer;
        }
        match self.next_at() {
            None => NextAction::Nothing,
            // The end of a foreign TIME-WAIT matters only if an event or a check concerns that host.
            Some(_) if waits && !self.only_ours() => NextAction::Timer,
            Some(at) => NextAction::Until(at),
        }
    }

    fn only_ours(&self) -> bool {
        let name = self.network.names[self.host].as_str();
        let expectations = &self.played.selected.expectations;
        self.network.leaves_alone(self.host, |index| expectations[index].expectation.hosts().contains(&name))
    }

    /// The foreign TCP, while it is up.
    pub fn foreign(&mut self) -> Option<&mut (dyn Foreign + 'static)> {
        self.network.hosts[self.host].foreign.as_deref_mut()
    }

    /// Judges the phase. `failure` says why it did not reach its end, if it did not.
    pub fn conclude(self, failure: Option<String>) -> Report {
        let Played { scenario, options, .. } = self.played;
        let mut report = Report::new(scenario, options, Some(self.network.names[self.host].as_str()));
        report.ladder.clear();
        let failed = failure.or_else(|| self.network.hosts[self.host].failure.clone());
        report.failures.extend(failed);
        self.played.conclude(self.network, &mut report);
        report
    }
}

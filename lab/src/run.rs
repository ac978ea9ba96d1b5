//! Runs a scenario: from its text to a report.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use steadfast_core::trace::State;
use steadfast_core::{Config, Instant, Profile};
use steadfast_timeline::page::{CONNECTION_LIMIT, Chapter};
use steadfast_timeline::{capture, ladder};

use crate::app::{Directory, Violation};
use crate::error::RunError;
use crate::fault::Fault;
use crate::judge;
use crate::network::host::Host;
use crate::network::nat::{FIRST_PORT, Nat, Nats};
use crate::network::swarm::Swarm;
use crate::network::{Network, Paths, Plan};
use crate::scenario::expect::{Expectation, Invariant};
use crate::scenario::script::App;
use crate::scenario::topology::HostSpec;
use crate::scenario::{Case, Phase, Scenario, Selected};
use crate::text::Tolerance;

/// How to run a scenario.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The profile of all hosts.
    pub profile: Profile,
    /// The seed of all randomness.
    pub seed: u64,
    /// Add random faults, drawn from the seed.
    pub swarm: bool,
    /// Settings for all hosts in addition to the scenario's: `name = value`.
    pub sysctls: Vec<String>,
    /// Faults in addition to the scenario's.
    pub faults: Vec<Fault>,
    /// Draw [`Report::ladder`].
    pub ladder: bool,
    /// Make [`Report::chapters`].
    pub page: bool,
    /// Keep the packets, for [`Report::pcap`].
    pub capture: bool,
    /// The host whose packets the capture has; `None`: all of them.
    pub capture_host: Option<String>,
}

impl RunOptions {
    /// Returns whether expectations and outcomes are left unjudged, because the run differs from the scenario.
    fn lenient(&self) -> bool {
        self.swarm || !self.sysctls.is_empty() || !self.faults.is_empty()
    }
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The scenario's id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// The profile.
    pub profile: Profile,
    /// The seed.
    pub seed: u64,
    /// The host that our stack plays against a kernel; `None` if all hosts are ours.
    pub role: Option<String>,
    /// The failures; empty if the run passed.
    pub failures: Vec<String>,
    /// Differences from the scenario that are not judged.
    pub differences: Vec<String>,
    /// Virtual time of all phases together, in seconds.
    pub virtual_seconds: f64,
    /// The ladder; empty unless requested.
    pub ladder: String,
    /// The capture, as pcapng; empty unless requested.
    pub pcap: Vec<u8>,
    /// The connections for a page; empty unless requested.
    pub chapters: Vec<Chapter>,
    /// A hash of every packet and its time.
    pub hash: u64,
}

impl Report {
    /// The report of a run that has not begun. `kernel` is the host that a kernel plays.
    pub fn new(scenario: &Scenario, options: &RunOptions, kernel: Option<&str>) -> Report {
        // The two ends of a scenario are C and S.
        let ours = kernel.map(|kernel| if kernel == "C" { "S" } else { "C" });
        let heading = || heading(scenario, options.profile, kernel);
        Report {
            id: scenario.id.clone(),
            title: scenario.title.clone(),
            profile: options.profile,
            seed: options.seed,
            role: ours.map(str::to_owned),
            failures: Vec::new(),
            differences: Vec::new(),
            virtual_seconds: 0.0,
            ladder: if options.ladder { heading() } else { String::new() },
            pcap: Vec::new(),
            chapters: Vec::new(),
            hash: 0,
        }
    }

    /// Adds the results of a phase.
    pub fn add(&mut self, phase: Report) {
        self.failures.extend(phase.failures);
        self.differences.extend(phase.differences);
        self.virtual_seconds += phase.virtual_seconds;
        self.ladder.push_str(&phase.ladder);
        self.pcap.extend(phase.pcap);
        self.chapters.extend(phase.chapters);
        self.hash = self.hash.rotate_left(1) ^ phase.hash;
    }

    /// Returns whether nothing went wrong.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Plays and judges every phase of a scenario.
///
/// Fails if the options do not fit it: a fault names an unknown host, or a setting does not exist.
pub fn run(scenario: &Scenario, options: &RunOptions) -> Result<Report, RunError> {
    let mut report = Report::new(scenario, options, None);
    for phase in &scenario.phases {
        run_phase(scenario, phase, options, &mut report)?;
    }
    Ok(report)
}

fn run_phase(
    scenario: &Scenario,
    phase: &Phase,
    options: &RunOptions,
    report: &mut Report,
) -> Result<(), RunError> {
    let selected = scenario.select(&Case { profile: options.profile, phase: &phase.name, kernel: None });
    let mut network = Network::new(plan(scenario, &selected, options)?);
    let mut failed_checks = Vec::new();
    let finished = network.run(selected.until, |network, index| {
        if let Err(text) = judge::evaluate(network, &selected.expectations[index].expectation) {
            failed_checks.push((index, text));
        }
        None
    });
    let played = Played { scenario, phase, options, selected, failed_checks, finished };
    played.conclude(network, report);
    Ok(())
}

/// A phase that was played and not yet judged.
pub(crate) struct Played<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) phase: &'a Phase,
    pub(crate) options: &'a RunOptions,
    pub(crate) selected: Selected<'a>,
    /// Failed checks of the stacks: the index of the expectation, and the failure.
    pub(crate) failed_checks: Vec<(usize, String)>,
    /// No event was left.
    pub(crate) finished: bool,
}

impl Played<'_> {
    /// Judges the phase, and adds the results to the report.
    pub(crate) fn conclude(self, mut network: Network, report: &mut Report) {
        let Played { scenario, phase, options, selected, failed_checks, finished } = self;
        let network = &mut network;
        let (violations, tolerated) = allowed(&selected);
        let mut unmet = Vec::new();
        if !options.swarm {
            unmet.extend(judge::mismatches(network));
            unmet.extend(judge::expectations(network, &selected.expectations, &failed_checks));
        }
        if !options.lenient() {
            judge::emptiness(network, &selected.expectations);
        } else if !network.hosts.iter().any(Host::is_foreign) {
            settle(network, finished);
        }
        judge::streams(network);
        let place = |text: String| match phase.name.as_str() {
            "" => text,
            name => format!("phase {name}: {text}"),
        };
        let missing =
            violations.iter().filter(|rule| !network.violations.iter().any(|broken| broken.rule == **rule));
        for rule in missing {
            unmet.push(format!("expected the rule `{}` to be broken, and it was not", rule.name()));
        }
        let fails =
            |broken: &&Violation| !violations.contains(&broken.rule) && !tolerated.contains(&broken.rule);
        let broken = network.violations.iter().filter(fails);
        report
            .failures
            .extend(broken.take(10).map(|b| place(format!("{}: {} ({})", b.at, b.text, b.rule.name()))));
        let list = if options.lenient() { &mut report.differences } else { &mut report.failures };
        list.extend(unmet.into_iter().map(place));
        report.virtual_seconds += network.now.as_secs_f64();
        report.hash = report.hash.rotate_left(1) ^ network.hash;
        if options.ladder {
            report.ladder.push_str(&phase_ladder(network, scenario, phase));
        }
        if options.page {
            report.chapters.extend(chapters(network, phase, report.chapters.len()));
        }
        if options.capture {
            let (title, host) = (format!("{} {}", scenario.id, phase.name), options.capture_host.as_deref());
            report.pcap.extend(capture::section_of(&network.timeline, &title, host));
        }
    }
}

/// The first line of a report.
fn heading(scenario: &Scenario, profile: Profile, kernel: Option<&str>) -> String {
    let kernel = kernel.map_or(String::new(), |host| format!(", {host} is the kernel"));
    format!("{}  {}  [{profile}{kernel}]\n", scenario.id, scenario.title)
}

/// The connections of one phase for a page, after those of earlier phases.
fn chapters(network: &Network, phase: &Phase, before: usize) -> Vec<Chapter> {
    let timeline = &network.timeline;
    let mut chapters = Chapter::all(timeline, CONNECTION_LIMIT.saturating_sub(before));
    for (at, chapter) in chapters.iter_mut().enumerate() {
        chapter.set("n", (before + at + 1).into());
        chapter.set("name", phase.name.as_str().into());
    }
    if let Some(first) = chapters.first_mut() {
        first.text(timeline);
    }
    chapters
}

/// The ladder of one phase.
fn phase_ladder(network: &Network, scenario: &Scenario, phase: &Phase) -> String {
    let mut text = String::new();
    if !phase.name.is_empty() {
        text.push_str(&format!("\nphase {}: {}\n", phase.name, phase.title));
    }
    if scenario.ladder_rows > 0 {
        text.push('\n');
        text.push_str(&ladder::draw(&network.timeline, scenario.ladder_rows));
    }
    text
}

/// Returns the invariants that the scenario says are violated, and those that it tolerates.
fn allowed(selected: &Selected<'_>) -> (Vec<Invariant>, Vec<Invariant>) {
    let (mut violated, mut tolerated) = (Vec::new(), Vec::new());
    for stated in &selected.expectations {
        match &stated.expectation {
            Expectation::Violates(rules) => violated.extend(rules),
            Expectation::Tolerates(rules) => tolerated.extend(rules),
            _ => {}
        }
    }
    (violated, tolerated)
}

/// Checks a run that differs from its scenario: nothing may be stuck, and nothing may be left once the applications
/// have closed their sockets.
fn settle(network: &mut Network, finished: bool) {
    if finished {
        for text in judge::stalled(network) {
            network.violations.push(Violation { at: network.now, rule: Invariant::Empty, text });
        }
    }
    for host in 0..network.hosts.len() {
        network.with_context(host, |host_apps, context| host_apps.close_all(context));
        network.run_host(host);
    }
    network.run(None, |_, _| None);
    for host in 0..network.hosts.len() {
        let now = network.hosts[host].clock_at(network.now);
        let Some(stack) = &network.hosts[host].stack else { continue };
        // Without `tcp_fin_timeout` an orphan in FIN-WAIT-2 waits forever if its peer is gone, as in RFC 9293.
        let waits = stack.config().tcp_fin_timeout.is_zero();
        let waiting =
            stack.sockets(now).iter().filter(|s| waits && s.state == State::FinWait2).count() as u64;
        let left = judge::left(stack.usage(), |field| match field {
            "connections" | "orphans" => waiting,
            "timers" | "buffered" | "held" if waiting > 0 => u64::MAX,
            // A cache, whose entries expire by themselves.
            "path_mtus" => u64::MAX,
            _ => 0,
        });
        if let Some(left) = left {
            let text = format!("{} still has {left}", network.names[host]);
            network.violations.push(Violation { at: network.now, rule: Invariant::Empty, text });
        }
    }
}

pub(crate) fn plan(
    scenario: &Scenario,
    selected: &Selected<'_>,
    options: &RunOptions,
) -> Result<Plan, RunError> {
    // A loss probe comes before the timeouts that most scenarios are about. The others turn it on.
    let mut config = Config { tcp_early_retrans: 0, ..Config::profile(options.profile) };
    for sysctl in &selected.sysctls {
        if sysctl.host.is_none() {
            config.apply(&sysctl.text)?;
        }
    }
    let mut hosts = Vec::new();
    for (index, spec) in specs(selected).into_iter().enumerate() {
        let mut config = config.clone();
        for sysctl in selected.sysctls.iter().filter(|s| s.host.as_deref() == Some(spec.name.as_str())) {
            config.apply(&sysctl.text)?;
        }
        for sysctl in &options.sysctls {
            config.apply(sysctl)?;
        }
        let number = index as u16 + 1;
        let v4 = IpAddr::V4(spec.v4.unwrap_or(Ipv4Addr::new(10, 0, 0, number as u8)));
        let v6 = IpAddr::V6(spec.v6.unwrap_or(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number)));
        hosts.push(Host::new(&spec, v4, v6, config));
    }
    let names: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
    for fault in &options.faults {
        if let Some(unknown) = fault.hosts().into_iter().find(|host| !names.iter().any(|name| name == host)) {
            return Err(RunError::UnknownHost {
                fault: fault.to_string(),
                scenario: scenario.id.clone(),
                unknown: unknown.to_string(),
                hosts: names,
            });
        }
    }
    let mut paths = Paths::new(&names, options.seed);
    for path in &selected.paths {
        paths.plan(&path.direction, &path.changes);
    }
    let directory = Directory {
        hosts: hosts.iter().map(|host| (host.name.clone(), host.v4, host.v6)).collect(),
        ipv6: scenario.ipv6,
    };
    let swarm = options.swarm.then(|| Swarm::new(options.seed));
    let checks = selected.expectations.iter().enumerate();
    let checks = checks.filter_map(|(index, stated)| Some((stated.expectation.evaluated_at()?, index)));
    Ok(Plan {
        nats: nats(selected, &hosts),
        directory,
        paths,
        faults: selected
            .faults
            .iter()
            .map(|fault| (*fault).clone())
            .chain(options.faults.iter().cloned())
            .chain(swarm.iter().flat_map(|swarm| swarm.changes().iter().cloned()))
            .collect(),
        apps: if options.swarm {
            selected.apps.iter().map(App::smaller).collect()
        } else {
            selected.apps.clone()
        },
        checks: checks
            .filter(|(at, _)| selected.until.is_none_or(|until| *at <= until))
            .collect::<Vec<(Instant, usize)>>(),
        seed: options.seed,
        swarm,
        lenient: options.lenient(),
        tolerance: Tolerance::NONE,
        record: !options.swarm || options.ladder || options.capture || options.page,
        info: options.page,
        capture: options.capture,
        hosts,
    })
}

/// C and S, modified by the scenario's declarations, and the other hosts that it declares.
fn specs(selected: &Selected<'_>) -> Vec<HostSpec> {
    let mut specs = vec![HostSpec::new("C"), HostSpec::new("S")];
    for spec in &selected.hosts {
        match specs.iter_mut().find(|known| known.name == spec.name) {
            Some(known) => *known = (*spec).clone(),
            None => specs.push((*spec).clone()),
        }
    }
    specs
}

fn nats(selected: &Selected<'_>, hosts: &[Host]) -> Nats {
    let find = |name: &String| hosts.iter().position(|host| host.name == *name);
    let all = selected.nats.iter().map(|spec| Nat {
        address: IpAddr::V4(spec.address),
        inside: spec.inside.iter().filter_map(find).map(|host| (host, hosts[host].v4)).collect(),
        expiry: spec.expiry,
        forwards: spec
            .forwards
            .iter()
            .filter_map(|(port, host, inner)| Some((*port, (hosts[find(host)?].v4, *inner).into())))
            .collect(),
        mappings: Vec::new(),
        next_port: FIRST_PORT,
    });
    Nats { all: all.collect() }
}

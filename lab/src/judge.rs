//! Judges a run against its expectations.

mod transfer;

use std::net::SocketAddr;

use steadfast_core::counters::{DropReason, ReplyReason};
use steadfast_core::info::Usage;
use steadfast_core::trace::State;
use steadfast_core::{Duration, Instant, SocketId};
use steadfast_timeline::{Fate, History, Packet};

use crate::app::Violation;
use crate::fault::{Count, Pattern};
use crate::foreign::ForeignEntry;
use crate::network::Network;
use crate::network::host::Host;
use crate::network::send::observed;
use crate::scenario::Stated;
use crate::scenario::expect::{Expectation, Invariant, IssProperty, Wanted, Which, Who, info_value};
use crate::text::{Bounds, Times};

/// Judges an expectation about the stacks at a given time. Called at that time.
pub(crate) fn evaluate(network: &Network, expectation: &Expectation) -> Result<(), String> {
    match expectation {
        Expectation::StateAt { who, state, at } => state_at(network, who, *state, *at),
        Expectation::Usage { host, fields, .. } => usage(network, host, fields),
        Expectation::Queue { host, port, half_open, accept, .. } => {
            queue(network, host, *port, *half_open, *accept)
        }
        Expectation::Info { who, fields, .. } => info(network, who, fields),
        Expectation::Listed { host, state, count, older, .. } => {
            listed(network, host, *state, *count, *older)
        }
        Expectation::Diagnosis { host, text, .. } => diagnosis(network, host, text),
        _ => Ok(()),
    }
}

/// Judges all other expectations at the end, and returns the failures with their lines. `failed_checks` holds the
/// failures of
/// `check`.
pub(crate) fn expectations(
    network: &Network,
    all: &[&Stated],
    failed_checks: &[(usize, String)],
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, stated) in all.iter().enumerate() {
        let result = match &stated.expectation {
            Expectation::Wire { pattern, wanted } => wire(network, pattern, wanted),
            Expectation::Order(patterns) => order(network, patterns),
            Expectation::Exchange(patterns) => exchange(network, patterns),
            Expectation::States { who, states } => states_were(network, who, states),
            Expectation::StateAt { who, state, at } => state_at(network, who, *state, *at),
            Expectation::Usage { host, fields, at: None } => usage(network, host, fields),
            Expectation::Counter { host, name, value } => counter(network, host, name, *value),
            Expectation::Iss { host, property } => iss(network, host, *property),
            Expectation::Goodput { direction, wanted, window } => {
                transfer::goodput(network, direction, wanted, *window)
            }
            Expectation::Completion { direction, part, wanted } => {
                transfer::completion(network, direction, *part, wanted)
            }
            Expectation::Share { direction, wanted, window } => {
                transfer::share(network, direction, wanted, *window)
            }
            Expectation::PathQueue { direction, part, unit, wanted } => {
                transfer::path_queue(network, direction, *part, *unit, wanted)
            }
            _ => failed_checks
                .iter()
                .find(|(checked, _)| *checked == index)
                .map_or(Ok(()), |(_, text)| Err(text.clone())),
        };
        if let Err(text) = result {
            wrong.push(format!("line {}: `{}`: {text}", stated.line, stated.text));
        }
    }
    for (host, name) in
        network.names.iter().enumerate().filter(|(host, _)| !network.hosts[*host].is_foreign())
    {
        reasons(network, host, name, all, &mut wrong);
    }
    wrong
}

/// Returns the results that differ from the programs' scripts, and the steps that still wait.
pub(crate) fn mismatches(network: &Network) -> Vec<String> {
    let mut all = Vec::new();
    for host in &network.hosts {
        for surprise in host.earlier_mismatches.iter().chain(&host.host_apps.mismatches) {
            all.push(format!("line {}: {}: {}", surprise.line, host.name, surprise.text));
        }
        for step in host.host_apps.programs.iter().filter_map(|program| program.stuck()) {
            all.push(format!("line {}: {}: `{}` still waits at the end", step.line, host.name, step.text));
        }
    }
    all
}

/// Checks that nothing is left at the end, except what the scripts hold open and what `holds` names.
pub(crate) fn emptiness(network: &mut Network, all: &[&Stated]) {
    for host in 0..network.hosts.len() {
        if network.hosts[host].is_foreign() {
            foreign_emptiness(network, host, all);
            continue;
        }
        let Some(stack) = &network.hosts[host].stack else { continue };
        let io = &network.hosts[host].host_apps.io;
        let (listeners, udp) = (io.listeners() as u64, io.udp_sockets() as u64);
        let named = |field: &str| {
            all.iter().find_map(|stated| match &stated.expectation {
                Expectation::Holds { host: name, fields } if *name == network.names[host] => {
                    fields.iter().find(|(name, _)| name == field).map(|(_, bounds)| *bounds)
                }
                _ => None,
            })
        };
        let held = |field: &str| {
            named(field).unwrap_or(match field {
                "sockets" => Bounds::exactly(listeners + udp),
                "listeners" => Bounds::exactly(listeners),
                "udp_sockets" => Bounds::exactly(udp),
                // Bytes take memory.
                "held" if named("buffered").is_some() => Bounds::ANY,
                "fragment_bytes" if named("fragments").is_some() => Bounds::ANY,
                // A cache, whose entries expire by themselves.
                "path_mtus" => Bounds::ANY,
                _ => Bounds::exactly(0),
            })
        };
        let usage = stack.usage();
        let wrong: Vec<String> = usage
            .iter()
            .filter(|(field, value)| !held(field).contains(*value))
            .map(|(field, value)| format!("{field} {value}"))
            .collect();
        if !wrong.is_empty() {
            let text = format!("{} ends with {}", network.names[host], wrong.join(", "));
            network.violations.push(Violation { at: network.now, rule: Invariant::Empty, text });
        }
    }
}

/// Checks that no connection of a foreign TCP is left that `holds` does not name. Its TIME-WAIT is exempt.
fn foreign_emptiness(network: &mut Network, host: usize, all: &[&Stated]) {
    let name = &network.names[host];
    let named = all
        .iter()
        .any(|stated| matches!(&stated.expectation, Expectation::Holds { host, .. } if host == name));
    let idle = |state: State| matches!(state, State::Listen | State::TimeWait);
    let left: Vec<_> = network.hosts[host].entries.iter().filter(|entry| !idle(entry.state)).collect();
    if let (Some(entry), false) = (left.first(), named) {
        let text = format!("{name} ends with {} connections, one in {}", left.len(), entry.state);
        network.violations.push(Violation { at: network.now, rule: Invariant::Empty, text });
    }
}

/// Returns the fields of a usage that exceed their limits.
pub(crate) fn left(usage: Usage, most: impl Fn(&str) -> u64) -> Option<String> {
    let over: Vec<String> = usage
        .iter()
        .filter(|(field, value)| *value > most(field))
        .map(|(field, value)| format!("{field} {value}"))
        .collect();
    (!over.is_empty()).then(|| over.join(", "))
}

/// Returns connections that have data to send while no event is left that could send it.
pub(crate) fn stalled(network: &Network) -> Vec<String> {
    let mut all = Vec::new();
    for host in &network.hosts {
        let Some(stack) = &host.stack else { continue };
        for entry in stack.sockets(host.clock_at(network.now)) {
            if entry.state != State::Listen && entry.send_q > 0 {
                let ends = format!("{} to {}", entry.local, entry.remote);
                all.push(format!("{}: {} bytes from {ends} will never be sent", host.name, entry.send_q));
            }
        }
    }
    all
}

/// Reports streams that lost data without an error.
pub(crate) fn streams(network: &mut Network) {
    for text in network.streams.silent_losses() {
        network.violations.push(Violation { at: network.now, rule: Invariant::Stream, text });
    }
}

fn host_of(network: &Network, name: &str) -> Option<usize> {
    network.names.iter().position(|host| host == name)
}

/// Returns the packets that match a pattern, its count included.
fn fitting<'a>(network: &'a Network, pattern: &'a Pattern) -> Vec<&'a Packet> {
    let fits = network.timeline.packets().filter(|packet| pattern.fits(&observed(packet, &network.names)));
    match pattern.count {
        Count::Nth(first, last) => fits
            .zip(1..)
            .filter(|(_, number)| (first..=last).contains(number))
            .map(|(segment, _)| segment)
            .collect(),
        Count::Every | Count::Chance(_) => fits.collect(),
    }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if all.is_empty() { "never".to_owned() } else { all.join(" ") }
}

fn wire(network: &Network, pattern: &Pattern, wanted: &Wanted) -> Result<(), String> {
    let found = fitting(network, pattern);
    let sent: Vec<Instant> = found.iter().map(|segment| segment.at).collect();
    let compare = |what: &str, actual: Vec<Instant>, wanted: &[Times]| {
        let same = actual.len() == wanted.len()
            && actual.iter().zip(wanted).all(|(at, wanted)| wanted.contains(*at, network.tolerance));
        if same { Ok(()) } else { Err(format!("{what} {}, expected {}", list(&actual), list(wanted))) }
    };
    match wanted {
        Wanted::At(times) => compare("sent at", sent, times),
        Wanted::Arrives(times) => {
            let arrival = |fate: &Fate| match fate {
                Fate::Arrived { at, .. } => Some(*at),
                Fate::Lost(_) => None,
            };
            let mut arrived: Vec<Instant> =
                found.iter().flat_map(|segment| segment.fates.iter().filter_map(arrival)).collect();
            arrived.sort_unstable();
            compare("arrived at", arrived, times)
        }
        Wanted::Gaps(times) => {
            let gaps = sent.windows(2).map(|pair| Instant::ZERO + (pair[1] - pair[0])).collect();
            compare("gaps of", gaps, times)
        }
        Wanted::Count(bounds) => {
            let count = found.len() as u64;
            let rest = match network.timeline.unrecorded {
                0 => String::new(),
                n => format!(" ({n} packets were not recorded)"),
            };
            if bounds.contains(count) {
                Ok(())
            } else {
                Err(format!("{count} of them, expected {bounds}{rest}"))
            }
        }
    }
}

fn order(network: &Network, patterns: &[Pattern]) -> Result<(), String> {
    let mut wanted = patterns.iter().enumerate().peekable();
    for segment in network.timeline.packets() {
        let observed = observed(segment, &network.names);
        if wanted.peek().is_some_and(|(_, pattern)| pattern.fits(&observed)) {
            wanted.next();
        }
    }
    match wanted.next() {
        None => Ok(()),
        Some((index, _)) => Err(format!("number {} never came", index + 1)),
    }
}

fn exchange(network: &Network, patterns: &[Pattern]) -> Result<(), String> {
    let mut segments = network.timeline.packets().filter(|segment| segment.tcp.is_some() && !segment.forged);
    for (index, pattern) in patterns.iter().enumerate() {
        match segments.next() {
            None => return Err(format!("number {} never came", index + 1)),
            Some(segment) if pattern.fits(&observed(segment, &network.names)) => {}
            Some(segment) => return Err(format!("number {} at {} is another one", index + 1, segment.at)),
        }
    }
    match segments.next() {
        None => Ok(()),
        Some(segment) => Err(format!("and then one more at {}", segment.at)),
    }
}

/// Returns the history of a connection.
fn history<'a>(network: &'a Network, who: &Who) -> Option<&'a History> {
    let host = host_of(network, &who.host)?;
    let histories = &network.timeline.histories[host];
    match &who.connection {
        Which::Nth(n) => histories.get(n - 1),
        Which::Named(name) => {
            let ends = named(network, host, name)?;
            histories.iter().find(|h| h.ends == ends)
        }
    }
}

fn named(network: &Network, host: usize, name: &str) -> Option<(SocketAddr, SocketAddr)> {
    network.hosts[host].host_apps.io.known.get(name).copied()
}

fn states_were(network: &Network, who: &Who, wanted: &[State]) -> Result<(), String> {
    let history = history(network, who).ok_or("there is no such connection")?;
    let mut actual: Vec<State> = history.states.iter().map(|(_, state)| *state).collect();
    actual.dedup();
    // The run does not wait for the end of a foreign TIME-WAIT: its length cannot be set.
    if actual.last() == Some(&State::TimeWait)
        && host_of(network, &who.host).is_some_and(|h| network.hosts[h].is_foreign())
    {
        actual.push(State::Closed);
    }
    // A kernel's clock tick decides whether it acknowledges a FIN before it sends its own.
    if network.hosts.iter().any(Host::is_foreign) && !wanted.contains(&State::FinWait2) {
        actual.retain(|state| *state != State::FinWait2);
    }
    if actual == wanted { Ok(()) } else { Err(format!("it was {}", list(actual))) }
}

fn state_at(network: &Network, who: &Who, wanted: State, at: Instant) -> Result<(), String> {
    let tolerance = network.tolerance;
    let Some(history) = history(network, who) else {
        return if wanted == State::Closed { Ok(()) } else { Err("there is no such connection".to_owned()) };
    };
    if history.states_between(tolerance.earliest(at), tolerance.latest(at)).any(|state| state == wanted) {
        return Ok(());
    }
    Err(format!("it was {}", history.state_at(at)))
}

fn queue(
    network: &Network,
    host: &str,
    port: Option<u16>,
    half_open: Bounds,
    accept: Bounds,
) -> Result<(), String> {
    let host = host_of(network, host).ok_or("there is no such host")?;
    let fits = |local: SocketAddr| port.is_none_or(|port| port == local.port());
    let actual = if network.hosts[host].is_foreign() {
        let entries = &network.hosts[host].entries;
        let listener = entries.iter().find(|s| s.state == State::Listen && fits(s.local));
        let listener = listener.ok_or("there is no such listener")?;
        let half_open =
            |s: &&ForeignEntry| s.state == State::SynReceived && s.local.port() == listener.local.port();
        (entries.iter().filter(half_open).count() as u64, listener.recv_q)
    } else {
        let stack = network.hosts[host].stack.as_ref().ok_or("the host is down")?;
        let sockets = stack.sockets(network.hosts[host].clock_at(network.now));
        let listener = sockets.iter().find(|s| s.state == State::Listen && fits(s.local));
        let listener = listener.ok_or("there is no such listener")?;
        (u64::from(listener.half_open), listener.recv_q)
    };
    if half_open.contains(actual.0) && accept.contains(actual.1) {
        Ok(())
    } else {
        Err(format!("half-open {}, accept {}", actual.0, actual.1))
    }
}

fn usage(network: &Network, host: &str, fields: &[(String, Bounds)]) -> Result<(), String> {
    let host = host_of(network, host).ok_or("there is no such host")?;
    let foreign = network.hosts[host].is_foreign();
    let usage = if foreign {
        foreign_usage(&network.hosts[host].entries)
    } else {
        network.hosts[host].stack.as_ref().ok_or("the host is down")?.usage()
    };
    for (name, bounds) in fields {
        if foreign && !FOREIGN_USAGE.contains(&name.as_str()) {
            continue;
        }
        let value = usage.iter().find(|(field, _)| field == name).map_or(0, |(_, value)| value);
        if !bounds.contains(value) {
            return Err(format!("{name} is {value}"));
        }
    }
    Ok(())
}

/// The fields of a usage that a foreign TCP's listing provides.
const FOREIGN_USAGE: [&str; 4] = ["half_open", "opening", "connections", "time_wait"];

fn foreign_usage(entries: &[ForeignEntry]) -> Usage {
    let count = |fits: &dyn Fn(State) -> bool| entries.iter().filter(|entry| fits(entry.state)).count();
    let mut usage = Usage::default();
    usage.half_open = count(&|state| state == State::SynReceived);
    usage.opening = count(&|state| state == State::SynSent);
    usage.time_wait = count(&|state| state == State::TimeWait);
    usage.connections = count(&|state| {
        !matches!(state, State::Listen | State::SynReceived | State::SynSent | State::TimeWait)
    });
    usage
}

/// Returns the handle of a connection while the application holds one.
fn socket(network: &Network, host: usize, who: &Who) -> Option<SocketId> {
    if let Which::Named(name) = &who.connection
        && let Some(id) = network.hosts[host].host_apps.io.names.get(name)
    {
        return Some(*id);
    }
    let history = history(network, who)?;
    let sockets = network.hosts[host].stack.as_ref()?.sockets(network.hosts[host].clock_at(network.now));
    sockets.into_iter().find(|s| (s.local, s.remote) == history.ends)?.socket
}

fn info(network: &Network, who: &Who, fields: &[(String, String)]) -> Result<(), String> {
    let host = host_of(network, &who.host).ok_or("there is no such host")?;
    if network.hosts[host].is_foreign() {
        return Ok(());
    }
    let stack = network.hosts[host].stack.as_ref().ok_or("the host is down")?;
    let id = socket(network, host, who).ok_or("no application holds such a connection")?;
    let info =
        stack.info(network.hosts[host].clock_at(network.now), id).map_err(|error| error.to_string())?;
    for (name, wanted) in fields {
        let value = info_value(&info, name).ok_or("there is no such field")?;
        if value.fits(wanted) != Some(true) {
            return Err(format!("{name} is {value:?}"));
        }
    }
    Ok(())
}

fn listed(network: &Network, host: &str, state: State, count: Bounds, older: Duration) -> Result<(), String> {
    let host = host_of(network, host).ok_or("there is no such host")?;
    if network.hosts[host].is_foreign() {
        return Ok(());
    }
    let stack = network.hosts[host].stack.as_ref().ok_or("the host is down")?;
    let sockets = stack.sockets(network.hosts[host].clock_at(network.now));
    let found: Vec<_> = sockets.iter().filter(|s| s.state == state).collect();
    let fitting = found.iter().filter(|s| s.state_age >= older).count() as u64;
    if count.contains(fitting) {
        return Ok(());
    }
    Err(format!("{fitting} of them; ages {:?}", found.iter().map(|s| s.state_age).collect::<Vec<_>>()))
}

fn diagnosis(network: &Network, host: &str, text: &str) -> Result<(), String> {
    let host = host_of(network, host).ok_or("there is no such host")?;
    if network.hosts[host].is_foreign() {
        return Ok(());
    }
    let stack = network.hosts[host].stack.as_ref().ok_or("the host is down")?;
    let now = network.hosts[host].clock_at(network.now);
    let all = stack.diagnose(now, Duration::from_secs(60));
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    if all.iter().any(|diagnosis| diagnosis.contains(text)) {
        return Ok(());
    }
    Err(format!("there is {}", list(&all)))
}

fn counter(network: &Network, host: &str, name: &str, wanted: Bounds) -> Result<(), String> {
    let host = host_of(network, host).ok_or("there is no such host")?;
    let value = network.hosts[host].counter(name);
    if network.hosts[host].is_foreign() || wanted.contains(value) {
        Ok(())
    } else {
        Err(format!("it is {value}"))
    }
}

/// Checks drops and replies: every one that happens must be named, or `any` be allowed. Every one named must happen.
fn reasons(network: &Network, host: usize, name: &str, all: &[&Stated], wrong: &mut Vec<String>) {
    let mut drops: Vec<(Option<DropReason>, Bounds, usize)> = Vec::new();
    let mut replies: Vec<(Option<ReplyReason>, Bounds, usize)> = Vec::new();
    for stated in all {
        match &stated.expectation {
            Expectation::Drops { host, reasons } if host == name => {
                drops.extend(reasons.iter().map(|(reason, bounds)| (*reason, *bounds, stated.line)));
            }
            Expectation::Replies { host, reasons } if host == name => {
                replies.extend(reasons.iter().map(|(reason, bounds)| (*reason, *bounds, stated.line)));
            }
            _ => {}
        }
    }
    let sum = |count: &dyn Fn(&steadfast_core::counters::Counters) -> u64| -> u64 {
        network.hosts[host].each_counters().map(count).sum()
    };
    let any = drops.iter().any(|(reason, ..)| reason.is_none());
    for reason in DropReason::ALL.iter().copied() {
        let named = drops.iter().find(|(r, ..)| *r == Some(reason)).map(|(_, bounds, line)| (*bounds, *line));
        if named.is_some() || !any {
            one_reason(name, "drop", reason.name(), sum(&|c| c.dropped(reason)), named, wrong);
        }
    }
    let any = replies.iter().any(|(reason, ..)| reason.is_none());
    for reason in ReplyReason::ALL.iter().copied() {
        let named =
            replies.iter().find(|(r, ..)| *r == Some(reason)).map(|(_, bounds, line)| (*bounds, *line));
        let count = sum(&|c| c.replied(reason));
        if named.is_some() || !any && reason != ReplyReason::SynAck {
            one_reason(name, "reply", reason.name(), count, named, wrong);
        }
    }
}

fn one_reason(
    host: &str,
    what: &str,
    reason: &str,
    count: u64,
    named: Option<(Bounds, usize)>,
    wrong: &mut Vec<String>,
) {
    match named {
        None if count > 0 => {
            wrong.push(format!("{host}: {what} `{reason}` {count}, which the scenario does not name"))
        }
        Some((bounds, line)) if !bounds.contains(count) => {
            wrong.push(format!("line {line}: {host}: {what} `{reason}` {count}, expected {bounds}"));
        }
        _ => {}
    }
}

fn iss(network: &Network, name: &str, property: IssProperty) -> Result<(), String> {
    let host = host_of(network, name).ok_or("there is no such host")?;
    let chosen: Vec<_> = network.iss.iter().filter(|choice| choice.host == host).collect();
    let pairs = || {
        chosen.iter().enumerate().filter_map(|(index, choice)| {
            let before = chosen[..index].iter().rev().find(|earlier| earlier.flow == choice.flow)?;
            Some((*before, *choice))
        })
    };
    match property {
        IssProperty::Ascending => {
            if pairs().next().is_none() {
                return Err("no tuple was used twice".to_owned());
            }
            for (_, choice) in pairs() {
                let ahead = choice.iss.wrapping_sub(choice.before.unwrap_or(0)) as i32;
                if ahead < 0 {
                    return Err(format!(
                        "at {} it is {} below what was used before",
                        choice.at,
                        -i64::from(ahead)
                    ));
                }
            }
            Ok(())
        }
        IssProperty::Rate(rate) => {
            if pairs().next().is_none() {
                return Err("no tuple was used twice".to_owned());
            }
            for (before, choice) in pairs() {
                let wanted = (choice.at - before.at).as_nanos() * u128::from(rate) / 1_000_000_000;
                let grown = choice.iss.wrapping_sub(before.iss);
                let off = (grown.wrapping_sub(wanted as u32) as i32).unsigned_abs();
                if u128::from(off) > wanted / 100 + 1 {
                    return Err(format!(
                        "from {} to {} it grew by {grown}, expected {wanted}",
                        before.at, choice.at
                    ));
                }
            }
            Ok(())
        }
        IssProperty::Unrelated => {
            let mut seen = std::collections::BTreeSet::new();
            let first: Vec<u32> =
                chosen.iter().filter(|choice| seen.insert(choice.flow)).map(|c| c.iss).collect();
            unrelated(&first)
        }
    }
}

/// Checks that numbers are unrelated. In their differences, each bit is set about half of the time, and upper halves
/// collide no more often than chance allows.
fn unrelated(numbers: &[u32]) -> Result<(), String> {
    const LEAST: usize = 200;
    if numbers.len() < LEAST {
        return Err(format!("{} tuples are too few to tell, {LEAST} are needed", numbers.len()));
    }
    let differences: Vec<u32> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    for bit in 0..32 {
        let set = differences.iter().filter(|d| *d >> bit & 1 == 1).count() as f64 / differences.len() as f64;
        if !(0.35..=0.65).contains(&set) {
            return Err(format!("bit {bit} of the differences is set in {:.0} %", set * 100.0));
        }
    }
    let upper: std::collections::BTreeSet<u32> = differences.iter().map(|d| d >> 16).collect();
    if upper.len() * 10 < differences.len() * 9 {
        return Err(format!(
            "only {} different upper halves of {} differences",
            upper.len(),
            differences.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn numbers_of_a_counter_are_related_and_random_ones_are_not_h12() {
        let mut rng = Rng::new(3);
        let random: Vec<u32> = (0..500).map(|_| rng.next() as u32).collect();
        assert_eq!(unrelated(&random), Ok(()));
        let counter: Vec<u32> = (0..500).map(|n| n * 64_000).collect();
        assert!(unrelated(&counter).is_err());
        let noisy: Vec<u32> = random.iter().zip(0..).map(|(r, n)| (n * 64_000) + r % 64).collect();
        assert!(unrelated(&noisy).is_err());
        assert!(unrelated(&random[..100]).unwrap_err().contains("too few"));
    }

    #[test]
    fn what_may_be_left_is_not_complained_about() {
        let mut usage = Usage::default();
        (usage.connections, usage.timers) = (1, 2);
        assert_eq!(left(usage, |_| 0), Some("connections 1, timers 2".to_owned()));
        assert_eq!(left(usage, |field| if field == "timers" { 2 } else { 1 }), None);
    }
}

//! The hosts, paths and NATs of a scenario.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use steadfast_core::Duration;

use crate::fault::pattern::is_name;
use crate::fault::{Direction, End};
use crate::path::PathChange;
use crate::path::change::changes;
use crate::text::{Understood, Words};

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSpec {
    /// Its name.
    pub name: String,
    /// IPv4 address; `None`: derived from its place in the list.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address; `None`: derived from its place in the list.
    pub v6: Option<Ipv6Addr>,
    /// MTU of its interface.
    pub mtu: u16,
    /// The time on its clock at the start.
    pub clock: Duration,
    /// Seed of the host's secret, in place of the run's. Hosts with the same number share a secret.
    pub secret: Option<u64>,
}

impl HostSpec {
    /// The default host. Its clock does not start at zero, so that times in the past exist.
    pub fn new(name: &str) -> HostSpec {
        HostSpec {
            name: name.to_owned(),
            v4: None,
            v6: None,
            mtu: 1500,
            clock: Duration::from_secs(1000),
            secret: None,
        }
    }

    pub(super) fn parse(words: &mut Words<'_>) -> Understood<HostSpec> {
        let mut host =
            HostSpec::new(words.parse("the name of a host", |w| is_name(w).then(|| w.to_owned()))?.as_str());
        while let Some(word) = words.next() {
            match word {
                "mtu" => {
                    host.mtu = words.parse("an MTU from 68", |w| w.parse().ok().filter(|mtu| *mtu >= 68))?
                }
                "clock" => host.clock = words.duration("how long its clock has run")?,
                "secret" => host.secret = Some(words.number("a number")?),
                word => match word.parse() {
                    Ok(IpAddr::V4(v4)) => host.v4 = Some(v4),
                    Ok(IpAddr::V6(v6)) => host.v6 = Some(v6),
                    Err(_) => {
                        return Err(format!("expected an address, mtu, clock or secret, found `{word}`"));
                    }
                },
            }
        }
        Ok(host)
    }
}

/// A path between hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct PathSpec {
    /// The direction.
    pub direction: Direction,
    /// The properties that differ from the default.
    pub changes: Vec<PathChange>,
}

impl PathSpec {
    pub(super) fn parse(words: &mut Words<'_>) -> Understood<PathSpec> {
        let direction = match words.peek() {
            Some(word) if is_name(word) => {
                let (from, to) = (host(words)?, host(words)?);
                Direction { from: End::Host(from), to: End::Host(to), both_ways: true }
            }
            _ => words.parse("two hosts, `C>S` or `*`", Direction::parse)?,
        };
        Ok(PathSpec { direction, changes: changes(words)? })
    }
}

/// A NAT: hosts behind it appear under its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatSpec {
    /// Its name.
    pub name: String,
    /// The outer address.
    pub address: Ipv4Addr,
    /// The hosts behind it.
    pub inside: Vec<String>,
    /// An idle mapping expires after this time.
    pub expiry: Duration,
    /// Forwarded ports: outer port, host, inner port.
    pub forwards: Vec<(u16, String, u16)>,
}

impl NatSpec {
    pub(super) fn parse(words: &mut Words<'_>) -> Understood<NatSpec> {
        let name = host(words)?;
        let address = words.number("the IPv4 address that others see")?;
        words.parse("`for` and the hosts behind it", |w| (w == "for").then_some(()))?;
        let mut inside = vec![host(words)?];
        while let Some(name) =
            words.maybe(|w| (is_name(w) && w != "expiry" && w != "forward").then(|| w.to_owned()))
        {
            inside.push(name);
        }
        let mut nat =
            NatSpec { name, address, inside, expiry: Duration::from_secs(7440), forwards: Vec::new() };
        while let Some(word) = words.next() {
            match word {
                "expiry" => nat.expiry = words.duration("a duration after `expiry`")?,
                "forward" => {
                    let port = words.number("an outer port")?;
                    words.parse("`to`", |w| (w == "to").then_some(()))?;
                    let (host, inner) = words.parse("`HOST:PORT`", |w| {
                        let (host, port) = w.split_once(':')?;
                        Some((host.to_owned(), port.parse().ok()?))
                    })?;
                    nat.forwards.push((port, host, inner));
                }
                other => return Err(format!("expected `expiry` or `forward`, found `{other}`")),
            }
        }
        Ok(nat)
    }
}

fn host(words: &mut Words<'_>) -> Understood<String> {
    words.parse("the name of a host", |w| is_name(w).then(|| w.to_owned()))
}

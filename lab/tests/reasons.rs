//! Every reason for a drop or a reply is covered: by a scenario whose expectations name it, by a drill script that
//! asserts its counter, or, for what is not TCP, by an exchange test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use steadfast_core::counters::{DropReason, ReplyReason};
use steadfast_drill::read_scripts;

fn folder(name: &str) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The counters of the reasons in the lines `drops HOST a 1, b` and `replies HOST c` of scenarios.
fn named_by_scenarios() -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for path in
        folder("lab/scenarios").iter().filter(|path| path.extension().is_some_and(|e| e == "scenario"))
    {
        for line in fs::read_to_string(path).unwrap().lines().map(str::trim) {
            // A condition may precede it.
            let line =
                line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(line, |(_, rest)| rest);
            let (kind, rest) = match line.split_once(' ') {
                Some(("drops", rest)) => ("drop", rest),
                Some(("replies", rest)) => ("reply", rest),
                _ => continue,
            };
            let reasons = rest.split_once(' ').map_or("", |(_host, reasons)| reasons);
            let names = reasons.split(',').filter_map(|one| one.split_whitespace().next());
            named.extend(names.map(|name| format!("{kind}.{name}")));
        }
    }
    named
}

/// The counters in the lines ``nstat | grep -x "drop.a 1"`` of scripts.
fn asserted_by_scripts() -> BTreeSet<String> {
    let mut asserted = BTreeSet::new();
    for path in folder("drill/scripts").iter().filter(|path| path.to_string_lossy().ends_with(".pkt.jinja")) {
        for script in read_scripts(path).unwrap() {
            let counters = script.text.split("`nstat | grep -x \"").skip(1);
            let pairs = counters.filter_map(|rest| rest.split('"').next()?.split_once(' '));
            asserted.extend(pairs.filter(|(_, count)| *count != "0").map(|(name, _)| name.to_owned()));
        }
    }
    asserted
}

/// The reasons of forwarders that exchange tests assert: no host of the lab has one.
fn asserted_of_forwarders() -> impl Iterator<Item = String> {
    const TESTS: [&str; 2] = [
        include_str!("../../core/tests/exchange/forward.rs"),
        include_str!("../../core/tests/exchange/datagrams.rs"),
    ];
    let drops = [DropReason::ForwardLimit, DropReason::ForwardQueueFull, DropReason::Undecided]
        .map(|reason| (format!("{reason:?}"), format!("drop.{reason}")));
    let replies = [ReplyReason::RstForward, ReplyReason::IcmpForward]
        .map(|reason| (format!("{reason:?}"), format!("reply.{reason}")));
    let asserted =
        |(reason, _): &(String, String)| TESTS.iter().any(|text| text.contains(&format!("Reason::{reason}")));
    drops.into_iter().chain(replies).filter(asserted).map(|(_, name)| name)
}

/// The reasons of what is neither TCP nor UDP that exchange tests assert: neither scenarios nor scripts speak it.
fn asserted_of_other_protocols() -> impl Iterator<Item = String> {
    const TESTS: [&str; 2] = [
        include_str!("../../core/tests/exchange/ip.rs"),
        include_str!("../../core/tests/exchange/membership.rs"),
    ];
    let asserted =
        |reason: &DropReason| TESTS.iter().any(|text| text.contains(&format!("DropReason::{reason:?}")));
    [DropReason::UnknownProtocol, DropReason::GroupQuery]
        .into_iter()
        .filter(asserted)
        .map(|reason| format!("drop.{reason}"))
}

/// The reasons of the link layer that exchange tests assert: hosts of the lab carry bare packets.
fn asserted_of_links() -> impl Iterator<Item = String> {
    const TESTS: &str = include_str!("../../core/tests/exchange/link.rs");
    let drops = DropReason::ALL.iter().map(|reason| (format!("{reason:?}"), format!("drop.{reason}")));
    let replies = ReplyReason::ALL.iter().map(|reason| (format!("{reason:?}"), format!("reply.{reason}")));
    let of_links = |name: &str| {
        ["Frame", "Link", "Arp", "Ndp", "Neigh", "Address", "Router"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let asserted = move |(reason, _): &(String, String)| {
        of_links(reason) && TESTS.contains(&format!("Reason::{reason}"))
    };
    drops.chain(replies).filter(asserted).map(|(_, name)| name)
}

#[test]
fn every_reason_is_shown_by_a_scenario_or_a_script() {
    let mut shown: BTreeSet<_> = named_by_scenarios().union(&asserted_by_scripts()).cloned().collect();
    shown.extend(asserted_of_other_protocols());
    shown.extend(asserted_of_forwarders());
    shown.extend(asserted_of_links());
    let drops = DropReason::ALL.iter().map(|reason| format!("drop.{reason}"));
    let replies = ReplyReason::ALL.iter().map(|reason| format!("reply.{reason}"));
    let all: BTreeSet<_> = drops.chain(replies).collect();
    let missing: Vec<_> = all.difference(&shown).collect();
    assert!(missing.is_empty(), "nothing shows {missing:?}");
    let unknown: Vec<_> = asserted_by_scripts()
        .into_iter()
        .filter(|name| name.starts_with("drop.") || name.starts_with("reply."))
        .filter(|name| !all.contains(name))
        .collect();
    assert!(unknown.is_empty(), "there is no reason {unknown:?}");
}

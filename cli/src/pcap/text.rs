//! The report as text. The summary comes first, and has at most 40 lines.

use std::collections::BTreeMap;
use std::fmt::Write;

use steadfast_capture::link;
use steadfast_diagnose::{Confidence, Connection, Finding, Place, Report, Severity};

/// Rows of the table of findings, and of services.
const ROWS: usize = 16;
const SERVICES: usize = 8;
/// Width of the text.
const WIDTH: usize = 118;

pub(super) fn seconds(nanos: i64) -> String {
    match nanos {
        0..1_000_000 => format!("{} µs", nanos / 1000),
        1_000_000..1_000_000_000 => format!("{}.{} ms", nanos / 1_000_000, nanos / 100_000 % 10),
        _ => format!("{}.{:03} s", nanos / 1_000_000_000, nanos / 1_000_000 % 1000),
    }
}

/// The report of a file.
pub(super) fn check(file: &str, report: &Report, explain: bool) -> String {
    let mut out = head(file, report);
    if report.connections_total == 1 && report.connections.len() <= 1 {
        for finding in &report.findings {
            describe(&mut out, finding);
        }
        match report.connections.first() {
            Some(connection) => whole(&mut out, connection),
            None if report.findings.iter().all(|finding| finding.severity == Severity::Info) => {
                out.push_str("1 connection, sound: nothing was lost, and nothing waited.\n")
            }
            None => out.push_str("1 connection, without a finding of its own.\n"),
        }
        return out;
    }
    if report.connections_total == 0 {
        out.push_str("No TCP connection.\n");
    } else {
        totals(&mut out, report);
    }
    if explain {
        report.findings.iter().for_each(|finding| describe(&mut out, finding));
        report.connections.iter().for_each(|connection| whole(&mut out, connection));
        return out;
    }
    table(&mut out, report);
    services(&mut out, report);
    if !report.connections.is_empty() || !report.findings.is_empty() {
        let _ = writeln!(out, "More: --explain; pcap list {file}; pcap show {file} N; pcap explain ID");
    }
    out
}

/// The line about the file, and about the parts that were not read.
fn head(file: &str, report: &Report) -> String {
    let captured = &report.captured;
    let links: Vec<String> = captured
        .links
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(number, _)| link_name(*number))
        .collect();
    let mut out = format!(
        "{file}: {}, {}, {} packets ({} TCP), {}\n",
        captured.format,
        links.join(" and "),
        captured.packets,
        captured.segments,
        seconds(captured.end - captured.start)
    );
    const NAMES: usize = 8;
    for (address, name) in captured.names.iter().take(NAMES) {
        let _ = writeln!(out, "  {address} is {name}");
    }
    if captured.names.len() > NAMES {
        let _ = writeln!(out, "  {} more names: --json", captured.names.len() - NAMES);
    }
    for (number, packets) in &captured.unread {
        let _ = writeln!(out, "  link type {number}, {}: {packets} packets not read", link_name(*number));
    }
    for problem in captured.damage.iter().take(4) {
        let _ = writeln!(out, "  not read: {problem}");
    }
    if captured.damaged > 4 {
        let _ = writeln!(out, "  not read: {} places more", captured.damaged - 4);
    }
    if captured.evicted > 0 {
        let _ = writeln!(
            out,
            "  {} connections were given up: too many to follow (--max-connections)",
            captured.evicted
        );
    }
    out
}

fn link_name(number: u16) -> String {
    link::name(number).map_or_else(|| format!("link type {number}"), str::to_owned)
}

fn totals(out: &mut String, report: &Report) {
    let total = report.connections_total;
    let endings: Vec<String> =
        report.endings.iter().map(|(how, count)| format!("{count} {}", ending(how))).collect();
    let rest = total.saturating_sub(report.sound);
    let _ = writeln!(
        out,
        "{total} connections: {} sound, {rest} with findings that matter; {}",
        report.sound,
        endings.join(", ")
    );
}

fn ending(how: &str) -> &str {
    match how {
        "fin-both" => "closed by both",
        "reset" => "reset",
        "half-closed" => "half closed at the end",
        "not-opened" => "never opened",
        _ => "open at the end",
    }
}

/// Findings of one id, together.
#[derive(Default)]
struct Row<'a> {
    count: u32,
    cost: i64,
    severity: Option<Severity>,
    confidence: Option<Confidence>,
    place: Option<Place>,
    packets: Vec<u32>,
    who: Vec<String>,
    first: Option<&'a Finding>,
}

/// One line for each id, the worst first.
fn table(out: &mut String, report: &Report) {
    let mut rows: BTreeMap<&str, Row<'_>> = BTreeMap::new();
    let of_connections = report
        .connections
        .iter()
        .flat_map(|connection| connection.findings.iter().map(move |finding| (Some(connection), finding)));
    for (connection, finding) in report.findings.iter().map(|finding| (None, finding)).chain(of_connections) {
        let row = rows.entry(finding.id).or_default();
        row.count += if connection.is_some() { 1 } else { 0 };
        row.cost += finding.cost.unwrap_or(0);
        row.severity = row.severity.max(Some(finding.severity));
        row.confidence = row.confidence.max(Some(finding.confidence));
        row.place.get_or_insert(finding.end);
        row.first.get_or_insert(finding);
        if let Some(evidence) = finding.evidence.first()
            && row.packets.len() < 3
        {
            row.packets.push(evidence.packet);
        }
        if let Some(connection) = connection {
            let who = if finding.end == Place::Client {
                connection.client.ip().to_string()
            } else {
                connection.server.to_string()
            };
            if row.who.len() < 3 && !row.who.contains(&who) {
                row.who.push(who);
            }
        }
    }
    for (id, count) in &report.more {
        rows.entry(id).or_default().count += count;
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(_, row)| (std::cmp::Reverse(row.severity), std::cmp::Reverse(row.count)));
    if rows.is_empty() {
        out.push_str("No finding.\n");
        return;
    }
    let _ = writeln!(
        out,
        "\n{:<9}{:<24}{:>6}  {:<9}{:<8} {:<21} {:<20} cost",
        "", "what", "conns", "sure", "where", "who", "first packets"
    );
    for (id, row) in rows.iter().take(ROWS) {
        let packets: Vec<String> = row.packets.iter().map(|packet| format!("#{packet}")).collect();
        let who = match row.who.len() {
            0 => String::new(),
            1 => row.who[0].clone(),
            _ => format!("{}, …", row.who[0]),
        };
        let cost = if row.cost > 0 { seconds(row.cost) } else { String::new() };
        let _ = writeln!(
            out,
            "{:<9}{id:<24}{:>6}  {:<9}{:<8} {who:<21} {:<20} {cost}",
            row.severity.map_or("", Severity::name),
            if row.count > 0 { row.count.to_string() } else { "file".to_owned() },
            row.confidence.map_or("", Confidence::name),
            row.place.map_or("", Place::name),
            packets.join(", "),
        );
    }
    if rows.len() > ROWS {
        let _ = writeln!(out, "{:<9}… {} more", "", rows.len() - ROWS);
    }
    for finding in report.findings.iter().filter(|finding| finding.severity > Severity::Info).take(4) {
        wrap(out, "  ", &finding.text);
    }
}

fn services(out: &mut String, report: &Report) {
    if report.services.len() < 2 && report.connections_total < 20 {
        return;
    }
    let mut all: Vec<_> = report.services.iter().collect();
    all.sort_by_key(|(_, service)| std::cmp::Reverse(service.connections));
    let _ = writeln!(
        out,
        "\n{:<28}{:>8}{:>8}{:>9}{:>11}{:>7}{:>7}{:>10}",
        "service", "conns", "opened", "refused", "no answer", "reset", "leak", "RTT"
    );
    for (end, service) in all.iter().take(SERVICES) {
        let rtt = if service.rtt > 0 {
            format!("{}.{:02} ms", service.rtt / 1000, service.rtt % 1000 / 10)
        } else {
            String::new()
        };
        let _ = writeln!(
            out,
            "{:<28}{:>8}{:>8}{:>9}{:>11}{:>7}{:>7}{rtt:>10}",
            end.to_string(),
            service.connections,
            service.opened,
            service.refused,
            service.unanswered,
            service.reset,
            service.leaks
        );
    }
    if all.len() > SERVICES {
        let _ = writeln!(out, "… {} more services", all.len() - SERVICES);
    }
}

/// A connection with all its findings.
fn whole(out: &mut String, connection: &Connection) {
    let Connection { n, client, server, history, bytes, legs, .. } = connection;
    let rtt = if legs[0] + legs[1] > 0 {
        format!(", RTT {}.{} ms", (legs[0] + legs[1]) / 1000, (legs[0] + legs[1]) / 100 % 10)
    } else {
        String::new()
    };
    let _ = writeln!(
        out,
        "\nconnection {n}  {client} > {server}   {history}   {}, {} B out, {} B in{rtt}   {}",
        seconds(connection.lasted),
        bytes[0],
        bytes[1],
        closing(connection)
    );
    for finding in &connection.findings {
        describe(out, finding);
    }
    if connection.findings.is_empty() {
        out.push_str("  sound\n");
    }
}

/// How it ended, and who closed first.
pub(super) fn closing(connection: &Connection) -> String {
    match connection.first_to_close {
        "nobody" => "nobody closed".to_owned(),
        who => format!("{}, the {who} closed first", ending(connection.ended)),
    }
}

fn describe(out: &mut String, finding: &Finding) {
    let cost = finding
        .cost
        .filter(|cost| *cost > 0)
        .map_or(String::new(), |cost| format!("   cost {}", seconds(cost)));
    let _ = writeln!(
        out,
        "  {}  {}   {}, {}{cost}",
        finding.severity.name(),
        finding.id,
        finding.confidence.name(),
        place(finding.end)
    );
    wrap(out, "    ", &finding.text);
    for because in &finding.because {
        wrap(out, "    ", &format!("Because: {because}"));
    }
    for alternative in &finding.alternatives {
        wrap(
            out,
            "    ",
            &format!("Or {}: to tell, {}.", alternative.id, alternative.to_tell.trim_end_matches('.')),
        );
    }
    if let Some(diagnosis) = finding.diagnosis().filter(|diagnosis| !diagnosis.advice.is_empty()) {
        wrap(out, "    ", &format!("Do: {}.", diagnosis.advice));
    }
    let evidence: Vec<String> =
        finding.evidence.iter().map(|evidence| format!("#{} {}", evidence.packet, evidence.what)).collect();
    if !evidence.is_empty() {
        wrap(out, "    ", &format!("See: {}.", evidence.join(", ")));
    }
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Client => "at the client",
        Place::Server => "at the server",
        Place::Path => "on the path",
        Place::Capture => "in the capture",
        Place::Unknown => "anywhere",
    }
}

/// Adds a paragraph with an indent.
fn wrap(out: &mut String, indent: &str, text: &str) {
    let mut line = indent.to_owned();
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() + 1 > WIDTH && line.len() > indent.len() {
            let _ = writeln!(out, "{line}");
            line = format!("{indent}  ");
        }
        if line.trim_start().is_empty() {
            line.push_str(word);
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    let _ = writeln!(out, "{line}");
}

/// Adds a paragraph.
pub(super) fn paragraph(out: &mut String, text: &str) {
    wrap(out, "", text);
}

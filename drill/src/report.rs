//! Reports of a run: the ladder, a capture, JSON and JUnit.

use bytes::Bytes;
use serde_json::{Value, json};
use steadfast_core::Instant;
use steadfast_core::time::Duration;
use steadfast_timeline::junit::{self, Case, Suite};
use steadfast_timeline::ladder::{arrow, clipped};
use steadfast_timeline::page::{CONNECTION_LIMIT, Chapter, Page};
use steadfast_timeline::{Captured, Host, Keep, Timeline, capture};

use super::ast::Direction;
use super::compare;
use super::family::SourceError;
use super::flow::Flow;
use super::lex::SyntaxError;
use super::parsed::ParsedPacket;
use super::subject::Addresses;
use super::world::{Entry, What};
use super::{IpVersion, Outcome, Verdict};

/// Width of the packet column.
const FIELD: usize = 72;
/// Limit of rows in a ladder; the last ones are kept.
const ROWS: usize = 200;

impl Outcome {
    /// The outcome of a script with a syntax error.
    pub(crate) fn unreadable(error: &SyntaxError, ip_version: IpVersion) -> Outcome {
        Outcome {
            verdict: Verdict::Error,
            at: Some(error.at),
            reason: error.to_string(),
            ..Outcome::empty(ip_version)
        }
    }

    /// The outcome of a file that yields no scripts.
    pub fn no_scripts(error: &SourceError, ip_version: IpVersion) -> Outcome {
        let at = match error {
            SourceError::Template { at, .. } => *at,
            SourceError::Io(_) | SourceError::Rendered { .. } => None,
        };
        let reason = error.to_string();
        Outcome { verdict: Verdict::Error, at, reason, ..Outcome::empty(ip_version) }
    }

    pub(crate) fn empty(ip_version: IpVersion) -> Outcome {
        Outcome {
            verdict: Verdict::Empty,
            ip_version,
            at: None,
            reason: "nothing in the script can fail".to_owned(),
            details: String::new(),
            ladder: String::new(),
            notes: Vec::new(),
            took: Duration::ZERO,
            pcap: Vec::new(),
            chapters: Vec::new(),
        }
    }

    /// One JSON object: `file`, `ip_version` and `result`, and unless it passed, `line` and `reason`.
    pub fn to_json(&self, file: &str) -> Value {
        let mut object = json!({
            "file": file,
            "ip_version": self.ip_version.name(),
            "result": self.verdict.name(),
            "line": self.at.map(|at| at.line),
            "reason": if self.verdict == Verdict::Pass { Value::Null } else { json!(self.reason) },
        });
        if self.verdict == Verdict::Error {
            object["column"] = json!(self.at.map(|at| at.column));
        }
        if !self.notes.is_empty() {
            object["notes"] = json!(self.notes);
        }
        object
    }
}

/// A JUnit document with the outcomes of all files.
pub fn junit(outcomes: &[(String, Outcome)]) -> String {
    let case = |(file, outcome): &(String, Outcome)| {
        let line = outcome.at.map_or(String::new(), |at| format!("line {}: ", at.line));
        Case {
            class: file.clone(),
            name: format!("{file} {}", outcome.ip_version),
            seconds: outcome.took.as_secs_f64(),
            result: match outcome.verdict {
                Verdict::Pass => junit::Verdict::Pass,
                Verdict::Fail => junit::Verdict::Failure,
                Verdict::Error => junit::Verdict::Error,
                Verdict::Skip | Verdict::Empty => junit::Verdict::Skipped,
            },
            message: format!("{line}{}", outcome.reason),
            text: outcome.details.clone(),
        }
    };
    Suite { name: "steadfast drill", cases: outcomes.iter().map(case).collect() }.to_xml()
}

/// Draws the ladder, with the script on the left and the stack on the right.
pub(super) fn ladder(record: &[Entry], flows: &[Flow], start: Instant) -> String {
    let rows: Vec<String> = record.iter().filter_map(|entry| row(entry, flows, start)).collect();
    let mut text = format!("{:>12}  script{:width$}stack\n", "time", "", width = FIELD - 3);
    text.extend(clipped(&rows, 0, ROWS));
    text
}

fn row(entry: &Entry, flows: &[Flow], start: Instant) -> Option<String> {
    let time = (Instant::ZERO + entry.at.saturating_since(start)).to_string();
    Some(match &entry.what {
        What::Packet { inbound, bytes } => {
            let direction = if *inbound { Direction::In } else { Direction::Out };
            let text = ParsedPacket::parse(bytes).map_or("no IP packet".to_owned(), |live| {
                let ends = live.ends();
                let flow = flows.iter().rev().find(|flow| {
                    let (out, back) = ((flow.local, flow.remote), (flow.remote, flow.local));
                    ends.is_some_and(|ends| ends == out || ends == back)
                });
                compare::line(&live, flow.or(flows.last()), direction)
            });
            let text = text[2..].to_owned();
            format!("{time:>12}  |{}|\n", arrow(&text, FIELD, *inbound, true, false))
        }
        What::State { local, remote, from, to } => {
            let ends = if flows.len() > 1 { format!("  {local} {remote}") } else { String::new() };
            format!("{time:>12}  {:FIELD$}   {from} > {to}{ends}\n", "")
        }
        What::Info(_) => return None,
        What::Text(text) => format!("{time:>12}  {:FIELD$}   {text}\n", ""),
    })
}

/// The connections of a script for a page, with the script as their other end.
pub(super) fn chapters(record: &[Entry], start: Instant, addresses: &Addresses) -> Vec<Chapter> {
    const SCRIPT: usize = 0;
    const STACK: usize = 1;
    let host = |name: &str, address| Host { name: name.to_owned(), addresses: vec![address] };
    let hosts = vec![host("script", addresses.remote), host("stack", addresses.local)];
    let mut timeline = Timeline::new(hosts, Keep { events: true, bytes: false, info: true });
    let mut last = Instant::ZERO;
    for entry in record {
        // A nanosecond apart, so that an arrow arrives in its own row.
        let at = last.max(Instant::ZERO + entry.at.saturating_since(start));
        last = at + Duration::from_nanos(1);
        match &entry.what {
            What::Packet { inbound, bytes } => {
                let (from, to) = if *inbound { (SCRIPT, STACK) } else { (STACK, SCRIPT) };
                let bytes = Bytes::copy_from_slice(bytes);
                let sent = timeline.sent(at, from, &bytes);
                timeline.arrived(at, to, &bytes, sent);
            }
            What::State { local, remote, from, to } => {
                timeline.state(at, STACK, (*local, *remote), (*local, *remote), *from, *to);
            }
            What::Info(info) => {
                timeline.info(at, STACK, (info.local, info.remote), (**info).clone());
            }
            What::Text(text) => timeline.call(at, STACK, || text.clone()),
        }
    }
    let mut chapters = Chapter::all(&timeline, CONNECTION_LIMIT);
    if let Some(first) = chapters.first_mut() {
        first.text(&timeline);
    }
    chapters
}

/// The page of all outcomes, each with the title of its script.
pub fn page(outcomes: &[(String, Outcome)]) -> Page {
    let mut chapters: Vec<Chapter> = Vec::new();
    let mut findings = Vec::new();
    for (title, outcome) in outcomes {
        for chapter in &outcome.chapters {
            let mut chapter = chapter.clone();
            chapter.set("n", (chapters.len() + 1).into());
            if outcomes.len() > 1 {
                chapter.set("name", title.as_str().into());
            }
            chapters.push(chapter);
        }
        if matches!(outcome.verdict, Verdict::Fail | Verdict::Error) {
            let line = outcome.at.map_or(String::new(), |at| format!(":{}", at.line));
            findings.push(json!({
                "id": outcome.verdict.name(),
                "severity": "error",
                "confidence": "certain",
                "text": format!("{title}{line}: {}", outcome.reason),
                "evidence": [],
            }));
        }
    }
    let (title, about) = match outcomes {
        [(title, one)] => (title.clone(), format!("{}, {}", one.ip_version, one.verdict.name())),
        many => (format!("{} scripts", many.len()), format!("{} failed", findings.len())),
    };
    Page { title, about, chapters, findings, ..Page::default() }
}

/// Writes the packets as one section of a capture file.
pub(super) fn packets(record: &[Entry], title: &str) -> Vec<u8> {
    let stack = Host { name: "stack".to_owned(), addresses: Vec::new() };
    let mut timeline = Timeline::new(vec![stack], Keep { bytes: true, ..Keep::default() });
    for entry in record {
        if let What::Packet { inbound, bytes } = &entry.what {
            timeline.capture(|| Captured {
                at: entry.at,
                host: 0,
                outbound: !inbound,
                bytes: Bytes::copy_from_slice(bytes),
                event: None,
                note: String::new(),
            });
        }
    }
    capture::section(&timeline, title)
}

//! `pcap html`: connections of a capture as a page.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use steadfast_capture::link;
use steadfast_diagnose::{Connection, Options, Report};
use steadfast_timeline::page::{CONNECTION_LIMIT, Chapter, EVENT_LIMIT, Page};
use steadfast_timeline::view::View;

use super::drawing::{Choice, Drawing};
use super::text::{closing, seconds};
use super::{Reading, check, random_key, read};
use crate::failure::Failure;
use crate::output::say;

/// Packets around each packet of evidence that a page keeps.
const AROUND: u64 = 200;

/// Write connections as a page: one HTML file that needs nothing else.
///
/// The page has the ladder, the state of both ends at any packet, sequence numbers over time, and the findings. It has
/// no payload. Without a number it has the connections with the gravest findings.
#[derive(Args)]
pub(crate) struct Html {
    /// The capture.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Numbers of connections.
    #[arg(value_name = "N")]
    which: Vec<u32>,
    /// Only connections with this diagnosis.
    #[arg(long, value_name = "ID", conflicts_with = "which")]
    finding: Option<String>,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Connections at most.
    #[arg(long, value_name = "N", default_value_t = CONNECTION_LIMIT)]
    connections: usize,
    /// Packets at most: the first, the last, and those around the findings of each connection.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    events: usize,
    /// Replace addresses with addresses of documentation (RFC 5737, RFC 3849).
    #[arg(long)]
    anonymise: bool,
    #[command(flatten)]
    reading: Reading,
}

impl Html {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        self.within("--connections", self.connections, CONNECTION_LIMIT)?;
        // A page has other rows, too.
        self.within("--events", self.events, EVENT_LIMIT - EVENT_LIMIT / 10)?;
        let options = Options { key: random_key(), all: true, ..Options::default() };
        let mut report = check(&self.file, self.reading, options)?;
        let total = report.connections.len();
        let chosen = self.choose(std::mem::take(&mut report.connections))?;
        let left_out = total - chosen.len();
        let chapters = self.chapters(&chosen, &report)?;
        let mut page = Page {
            title: self.file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            about: about(&report),
            chapters,
            left_out,
            findings: report
                .findings
                .iter()
                .map(|one| steadfast_diagnose::finding_json(one, report.captured.start))
                .collect(),
        };
        if self.anonymise {
            page.rename(&names(&chosen));
        }
        let html = page.html().map_err(|error| {
            Failure::usage(format!("{}: {error}; fewer --events or numbers", self.output.display()))
        })?;
        fs::write(&self.output, html).map_err(|error| Failure::system(self.output.display(), error))?;
        say(&format!("{}: {} of {total} connections\n", self.output.display(), chosen.len()))?;
        Ok(ExitCode::SUCCESS)
    }

    fn within(&self, flag: &str, found: usize, limit: usize) -> Result<(), Failure> {
        if (1..=limit).contains(&found) {
            Ok(())
        } else {
            Err(Failure::usage(format!("{flag} {found}: expected 1 to {limit}")))
        }
    }

    fn choose(&self, mut all: Vec<Connection>) -> Result<Vec<Connection>, Failure> {
        let total = all.len();
        if let Some(unknown) = self.which.iter().find(|n| !all.iter().any(|one| one.n == **n)) {
            return Err(Failure::usage(format!(
                "{}: no connection {unknown}; expected a number from 1 to {total}",
                self.file.display()
            )));
        }
        if !self.which.is_empty() {
            all.retain(|one| self.which.contains(&one.n));
        } else if let Some(id) = &self.finding {
            all.retain(|one| one.findings.iter().any(|finding| finding.id == id));
            if all.is_empty() {
                return Err(Failure::usage(format!(
                    "--finding {id}: none of {total} connections of {} has it",
                    self.file.display()
                )));
            }
        }
        if all.len() > self.connections {
            all.sort_by_key(|one| std::cmp::Reverse((one.worst(), one.findings.len())));
            all.truncate(self.connections);
            all.sort_by_key(|one| one.n);
        }
        Ok(all)
    }

    fn chapters(&self, chosen: &[Connection], report: &Report) -> Result<Vec<Chapter>, Failure> {
        let shares = shares(chosen, self.events);
        let mut drawings: Vec<Drawing<'_>> = chosen
            .iter()
            .zip(&shares)
            .map(|(connection, share)| Drawing::for_page(connection, choice(connection, *share), self.events))
            .collect();
        let mut index: HashMap<(SocketAddr, SocketAddr), Vec<usize>> = HashMap::new();
        for (at, connection) in chosen.iter().enumerate() {
            index.entry(ends(connection)).or_default().push(at);
        }
        read(&self.file, self.reading, |record| {
            let Ok(ip) = link::ip(record.link, record.data) else { return };
            let Some((a, b)) = View::new(ip.bytes).and_then(|view| view.ends()) else { return };
            for at in index.get(&(a, b)).or(index.get(&(b, a))).into_iter().flatten() {
                drawings[*at].record(record, false);
            }
        })?;
        let made = drawings.iter_mut().filter_map(|drawing| {
            drawing.finish();
            // A connection whose packets this reader cannot parse has no flow.
            (!drawing.timeline.flows.all.is_empty()).then(|| chapter(drawing, report.captured.start))
        });
        Ok(made.collect())
    }
}

fn ends(connection: &Connection) -> (SocketAddr, SocketAddr) {
    let [a, b] = [connection.client, connection.server].map(|end| SocketAddr::new(end.ip(), end.port));
    (a, b)
}

/// How many packets of each connection a page takes: all of the small ones, and the same number of the others.
fn shares(chosen: &[Connection], events: usize) -> Vec<usize> {
    let sizes: Vec<usize> = chosen.iter().map(|one| (one.packets[0] + one.packets[1]) as usize).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|at| sizes[*at]);
    let mut shares = vec![0; sizes.len()];
    let mut left = events;
    for (done, at) in order.iter().enumerate() {
        shares[*at] = sizes[*at].min(left / (sizes.len() - done));
        left -= shares[*at];
    }
    shares
}

/// The first packets, the last, and those around the evidence of findings.
fn choice(connection: &Connection, share: usize) -> Choice {
    let (size, share) = (u64::from(connection.packets[0] + connection.packets[1]), share as u64);
    if size <= share {
        return Choice::ALL;
    }
    let mut evidence: Vec<u64> = connection
        .findings
        .iter()
        .flat_map(|finding| finding.evidence.iter().map(|evidence| u64::from(evidence.packet)))
        .collect();
    evidence.sort_unstable();
    evidence.dedup();
    let edge = if evidence.is_empty() { share / 2 } else { share / 4 };
    let each = (share / 2).checked_div(evidence.len() as u64).unwrap_or(0).min(2 * AROUND) / 2;
    let around = evidence.iter().map(|number| (number.saturating_sub(each), number + each)).collect();
    Choice { head: edge, tail: size.saturating_sub(edge), around }
}

fn chapter(drawing: &Drawing<'_>, start: i64) -> Chapter {
    let connection = drawing.connection;
    let mut chapter = Chapter::new(&drawing.timeline, 0, connection.n as usize);
    chapter.text(&drawing.timeline);
    let nanos = |micros: u32| u64::from(micros) * 500;
    let (a, b) = ends(connection);
    let findings: Vec<Value> = connection
        .findings
        .iter()
        .map(|finding| steadfast_diagnose::finding_json(finding, connection.start))
        .collect();
    for (key, value) in [
        ("ends", json!([a.to_string(), b.to_string()])),
        ("hosts", json!(["client", "server"])),
        ("knows", json!("packets")),
        // Half of each round trip from the place of the capture.
        ("legs", json!([nanos(connection.legs[1]), nanos(connection.legs[0])])),
        ("start", json!(connection.start - start)),
        ("lasted", json!(connection.lasted)),
        ("bytes", json!(connection.bytes)),
        ("again", json!(connection.retransmitted[0] + connection.retransmitted[1])),
        ("ended", json!(connection.ended)),
        ("history", json!(connection.history)),
        ("closing", json!(closing(connection))),
        ("findings", Value::Array(findings)),
    ] {
        chapter.set(key, value);
    }
    chapter
}

fn about(report: &Report) -> String {
    let captured = &report.captured;
    format!(
        "{}, {} packets, {}; {} connections, {} sound",
        captured.format,
        captured.packets,
        seconds(captured.end - captured.start),
        report.connections_total,
        report.sound
    )
}

/// For each address one of RFC 5737 or RFC 3849, in order of appearance.
fn names(chosen: &[Connection]) -> Vec<(String, String)> {
    let mut known: Vec<IpAddr> = Vec::new();
    for ip in chosen.iter().flat_map(|one| [one.client.ip(), one.server.ip()]) {
        if !known.contains(&ip) {
            known.push(ip);
        }
    }
    let name = |(at, ip): (usize, &IpAddr)| {
        let at = at as u32 + 1;
        let other = match ip {
            IpAddr::V4(_) => {
                let block = [0xc000_0200u32, 0xc633_6400, 0xcb00_7100][(at / 256 % 3) as usize];
                IpAddr::V4(Ipv4Addr::from(block | (at % 256)))
            }
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, at as u16)),
        };
        (ip.to_string(), other.to_string())
    };
    known.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::handshake;
    use super::*;

    fn page(more: impl FnOnce(&mut Html)) -> Result<Value, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.pcapng");
        fs::write(&file, handshake()).unwrap();
        let mut command = Html {
            file: file.clone(),
            which: Vec::new(),
            finding: None,
            output: dir.path().join("a.html"),
            connections: 200,
            events: 5000,
            anonymise: false,
            reading: Reading::default(),
        };
        more(&mut command);
        let options = Options { all: true, ..Options::default() };
        let mut report = check(&file, Reading::default(), options).unwrap();
        let chosen = command.choose(std::mem::take(&mut report.connections))?;
        let chapters = command.chapters(&chosen, &report)?;
        let mut page = Page { chapters, ..Page::default() };
        if command.anonymise {
            page.rename(&names(&chosen));
        }
        Ok(page.json())
    }

    #[test]
    fn a_page_has_the_segments_the_states_and_no_payload() {
        let json = page(|_| {}).unwrap();
        let one = &json["connections"][0];
        let rows = one["rows"].as_array().unwrap();
        let segments: Vec<_> = rows.iter().filter(|row| row[0] == "p").collect();
        assert_eq!(segments.len(), 8);
        assert_eq!(segments[0][4], "S");
        assert_eq!((&segments[3][5], &segments[3][6]), (&json!(1), &json!(5)));
        let states: Vec<_> =
            rows.iter().filter(|row| row[0] == "s" && row[2] == 0).map(|row| &row[4]).collect();
        assert_eq!(states, ["SYN-SENT", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT"]);
        assert!(!json.to_string().contains("hello"));
    }

    #[test]
    fn an_anonymous_page_has_no_address_of_the_capture() {
        let text = page(|command| command.anonymise = true).unwrap().to_string();
        assert!(text.contains("192.0.2.1:4000"), "{text}");
        let renamed = names(&[]);
        assert!(renamed.is_empty());
    }

    #[test]
    fn what_is_left_out_is_told() {
        let json = page(|command| (command.which, command.events) = (vec![1], 4)).unwrap();
        let rows = json["connections"][0]["rows"].as_array().unwrap();
        let notes: Vec<_> = rows.iter().filter(|row| row[0] == "n").map(|row| &row[3]).collect();
        assert_eq!(notes, ["4 packets are left out"]);
    }

    #[test]
    fn an_unknown_connection_or_finding_is_refused() {
        let wrong = page(|command| command.which = vec![9]).unwrap_err().to_string();
        assert!(wrong.contains("no connection 9; expected a number from 1 to 2"), "{wrong}");
        let wrong = page(|command| command.finding = Some("window-zero".to_owned())).unwrap_err().to_string();
        assert!(wrong.contains("none of 2 connections"), "{wrong}");
    }
}

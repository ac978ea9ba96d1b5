//! `pcap list`: one line for each connection.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use steadfast_diagnose::{Connection, Finding, Options};

use super::text::{closing, seconds};
use super::{Reading, check, random_key};
use crate::failure::Failure;
use crate::output::say;

/// List the connections of captures.
#[derive(Args)]
pub(crate) struct List {
    /// The captures; `-` is standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Only connections that fit, such as 'host 10.0.0.1 and port 80'.
    #[arg(long, value_name = "FILTER", default_value = "")]
    filter: String,
    /// The order.
    #[arg(long, value_name = "KEY", default_value = "start")]
    sort: Sort,
    /// The first N only; 0: all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    top: usize,
    #[command(flatten)]
    reading: Reading,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sort {
    Start,
    Cost,
    Bytes,
    Findings,
}

impl List {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let mut status = 0;
        for path in &self.files {
            let report =
                check(path, self.reading, Options { key: random_key(), all: true, ..Options::default() })?;
            let mut rows = Vec::new();
            for connection in &report.connections {
                if fits(connection, &self.filter)? {
                    rows.push(connection);
                }
            }
            if rows.is_empty() && !self.filter.is_empty() {
                let total = report.connections_total;
                return Err(Failure::usage(format!(
                    "--filter '{}': none of {total} connections of {} fits",
                    self.filter,
                    path.display()
                )));
            }
            match self.sort {
                Sort::Start => {}
                Sort::Cost => rows.sort_by_key(|row| std::cmp::Reverse(cost(row))),
                Sort::Bytes => rows.sort_by_key(|row| std::cmp::Reverse(row.bytes[0] + row.bytes[1])),
                Sort::Findings => {
                    rows.sort_by_key(|row| std::cmp::Reverse((row.worst(), row.findings.len())))
                }
            }
            let shown = if self.top == 0 { rows.len() } else { self.top };
            let mut out = format!(
                "{}: {} of {} connections\n",
                path.display(),
                rows.len().min(shown),
                report.connections_total
            );
            rows.iter().take(shown).for_each(|row| line(&mut out, row, report.captured.start));
            say(&out)?;
            status = status.max(if report.captured.damaged > 0 { 3 } else { 0 });
        }
        Ok(ExitCode::from(status))
    }
}

fn cost(connection: &Connection) -> i64 {
    connection.findings.iter().filter_map(|finding| finding.cost).sum()
}

fn line(out: &mut String, row: &Connection, start: i64) {
    let findings: Vec<&str> = row.findings.iter().map(|finding: &Finding| finding.id).collect();
    let _ = writeln!(
        out,
        "{:>5} {:>12} {:>22} > {:<22} {:<12} {:>10} {:>9} B {:>9} B  {}  {}",
        row.n,
        format!("{:.6}", (row.start - start) as f64 / 1e9),
        row.client.to_string(),
        row.server.to_string(),
        row.history,
        seconds(row.lasted),
        row.bytes[0],
        row.bytes[1],
        closing(row),
        findings.join(" "),
    );
}

/// Whether a connection fits: `host ADDRESS` and `port N`, joined by `and`.
fn fits(connection: &Connection, filter: &str) -> Result<bool, Failure> {
    let mut words = filter.split_whitespace().filter(|word| *word != "and");
    let mut all = true;
    while let Some(kind) = words.next() {
        let value = words.next().unwrap_or_default();
        let expected = || {
            Failure::usage(format!(
                "--filter '{filter}': expected `host ADDRESS` or `port N`, joined by `and`; found `{kind} {value}`"
            ))
        };
        all &= match kind {
            "host" => {
                let address: std::net::IpAddr = value.parse().map_err(|_| expected())?;
                [connection.client, connection.server].iter().any(|end| end.ip() == address)
            }
            "port" => {
                let port: u16 = value.parse().map_err(|_| expected())?;
                [connection.client, connection.server].iter().any(|end| end.port == port)
            }
            _ => return Err(expected()),
        };
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_hosts_and_ports() {
        let file = super::super::show::tests::handshake();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcapng");
        std::fs::write(&path, file).unwrap();
        let report = check(&path, Reading::default(), Options { all: true, ..Options::default() }).unwrap();
        let one = &report.connections[0];
        assert!(fits(one, "").unwrap() && fits(one, "host 192.0.2.2 and port 80").unwrap());
        assert!(!fits(one, "port 81").unwrap() && !fits(one, "host 192.0.2.9").unwrap());
        for wrong in ["port", "port x", "net 10", "host 1.2.3"] {
            assert!(fits(one, wrong).unwrap_err().to_string().contains("expected"), "{wrong}");
        }
    }
}

//! `steadfast metrics`: counters and tables as OpenMetrics text.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::Whom;
use crate::failure::Failure;
use crate::output::say;

/// Print the state of a running network as OpenMetrics, or serve it to a scraper.
///
/// Labels name states, listeners and reasons, never peers: their number stays bounded.
#[derive(Args)]
pub(crate) struct Metrics {
    /// Serve `GET /metrics` at this address until the end.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    whom: Whom,
}

impl Metrics {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Some(address) = self.listen else { return say(&self.text()?) };
        let listener = TcpListener::bind(address).map_err(|error| Failure::system(address, error))?;
        let local = listener.local_addr().map_err(|error| Failure::system(address, error))?;
        eprintln!("steadfast: metrics at http://{local}/metrics");
        for stream in listener.incoming().flatten() {
            // A scraper that breaks off concerns nobody else.
            let _ = self.answer(stream);
        }
        Ok(())
    }

    fn text(&self) -> Result<String, Failure> {
        let mut network = self.whom.connect()?;
        Ok(open_metrics(&network.counters()?, &network.one("summary")?))
    }

    fn answer(&self, stream: std::net::TcpStream) -> std::io::Result<()> {
        const LONGEST: u64 = 8192;
        let limit = Some(Duration::from_secs(2));
        stream.set_read_timeout(limit)?;
        stream.set_write_timeout(limit)?;
        let mut first = String::new();
        let mut head = BufReader::new(std::io::Read::take(&stream, LONGEST));
        head.read_line(&mut first)?;
        let mut line = String::new();
        while head.read_line(&mut line)? > 2 {
            line.clear();
        }
        let known = ["GET / ", "GET /metrics "].iter().any(|start| first.starts_with(start));
        let (status, body) = match self.text() {
            _ if !known => ("404 Not Found", "expected GET /metrics\n".to_owned()),
            Ok(text) => ("200 OK", text),
            Err(error) => ("503 Service Unavailable", format!("{error}\n")),
        };
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let len = body.len();
        write!(
            &stream,
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
        )
    }
}

/// A name of letters, digits and underscores.
fn name(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        if letter.is_ascii_uppercase()
            && !out.is_empty()
            && !out.ends_with('_')
            && !out.ends_with(|c: char| c.is_ascii_uppercase())
        {
            out.push('_');
        }
        out.push(if letter.is_ascii_alphanumeric() { letter } else { '_' });
    }
    out.to_ascii_lowercase()
}

/// Writes a histogram whose times are in microseconds.
fn histogram(out: &mut String, family: &str, help: &str, value: &Value) {
    let Some(counts) = value["counts"].as_array() else { return };
    let seconds = |micros: &Value| micros.as_f64().unwrap_or(0.0) / 1e6;
    let bounds =
        value["bounds"].as_array().into_iter().flatten().map(|bound| format!("{:?}", seconds(bound)));
    let _ = writeln!(out, "# TYPE {family} histogram\n# HELP {family} {help}");
    let mut sum = 0;
    for (count, bound) in counts.iter().zip(bounds.chain(["+Inf".to_owned()])) {
        sum += count.as_u64().unwrap_or(0);
        let _ = writeln!(out, "{family}_bucket{{le=\"{bound}\"}} {sum}");
    }
    let _ = writeln!(out, "{family}_count {sum}\n{family}_sum {}", seconds(&value["sum"]));
}

fn open_metrics(counters: &Value, summary: &Value) -> String {
    let mut out = String::new();
    let rows = |value: &Value| -> Vec<(String, u64)> {
        let all = value.as_object().into_iter().flatten();
        all.filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect()
    };
    let mut family = |family: &str, kind: &str, help: &str, samples: Vec<(String, u64)>| {
        if !samples.is_empty() {
            let _ = writeln!(out, "# TYPE {family} {kind}\n# HELP {family} {help}");
            for (labels, value) in samples {
                let end = if kind == "counter" { "_total" } else { "" };
                let _ = writeln!(out, "{family}{end}{labels} {value}");
            }
        }
    };
    let states = rows(&summary["states"]);
    let label = |key: &str, value: &str| format!("{{{key}=\"{value}\"}}");
    let states = states.into_iter().map(|(state, count)| (label("state", &state), count)).collect();
    family("steadfast_tcp_connections", "gauge", "Sockets by state.", states);
    let listeners = summary["listeners"].as_array().cloned().unwrap_or_default();
    let local = |row: &Value| label("local", row["local"].as_str().unwrap_or_default());
    for (key, help) in [
        ("waiting", "Connections that wait to be accepted."),
        ("backlog", "The limit of the accept queue."),
        ("half_open", "Half-open connections."),
    ] {
        let samples = listeners.iter().map(|row| (local(row), row[key].as_u64().unwrap_or(0))).collect();
        family(&format!("steadfast_tcp_listener_{key}"), "gauge", help, samples);
    }
    for (field, fill) in rows(&counters["usage"]) {
        family(
            &format!("steadfast_usage_{}", name(&field)),
            "gauge",
            "Fill of a table.",
            vec![(String::new(), fill)],
        );
    }
    let (mut drops, mut replies) = (Vec::new(), Vec::new());
    for (counter, value) in rows(&counters["counters"]) {
        if let Some(reason) = counter.strip_prefix("drop.") {
            drops.push((label("reason", reason), value));
        } else if let Some(reason) = counter.strip_prefix("reply.") {
            replies.push((label("reason", reason), value));
        } else {
            let help = format!("{counter}, as nstat names it.");
            family(&format!("steadfast_{}", name(&counter)), "counter", &help, vec![(String::new(), value)]);
        }
    }
    family("steadfast_drops", "counter", "Packets, segments and messages that were dropped.", drops);
    family("steadfast_replies", "counter", "Answers of the stack itself.", replies);
    for (key, name, help) in [
        ("rtt", "connection_rtt", "The smoothed round-trip time of connections at their end."),
        ("handshake", "handshake", "The time from the first SYN to ESTABLISHED."),
        ("accept_wait", "accept_wait", "The time in the accept queue."),
    ] {
        histogram(&mut out, &format!("steadfast_tcp_{name}_seconds"), help, &counters["histograms"][key]);
    }
    out.push_str("# EOF\n");
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    /// OpenMetrics 1.0: a family has its type once, before its samples, and they stand together; `# EOF` ends it.
    fn check(text: &str) {
        let (mut known, mut current, mut kind) = (BTreeSet::new(), String::new(), String::new());
        let mut bucket = (-1.0, 0);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.last(), Some(&"# EOF"));
        for line in &lines[..lines.len() - 1] {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, of) = rest.split_once(' ').unwrap();
                assert!(known.insert(name.to_owned()), "{name} twice");
                (current, kind) = (name.to_owned(), of.to_owned());
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
            let rest = name.strip_prefix(&current).unwrap();
            match (kind.as_str(), rest) {
                ("counter", "_total") | ("gauge", "") | ("histogram", "_count") => {
                    let value: u64 = value.parse().unwrap();
                    assert!(kind != "histogram" || value == bucket.1, "{line}");
                }
                ("histogram", "_bucket") => {
                    let bound = labels.strip_prefix("le=\"").unwrap().strip_suffix("\"}").unwrap();
                    let (bound, value) = (bound.parse::<f64>().unwrap(), value.parse().unwrap());
                    assert!(bucket.0 < bound && bucket.1 <= value, "{line}");
                    bucket = (bound, value);
                }
                ("histogram", "_sum") => {
                    value.parse::<f64>().unwrap();
                    // The next histogram begins.
                    assert_eq!(std::mem::replace(&mut bucket, (-1.0, 0)).0, f64::INFINITY);
                }
                _ => panic!("{kind}: {line}"),
            }
        }
    }

    #[test]
    fn the_text_is_open_metrics() {
        let counters = json!({"counters": {"TcpInSegs": 5, "TcpExtListenOverflows": 0, "drop.no_listener": 2, "reply.reset": 1},
            "usage": {"half_open": 3},
            "histograms": {"rtt": {"bounds": [100, 2500, 10_000_000], "counts": [2, 0, 3, 1], "sum": 20_000_500.0}}});
        let summary = json!({"states": {"ESTAB": 2}, "listeners": [{"local": "10.0.0.2:80", "waiting": 0, "backlog": 9, "half_open": 1}]});
        let text = open_metrics(&counters, &summary);
        check(&text);
        for line in [
            "steadfast_tcp_connections{state=\"ESTAB\"} 2",
            "steadfast_tcp_in_segs_total 5",
            "steadfast_tcp_ext_listen_overflows_total 0",
            "steadfast_drops_total{reason=\"no_listener\"} 2",
            "steadfast_usage_half_open 3",
            "steadfast_tcp_listener_backlog{local=\"10.0.0.2:80\"} 9",
            "steadfast_tcp_connection_rtt_seconds_bucket{le=\"0.0001\"} 2",
            "steadfast_tcp_connection_rtt_seconds_bucket{le=\"0.0025\"} 2",
            "steadfast_tcp_connection_rtt_seconds_bucket{le=\"+Inf\"} 6",
            "steadfast_tcp_connection_rtt_seconds_sum 20.0005",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}

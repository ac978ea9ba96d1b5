//! `steadfast top`: a network at work, refreshed each second.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::filter::Filter;
use super::{Whom, alarms, millis};
use crate::failure::Failure;
use crate::output::say;

/// Connections that are asked for their numbers.
const MOST: u64 = 10_000;

/// Show a running network at work: connections by state, rates, and the busiest connections.
///
/// Without a terminal, one view of one interval is printed.
#[derive(Args)]
pub(crate) struct Top {
    /// Seconds between views.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    delay: f64,
    /// Views; without a terminal one.
    #[arg(short = 'n', long, value_name = "N")]
    iterations: Option<u64>,
    /// The order of connections.
    #[arg(long, value_name = "KEY", default_value = "rate")]
    sort: Sort,
    /// Connections that are shown.
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
    /// Only connections that fit: the filter of `ss`.
    #[arg(long, value_name = "FILTER", default_value = "")]
    filter: String,
    #[command(flatten)]
    whom: Whom,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sort {
    Rate,
    Retrans,
    Rtt,
    Age,
    RecvQ,
}

fn seconds(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    number.ok_or_else(|| format!("`{text}`: expected 0.1 to 3600 seconds"))
}

/// One look at a network.
struct Look {
    counters: Value,
    summary: Value,
    /// Connections by their ends.
    rows: HashMap<String, Value>,
}

impl Top {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let filter =
            Filter::parse(&self.filter).map_err(|error| Failure::usage(format!("--filter: {error}")))?;
        let mut network = self.whom.connect()?;
        let mut look = || -> Result<Look, Failure> {
            let mut rows = HashMap::new();
            network.each(&json!({"do": "sockets", "info": true, "limit": MOST}), |row| {
                if row["info"].is_object() && filter.fits(&row) {
                    rows.insert(format!("{} {}", row["local"], row["remote"]), row);
                }
                Ok(())
            })?;
            Ok(Look {
                counters: network.counters()?["counters"].clone(),
                summary: network.one("summary")?,
                rows,
            })
        };
        let terminal = io::stdout().is_terminal();
        let views = self.iterations.unwrap_or(if terminal { u64::MAX } else { 1 });
        let mut before = look()?;
        for _ in 0..views {
            thread::sleep(Duration::from_secs_f64(self.delay));
            let now = look()?;
            let text = self.view(&before, &now);
            // To the upper left, and clear what is below.
            say(&if terminal { format!("\x1b[H\x1b[J{text}") } else { text })?;
            before = now;
        }
        Ok(())
    }

    fn view(&self, before: &Look, now: &Look) -> String {
        let mut out = String::new();
        let states = now.summary["states"].as_object().into_iter().flatten();
        let states: Vec<String> = states.map(|(state, count)| format!("{state} {count}")).collect();
        let _ = writeln!(
            out,
            "connections  {}",
            if states.is_empty() { "none".to_owned() } else { states.join("  ") }
        );
        let total = |look: &Look, name: &str| look.counters[name].as_u64().unwrap_or(0);
        let rate = |name: &str| total(now, name).saturating_sub(total(before, name)) as f64 / self.delay;
        let _ = writeln!(
            out,
            "each second  in {:.0} segments, out {:.0}, opened {:.0} in and {:.0} out, resets out {:.0}, retransmitted {:.1} %",
            rate("TcpInSegs"),
            rate("TcpOutSegs"),
            rate("TcpPassiveOpens"),
            rate("TcpActiveOpens"),
            rate("TcpOutRsts"),
            100.0 * rate("TcpRetransSegs") / rate("TcpOutSegs").max(1.0)
        );
        let drops =
            now.counters.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("drop."));
        let mut drops: Vec<(f64, &str)> =
            drops.map(|(name, _)| (rate(name), &name[5..])).filter(|(rate, _)| *rate > 0.0).collect();
        drops.sort_by(|a, b| b.0.total_cmp(&a.0));
        if !drops.is_empty() {
            let shown: Vec<String> =
                drops.iter().take(4).map(|(rate, reason)| format!("{reason} {rate:.0}")).collect();
            let _ = writeln!(out, "drops        {}", shown.join("  "));
        }
        for alarm in alarms(&now.summary) {
            let _ = writeln!(out, "! {alarm}");
        }
        self.table(&mut out, before, now);
        out
    }

    fn table(&self, out: &mut String, before: &Look, now: &Look) {
        let number = |row: &Value, name: &str| row["info"][name].as_f64().unwrap_or(0.0);
        let rate = |key: &str, row: &Value, name: &str| {
            let old = before.rows.get(key).map_or(0.0, |old| number(old, name));
            (number(row, name) - old).max(0.0) / self.delay
        };
        let mut rows: Vec<(f64, f64, &Value)> = now
            .rows
            .iter()
            .map(|(key, row)| (rate(key, row, "bytes_received"), rate(key, row, "bytes_acked"), row))
            .collect();
        let rank = |(inward, outward, row): &(f64, f64, &Value)| match self.sort {
            Sort::Rate => inward + outward,
            Sort::Retrans => number(row, "total_retrans"),
            Sort::Rtt => number(row, "rtt"),
            Sort::Age => row["age"].as_f64().unwrap_or(0.0),
            Sort::RecvQ => row["recv_q"].as_f64().unwrap_or(0.0),
        };
        let ends = |row: &Value| row["remote"].as_str().unwrap_or_default().to_owned();
        rows.sort_by(|a, b| rank(b).total_cmp(&rank(a)).then_with(|| ends(a.2).cmp(&ends(b.2))));
        let _ = writeln!(
            out,
            "\n{:<11} {:>24} {:>24} {:>9} {:>9} {:>9} {:>7} {:>8} {:>6} {:>8} {:>8} {:<8} {:>8}",
            "State",
            "Local",
            "Peer",
            "in/s",
            "out/s",
            "RTT ms",
            "cwnd",
            "unacked",
            "retr",
            "Recv-Q",
            "Send-Q",
            "limit",
            "age"
        );
        for (inward, outward, row) in rows.iter().take(self.rows) {
            let text = |name: &str| row[name].as_str().unwrap_or_default();
            let mss = number(row, "snd_mss").max(1.0);
            let _ = writeln!(
                out,
                "{:<11} {:>24} {:>24} {:>9} {:>9} {:>9} {:>7.0} {:>8} {:>6} {:>8} {:>8} {:<8} {:>7.0}s",
                text("state"),
                text("local"),
                text("remote"),
                size(*inward),
                size(*outward),
                millis(number(row, "rtt")),
                number(row, "snd_cwnd") / mss,
                size(number(row, "unacked")),
                number(row, "total_retrans"),
                size(row["recv_q"].as_f64().unwrap_or(0.0)),
                size(row["send_q"].as_f64().unwrap_or(0.0)),
                limit(row),
                row["age"].as_f64().unwrap_or(0.0)
            );
        }
        if rows.len() > self.rows {
            let _ = writeln!(out, "… {} more", rows.len() - self.rows);
        }
    }
}

fn size(bytes: f64) -> String {
    match bytes {
        bytes if bytes >= 1e9 => format!("{:.1}G", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.1}M", bytes / 1e6),
        bytes if bytes >= 1e4 => format!("{:.0}k", bytes / 1e3),
        bytes => format!("{bytes:.0}"),
    }
}

/// The reason why a connection sends no more.
fn limit(row: &Value) -> &'static str {
    let number = |name: &str| row["info"][name].as_u64().unwrap_or(0);
    let (unacked, notsent, mss) = (number("unacked"), number("notsent_bytes"), number("snd_mss"));
    if notsent == 0 {
        return if row["recv_q"].as_u64().unwrap_or(0) > 0 && number("rcv_wnd") < mss {
            "reader"
        } else {
            "app"
        };
    }
    if unacked + mss > number("snd_wnd") { "rwnd" } else { "cwnd" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_shows_rates_of_the_interval_and_the_busiest_first() {
        let row = |port: u16, received: u64| {
            json!({"state": "ESTAB", "recv_q": 0, "send_q": 0, "local": "10.0.0.2:80", "remote": format!("10.0.0.1:{port}"),
                "age": 3.0, "info": {"bytes_received": received, "bytes_acked": 0, "snd_mss": 1000, "snd_cwnd": 10_000, "rtt": 1500.0}})
        };
        let look = |segments: u64, one: u64, two: u64| Look {
            counters: json!({"TcpInSegs": segments, "drop.bad_checksum": segments}),
            summary: json!({"states": {"ESTAB": 2}}),
            rows: [("1".to_owned(), row(1, one)), ("2".to_owned(), row(2, two))].into(),
        };
        let top = Top {
            delay: 2.0,
            iterations: None,
            sort: Sort::Rate,
            rows: 1,
            filter: String::new(),
            whom: Whom { pid: None, socket: None },
        };
        let text = top.view(&look(100, 0, 0), &look(300, 2_000, 60_000));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("ESTAB 2") && lines[1].contains("in 100 segments"), "{text}");
        assert!(lines[2].contains("bad_checksum 100"), "{text}");
        assert!(lines[5].contains("10.0.0.1:2") && lines[5].contains("30k"), "{text}");
        assert_eq!(lines[6], "… 1 more");
    }

    #[test]
    fn what_limits_a_sender_is_named() {
        let row = |notsent: u64, unacked: u64, window: u64| json!({"recv_q": 0, "info": {"notsent_bytes": notsent, "unacked": unacked, "snd_wnd": window, "snd_mss": 1000}});
        assert_eq!(limit(&row(0, 0, 9000)), "app");
        assert_eq!(limit(&row(5000, 9000, 9000)), "rwnd");
        assert_eq!(limit(&row(5000, 3000, 9000)), "cwnd");
    }
}

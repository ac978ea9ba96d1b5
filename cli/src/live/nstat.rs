//! `steadfast nstat`: counters, and how they changed since the last call.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};

use super::{Asked, Whom, named};
use crate::failure::Failure;
use crate::output::say;

/// Print the counters of a running network, as `nstat` does: what changed since the last call, and how much a second.
#[derive(Args)]
pub(crate) struct Nstat {
    /// Totals instead of changes.
    #[arg(short, long)]
    absolute: bool,
    /// Counters that are zero, too.
    #[arg(short, long)]
    zeros: bool,
    /// Leave the history as it is: the next call compares with the same values.
    #[arg(short = 's', long)]
    noupdate: bool,
    /// Wait so many seconds, and print what changed meanwhile. No history.
    #[arg(short = 'd', long, value_name = "SECONDS", conflicts_with = "absolute", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    interval: Option<u64>,
    /// So many intervals, one after the other; 0: until the network ends.
    #[arg(short = 'n', long, value_name = "N", requires = "interval", default_value_t = 1)]
    iterations: u64,
    /// One JSON object.
    #[arg(short, long)]
    json: bool,
    #[command(flatten)]
    whom: Whom,
    /// Only counters that fit, such as 'Tcp*' or '*Retrans*'.
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
}

type Counts = BTreeMap<String, u64>;

impl Nstat {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut network = self.whom.connect()?;
        if let Some(wait) = self.interval {
            return self.watch(&mut network, wait);
        }
        let history = network.path().with_extension("nstat");
        let now = read(&network.counters()?["counters"]);
        let (before, seconds) = if self.absolute { Default::default() } else { last(&history) };
        if !self.noupdate {
            let text = json!({"at": clock(), "counters": now}).to_string();
            fs::write(&history, text).map_err(|error| Failure::system(history.display(), error))?;
        }
        self.print(&now, &before, seconds)
    }

    /// Prints what changes within each interval.
    fn watch(&self, network: &mut Asked, wait: u64) -> Result<(), Failure> {
        network.patience(wait + 10)?;
        let mut request = json!({"do": "watch", "what": "counters", "every": wait * 1000});
        if self.iterations > 0 {
            request["count"] = self.iterations.saturating_add(1).into();
        }
        let mut before: Option<Counts> = None;
        network.each(&request, |row| {
            // The others are the ends of rounds.
            if row.get("counters").is_none() {
                return Ok(());
            }
            let now = read(&named(row)["counters"]);
            let printed = before.iter().try_for_each(|before| self.print(&now, before, wait as f64));
            before = Some(now);
            printed
        })?;
        Ok(())
    }

    /// Prints what has changed.
    fn print(&self, now: &Counts, before: &Counts, seconds: f64) -> Result<(), Failure> {
        let rows: Counts = now
            .iter()
            .map(|(name, value)| (name.clone(), value.saturating_sub(before.get(name).copied().unwrap_or(0))))
            .filter(|(name, value)| (self.zeros || *value > 0) && self.fits(name))
            .collect();
        if self.json {
            return say(&format!("{}\n", json!(rows)));
        }
        let mut out = String::from("#steadfast\n");
        for (name, value) in &rows {
            let rate = if seconds > 0.0 { *value as f64 / seconds } else { 0.0 };
            let _ = writeln!(out, "{name:<32}{value:<19}{rate:.1}");
        }
        say(&out)
    }

    fn fits(&self, name: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| glob(pattern, name))
    }
}

fn clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn read(value: &Value) -> Counts {
    let all = value.as_object().into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect()
}

/// The values of the last call, and the seconds since then.
fn last(history: &std::path::Path) -> (Counts, f64) {
    let kept = fs::read_to_string(history).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    kept.map_or_else(Default::default, |kept| {
        (read(&kept["counters"]), (clock() - kept["at"].as_f64().unwrap_or(0.0)).max(0.0))
    })
}

/// Whether a name fits a pattern, in which `*` stands for any letters. Upper and lower case are the same.
pub(super) fn glob(pattern: &str, name: &str) -> bool {
    let name = name.to_lowercase();
    let pattern = pattern.to_lowercase();
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = pattern.contains('*').then(|| parts.next_back()).flatten() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, name) in [
            ("Tcp*", "TcpInSegs"),
            ("*retrans*", "TcpRetransSegs"),
            ("*", "x"),
            ("TcpInSegs", "TcpInSegs"),
            ("a*b*c", "aXbYbZc"),
        ] {
            assert!(glob(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("Tcp", "TcpInSegs"), ("*Segs", "TcpInErrs"), ("Ip*", "TcpInSegs"), ("ab*b", "ab")]
        {
            assert!(!glob(pattern, name), "{pattern} {name}");
        }
    }
}

//! `steadfast trace`: the events of a running network, as they happen.

use clap::Args;
use serde_json::{Value, json};

use super::Whom;
use crate::failure::Failure;
use crate::output::say;

/// Print the events of a running network: segments, states, timers, drops and their reasons.
#[derive(Args)]
pub(crate) struct Trace {
    /// How long.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
    /// Only connections with this address or port at one end: 10.0.0.1, :80, 10.0.0.1:80.
    #[arg(value_name = "END")]
    end: Option<String>,
    /// One JSON object for each event.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    whom: Whom,
}

impl Trace {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut network = self.whom.connect()?;
        let (mut shown, mut first) = (0u64, None);
        // An answer pauses as long as nothing happens.
        network.patience(self.seconds.saturating_add(10))?;
        network.each(&json!({"do": "trace", "for": self.seconds.saturating_mul(1000)}), |event| {
            if event["kind"] != "lost" && !self.fits(&event) {
                return Ok(());
            }
            shown += 1;
            if self.json {
                return say(&format!("{event}\n"));
            }
            let at = event["at"].as_u64().unwrap_or(0);
            let start = *first.get_or_insert(at);
            say(&line(&event, at.saturating_sub(start)))
        })?;
        eprintln!("steadfast: {shown} events in {} s", self.seconds);
        Ok(())
    }

    fn fits(&self, event: &Value) -> bool {
        let Some(wanted) = &self.end else { return true };
        ["local", "remote"].iter().filter_map(|key| event[*key].as_str()).any(|end| {
            let Ok(address) = end.parse::<std::net::SocketAddr>() else { return false };
            end == wanted || address.ip().to_string() == *wanted || format!(":{}", address.port()) == *wanted
        })
    }
}

/// An event as a line. `nanos` is its time since the first one.
pub(super) fn line(event: &Value, nanos: u64) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| event[key].as_u64().unwrap_or(0);
    let (local, remote) = (text("local"), text("remote"));
    let what = match event["kind"].as_str().unwrap_or_default() {
        kind @ ("in" | "out") => {
            let sign = if kind == "out" { ">" } else { "<" };
            let (seq, ack, win, len) = (number("seq"), number("ack"), number("win"), number("len"));
            format!("{sign} [{}] seq {seq} ack {ack} win {win} length {len}", text("flags"))
        }
        "state" => format!("{} > {}", text("from"), text("to")),
        "timer" => format!("timer {}", text("timer")),
        "drop" => format!("drops it: {}", text("reason")),
        "reply" => format!("answers: {}", text("reason")),
        "rtt" => format!("rtt {} us, rto {} us", number("sample"), number("rto")),
        "loss" => format!("loss from seq {}: {}", number("seq"), text("why")),
        "path_mtu" => format!("path MTU is {}", number("mtu")),
        "lost" => return format!("{} events more were lost: the queue was full\n", number("events")),
        other => other.to_owned(),
    };
    format!("{:>6}.{:06}  {local} - {remote}  {what}\n", nanos / 1_000_000_000, nanos / 1000 % 1_000_000)
}

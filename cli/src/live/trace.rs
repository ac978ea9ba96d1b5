//! `steadfast trace`: the events of a running network, as they happen.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Whom;
use super::event::line;
use super::page::Recorded;
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
    /// Write a page to this file (HTML) instead: the ladder of each connection, and the state of its end here at any time.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,
    #[command(flatten)]
    whom: Whom,
}

impl Trace {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut network = self.whom.connect()?;
        let (mut shown, mut first) = (0u64, None);
        let mut recorded = Recorded::new();
        // An answer pauses as long as nothing happens.
        network.patience(self.seconds.saturating_add(10))?;
        let millis = self.seconds.saturating_mul(1000);
        network.each(&json!({"do": "trace", "for": millis, "info": self.html.is_some()}), |event| {
            if event["kind"] != "lost" && !self.fits(&event) {
                return Ok(());
            }
            shown += 1;
            if self.html.is_some() {
                recorded.take(&event);
                return Ok(());
            }
            if self.json {
                return say(&format!("{event}\n"));
            }
            let at = event["at"].as_u64().unwrap_or(0);
            let start = *first.get_or_insert(at);
            say(&line(&event, at.saturating_sub(start)))
        })?;
        if let Some(file) = &self.html {
            let title = network.path().display().to_string();
            let missing = recorded.missing();
            let page = recorded.page(title, self.seconds);
            let failed =
                |error| Failure::usage(format!("--html {}: {error}; a shorter --for", file.display()));
            fs::write(file, page.html().map_err(failed)?).map_err(|e| Failure::system(file.display(), e))?;
            let said = format!("{}: {}\n", file.display(), page.about);
            return say(&missing.iter().fold(said, |said, text| said + text + "\n"));
        }
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

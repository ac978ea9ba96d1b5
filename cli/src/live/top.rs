//! `steadfast top`: a network at work, refreshed each second.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use steadfast::SocketFilter;

use super::event::short_line;
use super::keys::{Key, Keys, size};
use super::screen::{Act, Ends, Look, Screen, Sort};
use super::{Asked, Whom};
use crate::failure::Failure;
use crate::output::say;

/// Show a running network at work: connections by state, rates, and the busiest connections.
///
/// Keys: s the next order, f a filter, p pause, up and down choose a connection, Enter its events, q the end. Without a
/// terminal, one view of one interval is printed.
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

fn seconds(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    number.ok_or_else(|| format!("`{text}`: expected 0.1 to 3600 seconds"))
}

impl Top {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let checked = self.filter.parse::<SocketFilter>();
        checked.map_err(|error| Failure::usage(format!("--filter: {error}")))?;
        let mut network = self.whom.connect()?;
        let mut screen = Screen::new(self.sort, self.rows, self.filter.clone());
        let mut before = Look::take(&mut network, &screen.filter)?;
        if let Some(keys) = Keys::open().filter(|_| io::stdout().is_terminal()) {
            screen.chosen = Some(0);
            return self.watch(keys, &mut network, screen, before);
        }
        let views = self.iterations.unwrap_or(if io::stdout().is_terminal() { u64::MAX } else { 1 });
        for _ in 0..views {
            thread::sleep(Duration::from_secs_f64(self.delay));
            let now = Look::take(&mut network, &screen.filter)?;
            say(&screen.view(&before, &now))?;
            before = now;
        }
        Ok(())
    }

    /// Shows views in a terminal, and does what the keys say.
    fn watch(
        &self,
        mut keys: Keys,
        network: &mut Asked,
        mut screen: Screen,
        mut before: Look,
    ) -> Result<(), Failure> {
        let delay = Duration::from_secs_f64(self.delay);
        let mut left = self.iterations.unwrap_or(u64::MAX);
        let mut now = Look::take(network, &screen.filter)?;
        while left > 0 {
            draw(&mut screen, &before, &now)?;
            let due = Instant::now() + delay;
            loop {
                let pressed = next(&mut keys, due.saturating_duration_since(Instant::now()))?;
                if pressed.is_empty() {
                    break;
                }
                for key in pressed {
                    match screen.press(key) {
                        Act::Redraw => {}
                        // Rates begin anew.
                        Act::Look => {
                            before = Look::take(network, &screen.filter)?;
                            now = before.clone();
                        }
                        Act::Quit => return Ok(()),
                        Act::Events => {
                            let ends = screen.chosen_ends(&before, &now);
                            if let Some(ends) = ends
                                && let Err(failure) = events(&mut keys, network, &ends, delay)
                            {
                                screen.note = failure.to_string();
                            }
                        }
                    }
                }
                draw(&mut screen, &before, &now)?;
            }
            if !screen.paused {
                before = std::mem::replace(&mut now, Look::take(network, &screen.filter)?);
                left -= 1;
            }
        }
        Ok(())
    }
}

/// Draws the view as large as the terminal is now.
fn draw(screen: &mut Screen, before: &Look, now: &Look) -> Result<(), Failure> {
    screen.lines = size().0;
    paint(&screen.view(before, now))
}

/// From the upper left, and nothing is left below. Lines end where the terminal does.
fn paint(text: &str) -> Result<(), Failure> {
    let columns = size().1;
    let cut = |line: &str| line.chars().take(columns).collect::<String>();
    let lines: Vec<String> = text.lines().map(cut).collect();
    say(&format!("\x1b[H\x1b[J{}", lines.join("\n")))
}

fn next(keys: &mut Keys, limit: Duration) -> Result<Vec<Key>, Failure> {
    keys.next(limit).map_err(|error| Failure::system("the terminal", error))
}

/// Shows the last events of a connection until a key is pressed.
fn events(keys: &mut Keys, network: &mut Asked, ends: &Ends, delay: Duration) -> Result<(), Failure> {
    /// Events that are kept.
    const LAST: usize = 50;
    let mut lines = VecDeque::new();
    let mut first = None;
    loop {
        network.each(&json!({"do": "trace", "for": delay.as_millis() as u64}), |event| {
            if event["kind"] == "lost" || event["local"] == ends.local && event["remote"] == ends.remote {
                let at = event["at"].as_u64().or(first).unwrap_or(0);
                let start = *first.get_or_insert(at);
                lines.push_back(short_line(&event, at.saturating_sub(start)));
                if lines.len() > LAST {
                    lines.pop_front();
                }
            }
            Ok(())
        })?;
        let heading = format!("{} - {}   any key: back\n\n", ends.local, ends.remote);
        let above = lines.len().saturating_sub(size().0.saturating_sub(3));
        let nothing = if lines.is_empty() { "no event yet\n" } else { "" };
        paint(&lines.iter().skip(above).fold(heading + nothing, |text, line| text + line))?;
        if !next(keys, Duration::ZERO)?.is_empty() {
            return Ok(());
        }
    }
}

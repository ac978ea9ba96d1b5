//! The view of `top`, and what keys change in it.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Instant;

use clap::ValueEnum;
use serde_json::{Value, json};
use steadfast::SocketFilter;

use super::keys::Key;
use super::{Asked, alarms, millis};
use crate::failure::Failure;

/// Connections that are asked for their numbers.
const MOST: u64 = 10_000;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    Rate,
    Retrans,
    Rtt,
    Age,
    RecvQ,
}

/// One look at a network.
#[derive(Clone)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) counters: Value,
    pub(super) summary: Value,
    /// Connections by their ends.
    pub(super) rows: HashMap<String, Value>,
}

impl Look {
    /// Time since another look, and more than 0.
    fn seconds_since(&self, before: &Look) -> f64 {
        self.at.duration_since(before.at).as_secs_f64().max(0.001)
    }

    /// Looks at the connections that fit a filter, and at the whole network.
    pub(super) fn take(network: &mut Asked, filter: &str) -> Result<Look, Failure> {
        let mut rows = HashMap::new();
        let request = json!({"do": "sockets", "info": true, "limit": MOST, "filter": filter});
        network.each(&request, |row| {
            if row["info"].is_object() {
                rows.insert(format!("{} {}", row["local"], row["remote"]), row);
            }
            Ok(())
        })?;
        let counters = network.counters()?["counters"].clone();
        Ok(Look { at: Instant::now(), counters, summary: network.one("summary")?, rows })
    }
}

/// The two ends of a connection, as the network writes them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) local: String,
    pub(super) remote: String,
}

/// The answer to a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    Redraw,
    /// Look again: other connections are shown.
    Look,
    /// Show the events of the chosen connection.
    Events,
    Quit,
}

/// The settings of the view.
pub(super) struct Screen {
    sort: Sort,
    rows: usize,
    /// The filter as it was typed.
    pub(super) filter: String,
    /// Lines of the terminal.
    pub(super) lines: usize,
    /// Rows that fit.
    shown: usize,
    /// The row that Enter opens; `None` without a terminal.
    pub(super) chosen: Option<usize>,
    pub(super) paused: bool,
    /// The filter that is being typed.
    typing: Option<String>,
    /// The error of the last key.
    pub(super) note: String,
}

impl Screen {
    pub(super) fn new(sort: Sort, rows: usize, filter: String) -> Screen {
        Screen {
            sort,
            rows,
            filter,
            lines: usize::MAX,
            shown: rows,
            chosen: None,
            paused: false,
            typing: None,
            note: String::new(),
        }
    }

    /// Takes in a key.
    pub(super) fn press(&mut self, key: Key) -> Act {
        self.note.clear();
        match (&mut self.typing, key) {
            (_, Key::Interrupt) => return Act::Quit,
            (Some(text), Key::Text(letter)) => text.push(letter),
            (Some(text), Key::Backspace) => drop(text.pop()),
            (Some(text), Key::Enter) => match text.parse::<SocketFilter>() {
                Ok(_) => {
                    self.filter = self.typing.take().unwrap_or_default();
                    return Act::Look;
                }
                Err(error) => {
                    self.note = format!("filter `{text}`: {error}");
                    self.typing = None;
                }
            },
            (Some(_), Key::Escape) => self.typing = None,
            (Some(_), Key::Up | Key::Down) => {}
            (None, Key::Text('q')) => return Act::Quit,
            (None, Key::Text('p')) => self.paused = !self.paused,
            (None, Key::Text('f')) => self.typing = Some(String::new()),
            (None, Key::Text('s')) => {
                let all = Sort::value_variants();
                let at = all.iter().position(|sort| *sort == self.sort).unwrap_or(0);
                self.sort = all[(at + 1) % all.len()];
            }
            (None, Key::Up) => self.chosen = self.chosen.map(|at| at.saturating_sub(1)),
            (None, Key::Down) => {
                self.chosen = self.chosen.map(|at| (at + 1).min(self.shown.saturating_sub(1)))
            }
            (None, Key::Enter) => return Act::Events,
            (None, Key::Text(_) | Key::Backspace | Key::Escape) => {}
        }
        Act::Redraw
    }

    /// The ends of the chosen connection.
    pub(super) fn chosen_ends(&self, before: &Look, now: &Look) -> Option<Ends> {
        let rows = self.busiest(before, now);
        let (.., row) = rows.get(self.place(rows.len())?)?;
        let end = |name: &str| row[name].as_str().map(str::to_owned);
        Some(Ends { local: end("local")?, remote: end("remote")? })
    }

    /// The place of the chosen row, of `rows`.
    fn place(&self, rows: usize) -> Option<usize> {
        self.chosen.map(|at| at.min(rows.min(self.shown).saturating_sub(1)))
    }

    /// The view of the time between two looks.
    pub(super) fn view(&mut self, before: &Look, now: &Look) -> String {
        let mut out = String::new();
        let seconds = now.seconds_since(before);
        let states = now.summary["states"].as_object().into_iter().flatten();
        let states: Vec<String> = states.map(|(state, count)| format!("{state} {count}")).collect();
        let _ = writeln!(
            out,
            "connections  {}",
            if states.is_empty() { "none".to_owned() } else { states.join("  ") }
        );
        let total = |look: &Look, name: &str| look.counters[name].as_u64().unwrap_or(0);
        let rate = |name: &str| total(now, name).saturating_sub(total(before, name)) as f64 / seconds;
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
        // Besides: two lines above the table, one for the rest, two for the keys.
        self.shown = self.rows.min(self.lines.saturating_sub(out.lines().count() + 5));
        self.table(&mut out, before, now);
        if self.chosen.is_some() {
            self.keys(&mut out);
        }
        out
    }

    /// The connections, the busiest first, each with its rates in and out.
    fn busiest<'a>(&self, before: &Look, now: &'a Look) -> Vec<(f64, f64, &'a Value)> {
        let seconds = now.seconds_since(before);
        let rate = |key: &str, row: &Value, name: &str| {
            let old = before.rows.get(key).map_or(0.0, |old| number(old, name));
            (number(row, name) - old).max(0.0) / seconds
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
        rows
    }

    fn table(&self, out: &mut String, before: &Look, now: &Look) {
        let rows = self.busiest(before, now);
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let wide = |name: &str| {
            rows.iter().take(self.shown).map(|(.., row)| text(row, name).len()).max().unwrap_or(0).max(5)
        };
        let (local, peer) = (wide("local"), wide("remote"));
        let _ = writeln!(
            out,
            "\n  {:<10} {:>local$} {:>peer$} {:>6} {:>6} {:>8} {:>5} {:>7} {:>4} {:>6} {:>6} {:<6} {:>6}",
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
        for (at, (inward, outward, row)) in rows.iter().take(self.shown).enumerate() {
            let mark = if self.place(rows.len()) == Some(at) { "> " } else { "  " };
            let mss = number(row, "snd_mss").max(1.0);
            let _ = writeln!(
                out,
                "{mark}{:<10} {:>local$} {:>peer$} {:>6} {:>6} {:>8} {:>5.0} {:>7} {:>4} {:>6} {:>6} {:<6} {:>5.0}s",
                text(row, "state"),
                text(row, "local"),
                text(row, "remote"),
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
        if rows.len() > self.shown {
            let _ = writeln!(out, "… {} more", rows.len() - self.shown);
        }
    }

    /// The last line of a terminal.
    fn keys(&self, out: &mut String) {
        let _ = match (&self.typing, self.note.is_empty()) {
            (Some(text), _) => write!(out, "\nfilter (of ss; Enter, Escape): {text}_"),
            (None, false) => write!(out, "\n{}", self.note),
            (None, true) => {
                let order = self.sort.to_possible_value();
                let order = order.as_ref().map_or("", |value| value.get_name());
                let filter = if self.filter.is_empty() { "" } else { ": " };
                let pause = if self.paused { "p goes on" } else { "p pause" };
                write!(
                    out,
                    "\ns order: {order}   f filter{filter}{}   {pause}   Enter events   q end",
                    self.filter
                )
            }
        };
    }
}

/// A number of a row.
fn number(row: &Value, name: &str) -> f64 {
    row["info"][name].as_f64().unwrap_or(0.0)
}

fn size(bytes: f64) -> String {
    match bytes {
        bytes if bytes >= 1e9 => format!("{:.1}G", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.1}M", bytes / 1e6),
        bytes if bytes >= 1e4 => format!("{:.0}k", (bytes / 1e3).min(999.0)),
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_view_shows_rates_of_the_interval_and_the_busiest_first() {
        let row = |port: u16, received: u64| {
            json!({"state": "ESTAB", "recv_q": 0, "send_q": 0, "local": "10.0.0.2:80", "remote": format!("10.0.0.1:{port}"),
                "age": 3.0, "info": {"bytes_received": received, "bytes_acked": 0, "snd_mss": 1000, "snd_cwnd": 10_000, "rtt": 1500.0}})
        };
        let start = Instant::now();
        let look = |after: u64, segments: u64, one: u64, two: u64| Look {
            at: start + Duration::from_secs(after),
            counters: json!({"TcpInSegs": segments, "drop.bad_checksum": segments}),
            summary: json!({"states": {"ESTAB": 2}}),
            rows: [("1".to_owned(), row(1, one)), ("2".to_owned(), row(2, two))].into(),
        };
        let mut screen = Screen::new(Sort::Rate, 1, String::new());
        let (before, now) = (look(0, 100, 0, 0), look(2, 300, 2_000, 60_000));
        let text = screen.view(&before, &now);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("ESTAB 2") && lines[1].contains("in 100 segments"), "{text}");
        assert!(lines[2].contains("bad_checksum 100"), "{text}");
        assert!(lines[5].contains("10.0.0.1:2") && lines[5].contains("30k"), "{text}");
        assert_eq!(lines[6], "… 1 more");
        assert!(!text.contains("> ") && !text.contains("q end"), "no keys without a terminal\n{text}");

        screen.rows = 2;
        for (lines, rows) in [(usize::MAX, 2), (10, 2), (9, 1), (1, 0)] {
            screen.lines = lines;
            let text = screen.view(&before, &now);
            assert_eq!(
                text.lines().filter(|line| line.contains("ESTAB ")).count(),
                rows + 1,
                "{lines} lines\n{text}"
            );
        }
        (screen.rows, screen.lines) = (1, usize::MAX);

        screen.chosen = Some(0);
        let ends = |screen: &Screen| screen.chosen_ends(&before, &now).map(|ends| ends.remote);
        assert_eq!(ends(&screen).as_deref(), Some("10.0.0.1:2"));
        let mut typed = |text: &str| {
            for letter in text.chars() {
                screen.press(Key::Text(letter));
            }
            (screen.press(Key::Enter), screen.filter.clone(), screen.view(&before, &now))
        };
        let (act, filter, text) = typed("fdport = :1");
        assert_eq!((act, filter.as_str()), (Act::Look, "dport = :1"), "the network filters");
        assert!(text.contains("f filter: dport = :1") && text.contains("> ESTAB"), "{text}");
        let (act, filter, text) = typed("fdport =");
        assert_eq!((act, filter.as_str()), (Act::Redraw, "dport = :1"), "the old one stays");
        assert!(text.contains("filter `dport =`: "), "{text}");
    }

    #[test]
    fn keys_choose_a_row_and_an_order() {
        let mut screen = Screen::new(Sort::Rate, 2, String::new());
        screen.chosen = Some(0);
        for (key, chosen) in [(Key::Down, 1), (Key::Down, 1), (Key::Up, 0), (Key::Up, 0)] {
            assert_eq!((screen.press(key), screen.chosen), (Act::Redraw, Some(chosen)), "{key:?}");
        }
        for _ in Sort::value_variants() {
            screen.press(Key::Text('s'));
        }
        assert!(screen.sort == Sort::Rate, "the orders go round");
        screen.press(Key::Text('p'));
        assert!(screen.paused);
        assert_eq!(screen.press(Key::Enter), Act::Events);
        screen.press(Key::Text('f'));
        assert_eq!(screen.press(Key::Text('q')), Act::Redraw, "a letter of the filter");
        assert_eq!((screen.press(Key::Interrupt), screen.press(Key::Escape)), (Act::Quit, Act::Redraw));
        assert_eq!(screen.press(Key::Text('q')), Act::Quit);
    }

    #[test]
    fn what_limits_a_sender_is_named() {
        let row = |notsent: u64, unacked: u64, window: u64| json!({"recv_q": 0, "info": {"notsent_bytes": notsent, "unacked": unacked, "snd_wnd": window, "snd_mss": 1000}});
        assert_eq!(limit(&row(0, 0, 9000)), "app");
        assert_eq!(limit(&row(5000, 9000, 9000)), "rwnd");
        assert_eq!(limit(&row(5000, 3000, 9000)), "cwnd");
    }
}

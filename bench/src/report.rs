//! The output: a table or JSON.

use serde_json::{Value, json};

use crate::measure::Rounds;

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bits per second.
    Bits,
    /// Events per second.
    Events,
    /// Seconds per operation: less is better.
    Seconds,
    /// Bytes per object: less is better.
    Bytes,
    /// A fraction of another figure.
    Part,
}

impl Unit {
    fn show(self, value: f64) -> String {
        let (scaled, unit) = match (self, value) {
            (Unit::Bits, _) => (value / 1e9, "Gbit/s"),
            (Unit::Events, 1e6..) => (value / 1e6, "M/s"),
            (Unit::Events, _) => (value / 1e3, "k/s"),
            (Unit::Seconds, 1e-3..) => (value * 1e3, "ms"),
            (Unit::Seconds, 1e-6..) => (value * 1e6, "µs"),
            (Unit::Seconds, _) => (value * 1e9, "ns"),
            (Unit::Bytes, _) => (value, "B"),
            (Unit::Part, _) => (value * 100.0, "%"),
        };
        format!("{scaled:.*} {unit}", if scaled < 10.0 { 2 } else { 1 })
    }

    fn less_is_better(self) -> bool {
        matches!(self, Unit::Seconds | Unit::Bytes)
    }
}

/// The goal of a release.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// This multiple of the peer's figure.
    Ratio(f64),
    /// A lower bound, or an upper bound if less is better.
    Value(f64),
    /// At least this fraction of the figure of another row.
    Part(f64, &'static str),
    /// No goal.
    Open,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Name of the benchmark, with its parameters.
    pub(crate) name: String,
    /// Unit of the figures.
    pub(crate) unit: Unit,
    /// Our rounds.
    pub(crate) ours: Rounds,
    /// The peer's rounds, if it can run the benchmark.
    pub(crate) peer: Option<Rounds>,
    /// The goal.
    pub(crate) goal: Goal,
}

impl Row {
    /// Returns our figure relative to the peer's; above 1 is better than the peer.
    fn ratio(&self) -> Option<f64> {
        let (ours, peer) = (self.ours.median(), self.peer.as_ref()?.median());
        Some(if self.unit.less_is_better() { peer / ours } else { ours / peer })
    }

    /// Returns the goal as text, and whether it is reached.
    fn goal(&self, all: &[Row]) -> (String, Option<bool>) {
        let ours = self.ours.median();
        match self.goal {
            Goal::Open => (String::new(), None),
            Goal::Ratio(times) => (format!("{times}×"), self.ratio().map(|ratio| ratio >= times)),
            Goal::Value(value) if self.unit.less_is_better() => {
                (format!("≤ {}", self.unit.show(value)), Some(ours <= value))
            }
            Goal::Value(value) => (format!("≥ {}", self.unit.show(value)), Some(ours >= value)),
            Goal::Part(part, of) => {
                let whole = all.iter().find(|row| row.name == of);
                let reached = whole.map(|whole| ours >= part * whole.ours.median());
                (format!("{:.0} % of {of}", part * 100.0), reached)
            }
        }
    }
}

/// Formats the rows as a table.
pub(crate) fn table(rows: &[Row]) -> String {
    let heads = ["bench", "ours", "spread", "peer", "spread", "ratio", "goal", ""];
    let mut lines: Vec<[String; 8]> = vec![heads.map(String::from)];
    let percent = |rounds: &Rounds| format!("{:.0} %", rounds.spread() * 100.0);
    for row in rows {
        let (goal, reached) = row.goal(rows);
        let mark = reached.map_or("", |reached| if reached { "reached" } else { "MISSED" });
        lines.push([
            row.name.clone(),
            row.unit.show(row.ours.median()),
            percent(&row.ours),
            row.peer.as_ref().map_or(String::from("–"), |peer| row.unit.show(peer.median())),
            row.peer.as_ref().map_or(String::new(), percent),
            row.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}×")),
            goal,
            mark.to_string(),
        ]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &[String; 8]| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 | 6 | 7 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    lines.iter().map(line).collect()
}

/// Formats the rows as JSON.
pub(crate) fn json(rows: &[Row]) -> Value {
    let all = rows.iter().map(|row| {
        let (goal, reached) = row.goal(rows);
        json!({
            "bench": row.name,
            "unit": match row.unit {
                Unit::Bits => "bit/s",
                Unit::Events => "1/s",
                Unit::Seconds => "s",
                Unit::Bytes => "B",
                Unit::Part => "1",
            },
            "ours": { "median": row.ours.median(), "rounds": row.ours.0 },
            "peer": row.peer.as_ref().map(|peer| json!({ "median": peer.median(), "rounds": peer.0 })),
            "ratio": row.ratio(),
            "goal": goal,
            "reached": reached,
        })
    });
    Value::Array(all.collect())
}

//! What comes out: one table, or JSON.

use serde_json::{Value, json};

use crate::measure::Rounds;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bits in a second.
    Bits,
    /// Events in a second.
    Events,
    /// Time of one, in seconds: less is better.
    Seconds,
    /// Bytes of one: less is better.
    Bytes,
    /// A part of something else.
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

/// What a release needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// So many times as good as the peer.
    Ratio(f64),
    /// At least so much, or at most where less is better.
    Value(f64),
    /// At least this part of the figure of another row.
    Part(f64, &'static str),
    /// None.
    Open,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Name of the bench, with what varies in it.
    pub(crate) name: String,
    /// What is counted.
    pub(crate) unit: Unit,
    /// Our rounds.
    pub(crate) ours: Rounds,
    /// The peer's, where it has such a thing.
    pub(crate) peer: Option<Rounds>,
    /// What it should be.
    pub(crate) goal: Goal,
}

impl Row {
    /// How many times as good as the peer we are.
    fn ratio(&self) -> Option<f64> {
        let (ours, peer) = (self.ours.median(), self.peer.as_ref()?.median());
        Some(if self.unit.less_is_better() { peer / ours } else { ours / peer })
    }

    /// The goal as text, and whether it is reached.
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

/// The table.
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

/// The same as JSON.
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

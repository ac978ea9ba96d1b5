//! A diagnosis of one connection, of several, or of the capture.

use crate::catalogue::{Diagnosis, diagnosis};
use crate::conn::EVIDENCE;

/// How bad the outcome is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing was lost.
    Info,
    /// It cost time or bytes.
    Warning,
    /// The connection failed, or data was lost.
    Error,
}

impl Severity {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// How sure the diagnosis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Two or more explanations fit. All are named.
    Possible,
    /// Another explanation needs a second coincidence.
    Likely,
    /// There is no other explanation that keeps RFC 9293 and a whole capture.
    Certain,
}

impl Confidence {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Confidence::Possible => "possible",
            Confidence::Likely => "likely",
            Confidence::Certain => "certain",
        }
    }
}

/// Where the cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The end that opened the connection.
    Client,
    /// The end that listened.
    Server,
    /// Between them.
    Path,
    /// The capture itself.
    Capture,
    /// It cannot be told.
    Unknown,
}

impl Place {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Place::Client => "client",
            Place::Server => "server",
            Place::Path => "path",
            Place::Capture => "capture",
            Place::Unknown => "unknown",
        }
    }

    pub(crate) fn of(way: usize) -> Place {
        if way == crate::conn::CLIENT { Place::Client } else { Place::Server }
    }
}

/// A packet that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Its number in the file.
    pub packet: u32,
    /// The thing that it shows.
    pub what: &'static str,
}

/// Another explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Its id.
    pub id: &'static str,
    /// A way to tell.
    pub to_tell: String,
}

/// A diagnosis with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The id: [`catalogue`](crate::catalogue).
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// Where the cause is.
    pub end: Place,
    /// When it began, in nanoseconds since the epoch.
    pub at: i64,
    /// How long it lasted, in nanoseconds.
    pub lasted: i64,
    /// The time it cost, in nanoseconds.
    pub cost: Option<i64>,
    /// The first packets that show it.
    pub evidence: Vec<Evidence>,
    /// The event in words.
    pub text: String,
    /// Why this follows.
    pub because: Vec<String>,
    /// Other explanations.
    pub alternatives: Vec<Alternative>,
    /// How many times it happened.
    pub count: u32,
}

impl Finding {
    pub(crate) fn new(id: &'static str, severity: Severity, end: Place) -> Finding {
        debug_assert!(diagnosis(id).is_some(), "{id} is not in the catalogue");
        Finding {
            id,
            severity,
            confidence: Confidence::Likely,
            end,
            at: 0,
            lasted: 0,
            cost: None,
            evidence: Vec::new(),
            text: String::new(),
            because: Vec::new(),
            alternatives: Vec::new(),
            count: 1,
        }
    }

    pub(crate) fn sure(mut self, confidence: Confidence) -> Finding {
        self.confidence = confidence;
        self
    }

    pub(crate) fn at(mut self, at: i64, lasted: i64) -> Finding {
        (self.at, self.lasted) = (at, lasted.max(0));
        self
    }

    pub(crate) fn cost(mut self, cost: i64) -> Finding {
        self.cost = Some(cost.max(0));
        self
    }

    pub(crate) fn see(mut self, packet: u32, what: &'static str) -> Finding {
        let known = self.evidence.iter().any(|evidence| evidence.packet == packet);
        if packet != 0 && !known && self.evidence.len() < EVIDENCE {
            self.evidence.push(Evidence { packet, what });
        }
        self
    }

    pub(crate) fn see_all(self, packets: impl IntoIterator<Item = u32>, what: &'static str) -> Finding {
        packets.into_iter().fold(self, |finding, packet| finding.see(packet, what))
    }

    pub(crate) fn text(mut self, text: impl Into<String>) -> Finding {
        self.text = text.into();
        self
    }

    pub(crate) fn because(mut self, text: impl Into<String>) -> Finding {
        self.because.push(text.into());
        self
    }

    pub(crate) fn or(mut self, id: &'static str, to_tell: impl Into<String>) -> Finding {
        self.alternatives.push(Alternative { id, to_tell: to_tell.into() });
        self
    }

    pub(crate) fn times(mut self, count: u32) -> Finding {
        self.count = count;
        self
    }

    /// Whether it only says how things are, and of nothing that went wrong.
    pub fn is_plain(&self) -> bool {
        const PLAIN: [&str; 5] =
            ["cap-end-open", "cap-two-vantages", "cap-vantage", "close-half-closed", "close-normal"];
        PLAIN.contains(&self.id)
    }

    /// The catalogue's entry.
    pub fn diagnosis(&self) -> Option<&'static Diagnosis> {
        diagnosis(self.id)
    }
}

/// Seconds for a reader: `0.456 s`.
pub(crate) fn seconds(nanos: i64) -> String {
    format!("{}.{:03} s", nanos / 1_000_000_000, nanos / 1_000_000 % 1000)
}

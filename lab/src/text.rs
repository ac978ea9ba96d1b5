//! Words, numbers and times of the scenario language, and their errors.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use steadfast_core::{Duration, Instant};
use thiserror::Error;

/// An error in a scenario, a fault or an expectation, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}:{line}: {message}")]
pub struct ParseError {
    /// The file, or `--fault` for the command line.
    pub file: Arc<str>,
    /// Line of the file, from 1.
    pub line: usize,
    /// The expected and the actual text.
    pub message: String,
}

/// The parsed part of a line, or a message about what was expected. The caller knows the place.
pub(crate) type Understood<T> = Result<T, String>;

/// The words of one line, consumed from the left.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    pub(crate) fn new(line: &'a str) -> Words<'a> {
        Words { rest: line.trim() }
    }

    /// Returns the next word without consuming it.
    pub(crate) fn peek(&self) -> Option<&'a str> {
        self.rest.split_whitespace().next()
    }

    /// Consumes the next word.
    pub(crate) fn next(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.rest = self.rest[word.len()..].trim_start();
        Some(word)
    }

    /// Consumes the rest of the line, unchanged.
    pub(crate) fn rest(&mut self) -> &'a str {
        std::mem::take(&mut self.rest).trim_end()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Consumes the next word if it equals `word`.
    pub(crate) fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        if found {
            self.next();
        }
        found
    }

    /// Consumes the next word; fails if there is none. `what` describes it in the error.
    pub(crate) fn word(&mut self, what: &str) -> Understood<&'a str> {
        self.next().ok_or_else(|| format!("expected {what}, found the end of the line"))
    }

    /// Consumes the next word and parses it with `read`.
    pub(crate) fn parse<T>(&mut self, what: &str, read: impl Fn(&str) -> Option<T>) -> Understood<T> {
        let word = self.word(what)?;
        read(word).ok_or_else(|| format!("expected {what}, found `{word}`"))
    }

    /// Consumes the next word if `read` can parse it.
    pub(crate) fn maybe<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = read(self.peek()?)?;
        self.next();
        Some(value)
    }

    pub(crate) fn number<T: std::str::FromStr>(&mut self, what: &str) -> Understood<T> {
        self.parse(what, |w| w.parse().ok())
    }

    pub(crate) fn duration(&mut self, what: &str) -> Understood<Duration> {
        self.parse(what, duration)
    }

    pub(crate) fn time(&mut self, what: &str) -> Understood<Instant> {
        self.parse(what, instant)
    }

    pub(crate) fn size(&mut self, what: &str) -> Understood<u64> {
        self.parse(what, size)
    }

    /// Fails if a word is left.
    pub(crate) fn end(&mut self) -> Understood<()> {
        match self.next() {
            None => Ok(()),
            Some(word) => Err(format!("expected the end of the line, found `{word}`")),
        }
    }
}

/// Parses `0.020`, `10ms`, `2h`; a bare number counts seconds. Exact: no floating point is involved.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 7] = [
        ("us", 1_000),
        ("ms", 1_000_000),
        ("min", 60_000_000_000),
        ("s", 1_000_000_000),
        ("h", 3_600_000_000_000),
        ("d", 86_400_000_000_000),
        ("", 1_000_000_000),
    ];
    let (digits, unit) = UNITS.iter().find_map(|(unit, nanos)| Some((text.strip_suffix(unit)?, *nanos)))?;
    decimal(digits, unit).map(Duration::from_nanos)
}

/// `digits` times `unit`. Decimals are allowed if the result is whole.
fn decimal(digits: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 18 {
        return None;
    }
    let scale = 10u128.pow(fraction.len() as u32);
    let part = fraction.parse::<u128>().ok()? * u128::from(unit);
    if !part.is_multiple_of(scale) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    whole.checked_add(u64::try_from(part / scale).ok()?)
}

/// Parses a time, counted from the start of the scenario.
pub(crate) fn instant(text: &str) -> Option<Instant> {
    duration(text).map(|d| Instant::ZERO + d)
}

/// Parses bytes: `1000`, `64K`, `1M`, `10G`.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Parses bits per second: `64kbit`, `1mbit`, `1gbit`.
pub(crate) fn rate(text: &str) -> Option<u64> {
    let units = [("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000), ("bit", 1)];
    let (digits, unit) = units.iter().find_map(|(unit, n)| Some((text.strip_suffix(unit)?, *n)))?;
    decimal(digits, unit).filter(|rate| *rate > 0)
}

/// Parses an address and a prefix length.
pub(crate) fn prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, len) = text.split_once('/')?;
    let (address, len) = (address.parse::<IpAddr>().ok()?, len.parse::<u8>().ok()?);
    (len <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, len))
}

/// An expected number: `3`, `>=1`, `<=4`, `>0`, `2..5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    low: u64,
    high: u64,
}

impl Bounds {
    /// One or more.
    pub const SOME: Bounds = Bounds { low: 1, high: u64::MAX };

    /// Any number.
    pub const ANY: Bounds = Bounds { low: 0, high: u64::MAX };

    /// Exactly `n`.
    pub const fn exactly(n: u64) -> Bounds {
        Bounds { low: n, high: n }
    }

    /// Returns whether `n` is within the bounds.
    pub const fn contains(self, n: u64) -> bool {
        self.low <= n && n <= self.high
    }

    pub(crate) fn parse(text: &str) -> Option<Bounds> {
        let open = |low, high| Some(Bounds { low, high });
        if let Some(n) = text.strip_prefix(">=") {
            return open(size(n)?, u64::MAX);
        }
        if let Some(n) = text.strip_prefix("<=") {
            return open(0, size(n)?);
        }
        if let Some(n) = text.strip_prefix('>') {
            return open(size(n)?.checked_add(1)?, u64::MAX);
        }
        if let Some(n) = text.strip_prefix('<') {
            return open(0, size(n)?.checked_sub(1)?);
        }
        match text.split_once("..") {
            Some((low, "")) => open(size(low)?, u64::MAX),
            Some((low, high)) => {
                Some(Bounds { low: size(low)?, high: size(high)? }).filter(|b| b.low <= b.high)
            }
            None => size(text).map(Bounds::exactly),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.low, self.high) {
            (low, high) if low == high => write!(f, "{low}"),
            (low, u64::MAX) => write!(f, ">={low}"),
            (0, high) => write!(f, "<={high}"),
            (low, high) => write!(f, "{low}..{high}"),
        }
    }
}

/// An expected quantity with a unit: `>=40mbit`, `<=300ms`, `1s..2s`. Both bounds are included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity {
    low: u64,
    high: u64,
    text: String,
}

impl Quantity {
    /// Returns whether `value` is within the bounds.
    pub const fn contains(&self, value: u64) -> bool {
        self.low <= value && value <= self.high
    }

    /// Parses bounds whose numbers `read` understands.
    pub(crate) fn parse(text: &str, read: impl Fn(&str) -> Option<u64>) -> Option<Quantity> {
        let (low, high) = if let Some(low) = text.strip_prefix(">=") {
            (read(low)?, u64::MAX)
        } else if let Some(high) = text.strip_prefix("<=") {
            (0, read(high)?)
        } else if let Some((low, high)) = text.split_once("..") {
            (read(low)?, read(high)?)
        } else {
            let value = read(text)?;
            (value, value)
        };
        (low <= high).then(|| Quantity { low, high, text: text.to_owned() })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Parses a fraction from 0 to 1, as parts per million.
pub(crate) fn fraction(text: &str) -> Option<u64> {
    decimal(text, 1_000_000).filter(|parts| *parts <= 1_000_000)
}

/// How far a time may be from the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    early: Duration,
    late: Duration,
    /// An event may be later by this fraction (1/`share`) of its time; 0: no such allowance.
    share: u32,
}

impl Tolerance {
    /// Virtual time is exact.
    pub const NONE: Tolerance = Tolerance { early: Duration::ZERO, late: Duration::ZERO, share: 0 };

    /// The tolerance against a kernel.
    ///
    /// Its clock ticks every 10 ms at the slowest, and its timer wheel rounds up by as much as an eighth. A busy
    /// machine adds to the measured round trip and so to the RTO, which each retransmission doubles. A third of the
    /// time covers all of this; a missing or extra doubling would be a factor of two.
    pub const KERNEL: Tolerance =
        Tolerance { early: Duration::from_millis(10), late: Duration::from_millis(300), share: 3 };

    /// Also accepts events that are earlier by `time`.
    pub(crate) fn allow_early(&mut self, time: Duration) {
        self.early += time;
    }

    /// The earliest time accepted for `at`.
    pub(crate) fn earliest(self, at: Instant) -> Instant {
        Instant::from_nanos(at.as_nanos().saturating_sub(self.early.as_nanos() as u64))
    }

    /// The latest time accepted for `at`.
    pub(crate) fn latest(self, at: Instant) -> Instant {
        let share = at.as_nanos().checked_div(u64::from(self.share)).unwrap_or(0);
        at + self.late + Duration::from_nanos(share)
    }
}

/// An expected time: exact to the microsecond, approximate, or between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    low: Instant,
    high: Instant,
    about: Option<Instant>,
}

impl Times {
    /// Returns whether `at` is accepted.
    pub fn contains(self, at: Instant, tolerance: Tolerance) -> bool {
        tolerance.earliest(self.low).as_micros() <= at.as_micros()
            && at.as_micros() <= tolerance.latest(self.high).as_micros()
    }

    pub(crate) fn parse(text: &str) -> Option<Times> {
        if let Some(about) = text.strip_prefix('~') {
            let middle = instant(about)?;
            let slack = Duration::from_millis(1).max(Duration::from_nanos(middle.as_nanos() / 100));
            let low = Instant::from_nanos(middle.as_nanos().saturating_sub(slack.as_nanos() as u64));
            return Some(Times { low, high: middle + slack, about: Some(middle) });
        }
        match text.split_once("..") {
            Some((low, high)) => Some(Times { low: instant(low)?, high: instant(high)?, about: None }),
            None => instant(text).map(|at| Times { low: at, high: at, about: None }),
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.about {
            Some(middle) => write!(f, "about {middle}"),
            None if self.low == self.high => write!(f, "{}", self.low),
            None => write!(f, "{} to {}", self.low, self.high),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_decimals_of_seconds_or_of_a_unit() {
        let cases = [
            ("0", Some(0)),
            ("0.020", Some(20_000_000)),
            ("10ms", Some(10_000_000)),
            ("1.5ms", Some(1_500_000)),
            ("924.6s", Some(924_600_000_000)),
            ("2min", Some(120_000_000_000)),
            ("2h", Some(7_200_000_000_000)),
            ("0.0000000001", None),
            ("1.", None),
            (".5", None),
            ("-1", None),
            ("1e3", None),
            ("ms", None),
        ];
        for (text, nanos) in cases {
            assert_eq!(duration(text), nanos.map(Duration::from_nanos), "{text}");
        }
    }

    #[test]
    fn bounds_read_every_form_and_hold_on_both_sides() {
        for (text, inside, outside) in [
            ("3", 3, 4),
            (">=1", 1, 0),
            ("<=4", 4, 5),
            (">0", 1, 0),
            ("<2", 1, 2),
            ("2..5", 5, 6),
            ("64K", 65536, 64),
        ] {
            let bounds = Bounds::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert!(bounds.contains(inside) && !bounds.contains(outside), "{text}");
        }
        for text in ["", ">", "5..2", "x", "<0", "1..2..3"] {
            assert_eq!(Bounds::parse(text), None, "{text}");
        }
    }

    #[test]
    fn expected_times_are_exact_about_or_between() {
        let exact = Times::parse("1.02").unwrap();
        assert!(
            exact.contains(Instant::from_nanos(1_020_000_999), Tolerance::NONE)
                && !exact.contains(Instant::from_micros(1_020_001), Tolerance::NONE)
        );
        let about = Times::parse("~100").unwrap();
        assert!(
            about.contains(Instant::from_secs(101), Tolerance::NONE)
                && !about.contains(Instant::from_micros(101_000_001), Tolerance::NONE)
        );
        let between = Times::parse("4.9..5.1").unwrap();
        assert!(
            between.contains(Instant::from_millis(4_900), Tolerance::NONE)
                && !between.contains(Instant::from_millis(5_101), Tolerance::NONE)
        );
    }

    #[test]
    fn a_tolerance_has_two_bounds_and_the_early_one_can_grow() {
        let (at, ms) = (Times::parse("3").unwrap(), Instant::from_millis);
        let mut tolerance = Tolerance::KERNEL;
        let around = |tolerance| [2989, 2990, 4300, 4301].map(|t| at.contains(ms(t), tolerance));
        assert_eq!(around(tolerance), [false, true, true, false]);
        tolerance.allow_early(Duration::from_millis(1));
        assert_eq!(around(tolerance), [true, true, true, false]);
    }

    #[test]
    fn sizes_and_rates_take_units() {
        assert_eq!((size("64K"), size("10G"), size("K")), (Some(65_536), Some(10 << 30), None));
        assert_eq!(
            (rate("1mbit"), rate("0.5kbit"), rate("0bit"), rate("5")),
            (Some(1_000_000), Some(500), None, None)
        );
        assert_eq!(prefix("198.18.0.0/15"), Some(("198.18.0.0".parse().unwrap(), 15)));
        assert_eq!(prefix("198.18.0.0/33"), None);
    }
}

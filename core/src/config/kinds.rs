//! The kinds of values of settings: how each is parsed, shown and bounded.

use std::fmt;
use std::time::Duration;

use crate::wire::tcp::OptionLayout;

/// Parsing and display of a value. An error names the expected values.
pub(super) trait Kind<T> {
    fn parse(&self, text: &str) -> Result<T, String>;
    fn show(&self, value: &T) -> String;

    /// Checks that the text format allows a value.
    fn check(&self, value: &T) -> Result<(), String> {
        self.parse(&self.show(value)).map(drop)
    }
}

fn bounded(text: &str, low: u64, high: u64) -> Result<u64, String> {
    let number = text.parse::<u64>().ok().filter(|n| (low..=high).contains(n));
    number.ok_or_else(|| format!("a number from {low} to {high}"))
}

/// `64K`, `4M` and `1G` as bytes; `None`: it has no such suffix.
fn in_bytes(text: &str) -> Option<String> {
    let suffixes = [('K', 10), ('M', 20), ('G', 30)];
    let (number, shift) =
        suffixes.iter().find_map(|(suffix, shift)| Some((text.strip_suffix(*suffix)?, shift)))?;
    number.parse::<u64>().ok()?.checked_mul(1 << shift).map(|bytes| bytes.to_string())
}

macro_rules! numbers {
    ($($kind:ident: $ty:ty, $unit:literal;)+) => { $(
        #[derive(Clone, Copy)]
        pub(super) struct $kind(pub(super) $ty, pub(super) $ty);

        impl $kind {
            pub(super) const fn unit(&self) -> &'static str {
                $unit
            }
        }

        impl Kind<$ty> for $kind {
            fn parse(&self, text: &str) -> Result<$ty, String> {
                let scaled = if $unit == "bytes" { in_bytes(text) } else { None };
                let text = scaled.as_deref().unwrap_or(text);
                // The bounds have the type itself, so every number within them fits it.
                bounded(text, u64::from(self.0), u64::from(self.1)).map(|n| n as $ty)
            }
            fn show(&self, value: &$ty) -> String {
                value.to_string()
            }
        }
    )+ };
}

numbers! {
    Count: u8, "";
    Size: u16, "bytes";
    Number: u32, "";
    Bytes: u32, "bytes";
    Memory: u64, "bytes";
}

macro_rules! spans {
    ($($kind:ident: $unit:literal, $from:ident, $as:ident;)+) => { $(
        #[derive(Clone, Copy)]
        pub(super) struct $kind(pub(super) u64, pub(super) u64);

        impl $kind {
            pub(super) const fn unit(&self) -> &'static str {
                $unit
            }
        }

        impl Kind<Duration> for $kind {
            fn parse(&self, text: &str) -> Result<Duration, String> {
                let number = bounded(text, self.0, self.1).map_err(|e| format!("{e} ({})", $unit))?;
                Ok(Duration::$from(number))
            }
            fn show(&self, value: &Duration) -> String {
                value.$as().to_string()
            }
        }
    )+ };
}

spans! {
    Secs: "s", from_secs, as_secs;
    Millis: "ms", from_millis, as_millis;
    Micros: "µs", from_micros, as_micros;
}

#[derive(Clone, Copy)]
pub(super) struct Switch;

impl Switch {
    pub(super) const fn unit(&self) -> &'static str {
        ""
    }
}

impl Kind<bool> for Switch {
    fn parse(&self, text: &str) -> Result<bool, String> {
        match text {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err("0 or 1".to_owned()),
        }
    }
    fn show(&self, value: &bool) -> String {
        u8::from(*value).to_string()
    }
}

#[derive(Clone, Copy)]
pub(super) struct MillisList;

impl MillisList {
    pub(super) const fn unit(&self) -> &'static str {
        "ms, separated by spaces"
    }
}

impl Kind<Vec<Duration>> for MillisList {
    fn parse(&self, text: &str) -> Result<Vec<Duration>, String> {
        let numbers: Result<Vec<_>, _> = text.split_whitespace().map(|n| bounded(n, 1, 600_000)).collect();
        match numbers {
            Ok(numbers) if numbers.len() <= 16 => {
                Ok(numbers.into_iter().map(Duration::from_millis).collect())
            }
            _ => Err("at most 16 numbers from 1 to 600000 (ms), separated by spaces".to_owned()),
        }
    }
    fn show(&self, value: &Vec<Duration>) -> String {
        let numbers: Vec<_> = value.iter().map(|d| d.as_millis().to_string()).collect();
        numbers.join(" ")
    }
}

/// The local ports to choose from: at least one, and never port 0.
///
/// ```
/// use steadfast_core::config::PortRange;
///
/// let range = PortRange::new(32_768, 60_999).unwrap();
/// assert_eq!((range.first(), range.last()), (32_768, 60_999));
/// assert_eq!(PortRange::new(60_999, 32_768), None);
/// assert_eq!(PortRange::new(0, 80), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Returns the range from `first` to `last`, both included, or `None` if `first` is 0 or above `last`.
    pub const fn new(first: u16, last: u16) -> Option<PortRange> {
        if first >= 1 && first <= last { Some(PortRange { first, last }) } else { None }
    }

    /// A constant range of the table of settings.
    pub(super) const fn known(first: u16, last: u16) -> PortRange {
        assert!(first >= 1 && first <= last);
        PortRange { first, last }
    }

    /// Returns the first port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Returns the last port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Returns whether the range contains a port.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

#[derive(Clone, Copy)]
pub(super) struct Ports;

impl Ports {
    pub(super) const fn unit(&self) -> &'static str {
        "first and last port"
    }
}

impl Kind<PortRange> for Ports {
    fn parse(&self, text: &str) -> Result<PortRange, String> {
        let ports: Vec<u16> = text.split_whitespace().filter_map(|p| p.parse().ok()).collect();
        let range = match (ports.as_slice(), text.split_whitespace().count()) {
            (&[first, last], 2) => PortRange::new(first, last),
            _ => None,
        };
        range.ok_or_else(|| "two ports from 1 to 65535, the first not above the second".to_owned())
    }
    fn show(&self, value: &PortRange) -> String {
        format!("{} {}", value.first, value.last)
    }
}

/// The initial congestion control of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CongestionControl {
    /// RFC 9438.
    Cubic,
    /// RFC 5681.
    Reno,
}

impl CongestionControl {
    /// All algorithms.
    pub const ALL: &'static [CongestionControl] = &[CongestionControl::Cubic, CongestionControl::Reno];

    /// Returns Linux's name: `cubic`.
    pub const fn name(self) -> &'static str {
        match self {
            CongestionControl::Cubic => "cubic",
            CongestionControl::Reno => "reno",
        }
    }
}

impl fmt::Display for CongestionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone, Copy)]
pub(super) struct Congestion;

impl Congestion {
    pub(super) const fn unit(&self) -> &'static str {
        ""
    }
}

impl Kind<CongestionControl> for Congestion {
    fn parse(&self, text: &str) -> Result<CongestionControl, String> {
        let named = CongestionControl::ALL.iter().find(|control| control.name() == text);
        named.copied().ok_or_else(|| "cubic or reno".to_owned())
    }
    fn show(&self, value: &CongestionControl) -> String {
        value.to_string()
    }
}

/// One of a few values: see [`modes`](super::modes).
#[derive(Clone, Copy)]
pub(super) struct Mode;

impl Mode {
    pub(super) const fn unit(&self) -> &'static str {
        ""
    }
}

#[derive(Clone, Copy)]
pub(super) struct Layout;

impl Layout {
    pub(super) const fn unit(&self) -> &'static str {
        ""
    }
}

impl Kind<OptionLayout> for Layout {
    fn parse(&self, text: &str) -> Result<OptionLayout, String> {
        match text {
            "linux" => Ok(OptionLayout::Linux),
            "freebsd" => Ok(OptionLayout::FreeBsd),
            _ => Err("linux or freebsd".to_owned()),
        }
    }
    fn show(&self, value: &OptionLayout) -> String {
        match value {
            OptionLayout::Linux => "linux".to_owned(),
            OptionLayout::FreeBsd => "freebsd".to_owned(),
        }
    }
}

/// The keys of Fast Open cookies: that of new cookies, and one that is still accepted. Each is written as in Linux: four
/// words of eight hexadecimal digits.
///
/// ```
/// use steadfast_core::config::FastOpenKeys;
///
/// let keys: FastOpenKeys = "01020304-05060708-090a0b0c-0d0e0f10".parse().unwrap();
/// assert_eq!(keys.backup, None);
/// assert_eq!(keys.primary, FastOpenKeys::key_of(&[4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13]));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FastOpenKeys {
    /// The key of new cookies.
    pub primary: u128,
    /// A key whose cookies are accepted too.
    pub backup: Option<u128>,
}

impl FastOpenKeys {
    /// Returns keys.
    pub const fn new(primary: u128, backup: Option<u128>) -> FastOpenKeys {
        FastOpenKeys { primary, backup }
    }

    /// Returns the key in the 16 bytes of `TCP_FASTOPEN_KEY`.
    pub const fn key_of(bytes: &[u8; 16]) -> u128 {
        u128::from_le_bytes(*bytes)
    }
}

impl fmt::Debug for FastOpenKeys {
    /// Omits the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FastOpenKeys(..)")
    }
}

impl fmt::Display for FastOpenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in [Some(self.primary), self.backup].into_iter().flatten().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            for word in 0..4 {
                let separator = if word > 0 { "-" } else { "" };
                write!(f, "{separator}{:08x}", (key >> (32 * word)) as u32)?;
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for FastOpenKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<FastOpenKeys, String> {
        let key = |text: &str| {
            let words: Vec<_> = text.split('-').collect();
            let fits = words.len() == 4 && words.iter().all(|word| (1..=8).contains(&word.len()));
            fits.then_some(())?;
            words
                .iter()
                .rev()
                .try_fold(0, |key, word| Some(key << 32 | u128::from(u32::from_str_radix(word, 16).ok()?)))
        };
        let keys = match text.split_once(',') {
            None => key(text).map(|primary| FastOpenKeys::new(primary, None)),
            Some((primary, backup)) => key(primary)
                .zip(key(backup))
                .map(|(primary, backup)| FastOpenKeys::new(primary, Some(backup))),
        };
        keys.ok_or_else(|| "one or two keys of four hexadecimal words: 1-2-3-4".to_owned())
    }
}

/// Keys, or none: they come from the secret.
#[derive(Clone, Copy)]
pub(super) struct Keys;

impl Keys {
    pub(super) const fn unit(&self) -> &'static str {
        ""
    }
}

impl Kind<Option<FastOpenKeys>> for Keys {
    fn parse(&self, text: &str) -> Result<Option<FastOpenKeys>, String> {
        if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
    }
    fn show(&self, value: &Option<FastOpenKeys>) -> String {
        value.map_or(String::new(), |keys| keys.to_string())
    }
}

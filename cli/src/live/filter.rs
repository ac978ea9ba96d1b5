//! The filter of `ss`: its grammar, and comparisons with any number of a connection.

use std::net::IpAddr;

use serde_json::Value;
use steadfast::stack::prefix_covers;

/// A condition on a row of the listing.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    /// `state established`.
    State(Vec<&'static str>),
    /// `sport = :80`: whether of the local end, the comparison, the port.
    Port(bool, Compare, u16),
    /// `dst 10.0.0.0/8:80`: whether of the local end, the address, its prefix, the port.
    Host(bool, Option<(IpAddr, u8)>, Option<u16>),
    /// `rtt > 100ms`: the name of the number, in microseconds if it is a time.
    Number(&'static str, Compare, f64),
    /// `timer persist`.
    Timer(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Less,
    AtMost,
    Equal,
    NotEqual,
    AtLeast,
    More,
}

const ALL: [&str; 11] = [
    "ESTAB",
    "SYN-SENT",
    "SYN-RECV",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "UNCONN",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
];
/// Neither listening nor half-open nor TIME-WAIT: what `ss` lists without options.
pub(super) const ORDINARY: [&str; 7] =
    ["ESTAB", "SYN-SENT", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "LAST-ACK", "CLOSING"];

/// Numbers of a row: the word of the filter, the field, and whether it is a time.
const NUMBERS: [(&str, &str, bool); 12] = [
    ("age", "age", true),
    ("recv-q", "recv_q", false),
    ("send-q", "send_q", false),
    ("retrans", "total_retrans", false),
    ("rto", "rto", true),
    ("rtt", "rtt", true),
    ("cwnd", "snd_cwnd", false),
    ("unacked", "unacked", false),
    ("notsent", "notsent_bytes", false),
    ("backoff", "backoff", false),
    ("mss", "snd_mss", false),
    ("pmtu", "pmtu", false),
];
const TIMERS: [(&str, &str); 4] = [
    ("on", "retransmit_timer"),
    ("persist", "persist_timer"),
    ("keepalive", "keepalive_timer"),
    ("delack", "delayed_ack_timer"),
];

impl Filter {
    /// Parses the words of a filter. No word: everything fits.
    pub(super) fn parse(text: &str) -> Result<Filter, String> {
        let spaced =
            ["(", ")"].iter().fold(text.to_owned(), |text, sign| text.replace(sign, &format!(" {sign} ")));
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut parser = Parser { words: &words, at: 0 };
        if words.is_empty() {
            return Ok(Filter::All(Vec::new()));
        }
        let filter = parser.any()?;
        match parser.word() {
            None => Ok(filter),
            Some(word) => Err(format!("`{word}`: expected `and`, `or` or the end")),
        }
    }

    /// Whether it says which states are listed.
    pub(super) fn names_states(&self) -> bool {
        match self {
            Filter::State(_) => true,
            Filter::All(all) | Filter::Any(all) => all.iter().any(Filter::names_states),
            Filter::Not(one) => one.names_states(),
            _ => false,
        }
    }

    /// Whether it needs the numbers of each connection.
    pub(super) fn needs_info(&self) -> bool {
        match self {
            Filter::Number(name, ..) => !["age", "recv_q", "send_q"].contains(name),
            Filter::Timer(_) => true,
            Filter::All(all) | Filter::Any(all) => all.iter().any(Filter::needs_info),
            Filter::Not(one) => one.needs_info(),
            _ => false,
        }
    }

    pub(super) fn fits(&self, row: &Value) -> bool {
        match self {
            Filter::All(all) => all.iter().all(|one| one.fits(row)),
            Filter::Any(any) => any.iter().any(|one| one.fits(row)),
            Filter::Not(one) => !one.fits(row),
            Filter::State(states) => row["state"].as_str().is_some_and(|state| states.contains(&state)),
            Filter::Port(local, compare, port) => {
                end(row, *local).is_some_and(|(_, found)| compare.holds(f64::from(found), f64::from(*port)))
            }
            Filter::Host(local, network, port) => end(row, *local).is_some_and(|(address, found)| {
                network.is_none_or(|(base, len)| prefix_covers(base, len, address))
                    && port.is_none_or(|port| port == found)
            }),
            Filter::Number(name, compare, wanted) => {
                // The age is in seconds, and all other times are in microseconds.
                let found = match *name {
                    "age" => row["age"].as_f64().map(|age| age * 1e6),
                    name => row.get(name).or_else(|| row["info"].get(name)).and_then(Value::as_f64),
                };
                found.is_some_and(|found| compare.holds(found, *wanted))
            }
            Filter::Timer(name) => row["info"].get(*name).is_some(),
        }
    }
}

fn end(row: &Value, local: bool) -> Option<(IpAddr, u16)> {
    let end: std::net::SocketAddr = row[if local { "local" } else { "remote" }].as_str()?.parse().ok()?;
    Some((end.ip(), end.port()))
}

impl Compare {
    fn parse(text: &str) -> Option<Compare> {
        Some(match text {
            "<" | "lt" => Compare::Less,
            "<=" | "le" | "leq" => Compare::AtMost,
            "=" | "==" | "eq" => Compare::Equal,
            "!=" | "ne" | "neq" => Compare::NotEqual,
            ">=" | "ge" | "geq" => Compare::AtLeast,
            ">" | "gt" => Compare::More,
            _ => return None,
        })
    }

    fn holds(self, found: f64, wanted: f64) -> bool {
        match self {
            Compare::Less => found < wanted,
            Compare::AtMost => found <= wanted,
            Compare::Equal => found == wanted,
            Compare::NotEqual => found != wanted,
            Compare::AtLeast => found >= wanted,
            Compare::More => found > wanted,
        }
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
}

impl<'a> Parser<'a> {
    fn word(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self, expected: &str) -> Result<&'a str, String> {
        let word = self.word().ok_or_else(|| format!("the filter ends: expected {expected}"))?;
        self.at += 1;
        Ok(word)
    }

    fn any(&mut self) -> Result<Filter, String> {
        let mut any = vec![self.all()?];
        while self.word().is_some_and(|word| ["or", "|", "||"].contains(&word)) {
            self.at += 1;
            any.push(self.all()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Filter::Any(any) })
    }

    /// Conditions without a word between them are joined by `and`.
    fn all(&mut self) -> Result<Filter, String> {
        let mut all = vec![self.condition()?];
        loop {
            match self.word() {
                Some("and" | "&" | "&&") => self.at += 1,
                None | Some(")" | "or" | "|" | "||") => break,
                Some(_) => {}
            }
            all.push(self.condition()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Filter::All(all) })
    }

    fn condition(&mut self) -> Result<Filter, String> {
        let word = self.next("a condition")?;
        if let Some((_, field, is_time)) = NUMBERS.iter().find(|(name, ..)| *name == word) {
            let compare = self.compare()?;
            let value = self.next("a number")?;
            return Ok(Filter::Number(field, compare, number(value, *is_time)?));
        }
        match word {
            "(" => {
                let inner = self.any()?;
                match self.next("`)`")? {
                    ")" => Ok(inner),
                    word => Err(format!("`{word}`: expected `)`")),
                }
            }
            "not" | "!" => Ok(Filter::Not(Box::new(self.condition()?))),
            "state" => Ok(Filter::State(states(self.next("a state")?)?)),
            "exclude" => Ok(Filter::Not(Box::new(Filter::State(states(self.next("a state")?)?)))),
            "sport" | "dport" => {
                let compare = self.compare()?;
                let value = self.next("a port")?;
                let port = value.trim_start_matches(':').parse();
                Ok(Filter::Port(
                    word == "sport",
                    compare,
                    port.map_err(|_| format!("`{value}`: expected a port, as in :80"))?,
                ))
            }
            "src" | "dst" => {
                if self.word().is_some_and(|word| word == "=" || word == "==") {
                    self.at += 1;
                }
                host(word == "src", self.next("an address")?)
            }
            "timer" => {
                let name = self.next("a timer")?;
                let found = TIMERS.iter().find(|(known, _)| *known == name);
                found
                    .map(|(_, field)| Filter::Timer(field))
                    .ok_or_else(|| format!("`timer {name}`: expected on, persist, keepalive or delack"))
            }
            _ => Err(format!(
                "`{word}`: expected state, sport, dport, src, dst, timer, or one of {}",
                NUMBERS.map(|(name, ..)| name).join(", ")
            )),
        }
    }

    fn compare(&mut self) -> Result<Compare, String> {
        let word = self.next("a comparison")?;
        Compare::parse(word).ok_or_else(|| format!("`{word}`: expected a comparison, such as ="))
    }
}

fn states(name: &str) -> Result<Vec<&'static str>, String> {
    let without = |left_out: &[&str]| ALL.into_iter().filter(|state| !left_out.contains(state)).collect();
    Ok(match name {
        "all" => ALL.to_vec(),
        "connected" => without(&["LISTEN", "UNCONN"]),
        "synchronized" => without(&["LISTEN", "UNCONN", "SYN-SENT"]),
        "bucket" => vec!["SYN-RECV", "TIME-WAIT"],
        "big" => without(&["SYN-RECV", "TIME-WAIT"]),
        name => {
            let upper = name.to_uppercase().replace('_', "-");
            let known = match upper.as_str() {
                "ESTABLISHED" => "ESTAB",
                "SYN-RECEIVED" => "SYN-RECV",
                "LISTENING" => "LISTEN",
                "CLOSED" => "UNCONN",
                "FIN-WAIT1" => "FIN-WAIT-1",
                "FIN-WAIT2" => "FIN-WAIT-2",
                other => other,
            };
            let found = ALL.into_iter().find(|state| *state == known);
            vec![found.ok_or_else(|| {
                format!("`state {name}`: expected a state, such as established or time-wait")
            })?]
        }
    })
}

/// `10.0.0.0/8`, `10.0.0.1:80`, `[fd00::1]:80`, `:80`.
fn host(local: bool, text: &str) -> Result<Filter, String> {
    let expected = || format!("`{text}`: expected an address, as 10.0.0.0/8 or 10.0.0.1:80");
    let port =
        |text: &str| if text == "*" { Ok(None) } else { text.parse().map(Some).map_err(|_| expected()) };
    let (address, port) = match text.rsplit_once(':') {
        Some((address, last)) if address.is_empty() || address.ends_with(']') || !address.contains(':') => {
            (address, port(last)?)
        }
        _ => (text, None),
    };
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if address.is_empty() || address == "*" {
        return Ok(Filter::Host(local, None, port));
    }
    let (address, len) =
        address.split_once('/').map_or((address, None), |(address, len)| (address, Some(len)));
    let address: IpAddr = address.parse().map_err(|_| expected())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let len = len.map_or(Ok(longest), |len| len.parse().map_err(|_| expected()))?;
    if len > longest {
        return Err(expected());
    }
    Ok(Filter::Host(local, Some((address, len)), port))
}

/// A number; of a time, in microseconds. A time without a unit is in seconds.
fn number(text: &str, is_time: bool) -> Result<f64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let scale = match (is_time, unit) {
        (true, "us") => 1.0,
        (true, "ms") => 1e3,
        (true, "s" | "") => 1e6,
        (true, "m" | "min") => 60e6,
        (false, "") => 1.0,
        (false, "k" | "K") => 1e3,
        (false, "M") => 1e6,
        _ => f64::NAN,
    };
    digits.parse::<f64>().ok().map(|number| number * scale).filter(|number| number.is_finite()).ok_or_else(
        || format!("`{text}`: expected a {}", if is_time { "time, such as 1s or 200ms" } else { "number" }),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fits(filter: &str) -> bool {
        let row = json!({"state": "ESTAB", "recv_q": 0, "send_q": 10, "local": "10.0.0.2:80", "remote": "10.1.2.3:4000",
            "age": 61.5, "info": {"rto": 220_000.0, "rtt": 20_400.0, "total_retrans": 2, "persist_timer": 5.0}});
        Filter::parse(filter).unwrap().fits(&row)
    }

    #[test]
    fn the_grammar_is_that_of_ss() {
        for filter in [
            "",
            "state established",
            "state connected",
            "state big",
            "sport = :80",
            "dport gt 1024",
            "src 10.0.0.2",
            "dst 10.1.0.0/16",
            "dst 10.1.2.3:4000",
            "dst :4000",
            "state established sport = :80",
            "( sport = :81 or sport = :80 ) and not dst 10.2.0.0/16",
            "exclude time-wait",
            "sport = :81 or dport = :4000 and state established",
        ] {
            assert!(fits(filter), "{filter}");
        }
        for filter in [
            "state listening",
            "sport != :80",
            "dst [fd00::1]:80",
            "not state all",
            "state bucket",
            "src :81",
        ] {
            assert!(!fits(filter), "{filter}");
        }
    }

    #[test]
    fn numbers_of_a_connection_can_be_compared() {
        for filter in [
            "age > 60",
            "age > 1m",
            "rto >= 220ms",
            "rtt < 1s",
            "retrans > 0",
            "send-q = 10",
            "timer persist",
        ] {
            assert!(fits(filter), "{filter}");
        }
        for filter in ["age > 62", "rto > 1s", "retrans = 0", "recv-q > 0", "timer keepalive", "cwnd > 0"] {
            assert!(!fits(filter), "{filter}");
        }
        assert!(
            Filter::parse("rto > 1s").unwrap().needs_info()
                && !Filter::parse("age > 60").unwrap().needs_info()
        );
    }

    #[test]
    fn a_wrong_filter_says_what_was_expected() {
        for (filter, expected) in [
            ("state happy", "expected a state"),
            ("sport 80", "expected a comparison"),
            ("sport = :x", "expected a port"),
            ("dst 10.0.0/8", "expected an address"),
            ("( sport = :80", "expected `)`"),
            ("colour = red", "expected state, sport"),
            ("rto > 1x", "expected a time"),
            ("sport = :80 )", "expected `and`, `or` or the end"),
            ("timer tea", "expected on, persist"),
        ] {
            let error = Filter::parse(filter).unwrap_err();
            assert!(error.contains(expected), "{filter}: {error}");
        }
    }
}

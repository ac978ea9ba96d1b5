//! The filter of `ss`: its grammar, and comparisons with any number of a connection.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use steadfast_core::info::{Info, SocketEntry};
use steadfast_core::prefix_covers;
use steadfast_core::trace::{State, TimerKind};

/// Conditions, parentheses and negations of a filter.
const PARTS: usize = 200;

/// A filter of sockets, in the grammar of `ss`: `state established and ( sport = :80 or dst 10.0.0.0/8 )`. It also
/// compares numbers: `age > 60`, `rto > 1s`, `retrans > 0`, `timer persist`.
///
/// A filter that names no state fits the sockets that `ss` lists without options: neither listeners nor half-open
/// connections nor TIME-WAIT.
///
/// ```
/// use steadfast::SocketFilter;
///
/// assert!("state established and rto > 1s".parse::<SocketFilter>().is_ok());
/// let wrong = "sport 80".parse::<SocketFilter>().unwrap_err();
/// assert_eq!(wrong, "`80`: expected a comparison, such as =");
/// ```
#[derive(Clone, Debug)]
pub struct SocketFilter(Condition);

/// A condition on a socket.
#[derive(Clone, Debug)]
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    /// `state established`.
    State(Vec<State>),
    /// `sport = :80`: the end, the comparison, the port.
    Port(End, Compare, u16),
    /// `dst 10.0.0.0/8:80`: the end, the address with its prefix, the port.
    Host(End, Option<(IpAddr, u8)>, Option<u16>),
    /// `rtt > 100ms`. Times are in microseconds.
    Number(&'static Number, Compare, f64),
    /// `timer persist`.
    Timer(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Local,
    Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Less,
    AtMost,
    Equal,
    NotEqual,
    AtLeast,
    More,
}

/// A number that can be compared.
#[derive(Debug)]
struct Number {
    word: &'static str,
    is_time: bool,
    value: Source,
}

/// Where a number comes from.
#[derive(Debug)]
enum Source {
    Entry(fn(&SocketEntry) -> f64),
    Info(fn(&Info) -> f64),
}

impl Number {
    const fn of_entry(word: &'static str, is_time: bool, value: fn(&SocketEntry) -> f64) -> Number {
        Number { word, is_time, value: Source::Entry(value) }
    }

    const fn of_info(word: &'static str, is_time: bool, value: fn(&Info) -> f64) -> Number {
        Number { word, is_time, value: Source::Info(value) }
    }
}

static NUMBERS: [Number; 12] = [
    Number::of_entry("age", true, |entry| micros(entry.state_age)),
    Number::of_entry("recv-q", false, |entry| entry.recv_q as f64),
    Number::of_entry("send-q", false, |entry| entry.send_q as f64),
    Number::of_info("retrans", false, |info| info.total_retrans.into()),
    Number::of_info("rto", true, |info| micros(info.rto)),
    Number::of_info("rtt", true, |info| micros(info.rtt)),
    Number::of_info("cwnd", false, |info| info.snd_cwnd.into()),
    Number::of_info("unacked", false, |info| info.unacked.into()),
    Number::of_info("notsent", false, |info| info.notsent_bytes as f64),
    Number::of_info("backoff", false, |info| info.backoff.into()),
    Number::of_info("mss", false, |info| info.snd_mss.into()),
    Number::of_info("pmtu", false, |info| info.pmtu.into()),
];

const TIMERS: [TimerKind; 5] = [
    TimerKind::Retransmit,
    TimerKind::Persist,
    TimerKind::Keepalive,
    TimerKind::TimeWait,
    TimerKind::DelayedAck,
];

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl FromStr for SocketFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<SocketFilter, String> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut parser = Parser { words: &words, at: 0, parts: 0, names_states: false };
        let mut condition = Condition::All(Vec::new());
        if !words.is_empty() {
            condition = parser.any()?;
            if let Some(word) = parser.word() {
                return Err(format!("`{word}`: expected `and`, `or` or the end"));
            }
        }
        if !parser.names_states {
            let usual = without(&[State::Listen, State::Closed, State::SynReceived, State::TimeWait]);
            condition = Condition::All(vec![Condition::State(usual), condition]);
        }
        Ok(SocketFilter(condition))
    }
}

impl SocketFilter {
    /// Whether it needs the numbers of each connection.
    pub(super) fn needs_info(&self) -> bool {
        self.0.needs_info()
    }

    pub(super) fn fits(&self, entry: &SocketEntry, info: Option<&Info>) -> bool {
        self.0.fits(entry, info)
    }
}

impl Condition {
    fn needs_info(&self) -> bool {
        match self {
            Condition::Number(number, ..) => matches!(number.value, Source::Info(_)),
            Condition::All(all) | Condition::Any(all) => all.iter().any(Condition::needs_info),
            Condition::Not(one) => one.needs_info(),
            _ => false,
        }
    }

    fn fits(&self, entry: &SocketEntry, info: Option<&Info>) -> bool {
        match self {
            Condition::All(all) => all.iter().all(|one| one.fits(entry, info)),
            Condition::Any(any) => any.iter().any(|one| one.fits(entry, info)),
            Condition::Not(one) => !one.fits(entry, info),
            Condition::State(states) => states.contains(&entry.state),
            Condition::Port(end, compare, port) => compare.holds(end.of(entry).port().into(), (*port).into()),
            Condition::Host(end, network, port) => {
                let end = end.of(entry);
                network.is_none_or(|(base, len)| prefix_covers(base, len, end.ip()))
                    && port.is_none_or(|port| port == end.port())
            }
            Condition::Number(number, compare, wanted) => {
                let found = match number.value {
                    Source::Entry(value) => Some(value(entry)),
                    Source::Info(value) => info.map(value),
                };
                found.is_some_and(|found| compare.holds(found, *wanted))
            }
            Condition::Timer(name) => entry.timer.is_some_and(|timer| timer.kind.ss_name() == *name),
        }
    }
}

impl End {
    fn of(self, entry: &SocketEntry) -> SocketAddr {
        if self == End::Local { entry.local } else { entry.remote }
    }
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
    parts: usize,
    names_states: bool,
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

    fn any(&mut self) -> Result<Condition, String> {
        let mut any = vec![self.all()?];
        while self.word().is_some_and(|word| ["or", "|", "||"].contains(&word)) {
            self.at += 1;
            any.push(self.all()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Condition::Any(any) })
    }

    /// Conditions without a word between them are joined by `and`.
    fn all(&mut self) -> Result<Condition, String> {
        let mut all = vec![self.condition()?];
        loop {
            match self.word() {
                Some("and" | "&" | "&&") => self.at += 1,
                None | Some(")" | "or" | "|" | "||") => break,
                Some(_) => {}
            }
            all.push(self.condition()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::All(all) })
    }

    fn condition(&mut self) -> Result<Condition, String> {
        let word = self.next("a condition")?;
        self.parts += 1;
        if self.parts > PARTS {
            return Err(format!("`{word}`: expected at most {PARTS} conditions, parentheses and negations"));
        }
        if let Some(found) = NUMBERS.iter().find(|number| number.word == word) {
            let compare = self.compare()?;
            let value = self.next("a number")?;
            return Ok(Condition::Number(found, compare, number(value, found.is_time)?));
        }
        match word {
            "(" => {
                let inner = self.any()?;
                match self.next("`)`")? {
                    ")" => Ok(inner),
                    word => Err(format!("`{word}`: expected `)`")),
                }
            }
            "not" | "!" => Ok(Condition::Not(Box::new(self.condition()?))),
            "state" => self.states(),
            "exclude" => Ok(Condition::Not(Box::new(self.states()?))),
            "sport" | "dport" => {
                let compare = self.compare()?;
                let value = self.next("a port")?;
                let port = value.trim_start_matches(':').parse();
                let end = if word == "sport" { End::Local } else { End::Remote };
                Ok(Condition::Port(
                    end,
                    compare,
                    port.map_err(|_| format!("`{value}`: expected a port, as in :80"))?,
                ))
            }
            "src" | "dst" => {
                if self.word().is_some_and(|word| word == "=" || word == "==") {
                    self.at += 1;
                }
                host(if word == "src" { End::Local } else { End::Remote }, self.next("an address")?)
            }
            "timer" => {
                let name = self.next("a timer")?;
                let known = TIMERS.map(TimerKind::ss_name);
                let found = known.into_iter().find(|known| *known == name);
                found
                    .map(Condition::Timer)
                    .ok_or_else(|| format!("`timer {name}`: expected one of {}", known.join(", ")))
            }
            _ => Err(format!(
                "`{word}`: expected state, sport, dport, src, dst, timer, or one of {}",
                NUMBERS.each_ref().map(|number| number.word).join(", ")
            )),
        }
    }

    fn states(&mut self) -> Result<Condition, String> {
        self.names_states = true;
        Ok(Condition::State(states(self.next("a state")?)?))
    }

    fn compare(&mut self) -> Result<Compare, String> {
        let word = self.next("a comparison")?;
        Compare::parse(word).ok_or_else(|| format!("`{word}`: expected a comparison, such as ="))
    }
}

fn without(left_out: &[State]) -> Vec<State> {
    State::ALL.into_iter().filter(|state| !left_out.contains(state)).collect()
}

fn states(name: &str) -> Result<Vec<State>, String> {
    Ok(match name {
        "all" => State::ALL.to_vec(),
        "connected" => without(&[State::Listen, State::Closed]),
        "synchronized" => without(&[State::Listen, State::Closed, State::SynSent]),
        "bucket" => vec![State::SynReceived, State::TimeWait],
        "big" => without(&[State::SynReceived, State::TimeWait]),
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
            let found = State::ALL.into_iter().find(|state| state.ss_name() == known);
            vec![found.ok_or_else(|| {
                format!("`state {name}`: expected a state, such as established or time-wait")
            })?]
        }
    })
}

/// `10.0.0.0/8`, `10.0.0.1:80`, `[fd00::1]:80`, `:80`.
fn host(end: End, text: &str) -> Result<Condition, String> {
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
        return Ok(Condition::Host(end, None, port));
    }
    let (address, len) =
        address.split_once('/').map_or((address, None), |(address, len)| (address, Some(len)));
    let address: IpAddr = address.parse().map_err(|_| expected())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let len = len.map_or(Ok(longest), |len| len.parse().map_err(|_| expected()))?;
    if len > longest {
        return Err(expected());
    }
    Ok(Condition::Host(end, Some((address, len)), port))
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
    use steadfast_core::{Config, ConnectOptions, Instant, Interface, ListenOptions, Stack};

    use super::*;

    /// The rows of a stack with a listener and an opening.
    fn rows() -> [SocketEntry; 2] {
        let interface = Interface::new(1500, [("10.0.0.2".parse().unwrap(), 24)]);
        let mut stack = Stack::new(Config::default(), interface);
        stack.listen("10.0.0.2:443".parse().unwrap(), ListenOptions::default()).unwrap();
        let options = ConnectOptions { local_port: Some(80), ..ConnectOptions::default() };
        stack.connect(Instant::ZERO, "10.1.2.3:4000".parse().unwrap(), options).unwrap();
        stack.sockets(Instant::ZERO).try_into().unwrap()
    }

    fn fits(filter: &str) -> bool {
        let [_, mut entry] = rows();
        (entry.state, entry.send_q, entry.state_age) =
            (State::Established, 10, Duration::from_millis(61_500));
        let mut info = Info::default();
        (info.rto, info.rtt) = (Duration::from_millis(220), Duration::from_micros(20_400));
        info.total_retrans = 2;
        filter.parse::<SocketFilter>().unwrap().fits(&entry, Some(&info))
    }

    #[test]
    fn a_filter_without_a_state_fits_what_ss_lists() {
        let [listener, opening] = rows();
        let fits = |filter: &str, entry| filter.parse::<SocketFilter>().unwrap().fits(entry, None);
        for filter in ["", "sport > 0", "age < 1s"] {
            assert_eq!((fits(filter, &listener), fits(filter, &opening)), (false, true), "{filter}");
        }
        assert!(fits("state all", &listener) && fits("state listening sport = :443", &listener));
        assert!(!fits("state listening", &opening) && !fits("timer timewait", &opening));
    }

    #[test]
    fn a_filter_has_a_limited_number_of_parts() {
        let not = |times| "not ".repeat(times) + "sport = :80";
        assert_eq!(fits(&not(PARTS - 1)), PARTS % 2 == 1);
        for deep in [not(PARTS), "(".repeat(60_000), "sport = :80 ".repeat(PARTS + 1)] {
            let error = deep.parse::<SocketFilter>().unwrap_err();
            assert!(error.contains("expected at most 200 conditions"), "{error}");
        }
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
        for filter in ["age > 60", "age > 1m", "rto >= 220ms", "rtt < 1s", "retrans > 0", "send-q = 10"] {
            assert!(fits(filter), "{filter}");
        }
        for filter in ["age > 62", "rto > 1s", "retrans = 0", "recv-q > 0", "timer keepalive", "cwnd > 0"] {
            assert!(!fits(filter), "{filter}");
        }
        let needs_info = |filter: &str| filter.parse::<SocketFilter>().unwrap().needs_info();
        assert!(needs_info("not ( rto > 1s )") && !needs_info("age > 60 and timer on"));
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
            ("timer tea", "expected one of on, persist"),
        ] {
            let error = filter.parse::<SocketFilter>().unwrap_err();
            assert!(error.contains(expected), "{filter}: {error}");
        }
    }
}

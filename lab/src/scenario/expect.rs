//! The expectations of a scenario.

use steadfast_core::counters::{Counters, DropReason, ReplyReason};
use steadfast_core::info::{CaState, Info, Usage};
use steadfast_core::trace::State;
use steadfast_core::{Duration, Instant};
use steadfast_timeline::flows::Rule;

use crate::fault::Pattern;
use crate::fault::pattern::is_name;
use crate::text::{Bounds, Times, Tolerance, Understood, Words};

/// A connection of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The host.
    pub host: String,
    /// The connection.
    pub connection: Which,
}

/// Selects a connection of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By order of appearance, from 1.
    Nth(usize),
    /// By its name in a script.
    Named(String),
}

impl Who {
    fn parse(text: &str) -> Option<Who> {
        let (host, connection) = if let Some((host, nth)) = text.split_once('#') {
            (host, Which::Nth(nth.parse().ok().filter(|n| *n > 0)?))
        } else if let Some((host, name)) = text.split_once('.') {
            is_name(name).then_some(())?;
            (host, Which::Named(name.to_owned()))
        } else {
            (text, Which::Nth(1))
        };
        is_name(host).then(|| Who { host: host.to_owned(), connection })
    }
}

/// The checks that always run. A scenario may declare that one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Invariant {
    /// The reader gets the data that was sent, or an error.
    Stream,
    /// The right edge of a window never moves back, and no sender exceeds it.
    Window,
    /// Only data that arrived is acknowledged.
    Ack,
    /// No RST answers a RST.
    Reset,
    /// Nothing is left at the end.
    Empty,
    /// The work per unit of time is bounded.
    Livelock,
    /// A stack's running totals and flags agree with its tables.
    Consistent,
}

impl From<Rule> for Invariant {
    fn from(rule: Rule) -> Invariant {
        match rule {
            Rule::Ack => Invariant::Ack,
            Rule::Window => Invariant::Window,
        }
    }
}

impl Invariant {
    /// Its name in scenarios.
    pub const fn name(self) -> &'static str {
        match self {
            Invariant::Stream => "stream",
            Invariant::Window => "window",
            Invariant::Ack => "ack",
            Invariant::Reset => "reset",
            Invariant::Empty => "empty",
            Invariant::Livelock => "livelock",
            Invariant::Consistent => "consistent",
        }
    }

    const NAMED: [Invariant; 5] =
        [Invariant::Stream, Invariant::Window, Invariant::Ack, Invariant::Reset, Invariant::Empty];
}

/// How many matching packets there are, and at which times.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// All matching packets are sent at these times.
    At(Vec<Times>),
    /// All matching packets that arrive do so at these times.
    Arrives(Vec<Times>),
    /// The intervals between matching packets.
    Gaps(Vec<Times>),
    /// The number of matching packets.
    Count(Bounds),
}

/// One expectation.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Expectation {
    Wire {
        pattern: Box<Pattern>,
        wanted: Wanted,
    },
    Order(Vec<Pattern>),
    Exchange(Vec<Pattern>),
    States {
        who: Who,
        states: Vec<State>,
    },
    StateAt {
        who: Who,
        state: State,
        at: Instant,
    },
    Queue {
        host: String,
        port: Option<u16>,
        half_open: Bounds,
        accept: Bounds,
        at: Instant,
    },
    Usage {
        host: String,
        fields: Vec<(String, Bounds)>,
        at: Option<Instant>,
    },
    Info {
        who: Who,
        fields: Vec<(String, String)>,
        at: Instant,
    },
    Listed {
        host: String,
        state: State,
        count: Bounds,
        older: Duration,
        at: Instant,
    },
    Diagnosis {
        host: String,
        text: String,
        at: Instant,
    },
    Counter {
        host: String,
        name: String,
        value: Bounds,
    },
    /// `None` as a reason: any.
    Drops {
        host: String,
        reasons: Vec<(Option<DropReason>, Bounds)>,
    },
    /// `None` as a reason: any.
    Replies {
        host: String,
        reasons: Vec<(Option<ReplyReason>, Bounds)>,
    },
    Holds {
        host: String,
        fields: Vec<(String, Bounds)>,
    },
    Iss {
        host: String,
        property: IssProperty,
    },
    Violates(Vec<Invariant>),
    Tolerates(Vec<Invariant>),
}

/// A property of initial sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssProperty {
    /// For one tuple, each exceeds all sequence numbers of the previous incarnation.
    Ascending,
    /// For different tuples, they look independent.
    Unrelated,
    /// For one tuple, they grow by this much per second, within 1 %.
    Rate(u64),
}

impl Expectation {
    /// The time at which the expectation is checked.
    pub(crate) fn evaluated_at(&self) -> Option<Instant> {
        match self {
            Expectation::StateAt { at, .. }
            | Expectation::Queue { at, .. }
            | Expectation::Info { at, .. }
            | Expectation::Listed { at, .. }
            | Expectation::Diagnosis { at, .. } => Some(*at),
            Expectation::Usage { at, .. } => *at,
            _ => None,
        }
    }

    /// The hosts that it names.
    pub(crate) fn hosts(&self) -> Vec<&str> {
        match self {
            Expectation::Wire { pattern, .. } => pattern.direction.hosts(),
            Expectation::Order(patterns) | Expectation::Exchange(patterns) => {
                patterns.iter().flat_map(|p| p.direction.hosts()).collect()
            }
            Expectation::States { who, .. }
            | Expectation::StateAt { who, .. }
            | Expectation::Info { who, .. } => {
                vec![&who.host]
            }
            Expectation::Queue { host, .. }
            | Expectation::Usage { host, .. }
            | Expectation::Listed { host, .. }
            | Expectation::Diagnosis { host, .. }
            | Expectation::Counter { host, .. }
            | Expectation::Drops { host, .. }
            | Expectation::Replies { host, .. }
            | Expectation::Holds { host, .. }
            | Expectation::Iss { host, .. } => vec![host],
            Expectation::Violates(_) | Expectation::Tolerates(_) => Vec::new(),
        }
    }

    pub(super) fn parse(text: &str) -> Understood<Expectation> {
        let mut words = Words::new(text);
        let expectation = read(&mut words)?;
        words.end()?;
        Ok(expectation)
    }
}

const KINDS: &str = "an expectation: wire, order, exchange, states, state, queue, usage, info, listed, diagnosis, \
                     counter, drops, replies, holds, iss, violates or tolerates";

fn read(words: &mut Words<'_>) -> Understood<Expectation> {
    Ok(match words.word(KINDS)? {
        "wire" => wire(words)?,
        "order" => Expectation::Order(patterns(words)?),
        "exchange" => Expectation::Exchange(patterns(words)?),
        "states" => {
            let who = who(words)?;
            let mut states = vec![words.parse("a state such as `SYN-SENT`", |w| w.parse().ok())?];
            while !words.is_empty() {
                states.push(words.parse("a state such as `SYN-SENT`", |w| w.parse().ok())?);
            }
            Expectation::States { who, states }
        }
        "state" => {
            let who = who(words)?;
            let state = words.parse("a state such as `SYN-SENT`", |w| w.parse().ok())?;
            Expectation::StateAt { who, state, at: at(words)? }
        }
        "queue" => queue(words)?,
        "usage" => {
            let (host, fields) = (host(words)?, usage_fields(words)?);
            let at = if words.is_empty() { None } else { Some(at(words)?) };
            Expectation::Usage { host, fields, at }
        }
        "info" => info(words)?,
        "listed" => {
            let host = host(words)?;
            let state = words.parse("a state such as `CLOSE-WAIT`", |w| w.parse().ok())?;
            let count = bounds(words)?;
            let older =
                if words.take("older") { words.duration("an age after `older`")? } else { Duration::ZERO };
            Expectation::Listed { host, state, count, older, at: at(words)? }
        }
        "diagnosis" => diagnosis(words)?,
        "counter" => {
            let host = host(words)?;
            let known = Counters::default();
            let name = words
                .parse("a counter such as `ListenOverflows`", |w| known.value(w).map(|_| w.to_owned()))?;
            Expectation::Counter { host, name, value: bounds(words)? }
        }
        "drops" => {
            let host = host(words)?;
            let all = DropReason::ALL;
            let reasons = reasons(words, "drop", |w| all.iter().copied().find(|r| r.name() == w))?;
            Expectation::Drops { host, reasons }
        }
        "replies" => {
            let host = host(words)?;
            let all = ReplyReason::ALL;
            let reasons = reasons(words, "reply", |w| all.iter().copied().find(|r| r.name() == w))?;
            Expectation::Replies { host, reasons }
        }
        "holds" => Expectation::Holds { host: host(words)?, fields: usage_fields(words)? },
        "iss" => iss(words)?,
        "violates" => Expectation::Violates(rules(words)?),
        "tolerates" => Expectation::Tolerates(rules(words)?),
        other => return Err(format!("expected {KINDS}, found `{other}`")),
    })
}

/// One or more rules, with or without commas between them.
fn rules(words: &mut Words<'_>) -> Understood<Vec<Invariant>> {
    let rule = |w: &str| Invariant::NAMED.into_iter().find(|i| i.name() == w.trim_end_matches(','));
    let mut all = Vec::new();
    while all.is_empty() || !words.is_empty() {
        all.push(words.parse("stream, window, ack, reset or empty", rule)?);
    }
    Ok(all)
}

fn host(words: &mut Words<'_>) -> Understood<String> {
    words.parse("the name of a host", |w| is_name(w).then(|| w.to_owned()))
}

fn who(words: &mut Words<'_>) -> Understood<Who> {
    words.parse("a host or one of its connections: `C`, `C#2`, `C.name`", Who::parse)
}

fn bounds(words: &mut Words<'_>) -> Understood<Bounds> {
    words.parse("a number such as `3`, `>=1` or `2..5`", Bounds::parse)
}

fn at(words: &mut Words<'_>) -> Understood<Instant> {
    words.parse("`at`", |w| (w == "at").then_some(()))?;
    words.time("a time after `at`")
}

fn wire(words: &mut Words<'_>) -> Understood<Expectation> {
    let pattern = Pattern::parse(words)?;
    let what = "`at T…`, `arrives T…`, `gaps D…`, `count N` or `none`";
    let wanted = match words.word(what)? {
        "at" => Wanted::At(times(words)?),
        "arrives" => Wanted::Arrives(times(words)?),
        "gaps" => Wanted::Gaps(times(words)?),
        "count" => Wanted::Count(bounds(words)?),
        "none" => Wanted::Count(Bounds::exactly(0)),
        other => return Err(format!("expected {what}, found `{other}`")),
    };
    Ok(Expectation::Wire { pattern: Box::new(pattern), wanted })
}

fn times(words: &mut Words<'_>) -> Understood<Vec<Times>> {
    let what = "a time such as `0.020`, `~5` or `4.9..5.1`";
    let mut all = vec![words.parse(what, Times::parse)?];
    while !words.is_empty() {
        all.push(words.parse(what, Times::parse)?);
    }
    Ok(all)
}

/// Parses patterns, separated by commas.
fn patterns(words: &mut Words<'_>) -> Understood<Vec<Pattern>> {
    let one = |text: &str| {
        let mut words = Words::new(text);
        let pattern = Pattern::parse(&mut words)?;
        words.end().map(|()| pattern)
    };
    words.rest().split(',').map(one).collect()
}

fn queue(words: &mut Words<'_>) -> Understood<Expectation> {
    let (host, port) = words.parse("a host or a listener such as `S:80`", |w| match w.split_once(':') {
        Some((host, port)) => is_name(host).then_some((host.to_owned(), Some(port.parse().ok()?))),
        None => is_name(w).then(|| (w.to_owned(), None)),
    })?;
    words.parse("`half-open`", |w| (w == "half-open").then_some(()))?;
    let half_open = bounds(words)?;
    words.parse("`accept`", |w| (w == "accept").then_some(()))?;
    let accept = bounds(words)?;
    Ok(Expectation::Queue { host, port, half_open, accept, at: at(words)? })
}

fn usage_fields(words: &mut Words<'_>) -> Understood<Vec<(String, Bounds)>> {
    let names: Vec<_> = usage_values(&Usage::default()).map(|(name, _)| name).collect();
    let what = format!("a field of the usage: {}", names.join(", "));
    let mut fields = Vec::new();
    while words.peek().is_some_and(|w| w != "at") || fields.is_empty() {
        let name = words.parse(&what, |w| names.contains(&w.trim_end_matches(',')).then(|| w.to_owned()))?;
        let value = words
            .parse("a number such as `3`, `>=1` or `2..5`", |w| Bounds::parse(w.trim_end_matches(',')))?;
        fields.push((name, value));
    }
    Ok(fields)
}

/// All fields of [`Usage`], with their names.
pub(crate) fn usage_values(usage: &Usage) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    let Usage {
        sockets,
        listeners,
        half_open,
        opening,
        connections,
        orphans,
        time_wait,
        timers,
        buffered,
        fragments,
        replies,
        ..
    } = *usage;
    [
        ("sockets", sockets as u64),
        ("listeners", listeners as u64),
        ("half_open", half_open as u64),
        ("opening", opening as u64),
        ("connections", connections as u64),
        ("orphans", orphans as u64),
        ("time_wait", time_wait as u64),
        ("timers", timers as u64),
        ("buffered", buffered),
        ("fragments", fragments as u64),
        ("replies", replies as u64),
    ]
    .into_iter()
}

fn info(words: &mut Words<'_>) -> Understood<Expectation> {
    let who = who(words)?;
    let mut fields = Vec::new();
    while words.peek().is_some_and(|w| w != "at") || fields.is_empty() {
        let name = words.parse("a field of `Info` such as `snd_mss`", |w| {
            info_value(&sample(), w).is_some().then(|| w.to_owned())
        })?;
        let what = format!("what `{name}` may be: {}", info_value(&sample(), &name).map_or("", |v| v.form()));
        let value = words.parse(&what, |w| {
            info_value(&sample(), &name).and_then(|value| value.fits(w)).map(|_| w.to_owned())
        })?;
        fields.push((name, value));
    }
    Ok(Expectation::Info { who, fields, at: at(words)? })
}

/// The value of a field of [`Info`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum InfoValue {
    Number(u64),
    Time(Duration),
    Switch(bool),
    Absent,
    Name(String),
}

impl InfoValue {
    fn form(&self) -> &'static str {
        match self {
            InfoValue::Number(_) => "a number such as `3`, `>=1` or `2..5`",
            InfoValue::Time(_) => "a time such as `0.2`, `~5` or `1..2`",
            InfoValue::Switch(_) => "`on` or `off`",
            InfoValue::Absent => "`none` or a number",
            InfoValue::Name(_) => "a name such as `ESTABLISHED` or `Recovery`",
        }
    }

    /// Returns whether it matches `wanted`; `None` if `wanted` does not suit the field.
    pub(crate) fn fits(&self, wanted: &str) -> Option<bool> {
        match self {
            InfoValue::Number(_) if wanted == "none" => Some(false),
            InfoValue::Number(n) => Some(Bounds::parse(wanted)?.contains(*n)),
            InfoValue::Time(d) => Some(Times::parse(wanted)?.contains(Instant::ZERO + *d, Tolerance::NONE)),
            InfoValue::Switch(on) => match wanted {
                "on" => Some(*on),
                "off" => Some(!*on),
                _ => None,
            },
            InfoValue::Absent if wanted == "none" => Some(true),
            InfoValue::Absent => Bounds::parse(wanted).map(|_| false),
            InfoValue::Name(name) => Some(name == wanted),
        }
    }
}

/// Returns the field called `name`.
pub(crate) fn info_value(info: &Info, name: &str) -> Option<InfoValue> {
    let number = |n: u64| InfoValue::Number(n);
    let shift = |shift: Option<u8>| shift.map_or(InfoValue::Absent, |s| InfoValue::Number(u64::from(s)));
    Some(match name {
        "state" => InfoValue::Name(info.state.name().to_owned()),
        "state_age" => InfoValue::Time(info.state_age),
        "ca_state" => InfoValue::Name(format!("{:?}", info.ca_state)),
        "retransmits" => number(u64::from(info.retransmits)),
        "probes" => number(u64::from(info.probes)),
        "backoff" => number(u64::from(info.backoff)),
        "timestamps" => InfoValue::Switch(info.timestamps),
        "sack" => InfoValue::Switch(info.sack),
        "ecn" => InfoValue::Switch(info.ecn),
        "snd_wscale" => shift(info.snd_wscale),
        "rcv_wscale" => shift(info.rcv_wscale),
        "rto" => InfoValue::Time(info.rto),
        "rtt" => InfoValue::Time(info.rtt),
        "rttvar" => InfoValue::Time(info.rttvar),
        "min_rtt" => InfoValue::Time(info.min_rtt),
        "snd_mss" => number(u64::from(info.snd_mss)),
        "rcv_mss" => number(u64::from(info.rcv_mss)),
        "advmss" => number(u64::from(info.advmss)),
        "pmtu" => number(u64::from(info.pmtu)),
        "snd_cwnd" => number(u64::from(info.snd_cwnd)),
        "snd_ssthresh" => number(u64::from(info.snd_ssthresh)),
        "in_flight" => number(u64::from(info.in_flight)),
        "unacked" => number(u64::from(info.unacked)),
        "sacked" => number(u64::from(info.sacked)),
        "snd_wnd" => number(u64::from(info.snd_wnd)),
        "rcv_wnd" => number(u64::from(info.rcv_wnd)),
        "total_retrans" => number(u64::from(info.total_retrans)),
        "notsent_bytes" => number(info.notsent_bytes),
        "bytes_acked" => number(info.bytes_acked),
        "bytes_received" => number(info.bytes_received),
        "recv_q" => number(info.recv_q),
        "send_q" => number(info.send_q),
        "out_of_order" => number(info.out_of_order),
        _ => return None,
    })
}

/// An `Info` without a connection, to check the names of fields.
fn sample() -> Info {
    let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    Info {
        state: State::Closed,
        local: nowhere,
        remote: nowhere,
        state_age: Duration::ZERO,
        ca_state: CaState::Open,
        retransmits: 0,
        probes: 0,
        backoff: 0,
        timestamps: false,
        sack: false,
        ecn: false,
        snd_wscale: None,
        rcv_wscale: None,
        rto: Duration::ZERO,
        rtt: Duration::ZERO,
        rttvar: Duration::ZERO,
        min_rtt: Duration::ZERO,
        snd_mss: 0,
        rcv_mss: 0,
        advmss: 0,
        pmtu: 0,
        snd_cwnd: 0,
        snd_ssthresh: 0,
        in_flight: 0,
        unacked: 0,
        sacked: 0,
        snd_wnd: 0,
        rcv_wnd: 0,
        total_retrans: 0,
        notsent_bytes: 0,
        bytes_acked: 0,
        bytes_received: 0,
        recv_q: 0,
        send_q: 0,
        out_of_order: 0,
    }
}

fn diagnosis(words: &mut Words<'_>) -> Understood<Expectation> {
    let host = host(words)?;
    let rest = words.rest();
    let quoted = rest.strip_prefix('"').and_then(|r| r.split_once('"'));
    let (text, rest) = quoted.ok_or_else(|| format!("expected a quoted text and `at T`, found `{rest}`"))?;
    *words = Words::new(rest);
    Ok(Expectation::Diagnosis { host, text: text.to_owned(), at: at(words)? })
}

/// Parses reasons, separated by commas, each with an optional number.
fn reasons<T>(
    words: &mut Words<'_>,
    what: &str,
    find: impl Fn(&str) -> Option<T>,
) -> Understood<Vec<(Option<T>, Bounds)>> {
    let one = |text: &str| {
        let mut words = Words::new(text);
        if words.take("any") {
            return words.end().map(|()| (None, Bounds::SOME));
        }
        let reason = words.parse(&format!("the reason of a {what}, or `any`"), |w| find(w).map(Some))?;
        let count = words.maybe(Bounds::parse).unwrap_or(Bounds::SOME);
        words.end().map(|()| (reason, count))
    };
    words.rest().split(',').map(one).collect()
}

fn iss(words: &mut Words<'_>) -> Understood<Expectation> {
    let host = host(words)?;
    let what = "`ascending`, `unrelated` or `rate N`";
    let property = match words.word(what)? {
        "ascending" => IssProperty::Ascending,
        "unrelated" => IssProperty::Unrelated,
        "rate" => IssProperty::Rate(words.number("how much it grows in a second")?),
        other => return Err(format!("expected {what}, found `{other}`")),
    };
    Ok(Expectation::Iss { host, property })
}

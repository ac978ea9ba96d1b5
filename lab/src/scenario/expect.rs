//! The expectations of a scenario.

use steadfast_core::counters::{Counters, DropReason, ReplyReason};
use steadfast_core::info::{Info, Usage, Value};
use steadfast_core::trace::State;
use steadfast_core::{Duration, Instant};
use steadfast_timeline::flows::Rule;

use crate::fault::pattern::is_name;
use crate::fault::{Direction, Pattern, Window};
use crate::text::{Bounds, Quantity, Times, Tolerance, Understood, Words, duration, fraction, rate, size};

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
    /// A datagram that is read is one that its sender sent to that socket.
    Datagram,
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
            Invariant::Datagram => "datagram",
            Invariant::Window => "window",
            Invariant::Ack => "ack",
            Invariant::Reset => "reset",
            Invariant::Empty => "empty",
            Invariant::Livelock => "livelock",
            Invariant::Consistent => "consistent",
        }
    }

    const NAMED: [Invariant; 6] = [
        Invariant::Stream,
        Invariant::Datagram,
        Invariant::Window,
        Invariant::Ack,
        Invariant::Reset,
        Invariant::Empty,
    ];
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
    /// Bits per second that the readers of a direction get.
    Goodput {
        direction: Direction,
        wanted: Quantity,
        window: Window,
    },
    /// The time from the first byte written to the last one read, in nanoseconds.
    Completion {
        direction: Direction,
        part: Part,
        wanted: Quantity,
    },
    /// Jain's index of the bytes that the readers of a direction get, in parts per million.
    Share {
        direction: Direction,
        wanted: Quantity,
        window: Window,
    },
    /// The queue that packets of a direction find.
    PathQueue {
        direction: Direction,
        part: Part,
        unit: QueueUnit,
        wanted: Quantity,
    },
    Violates(Vec<Invariant>),
    Tolerates(Vec<Invariant>),
}

/// A quantile of several figures, in parts of a thousand; 1000: the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part(pub usize);

impl Part {
    fn parse(text: &str) -> Option<Part> {
        if text == "max" {
            return Some(Part(1000));
        }
        let percent = text.strip_prefix('p')?.parse::<usize>().ok()?;
        (1..=99).contains(&percent).then_some(Part(percent * 10))
    }
}

/// The measure of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueUnit {
    /// How long packets wait, in nanoseconds.
    Time,
    /// Packets.
    Packets,
    /// Bytes.
    Bytes,
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
            Expectation::Goodput { direction, .. }
            | Expectation::Completion { direction, .. }
            | Expectation::Share { direction, .. }
            | Expectation::PathQueue { direction, .. } => direction.hosts(),
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
                     counter, drops, replies, holds, iss, goodput, completion, share, violates or tolerates";

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
        "queue" if words.peek().is_some_and(|w| w.contains(['>', '|', '*'])) => path_queue(words)?,
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
        "goodput" => {
            let direction = direction(words)?;
            let wanted = quantity(words, "a rate such as `>=40mbit`", rate)?;
            Expectation::Goodput { direction, wanted, window: window(words)? }
        }
        "completion" => {
            let (direction, part) = (direction(words)?, part(words)?);
            let wanted = quantity(words, "a time such as `<=300ms`", nanos)?;
            Expectation::Completion { direction, part, wanted }
        }
        "share" => {
            let direction = direction(words)?;
            let wanted = quantity(words, "a fraction such as `>=0.95`", fraction)?;
            Expectation::Share { direction, wanted, window: window(words)? }
        }
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
        all.push(words.parse("stream, datagram, window, ack, reset or empty", rule)?);
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
    let names: Vec<_> = Usage::default().iter().map(|(name, _)| name).collect();
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

fn info(words: &mut Words<'_>) -> Understood<Expectation> {
    let who = who(words)?;
    let mut fields = Vec::new();
    while words.peek().is_some_and(|w| w != "at") || fields.is_empty() {
        let name = words.parse("a field of `Info` such as `snd_mss`", |w| {
            info_value(&Info::default(), w).is_some().then(|| w.to_owned())
        })?;
        let what =
            format!("what `{name}` may be: {}", info_value(&Info::default(), &name).map_or("", |v| v.form()));
        let value = words.parse(&what, |w| {
            info_value(&Info::default(), &name).and_then(|value| value.fits(w)).map(|_| w.to_owned())
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

impl From<Value> for InfoValue {
    fn from(value: Value) -> InfoValue {
        match value {
            Value::Number(number) => InfoValue::Number(number),
            Value::Time(time) => InfoValue::Time(time),
            Value::Switch(on) => InfoValue::Switch(on),
            Value::Timer(left) => left.map_or(InfoValue::Absent, InfoValue::Time),
            Value::Shift(shift) => shift.map_or(InfoValue::Absent, |shift| InfoValue::Number(shift.into())),
            Value::State(state) => InfoValue::Name(state.name().to_owned()),
            Value::CaState(state) => InfoValue::Name(format!("{state:?}")),
            Value::Address(end) => InfoValue::Name(end.to_string()),
            other => InfoValue::Name(format!("{other:?}")),
        }
    }
}

/// Returns the field called `name`.
pub(crate) fn info_value(info: &Info, name: &str) -> Option<InfoValue> {
    info.iter().find(|(field, _)| *field == name).map(|(_, value)| value.into())
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

fn direction(words: &mut Words<'_>) -> Understood<Direction> {
    words.parse("a direction such as `C>S`", Direction::parse)
}

fn part(words: &mut Words<'_>) -> Understood<Part> {
    words.parse("`p50`, `p99`, another one from p1 to p99, or `max`", Part::parse)
}

fn quantity(words: &mut Words<'_>, what: &str, read: impl Fn(&str) -> Option<u64>) -> Understood<Quantity> {
    words.parse(what, |w| Quantity::parse(w, &read))
}

fn nanos(text: &str) -> Option<u64> {
    duration(text).and_then(|d| u64::try_from(d.as_nanos()).ok())
}

fn window(words: &mut Words<'_>) -> Understood<Window> {
    let mut window = Window::default();
    while window.take(words)? {}
    Ok(window)
}

/// Parses `C>S p99 <=20ms`, `C>S max <=30 packets` or `C>S p50 <=64K bytes`.
fn path_queue(words: &mut Words<'_>) -> Understood<Expectation> {
    let (direction, part) = (direction(words)?, part(words)?);
    let mut after = words.clone();
    after.next();
    let unit = match after.peek() {
        Some("packets") => QueueUnit::Packets,
        Some("bytes") => QueueUnit::Bytes,
        _ => QueueUnit::Time,
    };
    let read = if unit == QueueUnit::Time { nanos } else { size };
    let wanted = quantity(words, "a time such as `<=20ms`, `N packets` or `N bytes`", read)?;
    if unit != QueueUnit::Time {
        words.next();
    }
    Ok(Expectation::PathQueue { direction, part, unit, wanted })
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

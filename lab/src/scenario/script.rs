//! Scripts of applications: blocking calls.

mod datagrams;

use std::net::IpAddr;

use steadfast_core::config::CongestionControl;
use steadfast_core::{Config, Duration, Instant, Shutdown, SocketOptions};

pub use self::datagrams::{Bind, DatagramSetting};
use super::{Case, Condition};
use crate::fault::pattern::is_name;
use crate::text::{Bounds, Times, Understood, Words, duration};

/// One program on one host.
#[derive(Clone, Debug)]
pub struct App {
    /// The host.
    pub host: String,
    /// When it starts.
    pub start: Start,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// When a program starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// When the scenario begins.
    First,
    /// When the host boots after a crash.
    Rebooted,
    /// At the start and after every crash.
    Always,
}

/// One step of a program.
#[derive(Clone, Debug)]
pub struct Step {
    /// Line of the file.
    pub line: usize,
    /// The call as written in the file.
    pub text: String,
    /// Earliest time of the step.
    pub at: Option<Instant>,
    /// Delay after the previous step.
    pub after: Option<Duration>,
    /// The socket that it uses; `None`: the last one.
    pub socket: Option<String>,
    /// The call.
    pub call: Call,
    pub(crate) condition: Condition,
    pub(crate) outcomes: Vec<(Condition, Outcome)>,
}

impl App {
    /// Returns the parts that apply in a case. Each step keeps at most one outcome.
    pub(super) fn select(&self, case: &Case<'_>) -> App {
        App { host: self.host.clone(), start: self.start, steps: select(&self.steps, case) }
    }
}

/// Limits of bytes per transfer and clients per crowd, for batches of hundreds of runs.
const SMALLER_TRANSFER: u64 = 16 << 20;
const SMALLER_CROWD: u64 = 1000;

impl App {
    /// Returns the same program with bounded amounts. Random faults need variety, not ten gigabytes of each run.
    pub(crate) fn smaller(&self) -> App {
        App { steps: self.steps.iter().map(Step::smaller).collect(), ..self.clone() }
    }
}

impl Step {
    fn smaller(&self) -> Step {
        let mut step = self.clone();
        let bound = |bytes: &mut u64| *bytes = (*bytes).min(SMALLER_TRANSFER);
        match &mut step.call {
            Call::Send { len, .. } | Call::Read(Read::Exactly(len)) => bound(len),
            Call::Serve(Serve { how: Service::Stream(len) | Service::Reply(len), .. }) => bound(len),
            Call::Clients(clients) => {
                clients.count = clients.count.min(SMALLER_CROWD);
                bound(&mut clients.send);
                clients.read.iter_mut().for_each(bound);
            }
            Call::Repeat { body, .. } => body.iter_mut().for_each(|inner| *inner = inner.smaller()),
            _ => {}
        }
        step
    }
}

fn select(steps: &[Step], case: &Case<'_>) -> Vec<Step> {
    let those = steps.iter().filter(|step| step.condition.holds(case));
    those
        .map(|step| {
            let mut step = step.clone();
            step.outcomes.retain(|(condition, _)| condition.holds(case));
            step.outcomes = step.outcomes.pop().into_iter().collect();
            if let Call::Repeat { body, .. } = &mut step.call {
                *body = select(body, case);
            }
            step
        })
        .collect()
}

impl Step {
    /// The expected outcome. Valid after selection.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcomes.last().map(|(_, outcome)| outcome)
    }
}

/// The expected outcome of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The result.
    pub what: Expected,
    /// The time; `None`: any.
    pub at: Option<Times>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.what {
            Expected::Ok => f.write_str("ok")?,
            Expected::Eof => f.write_str("eof")?,
            Expected::Error(name) => f.write_str(name)?,
            Expected::Number(bounds) => bounds.fmt(f)?,
            Expected::Waits => f.write_str("to wait for ever")?,
            Expected::Killed => f.write_str("to be killed")?,
            Expected::Any => f.write_str("anything")?,
        }
        self.at.map_or(Ok(()), |at| write!(f, " at {at}"))
    }
}

/// The expected result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Success.
    Ok,
    /// The end of the stream.
    Eof,
    /// An error by its POSIX name.
    Error(String),
    /// A number of bytes or connections.
    Number(Bounds),
    /// The step never ends.
    Waits,
    /// The host crashes during the step.
    Killed,
    /// Anything.
    Any,
}

/// The destination of a connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A host, by name.
    Host(String),
    /// An address.
    Address(IpAddr),
}

/// A target with a port: `S:80`, `[fd00::2]:80`, `192.0.2.1:80`.
pub type Endpoint = (Target, u16);

/// The calls.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Call {
    Connect {
        to: Endpoint,
        from: Option<(Option<IpAddr>, u16)>,
        name: Option<String>,
        fast_open: bool,
        nowait: bool,
        options: Vec<Setting>,
    },
    Listen {
        on: (Option<IpAddr>, u16),
        backlog: Option<u32>,
        fast_open: bool,
        name: Option<String>,
        options: Vec<Setting>,
    },
    Accept {
        name: Option<String>,
    },
    /// On a UDP socket each chunk is a datagram, to `to` or else to the peer.
    Send {
        len: u64,
        chunk: Option<(u64, Duration)>,
        to: Option<Endpoint>,
        urgent: bool,
    },
    Udp(Bind),
    /// Takes a datagram, or gives up after this time.
    Receive {
        within: Option<Duration>,
    },
    /// Sends a datagram to the sender of the last one.
    Reply {
        len: u64,
    },
    Read(Read),
    Shutdown(Shutdown),
    Close,
    Abort,
    Set(Vec<Setting>),
    Wait(Wait),
    TakeError,
    Sleep(Duration),
    Repeat {
        times: u64,
        body: Vec<Step>,
    },
    Clients(Clients),
    Serve(Serve),
}

/// How much to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// This many bytes.
    Exactly(u64),
    /// Up to the end of the stream.
    Eof,
    /// Until the stream ends in any way.
    Closed,
}

/// The event to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Wait {
    Connected,
    Error,
    Writable,
    Closed,
    Flushed,
    Urgent,
}

/// Many connections to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Clients {
    pub count: u64,
    pub to: Endpoint,
    pub parallel: u64,
    pub send: u64,
    pub read: Option<u64>,
    pub every: Duration,
    pub from: Option<u16>,
}

/// A server.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Serve {
    pub port: u16,
    pub how: Service,
    pub backlog: Option<u32>,
    pub fast_open: bool,
    pub options: Vec<Setting>,
}

/// How a server treats a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Service {
    Echo,
    Sink,
    Stream(u64),
    Reply(u64),
    Close,
    Hold,
    Leak,
    Proxy(Endpoint),
}

/// One socket option.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Setting {
    Nodelay,
    Keepalive(Option<(Duration, Duration, u8)>),
    UserTimeout(Duration),
    Linger(Duration),
    FinTimeout(Duration),
    R2(Option<Duration>),
    MaxSegment(u16),
    ReceiveBuffer(u32),
    SendBuffer(u32),
    Ttl(u8),
    Dscp(u8),
    Congestion(CongestionControl),
}

impl Setting {
    /// Applies it to the options of a socket.
    pub fn apply(&self, options: &mut SocketOptions) {
        match self {
            Setting::Nodelay => options.nodelay = true,
            Setting::Keepalive(times) => {
                options.keepalive = true;
                if let Some((time, interval, probes)) = times {
                    options.keepalive_time = *time;
                    options.keepalive_intvl = *interval;
                    options.keepalive_probes = *probes;
                }
            }
            Setting::UserTimeout(d) => options.user_timeout = *d,
            Setting::Linger(d) => options.linger = Some(*d),
            Setting::FinTimeout(d) => options.fin_timeout = *d,
            Setting::R2(r2) => options.r2 = *r2,
            Setting::MaxSegment(n) => options.max_segment = Some(*n),
            Setting::ReceiveBuffer(n) => options.rcvbuf = *n,
            Setting::SendBuffer(n) => options.sndbuf = *n,
            Setting::Ttl(n) => options.ttl = *n,
            Setting::Dscp(n) => options.dscp = *n,
            Setting::Congestion(algorithm) => options.congestion = *algorithm,
        }
    }

    /// Returns socket options with these settings; `None` if there are none.
    pub fn all(settings: &[Setting], config: &Config) -> Option<SocketOptions> {
        let mut options = SocketOptions::new(config);
        settings.iter().for_each(|setting| setting.apply(&mut options));
        (!settings.is_empty()).then_some(options)
    }

    /// Parses a setting, or leaves the words alone.
    fn take(words: &mut Words<'_>) -> Understood<Option<Setting>> {
        let Some(word) = words.peek() else { return Ok(None) };
        let known = [
            "nodelay",
            "keepalive",
            "user_timeout",
            "linger",
            "fin_timeout",
            "r2",
            "maxseg",
            "rcvbuf",
            "sndbuf",
            "ttl",
            "dscp",
            "congestion",
        ];
        if !known.contains(&word) {
            return Ok(None);
        }
        words.next();
        let size =
            |words: &mut Words<'_>| words.parse("bytes", |w| u32::try_from(crate::text::size(w)?).ok());
        Ok(Some(match word {
            "keepalive" => match words.maybe(duration) {
                None => Setting::Keepalive(None),
                Some(time) => {
                    let interval = words.duration("the time between probes")?;
                    Setting::Keepalive(Some((time, interval, words.number("how many probes")?)))
                }
            },
            "user_timeout" => Setting::UserTimeout(words.duration("a duration")?),
            "linger" => Setting::Linger(words.duration("a duration")?),
            "fin_timeout" => Setting::FinTimeout(words.duration("a duration")?),
            "r2" => Setting::R2(if words.take("never") {
                None
            } else {
                Some(words.duration("a duration or `never`")?)
            }),
            "maxseg" => Setting::MaxSegment(words.number("bytes")?),
            "rcvbuf" => Setting::ReceiveBuffer(size(words)?),
            "sndbuf" => Setting::SendBuffer(size(words)?),
            "ttl" => Setting::Ttl(words.number("hops")?),
            "dscp" => Setting::Dscp(words.number("a code point")?),
            "congestion" => Setting::Congestion(words.parse("`reno` or `cubic`", |w| match w {
                "reno" => Some(CongestionControl::Reno),
                "cubic" => Some(CongestionControl::Cubic),
                _ => None,
            })?),
            _ => Setting::Nodelay,
        }))
    }
}

/// Parses `S:80`, `10.0.0.2:80` or `[fd00::2]:80`.
pub(crate) fn endpoint(text: &str) -> Option<Endpoint> {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some((Target::Address(address.ip()), address.port()));
    }
    let (host, port) = text.split_once(':')?;
    is_name(host).then_some(())?;
    Some((Target::Host(host.to_owned()), port.parse().ok()?))
}

/// Parses a port, with or without an address before it.
fn local(text: &str) -> Option<(Option<IpAddr>, u16)> {
    match text.parse::<std::net::SocketAddr>() {
        Ok(address) => Some((Some(address.ip()), address.port())),
        Err(_) => text.parse().ok().map(|port| (None, port)),
    }
}

/// Parses a step: optional `at T`, `after D` and `NAME:`, and a call.
pub(super) fn step(line: usize, condition: Condition, text: &str) -> Understood<Step> {
    let mut words = Words::new(text);
    let (mut at, mut after, mut socket) = (None, None, None);
    loop {
        if words.take("at") {
            at = Some(words.time("a time after `at`")?);
        } else if words.take("after") {
            after = Some(words.duration("a duration after `after`")?);
        } else if let Some(name) =
            words.maybe(|w| w.strip_suffix(':').filter(|n| is_name(n)).map(str::to_owned))
        {
            socket = Some(name);
        } else {
            break;
        }
    }
    let waits_only = words.is_empty() && (at.is_some() || after.is_some());
    let said = words.clone().rest().to_owned();
    let call = if waits_only { Call::Sleep(Duration::ZERO) } else { call(&mut words)? };
    words.end()?;
    Ok(Step { line, text: said, at, after, socket, call, condition, outcomes: Vec::new() })
}

const CALLS: &str = "a call: connect, listen, accept, send, read, shutdown, close, abort, set, wait, error, sleep, \
                     repeat, clients, serve, udp, receive or reply";

fn call(words: &mut Words<'_>) -> Understood<Call> {
    Ok(match words.word(CALLS)? {
        "connect" => connect(words)?,
        "listen" => listen(words)?,
        "accept" => Call::Accept { name: name(words)? },
        "send" => {
            let len = words.size("how many bytes")?;
            let chunk = if words.take("chunk") {
                let size = words.parse("bytes per call", |w| crate::text::size(w).filter(|n| *n > 0))?;
                let every = if words.take("every") {
                    words.duration("a duration after `every`")?
                } else {
                    Duration::ZERO
                };
                Some((size, every))
            } else {
                None
            };
            let to = if words.take("to") {
                Some(words.parse("where to send a datagram, such as `S:53`", endpoint)?)
            } else {
                None
            };
            let urgent = to.is_none() && words.take("urgent");
            Call::Send { len, chunk, to, urgent }
        }
        "read" => Call::Read(words.parse("how many bytes, `eof` or `closed`", |w| match w {
            "eof" => Some(Read::Eof),
            "closed" => Some(Read::Closed),
            w => crate::text::size(w).map(Read::Exactly),
        })?),
        "shutdown" => Call::Shutdown(words.parse("`write`, `read` or `both`", |w| match w {
            "write" => Some(Shutdown::Write),
            "read" => Some(Shutdown::Read),
            "both" => Some(Shutdown::Both),
            _ => None,
        })?),
        "udp" => datagrams::udp(words)?,
        "receive" => datagrams::receive(words)?,
        "reply" => Call::Reply { len: words.size("how many bytes")? },
        "close" => Call::Close,
        "abort" => Call::Abort,
        "set" => Call::Set(settings(words, true)?),
        "wait" => Call::Wait(words.parse(
            "`connected`, `error`, `writable`, `closed`, `flushed` or `urgent`",
            |w| match w {
                "connected" => Some(Wait::Connected),
                "error" => Some(Wait::Error),
                "writable" => Some(Wait::Writable),
                "closed" => Some(Wait::Closed),
                "flushed" => Some(Wait::Flushed),
                "urgent" => Some(Wait::Urgent),
                _ => None,
            },
        )?),
        "error" => Call::TakeError,
        "sleep" => Call::Sleep(words.duration("how long")?),
        "repeat" => Call::Repeat { times: words.number("how often")?, body: Vec::new() },
        "clients" => Call::Clients(clients(words)?),
        "serve" => Call::Serve(serve(words)?),
        other => return Err(format!("expected {CALLS}, found `{other}`")),
    })
}

/// Parses an optional `as NAME`.
fn name(words: &mut Words<'_>) -> Understood<Option<String>> {
    if !words.take("as") {
        return Ok(None);
    }
    words.parse("a name after `as`", |w| is_name(w).then(|| w.to_owned())).map(Some)
}

fn settings(words: &mut Words<'_>, required: bool) -> Understood<Vec<Setting>> {
    let mut all = Vec::new();
    while let Some(setting) = Setting::take(words)? {
        all.push(setting);
    }
    if required && all.is_empty() {
        return Err("expected a socket option such as `nodelay` or `keepalive`".to_owned());
    }
    Ok(all)
}

fn connect(words: &mut Words<'_>) -> Understood<Call> {
    let to = words.parse("whom to connect to, such as `S:80`", endpoint)?;
    let (mut from, mut as_name, mut fast_open, mut nowait, mut options) =
        (None, None, false, false, Vec::new());
    while let Some(word) = words.peek() {
        match word {
            "from" => {
                words.next();
                from = Some(words.parse("a local port or ADDR:PORT", local)?);
            }
            "as" => as_name = name(words)?,
            "fast-open" => fast_open = words.take("fast-open"),
            "nowait" => nowait = words.take("nowait"),
            _ => match Setting::take(words)? {
                Some(setting) => options.push(setting),
                None => {
                    return Err(format!(
                        "expected from, as, fast-open, nowait or a socket option, found `{word}`"
                    ));
                }
            },
        }
    }
    Ok(Call::Connect { to, from, name: as_name, fast_open, nowait, options })
}

fn listen(words: &mut Words<'_>) -> Understood<Call> {
    let on = words.parse("a port, or ADDR:PORT", local)?;
    let (mut backlog, mut fast_open, mut as_name, mut options) = (None, false, None, Vec::new());
    while let Some(word) = words.peek() {
        match word {
            "backlog" => {
                words.next();
                backlog = Some(words.number("how many connections")?);
            }
            "as" => as_name = name(words)?,
            "fast-open" => fast_open = words.take("fast-open"),
            _ => match Setting::take(words)? {
                Some(setting) => options.push(setting),
                None => {
                    return Err(format!(
                        "expected backlog, as, fast-open or a socket option, found `{word}`"
                    ));
                }
            },
        }
    }
    Ok(Call::Listen { on, backlog, fast_open, name: as_name, options })
}

fn clients(words: &mut Words<'_>) -> Understood<Clients> {
    let count = words.number("how many")?;
    words.parse("`to`", |w| (w == "to").then_some(()))?;
    let to = words.parse("whom to connect to, such as `S:80`", endpoint)?;
    let mut clients =
        Clients { count, to, parallel: 1, send: 0, read: None, every: Duration::ZERO, from: None };
    while let Some(word) = words.next() {
        match word {
            "parallel" => {
                clients.parallel = words.parse("a number from 1", |w| w.parse().ok().filter(|n| *n > 0))?
            }
            "send" => clients.send = words.size("how many bytes")?,
            "read" => clients.read = Some(words.size("how many bytes")?),
            "every" => clients.every = words.duration("a duration")?,
            "from" => clients.from = Some(words.number("a port")?),
            other => return Err(format!("expected parallel, send, read, every or from, found `{other}`")),
        }
    }
    Ok(clients)
}

fn serve(words: &mut Words<'_>) -> Understood<Serve> {
    let port = words.number("a port")?;
    let what =
        "what to do with connections: echo, sink, stream N, reply N, close, hold, leak or `proxy S:80`";
    let how = match words.word(what)? {
        "echo" => Service::Echo,
        "sink" | "discard" => Service::Sink,
        "stream" => Service::Stream(words.size("how many bytes")?),
        "reply" => Service::Reply(words.size("how many bytes")?),
        "close" => Service::Close,
        "hold" => Service::Hold,
        "leak" => Service::Leak,
        "proxy" => Service::Proxy(words.parse("whom to connect to, such as `S:80`", endpoint)?),
        other => return Err(format!("expected {what}, found `{other}`")),
    };
    let mut serve = Serve { port, how, backlog: None, fast_open: false, options: Vec::new() };
    while let Some(word) = words.peek() {
        match word {
            "backlog" => {
                words.next();
                serve.backlog = Some(words.number("how many connections")?);
            }
            "fast-open" => serve.fast_open = words.take("fast-open"),
            _ => match Setting::take(words)? {
                Some(setting) => serve.options.push(setting),
                None => {
                    return Err(format!("expected backlog, fast-open or a socket option, found `{word}`"));
                }
            },
        }
    }
    Ok(serve)
}

/// Parses the text after `=>`.
pub(super) fn outcome(text: &str) -> Understood<Outcome> {
    let mut words = Words::new(text);
    let what = "an outcome: ok, eof, an error such as ECONNRESET, a number, waits, killed or any";
    let what = words.parse(what, |w| {
        Some(match w {
            "ok" => Expected::Ok,
            "eof" => Expected::Eof,
            "waits" => Expected::Waits,
            "killed" => Expected::Killed,
            "any" => Expected::Any,
            name if is_error(name) => Expected::Error(name.to_owned()),
            number => Expected::Number(Bounds::parse(number)?),
        })
    })?;
    words.take("bytes");
    let at = if words.take("at") { Some(words.parse("a time after `at`", Times::parse)?) } else { None };
    words.end()?;
    Ok(Outcome { what, at })
}

/// Returns whether the stack has an error of this name.
fn is_error(name: &str) -> bool {
    use steadfast_core::Error::*;
    [
        WouldBlock,
        ConnectionRefused,
        ConnectionReset,
        ConnectionAborted,
        TimedOut,
        HostUnreachable,
        NetworkUnreachable,
        Prohibited,
        ProtocolUnavailable,
        AddrInUse,
        AddrNotAvailable,
        NotConnected,
        AlreadyConnected,
        BrokenPipe,
        InvalidArgument,
        NoSuchSocket,
        NoBufferSpace,
        MessageTooLong,
        DestinationAddressRequired,
    ]
    .iter()
    .any(|error| error.name() == name)
}

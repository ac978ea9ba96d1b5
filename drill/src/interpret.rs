//! Runs a script: each event at its time, and the verdict.

mod packets;
mod timing;

use std::collections::BTreeMap;
use std::net::IpAddr;

use steadfast_core::{Instant, Profile};

use super::ast::{Action, Call, Event, Expression, Script};
use super::call::{Calls, Ends, Judged, Understood};
use super::code::{self, Block, Memory, Stopped, Value};
use super::command;
use super::flow::Flow;
use super::lex::Position;
use super::options::ScriptOptions;
use super::subject::{Addresses, Errno, Refused, Subject};
use super::world::{Ended, World};
use super::{DrillOptions, IpVersion, Outcome, Verdict};

/// Why a run stopped.
#[derive(Clone, Debug)]
struct Stop {
    verdict: Verdict,
    at: Position,
    reason: String,
    details: String,
}

type Run<T = ()> = Result<T, Stop>;

struct Interpreter<'a> {
    script: &'a Script,
    settings: &'a ScriptOptions,
    options: &'a DrillOptions<'a>,
    world: World<'a>,
    memory: Memory,
    flows: Vec<Flow>,
    /// The flow of packets without ports.
    current: Option<usize>,
    /// The number of sockets created when that flow began.
    current_since: usize,
    next_port: u16,
    /// The start of the run in the stack's time, and the script's time of its first event.
    start: Instant,
    script_start: i64,
    /// The due time of the previous event.
    last_time: i64,
    notes: Vec<String>,
    /// The start of each blocking call, by its place in the script.
    begun: BTreeMap<Position, i64>,
    /// The last acknowledgment number of the stack, by flow.
    acked: BTreeMap<usize, u32>,
}

/// Returns whether the script contains an event that can fail.
pub(super) fn says_something(script: &Script) -> bool {
    script.events.iter().any(judges)
}

/// Plays a script against a subject that has the addresses of [`addresses`].
pub(super) fn run(
    script: &Script,
    settings: &ScriptOptions,
    options: &DrillOptions<'_>,
    subject: &mut dyn Subject,
) -> Outcome {
    let ip_version = settings.ip_version.unwrap_or(options.ip_version);
    let mut interpreter = Interpreter::new(script, settings, options, ip_version, subject);
    let result = interpreter.play();
    interpreter.clean_up();
    interpreter.outcome(result, ip_version)
}

/// Returns whether an event can fail.
fn judges(event: &Event) -> bool {
    match &event.action {
        Action::Packet(packet) => packet.direction == super::ast::Direction::Out,
        Action::Call(_) => true,
        Action::Command(command) => command.contains('|'),
        Action::Code(block) => block.asserts(),
    }
}

impl<'a> Interpreter<'a> {
    fn new(
        script: &'a Script,
        settings: &'a ScriptOptions,
        options: &'a DrillOptions<'a>,
        version: IpVersion,
        subject: &'a mut dyn Subject,
    ) -> Interpreter<'a> {
        let start = subject.now();
        Interpreter {
            script,
            settings,
            options,
            world: World::new(subject, Calls::new(ends(settings, version)), options.page),
            memory: Memory::default(),
            flows: Vec::new(),
            current: None,
            current_since: 0,
            next_port: 50_000,
            start,
            script_start: 0,
            last_time: 0,
            notes: Vec::new(),
            begun: BTreeMap::new(),
            acked: BTreeMap::new(),
        }
    }

    fn play(&mut self) -> Run {
        if let Some((at, reason)) = &self.settings.needs {
            return Err(Stop { verdict: Verdict::Skip, ..fail(*at, reason.clone()) });
        }
        for path in &self.settings.init_scripts {
            self.command(path, Position { line: 1, column: 1 })?;
        }
        for (at, text) in &self.script.init {
            self.command(text, *at)?;
        }
        self.start = self.world.now();
        for (index, event) in self.script.events.iter().enumerate() {
            if index == 0 {
                self.script_start = event.when.first();
            }
            self.event(index, event)?;
            self.check_ended()?;
        }
        self.await_pending()
    }

    fn event(&mut self, index: usize, event: &Event) -> Run {
        let due = self.due(event);
        match &event.action {
            Action::Packet(packet) if packet.direction == super::ast::Direction::Out => {
                let result = self.expect(event, packet, due);
                self.last_time = due.start;
                return self.forgiven(result, self.settings.non_fatal_packets);
            }
            Action::Packet(packet) => {
                self.wait_for(event, due)?;
                self.inject(event, packet)?;
            }
            Action::Call(call) => {
                self.wait_for(event, due)?;
                // Only one call is in progress at a time.
                self.await_pending()?;
                let result = self.call(index, event, call);
                self.forgiven_call(result, call)?;
            }
            Action::Command(text) => {
                self.wait_for(event, due)?;
                self.command(text, event.at)?;
            }
            Action::Code(block) => {
                self.wait_for(event, due)?;
                self.code(block, event.at)?;
            }
        }
        self.last_time = due.start;
        Ok(())
    }

    /// As `forgiven`, for a call. An option that the system lacks is forgiven too.
    fn forgiven_call(&mut self, result: Run, call: &Call) -> Run {
        let forgive = self.settings.non_fatal_calls;
        match result {
            Err(stop) if forgive && stop.verdict == Verdict::Skip && call.name.ends_with("sockopt") => {
                self.forgiven(Err(Stop { verdict: Verdict::Fail, ..stop }), true)
            }
            result => self.forgiven(result, forgive),
        }
    }

    /// Turns a failure into a note if the script declares it non-fatal.
    fn forgiven(&mut self, result: Run, forgive: bool) -> Run {
        match result {
            Err(stop) if forgive && stop.verdict == Verdict::Fail => {
                self.notes.push(format!("line {}: {}", stop.at.line, stop.reason));
                Ok(())
            }
            result => result,
        }
    }

    // Calls.

    fn call(&mut self, index: usize, event: &Event, call: &Call) -> Run {
        self.world.note(shown(event));
        self.begun.insert(event.at, self.elapsed(self.world.now()));
        match self.world.calls.decode(call).map_err(|refused| refusal(refused, event.at))? {
            Understood::Request(request) => self.world.call(index, request),
            Understood::Error(errno) => return self.verify(event, call, (Err(errno), None)),
            Understood::Nothing => return self.verify(event, call, (Ok(0), None)),
        }
        // A call without an end time must return before anything else happens.
        if call.until.is_none() { self.await_pending() } else { self.check_ended() }
    }

    fn never_returns(&self, event: &Event) -> Stop {
        fail(event.at, format!("`{}` never returns: nothing more happens", event.text))
    }

    /// Waits until the call in progress returns.
    fn await_pending(&mut self) -> Run {
        let Some(pending) = self.world.pending else { return self.check_ended() };
        let script = self.script;
        let event = &script.events[pending];
        let limit = self.world.now() + self.world.subject.patience();
        self.world.run_until(limit, |world| world.pending.is_none() || world.idle());
        if self.world.pending.is_some() {
            return Err(self.never_returns(event));
        }
        self.check_ended()
    }

    fn check_ended(&mut self) -> Run {
        let Some(ended) = self.world.ended.take() else { return Ok(()) };
        let script = self.script;
        let action = &script.events[ended.event].action;
        let result = self.judge_ended(ended);
        match action {
            Action::Call(call) => self.forgiven_call(result, call),
            _ => result,
        }
    }

    fn judge_ended(&mut self, ended: Ended) -> Run {
        let script = self.script;
        let event = &script.events[ended.event];
        let Action::Call(call) = &event.action else { return Ok(()) };
        let came = ended.result.map_err(|refused| refusal(refused, event.at))?;
        let judged = self.world.calls.judge(call, came).map_err(|refused| refusal(refused, event.at))?;
        if let Some(until) = call.until {
            self.world.note(format!("{} returns {}", call.name, returned(judged.0)));
            self.check_end(event, until, ended.at)?;
        }
        self.verify(event, call, judged)
    }

    fn verify(&self, event: &Event, call: &Call, (result, wrong): Judged) -> Run {
        let came = returned(result);
        let makes_descriptor = matches!(
            call.name.as_str(),
            "socket" | "accept" | "accept4" | "open" | "epoll_create" | "epoll_create1"
        );
        let right = match (&call.result, result) {
            (Expression::Any, _) => true,
            (Expression::Integer(-1), Err(errno)) => {
                call.errno.as_deref().is_none_or(|expected| same_errno(expected, errno))
            }
            (Expression::Integer(expected), Ok(came)) => {
                // The script numbers descriptors independently.
                *expected >= 0 && (makes_descriptor || *expected == came)
            }
            (expected, Ok(came)) => super::call::number(expected) == Some(came),
            _ => false,
        };
        if !right {
            let expected = expected_result(call);
            let reason = format!("{} returned {came}, expected {expected}", call.name);
            return Err(Stop {
                details: format!("script: {}\ncame:   = {came}\n", event.text),
                ..fail(event.at, reason)
            });
        }
        match wrong {
            Some(wrong) => Err(fail(event.at, format!("{}: {wrong}", call.name))),
            None => Ok(()),
        }
    }

    // Commands and code.

    fn command(&mut self, text: &str, at: Position) -> Run {
        self.world.note(format!("`{}`", text.trim()));
        let now = self.world.now();
        let done = command::run(text, &mut *self.world.subject, self.options.files);
        let done = done.map_err(|refused| match refused {
            command::Refused::Skip(reason) => Stop { verdict: Verdict::Skip, ..fail(at, reason) },
            command::Refused::Failed(reason) => fail(at, reason),
        })?;
        self.notes.extend(done.notes);
        self.world.settle();
        if !done.takes.is_zero() {
            self.world.run_until(now + done.takes, |_| false);
        }
        Ok(())
    }

    fn code(&mut self, block: &Block, at: Position) -> Run {
        let world = &self.world;
        let info = world.calls.under_test.and_then(|fd| world.subject.tcp_info(fd)).unwrap_or_default();
        let lookup = |name: &str| -> Option<Value> {
            let field = name.strip_prefix("tcpi_").and_then(|field| info.fields.get(field));
            field.map(|value| Value::Integer(*value)).or_else(|| code::constant(name))
        };
        let result = self.memory.run(block, &lookup);
        for line in std::mem::take(&mut self.memory.printed) {
            self.notes.push(format!("line {}: printed {line}", at.line));
        }
        result.map_err(|stopped| match stopped {
            Stopped::Failed(at, reason) => fail(at, reason),
            Stopped::Unknown(name) if name.starts_with("tcpi_") && !info.connection => {
                fail(at, format!("{name}: there is no socket under test that is connected"))
            }
            Stopped::Unknown(name) if name.starts_with("tcpi_") || name.starts_with("TCP") => {
                let reason = format!("the stack does not keep {name}");
                Stop { verdict: Verdict::Skip, ..fail(at, reason) }
            }
            Stopped::Unknown(name) => fail(at, format!("code: `{name}` is not defined")),
            Stopped::Foreign(at, word) => {
                Stop { verdict: Verdict::Skip, ..fail(at, format!("code: `{word}` is not interpreted")) }
            }
        })
    }

    /// Runs the clean-up commands. They run after every verdict and cannot change it.
    fn clean_up(&mut self) {
        for (at, text) in &self.script.cleanup {
            if let Err(stop) = self.command(text, *at) {
                self.notes.push(format!("clean-up: {}", stop.reason));
            }
        }
    }

    fn outcome(self, result: Run, ip_version: IpVersion) -> Outcome {
        let took = self.world.now().saturating_since(self.start);
        let ladder = super::report::ladder(&self.world.record, &self.flows, self.start);
        let pcap = if self.options.capture {
            super::report::packets(&self.world.record, "script")
        } else {
            Vec::new()
        };
        let chapters = if self.options.page {
            super::report::chapters(&self.world.record, self.start, &addresses(self.settings, self.options))
        } else {
            Vec::new()
        };
        let pass = Outcome {
            verdict: Verdict::Pass,
            ip_version,
            at: None,
            reason: String::new(),
            details: String::new(),
            ladder,
            notes: self.notes,
            took,
            pcap,
            chapters,
        };
        match result {
            Ok(()) => pass,
            Err(stop) => Outcome {
                verdict: stop.verdict,
                at: Some(stop.at),
                reason: stop.reason,
                details: stop.details,
                ..pass
            },
        }
    }
}

fn fail(at: Position, reason: String) -> Stop {
    Stop { verdict: Verdict::Fail, at, reason, details: String::new() }
}

fn refusal(refused: Refused, at: Position) -> Stop {
    match refused {
        Refused::Skip(reason) => Stop { verdict: Verdict::Skip, ..fail(at, reason) },
        Refused::Wrong(reason) => fail(at, reason),
    }
}

/// The text of an event without its time.
fn shown(event: &Event) -> String {
    event.text.split_once(' ').map_or(event.text.clone(), |(_, rest)| rest.to_owned())
}

fn returned(result: Result<i64, Errno>) -> String {
    match result {
        Ok(value) => value.to_string(),
        Err(errno) => format!("-1 {errno}"),
    }
}

fn expected_result(call: &Call) -> String {
    let value = match &call.result {
        Expression::Integer(number) => number.to_string(),
        Expression::Symbol(name) => name.clone(),
        _ => "another value".to_owned(),
    };
    match &call.errno {
        Some(errno) => format!("{value} {errno}"),
        None => value,
    }
}

/// Compares errors; some have two names.
fn same_errno(expected: &str, came: Errno) -> bool {
    expected == came || matches!((expected, came), ("EWOULDBLOCK", "EAGAIN") | ("ENOTSUP", "EOPNOTSUPP"))
}

/// The addresses that the subject must have.
pub(super) fn addresses(settings: &ScriptOptions, options: &DrillOptions<'_>) -> Addresses {
    let Ends { local, remote, .. } = ends(settings, settings.ip_version.unwrap_or(options.ip_version));
    // The IPv6 header is 20 bytes larger.
    let for_both = settings.ip_version.is_none() && local.is_ipv6() && options.profile != Profile::FreeBsd;
    let mtu = settings.mtu.or(options.mtu).unwrap_or(if for_both { 1520 } else { 1500 });
    Addresses { local, prefix_len: if local.is_ipv6() { 64 } else { 16 }, remote, mtu }
}

/// The addresses of a run.
fn ends(settings: &ScriptOptions, version: IpVersion) -> Ends {
    let v6 = version == IpVersion::V6;
    let (local, remote): (IpAddr, IpAddr) = if v6 {
        ([0xfd3d, 0x0a0b, 0x17d6, 0, 0, 0, 0, 1].into(), [0xfd3d, 0xfa7b, 0xd17d, 0, 0, 0, 0, 1].into())
    } else {
        ([192, 168, 0, 1].into(), [192, 0, 2, 1].into())
    };
    // The script may set addresses for runs with the other IP version.
    let of =
        |given: Option<IpAddr>, default: IpAddr| given.filter(|ip| ip.is_ipv6() == v6).unwrap_or(default);
    Ends {
        local: of(settings.local_ip, local),
        remote: of(settings.remote_ip, remote),
        bind_port: settings.bind_port,
        connect_port: settings.connect_port,
        ipv6_sockets: version != IpVersion::V4,
    }
}

//! A program: it runs the steps of a script in order.

use std::net::SocketAddr;
use std::sync::Arc;

use steadfast_core::{ConnectOptions, Duration, Error, Event, Instant, ListenOptions, SocketId};

use super::clients::Crowd;
use super::io::Reading;
use super::serve::Server;
use super::{AppContext, Got, Io, Mismatch};
use crate::scenario::script::{App, Bind, Call, DatagramSetting, Expected, Read, Setting, Step, Wait};
use crate::text::Tolerance;

/// A step, or the start or end of a repetition.
#[derive(Clone, Debug)]
enum Op {
    Step(Arc<Step>),
    Begin { times: u64, end: usize },
    End { begin: usize },
}

/// The progress of the current step.
enum Progress {
    Fresh,
    Connecting(SocketId),
    Sending { left: u64, next: Instant },
    Reading { got: u64 },
    Receiving { until: Option<Instant> },
    Crowd(Box<Crowd>),
    Server(Box<Server>),
}

/// A running program.
pub(crate) struct Program {
    ops: Vec<Op>,
    at: usize,
    loops: Vec<u64>,
    socket: Option<SocketId>,
    listener: Option<SocketId>,
    progress: Progress,
    /// When the previous step ended.
    since: Instant,
    wakes_at: Option<Instant>,
}

impl Program {
    pub(crate) fn new(app: &App, now: Instant) -> Program {
        let mut ops = Vec::new();
        flatten(&app.steps, &mut ops);
        Program {
            ops,
            at: 0,
            loops: Vec::new(),
            socket: None,
            listener: None,
            progress: Progress::Fresh,
            since: now,
            wakes_at: Some(now),
        }
    }

    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.wakes_at
    }

    /// Returns the step that the program waits in, if that step was supposed to end.
    pub(crate) fn stuck(&self) -> Option<&Step> {
        match self.ops.get(self.at)? {
            Op::Step(step) if matches!(step.call, Call::Serve(_)) => None,
            Op::Step(step)
                if step.outcome().is_some_and(|o| matches!(o.what, Expected::Waits | Expected::Any)) =>
            {
                None
            }
            Op::Step(step) => Some(step),
            Op::Begin { .. } | Op::End { .. } => None,
        }
    }

    /// Runs until a step must wait.
    pub(crate) fn run(
        &mut self,
        io: &mut Io,
        context: &mut AppContext<'_>,
        changed: &[(SocketId, Event)],
        mismatches: &mut Vec<Mismatch>,
    ) {
        self.wakes_at = None;
        while let Some(op) = self.ops.get(self.at) {
            let step = match op {
                Op::Begin { times, end } => {
                    if *times == 0 {
                        self.at = end + 1;
                    } else {
                        self.loops.push(*times);
                        self.at += 1;
                    }
                    continue;
                }
                Op::End { begin } => {
                    let begin = *begin;
                    self.end_of_turn(begin);
                    continue;
                }
                Op::Step(step) => Arc::clone(step),
            };
            let Some(got) = self.step(&step, io, context, changed) else { return };
            self.since = context.now;
            self.progress = Progress::Fresh;
            self.at += 1;
            if let Some(surprise) = judge(&step, &got, context.now, context.tolerance) {
                mismatches.push(Mismatch { line: step.line, text: surprise });
            }
            if context.lenient && self.gives_up(&step, &got, io, context) {
                return;
            }
        }
        if self.at == self.ops.len() {
            self.at += 1;
            io.bury(context);
        }
    }

    fn end_of_turn(&mut self, begin: usize) {
        match self.loops.last_mut() {
            Some(left) if *left > 1 => {
                *left -= 1;
                self.at = begin + 1;
            }
            _ => {
                self.loops.pop();
                self.at += 1;
            }
        }
    }

    /// If outcomes are not judged, ends the program and closes its sockets at a call that fails unexpectedly.
    fn gives_up(&mut self, step: &Step, got: &Got, io: &mut Io, context: &mut AppContext<'_>) -> bool {
        let foreseen = matches!(step.outcome().map(|o| &o.what), Some(Expected::Error(_) | Expected::Any));
        if foreseen || !matches!(got, Got::Error(_) | Got::EarlyEof(_)) {
            return false;
        }
        for id in [self.socket.take(), self.listener.take()].into_iter().flatten() {
            let _gone = io.close(context, id);
        }
        self.at = self.ops.len() + 1;
        true
    }

    /// Runs a step. `None` if it must wait.
    fn step(
        &mut self,
        step: &Step,
        io: &mut Io,
        context: &mut AppContext<'_>,
        changed: &[(SocketId, Event)],
    ) -> Option<Got> {
        if matches!(self.progress, Progress::Fresh) {
            let sleep = if let Call::Sleep(d) = &step.call { *d } else { Duration::ZERO };
            let start = self.since + step.after.unwrap_or(Duration::ZERO) + sleep;
            let start = step.at.map_or(start, |at| start.max(at));
            if start > context.now {
                self.wakes_at = Some(start);
                return None;
            }
        }
        let id = match &step.socket {
            Some(name) => io.names.get(name).copied(),
            None if matches!(step.call, Call::Accept { .. }) => self.listener,
            None => self.socket.or(self.listener),
        };
        let got = match &step.call {
            Call::Sleep(_) => Some(Got::Done),
            Call::Repeat { .. } => Some(Got::Done),
            Call::Connect { .. } => return self.connect(step, io, context),
            Call::Listen { .. } => Some(self.listen(step, io, context)),
            Call::Udp(bind) => Some(self.bind_udp(bind, io, context)),
            Call::Clients(clients) => {
                if matches!(self.progress, Progress::Fresh) {
                    context.record(|| step.text.clone());
                    self.progress = Progress::Crowd(Box::new(Crowd::new(clients.clone(), context.now)));
                }
                let Progress::Crowd(crowd) = &mut self.progress else { return None };
                let got = crowd.run(io, context, changed);
                self.wakes_at = crowd.wakes_at();
                got
            }
            Call::Serve(serve) => {
                if matches!(self.progress, Progress::Fresh) {
                    context.record(|| step.text.clone());
                    match Server::new(serve.clone(), io, context) {
                        Ok(server) => self.progress = Progress::Server(Box::new(server)),
                        Err(error) => return Some(Got::Error(error)),
                    }
                }
                let Progress::Server(server) = &mut self.progress else { return None };
                server.run(io, context, changed);
                return None;
            }
            _ => match id {
                None => Some(Got::Error(Error::NoSuchSocket)),
                Some(id) => self.on_socket(step, id, io, context),
            },
        };
        if let Some(got) = &got
            && !matches!(step.call, Call::Sleep(_))
        {
            describe(context, step, got);
        }
        got
    }

    fn connect(&mut self, step: &Step, io: &mut Io, context: &mut AppContext<'_>) -> Option<Got> {
        let Call::Connect { to, from, name, fast_open, nowait, options } = &step.call else { return None };
        let id = match self.progress {
            Progress::Connecting(id) => id,
            _ => {
                context.record(|| step.text.clone());
                let Some(remote) = context.directory.resolve(to) else {
                    return Some(Got::Error(Error::InvalidArgument));
                };
                let (local_address, local_port) = from.map_or((None, None), |(a, p)| (a, Some(p)));
                let socket = Setting::all(options, context.stack.config());
                let connect = ConnectOptions { local_address, local_port, fast_open: *fast_open, socket };
                match io.connect(context, remote, connect) {
                    Err(error) => {
                        context.record(|| format!("connect = {}", error.name()));
                        return Some(Got::Error(error));
                    }
                    Ok(id) => {
                        self.socket = Some(id);
                        if let Some(name) = name {
                            io.name(name, id);
                        }
                        self.progress = Progress::Connecting(id);
                        id
                    }
                }
            }
        };
        if *nowait {
            return Some(Got::Done);
        }
        let got = io.connected(context, id)?;
        if let Got::Error(_) = got {
            // The handle is of no further use.
            let _gone = io.close(context, id);
            self.socket = None;
        }
        context.record(|| format!("connect = {got}"));
        Some(got)
    }

    fn listen(&mut self, step: &Step, io: &mut Io, context: &mut AppContext<'_>) -> Got {
        let Call::Listen { on, backlog, fast_open, name, options } = &step.call else { return Got::Done };
        let local = SocketAddr::new(on.0.unwrap_or_else(|| context.directory.unspecified()), on.1);
        let mut listen = ListenOptions { fast_open: *fast_open, ..ListenOptions::default() };
        listen.backlog = backlog.unwrap_or(listen.backlog);
        listen.socket = Setting::all(options, context.stack.config());
        match io.listen(context, local, listen) {
            Err(error) => Got::Error(error),
            Ok(id) => {
                self.listener = Some(id);
                if let Some(name) = name {
                    io.name(name, id);
                }
                Got::Done
            }
        }
    }

    fn on_socket(
        &mut self,
        step: &Step,
        id: SocketId,
        io: &mut Io,
        context: &mut AppContext<'_>,
    ) -> Option<Got> {
        let told = |result: Result<(), Error>| Some(result.map_or_else(Got::Error, |()| Got::Done));
        match &step.call {
            Call::Accept { name } => match io.accept(context, id) {
                Err(Error::WouldBlock) => None,
                Err(error) => Some(Got::Error(error)),
                Ok(id) => {
                    self.socket = Some(id);
                    if let Some(name) = name {
                        io.name(name, id);
                    }
                    Some(Got::Done)
                }
            },
            Call::Send { len, chunk, to, .. } if io.is_udp(id) => {
                let to = to.as_ref().and_then(|to| context.directory.resolve(to));
                self.send_datagrams(id, *len, *chunk, to, io, context)
            }
            Call::Send { to: Some(_), .. } => Some(Got::Error(Error::InvalidArgument)),
            Call::Send { len, chunk, urgent, .. } => self.send(id, (*len, *chunk, *urgent), io, context),
            Call::Receive { within } => self.receive(id, *within, io, context),
            Call::Reply { len } => match io.last_sender(id) {
                None => Some(Got::Error(Error::DestinationAddressRequired)),
                to => self.send_datagrams(id, *len, None, to, io, context),
            },
            Call::Read(how) => self.read(id, *how, io, context),
            Call::Shutdown(how) => told(io.shutdown(context, id, *how)),
            Call::Close | Call::Abort => {
                for current in [&mut self.socket, &mut self.listener] {
                    if *current == Some(id) {
                        *current = None;
                    }
                }
                told(if matches!(step.call, Call::Close) {
                    io.close(context, id)
                } else {
                    io.abort(context, id)
                })
            }
            Call::Set(settings) => told(context.stack.options(id).and_then(|mut options| {
                settings.iter().for_each(|setting| setting.apply(&mut options));
                context.stack.set_options(context.host_now, id, options)
            })),
            Call::Wait(what) => wait(*what, id, io, context),
            Call::TakeError => Some(match io.take_error(context, id) {
                Ok(None) => Got::Done,
                Ok(Some(error)) | Err(error) => Got::Error(error),
            }),
            _ => Some(Got::Done),
        }
    }

    /// The rest of `len` bytes to send, and when its next chunk is due.
    fn sending(&self, len: u64, now: Instant) -> (u64, Instant) {
        match self.progress {
            Progress::Sending { left, next } => (left, next),
            _ => (len, now),
        }
    }

    fn send(
        &mut self,
        id: SocketId,
        (len, chunk, urgent): (u64, Option<(u64, Duration)>, bool),
        io: &mut Io,
        context: &mut AppContext<'_>,
    ) -> Option<Got> {
        let (mut left, mut next) = self.sending(len, context.now);
        let (size, every) = chunk.unwrap_or((u64::MAX, Duration::ZERO));
        loop {
            if left == 0 {
                return Some(Got::Done);
            }
            if next > context.now {
                self.wakes_at = Some(next);
                break;
            }
            match io.write_as(context, id, left.min(size), urgent) {
                Ok(sent) => {
                    left -= sent;
                    next = context.now + every;
                }
                Err(Error::WouldBlock) => break,
                Err(error) => return Some(Got::Error(error)),
            }
        }
        self.progress = Progress::Sending { left, next };
        None
    }

    fn read(&mut self, id: SocketId, how: Read, io: &mut Io, context: &mut AppContext<'_>) -> Option<Got> {
        let mut got = match self.progress {
            Progress::Reading { got } => got,
            _ => 0,
        };
        let wanted = if let Read::Exactly(n) = how { n } else { u64::MAX };
        loop {
            if got == wanted {
                return Some(Got::Done);
            }
            match io.read(context, id, wanted - got) {
                Ok(Reading::Bytes(n)) => got += n,
                Ok(Reading::Eof) if how == Read::Exactly(wanted) => return Some(Got::EarlyEof(got)),
                Ok(Reading::Eof) => return Some(Got::Eof(got)),
                Err(Error::WouldBlock) => break,
                Err(error) => return Some(Got::Error(error)),
            }
        }
        self.progress = Progress::Reading { got };
        None
    }
}

/// Calls on UDP sockets.
impl Program {
    fn bind_udp(&mut self, bind: &Bind, io: &mut Io, context: &mut AppContext<'_>) -> Got {
        let local = SocketAddr::new(bind.on.0.unwrap_or_else(|| context.directory.unspecified()), bind.on.1);
        let peer = bind.to.as_ref().and_then(|to| context.directory.resolve(to));
        let options = DatagramSetting::all(&bind.options, context.stack.config());
        match io.bind_udp(context, local, peer, options) {
            Err(error) => Got::Error(error),
            Ok(id) => {
                self.socket = Some(id);
                if let Some(name) = &bind.name {
                    io.names.insert(name.clone(), id);
                }
                Got::Done
            }
        }
    }

    /// Sends `len` bytes in datagrams of the size of a chunk, or in one.
    fn send_datagrams(
        &mut self,
        id: SocketId,
        len: u64,
        chunk: Option<(u64, Duration)>,
        to: Option<SocketAddr>,
        io: &mut Io,
        context: &mut AppContext<'_>,
    ) -> Option<Got> {
        let (mut left, mut next) = self.sending(len, context.now);
        let (size, every) = chunk.unwrap_or((u64::MAX, Duration::ZERO));
        loop {
            if next > context.now {
                self.wakes_at = Some(next);
                break;
            }
            let one = left.min(size);
            match io.send_datagram(context, id, one, to) {
                Ok(()) if one == left => return Some(Got::Done),
                Ok(()) => {
                    left -= one;
                    next = context.now + every;
                }
                Err(Error::WouldBlock) => break,
                Err(error) => return Some(Got::Error(error)),
            }
        }
        self.progress = Progress::Sending { left, next };
        None
    }

    fn receive(
        &mut self,
        id: SocketId,
        within: Option<Duration>,
        io: &mut Io,
        context: &mut AppContext<'_>,
    ) -> Option<Got> {
        let until = match self.progress {
            Progress::Receiving { until } => until,
            _ => within.map(|within| context.now + within),
        };
        match io.receive(context, id) {
            Ok(len) => Some(Got::Datagram(len)),
            Err(Error::WouldBlock) if until.is_none_or(|until| until > context.now) => {
                self.wakes_at = until;
                self.progress = Progress::Receiving { until };
                None
            }
            Err(error) => Some(Got::Error(error)),
        }
    }
}

fn flatten(steps: &[Step], ops: &mut Vec<Op>) {
    for step in steps {
        let Call::Repeat { times, body } = &step.call else {
            ops.push(Op::Step(Arc::new(step.clone())));
            continue;
        };
        let begin = ops.len();
        ops.push(Op::Begin { times: *times, end: 0 });
        flatten(body, ops);
        ops.push(Op::End { begin });
        let end = ops.len() - 1;
        ops[begin] = Op::Begin { times: *times, end };
    }
}

fn wait(what: Wait, id: SocketId, io: &mut Io, context: &mut AppContext<'_>) -> Option<Got> {
    let events = io.events(id);
    let over = events.contains(Event::ERROR) || events.contains(Event::CLOSED);
    match what {
        Wait::Connected => io.connected(context, id),
        Wait::Writable => events.contains(Event::WRITABLE).then_some(Got::Done),
        Wait::Urgent => events.contains(Event::URGENT).then_some(Got::Done),
        Wait::Closed => over.then_some(Got::Done),
        Wait::Error => match io.take_error(context, id) {
            Ok(Some(error)) | Err(error) => Some(Got::Error(error)),
            Ok(None) => None,
        },
        Wait::Flushed => match context.stack.queued(context.host_now, id) {
            Ok((_, unacknowledged)) => (unacknowledged == 0).then_some(Got::Done),
            Err(_) => over.then(|| match io.take_error(context, id) {
                Ok(Some(error)) | Err(error) => Got::Error(error),
                Ok(None) => Got::Done,
            }),
        },
    }
}

/// Notes a completed step in the ladder.
fn describe(context: &mut AppContext<'_>, step: &Step, got: &Got) {
    let plain = matches!(
        step.call,
        Call::Listen { .. }
            | Call::Send { .. }
            | Call::Udp(_)
            | Call::Reply { .. }
            | Call::Shutdown(_)
            | Call::Close
            | Call::Abort
            | Call::Set(_)
    );
    context.record(|| match got {
        Got::Done if plain => step.text.clone(),
        got => format!("{} = {got}", step.text),
    });
}

/// Compares the result of a step with the expected one. Returns a description of the difference.
fn judge(step: &Step, got: &Got, now: Instant, tolerance: Tolerance) -> Option<String> {
    let outcome = step.outcome();
    let fits = match outcome.map_or(&Expected::Ok, |outcome| &outcome.what) {
        Expected::Any => true,
        Expected::Waits | Expected::Killed => false,
        Expected::Eof => matches!(got, Got::Eof(_) | Got::EarlyEof(_)),
        Expected::Error(name) => matches!(got, Got::Error(error) if error.name() == name),
        Expected::Number(bounds) => match got {
            Got::Eof(n) | Got::EarlyEof(n) | Got::Datagram(n) | Got::Number { got: n, .. } => {
                bounds.contains(*n)
            }
            Got::Done | Got::Error(_) => false,
        },
        Expected::Ok => match got {
            Got::Done | Got::Eof(_) | Got::Datagram(_) => true,
            Got::Number { got, wanted } => got == wanted,
            Got::EarlyEof(_) => false,
            // A step that waits for any kind of end succeeds with an error, too.
            Got::Error(_) => {
                outcome.is_none() && matches!(step.call, Call::Read(Read::Closed) | Call::Wait(Wait::Error))
            }
        },
    };
    let in_time = outcome.and_then(|outcome| outcome.at).is_none_or(|at| at.contains(now, tolerance));
    if fits && in_time {
        return None;
    }
    let wanted = outcome.map_or_else(|| "ok".to_owned(), ToString::to_string);
    Some(format!("`{}` gave {got} at {now}, expected {wanted}", step.text))
}

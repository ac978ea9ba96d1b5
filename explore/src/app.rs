//! Applications: they play the steps of a program with the calls of a stack.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use bytes::Bytes;
use steadfast_core::{ConnectOptions, Error, Event, Instant, ListenOptions, Shutdown, SocketId, Stack};
use steadfast_lab::scenario::script::{Expected, Read, Setting, Wait};

use crate::program::{Action, Op};
use crate::streams::Streams;

/// The progress of an application.
#[derive(Clone, Debug)]
pub(crate) struct App {
    /// Its place in the program.
    index: usize,
    at: usize,
    /// When the step before ended.
    pub(crate) since: Instant,
    /// Bytes that the step has sent or read.
    done: u64,
    /// The step has called its stack.
    begun: bool,
    last: Option<usize>,
    listener: Option<usize>,
    sockets: Vec<Option<Socket>>,
    pub(crate) wakes_at: Option<Instant>,
    /// It met what its program does not expect, and ended.
    pub(crate) gave_up: bool,
}

#[derive(Clone, Debug)]
struct Socket {
    id: SocketId,
    listens: bool,
    local: SocketAddr,
    remote: SocketAddr,
    writes: usize,
    reads: Option<usize>,
    read: u64,
    events: Event,
    /// A call has told of the error that ended it. Later reads return zero, as POSIX has it.
    failed: bool,
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    Done,
    Eof(u64),
    EarlyEof(u64),
    Error(Error),
}

/// The surroundings of an application.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) stack: &'a mut Stack,
    pub(crate) streams: &'a mut Streams,
    /// A rule that was broken, or an outcome that was not expected.
    pub(crate) wrong: &'a mut Option<String>,
    /// Outcomes are judged.
    pub(crate) strict: bool,
    pub(crate) accepts: &'a mut u32,
    pub(crate) connects: &'a mut u32,
}

impl Context<'_> {
    fn blame(&mut self, text: String) {
        self.wrong.get_or_insert(text);
    }
}

impl App {
    pub(crate) fn new(index: usize, now: Instant) -> App {
        App {
            index,
            at: 0,
            since: now,
            done: 0,
            begun: false,
            last: None,
            listener: None,
            sockets: Vec::new(),
            wakes_at: None,
            gave_up: false,
        }
    }

    /// The step that it waits in, if that should end.
    pub(crate) fn stuck<'a>(&self, program: &'a [Vec<Op>]) -> Option<&'a Op> {
        let op = program[self.index].get(self.at)?;
        (!matches!(op.expected, Expected::Waits | Expected::Any)).then_some(op)
    }

    pub(crate) fn happened(&mut self, id: SocketId, event: Event) {
        for socket in self.sockets.iter_mut().flatten().filter(|socket| socket.id == id) {
            socket.events |= event;
        }
    }

    /// Hashes what decides how it goes on. A socket is known by its ends, and by whether its connection still lives.
    pub(crate) fn hash(&self, now: Instant, stack: &Stack, state: &mut impl Hasher) {
        let App { index, at, since: _, done, begun, last, listener, sockets, wakes_at, gave_up } = self;
        (index, at, done, begun, last, listener, gave_up).hash(state);
        wakes_at.map(|at| at.saturating_since(now)).hash(state);
        for socket in sockets {
            let Some(socket) = socket else {
                false.hash(state);
                continue;
            };
            let Socket { id, listens, local, remote, writes, reads, read, events, failed } = socket;
            (listens, local, remote, writes, reads, read, events, failed).hash(state);
            stack.info(now, *id).map(|info| info.state).hash(state);
        }
    }

    /// Goes as far as it can.
    pub(crate) fn run(&mut self, program: &[Vec<Op>], context: &mut Context<'_>) {
        self.wakes_at = None;
        while let Some(op) = program[self.index].get(self.at).filter(|_| !self.gave_up) {
            let start = op.at.map_or(self.since + op.after, |at| at.max(self.since + op.after));
            if !self.begun && start > context.now {
                self.wakes_at = Some(start);
                return;
            }
            let Some(got) = self.step(op, context) else {
                self.begun = true;
                return;
            };
            (self.since, self.done, self.begun) = (context.now, 0, false);
            self.at += 1;
            if !fits(op, got) {
                if context.strict {
                    context.blame(format!("`{}` gave {got:?}", op.text));
                }
                self.close_all(context);
                self.gave_up = true;
            }
        }
    }

    /// Closes every handle.
    pub(crate) fn close_all(&mut self, context: &mut Context<'_>) {
        for place in 0..self.sockets.len() {
            // A connection that an error ended is gone already.
            let _gone = self.close(place, context);
        }
        self.at = usize::MAX;
    }

    fn step(&mut self, op: &Op, context: &mut Context<'_>) -> Option<Got> {
        let told = |result: Result<(), Error>| Some(result.map_or_else(Got::Error, |()| Got::Done));
        match &op.call {
            Action::Sleep => return Some(Got::Done),
            Action::Connect { .. } => return self.connect(&op.call, context),
            Action::Listen { local, backlog, fast_open, options, place } => {
                let local = *local;
                let mut listen = ListenOptions { fast_open: *fast_open, ..ListenOptions::default() };
                listen.backlog = backlog.unwrap_or(listen.backlog);
                listen.socket = Setting::all(options, context.stack.config());
                return match context.stack.listen(local, listen) {
                    Err(error) => Some(Got::Error(error)),
                    Ok(id) => {
                        self.put(*place, Socket::new(id, true, local, local, 0));
                        self.listener = Some(*place);
                        Some(Got::Done)
                    }
                };
            }
            _ => {}
        }
        let default = if matches!(op.call, Action::Accept { .. }) {
            self.listener
        } else {
            self.last.or(self.listener)
        };
        let Some(place) = op.socket.or(default) else { return Some(Got::Error(Error::NoSuchSocket)) };
        let Some(socket) = self.sockets.get_mut(place).and_then(Option::as_mut) else {
            return Some(Got::Error(Error::NoSuchSocket));
        };
        let id = socket.id;
        match &op.call {
            Action::Accept { place } => match context.stack.accept(id) {
                Err(Error::WouldBlock) => None,
                Err(error) => Some(Got::Error(error)),
                Ok((id, remote)) => {
                    *context.accepts += 1;
                    let local = context.stack.local_addr(id).unwrap_or(remote);
                    let writes = context.streams.open(local, remote);
                    self.put(*place, Socket::new(id, false, local, remote, writes));
                    self.last = Some(*place);
                    Some(Got::Done)
                }
            },
            Action::Send { len, urgent } => send(socket, (*len, *urgent), &mut self.done, context),
            Action::Read(how) => read(socket, *how, &mut self.done, context),
            Action::Shutdown(how) => {
                if *how != Shutdown::Read {
                    context.streams.end(socket.writes);
                }
                told(context.stack.shutdown(context.now, id, *how))
            }
            Action::Close => told(self.close(place, context)),
            Action::Abort => {
                self.sockets[place] = None;
                told(context.stack.abort(context.now, id))
            }
            Action::Set(settings) => told(context.stack.options(id).cloned().and_then(|mut options| {
                settings.iter().for_each(|setting| setting.apply(&mut options));
                context.stack.set_options(context.now, id, options)
            })),
            Action::Wait(what) => wait(socket, *what, context),
            Action::Sleep | Action::Connect { .. } | Action::Listen { .. } => Some(Got::Done),
        }
    }

    fn connect(&mut self, call: &Action, context: &mut Context<'_>) -> Option<Got> {
        let Action::Connect { to, port, fast_open, nowait, options, place } = call else { return None };
        if !self.begun {
            let socket = Setting::all(options, context.stack.config());
            let connect =
                ConnectOptions { local_address: None, local_port: *port, fast_open: *fast_open, socket };
            let id = match context.stack.connect(context.now, *to, connect) {
                Err(error) => return Some(Got::Error(error)),
                Ok(id) => id,
            };
            *context.connects += 1;
            let local = context.stack.local_addr(id).unwrap_or(*to);
            let writes = context.streams.open(local, *to);
            self.put(*place, Socket::new(id, false, local, *to, writes));
            self.last = Some(*place);
        }
        if *nowait {
            return Some(Got::Done);
        }
        let socket = self.sockets[*place].as_ref()?;
        let got = connected(socket, context)?;
        if let Got::Error(_) = got {
            // The handle is of no further use.
            let _gone = self.close(*place, context);
        }
        Some(got)
    }

    fn put(&mut self, place: usize, socket: Socket) {
        if self.sockets.len() <= place {
            self.sockets.resize(place + 1, None);
        }
        self.sockets[place] = Some(socket);
    }

    fn close(&mut self, place: usize, context: &mut Context<'_>) -> Result<(), Error> {
        for current in [&mut self.last, &mut self.listener] {
            if *current == Some(place) {
                *current = None;
            }
        }
        let Some(socket) = self.sockets[place].take() else { return Ok(()) };
        if !socket.listens {
            context.streams.end(socket.writes);
        }
        context.stack.close(context.now, socket.id)
    }
}

impl Socket {
    fn new(id: SocketId, listens: bool, local: SocketAddr, remote: SocketAddr, writes: usize) -> Socket {
        Socket {
            id,
            listens,
            local,
            remote,
            writes,
            reads: None,
            read: 0,
            events: Event::default(),
            failed: false,
        }
    }
}

/// Compares the outcome of a step with the expected one.
fn fits(op: &Op, got: Got) -> bool {
    match &op.expected {
        Expected::Any => true,
        Expected::Waits | Expected::Killed => false,
        Expected::Eof => matches!(got, Got::Eof(_) | Got::EarlyEof(_)),
        Expected::Error(name) => matches!(got, Got::Error(error) if error.name() == name),
        Expected::Number(bounds) => matches!(got, Got::Eof(n) | Got::EarlyEof(n) if bounds.contains(n)),
        Expected::Ok => matches!(got, Got::Done | Got::Eof(_)),
    }
}

fn connected(socket: &Socket, context: &mut Context<'_>) -> Option<Got> {
    if socket.events.contains(Event::CONNECTED) {
        return Some(Got::Done);
    }
    is_over(socket).then(|| error_of(socket, context).unwrap_or(Got::Error(Error::NotConnected)))
}

fn is_over(socket: &Socket) -> bool {
    socket.events.contains(Event::ERROR) || socket.events.contains(Event::CLOSED)
}

fn error_of(socket: &Socket, context: &mut Context<'_>) -> Option<Got> {
    match context.stack.take_error(socket.id) {
        Ok(Some(error)) | Err(error) => Some(Got::Error(error)),
        Ok(None) => None,
    }
}

fn send(
    socket: &mut Socket,
    (len, urgent): (u64, bool),
    done: &mut u64,
    context: &mut Context<'_>,
) -> Option<Got> {
    while *done < len {
        let piece = context.streams.next(socket.writes, (len - *done).min(65_536) as usize);
        let sent = if urgent {
            context.stack.send_urgent(socket.id, &piece)
        } else {
            context.stack.send_bytes(socket.id, &mut Bytes::from(piece))
        };
        match sent {
            Ok(0) | Err(Error::WouldBlock) => return None,
            Ok(sent) => {
                context.streams.wrote(socket.writes, sent);
                *done += sent as u64;
            }
            Err(error) => {
                socket.failed = true;
                return Some(Got::Error(error));
            }
        }
    }
    Some(Got::Done)
}

fn read(socket: &mut Socket, how: Read, done: &mut u64, context: &mut Context<'_>) -> Option<Got> {
    let wanted = if let Read::Exactly(n) = how { n } else { u64::MAX };
    let ends = (socket.remote, socket.local);
    let mut buffer = [0; 2048];
    loop {
        if *done == wanted {
            return Some(Got::Done);
        }
        let room = (wanted - *done).min(buffer.len() as u64) as usize;
        match context.stack.recv(socket.id, &mut buffer[..room]) {
            Ok(0) => {
                if !socket.failed
                    && let Err(text) = context.streams.check_end(&mut socket.reads, ends, socket.read)
                {
                    context.blame(text);
                }
                let early = matches!(how, Read::Exactly(_));
                return Some(if early { Got::EarlyEof(*done) } else { Got::Eof(*done) });
            }
            Ok(read) => {
                let data = &buffer[..read];
                if let Err(text) = context.streams.check_read(&mut socket.reads, ends, socket.read, data) {
                    context.blame(text);
                }
                socket.read += read as u64;
                *done += read as u64;
            }
            Err(Error::WouldBlock) => return None,
            // Any end is one.
            Err(_) if how == Read::Closed => return Some(Got::Done),
            Err(error) => return Some(Got::Error(error)),
        }
    }
}

fn wait(socket: &Socket, what: Wait, context: &mut Context<'_>) -> Option<Got> {
    match what {
        Wait::Connected => connected(socket, context),
        Wait::Writable => socket.events.contains(Event::WRITABLE).then_some(Got::Done),
        Wait::Urgent => socket.events.contains(Event::URGENT).then_some(Got::Done),
        Wait::Closed => is_over(socket).then_some(Got::Done),
        Wait::Error => error_of(socket, context),
        Wait::Flushed => match context.stack.info(context.now, socket.id) {
            Ok(info) => (info.send_q == 0).then_some(Got::Done),
            Err(_) => is_over(socket).then(|| error_of(socket, context).unwrap_or(Got::Done)),
        },
    }
}

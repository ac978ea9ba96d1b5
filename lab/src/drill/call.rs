//! The system calls of a script: what their arguments mean, and whether what came back is what was said.

mod message;
mod readiness;
mod sockets;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use steadfast_core::{Instant, Shutdown};

use super::ast::{Call, Expression, Field};
use super::posix::{Errno, Lingering, Posix};
use super::symbol;

/// Addresses and ports that `...` stands for.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) bind_port: u16,
    pub(crate) connect_port: u16,
    /// Sockets take addresses of IPv6, whatever the packets are.
    pub(crate) ipv6_sockets: bool,
}

/// Descriptors as the script numbers them.
pub(crate) struct Calls {
    pub(crate) ends: Ends,
    descriptors: BTreeMap<i64, i32>,
    /// The socket that code looks at: the last that was made or accepted.
    pub(crate) under_test: Option<i32>,
    /// Sockets that were made so far, accepted ones not counted.
    pub(crate) sockets_made: usize,
}

/// What a call has done so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    started: bool,
    done: usize,
    until: Option<Instant>,
    lingering: Option<Lingering>,
}

/// How far a call came.
#[derive(Clone, Debug)]
pub(crate) enum Attempt {
    /// It returned, and this is wrong with what it left in its arguments.
    Returned(Result<i64, Errno>, Option<String>),
    /// It has to wait, until this time at the most.
    Blocks(Option<Instant>),
}

/// Why a call was not made.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    /// It does not apply here.
    Skip(String),
    /// It makes no sense.
    Wrong(String),
}

type Tried = Result<Attempt, Refused>;

fn returned(result: Result<impl Into<i64>, Errno>) -> Tried {
    Ok(Attempt::Returned(result.map(Into::into), None))
}

fn counted(result: Result<usize, Errno>) -> Tried {
    Ok(Attempt::Returned(result.map(|count| count as i64), None))
}

impl Calls {
    pub(crate) fn new(ends: Ends) -> Calls {
        Calls { ends, descriptors: BTreeMap::new(), under_test: None, sockets_made: 0 }
    }

    /// Makes the call, or goes on with one that had to wait.
    pub(crate) fn attempt(&mut self, posix: &mut Posix, call: &Call, progress: &mut Progress) -> Tried {
        let arguments = Arguments { call, values: &call.arguments };
        let tried = match call.name.as_str() {
            "socket" => self.socket(posix, &arguments),
            "bind" => self.bind(posix, &arguments),
            "listen" => self.listen(posix, &arguments),
            "accept" | "accept4" => self.accept(posix, &arguments),
            "connect" => self.connect(posix, &arguments, progress),
            "read" | "recv" | "recvfrom" | "readv" | "recvmsg" => self.receive(posix, &arguments, progress),
            "write" | "send" | "sendto" | "writev" | "sendmsg" => self.send(posix, &arguments, progress),
            "fcntl" => self.fcntl(posix, &arguments),
            "ioctl" => self.ioctl(posix, &arguments),
            "close" => self.close(posix, &arguments, progress),
            "shutdown" => self.shutdown(posix, &arguments),
            "getsockopt" => self.getsockopt(posix, &arguments),
            "setsockopt" => self.setsockopt(posix, &arguments),
            "getsockname" | "getpeername" => self.name(posix, &arguments),
            "poll" => self.poll(posix, &arguments, progress),
            "epoll_create" | "epoll_create1" => self.epoll_create(posix, &arguments),
            "epoll_ctl" => self.epoll_ctl(posix, &arguments),
            "epoll_wait" | "epoll_pwait" => self.epoll_wait(posix, &arguments, progress),
            "pipe" => self.pipe(posix, &arguments),
            "open" => self.open(posix, &arguments),
            "splice" => self.splice(posix, &arguments, progress),
            "sendfile" => self.sendfile(posix, &arguments, progress),
            name => Err(Refused::Skip(format!("the system call {name} is not interpreted"))),
        };
        progress.started = true;
        tried
    }

    /// Binds the script's number of a new descriptor to ours.
    fn made(&mut self, script: &Expression, fd: i32) {
        if let Expression::Integer(number) = script {
            self.descriptors.insert(*number, fd);
        }
    }

    /// Ours of the script's number; one that is none of ours is none of the stack's either.
    fn descriptor(&self, arguments: &Arguments<'_>, index: usize) -> Result<i32, Refused> {
        let script = arguments.integer(index)?;
        Ok(self.descriptors.get(&script).copied().unwrap_or(-1))
    }

    fn fcntl(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let fd = self.descriptor(arguments, 0)?;
        match arguments.name(1)? {
            "F_SETFL" => {
                let on = arguments.integer(2)? & symbol::O_NONBLOCK != 0;
                returned(posix.set_nonblocking(fd, on).map(|()| 0))
            }
            "F_GETFL" => {
                // Reading and writing, as every socket does.
                let flags = if posix.nonblocking(fd) { symbol::O_NONBLOCK | 2 } else { 2 };
                returned(if posix.exists(fd) { Ok(flags) } else { Err("EBADF") })
            }
            "F_SETFD" | "F_GETFD" => returned(if posix.exists(fd) { Ok(0) } else { Err("EBADF") }),
            other => Err(Refused::Skip(format!("fcntl {other} is not interpreted"))),
        }
    }

    fn ioctl(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let fd = self.descriptor(arguments, 0)?;
        let count = match arguments.name(1)? {
            "SIOCINQ" | "FIONREAD" => posix.unread(fd),
            "SIOCOUTQ" | "TIOCOUTQ" | "FIONWRITE" => posix.outstanding(fd, false),
            "SIOCOUTQNSD" => posix.outstanding(fd, true),
            "FIONBIO" => {
                let on = arguments.first_of(2)?.and_then(number).unwrap_or(0) != 0;
                return returned(posix.set_nonblocking(fd, on).map(|()| 0));
            }
            other => return Err(Refused::Skip(format!("ioctl {other} is not interpreted"))),
        };
        let count = match count {
            Ok(count) => count as i64,
            Err(errno) => return returned(Err::<i64, _>(errno)),
        };
        let wrong = match arguments.first_of(2)? {
            Some(Expression::Any) | None => None,
            Some(expected) => {
                let expected =
                    number(expected).ok_or_else(|| Refused::Wrong("ioctl: expected [number]".into()))?;
                (expected != count).then(|| format!("ioctl gave {count}, expected {expected}"))
            }
        };
        Ok(Attempt::Returned(Ok(0), wrong))
    }

    fn close(&mut self, posix: &mut Posix, arguments: &Arguments<'_>, progress: &mut Progress) -> Tried {
        if !progress.started {
            let fd = self.descriptor(arguments, 0)?;
            match posix.close(fd) {
                Ok(lingering) => progress.lingering = lingering,
                Err(errno) => return returned(Err::<i64, _>(errno)),
            }
            self.descriptors.retain(|_, known| *known != fd);
            if self.under_test == Some(fd) {
                self.under_test = None;
            }
        }
        match &progress.lingering {
            Some(lingering) if posix.lingers(lingering) => Ok(Attempt::Blocks(Some(lingering.until))),
            _ => returned(Ok(0)),
        }
    }

    fn shutdown(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let how = match arguments.integer(1)? {
            0 => Shutdown::Read,
            1 => Shutdown::Write,
            2 => Shutdown::Both,
            _ => return returned(Err::<i64, _>("EINVAL")),
        };
        let fd = self.descriptor(arguments, 0)?;
        returned(posix.shutdown(fd, how).map(|()| 0))
    }

    fn pipe(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let Some(Expression::List(list)) = arguments.values.first() else {
            return Err(Refused::Wrong("pipe: expected [number, number]".into()));
        };
        let (out, into) = match posix.pipe() {
            Ok(pair) => pair,
            Err(errno) => return returned(Err::<i64, _>(errno)),
        };
        list.iter().zip([out, into]).for_each(|(script, fd)| self.made(script, fd));
        returned(Ok(0))
    }

    /// Whatever is opened is a file of zeros: nothing of the machine is read.
    fn open(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let opened = posix.open_plain();
        if let Ok(fd) = opened {
            self.made(&arguments.call.result, fd);
        }
        returned(opened)
    }
}

/// The arguments of a call, as what they have to be.
struct Arguments<'a> {
    call: &'a Call,
    values: &'a [Expression],
}

impl<'a> Arguments<'a> {
    fn wrong(&self, index: usize, expected: &str) -> Refused {
        Refused::Wrong(format!("{}: argument {}: expected {expected}", self.call.name, index + 1))
    }

    fn at(&self, index: usize) -> Result<&'a Expression, Refused> {
        self.values.get(index).ok_or_else(|| self.wrong(index, "one argument more"))
    }

    fn integer(&self, index: usize) -> Result<i64, Refused> {
        let value = self.at(index)?;
        match number(value) {
            Some(number) => Ok(number),
            None => match value {
                Expression::Symbol(name) => Err(Refused::Skip(format!("{name} is not interpreted"))),
                Expression::Or(_) => {
                    Err(Refused::Skip(format!("{}: a flag is not interpreted", self.call.name)))
                }
                _ => Err(self.wrong(index, "a number")),
            },
        }
    }

    fn name(&self, index: usize) -> Result<&'a str, Refused> {
        match self.at(index)? {
            Expression::Symbol(name) => Ok(name),
            _ => Err(self.wrong(index, "a name")),
        }
    }

    /// The first of a list, or the value itself.
    fn first_of(&self, index: usize) -> Result<Option<&'a Expression>, Refused> {
        Ok(match self.at(index)? {
            Expression::List(list) => list.first(),
            value => Some(value),
        })
    }
}

/// A number, also as names with `|` between them.
pub(super) fn number(value: &Expression) -> Option<i64> {
    match value {
        Expression::Integer(number) => Some(*number),
        Expression::Symbol(name) => symbol::value(name),
        Expression::Or(all) => all.iter().try_fold(0, |flags, value| Some(flags | number(value)?)),
        Expression::Function(name, arguments) if matches!(name.as_str(), "htons" | "htonl") => {
            number(arguments.first()?)
        }
        _ => None,
    }
}

fn field<'a>(fields: &'a [Field], name: &str) -> Option<&'a Expression> {
    fields.iter().find(|field| field.name.as_deref() == Some(name)).map(|field| &field.value)
}

/// `{sa_family = AF_INET, sin_port = htons(80), sin_addr = inet_addr("1.2.3.4")}`; `None`: `...`.
fn address(value: &Expression) -> Result<Option<SocketAddr>, Refused> {
    let wrong =
        || Refused::Wrong("expected an address: {sa_family=, sin_port=htons(), sin_addr=inet_addr()}".into());
    let fields = match value {
        Expression::Any => return Ok(None),
        Expression::Symbol(name) if name == "NULL" => return Ok(None),
        Expression::Struct(fields) => fields,
        _ => return Err(wrong()),
    };
    let port = ["sin_port", "sin6_port"].iter().find_map(|name| field(fields, name));
    let port = port.and_then(number).and_then(|port| u16::try_from(port).ok()).ok_or_else(wrong)?;
    let address = ["sin_addr", "sin6_addr"].iter().find_map(|name| field(fields, name)).ok_or_else(wrong)?;
    let text = match address {
        Expression::Function(_, arguments) => match arguments.last() {
            Some(Expression::Text(text)) => text,
            _ => return Err(wrong()),
        },
        Expression::Symbol(name) if name == "INADDR_ANY" => "0.0.0.0",
        _ => return Err(wrong()),
    };
    let address: IpAddr = text.parse().map_err(|_| wrong())?;
    let address = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        v4 => v4,
    };
    Ok(Some(SocketAddr::new(address, port)))
}

/// A call that would have to wait: it waits, or says so.
fn block_or(nonblocking: bool, until: Option<Instant>) -> Tried {
    if nonblocking { returned(Err::<i64, _>("EAGAIN")) } else { Ok(Attempt::Blocks(until)) }
}

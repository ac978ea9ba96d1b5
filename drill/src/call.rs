//! The system calls of a script: decodes their arguments, and checks their results.

mod message;
mod readiness;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use steadfast_core::Shutdown;

use super::ast::{Call, Expression, Field};
use super::subject::{Errno, Refused, Reply, Request};
use super::symbol;

/// The addresses and ports that replace `...`.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) bind_port: u16,
    pub(crate) connect_port: u16,
    /// Sockets take IPv6 addresses, even if the packets are IPv4.
    pub(crate) ipv6_sockets: bool,
}

/// The state of the script's calls, and its descriptors.
pub(crate) struct Calls {
    pub(crate) ends: Ends,
    descriptors: BTreeMap<i64, i32>,
    /// The socket that code blocks inspect: the last one created or accepted.
    pub(crate) under_test: Option<i32>,
    /// The destinations of connects.
    pub(crate) destinations: BTreeSet<SocketAddr>,
    /// Number of sockets created, without accepted ones.
    pub(crate) sockets_made: usize,
}

/// A decoded call.
pub(crate) enum Understood {
    /// Pass it to the subject.
    Request(Request),
    /// An argument is invalid on every system, and the call fails with this error.
    Error(Errno),
    /// It has no effect, and returns 0.
    Nothing,
}

/// The judgement of a call: its result, and a description of wrong output arguments.
pub(crate) type Judged = (Result<i64, Errno>, Option<String>);

type Decoded = Result<Understood, Refused>;
/// A description of wrong output arguments, if any.
type Checked = Result<Option<String>, Refused>;

fn request(request: Request) -> Decoded {
    Ok(Understood::Request(request))
}

impl Calls {
    pub(crate) fn new(ends: Ends) -> Calls {
        Calls {
            ends,
            descriptors: BTreeMap::new(),
            under_test: None,
            destinations: BTreeSet::new(),
            sockets_made: 0,
        }
    }

    /// Decodes a call.
    pub(crate) fn decode(&self, call: &Call) -> Decoded {
        let arguments = Arguments { call, values: &call.arguments };
        match call.name.as_str() {
            "socket" => self.socket(&arguments),
            "bind" => self.bind(&arguments),
            "listen" => self.listen(&arguments),
            "accept" | "accept4" => self.accept(&arguments),
            "connect" => self.connect(&arguments),
            "read" | "recv" | "recvfrom" | "readv" | "recvmsg" => self.receive(&arguments),
            "write" | "send" | "sendto" | "writev" | "sendmsg" => self.send(&arguments),
            "fcntl" => self.fcntl(&arguments),
            "ioctl" => self.ioctl(&arguments),
            "close" => request(Request::Close { fd: self.descriptor(&arguments, 0)? }),
            "shutdown" => self.shutdown(&arguments),
            "getsockopt" => self.getsockopt(&arguments),
            "setsockopt" => self.setsockopt(&arguments),
            "getsockname" => request(Request::LocalAddress { fd: self.descriptor(&arguments, 0)? }),
            "getpeername" => request(Request::PeerAddress { fd: self.descriptor(&arguments, 0)? }),
            "poll" => self.poll(&arguments),
            "epoll_create" | "epoll_create1" => request(Request::Epoll),
            "epoll_ctl" => self.epoll_ctl(&arguments),
            "epoll_wait" | "epoll_pwait" => self.epoll_wait(&arguments),
            "pipe" => request(Request::Pipe),
            // Scripts may do everything.
            "cap_set" => Ok(Understood::Nothing),
            // Every path opens a file of zeros; the machine's files stay unread.
            "open" => request(Request::Open),
            "splice" => self.splice(&arguments),
            "sendfile" => self.sendfile(&arguments),
            name => Err(Refused::Skip(format!("the system call {name} is not interpreted"))),
        }
    }

    /// Records the effects of a call, and compares its output with the script.
    pub(crate) fn judge(&mut self, call: &Call, came: Result<Reply, Errno>) -> Result<Judged, Refused> {
        let arguments = Arguments { call, values: &call.arguments };
        let reply = match came {
            Ok(reply) => reply,
            Err(errno) => return Ok((Err(errno), None)),
        };
        let wrong = match &reply {
            Reply::Number(count) => self.check_number(&arguments, *count)?,
            Reply::Descriptor(fd) => {
                self.made(&call.result, *fd);
                if call.name == "socket" {
                    self.under_test = Some(*fd);
                    self.sockets_made += 1;
                }
                None
            }
            Reply::Accepted(fd, peer) => {
                self.made(&call.result, *fd);
                self.under_test = Some(*fd);
                differing_address(&arguments, "peer", *peer)?
            }
            Reply::Pipe(out, into) => self.check_pipe(&arguments, *out, *into)?,
            Reply::Received(bytes, flags, control) => {
                message::check_received(&arguments, bytes, *flags, control)?
            }
            Reply::Address(address) => differing_address(&arguments, "address", *address)?,
            Reply::Setting(setting) => sockets::check_option(&arguments, setting)?,
            Reply::Readiness(all) => readiness::check_poll(&arguments, all)?,
            Reply::Events(all) => readiness::check_events(&arguments, all)?,
        };
        // `ioctl` returns its count in an argument.
        let counts = !matches!(call.name.as_str(), "ioctl");
        let result = match reply {
            Reply::Number(count) if counts => count,
            Reply::Descriptor(fd) | Reply::Accepted(fd, _) => i64::from(fd),
            Reply::Received(bytes, ..) => bytes.len() as i64,
            Reply::Readiness(all) => all.iter().filter(|revents| **revents != 0).count() as i64,
            Reply::Events(all) => all.len() as i64,
            _ => 0,
        };
        Ok((Ok(result), wrong))
    }

    /// Maps the script's number of a new descriptor to the subject's.
    fn made(&mut self, script: &Expression, fd: i32) {
        if let Expression::Integer(number) = script {
            self.descriptors.insert(*number, fd);
        }
    }

    /// Returns the subject's descriptor for the script's number; -1 if the script has not created it.
    fn descriptor(&self, arguments: &Arguments<'_>, index: usize) -> Result<i32, Refused> {
        let script = arguments.integer(index)?;
        Ok(self.descriptors.get(&script).copied().unwrap_or(-1))
    }

    fn fcntl(&self, arguments: &Arguments<'_>) -> Decoded {
        let fd = self.descriptor(arguments, 0)?;
        match arguments.name(1)? {
            "F_SETFL" => {
                let on = arguments.integer(2)? & symbol::O_NONBLOCK != 0;
                request(Request::SetNonblocking { fd, on })
            }
            "F_GETFL" => request(Request::Flags { fd }),
            "F_SETFD" | "F_GETFD" => request(Request::Exists { fd }),
            other => Err(Refused::Skip(format!("fcntl {other} is not interpreted"))),
        }
    }

    fn ioctl(&self, arguments: &Arguments<'_>) -> Decoded {
        let fd = self.descriptor(arguments, 0)?;
        match arguments.name(1)? {
            "SIOCINQ" | "FIONREAD" => request(Request::Unread { fd }),
            "SIOCOUTQ" | "TIOCOUTQ" | "FIONWRITE" => request(Request::Outstanding { fd, unsent: false }),
            "SIOCOUTQNSD" => request(Request::Outstanding { fd, unsent: true }),
            "FIONBIO" => {
                let on = arguments.first_of(2)?.and_then(number).unwrap_or(0) != 0;
                request(Request::SetNonblocking { fd, on })
            }
            other => Err(Refused::Skip(format!("ioctl {other} is not interpreted"))),
        }
    }

    /// Applies the side effects of a call that returns a number, and checks the number if an argument states it.
    fn check_number(&mut self, arguments: &Arguments<'_>, count: i64) -> Checked {
        match arguments.call.name.as_str() {
            "close" => {
                let fd = self.descriptor(arguments, 0)?;
                self.descriptors.retain(|_, known| *known != fd);
                if self.under_test == Some(fd) {
                    self.under_test = None;
                }
                Ok(None)
            }
            "ioctl" if arguments.name(1)? != "FIONBIO" => match arguments.first_of(2)? {
                Some(Expression::Any) | None => Ok(None),
                Some(expected) => {
                    let expected =
                        number(expected).ok_or_else(|| Refused::Wrong("ioctl: expected [number]".into()))?;
                    Ok((expected != count).then(|| format!("ioctl gave {count}, expected {expected}")))
                }
            },
            _ => Ok(None),
        }
    }

    fn shutdown(&self, arguments: &Arguments<'_>) -> Decoded {
        let how = match arguments.integer(1)? {
            0 => Shutdown::Read,
            1 => Shutdown::Write,
            2 => Shutdown::Both,
            _ => return Ok(Understood::Error("EINVAL")),
        };
        request(Request::Shutdown { fd: self.descriptor(arguments, 0)?, how })
    }

    fn check_pipe(&mut self, arguments: &Arguments<'_>, out: i32, into: i32) -> Checked {
        let Some(Expression::List(list)) = arguments.values.first() else {
            return Err(Refused::Wrong("pipe: expected [number, number]".into()));
        };
        list.iter().zip([out, into]).for_each(|(script, fd)| self.made(script, fd));
        Ok(None)
    }
}

/// The arguments of a call, with typed accessors.
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

    /// Returns the first element of a list, or the value itself.
    fn first_of(&self, index: usize) -> Result<Option<&'a Expression>, Refused> {
        Ok(match self.at(index)? {
            Expression::List(list) => list.first(),
            value => Some(value),
        })
    }
}

/// Evaluates a number, or names joined by `|`.
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

/// Parses `{sa_family = AF_INET, sin_port = htons(80), sin_addr = inet_addr("1.2.3.4")}`; `None` for `...` and `NULL`.
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

/// Compares the address that a call returned with its second argument. Returns a description of the difference.
fn differing_address(arguments: &Arguments<'_>, what: &str, came: SocketAddr) -> Checked {
    let said = arguments.values.get(1).map(address).transpose()?.flatten();
    let wrong = said.filter(|said| *said != came);
    Ok(wrong.map(|said| format!("the {what} is {came}, expected {said}")))
}

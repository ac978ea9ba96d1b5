//! Calls that open sockets, name them, and set them up.

use std::net::SocketAddr;

use super::{Arguments, Attempt, Calls, Progress, Refused, Tried, address, field, number, returned};
use crate::drill::ast::Expression;
use crate::drill::posix::{Posix, Setting, SocketOption, Unset};
use crate::drill::symbol;

const TCP: i64 = 6;

impl Calls {
    pub(super) fn socket(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let ipv6 = match arguments.at(0)? {
            Expression::Any => self.ends.ipv6_sockets,
            _ => match arguments.integer(0)? {
                2 => false,
                10 => true,
                _ => return returned(Err::<i32, _>("EAFNOSUPPORT")),
            },
        };
        let kind = arguments.integer(1)?;
        let name = |value: &Expression| match value {
            Expression::Symbol(name) => name.clone(),
            other => format!("{other:?}"),
        };
        if kind & 0xf != 1 {
            return Err(Refused::Skip(format!("sockets of {} are not interpreted", name(arguments.at(1)?))));
        }
        if !matches!(arguments.integer(2)?, 0 | TCP) {
            return Err(Refused::Skip(format!("sockets of {} are not interpreted", name(arguments.at(2)?))));
        }
        let made = posix.socket(ipv6, kind & symbol::O_NONBLOCK != 0);
        if let Ok(fd) = made {
            self.made(&arguments.call.result, fd);
            self.under_test = Some(fd);
            self.sockets_made += 1;
        }
        returned(made)
    }

    pub(super) fn bind(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let fd = self.descriptor(arguments, 0)?;
        let address = address(arguments.at(1)?)?;
        let address = address.unwrap_or(SocketAddr::new(self.ends.local, self.ends.bind_port));
        returned(posix.bind(fd, address).map(|()| 0))
    }

    pub(super) fn listen(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let fd = self.descriptor(arguments, 0)?;
        let backlog = u32::try_from(arguments.integer(1)?).unwrap_or(0);
        returned(posix.listen(fd, backlog).map(|()| 0))
    }

    pub(super) fn accept(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let fd = self.descriptor(arguments, 0)?;
        let flags = if arguments.values.len() > 3 { arguments.integer(3)? } else { 0 };
        match posix.accept(fd, flags & symbol::O_NONBLOCK != 0) {
            Ok((fd, peer)) => {
                self.made(&arguments.call.result, fd);
                self.under_test = Some(fd);
                let said = address(arguments.at(1)?)?;
                let wrong = said.filter(|said| *said != peer);
                Ok(Attempt::Returned(
                    Ok(i64::from(fd)),
                    wrong.map(|said| format!("the peer is {peer}, expected {said}")),
                ))
            }
            Err("EAGAIN") if !posix.nonblocking(fd) => Ok(Attempt::Blocks(None)),
            Err(errno) => returned(Err::<i32, _>(errno)),
        }
    }

    pub(super) fn connect(
        &mut self,
        posix: &mut Posix,
        arguments: &Arguments<'_>,
        progress: &mut Progress,
    ) -> Tried {
        let fd = self.descriptor(arguments, 0)?;
        let ended = |ended: Result<Option<()>, _>| match ended {
            Ok(Some(())) => returned(Ok(0)),
            Ok(None) => Ok(Attempt::Blocks(None)),
            Err(errno) => returned(Err::<i32, _>(errno)),
        };
        if progress.started {
            return ended(posix.connected(fd));
        }
        let address = address(arguments.at(1)?)?;
        let address = address.unwrap_or(SocketAddr::new(self.ends.remote, self.ends.connect_port));
        match posix.connect(fd, address) {
            Err("EINPROGRESS" | "EALREADY") if !posix.nonblocking(fd) => Ok(Attempt::Blocks(None)),
            result => returned(result.map(|()| 0)),
        }
    }

    pub(super) fn name(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let fd = self.descriptor(arguments, 0)?;
        let own = arguments.call.name == "getsockname";
        let found = match if own { posix.local_address(fd) } else { posix.peer_address(fd) } {
            Ok(found) => found,
            Err(errno) => return returned(Err::<i32, _>(errno)),
        };
        let said = address(arguments.at(1)?)?;
        let wrong =
            said.filter(|said| *said != found).map(|said| format!("the address is {found}, expected {said}"));
        Ok(Attempt::Returned(Ok(0), wrong))
    }

    /// The option that the second and third argument name.
    fn option(&self, arguments: &Arguments<'_>) -> Result<SocketOption, Refused> {
        let (level, name) = (arguments.name(1)?, arguments.name(2)?);
        SocketOption::find(level, name)
            .ok_or_else(|| Refused::Skip(format!("the socket option {level} {name} is not kept")))
    }

    pub(super) fn setsockopt(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let fd = self.descriptor(arguments, 0)?;
        let option = self.option(arguments)?;
        let value = arguments.first_of(3)?.ok_or_else(|| arguments.wrong(3, "a value"))?;
        let setting = setting(value).ok_or_else(|| arguments.wrong(3, "a number, a string or a struct"))?;
        // Shorter than a number of the system's.
        let len = arguments.values.get(4).and_then(number);
        if matches!(setting, Setting::Number(_)) && len.is_some_and(|len| (0..4).contains(&len)) {
            return returned(Err::<i32, _>("EINVAL"));
        }
        match posix.set_option(fd, option, &setting) {
            Ok(()) => returned(Ok(0)),
            Err(Unset::Errno(errno)) => returned(Err::<i32, _>(errno)),
            Err(Unset::NotKept) => {
                Err(Refused::Skip(format!("the socket option {} cannot be set so", option.name)))
            }
        }
    }

    pub(super) fn getsockopt(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let fd = self.descriptor(arguments, 0)?;
        let option = self.option(arguments)?;
        let came = match posix.option(fd, option) {
            Ok(came) => came,
            Err(Unset::Errno(errno)) => return returned(Err::<i32, _>(errno)),
            Err(Unset::NotKept) => {
                return Err(Refused::Skip(format!("the socket option {} is not kept", option.name)));
            }
        };
        let expected = arguments.first_of(3)?;
        let wrong = match expected {
            None | Some(Expression::Any) => None,
            Some(expected) => differs(option, expected, &came),
        };
        Ok(Attempt::Returned(Ok(0), wrong))
    }
}

fn setting(value: &Expression) -> Option<Setting> {
    match value {
        Expression::Text(text) => Some(Setting::Text(text.clone())),
        Expression::Struct(fields) => {
            let on = field(fields, "onoff").or(field(fields, "l_onoff")).and_then(number)?;
            let time = field(fields, "linger").or(field(fields, "l_linger")).and_then(number)?;
            Some(Setting::Linger(on != 0, time))
        }
        value => number(value).map(Setting::Number),
    }
}

/// What is wrong with a value that was read.
fn differs(option: SocketOption, expected: &Expression, came: &Setting) -> Option<String> {
    let wrong = |expected: &dyn std::fmt::Display, came: &dyn std::fmt::Display| {
        Some(format!("{} is {came}, expected {expected}", option.name))
    };
    match came {
        Setting::Opaque => None,
        Setting::Error(errno) => {
            let came = errno.unwrap_or("0");
            let expected = match expected {
                Expression::Symbol(name) => name.clone(),
                value => number(value).map_or_else(|| "a name".to_owned(), |number| number.to_string()),
            };
            if expected == came { None } else { wrong(&expected, &came) }
        }
        Setting::Number(came) => match number(expected) {
            Some(expected) if expected == *came => None,
            Some(expected) => wrong(&expected, came),
            None => wrong(&"another kind of value", came),
        },
        Setting::Text(came) => match expected {
            Expression::Text(expected) if expected == came => None,
            Expression::Text(expected) => wrong(expected, came),
            _ => wrong(&"another kind of value", came),
        },
        Setting::Linger(on, time) => match setting(expected) {
            Some(Setting::Linger(said_on, said_time)) if (said_on, said_time) == (*on, *time) => None,
            Some(Setting::Linger(said_on, said_time)) => wrong(
                &format_args!("{{onoff={}, linger={said_time}}}", i64::from(said_on)),
                &format_args!("{{onoff={}, linger={time}}}", i64::from(*on)),
            ),
            _ => wrong(&"another kind of value", &"a struct linger"),
        },
    }
}

//! Calls that open, name and configure sockets.

use std::net::SocketAddr;

use super::{Arguments, Calls, Checked, Decoded, Refused, Understood, address, field, number, request};
use crate::ast::Expression;
use crate::subject::{Request, Setting, SocketOption};
use crate::symbol;

const TCP: i64 = 6;

impl Calls {
    pub(super) fn socket(&self, arguments: &Arguments<'_>) -> Decoded {
        let ipv6 = match arguments.at(0)? {
            Expression::Any => self.ends.ipv6_sockets,
            _ => match arguments.integer(0)? {
                2 => false,
                10 => true,
                _ => return Ok(Understood::Error("EAFNOSUPPORT")),
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
        request(Request::Socket { ipv6, nonblocking: kind & symbol::O_NONBLOCK != 0 })
    }

    pub(super) fn bind(&self, arguments: &Arguments<'_>) -> Decoded {
        let fd = self.descriptor(arguments, 0)?;
        let address = address(arguments.at(1)?)?;
        let address = address.unwrap_or(SocketAddr::new(self.ends.local, self.ends.bind_port));
        request(Request::Bind { fd, address })
    }

    pub(super) fn listen(&self, arguments: &Arguments<'_>) -> Decoded {
        let fd = self.descriptor(arguments, 0)?;
        let backlog = u32::try_from(arguments.integer(1)?).unwrap_or(0);
        request(Request::Listen { fd, backlog })
    }

    pub(super) fn accept(&self, arguments: &Arguments<'_>) -> Decoded {
        let fd = self.descriptor(arguments, 0)?;
        let flags = if arguments.values.len() > 3 { arguments.integer(3)? } else { 0 };
        request(Request::Accept { fd, nonblocking: flags & symbol::O_NONBLOCK != 0 })
    }

    pub(super) fn connect(&self, arguments: &Arguments<'_>) -> Decoded {
        let fd = self.descriptor(arguments, 0)?;
        let address = address(arguments.at(1)?)?;
        let address = address.unwrap_or(SocketAddr::new(self.ends.remote, self.ends.connect_port));
        request(Request::Connect { fd, address })
    }

    pub(super) fn setsockopt(&self, arguments: &Arguments<'_>) -> Decoded {
        let fd = self.descriptor(arguments, 0)?;
        let option = option(arguments)?;
        let value = arguments.first_of(3)?.ok_or_else(|| arguments.wrong(3, "a value"))?;
        let setting = setting(value).ok_or_else(|| match unknown_name(value) {
            Some(name) => Refused::Skip(format!("{name} is not interpreted")),
            None if matches!(value, Expression::Struct(_)) => {
                Refused::Skip(format!("a struct for {} is not interpreted", option.name))
            }
            None => arguments.wrong(3, "a number, a string or a struct"),
        })?;
        // Shorter than an `int`.
        let len = arguments.values.get(4).and_then(number);
        // A byte is enough for the options of IP.
        let least = if option.level == "IPPROTO_IP" { 1 } else { 4 };
        if matches!(setting, Setting::Number(_)) && len.is_some_and(|len| (0..least).contains(&len)) {
            return Ok(Understood::Error("EINVAL"));
        }
        request(Request::SetOption { fd, option, setting })
    }

    pub(super) fn getsockopt(&self, arguments: &Arguments<'_>) -> Decoded {
        request(Request::Option { fd: self.descriptor(arguments, 0)?, option: option(arguments)? })
    }
}

/// The option named by the second and third arguments.
fn option(arguments: &Arguments<'_>) -> Result<SocketOption, Refused> {
    let level = match arguments.name(1)? {
        "SOL_TCP" => "IPPROTO_TCP",
        "SOL_IP" => "IPPROTO_IP",
        "SOL_IPV6" => "IPPROTO_IPV6",
        level => level,
    };
    Ok(SocketOption { level: level.to_owned(), name: arguments.name(2)?.to_owned() })
}

/// The first name in flags that is not known.
fn unknown_name(value: &Expression) -> Option<&str> {
    match value {
        Expression::Symbol(name) => symbol::value(name).is_none().then_some(name),
        Expression::Or(all) => all.iter().find_map(unknown_name),
        _ => None,
    }
}

fn setting(value: &Expression) -> Option<Setting> {
    match value {
        Expression::Text(text) => Some(Setting::Text(text.clone())),
        Expression::Struct(fields) => {
            if let (Some(seconds), Some(micros)) = (field(fields, "tv_sec"), field(fields, "tv_usec")) {
                return Some(Setting::Number(number(seconds)?.saturating_mul(1_000_000) + number(micros)?));
            }
            if let Some(Expression::Text(name)) = field(fields, "function_set_name") {
                return Some(Setting::Text(name.clone()));
            }
            let on = field(fields, "onoff").or(field(fields, "l_onoff")).and_then(number)?;
            let time = field(fields, "linger").or(field(fields, "l_linger")).and_then(number)?;
            Some(Setting::Linger(on != 0, time))
        }
        value => number(value).map(Setting::Number),
    }
}

/// Compares the value of an option with the script.
pub(super) fn check_option(arguments: &Arguments<'_>, came: &Setting) -> Checked {
    let option = option(arguments)?;
    Ok(match arguments.first_of(3)? {
        None | Some(Expression::Any) => None,
        Some(expected) => differs(&option, expected, came),
    })
}

/// The microseconds of a struct timeval.
fn micros_of(value: &Expression) -> Option<i64> {
    match (value, setting(value)) {
        (Expression::Struct(_), Some(Setting::Number(micros))) => Some(micros),
        _ => None,
    }
}

/// Describes the difference between two values.
fn differs(option: &SocketOption, expected: &Expression, came: &Setting) -> Option<String> {
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
        Setting::Number(came) => match number(expected).or_else(|| micros_of(expected)) {
            // An `int` of all ones is -1.
            Some(expected) if expected == *came || expected == *came & 0xffff_ffff => None,
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

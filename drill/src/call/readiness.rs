//! Decodes and checks `poll` and `epoll`.

use steadfast_core::time::Duration;

use super::{Arguments, Calls, Checked, Decoded, Refused, Understood, field, number, request};
use crate::ast::{Expression, Field};
use crate::subject::Request;
use crate::symbol;

impl Calls {
    pub(super) fn poll(&self, arguments: &Arguments<'_>) -> Decoded {
        let mut all = Vec::new();
        // `poll` ignores negative descriptors.
        for asked in asked(arguments)?.iter().filter(|asked| asked.fd >= 0) {
            let fd = self.descriptors.get(&asked.fd).copied().unwrap_or(-1);
            all.push((fd, asked.events));
        }
        request(Request::Poll { all, timeout: timeout(arguments.integer(2)?) })
    }

    pub(super) fn epoll_ctl(&self, arguments: &Arguments<'_>) -> Decoded {
        let (epoll, fd) = (self.descriptor(arguments, 0)?, self.descriptor(arguments, 2)?);
        let what = arguments.name(1)?;
        if what == "EPOLL_CTL_DEL" {
            return request(Request::EpollRemove { epoll, fd });
        }
        let Expression::Struct(fields) = arguments.at(3)? else {
            return Err(arguments.wrong(3, "{events=, fd=}"));
        };
        let events = field(fields, "events").ok_or_else(|| arguments.wrong(3, "events="))?;
        let events = flags(arguments, events)?;
        let data = data(fields).unwrap_or(0);
        match what {
            "EPOLL_CTL_ADD" | "EPOLL_CTL_MOD" => {
                request(Request::EpollSet { epoll, fd, events, data, add: what == "EPOLL_CTL_ADD" })
            }
            _ => Ok(Understood::Error("EINVAL")),
        }
    }

    pub(super) fn epoll_wait(&self, arguments: &Arguments<'_>) -> Decoded {
        let epoll = self.descriptor(arguments, 0)?;
        match usize::try_from(arguments.integer(2)?).unwrap_or(0) {
            0 => Ok(Understood::Error("EINVAL")),
            limit => request(Request::EpollWait { epoll, limit, timeout: timeout(arguments.integer(3)?) }),
        }
    }
}

/// One descriptor of a poll, with the script's number.
struct Asked<'a> {
    fd: i64,
    events: i64,
    revents: Option<&'a Expression>,
}

/// The descriptors of a poll.
fn asked<'a>(arguments: &Arguments<'a>) -> Result<Vec<Asked<'a>>, Refused> {
    const EXPECTED: &str = "a list of {fd=, events=, revents=}";
    let Expression::List(list) = arguments.at(0)? else { return Err(arguments.wrong(0, EXPECTED)) };
    let mut all = Vec::new();
    for one in list {
        let Expression::Struct(fields) = one else { return Err(arguments.wrong(0, EXPECTED)) };
        let of = |name: &str| field(fields, name).map(|value| flags(arguments, value)).transpose();
        let fd = of("fd")?.ok_or_else(|| arguments.wrong(0, "fd="))?;
        let revents = field(fields, "revents").filter(|value| **value != Expression::Any);
        all.push(Asked { fd, events: of("events")?.unwrap_or(0), revents });
    }
    Ok(all)
}

/// Compares the readiness of each descriptor with the script.
pub(super) fn check_poll(arguments: &Arguments<'_>, came: &[i64]) -> Checked {
    let mut came = came.iter().copied();
    for asked in asked(arguments)? {
        let came = if asked.fd < 0 { 0 } else { came.next().unwrap_or(0) };
        let expected = asked.revents.map(|value| flags(arguments, value)).transpose()?;
        if let Some(expected) = expected.filter(|expected| *expected != came) {
            let (expected, came) = (symbol::events(expected), symbol::events(came));
            return Ok(Some(format!("revents of {} is {came}, expected {expected}", asked.fd)));
        }
    }
    Ok(None)
}

/// Compares the events of an epoll descriptor with the script.
pub(super) fn check_events(arguments: &Arguments<'_>, came: &[(i64, i64)]) -> Checked {
    let expected: Vec<&Expression> = match arguments.at(1)? {
        Expression::List(list) => list.iter().collect(),
        Expression::Any => Vec::new(),
        one => vec![one],
    };
    for (one, (events, word)) in expected.iter().zip(came) {
        let Expression::Struct(fields) = one else { continue };
        if let Some(value) = field(fields, "events").filter(|value| **value != Expression::Any) {
            let expected = flags(arguments, value)?;
            if expected != *events {
                let (expected, came) = (symbol::events(expected), symbol::events(*events));
                return Ok(Some(format!("events is {came}, expected {expected}")));
            }
        }
        if let Some(expected) = data(fields).filter(|expected| expected != word) {
            return Ok(Some(format!("the data is {word}, expected {expected}")));
        }
    }
    Ok(None)
}

/// Converts milliseconds; negative means forever.
fn timeout(millis: i64) -> Option<Duration> {
    u64::try_from(millis).ok().map(Duration::from_millis)
}

fn flags(arguments: &Arguments<'_>, value: &Expression) -> Result<i64, Refused> {
    number(value).ok_or_else(|| Refused::Skip(format!("{}: a flag is not interpreted", arguments.call.name)))
}

/// The user data in a struct epoll_event.
fn data(fields: &[Field]) -> Option<i64> {
    ["fd", "ptr", "u32", "u64"].iter().find_map(|name| field(fields, name)).and_then(number)
}

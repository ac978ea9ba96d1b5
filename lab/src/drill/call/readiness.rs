//! `poll` and `epoll`.

use steadfast_core::time::Duration;

use super::{Arguments, Attempt, Calls, Progress, Refused, Tried, field, number, returned};
use crate::drill::ast::{Expression, Field};
use crate::drill::posix::Posix;
use crate::drill::symbol;

impl Calls {
    pub(super) fn poll(
        &mut self,
        posix: &mut Posix,
        arguments: &Arguments<'_>,
        progress: &mut Progress,
    ) -> Tried {
        let Expression::List(list) = arguments.at(0)? else {
            return Err(arguments.wrong(0, "a list of {fd=, events=, revents=}"));
        };
        let mut ready = 0;
        let mut wrong = None;
        for one in list {
            let Expression::Struct(fields) = one else {
                return Err(arguments.wrong(0, "a list of {fd=, events=, revents=}"));
            };
            let of = |name: &str| field(fields, name).map(|value| flags(arguments, value)).transpose();
            let script = of("fd")?.ok_or_else(|| arguments.wrong(0, "fd="))?;
            let wanted = of("events")?.unwrap_or(0);
            let fd = self.descriptors.get(&script).copied().unwrap_or(-1);
            // A negative descriptor is passed over.
            let came = if script < 0 { 0 } else { posix.poll(fd, wanted) };
            ready += i64::from(came != 0);
            let any = matches!(field(fields, "revents"), Some(Expression::Any));
            let expected = if any { None } else { of("revents")? };
            if let Some(expected) = expected.filter(|expected| *expected != came) {
                let (expected, came) = (symbol::events(expected), symbol::events(came));
                wrong.get_or_insert(format!("revents of {script} is {came}, expected {expected}"));
            }
        }
        if ready > 0 || self.timed_out(posix, arguments.integer(2)?, progress) {
            return Ok(Attempt::Returned(Ok(ready), wrong));
        }
        Ok(Attempt::Blocks(progress.until))
    }

    /// Whether a call with this timeout in milliseconds, negative for none, has waited long enough.
    fn timed_out(&self, posix: &Posix, timeout: i64, progress: &mut Progress) -> bool {
        if timeout == 0 {
            return true;
        }
        if let (None, Ok(timeout)) = (progress.until, u64::try_from(timeout)) {
            progress.until = Some(posix.now + Duration::from_millis(timeout));
        }
        progress.until.is_some_and(|until| posix.now >= until)
    }

    pub(super) fn epoll_create(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let made = posix.epoll();
        if let Ok(fd) = made {
            self.made(&arguments.call.result, fd);
        }
        returned(made)
    }

    pub(super) fn epoll_ctl(&mut self, posix: &mut Posix, arguments: &Arguments<'_>) -> Tried {
        let (epoll, of) = (self.descriptor(arguments, 0)?, self.descriptor(arguments, 2)?);
        let what = arguments.name(1)?;
        if what == "EPOLL_CTL_DEL" {
            return returned(posix.epoll_remove(epoll, of).map(|()| 0));
        }
        let Expression::Struct(fields) = arguments.at(3)? else {
            return Err(arguments.wrong(3, "{events=, fd=}"));
        };
        let events = field(fields, "events").ok_or_else(|| arguments.wrong(3, "events="))?;
        let events = flags(arguments, events)?;
        let data = data(fields).unwrap_or(0);
        let add = match what {
            "EPOLL_CTL_ADD" => true,
            "EPOLL_CTL_MOD" => false,
            _ => return returned(Err::<i64, _>("EINVAL")),
        };
        returned(posix.epoll_set(epoll, of, events, data, add).map(|()| 0))
    }

    pub(super) fn epoll_wait(
        &mut self,
        posix: &mut Posix,
        arguments: &Arguments<'_>,
        progress: &mut Progress,
    ) -> Tried {
        let epoll = self.descriptor(arguments, 0)?;
        let limit = usize::try_from(arguments.integer(2)?).unwrap_or(0);
        if limit == 0 {
            return returned(Err::<i64, _>("EINVAL"));
        }
        let ready = match posix.epoll_wait(epoll, limit) {
            Ok(ready) => ready,
            Err(errno) => return returned(Err::<i64, _>(errno)),
        };
        if ready.is_empty() && !self.timed_out(posix, arguments.integer(3)?, progress) {
            return Ok(Attempt::Blocks(progress.until));
        }
        let expected: Vec<&Expression> = match arguments.at(1)? {
            Expression::List(list) => list.iter().collect(),
            Expression::Any => Vec::new(),
            one => vec![one],
        };
        let mut wrong = None;
        for (one, (events, word)) in expected.iter().zip(&ready) {
            let Expression::Struct(fields) = one else { continue };
            if let Some(value) = field(fields, "events").filter(|value| **value != Expression::Any) {
                let expected = flags(arguments, value)?;
                if expected != *events {
                    let (expected, came) = (symbol::events(expected), symbol::events(*events));
                    wrong.get_or_insert(format!("events is {came}, expected {expected}"));
                }
            }
            if let Some(expected) = data(fields).filter(|expected| expected != word) {
                wrong.get_or_insert(format!("the data is {word}, expected {expected}"));
            }
        }
        Ok(Attempt::Returned(Ok(ready.len() as i64), wrong))
    }
}

fn flags(arguments: &Arguments<'_>, value: &Expression) -> Result<i64, Refused> {
    number(value).ok_or_else(|| Refused::Skip(format!("{}: a flag is not interpreted", arguments.call.name)))
}

/// The word of the user's in a struct epoll_event.
fn data(fields: &[Field]) -> Option<i64> {
    ["fd", "ptr", "u32", "u64"].iter().find_map(|name| field(fields, name)).and_then(number)
}

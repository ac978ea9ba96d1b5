//! Calls that send or receive data. All data is zeros, in both directions.

use std::net::SocketAddr;

use super::{
    Arguments, Calls, Checked, Decoded, Errno, Refused, Understood, address, field, number, request,
};
use crate::ast::{Expression, Field};
use crate::subject::{Control, ReceiveFlags, Request, SendFlags};
use crate::symbol;

/// Level and type of the control message that counts unread bytes.
const TCP: i64 = 6;
const TCP_CM_INQ: i64 = 36;
/// Levels and types of the control messages that report ICMP errors, and their origins.
const IP: i64 = 0;
const IP_RECVERR: i64 = 11;
const IPV6: i64 = 41;
const IPV6_RECVERR: i64 = 25;
const SO_EE_ORIGIN_ICMP: i64 = 2;
const SO_EE_ORIGIN_ICMP6: i64 = 3;

/// The length and flags of a call of the `recv` or `send` family.
struct Transfer {
    len: usize,
    flags: i64,
    /// The destination of a `sendto` or `sendmsg`.
    to: Option<SocketAddr>,
}

impl Calls {
    fn transfer(&self, arguments: &Arguments<'_>) -> Result<Transfer, Refused> {
        let flags_at = |index| if arguments.values.len() > index { arguments.integer(index) } else { Ok(0) };
        let (len, flags, mut to) = match arguments.call.name.as_str() {
            "read" | "write" => (length(arguments, 2)?, 0, None),
            "readv" | "writev" => (vector(arguments.at(1)?).ok_or_else(|| iovec(arguments))?, 0, None),
            "recv" | "send" | "recvfrom" => (length(arguments, 2)?, flags_at(3)?, None),
            "sendto" => {
                let to = arguments.values.get(4);
                (length(arguments, 2)?, flags_at(3)?, to)
            }
            _ => {
                let Expression::Struct(fields) = arguments.at(1)? else {
                    return Err(arguments.wrong(1, "a struct msghdr"));
                };
                let len = field(fields, "msg_iov").map_or(Some(0), vector).ok_or_else(|| iovec(arguments))?;
                let sends = arguments.call.name == "sendmsg";
                if sends
                    && matches!(field(fields, "msg_control"), Some(Expression::List(all)) if !all.is_empty())
                {
                    return Err(Refused::Skip("control messages of sendmsg are not interpreted".to_owned()));
                }
                (len, flags_at(2)?, field(fields, "msg_name"))
            }
        };
        if !matches!(arguments.call.name.as_str(), "sendto" | "sendmsg") {
            to = None;
        }
        let default = SocketAddr::new(self.ends.remote, self.ends.connect_port);
        let to = to.filter(|to| flags & symbol::MSG_FASTOPEN != 0 || !is_null(to));
        let to = to.map(address).transpose()?.map(|to| to.unwrap_or(default));
        if flags & symbol::MSG_ZEROCOPY != 0 {
            return Err(Refused::Skip("zero copy is not interpreted".to_owned()));
        }
        Ok(Transfer { len, flags, to })
    }

    /// The error of a call that no state of the socket can let succeed.
    fn impossible(&self, arguments: &Arguments<'_>) -> Option<Errno> {
        let call = arguments.call.name.as_str();
        let is_zero = |at: usize| arguments.values.get(at).and_then(number) == Some(0);
        let plain = matches!(call, "read" | "recv" | "recvfrom" | "write" | "send" | "sendto");
        // DRILL-L12
        if plain && arguments.values.get(1).is_some_and(is_null) && !is_zero(2) {
            return Some("EFAULT");
        }
        // DRILL-L13
        let flags = arguments.values.get(3).and_then(number).unwrap_or(0);
        let unspecified = arguments.values.get(4).is_some_and(is_unspecified);
        (call == "sendto" && flags & symbol::MSG_FASTOPEN != 0 && unspecified).then_some("EOPNOTSUPP")
    }

    pub(super) fn receive(&self, arguments: &Arguments<'_>) -> Decoded {
        if let Some(errno) = self.impossible(arguments) {
            return Ok(Understood::Error(errno));
        }
        let fd = self.descriptor(arguments, 0)?;
        let transfer = self.transfer(arguments)?;
        let on = |flag: i64| transfer.flags & flag != 0;
        let flags = ReceiveFlags {
            peek: on(symbol::MSG_PEEK),
            dont_wait: on(symbol::MSG_DONTWAIT),
            wait_all: on(symbol::MSG_WAITALL),
            error_queue: on(symbol::MSG_ERRQUEUE),
            urgent: on(symbol::MSG_OOB),
        };
        request(Request::Receive { fd, len: transfer.len, flags })
    }

    pub(super) fn send(&self, arguments: &Arguments<'_>) -> Decoded {
        if let Some(errno) = self.impossible(arguments) {
            return Ok(Understood::Error(errno));
        }
        let fd = self.descriptor(arguments, 0)?;
        let Transfer { len, flags, to } = self.transfer(arguments)?;
        let on = |flag: i64| flags & flag != 0;
        let flags = SendFlags {
            dont_wait: on(symbol::MSG_DONTWAIT),
            more: on(symbol::MSG_MORE),
            end_of_record: on(symbol::MSG_EOR),
            urgent: on(symbol::MSG_OOB),
        };
        let (fast_open, to) = if on(symbol::MSG_FASTOPEN) { (to, None) } else { (None, to) };
        request(Request::Send { fd, len, flags, fast_open, to })
    }

    pub(super) fn splice(&self, arguments: &Arguments<'_>) -> Decoded {
        let (from, to) = (self.descriptor(arguments, 0)?, self.descriptor(arguments, 2)?);
        let len = length(arguments, 4)?;
        let flags = if arguments.values.len() > 5 { arguments.integer(5)? } else { 0 };
        request(Request::Splice { from, to, len, nonblocking: flags & symbol::SPLICE_NONBLOCK != 0 })
    }

    pub(super) fn sendfile(&self, arguments: &Arguments<'_>) -> Decoded {
        let (to, from) = (self.descriptor(arguments, 0)?, self.descriptor(arguments, 1)?);
        request(Request::Sendfile { to, from, len: length(arguments, 3)? })
    }
}

/// Checks that the received data is zeros, and that `recvmsg` returned the expected flags.
pub(super) fn check_received(
    arguments: &Arguments<'_>,
    bytes: &[u8],
    flags: i64,
    control: &[Control],
) -> Checked {
    if let Some(at) = bytes.iter().position(|byte| *byte != 0) {
        return Ok(Some(format!("byte {at} of what was read is {:#04x}, expected 0", bytes[at])));
    }
    let (true, Some(Expression::Struct(fields))) =
        (arguments.call.name == "recvmsg", arguments.values.get(1))
    else {
        return Ok(None);
    };
    let expected = field(fields, "msg_flags").and_then(number).unwrap_or(flags);
    if expected != flags {
        return Ok(Some(format!("msg_flags is {flags:#x}, expected {expected:#x}")));
    }
    match field(fields, "msg_control") {
        None | Some(Expression::Any) => Ok(None),
        Some(Expression::List(list)) => check_control(arguments, list, control),
        Some(_) => Err(arguments.wrong(1, "msg_control=[{cmsg_level=, cmsg_type=, cmsg_data=}]")),
    }
}

/// Compares control messages, which come in the order of the script.
// DRILL-L18
fn check_control(arguments: &Arguments<'_>, list: &[Expression], control: &[Control]) -> Checked {
    const EXPECTED: &str = "{cmsg_level=, cmsg_type=, cmsg_data=} in msg_control";
    if list.len() != control.len() {
        let (came, said) = (control.len(), list.len());
        return Ok(Some(format!("{came} control messages came, expected {said}")));
    }
    for (index, (expected, came)) in list.iter().zip(control).enumerate() {
        let Expression::Struct(fields) = expected else { return Err(arguments.wrong(1, EXPECTED)) };
        let of = |name: &str| field(fields, name).ok_or_else(|| arguments.wrong(1, EXPECTED));
        let head = |name: &str| number(of(name)?).ok_or_else(|| arguments.wrong(1, "a known name in a cmsg"));
        let (level, kind) = (head("cmsg_level")?, head("cmsg_type")?);
        let (name, number_of) = match came {
            Control::Inq(_) => ("TCP_CM_INQ", (TCP, TCP_CM_INQ)),
            Control::Icmp { ipv6: false, .. } => ("IP_RECVERR", (IP, IP_RECVERR)),
            Control::Icmp { ipv6: true, .. } => ("IPV6_RECVERR", (IPV6, IPV6_RECVERR)),
        };
        if (level, kind) != number_of {
            let what = format!("control message {index}: {name} came, expected level {level}, type {kind}");
            return Ok(Some(what));
        }
        let data = of("cmsg_data")?;
        let wrong = match (data, came) {
            (Expression::Any, _) => None,
            (data, Control::Inq(left)) if number(data) == Some(*left) => None,
            (data, Control::Inq(left)) => Some(format!("TCP_CM_INQ is {left}, expected {}", shown(data))),
            (Expression::Struct(fields), Control::Icmp { .. }) => wrong_error(arguments, fields, *came)?,
            _ => return Err(arguments.wrong(1, "{ee_errno=, ee_origin=, ee_type=, ee_code=}")),
        };
        if wrong.is_some() {
            return Ok(wrong);
        }
    }
    Ok(None)
}

/// Compares the fields of a struct sock_extended_err.
fn wrong_error(arguments: &Arguments<'_>, fields: &[Field], came: Control) -> Checked {
    let Control::Icmp { icmpv6, errno, kind, code, .. } = came else { return Ok(None) };
    for Field { name, value } in fields {
        let came = match name.as_deref() {
            // Names of errors are compared as such.
            Some("ee_errno") => {
                let expected = matches!(value, Expression::Symbol(expected) if expected == errno);
                if !expected {
                    return Ok(Some(format!("ee_errno is {errno}, expected another")));
                }
                continue;
            }
            Some("ee_origin") => {
                if icmpv6 {
                    SO_EE_ORIGIN_ICMP6
                } else {
                    SO_EE_ORIGIN_ICMP
                }
            }
            Some("ee_type") => kind.into(),
            Some("ee_code") => code.into(),
            Some("ee_info" | "ee_data" | "ee_pad") => 0,
            _ => return Err(arguments.wrong(1, "a field of struct sock_extended_err")),
        };
        if *value != Expression::Any && number(value) != Some(came) {
            let name = name.as_deref().unwrap_or_default();
            return Ok(Some(format!("{name} is {came}, expected {}", shown(value))));
        }
    }
    Ok(None)
}

fn shown(value: &Expression) -> String {
    number(value).map_or_else(|| "another kind of value".to_owned(), |number| number.to_string())
}

fn is_null(value: &Expression) -> bool {
    matches!(value, Expression::Symbol(name) if name == "NULL")
}

fn is_unspecified(value: &Expression) -> bool {
    let names = |value: &Expression| matches!(value, Expression::Symbol(name) if name == "AF_UNSPEC");
    match value {
        Expression::Struct(fields) => field(fields, "sa_family").is_some_and(names),
        value => names(value),
    }
}

fn iovec(arguments: &Arguments<'_>) -> Refused {
    arguments.wrong(1, "a list of {..., length}")
}

fn length(arguments: &Arguments<'_>, index: usize) -> Result<usize, Refused> {
    usize::try_from(arguments.integer(index)?).map_err(|_| arguments.wrong(index, "a length"))
}

/// The total length of `[{..., 100}, {iov_base=..., iov_len=100}]`.
fn vector(value: &Expression) -> Option<usize> {
    let Expression::List(list) = value else { return None };
    list.iter().try_fold(0usize, |sum, one| {
        let Expression::Struct(fields) = one else { return None };
        let len = field(fields, "iov_len").or(fields.last().map(|field| &field.value))?;
        sum.checked_add(usize::try_from(number(len)?).ok()?)
    })
}

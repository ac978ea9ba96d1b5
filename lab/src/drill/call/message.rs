//! Calls that carry bytes. Whatever a script writes is zeros, and so is what it sends on the wire.

use std::net::SocketAddr;

use super::{Arguments, Attempt, Calls, Progress, Refused, Tried, address, block_or, counted, field, number};
use crate::drill::ast::{Expression, Field};
use crate::drill::posix::{Errno, Posix, ReceiveFlags};
use crate::drill::symbol;

/// Bytes that a call of the family `recv` or `send` is about, and how.
struct Transfer {
    len: usize,
    flags: i64,
    /// Where to, of `sendto` and `sendmsg`.
    address: Option<SocketAddr>,
}

impl Calls {
    fn transfer(&self, arguments: &Arguments<'_>) -> Result<Transfer, Refused> {
        let flags_at = |index| if arguments.values.len() > index { arguments.integer(index) } else { Ok(0) };
        let (len, flags, mut to) = match arguments.call.name.as_str() {
            "read" | "write" => (length(arguments, 2)?, 0, None),
            "readv" | "writev" => (vector(arguments.at(1)?).ok_or_else(|| iovec(arguments))?, 0, None),
            "recv" | "send" => (length(arguments, 2)?, flags_at(3)?, None),
            "recvfrom" => (length(arguments, 2)?, flags_at(3)?, None),
            "sendto" => {
                let to = arguments.values.get(4);
                (length(arguments, 2)?, flags_at(3)?, to)
            }
            _ => {
                let Expression::Struct(fields) = arguments.at(1)? else {
                    return Err(arguments.wrong(1, "a struct msghdr"));
                };
                let len = field(fields, "msg_iov").map_or(Some(0), vector).ok_or_else(|| iovec(arguments))?;
                refuse_control(fields)?;
                (len, flags_at(2)?, field(fields, "msg_name"))
            }
        };
        if flags & symbol::MSG_FASTOPEN == 0 {
            to = None;
        }
        let default = SocketAddr::new(self.ends.remote, self.ends.connect_port);
        let address = to.map(address).transpose()?.map(|to| to.unwrap_or(default));
        for (flag, name) in [(symbol::MSG_ZEROCOPY, "MSG_ZEROCOPY"), (symbol::MSG_ERRQUEUE, "MSG_ERRQUEUE")] {
            if flags & flag != 0 {
                return Err(Refused::Skip(format!("{name} is not interpreted")));
            }
        }
        if flags & symbol::MSG_OOB != 0 {
            return Err(Refused::Skip("MSG_OOB: urgent data is delivered in line".to_owned()));
        }
        Ok(Transfer { len, flags, address })
    }

    pub(super) fn receive(
        &mut self,
        posix: &mut Posix,
        arguments: &Arguments<'_>,
        progress: &mut Progress,
    ) -> Tried {
        let fd = self.descriptor(arguments, 0)?;
        let transfer = self.transfer(arguments)?;
        let nonblocking = posix.nonblocking(fd) || transfer.flags & symbol::MSG_DONTWAIT != 0;
        let peek = transfer.flags & symbol::MSG_PEEK != 0;
        let wanted = transfer.len - progress.done.min(transfer.len);
        let whole = transfer.flags & symbol::MSG_WAITALL != 0 && !nonblocking;
        let read = posix.receive(fd, wanted, ReceiveFlags { peek });
        match read {
            Ok(bytes) => {
                progress.done += bytes.len();
                let stray = bytes.iter().position(|byte| *byte != 0);
                let wrong =
                    stray.map(|at| format!("byte {at} of what was read is {:#04x}, expected 0", bytes[at]));
                if whole && !bytes.is_empty() && progress.done < transfer.len {
                    return Ok(Attempt::Blocks(None));
                }
                let wrong = wrong.or(outputs(arguments)?);
                Ok(Attempt::Returned(Ok(progress.done as i64), wrong))
            }
            Err("EAGAIN") => block_or(nonblocking, None),
            // What came before the error is told first.
            Err(_) if progress.done > 0 => counted(Ok(progress.done)),
            Err(errno) => counted(Err(errno)),
        }
    }

    pub(super) fn send(
        &mut self,
        posix: &mut Posix,
        arguments: &Arguments<'_>,
        progress: &mut Progress,
    ) -> Tried {
        let fd = self.descriptor(arguments, 0)?;
        let transfer = self.transfer(arguments)?;
        let nonblocking = posix.nonblocking(fd) || transfer.flags & symbol::MSG_DONTWAIT != 0;
        if let (Some(remote), false) = (transfer.address, progress.started) {
            match posix.send_fast_open(fd, remote, transfer.len) {
                Err("EINPROGRESS") if !nonblocking => return Ok(Attempt::Blocks(None)),
                Ok(sent) if sent < transfer.len && !nonblocking => {
                    progress.done = sent;
                    return Ok(Attempt::Blocks(None));
                }
                result => return counted(result),
            }
        }
        let more = transfer.flags & symbol::MSG_MORE != 0;
        let sent = posix.send_more(fd, transfer.len - progress.done.min(transfer.len), more);
        progress_of(sent, transfer.len, nonblocking, progress)
    }

    pub(super) fn splice(
        &mut self,
        posix: &mut Posix,
        arguments: &Arguments<'_>,
        progress: &mut Progress,
    ) -> Tried {
        let (from, to) = (self.descriptor(arguments, 0)?, self.descriptor(arguments, 2)?);
        let len = length(arguments, 4)?;
        let flags = if arguments.values.len() > 5 { arguments.integer(5)? } else { 0 };
        let nonblocking = flags & symbol::SPLICE_NONBLOCK != 0 || posix.nonblocking(from);
        let wanted = len - progress.done.min(len);
        let room = posix.room(to).unwrap_or(0).min(wanted);
        if room == 0 && wanted > 0 {
            return block_or(nonblocking, None);
        }
        match posix.receive(from, room, ReceiveFlags::default()) {
            Ok(bytes) => match posix.send(to, bytes.len()) {
                Ok(sent) => counted(Ok(progress.done + sent)),
                Err(errno) => counted(Err(errno)),
            },
            Err("EAGAIN") => block_or(nonblocking, None),
            Err(errno) => counted(Err(errno)),
        }
    }

    pub(super) fn sendfile(
        &mut self,
        posix: &mut Posix,
        arguments: &Arguments<'_>,
        progress: &mut Progress,
    ) -> Tried {
        let (to, from) = (self.descriptor(arguments, 0)?, self.descriptor(arguments, 1)?);
        if !posix.exists(from) {
            return counted(Err("EBADF"));
        }
        let len = length(arguments, 3)?;
        let nonblocking = posix.nonblocking(to);
        let sent = posix.send(to, len - progress.done.min(len));
        progress_of(sent, len, nonblocking, progress)
    }
}

/// A write that blocks goes on until all is queued.
fn progress_of(sent: Result<usize, Errno>, len: usize, nonblocking: bool, progress: &mut Progress) -> Tried {
    match sent {
        Ok(count) => {
            progress.done += count;
            if progress.done < len && !nonblocking {
                return Ok(Attempt::Blocks(None));
            }
            counted(Ok(progress.done))
        }
        Err("EAGAIN") => block_or(nonblocking, None),
        Err(_) if progress.done > 0 => counted(Ok(progress.done)),
        Err(errno) => counted(Err(errno)),
    }
}

fn iovec(arguments: &Arguments<'_>) -> Refused {
    arguments.wrong(1, "a list of {..., length}")
}

fn length(arguments: &Arguments<'_>, index: usize) -> Result<usize, Refused> {
    usize::try_from(arguments.integer(index)?).map_err(|_| arguments.wrong(index, "a length"))
}

/// The bytes of `[{..., 100}, {iov_base=..., iov_len=100}]`.
fn vector(value: &Expression) -> Option<usize> {
    let Expression::List(list) = value else { return None };
    list.iter().try_fold(0usize, |sum, one| {
        let Expression::Struct(fields) = one else { return None };
        let len = field(fields, "iov_len").or(fields.last().map(|field| &field.value))?;
        sum.checked_add(usize::try_from(number(len)?).ok()?)
    })
}

/// Control messages are not kept.
fn refuse_control(fields: &[Field]) -> Result<(), Refused> {
    match field(fields, "msg_control") {
        None | Some(Expression::Any) => Ok(()),
        Some(Expression::List(list)) if list.is_empty() => Ok(()),
        Some(_) => Err(Refused::Skip("control messages are not interpreted".to_owned())),
    }
}

/// What `recvmsg` is to leave in its struct.
fn outputs(arguments: &Arguments<'_>) -> Result<Option<String>, Refused> {
    let (true, Some(Expression::Struct(fields))) =
        (arguments.call.name == "recvmsg", arguments.values.get(1))
    else {
        return Ok(None);
    };
    let flags = field(fields, "msg_flags").and_then(number).unwrap_or(0);
    Ok((flags != 0).then(|| format!("msg_flags is 0, expected {flags:#x}")))
}

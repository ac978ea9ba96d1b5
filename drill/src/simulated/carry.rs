//! Calls that transfer data in several attempts.

use std::net::SocketAddr;

use super::{Attempt, Progress, Tried, block_or, counted, returned};
use crate::posix::Posix;
use crate::subject::{Control, Errno, ReceiveFlags, Reply, SendFlags};
use crate::symbol;

pub(super) fn receive(
    posix: &mut Posix,
    fd: i32,
    len: usize,
    flags: ReceiveFlags,
    progress: &mut Progress,
) -> Tried {
    let nonblocking = posix.nonblocking(fd) || flags.dont_wait;
    if flags.urgent {
        return match posix.receive_urgent(fd) {
            Ok(bytes) => returned(Ok(Reply::Received(bytes, symbol::MSG_OOB, Vec::new()))),
            Err(errno) => returned(Err(errno)),
        };
    }
    let whole = flags.wait_all && !nonblocking;
    match posix.receive(fd, len - progress.read.len().min(len), flags.peek) {
        Ok(bytes) => {
            let more = !bytes.is_empty();
            progress.read.extend(bytes);
            if whole && more && progress.read.len() < len {
                return Ok(Attempt::Blocks(None));
            }
            received(posix, fd, progress)
        }
        Err("EAGAIN") => block_or(nonblocking, None),
        // Data received before the error comes first.
        Err(_) if !progress.read.is_empty() => received(posix, fd, progress),
        Err(errno) => returned(Err(errno)),
    }
}

/// The reply to a read, with the control messages that the socket asked for.
fn received(posix: &Posix, fd: i32, progress: &mut Progress) -> Tried {
    let control = posix.inq(fd).map(Control::Inq).into_iter().collect();
    returned(Ok(Reply::Received(std::mem::take(&mut progress.read), 0, control)))
}

/// The reply to a read of the error queue: eight bytes of the segment that the message quotes.
pub(super) fn report(report: Control, len: usize) -> Reply {
    const QUOTED: usize = 8;
    let cut = if len < QUOTED { symbol::MSG_TRUNC } else { 0 };
    Reply::Received(vec![0; len.min(QUOTED)], symbol::MSG_ERRQUEUE | cut, vec![report])
}

pub(super) fn send(
    posix: &mut Posix,
    fd: i32,
    len: usize,
    flags: SendFlags,
    fast_open: Option<SocketAddr>,
    progress: &mut Progress,
) -> Tried {
    let nonblocking = posix.nonblocking(fd) || flags.dont_wait;
    if let (Some(remote), false) = (fast_open.or(posix.deferred(fd)), progress.started) {
        return match posix.send_fast_open(fd, remote, len) {
            Ok(0) if nonblocking => counted(Err("EINPROGRESS")),
            Ok(sent) if !nonblocking => {
                (progress.done, progress.opening) = (sent, true);
                Ok(Attempt::Blocks(None))
            }
            result => counted(result),
        };
    }
    if progress.opening {
        match posix.connected(fd) {
            Ok(None) => {
                // The rest leaves with the ACK of the SYN-ACK.
                progress.done += posix.queue_behind_syn(fd, len - progress.done.min(len));
                return Ok(Attempt::Blocks(None));
            }
            Ok(Some(())) => progress.opening = false,
            Err(errno) => return counted(Err(errno)),
        }
        if progress.done >= len {
            return counted(Ok(len));
        }
    }
    if progress.started && !nonblocking && !posix.wakes_writer(fd) {
        return Ok(Attempt::Blocks(None));
    }
    if flags.urgent {
        return counted(posix.send_urgent(fd, len));
    }
    let flags = steadfast_core::SendFlags { more: flags.more, end_of_record: flags.end_of_record };
    let sent = posix.send_more(fd, len - progress.done.min(len), flags);
    progress_of(sent, len, nonblocking, progress)
}

pub(super) fn splice(
    posix: &mut Posix,
    from: i32,
    to: i32,
    len: usize,
    nonblocking: bool,
    progress: &mut Progress,
) -> Tried {
    // The flag is about pipes: a socket blocks unless it is set not to.
    let nonblocking = posix.nonblocking(from) || (nonblocking && posix.stream(from).is_none());
    let wanted = len - progress.done.min(len);
    if posix.before_urgent(from) == Some(0) && !posix.in_line(from) {
        return counted(Ok(0));
    }
    let room = posix.room(to).unwrap_or(0).min(wanted);
    if room == 0 && wanted > 0 {
        return block_or(nonblocking, None);
    }
    match posix.receive(from, room, false) {
        Ok(bytes) => match posix.send(to, bytes.len()) {
            Ok(sent) => counted(Ok(progress.done + sent)),
            Err(errno) => counted(Err(errno)),
        },
        Err("EAGAIN") => block_or(nonblocking, None),
        Err(errno) => counted(Err(errno)),
    }
}

pub(super) fn sendfile(posix: &mut Posix, to: i32, from: i32, len: usize, progress: &mut Progress) -> Tried {
    if !posix.exists(from) {
        return counted(Err("EBADF"));
    }
    let nonblocking = posix.nonblocking(to);
    let sent = posix.send(to, len - progress.done.min(len));
    progress_of(sent, len, nonblocking, progress)
}

/// The result of a write. A blocking write continues until everything is queued.
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

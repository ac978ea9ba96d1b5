//! Urgent data: one byte of the stream that is read by itself, unless it is read in line.

use steadfast_core::Error;

use super::{LARGEST, Posix, System};
use crate::subject::Errno;

impl Posix {
    /// Queues zeros, the last of which is urgent.
    pub(crate) fn send_urgent(&mut self, fd: i32, len: usize) -> Result<usize, Errno> {
        let id = self.stream(fd).ok_or(if self.system == System::Linux { "EPIPE" } else { "ENOTCONN" })?;
        self.stack.send_urgent(id, &vec![0; len.min(LARGEST)]).map_err(Error::name)
    }

    /// Reads the urgent byte out of band, once.
    // DRILL-X24
    pub(crate) fn receive_urgent(&mut self, fd: i32) -> Result<Vec<u8>, Errno> {
        let (before, in_line) = (self.before_urgent(fd), self.in_line(fd));
        let id = self.stream(fd).ok_or("ENOTCONN")?;
        let unread = self.stack.readable(id).map_err(Error::name)?.0;
        let socket = self.socket_mut(fd)?;
        let Some(before) = before.filter(|_| !in_line && !socket.urgent_read) else {
            socket.urgent_read &= before.is_some();
            return Err("EINVAL");
        };
        if before >= unread {
            return Err("EAGAIN");
        }
        socket.urgent_read = true;
        Ok(vec![0])
    }

    /// Linux: the bytes before the urgent byte, at which a read stops; `None` if there is none.
    // DRILL-X24
    pub(crate) fn before_urgent(&self, fd: i32) -> Option<usize> {
        let id = self.stream(fd).filter(|_| self.stack.config().linux_release > 0)?;
        self.stack.readable(id).ok()?.1.checked_sub(1)
    }

    /// Whether the urgent byte is read like others (`SO_OOBINLINE`).
    pub(crate) fn in_line(&self, fd: i32) -> bool {
        let kept =
            self.socket_of(fd).ok().and_then(|socket| socket.kept.get(&("SOL_SOCKET", "SO_OOBINLINE")));
        kept.is_some_and(|on| *on != 0)
    }
}

//! Readiness: `poll` and `epoll`.

use steadfast_core::Event;
use steadfast_core::trace::State;

use super::{Errno, Kind, Posix, Role};

const READABLE: i64 = 1;
/// `POLLPRI`
const URGENT: i64 = 2;
const WRITABLE: i64 = 4;
const FAILED: i64 = 8;
const HANG_UP: i64 = 0x10;
const INVALID: i64 = 0x20;
const READ_HANG_UP: i64 = 0x2000;
/// `EPOLLET`
const EDGE: i64 = 1 << 31;
/// `EPOLLONESHOT`
const ONCE: i64 = 1 << 30;

/// The interest of an epoll descriptor in another descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interest {
    pub(crate) events: i64,
    /// The user data.
    pub(crate) data: i64,
    /// The events reported last, for edge-triggered interests.
    reported: i64,
    /// Reported once, and disabled until it is armed again.
    spent: bool,
}

impl Posix {
    /// The events of `wanted` that a descriptor is ready for, and those that are always reported.
    pub(crate) fn poll(&mut self, fd: i32, wanted: i64) -> i64 {
        self.readiness(fd) & (wanted | FAILED | HANG_UP | INVALID)
    }

    fn readiness(&mut self, fd: i32) -> i64 {
        let Ok(file) = self.file(fd) else { return INVALID };
        match &file.kind {
            Kind::Plain => READABLE | WRITABLE,
            Kind::PipeIn(_) => WRITABLE,
            Kind::PipeOut(index) => {
                if self.pipes[*index] > 0 {
                    READABLE
                } else {
                    0
                }
            }
            Kind::Epoll(_) => {
                if self.epoll_ready(fd, 1).is_ok_and(|ready| !ready.is_empty()) {
                    READABLE
                } else {
                    0
                }
            }
            Kind::Socket(socket) => match socket.role {
                Role::Fresh if socket.deferred.is_some() => WRITABLE,
                Role::Fresh => WRITABLE | HANG_UP,
                Role::Listener(id) => {
                    let all = self.stack.sockets(self.now);
                    let waiting = all.iter().any(|entry| {
                        entry.state == State::Listen && entry.socket == Some(id) && entry.recv_q > 0
                    });
                    if waiting { READABLE } else { 0 }
                }
                Role::Stream(_) => self.stream_readiness(fd),
            },
        }
    }

    fn stream_readiness(&mut self, fd: i32) -> i64 {
        let Some(id) = self.stream(fd) else { return INVALID };
        let state = self.stack.state(id).unwrap_or(State::Closed);
        let (unread, urgent) = self.stack.readable(id).unwrap_or_default();
        let mut ready = if urgent > 0 { URGENT } else { 0 };
        if state == State::Closed {
            // The stack's error can only be read by taking it.
            if let Ok(Some(error)) = self.stack.take_error(id)
                && let Ok(socket) = self.socket_mut(fd)
            {
                socket.error = Some(error);
            }
            ready |= READABLE | WRITABLE | HANG_UP | READ_HANG_UP;
        }
        let Ok(socket) = self.socket_of(fd) else { return INVALID };
        if socket.error.is_some() {
            ready |= FAILED;
        }
        let (at_end, sending) = match state {
            State::SynSent => (false, false),
            // Accepted before its third segment.
            State::SynReceived => (false, socket.told),
            State::Established => (false, true),
            State::CloseWait => (true, true),
            State::FinWait1 | State::FinWait2 => (false, false),
            State::Closing | State::LastAck | State::TimeWait => (true, false),
            State::Closed | State::Listen => (true, false),
        };
        // After a shutdown for reading, too. DRILL-X20
        let reads_ended = self.stack.readiness(id).is_ok_and(|readiness| readiness.read_closed);
        let at_end = at_end || (state != State::SynSent && reads_ended);
        if unread >= socket.receive_lowat.max(1) || at_end {
            ready |= READABLE;
        }
        if at_end {
            ready |= READ_HANG_UP;
        }
        let info = self.stack.info(self.now, id);
        let queued = info.as_ref().map_or(0, |info| info.send_q);
        let room = u64::from(socket.options.sndbuf).saturating_sub(queued);
        let unsent = info.as_ref().map_or(0, |info| info.notsent_bytes);
        let little_unsent = socket.notsent_lowat.is_none_or(|lowat| unsent < lowat);
        // As on Linux: at least a third of the buffer must be free.
        let quanta = self.stack.config().tcp_gso_quanta;
        if sending && if quanta { self.has_room(id) } else { room > 0 && room >= queued / 2 && little_unsent }
        {
            ready |= WRITABLE;
        }
        // Shut down for writing: a write fails at once, so it does not block.
        if matches!(
            state,
            State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck | State::TimeWait
        ) {
            ready |= WRITABLE;
        }
        let writes_ended = matches!(state, State::FinWait1 | State::FinWait2);
        if matches!(state, State::Closing | State::LastAck | State::TimeWait) || (writes_ended && at_end) {
            ready |= HANG_UP;
        }
        ready
    }

    // epoll.

    pub(crate) fn epoll(&mut self) -> Result<i32, Errno> {
        self.insert(Kind::Epoll(Default::default()), false)
    }

    fn interests(&mut self, fd: i32) -> Result<&mut std::collections::BTreeMap<i32, Interest>, Errno> {
        match &mut self.file_mut(fd)?.kind {
            Kind::Epoll(interests) => Ok(interests),
            _ => Err("EINVAL"),
        }
    }

    /// Adds an interest, or changes it if `add` is false.
    pub(crate) fn epoll_set(
        &mut self,
        fd: i32,
        of: i32,
        events: i64,
        data: i64,
        add: bool,
    ) -> Result<(), Errno> {
        self.file(of)?;
        let interests = self.interests(fd)?;
        match (interests.contains_key(&of), add) {
            (true, true) => return Err("EEXIST"),
            (false, false) => return Err("ENOENT"),
            _ => {}
        }
        interests.insert(of, Interest { events, data, reported: 0, spent: false });
        Ok(())
    }

    pub(crate) fn epoll_remove(&mut self, fd: i32, of: i32) -> Result<(), Errno> {
        self.interests(fd)?.remove(&of).map(drop).ok_or("ENOENT")
    }

    /// Returns ready events without marking them as reported.
    fn epoll_ready(&mut self, fd: i32, limit: usize) -> Result<Vec<(i32, i64, i64)>, Errno> {
        while let Some((id, event)) = self.stack.poll_event() {
            *self.edges.entry(id).or_default() |= event;
        }
        let interests: Vec<_> = self.interests(fd)?.iter().map(|(of, interest)| (*of, *interest)).collect();
        let mut ready = Vec::new();
        for (of, interest) in interests {
            let now = self.poll(of, interest.events) & !(EDGE | ONCE | INVALID);
            let news =
                self.stream(of).and_then(|id| self.edges.get(&id)).is_some_and(|event| news(*event, now));
            let fresh = now & !interest.reported != 0 || news;
            if interest.spent || now == 0 || (interest.events & EDGE != 0 && !fresh) {
                continue;
            }
            ready.push((of, now, interest.data));
            if ready.len() == limit {
                break;
            }
        }
        Ok(ready)
    }

    /// Returns up to `limit` ready events, each with the user data.
    pub(crate) fn epoll_wait(&mut self, fd: i32, limit: usize) -> Result<Vec<(i64, i64)>, Errno> {
        let ready = self.epoll_ready(fd, limit)?;
        for (of, events, _) in &ready {
            let id = self.stream(*of);
            if let Some(interest) = self.interests(fd)?.get_mut(of) {
                interest.reported = *events;
                interest.spent = interest.events & ONCE != 0;
                if let Some(id) = id {
                    self.edges.remove(&id);
                }
            }
        }
        self.forget_reports(fd)?;
        Ok(ready.into_iter().map(|(_, events, data)| (events, data)).collect())
    }

    /// Forgets reports of events that are no longer ready, so that their return is a new edge.
    fn forget_reports(&mut self, fd: i32) -> Result<(), Errno> {
        let watched: Vec<i32> = self.interests(fd)?.keys().copied().collect();
        for of in watched {
            let now = self.readiness(of);
            if let Some(interest) = self.interests(fd)?.get_mut(&of) {
                interest.reported &= now;
            }
        }
        Ok(())
    }
}

/// Returns whether an event of the stack is an edge of a ready event.
fn news(event: Event, ready: i64) -> bool {
    (event.contains(Event::READABLE) && ready & READABLE != 0)
        || (event.contains(Event::URGENT) && ready & URGENT != 0)
        || (event.contains(Event::WRITABLE) && ready & WRITABLE != 0)
        || (event.contains(Event::ERROR) && ready & FAILED != 0)
}

//! A crowd of clients: many connections to one server, a limited number at a time.

use steadfast_core::{ConnectOptions, Error, Event, Instant, Shutdown, SocketId};
use steadfast_timeline::Map;

use super::io::Reading;
use super::{AppContext, Got, Io};
use crate::scenario::script::Clients;

/// The current activity of one client.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Connecting,
    Sending { left: u64 },
    Reading { left: Option<u64> },
}

/// The clients.
pub(super) struct Crowd {
    clients: Clients,
    started: u64,
    succeeded: u64,
    failed: u64,
    next: Instant,
    wakes_at: Option<Instant>,
    doing: Map<SocketId, Doing>,
}

impl Crowd {
    pub(super) fn new(clients: Clients, now: Instant) -> Crowd {
        Crowd {
            clients,
            started: 0,
            succeeded: 0,
            failed: 0,
            next: now,
            wakes_at: None,
            doing: Map::default(),
        }
    }

    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.wakes_at
    }

    pub(super) fn run(
        &mut self,
        io: &mut Io,
        context: &mut AppContext<'_>,
        changed: &[(SocketId, Event)],
    ) -> Option<Got> {
        for (id, _) in changed {
            self.go_on(*id, io, context);
        }
        self.wakes_at = None;
        while self.started < self.clients.count && (self.doing.len() as u64) < self.clients.parallel {
            if self.next > context.now {
                self.wakes_at = Some(self.next);
                break;
            }
            self.start(io, context);
        }
        let over = self.succeeded + self.failed == self.clients.count;
        over.then_some(Got::Number { got: self.succeeded, wanted: self.clients.count })
    }

    fn start(&mut self, io: &mut Io, context: &mut AppContext<'_>) {
        let local_port = self.clients.from.map(|first| first.wrapping_add(self.started as u16));
        self.started += 1;
        self.next = context.now + self.clients.every;
        let options = ConnectOptions { local_port, ..ConnectOptions::default() };
        let remote = context.directory.resolve(&self.clients.to);
        match remote.map(|remote| io.connect(context, remote, options)) {
            Some(Ok(id)) => {
                self.doing.insert(id, Doing::Connecting);
            }
            _ => self.failed += 1,
        }
    }

    fn go_on(&mut self, id: SocketId, io: &mut Io, context: &mut AppContext<'_>) {
        let Some(mut doing) = self.doing.get(&id).copied() else { return };
        let over = self.advance(id, &mut doing, io, context);
        match over {
            None => {
                self.doing.insert(id, doing);
                return;
            }
            Some(true) => self.succeeded += 1,
            Some(false) => self.failed += 1,
        }
        self.doing.remove(&id);
        let _gone = io.close(context, id);
    }

    /// Advances one client. `Some` once it is done: true if it succeeded.
    fn advance(
        &self,
        id: SocketId,
        doing: &mut Doing,
        io: &mut Io,
        context: &mut AppContext<'_>,
    ) -> Option<bool> {
        if let Doing::Connecting = doing {
            match io.connected(context, id)? {
                Got::Done => *doing = Doing::Sending { left: self.clients.send },
                _ => return Some(false),
            }
        }
        if let Doing::Sending { left } = doing {
            if *left > 0 {
                match io.write(context, id, *left) {
                    Ok(sent) => *left -= sent,
                    Err(Error::WouldBlock) => return None,
                    Err(_) => return Some(false),
                }
            }
            if *left > 0 {
                return None;
            }
            if self.clients.read.is_none() && io.shutdown(context, id, Shutdown::Write).is_err() {
                return Some(false);
            }
            *doing = Doing::Reading { left: self.clients.read };
        }
        let Doing::Reading { left } = doing else { return None };
        loop {
            if *left == Some(0) {
                return Some(true);
            }
            match io.read(context, id, left.unwrap_or(u64::MAX)) {
                Ok(Reading::Bytes(n)) => *left = left.map(|left| left - n),
                Ok(Reading::Eof) => return Some(left.is_none()),
                Err(Error::WouldBlock) => return None,
                Err(_) => return Some(false),
            }
        }
    }
}

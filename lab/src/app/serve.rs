//! Servers: a listener, and one service for all of its connections.

use std::net::SocketAddr;

use steadfast_core::{ConnectOptions, Error, Event, ListenOptions, Shutdown, SocketId};
use steadfast_timeline::Map;

use super::io::Reading;
use super::{AppContext, Io};
use crate::scenario::script::{Serve, Service, Setting};

/// The progress of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Served {
    /// Bytes left to write.
    left: u64,
    /// The peer has ended its stream.
    eof: bool,
    /// Our side has ended its stream.
    ended: bool,
    /// The other connection of a proxy.
    other: Option<SocketId>,
}

/// A listener and its connections.
pub(super) struct Server {
    serve: Serve,
    listener: SocketId,
    connections: Map<SocketId, Served>,
    fresh: bool,
}

impl Server {
    pub(super) fn new(serve: Serve, io: &mut Io, context: &mut AppContext<'_>) -> Result<Server, Error> {
        let mut options = ListenOptions { fast_open: serve.fast_open, ..ListenOptions::default() };
        options.backlog = serve.backlog.unwrap_or(options.backlog);
        options.socket = Setting::all(&serve.options, context.stack.config());
        let listener =
            io.listen(context, SocketAddr::new(context.directory.unspecified(), serve.port), options)?;
        Ok(Server { serve, listener, connections: Map::default(), fresh: true })
    }

    pub(super) fn run(&mut self, io: &mut Io, context: &mut AppContext<'_>, changed: &[(SocketId, Event)]) {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh || changed.iter().any(|(id, _)| *id == self.listener) {
            while let Ok(id) = io.accept(context, self.listener) {
                self.accepted(id, io, context);
            }
        }
        for (id, _) in changed {
            self.go_on(*id, io, context);
        }
    }

    fn accepted(&mut self, id: SocketId, io: &mut Io, context: &mut AppContext<'_>) {
        let left = match self.serve.how {
            Service::Stream(n) | Service::Reply(n) => n,
            _ => 0,
        };
        let mut served = Served { left, ..Served::default() };
        if let Service::Proxy(to) = &self.serve.how {
            let onward = context.directory.resolve(to);
            match onward.map(|remote| io.connect(context, remote, ConnectOptions::default())) {
                Some(Ok(other)) => {
                    served.other = Some(other);
                    self.connections.insert(other, Served { other: Some(id), ..Served::default() });
                }
                _ => {
                    let _gone = io.abort(context, id);
                    return;
                }
            }
        }
        self.connections.insert(id, served);
        self.go_on(id, io, context);
    }

    fn go_on(&mut self, id: SocketId, io: &mut Io, context: &mut AppContext<'_>) {
        let Some(mut served) = self.connections.get(&id).copied() else { return };
        let over = if served.other.is_some() {
            self.relay(id, &mut served, io, context)
        } else {
            treat(&self.serve.how, id, &mut served, io, context)
        };
        match over {
            Ok(false) => {
                self.connections.insert(id, served);
            }
            Ok(true) => self.drop_pair(id, false, io, context),
            Err(_) => self.drop_pair(id, true, io, context),
        }
    }

    /// Closes the connection, and its partner if the server is a proxy.
    fn drop_pair(&mut self, id: SocketId, failed: bool, io: &mut Io, context: &mut AppContext<'_>) {
        let other = self.connections.remove(&id).and_then(|served| served.other);
        let _gone = io.close(context, id);
        if let Some(other) = other
            && self.connections.remove(&other).is_some()
        {
            let _gone = if failed { io.abort(context, other) } else { io.close(context, other) };
        }
    }

    /// Relays bytes and ends of stream in both directions. Returns true when both streams are complete.
    fn relay(
        &mut self,
        id: SocketId,
        served: &mut Served,
        io: &mut Io,
        context: &mut AppContext<'_>,
    ) -> Result<bool, Error> {
        let Some(other) = served.other else { return Ok(true) };
        let mut back = self.connections.get(&other).copied().unwrap_or_default();
        // The onward connection may not be established yet.
        let events = io.events(id);
        let over = events.contains(Event::ERROR) || events.contains(Event::CLOSED);
        match read_all(id, io, context) {
            _ if served.eof => {}
            Err(Error::NotConnected) if !over => {}
            result => served.eof = result?,
        }
        pass_on(id, other, served.eof, &mut back, io, context)?;
        pass_on(other, id, back.eof, served, io, context)?;
        self.connections.insert(other, back);
        Ok(served.ended && back.ended)
    }
}

/// Relays one direction of a proxy: the bytes, and then the end of the stream.
fn pass_on(
    from: SocketId,
    to: SocketId,
    eof: bool,
    sink: &mut Served,
    io: &mut Io,
    context: &mut AppContext<'_>,
) -> Result<(), Error> {
    io.relays(context, from, to);
    match io.write(context, to, io.owed(context, from, to)) {
        Ok(_) | Err(Error::WouldBlock | Error::NotConnected) => {}
        Err(error) => return Err(error),
    }
    if eof && !sink.ended && io.owed(context, from, to) == 0 {
        match io.shutdown(context, to, Shutdown::Write) {
            Ok(()) => sink.ended = true,
            // Not established yet: try again later.
            Err(Error::NotConnected) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Serves one connection as far as possible. Returns true when it is done.
fn treat(
    how: &Service,
    id: SocketId,
    served: &mut Served,
    io: &mut Io,
    context: &mut AppContext<'_>,
) -> Result<bool, Error> {
    match how {
        Service::Close => return Ok(true),
        Service::Hold => {
            let events = io.events(id);
            return Ok(events.contains(Event::ERROR));
        }
        _ => {}
    }
    if !served.eof {
        served.eof = read_all(id, io, context)?;
    }
    match how {
        Service::Sink => Ok(served.eof),
        Service::Leak => Ok(false),
        Service::Echo => {
            io.relays(context, id, id);
            write(id, io.owed(context, id, id), io, context)?;
            Ok(served.eof && io.owed(context, id, id) == 0)
        }
        Service::Reply(_) if !served.eof => Ok(false),
        Service::Reply(_) => {
            served.left -= write(id, served.left, io, context)?;
            Ok(served.left == 0)
        }
        _ => {
            served.left -= write(id, served.left, io, context)?;
            if served.left == 0 && !served.ended {
                io.shutdown(context, id, Shutdown::Write)?;
                served.ended = true;
            }
            Ok(served.ended && served.eof)
        }
    }
}

fn write(id: SocketId, len: u64, io: &mut Io, context: &mut AppContext<'_>) -> Result<u64, Error> {
    match io.write(context, id, len) {
        Err(Error::WouldBlock) => Ok(0),
        result => result,
    }
}

/// Reads all available data. Returns true at the end of the stream.
fn read_all(id: SocketId, io: &mut Io, context: &mut AppContext<'_>) -> Result<bool, Error> {
    loop {
        match io.read(context, id, u64::MAX) {
            Ok(Reading::Bytes(_)) => {}
            Ok(Reading::Eof) => return Ok(true),
            Err(Error::WouldBlock) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

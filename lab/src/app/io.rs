//! The calls of programs, and the records of the data that they send and read.

use std::net::SocketAddr;

use bytes::Bytes;
use steadfast_core::{ConnectOptions, Error, Event, ListenOptions, Shutdown, SocketId};
use steadfast_timeline::Map;

use super::datagrams::UdpSocket;
use super::{AppContext, Got};
use crate::scenario::expect::Invariant;
use crate::stream::Reader;

/// Bytes read per call.
const CHUNK: usize = 65_536;

/// The lab's knowledge of a socket.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    pub(crate) listener: bool,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// All events of the socket so far.
    pub(crate) events: Event,
    /// The stream that it writes, and the one that it reads.
    tx: usize,
    rx: Option<usize>,
    passive: bool,
    /// A replay of an earlier connection's segments created it: its data was read already.
    ghost: bool,
    /// An error ended it, and the application knows.
    dead: bool,
}

/// The sockets of one host.
#[derive(Default)]
pub(crate) struct Io {
    sockets: Map<SocketId, Socket>,
    pub(super) datagrams: Map<SocketId, UdpSocket>,
    pub(crate) names: Map<String, SocketId>,
    /// Endpoints of named connections, for expectations. They outlive the handle.
    pub(crate) known: Map<String, (SocketAddr, SocketAddr)>,
    pub(super) buffer: Vec<u8>,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Bytes(u64),
    Eof,
}

impl Io {
    pub(crate) fn happened(&mut self, id: SocketId, event: Event) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.events |= event;
        }
    }

    pub(crate) fn events(&self, id: SocketId) -> Event {
        self.sockets.get(&id).map_or(Event::default(), |socket| socket.events)
    }

    /// Returns the open handles in a reproducible order.
    pub(crate) fn open_sockets(&self) -> Vec<SocketId> {
        let mut ids: Vec<_> = self.sockets.keys().chain(self.datagrams.keys()).copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(crate) fn listeners(&self) -> usize {
        self.sockets.values().filter(|socket| socket.listener).count()
    }

    /// Returns the streams that this host reads.
    pub(crate) fn reads(&self) -> Vec<usize> {
        self.sockets.values().filter_map(|socket| socket.rx).collect()
    }

    pub(crate) fn name(&mut self, name: &str, id: SocketId) {
        self.names.insert(name.to_owned(), id);
        if let Some(socket) = self.sockets.get(&id) {
            self.known.insert(name.to_owned(), (socket.local, socket.remote));
        }
    }

    pub(crate) fn listen(
        &mut self,
        context: &mut AppContext<'_>,
        local: SocketAddr,
        options: ListenOptions,
    ) -> Result<SocketId, Error> {
        let id = context.stack.listen(local, options)?;
        let socket = Socket {
            listener: true,
            local,
            remote: SocketAddr::new(context.directory.unspecified(), 0),
            events: Event::default(),
            tx: 0,
            rx: None,
            passive: false,
            ghost: false,
            dead: false,
        };
        self.sockets.insert(id, socket);
        context.timeline.listening(context.now, context.host, true);
        Ok(id)
    }

    pub(crate) fn connect(
        &mut self,
        context: &mut AppContext<'_>,
        remote: SocketAddr,
        options: ConnectOptions,
    ) -> Result<SocketId, Error> {
        let id = context.stack.connect(context.host_now, remote, options)?;
        let local = context.stack.local_addr(id)?;
        self.adopt(context, id, local, remote, false);
        Ok(id)
    }

    pub(crate) fn accept(
        &mut self,
        context: &mut AppContext<'_>,
        listener: SocketId,
    ) -> Result<SocketId, Error> {
        let (id, remote) = context.stack.accept(listener)?;
        let local = context.stack.local_addr(id).unwrap_or(remote);
        self.adopt(context, id, local, remote, true);
        Ok(id)
    }

    fn adopt(
        &mut self,
        context: &mut AppContext<'_>,
        id: SocketId,
        local: SocketAddr,
        remote: SocketAddr,
        passive: bool,
    ) {
        let tx = context.streams.open(context.now, context.host, local, context.nats.inner(remote));
        let events = Event::default();
        let socket = Socket {
            listener: false,
            local,
            remote,
            events,
            tx,
            rx: None,
            passive,
            ghost: false,
            dead: false,
        };
        self.sockets.insert(id, socket);
        if passive {
            self.incoming(context, id);
        }
    }

    /// Returns the stream that a socket reads, once it exists.
    fn incoming(&mut self, context: &mut AppContext<'_>, id: SocketId) -> Option<usize> {
        let socket = self.sockets.get_mut(&id)?;
        if socket.rx.is_none() && !socket.ghost {
            let (from, to) = (context.nats.inner(socket.remote), socket.local);
            socket.rx = if socket.passive {
                let born = context.born.get(&(socket.local, socket.remote)).copied().unwrap_or(context.now);
                context.streams.asking(from, to, born)
            } else {
                context.streams.answering(from, to, socket.tx)
            };
            if let Some(rx) = socket.rx {
                let reader = &mut context.streams.get_mut(rx).reader;
                if *reader == Reader::Nobody {
                    *reader = Reader::Reading;
                } else {
                    // A SYN cookie that is replayed after the connection's end creates the connection again.
                    (socket.rx, socket.ghost) = (None, true);
                    let text = format!("{} from {} was accepted a second time", socket.local, socket.remote);
                    context.violated(Invariant::Stream, text);
                }
            }
        }
        socket.rx
    }

    /// Writes up to `len` bytes of the socket's stream, as far as there is room.
    pub(crate) fn write(
        &mut self,
        context: &mut AppContext<'_>,
        id: SocketId,
        len: u64,
    ) -> Result<u64, Error> {
        self.write_as(context, id, len, false)
    }

    /// As [`write`](Io::write); `urgent`: the data is urgent.
    pub(crate) fn write_as(
        &mut self,
        context: &mut AppContext<'_>,
        id: SocketId,
        len: u64,
        urgent: bool,
    ) -> Result<u64, Error> {
        let Some(socket) = self.sockets.get(&id) else { return Err(Error::NoSuchSocket) };
        let tx = socket.tx;
        let mut left = len;
        while left > 0 {
            let mut piece: Bytes = context.streams.next_content(tx, left);
            let sent = if urgent {
                context.stack.send_urgent(id, &piece)
            } else {
                context.stack.send_bytes(id, &mut piece)
            };
            match sent {
                Ok(sent) => {
                    context.streams.get_mut(tx).accepted(context.now, sent as u64);
                    left -= sent as u64;
                    if sent == 0 {
                        break;
                    }
                }
                Err(Error::WouldBlock) => break,
                Err(error) => {
                    self.failed(context, id, error);
                    return Err(error);
                }
            }
        }
        if left == len && len > 0 { Err(Error::WouldBlock) } else { Ok(len - left) }
    }

    /// Reads once, up to `len` bytes, and compares the data with what was sent.
    pub(crate) fn read(
        &mut self,
        context: &mut AppContext<'_>,
        id: SocketId,
        len: u64,
    ) -> Result<Reading, Error> {
        self.buffer.resize(CHUNK, 0);
        let room = (CHUNK as u64).min(len) as usize;
        let result = context.stack.recv(id, &mut self.buffer[..room]);
        match result {
            Ok(0) => {
                if let Some(rx) = self.incoming(context, id)
                    && let Err(text) = context.streams.eof(rx)
                {
                    context.violated(Invariant::Stream, text);
                }
                Ok(Reading::Eof)
            }
            Ok(read) => {
                match self.incoming(context, id) {
                    None if self.sockets.get(&id).is_some_and(|socket| socket.ghost) => {}
                    None => {
                        context.violated(Invariant::Stream, format!("read {read} bytes that nobody sent"))
                    }
                    Some(rx) => {
                        if let Err(text) = context.streams.delivered(rx, &self.buffer[..read]) {
                            context.violated(Invariant::Stream, text);
                        }
                        context.streams.get_mut(rx).read_at(context.now);
                    }
                }
                Ok(Reading::Bytes(read as u64))
            }
            Err(Error::WouldBlock) => Err(Error::WouldBlock),
            Err(error) => {
                self.failed(context, id, error);
                Err(error)
            }
        }
    }

    /// Records that the application got an error.
    pub(crate) fn failed(&mut self, context: &mut AppContext<'_>, id: SocketId, error: Error) {
        if matches!(
            error,
            Error::BrokenPipe | Error::NotConnected | Error::InvalidArgument | Error::WouldBlock
        ) {
            return;
        }
        if let Some(rx) = self.incoming(context, id) {
            context.streams.get_mut(rx).reader = Reader::Error;
        }
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.dead = true;
            context.streams.get_mut(socket.tx).broken = true;
        }
    }

    /// The result of a connect; `None` while it is in progress.
    pub(crate) fn connected(&mut self, context: &mut AppContext<'_>, id: SocketId) -> Option<Got> {
        let events = self.events(id);
        if events.contains(Event::CONNECTED) {
            return Some(Got::Done);
        }
        if !events.contains(Event::ERROR) && !events.contains(Event::CLOSED) {
            return None;
        }
        Some(match self.take_error(context, id) {
            Ok(Some(error)) | Err(error) => Got::Error(error),
            Ok(None) => Got::Error(Error::NotConnected),
        })
    }

    /// Returns the error that ended the connection, if any.
    pub(crate) fn take_error(
        &mut self,
        context: &mut AppContext<'_>,
        id: SocketId,
    ) -> Result<Option<Error>, Error> {
        let error = context.stack.take_error(id)?;
        if let Some(error) = error {
            self.failed(context, id, error);
        }
        Ok(error)
    }

    pub(crate) fn shutdown(
        &mut self,
        context: &mut AppContext<'_>,
        id: SocketId,
        how: Shutdown,
    ) -> Result<(), Error> {
        context.stack.shutdown(context.host_now, id, how)?;
        if how != Shutdown::Read {
            self.ended(context, id);
        }
        if how != Shutdown::Write {
            self.stopped_reading(context, id);
        }
        Ok(())
    }

    pub(crate) fn close(&mut self, context: &mut AppContext<'_>, id: SocketId) -> Result<(), Error> {
        self.ended(context, id);
        self.stopped_reading(context, id);
        self.datagrams.remove(&id);
        if self.sockets.remove(&id).is_some_and(|socket| socket.listener) {
            context.timeline.listening(context.now, context.host, false);
        }
        context.stack.close(context.host_now, id)
    }

    pub(crate) fn abort(&mut self, context: &mut AppContext<'_>, id: SocketId) -> Result<(), Error> {
        self.stopped_reading(context, id);
        if let Some(socket) = self.sockets.remove(&id)
            && !socket.listener
        {
            context.streams.get_mut(socket.tx).broken = true;
        }
        context.stack.abort(context.host_now, id)
    }

    /// Records that the application has ended its stream.
    fn ended(&mut self, context: &mut AppContext<'_>, id: SocketId) {
        let Some(socket) = self.sockets.get(&id).filter(|socket| !socket.listener) else { return };
        context.streams.get_mut(socket.tx).ended = true;
        // Closing with unread data or with a linger time of 0 is not orderly: the peer gets a RST (T11).
        let unread = context.stack.queued(context.host_now, id).is_ok_and(|(unread, _)| unread > 0);
        let hard = context.stack.options(id).is_ok_and(|o| o.linger.is_some_and(|linger| linger.is_zero()));
        if unread || hard {
            context.streams.get_mut(socket.tx).broken = true;
        }
    }

    fn stopped_reading(&mut self, context: &mut AppContext<'_>, id: SocketId) {
        if self.sockets.get(&id).is_none_or(|socket| socket.listener) {
            return;
        }
        if let Some(rx) = self.incoming(context, id) {
            let reader = &mut context.streams.get_mut(rx).reader;
            if *reader == Reader::Reading {
                *reader = Reader::Quit;
            }
        }
    }

    /// Makes `to` relay the data that is read from `from`.
    pub(crate) fn relays(&mut self, context: &mut AppContext<'_>, from: SocketId, to: SocketId) {
        let content = self.incoming(context, from).map(|rx| context.streams.get(rx).content);
        if let (Some(content), Some(socket)) = (content, self.sockets.get(&to)) {
            context.streams.get_mut(socket.tx).content = content;
        }
    }

    /// Bytes read from `from` and not yet written to `to`.
    pub(crate) fn owed(&self, context: &AppContext<'_>, from: SocketId, to: SocketId) -> u64 {
        let read = self.sockets.get(&from).and_then(|s| s.rx).map_or(0, |rx| context.streams.get(rx).read);
        let written = self.sockets.get(&to).map_or(0, |s| context.streams.get(s.tx).written);
        read.saturating_sub(written)
    }

    /// Closes the handles of connections that an error ended.
    pub(crate) fn bury(&mut self, context: &mut AppContext<'_>) {
        for id in self.open_sockets() {
            if self.sockets.get(&id).is_some_and(|socket| socket.dead) {
                self.sockets.remove(&id);
                // The connection is gone: this only frees the handle.
                let _gone = context.stack.close(context.host_now, id);
            }
        }
    }
}

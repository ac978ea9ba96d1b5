//! Inspection of a stack.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::sockets::{Place, Socket, SocketKind, as_mapped};
use super::{Interface, Stack};
use crate::config::Config;
use crate::counters::{Counters, DropReason};
use crate::error::Error;
use crate::info::{Diagnosis, Info, SocketCursor, SocketEntry, Usage};
use crate::socket::{Event, SocketId, SocketOptions};
use crate::state::State;
use crate::tcp::time_wait;
use crate::time::{Duration, Instant, Since};
use crate::trace::{TraceEvent, TraceKind};
use crate::tuple::FourTuple;

impl Stack {
    /// Returns the configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes settings while the stack runs, like a system administrator. Earlier decisions remain, and the secret is
    /// kept.
    ///
    /// # Panics
    ///
    /// Panics like [`Stack::new`] if [`Config::validate`] rejects the configuration.
    pub fn set_config(&mut self, config: Config) {
        config.expect_valid();
        self.config = Config { secret: self.config.secret, ..config };
        self.connections.end_template();
        self.default_options = Arc::new(SocketOptions::new(&self.config));
    }

    /// Returns the first interface, to which the stack was attached when it was made. [`interfaces`](Stack::interfaces)
    /// lists all of them.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Returns the counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts packets that a driver dropped because of `netdev_max_backlog`.
    pub fn count_backlog_drops(&mut self, packets: u64) {
        self.counters.softnet_dropped += packets;
    }

    /// Counts packets that a driver dropped because of `txqueuelen`.
    pub fn count_tx_drops(&mut self, packets: u64) {
        self.counters.tx_dropped += packets;
    }

    /// Switches tracing on or off. While off, it costs next to nothing.
    pub fn set_tracing(&mut self, on: bool) {
        self.trace.switch(on);
    }

    /// Returns the next trace event, oldest first.
    pub fn poll_trace(&mut self) -> Option<TraceEvent> {
        self.counters.trace_lost = self.trace.lost;
        self.trace.pop()
    }

    /// Returns whether a connect with Fast Open can send data on its SYN: the cookie of this server is known, or
    /// `tcp_fastopen` needs none.
    pub fn knows_fast_open_cookie(&self, server: IpAddr) -> bool {
        self.config.tcp_fastopen.client_without_cookie() || self.cookies.knows(server)
    }

    #[inline]
    pub(super) fn note(&mut self, tuple: &FourTuple, kind: TraceKind) {
        let at = self.now;
        self.trace.push(|| TraceEvent { at, local: tuple.local(), remote: tuple.remote(), kind });
    }

    pub(super) fn note_state(&mut self, tuple: &FourTuple, from: State, to: State) {
        self.note(tuple, TraceKind::State { from, to });
    }

    pub(super) fn dropped(&mut self, tuple: &FourTuple, reason: DropReason) {
        self.counters.count_drop(reason);
        self.note(tuple, TraceKind::Drop(reason));
    }

    pub(super) fn note_listen(&mut self, tuple: &FourTuple, to: State) {
        self.note_state(tuple, State::Listen, to);
    }

    /// Returns the next socket that changed, and its changes.
    #[inline]
    pub fn poll_event(&mut self) -> Option<(SocketId, Event)> {
        if self.events.is_empty() && !self.anybody_refused() { None } else { self.next_event() }
    }

    fn next_event(&mut self) -> Option<(SocketId, Event)> {
        while let Some(id) = self.events.pop_front() {
            if let Some(socket) = self.sockets.get_mut(id) {
                socket.place = Place::Held;
                return Some((id, std::mem::take(&mut socket.events)));
            }
        }
        self.next_refused()
    }

    /// Returns the fill of every table. Visits each connection and socket.
    pub fn usage(&self) -> Usage {
        Usage {
            sockets: self.sockets.len(),
            listeners: self.listeners.len() - self.closing.len(),
            half_open: self.half_open.len(),
            requests: self.forwards.requests.len(),
            opening: self.openings.len(),
            connections: self.connections.len() + self.dormant.len(),
            orphans: self.orphans,
            time_wait: self.time_waits.len(),
            timers: self.wheel.len(),
            buffered: self.buffered(),
            held: self.memory.held(),
            fragments: self.fragments.len(),
            fragment_bytes: self.fragments.held(),
            path_mtus: self.pmtu.len(),
            neighbours: self.link.neighbours.len(),
            neighbour_bytes: self.link.held(),
            replies: self.replies.len(),
            udp_sockets: self.udp.sockets.len(),
            udp_held: self.udp.held as u64,
        }
    }

    /// Returns the bytes in all queues.
    fn buffered(&self) -> u64 {
        let connections = self.connections.iter().map(|(_, connection)| connection.buffered());
        let openings = self.openings.iter().map(|(_, opening)| opening.send_queue.len() as u64);
        let finished = self.finished.iter().map(|(_, finished)| finished.receive_queue.len() as u64);
        connections.sum::<u64>() + openings.sum::<u64>() + finished.sum::<u64>()
    }

    /// Lists sockets as `ss -a` does: listeners, half-open connections and requests of forwarders, opening ones,
    /// connections, orphans, TIME-WAIT.
    pub fn sockets(&self, now: Instant) -> Vec<SocketEntry> {
        let mut all = Vec::new();
        self.sockets_from(now, SocketCursor::default(), usize::MAX, &mut all);
        all
    }

    /// Lists at most `most` sockets, so that a long listing can be made in steps. Returns where to go on; `None` at the
    /// end. Each row is right when it is listed. A socket that comes, goes or moves between steps may be missing, or be
    /// listed twice.
    pub fn sockets_from(
        &self,
        now: Instant,
        from: SocketCursor,
        most: usize,
        into: &mut Vec<SocketEntry>,
    ) -> Option<SocketCursor> {
        let end = into.len().saturating_add(most);
        let mut cursor = from;
        while cursor.table < SocketCursor::TABLES {
            let before = into.len();
            self.list(now, cursor, end - before, into);
            if into.len() == end {
                cursor.row += end - before;
                return Some(cursor);
            }
            cursor = SocketCursor { table: cursor.table + 1, row: 0 };
        }
        None
    }

    /// Lists rows of one table.
    fn list(&self, now: Instant, from: SocketCursor, most: usize, into: &mut Vec<SocketEntry>) {
        let age = |since: Since| since.age(now.max(self.now));
        let skip = from.row;
        match from.table {
            0 => {
                let open = self.listeners.iter().filter(|(_, listener)| !listener.closing);
                into.extend(open.skip(skip).take(most).map(|(_, listener)| SocketEntry {
                    recv_q: listener.accept_queue.len() as u64,
                    send_q: listener.backlog as u64,
                    socket: Some(listener.socket),
                    half_open: listener.half_open as u32,
                    ..entry(State::Listen, listener.local, unspecified(listener.local), age(listener.since))
                }));
            }
            1 => into.extend(self.half_open.iter().skip(skip).take(most).map(|(_, half_open)| {
                let (local, remote) = (half_open.tuple.local(), half_open.tuple.remote());
                SocketEntry {
                    listener: self.listeners.get(half_open.listener).map(|l| l.local),
                    ..entry(State::SynReceived, local, remote, Duration::ZERO)
                }
            })),
            2 => into.extend(self.forwards.requests.iter().skip(skip).take(most).map(|(_, request)| {
                let (local, remote) = (request.tuple.local(), request.tuple.remote());
                SocketEntry {
                    socket: Some(request.socket),
                    ..entry(State::SynReceived, local, remote, Duration::ZERO)
                }
            })),
            3 => into.extend(self.openings.iter().skip(skip).take(most).map(|(_, opening)| {
                let (local, remote) = (opening.tuple.local(), opening.tuple.remote());
                SocketEntry {
                    send_q: opening.send_queue.len() as u64,
                    socket: Some(opening.socket),
                    ..entry(State::SynSent, local, remote, age(opening.state_since))
                }
            })),
            4 => into.extend(self.connections.iter().skip(skip).take(most).map(|(_, connection)| {
                let tcb = &connection.tcb;
                SocketEntry {
                    recv_q: connection.receive_queue.len() as u64,
                    send_q: connection.send_queue.len() as u64,
                    socket: connection.socket,
                    listener: self.listener_address(connection.listener),
                    ..entry(tcb.state, tcb.tuple.local(), tcb.tuple.remote(), age(tcb.state_since))
                }
            })),
            5 => into.extend(self.dormant.iter().skip(skip).take(most).map(|(_, dormant)| {
                let (local, remote) = (dormant.tuple.local(), dormant.tuple.remote());
                SocketEntry {
                    listener: self.listener_address(dormant.listener),
                    ..entry(State::FinWait2, local, remote, age(dormant.state_since))
                }
            })),
            _ => into.extend(self.time_waits.iter().skip(skip).take(most).map(|time_wait| {
                let length = time_wait::length(&self.config);
                let tuple = &time_wait.tuple;
                let age = length.saturating_sub(time_wait.remaining(now.max(self.now)));
                entry(State::TimeWait, tuple.local(), tuple.remote(), age)
            })),
        }
    }

    /// Reports connections that the application may have forgotten: in CLOSE-WAIT for at least `older_than`.
    pub fn diagnose(&self, now: Instant, older_than: Duration) -> Vec<Diagnosis> {
        let mut owners: BTreeMap<SocketAddr, (usize, Duration, bool)> = BTreeMap::new();
        for socket in self.sockets(now) {
            if socket.state == State::CloseWait && socket.state_age >= older_than {
                let owner = socket.listener.unwrap_or(socket.local);
                let (count, oldest, passive) = owners.entry(owner).or_default();
                *count += 1;
                *oldest = (*oldest).max(socket.state_age);
                *passive = socket.listener.is_some();
            }
        }
        owners
            .into_iter()
            .map(|(owner, (connections, oldest, passive))| Diagnosis { owner, passive, connections, oldest })
            .collect()
    }

    fn listener_address(&self, listener: Option<SocketId>) -> Option<SocketAddr> {
        match self.sockets.get(listener?)?.kind {
            SocketKind::Listener(index) => Some(self.listeners[index].local),
            _ => None,
        }
    }

    pub(super) fn socket(&self, id: SocketId) -> Result<&Socket, Error> {
        self.sockets.get(id).filter(|socket| socket.place != Place::AcceptQueue).ok_or(Error::NoSuchSocket)
    }

    /// Returns the details of one connection. After its end, those that it had at its end, except that the state is
    /// `Closed`.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](Error::NotConnected) for a listener, or if the connection does not exist yet or never did;
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn info(&self, now: Instant, id: SocketId) -> Result<Info, Error> {
        match self.socket(id)?.kind {
            SocketKind::Connection(index) => {
                Ok(self.connections[index].info(now.max(self.now), &self.config))
            }
            SocketKind::Finished(index) => {
                self.finished[index].info.as_deref().cloned().ok_or(Error::NotConnected)
            }
            _ => Err(Error::NotConnected),
        }
    }

    /// Returns the state of a socket; `Closed` once the connection is over, including TIME-WAIT.
    ///
    /// # Errors
    ///
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn state(&self, id: SocketId) -> Result<State, Error> {
        Ok(match self.socket(id)?.kind {
            SocketKind::Listener(_) => State::Listen,
            SocketKind::Opening(_) => State::SynSent,
            SocketKind::Connection(index) => self.connections[index].tcb.state,
            SocketKind::Finished(_) | SocketKind::Udp(_) => State::Closed,
            SocketKind::Forwarder(_) | SocketKind::Datagrams(_) | SocketKind::Request(_) => State::Listen,
        })
    }

    /// Returns the local address of a socket; of a request, the destination.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), a forwarder; [`NoSuchSocket`](Error::NoSuchSocket), a handle that
    /// was closed.
    pub fn local_addr(&self, id: SocketId) -> Result<SocketAddr, Error> {
        let socket = self.socket(id)?;
        Ok(socket.shown(match &socket.kind {
            SocketKind::Listener(index) => self.listeners[*index].local,
            SocketKind::Opening(index) => self.openings[*index].tuple.local(),
            SocketKind::Connection(index) => self.connections[*index].tcb.tuple.local(),
            SocketKind::Finished(index) => self.finished[*index].local,
            SocketKind::Udp(index) => self.udp.sockets[*index].local,
            SocketKind::Request(index) => self.forwards.requests[*index].tuple.local(),
            SocketKind::Forwarder(_) | SocketKind::Datagrams(_) => return Err(Error::InvalidArgument),
        }))
    }

    /// Returns the peer's address.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](Error::NotConnected), a listener, a forwarder, or a UDP socket without a peer;
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn peer_addr(&self, id: SocketId) -> Result<SocketAddr, Error> {
        let socket = self.socket(id)?;
        Ok(socket.shown(match &socket.kind {
            SocketKind::Listener(_) | SocketKind::Forwarder(_) | SocketKind::Datagrams(_) => {
                return Err(Error::NotConnected);
            }
            SocketKind::Request(index) => self.forwards.requests[*index].tuple.remote(),
            SocketKind::Opening(index) => self.openings[*index].tuple.remote(),
            SocketKind::Connection(index) => self.connections[*index].tcb.tuple.remote(),
            SocketKind::Finished(index) => self.finished[*index].remote,
            SocketKind::Udp(index) => self.udp.sockets[*index].shown_peer().ok_or(Error::NotConnected)?,
        }))
    }

    /// Returns the options of a socket. Those of a listener are the initial ones of its streams.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), a request, or a socket or forwarder of datagrams;
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn options(&self, id: SocketId) -> Result<&SocketOptions, Error> {
        Ok(match &self.socket(id)?.kind {
            SocketKind::Listener(index) => &self.listeners[*index].options,
            SocketKind::Opening(index) => &self.openings[*index].options,
            SocketKind::Connection(index) => &self.connections[*index].options,
            SocketKind::Finished(index) => &self.finished[*index].options,
            SocketKind::Udp(_)
            | SocketKind::Datagrams(_)
            | SocketKind::Forwarder(_)
            | SocketKind::Request(_) => {
                return Err(Error::InvalidArgument);
            }
        })
    }
}

impl Socket {
    /// Returns an address as the application sees it.
    fn shown(&self, end: SocketAddr) -> SocketAddr {
        if self.mapped { as_mapped(end) } else { end }
    }
}

fn entry(state: State, local: SocketAddr, remote: SocketAddr, state_age: Duration) -> SocketEntry {
    SocketEntry {
        state,
        recv_q: 0,
        send_q: 0,
        local,
        remote,
        state_age,
        socket: None,
        listener: None,
        half_open: 0,
    }
}

fn unspecified(like: SocketAddr) -> SocketAddr {
    let address: IpAddr =
        if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(address, 0)
}

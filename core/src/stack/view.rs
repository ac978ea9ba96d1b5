//! Inspection of a stack.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::sockets::{Place, Socket, SocketKind, as_mapped};
use super::{Interface, Stack};
use crate::config::Config;
use crate::counters::{Counters, DropReason};
use crate::error::Error;
use crate::histograms::Histograms;
use crate::info::{Diagnosis, Info, SocketCursor, SocketEntry, SocketTimer, Usage};
use crate::socket::{Event, SocketId, SocketOptions};
use crate::state::State;
use crate::tcp::listen::Listener;
use crate::tcp::time_wait;
use crate::time::{Duration, Instant, Tick};
use crate::trace::{TimerKind, TraceEvent, TraceKind};
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

    /// Returns the histograms.
    pub fn histograms(&self) -> &Histograms {
        &self.histograms
    }

    /// Tells the stack the time, as an input does, and runs no timer. The calls that take no time happen at the latest
    /// time that was passed in.
    pub fn tell_time(&mut self, now: Instant) {
        self.set_now(now);
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
            let last = self.list(now, cursor, end - into.len(), into);
            if into.len() == end {
                let row = last.map_or(cursor.row, |last| last + 1);
                return Some(SocketCursor { row, ..cursor });
            }
            cursor = SocketCursor { table: cursor.table + 1, row: 0 };
        }
        None
    }

    /// Lists rows of one table. Returns the last of them.
    fn list(
        &self,
        now: Instant,
        from: SocketCursor,
        most: usize,
        into: &mut Vec<SocketEntry>,
    ) -> Option<u32> {
        let (row, now) = (from.row, now.max(self.now));
        match from.table {
            0 => {
                let open = self.listeners.iter_from(row).filter(|(_, listener)| !listener.closing);
                take(open, most, into, |_, listener| listed_listener(listener, now))
            }
            1 => take(self.half_open.iter_from(row), most, into, |index, half_open| {
                let listener = self.listeners.get(half_open.listener).map(|listener| listener.local);
                let left = self.half_open_left(index, now);
                let timer = SocketTimer::new(TimerKind::Retransmit, left, half_open.retries);
                let age = half_open.age(left, &self.config);
                SocketEntry {
                    listener,
                    timer: Some(timer),
                    ..entry(State::SynReceived, &half_open.tuple, age)
                }
            }),
            2 => take(self.forwards.requests.iter_from(row), most, into, |_, request| SocketEntry {
                socket: Some(request.socket),
                ..entry(State::SynReceived, &request.tuple, Duration::ZERO)
            }),
            3 => take(self.openings.iter_from(row), most, into, |_, opening| SocketEntry {
                send_q: opening.send_queue.len() as u64,
                socket: Some(opening.socket),
                timer: self.wheel.tick(opening.timer).map(|due| {
                    let left = Duration::from_millis(due.since(Tick::at(now)).into());
                    SocketTimer::new(TimerKind::Retransmit, left, opening.retries)
                }),
                ..entry(State::SynSent, &opening.tuple, opening.state_since.age(now))
            }),
            4 => take(self.connections.iter_from(row), most, into, |_, connection| {
                let tcb = &connection.tcb;
                SocketEntry {
                    recv_q: connection.receive_queue.len() as u64,
                    send_q: connection.send_queue.len() as u64,
                    socket: connection.socket,
                    listener: self.listener_address(connection.listener),
                    timer: connection.next_timer(now),
                    ..entry(tcb.state, &tcb.tuple, tcb.state_since.age(now))
                }
            }),
            5 => take(self.dormant.iter_from(row), most, into, |_, dormant| {
                let left = dormant.fin_wait_2.map(|end| end.left(now));
                SocketEntry {
                    listener: self.listener_address(dormant.listener),
                    timer: left.map(|left| SocketTimer::new(TimerKind::FinWait2, left, 0u8)),
                    ..entry(State::FinWait2, &dormant.tuple, dormant.state_since.age(now))
                }
            }),
            table => take(self.time_waits.rows_from(table == 7, row), most, into, |_, time_wait| {
                let left = time_wait.remaining(now);
                let age = time_wait::length(&self.config).saturating_sub(left);
                let timer = SocketTimer::new(TimerKind::TimeWait, left, 0u8);
                SocketEntry { timer: Some(timer), ..entry(State::TimeWait, &time_wait.tuple, age) }
            }),
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

/// Lists some rows. Returns the number of the last of them.
fn take<T>(
    rows: impl Iterator<Item = (u32, T)>,
    most: usize,
    into: &mut Vec<SocketEntry>,
    entry: impl Fn(u32, T) -> SocketEntry,
) -> Option<u32> {
    let mut last = None;
    into.extend(rows.take(most).map(|(index, row)| {
        last = Some(index);
        entry(index, row)
    }));
    last
}

fn listed_listener(listener: &Listener, now: Instant) -> SocketEntry {
    let tuple = FourTuple::new(listener.local, unspecified(listener.local));
    SocketEntry {
        recv_q: listener.accept_queue.len() as u64,
        send_q: listener.backlog as u64,
        socket: Some(listener.socket),
        half_open: listener.half_open as u32,
        ..entry(State::Listen, &tuple, listener.since.age(now))
    }
}

fn entry(state: State, tuple: &FourTuple, state_age: Duration) -> SocketEntry {
    SocketEntry {
        state,
        recv_q: 0,
        send_q: 0,
        local: tuple.local(),
        remote: tuple.remote(),
        state_age,
        socket: None,
        listener: None,
        half_open: 0,
        timer: None,
    }
}

fn unspecified(like: SocketAddr) -> SocketAddr {
    let address: IpAddr =
        if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(address, 0)
}

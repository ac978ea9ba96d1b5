//! The user calls of RFC 9293 §3.9.1, in the shape of sockets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;

use super::Stack;
use super::bindings::Reach;
use super::sockets::{Place, SocketKind};
use crate::buffer::{Pool, Rope};
use crate::config::PortRange;
use crate::error::Error;
use crate::flow::FlowRef;
use crate::queue::Queue;
use crate::seq::SeqNum;
use crate::socket::{ConnectOptions, Event, ListenOptions, SendFlags, SocketId, SocketOptions};
use crate::state::State;
use crate::tcp::fast_open::{FastOpen, PendingRequests};
use crate::tcp::listen::Listener;
use crate::tcp::syn_sent::Opening;
use crate::tcp::tcb::Connection;
use crate::time::{Duration, Instant, Since};
use crate::tuple::FourTuple;
use crate::wheel::TimerId;

impl Stack {
    /// Passive OPEN. `0.0.0.0` listens on all IPv4 addresses. `[::]` listens on all addresses of both families, or with
    /// [`only_v6`](ListenOptions::only_v6) on those of IPv6. Port 0 chooses a port. A SYN goes to the listener of its
    /// address, else to that of all addresses of its family, else to that of both families.
    ///
    /// # Errors
    ///
    /// [`AddrNotAvailable`](Error::AddrNotAvailable), not an address of ours or no port left;
    /// [`AddrInUse`](Error::AddrInUse), somebody listens there (RFC 9293 §3.10.1), or on `0.0.0.0` beside `[::]`, or
    /// has [reserved](Stack::bind) it; not if both [share](ListenOptions::reuse_port) it.
    // SA-CLOSED-06
    pub fn listen(&mut self, local: SocketAddr, options: ListenOptions) -> Result<SocketId, Error> {
        let reach = Reach::of_tcp(&options);
        let local = self.free_end(local, reach)?;
        let backlog = options.backlog.clamp(1, self.config.somaxconn) as usize;
        let index = self.listeners.next();
        let id = self.sockets.open(SocketKind::Listener(index));
        let listener = Listener {
            socket: id,
            local,
            backlog,
            options: self.shared_options(options.socket),
            fast_open: if options.fast_open { u32::MAX } else { 0 },
            closing: false,
            accept_queue: Queue::default(),
            waiting: Queue::default(),
            half_open: 0,
            fast_open_pending: PendingRequests::default(),
            cookies_sent_at: None,
            since: Since::at(self.now),
        };
        self.listeners.insert(listener);
        self.bindings.insert(local, reach, Some(index));
        Ok(id)
    }

    /// The options of a new socket. Consecutive requests for equal options share one copy.
    pub(super) fn shared_options(&mut self, options: Option<SocketOptions>) -> Arc<SocketOptions> {
        let Some(options) = options else { return Arc::clone(&self.default_options) };
        if *self.last_options != options {
            self.last_options = Arc::new(options);
        }
        Arc::clone(&self.last_options)
    }

    /// Sets the most Fast Open connections of a listener whose handshake is incomplete, within `tcp_fastopen_pending`
    /// (`TCP_FASTOPEN`); 0: none.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), not a listener; [`NoSuchSocket`](Error::NoSuchSocket), a handle
    /// that was closed.
    // DRILL-X33
    pub fn set_fast_open(&mut self, listener: SocketId, most: u32) -> Result<(), Error> {
        let SocketKind::Listener(index) = self.socket(listener)?.kind else {
            return Err(Error::InvalidArgument);
        };
        self.listeners[index].fast_open = most;
        Ok(())
    }

    /// Forgets all servers of Fast Open: their cookies and their MSS.
    pub fn forget_fast_open(&mut self) {
        self.cookies.forget();
    }

    /// Returns the number of bytes that fit on the SYN of a connect that has not sent it yet; 0 without Fast Open.
    pub fn syn_data_room(&self, id: SocketId) -> usize {
        match self.socket(id).map(|socket| &socket.kind) {
            Ok(SocketKind::Opening(index)) if self.openings[*index].first_sent.is_none() => {
                self.openings[*index].syn_data_room()
            }
            _ => 0,
        }
    }

    /// Active OPEN. [`Event::CONNECTED`] or [`Event::ERROR`] follows.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), the remote address is no unicast address or the port is 0 (RFC
    /// 9293 §3.10.1); [`NetworkUnreachable`](Error::NetworkUnreachable), no route or no local address of its family;
    /// [`AddrNotAvailable`](Error::AddrNotAvailable), the local end is not ours, is taken, or no port is left for
    /// this destination (RFC 9293 §3.10.1); [`NoBufferSpace`](Error::NoBufferSpace), `tcp_max_connections`.
    // SA-CLOSED-08, SA-CLOSED-09
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        options: ConnectOptions,
    ) -> Result<SocketId, Error> {
        match options.local_address {
            Some(address) if !self.addresses.is_local(address) => Err(Error::AddrNotAvailable),
            _ => self.open(now, remote, options),
        }
    }

    /// Active OPEN from any address.
    pub(super) fn open(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        options: ConnectOptions,
    ) -> Result<SocketId, Error> {
        self.set_now(now);
        if remote.port() == 0 || !self.addresses.is_unicast(remote.ip()) {
            return Err(Error::InvalidArgument);
        }
        if self.connections_full() {
            return Err(Error::NoBufferSpace);
        }
        let address = match options.local_address {
            Some(address) if address.is_ipv4() != remote.is_ipv4() => return Err(Error::InvalidArgument),
            Some(address) => address,
            None => self.source_towards(remote)?,
        };
        if !self.leads_to(address, remote.ip()) {
            return Err(Error::NetworkUnreachable);
        }
        let (tuple, above) = self.free_tuple(address, options.local_port, remote)?;
        let socket_options = self.shared_options(options.socket);
        let mut iss = self.keys.iss(self.now, &tuple);
        if let Some(above) = above
            && iss.le(above)
        {
            // The ISS must be above every sequence number of the previous connection (RFC 6191).
            iss = above + 65_537;
        }
        let (mut fast_open, mut known_mss) = (FastOpen::Off, 0);
        if options.fast_open && self.config.tcp_fastopen.client() {
            let server = self.cookies.server(remote.ip());
            let bits = self.config.tcp_fastopen;
            let bare = bits.client_without_cookie() || socket_options.fast_open_no_cookie;
            fast_open = server.option(bare, self.now);
            known_mss = server.mss;
        }
        let adv_mss = self.advertised_mss(&tuple, socket_options.max_segment);
        let (pmtu, ts_offset) = (self.path_mtu(&tuple), self.keys.recent_timestamp_offset(&tuple));
        let now = self.now;
        let index = self.openings.next();
        let id = self.sockets.open(SocketKind::Opening(index));
        self.openings.insert_with(|| Opening {
            tuple,
            socket: id,
            iss,
            adv_mss,
            options: socket_options,
            send_queue: Rope::default(),
            fast_open,
            known_mss,
            syn_data: 0,
            retries: 0,
            challenged: false,
            first_sent: None,
            last_sent: now,
            syn_pending: true,
            queued: false,
            timer: TimerId::NONE,
            soft_error: None,
            pmtu,
            ts_offset,
            state_since: Since::at(now),
            events: Event::default(),
        });
        self.place(&tuple, FlowRef::Opening(index));
        self.ports.connected(&tuple);
        self.queue_opening(index);
        self.counters.active_opens += 1;
        self.note_state(&tuple, State::Closed, State::SynSent);
        Ok(id)
    }

    /// A free 4-tuple, or one whose TIME-WAIT may be taken over, with its last sequence number (THREAT-12).
    fn free_tuple(
        &mut self,
        address: IpAddr,
        port: Option<u16>,
        remote: SocketAddr,
    ) -> Result<(FourTuple, Option<SeqNum>), Error> {
        let ends = FourTuple::of(&address, 0, &remote.ip(), remote.port());
        let tuple = |port| FourTuple { local_port: port, ..ends };
        let share = self.share;
        let is_ours = |port| share.is_none_or(|share| share.has(&tuple(port)));
        if let Some(port) = port {
            if port == 0 {
                return Err(Error::InvalidArgument);
            }
            if !is_ours(port) {
                return Err(Error::AddrNotAvailable);
            }
            return self.claim(&tuple(port)).map(|above| (tuple(port), above));
        }
        /// Ports to try for a free one, before a TIME-WAIT is taken over.
        const PROBES: usize = 16;
        let range = self.config.ip_local_port_range;
        let ports = self.keys.ports(self.now, range, &tuple(0)).filter(|port| is_ours(*port));
        let mut again = ports.clone();
        let probes = if self.ports.are_scarce(&tuple(0), range) { 0 } else { PROBES };
        if let Some(port) = ports.take(probes).find(|port| self.find(&tuple(*port)).is_none()) {
            return Ok((tuple(port), None));
        }
        let first = again.next();
        if let Some(oldest) = self.time_waits.oldest_towards(&tuple(0), range)
            && let Ok(above) = self.claim(&oldest)
        {
            return Ok((oldest, above));
        }
        // The search also finds TIME-WAITs that are older than the crowd.
        self.search_port(&tuple(0), range, first.unwrap_or(range.first()), is_ours)
            .or_else(|| self.take_over(&tuple(0), range))
            .ok_or(Error::AddrNotAvailable)
    }

    /// Takes over one of the oldest TIME-WAITs between the ends of a tuple.
    fn take_over(&mut self, ends: &FourTuple, range: PortRange) -> Option<(FourTuple, Option<SeqNum>)> {
        const LOOK: usize = 64;
        let resting: Vec<_> = self.ports.resting(ends).take(LOOK).collect();
        let mut moved_on = 0;
        for (looked_at, port) in resting.iter().enumerate() {
            let tuple = FourTuple { local_port: *port, ..*ends };
            if range.contains(*port)
                && let Ok(Some(above)) = self.claim(&tuple)
            {
                self.ports.forget_resting(ends, moved_on);
                return Some((tuple, Some(above)));
            }
            if moved_on == looked_at && !matches!(self.find(&tuple), Some(FlowRef::TimeWait(_))) {
                moved_on += 1;
            }
        }
        self.ports.forget_resting(ends, moved_on);
        None
    }

    /// The first port, from `first` on, that is free between the ends of a tuple. A port found in use that was not
    /// recorded, as of a listener's connection or of a connect before there was a crowd, is recorded until it is free.
    fn search_port(
        &mut self,
        ends: &FourTuple,
        range: PortRange,
        first: u16,
        is_ours: impl Fn(u16) -> bool,
    ) -> Option<(FourTuple, Option<SeqNum>)> {
        let mut from = first;
        for _ in range.first()..=range.last() {
            let port = self.ports.free(ends, range, from)?;
            let tuple = FourTuple { local_port: port, ..*ends };
            if !is_ours(port) {
                from = if port == range.last() { range.first() } else { port + 1 };
            } else if let Some(flow) = self.find(&tuple) {
                self.ports.take(&tuple);
                if matches!(flow, FlowRef::TimeWait(_)) {
                    self.ports.rest(&tuple);
                }
            } else {
                return Some((tuple, None));
            }
        }
        None
    }

    fn claim(&mut self, tuple: &FourTuple) -> Result<Option<SeqNum>, Error> {
        match self.find(tuple) {
            None => Ok(None),
            Some(FlowRef::TimeWait(index)) => {
                let entry = self.time_waits.get(index);
                if !entry.may_be_reused(self.now, &self.config) || !self.config.tcp_timestamps {
                    return Err(Error::AddrNotAvailable);
                }
                let above = entry.snd_nxt;
                self.counters.tw_recycled += 1;
                self.remove_time_wait(index);
                Ok(Some(above))
            }
            Some(_) => Err(Error::AddrNotAvailable),
        }
    }

    /// Accepts the next established connection of a listener, and returns it with its peer.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](Error::WouldBlock), none waits; [`InvalidArgument`](Error::InvalidArgument), not a listener;
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn accept(&mut self, listener: SocketId) -> Result<(SocketId, SocketAddr), Error> {
        let SocketKind::Listener(index) = self.socket(listener)?.kind else {
            return Err(Error::InvalidArgument);
        };
        let Some((id, since)) = self.listeners[index].accept_queue.pop_front() else {
            return Err(Error::WouldBlock);
        };
        let waited = self.tick().elapsed(since);
        self.histograms.accept_wait.note_millis(Duration::from_millis(waited.into()));
        self.call_waiting(index);
        let socket = &mut self.sockets[id];
        socket.place = Place::Held;
        if !socket.events.is_empty() {
            socket.place = Place::EventQueue;
            self.queue_event(id);
        }
        let peer = self.peer_addr(id)?;
        Ok((id, peer))
    }

    /// Queues bytes for sending. Copies as many bytes of `data` as there is room for and returns their number.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](Error::WouldBlock), no room; [`BrokenPipe`](Error::BrokenPipe), shut down for writing or over;
    /// [`NotConnected`](Error::NotConnected), a listener; [`NoSuchSocket`](Error::NoSuchSocket), a handle that was
    /// closed; or, once, what ended the connection.
    pub fn send(&mut self, id: SocketId, data: &[u8]) -> Result<usize, Error> {
        self.send_with_flags(id, data, SendFlags::default())
    }

    /// As [`send`](Stack::send), with the flags of `send(2)`. With `tcp_gso_quanta`, a write may take less than there is
    /// room for: transmit before the rest, as Linux does within its call.
    ///
    /// # Errors
    ///
    /// As [`send`](Stack::send).
    pub fn send_with_flags(&mut self, id: SocketId, data: &[u8], flags: SendFlags) -> Result<usize, Error> {
        self.send_with(id, data.len(), flags, |queue, count, tight, pool| match tight {
            false => queue.push_slice(&data[..count], pool),
            true => queue.push_tight(&data[..count], pool),
        })
    }

    /// As [`send`](Stack::send), without a copy: takes as many bytes from the front of `data` as there is room for.
    ///
    /// # Errors
    ///
    /// As [`send`](Stack::send).
    pub fn send_bytes(&mut self, id: SocketId, data: &mut Bytes) -> Result<usize, Error> {
        let len = data.len();
        self.send_with(id, len, SendFlags::default(), |queue, count, _, pool| {
            queue.push_bytes(data.split_to(count), pool);
        })
    }

    /// As [`send`](Stack::send), but marks the data as urgent (RFC 9293 §3.8.5). The peer reads it in line. New
    /// protocols should not use it.
    ///
    /// # Errors
    ///
    /// As [`send`](Stack::send).
    // MUST-30, SHLD-13
    pub fn send_urgent(&mut self, id: SocketId, data: &[u8]) -> Result<usize, Error> {
        let count = self.send(id, data)?;
        if let SocketKind::Connection(index) = self.socket(id)?.kind {
            self.connections[index].note_urgent_written();
        }
        Ok(count)
    }

    fn send_with(
        &mut self,
        id: SocketId,
        len: usize,
        flags: SendFlags,
        push: impl FnOnce(&mut Rope, usize, bool, &mut Pool),
    ) -> Result<usize, Error> {
        self.mind_memory();
        let gauge = self.gauge();
        match self.socket(id)?.kind {
            SocketKind::Listener(_) => Err(Error::NotConnected),
            SocketKind::Request(_) => Err(Error::WouldBlock),
            SocketKind::Udp(_) | SocketKind::Datagrams(_) | SocketKind::Forwarder(_) => {
                Err(Error::InvalidArgument)
            }
            SocketKind::Finished(_) => Err(self.take_finished_error(id).unwrap_or(Error::BrokenPipe)),
            SocketKind::Opening(index) => {
                let opening = &mut self.openings[index];
                let room = (opening.options.sndbuf as usize).saturating_sub(opening.send_queue.len());
                let wanted = len.min(room);
                let tight = gauge.is_tight(wanted);
                let count = if tight {
                    let room = gauge.room(opening.send_queue.held() as u64, 0);
                    opening.send_queue.fit(wanted, usize::try_from(room).unwrap_or(usize::MAX))
                } else {
                    wanted
                };
                if count == 0 && len > 0 {
                    if room > 0 && opening.send_queue.is_empty() {
                        self.refuse(id);
                    }
                    return Err(Error::WouldBlock);
                }
                self.memory
                    .change(&mut opening.send_queue, |queue| push(queue, count, tight, &mut self.pool));
                Ok(count)
            }
            SocketKind::Connection(index) if self.config.tcp_gso_quanta => {
                let tight = gauge.is_tight(len);
                let count = self.with_connection(index, |connection, env| {
                    if connection.tcb.snd.fin_queued {
                        return Err(Error::BrokenPipe);
                    }
                    let most = if tight { connection.send_room(gauge, len) } else { len };
                    let count = connection.write_in_quanta(most, flags);
                    push(&mut connection.send_queue, count, tight, env.pool);
                    Ok(count)
                })?;
                if count > 0 || len == 0 {
                    return Ok(count);
                }
                if self.connections[index].send_queue.is_empty() {
                    self.refuse(id);
                }
                Err(Error::WouldBlock)
            }
            SocketKind::Connection(index) => {
                let fit = |connection: &Connection| {
                    if connection.tcb.snd.fin_queued {
                        return Err((Error::BrokenPipe, false));
                    }
                    let room = connection.room_to_write();
                    let wanted = len.min(room);
                    let tight = gauge.is_tight(wanted);
                    let count = if tight { connection.send_room(gauge, wanted) } else { wanted };
                    if count == 0 && len > 0 {
                        let short_of_memory = room > 0 && connection.send_queue.is_empty();
                        return Err((Error::WouldBlock, short_of_memory));
                    }
                    Ok((count, tight))
                };
                let push =
                    |queue: &mut Rope, (count, tight), pool: &mut Pool| push(queue, count, tight, pool);
                match self.with_send_queue(index, fit, push) {
                    Ok((count, _)) => Ok(count),
                    Err((error, short_of_memory)) => {
                        if short_of_memory {
                            self.refuse(id);
                        }
                        Err(error)
                    }
                }
            }
        }
    }

    /// Reads bytes. `Ok(0)`: the peer closed its sending side, or reading was shut down.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](Error::WouldBlock), nothing there yet; [`NotConnected`](Error::NotConnected), a listener;
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed; or, once and after the bytes that came before
    /// it, what ended the connection (RFC 9293 §3.6).
    // MUST-12
    pub fn recv(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<usize, Error> {
        if let SocketKind::Connection(index) = self.socket(id)?.kind {
            let count = self.with_receive_queue(index, |queue, pool| queue.read(buffer, pool));
            let empty = count == 0 && !buffer.is_empty();
            return if empty && !self.connections[index].is_read_up() {
                Err(Error::WouldBlock)
            } else {
                Ok(count)
            };
        }
        let count = self.peek(id, buffer)?;
        if let SocketKind::Finished(index) = self.sockets[id].kind {
            let queue = &mut self.finished[index].receive_queue;
            self.memory.change(queue, |queue| queue.release(count, &mut self.pool));
        }
        Ok(count)
    }

    /// As [`recv`](Stack::recv), up to `most` bytes. A slice of a packet is not copied, and holds the packet until it is
    /// dropped. One call takes one piece of the queue, so there may be more.
    ///
    /// # Errors
    ///
    /// As [`recv`](Stack::recv).
    pub fn recv_bytes(&mut self, id: SocketId, most: usize) -> Result<Bytes, Error> {
        let mut bytes = Bytes::new();
        match self.socket(id)?.kind {
            SocketKind::Connection(index) => {
                self.with_receive_queue(index, |queue, pool| {
                    bytes = queue.take(most, pool);
                    bytes.len()
                });
            }
            SocketKind::Finished(index) => {
                let queue = &mut self.finished[index].receive_queue;
                bytes = self.memory.change(queue, |queue| queue.take(most, &mut self.pool));
            }
            _ => {}
        }
        if bytes.is_empty() {
            // Nothing is there, or nothing was wanted.
            self.recv(id, &mut [0][..most.min(1)])?;
        }
        Ok(bytes)
    }

    /// As [`recv`](Stack::recv), but the bytes stay in the queue.
    ///
    /// # Errors
    ///
    /// As [`recv`](Stack::recv).
    pub fn peek(&mut self, id: SocketId, buffer: &mut [u8]) -> Result<usize, Error> {
        let (queue, at_end) = match &self.socket(id)?.kind {
            SocketKind::Listener(_) => return Err(Error::NotConnected),
            SocketKind::Udp(_) | SocketKind::Datagrams(_) | SocketKind::Forwarder(_) => {
                return Err(Error::InvalidArgument);
            }
            SocketKind::Opening(_) | SocketKind::Request(_) => return Err(Error::WouldBlock),
            SocketKind::Connection(index) => {
                let connection = &self.connections[*index];
                (&connection.receive_queue, connection.is_read_up())
            }
            SocketKind::Finished(index) => (&self.finished[*index].receive_queue, true),
        };
        let count = queue.peek(0, buffer);
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        if !at_end {
            return Err(Error::WouldBlock);
        }
        if self.is_broken_pipe(id) {
            return Ok(0);
        }
        match self.take_finished_error(id) {
            Some(error) => Err(error),
            None => Ok(0),
        }
    }

    /// The error tells only writers: the FIN had ended the stream before.
    // DRILL-X56
    fn is_broken_pipe(&self, id: SocketId) -> bool {
        let SocketKind::Finished(index) = self.sockets[id].kind else { return false };
        self.finished[index].error == Some(Error::BrokenPipe)
    }

    fn take_finished_error(&mut self, id: SocketId) -> Option<Error> {
        match self.sockets.get(id)?.kind {
            SocketKind::Finished(index) => self.finished[index].take_error(),
            _ => None,
        }
    }

    /// The number of bytes that can be read, and how many of them are urgent. [`Event::URGENT`] announces urgent data,
    /// and the application reads it in line (RFC 9293 §3.8.5).
    ///
    /// # Errors
    ///
    /// [`NotConnected`](Error::NotConnected), a listener; [`InvalidArgument`](Error::InvalidArgument), a socket or
    /// forwarder of datagrams, or a forwarder of connections; [`NoSuchSocket`](Error::NoSuchSocket), a handle that
    /// was closed.
    // MUST-33
    pub fn readable(&self, id: SocketId) -> Result<(usize, usize), Error> {
        match &self.socket(id)?.kind {
            SocketKind::Connection(index) => {
                let connection = &self.connections[*index];
                let len = connection.receive_queue.len();
                Ok((len, connection.urgent_ahead().min(len)))
            }
            SocketKind::Finished(index) => Ok((self.finished[*index].receive_queue.len(), 0)),
            SocketKind::Opening(_) | SocketKind::Request(_) => Ok((0, 0)),
            SocketKind::Listener(_) => Err(Error::NotConnected),
            SocketKind::Udp(_) | SocketKind::Datagrams(_) | SocketKind::Forwarder(_) => {
                Err(Error::InvalidArgument)
            }
        }
    }

    /// Returns and clears the error that ended the connection, or the last soft error that a router reported
    /// (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn take_error(&mut self, id: SocketId) -> Result<Option<Error>, Error> {
        self.socket(id)?;
        Ok(match &self.sockets[id].kind {
            SocketKind::Listener(_) | SocketKind::Forwarder(_) | SocketKind::Request(_) => None,
            SocketKind::Opening(index) => self.openings[*index].soft_error.take(),
            SocketKind::Connection(index) => self.connections[*index].soft_error.take(),
            SocketKind::Finished(index) => self.finished[*index].take_error(),
            SocketKind::Udp(index) | SocketKind::Datagrams(index) => self.udp.sockets[*index].error.take(),
        })
    }
}

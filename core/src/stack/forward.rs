//! Forwarders: SYNs to any address wait here until the application has decided about them. Datagrams are in
//! `datagrams`.
//!
//! Nothing is sent before the decision. A listener comes first, and without a rule that covers the destination a SYN is
//! handled as if there were no forwarder.

mod datagrams;

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::Stack;
use super::inbound::Datagram;
use super::sockets::{Finished, Place, SocketKind};
use crate::buffer::Rope;
use crate::counters::{DropReason, ReplyReason};
use crate::error::Error;
use crate::flow::{FlowRef, PackedRef};
use crate::forward::{ForwardRule, PendingSyn, Reject, Syn};
use crate::queue::Queue;
use crate::seq::SeqNum;
use crate::socket::{ConnectOptions, Event, SocketId, SocketOptions};
use crate::state::State;
use crate::table::Table;
use crate::tally::uncount;
use crate::tcp::listen::Offer;
use crate::tcp::segment::{Reply, Segment};
use crate::tcp::tcb::Origin;
use crate::time::{Duration, Instant, Tick};
use crate::tuple::FourTuple;
use crate::wheel::TimerId;
use crate::wire::tcp::{Flags, Options, Timestamps};

/// The forwarders and their requests. It takes no memory before the first of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Forwards {
    pub(super) forwarders: Table<Forwarder>,
    /// The rows of `forwarders`, the most specific rule first.
    order: Vec<u32>,
    pub(super) requests: Table<PendingSyn>,
    /// The number of requests by source and by destination.
    sources: BTreeMap<Ipv6Addr, u32>,
    destinations: BTreeMap<Ipv6Addr, u32>,
    /// Requests that nobody took, of forwarders that are closed. They are reset in steps.
    pub(super) leaving: Vec<Queue<SocketId>>,
}

#[derive(Clone, Debug)]
pub(super) struct Forwarder {
    pub(super) socket: SocketId,
    rule: ForwardRule,
    /// Requests that the application has not taken, oldest first. Some may be gone.
    pub(super) queue: Queue<SocketId>,
}

impl Forwards {
    /// Returns the forwarder of a destination.
    fn at(&self, destination: SocketAddr) -> Option<u32> {
        self.order.iter().copied().find(|index| self.forwarders[*index].rule.covers(destination))
    }

    fn count(&mut self, tuple: &FourTuple) {
        *self.sources.entry(tuple.remote_address).or_default() += 1;
        *self.destinations.entry(tuple.local_address).or_default() += 1;
    }

    fn uncount(&mut self, tuple: &FourTuple) {
        uncount(&mut self.sources, &tuple.remote_address);
        uncount(&mut self.destinations, &tuple.local_address);
    }

    /// Recounts the requests by source and by destination.
    pub(super) fn check_counts(&self) -> bool {
        let (mut sources, mut destinations) = (BTreeMap::new(), BTreeMap::new());
        for (_, request) in self.requests.iter() {
            *sources.entry(request.tuple.remote_address).or_insert(0) += 1;
            *destinations.entry(request.tuple.local_address).or_insert(0) += 1;
        }
        sources == self.sources && destinations == self.destinations
    }

    /// The requests that wait to be taken. Some may be gone.
    pub(super) fn waiting(&self) -> impl Iterator<Item = SocketId> {
        let queues = self.forwarders.iter().map(|(_, forwarder)| &forwarder.queue);
        queues.chain(&self.leaving).flat_map(Queue::iter).copied()
    }
}

impl Stack {
    /// Creates a forwarder, which takes connections to addresses of other hosts. Each SYN for a destination that `rule`
    /// covers becomes a *request*, and nothing is sent until the application decides about it:
    ///
    /// - [`Event::READABLE`] of the forwarder announces requests, and [`next_request`](Stack::next_request) takes one.
    /// - [`accept_request`](Stack::accept_request) answers with a SYN-ACK. The request's handle is the connection's from
    ///   then on, and [`Event::CONNECTED`] or [`Event::ERROR`] follows.
    /// - [`reject_request`](Stack::reject_request) refuses it. [`close`](Stack::close) does so with a RST.
    /// - [`Event::CLOSED`] of a request says that it is gone: its peer has reset it, or has stopped asking. It must
    ///   still be closed.
    ///
    /// Listeners come first. The most specific rule that covers a destination decides, by its prefix and then by its
    /// number of ports. Closing a forwarder resets the requests that nobody has taken.
    ///
    /// From the first forwarder on, the stack takes in segments and ICMP errors to any unicast address that belong to
    /// one of its connections. Others to foreign addresses are dropped as before.
    ///
    /// Limits: `forward_max_pending`, `forward_max_pending_per_source`, `forward_max_pending_per_destination`,
    /// `forward_pending_limit`. A SYN beyond them is dropped, so that its sender retransmits it. A SYN looks at each rule,
    /// so there should be few.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), a prefix that is too long or no port;
    /// [`AddrInUse`](Error::AddrInUse), there is a forwarder with this rule.
    pub fn forward(&mut self, rule: ForwardRule) -> Result<SocketId, Error> {
        rule.check()?;
        let Forwards { forwarders, order, .. } = &mut self.forwards;
        if forwarders.iter().any(|(_, forwarder)| forwarder.rule == rule) {
            return Err(Error::AddrInUse);
        }
        let place = order.partition_point(|index| forwarders[*index].rule.rank() <= rule.rank());
        let socket = self.sockets.open(SocketKind::Forwarder(forwarders.next()));
        let index = forwarders.insert(Forwarder { socket, rule, queue: Queue::default() });
        order.insert(place, index);
        self.addresses.accept_any();
        Ok(socket)
    }

    /// Takes the next request of a forwarder.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](Error::WouldBlock), there is none; [`InvalidArgument`](Error::InvalidArgument), not a
    /// forwarder; [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn next_request(&mut self, forwarder: SocketId) -> Result<SocketId, Error> {
        /// Requests that are gone, which one call passes over.
        const LOOK: usize = 256;
        let SocketKind::Forwarder(index) = self.socket(forwarder)?.kind else {
            return Err(Error::InvalidArgument);
        };
        for _ in 0..LOOK {
            let id = self.forwards.forwarders[index].queue.pop_front().ok_or(Error::WouldBlock)?;
            if let Some(socket) = self.sockets.get_mut(id) {
                socket.place = Place::Held;
                return Ok(id);
            }
        }
        self.notify(forwarder, Event::READABLE);
        Err(Error::WouldBlock)
    }

    /// Returns what is known of a request.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), not a request, or no more; [`NoSuchSocket`](Error::NoSuchSocket),
    /// a handle that was closed.
    pub fn request(&self, id: SocketId) -> Result<Syn, Error> {
        self.request_index(id).map(|index| self.forwards.requests[index].shown())
    }

    /// Accepts a request: the SYN-ACK leaves with the next [`transmit`](Stack::transmit), by the options of the kept
    /// SYN. The handle is that of the connection from then on. [`Event::CONNECTED`] or [`Event::ERROR`] follows.
    ///
    /// # Errors
    ///
    /// Why the request is gone, once; [`NoBufferSpace`](Error::NoBufferSpace), `tcp_max_connections`, and the request
    /// stays; [`InvalidArgument`](Error::InvalidArgument), not a request; [`NoSuchSocket`](Error::NoSuchSocket), a
    /// handle that was closed.
    pub fn accept_request(
        &mut self,
        now: Instant,
        id: SocketId,
        options: Option<SocketOptions>,
    ) -> Result<(), Error> {
        self.set_now(now);
        if let SocketKind::Finished(index) = self.socket(id)?.kind {
            return Err(self.finished[index].take_error().unwrap_or(Error::InvalidArgument));
        }
        let index = self.request_index(id)?;
        if self.connections_full() {
            return Err(Error::NoBufferSpace);
        }
        let options = self.shared_options(options);
        let request = self.take_request(index);
        let (tuple, offer) = (request.tuple, request.offer());
        let ts_recent = offer.timestamps().then_some(request.ts_val);
        let numbers = (request.iss, request.irs);
        let agreed = self.agreed_without_entry(tuple, options, offer, Origin::Passive, numbers, ts_recent);
        self.note_listen(&tuple, State::SynReceived);
        self.counters.passive_opens += 1;
        self.counters.forward_accepted += 1;
        let index = self.add_connection(agreed, Some(FlowRef::Pending(index)));
        self.connections[index].socket = Some(id);
        self.sockets[id].kind = SocketKind::Connection(index);
        self.with_connection(index, |connection, env| connection.answer_syn(env));
        Ok(())
    }

    /// Refuses a request and releases its handle. An ICMP error quotes the SYN, and counts towards `icmp_ratelimit`.
    /// For one that is gone nothing is sent.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument), not a request; [`NoSuchSocket`](Error::NoSuchSocket), a handle
    /// that was closed.
    pub fn reject_request(&mut self, now: Instant, id: SocketId, how: Reject) -> Result<(), Error> {
        self.set_now(now);
        if let SocketKind::Finished(_) = self.socket(id)?.kind {
            return self.close(now, id);
        }
        let index = self.request_index(id)?;
        self.refuse_request(index, how);
        Ok(())
    }

    /// Active OPEN from an address that is not ours, such as that of a client for whom we open the connection. The peer
    /// must route its answers to us. From then on the stack takes in packets to any address, as with
    /// [`forward`](Stack::forward).
    ///
    /// # Errors
    ///
    /// As [`connect`](Stack::connect); [`InvalidArgument`](Error::InvalidArgument) also for a source that is no
    /// unicast address, is a loopback address, is of another family, or has port 0.
    pub fn connect_from(
        &mut self,
        now: Instant,
        source: SocketAddr,
        remote: SocketAddr,
        options: Option<SocketOptions>,
    ) -> Result<SocketId, Error> {
        let fits = source.is_ipv4() == remote.is_ipv4() && source.port() != 0;
        if !fits || !self.addresses.is_unicast(source.ip()) || source.ip().is_loopback() {
            return Err(Error::InvalidArgument);
        }
        self.addresses.accept_any();
        self.open(now, remote, ConnectOptions { socket: options, ..ConnectOptions::from_local(source) })
    }

    /// ABORT once the peer has acknowledged what is queued, or after `limit`. It releases the handle. Data that arrives
    /// meanwhile is acknowledged and discarded. Where nothing is queued, this is [`abort`](Stack::abort).
    ///
    /// # Errors
    ///
    /// [`NoSuchSocket`](Error::NoSuchSocket), a handle that was closed.
    pub fn abort_after(&mut self, now: Instant, id: SocketId, limit: Duration) -> Result<(), Error> {
        self.set_now(now);
        self.socket(id)?;
        let orphans_full = self.orphans >= self.config.tcp_max_orphans as usize;
        self.give_back(id, |connection, env| {
            if orphans_full || limit.is_zero() {
                connection.abort()
            } else {
                connection.abort_after(limit, env)
            }
        });
        Ok(())
    }

    fn request_index(&self, id: SocketId) -> Result<u32, Error> {
        match self.socket(id)?.kind {
            SocketKind::Request(index) => Ok(index),
            _ => Err(Error::InvalidArgument),
        }
    }

    /// A segment for a port at which nobody listens, while packets to any address are taken in. `above`: the last
    /// sequence number of the TIME-WAIT that a SYN replaces.
    pub(super) fn unbound_segment(
        &mut self,
        segment: &Segment<'_>,
        datagram: &Datagram<'_>,
        above: Option<SeqNum>,
    ) {
        let flags = segment.flags();
        let Some(forwarder) = self.forwards.at(segment.tuple.local()) else {
            if self.addresses.is_local(datagram.destination()) {
                return self.closed_segment(segment);
            }
            self.counters.in_addr_errors += 1;
            return self.dropped(&segment.tuple, DropReason::NotOurs);
        };
        if !flags.syn() || flags.ack() {
            return self.closed_segment(segment);
        }
        if !self.refuses(segment, datagram) {
            self.add_request(forwarder, segment, datagram, above);
        }
    }

    /// Whether a SYN to this destination becomes a request.
    pub(super) fn is_forwarded(&self, segment: &Segment<'_>) -> bool {
        self.forwards.at(segment.tuple.local()).is_some()
    }

    fn add_request(
        &mut self,
        forwarder: u32,
        segment: &Segment<'_>,
        datagram: &Datagram<'_>,
        above: Option<SeqNum>,
    ) {
        let tuple = segment.tuple;
        if self.is_over_a_limit(&tuple) {
            return self.dropped(&tuple, DropReason::ForwardLimit);
        }
        let mut iss = self.keys.iss(self.now, &tuple);
        if let Some(above) = above
            && iss.le(above)
        {
            // As for a SYN at a listener (RFC 6191).
            iss = above + 65_537;
        }
        let offer = Offer::of(segment, &self.config, tuple.is_ipv4());
        let index = self.forwards.requests.next();
        let id = self.sockets.queue(SocketKind::Request(index), false);
        let request = PendingSyn::new(segment, datagram.quote, id, iss, offer, self.tick());
        self.forwards.requests.insert(request);
        self.forwards.count(&tuple);
        self.place(&tuple, FlowRef::Pending(index));
        self.arm_request(index);
        self.counters.forward_requests += 1;
        let (most, sockets) = (2 * self.forwards.requests.len() + 64, &self.sockets);
        let Forwarder { socket, queue, .. } = &mut self.forwards.forwarders[forwarder];
        if queue.len() > most {
            queue.tidy(|id| sockets.contains(*id));
        }
        queue.push_back(id);
        let socket = *socket;
        self.notify(socket, Event::READABLE);
    }

    fn is_over_a_limit(&mut self, tuple: &FourTuple) -> bool {
        let Forwards { requests, sources, destinations, .. } = &self.forwards;
        let of = |counts: &BTreeMap<Ipv6Addr, u32>, address| counts.get(&address).copied().unwrap_or(0);
        let (config, counters) = (&self.config, &mut self.counters);
        for (count, limit, counter) in [
            (requests.len() as u32, config.forward_max_pending, &mut counters.forward_pending_full),
            (
                of(sources, tuple.remote_address),
                config.forward_max_pending_per_source,
                &mut counters.forward_source_full,
            ),
            (
                of(destinations, tuple.local_address),
                config.forward_max_pending_per_destination,
                &mut counters.forward_destination_full,
            ),
        ] {
            if count >= limit {
                *counter += 1;
                return true;
            }
        }
        false
    }

    /// A segment of the peer of a request.
    pub(super) fn pending_segment(&mut self, index: u32, segment: &Segment<'_>, datagram: &Datagram<'_>) {
        let (flags, now) = (segment.flags(), self.tick());
        let request = &mut self.forwards.requests[index];
        if flags.rst() {
            if segment.seq() != request.irs + 1 {
                return self.dropped(&segment.tuple, DropReason::RstOutOfWindow);
            }
            self.dropped(&segment.tuple, DropReason::HalfOpenRst);
            return self.end_request(index, Error::ConnectionReset);
        }
        if !flags.syn() || flags.ack() {
            return self.dropped_stray(segment, DropReason::Undecided);
        }
        if segment.seq() == request.irs {
            request.hear(segment, datagram.quote, now);
            // The time may come earlier than after the first SYN.
            return self.arm_request(index);
        }
        // The peer has begun anew.
        self.end_request(index, Error::ConnectionReset);
        match self.listener_at(&segment.tuple) {
            Some(listener) => self.listen_segment(listener, segment, datagram),
            None => self.unbound_segment(segment, datagram, None),
        }
    }

    /// The time of a request is over, unless its peer has asked again meanwhile.
    pub(super) fn request_timer(&mut self, index: u32) {
        let request = &mut self.forwards.requests[index];
        request.timer = TimerId::NONE;
        if request.deadline(&self.config).is_due(Tick::at(self.now)) {
            self.end_request(index, Error::TimedOut);
        } else {
            self.arm_request(index);
        }
    }

    fn arm_request(&mut self, index: u32) {
        let request = &mut self.forwards.requests[index];
        let target = PackedRef::from(FlowRef::Pending(index)).0;
        request.timer = self.wheel.rearm(request.timer, request.deadline(&self.config), target);
    }

    /// The peer of a request is gone. The application learns of it, if it has the request.
    pub(super) fn end_request(&mut self, index: u32, error: Error) {
        let request = self.remove_request(index);
        self.counters.forward_gone += 1;
        let Some(socket) = self.sockets.get_mut(request.socket) else { return };
        if socket.place == Place::AcceptQueue {
            self.sockets.remove(request.socket);
            return;
        }
        let finished = Finished {
            receive_queue: Rope::default(),
            error: Some(error),
            local: request.tuple.local(),
            remote: request.tuple.remote(),
            options: Arc::clone(&self.default_options),
            info: None,
            icmp: None,
        };
        socket.kind = SocketKind::Finished(self.finished.insert(finished));
        self.notify(request.socket, Event::READABLE | Event::WRITABLE | Event::CLOSED | Event::ERROR);
    }

    /// Answers a request as its forwarder decided, and forgets it with its socket.
    pub(super) fn refuse_request(&mut self, index: u32, how: Reject) {
        let request = self.remove_request(index);
        self.sockets.remove(request.socket);
        self.counters.forward_rejected += 1;
        let tuple = request.tuple;
        if how == Reject::Reset {
            let mut reply = Reply::ack(tuple, SeqNum(0), request.irs + 1, 0, ReplyReason::RstForward);
            reply.header.flags = Flags::RST | Flags::ACK;
            let timestamps = Timestamps { val: 0, ecr: request.ts_val };
            let timestamps = request.offer().timestamps().then_some(timestamps);
            reply.header.options = Options { timestamps, ..Options::default() };
            return self.reply(reply);
        }
        let Some(kind) = how.icmp() else { return };
        let (destination, source) = (tuple.local().ip(), tuple.remote().ip());
        let from = self.speaker(source, destination, kind);
        self.send_error(from, source, kind, &request.quote(), ReplyReason::IcmpForward);
    }

    /// Removes a request from its table. The caller reuses its entry in the flow table, and its socket.
    fn take_request(&mut self, index: u32) -> PendingSyn {
        let request = self.forwards.requests.remove(index);
        self.forwards.uncount(&request.tuple);
        self.wheel.remove(request.timer);
        request
    }

    fn remove_request(&mut self, index: u32) -> PendingSyn {
        let request = self.take_request(index);
        self.displace(&request.tuple, FlowRef::Pending(index));
        request
    }

    pub(super) fn close_forwarder(&mut self, index: u32) {
        let Forwarder { socket, queue, .. } = self.forwards.forwarders.remove(index);
        self.forwards.order.retain(|row| *row != index);
        self.sockets.remove(socket);
        self.forwards.leaving.push(queue);
        self.reset_leaving();
    }

    /// Resets some of the requests that nobody can take any more.
    pub(super) fn reset_leaving(&mut self) {
        const SOME: usize = 32;
        let Some(mut queue) = self.forwards.leaving.pop() else { return };
        for _ in 0..SOME {
            let Some(id) = queue.pop_front() else { return };
            if let Some(SocketKind::Request(index)) = self.sockets.get(id).map(|socket| &socket.kind) {
                self.refuse_request(*index, Reject::Reset);
            }
        }
        self.forwards.leaving.push(queue);
    }
}

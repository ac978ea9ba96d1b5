//! The flow table, and the moves of rows between the tables behind it.

use std::sync::Arc;

use super::replies::Queued;
use super::sockets::{Finished, SocketKind};
use super::{Stack, env_of};
use crate::buffer::Rope;
use crate::counters::ReplyReason;
use crate::error::Error;
use crate::flow::{FlowRef, PackedRef};
use crate::info::Info;
use crate::socket::Event;
use crate::state::State;
use crate::tcp::dormant::Dormant;
use crate::tcp::input::Closed;
use crate::tcp::listen::HalfOpen;
use crate::tcp::segment::Reply;
use crate::tcp::syn_sent::Opening;
use crate::tcp::tcb::{Agreed, Connection, Origin};
use crate::tcp::time_wait::{self, TimeWait};
use crate::tuple::FourTuple;
use crate::wire::tcp::{Flags, Options};

/// This many orphans remain full connections in FIN-WAIT-2.
pub(super) const FULL_ORPHANS: usize = 64;

impl Stack {
    /// Returns the flow of an arriving segment's tuple. Tries the last flow first, which saves the hash and the probe.
    pub(super) fn find_last_or(&mut self, tuple: &FourTuple) -> Option<FlowRef> {
        if self.connections.get(self.last_flow).is_some_and(|connection| connection.tcb.tuple == *tuple) {
            return Some(FlowRef::Connection(self.last_flow));
        }
        let found = self.find(tuple);
        if let Some(FlowRef::Connection(index)) = found {
            self.last_flow = index;
        }
        found
    }

    pub(super) fn find(&mut self, tuple: &FourTuple) -> Option<FlowRef> {
        let Stack { flows, keys, half_open, openings, connections, time_waits, dormant, forwards, .. } = self;
        flows.find(keys, tuple, |flow| {
            *tuple
                == match flow {
                    FlowRef::HalfOpen(i) => half_open[i].tuple,
                    FlowRef::Opening(i) => openings[i].tuple,
                    FlowRef::Connection(i) => connections[i].tcb.tuple,
                    FlowRef::TimeWait(i) => time_waits.tuple(i),
                    FlowRef::Dormant(i) => dormant[i].tuple,
                    FlowRef::Pending(i) => forwards.requests[i].tuple,
                }
        })
    }

    /// Inserts `flow` at a tuple that is free.
    pub(super) fn place(&mut self, tuple: &FourTuple, flow: FlowRef) {
        self.flows.insert(&self.keys, tuple, flow);
        self.ports.came(tuple);
    }

    /// Replaces the flow at `tuple`, whose row has changed, usually to another table.
    pub(super) fn replace(&mut self, tuple: &FourTuple, old: FlowRef, new: FlowRef) {
        self.flows.replace(&self.keys, tuple, old, new);
    }

    /// Removes `flow` from the flow table.
    pub(super) fn displace(&mut self, tuple: &FourTuple, flow: FlowRef) {
        self.flows.remove(&self.keys, tuple, flow);
        self.ports.gone(tuple);
    }

    /// Adds a connection, which takes over the flow table entry of its predecessor.
    pub(super) fn add_connection(&mut self, agreed: Agreed, from: Option<FlowRef>) -> u32 {
        let tuple = agreed.tuple;
        let (round_trip, syn_retransmissions) = (agreed.rtt, agreed.syn_retransmissions);
        let index = self.connections.insert_with(|| Connection::new(agreed, &env_of!(self)));
        if let Some(round_trip) = round_trip {
            self.connections[index].note_handshake(round_trip, &env_of!(self));
        }
        if self.config.follows_linux() {
            self.connections[index].follow_linux(syn_retransmissions, &self.config);
        }
        match from {
            Some(old) => self.replace(&tuple, old, FlowRef::Connection(index)),
            None => self.place(&tuple, FlowRef::Connection(index)),
        }
        index
    }

    /// Releases all that a finished connection holds, except its row and its entry in the flow table.
    pub(super) fn settle_accounts(&mut self, index: u32) {
        self.end_turn(index);
        self.let_go(index);
        self.delist(index);
        self.note_round_trip(index);
        let connection = &self.connections[index];
        let tcb = &connection.tcb;
        self.wheel.remove(connection.armed.node);
        self.memory.remove(connection);
        if connection.is_orphan() {
            self.orphans -= 1;
        }
        if tcb.state == State::CloseWait {
            self.counters.close_wait_left += 1;
        }
        if tcb.origin == Origin::FastOpen {
            self.fast_open_over(index);
        }
    }

    /// Takes the round trip of a connection that ends.
    fn note_round_trip(&mut self, index: u32) {
        let rtt = &self.connections[index].tcb.rtt;
        if rtt.srtt_micros() > 0 {
            self.histograms.rtt.note(rtt.srtt());
        }
    }

    /// Turns the connection into a compact entry. Its socket, if the application still holds it, keeps the unread data.
    pub(super) fn enter_time_wait(&mut self, index: u32) {
        // Its last ACK leaves as a stateless reply, because the connection is gone before the device asks.
        let now = self.now;
        let connection = &mut self.connections[index];
        if connection.tcb.ack.now {
            let ack = connection.final_ack(&mut env_of!(self));
            self.push_reply(Queued::Segment(ack));
        }
        self.settle_accounts(index);
        let tcb = &self.connections[index].tcb;
        if self.config.tcp_tw_recycle && tcb.snd.timestamps {
            let (peer, limit) = (tcb.tuple.remote().ip(), self.config.tcp_tw_recycle_peers as usize);
            self.peers.remember(peer, tcb.ts.recent, now, limit);
        }
        self.add_time_wait(index);
        self.finish_socket(index, None);
    }

    /// Reduces an orphan in FIN-WAIT-2 to a compact entry. The caller lets the first few ([`FULL_ORPHANS`]) stay full
    /// connections, because most of those end within a round trip.
    pub(super) fn lay_down(&mut self, index: u32) {
        if !self.connections.get(index).is_some_and(Dormant::may_be) {
            return;
        }
        let connection = &mut self.connections[index];
        if connection.tcb.ack.now || connection.tcb.timers.delayed_ack.is_some() {
            let ack = connection.final_ack(&mut env_of!(self));
            self.push_reply(Queued::Segment(ack));
        }
        self.end_turn(index);
        self.let_go(index);
        self.delist(index);
        // The compact entry has no room for it.
        self.note_round_trip(index);
        let connection = &self.connections[index];
        let dormant = Dormant::of(connection);
        let tuple = dormant.tuple;
        self.wheel.remove(connection.armed.node);
        self.connections.discard(index);
        let end = dormant.fin_wait_2;
        let to = self.dormant.insert(dormant);
        if let Some(end) = end {
            let target = PackedRef::from(FlowRef::Dormant(to)).0;
            self.dormant[to].timer = self.wheel.insert(end.tick(), target);
        }
        self.replace(&tuple, FlowRef::Connection(index), FlowRef::Dormant(to));
    }

    /// Turns such an orphan back into a full connection for an event.
    pub(super) fn wake(&mut self, index: u32) -> u32 {
        let dormant = self.dormant.remove(index);
        let tuple = dormant.tuple;
        self.wheel.remove(dormant.timer);
        let to = self.connections.insert_with(|| dormant.wake(&env_of!(self)));
        self.replace(&tuple, FlowRef::Dormant(index), FlowRef::Connection(to));
        to
    }

    /// Replaces the connection with a TIME-WAIT entry for 2MSL, if there is room for one.
    pub(super) fn add_time_wait(&mut self, index: u32) {
        let connection = &self.connections[index];
        let tuple = connection.tcb.tuple;
        let length = time_wait::length(&self.config);
        let full = self.time_waits.len() >= self.config.tcp_max_tw_buckets as usize
            || self.time_waits.held_with(&tuple) > self.config.tcp_tw_mem;
        if full || length.is_zero() {
            self.counters.tcp_time_wait_overflow += u64::from(full);
            self.displace(&tuple, FlowRef::Connection(index));
            return self.note_state(&tuple, State::TimeWait, State::Closed);
        }
        self.counters.tw += 1;
        let entry = TimeWait::new(connection, self.now, &self.config);
        if entry.timestamps_on() {
            self.ports.rest(&tuple);
        }
        let entry = self.time_waits.insert(&entry);
        self.replace(&tuple, FlowRef::Connection(index), FlowRef::TimeWait(entry));
    }

    pub(super) fn remove_time_wait(&mut self, index: u32) {
        let tuple = self.time_waits.tuple(index);
        match self.find(&tuple) {
            // A half-open connection had replaced it, and can no longer restore it.
            Some(FlowRef::HalfOpen(successor)) => drop(self.gave_way.remove(&successor)),
            _ => {
                self.displace(&tuple, FlowRef::TimeWait(index));
                self.note_state(&tuple, State::TimeWait, State::Closed);
            }
        }
        self.time_waits.remove(index);
    }

    /// Removes the connection for good.
    pub(super) fn finish_connection(&mut self, index: u32, closed: Closed) {
        self.settle_accounts(index);
        let connection = &self.connections[index];
        let (tuple, state) = (connection.tcb.tuple, connection.tcb.state);
        if closed.rst {
            let tcb = &connection.tcb;
            // The peer drops a number beyond the window that it took back. DRILL-X56
            let linux = self.config.follows_linux();
            let seq = if linux { connection.acceptable_seq() } else { tcb.snd.nxt };
            let mut reply =
                Reply::ack(tuple, seq, tcb.rcv.nxt, 0, ReplyReason::RstAbort).with_ip_of(&connection.options);
            reply.header.flags = Flags::RST | Flags::ACK;
            let timestamps = connection.timestamps(&env_of!(self));
            reply.header.options = Options { timestamps, ..Options::default() };
            if matches!(state, State::Established | State::CloseWait) {
                self.counters.estab_resets += 1;
            }
            self.push_reply(Queued::Segment(reply));
            env_of!(self).note_reply(&tuple, ReplyReason::RstAbort);
        }
        self.displace(&tuple, FlowRef::Connection(index));
        self.note_state(&tuple, state, State::Closed);
        self.finish_socket(index, closed.error);
    }

    /// Removes the connection's row. Its socket, if the application still holds it, keeps the unread data.
    pub(super) fn finish_socket(&mut self, index: u32, error: Option<Error>) {
        let connection = &mut self.connections[index];
        let (id, events) = (connection.socket, connection.events);
        if let Some(id) = id
            && let Some(socket) = self.sockets.get_mut(id)
        {
            let info = Info { state: State::Closed, ..connection.info(self.now, &self.config) };
            let receive_queue = std::mem::take(&mut connection.receive_queue);
            self.memory.add(&receive_queue);
            let (local, remote) = (connection.tcb.tuple.local(), connection.tcb.tuple.remote());
            let options = Arc::clone(&connection.options);
            let info = Some(Box::new(info));
            let finished = Finished { receive_queue, error, local, remote, options, info, icmp: None };
            socket.kind = SocketKind::Finished(self.finished.insert(finished));
            let failed = if error.is_some() { Event::ERROR } else { Event::default() };
            self.notify(id, Event::READABLE | Event::WRITABLE | Event::CLOSED | failed | events);
        }
        self.connections.discard(index);
    }

    pub(super) fn remove_opening(&mut self, index: u32) -> Opening {
        let opening = self.take_opening(index);
        self.displace(&opening.tuple, FlowRef::Opening(index));
        opening
    }

    /// Removes an opening from its table. The caller reuses its entry in the flow table.
    pub(super) fn take_opening(&mut self, index: u32) -> Opening {
        let opening = self.openings.remove(index);
        self.wheel.remove(opening.timer);
        self.memory.remove(&opening.send_queue);
        opening
    }

    /// Handles a failed connect.
    pub(super) fn fail_opening(&mut self, index: u32, error: Error) {
        let opening = self.remove_opening(index);
        self.note_state(&opening.tuple, State::SynSent, State::Closed);
        if let Some(socket) = self.sockets.get_mut(opening.socket) {
            let (local, remote) = (opening.tuple.local(), opening.tuple.remote());
            let options = opening.options;
            let finished = Finished {
                receive_queue: Rope::default(),
                error: Some(error),
                local,
                remote,
                options,
                info: None,
                icmp: None,
            };
            socket.kind = SocketKind::Finished(self.finished.insert(finished));
            let events = Event::READABLE | Event::WRITABLE | Event::CLOSED | Event::ERROR;
            self.notify(opening.socket, events);
        }
    }

    /// Removes a half-open connection and restores the TIME-WAIT that it had replaced.
    pub(super) fn remove_half_open(&mut self, index: u32) -> HalfOpen {
        let entry = self.take_half_open(index);
        match self.gave_way.remove(&index) {
            Some(old) => self.replace(&entry.tuple, FlowRef::HalfOpen(index), FlowRef::TimeWait(old)),
            None => self.displace(&entry.tuple, FlowRef::HalfOpen(index)),
        }
        entry
    }

    /// Removes a half-open connection from its table. The caller reuses its entry in the flow table.
    pub(super) fn take_half_open(&mut self, index: u32) -> HalfOpen {
        let entry = self.half_open.remove(index);
        self.wheel.remove(entry.timer);
        self.listeners[entry.listener].half_open -= 1;
        entry
    }

    pub(super) fn connections_full(&self) -> bool {
        self.connections.len() + self.dormant.len() + self.openings.len()
            >= self.config.tcp_max_connections as usize
    }
}

//! The connections, the header template of the one that sent last, and what follows from an event of a connection.

use super::sockets::{Socket, SocketKind};
use super::template::HeaderTemplate;
use super::timers::arm;
use super::{Stack, env_of};
use crate::buffer::{Pool, Rope};
use crate::counters::{DropReason, ReplyReason};
use crate::list::{Links, Rows};
use crate::socket::Event;
use crate::state::State;
use crate::table::Table;
use crate::tcp::input::{Closed, Outcome};
use crate::tcp::listen::synack_patience;
use crate::tcp::segment::{Reply, Segment};
use crate::tcp::tcb::{Connection, Env, Origin};
use crate::time::{Duration, Tick};

/// The connections. A header template is good until the next event of its connection. Whoever gets a `&mut Connection`
/// may cause one, so that ends the template: only [`sender`](Connections::sender) keeps it.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections {
    rows: Table<Connection>,
    template: Option<HeaderTemplate>,
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Connection> {
        self.rows.get(index)
    }

    /// Iterates over all connections and their indexes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection)> {
        self.rows.iter()
    }

    /// Iterates over the connections from an index on, and their indexes.
    pub(super) fn iter_from(&self, from: u32) -> impl Iterator<Item = (u32, &Connection)> {
        self.rows.iter_from(from)
    }

    /// Adds a connection, which is constructed in place.
    #[inline]
    pub(super) fn insert_with(&mut self, make: impl FnOnce() -> Connection) -> u32 {
        self.rows.insert_with(make)
    }

    /// Removes a connection.
    pub(super) fn discard(&mut self, index: u32) {
        self.end_template_of(index);
        self.rows.discard(index);
    }

    /// Returns the connection that sends, and the template if it is good for its next segment at `tick`.
    #[inline]
    pub(super) fn sender(
        &mut self,
        index: u32,
        tick: Tick,
    ) -> (&mut Connection, &mut Option<HeaderTemplate>) {
        self.template.take_if(|template| !template.goes_on(index, tick));
        (&mut self.rows[index], &mut self.template)
    }

    /// Ends the template, whosever it is.
    pub(super) fn end_template(&mut self) {
        self.template = None;
    }

    #[inline]
    fn end_template_of(&mut self, index: u32) {
        if let Some(template) = &self.template
            && template.index == index
        {
            self.template = None;
        }
    }
}

impl std::ops::Index<u32> for Connections {
    type Output = Connection;

    #[inline]
    fn index(&self, index: u32) -> &Connection {
        &self.rows[index]
    }
}

impl std::ops::IndexMut<u32> for Connections {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut Connection {
        self.end_template_of(index);
        &mut self.rows[index]
    }
}

/// The connections that may have something to send.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ready {}

/// Links decide nothing about a segment: they leave the template as it is.
impl Rows<Ready> for Connections {
    fn links(&self, index: u32) -> Option<Links> {
        self.rows.get(index).map(|connection| connection.ready)
    }

    #[inline]
    fn links_mut(&mut self, index: u32) -> &mut Links {
        &mut self.rows[index].ready
    }
}

/// An event of a connection has duties towards the tables:
///
/// 1. The header template ends ([`Connections`] sees to it).
/// 2. The memory that its queues take is accounted for ([`Account`](crate::memory::Account)).
/// 3. Its timer is armed for its earliest deadline.
/// 4. It joins the ready list if it may have something to send.
/// 5. It is in the memory lists to which it belongs.
/// 6. The application hears of its events.
///
/// `with_connection` fulfils all of them. Reads and writes are frequent: each has a variant that leaves out the duties
/// that it cannot incur. After each of them [`check_connection`](Stack::check_connection) verifies the result.
impl Stack {
    /// Runs a handler on a connection.
    pub(super) fn with_connection<R>(
        &mut self,
        index: u32,
        run: impl FnOnce(&mut Connection, &mut Env<'_>) -> R,
    ) -> R {
        let connection = &mut self.connections[index];
        let mut env = env_of!(self);
        let result = self.memory.change(connection, |connection| run(connection, &mut env));
        let group = connection.group(self.memory.gauge(self.config.tcp_mem).is_above_low());
        let moves = group != connection.group || !self.ladder.has_right_gap(connection);
        arm(&mut self.wheel, index, connection);
        let (socket, events) = (connection.socket, std::mem::take(&mut connection.events));
        if connection.claims_turn() && !self.ready.push_alone(index, &mut connection.ready) {
            self.make_ready(index);
        }
        if moves {
            self.relist(index, group);
        }
        if !events.is_empty() {
            self.notify(socket, events);
        }
        debug_assert_eq!(self.check_connection(index), Ok(()));
        result
    }

    /// Queues data on a connection, as [`with_connection`](Stack::with_connection) would. A write sets no deadline and
    /// causes no event, and no data arrives. `fit` returns how much to push, or why nothing.
    #[inline]
    pub(super) fn with_send_queue<T: Copy, E>(
        &mut self,
        index: u32,
        fit: impl FnOnce(&Connection) -> Result<T, E>,
        push: impl FnOnce(&mut Rope, T, &mut Pool),
    ) -> Result<T, E> {
        let connection = &mut self.connections[index];
        let count = fit(connection)?;
        self.memory.change(&mut connection.send_queue, |queue| push(queue, count, &mut self.pool));
        let group = connection.group(self.memory.gauge(self.config.tcp_mem).is_above_low());
        let moves = group != connection.group;
        if connection.claims_turn() && !self.ready.push_alone(index, &mut connection.ready) {
            self.make_ready(index);
        }
        if moves {
            self.relist(index, group);
        }
        debug_assert_eq!(self.check_connection(index), Ok(()));
        Ok(count)
    }

    /// Reads from a connection, as [`with_connection`](Stack::with_connection) would. A read sets no deadline and
    /// causes no event, and the memory lists do not depend on unread data. Returns the number of bytes read.
    #[inline]
    pub(super) fn with_receive_queue(
        &mut self,
        index: u32,
        read: impl FnOnce(&mut Rope, &mut Pool) -> usize,
    ) -> usize {
        let connection = &mut self.connections[index];
        let count = self.memory.change(&mut connection.receive_queue, |queue| read(queue, &mut self.pool));
        if count > 0 {
            connection.note_read(self.memory.gauge(self.config.tcp_mem));
            if connection.claims_turn() && !self.ready.push_alone(index, &mut connection.ready) {
                self.make_ready(index);
            }
        }
        debug_assert_eq!(self.check_connection(index), Ok(()));
        count
    }

    /// Applies to the tables the outcome that a handler of this connection returned.
    #[inline]
    pub(super) fn apply(&mut self, index: u32, outcome: Outcome, segment: Option<&Segment<'_>>) {
        if outcome != Outcome::Keep {
            self.apply_change(index, outcome, segment);
        }
    }

    #[inline(never)]
    pub(super) fn apply_change(&mut self, index: u32, outcome: Outcome, segment: Option<&Segment<'_>>) {
        let tuple = self.connections[index].tcb.tuple;
        match outcome {
            Outcome::Keep => {}
            Outcome::Dropped(reason) => match segment {
                Some(segment) => self.dropped_stray(segment, reason),
                None => self.dropped(&tuple, reason),
            },
            Outcome::Reset(reason) => {
                self.dropped(&tuple, DropReason::AckOfUnsent);
                if let Some(segment) = segment {
                    let reply = Reply::rst_to(segment, reason).with_ip_of(&self.connections[index].options);
                    self.reset(segment, reply);
                }
            }
            Outcome::Established => self.established(index),
            Outcome::TimeWait => self.enter_time_wait(index),
            Outcome::Closed(closed) => {
                let orphan = self.connections[index].is_orphan() && self.config.tcp_bsd_rules;
                let as_closed = orphan || self.config.follows_linux();
                let late = segment.filter(|segment| as_closed && closed.rst && segment.len() > 0);
                let Some(segment) = late else { return self.finish_connection(index, closed) };
                // FreeBSD and Linux answer data that nobody reads as in CLOSED. DRILL-F36, DRILL-X54
                let reply = self.without_timestamps(Reply::rst_to(segment, ReplyReason::RstAbort));
                let reply = reply.with_ip_of(&self.connections[index].options);
                self.reply(reply);
                self.finish_connection(index, Closed { rst: false, ..closed });
            }
        }
    }

    pub(super) fn established(&mut self, index: u32) {
        let Connection { ref tcb, socket, listener, .. } = self.connections[index];
        match tcb.origin {
            Origin::Active => self.notify(socket, Event::CONNECTED),
            Origin::FastOpen => self.fast_open_over(index),
            // That of an accepted request: its application has it since before.
            Origin::Passive if listener.is_none() => self.notify(socket, Event::CONNECTED),
            Origin::Passive => {}
        }
    }

    /// A Fast Open request is no longer pending: its third segment has arrived, or it has ended.
    #[cold]
    pub(super) fn fast_open_over(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        connection.tcb.origin = Origin::Passive;
        let tcb = &connection.tcb;
        let listener = connection.listener.and_then(|id| self.sockets.get(id));
        let Some(Socket { kind: SocketKind::Listener(listener), .. }) = listener else { return };
        let pending = &mut self.listeners[*listener].fast_open_pending;
        if tcb.state == State::SynReceived {
            let waited = Duration::from_millis(Tick::at(self.now).elapsed(tcb.snd.stalled_since).into());
            let left = synack_patience(&self.config).saturating_sub(waited);
            pending.end(self.now, self.now + left);
        } else {
            pending.confirm();
        }
    }

    /// Queues a connection for `transmit`, behind those that wait already.
    fn make_ready(&mut self, index: u32) {
        self.ready.push(index, &mut self.connections);
    }
}

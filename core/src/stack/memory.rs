//! Relief when `tcp_mem` runs short, in order of harm: shares, out-of-order queues, orphans, connections whose peer
//! takes nothing. Also the order in which refused writers try again when memory is free.
//!
//! Each step looks at the front of a list, so that no call visits many connections. The lists are in the order in which
//! connections began to hold memory.

use std::collections::VecDeque;

use super::Stack;
use super::connections::{ByAge, Connections, WithGap};
use super::sockets::{Place, SocketKind};
use crate::error::Error;
use crate::list::List;
use crate::memory::{Gauge, Group, LEAST};
use crate::socket::{Event, SocketId};
use crate::tcp::input::Closed;
use crate::tcp::tcb::Connection;
use crate::time::{Instant, Tick};

/// The most connections that one call visits in each step.
const LOOKS: usize = 8;
/// A stalled peer may be aborted once a retransmission or a window probe was due, or after this many milliseconds.
const STALLED: u32 = 1000;
/// A slow peer may be aborted after this many milliseconds: more than the minute in which it may reopen its window
/// (THREAT-8).
const SLOW: u32 = 90_000;
/// A peer must acknowledge one part in this many of the data held for it within that time.
const ENOUGH: usize = 16;

/// The connections that hold memory, and the sockets that wait for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ladder {
    /// Connections with out-of-order data.
    gaps: List<WithGap>,
    /// Orphans with data to send.
    orphans: List<ByAge>,
    /// Connections with data to send whose peer has not acknowledged enough of it yet, and those whose peer has.
    unproven: List<ByAge>,
    proven: List<ByAge>,
    /// Since when `tcp_mem` is under pressure.
    pressed_since: Option<Instant>,
    /// Sockets whose write was refused while they had nothing to send, each once.
    refused: VecDeque<SocketId>,
    /// Bytes promised in this tick to sockets that were woken.
    promised: (Tick, u64),
}

impl Ladder {
    fn list(&mut self, group: Group) -> Option<&mut List<ByAge>> {
        match group {
            Group::Nowhere => None,
            Group::Orphans => Some(&mut self.orphans),
            Group::Unproven => Some(&mut self.unproven),
            Group::Proven => Some(&mut self.proven),
        }
    }

    /// Returns the length of each list: gaps, orphans, unproven, proven.
    pub(super) fn lens(&self, connections: &Connections) -> [usize; 4] {
        let most = connections.len() + 1;
        let by_age = |list: &List<ByAge>| list.iter(connections).take(most).count();
        let gaps = self.gaps.iter(connections).take(most).count();
        [gaps, by_age(&self.orphans), by_age(&self.unproven), by_age(&self.proven)]
    }
}

/// The fate of a connection at the front of a list.
enum Verdict {
    /// Its peer has acknowledged enough.
    Proven,
    /// Its peer acknowledges little, but not for too long yet.
    Slow,
    /// Too early to decide; those behind it are younger.
    Young,
    Abort,
}

impl Stack {
    pub(super) fn gauge(&self) -> Gauge {
        self.memory.gauge(self.config.tcp_mem)
    }

    /// Called wherever memory may have been taken. Connections may be gone afterwards.
    #[inline]
    pub(super) fn mind_memory(&mut self) {
        if self.gauge().is_above_pressure() || self.ladder.pressed_since.is_some() {
            self.relieve();
        }
    }

    #[cold]
    fn relieve(&mut self) {
        self.mark_pressure();
        for _ in 0..LOOKS {
            if !self.gauge().is_above_pressure() || !self.prune_one() {
                break;
            }
        }
        let mut looks = LOOKS;
        for group in [Group::Orphans, Group::Unproven, Group::Proven] {
            while looks > 0 && self.gauge().held > self.gauge().critical() && self.abort_one(group) {
                looks -= 1;
            }
        }
    }

    /// Pressure begins above its mark and ends below the low one, as in Linux.
    fn mark_pressure(&mut self) {
        let gauge = self.gauge();
        match self.ladder.pressed_since {
            None if gauge.is_above_pressure() => {
                self.counters.tcp_memory_pressures += 1;
                self.ladder.pressed_since = Some(self.now);
            }
            Some(since) if !gauge.is_above_low() => {
                let millis = self.now.as_millis() - since.as_millis();
                self.counters.tcp_memory_pressures_chrono += millis;
                self.ladder.pressed_since = None;
            }
            _ => {}
        }
    }

    /// Drops the out-of-order data of the connection that has held some for longest. Its peer retransmits it (RFC 2018
    /// §8). Returns whether there was one.
    fn prune_one(&mut self) -> bool {
        let Some(index) = self.ladder.gaps.first() else { return false };
        self.counters.prune_called += 1;
        self.with_connection(index, |connection, env| {
            if connection.prune_reassembly() > 0 {
                env.counters.ofo_pruned += 1;
            }
        });
        true
    }

    /// Handles the first connection of a list. Returns whether another call is worthwhile.
    fn abort_one(&mut self, group: Group) -> bool {
        let Some(index) = self.ladder.list(group).and_then(|list| list.first()) else { return false };
        match self.judge(index, group) {
            Verdict::Young => return false,
            Verdict::Proven if group == Group::Orphans => self.relist(index, group),
            Verdict::Proven => self.relist(index, Group::Proven),
            Verdict::Slow => {
                let Stack { ladder, connections, .. } = self;
                if let Some(list) = ladder.list(group) {
                    list.remove(index, connections);
                    list.push(index, connections);
                }
            }
            Verdict::Abort => {
                let error = if group == Group::Orphans {
                    self.counters.tcp_abort_on_memory += 1;
                    None
                } else {
                    self.counters.stalled_aborted += 1;
                    Some(Error::NoBufferSpace)
                };
                self.finish_connection(index, Closed { error, rst: true });
            }
        }
        true
    }

    fn judge(&self, index: u32, group: Group) -> Verdict {
        let connection = &self.connections[index];
        let listed = &connection.listed;
        let age = self.tick().elapsed(listed.since);
        let taken = (connection.bytes_acked as u32).wrapping_sub(listed.acked) as usize;
        // Above the high mark, incoming data is already refused: young orphans are not spared.
        let spared = group != Group::Orphans || !self.gauge().is_above_high();
        let unanswered = connection.tcb.rtt.backoff > 0;
        // A slow peer closes its window. A peer with an open window acknowledges what arrives.
        let slow = (connection.tcb.snd.wnd == 0 || !unanswered) && connection.has_taken_enough();
        if taken > 0 && taken >= connection.send_queue.held() / ENOUGH {
            Verdict::Proven
        } else if age < STALLED && !unanswered && spared {
            Verdict::Young
        } else if age < SLOW && (taken > 0 || slow) {
            Verdict::Slow
        } else {
            Verdict::Abort
        }
    }

    /// Moves a connection from its list to the end of the list of `group`, with the current time. Also updates its
    /// place in the list of out-of-order data.
    #[cold]
    pub(super) fn relist(&mut self, index: u32, group: Group) {
        let tick = self.tick();
        let Stack { ladder, connections, .. } = self;
        if let Some(list) = ladder.list(connections[index].group) {
            list.remove(index, connections);
        }
        if let Some(list) = ladder.list(group) {
            list.push(index, connections);
        }
        let connection = &mut connections[index];
        let (had_gap, has_gap) = (connection.gap.is_listed(), connection.reassembly.is_some());
        connection.group = group;
        connection.listed.since = tick;
        connection.listed.acked = connection.bytes_acked as u32;
        match (had_gap, has_gap) {
            (false, true) => ladder.gaps.push(index, connections),
            (true, false) => ladder.gaps.remove(index, connections),
            _ => {}
        }
    }

    /// Removes a connection that ends from its lists.
    pub(super) fn delist(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        let group = std::mem::take(&mut connection.group);
        let has_gap = connection.gap.is_listed();
        let Stack { ladder, connections, .. } = self;
        if let Some(list) = ladder.list(group) {
            list.remove(index, connections);
        }
        if has_gap {
            ladder.gaps.remove(index, connections);
        }
    }

    /// Queues a socket whose write was refused for lack of memory. It has no data under way whose end would wake it, so
    /// it is woken in its turn.
    #[cold]
    pub(super) fn refuse(&mut self, id: SocketId) {
        let sockets = &mut self.sockets;
        let Some(socket) = sockets.get_mut(id) else { return };
        if std::mem::replace(&mut socket.refused, true) {
            return;
        }
        // Closed sockets leave their ids behind, which must not accumulate.
        if self.ladder.refused.len() > 2 * sockets.len() + 64 {
            self.ladder.refused.retain(|id| sockets.contains(*id));
        }
        self.ladder.refused.push_back(id);
    }

    /// Sockets that wait for memory, and some that are gone.
    pub(super) fn refused(&self) -> impl Iterator<Item = &SocketId> {
        self.ladder.refused.iter()
    }

    pub(super) fn anybody_refused(&self) -> bool {
        !self.ladder.refused.is_empty()
    }

    /// Returns the next socket that may try again, while memory is free. In one tick it wakes no more than can get the
    /// minimum.
    pub(super) fn next_refused(&mut self) -> Option<(SocketId, Event)> {
        let tick = self.tick();
        if self.ladder.promised.0 != tick {
            self.ladder.promised = (tick, 0);
        }
        let gauge = self.gauge();
        while gauge.held + self.ladder.promised.1 < gauge.high() {
            let id = self.ladder.refused.pop_front()?;
            let Some(socket) = self.sockets.get_mut(id) else { continue };
            socket.refused = false;
            if matches!(socket.kind, SocketKind::Connection(_) | SocketKind::Opening(_)) {
                self.ladder.promised.1 += LEAST;
                socket.place = Place::Held;
                return Some((id, std::mem::take(&mut socket.events) | Event::WRITABLE));
            }
        }
        None
    }
}

impl Connection {
    /// Returns the list to which the connection belongs.
    #[inline]
    pub(super) fn group(&self, above_low: bool) -> Group {
        /// Below this many bytes, a connection matters only when memory is short.
        const MUCH: usize = 4096;
        let group = self.group;
        if self.send_queue.is_empty() {
            Group::Nowhere
        } else if self.is_orphan() {
            Group::Orphans
        } else if group != Group::Nowhere || !(above_low || self.send_queue.held() > MUCH) {
            group
        } else if self.has_taken_enough() {
            Group::Proven
        } else {
            Group::Unproven
        }
    }

    /// Returns whether the peer has acknowledged at least as much as is held for it now.
    fn has_taken_enough(&self) -> bool {
        self.bytes_acked >= self.send_queue.held() as u64
    }
}

//! Relief when `tcp_mem` runs short, in order of harm: shares, out-of-order queues, orphans, connections whose peer
//! takes nothing. Also the order in which refused writers try again when memory is free.
//!
//! Each step looks at the front of a list, so that no call visits many connections. The lists are in the order in which
//! connections began to hold memory.

use std::collections::VecDeque;

use super::Stack;
use super::sockets::{Place, SocketKind};
use crate::error::Error;
use crate::list::{Links, List, Rows};
use crate::memory::{Gauge, Group, LEAST};
use crate::socket::{Event, SocketId};
use crate::table::{Link, Table};
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

/// A connection in one of the lists, or in two. Most connections hold too little to be in any: it is no part of them.
#[derive(Clone, Debug)]
struct Holder {
    /// The connection's row.
    connection: Link,
    gap: Links,
    by_age: Links,
    /// When it was put into its list by age, and how much its peer had acknowledged by then.
    since: Tick,
    acked: u32,
}

type Holders = Table<Holder>;

/// Those with data to send, by the time since when they hold it.
#[derive(Clone, Copy, Debug)]
enum ByAge {}
/// Those with out-of-order data.
#[derive(Clone, Copy, Debug)]
enum WithGap {}

macro_rules! rows {
    ($sort:ty, $links:ident) => {
        impl Rows<$sort> for Holders {
            fn links(&self, index: u32) -> Option<Links> {
                self.get(index).map(|holder| holder.$links)
            }

            fn links_mut(&mut self, index: u32) -> &mut Links {
                &mut self[index].$links
            }
        }
    };
}
rows!(ByAge, by_age);
rows!(WithGap, gap);

/// The connections that hold memory, and the sockets that wait for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ladder {
    holders: Holders,
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
    /// Returns the list of a group, and the rows behind it.
    fn list(&mut self, group: Group) -> Option<(&mut List<ByAge>, &mut Holders)> {
        let list = match group {
            Group::Nowhere => return None,
            Group::Orphans => &mut self.orphans,
            Group::Unproven => &mut self.unproven,
            Group::Proven => &mut self.proven,
        };
        Some((list, &mut self.holders))
    }

    /// Returns the first connection of a group.
    fn first(&mut self, group: Group) -> Option<u32> {
        let (list, holders) = self.list(group)?;
        list.first().map(|holder| holders[holder].connection.index())
    }

    /// Returns the lengths of the lists of gaps, orphans, unproven and proven, and the number of holders.
    pub(super) fn lens(&self) -> [usize; 5] {
        let most = self.holders.len() + 1;
        let by_age = |list: &List<ByAge>| list.iter(&self.holders).take(most).count();
        let gaps = self.gaps.iter(&self.holders).take(most).count();
        let [orphans, unproven, proven] = [&self.orphans, &self.unproven, &self.proven].map(by_age);
        [gaps, orphans, unproven, proven, self.holders.len()]
    }

    /// Returns whether a connection is in the list of gaps, and in a list by age.
    pub(super) fn lists(&self, connection: &Connection) -> (bool, bool) {
        let holder = connection.holder.get().and_then(|holder| self.holders.get(holder));
        holder.map_or((false, false), |holder| (holder.gap.is_listed(), holder.by_age.is_listed()))
    }

    /// Returns whether a connection is in the list of gaps as it should be.
    #[inline]
    pub(super) fn has_right_gap(&self, connection: &Connection) -> bool {
        let has_gap = connection.reassembly.is_some();
        if connection.holder == Link::NONE { !has_gap } else { self.lists(connection).0 == has_gap }
    }

    /// Moves a connection from its list by age to the end of the list of `group`, and into the list of gaps, or out of
    /// it.
    fn relist(&mut self, connection: &mut Connection, index: u32, group: Group, has_gap: bool, now: Tick) {
        let acked = connection.bytes_acked as u32;
        let holder = connection.holder.get().unwrap_or_else(|| {
            let (gap, by_age) = (Links::default(), Links::default());
            self.holders.insert(Holder { connection: Link::of(index), gap, by_age, since: now, acked })
        });
        if let Some((list, holders)) = self.list(std::mem::replace(&mut connection.group, group)) {
            list.remove(holder, holders);
        }
        if let Some((list, holders)) = self.list(group) {
            list.push(holder, holders);
        }
        let row = &mut self.holders[holder];
        (row.since, row.acked) = (now, acked);
        match (row.gap.is_listed(), has_gap) {
            (false, true) => self.gaps.push(holder, &mut self.holders),
            (true, false) => self.gaps.remove(holder, &mut self.holders),
            _ => {}
        }
        let stays = group != Group::Nowhere || has_gap;
        connection.holder = if stays { Link::of(holder) } else { Link::NONE };
        if !stays {
            self.holders.discard(holder);
        }
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
        let Ladder { gaps, holders, .. } = &self.ladder;
        let Some(index) = gaps.first().map(|holder| holders[holder].connection.index()) else { return false };
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
        let Some(index) = self.ladder.first(group) else { return false };
        match self.judge(index, group) {
            Verdict::Young => return false,
            Verdict::Proven if group == Group::Orphans => self.relist(index, group),
            Verdict::Proven => self.relist(index, Group::Proven),
            Verdict::Slow => {
                if let Some((list, holders)) = self.ladder.list(group) {
                    list.rotate(holders);
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
        let holder = &self.ladder.holders[connection.holder.index()];
        let age = self.tick().elapsed(holder.since);
        let taken = (connection.bytes_acked as u32).wrapping_sub(holder.acked) as usize;
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
        let connection = &mut self.connections[index];
        let has_gap = connection.reassembly.is_some();
        self.ladder.relist(connection, index, group, has_gap, tick);
    }

    /// Removes a connection that ends from its lists.
    pub(super) fn delist(&mut self, index: u32) {
        let tick = self.tick();
        let connection = &mut self.connections[index];
        if connection.holder != Link::NONE {
            self.ladder.relist(connection, index, Group::Nowhere, false, tick);
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

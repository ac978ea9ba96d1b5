//! Stateless replies that wait for the device, limited in number and bytes (`reply_queue`, `reply_queue_bytes`).

use std::net::IpAddr;

use super::{Stack, env_of};
use crate::config::Config;
use crate::counters::DropReason;
use crate::ip::limit;
use crate::ip::routes::InterfaceId;
use crate::queue::Queue;
use crate::tcp::segment::{Reply, Segment};

/// Packets that wait for the device, apart from segments of connections.
#[derive(Clone, Debug)]
pub(super) enum Queued {
    Segment(Reply),
    /// A whole packet, such as an ICMP message.
    Packet(Vec<u8>),
    /// A whole packet to the routers of a link.
    Report(InterfaceId, Vec<u8>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Replies {
    queue: Queue<Queued>,
    /// The bytes of the queue's elements and of their packets.
    bytes: usize,
    /// Number of replies offered since the queue last had room, including those that waited then.
    offered: u32,
}

impl Replies {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The bytes of the replies, and of the places that they take.
    pub(super) fn held(&self) -> usize {
        self.bytes
    }

    /// As [`held`](Replies::held), counted anew.
    pub(super) fn recount(&self) -> usize {
        self.queue.iter().map(Queued::held).sum()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns whether there is room for a reply.
    #[inline]
    pub(super) fn has_room(&self, reply: &Queued, config: &Config) -> bool {
        let bytes = self.bytes + reply.held();
        self.len() < config.reply_queue as usize && bytes <= config.reply_queue_bytes as usize
    }

    /// Queues a reply for which there is room.
    #[inline]
    pub(super) fn push(&mut self, reply: Queued) {
        self.bytes += reply.held();
        self.queue.push_back(reply);
        self.offered = self.queue.len() as u32;
    }

    /// Replaces a random waiting reply by one for which there is no room, or drops it. `chance` is a random number;
    /// every reply offered is equally likely to be dropped.
    pub(super) fn displace(&mut self, reply: Queued, chance: u32, config: &Config) {
        self.offered = self.offered.saturating_add(1);
        let place = (u64::from(chance) * u64::from(self.offered)) >> 32;
        let Some(waiting) = self.queue.get_mut(place as usize) else { return };
        let bytes = self.bytes - waiting.held() + reply.held();
        if bytes <= config.reply_queue_bytes as usize {
            (*waiting, self.bytes) = (reply, bytes);
        }
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<Queued> {
        let reply = self.queue.pop_front()?;
        self.bytes -= reply.held();
        Some(reply)
    }
}

impl Queued {
    /// Returns the bytes that it occupies while it waits.
    fn held(&self) -> usize {
        size_of::<Queued>()
            + match self {
                Queued::Segment(_) => 0,
                Queued::Packet(packet) | Queued::Report(_, packet) => packet.capacity(),
            }
    }
}

impl Stack {
    /// Queues a reply that belongs to no connection.
    pub(super) fn reply(&mut self, reply: Reply) {
        env_of!(self).note_reply(&reply.tuple, reply.reason);
        self.push_reply(Queued::Segment(reply));
    }

    pub(super) fn push_reply(&mut self, reply: Queued) {
        if !self.replies.has_room(&reply, &self.config) {
            return self.displace_reply(reply);
        }
        self.replies.push(reply);
    }

    /// Drops a reply from the full queue: a random one of those waiting, or the new one. All replies since the queue
    /// filled have the same chance, so a flood that arrives first does not shut out later senders.
    #[cold]
    pub(super) fn displace_reply(&mut self, reply: Queued) {
        self.counters.count_drop(DropReason::ReplyQueueFull);
        let chance = self.keys.random();
        self.replies.displace(reply, chance, &self.config);
    }

    /// Sends the RST for `segment`, which belongs to no connection (RFC 9293 §3.5.2). A SYN always gets one, as a
    /// listener would answer it: the RST is no larger. For other segments a budget limits RSTs (SA-CLOSED-05).
    pub(super) fn reset(&mut self, segment: &Segment<'_>, rst: Reply) {
        let rst = self.without_timestamps(rst);
        if !is_stray(segment) || self.charge(segment) {
            self.reply(rst);
        } else {
            self.dropped(&segment.tuple, DropReason::ReplyThrottled);
        }
    }

    /// Linux's RSTs of no connection have no options.
    // DRILL-X54
    pub(super) fn without_timestamps(&self, mut rst: Reply) -> Reply {
        if self.config.follows_linux() {
            rst.header.options.timestamps = None;
        }
        rst
    }

    /// As [`dropped`](Stack::dropped), for a segment whose tuple is in use. It takes from the RST budget what it would
    /// take if the tuple were free. Otherwise an attacker could count RSTs and learn that the tuple is in use
    /// (THREAT-24, THREAT-25).
    pub(super) fn dropped_stray(&mut self, segment: &Segment<'_>, reason: DropReason) {
        if is_stray(segment) {
            self.charge(segment);
        }
        self.dropped(&segment.tuple, reason);
    }

    /// Takes one RST from the budget of the source network of `segment`. Returns whether there was one.
    pub(super) fn charge(&mut self, segment: &Segment<'_>) -> bool {
        let limit = self.config.tcp_rst_limit;
        if limit == 0 {
            return true;
        }
        let slot = self.network_slot(segment.tuple.remote().ip());
        let jitter = self.keys.random();
        self.rst_limit.allow(self.now, slot, limit, jitter)
    }

    /// The slot of an address's network in a [`RateLimiter`].
    pub(super) fn network_slot(&self, address: IpAddr) -> usize {
        let (prefix, len) = limit::prefix(address);
        self.keys.bucket(&prefix[..len], limit::SLOTS)
    }
}

/// Whether a segment would draw a RST within the budget if its tuple were free and nobody listened there.
fn is_stray(segment: &Segment<'_>) -> bool {
    let flags = segment.flags();
    !flags.rst() && (flags.ack() || !flags.syn())
}

//! Stateless replies that wait for the device, limited in number and bytes (`reply_queue`, `reply_queue_bytes`).

use super::Reply;
use crate::config::Config;
use crate::queue::Queue;

#[derive(Clone, Debug, Default)]
pub(super) struct Replies {
    queue: Queue<Reply>,
    /// The bytes of the queue's elements and of their packets.
    bytes: usize,
    /// Number of replies offered since the queue last had room, including those that waited then.
    offered: u32,
}

impl Replies {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The bytes of the answers, and of the places that they take.
    pub(super) fn held(&self) -> usize {
        self.bytes
    }

    /// As [`held`](Replies::held), counted anew.
    pub(super) fn recount(&self) -> usize {
        self.queue.iter().map(Reply::held).sum()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns whether there is room for a reply.
    #[inline]
    pub(super) fn has_room(&self, reply: &Reply, config: &Config) -> bool {
        let bytes = self.bytes + reply.held();
        self.len() < config.reply_queue as usize && bytes <= config.reply_queue_bytes as usize
    }

    /// Queues a reply for which there is room.
    #[inline]
    pub(super) fn push(&mut self, reply: Reply) {
        self.bytes += reply.held();
        self.queue.push_back(reply);
        self.offered = self.queue.len() as u32;
    }

    /// Replaces a random waiting reply by one for which there is no room, or drops it. `chance` is a random number;
    /// every reply offered is equally likely to be dropped.
    pub(super) fn displace(&mut self, reply: Reply, chance: u32, config: &Config) {
        self.offered = self.offered.saturating_add(1);
        let place = (u64::from(chance) * u64::from(self.offered)) >> 32;
        let Some(waiting) = self.queue.get_mut(place as usize) else { return };
        let bytes = self.bytes - waiting.held() + reply.held();
        if bytes <= config.reply_queue_bytes as usize {
            (*waiting, self.bytes) = (reply, bytes);
        }
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<Reply> {
        let reply = self.queue.pop_front()?;
        self.bytes -= reply.held();
        Some(reply)
    }
}

impl Reply {
    /// Returns the bytes that it occupies while it waits.
    fn held(&self) -> usize {
        size_of::<Reply>()
            + match self {
                Reply::Segment(_) => 0,
                Reply::Packet(packet) => packet.capacity(),
            }
    }
}

//! Stateless answers that wait for the device: so many, and so many bytes (`reply_queue`, `reply_queue_bytes`).

use super::Reply;
use crate::config::Config;
use crate::queue::Queue;

#[derive(Clone, Debug, Default)]
pub(super) struct Replies {
    queue: Queue<Reply>,
    /// Of the queue's elements and the packets that they hold.
    bytes: usize,
}

impl Replies {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues an answer. `false`: there is no room for it, and it is gone.
    pub(super) fn push(&mut self, reply: Reply, config: &Config) -> bool {
        let bytes = self.bytes + reply.held();
        let room = self.len() < config.reply_queue as usize && bytes <= config.reply_queue_bytes as usize;
        if room {
            self.bytes = bytes;
            self.queue.push_back(reply);
        }
        room
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<Reply> {
        let reply = self.queue.pop_front()?;
        self.bytes -= reply.held();
        Some(reply)
    }
}

impl Reply {
    /// Bytes that it takes while it waits.
    fn held(&self) -> usize {
        size_of::<Reply>()
            + match self {
                Reply::Segment(_) => 0,
                Reply::Packet(packet) => packet.capacity(),
            }
    }
}

//! The queues of a connection: ropes of byte chunks that own nothing while they are empty.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::wire::checksum::Sum;

/// What is smaller is copied, so that the bookkeeping of a chunk is little against what it holds.
const SMALL: usize = 1024;
/// The sizes of buffers that bytes are copied into. A rope's next one holds as much as all before it, so that a queue
/// takes at most four times what is in it, and few buffers.
const SIZES: [usize; 5] = [256, 1024, 4096, 16 * 1024, 64 * 1024];

/// Buffers that queues have emptied and others will fill: while data flows, nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    buffers: [Vec<Vec<u8>>; SIZES.len()],
    /// The boxes themselves, so that a rope gets and gives one by its pointer.
    #[expect(clippy::vec_box)]
    queues: Vec<Box<Queue>>,
}

/// A copy of a stack begins without spare buffers.
impl Clone for Pool {
    fn clone(&self) -> Pool {
        Pool::default()
    }
}

impl Pool {
    /// Bytes of each size that are kept.
    const KEPT: usize = 1 << 20;
    const KEPT_QUEUES: usize = 256;
    /// A queue that grew longer is not kept.
    const LONGEST_QUEUE: usize = 64;

    /// An empty buffer with room for `size` bytes, or for the largest that there is.
    fn buffer(&mut self, size: usize) -> Vec<u8> {
        let class = SIZES.iter().position(|room| *room >= size).unwrap_or(SIZES.len() - 1);
        self.buffers[class].pop().unwrap_or_else(|| Vec::with_capacity(SIZES[class]))
    }

    fn take_back(&mut self, chunk: Bulk) {
        let Bulk::Own(mut buffer) = chunk else { return };
        let class = SIZES.iter().position(|size| *size == buffer.capacity());
        if let Some(class) = class.filter(|class| self.buffers[*class].len() < Pool::KEPT / SIZES[*class]) {
            buffer.clear();
            self.buffers[class].push(buffer);
        }
    }

    fn take_back_queue(&mut self, queue: Box<Queue>) {
        if self.queues.len() < Pool::KEPT_QUEUES && queue.chunks.capacity() <= Pool::LONGEST_QUEUE {
            self.queues.push(queue);
        }
    }
}

#[derive(Clone, Debug)]
enum Bulk {
    /// Bytes copied in, with room for more.
    Own(Vec<u8>),
    /// Somebody else's buffer, held.
    Shared(Bytes),
}

#[derive(Clone, Debug)]
struct Chunk {
    /// Where it begins, counted from the first byte that was ever queued since the rope was empty.
    at: u64,
    bulk: Bulk,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match &self.bulk {
            Bulk::Own(bytes) => bytes,
            Bulk::Shared(bytes) => bytes,
        }
    }
}

/// A queue of bytes: appended at the end, read anywhere, released at the front. Empty, it is one word.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rope(Option<Box<Queue>>);

#[derive(Clone, Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    /// The first byte that is there and the end, counted as chunks are.
    start: u64,
    end: u64,
}

impl Rope {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Appends a copy.
    pub(crate) fn push_slice(&mut self, mut data: &[u8], pool: &mut Pool) {
        if data.is_empty() {
            return;
        }
        let queue = self.queue(pool);
        if let Some(Chunk { bulk: Bulk::Own(tail), .. }) = queue.chunks.back_mut() {
            let (now, later) = data.split_at(data.len().min(tail.capacity() - tail.len()));
            tail.extend_from_slice(now);
            queue.end += now.len() as u64;
            data = later;
        }
        while !data.is_empty() {
            let mut buffer = pool.buffer(data.len().max(queue.len()));
            let (now, later) = data.split_at(data.len().min(buffer.capacity()));
            buffer.extend_from_slice(now);
            queue.push(Bulk::Own(buffer), now.len());
            data = later;
        }
    }

    /// Appends without a copy, unless the copy is cheaper than holding on to a buffer.
    pub(crate) fn push_bytes(&mut self, data: Bytes, pool: &mut Pool) {
        if data.len() < SMALL {
            return self.push_slice(&data, pool);
        }
        let len = data.len();
        self.queue(pool).push(Bulk::Shared(data), len);
    }

    fn queue(&mut self, pool: &mut Pool) -> &mut Queue {
        self.0.get_or_insert_with(|| pool.queues.pop().unwrap_or_default())
    }

    /// Appends a payload: a slice of the packet it came in where it fills most of it, else a copy, so that a
    /// one-byte segment never holds 64 KiB.
    pub(crate) fn push_payload(&mut self, payload: &[u8], packet: Option<&Bytes>, pool: &mut Pool) {
        match packet {
            Some(packet) if payload.len() >= SMALL && payload.len() * 2 >= packet.len() => {
                self.push_bytes(packet.slice_ref(payload), pool);
            }
            _ => self.push_slice(payload, pool),
        }
    }

    /// Drops `count` bytes at the front.
    pub(crate) fn release(&mut self, count: usize, pool: &mut Pool) {
        let Some(queue) = &mut self.0 else { return };
        queue.start += count.min(queue.len()) as u64;
        while let Some(first) = queue.chunks.front() {
            if queue.start < first.at + first.bytes().len() as u64 {
                return;
            }
            let chunk = queue.chunks.pop_front();
            chunk.into_iter().for_each(|chunk| pool.take_back(chunk.bulk));
        }
        // What is empty owns nothing: an idle connection keeps no buffer.
        (queue.start, queue.end) = (0, 0);
        self.0.take().into_iter().for_each(|queue| pool.take_back_queue(queue));
    }

    /// Copies `dst.len()` bytes that begin at `offset` into `dst` and adds them to `sum`.
    pub(crate) fn copy_out(&self, offset: usize, dst: &mut [u8], sum: &mut Sum) {
        debug_assert!(offset + dst.len() <= self.len());
        let (Some(queue), mut dst) = (&self.0, dst) else { return };
        for piece in queue.pieces(offset) {
            let (head, rest) = dst.split_at_mut(piece.len().min(dst.len()));
            sum.copy_and_add(head, &piece[..head.len()]);
            dst = rest;
            if dst.is_empty() {
                break;
            }
        }
    }

    /// Copies up to `dst.len()` bytes that begin at `offset` into `dst`, and says how many.
    pub(crate) fn peek(&self, offset: usize, dst: &mut [u8]) -> usize {
        let (Some(queue), mut copied) = (&self.0, 0) else { return 0 };
        for piece in queue.pieces(offset) {
            let count = piece.len().min(dst.len() - copied);
            dst[copied..copied + count].copy_from_slice(&piece[..count]);
            copied += count;
            if copied == dst.len() {
                break;
            }
        }
        copied
    }
}

impl Queue {
    fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    fn push(&mut self, bulk: Bulk, len: usize) {
        self.chunks.push_back(Chunk { at: self.end, bulk });
        self.end += len as u64;
    }

    /// What is there from `offset` on. The first chunk is found by bisection, wherever the last read was: after a
    /// retransmission the next one is far away.
    fn pieces(&self, offset: usize) -> impl Iterator<Item = &[u8]> {
        let from = self.start + offset as u64;
        let first = self.chunks.partition_point(|chunk| chunk.at <= from).saturating_sub(1);
        self.chunks.range(first..).map(move |chunk| &chunk.bytes()[from.saturating_sub(chunk.at) as usize..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_rope_owns_no_buffer() {
        let (mut rope, mut pool) = (Rope::default(), Pool::default());
        rope.push_slice(&[1; 100], &mut pool);
        rope.push_bytes(Bytes::from_static(&[2; 2000]), &mut pool);
        rope.release(2100, &mut pool);
        assert!(rope.0.is_none());
    }

    #[test]
    fn a_small_payload_does_not_hold_a_large_packet() {
        let packet = Bytes::from(vec![7; 60_000]);
        let (mut rope, mut pool) = (Rope::default(), Pool::default());
        rope.push_payload(&packet[..1], Some(&packet), &mut pool);
        assert!(packet.is_unique());
        rope.push_payload(&packet[..59_000], Some(&packet), &mut pool);
        assert!(!packet.is_unique());
    }

    #[test]
    fn small_bytes_take_small_buffers_and_the_pool_keeps_a_bounded_number() {
        let (mut rope, mut pool) = (Rope::default(), Pool::default());
        rope.push_slice(&[1; 64], &mut pool);
        let Bulk::Own(first) = &rope.0.as_ref().unwrap().chunks[0].bulk else { panic!("it was copied") };
        assert_eq!(first.capacity(), 256);
        for _ in 0..100 {
            rope.push_slice(&[2; 60_000], &mut pool);
        }
        assert!(rope.0.as_ref().unwrap().chunks.len() < 100 && rope.len() == 6_000_064);
        rope.release(usize::MAX, &mut pool);
        let kept: usize = pool.buffers.iter().flatten().map(Vec::capacity).sum();
        assert!(kept <= SIZES.len() * Pool::KEPT && kept >= Pool::KEPT, "{kept}");
    }

    proptest! {
        #[test]
        fn behaves_as_a_vector_would(
            steps in proptest::collection::vec((0u8..4, 0usize..9000, any::<u8>()), 1..60),
        ) {
            let (mut rope, mut pool, mut oracle) = (Rope::default(), Pool::default(), Vec::new());
            for (what, size, seed) in steps {
                let data: Vec<u8> = (0..size).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
                match what {
                    0 => { rope.push_slice(&data, &mut pool); oracle.extend_from_slice(&data); }
                    1 => { oracle.extend_from_slice(&data); rope.push_bytes(Bytes::from(data), &mut pool); }
                    2 => { let n = size.min(oracle.len()); rope.release(n, &mut pool); oracle.drain(..n); }
                    _ => {
                        let from = size.min(oracle.len());
                        let count = (usize::from(seed) * 37).min(oracle.len() - from);
                        let (mut out, mut sum) = (vec![0; count], Sum::new());
                        rope.copy_out(from, &mut out, &mut sum);
                        prop_assert_eq!(&out, &oracle[from..from + count]);
                    }
                }
                prop_assert_eq!(rope.len(), oracle.len());
                let mut all = vec![0; oracle.len() + 3];
                prop_assert_eq!(rope.peek(0, &mut all), oracle.len());
                prop_assert_eq!(&all[..oracle.len()], &oracle[..]);
            }
        }
    }
}

//! The queues of a connection: ropes of byte chunks. An empty rope owns no memory.

use std::hash::{Hash, Hasher};

use bytes::{Bytes, BytesMut};

use crate::memory::Holds;
use crate::wire::checksum::Sum;

/// Smaller pieces are copied, to keep the bookkeeping of a chunk small against its content.
const SMALL: usize = 1024;
/// Bytes stored inline in a queue, so that a small message needs no separate buffer.
const INLINE: usize = 256;
/// Sizes of the buffers for copied bytes; each is four times the one before. A rope's next buffer holds as much as all
/// before it. A queue that only grows thus takes at most four times its content, in few buffers.
const SIZES: [usize; 5] = [256, 1024, 4096, 16 * 1024, 64 * 1024];

/// Most slices that one segment is sent in.
const SLICES: usize = 64;

/// Returns whether `len` bytes justify holding a buffer of `buffer` bytes: the unused rest and the bookkeeping are
/// small.
pub(crate) fn is_worth_holding(len: usize, buffer: usize) -> bool {
    len >= SMALL && buffer <= len + len / 16
}

/// A queue moves its content into smaller buffers when it holds more than this many times its bytes, plus `LOOSE`.
const SPARSE: usize = 8;
/// Memory that a queue may hold in excess, in bytes, so that a short message is never moved.
const LOOSE: usize = 4096;

/// Returns the index in `SIZES` of the smallest size that has room for `size` bytes, or of the largest.
fn class(size: usize) -> usize {
    let bits = usize::BITS - size.saturating_sub(1).leading_zeros();
    (bits.saturating_sub(SIZES[0].trailing_zeros()).div_ceil(2) as usize).min(SIZES.len() - 1)
}

/// Empty buffers for reuse, so that steady traffic does not allocate.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    buffers: [Vec<BytesMut>; SIZES.len()],
    /// Empty queues in their boxes: a rope takes and returns one by its pointer.
    #[expect(clippy::vec_box)]
    queues: Vec<Box<Queue>>,
}

/// A clone of a stack begins without spare buffers.
impl Clone for Pool {
    fn clone(&self) -> Pool {
        Pool::default()
    }
}

impl Pool {
    /// The most bytes of each size that are kept.
    const KEPT: usize = 1 << 20;
    const KEPT_QUEUES: usize = 256;
    /// A queue with a longer list of chunks is not kept.
    const LONGEST_QUEUE: usize = 64;

    /// Returns an empty buffer with room for `size` bytes, or the largest one.
    fn buffer(&mut self, size: usize) -> BytesMut {
        let class = class(size);
        self.buffers[class].pop().unwrap_or_else(|| BytesMut::with_capacity(SIZES[class]))
    }

    fn take_back(&mut self, bulk: Bulk) {
        let (buffer, held) = match bulk {
            Bulk::Own(buffer, held) => (Some(buffer), held),
            // A device may still have a slice. Then the buffer goes with it.
            Bulk::Lent(bytes, held) => (bytes.try_into_mut().ok(), held),
            Bulk::Shared(..) => return,
        };
        let Some(mut buffer) = buffer else { return };
        let class = class(held as usize);
        if held as usize == SIZES[class] && self.buffers[class].len() < Pool::KEPT / SIZES[class] {
            buffer.clear();
            // Fails if a device has a slice of the beginning.
            if buffer.try_reclaim(SIZES[class]) {
                self.buffers[class].push(buffer);
            }
        }
    }

    fn take_back_queue(&mut self, mut queue: Box<Queue>) {
        if !queue.chunks.is_empty() {
            queue.give_back_all(self);
        }
        (queue.start, queue.end, queue.inline) = (0, 0, 0);
        debug_assert_eq!(queue.held, queue.recount());
        if self.queues.len() < Pool::KEPT_QUEUES && queue.chunks.capacity() <= Pool::LONGEST_QUEUE {
            self.queues.push(queue);
        } else {
            Queue::dismiss(queue);
        }
    }
}

/// Bytes, and the number of bytes that count as held for them.
#[derive(Debug)]
enum Bulk {
    /// Bytes copied in, with room for more. The rope may hold the beginning of the buffer as shared bytes that count
    /// nothing: the chunks leave in order, so that the buffer is held until this one has left.
    Own(BytesMut, u32),
    /// The same without room for more. Devices may have slices of it.
    Lent(Bytes, u32),
    /// A shared buffer of somebody else.
    Shared(Bytes, u32),
}

/// A clone has the capacity of the original, so that its memory is counted right.
impl Clone for Bulk {
    fn clone(&self) -> Bulk {
        match self {
            Bulk::Own(buffer, held) => {
                let mut copy = BytesMut::with_capacity(buffer.capacity());
                copy.extend_from_slice(buffer);
                Bulk::Own(copy, *held)
            }
            Bulk::Lent(bytes, held) => Bulk::Lent(bytes.clone(), *held),
            Bulk::Shared(bytes, held) => Bulk::Shared(bytes.clone(), *held),
        }
    }
}

/// Like `clone`, with the same capacity.
fn copy_of<T: Clone>(list: &Vec<T>) -> Vec<T> {
    let mut copy = Vec::with_capacity(list.capacity());
    copy.extend_from_slice(list);
    copy
}

impl Bulk {
    fn held(&self) -> usize {
        match self {
            Bulk::Own(_, held) | Bulk::Lent(_, held) | Bulk::Shared(_, held) => *held as usize,
        }
    }
}

#[derive(Clone, Debug)]
struct Chunk {
    /// Stream offset of its first byte, counted since the rope was last empty.
    at: u64,
    bulk: Bulk,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match &self.bulk {
            Bulk::Own(bytes, _) => bytes,
            Bulk::Shared(bytes, _) | Bulk::Lent(bytes, _) => bytes,
        }
    }

    /// Returns `len` bytes from stream offset `from` on, if the chunk contains them all.
    #[inline]
    fn piece(&self, from: u64, len: usize) -> Option<&[u8]> {
        let at = from.checked_sub(self.at)? as usize;
        self.bytes().get(at..at + len)
    }
}

/// A queue of bytes: append at the end, read anywhere, release at the front. An empty one is one word.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rope(Option<Box<Queue>>);

#[derive(Debug)]
struct Queue {
    /// Stream offsets of the first byte and of the end, counted as in [`Chunk::at`].
    start: u64,
    end: u64,
    /// Stream offset up to which bytes are in `small`. The rest is in `chunks`.
    inline: u64,
    /// A vector rather than a ring: bisection is cheaper in contiguous memory.
    chunks: Vec<Chunk>,
    /// Number of released chunks at the front of `chunks`. They are empty.
    gone: usize,
    /// Index of the chunk last sent from: usually that of the next read too.
    sent: usize,
    /// Bytes of memory in use: the queue, its list, and its chunks.
    held: usize,
    small: [u8; INLINE],
}

impl Clone for Queue {
    fn clone(&self) -> Queue {
        Queue { chunks: copy_of(&self.chunks), ..*self }
    }
}

impl Rope {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the bytes of memory in use, including spare capacity and lists.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.held)
    }

    /// Recomputes [`held`](Rope::held).
    pub(crate) fn recount(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.recount())
    }

    /// Appends a copy.
    #[inline(never)]
    pub(crate) fn push_slice(&mut self, data: &[u8], pool: &mut Pool) {
        if data.is_empty() {
            return;
        }
        self.queue(pool).append(data, pool);
    }

    /// Returns how many of `wanted` bytes [`push_tight`](Rope::push_tight) can append if it may take `room` bytes of
    /// memory.
    pub(crate) fn fit(&self, wanted: usize, room: usize) -> usize {
        let largest = SIZES[SIZES.len() - 1];
        let rest = SIZES.iter().rev().find(|size| **size <= room % largest).unwrap_or(&0);
        let fits = room / largest * largest + rest;
        wanted.min(self.0.as_ref().map_or(0, |queue| queue.spare()) + fits)
    }

    /// Appends a copy in buffers no larger than the data need.
    pub(crate) fn push_tight(&mut self, data: &[u8], pool: &mut Pool) {
        if !data.is_empty() {
            self.queue(pool).push_copy(data, 0, pool);
        }
    }

    /// Appends without a copy, unless a copy is cheaper than holding the buffer. Only `data` counts as held; the owner
    /// of a shared buffer accounts for the rest.
    pub(crate) fn push_bytes(&mut self, data: Bytes, pool: &mut Pool) {
        let held = data.len();
        self.push_shared(data, held, pool);
    }

    /// Appends a slice of a buffer that takes `held` bytes of memory.
    fn push_shared(&mut self, data: Bytes, held: usize, pool: &mut Pool) {
        if data.len() < SMALL || self.would_waste(data.len()) {
            return self.push_slice(&data, pool);
        }
        let len = data.len();
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        self.queue(pool).push(Bulk::Shared(data, held), len);
    }

    /// Returns whether a new buffer of `len` bytes would strand too much room at the end of the last one.
    #[inline]
    fn would_waste(&self, len: usize) -> bool {
        let room = self.0.as_ref().map_or(0, |queue| queue.spare());
        room > len / 16 && len <= SIZES[SIZES.len() - 1]
    }

    #[inline(always)]
    fn queue(&mut self, pool: &mut Pool) -> &mut Queue {
        self.0.get_or_insert_with(|| pool.queues.pop().unwrap_or_else(Queue::new))
    }

    /// Appends a payload: a slice of its packet if it fills most of it, else a copy. A one-byte segment thus never
    /// holds 64 KiB.
    #[inline]
    pub(crate) fn push_payload(&mut self, payload: &[u8], packet: Option<&Bytes>, pool: &mut Pool) {
        match packet {
            Some(packet) if is_worth_holding(payload.len(), packet.len()) => {
                self.push_shared(packet.slice_ref(payload), packet.len(), pool);
            }
            _ => self.push_slice(payload, pool),
        }
    }

    /// Drops `count` bytes at the front.
    pub(crate) fn release(&mut self, count: usize, pool: &mut Pool) {
        let Some(queue) = &mut self.0 else { return };
        queue.start += count.min(queue.len()) as u64;
        if queue.start < queue.end {
            if queue.start > queue.inline {
                queue.give_back(pool);
            }
        } else if let Some(queue) = self.0.take() {
            // An empty queue owns no memory: an idle connection keeps no buffer.
            pool.take_back_queue(queue);
        }
    }

    /// Copies `dst.len()` bytes from `offset` on into `dst` and adds them to `sum`.
    pub(crate) fn copy_out(&mut self, offset: usize, dst: &mut [u8], sum: &mut Sum) {
        debug_assert!(offset + dst.len() <= self.len());
        let Some(queue) = &mut self.0 else { return };
        let from = queue.start + offset as u64;
        // The usual case of a long queue, without a second search.
        if from >= queue.inline
            && let Some(piece) = queue.chunks.get(queue.sent).and_then(|chunk| chunk.piece(from, dst.len()))
        {
            return sum.copy_and_add(dst, piece);
        }
        queue.go_to(from);
        queue.copy(offset, dst, |to, from| sum.copy_and_add(to, from));
    }

    /// Appends slices with `len` bytes from `offset` on to `slices`. Returns false, and appends nothing, if they lie in
    /// more than 64 places.
    pub(crate) fn share(&mut self, offset: usize, len: usize, slices: &mut Vec<Bytes>) -> bool {
        debug_assert!(offset + len <= self.len());
        let Some(queue) = &mut self.0 else { return true };
        let from = queue.start + offset as u64;
        queue.share(from, from + len as u64, slices)
    }

    /// Copies up to `dst.len()` bytes from `offset` on into `dst`. Returns the number of bytes copied.
    pub(crate) fn peek(&self, offset: usize, dst: &mut [u8]) -> usize {
        let Some(queue) = &self.0 else { return 0 };
        let count = dst.len().min(queue.len().saturating_sub(offset));
        queue.copy(offset, &mut dst[..count], |to, from| to.copy_from_slice(from));
        count
    }

    /// Moves up to `dst.len()` bytes from the front into `dst`. Returns the number of bytes moved.
    pub(crate) fn read(&mut self, dst: &mut [u8], pool: &mut Pool) -> usize {
        let count = self.peek(0, dst);
        self.release(count, pool);
        count
    }

    /// Takes up to `most` bytes from the front: what one piece of the rope has of them. A slice of a packet is not copied.
    pub(crate) fn take(&mut self, most: usize, pool: &mut Pool) -> Bytes {
        let bytes = self.0.as_ref().map_or(Bytes::new(), |queue| queue.front(most));
        self.release(bytes.len(), pool);
        bytes
    }
}

/// The bytes alone count, in whatever pieces they lie.
impl Hash for Rope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = vec![0; self.len()];
        self.peek(0, &mut bytes);
        bytes.hash(state);
    }
}

impl Holds for Rope {
    #[inline]
    fn held(&self) -> u64 {
        Rope::held(self) as u64
    }
}

impl Queue {
    #[cold]
    fn new() -> Box<Queue> {
        Box::new(Queue {
            start: 0,
            end: 0,
            inline: 0,
            chunks: Vec::new(),
            gone: 0,
            sent: 0,
            held: size_of::<Queue>(),
            small: [0; INLINE],
        })
    }

    /// Drops a queue. A separate function keeps the code of the drop off the hot path.
    #[cold]
    fn dismiss(_: Box<Queue>) {}

    fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Returns the bytes of the first piece, up to `most`.
    fn front(&self, most: usize) -> Bytes {
        let until = |len: usize, from: usize| from + (len - from).min(most);
        if self.start < self.inline {
            let (from, len) = (self.start as usize, self.inline as usize);
            return Bytes::copy_from_slice(&self.small[from..until(len, from)]);
        }
        let ends_later = |chunk: &&Chunk| chunk.at + chunk.bytes().len() as u64 > self.start;
        let Some(chunk) = self.chunks[self.gone..].iter().find(ends_later) else { return Bytes::new() };
        let from = (self.start - chunk.at) as usize;
        match &chunk.bulk {
            Bulk::Shared(bytes, _) | Bulk::Lent(bytes, _) => bytes.slice(from..until(bytes.len(), from)),
            Bulk::Own(bytes, _) => Bytes::copy_from_slice(&bytes[from..until(bytes.len(), from)]),
        }
    }

    /// Room in the last chunk.
    fn spare(&self) -> usize {
        match self.chunks.last() {
            Some(Chunk { bulk: Bulk::Own(last, _), .. }) => last.capacity() - last.len(),
            _ => 0,
        }
    }

    fn recount(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.bulk.held()).sum();
        size_of::<Queue>() + self.chunks.capacity() * size_of::<Chunk>() + chunks
    }

    /// Appends a copy: first into the last chunk's spare room, then in new chunks with room for at least `ahead` bytes.
    #[inline(never)]
    fn push_copy(&mut self, mut data: &[u8], ahead: usize, pool: &mut Pool) {
        if let Some(Chunk { bulk: Bulk::Own(last, _), .. }) = self.chunks.last_mut() {
            let (now, later) = data.split_at(data.len().min(last.capacity() - last.len()));
            last.extend_from_slice(now);
            self.end += now.len() as u64;
            data = later;
        }
        while !data.is_empty() {
            let mut buffer = pool.buffer(data.len().max(ahead));
            let (now, later) = data.split_at(data.len().min(buffer.capacity()));
            buffer.extend_from_slice(now);
            let held = buffer.capacity() as u32;
            self.push(Bulk::Own(buffer, held), now.len());
            data = later;
        }
    }

    fn push(&mut self, bulk: Bulk, len: usize) {
        // Before the list grows, reclaim the released slots, if there are enough to pay for moving the others.
        if self.chunks.len() == self.chunks.capacity() && self.gone >= self.chunks.len() / 2 {
            self.chunks.drain(..self.gone);
            self.gone = 0;
        }
        let (held, room) = (bulk.held(), self.chunks.capacity());
        self.chunks.push(Chunk { at: self.end, bulk });
        self.held += held + (self.chunks.capacity() - room) * size_of::<Chunk>();
        self.end += len as u64;
    }

    /// Releases the chunks before `start`. The queue is not empty, so the last chunk stays.
    #[inline(never)]
    fn give_back(&mut self, pool: &mut Pool) {
        while let Some([first, next]) = self.chunks.get_mut(self.gone..self.gone + 2)
            && next.at <= self.start
        {
            self.held -= first.bulk.held();
            pool.take_back(std::mem::replace(&mut first.bulk, Bulk::Shared(Bytes::new(), 0)));
            self.gone += 1;
        }
        if self.held > SPARSE * self.len() + LOOSE {
            self.collapse(pool);
        }
    }

    /// Releases all chunks.
    #[inline(never)]
    fn give_back_all(&mut self, pool: &mut Pool) {
        for chunk in self.chunks.drain(self.gone..) {
            self.held -= chunk.bulk.held();
            pool.take_back(chunk.bulk);
        }
        self.chunks.clear();
        self.gone = 0;
    }

    /// Moves the content into buffers of its size. Otherwise a peer that acknowledges all but one byte could make the
    /// stack hold a large buffer.
    #[cold]
    fn collapse(&mut self, pool: &mut Pool) {
        let mut old = std::mem::replace(self, *Queue::new());
        let small = &old.small[old.start.min(old.inline) as usize..old.inline as usize];
        self.append(small, pool);
        for chunk in &old.chunks[old.gone..] {
            self.append(&chunk.bytes()[old.start.saturating_sub(chunk.at) as usize..], pool);
        }
        old.give_back_all(pool);
    }

    /// Appends a copy: inline if there is room, else in the last chunk or in new ones.
    #[inline(always)]
    fn append(&mut self, data: &[u8], pool: &mut Pool) {
        let at = self.inline as usize;
        if self.end == self.inline
            && let Some(room) = self.small.get_mut(at..at + data.len())
        {
            room.copy_from_slice(data);
            self.inline += data.len() as u64;
            self.end = self.inline;
        } else if let Some(Chunk { bulk: Bulk::Own(last, _), .. }) = self.chunks.last_mut()
            && data.len() <= last.capacity() - last.len()
        {
            last.extend_from_slice(data);
            self.end += data.len() as u64;
        } else {
            self.push_copy(data, self.len(), pool);
        }
    }

    /// Appends slices of the bytes between two stream offsets to `slices`, unless they lie in too many places.
    fn share(&mut self, from: u64, to: u64, slices: &mut Vec<Bytes>) -> bool {
        self.lend(from, to);
        let chunks = self.chunks_from(from);
        let chunks = &chunks[..chunks.partition_point(|chunk| chunk.at < to)];
        if chunks.len() >= SLICES {
            return false;
        }
        if from < self.inline {
            slices.push(Bytes::copy_from_slice(&self.small[from as usize..to.min(self.inline) as usize]));
        }
        for Chunk { at, bulk } in chunks {
            let within = |len: usize| {
                let [from, to] = [from, to].map(|edge| (edge.saturating_sub(*at) as usize).min(len));
                from..to
            };
            let slice = match bulk {
                Bulk::Shared(bytes, _) | Bulk::Lent(bytes, _) => bytes.slice(within(bytes.len())),
                Bulk::Own(bytes, _) => Bytes::copy_from_slice(&bytes[within(bytes.len())]),
            };
            if !slice.is_empty() {
                slices.push(slice);
            }
        }
        true
    }

    /// Makes the own chunks between two stream offsets ones that can be shared, except small ones. The written part of the
    /// last one becomes a chunk of its own, so that the rest can still be filled.
    fn lend(&mut self, from: u64, to: u64) {
        let first = self.chunks.len() - self.chunks_from(from).len();
        for index in first..self.chunks.len() {
            let is_last = index + 1 == self.chunks.len();
            let Chunk { at, bulk } = &mut self.chunks[index];
            if *at >= to {
                return;
            }
            let Bulk::Own(buffer, held) = bulk else { continue };
            if buffer.len() < SMALL {
                continue;
            }
            let (written, held) = (buffer.split().freeze(), *held);
            if !is_last || buffer.capacity() == 0 {
                *bulk = Bulk::Lent(written, held);
                continue;
            }
            let rest = std::mem::replace(bulk, Bulk::Shared(written, 0));
            self.held -= held as usize;
            return self.push(rest, 0);
        }
    }

    /// Calls `copy` with each part of `dst` and the bytes for it, the first of them at `offset`.
    #[inline(always)]
    fn copy(&self, offset: usize, dst: &mut [u8], mut copy: impl FnMut(&mut [u8], &[u8])) {
        let from = self.start + offset as u64;
        let piece = if from + dst.len() as u64 <= self.inline {
            self.small.get(from as usize..from as usize + dst.len())
        } else {
            self.in_one_chunk(from, dst.len())
        };
        match piece {
            Some(bytes) => copy(dst, bytes),
            None => self.copy_pieces(from, dst, copy),
        }
    }

    /// Sets `sent` to the chunk that contains `from`.
    #[inline]
    fn go_to(&mut self, from: u64) {
        let is_there = || self.chunks.get(self.sent).is_some_and(|chunk| chunk.piece(from, 1).is_some());
        if from >= self.inline && !is_there() {
            self.sent = self.chunks.len() - self.chunks_from(from).len();
        }
    }

    /// Returns `len` bytes if they are all in one chunk, which is the usual case.
    #[inline]
    fn in_one_chunk(&self, from: u64, len: usize) -> Option<&[u8]> {
        let guess = self.chunks.get(self.sent).and_then(|chunk| chunk.piece(from, len));
        guess.or_else(|| self.chunks_from(from).first()?.piece(from, len))
    }

    /// Like `copy`, for bytes in several places.
    #[inline(never)]
    fn copy_pieces(&self, from: u64, mut dst: &mut [u8], mut copy: impl FnMut(&mut [u8], &[u8])) {
        let small = &self.small[from.min(self.inline) as usize..self.inline as usize];
        let chunks = self.chunks_from(from).iter();
        let chunks = chunks.map(|chunk| &chunk.bytes()[from.saturating_sub(chunk.at) as usize..]);
        for bytes in std::iter::once(small).chain(chunks) {
            let (now, later) = dst.split_at_mut(bytes.len().min(dst.len()));
            copy(now, &bytes[..now.len()]);
            if later.is_empty() {
                return;
            }
            dst = later;
        }
    }

    /// Returns the chunk that contains `from`, or else the first, and those after it. Uses bisection alone: after a
    /// retransmission the next read is far from the last one.
    #[inline(always)]
    fn chunks_from(&self, from: u64) -> &[Chunk] {
        let chunks = &self.chunks[self.gone..];
        &chunks[chunks.partition_point(|chunk| chunk.at <= from).saturating_sub(1)..]
    }
}

#[cfg(test)]
mod tests;

//! The queues of a connection: ropes of byte chunks that own nothing while they are empty.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::wire::checksum::Sum;

/// What is smaller is copied, so that the bookkeeping of a chunk is little against what it holds.
const SMALL: usize = 1024;
/// Small writes and payloads gather in chunks that grow up to this.
const CHUNK_MAX: usize = 64 * 1024;

#[derive(Clone, Debug)]
enum Chunk {
    /// Bytes copied in, with room for more.
    Own(Vec<u8>),
    /// Somebody else's buffer, held.
    Shared(Bytes),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Own(bytes) => bytes,
            Chunk::Shared(bytes) => bytes,
        }
    }
}

/// A queue of bytes: appended at the end, read anywhere, released at the front.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rope {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that are gone already.
    gone: usize,
    len: usize,
    /// Where the last read ended: the index of a chunk and the offset at which it begins. Reads go forward, so
    /// the next one begins there.
    cursor: (usize, usize),
}

impl Rope {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a copy.
    pub(crate) fn push_slice(&mut self, mut data: &[u8]) {
        self.len += data.len();
        if let Some(Chunk::Own(tail)) = self.chunks.back_mut() {
            let (now, later) = data.split_at(data.len().min(CHUNK_MAX.saturating_sub(tail.len())));
            tail.extend_from_slice(now);
            data = later;
        }
        self.chunks.extend(data.chunks(CHUNK_MAX).map(|piece| Chunk::Own(piece.to_vec())));
    }

    /// Appends without a copy, unless the copy is cheaper than holding on to a buffer.
    pub(crate) fn push_bytes(&mut self, data: Bytes) {
        if data.len() < SMALL {
            return self.push_slice(&data);
        }
        self.len += data.len();
        self.chunks.push_back(Chunk::Shared(data));
    }

    /// Appends a payload: a slice of the packet it came in where it fills most of it, else a copy, so that a
    /// one-byte segment never holds 64 KiB.
    pub(crate) fn push_payload(&mut self, payload: &[u8], packet: Option<&Bytes>) {
        match packet {
            Some(packet) if payload.len() >= SMALL && payload.len() * 2 >= packet.len() => {
                self.push_bytes(packet.slice_ref(payload));
            }
            _ => self.push_slice(payload),
        }
    }

    /// Drops `count` bytes at the front.
    pub(crate) fn release(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len -= count;
        self.gone += count;
        while let Some(first) = self.chunks.front() {
            let size = first.bytes().len();
            if self.gone < size {
                break;
            }
            self.gone -= size;
            self.chunks.pop_front();
        }
        self.cursor = (0, 0);
        if self.is_empty() {
            // What owns nothing holds nothing: an idle connection keeps no buffer.
            *self = Rope::default();
        }
    }

    /// Copies `dst.len()` bytes that begin at `offset` into `dst` and adds them to `sum`.
    pub(crate) fn copy_out(&mut self, offset: usize, dst: &mut [u8], sum: &mut Sum) {
        debug_assert!(offset + dst.len() <= self.len);
        let (mut dst, mut at) = (dst, offset + self.gone);
        let (mut index, mut start) = if at >= self.cursor.1 { self.cursor } else { (0, 0) };
        while let Some(chunk) = self.chunks.get(index) {
            let bytes = chunk.bytes();
            if at < start + bytes.len() {
                self.cursor = (index, start);
                let from = &bytes[at - start..];
                let count = from.len().min(dst.len());
                let (head, rest) = dst.split_at_mut(count);
                sum.copy_and_add(head, &from[..count]);
                (dst, at) = (rest, at + count);
                if dst.is_empty() {
                    break;
                }
            }
            start += bytes.len();
            index += 1;
        }
    }

    /// Copies up to `dst.len()` bytes from the front into `dst`, and says how many.
    pub(crate) fn peek(&self, dst: &mut [u8]) -> usize {
        let (mut copied, mut skip) = (0, self.gone);
        for chunk in &self.chunks {
            let bytes = &chunk.bytes()[skip..];
            skip = 0;
            let count = bytes.len().min(dst.len() - copied);
            dst[copied..copied + count].copy_from_slice(&bytes[..count]);
            copied += count;
            if copied == dst.len() {
                break;
            }
        }
        copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_rope_owns_no_buffer() {
        let mut rope = Rope::default();
        rope.push_slice(&[1; 100]);
        rope.push_bytes(Bytes::from_static(&[2; 2000]));
        rope.release(2100);
        assert_eq!((rope.chunks.capacity(), rope.len()), (0, 0));
    }

    #[test]
    fn a_small_payload_does_not_hold_a_large_packet() {
        let packet = Bytes::from(vec![7; 60_000]);
        let mut rope = Rope::default();
        rope.push_payload(&packet[..1], Some(&packet));
        assert!(packet.is_unique());
        rope.push_payload(&packet[..59_000], Some(&packet));
        assert!(!packet.is_unique());
    }

    proptest! {
        #[test]
        fn behaves_as_a_vector_would(
            steps in proptest::collection::vec((0u8..4, 0usize..9000, any::<u8>()), 1..60),
        ) {
            let (mut rope, mut oracle) = (Rope::default(), Vec::new());
            for (what, size, seed) in steps {
                let data: Vec<u8> = (0..size).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
                match what {
                    0 => { rope.push_slice(&data); oracle.extend_from_slice(&data); }
                    1 => { oracle.extend_from_slice(&data); rope.push_bytes(Bytes::from(data)); }
                    2 => { let n = size.min(oracle.len()); rope.release(n); oracle.drain(..n); }
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
                prop_assert_eq!(rope.peek(&mut all), oracle.len());
                prop_assert_eq!(&all[..oracle.len()], &oracle[..]);
            }
        }
    }
}

//! Buffers that the relays of a thread read into. A fresh one for each read would cost the kernel its pages anew.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// Bytes that a buffer holds.
pub(super) const SIZE: usize = 64 << 10;

/// Buffers that are kept for reuse.
const SPARE: usize = 32;

thread_local! {
    /// Buffers, some with their readers. A buffer is free once nobody else has it.
    static LENT: RefCell<Vec<Bytes>> = const { RefCell::new(Vec::new()) };
}

/// Returns an empty buffer, preferably one that was used.
pub(super) fn take() -> BytesMut {
    let used = LENT.with_borrow_mut(|lent| {
        let free = lent.iter().rposition(Bytes::is_unique)?;
        lent.swap_remove(free).try_into_mut().ok()
    });
    let mut buffer = used.unwrap_or_else(|| BytesMut::with_capacity(SIZE));
    buffer.clear();
    buffer
}

/// Returns the bytes in a buffer. Less than half a buffer of them is copied, so that none is held for a few.
pub(super) fn lend(buffer: BytesMut) -> Bytes {
    let whole = buffer.freeze();
    let bytes = if whole.len() < SIZE / 2 { Bytes::copy_from_slice(&whole) } else { whole.clone() };
    LENT.with_borrow_mut(|lent| {
        if lent.len() < SPARE {
            lent.push(whole);
        }
    });
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(len: usize) -> Bytes {
        let mut buffer = take();
        assert!(buffer.is_empty() && buffer.capacity() >= SIZE);
        buffer.resize(len, 7);
        lend(buffer)
    }

    #[test]
    fn a_buffer_is_used_again_once_its_bytes_are_gone() {
        let first = filled(SIZE);
        let second = filled(SIZE);
        assert_ne!(first.as_ptr(), second.as_ptr());
        let place = first.as_ptr();
        drop(first);
        assert_eq!(filled(SIZE).as_ptr(), place);
        assert_eq!(second.len(), SIZE);
    }

    #[test]
    fn few_bytes_hold_no_buffer() {
        let small = filled(SIZE / 2 - 1);
        let large = filled(SIZE / 2);
        assert_ne!(small.as_ptr(), large.as_ptr());
        drop((small, large));
        // One buffer has served both.
        assert_eq!(LENT.with_borrow(Vec::len), 1);
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let held: Vec<Bytes> = (0..SPARE + 5).map(|_| filled(SIZE)).collect();
        assert_eq!(LENT.with_borrow(Vec::len), SPARE);
        assert!(held.iter().all(|bytes| bytes.iter().all(|byte| *byte == 7)));
    }
}

//! Packets on their way: a ring of reused frames.

/// Frames of one direction, oldest first.
pub(crate) struct Wire {
    frames: Vec<Vec<u8>>,
    lens: Vec<usize>,
    first: usize,
    count: usize,
}

impl Wire {
    /// Creates a wire for `capacity` packets of up to `size` bytes.
    pub(crate) fn new(capacity: usize, size: usize) -> Wire {
        Wire { frames: vec![vec![0; size]; capacity], lens: vec![0; capacity], first: 0, count: 0 }
    }

    /// Returns whether no other packet fits.
    pub(crate) fn is_full(&self) -> bool {
        self.count == self.frames.len()
    }

    /// Lets `fill` write the next packet and return its length, or `None` if it has none. Returns whether a packet was
    /// added.
    pub(crate) fn push(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        if self.is_full() {
            return false;
        }
        let at = self.wrap(self.first + self.count);
        let Some(len) = fill(&mut self.frames[at]) else { return false };
        self.lens[at] = len;
        self.count += 1;
        true
    }

    /// Removes and returns the oldest packet.
    pub(crate) fn pop(&mut self) -> Option<&[u8]> {
        if self.count == 0 {
            return None;
        }
        let at = self.first;
        self.first = self.wrap(at + 1);
        self.count -= 1;
        Some(&self.frames[at][..self.lens[at]])
    }

    /// Wraps an index without a division, which would show in the figure of a round trip.
    fn wrap(&self, at: usize) -> usize {
        if at >= self.frames.len() { at - self.frames.len() } else { at }
    }
}

//! Packets on their way: a ring of frames that are used again and again.

/// Frames of one direction, oldest first.
pub(crate) struct Wire {
    frames: Vec<Vec<u8>>,
    lens: Vec<usize>,
    first: usize,
    count: usize,
}

impl Wire {
    /// Room for `capacity` packets of up to `size` bytes.
    pub(crate) fn new(capacity: usize, size: usize) -> Wire {
        Wire { frames: vec![vec![0; size]; capacity], lens: vec![0; capacity], first: 0, count: 0 }
    }

    /// No packet more fits.
    pub(crate) fn is_full(&self) -> bool {
        self.count == self.frames.len()
    }

    /// Lets `fill` write the next packet and say how long it is; `None`: it has none.
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

    /// The oldest packet.
    pub(crate) fn pop(&mut self) -> Option<&[u8]> {
        if self.count == 0 {
            return None;
        }
        let at = self.first;
        self.first = self.wrap(at + 1);
        self.count -= 1;
        Some(&self.frames[at][..self.lens[at]])
    }

    /// Without a division, which would be a twentieth of a round trip.
    fn wrap(&self, at: usize) -> usize {
        if at >= self.frames.len() { at - self.frames.len() } else { at }
    }
}

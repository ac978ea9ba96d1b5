//! A sliding window over a source. It grows by what arrives, never by what a file declares.

use std::io::{self, Read};

/// Bytes that one read asks for.
const STEP: usize = 256 * 1024;

pub(crate) struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset of `start` in the file.
    offset: u64,
    ended: bool,
}

impl<R: Read> Window<R> {
    pub(crate) fn new(source: R) -> Window<R> {
        Window { source, buffer: Vec::new(), start: 0, end: 0, offset: 0, ended: false }
    }

    pub(crate) fn source(&mut self) -> &mut R {
        &mut self.source
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes that are present.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Reads until `len` bytes are present or the source ends. Returns whether they are.
    #[inline]
    pub(crate) fn need(&mut self, len: usize) -> io::Result<bool> {
        if self.end - self.start >= len { Ok(true) } else { self.fill(len) }
    }

    fn fill(&mut self, len: usize) -> io::Result<bool> {
        while self.end - self.start < len && !self.ended {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.buffer.len() < self.end + STEP {
                self.buffer.resize(self.end + STEP, 0);
            }
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.end - self.start >= len)
    }

    /// Drops the first `len` bytes, which are present.
    #[inline]
    pub(crate) fn advance(&mut self, len: usize) {
        let len = len.min(self.end - self.start);
        self.start += len;
        self.offset += len as u64;
    }

    /// Splits the window: returns the first `len` bytes and drops them.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> &[u8] {
        let len = len.min(self.end - self.start);
        let from = self.start;
        self.start += len;
        self.offset += len as u64;
        &self.buffer[from..from + len]
    }
}

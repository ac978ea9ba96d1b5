//! The bytes that applications write and read. Every connection and direction has its own pattern, so that bytes of
//! another one, of another place, or sent twice are noticed.

use std::net::SocketAddr;

/// Everything that was written in a run.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Streams {
    all: Vec<Stream>,
}

/// The bytes that one end of a connection writes.
#[derive(Clone, Copy, Debug, Hash)]
struct Stream {
    from: SocketAddr,
    to: SocketAddr,
    written: u64,
    /// Its writer has closed it in good order.
    ended: bool,
    /// Somebody reads it.
    read: bool,
}

/// The byte at a place of a stream.
fn byte(stream: usize, place: u64) -> u8 {
    (stream as u8).wrapping_mul(29).wrapping_add(place as u8).wrapping_add((place >> 8) as u8).wrapping_mul(5)
}

impl Streams {
    pub(crate) fn open(&mut self, from: SocketAddr, to: SocketAddr) -> usize {
        self.all.push(Stream { from, to, written: 0, ended: false, read: false });
        self.all.len() - 1
    }

    /// The next bytes of a stream, which a call may take or not.
    pub(crate) fn next(&self, stream: usize, len: usize) -> Vec<u8> {
        let start = self.all[stream].written;
        (start..start + len as u64).map(|place| byte(stream, place)).collect()
    }

    pub(crate) fn wrote(&mut self, stream: usize, len: usize) {
        self.all[stream].written += len as u64;
    }

    pub(crate) fn end(&mut self, stream: usize) {
        self.all[stream].ended = true;
    }

    /// The stream that begins with `first`, or that is empty: the newest of this tuple that nobody reads.
    fn find(&mut self, from: SocketAddr, to: SocketAddr, first: Option<u8>) -> Option<usize> {
        let fits = |(index, stream): &(usize, &mut Stream)| {
            !stream.read
                && (stream.from, stream.to) == (from, to)
                && match first {
                    Some(first) => stream.written > 0 && byte(*index, 0) == first,
                    None => stream.written == 0 && stream.ended,
                }
        };
        let (index, stream) = self.all.iter_mut().enumerate().rev().find(fits)?;
        stream.read = true;
        Some(index)
    }

    /// An application has read `data` from a place on. `stream` is what it reads, once it is known.
    pub(crate) fn check_read(
        &mut self,
        stream: &mut Option<usize>,
        ends: (SocketAddr, SocketAddr),
        place: u64,
        data: &[u8],
    ) -> Result<(), String> {
        let index = match *stream {
            Some(index) => index,
            None => self
                .find(ends.0, ends.1, data.first().copied())
                .ok_or_else(|| format!("read {} bytes that nobody sent", data.len()))?,
        };
        *stream = Some(index);
        let written = self.all[index].written;
        if place + data.len() as u64 > written {
            return Err(format!("read {} bytes, but {written} were sent", place + data.len() as u64));
        }
        let wrong = data.iter().zip(place..).position(|(read, place)| *read != byte(index, place));
        wrong.map_or(Ok(()), |at| Err(format!("byte {} is not what was sent", place + at as u64)))
    }

    /// An application has read the end of a stream, after `read` bytes.
    pub(crate) fn check_end(
        &mut self,
        stream: &mut Option<usize>,
        ends: (SocketAddr, SocketAddr),
        read: u64,
    ) -> Result<(), String> {
        let Some(index) = stream.or_else(|| self.find(ends.0, ends.1, None)) else {
            return Err("read the end of a stream that nobody ended".to_owned());
        };
        *stream = Some(index);
        let Stream { written, ended, .. } = self.all[index];
        if ended && read == written {
            return Ok(());
        }
        let how = if ended { "" } else { ", and it was not ended" };
        Err(format!("read the end of the stream after {read} of {written} bytes{how}"))
    }
}

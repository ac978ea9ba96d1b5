//! What applications send to each other, and whether it arrives.
//!
//! Each direction of each connection has a content of its own, so that bytes of one connection that turn up in
//! another are noticed. The content is a slice of one fixed block: nothing is generated per byte, and ten
//! gigabytes cost a comparison each.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::SocketAddr;
use std::sync::OnceLock;

use bytes::Bytes;
use steadfast_core::Instant;

use crate::rng::Rng;

/// A `HashMap` whose order does not depend on the system's randomness.
pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<std::hash::DefaultHasher>>;

/// Prime, so that no offset of the block repeats within any power of two.
const PERIOD: usize = 1_048_573;

/// The longest piece of content that can be had at once.
pub(crate) const PIECE: usize = 262_144;

/// What content consists of. Nothing that a dissector of captures could take for a protocol, and lines, so that
/// none waits for the end of one.
const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567\n\n\n\n";

fn block() -> &'static Bytes {
    static BLOCK: OnceLock<Bytes> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let mut rng = Rng::new(0x5eed);
        let random = std::iter::repeat_with(|| rng.next().to_le_bytes()).flatten();
        let letter = |byte: u8| LETTERS[usize::from(byte) % LETTERS.len()];
        let mut bytes: Vec<u8> = random.map(letter).take(PERIOD).collect();
        bytes.extend_from_within(..PIECE);
        bytes.into()
    })
}

/// Up to [`PIECE`] bytes of a content.
pub(crate) fn content(id: u64, offset: u64, len: u64) -> Bytes {
    let start = (id.wrapping_mul(7919) % PERIOD as u64 + offset % PERIOD as u64) as usize % PERIOD;
    block().slice(start..start + (len as usize).min(PIECE))
}

/// One direction of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// Who writes it.
    pub(crate) host: usize,
    /// Since when.
    opened: Instant,
    /// Which content it carries: its own, or of the stream that it passes on.
    pub(crate) content: u64,
    /// Bytes that the writer's stack took.
    pub(crate) written: u64,
    /// The writer ended it in good order.
    pub(crate) ended: bool,
    /// The writer aborted, crashed or was told of an error.
    pub(crate) broken: bool,
    /// Bytes that the reader got.
    pub(crate) read: u64,
    /// What the reader knows of the end.
    pub(crate) reader: Reader,
}

/// What the reader of a stream knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// There is none (yet).
    Nobody,
    /// It reads.
    Reading,
    /// It read the end of the stream.
    Eof,
    /// It was told of an error.
    Error,
    /// It stopped reading, closed or crashed.
    Quit,
}

/// All streams of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams {
    all: Vec<Stream>,
    /// The streams of a tuple, from the writer's end to the reader's.
    by_tuple: Map<(SocketAddr, SocketAddr), Vec<usize>>,
}

impl Streams {
    pub(crate) fn open(&mut self, now: Instant, host: usize, from: SocketAddr, to: SocketAddr) -> usize {
        let index = self.all.len();
        self.all.push(Stream {
            host,
            opened: now,
            content: index as u64 + 1,
            written: 0,
            ended: false,
            broken: false,
            read: 0,
            reader: Reader::Nobody,
        });
        self.by_tuple.entry((from, to)).or_default().push(index);
        index
    }

    /// The stream that a socket which opened the connection reads, whose own is `own`: the youngest from the other
    /// end. An older one than its own is that of an incarnation before, unless nobody had to do with it yet: both
    /// ends opened (N5).
    pub(crate) fn answering(&self, from: SocketAddr, to: SocketAddr, own: usize) -> Option<usize> {
        let last = *self.by_tuple.get(&(from, to))?.last()?;
        let fresh = self.all[last].reader == Reader::Nobody && !self.all[last].broken;
        (last > own || fresh).then_some(last)
    }

    /// The stream that a socket reads whose connection the other end opened, and which came to be at `born`: a younger
    /// one is that of the next incarnation, though the application took this one only now (T4c). A writer that was
    /// gone before it wrote anything has left the half-open connection to the next, with the same ISS (H7c).
    pub(crate) fn asking(&self, from: SocketAddr, to: SocketAddr, born: Instant) -> Option<usize> {
        let all = self.by_tuple.get(&(from, to))?;
        let silent = |index: &usize| self.all[*index].broken && self.all[*index].written == 0;
        let own = all.iter().rev().copied().find(|index| self.all[*index].opened <= born);
        own.filter(|index| !silent(index)).or_else(|| all.last().copied())
    }

    /// The stream that an end writes at present.
    pub(crate) fn latest(&self, from: SocketAddr, to: SocketAddr) -> Option<usize> {
        self.by_tuple.get(&(from, to))?.last().copied()
    }

    pub(crate) fn get(&self, index: usize) -> &Stream {
        &self.all[index]
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> &mut Stream {
        &mut self.all[index]
    }

    /// The next bytes to write.
    pub(crate) fn next_content(&self, index: usize, len: u64) -> Bytes {
        let stream = &self.all[index];
        content(stream.content, stream.written, len)
    }

    /// Takes note of bytes that were read; says what is wrong with them.
    pub(crate) fn delivered(&mut self, index: usize, data: &[u8]) -> Result<(), String> {
        let stream = &mut self.all[index];
        let start = stream.read;
        stream.read += data.len() as u64;
        if stream.read > stream.written {
            return Err(format!("read {} bytes of a stream of {}", stream.read, stream.written));
        }
        let mut offset = start;
        for piece in data.chunks(PIECE) {
            let wanted = content(stream.content, offset, piece.len() as u64);
            if wanted != *piece {
                let at = wanted.iter().zip(piece).take_while(|(a, b)| a == b).count() as u64;
                return Err(format!("byte {} of the stream is not what was sent", offset + at));
            }
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// The reader saw the end of the stream; says what is wrong with that.
    pub(crate) fn eof(&mut self, index: usize) -> Result<(), String> {
        let stream = &mut self.all[index];
        stream.reader = Reader::Eof;
        if !stream.ended {
            return Err("end of stream, but the sender did not end it".to_owned());
        }
        if stream.read != stream.written {
            return Err(format!("end of stream after {} of {} bytes", stream.read, stream.written));
        }
        Ok(())
    }

    /// Streams that were cut short without a word: the writer thinks all is well, the reader waits no more and was
    /// told nothing.
    pub(crate) fn silent_losses(&self) -> Vec<String> {
        let lost = |s: &&Stream| {
            s.ended && !s.broken && s.read < s.written && matches!(s.reader, Reader::Reading | Reader::Eof)
        };
        let text = |s: &Stream| format!("{} of {} bytes arrived, and nobody was told", s.read, s.written);
        self.all.iter().filter(lost).map(text).collect()
    }

    /// A host lost all its memory: its streams end there.
    pub(crate) fn crash(&mut self, host: usize, reads: impl Iterator<Item = usize>) {
        self.all.iter_mut().filter(|s| s.host == host).for_each(|s| s.broken = true);
        for index in reads {
            self.all[index].reader = Reader::Quit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (SocketAddr, SocketAddr) {
        (SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([10, 0, 0, 2], 2)))
    }

    #[test]
    fn content_is_one_sequence_however_it_is_cut() {
        let whole = content(3, 0, 100_000);
        let pieces: Vec<u8> = (0..100).flat_map(|i| content(3, i * 1000, 1000).to_vec()).collect();
        assert_eq!(whole, pieces);
        assert_ne!(content(3, 0, 64), content(4, 0, 64));
        assert_eq!(content(9, PERIOD as u64 * 5 + 7, 64), content(9, 7, 64));
    }

    #[test]
    fn a_wrong_byte_a_byte_too_many_and_an_early_end_are_noticed() {
        let (a, b) = ends();
        let mut streams = Streams::default();
        let index = streams.open(Instant::ZERO, 0, a, b);
        streams.get_mut(index).written = 100;
        let right = content(index as u64 + 1, 0, 100);
        assert_eq!(streams.delivered(index, &right[..50]), Ok(()));
        let mut wrong = right[50..60].to_vec();
        wrong[3] ^= 1;
        assert!(streams.delivered(index, &wrong).unwrap_err().contains("byte 53"));
        assert!(streams.eof(index).unwrap_err().contains("did not end"));
        streams.get_mut(index).ended = true;
        assert!(streams.eof(index).unwrap_err().contains("after 60 of 100"));
        assert!(
            streams.delivered(index, &right[..41]).unwrap_err().contains("read 101 bytes of a stream of 100")
        );
    }

    #[test]
    fn a_stream_cut_short_without_a_word_is_a_loss() {
        let (a, b) = ends();
        let mut streams = Streams::default();
        let index = streams.open(Instant::ZERO, 0, a, b);
        let stream = streams.get_mut(index);
        (stream.written, stream.ended, stream.reader) = (10, true, Reader::Reading);
        assert_eq!(streams.silent_losses().len(), 1);
        streams.get_mut(index).reader = Reader::Error;
        assert!(streams.silent_losses().is_empty());
    }

    #[test]
    fn a_reader_does_not_take_a_stream_older_than_itself() {
        let (a, b) = ends();
        let mut streams = Streams::default();
        let old = streams.open(Instant::ZERO, 1, b, a);
        let own = streams.open(Instant::ZERO, 0, a, b);
        assert_eq!(streams.answering(b, a, own), Some(old), "both ends opened");
        streams.get_mut(old).reader = Reader::Quit;
        assert_eq!(streams.answering(b, a, own), None);
        let young = streams.open(Instant::from_secs(1), 1, b, a);
        assert_eq!(streams.answering(b, a, own), Some(young));
        assert_eq!(streams.latest(b, a), Some(young));
    }

    #[test]
    fn a_connection_accepted_late_reads_the_stream_of_its_own_time_t4c() {
        let (a, b) = ends();
        let mut streams = Streams::default();
        let first = streams.open(Instant::ZERO, 0, a, b);
        let second = streams.open(Instant::from_secs(5), 0, a, b);
        assert_eq!(streams.asking(a, b, Instant::from_secs(4)), Some(first));
        assert_eq!(streams.asking(a, b, Instant::from_secs(5)), Some(second));
    }
}

//! The relay: two streams, each of which carries on the other's life.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::options::TcpKeepalive;

pub use self::ends::Layered;

mod buffers;
mod ends;

/// A wait for the reset of a stream: see [`RelayEnd::reset`].
pub type Reset = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream at one end of a [`relay`].
///
/// [`TcpStream`](crate::TcpStream) and `tokio::net::TcpStream` carry resets in both directions. `tokio::net::UnixStream`
/// and `tokio::io::DuplexStream` have none: an abort drops them. [`Layered`] makes an end of a stream over another one,
/// such as TLS.
pub trait RelayEnd: AsyncRead + AsyncWrite + Unpin + Send + Sized {
    /// Returns a future that resolves once the peer has reset the connection. It is needed while nothing is read, since
    /// the end was read or the other side takes nothing. Otherwise an error of a read tells. The default never resolves.
    fn reset(&self) -> Reset {
        Box::pin(pending())
    }

    /// Resets the connection: the peer must not take what it has read for everything.
    fn abort(self);

    /// Resets the connection once what was written is acknowledged, or after `limit`. It does not wait itself. The
    /// default resets at once.
    fn abort_after_drain(self, limit: Duration) {
        let _ = limit;
        self.abort();
    }

    /// Reads up to `most` bytes, more than 0. No bytes: the end of the stream. The default reads by
    /// [`AsyncRead`], into buffers that the relays of a thread share.
    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
        let mut buffer = buffers::take();
        let read = pin!(self.read_buf(&mut (&mut buffer).limit(most.min(buffers::SIZE)))).poll(cx);
        // Without bytes the buffer goes back.
        let bytes = buffers::lend(buffer);
        read.map_ok(|_| bytes)
    }

    /// Writes bytes from the front of `data`, and takes out what was written. Returns their number. The default writes by
    /// [`AsyncWrite`], with one call for many pieces where it takes them.
    fn poll_write_bytes(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>> {
        /// As many as the standard library hands to a call.
        const PIECES: usize = 64;
        let first = data.front().map_or(&[][..], |bytes| bytes);
        let written = if self.is_write_vectored() && data.len() > 1 {
            let pieces: Vec<_> = data.iter().take(PIECES).map(|bytes| IoSlice::new(bytes)).collect();
            ready!(Pin::new(self).poll_write_vectored(cx, &pieces))?
        } else {
            ready!(Pin::new(self).poll_write(cx, first))?
        };
        let mut rest = written;
        while let Some(bytes) = data.front_mut() {
            if rest < bytes.len() {
                bytes.advance(rest);
                break;
            }
            rest -= bytes.len();
            data.pop_front();
        }
        Poll::Ready(Ok(written))
    }

    /// Lets the end probe whether its peer is there, while nothing is sent. The default does nothing.
    fn probe(&self, keepalive: &TcpKeepalive) {
        let _ = keepalive;
    }
}

/// Limits of a [`relay`].
///
/// ```
/// use std::time::Duration;
///
/// use steadfast::RelayConfig;
///
/// let config = RelayConfig::default().with(|config| config.idle = Some(Duration::from_secs(7440)));
/// assert_eq!(config.buffer, 64 << 10);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayConfig {
    /// Bytes that each direction holds at most: 64 KiB. They take memory only while they are in hand: at most twice as much,
    /// and the packet that the last of them came with.
    pub buffer: usize,
    /// Time without a byte in either direction after which both ends are reset. `None`, the default: no limit.
    pub idle: Option<Duration>,
    /// The same once one direction has ended. `None`, the default: both ends are probed instead.
    pub half_closed_idle: Option<Duration>,
    /// Time without a byte after which a half-closed relay probes its ends: 65 s, and up to 5 s more. That is longer than
    /// a kernel keeps a closed connection in FIN-WAIT-2. An end whose program waits for the answer answers the probe, and
    /// one that is closed resets the connection.
    pub half_closed_probe: Duration,
    /// Time to deliver what one end had sent before it was reset: 2 s.
    pub drain: Duration,
}

impl Default for RelayConfig {
    fn default() -> RelayConfig {
        RelayConfig {
            buffer: 64 << 10,
            idle: None,
            half_closed_idle: None,
            half_closed_probe: Duration::from_secs(65),
            drain: Duration::from_secs(2),
        }
    }
}

impl RelayConfig {
    /// Returns the configuration after a change.
    pub fn with(mut self, change: impl FnOnce(&mut RelayConfig)) -> RelayConfig {
        change(&mut self);
        self
    }
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first argument of [`relay`].
    A,
    /// The second one.
    B,
}

/// How a relay ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum End {
    /// Both directions came to their end, in good order.
    Finished,
    /// One end was reset by its peer. The other one was reset, after the data before it.
    Reset {
        /// The end whose peer did it.
        by: Side,
    },
    /// One end failed in another way, such as a timeout. The other one was reset.
    Failed {
        /// The end that failed.
        side: Side,
        /// Its error.
        error: io::Error,
    },
    /// [`RelayConfig::idle`] passed. Both ends were reset.
    Idle,
    /// [`RelayConfig::half_closed_idle`] passed. Both ends were reset.
    HalfClosedIdle,
}

/// One direction of a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Direction {
    /// Bytes that were read from one end and written to the other.
    pub bytes: u64,
    /// Bytes that were read, and not written because the other end did not take them.
    pub lost: u64,
    /// The time from the beginning to the first byte.
    pub first: Option<Duration>,
    /// The time from the beginning to the end of the stream.
    pub eof: Option<Duration>,
}

/// The report of a relay.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// From the first end to the second one.
    pub a_to_b: Direction,
    /// From the second end to the first one.
    pub b_to_a: Direction,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub end: End,
}

/// Relays between two streams until both directions have ended.
///
/// - The end of one stream becomes the end of the other, after all data. The other direction stays open for as long as
///   its peer is there: see [`RelayConfig::half_closed_probe`].
/// - A reset of one end becomes a reset of the other, after the data that came before it. So does any other error.
/// - An end that does not read slows the other one down: no more than [`RelayConfig::buffer`] bytes of each direction
///   are held here.
///
/// # Cancel safety
///
/// Dropping the future resets both ends, since neither must take what it has for everything.
///
/// ```
/// use steadfast::{RelayConfig, relay};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let ((mut client, near), (far, mut server)) = (duplex(64), duplex(64));
/// let relayed = tokio::spawn(async { relay(near, far, &RelayConfig::default()).await });
/// client.write_all(b"hold").await?;
/// client.shutdown().await?;
///
/// let mut text = String::new();
/// server.read_to_string(&mut text).await?;
/// // The answer comes after the end of the question.
/// server.write_all(b"fast").await?;
/// drop(server);
/// client.read_to_string(&mut text).await?;
/// assert_eq!(text, "holdfast");
/// let report = relayed.await?;
/// assert_eq!((report.a_to_b.bytes, report.b_to_a.bytes), (4, 4));
/// # Ok(())
/// # }
/// ```
pub async fn relay<A: RelayEnd, B: RelayEnd>(a: A, b: B, config: &RelayConfig) -> Report {
    let began = Instant::now();
    let mut relay = Relay {
        a: Some(a),
        b: Some(b),
        config,
        began,
        moved: began,
        up: Way::default(),
        down: Way::default(),
        reset_of_a: None,
        reset_of_b: None,
        failed: None,
        alarm: None,
    };
    let end = poll_fn(|cx| relay.poll(cx)).await;
    relay.finish(end)
}

struct Relay<'a, A: RelayEnd, B: RelayEnd> {
    /// Present until the relay has ended.
    a: Option<A>,
    b: Option<B>,
    config: &'a RelayConfig,
    began: Instant,
    /// When the last byte or end was moved.
    moved: Instant,
    /// From `a` to `b`, and from `b` to `a`.
    up: Way,
    down: Way,
    /// Present once a direction has ended or been held up.
    reset_of_a: Option<Reset>,
    reset_of_b: Option<Reset>,
    failed: Option<Failure>,
    /// Exists once there is something to wait for.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// The first probes of relays whose ends were closed together are spread over this time. A host limits the RSTs that answer
/// them.
const SPREAD: Duration = Duration::from_secs(5);

/// A random number from 0 to 1.
fn fraction() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(random as u32) / f64::from(u32::MAX)
}

/// An end has failed. Its data from before is still delivered, until then.
struct Failure {
    side: Side,
    error: io::Error,
    until: Instant,
}

/// The end that failed a step of a way.
enum Fault {
    Reading(io::Error),
    Writing(io::Error),
}

/// One direction.
#[derive(Default)]
struct Way {
    /// The bytes in hand: they were read, and not written.
    pieces: VecDeque<Bytes>,
    held: usize,
    /// Bytes were written since the last flush.
    written: bool,
    /// The end of the stream was read, or an error.
    read: bool,
    /// It was an error.
    broken: bool,
    /// A write has taken the error that stands at the end of this stream.
    torn: bool,
    /// The end was passed on, or cannot be.
    over: bool,
    seen: Direction,
}

impl Way {
    /// Moves what can be moved. Returns whether anything was.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut impl RelayEnd,
        writer: &mut impl RelayEnd,
        size: usize,
        began: Instant,
    ) -> Result<bool, Fault> {
        let mut moved = false;
        while !self.over {
            if self.held > 0 {
                match writer.poll_write_bytes(cx, &mut self.pieces).map_err(Fault::Writing)? {
                    Poll::Pending => break,
                    Poll::Ready(0) => return Err(Fault::Writing(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(len) => {
                        self.held -= len;
                        self.seen.bytes += len as u64;
                        (self.written, moved) = (true, true);
                    }
                }
            } else if self.broken {
                // The stream is not whole: its end must not look like one.
                break;
            } else if self.read {
                if Pin::new(&mut *writer).poll_shutdown(cx).map_err(Fault::Writing)?.is_pending() {
                    break;
                }
                (self.over, moved) = (true, true);
            } else if !self.poll_fill(cx, reader, size, began)? {
                if self.written && Pin::new(&mut *writer).poll_flush(cx).map_err(Fault::Writing)?.is_ready() {
                    self.written = false;
                }
                break;
            }
        }
        if self.held == 0 {
            // An idle relay holds no list either.
            self.pieces = VecDeque::new();
        }
        Ok(moved)
    }

    /// Reads until nothing more has arrived, or as much as may be held. Returns false if there was nothing.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut impl RelayEnd,
        size: usize,
        began: Instant,
    ) -> Result<bool, Fault> {
        let size = size.max(1);
        while self.held < size {
            match reader.poll_read_bytes(cx, size - self.held) {
                Poll::Pending => return Ok(self.held > 0),
                Poll::Ready(Ok(bytes)) if bytes.is_empty() => {
                    (self.read, self.broken) = (true, self.torn);
                    self.seen.eof = (!self.torn).then(|| began.elapsed());
                    break;
                }
                Poll::Ready(Ok(bytes)) => {
                    self.held += bytes.len();
                    self.pieces.push_back(bytes);
                    self.seen.first.get_or_insert_with(|| began.elapsed());
                }
                Poll::Ready(Err(error)) => {
                    (self.read, self.broken) = (true, true);
                    return Err(Fault::Reading(error));
                }
            }
        }
        Ok(true)
    }

    /// A write to the stream that this way reads has failed. An error is told once: the read that follows finds the end of
    /// the stream instead, which must not look like one. EPIPE is that of a stream whose end had come before.
    fn note_failed_write(&mut self, error: &io::Error) {
        self.torn |= error.kind() != io::ErrorKind::BrokenPipe;
    }

    /// Returns whether nothing is read now, so that no read tells of a reset.
    fn is_held_up(&self) -> bool {
        self.read || self.held > 0
    }

    /// Returns what it did.
    fn seen(&self) -> Direction {
        Direction { lost: self.held as u64, ..self.seen }
    }
}

impl<A: RelayEnd, B: RelayEnd> Relay<'_, A, B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let half_closed = self.is_half_closed();
            if let Poll::Ready(end) = self.poll_ways(cx) {
                return Poll::Ready(end);
            }
            self.note_half_closed(half_closed);
            if self.poll_resets(cx) {
                continue;
            }
            match self.poll_alarm(cx) {
                Poll::Pending => return Poll::Pending,
                // The data before the failure is late.
                Poll::Ready(()) if self.failed.is_some() => {}
                Poll::Ready(()) if self.is_half_closed() => return Poll::Ready(End::HalfClosedIdle),
                Poll::Ready(()) => return Poll::Ready(End::Idle),
            }
        }
    }

    /// Moves bytes. Ready once nothing more is to be moved.
    fn poll_ways(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let (Some(a), Some(b)) = (&mut self.a, &mut self.b) else { return Poll::Ready(End::Finished) };
        let (size, began) = (self.config.buffer, self.began);
        let failed = self.failed.as_ref().map(|failure| failure.side);
        let mut moved = false;
        let (mut fault, mut broken) = (None, false);
        if failed != Some(Side::B) {
            match self.up.poll(cx, a, b, size, began) {
                Ok(some) => moved |= some,
                Err(Fault::Reading(error)) => (fault, broken) = (Some((Side::A, error)), true),
                Err(Fault::Writing(error)) => {
                    self.down.note_failed_write(&error);
                    fault = Some((Side::B, error));
                }
            }
        }
        if failed != Some(Side::A) && fault.is_none() {
            match self.down.poll(cx, b, a, size, began) {
                Ok(some) => moved |= some,
                Err(Fault::Reading(error)) => (fault, broken) = (Some((Side::B, error)), true),
                Err(Fault::Writing(error)) => {
                    self.up.note_failed_write(&error);
                    fault = Some((Side::A, error));
                }
            }
        }
        if moved {
            self.moved = Instant::now();
        }
        match (&self.failed, fault) {
            (None, None) if self.up.over && self.down.over => Poll::Ready(End::Finished),
            (None, None) => Poll::Pending,
            (None, Some((side, error))) => {
                self.fail(side, error);
                // The other end may hold the task's only wake-up.
                self.poll_ways(cx)
            }
            (Some(failure), fault) => {
                let way = if failure.side == Side::A { &self.up } else { &self.down };
                let late = failure.until <= Instant::now();
                if broken && way.held > 0 && !late {
                    // The bytes before the error are still to be written. It is read once.
                    return self.poll_ways(cx);
                }
                if fault.is_some() || late || way.over || way.read && way.held == 0 {
                    return Poll::Ready(self.end_of_failure());
                }
                Poll::Pending
            }
        }
    }

    /// One end has failed. From now on only its way to the other end is of interest.
    fn fail(&mut self, side: Side, error: io::Error) {
        (self.reset_of_a, self.reset_of_b) = (None, None);
        self.failed = Some(Failure { side, error, until: Instant::now() + self.config.drain });
    }

    fn end_of_failure(&mut self) -> End {
        match self.failed.take() {
            Some(Failure { side, error, .. }) if is_reset(&error) => End::Reset { by: side },
            Some(Failure { side, error, .. }) => End::Failed { side, error },
            None => End::Finished,
        }
    }

    /// A direction has ended: the other one is kept for as long as its peers are there.
    fn note_half_closed(&mut self, before: bool) {
        let (Some(a), Some(b)) = (&self.a, &self.b) else { return };
        if self.failed.is_some() {
            return;
        }
        if (self.up.read || self.down.read) && !before && self.config.half_closed_idle.is_none() {
            /// Between two probes that find no answer.
            const INTERVAL: Duration = Duration::from_secs(10);
            /// A host that is away for three minutes is not given up.
            const PROBES: u8 = 17;
            let time = self.config.half_closed_probe + SPREAD.mul_f64(fraction());
            let keepalive = TcpKeepalive::new().with_time(time);
            let keepalive = keepalive.with_interval(INTERVAL).with_retries(PROBES);
            a.probe(&keepalive);
            b.probe(&keepalive);
        }
        if self.up.is_held_up() && self.reset_of_a.is_none() {
            self.reset_of_a = Some(a.reset());
        }
        if self.down.is_held_up() && self.reset_of_b.is_none() {
            self.reset_of_b = Some(b.reset());
        }
    }

    /// Returns whether an end was reset.
    fn poll_resets(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_ready = |reset: &mut Option<Reset>| {
            reset.as_mut().is_some_and(|reset| reset.as_mut().poll(cx).is_ready())
        };
        let side = if is_ready(&mut self.reset_of_a) {
            Side::A
        } else if is_ready(&mut self.reset_of_b) {
            Side::B
        } else {
            return false;
        };
        self.fail(side, io::ErrorKind::ConnectionReset.into());
        true
    }

    fn is_half_closed(&self) -> bool {
        self.up.read || self.down.read
    }

    /// Ready once the next of the times has come.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let RelayConfig { idle, half_closed_idle, .. } = *self.config;
        let idle = if self.is_half_closed() { half_closed_idle.or(idle) } else { idle };
        let at = match (&self.failed, idle) {
            (Some(failure), _) => failure.until,
            (None, Some(idle)) => self.moved + idle,
            (None, None) => return Poll::Pending,
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if alarm.deadline() != at {
            alarm.as_mut().reset(at);
        }
        alarm.as_mut().poll(cx)
    }

    /// Ends both streams as the relay has ended.
    fn finish(mut self, end: End) -> Report {
        // They may hold the ends open.
        (self.reset_of_a, self.reset_of_b) = (None, None);
        let drain = self.config.drain;
        if let (Some(a), Some(b)) = (self.a.take(), self.b.take()) {
            match &end {
                // Dropped, which closes them.
                End::Finished => {}
                End::Reset { by: Side::A } | End::Failed { side: Side::A, .. } => {
                    a.abort();
                    b.abort_after_drain(drain);
                }
                End::Reset { by: Side::B } | End::Failed { side: Side::B, .. } => {
                    b.abort();
                    a.abort_after_drain(drain);
                }
                End::Idle | End::HalfClosedIdle => {
                    a.abort();
                    b.abort();
                }
            }
        }
        let took = self.began.elapsed();
        Report { a_to_b: self.up.seen(), b_to_a: self.down.seen(), began: self.began, took, end }
    }
}

/// A relay that is given up resets both ends.
impl<A: RelayEnd, B: RelayEnd> Drop for Relay<'_, A, B> {
    fn drop(&mut self) {
        (self.reset_of_a, self.reset_of_b) = (None, None);
        self.a.take().into_iter().for_each(RelayEnd::abort);
        self.b.take().into_iter().for_each(RelayEnd::abort);
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

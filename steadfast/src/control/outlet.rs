//! Where an answer goes: the socket of a client, for a thread that may block.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::unix::OwnedWriteHalf;

/// How often a thread that waits for its client looks whether it must stop.
const LOOK: Duration = Duration::from_millis(100);

/// Dropped with the task that waits for an answer: the thread that makes it stops.
#[derive(Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The socket of a client. It blocks while this value lives.
pub(super) struct Outlet {
    stream: UnixStream,
    stopped: Arc<AtomicBool>,
}

impl Outlet {
    pub(super) fn new(write: &OwnedWriteHalf, stop: &Stop) -> io::Result<Outlet> {
        let stream = UnixStream::from(write.as_ref().as_fd().try_clone_to_owned()?);
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(LOOK))?;
        Ok(Outlet { stream, stopped: stop.0.clone() })
    }

    /// Writes all of it, however slowly the client reads.
    pub(super) fn write(&mut self, text: &str) -> io::Result<()> {
        let mut rest = text.as_bytes();
        loop {
            self.check()?;
            match self.stream.write(rest) {
                Ok(len) => rest = &rest[len..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sleeps. Fails once the client has gone, or the runtime ends.
    pub(super) fn sleep(&mut self, time: Duration) -> io::Result<()> {
        let start = Instant::now();
        loop {
            self.check()?;
            // Nothing is written, but a closed socket refuses.
            _ = self.stream.write(&[])?;
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK));
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.stopped.load(Ordering::Relaxed) { Err(ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // The task reads the next request. It finds out itself if that fails.
        let _ = self.stream.set_nonblocking(true);
    }
}

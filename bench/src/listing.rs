//! `ss_100k`: a hundred thousand sockets are listed over the control socket while a connection transfers.
//!
//! Both ends and the driver of each have one thread. Each round compares a second without a listing with a second in
//! which one is made: first at full rate, then at half of it. At full rate, with the threads that list and read, there are
//! more threads than a machine of two cores has room for. The paced transfer leaves room, and does not make up for a stall:
//! its loss shows a listing in the way.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use steadfast::{Net, TcpListener, TcpStream, device};
use tokio::io::AsyncWriteExt;
use tokio::time::MissedTickBehavior;

use crate::library;
use crate::measure::{Effort, Rounds};
use crate::report::{Goal, Row, Unit};

const COUNT: usize = 100_000;
/// Ports of the server: a client has not enough for one.
const PORTS: u16 = 4;
const FIRST: u16 = 8000;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const SECOND: Duration = Duration::from_secs(1);
/// A paced transfer writes so often.
const PACE: Duration = Duration::from_millis(2);

/// Time of a listing, the part of the rate that is left meanwhile, paced and at full rate, and the time of a listing that
/// fits one port.
pub(crate) fn rows(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let [listing, paced, full, filtered] =
        library::runtime(1).block_on(measure(effort, progress)).unwrap_or_else(|error| {
            eprintln!("ss_100k: {error}");
            Default::default()
        });
    let row = |name: &str, unit, ours, goal| Row { name: name.to_owned(), unit, ours, peer: None, goal };
    vec![
        row("ss_100k", Unit::Seconds, listing, Goal::Value(0.3)),
        row("ss_100k, rate meanwhile", Unit::Part, paced, Goal::Value(0.98)),
        row("ss_100k, full rate meanwhile", Unit::Part, full, Goal::Open),
        row("ss_100k, filtered", Unit::Seconds, filtered, Goal::Open),
    ]
}

async fn measure(effort: &Effort, progress: &dyn Fn(String)) -> io::Result<[Rounds; 4]> {
    let path = std::env::temp_dir().join(format!("steadfast-bench-{}.sock", std::process::id()));
    let (left, right) = device::memory::pair_with_offload(1500);
    let server = Net::builder().address(SERVER, 24).control(&path).start(left)?;
    let client = Net::builder().address(CLIENT, 24).start(right)?;
    let (mut held, mut listeners) = (Vec::with_capacity(COUNT + 1), Vec::new());
    for port in FIRST..FIRST + PORTS {
        let listener = TcpListener::bind(&server, (SERVER, port)).await?;
        for _ in 0..COUNT / usize::from(PORTS) {
            held.push(tokio::try_join!(TcpStream::connect(&client, (SERVER, port)), listener.accept())?);
            if held.len().is_multiple_of(1000) {
                progress(format!("ss_100k: {} of {COUNT} connections", held.len()));
            }
        }
        listeners.push(listener);
    }
    let busy = TcpStream::connect(&client, (SERVER, FIRST));
    let (writer, (reader, _)) = tokio::try_join!(busy, listeners[0].accept())?;
    let (done, pace) = (Arc::new(AtomicU64::default()), Arc::new(AtomicU64::default()));
    tokio::spawn(write(writer, pace.clone()));
    tokio::spawn({
        let done = done.clone();
        async move { library::read(reader, &done).await.ok() }
    });
    let mut rounds: [Rounds; 4] = Default::default();
    for round in 0..=effort.rounds {
        progress(format!("ss_100k: round {round} of {}", effort.rounds));
        pace.store(0, Ordering::Relaxed);
        let Compared { rate, kept: full, listing } = compare(&done, &path).await?;
        pace.store((rate * PACE.as_secs_f64() / 2.0) as u64, Ordering::Relaxed);
        let paced = compare(&done, &path).await?.kept;
        let filtered = tokio::task::spawn_blocking({
            let path: PathBuf = path.clone();
            move || list(&path, &format!("sport = :{} and send-q > 0 or recv-q > 0", FIRST + 1), 0)
        });
        let figures = [listing, paced, full, filtered.await??];
        // The first round is a warm-up.
        if round > 0 {
            rounds.iter_mut().zip(figures).for_each(|(rounds, figure)| rounds.0.push(figure));
        }
    }
    Ok(rounds)
}

/// A second without a listing beside one with it.
struct Compared {
    /// Bytes of the second without.
    rate: f64,
    /// The part of it that is left.
    kept: f64,
    /// Time of the listing.
    listing: f64,
}

async fn compare(done: &AtomicU64, path: &Path) -> io::Result<Compared> {
    let quiet = rate(done).await;
    let path = path.to_owned();
    let listing = tokio::task::spawn_blocking(move || list(&path, "state established", COUNT + 1));
    let meanwhile = rate(done).await;
    Ok(Compared { rate: quiet, kept: meanwhile / quiet, listing: listing.await?? })
}

/// Writes `pace` bytes every now and then, and no more after a stall; 0: as many as go.
async fn write(mut writer: TcpStream, pace: Arc<AtomicU64>) -> io::Result<()> {
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let bytes = vec![0; library::CHUNK];
    loop {
        let mut left = pace.load(Ordering::Relaxed) as usize;
        if left == 0 {
            writer.write_all(&bytes).await?;
            continue;
        }
        ticks.tick().await;
        while left > 0 {
            let len = left.min(bytes.len());
            writer.write_all(&bytes[..len]).await?;
            left -= len;
        }
    }
}

/// Bytes of a second.
async fn rate(done: &AtomicU64) -> f64 {
    let (before, start) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(SECOND).await;
    (done.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
}

/// Asks for the sockets that fit, reads the answer, and returns the seconds that it took. It counts rows, and does not look
/// at them.
fn list(path: &Path, filter: &str, least: usize) -> io::Result<f64> {
    /// More than the last line.
    const TAIL: usize = 200;
    let start = Instant::now();
    let mut stream = UnixStream::connect(path)?;
    writeln!(stream, "{{\"do\":\"sockets\",\"filter\":\"{filter}\"}}")?;
    let (mut lines, mut buffer, mut tail) = (0, vec![0; 1 << 18], Vec::new());
    let end = loop {
        let len = stream.read(&mut buffer)?;
        let read = &buffer[..len];
        lines += read.iter().filter(|byte| **byte == b'\n').count();
        tail.extend_from_slice(&read[len.saturating_sub(TAIL)..]);
        tail.drain(..tail.len().saturating_sub(TAIL));
        let text = String::from_utf8_lossy(&tail);
        let last = text.trim_end().lines().next_back().unwrap_or_default();
        if len == 0 || text.ends_with('\n') && ["\"done\"", "\"error\""].iter().any(|end| last.contains(end))
        {
            break last.to_owned();
        }
    };
    if !end.contains("\"done\"") {
        return Err(io::Error::other(format!("{filter}: {end}")));
    }
    let rows = lines - 1;
    if rows < least {
        return Err(io::Error::other(format!("{filter}: {rows} rows: expected at least {least}")));
    }
    Ok(start.elapsed().as_secs_f64())
}

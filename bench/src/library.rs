//! The library in use: one program over our stack in memory, over our stack on a TUN device with the kernel as client,
//! and, as the peer, over Tokio on the kernel's loopback.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use steadfast::device::Tun;
use steadfast::{Net, device};
use steadfast_kernel::namespace;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::{self, Runtime};

use crate::measure::{Effort, Rounds, thread_seconds};
use crate::report::{Goal, Row, Unit};
use crate::tun::{ip, named, tun_options};

pub(crate) const CHUNK: usize = 64 * 1024;
const MESSAGE: usize = 64;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Connections at a time. Bulk leaves out the last.
const COUNTS: [usize; 3] = [1, 100, 10_000];
/// Room in the listener for every client at once.
const BACKLOG: u32 = 16_384;

/// Work that the program does on each of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// One end writes, the other reads.
    Bulk,
    /// A message goes there and comes back.
    RoundTrips,
    /// The client connects, and the server closes.
    Connections,
}

/// Bytes from end to end: one connection and many, on one thread and on two.
pub(crate) fn bulk(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    rows(Work::Bulk, "library_bulk", effort, progress)
}

/// Round trips of 64 bytes.
pub(crate) fn round_trips(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    rows(Work::RoundTrips, "library_rr", effort, progress)
}

/// Connections opened and closed.
pub(crate) fn connections(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    rows(Work::Connections, "library_cc", effort, progress)
}

fn rows(work: Work, name: &str, effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    // Applies to this thread and to those that it starts.
    let ready = set_up();
    if let Err(error) = &ready {
        eprintln!("{name}: without the kernel: {error}");
    }
    let raised = raise_open_files();
    if let Err(error) = &raised {
        eprintln!("{name} {}: without the kernel: {error}", COUNTS[2]);
    }
    let mut rows = Vec::new();
    for threads in [1, 2] {
        for count in COUNTS {
            if count > work.most() {
                continue;
            }
            let name = format!("{name} {count}{}", if threads == 1 { "" } else { ", 2 threads" });
            let with_kernel = ready.is_ok() && (count < COUNTS[2] || raised.is_ok());
            let mut rounds: [Rounds; 3] = Default::default();
            for round in 0..=effort.rounds {
                progress(format!("{name}: round {round} of {}", effort.rounds));
                let seconds = effort.seconds;
                let figures = [
                    Some(measure(threads, seconds, async |done| {
                        start(work, memory().await?, count, done).await
                    })),
                    with_kernel.then(|| {
                        measure(threads, seconds, async |done| {
                            start(work, over_tun().await?, count, done).await
                        })
                    }),
                    (with_kernel && !effort.alone).then(|| {
                        measure(threads, seconds, async |done| start(work, loopback()?, count, done).await)
                    }),
                ];
                for (figure, rounds) in figures.into_iter().zip(&mut rounds) {
                    match figure {
                        // The first round is a warm-up.
                        Some(Ok(figure)) if round > 0 => rounds.0.push(figure * work.scale()),
                        Some(Err(error)) => eprintln!("{name}: {error}"),
                        _ => {}
                    }
                }
            }
            let [memory, tun, peer] = rounds;
            let peer = (!peer.0.is_empty()).then_some(peer);
            let unit = if work == Work::Bulk { Unit::Bits } else { Unit::Events };
            let goal = if threads == 1 { work.goal(count) } else { Goal::Open };
            if !tun.0.is_empty() {
                let (name, peer) = (format!("{name}, TUN"), peer.clone());
                rows.push(Row { name, unit, ours: tun, peer, goal: Goal::Open });
            }
            rows.push(Row { name, unit, ours: memory, peer, goal });
        }
    }
    rows
}

impl Work {
    fn scale(self) -> f64 {
        if self == Work::Bulk { 8.0 } else { 1.0 }
    }

    /// The most connections at a time.
    fn most(self) -> usize {
        // The kernel would hold gigabytes in its buffers.
        if self == Work::Bulk { COUNTS[1] } else { COUNTS[2] }
    }

    fn goal(self, count: usize) -> Goal {
        Goal::Ratio(match self {
            Work::Bulk if count == 1 => 1.5,
            Work::Bulk => 1.0,
            Work::RoundTrips => 3.0,
            Work::Connections => 4.0,
        })
    }
}

/// Prepares a namespace of this thread.
fn set_up() -> io::Result<()> {
    namespace::enter()?;
    ip("link set lo up")?;
    for (name, value) in [
        ("net.core.somaxconn", BACKLOG.to_string()),
        // Thousands that connect at once are no attack.
        ("net.ipv4.tcp_max_syn_backlog", BACKLOG.to_string()),
        ("net.ipv4.ip_local_port_range", "1024 65535".to_owned()),
        // The default of the machine may be BBR, which paces on a loopback device.
        ("net.ipv4.tcp_congestion_control", "reno".to_owned()),
    ] {
        namespace::set(name, &value).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Lets the process have both ends of the most connections.
fn raise_open_files() -> io::Result<()> {
    let enough = 2 * COUNTS[2] as u64 + 1000;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < enough) {
        let maximum = limit.maximum.map(|maximum| maximum.max(enough));
        setrlimit(Resource::Nofile, Rlimit { current: Some(enough), maximum })
            .map_err(|error| named(error, &format!("a limit of {enough} open files")))?;
    }
    Ok(())
}

/// Returns how much a second the program does that `start` starts. With one thread, time is the CPU time of the thread,
/// otherwise the wall clock.
fn measure(
    threads: usize,
    seconds: f64,
    start: impl AsyncFnOnce(&Arc<AtomicU64>) -> io::Result<()>,
) -> io::Result<f64> {
    let runtime = runtime(threads);
    let begin = Instant::now();
    let time = || if threads == 1 { thread_seconds() } else { begin.elapsed().as_secs_f64() };
    runtime.block_on(async {
        let done = Arc::default();
        start(&done).await?;
        tokio::time::sleep(Duration::from_secs_f64(seconds / 3.0)).await;
        let (before, start) = (done.load(Ordering::Relaxed), time());
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        Ok((done.load(Ordering::Relaxed) - before) as f64 / (time() - start))
    })
}

pub(crate) fn runtime(threads: usize) -> Runtime {
    let mut builder = match threads {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().expect("a runtime")
}

/// A stream of either library.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A client and a server.
trait Carrier: Send + Sync + 'static {
    fn connect(&self) -> impl Future<Output = io::Result<impl Stream>> + Send;
    fn accept(&self) -> impl Future<Output = io::Result<impl Stream>> + Send;
}

/// Two networks of ours in this process.
struct Memory {
    client: Net,
    listener: steadfast::TcpListener,
}

async fn memory() -> io::Result<Memory> {
    let (left, right) = device::memory::pair_with_offload(1500);
    let server = Net::builder().address(SERVER, 24).start(left)?;
    let client = Net::builder().address(CLIENT, 24).start(right)?;
    Ok(Memory { client, listener: listen(&server)? })
}

fn listen(net: &Net) -> io::Result<steadfast::TcpListener> {
    let socket = steadfast::TcpSocket::new_v4(net)?;
    socket.bind((SERVER, 7).into())?;
    socket.listen(BACKLOG)
}

impl Carrier for Memory {
    async fn connect(&self) -> io::Result<impl Stream> {
        steadfast::TcpStream::connect(&self.client, (SERVER, 7)).await
    }

    async fn accept(&self) -> io::Result<impl Stream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

/// Our network as server, the kernel as client.
struct OverTun(steadfast::TcpListener);

async fn over_tun() -> io::Result<OverTun> {
    let device = Tun::open(&tun_options(9, true)).await?;
    let server = Net::builder().address(SERVER, 24).start(device)?;
    Ok(OverTun(listen(&server)?))
}

impl Carrier for OverTun {
    async fn connect(&self) -> io::Result<impl Stream> {
        tokio::net::TcpStream::connect((SERVER, 7)).await
    }

    async fn accept(&self) -> io::Result<impl Stream> {
        self.0.accept().await.map(|(stream, _)| stream)
    }
}

/// The kernel with itself.
struct Loopback {
    listener: tokio::net::TcpListener,
    at: SocketAddr,
}

fn loopback() -> io::Result<Loopback> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(BACKLOG)?;
    Ok(Loopback { at: listener.local_addr()?, listener })
}

impl Carrier for Loopback {
    async fn connect(&self) -> io::Result<impl Stream> {
        tokio::net::TcpStream::connect(self.at).await
    }

    async fn accept(&self) -> io::Result<impl Stream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

/// Starts the program with `count` connections at a time. It counts in `done` what it does, until its runtime ends.
async fn start(work: Work, carrier: impl Carrier, count: usize, done: &Arc<AtomicU64>) -> io::Result<()> {
    let carrier = Arc::new(carrier);
    if work == Work::Connections {
        for _ in 0..count {
            tokio::spawn(open_and_read(carrier.clone(), done.clone()));
        }
        tokio::spawn(async move { while carrier.accept().await.is_ok() {} });
        return Ok(());
    }
    // All are open before the first works: a connect takes its turn among the tasks.
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        streams.push(tokio::try_join!(carrier.connect(), carrier.accept())?);
    }
    for (client, server) in streams {
        let done = done.clone();
        // An error means that the runtime ends.
        if work == Work::Bulk {
            tokio::spawn(write(client));
            tokio::spawn(async move { read(server, &done).await.ok() });
        } else {
            tokio::spawn(async move { ask(client, &done).await.ok() });
            tokio::spawn(async move { answer(server).await.ok() });
        }
    }
    // The listener lives as long as its connections.
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(carrier);
    });
    Ok(())
}

async fn open_and_read(carrier: Arc<impl Carrier>, done: Arc<AtomicU64>) {
    while let Ok(mut stream) = carrier.connect().await {
        // The server closes first, and so TIME-WAIT is its own.
        if !matches!(stream.read(&mut [0; 1]).await, Ok(0)) {
            return;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) async fn write(mut to: impl Stream) {
    let text = vec![1; CHUNK];
    while to.write_all(&text).await.is_ok() {}
}

pub(crate) async fn read(mut from: impl Stream, done: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let len = from.read(&mut buffer).await?;
        done.fetch_add(len as u64, Ordering::Relaxed);
    }
}

async fn ask(mut server: impl Stream, done: &AtomicU64) -> io::Result<()> {
    let mut message = [1; MESSAGE];
    loop {
        server.write_all(&message).await?;
        server.read_exact(&mut message).await?;
        done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn answer(mut client: impl Stream) -> io::Result<()> {
    let mut message = [0; MESSAGE];
    loop {
        client.read_exact(&mut message).await?;
        client.write_all(&message).await?;
    }
}

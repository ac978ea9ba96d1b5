//! The library in use: two networks in one process over a wire in memory, beside Tokio over the kernel's loopback. Both
//! run the same program.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use steadfast::{Net, device};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::{self, Runtime};

use crate::measure::{Effort, Rounds, thread_seconds};
use crate::report::{Goal, Row, Unit};

const CHUNK: usize = 64 * 1024;
const MANY: usize = 100;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// One connection and many, on one thread and on two. Many together should carry what one carries.
pub(crate) fn bulk(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let mut rows = Vec::new();
    for (threads, one, many) in
        [(1, "lib_bulk 1", "lib_bulk 100"), (2, "lib_bulk 1, 2 threads", "lib_bulk 100, 2 threads")]
    {
        // Rounds alternate between one and many, so that both see the same state of the machine.
        let mut rounds: [[Rounds; 2]; 2] = Default::default();
        for round in 0..=effort.rounds {
            progress(format!("lib_bulk, {threads} threads: round {round} of {}", effort.rounds));
            for (connections, [ours, peers]) in [1, MANY].into_iter().zip(&mut rounds) {
                let figure = measure(threads, effort.seconds, || carry_ours(connections));
                let peer =
                    (!effort.alone).then(|| measure(threads, effort.seconds, || carry_peers(connections)));
                if round > 0 {
                    ours.0.push(figure);
                    peers.0.extend(peer);
                }
            }
        }
        let row = |name: &str, [ours, peers]: [Rounds; 2], goal| {
            let peer = (!effort.alone).then_some(peers);
            Row { name: name.into(), unit: Unit::Bits, ours, peer, goal }
        };
        let [of_one, of_many] = rounds;
        rows.push(row(one, of_one, Goal::Open));
        rows.push(row(many, of_many, Goal::Part(0.8, one)));
    }
    rows
}

/// Returns the bits per second that `carry` transfers. With one thread, time is the CPU time of the thread, otherwise
/// the wall clock.
fn measure<F: Future<Output = Arc<AtomicU64>>>(threads: usize, seconds: f64, carry: impl Fn() -> F) -> f64 {
    let runtime = runtime(threads);
    let begin = Instant::now();
    let time = || if threads == 1 { thread_seconds() } else { begin.elapsed().as_secs_f64() };
    runtime.block_on(async {
        let carried = carry().await;
        tokio::time::sleep(Duration::from_secs_f64(seconds / 3.0)).await;
        let (before, start) = (carried.load(Ordering::Relaxed), time());
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        (carried.load(Ordering::Relaxed) - before) as f64 * 8.0 / (time() - start)
    })
}

fn runtime(threads: usize) -> Runtime {
    let mut builder = match threads {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().expect("a runtime")
}

/// Starts transfers over `connections` connections between two of our networks. Returns the count of received bytes.
async fn carry_ours(connections: usize) -> Arc<AtomicU64> {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address(SERVER, 24).start(left).expect("a network");
    let client = Net::builder().address(CLIENT, 24).start(right).expect("a network");
    let listener = steadfast::TcpListener::bind(&server, (SERVER, 7)).await.expect("a free port");
    let carried = Arc::new(AtomicU64::new(0));
    for _ in 0..connections {
        let stream = steadfast::TcpStream::connect(&client, (SERVER, 7)).await.expect("a connection");
        let (accepted, _) = listener.accept().await.expect("a connection");
        begin(stream, accepted, &carried);
    }
    carried
}

/// Does the same over the kernel's loopback.
async fn carry_peers(connections: usize) -> Arc<AtomicU64> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = tokio::net::TcpListener::bind(any).await.expect("a free port");
    let at = listener.local_addr().expect("an address");
    let carried = Arc::new(AtomicU64::new(0));
    for _ in 0..connections {
        let stream = tokio::net::TcpStream::connect(at).await.expect("a connection");
        let (accepted, _) = listener.accept().await.expect("a connection");
        begin(stream, accepted, &carried);
    }
    carried
}

/// Starts a task that writes for ever and one that reads.
fn begin(
    mut to: impl AsyncWrite + Unpin + Send + 'static,
    mut from: impl AsyncRead + Unpin + Send + 'static,
    carried: &Arc<AtomicU64>,
) {
    let carried = carried.clone();
    tokio::spawn(async move {
        let text = vec![1; CHUNK];
        while to.write_all(&text).await.is_ok() {}
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            carried.fetch_add(len as u64, Ordering::Relaxed);
        }
    });
}

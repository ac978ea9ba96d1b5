//! The ends of connections through a gateway: nothing is left of them, and none looks whole that is not.
//!
//! The clock is virtual. The servers are the kernel's, on a loopback address of this machine. The numbers are those of the
//! gateway's acceptance tests.
#![cfg(target_os = "linux")]

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use steadfast::device::memory::{self, MemoryDevice};
use steadfast::device::{Device, Frame};
use steadfast::stack::wire::tcp::{Flags, Header};
use steadfast::stack::wire::{build, ipv4};
use steadfast::{Net, RelayEnd, TcpStream};
use steadfast_gateway::{Dns, Gateway};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::sleep;

const GUEST: [u8; 4] = [10, 0, 2, 15];

/// The alias of the machine's loopback address.
const MACHINE: [u8; 4] = [10, 0, 2, 4];

/// Longer than the longest end of a connection: that of a guest that is closed while its peer is not.
const LONG: Duration = Duration::from_secs(130);

/// The tests count the files of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs `test` with a gateway and the device of its guest.
fn beside_a_gateway<T: Future<Output = ()>>(test: impl FnOnce(Gateway, MemoryDevice) -> T) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (outside, inside) = memory::pair(1500);
        let builder = Gateway::builder().rule("allow 127.0.0.1".parse().unwrap()).dns(Dns::None);
        test(builder.start(outside).await.unwrap(), inside).await;
    });
}

fn guest_on(device: MemoryDevice) -> Net {
    Net::builder().address(GUEST, 24).start(device).unwrap()
}

fn files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Serves each connection with a task of its own.
async fn serve<T: Future<Output = ()> + Send + 'static>(
    mut serve: impl FnMut(tokio::net::TcpStream) -> T + Send + 'static,
) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

async fn send(device: &mut MemoryDevice, from: SocketAddr, to: SocketAddr, header: Header) {
    let packet = build::tcp(from, to, header, &[]).unwrap();
    poll_fn(|cx| device.poll_send(cx, Frame::new(&packet))).await.unwrap();
}

/// Sends a SYN, and returns the SYN-ACK.
async fn ask(device: &mut MemoryDevice, from: SocketAddr, to: SocketAddr) -> Header {
    let syn = Header { flags: Flags::SYN, window: 65_535, ..Header::default() };
    send(device, from, to, syn).await;
    let mut buffer = [0; 1500];
    loop {
        let received = poll_fn(|cx| device.poll_recv(cx, &mut buffer)).await.unwrap();
        let (header, _) = Header::parse(ipv4::parse(&buffer[..received.len]).unwrap().1).unwrap();
        if header.destination_port == from.port() {
            assert_eq!(header.flags, Flags::SYN | Flags::ACK);
            return header;
        }
    }
}

#[test]
fn f05_handshakes_that_a_guest_resets_leave_nothing_behind() {
    const COUNT: u16 = 10_000;
    beside_a_gateway(|gateway, mut device| async move {
        let resets = Arc::new(AtomicUsize::new(0));
        let seen = resets.clone();
        let port = serve(move |mut stream| {
            let seen = seen.clone();
            async move {
                let ended = stream.read(&mut [0]).await.map_err(|error| error.kind());
                seen.fetch_add(usize::from(ended == Err(io::ErrorKind::ConnectionReset)), Ordering::Relaxed);
            }
        })
        .await;
        let (server, before) = (SocketAddr::from((MACHINE, port)), files());
        for port in 1024..1024 + COUNT {
            let from = SocketAddr::from((GUEST, port));
            let answer = ask(&mut device, from, server).await;
            let reset = Header { flags: Flags::RST, seq: answer.ack, ..Header::default() };
            send(&mut device, from, server, reset).await;
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(gateway.flows(), []);
        assert_eq!((resets.load(Ordering::Relaxed), files()), (COUNT.into(), before));
        ask(&mut device, SocketAddr::from((GUEST, 60_000)), server).await;
    });
}

#[test]
fn f09_what_a_guest_has_closed_ends_and_who_waits_for_an_answer_gets_it() {
    // Each connection takes five files.
    const ROUNDS: usize = 50;
    const AT_ONCE: usize = 200;
    beside_a_gateway(|gateway, device| async move {
        let slow = serve(|mut stream| async move {
            stream.read_to_end(&mut Vec::new()).await.unwrap();
            sleep(Duration::from_secs(30 * 60)).await;
            stream.write_all(b"answer").await.unwrap();
        })
        .await;
        let resets = Arc::new(AtomicUsize::new(0));
        let seen = resets.clone();
        let stubborn = serve(move |mut stream| {
            let seen = seen.clone();
            async move {
                stream.read_to_end(&mut Vec::new()).await.unwrap();
                stream.reset().await;
                seen.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await;
        let guest = guest_on(device);
        let mut waiting = TcpStream::connect(&guest, (MACHINE, slow)).await.unwrap();
        let answer = tokio::spawn(async move {
            waiting.shutdown().await.unwrap();
            let mut text = String::new();
            waiting.read_to_string(&mut text).await.map(|_| text)
        });
        for _ in 0..ROUNDS {
            let mut streams = Vec::new();
            for _ in 0..AT_ONCE {
                streams.push(TcpStream::connect(&guest, (MACHINE, stubborn)).await.unwrap());
            }
            for stream in streams {
                drop(stream);
                // The guest sends so many RSTs in a second, and no more (`tcp_rst_limit`).
                sleep(Duration::from_millis(10)).await;
            }
            sleep(LONG).await;
            let mut flows = gateway.flows();
            flows.retain(|flow| flow.remote.port() == stubborn);
            assert_eq!(flows, []);
        }
        assert_eq!(resets.load(Ordering::Relaxed), ROUNDS * AT_ONCE);
        assert_eq!(answer.await.unwrap().unwrap(), "answer");
    });
}

#[test]
fn f09_connections_that_a_guest_closes_all_at_once_end_all() {
    beside_a_gateway(|gateway, device| async move {
        let stubborn = serve(|mut stream| async move {
            stream.read_to_end(&mut Vec::new()).await.unwrap();
            stream.reset().await;
        })
        .await;
        let guest = guest_on(device);
        let mut streams = Vec::new();
        // More than the guest may send RSTs in a second (`tcp_rst_limit`), which answer the probes of its closed ends.
        for _ in 0..400 {
            streams.push(TcpStream::connect(&guest, (MACHINE, stubborn)).await.unwrap());
        }
        drop(streams);
        sleep(LONG).await;
        assert_eq!(gateway.flows(), []);
    });
}

/// How one end of a connection behaves.
struct Plan {
    /// Bytes that it sends before its FIN or RST.
    amount: usize,
    resets: bool,
    /// It stops for this long before this byte, and before it reads.
    stop: Duration,
    at: usize,
}

impl Plan {
    fn random(seed: u64) -> Plan {
        let mut rng = fastrand::Rng::with_seed(seed);
        let amount = if rng.u8(..) < 32 { 0 } else { rng.usize(..200_000) };
        let stop = if rng.bool() { Duration::ZERO } else { Duration::from_millis(rng.u64(..100)) };
        Plan { amount, resets: rng.u8(..) < 64, stop, at: rng.usize(..=amount) }
    }
}

fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

/// Lives through one end. `sent` is set to the bytes before a FIN of this end, and `expected` to those before the peer's:
/// whoever reads the end of the stream must have read them all.
async fn live(
    stream: impl RelayEnd,
    plan: &Plan,
    sent: &OnceLock<usize>,
    expected: &OnceLock<usize>,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        let data: Vec<u8> = (0..plan.amount).map(byte).collect();
        writer.write_all(&data[..plan.at]).await?;
        sleep(plan.stop).await;
        writer.write_all(&data[plan.at..]).await?;
        if plan.resets {
            return Err(io::ErrorKind::Interrupted.into());
        }
        sent.set(plan.amount).unwrap();
        writer.shutdown().await
    };
    let read = async {
        sleep(plan.stop).await;
        let (mut buffer, mut seen) = ([0; 16_384], 0);
        loop {
            let len = reader.read(&mut buffer).await?;
            assert!((seen..).zip(&buffer[..len]).all(|(at, found)| byte(at) == *found), "near byte {seen}");
            seen += len;
            if len == 0 {
                assert_eq!(expected.get(), Some(&seen));
                return Ok(());
            }
        }
    };
    let ended = tokio::try_join!(write, read);
    if ended.is_err() {
        reader.unsplit(writer).abort();
    }
    ended.map(drop)
}

fn seed() -> u64 {
    match std::env::var("STEADFAST_SEED") {
        Ok(seed) => seed.parse().expect("STEADFAST_SEED is a number"),
        Err(_) => fastrand::u64(..1 << 32),
    }
}

/// With `STEADFAST_FULL=1` there are twenty times as many connections.
#[test]
fn f13_whatever_ends_do_a_stream_is_whole_or_an_error_is_told() {
    const AT_ONCE: usize = 50;
    let full = std::env::var_os("STEADFAST_FULL").is_some_and(|value| value != "0");
    let (seed, rounds) = (seed(), if full { 400 } else { 20 });
    eprintln!("STEADFAST_SEED={seed}");
    beside_a_gateway(|gateway, device| async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = (MACHINE, listener.local_addr().unwrap().port());
        let guest = guest_on(device);
        let before = files();
        let (mut whole, mut broken) = (0, 0);
        for round in 0..rounds {
            let mut ends = JoinSet::new();
            for number in 0..AT_ONCE {
                let near = TcpStream::connect(&guest, server).await.unwrap();
                let (far, _) = listener.accept().await.unwrap();
                let sent = Arc::new([OnceLock::new(), OnceLock::new()]);
                let seed = seed + 2 * (round * AT_ONCE + number) as u64;
                let there = sent.clone();
                ends.spawn(async move { live(near, &Plan::random(seed), &sent[0], &sent[1]).await });
                ends.spawn(async move { live(far, &Plan::random(seed + 1), &there[1], &there[0]).await });
            }
            while let Some(ended) = ends.join_next().await {
                *(if ended.unwrap().is_ok() { &mut whole } else { &mut broken }) += 1;
            }
        }
        assert!(whole > 0 && broken > 0, "{whole} {broken}");
        sleep(LONG).await;
        assert_eq!(gateway.flows(), []);
        assert_eq!((guest.sockets().len(), files()), (0, before));
        for net in [&guest, gateway.net()] {
            net.check_consistent().unwrap();
        }
    });
}

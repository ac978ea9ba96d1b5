//! Mixed traffic between our stack and the kernel, in both roles and both IP versions, under changing faults. At the
//! end of each round nothing is left of it.
//!
//! Two minutes; with `STEADFAST_FULL=1` ten. A failure says the seed; `STEADFAST_SEED` sets it.

use std::fs;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use steadfast::core::info::Usage;
use steadfast::device::{Tun, TunOptions};
use steadfast::{Config, Net};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::faulty::{Faults, Faulty};
use crate::namespace::enter_namespace;

const PORT: u16 = 7;
const OURS: [&str; 2] = ["10.9.0.2", "fd09::2"];
const KERNELS: [&str; 2] = ["10.9.0.1", "fd09::1"];
/// Traffic of one round, after which all of it must end.
const ROUND: Duration = Duration::from_secs(15);
/// Clients of each side at the same time.
const CLIENTS: usize = 24;
/// No connection takes longer, whatever happens to its packets.
const LIMIT: Duration = Duration::from_secs(120);
/// Resident memory may differ so much from what it was after the first round.
const GROWTH: u64 = 4 << 20;

/// What may happen to packets, for some seconds each.
const WEATHER: [&[&str]; 8] = [
    &[],
    &["lose * all 1%"],
    &["lose K|S all 5%"],
    &["lose S>K all 10%"],
    &["duplicate * all 3% after 5ms", "delay * all 5% by 1ms..20ms"],
    &["corrupt * all 1%"],
    &["lose * all"],
    &["lose * all 1%", "duplicate * all 1% after 1ms", "corrupt * all 0.5%", "delay * all 3% by 1ms..50ms"],
];
/// How long a partition lasts, and any other weather at the most.
const PARTITION: Duration = Duration::from_millis(1500);
const SPELL: Duration = Duration::from_secs(4);

/// A connection of either side.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sized {
    /// Probes when idle for a second.
    fn keep_alive(&self) -> io::Result<()>;
    /// Ends it by a RST.
    fn abort(self);
}

impl Stream for steadfast::TcpStream {
    fn keep_alive(&self) -> io::Result<()> {
        self.set_keepalive(true)
    }

    fn abort(self) {
        steadfast::TcpStream::abort(self);
    }
}

impl Stream for tokio::net::TcpStream {
    fn keep_alive(&self) -> io::Result<()> {
        nix::sys::socket::setsockopt(self, nix::sys::socket::sockopt::KeepAlive, &true)
            .map_err(io::Error::from)
    }

    fn abort(self) {
        self.set_zero_linger().unwrap();
    }
}

/// Sends back what comes.
async fn echo(mut stream: impl Stream) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..len]).await?;
    }
}

/// What a client does with its connection to an echo server.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Sends and reads at the same time, and ends the sending when it has sent all.
    Bulk(usize),
    /// A question, an answer, and the end.
    Short,
    /// Says that it has said all before it reads anything.
    HalfClose(usize),
    /// Goes away in the middle.
    Abort(usize),
    /// Lets the windows close before it reads.
    SlowReader(usize, Duration),
    /// Is silent for a while, but for probes.
    Idle(Duration),
}

impl Deed {
    fn draw(rng: &mut fastrand::Rng) -> Deed {
        match rng.u32(..100) {
            0..5 => Deed::Bulk(rng.usize(500_000..4_000_000)),
            5..60 => Deed::Short,
            60..75 => Deed::HalfClose(rng.usize(1..60_000)),
            75..90 => Deed::Abort(rng.usize(1..200_000)),
            90..94 => {
                Deed::SlowReader(rng.usize(4_000_000..8_000_000), Duration::from_millis(rng.u64(300..2000)))
            }
            _ => Deed::Idle(Duration::from_millis(rng.u64(2000..5000))),
        }
    }

    async fn run(self, mut stream: impl Stream) -> io::Result<()> {
        match self {
            Deed::Bulk(len) => both_ways(&mut stream, len, Duration::ZERO).await,
            Deed::SlowReader(len, pause) => both_ways(&mut stream, len, pause).await,
            Deed::Short => ask(&mut stream).await,
            Deed::HalfClose(len) => {
                stream.write_all(&pattern(len)).await?;
                stream.shutdown().await?;
                expect(&mut stream, len).await
            }
            Deed::Abort(len) => {
                stream.write_all(&pattern(len)).await?;
                stream.read_exact(&mut vec![0; len / 2]).await?;
                stream.abort();
                Ok(())
            }
            Deed::Idle(pause) => {
                stream.keep_alive()?;
                ask(&mut stream).await?;
                sleep(pause).await;
                ask(&mut stream).await
            }
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

async fn ask(stream: &mut impl Stream) -> io::Result<()> {
    stream.write_all(b"hold fast").await?;
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"hold fast");
    Ok(())
}

async fn both_ways(stream: &mut impl Stream, len: usize, pause: Duration) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    let send = async {
        to.write_all(&pattern(len)).await?;
        to.shutdown().await
    };
    let receive = async {
        sleep(pause).await;
        expect(&mut from, len).await
    };
    tokio::try_join!(send, receive).map(drop)
}

/// Reads to the end, which must come after `len` bytes of the pattern.
async fn expect(from: &mut (impl AsyncRead + Unpin), len: usize) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut at = 0;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            assert_eq!(at, len, "the end");
            return Ok(());
        }
        let sound = buffer[..read].iter().enumerate().all(|(i, byte)| *byte == ((at + i) % 251) as u8);
        assert!(sound, "other bytes after {at}");
        at += read;
    }
}

/// The two ends, and the faults between them.
struct Soak {
    net: Net,
    faults: Faults,
}

impl Soak {
    async fn start(seed: u64) -> Soak {
        fs::write("/proc/sys/net/ipv4/tcp_keepalive_time", "1").unwrap();
        fs::write("/proc/sys/net/ipv4/tcp_keepalive_intvl", "1").unwrap();
        let mut options = TunOptions::new("sf0");
        options.queue_len = Some(2000);
        options.host = vec![(address(KERNELS[0]), 24), (address(KERNELS[1]), 64)];
        let faults = Faults::default();
        let device = Faulty::new(Tun::open(&options).await.unwrap(), faults.clone(), seed, None);
        let mut config = Config::default();
        // So that a round ends soon: the rest is as always.
        config
            .apply("tcp_tw_timeout = 2\ntcp_fin_timeout = 5\ntcp_keepalive_time = 1\ntcp_keepalive_intvl = 1")
            .unwrap();
        let net = Net::builder().config(config).address(address(OURS[0]), 24).address(address(OURS[1]), 64);
        Soak { net: net.start(device).unwrap(), faults }
    }

    async fn serve(&self) {
        for ours in OURS {
            let listener = steadfast::TcpListener::bind(&self.net, (address(ours), PORT)).await.unwrap();
            tokio::spawn(async move {
                // Ends with the network.
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(echo(stream));
                }
            });
        }
        for kernels in KERNELS {
            let listener = tokio::net::TcpListener::bind((address(kernels), PORT)).await.unwrap();
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(echo(stream));
                }
            });
        }
    }

    /// Traffic of both sides' clients for a while; gives how many connections there were.
    async fn round(&self, seed: u64) -> usize {
        let until = Instant::now() + ROUND;
        let mut clients = JoinSet::new();
        for number in 0..2 * CLIENTS {
            let mut rng = fastrand::Rng::with_seed(seed ^ (number as u64) << 32);
            let net = (number % 2 == 0).then(|| self.net.clone());
            clients.spawn(async move {
                let mut count = 0;
                while Instant::now() < until {
                    let (deed, family) = (Deed::draw(&mut rng), rng.usize(..2));
                    let ended = match &net {
                        Some(net) => timeout(LIMIT, ours(net, family, deed)).await,
                        None => timeout(LIMIT, kernels(family, deed)).await,
                    };
                    let who = if net.is_some() { "ours" } else { "the kernel's" };
                    let what = format!("{deed:?} of {who} over {}", ["IPv4", "IPv6"][family]);
                    ended
                        .unwrap_or_else(|_| panic!("{what} takes too long"))
                        .unwrap_or_else(|e| panic!("{what}: {e}"));
                    count += 1;
                }
                count
            });
        }
        let weather = tokio::spawn(change(self.faults.clone(), fastrand::Rng::with_seed(seed), until));
        let counts = clients.join_all().await;
        weather.await.unwrap();
        counts.iter().sum()
    }

    /// Waits until nothing is left of the traffic, on either side.
    async fn rest(&self) {
        let listening = Usage { sockets: OURS.len(), listeners: OURS.len(), ..Usage::default() };
        let deadline = Instant::now() + LIMIT;
        loop {
            let (usage, kernels) = (self.net.usage(), kernel_sockets());
            if usage == listening && kernels == 0 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{usage:?}, {kernels} of the kernel, {:#?}",
                self.net.sockets()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn ours(net: &Net, family: usize, deed: Deed) -> io::Result<()> {
    let server = SocketAddr::new(address(KERNELS[family]), PORT);
    deed.run(steadfast::TcpStream::connect(net, server).await?).await
}

async fn kernels(family: usize, deed: Deed) -> io::Result<()> {
    let server = SocketAddr::new(address(OURS[family]), PORT);
    deed.run(tokio::net::TcpStream::connect(server).await?).await
}

/// Changes the weather until the round is over, and leaves it fair.
async fn change(faults: Faults, mut rng: fastrand::Rng, until: Instant) {
    while Instant::now() < until {
        let weather = WEATHER[rng.usize(..WEATHER.len())];
        faults.set(weather);
        let partition = weather == ["lose * all"];
        sleep(if partition { PARTITION } else { SPELL.mul_f64(rng.f64()) }).await;
    }
    faults.set(&[]);
}

/// Connections of the kernel that are neither listening nor in TIME-WAIT.
fn kernel_sockets() -> usize {
    const LISTEN: &str = "0A";
    const TIME_WAIT: &str = "06";
    let tables =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap());
    let states =
        tables.iter().flat_map(|t| t.lines().skip(1)).map(|line| line.split_whitespace().nth(3).unwrap());
    states.filter(|state| ![LISTEN, TIME_WAIT].contains(state)).count()
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

async fn soak(seed: u64, length: Duration) {
    let soak = Soak::start(seed).await;
    soak.serve().await;
    let until = Instant::now() + length;
    // The first round fills what is kept for later: threads, arenas, tables that have grown.
    soak.round(seed).await;
    soak.rest().await;
    let before = resident();
    let (mut rounds, mut connections) = (0, 0);
    while Instant::now() < until {
        rounds += 1;
        connections += soak.round(seed + rounds).await;
        soak.rest().await;
        eprintln!("round {rounds}: {connections} connections, {} KiB resident", resident() >> 10);
    }
    let after = resident();
    eprintln!("{before} bytes resident before, {after} after, {:#?}", soak.net.counters());
    assert!(after < before + GROWTH, "{before} bytes resident before, {after} after");
}

fn seed() -> u64 {
    match std::env::var("STEADFAST_SEED") {
        Ok(seed) => seed.parse().expect("STEADFAST_SEED is a number"),
        Err(_) => fastrand::u64(..1 << 32),
    }
}

#[test]
fn mixed_traffic_under_faults_leaves_nothing_behind() {
    if !enter_namespace(&[]) {
        return;
    }
    let full = std::env::var_os("STEADFAST_FULL").is_some_and(|value| value != "0");
    let seed = seed();
    eprintln!("STEADFAST_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(soak(seed, Duration::from_secs(if full { 600 } else { 120 })));
}

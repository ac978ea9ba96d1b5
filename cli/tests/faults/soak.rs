//! Mixed traffic between our stack and the kernel, in both roles and both IP versions, under changing faults. The
//! stack's counts are compared with its rows throughout. Each round must end with no connection left.
//!
//! It runs for two minutes, or ten with `STEADFAST_FULL=1`. A failure reports the seed; `STEADFAST_SEED` sets it.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use steadfast::device::{Tun, TunOptions};
use steadfast::stack::info::Usage;
use steadfast::{Config, Net};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::faulty::{Faults, Faulty};
use crate::namespace::enter_namespace;

const PORT: u16 = 7;
const OURS: [&str; 2] = ["10.9.0.2", "fd09::2"];
const KERNELS: [&str; 2] = ["10.9.0.1", "fd09::1"];
/// Duration of the traffic in one round.
const ROUND: Duration = Duration::from_secs(15);
/// Concurrent clients of each side.
const CLIENTS: usize = 24;
/// Limit for one connection, under any fault.
const LIMIT: Duration = Duration::from_secs(120);
/// Limit of the difference in resident memory from after the warm-up. The heap ends at the last buffer in use, which
/// moves it by about 8 MiB from round to round, however many rounds there are. In ten minutes of 50,000 connections, a
/// leak of 330 bytes in each would show.
const GROWTH: u64 = 16 << 20;

/// Interval between two checks of the stack's counts.
const LOOK: Duration = Duration::from_millis(5);

/// The faults, each active for some seconds.
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
/// The duration of a partition, and the longest of all other faults.
const PARTITION: Duration = Duration::from_millis(1500);
const SPELL: Duration = Duration::from_secs(4);

/// A connection of either side.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sized {
    /// Enables keepalive probes after one idle second.
    fn keep_alive(&self) -> io::Result<()>;
    /// Resets the connection.
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

/// Echoes all data. It needs keepalive: if the RST of a client is lost, it would wait forever.
async fn echo(mut stream: impl Stream) -> io::Result<()> {
    stream.keep_alive()?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..len]).await?;
    }
}

/// The way a client uses its connection to an echo server.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Sends and reads concurrently, and closes its direction after the last byte.
    Bulk(usize),
    /// One request, one reply, and close.
    Short,
    /// Closes its direction before it reads anything.
    HalfClose(usize),
    /// Aborts in the middle.
    Abort(usize),
    /// Lets the windows close before it reads.
    SlowReader(usize, Duration),
    /// Stays idle, except for keepalive probes.
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
                send(&mut stream, len).await?;
                stream.shutdown().await?;
                expect(&mut stream, len).await
            }
            Deed::Abort(len) => {
                send(&mut stream, len).await?;
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

/// Bytes with a period of 251, so that a shift by any power of two is noticed.
static PATTERN: [u8; 251 * 64] = {
    let mut pattern = [0; 251 * 64];
    let mut i = 0;
    while i < pattern.len() {
        pattern[i] = (i % 251) as u8;
        i += 1;
    }
    pattern
};

/// Sends `len` bytes of the pattern.
async fn send(to: &mut (impl AsyncWrite + Unpin), len: usize) -> io::Result<()> {
    for at in (0..len).step_by(PATTERN.len()) {
        to.write_all(&PATTERN[..PATTERN.len().min(len - at)]).await?;
    }
    Ok(())
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
    let sending = async {
        send(&mut to, len).await?;
        to.shutdown().await
    };
    let receiving = async {
        sleep(pause).await;
        expect(&mut from, len).await
    };
    tokio::try_join!(sending, receiving).map(drop)
}

/// Reads to the end of the stream, which must come after `len` bytes of the pattern.
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
        for (name, seconds) in
            [("tcp_keepalive_time", "1"), ("tcp_keepalive_intvl", "1"), ("tcp_fin_timeout", "5")]
        {
            fs::write(format!("/proc/sys/net/ipv4/{name}"), seconds).unwrap();
        }
        let mut options = TunOptions::new("sf0");
        options.queue_len = Some(2000);
        // Faults apply to segments, not to the large packets that offload splits later.
        options.offload = false;
        options.host = vec![(address(KERNELS[0]), 24), (address(KERNELS[1]), 64)];
        let faults = Faults::default();
        let device = Faulty::new(Tun::open(&options).await.unwrap(), faults.clone(), seed, None);
        let mut config = Config::default();
        // Short timeouts let a round end soon.
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
                // Ends when the network closes.
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

    /// Makes every client at once hold as much as a connection can, so that heaps and tables reach their full size.
    async fn warm_up(&self) {
        let mut clients = JoinSet::new();
        for number in 0..2 * CLIENTS {
            let deed = Deed::SlowReader(16 << 20, Duration::from_secs(3));
            clients.spawn(perform(self.client(number), number / 2 % 2, deed));
        }
        clients.join_all().await;
    }

    /// Runs the clients of both sides for a while. Returns the number of connections.
    async fn round(&self, seed: u64) -> usize {
        let until = Instant::now() + ROUND;
        let mut clients = JoinSet::new();
        for number in 0..2 * CLIENTS {
            let mut rng = fastrand::Rng::with_seed(seed ^ (number as u64) << 32);
            let net = self.client(number);
            clients.spawn(async move {
                let mut count = 0;
                while Instant::now() < until {
                    let deed = Deed::draw(&mut rng);
                    perform(net.clone(), rng.usize(..2), deed).await;
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

    /// Half of the clients are ours, half are the kernel's (`None`).
    fn client(&self, number: usize) -> Option<Net> {
        number.is_multiple_of(2).then(|| self.net.clone())
    }

    /// Compares the stack's counts with its rows, again and again.
    async fn watch(net: Net) {
        loop {
            assert_eq!(net.check_consistent(), Ok(()));
            sleep(LOOK).await;
        }
    }

    /// Waits until neither side has a connection left.
    async fn rest(&self) {
        let mut listening = Usage::default();
        (listening.sockets, listening.listeners) = (OURS.len(), OURS.len());
        let deadline = Instant::now() + LIMIT;
        loop {
            let (usage, kernels) = (self.net.usage(), kernel_sockets());
            if usage == listening && kernels.is_empty() {
                return;
            }
            let sockets = self.net.sockets();
            assert!(Instant::now() < deadline, "{usage:?}, the kernel: {kernels:?}, {sockets:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs one connection of a client, ours or the kernel's.
async fn perform(net: Option<Net>, family: usize, deed: Deed) {
    let connection = async {
        match &net {
            Some(net) => {
                let server = SocketAddr::new(address(KERNELS[family]), PORT);
                deed.run(steadfast::TcpStream::connect(net, server).await?).await
            }
            None => {
                let server = SocketAddr::new(address(OURS[family]), PORT);
                deed.run(tokio::net::TcpStream::connect(server).await?).await
            }
        }
    };
    let who = if net.is_some() { "ours" } else { "the kernel's" };
    let what = || format!("{deed:?} of {who} over {}", ["IPv4", "IPv6"][family]);
    let ended = timeout(LIMIT, connection).await.unwrap_or_else(|_| panic!("{} takes too long", what()));
    ended.unwrap_or_else(|e| panic!("{}: {e}", what()));
}

/// Changes the faults until the round is over, and then removes them.
async fn change(faults: Faults, mut rng: fastrand::Rng, until: Instant) {
    while Instant::now() < until {
        let weather = WEATHER[rng.usize(..WEATHER.len())];
        faults.set(weather);
        let partition = weather == ["lose * all"];
        sleep(if partition { PARTITION } else { SPELL.mul_f64(rng.f64()) }).await;
    }
    faults.set(&[]);
}

/// The kernel's connections that are neither listening nor in TIME-WAIT, as lines of its table.
fn kernel_sockets() -> Vec<String> {
    const LISTEN: &str = "0A";
    const TIME_WAIT: &str = "06";
    let tables =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let resting = |line: &&str| [LISTEN, TIME_WAIT].contains(&line.split_whitespace().nth(3).unwrap());
    lines.filter(|line| !resting(line)).map(str::to_owned).collect()
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

async fn soak(seed: u64, length: Duration) {
    let soak = Soak::start(seed).await;
    soak.serve().await;
    let watch = tokio::spawn(Soak::watch(soak.net.clone()));
    let until = Instant::now() + length;
    soak.warm_up().await;
    soak.rest().await;
    let before = resident();
    let (mut rounds, mut connections) = (0, 0);
    while Instant::now() < until {
        rounds += 1;
        let since = Instant::now();
        connections += soak.round(seed + rounds).await;
        if watch.is_finished() {
            watch.await.unwrap();
            unreachable!("it never ends");
        }
        let busy = since.elapsed();
        soak.rest().await;
        let (all, resident) = (since.elapsed(), resident() >> 10);
        eprintln!(
            "round {rounds}: {connections} connections, {busy:.1?} of {all:.1?}, {resident} KiB resident"
        );
    }
    watch.abort();
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
    runtime.block_on(soak(seed, Duration::from_secs(if full { 600 } else { 40 })));
}

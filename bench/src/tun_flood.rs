//! `synflood_tun`: SYNs from many addresses through a TUN device. Our stack behind the device, or the kernel before it,
//! answers each with a cookie. Legitimate clients in between must connect.
//!
//! | | source of a SYN | answered by | path of the answer |
//! |---|---|---|---|
//! | ours | a raw socket, into the device | our stack, which reads the device | into the device; the kernel drops it |
//! | the kernel's | a program that writes to the device | the kernel, in that write | into the device; the program reads it |
//!
//! The figure counts answers per second of CPU time. Ours is the time of our thread, which reads, answers and writes.
//! The kernel's is one system call that takes the SYN, answers it and queues the answer. Reading that answer is not
//! counted.
//!
//! `flood_beside_tun`: the rate at which the kernel reads from us beside a flood of SYNs, as a fraction of the rate
//! without it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, gettid};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto};
use steadfast::device::Tun;
use steadfast::stack::config::SynCookies;
use steadfast::stack::wire::tcp::Flags;
use steadfast::{Config, Net};
use steadfast_kernel::namespace;
use tokio::runtime;

use crate::flood::{PORT, segment_to, syn_to};
use crate::measure::{Effort, Rounds, thread_seconds};
use crate::report::{Goal, Row, Unit};
use crate::tun::{self, ECHO, Ready, Running, Server, Work, ended, ip, named, tun_options};

/// Number of different SYNs, each from another address.
const SYNS: u32 = 4096;
/// Difference between the numbers of two SYNs. It changes both address and port.
const STRIDE: u32 = 40_001;
/// Most unanswered SYNs. The device's queue holds 2,000 packets, so that it never overflows.
const UNDER_WAY: u64 = 1000;
/// SYNs between two checks of the number of unanswered ones.
const BURST: usize = 250;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Pause between two clients.
const BETWEEN: Duration = Duration::from_millis(10);
/// Shortest round in seconds.
const SECONDS: f64 = 0.5;

/// Runs the benchmark `synflood_tun`.
pub(crate) fn run(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let [ours, peer, our_wall, peer_wall] = match measure(effort, progress) {
        Ok(rounds) => rounds,
        Err(e) => {
            eprintln!("synflood_tun: not measured: {e}");
            return Vec::new();
        }
    };
    let row = |name: &str, ours, peer: Rounds, goal| {
        let peer = (!peer.0.is_empty()).then_some(peer);
        Row { name: name.to_owned(), unit: Unit::Events, ours, peer, goal }
    };
    vec![
        row("synflood_tun", ours, peer, Goal::Ratio(1.0)),
        row("synflood_tun by the clock", our_wall, peer_wall, Goal::Open),
    ]
}

fn measure(effort: &Effort, progress: &dyn Fn(String)) -> io::Result<[Rounds; 4]> {
    namespace::enter()?;
    namespace::set("net.ipv4.tcp_syncookies", "2")?;
    // Answers to spoofed addresses must not leave the host.
    namespace::set("net.ipv4.ip_forward", "0")?;
    // Local connections of the kernel need it.
    ip("link set lo up")?;
    let mut ours = Ours::start()?;
    let mut peer = (!effort.alone).then(Kernel::start).transpose()?;
    let seconds = effort.seconds.max(SECONDS);
    let mut rounds = [(); 4].map(|()| Rounds::default());
    for round in 0..=effort.rounds {
        progress(format!("synflood_tun: round {round} of {}", effort.rounds));
        let clients = Clients::start(Ours::ADDRESS);
        let our_figure = ours.flood(seconds, &clients)?;
        clients.end()?;
        let figures = match &mut peer {
            Some(peer) => {
                let clients = Clients::start(Kernel::ADDRESS);
                let figure = peer.flood(seconds)?;
                clients.end()?;
                vec![our_figure, figure]
            }
            None => vec![our_figure],
        };
        // The first round is a warm-up.
        for (side, figure) in figures.into_iter().enumerate().filter(|_| round > 0) {
            rounds[side].0.push(figure.answered / figure.processor);
            rounds[side + 2].0.push(figure.answered / figure.clock);
        }
    }
    Ok(rounds)
}

/// Rate of a flood beside a transfer, in SYNs per second (THREAT-1).
const BESIDE: u32 = 200_000;

/// Runs the benchmark `flood_beside_tun`.
pub(crate) fn beside(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    const NAME: &str = "flood_beside_tun";
    let measure = || {
        namespace::enter()?;
        namespace::set("net.ipv4.ip_forward", "0")?;
        ip("link set lo up")?;
        let server = Server::steadfast(&tun::Setup::USUAL)?;
        let (address, seconds) = (server.address(4), effort.seconds.max(SECONDS));
        let IpAddr::V4(to) = address else { unreachable!("it is one") };
        let (mut parts, mut floods) = (Rounds::default(), Rounds::default());
        for round in 0..=effort.rounds {
            progress(format!("{NAME}: round {round} of {}", effort.rounds));
            let alone = Work::Out.measure(address, seconds, 1)?.rate;
            let flood = Paced::start(to)?;
            let beside = Work::Out.measure(address, seconds, 1)?.rate;
            let sent = flood.end()?;
            if round > 0 {
                parts.0.push(beside / alone);
                floods.0.push(sent);
            }
        }
        io::Result::Ok((parts, floods))
    };
    match measure() {
        Ok((parts, floods)) => vec![
            Row { name: NAME.into(), unit: Unit::Part, ours: parts, peer: None, goal: Goal::Value(0.95) },
            Row {
                name: format!("{NAME} SYNs"),
                unit: Unit::Events,
                ours: floods,
                peer: None,
                goal: Goal::Open,
            },
        ],
        Err(e) => {
            eprintln!("{NAME}: not measured: {e}");
            Vec::new()
        }
    }
}

/// A thread that sends `BESIDE` SYNs per second.
struct Paced {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<f64>>,
}

impl Paced {
    fn start(to: Ipv4Addr) -> io::Result<Paced> {
        let out = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
        rustix::net::connect(&out, &SocketAddr::from((to, 0)))?;
        let syns: Vec<_> =
            (0..SYNS).map(|number| segment_to(to, ECHO, number * STRIDE, Flags::SYN)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let end = stop.clone();
        let thread = thread::spawn(move || {
            let (began, mut sent, mut syns) = (Instant::now(), 0_u32, syns.iter().cycle());
            while !end.load(Ordering::Relaxed) {
                let due = (began.elapsed().as_secs_f64() * f64::from(BESIDE)) as u32;
                for syn in syns.by_ref().take(due.saturating_sub(sent) as usize) {
                    // If the device's queue is full, the SYN is lost, as on any network.
                    rustix::net::send(&out, syn, SendFlags::empty()).ok();
                }
                sent = sent.max(due);
                thread::sleep(Duration::from_micros(500));
            }
            Ok(f64::from(sent) / began.elapsed().as_secs_f64())
        });
        Ok(Paced { stop, thread })
    }

    /// Stops the flood. Returns the SYNs sent per second.
    fn end(self) -> io::Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a flood does not panic")
    }
}

/// The result of a round.
#[derive(Default)]
struct Figure {
    /// Number of SYNs answered.
    answered: f64,
    /// CPU time that they took, in seconds.
    processor: f64,
    /// Wall-clock time that they took, in seconds.
    clock: f64,
}

fn syns(to: Ipv4Addr) -> Vec<Vec<u8>> {
    (0..SYNS).map(|number| syn_to(to, number * STRIDE)).collect()
}

/// Waits until at most `under_way` of the sent SYNs are unanswered.
fn await_answers(sent: u64, under_way: u64, answered: impl Fn() -> u64) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while sent > answered() + under_way {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "SYNs are lost"));
        }
        thread::yield_now();
    }
    Ok(())
}

/// Our stack, and a socket for sending packets to it.
struct Ours {
    net: Net,
    /// The thread of the stack.
    thread: Pid,
    out: OwnedFd,
    syns: Vec<Vec<u8>>,
    _running: Running,
}

impl Ours {
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

    fn start() -> io::Result<Ours> {
        let options = tun_options(9, true);
        let serve = async move |ready: Ready<(Net, Pid)>, stopped| {
            let config = Config { tcp_syncookies: SynCookies::Always, ..Config::default() };
            let net = Net::builder().config(config).address(Ours::ADDRESS, 24);
            let net = net.start(Tun::open(&options).await?)?;
            let listener = steadfast::TcpListener::bind(&net, (Ours::ADDRESS, PORT)).await?;
            tokio::spawn(async move { while listener.accept().await.is_ok() {} });
            ready.send(Ok((net, gettid()))).ok();
            ended(stopped).await
        };
        let (_running, (net, thread)) = Running::start(1, serve)?;
        let out = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
        rustix::net::connect(&out, &SocketAddr::from((Ours::ADDRESS, 0)))?;
        Ok(Ours { net, thread, out, syns: syns(Ours::ADDRESS), _running })
    }

    fn flood(&mut self, seconds: f64, clients: &Clients) -> io::Result<Figure> {
        // Clients get cookies too.
        let answered = || self.net.counters().syncookies_sent - clients.connected.load(Ordering::Relaxed);
        let (first, used, began) = (answered(), processor_seconds(self.thread)?, Instant::now());
        let (mut syns, mut sent) = (self.syns.iter().cycle(), first);
        while began.elapsed().as_secs_f64() < seconds {
            for syn in syns.by_ref().take(BURST) {
                rustix::net::send(&self.out, syn, SendFlags::empty())?;
            }
            sent += BURST as u64;
            await_answers(sent, UNDER_WAY, answered)?;
        }
        await_answers(sent, 0, answered)?;
        Ok(Figure {
            answered: (sent - first) as f64,
            processor: processor_seconds(self.thread)? - used,
            clock: began.elapsed().as_secs_f64(),
        })
    }
}

/// A listener of the kernel, and the device through which it is flooded.
struct Kernel {
    device: OwnedFd,
    syns: Vec<Vec<u8>>,
}

impl Kernel {
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);

    fn start() -> io::Result<Kernel> {
        let mut options = tun_options(7, true);
        options.routes = vec![(Ipv4Addr::new(11, 0, 0, 0).into(), 8)];
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        // No task waits on this device: waking one would cost more than an answer.
        let device = async { Tun::open(&options).await?.as_fd().try_clone_to_owned() };
        let device = runtime.block_on(device)?;
        let listener = TcpListener::bind((Kernel::ADDRESS, PORT))?;
        // The thread ends with the process.
        thread::spawn(move || listener.incoming().for_each(drop));
        let syns = syns(Kernel::ADDRESS).into_iter().map(|syn| [&VIRTIO, &syn[..]].concat()).collect();
        Ok(Kernel { device, syns })
    }

    fn flood(&mut self, seconds: f64) -> io::Result<Figure> {
        let mut figure = Figure::default();
        let (began, mut syns) = (Instant::now(), self.syns.iter().cycle());
        while began.elapsed().as_secs_f64() < seconds {
            let (used, writing) = (thread_seconds(), Instant::now());
            for syn in syns.by_ref().take(BURST) {
                rustix::io::write(&self.device, syn)?;
            }
            figure.processor += thread_seconds() - used;
            figure.clock += writing.elapsed().as_secs_f64();
            figure.answered += self.answers()?;
        }
        Ok(figure)
    }

    /// Reads the answers to a burst from the device. They are all there already.
    fn answers(&self) -> io::Result<f64> {
        let (mut buffer, mut count) = ([0; 2048], 0);
        while count < BURST {
            let len = rustix::io::read(&self.device, &mut buffer).map_err(|e| named(e, "SYNs are lost"))?;
            count += usize::from(is_syn_ack(&buffer[VIRTIO.len()..len]));
        }
        Ok(count as f64)
    }
}

/// The `virtio_net_hdr` of a packet that needs no offload.
const VIRTIO: [u8; 10] = [0; 10];

/// Returns whether the packet is a SYN-ACK over IPv4.
fn is_syn_ack(packet: &[u8]) -> bool {
    packet.first() == Some(&0x45) && packet.get(33).is_some_and(|flags| flags & 0x12 == 0x12)
}

/// Returns the CPU time of a thread of this process in seconds.
fn processor_seconds(thread: Pid) -> io::Result<f64> {
    let times = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))?;
    let nanoseconds = times.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    Ok(nanoseconds.ok_or(io::ErrorKind::InvalidData)? / 1e9)
}

/// Legitimate clients, which connect one after the other.
struct Clients {
    stop: Arc<AtomicBool>,
    connected: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Clients {
    fn start(server: Ipv4Addr) -> Clients {
        let (stop, connected) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count) = (stop.clone(), connected.clone());
        let thread = thread::spawn(move || {
            let at = SocketAddr::new(IpAddr::V4(server), PORT);
            while !end.load(Ordering::Relaxed) {
                let stream = TcpStream::connect_timeout(&at, PATIENCE);
                stream.map_err(|e| named(e, "a client cannot connect"))?;
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(BETWEEN);
            }
            Ok(())
        });
        Clients { stop, connected, thread }
    }

    /// Stops the clients. Fails if one could not connect, or if none tried.
    fn end(self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a client does not panic")?;
        match self.connected.load(Ordering::Relaxed) {
            0 => Err(io::Error::other("no client came")),
            _ => Ok(()),
        }
    }
}

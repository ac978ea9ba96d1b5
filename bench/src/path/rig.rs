//! Sender, emulator and receiver: two namespaces with a TUN device each, and our stack.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_tcp_congestion;
use steadfast::device::memory::{self, MemoryDevice};
use steadfast::device::{Tun, TunOptions};
use steadfast::{Config, Net};
use steadfast_kernel::namespace;
use steadfast_lab::path::Setup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::{mpsc as async_mpsc, oneshot};

use super::emulator::{Emulator, Order, Report};

pub(super) const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 1);
pub(super) const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 2);
const OURS: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 3);
const MTU: u16 = 1500;
/// Its service: reads eight bytes with a length, and sends so many bytes; then again.
const PORT: u16 = 19;
const CHUNK: usize = 64 * 1024;
/// A transfer without data for this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Ours,
    Kernel,
}

impl Side {
    fn address(self) -> SocketAddr {
        let address = if self == Side::Ours { OURS } else { KERNEL };
        (address, PORT).into()
    }
}

/// Everything that a round needs. The receiver's sockets belong to the namespace of the thread that made it.
pub(super) struct Rig {
    orders: Option<async_mpsc::UnboundedSender<Order>>,
    emulator: Option<JoinHandle<()>>,
    kernel: Option<mpsc::Sender<mpsc::Sender<u64>>>,
    net: Net,
    _stack: Runtime,
}

impl Rig {
    /// Moves this thread into a namespace, and starts all parts.
    pub(super) fn new() -> io::Result<Rig> {
        namespace::enter()?;
        set_up_namespace()?;
        let devices = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let near = open(devices.handle(), "path0", RECEIVER)?;
        let (far, kernel) = start_kernel(devices.handle())?;
        let (inside, outside) = memory::pair(MTU);
        let stack = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let net = stack.block_on(serve(inside))?;
        let (orders, taken) = async_mpsc::unbounded_channel();
        let emulator = thread::spawn(move || {
            // This thread turns the runtime with which the devices are registered.
            let far: Vec<(Ipv4Addr, Box<dyn steadfast::device::Device>)> =
                vec![(KERNEL, Box::new(far)), (OURS, Box::new(outside))];
            let ended = devices.block_on(async { Emulator::new(Box::new(near), far, taken)?.run().await });
            if let Err(error) = ended {
                eprintln!("the emulator ended: {error}");
            }
        });
        Ok(Rig { orders: Some(orders), emulator: Some(emulator), kernel: Some(kernel), net, _stack: stack })
    }

    /// Sets up the paths of a round.
    pub(super) fn begin(&self, down: &Setup, up: &Setup, seed: u64) {
        self.order(Order::Begin { down: Box::new(down.clone()), up: Box::new(up.clone()), seed });
    }

    /// Ends a round.
    pub(super) fn end(&self) -> io::Result<Report> {
        let (answer, report) = oneshot::channel();
        self.order(Order::End(answer));
        report.blocking_recv().map_err(|_| io::Error::other("the emulator has ended"))
    }

    fn order(&self, order: Order) {
        // The next call that needs an answer reports that the emulator has ended.
        self.orders.as_ref().map(|orders| orders.send(order));
    }

    /// Retransmission timeouts of a sender so far.
    pub(super) fn timeouts(&self, side: Side) -> u64 {
        match side {
            Side::Ours => self.net.counters().tcp_timeouts,
            Side::Kernel => {
                let (answer, timeouts) = mpsc::channel();
                self.kernel.as_ref().map(|kernel| kernel.send(answer));
                timeouts.recv().unwrap_or_default()
            }
        }
    }

    /// Receives from `side` for so many seconds. Returns the bytes of each tenth of the time.
    pub(super) fn stream(&self, side: Side, seconds: f64) -> io::Result<Vec<u64>> {
        let mut stream = connect(side)?;
        ask(&mut stream, u64::MAX)?;
        let (start, mut tenths, mut buffer) = (Instant::now(), vec![0; 10], vec![0; CHUNK]);
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        loop {
            let tenth = (start.elapsed().as_secs_f64() / seconds * 10.0) as usize;
            if tenth >= 10 {
                return Ok(tenths);
            }
            match stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => tenths[tenth] += read as u64,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Asks for `bytes` once over a new connection. Returns the time until the last byte.
    pub(super) fn response(&self, side: Side, bytes: u64) -> io::Result<Duration> {
        let mut stream = connect(side)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        receive(&mut stream, bytes)
    }

    /// Asks for `bytes` again and again over one connection, every `period`. Returns the time of each.
    pub(super) fn chunks(
        &self,
        side: Side,
        bytes: u64,
        period: Duration,
        count: usize,
    ) -> io::Result<Vec<Duration>> {
        let mut stream = connect(side)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut all = Vec::new();
        for _ in 0..count {
            let took = receive(&mut stream, bytes)?;
            all.push(took);
            thread::sleep(period.saturating_sub(took));
        }
        Ok(all)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.orders.take());
        drop(self.kernel.take());
        if let Some(emulator) = self.emulator.take() {
            emulator.join().ok();
        }
    }
}

fn connect(side: Side) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&side.address(), PATIENCE)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, bytes: u64) -> io::Result<()> {
    stream.write_all(&bytes.to_be_bytes())
}

/// Asks for `bytes` and reads them.
fn receive(stream: &mut TcpStream, bytes: u64) -> io::Result<Duration> {
    let start = Instant::now();
    ask(stream, bytes)?;
    let (mut left, mut buffer) = (bytes, vec![0; CHUNK]);
    while left > 0 {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= read as u64,
        }
    }
    Ok(start.elapsed())
}

/// Forgets what earlier connections learnt about the path, so that rounds are independent.
pub(super) fn set_up_namespace() -> io::Result<()> {
    namespace::quieten().map_err(io::Error::other)?;
    namespace::set("net.ipv4.tcp_no_metrics_save", "1").map_err(io::Error::other)
}

/// Opens a device in the namespace of this thread.
pub(super) fn open(runtime: &Handle, name: &str, address: Ipv4Addr) -> io::Result<Tun> {
    let mut options = TunOptions::new(name);
    options.mtu = Some(MTU);
    options.host = vec![(address.into(), 24)];
    options.queue_len = Some(2000);
    // Packets are those of a wire.
    options.offload = false;
    Ok(runtime.block_on(Tun::open(&options))?)
}

/// A question for the kernel's timeouts.
type Question = mpsc::Sender<u64>;

/// Starts the kernel as a sender in a namespace of its own. It answers questions for its timeouts, until they end.
fn start_kernel(runtime: &Handle) -> io::Result<(Tun, mpsc::Sender<Question>)> {
    let runtime = runtime.clone();
    let (ready, started) = mpsc::channel();
    let (ask, asked) = mpsc::channel::<Question>();
    thread::spawn(move || {
        let start = || {
            namespace::enter()?;
            set_up_namespace()?;
            let tun = open(&runtime, "path1", KERNEL)?;
            let listener = TcpListener::bind((KERNEL, PORT))?;
            set_tcp_congestion(&listener, "cubic")?;
            // The threads end with their connections, and this one with the process.
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    thread::spawn(move || attend(stream));
                }
            });
            io::Result::Ok(tun)
        };
        ready.send(start()).ok();
        for question in asked {
            question.send(kernel_timeouts().unwrap_or_default()).ok();
        }
    });
    let tun = started.recv().map_err(|_| io::Error::other("the kernel's thread has ended"))??;
    Ok((tun, ask))
}

/// Reads the counter of the namespace of this thread.
fn kernel_timeouts() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:")).map(str::split_whitespace);
    let (names, values) = (lines.next()?, lines.next()?);
    names.zip(values).find(|(name, _)| *name == "TCPTimeouts")?.1.parse().ok()
}

/// Serves a connection of the kernel. An error means that the receiver has closed it.
fn attend(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (chunk, mut length) = (vec![1; CHUNK], [0; 8]);
    loop {
        stream.read_exact(&mut length)?;
        let mut left = u64::from_be_bytes(length);
        while left > 0 {
            let len = left.min(CHUNK as u64) as usize;
            stream.write_all(&chunk[..len])?;
            left -= len as u64;
        }
    }
}

/// Starts our stack and its service.
async fn serve(device: MemoryDevice) -> io::Result<Net> {
    let net = Net::builder().config(Config::default()).address(OURS, 24).start(device)?;
    let listener = steadfast::TcpListener::bind(&net, (OURS, PORT)).await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move { attend_ours(stream).await.ok() });
        }
    });
    Ok(net)
}

async fn attend_ours(mut stream: steadfast::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (chunk, mut length) = (vec![1; CHUNK], [0; 8]);
    loop {
        stream.read_exact(&mut length).await?;
        let mut left = u64::from_be_bytes(length);
        while left > 0 {
            let len = left.min(CHUNK as u64) as usize;
            stream.write_all(&chunk[..len]).await?;
            left -= len as u64;
        }
    }
}

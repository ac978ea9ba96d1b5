//! Benchmarks over TUN: a client on the kernel's stack against our stack. The peer in bulk is smoltcp on a TUN device,
//! and otherwise the kernel over veth. Namespaces and devices are created here and disappear with their threads.
//!
//! Figures are per second of wall-clock time. CPU time is that of the whole process, client included.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};
use rustix::net::sockopt::set_tcp_congestion;
use rustix::net::{AddressFamily, SocketType};
use rustix::time::{ClockId, clock_gettime};
use steadfast::device::{Tun, TunOptions};
use steadfast::{Config, Net};
use steadfast_kernel::namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime;
use tokio::sync::oneshot;

use crate::measure::{Effort, Rounds};
use crate::report::{Goal, Row, Unit};
use crate::tun_peer::{self, Service};

/// The service of a connection, selected by its port. Ports lie below the range of ephemeral ports.
const SINK: u16 = 9;
const SOURCE: u16 = 19;
pub(crate) const ECHO: u16 = 7;
/// Answers one byte and closes.
const ONCE: u16 = 37;
const SERVICES: [u16; 4] = [SINK, SOURCE, ECHO, ONCE];

/// Bytes of a write or read in bulk.
const CHUNK: usize = 256 * 1024;
/// Bytes of a message in a round trip.
const MESSAGE: usize = 64;
/// Number of connections in `tun_flows`.
const FLOWS: usize = 8;
/// Shortest round in seconds: a shorter one measures slow start.
const SECONDS: f64 = 0.5;

/// Rates of the kernel with a program that copies between two TUN devices, as fractions of its rates over veth on the
/// same machine. They are the goals, since our stack crosses a device too.
const COPIER_RR: f64 = 0.67;
const COPIER_CRR: f64 = 0.78;

/// The client's work in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    In,
    Out,
    RoundTrip,
    ConnectRequestResponse,
}

/// The result of a round.
pub(crate) struct Figure {
    /// Bits or events per second.
    pub(crate) rate: f64,
    /// CPU time of the process, in seconds per second.
    processor: f64,
}

impl Work {
    fn unit(self) -> Unit {
        match self {
            Work::In | Work::Out => Unit::Bits,
            Work::RoundTrip | Work::ConnectRequestResponse => Unit::Events,
        }
    }

    fn port(self) -> u16 {
        match self {
            Work::In => SINK,
            Work::Out => SOURCE,
            Work::RoundTrip => ECHO,
            Work::ConnectRequestResponse => ONCE,
        }
    }

    /// Measures one round of `flows` connections to `server`.
    pub(crate) fn measure(self, server: IpAddr, seconds: f64, flows: usize) -> io::Result<Figure> {
        let used = process_seconds();
        let rate = thread::scope(|scope| {
            let flow = || scope.spawn(|| self.measure_flow(server, seconds));
            let flows: Vec<_> = (0..flows).map(|_| flow()).collect();
            flows
                .into_iter()
                .map(|flow| flow.join().expect("a client does not panic"))
                .sum::<io::Result<f64>>()
        })?;
        Ok(Figure { rate, processor: (process_seconds() - used) / seconds })
    }

    fn measure_flow(self, server: IpAddr, seconds: f64) -> io::Result<f64> {
        let at = SocketAddr::new(server, self.port());
        let mut stream = None;
        if self != Work::ConnectRequestResponse {
            stream = Some(connect(at)?);
        }
        let mut buffer = vec![1; CHUNK];
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed().as_secs_f64() < seconds {
            done += match &mut stream {
                Some(stream) if self == Work::In => stream.write(&buffer)? * 8,
                Some(stream) if self == Work::Out => stream.read(&mut buffer)? * 8,
                Some(stream) => {
                    stream.write_all(&buffer[..MESSAGE])?;
                    stream.read_exact(&mut buffer[..MESSAGE])?;
                    1
                }
                None => {
                    let mut stream = TcpStream::connect(at)?;
                    stream.write_all(&buffer[..1])?;
                    stream.read_to_end(&mut Vec::new())?;
                    1
                }
            };
        }
        Ok(done as f64 / start.elapsed().as_secs_f64())
    }
}

/// Connects with CUBIC. The default of the machine may be BBR, whose pacing would stay if the algorithm changed later.
fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    set_tcp_congestion(&socket, "cubic")?;
    rustix::net::connect(&socket, &at)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn process_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Bulk towards our stack, over IPv4 and IPv6.
pub(crate) fn bulk_in(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    bulk(&[Work::In], &Setup::USUAL, Goal::Ratio(1.0), effort, progress)
}

/// Bulk from our stack.
pub(crate) fn bulk_out(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    bulk(&[Work::Out], &Setup::USUAL, Goal::Ratio(1.0), effort, progress)
}

/// Bulk in both directions without offload.
pub(crate) fn bulk_plain(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    bulk(&[Work::In, Work::Out], &Setup { offload: false, ..Setup::USUAL }, Goal::Open, effort, progress)
}

fn bulk(works: &[Work], setup: &Setup, goal: Goal, effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let mut rows = Vec::new();
    for &work in works {
        for (version, ip) in [(4, ""), (6, " IPv6")] {
            let way = if work == Work::In { "in" } else { "out" };
            let plain = if setup.offload { "" } else { " plain" };
            let name = format!("tun_bulk_1500 {way}{ip}{plain}");
            rows.extend(versus(&name, work, version, setup, goal, effort, progress));
        }
    }
    rows
}

/// Round trips of 64 bytes.
pub(crate) fn round_trip(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    on_all_cores_and_on_one("tun_rr", Work::RoundTrip, COPIER_RR, effort, progress)
}

/// Connect, exchange a byte in each direction, close.
pub(crate) fn connect_request_response(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    on_all_cores_and_on_one("tun_crr", Work::ConnectRequestResponse, COPIER_CRR, effort, progress)
}

/// Measures on all cores and on one. Request and response are bound by the time that a sleeping core takes to wake up,
/// unless both ends share a core.
fn on_all_cores_and_on_one(
    name: &str,
    work: Work,
    goal: f64,
    effort: &Effort,
    progress: &dyn Fn(String),
) -> Vec<Row> {
    let mut rows = versus(name, work, 4, &Setup::USUAL, Goal::Ratio(goal), effort, progress);
    let one = Setup { one_core: true, ..Setup::USUAL };
    rows.extend(versus(&format!("{name} 1 core"), work, 4, &one, Goal::Open, effort, progress));
    rows
}

/// Measures several connections to one queue and to two, with a thread for each queue.
pub(crate) fn flows(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let mut rows = Vec::new();
    for (offload, what) in [(true, ""), (false, " plain")] {
        for (queues, many) in [(1, "1 queue"), (2, "2 queues")] {
            let setup = Setup { offload, queues, flows: FLOWS, ..Setup::USUAL };
            let name = format!("tun_flows {many}{what}");
            let measured = versus(&name, Work::In, 4, &setup, Goal::Open, effort, progress);
            // `tun_bulk_1500` reports the CPU time.
            rows.extend(measured.into_iter().take(1));
        }
    }
    rows
}

/// The configuration of our stack, and the number of concurrent connections.
pub(crate) struct Setup {
    offload: bool,
    queues: usize,
    flows: usize,
    /// Client and server of both sides share a core.
    one_core: bool,
}

impl Setup {
    pub(crate) const USUAL: Setup = Setup { offload: true, queues: 1, flows: 1, one_core: false };
}

/// Measures a benchmark, and returns its row. Bulk has a second row with the CPU time.
fn versus(
    name: &str,
    work: Work,
    version: u8,
    setup: &Setup,
    goal: Goal,
    effort: &Effort,
    progress: &dyn Fn(String),
) -> Vec<Row> {
    let measure = || {
        let _pinned = setup.one_core.then(Pinned::to_one_core).transpose()?;
        // This applies to this thread and to those that it starts. The namespace of the row before disappears.
        namespace::enter()?;
        let ours = Server::steadfast(setup)?;
        let peer = match work {
            _ if effort.alone => None,
            Work::In | Work::Out if setup.flows == 1 => Some(Server::smoltcp(setup)?),
            _ => Some(Server::kernel()?),
        };
        let seconds = effort.seconds.max(SECONDS);
        let mut rounds = [(); 4].map(|()| Rounds::default());
        for round in 0..=effort.rounds {
            progress(format!("{name}: round {round} of {}", effort.rounds));
            let figures = [Some(&ours), peer.as_ref()].map(|server| {
                server.map(|server| work.measure(server.address(version), seconds, setup.flows))
            });
            for (side, figure) in figures.into_iter().enumerate() {
                let Some(figure) = figure.transpose()? else { continue };
                // The first round is a warm-up.
                if round > 0 {
                    rounds[side].0.push(figure.rate);
                    rounds[side + 2].0.push(figure.processor / (figure.rate / 1e9));
                }
            }
        }
        io::Result::Ok(rounds)
    };
    let [ours, peer, our_cost, peer_cost] = match measure() {
        Ok(rounds) => rounds,
        Err(e) => {
            eprintln!("{name}: not measured: {e}");
            return Vec::new();
        }
    };
    let some = |rounds: Rounds| (!rounds.0.is_empty()).then_some(rounds);
    let unit = work.unit();
    let mut rows = vec![Row { name: name.to_owned(), unit, ours, peer: some(peer), goal }];
    if unit == Unit::Bits {
        let name = name.replace("tun_bulk_1500", "cpu_per_gbit");
        let goal = if setup.offload { Goal::Value(40e-3) } else { Goal::Open };
        rows.push(Row { name, unit: Unit::Seconds, ours: our_cost, peer: some(peer_cost), goal });
    }
    rows
}

/// Restricts this thread, and those that it starts, to one core until it is dropped.
struct Pinned {
    before: CpuSet,
}

impl Pinned {
    fn to_one_core() -> io::Result<Pinned> {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this)?;
        let mut one = CpuSet::new();
        let allowed = |core: &usize| before.is_set(*core).unwrap_or(false);
        one.set((0..CpuSet::count()).rfind(allowed).unwrap_or(0))?;
        sched_setaffinity(this, &one)?;
        Ok(Pinned { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        sched_setaffinity(Pid::from_raw(0), &self.before).ok();
    }
}

/// A server that the kernel of this namespace can reach.
pub(crate) struct Server {
    addresses: (Ipv4Addr, Ipv6Addr),
    _running: Running,
}

impl Server {
    pub(crate) fn address(&self, version: u8) -> IpAddr {
        if version == 4 { self.addresses.0.into() } else { self.addresses.1.into() }
    }

    /// Starts our stack on a TUN device in this namespace, with one thread for each queue.
    pub(crate) fn steadfast(setup: &Setup) -> io::Result<Server> {
        let addresses = (Ipv4Addr::new(10, 9, 0, 2), Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2));
        let options = tun_options(9, setup.offload);
        let queues = setup.queues;
        let serve = async move |ready: Ready<()>, stopped| {
            serve(&options, queues, addresses).await?;
            ready.send(Ok(())).ok();
            ended(stopped).await
        };
        let (_running, ()) = Running::start(queues, serve)?;
        Ok(Server { addresses, _running })
    }

    /// Starts smoltcp on another TUN device in this namespace.
    fn smoltcp(setup: &Setup) -> io::Result<Server> {
        let addresses = (Ipv4Addr::new(10, 7, 0, 2), Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 2));
        let options = tun_options(7, setup.offload);
        let serve = async move |ready: Ready<()>, stopped| {
            let tun = Tun::open(&options).await?;
            ready.send(Ok(())).ok();
            let ports = [(SINK, Service::Sink), (SOURCE, Service::Source)];
            tun_peer::serve(tun, addresses, ports, stopped).await
        };
        let (_running, ()) = Running::start(1, serve)?;
        Ok(Server { addresses, _running })
    }

    /// Starts the kernel's services in a namespace behind a veth.
    fn kernel() -> io::Result<Server> {
        let addresses = (Ipv4Addr::new(10, 8, 0, 2), Ipv6Addr::new(0xfd08, 0, 0, 0, 0, 0, 0, 2));
        let (wired, wire) = oneshot::channel::<()>();
        let (up, is_up) = mpsc::channel();
        let serve = async move |ready: Ready<Pid>, stopped| {
            namespace::enter()?;
            ready.send(Ok(gettid())).ok();
            if wire.await.is_ok() {
                up.send(serve_by_kernel(addresses)).ok();
            }
            ended(stopped).await
        };
        let (_running, there) = Running::start(1, serve)?;
        ip(&format!("link add bench1 type veth peer name bench2 netns {there}"))?;
        ip("address add 10.8.0.1/24 dev bench1")?;
        ip("address add fd08::1/64 dev bench1 nodad")?;
        ip("link set bench1 up")?;
        wired.send(()).expect("the server waits");
        is_up.recv().expect("the server says how it began")?;
        Ok(Server { addresses, _running })
    }
}

/// The channel on which a server reports whether it has started.
pub(crate) type Ready<T> = mpsc::Sender<io::Result<T>>;

/// A thread with a runtime, which ends when this is dropped.
pub(crate) struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Runs `serve` on a runtime with this many threads, and waits until it reports that it is ready. `serve` must
    /// return when its second argument resolves.
    pub(crate) fn start<T: Send + 'static>(
        threads: usize,
        serve: impl AsyncFnOnce(Ready<T>, oneshot::Receiver<()>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<(Running, T)> {
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut builder = match threads {
                1 => runtime::Builder::new_current_thread(),
                _ => runtime::Builder::new_multi_thread(),
            };
            let runtime = builder.worker_threads(threads).enable_all().build();
            let served = runtime.and_then(|runtime| runtime.block_on(serve(ready.clone(), stopped)));
            if let Err(e) = served {
                ready.send(Err(e)).ok();
            }
        });
        let value = started.recv().expect("the server says how it began")?;
        Ok((Running { stop: Some(stop), thread: Some(thread) }, value))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Waits until the server is stopped.
pub(crate) async fn ended(stopped: oneshot::Receiver<()>) -> io::Result<()> {
    stopped.await.ok();
    Ok(())
}

/// Returns the options of the device in the networks 10.`number`.0.0/24 and fd0`number`::/64. The kernel has their
/// first address.
pub(crate) fn tun_options(number: u8, offload: bool) -> TunOptions {
    let mut options = TunOptions::new(format!("bench{number}"));
    let prefix = 0xfd00 + u16::from(number);
    options.host = vec![(Ipv4Addr::new(10, number, 0, 1).into(), 24)];
    options.host.push((Ipv6Addr::new(prefix, 0, 0, 0, 0, 0, 0, 1).into(), 64));
    options.queue_len = Some(2000);
    options.offload = offload;
    options
}

/// Opens the device and starts all services on it.
async fn serve(options: &TunOptions, queues: usize, addresses: (Ipv4Addr, Ipv6Addr)) -> io::Result<()> {
    let device = Tun::open_queues(options, queues).await?;
    let builder = Net::builder().config(Config::default());
    let net = builder.address(addresses.0, 24).address(addresses.1, 64).start_queues(device)?;
    for service in SERVICES {
        for address in [IpAddr::V4(addresses.0), IpAddr::V6(addresses.1)] {
            let listener = steadfast::TcpListener::bind(&net, (address, service)).await?;
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    // An error means that the client has closed its end.
                    tokio::spawn(async move { attend(stream, service).await.ok() });
                }
            });
        }
    }
    Ok(())
}

async fn attend(mut stream: steadfast::TcpStream, service: u16) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![1; buffer_len(service)];
    loop {
        match service {
            SOURCE => stream.write_all(&buffer).await?,
            _ => match (service, stream.read(&mut buffer).await?) {
                (_, 0) => return Ok(()),
                (ECHO, len) => stream.write_all(&buffer[..len]).await?,
                (ONCE, _) => return stream.write_all(&[1]).await,
                (_, _) => {}
            },
        }
    }
}

/// Returns the buffer size in bytes. A short connection must not pay for a large buffer.
fn buffer_len(service: u16) -> usize {
    if service == ONCE { MESSAGE } else { CHUNK }
}

/// Starts the same services on the kernel's stack, with a thread for each connection.
fn serve_by_kernel(addresses: (Ipv4Addr, Ipv6Addr)) -> io::Result<()> {
    ip("address add 10.8.0.2/24 dev bench2")?;
    ip("address add fd08::2/64 dev bench2 nodad")?;
    ip("link set bench2 up")?;
    for service in SERVICES {
        for address in [IpAddr::V4(addresses.0), IpAddr::V6(addresses.1)] {
            let listener = TcpListener::bind((address, service))?;
            set_tcp_congestion(&listener, "cubic")?;
            // The thread ends with the process. It does nothing after its round.
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    match service {
                        ONCE => attend_by_kernel(stream, service).unwrap_or_default(),
                        _ => drop(thread::spawn(move || attend_by_kernel(stream, service))),
                    }
                }
            });
        }
    }
    Ok(())
}

fn attend_by_kernel(mut stream: TcpStream, service: u16) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![1; buffer_len(service)];
    loop {
        match service {
            SOURCE => stream.write_all(&buffer)?,
            _ => match (service, stream.read(&mut buffer)?) {
                (_, 0) => return Ok(()),
                (ECHO, len) => stream.write_all(&buffer[..len])?,
                (ONCE, _) => return stream.write_all(&[1]),
                (_, _) => {}
            },
        }
    }
}

pub(crate) fn ip(arguments: &str) -> io::Result<()> {
    let done = Command::new("ip").args(arguments.split(' ')).output().map_err(|e| named(e, "ip"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("ip {arguments}: {}", said.trim())))
}

pub(crate) fn named(error: impl Into<io::Error>, what: &str) -> io::Error {
    let error = error.into();
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

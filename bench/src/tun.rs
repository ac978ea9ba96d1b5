//! Benches over TUN: a client of the kernel against our stack, beside the same client against smoltcp on a TUN device in
//! bulk, and against the kernel over veth in the rest. Namespaces and devices are made here, and go with the threads that are in them.
//!
//! The figures are by the wall clock, with the processor time that this process took for them, client included.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::unistd::{Pid, gettid};
use rustix::net::sockopt::set_tcp_congestion;
use rustix::net::{AddressFamily, SocketType};
use rustix::time::{ClockId, clock_gettime};
use steadfast::device::{Tun, TunOptions};
use steadfast::{Config, Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime;
use tokio::sync::oneshot;

use crate::benches::Effort;
use crate::measure::Rounds;
use crate::report::{Goal, Row, Unit};
use crate::tun_peer::{self, Service};

/// What a server does with a connection; its port says which, below the range that clients take theirs from.
const SINK: u16 = 9;
const SOURCE: u16 = 19;
pub(crate) const ECHO: u16 = 7;
/// Answers one byte and closes.
const ONCE: u16 = 37;
const SERVICES: [u16; 4] = [SINK, SOURCE, ECHO, ONCE];

/// Bytes of a write or read in bulk.
const CHUNK: usize = 256 * 1024;
/// Bytes of a message that goes there and back.
const MESSAGE: usize = 64;
/// Connections where there are to be many.
const FLOWS: usize = 8;
/// Of one round at the least: shorter ones measure slow start.
const SECONDS: f64 = 0.5;

/// What the kernel reached through two TUN devices and a program that copies between them, as a part of what it reached
/// over veth on the same machine: 133 of 198 k/s, and 21 of 27.
const COPIER_RR: f64 = 0.67;
const COPIER_CRR: f64 = 0.78;

/// What the client does for a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    In,
    Out,
    RoundTrip,
    ConnectRequestResponse,
}

/// What a round came to.
pub(crate) struct Figure {
    /// Bits or events in a second.
    pub(crate) rate: f64,
    /// Processor time of the process in a second.
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

    /// One round of so many flows against `server`.
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

/// Connects with CUBIC: the default of the machine may be BBR, whose pacing would stay if it were changed later.
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

/// To us, over both versions of IP.
pub(crate) fn bulk_in(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    bulk(&[Work::In], &Setup::USUAL, Goal::Ratio(1.0), effort, progress)
}

/// From us.
pub(crate) fn bulk_out(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    bulk(&[Work::Out], &Setup::USUAL, Goal::Ratio(1.0), effort, progress)
}

/// Both without offload.
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

/// 64 bytes there and back.
pub(crate) fn round_trip(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    on_all_cores_and_on_one("tun_rr", Work::RoundTrip, COPIER_RR, effort, progress)
}

/// Connect, a byte there and back, close.
pub(crate) fn connect_request_response(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    on_all_cores_and_on_one("tun_crr", Work::ConnectRequestResponse, COPIER_CRR, effort, progress)
}

/// What waits for an answer is bound by how long a sleeping core takes to wake up, unless both ends share one.
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

/// Many flows to one queue and to two, with a thread for each queue.
pub(crate) fn flows(effort: &Effort, progress: &dyn Fn(String)) -> Vec<Row> {
    let mut rows = Vec::new();
    for (offload, what) in [(true, ""), (false, " plain")] {
        for (queues, many) in [(1, "1 queue"), (2, "2 queues")] {
            let setup = Setup { offload, queues, flows: FLOWS, ..Setup::USUAL };
            let name = format!("tun_flows {many}{what}");
            let measured = versus(&name, Work::In, 4, &setup, Goal::Open, effort, progress);
            // Its cost is told by `tun_bulk_1500`.
            rows.extend(measured.into_iter().take(1));
        }
    }
    rows
}

/// How our stack is set up, and how many connections work at a time.
pub(crate) struct Setup {
    offload: bool,
    queues: usize,
    flows: usize,
    /// Client and server, of either side, share a core.
    one_core: bool,
}

impl Setup {
    pub(crate) const USUAL: Setup = Setup { offload: true, queues: 1, flows: 1, one_core: false };
}

/// A row, and for bulk one more with the processor time.
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
        // This thread, and those that it starts from now on; the namespace of the row before goes.
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| named(e, "cannot make a network namespace"))?;
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
                // The first round only warms up.
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

/// This thread, and those that it starts, run on one core as long as this lives.
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

/// A server that the kernel of this namespace reaches.
pub(crate) struct Server {
    addresses: (Ipv4Addr, Ipv6Addr),
    _running: Running,
}

impl Server {
    pub(crate) fn address(&self, version: u8) -> IpAddr {
        if version == 4 { self.addresses.0.into() } else { self.addresses.1.into() }
    }

    /// Our stack, on a TUN device in this namespace, driven by one thread for each queue.
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

    /// smoltcp, on another TUN device in this namespace.
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

    /// The kernel's own, in a namespace behind a veth.
    fn kernel() -> io::Result<Server> {
        let addresses = (Ipv4Addr::new(10, 8, 0, 2), Ipv6Addr::new(0xfd08, 0, 0, 0, 0, 0, 0, 2));
        let (wired, wire) = oneshot::channel::<()>();
        let (up, is_up) = mpsc::channel();
        let serve = async move |ready: Ready<Pid>, stopped| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| named(e, "no second namespace"))?;
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

/// By which a server says how it began.
pub(crate) type Ready<T> = mpsc::Sender<io::Result<T>>;

/// A thread with a runtime, which ends when this is dropped.
pub(crate) struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Waits until `serve`, on so many threads, has said that it is ready. It is to return when its second argument
    /// resolves.
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

/// Waits for the end.
pub(crate) async fn ended(stopped: oneshot::Receiver<()>) -> io::Result<()> {
    stopped.await.ok();
    Ok(())
}

/// The device in the networks 10.`number`.0.0/24 and fd0`number`::/64, of which the kernel is the first host.
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
                    // A client that has enough goes away.
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

/// A connection that comes and goes is not to pay for a large one.
fn buffer_len(service: u16) -> usize {
    if service == ONCE { MESSAGE } else { CHUNK }
}

/// The same services by the kernel: a thread for each connection.
fn serve_by_kernel(addresses: (Ipv4Addr, Ipv6Addr)) -> io::Result<()> {
    ip("address add 10.8.0.2/24 dev bench2")?;
    ip("address add fd08::2/64 dev bench2 nodad")?;
    ip("link set bench2 up")?;
    for service in SERVICES {
        for address in [IpAddr::V4(addresses.0), IpAddr::V6(addresses.1)] {
            let listener = TcpListener::bind((address, service))?;
            set_tcp_congestion(&listener, "cubic")?;
            // It ends with the process: nothing of it counts after the round.
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

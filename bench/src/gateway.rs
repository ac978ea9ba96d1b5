//! `steadfast run` beside pasta and slirp4netns: the same client behind each of them and behind none, in rounds that
//! alternate.
//!
//! Everything is in a network namespace of its own: the servers have the address 198.51.100.1 there. Others are in a second
//! one, a long way off. A client prints what it has measured and waits, so that time and memory of the gateway can be read
//! before both end.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rustix::net::sockopt;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::path::Distant;

/// Beside pasta and slirp4netns. Needs root, and `target/release/steadfast`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// The part of the client, behind a gateway.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientArguments {
    kind: String,
    /// Seconds, or connections.
    amount: f64,
}

const SERVER: &str = "198.51.100.1";
const USER: &str = "1001";

/// Congestion control of the kernel's ends. That of the machine may be BBR, which paces on a loopback device. Every
/// namespace and every user may choose this one.
const CONGESTION: &str = "reno";

/// The ports of servers, and their work for each connection.
const SERVICES: [(u16, fn(TcpStream)); 3] = [(7001, discard), (7002, generate), (7003, echo)];
/// Connections are served there one after the other, until they end.
const BRIEF: u16 = 7000;
const DISCARD: u16 = 7001;
const GENERATE: u16 = 7002;
const ECHO: u16 = 7003;
/// Connections are held there.
const HOLD: u16 = 7004;
const BACKLOG: i32 = 4096;

/// The time that a packet takes to the distant servers, or back.
const ONE_WAY: Duration = Duration::from_millis(50);

/// The measurements before those of memory: unit and label.
const ROWS: [(&str, &str); 12] = [
    ("Gbit/s", "bulk, from the client"),
    ("Gbit/s", "bulk, to the client"),
    ("ms/Gbit", "CPU of the gateway, from the client"),
    ("ms/Gbit", "CPU of the gateway, to the client"),
    ("ms/Gbit", "of it outside of the kernel, from the client"),
    ("ms/Gbit", "of it outside of the kernel, to the client"),
    ("/s", "connect and close, one after the other"),
    ("µs", "connect, 99th percentile"),
    ("/s", "round trips of 64 bytes"),
    ("ms", "start of the client"),
    ("Mbit/s", "bulk over a round trip of 100 ms, from the client"),
    ("Mbit/s", "bulk over a round trip of 100 ms, to the client"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gateway {
    Ours,
    /// The client is in the namespace of the servers.
    Direct,
    Pasta(u16),
    Slirp,
}

const GATEWAYS: [Gateway; 5] =
    [Gateway::Ours, Gateway::Direct, Gateway::Pasta(1500), Gateway::Pasta(65_520), Gateway::Slirp];

impl Gateway {
    fn name(self) -> String {
        match self {
            Gateway::Ours => "ours".to_owned(),
            Gateway::Direct => "direct".to_owned(),
            Gateway::Pasta(mtu) => format!("pasta, MTU {mtu}"),
            Gateway::Slirp => "slirp4netns".to_owned(),
        }
    }
}

/// Runs all rounds, and prints the table with the medians.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match table(arguments) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn table(arguments: &Arguments) -> io::Result<String> {
    let bench = Bench::new()?;
    // The results of the rounds, by row and gateway.
    let mut results = vec![vec![Vec::new(); GATEWAYS.len()]; ROWS.len() + 2];
    for round in 0..arguments.rounds {
        for (column, gateway) in GATEWAYS.into_iter().enumerate() {
            eprintln!("round {}: {}", round + 1, gateway.name());
            let note = |row: usize, value: f64| results[row][column].push(value);
            bench.round(gateway, arguments.seconds, note)?;
        }
    }
    let names: Vec<String> = GATEWAYS.iter().map(|gateway| gateway.name()).collect();
    let mut text = format!("| measurement | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    let labels = ROWS.iter().map(|(unit, label)| format!("{label}, {unit}"));
    let memory = [1000, 10_000].map(|count| format!("memory with {count} idle connections, MiB"));
    for (label, row) in labels.chain(memory).zip(&results) {
        let cells: Vec<String> = row.iter().map(|values| cell(values)).collect();
        text += &format!("| {label} | {} |\n", cells.join(" | "));
    }
    Ok(text)
}

/// The median of the rounds, with three digits. Empty: there is no such thing.
fn cell(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.get(sorted.len() / 2) {
        Some(median) if median.is_nan() => "none".to_owned(),
        Some(median) if *median >= 100.0 => format!("{median:.0}"),
        Some(median) => format!("{median:.2}"),
        None => String::new(),
    }
}

/// One measurement.
struct Seen {
    values: Vec<f64>,
    /// From the start of the gateway to the first word of the client.
    start_ms: f64,
    user_ms: f64,
    kernel_ms: f64,
    memory_kib: f64,
}

/// The namespace with the servers, and the programs.
struct Bench {
    folder: PathBuf,
    distant: Option<Distant>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Bench {
    fn new() -> io::Result<Bench> {
        raise_files();
        let own = std::env::current_exe()?;
        let tool = own.with_file_name("steadfast");
        if !tool.exists() {
            let text = format!("{}: build it by `cargo build --release -p steadfast-cli`", tool.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        let folder = std::env::temp_dir().join(format!("steadfast-bench-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let mut bench = Bench { folder, distant: None };
        fs::set_permissions(&bench.folder, fs::Permissions::from_mode(0o755))?;
        fs::copy(own, bench.program("bench"))?;
        fs::copy(tool, bench.program("steadfast"))?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        for line in [
            "link set lo up",
            "address add 198.51.100.1/32 dev lo",
            // pasta copies the address and the routes of the device with the default route.
            "link add d0 type veth peer name d1",
            "address add 192.0.2.1/24 dev d0",
            "link set d0 up",
            "link set d1 up",
            "route add default via 192.0.2.2",
        ] {
            let done = Command::new("ip").args(line.split(' ')).status()?;
            if !done.success() {
                return Err(io::Error::other(format!("ip {line}: {done}")));
            }
        }
        // Short connections leave many ports in TIME-WAIT.
        let _ = fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535");
        let _ = fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1");
        fs::write("/proc/sys/net/ipv4/tcp_congestion_control", CONGESTION)?;
        let listener = TcpListener::bind((SERVER, BRIEF))?;
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                while matches!(stream.read(&mut [0; 64]), Ok(1..)) {}
            }
        });
        serve_all(SERVER)?;
        let start = || {
            fs::write("/proc/sys/net/ipv4/tcp_congestion_control", CONGESTION)?;
            serve_all(&Distant::ADDRESS.to_string())
        };
        bench.distant = Some(Distant::new(ONE_WAY, start)?);
        let listener = TcpListener::bind((SERVER, HOLD))?;
        // pasta of 2023 answers no guest whose dial took a second SYN, and the usual backlog of 128 makes some do so.
        rustix::net::listen(&listener, BACKLOG)?;
        thread::spawn(move || {
            let mut held = Vec::new();
            let mut last = Instant::now();
            for stream in listener.incoming().flatten() {
                // A client comes after a pause, and the connections of the client before it have ended. Each look costs
                // a system call for each of them, so a look at each accept would overflow the backlog.
                if last.elapsed() > Duration::from_millis(100) {
                    held.retain(|one: &TcpStream| one.peek(&mut [0]).is_err());
                }
                last = Instant::now();
                if stream.set_nonblocking(true).is_ok() {
                    held.push(stream);
                }
            }
        });
        Ok(bench)
    }

    /// Measures everything once.
    fn round(&self, gateway: Gateway, seconds: f64, mut note: impl FnMut(usize, f64)) -> io::Result<()> {
        for (row, kind) in [(0, "up"), (1, "down")] {
            let seen = self.measure(gateway, kind, seconds)?;
            note(row, seen.values[0] / 1e9);
            if gateway != Gateway::Direct {
                let gbit = seen.values[0] * seconds / 1e9;
                note(row + 2, (seen.user_ms + seen.kernel_ms) / gbit);
                note(row + 4, seen.user_ms / gbit);
            }
        }
        let seen = self.measure(gateway, "connects", seconds)?;
        note(6, seen.values[0]);
        note(7, seen.values[1]);
        note(8, self.measure(gateway, "trips", seconds)?.values[0]);
        // slirp4netns starts beside a namespace that is there already.
        if gateway != Gateway::Slirp {
            note(9, self.measure(gateway, "start", 0.0)?.start_ms);
        }
        for (row, kind) in [(10, "far-up"), (11, "far-down")] {
            // The windows take a second to open.
            note(row, self.measure(gateway, kind, seconds.max(4.0))?.values[0] / 1e6);
        }
        for (row, connections) in [(ROWS.len(), 1000.0), (ROWS.len() + 1, 10_000.0)] {
            if gateway == Gateway::Direct {
                continue;
            }
            let seen = self.measure(gateway, "hold", connections)?;
            // One that lets fewer live has no figure.
            note(row, if seen.values[0] < connections { f64::NAN } else { seen.memory_kib / 1024.0 });
        }
        Ok(())
    }

    fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A command of an ordinary user.
    fn user(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--inh-caps=-all"]);
        command.arg(program).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    fn measure(&self, gateway: Gateway, kind: &str, amount: f64) -> io::Result<Seen> {
        let (amount, begun) = (amount.to_string(), Instant::now());
        let client = self.program("bench");
        let client = [client.to_str().unwrap_or_default(), "gateway-client", kind, &amount];
        let (mut process, other) = match gateway {
            Gateway::Ours => {
                let mut command = self.user(&self.program("steadfast"));
                (command.args(["run", "--"]).args(client).spawn()?, None)
            }
            Gateway::Direct => (self.user(Path::new(client[0])).args(&client[1..]).spawn()?, None),
            Gateway::Pasta(mtu) => {
                let mut command = self.user(Path::new("pasta"));
                command.args(["--config-net", "--quiet", "--foreground", "--mtu", &mtu.to_string(), "--"]);
                (command.args(client).spawn()?, None)
            }
            Gateway::Slirp => self.behind_slirp(&client)?,
        };
        let mut line = String::new();
        let output = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        BufReader::new(output).read_line(&mut line)?;
        let start_ms = begun.elapsed().as_secs_f64() * 1e3;
        let pid = other.as_ref().unwrap_or(&process).id();
        let (user_ms, kernel_ms) = cpu_ms(pid).unwrap_or((f64::NAN, f64::NAN));
        let seen = Seen {
            values: line.split_whitespace().filter_map(|value| value.parse().ok()).collect(),
            start_ms,
            user_ms,
            kernel_ms,
            memory_kib: memory_kib(pid).unwrap_or(f64::NAN),
        };
        drop(process.stdin.take());
        process.wait()?;
        if let Some(mut other) = other {
            other.kill()?;
            other.wait()?;
        }
        match seen.values[..] {
            [] => Err(io::Error::other(format!("{}: {kind}: the client has failed", gateway.name()))),
            _ => Ok(seen),
        }
    }

    /// The client waits in namespaces of its own until slirp4netns has configured them.
    fn behind_slirp(&self, client: &[&str]) -> io::Result<(Child, Option<Child>)> {
        let mut command = self.user(Path::new("unshare"));
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", "read go; exec \"$@\"", "sh"]);
        let mut process = command.args(client).spawn()?;
        let pid = process.id().to_string();
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
        let own = namespace("self")?;
        while namespace(&pid)? == own {
            thread::sleep(Duration::from_millis(1));
        }
        let mut command = self.user(Path::new("slirp4netns"));
        command.args(["--configure", "--mtu=1500", &pid, "tap0"]);
        let other = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let routes = format!("/proc/{pid}/net/route");
        while !fs::read_to_string(&routes)?.contains("\t00000000\t") {
            thread::sleep(Duration::from_millis(1));
        }
        process.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(b"go\n")?;
        Ok((process, Some(other)))
    }
}

/// The time that a process has taken, without its children: outside of the kernel, and in it.
fn cpu_ms(pid: u32) -> Option<(f64, f64)> {
    const TICK_MS: f64 = 10.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? * TICK_MS, ticks(12)? * TICK_MS))
}

fn memory_kib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn raise_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer files some connections fail, which the table shows.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Serves each connection at an address with a thread.
fn serve_all(address: &str) -> io::Result<()> {
    for (port, serve) in SERVICES {
        let listener = TcpListener::bind((address, port))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream));
            }
        });
    }
    Ok(())
}

fn discard(mut stream: TcpStream) {
    let mut buffer = vec![0; 1 << 18];
    while matches!(stream.read(&mut buffer), Ok(1..)) {}
}

fn generate(mut stream: TcpStream) {
    let buffer = vec![0; 1 << 18];
    while stream.write_all(&buffer).is_ok() {}
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    let _ = stream.set_nodelay(true);
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

/// Measures, prints the result in one line, and waits for the end of the input.
pub(crate) fn client(arguments: &ClientArguments) -> ExitCode {
    raise_files();
    let limit = Duration::from_secs_f64(arguments.amount);
    let distant = Distant::ADDRESS.to_string();
    let measured = match &*arguments.kind {
        "up" => bulk(SERVER, DISCARD, limit, |stream, buffer| stream.write(buffer)),
        "down" => bulk(SERVER, GENERATE, limit, |stream, buffer| stream.read(buffer)),
        "far-up" => bulk(&distant, DISCARD, limit, |stream, buffer| stream.write(buffer)),
        "far-down" => bulk(&distant, GENERATE, limit, |stream, buffer| stream.read(buffer)),
        "connects" => connects(limit),
        "trips" => trips(limit),
        "start" => Ok(vec![0.0]),
        _ => return hold(arguments.amount as usize),
    };
    tell(measured)
}

fn tell(measured: io::Result<Vec<f64>>) -> ExitCode {
    match measured {
        Ok(values) => {
            println!("{}", values.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
            let _ = io::stdin().read_to_end(&mut Vec::new());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Bits in a second.
fn bulk(
    server: &str,
    port: u16,
    limit: Duration,
    mut act: impl FnMut(&mut TcpStream, &mut [u8]) -> io::Result<usize>,
) -> io::Result<Vec<f64>> {
    let mut stream = TcpStream::connect((server, port))?;
    sockopt::set_tcp_congestion(&stream, CONGESTION)?;
    let mut buffer = vec![0; 1 << 18];
    let (begun, mut bytes) = (Instant::now(), 0);
    while begun.elapsed() < limit {
        bytes += act(&mut stream, &mut buffer)?;
    }
    Ok(vec![bytes as f64 * 8.0 / begun.elapsed().as_secs_f64()])
}

/// Connections in a second, and the 99th percentile of the time to connect in microseconds.
fn connects(limit: Duration) -> io::Result<Vec<f64>> {
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < limit {
        let before = Instant::now();
        let stream = TcpStream::connect((SERVER, BRIEF))?;
        times.push(before.elapsed().as_secs_f64() * 1e6);
        drop(stream);
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    Ok(vec![rate, times[times.len() * 99 / 100]])
}

fn trips(limit: Duration) -> io::Result<Vec<f64>> {
    let mut stream = TcpStream::connect((SERVER, ECHO))?;
    stream.set_nodelay(true)?;
    let (begun, mut count, mut message) = (Instant::now(), 0, [0; 64]);
    while begun.elapsed() < limit {
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        count += 1;
    }
    Ok(vec![f64::from(count) / begun.elapsed().as_secs_f64()])
}

/// Opens connections, and holds those that were made.
fn hold(count: usize) -> ExitCode {
    let to = SocketAddr::new([198, 51, 100, 1].into(), HOLD);
    let connect = |_| TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok();
    let made: Vec<TcpStream> = (0..count).map_while(connect).collect();
    tell(Ok(vec![made.len() as f64]))
}

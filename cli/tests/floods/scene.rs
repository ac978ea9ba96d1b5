//! A server of ours, well-behaved clients, and their observable state.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::namespace::{Running, Status, enter_namespace, serve};
use crate::wire::{OURS, Wire};

pub(crate) const ECHO: u16 = 7;
/// Timeout of a client.
const PATIENCE: Duration = Duration::from_secs(4);
/// Clients with one long connection, on which they send every ten milliseconds.
const STAYING: usize = 4;
/// Clients that connect, send and close, one connection after the other.
const COMING: usize = 2;

/// Floods run one at a time: each needs the whole machine.
static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other test runs a flood.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server, and the wire to it.
pub(crate) struct Scene {
    server: Running,
    pub(crate) wire: Wire,
    began_with: u64,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    /// Starts an echo server in its own namespace. `None` if namespaces are not available, which was reported.
    pub(crate) fn open(settings: &[&str]) -> Option<Scene> {
        if !enter_namespace(&[]) {
            return None;
        }
        let turn = turn();
        let sysctls: String = settings.iter().map(|setting| format!(" --sysctl {setting}")).collect();
        // The pings that mark the end of answers must not be rate-limited.
        let server = serve(&format!("echo --sysctl icmp_ratelimit=1000000{sysctls}"));
        let mut scene = Scene { server, wire: Wire::open(), began_with: 0, _turn: turn };
        // Memory that every server allocates for its first clients does not count.
        Clients::start().stay(Duration::from_millis(300)).all_went_well();
        scene.began_with = scene.resident("VmRSS");
        Some(scene)
    }

    pub(crate) fn status(&mut self) -> Status {
        self.server.status()
    }

    /// A memory figure of the server in bytes.
    fn resident(&self, which: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
        let kib: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        kib << 10
    }

    /// Reports the peak growth of the server's memory, and checks that it is at most `limit`.
    #[track_caller]
    pub(crate) fn took_at_most(&self, limit: u64) {
        let grown = self.resident("VmHWM").saturating_sub(self.began_with);
        println!("resident memory grew by {} KiB, limit {} KiB", grown >> 10, limit >> 10);
        assert!(grown <= limit, "resident memory grew by {grown} bytes");
    }
}

/// A connection of a client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    said: u8,
}

impl Client {
    /// Connects over IPv4.
    pub(crate) fn connect() -> std::io::Result<Client> {
        Client::connect_to(OURS[0])
    }

    fn connect_to(server: IpAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(server, ECHO), PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream, said: 0 })
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Sends `len` bytes and reads the echo.
    pub(crate) fn ask(&mut self, len: usize) -> std::io::Result<()> {
        self.said = self.said.wrapping_add(1);
        let question = vec![self.said; len];
        self.stream.write_all(&question)?;
        let mut answer = vec![0; len];
        self.stream.read_exact(&mut answer)?;
        if answer == question { Ok(()) } else { Err(std::io::Error::other("another answer")) }
    }
}

/// Running clients.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

/// The results of the clients.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connected: usize,
    pub(crate) asked: usize,
    pub(crate) failed: Vec<String>,
    /// The longest time to open a connection.
    pub(crate) slowest: Duration,
}

impl Clients {
    /// Starts the clients: half of them use IPv4, half IPv6.
    pub(crate) fn start() -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let staying = (0..STAYING).map(|n| {
            let stop = stop.clone();
            thread::spawn(move || stay(OURS[n % 2], &stop))
        });
        let coming = (0..COMING).map(|n| {
            let stop = stop.clone();
            thread::spawn(move || come_and_go(OURS[n % 2], &stop))
        });
        let threads = staying.chain(coming).collect();
        Clients { stop, threads }
    }

    /// Stops the clients after `time`.
    pub(crate) fn stay(self, time: Duration) -> Tally {
        thread::sleep(time);
        self.end()
    }

    /// Stops the clients, and returns their results.
    pub(crate) fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for thread in self.threads {
            let tally = thread.join().unwrap();
            sum.connected += tally.connected;
            sum.asked += tally.asked;
            sum.failed.extend(tally.failed);
            sum.slowest = sum.slowest.max(tally.slowest);
        }
        let Tally { connected, asked, failed, slowest } = &sum;
        println!(
            "clients: {connected} connections, {asked} answers, {} failures, slowest connect {} ms",
            failed.len(),
            slowest.as_millis()
        );
        sum
    }
}

impl Tally {
    /// Checks that all connections opened and that every byte was echoed.
    #[track_caller]
    pub(crate) fn all_went_well(&self) {
        assert!(self.failed.is_empty(), "{:?}", self.failed);
        assert!(self.connected > STAYING && self.asked > self.connected, "{self:?}");
    }

    fn connect(&mut self, server: IpAddr) -> Option<Client> {
        let began = Instant::now();
        let client =
            Client::connect_to(server).map_err(|e| self.failed.push(format!("connect: {e}"))).ok()?;
        self.connected += 1;
        self.slowest = self.slowest.max(began.elapsed());
        Some(client)
    }

    fn ask(&mut self, client: &mut Client, len: usize) {
        match client.ask(len) {
            Ok(()) => self.asked += 1,
            Err(e) => self.failed.push(format!("ask: {e}")),
        }
    }
}

fn stay(server: IpAddr, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let Some(mut client) = tally.connect(server) else { return tally };
    while !stop.load(Ordering::Relaxed) && tally.failed.is_empty() {
        tally.ask(&mut client, 1024);
        thread::sleep(Duration::from_millis(10));
    }
    tally
}

fn come_and_go(server: IpAddr, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        if let Some(mut client) = tally.connect(server) {
            tally.ask(&mut client, 100);
        }
        thread::sleep(Duration::from_millis(5));
    }
    tally
}

/// Tells a test's threads to stop when the test ends, even by a panic: otherwise they would run forever.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

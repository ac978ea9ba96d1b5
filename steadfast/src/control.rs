//! The control socket: what `ss`, `nstat` and `top` ask, as lines of JSON on a Unix socket.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use steadfast_core::counters::Counters;
use steadfast_core::histograms::{Histogram, Histograms};
use steadfast_core::info::{Info, SocketCursor, SocketEntry, Usage};
use steadfast_core::trace::{State as TcpState, TraceEvent};
use steadfast_core::{Config, Instant};
use steadfast_device::free_socket_path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use self::rows::{INFO_STEP, Query, STEP, traced, traced_info};
use crate::options::invalid;
use crate::shared::Shared;

mod filter;
mod rows;

pub use self::filter::SocketFilter;

/// Clients at once.
const CLIENTS: usize = 8;
/// Length of a request, in bytes.
const REQUEST: u64 = 64 * 1024;
/// Different sources of half-open connections that are counted.
const SOURCES: usize = 65_536;
/// The wait after a connection that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How often a trace is collected.
const TRACE_EVERY: Duration = Duration::from_millis(20);
/// The longest trace.
const TRACE_LIMIT: Duration = Duration::from_secs(3600);

/// Where a network listens for questions, and whether it lets itself be changed.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) path: PathBuf,
    pub(crate) write: bool,
}

impl Control {
    /// Opens the socket. A task answers until the network ends.
    pub(crate) fn open(self, stacks: Vec<Arc<Shared>>) -> io::Result<()> {
        ControlSocket::bind(self.path)?.write(self.write).answer(stacks, None)
    }
}

/// A control socket that is bound before its network starts. A program that gives up the right to make files before it
/// reads a packet needs it; others call [`NetBuilder::control`](crate::NetBuilder::control).
///
/// ```
/// use steadfast::{ControlSocket, Net, device};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let path = std::env::temp_dir().join(format!("steadfast-{}.sock", std::process::id()));
/// let control = ControlSocket::bind(&path)?;
/// let (device, _other_end) = device::memory::pair(1500);
/// let net = Net::builder().address([10, 9, 0, 2], 24).start(device)?;
/// net.serve_control(control)
/// # }
/// ```
#[derive(Debug)]
pub struct ControlSocket {
    listener: std::os::unix::net::UnixListener,
    file: File,
    /// The user whom it belongs to.
    owner: u32,
    write: bool,
}

/// Answers a line that is no question to the network. The answer may have several lines.
pub(crate) type Commands = Box<dyn Fn(&str) -> String + Send + Sync>;

impl ControlSocket {
    /// Binds the socket at this path. It belongs to the user of this process: others but root are refused. The file is
    /// removed when the network ends, if the process may still do so.
    ///
    /// # Errors
    ///
    /// `AddrInUse`: another process answers there, or something else than a socket is there.
    pub fn bind(path: impl Into<PathBuf>) -> io::Result<ControlSocket> {
        let path = path.into();
        let listener = bind(&path)?;
        let file = File(path);
        let owner = std::fs::metadata(&file.0)?.uid();
        Ok(ControlSocket { listener, file, owner, write: false })
    }

    /// Sets whether the socket may change settings and reset connections.
    pub fn write(mut self, write: bool) -> ControlSocket {
        self.write = write;
        self
    }

    /// Answers questions about these stacks until they end.
    pub(crate) fn answer(self, stacks: Vec<Arc<Shared>>, commands: Option<Commands>) -> io::Result<()> {
        let ControlSocket { listener, file, owner, write } = self;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let server = Arc::new(Server {
            stacks,
            write,
            commands,
            tracing: AtomicBool::new(false),
            owner,
            clients: Arc::new(Semaphore::new(CLIENTS)),
        });
        tokio::spawn(serve(listener, server, file));
        Ok(())
    }
}

/// The socket's file, removed at the end.
#[derive(Debug)]
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        // Another process may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Server {
    stacks: Vec<Arc<Shared>>,
    write: bool,
    /// For lines that are no questions.
    commands: Option<Commands>,
    /// Somebody traces. There is one queue of events.
    tracing: AtomicBool,
    /// The user whom the socket belongs to.
    owner: u32,
    clients: Arc<Semaphore>,
}

/// Binds under another name, so that the socket never has wider rights than 0600.
fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    free_socket_path(path)?;
    let name = path.file_name().ok_or_else(|| invalid(format!("{}: expected a file", path.display())))?;
    let mut fresh = name.to_owned();
    fresh.push(".new");
    let fresh = path.with_file_name(fresh);
    free_socket_path(&fresh)?;
    let listener = std::os::unix::net::UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

async fn serve(listener: UnixListener, server: Arc<Server>, _file: File) {
    let mut ended = pin!(async {
        for stack in &server.stacks {
            // The network tells its error to those who wait for it.
            let _ = stack.ended().await;
        }
    });
    loop {
        let accepted = poll_fn(|context| match ended.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => listener.poll_accept(context).map(Some),
        });
        let stream = match accepted.await {
            Some(Ok((stream, _))) => stream,
            // Out of descriptors, for example.
            Some(Err(_)) => {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
            None => return,
        };
        let allowed = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == server.owner);
        if allowed {
            tokio::spawn(client(stream, server.clone()));
        }
    }
}

async fn client(stream: UnixStream, server: Arc<Server>) {
    let (read, mut write) = stream.into_split();
    let clients = server.clients.clone();
    let Ok(_place) = clients.try_acquire() else {
        let text = format!("{{\"error\":\"{CLIENTS} clients are connected: expected fewer\"}}\n");
        let _ = write.write_all(text.as_bytes()).await;
        return;
    };
    // The client has gone, or asked for too much.
    let _ = converse(BufReader::new(read), &mut write, &server).await;
}

async fn converse(
    mut read: BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    server: &Server,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut read).take(REQUEST + 1).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        if line.len() as u64 > REQUEST {
            let text = format!("{{\"error\":\"a request of more than {REQUEST} bytes\"}}\n");
            return write.write_all(text.as_bytes()).await;
        }
        if let (Some(commands), Ok(text)) = (&server.commands, std::str::from_utf8(&line))
            && !text.trim_start().starts_with('{')
        {
            write.write_all(commands(text.trim()).as_bytes()).await?;
            continue;
        }
        let request: Json = serde_json::from_slice(&line).unwrap_or(Json::Null);
        let id = request["id"].clone();
        let end = match server.answer(&request, write).await? {
            Ok(rows) => json!({"id": id, "done": true, "rows": rows}),
            Err(error) => json!({"id": id, "error": error}),
        };
        write.write_all(format!("{end}\n").as_bytes()).await?;
    }
}

/// The rows of an answer, or what is wrong with the request.
type Answer = Result<u64, String>;

/// Runs a step of a long listing on another thread: that of the driver may be the only one of the runtime.
async fn elsewhere<T: Send + 'static>(step: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(step).await.map_err(io::Error::other)
}

/// The summary of a listing.
#[derive(Default)]
struct Summary {
    states: BTreeMap<&'static str, u64>,
    listeners: Vec<Json>,
    /// For each listener.
    half_open: BTreeMap<SocketAddr, (u64, HashSet<IpAddr>)>,
    sources: usize,
    /// In CLOSE-WAIT, and the age of the oldest.
    forgotten: BTreeMap<SocketAddr, (u64, Duration)>,
}

impl Summary {
    fn take(&mut self, row: &SocketEntry) {
        *self.states.entry(row.state.ss_name()).or_default() += 1;
        let owner = row.listener.unwrap_or(row.local);
        match row.state {
            TcpState::Listen => {
                self.listeners.push(json!({"local": row.local.to_string(), "waiting": row.recv_q,
                "backlog": row.send_q, "half_open": row.half_open}))
            }
            TcpState::SynReceived => {
                let (count, known) = self.half_open.entry(owner).or_default();
                *count += 1;
                if self.sources < SOURCES && known.insert(row.remote.ip()) {
                    self.sources += 1;
                }
            }
            TcpState::CloseWait => {
                let (count, oldest) = self.forgotten.entry(owner).or_default();
                *count += 1;
                *oldest = (*oldest).max(row.state_age);
            }
            _ => {}
        }
    }

    fn json(&self) -> Json {
        let half_open = self.half_open.iter().map(
            |(local, (count, known))| json!({"local": local.to_string(), "count": count, "sources": known.len()}),
        );
        let forgotten = self.forgotten.iter().map(|(local, (count, oldest))| {
            json!({"local": local.to_string(), "count": count, "oldest": oldest.as_secs_f64()})
        });
        json!({"states": self.states, "listeners": self.listeners, "half_open": half_open.collect::<Vec<_>>(),
            "close_wait": forgotten.collect::<Vec<_>>()})
    }
}

impl Server {
    async fn answer(&self, request: &Json, write: &mut OwnedWriteHalf) -> io::Result<Answer> {
        let one = |value: Json| format!("{value}\n");
        let text = match request["do"].as_str() {
            Some("hello") => one(self.hello()),
            Some("counters") => one(self.counters()),
            Some("summary") => one(self.summary().await?),
            Some("sockets") => return self.sockets(request, write).await,
            Some("config") => {
                let config = self.stacks[0].lock().stack.config().clone();
                let row = |s: &steadfast_core::config::Setting| {
                    one(json!({"name": s.name, "value": s.value(&config)}))
                };
                Config::settings().iter().map(row).collect()
            }
            Some("set") => return Ok(self.set(request)),
            Some("kill") => return Ok(self.kill(request)),
            Some("trace") => return self.trace(request, write).await,
            _ => {
                return Ok(Err(
                    "expected {\"do\": one of hello, sockets, summary, counters, config, trace, set, kill}"
                        .to_owned(),
                ));
            }
        };
        write.write_all(text.as_bytes()).await?;
        Ok(Ok(text.lines().count() as u64))
    }

    fn hello(&self) -> Json {
        let state = self.stacks[0].lock();
        let addresses: Vec<String> = state
            .stack
            .interfaces()
            .iter()
            .flat_map(|(_, interface)| {
                interface.addresses.iter().map(|(address, len)| format!("{address}/{len}"))
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "queues": self.stacks.len(),
            "addresses": addresses,
            "congestion": state.stack.config().value("tcp_congestion_control"),
            "write": self.write,
        })
    }

    fn counters(&self) -> Json {
        let (mut counters, mut usage) = (Counters::default(), Usage::default());
        let mut histograms = Histograms::default();
        for stack in &self.stacks {
            let state = stack.lock();
            counters.add(state.stack.counters());
            histograms.add(state.stack.histograms());
            usage.add(&state.stack.usage());
        }
        let counters: Map<String, Json> = counters.iter().map(|(name, value)| (name, json!(value))).collect();
        let usage: Map<String, Json> =
            usage.iter().map(|(name, fill)| (name.to_owned(), json!(fill))).collect();
        let told = |histogram: &Histogram| {
            json!({"bounds": Histogram::bounds(), "counts": histogram.counts(),
                "sum": histogram.sum().as_nanos() as f64 / 1000.0})
        };
        let histograms: Map<String, Json> =
            histograms.iter().map(|(name, histogram)| (name.to_owned(), told(histogram))).collect();
        json!({"counters": counters, "usage": usage, "histograms": histograms})
    }

    /// How many there are of each state; listeners; half-open connections, and how many sources they have.
    async fn summary(&self) -> io::Result<Json> {
        let mut summary = Summary::default();
        for stack in &self.stacks {
            let mut next = Some(SocketCursor::default());
            while let Some(cursor) = next {
                let stack = stack.clone();
                (summary, next) = elsewhere(move || {
                    let mut rows = Vec::new();
                    let now = stack.now();
                    let next = stack.lock().stack.sockets_from(now, cursor, STEP, &mut rows);
                    rows.iter().for_each(|row| summary.take(row));
                    (summary, next)
                })
                .await?;
            }
        }
        Ok(summary.json())
    }

    async fn sockets(&self, request: &Json, write: &mut OwnedWriteHalf) -> io::Result<Answer> {
        let mut query = match Query::of(request) {
            Ok(query) => query,
            Err(error) => return Ok(Err(error)),
        };
        let mut rows = 0;
        for stack in &self.stacks {
            let mut next = Some(SocketCursor::default());
            while let Some(cursor) = next.filter(|_| query.limit > 0) {
                let (stack, asked) = (stack.clone(), query.clone());
                let page = elsewhere(move || asked.page(&stack, cursor)).await?;
                (rows, query.limit) = (rows + page.rows, query.limit - page.rows);
                write.write_all(page.text.as_bytes()).await?;
                next = page.next;
            }
        }
        Ok(Ok(rows))
    }

    fn may_write(&self) -> Result<(), String> {
        if self.write {
            Ok(())
        } else {
            Err("the control socket is read-only; --control-write allows changes".to_owned())
        }
    }

    fn set(&self, request: &Json) -> Answer {
        self.may_write()?;
        let assignment = request["setting"].as_str().ok_or("expected \"setting\": \"name = value\"")?;
        for stack in &self.stacks {
            let mut config = stack.lock().stack.config().clone();
            config.apply(assignment).map_err(|error| error.to_string())?;
            config.validate().map_err(|error| error.to_string())?;
            stack.call_untimed(|state| state.stack.set_config(config));
        }
        Ok(0)
    }

    fn kill(&self, request: &Json) -> Answer {
        self.may_write()?;
        let end = |key: &str| {
            request[key]
                .as_str()
                .and_then(|text| text.parse::<SocketAddr>().ok())
                .ok_or_else(|| format!("expected \"{key}\": an address and a port"))
        };
        let (local, remote) = (end("local")?, end("remote")?);
        let killed =
            self.stacks.iter().filter(|stack| stack.call(|state, now| state.stack.kill(now, local, remote)));
        Ok(killed.count() as u64)
    }

    async fn trace(&self, request: &Json, write: &mut OwnedWriteHalf) -> io::Result<Answer> {
        if self.tracing.swap(true, Ordering::AcqRel) {
            return Ok(Err("somebody else traces".to_owned()));
        }
        let wanted = Duration::from_millis(request["for"].as_u64().unwrap_or(1000)).min(TRACE_LIMIT);
        let info = request["info"].as_bool().unwrap_or(false);
        let result = self.traced(wanted, info, write).await;
        self.stacks.iter().for_each(|stack| stack.call_untimed(|state| state.stack.set_tracing(false)));
        self.tracing.store(false, Ordering::Release);
        result.map(Ok)
    }

    /// Takes some events of a trace, and with `info` the numbers of their connections after them.
    fn collect(stack: &Shared, info: bool) -> (Vec<TraceEvent>, Vec<(Instant, Info)>) {
        let (now, mut state) = (stack.now(), stack.lock());
        let most = if info { INFO_STEP } else { STEP };
        let events: Vec<_> = std::iter::from_fn(|| state.stack.poll_trace()).take(most).collect();
        let ends: BTreeSet<_> =
            events.iter().filter(|_| info).map(|event| (event.local, event.remote)).collect();
        let told = |(local, remote)| Some((now, state.stack.info_between(now, local, remote)?));
        let infos = ends.into_iter().filter_map(told).collect();
        (events, infos)
    }

    /// Writes events, and with `info` the numbers of their connections.
    async fn traced(&self, wanted: Duration, info: bool, write: &mut OwnedWriteHalf) -> io::Result<u64> {
        let lost = || self.stacks.iter().map(|stack| stack.lock().stack.counters().trace_lost).sum::<u64>();
        self.stacks.iter().for_each(|stack| stack.call_untimed(|state| state.stack.set_tracing(true)));
        let (before, start, mut rows) = (lost(), tokio::time::Instant::now(), 0);
        while start.elapsed() < wanted {
            tokio::time::sleep(TRACE_EVERY.min(wanted)).await;
            for stack in &self.stacks {
                loop {
                    let (some, infos) = Server::collect(stack, info);
                    if some.is_empty() {
                        break;
                    }
                    rows += (some.len() + infos.len()) as u64;
                    let mut text: String = some.iter().map(|event| format!("{}\n", traced(event))).collect();
                    infos.iter().for_each(|(at, info)| text += &traced_info(*at, info));
                    write.write_all(text.as_bytes()).await?;
                }
            }
        }
        let lost = lost() - before;
        if lost > 0 {
            write.write_all(format!("{}\n", json!({"kind": "lost", "events": lost})).as_bytes()).await?;
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::{Net, TcpListener, device};

    /// How long the socket's task may take to end.
    const LIMIT: Duration = Duration::from_secs(10);

    /// Sends a request, and returns the rows and the end of the answer.
    fn ask(path: &Path, request: &str) -> Vec<Json> {
        let mut stream = UnixStream::connect(path).unwrap();
        writeln!(stream, "{request}").unwrap();
        let mut rows = Vec::new();
        for line in BufReader::new(stream).lines() {
            rows.push(serde_json::from_str::<Json>(&line.unwrap()).unwrap());
            let last = rows.last().unwrap();
            if last.get("done").is_some() || last.get("error").is_some() {
                break;
            }
        }
        rows
    }

    async fn with_control(write: bool, test: impl FnOnce(&Path) + Send + 'static) {
        let dir = tempdir();
        let path = dir.join("net.sock");
        let (device, _other_end) = device::memory::pair(1500);
        let builder = Net::builder().address([10, 9, 0, 2], 24).control(&path).control_write(write);
        let net = builder.start(device).unwrap();
        let _listener = TcpListener::bind(&net, "10.9.0.2:80").await.unwrap();
        let asked = path.clone();
        tokio::task::spawn_blocking(move || test(&asked)).await.unwrap();
        net.close(Duration::ZERO).await.unwrap();
        removed(&path).await;
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// The task of the socket ends with the network, maybe on another thread.
    async fn removed(path: &Path) {
        let removed = async {
            while path.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, removed).await.expect("the socket's file stays");
    }

    #[tokio::test]
    async fn the_socket_ends_when_the_last_queue_does() {
        let dir = tempdir();
        let path = dir.join("net.sock");
        let (queues, _other_ends): (Vec<_>, Vec<_>) = (0..2).map(|_| device::memory::pair(1500)).unzip();
        let builder = Net::builder().address([10, 9, 0, 2], 24).control(&path);
        let net = builder.start_queues(queues).unwrap();
        net.close(Duration::ZERO).await.unwrap();
        removed(&path).await;
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn tempdir() -> PathBuf {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let name =
            format!("steadfast-control-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_socket_lists_listeners_counters_and_settings_for_its_owner() {
        with_control(false, |path| {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
            let rows = ask(path, r#"{"id":7,"do":"sockets"}"#);
            assert_eq!((&rows[0]["state"], &rows[0]["local"]), (&json!("LISTEN"), &json!("10.9.0.2:80")));
            assert_eq!(rows[1], json!({"id": 7, "done": true, "rows": 1}));
            for (filter, rows) in
                [("state listening sport = :80", 1), ("state listening sport = :81", 0), ("", 0)]
            {
                let request = json!({"do": "sockets", "filter": filter}).to_string();
                assert_eq!(ask(path, &request).last().unwrap()["rows"], rows, "{filter}");
            }
            assert_eq!(ask(path, r#"{"do":"sockets","limit":0}"#)[0]["rows"], 0);
            for wrong in [r#""sport 80""#, "7"] {
                let rows = ask(path, &format!(r#"{{"do":"sockets","filter":{wrong}}}"#));
                assert!(rows[0]["error"].as_str().unwrap().starts_with("filter: "), "{rows:?}");
            }
            assert_eq!(ask(path, r#"{"do":"summary"}"#)[0]["states"], json!({"LISTEN": 1}));
            assert_eq!(ask(path, r#"{"do":"counters"}"#)[0]["usage"]["listeners"], 1);
            assert!(ask(path, r#"{"do":"config"}"#).iter().any(|row| row["name"] == "net.ipv4.tcp_retries2"));
            assert_eq!(ask(path, r#"{"do":"hello"}"#)[0]["queues"], 1);
            for wrong in [r#"{"do":"dance"}"#, "no json", r#"{"do":"set","setting":"tcp_retries2 = 5"}"#] {
                assert!(ask(path, wrong)[0]["error"].is_string(), "{wrong}");
            }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_program_answers_the_lines_that_are_no_json() {
        let dir = tempdir();
        let path = dir.join("net.sock");
        let control = ControlSocket::bind(&path).unwrap();
        let (device, _other_end) = device::memory::pair(1500);
        let net = Net::builder().address([10, 9, 0, 2], 24).start(device).unwrap();
        net.serve_control_with(control, |line| format!("[\"{line}\"]\n{{\"done\":true}}\n")).unwrap();
        let asked = path.clone();
        let asks = move || [ask(&asked, " list 7 "), ask(&asked, r#"{"do":"summary"}"#)];
        let [own, general] = tokio::task::spawn_blocking(asks).await.unwrap();
        assert_eq!(own[0], json!(["list 7"]));
        assert_eq!(general[0]["states"], json!({}));
        net.close(Duration::ZERO).await.unwrap();
        removed(&path).await;
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn a_path_with_something_else_than_a_socket_stays_as_it_is() {
        let dir = tempdir();
        let path = dir.join("notes");
        std::fs::write(&path, "text").unwrap();
        for (path, what) in
            [(&path, "a file is there: expected a path"), (&dir, "a folder is there: expected")]
        {
            let error = ControlSocket::bind(path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            assert!(error.to_string().starts_with(what), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn settings_change_only_where_that_is_allowed() {
        with_control(true, |path| {
            let value = || {
                let rows = ask(path, r#"{"do":"config"}"#);
                rows.iter().find(|row| row["name"] == "net.ipv4.tcp_retries2").unwrap()["value"].clone()
            };
            assert_eq!(ask(path, r#"{"do":"set","setting":"tcp_retries2 = 5"}"#)[0]["done"], true);
            assert_eq!(value(), "5");
            assert!(ask(path, r#"{"do":"set","setting":"tcp_retries2 = 0"}"#)[0]["error"].is_string());
            assert_eq!(value(), "5");
            let none = r#"{"do":"kill","local":"10.9.0.2:80","remote":"10.9.0.1:5"}"#;
            assert_eq!(ask(path, none)[0]["rows"], 0);
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_ninth_client_and_a_long_request_are_refused() {
        with_control(false, |path| {
            let mut held: Vec<UnixStream> =
                (0..CLIENTS).map(|_| UnixStream::connect(path).unwrap()).collect();
            for stream in &mut held {
                writeln!(stream, r#"{{"do":"hello"}}"#).unwrap();
                BufReader::new(&*stream).read_line(&mut String::new()).unwrap();
            }
            let mut said = String::new();
            BufReader::new(UnixStream::connect(path).unwrap()).read_line(&mut said).unwrap();
            assert!(said.contains("8 clients are connected"), "{said}");
            let mut one = &held[0];
            one.write_all(&vec![b' '; REQUEST as usize + 1]).unwrap();
            let lines: Vec<String> = BufReader::new(one).lines().map_while(Result::ok).collect();
            assert!(lines.last().unwrap().contains("more than 65536 bytes"), "{lines:?}");
        })
        .await;
    }
}

//! The control socket: what `ss`, `nstat` and `top` ask, as lines of JSON on a Unix socket.

use std::future::poll_fn;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::Duration;

use serde_json::{Value as Json, json};
use steadfast_device::free_socket_path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use self::outlet::{Outlet, Stop};
use crate::options::invalid;
use crate::shared::Shared;

mod answer;
mod filter;
mod outlet;
mod rows;

pub use self::filter::SocketFilter;

/// Clients at once.
const CLIENTS: usize = 8;
/// Length of a request, in bytes.
const REQUEST: u64 = 64 * 1024;
/// The wait after a connection that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

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
            capturing: AtomicBool::new(false),
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
    /// Somebody traces, or captures. There is one queue of events, and one of packets.
    tracing: AtomicBool,
    capturing: AtomicBool,
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
    server: &Arc<Server>,
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
        answer(server.clone(), request, write).await?;
    }
}

/// Makes the answer and writes it on a thread of its own: that of the driver may be the only one of the runtime, and a
/// long listing would take its time.
async fn answer(server: Arc<Server>, request: Json, write: &OwnedWriteHalf) -> io::Result<()> {
    let stop = Stop::default();
    let mut out = Outlet::new(write, &stop)?;
    let answered = move || {
        let id = request["id"].clone();
        let end = match server.answer(&request, &mut out)? {
            Ok(rows) => json!({"id": id, "done": true, "rows": rows}),
            Err(error) => json!({"id": id, "error": error}),
        };
        out.write(&format!("{end}\n"))
    };
    tokio::task::spawn_blocking(answered).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::Ordering;

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
    async fn a_watch_gives_its_answer_once_for_each_round() {
        with_control(false, |path| {
            let request =
                r#"{"id":7,"do":"watch","what":"sockets","filter":"state all","every":100,"count":3}"#;
            let start = std::time::Instant::now();
            let rows = ask(path, request);
            assert!(start.elapsed() >= Duration::from_millis(200));
            assert_eq!(rows.len(), 7, "{rows:?}");
            for (round, rows) in (1..).zip(rows.chunks_exact(2)) {
                assert_eq!(rows[0]["state"], "LISTEN");
                assert_eq!(rows[1], json!({"id": 7, "round": round, "rows": 1}));
            }
            assert_eq!(rows[6], json!({"id": 7, "done": true, "rows": 3}));
            for (wrong, error) in [
                (r#""what":"trace""#, "expected \"what\": one of counters, summary, sockets"),
                (r#""what":"summary","every":99"#, "every: 99: expected at least 100 milliseconds"),
                (r#""what":"summary","count":"two""#, "count: \"two\": expected a number from 0"),
                (r#""what":"sockets","filter":"sport""#, "filter: "),
            ] {
                let rows = ask(path, &format!(r#"{{"do":"watch",{wrong}}}"#));
                assert!(rows[0]["error"].as_str().unwrap().starts_with(error), "{rows:?}");
            }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_capture_has_the_packets_of_both_directions_until_its_client_leaves() {
        let dir = tempdir();
        let path = dir.join("net.sock");
        let (left, right) = device::memory::pair(1500);
        let net = Net::builder().address([10, 9, 0, 2], 24).control(&path).start(left).unwrap();
        let peer = Net::builder().address([10, 9, 0, 1], 24).start(right).unwrap();
        let listener = TcpListener::bind(&net, "10.9.0.2:80").await.unwrap();
        let asked = path.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(&asked).unwrap();
            writeln!(stream, r#"{{"do":"capture","for":3600000,"snaplen":30}}"#).unwrap();
            let (mut seen, mut reader) = ([false; 2], BufReader::new(stream));
            for line in reader.by_ref().lines() {
                let row: Json = serde_json::from_str(&line.unwrap()).unwrap();
                // IPv4, from one host to the other, cut in the header of TCP.
                let (out, data) = (row["out"] == true, row["data"].as_str().unwrap());
                assert!(
                    data.starts_with("45") && data.len() == 60 && row["len"].as_u64() > Some(30),
                    "{row}"
                );
                let hosts = if out { "0a0900020a090001" } else { "0a0900010a090002" };
                assert_eq!((&data[24..40], &row["interface"]), (hosts, &json!(1)));
                seen[usize::from(out)] = true;
                if seen == [true; 2] {
                    break;
                }
            }
            assert_eq!(ask(&asked, r#"{"do":"capture"}"#)[0]["error"], "somebody else captures");
            drop(reader);
            asked
        });
        // The first ones come before the capture begins.
        while !reading.is_finished() {
            let connected = crate::TcpStream::connect(&peer, "10.9.0.2:80");
            tokio::try_join!(connected, listener.accept()).unwrap();
        }
        let asked = reading.await.unwrap();
        let again = tokio::task::spawn_blocking(move || {
            while ask(&asked, r#"{"do":"capture","for":0}"#)[0]["error"] == "somebody else captures" {}
        });
        tokio::time::timeout(LIMIT, again).await.expect("the client has left").unwrap();
        net.close(Duration::ZERO).await.unwrap();
        removed(&path).await;
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// A listing may take longer than its client lives, or its network.
    #[test]
    fn a_client_that_does_not_read_keeps_nobody_from_anything() {
        let dir = tempdir();
        let path = dir.join("net.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let held = runtime.block_on(async {
            let (device, _other_end) = device::memory::pair(1500);
            let net = Net::builder().address([10, 9, 0, 2], 24).control(&path).start(device).unwrap();
            let mut listeners = Vec::new();
            for port in 1..=2 * rows::STEP as u16 {
                listeners.push(TcpListener::bind(&net, ("10.9.0.2", port)).await.unwrap());
            }
            let asked = path.clone();
            let stuck = tokio::task::spawn_blocking(move || {
                let mut stream = UnixStream::connect(&asked).unwrap();
                // More than the socket's buffers hold.
                for _ in 0..20 {
                    writeln!(stream, r#"{{"do":"sockets"}}"#).unwrap();
                }
                stream.read_exact(&mut [0]).unwrap();
                assert_eq!(ask(&asked, r#"{"do":"summary"}"#)[0]["states"]["LISTEN"], 2 * rows::STEP);
                stream
            });
            (stuck.await.unwrap(), net, listeners)
        });
        let (end, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(runtime);
            let _ = end.send(());
        });
        ended.recv_timeout(LIMIT).expect("the runtime ends");
        drop(held);
        std::fs::remove_dir_all(dir).unwrap();
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

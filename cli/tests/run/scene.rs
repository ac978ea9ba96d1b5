//! The scene: this thread's namespace is the machine, and a second one has the servers and the routes.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use steadfast_witness::enter_namespace;
use tempfile::TempDir;

/// The address of the servers.
pub(crate) const SERVER: &str = "198.51.100.1";

/// An ordinary user.
const USER: &str = "1001";

type Task = Box<dyn FnOnce() + Send>;

/// The machine and the network around it. It ends with the test.
pub(crate) struct Scene {
    folder: TempDir,
    /// The file in the place of `/dev/net/tun`.
    node: PathBuf,
    network: Namespace,
}

/// A network namespace, which lives with its thread.
pub(crate) struct Namespace {
    thread: nix::unistd::Pid,
    tasks: Sender<Task>,
}

impl Namespace {
    pub(crate) fn new() -> Namespace {
        let (sender, tasks) = channel::<Task>();
        let (ready, thread) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(nix::unistd::gettid()).unwrap();
            tasks.into_iter().for_each(|task| task());
        });
        Namespace { thread: thread.recv().unwrap(), tasks: sender }
    }

    /// Its name for `ip link`.
    pub(crate) fn name(&self) -> String {
        self.thread.to_string()
    }

    /// Does something in it.
    pub(crate) fn act<R: Send + 'static>(&self, act: impl FnOnce() -> R + Send + 'static) -> R {
        let (sender, result) = channel();
        self.tasks.send(Box::new(move || sender.send(act()).unwrap())).unwrap();
        result.recv().unwrap()
    }
}

/// Runs `ip` with each of the lines.
pub(crate) fn ip(lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let output = Command::new("ip").args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Lets this namespace forward packets.
pub(crate) fn become_router() {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    // A router sends few errors to one host otherwise.
    fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").unwrap();
}

impl Scene {
    /// Makes the namespaces. `None`: the machine does not allow it, which is reported.
    #[track_caller]
    pub(crate) fn new() -> Option<Scene> {
        Scene::with(&[])
    }

    /// The same for a test that needs these programs, too.
    #[track_caller]
    pub(crate) fn with(tools: &[&str]) -> Option<Scene> {
        if !enter_namespace(&[&["ip", "python3", "setpriv", "unshare", "mknod", "curl"], tools].concat()) {
            return None;
        }
        let network = Namespace::new();
        ip(&format!(
            "link set lo up
             link add va type veth peer name vb netns {}
             address add 192.0.2.1/24 dev va
             link set va up",
            network.name()
        ));
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("tun");
        let scene = Scene { folder, node, network };
        scene.there(|| {
            ip("link set lo up
                address add 192.0.2.2/24 dev vb
                address add 198.51.100.1/32 dev lo
                link set vb up
                route add 192.0.3.0/24 via 192.0.2.1
                route add blackhole 203.0.113.1
                route add unreachable 203.0.113.2
                route add prohibit 203.0.113.3");
            become_router();
        });
        ip("route add default via 192.0.2.2");
        scene.install();
        Some(scene)
    }

    /// Puts the program and a TUN device that everybody may open into the folder.
    fn install(&self) {
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (binary, copy) = (env!("CARGO_BIN_EXE_steadfast"), self.program());
        fs::hard_link(binary, &copy).or_else(|_| fs::copy(binary, &copy).map(drop)).unwrap();
        for (name, mode) in [("tun", 0o666), ("closed", 0o600)] {
            let node = self.folder.path().join(name);
            let made = Command::new("mknod").arg(&node).args(["c", "10", "200"]).status().unwrap();
            assert!(made.success());
            fs::set_permissions(&node, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    /// Puts another file of the folder in the place of `/dev/net/tun`. If there is no such file, there is no device.
    pub(crate) fn device(&mut self, node: &str) {
        self.node = self.folder.path().join(node);
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.folder.path().join("steadfast")
    }

    /// A file of the test, in a folder that is removed with it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Does something in the network of the servers.
    pub(crate) fn there<R: Send + 'static>(&self, act: impl FnOnce() -> R + Send + 'static) -> R {
        self.network.act(act)
    }

    /// The namespace of the servers, for `ip link`.
    pub(crate) fn network(&self) -> &Namespace {
        &self.network
    }

    /// Starts a server: `serve` is called with each connection, one after the other.
    pub(crate) fn serve(&self, mut serve: impl FnMut(TcpStream) + Send + 'static) -> u16 {
        let listener = self.there(|| TcpListener::bind((SERVER, 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                serve(stream);
            }
        });
        port
    }

    /// A command in this namespace, as an ordinary user who may open `/dev/net/tun`.
    pub(crate) fn user(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        let script = "if [ -e \"$0\" ]; then mount --bind \"$0\" /dev/net/tun; \
                      else mount -t tmpfs tmpfs /dev/net; fi && exec setpriv --reuid=$UID_OF --regid=$UID_OF \
                      --clear-groups --inh-caps=-all \"$@\"";
        command.args(["--mount", "sh", "-c", script]).arg(&self.node).arg(program);
        // Not all folders of root's path are open to others.
        command.env("UID_OF", USER).env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").current_dir("/");
        command
    }

    /// `steadfast run OPTIONS -- COMMAND` as an ordinary user. Words are separated by spaces.
    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> Command {
        let mut run = self.user(self.program().to_str().unwrap());
        run.arg("run").args(options).arg("--").args(command);
        run
    }

    /// The same client directly, as the same user, and under `run` with options: their outputs must be equal. Returns
    /// that of the latter.
    #[track_caller]
    pub(crate) fn compare(&self, options: &[&str], client: &[&str]) -> Output {
        let args = [&["python3", "-c", include_str!("client.py")], client].concat();
        let direct = self.direct(client);
        let run = self.run(options, &args).stdin(Stdio::null()).output().unwrap();
        let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&run.stderr);
        assert_eq!(text(&run), direct, "{client:?} {errors}");
        assert_eq!(run.status.code(), Some(0), "{client:?} {errors}");
        run
    }

    /// The output of the client without `run`, as the same user.
    #[track_caller]
    pub(crate) fn direct(&self, client: &[&str]) -> String {
        let mut command = self.user("python3");
        let output = command.args(["-c", include_str!("client.py")]).args(client).output().unwrap();
        assert!(output.status.success(), "{client:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The output of the client under `run`, without a direct run.
    #[track_caller]
    pub(crate) fn client(&self, options: &[&str], client: &[&str]) -> String {
        String::from_utf8_lossy(&self.client_output(options, client).stdout).into_owned()
    }

    /// The same with its standard error.
    #[track_caller]
    pub(crate) fn client_output(&self, options: &[&str], client: &[&str]) -> Output {
        let args = [&["python3", "-c", include_str!("client.py")], client].concat();
        let run = self.run(options, &args).stdin(Stdio::null()).output().unwrap();
        assert_eq!(run.status.code(), Some(0), "{client:?} {}", String::from_utf8_lossy(&run.stderr));
        run
    }
}

/// Lets this process, and those that it starts, have as many files as they may.
pub(crate) fn raise_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// Reads everything, and returns it.
pub(crate) fn read_all(mut stream: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// Returns what it reads until the end.
pub(crate) fn echo(mut stream: TcpStream) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..len]).is_err() {
                return;
            }
        }
    });
}

/// Closes the connection with a RST behind all that was written.
pub(crate) fn reset(stream: TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
}

/// A TCP server on the loopback address of the machine.
pub(crate) fn serve_here(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            serve(stream);
        }
    });
    address
}

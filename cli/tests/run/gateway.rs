//! `steadfast gateway`: guests in namespaces and behind sockets, and the control socket.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream as KernelStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use steadfast::device::{Device, HardwareAddress, UnixDatagramFrames, UnixStreamFrames};
use steadfast::stack::wire::{arp, build, ethernet};
use steadfast::{Net, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scene::{SERVER, Scene, echo, read_all, serve_here};

/// A gateway that runs as an ordinary user.
pub(crate) struct Gateway {
    process: Child,
    errors: BufReader<ChildStderr>,
}

impl Gateway {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start(scene: &Scene, options: &[&str]) -> Gateway {
        let mut command = scene.user(scene.program().to_str().unwrap());
        command.arg("gateway").args(options);
        Gateway::spawn(command.stdin(Stdio::null()))
    }

    pub(crate) fn spawn(command: &mut Command) -> Gateway {
        let mut process = command.arg("-v").stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        assert_eq!(line, "steadfast: the gateway is ready\n");
        Gateway { process, errors }
    }

    /// Ends it by a signal. Returns its exit status and what it said.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM).unwrap();
        self.wait()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn wait(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.errors, &mut said).unwrap();
        (self.process.wait().unwrap().code(), said)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A folder in which the user may make sockets.
pub(crate) fn folder(scene: &Scene) -> PathBuf {
    let folder = scene.file("sockets");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// A process of the user in namespaces of its own, which waits for a line on its standard input and runs the client.
pub(crate) fn guest(scene: &Scene, client: &[&str]) -> Child {
    let mut command = scene.user("unshare");
    let script = "echo ready; read -r go; exec python3 -c \"$@\"";
    command.args(["--user", "--net", "--map-current-user", "sh", "-c", script, "sh"]);
    command.arg(include_str!("client.py")).args(client);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut ready).unwrap();
    process
}

/// Lets the guest go on, and returns what it prints.
pub(crate) fn output(mut guest: Child) -> String {
    guest.stdin.take().unwrap().write_all(b"go\n").unwrap();
    String::from_utf8(guest.wait_with_output().unwrap().stdout).unwrap()
}

pub(crate) fn control_at(path: &Path) -> String {
    format!("--control={}", path.display())
}

/// A command of the control socket, and the lines of its answer.
fn told(path: &Path, command: &str) -> Vec<String> {
    let mut stream = UnixStream::connect(path).unwrap();
    writeln!(stream, "{command}").unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        let is_last = line == "ok" || line.starts_with("error: ");
        lines.push(line);
        if is_last {
            break;
        }
    }
    lines
}

#[test]
fn a_namespace_that_the_user_made_reaches_what_the_machine_reaches() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.serve(echo).to_string();
    let client = ["crowd", SERVER, &port, "20"];
    let process = guest(&scene, &client);
    let gateway = Gateway::start(&scene, &["--netns", &process.id().to_string(), "--report"]);
    // It has a network now, which another gateway must not take away.
    let mut second = scene.user(scene.program().to_str().unwrap());
    let second = second.args(["gateway", "--netns", &process.id().to_string()]).output().unwrap();
    let errors = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2));
    assert!(errors.ends_with(": expected no default route there, found one by `sf0`\n"), "{errors}");
    assert_eq!(output(process), scene.direct(&client));
    let (status, said) = gateway.stop();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("tcp_connected 20,"), "{said}");
}

#[test]
fn a_gateway_ends_with_the_process_whose_namespace_it_serves() {
    let Some(scene) = Scene::new() else { return };
    let process = guest(&scene, &["dial"]);
    let mut gateway = Gateway::start(&scene, &["--netns", &process.id().to_string()]);
    assert_eq!(output(process), "");
    assert_eq!(gateway.wait(), (Some(0), String::new()));
}

#[test]
fn a_wrong_place_is_told_before_anything_starts() {
    let Some(scene) = Scene::new() else { return };
    let own = std::process::id().to_string();
    for (options, expected) in [
        (&["--netns", "no-such-name"][..], "--netns no-such-name: no such file or directory"),
        (&["--tap", "no-such-tap"], "--tap no-such-tap: "),
        (&["--fd", "77"], "--fd 77: "),
        (&["--netns", &own, "--publish=80:x"], "--publish `80:x`: expected a port or an address, found `x`"),
        (&["--unix-stream", "/no/such/folder/x"], "--unix-stream /no/such/folder/x: "),
        (&["--control=/no/such/folder/x", "--fd", "0"], "--control=/no/such/folder/x: "),
        (&[], "error: the following required arguments were not provided"),
    ] {
        let mut command = scene.user(scene.program().to_str().unwrap());
        let output = command.arg("gateway").args(options).stdin(Stdio::null()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options:?} {errors}");
        assert!(errors.trim_start_matches("steadfast: ").starts_with(expected), "{errors}");
    }
}

/// Runs a guest on a device of frames.
pub(crate) fn block_on<T>(guest: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), guest).await.unwrap() })
}

pub(crate) const HARDWARE: HardwareAddress = HardwareAddress([2, 0, 0, 0, 0, 9]);

/// Sends text to the echo server of the machine, and reads it again.
pub(crate) async fn exchange(device: impl Device, port: u16) -> (Net, TcpStream) {
    let net = Net::builder().address([10, 0, 2, 15], 24).start(device).unwrap();
    let mut stream = TcpStream::connect(&net, ("10.0.2.4", port)).await.unwrap();
    stream.write_all(b"hold fast").await.unwrap();
    let mut text = [0; 9];
    stream.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hold fast");
    (net, stream)
}

#[test]
fn f21_a_guest_behind_stream_frames_may_go_and_come_back() {
    let Some(scene) = Scene::new() else { return };
    let here = serve_here(echo);
    let (path, control) = (folder(&scene).join("frames"), scene.file("sockets/control"));
    let open = format!("--allow=127.0.0.1:{}", here.port());
    let (path_text, control_option) = (path.to_str().unwrap(), control_at(&control));
    let gateway = Gateway::start(&scene, &["--unix-stream", path_text, &control_option, &open]);
    block_on(async {
        for _ in 0..2 {
            let device = UnixStreamFrames::connect(&path, HARDWARE, 1500).await.unwrap();
            let (_net, stream) = exchange(device, here.port()).await;
            let port = stream.local_addr().unwrap().port();
            let flows = told(&control, "flows");
            let flow = format!("tcp ESTAB 10.0.2.15:{port} 10.0.2.4:{} ", here.port());
            assert!(flows.iter().any(|line| line.starts_with(&flow)), "{flows:?}");
        }
    });
    // Only its user may give it commands.
    assert_eq!(fs::metadata(&control).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(gateway.stop(), (Some(0), String::new()));
    // The next one takes the paths that this one has left.
    Gateway::start(&scene, &["--unix-stream", path_text, &control_option]);
}

#[test]
fn f21_the_connections_of_a_gateway_are_listed_while_they_carry_data() {
    let Some(scene) = Scene::new() else { return };
    let here = serve_here(echo);
    let (path, control) = (folder(&scene).join("frames"), scene.file("sockets/control"));
    let open = format!("--allow=127.0.0.1:{}", here.port());
    let options = ["--unix-stream", path.to_str().unwrap(), &control_at(&control), &open];
    let _gateway = Gateway::start(&scene, &options);
    let ask = |words: &str| {
        let mut command = Command::new(scene.program());
        command.args(words.split(' ')).arg("--socket").arg(&control);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let path = &path;
        scope.spawn(move || {
            block_on(async {
                let device = UnixStreamFrames::connect(path, HARDWARE, 1500).await.unwrap();
                let (_net, stream) = exchange(device, here.port()).await;
                tell.send(stream.local_addr().unwrap()).unwrap();
                let (mut reader, mut writer) = tokio::io::split(stream);
                let pump = async { while writer.write_all(&[7; 10_000]).await.is_ok() {} };
                let mut sink = tokio::io::sink();
                let drain = tokio::io::copy(&mut reader, &mut sink);
                tokio::select! { () = pump => {}, _ = drain => {}, _ = stopped => {} }
            });
        });
        let guest = told.recv().unwrap();
        let of_guest = format!("ss -tniO dst {guest}");
        let listed = [ask(&of_guest), ask("top -d 0.2"), ask(&of_guest), ask("nstat -a TcpInSegs")];
        drop(stop);
        (guest, listed)
    });
    let (guest, [before, top, after, counted]) = listed;
    let received = |text: &str| {
        let row = text.lines().find(|row| row.starts_with("ESTAB")).unwrap_or_else(|| panic!("{text}"));
        assert!(row.contains(&format!("10.0.2.4:{}", here.port())) && row.contains(&guest.to_string()));
        let number = row.split("bytes_received:").nth(1).and_then(|rest| rest.split(' ').next());
        number.and_then(|number| number.parse::<u64>().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    assert!(received(&after) > received(&before), "{before}{after}");
    assert!(top.contains(&guest.to_string()), "{top}");
    assert!(counted.contains("TcpInSegs"), "{counted}");
}

#[test]
fn f21_forwards_are_added_and_removed_while_the_gateway_runs() {
    let Some(scene) = Scene::new() else { return };
    let process = guest(&scene, &["serve", "tcp", "10.0.2.15", "8080", "1"]);
    let control = folder(&scene).join("control");
    let pid = process.id().to_string();
    let _gateway = Gateway::start(&scene, &["--netns", &pid, &control_at(&control)]);
    let mut process = process;
    process.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "listening");

    let port = crate::forwards::free_port();
    let forward = format!("127.0.0.1:{port}:8080/tcp");
    assert_eq!(told(&control, &format!("add {port}:8080")), ["ok"]);
    assert_eq!(told(&control, "forwards"), [&forward[..], "ok"]);
    let again = told(&control, &format!("add {port}:8080"));
    assert!(again[0].starts_with(&format!("error: {forward}: Address already in use")), "{again:?}");
    let stream = KernelStream::connect(("127.0.0.1", port)).unwrap();
    assert!(read_all(&stream).unwrap().starts_with(b"10.0.2.2:"));
    assert_eq!(told(&control, &format!("remove {forward}")), ["ok"]);
    assert_eq!(told(&control, "forwards"), ["ok"]);
    let wrong = told(&control, &format!("remove {forward}"));
    assert_eq!(wrong, [format!("error: {forward}: there is no such forward")]);
    let wrong = told(&control, "list");
    assert!(wrong[0].starts_with("error: `list`: expected add, remove, forwards,"), "{wrong:?}");
    assert!(told(&control, "counters").contains(&"forward_connections 1".to_owned()));
    process.wait().unwrap();
}

#[test]
fn f21_a_monitor_that_takes_no_frames_loses_them_and_stops_nobody() {
    let Some(scene) = Scene::new() else { return };
    let here = serve_here(echo);
    let folder = folder(&scene);
    let (path, control, own) = (folder.join("frames"), folder.join("control"), scene.file("monitor"));
    let open = format!("--allow=127.0.0.1:{}", here.port());
    let (path_text, control_option) = (path.to_str().unwrap(), control_at(&control));
    let _gateway = Gateway::start(&scene, &["--unix-dgram", path_text, &control_option, &open]);
    let socket = UnixDatagram::bind(&own).unwrap();
    // The user of the gateway must be able to answer.
    fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
    socket.send_to(b"VFKT", &path).unwrap();
    // Each of these would be answered.
    let (sender, target) = ([10, 0, 2, 15].into(), [10, 0, 2, 2].into());
    let question = arp::Packet::request(ethernet::Address(HARDWARE.0), sender, target);
    let question = build::arp(ethernet::Address(HARDWARE.0), ethernet::Address([255; 6]), &question);
    let lost = || {
        let counters = told(&control, "counters");
        let lost = counters.iter().find_map(|line| line.strip_prefix("frames_lost "));
        lost.map(|lost| lost.parse::<u64>().unwrap()).unwrap_or_else(|| panic!("{counters:?}"))
    };
    while lost() < 3 {
        for _ in 0..8 {
            socket.send_to(&question, &path).unwrap();
        }
    }
    // A monitor that reads again is served again.
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut [0; 2000]).is_ok() {}
    block_on(async {
        let socket = tokio::net::UnixDatagram::from_std(socket).unwrap();
        socket.connect(&path).unwrap();
        exchange(UnixDatagramFrames::connected(socket, HARDWARE, 1500), here.port()).await;
    });
}

#[test]
fn f21_an_inherited_socket_carries_frames_until_its_peer_ends() {
    let Some(scene) = Scene::new() else { return };
    let here = serve_here(echo);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = scene.user(scene.program().to_str().unwrap());
    command.args(["gateway", "--fd", "0", "--allow", &here.to_string()]);
    let mut gateway = Gateway::spawn(command.stdin(OwnedFd::from(theirs)));
    drop(command);
    block_on(async {
        ours.set_nonblocking(true).unwrap();
        let stream = tokio::net::UnixStream::from_std(ours).unwrap();
        exchange(UnixStreamFrames::connected(stream, HARDWARE, 1500), here.port()).await;
    });
    let (status, said) = gateway.wait();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("the peer of the frame socket is gone"), "{said}");
}

#[test]
fn f21_frames_pass_through_faults_and_into_a_capture() {
    let Some(scene) = Scene::new() else { return };
    let here = serve_here(echo);
    let folder = folder(&scene);
    let (path, capture) = (folder.join("frames"), folder.join("frames.pcapng"));
    let [path_text, capture_text] = [&path, &capture].map(|path| path.to_str().unwrap());
    let open = format!("--allow=127.0.0.1:{}", here.port());
    let fault = "--fault=lose S>C data 1";
    let options = ["--unix-stream", path_text, "--pcap", capture_text, fault, "--report", &open];
    let gateway = Gateway::start(&scene, &options);
    block_on(async {
        let device = UnixStreamFrames::connect(&path, HARDWARE, 1500).await.unwrap();
        exchange(device, here.port()).await;
    });
    let (status, said) = gateway.stop();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("`lose S>C data 1` hit 1 time"), "{said}");
    let capture = fs::read(&capture).unwrap();
    let has = |text: &[u8]| capture.windows(text.len()).any(|window| window == text);
    assert!(has(b"lost: lose S>C data 1") && has(b"hold fast"));
}

#[test]
fn f11_a_gateway_that_runs_out_of_files_serves_all_in_the_end() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.serve(echo).to_string();
    let process = guest(&scene, &["crowd", SERVER, &port, "120"]);
    let mut command = scene.user("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]).arg(scene.program());
    command.args(["gateway", "--netns", &process.id().to_string()]);
    let gateway = Gateway::spawn(command.stdin(Stdio::null()));
    assert_eq!(output(process), "120\n");
    drop(gateway);
}

#[test]
fn f11_clients_of_a_published_port_wait_until_there_are_files_again() {
    const CLIENTS: usize = 120;
    let Some(scene) = Scene::new() else { return };
    let mut process = guest(&scene, &["serve", "tcp", "10.0.2.15", "8080", &CLIENTS.to_string()]);
    let port = crate::forwards::free_port();
    let mut command = scene.user("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]).arg(scene.program());
    command.args([
        "gateway",
        "--netns",
        &process.id().to_string(),
        "-p",
        &format!("{port}:8080"),
        "--report",
    ]);
    let gateway = Gateway::spawn(command.stdin(Stdio::null()));
    process.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "listening");
    let clients: Vec<KernelStream> =
        (0..CLIENTS).map(|_| KernelStream::connect(("127.0.0.1", port)).unwrap()).collect();
    // Each that has its answer makes room.
    for client in clients {
        assert!(read_all(&client).unwrap().starts_with(b"10.0.2.2:"));
    }
    process.wait().unwrap();
    let (status, said) = gateway.stop();
    assert!(said.contains(&format!("forward_connections {CLIENTS},")), "{status:?} {said}");
    assert!(said.contains("forward_pauses "), "{said}");
}

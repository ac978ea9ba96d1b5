//! The places of the guests of `steadfast gateway` that take rights or an open file, and the cage of the gateway.

use std::fs;
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use steadfast::device::{PacketSocket, UnixDatagramFrames};

use crate::gateway::{Gateway, HARDWARE, block_on, control_at, exchange, guest, output};
use crate::scene::{Namespace, SERVER, Scene, echo, ip, serve_here};

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The client of the tests as root, in this network namespace.
fn client(args: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", include_str!("client.py")]).args(args);
    command
}

/// `steadfast gateway` as root, with all its rights at the start.
fn gateway_of_root(scene: &Scene, options: &[&str]) -> Command {
    let mut command = Command::new(scene.program());
    command.arg("gateway").args(options).stdin(Stdio::null());
    command
}

#[test]
fn f21_the_machine_behind_a_tap_device_is_served() {
    let Some(scene) = Scene::new() else { return };
    let here = serve_here(echo);
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let mut command = client(&["tap", "tap0"]);
    let machine = command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut machine = Process(machine);
    let mut line = String::new();
    BufReader::new(machine.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let open = format!("--allow={here}");
    let gateway = Gateway::spawn(&mut gateway_of_root(&scene, &["--tap", "tap0", &open, "--report"]));
    block_on(async {
        ours.set_nonblocking(true).unwrap();
        let socket = tokio::net::UnixDatagram::from_std(ours).unwrap();
        exchange(UnixDatagramFrames::connected(socket, HARDWARE, 1500), here.port()).await;
    });
    let (status, said) = gateway.stop();
    assert!(status == Some(0) && said.contains("tcp_connected 1,"), "{status:?} {said}");
}

#[test]
fn f21_a_tap_device_takes_a_right_that_a_user_lacks() {
    let Some(scene) = Scene::new() else { return };
    let mut command = scene.user(scene.program().to_str().unwrap());
    let output = command.args(["gateway", "--tap", "lo"]).stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.starts_with("steadfast: --tap lo: "), "{errors}");
}

#[test]
fn f21_a_namespace_with_a_name_is_served() {
    let Some(scene) = Scene::with(&["nsenter"]) else { return };
    let port = scene.serve(echo).to_string();
    let client = ["crowd", SERVER, &port, "5"];
    let direct = scene.direct(&client);
    for place in ["guest", "/run/netns/guest"] {
        // The name is in a mount namespace of the test, and nothing of it is left behind.
        let script = "mount -t tmpfs tmpfs /run && ip netns add guest && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(scene.program());
        let gateway = Gateway::spawn(command.args(["gateway", "--netns", place]).stdin(Stdio::null()));
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &gateway.id().to_string(), "ip", "netns", "exec", "guest"]);
        command.args(["python3", "-c", include_str!("client.py")]).args(client);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), direct, "{place} {output:?}");
        assert_eq!(gateway.stop(), (Some(0), String::new()));
    }
}

/// The file that comes over a socket.
fn passed(socket: &UnixStream) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut [0])], &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut messages = ancillary.drain();
    match messages.next() {
        Some(RecvAncillaryMessage::ScmRights(mut files)) => files.next().unwrap(),
        _ => panic!("expected a file"),
    }
}

/// A gateway of the user, with this file as its standard input.
fn gateway_at(scene: &Scene, file: OwnedFd, options: &[&str]) -> Gateway {
    let mut command = scene.user(scene.program().to_str().unwrap());
    Gateway::spawn(command.args(["gateway", "--fd", "0"]).args(options).stdin(file))
}

#[test]
fn f21_an_inherited_tun_device_leads_to_its_kernel() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.serve(echo).to_string();
    let asked = ["crowd", SERVER, &port, "5"];
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    // The device is in a namespace of its own.
    let network = Namespace::new();
    let mut command = client(&[&["pass_tun"], &asked[..]].concat());
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped());
    let mut process = Process(network.act(move || command.spawn().unwrap()));
    let _gateway = gateway_at(&scene, passed(&ours), &[]);
    ours.write_all(b"x").unwrap();
    let mut said = String::new();
    process.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, scene.direct(&asked));
}

#[test]
fn f21_an_inherited_packet_socket_leads_to_the_host_on_its_link() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.serve(echo).to_string();
    let asked = ["crowd", SERVER, &port, "5"];
    let network = Namespace::new();
    ip(&format!("link add sf0 type veth peer name eth0 netns {}\nlink set sf0 up", network.name()));
    network.act(|| {
        ip("link set lo up
            address add 10.0.2.15/24 dev eth0
            link set eth0 up
            route add default via 10.0.2.2");
    });
    // It takes a right to open it, and none to use it.
    let _gateway = gateway_at(&scene, PacketSocket::bind("sf0").unwrap(), &[]);
    let mut command = client(&asked);
    let output = network.act(move || command.output().unwrap());
    assert_eq!(String::from_utf8_lossy(&output.stdout), scene.direct(&asked), "{output:?}");
}

#[test]
fn f21_an_inherited_socket_carries_frames_in_datagrams() {
    let Some(scene) = Scene::new() else { return };
    let here = serve_here(echo);
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let open = format!("--allow={here}");
    let _gateway = gateway_at(&scene, theirs.into(), &[&open]);
    block_on(async {
        ours.set_nonblocking(true).unwrap();
        let socket = tokio::net::UnixDatagram::from_std(ours).unwrap();
        exchange(UnixDatagramFrames::connected(socket, HARDWARE, 1500), here.port()).await;
    });
}

#[test]
fn f21_a_file_of_another_kind_is_refused() {
    let Some(scene) = Scene::new() else { return };
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    for (file, expected) in [
        (OwnedFd::from(udp), "expected a TUN device, a packet socket, or a UNIX stream or datagram socket"),
        (OwnedFd::from(null), "expected the file of a TUN device without IFF_PI"),
    ] {
        let mut command = scene.user(scene.program().to_str().unwrap());
        let output = command.args(["gateway", "--fd", "0"]).stdin(file).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && errors.contains(expected), "{errors}");
    }
}

/// The fields of the status of each thread of a process that say what it may do.
fn cages(process: u32) -> Vec<String> {
    let wanted = ["CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs", "Seccomp"];
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let cage = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        let fields = status.lines().filter_map(|line| line.split_once(":\t"));
        let fields = fields.filter(|(name, _)| wanted.contains(name));
        fields.map(|(_, value)| value.trim()).collect::<Vec<_>>().join(" ")
    };
    threads.map(|thread| cage(thread.unwrap())).collect()
}

/// The capabilities, `no_new_privs` and the filter of a thread in the cage.
const SHUT: &str = "0000000000000000 0000000000000000 0000000000000000 0000000000000000 1 2";

#[test]
fn f23_each_queue_has_a_thread_in_the_cage_and_all_connections_are_carried() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.serve(echo).to_string();
    let client = ["crowd", SERVER, &port, "50"];
    let process = guest(&scene, &client);
    let options = ["--netns", &process.id().to_string(), "--queues", "2", "--report"];
    let gateway = Gateway::start(&scene, &options);
    // Two for the queues, one for everything else, and one that waits for the end of the process.
    assert_eq!(cages(gateway.id()), [SHUT; 4]);
    assert_eq!(output(process), scene.direct(&client));
    // It ends with the process.
    let mut gateway = gateway;
    let (status, said) = gateway.wait();
    assert!(status == Some(0) && said.contains("tcp_connected 50,"), "{status:?} {said}");
    let wrong = scene.run(&["--queues=2", "--ladder"], &["true"]).output().unwrap();
    let expected = "steadfast: --queues 2: expected neither --fault nor --ladder\n";
    assert_eq!(String::from_utf8_lossy(&wrong.stderr), expected);
    // A pair of virtual Ethernet devices has one queue, which does as well.
    let mut scene = scene;
    scene.device("absent");
    scene.compare(&["--queues=2"], &client);
}

#[test]
fn f23_all_threads_of_a_gateway_of_root_are_in_a_cage() {
    let Some(scene) = Scene::new() else { return };
    let process = guest(&scene, &["dial"]);
    let (pid, control) = (process.id().to_string(), scene.file("control"));
    let options = ["--netns", &pid, &control_at(&control)];
    let mut gateway = Gateway::spawn(&mut gateway_of_root(&scene, &options));
    // One of them waits for the end of the process.
    assert_eq!(cages(gateway.id()), [SHUT; 2]);
    // It ends by itself, and removes what it has made. That is forbidden by then (Landlock), although it is its own.
    output(process);
    assert_eq!(gateway.wait(), (Some(0), String::new()));
    assert!(control.exists());
}

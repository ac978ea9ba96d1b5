//! A virtual machine with a kernel of its own behind `steadfast gateway --unix-stream`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::gateway::{Gateway, folder};
use crate::scene::{SERVER, Scene, read_all};

/// The longest that a machine may live, in seconds. It boots in emulation.
const LIFE: &str = "120";

/// The first program of the guest. It says what it does on the console.
const INIT: &str = r#"#!/bin/busybox sh
# If something fails, the kernel has no first program any more, and the machine ends.
set -e
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for driver in /drivers/*; do insmod "$driver"; done
ip link set lo up
ip link set eth0 up
udhcpc -i eth0 -n -q -t 20 -s /lease
echo "fetched: $(wget -q -O - http://SERVER:PORT/)"
echo "hello from the guest" >/www/index.html
httpd -p 80 -h /www
echo "serving"
while :; do sleep 60; done
"#;

/// Takes the addresses that DHCP gives.
const LEASE: &str = r#"#!/bin/busybox sh
export PATH=/bin
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "bound: $ip/$mask router $router dns $dns mtu $mtu"
"#;

/// An archive as the kernel unpacks it for its first program: cpio in the format `newc`.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    const FOLDER: u32 = 0o040_755;
    const PROGRAM: u32 = 0o100_755;
    const CHARACTER_DEVICE: u32 = 0o020_600;

    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        // Inode, mode, user, group, links, time, length, device of the file system, device of the file, length of the
        // name, checksum.
        let inode = self.0.len() as u32 + 1;
        let len = content.len() as u32;
        let fields = [inode, mode, 0, 0, 1, 0, len, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
        self.0.extend(b"070701");
        fields.iter().for_each(|field| self.0.extend(format!("{field:08x}").bytes()));
        self.0.extend(name.bytes().chain([0]));
        self.pad();
        self.0.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// The file system of the guest.
fn initrd(kernel: &Path, server_port: u16) -> Vec<u8> {
    let mut archive = Archive::default();
    for name in ["bin", "dev", "drivers", "proc", "sys", "www"] {
        archive.add(name, Archive::FOLDER, (0, 0), b"");
    }
    archive.add("dev/console", Archive::CHARACTER_DEVICE, (5, 1), b"");
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok());
    archive.add("bin/busybox", Archive::PROGRAM, (0, 0), &busybox.expect("the program is installed"));
    for entry in fs::read_dir(kernel).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ko") {
            let name = path.file_name().unwrap().to_str().unwrap();
            archive.add(&format!("drivers/{name}"), Archive::PROGRAM, (0, 0), &fs::read(&path).unwrap());
        }
    }
    let init = INIT.replace("SERVER", SERVER).replace("PORT", &server_port.to_string());
    archive.add("init", Archive::PROGRAM, (0, 0), init.as_bytes());
    archive.add("lease", Archive::PROGRAM, (0, 0), LEASE.as_bytes());
    archive.add("TRAILER!!!", 0, (0, 0), b"");
    archive.0
}

/// A running machine, and what its console says.
struct Machine {
    process: Child,
    console: BufReader<ChildStdout>,
    said: String,
}

impl Machine {
    fn boot(scene: &Scene, kernel: &Path, initrd: &[u8], frames: &Path) -> Machine {
        let place = |name: &str, content: &[u8]| {
            let path = scene.file(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            path
        };
        let kernel = place("vmlinuz", &fs::read(kernel.join("vmlinuz")).unwrap());
        let initrd = place("initrd", initrd);
        let mut command = scene.user("timeout");
        command.args([LIFE, "qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-nodefaults", "-nographic"]);
        command.args(["-no-reboot", "-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1"]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
        let stream = format!("stream,id=n,server=off,addr.type=unix,addr.path={}", frames.display());
        command.args(["-netdev", &stream, "-device", "virtio-net-pci,netdev=n,romfile="]);
        spawn(&mut command)
    }

    /// Waits for a line of the console that begins with `start`, and returns the rest of it.
    #[track_caller]
    fn says(&mut self, start: &str) -> String {
        let mut line = Vec::new();
        while self.console.read_until(b'\n', &mut line).unwrap() > 0 {
            let text = String::from_utf8_lossy(&line).into_owned();
            self.said += &text;
            if let Some(at) = text.find(start) {
                return text[at + start.len()..].trim().to_owned();
            }
            line.clear();
        }
        panic!("expected `{start}` on the console: {}", self.said);
    }
}

fn spawn(command: &mut Command) -> Machine {
    let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let console = BufReader::new(process.stdout.take().unwrap());
    Machine { process, console, said: String::new() }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // `timeout` passes it on.
        let _ = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

#[test]
fn f21_a_machine_in_qemu_gets_an_address_and_is_a_client_and_a_server() {
    let Some(scene) = Scene::with(&["busybox", "qemu-system-x86_64"]) else { return };
    let Some(kernel) = steadfast_witness::guest_kernel() else { return };
    let port = scene.serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello from outside\n");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = read_all(&stream);
    });
    let (frames, published) = (folder(&scene).join("frames"), crate::forwards::free_port());
    let publish = format!("--publish={published}:80");
    let _gateway = Gateway::start(&scene, &["--unix-stream", frames.to_str().unwrap(), &publish]);
    let mut machine = Machine::boot(&scene, &kernel, &initrd(&kernel, port), &frames);
    assert_eq!(machine.says("bound: "), "10.0.2.15/24 router 10.0.2.2 dns 10.0.2.3 mtu 1500");
    assert_eq!(machine.says("fetched: "), "hello from outside");
    machine.says("serving");
    let mut client = TcpStream::connect(("127.0.0.1", published)).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let answer = String::from_utf8(read_all(&client).unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.") && answer.ends_with("\r\n\r\nhello from the guest\n"), "{answer}");
}

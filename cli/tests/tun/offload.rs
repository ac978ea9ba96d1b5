//! Offload in front of wires without it: whatever our device leaves to the kernel must be done when a segment reaches
//! the wire.
//!
//! The test's namespace routes between the device and a client in a second namespace. They are connected by a veth pair
//! without offloads, so a capture there shows what a wire carries.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::namespace::{LIMIT, Running, curl, enter_namespace, run, serve, steadfast};

const MTU: u32 = 1400;
const SIZE: usize = 4 << 20;
/// The last text that the client prints.
const MARK: &str = "nothing comes after this";

/// The client's namespace. It lives as long as its process.
struct Client {
    keeper: Running,
}

impl Client {
    /// Creates the namespace and connects it to this one, which forwards between it and the device.
    fn behind_a_router() -> Client {
        for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            fs::write(Path::new("/proc/sys").join(path), "1").unwrap();
        }
        let script = "echo ready >&2; exec sleep 120";
        let mut keeper = Running::start(Command::new("unshare").args(["--net", "sh", "-c", script]));
        keeper.wait_for("ready");
        let client = Client { keeper };
        let pid = client.keeper.child.id();
        here(&format!("ip link add veth0 mtu {MTU} type veth peer name veth1 mtu {MTU} netns {pid}"));
        here("ip address add 10.8.0.1/24 dev veth0");
        here("ip address add fd08::1/64 dev veth0 nodad");
        here("ip link set veth0 up");
        client.run("ip address add 10.8.0.2/24 dev veth1");
        client.run("ip address add fd08::2/64 dev veth1 nodad");
        client.run("ip link set veth1 up");
        client.run("ip route add 10.9.0.0/24 via 10.8.0.1");
        client.run("ip route add fd09::/64 via fd08::1");
        here("ethtool -K veth0 tx off rx off tso off gso off gro on");
        client.run("ethtool -K veth1 tx off rx off tso off gso off gro off");
        client
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.keeper.child.id().to_string()]).args(line.split(' '));
        command
    }

    fn run(&self, line: &str) -> Vec<u8> {
        succeed(&mut self.command(line), b"")
    }

    fn curl(&self, args: &str) -> Command {
        self.command(&format!("curl --silent --show-error --noproxy * --max-time 60 {args}"))
    }
}

fn here(line: &str) {
    let mut words = line.split(' ');
    succeed(Command::new(words.next().unwrap()).args(words), b"");
}

#[track_caller]
fn succeed(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let (status, output, errors) = run(command, input);
    assert!(status.success(), "{command:?}: {errors}");
    output
}

/// One TCP segment of a capture.
#[derive(Debug)]
struct Segment {
    from_port_80: bool,
    ipv4: bool,
    /// Length of the IP packet.
    len: u32,
}

/// Reads a capture, and checks that all checksums are right.
#[track_caller]
fn segments(capture: &Path) -> Vec<Segment> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(capture).args(["-Y", "tcp", "-T", "fields"]);
    tshark.args(["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]);
    let fields =
        ["tcp.srcport", "tcp.checksum.status", "tcp.checksum", "ip.checksum.status", "ip.len", "ipv6.plen"];
    for field in fields {
        tshark.args(["-e", field]);
    }
    let text = String::from_utf8(succeed(&mut tshark, b"")).unwrap();
    let segment = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [port, tcp_status, checksum, ip_status, ipv4_len, ipv6_len] = fields[..] else {
            panic!("no fields in {line:?}")
        };
        const GOOD: &str = "1";
        let ipv4 = !ipv4_len.is_empty();
        // Linux writes a checksum of 0x0000 as 0xffff, which only UDP requires: one of 65,536 segments.
        let tcp_good = tcp_status == GOOD || checksum == "0xffff";
        assert!(tcp_good && (!ipv4 || ip_status == GOOD), "{}: {line:?}", capture.display());
        let len = if ipv4 { ipv4_len.parse().unwrap() } else { ipv6_len.parse::<u32>().unwrap() + 40 };
        Segment { from_port_80: port == "80", ipv4, len }
    };
    text.lines().map(segment).collect()
}

/// Downloads and uploads over IPv4 and IPv6 while a capture runs in the client's namespace.
fn carry(client: &Client, capture: &Path) {
    let mut tshark = client.command("tshark -q -i veth1 -B 64 -w");
    let mut tshark = Running::start(tshark.arg(capture).stdout(Stdio::null()));
    tshark.wait_for("Capture started");
    let data: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    for base in ["http://10.9.0.2", "http://[fd09::2]"] {
        let body = succeed(&mut client.curl(&format!("{base}/bytes/{SIZE}")), b"");
        assert!(body == data, "{} bytes from {base}", body.len());
        let answer = succeed(&mut client.curl(&format!("--upload-file - {base}/upload")), &data);
        assert_eq!(String::from_utf8(answer).unwrap(), upload_of(&data));
    }
    let mark = format!("echo '{MARK}' > /dev/udp/10.8.0.1/9");
    succeed(client.command("bash -c").arg(mark), b"");
    let deadline = Instant::now() + LIMIT;
    while !fs::read(capture).unwrap().windows(MARK.len()).rev().any(|bytes| bytes == MARK.as_bytes()) {
        assert!(Instant::now() < deadline, "the capture lags behind");
        thread::sleep(Duration::from_millis(50));
    }
    kill(Pid::from_raw(tshark.child.id() as i32), Signal::SIGINT).unwrap();
    assert!(tshark.wait().success(), "{:?}", tshark.said);
}

/// The server's reply to an upload.
fn upload_of(data: &[u8]) -> String {
    let hash: String = Sha256::digest(data).iter().map(|b| format!("{b:02x}")).collect();
    format!("{{\"length\":{},\"sha256\":\"{hash}\"}}\n", data.len())
}

/// The segments of one direction and address family.
fn part(all: &[Segment], from_port_80: bool, ipv4: bool) -> impl Iterator<Item = &Segment> {
    all.iter().filter(move |s| s.from_port_80 == from_port_80 && s.ipv4 == ipv4)
}

#[test]
fn behind_a_router_without_offload_every_segment_fits_and_has_its_checksum() {
    if !enter_namespace(&["ip", "ethtool", "nsenter", "unshare", "curl", "tshark"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (offload, queues) in [("auto", 1), ("auto", 2), ("off", 1)] {
        let ours = dir.path().join("ours.pcapng");
        let options = format!("--offload {offload} --queues {queues}");
        let mut server = serve(&format!("http {options} --pcap {}", ours.display()));
        let client = Client::behind_a_router();
        let theirs = dir.path().join("theirs.pcapng");
        carry(&client, &theirs);
        server.terminate();
        assert!(server.wait().success());

        let on_the_wire = segments(&theirs);
        let on_the_device = segments(&ours);
        for (from_port_80, ipv4) in [(true, true), (true, false), (false, true), (false, false)] {
            let full = part(&on_the_wire, from_port_80, ipv4).filter(|s| s.len > MTU - 20).count();
            assert!(full > SIZE / MTU as usize, "{full} full segments");
            let most = part(&on_the_wire, from_port_80, ipv4).map(|s| s.len).max();
            assert!(most <= Some(MTU), "{most:?} bytes");
            let super_segments = part(&on_the_device, from_port_80, ipv4).filter(|s| s.len > 1500).count();
            assert_eq!(super_segments > 0, offload == "auto", "{super_segments} super-segments");
        }
        here("ip link del veth0");
    }
}

/// Starts a program for which the kernel rejects `TUNSETOFFLOAD`, as an old kernel or a sandbox does.
const REFUSE_OFFLOAD: &str = "\
import ctypes, errno, os, struct, sys
TUNSETOFFLOAD, LOAD, EQUAL, RETURN, ALLOW, ERROR = 0x400454d0, 0x20, 0x15, 0x06, 0x7fff0000, 0x00050000
# Of a system call's data, the second argument is 24 bytes in. Other calls hardly have this one there.
code = [(LOAD, 0, 0, 24), (EQUAL, 0, 1, TUNSETOFFLOAD), (RETURN, 0, 0, ERROR | errno.EINVAL), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in code))
program = struct.pack('HP', 4, ctypes.addressof(code))
prctl = ctypes.CDLL(None, use_errno=True).prctl
NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2
assert prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and prctl(SECCOMP, FILTER, program) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn where_the_kernel_refuses_offload_the_tool_says_so_and_carries_all_the_same() {
    if !enter_namespace(&["ip", "curl", "python3", "tshark"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("ours.pcapng");
    let data: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    for queues in [1, 2] {
        let ours = steadfast(&format!("serve http --queues {queues} --pcap {}", capture.display()));
        let mut refused = Command::new("python3");
        refused.args(["-c", REFUSE_OFFLOAD]).arg(ours.get_program()).args(ours.get_args());
        let mut server = Running::start(&mut refused);
        server.wait_for("listening on [fd09::2]:80");
        let told = "steadfast: sf0 has no segmentation offload: every segment is cut and summed here";
        assert_eq!(server.said.iter().filter(|line| *line == told).count(), 1, "{:#?}", server.said);
        for base in ["http://10.9.0.2", "http://[fd09::2]"] {
            let body = succeed(&mut curl(&[&format!("{base}/bytes/{SIZE}")]), b"");
            assert!(body == data, "{} bytes from {base}", body.len());
            let uploaded = succeed(curl(&["--upload-file", "-"]).arg(format!("{base}/upload")), &data);
            assert_eq!(String::from_utf8(uploaded).unwrap(), upload_of(&data));
        }
        server.terminate();
        assert!(server.wait().success());
        let segments = segments(&capture);
        for (from_port_80, ipv4) in [(true, true), (true, false), (false, true), (false, false)] {
            let lens = part(&segments, from_port_80, ipv4).map(|s| s.len);
            assert_eq!(lens.max(), Some(1500));
        }
    }
}

#[test]
fn where_the_kernel_offloads_the_tool_says_nothing() {
    if !enter_namespace(&[]) {
        return;
    }
    for offload in ["auto", "off"] {
        let mut server = serve(&format!("http --offload {offload}"));
        server.terminate();
        assert!(server.wait().success());
        assert!(!server.said.iter().any(|line| line.contains("offload")), "{:#?}", server.said);
    }
}

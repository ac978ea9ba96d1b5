//! tshark checks the packets on the device: none malformed, no bad checksum, no error, and no warning except those that
//! a scenario expects.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::namespace::{Running, enter_namespace, run, serve, steadfast};
use crate::{pace, requests, transfers};

/// Windows close if an end is slow. A D-SACK answers a spurious retransmission of the kernel, when this process was not
/// scheduled for so long that an ACK seemed lost.
const EXPECTED: [&str; 3] = [
    "TCP window specified by the receiver is now completely full",
    "TCP Zero Window segment",
    "D-SACK Sequence",
];
const RESET: [&str; 1] = ["Connection reset (RST)"];

/// Linux writes a checksum of 0x0000 as 0xffff (`skb_checksum_help`), which only UDP requires: one of 65,536 segments.
const NOT_THE_KERNELS_FFFF: &str = "!(tcp.checksum == 0xffff && (ip.src == 10.9.0.1 || ipv6.src == fd09::1))";

/// Runs tshark on a capture. Returns one line for each packet that matches `filter`.
fn tshark(capture: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-n", "-r"]).arg(capture);
    tshark.args(["-Y", filter, "-T", "fields"]).args(fields.iter().flat_map(|field| ["-e", field]));
    let (status, said, errors) = run(&mut tshark, b"");
    assert!(status.success(), "{errors}");
    String::from_utf8(said).unwrap().lines().map(str::to_owned).collect()
}

/// Checks a capture, which must hold at least `packets`.
#[track_caller]
fn judge(capture: &Path, packets: usize, expected: &[&str]) {
    let count = tshark(capture, "tcp", &["frame.number"]).len();
    assert!(count >= packets, "{count} segments");
    let bad = "(_ws.malformed || tcp.checksum.status == 0 || ip.checksum.status == 0)";
    let lines =
        tshark(capture, &format!("{bad} && {NOT_THE_KERNELS_FFFF}"), &["frame.number", "_ws.col.Info"]);
    assert!(lines.is_empty(), "{lines:#?}");
    let fields = ["frame.number", "_ws.expert.message", "_ws.col.Info"];
    let warned = format!("_ws.expert.severity >= 0x600000 && {NOT_THE_KERNELS_FFFF}");
    let lines = tshark(capture, &warned, &fields);
    let strange: Vec<_> = lines.iter().filter(|line| !expected.iter().any(|e| line.contains(e))).collect();
    assert!(strange.is_empty(), "{} of {count}: {:#?}", strange.len(), &strange[..strange.len().min(20)]);
}

struct Captured {
    dir: tempfile::TempDir,
    server: Running,
}

impl Captured {
    /// Without offload, each segment is one packet.
    fn serve(service: &str, offload: &str) -> Captured {
        let dir = tempfile::tempdir().unwrap();
        let server =
            serve(&format!("{service} --offload {offload} --pcap {}", Captured::file(&dir).display()));
        Captured { dir, server }
    }

    fn file(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("traffic.pcapng")
    }

    /// Stops the server and checks its capture.
    #[track_caller]
    fn judge(mut self, packets: usize, expected: &[&str]) {
        self.server.terminate();
        assert!(self.server.wait().success(), "{:?}", self.server.said);
        judge(&Captured::file(&self.dir), packets, expected);
    }
}

#[test]
fn captures_of_downloads_uploads_and_requests_are_sound() {
    if !enter_namespace(&["curl", "tshark"]) {
        return;
    }
    for (offload, packets) in [("off", 15_000), ("auto", 1500)] {
        let captured = Captured::serve("http", offload);
        for base in ["http://10.9.0.2", "http://[fd09::2]"] {
            transfers::download(base, 5_000_000, &[]);
            transfers::upload(base, 5_000_000, &[]);
            requests::on_one_connection(base, 100);
            requests::in_parallel(base, 100);
        }
        captured.judge(packets, &EXPECTED);
    }
}

#[test]
fn captures_of_slow_ends_are_sound() {
    if !enter_namespace(&["tshark"]) {
        return;
    }
    let mut captured = Captured::serve("echo", "off");
    for address in ["10.9.0.2:7", "[fd09::2]:7"] {
        pace::slow_writer(address);
        pace::slow_both_ways(&mut captured.server, address);
    }
    captured.judge(30_000, &EXPECTED);
}

/// Every way in which a client of the kernel ends a connection, and a port without a listener.
#[test]
fn captures_of_ends_are_sound() {
    if !enter_namespace(&["tshark"]) {
        return;
    }
    let captured = Captured::serve("echo", "auto");
    for address in ["10.9.0.2", "[fd09::2]"] {
        let echoed = || {
            let mut stream = pace::kernel_client(&format!("{address}:7"));
            stream.write_all(b"hold fast").unwrap();
            stream.read_exact(&mut [0; 9]).unwrap();
            stream
        };
        drop(echoed());
        let mut half_closed = echoed();
        half_closed.write_all(b"and on").unwrap();
        half_closed.shutdown(Shutdown::Write).unwrap();
        half_closed.read_to_end(&mut Vec::new()).unwrap();
        // Closing with unread data sends a RST.
        let mut aborted = echoed();
        aborted.write_all(&[0; 9]).unwrap();
        aborted.peek(&mut [0; 1]).unwrap();
        drop(aborted);
        TcpStream::connect(format!("{address}:8")).unwrap_err();
    }
    captured.judge(60, &RESET);
}

#[test]
fn a_capture_of_connect_to_nginx_is_sound() {
    if !enter_namespace(&["nginx", "tshark"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let content = transfers::pattern(5_000_000);
    fs::write(dir.path().join("file.bin"), &content).unwrap();
    let _nginx = transfers::nginx(dir.path());
    for address in ["10.9.0.1:80", "[fd09::1]:80"] {
        let file = dir.path().join("traffic.pcapng");
        let mut connect = steadfast(&format!("connect {address} --offload off --pcap {}", file.display()));
        transfers::connect_fetches(&mut connect, &content);
        judge(&file, 7000, &EXPECTED);
    }
}

/// A capture of both hosts has each packet twice. That of one host has it once, and tshark sees nothing strange in it
/// but what the scenario does: in H1 the first SYN is lost behind C.
#[test]
fn a_capture_of_one_host_of_the_lab_has_nothing_twice() {
    if !enter_namespace(&["tshark"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("host.pcapng");
    let strange = "tcp.analysis.retransmission || tcp.analysis.fast_retransmission || tcp.analysis.out_of_order \
                   || tcp.analysis.spurious_retransmission || tcp.analysis.duplicate_ack";
    for (scenario, host, expected) in
        [("N1", "C", &[][..]), ("N1", "S", &[]), ("H1", "C", &["2"]), ("H1", "S", &[])]
    {
        let mut lab = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        lab.args(["lab", "run", scenario, "--profile", "linux", "--pcap-host", host, "--pcap"]).arg(&file);
        let (status, _, errors) = run(&mut lab, b"");
        assert!(status.success(), "{errors}");
        assert!(tshark(&file, "tcp", &["frame.number"]).len() >= 6, "{scenario} at {host}");
        assert_eq!(tshark(&file, strange, &["frame.number"]), expected, "{scenario} at {host}");
    }
}

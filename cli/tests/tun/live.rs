//! The live lists of a server with a control socket.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::namespace::{enter_namespace, run, serve};

#[test]
fn a_running_server_lists_its_connections_counters_and_settings() {
    if !enter_namespace(&[]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("echo.sock");
    let _server = serve(&format!("echo --port 7 --control={} --control-write", socket.display()));
    let mut client = TcpStream::connect("10.9.0.2:7").unwrap();
    client.write_all(&[7; 1000]).unwrap();
    client.read_exact(&mut [0; 1000]).unwrap();
    let own = client.local_addr().unwrap();

    let ask = |args: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        command.args(args.split(' ')).arg("--socket").arg(&socket);
        let (status, said, errors) = run(&mut command, b"");
        (status.code(), String::from_utf8(said).unwrap() + &errors)
    };
    let (code, listed) = ask("ss -tnie state established");
    assert_eq!(code, Some(0), "{listed}");
    let [head, row, numbers] = listed.lines().collect::<Vec<_>>()[..] else { panic!("{listed}") };
    assert!(head.starts_with("State"), "{listed}");
    let row: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(row[..5], ["ESTAB", "0", "0", "10.9.0.2:7", &own.to_string()]);
    assert_eq!(row.last(), Some(&"listener:10.9.0.2:7"));
    assert!(numbers.contains("bytes_received:1000"), "{listed}");
    assert!(ask("ss -tnl").1.contains("LISTEN"));
    assert!(!ask("ss -tn sport = :8").1.contains("ESTAB"));
    assert!(ask("ss -tn sport = 8 =").1.contains("filter: `=`: expected"));
    assert!(ask("nstat -a Tcp*Segs").1.contains("TcpInSegs"));
    let metrics = ask("metrics").1;
    for line in ["connections{state=\"ESTAB\"} 1", "handshake_seconds_count 1", "accept_wait_seconds_count 1"]
    {
        assert!(metrics.contains(&format!("steadfast_tcp_{line}")), "{line}: {metrics}");
    }
    assert!(ask("top -d 0.1").1.contains(&own.to_string()));
    keys_of_top(&socket, &own.to_string());
    page_of_a_trace(&socket, &dir.path().join("live.html"), &mut client);
    let file = dir.path().join("echo.pcapng");
    capture_and_counters(&socket, &file, &mut client);
    let error = ask(&format!("capture --for 0 {}/", dir.path().display())).1;
    assert!(error.contains("Is a directory"), "{error}");
    let error = ask("trace --for 0 --html /").1;
    assert!(error.contains("/: Is a directory"), "{error}");
    let mut taken = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    taken.arg("run").arg(format!("--control={}", dir.path().display())).args(["--", "true"]);
    let (status, _, error) = run(&mut taken, b"");
    assert_eq!(status.code(), Some(125));
    assert!(
        error.contains(&format!("--control={}: a folder is there: expected a path", dir.path().display())),
        "{error}"
    );
    assert_eq!(ask("sysctl -w tcp_retries2=8").1, "net.ipv4.tcp_retries2 = 8\n");
    assert!(ask("sysctl tcp_retry").1.contains("`tcp_retry`: no such setting"));

    assert_eq!(ask(&format!("ss -K dst {own}")).0, Some(0));
    let end = client.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    assert!(!ask("ss -tn").1.contains("ESTAB"));
}

/// A page of a connection that is traced, which has its segments and its numbers.
fn page_of_a_trace(socket: &Path, page: &Path, client: &mut TcpStream) {
    let mut trace = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    trace.args(["trace", ":7", "--for", "2", "--html"]).arg(page).arg("--socket").arg(socket);
    let mut trace = trace.stdout(Stdio::piped()).spawn().unwrap();
    while trace.try_wait().unwrap().is_none() {
        client.write_all(&[7; 1000]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
    }
    let said = std::io::read_to_string(trace.stdout.take().unwrap()).unwrap();
    assert!(said.contains("live.html: 1 connection, "), "{said}");
    assert!(std::fs::read_to_string(page).unwrap().contains("id=\"data\">"));
}

/// A capture of a connection and the counters of two seconds, while it is busy. `pcap` reads the file.
fn capture_and_counters(socket: &Path, file: &Path, client: &mut TcpStream) {
    let begin = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        command.args(args).arg("--socket").arg(socket).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut capture = begin(&["capture", "--for", "2", "-s", "64", file.to_str().unwrap()]);
    let mut nstat = begin(&["nstat", "-d", "1", "-n", "2", "TcpInSegs"]);
    while capture.try_wait().unwrap().is_none() || nstat.try_wait().unwrap().is_none() {
        client.write_all(&[7; 1000]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
    }
    let said = std::io::read_to_string(capture.stdout.take().unwrap()).unwrap();
    assert!(said.contains("echo.pcapng: ") && said.contains(" packets in 2 s"), "{said}");
    let said = std::io::read_to_string(nstat.stdout.take().unwrap()).unwrap();
    let lines: Vec<&str> = said.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(lines, ["#steadfast", "TcpInSegs", "#steadfast", "TcpInSegs"]);
    let mut list = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    let (status, said, errors) = run(list.args(["pcap", "list"]).arg(file), b"");
    let said = String::from_utf8(said).unwrap() + &errors;
    let ends = format!("{} > 10.9.0.2:7", client.local_addr().unwrap());
    assert!(status.success() && said.contains(&ends), "{said}");
}

/// `top` in a terminal: the events of a connection, the way back, the end. The terminal is left as it was.
fn keys_of_top(socket: &Path, peer: &str) {
    let terminal = openpty(None, None).unwrap();
    let before = tcgetattr(&terminal.slave).unwrap();
    let end = || Stdio::from(terminal.slave.try_clone().unwrap());
    let begin = |delay: &str| {
        let mut top = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        top.args(["top", "-d", delay, "--socket"]).arg(socket).stdin(end()).stdout(end()).stderr(end());
        top.spawn().unwrap()
    };
    let mut screen = File::from(terminal.master);
    let mut keys = screen.try_clone().unwrap();
    let mut shown = String::new();
    let mut until = |wanted: &str| {
        shown.clear();
        let mut bytes = [0; 4096];
        while !shown.contains(wanted) {
            let len = screen.read(&mut bytes).unwrap();
            assert!(len > 0 && shown.len() < 1 << 20, "waits for `{wanted}`, has `{shown}`");
            shown += &String::from_utf8_lossy(&bytes[..len]);
        }
    };
    // The last line comes with its view, not with the next one.
    let (mut top, start) = (begin("60"), Instant::now());
    until("q end");
    keys.write_all(b"q").unwrap();
    assert!(top.wait().unwrap().success() && start.elapsed() < Duration::from_secs(30));
    let mut top = begin("0.1");
    until("> ESTAB");
    assert!(!tcgetattr(&terminal.slave).unwrap().local_flags.contains(LocalFlags::ICANON));
    keys.write_all(b"\r").unwrap();
    until(&format!("{peer}   any key: back"));
    keys.write_all(b" ").unwrap();
    until("s order: rate");
    keys.write_all(b"s").unwrap();
    until("s order: retrans");
    keys.write_all(b"q").unwrap();
    assert!(top.wait().unwrap().success());
    assert_eq!(tcgetattr(&terminal.slave).unwrap().local_flags, before.local_flags);
}

//! Slow peers, and peers that half-close.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::namespace::{LIMIT, Running, Status, enter_namespace, serve, steadfast};
use crate::transfers::pattern;

/// Two zero-window probes: after 0.2 s and 0.4 s, if the round trip is short.
const PROBES: u64 = 2;

pub(crate) fn kernel_client(server: &str) -> TcpStream {
    let server: SocketAddr = server.parse().unwrap();
    let stream = TcpStream::connect_timeout(&server, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// A counter of this namespace's kernel (`nstat`).
pub(crate) fn kernel_counter(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap()
        + &std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        if let Some(at) = names.split(' ').position(|n| n == name) {
            return values.split(' ').nth(at).unwrap().parse().unwrap();
        }
    }
    panic!("the kernel does not count {name}");
}

/// Waits until the stack of `tool` is in the wanted state.
#[track_caller]
pub(crate) fn wait_until(tool: &mut Running, wanted: impl Fn(&Status) -> bool) -> Status {
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = tool.status();
        if wanted(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:#?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The client's window closes twice and opens again. The server probes it, and resumes where it stopped.
pub(crate) fn slow_reader(server: &mut Running, address: &str) {
    let mut stream = kernel_client(address);
    let mut text = vec![0; 74 * 95 * 1000];
    let before = server.status().counter("TCPWinProbe");
    for stop in 1..=2 {
        let probed = wait_until(server, |s| s.counter("TCPWinProbe") >= before + stop * PROBES);
        assert_eq!(probed.count("ESTAB"), 1, "{probed:?}");
        stream.read_exact(&mut text).unwrap();
        let sound = |(i, line): (usize, &[u8])| line[0] == b' ' + (i % 95) as u8 && line.ends_with(b"\r\n");
        assert!(text.chunks(74).enumerate().all(sound));
    }
}

#[test]
fn a_server_probes_the_window_of_a_slow_reader_and_goes_on_when_it_opens() {
    if !enter_namespace(&[]) {
        return;
    }
    let mut server = serve("chargen");
    for address in ["10.9.0.2:19", "[fd09::2]:19"] {
        slow_reader(&mut server, address);
        wait_until(&mut server, |s| s.usage("connections") == 0);
    }
}

/// Neither side reads, so both windows close and both ends probe. Then all data arrives.
pub(crate) fn slow_both_ways(server: &mut Running, address: &str) {
    let mut stream = kernel_client(address);
    let data = pattern(40_000_000);
    let (ours, kernels) = (server.status().counter("TCPWinProbe"), kernel_counter("TCPWinProbe"));
    let (mut to, sent) = (stream.try_clone().unwrap(), data.clone());
    let writer = thread::spawn(move || {
        to.write_all(&sent).unwrap();
        to.shutdown(Shutdown::Write).unwrap();
    });
    wait_until(server, |s| {
        s.counter("TCPWinProbe") >= ours + PROBES && kernel_counter("TCPWinProbe") >= kernels + PROBES
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writer.join().unwrap();
    assert!(received == data, "{} bytes from {address}", received.len());
}

#[test]
fn windows_closed_both_ways_open_again_and_nothing_is_lost() {
    if !enter_namespace(&[]) {
        return;
    }
    let mut server = serve("echo");
    for address in ["10.9.0.2:7", "[fd09::2]:7"] {
        slow_both_ways(&mut server, address);
    }
    let status = server.status();
    let closed = status.counter("TCPToZeroWindowAdv");
    assert!(closed >= 2 && status.counter("TCPFromZeroWindowAdv") == closed, "{status:?}");
}

/// Writes one byte at a time; each is echoed before the next is written.
pub(crate) fn slow_writer(address: &str) {
    let mut stream = kernel_client(address);
    for byte in 0..=255 {
        stream.write_all(&[byte]).unwrap();
        let mut back = [0];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, [byte]);
        // The writer's pace.
        thread::sleep(Duration::from_millis(4));
    }
}

#[test]
fn a_slow_writer_gets_each_byte_back_at_once() {
    if !enter_namespace(&[]) {
        return;
    }
    let mut server = serve("echo");
    for address in ["10.9.0.2:7", "[fd09::2]:7"] {
        let since = Instant::now();
        slow_writer(address);
        // One delayed ACK per byte would take 10 s.
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    }
    assert_eq!(server.status().counter("RetransSegs"), 0);
}

/// The client half-closes long before it has read everything.
#[test]
fn a_client_that_half_closes_is_answered_to_the_end() {
    if !enter_namespace(&[]) {
        return;
    }
    let mut server = serve("echo");
    for address in ["10.9.0.2:7", "[fd09::2]:7"] {
        let mut stream = kernel_client(address);
        // More than the window takes, by less than `tcp_notsent_lowat`.
        let data = pattern(200_000);
        stream.write_all(&data).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        // The server has closed as well, but the client's window is full, so data is still queued.
        wait_until(&mut server, |s| s.count("LAST-ACK") == 1);
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received == data, "{} bytes from {address}", received.len());
        wait_until(&mut server, |s| s.usage("connections") == 0);
    }
    assert_eq!(server.status().count("TIME-WAIT"), 0, "the client closed first");
}

/// `connect` with piped input and output.
fn connect(address: &str) -> Running {
    let mut command = steadfast(&format!("connect {address}"));
    Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))
}

#[test]
fn connect_in_fin_wait_2_receives_to_the_end() {
    if !enter_namespace(&[]) {
        return;
    }
    let listener = TcpListener::bind("[::]:99").unwrap();
    for address in ["10.9.0.1:99", "[fd09::1]:99"] {
        let mut client = connect(address);
        let (mut peer, _) = listener.accept().unwrap();
        drop(client.child.stdin.take());
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the client has said all");
        wait_until(&mut client, |s| s.count("FIN-WAIT-2") == 1);
        let data = pattern(300_000);
        let mut output = client.child.stdout.take().unwrap();
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            output.read_to_end(&mut received).unwrap();
            received
        });
        peer.write_all(&data).unwrap();
        drop(peer);
        let received = reader.join().unwrap();
        assert!(received == data, "{} bytes from {address}", received.len());
        assert!(client.wait().success(), "{:?}", client.said);
    }
}

#[test]
fn connect_in_close_wait_sends_to_the_end() {
    if !enter_namespace(&[]) {
        return;
    }
    let listener = TcpListener::bind("[::]:99").unwrap();
    for address in ["10.9.0.1:99", "[fd09::1]:99"] {
        let mut client = connect(address);
        let (mut peer, _) = listener.accept().unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let mut output = client.child.stdout.take().unwrap();
        wait_until(&mut client, |s| s.count("CLOSE-WAIT") == 1);
        let data = pattern(3_000_000);
        let mut input = client.child.stdin.take().unwrap();
        let sent = data.clone();
        let writer = thread::spawn(move || input.write_all(&sent).unwrap());
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        assert!(received == data, "{} bytes to {address}", received.len());
        assert_eq!(output.read(&mut [0; 1]).unwrap(), 0);
        assert!(client.wait().success(), "{:?}", client.said);
    }
}

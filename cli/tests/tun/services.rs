use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::TcpMaxSeg;

use crate::namespace::{LIMIT, enter_namespace, run, serve, steadfast};

fn kernel_client(server: &str) -> TcpStream {
    let server: SocketAddr = server.parse().unwrap();
    let stream = TcpStream::connect_timeout(&server, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Returns whether this thread's namespace has an interface of this name.
fn has_interface(name: &str) -> bool {
    let interfaces = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    interfaces.lines().any(|line| line.trim_start().starts_with(&format!("{name}:")))
}

#[test]
fn echo_sends_back_what_a_kernel_client_sends_until_it_closes() {
    if !enter_namespace(&[]) {
        return;
    }
    let mut server = serve("-v echo");
    for address in ["10.9.0.2:7", "[fd09::2]:7"] {
        let mut stream = kernel_client(address);
        let data = pattern(4_000_000);
        let mut to = stream.try_clone().unwrap();
        let sent = data.clone();
        let writer = thread::spawn(move || {
            to.write_all(&sent).unwrap();
            to.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        assert!(received == data, "{} bytes from {address}", received.len());
    }
    server.wait_for("closed after");
}

#[test]
fn discard_takes_all_and_says_nothing() {
    if !enter_namespace(&[]) {
        return;
    }
    let mut server = serve("-v discard");
    let mut stream = kernel_client("10.9.0.2:9");
    stream.write_all(&pattern(4_000_000)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    drop(stream);
    server.wait_for("4000000 bytes received");
}

#[test]
fn chargen_sends_lines_until_the_client_has_enough() {
    if !enter_namespace(&[]) {
        return;
    }
    let mut server = serve("-v chargen");
    let mut stream = kernel_client("[fd09::2]:19");
    let mut text = vec![0; 74 * 95 * 100];
    stream.read_exact(&mut text).unwrap();
    for (i, line) in text.chunks(74).enumerate() {
        assert!(line.ends_with(b"\r\n"));
        assert_eq!(line[0], b' ' + (i % 95) as u8);
    }
    drop(stream);
    server.wait_for("connected");
}

#[test]
fn a_server_that_is_told_to_end_closes_its_connections_and_takes_the_device_with_it() {
    if !enter_namespace(&[]) {
        return;
    }
    for service in ["echo", "http"] {
        let mut server = serve(&format!("-v {service} --port 99"));
        let mut stream = kernel_client("10.9.0.2:99");
        server.wait_for(": connected");
        server.terminate();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "a FIN, no RST");
        drop(stream);
        let status = server.wait();
        assert!(status.success(), "{status}: {:?}", server.said);
        assert!(!has_interface("sf0"), "the device is gone");
    }
}

#[test]
fn a_server_whose_device_is_deleted_says_so_and_ends() {
    if !enter_namespace(&["ip"]) {
        return;
    }
    for service in ["discard", "http"] {
        let mut server = serve(&format!("-v {service} --port 99"));
        let _idle = kernel_client("10.9.0.2:99");
        server.wait_for(": connected");
        let (status, _, errors) = run(Command::new("ip").args(["link", "delete", "sf0"]), b"");
        assert!(status.success(), "{errors}");
        assert_eq!(server.wait().code(), Some(2));
        server.wait_for(&format!("steadfast: {service}: the device failed: "));
    }
}

#[test]
fn a_connect_that_is_refused_says_so_by_its_posix_name_at_once() {
    if !enter_namespace(&[]) {
        return;
    }
    for address in ["10.9.0.1:81", "[fd09::1]:81"] {
        let since = Instant::now();
        let (status, output, errors) = run(&mut steadfast(&format!("connect {address}")), b"x");
        assert_eq!(status.code(), Some(1));
        assert_eq!(errors, format!("steadfast: connect {address}: connection refused (ECONNREFUSED)"));
        assert!(output.is_empty());
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    }
}

#[test]
fn connect_carries_both_ways_and_closes_each_by_itself() {
    if !enter_namespace(&[]) {
        return;
    }
    let (question, answer) = (pattern(3_000_000), pattern(2_000_000));
    // The device disappears with the first `connect`, so the server listens on all addresses.
    let listener = TcpListener::bind("[::]:99").unwrap();
    let (expected, reply) = (question.clone(), answer.clone());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received == expected);
        stream.write_all(&reply).unwrap();
    });
    let (status, output, errors) = run(&mut steadfast("connect 10.9.0.1:99"), &question);
    assert!(status.success(), "{errors}");
    assert!(output == answer, "{} bytes", output.len());
    server.join().unwrap();
}

/// The kernel is told an MSS of 700, and of that timestamps take 12 bytes.
#[test]
fn connect_uses_the_source_port_and_the_socket_options_that_it_is_given() {
    if !enter_namespace(&[]) {
        return;
    }
    let listener = TcpListener::bind("[::]:99").unwrap();
    let server = thread::spawn(move || {
        let (stream, peer) = listener.accept().unwrap();
        (peer.port(), getsockopt(&stream, TcpMaxSeg).unwrap())
    });
    let arguments = "connect 10.9.0.1:99 --source-port 4444 --option maxseg=700 --option nodelay";
    let (status, _, errors) = run(&mut steadfast(arguments), b"");
    assert!(status.success(), "{errors}");
    assert_eq!(server.join().unwrap(), (4444, 688));
}

#[test]
fn a_connection_that_the_server_resets_ends_with_status_1() {
    if !enter_namespace(&[]) {
        return;
    }
    let listener = TcpListener::bind("[::]:99").unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Closing with unread data makes the kernel send a RST.
        stream.read_exact(&mut [0; 1]).unwrap();
    });
    let (status, _, errors) = run(&mut steadfast("connect 10.9.0.1:99"), &pattern(10_000_000));
    assert_eq!(status.code(), Some(1));
    assert!(errors.ends_with("(ECONNRESET)") || errors.ends_with("(EPIPE)"), "{errors}");
    server.join().unwrap();
}

#[test]
fn a_server_says_at_sigusr1_what_it_holds_and_what_it_counted() {
    if !enter_namespace(&[]) {
        return;
    }
    let mut server = serve("-v echo");
    let mut stream = kernel_client("[fd09::2]:7");
    stream.write_all(b"hold fast").unwrap();
    stream.read_exact(&mut [0; 9]).unwrap();
    let status = server.status();
    assert_eq!((status.count("LISTEN"), status.count("ESTAB")), (2, 1), "{status:?}");
    assert_eq!((status.usage("listeners"), status.usage("connections")), (2, 1));
    assert_eq!(status.counter("PassiveOpens"), 1);
    assert_eq!(status.counter("OutRsts"), 0);
}

#[test]
fn a_capture_holds_what_crossed_the_device() {
    if !enter_namespace(&[]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("traffic.pcapng");
    let mut server = serve(&format!("echo --pcap {}", file.display()));
    let mut stream = kernel_client("10.9.0.2:7");
    stream.write_all(b"find me in the capture").unwrap();
    stream.read_exact(&mut [0; 22]).unwrap();
    drop(stream);
    server.terminate();
    assert!(server.wait().success());
    let bytes = std::fs::read(&file).unwrap();
    let found = bytes.windows(22).filter(|w| w == b"find me in the capture").count();
    assert_eq!(found, 2, "there and back");
}

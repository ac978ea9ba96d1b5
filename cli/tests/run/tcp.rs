//! TCP through the gateway.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::scene::{SERVER, Scene, echo, read_all, reset};

/// The times that the client took to learn the outcome of each connection.
fn times(errors: &[u8]) -> Vec<f64> {
    let text = String::from_utf8_lossy(errors);
    let seconds = |line: &str| line.rsplit_once(' ').and_then(|(_, seconds)| seconds.parse().ok());
    text.lines().filter_map(seconds).collect()
}

#[test]
fn f01_f02_a_dial_that_fails_fails_as_directly() {
    let Some(scene) = Scene::new() else { return };
    // A port that is closed, what a router says (host unreachable, prohibited), and a family that the machine lacks.
    let closed = scene.there(|| TcpListener::bind((SERVER, 0)).unwrap().local_addr().unwrap());
    let ends =
        [closed.to_string(), "203.0.113.2:80".into(), "203.0.113.3:80".into(), "2001:db8::1:80".into()];
    let client: Vec<&str> = std::iter::once("dial").chain(ends.iter().map(String::as_str)).collect();
    let output = scene.compare(&[], &client);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        told.lines().collect::<Vec<_>>(),
        ["ECONNREFUSED", "EHOSTUNREACH", "EHOSTUNREACH", "ENETUNREACH"]
    );
    let took = times(&output.stderr);
    assert!(took.len() == 4 && took.iter().all(|seconds| *seconds < 1.0), "{took:?}");
}

#[test]
fn f02_a_host_that_answers_no_arp_is_unreachable_after_the_same_time() {
    let Some(scene) = Scene::new() else { return };
    let client = ["dial", "192.0.2.9:80"];
    let began = Instant::now();
    assert_eq!(scene.direct(&client), "EHOSTUNREACH\n");
    let direct = began.elapsed().as_secs_f64();
    let output = scene.client_output(&[], &client);
    assert_eq!(output.stdout, b"EHOSTUNREACH\n");
    // The direct time has the start of the client in it.
    let took = times(&output.stderr)[0];
    assert!((direct - 1.0..direct + 0.1).contains(&took), "{took} {direct}");
}

/// The connections of this machine that wait for an answer to their SYN, to this address.
fn dials(to: [u8; 4]) -> usize {
    const SYN_SENT: &str = "02";
    let address = format!("{:08X}:", u32::from_ne_bytes(to));
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2].starts_with(&address) && row[3] == SYN_SENT).count()
}

#[test]
fn f03_a_dial_ends_when_the_client_has_given_up() {
    let Some(scene) = Scene::new() else { return };
    let client = ["python3", "-c", include_str!("client.py"), "abandon", "203.0.113.1:80", "1.5"];
    let mut run = scene.run(&[], &client).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(run.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!((&*line, dials([203, 0, 113, 1])), ("timeout\n", 1));
    let given_up = Instant::now();
    while dials([203, 0, 113, 1]) > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(given_up.elapsed() < Duration::from_secs(6));
    drop(run.stdin.take());
    assert!(run.wait().unwrap().success());
}

#[test]
fn f04_dials_to_a_dead_host_hold_up_no_others() {
    let Some(scene) = Scene::new() else { return };
    let alive = format!("{SERVER}:{}", scene.serve(drop));
    assert_eq!(scene.client(&[], &["besides", "203.0.113.1:80", &alive, "200", "50"]), "50 200\n");
}

#[test]
fn f06_a_reset_of_the_client_reaches_the_server() {
    let Some(scene) = Scene::new() else { return };
    let (sender, seen) = channel();
    let port = scene.serve(move |mut stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        stream.write_all(&byte).unwrap();
        sender.send((byte[0], read_all(&stream).map_err(|e| e.kind()))).unwrap();
    });
    scene.compare(&[], &["reset", SERVER, &port.to_string(), "10"]);
    let all: Vec<_> = seen.iter().take(20).collect();
    assert!(all.iter().all(|one| *one == (b'x', Err(std::io::ErrorKind::ConnectionReset))), "{all:?}");
}

#[test]
fn f07_a_reset_of_the_server_reaches_the_client_after_the_data() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.serve(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        // It leaves at once, before the RST.
        stream.write_all(&[7; 8192]).unwrap();
        reset(stream);
    });
    for _ in 0..5 {
        let output = scene.compare(&[], &["drain", SERVER, &port.to_string()]);
        assert!(output.stdout.starts_with(b"ECONNRESET\n"));
    }
}

#[test]
fn f08_each_direction_ends_by_itself() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.serve(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let bytes = read_all(&stream).unwrap();
        let right = bytes.iter().enumerate().all(|(at, byte)| at % 256 == usize::from(*byte));
        stream.write_all(format!("{} bytes, right: {right}", bytes.len()).as_bytes()).unwrap();
    });
    let output = scene.compare(&[], &["upload", SERVER, &port.to_string(), &(3 << 20).to_string()]);
    assert_eq!(output.stdout, b"3145728 bytes, right: true\n");
}

/// Bytes of a transfer whose reader stops.
const LONG: usize = 256 << 20;

/// Bytes by which `run` may grow meanwhile, in KiB.
const GROWTH: i64 = 8 << 10;

/// Runs the client's `stop`. The answer of `serve` gets the connection of the transfer, and the one that starts it.
fn stop(kind: &str, serve: impl FnOnce(TcpStream, TcpStream) + Send + 'static) {
    let Some(scene) = Scene::new() else { return };
    let (mut serve, mut waiting) = (Some(serve), None);
    let port = scene.serve(move |stream| match (waiting.take(), serve.take()) {
        (Some(first), Some(serve)) => serve(first, stream),
        (None, again) => (waiting, serve) = (Some(stream), again),
        (Some(_), None) => panic!("a third connection"),
    });
    let output = scene.client(&[], &["stop", kind, SERVER, &port.to_string(), &LONG.to_string()]);
    let [total, grown] = [0, 1].map(|at| output.split_whitespace().nth(at).unwrap().parse::<i64>().unwrap());
    assert_eq!(total, LONG as i64);
    assert!(grown < GROWTH, "{grown} KiB");
}

#[test]
fn f12_a_server_that_stops_reading_costs_no_memory() {
    stop("up", |mut stream, mut control| {
        control.read_exact(&mut [0]).unwrap();
        let read = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        stream.write_all(read.to_string().as_bytes()).unwrap();
    });
}

#[test]
fn f12_a_client_that_stops_reading_costs_no_memory() {
    stop("down", |mut stream, mut control| {
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let (data, mut sent) = (vec![7; 1 << 16], 0);
        while sent < LONG {
            match stream.write(&data) {
                Ok(len) => sent += len,
                Err(_) => break,
            }
        }
        control.write_all(b"x").unwrap();
        stream.set_write_timeout(None).unwrap();
        stream.write_all(&vec![7; LONG - sent]).unwrap();
    });
}

/// With `STEADFAST_FULL=1` there are ten times as many.
#[test]
fn f10_a_crowd_is_served_as_directly() {
    let Some(scene) = Scene::new() else { return };
    let full = std::env::var_os("STEADFAST_FULL").is_some_and(|value| value != "0");
    let count = if full { "10000" } else { "1000" };
    crate::scene::raise_files();
    let port = scene.serve(echo);
    let output = scene.compare(&[], &["crowd", SERVER, &port.to_string(), count]);
    assert_eq!(output.stdout, format!("{count}\n").as_bytes());
}

#[test]
fn f20_the_machine_itself_is_closed_unless_a_rule_opens_it() {
    let Some(scene) = Scene::new() else { return };
    let here = crate::scene::serve_here(drop);
    let alias = format!("10.0.2.4:{}", here.port());
    let dial = |options: &[&str], end: &str| scene.client(options, &["dial", end]);
    assert_eq!(dial(&[], &alias), "EHOSTUNREACH\n");
    assert_eq!(dial(&[], "169.254.169.254:80"), "EHOSTUNREACH\n");
    let rule = format!("--allow=127.0.0.1:{}", here.port());
    assert_eq!(dial(&[&rule], &alias), "None\n");
    // The same destination, with and without a rule.
    let port = scene.serve(drop).to_string();
    let server = format!("{SERVER}:{port}");
    assert_eq!(dial(&[], &server), "None\n");
    assert_eq!(dial(&["--deny=198.51.100.0/24"], &server), "EHOSTUNREACH\n");
    assert_eq!(dial(&["--deny=198.51.100.0/24", &format!("--allow={server}")], &server), "None\n");
    assert_eq!(dial(&["--deny=*:22"], &server), "None\n");
}

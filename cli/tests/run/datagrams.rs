//! UDP and ping through the gateway.

use std::fs;
use std::net::UdpSocket;
use std::thread;

use crate::scene::{SERVER, Scene};

/// Returns each datagram.
fn serve_echo(scene: &Scene) -> u16 {
    let socket = scene.there(|| UdpSocket::bind((SERVER, 0)).unwrap());
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..len], from).unwrap();
        }
    });
    port
}

#[test]
fn f14_datagrams_of_any_size_return() {
    let Some(scene) = Scene::new() else { return };
    let port = serve_echo(&scene).to_string();
    let output = scene.compare(&[], &["datagrams", SERVER, &port, "1", "1472", "1473", "9000", "65507"]);
    assert_eq!(output.stdout, b"1\n1472\n1473\n9000\n65507\n");
}

#[test]
fn f14_a_closed_port_is_told() {
    let Some(scene) = Scene::new() else { return };
    let closed = scene.there(|| UdpSocket::bind((SERVER, 0)).unwrap().local_addr().unwrap().port());
    let output = scene.compare(&[], &["datagrams", SERVER, &closed.to_string(), "1"]);
    assert_eq!(output.stdout, b"ECONNREFUSED\n");
}

#[test]
fn f15_two_destinations_see_the_same_port_of_a_socket() {
    let Some(scene) = Scene::new() else { return };
    let other = "192.0.2.2";
    let sockets = scene.there(move || [SERVER, other].map(|host| UdpSocket::bind((host, 0)).unwrap()));
    let ends: Vec<String> = sockets.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect();
    let seen = thread::spawn(move || {
        sockets.map(|socket| {
            let (_, from) = socket.recv_from(&mut [0; 64]).unwrap();
            socket.send_to(b"seen", from).unwrap();
            from
        })
    });
    assert_eq!(scene.client(&[], &["one_socket", &ends[0], &ends[1]]), format!("{}\n{}\n", ends[0], ends[1]));
    let [first, second] = seen.join().unwrap();
    assert_eq!(first, second);
}

/// The lines of ping that do not tell times.
fn ping(scene: &Scene, inside: bool, args: &[&str]) -> Vec<String> {
    let command = [&["ping", "-n", "-c", "1", "-W", "2"], args].concat();
    let output = if inside {
        scene.run(&[], &command).output().unwrap()
    } else {
        scene.user("ping").args(&command[1..]).output().unwrap()
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let known = text
        .lines()
        .filter(|line| line.contains("received") || line.contains("bytes from") || line.starts_with("From "));
    let plain = |line: &str| line.split(" ttl=").next().unwrap().split(", time").next().unwrap().to_owned();
    known.map(plain).collect()
}

#[test]
fn f16_pings_are_answered_and_refused_as_directly() {
    let Some(scene) = Scene::new() else { return };
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    for args in [&["-s", "56", SERVER][..], &["-s", "8000", SERVER]] {
        let inside = ping(&scene, true, args);
        assert_eq!(inside, ping(&scene, false, args));
        assert!(inside.iter().any(|line| line.contains("1 received")), "{inside:?}");
    }
    let nobody = ping(&scene, true, &["203.0.113.2"]);
    assert!(nobody.iter().any(|line| line.contains("Destination Host Unreachable")), "{nobody:?}");
}

//! Names through the gateway.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::thread;

use crate::scene::{SERVER, Scene};

/// Answers each query with the query itself, marked as an answer, and `len` bytes behind it.
fn answer(query: &[u8], len: usize) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer.extend((0..len).map(|at| at as u8));
    answer
}

/// A name server that nobody would believe, so that only its bytes can be compared.
fn serve_names(scene: &Scene) {
    let (udp, tcp) =
        scene.there(|| (UdpSocket::bind((SERVER, 53)).unwrap(), TcpListener::bind((SERVER, 53)).unwrap()));
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = udp.recv_from(&mut buffer) {
            udp.send_to(&answer(&buffer[..len], 3000), from).unwrap();
        }
    });
    thread::spawn(move || {
        while let Ok((mut stream, _)) = tcp.accept() {
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut query).unwrap();
            let answer = answer(&query, 40_000);
            stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
}

#[test]
fn f17_answers_of_the_name_server_arrive_byte_for_byte() {
    let Some(scene) = Scene::new() else { return };
    serve_names(&scene);
    let direct = scene.direct(&["query", SERVER]);
    // The gateway's own address leads to the same server. The first one does not answer at all.
    let servers = [&format!("--dns={SERVER}")[..], "--dns=127.0.0.1:1", &format!("--dns={SERVER}")];
    assert_eq!(scene.client(&servers[..1], &["query", "10.0.2.3"]), direct);
    assert_eq!(scene.client(&servers[1..], &["query", "10.0.2.3"]), direct);
}

#[test]
fn f17_the_command_finds_the_gateway_in_resolv_conf() {
    let Some(scene) = Scene::new() else { return };
    let output = scene.run(&[], &["cat", "/etc/resolv.conf"]).output().unwrap();
    assert!(output.stdout.starts_with(b"nameserver 10.0.2.3\n"), "{output:?}");
    let output = scene.run(&["--dns", "none"], &["cat", "/etc/resolv.conf"]).output().unwrap();
    assert_eq!(output.stdout, std::fs::read("/etc/resolv.conf").unwrap());
}

//! Names through the gateway.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};
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
fn serve_names(scene: &Scene, address: &'static str, udp_len: usize) {
    let (udp, tcp) = scene
        .there(move || (UdpSocket::bind((address, 53)).unwrap(), TcpListener::bind((address, 53)).unwrap()));
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = udp.recv_from(&mut buffer) {
            udp.send_to(&answer(&buffer[..len], udp_len), from).unwrap();
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
    serve_names(&scene, SERVER, 3000);
    let direct = scene.direct(&["query", SERVER]);
    // The gateway's own address leads to the same server. The first one does not answer at all.
    let servers = [&format!("--dns={SERVER}")[..], "--dns=127.0.0.1:1", &format!("--dns={SERVER}")];
    assert_eq!(scene.client(&servers[..1], &["query", "10.0.2.3"]), direct);
    assert_eq!(scene.client(&servers[1..], &["query", "10.0.2.3"]), direct);
}

#[test]
fn f17_the_servers_are_those_that_the_machine_has_at_the_time_of_the_query() {
    const OTHER: &str = "192.0.2.2";
    let Some(scene) = Scene::new() else { return };
    serve_names(&scene, SERVER, 100);
    serve_names(&scene, OTHER, 200);
    // The user must be able to read it.
    let list = scene.file("resolv.conf");
    let name = |server: &str| std::fs::write(&list, format!("nameserver {server}\n")).unwrap();
    name(SERVER);
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec setpriv --reuid=1001 --regid=1001 --clear-groups \
                  --inh-caps=-all \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(&list).arg(scene.program());
    command.args(["run", "--", "python3", "-c", include_str!("client.py"), "queries", "10.0.2.3"]);
    let mut run = command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, output) = (run.stdin.take().unwrap(), run.stdout.take().unwrap());
    let mut lengths = BufReader::new(output).lines().map(|line| line.unwrap());
    const QUERY: usize = 29;
    for (server, len) in [(SERVER, 100), (OTHER, 200)] {
        name(server);
        input.write_all(b"go\n").unwrap();
        assert_eq!(lengths.next().unwrap(), (QUERY + len).to_string());
    }
    drop(input);
    assert!(run.wait().unwrap().success());
}

#[test]
fn f17_the_command_finds_the_gateway_in_resolv_conf() {
    let Some(scene) = Scene::new() else { return };
    let output = scene.run(&[], &["cat", "/etc/resolv.conf"]).output().unwrap();
    assert!(output.stdout.starts_with(b"nameserver 10.0.2.3\n"), "{output:?}");
    let output = scene.run(&["--dns", "none"], &["cat", "/etc/resolv.conf"]).output().unwrap();
    assert_eq!(output.stdout, std::fs::read("/etc/resolv.conf").unwrap());
}

/// Answers questions for an address with that of the servers. Names in `net` have an IPv6 address, too, that nobody
/// reaches.
fn serve_addresses(scene: &Scene) {
    let socket = scene.there(|| UdpSocket::bind((SERVER, 53)).unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let end = buffer[12..len].iter().position(|byte| *byte == 0).unwrap() + 12 + 5;
            let has_v6 = buffer[..end].windows(3).any(|label| label == b"net");
            let (address, kind): (&[u8], u8) = match buffer[end - 3] {
                1 => (&[198, 51, 100, 1], 1),
                _ => (&[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 28),
            };
            let answers = u8::from(kind == 1 || has_v6);
            let mut answer = buffer[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0]);
            if answers == 0 {
                socket.send_to(&answer, from).unwrap();
                continue;
            }
            answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, address.len() as u8]);
            answer.extend(address);
            socket.send_to(&answer, from).unwrap();
        }
    });
}

#[test]
fn f18_f20_a_rule_by_name_opens_what_the_name_server_has_answered() {
    let Some(scene) = Scene::new() else { return };
    serve_addresses(&scene);
    let port = scene.serve(drop);
    let dns = format!("--dns={SERVER}");
    let options = [&dns, "--deny=*", "--allow=*.example.com"];
    let dial = |options: &[&str], ends: &[&str]| {
        let ends: Vec<String> = ends.iter().map(|end| format!("{end}:{port}")).collect();
        scene.client(options, &[&["dial"], &*ends.iter().map(String::as_str).collect::<Vec<_>>()].concat())
    };
    // The address alone is closed until a name has led to it.
    let ends = [SERVER, "www.example.com", SERVER, "www.example.org"];
    assert_eq!(dial(&options, &ends[..1]), "EHOSTUNREACH\n");
    assert_eq!(dial(&options, &ends[1..3]), "None\nNone\n");
    assert_eq!(dial(&options, &ends[3..]), "EHOSTUNREACH\n");
    // A name with an IPv6 address that this machine cannot reach costs no time.
    let began = std::time::Instant::now();
    assert_eq!(dial(&[&dns], &["www.example.net"]), "None\n");
    assert!(began.elapsed().as_secs() < 2);
}

/// A proxy of SOCKS5 that makes connections itself, and refuses port 1 as this code says. It carries no datagrams.
fn serve_socks(scene: &Scene, code: u8) -> u16 {
    scene.serve(move |mut client| {
        let mut request = [0; 10];
        client.read_exact(&mut request[..3]).unwrap();
        client.write_all(&[5, 0]).unwrap();
        client.read_exact(&mut request).unwrap();
        let port = u16::from_be_bytes([request[8], request[9]]);
        let reply = |code| [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
        if request[1] != 1 {
            const NOT_SUPPORTED: u8 = 7;
            return client.write_all(&reply(NOT_SUPPORTED)).unwrap();
        }
        if port == 1 {
            return client.write_all(&reply(code)).unwrap();
        }
        client.write_all(&reply(0)).unwrap();
        client.write_all(&request[4..8]).unwrap();
    })
}

#[test]
fn connections_leave_by_a_proxy_whose_replies_are_the_answers() {
    let Some(scene) = Scene::new() else { return };
    let port = serve_socks(&scene, 3);
    let upstream = format!("--upstream=socks5://{SERVER}:{port}");
    assert_eq!(
        scene.client(&[&upstream], &["dial", "203.0.113.9:80", "203.0.113.9:1"]),
        "None\nENETUNREACH\n"
    );
    // Nothing leaves past it.
    assert_eq!(scene.client(&[&upstream], &["datagrams", "203.0.113.9", "9", "1"]), "EHOSTUNREACH\n");
    let dead = format!("--upstream=http://{SERVER}:1");
    assert_eq!(scene.client(&[&dead], &["dial", "203.0.113.9:80"]), "EHOSTUNREACH\n");
}

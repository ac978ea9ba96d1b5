//! Published ports: clients of the machine that reach the command.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::scene::{Scene, read_all};

/// A port of this machine that nobody has.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server inside, which listens.
struct Server(Child);

impl Server {
    fn new(mut command: Command) -> Server {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "listening\n");
        Server(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(scene: &Scene, options: &[&str], args: &[&str]) -> Server {
    let client = [&["python3", "-c", include_str!("client.py"), "serve"], args].concat();
    Server::new(scene.run(options, &client))
}

/// Our own address of a connection, and what the server says that it is.
fn ask(to: SocketAddr) -> (SocketAddr, String) {
    let stream = TcpStream::connect(to).unwrap();
    (stream.local_addr().unwrap(), String::from_utf8(read_all(&stream).unwrap()).unwrap())
}

#[test]
fn f19_a_server_sees_its_clients_by_their_own_addresses() {
    let Some(scene) = Scene::new() else { return };
    let (port, loopback) = (free_port(), free_port());
    let publish = format!("--publish=0.0.0.0:{port}:80");
    let hidden = format!("{loopback}:81");
    let _server = serve(&scene, &[&publish, "-p", &hidden], &["tcp", "10.0.2.15", "80", "3"]);
    // A client of another machine, and one of this machine by its outer address.
    let outside = SocketAddr::new([192, 0, 2, 1].into(), port);
    let (own, seen) = scene.there(move || ask(outside));
    assert_eq!((own.ip().to_string(), seen), ("192.0.2.2".to_owned(), own.to_string()));
    let (own, seen) = ask(outside);
    assert_eq!(seen, own.to_string());
    // No network carries a loopback address: the gateway stands for it.
    let (_, seen) = ask(SocketAddr::new([127, 0, 0, 1].into(), port));
    assert!(seen.starts_with("10.0.2.2:"), "{seen}");
    // Nobody listens there: the client that the kernel accepted is reset.
    let stream = TcpStream::connect(("127.0.0.1", loopback)).unwrap();
    assert_eq!(read_all(&stream).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn f19_what_listens_on_loopback_inside_is_not_reached() {
    let Some(scene) = Scene::new() else { return };
    let port = free_port();
    let _server = serve(&scene, &["-p", &format!("{port}:80")], &["tcp", "127.0.0.1", "80", "1"]);
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(read_all(&stream).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn f19_datagrams_reach_a_server_and_its_answers_come_back() {
    let Some(scene) = Scene::new() else { return };
    let port = free_port();
    let publish = format!("0.0.0.0:{port}:53/udp");
    let _server = serve(&scene, &["-p", &publish], &["udp", "10.0.2.15", "53", "3"]);
    let ask = move |to: &str| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect((to, port)).unwrap();
        socket.send(b"who am I").unwrap();
        let mut answer = [0; 64];
        let len = socket.recv(&mut answer).unwrap();
        (socket.local_addr().unwrap().to_string(), String::from_utf8_lossy(&answer[..len]).into_owned())
    };
    let (own, seen) = scene.there(move || ask("192.0.2.1"));
    assert_eq!(own, seen);
    let (own, seen) = ask("127.0.0.1");
    assert_eq!(seen, own.replace("127.0.0.1", "10.0.2.2"));
    // The same client again has the same address.
    assert!(ask("127.0.0.1").1.starts_with("10.0.2.2:"));
}

//! Lookups over UDP at a real server, dnsmasq on the kernel's side of the TUN device.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command};
use std::time::Duration;

use tokio::time::timeout;

use crate::tun::{World, run_beside};

/// The name of the server's one record.
const NAME: &str = "hold.fast.example";
const ANSWER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(world: &World) -> Server {
    let child = Command::new("dnsmasq")
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"])
        .args(["--no-resolv", "--no-hosts", "--bind-interfaces"])
        .arg(format!("--listen-address={}", world.peer_ip()))
        .arg(format!("--address=/{NAME}/{ANSWER}"))
        .spawn();
    Server(child.expect("dnsmasq runs"))
}

/// A query for the IPv4 address of a name (RFC 1035 §4.1).
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

#[test]
fn a_lookup_is_answered_by_dnsmasq() {
    run_beside(&["dnsmasq"], async |world| {
        let _server = serve(&world);
        let socket = world.bind_udp((world.ip(), 0)).await.unwrap();
        socket.connect(SocketAddr::new(world.peer_ip(), 53)).await.unwrap();
        let (query, mut answer) = (query(7, NAME), [0; 512]);
        // Until the server listens, the kernel says that nobody does.
        let len = loop {
            if let Err(error) = socket.send(&query).await {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
            match timeout(Duration::from_millis(100), socket.recv(&mut answer)).await {
                Ok(Ok(len)) => break len,
                // The limit of a case ends the loop.
                Ok(Err(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
                Err(_) => {}
            }
        };
        let answer = &answer[..len];
        assert_eq!(answer[..2], query[..2], "the answer has the query's id");
        assert_eq!(answer[2] & 0x80, 0x80, "it is an answer");
        assert_eq!(answer[3] & 0x0f, 0, "without an error");
        assert!(answer.ends_with(&ANSWER.octets()), "{answer:?}");
    });
}

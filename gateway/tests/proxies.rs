//! Datagrams of guests that leave by a proxy, which is a part of the test.

use std::net::SocketAddr;
use std::time::Duration;

use steadfast::device::memory;
use steadfast::{Net, UdpSocket};
use steadfast_gateway::{Dns, Gateway};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server of SOCKS5, and the socket that takes the datagrams of its clients.
struct Proxy {
    listener: TcpListener,
    datagrams: tokio::net::UdpSocket,
}

impl Proxy {
    async fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Proxy { listener, datagrams: tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap() }
    }

    /// Answers the next client that asks for an association with this code.
    async fn answer(&self, code: u8) -> TcpStream {
        let mut client = self.listener.accept().await.unwrap().0;
        let mut asked = [0; 3];
        client.read_exact(&mut asked).await.unwrap();
        assert_eq!(asked, [5, 1, 0]);
        client.write_all(&[5, 0]).await.unwrap();
        let mut asked = [0; 10];
        client.read_exact(&mut asked).await.unwrap();
        assert_eq!(asked, [5, 3, 0, 1, 0, 0, 0, 0, 0, 0]);
        let port = self.datagrams.local_addr().unwrap().port().to_be_bytes();
        // The unspecified address stands for that of the proxy.
        client.write_all(&[&[5, code, 0, 1, 0, 0, 0, 0], &port[..]].concat()).await.unwrap();
        client
    }

    /// Receives a datagram. Returns it without its header, which must have this end; and its sender.
    async fn receive(&self, to: &[u8]) -> (Vec<u8>, SocketAddr) {
        let mut datagram = [0; 2000];
        let (len, from) = self.datagrams.recv_from(&mut datagram).await.unwrap();
        assert_eq!(datagram[..10], [&[0, 0, 0, 1], to].concat());
        (datagram[10..len].to_vec(), from)
    }
}

/// A guest behind a gateway that uses the proxy, and its socket, which is connected to 203.0.113.9:7.
async fn guest(proxy: &Proxy, scheme: &str) -> (Gateway, Net, UdpSocket) {
    let (outside, inside) = memory::pair(1500);
    let url = format!("{scheme}://{}", proxy.listener.local_addr().unwrap());
    let builder = Gateway::builder().dns(Dns::None).proxy(url.parse().unwrap());
    let gateway = builder.start(outside).await.unwrap();
    let net = Net::builder().address([10, 0, 2, 15], 24).start(inside).unwrap();
    let socket = UdpSocket::bind(&net, "10.0.2.15:0").await.unwrap();
    socket.connect("203.0.113.9:7").await.unwrap();
    (gateway, net, socket)
}

async fn within_seconds<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), test).await.expect("it takes no time")
}

const PEER: [u8; 6] = [203, 0, 113, 9, 0, 7];

#[tokio::test]
async fn datagrams_leave_by_socks_and_their_answers_come_back() {
    let proxy = Proxy::start().await;
    let (_gateway, _net, socket) = guest(&proxy, "socks5").await;
    within_seconds(async {
        // Both wait for the proxy.
        socket.send(b"first").await.unwrap();
        socket.send(b"second").await.unwrap();
        let client = proxy.answer(0).await;
        let (first, from) = proxy.receive(&PEER).await;
        assert_eq!((&first[..], &proxy.receive(&PEER).await.0[..]), (&b"first"[..], &b"second"[..]));
        let mut buffer = [0; 100];
        // A stranger, and a fragment, are not heard.
        let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let answer = |text: &[u8]| [&[0, 0, 0, 1], &PEER[..], text].concat();
        stranger.send_to(&answer(b"stranger"), ("127.0.0.1", from.port())).await.unwrap();
        let fragment = [&[0, 0, 1, 1], &PEER[..], b"fragment"].concat();
        for datagram in [fragment, answer(b"answer")] {
            proxy.datagrams.send_to(&datagram, ("127.0.0.1", from.port())).await.unwrap();
        }
        let len = socket.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"answer");
        // The association ends with its connection, and the next datagram asks for another one.
        drop(client);
        let again = async {
            loop {
                socket.send(b"third").await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = again => {}
            _ = proxy.answer(0) => {}
        }
    })
    .await;
}

#[tokio::test]
async fn a_proxy_that_carries_no_datagrams_makes_them_prohibited() {
    let proxy = Proxy::start().await;
    // "Not allowed by ruleset" and "command not supported" (RFC 1928 §6).
    for (scheme, code) in [("socks5", Some(2)), ("socks5", Some(7)), ("http", None)] {
        let (_gateway, _net, socket) = guest(&proxy, scheme).await;
        within_seconds(async {
            socket.send(b"datagram").await.unwrap();
            let refuse = async {
                if let Some(code) = code {
                    proxy.answer(code).await;
                }
            };
            let mut buffer = [0; 100];
            let (received, ()) = tokio::join!(socket.recv(&mut buffer), refuse);
            assert_eq!(
                received.unwrap_err().kind(),
                std::io::ErrorKind::HostUnreachable,
                "{scheme} {code:?}"
            );
        })
        .await;
    }
}

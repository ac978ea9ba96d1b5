//! Tests of the async API: two stacks in one program, connected by a wire in memory.

mod cancelling;
mod carrying;
mod costs;
mod datagrams;
mod ending;
mod faulty_wire;
mod forwarding;
mod gathering;
mod interfaces;
#[cfg(target_os = "linux")]
mod link;
mod locks;
mod names;
mod network_ends;
mod opening;
mod own_addresses;
mod queues;
mod relaying;
mod sharing;
mod stalling;
mod threads;
mod tls;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use steadfast::{Config, ListenOptions, Net, TcpListener, TcpStream, device};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const SERVER_6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);
const CLIENT_6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);

/// Two networks with a wire between them.
struct Pair {
    server: Net,
    client: Net,
}

impl Pair {
    fn new() -> Pair {
        Pair::with(Config::default())
    }

    fn with(config: Config) -> Pair {
        let (left, right) = device::memory::pair(1500);
        let start = |address: Ipv4Addr, address_6: Ipv6Addr, secret, device| {
            let builder = Net::builder().config(config.clone()).secret([secret; 32]);
            builder.address(address, 24).address(address_6, 64).start(device).unwrap()
        };
        Pair { server: start(SERVER, SERVER_6, 2, left), client: start(CLIENT, CLIENT_6, 1, right) }
    }

    async fn listen(&self, port: u16) -> TcpListener {
        TcpListener::bind(&self.server, (SERVER, port)).await.unwrap()
    }

    async fn listen_with_backlog(&self, port: u16, backlog: u32) -> TcpListener {
        let options = ListenOptions { backlog, ..ListenOptions::default() };
        TcpListener::bind_with(&self.server, (SERVER, port), options).await.unwrap()
    }

    async fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        TcpStream::connect(&self.client, (SERVER, port)).await
    }

    /// Opens a connection, and returns the client's stream and the server's.
    async fn streams(&self) -> (TcpStream, TcpStream) {
        let listener = self.listen(0).await;
        let port = listener.local_addr().unwrap().port();
        let (client, server) = tokio::join!(self.connect(port), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }
}

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// Returns `len` bytes in which shifted data is noticed.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

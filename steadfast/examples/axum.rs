//! axum over a listener of this stack. Here the client is a second stack at the other end of a wire in memory; with
//! `device::Tun` it is the kernel of this machine.
//!
//! ```sh
//! cargo run --example axum
//! ```

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use steadfast::{Net, TcpListener, TcpStream, device};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The listener as axum expects it: it never fails.
struct Listener(TcpListener);

impl axum::serve::Listener for Listener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        match self.0.accept().await {
            Ok(accepted) => accepted,
            // The network is closing, and no connection follows.
            Err(_) => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

async fn run() -> io::Result<String> {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
    let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;

    let listener = TcpListener::bind(&server, ([10, 9, 0, 2], 80)).await?;
    let routes = Router::new().route("/", get(|| async { "hold fast" }));
    tokio::spawn(axum::serve(Listener(listener), routes).into_future());

    let mut stream = TcpStream::connect(&client, ([10, 9, 0, 2], 80)).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: 10.9.0.2\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    println!("{}", run().await?);
    Ok(())
}

#[tokio::test]
async fn a_page_is_served() {
    let answer = run().await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hold fast"), "{answer}");
}

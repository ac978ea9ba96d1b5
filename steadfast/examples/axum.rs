//! axum over a listener of this stack, with the address of the client and an orderly end. Here the client is a second
//! stack at the other end of a wire in memory; with `device::Tun` it is the kernel of this machine.
//!
//! ```sh
//! cargo run --example axum --features axum
//! ```

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use axum::serve::ListenerExt;
use steadfast::{Net, TcpListener, TcpStream, device};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

async fn run() -> io::Result<String> {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
    let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;

    // A wrapped listener tells axum the address of the client.
    let listener = TcpListener::bind(&server, "10.9.0.2:80").await?.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("nodelay: {error}");
        }
    });
    let greet =
        |ConnectInfo(client): ConnectInfo<SocketAddr>| async move { format!("hello {}", client.ip()) };
    let routes = Router::new().route("/", get(greet));
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = axum::serve(listener, routes.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async { drop(stopped.await) });
    let serving = tokio::spawn(serve.into_future());

    let mut stream = TcpStream::connect(&client, "10.9.0.2:80").await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: 10.9.0.2\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    drop((stream, stop));
    serving.await??;
    server.close(Duration::from_secs(5)).await?;
    Ok(answer)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    println!("{}", run().await?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_page_is_served_and_the_server_ends() {
    let answer = run().await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello 10.9.0.1"), "{answer}");
}

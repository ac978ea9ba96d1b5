//! An HTTP client of hyper-util through this stack. Here the server is a second stack at the other end of a wire in
//! memory; with `device::Tun` it is the kernel of this machine, or what that reaches.
//!
//! ```sh
//! cargo run --example hyper --features axum,hyper
//! ```

use std::error::Error;
use std::io;

use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use steadfast::hyper::Connector;
use steadfast::{Net, TcpListener, device};

async fn run() -> Result<String, Box<dyn Error + Send + Sync>> {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
    let listener = TcpListener::bind(&server, "10.9.0.2:80").await?;
    let routes = Router::new().route("/", get(|| async { "hold fast" }));
    tokio::spawn(axum::serve(listener, routes).into_future());

    // A resolver of its own: no name reaches the system.
    let resolver = |host: String| async move {
        match &*host {
            "server.test" => Ok(vec![[10, 9, 0, 2].into()]),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("{host}: no such host"))),
        }
    };
    let net = Net::builder().address([10, 9, 0, 1], 24).resolver(resolver).start(right)?;
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(Connector::new(&net));
    let mut text = String::new();
    // The second request uses the connection of the first.
    for _ in 0..2 {
        let answer = client.get("http://server.test/".parse()?).await?;
        let body = answer.into_body().collect().await?.to_bytes();
        text = format!("{} ({} connection)", String::from_utf8_lossy(&body), net.counters().active_opens);
    }
    Ok(text)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    println!("{}", run().await?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn two_requests_share_a_connection() {
    assert_eq!(run().await.unwrap(), "hold fast (1 connection)");
}

//! gRPC by tonic through this stack, both ways: a server that says how it is, and a client that asks. Here they are two
//! stacks with a wire in memory.
//!
//! ```sh
//! cargo run --example tonic --features tonic
//! ```

use std::error::Error;
use std::time::Duration;

use steadfast::hyper::Connector;
use steadfast::{Net, TcpListener, device};
use tokio::sync::oneshot;
use tonic::transport::{Endpoint, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

async fn run() -> Result<Vec<ServingStatus>, Box<dyn Error + Send + Sync>> {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
    let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;

    let listener = TcpListener::bind(&server, "10.9.0.2:50051").await?;
    let (reporter, service) = tonic_health::server::health_reporter();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        let server = Server::builder().add_service(service);
        server.serve_with_incoming_shutdown(listener.incoming(), stopped).await
    });

    let endpoint = Endpoint::from_static("http://10.9.0.2:50051");
    let channel = endpoint.connect_with_connector(Connector::new(&client)).await?;
    let mut health = HealthClient::new(channel);
    // One stream hears each change.
    let mut watch = health.watch(HealthCheckRequest::default()).await?.into_inner();
    let mut heard = Vec::new();
    for status in [tonic_health::ServingStatus::NotServing, tonic_health::ServingStatus::Serving] {
        heard.extend(watch.message().await?.map(|said| said.status()));
        reporter.set_service_status("", status).await;
    }
    heard.extend(watch.message().await?.map(|said| said.status()));
    drop((health, watch, stop));
    serving.await??;
    server.close(Duration::from_secs(5)).await?;
    Ok(heard)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    println!("{:?}", run().await?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_client_hears_each_status_and_the_server_ends() {
    let heard = run().await.unwrap();
    assert_eq!(heard, [ServingStatus::Serving, ServingStatus::NotServing, ServingStatus::Serving]);
}

//! QUIC by quinn through this stack. Here both ends are stacks with a wire in memory; the test lets the kernel carry
//! the client, over a TUN device.
//!
//! ```sh
//! cargo run --example quinn --features quinn
//! ```

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use rcgen::generate_simple_self_signed;
use rustls_pki_types::PrivateKeyDer;
use steadfast::{Net, UdpSocket, device};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const NAME: &str = "hold.fast";
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// An endpoint on a network. quinn looks for the path's MTU if its packets are not fragmented.
fn endpoint(net: &Net, local: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = UdpSocket::bind_with(net, local, |options| options.dont_fragment = true)?;
    let runtime = Arc::new(TokioRuntime);
    Ok(Endpoint::new_with_abstract_socket(EndpointConfig::default(), server, Arc::new(socket), runtime)?)
}

/// A server with a certificate of its own, and the configuration of a client that trusts it.
fn configs() -> Result<(ServerConfig, ClientConfig)> {
    let certified = generate_simple_self_signed([NAME.to_owned()])?;
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der())?;
    let mut roots = quinn::rustls::RootCertStore::empty();
    roots.add(certificate.clone())?;
    let server = ServerConfig::with_single_cert(vec![certificate], key)?;
    Ok((server, ClientConfig::with_root_certificates(Arc::new(roots))?))
}

/// Returns each stream's bytes, until the client ends the connection.
async fn echo(server: Endpoint) -> Result<()> {
    let incoming = server.accept().await.ok_or("the endpoint is closed")?;
    let connection = incoming.await?;
    while let Ok((mut to, mut from)) = connection.accept_bi().await {
        let text = from.read_to_end(1 << 20).await?;
        to.write_all(&text).await?;
        to.finish()?;
    }
    Ok(())
}

/// Sends a text on a stream of a new connection, and returns what comes back.
async fn ask(client: &Endpoint, config: ClientConfig, server: SocketAddr, text: &[u8]) -> Result<Vec<u8>> {
    let connection = client.connect_with(config, server, NAME)?.await?;
    let (mut to, mut from) = connection.open_bi().await?;
    to.write_all(text).await?;
    to.finish()?;
    let answer = from.read_to_end(1 << 20).await?;
    connection.close(0_u32.into(), b"done");
    client.wait_idle().await;
    Ok(answer)
}

async fn run() -> Result<String> {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address(SERVER, 24).start(left)?;
    let client = Net::builder().address(CLIENT, 24).start(right)?;
    let (serve, connect) = configs()?;
    let served = tokio::spawn(echo(endpoint(&server, (SERVER, 443).into(), Some(serve))?));
    let client = endpoint(&client, (CLIENT, 0).into(), None)?;
    let answer = ask(&client, connect, (SERVER, 443).into(), b"hold fast").await?;
    served.await??;
    Ok(String::from_utf8(answer)?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    println!("{}", run().await?);
    Ok(())
}

#[tokio::test]
async fn a_text_comes_back() {
    assert_eq!(run().await.unwrap(), "hold fast");
}

#[cfg(target_os = "linux")]
#[test]
fn a_client_on_the_kernel_gets_a_long_text_back() {
    use steadfast::device::{Tun, TunOptions};

    if !steadfast_witness::enter_namespace(&[]) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = TunOptions::new("sf0");
        options.host = vec![(CLIENT.into(), 24)];
        let net = Net::builder().address(SERVER, 24).start(Tun::open(&options).await.unwrap()).unwrap();
        let (serve, connect) = configs().unwrap();
        let served = tokio::spawn(echo(endpoint(&net, (SERVER, 443).into(), Some(serve)).unwrap()));
        let client = Endpoint::client((CLIENT, 0).into()).unwrap();
        let text: Vec<u8> = (0..1_000_000_u32).map(|n| ((n * 7) >> 3) as u8).collect();
        let answer = ask(&client, connect, (SERVER, 443).into(), &text).await.unwrap();
        assert!(answer == text, "{} bytes came back", answer.len());
        served.await.unwrap().unwrap();
        net.check_consistent().unwrap();
    });
}

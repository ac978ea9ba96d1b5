//! An echo over TLS, by tokio-rustls: streams of this stack are like those of Tokio.
//!
//! ```sh
//! cargo run --example rustls
//! ```

use std::error::Error;
use std::io;
use std::sync::Arc;

use rcgen::generate_simple_self_signed;
use steadfast::{Net, TcpListener, TcpStream, device};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const NAME: &str = "hold.fast";

fn configs() -> Result<(ServerConfig, ClientConfig), Box<dyn Error + Send + Sync>> {
    let certified = generate_simple_self_signed([NAME.to_owned()])?;
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der())?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?;
    Ok((server, ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

async fn echo(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    let stream = acceptor.accept(stream).await?;
    let (mut from, mut to) = tokio::io::split(stream);
    tokio::io::copy(&mut from, &mut to).await?;
    // Sends the alert `close_notify`, then a FIN.
    to.shutdown().await
}

/// Sends a text, and returns what came back. `orderly` says how the client ends its half.
async fn run(orderly: bool) -> Result<(String, io::Result<()>), Box<dyn Error + Send + Sync>> {
    let (left, right) = device::memory::pair(1500);
    let server = Net::builder().address([10, 9, 0, 2], 24).start(left)?;
    let client = Net::builder().address([10, 9, 0, 1], 24).start(right)?;
    let (serve, connect) = configs()?;

    let listener = TcpListener::bind(&server, "10.9.0.2:443").await?;
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        echo(stream, Arc::new(serve).into()).await
    });

    let stream = TcpStream::connect(&client, "10.9.0.2:443").await?;
    let connector = TlsConnector::from(Arc::new(connect));
    let mut stream = connector.connect(ServerName::try_from(NAME)?, stream).await?;
    stream.write_all(b"hold fast").await?;
    let mut answer = vec![0; 9];
    stream.read_exact(&mut answer).await?;
    if orderly {
        stream.shutdown().await?;
        stream.read_to_end(&mut answer).await?;
    } else {
        // A FIN without `close_notify`: the server cannot know that this is the end.
        stream.get_mut().0.shutdown().await?;
    }
    let served = served.await?;
    Ok((String::from_utf8(answer)?, served))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    println!("{}", run(true).await?.0);
    Ok(())
}

#[tokio::test]
async fn a_text_comes_back_and_both_ends_are_closed() {
    let (answer, served) = run(true).await.unwrap();
    assert_eq!(answer, "hold fast");
    served.unwrap();
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error() {
    let (_, served) = run(false).await.unwrap();
    assert_eq!(served.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

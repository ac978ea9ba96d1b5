//! A relay that ends TLS: its farewell and its absence become FIN and RST beyond.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use rcgen::generate_simple_self_signed;
use steadfast::relay::{End, Layered, Side};
use steadfast::{RelayConfig, Report, TcpListener, TcpStream, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{CLIENT, Pair};

const NAME: &str = "hold.fast";

fn configs() -> (TlsAcceptor, TlsConnector) {
    let certified = generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server.unwrap()).into(), Arc::new(client).into())
}

/// A client of TLS, the relay that ends it, and the server behind that, which speaks in the clear.
struct Chain {
    client: TlsStream<TcpStream>,
    server: TcpStream,
    relayed: JoinHandle<Report>,
    _pair: Pair,
}

impl Chain {
    async fn new() -> Chain {
        let pair = Pair::new();
        let (acceptor, connector) = configs();
        let (outer, inner) = (pair.listen(443).await, TcpListener::bind(&pair.client, (CLIENT, 80)).await);
        let inner = inner.unwrap();
        let net = pair.server.clone();
        let relayed = tokio::spawn(async move {
            let (stream, _) = outer.accept().await.unwrap();
            let tls = acceptor.accept(stream).await.unwrap();
            let upstream = TcpStream::connect(&net, (CLIENT, 80)).await.unwrap();
            let end = Layered::new(tls, |tls| tls.get_ref().0, |tls| tls.into_inner().0);
            relay(end, upstream, &RelayConfig::default()).await
        });
        let stream = pair.connect(443).await.unwrap();
        let client = connector.connect(ServerName::try_from(NAME).unwrap(), stream).await.unwrap();
        let (server, _) = inner.accept().await.unwrap();
        Chain { client, server, relayed, _pair: pair }
    }
}

#[tokio::test(start_paused = true)]
async fn a_farewell_of_tls_is_a_fin_beyond_and_a_fin_is_a_farewell_fwd_13() {
    let Chain { mut client, mut server, relayed, _pair } = Chain::new().await;
    client.write_all(b"hold").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hold");
    server.write_all(b"fast").await.unwrap();
    server.shutdown().await.unwrap();
    // Without the farewell, this would be an error.
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "holdfast");
    let report = relayed.await.unwrap();
    assert!(matches!(report.end, End::Finished), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fin_without_a_farewell_of_tls_is_a_reset_beyond_fwd_14() {
    let Chain { mut client, mut server, relayed, _pair } = Chain::new().await;
    client.write_all(b"hold").await.unwrap();
    client.get_mut().0.shutdown().await.unwrap();
    let mut text = [0; 4];
    server.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hold");
    assert_eq!(server.read(&mut text).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let report = relayed.await.unwrap();
    let End::Failed { side: Side::A, error } = report.end else { panic!("{report:?}") };
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_either_end_of_tls_is_a_reset_of_the_other_fwd_14() {
    for by in [Side::A, Side::B] {
        let Chain { mut client, mut server, relayed, _pair } = Chain::new().await;
        let mut text = [0; 4];
        let error = if by == Side::A {
            client.write_all(b"hold").await.unwrap();
            sleep(Duration::from_millis(100)).await;
            client.into_inner().0.abort();
            server.read_exact(&mut text).await.unwrap();
            server.read(&mut text).await.unwrap_err()
        } else {
            server.write_all(b"hold").await.unwrap();
            sleep(Duration::from_millis(100)).await;
            server.abort();
            client.read_exact(&mut text).await.unwrap();
            client.read(&mut text).await.unwrap_err()
        };
        assert_eq!((&text, error.kind()), (b"hold", ErrorKind::ConnectionReset), "{by:?}");
        let report = relayed.await.unwrap();
        assert!(matches!(report.end, End::Reset { by: side } if side == by), "{report:?}");
    }
}

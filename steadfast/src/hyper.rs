//! A connector for the clients of `hyper-util` (feature `hyper`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use crate::net::Net;
use crate::stream::TcpStream;

/// Connects an HTTP client through a network: `Client::builder(..).build(Connector::new(&net))`. Names are resolved by
/// the network's resolver. The example `hyper` shows a request.
///
/// It speaks no TLS. For `https`, wrap it as the connector of a TLS library, which then gets port 443 by default.
#[derive(Clone, Debug)]
pub struct Connector {
    net: Net,
    nodelay: bool,
}

impl Connector {
    /// Creates a connector. The Nagle algorithm stays on.
    pub fn new(net: &Net) -> Connector {
        Connector { net: net.clone(), nodelay: false }
    }

    /// Turns the Nagle algorithm of new connections off (true) or on.
    pub fn set_nodelay(&mut self, nodelay: bool) {
        self.nodelay = nodelay;
    }
}

/// Returns the host and port of a URI, with the default port of its scheme.
fn end(uri: &Uri) -> io::Result<(String, u16)> {
    let host = uri.host().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{uri}: no host")))?;
    // An IPv6 address stands in brackets.
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Ok((bare.to_owned(), uri.port_u16().unwrap_or(default)))
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Connector { net, nodelay } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(&net, end(&uri)?).await?;
            stream.set_nodelay(nodelay)?;
            Ok(TokioIo::new(stream))
        })
    }
}

impl Connection for TcpStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_host_and_a_port() {
        let table = [
            ("http://example.org/page", "example.org", 80),
            ("https://example.org", "example.org", 443),
            ("http://10.9.0.2:8080/", "10.9.0.2", 8080),
            ("http://[fd09::2]/", "fd09::2", 80),
        ];
        for (uri, host, port) in table {
            assert_eq!(end(&uri.parse().unwrap()).unwrap(), (host.to_owned(), port), "{uri}");
        }
        assert_eq!(end(&"/page".parse().unwrap()).unwrap_err().to_string(), "/page: no host");
    }
}

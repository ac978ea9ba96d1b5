//! Traits of other crates for the listener and its streams, each behind the feature of its crate.

/// Serves axum: `axum::serve(listener, app)`.
///
/// For `ConnectInfo<SocketAddr>`, wrap the listener: `axum::serve::ListenerExt::tap_io(listener, |_| ())`. axum itself
/// tells the address of wrapped listeners only, and those of Tokio.
#[cfg(feature = "axum")]
impl axum::serve::Listener for crate::TcpListener {
    type Io = crate::TcpStream;
    type Addr = std::net::SocketAddr;

    /// Once the network is closing it waits forever, since no connection follows: end the server with
    /// `with_graceful_shutdown`.
    async fn accept(&mut self) -> (crate::TcpStream, std::net::SocketAddr) {
        match crate::TcpListener::accept(self).await {
            Ok(accepted) => accepted,
            Err(_) => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        crate::TcpListener::local_addr(self)
    }
}

#[cfg(feature = "tokio-util")]
impl tokio_util::net::Listener for crate::TcpListener {
    type Io = crate::TcpStream;
    type Addr = std::net::SocketAddr;

    fn poll_accept(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<(crate::TcpStream, std::net::SocketAddr)>> {
        crate::TcpListener::poll_accept(self, cx)
    }

    fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        crate::TcpListener::local_addr(self)
    }
}

/// Serves tonic: `Server::builder().add_service(service).serve_with_incoming(listener.incoming())`. For a client, pass a
/// [`Connector`](crate::hyper::Connector) to `Endpoint::connect_with_connector`.
#[cfg(feature = "tonic")]
impl tonic::transport::server::Connected for crate::TcpStream {
    type ConnectInfo = tonic::transport::server::TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        tonic::transport::server::TcpConnectInfo {
            local_addr: self.local_addr().ok(),
            remote_addr: self.peer_addr().ok(),
        }
    }
}

//! TCP: each connection that a guest asks for is dialled first and answered as the dial went.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use steadfast::relay::End;
use steadfast::{Reject, TcpForwarder, TcpRequest};
use tokio::net::TcpStream;

use crate::counters::{add, count};
use crate::rules::Action;
use crate::shared::Shared;
use crate::upstream::Upstream;

/// Takes requests until the network ends.
///
/// While as many connections live as the limit permits, requests wait in the stack, whose own limits then apply: a SYN
/// that finds no room is repeated by its sender.
pub(crate) async fn serve(forwarder: TcpForwarder, shared: Arc<Shared>) {
    loop {
        // It is never closed.
        let Ok(permit) = shared.limit.clone().acquire_owned().await else { return };
        let Ok(request) = forwarder.accept().await else { return };
        let shared = shared.clone();
        tokio::spawn(async move {
            shared.serve_request(request).await;
            drop(permit);
        });
    }
}

impl Shared {
    async fn serve_request(&self, request: TcpRequest) {
        let counts = &self.counts;
        count(&counts.tcp_requests);
        let destination = self.real_destination(request.destination());
        match self.decide(destination) {
            Action::Allow => {}
            Action::Deny => {
                count(&counts.tcp_denied);
                return request.reject(Reject::AdminProhibited);
            }
            Action::Drop => {
                count(&counts.tcp_denied);
                return request.reject(Reject::Silent);
            }
        }
        match request.splice_with(self.dial(destination), &self.relay).await {
            Ok(report) => {
                count(&counts.tcp_connected);
                add(&counts.tcp_bytes_out, report.a_to_b.bytes);
                add(&counts.tcp_bytes_in, report.b_to_a.bytes);
                if !matches!(report.end, End::Finished) {
                    count(&counts.tcp_broken);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => count(&counts.tcp_abandoned),
            Err(_) => count(&counts.tcp_failed),
        }
    }

    async fn dial(&self, destination: SocketAddr) -> io::Result<Upstream> {
        if let Some(proxy) = &self.proxy {
            let stream = proxy.connect(destination).await?;
            return Ok(Upstream::new(stream, self.uploads.clone()));
        }
        let dialled = TcpStream::connect(destination).await;
        let stream = match dialled {
            // A program that listens on `localhost` may have taken either of its addresses.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                match other_loopback(destination).filter(|other| self.decide(*other) == Action::Allow) {
                    Some(other) => TcpStream::connect(other).await.map_err(|_| error)?,
                    None => return Err(error),
                }
            }
            dialled => dialled?,
        };
        // The guest decides what waits for more data.
        stream.set_nodelay(true)?;
        Ok(Upstream::new(stream, self.uploads.clone()))
    }
}

fn other_loopback(destination: SocketAddr) -> Option<SocketAddr> {
    let other: IpAddr = match destination.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv4Addr::LOCALHOST.into(),
        _ => return None,
    };
    Some(SocketAddr::new(other, destination.port()))
}

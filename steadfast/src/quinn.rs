//! The UDP socket under quinn (feature `quinn`).

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use ::quinn::{AsyncUdpSocket, UdpPoller};
use steadfast_core::Error;
use steadfast_core::wire::Ecn;

use crate::shared::{Side, into_io};
use crate::udp::UdpSocket;

/// QUIC through a network: `Endpoint::new_with_abstract_socket(config, server, Arc::new(socket), runtime)`.
///
/// Set [`dont_fragment`](crate::UdpOptions::dont_fragment) with [`bind_with`](UdpSocket::bind_with): otherwise quinn
/// does not look for the path's MTU, and its packets stay small. The example `quinn` shows both ends.
impl AsyncUdpSocket for UdpSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let ecn = Ecn::from_bits(transmit.ecn.map_or(0, |ecn| ecn as u8));
        self.socket.attempt(|state, id| {
            state.check_running()?;
            let options = state.stack.udp_options(id).map_err(into_io)?;
            if options.ecn != ecn {
                let options = options.clone().with(|options| options.ecn = ecn);
                state.stack.set_udp_options(id, options).map_err(into_io)?;
            }
            match state.stack.send_to(id, transmit.contents, Some(transmit.destination)) {
                // As if it were lost on the way: it was a probe for a larger MTU.
                Err(Error::MessageTooLong) => Ok(Some(())),
                sent => state.of_sent(id, sent),
            }
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let polled = self
                .socket
                .poll_with_budget(cx, Side::Read, |state| state.take_datagram(self.socket.id, buffer));
            let received = match polled {
                Poll::Ready(Ok(received)) => received,
                // Datagrams that were read come before the error.
                _ if filled > 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            *meta = RecvMeta {
                addr: received.from,
                len: received.len,
                stride: received.len,
                ecn: EcnCodepoint::from_bits(received.ecn.bits()),
                dst_ip: Some(received.to),
            };
            filled += 1;
        }
        Poll::Ready(Ok(filled))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        UdpSocket::local_addr(self)
    }

    fn may_fragment(&self) -> bool {
        !self.options().is_ok_and(|options| options.dont_fragment)
    }
}

/// Waits for room in the send buffer.
struct Poller {
    socket: Arc<UdpSocket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket.clone();
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(async move { socket.writable().await }));
        let polled = waiting.as_mut().poll(cx);
        if polled.is_ready() {
            self.waiting = None;
        }
        polled
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("socket", &self.socket).finish_non_exhaustive()
    }
}

//! The calls of programs on UDP sockets.

use std::net::SocketAddr;

use steadfast_core::{Error, SocketId, UdpOptions};

use super::{AppContext, Io};
use crate::scenario::expect::Invariant;

/// The longest payload of a datagram, over IPv6.
const LONGEST: usize = 65_535 - 8;

/// The lab's knowledge of a UDP socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UdpSocket {
    port: u16,
    peer: Option<SocketAddr>,
    /// The sender of the last datagram, for `reply`.
    last: Option<SocketAddr>,
}

impl Io {
    /// Binds a UDP socket, and connects it to `peer`.
    pub(crate) fn bind_udp(
        &mut self,
        context: &mut AppContext<'_>,
        local: SocketAddr,
        peer: Option<SocketAddr>,
        options: UdpOptions,
    ) -> Result<SocketId, Error> {
        let id = context.stack.bind_udp(local, options)?;
        let connected = peer.map_or(Ok(()), |peer| context.stack.connect_udp(id, peer));
        if let Err(error) = connected {
            let _gone = context.stack.close(context.host_now, id);
            return Err(error);
        }
        let port = context.stack.local_addr(id)?.port();
        self.datagrams.insert(id, UdpSocket { port, peer, last: None });
        Ok(id)
    }

    /// Returns whether it is a UDP socket.
    pub(crate) fn is_udp(&self, id: SocketId) -> bool {
        self.datagrams.contains_key(&id)
    }

    /// The number of open UDP sockets.
    pub(crate) fn udp_sockets(&self) -> usize {
        self.datagrams.len()
    }

    /// Sends a datagram to `to`, or else to the peer.
    pub(crate) fn send_datagram(
        &mut self,
        context: &mut AppContext<'_>,
        id: SocketId,
        len: u64,
        to: Option<SocketAddr>,
    ) -> Result<(), Error> {
        let UdpSocket { port, peer, .. } = *self.datagrams.get(&id).ok_or(Error::NoSuchSocket)?;
        let payload = context.datagrams.content(len);
        context.stack.send_to(id, &payload, to)?;
        if let Some(to) = to.or(peer) {
            context.datagrams.sent(payload, context.host, port, context.nats.inner(to));
        }
        Ok(())
    }

    /// Takes the next datagram, and checks that it is what its sender sent. Returns its length.
    pub(crate) fn receive(&mut self, context: &mut AppContext<'_>, id: SocketId) -> Result<u64, Error> {
        let socket = self.datagrams.get_mut(&id).ok_or(Error::NoSuchSocket)?;
        self.buffer.resize(LONGEST.max(self.buffer.len()), 0);
        let (len, from) = context.stack.recv_from(id, &mut self.buffer)?;
        socket.last = Some(from);
        let (port, inner) = (socket.port, context.nats.inner(from));
        let host = context.directory.owner(inner.ip());
        if let Err(text) = context.datagrams.delivered(&self.buffer[..len], host, inner, port) {
            context.violated(Invariant::Datagram, text);
        }
        Ok(len as u64)
    }

    /// The sender of the last datagram that a socket took.
    pub(crate) fn last_sender(&self, id: SocketId) -> Option<SocketAddr> {
        self.datagrams.get(&id)?.last
    }
}

//! Ping: echo requests of guests leave by the kernel's ping sockets (icmp(7)).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use steadfast::stack::{Echo, IcmpError};
use steadfast::{EchoForwarder, Reject};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use crate::counters::count;
use crate::errors;
use crate::rules::Action;
use crate::shared::Shared;
use crate::sockets::{Arrived, Header, ask_fields, send, take};

/// Pings at a time, by guest and identifier. More are dropped.
const PINGS: usize = 256;

/// A ping ends this long after its last request (RFC 5508 REQ-2).
const IDLE: Duration = Duration::from_secs(60);

/// Bytes of the header of an echo message.
const HEADER_LEN: usize = 8;

/// A guest, its identifier, and the family.
type Key = (IpAddr, u16, bool);

pub(crate) struct Pings {
    forwarder: EchoForwarder,
    shared: Arc<Shared>,
    all: Mutex<HashMap<Key, Arc<Ping>>>,
}

struct Ping {
    key: Key,
    socket: UdpSocket,
    /// The last request, and when it came.
    last: Mutex<(Echo, Instant)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pings {
    pub(crate) fn new(forwarder: EchoForwarder, shared: Arc<Shared>) -> Arc<Pings> {
        Arc::new(Pings { forwarder, shared, all: Mutex::default() })
    }

    /// Forwards requests until the network ends.
    pub(crate) async fn serve(self: Arc<Pings>) {
        while let Ok(request) = self.forwarder.recv().await {
            count(&self.shared.counts.echo_out);
            let gateway = self.shared.gateway_of(request.source);
            // A guest that is gone needs no answer.
            let _ = match self.forward(&request) {
                Ok(()) => Ok(()),
                Err(None) => self.forwarder.send_error(&request, IcmpError::TimeExceeded, gateway),
                Err(Some(how)) => self.forwarder.reject(&request, how),
            };
        }
    }

    /// An error is the answer to the guest; without one, its packet has made its last hop.
    fn forward(self: &Arc<Pings>, request: &Echo) -> Result<(), Option<Reject>> {
        let to = self.shared.real_destination(SocketAddr::new(request.destination, 0));
        match self.shared.decide_ping(to) {
            Action::Allow => {}
            Action::Deny => return Err(Some(Reject::AdminProhibited)),
            Action::Drop => return Ok(()),
        }
        if request.ttl <= 1 {
            return Err(None);
        }
        let refused = |error: io::Error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                count(&self.shared.counts.echo_forbidden);
            }
            Some(Reject::from_io(&error))
        };
        let Some(ping) = self.ping(request, to.is_ipv4()).map_err(refused)? else { return Ok(()) };
        ping.send(request, to).map_err(refused)
    }

    /// The ping of a request. `None`: there are too many.
    fn ping(self: &Arc<Pings>, request: &Echo, v4: bool) -> io::Result<Option<Arc<Ping>>> {
        let key = (request.source, request.ident, v4);
        let mut all = lock(&self.all);
        if let Some(ping) = all.get(&key) {
            return Ok(Some(ping.clone()));
        }
        if all.len() >= PINGS {
            return Ok(None);
        }
        let ping = Arc::new(Ping::new(key, request)?);
        all.insert(key, ping.clone());
        tokio::spawn(self.clone().answer(ping.clone()));
        Ok(Some(ping))
    }

    async fn answer(self: Arc<Pings>, ping: Arc<Ping>) {
        loop {
            let expires = lock(&ping.last).1 + IDLE;
            if expires <= Instant::now() {
                break;
            }
            tokio::select! {
                ready = ping.socket.ready(Interest::READABLE | Interest::ERROR) => {
                    if ready.is_err() {
                        break;
                    }
                    self.carry(&ping);
                }
                () = sleep_until(expires) => {}
            }
        }
        lock(&self.all).remove(&ping.key);
    }

    fn carry(&self, ping: &Ping) {
        let mut buffer = vec![0; 65_535];
        while let Ok(Arrived { len, from, ttl, tos }) = take(&ping.socket, &mut buffer) {
            let Some(data) = buffer.get(HEADER_LEN..len) else { continue };
            let sequence = u16::from_be_bytes([buffer[6], buffer[7]]);
            let source = ping.known_as(from.ip());
            let mut reply = Echo::new(source, ping.key.0, ping.key.1, sequence, data.to_vec());
            (reply.ttl, reply.tos) = (ttl, tos);
            if self.forwarder.try_send(&reply).is_ok() {
                count(&self.shared.counts.echo_in);
            }
        }
        while let Some(told) = errors::next(&ping.socket) {
            let request = lock(&ping.last).0.clone();
            // A guest that is gone needs no error.
            let _ = self.forwarder.send_error(&request, told.kind, told.from);
        }
    }
}

impl Ping {
    fn new(key: Key, request: &Echo) -> io::Result<Ping> {
        let (domain, protocol) =
            if key.2 { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
        let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(protocol))?;
        let socket = UdpSocket::from_std(socket.into())?;
        errors::keep(&socket, key.2)?;
        ask_fields(&socket, key.2)?;
        Ok(Ping { key, socket, last: Mutex::new((request.clone(), Instant::now())) })
    }

    /// Sends a request. The kernel writes the identifier and the checksum.
    fn send(&self, request: &Echo, to: SocketAddr) -> io::Result<()> {
        *lock(&self.last) = (request.clone(), Instant::now());
        let Echo { ttl, tos, dont_fragment, .. } = *request;
        Header { ttl: ttl - 1, tos, dont_fragment }.set(&self.socket, self.key.2)?;
        let kind = if self.key.2 { 8 } else { 128 };
        let [high, low] = request.sequence.to_be_bytes();
        let message = [&[kind, 0, 0, 0, 0, 0, high, low], &request.data[..]].concat();
        send(&self.socket, &message, to)
    }

    /// The address that the guest knows the sender of a reply by.
    fn known_as(&self, from: IpAddr) -> IpAddr {
        let asked = lock(&self.last).0.destination;
        if from.is_loopback() { asked } else { from }
    }
}

//! UDP: a table of mappings as RFC 4787 wants it.
//!
//! Each socket of a guest has one socket of the kernel for all its destinations (REQ-1). Answers pass from addresses that
//! the guest has sent to (REQ-8), and only what the guest sends keeps a flow alive (REQ-6).

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use steadfast::stack::{IcmpError, UdpPacket};
use steadfast::{Reject, UdpForwarder};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::associate::Association;
use crate::clients::Clients;
use crate::counters::count;
use crate::errors;
use crate::flows::Flow;
use crate::proxy::Proxy;
use crate::rules::Action;
use crate::shared::Shared;
use crate::sockets::{Arrived, Header, ask_fields, send, take};

/// Sockets of guests at a time. Beyond that the one that has sent nothing for the longest gives up its place.
const MAPPINGS: usize = 4096;

/// Destinations of one socket at a time, with the same rule.
const PEERS: usize = 1024;

/// A flow lives this long after the guest's last datagram: the recommended time of RFC 4787 REQ-5 once it was answered,
/// and the least before. Queries of names need far less.
const ANSWERED: Duration = Duration::from_secs(300);
const UNANSWERED: Duration = Duration::from_secs(120);
const NAME_ANSWERED: Duration = Duration::from_secs(10);
const NAME_UNANSWERED: Duration = Duration::from_secs(30);

/// The largest datagram.
const LARGEST: usize = 65_535;

/// Bytes of a datagram that are kept for an ICMP error to quote.
const KEPT: usize = 64;

/// A socket of a guest, and the family of the destinations.
type Key = (SocketAddr, bool);

#[derive(Debug)]
pub(crate) struct Table {
    forwarder: UdpForwarder,
    shared: Arc<Shared>,
    mappings: Mutex<HashMap<Key, Arc<Mapping>>>,
    clients: Mutex<Clients>,
}

/// The kernel's socket for one of a guest.
#[derive(Debug)]
struct Mapping {
    key: Key,
    socket: UdpSocket,
    peers: Mutex<Peers>,
    /// Its datagrams leave by a proxy.
    association: Option<Association>,
    /// It has lost its place in the table.
    evicted: Notify,
}

#[derive(Debug)]
struct Peers {
    all: HashMap<SocketAddr, Peer>,
    /// When the guest last sent something.
    used: Instant,
    /// The fields that the socket has. `None`: those of the kernel.
    header: Option<Header>,
}

/// A destination of a mapping.
#[derive(Debug)]
struct Peer {
    used: Instant,
    /// The first answer since then, or the last one before.
    answered: Option<Instant>,
    /// The start of the guest's last datagram.
    sample: UdpPacket,
}

impl Peer {
    fn expires(&self) -> Instant {
        let is_name = self.sample.destination.port() == 53;
        match (self.answered, is_name) {
            (Some(answered), true) if answered >= self.used => answered + NAME_ANSWERED,
            (_, true) => self.used + NAME_UNANSWERED,
            (Some(_), false) => self.used + ANSWERED,
            (None, false) => self.used + UNANSWERED,
        }
    }

    /// Notes an answer. Those behind the first one keep nothing alive.
    fn note_answer(&mut self) {
        if self.answered.is_none_or(|answered| answered < self.used) {
            self.answered = Some(Instant::now());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    pub(crate) fn new(forwarder: UdpForwarder, shared: Arc<Shared>) -> Arc<Table> {
        Arc::new(Table { forwarder, shared, mappings: Mutex::default(), clients: Mutex::default() })
    }

    /// Forwards what guests send until the network ends.
    pub(crate) async fn serve(self: Arc<Table>) {
        while let Ok(packet) = self.forwarder.recv().await {
            count(&self.shared.counts.udp_out);
            if lock(&self.clients).answer(&packet) {
                continue;
            }
            if let Err(refusal) = self.forward(&packet) {
                self.tell(&packet, &refusal);
            }
        }
    }

    /// Carries a datagram of a client to a guest. `seen`: the client as the guest sees it; `None`: the gateway.
    pub(crate) fn take_in(
        &self,
        socket: &Arc<UdpSocket>,
        client: SocketAddr,
        seen: Option<SocketAddr>,
        guest: SocketAddr,
        payload: &[u8],
    ) {
        let gateway = self.shared.gateway_of(guest.ip());
        let seen = lock(&self.clients).seen(socket, client, seen, gateway, guest);
        let sent = seen.map(|seen| self.forwarder.try_send(&UdpPacket::new(seen, guest, payload.to_vec())));
        match sent {
            Some(Ok(())) => count(&self.shared.counts.udp_in),
            _ => count(&self.shared.counts.udp_dropped),
        }
    }

    /// The flows that there are.
    pub(crate) fn flows(&self) -> Vec<Flow> {
        let now = Instant::now();
        let mut flows = lock(&self.clients).flows(now);
        for mapping in lock(&self.mappings).values() {
            let peers = lock(&mapping.peers);
            flows.extend(peers.all.values().map(|peer| Flow {
                protocol: "udp",
                state: if peer.answered.is_some() { "ANSWERED" } else { "UNANSWERED" },
                guest: mapping.key.0,
                remote: peer.sample.destination,
                age: now - peer.used,
            }));
        }
        flows
    }

    fn forward(self: &Arc<Table>, packet: &UdpPacket) -> Result<(), Refusal> {
        let to = self.shared.real_destination(packet.destination);
        match self.shared.decide_datagram(to) {
            Action::Allow => {}
            Action::Deny => return Err(Refusal::Reject(Reject::AdminProhibited)),
            Action::Drop => return Ok(()),
        }
        if packet.ttl <= 1 {
            return Err(Refusal::Error(IcmpError::TimeExceeded));
        }
        let mapping = self.mapping((packet.source, to.is_ipv4())).map_err(Refusal::of)?;
        mapping.send(packet, to).map_err(Refusal::of)
    }

    /// The mapping of a guest's socket, which is made if there is none.
    fn mapping(self: &Arc<Table>, key: Key) -> io::Result<Arc<Mapping>> {
        let mut mappings = lock(&self.mappings);
        if let Some(mapping) = mappings.get(&key) {
            return Ok(mapping.clone());
        }
        if mappings.len() >= MAPPINGS {
            let oldest = mappings.iter().min_by_key(|(_, mapping)| lock(&mapping.peers).used);
            if let Some(oldest) = oldest.map(|(key, _)| *key)
                && let Some(evicted) = mappings.remove(&oldest)
            {
                evicted.evicted.notify_one();
                count(&self.shared.counts.udp_evicted);
            }
        }
        let mapping = Arc::new(Mapping::new(key, self.shared.proxy.as_ref())?);
        mappings.insert(key, mapping.clone());
        count(&self.shared.counts.udp_mappings);
        tokio::spawn(self.clone().answer(mapping.clone()));
        Ok(mapping)
    }

    /// Carries answers and errors to the guest until the mapping has expired or lost its place.
    async fn answer(self: Arc<Table>, mapping: Arc<Mapping>) {
        let serve = async {
            match self.associate(&mapping).await {
                Ok(proxy) => self.answer_until(&mapping, proxy).await,
                Err(error) => self.refuse(&mapping, &Refusal::of(error)),
            }
        };
        tokio::select! {
            () = serve => {}
            // Its socket must not outlive its place: there is a limit of them.
            () = mapping.evicted.notified() => return,
        }
        let mut mappings = lock(&self.mappings);
        if mappings.get(&mapping.key).is_some_and(|one| Arc::ptr_eq(one, &mapping)) {
            mappings.remove(&mapping.key);
        }
    }

    /// Asks the proxy to take datagrams, which it does while the returned connection lives. `None`: there is no proxy.
    async fn associate(&self, mapping: &Mapping) -> io::Result<Option<TcpStream>> {
        let (Some(proxy), Some(association)) = (&self.shared.proxy, &mapping.association) else {
            return Ok(None);
        };
        let asked = tokio::time::timeout(UNANSWERED, proxy.associate()).await;
        let (stream, relay) = asked.map_err(|_| io::ErrorKind::HostUnreachable)??;
        association.open(&mapping.socket, relay);
        Ok(Some(stream))
    }

    /// Tells the guest that its datagrams do not leave. The next one asks the proxy again.
    fn refuse(&self, mapping: &Mapping, refusal: &Refusal) {
        let samples: Vec<UdpPacket> =
            lock(&mapping.peers).all.values().map(|peer| peer.sample.clone()).collect();
        samples.iter().for_each(|sample| self.tell(sample, refusal));
    }

    /// Answers a datagram with an error.
    fn tell(&self, packet: &UdpPacket, refusal: &Refusal) {
        // A guest that is gone needs no answer.
        let _ = match refusal {
            Refusal::Reject(how) => self.forwarder.reject(packet, *how),
            Refusal::Error(kind) => {
                let gateway = self.shared.gateway_of(packet.source.ip());
                self.forwarder.send_error(packet, *kind, gateway)
            }
        };
    }

    async fn answer_until(&self, mapping: &Mapping, mut proxy: Option<TcpStream>) {
        while let Some(expires) = mapping.expire() {
            let released = async {
                match &mut proxy {
                    // Whatever it says is not for us.
                    Some(stream) => while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {},
                    None => pending().await,
                }
            };
            tokio::select! {
                ready = mapping.socket.ready(Interest::READABLE | Interest::ERROR) => {
                    if ready.is_err() {
                        break;
                    }
                    self.carry(mapping);
                }
                () = sleep_until(expires.min(Instant::now() + LOOK)) => {}
                () = released => break,
            }
        }
    }

    /// Carries what the socket has to the guest.
    fn carry(&self, mapping: &Mapping) {
        let mut buffer = vec![0; LARGEST];
        // Others have a turn between.
        for _ in 0..BATCH {
            match take(&mapping.socket, &mut buffer) {
                Ok(Arrived { len, from, ttl, tos }) => {
                    let unwrapped = match &mapping.association {
                        Some(association) => association.receive(from, &buffer[..len]),
                        None => Ok((from, &buffer[..len])),
                    };
                    let Ok((from, payload)) = unwrapped else { continue };
                    if let Some(source) = mapping.answered_by(from) {
                        let mut answer = UdpPacket::new(source, mapping.key.0, payload.to_vec());
                        // The proxy's own packets have fields of its own.
                        if mapping.association.is_none() {
                            (answer.ttl, answer.tos) = (ttl, tos);
                        }
                        match self.forwarder.try_send(&answer) {
                            Ok(()) => count(&self.shared.counts.udp_in),
                            Err(_) => count(&self.shared.counts.udp_dropped),
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // That of an earlier datagram, which the queue of errors describes.
                Err(_) => {}
            }
        }
        while let Some(told) = errors::next(&mapping.socket) {
            if let Some(sample) = mapping.sample(told.about) {
                count(&self.shared.counts.udp_errors);
                // A guest that is gone needs no error.
                let _ = self.forwarder.send_error(&sample, told.kind, told.from);
            }
        }
    }
}

/// Datagrams that one mapping carries in a turn.
const BATCH: usize = 64;

/// How often a mapping looks at its destinations: a new one may expire before those that it knew.
const LOOK: Duration = Duration::from_secs(10);

impl Mapping {
    fn new(key: Key, proxy: Option<&Proxy>) -> io::Result<Mapping> {
        let v4 = proxy.map_or(key.1, Proxy::is_ipv4);
        let local: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = std::net::UdpSocket::bind((local, 0))?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        errors::keep(&socket, v4)?;
        ask_fields(&socket, v4)?;
        let peers = Peers { all: HashMap::new(), used: Instant::now(), header: None };
        let association = proxy.map(|_| Association::new());
        Ok(Mapping { key, socket, peers: Mutex::new(peers), association, evicted: Notify::new() })
    }

    fn send(&self, packet: &UdpPacket, to: SocketAddr) -> io::Result<()> {
        let now = Instant::now();
        let mut peers = lock(&self.peers);
        let UdpPacket { ttl, tos, dont_fragment, .. } = *packet;
        let header = Header { ttl: ttl - 1, tos, dont_fragment };
        // The proxy's own packets have fields of its own.
        if peers.header != Some(header) && self.association.is_none() {
            header.set(&self.socket, self.key.1)?;
            peers.header = Some(header);
        }
        peers.used = now;
        if peers.all.len() >= PEERS && !peers.all.contains_key(&to) {
            let oldest = peers.all.iter().min_by_key(|(_, peer)| peer.used).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| peers.all.remove(&oldest));
        }
        let mut sample = packet.clone();
        sample.payload = packet.payload[..packet.payload.len().min(KEPT)].to_vec().into();
        let peer = peers.all.entry(to).or_insert(Peer { used: now, answered: None, sample: sample.clone() });
        (peer.used, peer.sample) = (now, sample);
        drop(peers);
        match &self.association {
            Some(association) => association.send(&self.socket, &packet.payload, to),
            None => send(&self.socket, &packet.payload, to),
        }
    }

    /// Notes an answer. Returns the address that the guest knows its sender by; `None`: the guest has not sent to it.
    fn answered_by(&self, from: SocketAddr) -> Option<SocketAddr> {
        let mut peers = lock(&self.peers);
        if let Some(peer) = peers.all.get_mut(&from) {
            peer.note_answer();
            return Some(peer.sample.destination);
        }
        let same = peers.all.iter_mut().find(|(peer, _)| peer.ip() == from.ip())?.1;
        same.note_answer();
        Some(SocketAddr::new(same.sample.destination.ip(), from.port()))
    }

    fn sample(&self, to: SocketAddr) -> Option<UdpPacket> {
        lock(&self.peers).all.get(&to).map(|peer| peer.sample.clone())
    }

    /// Drops expired destinations. Returns when the next one expires; `None`: there is none left.
    fn expire(&self) -> Option<Instant> {
        let (now, mut peers) = (Instant::now(), lock(&self.peers));
        let is_new = peers.all.is_empty() && peers.used + LOOK > now;
        peers.all.retain(|_, peer| peer.expires() > now);
        peers.all.values().map(Peer::expires).min().or(is_new.then_some(now + LOOK))
    }
}

/// Why a datagram is not sent.
enum Refusal {
    Reject(Reject),
    Error(IcmpError),
}

impl Refusal {
    fn of(error: io::Error) -> Refusal {
        match Reject::from_io(&error) {
            // Nobody has refused it.
            Reject::Reset => Refusal::Reject(Reject::Silent),
            how => Refusal::Reject(how),
        }
    }
}

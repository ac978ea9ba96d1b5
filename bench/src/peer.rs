//! The pair of the peer: smoltcp, configured to be fast. Its buffers have the size with which it is fastest here.
//! TIME-WAIT is cut short, since it could not keep more than a few entries. Idle connections live in a socket set of
//! their own until they are established.

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use crate::pair::{FIRST_PORT, MESSAGE, Pair, Setup, WRITE};
use crate::wire::Wire;

const TURN: Duration = Duration::from_micros(1);
const BATCH: usize = 64;
/// Bytes in each buffer of the active connection.
const BUFFER: usize = 64 * 1024;
/// Bytes in each buffer for segments of 64 KiB: the largest window that stays in the cache.
const SUPER_BUFFER: usize = 256 * 1024;
/// Bytes in each buffer of an idle connection.
const IDLE_BUFFER: usize = 64;

/// Both directions, as seen by one end.
struct Link {
    incoming: Wire,
    outgoing: Wire,
    mtu: usize,
}

struct Arriving<'a>(&'a [u8]);
struct Leaving<'a>(&'a mut Wire);

impl RxToken for Arriving<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut result = None;
        self.0.push(|frame| {
            result = Some(f(&mut frame[..len]));
            Some(len)
        });
        result.expect("a token is given only while there is room")
    }
}

impl Device for Link {
    type RxToken<'a> = Arriving<'a>;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arriving<'_>, Leaving<'_>)> {
        if self.outgoing.is_full() {
            return None;
        }
        let packet = self.incoming.pop()?;
        Some((Arriving(packet), Leaving(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        (!self.outgoing.is_full()).then_some(Leaving(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // By default, checksums of both directions are computed in software.
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    link: Link,
}

impl Host {
    fn new(last_octet: u8, mtu: usize) -> Host {
        let wire = || Wire::new(if mtu > 9000 { 4 } else { BATCH }, mtu);
        let mut link = Link { incoming: wire(), outgoing: wire(), mtu };
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut link, Instant::ZERO);
        interface.update_ip_addrs(|all| {
            let address = IpAddress::v4(10, 0, 0, last_octet);
            all.push(IpCidr::new(address, 24)).expect("the first address fits");
        });
        Host { interface, sockets: SocketSet::new(Vec::new()), link }
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }
}

/// Two hosts with smoltcp.
pub(crate) struct Peers {
    client: Host,
    server: Host,
    stream: SocketHandle,
    accepted: SocketHandle,
    /// Sockets for short-lived connections.
    passing: (SocketHandle, SocketHandle),
    now: Instant,
    ports: u16,
    text: Vec<u8>,
    read: Vec<u8>,
}

fn new_socket(buffer: usize) -> Socket<'static> {
    let ring = || SocketBuffer::new(vec![0; buffer]);
    let mut socket = Socket::new(ring(), ring());
    socket.set_nagle_enabled(false);
    socket
}

impl Peers {
    fn poll_server(&mut self) {
        std::mem::swap(&mut self.client.link.outgoing, &mut self.server.link.incoming);
        let Host { interface, sockets, link } = &mut self.server;
        interface.poll(self.now, link, sockets);
    }

    fn poll_client(&mut self) {
        std::mem::swap(&mut self.server.link.outgoing, &mut self.client.link.incoming);
        let Host { interface, sockets, link } = &mut self.client;
        interface.poll(self.now, link, sockets);
    }

    fn connect(&mut self, port: u16, (client, server): (SocketHandle, SocketHandle)) {
        self.ports = if self.ports == u16::MAX { 10_000 } else { self.ports + 1 };
        let remote = IpEndpoint::new(IpAddress::v4(10, 0, 0, 2), port);
        self.server.socket(server).listen(port).expect("it is closed");
        let Host { interface, sockets, .. } = &mut self.client;
        let socket = sockets.get_mut::<Socket<'_>>(client);
        socket.connect(interface.context(), remote, self.ports).expect("it is closed");
        for _ in 0..2 {
            self.poll_client();
            self.poll_server();
        }
        let states = (self.client.socket(client).state(), self.server.socket(server).state());
        assert_eq!(states, (State::Established, State::Established));
    }

    fn open_idle(&mut self, count: usize, progress: &dyn Fn(usize)) {
        let mut established = Vec::with_capacity(count);
        for i in 0..count {
            let pair = (
                self.client.sockets.add(new_socket(IDLE_BUFFER)),
                self.server.sockets.add(new_socket(IDLE_BUFFER)),
            );
            self.connect(FIRST_PORT, pair);
            established.push((self.client.sockets.remove(pair.0), self.server.sockets.remove(pair.1)));
            if i % 1000 == 0 {
                progress(i);
            }
        }
        for (client, server) in established {
            let (smoltcp::socket::Socket::Tcp(client), smoltcp::socket::Socket::Tcp(server)) =
                (client, server);
            self.client.sockets.add(client);
            self.server.sockets.add(server);
        }
    }
}

impl Pair for Peers {
    fn new(setup: &Setup, progress: &dyn Fn(usize)) -> Peers {
        let mtu = if setup.super_segments { 65_535 } else { usize::from(setup.mtu) };
        let buffer = if setup.super_segments { SUPER_BUFFER } else { BUFFER };
        let (mut client, mut server) = (Host::new(1, mtu), Host::new(2, mtu));
        let (stream, accepted) =
            (client.sockets.add(new_socket(buffer)), server.sockets.add(new_socket(buffer)));
        let passing = (client.sockets.add(new_socket(4096)), server.sockets.add(new_socket(4096)));
        let mut peers = Peers {
            client,
            server,
            stream,
            accepted,
            passing,
            now: Instant::from_secs(1),
            ports: 10_000,
            text: (0..WRITE).map(|i| (i % 251) as u8).collect(),
            read: vec![0; WRITE],
        };
        peers.open_idle(setup.idle, progress);
        peers.connect(FIRST_PORT, (stream, accepted));
        peers
    }

    fn bulk_turn(&mut self) -> usize {
        self.now += TURN;
        let (stream, accepted) = (self.stream, self.accepted);
        while self.client.sockets.get_mut::<Socket<'_>>(stream).send_slice(&self.text).is_ok_and(|n| n > 0) {}
        self.poll_client();
        self.poll_server();
        let mut total = 0;
        let socket = self.server.sockets.get_mut::<Socket<'_>>(accepted);
        while let Ok(count @ 1..) = socket.recv_slice(&mut self.read) {
            total += count;
        }
        // Send the window update.
        self.poll_server();
        total
    }

    fn round_trip(&mut self) {
        self.now += TURN;
        let (stream, accepted) = (self.stream, self.accepted);
        let client = self.client.sockets.get_mut::<Socket<'_>>(stream);
        client.send_slice(&self.text[..MESSAGE]).expect("there is room");
        self.poll_client();
        self.poll_server();
        let server = self.server.sockets.get_mut::<Socket<'_>>(accepted);
        let count = server.recv_slice(&mut self.read).expect("it is open");
        server.send_slice(&self.read[..count]).expect("there is room");
        self.poll_server();
        self.poll_client();
        let client = self.client.sockets.get_mut::<Socket<'_>>(stream);
        let back = client.recv_slice(&mut self.read).expect("it is open");
        assert_eq!((count, back), (MESSAGE, MESSAGE));
    }

    fn connect_close(&mut self) {
        self.now += TURN;
        let passing = self.passing;
        self.connect(FIRST_PORT + 1, passing);
        self.client.socket(passing.0).close();
        self.poll_client();
        self.poll_server();
        self.server.socket(passing.1).close();
        self.poll_server();
        self.poll_client();
        self.poll_server();
        assert_eq!(self.client.socket(passing.0).state(), State::TimeWait);
        self.client.socket(passing.0).abort();
        // The closed server ignores the RST of the abort.
        self.poll_client();
        self.poll_server();
        assert_eq!(self.server.socket(passing.1).state(), State::Closed);
    }

    fn empty_turn(&mut self) {
        self.now += TURN;
        let Host { interface, sockets, link } = &mut self.server;
        interface.poll(self.now, link, sockets);
        std::hint::black_box(interface.poll_at(self.now, sockets));
    }
}

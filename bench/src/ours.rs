//! The pair of our own stacks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::BytesMut;
use steadfast_core::{
    Bytes, Config, ConnectOptions, Duration, Error, Instant, Interface, ListenOptions, SocketId,
    SocketOptions, Stack, UdpOptions,
};

use crate::pair::{FIRST_PORT, MESSAGE, PORTS, Pair, Setup, WRITE};
use crate::wire::Wire;

/// The client's address.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// The server's address.
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// Virtual time that a turn of the driver takes.
const TURN: Duration = Duration::from_micros(1);
/// Most packets that a device takes or delivers at once.
const BATCH: usize = 32;
/// Bytes in each queue of the active connection: no more than stays in the cache.
const BUFFER: u32 = 128 * 1024;

/// Two stacks.
pub(crate) struct Stacks {
    /// The end that connects.
    pub(crate) client: Stack,
    /// The end that listens.
    pub(crate) server: Stack,
    listeners: Vec<SocketId>,
    options: SocketOptions,
    stream: SocketId,
    accepted: SocketId,
    wire: Wire,
    /// If present, super-segments reach the server in buffers that it may keep.
    shared: Option<SharedFrames>,
    now: Instant,
    connects: u32,
    text: Vec<u8>,
    read: Vec<u8>,
}

/// Creates a stack at `address` with a secret made from `seed`.
fn stack(address: IpAddr, seed: u8, setup: &Setup, change: impl FnOnce(&mut Config)) -> Stack {
    let mut config = Config { secret: [seed; 32], ..Config::default() };
    change(&mut config);
    let mut interface = Interface::new(setup.mtu, [(address, 24)]);
    interface.segmentation_offload = setup.super_segments;
    Stack::new(config, interface)
}

impl Stacks {
    /// Creates two stacks without a connection. The server listens.
    pub(crate) fn unconnected(setup: &Setup, change: impl Fn(&mut Config)) -> Stacks {
        let frame = if setup.super_segments { 65_535 } else { usize::from(setup.mtu) };
        let mut stacks = Stacks {
            client: stack(CLIENT, 1, setup, &change),
            server: stack(SERVER, 2, setup, &change),
            listeners: Vec::new(),
            options: SocketOptions::new(&Config::default()),
            stream: SocketId::default(),
            accepted: SocketId::default(),
            wire: Wire::new(if setup.super_segments { 2 } else { BATCH }, frame),
            shared: setup.super_segments.then(SharedFrames::default),
            now: Instant::from_secs(1),
            connects: 0,
            text: (0..WRITE).map(|i| (i % 251) as u8).collect(),
            read: vec![0; WRITE],
        };
        (stacks.options.rcvbuf, stacks.options.sndbuf) = (BUFFER, BUFFER);
        stacks.options.nodelay = true;
        for port in FIRST_PORT..FIRST_PORT + PORTS {
            let options = ListenOptions { socket: Some(stacks.options.clone()), ..ListenOptions::default() };
            let listener = stacks.server.listen(SocketAddr::new(SERVER, port), options);
            stacks.listeners.push(listener.expect("the port is free"));
        }
        stacks
    }

    /// Creates two stacks with `setup.idle` idle connections and an active one.
    pub(crate) fn connected(setup: &Setup, change: impl Fn(&mut Config), progress: &dyn Fn(usize)) -> Stacks {
        let mut stacks = Stacks::unconnected(setup, change);
        stacks.open_idle(setup.idle, progress);
        (stacks.stream, stacks.accepted) = stacks.connect(PORTS - 1, None);
        stacks
    }

    /// Returns the current time of both stacks.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Lets time pass, and runs the timers of both stacks.
    pub(crate) fn tick(&mut self) {
        self.now += TURN;
        self.client.advance(self.now);
        self.server.advance(self.now);
    }

    /// Carries packets both ways until none is left. Each direction must fit into a batch. A stack that received
    /// nothing since it last transmitted has nothing to send.
    pub(crate) fn carry(&mut self) {
        self.reach_server();
        while self.reach_client() && self.reach_server() {}
    }

    /// Lets the client's application fill the send buffer.
    pub(crate) fn write(&mut self) {
        while self.client.send(self.stream, &self.text).is_ok() {}
    }

    fn reach_server(&mut self) -> bool {
        if let Some(frames) = &mut self.shared {
            return frames.carry(&mut self.client, &mut self.server, self.now);
        }
        carry(&mut self.client, &mut self.server, &mut self.wire, self.now)
    }

    fn reach_client(&mut self) -> bool {
        carry(&mut self.server, &mut self.client, &mut self.wire, self.now)
    }

    /// Connects to the listener with this index, from `local_port` or a port that the stack picks. Returns both ends.
    /// Panics if it fails.
    pub(crate) fn connect(&mut self, listener: u16, local_port: Option<u16>) -> (SocketId, SocketId) {
        let remote = SocketAddr::new(SERVER, FIRST_PORT + listener);
        let socket = Some(self.options.clone());
        let options = ConnectOptions { local_port, socket, ..ConnectOptions::default() };
        let stream = self.client.connect(self.now, remote, options).expect("a connect succeeds");
        self.carry();
        let (accepted, _) =
            self.server.accept(self.listeners[usize::from(listener)]).expect("it was accepted");
        self.drain_events();
        (stream, accepted)
    }

    /// Opens a connection to the listener with this index, accepts it, and closes it at the client and then at the
    /// server. `after` passes before it.
    pub(crate) fn connect_close_to(&mut self, listener: u16, after: Duration) {
        self.connect_close_between(listener, None, after);
    }

    fn connect_close_between(&mut self, listener: u16, local_port: Option<u16>, after: Duration) {
        self.now += after;
        self.tick();
        let (stream, accepted) = self.connect(listener, local_port);
        self.client.close(self.now, stream).expect("it is open");
        self.carry();
        assert_eq!(self.server.recv(accepted, &mut self.read), Ok(0));
        self.server.close(self.now, accepted).expect("it is open");
        self.carry();
        self.drain_events();
    }

    /// Does so from each local port of a wide range in turn, to each listener.
    pub(crate) fn connect_close_from_next(&mut self, after: Duration) {
        const LOCAL: u32 = 50_000;
        let (listener, port) = (self.connects / LOCAL % u32::from(PORTS - 1), 10_001 + self.connects % LOCAL);
        self.connects += 1;
        self.connect_close_between(listener as u16, Some(port as u16), after);
    }

    /// Opens `count` idle connections. `progress` gets the number so far.
    pub(crate) fn open_idle(&mut self, count: usize, progress: &dyn Fn(usize)) {
        const PORTS_EACH: usize = 50_000;
        for i in 0..count {
            let (listener, port) = (i / PORTS_EACH, 10_001 + i % PORTS_EACH);
            self.connect(listener as u16, Some(port as u16));
            if i % 1000 == 0 {
                progress(i);
            }
        }
    }

    /// Writes eight segments on a connection. The first is lost, SACK blocks show it, and the client sends it again.
    pub(crate) fn lose_and_repair(&mut self, (stream, accepted): (SocketId, SocketId)) {
        const BYTES: usize = 8 * 1448;
        self.tick();
        self.client.send(stream, &self.text[..BYTES]).expect("there is room");
        let sent = self.wire.push(|frame| self.client.transmit(self.now, frame).map(|sent| sent.len));
        assert!(sent && self.wire.pop().is_some());
        self.carry();
        assert_eq!(read_all(&mut self.server, accepted, &mut self.read), BYTES);
        self.carry();
        self.drain_events();
    }

    /// Binds a UDP socket at each end.
    pub(crate) fn bind_udp(&mut self) -> (SocketId, SocketId) {
        let bind = |stack: &mut Stack, address| {
            let options = UdpOptions::new(stack.config());
            stack.bind_udp(SocketAddr::new(address, FIRST_PORT), options).expect("the port is free")
        };
        (bind(&mut self.client, CLIENT), bind(&mut self.server, SERVER))
    }

    /// Sends a datagram to the server's socket, which sends it back.
    pub(crate) fn exchange_datagrams(&mut self, (client, server): (SocketId, SocketId)) {
        self.tick();
        let to = SocketAddr::new(SERVER, FIRST_PORT);
        self.client.send_to(client, &self.text[..MESSAGE], Some(to)).expect("there is room");
        self.reach_server();
        let there = self.server.recv_from(server, &mut self.read).expect("the datagram is there");
        self.server.send_to(server, &self.read[..there.len], Some(there.from)).expect("there is room");
        self.reach_client();
        let back = self.client.recv_from(client, &mut self.read).expect("the datagram is there");
        assert_eq!((there.len, back.len), (MESSAGE, MESSAGE));
        self.drain_events();
    }

    fn drain_events(&mut self) {
        while self.client.poll_event().is_some() {}
        while self.server.poll_event().is_some() {}
    }
}

/// Carries one batch from `from` to `to`. Returns whether there was a packet.
fn carry(from: &mut Stack, to: &mut Stack, wire: &mut Wire, now: Instant) -> bool {
    let mut any = false;
    while wire.push(|frame| from.transmit(now, frame).map(|sent| sent.len)) {
        any = true;
    }
    while let Some(packet) = wire.pop() {
        to.receive(now, packet);
    }
    any
}

/// Frames that the receiver holds until the application has read them, as a device with its own buffers does. After
/// that they are reused.
#[derive(Default)]
struct SharedFrames {
    free: Vec<BytesMut>,
    held: Vec<Bytes>,
}

impl SharedFrames {
    fn carry(&mut self, from: &mut Stack, to: &mut Stack, now: Instant) -> bool {
        for frame in std::mem::take(&mut self.held) {
            match frame.try_into_mut() {
                Ok(frame) => self.free.push(frame),
                Err(frame) => self.held.push(frame),
            }
        }
        let before = self.held.len();
        for _ in 0..2 {
            let mut frame = self.free.pop().unwrap_or_else(|| BytesMut::zeroed(65_535));
            let Some(sent) = from.transmit(now, &mut frame) else {
                self.free.push(frame);
                break;
            };
            let frame = frame.freeze();
            to.receive(now, frame.slice(..sent.len));
            self.held.push(frame);
        }
        self.held.len() > before
    }
}

/// Reads everything there is, and returns the number of bytes.
fn read_all(stack: &mut Stack, id: SocketId, buffer: &mut [u8]) -> usize {
    let mut total = 0;
    loop {
        match stack.recv(id, buffer) {
            Ok(0) | Err(Error::WouldBlock) => return total,
            Ok(count) => total += count,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Pair for Stacks {
    fn new(setup: &Setup, progress: &dyn Fn(usize)) -> Stacks {
        Stacks::connected(setup, |_| {}, progress)
    }

    fn bulk_turn(&mut self) -> usize {
        self.tick();
        self.write();
        self.reach_server();
        let count = read_all(&mut self.server, self.accepted, &mut self.read);
        self.reach_client();
        self.drain_events();
        count
    }

    fn round_trip(&mut self) {
        self.tick();
        self.client.send(self.stream, &self.text[..MESSAGE]).expect("there is room");
        self.reach_server();
        let count = self.server.recv(self.accepted, &mut self.read).expect("the request is there");
        self.server.send(self.accepted, &self.read[..count]).expect("there is room");
        self.reach_client();
        let back = self.client.recv(self.stream, &mut self.read).expect("the response is there");
        assert_eq!((count, back), (MESSAGE, MESSAGE));
        self.drain_events();
    }

    fn connect_close(&mut self) {
        let listener = (self.connects % u32::from(PORTS - 32)) as u16 + 30;
        self.connects = self.connects.wrapping_add(1);
        self.connect_close_to(listener, TURN);
    }

    fn empty_turn(&mut self) {
        self.now += TURN;
        self.server.advance(self.now);
        let sent = self.wire.push(|frame| self.server.transmit(self.now, frame).map(|sent| sent.len));
        assert!(!sent && self.server.poll_event().is_none());
        std::hint::black_box(self.server.poll_at());
    }
}

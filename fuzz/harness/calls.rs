//! Two stacks, applications that make arbitrary calls, and a wire that loses, duplicates, delays, damages and
//! truncates.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use steadfast_core::trace::State;
use steadfast_core::wire::build;
use steadfast_core::wire::icmp::Message;
use steadfast_core::wire::tcp::{Flags, Header};
use steadfast_core::{
    Bytes, ConnectOptions, Duration, Error, ForwardRule, Instant, Interface, ListenOptions, Packet,
    PacketBytes, Reject, Shutdown, SocketId, SocketOptions, Stack, UdpOptions,
};

use super::packets::{self, Sent};
use super::watch::{self, Watch};
use super::{Input, config, pattern};

struct Host {
    stack: Stack,
    watch: Watch,
    sockets: Vec<Socket>,
    listeners: Vec<SocketId>,
    /// Reserved local ends.
    ends: Vec<SocketAddr>,
    forwarder: SocketId,
    /// Requests that wait for a decision.
    requests: Vec<SocketId>,
    /// UDP sockets.
    udp: Vec<SocketId>,
    /// The forwarders of UDP and of echo requests.
    datagrams: [SocketId; 2],
    /// The device accepts nothing.
    blocked: bool,
}

struct Socket {
    id: SocketId,
    serial: u16,
    /// The sender of this stream, known once its first two bytes were read.
    from: Option<u16>,
    first: Option<u8>,
    read: u64,
    /// The end of the stream was read, or an error.
    over: bool,
    /// The application shut down reading, or learned that the connection failed.
    shut: bool,
}

struct Target {
    now: Instant,
    hosts: [Host; 2],
    /// Packets by time of arrival and order of sending, each with its receiver.
    wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    count: u64,
    /// Bytes written by each sender.
    written: Vec<u64>,
    /// Recently sent packets, for forgers.
    seen: VecDeque<(usize, Vec<u8>)>,
    cut: [bool; 2],
    /// No more faults happen.
    healed: bool,
    /// A connection has a receive buffer of a few bytes.
    tiny: bool,
    offload: bool,
}

const STEPS: usize = 300;
const DELAY: Duration = Duration::from_millis(5);

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut target = Target::new(&mut input);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        target.step(&mut input);
    }
    target.heal();
}

/// Returns the byte at `at` in the stream of a sender: its number, then a pattern of its own.
fn stream(serial: u16, at: u64) -> u8 {
    match at {
        0 => (serial >> 8) as u8,
        1 => serial as u8,
        _ => pattern(at as u32).wrapping_add(serial as u8),
    }
}

impl Target {
    fn new(input: &mut Input<'_>) -> Target {
        let offload = input.u8() & 7 == 7;
        let mut host = |n: u8| {
            let mut interface = Interface::new(
                input.pick(&[1500, 1280, 1400]),
                [(format!("10.0.0.{n}").parse().unwrap(), 24), (format!("fd00::{n}").parse().unwrap(), 64)],
            );
            (interface.segmentation_offload, interface.checksum_offload) = (offload, offload);
            let mut stack = Stack::new(config(input, n), interface);
            stack.set_tracing(true);
            let forwarder = stack.forward(ForwardRule::all()).expect("the first");
            let datagrams = [
                stack.forward_udp(ForwardRule::all()).expect("the first"),
                stack.forward_echo(ForwardRule::all()).expect("the first"),
            ];
            Host {
                stack,
                watch: Watch::default(),
                sockets: Vec::new(),
                listeners: Vec::new(),
                ends: Vec::new(),
                forwarder,
                requests: Vec::new(),
                udp: Vec::new(),
                datagrams,
                blocked: false,
            }
        };
        let mut target = Target {
            now: Instant::from_secs(1000),
            hosts: [host(1), host(2)],
            wire: BTreeMap::new(),
            count: 0,
            written: Vec::new(),
            seen: VecDeque::new(),
            cut: [false; 2],
            healed: false,
            tiny: false,
            offload,
        };
        for host in 0..2 {
            for local in ["0.0.0.0:80", "[::]:80"] {
                target.listen(host, local, true);
            }
        }
        target
    }

    fn listen(&mut self, host: usize, local: &str, fast_open: bool) {
        let options = ListenOptions { fast_open, ..ListenOptions::default() };
        if let Ok(id) = self.hosts[host].stack.listen(local.parse().unwrap(), options) {
            self.hosts[host].listeners.push(id);
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        let host = usize::from(what >> 7);
        match what % 16 {
            0 | 1 => self.connect(host, input),
            2 => {
                self.accept(host);
                self.decide(host, input);
            }
            3 | 4 => self.send(host, input),
            5 | 6 => self.recv(host, input),
            7 => self.finish(host, input),
            8 => self.options(host, input),
            9 => self.forge(host, input),
            10 => match input.u8() % 4 {
                0 => self.cut = [false; 2],
                1 => self.cut = [true; 2],
                2 => self.cut[host] ^= true,
                _ => self.hosts[host].blocked ^= true,
            },
            11 => self.run(Duration::from_millis(input.u8().into()), input),
            12 => {
                let span = input.span();
                self.run(span, input);
            }
            13 => {
                // The driver is late.
                self.now += input.span();
                self.flush(input);
            }
            14 => {
                self.datagrams(host, input);
                self.forward_datagrams(host, input);
            }
            _ => self.run(Duration::from_millis(50), input),
        }
        self.flush(input);
        self.check();
    }

    fn check(&mut self) {
        for host in &mut self.hosts {
            host.watch.look(&mut host.stack, self.now);
            watch::events(&mut host.stack);
            host.watch.check(&host.stack, self.now);
        }
    }

    fn new_socket(&mut self, host: usize, id: SocketId) {
        let serial = self.written.len() as u16;
        self.written.push(0);
        let socket = Socket { id, serial, from: None, first: None, read: 0, over: false, shut: false };
        self.hosts[host].sockets.push(socket);
    }

    /// Reserves a local end, gives one back, or listens at one that others may share.
    fn bind(&mut self, host: usize, input: &mut Input<'_>) {
        let shape = input.u8();
        let local = input.pick(&[
            "0.0.0.0:80",
            "[::]:80",
            "10.0.0.1:80",
            "10.0.0.2:80",
            "[fd00::1]:5000",
            "0.0.0.0:0",
            "[::]:0",
        ]);
        let (reuse_port, only_v6) = (shape & 1 == 1, shape & 2 == 2);
        let options = ListenOptions { reuse_port, only_v6, ..ListenOptions::default() };
        let Host { stack, listeners, ends, .. } = &mut self.hosts[host];
        match shape >> 2 & 3 {
            0 => ends.extend(stack.bind(local.parse().unwrap(), &options)),
            1 => assert!(ends.pop().is_none_or(|end| stack.unbind(end))),
            _ => listeners.extend(stack.listen(local.parse().unwrap(), options)),
        }
    }

    /// Makes a call of UDP. The bytes of a datagram are all the same, so that a mix is seen.
    fn datagrams(&mut self, host: usize, input: &mut Input<'_>) {
        const GROUPS: [&str; 2] = ["239.1.2.3", "ff02::5"];
        let (shape, other) = (input.u8(), 2 - host);
        let Host { stack, udp, .. } = &mut self.hosts[host];
        let which = usize::from(shape >> 3).checked_rem(udp.len());
        let group = GROUPS[usize::from(shape >> 7)].parse().unwrap();
        match (shape % 8, which) {
            (0 | 1, _) => {
                let local = input.pick(&["0.0.0.0:53", "[::]:53", "0.0.0.0:54", "[::]:0", "239.1.2.3:55"]);
                let options = UdpOptions::new(stack.config()).with(|options| {
                    (options.broadcast, options.dont_fragment) = (shape & 8 == 8, shape & 16 == 16);
                    (options.only_v6, options.multicast_loop) = (shape & 32 == 32, shape & 64 == 64);
                    options.reuse_port = shape & 128 == 128;
                });
                udp.extend(stack.bind_udp(local.parse().unwrap(), options));
            }
            (2..=4, Some(at)) => {
                let remote = input.pick(&[
                    "10.0.0.1:53",
                    "10.0.0.2:53",
                    "10.0.0.255:53",
                    "255.255.255.255:54",
                    "239.1.2.3:55",
                    "[fd00::1]:53",
                    "[fd00::2]:54",
                    "[ff02::5]:53",
                    "198.51.100.1:53",
                    "0.0.0.0:0",
                ]);
                let len = usize::from(input.u16()) % 5000;
                // Any of its errors may be right.
                let _ = stack.send_to(udp[at], &vec![shape; len], Some(remote.parse().unwrap()));
                if shape & 128 == 128 {
                    let _ = stack.send_to(udp[at], &[shape; 10], None);
                }
            }
            (5, Some(at)) => {
                let mut buffer = [0; 5000];
                while let Ok(received) = stack.recv_from(udp[at], &mut buffer) {
                    let mut pairs = buffer[..received.len].windows(2);
                    assert!(pairs.all(|pair| pair[0] == pair[1]), "a datagram of {}", received.full_len);
                }
            }
            (6, Some(at)) if shape & 8 == 8 => _ = stack.join_multicast(udp[at], group, None),
            (6, Some(at)) if shape & 16 == 16 => _ = stack.leave_multicast(udp[at], group, None),
            (6, Some(at)) => {
                let peer = format!("10.0.0.{other}:53").parse().unwrap();
                let _ = stack.connect_udp(udp[at], peer);
            }
            (7, Some(at)) => assert_eq!(stack.close(self.now, udp.swap_remove(at)), Ok(())),
            _ => {}
        }
    }

    /// Takes what waits in the forwarders of datagrams, and answers or refuses some of it. Pings a host of nobody.
    fn forward_datagrams(&mut self, host: usize, input: &mut Input<'_>) {
        let shape = input.u8();
        let Host { stack, datagrams: [udp, echoes], .. } = &mut self.hosts[host];
        let how = match shape & 3 {
            0 => Reject::Reset,
            1 => Reject::HostUnreachable,
            2 => Reject::TimeExceeded,
            _ => Reject::Silent,
        };
        while let Ok(packet) = stack.next_datagram(*udp) {
            let mut pairs = packet.payload.windows(2);
            assert!(pairs.all(|pair| pair[0] == pair[1]), "a datagram of {}", packet.payload.len());
            let mut answer = packet.answer(packet.payload.clone());
            answer.dont_fragment = shape & 4 == 4;
            // The port of the source may be 0, and there may be no room.
            let _ = stack.send_datagram(*udp, &answer);
            assert_eq!(stack.reject_datagram(self.now, &packet, how), Ok(()));
        }
        while let Ok(request) = stack.next_echo(*echoes) {
            let _ = stack.send_echo_reply(*echoes, &request.reply());
            assert_eq!(stack.reject_echo(self.now, &request, how), Ok(()));
        }
        if shape & 8 == 8 {
            let source = self.hosts[host].stack.interface().addresses[usize::from(shape >> 4) % 2].0;
            let other = if source.is_ipv4() { "198.51.100.1" } else { "2001:db8::1" };
            let data = vec![shape; usize::from(input.u16()) % 1200];
            let message = Message::EchoRequest { ident: 1, sequence: shape.into(), data: &data };
            let packet = build::icmp(source, other.parse().unwrap(), &message).expect("one family");
            self.put(1 - host, packet, input);
        }
    }

    fn connect(&mut self, host: usize, input: &mut Input<'_>) {
        let shape = input.u8();
        let other = 2 - host;
        let port = if shape & 3 == 3 { 5000 } else { 80 };
        // Two of these are of no host: a forwarder decides.
        let remote = match (shape & 4 == 0, shape & 128 == 0) {
            (true, true) => format!("10.0.0.{other}:{port}"),
            (false, true) => format!("[fd00::{other}]:{port}"),
            (true, false) => format!("198.51.100.{other}:{port}"),
            (false, false) => format!("[2001:db8::{other}]:{port}"),
        };
        let options = ConnectOptions {
            // Both hosts use the same two ports, so that their SYNs may cross.
            local_port: (shape & 24 == 24).then_some(5000),
            fast_open: shape & 32 == 32,
            socket: self.sizes(host, input),
            ..ConnectOptions::default()
        };
        let remote: SocketAddr = remote.parse().unwrap();
        if let Ok(id) = self.hosts[host].stack.connect(self.now, remote, options) {
            self.new_socket(host, id);
            if shape & 64 == 64 {
                let last = self.hosts[host].sockets.len() - 1;
                self.write(host, last, 700);
            }
        }
    }

    /// Sometimes returns options with a receive buffer of any size.
    fn sizes(&mut self, host: usize, input: &mut Input<'_>) -> Option<SocketOptions> {
        let shape = input.u8();
        let rcvbuf = 1 << (shape & 31).min(30);
        self.tiny |= shape >= 192 && rcvbuf < 1024;
        (shape >= 192)
            .then(|| SocketOptions::new(self.hosts[host].stack.config()).with(|o| o.rcvbuf = rcvbuf))
    }

    fn accept(&mut self, host: usize) {
        for listener in self.hosts[host].listeners.clone() {
            while let Ok((id, _)) = self.hosts[host].stack.accept(listener) {
                self.new_socket(host, id);
            }
        }
    }

    /// Takes the requests of a forwarder, and decides about some of them.
    fn decide(&mut self, host: usize, input: &mut Input<'_>) {
        let Host { stack, forwarder, requests, .. } = &mut self.hosts[host];
        requests.extend(std::iter::from_fn(|| stack.next_request(*forwarder).ok()));
        for id in std::mem::take(&mut self.hosts[host].requests) {
            let stack = &mut self.hosts[host].stack;
            let how = match input.u8() % 8 {
                0 | 1 => {
                    match stack.accept_request(self.now, id, None) {
                        Ok(()) => self.new_socket(host, id),
                        Err(Error::NoBufferSpace) => self.hosts[host].requests.push(id),
                        Err(_) => assert_eq!(stack.close(self.now, id), Ok(())),
                    }
                    continue;
                }
                2 => {
                    self.hosts[host].requests.push(id);
                    continue;
                }
                3 => Reject::Silent,
                4 => Reject::HostUnreachable,
                5 => Reject::TimeExceeded,
                6 => Reject::PortUnreachable,
                _ => Reject::Reset,
            };
            assert_eq!(stack.reject_request(self.now, id, how), Ok(()));
        }
    }

    fn socket(&self, host: usize, input: &mut Input<'_>) -> Option<usize> {
        let n = usize::from(input.u8());
        let count = self.hosts[host].sockets.len();
        (count > 0).then(|| n % count)
    }

    fn send(&mut self, host: usize, input: &mut Input<'_>) {
        let Some(at) = self.socket(host, input) else { return };
        let len = usize::from(input.u16() % 8000);
        self.write(host, at, len);
    }

    fn write(&mut self, host: usize, at: usize, len: usize) {
        let Host { stack, sockets, .. } = &mut self.hosts[host];
        let Socket { id, serial, .. } = sockets[at];
        let written = &mut self.written[usize::from(serial)];
        let data: Vec<u8> = (0..len as u64).map(|i| stream(serial, *written + i)).collect();
        let sent = if len.is_multiple_of(2) {
            stack.send(id, &data)
        } else {
            stack.send_bytes(id, &mut Bytes::from(data))
        };
        *written += sent.unwrap_or(0) as u64;
        // An error is reported once, here or to the reader. After it, a read of 0 does not mean a FIN.
        sockets[at].shut |= sent.is_err_and(|error| error != Error::WouldBlock);
    }

    fn recv(&mut self, host: usize, input: &mut Input<'_>) {
        let Some(at) = self.socket(host, input) else { return };
        let len = usize::from(input.u16());
        self.read(host, at, len.max(1));
    }

    /// Reads, and checks that the bytes are those sent and that the stream ends at its end.
    fn read(&mut self, host: usize, at: usize, len: usize) {
        let Host { stack, sockets, .. } = &mut self.hosts[host];
        let socket = &mut sockets[at];
        let mut buffer = vec![0; len];
        let count = match stack.recv(socket.id, &mut buffer) {
            Ok(0) => {
                if !socket.over && !socket.shut {
                    let sent = socket.from.map(|from| self.written[usize::from(from)]);
                    assert!(
                        sent.is_none_or(|sent| sent == socket.read),
                        "{sent:?} sent, {} read",
                        socket.read
                    );
                }
                socket.over = true;
                return;
            }
            Ok(count) => count,
            Err(Error::WouldBlock) => return,
            Err(_) => {
                socket.over = true;
                return;
            }
        };
        assert!(!socket.over || socket.shut, "{count} bytes after the end");
        for byte in &buffer[..count] {
            match (socket.first, socket.from) {
                (None, _) => socket.first = Some(*byte),
                (Some(first), None) => socket.from = Some(u16::from_be_bytes([first, *byte])),
                (_, Some(from)) => {
                    assert_eq!(*byte, stream(from, socket.read), "byte {} of {from}", socket.read);
                }
            }
            socket.read += 1;
        }
        if let Some(from) = socket.from {
            let sent = self.written.get(usize::from(from)).expect("a sender that exists");
            assert!(socket.read <= *sent, "{} read of {sent}", socket.read);
        }
    }

    fn finish(&mut self, host: usize, input: &mut Input<'_>) {
        let what = input.u8();
        if what % 16 == 15 {
            let Some(listener) = self.hosts[host].listeners.pop() else {
                return self.listen(host, "0.0.0.0:80", what & 16 == 16);
            };
            assert_eq!(self.hosts[host].stack.close(self.now, listener), Ok(()));
            self.hosts[host].watch.forget();
            return;
        }
        if what % 16 == 14 {
            return self.bind(host, input);
        }
        let Some(at) = self.socket(host, input) else { return };
        let Host { stack, sockets, .. } = &mut self.hosts[host];
        let id = sockets[at].id;
        match what % 8 {
            0..=3 => drop(stack.shutdown(self.now, id, Shutdown::Write)),
            4 => {
                sockets[at].shut |= stack.shutdown(self.now, id, Shutdown::Both).is_ok();
                sockets[at].shut = true;
            }
            5 | 6 => {
                assert_eq!(stack.close(self.now, id), Ok(()));
                sockets.swap_remove(at);
            }
            _ => {
                let limit = Duration::from_secs(u64::from(what >> 6));
                let aborted = if what & 32 == 32 {
                    stack.abort_after(self.now, id, limit)
                } else {
                    stack.abort(self.now, id)
                };
                assert_eq!(aborted, Ok(()));
                sockets.swap_remove(at);
            }
        }
    }

    fn options(&mut self, host: usize, input: &mut Input<'_>) {
        let shape = input.u8();
        let Host { stack, sockets, listeners, .. } = &mut self.hosts[host];
        let ids: Vec<_> = sockets.iter().map(|s| s.id).chain(listeners.iter().copied()).collect();
        let Some(id) = ids.get(usize::from(input.u8()) % ids.len().max(1)) else { return };
        let mut options = SocketOptions::new(stack.config());
        options.nodelay = shape & 1 == 1;
        options.keepalive = shape & 2 == 2;
        options.linger = (shape & 4 == 4).then_some(Duration::ZERO);
        options.user_timeout = Duration::from_millis(if shape & 8 == 8 { input.u16().into() } else { 0 });
        options.max_segment = (shape & 16 == 16).then(|| input.u16());
        if shape & 32 == 32 {
            options.rcvbuf = 1024 << ((shape >> 6) * 4);
        }
        let _ = stack.set_options(self.now, *id, options);
    }

    /// Plays a blind or half-blind attacker: sends a segment like one that was seen, without its payload.
    fn forge(&mut self, host: usize, input: &mut Input<'_>) {
        let n = usize::from(input.u8());
        if self.seen.is_empty() {
            return;
        }
        let (to, packet) = self.seen[n % self.seen.len()].clone();
        let Sent::Tcp { local, remote, header, .. } = packets::read(&packet, self.offload) else { return };
        let shape = input.u8();
        let flags = match shape & 3 {
            0 => Flags::RST,
            1 => Flags::RST | Flags::ACK,
            2 => Flags::ACK,
            _ => Flags::SYN,
        };
        let mut forged = Header { flags, ..header };
        forged.options.mss = None;
        forged.options.window_scale = None;
        forged.options.fast_open = None;
        forged.options.sack_permitted = false;
        // A SYN with a valid sequence number would come from a peer, not from an attacker.
        if shape & 4 == 4 || flags.syn() {
            forged.seq = header.seq + 0x0100_0000 + u32::from(input.u16());
        }
        if shape & 8 == 8 {
            forged.ack = header.ack + u32::from(input.u16());
        }
        if shape & 16 == 16 {
            forged.window = input.u16();
        }
        let _ = host;
        let packet = packets::segment(local, remote, forged, &[]);
        self.count += 1;
        self.wire.insert((self.now, self.count), (to, packet));
    }

    /// Takes the packets of the stacks, and decides the fate of each.
    fn flush(&mut self, input: &mut Input<'_>) {
        for host in 0..2 {
            if self.hosts[host].blocked {
                continue;
            }
            let Host { stack, watch, .. } = &mut self.hosts[host];
            for packet in watch.drain(stack, self.now) {
                self.put(1 - host, packet, input);
            }
        }
    }

    fn put(&mut self, to: usize, mut packet: Vec<u8>, input: &mut Input<'_>) {
        if self.seen.len() > 8 {
            self.seen.pop_front();
        }
        self.seen.push_back((to, packet.clone()));
        if self.cut[to] {
            return;
        }
        let mut at = self.now + DELAY;
        let mut copies = 1;
        match if self.healed { 0 } else { input.u8() } {
            200..=214 => return,
            215..=222 => copies = 2,
            223..=232 => at += Duration::from_millis(input.u8().into()),
            233..=238 => at += input.span().min(Duration::from_secs(20)),
            239..=243 if !self.offload => {
                let bit = usize::from(input.u16()) % (packet.len() * 8);
                packet[bit / 8] ^= 1 << (bit % 8);
            }
            244..=247 => packet.truncate(usize::from(input.u16()) % packet.len()),
            248..=251 if packet.len() < 1600 && !self.offload => {
                let size = (usize::from(input.u8()) * 8).max(packet.len() / 4);
                for piece in packets::fragments(&packet, self.count as u16, size) {
                    self.count += 1;
                    self.wire.insert((at, self.count), (to, piece));
                }
                return;
            }
            _ => {}
        }
        for _ in 0..copies {
            self.count += 1;
            self.wire.insert((at, self.count), (to, packet.clone()));
        }
    }

    fn deliver(&mut self, to: usize, packet: &[u8], input: &mut Input<'_>) {
        let bytes = if packet.len().is_multiple_of(2) {
            PacketBytes::Borrowed(packet)
        } else {
            PacketBytes::Shared(Bytes::copy_from_slice(packet))
        };
        // Drain the stack first, so that its next packet is the answer.
        self.flush(input);
        let now = self.now;
        let host = &mut self.hosts[to];
        host.watch.heard_rst = false;
        host.stack.receive(now, Packet::new(bytes, self.offload));
        host.watch.look(&mut host.stack, now);
        if host.watch.heard_rst && !host.blocked {
            for packet in host.watch.drain(&mut host.stack, now) {
                let answer = matches!(packets::read(&packet, self.offload), Sent::Tcp { header, .. } if header.flags.rst());
                assert!(!answer, "a RST is answered by a RST");
                self.put(1 - to, packet, input);
            }
        }
    }

    /// Lets time pass, with all its arrivals and timers.
    fn run(&mut self, span: Duration, input: &mut Input<'_>) {
        let until = self.now + span;
        let mut turns = 0;
        loop {
            self.flush(input);
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let timers = self.hosts.iter().filter_map(|host| host.stack.poll_at());
            let next = timers.chain(arrival).min().map(|at| at.max(self.now)).filter(|at| *at <= until);
            self.now = next.unwrap_or(until);
            for host in &mut self.hosts {
                host.watch.advance(&mut host.stack, self.now);
            }
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, packet) = entry.remove();
                self.deliver(to, &packet, input);
            }
            if next.is_none() {
                break;
            }
            turns += 1;
            assert!(turns < 200_000, "livelock at {}", self.now);
        }
        self.flush(input);
    }

    /// Ends all faults: every connection must come to its end.
    fn heal(&mut self) {
        let nothing = &mut Input::new(&[]);
        self.healed = true;
        self.cut = [false; 2];
        for host in &mut self.hosts {
            host.blocked = false;
        }
        // A buffer keeps the size given to `connect`: a transfer into a few bytes takes long.
        let turns = if self.tiny { 4000 } else { 400 };
        for turn in 0..turns {
            for host in 0..2 {
                self.accept(host);
                self.decide(host, nothing);
                for at in 0..self.hosts[host].sockets.len() {
                    let Host { stack, sockets, .. } = &mut self.hosts[host];
                    if turn == 0 {
                        let options = SocketOptions::new(stack.config());
                        let _ = stack.set_options(self.now, sockets[at].id, options);
                    }
                    let _ = stack.shutdown(self.now, sockets[at].id, Shutdown::Write);
                    for _ in 0..1000 {
                        let before = self.hosts[host].sockets[at].read;
                        self.read(host, at, 4096);
                        if self.hosts[host].sockets[at].read == before {
                            break;
                        }
                    }
                }
            }
            if self.hosts.iter().all(|host| host.sockets.iter().all(|socket| socket.over)) {
                break;
            }
            self.run(Duration::from_secs(5), nothing);
            self.check();
        }
        for host in &mut self.hosts {
            for id in std::mem::take(&mut host.udp) {
                assert_eq!(host.stack.close(self.now, id), Ok(()));
            }
            for socket in std::mem::take(&mut host.sockets) {
                // A peer may have vanished after acknowledging our FIN. Such a connection waits for ever, as the RFC
                // demands.
                let state = host.stack.state(socket.id).unwrap();
                let waits = matches!(state, State::FinWait2 | State::SynSent);
                assert!(socket.over || waits, "stuck in {state}: {:?}", host.stack.info(self.now, socket.id));
                assert_eq!(host.stack.close(self.now, socket.id), Ok(()));
            }
            for end in std::mem::take(&mut host.ends) {
                assert!(host.stack.unbind(end), "{end} is reserved");
            }
            host.listeners.push(host.forwarder);
            host.listeners.extend(host.datagrams);
            for request in std::mem::take(&mut host.requests) {
                assert_eq!(host.stack.close(self.now, request), Ok(()));
            }
            for listener in std::mem::take(&mut host.listeners) {
                assert_eq!(host.stack.close(self.now, listener), Ok(()));
            }
        }
        self.run(Duration::from_secs(20 * 60), nothing);
        for host in &mut self.hosts {
            host.watch.expect_rest(&mut host.stack, self.now);
        }
    }
}

//! One stack with listeners and connections in all states, against packets aimed at them.

use std::net::SocketAddr;

use steadfast_core::seq::SeqNum;
use steadfast_core::wire::Ecn;
use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::wire::tcp::{Cookie, Flags, Header, Options, SackBlocks, Timestamps};
use steadfast_core::{
    Bytes, ConnectOptions, Duration, Error, Instant, Interface, ListenOptions, Packet, PacketBytes, Shutdown,
    SocketId, SocketOptions, Stack,
};

use super::packets::{self, Sent};
use super::watch::{self, Watch};
use super::{Input, config, pattern};

/// A peer's view of its connection to the stack.
#[derive(Clone, Copy)]
struct Flow {
    /// Address and port of the stack, then of the peer.
    local: SocketAddr,
    remote: SocketAddr,
    /// The last acknowledgment number of the stack, and the end of the data that it sent.
    ack: SeqNum,
    end: SeqNum,
    window: u16,
    timestamp: u32,
    cookie: Option<Cookie>,
}

struct Socket {
    id: SocketId,
    written: u32,
    /// The next byte expected, once one was read.
    expect: Option<u8>,
    listener: bool,
}

struct Target {
    now: Instant,
    stack: Stack,
    watch: Watch,
    flows: Vec<Flow>,
    next_flow: usize,
    sockets: Vec<Socket>,
    /// A packet was damaged, so that its payload may be anything.
    mangled: bool,
    /// The device accepts nothing.
    blocked: bool,
}

const PASSIVE: usize = 8;
const FLOWS: usize = 14;
const STEPS: usize = 400;

/// Returns the byte that a peer sends at a sequence number.
fn byte_at(seq: SeqNum) -> u8 {
    seq.0 as u8
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut target = Target::new(&mut input);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        target.step(&mut input);
    }
    target.end();
}

impl Target {
    fn new(input: &mut Input<'_>) -> Target {
        let config = config(input, 1);
        let mut interface = Interface::new(
            input.pick(&[1500, 1280, 9000]),
            [("10.0.0.1".parse().unwrap(), 24), ("fd00::1".parse().unwrap(), 64)],
        );
        let offload = input.u8();
        interface.segmentation_offload = offload & 3 == 3;
        interface.checksum_offload = offload & 4 == 4;
        let mut stack = Stack::new(config, interface);
        stack.set_tracing(true);
        let flow = |n: usize| {
            let (local, remote) = match n % 4 {
                0 => ("10.0.0.1:80", "10.0.0.2:1000"),
                1 => ("10.0.0.1:81", "10.9.9.9:1000"),
                2 => ("[fd00::1]:80", "[fd00::2]:1000"),
                _ => ("10.0.0.1:80", "10.0.0.2:1001"),
            };
            let (local, mut remote): (SocketAddr, SocketAddr) =
                (local.parse().unwrap(), remote.parse().unwrap());
            remote.set_port(remote.port() + 10 * (n / 4) as u16);
            // Half of the sequence numbers wrap soon.
            let ack = SeqNum(if n.is_multiple_of(2) { 0u32.wrapping_sub(300) } else { 5000 * n as u32 });
            Flow { local, remote, ack, end: SeqNum(0), window: 0, timestamp: 0, cookie: None }
        };
        let mut target = Target {
            now: Instant::from_secs(1000),
            stack,
            watch: Watch::of_pattern(pattern),
            flows: (0..PASSIVE).map(flow).collect(),
            next_flow: PASSIVE,
            sockets: Vec::new(),
            mangled: false,
            blocked: false,
        };
        for (local, fast_open) in [("0.0.0.0:80", false), ("[::]:80", true), ("10.0.0.1:81", true)] {
            target.listen(local.parse().unwrap(), ListenOptions { fast_open, ..ListenOptions::default() });
        }
        target
    }

    fn listen(&mut self, local: SocketAddr, options: ListenOptions) {
        if let Ok(id) = self.stack.listen(local, options) {
            self.sockets.push(Socket { id, written: 0, expect: None, listener: true });
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 20 {
            0 => {
                let len = usize::from(input.u8());
                let packet = input.bytes(len).to_vec();
                self.arrive(&packet, false, false);
            }
            1..=6 => self.segment(input),
            7 | 8 => self.handshake(input),
            9 => self.follow(input),
            10 => self.icmp(input),
            11 | 12 => self.pass(input),
            13 => {
                self.blocked = input.u8() % 4 == 1;
                if !self.blocked {
                    self.drain();
                }
            }
            14 => self.connect(input),
            15 => self.accept(),
            16 => self.data(input),
            17 => self.data(input),
            18 => self.finish(input),
            _ => self.options(input),
        }
        self.watch.look(&mut self.stack, self.now);
        if !self.blocked {
            self.drain();
        }
        watch::events(&mut self.stack);
        self.watch.check(&self.stack, self.now);
    }

    /// Delivers a packet. A RST must not be answered by a RST.
    fn arrive(&mut self, packet: &[u8], trusted: bool, shared: bool) {
        let bytes = if shared {
            PacketBytes::Shared(Bytes::copy_from_slice(packet))
        } else {
            PacketBytes::Borrowed(packet)
        };
        self.stack.receive(self.now, Packet::new(bytes, trusted));
        self.watch.look(&mut self.stack, self.now);
    }

    fn arrive_alone(&mut self, packet: &[u8], trusted: bool, rst: bool) {
        if !rst || self.blocked {
            return self.arrive(packet, trusted, false);
        }
        self.drain();
        self.arrive(packet, trusted, true);
        let answers = self.drain();
        assert!(!answers, "a RST is answered by a RST");
    }

    /// Takes the packets of the stack, updates the flows, and returns whether one was a RST.
    fn drain(&mut self) -> bool {
        let mut rst = false;
        for packet in self.watch.drain(&mut self.stack, self.now) {
            let offload = self.stack.interface().checksum_offload;
            let Sent::Tcp { local, remote, header, payload } = packets::read(&packet, offload) else {
                continue;
            };
            rst |= header.flags.rst();
            let at = self.flows.iter().position(|flow| (flow.local, flow.remote) == (local, remote));
            let at = at.unwrap_or_else(|| {
                let ack = SeqNum(0x7fff_ff00);
                let flow = Flow { local, remote, ack, end: SeqNum(0), window: 0, timestamp: 0, cookie: None };
                if self.flows.len() < FLOWS {
                    self.flows.push(flow);
                    return self.flows.len() - 1;
                }
                self.next_flow = if self.next_flow + 1 >= FLOWS { PASSIVE } else { self.next_flow + 1 };
                self.flows[self.next_flow] = flow;
                self.next_flow
            });
            let flow = &mut self.flows[at];
            let Flags(flags) = header.flags;
            let control = u32::from(flags & 1) + u32::from(header.flags.syn());
            flow.end = header.seq + payload.len() as u32 + control;
            if header.flags.ack() {
                flow.ack = header.ack;
            }
            flow.window = header.window;
            flow.timestamp = header.options.timestamps.map_or(flow.timestamp, |ts| ts.val);
            flow.cookie = header.options.fast_open.or(flow.cookie);
        }
        rst
    }

    fn flow(&self, input: &mut Input<'_>) -> Flow {
        self.flows[usize::from(input.u8()) % self.flows.len()]
    }

    /// Returns a sequence number near a known one.
    fn near(input: &mut Input<'_>, base: SeqNum, window: u16) -> SeqNum {
        match input.u8() % 12 {
            0..=4 => base,
            5 => base + u32::from(input.u8()),
            6 => base - u32::from(input.u8()),
            7 => base + u32::from(input.u16()),
            8 => base - u32::from(input.u16()),
            9 => base + u32::from(window) - u32::from(input.u8() & 3),
            10 => base + 0x7fff_ffff + u32::from(input.u8() & 3),
            _ => SeqNum(input.u32()),
        }
    }

    fn segment(&mut self, input: &mut Input<'_>) {
        let flow = self.flow(input);
        let flags = match input.u8() {
            b @ 0..192 => [
                Flags::ACK,
                Flags::ACK | Flags::PSH,
                Flags::ACK | Flags::FIN,
                Flags::SYN,
                Flags::SYN | Flags::ACK,
                Flags::RST,
                Flags::RST | Flags::ACK,
                Flags::ACK | Flags::URG,
            ][usize::from(b % 8)],
            _ => Flags(input.u16() & 0x1ff),
        };
        let seq = Target::near(input, flow.ack, flow.window);
        let ack = Target::near(input, flow.end, 0);
        let shape = input.u8();
        let len = match shape & 3 {
            0 => 0,
            1 => usize::from(input.u8() % 32),
            2 => usize::from(input.u16() % 1400),
            _ => usize::from(input.u16()) % if shape & 64 == 64 { 60_000 } else { 3000 },
        };
        let window = match shape >> 2 & 3 {
            0 => 0xffff,
            1 => 0,
            2 => u16::from(input.u8()),
            _ => input.u16(),
        };
        let options = Target::tcp_options(input, flow, flags);
        let urgent = if flags.urg() { input.u16() } else { 0 };
        let header = Header { seq, ack, flags, window, urgent, options, ..Header::default() };
        let first = seq + u32::from(flags.syn());
        let payload: Vec<u8> = (0..len as u32).map(|i| byte_at(first + i)).collect();
        let ecn = Ecn::from_bits(shape >> 4);
        let mut packet = packets::marked_segment(flow.remote, flow.local, header, ecn, &payload);
        match input.u8() {
            200..=219 => {
                // Damage some bytes of the headers.
                self.mangled = true;
                for _ in 0..=input.u8() % 3 {
                    let at = usize::from(input.u8()) % packet.len().min(100);
                    packet[at] ^= input.u8();
                }
                let trusted = input.u8().is_multiple_of(2);
                self.arrive(&packet, trusted, false);
            }
            220..=239 => {
                let (id, size) = (input.u16(), usize::from(input.u8()) * 8);
                if packet.len() / size.max(8) > 100 {
                    return;
                }
                let mut pieces = packets::fragments(&packet, id, size);
                if input.u8() & 1 == 1 {
                    pieces.reverse();
                }
                for piece in pieces.into_iter().skip(usize::from(input.u8() & 1)) {
                    self.arrive(&piece, false, false);
                }
            }
            b => self.arrive_alone(&packet, b & 1 == 1, flags.rst()),
        }
    }

    fn tcp_options(input: &mut Input<'_>, flow: Flow, flags: Flags) -> Options {
        let which = input.u8();
        let mut options = Options::default();
        if which & 1 == 0 {
            let val = match which >> 6 {
                0 | 1 => 1000,
                2 => u32::from(input.u16()),
                _ => input.u32(),
            };
            options.timestamps = Some(Timestamps { val, ecr: flow.timestamp });
        }
        if flags.syn() {
            options.mss = (which & 2 == 0).then_some(if which & 4 == 0 { 1460 } else { input.u16() });
            options.window_scale = (which & 8 == 0).then(|| input.u8() % 16);
            options.sack_permitted = which & 16 == 0;
            options.fast_open = if which & 32 == 32 { flow.cookie.or(Cookie::new(&[])) } else { None };
        } else if which & 2 == 2 {
            let mut sack = SackBlocks::default();
            for _ in 0..=(which >> 2 & 3) {
                let left = flow.end - u32::from(input.u16());
                sack.push(left, left + u32::from(input.u16()));
            }
            // Only three ranges fit beside timestamps.
            if sack.len() < 4 || options.timestamps.is_none() {
                options.sack = sack;
            }
        }
        options
    }

    /// Sends a SYN, takes the answer and sends the third segment, so that even short inputs reach an established
    /// connection.
    fn handshake(&mut self, input: &mut Input<'_>) {
        let flow = self.flow(input);
        let shape = input.u8();
        let syn = Header {
            seq: flow.ack,
            flags: Flags::SYN,
            window: 0xffff,
            options: Target::tcp_options(input, flow, Flags::SYN),
            ..Header::default()
        };
        self.arrive(&packets::segment(flow.remote, flow.local, syn, &[]), true, false);
        self.drain();
        let Some(flow) =
            self.flows.iter().find(|f| (f.local, f.remote) == (flow.local, flow.remote)).copied()
        else {
            return;
        };
        let timestamps = syn.options.timestamps.map(|ts| Timestamps { val: ts.val, ecr: flow.timestamp });
        let ack = Header {
            seq: flow.ack,
            ack: flow.end,
            flags: Flags::ACK,
            window: if shape & 1 == 0 { 0xffff } else { input.u16() },
            options: Options { timestamps, ..Options::default() },
            ..Header::default()
        };
        let payload: Vec<u8> = (0..u32::from(shape >> 1)).map(|i| byte_at(flow.ack + i)).collect();
        self.arrive(&packets::segment(flow.remote, flow.local, ack, &payload), true, false);
        if shape & 2 == 0 {
            self.accept();
        }
    }

    /// Lets the peer acknowledge everything, and perhaps send the next data or a FIN.
    fn follow(&mut self, input: &mut Input<'_>) {
        let flow = self.flow(input);
        let shape = input.u8();
        let timestamps = (shape & 1 == 0).then_some(Timestamps { val: 1000, ecr: flow.timestamp });
        let fin = if shape & 14 == 14 { Flags::FIN } else { Flags::default() };
        let header = Header {
            seq: flow.ack,
            ack: flow.end,
            flags: Flags::ACK | fin,
            window: 0xffff,
            options: Options { timestamps, ..Options::default() },
            ..Header::default()
        };
        let len = if shape & 16 == 0 { 0 } else { u32::from(input.u16()) % 2000 };
        let payload: Vec<u8> = (0..len).map(|i| byte_at(flow.ack + i)).collect();
        let packet = packets::segment(flow.remote, flow.local, header, &payload);
        self.arrive(&packet, true, shape & 32 == 32);
    }

    fn icmp(&mut self, input: &mut Input<'_>) {
        let flow = self.flow(input);
        let mtu = u32::from(input.u16());
        let kind = input.pick(&[
            ErrorKind::PacketTooBig { mtu },
            ErrorKind::HostUnreachable,
            ErrorKind::PortUnreachable,
            ErrorKind::ProtocolUnreachable,
            ErrorKind::AdminProhibited,
            ErrorKind::TimeExceeded,
            ErrorKind::ParameterProblem,
            ErrorKind::SourceQuench,
        ]);
        let behind = u32::from(input.u8());
        let seq = Target::near(input, flow.end - behind, 0);
        let header = Header { seq, ack: flow.ack, flags: Flags::ACK, ..Header::default() };
        let quoted = packets::segment(flow.local, flow.remote, header, &[]);
        let quoted = &quoted[..quoted.len().min(28 + usize::from(input.u8()))];
        if let Some(packet) = packets::icmp_error(flow.remote.ip(), flow.local.ip(), kind, quoted) {
            self.arrive(&packet, false, false);
        }
    }

    fn pass(&mut self, input: &mut Input<'_>) {
        let next = self.stack.poll_at();
        match input.u8() % 4 {
            // Only the next call of any kind tells the stack the time.
            0 => self.now += input.span(),
            1 => {
                self.now += input.span();
                self.watch.advance(&mut self.stack, self.now);
            }
            // Move to the next timer, or to the moment before it.
            turn => {
                if let Some(at) = next {
                    let at =
                        if turn == 2 { at } else { Instant::from_nanos(at.as_nanos().saturating_sub(1)) };
                    self.now = self.now.max(at);
                }
                self.watch.advance(&mut self.stack, self.now);
            }
        }
    }

    fn connect(&mut self, input: &mut Input<'_>) {
        let shape = input.u8();
        let remote =
            input.pick(&["10.0.0.2:9000", "[fd00::2]:9000", "10.0.0.3:9000", "10.0.0.1:80", "10.0.0.2:1000"]);
        let options = ConnectOptions {
            local_address: None,
            local_port: match shape & 3 {
                0 | 1 => None,
                2 => Some(40_001),
                _ => Some(80),
            },
            fast_open: shape & 4 == 4,
            socket: (shape & 8 == 8).then(|| {
                SocketOptions::new(self.stack.config()).with(|o| o.rcvbuf = input.u32() >> (shape >> 4))
            }),
        };
        if let Ok(id) = self.stack.connect(self.now, remote.parse().unwrap(), options) {
            // A connection within the stack reads what its other end wrote, which is no packet of this input.
            let own = self
                .stack
                .interface()
                .addresses
                .iter()
                .any(|(a, _)| remote.parse::<SocketAddr>().unwrap().ip() == *a);
            self.mangled |= own;
            self.sockets.push(Socket { id, written: 0, expect: None, listener: false });
        }
    }

    fn accept(&mut self) {
        let listeners: Vec<_> = self.sockets.iter().filter(|s| s.listener).map(|s| s.id).collect();
        for listener in listeners {
            while let Ok((id, _)) = self.stack.accept(listener) {
                self.sockets.push(Socket { id, written: 0, expect: None, listener: false });
            }
        }
    }

    fn socket(&self, input: &mut Input<'_>) -> Option<usize> {
        let n = usize::from(input.u8());
        (!self.sockets.is_empty()).then(|| n % self.sockets.len())
    }

    fn data(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.socket(input) else { return };
        let what = input.u8();
        let len = usize::from(input.u16() % 20_000);
        let mangled = self.mangled;
        let socket = &mut self.sockets[at];
        if what & 1 == 0 {
            let data: Vec<u8> = (0..len as u32).map(|i| pattern(socket.written + i)).collect();
            let sent = if what & 2 == 0 {
                self.stack.send(socket.id, &data)
            } else {
                self.stack.send_bytes(socket.id, &mut Bytes::from(data))
            };
            socket.written += sent.unwrap_or(0) as u32;
            return;
        }
        let mut buffer = vec![0; len];
        let peeked = if what & 2 == 0 { None } else { self.stack.peek(socket.id, &mut buffer.clone()).ok() };
        let got = self.stack.recv(socket.id, &mut buffer);
        assert!(peeked.is_none_or(|count| got == Ok(count)));
        for byte in &buffer[..got.unwrap_or(0)] {
            assert!(mangled || socket.expect.is_none_or(|e| e == *byte), "read what was not sent there");
            socket.expect = Some(byte.wrapping_add(1));
        }
        let _ = self.stack.readable(socket.id);
    }

    fn finish(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.socket(input) else { return };
        let id = self.sockets[at].id;
        match input.u8() % 6 {
            0 | 1 => drop(self.stack.shutdown(self.now, id, Shutdown::Write)),
            2 => drop(self.stack.shutdown(self.now, id, input.pick(&[Shutdown::Read, Shutdown::Both]))),
            what => {
                let ended =
                    if what == 5 { self.stack.abort(self.now, id) } else { self.stack.close(self.now, id) };
                assert_eq!(ended, Ok(()));
                assert_eq!(self.stack.close(self.now, id), Err(Error::NoSuchSocket));
                let gone = self.sockets.swap_remove(at);
                if gone.listener {
                    self.drain();
                    self.watch.forget();
                }
                if gone.listener && input.u8() & 1 == 0 {
                    let rcvbuf = 1 << (input.u8() % 31);
                    let socket = Some(SocketOptions::new(self.stack.config()).with(|o| o.rcvbuf = rcvbuf));
                    let options = ListenOptions { socket, ..ListenOptions::default() };
                    self.listen("0.0.0.0:80".parse().unwrap(), options);
                }
            }
        }
    }

    fn options(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.socket(input) else { return };
        let id = self.sockets[at].id;
        let mut options = SocketOptions::new(self.stack.config());
        let shape = input.u8();
        options.nodelay = shape & 1 == 1;
        options.keepalive = shape & 2 == 2;
        options.linger = (shape & 4 == 4).then_some(Duration::ZERO);
        options.user_timeout = Duration::from_millis(if shape & 8 == 8 { input.u16().into() } else { 0 });
        options.max_segment = (shape & 16 == 16).then(|| input.u16());
        if shape & 32 == 32 {
            (options.rcvbuf, options.sndbuf) = (input.u32() >> ((shape >> 6) * 4), u32::from(input.u16()));
        }
        let _ = self.stack.set_options(self.now, id, options);
        let _ = self.stack.take_error(id);
        let _ = self.stack.diagnose(self.now, Duration::ZERO);
    }

    fn end(&mut self) {
        self.blocked = false;
        self.accept();
        for socket in std::mem::take(&mut self.sockets) {
            assert_eq!(self.stack.close(self.now, socket.id), Ok(()));
        }
        self.watch.look(&mut self.stack, self.now);
        self.watch.expect_rest(&mut self.stack, self.now);
    }
}

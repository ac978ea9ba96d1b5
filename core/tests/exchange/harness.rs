//! One stack, a peer made of text, and a clock that the test moves.
//!
//! A segment is written as tcpdump would: flags, then what matters of it:
//!
//! ```text
//! S. seq 0 ack 1 win 10000 <mss 1460, sackOK, wscale 0>
//! P. seq 1:101 ack 51
//! ```
//!
//! Sequence numbers are relative: 0 is each side's SYN. Those of the peer begin just below 2^32, so that every
//! exchange wraps (THREAT-80). Every field of a segment from the stack is checked, but the window only where the
//! text states it. The payload follows a pattern by its place in the stream. A test that runs with timestamps adds and
//! checks them by itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use steadfast_core::counters::DropReason;
use steadfast_core::seq::SeqNum;
use steadfast_core::trace::State;
use steadfast_core::wire::icmp::{ErrorKind, Message};
use steadfast_core::wire::tcp::{self, Flags, Header, Timestamps};
use steadfast_core::wire::{Ecn, PROTOCOL_TCP, ipv4, ipv6};
use steadfast_core::{
    Config, ConnectOptions, Duration, Error, Event, Instant, Interface, ListenOptions, Shutdown, SocketId,
    SocketOptions, Stack,
};
use steadfast_testkit::packets;

use crate::text::Text;

mod steps;

/// Our port when we listen.
pub const PORT: u16 = 80;
/// The peer's port.
pub const PEER: u16 = 4000;
/// The receive buffer: no scaling, so that windows are what they are.
pub const BUFFER: u32 = 10_000;
/// The stack's MSS option, whatever the family.
pub const OUR_MSS: u16 = 1460;
/// Payload of a full segment towards the peer, whatever the options.
pub const FULL: u32 = 1000;

/// Runs a test over IPv4 and IPv6, with and without timestamps.
pub fn each(test: impl Fn(&mut Test)) {
    each_with(|_| {}, test);
}

/// As [`each`], with another configuration.
pub fn each_with(configure: impl Fn(&mut Config), test: impl Fn(&mut Test)) {
    for (v6, ts) in [(false, false), (false, true), (true, false), (true, true)] {
        println!("over {}, timestamps {ts}", if v6 { "IPv6" } else { "IPv4" });
        let mut t = Test::new(v6, ts, &configure);
        test(&mut t);
        t.finish();
    }
}

/// The state of a peer's end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub port: u16,
    /// Sequence number of its SYN.
    pub iss: SeqNum,
    /// The ISS of the stack, once its SYN was seen.
    pub irs: Option<SeqNum>,
    /// Offset of the stack's timestamps against its clock.
    ts_offset: Option<u32>,
    /// The last timestamp of the stack.
    pub ts_last: u32,
    /// Furthest right edge of the window that the stack announced, relative; the last one; and its scale.
    pub edge: u32,
    pub told: u32,
    scale: u8,
    queue: VecDeque<Got>,
}

/// A segment that the stack sent.
#[derive(Clone, Debug)]
pub struct Got {
    pub at: Instant,
    pub header: Header,
    pub payload: Vec<u8>,
    pub ttl: u8,
    pub dscp: u8,
    pub ecn: Ecn,
}

pub struct Test {
    pub stack: Stack,
    pub now: Instant,
    pub v6: bool,
    /// The peer speaks to an address of another host.
    pub foreign: bool,
    /// The peer speaks timestamps.
    pub ts: bool,
    peers: BTreeMap<u16, Peer>,
    current: u16,
    /// Our port of the connection.
    pub port: u16,
    /// ICMP payloads that the stack sent, with their destinations.
    pub icmp: VecDeque<(IpAddr, Vec<u8>)>,
    events: BTreeMap<SocketId, Event>,
    drops: BTreeMap<DropReason, u64>,
    /// The listener, and the socket of the connection.
    pub listener: Option<SocketId>,
    pub sock: SocketId,
    /// Where the connection stands, relative: SND.UNA, SND.NXT, RCV.NXT.
    pub una: u32,
    pub nxt: u32,
    pub rcv: u32,
    written: u32,
    read: u32,
    /// Window field of the peer's segments, where the text has none.
    pub win: u16,
    /// The peer's timestamp clock; also its last value.
    pub ts_val: u32,
}

/// The byte at `at` of any stream.
pub fn byte(at: u32) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 24) as u8
}

pub fn pattern(from: u32, len: u32) -> Vec<u8> {
    (0..len).map(|i| byte(from.wrapping_add(i))).collect()
}

impl Test {
    pub fn new(v6: bool, ts: bool, configure: impl Fn(&mut Config)) -> Test {
        // Loss probes would come before the timeouts of most tests. Those of `tail_loss` turn them on.
        let mut config =
            Config { tcp_rcvbuf: BUFFER, tcp_early_retrans: 0, secret: [7; 32], ..Config::default() };
        configure(&mut config);
        let addresses = [("10.0.0.2".parse().unwrap(), 24), ("fd00::2".parse().unwrap(), 64)];
        let mtu = if v6 { 1520 } else { 1500 };
        let mut t = Test {
            stack: Stack::new(config, Interface::new(mtu, addresses)),
            now: Instant::from_secs(10),
            v6,
            foreign: false,
            ts,
            peers: BTreeMap::new(),
            current: 0,
            port: PORT,
            icmp: VecDeque::new(),
            events: BTreeMap::new(),
            drops: BTreeMap::new(),
            listener: None,
            sock: SocketId::default(),
            una: 0,
            nxt: 0,
            rcv: 0,
            written: 0,
            read: 0,
            win: 65_535,
            ts_val: 1_000_000,
        };
        t.peer(PEER);
        t
    }

    /// From the start: the device cuts segments.
    pub fn offload(&mut self) {
        let mut interface = self.stack.interface().clone();
        interface.segmentation_offload = true;
        self.stack = Stack::new(self.stack.config().clone(), interface);
    }

    /// Another client, or the one before: everything that follows is about it.
    pub fn peer(&mut self, port: u16) {
        self.current = port;
        self.peers.entry(port).or_insert_with(|| Peer {
            port,
            iss: SeqNum(u32::MAX - 40),
            irs: None,
            ts_offset: None,
            ts_last: 0,
            edge: 0,
            told: 0,
            scale: 0,
            queue: VecDeque::new(),
        });
    }

    /// The same client begins again: a new ISS, nothing known.
    pub fn restart_peer(&mut self, ahead: i64) {
        let iss = self.cur().iss;
        let port = self.current;
        self.peers.remove(&port);
        self.peer(port);
        self.cur_mut().iss = SeqNum(iss.0.wrapping_add(ahead as u32));
        (self.written, self.read) = (0, 0);
    }

    pub fn cur(&self) -> &Peer {
        &self.peers[&self.current]
    }

    pub fn cur_mut(&mut self) -> &mut Peer {
        self.peers.get_mut(&self.current).unwrap()
    }

    pub fn ours(&self) -> IpAddr {
        let (v4, v6) = if self.foreign { ("198.51.100.9", "2001:db8::9") } else { ("10.0.0.2", "fd00::2") };
        if self.v6 { v6.parse().unwrap() } else { v4.parse().unwrap() }
    }

    pub fn theirs(&self) -> IpAddr {
        if self.v6 { "fd00::1".parse().unwrap() } else { "10.0.0.1".parse().unwrap() }
    }

    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.ours(), self.port)
    }

    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.theirs(), self.current)
    }

    // The peer's side.

    /// The peer sends a segment.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        let packet = self.packet(text);
        self.stack.receive(self.now, &packet[..]);
        self.pump();
    }

    /// The packet that [`send`](Test::send) would send.
    #[track_caller]
    pub fn packet(&mut self, text: &str) -> Vec<u8> {
        let (header, payload) = self.segment(text);
        let (source, destination) = (self.theirs(), self.ours());
        let ecn = if text.contains("[ce]") { Ecn::Ce } else { Ecn::NotEct };
        self.ip_packet(source, destination, &header, &payload, ecn)
    }

    /// TCP header and payload of a text, with absolute numbers.
    #[track_caller]
    pub fn segment(&mut self, text: &str) -> (Header, Vec<u8>) {
        let wanted = Text::parse(text);
        let peer = self.cur().clone();
        let mut options = wanted.options;
        if self.ts && !wanted.no_ts && options.timestamps.is_none() {
            self.ts_val = self.ts_val.max(1_000_000 + (self.now.as_millis() as u32));
            let ecr = if wanted.flags.ack() { peer.ts_last } else { 0 };
            options.timestamps = Some(Timestamps { val: self.ts_val, ecr });
        }
        if wanted.flags.syn() && options.mss.is_none() && !wanted.no_options {
            // A full segment is `FULL` with timestamps and without.
            options.mss = Some(FULL as u16 + if self.ts { 12 } else { 0 });
        }
        let header = Header {
            source_port: peer.port,
            destination_port: self.port,
            seq: peer.iss + wanted.seq,
            ack: wanted.ack.map_or(SeqNum(0), |ack| peer.irs.unwrap_or(SeqNum(0)) + ack),
            flags: wanted.flags,
            window: wanted.win.unwrap_or(self.win),
            urgent: wanted.urg,
            options: wanted.sack_from(options, peer.irs),
        };
        let payload = match wanted.bytes {
            Some(bytes) => bytes,
            None => pattern(wanted.first_byte(), wanted.len),
        };
        (header, payload)
    }

    /// An IP packet with a TCP segment, checksums filled in.
    pub fn ip_packet(
        &self,
        source: IpAddr,
        destination: IpAddr,
        header: &Header,
        payload: &[u8],
        ecn: Ecn,
    ) -> Vec<u8> {
        let ends = (source, header.source_port).into();
        packets::marked_segment(ends, (destination, header.destination_port).into(), *header, ecn, payload)
    }

    /// The next segment of the stack to this peer is `text`, and was sent just now.
    #[track_caller]
    pub fn recv(&mut self, text: &str) -> Got {
        self.pump();
        let now = self.now;
        let Some(got) = self.cur_mut().queue.pop_front() else { panic!("nothing sent; expected {text}") };
        let shown = self.show(&got);
        assert!(got.at == now, "sent {:?} ago: {shown}; expected {text}", now - got.at);
        let wanted = Text::parse(text);
        let peer = self.cur();
        let irs = peer.irs.unwrap_or(SeqNum(0));
        let header = &got.header;
        let expected_ack = if wanted.flags.ack() {
            wanted.ack.map(|ack| peer.iss + ack).expect("an ACK has a number")
        } else {
            SeqNum(0)
        };
        let mut options = wanted.options_to(peer.iss);
        options.timestamps = match wanted.options.timestamps {
            Some(timestamps) => Some(timestamps),
            None => header.options.timestamps.filter(|_| !wanted.no_ts),
        };
        // A FIN implies PSH (9293-j): a bare one may have it or not.
        let implied = Flags(if wanted.flags.fin() && wanted.len == 0 { Flags::PSH.0 } else { 0 });
        let problem = if header.flags | implied != wanted.flags | implied {
            "flags"
        } else if header.seq != wanted.seq_from(irs) {
            "seq"
        } else if header.ack != expected_ack {
            "ack"
        } else if wanted.win.is_some_and(|win| win != header.window) {
            "window"
        } else if header.options != options {
            "options"
        } else if header.urgent != wanted.urg {
            "urgent pointer"
        } else if got.payload.len() as u32 != wanted.len {
            "length"
        } else if got.payload != wanted.payload() {
            "payload"
        } else {
            self.check_timestamps(&got, &wanted.options.timestamps, wanted.no_ts, &shown);
            return got;
        };
        panic!("wrong {problem}\n     sent: {shown}\n expected: {text}");
    }

    /// Timestamps are there exactly when they were agreed on; their clock is that of the stack with an offset.
    #[track_caller]
    fn check_timestamps(&mut self, got: &Got, stated: &Option<Timestamps>, none: bool, shown: &str) {
        if stated.is_some() {
            return;
        }
        let header = &got.header;
        let syn_of_ours = header.flags.syn() && !header.flags.ack();
        let expected = if syn_of_ours { self.stack.config().tcp_timestamps } else { self.ts } && !none;
        assert_eq!(header.options.timestamps.is_some(), expected, "timestamps: {shown}");
        let Some(timestamps) = header.options.timestamps else { return };
        let now = got.at.as_millis() as u32;
        let (highest, bare) = (self.ts_val, header.flags.rst());
        let cookies = self.stack.counters().syncookies_sent > 0;
        let peer = self.cur_mut();
        if !bare && !cookies {
            let offset = timestamps.val.wrapping_sub(now);
            let known = *peer.ts_offset.get_or_insert(offset);
            assert_eq!(known, offset, "the timestamp clock jumped: {shown}");
        }
        if !bare {
            peer.ts_last = timestamps.val;
        }
        let ecr = timestamps.ecr;
        assert!(ecr <= highest && (syn_of_ours == (ecr == 0)), "an echo of nothing: {shown}");
    }

    /// The stack sends nothing to this peer now.
    #[track_caller]
    pub fn recv_nothing(&mut self) {
        self.pump();
        if let Some(got) = self.cur_mut().queue.pop_front() {
            panic!("sent: {}; expected nothing", self.show(&got));
        }
    }

    /// Nothing happens for `millis`, and then the segment comes.
    #[track_caller]
    pub fn recv_after(&mut self, millis: u64, text: &str) -> Got {
        if millis > 0 {
            self.wait(millis - 1);
            self.recv_nothing();
            self.wait(1);
        }
        self.recv(text)
    }

    /// The next segment to this peer, whatever it is.
    pub fn recv_any(&mut self) -> Option<Got> {
        self.pump();
        self.cur_mut().queue.pop_front()
    }

    /// How many segments wait for this peer; they are thrown away.
    pub fn drain(&mut self) -> usize {
        self.pump();
        std::mem::take(&mut self.cur_mut().queue).len()
    }

    fn show(&self, got: &Got) -> String {
        let peer = self.cur();
        let mut header = got.header;
        header.seq = SeqNum(header.seq.since(peer.irs.unwrap_or(SeqNum(0))));
        if header.flags.ack() {
            header.ack = SeqNum(header.ack.since(peer.iss));
        }
        header.tcpdump(got.payload.len()).to_string()
    }

    /// Lets the stack send what it has.
    #[track_caller]
    pub fn pump(&mut self) {
        let mut frame = vec![0; 65_535];
        let mut count = 0;
        while let Some(transmit) = self.stack.transmit(self.now, &mut frame) {
            let packet = frame[..transmit.len].to_vec();
            self.take_packet(&packet);
            count += 1;
            assert!(count < 100_000, "it never stops sending");
        }
        while let Some((id, event)) = self.stack.poll_event() {
            *self.events.entry(id).or_default() |= event;
        }
        if self.stack.usage().connections <= 8 {
            assert_eq!(self.stack.check_consistent(), Ok(()));
            self.check_readiness();
        }
    }

    /// Compares the readiness of the socket with what its calls do on a copy of the stack.
    #[track_caller]
    fn check_readiness(&self) {
        let Ok(readiness) = self.stack.readiness(self.sock) else { return };
        if self.stack.usage().held > 64 << 10 {
            // A copy of long queues takes long.
            return;
        }
        let mut copy = self.stack.clone();
        let write = copy.send(self.sock, b"x");
        let read = copy.recv(self.sock, &mut [0]);
        assert_eq!(readiness.readable, read != Err(Error::WouldBlock), "{readiness:?} {read:?}");
        // A write may lack memory.
        let scarce = self.stack.usage().held >= self.stack.config().tcp_mem / 2;
        assert!(scarce || readiness.writable == (write != Err(Error::WouldBlock)), "{readiness:?} {write:?}");
        let errors = [write, read].into_iter().filter_map(Result::err);
        let failed = errors.into_iter().any(|error| !matches!(error, Error::WouldBlock | Error::BrokenPipe));
        assert_eq!(readiness.error, failed && self.stack.state(self.sock) == Ok(State::Closed));
    }

    /// The peer gets a packet of the stack.
    #[track_caller]
    pub fn take_packet(&mut self, packet: &[u8]) {
        let (source, destination, protocol, payload, ttl, dscp, ecn) = if packet[0] >> 4 == 4 {
            let (h, payload) = ipv4::parse(packet).expect("a sound IPv4 header");
            assert!(h.dont_fragment && !h.more_fragments, "DF is set (1191-1)");
            let ends = (IpAddr::V4(h.source), IpAddr::V4(h.destination));
            (ends.0, ends.1, h.protocol, payload, h.ttl, h.dscp, h.ecn)
        } else {
            let (h, payload) = ipv6::parse(packet).expect("a sound IPv6 header");
            assert!(h.fragment.is_none(), "TCP is never fragmented (8200-2)");
            let ends = (IpAddr::V6(h.source), IpAddr::V6(h.destination));
            (ends.0, ends.1, h.protocol, payload, h.hop_limit, h.dscp, h.ecn)
        };
        if protocol != PROTOCOL_TCP {
            self.icmp.push_back((destination, payload.to_vec()));
            return;
        }
        assert!(tcp::checksum_ok(source, destination, payload), "a right checksum (MUST-2)");
        let reserved = payload[12] & 0x0e;
        assert_eq!(reserved, 0, "reserved bits are zero (9293-l)");
        let (header, data) = Header::parse(payload).expect("a sound TCP header");
        assert_eq!((source, destination), (self.ours(), self.theirs()), "1122-4");
        let got = Got { at: self.now, header, payload: data.to_vec(), ttl, dscp, ecn };
        let peer = self.peers.get_mut(&header.destination_port).expect("a peer with this port");
        if header.flags.syn() {
            peer.irs = Some(header.seq);
            peer.scale = header.options.window_scale.unwrap_or(0);
        }
        if header.flags.ack() && !header.flags.rst() {
            let shift = if header.flags.syn() { 0 } else { peer.scale };
            let edge = (header.ack + (u32::from(header.window) << shift)).since(peer.iss);
            // A scaled field says an edge less than a unit further left (RFC 7323 §2.4). The earlier edge still holds.
            assert!(
                edge + (1 << shift) > peer.edge || header.flags.syn(),
                "the right edge moves back (9293-h): {header:?}"
            );
            (peer.edge, peer.told) = (edge.max(peer.edge), edge);
        }
        peer.queue.push_back(got);
    }

    // Time.

    /// Time passes; every timer runs when it is due.
    #[track_caller]
    pub fn wait(&mut self, millis: u64) {
        self.pump();
        let until = self.now + Duration::from_millis(millis);
        let mut steps = 0;
        while let Some(at) = self.stack.poll_at().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.stack.advance(self.now);
            self.pump();
            steps += 1;
            assert!(steps < 100_000, "poll_at never moves on");
        }
        self.now = until;
        self.stack.advance(until);
        self.pump();
    }

    /// Everything that the stack sent was looked at; and when all sockets are given back and time passes, nothing
    /// is left in any table (invariant 2).
    #[track_caller]
    fn finish(&mut self) {
        self.pump();
        let ports: Vec<u16> = self.peers.keys().copied().collect();
        for port in ports {
            self.peer(port);
            self.recv_nothing();
        }
        let mut all: Vec<_> = self.stack.sockets(self.now).iter().filter_map(|s| s.socket).collect();
        all.push(self.sock);
        for id in all {
            let _ = self.stack.abort(self.now, id);
        }
        self.wait(2_000_000);
        let usage = self.stack.usage();
        let left = (usage.half_open, usage.opening, usage.connections, usage.orphans, usage.time_wait);
        assert_eq!(left, (0, 0, 0, 0, 0), "{usage:?}");
        let rest = (usage.timers, usage.buffered, usage.fragments, usage.fragment_bytes, usage.replies);
        assert_eq!(rest, (0, 0, 0, 0, 0), "{usage:?}");
        assert!(self.stack.poll_at().is_none(), "nothing is left to wait for");
    }
}

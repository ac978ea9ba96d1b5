//! No packet is longer than its frame, the MTU of its interface or 65,535 bytes, whatever a peer advertises and sends.

use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use steadfast_core::config::{FastOpenMode, MtuProbing};
use steadfast_core::seq::SeqNum;
use steadfast_core::wire::icmp::{self, ErrorKind, Message};
use steadfast_core::wire::tcp::{Cookie, Flags, Header, OptionLayout, Options, SackBlocks, Timestamps};
use steadfast_core::wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6};
use steadfast_core::{
    Config, ConnectOptions, Duration, Instant, Interface, ListenOptions, SocketId, SocketOptions, Stack,
};
use steadfast_testkit::packets::{self, Sent};

#[derive(Clone, Debug)]
struct Case {
    v6: bool,
    mtu: u16,
    /// The device segments packets.
    offload: bool,
    /// Bytes of the frames in excess of the required length.
    spare: usize,
    peer: Options,
    probing: bool,
    layout: OptionLayout,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Write(u16),
    /// The peer sends bytes beyond a gap, so that there are SACK blocks to report.
    Beyond(u16, u8),
    /// Bytes received before: a D-SACK.
    Again(u8),
    InOrder(u16),
    /// The peer acknowledges this part of the data in flight, in 256ths.
    Ack(u8),
    /// Its SACK blocks begin and end anywhere in the data in flight, in 65,536ths.
    Sack([(u16, u16); 4]),
    TooBig(u16),
    Echo(u16),
    /// A datagram of an unknown protocol.
    Unknown(u16),
    Wait(u16),
    Read,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<u16>().prop_map(Step::Write),
        3 => (any::<u16>(), 1u8..).prop_map(|(at, len)| Step::Beyond(at % 400, len)),
        1 => (1u8..).prop_map(Step::Again),
        1 => (1u16..3000).prop_map(Step::InOrder),
        3 => any::<u8>().prop_map(Step::Ack),
        3 => any::<[(u16, u16); 4]>().prop_map(Step::Sack),
        1 => any::<u16>().prop_map(Step::TooBig),
        1 => any::<u16>().prop_map(Step::Echo),
        1 => any::<u16>().prop_map(Step::Unknown),
        2 => any::<u16>().prop_map(Step::Wait),
        1 => Just(Step::Read),
    ]
}

fn sizes(least: u16) -> impl Strategy<Value = u16> {
    prop_oneof![least..=least + 32, least..=u16::MAX, 65_400..=u16::MAX, Just(1500)]
}

fn cases() -> impl Strategy<Value = Case> {
    let interface = any::<bool>().prop_flat_map(|v6| (Just(v6), sizes(if v6 { 1280 } else { 68 })));
    let peer = (sizes(1), any::<[bool; 3]>(), vec(any::<u8>(), 0..=16), 0u8..=14);
    let device = (any::<bool>(), prop_oneof![3 => Just(0), 1 => 0usize..200]);
    (interface, peer, device, any::<[bool; 2]>(), vec(steps(), 1..40)).prop_map(
        |(
            (v6, mtu),
            (mss, [ts, sack, has_mss], cookie, scale),
            (offload, spare),
            [probing, freebsd],
            steps,
        )| {
            let peer = Options {
                mss: has_mss.then_some(mss),
                window_scale: Some(scale),
                sack_permitted: sack,
                timestamps: ts.then_some(Timestamps { val: 1, ecr: 0 }),
                fast_open: Cookie::new(&cookie),
                ..Options::default()
            };
            let layout = if freebsd { OptionLayout::FreeBsd } else { OptionLayout::Linux };
            Case { v6, mtu, offload, spare, peer, probing, layout, steps }
        },
    )
}

/// A stack and a peer that sends anything.
struct Game {
    case: Case,
    stack: Stack,
    now: Instant,
    frame: Vec<u8>,
    local: SocketAddr,
    remote: SocketAddr,
    socket: Option<SocketId>,
    /// The peer's next sequence number, the number that it acknowledged, and the end of the data that it got.
    seq: SeqNum,
    una: SeqNum,
    end: SeqNum,
    ts_val: u32,
    ts_ecr: u32,
    cookie: Option<Cookie>,
}

impl Game {
    fn new(case: Case) -> Game {
        let (local, remote) =
            if case.v6 { ("[fd00::1]:80", "[fd00::2]:4000") } else { ("10.0.0.1:80", "10.0.0.2:4000") };
        let (local, remote): (SocketAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
        let mut interface = Interface::new(case.mtu, [(local.ip(), 8)]);
        (interface.segmentation_offload, interface.checksum_offload) = (case.offload, case.offload);
        let config = Config {
            secret: [3; 32],
            tcp_fastopen: FastOpenMode::BOTH,
            tcp_option_layout: case.layout,
            tcp_mtu_probing: if case.probing { MtuProbing::Always } else { MtuProbing::BlackHole },
            min_pmtu: 68,
            tcp_base_mss: 48,
            tcp_notsent_lowat: u32::MAX,
            ..Config::default()
        };
        let frame = vec![0xa5; interface.frame_len() + case.spare];
        Game {
            stack: Stack::new(config, interface),
            now: Instant::from_secs(1),
            frame,
            local,
            remote,
            socket: None,
            seq: SeqNum(u32::MAX - 2000),
            una: SeqNum(0),
            end: SeqNum(0),
            ts_val: 1,
            ts_ecr: 0,
            cookie: None,
            case,
        }
    }

    /// Takes all packets that the stack sends, and checks every bound.
    fn drain(&mut self) -> Vec<Header> {
        let mut sent = Vec::new();
        loop {
            // Every other frame has exactly the required length.
            let spare = if sent.len().is_multiple_of(2) { self.case.spare } else { 0 };
            let len = self.stack.interface().frame_len() + spare;
            let frame = &mut self.frame[..len];
            frame.fill(0xa5);
            let Some(transmit) = self.stack.transmit(self.now, frame) else { break };
            assert!(sent.len() < 20_000, "transmit never ends");
            let packet = &self.frame[..transmit.len];
            let mtu = usize::from(self.case.mtu);
            assert!(packet.len() <= 65_535, "{} bytes", packet.len());
            let longest = if transmit.segment_size.is_some() { 65_535 } else { mtu };
            assert!(packet.len() <= longest, "{} bytes, MTU {mtu}, {transmit:?}", packet.len());
            let Sent::Tcp { header, payload, .. } = packets::read(packet, transmit.checksum_offload) else {
                continue;
            };
            let headers = packet.len() - payload.len();
            let piece = transmit.segment_size.map_or(payload.len(), usize::from);
            assert!(headers + piece <= mtu, "{headers} + {piece} bytes, MTU {mtu}");
            if !payload.is_empty() && !header.flags.syn() {
                // MUST-16, THREAT-16: the MSS counts options; below 48 it is taken for 48.
                let mss = self.case.peer.mss.unwrap_or(if self.case.v6 { 1220 } else { 536 }).max(48);
                let taken = header.header_len() - 20 + piece;
                assert!(taken <= usize::from(mss), "{taken} bytes for an MSS of {mss}: {header:?}");
            }
            if (header.source_port, header.destination_port) == (self.local.port(), self.remote.port()) {
                let control = u32::from(header.flags.syn()) + u32::from(header.flags.fin());
                let end = header.seq + payload.len() as u32 + control;
                self.end = if header.flags.syn() { end } else { self.end.max(end) };
                self.ts_ecr = header.options.timestamps.map_or(self.ts_ecr, |ts| ts.val);
                self.cookie = header.options.fast_open.or(self.cookie);
            }
            sent.push(header);
        }
        sent
    }

    fn peer_sends(&mut self, flags: Flags, at: SeqNum, options: Options, payload: &[u8]) {
        let timestamps = self.case.peer.timestamps.map(|_| Timestamps { val: self.ts_val, ecr: self.ts_ecr });
        let window = 0xffff;
        let options = Options { timestamps, ..options };
        let header = Header { seq: at, ack: self.una, flags, window, options, ..Header::default() };
        let packet = packets::segment(self.remote, self.local, header, payload);
        self.stack.receive(self.now, &packet[..]);
    }

    /// A SYN, with data if there is a cookie, and the third segment.
    fn open_passively(&mut self) {
        let options = ListenOptions { fast_open: true, ..ListenOptions::default() };
        let listener = self.stack.listen(self.local, options).unwrap();
        for fast_open in [Cookie::new(&[]), None] {
            self.remote.set_port(self.remote.port() + 1);
            let options = Options { fast_open: fast_open.or(self.cookie), ..self.case.peer };
            let payload: &[u8] = if fast_open.is_none() && self.cookie.is_some() { b"request" } else { b"" };
            self.peer_sends(Flags::SYN, self.seq, options, payload);
            let syn_ack = self.drain().into_iter().find(|header| header.flags.syn()).expect("a SYN-ACK");
            self.seq = syn_ack.ack;
            self.una = self.end;
            self.peer_sends(Flags::ACK, self.seq, Options::default(), b"");
            self.drain();
            self.socket = Some(self.stack.accept(listener).expect("a connection").0);
        }
    }

    /// Two connects: the first learns a cookie, the second sends data on its SYN.
    fn open_actively(&mut self) {
        for data in [0, 4000] {
            self.now += Duration::from_secs(1);
            let options = ConnectOptions {
                fast_open: true,
                socket: Some(SocketOptions::new(self.stack.config()).with(|o| o.nodelay = true)),
                ..ConnectOptions::default()
            };
            let id = self.stack.connect(self.now, self.remote, options).unwrap();
            self.stack.send(id, &vec![1; data]).unwrap();
            self.local = self.stack.local_addr(id).unwrap();
            let syn = self.drain().into_iter().find(|header| header.flags.syn()).expect("a SYN");
            self.una = syn.seq + 1;
            self.peer_sends(Flags::SYN | Flags::ACK, self.seq, self.case.peer, b"");
            self.seq += 1;
            self.end = self.una;
            self.drain();
            self.socket = Some(id);
        }
    }

    fn ip(&mut self, protocol: u8, body: &[u8]) {
        let packet = packets::ip(self.remote.ip(), self.local.ip(), protocol, body);
        self.stack.receive(self.now, &packet[..]);
    }

    fn step(&mut self, step: &Step) {
        self.now += Duration::from_millis(1);
        self.ts_val += 1;
        let in_flight = self.end.since(self.una);
        let id = self.socket.expect("a connection");
        match *step {
            Step::Write(len) => drop(self.stack.send(id, &vec![7; usize::from(len) * 8])),
            Step::Beyond(at, len) => {
                let at = self.seq + 1 + u32::from(at) * 300;
                self.peer_sends(Flags::ACK, at, Options::default(), &vec![1; len.into()]);
            }
            Step::Again(len) => {
                let at = self.seq - u32::from(len);
                self.peer_sends(Flags::ACK, at, Options::default(), &vec![1; len.into()]);
            }
            Step::InOrder(len) => {
                self.peer_sends(Flags::ACK, self.seq, Options::default(), &vec![1; len.into()]);
                self.seq += u32::from(len);
            }
            Step::Ack(part) => {
                self.una += (u64::from(in_flight) * u64::from(part) / 255) as u32;
                self.peer_sends(Flags::ACK, self.seq, Options::default(), b"");
            }
            Step::Sack(blocks) => {
                let mut sack = SackBlocks::new();
                let most = if self.case.peer.timestamps.is_some() { 3 } else { 4 };
                for (from, to) in &blocks[..most] {
                    let at = |part: u16| self.una + ((u64::from(in_flight) * u64::from(part)) >> 16) as u32;
                    sack.push(at(*from.min(to)), at(*from.max(to)) + 1);
                }
                let options = Options { sack, ..Options::default() };
                self.peer_sends(Flags::ACK, self.seq, options, b"");
            }
            Step::TooBig(mtu) => {
                let header = Header { seq: self.una, flags: Flags::ACK, ..Header::default() };
                let quoted = packets::segment(self.local, self.remote, header, b"");
                let kind = ErrorKind::PacketTooBig { mtu: mtu.into() };
                let error = packets::icmp_error(self.remote.ip(), self.local.ip(), kind, &quoted).unwrap();
                self.stack.receive(self.now, &error[..]);
            }
            Step::Echo(len) => {
                let data = vec![1; usize::from(len).min(65_400)];
                let message = Message::EchoRequest { ident: 1, sequence: 2, data: &data };
                let mut body = vec![0; data.len() + icmp::HEADER_LEN];
                match (self.remote.ip(), self.local.ip()) {
                    (IpAddr::V6(source), IpAddr::V6(destination)) => {
                        icmp::emit_v6(source, destination, &message, &mut body).unwrap();
                        self.ip(PROTOCOL_ICMPV6, &body);
                    }
                    _ => {
                        icmp::emit_v4(&message, &mut body).unwrap();
                        self.ip(PROTOCOL_ICMP, &body);
                    }
                }
            }
            Step::Unknown(len) => self.ip(PROTOCOL_SCTP, &vec![0; usize::from(len).clamp(8, 65_400)]),
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms.into());
                self.stack.advance(self.now);
            }
            Step::Read => drop(self.stack.recv(id, &mut [0; 4096])),
        }
        self.drain();
    }
}

fn play(case: Case, passive: bool) {
    let steps = case.steps.clone();
    let mut game = Game::new(case);
    if passive {
        game.open_passively()
    } else {
        game.open_actively()
    }
    for step in &steps {
        game.step(step);
    }
}

proptest! {
    #[test]
    fn no_packet_is_longer_than_its_frame_its_mtu_or_its_peer_s_mss(case in cases(), passive: bool) {
        play(case, passive);
    }
}

fn case(v6: bool, mtu: u16, mss: u16, steps: Vec<Step>) -> Case {
    let peer = Options {
        mss: Some(mss),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { val: 1, ecr: 0 }),
        fast_open: Cookie::new(&[9; 16]),
        ..Options::default()
    };
    Case { v6, mtu, offload: false, spare: 0, peer, probing: false, layout: OptionLayout::Linux, steps }
}

/// A protocol that the stack does not have.
const PROTOCOL_SCTP: u8 = 132;
const HOLES: [Step; 3] = [Step::Beyond(1, 1), Step::Beyond(3, 1), Step::Beyond(5, 1)];

/// Three holes in the peer's data, and more data than a super-segment holds. It is shortened by the length of its own
/// headers and blocks, for IPv6 as for IPv4.
#[test]
fn a_super_segment_leaves_room_for_its_own_headers() {
    for v6 in [false, true] {
        for mss in (1200..1300).step_by(3) {
            let mut steps = Vec::new();
            for _ in 0..40 {
                steps.extend([Step::Write(u16::MAX), Step::Ack(255)]);
                steps.extend(HOLES);
            }
            play(Case { offload: true, ..case(v6, 1500, mss, steps) }, true);
        }
    }
}

/// MTUs from the smallest that IPv4 allows: an ACK has as many blocks as fit, and at least one (RFC 2018 §3).
#[test]
fn an_ack_has_as_many_blocks_as_the_mtu_has_room_for() {
    for (mtu, blocks) in [(68, 1), (71, 1), (72, 2), (79, 2), (80, 3), (1500, 3)] {
        let mut game = Game::new(case(false, mtu, 1460, Vec::new()));
        game.open_passively();
        game.step(&HOLES[0]);
        game.step(&HOLES[1]);
        game.peer_sends(Flags::ACK, game.seq + 1501, Options::default(), b"1");
        let sent = game.drain();
        let [ack] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(ack.options.sack.len(), blocks, "MTU {mtu}");
    }
}

/// The longest SYN-ACK has 32 bytes of options, the longest SYN 40. Where they do not fit, the cookie is left out.
#[test]
fn a_cookie_goes_only_where_the_mtu_has_room_for_it() {
    for (mtu, fits) in [(68, false), (71, false), (72, true)] {
        let mut game = Game::new(case(false, mtu, 1460, Vec::new()));
        game.open_passively();
        assert_eq!(game.cookie.is_some(), fits, "MTU {mtu}");
    }
    for (mtu, data) in [(68, 0), (79, 0), (80, 0), (81, 1), (84, 4)] {
        let mut game = Game::new(case(false, mtu, 1460, Vec::new()));
        game.open_actively();
        let active =
            game.stack.counters().tcp_fast_open_active + game.stack.counters().tcp_fast_open_active_fail;
        assert_eq!(active > 0, data > 0, "MTU {mtu}");
    }
}

/// RFC 792: an error quotes as much as fits into the MTU, and a longer echo is not answered.
#[test]
fn an_icmp_message_is_no_longer_than_the_mtu() {
    for (mtu, echo, answers) in [(68, 40, 2), (68, 41, 1), (575, 547, 2), (575, 548, 1)] {
        let mut game = Game::new(case(false, mtu, 1460, Vec::new()));
        game.open_passively();
        let before = game.stack.counters().icmp_out_msgs;
        game.step(&Step::Unknown(1000));
        game.step(&Step::Echo(echo));
        assert_eq!(game.stack.counters().icmp_out_msgs - before, answers, "MTU {mtu}, {echo} bytes of echo");
    }
}

/// Consecutive full segments copy the headers of the first; the frames differ in length.
#[test]
fn the_least_mtu_needs_no_more_than_its_frame() {
    for spare in [0, 3, 4, 50] {
        for mtu in 68..=72 {
            let steps = vec![Step::Write(1000), Step::Ack(255), Step::Write(1000), Step::Ack(255)];
            play(Case { spare, ..case(false, mtu, 1460, steps) }, true);
        }
    }
}

/// An interface of 65,535 bytes, searched from end to end by probes with SACK blocks.
#[test]
fn the_search_for_a_path_mtu_ends_at_the_largest_there_is() {
    for v6 in [false, true] {
        let mut game = Game::new(Case { probing: true, ..case(v6, u16::MAX, u16::MAX, Vec::new()) });
        // A router reports a small path MTU to the first connection; the next one begins there.
        game.open_actively();
        game.step(&Step::Write(20_000));
        game.step(&Step::TooBig(1300));
        game.open_actively();
        let pmtu = |game: &Game| game.stack.info(game.now, game.socket.unwrap()).unwrap().pmtu;
        assert_eq!(pmtu(&game), 1300);
        for _ in 0..400 {
            HOLES.iter().for_each(|step| game.step(step));
            for step in [Step::Write(u16::MAX), Step::Ack(255), Step::Wait(10)] {
                game.step(&step);
            }
        }
        assert!(pmtu(&game) > 65_500, "{}", pmtu(&game));
    }
}

/// MUST-16, THREAT-16: the peer's MSS is respected. Below 48, where options alone may need as much, it counts as 48.
#[test]
fn the_smallest_mss_divides_nothing_by_zero_and_is_not_overrun() {
    for mss in [0, 1, 47, 48, 49, 100, 215, 216] {
        for v6 in [false, true] {
            for offload in [false, true] {
                let steps =
                    [&[Step::Write(3000)], &HOLES[..], &[Step::Write(10), Step::Ack(255), Step::Write(9)]];
                play(Case { offload, ..case(v6, 1500, mss, steps.concat()) }, true);
            }
        }
    }
}

/// A frame that might be too short is a mistake of the caller, and not taken for silence; one byte more will do.
#[test]
fn a_frame_shorter_than_any_packet_may_be_is_refused() {
    for offload in [false, true] {
        let mut interface = Interface::new(1500, [("10.0.0.1".parse().unwrap(), 24)]);
        interface.segmentation_offload = offload;
        let mut stack = Stack::new(Config::default(), interface);
        let len = stack.interface().frame_len();
        let mut frame = vec![0; len];
        assert_eq!(stack.transmit(Instant::ZERO, &mut frame[..len - 1]), None, "nothing to send");
        assert!(!stack.wants_transmit());
        stack.connect(Instant::ZERO, "10.0.0.2:80".parse().unwrap(), ConnectOptions::default()).unwrap();
        assert!(stack.wants_transmit());
        let mut clone = stack.clone();
        let short = std::panic::AssertUnwindSafe(|| clone.transmit(Instant::ZERO, &mut frame[..len - 1]));
        std::panic::catch_unwind(short).unwrap_err();
        assert!(stack.transmit(Instant::ZERO, &mut vec![0; len]).is_some());
    }
}

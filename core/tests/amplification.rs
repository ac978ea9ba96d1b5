//! Bounds of amplification (THREAT-3, THREAT-4): an unsolicited packet triggers at most one packet, of at most 60 bytes
//! or of its own length. Over both IP versions, in every state of a 4-tuple, for every kind of segment that a stranger
//! can send, and for datagrams of other protocols.

use std::net::IpAddr;

use steadfast_core::config::SynCookies;
use steadfast_core::seq::SeqNum;
use steadfast_core::wire::icmp::{self, Message};
use steadfast_core::wire::tcp::{Cookie, Flags, Header, Options, Timestamps};
use steadfast_core::wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, ipv4, ipv6};
use steadfast_core::{
    Config, ConnectOptions, Duration, Instant, Interface, ListenOptions, Shutdown, SocketId, Stack,
};
use steadfast_testkit::packets;

/// An IPv4 header and a TCP header with timestamps and a little more.
const SHORT: usize = 60;
/// IPv6 headers are 20 bytes longer.
const SHORT_V6: usize = 80;

const SERVER: u16 = 80;
const CLIENT: u16 = 4000;

/// A stack with one peer that obeys the protocol until the connection is in the wanted state.
struct World {
    stack: Stack,
    now: Instant,
    v6: bool,
    ours: IpAddr,
    theirs: IpAddr,
    /// The sequence and acknowledgment numbers of the peer's next segment.
    seq: SeqNum,
    ack: SeqNum,
    timestamps: bool,
}

/// The state of the 4-tuple of the stranger's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Nothing,
    Listener,
    Cookies,
    HalfOpen,
    SynSent,
    Established,
    /// With a hole in the received data, so that ACKs carry SACK blocks.
    Hole,
    ZeroWindow,
    FinWait1,
    FinWait2,
    Orphan,
    CloseWait,
    LastAck,
    TimeWait,
}

const ALL: [Holds; 14] = [
    Holds::Nothing,
    Holds::Listener,
    Holds::Cookies,
    Holds::HalfOpen,
    Holds::SynSent,
    Holds::Established,
    Holds::Hole,
    Holds::ZeroWindow,
    Holds::FinWait1,
    Holds::FinWait2,
    Holds::Orphan,
    Holds::CloseWait,
    Holds::LastAck,
    Holds::TimeWait,
];

impl World {
    fn new(v6: bool, timestamps: bool, configure: impl Fn(&mut Config)) -> World {
        let mut config = Config { secret: [3; 32], ..Config::default() };
        configure(&mut config);
        let (ours, theirs): (IpAddr, IpAddr) = if v6 {
            ("fd00::2".parse().unwrap(), "fd00::1".parse().unwrap())
        } else {
            ("10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap())
        };
        let interface = Interface::new(1500, [(ours, if v6 { 64 } else { 24 })]);
        let (stack, now) = (Stack::new(config, interface), Instant::from_secs(1000));
        World { stack, now, v6, ours, theirs, seq: SeqNum(7000), ack: SeqNum(0), timestamps }
    }

    fn short(&self) -> usize {
        if self.v6 { SHORT_V6 } else { SHORT }
    }

    fn segment(&self, header: &Header, payload: &[u8]) -> Vec<u8> {
        let ends = ((self.theirs, header.source_port).into(), (self.ours, header.destination_port).into());
        packets::segment(ends.0, ends.1, *header, payload)
    }

    fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        packets::ip(self.theirs, self.ours, protocol, payload)
    }

    /// Returns all packets that the stack sends now.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut frame = [0; 1500];
        let mut sent = Vec::new();
        while let Some(transmit) = self.stack.transmit(self.now, &mut frame) {
            sent.push(frame[..transmit.len].to_vec());
        }
        sent
    }

    /// Sends a segment of the peer at its next sequence number, and handles the reply.
    fn send(&mut self, flags: Flags, payload: &[u8]) {
        self.send_at(self.seq, flags, payload);
        self.seq += payload.len() as u32 + u32::from(flags.syn()) + u32::from(flags.fin());
    }

    fn send_at(&mut self, seq: SeqNum, flags: Flags, payload: &[u8]) {
        let mut options = Options::default();
        if flags.syn() {
            (options.mss, options.window_scale, options.sack_permitted) = (Some(1460), Some(7), true);
        }
        options.timestamps = self.timestamps.then(|| Timestamps { val: self.now.as_millis() as u32, ecr: 0 });
        let ack = if flags.ack() { self.ack } else { SeqNum(0) };
        let header = self.header(CLIENT, seq, ack, flags, 1000, options);
        let packet = self.segment(&header, payload);
        self.stack.receive(self.now, &packet[..]);
        for packet in self.sent() {
            let (header, payload) = self.read(&packet);
            let syn_fin = u32::from(header.flags.syn()) + u32::from(header.flags.fin());
            self.ack = header.seq + payload + syn_fin;
        }
    }

    fn read(&self, packet: &[u8]) -> (Header, u32) {
        let segment = &packet[if self.v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN }..];
        let (header, payload) = Header::parse(segment).expect("a TCP segment");
        (header, payload.len() as u32)
    }

    fn header(
        &self,
        port: u16,
        seq: SeqNum,
        ack: SeqNum,
        flags: Flags,
        window: u16,
        options: Options,
    ) -> Header {
        Header {
            source_port: port,
            destination_port: SERVER,
            seq,
            ack,
            flags,
            window,
            options,
            ..Header::default()
        }
    }

    /// Brings the 4-tuple into the wanted state.
    fn reach(v6: bool, timestamps: bool, holds: Holds) -> World {
        let cookies = |config: &mut Config| {
            if holds == Holds::Cookies {
                config.tcp_syncookies = SynCookies::Always;
            }
        };
        let mut w = World::new(v6, timestamps, cookies);
        if holds == Holds::Nothing {
            return w;
        }
        if holds == Holds::SynSent {
            let options = ConnectOptions { local_port: Some(SERVER), ..ConnectOptions::default() };
            w.stack.connect(w.now, (w.theirs, CLIENT).into(), options).unwrap();
            w.sent();
            return w;
        }
        let listener = w.stack.listen((w.ours, SERVER).into(), ListenOptions::default()).unwrap();
        if holds == Holds::Listener || holds == Holds::Cookies {
            return w;
        }
        w.send(Flags::SYN, &[]);
        if holds == Holds::HalfOpen {
            return w;
        }
        w.send(Flags::ACK, &[]);
        let (id, _) = w.stack.accept(listener).unwrap();
        // The connection has a past, so that a stranger's old numbers are really old.
        w.send(Flags::ACK | Flags::PSH, &[1; 500]);
        w.stack.send(id, &[2; 500]).unwrap();
        w.sent();
        w.ack += 500;
        w.send(Flags::ACK, &[]);
        w.go_on(id, holds);
        // No reply is pending, and all rate limits have recovered.
        w.now += Duration::from_secs(5);
        w
    }

    fn go_on(&mut self, id: SocketId, holds: Holds) {
        let mut buffer = [0; 1000];
        assert_eq!(self.stack.recv(id, &mut buffer), Ok(500));
        match holds {
            Holds::Hole => {
                for gap in [100u32, 300, 500, 700] {
                    self.send_at(self.seq + gap, Flags::ACK, &[3; 50]);
                }
            }
            Holds::ZeroWindow => {
                while self.stack.readable(id).unwrap().0 < 65_535 {
                    self.send(Flags::ACK, &[4; 1000]);
                    if self.stack.readable(id).unwrap().0 >= 65_000 {
                        break;
                    }
                }
            }
            Holds::FinWait1 => {
                self.stack.shutdown(self.now, id, Shutdown::Write).unwrap();
                self.sent();
            }
            Holds::FinWait2 | Holds::Orphan | Holds::TimeWait => {
                match holds {
                    Holds::Orphan => self.stack.close(self.now, id).unwrap(),
                    _ => self.stack.shutdown(self.now, id, Shutdown::Write).unwrap(),
                }
                self.sent();
                self.ack += 1;
                self.send(Flags::ACK, &[]);
                if holds == Holds::TimeWait {
                    self.send(Flags::ACK | Flags::FIN, &[]);
                }
            }
            Holds::CloseWait | Holds::LastAck => {
                self.send(Flags::ACK | Flags::FIN, &[]);
                if holds == Holds::LastAck {
                    self.stack.close(self.now, id).unwrap();
                    self.sent();
                }
            }
            _ => {}
        }
    }

    /// Delivers a stranger's packet. Returns the packets that it triggers.
    fn draws(&self, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut world = World { stack: self.stack.clone(), ..*self };
        world.stack.receive(world.now, packet);
        world.sent()
    }

    fn check(&self, what: &dyn std::fmt::Debug, packet: &[u8]) {
        let drawn = self.draws(packet);
        assert!(drawn.len() <= 1, "{what:?} draws {} packets", drawn.len());
        let bytes: usize = drawn.iter().map(Vec::len).sum();
        assert!(
            bytes <= packet.len().max(self.short()),
            "{what:?} of {} bytes draws {bytes}: {:02x?}",
            packet.len(),
            drawn
        );
    }
}

fn both_families(test: impl Fn(bool, bool)) {
    for v6 in [false, true] {
        for timestamps in [false, true] {
            test(v6, timestamps);
        }
    }
}

#[test]
fn a_stranger_s_segment_draws_no_more_than_it_brings_threat_4() {
    both_families(|v6, timestamps| {
        for holds in ALL {
            let world = World::reach(v6, timestamps, holds);
            let (nxt, past) = (world.seq, world.seq - 600);
            let options = |ts: bool, all: bool| Options {
                mss: all.then_some(1460),
                window_scale: all.then_some(7),
                sack_permitted: all,
                timestamps: ts.then(|| Timestamps { val: world.now.as_millis() as u32, ecr: 1 }),
                ..Options::default()
            };
            for flags in 0..=0x3fu16 {
                for seq in [nxt, past, nxt + 10, nxt + 1_000_000, nxt - 1] {
                    for (ts, all) in [(false, false), (true, false), (true, true), (timestamps, false)] {
                        for len in [0, 1, 20, 100] {
                            // A blind stranger does not know the sequence numbers sent.
                            let ack = SeqNum(0x4321_8765);
                            let flags = Flags(flags);
                            let header = world.header(CLIENT, seq, ack, flags, 500, options(ts, all));
                            let packet = world.segment(&header, &[9; 100][..len]);
                            world.check(&(holds, flags, seq.since(nxt) as i32, ts, all, len), &packet);
                        }
                    }
                }
            }
        }
    });
}

/// THREAT-3: over its whole life a SYN triggers at most six packets and six times its bytes, and only one packet if
/// cookies answer.
#[test]
fn a_spoofed_syn_draws_six_times_its_bytes_at_most_threat_3() {
    both_families(|v6, timestamps| {
        for (holds, most) in [(Holds::Listener, 6), (Holds::Cookies, 1)] {
            for full in [false, true] {
                let mut world = World::reach(v6, timestamps, holds);
                let options = if full {
                    Options {
                        mss: Some(1460),
                        window_scale: Some(7),
                        sack_permitted: true,
                        timestamps: Some(Timestamps { val: 1, ecr: 0 }),
                        fast_open: Cookie::new(&[]),
                        ..Options::default()
                    }
                } else {
                    Options::default()
                };
                let header = world.header(CLIENT, world.seq, SeqNum(0), Flags::SYN, 500, options);
                let syn = world.segment(&header, &[]);
                world.stack.receive(world.now, &syn[..]);
                let mut drawn = world.sent();
                while let Some(at) = world.stack.poll_at() {
                    world.now = world.now.max(at);
                    world.stack.advance(world.now);
                    drawn.extend(world.sent());
                }
                let bytes: usize = drawn.iter().map(Vec::len).sum();
                assert!((1..=most).contains(&drawn.len()), "{holds:?}, full {full}: {} packets", drawn.len());
                assert!(bytes <= 6 * syn.len(), "{holds:?}, full {full}: {bytes} for {}", syn.len());
            }
        }
    });
}

#[test]
fn a_datagram_of_another_protocol_draws_no_more_than_it_brings_threat_4() {
    both_families(|v6, _| {
        let world = World::new(v6, false, |_| {});
        let icmp = if v6 { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP };
        // The shortest error quotes the headers and eight bytes; over IPv6 it takes 96 bytes.
        let least = if v6 { 96 } else { 60 };
        for protocol in (0..=255u8).filter(|protocol| *protocol != PROTOCOL_TCP && *protocol != icmp) {
            for len in [8, 32, 52, 100, 548, 1240, 1400] {
                let mut payload = vec![0; len];
                if protocol == PROTOCOL_UDP {
                    payload[..6].copy_from_slice(&[0, 9, 0, 9, (len >> 8) as u8, len as u8]);
                }
                let packet = world.packet(protocol, &payload);
                let drawn = world.draws(&packet);
                let bytes: usize = drawn.iter().map(Vec::len).sum();
                assert!(
                    drawn.len() <= 1 && bytes <= packet.len().max(least),
                    "protocol {protocol}, {len}: {bytes}"
                );
            }
        }
        let mut body = vec![0; 1408];
        for len in [0, 8, 52, 1400] {
            let message = Message::EchoRequest { ident: 1, sequence: 1, data: &[5; 1400][..len] };
            let len = match (world.theirs, world.ours) {
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    icmp::emit_v6(source, destination, &message, &mut body)
                }
                _ => icmp::emit_v4(&message, &mut body),
            };
            let packet = world.packet(icmp, &body[..len.unwrap()]);
            assert_eq!(
                world.draws(&packet).first().map(Vec::len),
                Some(packet.len()),
                "an echo as long as its request"
            );
        }
    });
}

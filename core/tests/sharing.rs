//! Fair sharing of the device: among connections, and between connections and replies to strangers.
//!
//! Time advances in turns, like those of a driver: a number of packets in, timers, a number of frames out.

use std::net::{IpAddr, Ipv4Addr};

use steadfast_core::config::SynCookies;
use steadfast_core::counters::DropReason;
use steadfast_core::seq::SeqNum;
use steadfast_core::wire::tcp::{Flags, Options};
use steadfast_core::{Config, Duration, Error, Instant, Interface, ListenOptions, SocketId, Stack};
use steadfast_testkit::{Client, Segment, next_segment};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PORT: u16 = 80;
/// Packets in, and frames out, per turn.
const FRAMES: usize = 64;
/// Bytes per turn.
const BYTES: usize = 256 * 1024;
const TURN: Duration = Duration::from_millis(10);

fn client(address: u32, port: u16, to: u16) -> Client {
    let offer = Options { mss: Some(1460), window_scale: Some(10), ..Options::default() };
    Client::new((Ipv4Addr::from_bits(address), port), (SERVER, to)).offering(offer)
}

/// Like [`client`], with another MSS.
fn client_with_mss(address: u32, port: u16, mss: u16) -> Client {
    let offer = Options { mss: Some(mss), window_scale: Some(10), ..Options::default() };
    client(address, port, PORT).offering(offer)
}

struct Server {
    stack: Stack,
    now: Instant,
    listener: SocketId,
    frame: Vec<u8>,
}

impl Server {
    fn new(configure: impl FnOnce(&mut Config), offload: bool) -> Server {
        let mut config = Config { tcp_timestamps: false, secret: [3; 32], ..Config::default() };
        configure(&mut config);
        let mut interface = Interface::new(1500, [(IpAddr::V4(SERVER), 8)]);
        interface.segmentation_offload = offload;
        let mut stack = Stack::new(config, interface);
        let listener = stack.listen((SERVER, PORT).into(), ListenOptions::default()).unwrap();
        Server { stack, now: Instant::from_secs(1), listener, frame: vec![0; 65_535] }
    }

    fn receive(&mut self, packet: &[u8]) {
        self.stack.receive(self.now, packet);
    }

    fn transmit(&mut self) -> Option<Segment> {
        next_segment(&mut self.stack, self.now, &mut self.frame)
    }

    /// Lets time pass, and runs every timer that is due. One call runs only some of them.
    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.stack.advance(self.now);
        while self.stack.poll_at().is_some_and(|at| at <= self.now) {
            self.stack.advance(self.now);
        }
    }

    /// Returns the segments that a driver's turn sends.
    fn turn(&mut self) -> Vec<Segment> {
        self.stack.advance(self.now);
        let (mut sent, mut bytes) = (Vec::new(), 0);
        while sent.len() < FRAMES && bytes + 65_535 <= BYTES {
            let Some(got) = self.transmit() else { break };
            bytes += got.len + 40;
            sent.push(got);
        }
        self.now += TURN;
        sent
    }

    fn drain(&mut self) -> Vec<Segment> {
        std::iter::from_fn(|| self.transmit()).collect()
    }

    fn accept(&mut self) -> SocketId {
        self.stack.accept(self.listener).unwrap().0
    }

    /// The handshake of a peer with the first listener.
    fn connect(&mut self, peer: &mut Client) -> SocketId {
        self.receive(&peer.syn());
        self.drain().iter().for_each(|got| _ = peer.hears(got));
        self.receive(&peer.acknowledges());
        self.accept()
    }

    /// The application writes as much as there is room for.
    fn write(&mut self, id: SocketId) {
        let text = [1; 65_536];
        while self.stack.send(id, &text) != Err(Error::WouldBlock) {}
    }
}

/// A congestion window that is never a limit.
fn wide(config: &mut Config) {
    config.tcp_init_cwnd = 255;
}

#[derive(Clone, Copy, Debug)]
enum Flood {
    None,
    Syn,
    Ack,
    Rst,
}

impl Flood {
    fn packet(self, number: u32, transfer: &Client) -> Option<Vec<u8>> {
        let stranger = client(0x0b00_0000 + number, 1024, PORT);
        match self {
            Flood::None => None,
            Flood::Syn => Some(stranger.syn()),
            // Half of them have the 4-tuple of the transfer, without knowing its sequence numbers.
            Flood::Ack | Flood::Rst => {
                let flags = if matches!(self, Flood::Ack) { Flags::ACK } else { Flags::RST };
                let mut peer = if number.is_multiple_of(2) { stranger } else { transfer.clone() };
                (peer.seq, peer.ack) = (peer.seq + (1 << 31) + number, SeqNum(number));
                Some(peer.packet(flags, &[]))
            }
        }
    }
}

/// Transfers for 2,000 turns during a flood that fills each of them, while 100 genuine clients connect. Returns the
/// bytes transferred and the number of clients accepted.
fn carry_beside(flood: Flood) -> (usize, usize) {
    const PATIENCE: usize = 12;
    let mut server = Server::new(wide, false);
    let mut transfer = client(0x0a01_0001, 5000, PORT);
    let id = server.connect(&mut transfer);
    let mut clients: Vec<_> = (0..100).map(|i| client(0x0a02_0000 + i, 6000, PORT)).collect();
    let (mut number, mut carried, mut accepted) = (0, 0, 0);
    for turn in 0..2000_usize {
        server.write(id);
        let mut packets: Vec<_> =
            (0..FRAMES as u32).filter_map(|i| flood.packet(number + i, &transfer)).collect();
        number += FRAMES as u32;
        for (i, client) in clients.iter_mut().enumerate() {
            // One begins in each turn, and tries again every second.
            let since = turn.wrapping_sub(i);
            if client.ack == SeqNum(0) && since % 100 == 0 && since / 100 < PATIENCE {
                packets.push(client.syn());
            }
        }
        packets.iter().for_each(|packet| server.receive(packet));
        for got in server.turn() {
            if got.to == transfer.end {
                transfer.hears(&got);
                let ack = transfer.acknowledges();
                server.receive(&ack);
            }
            if let Some(client) = clients.iter_mut().find(|client| got.to == client.end) {
                client.hears(&got);
                let ack = client.acknowledges();
                server.receive(&ack);
            }
        }
        while server.stack.accept(server.listener).is_ok() {
            accepted += 1;
        }
        if turn == 200 {
            // Its window is open by now.
            carried = transfer.received;
        }
    }
    (transfer.received - carried, accepted)
}

#[test]
fn beside_a_flood_a_transfer_keeps_half_its_rate_and_every_client_gets_in_threat_1_threat_5_threat_7() {
    let (alone, _) = carry_beside(Flood::None);
    for flood in [Flood::Syn, Flood::Ack, Flood::Rst] {
        let (beside, accepted) = carry_beside(flood);
        assert!(beside * 2 >= alone, "{flood:?}: {beside} of {alone} bytes");
        assert_eq!(accepted, 100, "{flood:?}");
    }
}

/// Returns the smallest and the largest of 100 transfers, relative to their mean, and the size of one more. Connections
/// that were begun and reset meanwhile had the row of that one before.
fn shares(mss: impl Fn(u32) -> u16, offload: bool) -> (f64, f64, f64) {
    let mut server = Server::new(wide, offload);
    let mut peers: Vec<_> = (0..100).map(|i| client_with_mss(0x0a01_0000 + i, 5000, mss(i))).collect();
    let mut ids: Vec<_> = peers.iter_mut().map(|peer| server.connect(peer)).collect();
    let mut others: Vec<_> = (0..21).map(|i| client(0x0a02_0000, 6000 + i, PORT)).collect();
    for other in &mut others {
        server.receive(&other.syn());
        server.drain().iter().for_each(|got| _ = other.hears(got));
    }
    let mut before = Vec::new();
    for turn in 0..2000 {
        if turn == 50 {
            // Each has data to send when it is reset, and the next one gets its row.
            for (i, other) in others.iter().enumerate() {
                server.receive(&other.packet(Flags::ACK, b"x"));
                if i + 1 < others.len() {
                    server.receive(&other.at(other.seq + 1).packet(Flags::RST, &[]));
                }
            }
            let last = others.pop().unwrap();
            let accepted = others.iter().map(|_| server.accept()).last();
            assert!(accepted.is_some());
            ids.push(server.accept());
            peers.push(last.at(last.seq + 1));
        }
        if turn == 200 {
            before = peers.iter().map(|peer| peer.received).collect();
        }
        ids.iter().for_each(|id| server.write(*id));
        for got in server.turn() {
            if let Some(peer) = peers.iter_mut().find(|peer| got.to == peer.end) {
                peer.hears(&got);
                let ack = peer.acknowledges();
                server.receive(&ack);
            }
        }
    }
    let mut carried: Vec<_> =
        peers.iter().zip(before).map(|(peer, before)| (peer.received - before) as f64).collect();
    let other = carried.pop().unwrap();
    let mean = carried.iter().sum::<f64>() / carried.len() as f64;
    let (least, most) = carried.iter().fold((f64::MAX, 0.0), |(least, most), c| (c.min(least), c.max(most)));
    (least / mean, most / mean, other / mean)
}

#[test]
fn a_hundred_transfers_share_alike_whatever_was_begun_and_reset_between() {
    for (what, least, most, other) in [
        ("alike", shares(|_| 1460, false)),
        ("segments of two sizes", shares(|i| if i % 2 == 0 { 1460 } else { 536 }, false)),
        ("super-segments", shares(|i| if i % 2 == 0 { 1460 } else { 536 }, true)),
    ]
    .map(|(what, (least, most, other))| (what, least, most, other))
    {
        assert!(least >= 0.9 && most <= 1.1, "{what}: {least:.3} to {most:.3}");
        assert!((0.9..=1.1).contains(&other), "{what}: the last of those in one row has {other:.3}");
    }
}

#[test]
fn a_super_segment_counts_as_the_packets_that_it_is_on_the_wire() {
    let mut server = Server::new(
        |config| {
            wide(config);
            (config.tcp_syncookies, config.tcp_notsent_lowat) = (SynCookies::Always, u32::MAX);
        },
        true,
    );
    let mut transfer = client(0x0a01_0001, 5000, PORT);
    let id = server.connect(&mut transfer);
    server.write(id);
    (0..500).for_each(|i| server.receive(&client(0x0b00_0000 + i, 1024, PORT).syn()));
    let (mut data, mut answers) = (0, 0);
    for got in server.drain().into_iter().take(100) {
        if got.to == transfer.end {
            assert!(got.packets > 40, "{} packets", got.packets);
            data += got.packets;
        } else {
            answers += 1;
        }
        assert!(answers <= data + 1, "after {data} packets of data {answers} answers");
        assert!(data <= answers + got.packets.max(45), "after {answers} answers {data} packets of data");
    }
    assert!(data > 80 && answers > 40);
}

/// 4987-3 is for the listener that is under attack.
#[test]
fn a_flood_at_one_listener_takes_no_syn_acks_from_another() {
    let without_budgets = |config: &mut Config| {
        (config.tcp_syncookies, config.tcp_synack_ratelimit) = (SynCookies::Never, 0);
    };
    let mut server = Server::new(without_budgets, false);
    server.stack.listen((SERVER, 443).into(), ListenOptions::default()).unwrap();
    // All but one of the entries that one listener may have.
    for i in 0..2047 {
        server.receive(&client(0x0b00_0000 + i, 4000, PORT).syn());
        server.drain();
    }
    server.receive(&client(0x0a01_0001, 4000, 443).syn());
    let (start, mut seconds) = (server.now, [Vec::new(), Vec::new()]);
    let stranger = client(0x0b00_0000 + 2046, 4000, PORT);
    for _ in 0..1000 {
        for got in server.drain() {
            match got.header.source_port {
                443 => seconds[0].push((server.now - start).as_secs()),
                _ if got.to == stranger.end => seconds[1].push((server.now - start).as_secs()),
                _ => {}
            }
        }
        server.wait(Duration::from_millis(100));
    }
    // RFC 6298 §5.5: each wait is twice the one before.
    assert_eq!(seconds[0], [0, 1, 3, 7, 15, 31]);
    assert_eq!(seconds[1], [1, 3]);
}

#[test]
fn syn_acks_that_are_sent_again_wait_for_their_turn_and_none_is_lost() {
    let small_queue = |config: &mut Config| {
        (config.reply_queue, config.tcp_syncookies, config.tcp_synack_ratelimit) = (16, SynCookies::Never, 0);
    };
    let mut server = Server::new(small_queue, false);
    server.stack.listen((SERVER, 443).into(), ListenOptions::default()).unwrap();
    for i in 0..2000 {
        server.receive(&client(0x0b00_0000 + i, 4000, PORT).syn());
    }
    for i in 0..1000 {
        server.receive(&client(0x0a01_0000 + i, 4000, 443).syn());
    }
    assert_eq!(server.drain().len(), 3000);
    server.wait(Duration::from_secs(1));
    let again = server.drain();
    assert_eq!(again.iter().filter(|got| got.header.source_port == 443).count(), 1000);
    assert_eq!((again.len(), server.stack.counters().dropped(DropReason::ReplyQueueFull)), (3000, 0));
}

#[test]
fn a_syn_ack_counts_as_a_try_when_it_leaves() {
    let mut server = Server::new(|config| config.tcp_synack_retries = 2, false);
    server.receive(&client(0x0a01_0001, 4000, PORT).syn());
    assert_eq!(server.drain().len(), 1);
    // The device accepts nothing for longer than all retries last.
    server.wait(Duration::from_secs(60));
    assert_eq!((server.stack.usage().half_open, server.stack.counters().tcp_syn_retrans), (1, 0));
    for (tries, wait) in [(1, 2), (2, 4)] {
        assert_eq!(server.drain().len(), 1);
        assert_eq!(server.stack.counters().tcp_syn_retrans, tries);
        server.wait(Duration::from_secs(wait));
    }
    assert_eq!((server.drain().len(), server.stack.usage().half_open), (0, 0));
}

#[test]
fn of_answers_beyond_the_queue_each_has_the_same_chance() {
    let mut server = Server::new(
        |config| {
            config.tcp_syncookies = SynCookies::Always;
            config.reply_queue = 100;
        },
        false,
    );
    let mut places = [0_u32; 10];
    for _ in 0..50 {
        (0..1000).for_each(|i| server.receive(&client(0x0b00_0000 + i, 4000, PORT).syn()));
        let left = server.drain();
        assert_eq!(left.len(), 100);
        for got in left {
            let IpAddr::V4(address) = got.to.ip() else { unreachable!() };
            places[((address.to_bits() - 0x0b00_0000) / 100) as usize] += 1;
        }
    }
    // Among 5,000 that left, a tenth is from each tenth of a burst: 500, with a deviation of 21.
    assert!(places.iter().all(|count| (500 - 84..500 + 84).contains(count)), "{places:?}");
    assert_eq!(server.stack.counters().dropped(DropReason::ReplyQueueFull), 50 * 900);
}

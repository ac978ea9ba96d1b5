//! The payload as slices of the send queue: the same packets as by copy, and bytes that stay while a device has them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use proptest::prelude::*;
use steadfast_core::wire::ethernet::{self, HEADER_LEN};
use steadfast_core::wire::tcp::Options;
use steadfast_core::{
    Bytes, Config, ConnectOptions, Duration, Instant, Interface, InterfaceId, ListenOptions, SocketId, Stack,
};
use steadfast_testkit::{Client, Segment};

use crate::harness::pattern;

const SERVER: [&str; 2] = ["10.0.0.2:80", "[fd00::2]:80"];
const CLIENT: [&str; 2] = ["10.0.0.1:4000", "[fd00::1]:4000"];

/// A stack behind a device that computes checksums.
fn stack(segmentation_offload: bool) -> Stack {
    let addresses = [("10.0.0.2".parse().unwrap(), 24), ("fd00::2".parse().unwrap(), 64)];
    let mut interface = Interface::new(1500, addresses);
    (interface.checksum_offload, interface.segmentation_offload) = (true, segmentation_offload);
    Stack::new(Config { secret: [7; 32], ..Config::default() }, interface)
}

/// Connects a client with a large window. Returns it, and the socket of the stack.
fn connect(stack: &mut Stack, now: Instant, v6: usize) -> (Client, SocketId) {
    let [client, server] = [CLIENT, SERVER].map(|ends| ends[v6].parse::<SocketAddr>().unwrap());
    let options =
        Options { mss: Some(1460), window_scale: Some(8), sack_permitted: true, ..Options::default() };
    let mut client = Client::new(client, server).offering(options);
    let listener = stack.listen(server, ListenOptions::default()).unwrap();
    let socket = client.connect(stack, now, listener);
    (client, socket)
}

/// Two stacks that get the same packets and calls: one copies, and the other hands out slices.
struct Twins {
    copies: Stack,
    slices: Stack,
    socket: SocketId,
    client: Client,
    now: Instant,
    written: u32,
    /// The highest sequence number past what was sent, as an offset.
    sent: u32,
    una: u32,
    sliced: usize,
    /// The slices that a device still has, and the bytes that they had at first.
    held: VecDeque<(Vec<Bytes>, Vec<u8>)>,
}

impl Twins {
    fn new(v6: usize, segmentation_offload: bool) -> Twins {
        let now = Instant::from_secs(10);
        let (mut copies, mut slices) = (stack(segmentation_offload), stack(segmentation_offload));
        let (client, socket) = connect(&mut copies, now, v6);
        let (twin, same) = connect(&mut slices, now, v6);
        assert_eq!((twin.ack, same), (client.ack, socket));
        Twins {
            copies,
            slices,
            socket,
            client,
            now,
            written: 0,
            sent: 0,
            una: 0,
            sliced: 0,
            held: VecDeque::new(),
        }
    }

    fn write(&mut self, len: u32, shared: bool) {
        let data = Bytes::from(pattern(self.written, len));
        let counts = [&mut self.copies, &mut self.slices].map(|stack| match shared {
            true => stack.send_bytes(self.socket, &mut data.clone()),
            false => stack.send(self.socket, &data),
        });
        assert_eq!(counts[0], counts[1]);
        self.written += counts[0].unwrap_or(0) as u32;
    }

    fn acknowledge(&mut self, to: u32) {
        self.una = to;
        let mut client = self.client.clone();
        client.ack += to;
        let packet = client.acknowledges();
        self.copies.receive(self.now, &packet[..]);
        self.slices.receive(self.now, &packet[..]);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.copies.advance(self.now);
        self.slices.advance(self.now);
    }

    /// Both send the same packets.
    fn flush(&mut self) {
        let (mut frame, mut other) = (vec![0; 65_535], vec![0; 65_535]);
        loop {
            let copied = self.copies.transmit(self.now, &mut frame);
            let mut slices = Vec::new();
            let sliced = self.slices.transmit_slices(self.now, &mut other, &mut slices);
            let (Some(copied), Some(sliced)) = (copied, sliced) else {
                assert_eq!((copied, sliced, slices.len()), (None, None, 0));
                break;
            };
            let rest = slices.concat();
            assert_eq!(rest.len(), sliced.sliced);
            let packet = [&other[..sliced.len], &rest].concat();
            assert!(packet == frame[..copied.len], "the packets differ");
            let alike =
                |sent: &steadfast_core::Transmit| (sent.segment_size, sent.checksum_offload, sent.interface);
            assert_eq!((alike(&copied), copied.sliced), (alike(&sliced), 0));
            let segment = Segment::read(&packet, copied);
            let from = segment.header.seq.since(self.client.ack);
            assert!(packet[packet.len() - segment.len..] == pattern(from, segment.len as u32));
            if segment.len > 0 {
                self.sent = self.sent.max(from + segment.len as u32);
            }
            self.sliced += rest.len();
            self.held.push_back((slices, rest));
        }
        assert_eq!(self.slices.check_consistent(), Ok(()));
        assert_eq!(self.copies.check_consistent(), Ok(()));
    }

    /// The device lets go of all but the last `count` packets, whose bytes are as they were.
    fn release(&mut self, count: usize) {
        while self.held.len() > count {
            let (slices, bytes) = self.held.pop_front().expect("there is one");
            assert!(slices.concat() == bytes, "bytes changed under the device");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Writes of all sizes, partial and repeated ACKs, and timeouts.
    #[test]
    fn a_packet_by_slices_is_the_packet_by_copy(
        (v6, offload) in (0..2usize, any::<bool>()),
        steps in proptest::collection::vec((0u8..8, 0u32..100_000), 1..50),
    ) {
        let mut twins = Twins::new(v6, offload);
        for (what, amount) in steps {
            match what {
                0 => twins.write(amount, false),
                1 => twins.write(amount, true),
                2 => twins.write(amount % 3000, amount % 2 == 0),
                3 => twins.acknowledge(twins.una + amount.min(twins.sent - twins.una)),
                4 => twins.acknowledge(twins.una + (amount % 3000).min(twins.sent - twins.una)),
                5 => (0..3).for_each(|_| twins.acknowledge(twins.una)),
                6 => twins.wait(Duration::from_millis(u64::from(amount) / 50)),
                _ => twins.release(amount as usize % 20),
            }
            twins.flush();
        }
        twins.acknowledge(twins.sent);
        twins.flush();
        twins.release(0);
    }
}

#[test]
fn a_long_payload_is_not_copied() {
    for v6 in [0, 1] {
        let mut twins = Twins::new(v6, true);
        for _ in 0..50 {
            twins.write(50_000, false);
            twins.flush();
            twins.acknowledge(twins.sent);
            twins.release(2);
        }
        assert!(twins.sent >= 900_000, "{}", twins.sent);
        assert!(twins.sliced > twins.sent as usize / 10 * 9, "{} of {}", twins.sliced, twins.sent);
    }
}

#[test]
fn the_slices_are_those_of_the_bytes_that_were_written() {
    let (mut stack, now) = (stack(true), Instant::from_secs(10));
    let (_, socket) = connect(&mut stack, now, 0);
    let data = Bytes::from(pattern(0, 14_000));
    stack.send_bytes(socket, &mut data.clone()).unwrap();
    let (mut frame, mut slices) = (vec![0; 65_535], Vec::new());
    let sent = stack.transmit_slices(now, &mut frame, &mut slices).expect("a segment");
    assert!(sent.sliced > 10_000 && sent.len < 100, "{sent:?}");
    assert!(slices.iter().all(|slice| data.as_ptr_range().contains(&slice.as_ptr())));
    stack.abort(now, socket).unwrap();
    assert_eq!(slices.concat(), data[..sent.sliced]);
}

#[test]
fn a_short_payload_and_a_device_that_sums_nothing_get_copies() {
    for (offload, len) in [(true, 4000), (false, 14_000)] {
        let mut stack = stack(true);
        let mut interface = stack.interface().clone();
        interface.checksum_offload = offload;
        stack = Stack::new(stack.config().clone(), interface);
        let now = Instant::from_secs(10);
        let (_, socket) = connect(&mut stack, now, 0);
        stack.send_bytes(socket, &mut Bytes::from(pattern(0, len))).unwrap();
        let (mut frame, mut slices) = (vec![0; 65_535], Vec::new());
        let sent = stack.transmit_slices(now, &mut frame, &mut slices).expect("a segment");
        assert_eq!((sent.sliced, slices.len()), (0, 0));
        assert!(sent.len > 4000);
    }
}

/// Packets to our own addresses do not reach the device.
#[test]
fn a_packet_to_an_own_address_takes_its_slices_along() {
    let (mut stack, mut now) = (stack(true), Instant::from_secs(10));
    let server = SERVER[0].parse().unwrap();
    let listener = stack.listen(server, ListenOptions::default()).unwrap();
    let client = stack.connect(now, server, ConnectOptions::default()).unwrap();
    let (mut frame, mut slices) = (vec![0; 65_535], Vec::new());
    let mut run = |stack: &mut Stack| {
        for _ in 0..500 {
            assert_eq!(stack.transmit_slices(now, &mut frame, &mut slices), None);
            assert!(slices.is_empty());
            now += Duration::from_millis(1);
            stack.advance(now);
        }
    };
    run(&mut stack);
    let (accepted, _) = stack.accept(listener).unwrap();
    assert_eq!(stack.send(client, &pattern(0, 60_000)), Ok(60_000));
    run(&mut stack);
    let mut got = vec![0; 60_001];
    assert_eq!(stack.recv(accepted, &mut got), Ok(60_000));
    assert!(got[..60_000] == pattern(0, 60_000));
    assert_eq!(stack.check_consistent(), Ok(()));
}

/// A packet that waits for the hardware address of its neighbour is kept whole.
#[test]
fn a_packet_that_waits_for_a_neighbour_takes_its_slices_along() {
    let [own, neighbour] = ["02:00:00:00:00:02", "02:00:00:00:00:01"].map(|text| text.parse().unwrap());
    let mut interface = Interface::ethernet(1500, own, [("10.0.0.2".parse().unwrap(), 24)]);
    (interface.checksum_offload, interface.segmentation_offload) = (true, true);
    let (mut stack, now) = (Stack::new(Config::default(), interface), Instant::from_secs(10));
    let (address, server) = ("10.0.0.1".parse().unwrap(), SERVER[0].parse().unwrap());
    stack.add_neighbour(InterfaceId::FIRST, address, neighbour).unwrap();
    let listener = stack.listen(server, ListenOptions::default()).unwrap();
    let mut client = Client::new(CLIENT[0].parse::<SocketAddr>().unwrap(), server);
    let framed = |packet: &[u8]| {
        let mut frame = vec![0; HEADER_LEN];
        ethernet::Header::new(neighbour, own, ethernet::TYPE_IPV4).emit(&mut frame);
        frame.extend_from_slice(packet);
        frame
    };
    let (mut frame, mut slices) = (vec![0; stack.frame_len()], Vec::new());
    stack.receive(now, &framed(&client.syn())[..]);
    let sent = stack.transmit(now, &mut frame).expect("a SYN-ACK");
    client.hears(&Segment::read(&frame[HEADER_LEN..sent.len], sent));
    stack.receive(now, &framed(&client.acknowledges())[..]);
    let (socket, _) = stack.accept(listener).unwrap();

    assert!(stack.remove_neighbour(InterfaceId::FIRST, address));
    stack.send(socket, &pattern(0, 10_000)).unwrap();
    let asked = stack.transmit_slices(now, &mut frame, &mut slices).expect("a question");
    assert_eq!((asked.sliced, slices.len()), (0, 0));
    assert_eq!(frame[12..14], ethernet::TYPE_ARP.to_be_bytes());
    stack.add_neighbour(InterfaceId::FIRST, address, neighbour).unwrap();
    let sent = stack.transmit_slices(now, &mut frame, &mut slices).expect("what waited");
    assert_eq!((sent.sliced, slices.len()), (0, 0));
    let segment = Segment::read(&frame[HEADER_LEN..sent.len], sent);
    assert!(segment.len >= 4096, "{segment:?}");
    assert!(frame[sent.len - segment.len..sent.len] == pattern(0, segment.len as u32));
}

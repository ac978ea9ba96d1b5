//! The memory of a stack stays within its bounds, whatever a peer pushes, as measured by a counting allocator.

use std::net::Ipv4Addr;

use allocation_counter::measure;
use bytes::Bytes;
use steadfast_core::seq::SeqNum;
use steadfast_core::wire::tcp::{Flags, Options};
use steadfast_core::{Config, Instant, Interface, ListenOptions, SocketId, Stack};
use steadfast_testkit::Client;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// A stack with one accepted connection, and its peer, which ignores the window.
struct Held {
    stack: Stack,
    now: Instant,
    sock: SocketId,
    peer: Client,
    frame: Vec<u8>,
    /// Growth of the heap since the connection was established.
    heap: i64,
}

impl Held {
    fn new(config: Config) -> Held {
        let interface = Interface::new(1500, [(OURS.into(), 24)]);
        let mut stack = Stack::new(config, interface);
        let listener = stack.listen((OURS, 80).into(), ListenOptions::default()).unwrap();
        let now = Instant::from_secs(1);
        let offer =
            Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..Options::default() };
        let mut peer = Client::new((THEIRS, 4000), (OURS, 80)).offering(offer);
        (peer.seq, peer.window) = (SeqNum(u32::MAX - 1000), 1000);
        let sock = peer.connect(&mut stack, now, listener);
        Held { stack, now, sock, peer, frame: vec![0; 1500], heap: 0 }
    }

    /// A segment with text that begins at offset `at` of the stream.
    fn text(&self, at: u32, payload: &[u8]) -> Vec<u8> {
        self.peer.at(self.peer.seq + at).packet(Flags::ACK | Flags::PSH, payload)
    }

    /// The peer pushes `count` segments of text. `pattern` returns the offset and the length of each, and the size of
    /// its packet if the device keeps no buffer of its own. The memory is measured after every thousandth.
    fn push(
        &mut self,
        count: u32,
        pattern: impl Fn(u32) -> (u32, usize, Option<usize>),
        check: impl Fn(&Held),
    ) {
        let text = vec![7; 65_000];
        for batch in (0..count).step_by(1000) {
            let info = measure(|| {
                for i in batch..count.min(batch + 1000) {
                    let (at, len, packet_len) = pattern(i);
                    let mut packet = self.text(at, &text[..len]);
                    match packet_len {
                        Some(len) => {
                            packet.resize(packet.len().max(len), 0);
                            self.stack.receive(self.now, Bytes::from(packet.into_boxed_slice()));
                        }
                        None => self.stack.receive(self.now, &packet[..]),
                    }
                    while self.stack.transmit(self.now, &mut self.frame).is_some() {}
                    while self.stack.poll_event().is_some() {}
                }
            });
            self.heap += info.bytes_current;
            check(self);
        }
    }

    fn unread(&self) -> u64 {
        self.stack.info(self.now, self.sock).unwrap().recv_q
    }
}

const BUFFER: u32 = 1 << 20;
/// Memory of an otherwise idle stack for events, timers and the like, and the 128 KiB of `steadfast.tcp_rcvbuf`.
const SLACK: i64 = 128 << 10;

fn held() -> Held {
    Held::new(Config { tcp_rcvbuf: BUFFER, tcp_timestamps: false, secret: [7; 32], ..Config::default() })
}

/// Whatever was pushed, it takes at most a quarter more than the buffer, and the slack.
fn within_the_buffer(held: &Held) {
    assert!(held.unread() <= BUFFER.into(), "{} bytes are unread", held.unread());
    let bound = i64::from(BUFFER) * 5 / 4 + SLACK;
    assert!(held.heap <= bound, "{} bytes are held, {} unread", held.heap, held.unread());
}

/// THREAT-13: for text that is never in order.
fn within_the_buffer_out_of_order(held: &Held) {
    let bound = i64::from(BUFFER) + (64 << 10);
    assert!(held.heap <= bound, "{} bytes are held", held.heap);
    // In addition to the connection's memory, the stack's own queues and lists grow once.
    const OWN: i64 = 8192;
    let counted = held.stack.usage().held as i64;
    assert!(held.heap <= counted + OWN, "what is held is counted: {} of {counted}", held.heap);
}

#[test]
fn bytes_in_order_that_nobody_reads_threat_13() {
    let mut held = held();
    held.push(1_100_000, |i| (i, 1, None), within_the_buffer);
    assert_eq!(held.unread(), BUFFER.into(), "all that was promised is taken");
}

#[test]
fn bytes_out_of_order_from_the_top_down_threat_13() {
    let mut held = held();
    held.push(1_000_000, |i| (1_000_000 - i, 1, None), within_the_buffer_out_of_order);
    let waiting = held.stack.info(held.now, held.sock).unwrap().out_of_order;
    assert!(waiting > 900_000, "{waiting} bytes wait: adjacent ones are held together");
}

#[test]
fn a_million_gaps_threat_13() {
    for upwards in [true, false] {
        let mut held = held();
        let place = |i| if upwards { 2 + 2 * (i % 500_000) } else { 1_000_000 - 2 * (i % 499_990) };
        held.push(1_000_000, |i| (place(i), 1, None), within_the_buffer_out_of_order);
        // The lowest ranges are kept.
        let info = held.stack.info(held.now, held.sock).unwrap();
        assert!(info.out_of_order > 1000, "{}", info.out_of_order);
        held.push(1, |_| (0, 22, None), |_| ());
        assert!(held.unread() >= 23, "the lowest range is there");
    }
}

#[test]
fn full_segments_with_holes_threat_13() {
    for shared in [None, Some(0)] {
        let mut held = held();
        held.push(20_000, |i| (1460 + 2920 * (i % 350), 1460, shared), within_the_buffer_out_of_order);
        let info = held.stack.info(held.now, held.sock).unwrap();
        assert_eq!(info.out_of_order, 350 * 1460, "none was dropped");
    }
}

/// Text just above half of its packet, in order and behind a gap.
#[test]
fn text_that_fills_half_of_its_packet_threat_13() {
    for gap in [0, 1] {
        let mut held = held();
        held.push(5000, |i| (gap + 1500 * (i % 699), 1500, Some(2990)), within_the_buffer);
    }
}

/// A byte is copied into a buffer with room for more, and the large segment behind it is a slice of its packet.
#[test]
fn small_and_large_segments_by_turns_threat_13() {
    for (small, large) in [(1, 1024), (257, 1024), (1, 1460), (1025, 1400)] {
        let mut held = held();
        let each = small + large;
        let step = |i: u32| {
            let at = i / 2 * each as u32;
            if i.is_multiple_of(2) { (at, small, None) } else { (at + small as u32, large, Some(0)) }
        };
        held.push(2 * BUFFER / each as u32 + 100, step, within_the_buffer);
        assert!(held.unread() > u64::from(BUFFER) - 1460);
    }
}

/// Random offsets and lengths, over and over, within and beyond the window.
#[test]
fn whatever_comes_in_whatever_order_threat_13() {
    let mut held = held();
    let chance = |i: u32, salt: u32| {
        (i ^ salt).wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(2_246_822_519) >> 8
    };
    let step = |i| {
        let len = [1, 3, 100, 1000, 1460, 20_000][chance(i, 1) as usize % 6];
        (1 + chance(i, 2) % (2 * BUFFER), len, [None, Some(0), Some(2 * len)][chance(i, 3) as usize % 3])
    };
    held.push(200_000, step, within_the_buffer);
    held.push(1, |_| (0, 1, None), within_the_buffer);
    held.push(200_000, step, within_the_buffer);
}

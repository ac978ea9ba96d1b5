//! How long a transfer takes over paths that delay, reorder or lose packets, in virtual time: 10 MiB over 100 Mbit/s
//! with a round trip of 20 ms. The bounds are near what Linux needs on the same paths (1.13 s, 1.08 s and 0.99 s).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use steadfast_core::{Config, Duration, Error, Instant, Interface, SocketId, Stack};
use steadfast_testkit::Chance;

const LEN: usize = 10 << 20;
const RATE: u64 = 100_000_000;
const DELAY: Duration = Duration::from_millis(10);

/// The effect of a path on one packet.
enum Fate {
    Arrives,
    Late(Duration),
    Lost,
}

/// One direction of the link.
#[derive(Default)]
struct Link {
    free_at: Instant,
}

impl Link {
    /// When a packet of `len` bytes that is handed over now arrives.
    fn arrival(&mut self, path: &Path, now: Instant, len: usize) -> Instant {
        let start = self.free_at.max(now);
        self.free_at = start + Duration::from_nanos(len as u64 * 8 * 1_000_000_000 / path.rate);
        self.free_at + path.delay
    }
}

/// The link, the resolution of the clock that drives the stacks, and the bytes to carry.
struct Path {
    rate: u64,
    delay: Duration,
    clock: Duration,
    len: usize,
}

const USUAL: Path = Path { rate: RATE, delay: DELAY, clock: Duration::from_nanos(1), len: LEN };

impl Path {
    /// The time that the clock shows at `now`.
    fn shown(&self, now: Instant) -> Instant {
        let clock = self.clock.as_nanos() as u64;
        Instant::from_nanos(now.as_nanos() / clock * clock)
    }

    /// When the clock shows at least `time`.
    fn reaches(&self, time: Instant) -> Instant {
        let clock = self.clock.as_nanos() as u64;
        Instant::from_nanos(time.as_nanos().div_ceil(clock) * clock)
    }
}

struct Transfer {
    seconds: f64,
    retransmitted: u64,
    /// Duplicates that the receiver reported.
    spurious: u64,
    timeouts: u64,
}

/// Carries bytes over the usual path. `data` and `acks` decide on the fate of each packet of a direction.
fn transfer(
    data: impl Fn(&mut Chance, usize) -> Fate,
    acks: impl Fn(&mut Chance, usize) -> Fate,
    configure: impl Fn(&mut Config),
) -> Transfer {
    transfer_over(&USUAL, data, acks, configure)
}

fn transfer_over(
    path: &Path,
    data: impl Fn(&mut Chance, usize) -> Fate,
    acks: impl Fn(&mut Chance, usize) -> Fate,
    configure: impl Fn(&mut Config),
) -> Transfer {
    let stack = |address: &str, secret| {
        let mut config = Config { secret: [secret; 32], ..Config::default() };
        configure(&mut config);
        Stack::new(config, Interface::new(1500, [(address.parse().unwrap(), 24)]))
    };
    let mut ends = [stack("10.0.0.1", 1), stack("10.0.0.2", 2)];
    let address = "10.0.0.2:80".parse().unwrap();
    let listener = ends[1].listen(address, Default::default()).unwrap();
    let mut now = Instant::from_secs(1);
    let sender = ends[0].connect(now, address, Default::default()).unwrap();
    let mut receiver: Option<SocketId> = None;
    let mut links = [Link::default(), Link::default()];
    let mut chance = Chance::new(0x9e37_79b9_7f4a_7c15);
    let mut under_way = BinaryHeap::new();
    let (mut queued, mut received, mut number) = (0, 0, 0u64);
    let (mut frame, mut buffer) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        while queued < path.len {
            match ends[0].send(sender, &buffer[..(path.len - queued).min(65_536)]) {
                Ok(count) => queued += count,
                Err(Error::WouldBlock) => break,
                Err(error) => panic!("{error}"),
            }
        }
        receiver = receiver.or_else(|| ends[1].accept(listener).ok().map(|(id, _)| id));
        while let Some(id) = receiver
            && let Ok(count) = ends[1].recv(id, &mut buffer)
        {
            received += count;
            assert!(count > 0);
        }
        if received == path.len {
            break;
        }
        for end in 0..2 {
            while let Some(sent) = ends[end].transmit(path.shown(now), &mut frame) {
                let fate = if end == 0 { data(&mut chance, sent.len) } else { acks(&mut chance, sent.len) };
                let late = match fate {
                    Fate::Arrives => Duration::ZERO,
                    Fate::Late(late) => late,
                    Fate::Lost => continue,
                };
                let at = links[end].arrival(path, now, sent.len) + late;
                number += 1;
                under_way.push(Reverse((at, number, 1 - end, frame[..sent.len].to_vec())));
            }
            while ends[end].poll_event().is_some() {}
        }
        let arrival = under_way.peek().map(|Reverse((at, ..))| *at);
        let timers = ends.iter().filter_map(Stack::poll_at).map(|at| path.reaches(at));
        let next = timers.chain(arrival).min().expect("something goes on");
        now = now.max(next);
        assert!(now < Instant::from_secs(120), "{received} bytes in two minutes");
        ends.iter_mut().for_each(|stack| stack.advance(path.shown(now)));
        while under_way.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((_, _, end, packet))) = under_way.pop() else { break };
            ends[end].receive(path.shown(now), &packet[..]);
        }
    }
    let spurious = ends[1].counters().tcp_dsack_sent;
    let counters = ends[0].counters();
    let transfer = Transfer {
        seconds: (now - Instant::from_secs(1)).as_secs_f64(),
        retransmitted: counters.retrans_segs,
        spurious,
        timeouts: counters.tcp_timeouts,
    };
    println!(
        "{:.2} s, {} retransmitted, {} of them spurious, {} timeouts",
        transfer.seconds, transfer.retransmitted, transfer.spurious, transfer.timeouts
    );
    transfer
}

fn arrives(_: &mut Chance, _: usize) -> Fate {
    Fate::Arrives
}

#[test]
fn a_clean_path_carries_its_rate() {
    let transfer = transfer(arrives, arrives, |_| {});
    assert!(transfer.seconds < 1.1, "{:.2}", transfer.seconds);
    assert_eq!((transfer.retransmitted, transfer.timeouts), (0, 0));
}

/// 8985-4, 8985-14: one segment in ten is late by 1 to 8 ms.
#[test]
fn late_segments_do_not_slow_a_transfer_down_8985_4() {
    let late = |chance: &mut Chance, _| match chance.below(10) {
        0 => Fate::Late(Duration::from_micros(1000 + chance.below(7000))),
        _ => Fate::Arrives,
    };
    let transfer = transfer(late, arrives, |_| {});
    assert!(transfer.seconds < 1.35, "{:.2}", transfer.seconds);
    assert_eq!(transfer.timeouts, 0);
}

/// 8985-4: each segment is late by up to 4 ms.
#[test]
fn jitter_does_not_slow_a_transfer_down_8985_4() {
    let jitter = |chance: &mut Chance, _| Fate::Late(Duration::from_micros(chance.below(4000)));
    let transfer = transfer(jitter, arrives, |_| {});
    assert!(transfer.seconds < 1.2, "{:.2}", transfer.seconds);
    assert_eq!(transfer.timeouts, 0);
}

/// 9406-2: half of the ACKs are lost.
#[test]
fn lost_acks_do_not_slow_a_transfer_down_9406_2() {
    let half = |chance: &mut Chance, _| if chance.below(2) == 0 { Fate::Lost } else { Fate::Arrives };
    let transfer = transfer(arrives, half, |_| {});
    assert!(transfer.seconds < 1.3, "{:.2}", transfer.seconds);
}

/// 8985-16: one segment in a hundred is lost, the retransmissions as well.
#[test]
fn losses_are_repaired_without_timeouts_8985_16() {
    let loss = |chance: &mut Chance, len: usize| match chance.below(100) {
        0 if len > 1000 => Fate::Lost,
        _ => Fate::Arrives,
    };
    let transfer = transfer(loss, arrives, |_| {});
    assert!(transfer.seconds < 12.0, "{:.2}", transfer.seconds);
    assert!(transfer.timeouts <= 1, "{}", transfer.timeouts);
}

/// One segment in a hundred.
fn one_in_a_hundred(chance: &mut Chance, len: usize) -> Fate {
    if len > 1000 && chance.below(100) == 0 { Fate::Lost } else { Fate::Arrives }
}

/// 8985-15, 8985-29: clocks from 1 µs to 15.6 ms, whether the stack knows their resolution or not, and a round trip of
/// 1 ms. Without a loss nothing is sent again, and with losses nothing that arrived.
#[test]
fn a_coarse_clock_loses_nothing_8985_15() {
    for micros in [1, 500, 15_600] {
        let clock = Duration::from_micros(micros);
        let path = Path { delay: Duration::from_micros(500), clock, ..USUAL };
        for known in [false, true] {
            let configure = |config: &mut Config| {
                if known {
                    config.clock_resolution = clock;
                }
            };
            let clean = transfer_over(&path, arrives, arrives, configure);
            assert_eq!((clean.retransmitted, clean.timeouts), (0, 0), "{micros} µs");
            let lossy = transfer_over(&path, one_in_a_hundred, arrives, configure);
            assert_eq!(lossy.spurious, 0, "{micros} µs");
            assert!(lossy.seconds < 20.0, "{:.2}", lossy.seconds);
        }
    }
}

/// 8985-4: the ACK comes in the same instant. Nothing hangs, and nothing is divided by the round trip.
#[test]
fn a_round_trip_of_zero_carries_everything_8985_4() {
    let path = Path { rate: u64::MAX, delay: Duration::ZERO, ..USUAL };
    let clean = transfer_over(&path, arrives, arrives, |_| {});
    assert_eq!((clean.retransmitted, clean.timeouts), (0, 0));
    let lossy = transfer_over(&path, one_in_a_hundred, arrives, |_| {});
    assert!(lossy.seconds < 20.0, "{:.2}", lossy.seconds);
}

/// 8985-15, 6298-2: a round trip of a second. Without a loss no data is sent again, and with losses none that arrived.
#[test]
fn a_round_trip_of_a_second_loses_nothing_8985_15() {
    let path = Path { delay: Duration::from_millis(500), len: 1 << 20, ..USUAL };
    let clean = transfer_over(&path, arrives, arrives, |_| {});
    // The SYN, whose RTO is a second.
    assert_eq!((clean.retransmitted, clean.timeouts), (1, 0));
    assert!(clean.seconds < 12.0, "{:.2}", clean.seconds);
    let lossy = transfer_over(&path, one_in_a_hundred, arrives, |_| {});
    assert_eq!(lossy.spurious, 0);
    assert!(lossy.seconds < 60.0, "{:.2}", lossy.seconds);
}

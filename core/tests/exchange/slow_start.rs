//! The initial slow start over a path: how far the window grows before a queue overflows, with and without jitter (RFC
//! 9406).

use std::collections::VecDeque;

use steadfast_core::info::Info;
use steadfast_core::{Config, Duration, Instant};

use crate::harness::{FULL, Test};

/// A path to a peer that acknowledges each segment.
struct Path {
    /// Bytes per second of the bottleneck; 0: there is none.
    rate: u64,
    round_trip: Duration,
    /// Most delay beyond that, drawn for each ACK; their order stays.
    jitter: Duration,
    random: u64,
    /// When the bottleneck is idle again.
    idle_at: Instant,
    acks: VecDeque<(Instant, u32)>,
    /// Most bytes that waited at the bottleneck.
    queued: u64,
    end: u32,
}

impl Path {
    fn new(rate: u64, round_trip: u64, jitter: u64, seed: u64) -> Path {
        let (round_trip, jitter) = (Duration::from_millis(round_trip), Duration::from_millis(jitter));
        let (idle_at, acks) = (Instant::ZERO, VecDeque::new());
        Path { rate, round_trip, jitter, random: seed, idle_at, acks, queued: 0, end: 1 }
    }

    /// Not by [`Test::pump`], which recounts the whole stack after each segment.
    fn carry(&mut self, t: &mut Test) {
        let mut frame = [0; 1500];
        while let Some(transmit) = t.stack.transmit(t.now, &mut frame) {
            self.end += (transmit.len - 52) as u32;
            let size = transmit.len as u64;
            let mut left = t.now;
            if self.rate > 0 {
                let start = self.idle_at.max(t.now);
                self.queued = self.queued.max((start - t.now).as_micros() as u64 * self.rate / 1_000_000);
                self.idle_at = start + Duration::from_nanos(size * 1_000_000_000 / self.rate);
                left = self.idle_at;
            }
            self.random =
                self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let delay = self.jitter.mul_f64((self.random >> 40) as f64 / (1u64 << 24) as f64);
            let at = left + self.round_trip + delay;
            self.acks.push_back((self.acks.back().map_or(at, |(last, _)| at.max(*last)), self.end));
        }
    }

    /// Carries data for `time` at the most, until `done`.
    fn run(&mut self, t: &mut Test, time: Duration, done: impl Fn(&Info) -> bool) -> Info {
        let end = t.now + time;
        loop {
            self.carry(t);
            let info = t.stack.info(t.now, t.sock).unwrap();
            let ack = self.acks.front().map_or(end, |(at, _)| *at);
            let next = t.stack.poll_at().map_or(ack, |at| at.min(ack));
            if done(&info) || next >= end {
                return info;
            }
            t.now = t.now.max(next);
            t.stack.advance(t.now);
            if next == ack {
                let (_, number) = self.acks.pop_front().unwrap();
                let packet = t.packet(&format!(". seq 1 ack {number}"));
                t.stack.receive(t.now, &packet[..]);
            }
        }
    }
}

/// A connection with much to send, over a path whose round trip the handshake has not seen.
fn bulk(configure: impl Fn(&mut Config)) -> Test {
    let mut t = Test::new(false, true, |config| {
        config.tcp_sndbuf = 32 << 20;
        config.tcp_notsent_lowat = u32::MAX;
        configure(config);
    });
    t.listen();
    t.send("S seq 0 <sackOK, wscale 10>");
    t.recv_any().expect("a SYN-ACK");
    t.send(". seq 1 ack 1");
    t.sock = t.accept();
    t.stack.send(t.sock, &vec![0; 24 << 20]).unwrap();
    t
}

/// 9406-2, 9406-8: slow start ends within five conservative rounds of the first that finds a queue. The path holds 50 kB,
/// so that this is one of 160 kB at the most, and 1.25^5 times as much is less than 500 kB.
#[test]
fn slow_start_ends_before_the_queue_overflows_9406_2() {
    // 10 Mbit/s and 40 ms.
    let queued = |hystart: bool| {
        let mut t = bulk(|config| config.tcp_hystart = hystart);
        let mut path = Path::new(1_250_000, 40, 0, 1);
        let info = path.run(&mut t, Duration::from_secs(3), |_| false);
        (path.queued, info)
    };
    let (most, info) = queued(true);
    assert!(most < 500_000 - 50_000, "{most} bytes waited");
    assert!(info.snd_ssthresh < u32::MAX && info.snd_cwnd > 50_000, "{info:?}");
    assert_eq!(info.total_retrans, 0);
    let (most, info) = queued(false);
    assert!(most > 900_000 && info.snd_ssthresh == u32::MAX, "{most} bytes waited");
}

/// 9406-3, 9406-6: round trips that vary and do not grow cost at most three tenths more time than slow start alone.
#[test]
fn jitter_does_not_end_slow_start_9406_3() {
    const FAST: u32 = 2500 * FULL;
    for seed in 1..=4 {
        let time = |hystart: bool| {
            let mut t = bulk(|config| config.tcp_hystart = hystart);
            let start = t.now;
            let info =
                Path::new(0, 40, 15, seed).run(&mut t, Duration::from_secs(10), |info| info.snd_cwnd >= FAST);
            assert!(info.snd_cwnd >= FAST && info.snd_ssthresh == u32::MAX, "{info:?}");
            t.now - start
        };
        let (with, without) = (time(true), time(false));
        assert!(with <= without.mul_f64(1.3), "{with:?} instead of {without:?}");
    }
}

/// 9406-4: where one ACK answers the whole flight, as from a receiver that merges segments, the window still doubles in a
/// round, and the few samples do not end slow start.
#[test]
fn one_ack_for_a_flight_doubles_the_window_9406_4() {
    let mut t = bulk(|_| {});
    let mut end = 1;
    for round in 1..=6 {
        while let Some(got) = t.recv_any() {
            end += got.payload.len() as u32;
        }
        t.wait(20 * round);
        t.send(&format!(". seq 1 ack {end}"));
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.snd_cwnd, info.snd_ssthresh), ((10 << round) * FULL, u32::MAX));
    }
}

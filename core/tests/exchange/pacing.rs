//! Pacing: new data leaves at a rate, in quanta (RFC 9002 §7.7).

use std::collections::VecDeque;

use steadfast_core::{Config, Duration, Instant};

use crate::harness::{Test, each, each_with};

/// A connection with a round trip of 20 ms whose first data is acknowledged: from here on, new data is paced.
fn start(t: &mut Test, rate: u64) {
    t.listen();
    t.send("S seq 0 <sackOK, wscale 7>");
    t.recv_any().expect("a SYN-ACK");
    t.wait(20);
    t.send(". seq 1 ack 1");
    t.sock = t.accept();
    t.set_options(|options| options.max_pacing_rate = rate);
    t.write(1000);
    assert_eq!(t.drain(), 1);
    t.wait(20);
    t.send(". seq 1 ack 1001");
}

/// The data that leaves within `time`, while the application always has more. The stack is woken at multiples of
/// `clock`, and each packet is acknowledged 20 ms after it left.
fn carry(t: &mut Test, time: Duration, clock: Duration) -> Vec<(Instant, u64)> {
    let (start, end) = (t.now, t.now + time);
    let (mut number, mut acks, mut sent) = (1001, VecDeque::new(), Vec::new());
    let mut frame = vec![0; 65_535];
    let headers = if t.v6 { 60 } else { 40 } + if t.ts { 12 } else { 0 };
    while t.now < end {
        let _ = t.stack.send(t.sock, &[0; 65_536]);
        while let Some(transmit) = t.stack.transmit(t.now, &mut frame) {
            let len = transmit.len as u32 - headers;
            number += len;
            acks.push_back((t.now + Duration::from_millis(20), number));
            sent.push((t.now, u64::from(len)));
        }
        let ack = acks.front().map_or(end, |(at, _)| *at);
        let next = t.stack.poll_at().map_or(ack, |at| at.min(ack)).max(t.now);
        let ticks = (next - start).as_nanos().div_ceil(clock.as_nanos()) as u32;
        t.now = start + clock * ticks;
        t.stack.advance(t.now);
        while acks.front().is_some_and(|(at, _)| *at <= t.now)
            && let Some((_, number)) = acks.pop_front()
        {
            let packet = t.packet(&format!(". seq 1 ack {number}"));
            t.stack.receive(t.now, &packet[..]);
        }
    }
    while let Some((_, number)) = acks.pop_front() {
        t.send(&format!(". seq 1 ack {number}"));
    }
    t.drain();
    sent
}

/// Checks that no interval carries more than its share and two quanta.
fn check_bound(sent: &[(Instant, u64)], rate: u64, quantum: u64) {
    for first in 0..sent.len() {
        let mut bytes = 0;
        for (at, len) in &sent[first..] {
            bytes += len;
            let share = (*at - sent[first].0).as_nanos() as u64 * rate / 1_000_000_000;
            assert!(bytes <= share + 2 * quantum + 1, "{bytes} bytes in {:?}", *at - sent[first].0);
        }
    }
}

/// PACE-2, PACE-3, PACE-5: the rate is kept, whether the driver has a fine clock or one of a millisecond, and no interval
/// carries more than its share and two quanta.
#[test]
fn max_pacing_rate_bounds_every_interval_pace_2() {
    for (rate, quantum) in [(1_250_000, 2000), (8_000_000, 8000)] {
        for clock in [Duration::from_micros(1), Duration::from_millis(1)] {
            each(|t| {
                start(t, rate);
                let sent = carry(t, Duration::from_millis(400), clock);
                // The window grows from ten segments to what the rate needs.
                let settled: Vec<_> =
                    sent.into_iter().skip_while(|(at, _)| *at < Instant::from_millis(10_240)).collect();
                check_bound(&settled, rate, quantum);
                let bytes: u64 = settled.iter().map(|(_, len)| len).sum();
                let time = settled[settled.len() - 1].0 - settled[0].0;
                let share = time.as_micros() as u64 * rate / 1_000_000;
                assert!(bytes.abs_diff(share) <= share / 100 + 2 * quantum, "{bytes} instead of {share}");
            });
        }
    }
}

/// PACE-3: a device that cuts super-segments gets none longer than the quantum.
#[test]
fn super_segments_keep_to_the_quantum_pace_3() {
    let mut t = Test::new(false, true, |_| {});
    t.offload();
    start(&mut t, 8_000_000);
    let sent = carry(&mut t, Duration::from_millis(300), Duration::from_micros(1));
    check_bound(&sent, 8_000_000, 8000);
    let longest = sent.iter().map(|(_, len)| *len).max();
    assert_eq!(longest, Some(8000));
}

/// PACE-1: without a limit of its own a connection leaves at twice the window in a round trip, and in congestion
/// avoidance at 1.2 times as much.
#[test]
fn the_window_gives_the_rate_pace_1() {
    let on = |config: &mut Config| config.tcp_pacing = true;
    each_with(on, |t| {
        start(t, u64::MAX);
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_cwnd, 10_000);
        let srtt = t.stack.info(t.now, t.sock).unwrap().rtt;
        let rate = (20_000.0 / srtt.as_secs_f64()) as u64;
        t.write(10_000);
        // Two segments at once, and all within half a round trip.
        assert_eq!(t.drain(), 2);
        let from = t.now;
        let mut count = 2;
        while count < 10 {
            t.now = t.stack.poll_at().expect("pacing wakes the driver");
            t.stack.advance(t.now);
            count += t.drain();
        }
        let expected = Duration::from_nanos(8000 * 1_000_000_000 / rate);
        let off = (t.now - from).as_nanos().abs_diff(expected.as_nanos());
        assert!(off <= 100_000, "{:?} instead of {expected:?}", t.now - from);
        t.send(". seq 1 ack 11001");
        t.drain();
    });
}

/// PACE-6: neither an ACK nor a retransmission waits. PACE-4: nor does the first flight.
#[test]
fn acks_and_retransmissions_do_not_wait_pace_6() {
    each(|t| {
        start(t, 1000);
        t.write(9000);
        // A quantum of two segments, then one in each second.
        assert_eq!(t.drain(), 2);
        t.send("P. seq 1:1001 ack 1001");
        t.recv(". seq 3001 ack 1001");
        // The first of the two is lost.
        t.send(". seq 1001 ack 1001 <sack 2001:3001>");
        t.wait(30);
        let again = t.recv_any().expect("a retransmission");
        assert_eq!(again.header.seq.since(t.cur().irs.unwrap()), 1001);
        t.send(". seq 1001 ack 3001");
        t.recv_nothing();
    });
    each(|t| {
        t.listen();
        t.send("S seq 0 <sackOK>");
        t.recv_any().expect("a SYN-ACK");
        t.send(". seq 1 ack 1");
        t.sock = t.accept();
        t.set_options(|options| options.max_pacing_rate = 1000);
        t.write(10_000);
        assert_eq!(t.drain(), 10);
        t.send(". seq 1 ack 10001");
    });
}

/// PACE-7: data that pacing holds back is no sign that the application has none, so that the window grows.
#[test]
fn a_window_that_pacing_holds_back_is_used_pace_7() {
    each(|t| {
        start(t, 100_000);
        t.write(20_000);
        assert_eq!(t.drain(), 2);
        t.send(". seq 1 ack 3001");
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_cwnd, 12_000);
        t.drain();
    });
}

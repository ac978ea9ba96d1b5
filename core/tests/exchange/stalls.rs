//! A caller that stalls: ACKs wait in the device, timers run late. Neither is a loss. The round trip is 20 ms.

use steadfast_core::info::CaState;
use steadfast_core::{Config, Duration, Instant};

use crate::harness::{Test, each, each_with};
use crate::recovery::{path, state, write};

/// Retransmissions, timeouts and loss probes so far.
fn sent_again(t: &Test) -> (u64, u64, u64) {
    let counters = t.stack.counters();
    (counters.retrans_segs, counters.tcp_timeouts, counters.tcp_loss_probes)
}

/// The caller does nothing for a while.
fn stall(t: &mut Test, millis: u64) {
    t.now += Duration::from_millis(millis);
}

/// The device has more than the caller has read.
fn advance_busy(t: &mut Test) {
    t.stack.advance_busy(t.now);
    t.pump();
}

fn with_probes(config: &mut Config) {
    config.tcp_early_retrans = 3;
}

/// 8985-31: ACKs wait for 300 ms, and the first packets that are read are of others. Nothing is sent again, with or without
/// loss probes, and the long round trip is one sample.
#[test]
fn acks_in_the_device_are_heard_before_anything_is_sent_again_8985_31() {
    for probes in [false, true] {
        let configure = |config: &mut Config| config.tcp_early_retrans = if probes { 3 } else { 0 };
        each_with(configure, |t| {
            path(t);
            write(t, 10);
            stall(t, 300);
            advance_busy(t);
            t.recv_nothing();
            for ack in 1..=10 {
                t.send(&format!(". seq 1 ack {}", 1 + ack * 1000));
                advance_busy(t);
            }
            t.stack.advance(t.now);
            t.recv_nothing();
            assert_eq!(sent_again(t), (0, 0, 0));
            let info = t.stack.info(t.now, t.sock).unwrap();
            // 7/8 of 20 ms, and 1/8 of 300 ms.
            assert_eq!((info.rtt.as_millis(), info.ca_state), (55, CaState::Open));
        });
    }
}

/// 8985-31: the time for reordered data is over, and the ACK that covers it waits in the device.
#[test]
fn a_late_segment_whose_ack_waits_in_the_device_is_not_lost_8985_31() {
    each(|t| {
        path(t);
        write(t, 2);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:2001>");
        stall(t, 300);
        advance_busy(t);
        t.recv_nothing();
        t.send(". seq 1 ack 2001");
        t.stack.advance(t.now);
        assert_eq!((sent_again(t), state(t)), ((0, 0, 0), CaState::Open));
    });
}

/// 8985-31: an empty device holds no ACK: the timer runs at once.
#[test]
fn an_empty_device_ends_the_wait_of_a_timer_8985_31() {
    each(|t| {
        path(t);
        write(t, 10);
        stall(t, 300);
        advance_busy(t);
        t.recv_nothing();
        stall(t, 1);
        t.stack.advance(t.now);
        t.recv(". seq 1:1001 ack 1");
        assert_eq!(sent_again(t), (1, 1, 0));
    });
}

/// 8985-31: a device that is never empty delays a timer by a round trip, and no further.
#[test]
fn a_device_that_is_never_empty_delays_a_timer_by_a_round_trip_8985_31() {
    each(|t| {
        path(t);
        write(t, 10);
        stall(t, 200);
        for _ in 0..20 {
            advance_busy(t);
            t.recv_nothing();
            stall(t, 1);
        }
        advance_busy(t);
        t.recv(". seq 1:1001 ack 1");
        // The back-off has doubled the RTO, and the next wait is a full one.
        stall(t, 400);
        for _ in 0..20 {
            advance_busy(t);
            t.recv_nothing();
            stall(t, 1);
        }
        advance_busy(t);
        t.recv(". seq 1:1001 ack 1");
        assert_eq!(sent_again(t).1, 2);
    });
}

/// 8985-28: packets that arrived 20 ms and 25 ms after they were answered, and are processed 100 ms later. The round trips
/// are those of their arrival.
#[test]
fn round_trips_end_when_an_ack_arrives_8985_28() {
    each_with(with_probes, |t| {
        path(t);
        write(t, 1);
        let arrived = t.now + Duration::from_millis(20);
        let ack = t.packet(". seq 1 ack 1001");
        stall(t, 100);
        t.stack.receive(arrived, &ack[..]);
        t.stack.advance(t.now);
        t.recv_nothing();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().rtt, Duration::from_millis(20));
        assert_eq!(sent_again(t), (0, 0, 0));
    });
}

/// 8985-30: the timer for reordered data runs 300 ms late. Data that was sent after it was set is not judged by its clock.
#[test]
fn a_late_reordering_timer_judges_by_its_target_8985_30() {
    each(|t| {
        path(t);
        write(t, 2);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:2001>");
        t.wait(4);
        write(t, 2);
        stall(t, 300);
        t.stack.advance(t.now);
        t.recv(". seq 1:1001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 4001");
        assert_eq!(sent_again(t), (1, 0, 0));
    });
}

/// 8985-30, 8985-17: a timeout that runs 60 ms late spares what its target would have spared.
#[test]
fn a_late_timeout_judges_by_its_target_8985_30() {
    each(|t| {
        path(t);
        write(t, 2);
        t.wait(195);
        write(t, 2);
        stall(t, 60);
        t.stack.advance(t.now);
        t.recv(". seq 1:1001 ack 1");
        // The first one again, and the two that were sent 5 ms before the target.
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().in_flight, 3000);
        t.wait(20);
        t.send(". seq 1 ack 1001 <sack 2001:4001>");
        t.recv(". seq 1001:2001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 4001");
        t.recv_nothing();
        assert_eq!(sent_again(t), (2, 1, 0));
    });
}

/// 8985-1: send times are microseconds modulo 2^32. They wrap within a flight, 71.6 minutes after the epoch.
#[test]
fn send_times_may_wrap_within_a_flight_8985_1() {
    for before in [5, 15, 25, 45] {
        each(|t| {
            // The handshake takes 20 ms.
            t.now = Instant::from_millis((1 << 32) / 1000 - 20 - before);
            path(t);
            write(t, 4);
            t.wait(20);
            t.send(". seq 1 ack 1 <sack 1001:2001>");
            t.recv_after(5, ". seq 1:1001 ack 1");
            t.wait(15);
            t.send(". seq 1 ack 1 <sack 1001:4001>");
            t.recv_nothing();
            t.wait(5);
            t.send(". seq 1 ack 4001");
            t.recv_nothing();
            assert_eq!((sent_again(t), state(t)), ((1, 0, 0), CaState::Open));
        });
    }
}

/// 8985-29: the clock ticks every 15.6 ms, so that two segments seem that far apart. The first one is only late, within the
/// reordering window.
#[test]
fn the_resolution_of_the_clock_is_part_of_the_threshold_8985_29() {
    let tick = Duration::from_micros(15_600);
    each_with(
        |config| config.clock_resolution = tick,
        |t| {
            path(t);
            write(t, 1);
            t.now += tick;
            write(t, 1);
            t.now += tick;
            t.send(". seq 1 ack 1 <sack 1001:2001>");
            t.recv_nothing();
            t.wait(4);
            t.send(". seq 1 ack 2001");
            assert_eq!((sent_again(t), state(t)), ((0, 0, 0), CaState::Open));
        },
    );
}

/// 6298-13: the first segment is retransmitted shortly before its RTO. The timeout waits for the ACK.
#[test]
fn a_timeout_waits_for_the_ack_of_a_retransmission_6298_13() {
    each(|t| {
        path(t);
        write(t, 4);
        t.wait(190);
        t.send(". seq 1 ack 1 <sack 1001:4001>");
        t.recv(". seq 1:1001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 4001");
        assert_eq!((sent_again(t), state(t)), ((1, 0, 0), CaState::Open));
    });
}

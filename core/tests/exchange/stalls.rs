//! A caller or a device that stalls: ACKs and frames wait in the device, timers run late. None of this is a loss. The round
//! trip is 20 ms.

use steadfast_core::info::CaState;
use steadfast_core::trace::State;
use steadfast_core::{Config, Duration, Error, Instant, Transmit};

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

/// Frames that the device does not take.
struct Held(Vec<(Transmit, Vec<u8>)>);

impl Held {
    /// The device takes none of what the stack has.
    fn by_device(t: &mut Test) -> Held {
        let mut frame = vec![0; 65_535];
        let mut held = Vec::new();
        while let Some(transmit) = t.stack.transmit(t.now, &mut frame) {
            held.push((transmit, frame[..transmit.len].to_vec()));
        }
        Held(held)
    }

    /// They still wait, after so many milliseconds more.
    fn wait(&self, t: &mut Test, millis: u64) {
        stall(t, millis);
        for (transmit, frame) in &self.0 {
            t.stack.delay(t.now, frame, transmit);
        }
        t.stack.advance_busy(t.now);
        assert_eq!(t.stack.check_consistent(), Ok(()));
    }

    /// The device takes the first ones, and the peer gets them.
    fn leave(&mut self, t: &mut Test, count: usize) {
        for (_, frame) in self.0.drain(..count) {
            t.take_packet(&frame);
        }
        assert_eq!(t.drain(), count);
    }
}

/// Writes segments that the device holds back.
fn write_held(t: &mut Test, segments: u32) -> Held {
    assert_eq!(t.queue(segments * 1000), Ok(segments as usize * 1000));
    let held = Held::by_device(t);
    assert_eq!(held.0.len(), segments as usize);
    held
}

/// 8985-35: the RTO and the loss probe pass from when the frames leave on. The round trip is that of the path.
#[test]
fn timers_begin_when_a_frame_leaves_the_device_8985_35() {
    for (probes, rto) in [(false, 200), (true, 40)] {
        let configure = |config: &mut Config| config.tcp_early_retrans = if probes { 3 } else { 0 };
        each_with(configure, |t| {
            path(t);
            let mut held = write_held(t, 2);
            for _ in 0..10 {
                held.wait(t, 100);
            }
            held.leave(t, 1);
            held.wait(t, 10);
            held.leave(t, 1);
            // The first segment left ten milliseconds before. The probe waits for the last one.
            let wait = if probes { rto } else { rto - 10 };
            t.wait(wait - 1);
            t.recv_nothing();
            t.wait(2);
            assert_eq!(t.drain(), 1);
            assert_eq!(sent_again(t), if probes { (1, 0, 1) } else { (1, 1, 0) });
        });
    }
    each(|t| {
        path(t);
        let mut held = write_held(t, 1);
        held.wait(t, 300);
        held.leave(t, 1);
        t.wait(20);
        t.send(". seq 1 ack 1001");
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().rtt, Duration::from_millis(20));
    });
}

/// 8985-35, 8985-3: a retransmission waits in the device when the ACK of the original comes. That ACK is none of a segment
/// that was sent after all others.
#[test]
fn a_retransmission_in_the_device_condemns_nothing_8985_35() {
    each(|t| {
        path(t);
        write(t, 4);
        t.wait(19);
        write(t, 2);
        t.wait(1);
        let packet = t.packet(". seq 1 ack 1 <sack 1001:4001>");
        t.stack.receive(t.now, &packet[..]);
        let mut held = Held::by_device(t);
        assert_eq!(held.0.len(), 1);
        held.wait(t, 21);
        t.send(". seq 1 ack 4001");
        held.leave(t, 1);
        t.wait(2);
        t.send(". seq 1 ack 6001");
        assert_eq!(sent_again(t), (1, 0, 0));
    });
}

/// 8985-35: new data that waits behind a retransmission was sent after it, however long both wait.
#[test]
fn frames_in_the_device_keep_their_order_8985_35() {
    each(|t| {
        path(t);
        write(t, 10);
        t.queue(5000).unwrap();
        t.wait(20);
        let packet = t.packet(". seq 1 ack 1 <sack 1001:9001>");
        t.stack.receive(t.now, &packet[..]);
        // The first segment again, and five new ones.
        let mut held = Held::by_device(t);
        assert_eq!(held.0.len(), 6);
        held.wait(t, 30);
        held.wait(t, 30);
        held.leave(t, 6);
        t.wait(20);
        // The new data arrived, and what was sent before it is lost.
        t.send(". seq 1 ack 1 <sack 1001:15001>");
        t.recv(". seq 1:1001 ack 1");
        assert_eq!(t.stack.counters().tcp_lost_retransmit, 1);
    });
}

/// 8985-35, MUST-20: a device that never sends again does not keep a connection for ever.
#[test]
fn a_device_that_blocks_for_ever_keeps_no_connection_8985_35() {
    each(|t| {
        path(t);
        let held = write_held(t, 2);
        let mut seconds = 0;
        while t.stack.state(t.sock) == Ok(State::Established) && seconds < 10_000 {
            held.wait(t, 10_000);
            seconds += 10;
        }
        // R2 is 924 s. Until it, and after each timeout, nothing happens for twenty turns of the driver.
        assert!((900..1400).contains(&seconds), "{seconds} s");
        assert_eq!(t.stack.take_error(t.sock), Ok(Some(Error::TimedOut)));
        t.drain();
    });
}

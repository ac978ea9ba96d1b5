//! Proportional rate reduction (RFC 9937), on a path with a round trip of 20 ms. The first data is sent at time 0.

use steadfast_core::Config;
use steadfast_core::config::CongestionControl;
use steadfast_core::info::CaState;

use crate::harness::{Test, each, each_with};
use crate::recovery::{path, state, window, write};
use crate::reduction::{ecn_path, marked_path};

fn twenty_segments_of_reno(config: &mut Config) {
    config.tcp_init_cwnd = 20;
    config.tcp_congestion_control = CongestionControl::Reno;
}

/// The paths of RFC 9937 §8: Reno, and 20 segments in flight, which the window permits. More is queued.
fn figure(test: impl Fn(&mut Test)) {
    each_with(twenty_segments_of_reno, |t| {
        path(t);
        t.write(60_000);
        // The initial window of RFC 6928 has room for a few bytes more.
        assert!(t.drain() >= 20);
        test(t);
    });
}

/// The peer selectively acknowledges from `first` on. Returns the window in segments after the ACK, and what was sent.
fn sack(t: &mut Test, first: u32, end: u32) -> (u32, String) {
    t.send(&format!(". seq 1 ack 1 <sack {first}:{end}>"));
    let cwnd = window(t).0 / 1000;
    (cwnd, sent(t))
}

/// New data is `N`, what is sent again is `R`.
fn sent(t: &mut Test) -> String {
    let mut sent = String::new();
    while let Some(got) = t.recv_any() {
        let seq = got.header.seq.since(t.cur().irs.unwrap());
        sent.push(if seq > t.nxt { 'N' } else { 'R' });
        t.nxt = t.nxt.max(seq);
        if let Some(timestamps) = got.header.options.timestamps {
            // The peer echoes it, so that no recovery seems spurious.
            t.cur_mut().ts_last = timestamps.val;
        }
    }
    sent
}

/// 9937-9: a mark reduces the window over a round trip, without silence: of five segments that arrive, four leave, as
/// Reno's 0.8 says (8511-1).
#[test]
fn a_mark_reduces_the_rate_evenly_9937_9() {
    each_with(twenty_segments_of_reno, |t| {
        ecn_path(t);
        t.write(60_000);
        let out = t.drain() as u32;
        assert!(out >= 20);
        t.nxt = 1 + out * 1000;
        let sent: Vec<_> = (1..=out)
            .map(|n| {
                t.send(&format!("E. seq 1 ack {}", 1 + n * 1000));
                assert_eq!(state(t), if n < out { CaState::Cwr } else { CaState::Open });
                sent(t).len()
            })
            .collect();
        assert!(sent.iter().all(|sent| *sent <= 1), "no burst: {sent:?}");
        assert!(sent.windows(3).all(|three| three.iter().sum::<usize>() > 0), "no silence: {sent:?}");
        let (cwnd, ssthresh, _) = window(t);
        assert_eq!((cwnd, ssthresh), (out * 800, out * 800));
        assert_eq!(sent.iter().sum::<usize>() as u32, out * 4 / 5);
    });
}

/// 9937-9: a loss in the window of data that was marked is repaired without a second reduction, and what proves it
/// spurious leaves the reduction of the mark.
#[test]
fn a_spurious_loss_leaves_the_reduction_of_a_mark_9937_9() {
    each(|t| {
        marked_path(t);
        t.send("E. seq 1 ack 1001");
        assert_eq!(window(t), (10_000, 8500, CaState::Cwr));
        t.send(". seq 1 ack 1001 <sack 2001:9001>");
        t.recv(". seq 1001:2001 ack 1");
        assert_eq!(state(t), CaState::Recovery);
        t.send(". seq 1 ack 9001 <sack 1001:2001>");
        assert_eq!(window(t), (8500, 8500, CaState::Open));
    });
}

/// RFC 9937 figure 1, 9937-1, 9937-5, 9937-6, 9937-8: the first of 20 segments is lost. The segments are spread over
/// the round trip, and at its end the window is half. The figure has the segment of ACK 20 at ACK 19 already; by the algorithm
/// of §6.2 nothing may leave there, since inflight is not above ssthresh.
#[test]
fn one_loss_of_twenty_halves_the_rate_evenly_9937_1() {
    figure(|t| {
        t.nxt = 19_001;
        let cwnd = [20, 20, 19, 18, 18, 17, 17, 16, 16, 15, 15, 14, 14, 13, 13, 12, 12, 11, 10, 10, 10];
        let out =
            ["N", "N", "R", "", "N", "", "N", "", "N", "", "N", "", "N", "", "N", "", "N", "", "", "N", "N"];
        t.wait(20);
        for (index, expected) in cwnd.into_iter().zip(out).enumerate() {
            if index == 19 {
                t.wait(20);
            }
            let ack = index as u32 + 1;
            let (cwnd, sent) = sack(t, 1001, 1001 + 1000 * ack);
            assert_eq!((cwnd, sent.as_str()), expected, "ACK {ack}");
        }
        t.send(". seq 1 ack 22001");
        assert_eq!((window(t), sent(t).as_str()), ((10_000, 10_000, CaState::Open), "N"));
    });
}

/// RFC 9937 figure 2, 9937-1, 9937-3: the first 15 of 20 segments are lost. Each ACK lets out what it delivers, not all that
/// the lost segments leave room for.
#[test]
fn a_burst_of_losses_causes_no_burst_9937_1() {
    figure(|t| {
        t.nxt = 19_001;
        let expected = [(20, "N"), (20, "N"), (5, "R"), (5, "R"), (5, "R")];
        t.wait(20);
        for (index, (cwnd, out)) in expected.into_iter().enumerate() {
            let (now, sent) = sack(t, 15_001, 16_001 + 1000 * index as u32);
            assert_eq!((now, sent.as_str()), (cwnd, out), "ACK {}", 15 + index);
        }
        // 9937-2: cumulative ACKs without a further loss: a segment more for each.
        t.wait(20);
        assert_eq!(sack(t, 15_001, 21_001).1, "R");
        assert_eq!(sack(t, 15_001, 22_001).1, "R");
        for (ack, out) in [(1001, "RR"), (2001, "RR"), (3001, "RR")] {
            t.send(&format!(". seq 1 ack {ack} <sack 15001:22001>"));
            assert_eq!(sent(t), out, "ACK of {ack}");
        }
    });
}

/// 8985-24, 9937-2, RFC 8985 §9.3: a whole flight is lost. The probe shows it, and the repair doubles each round trip. The
/// window at the end is the threshold.
#[test]
fn a_lost_flight_is_repaired_in_four_round_trips_9937_2() {
    each_with(
        |config| config.tcp_early_retrans = 3,
        |t| {
            path(t);
            write(t, 10);
            t.recv_after(40, "P. seq 9001:10001 ack 1");
            t.wait(20);
            t.send(". seq 1 ack 1 <sack 9001:10001>");
            assert_eq!(sent(t).len(), 1);
            let (mut una, mut out) = (1, 1);
            for expected in [2, 4, 2] {
                t.wait(20);
                let mut now = 0;
                for _ in 0..out {
                    una += 1000;
                    t.send(&format!(". seq 1 ack {una} <sack 9001:10001>"));
                    now += sent(t).len();
                }
                assert_eq!(now, expected, "after {una}");
                out = now;
            }
            t.wait(20);
            t.send(". seq 1 ack 10001");
            assert_eq!(window(t), (7000, 7000, CaState::Open));
            assert_eq!(t.stack.counters().tcp_timeouts, 0);
        },
    );
}

/// 9937-1, F4: one block reports much at once. No more is sent than was delivered.
#[test]
fn a_large_block_lets_out_what_it_delivers_9937_1() {
    figure(|t| {
        t.wait(20);
        t.nxt = 19_001;
        // All but the first and the last eight.
        let (_, sent) = sack(t, 1001, 12_001);
        assert!(sent.len() <= 11 && sent.starts_with('R'), "{sent}");
        let in_flight = t.stack.info(t.now, t.sock).unwrap().in_flight;
        assert!(in_flight <= 10_000, "{in_flight}: the threshold");
    });
}

/// 9937-7, THREAT-45: without SACK a thousand forged duplicate ACKs let out no more than was in flight.
#[test]
fn forged_duplicates_let_out_at_most_a_flight_9937_7() {
    each(|t| {
        t.listen();
        t.send("S seq 0 <wscale 0>");
        t.recv("S. seq 0 ack 1 <mss 1460, wscale 0>");
        t.wait(20);
        t.send(". seq 1 ack 1");
        t.sock = t.accept();
        t.write(60_000);
        assert_eq!(t.drain(), 10);
        t.wait(20);
        let mut out = 0;
        for _ in 0..1000 {
            t.send(". seq 1 ack 1");
            out += t.drain();
        }
        assert!(out <= 2 + 10, "limited transmit, and the flight: {out}");
    });
}

/// 9937-1, F5: the application has nothing to send at first. When it has, the flight catches up with the proportion.
#[test]
fn a_sender_that_pauses_in_recovery_catches_up_9937_1() {
    each(|t| {
        path(t);
        write(t, 10);
        t.wait(20);
        for end in 2..9 {
            t.send(&format!(". seq 1 ack 1 <sack 1001:{}001>", end + 1));
            t.drain();
        }
        t.write(20_000);
        let in_flight = |t: &Test| t.stack.info(t.now, t.sock).unwrap().in_flight;
        t.drain();
        t.send(". seq 1 ack 1 <sack 1001:10001>");
        t.drain();
        assert_eq!((in_flight(t), state(t)), (7000, CaState::Recovery));
    });
}

/// 9937-3, F7: much was selectively acknowledged before a loss shows. The first retransmission leaves nevertheless.
#[test]
fn recovery_begins_with_a_retransmission_9937_3() {
    each(|t| {
        path(t);
        write(t, 2);
        t.wait(20);
        // Reordering was seen.
        t.send(". seq 1 ack 1 <sack 1001:2001>");
        t.wait(4);
        t.send(". seq 1 ack 2001");
        t.write(60_000);
        t.drain();
        t.wait(20);
        t.send(". seq 1 ack 2001 <sack 3001:8001>");
        t.drain();
        t.recv_after(5, ". seq 2001:3001 ack 1");
        assert_eq!(state(t), CaState::Recovery);
        t.drain();
    });
}

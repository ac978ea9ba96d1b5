//! Receivers that lie about what arrived. No lie lets more into the network than the standard allows, and none takes memory
//! or work without bound. The round trip is 20 ms, and ten segments are in flight.

use steadfast_core::Config;
use steadfast_core::config::CongestionControl;
use steadfast_core::counters::DropReason;
use steadfast_core::info::CaState;

use crate::harness::{FULL, Test, each, each_with};
use crate::recovery::{path, state, window, write};

fn in_flight(t: &Test) -> u32 {
    t.stack.info(t.now, t.sock).unwrap().in_flight
}

/// Packets and payload bytes that were sent since the last look. The peer echoes their timestamps.
fn sent(t: &mut Test) -> (u32, u32) {
    let (mut packets, mut bytes) = (0, 0);
    while let Some(got) = t.recv_any() {
        if let Some(timestamps) = got.header.options.timestamps {
            t.cur_mut().ts_last = timestamps.val;
        }
        (packets, bytes) = (packets + 1, bytes + got.payload.len() as u32);
    }
    (packets, bytes)
}

fn sent_bytes(t: &mut Test) -> u32 {
    sent(t).1
}

/// 5961-7, THREAT-44: an ACK of what was never sent counts for nothing.
#[test]
fn an_ack_of_unsent_data_lets_nothing_out_threat_44() {
    each(|t| {
        path(t);
        t.write(60_000);
        assert_eq!(t.drain(), 10);
        let before = window(t);
        for ahead in [1, 1000, 60_000, 1 << 30] {
            t.send(&format!(". seq 1 ack {}", 10_001 + ahead));
            t.dropped(&[DropReason::AckOfUnsent]);
        }
        assert!(std::iter::from_fn(|| t.recv_any()).all(|got| got.payload.is_empty()), "ACKs that object");
        assert_eq!((window(t), in_flight(t)), (before, 10_000));
    });
}

/// 5681-2, THREAT-44: ACKs of data that may not have arrived yet. The window grows by what they cover, so that an ACK lets
/// out twice that at the most.
#[test]
fn optimistic_acks_grow_the_window_as_honest_ones_do_threat_44() {
    each_with(
        |config| config.tcp_sndbuf = 1 << 20,
        |t| {
            path(t);
            t.win = 65_535;
            t.write(120_000);
            let (mut una, mut nxt) = (1, 1 + sent_bytes(t));
            for part in [1, 7, 2, 3, 1, 5, 1] {
                let acked = (nxt - una) / part;
                una += acked;
                t.send(&format!(". seq 1 ack {una}"));
                let out = sent_bytes(t);
                // A segment that did not fit before may fit now.
                assert!(out <= 2 * acked + FULL, "{out} for {acked}");
                nxt += out;
                assert!(window(t).0 <= 10 * FULL + una, "{} after {una}", window(t).0);
            }
        },
    );
}

/// 5681-2, 5681-3, THREAT-44: ACKs of 50 bytes each. In slow start the window grows by what they cover, and later by a
/// segment for a whole window at the most.
#[test]
fn divided_acks_grow_the_window_as_whole_ones_do_threat_44() {
    let configure = |config: &mut Config| {
        config.tcp_sndbuf = 1 << 20;
        config.tcp_congestion_control = CongestionControl::Reno;
    };
    each_with(configure, |t| {
        path(t);
        t.write(200_000);
        assert_eq!(sent(t), (10, 10_000));
        t.wait(20);
        let mut una = 1;
        let divide = |t: &mut Test, una: &mut u32, bytes: u32| {
            for _ in 0..bytes / 50 {
                *una += 50;
                t.send(&format!(". seq 1 ack {una}"));
                sent(t);
            }
        };
        divide(t, &mut una, 10_000);
        assert_eq!((window(t).0, in_flight(t)), (20_000, 20_000));
        // The first of twenty segments is lost, and repaired.
        t.wait(20);
        t.send(&format!(". seq 1 ack {una} <sack {}:{}>", una + 1000, una + 20_000));
        sent(t);
        t.wait(20);
        una += 20_000;
        t.send(&format!(". seq 1 ack {una}"));
        sent(t);
        let (before, threshold, phase) = window(t);
        assert_eq!((before, phase), (threshold, CaState::Open));
        t.wait(20);
        divide(t, &mut una, before);
        let after = window(t).0;
        assert!((before..=before + FULL).contains(&after), "{after} after {before}");
    });
}

/// 9937-1, THREAT-44: in recovery each ACK that advances earns a segment. A thousand of a byte each fill the flight to the
/// threshold, and no further.
#[test]
fn divided_acks_in_recovery_fill_the_flight_to_the_threshold_threat_44() {
    each(|t| {
        path(t);
        write(t, 10);
        t.write(20_000);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:9001>");
        let mut most = 0;
        for byte in 1..=500 {
            t.send(&format!(". seq 1 ack {} <sack 1001:9001>", 1 + byte));
            most = most.max(in_flight(t));
            sent(t);
        }
        let (_, threshold, phase) = window(t);
        assert_eq!((threshold, phase), (7000, CaState::Recovery));
        assert!(most <= threshold, "{most}");
    });
}

/// 8985-33: D-SACKs of a connection that retransmitted nothing do not widen the reordering window.
#[test]
fn forged_d_sacks_without_a_retransmission_are_no_evidence_8985_33() {
    each(|t| {
        path(t);
        write(t, 2);
        t.wait(20);
        t.send(". seq 1 ack 2001");
        for _ in 0..100 {
            t.send(". seq 1 ack 2001 <sack 1:1001>");
        }
        write(t, 2);
        t.wait(20);
        t.send(". seq 1 ack 2001 <sack 3001:4001>");
        t.recv_after(5, ". seq 2001:3001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 4001");
    });
}

/// 8985-4, 8985-5: however many D-SACKs are forged, one in a round trip counts, and the reordering window ends at a round
/// trip.
#[test]
fn forged_d_sacks_widen_the_reordering_window_to_a_round_trip_at_the_most_8985_4() {
    each(|t| {
        path(t);
        let mut una = 1;
        let mut waits = Vec::new();
        for _ in 0..8 {
            write(t, 2);
            t.wait(20);
            t.send(&format!(". seq 1 ack {una} <sack {}:{}>", una + 1000, una + 2000));
            let mut waited = 0;
            while t.stack.counters().retrans_segs == waits.len() as u64 {
                t.wait(1);
                waited += 1;
            }
            waits.push(waited);
            sent(t);
            t.wait(20);
            una += 2000;
            for _ in 0..50 {
                t.send(&format!(". seq 1 ack {una} <sack {}:{}>", una - 2000, una - 1000));
            }
        }
        // A quarter of the round trip more for each.
        assert_eq!(waits, [5, 10, 15, 20, 20, 20, 20, 20]);
    });
}

/// 3708-1, 4015-1: a D-SACK of what was not retransmitted undoes nothing, nor does one that comes again.
#[test]
fn forged_d_sacks_do_not_undo_a_recovery_3708_1() {
    each(|t| {
        path(t);
        write(t, 10);
        t.write(10_000);
        t.wait(20);
        // The first three are lost.
        t.send(". seq 1 ack 1 <sack 3001:10001>");
        sent(t);
        t.send(". seq 1 ack 1 <sack 3001:10001>");
        sent(t);
        let reduced = window(t).1;
        t.wait(20);
        t.send(". seq 1 ack 3001 <sack 1:1001 3001:10001>");
        sent(t);
        for _ in 0..10 {
            t.send(". seq 1 ack 3001 <sack 1:1001 3001:10001>");
            sent(t);
        }
        assert_eq!((window(t).1, t.stack.counters().tcp_full_undo), (reduced, 0));
        assert_eq!(state(t), CaState::Recovery);
    });
}

/// THREAT-15, 8985-25: a thousand blocks of a byte each. The scoreboard is bounded, and no more leaves
/// than the window.
#[test]
fn blocks_of_a_byte_take_bounded_memory_and_let_nothing_more_out_threat_15() {
    let configure = |config: &mut Config| {
        config.tcp_init_cwnd = 60;
        config.tcp_max_sack_ranges = 32;
        config.tcp_sndbuf = 1 << 20;
    };
    each_with(configure, |t| {
        path(t);
        write(t, 60);
        t.write(100_000);
        t.wait(20);
        let held = t.stack.usage().held;
        let (mut packets, mut bytes) = (0, 0);
        for block in 1..=1000 {
            let at = block * 50;
            t.send(&format!(". seq 1 ack 1 <sack {at}:{}>", at + 1));
            let more = sent(t);
            (packets, bytes) = (packets + more.0, bytes + more.1);
        }
        let (cwnd, threshold, _) = window(t);
        assert!(in_flight(t) <= cwnd.max(threshold), "{} of {cwnd}", in_flight(t));
        // 60 segments are sent again at the most, each once, split at the acknowledged bytes.
        assert!(bytes <= 60_000 && packets <= 60 + 2 * 32, "{packets} packets, {bytes} bytes");
        assert!(t.stack.usage().held <= held + 32 * 24 * 4, "{}", t.stack.usage().held);
    });
}

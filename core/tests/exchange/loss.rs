//! Loss: duplicate ACKs, SACK, timeouts, and the recovery from each (RFC 5681, 6582, 6675, 2018).

use steadfast_core::info::CaState;
use steadfast_core::trace::State;

use crate::harness::each;

/// 5681-9, 5681-10, 5681-11, 6582-1, 6582-2: without SACK.
/// 9937-3: the first segment goes whatever the window says. 9438-5: ssthresh comes from the flight, not the window.
#[test]
fn three_duplicate_acks_start_new_reno_6582_2() {
    each(|t| {
        t.establish_plain();
        t.write(20_000);
        assert_eq!(t.drain(), 10);
        // The first and the third segment are lost. Limited transmit first (5681-10).
        t.send(". seq 1 ack 1");
        t.recv(". seq 10001:11001 ack 1");
        t.send(". seq 1 ack 1");
        t.recv(". seq 11001:12001 ack 1");
        t.send(". seq 1 ack 1");
        t.recv(". seq 1:1001 ack 1");
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!(info.ca_state, CaState::Recovery);
        assert_eq!(info.snd_ssthresh, 7000, "CUBIC: 0.7 of the flight, without limited transmit (9438-5)");
        t.drain();
        // A partial ACK: the next hole at once.
        t.send(". seq 1 ack 2001");
        t.recv(". seq 2001:3001 ack 1");
        t.drain();
        t.send(". seq 1 ack 12001");
        t.drain();
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.ca_state, info.total_retrans), (CaState::Open, 2));
        assert_eq!(t.stack.counters().tcp_reno_recovery, 1);
        assert_eq!(info.snd_cwnd, 7000);
    });
}

/// 5681-14: the retransmission is lost as well, and so window and threshold go down a second time.
#[test]
fn a_lost_retransmission_is_congestion_again_5681_14() {
    each(|t| {
        t.establish();
        t.write(10_000);
        assert_eq!(t.drain(), 10);
        t.send(". seq 1 ack 1 <sack 1001:10001>");
        t.recv(". seq 1:1001 ack 1");
        let first = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((first.snd_cwnd, first.snd_ssthresh), (7000, 7000));
        t.recv_after(200, ". seq 1:1001 ack 1");
        let second = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((second.snd_cwnd, second.ca_state), (1000, CaState::Loss));
        assert_eq!(second.snd_ssthresh, 4900, "0.7 of what the first loss left");
    });
}

/// 5681-9: what changes the window, brings data or acknowledges nothing outstanding is no duplicate.
#[test]
fn other_acks_are_no_duplicates_5681_9() {
    each(|t| {
        t.establish_plain();
        for _ in 0..5 {
            t.send(". seq 1 ack 1");
        }
        t.write(5000);
        assert_eq!(t.drain(), 5);
        for n in 0..5 {
            t.send(&format!(". seq 1 ack 1 win {}", 60_000 + n));
        }
        for n in 0..5 {
            t.send(&format!("P. seq {}:{} ack 1 win 60004", 1 + n * 10, 11 + n * 10));
        }
        t.drain();
        assert_eq!(t.stack.counters().retrans_segs, 0);
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().ca_state, CaState::Open);
    });
}

/// 8985-2, 8985-11, 6675-2: with SACK only the holes are sent again, and as many as are lost.
/// 9937-4: at the end the window is ssthresh.
#[test]
fn sack_fills_the_holes_alone_8985_2() {
    each(|t| {
        t.establish();
        t.write(10_000);
        assert_eq!(t.drain(), 10);
        // Lost are the first and the fourth.
        t.send(". seq 1 ack 1 <sack 1001:2001>");
        t.send(". seq 1 ack 1 <sack 1001:3001>");
        t.recv_nothing();
        t.send(". seq 1 ack 1 <sack 4001:6001 1001:3001>");
        t.recv(". seq 1:1001 ack 1");
        t.send(". seq 1 ack 1 <sack 4001:9001 1001:3001>");
        t.recv(". seq 3001:4001 ack 1");
        t.send(". seq 1 ack 1 <sack 4001:10001 1001:3001>");
        t.recv_nothing();
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.ca_state, info.sacked, info.total_retrans), (CaState::Recovery, 8000, 2));
        t.send(". seq 1 ack 3001 <sack 4001:10001>");
        t.recv_nothing();
        t.send(". seq 1 ack 10001");
        t.recv_nothing();
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.ca_state, info.snd_cwnd, info.snd_ssthresh), (CaState::Open, 7000, 7000));
        assert_eq!(t.stack.counters().tcp_sack_recovery, 1);
    });
}

/// 2018-6: blocks that lie outside of what was sent, or are no blocks, count for nothing (THREAT-42).
#[test]
fn impossible_sack_blocks_are_ignored_2018_6() {
    each(|t| {
        t.establish();
        t.write(5000);
        assert_eq!(t.drain(), 5);
        for block in ["6001:7001", "4001:6001", "3001:2001", "2001:2001"] {
            t.send(&format!(". seq 1 ack 1 <sack {block}>"));
        }
        t.recv_nothing();
        assert_eq!(t.stack.counters().tcp_sack_discard, 4);
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().sacked, 0);
        // A D-SACK is no news (2883-2).
        t.send(". seq 1 ack 1001");
        t.send(". seq 1 ack 1001 <sack 1:1001>");
        t.recv_nothing();
        assert_eq!(t.stack.counters().tcp_dsack_recv, 1);
    });
}

/// 2018-6: one ACK tells both, that data arrived in order and that there is a gap behind it.
#[test]
fn an_ack_that_advances_brings_its_sack_blocks_as_well_2018_6() {
    each(|t| {
        t.establish();
        t.write(5000);
        assert_eq!(t.drain(), 5);
        t.send(". seq 1 ack 1001 <sack 2001:3001>");
        t.recv_nothing();
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.unacked, info.sacked), (4000, 1000));
    });
}

/// 2018-4, 2018-5, THREAT-48: data that was acknowledged selectively is kept, and sent again when it must be.
#[test]
fn a_peer_that_reneges_gets_everything_again_2018_4() {
    each(|t| {
        t.reach(State::Established);
        t.write(3000);
        assert_eq!(t.drain(), 3);
        t.send(". seq 51 ack 101 <sack 1101:3101>");
        t.recv_after(1, ". seq 101:1101 ack 51");
        t.send(". seq 51 ack 1101");
        t.wait(2000);
        let mut seen = Vec::new();
        while let Some(got) = t.recv_any() {
            seen.push(got.header.seq.since(t.cur().irs.unwrap()));
        }
        assert!(seen.contains(&1101), "{seen:?}");
        t.send(". seq 51 ack 2101");
        t.wait(2000);
        t.drain();
        t.send(". seq 51 ack 3101");
        t.recv_nothing();
        assert_eq!(t.queued(), 0);
    });
}

/// 5681-7, 6582-3: after a timeout one segment, then slow start from the left edge.
/// 8961-1: a timeout is congestion.
#[test]
fn a_timeout_shrinks_the_window_to_one_segment_5681_7() {
    each(|t| {
        t.reach(State::Established);
        t.write(10_000);
        assert_eq!(t.drain(), 10);
        t.recv_after(200, ". seq 101:1101 ack 51");
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.snd_cwnd, info.snd_ssthresh, info.ca_state), (1000, 7000, CaState::Loss));
        t.send(". seq 51 ack 1101");
        t.recv(". seq 1101:2101 ack 51");
        t.recv(". seq 2101:3101 ack 51");
        t.recv_nothing();
        t.send(". seq 51 ack 10101");
        t.recv_nothing();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().ca_state, CaState::Open);
    });
}

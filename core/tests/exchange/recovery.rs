//! Loss detection by time (RFC 8985), on a path with a round trip of 20 ms. Time 0 is when the first data is sent.

use steadfast_core::info::CaState;

use crate::harness::{Test, each};

/// A connection whose handshake took 20 ms, and whose window is ten segments.
pub fn path(t: &mut Test) {
    t.listen();
    t.send("S seq 0 <sackOK, wscale 0>");
    t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
    t.wait(20);
    t.send(". seq 1 ack 1");
    t.sock = t.accept();
}

pub fn state(t: &Test) -> CaState {
    t.stack.info(t.now, t.sock).unwrap().ca_state
}

/// Writes segments, which leave at once.
pub fn write(t: &mut Test, segments: u32) {
    t.write(segments * 1000);
    assert_eq!(t.drain(), segments as usize);
}

/// 8985-4: without reordering, three segments above a gap mean loss at once.
#[test]
fn three_segments_above_a_gap_are_enough_8985_4() {
    each(|t| {
        path(t);
        write(t, 4);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:2001>");
        t.send(". seq 1 ack 1 <sack 1001:3001>");
        t.recv_nothing();
        t.send(". seq 1 ack 1 <sack 1001:4001>");
        t.recv(". seq 1:1001 ack 1");
        assert_eq!(state(t), CaState::Recovery);
        t.wait(20);
        t.send(". seq 1 ack 4001");
        t.recv_nothing();
        assert_eq!((state(t), t.stack.counters().tcp_timeouts), (CaState::Open, 0));
    });
}

/// 8985-4, 8985-6: below three, a quarter of the round trip passes first. No timeout is needed.
#[test]
fn a_gap_below_fewer_segments_is_lost_after_the_reordering_window_8985_6() {
    each(|t| {
        path(t);
        write(t, 2);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:2001>");
        t.recv_after(5, ". seq 1:1001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 2001");
        assert_eq!((state(t), t.stack.counters().tcp_timeouts), (CaState::Open, 0));
    });
}

/// 8985-4: segments count, not blocks: the last byte of the fourth segment is not three segments.
#[test]
fn a_byte_is_not_three_segments_8985_4() {
    each(|t| {
        path(t);
        write(t, 4);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 4000:4001>");
        // Everything below it is lost then.
        t.recv_after(5, ". seq 1:1001 ack 1");
        t.drain();
    });
}

/// 8985-14, 6675-3: data that was only late is not retransmitted, and later losses are given the same time.
#[test]
fn reordering_that_was_seen_makes_the_sender_patient_8985_14() {
    each(|t| {
        path(t);
        write(t, 2);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:2001>");
        t.wait(4);
        t.send(". seq 1 ack 2001");
        assert_eq!(state(t), CaState::Open);
        write(t, 4);
        t.wait(20);
        t.send(". seq 1 ack 2001 <sack 3001:6001>");
        t.recv_after(5, ". seq 2001:3001 ack 1");
        assert_eq!(t.stack.counters().retrans_segs, 1);
    });
}

/// 8985-16, 5681-14: a lost retransmission is found by what was sent after it, one round trip later. It is congestion
/// again.
#[test]
fn a_lost_retransmission_needs_no_timeout_8985_16() {
    each(|t| {
        path(t);
        write(t, 10);
        t.write(5000);
        t.wait(20);
        // The first one is lost. Its retransmission is lost as well.
        t.send(". seq 1 ack 1 <sack 1001:10001>");
        t.recv(". seq 1:1001 ack 1");
        assert_eq!(t.drain(), 5, "new data follows");
        let threshold = t.stack.info(t.now, t.sock).unwrap().snd_ssthresh;
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:15001>");
        t.recv(". seq 1:1001 ack 1");
        let counters = t.stack.counters();
        assert_eq!((counters.tcp_lost_retransmit, counters.tcp_timeouts), (1, 0));
        assert!(t.stack.info(t.now, t.sock).unwrap().snd_ssthresh < threshold);
        t.wait(20);
        t.send(". seq 1 ack 15001");
        t.recv_nothing();
        assert_eq!(state(t), CaState::Open);
    });
}

/// 8985-5: a D-SACK tells that the retransmission was needless. The reordering window grows by a quarter of the round
/// trip.
#[test]
fn a_d_sack_widens_the_reordering_window_8985_5() {
    each(|t| {
        path(t);
        write(t, 4);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:4001>");
        t.recv(". seq 1:1001 ack 1");
        t.wait(20);
        // The original was late, and right behind it comes the retransmission.
        t.send(". seq 1 ack 4001");
        t.send(". seq 1 ack 4001 <sack 1:1001>");
        assert_eq!(t.stack.counters().tcp_dsack_recv, 1);
        write(t, 2);
        t.wait(20);
        t.send(". seq 1 ack 4001 <sack 5001:6001>");
        t.recv_after(10, ". seq 4001:5001 ack 1");
    });
}

/// 8985-17: a timeout marks the first segment, and not what was sent a moment before. The arriving segments show what became of the rest.
#[test]
fn a_timeout_spares_what_was_sent_a_moment_ago_8985_17() {
    each(|t| {
        path(t);
        write(t, 2);
        t.wait(195);
        write(t, 2);
        t.recv_after(5, ". seq 1:1001 ack 1");
        t.wait(15);
        t.send(". seq 1 ack 1 <sack 2001:4001>");
        t.recv_nothing();
        t.wait(5);
        t.send(". seq 1 ack 1001 <sack 2001:4001>");
        t.recv(". seq 1001:2001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 4001");
        t.recv_nothing();
        assert_eq!((t.stack.counters().retrans_segs, t.stack.counters().tcp_timeouts), (2, 1));
    });
}

/// 8985-27: new data and then a retransmission leave at one instant, and the new data arrives first. The retransmission is
/// not lost.
#[test]
fn new_data_that_was_sent_before_a_retransmission_condemns_nothing_8985_27() {
    each(|t| {
        path(t);
        write(t, 10);
        t.write(2000);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:2001>");
        t.recv(". seq 10001:11001 ack 1");
        t.send(". seq 1 ack 1 <sack 1001:3001>");
        t.recv("P. seq 11001:12001 ack 1");
        t.send(". seq 1 ack 1 <sack 1001:4001>");
        t.recv(". seq 1:1001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:12001>");
        t.wait(1);
        t.send(". seq 1 ack 12001");
        t.recv_nothing();
        assert_eq!(t.stack.counters().retrans_segs, 1);
    });
}

/// 8985-19: without SACK duplicate ACKs are counted, whatever the time.
#[test]
fn without_sack_duplicate_acks_are_counted_8985_19() {
    each(|t| {
        t.listen();
        t.send("S seq 0 <wscale 0>");
        t.recv("S. seq 0 ack 1 <mss 1460, wscale 0>");
        t.wait(20);
        t.send(". seq 1 ack 1");
        t.sock = t.accept();
        write(t, 4);
        t.wait(20);
        t.send(". seq 1 ack 1");
        t.send(". seq 1 ack 1");
        t.wait(100);
        t.recv_nothing();
        t.send(". seq 1 ack 1");
        t.recv(". seq 1:1001 ack 1");
    });
}

pub fn window(t: &Test) -> (u32, u32, CaState) {
    let info = t.stack.info(t.now, t.sock).unwrap();
    (info.snd_cwnd, info.snd_ssthresh, info.ca_state)
}

/// Ten segments, of which the first one is late, was taken for lost and is retransmitted, and then new data.
fn taken_for_lost(t: &mut Test) {
    write(t, 10);
    t.write(2000);
    t.wait(20);
    t.send(". seq 1 ack 1 <sack 1001:10001>");
    t.recv(". seq 1:1001 ack 1");
    assert_eq!(t.drain(), 2);
    assert_eq!(window(t), (7000, 7000, CaState::Recovery));
}

/// 3708-1, 4015-1, 9438-7: every retransmission was a duplicate: window and threshold are those of before.
#[test]
fn d_sacks_for_all_retransmissions_undo_the_reduction_3708_1() {
    each(|t| {
        path(t);
        taken_for_lost(t);
        t.wait(20);
        t.send(". seq 1 ack 10001");
        assert_eq!(window(t).1, 7000);
        t.send(". seq 1 ack 10001 <sack 1:1001>");
        let (cwnd, ssthresh, state) = window(t);
        assert!(cwnd >= 10_000 && ssthresh == u32::MAX, "{cwnd}, {ssthresh}");
        assert_eq!((state, t.stack.counters().tcp_full_undo), (CaState::Open, 1));
        // Once: what is reported again counts for nothing.
        t.send(". seq 1 ack 10001 <sack 1:1001>");
        assert_eq!((window(t), t.stack.counters().tcp_full_undo), ((cwnd, ssthresh, state), 1));
    });
}

/// 3708-1: one of two retransmissions was needed.
#[test]
fn a_d_sack_for_one_of_two_retransmissions_undoes_nothing_3708_1() {
    each(|t| {
        path(t);
        write(t, 10);
        t.write(2000);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:2001 3001:10001>");
        t.recv(". seq 1:1001 ack 1");
        t.recv(". seq 2001:3001 ack 1");
        t.drain();
        t.wait(20);
        t.send(". seq 1 ack 10001");
        t.send(". seq 1 ack 10001 <sack 1:1001>");
        assert_eq!((window(t).1, t.stack.counters().tcp_full_undo), (7000, 0));
    });
}

/// 3522-1, 4015-1: the echo is older than the retransmission, so it is the original that arrived.
#[test]
fn an_older_echo_undoes_the_reduction_at_once_3522_1() {
    for spurious in [true, false] {
        each(|t| {
            path(t);
            write(t, 10);
            let original = t.cur().ts_last;
            t.write(2000);
            t.wait(20);
            t.send(". seq 1 ack 1 <sack 1001:10001>");
            t.recv(". seq 1:1001 ack 1");
            t.drain();
            t.wait(20);
            if spurious {
                t.cur_mut().ts_last = original;
            }
            t.send(". seq 1 ack 10001");
            let undone = t.ts && spurious;
            assert_eq!((window(t).0 >= 10_000, window(t).1 > 7000), (undone, undone));
            assert_eq!((window(t).2, t.stack.counters().tcp_full_undo), (CaState::Open, u64::from(undone)));
        });
    }
}

/// 3522-1, 4015-4: after a delay everything was taken for lost. The first ACK shows that nothing is.
#[test]
fn a_spurious_timeout_retransmits_one_segment_3522_1() {
    each(|t| {
        path(t);
        write(t, 10);
        let original = t.cur().ts_last;
        t.recv_after(200, ". seq 1:1001 ack 1");
        assert_eq!(window(t), (1000, 7000, CaState::Loss));
        t.wait(200);
        t.cur_mut().ts_last = original;
        t.drain();
        let before = t.stack.counters().retrans_segs;
        t.send(". seq 1 ack 1001");
        if t.ts {
            t.recv_nothing();
            assert_eq!((window(t).1, window(t).2), (u32::MAX, CaState::Open));
            assert!(window(t).0 >= 10_000);
        } else {
            assert!(t.drain() > 0);
        }
        assert_eq!(t.stack.counters().retrans_segs > before, !t.ts);
    });
}

/// 4015-1: an ECN echo shows congestion, whatever was late.
#[test]
fn an_ecn_echo_forbids_the_undo_4015_1() {
    each(|t| {
        t.listen();
        t.send("SEW seq 0 <sackOK, wscale 0>");
        t.recv("SE. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
        t.wait(20);
        t.send(". seq 1 ack 1");
        t.sock = t.accept();
        write(t, 10);
        let original = t.cur().ts_last;
        t.write(2000);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:10001>");
        t.drain();
        t.wait(20);
        t.cur_mut().ts_last = original;
        t.send("E. seq 1 ack 10001");
        assert_eq!((window(t).1, t.stack.counters().tcp_full_undo), (7000, 0));
    });
}

/// After a timeout, an ACK of the first segment. New data is sent, not what is taken for lost.
fn after_a_timeout(t: &mut Test) {
    path(t);
    write(t, 10);
    t.recv_after(200, ". seq 1:1001 ack 1");
    t.write(5000);
    t.recv_nothing();
    t.send(". seq 1 ack 1001");
    t.recv(". seq 10001:11001 ack 1");
    t.recv(". seq 11001:12001 ack 1");
    t.recv_nothing();
}

/// 5682-1, 5682-3, 5682-4: the next ACK covers data that was sent once and taken for lost: it was only late. Nothing more is
/// sent again, and the window is that of before.
#[test]
fn an_ack_of_late_data_shows_a_spurious_timeout_5682_4() {
    each(|t| {
        after_a_timeout(t);
        t.send(". seq 1 ack 2001");
        assert_eq!((window(t).1, window(t).2), (u32::MAX, CaState::Open));
        assert!(window(t).0 >= 10_000);
        t.recv(". seq 12001:13001 ack 1");
        t.drain();
        let counters = t.stack.counters();
        assert_eq!((counters.tcp_spurious_rtos, counters.retrans_segs), (1, 1));
    });
}

/// 5682-4: only the new data arrives. The losses are real, and the repair goes on.
#[test]
fn an_ack_of_new_data_shows_a_genuine_timeout_5682_4() {
    each(|t| {
        after_a_timeout(t);
        t.send(". seq 1 ack 1001 <sack 10001:11001>");
        t.recv(". seq 1001:2001 ack 1");
        t.drain();
        assert!(window(t).0 <= 3000);
        assert_eq!((window(t).2, t.stack.counters().tcp_spurious_rtos), (CaState::Loss, 0));
    });
}

/// 5682-5: a SACK block of late data is proof at once, without new data to send.
#[test]
fn a_sack_block_of_late_data_shows_a_spurious_timeout_5682_5() {
    each(|t| {
        path(t);
        write(t, 10);
        t.recv_after(200, ". seq 1:1001 ack 1");
        t.send(". seq 1 ack 1001 <sack 3001:4001>");
        assert_eq!((window(t).1, t.stack.counters().tcp_spurious_rtos), (u32::MAX, 1));
        t.drain();
    });
}

/// 5682-2: the timer fires again for the same segment. The ACKs after it decide.
#[test]
fn a_repeated_timeout_is_judged_as_well_5682_2() {
    each(|t| {
        path(t);
        write(t, 10);
        t.recv_after(200, ". seq 1:1001 ack 1");
        t.recv_after(400, ". seq 1:1001 ack 1");
        t.write(5000);
        t.send(". seq 1 ack 1001");
        assert_eq!(t.drain(), 2);
        t.send(". seq 1 ack 3001");
        t.drain();
        assert_eq!((window(t).1, t.stack.counters().tcp_spurious_rtos), (u32::MAX, 1));
    });
}

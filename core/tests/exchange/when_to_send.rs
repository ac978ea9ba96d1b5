//! When data leaves: the peer's window and its probes, silly-window avoidance, Nagle (RFC 9293 §3.7.4, §3.8.6).

use steadfast_core::trace::State;
use steadfast_core::{Duration, Error};

use crate::harness::each;

/// SA-EST-38, SA-CLOSE_WAIT-33 (MUST-36, MUST-37, SHLD-29, SHLD-30).
#[test]
fn a_zero_window_is_probed_ever_more_slowly_sa_est_38() {
    for state in [State::Established, State::CloseWait] {
        each(|t| {
            t.reach(state);
            t.send(&format!(". seq {} ack 101 win 0", t.rcv));
            t.write(100);
            t.recv_nothing();
            let mut gap = 200;
            for _ in 0..30 {
                t.recv_after(gap, &format!(". seq 100 ack {}", t.rcv));
                gap = (gap * 2).min(120_000);
                t.send(&format!(". seq {} ack 101 win 0", t.rcv));
                t.recv_nothing();
            }
            t.send(&format!(". seq {} ack 101 win 60", t.rcv));
            t.wait(300);
            t.recv_any().expect("the data, as far as it fits");
            assert_eq!(t.state(), state);
        });
    }
}

/// Probes that nobody answers end like retransmissions that nobody answers.
#[test]
fn unanswered_probes_end_the_connection_sa_est_38() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|o| o.user_timeout = Duration::from_secs(5));
        t.send(". seq 51 ack 101 win 0");
        t.write(100);
        t.wait(6000);
        t.recv_rst_any();
        t.is_closed(Some(Error::TimedOut));
    });
}

/// MUST-35: the window closes while data is in flight. The peer answers, so nobody gives up (SHLD-17).
#[test]
fn a_window_that_closes_over_data_in_flight_is_no_failure_shld_17() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|o| o.r2 = Some(Duration::from_secs(200)));
        t.write(3000);
        assert_eq!(t.drain(), 3);
        t.send(". seq 51 ack 101 win 0");
        for _ in 0..200 {
            t.wait(5000);
            if t.drain() > 0 {
                t.send(". seq 51 ack 101 win 0");
                t.drain();
            }
        }
        assert_eq!(t.state(), State::Established);
        t.send(". seq 51 ack 3101 win 65535");
        t.recv_nothing();
        assert_eq!(t.queued(), 0);
    });
}

/// SHLD-17: the same where the peer says so with data of its own, in order. R2 of 1 s would be over at the third
/// timeout.
#[test]
fn data_that_comes_with_a_closed_window_keeps_what_is_in_flight_alive_shld_17() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|o| o.r2 = Some(Duration::from_secs(1)));
        t.write(3000);
        assert_eq!(t.drain(), 3);
        t.wait(900);
        t.send("P. seq 51:52 ack 101 win 0");
        t.drain();
        t.wait(600);
        assert!(t.drain() > 0);
        assert_eq!(t.state(), State::Established);
    });
}

/// MUST-34, SHLD-15, THREAT-46: the right edge moves back behind what was sent.
#[test]
fn a_shrunk_window_lets_nothing_new_out_must_34() {
    each(|t| {
        t.reach(State::Established);
        t.write(3000);
        assert_eq!(t.drain(), 3);
        t.send(". seq 51 ack 1101 win 500");
        t.write(1000);
        t.recv_nothing();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().unacked, 2000);
        t.send(". seq 51 ack 3101 win 500");
        t.recv_nothing();
        t.send(". seq 51 ack 3101 win 1000");
        t.recv("P. seq 3101:4101 ack 51");
    });
}

/// MUST-38: a small window is left alone until the override timer.
#[test]
fn a_small_window_waits_for_the_override_must_38() {
    each(|t| {
        t.reach(State::Established);
        t.send(". seq 51 ack 101 win 500");
        t.write(2000);
        t.recv_nothing();
        t.recv_after(200, ". seq 101:601 ack 51");
        t.recv_nothing();
    });
}

/// Half of the largest window ever seen is enough (RFC 9293 §3.8.6.2.1).
#[test]
fn half_of_a_small_peers_window_is_worth_a_segment_must_38() {
    each(|t| {
        t.win = 600;
        t.reach(State::Established);
        t.write(2000);
        t.recv(". seq 101:701 ack 51");
        t.send(". seq 51 ack 701 win 300");
        t.recv(". seq 701:1001 ack 51");
        t.send(". seq 51 ack 1001 win 299");
        t.recv_nothing();
    });
}

/// SHLD-7, MUST-17.
/// Nothing waits for ever (MUST-60): the last byte leaves when all before it is acknowledged.
#[test]
fn nagle_holds_small_segments_back_shld_7() {
    each(|t| {
        t.reach(State::Established);
        t.write(10);
        t.recv("P. seq 101:111 ack 51");
        t.write(10);
        t.write(10);
        t.recv_nothing();
        t.write(980);
        t.recv("P. seq 111:1111 ack 51");
        t.write(5);
        t.recv_nothing();
        // The small segment is acknowledged; the full one may be in flight.
        t.send(". seq 51 ack 111");
        t.recv("P. seq 1111:1116 ack 51");
        t.write(5);
        t.send(". seq 51 ack 1111");
        t.recv_nothing();
        t.send(". seq 51 ack 1116");
        t.recv("P. seq 1116:1121 ack 51");
        t.set_options(|o| o.nodelay = true);
        for n in 0..3 {
            t.write(1);
            t.recv(&format!("P. seq {}:{} ack 51", 1121 + n, 1122 + n));
        }
    });
}

/// SHLD-7 in Minshall's variant (RFC 9293 appendix A.3): the receiver of a request may delay its ACK by 200 ms.
#[test]
fn the_tail_of_a_write_leaves_with_it_shld_7() {
    each(|t| {
        t.reach(State::Established);
        for from in [101, 3001, 5901] {
            t.write(1500);
            t.recv(&format!(". seq {}:{} ack 51", from, from + 1000));
            t.recv(&format!("P. seq {}:{} ack 51", from + 1000, from + 1500));
            t.write(1400);
            t.recv(&format!(". seq {}:{} ack 51", from + 1500, from + 2500));
            // One tail at a time.
            t.recv_nothing();
            t.send(&format!(". seq 51 ack {}", from + 1500));
            t.recv(&format!("P. seq {}:{} ack 51", from + 2500, from + 2900));
            t.send(&format!(". seq 51 ack {}", from + 2900));
        }
    });
}

/// The tail of a super-segment is a small segment too.
#[test]
fn the_tail_of_a_super_segment_counts_shld_7() {
    each(|t| {
        t.offload();
        t.reach(State::Established);
        t.write(1500);
        t.recv("P. seq 101:1601 ack 51");
        t.write(1);
        t.recv_nothing();
        t.send(". seq 51 ack 1101");
        t.recv_nothing();
        t.send(". seq 51 ack 1601");
        t.recv("P. seq 1601:1602 ack 51");
        t.send(". seq 51 ack 1602");
        // Two full segments have no tail.
        t.write(2000);
        t.recv("P. seq 1602:3602 ack 51");
        t.write(1);
        t.recv("P. seq 3602:3603 ack 51");
    });
}

/// Where a window ends a super-segment before the data does, it ends with a full segment: its tail would be a small
/// segment in the middle of the stream.
#[test]
fn a_super_segment_before_other_data_has_no_tail_shld_7() {
    each(|t| {
        t.offload();
        t.reach(State::Established);
        t.send(". seq 51 ack 101 win 3500");
        t.write(8000);
        t.recv(". seq 101:3101 ack 51");
    });
}

/// RFC 9293 appendix A.2: both windows were closed and both sides probe. A probe's own number is too old for its
/// window to count, but it is answered, and the answer to ours opens the window.
#[test]
fn probes_that_cross_do_not_dead_lock_9293_m() {
    each(|t| {
        t.reach(State::Established);
        t.send(". seq 51 ack 101 win 0");
        t.write(100);
        t.recv_after(200, ". seq 100 ack 51");
        t.send(". seq 50 ack 101 win 0");
        t.recv(". seq 101 ack 51");
        t.send(". seq 51 ack 101 win 1000");
        t.recv("P. seq 101:201 ack 51");
    });
}

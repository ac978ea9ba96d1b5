//! Limits on time: they count from when a thing began, or from its last progress, and a peer that pushes does not move
//! them (RFC 9293 §3.8.3, §3.9.1.1, §3.10.8; RFC 6429).

use steadfast_core::trace::State;
use steadfast_core::{Config, Duration, Error, Shutdown};

use crate::harness::{Test, each, each_with};

const SYN: &str = "S seq 0 <sackOK, wscale 0>";
const SYN_ACK: &str = "S. seq 0 ack 1 win 10000 <mss 1460, sackOK, wscale 0>";

/// A simultaneous open in SYN-RECEIVED; the first SYN left `millis` ago.
#[track_caller]
fn cross_after(t: &mut Test, millis: u64) {
    t.connect();
    t.wait(millis);
    t.drain();
    t.send(SYN);
    t.recv(SYN_ACK);
    assert_eq!(t.state(), State::SynReceived);
}

/// The peer sends `segment` each 900 ms, up to `millis` from now.
#[track_caller]
fn repeat_until(t: &mut Test, millis: u64, segment: &str) {
    for _ in 0..millis / 900 {
        t.wait(900);
        t.send(segment);
    }
    t.wait(millis % 900);
    t.drain();
}

/// THREAT-6: five repetitions and the wait after the last are 63 s, whatever the peer does meanwhile.
#[test]
fn a_repeated_syn_does_not_keep_a_half_open_entry_sa_syn_rcvd_18() {
    each(|t| {
        t.listen();
        t.send(SYN);
        t.recv(SYN_ACK);
        repeat_until(t, 62_999, SYN);
        assert_eq!(t.tuple_state(), State::SynReceived);
        t.wait(1);
        assert_eq!((t.tuple_state(), t.stack.counters().synack_retries_exhausted), (State::Closed, 1));
        t.drain();
    });
}

/// tcp_synack_timeout on both sides, shorter and longer than the repetitions take.
#[test]
fn a_half_open_entry_ends_at_its_time_sa_syn_rcvd_19() {
    for seconds in [5, 100] {
        each_with(
            |c| c.tcp_synack_timeout = Duration::from_secs(seconds),
            |t| {
                t.listen();
                t.send(SYN);
                t.recv(SYN_ACK);
                repeat_until(t, seconds * 1000 - 1, SYN);
                assert_eq!(t.tuple_state(), State::SynReceived);
                t.wait(1);
                assert_eq!(t.tuple_state(), State::Closed);
                t.drain();
            },
        );
    }
}

/// MUST-23: who connects keeps trying for three minutes, in SYN-RECEIVED as in SYN-SENT; `default` for 195 s.
#[test]
fn a_simultaneous_open_is_tried_for_three_minutes_must_23() {
    each(|t| {
        cross_after(t, 0);
        let mut at = 0;
        for due in [1, 3, 7, 15, 31, 63, 127] {
            t.recv_after((due - at) * 1000, SYN_ACK);
            at = due;
        }
        t.wait(195_000 - 127_000 - 1);
        assert_eq!(t.state(), State::SynReceived);
        t.wait(1);
        t.recv("R. seq 1 ack 1");
        t.is_closed(Some(Error::TimedOut));
    });
    // Without a limit on time, what the repetitions take: `rfc` doubles up to 60 s, which is 183 s.
    each_with(
        |c| (c.tcp_syn_timeout, c.tcp_rto_max) = (Duration::ZERO, Duration::from_secs(60)),
        |t| {
            cross_after(t, 0);
            t.wait(182_999);
            assert_eq!((t.state(), t.drain()), (State::SynReceived, 7));
            t.wait(1);
            t.recv("R. seq 1 ack 1");
            t.is_closed(Some(Error::TimedOut));
        },
    );
}

/// A peer that answers each SYN by a SYN of its own, for ever.
#[test]
fn a_repeated_syn_does_not_keep_a_connect_must_23() {
    each(|t| {
        cross_after(t, 0);
        repeat_until(t, 194_999, SYN);
        assert_eq!(t.state(), State::SynReceived);
        t.wait(1);
        t.drain();
        t.is_closed(Some(Error::TimedOut));
    });
}

/// RFC 9293 §3.10.8: the user timeout counts in any state; so does tcp_syn_timeout. Both count from the first SYN.
#[test]
fn the_limits_of_a_connect_count_on_when_syns_cross_sa_syn_sent_16() {
    let user = Duration::from_secs(10);
    /// Sets a limit; and its length.
    type Limit = (fn(&mut Config), Duration);
    let limits: [Limit; 2] =
        [(|_| (), user), (|c| c.tcp_syn_timeout = Duration::from_secs(10), Duration::ZERO)];
    for (configure, user_timeout) in limits {
        each_with(configure, |t| {
            t.connect();
            t.set_options(|o| o.user_timeout = user_timeout);
            t.wait(3600);
            t.drain();
            t.send(SYN);
            t.recv(SYN_ACK);
            t.wait(6399);
            assert_eq!(t.state(), State::SynReceived);
            t.drain();
            t.wait(1);
            t.recv("R. seq 1 ack 1");
            t.is_closed(Some(Error::TimedOut));
        });
    }
    // Set when the SYNs have crossed already.
    each(|t| {
        cross_after(t, 1000);
        t.set_options(|o| o.user_timeout = Duration::from_millis(1500));
        t.wait(499);
        assert_eq!(t.state(), State::SynReceived);
        t.wait(1);
        t.recv("R. seq 1 ack 1");
        t.is_closed(Some(Error::TimedOut));
    });
}

/// Answers the next `count` probes, which come after `gap` milliseconds, then twice as many, and so on; gives the gap
/// after them.
#[track_caller]
fn answer_probes(t: &mut Test, mut gap: u64, count: usize) -> u64 {
    for _ in 0..count {
        t.recv_after(gap, &format!(". seq 100 ack {}", t.rcv));
        t.send(&format!(". seq {} ack 101 win 0", t.rcv));
        t.recv_nothing();
        gap *= 2;
    }
    gap
}

/// RFC 9293 §3.9.1.1, tcp(7): data that stays untransmitted behind a closed window counts as well, answered or not; and
/// the probes come ever more slowly all the same (SHLD-30).
#[test]
fn the_user_timeout_ends_a_closed_window_whose_probes_are_answered_sa_est_38() {
    for state in [State::Established, State::CloseWait] {
        each(|t| {
            t.reach(state);
            t.set_options(|o| o.user_timeout = Duration::from_secs(5));
            t.send(&format!(". seq {} ack 101 win 0", t.rcv));
            t.write(100);
            // At 0.2, 0.6, 1.4 and 3.0 s.
            answer_probes(t, 200, 4);
            t.wait(1999);
            assert_eq!(t.state(), state);
            t.wait(1);
            t.recv_rst();
            t.is_closed(Some(Error::TimedOut));
        });
    }
    // Set when the data has been waiting for three seconds; progress starts it anew.
    each(|t| {
        t.reach(State::Established);
        t.send(". seq 51 ack 101 win 0");
        t.write(100);
        answer_probes(t, 200, 4);
        t.set_options(|o| o.user_timeout = Duration::from_secs(5));
        t.wait(1000);
        t.send(". seq 51 ack 101 win 100");
        t.recv("P. seq 101:201 ack 51");
        t.send(". seq 51 ack 201 win 0");
        t.write(100);
        t.wait(4999);
        assert_eq!(t.state(), State::Established);
        t.drain();
        t.wait(1);
        t.nxt = 201;
        t.recv_rst();
        t.is_closed(Some(Error::TimedOut));
    });
}

/// The same for what is in flight when the window closes: it stays unacknowledged.
#[test]
fn the_user_timeout_ends_data_in_flight_behind_a_closed_window_sa_est_37() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|o| o.user_timeout = Duration::from_secs(2));
        t.write(1000);
        t.recv("P. seq 101:1101 ack 51");
        for _ in 0..19 {
            t.wait(100);
            t.send(". seq 51 ack 101 win 0");
        }
        t.wait(99);
        assert_eq!(t.state(), State::Established);
        t.wait(1);
        t.drain();
        t.is_closed(Some(Error::TimedOut));
    });
}

/// An orphan with its FIN behind a closed window.
fn orphan(t: &mut Test, state: State) {
    t.reach(if state == State::LastAck { State::CloseWait } else { State::Established });
    t.send(&format!(". seq {} ack 101 win 0", t.rcv));
    t.close();
    if state == State::Closing {
        t.send("F. seq 51 ack 101 win 0");
        t.rcv = 52;
        t.recv(". seq 101 ack 52");
    }
    t.recv_nothing();
    assert_eq!(t.tuple_state(), state);
}

/// THREAT-10, RFC 6429 §3 (also SA-FIN_WAIT_1-39, SA-LAST_ACK-33): nobody waits for an orphan any more. Each probe
/// counts, answered or not: eight, which are 102 s with the smallest RTO.
#[test]
fn an_orphan_behind_a_closed_window_ends_after_eight_probes_threat_10() {
    for state in [State::FinWait1, State::Closing, State::LastAck] {
        each(|t| {
            orphan(t, state);
            let gap = answer_probes(t, 200, 8);
            t.wait(gap - 1);
            assert_eq!(t.tuple_state(), state);
            t.wait(1);
            t.recv_rst();
            t.is_closed(None);
        });
    }
}

/// Where tcp_orphan_retries is 0, an orphan has as long as R2: 3 s for `tcp_retries2 = 3`.
#[test]
fn without_orphan_retries_an_orphan_has_r2_threat_10() {
    let configure = |c: &mut Config| (c.tcp_orphan_retries, c.tcp_retries2) = (0, 3);
    each_with(configure, |t| {
        orphan(t, State::LastAck);
        // At 0.2, 0.6 and 1.4 s; at 3.0 s R2 is reached.
        let gap = answer_probes(t, 200, 3);
        t.wait(gap - 1);
        assert_eq!(t.tuple_state(), State::LastAck);
        t.wait(1);
        t.recv_rst();
        t.is_closed(None);
    });
    // The FIN is in flight, and the peer answers that its window is closed (SA-LAST_ACK-33).
    each_with(configure, |t| {
        t.reach(State::LastAck);
        t.close();
        for gap in [200, 400, 800] {
            t.recv_after(gap, "F. seq 101 ack 52");
            t.send(". seq 52 ack 101 win 0");
            t.recv_nothing();
        }
        t.wait(1599);
        assert_eq!(t.tuple_state(), State::LastAck);
        t.wait(1);
        t.recv_rst();
        t.is_closed(None);
    });
}

/// tcp_orphan_timeout on both sides: progress of a byte now and then is no reason to stay for ever.
#[test]
fn an_orphan_that_is_drained_by_bytes_ends_threat_10() {
    each(|t| {
        t.reach(State::Established);
        t.write(4096);
        t.close();
        t.drain();
        // 300 s, and one for each KiB that is left.
        let mut acked = 101;
        for _ in 0..30 {
            t.wait(10_000);
            acked += 1;
            t.send(&format!(". seq 51 ack {acked} win 1"));
        }
        t.wait(3999);
        assert_eq!(t.tuple_state(), State::FinWait1);
        t.wait(1);
        t.drain();
        t.is_closed(None);
        assert_eq!(t.stack.counters().orphan_timeouts, 1);
    });
    each_with(
        |c| c.tcp_orphan_timeout = Duration::ZERO,
        |t| {
            t.reach(State::Established);
            t.write(4096);
            t.close();
            for acked in 102..202 {
                t.wait(10_000);
                t.send(&format!(". seq 51 ack {acked} win 1"));
            }
            t.drain();
            assert_eq!(t.tuple_state(), State::FinWait1);
            t.send("R seq 51");
        },
    );
}

/// The limit of an orphan ends with what it is for: FIN-WAIT-2 has its own.
#[test]
fn an_orphan_that_is_acknowledged_has_the_time_of_fin_wait_2_sa_fin_wait_2_38() {
    each_with(
        |c| (c.tcp_orphan_timeout, c.tcp_fin_timeout) = (Duration::from_secs(1), Duration::ZERO),
        |t| {
            t.reach(State::Established);
            t.close();
            t.recv("F. seq 101 ack 51");
            t.send(". seq 51 ack 102");
            t.wait(1_000_000);
            t.recv_nothing();
            assert_eq!(t.tuple_state(), State::FinWait2);
            t.send("R seq 51");
        },
    );
}

/// MUST-37: a connection that somebody holds stays, for as long as its probes are answered.
#[test]
fn a_connection_that_is_held_outlives_an_orphan_must_37() {
    each(|t| {
        t.reach(State::Established);
        t.send(". seq 51 ack 101 win 0");
        t.shutdown(Shutdown::Write);
        let mut gap = 200;
        for _ in 0..40 {
            t.recv_after(gap, ". seq 100 ack 51");
            t.send(". seq 51 ack 101 win 0");
            gap = (gap * 2).min(120_000);
        }
        assert_eq!(t.state(), State::FinWait1);
    });
}

/// MUST-38 (RFC 9293 §3.8.6.2.1): silly-window avoidance waits for 0.1 to 1 s, and segments of the peer do not begin
/// the wait anew.
#[test]
fn a_peer_that_talks_does_not_put_the_override_off_must_38() {
    each(|t| {
        t.reach(State::Established);
        t.send("P. seq 51:61 ack 101 win 300");
        t.write(2000);
        t.drain();
        t.wait(150);
        t.send("P. seq 61:71 ack 101 win 300");
        t.recv(". seq 101 ack 71");
        t.recv_after(50, ". seq 101:401 ack 71");
    });
    // A window that opens and closes does not either: what the timer finds closed it probes.
    each(|t| {
        t.reach(State::Established);
        t.send("P. seq 51:61 ack 101 win 300");
        t.write(2000);
        t.drain();
        for (wait, win) in [(90, 0), (90, 300), (19, 0)] {
            t.wait(wait);
            t.send(&format!("P. seq 61:61 ack 101 win {win}"));
            t.recv_nothing();
        }
        t.recv_after(1, ". seq 100 ack 61");
    });
}

/// The user timeout is over while the window is small but open: what fits is sent (a device that takes nothing
/// meanwhile does not make the timer run in circles), and then it counts anew.
#[test]
fn an_open_window_is_used_before_the_user_timeout_counts_sa_est_38() {
    each(|t| {
        t.reach(State::Established);
        t.send(". seq 51 ack 101 win 300");
        t.write(2000);
        t.set_options(|o| o.user_timeout = Duration::from_millis(150));
        t.now += Duration::from_millis(160);
        t.stack.advance(t.now);
        t.now += Duration::from_millis(300);
        t.stack.advance(t.now);
        t.recv(". seq 101:401 ack 51");
        t.wait(149);
        assert_eq!(t.state(), State::Established);
        t.wait(1);
        t.nxt = 401;
        t.recv_rst();
    });
}

/// A Karn back-off of seconds does not slow the override down, and a small window after long probing is used soon.
#[test]
fn a_small_window_after_long_probing_is_used_soon_must_38() {
    each(|t| {
        t.reach(State::Established);
        t.send(". seq 51 ack 101 win 0");
        t.write(2000);
        answer_probes(t, 200, 8);
        t.send(". seq 51 ack 101 win 300");
        t.recv_after(200, ". seq 101:401 ack 51");
    });
}

/// Without a limit on the handshake the repetitions end it, though the user timeout would let it live longer.
#[test]
fn the_repetitions_end_a_handshake_before_a_longer_user_timeout_sa_syn_rcvd_19() {
    each_with(
        |c| (c.tcp_syn_timeout, c.tcp_syn_retries) = (Duration::ZERO, 1),
        |t| {
            t.connect();
            t.set_options(|o| o.user_timeout = Duration::from_secs(100));
            t.send(SYN);
            t.recv(SYN_ACK);
            t.recv_after(1000, SYN_ACK);
            t.wait(1999);
            assert_eq!(t.state(), State::SynReceived);
            t.wait(1);
            t.recv("R. seq 1 ack 1");
            t.is_closed(Some(Error::TimedOut));
        },
    );
}

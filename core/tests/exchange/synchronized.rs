//! The rows that ESTABLISHED, FIN-WAIT-1, FIN-WAIT-2, CLOSE-WAIT, CLOSING and LAST-ACK have in common (RFC 9293
//! §3.10.7.4 with RFC 5961). A row's number is that of ESTABLISHED; the comments list the others.

use steadfast_core::config::Profile;
use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;
use steadfast_core::{Config, Error, Event, Shutdown};

use crate::harness::{Test, each, each_with};

pub const RECEIVING: [State; 3] = [State::Established, State::FinWait1, State::FinWait2];
pub const HALF_CLOSED: [State; 3] = [State::CloseWait, State::Closing, State::LastAck];
pub const ALL: [State; 6] =
    [State::Established, State::FinWait1, State::FinWait2, State::CloseWait, State::Closing, State::LastAck];

/// In each of the states, over both families, with and without timestamps.
pub fn in_each(states: &[State], test: impl Fn(&mut Test)) {
    for state in states {
        println!("in {state}");
        each(|t| {
            t.reach(*state);
            test(t);
            // Only the rows' own action is sent.
            t.recv_nothing();
        });
    }
}

/// The connection is where it was.
#[track_caller]
pub fn stays(t: &mut Test, state: State) {
    assert_eq!(t.state(), state);
    assert_eq!(t.events(t.sock), Event::default());
}

/// SA-EST-01, SA-FIN_WAIT_1-01, SA-FIN_WAIT_2-01, SA-CLOSE_WAIT-01, SA-CLOSING-01, SA-LAST_ACK-01 (5961-5).
#[test]
fn a_syn_anywhere_is_challenged_sa_est_01() {
    in_each(&ALL, |t| {
        let state = t.state();
        let edge = t.cur().edge;
        for seq in [t.rcv, t.rcv + 5, edge + 7, 0, t.rcv.wrapping_sub(70_000)] {
            t.send(&format!("S seq {seq} <sackOK, wscale 0>"));
            t.recv_ack();
        }
        t.dropped(&[DropReason::SynChallenged; 5]);
        t.wait(1000);
        t.drain();
        t.send("S. seq 0 ack 1 <sackOK, wscale 0>");
        t.recv_ack();
        stays(t, state);
        assert_eq!(t.stack.counters().tcp_syn_challenge, 6);
    });
}

/// The third ACK was lost: the SYN-ACK comes again, and its challenge ACK is what was missing.
#[test]
fn a_syn_ack_again_gets_its_ack_sa_est_01() {
    each(|t| {
        t.connect();
        t.send("S. seq 0 ack 1 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        t.send("S. seq 0 ack 1 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        assert_eq!(t.state(), State::Established);
    });
}

/// 5961-9: five in a second for each connection, and after it five more; another connection has its own.
/// 5961-10: the other connection has a budget of its own, and its answers say nothing of this one.
#[test]
fn challenges_are_limited_for_each_connection_5961_9() {
    each(|t| {
        t.reach(State::Established);
        for round in 0..2 {
            for n in 0..8 {
                t.send(&format!("S seq {}", t.rcv));
                if n < 5 {
                    t.recv_ack();
                } else {
                    t.recv_nothing();
                }
            }
            if round == 0 {
                t.wait(999);
                t.send(&format!("S seq {}", t.rcv));
                t.recv_nothing();
                t.wait(1);
            }
        }
        let challenged = [DropReason::SynChallenged; 10].into_iter();
        let all: Vec<_> = challenged.chain([DropReason::ReplyThrottled; 7]).collect();
        t.dropped(&all);
        assert_eq!(t.stack.counters().tcp_challenge_ack, 10);
        t.peer(5000);
        t.establish();
        t.send("S seq 1");
        t.recv(". seq 1 ack 1");
    });
}

/// SA-EST-02, SA-FIN_WAIT_1-02, SA-FIN_WAIT_2-02, SA-CLOSE_WAIT-02, SA-CLOSING-02, SA-LAST_ACK-02.
#[test]
fn without_ack_it_is_dropped_sa_est_02() {
    in_each(&ALL, |t| {
        let state = t.state();
        t.send(&format!("F seq {}", t.rcv));
        t.send(&format!("P seq {}:{}", t.rcv, t.rcv + 10));
        t.dropped(&[DropReason::NoAck, DropReason::TcpFlags]);
        stays(t, state);
    });
}

/// Fills the receive buffer. RCV.WND = 0.
#[track_caller]
pub fn close_window(t: &mut Test) {
    while t.rcv < t.cur().edge {
        let end = (t.rcv + 1000).min(t.cur().edge);
        t.send(&format!(". seq {}:{end} ack {}", t.rcv, t.una));
        t.rcv = end;
        t.drain();
    }
    t.wait(500);
    t.drain();
    t.events(t.sock);
    assert_eq!(t.stack.info(t.now, t.sock).unwrap().rcv_wnd, 0);
}

/// SA-EST-08, SA-FIN_WAIT_1-08, SA-FIN_WAIT_2-08, SA-CLOSE_WAIT-08, SA-CLOSING-08, SA-LAST_ACK-08 (2883-1).
#[test]
fn duplicate_data_is_acknowledged_at_once_with_d_sack_sa_est_08() {
    in_each(&ALL, |t| {
        let state = t.state();
        for _ in 0..3 {
            t.send(&format!("P. seq 1:51 ack {}", t.una));
            t.recv(&format!(". seq {} ack {} <sack 1:51>", t.nxt, t.rcv));
        }
        t.dropped(&[DropReason::Duplicate; 3]);
        stays(t, state);
    });
}

/// A duplicate that PAWS refuses is one all the same: its sender wants to know what it sent for nothing.
#[test]
fn duplicate_data_with_an_old_timestamp_is_told_2883_1() {
    in_each(&ALL, |t| {
        if !t.ts {
            return;
        }
        let (old, ecr) = (t.ts_val - 1, t.cur().ts_last);
        t.send(&format!("P. seq 1:51 ack {} <ts {old} ecr {ecr}>", t.una));
        t.recv(&format!(". seq {} ack {} <sack 1:51>", t.nxt, t.rcv));
        t.dropped(&[DropReason::Paws]);
    });
}

/// SA-EST-09, SA-FIN_WAIT_1-09, SA-FIN_WAIT_2-09, SA-CLOSE_WAIT-09, SA-CLOSING-09, SA-LAST_ACK-09: twice a second,
/// beside the budget of other unacceptable segments.
#[test]
fn a_probe_is_answered_sa_est_09() {
    in_each(&ALL, |t| {
        let state = t.state();
        let outside = t.cur().edge;
        t.send(&format!(". seq {outside} ack {}", t.una));
        t.recv_ack();
        for _ in 0..3 {
            t.send(&format!(". seq {} ack {}", t.rcv - 1, t.una));
            t.recv_ack();
            t.send(&format!(". seq {} ack {}", t.rcv - 1, t.una));
            t.recv_nothing();
            if state == State::Established || state == State::CloseWait || state == State::FinWait2 {
                t.wait(500);
            } else {
                break;
            }
        }
        assert_eq!(t.state(), state);
    });
}

/// With an octet of garbage, as old BSDs send it.
#[test]
fn a_probe_with_an_octet_is_answered_sa_est_09() {
    in_each(&RECEIVING, |t| {
        let state = t.state();
        t.send(&format!(". seq {} ack {} data x", t.rcv - 1, t.una));
        t.recv(&format!(". seq {} ack {} <sack {}:{}>", t.nxt, t.rcv, t.rcv - 1, t.rcv));
        stays(t, state);
    });
}

/// SA-EST-10, SA-FIN_WAIT_1-10, SA-FIN_WAIT_2-10, SA-CLOSE_WAIT-10, SA-CLOSING-10, SA-LAST_ACK-10: bare ACKs once
/// in 500 ms, data always.
#[test]
fn beyond_the_right_edge_it_is_acknowledged_sa_est_10() {
    in_each(&ALL, |t| {
        let state = t.state();
        t.send(&format!(". seq {} ack {}", t.cur().edge, t.una));
        t.recv_ack();
        t.send(&format!(". seq {} ack {}", t.cur().edge, t.una));
        t.recv_nothing();
        let beyond = t.cur().edge;
        for _ in 0..2 {
            t.send(&format!("P. seq {beyond}:{} ack {}", beyond + 10, t.una));
            t.recv_ack();
        }
        t.dropped(&[DropReason::OutOfWindow; 4]);
        stays(t, state);
    });
}

#[test]
fn the_limit_of_answers_ends_after_its_time_sa_est_10() {
    in_each(&[State::Established, State::FinWait2, State::CloseWait], |t| {
        let edge = t.cur().edge + 5000;
        t.send(&format!(". seq {edge} ack {}", t.una));
        t.recv_ack();
        t.wait(499);
        t.send(&format!(". seq {edge} ack {}", t.una));
        t.recv_nothing();
        t.wait(1);
        t.send(&format!(". seq {edge} ack {}", t.una));
        t.recv_ack();
    });
}

/// SA-EST-11, SA-FIN_WAIT_1-11, SA-FIN_WAIT_2-11 (9293-f): nothing is taken, but ACK and window count.
#[test]
fn a_zero_window_takes_no_data_sa_est_11() {
    in_each(&[State::Established], |t| {
        t.write(10);
        t.recv("P. seq 101:111 ack 51");
        t.nxt = 111;
        t.una = 101;
        while t.rcv < t.cur().edge {
            let end = (t.rcv + 1000).min(t.cur().edge);
            t.send(&format!(". seq {}:{end} ack 101", t.rcv));
            t.rcv = end;
            t.drain();
        }
        t.send(&format!("P. seq {}:{} ack 111 win 4321", t.rcv, t.rcv + 10));
        t.recv(&format!(". seq 111 ack {} win 0", t.rcv));
        t.dropped(&[DropReason::ReceiveBufferFull]);
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.unacked, info.snd_wnd), (0, 4321));
        t.events(t.sock);
        t.send(&format!("PU. seq {}:{} ack 111 urg 5", t.rcv, t.rcv + 10));
        t.drain();
        assert_eq!(t.events(t.sock), Event::URGENT, "MUST-66");
    });
    in_each(&[State::FinWait1, State::FinWait2], |t| {
        close_window(t);
        let una = t.stack.info(t.now, t.sock).unwrap().unacked;
        t.send(&format!("P. seq {}:{} ack 102", t.rcv, t.rcv + 10));
        t.recv(&format!(". seq 102 ack {} win 0", t.rcv));
        assert!(una <= 1);
        assert_eq!(t.state(), State::FinWait2, "the ACK in it counts");
    });
}

/// SA-EST-12, SA-FIN_WAIT_1-12, SA-FIN_WAIT_2-12, SA-CLOSE_WAIT-11, SA-CLOSING-11, SA-LAST_ACK-11 (7323-10).
/// P6: PAWS comes before all else, but not before a SYN or a RST.
#[test]
fn an_old_timestamp_is_acknowledged_and_dropped_sa_est_12() {
    in_each(&ALL, |t| {
        if !t.ts {
            return;
        }
        let state = t.state();
        let (old, ecr) = (t.ts_val - 1, t.cur().ts_last);
        t.send(&format!(". seq {} ack {} <ts {old} ecr {ecr}>", t.rcv, t.una));
        t.recv_ack();
        t.send(&format!(". seq {} ack {} <ts {old} ecr {ecr}>", t.rcv, t.una));
        t.recv_nothing();
        t.send(&format!("S seq {} <ts {old} ecr 0>", t.rcv));
        t.recv_ack();
        // A SYN is challenged whatever its timestamp.
        t.dropped(&[DropReason::Paws, DropReason::Paws, DropReason::SynChallenged]);
        assert_eq!(t.stack.counters().paws_estab, 2);
        stays(t, state);
        // A RST is exempt.
        t.send(&format!("R seq {} <ts {old} ecr {ecr}>", t.rcv));
        assert_eq!(t.state(), State::Closed);
    });
}

/// 7323-11: after 24 days a timestamp says nothing any more.
#[test]
fn an_old_timestamp_is_good_after_24_days_7323_11() {
    each(|t| {
        if !t.ts {
            return;
        }
        t.reach(State::Established);
        t.ts_val += 1000;
        t.send("P. seq 51:61 ack 101");
        t.recv(". seq 101 ack 61");
        let day = 24 * 3600 * 1000;
        t.wait(24 * day);
        let old = t.ts_val - 500;
        let ecr = t.cur().ts_last;
        t.send(&format!("P. seq 61:71 ack 101 <ts {old} ecr {ecr}>"));
        t.recv(". seq 101 ack 61");
        t.wait(1001);
        t.send(&format!("P. seq 61:71 ack 101 <ts {old} ecr {ecr}>"));
        let got = t.recv(&format!(". seq 101 ack 71 <ts {} ecr {old}>", t.stack_ts()));
        assert_eq!(got.header.options.timestamps.unwrap().ecr, old);
        t.ts_val = old;
    });
}

/// SA-EST-13, SA-FIN_WAIT_1-13, SA-FIN_WAIT_2-13, SA-CLOSE_WAIT-12, SA-CLOSING-12, SA-LAST_ACK-12 (7323-6).
#[test]
fn a_missing_timestamp_is_dropped_sa_est_13() {
    in_each(&ALL, |t| {
        if !t.ts {
            return;
        }
        let state = t.state();
        t.send(&format!("P. seq {}:{} ack {} <nots>", t.rcv, t.rcv + 10, t.una));
        t.dropped(&[DropReason::MissingTimestamp]);
        stays(t, state);
    });
    each_with(
        |c| c.tcp_tolerate_missing_ts = true,
        |t| {
            t.reach(State::Established);
            t.send("P. seq 51:61 ack 101 <nots>");
            t.recv(". seq 101 ack 61");
            t.read(10);
        },
    );
}

/// Linux answers keepalive probes without timestamps, and so does its profile; else the connection would end.
#[test]
fn the_profile_linux_answers_a_keepalive_without_timestamps_sa_est_13() {
    for profile in [Profile::Linux, Profile::Default] {
        let tolerate_missing_ts = Config::profile(profile).tcp_tolerate_missing_ts;
        each_with(
            |c| c.tcp_tolerate_missing_ts = tolerate_missing_ts,
            |t| {
                t.reach(State::Established);
                t.send(". seq 50 ack 101 <nots>");
                if !t.ts || profile == Profile::Linux {
                    t.recv(". seq 101 ack 51");
                }
                t.recv_nothing();
            },
        );
    }
}

/// 7323-7: without the agreement the option is ignored.
#[test]
fn an_unexpected_timestamp_is_ignored_sa_est_13() {
    each(|t| {
        if t.ts {
            return;
        }
        t.reach(State::Established);
        t.send("P. seq 51:61 ack 101 <ts 1 ecr 99>");
        t.recv(". seq 101 ack 61");
    });
}

/// SA-EST-15, SA-FIN_WAIT_1-16, SA-FIN_WAIT_2-16, SA-CLOSE_WAIT-14, SA-CLOSING-15, SA-LAST_ACK-15, SA-FIN_WAIT_2-14,
/// SA-FIN_WAIT_2-15: a window update, guarded by WL1 and WL2.
#[test]
fn an_ack_of_nothing_new_updates_the_window_sa_est_15() {
    in_each(&ALL, |t| {
        let state = t.state();
        t.send(&format!(". seq {} ack {} win 1234", t.rcv, t.una));
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_wnd, 1234);
        t.send(&format!(". seq {} ack {} win 999", t.rcv, t.una));
        t.send(&format!(". seq {} ack {} win 2000", t.rcv, t.una));
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_wnd, 2000);
        stays(t, state);
    });
}

/// SA-EST-16, SA-FIN_WAIT_1-17, SA-FIN_WAIT_2-17: the text counts, the ACK does not.
#[test]
fn an_old_ack_brings_its_text_sa_est_16() {
    in_each(&RECEIVING, |t| {
        let state = t.state();
        let before = t.stack.info(t.now, t.sock).unwrap();
        for ack in [t.una - 100, t.una - 50, t.una - 1] {
            t.send(&format!("P. seq {}:{} ack {ack} win 7", t.rcv, t.rcv + 10));
            t.rcv += 10;
            t.recv_ack();
            t.read(10);
        }
        let after = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((after.unacked, after.snd_wnd), (before.unacked, before.snd_wnd));
        assert_eq!(t.state(), state);
    });
}

/// A FIN that the peer sent before our FIN came to it is overtaken by its ACK of ours: it was sent in good order.
#[test]
fn a_fin_that_was_overtaken_by_the_ack_of_ours_counts_sa_fin_wait_2_17() {
    each(|t| {
        t.establish();
        t.shutdown(Shutdown::Write);
        t.recv("F. seq 1 ack 1");
        t.send(". seq 2 ack 2");
        assert_eq!(t.state(), State::FinWait2);
        t.send("F. seq 1 ack 1");
        t.recv(". seq 2 ack 2");
        assert_eq!(t.tuple_state(), State::TimeWait);
    });
}

/// SA-CLOSE_WAIT-15, SA-CLOSING-16, SA-LAST_ACK-16: an old ACK does nothing.
#[test]
fn an_old_ack_does_nothing_sa_close_wait_15() {
    in_each(&HALF_CLOSED, |t| {
        let state = t.state();
        t.send(&format!(". seq {} ack 1 win 7", t.rcv));
        t.dropped(&[]);
        assert_ne!(t.stack.info(t.now, t.sock).unwrap().snd_wnd, 7);
        stays(t, state);
    });
}

/// SA-EST-17, SA-FIN_WAIT_1-18, SA-FIN_WAIT_2-18, SA-CLOSE_WAIT-16, SA-CLOSING-17, SA-LAST_ACK-17 (5961-7): the bytes
/// acknowledged bound it here, not the window (5961-8).
#[test]
fn an_ack_too_old_is_challenged_sa_est_17() {
    in_each(&ALL, |t| {
        let state = t.state();
        // Nothing but the SYN was acknowledged then.
        let least = 1;
        for ack in [least - 1, u32::MAX, u32::MAX - 100, least.wrapping_sub(1 << 31).wrapping_add(500)] {
            t.send(&format!("P. seq {}:{} ack {ack} win 9", t.rcv, t.rcv + 10));
            t.recv_ack();
        }
        t.dropped(&[DropReason::AckTooOld; 4]);
        assert_eq!(t.read_end(), t.quiet_end());
        stays(t, state);
    });
}

/// SA-EST-18, SA-FIN_WAIT_1-19, SA-FIN_WAIT_2-19, SA-CLOSE_WAIT-17, SA-CLOSING-18, SA-LAST_ACK-18.
/// 9293-c, once a connection is synchronized: an ACK, no RST.
#[test]
fn an_ack_of_what_was_never_sent_is_acknowledged_sa_est_18() {
    in_each(&ALL, |t| {
        let state = t.state();
        t.send(&format!("P. seq {}:{} ack {} win 9", t.rcv, t.rcv + 10, t.nxt + 1));
        t.recv_ack();
        t.send(&format!("F. seq {} ack {} win 9", t.rcv, t.nxt + 1000));
        t.recv_nothing();
        t.dropped(&[DropReason::AckOfUnsent; 2]);
        assert_eq!(t.read_end(), t.quiet_end());
        stays(t, state);
    });
}

/// SA-EST-19, SA-FIN_WAIT_1-20, SA-FIN_WAIT_2-20.
#[test]
fn data_in_order_is_delivered_sa_est_19() {
    in_each(&RECEIVING, |t| {
        let state = t.state();
        t.send(&format!("P. seq {}:{} ack {}", t.rcv, t.rcv + 100, t.una));
        t.rcv += 100;
        t.recv_ack();
        assert_eq!(t.events(t.sock), Event::READABLE);
        t.read(100);
        assert_eq!(t.read_end(), Err(Error::WouldBlock));
        assert_eq!(t.state(), state);
    });
}

/// Trimmed on the left (9293-g) and on the right.
/// P7.
#[test]
fn data_is_trimmed_to_the_window_sa_est_19() {
    in_each(&RECEIVING, |t| {
        t.send(&format!("P. seq {}:{} ack {}", t.rcv - 20, t.rcv + 30, t.una));
        let dsack = format!("<sack {}:{}>", t.rcv - 20, t.rcv);
        t.rcv += 30;
        t.recv(&format!(". seq {} ack {} {dsack}", t.nxt, t.rcv));
        t.read(30);
        let edge = t.cur().edge;
        while t.rcv < edge - 1000 {
            t.send(&format!(". seq {}:{} ack {}", t.rcv, t.rcv + 1000, t.una));
            t.rcv += 1000;
            t.drain();
        }
        t.send(&format!("P. seq {}:{} ack {}", t.rcv, edge + 50, t.una));
        t.rcv = edge;
        t.recv(&format!(". seq {} ack {edge} win 0", t.nxt));
    });
}

/// SA-EST-20, SA-FIN_WAIT_1-21, SA-FIN_WAIT_2-21 (5681-8, 2018-2, 2018-3).
/// SHLD-31.
#[test]
fn data_after_a_gap_waits_and_is_told_sa_est_20() {
    in_each(&RECEIVING, |t| {
        let (rcv, una, nxt) = (t.rcv, t.una, t.nxt);
        let at = |n: u32| rcv + n * 10;
        let send = |t: &mut Test, n: u32| t.send(&format!("P. seq {}:{} ack {una}", at(n), at(n + 1)));
        let block = |n: u32, m: u32| format!("{}:{}", at(n), at(m));
        send(t, 1);
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {}>", block(1, 2)));
        send(t, 3);
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {} {}>", block(3, 4), block(1, 2)));
        send(t, 5);
        let three = format!("{} {} {}", block(5, 6), block(3, 4), block(1, 2));
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {three}>"));
        send(t, 7);
        // Four blocks, or three beside timestamps.
        let four = format!("{} {} {}", block(7, 8), block(5, 6), block(3, 4));
        let last = if t.ts { String::new() } else { block(1, 2) };
        t.recv_sack(&format!(". seq {nxt} ack {rcv} <sack {four} {last}>"));
        send(t, 2);
        let joined = format!("{} {} {}", block(1, 4), block(7, 8), block(5, 6));
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {joined}>"));
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().out_of_order, 50);
        assert_eq!(t.events(t.sock), Event::default());
        // The gap is filled in part: told at once.
        send(t, 0);
        t.recv(&format!(". seq {nxt} ack {} <sack {} {}>", at(4), block(7, 8), block(5, 6)));
        t.read(40);
        send(t, 4);
        send(t, 6);
        t.recv(&format!(". seq {nxt} ack {} <sack {}>", at(6), block(7, 8)));
        t.recv(&format!(". seq {nxt} ack {}", at(8)));
        t.read(40);
        assert_eq!(t.stack.usage().buffered, u64::from(t.queued()));
    });
}

/// SA-EST-21, SA-FIN_WAIT_1-22, SA-FIN_WAIT_2-22 (THREAT-50): the first copy wins, in order and out of order.
#[test]
fn the_first_copy_of_a_byte_wins_sa_est_21() {
    in_each(&RECEIVING, |t| {
        let (rcv, una) = (t.rcv, t.una);
        t.send(&format!("P. seq {} ack {una} data FFFF", rcv + 4));
        t.send(&format!("P. seq {} ack {una} data gggggggg", rcv + 2));
        t.send(&format!("P. seq {} ack {una} data hhhhhhhhhhhh", rcv));
        t.send(&format!("P. seq {} ack {una} data iiiiiiiiiiiiii", rcv));
        t.drain();
        let mut buffer = [0; 100];
        assert_eq!(t.stack.recv(t.sock, &mut buffer), Ok(14));
        assert_eq!(&buffer[..14], b"hhggFFFFgghhii");
    });
}

/// Wherever in a segment the bytes lie that wait beyond a gap already, in order or out of order.
#[test]
fn what_waits_and_comes_again_is_told_2883_1() {
    in_each(&RECEIVING, |t| {
        let (rcv, una, nxt) = (t.rcv, t.una, t.nxt);
        let send = |t: &mut Test, from: u32, to: u32| {
            t.send(&format!("P. seq {}:{} ack {una}", rcv + from, rcv + to));
        };
        let block = |from: u32, to: u32| format!("{}:{}", rcv + from, rcv + to);
        send(t, 20, 30);
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {}>", block(20, 30)));
        send(t, 20, 30);
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {} {}>", block(20, 30), block(20, 30)));
        send(t, 10, 40);
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {} {}>", block(20, 30), block(10, 40)));
        send(t, 0, 15);
        t.recv(&format!(". seq {nxt} ack {} <sack {}>", rcv + 40, block(10, 15)));
        t.read(40);
    });
}

/// SA-EST-23, SA-FIN_WAIT_1-24, SA-FIN_WAIT_2-24.
#[test]
fn a_fin_after_a_gap_waits_sa_est_23() {
    in_each(&RECEIVING, |t| {
        let (state, rcv, una, nxt) = (t.state(), t.rcv, t.una, t.nxt);
        t.send(&format!("FP. seq {}:{} ack {una}", rcv + 10, rcv + 20));
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {}:{}>", rcv + 10, rcv + 21));
        stays(t, state);
        t.send(&format!("P. seq {rcv}:{} ack {una}", rcv + 10));
        t.recv(&format!(". seq {nxt} ack {}", rcv + 21));
        let next = match state {
            State::Established => State::CloseWait,
            State::FinWait1 => State::Closing,
            _ => State::TimeWait,
        };
        assert_eq!(t.tuple_state(), next);
        t.read(20);
        assert_eq!(t.read_end(), Ok(0));
    });
}

/// A bare FIN beyond the gap.
#[test]
fn a_bare_fin_after_a_gap_waits_sa_est_23() {
    in_each(&RECEIVING, |t| {
        let (state, rcv, una, nxt) = (t.state(), t.rcv, t.una, t.nxt);
        t.send(&format!("F. seq {} ack {una}", rcv + 10));
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {}:{}>", rcv + 10, rcv + 11));
        stays(t, state);
        t.send(&format!("P. seq {rcv}:{} ack {una}", rcv + 10));
        t.recv(&format!(". seq {nxt} ack {}", rcv + 11));
        t.read(10);
        assert_eq!(t.read_end(), Ok(0));
    });
}

/// SA-EST-24, SA-FIN_WAIT_1-25, SA-FIN_WAIT_2-25 (THREAT-51).
#[test]
fn nothing_counts_beyond_a_fin_sa_est_24() {
    in_each(&RECEIVING, |t| {
        let (state, rcv, una, nxt) = (t.state(), t.rcv, t.una, t.nxt);
        t.send(&format!("F. seq {} ack {una}", rcv + 10));
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {}:{}>", rcv + 10, rcv + 11));
        // Data over it, data behind it, a second FIN behind it.
        t.send(&format!("P. seq {}:{} ack {una}", rcv + 5, rcv + 30));
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {}:{}>", rcv + 5, rcv + 11));
        t.send(&format!("P. seq {}:{} ack {una}", rcv + 10, rcv + 30));
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {}:{}>", rcv + 5, rcv + 11));
        t.send(&format!("F. seq {} ack {una}", rcv + 20));
        t.recv(&format!(". seq {nxt} ack {rcv} <sack {}:{}>", rcv + 5, rcv + 11));
        assert!(t.stack.counters().dropped(DropReason::DataAfterFin) >= 2, "it is counted");
        stays(t, state);
        t.send(&format!("P. seq {rcv}:{} ack {una}", rcv + 5));
        t.recv(&format!(". seq {nxt} ack {}", rcv + 11));
        t.read(10);
        assert_eq!(t.read_end(), Ok(0));
    });
}

/// SA-CLOSE_WAIT-18, SA-CLOSE_WAIT-19, SA-CLOSING-19, SA-CLOSING-20, SA-LAST_ACK-19, SA-LAST_ACK-20.
#[test]
fn data_after_the_fin_is_dropped_sa_close_wait_18() {
    in_each(&HALF_CLOSED, |t| {
        let state = t.state();
        for seq in [t.rcv, t.rcv + 10] {
            t.send(&format!("P. seq {seq}:{} ack {}", seq + 10, t.una));
            t.recv_ack();
        }
        t.dropped(&[DropReason::DataAfterFin; 2]);
        assert_eq!(t.read_end(), Ok(0));
        stays(t, state);
    });
}

/// SA-CLOSE_WAIT-20, SA-CLOSING-21, SA-LAST_ACK-21.
#[test]
fn the_fin_again_is_acknowledged_sa_close_wait_20() {
    in_each(&HALF_CLOSED, |t| {
        let state = t.state();
        for _ in 0..3 {
            t.send(&format!("F. seq {} ack {}", t.rcv - 1, t.una));
            t.recv_ack();
        }
        stays(t, state);
    });
}

//! RST in the synchronized states, in the rows that they have in common (RFC 9293 §3.10.7.4 with RFC 5961). A row's
//! number is that of ESTABLISHED; the comments list the others.

use steadfast_core::Error;
use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;

use crate::harness::each;
use crate::synchronized::{ALL, HALF_CLOSED, RECEIVING, close_window, in_each, stays};

/// SA-EST-03, SA-FIN_WAIT_1-03, SA-FIN_WAIT_2-03, SA-CLOSE_WAIT-03 (5961-2): with data in it or not (SHLD-2).
#[test]
fn rst_at_the_left_edge_resets_sa_est_03() {
    for text in ["R seq", "R. seq"] {
        for len in [0, 5] {
            in_each(&[RECEIVING.as_slice(), &[State::CloseWait]].concat(), |t| {
                let ack = if text == "R. seq" { format!(" ack {}", t.nxt) } else { String::new() };
                t.send(&format!("{text} {}:{}{ack}", t.rcv, t.rcv + len));
                t.recv_nothing();
                t.is_closed(Some(Error::ConnectionReset));
                assert_eq!(t.read_end(), Ok(0), "after the error there is nothing");
            });
        }
    }
}

/// SA-CLOSING-03, SA-LAST_ACK-03: the application knows already.
#[test]
fn rst_at_the_left_edge_ends_what_is_ending_sa_closing_03() {
    in_each(&[State::Closing, State::LastAck], |t| {
        t.send(&format!("R seq {}", t.rcv));
        t.is_closed(None);
        assert_eq!(t.read_end(), Ok(0));
    });
}

#[test]
fn what_came_before_the_reset_can_be_read_sa_est_03() {
    each(|t| {
        t.reach(State::Established);
        t.send("P. seq 51:61 ack 101");
        t.recv(". seq 101 ack 61");
        t.send("R seq 61");
        t.recv_nothing();
        t.read(10);
        assert_eq!(t.read_end(), Err(Error::ConnectionReset));
        assert_eq!(t.read_end(), Ok(0));
        assert_eq!(t.stack.usage().buffered, 0);
    });
}

/// SA-EST-04, SA-FIN_WAIT_1-04, SA-FIN_WAIT_2-04, SA-CLOSE_WAIT-04, SA-CLOSING-04, SA-LAST_ACK-04 (5961-3). 5961-12:
/// nobody may ever answer the challenge, and nothing waits for it.
#[test]
fn rst_elsewhere_in_the_window_is_challenged_sa_est_04() {
    in_each(&ALL, |t| {
        let state = t.state();
        let edge = t.cur().edge;
        for seq in [t.rcv + 1, t.rcv + 100, edge - 1] {
            t.send(&format!("R seq {seq}"));
            t.recv_ack();
            stays(t, state);
        }
        t.dropped(&[DropReason::RstChallenged; 3]);
        if t.una == t.nxt {
            t.wait(1_000_000);
            stays(t, state);
        }
    });
}

/// The answer of a peer that lost the connection carries the number we asked for, and ends it (5961-6).
#[test]
fn the_answer_to_a_challenge_resets_5961_6() {
    in_each(&ALL, |t| {
        t.send("S seq 3000");
        let challenge = t.recv(&format!(". seq {} ack {}", t.nxt, t.rcv));
        let seq = challenge.header.ack.since(t.cur().iss);
        t.send(&format!("R seq {seq}"));
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

/// SA-EST-05, SA-FIN_WAIT_1-05, SA-FIN_WAIT_2-05, SA-CLOSE_WAIT-05, SA-CLOSING-05, SA-LAST_ACK-05 (5961-1).
#[test]
fn rst_outside_the_window_is_dropped_sa_est_05() {
    in_each(&ALL, |t| {
        let state = t.state();
        let edge = t.cur().edge;
        for seq in [edge, edge + 1, t.rcv.wrapping_sub(2), t.rcv.wrapping_sub(60_000)] {
            t.send(&format!("R seq {seq}"));
        }
        t.dropped(&[DropReason::RstOutOfWindow; 4]);
        stays(t, state);
    });
}

/// SA-EST-06, SA-FIN_WAIT_1-06, SA-FIN_WAIT_2-06.
#[test]
fn rst_one_before_the_left_edge_is_dropped_sa_est_06() {
    in_each(&RECEIVING, |t| {
        let state = t.state();
        t.send(&format!("R seq {}", t.rcv - 1));
        t.dropped(&[DropReason::RstOutOfWindow]);
        stays(t, state);
    });
}

/// SA-CLOSE_WAIT-06, SA-CLOSING-06, SA-LAST_ACK-06: a RST with the number of the FIN counts.
#[test]
fn rst_with_the_number_of_the_fin_resets_sa_close_wait_06() {
    in_each(&HALF_CLOSED, |t| {
        let error = (t.state() == State::CloseWait).then_some(Error::ConnectionReset);
        t.send(&format!("R seq {}", t.rcv - 1));
        t.is_closed(error);
    });
}

/// SA-EST-07, SA-FIN_WAIT_1-07, SA-FIN_WAIT_2-07 (MUST-66).
#[test]
fn rst_with_a_zero_window_resets_sa_est_07() {
    in_each(&RECEIVING, |t| {
        close_window(t);
        t.send(&format!("R seq {}", t.rcv + 1));
        t.dropped(&[DropReason::RstOutOfWindow]);
        t.send(&format!("R seq {}", t.rcv));
        assert_eq!(t.tuple_state(), State::Closed);
        t.drain();
    });
}

/// SA-CLOSE_WAIT-07, SA-CLOSING-07, SA-LAST_ACK-07: the FIN filled the window.
#[test]
fn rst_with_a_zero_window_resets_sa_close_wait_07() {
    each(|t| {
        t.reach(State::Established);
        t.rcv = 51;
        while t.rcv < t.cur().edge - 1 {
            let end = (t.rcv + 1000).min(t.cur().edge - 1);
            t.send(&format!(". seq {}:{end} ack 101", t.rcv));
            t.rcv = end;
            t.drain();
        }
        t.send(&format!("F. seq {} ack 101", t.rcv));
        t.rcv += 1;
        t.recv(&format!(". seq 101 ack {} win 0", t.rcv));
        t.send(&format!("R seq {}", t.rcv));
        assert_eq!(t.state(), State::Closed);
        assert_eq!(t.stack.take_error(t.sock), Ok(Some(Error::ConnectionReset)));
    });
}

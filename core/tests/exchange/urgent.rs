//! Urgent data: what it is, and pointers as an attacker would write them.

use steadfast_core::Event;
use steadfast_core::trace::State;

use crate::harness::{Test, each};
use crate::synchronized::{HALF_CLOSED, RECEIVING, in_each, stays};

/// SA-EST-26, SA-FIN_WAIT_1-27, SA-FIN_WAIT_2-27 (MUST-31 to MUST-33, MUST-62).
#[test]
fn urgent_data_is_signalled_once_and_read_in_line_sa_est_26() {
    in_each(&RECEIVING, |t| {
        let (rcv, una) = (t.rcv, t.una);
        t.send(&format!("PU. seq {rcv}:{} ack {una} urg 15", rcv + 10));
        assert_eq!(t.events(t.sock), Event::READABLE | Event::URGENT);
        assert_eq!(t.stack.readable(t.sock), Ok((10, 10)));
        // The same run goes on, and further.
        t.send(&format!("PU. seq {}:{} ack {una} urg 12", rcv + 10, rcv + 20));
        assert_eq!(t.events(t.sock), Event::READABLE);
        t.send(&format!("P. seq {}:{} ack {una}", rcv + 20, rcv + 30));
        t.drain();
        assert_eq!(t.stack.readable(t.sock), Ok((30, 22)));
        t.read(30);
        assert_eq!(t.stack.readable(t.sock), Ok((0, 0)));
        // A pointer to what is behind us says nothing; a new run is told again.
        t.events(t.sock);
        t.send(&format!("U. seq {} ack {una} urg 0", rcv + 30));
        assert_eq!(t.events(t.sock), Event::default());
        t.send(&format!("U. seq {} ack {una} urg 1", rcv + 30));
        assert_eq!(t.events(t.sock), Event::URGENT);
        t.drain();
    });
}

/// SA-CLOSE_WAIT-21, SA-CLOSING-22, SA-LAST_ACK-22.
#[test]
fn urg_after_the_fin_is_ignored_sa_close_wait_21() {
    in_each(&HALF_CLOSED, |t| {
        let state = t.state();
        t.send(&format!("U. seq {} ack {} urg 9", t.rcv, t.una));
        stays(t, state);
    });
}

/// THREAT-61: on a segment without data, with a byte, and with many, no pointer changes what is read.
#[test]
fn no_urgent_pointer_changes_the_stream_threat_61() {
    for len in [0, 1, 100] {
        let mut t = Test::new(false, false, |_| {});
        t.reach(State::Established);
        let (mut seq, ack) = (t.rcv, t.una);
        for pointer in 0..=u16::MAX {
            t.send(&format!("PU. seq {seq}:{} ack {ack} urg {pointer}", seq + len));
            seq += len;
            let (unread, mark) = t.stack.readable(t.sock).unwrap();
            assert_eq!(unread, len as usize);
            assert!(mark <= unread, "pointer {pointer}: a mark behind what is there");
            if len > 0 {
                t.read(len);
            }
            t.drain();
        }
        assert_eq!(t.state(), State::Established);
    }
}

/// THREAT-61: nor on a SYN, whatever it points at.
#[test]
fn an_urgent_pointer_on_a_syn_is_nothing_threat_61() {
    for pointer in [0, 1, 0x7fff, 0xffff] {
        let mut t = Test::new(false, false, |_| {});
        t.listen();
        t.send(&format!("SU seq 0 urg {pointer}"));
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.send(". seq 1 ack 1");
        t.accept();
        t.send("P. seq 1:11 ack 1");
        assert_eq!(t.stack.readable(t.sock), Ok((10, 0)));
        t.read(10);
    }
}

/// THREAT-61: on a FIN it neither hides the end nor the bytes before it.
#[test]
fn an_urgent_pointer_on_a_fin_is_nothing_threat_61() {
    for pointer in [0, 1, 10, 11, 0x7fff, 0xffff] {
        let mut t = Test::new(false, false, |_| {});
        t.reach(State::Established);
        t.send(&format!("FPU. seq {}:{} ack {} urg {pointer}", t.rcv, t.rcv + 10, t.una));
        t.read(10);
        assert_eq!(t.read_end(), Ok(0));
        assert_eq!(t.state(), State::CloseWait);
    }
}

/// MUST-30: urgent data does not pass a closed window, but the news of it does. A segment at SND.UNA carries it, the only
/// one that such a window accepts, and the probe behind it is answered. THREAT-61
#[test]
fn a_closed_window_does_not_hide_urgent_data_must_66() {
    each(|t| {
        t.reach(State::Established);
        t.send(". seq 51 ack 101 win 0");
        t.write(100);
        // All that waits is urgent.
        t.stack.send_urgent(t.sock, b"").unwrap();
        for gap in [200, 400] {
            t.recv_after(gap, "U. seq 101 ack 51 urg 100");
            t.recv(". seq 100 ack 51");
            t.send(". seq 51 ack 101 win 0");
        }
        t.send(". seq 51 ack 101 win 1000");
        t.recv("PU. seq 101:201 ack 51 urg 100");
        t.send(". seq 51 ack 201 win 0");
        t.write(10);
        t.recv_after(200, ". seq 200 ack 51");
    });
}

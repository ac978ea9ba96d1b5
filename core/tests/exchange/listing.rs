//! The listing of sockets: timers and ages, steps; and the histograms of what has ended.

use std::time::Duration;

use steadfast_core::histograms::Histogram;
use steadfast_core::info::{SocketCursor, SocketEntry};
use steadfast_core::trace::{State, TimerKind};

use crate::harness::{Test, each};

fn entry(t: &Test, state: State) -> SocketEntry {
    t.stack.sockets(t.now).into_iter().find(|entry| entry.state == state).expect("a socket in this state")
}

/// The kind of the timer, how long it has left in milliseconds, and its retries.
fn timer(t: &Test, state: State) -> (TimerKind, u128, u32) {
    let timer = entry(t, state).timer.expect("a timer runs");
    (timer.kind, timer.left.as_millis(), timer.retries)
}

#[test]
fn a_half_open_entry_has_a_timer_and_an_age_sa_syn_rcvd_26() {
    each(|t| {
        t.listen();
        t.send("S seq 0");
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.wait(375);
        assert_eq!(timer(t, State::SynReceived), (TimerKind::Retransmit, 625, 0));
        assert_eq!(entry(t, State::SynReceived).state_age, Duration::from_millis(375));
        t.recv_after(625, "S. seq 0 ack 1 <mss 1460>");
        t.wait(500);
        assert_eq!(timer(t, State::SynReceived), (TimerKind::Retransmit, 1500, 1));
        assert_eq!(entry(t, State::SynReceived).state_age, Duration::from_millis(1500));
        t.send("R seq 1");
    });
}

#[test]
fn an_opening_a_connection_and_time_wait_have_a_timer() {
    each(|t| {
        t.connect();
        t.wait(300);
        assert_eq!(timer(t, State::SynSent), (TimerKind::Retransmit, 700, 0));
    });
    each(|t| {
        t.reach(State::Established);
        assert_eq!(entry(t, State::Established).timer, None);
        t.write(100);
        t.drain();
        let left = t.stack.info(t.now, t.sock).unwrap().retransmit_timer.unwrap();
        assert_eq!(timer(t, State::Established), (TimerKind::Retransmit, left.as_millis(), 0));
        let (local, remote) = (t.local(), t.remote());
        assert_eq!(t.stack.info_between(t.now, local, remote), t.stack.info(t.now, t.sock).ok());
        assert_eq!(t.stack.info_between(t.now, remote, local), None);
        t.wait(left.as_millis() as u64);
        t.drain();
        assert_eq!(timer(t, State::Established), (TimerKind::Retransmit, 2 * left.as_millis(), 1));
        t.send(". seq 51 ack 201");
    });
    each(|t| {
        t.reach(State::TimeWait);
        t.wait(1000);
        assert_eq!(timer(t, State::TimeWait), (TimerKind::TimeWait, 59_000, 0));
    });
}

/// As in Linux, where such an orphan is a TIME-WAIT entry in all but its state.
#[test]
fn an_orphan_in_fin_wait_2_has_the_timer_of_time_wait() {
    each(|t| {
        // Some stay full connections, and the others are in the smaller table.
        for port in 5000..5070 {
            t.peer(port);
            t.establish();
            t.close();
            t.recv("F. seq 1 ack 1");
            t.send(". seq 1 ack 2");
        }
        t.wait(1000);
        let all = t.stack.sockets(t.now);
        let timers =
            all.iter().filter(|entry| entry.state == State::FinWait2).map(|entry| entry.timer.unwrap());
        let told: Vec<_> = timers.map(|timer| (timer.kind, timer.left.as_secs())).collect();
        assert_eq!(told, [(TimerKind::FinWait2, 59); 70]);
        assert_eq!(TimerKind::FinWait2.ss_name(), "timewait");
    });
}

/// A page ends anywhere in any table, and the next goes on there.
#[test]
fn a_listing_in_steps_is_the_whole_listing() {
    each(|t| {
        for port in 5000..5010 {
            t.peer(port);
            t.establish();
            if port % 2 == 0 {
                t.close();
                t.recv("F. seq 1 ack 1");
                t.send("F. seq 1 ack 2");
                t.recv(". seq 2 ack 2");
            }
        }
        for port in 6000..6010 {
            t.peer(port);
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 <mss 1460>");
        }
        // A row is vacant.
        t.peer(5003);
        t.send("R seq 1");
        let whole = t.stack.sockets(t.now);
        assert_eq!(whole.len(), 1 + 10 + 4 + 5);
        for most in [1, 2, 3, 7, 19, 20, 21] {
            let (mut rows, mut next) = (Vec::new(), Some(SocketCursor::default()));
            while let Some(cursor) = next {
                let before = rows.len();
                next = t.stack.sockets_from(t.now, cursor, most, &mut rows);
                assert!(rows.len() - before <= most);
            }
            assert_eq!(rows, whole, "{most} at a time");
        }
        for port in 6000..6010 {
            t.peer(port);
            t.send("R seq 1");
        }
    });
}

/// The number of times, and their sum in milliseconds.
fn told(histogram: &Histogram) -> (u64, u128) {
    (histogram.count(), histogram.sum().as_millis())
}

#[test]
fn handshakes_round_trips_and_waits_for_accept_are_in_histograms() {
    each(|t| {
        t.listen();
        t.send("S seq 0");
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.recv_after(1000, "S. seq 0 ack 1 <mss 1460>");
        t.wait(250);
        t.send(". seq 1 ack 1");
        assert_eq!(told(&t.stack.histograms().handshake), (1, 1250));
        // Nothing arrives meanwhile: the application tells the time.
        t.now += Duration::from_millis(40);
        t.stack.tell_time(t.now);
        t.accept();
        assert_eq!(told(&t.stack.histograms().accept_wait), (1, 40));
        (t.nxt, t.rcv) = (1, 1);
        t.abort();
        t.recv_rst_any();
        assert_eq!(told(&t.stack.histograms().rtt), (0, 0), "a SYN-ACK that left twice gives no sample");
    });
    each(|t| {
        t.establish_after(30);
        let rtt = t.stack.info(t.now, t.sock).unwrap().rtt;
        t.abort();
        t.recv_rst_any();
        let histograms = t.stack.histograms();
        assert_eq!((told(&histograms.rtt), told(&histograms.handshake)), ((1, rtt.as_millis()), (1, 30)));
        assert_eq!(told(&histograms.accept_wait), (1, 1), "less than a millisecond is not told apart");
    });
    each(|t| {
        t.connect();
        t.wait(20);
        t.send("S. seq 0 ack 1");
        t.recv(". seq 1 ack 1");
        assert_eq!(told(&t.stack.histograms().handshake), (1, 20));
    });
}

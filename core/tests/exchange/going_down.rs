//! A stack goes down: who is reset, who is spared, and what sockets say afterwards.

use steadfast_core::trace::State;
use steadfast_core::{Config, ConnectOptions, Error, Instant, Interface, ListenOptions, Spare, Stack};

use crate::harness::{Test, each};

/// Goes down, and says whether the connection was reset; then it is gone.
fn is_reset(t: &mut Test, spare: Spare) -> bool {
    assert!(t.stack.abort_all(t.now, spare), "one connection takes one call");
    t.pump();
    let gone = t.tuple_state() == State::Closed;
    if gone {
        t.recv_rst_any();
    } else {
        t.recv_nothing();
    }
    gone
}

/// In FIN-WAIT-1 the FIN is sent, in FIN-WAIT-2 it is acknowledged. Who is spared is what an application that holds the
/// connection or not makes no difference to, but that an orphan alone is delivered.
#[test]
fn everything_is_reset_but_what_is_to_be_spared() {
    use State::*;
    for (state, orphan, spare, reset) in [
        (Established, false, Spare::Sent, true),
        (Established, false, Spare::Nothing, true),
        (CloseWait, false, Spare::Sent, true),
        (FinWait1, false, Spare::Delivered, true),
        (FinWait1, true, Spare::Delivered, true),
        (FinWait1, true, Spare::Sent, false),
        (FinWait1, false, Spare::Sent, false),
        (FinWait2, false, Spare::Delivered, true),
        (FinWait2, true, Spare::Delivered, false),
        (FinWait2, true, Spare::Nothing, true),
    ] {
        each(|t| {
            t.reach(state);
            if orphan {
                t.close();
            }
            let told = format!("{state}, orphan {orphan}, {spare:?}");
            assert_eq!(is_reset(t, spare), reset, "{told}");
        });
    }
}

/// `ss -K`: a connection is named by both of its ends. TIME-WAIT is none.
#[test]
fn an_administrator_resets_one_connection() {
    use State::*;
    for (state, killed) in [(Established, true), (FinWait2, true), (TimeWait, false)] {
        each(|t| {
            t.reach(state);
            let ends = |row: &steadfast_core::info::SocketEntry| (row.local, row.remote);
            let rows = t.stack.sockets(t.now);
            let (local, remote) = rows.iter().find(|row| row.state == state).map(ends).unwrap();
            let mut other = remote;
            other.set_port(remote.port() ^ 1);
            assert!(!t.stack.kill(t.now, local, other), "{state}");
            assert_eq!(t.stack.kill(t.now, local, remote), killed, "{state}");
            t.pump();
            if killed {
                t.recv_rst_any();
            } else {
                t.recv_nothing();
            }
            assert!(!t.stack.kill(t.now, local, remote), "{state}");
        });
    }
}

/// SHLD-3: the peer must not take for read what nobody has read.
#[test]
fn who_has_unread_bytes_is_not_spared() {
    each(|t| {
        t.reach(State::FinWait2);
        t.send("P. seq 51:61 ack 102");
        t.recv_any();
        t.rcv = 61;
        assert!(is_reset(t, Spare::Sent));
    });
}

#[test]
fn a_socket_gives_what_arrived_and_then_says_that_the_network_is_down_every_time() {
    each(|t| {
        t.reach(State::Established);
        t.send("P. seq 51:61 ack 101");
        t.recv_any();
        t.rcv = 61;
        assert!(is_reset(t, Spare::Delivered));
        let mut buffer = [0; 100];
        assert_eq!(t.stack.recv(t.sock, &mut buffer), Ok(10));
        for _ in 0..2 {
            assert_eq!(t.stack.recv(t.sock, &mut buffer), Err(Error::NetworkDown));
            assert_eq!(t.stack.send(t.sock, b"x"), Err(Error::NetworkDown));
        }
        assert_eq!(t.stack.take_error(t.sock), Ok(Some(Error::NetworkDown)));
        assert_eq!(t.stack.peer_addr(t.sock), Ok(t.remote()));
    });
}

#[test]
fn what_is_not_established_goes_without_a_word() {
    each(|t| {
        t.start_connect(ConnectOptions::default());
        t.recv_any();
        assert!(t.stack.abort_all(t.now, Spare::Sent));
        t.recv_nothing();
        assert_eq!(t.stack.recv(t.sock, &mut [0; 1]), Err(Error::NetworkDown));
        t.listen();
        t.send("S seq 0 <mss 1460>");
        t.recv_any();
        assert_eq!(t.stack.usage().half_open, 1);
        assert!(t.stack.abort_all(t.now, Spare::Sent));
        t.recv_nothing();
        assert_eq!(t.stack.usage().half_open, 0);
    });
}

#[test]
fn a_connection_is_settled_once_its_orphan_has_the_fin_acknowledged() {
    each(|t| {
        assert!(t.stack.is_settled());
        t.reach(State::FinWait2);
        assert!(!t.stack.is_settled(), "the application holds it");
        t.close();
        assert!(t.stack.is_settled());
    });
    each(|t| {
        t.reach(State::Established);
        t.close();
        t.recv("F. seq 101 ack 51");
        assert!(!t.stack.is_settled());
        t.send(". seq 51 ack 102");
        assert!(t.stack.is_settled());
    });
}

/// Resets wait in the queue of answers, which is bounded: no call makes more of them than there is room for.
#[test]
fn of_many_connections_every_peer_gets_its_reset() {
    let now = Instant::from_secs(1);
    let config = Config { reply_queue: 8, ..Config::default() };
    let mut stack = Stack::new(config, Interface::new(1500, [("10.0.0.2".parse().unwrap(), 24)]));
    let mut peer = Stack::new(Config::default(), Interface::new(1500, [("10.0.0.1".parse().unwrap(), 24)]));
    let options = ListenOptions { backlog: 200, ..ListenOptions::default() };
    stack.listen("10.0.0.2:80".parse().unwrap(), options).unwrap();
    let mut frame = [0; 1500];
    for _ in 0..200 {
        peer.connect(now, "10.0.0.2:80".parse().unwrap(), ConnectOptions::default()).unwrap();
        for _ in 0..2 {
            while let Some(sent) = peer.transmit(now, &mut frame) {
                stack.receive(now, &frame[..sent.len]);
            }
            while let Some(sent) = stack.transmit(now, &mut frame) {
                peer.receive(now, &frame[..sent.len]);
            }
        }
    }
    assert_eq!(stack.usage().connections, 200);
    while !stack.abort_all(now, Spare::Delivered) {
        while let Some(sent) = stack.transmit(now, &mut frame) {
            peer.receive(now, &frame[..sent.len]);
        }
    }
    while let Some(sent) = stack.transmit(now, &mut frame) {
        peer.receive(now, &frame[..sent.len]);
    }
    assert_eq!((stack.usage().connections, peer.usage().connections), (0, 0));
    assert_eq!(stack.counters().out_rsts, 200);
}

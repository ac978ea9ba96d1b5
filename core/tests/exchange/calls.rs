//! Calls of applications on a synchronized connection, row by row.

use steadfast_core::trace::State;
use steadfast_core::{Bytes, ConnectOptions, Error, Event};

use crate::harness::{BUFFER, FULL, PORT, Test, each, pattern};
use crate::synchronized::{ALL, HALF_CLOSED, RECEIVING, close_window, in_each};

/// SA-EST-29, SA-FIN_WAIT_1-30, SA-FIN_WAIT_2-30, SA-CLOSE_WAIT-24, SA-CLOSING-25, SA-LAST_ACK-25.
#[test]
fn a_second_open_fails_sa_est_29() {
    in_each(&ALL, |t| {
        let options = ConnectOptions { local_port: Some(PORT), ..ConnectOptions::default() };
        assert_eq!(t.stack.connect(t.now, t.remote(), options), Err(Error::AddrNotAvailable));
    });
}

/// SA-FIN_WAIT_1-31, SA-FIN_WAIT_2-31, SA-CLOSING-26, SA-LAST_ACK-26: nothing can be written after the FIN.
#[test]
fn writing_after_our_fin_fails_sa_fin_wait_1_31() {
    in_each(&[State::FinWait1, State::FinWait2, State::Closing, State::LastAck], |t| {
        assert_eq!(t.try_write(1), Err(Error::BrokenPipe));
    });
}

/// SA-EST-30, SA-CLOSE_WAIT-25.
/// SHLD-28: as large as the MSS.
#[test]
fn what_is_written_is_sent_in_segments_sa_est_30() {
    in_each(&[State::Established, State::CloseWait], |t| {
        t.write(2500);
        t.recv(&format!(". seq 101:1101 ack {}", t.rcv));
        t.recv(&format!(". seq 1101:2101 ack {}", t.rcv));
        // Nagle as Minshall has it: no small segment is in flight, so the tail goes with the rest.
        t.recv(&format!("P. seq 2101:2601 ack {}", t.rcv));
    });
}

/// SA-EST-31, SA-FIN_WAIT_1-32, SA-FIN_WAIT_2-32 (MUST-39): the window opens by a segment's worth.
#[test]
fn reading_opens_the_window_sa_est_31() {
    in_each(&RECEIVING, |t| {
        close_window(t);
        // One byte too few are read for a segment of 1460 to fit.
        let unread = t.stack.info(t.now, t.sock).unwrap().recv_q as u32;
        t.read(unread - (BUFFER - 1459));
        t.recv_nothing();
        t.read(1);
        t.recv(&format!(". seq {} ack {} win 1460", t.nxt, t.rcv));
    });
}

/// SA-CLOSE_WAIT-26, SA-CLOSING-27, SA-LAST_ACK-27.
#[test]
fn what_came_before_the_fin_is_read_first_sa_close_wait_26() {
    each(|t| {
        t.reach(State::Established);
        t.send("FP. seq 51:61 ack 101");
        t.recv(". seq 101 ack 62");
        assert_eq!(t.events(t.sock), Event::READABLE);
        t.read(10);
        assert_eq!(t.read_end(), Ok(0));
        assert_eq!(t.read_end(), Ok(0));
    });
    in_each(&HALF_CLOSED, |t| {
        assert_eq!(t.read_end(), Ok(0));
    });
}

/// SA-EST-33, SA-CLOSE_WAIT-28, SA-FIN_WAIT_1-34, SA-FIN_WAIT_2-34 (SHLD-3).
#[test]
fn close_with_data_unread_resets_sa_est_33() {
    in_each(&[State::Established, State::FinWait1, State::FinWait2], |t| {
        t.send(&format!("P. seq {}:{} ack {}", t.rcv, t.rcv + 10, t.una));
        t.rcv += 10;
        t.recv_ack();
        t.close();
        t.recv_rst();
        assert_eq!(t.tuple_state(), State::Closed);
        assert_eq!(t.stack.counters().tcp_abort_on_close, 1);
        let usage = t.stack.usage();
        assert_eq!((usage.connections, usage.sockets, usage.orphans, usage.buffered), (0, 1, 0, 0));
    });
    each(|t| {
        t.reach(State::Established);
        t.send("FP. seq 51:61 ack 101");
        t.recv(". seq 101 ack 62");
        t.close();
        t.recv("R. seq 101 ack 62");
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

/// SA-EST-34, SA-FIN_WAIT_1-35, SA-FIN_WAIT_2-35, SA-CLOSE_WAIT-29: by ABORT and by linger 0.
#[test]
fn abort_resets_sa_est_34() {
    for linger in [false, true] {
        in_each(&[State::Established, State::FinWait1, State::FinWait2, State::CloseWait], |t| {
            if linger {
                t.set_options(|o| o.linger = Some(steadfast_core::Duration::ZERO));
                t.close();
            } else {
                t.abort();
            }
            t.recv_rst();
            assert_eq!(t.tuple_state(), State::Closed);
            assert_eq!((t.stack.usage().timers, t.stack.usage().sockets), (0, 1));
        });
    }
}

/// Sent and queued data is flushed; the RST comes after everything sent.
#[test]
fn abort_flushes_the_queues_sa_est_34() {
    each(|t| {
        t.reach(State::Established);
        t.write(20_000);
        let count = t.drain() as u32;
        t.abort();
        t.recv(&format!("R. seq {} ack 51", 101 + count * 1000));
        assert_eq!(t.stack.usage().buffered, 0);
    });
}

/// SA-CLOSING-29, SA-LAST_ACK-29: nothing is sent.
#[test]
fn abort_of_what_is_ending_is_silent_sa_closing_29() {
    in_each(&[State::Closing, State::LastAck], |t| {
        t.abort();
        t.recv_nothing();
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

/// SA-EST-35, SA-FIN_WAIT_1-36, SA-FIN_WAIT_2-36, SA-CLOSE_WAIT-30, SA-CLOSE_WAIT-35, SA-CLOSING-30, SA-LAST_ACK-30.
#[test]
fn status_tells_the_state_and_its_age_sa_est_35() {
    in_each(&ALL, |t| {
        t.wait(125);
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.state, info.local, info.remote), (t.state(), t.local(), t.remote()));
        assert_eq!(info.state_age.as_millis(), 125);
        assert_eq!((info.bytes_acked, info.bytes_received), (100, 50));
        assert_eq!((info.unacked, info.timestamps, info.sack), (t.nxt - t.una, t.ts, true));
        let all = t.stack.sockets(t.now);
        let entry = all.iter().find(|s| s.socket == Some(t.sock)).unwrap();
        assert_eq!((entry.state, entry.listener), (t.state(), Some(t.local())));
        assert_eq!(entry.state_age.as_millis(), 125);
    });
}

/// As Linux does, both sides of it: to be woken for every ACK costs more than the few bytes are worth.
#[test]
fn who_writes_is_woken_once_a_third_of_the_send_buffer_is_free() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|options| options.sndbuf = 3000);
        t.write(3000);
        assert_eq!(t.try_write(1), Err(Error::WouldBlock));
        t.drain();
        t.send(". seq 51 ack 1100");
        assert!(!t.events(t.sock).contains(Event::WRITABLE));
        t.send(". seq 51 ack 1101");
        assert!(t.events(t.sock).contains(Event::WRITABLE));
        t.write(1000);
        t.drain();
    });
}

/// Both sides of `tcp_notsent_lowat`: what is in flight does not count, and who writes is woken at a half of it.
#[test]
fn bytes_that_were_never_sent_have_a_limit_of_their_own() {
    const LIMIT: u32 = 20_000;
    each(|t| {
        t.reach(State::Established);
        t.set_options(|options| options.notsent_lowat = LIMIT);
        assert_eq!(t.try_write(50_000), Ok(LIMIT as usize));
        // The initial window has left, and makes room for as much.
        let in_flight = LIMIT as usize - unsent(t);
        assert!(in_flight > 0);
        assert_eq!((t.try_write(50_000), t.try_write(1)), (Ok(in_flight), Err(Error::WouldBlock)));
        let _ = t.events(t.sock);
        let (mut ack, mut woken) = (101, 0);
        for _ in 0..5 {
            let before = unsent(t);
            ack += 2 * FULL;
            t.drain();
            t.send(&format!(". seq 51 ack {ack}"));
            let is_woken = t.events(t.sock).contains(Event::WRITABLE);
            assert_eq!(is_woken, before <= LIMIT as usize / 2, "{before} bytes were not sent");
            woken += u32::from(is_woken);
        }
        assert!((1..5).contains(&woken), "{woken}");
        t.drain();
    });
}

fn unsent(t: &mut Test) -> usize {
    t.stack.info(t.now, t.sock).unwrap().notsent_bytes as usize
}

/// The call without a copy takes from the front what there is room for, and leaves the rest to the caller.
#[test]
fn bytes_that_are_not_copied_are_taken_from_the_front_sa_est_30() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|options| options.sndbuf = 3000);
        let mut data = Bytes::from(pattern(100, 4000));
        assert_eq!(t.stack.send_bytes(t.sock, &mut data), Ok(3000));
        assert_eq!(data, pattern(3100, 1000));
        assert_eq!(t.stack.send_bytes(t.sock, &mut data), Err(Error::WouldBlock));
        assert_eq!(data.len(), 1000);
        for at in [101, 1101] {
            t.recv(&format!(". seq {at}:{} ack 51", at + 1000));
        }
        t.recv("P. seq 2101:3101 ack 51");
        t.send(". seq 51 ack 3101");
        assert_eq!(t.stack.send_bytes(t.sock, &mut data), Ok(1000));
        t.recv("P. seq 3101:4101 ack 51");
        t.send(". seq 51 ack 4101");
    });
}

/// Bytes that arrived before the end of a connection can be read, and take memory until they are.
#[test]
fn what_a_finished_socket_holds_is_freed_as_it_is_read_sa_est_03() {
    each(|t| {
        t.reach(State::Established);
        for at in 0..8 {
            t.send(&format!("P. seq {}:{} ack 101", 51 + at * 1000, 1051 + at * 1000));
        }
        t.drain();
        t.send("R. seq 8051 ack 101");
        assert_eq!(t.state(), State::Closed);
        t.read(3000);
        let usage = t.stack.usage();
        assert_eq!(usage.buffered, 5000);
        assert!(usage.held >= 5000, "{}", usage.held);
        t.read(5000);
        assert_eq!((t.stack.usage().buffered, t.stack.usage().held), (0, 0));
        assert_eq!(t.read_end(), Err(Error::ConnectionReset));
    });
}

#[test]
fn the_details_of_a_connection_can_be_read_after_its_end() {
    each(|t| {
        t.reach(State::Established);
        let before = t.stack.info(t.now, t.sock).unwrap().bytes_received;
        t.send("P. seq 51:61 ack 101");
        t.recv(". seq 101 ack 61");
        t.send("R. seq 61 ack 101");
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.state, info.bytes_received, info.recv_q), (State::Closed, before + 10, 10));
        assert_eq!(info.remote, t.remote());
    });
}

/// `TCP_QUICKACK` of Linux.
#[test]
fn a_delayed_ack_leaves_at_once_when_quick_ones_are_asked_for() {
    each(|t| {
        t.reach(State::Established);
        t.stack.set_quickack(t.now, t.sock, false).unwrap();
        assert_eq!(t.stack.quickack(t.sock), Ok(false));
        t.send("P. seq 51:61 ack 101");
        t.recv_nothing();
        t.stack.set_quickack(t.now, t.sock, true).unwrap();
        t.recv(". seq 101 ack 61");
        // And the next one.
        t.send("P. seq 61:71 ack 101");
        t.recv(". seq 101 ack 71");
        assert_eq!(t.stack.quickack(t.sock), Ok(true));
    });
}

/// The window opens again, and the end and an error are told, as `recv` does.
#[test]
fn bytes_that_are_taken_make_room_and_the_end_comes_after_them() {
    each(|t| {
        t.establish();
        let data = pattern(0, BUFFER);
        let mut at = 1;
        while at <= BUFFER {
            let end = (at + 1000).min(BUFFER + 1);
            t.send(&format!(". seq {at}:{end} ack 1"));
            at = end;
        }
        t.drain();
        assert_eq!(t.stack.recv_bytes(t.sock, 0), Ok(Bytes::new()));
        let mut taken = Vec::new();
        while let Ok(bytes) = t.stack.recv_bytes(t.sock, 700) {
            assert!((1..=700).contains(&bytes.len()));
            taken.extend_from_slice(&bytes);
        }
        assert!(taken == data);
        assert_eq!(t.stack.recv_bytes(t.sock, 700), Err(Error::WouldBlock));
        t.pump();
        t.recv(&format!(". seq 1 ack {} win {BUFFER}", BUFFER + 1));
        t.send(&format!("P. seq {}:{} ack 1", BUFFER + 1, BUFFER + 11));
        t.send(&format!("F. seq {} ack 1", BUFFER + 11));
        t.drain();
        assert_eq!(t.stack.recv_bytes(t.sock, 700).map(|bytes| bytes.len()), Ok(10));
        assert_eq!(t.stack.recv_bytes(t.sock, 700), Ok(Bytes::new()));
        t.send(&format!("R. seq {} ack 1", BUFFER + 12));
        assert_eq!(t.stack.recv_bytes(t.sock, 700), Err(Error::ConnectionReset));
    });
}

//! SYN-RECEIVED (RFC 9293 §3.10.7.4): of a passive open (P), held as a half-open entry, and of a simultaneous open
//! (A), which has a whole control block.

use steadfast_core::config::FastOpenMode;
use steadfast_core::counters::{DropReason, ReplyReason};
use steadfast_core::trace::State;
use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::{ConnectOptions, Duration, Error, Event, ListenOptions, Shutdown};

use crate::harness::{PORT, Test, each, each_with};
use crate::living::{cookie, fast_open_listener};

const SYN_ACK: &str = "S. seq 0 ack 1 win 10000 <mss 1460, sackOK, wscale 0>";

/// A half-open entry.
#[track_caller]
fn passive(t: &mut Test) {
    if t.listener.is_none() {
        t.listen();
    }
    t.send("S seq 0 <sackOK, wscale 0>");
    t.recv(SYN_ACK);
    assert_eq!(t.tuple_state(), State::SynReceived);
}

/// A simultaneous open.
#[track_caller]
fn active(t: &mut Test) {
    t.connect();
    t.send("S seq 0 <sackOK, wscale 0>");
    t.recv(SYN_ACK);
    assert_eq!(t.state(), State::SynReceived);
}

/// Both, each in turn; `true`: active.
fn both(test: impl Fn(&mut Test, bool)) {
    for is_active in [false, true] {
        println!("active: {is_active}");
        each(|t| {
            if is_active {
                active(t)
            } else {
                passive(t)
            }
            test(t, is_active);
        });
    }
}

#[track_caller]
fn stays(t: &Test) {
    assert_eq!(t.tuple_state(), State::SynReceived);
}

#[test]
fn the_syn_again_is_answered_by_the_syn_ack_sa_syn_rcvd_01() {
    both(|t, _| {
        t.wait(600);
        t.send("S seq 0 <sackOK, wscale 0>");
        t.recv(SYN_ACK);
        t.dropped(if t.listener.is_some() { &[] } else { &[DropReason::Duplicate] });
        // At most one in 500 ms.
        t.send("S seq 0 <sackOK, wscale 0>");
        t.recv_nothing();
        stays(t);
        t.send(". seq 1 ack 1");
        t.recv_nothing();
        t.wait(100_000);
        t.recv_nothing();
        assert_eq!(t.tuple_state(), State::Established);
    });
}

/// The timer does not start anew with the SYN-ACK that answers: a peer could put it off for ever.
#[test]
fn an_answer_leaves_the_timer_alone_sa_syn_rcvd_01() {
    both(|t, _| {
        t.wait(600);
        t.send("S seq 0 <sackOK, wscale 0>");
        t.recv(SYN_ACK);
        t.recv_after(400, SYN_ACK);
        t.recv_after(2000, SYN_ACK);
    });
}

#[test]
fn another_syn_in_the_window_sa_syn_rcvd_02() {
    both(|t, active| {
        for seq in [1, 100] {
            t.send(&format!("S seq {seq} <sackOK, wscale 0>"));
            if active {
                t.recv(". seq 1 ack 1");
                stays(t);
                continue;
            }
            // Back to LISTEN, and the client's next try finds it.
            t.recv_nothing();
            assert_eq!((t.tuple_state(), t.stack.usage().half_open), (State::Closed, 0));
            passive(t);
        }
        let reason = if active { DropReason::SynChallenged } else { DropReason::HalfOpenSyn };
        t.dropped(&[reason; 2]);
    });
}

#[test]
fn another_syn_outside_the_window_is_acknowledged_sa_syn_rcvd_03() {
    both(|t, _| {
        t.send("S seq 20000 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        stays(t);
        t.wait(500);
        t.send("S seq -5 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        stays(t);
        // A client that rebooted answers with a RST, and its retry succeeds.
        t.send("R seq 1");
        t.recv_nothing();
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

#[test]
fn the_crossed_syn_ack_establishes_only_a_simultaneous_open_sa_syn_rcvd_04() {
    both(|t, active| {
        t.send("S. seq 0 ack 1 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        if active {
            assert_eq!(t.state(), State::Established);
            assert_eq!(t.events(t.sock), Event::CONNECTED | Event::WRITABLE);
            t.wait(10_000);
            t.recv_nothing();
        } else {
            stays(t);
            assert_eq!(t.stack.accept(t.listener.unwrap()), Err(Error::WouldBlock), "THREAT-38");
        }
    });
}

#[test]
fn a_syn_ack_of_something_else_is_reset_sa_syn_rcvd_05() {
    both(|t, _| {
        for ack in [0, 2] {
            t.send(&format!("S. seq 0 ack {ack} <sackOK, wscale 0>"));
            t.recv(&format!("R seq {ack}"));
            stays(t);
        }
    });
}

#[test]
fn the_third_segment_establishes_sa_syn_rcvd_06() {
    both(|t, active| {
        t.send(". seq 1 ack 1 win 777");
        t.recv_nothing();
        if !active {
            let listener = t.listener.unwrap();
            assert_eq!(t.events(listener), Event::READABLE);
            t.accept();
            assert_eq!(t.stack.counters().passive_opens, 1);
        } else {
            assert_eq!(t.events(t.sock), Event::CONNECTED | Event::WRITABLE);
        }
        assert_eq!(t.state(), State::Established);
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.snd_wnd, info.snd_mss, info.sack, info.timestamps), (777, 1000, true, t.ts));
        let usage = t.stack.usage();
        assert_eq!((usage.half_open, usage.opening, usage.connections), (0, 0, 1));
        t.wait(100_000);
        t.recv_nothing();
    });
}

#[test]
fn the_window_of_the_third_segment_is_scaled_sa_syn_rcvd_06() {
    each(|t| {
        t.listen();
        t.send("S seq 0 win 9 <wscale 14>");
        t.recv("S. seq 0 ack 1 <mss 1460, wscale 0>");
        t.send(". seq 1 ack 1 win 3");
        t.accept();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_wnd, 3 << 14);
    });
}

/// The third segment is dropped and the SYN-ACK goes on. As soon as there is room it is sent again at once, and the
/// client's next segment establishes.
#[test]
fn a_full_accept_queue_drops_the_third_segment_sa_syn_rcvd_07() {
    each(|t| {
        t.listen_with(ListenOptions { backlog: 1, ..ListenOptions::default() });
        passive(t);
        t.peer(5000);
        passive(t);
        t.send(". seq 1 ack 1");
        t.peer(4000);
        t.send(". seq 1 ack 1");
        t.send("P. seq 1:101 ack 1");
        t.recv_nothing();
        t.dropped(&[DropReason::AcceptQueueFull; 2]);
        assert_eq!((t.stack.counters().listen_overflows, t.stack.counters().listen_drops), (2, 2));
        stays(t);
        t.recv_after(1000, SYN_ACK);
        t.wait(200);
        t.accept_any();
        t.recv(SYN_ACK);
        t.send("P. seq 1:101 ack 1");
        t.recv(". seq 1 ack 101");
        t.accept();
        t.read(100);
    });
}

/// Each place in the accept queue calls one, the oldest first; who is gone is left out.
#[test]
fn who_waits_longest_for_the_accept_queue_is_called_first_sa_syn_rcvd_07() {
    each(|t| {
        t.listen_with(ListenOptions { backlog: 1, ..ListenOptions::default() });
        let ports = [5000, 5001, 5002, 5003];
        for port in ports {
            t.peer(port);
            passive(t);
        }
        for port in ports {
            t.peer(port);
            t.send(". seq 1 ack 1");
        }
        t.peer(5001);
        t.send("R seq 1");
        for (called, other) in [(5002, 5003), (5003, 5002)] {
            t.wait(100);
            t.accept_any();
            t.peer(other);
            t.recv_nothing();
            t.peer(called);
            t.recv(SYN_ACK);
            t.send(". seq 1 ack 1");
            assert_eq!(t.tuple_state(), State::Established);
        }
        let last = t.accept_any();
        t.recv_nothing();
        // The time until there was room is no round trip.
        assert_eq!(t.stack.info(t.now, last).unwrap().rtt, Duration::ZERO);
    });
}

/// To be called neither counts as a try nor starts the timer anew: the entry ends when it would have ended.
#[test]
fn a_call_does_not_keep_a_half_open_entry_sa_syn_rcvd_18() {
    each(|t| {
        t.listen_with(ListenOptions { backlog: 1, ..ListenOptions::default() });
        for port in [5000, 4000] {
            t.peer(port);
            passive(t);
        }
        for port in [5000, 4000] {
            t.peer(port);
            t.send(". seq 1 ack 1");
        }
        for faster in [5001, 5002, 5003] {
            t.wait(100);
            t.accept_any();
            t.recv(SYN_ACK);
            // Somebody is faster.
            t.peer(faster);
            passive(t);
            t.send(". seq 1 ack 1");
            t.peer(4000);
            t.send(". seq 1 ack 1");
        }
        t.recv_after(700, SYN_ACK);
        for gap in [2000, 4000, 8000, 16_000] {
            t.recv_after(gap, SYN_ACK);
        }
        t.wait(32_000);
        t.recv_nothing();
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

#[test]
fn abort_on_overflow_resets_the_third_segment_sa_syn_rcvd_07() {
    each_with(
        |c| c.tcp_abort_on_overflow = true,
        |t| {
            t.listen_with(ListenOptions { backlog: 1, ..ListenOptions::default() });
            passive(t);
            t.peer(5000);
            passive(t);
            t.send(". seq 1 ack 1");
            t.peer(4000);
            t.send(". seq 1 ack 1");
            t.recv("R seq 1");
            assert_eq!(t.tuple_state(), State::Closed);
            assert_eq!(t.stack.counters().replied(ReplyReason::RstOverflow), 1);
        },
    );
}

#[test]
fn without_room_for_a_connection_the_third_segment_is_dropped_sa_syn_rcvd_08() {
    each_with(
        |c| c.tcp_max_connections = 1,
        |t| {
            t.establish();
            t.peer(5000);
            passive(t);
            t.send(". seq 1 ack 1");
            t.recv_nothing();
            t.dropped(&[DropReason::NoMemory]);
            assert_eq!(t.stack.counters().listen_drops, 1);
            stays(t);
            t.recv_after(1000, SYN_ACK);
            t.peer(4000);
            t.abort();
            t.recv("R. seq 1 ack 1");
            t.peer(5000);
            t.send(". seq 1 ack 1");
            assert_eq!(t.tuple_state(), State::Established);
        },
    );
}

#[test]
fn text_and_fin_of_the_third_segment_count_sa_syn_rcvd_09() {
    both(|t, active| {
        t.send("FP. seq 1:101 ack 1");
        t.recv(". seq 1 ack 102");
        if !active {
            t.accept();
        }
        assert_eq!(t.state(), State::CloseWait);
        assert!(t.events(t.sock).contains(Event::READABLE));
        t.read(100);
        assert_eq!(t.read_end(), Ok(0));
    });
}

#[test]
fn an_ack_of_something_else_is_reset_sa_syn_rcvd_10() {
    both(|t, _| {
        for ack in [0u32, 2, u32::MAX] {
            for seq in [1, 100] {
                t.send(&format!(". seq {seq} ack {ack}"));
                t.recv(&format!("R seq {ack}"));
                stays(t);
            }
        }
        t.dropped(&[DropReason::AckOfUnsent; 6]);
    });
}

#[test]
fn a_segment_outside_the_window_is_acknowledged_sa_syn_rcvd_11() {
    both(|t, _| {
        t.send(". seq 10001 ack 1");
        t.recv(". seq 1 ack 1 win 10000");
        stays(t);
        t.send(". seq -9 ack 1");
        t.recv_nothing();
        t.wait(500);
        t.send(". seq 0 ack 1");
        t.recv(". seq 1 ack 1");
        stays(t);
        // The last number of the window is good.
        t.send(". seq 10000 ack 1");
        assert_eq!(t.tuple_state(), State::Established);
    });
}

/// The window of an ACK before the handshake is over is scaled like every other: it must not promise more than
/// the SYN-ACK did.
#[test]
fn the_window_of_its_ack_is_scaled_sa_syn_rcvd_11() {
    each_with(
        |c| c.tcp_rcvbuf = 1 << 20,
        |t| {
            t.listen();
            t.send("S seq 0 <wscale 2>");
            t.recv("S. seq 0 ack 1 win 65535 <mss 1460, wscale 5>");
            t.send(". seq -100 ack 1");
            let window = t.recv(". seq 1 ack 1").header.window;
            assert!(u32::from(window) << 5 <= 1 << 20, "{window}");
        },
    );
}

/// A SYN-ACK says 65,535 at the most, the ACK of a half-open entry rounds that up, and that of a Fast Open connection
/// says all. The advertised edge holds, though a retransmitted SYN-ACK cannot repeat it (9293-h).
#[test]
fn a_syn_ack_that_comes_again_takes_no_window_back_sa_syn_rcvd_18() {
    let configure = |c: &mut steadfast_core::Config| {
        (c.tcp_rcvbuf, c.tcp_fastopen) = (1 << 20, FastOpenMode::SERVER);
    };
    for fast_open in [false, true] {
        each_with(configure, |t| {
            fast_open_listener(t);
            let mut options = "wscale 2".to_owned();
            if fast_open {
                options += &format!(", tfo {}", cookie(t));
            }
            let syn_ack = "S. seq 0 ack 1 win 65535 <mss 1460, wscale 5>";
            t.send(&format!("S seq 0 <{options}>"));
            t.recv(syn_ack);
            t.send(". seq -100 ack 1");
            t.recv(". seq 1 ack 1");
            let edge = t.cur().edge;
            assert_eq!(edge, 1 + if fast_open { 1 << 20 } else { 65_536 });
            t.recv_after(1000, syn_ack);
            t.send(". seq 1 ack 1");
            t.accept();
            t.send(&format!("P. seq {}:{edge} ack 1", edge - 1));
            t.recv(". seq 1 ack 1");
            assert_eq!(t.stack.info(t.now, t.sock).unwrap().out_of_order, 1);
        });
    }
}

#[test]
fn an_old_timestamp_is_acknowledged_sa_syn_rcvd_12() {
    both(|t, active| {
        if !t.ts {
            return;
        }
        let old = t.ts_val - 1;
        t.send(&format!(". seq 1 ack 1 <ts {old} ecr {}>", t.cur().ts_last));
        t.recv(". seq 1 ack 1");
        stays(t);
        t.dropped(&[DropReason::Paws]);
        t.send(". seq 1 ack 1 <nots>");
        t.recv_nothing();
        if active {
            t.dropped(&[DropReason::MissingTimestamp]);
            stays(t);
        } else {
            // The SYN-ACK lost the option on its way: timestamps are given up (H13).
            t.sock = t.accept();
            assert_eq!(t.state(), State::Established);
            assert!(!t.stack.info(t.now, t.sock).unwrap().timestamps);
        }
    });
}

#[test]
fn a_reset_at_the_left_edge_ends_it_sa_syn_rcvd_13() {
    both(|t, active| {
        t.send("R seq 1");
        t.recv_nothing();
        if active {
            t.is_closed(Some(Error::ConnectionRefused));
        } else {
            assert_eq!(t.tuple_state(), State::Closed);
            assert_eq!(t.stack.counters().embryonic_rsts, 1);
            assert_eq!(t.events(t.listener.unwrap()), Event::default(), "the application is not told");
            t.dropped(&[DropReason::HalfOpenRst]);
            passive(t);
        }
        assert_eq!(t.stack.counters().attempt_fails, 1);
    });
}

#[test]
fn a_reset_elsewhere_in_the_window_is_challenged_sa_syn_rcvd_14() {
    both(|t, _| {
        for seq in [2, 10_000] {
            t.send(&format!("R seq {seq}"));
            t.recv(". seq 1 ack 1");
            stays(t);
            if seq == 2 {
                t.wait(500);
            }
        }
        t.dropped(&[DropReason::RstChallenged; 2]);
    });
}

#[test]
fn a_reset_outside_the_window_is_dropped_sa_syn_rcvd_15() {
    both(|t, _| {
        for seq in [0, -1, 10_001] {
            t.send(&format!("R seq {seq}"));
        }
        t.recv_nothing();
        t.dropped(&[DropReason::RstOutOfWindow; 3]);
        stays(t);
    });
}

/// Also SA-SYN_RCVD-16 with what is no FIN: those do not get past P2.
#[test]
fn a_fin_without_ack_is_dropped_sa_syn_rcvd_17() {
    both(|t, _| {
        t.send("F seq 1");
        t.send("F seq 1:11");
        t.recv_nothing();
        t.dropped(&[DropReason::NoAck; 2]);
        stays(t);
    });
}

#[test]
fn the_syn_ack_is_sent_again_until_retries_end_sa_syn_rcvd_18() {
    both(|t, active| {
        let mut at = 0;
        // Who connects has the patience of a SYN (MUST-23); see `limits`.
        let (all, end): (&[u64], _) =
            if active { (&[1, 3, 7, 15, 31, 63, 127], 195_000) } else { (&[1, 3, 7, 15, 31], 63_000) };
        for due in all {
            t.recv_after((due - at) * 1000, SYN_ACK);
            at = *due;
        }
        t.wait(end - at * 1000 - 1);
        stays(t);
        t.wait(1);
        // SA-SYN_RCVD-19
        assert_eq!(t.tuple_state(), State::Closed);
        assert_eq!(t.stack.counters().synack_retries_exhausted, 1);
        if active {
            t.recv("R. seq 1 ack 1");
            t.is_closed(Some(Error::TimedOut));
        } else {
            t.recv_nothing();
            assert_eq!(t.events(t.listener.unwrap()), Event::default());
        }
        t.send(". seq 1 ack 1");
        t.recv("R seq 1");
    });
}

#[test]
fn the_end_of_retries_sends_a_reset_where_configured_sa_syn_rcvd_19() {
    each_with(
        |c| (c.synack_timeout_rst, c.tcp_synack_retries) = (true, 0),
        |t| {
            passive(t);
            t.recv_after(1000, "R. seq 1 ack 1 <nots>");
            assert_eq!(t.tuple_state(), State::Closed);
        },
    );
}

/// The data of a connection whose SYN-ACK was lost twice waits 3 s, and begins with one segment (6298-11, 5681-4, 6928-1).
#[test]
fn a_syn_ack_that_was_lost_twice_makes_the_start_careful_sa_syn_rcvd_18() {
    both(|t, active| {
        t.recv_after(1000, SYN_ACK);
        t.recv_after(2000, SYN_ACK);
        t.send(". seq 1 ack 1");
        if !active {
            t.accept();
        }
        t.write(3000);
        t.recv(". seq 1:1001 ack 1");
        t.recv_nothing();
        t.recv_after(3000, ". seq 1:1001 ack 1");
    });
}

#[test]
fn a_hard_icmp_error_ends_it_sa_syn_rcvd_20() {
    both(|t, active| {
        // About another number, or soft: nothing.
        t.icmp_error(ErrorKind::PortUnreachable, 1);
        t.icmp_error(ErrorKind::HostUnreachable, 0);
        t.icmp_error(ErrorKind::TimeExceeded, 0);
        stays(t);
        t.dropped(&[DropReason::IcmpNotInFlight]);
        t.icmp_error(ErrorKind::PortUnreachable, 0);
        t.recv_nothing();
        assert_eq!(t.tuple_state(), State::Closed);
        if active {
            t.is_closed(Some(Error::ConnectionRefused));
        }
    });
}

#[test]
fn close_waits_for_the_connection_sa_syn_rcvd_22() {
    for how in ["shutdown", "close"] {
        each(|t| {
            active(t);
            t.write(10);
            if how == "close" {
                t.close()
            } else {
                t.shutdown(Shutdown::Write)
            }
            t.recv_nothing();
            assert_eq!(t.tuple_state(), State::SynReceived);
            t.send(". seq 1 ack 1");
            t.recv("FP. seq 1:11 ack 1");
            assert_eq!(t.tuple_state(), State::FinWait1);
        });
    }
}

/// A deviation that stands: our RST carries ACK as well.
#[test]
fn abort_resets_sa_syn_rcvd_23() {
    each(|t| {
        active(t);
        t.abort();
        t.recv("R. seq 1 ack 1");
        assert_eq!(t.tuple_state(), State::Closed);
        assert_eq!(t.stack.usage().timers, 0);
    });
}

#[test]
fn what_is_written_waits_sa_syn_rcvd_24() {
    each(|t| {
        active(t);
        t.write(100);
        t.recv_nothing();
        assert_eq!(t.read_end(), Err(Error::WouldBlock));
        t.send(". seq 1 ack 1");
        t.recv("P. seq 1:101 ack 1");
    });
}

#[test]
fn a_second_open_fails_sa_syn_rcvd_25() {
    both(|t, _| {
        let options = ConnectOptions { local_port: Some(PORT), ..ConnectOptions::default() };
        assert_eq!(t.stack.connect(t.now, t.remote(), options), Err(Error::AddrNotAvailable));
    });
}

#[test]
fn status_tells_state_and_origin_sa_syn_rcvd_26() {
    both(|t, active| {
        t.wait(375);
        let all = t.stack.sockets(t.now);
        let entry = all.iter().find(|s| s.state == State::SynReceived).unwrap();
        if active {
            assert_eq!((entry.socket, entry.listener), (Some(t.sock), None));
            assert_eq!(entry.state_age, Duration::from_millis(375));
            assert_eq!(t.stack.info(t.now, t.sock).unwrap().state, State::SynReceived);
        } else {
            assert_eq!((entry.socket, entry.listener), (None, Some(t.local())));
            let listener = all.iter().find(|s| s.state == State::Listen).unwrap();
            assert_eq!(listener.half_open, 1);
        }
    });
}

//! How connections end: FIN-WAIT-1, FIN-WAIT-2, CLOSE-WAIT, CLOSING, LAST-ACK, beyond what `synchronized` has.

use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;
use steadfast_core::{Duration, Error, Event, Shutdown};

use crate::harness::{each, each_with};

/// 9293-j: who waits to read is woken.
#[test]
fn a_fin_in_order_is_acknowledged_and_told_sa_est_22() {
    each(|t| {
        t.reach(State::Established);
        t.send("F. seq 51 ack 101");
        t.recv(". seq 101 ack 52");
        assert_eq!(t.state(), State::CloseWait);
        assert_eq!(t.events(t.sock), Event::READABLE);
        assert_eq!(t.read_end(), Ok(0));
        let counters = t.stack.counters();
        assert_eq!((counters.close_wait_entered, counters.close_wait_left), (1, 0));
    });
}

#[test]
fn data_after_shutdown_for_reading_is_acknowledged_and_discarded_sa_est_25() {
    each(|t| {
        t.reach(State::Established);
        t.send("P. seq 51:61 ack 101");
        t.recv(". seq 101 ack 61");
        t.shutdown(Shutdown::Read);
        t.recv_nothing();
        assert_eq!(t.read_end(), Ok(0), "what was unread is gone");
        for n in 0..20 {
            let seq = 61 + n * 1000;
            t.send(&format!("P. seq {seq}:{} ack 101", seq + 1000));
            t.rcv = seq + 1000;
            t.nxt = 101;
            if n < 10 {
                t.recv_ack();
            }
        }
        t.wait(100);
        t.drain();
        t.dropped(&[DropReason::DataAfterShutdown; 20]);
        assert_eq!((t.state(), t.stack.usage().buffered), (State::Established, 0));
        t.write(10);
        t.recv(&format!("P. seq 101:111 ack {}", t.rcv));
    });
}

/// Also SA-CLOSE_WAIT-27: the state changes at once, the FIN follows the data.
#[test]
fn the_fin_follows_what_is_queued_sa_est_32() {
    for (from, to) in [(State::Established, State::FinWait1), (State::CloseWait, State::LastAck)] {
        for close in [false, true] {
            each(|t| {
                t.reach(from);
                t.send(&format!(". seq {} ack 101 win 1500", t.rcv));
                t.write(2600);
                t.recv(&format!(". seq 101:1101 ack {}", t.rcv));
                if close {
                    t.close()
                } else {
                    t.shutdown(Shutdown::Write)
                }
                assert_eq!(t.tuple_state(), to);
                t.recv_nothing();
                t.send(&format!(". seq {} ack 1101 win 1500", t.rcv));
                t.recv(&format!(". seq 1101:2101 ack {}", t.rcv));
                t.send(&format!(". seq {} ack 2101 win 1500", t.rcv));
                t.recv(&format!("FP. seq 2101:2701 ack {}", t.rcv));
                if !close {
                    t.shutdown(Shutdown::Write);
                    assert_eq!(t.try_write(1), Err(Error::BrokenPipe));
                    t.recv_nothing();
                }
                assert_eq!(t.tuple_state(), to);
            });
        }
    }
}

/// SA-FIN_WAIT_1-14, SA-CLOSE_WAIT-13, SA-CLOSING-13, SA-LAST_ACK-13, SA-EST-14: progress that does not reach the FIN.
#[test]
fn an_ack_below_the_fin_only_advances_sa_fin_wait_1_14() {
    let states = [State::Established, State::FinWait1, State::CloseWait, State::Closing, State::LastAck];
    for state in states {
        each(|t| {
            t.reach(State::Established);
            t.write(2000);
            t.drain();
            if matches!(state, State::CloseWait | State::LastAck) {
                t.send("F. seq 51 ack 101");
                t.recv(". seq 2101 ack 52");
                t.rcv = 52;
            }
            let fin = !matches!(state, State::Established | State::CloseWait);
            if fin {
                t.shutdown(Shutdown::Write);
                t.drain();
            }
            if state == State::Closing {
                t.send("F. seq 51 ack 101");
                t.recv(". seq 2102 ack 52");
                t.rcv = 52;
            }
            t.send(&format!(". seq {} ack 2101 win 9", t.rcv));
            t.recv_nothing();
            assert_eq!(t.state(), state);
            let info = t.stack.info(t.now, t.sock).unwrap();
            assert_eq!((info.unacked, info.bytes_acked), (u32::from(fin), 2100));
            assert_eq!((info.snd_wnd, info.send_q), (9, 0));
        });
    }
}

#[test]
fn an_ack_of_the_fin_leads_to_fin_wait_2_sa_fin_wait_1_15() {
    each(|t| {
        t.reach(State::FinWait1);
        t.send(". seq 51 ack 102");
        t.recv_nothing();
        assert_eq!(t.state(), State::FinWait2);
        // A half-close has no limit (also SA-FIN_WAIT_2-38).
        t.wait(10_000_000);
        t.recv_nothing();
        assert_eq!(t.state(), State::FinWait2);
        t.send("P. seq 51:61 ack 102");
        t.recv(". seq 102 ack 61");
        t.read(10);
    });
}

#[test]
fn fins_that_cross_lead_to_closing_sa_fin_wait_1_23() {
    each(|t| {
        t.reach(State::FinWait1);
        t.send("F. seq 51 ack 101");
        t.recv(". seq 102 ack 52");
        assert_eq!(t.state(), State::Closing);
        assert_eq!(t.read_end(), Ok(0));
        // SA-CLOSING-14
        t.send(". seq 52 ack 102");
        t.recv_nothing();
        assert_eq!((t.state(), t.tuple_state()), (State::Closed, State::TimeWait));
    });
}

/// SA-FIN_WAIT_1-26, SA-FIN_WAIT_2-26, SA-FIN_WAIT_2-39, SA-FIN_WAIT_1-42 (SHLD-3).
#[test]
fn data_for_an_orphan_resets_sa_fin_wait_1_26() {
    for (state, ack) in [(State::FinWait1, 101), (State::FinWait1, 102), (State::FinWait2, 102)] {
        for offset in [0, 100] {
            each(|t| {
                t.reach(state);
                t.close();
                t.send(&format!("P. seq {}:{} ack {ack}", 51 + offset, 61 + offset));
                let got = t.recv_any().expect("a RST");
                assert!(got.header.flags.rst());
                assert_eq!(got.header.seq, t.cur().irs.unwrap() + 102, "SEQ=SND.NXT");
                t.is_closed(None);
                assert_eq!(t.stack.counters().tcp_abort_on_data, 1);
            });
        }
    }
}

/// Old data says nothing new: it is acknowledged, and the orphan lives on.
#[test]
fn old_data_does_not_reset_an_orphan_sa_fin_wait_1_26() {
    each(|t| {
        t.reach(State::FinWait2);
        t.close();
        t.send("P. seq 1:51 ack 102");
        t.recv(". seq 102 ack 51 <sack 1:51>");
        assert_eq!(t.tuple_state(), State::FinWait2);
    });
}

/// SHLD-3: nor does old data that comes again with the FIN. All of it was read, and the peer closes in good order.
#[test]
fn old_data_with_a_fin_does_not_reset_an_orphan_shld_3() {
    for (state, ack, after) in
        [(State::FinWait1, 101, State::Closing), (State::FinWait2, 102, State::TimeWait)]
    {
        each(|t| {
            t.reach(state);
            t.close();
            t.send(&format!("FP. seq 1:51 ack {ack}"));
            t.recv(". seq 102 ack 52 <sack 1:51>");
            assert_eq!((t.tuple_state(), t.stack.counters().tcp_abort_on_data), (after, 0));
        });
    }
}

/// SA-FIN_WAIT_1-33, SA-FIN_WAIT_2-33, SA-CLOSING-28, SA-LAST_ACK-28: no second FIN.
#[test]
fn close_after_half_close_sends_nothing_sa_fin_wait_1_33() {
    for state in [State::FinWait1, State::FinWait2, State::Closing, State::LastAck] {
        each(|t| {
            t.reach(state);
            t.close();
            t.recv_nothing();
            assert_eq!(t.tuple_state(), state);
            let usage = t.stack.usage();
            assert_eq!((usage.sockets, usage.orphans, usage.connections), (1, 1, 1));
        });
    }
}

/// SA-FIN_WAIT_1-37, SA-CLOSING-31, SA-LAST_ACK-31, SA-LAST_ACK-33: an orphan gives up after tcp_orphan_retries.
#[test]
fn an_orphan_sends_its_fin_eight_times_more_sa_fin_wait_1_37() {
    for state in [State::FinWait1, State::Closing, State::LastAck] {
        each(|t| {
            t.reach(state);
            t.close();
            let mut gap = 200;
            for _ in 0..8 {
                t.recv_after(gap, &format!("F. seq 101 ack {}", t.rcv));
                gap *= 2;
            }
            t.wait(gap - 1);
            assert_eq!(t.tuple_state(), state);
            t.wait(1);
            t.drain();
            t.is_closed(None);
            assert_eq!(t.stack.counters().tcp_abort_on_timeout, 1);
        });
    }
}

/// SA-FIN_WAIT_1-38, SA-CLOSING-32, SA-LAST_ACK-32.
#[test]
fn the_user_timeout_ends_what_is_ending_sa_fin_wait_1_38() {
    for state in [State::FinWait1, State::Closing, State::LastAck] {
        each(|t| {
            t.reach(state);
            t.set_options(|o| o.user_timeout = Duration::from_millis(1000));
            t.wait(999);
            assert_eq!(t.state(), state);
            t.drain();
            t.wait(1);
            t.recv_rst();
            t.is_closed(Some(Error::TimedOut));
        });
    }
}

/// SA-FIN_WAIT_1-39 (THREAT-54): the FIN waits behind a zero window as long as probes are answered. An orphan
/// sends at most seven: see `limits`.
#[test]
fn the_fin_waits_behind_a_zero_window_sa_fin_wait_1_39() {
    for (orphan, probes) in [(false, 40), (true, 7)] {
        each(|t| {
            t.reach(State::Established);
            t.send(". seq 51 ack 101 win 0");
            if orphan {
                t.close()
            } else {
                t.shutdown(Shutdown::Write)
            }
            t.recv_nothing();
            assert_eq!(t.tuple_state(), State::FinWait1);
            let mut gap = 200;
            for _ in 0..probes {
                t.recv_after(gap, ". seq 100 ack 51");
                t.send(". seq 51 ack 101 win 0");
                t.recv_nothing();
                gap = (gap * 2).min(120_000);
            }
            t.send(". seq 51 ack 101 win 1");
            t.recv("F. seq 101 ack 51");
        });
    }
}

/// SA-FIN_WAIT_1-41: the FIN acknowledges ours.
#[test]
fn a_fin_that_acknowledges_ours_leads_to_time_wait_sa_fin_wait_1_41() {
    each(|t| {
        t.reach(State::FinWait1);
        t.send("FP. seq 51:61 ack 102");
        t.recv(". seq 102 ack 62");
        assert_eq!((t.state(), t.tuple_state()), (State::Closed, State::TimeWait));
        let events = t.events(t.sock);
        assert!(events.contains(Event::READABLE | Event::CLOSED) && !events.contains(Event::ERROR));
        t.read(10);
        assert_eq!(t.read_end(), Ok(0));
    });
}

/// Both sides of tcp_max_orphans.
#[test]
fn one_orphan_too_many_is_reset_sa_fin_wait_1_43() {
    each_with(
        |c| c.tcp_max_orphans = 1,
        |t| {
            t.reach(State::Established);
            t.close();
            t.recv("F. seq 101 ack 51");
            assert_eq!((t.stack.usage().orphans, t.tuple_state()), (1, State::FinWait1));
            t.peer(5000);
            t.establish();
            t.close();
            t.recv("R. seq 1 ack 1");
            assert_eq!(t.tuple_state(), State::Closed);
            assert_eq!((t.stack.usage().orphans, t.stack.counters().tcp_abort_on_memory), (1, 1));
        },
    );
}

#[test]
fn a_fin_in_fin_wait_2_leads_to_time_wait_sa_fin_wait_2_23() {
    each(|t| {
        t.reach(State::FinWait2);
        t.send("F. seq 51 ack 102");
        t.recv(". seq 102 ack 52");
        assert_eq!((t.state(), t.tuple_state()), (State::Closed, State::TimeWait));
        let usage = t.stack.usage();
        assert_eq!((usage.connections, usage.timers, usage.time_wait), (0, 0, 1), "all else stops");
        assert_eq!(t.stack.take_error(t.sock), Ok(None));
    });
}

/// Also SA-FIN_WAIT_2-33.
#[test]
fn an_orphan_in_fin_wait_2_ends_after_a_minute_sa_fin_wait_2_38() {
    for close_last in [false, true] {
        each(|t| {
            if close_last {
                t.reach(State::FinWait2);
                t.wait(1000);
                t.close();
            } else {
                t.reach(State::Established);
                t.close();
                t.recv("F. seq 101 ack 51");
                t.send(". seq 51 ack 102");
            }
            t.wait(59_999);
            assert_eq!(t.tuple_state(), State::FinWait2);
            t.wait(1);
            t.recv_nothing();
            t.is_closed(None);
            assert_eq!(t.stack.counters().tcp_abort_on_linger, 1);
            t.send("F. seq 51 ack 102");
            t.recv("R seq 102");
        });
    }
}

#[test]
fn a_syn_for_an_orphan_is_challenged_sa_fin_wait_2_40() {
    each(|t| {
        t.reach(State::FinWait2);
        t.close();
        t.send("S seq 51");
        t.recv(". seq 102 ack 51");
        assert_eq!(t.tuple_state(), State::FinWait2);
    });
}

/// The last segment of N2's other side.
#[test]
fn an_ack_of_our_fin_ends_last_ack_sa_last_ack_14() {
    each(|t| {
        t.reach(State::LastAck);
        t.send(". seq 52 ack 102");
        t.recv_nothing();
        t.is_closed(None);
        assert_eq!(t.read_end(), Ok(0));
        assert_eq!(t.stack.usage().time_wait, 0);
        let counters = t.stack.counters();
        assert_eq!((counters.close_wait_entered, counters.close_wait_left), (1, 1));
    });
}

/// SA-CLOSE_WAIT-35: nothing but the application ends it; its age is told.
#[test]
fn close_wait_stays_and_is_diagnosed_sa_close_wait_35() {
    each(|t| {
        t.reach(State::CloseWait);
        t.wait(3_600_000);
        t.recv_nothing();
        assert_eq!(t.state(), State::CloseWait);
        let found = t.stack.diagnose(t.now, Duration::from_secs(3600));
        assert_eq!((found.len(), found[0].owner, found[0].connections), (1, t.local(), 1));
        assert_eq!(found[0].oldest, Duration::from_secs(3600));
        let text = found[0].to_string();
        assert!(text.starts_with("1 connection accepted from listener"), "{text}");
        assert!(text.contains(" stays in CLOSE-WAIT, the oldest for 3600 s"), "{text}");
        assert!(t.stack.diagnose(t.now, Duration::from_secs(3601)).is_empty());
    });
}

/// Both FINs' ACKs were lost; each side repeats its FIN with an old number, and the ACK in it counts all the same
/// (RFC 9293 appendix A.2). Also SA-LAST_ACK-21 for LAST-ACK.
#[test]
fn the_ack_of_a_repeated_fin_counts_sa_closing_33() {
    each(|t| {
        t.reach(State::Closing);
        t.send("F. seq 51 ack 102");
        t.recv(". seq 102 ack 52");
        assert_eq!(t.tuple_state(), State::TimeWait);
    });
    each(|t| {
        t.reach(State::LastAck);
        t.send("F. seq 51 ack 102");
        t.drain();
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

/// The same with data in front of the FIN, which comes again whole.
#[test]
fn the_ack_of_a_repeated_fin_with_data_counts_sa_closing_33() {
    each(|t| {
        t.reach(State::FinWait1);
        t.send("FP. seq 51:61 ack 101");
        t.recv(". seq 102 ack 62");
        assert_eq!(t.state(), State::Closing);
        t.send("FP. seq 51:61 ack 102");
        t.drain();
        assert_eq!(t.tuple_state(), State::TimeWait);
    });
}

/// SA-EST-32 with everything read; the whole of N1 and N2 without a word too many.
#[test]
fn an_orderly_end_takes_four_segments_n2() {
    each(|t| {
        t.establish();
        t.close();
        t.recv("F. seq 1 ack 1");
        t.send(". seq 1 ack 2");
        t.recv_nothing();
        t.send("F. seq 1 ack 2");
        t.recv(". seq 2 ack 2");
        t.wait(59_999);
        assert_eq!(t.tuple_state(), State::TimeWait);
        t.wait(1);
        t.recv_nothing();
        assert_eq!((t.tuple_state(), t.stack.poll_at()), (State::Closed, None));
    });
}

/// SA-FIN_WAIT_1-40: our FIN is outstanding, so that keepalive never probes here (MUST-26): the FIN itself is sent
/// again, and R2 ends the connection.
#[test]
fn keepalive_does_not_probe_while_the_fin_is_out_sa_fin_wait_1_40() {
    each(|t| {
        t.reach(State::FinWait1);
        t.set_options(|o| {
            o.keepalive = true;
            o.keepalive_time = Duration::from_secs(1);
            o.keepalive_intvl = Duration::from_secs(1);
        });
        t.wait(924_599);
        assert_eq!(t.state(), State::FinWait1);
        assert_eq!(t.stack.counters().tcp_keep_alive, 0);
        t.wait(1);
        t.recv_rst_any();
        t.is_closed(Some(Error::TimedOut));
    });
}

/// THREAT-52: a FIN occupies one number, which must lie inside of the window.
#[test]
fn a_fin_at_the_edge_of_the_window_threat_52() {
    for short in [0, 1, 2] {
        each(|t| {
            t.reach(State::Established);
            let last = t.cur().edge - short;
            while t.rcv < last {
                let end = (t.rcv + 1000).min(last);
                t.send(&format!(". seq {}:{end} ack 101", t.rcv));
                t.rcv = end;
                t.drain();
            }
            t.send(&format!("F. seq {last} ack 101"));
            let taken = u32::from(short > 0);
            t.recv(&format!(". seq 101 ack {} win {}", last + taken, short.saturating_sub(1)));
            let state = if taken == 1 { State::CloseWait } else { State::Established };
            assert_eq!(t.state(), state);
            t.read(last - 51);
            t.drain();
            if taken == 0 {
                t.send(&format!("F. seq {last} ack 101"));
                t.recv(&format!(". seq 101 ack {}", last + 1));
            }
            assert_eq!((t.state(), t.read_end()), (State::CloseWait, Ok(0)));
        });
    }
}

/// The client resets before the application accepts: it gets the connection, and then the error.
#[test]
fn a_connection_reset_before_accept_tells_so_sa_est_03() {
    each(|t| {
        t.listen();
        t.send("S seq 0");
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.send("P. seq 1:11 ack 1");
        t.recv(". seq 1 ack 11");
        t.send("R seq 11");
        t.recv_nothing();
        assert_eq!(t.stack.usage().connections, 0);
        t.accept();
        t.read(10);
        assert_eq!(t.read_end(), Err(Error::ConnectionReset));
        t.close();
        let usage = t.stack.usage();
        assert_eq!((usage.sockets, usage.buffered), (1, 0));
    });
}

/// Every way out wakes the application once.
#[test]
fn an_end_is_told_once() {
    each(|t| {
        t.reach(State::Established);
        t.send("R seq 51");
        let events = t.events(t.sock);
        assert_eq!(events, Event::READABLE | Event::WRITABLE | Event::CLOSED | Event::ERROR);
        t.wait(100_000);
        t.send("R seq 51");
        assert_eq!(t.events(t.sock), Event::default());
    });
}

/// Beyond the sixty-fourth, an orphan in FIN-WAIT-2 is kept in a smaller table. It counts like any other.
#[test]
fn a_crowd_of_orphans_is_counted_whole_threat_10() {
    each(|t| {
        for port in 5000..5070 {
            t.peer(port);
            t.establish();
            t.close();
            t.recv("F. seq 1 ack 1");
            t.send(". seq 1 ack 2");
            assert_eq!(t.tuple_state(), State::FinWait2);
        }
        let usage = t.stack.usage();
        assert_eq!((usage.connections, usage.orphans), (70, 70));
        let all = t.stack.sockets(t.now);
        let orphans = all.iter().filter(|entry| entry.state == State::FinWait2);
        assert!(orphans.map(|entry| entry.listener).eq(vec![Some(t.local()); 70]));
        assert_eq!(t.stack.check_consistent(), Ok(()));
    });
}

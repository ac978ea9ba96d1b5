//! TIME-WAIT (RFC 9293 §3.10.7.4, RFC 1337, RFC 6191).

use steadfast_core::config::PortRange;
use steadfast_core::config::SynCookies;
use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;
use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::{ConnectOptions, Error, Shutdown};

use crate::harness::{Test, each, each_with};

#[track_caller]
fn stays(t: &Test) {
    assert_eq!(t.tuple_state(), State::TimeWait);
}

/// In TIME-WAIT, 20 s of 60 over. SND.NXT = 102, RCV.NXT = 52.
#[track_caller]
fn time_wait(t: &mut Test) {
    t.reach(State::TimeWait);
    t.wait(20_000);
    stays(t);
}

/// A SYN of a new incarnation: its ISS is `seq` in numbers of the old one. Gives the distance of our new ISS from
/// the old SND.NXT.
#[track_caller]
fn reopen(t: &mut Test, seq: u32) -> u32 {
    let old = t.cur().irs.unwrap() + 102;
    t.restart_peer(i64::from(seq));
    t.send("S seq 0 <sackOK, wscale 0>");
    t.recv("S. seq 0 ack 1 win 10000 <mss 1460, sackOK, wscale 0>");
    t.cur().irs.unwrap().since(old)
}

/// 6191-1, 6191-4: a later timestamp, or a later sequence number where there is none.
/// SA-LISTEN-10: with an ISS above the old SND.NXT.
#[test]
fn a_later_syn_takes_over_sa_time_wait_01() {
    each(|t| {
        time_wait(t);
        let seq = if t.ts { 30 } else { 52 };
        t.ts_val += 30_000;
        let ahead = reopen(t, seq);
        assert!((1..1 << 31).contains(&ahead), "ISS above SND.NXT (SA-LISTEN-10): {ahead}");
        t.send(". seq 1 ack 1");
        t.accept();
        assert_eq!(t.tuple_state(), State::Established);
        let usage = t.stack.usage();
        assert_eq!((usage.time_wait, t.stack.counters().tw_recycled), (0, 1));
        t.wait(100_000);
        assert_eq!(t.tuple_state(), State::Established, "the old 2MSL does not end it");
    });
}

/// A flood of strangers does not keep out a client whose old connection was here (6191-1), with cookies or without.
#[test]
fn a_later_syn_takes_over_while_the_table_is_full_sa_time_wait_01() {
    for cookies in [SynCookies::Never, SynCookies::WhenFull] {
        each_with(
            |c| (c.tcp_max_syn_backlog, c.tcp_syncookies) = (1, cookies),
            |t| {
                time_wait(t);
                t.peer(5000);
                t.send("S seq 0");
                t.recv("S. seq 0 ack 1 <mss 1460>");
                t.peer(4000);
                t.ts_val += 30_000;
                reopen(t, 1000);
                t.send(". seq 1 ack 1");
                t.accept();
                assert_eq!(t.tuple_state(), State::Established);
                // A stranger finds it full.
                t.peer(6000);
                t.send("S seq 0");
                assert_eq!(t.drain(), usize::from(cookies.number()));
                assert_eq!(t.stack.usage().half_open, 1);
            },
        );
    }
}

/// tcp_max_half_open bounds those who take over from a TIME-WAIT as well, apart from the others.
#[test]
fn those_who_take_over_are_bounded_sa_listen_07() {
    for (most, taken) in [(1, 1), (2, 2)] {
        each_with(
            |c| (c.tcp_max_half_open, c.tcp_syncookies) = (most, SynCookies::Never),
            |t| {
                for peer in [4000, 4001] {
                    t.peer(peer);
                    t.restart_peer(0);
                    t.reach(State::TimeWait);
                }
                for stranger in [5000, 5001] {
                    t.peer(stranger);
                    t.send("S seq 0");
                    t.drain();
                }
                assert_eq!(t.stack.usage().half_open, most as usize);
                t.dropped(&vec![DropReason::SynBacklogFull; 2 - most as usize]);
                t.wait(1000);
                t.ts_val += 30_000;
                let mut answered = 0;
                for peer in [4000, 4001] {
                    t.peer(peer);
                    t.restart_peer(1000);
                    t.send("S seq 0 <sackOK, wscale 0>");
                    answered += t.drain();
                }
                assert_eq!(answered, taken);
                assert_eq!(t.stack.usage().half_open, most as usize + taken);
                t.dropped(&vec![DropReason::SynBacklogFull; 2 - taken]);
                assert_eq!(t.stack.counters().tcp_req_q_full_drop, 2 * (2 - taken) as u64);
                for peer in [5000, 5001] {
                    t.peer(peer);
                    t.send("R seq 1");
                    t.drain();
                }
                for peer in [4000, 4001] {
                    t.peer(peer);
                    t.send("R seq 1");
                    assert_eq!(t.tuple_state(), State::TimeWait);
                    t.drain();
                }
            },
        );
    }
}

/// With the same timestamp the sequence number decides (6191-1); without one on either side too (6191-2, 6191-4).
#[test]
fn the_sequence_number_decides_sa_time_wait_02() {
    each(|t| {
        time_wait(t);
        let options = |t: &Test| if t.ts { format!("<ts {} ecr 0>", t.ts_val) } else { String::new() };
        let text = format!("S seq 51 {}", options(t));
        t.send(&text);
        t.recv(". seq 102 ack 52");
        stays(t);
        if t.ts {
            // An old timestamp is refused whatever the number.
            t.wait(500);
            t.send(&format!("S seq 5000 <ts {} ecr 0>", t.ts_val - 100_000));
            t.recv(". seq 102 ack 52");
            stays(t);
        }
        t.dropped(&vec![DropReason::TimeWaitSegment; 1 + usize::from(t.ts)]);
        let text = format!("S seq 52 {}", options(t));
        t.send(&text);
        t.recv_any().expect("a SYN-ACK");
        assert_eq!(t.tuple_state(), State::SynReceived);
        t.send("R seq 53");
    });
}

/// 6191-2: the old one had timestamps, the new one has not.
#[test]
fn without_a_timestamp_the_sequence_number_decides_6191_2() {
    each(|t| {
        if !t.ts {
            return;
        }
        time_wait(t);
        t.send("S seq 51 <nots>");
        t.recv(". seq 102 ack 52");
        t.send("S seq 52 <nots>");
        assert!(t.recv_any().unwrap().header.flags.syn());
        t.send("R seq 53 <nots>");
    });
}

/// 6191-3: the old one had none.
#[test]
fn a_first_timestamp_takes_over_6191_3() {
    each(|t| {
        if t.ts {
            return;
        }
        time_wait(t);
        t.send("S seq 3 <ts 1 ecr 0>");
        assert!(t.recv_any().unwrap().header.flags.syn());
        t.send("R seq 4");
    });
}

/// The client resets what the challenge ACK brings; that does not end the entry (RFC 1337).
#[test]
fn the_reset_that_answers_a_challenge_is_ignored_sa_time_wait_02() {
    each(|t| {
        time_wait(t);
        let old = if t.ts { format!("<ts {} ecr 0>", t.ts_val - 100_000) } else { String::new() };
        t.send(&format!("S seq 20 {old}"));
        t.recv(". seq 102 ack 52");
        t.send("R seq 52");
        t.recv_nothing();
        stays(t);
    });
}

#[test]
fn a_syn_ack_is_challenged_sa_time_wait_03() {
    each(|t| {
        time_wait(t);
        t.send("S. seq 60 ack 102");
        t.recv(". seq 102 ack 52");
        stays(t);
    });
}

/// The SYN turns out to be an old duplicate: its sender resets our SYN-ACK, and the entry lives out its time
/// (6191-5, MAY-2, THREAT-36).
#[test]
fn an_old_duplicate_syn_gives_the_entry_back_sa_time_wait_04() {
    each(|t| {
        time_wait(t);
        t.ts_val += 30_000;
        reopen(t, 52);
        t.send("R seq 1");
        t.recv_nothing();
        stays(t);
        let entry = t.stack.sockets(t.now).into_iter().find(|s| s.state == State::TimeWait).unwrap();
        assert_eq!(entry.state_age.as_secs(), 20);
        t.restart_peer(-52);
        t.wait(39_999);
        stays(t);
        t.wait(1);
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

/// The peer has our SYN-ACK, and is ESTABLISHED. Neither a forged error about it nor a forged SYN may bring the entry back:
/// the two would answer each other's ACKs until its time is over (RFC 5927 §5.2, THREAT-36).
#[test]
fn nothing_forged_gives_the_entry_back_sa_time_wait_04() {
    each(|t| {
        time_wait(t);
        t.ts_val += 30_000;
        reopen(t, 52);
        t.icmp_error(ErrorKind::PortUnreachable, 0);
        t.recv_nothing();
        t.send("S seq 1 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        t.send(". seq 1 ack 1");
        t.accept();
        assert_eq!(t.tuple_state(), State::Established);
        assert_eq!(t.stack.usage().time_wait, 0);
    });
}

/// It gives way and its time is over meanwhile: the half-open connection is an ordinary one then.
#[test]
fn an_entry_that_gave_way_ends_in_its_time_sa_time_wait_04() {
    each(|t| {
        time_wait(t);
        t.wait(39_500);
        t.ts_val += 30_000;
        reopen(t, 52);
        t.wait(600);
        assert_eq!((t.stack.usage().time_wait, t.stack.usage().half_open), (0, 1));
        t.send("R seq 1");
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

#[test]
fn a_reset_is_ignored_sa_time_wait_05() {
    each(|t| {
        time_wait(t);
        t.send("R seq 52");
        t.send("R. seq 52 ack 102");
        t.recv_nothing();
        stays(t);
        t.dropped(&[DropReason::TimeWaitRst; 2]);
    });
    each_with(
        |c| c.tcp_rfc1337 = false,
        |t| {
            time_wait(t);
            t.send("R seq 53");
            t.recv_nothing();
            stays(t);
            t.send("R seq 52");
            t.recv_nothing();
            assert_eq!((t.tuple_state(), t.stack.usage().time_wait), (State::Closed, 0));
        },
    );
}

#[test]
fn another_reset_is_dropped_sa_time_wait_06() {
    each(|t| {
        time_wait(t);
        for seq in [51, 53, 20_000] {
            t.send(&format!("R seq {seq}"));
        }
        t.recv_nothing();
        t.dropped(&[DropReason::TimeWaitRst; 3]);
        stays(t);
    });
}

#[test]
fn the_fin_again_is_acknowledged_and_restarts_the_time_sa_time_wait_07() {
    each(|t| {
        time_wait(t);
        for _ in 0..3 {
            t.send("F. seq 51 ack 102");
            t.recv(". seq 102 ack 52");
        }
        t.wait(59_999);
        stays(t);
        t.wait(1);
        assert_eq!(t.tuple_state(), State::Closed);
        t.recv_nothing();
    });
}

/// The FIN came with data, and comes again with it.
#[test]
fn the_fin_again_with_its_data_restarts_the_time_sa_time_wait_07() {
    each(|t| {
        t.reach(State::FinWait2);
        t.send("FP. seq 51:61 ack 102");
        t.recv(". seq 102 ack 62");
        t.wait(20_000);
        t.send("FP. seq 51:61 ack 102");
        t.recv(". seq 102 ack 62");
        t.wait(59_999);
        stays(t);
        t.wait(1);
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

#[test]
fn another_segment_is_acknowledged_within_the_limit_sa_time_wait_08() {
    each(|t| {
        time_wait(t);
        for text in [". seq 51 ack 102", "P. seq 52:62 ack 102", "P. seq 40:50 ack 102", "F. seq 52 ack 102"]
        {
            t.send(text);
            t.recv(". seq 102 ack 52");
            t.send(text);
            t.recv_nothing();
            t.wait(500);
        }
        t.wait(38_000 - 1);
        stays(t);
        t.wait(1);
        assert_eq!(t.tuple_state(), State::Closed, "the time was not restarted");
    });
}

#[test]
fn a_bare_ack_is_ignored_sa_time_wait_09() {
    each(|t| {
        time_wait(t);
        t.send(". seq 52 ack 102");
        t.send(". seq 52 ack 101");
        t.send("F seq 51");
        t.recv_nothing();
        t.dropped(&[DropReason::TimeWaitSegment; 3]);
        t.wait(40_000);
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

#[test]
fn an_old_timestamp_is_acknowledged_sa_time_wait_10() {
    each(|t| {
        if !t.ts {
            return;
        }
        time_wait(t);
        let (old, ecr) = (t.ts_val - 5, t.cur().ts_last);
        // Not even what is otherwise ignored, or the FIN again, which would restart the time.
        for text in ["P. seq 52:62 ack 102", ". seq 52 ack 102", "F. seq 51 ack 102"] {
            t.send(&format!("{text} <ts {old} ecr {ecr}>"));
            t.recv(". seq 102 ack 52");
            t.send(&format!("{text} <ts {old} ecr {ecr}>"));
            t.recv_nothing();
            t.wait(500);
        }
        assert_eq!(t.stack.counters().paws_estab, 6);
        t.wait(38_500 - 1);
        stays(t);
        t.wait(1);
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

#[test]
fn an_ack_of_what_was_never_sent_is_acknowledged_sa_time_wait_11() {
    each(|t| {
        time_wait(t);
        t.send(". seq 52 ack 103");
        t.recv(". seq 102 ack 52");
        t.send(". seq 52 ack 103");
        t.recv_nothing();
        stays(t);
    });
}

#[test]
fn icmp_is_ignored_sa_time_wait_12() {
    each(|t| {
        time_wait(t);
        for kind in
            [ErrorKind::PortUnreachable, ErrorKind::HostUnreachable, ErrorKind::PacketTooBig { mtu: 1280 }]
        {
            t.icmp_error(kind, 101);
        }
        t.recv_nothing();
        t.dropped(&[DropReason::IcmpUnmatched; 3]);
        stays(t);
    });
}

#[test]
fn it_ends_after_2msl_sa_time_wait_13() {
    for seconds in [1, 60, 240] {
        each_with(
            |c| c.tcp_tw_timeout = std::time::Duration::from_secs(seconds),
            |t| {
                t.reach(State::TimeWait);
                t.wait(seconds * 1000 - 1);
                stays(t);
                t.wait(1);
                t.recv_nothing();
                assert_eq!((t.tuple_state(), t.stack.usage().time_wait), (State::Closed, 0));
                t.send("F. seq 51 ack 102");
                t.recv("R seq 102");
            },
        );
    }
}

/// Both sides of tcp_max_tw_buckets: those that are there stay.
#[test]
fn above_the_limit_there_is_no_time_wait_sa_time_wait_14() {
    each_with(
        |c| c.tcp_max_tw_buckets = 1,
        |t| {
            t.reach(State::TimeWait);
            t.peer(5000);
            t.establish();
            t.close();
            t.recv("F. seq 1 ack 1");
            t.send("F. seq 1 ack 2");
            t.recv(". seq 2 ack 2");
            assert_eq!(t.tuple_state(), State::Closed);
            let counters = t.stack.counters();
            assert_eq!((counters.tcp_time_wait_overflow, counters.tw, t.stack.usage().time_wait), (1, 1, 1));
            t.peer(4000);
            stays(t);
        },
    );
}

/// A connect takes the last port over: only by timestamps, a second old, and with an ISS above.
#[test]
fn a_connect_takes_over_by_timestamps_sa_time_wait_15() {
    each_with(
        |c| c.ip_local_port_range = PortRange::new(80, 80).unwrap(),
        |t| {
            t.reach(State::TimeWait);
            let old = t.cur().irs.unwrap() + 102;
            t.wait(999);
            let options = ConnectOptions::default();
            assert_eq!(t.stack.connect(t.now, t.remote(), options.clone()), Err(Error::AddrNotAvailable));
            t.wait(1);
            let result = t.stack.connect(t.now, t.remote(), options);
            if !t.ts {
                assert_eq!(result, Err(Error::AddrNotAvailable));
                return;
            }
            t.sock = result.unwrap();
            t.restart_peer(1000);
            t.recv("S seq 0 <mss 1460, sackOK, wscale 0>");
            let ahead = t.cur().irs.unwrap().since(old);
            assert!((1..1 << 31).contains(&ahead), "{ahead}");
            assert_eq!((t.stack.usage().time_wait, t.stack.counters().tw_recycled), (0, 1));
        },
    );
}

/// The clock of the ISS makes 250,000 steps a second. A connection that sent more than that ends above it, and the ISS of
/// the next one is above its end all the same (6191-1).
#[test]
fn a_connect_begins_above_what_was_sent_faster_than_the_clock_of_the_iss_sa_time_wait_15() {
    each_with(
        |c| c.ip_local_port_range = PortRange::new(80, 80).unwrap(),
        |t| {
            t.reach(State::Established);
            let mut end = 101;
            while end < 500_000 {
                t.write(10_000);
                t.drain();
                end += 10_000;
                t.send(&format!(". seq 51 ack {end}"));
            }
            t.shutdown(Shutdown::Write);
            t.recv(&format!("F. seq {end} ack 51"));
            t.send(&format!("F. seq 51 ack {}", end + 1));
            t.recv(&format!(". seq {} ack 52", end + 1));
            stays(t);
            let old = t.cur().irs.unwrap() + end + 1;
            t.wait(1000);
            let Ok(id) = t.stack.connect(t.now, t.remote(), ConnectOptions::default()) else {
                return assert!(!t.ts, "only timestamps allow it");
            };
            t.sock = id;
            t.restart_peer(1000);
            t.recv("S seq 0 <mss 1460, sackOK, wscale 0>");
            let ahead = t.cur().irs.unwrap().since(old);
            assert!((1..1 << 31).contains(&ahead), "{ahead}");
        },
    );
}

/// Another port is free: the entry is left alone.
#[test]
fn a_connect_takes_another_port_first_sa_time_wait_15() {
    each_with(
        |c| c.ip_local_port_range = PortRange::new(80, 81).unwrap(),
        |t| {
            t.reach(State::TimeWait);
            t.wait(5000);
            t.sock = t.stack.connect(t.now, t.remote(), ConnectOptions::default()).unwrap();
            t.port = 81;
            t.restart_peer(0);
            t.recv("S seq 0 <mss 1460, sackOK, wscale 0>");
            assert_eq!(t.stack.usage().time_wait, 1);
        },
    );
}

/// The oldest sixty-four entries are of other peers, so that they say nothing of this one.
#[test]
fn a_connect_takes_over_the_last_port_behind_many_other_entries_sa_time_wait_15() {
    each_with(
        |c| c.ip_local_port_range = PortRange::new(80, 80).unwrap(),
        |t| {
            for peer in (5000..5064).chain([4000]) {
                t.peer(peer);
                t.restart_peer(0);
                t.reach(State::TimeWait);
            }
            t.wait(1000);
            let result = t.stack.connect(t.now, t.remote(), ConnectOptions::default());
            if t.ts {
                t.sock = result.unwrap();
                t.restart_peer(1000);
                t.recv("S seq 0 <mss 1460, sackOK, wscale 0>");
                assert_eq!((t.stack.usage().time_wait, t.stack.counters().tw_recycled), (64, 1));
            } else {
                assert_eq!(result, Err(Error::AddrNotAvailable));
            }
        },
    );
}

/// Also SA-TIME_WAIT-18.
#[test]
fn calls_meet_a_finished_socket_sa_time_wait_16() {
    each(|t| {
        time_wait(t);
        let id = t.sock;
        assert_eq!(t.stack.send(id, b"x"), Err(Error::BrokenPipe));
        assert_eq!(t.read_end(), Ok(0));
        assert_eq!(t.stack.info(t.now, id).unwrap().state, State::Closed);
        assert_eq!(t.stack.state(id), Ok(State::Closed));
        assert_eq!(t.stack.shutdown(t.now, id, Shutdown::Write), Err(Error::NotConnected));
        let entry = t.stack.sockets(t.now).into_iter().find(|s| s.state == State::TimeWait).unwrap();
        assert_eq!((entry.socket, entry.state_age.as_secs()), (None, 20));
    });
}

#[test]
fn abort_leaves_the_entry_sa_time_wait_17() {
    each(|t| {
        time_wait(t);
        t.abort();
        t.recv_nothing();
        stays(t);
        t.wait(40_000);
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

/// A clock that goes back is the one before; a long sleep ends what is over.
#[test]
fn clock_jumps_do_no_harm_sa_time_wait_19() {
    each(|t| {
        time_wait(t);
        let now = t.now;
        t.stack.advance(steadfast_core::Instant::ZERO);
        let fin = t.packet("F. seq 51 ack 102");
        t.stack.receive(steadfast_core::Instant::ZERO, &fin[..]);
        t.recv(". seq 102 ack 52");
        stays(t);
        t.now = now;
        t.wait(59_999);
        stays(t);
        t.wait(1);
        assert_eq!(t.tuple_state(), State::Closed);
    });
}

/// A connect takes over the oldest port that it may, wherever that stands among the entries of others.
#[test]
fn a_connect_takes_over_the_oldest_port_sa_time_wait_15() {
    each_with(
        |c| c.ip_local_port_range = PortRange::new(80, 87).unwrap(),
        |t| {
            if !t.ts {
                return;
            }
            for stranger in [5000, 5001] {
                t.peer(stranger);
                t.reach(State::TimeWait);
                t.restart_peer(0);
            }
            t.peer(4000);
            let listener = t.listener;
            for port in [83, 87, 81, 80, 86, 82, 85, 84] {
                (t.port, t.listener) = (port, listener.filter(|_| port == 80));
                t.restart_peer(0);
                t.reach(State::TimeWait);
                t.wait(1);
            }
            t.wait(1000);
            t.sock = t.stack.connect(t.now, t.remote(), ConnectOptions::default()).unwrap();
            t.port = 83;
            assert_eq!(t.tuple_state(), State::SynSent);
            t.restart_peer(0);
            t.recv("S seq 0 <mss 1460, sackOK, wscale 0>");
        },
    );
}

/// T9c: with `tcp_tw_recycle` a SYN of the same address may not look older for a minute, whatever its port.
#[test]
fn for_a_minute_a_peer_that_was_here_may_not_look_older_t9c() {
    each_with(
        |c| c.tcp_tw_recycle = true,
        |t| {
            t.reach(State::TimeWait);
            let older = t.ts_val - 1;
            let syn = if t.ts { format!("S seq 0 <ts {older} ecr 0>") } else { "S seq 0".to_owned() };
            t.peer(5000);
            t.wait(59_999);
            t.send(&syn);
            if t.ts {
                t.recv_nothing();
                t.dropped(&[DropReason::RecycledTimestamp]);
                t.wait(1);
                t.send(&syn);
            }
            assert!(t.recv_any().expect("a SYN-ACK").header.flags.syn());
            t.send("R seq 1");
        },
    );
}

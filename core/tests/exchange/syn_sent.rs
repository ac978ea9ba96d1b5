//! SYN-SENT (RFC 9293 §3.10.7.3).

use steadfast_core::config::EcnMode;
use steadfast_core::counters::DropReason;
use steadfast_core::info::CaState;
use steadfast_core::trace::State;
use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::{ConnectOptions, Duration, Error, Event, SocketOptions};

use crate::harness::{BUFFER, PORT, each, each_with};

const SYN: &str = "S seq 0 win 10000 <mss 1460, sackOK, wscale 0>";

/// 9293-c, before a connection is synchronized.
#[test]
fn an_unacceptable_ack_is_answered_by_a_reset_of_its_number_sa_syn_sent_01() {
    each(|t| {
        t.connect();
        for (ack, text) in [(0u32, "ISS"), (2, "SND.NXT + 1"), (u32::MAX, "before the ISS")] {
            for flags in [".", "S.", "F.", "P."] {
                t.send(&format!("{flags} seq 77 ack {ack}"));
                let got = t.recv(&format!("R seq {ack}"));
                assert_eq!(got.header.window, 0, "{text}");
                assert_eq!(t.state(), State::SynSent);
            }
        }
        t.dropped(&[DropReason::AckOfUnsent; 12]);
    });
}

/// A challenge tells of an old connection, which our RST ends: the next SYN leaves at once, as Linux has it. It takes
/// the place of the first retry, so that no SYN more leaves for it, and it happens once.
#[test]
fn the_syn_leaves_again_after_a_challenge_5961_6() {
    each(|t| {
        t.connect();
        t.wait(20);
        t.send(". seq 77 ack 5000");
        t.recv("R seq 5000");
        t.recv_after(2, SYN);
        t.send(". seq 77 ack 5000");
        t.recv("R seq 5000");
        t.recv_after(1000, SYN);
        t.send(". seq 77 ack 5000");
        t.recv("R seq 5000");
        let mut at = 1;
        for due in [2, 3, 4, 6, 10, 18, 34, 66, 130] {
            t.recv_after((due - at) * 1000, SYN);
            at = due;
        }
        assert_eq!(t.stack.counters().tcp_syn_retrans, 11, "as without a challenge");
        // 195 s after the first one.
        t.wait(195_000 - 130_022 - 1);
        t.recv_nothing();
        assert_eq!(t.state(), State::SynSent);
        t.wait(1);
        t.is_closed(Some(Error::TimedOut));
    });
    // Nothing was lost: the window is the initial one, and a round trip cannot be told.
    each(|t| {
        t.connect();
        t.write(3000);
        t.send(". seq 77 ack 5000");
        t.recv("R seq 5000");
        t.recv_after(2, SYN);
        t.send("S. seq 0 ack 1 <sackOK, wscale 0>");
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_cwnd, 10_000);
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().rtt, Duration::ZERO);
        assert!(t.drain() >= 3);
    });
    // A RST challenges nothing.
    each(|t| {
        t.connect();
        t.send("R. seq 77 ack 5000");
        t.wait(999);
        t.recv_nothing();
        t.recv_after(1, SYN);
        // The timer has sent one: the next challenge changes nothing.
        t.send(". seq 77 ack 5000");
        t.recv("R seq 5000");
        t.recv_after(1000, SYN);
    });
}

/// 9293-d.
#[test]
fn an_unacceptable_ack_with_rst_is_dropped_sa_syn_sent_02() {
    each(|t| {
        t.connect();
        for ack in [0u32, 2, u32::MAX] {
            t.send(&format!("R. seq 0 ack {ack}"));
        }
        t.recv_nothing();
        t.dropped(&[DropReason::SynSentRst; 3]);
        assert_eq!(t.state(), State::SynSent);
    });
}

/// Whatever its sequence number is: RCV.NXT is not known yet (5961-4).
#[test]
fn a_reset_with_our_ack_refuses_sa_syn_sent_03() {
    each(|t| {
        for seq in ["0", "1", "70000"] {
            t.restart_peer(1000);
            t.connect();
            t.send(&format!("R. seq {seq} ack 1"));
            t.recv_nothing();
            t.is_closed(Some(Error::ConnectionRefused));
        }
        assert_eq!(t.stack.counters().attempt_fails, 3);
    });
}

#[test]
fn a_reset_without_ack_is_dropped_sa_syn_sent_04() {
    each(|t| {
        t.connect();
        t.send("R seq 0");
        t.send("R seq 1");
        t.recv_nothing();
        t.dropped(&[DropReason::SynSentRst; 2]);
        assert_eq!(t.state(), State::SynSent);
    });
}

#[test]
fn a_syn_ack_establishes_and_is_acknowledged_at_once_sa_syn_sent_05() {
    each(|t| {
        t.connect();
        assert_eq!(t.events(t.sock), Event::default());
        t.send("S. seq 0 ack 1 win 5000 <sackOK, wscale 7>");
        t.recv(". seq 1 ack 1 win 10000");
        assert_eq!(t.state(), State::Established);
        assert_eq!(t.events(t.sock), Event::CONNECTED | Event::WRITABLE);
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!(info.snd_wnd, 5000, "the window of a SYN is never scaled (7323-2)");
        assert_eq!((info.snd_wscale, info.sack, info.timestamps), (Some(7), true, t.ts));
        assert_eq!(info.snd_cwnd, 10_000, "ten segments (6928-1)");
        // The SYN timer is gone.
        t.wait(10_000);
        t.recv_nothing();
    });
}

/// Data waits in the queue and follows the third segment (also SA-SYN_SENT-20): a server that answers with cookies
/// takes for that only what begins at IRS + 1.
/// SA-SYN_SENT-21: and nothing can be read yet.
#[test]
fn data_written_early_follows_the_third_segment_sa_syn_sent_05() {
    each(|t| {
        t.connect();
        t.write(100);
        t.recv_nothing();
        assert_eq!(t.read_end(), Err(Error::WouldBlock), "SA-SYN_SENT-21");
        t.send("S. seq 0 ack 1 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        t.recv("P. seq 1:101 ack 1");
        t.recv_nothing();
        t.send("P. seq 1:11 ack 101");
        t.recv(". seq 101 ack 11");
        t.read(10);
    });
    // The same where the application has written and closed before any packet could leave.
    each(|t| {
        t.connect();
        let packet = t.packet("S. seq 0 ack 1 <sackOK, wscale 0>");
        t.stack.receive(t.now, &packet[..]);
        assert_eq!(t.stack.send(t.sock, &crate::harness::pattern(0, 100)), Ok(100));
        t.shutdown(steadfast_core::Shutdown::Write);
        t.recv(". seq 1 ack 1");
        t.recv("FP. seq 1:101 ack 1");
        t.recv_nothing();
    });
}

/// 6928-1: one retransmission is no evidence of a loss, since the round trip may be longer than a second. The RTO is longer
/// then (6298-11).
#[test]
fn after_one_lost_syn_the_initial_window_goes_out_and_waits_three_seconds_6928_1() {
    each(|t| {
        t.connect();
        t.write(3000);
        t.recv_after(1000, SYN);
        t.send("S. seq 0 ack 1 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        assert_eq!(t.drain(), 3);
        t.recv_after(3000, ". seq 1:1001 ack 1");
    });
}

#[test]
fn after_two_lost_syns_one_segment_goes_out_and_waits_three_seconds_sa_syn_sent_05() {
    each(|t| {
        t.connect();
        t.write(3000);
        t.recv_after(1000, SYN);
        t.recv_after(1000, SYN);
        t.send("S. seq 0 ack 1 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        t.recv(". seq 1:1001 ack 1");
        t.recv_nothing();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_cwnd, 1000, "5681-4");
        t.recv_after(3000, ". seq 1:1001 ack 1");
    });
}

#[test]
fn options_that_the_peer_does_not_answer_stay_off_sa_syn_sent_05() {
    each(|t| {
        t.connect();
        t.send("S. seq 0 ack 1 win 100");
        t.recv(". seq 1 ack 1 win 10000");
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.snd_wscale, info.rcv_wscale, info.sack), (None, None, false));
        // And a window of later segments is not scaled either.
        t.send(". seq 1 ack 1 win 101");
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_wnd, 101);
        // Without SACK-permitted a gap is not told in blocks (2018-1).
        t.send("P. seq 101:201 ack 1");
        t.recv(". seq 1 ack 1");
    });
}

/// Without an MSS option 536 (IPv4) or 1220 (IPv6) is assumed (MUST-15).
/// 6691-1: the sender takes its options off.
#[test]
fn without_an_mss_option_the_default_holds_sa_syn_sent_05() {
    each(|t| {
        t.connect();
        t.send("S. seq 0 ack 1 <nomss, sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        let options = if t.ts { 12 } else { 0 };
        let mss = if t.v6 { 1220 } else { 536 };
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_mss, mss - options);
    });
}

#[test]
fn an_echo_of_a_timestamp_never_sent_is_reset_sa_syn_sent_06() {
    each(|t| {
        if !t.ts {
            return t.connect();
        }
        t.wait(100_000);
        t.connect();
        let sent = t.cur().ts_last;
        for ecr in [sent + 1, sent - 1, sent.wrapping_add(1 << 31)] {
            t.send(&format!("S. seq 0 ack 1 <ts 5 ecr {ecr}>"));
            t.recv(&format!("R seq 1 <ts {ecr} ecr 5>"));
            assert_eq!(t.state(), State::SynSent);
        }
        assert_eq!(t.stack.counters().paws_active, 3);
        // That of the first SYN is good even after the second one left.
        t.recv_after(1000, SYN);
        t.send(&format!("S. seq 0 ack 1 <sackOK, wscale 0, ts 5 ecr {sent}>"));
        t.recv(". seq 1 ack 1");
        assert_eq!(t.state(), State::Established);
    });
}

/// A deviation that stands: data and FIN on a SYN-ACK are ignored and come again (N8), as on Linux; the table
/// would have them processed.
#[test]
fn data_and_fin_on_a_syn_ack_come_again_sa_syn_sent_07() {
    each(|t| {
        t.connect();
        t.send("S. seq 0:100 ack 1 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        assert_eq!(t.state(), State::Established);
        t.send("FP. seq 1:101 ack 1");
        t.recv(". seq 1 ack 102");
        t.read(100);
        assert_eq!(t.read_end(), Ok(0));
        assert_eq!(t.state(), State::CloseWait);
    });
}

#[test]
fn crossing_syns_make_a_simultaneous_open_sa_syn_sent_08() {
    each(|t| {
        t.connect();
        t.send("S seq 0 <sackOK, wscale 0>");
        t.recv("S. seq 0 ack 1 win 10000 <mss 1460, sackOK, wscale 0>");
        assert_eq!(t.state(), State::SynReceived);
        assert_eq!(t.events(t.sock), Event::default());
    });
}

#[test]
fn a_crossing_syn_without_options_switches_them_off_sa_syn_sent_08() {
    each(|t| {
        t.connect();
        t.send("S seq 0");
        t.recv("S. seq 0 ack 1 win 10000 <mss 1460>");
        assert_eq!(t.state(), State::SynReceived);
    });
}

/// A SYN asks for ECN by ECE and CWR, a SYN-ACK agrees by ECE alone.
#[test]
fn a_crossing_syn_asks_for_ecn_with_both_flags_3168_1() {
    for (flags, agreed) in [("SEW", true), ("SE", false), ("SW", false), ("S", false)] {
        each_with(
            |c| c.tcp_ecn = EcnMode::On,
            |t| {
                t.start_connect(ConnectOptions::default());
                t.recv("SEW seq 0 <mss 1460, sackOK, wscale 0>");
                t.send(&format!("{flags} seq 0 <sackOK, wscale 0>"));
                let answer = if agreed { "SE." } else { "S." };
                t.recv(&format!("{answer} seq 0 ack 1 <mss 1460, sackOK, wscale 0>"));
                assert_eq!(t.stack.info(t.now, t.sock).unwrap().ecn, agreed, "{flags}");
            },
        );
    }
    for (flags, agreed) in [("SE.", true), ("SEW.", false), ("SW.", false), ("S.", false)] {
        each_with(
            |c| c.tcp_ecn = EcnMode::On,
            |t| {
                t.start_connect(ConnectOptions::default());
                t.recv("SEW seq 0 <mss 1460, sackOK, wscale 0>");
                t.send(&format!("{flags} seq 0 ack 1 <sackOK, wscale 0>"));
                t.recv(". seq 1 ack 1");
                assert_eq!(t.stack.info(t.now, t.sock).unwrap().ecn, agreed, "{flags}");
            },
        );
    }
}

#[test]
fn an_ack_of_our_syn_without_syn_is_dropped_sa_syn_sent_10() {
    each(|t| {
        t.connect();
        t.send(". seq 1 ack 1");
        t.send("P. seq 1:11 ack 1");
        t.send("F. seq 1 ack 1");
        t.recv_nothing();
        t.dropped(&[DropReason::SynSentNoSyn; 3]);
        assert_eq!(t.state(), State::SynSent);
    });
}

#[test]
fn a_fin_without_syn_is_dropped_sa_syn_sent_11() {
    each(|t| {
        t.connect();
        t.send("F seq 1");
        t.recv_nothing();
        t.dropped(&[DropReason::SynSentNoSyn]);
        assert_eq!(t.state(), State::SynSent);
    });
}

/// Without ACK, RST, SYN and FIN it does not even get so far (P2).
#[test]
fn data_without_syn_and_ack_is_dropped_sa_syn_sent_12() {
    each(|t| {
        t.connect();
        t.send("P seq 1:11");
        t.recv_nothing();
        t.dropped(&[DropReason::TcpFlags]);
        assert_eq!(t.state(), State::SynSent);
    });
}

#[test]
fn absurd_options_are_clamped_sa_syn_sent_13() {
    for mss in [0, 1, 47, 48] {
        each(|t| {
            t.connect();
            t.send(&format!("S. seq 0 ack 1 <mss {mss}, wscale 200>"));
            t.recv(". seq 1 ack 1");
            let info = t.stack.info(t.now, t.sock).unwrap();
            assert_eq!(info.snd_wscale, Some(14), "7323-3");
            assert_eq!(info.snd_mss, 48 - if t.ts { 12 } else { 0 }, "tcp_min_snd_mss (THREAT-16)");
        });
    }
    each_with(
        |c| c.tcp_min_snd_mss = 216,
        |t| {
            t.connect();
            t.send("S. seq 0 ack 1 <mss 215>");
            t.recv(". seq 1 ack 1");
            assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_mss, 216 - if t.ts { 12 } else { 0 });
        },
    );
}

/// A cookie of a Fast Open that nobody asked for does no harm.
#[test]
fn an_unasked_cookie_is_ignored_sa_syn_sent_13() {
    each(|t| {
        t.connect();
        t.send("S. seq 0 ack 1 <mss 1000, tfo 0102030405060708>");
        t.recv(". seq 1 ack 1");
        assert_eq!(t.state(), State::Established);
    });
}

/// Four linear retransmissions, then doubling; given up 195 s after the first SYN, which is more than the 3
/// minutes of MUST-23 (also SA-SYN_SENT-16).
#[test]
fn syns_follow_the_schedule_until_r2_sa_syn_sent_14() {
    each(|t| {
        t.connect();
        let mut at = 0;
        for due in [1, 2, 3, 4, 5, 7, 11, 19, 35, 67, 131] {
            t.recv_after((due - at) * 1000, SYN);
            at = due;
        }
        t.wait(63_999);
        assert_eq!(t.state(), State::SynSent);
        t.wait(1);
        t.recv_nothing();
        t.is_closed(Some(Error::TimedOut));
        let counters = t.stack.counters();
        assert_eq!((counters.tcp_syn_retrans, counters.attempt_fails), (11, 1));
    });
}

/// ECN-setup is tried twice, then the SYN goes without (3168-6).
#[test]
fn a_syn_drops_ecn_after_two_tries_sa_syn_sent_14() {
    each_with(
        |c| c.tcp_ecn = EcnMode::On,
        |t| {
            t.start_connect(ConnectOptions::default());
            t.recv("SEW seq 0 <mss 1460, sackOK, wscale 0>");
            t.recv_after(1000, "SEW seq 0 <mss 1460, sackOK, wscale 0>");
            t.recv_after(1000, SYN);
            t.recv_after(1000, SYN);
            // An ECE in the answer to a SYN without ECN means nothing.
            t.send("SE. seq 0 ack 1 <sackOK, wscale 0>");
            t.recv(". seq 1 ack 1");
            assert!(!t.stack.info(t.now, t.sock).unwrap().ecn);
        },
    );
}

#[test]
fn the_application_hears_of_r1_sa_syn_sent_15() {
    each(|t| {
        t.connect();
        t.recv_after(1000, SYN);
        t.recv_after(1000, SYN);
        assert_eq!(t.events(t.sock), Event::default());
        t.recv_after(1000, SYN);
        assert_eq!(t.events(t.sock), Event::SOFT_ERROR, "after tcp_retries1 = 3 retransmissions");
    });
}

#[test]
fn the_user_timeout_ends_the_attempt_sa_syn_sent_16() {
    each(|t| {
        let mut options = SocketOptions::new(t.stack.config());
        options.user_timeout = Duration::from_millis(2500);
        t.connect_with(ConnectOptions { socket: Some(options), ..ConnectOptions::default() });
        t.recv_after(1000, SYN);
        t.recv_after(1000, SYN);
        t.wait(499);
        assert_eq!(t.state(), State::SynSent);
        t.wait(1);
        t.recv_nothing();
        t.is_closed(Some(Error::TimedOut));
    });
}

/// It may be set, or taken away, while a SYN waits for its answer.
#[test]
fn the_user_timeout_is_set_during_the_attempt_sa_syn_sent_16() {
    each(|t| {
        t.connect();
        // SYNs at 1, 2, 3, 4, 5 and 7 s; the next one at 11 s.
        t.wait(8000);
        assert_eq!(t.drain(), 6);
        t.set_options(|o| o.user_timeout = Duration::from_secs(9));
        t.set_options(|o| o.user_timeout = Duration::ZERO);
        t.wait(1500);
        t.recv_nothing();
        t.set_options(|o| o.user_timeout = Duration::from_secs(10));
        t.wait(499);
        assert_eq!(t.state(), State::SynSent);
        t.wait(1);
        t.recv_nothing();
        t.is_closed(Some(Error::TimedOut));
    });
    // Over already when it is set.
    each(|t| {
        t.connect();
        t.wait(8000);
        t.drain();
        t.set_options(|o| o.user_timeout = Duration::from_secs(2));
        t.wait(1);
        t.recv_nothing();
        t.is_closed(Some(Error::TimedOut));
    });
}

#[test]
fn the_last_soft_error_is_the_reason_given_sa_syn_sent_16() {
    each_with(
        |c| (c.tcp_syn_linear_timeouts, c.tcp_syn_retries) = (0, 1),
        |t| {
            t.connect();
            t.icmp_error(ErrorKind::HostUnreachable, 0);
            t.icmp_error(ErrorKind::NetworkUnreachable, 0);
            t.recv_after(1000, SYN);
            t.wait(2000);
            t.recv_nothing();
            t.is_closed(Some(Error::NetworkUnreachable));
        },
    );
}

/// SHLD-26, as far as the connection is not synchronized.
#[test]
fn a_hard_icmp_error_ends_the_attempt_sa_syn_sent_17() {
    each(|t| {
        let prohibited = if t.v6 { Error::Prohibited } else { Error::HostUnreachable };
        let kinds = [
            (ErrorKind::PortUnreachable, Error::ConnectionRefused),
            (ErrorKind::ProtocolUnreachable, Error::ProtocolUnavailable),
            (ErrorKind::AdminProhibited, prohibited),
        ];
        for (kind, error) in kinds {
            t.restart_peer(1000);
            t.connect();
            t.icmp_error(kind, 0);
            t.recv_nothing();
            t.is_closed(Some(error));
        }
    });
}

/// SHLD-25.
#[test]
fn a_soft_icmp_error_is_told_and_the_attempt_goes_on_sa_syn_sent_18() {
    each(|t| {
        t.connect();
        let soft = [ErrorKind::NetworkUnreachable, ErrorKind::HostUnreachable, ErrorKind::TimeExceeded];
        for kind in soft {
            t.icmp_error(kind, 0);
            assert_eq!(t.events(t.sock), Event::SOFT_ERROR);
            assert!(t.stack.take_error(t.sock).unwrap().is_some(), "MUST-47");
            assert_eq!(t.stack.take_error(t.sock), Ok(None), "told once");
        }
        t.recv_after(1000, SYN);
        t.send("S. seq 0 ack 1 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
    });
}

#[test]
fn an_icmp_error_about_another_number_is_dropped_sa_syn_sent_19() {
    each(|t| {
        t.connect();
        for seq in [1, u32::MAX] {
            t.icmp_error(ErrorKind::PortUnreachable, seq);
            t.icmp_error(ErrorKind::HostUnreachable, seq);
        }
        t.recv_nothing();
        t.dropped(&[DropReason::IcmpNotInFlight; 4]);
        assert_eq!(t.events(t.sock), Event::default());
        assert_eq!(t.state(), State::SynSent);
    });
}

/// Also SA-SYN_SENT-23: nothing is sent, and what comes late meets CLOSED.
#[test]
fn close_and_abort_delete_silently_sa_syn_sent_22() {
    each(|t| {
        for abort in [false, true] {
            t.restart_peer(1000);
            t.connect();
            t.write(10);
            if abort {
                t.abort()
            } else {
                t.close()
            }
            t.recv_nothing();
            let usage = t.stack.usage();
            assert_eq!((usage.opening, usage.sockets, usage.timers, usage.buffered), (0, 0, 0, 0));
            t.send("S. seq 0 ack 1");
            t.recv("R seq 1");
        }
    });
}

#[test]
fn a_second_open_of_the_pair_fails_sa_syn_sent_24() {
    each(|t| {
        t.connect();
        let options = ConnectOptions { local_port: Some(PORT), ..ConnectOptions::default() };
        assert_eq!(t.stack.connect(t.now, t.remote(), options), Err(Error::AddrNotAvailable));
    });
}

#[test]
fn status_tells_the_state_sa_syn_sent_25() {
    each(|t| {
        t.connect();
        assert_eq!(t.stack.info(t.now, t.sock), Err(Error::NotConnected));
        t.wait(250);
        let all = t.stack.sockets(t.now);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].state, all[0].socket), (State::SynSent, Some(t.sock)));
        assert_eq!(all[0].state_age, Duration::from_millis(250));
        assert_eq!((t.stack.local_addr(t.sock), t.stack.peer_addr(t.sock)), (Ok(t.local()), Ok(t.remote())));
    });
}

#[test]
fn writing_early_stops_at_the_send_buffer_sa_syn_sent_20() {
    each_with(
        |c| c.tcp_sndbuf = 1024,
        |t| {
            t.connect();
            assert_eq!(t.try_write(2000), Ok(1024));
            assert_eq!(t.try_write(1), Err(Error::WouldBlock));
            assert_eq!(t.stack.usage().buffered, 1024);
        },
    );
}

/// A path MTU that shrinks under the SYN sends it again at once (1191-1).
#[test]
fn packet_too_big_sends_the_syn_again_1191_1() {
    each(|t| {
        t.connect();
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1300 }, 0);
        t.recv(SYN);
        t.send("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        let headers = if t.v6 { 60 } else { 40 } + if t.ts { 12 } else { 0 };
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_mss, 1300 - headers);
        assert_eq!(u32::from(t.stack.info(t.now, t.sock).unwrap().advmss), 1460);
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().rcv_wnd, BUFFER);
    });
}

/// Nothing was on the SYN, so that nothing of it is lost.
#[test]
fn a_connection_without_data_on_its_syn_begins_without_loss_sa_syn_sent_05() {
    each(|t| {
        t.connect();
        t.send("S. seq 0 ack 1 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.ca_state, info.unacked), (CaState::Open, 0));
        assert_eq!(t.stack.usage().timers, 0, "nothing is in flight");
    });
}

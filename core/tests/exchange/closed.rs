//! CLOSED (RFC 9293 §3.10.7.1), and the calls that meet no connection.

use std::net::{IpAddr, SocketAddr};

use steadfast_core::config::PortRange;
use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;
use steadfast_core::wire::Ecn;
use steadfast_core::{ConnectOptions, Error, ListenOptions, Shutdown};

use crate::harness::{BUFFER, PORT, Test, each, each_with};

/// 9293-d.
#[test]
fn a_reset_is_never_answered_sa_closed_01() {
    each(|t| {
        for text in ["R seq 0", "R. seq 5 ack 9", "R seq 1:11"] {
            t.send(text);
        }
        t.recv_nothing();
        t.dropped(&[DropReason::RstUnmatched; 3]);
    });
}

/// 9293-c, where there is no connection.
#[test]
fn without_ack_the_answer_acknowledges_all_of_it_sa_closed_02() {
    each(|t| {
        for (text, end) in [("S seq 0", 1), ("S seq 0:10", 11), ("F seq 5", 6), ("FP seq 5:15", 16)] {
            t.send(text);
            let got = t.recv(&format!("R. seq =0 ack {end} win 0"));
            if t.ts {
                let ts = got.header.options.timestamps.unwrap();
                assert_eq!((ts.val, ts.ecr), (0, t.ts_val), "7323-17");
            }
        }
    });
}

#[test]
fn with_ack_the_answer_takes_its_number_sa_closed_03() {
    each(|t| {
        for text in [". seq 1 ack 77", "S. seq 0 ack 77", "F. seq 3 ack 77", "P. seq 3:13 ack 77"] {
            t.send(text);
            t.recv("R seq 77 win 0");
        }
    });
}

/// The timestamp of the answer is what the segment echoes: its sender's TS.Recent. Linux holds a RST against PAWS in
/// SYN-RECEIVED and TIME-WAIT, and would ignore the zero of RFC 7323 §5.2 for a minute.
#[test]
fn with_ack_the_answer_has_timestamps_that_pass_paws_sa_closed_03_7323_17() {
    each(|t| {
        t.send("S. seq 0 ack 77 <ts 500 ecr 400>");
        t.recv("R seq 77 win 0 <ts 400 ecr 500>");
    });
}

#[test]
fn a_broken_checksum_is_not_answered_sa_closed_04() {
    each(|t| {
        let mut packet = t.packet("S seq 0");
        let last = packet.len() - 1;
        packet[last] ^= 1;
        t.stack.receive(t.now, &packet[..]);
        t.recv_nothing();
        t.dropped(&[DropReason::TcpChecksum]);
        assert_eq!((t.stack.counters().in_csum_errors, t.stack.counters().in_errs), (1, 1));
    });
}

/// Not to broadcast or multicast, nor to what is not ours (MUST-57).
/// 1122-1.
#[test]
fn a_syn_to_many_is_not_answered_sa_closed_04() {
    each(|t| {
        let groups: &[&str] =
            if t.v6 { &["ff02::1"] } else { &["10.0.0.255", "255.255.255.255", "224.0.0.1"] };
        let (header, payload) = t.segment("S seq 0");
        for group in groups {
            let packet = t.ip_packet(t.theirs(), group.parse().unwrap(), &header, &payload, Ecn::NotEct);
            t.stack.receive(t.now, &packet[..]);
        }
        t.recv_nothing();
        t.dropped(&vec![DropReason::BadDestination; groups.len()]);
    });
}

/// Within one moment a prefix gets an eighth of a second's budget at the most, and at least half of that. Its budget
/// is a quarter of the whole.
#[test]
fn resets_are_limited_for_each_prefix_sa_closed_05() {
    each_with(
        |c| c.tcp_rst_limit = 320,
        |t| {
            for _ in 0..100 {
                t.send(". seq 1 ack 9");
            }
            let sent = t.drain();
            assert!((5..=10).contains(&sent), "{sent}");
            t.dropped(&vec![DropReason::ReplyThrottled; 100 - sent]);
            t.wait(1000);
            t.send(". seq 1 ack 9");
            assert_eq!(t.drain(), 1, "the budget comes back");
        },
    );
}

/// THREAT-5: who forges sources gets no more for it.
#[test]
fn resets_to_all_prefixes_together_are_limited_sa_closed_05() {
    each_with(
        |c| c.tcp_rst_limit = 320,
        |t| {
            let (header, payload) = t.segment(". seq 1 ack 9");
            for network in 0..200 {
                let source: IpAddr = if t.v6 {
                    format!("fd01:0:0:{network}::1").parse().unwrap()
                } else {
                    format!("10.1.{network}.1").parse().unwrap()
                };
                let packet = t.ip_packet(source, t.ours(), &header, &payload, Ecn::NotEct);
                t.stack.receive(t.now, &packet[..]);
            }
            let mut frame = vec![0; 65_535];
            let mut sent = 0;
            while t.stack.transmit(t.now, &mut frame).is_some() {
                sent += 1;
            }
            assert!((20..=40).contains(&sent), "{sent}");
            assert_eq!(t.stack.counters().out_rsts, sent);
        },
    );
}

/// P4: the listener of one address comes before that of all.
#[test]
fn a_port_is_listened_on_once_sa_closed_06() {
    each(|t| {
        let listener = t.listen();
        assert_eq!(t.stack.state(listener), Ok(State::Listen));
        assert_eq!(t.stack.listen(t.local(), ListenOptions::default()), Err(Error::AddrInUse));
        // All addresses of the family are another binding, which the specific one comes before.
        let any: SocketAddr = if t.v6 { "[::]:80".parse().unwrap() } else { "0.0.0.0:80".parse().unwrap() };
        t.stack.listen(any, ListenOptions::default()).unwrap();
        assert_eq!(t.stack.listen(any, ListenOptions::default()), Err(Error::AddrInUse));
        t.establish();
        let foreign: SocketAddr = if t.v6 { "[fd00::9]:80" } else { "10.0.0.9:80" }.parse().unwrap();
        assert_eq!(t.stack.listen(foreign, ListenOptions::default()), Err(Error::AddrNotAvailable));
        let zero = SocketAddr::new(t.ours(), 0);
        let chosen = t.stack.listen(zero, ListenOptions::default()).unwrap();
        assert!(t.stack.local_addr(chosen).unwrap().port() >= 10_000);
    });
}

/// MUST-67, 6691-1: the MSS is the MTU less the fixed headers, whether timestamps take room of it or not. 6298-1: one
/// second until the SYN goes again. 7323-8: the echo of a SYN is 0.
#[test]
fn an_active_open_sends_a_syn_sa_closed_07() {
    each(|t| {
        t.start_connect(ConnectOptions::default());
        assert_eq!(t.state(), State::SynSent);
        let got = t.recv(&format!("S seq 0 win {BUFFER} <mss 1460, sackOK, wscale 0>"));
        assert_eq!((got.ttl, got.ecn), (64, Ecn::NotEct));
        if let Some(ts) = got.header.options.timestamps {
            assert_eq!(ts.ecr, 0, "7323-8");
        }
        t.recv_after(1000, "S seq 0 <mss 1460, sackOK, wscale 0>");
    });
}

/// SHLD-5: the MSS always. 7323-1: scaling is on where both SYNs have it.
#[test]
fn with_every_option_off_only_the_mss_is_offered_sa_closed_07() {
    each_with(
        |c| (c.tcp_timestamps, c.tcp_sack, c.tcp_window_scaling) = (false, false, false),
        |t| {
            t.ts = false;
            t.start_connect(ConnectOptions::default());
            t.recv("S seq 0 win 10000 <mss 1460>");
            // An option that we did not offer stays off, whatever the peer answers (7323-1, 2018-1).
            t.send("S. seq 0 ack 1 <sackOK, wscale 3, ts 1 ecr 1>");
            t.recv(". seq 1 ack 1");
            let info = t.stack.info(t.now, t.sock).unwrap();
            assert_eq!((info.snd_wscale, info.sack, info.timestamps), (None, false, false));
        },
    );
}

/// Two ISNs of one 4-tuple differ by the clock, and of two 4-tuples by the secret (MUST-8, MUST-9).
/// SHLD-1: M + F(4-tuple, secret).
#[test]
fn the_iss_moves_with_the_clock_sa_closed_07() {
    let iss = |wait: u64, port: u16| {
        let mut t = Test::new(false, false, |_| {});
        t.wait(wait);
        t.start_connect(ConnectOptions { local_port: Some(port), ..ConnectOptions::default() });
        t.port = port;
        t.recv_any().unwrap().header.seq
    };
    let (first, later) = (iss(0, PORT), iss(1000, PORT));
    assert_eq!(later.since(first), 1_000_000 / 4, "a tick is 4 µs");
    assert_ne!(iss(0, PORT + 1), first + 1);
}

#[test]
fn an_open_to_nobody_fails_sa_closed_08() {
    each(|t| {
        let bad: &[&str] = if t.v6 {
            &["[fd00::1]:0", "[ff02::1]:80", "[::]:80"]
        } else {
            &["10.0.0.1:0", "224.0.0.1:80", "255.255.255.255:80", "10.0.0.255:80", "0.0.0.0:80"]
        };
        for remote in bad {
            let result = t.stack.connect(t.now, remote.parse().unwrap(), ConnectOptions::default());
            assert_eq!(result, Err(Error::InvalidArgument), "{remote} (MUST-46)");
        }
        let options = ConnectOptions { local_port: Some(0), ..ConnectOptions::default() };
        assert_eq!(t.stack.connect(t.now, t.remote(), options), Err(Error::InvalidArgument));
        assert_eq!(t.stack.usage(), Test::new(t.v6, t.ts, |_| {}).stack.usage());
    });
}

#[test]
fn an_open_without_a_port_or_room_leaves_nothing_sa_closed_09() {
    each_with(
        |c| (c.ip_local_port_range, c.tcp_max_connections) = (PortRange::new(20_000, 20_001).unwrap(), 3),
        |t| {
            let connect = |t: &mut Test, remote: SocketAddr| {
                let result = t.stack.connect(t.now, remote, ConnectOptions::default());
                t.stack.transmit(t.now, &mut [0; 2000]);
                result
            };
            let remote = t.remote();
            let first = connect(t, remote).unwrap();
            let second = connect(t, remote).unwrap();
            let ports = [first, second].map(|id| t.stack.local_addr(id).unwrap().port());
            assert!(ports.contains(&20_000) && ports.contains(&20_001));
            assert_eq!(connect(t, remote), Err(Error::AddrNotAvailable), "no port for this destination");
            let other = SocketAddr::new(remote.ip(), remote.port() + 1);
            connect(t, other).unwrap();
            assert_eq!(connect(t, other), Err(Error::NoBufferSpace), "tcp_max_connections = 3");
            let usage = t.stack.usage();
            assert_eq!((usage.opening, usage.sockets), (3, 3));
            t.stack.close(t.now, first).unwrap();
            connect(t, other).unwrap();
        },
    );
}

#[test]
fn calls_without_a_socket_fail_sa_closed_10() {
    each(|t| {
        t.establish();
        t.close();
        t.recv("F. seq 1 ack 1");
        let id = t.sock;
        let gone = Error::NoSuchSocket;
        assert_eq!(t.stack.send(id, b"x"), Err(gone));
        assert_eq!(t.stack.recv(id, &mut [0; 1]), Err(gone));
        assert_eq!(t.stack.close(t.now, id), Err(gone));
        assert_eq!(t.stack.abort(t.now, id), Err(gone));
        assert_eq!(t.stack.state(id), Err(gone));
        assert_eq!(t.stack.info(t.now, id), Err(gone));
        assert_eq!(t.stack.shutdown(t.now, id, Shutdown::Both), Err(gone));
        assert_eq!(t.stack.accept(id), Err(gone));
    });
}

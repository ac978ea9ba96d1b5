//! LISTEN (RFC 9293 §3.10.7.2).

use steadfast_core::config::SynCookies;
use steadfast_core::config::{Refusal, Refusals, RefuseWith};
use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;
use steadfast_core::wire::Ecn;
use steadfast_core::wire::icmp::{self, ErrorKind, Message};
use steadfast_core::{ConnectOptions, Error, Event, ListenOptions};

use crate::harness::{PEER, Test, each, each_with};

#[test]
fn a_reset_is_dropped_sa_listen_01() {
    each(|t| {
        t.listen();
        t.send("R seq 0");
        t.send("R. seq 0 ack 1");
        t.recv_nothing();
        t.dropped(&[DropReason::RstUnmatched; 2]);
    });
}

#[test]
fn an_ack_is_reset_sa_listen_02() {
    each(|t| {
        t.listen();
        for text in [". seq 1 ack 9", "S. seq 0 ack 9", "F. seq 1 ack 9", "P. seq 1:5 ack 9"] {
            t.send(text);
            t.recv("R seq 9 win 0");
        }
        assert_eq!(t.stack.counters().syncookies_failed, 0, "no cookie was sent");
    });
}

#[test]
fn syn_with_fin_or_rst_is_dropped_sa_listen_03() {
    each(|t| {
        t.listen();
        for text in ["SF seq 0", "SR seq 0", "SF. seq 0 ack 1", "SR. seq 0 ack 1", "none seq 0", "P seq 0"] {
            t.send(text);
        }
        t.recv_nothing();
        t.dropped(&[DropReason::TcpFlags; 6]);
        assert_eq!(t.stack.usage().half_open, 0);
    });
}

#[test]
fn a_syn_makes_a_half_open_entry_sa_listen_04() {
    each(|t| {
        t.listen();
        t.send("S seq 0 <sackOK, wscale 3>");
        t.recv("S. seq 0 ack 1 win 10000 <mss 1460, sackOK, wscale 0>");
        let usage = t.stack.usage();
        assert_eq!((usage.half_open, usage.connections, usage.sockets), (1, 0, 1), "4987-1");
        assert_eq!(t.tuple_state(), State::SynReceived);
        assert_eq!(t.events(t.listener.unwrap()), Event::default());
        assert_eq!(t.stack.accept(t.listener.unwrap()), Err(Error::WouldBlock));
        t.recv_after(1000, "S. seq 0 ack 1 win 10000 <mss 1460, sackOK, wscale 0>");
    });
}

/// The SYN-ACK has no option that the SYN does not offer (7323-4, 2018-1).
#[test]
fn options_are_agreed_on_one_by_one_sa_listen_04() {
    each(|t| {
        t.listen();
        let offers = [("", ""), (", sackOK", ", sackOK"), (", wscale 9", ", wscale 0")];
        for (n, (offer, answer)) in offers.into_iter().enumerate() {
            t.peer(5000 + n as u16);
            t.send(&format!("S seq 0 <mss 1000{offer}>"));
            t.recv(&format!("S. seq 0 ack 1 <mss 1460{answer}>"));
        }
    });
}

/// A buffer of more than 64 KiB is announced with a scale, but a SYN's window has none.
#[test]
fn a_large_buffer_is_scaled_after_the_handshake_sa_listen_04() {
    each_with(
        |c| c.tcp_rcvbuf = 1 << 20,
        |t| {
            t.listen();
            t.send("S seq 0 <wscale 2>");
            t.recv("S. seq 0 ack 1 win 65535 <mss 1460, wscale 5>");
            t.send(". seq 1 ack 1 win 1000");
            t.accept();
            assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_wnd, 4000);
            t.write(10);
            t.recv("P. seq 1:11 ack 1 win 32768");
            // Without the option, neither is ours scaled.
            t.peer(5000);
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 win 65535 <mss 1460>");
            t.send("P. seq 1:11 ack 1 win 1000");
            t.recv(". seq 1 ack 11 win 65525");
            t.accept();
            assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_wnd, 1000);
        },
    );
}

#[test]
fn ecn_is_agreed_on_when_the_syn_asks_3168_1() {
    each(|t| {
        t.listen();
        t.send("SEW seq 0");
        t.recv("SE. seq 0 ack 1 <mss 1460>");
        t.peer(5000);
        t.send("SE seq 0");
        t.recv("S. seq 0 ack 1 <mss 1460>");
    });
}

#[test]
fn data_on_a_syn_is_not_kept_sa_listen_05() {
    each(|t| {
        t.listen();
        t.send("S seq 0:100");
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.send("P. seq 1:101 ack 1");
        t.recv(". seq 1 ack 101");
        t.accept();
        t.read(100);
        assert_eq!(t.read_end(), Err(Error::WouldBlock));
    });
}

#[test]
fn a_full_table_answers_with_cookies_sa_listen_07() {
    each_with(
        |c| c.tcp_max_syn_backlog = 2,
        |t| {
            t.listen();
            for n in 0..4u16 {
                t.peer(5000 + n);
                t.send("S seq 0 <sackOK, wscale 6>");
                t.recv("S. seq 0 ack 1 win 10000 <mss 1460, sackOK, wscale 0>");
                assert_eq!(t.stack.usage().half_open, usize::from(n + 1).min(2));
                assert_eq!(t.stack.counters().syncookies_sent, u64::from(n.saturating_sub(1)));
            }
            assert_eq!(t.stack.counters().tcp_req_q_full_do_cookies, 2);
            // A cookie is never sent again by a timer (4987-4). The entries are: under this pressure the first to
            // go is sent again twice (4987-3), and then there is none.
            t.wait(100_000);
            t.recv_nothing();
            let mut again = [5000, 5001].map(|port| {
                t.peer(port);
                t.drain()
            });
            again.sort_unstable();
            assert_eq!(again, [2, 5]);
        },
    );
}

/// A cookie that comes back makes the connection, with all that was agreed on (also SA-LISTEN-02).
#[test]
fn a_cookie_becomes_a_connection_sa_listen_07() {
    each_with(
        |c| c.tcp_syncookies = SynCookies::Always,
        |t| {
            t.listen();
            t.send("S seq 0 <sackOK, wscale 6>");
            t.recv("S. seq 0 ack 1 win 10000 <mss 1460, sackOK, wscale 0>");
            let usage = t.stack.usage();
            assert_eq!((usage.half_open, usage.timers), (0, 0), "no state");
            t.wait(30_000);
            t.send("P. seq 1:11 ack 1 win 10");
            t.recv(". seq 1 ack 11");
            assert_eq!(t.stack.counters().syncookies_recv, 1);
            t.accept();
            t.read(10);
            let info = t.stack.info(t.now, t.sock).unwrap();
            assert_eq!((info.sack, info.timestamps, info.snd_wscale), (true, t.ts, Some(6)));
            assert_eq!(info.snd_wnd, 640);
            assert_eq!(info.snd_mss, 536 - if t.ts { 12 } else { 0 }, "rounded down");
        },
    );
}

#[test]
fn a_forged_or_old_cookie_is_reset_sa_listen_02() {
    each_with(
        |c| c.tcp_syncookies = SynCookies::Always,
        |t| {
            t.listen();
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 <mss 1460>");
            for (seq, ack) in [(1, 2), (1, 257), (2, 1), (1, 65_537)] {
                t.send(&format!(". seq {seq} ack {ack}"));
                t.recv(&format!("R seq {ack}"));
            }
            assert_eq!(t.stack.counters().syncookies_failed, 4);
            t.wait(119_999);
            t.send(". seq 1 ack 1");
            t.recv("R seq 1");
            assert_eq!(t.stack.usage().connections, 0);
        },
    );
}

#[test]
fn with_cookies_off_a_full_table_drops_sa_listen_07() {
    each_with(
        |c| (c.tcp_max_syn_backlog, c.tcp_syncookies) = (1, SynCookies::Never),
        |t| {
            t.listen();
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 <mss 1460>");
            t.peer(5000);
            t.send("S seq 0");
            t.recv_nothing();
            t.dropped(&[DropReason::SynBacklogFull]);
            let counters = t.stack.counters();
            assert_eq!((counters.tcp_req_q_full_drop, counters.listen_drops), (1, 1));
            // The first completes, and there is room again.
            t.peer(PEER);
            t.send(". seq 1 ack 1");
            t.peer(5000);
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 <mss 1460>");
        },
    );
}

#[test]
fn the_table_of_the_whole_stack_is_bounded_sa_listen_07() {
    each_with(
        |c| (c.tcp_max_half_open, c.tcp_syncookies) = (1, SynCookies::Never),
        |t| {
            t.listen();
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 <mss 1460>");
            t.port = 81;
            t.listen();
            t.peer(5000);
            t.send("S seq 0");
            t.recv_nothing();
            t.dropped(&[DropReason::SynBacklogFull]);
        },
    );
}

/// Exactly `backlog` connections wait; the next SYN is dropped, not reset.
#[test]
fn a_full_accept_queue_drops_syns_sa_listen_08() {
    each(|t| {
        t.listen_with(ListenOptions { backlog: 2, ..ListenOptions::default() });
        for n in 0..2 {
            t.peer(5000 + n);
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 <mss 1460>");
            t.send(". seq 1 ack 1");
        }
        t.peer(6000);
        t.send("S seq 0");
        t.recv_nothing();
        t.dropped(&[DropReason::AcceptQueueFull]);
        let counters = t.stack.counters();
        assert_eq!((counters.listen_overflows, counters.listen_drops), (1, 1));
        let all = t.stack.sockets(t.now);
        let listener = all.iter().find(|s| s.state == State::Listen).unwrap();
        assert_eq!((listener.recv_q, listener.send_q), (2, 2), "SA-LISTEN-17");
        t.accept_any();
        t.send("S seq 0");
        t.recv("S. seq 0 ack 1 <mss 1460>");
    });
}

#[test]
fn somaxconn_caps_the_backlog_sa_listen_08() {
    each_with(
        |c| c.somaxconn = 1,
        |t| {
            t.listen_with(ListenOptions { backlog: 100, ..ListenOptions::default() });
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 <mss 1460>");
            t.send(". seq 1 ack 1");
            t.peer(5000);
            t.send("S seq 0");
            t.recv_nothing();
            t.dropped(&[DropReason::AcceptQueueFull]);
        },
    );
}

/// MUST-63, 1122-1: a source is a host.
#[test]
fn a_syn_from_or_to_no_host_is_dropped_sa_listen_09() {
    each(|t| {
        t.listen();
        let sources: &[&str] = if t.v6 {
            &["ff02::1", "::"]
        } else {
            &["255.255.255.255", "224.0.0.1", "0.0.0.0", "10.0.0.255", "127.0.0.1", "240.0.0.1"]
        };
        let (header, _) = t.segment("S seq 0");
        for source in sources {
            let packet = t.ip_packet(source.parse().unwrap(), t.ours(), &header, &[], Ecn::NotEct);
            t.stack.receive(t.now, &packet[..]);
        }
        t.recv_nothing();
        t.dropped(&vec![DropReason::BadSource; sources.len()]);
        assert_eq!(t.stack.usage().half_open, 0);
    });
}

#[test]
fn a_bare_fin_is_dropped_sa_listen_11() {
    each(|t| {
        t.listen();
        t.send("F seq 1");
        t.send("FPU seq 1:11 urg 4");
        t.recv_nothing();
        t.dropped(&[DropReason::ListenNoFlags; 2]);
    });
}

/// A listener is never connected itself; but another OPEN may use its port (MUST-41, MUST-42).
#[test]
fn a_connect_from_the_port_leaves_the_listener_alone_sa_listen_12() {
    each(|t| {
        let listener = t.listen();
        t.connect();
        assert_eq!(t.stack.state(listener), Ok(State::Listen));
        let client = t.sock;
        t.peer(5000);
        t.establish();
        t.peer(PEER);
        t.sock = client;
        t.send("S. seq 0 ack 1 <sackOK, wscale 0>");
        t.recv(". seq 1 ack 1");
        assert_eq!(t.state(), State::Established);
    });
}

/// Also SA-LISTEN-14.
#[test]
fn a_listener_cannot_send_nor_receive_sa_listen_13() {
    each(|t| {
        let id = t.listen();
        assert_eq!(t.stack.send(id, b"x"), Err(Error::NotConnected));
        assert_eq!(t.stack.recv(id, &mut [0; 1]), Err(Error::NotConnected));
        assert_eq!(t.stack.peer_addr(id), Err(Error::NotConnected));
        assert_eq!(t.stack.info(t.now, id), Err(Error::NotConnected));
        assert_eq!(t.stack.accept(id), Err(Error::WouldBlock));
    });
}

#[test]
fn accept_gives_the_oldest_first_sa_listen_14() {
    each(|t| {
        let listener = t.listen();
        for port in [5001, 5000, 5002] {
            t.peer(port);
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 <mss 1460>");
            t.send(". seq 1 ack 1");
        }
        assert_eq!(t.events(listener), Event::READABLE);
        for port in [5001, 5000, 5002] {
            assert_eq!(t.stack.accept(listener).unwrap().1.port(), port);
        }
        assert_eq!(t.stack.accept(listener), Err(Error::WouldBlock));
    });
}

/// Also SA-LISTEN-16: half-open entries go silently, connections that nobody accepted are reset.
/// SA-SYN_RCVD-21: the last segment of the handshake finds nobody.
#[test]
fn closing_a_listener_resets_what_waits_sa_listen_15() {
    each(|t| {
        for abort in [false, true] {
            t.peer(5000);
            t.restart_peer(1000);
            let listener = t.listen();
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 <mss 1460>");
            t.send("P. seq 1:11 ack 1");
            t.recv(". seq 1 ack 11");
            t.peer(6000);
            t.restart_peer(1000);
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 <mss 1460>");
            let end = if abort { t.stack.abort(t.now, listener) } else { t.stack.close(t.now, listener) };
            assert_eq!(end, Ok(()));
            t.recv_nothing();
            // SA-SYN_RCVD-21
            t.send(". seq 1 ack 1");
            t.recv("R seq 1");
            t.peer(5000);
            t.recv("R. seq 1 ack 11");
            let usage = t.stack.usage();
            assert_eq!((usage.listeners, usage.half_open, usage.connections, usage.sockets), (0, 0, 0, 0));
            t.send("S seq 0");
            t.recv("R. seq =0 ack 1");
        }
    });
}

#[test]
fn an_accepted_connection_outlives_its_listener_sa_listen_15() {
    each(|t| {
        t.establish();
        assert_eq!(t.stack.close(t.now, t.listener.take().unwrap()), Ok(()));
        t.recv_nothing();
        t.write(10);
        t.recv("P. seq 1:11 ack 1");
        assert_eq!(t.state(), State::Established);
    });
}

/// Queue lengths as `ss` shows them, and what was dropped.
#[test]
fn status_tells_the_queues_sa_listen_17() {
    each(|t| {
        let listener = t.listen_with(ListenOptions { backlog: 1, ..ListenOptions::default() });
        for port in [5000, 6000, 7000] {
            t.peer(port);
            t.send("S seq 0");
            t.recv("S. seq 0 ack 1 <mss 1460>");
        }
        t.send(". seq 1 ack 1");
        t.peer(8000);
        t.send("S seq 0");
        t.recv_nothing();
        let all = t.stack.sockets(t.now);
        let entry = all.iter().find(|s| s.state == State::Listen).unwrap();
        assert_eq!((entry.socket, entry.local), (Some(listener), t.local()));
        assert_eq!((entry.recv_q, entry.send_q, entry.half_open), (1, 1, 2));
        assert_eq!((t.stack.counters().listen_overflows, t.stack.counters().listen_drops), (1, 1));
    });
}

#[test]
fn refused_sources_are_answered_as_configured_h10b() {
    each(|t| {
        let (source, len) = (t.theirs(), if t.v6 { 128 } else { 32 });
        let refuse = |port, with| Refusal { source, prefix_len: len, port, with };
        let rules = vec![
            refuse(Some(81), RefuseWith::Drop),
            refuse(Some(82), RefuseWith::AdminProhibited),
            refuse(None, RefuseWith::TcpReset),
        ];
        let mut refusing = Test::new(t.v6, t.ts, |c| c.tcp_refuse = Refusals(rules.clone()));
        std::mem::swap(t, &mut refusing);
        t.listen();
        t.send("S seq 0");
        t.recv("R. seq =0 ack 1");
        t.port = 81;
        t.listen();
        t.send("S seq 0");
        t.recv_nothing();
        t.dropped(&[DropReason::Refused]);
        t.port = 82;
        t.listen();
        let syn = t.packet("S seq 0");
        t.stack.receive(t.now, &syn[..]);
        t.recv_nothing();
        let (to, body) = t.icmp.pop_front().expect("an ICMP error");
        assert_eq!(to, source);
        let message = match (t.theirs(), t.ours()) {
            (std::net::IpAddr::V6(peer), std::net::IpAddr::V6(us)) => icmp::parse_v6(us, peer, &body),
            _ => icmp::parse_v4(&body),
        };
        let Some(Message::Error { kind, quoted }) = message else { panic!("{message:?}") };
        assert_eq!(kind, ErrorKind::AdminProhibited);
        // Ports and sequence number; more would make the error longer than the SYN (THREAT-4).
        assert_eq!(quoted, &syn[..quoted.len()]);
        assert_eq!(quoted.len(), if t.v6 { 48 } else { 28 });
        assert_eq!(t.stack.usage().half_open, 0);
        // A connect to such a source is not refused.
        t.port = 90;
        let options = ConnectOptions { local_port: Some(90), ..ConnectOptions::default() };
        t.connect_with(options);
    });
}

/// A cookie that comes back to a full accept queue becomes a half-open entry, which is called when there is room.
#[test]
fn a_cookie_waits_for_room_sa_listen_07() {
    each_with(
        |c| c.tcp_syncookies = SynCookies::Always,
        |t| {
            t.listen_with(ListenOptions { backlog: 1, ..ListenOptions::default() });
            for port in [5000, 6000] {
                t.peer(port);
                t.send("S seq 0");
                t.recv("S. seq 0 ack 1 <mss 1460>");
            }
            t.send(". seq 1 ack 1");
            t.peer(5000);
            t.send(". seq 1 ack 1");
            t.recv_nothing();
            t.dropped(&[DropReason::AcceptQueueFull]);
            assert_eq!(t.tuple_state(), State::SynReceived);
            t.accept_any();
            t.recv("S. seq 0 ack 1 <mss 1460>");
            t.send(". seq 1 ack 1");
            t.accept();
            let counters = t.stack.counters();
            assert_eq!((counters.syncookies_recv, counters.syncookies_failed), (2, 0));
        },
    );
}

/// Where the table of half-open entries has no room, such a cookie is dropped, and good again when the accept queue has
/// some.
#[test]
fn a_cookie_finds_no_row_to_wait_in_sa_listen_07() {
    each_with(
        |c| (c.tcp_syncookies, c.tcp_max_syn_backlog) = (SynCookies::Always, 1),
        |t| {
            t.listen_with(ListenOptions { backlog: 1, ..ListenOptions::default() });
            for port in [5000, 6000, 7000] {
                t.peer(port);
                t.send("S seq 0");
                t.recv("S. seq 0 ack 1 <mss 1460>");
            }
            for port in [7000, 6000, 5000] {
                t.peer(port);
                t.send(". seq 1 ack 1");
                t.recv_nothing();
            }
            assert_eq!(t.tuple_state(), State::Closed);
            t.accept_any();
            t.peer(6000);
            t.recv("S. seq 0 ack 1 <mss 1460>");
            t.peer(5000);
            t.send(". seq 1 ack 1");
            t.accept();
        },
    );
}

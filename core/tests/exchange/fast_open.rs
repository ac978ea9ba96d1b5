//! Fast Open (RFC 7413), where segments are lost, late, or of nobody.

use steadfast_core::config::FastOpenMode;
use steadfast_core::counters::DropReason;
use steadfast_core::info::{CaState, Info};
use steadfast_core::trace::State;
use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::{Error, Event, ListenOptions};

use crate::harness::{Test, each, each_with, pattern};
use crate::living::{cookie, fast_open_connect, fast_open_listener, learn_cookie};

const SYN: &str = "S seq 0 <mss 1460, sackOK, wscale 0>";
const SYN_ACK: &str = "S. seq 0 ack 101 <mss 1460, sackOK, wscale 0>";

fn info(t: &Test) -> Info {
    t.stack.info(t.now, t.sock).unwrap()
}

// The bits of `tcp_fastopen`.

/// One SYN with ten bytes, to a listener that asked for Fast Open or not: is the data taken?
fn takes_bare_data(bits: u32, asked: bool) -> bool {
    let mut taken = None;
    let answer = std::cell::RefCell::new(&mut taken);
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::from_number(bits),
        |t| {
            t.listen_with(ListenOptions { fast_open: asked, ..ListenOptions::default() });
            t.send("S seq 0:10 <sackOK, wscale 0>");
            let syn_ack = t.recv_any().unwrap().header;
            **answer.borrow_mut() = Some(syn_ack.ack.since(t.cur().iss) == 11);
        },
    );
    taken.expect("an answer")
}

// DRILL-X33
#[test]
fn a_server_takes_data_without_a_cookie_where_both_bits_say_so() {
    assert!(
        takes_bare_data(0x202, true) && takes_bare_data(0x602, false) && takes_bare_data(0x7_0602, false)
    );
    assert!(!takes_bare_data(0x202, false), "the listener does not ask");
    assert!(!takes_bare_data(0x402, false), "a cookie is needed");
    assert!(!takes_bare_data(0x200, true) && !takes_bare_data(0x201, true), "no server");
}

// DRILL-X38
#[test]
fn a_client_without_cookie_sends_data_and_no_option() {
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::from_number(5),
        |t| {
            fast_open_connect(t);
            t.write(100);
            t.recv("S seq 0:100 <mss 1460, sackOK, wscale 0>");
            t.send("S. seq 0 ack 101 <sackOK, wscale 0>");
            t.recv(". seq 101 ack 1");
            assert!(info(t).syn_data);
        },
    );
}

// The client.

// DRILL-X36
#[test]
fn the_mss_of_the_last_syn_ack_limits_the_data_of_a_syn() {
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::CLIENT,
        |t| {
            learn_cookie(t);
            fast_open_connect(t);
            assert_eq!(t.stack.syn_data_room(t.sock), 960);
            t.write(2000);
            t.recv("S seq 0:960 <mss 1460, sackOK, wscale 0, tfo 0102030405060708>");
            assert_eq!(t.stack.syn_data_room(t.sock), 0, "the SYN has left");
        },
    );
}

/// The server has all of our data: what it sends with its SYN-ACK is its answer.
// DRILL-X30
#[test]
fn data_of_a_syn_ack_is_taken_where_it_acknowledges_all_of_the_request() {
    as_client(|t| {
        t.send("S. seq 0:10 ack 101 <sackOK, wscale 0>");
        t.recv(". seq 101 ack 11");
        assert_eq!(info(t).recv_q, 10);
    });
    as_client(|t| {
        t.send("S. seq 0:10 ack 51 <sackOK, wscale 0>");
        t.recv("P. seq 51:101 ack 1");
        assert_eq!((info(t).recv_q, info(t).syn_data), (0, false));
    });
}

/// A client that has a cookie, and has sent 100 bytes with its SYN.
fn request(t: &mut Test) {
    fast_open_connect(t);
    t.recv("S seq 0 <mss 1460, sackOK, wscale 0, tfo>");
    t.send("S. seq 0 ack 1 <sackOK, wscale 0, tfo 0102030405060708>");
    t.recv(". seq 1 ack 1");
    t.abort();
    t.recv("R. seq 1 ack 1");
    t.restart_peer(1000);
    fast_open_connect(t);
    t.write(100);
    t.recv("S seq 0:100 <mss 1460, sackOK, wscale 0, tfo 0102030405060708>");
}

fn as_client(test: impl Fn(&mut Test)) {
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::CLIENT,
        |t| {
            request(t);
            test(t);
        },
    );
}

/// The SYN-ACK of SYN and data was lost, or the round trip is longer than the timer: SND.NXT stays where it was.
#[test]
fn a_late_syn_ack_of_the_request_is_acceptable_9293_k() {
    as_client(|t| {
        t.recv_after(1000, SYN);
        t.recv_after(1000, SYN);
        t.send("S. seq 0 ack 101 <sackOK, wscale 0>");
        t.recv(". seq 101 ack 1");
        assert_eq!((t.state(), t.queued()), (State::Established, 0));
        assert_eq!(t.stack.counters().tcp_fast_open_active, 1);
        t.send(". seq 1 ack 101");
        t.recv_nothing();
    });
    // Neither one byte more nor the ISS is.
    as_client(|t| {
        t.recv_after(1000, SYN);
        for ack in [102, 0] {
            t.send(&format!("S. seq 0 ack {ack}"));
            t.recv(&format!("R seq {ack}"));
        }
        t.dropped(&[DropReason::AckOfUnsent; 2]);
        assert_eq!(t.state(), State::SynSent);
    });
}

/// Data that the peer did not take leaves with the third segment (RFC 7413 §4.2.2), whether or not the SYN was
/// retransmitted.
#[test]
fn what_the_syn_ack_leaves_of_the_request_goes_again_7413_3() {
    for again in [false, true] {
        for taken in [0, 60] {
            as_client(|t| {
                if again {
                    t.recv_after(1000, SYN);
                }
                t.send(&format!("S. seq 0 ack {} <sackOK, wscale 0>", 1 + taken));
                t.recv(&format!("P. seq {}:101 ack 1", 1 + taken));
                assert_eq!(t.state(), State::Established);
                t.send(". seq 1 ack 101");
                assert_eq!((t.queued(), info(t).ca_state), (0, CaState::Open));
                t.write(10);
                t.recv("P. seq 101:111 ack 1");
            });
        }
    }
}

/// A server that acknowledges the SYN alone may hold the data all the same (RFC 9293 §3.10.7.2), and acknowledge it
/// before its window lets it come again.
#[test]
fn a_server_may_acknowledge_the_request_after_the_handshake_9293_k() {
    as_client(|t| {
        t.send("S. seq 0 ack 1 win 60 <sackOK, wscale 0>");
        // Not beyond the window.
        t.recv(". seq 61 ack 1");
        t.send(". seq 1 ack 101 win 1000");
        t.recv_nothing();
        t.dropped(&[]);
        assert_eq!(t.queued(), 0);
    });
    as_client(|t| {
        t.send("S. seq 0 ack 1 win 0 <sackOK, wscale 0>");
        t.recv_any();
        t.send(". seq 1 ack 1 win 1000");
        t.recv("P. seq 1:101 ack 1");
    });
}

/// Where the SYNs cross the peer may have taken the data of ours, or not.
#[test]
fn data_of_a_crossed_syn_is_acknowledged_or_goes_again_sa_syn_rcvd_06() {
    for syn_ack in [false, true] {
        for taken in [0, 60, 100] {
            as_client(|t| {
                t.send("S seq 0 <sackOK, wscale 0>");
                t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
                t.wait(50);
                let ack = 1 + taken;
                if syn_ack {
                    t.send(&format!("S. seq 0 ack {ack} <sackOK, wscale 0>"));
                } else {
                    t.send(&format!(". seq 1 ack {ack}"));
                }
                assert_eq!(t.state(), State::Established);
                match (taken, syn_ack) {
                    (100, true) => drop(t.recv(". seq 101 ack 1")),
                    (100, false) => t.recv_nothing(),
                    _ => drop(t.recv(&format!("P. seq {ack}:101 ack 1"))),
                }
                t.send(". seq 1 ack 101");
                assert_eq!(t.queued(), 0);
                t.dropped(&[]);
            });
        }
    }
    as_client(|t| {
        t.send("S seq 0 <sackOK, wscale 0>");
        t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
        t.send(". seq 1 ack 102");
        t.recv("R seq 102");
        assert_eq!(t.state(), State::SynReceived);
    });
}

/// A cookie is taken from the SYN-ACK that answers a request for one. That of a SYN is of our own making, for another
/// direction, and what nobody asked for is no cookie.
#[test]
fn only_a_syn_ack_gives_a_cookie_7413_1() {
    let knows = |t: &Test| t.stack.knows_fast_open_cookie(t.theirs());
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::CLIENT,
        |t| {
            fast_open_connect(t);
            t.recv("S seq 0 <mss 1460, sackOK, wscale 0, tfo>");
            t.send("S seq 0 <sackOK, wscale 0, tfo 0102030405060708>");
            t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
            assert!(!knows(t));
        },
    );
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::CLIENT,
        |t| {
            t.connect();
            t.send("S. seq 0 ack 1 <sackOK, wscale 0, tfo 0102030405060708>");
            t.recv(". seq 1 ack 1");
            assert!(!knows(t));
        },
    );
    // The answer to the first SYN may come after the second one.
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::CLIENT,
        |t| {
            fast_open_connect(t);
            t.recv("S seq 0 <mss 1460, sackOK, wscale 0, tfo>");
            t.recv_after(1000, SYN);
            t.send("S. seq 0 ack 1 <sackOK, wscale 0, tfo 0102030405060708>");
            t.recv(". seq 1 ack 1");
            assert!(knows(t));
        },
    );
}

// The server.

fn as_server(configure: impl Fn(&mut steadfast_core::Config), test: impl Fn(&mut Test, &str)) {
    each_with(
        |c| {
            c.tcp_fastopen = FastOpenMode::SERVER;
            configure(c);
        },
        |t| {
            fast_open_listener(t);
            let cookie = cookie(t);
            test(t, &format!("S seq 0:100 <sackOK, wscale 0, tfo {cookie}>"));
        },
    );
}

/// A server in SYN-RECEIVED whose application has the request.
fn with_request(test: impl Fn(&mut Test)) {
    as_server(
        |_| {},
        |t, syn| {
            t.send(syn);
            t.recv(SYN_ACK);
            t.accept();
            t.read(100);
            test(t);
        },
    );
}

/// The answer leaves a round trip before the third segment (RFC 7413 §4.2.2); the FIN does not.
#[test]
fn the_answer_leaves_before_the_third_segment_sa_listen_06() {
    with_request(|t| {
        t.write(500);
        t.recv("P. seq 1:501 ack 101");
        t.write(10);
        // Nagle.
        t.recv_nothing();
        t.close();
        t.recv("P. seq 501:511 ack 101");
        t.recv_nothing();
        assert_eq!(t.tuple_state(), State::SynReceived);
        t.wait(20);
        t.send(". seq 101 ack 1");
        t.recv("F. seq 511 ack 101");
        t.send("F. seq 101 ack 512");
        t.recv(". seq 512 ack 102");
        assert_eq!(t.tuple_state(), State::TimeWait);
    });
    // One ACK may cover SYN-ACK and answer.
    with_request(|t| {
        t.write(50);
        t.recv("P. seq 1:51 ack 101");
        t.send(". seq 101 ack 51");
        assert_eq!((t.state(), t.queued()), (State::Established, 0));
        t.write(10);
        t.recv("P. seq 51:61 ack 101");
    });
    // More is acknowledged than was sent.
    with_request(|t| {
        t.write(50);
        t.recv("P. seq 1:51 ack 101");
        t.send(". seq 101 ack 52");
        t.recv("R seq 52");
        assert_eq!(t.state(), State::SynReceived);
    });
}

/// An application that accepts before the third segment is told nothing until something has changed.
#[test]
fn a_connection_that_is_accepted_early_has_no_event_until_it_is_established_sa_listen_06() {
    as_server(
        |_| {},
        |t, syn| {
            t.send(&syn.replace("0:100", "0"));
            t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
            let id = t.accept_any();
            assert_eq!(t.stack.poll_event(), None);
            t.send(". seq 1 ack 1");
            assert_eq!(t.events(id), Event::WRITABLE);
        },
    );
}

/// The SYN-ACK goes first where the application writes before it could leave.
#[test]
fn the_syn_ack_leaves_before_the_answer_sa_listen_06() {
    as_server(
        |_| {},
        |t, syn| {
            let packet = t.packet(syn);
            t.stack.receive(t.now, &packet[..]);
            let (id, _) = t.stack.accept(t.listener.unwrap()).unwrap();
            assert_eq!(t.stack.send(id, &pattern(0, 50)), Ok(50));
            t.recv(SYN_ACK);
            t.recv("P. seq 1:51 ack 101");
        },
    );
}

/// No more than the initial window, and no more than the SYN's, which is never scaled (7323-2).
#[test]
fn the_early_answer_keeps_to_both_windows_6928_1() {
    with_request(|t| {
        t.write(30_000);
        assert_eq!(t.drain(), 10, "ten segments");
        t.wait(999);
        t.recv_nothing();
        t.send(". seq 101 ack 10001");
        assert_eq!(t.drain(), 20, "slow start: an ACK adds what it covers");
    });
    as_server(
        |_| {},
        |t, syn| {
            t.win = 2500;
            t.send(&syn.replace("wscale 0", "wscale 7"));
            t.recv(SYN_ACK);
            t.accept();
            t.read(100);
            t.write(30_000);
            t.recv(". seq 1:1001 ack 101");
            t.recv(". seq 1001:2001 ack 101");
            t.recv_nothing();
        },
    );
}

/// 7413-3: to silence only the SYN-ACK goes again. When the client comes, what was sent early counts as lost, and
/// begins with one segment (5681-4).
#[test]
fn an_early_answer_that_was_lost_goes_again_sa_syn_rcvd_18() {
    with_request(|t| {
        t.write(3000);
        assert_eq!(t.drain(), 3);
        t.recv_after(1000, SYN_ACK);
        t.recv_after(2000, SYN_ACK);
        t.write(1000);
        t.recv_nothing();
        t.send(". seq 101 ack 1");
        t.recv(". seq 1:1001 ack 101");
        t.recv_nothing();
        t.send(". seq 101 ack 1001");
        t.recv(". seq 1001:2001 ack 101");
        t.recv(". seq 2001:3001 ack 101");
        t.send(". seq 101 ack 3001");
        t.recv("P. seq 3001:4001 ack 101");
        t.send(". seq 101 ack 4001");
        assert_eq!((t.queued(), info(t).ca_state), (0, CaState::Open));
    });
    // So it is where the client sends its SYN again, of which the round trip cannot be told.
    with_request(|t| {
        t.write(3000);
        assert_eq!(t.drain(), 3);
        t.wait(900);
        t.send("S seq 0 <sackOK, wscale 0>");
        t.recv(SYN_ACK);
        t.dropped(&[DropReason::Duplicate, DropReason::HalfOpenRst]);
        t.send(". seq 101 ack 1");
        assert_eq!(info(t).rtt, steadfast_core::Duration::ZERO);
        t.recv(". seq 1:1001 ack 101");
        t.recv(". seq 1001:2001 ack 101");
        t.recv("P. seq 2001:3001 ack 101");
        t.recv_nothing();
        t.send(". seq 101 ack 3001");
        assert_eq!((t.queued(), info(t).ca_state), (0, CaState::Open));
    });
    // The SYN-ACK arrived, and the third segment says nothing of the answer: its timer runs from now.
    with_request(|t| {
        t.write(500);
        t.recv("P. seq 1:501 ack 101");
        t.wait(50);
        t.send(". seq 101 ack 1");
        t.recv_nothing();
        // The round trip is 50 ms: no less than 200 ms for the RTO.
        t.wait(199);
        t.recv_nothing();
        t.wait(100);
        assert_eq!(t.drain(), 1);
    });
}

/// The end of patience and an abort say SND.NXT, which is behind the answer.
#[test]
fn an_early_answer_ends_with_its_connection_sa_syn_rcvd_23() {
    with_request(|t| {
        t.write(50);
        t.recv("P. seq 1:51 ack 101");
        t.abort();
        t.recv("R. seq 51 ack 101");
        t.is_closed(None);
    });
    with_request(|t| {
        t.write(50);
        t.recv("P. seq 1:51 ack 101");
        t.wait(63_000);
        t.drain();
        t.is_closed(Some(Error::TimedOut));
    });
}

/// A request that ends in SYN-RECEIVED counts for as long as it would have waited, 63 s: the RST of a victim whose
/// cookie was stolen admits no other request (RFC 7413 §5.1). The same holds for ICMP, and for an application that
/// aborts.
#[test]
fn a_request_that_is_reset_still_counts_7413_2() {
    for end in ["rst", "icmp", "abort"] {
        as_server(
            |c| c.tcp_fastopen_pending = 2,
            |t, syn| {
                t.peer(5000);
                t.send(syn);
                t.recv(SYN_ACK);
                t.send(". seq 101 ack 1");
                t.peer(4000);
                t.send(syn);
                t.recv(SYN_ACK);
                t.wait(500);
                t.peer(4001);
                t.send(syn);
                t.recv(SYN_ACK);
                t.accept();
                t.accept();
                t.accept();
                match end {
                    "rst" => t.send("R seq 101"),
                    "icmp" => t.icmp_error(ErrorKind::PortUnreachable, 0),
                    _ => {
                        t.abort();
                        t.recv("R. seq 1 ack 101");
                    }
                }
                t.peer(4000);
                t.send(". seq 101 ack 1");
                // Who has confirmed his request counts no longer; who was reset does until 63 s have passed.
                t.peer(4002);
                t.send(syn);
                t.recv(SYN_ACK);
                t.peer(4003);
                t.send(syn);
                t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
                t.send("R seq 1");
                t.wait(62_999);
                t.peer(4002);
                t.drain();
                t.peer(4004);
                t.send(syn);
                t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
                t.send("R seq 1");
                t.wait(1);
                t.peer(4002);
                t.drain();
                t.peer(4005);
                t.send(syn);
                t.recv(SYN_ACK);
                assert_eq!(t.stack.counters().tcp_fast_open_listen_overflow, 2);
            },
        );
    }
}

/// The third segment confirms a request even where it ends the connection: here by data for an application that is
/// gone.
#[test]
fn a_request_that_ends_with_its_third_segment_counts_no_longer_7413_2() {
    as_server(
        |c| c.tcp_fastopen_pending = 1,
        |t, syn| {
            t.send(syn);
            t.recv(SYN_ACK);
            t.accept();
            t.read(100);
            t.close();
            t.send("P. seq 101:201 ack 1");
            t.recv("R. seq 1 ack 201");
            t.peer(5000);
            t.send(syn);
            t.recv(SYN_ACK);
            assert_eq!(t.stack.counters().tcp_fast_open_listen_overflow, 0);
        },
    );
}

/// A smaller path MTU is believed, and nothing more: neither is the SYN-ACK lost nor its timer moved, and what is sent
/// after the handshake is not sent again.
#[test]
fn packet_too_big_in_syn_received_is_no_loss_1191_1() {
    with_request(|t| {
        t.wait(300);
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1300 }, 0);
        t.recv_nothing();
        assert_eq!(info(t).ca_state, CaState::Open);
        t.recv_after(700, SYN_ACK);
        t.send(". seq 101 ack 1");
        t.recv_nothing();
        assert_eq!(info(t).ca_state, CaState::Open);
    });
    each(|t| {
        t.connect();
        t.send("S seq 0 <mss 1460, sackOK, wscale 0>");
        let syn_ack = "S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>";
        t.recv(syn_ack);
        t.wait(300);
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1300 }, 0);
        t.recv_nothing();
        t.recv_after(700, syn_ack);
        t.send(". seq 1 ack 1");
        t.recv_nothing();
        let headers = if t.v6 { 60 } else { 40 } + if t.ts { 12 } else { 0 };
        assert_eq!((info(t).snd_mss, info(t).ca_state), (1300 - headers, CaState::Open));
        t.write(100);
        t.recv("P. seq 1:101 ack 1");
        t.recv_nothing();
    });
    // An early answer may be what was too big: it goes again when the client has answered.
    as_server(
        |_| {},
        |t, syn| {
            t.send(&syn.replace('>', ", mss 1460>"));
            t.recv(SYN_ACK);
            t.accept();
            t.write(1400);
            t.drain();
            t.icmp_error(ErrorKind::PacketTooBig { mtu: 1300 }, 1);
            t.recv_nothing();
            t.send(". seq 101 ack 1");
            let mss = u32::from(info(t).snd_mss);
            t.recv(&format!(". seq 1:{} ack 101", 1 + mss));
            t.recv(&format!("P. seq {}:1401 ack 101", 1 + mss));
            t.send(". seq 101 ack 1401");
            assert_eq!((t.queued(), info(t).ca_state), (0, CaState::Open));
        },
    );
}

//! Timers of idle connections, limits of the whole stack, Fast Open.

use steadfast_core::config::FastOpenMode;
use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;
use steadfast_core::wire::icmp::Message;
use steadfast_core::{ConnectOptions, Duration, Error, Event, ListenOptions};

use crate::harness::{Test, each, each_with};
use crate::text::to_hex;

const IDLE: u64 = 7_200_000;
const GAP: u64 = 75_000;

/// SA-EST-39, SA-FIN_WAIT_2-37, SA-CLOSE_WAIT-34 (MUST-24, MUST-26 to MUST-29, SHLD-12).
#[test]
fn keepalive_ends_a_connection_after_nine_probes_sa_est_39() {
    for state in [State::Established, State::FinWait2, State::CloseWait] {
        each(|t| {
            t.reach(state);
            t.set_options(|o| o.keepalive = true);
            let probe = format!(". seq {} ack {}", t.una - 1, t.rcv);
            t.recv_after(IDLE, &probe);
            for _ in 1..9 {
                t.recv_after(GAP, &probe);
            }
            t.wait(GAP - 1);
            assert_eq!(t.state(), state);
            t.wait(1);
            t.recv_rst();
            t.is_closed(Some(Error::TimedOut));
            assert_eq!(t.stack.counters().tcp_keep_alive, 9);
        });
    }
}

/// MUST-25.
#[test]
fn keepalive_is_off_by_default_must_25() {
    each(|t| {
        t.reach(State::Established);
        t.wait(30 * IDLE);
        t.recv_nothing();
        assert_eq!(t.state(), State::Established);
        assert_eq!(t.stack.poll_at(), None, "an idle connection has no timer");
    });
}

#[test]
fn an_answered_keepalive_starts_the_time_anew_must_29() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|o| o.keepalive = true);
        for _ in 0..3 {
            t.recv_after(IDLE, ". seq 100 ack 51");
            t.recv_after(GAP, ". seq 100 ack 51");
            t.send(". seq 51 ack 101");
            t.recv_nothing();
        }
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().probes, 0);
        // Switched off, it stops.
        t.set_options(|o| o.keepalive = false);
        t.wait(10 * IDLE);
        t.recv_nothing();
    });
}

/// MUST-27: interval, time between probes and their number are the application's.
#[test]
fn the_times_of_keepalive_are_set_per_socket_must_27() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|o| {
            (o.keepalive, o.keepalive_probes) = (true, 2);
            o.keepalive_time = Duration::from_secs(10);
            o.keepalive_intvl = Duration::from_secs(3);
        });
        t.recv_after(10_000, ". seq 100 ack 51");
        t.recv_after(3000, ". seq 100 ack 51");
        t.wait(3000);
        t.recv_rst();
        t.is_closed(Some(Error::TimedOut));
    });
}

/// MUST-26: not while data is outstanding; traffic puts it off.
#[test]
fn keepalive_leaves_a_busy_connection_alone_must_26() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|o| o.keepalive = true);
        t.wait(IDLE / 2);
        t.send("P. seq 51:61 ack 101");
        t.recv(". seq 101 ack 61");
        t.wait(IDLE - 1);
        t.recv_nothing();
        t.wait(1);
        t.recv(". seq 100 ack 61");
    });
}

/// TCP_USER_TIMEOUT overrides the number of probes.
#[test]
fn the_user_timeout_ends_keepalive_sa_est_39() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|o| {
            o.keepalive = true;
            o.user_timeout = Duration::from_secs(10);
        });
        t.recv_after(IDLE, ". seq 100 ack 51");
        t.wait(9999);
        assert_eq!(t.state(), State::Established);
        t.wait(1);
        t.recv_rst();
        t.is_closed(Some(Error::TimedOut));
    });
}

/// SA-EST-37: both sides of the moment; progress starts it anew.
#[test]
fn the_user_timeout_counts_from_the_last_progress_sa_est_37() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|o| o.user_timeout = Duration::from_millis(1000));
        t.write(2000);
        t.drain();
        t.wait(900);
        t.send(". seq 51 ack 1101");
        t.drain();
        t.wait(999);
        assert_eq!(t.state(), State::Established);
        t.wait(1);
        t.nxt = 2101;
        t.recv_rst_any();
        t.is_closed(Some(Error::TimedOut));
    });
}

/// One connection takes half of tcp_mem, which is the low mark, and no more. It is still heard, and others can begin.
#[test]
fn one_connection_cannot_take_all_memory_of_the_stack_threat_8() {
    each_with(
        |c| (c.tcp_mem, c.tcp_sndbuf) = (65_536, 1 << 20),
        |t| {
            t.reach(State::Established);
            t.send("P. seq 51:61 ack 101 win 0");
            t.recv(". seq 101 ack 61");
            let mut written = 0;
            while let Ok(count) = t.try_write(100_000) {
                written += count as u64;
            }
            assert_eq!(t.try_write(1), Err(Error::WouldBlock));
            let usage = t.stack.usage();
            assert_eq!(usage.buffered, 10 + written);
            assert!((32_000..33_000).contains(&usage.held), "{usage:?}");
            let other = t.stack.connect(t.now, t.remote(), ConnectOptions::default()).unwrap();
            assert_eq!(t.stack.send(other, &[0; 2000]), Ok(2000));
            t.stack.abort(t.now, other).unwrap();
            t.send("P. seq 61:71 ack 101 win 0");
            t.recv(". seq 101 ack 71");
            t.read(20);
        },
    );
}

#[test]
fn the_send_buffer_is_bounded_on_both_sides_sa_est_30() {
    each_with(
        |c| c.tcp_sndbuf = 2000,
        |t| {
            t.reach(State::Established);
            t.send(". seq 51 ack 101 win 0");
            assert_eq!(t.try_write(1999), Ok(1999));
            assert_eq!(t.try_write(2), Ok(1));
            assert_eq!(t.try_write(1), Err(Error::WouldBlock));
            t.events(t.sock);
            t.send(". seq 51 ack 101 win 2000");
            assert_eq!(t.drain(), 2);
            t.send(". seq 51 ack 1101");
            assert_eq!(t.events(t.sock), Event::WRITABLE);
            assert_eq!(t.try_write(2000), Ok(1000));
            t.drain();
        },
    );
}

/// reply_queue on both sides: what does not fit is dropped and counted.
#[test]
fn stateless_answers_are_bounded_threat_5() {
    each_with(
        |c| c.reply_queue = 3,
        |t| {
            let packet = t.packet("S seq 0");
            for _ in 0..5 {
                t.stack.receive(t.now, &packet[..]);
            }
            assert_eq!(t.stack.usage().replies, 3);
            assert_eq!(t.drain(), 3);
            t.dropped(&[DropReason::ReplyQueueFull; 2]);
        },
    );
}

/// reply_queue_bytes on both sides: answers to pings are as long as the pings.
#[test]
fn stateless_answers_are_bounded_in_bytes_threat_5() {
    each_with(
        |c| c.reply_queue_bytes = 4096,
        |t| {
            let data = [7; 1400];
            let packet = t.icmp_packet(&Message::EchoRequest { ident: 1, sequence: 1, data: &data });
            // Two fit with what a place in the queue takes, three do not.
            for _ in 0..3 {
                t.stack.receive(t.now, &packet[..]);
            }
            assert_eq!(t.stack.usage().replies, 2);
            t.dropped(&[DropReason::ReplyQueueFull]);
            t.drain();
            assert_eq!(t.icmp.len(), 2);
            t.stack.receive(t.now, &packet[..]);
            assert_eq!(t.stack.usage().replies, 1, "what has left takes no room");
            t.drain();
            t.icmp.clear();
        },
    );
}

/// tcp_max_connections counts connections and openings (also SA-CLOSED-09).
#[test]
fn connections_are_bounded_sa_syn_rcvd_08() {
    each_with(
        |c| c.tcp_max_connections = 2,
        |t| {
            t.establish();
            t.peer(5000);
            t.establish();
            let other = std::net::SocketAddr::new(t.theirs(), 9);
            assert_eq!(t.stack.connect(t.now, other, ConnectOptions::default()), Err(Error::NoBufferSpace));
            t.abort();
            t.recv("R. seq 1 ack 1");
            let id = t.stack.connect(t.now, other, ConnectOptions::default()).unwrap();
            t.stack.close(t.now, id).unwrap();
        },
    );
}

pub fn fast_open_listener(t: &mut Test) {
    t.listen_with(ListenOptions { fast_open: true, ..ListenOptions::default() });
}

/// Asks for a cookie and resets; gives the cookie.
pub fn cookie(t: &mut Test) -> String {
    t.peer(7000);
    t.send("S seq 0 <sackOK, wscale 0, tfo>");
    let got = t.recv_any().unwrap();
    assert!(got.header.flags.syn() && got.header.ack.since(t.cur().iss) == 1);
    let cookie = got.header.options.fast_open.expect("a cookie");
    t.send("R seq 1");
    t.peer(4000);
    to_hex(cookie.as_bytes())
}

/// 7413-1, SA-LISTEN-06: the data is delivered before the third segment.
#[test]
fn a_valid_cookie_opens_fast_sa_listen_06() {
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::BOTH,
        |t| {
            fast_open_listener(t);
            let cookie = cookie(t);
            t.send(&format!("S seq 0:100 <sackOK, wscale 0, tfo {cookie}>"));
            t.recv("S. seq 0 ack 101 <mss 1460, sackOK, wscale 0>");
            t.accept();
            assert_eq!(t.state(), State::SynReceived);
            t.read(100);
            assert_eq!(t.read_end(), Err(Error::WouldBlock));
            t.write(50);
            t.wait(0);
            t.send(". seq 101 ack 1");
            assert_eq!(t.state(), State::Established);
            t.recv("P. seq 1:51 ack 101");
            assert_eq!(t.stack.counters().tcp_fast_open_passive, 1);
        },
    );
}

/// The SYN again: the SYN-ACK again, and the data once.
#[test]
fn a_fast_open_syn_again_is_acknowledged_again_sa_listen_06() {
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::BOTH,
        |t| {
            fast_open_listener(t);
            let cookie = cookie(t);
            let syn = format!("S seq 0:100 <sackOK, wscale 0, tfo {cookie}>");
            t.send(&syn);
            t.recv("S. seq 0 ack 101 <mss 1460, sackOK, wscale 0>");
            t.recv_after(1000, "S. seq 0 ack 101 <mss 1460, sackOK, wscale 0>");
            t.send("S seq 0 <sackOK, wscale 0>");
            t.recv("S. seq 0 ack 101 <mss 1460, sackOK, wscale 0>");
            t.accept();
            t.read(100);
            t.send("R seq 101");
            t.recv_nothing();
            assert_eq!(t.tuple_state(), State::Closed);
        },
    );
}

/// A wrong cookie gets the right one, and an ordinary handshake; with Fast Open off the option is ignored.
#[test]
fn a_wrong_cookie_means_an_ordinary_handshake_7413_1() {
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::SERVER,
        |t| {
            fast_open_listener(t);
            let cookie = cookie(t);
            t.send("S seq 0:100 <sackOK, wscale 0, tfo 0000000000000000>");
            t.recv(&format!("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0, tfo {cookie}>"));
            assert_eq!(t.stack.counters().tcp_fast_open_passive_fail, 1);
            assert_eq!(t.stack.usage().connections, 0);
        },
    );
    each(|t| {
        fast_open_listener(t);
        t.send("S seq 0:100 <sackOK, wscale 0, tfo>");
        t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
    });
}

/// 7413-2, THREAT-41: both sides of tcp_fastopen_pending.
#[test]
fn pending_fast_opens_are_bounded_7413_2() {
    each_with(
        |c| (c.tcp_fastopen, c.tcp_fastopen_pending) = (FastOpenMode::BOTH, 1),
        |t| {
            fast_open_listener(t);
            let cookie = cookie(t);
            let syn = format!("S seq 0:10 <sackOK, wscale 0, tfo {cookie}>");
            t.send(&syn);
            t.recv("S. seq 0 ack 11 <mss 1460, sackOK, wscale 0>");
            t.peer(5000);
            t.send(&syn);
            t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
            assert_eq!(t.stack.counters().tcp_fast_open_listen_overflow, 1);
            t.peer(4000);
            t.send(". seq 11 ack 1");
            t.peer(6000);
            t.send(&syn);
            t.recv("S. seq 0 ack 11 <mss 1460, sackOK, wscale 0>");
        },
    );
}

/// 7413-2: a SYN that is repeated for ever holds its place no longer than one that is not: 63 s. The application had
/// the connection and the peer the ACK of its request, so that it is told how it ends.
#[test]
fn a_repeated_syn_does_not_keep_a_pending_fast_open_7413_2() {
    let configure =
        |c: &mut steadfast_core::Config| (c.tcp_fastopen, c.tcp_fastopen_pending) = (FastOpenMode::BOTH, 1);
    each_with(configure, |t| {
        fast_open_listener(t);
        let cookie = cookie(t);
        let syn = format!("S seq 0:10 <sackOK, wscale 0, tfo {cookie}>");
        t.send(&syn);
        t.accept();
        t.drain();
        for _ in 0..69 {
            t.wait(900);
            t.send(&syn);
        }
        t.wait(899);
        t.drain();
        assert_eq!(t.state(), State::SynReceived);
        t.wait(1);
        t.recv("R. seq 1 ack 11");
        t.read(10);
        t.is_closed(Some(Error::TimedOut));
        // The place is free again.
        t.peer(5000);
        t.send(&syn);
        t.recv("S. seq 0 ack 11 <mss 1460, sackOK, wscale 0>");
    });
}

/// tcp_synack_timeout and the user timeout of the listener count for a pending Fast Open, too.
#[test]
fn a_pending_fast_open_ends_at_its_time_sa_syn_rcvd_19() {
    for (synack, user) in [(5, 0), (100, 0), (0, 5)] {
        each_with(
            |c| (c.tcp_fastopen, c.tcp_synack_timeout) = (FastOpenMode::BOTH, Duration::from_secs(synack)),
            |t| {
                fast_open_listener(t);
                let cookie = cookie(t);
                t.send(&format!("S seq 0:10 <sackOK, wscale 0, tfo {cookie}>"));
                t.accept();
                t.set_options(|o| o.user_timeout = Duration::from_secs(user));
                t.wait((synack + user) * 1000 - 1);
                t.drain();
                assert_eq!(t.state(), State::SynReceived);
                t.wait(1);
                t.recv("R. seq 1 ack 11");
                t.read(10);
                t.is_closed(Some(Error::TimedOut));
            },
        );
    }
}

pub fn fast_open_connect(t: &mut Test) {
    t.start_connect(ConnectOptions { fast_open: true, ..ConnectOptions::default() });
}

/// A connection from which the client has a cookie, and an MSS of 1000.
pub fn learn_cookie(t: &mut Test) {
    fast_open_connect(t);
    t.recv("S seq 0 <mss 1460, sackOK, wscale 0, tfo>");
    t.send("S. seq 0 ack 1 <mss 1000, sackOK, wscale 0, tfo 0102030405060708>");
    t.recv(". seq 1 ack 1");
    t.abort();
    t.recv("R. seq 1 ack 1");
    t.restart_peer(1000);
}

/// The client: asks for a cookie, and puts data on the next SYN (7413-1).
/// 9293-k: the SYN-ACK may acknowledge the SYN alone, or the data with it.
#[test]
fn a_client_uses_the_cookie_it_got_7413_1() {
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::CLIENT,
        |t| {
            learn_cookie(t);
            fast_open_connect(t);
            let data = crate::harness::pattern(0, 100);
            assert_eq!(t.stack.send(t.sock, &data), Ok(100));
            t.recv("S seq 0:100 <mss 1460, sackOK, wscale 0, tfo 0102030405060708>");
            // The server took it all.
            t.send("S. seq 0 ack 101 <mss 1000, sackOK, wscale 0>");
            t.recv(". seq 101 ack 1");
            assert_eq!(t.queued(), 0);
            assert_eq!(t.stack.counters().tcp_fast_open_active, 1);
            t.abort();
            t.recv("R. seq 101 ack 1");
            // The next one takes only the SYN: the data goes again.
            t.restart_peer(1000);
            fast_open_connect(t);
            assert_eq!(t.stack.send(t.sock, &data), Ok(100));
            t.recv("S seq 0:100 <mss 1460, sackOK, wscale 0, tfo 0102030405060708>");
            t.send("S. seq 0 ack 1 <mss 1000, sackOK, wscale 0>");
            t.recv("P. seq 1:101 ack 1");
            assert_eq!(t.stack.counters().tcp_fast_open_active_fail, 1);
        },
    );
}

/// 7413-3: the SYN again goes without data and option.
#[test]
fn a_fast_open_syn_again_is_an_ordinary_one_7413_3() {
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::CLIENT,
        |t| {
            fast_open_connect(t);
            t.recv("S seq 0 <mss 1460, sackOK, wscale 0, tfo>");
            t.recv_after(1000, "S seq 0 <mss 1460, sackOK, wscale 0>");
        },
    );
}

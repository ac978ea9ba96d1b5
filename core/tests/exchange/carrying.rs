//! Data: retransmission timeouts, acknowledgements, congestion windows, path MTU, IP fields (RFC 9293 §3.8, RFC 5681,
//! 6298, 5927).

use steadfast_core::config::{CongestionControl, MtuProbing};
use steadfast_core::trace::State;
use steadfast_core::wire::Ecn;
use steadfast_core::wire::icmp::ErrorKind;
use steadfast_core::wire::tcp::Flags;
use steadfast_core::{Config, ConnectOptions, Duration, Error, Event, ListenOptions, Shutdown};
use steadfast_testkit::packets;

use crate::harness::{PEER, PORT, Test, each, each_with};

/// Retransmissions keep their size.
fn no_probing(config: &mut Config) {
    config.tcp_mtu_probing = MtuProbing::Never;
}

/// 4821-2: two timeouts of a full segment, and the third is small enough for any path.
#[test]
fn a_black_hole_makes_segments_small_4821_2() {
    each_with(
        |c| c.tcp_base_mss = 536,
        |t| {
            t.reach(State::Established);
            t.write(3000);
            assert_eq!(t.drain(), 3);
            t.recv_after(200, ". seq 101:1101 ack 51");
            let base = if t.v6 { 1280 - 60 - if t.ts { 12 } else { 0 } } else { 536 };
            let end = 101 + base.min(1000);
            t.recv_after(400, ". seq 101:1101 ack 51");
            assert_eq!(t.stack.counters().mtu_black_holes, 0, "until R1 it may be congestion");
            t.recv_after(800, &format!(". seq 101:{end} ack 51"));
            assert_eq!(t.stack.counters().mtu_black_holes, 1);
            t.send(". seq 51 ack 3101");
            t.recv_nothing();
        },
    );
}

/// SA-EST-36, SA-CLOSE_WAIT-31 (6298-10): the first segment alone is sent again, each time after twice the time;
/// the application hears of R1 (SHLD-9, SHLD-10). SA-EST-37, SA-CLOSE_WAIT-32: R2 is 924.6 s.
#[test]
fn the_first_segment_is_sent_again_until_r2_sa_est_36() {
    for state in [State::Established, State::CloseWait] {
        each_with(no_probing, |t| {
            t.reach(state);
            t.write(1500);
            t.recv(&format!(". seq 101:1101 ack {}", t.rcv));
            t.recv(&format!("P. seq 1101:1601 ack {}", t.rcv));
            let (mut gap, mut elapsed) = (200, 0);
            for n in 1.. {
                if elapsed + gap >= 924_600 {
                    assert_eq!(n, 16, "fifteen retransmissions, as tcp_retries2");
                    break;
                }
                t.recv_after(gap, &format!(". seq 101:1101 ack {}", t.rcv));
                elapsed += gap;
                gap = (gap * 2).min(120_000);
                let events = t.events(t.sock);
                // R1 is a time: what three back-offs take, 3 s (SHLD-10).
                assert_eq!(events, if n == 4 { Event::SOFT_ERROR } else { Event::default() }, "R1");
            }
            t.wait(gap - 1);
            assert_eq!(t.state(), state);
            t.wait(1);
            t.nxt = 1601;
            t.recv_rst();
            t.is_closed(Some(Error::TimedOut));
            assert_eq!(t.stack.counters().r1_reached, 1);
        });
    }
}

/// The last segment keeps its PSH when it is sent again (MUST-61).
#[test]
fn the_last_segment_is_pushed_again_must_61() {
    each(|t| {
        t.reach(State::Established);
        t.write(10);
        t.recv("P. seq 101:111 ack 51");
        t.recv_after(200, "P. seq 101:111 ack 51");
    });
}

/// SA-EST-37 (MUST-21): R2 can be set, and be infinite.
#[test]
fn r2_can_be_set_sa_est_37() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|o| o.r2 = Some(Duration::from_secs(3)));
        t.write(10);
        t.wait(10_000);
        t.nxt = 111;
        while t.recv_any().is_some_and(|got| !got.header.flags.rst()) {}
        t.is_closed(Some(Error::TimedOut));
    });
    each(|t| {
        t.reach(State::Established);
        t.set_options(|o| o.r2 = None);
        t.write(10);
        t.wait(100_000_000);
        t.drain();
        assert_eq!(t.state(), State::Established);
        t.send(". seq 51 ack 111");
        t.recv_nothing();
        assert_eq!(t.queued(), 0);
    });
}

#[test]
fn the_last_soft_error_is_the_reason_given_sa_est_37() {
    each(|t| {
        t.reach(State::Established);
        t.set_options(|o| o.user_timeout = Duration::from_secs(2));
        t.write(10);
        t.icmp_error(ErrorKind::PortUnreachable, 101);
        t.icmp_error(ErrorKind::HostUnreachable, 101);
        t.wait(1999);
        assert_eq!(t.state(), State::Established);
        t.wait(1);
        t.nxt = 111;
        t.recv_rst_any();
        t.is_closed(Some(Error::HostUnreachable));
    });
}

/// 6298-2, 6298-3.
/// 6298-7: each round trip gives its sample.
#[test]
fn the_rto_follows_the_samples_6298_2() {
    each(|t| {
        // The handshake is the first sample, 100 ms.
        t.establish_after(100);
        let rto = |t: &Test| t.stack.info(t.now, t.sock).unwrap().rto.as_micros();
        // SRTT = 100, RTTVAR = 50.
        assert_eq!(rto(t), 300_000);
        t.write(10);
        t.recv("P. seq 1:11 ack 1");
        t.wait(200);
        t.send(". seq 1 ack 11");
        // RTTVAR = 3/4 · 50 + 1/4 · 100 = 62.5; SRTT = 7/8 · 100 + 1/8 · 200 = 112.5.
        assert_eq!(rto(t), 362_500);
        t.write(10);
        t.recv("P. seq 11:21 ack 1");
        t.recv_after(363, "P. seq 11:21 ack 1");
    });
}

/// 6298-6: a segment sent twice gives no sample where the ACK does not tell which copy it answers. The back-off stays
/// (MUST-18), and what it counted is over.
/// 8961-1.
#[test]
fn an_ambiguous_ack_is_no_sample_6298_6() {
    each(|t| {
        t.reach(State::Established);
        let before = t.stack.info(t.now, t.sock).unwrap();
        t.write(10);
        t.recv("P. seq 101:111 ack 51");
        t.wait(200);
        t.wait(399);
        t.send(". seq 51 ack 111");
        t.drain();
        let after = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!(after.rtt, before.rtt);
        assert_eq!((after.backoff, after.retransmits, after.unacked), (1, 0, 0));
        t.wait(10_000);
        t.recv_nothing();
    });
}

/// SHLD-18, SHLD-19, MUST-40.
#[test]
fn acks_are_delayed_shld_18() {
    for delay in [40, 499] {
        each_with(
            |c| (c.tcp_quickack, c.tcp_delack) = (0, Duration::from_millis(delay)),
            |t| {
                t.establish();
                t.send("P. seq 1:1001 ack 1");
                t.recv_after(delay, ". seq 1 ack 1001");
                // Every second full segment.
                t.send("P. seq 1001:2001 ack 1");
                t.recv_nothing();
                t.send("P. seq 2001:3001 ack 1");
                t.recv(". seq 1 ack 3001");
                // Small ones wait; data takes the ACK along.
                t.send("P. seq 3001:3002 ack 1");
                t.recv_nothing();
                t.write(5);
                t.recv("P. seq 1:6 ack 3002");
                t.send(". seq 3002 ack 6");
                t.wait(1000);
                t.recv_nothing();
            },
        );
    }
}

#[test]
fn the_first_segments_are_acknowledged_at_once() {
    each_with(
        |c| c.tcp_quickack = 2,
        |t| {
            t.establish();
            t.send("P. seq 1:11 ack 1");
            t.recv(". seq 1 ack 11");
            t.send("P. seq 11:21 ack 1");
            t.recv(". seq 1 ack 21");
            t.send("P. seq 21:31 ack 1");
            t.recv_after(40, ". seq 1 ack 31");
        },
    );
}

/// MUST-58, MUST-59, 5681-13: what arrives together is answered together.
#[test]
fn segments_that_arrive_together_get_one_ack_must_58() {
    each(|t| {
        t.establish();
        let packets: Vec<_> =
            (0..5).map(|n| t.packet(&format!("P. seq {}:{} ack 1", 1 + n * 100, 101 + n * 100))).collect();
        for packet in packets {
            t.stack.receive(t.now, &packet[..]);
        }
        t.recv(". seq 1 ack 501");
        t.recv_nothing();
        t.read(500);
    });
}

/// 6928-1, 5681-1, 5681-2: ten segments, then two for each that is acknowledged.
#[test]
fn slow_start_begins_with_ten_segments_6928_1() {
    each(|t| {
        t.establish();
        t.write(40_000);
        for n in 0..10 {
            t.recv(&format!(". seq {}:{} ack 1", 1 + n * 1000, 1001 + n * 1000));
        }
        t.recv_nothing();
        t.send(". seq 1 ack 2001");
        assert_eq!(t.drain(), 4);
        // ACK division earns nothing (THREAT-44).
        for n in 1..=10 {
            t.send(&format!(". seq 1 ack {}", 2001 + n * 100));
        }
        assert!(t.drain() <= 2);
    });
}

/// 5681-12: after an idle time the window is the initial one again, whatever controls congestion.
#[test]
fn idle_time_brings_the_initial_window_back_5681_12() {
    let test = |t: &mut Test| {
        t.establish();
        t.write(20_000);
        t.drain();
        t.send(". seq 1 ack 10001");
        t.drain();
        t.send(". seq 1 ack 20001");
        t.recv_nothing();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_cwnd, 20_000);
        t.wait(1000);
        t.write(15_000);
        assert_eq!(t.drain(), 10);
    };
    for &control in CongestionControl::ALL {
        each_with(|c| c.tcp_congestion_control = control, test);
    }
}

/// 4821-3: when a larger MTU is found the window stays what it was in bytes.
#[test]
fn a_larger_mtu_does_not_raise_the_window_4821_3() {
    each_with(
        |c| (c.tcp_base_mss, c.tcp_probe_interval) = (536, Duration::from_secs(1)),
        |t| {
            t.listen();
            t.send("S seq 0 <mss 1460, sackOK, wscale 0>");
            t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
            t.send(". seq 1 ack 1");
            t.accept();
            let acked = |t: &mut Test, len: u32| {
                t.write(len);
                let mut sizes = Vec::new();
                while t.queued() > 0 {
                    let got: Vec<_> = std::iter::from_fn(|| t.recv_any()).collect();
                    let last = got.last().expect("a segment");
                    let to = last.header.seq.since(t.cur().irs.unwrap()) + last.payload.len() as u32;
                    sizes.extend(got.iter().map(|got| got.payload.len()));
                    t.send(&format!(". seq 1 ack {to}"));
                }
                sizes
            };
            // A black hole makes segments small.
            t.write(1400);
            while t.stack.counters().mtu_black_holes == 0 {
                t.wait(100);
            }
            t.drain();
            t.send(". seq 1 ack 1401");
            while t.stack.info(t.now, t.sock).unwrap().snd_cwnd < 30_000 {
                acked(t, 60_000);
            }
            let before = t.stack.info(t.now, t.sock).unwrap();
            // Later a larger size is tried, in a window that is not used up.
            t.wait(1000);
            let sizes = acked(t, 10_000);
            let after = t.stack.info(t.now, t.sock).unwrap();
            assert!(sizes.iter().any(|size| *size > usize::from(before.snd_mss)), "{sizes:?}");
            assert!(after.snd_mss > before.snd_mss);
            assert!(after.snd_cwnd <= before.snd_cwnd, "{} to {}", before.snd_cwnd, after.snd_cwnd);
        },
    );
}

/// 5927-4, 1191-1, 8201-2 (SA-EST-28): nothing of that size got through yet, so that it is believed at once.
/// 7323-16: path MTU discovery works beside timestamps. 8200-2: whatever the path takes, nothing is fragmented.
#[test]
fn packet_too_big_is_believed_at_first_sa_est_28() {
    each(|t| {
        t.listen();
        t.send("S seq 0 <mss 1460, sackOK, wscale 0>");
        t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
        t.send(". seq 1 ack 1");
        t.accept();
        t.write(1400);
        let first = t.recv_any().unwrap().payload.len() as u32;
        t.drain();
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1300 }, 1);
        let headers = if t.v6 { 60 } else { 40 } + if t.ts { 12 } else { 0 };
        let size = 1300 - headers;
        assert!(size < first);
        t.recv(&format!(". seq 1:{} ack 1", 1 + size));
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.pmtu, info.snd_cwnd), (1300, 10 * first_mss(t)), "no sign of congestion (8201-2)");
        // It never raises.
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1400 }, 1);
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().pmtu, 1300);
        t.drain();
    });
}

fn first_mss(t: &Test) -> u32 {
    1460 - if t.ts { 12 } else { 0 }
}

/// Opens a connection, and lets a segment of the first MSS get through. Returns its length.
fn prove_first_mss(t: &mut Test) -> u32 {
    t.listen();
    t.send("S seq 0 <mss 1460, sackOK, wscale 0>");
    t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
    t.send(". seq 1 ack 1");
    t.accept();
    let mss = first_mss(t);
    t.write(mss);
    t.recv(&format!("P. seq 1:{} ack 1", 1 + mss));
    t.send(&format!(". seq 1 ack {}", 1 + mss));
    mss
}

/// 5927-4, THREAT-31: what got through before does not become too big at a word; only when it is lost as well.
#[test]
fn packet_too_big_about_a_proven_size_waits_for_the_loss_5927_4() {
    each(|t| {
        let mss = prove_first_mss(t);
        t.write(mss);
        t.recv(&format!("P. seq {}:{} ack 1", 1 + mss, 1 + 2 * mss));
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1300 }, 1 + mss);
        t.recv_nothing();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().pmtu, if t.v6 { 1520 } else { 1500 });
        assert_eq!(t.stack.usage().path_mtus, 0);
        let headers = if t.v6 { 60 } else { 40 } + if t.ts { 12 } else { 0 };
        t.recv_after(200, &format!(". seq {}:{} ack 1", 1 + mss, 1 + mss + 1300 - headers));
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().pmtu, 1300);
        t.drain();
    });
}

/// 5927-4: the ACK of an earlier segment does not take the report back. The segment that it is about leaves in pieces after
/// its first timeout, and not after a second one.
#[test]
fn packet_too_big_is_remembered_until_its_segment_is_acknowledged_5927_4() {
    each(|t| {
        let mss = prove_first_mss(t);
        t.write(2 * mss);
        t.recv(&format!(". seq {}:{} ack 1", 1 + mss, 1 + 2 * mss));
        t.recv(&format!("P. seq {}:{} ack 1", 1 + 2 * mss, 1 + 3 * mss));
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1300 }, 1 + 2 * mss);
        t.send(&format!(". seq 1 ack {}", 1 + 2 * mss));
        t.recv_nothing();
        while t.stack.info(t.now, t.sock).unwrap().pmtu > 1300 {
            t.wait(1);
            let sent = t.recv_any().map_or(0, |sent| sent.payload.len() as u32);
            assert!(sent < mss, "the whole segment again");
        }
        t.drain();
    });
}

/// 1191-1, 8201-1: the floors.
/// 8200-2: 1280 with IPv6.
#[test]
fn the_path_mtu_has_a_floor_8201_1() {
    each(|t| {
        t.establish();
        t.write(1000);
        t.recv("P. seq 1:1001 ack 1");
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 68 }, 1);
        let pmtu = t.stack.info(t.now, t.sock).unwrap().pmtu;
        assert_eq!(pmtu, if t.v6 { 1520 } else { 552 });
        t.drain();
    });
}

/// MUST-55, 6633-1.
#[test]
fn source_quench_is_ignored_must_55() {
    each(|t| {
        if t.v6 {
            return;
        }
        t.establish();
        t.write(10_000);
        t.drain();
        let before = t.stack.info(t.now, t.sock).unwrap();
        let mut body = vec![4, 0, 0, 0, 0, 0, 0, 0];
        body.extend_from_slice(&t.packet(". seq 1 ack 1")[..28]);
        let mut sum = steadfast_core::wire::checksum::Sum::new();
        sum.add_bytes(&body);
        body[2..4].copy_from_slice(&sum.finish().to_be_bytes());
        let packet = packets::ip(t.theirs(), t.ours(), 1, &body);
        t.stack.receive(t.now, &packet[..]);
        t.recv_nothing();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap(), before);
    });
}

/// 3168-1 to 3168-4, 3168-7.
#[test]
fn ecn_marks_and_echoes_3168_4() {
    each(|t| {
        t.listen();
        t.send("SEW seq 0 <sackOK, wscale 0>");
        let got = t.recv("SE. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
        assert_eq!(got.ecn, Ecn::NotEct);
        t.send(". seq 1 ack 1");
        t.accept();
        assert!(t.stack.info(t.now, t.sock).unwrap().ecn);
        // A mark is echoed until CWR.
        t.send("P. seq 1:11 ack 1 [ce]");
        let got = t.recv("E. seq 1 ack 11");
        assert_eq!(got.ecn, Ecn::NotEct, "a bare ACK is not ECT (3168-2)");
        t.send("P. seq 11:21 ack 1");
        t.recv("E. seq 1 ack 21");
        t.send("PW. seq 21:31 ack 1");
        t.recv(". seq 1 ack 31");
        // Outside of the window a mark means nothing.
        t.send("P. seq 1:11 ack 1 [ce]");
        t.recv(". seq 1 ack 31 <sack 1:11>");
        // Data is ECT; an echo halves once in a window, and CWR goes with the next new data.
        t.write(5000);
        let got = t.recv_any().unwrap();
        assert_eq!((got.ecn, got.header.flags.contains(Flags::CWR)), (Ecn::Ect0, false));
        t.drain();
        let before = t.stack.info(t.now, t.sock).unwrap().snd_cwnd;
        t.send("E. seq 31 ack 1001");
        t.send("E. seq 31 ack 2001");
        let after = t.stack.info(t.now, t.sock).unwrap();
        assert!(after.snd_ssthresh < before && after.total_retrans == 0);
        assert_eq!(after.snd_ssthresh, 4250, "once: 0.85 of the flight of 5000 (8511-1)");
        t.send(". seq 31 ack 5001");
        t.write(2000);
        let flags: Vec<_> = std::iter::from_fn(|| t.recv_any()).map(|got| got.header.flags.cwr()).collect();
        assert_eq!(flags.iter().filter(|cwr| **cwr).count(), 1, "{flags:?}");
    });
}

/// TTL and DSCP as the application sets them (MUST-48, MUST-49), at any time (SHLD-21).
#[test]
fn the_ip_fields_are_the_applications_must_49() {
    each(|t| {
        let mut socket = steadfast_core::SocketOptions::new(t.stack.config());
        (socket.ttl, socket.dscp) = (7, 46);
        t.listen_with(ListenOptions { socket: Some(socket), ..ListenOptions::default() });
        t.establish();
        t.write(1);
        let got = t.recv("P. seq 1:2 ack 1");
        assert_eq!((got.ttl, got.dscp), (7, 46));
        t.send(". seq 1 ack 2");
        t.set_options(|o| (o.ttl, o.dscp) = (8, 10));
        t.write(1);
        let got = t.recv("P. seq 2:3 ack 1");
        assert_eq!((got.ttl, got.dscp), (8, 10));
    });
}

/// MUST-49: what the stack sends for a socket without its control block has the socket's TTL and DSCP too: SYN-ACKs,
/// the ACK of a half-open connection, the last ACK, resets. A peer that holds the TTL against 255 (RFC 5082) sees no
/// other.
#[test]
fn what_is_sent_for_a_socket_has_its_ttl_and_dscp_must_49() {
    each(|t| {
        let mut socket = steadfast_core::SocketOptions::new(t.stack.config());
        (socket.ttl, socket.dscp) = (255, 46);
        t.listen_with(ListenOptions { socket: Some(socket), ..ListenOptions::default() });
        let ip = |got: crate::harness::Got| (got.ttl, got.dscp);
        t.send("S seq 0 <sackOK, wscale 0>");
        assert_eq!(ip(t.recv_any().expect("a SYN-ACK")), (255, 46));
        t.send("S seq 0 <sackOK, wscale 0>");
        assert_eq!(ip(t.recv_any().expect("the SYN-ACK again")), (255, 46));
        t.wait(1000);
        assert_eq!(ip(t.recv_any().expect("the SYN-ACK of the timer")), (255, 46));
        t.wait(500);
        t.send(". seq 500000 ack 1");
        assert_eq!(ip(t.recv_any().expect("an ACK of the half-open connection")), (255, 46));
        t.send(". seq 1 ack 7");
        assert_eq!(ip(t.recv_any().expect("a RST to an ACK of nothing")), (255, 46));
        t.send(". seq 1 ack 1");
        t.accept();
        t.shutdown(Shutdown::Write);
        t.recv("F. seq 1 ack 1");
        t.send("F. seq 1 ack 2");
        assert_eq!(ip(t.recv_any().expect("the last ACK")), (255, 46));
        t.close();

        t.peer(PEER + 1);
        t.establish();
        t.abort();
        assert_eq!(ip(t.recv_any().expect("a RST")), (255, 46));

        let mut socket = steadfast_core::SocketOptions::new(t.stack.config());
        (socket.ttl, socket.dscp) = (255, 46);
        t.peer(PEER + 2);
        t.port = PORT + 1;
        t.connect_with(ConnectOptions {
            socket: Some(socket),
            local_port: Some(PORT + 1),
            ..Default::default()
        });
        t.send(". seq 9 ack 7");
        assert_eq!(ip(t.recv_any().expect("a RST to an ACK of no SYN")), (255, 46));
        t.abort();
        t.port = PORT;
    });
}

/// Out-of-order data never takes more than the buffer, overhead included.
#[test]
fn bytes_out_of_order_are_bounded_threat_13() {
    each(|t| {
        t.establish();
        for n in 0..200 {
            t.send(&format!("P. seq {}:{} ack 1", 3 + n * 40, 4 + n * 40));
        }
        t.drain();
        let usage = t.stack.usage();
        assert!(usage.buffered <= 10_000, "{}", usage.buffered);
        assert!(t.stack.counters().tcp_ofo_drop > 0);
    });
}

#[test]
fn a_window_that_opens_is_told_sa_est_31() {
    each(|t| {
        t.reach(State::Established);
        while t.rcv < t.cur().edge {
            let end = (t.rcv + 1000).min(t.cur().edge);
            t.send(&format!(". seq {}:{end} ack 101", t.rcv));
            t.rcv = end;
            t.drain();
        }
        let unread = t.stack.info(t.now, t.sock).unwrap().recv_q as u32;
        t.send(&format!("P. seq {}:{} ack 101", t.rcv, t.rcv + 1000));
        t.recv(&format!(". seq 101 ack {} win 0", t.rcv));
        t.read(unread);
        t.recv(&format!(". seq 101 ack {} win 10000", t.rcv));
        let counters = t.stack.counters();
        assert_eq!((counters.tcp_to_zero_window_adv, counters.tcp_from_zero_window_adv), (1, 1));
    });
}

/// A quantum leaves in parts as ACKs make room, whether or not the application writes again (DRILL-X02).
#[test]
fn each_ack_lets_a_part_of_a_quantum_out_drill_x02() {
    each_with(
        |c| c.tcp_gso_quanta = true,
        |t| {
            t.reach(State::Established);
            let written = t.stack.send(t.sock, &[7; 60_000]).unwrap();
            assert!(written >= 20_000, "more than the initial window");
            let mut left = 0;
            while left < written / 1000 {
                let count = t.drain();
                assert!(count > 0, "{left} segments have left");
                left += count;
                t.send(&format!(". seq 51 ack {}", 101 + 1000 * left));
            }
        },
    );
}

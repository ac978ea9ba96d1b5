//! Windows, and what is put into segments (RFC 9293 §3.8.6, §3.9.1.2, RFC 7323 §2).

use steadfast_core::Duration;
use steadfast_core::trace::State;

use crate::harness::{FULL, Test, each, each_with};

/// MUST-1, REC-1: a window field above 32767 is no negative number, and a scaled window is no 16-bit one.
#[test]
fn windows_are_unsigned_and_have_32_bits_must_1_rec_1() {
    let generous = |c: &mut steadfast_core::Config| (c.tcp_init_cwnd, c.tcp_sndbuf) = (100, 1 << 20);
    each_with(generous, |t| {
        t.listen();
        t.send("S seq 0 win 40000");
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.send(". seq 1 ack 1 win 40000");
        t.accept();
        t.write(100_000);
        assert_eq!(t.drain(), 40);
    });
    each_with(generous, |t| {
        t.listen();
        t.send("S seq 0 <wscale 14>");
        t.recv("S. seq 0 ack 1 <mss 1460, wscale 0>");
        t.send(". seq 1 ack 1 win 65535");
        t.accept();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_wnd, 65_535 << 14);
        t.write(100_000);
        assert_eq!(t.drain(), 100);
    });
}

/// SHLD-14, 9293-h: unread bytes do not move the right edge back, save by the rounding of a scaled field where nothing
/// more is free (RFC 7323 §2.4). 7323-15: what was promised once is taken.
#[test]
fn the_right_edge_never_moves_back_shld_14_9293_h() {
    each_with(
        |c| (c.tcp_rcvbuf, c.tcp_quickack) = (1 << 20, 255),
        |t| {
            t.listen();
            t.send("S seq 0 <sackOK, wscale 0>");
            t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 5>");
            t.send(". seq 1 ack 1");
            t.accept();
            t.send("P. seq 1:2 ack 1");
            t.recv(". seq 1 ack 2");
            for at in 2..100 {
                t.send(&format!("P. seq {at}:{} ack 1", at + 1));
                t.recv(&format!(". seq 1 ack {}", at + 1));
                let (edge, told) = (t.cur().edge, t.cur().told);
                assert!(told + 32 > edge && edge <= 1 + (1 << 20), "{edge} became {told}");
            }
            let edge = t.cur().edge;
            t.send(&format!("P. seq {}:{edge} ack 1", edge - 1));
            t.recv(&format!(". seq 1 ack 100 <sack {}:{edge}>", edge - 1));
        },
    );
}

/// A reader that does not read, and a writer of small segments: no ACK promises what the buffer has no room for,
/// whatever the window is rounded to. Then the window opens again.
#[test]
fn an_unread_buffer_is_not_promised_twice_shld_14() {
    // The unit is a part of the buffer, just as much, and more.
    for (buffer, largest, unit) in
        [(65_536, 2_000_000, 32), (8192, 500_000_000, 8192), (3000, 1 << 30, 16_384)]
    {
        each_with(
            |c| (c.tcp_rcvbuf, c.tcp_rcvbuf_max, c.tcp_delack) = (buffer, largest, Duration::ZERO),
            |t| {
                t.listen();
                t.send("S seq 0 <sackOK, wscale 0>");
                t.recv_any().unwrap();
                t.send(". seq 1 ack 1");
                t.accept();
                let mut rcv = 1;
                for at in 0..20_000 {
                    t.send(&format!("P. seq {rcv}:{} ack 1", rcv + 16));
                    let ack = t.recv_any().expect("an ACK").header.ack.since(t.cur().iss);
                    if ack == rcv {
                        break;
                    }
                    rcv = ack;
                    let promised = t.cur().edge - 1;
                    assert!(promised <= buffer + unit, "{promised} bytes are promised after {at} segments");
                }
                let unread = rcv - 1;
                assert!(unread <= buffer + unit && unread + 16 > buffer.min(t.cur().edge - 1), "{unread}");
                t.drain();
                assert_eq!(t.stack.counters().tcp_to_zero_window_adv, 1);
                t.read(unread);
                let window = t.recv_any().expect("a window update").header.window;
                assert_eq!(u32::from(window), (buffer / unit).max(1));
                t.send(&format!("P. seq {rcv}:{} ack 1", rcv + 16));
                t.recv_any().expect("an ACK");
                t.read(16);
            },
        );
    }
}

/// SHLD-16: what lies inside of a window that shrank is sent again as ever.
#[test]
fn old_data_inside_a_shrunk_window_is_sent_again_shld_16() {
    each(|t| {
        t.reach(State::Established);
        t.write(3000);
        assert_eq!(t.drain(), 3);
        t.send(". seq 51 ack 101 win 1500");
        t.recv_after(200, ". seq 101:1101 ack 51");
        t.recv_nothing();
        t.recv_after(400, ". seq 101:1101 ack 51");
    });
}

/// SHLD-27: several writes become one segment, with one PSH at its end.
#[test]
fn successive_pushes_collapse_shld_27() {
    each(|t| {
        t.reach(State::Established);
        t.send(". seq 51 ack 101 win 0");
        for _ in 0..3 {
            t.write(400);
        }
        t.recv_nothing();
        t.send(". seq 51 ack 101 win 5000");
        t.recv(". seq 101:1101 ack 51");
        t.send(". seq 51 ack 1101 win 5000");
        t.recv("P. seq 1101:1301 ack 51");
    });
}

/// 9293-i: a segment from before SND.WL1, or an ACK from before SND.WL2, says nothing of the window.
#[test]
fn an_older_segment_does_not_change_the_window_9293_i() {
    let window = |t: &Test| t.stack.info(t.now, t.sock).unwrap().snd_wnd;
    each(|t| {
        t.reach(State::Established);
        t.write(100);
        t.recv("P. seq 101:201 ack 51");
        t.send("P. seq 51:61 ack 201 win 5000");
        t.recv(". seq 201 ack 61");
        assert_eq!(window(t), 5000);
        // It begins before WL1 = 51, and brings new text all the same.
        t.send("P. seq 41:71 ack 201 win 7");
        t.recv_any().expect("an ACK");
        assert_eq!((window(t), t.stack.info(t.now, t.sock).unwrap().bytes_received), (5000, 70));
        t.send(". seq 71 ack 150 win 7");
        assert_eq!(window(t), 5000);
        t.send(". seq 71 ack 201 win 7");
        assert_eq!(window(t), 7);
    });
}

/// 6429-1: a peer that answers every probe with a closed window lives for ever, until the application decides.
#[test]
fn the_application_may_end_a_connection_that_is_probed_6429_1() {
    each(|t| {
        t.reach(State::Established);
        t.send(". seq 51 ack 101 win 0");
        t.write(100);
        for _ in 0..100 {
            t.wait(60_000);
            if t.drain() > 0 {
                t.send(". seq 51 ack 101 win 0");
            }
        }
        assert_eq!(t.state(), State::Established);
        t.abort();
        t.recv("R. seq 101 ack 51");
        assert_eq!((t.tuple_state(), t.stack.usage().timers), (State::Closed, 0));
    });
}

/// Also in our own SYN, and never smaller than the buffer of the connection itself needs.
#[test]
fn the_scale_is_chosen_for_what_the_window_may_grow_to_7323_3() {
    for (largest, shift) in [(0, 0), (65_535, 0), (65_536, 1), (6 << 20, 7), (1 << 30, 14)] {
        let grown = |c: &mut steadfast_core::Config| c.tcp_rcvbuf_max = largest;
        each_with(grown, |t| {
            t.listen();
            t.send("S seq 0 <sackOK, wscale 0>");
            t.recv(&format!("S. seq 0 ack 1 <mss 1460, sackOK, wscale {shift}>"));
        });
        each_with(grown, |t| {
            t.start_connect(steadfast_core::ConnectOptions::default());
            t.recv(&format!("S seq 0 <mss 1460, sackOK, wscale {shift}>"));
        });
    }
    each_with(
        |c| (c.tcp_rcvbuf, c.tcp_rcvbuf_max) = (131_072, 65_536),
        |t| {
            t.listen();
            t.send("S seq 0 <sackOK, wscale 0>");
            t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 2>");
        },
    );
}

/// MUST-34: the peer took back a part of its window while data was out. An ACK of ours has the number of its right
/// edge, since the peer need not accept one beyond it.
#[test]
fn an_ack_stays_inside_a_window_that_was_taken_back_must_34() {
    each(|t| {
        t.establish();
        t.write(5 * FULL);
        assert_eq!(t.drain(), 5);
        t.send(". seq 1 ack 1001 win 2000");
        t.recv_nothing();
        t.send("P. seq 1:101 ack 1001 win 2000");
        t.recv(". seq 3001 ack 101");
        // To the byte: an edge at SND.NXT was not taken back.
        t.send("P. seq 101:201 ack 1001 win 4000");
        t.recv(". seq 5001 ack 201");
        t.send("P. seq 201:301 ack 1001 win 3999");
        t.recv(". seq 5000 ack 301");
        t.send(". seq 301 ack 5001");
    });
}

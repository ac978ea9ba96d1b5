//! Data beyond a gap: how it is held, reported and dropped, also where `tcp_mem` is used up.

use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;
use steadfast_core::{Duration, Error, Event, Shutdown};

use crate::harness::{PEER, Test, each, each_with};

fn out_of_order(t: &Test) -> u64 {
    t.stack.info(t.now, t.sock).unwrap().out_of_order
}

/// A connection with a window of a mebibyte.
fn establish_large(t: &mut Test) {
    t.listen();
    t.send("S seq 0 <sackOK, wscale 0>");
    t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 5>");
    t.send(". seq 1 ack 1");
    t.accept();
    t.send("P. seq 1:2 ack 1");
    t.recv_any().expect("an ACK that opens the window");
    t.read(1);
}

/// A queue on the way that lost every second of 2000 segments: all that arrived is held, in a thousand ranges.
#[test]
fn a_thousand_ranges_are_held_threat_13() {
    each_with(
        |c| (c.tcp_rcvbuf, c.tcp_delack) = (1 << 20, Duration::ZERO),
        |t| {
            establish_large(t);
            for i in 0..1000 {
                t.send(&format!(". seq {}:{} ack 1", 102 + i * 200, 202 + i * 200));
            }
            assert_eq!(t.drain(), 1000, "each is answered (5681-8)");
            t.dropped(&[]);
            assert_eq!((out_of_order(t), t.stack.counters().tcp_ofo_queue), (100_000, 1000));
            for i in 0..1000 {
                t.send(&format!(". seq {}:{} ack 1", 2 + i * 200, 102 + i * 200));
                t.recv(&format!(". seq 1 ack {}{}", 202 + i * 200, blocks_after(t, i)));
            }
            t.read(200_000);
            assert_eq!((out_of_order(t), t.stack.usage().buffered), (0, 0));
        },
    );
}

/// Data that a SACK block reported is kept while there is memory (RFC 2018 §8), however long the path is down.
/// Keepalive detects a peer that is gone.
#[test]
fn text_behind_a_gap_waits_as_long_as_its_connection_threat_13() {
    for keepalive in [false, true] {
        each(|t| {
            t.establish();
            let options = t.stack.options(t.sock).unwrap().clone().with(|o| o.keepalive = keepalive);
            t.stack.set_options(t.now, t.sock, options).unwrap();
            t.send("P. seq 101:201 ack 1");
            t.drain();
            let config = t.stack.config();
            let silence =
                config.tcp_keepalive_time + config.tcp_keepalive_intvl * config.tcp_keepalive_probes.into();
            t.wait(silence.as_millis() as u64 - 1);
            assert_eq!(out_of_order(t), 100);
            t.wait(1);
            t.drain();
            if keepalive {
                assert_eq!((t.stack.usage().held, t.tuple_state()), (0, State::Closed));
            } else {
                t.send("P. seq 1:101 ack 1");
                t.drain();
                t.read(200);
            }
        });
    }
}

/// The blocks that are still told when the i-th gap is filled: the four ranges that came last, or three beside
/// timestamps.
fn blocks_after(t: &Test, i: u32) -> String {
    let first = if t.ts { 997 } else { 996 };
    let blocks = (first.max(i + 1)..1000).rev().map(|r| format!("{}:{}", 102 + r * 200, 202 + r * 200));
    let blocks: Vec<_> = blocks.collect();
    if blocks.is_empty() { String::new() } else { format!(" <sack {}>", blocks.join(" ")) }
}

/// RFC 2018 §3: a FIN is a number that was received. It does not come again for want of a block.
#[test]
fn a_fin_behind_a_gap_is_in_the_block_2018_2() {
    each(|t| {
        t.establish();
        t.send("FP. seq 11:21 ack 1");
        t.recv(". seq 1 ack 1 <sack 11:22>");
        t.send("P. seq 1:11 ack 1");
        t.recv(". seq 1 ack 22");
        assert_eq!(t.state(), State::CloseWait);
        t.read(20);
    });
    each(|t| {
        t.establish();
        t.send("F. seq 21 ack 1");
        t.recv(". seq 1 ack 1 <sack 21:22>");
        t.send("P. seq 11:21 ack 1");
        t.recv(". seq 1 ack 1 <sack 11:22>");
        assert_eq!((t.state(), out_of_order(t)), (State::Established, 10));
        t.send("P. seq 1:11 ack 1");
        t.recv(". seq 1 ack 22");
        assert_eq!(t.state(), State::CloseWait);
        t.read(20);
        assert_eq!(t.stack.usage().buffered, 0);
    });
    // Nothing but a FIN waits, and the text before it comes in order.
    each(|t| {
        t.establish();
        t.send("F. seq 21 ack 1");
        t.drain();
        t.send("P. seq 1:21 ack 1");
        t.recv(". seq 1 ack 22");
        assert_eq!(t.state(), State::CloseWait);
        t.read(20);
    });
}

/// A FIN where text was held already comes from a peer that contradicts itself: what came first counts (THREAT-50).
#[test]
fn a_fin_before_text_that_waits_is_none_threat_50() {
    each(|t| {
        t.establish();
        t.send("P. seq 11:21 ack 1");
        t.recv(". seq 1 ack 1 <sack 11:21>");
        t.send("F. seq 15 ack 1");
        t.recv(". seq 1 ack 1 <sack 11:21>");
        t.send("P. seq 1:11 ack 1");
        t.recv(". seq 1 ack 21");
        assert_eq!(t.state(), State::Established);
        t.send("F. seq 21 ack 1");
        t.recv(". seq 1 ack 22");
        assert_eq!(t.state(), State::CloseWait);
        t.read(20);
    });
}

/// Nobody will read it: an orphan and a connection whose reading was shut down hold nothing that waits for a gap.
#[test]
fn what_nobody_will_read_is_not_held_sa_est_25() {
    for close in [true, false] {
        each(|t| {
            t.establish();
            t.send("P. seq 11:21 ack 1");
            t.recv(". seq 1 ack 1 <sack 11:21>");
            assert!(t.stack.usage().buffered >= 10);
            if close {
                t.close();
                t.recv("F. seq 1 ack 1");
                assert_eq!(t.stack.usage().buffered, 0);
                return;
            }
            t.shutdown(Shutdown::Read);
            assert_eq!(t.stack.usage().buffered, 0);
            t.send("P. seq 31:41 ack 1");
            t.recv(". seq 1 ack 1");
            t.dropped(&[DropReason::DataAfterShutdown]);
            t.send("F. seq 41 ack 1");
            t.recv(". seq 1 ack 1");
            assert_eq!(t.stack.usage().buffered, 0);
            // The stream goes on all the same, and ends.
            t.send("P. seq 1:41 ack 1");
            t.recv(". seq 1 ack 42");
            assert_eq!(t.state(), State::CloseWait);
        });
    }
}

/// One segment over very many ranges fills some of the gaps. The rest comes again, and nothing is lost (THREAT-14).
#[test]
fn one_segment_over_many_ranges_is_taken_in_parts_threat_14() {
    each_with(
        |c| (c.tcp_rcvbuf, c.tcp_delack) = (1 << 20, Duration::ZERO),
        |t| {
            establish_large(t);
            for i in 0..500 {
                t.send(&format!(". seq {}:{} ack 1", 4 + i * 2, 5 + i * 2));
            }
            t.drain();
            let mut rcv = 2;
            let mut rounds = 0;
            while rcv < 1004 {
                t.send(&format!(". seq {rcv}:1004 ack 1"));
                let ack = t.recv_any().expect("an ACK").header.ack.since(t.cur().iss);
                assert!(ack > rcv && ack <= rcv + 130, "{rcv} became {ack}");
                rcv = ack;
                rounds += 1;
            }
            assert_eq!((rounds, out_of_order(t)), (8, 0), "64 gaps at a time");
            t.drain();
            t.read(1002);
        },
    );
}

/// `tcp_mem` is used up by what the application wrote; 10 bytes of it are unread text.
fn fill_memory(t: &mut Test) {
    t.reach(State::Established);
    t.send("P. seq 51:61 ack 101 win 5000");
    t.recv(". seq 101 ack 61");
    write_all_that_fits(t);
}

/// The port of peers that are not heard of.
const OTHERS: u16 = 5000;

fn write_all_that_fits(t: &mut Test) {
    let full = (0..100).try_for_each(|_| t.try_write(10_000).map(|_| ()));
    assert_eq!(full, Err(Error::WouldBlock), "the connection has its share");
    // Others take theirs, until there is none for the next.
    t.peer(OTHERS);
    let remote = t.remote();
    t.peer(PEER);
    let others = (0..100).try_for_each(|_| {
        let other = t.stack.connect(t.now, remote, Default::default()).unwrap();
        t.stack.send(other, &[0; 4096])?;
        while t.stack.send(other, &[0; 4096]).is_ok() {}
        Ok(())
    });
    assert_eq!(others, Err(Error::WouldBlock), "the memory is full");
    t.peer(OTHERS);
    t.drain();
    t.peer(PEER);
    t.drain();
}

fn under_pressure(test: impl Fn(&mut Test)) {
    each_with(
        |c| (c.tcp_mem, c.tcp_sndbuf, c.tcp_init_cwnd) = (65_536, 1 << 20, 5),
        |t| {
            fill_memory(t);
            test(t);
            t.drain();
        },
    );
}

/// THREAT-8: above `tcp_mem` the text of a segment is refused, and nothing else of it.
#[test]
fn under_memory_pressure_only_text_is_refused_threat_8() {
    // The ACK counts: it is what makes room.
    under_pressure(|t| {
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().unacked, 5000);
        t.send("P. seq 61:71 ack 5101");
        t.dropped(&[DropReason::NoMemory]);
        assert_eq!((t.stack.counters().tcp_rcv_q_drop, t.stack.readable(t.sock).unwrap().0), (1, 10));
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert!(t.drain() > 0 && info.bytes_acked >= 5100, "{info:?}");
    });
    under_pressure(|t| {
        t.send("R. seq 61:71 ack 101");
        assert_eq!(t.tuple_state(), State::Closed);
    });
    under_pressure(|t| {
        t.events(t.sock);
        t.send("PU. seq 61:71 ack 101 urg 5");
        assert_eq!(t.events(t.sock), Event::URGENT);
        t.dropped(&[DropReason::NoMemory]);
    });
    // A FIN behind text that was refused is not next, and a bare one is.
    under_pressure(|t| {
        t.send("FP. seq 61:71 ack 101");
        assert_eq!(t.state(), State::Established);
        t.dropped(&[DropReason::NoMemory]);
        t.send("F. seq 61 ack 101");
        assert_eq!(t.state(), State::CloseWait);
        t.dropped(&[]);
    });
}

/// Above `tcp_mem` one segment at RCV.NXT is taken where nothing is unread, so that the connection goes on. Data
/// beyond a gap is not, whatever is unread.
#[test]
fn under_memory_pressure_only_what_is_next_is_taken_threat_8() {
    under_pressure(|t| {
        t.read(10);
        write_all_that_fits(t);
        t.send("P. seq 161:171 ack 101");
        t.dropped(&[DropReason::NoMemory]);
        assert_eq!((out_of_order(t), t.stack.counters().tcp_ofo_drop), (0, 1));
        t.send("P. seq 61:161 ack 101");
        t.dropped(&[]);
        assert_eq!(t.stack.readable(t.sock).unwrap().0, 100);
        t.send("P. seq 161:171 ack 101");
        t.dropped(&[DropReason::NoMemory]);
    });
}

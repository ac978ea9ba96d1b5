//! Round trips and the RTO: which ACK gives a sample, and how long a back-off lasts (RFC 6298, Karn's algorithm).

use steadfast_core::info::Info;
use steadfast_core::trace::State;

use crate::harness::{Test, each};
use crate::recovery::{path, write};

fn info(t: &Test) -> Info {
    t.stack.info(t.now, t.sock).unwrap()
}

/// MUST-18, 6298-6: the round trip has grown beyond the RTO. The back-off of an ambiguous ACK lasts until new data
/// gives a sample, and so that data is not sent twice; then the RTO is right (RFC 6298 §5, after 5.7).
#[test]
fn back_off_lasts_until_a_sample_must_18() {
    each(|t| {
        t.reach(State::Established);
        t.write(100);
        t.recv("P. seq 101:201 ack 51");
        let first = t.cur().ts_last;
        t.recv_after(200, "P. seq 101:201 ack 51");
        t.recv_after(400, "P. seq 101:201 ack 51");
        // The answer to the first copy, 700 ms after it left.
        t.wait(100);
        t.ts_val = 1_010_700;
        let echo = if t.ts { format!(" <ts {} ecr {first}>", t.ts_val) } else { String::new() };
        t.send(&format!(". seq 51 ack 201{echo}"));
        assert_eq!((info(t).backoff, info(t).retransmits), (2, 0), "progress, and no sample");
        t.write(100);
        t.recv("P. seq 201:301 ack 51");
        t.wait(700);
        t.send(". seq 51 ack 301");
        assert_eq!((info(t).backoff, info(t).total_retrans), (0, 2));
        // SRTT = 7/8 · 0.001 + 1/8 · 700, RTTVAR = 3/4 · 0.0005 + 1/4 · 700 ms, four of which are 700: the first sample
        // was a handshake without delay. Where the echo proves the timeouts spurious, it is 700 + 4 · 350 ms (4015-2).
        let rto = info(t).rto.as_millis();
        let expected = if t.ts { 2100..=2100 } else { 787..=789 };
        assert!(expected.contains(&rto), "{rto}");
        t.write(100);
        t.recv("P. seq 301:401 ack 51");
        t.wait(700);
        t.send(". seq 51 ack 401");
        t.recv_nothing();
    });
}

/// MUST-18: a timestamp of after the retransmission is no ambiguity (7323-14), and the back-off ends.
#[test]
fn an_echo_of_the_retransmission_is_a_sample_must_18() {
    each(|t| {
        t.reach(State::Established);
        t.write(100);
        t.recv("P. seq 101:201 ack 51");
        t.recv_after(200, "P. seq 101:201 ack 51");
        t.wait(30);
        t.send(". seq 51 ack 201");
        assert_eq!(info(t).backoff, if t.ts { 0 } else { 1 });
        assert!(info(t).rto.as_millis() == 200, "30 ms, and nothing of the outage: {:?}", info(t).rto);
    });
}

/// The ACKs of the first copies were lost. The answer to the retransmission echoes the first copy, as from many
/// receivers: the outage of five seconds is no round trip.
#[test]
fn an_outage_is_no_round_trip_6298_6() {
    each(|t| {
        if !t.ts {
            return;
        }
        t.reach(State::Established);
        let before = info(t);
        t.write(100);
        let first = t.recv("P. seq 101:201 ack 51").header.options.timestamps.unwrap().val;
        t.wait(6200);
        assert_eq!(t.drain(), 5, "at 0.2, 0.6, 1.4, 3.0 and 6.2 s");
        t.wait(20);
        t.ts_val = 1_016_220;
        t.send(&format!(". seq 51 ack 201 <sack 101:201, ts {} ecr {first}>", t.ts_val));
        assert_eq!((info(t).rtt, info(t).rto), (before.rtt, before.rto));
        // The next segment is sent with the backed-off RTO, and its answer ends that.
        t.write(100);
        t.recv("P. seq 201:301 ack 51");
        t.wait(20);
        t.send(". seq 51 ack 301");
        assert_eq!((info(t).backoff, info(t).rto.as_millis()), (0, 200));
    });
}

/// The probes of a closed window back off by themselves: the RTO of what is sent afterwards is what it was.
#[test]
fn probes_leave_the_rto_alone_shld_30() {
    each(|t| {
        t.reach(State::Established);
        t.send(". seq 51 ack 101 win 0");
        t.write(100);
        for gap in [200, 400, 800, 1600] {
            t.recv_after(gap, ". seq 100 ack 51");
            t.send(". seq 51 ack 101 win 0");
        }
        assert_eq!(info(t).backoff, 4);
        t.send(". seq 51 ack 101 win 1000");
        t.recv("P. seq 101:201 ack 51");
        t.recv_after(200, "P. seq 101:201 ack 51");
    });
}

/// 6298-14: while a loss is repaired SND.UNA stays, and the round trip grows. Data that was sent once and is selectively
/// acknowledged gives a sample, once in a round trip.
#[test]
fn sack_blocks_give_a_sample_in_each_round_trip_6298_14() {
    each(|t| {
        path(t);
        write(t, 10);
        t.write(5000);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:10001>");
        t.recv(". seq 1:1001 ack 1");
        assert_eq!(t.drain(), 5);
        assert_eq!(info(t).rtt.as_millis(), 20);
        t.wait(100);
        t.send(". seq 1 ack 1 <sack 1001:14001>");
        // 7/8 · 20 + 1/8 · 100, less what rounding takes.
        let srtt = info(t).rtt;
        assert!((29_900..=30_000).contains(&srtt.as_micros()), "{srtt:?}");
        t.wait(50);
        t.send(". seq 1 ack 1 <sack 1001:15001>");
        assert_eq!(info(t).rtt, srtt, "it was sent before the last sample");
        t.drain();
    });
}

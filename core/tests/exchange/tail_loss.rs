//! Tail loss probes (RFC 8985 §7) and RTO restart (RFC 7765), on a path with a round trip of 20 ms. Time 0 is when the
//! first data is sent.

use steadfast_core::Shutdown;
use steadfast_core::info::CaState;

use crate::harness::{Test, each, each_with};
use crate::recovery::{path, state, window, write};

/// Runs a test with loss probes, over such a path.
fn probing(test: impl Fn(&mut Test)) {
    each_with(
        |config| config.tcp_early_retrans = 3,
        |t| {
            path(t);
            test(t);
        },
    );
}

/// Probes, losses that they repaired, and timeouts.
fn counts(t: &Test) -> (u64, u64, u64) {
    let counters = t.stack.counters();
    (counters.tcp_loss_probes, counters.tcp_loss_probe_recovery, counters.tcp_timeouts)
}

/// 8985-7, 8985-8, 8985-20: two round trips after the last ACK the last segment is sent again. The ACK of it shows that
/// the one before is lost. No timeout is needed.
#[test]
fn a_probe_shows_the_loss_of_a_tail_of_two_8985_7() {
    probing(|t| {
        write(t, 10);
        t.wait(20);
        t.send(". seq 1 ack 8001");
        t.recv_after(40, "P. seq 9001:10001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 8001 <sack 9001:10001>");
        t.recv(". seq 8001:9001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 10001");
        assert_eq!((state(t), counts(t)), (CaState::Open, (1, 0, 0)));
        assert_eq!(t.stack.counters().tcp_sack_recovery, 1);
    });
}

/// 8985-10, 8985-21, 8985-23: a lone segment has the time of a delayed ACK as well. Later data is acknowledged, and no
/// D-SACK came: the probe repaired a loss, which is congestion, once.
#[test]
fn a_probe_that_repairs_a_loss_reduces_the_window_once_8985_10() {
    probing(|t| {
        write(t, 1);
        t.recv_after(65, "P. seq 1:1001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 1001");
        assert_eq!(window(t), (10_000, u32::MAX, CaState::Open));
        for (end, ack) in [(1, 2001), (2, 3001)] {
            write(t, 1);
            t.wait(20);
            t.send(&format!(". seq 1 ack {ack}"));
            assert_eq!(window(t).1, 2000, "segment {end}");
        }
        assert_eq!(counts(t), (1, 1, 0));
    });
}

/// 8985-23: the peer only delayed its ACK, and reports the probe as a duplicate. The window stays. From then on a lone
/// segment waits longer, until the RTO. The duplicate tells nothing about reordering.
#[test]
fn a_needless_probe_teaches_patience_8985_23() {
    probing(|t| {
        write(t, 1);
        t.recv_after(65, "P. seq 1:1001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 1001 <sack 1:1001>");
        assert_eq!(window(t), (10_000, u32::MAX, CaState::Open));
        write(t, 2);
        t.wait(20);
        t.send(". seq 1 ack 1001 <sack 2001:3001>");
        t.recv_after(5, ". seq 1001:2001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 3001");
        write(t, 1);
        t.recv_after(200, "P. seq 3001:4001 ack 1");
    });
}

/// 8985-23: a peer without D-SACK repeats its ACK. Both copies arrived.
#[test]
fn a_repeated_ack_ends_a_probe_without_a_reduction_8985_23() {
    probing(|t| {
        write(t, 1);
        t.recv_after(65, "P. seq 1:1001 ack 1");
        t.send(". seq 1 ack 1001");
        t.send(". seq 1 ack 1001");
        write(t, 1);
        t.wait(20);
        t.send(". seq 1 ack 2001");
        assert_eq!((window(t).1, counts(t)), (u32::MAX, (1, 0, 0)));
    });
}

/// 8985-8, 8985-24: new data goes first, one segment beyond the congestion window. It counts as in flight.
#[test]
fn a_probe_is_new_data_where_there_is_some_8985_8() {
    probing(|t| {
        t.write(15_000);
        assert_eq!(t.drain(), 10);
        t.recv_after(40, ". seq 10001:11001 ack 1");
        let in_flight = |t: &Test| t.stack.info(t.now, t.sock).unwrap().in_flight;
        assert_eq!((in_flight(t), window(t).0), (11_000, 10_000));
        t.wait(10);
        t.send(". seq 1 ack 1001");
        assert_eq!(t.drain(), 1, "the window has grown by one, and a segment has left the network");
        t.send(". seq 1 ack 11001");
        assert_eq!(t.drain(), 3);
        assert_eq!((state(t), counts(t)), (CaState::Open, (1, 0, 0)));
    });
}

/// 8985-24: the second copy of a segment counts as in flight, until the ACK.
#[test]
fn a_repeated_segment_counts_as_in_flight_8985_24() {
    probing(|t| {
        write(t, 1);
        t.recv_after(65, "P. seq 1:1001 ack 1");
        let in_flight = |t: &Test| t.stack.info(t.now, t.sock).unwrap().in_flight;
        assert_eq!(in_flight(t), 2000);
        t.send(". seq 1 ack 1001");
        assert_eq!(in_flight(t), 0);
    });
}

/// 8985-22: data that keeps coming postpones the probe, but not beyond the RTO, and it does not postpone the RTO behind it.
#[test]
fn dripping_data_postpones_neither_probe_nor_timeout_8985_22() {
    probing(|t| {
        t.set_options(|options| options.nodelay = true);
        let mut seen = Vec::new();
        for _ in 0..40 {
            t.write(100);
            t.drain();
            t.wait(10);
            seen.push((counts(t).0, counts(t).2));
        }
        t.drain();
        assert_eq!((seen[18], seen[19]), ((0, 0), (1, 0)), "the probe at 200");
        assert_eq!((seen[38], seen[39]), ((1, 0), (1, 1)), "the RTO at 400");
    });
}

/// 8985-20: there is no probe into a closed window.
#[test]
fn a_closed_window_is_not_probed_for_losses_8985_20() {
    probing(|t| {
        write(t, 1);
        t.send(". seq 1 ack 1 win 0");
        t.wait(199);
        t.recv_nothing();
        t.send(". seq 1 ack 1001 win 0");
        t.write(1000);
        t.wait(1000);
        t.drain();
        assert_eq!(counts(t).0, 0);
    });
}

/// 8985-8: a probe repeats the FIN with the last segment.
#[test]
fn a_probe_has_the_fin_8985_8() {
    probing(|t| {
        write(t, 1);
        t.shutdown(Shutdown::Write);
        t.recv("F. seq 1001 ack 1");
        t.recv_after(40, "FP. seq 1:1001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 1002");
        assert_eq!(counts(t), (1, 0, 0));
    });
}

/// 8985-9, 8985-12: a lost probe is followed by the RTO, from its sending on. There is one probe for a sample of the round
/// trip.
#[test]
fn the_rto_follows_a_lost_probe_8985_9() {
    probing(|t| {
        write(t, 1);
        t.recv_after(65, "P. seq 1:1001 ack 1");
        t.recv_after(200, "P. seq 1:1001 ack 1");
        assert_eq!(counts(t), (1, 0, 1));
        t.recv_after(400, "P. seq 1:1001 ack 1");
        assert_eq!(counts(t), (1, 0, 2));
    });
}

/// 8985-20: a SACK block stops the probe: the time for reordered data takes its place.
#[test]
fn selectively_acknowledged_data_stops_the_probe_8985_20() {
    probing(|t| {
        write(t, 2);
        t.wait(39);
        t.send(". seq 1 ack 1 <sack 1001:2001>");
        t.recv_after(5, ". seq 1:1001 ack 1");
        t.wait(40);
        t.recv_nothing();
        assert_eq!(counts(t), (0, 0, 0));
    });
}

/// 8985-34, 5681-14: a retransmission is lost, and nothing follows by whose ACK RACK would see that. It is repeated after
/// two round trips, long before the RTO, and is congestion again.
#[test]
fn a_lost_retransmission_at_the_end_is_repeated_before_the_rto_8985_34() {
    probing(|t| {
        write(t, 10);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 2001:10001>");
        t.recv(". seq 1:1001 ack 1");
        t.recv(". seq 1001:2001 ack 1");
        let threshold = window(t).1;
        t.recv_after(40, ". seq 1:1001 ack 1");
        t.recv_nothing();
        assert!(window(t).1 < threshold, "{:?}", window(t));
        t.wait(20);
        // It shows that the second one is lost as well.
        t.send(". seq 1 ack 1001 <sack 2001:10001>");
        t.recv(". seq 1001:2001 ack 1");
        t.wait(20);
        t.send(". seq 1 ack 10001");
        assert_eq!((state(t), counts(t)), (CaState::Open, (1, 0, 0)));
    });
}

/// 8985-34, 8985-9: once for a sample of the round trip. Then comes the RTO, from the last retransmission on.
#[test]
fn the_rto_follows_a_repeated_retransmission_8985_34() {
    probing(|t| {
        write(t, 10);
        t.wait(20);
        t.send(". seq 1 ack 1 <sack 1001:10001>");
        t.recv(". seq 1:1001 ack 1");
        t.recv_after(40, ". seq 1:1001 ack 1");
        t.recv_after(200, ". seq 1:1001 ack 1");
        assert_eq!(counts(t), (1, 0, 1));
    });
}

/// 8985-19: a peer without SACK gets none.
#[test]
fn without_sack_there_is_no_probe_8985_19() {
    each_with(
        |config| config.tcp_early_retrans = 3,
        |t| {
            t.listen();
            t.send("S seq 0 <wscale 0>");
            t.recv("S. seq 0 ack 1 <mss 1460, wscale 0>");
            t.wait(20);
            t.send(". seq 1 ack 1");
            t.sock = t.accept();
            write(t, 1);
            t.recv_after(200, "P. seq 1:1001 ack 1");
            assert_eq!(counts(t), (0, 0, 1));
        },
    );
}

/// 7765-1: with little in flight the RTO runs from when the oldest segment was sent.
#[test]
fn the_rto_of_the_last_segments_runs_from_their_sending_7765_1() {
    each(|t| {
        path(t);
        write(t, 1);
        t.wait(10);
        write(t, 1);
        t.wait(10);
        t.send(". seq 1 ack 1001");
        t.recv_after(190, "P. seq 1001:2001 ack 1");
    });
}

/// 7765-1: four segments are enough for duplicate ACKs, so that their RTO runs from the ACK.
#[test]
fn the_rto_of_four_segments_runs_from_the_ack_7765_1() {
    each(|t| {
        path(t);
        write(t, 1);
        t.wait(10);
        write(t, 4);
        t.wait(10);
        t.send(". seq 1 ack 1001");
        t.recv_after(200, ". seq 1001:2001 ack 1");
    });
}

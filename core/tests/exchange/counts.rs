//! Counters and settings that other tests have no reason to look at.

use steadfast_core::Config;
use steadfast_core::config::FastOpenMode;
use steadfast_core::trace::{State, TraceKind};
use steadfast_core::wire::tcp::Flags;

use crate::harness::{Test, each, each_with};
use crate::living::{cookie, fast_open_listener};

/// `OutRequests` of the IP group: all packets that left, whatever they carry.
#[test]
fn every_packet_that_leaves_is_counted() {
    each(|t| {
        t.reach(State::Established);
        t.write(2000);
        assert_eq!(t.drain(), 2);
        // A SYN-ACK, a segment, an ACK, and these two.
        assert_eq!((t.stack.counters().out_requests, t.stack.counters().out_segs), (5, 5));
        t.send(". seq 51 ack 2101");
    });
}

#[test]
fn a_syn_ack_that_leaves_again_is_counted_sa_syn_rcvd_18() {
    each(|t| {
        t.listen();
        t.send("S seq 0");
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.recv_after(1000, "S. seq 0 ack 1 <mss 1460>");
        t.recv_after(2000, "S. seq 0 ack 1 <mss 1460>");
        let counters = t.stack.counters();
        assert_eq!((counters.tcp_syn_retrans, counters.retrans_segs), (2, 2));
        t.send("R seq 1");
    });
}

#[test]
fn packets_that_the_driver_dropped_are_counted() {
    each(|t| {
        t.stack.count_backlog_drops(3);
        t.stack.count_backlog_drops(2);
        assert_eq!(t.stack.counters().softnet_dropped, 5);
    });
}

/// `OfoPruned` counts what was dropped, and not what fits.
#[test]
fn text_behind_a_gap_that_fits_is_not_pruned_threat_13() {
    each(|t| {
        t.reach(State::Established);
        t.send("P. seq 151:251 ack 101");
        t.recv_sack(". seq 101 ack 51 <sack 151:251 >");
        assert_eq!(t.stack.counters().ofo_pruned, 0);
        t.send("P. seq 51:151 ack 101");
        t.recv(". seq 101 ack 251");
        assert_eq!(t.stack.counters().ofo_pruned, 0);
    });
}

/// Cookies and sequence numbers come from the secret of the start.
#[test]
fn a_new_configuration_keeps_the_secret() {
    each_with(
        |c| c.secret = [7; 32],
        |t| {
            let config = Config {
                secret: [9; 32],
                tcp_delack: steadfast_core::Duration::ZERO,
                ..t.stack.config().clone()
            };
            t.stack.set_config(config);
            assert_eq!(t.stack.config().secret, [7; 32]);
            assert!(t.stack.config().tcp_delack.is_zero());
        },
    );
}

#[test]
fn a_request_for_a_cookie_is_counted_7413_1() {
    each_with(
        |c| c.tcp_fastopen = FastOpenMode::SERVER,
        |t| {
            fast_open_listener(t);
            cookie(t);
            let counters = t.stack.counters();
            assert_eq!((counters.tcp_fast_open_cookie_reqd, counters.tcp_fast_open_passive_fail), (1, 0));
        },
    );
}

#[test]
fn a_traced_stack_tells_what_happened_in_order() {
    each(|t| {
        t.stack.set_tracing(true);
        t.listen();
        t.send("S seq 0");
        t.recv("S. seq 0 ack 1 <mss 1460>");
        let kinds: Vec<_> = std::iter::from_fn(|| t.stack.poll_trace()).map(|event| event.kind).collect();
        let place = |wanted: &dyn Fn(&TraceKind) -> bool| kinds.iter().position(wanted).expect("an event");
        let came =
            place(&|kind| matches!(kind, TraceKind::SegmentIn { header, .. } if header.flags == Flags::SYN));
        let state = place(&|kind| *kind == TraceKind::State { from: State::Listen, to: State::SynReceived });
        let left = place(&|kind| matches!(kind, TraceKind::SegmentOut { header, .. } if header.flags.ack()));
        assert!(came < state && state < left, "{kinds:?}");
        t.send("R seq 1");
    });
}

/// As in `ss`: unread bytes, and bytes that are not acknowledged, also before there is a connection.
#[test]
fn a_listing_tells_the_bytes_in_the_queues_sa_est_35() {
    let queues = |t: &Test| {
        let all = t.stack.sockets(t.now);
        let entry = all.iter().find(|entry| entry.socket == Some(t.sock)).unwrap();
        (entry.recv_q, entry.send_q)
    };
    each(|t| {
        t.reach(State::Established);
        t.send("P. seq 51:61 ack 101");
        t.write(100);
        t.drain();
        assert_eq!(queues(t), (10, 100));
        t.read(10);
        t.send(". seq 61 ack 201");
        assert_eq!(queues(t), (0, 0));
    });
    each(|t| {
        t.connect();
        assert_eq!(t.stack.send(t.sock, b"request"), Ok(7));
        assert_eq!(queues(t), (0, 7));
    });
}

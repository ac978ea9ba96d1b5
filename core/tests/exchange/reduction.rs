//! The congestion window: one reduction in a window of data, and how slow start grows (RFC 3168 §6.1.2, 5681, 3465,
//! 9406).

use steadfast_core::config::CongestionControl;
use steadfast_core::info::CaState;
use steadfast_core::trace::State;
use steadfast_core::wire::Ecn;

use proptest::prelude::*;

use crate::harness::{Test, each, each_with};

/// A connection with ECN.
pub fn ecn_path(t: &mut Test) {
    t.listen();
    t.send("SEW seq 0 <sackOK, wscale 0>");
    t.recv("SE. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
    t.send(". seq 1 ack 1");
    t.sock = t.accept();
}

/// A connection with ECN and ten segments in flight.
pub fn marked_path(t: &mut Test) {
    ecn_path(t);
    t.write(10_000);
    assert_eq!(t.drain(), 10);
}

fn window(t: &Test) -> (u32, u32, CaState) {
    let info = t.stack.info(t.now, t.sock).unwrap();
    (info.snd_cwnd, info.snd_ssthresh, info.ca_state)
}

/// 3168-4: a mark that is echoed while a timeout is repaired says nothing new, and never opens the window.
#[test]
fn an_echo_in_loss_does_not_open_the_window_3168_4() {
    each(|t| {
        marked_path(t);
        t.recv_after(200, ". seq 1:1001 ack 1");
        assert_eq!(window(t), (1000, 7000, CaState::Loss));
        t.send("E. seq 1 ack 1001");
        // One segment acknowledged in slow start: two may be out.
        assert_eq!(window(t), (2000, 7000, CaState::Loss));
        assert_eq!(t.drain(), 2);
    });
}

/// 3168-4: loss first, then the marks of the same window of data.
#[test]
fn loss_and_then_marks_reduce_once_3168_4() {
    each(|t| {
        marked_path(t);
        // Lost are the first and the third segment.
        t.send(". seq 1 ack 1 <sack 1001:2001 3001:9001>");
        t.recv(". seq 1:1001 ack 1");
        t.drain();
        assert_eq!(window(t), (7000, 7000, CaState::Recovery), "0.7 of the flight of 10000, once");
        t.send("E. seq 1 ack 2001 <sack 3001:10001>");
        assert_eq!(window(t), (7000, 7000, CaState::Recovery), "not of the flight of 8000");
        t.drain();
        // The end of recovery acknowledges that window; what is marked after it is news.
        t.send("E. seq 1 ack 10001");
        assert_eq!(window(t), (7000, 7000, CaState::Open));
        t.write(7000);
        let flags: Vec<_> = std::iter::from_fn(|| t.recv_any()).map(|got| got.header.flags.cwr()).collect();
        assert_eq!(
            flags,
            [true, false, false, false, false, false, false],
            "the peer is told of the reduction"
        );
        t.send("E. seq 1 ack 11001");
        assert_eq!(window(t).1, 5950, "0.85 of the flight of 7000 (8511-1)");
    });
}

/// 3168-4: a mark first, then loss in the same window of data.
#[test]
fn a_mark_and_then_loss_reduce_once_3168_4() {
    each(|t| {
        marked_path(t);
        t.send("E. seq 1 ack 1001");
        let (_, threshold, _) = window(t);
        assert_eq!(threshold, 8500, "0.85 of the flight of 10000 (8511-1)");
        t.send(". seq 1 ack 1001 <sack 2001:9001>");
        t.recv(". seq 1001:2001 ack 1");
        assert_eq!((window(t).1, window(t).2), (8500, CaState::Recovery));
    });
    each(|t| {
        marked_path(t);
        t.send("E. seq 1 ack 1001");
        t.recv_after(200, ". seq 1001:2001 ack 1");
        assert_eq!(
            window(t),
            (1000, 8500, CaState::Loss),
            "the window falls to one segment, the threshold stays"
        );
    });
}

/// 8511-1: with `tcp_abe` off a mark counts as a loss (RFC 3168 §5).
#[test]
fn without_abe_a_mark_counts_as_a_loss_8511_1() {
    each_with(
        |config| config.tcp_abe = false,
        |t| {
            marked_path(t);
            t.send("E. seq 1 ack 1001");
            assert_eq!(window(t).1, 7000, "0.7 of the flight of 10000");
        },
    );
}

/// Data that came late is no loss: when nothing is missing any more, nothing is out of the ordinary either.
#[test]
fn reordering_without_loss_leaves_no_trace_5681_9() {
    each(|t| {
        t.establish();
        t.write(3000);
        assert_eq!(t.drain(), 3);
        t.send(". seq 1 ack 1 <sack 1001:2001>");
        assert_eq!(window(t).2, CaState::Disorder);
        t.send(". seq 1 ack 2001");
        assert_eq!(window(t).2, CaState::Open);
        t.send(". seq 1 ack 3001");
        assert_eq!((window(t).2, t.stack.counters().retrans_segs), (CaState::Open, 0));
    });
    // Without SACK; and with a second gap behind the first one it goes on.
    each(|t| {
        t.establish_plain();
        t.write(3000);
        assert_eq!(t.drain(), 3);
        t.send(". seq 1 ack 1");
        assert_eq!(window(t).2, CaState::Disorder);
        t.send(". seq 1 ack 3001");
        assert_eq!(window(t).2, CaState::Open);
    });
    each(|t| {
        t.establish();
        t.write(5000);
        assert_eq!(t.drain(), 5);
        t.send(". seq 1 ack 1 <sack 1001:2001>");
        t.send(". seq 1 ack 1 <sack 3001:4001 1001:2001>");
        t.send(". seq 1 ack 2001 <sack 3001:4001>");
        assert_eq!(window(t).2, CaState::Disorder);
        t.send(". seq 1 ack 5001");
        assert_eq!(window(t).2, CaState::Open);
    });
}

/// 5681-2: after a timeout an ACK adds one segment, however much it covers, until all is acknowledged that was out then
/// (RFC 3465 §2.3); then all that it covers.
#[test]
fn slow_start_after_a_timeout_counts_one_segment_an_ack_5681_2() {
    // F-RTO would take the first ACK for the proof that nothing was lost.
    each_with(
        |config| config.tcp_frto = 0,
        |t| {
            t.establish();
            t.write(100_000);
            assert_eq!(t.drain(), 10);
            t.recv_after(200, ". seq 1:1001 ack 1");
            t.send(". seq 1 ack 7001");
            assert_eq!(window(t).0, 2000);
            t.drain();
            t.send(". seq 1 ack 10001");
            assert_eq!((window(t).0, window(t).2), (3000, CaState::Open), "it covers what was lost, too");
            assert_eq!(t.drain(), 3);
            t.send(". seq 1 ack 13001");
            assert_eq!(window(t).0, 6000);
            t.drain();
        },
    );
}

/// 5681-2, 9406-4: one ACK may stand for a super-segment, all of which counts. With `tcp_abc_limit` so many segments do.
#[test]
fn an_ack_adds_what_it_covers_in_slow_start_or_the_limit_5681_2() {
    for (limit, acked, window_after) in [(0, 9000, 19_000), (8, 8000, 18_000), (8, 9000, 18_000)] {
        each_with(
            |config| config.tcp_abc_limit = limit,
            |t| {
                t.reach(State::Established);
                t.write(10_000);
                assert_eq!(t.drain(), 10);
                t.send(&format!(". seq 51 ack {}", 101 + acked));
                assert_eq!(window(t).0, window_after);
            },
        );
    }
}

/// 9438-6, RFC 9438 §5.8: in congestion avoidance a window that the application fills in part does not grow, however
/// many ACKs come.
#[test]
fn a_window_that_is_not_used_does_not_grow_9438_6() {
    for control in [CongestionControl::Reno, CongestionControl::Cubic] {
        each_with(
            |c| (c.tcp_congestion_control, c.tcp_slow_start_after_idle) = (control, false),
            |t| {
                t.establish_plain();
                t.write(10_000);
                assert_eq!(t.drain(), 10);
                (0..3).for_each(|_| t.send(". seq 1 ack 1"));
                t.send(". seq 1 ack 10001");
                t.drain();
                let (before, threshold, state) = window(t);
                assert!(state == CaState::Open && before >= threshold, "congestion avoidance");
                // Three quarters of the window, then all of it.
                let mut end = 10_001;
                let mut round_trip = |t: &mut Test, len: u32| {
                    t.write(len);
                    t.drain();
                    t.wait(100);
                    end += len;
                    t.send(&format!(". seq 1 ack {end}"));
                };
                for _ in 0..50 {
                    round_trip(t, before * 3 / 4);
                    assert_eq!(window(t).0, before);
                }
                for _ in 0..50 {
                    round_trip(t, before);
                }
                assert!(window(t).0 > before);
            },
        );
    }
}

/// 3168-2: new data alone is ECT, not what opens the connection, what is sent again, or a bare ACK. 3168-3: nothing is
/// where ECN was not agreed on.
#[test]
fn new_data_alone_is_ect_3168_2() {
    for (syn, agreed) in
        [("SEW seq 0 <sackOK>", true), ("S seq 0 <sackOK>", false), ("SE seq 0 <sackOK>", false)]
    {
        each(|t| {
            t.listen();
            t.send(syn);
            assert_eq!(t.recv_any().expect("a SYN-ACK").ecn, Ecn::NotEct);
            t.send(". seq 1 ack 1");
            t.accept();
            let data = if agreed { Ecn::Ect0 } else { Ecn::NotEct };
            for _ in 0..2 {
                t.write(1000);
                assert_eq!(t.recv_any().expect("data").ecn, data);
            }
            t.wait(200);
            let again = t.recv_any().expect("a retransmission");
            assert_eq!((again.payload.len(), again.ecn), (1000, Ecn::NotEct));
            t.send(". seq 1 ack 2001");
            t.send("P. seq 1:1001 ack 2001");
            assert_eq!(t.recv_any().expect("an ACK").ecn, Ecn::NotEct);
        });
    }
}

/// A connection in congestion avoidance with a window of `len` bytes, all acknowledged: its last is byte `end`.
fn avoid_congestion(t: &mut Test, len: u32) -> u32 {
    t.establish();
    let mut end = 1;
    while window(t).0 < len {
        let room = window(t).0;
        t.write(room);
        t.drain();
        end += room;
        t.send(&format!(". seq 1 ack {end}"));
    }
    end
}

/// 9438-10: all ACKs of a round in which the window was used let it grow, not only the first one.
#[test]
fn the_window_grows_for_all_of_a_round_that_used_it_9438_10() {
    each(|t| {
        t.establish();
        t.write(10_000);
        assert_eq!(t.drain(), 10);
        // In slow start half of the window suffices.
        for n in 1..=10 {
            t.send(&format!(". seq 1 ack {}", 1 + n * 1000));
        }
        assert_eq!(window(t).0, 20_000);
        // Half of it, exactly: the window is not what holds back.
        t.write(10_000);
        assert_eq!(t.drain(), 10);
        for n in 11..=20 {
            t.send(&format!(". seq 1 ack {}", 1 + n * 1000));
        }
        assert_eq!(window(t).0, 20_000);
        // One byte more suffices.
        t.write(10_001);
        assert_eq!(t.drain(), 11);
        for n in 21..=30 {
            t.send(&format!(". seq 1 ack {}", 1 + n * 1000));
        }
        t.send(". seq 1 ack 30002");
        assert_eq!(window(t).0, 21_000, "not beyond twice of what was in flight");
    });
}

/// 7661-1: a window that is not used for an RTO goes halfway to what was in flight. With `tcp_slow_start_after_idle` off
/// it stays.
#[test]
fn a_window_without_use_comes_down_within_an_rto_7661_1() {
    for after_idle in [true, false] {
        each_with(
            |config| config.tcp_slow_start_after_idle = after_idle,
            |t| {
                let mut end = avoid_congestion(t, 40_000);
                let (before, ..) = window(t);
                let mut round_trip = |t: &mut Test| {
                    t.write(12_000);
                    t.drain();
                    t.wait(50);
                    end += 12_000;
                    t.send(&format!(". seq 1 ack {end}"));
                };
                (0..3).for_each(|_| round_trip(t));
                assert_eq!(window(t).0, before);
                (0..4).for_each(|_| round_trip(t));
                let lowered = if after_idle { (before + 12_000) / 2 } else { before };
                assert_eq!(window(t).0, lowered);
                (0..100).for_each(|_| round_trip(t));
                let (cwnd, ssthresh, _) = window(t);
                // Slow start may go to twice of what is used.
                let most = if after_idle { 24_000 + 12_000 } else { before };
                assert!(cwnd <= most && cwnd >= 12_000, "{cwnd}");
                assert_eq!(ssthresh, u32::MAX, "no congestion was seen");
            },
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// 5681-15: whatever tells of congestion, the threshold is lowered once in a window of data, unless a retransmission
    /// is lost as well or a timeout follows.
    #[test]
    fn a_window_of_data_is_reduced_once_5681_15(
        events in proptest::collection::vec((0u8..5, 0u32..30, 1u32..12), 1..60),
    ) {
        let mut t = Test::new(false, true, |config| config.tcp_init_cwnd = 20);
        marked_path(&mut t);
        t.write(60_000);
        let (mut una, mut nxt, mut reduced_until) = (1, 10_001, 1);
        let mut before = (u32::MAX, 0);
        for (what, at, len) in events {
            let start = una + at * 1000;
            match what {
                0 => una = (una + len * 1000).min(nxt),
                4 => t.wait(u64::from(len) * 3),
                _ => {}
            }
            let block = format!(" <sack {start}:{}>", start + len * 1000);
            let block = if what >= 1 && start > una && start + len * 1000 <= nxt { block } else { String::new() };
            t.send(&format!("{}. seq 1 ack {una}{block}", if what == 2 { "E" } else { "" }));
            let counters = t.stack.counters();
            let others = counters.tcp_lost_retransmit + counters.tcp_timeouts + counters.tcp_full_undo;
            let threshold = window(&t).1;
            if threshold < before.0 {
                prop_assert!(una >= reduced_until || others > before.1, "at {una}, below {reduced_until}");
                reduced_until = nxt;
            }
            before = (threshold, others);
            while let Some(got) = t.recv_any() {
                let end = got.header.seq.since(t.cur().irs.unwrap()) + got.payload.len() as u32;
                nxt = nxt.max(end);
                if let Some(timestamps) = got.header.options.timestamps {
                    t.cur_mut().ts_last = timestamps.val;
                }
            }
        }
    }
}

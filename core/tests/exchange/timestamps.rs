//! Timestamps (RFC 7323 §3 to §5).

use steadfast_core::trace::State;

use crate::harness::{Test, each, each_with};

/// 7323-5: every segment of a connection that agreed on them has them, and no other. 7323-12: the clock ticks in
/// milliseconds.
#[test]
fn all_segments_have_timestamps_or_none_7323_5() {
    each(|t| {
        let mut seen = Vec::new();
        let mut take = |t: &mut Test, text: &str| {
            seen.push((t.now, t.recv(text).header.options.timestamps));
        };
        t.listen();
        t.send("S seq 0 <sackOK, wscale 0>");
        take(t, "S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
        t.send("P. seq 1:11 ack 1");
        t.accept();
        take(t, ". seq 1 ack 11");
        t.write(10);
        take(t, "P. seq 1:11 ack 11");
        t.wait(999);
        t.drain();
        t.wait(1);
        t.send(". seq 11 ack 11");
        t.send("P. seq 5000:5010 ack 11");
        take(t, ". seq 11 ack 11 <sack 5000:5010>");
        t.shutdown(steadfast_core::Shutdown::Write);
        take(t, "F. seq 11 ack 11 <sack 5000:5010>");
        t.abort();
        take(t, "R. seq 12 ack 11");
        let (start, first) = seen[0];
        for (at, timestamps) in seen {
            assert_eq!(timestamps.is_some(), t.ts);
            let ticks = timestamps.zip(first).map(|(now, first)| now.val.wrapping_sub(first.val));
            assert!(ticks.is_none_or(|ticks| u128::from(ticks) == (at - start).as_millis()), "{ticks:?}");
        }
    });
}

/// 7323-8: the echo of a segment without ACK means nothing.
#[test]
fn an_echo_without_ack_is_not_looked_at_7323_8() {
    each(|t| {
        if !t.ts {
            return;
        }
        t.connect();
        t.send("S seq 0 <sackOK, wscale 0, ts 5 ecr 99>");
        t.ts_val = 5;
        t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
        assert_eq!(t.state(), State::SynReceived);
    });
}

/// 7323-14: the echo on an ACK of nothing new is no sample; and the ACKs of one window are one, as without timestamps.
#[test]
fn one_round_trip_gives_one_sample_7323_14() {
    let rtt = |t: &Test| t.stack.info(t.now, t.sock).unwrap().rtt.as_micros();
    each(|t| {
        t.establish_after(100);
        assert_eq!(rtt(t), 100_000);
        t.write(4000);
        assert_eq!(t.drain(), 4);
        t.wait(50);
        t.send(". seq 1 ack 1");
        assert_eq!(rtt(t), 100_000);
        t.wait(50);
        for n in 1..=4 {
            t.wait(1);
            t.send(&format!(". seq 1 ack {}", 1 + n * 1000));
        }
        // 7/8 · 100 + 1/8 · 101.
        assert_eq!(rtt(t), 100_125);
    });
}

/// 7323-9: the echo is of the segment that the last ACK asked for, not of the latest.
#[test]
fn the_echo_is_of_the_oldest_unacknowledged_segment_7323_9() {
    each_with(
        |c| c.tcp_quickack = 0,
        |t| {
            if !t.ts {
                return;
            }
            t.establish();
            let first = t.ts_val + 10;
            let ecr = t.cur().ts_last;
            t.send(&format!("P. seq 1:1001 ack 1 <ts {first} ecr {ecr}>"));
            t.recv_nothing();
            t.send(&format!("P. seq 1001:2001 ack 1 <ts {} ecr {ecr}>", first + 5));
            t.ts_val = first + 5;
            let got = t.recv(". seq 1 ack 2001");
            assert_eq!(got.header.options.timestamps.unwrap().ecr, first);
            // A gap: the echo stays where it is.
            t.send(&format!("P. seq 3001:4001 ack 1 <ts {} ecr {ecr}>", first + 9));
            t.ts_val = first + 9;
            let got = t.recv(". seq 1 ack 2001 <sack 3001:4001>");
            assert_eq!(got.header.options.timestamps.unwrap().ecr, first);
        },
    );
}

/// THREAT-29: a timestamp is believed only after the ACK was; one that was not does not stall the connection.
#[test]
fn a_forged_timestamp_does_not_stall_threat_29() {
    each(|t| {
        if !t.ts {
            return;
        }
        t.reach(State::Established);
        let (good, ecr) = (t.ts_val, t.cur().ts_last);
        let forged = good + (1 << 30);
        for (seq, ack) in [(51, 5000), (51, 0), (60, 101), (40, 101)] {
            t.send(&format!("P. seq {seq}:{} ack {ack} <ts {forged} ecr {ecr}>", seq + 3));
        }
        t.ts_val = good;
        t.drain();
        t.send("P. seq 51:61 ack 101");
        let got = t.recv_any().expect("an ACK");
        assert_eq!(got.header.ack.since(t.cur().iss), 63);
    });
}

/// 7323-9 (RFC 7323 §4.3): our ACK was lost, and the data comes again. The ACK that answers echoes the copy that came
/// now, or the peer would take all the time between for a round trip.
#[test]
fn the_echo_of_a_duplicate_is_that_of_the_duplicate_7323_9() {
    each(|t| {
        if !t.ts {
            return;
        }
        t.reach(State::Established);
        let echo = |t: &mut Test, segment: &str, ack: &str| {
            t.send(segment);
            t.recv(ack).header.options.timestamps.unwrap().ecr
        };
        t.wait(5000);
        let sent = t.ts_val;
        assert_eq!(echo(t, "P. seq 1:51 ack 101", ". seq 101 ack 51 <sack 1:51>"), sent + 5000);
        // A part of it is new, or it is the FIN.
        t.wait(5000);
        assert_eq!(echo(t, "P. seq 1:61 ack 101", ". seq 101 ack 61 <sack 1:51>"), sent + 10_000);
        t.send("F. seq 61 ack 101");
        t.recv(". seq 101 ack 62");
        t.wait(5000);
        assert_eq!(echo(t, "F. seq 61 ack 101", ". seq 101 ack 62"), sent + 15_000);
    });
}

/// RFC 7323 §5.3, R2 and R3: a needless retransmission overtakes data that was sent before it. Its timestamp is echoed,
/// but PAWS does not drop that data.
#[test]
fn what_was_sent_before_a_needless_retransmission_is_taken_after_it() {
    each(|t| {
        if !t.ts {
            return;
        }
        t.reach(State::Established);
        t.wait(3000);
        // It has 1:51.
        t.send("P. seq 1:51 ack 101");
        let again = t.ts_val;
        let answer = t.recv(". seq 101 ack 51 <sack 1:51>");
        assert_eq!(answer.header.options.timestamps.unwrap().ecr, again);
        let ecr = t.cur().ts_last;
        t.send(&format!("P. seq 51:101 ack 101 <ts {} ecr {ecr}>", again - 10));
        let answer = t.recv_any().expect("an answer").header.options.timestamps.unwrap();
        assert_eq!(t.stack.counters().paws_estab, 0, "PAWS takes it for old");
        assert_eq!(answer.ecr, again - 10, "the echo is that of new data again");
    });
}

/// THREAT-29: a duplicate that the peer cannot have sent tells nothing. Its timestamp is not echoed.
#[test]
fn a_forged_duplicate_does_not_move_the_echo_threat_29() {
    each(|t| {
        if !t.ts {
            return;
        }
        t.reach(State::Established);
        t.wait(3000);
        let (good, ecr) = (t.ts_val, t.cur().ts_last);
        // A window of 10,000 below RCV.NXT; ACKs outside of what is in flight; a clock that ran for three seconds and
        // more.
        let forged = [
            (-9951, 101, good + 3000),
            (1, 100, good + 3000),
            (1, 102, good + 3000),
            (1, 101, good + 7000),
            (1, 101, good - 1),
        ];
        for (seq, ack, val) in forged {
            t.send(&format!("P. seq {seq}:{} ack {ack} <ts {val} ecr {ecr}>", seq + 10));
            if let Some(got) = t.recv_any() {
                assert_eq!(got.header.options.timestamps.unwrap().ecr, good, "{seq} {ack} {val}");
            }
        }
        t.drain();
        t.send(&format!("P. seq 1:11 ack 101 <ts {} ecr {ecr}>", good + 3000));
        assert_eq!(t.recv_any().unwrap().header.options.timestamps.unwrap().ecr, good + 3000);
        t.ts_val = good + 3000;
    });
}

/// 7323-9: in SYN-RECEIVED, too. The SYN-ACK that answers a repeated SYN echoes that one.
#[test]
fn the_echo_of_a_repeated_syn_is_that_of_the_repetition_7323_9() {
    for active in [false, true] {
        each(|t| {
            if !t.ts {
                return;
            }
            if active {
                t.connect();
            } else {
                t.listen();
            }
            let (syn, syn_ack) =
                ("S seq 0 <sackOK, wscale 0>", "S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
            t.send(syn);
            let first = t.recv(syn_ack).header.options.timestamps.unwrap().ecr;
            t.wait(800);
            t.send(syn);
            assert_eq!(t.recv(syn_ack).header.options.timestamps.unwrap().ecr, first + 800);
            // And the one that the timer sends.
            t.wait(200);
            assert_eq!(t.recv(syn_ack).header.options.timestamps.unwrap().ecr, first + 800);
            // PAWS holds what follows against it (SA-SYN_RCVD-12).
            t.send(&format!(". seq 1 ack 1 <ts {} ecr {}>", first + 799, t.cur().ts_last));
            assert_eq!(t.tuple_state(), State::SynReceived);
            t.drain();
        });
    }
}

/// 7323-9, 6191-2: in TIME-WAIT, too. The ACK of a repeated FIN echoes it, and a SYN is held against it.
#[test]
fn the_echo_of_a_repeated_fin_is_that_of_the_repetition_7323_9() {
    each(|t| {
        if !t.ts {
            return;
        }
        t.reach(State::TimeWait);
        let ecr = t.cur().ts_last;
        t.wait(1000);
        t.send("F. seq 51 ack 102");
        let last = t.ts_val;
        assert_eq!(t.recv(". seq 102 ack 52").header.options.timestamps.unwrap().ecr, last);
        // An ACK that is no answer to anything of ours moves nothing; the peer's own does.
        t.send(&format!(". seq 52 ack 101 <ts {} ecr {ecr}>", last + 9));
        t.send(&format!(". seq 52 ack 102 <ts {} ecr {ecr}>", last + 5));
        t.drain();
        for (val, taken) in [(last + 4, false), (last + 6, true)] {
            t.wait(1000);
            t.send(&format!("S seq -5000 <mss 1012, sackOK, wscale 0, ts {val} ecr 0>"));
            let got = t.recv_any().expect("a challenge ACK or a SYN-ACK");
            assert_eq!(got.header.flags.syn(), taken);
        }
    });
}

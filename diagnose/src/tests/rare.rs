//! Rules for what happens seldom, each beside a sound connection that looks much like it.

use super::*;

pub(super) fn says(tape: &Tape, id: &str) -> bool {
    tape.report().all().any(|finding| finding.id == id)
}

pub(super) fn stamped(val: u32, ecr: u32) -> TcpOptions {
    TcpOptions { timestamps: Some(Timestamps { val, ecr }), ..TcpOptions::default() }
}

#[test]
fn losses_in_a_row_are_told_from_as_many_single_ones() {
    // Segments 0 to 8 of a thousand bytes; the receiver lacks these.
    let lose = |lost: &[u32]| {
        let mut tape = Tape::new();
        tape.open();
        for n in 0..9 {
            tape.c(21.0, say(ACK, 1001 + n * 1000, 9001).len(1000));
        }
        let first = 1001 + lost[0] * 1000;
        for n in (lost[0]..9).filter(|n| !lost.contains(n)) {
            tape.s(41.0, say(ACK, 9001, first).sack(1001 + n * 1000, 2001 + n * 1000));
        }
        for n in lost {
            tape.c(41.5, say(ACK, 1001 + n * 1000, 9001).len(1000));
        }
        tape.s(61.8, say(ACK, 9001, 10_001));
        tape
    };
    let burst = lose(&[1, 2, 3, 4]);
    let found = burst.find("loss-burst");
    assert_eq!((found.count, packets(&found)), (4, vec![17, 18, 19, 20]));
    assert!(says(&burst, "loss-fast-retransmit"));
    for single in [&[1, 2, 3][..], &[1, 3, 5, 7], &[1, 2, 4, 5, 7]] {
        let tape = lose(single);
        assert!(!says(&tape, "loss-burst") && says(&tape, "loss-fast-retransmit"), "{single:?}");
    }
}

#[test]
fn a_reset_that_answers_time_wait_ends_it_early() {
    let closed = || {
        let mut tape = Tape::new();
        tape.open().exchange();
        tape.c(50.0, say(FIN_ACK, 1101, 9201))
            .s(70.0, say(FIN_ACK, 9201, 1102))
            .c(70.1, say(ACK, 1102, 9202));
        tape
    };
    let mut killed = closed();
    killed.s(200.0, say(ACK, 9001, 1101).len(200)).c(200.1, say(ACK, 1102, 9202));
    // As far as this, it is only a late segment.
    assert!(!says(&killed, "close-timewait-assassination"));
    killed.s(220.3, say(RST, 9202, 0).window(0));
    let found = killed.find("close-timewait-assassination");
    assert_eq!((found.end, packets(&found)), (Place::Client, vec![11, 12, 13]));
    assert_eq!((killed.bad(), says(&killed, "reset-abort")), (vec![], false));

    // A FIN comes again, and its sender loses patience.
    let mut patient = closed();
    patient.s(300.0, say(FIN_ACK, 9201, 1102)).c(300.1, say(ACK, 1102, 9202));
    patient.s(320.3, say(RST, 9202, 0).window(0));
    assert!(!says(&patient, "close-timewait-assassination"));
}

#[test]
fn ports_that_come_back_from_time_wait_again_and_again_run_short() {
    let close = |times: u32| {
        let mut tape = Tape::new();
        for n in 0..times {
            let (at, c, s) = (f64::from(n) * 100.0, 1000 + n * 100_000, 9000 + n * 200_000);
            tape.c(at, say(SYN, c, 0).options(offer(n * 100 + 1, 0)))
                .s(at + 20.0, say(SYN_ACK, s, c + 1).options(offer(n * 100 + 5, n * 100 + 1)))
                .c(at + 20.1, say(ACK, c + 1, s + 1))
                .c(at + 21.0, say(FIN_ACK, c + 1, s + 1))
                .s(at + 41.0, say(FIN_ACK, s + 1, c + 2))
                .c(at + 41.1, say(ACK, c + 2, s + 2));
        }
        tape
    };
    let found = close(101).find("close-timewait-pileup");
    assert_eq!((found.end, found.count, found.evidence[0].packet), (Place::Client, 101, 4));
    assert!(found.text.contains("100 took ports"), "{}", found.text);
    assert_eq!(close(100).bad(), Vec::<&str>::new());
}

#[test]
fn a_window_that_opened_unheard_is_seen_near_the_receiver() {
    let stall = || {
        let mut tape = Tape::new();
        tape.open_at_server();
        tape.c(21.0, say(ACK, 1001, 9001).len(100)).s(21.1, say(ACK, 9001, 1101).window(0));
        tape.c(300.0, say(ACK, 1100, 9001)).s(300.1, say(ACK, 9001, 1101).window(0));
        tape.s(400.0, say(ACK, 9001, 1101));
        tape
    };
    let mut lost = stall();
    lost.c(800.0, say(ACK, 1100, 9001)).s(800.1, say(ACK, 9001, 1101));
    // Without data after it, the probe is a keepalive.
    assert!(!says(&lost, "window-update-lost"));
    lost.c(820.0, say(ACK, 1101, 9001).len(100)).s(820.1, say(ACK, 9001, 1201));
    let found = lost.find("window-update-lost");
    assert_eq!((packets(&found), found.cost, found.end), (vec![8, 9], Some(400_000_000), Place::Path));

    let mut heard = stall();
    heard.c(420.0, say(ACK, 1101, 9001).len(100)).s(420.1, say(ACK, 9001, 1201));
    heard.c(1800.0, say(ACK, 1200, 9001)).s(1800.1, say(ACK, 9001, 1201));
    heard.c(1900.0, say(ACK, 1201, 9001).len(100)).s(1900.1, say(ACK, 9001, 1301));
    assert!(!says(&heard, "window-update-lost") && says(&heard, "window-zero"));
}

#[test]
fn a_window_that_is_taken_back_is_told_from_one_that_fills() {
    let windows = |last: u16| {
        let mut tape = Tape::new();
        tape.open();
        tape.c(21.0, say(ACK, 1001, 9001).len(1000)).s(41.0, say(ACK, 9001, 2001).window(500));
        tape.c(42.0, say(ACK, 2001, 9001).len(1000)).s(62.0, say(ACK, 9001, 3001).window(last));
        tape
    };
    let found = windows(400).find("window-shrunk");
    assert_eq!((found.end, packets(&found)), (Place::Server, vec![7]));
    // 500 · 128 − 1000 bytes, rounded down.
    assert!(!says(&windows(492), "window-shrunk"));
    // An old acknowledgment takes nothing back.
    let mut late = windows(500);
    late.s(62.1, say(ACK, 9001, 2001).window(300));
    assert!(!says(&late, "window-shrunk"));
}

#[test]
fn other_bytes_under_the_same_numbers_are_not_from_the_end() {
    let race = |len: usize, fill: u8, acked: bool| {
        let mut tape = Tape::new();
        tape.open();
        tape.c(21.0, say(ACK, 1001, 9001).len(100)).s(25.0, say(ACK, 9001, 1101).len(200));
        if acked {
            tape.c(25.1, say(ACK, 1101, 9201));
        }
        tape.s(42.0, say(ACK, 9001, 1101).len(len).fill(fill)).c(42.1, say(ACK, 1101, 9401));
        tape
    };
    for (acked, last) in [(false, 6), (true, 7)] {
        for len in [200, 400] {
            let found = race(len, 9, acked).find("path-overlap-differs");
            assert_eq!((packets(&found), found.severity), (vec![5, last], Severity::Error));
            // The same bytes, cut otherwise.
            assert!(!says(&race(len, 7, acked), "path-overlap-differs"));
        }
        assert!(!says(&race(60, 7, acked), "path-overlap-differs"));
        assert!(says(&race(60, 9, acked), "path-overlap-differs"));
    }
}

#[test]
fn a_pause_that_no_end_knows_is_a_step_of_the_clock() {
    // Requests every 40 ms, with timestamps in units of `tick` milliseconds. So many pass at each end in the pause.
    let pause = |tick: u32, client: u32, server: u32| {
        let mut tape = Tape::new();
        tape.open();
        for n in 0..6u32 {
            let (mut at, mut ticks) = (21.0 + f64::from(n) * 40.0, [1, 1].map(|first| first + 21 + n * 40));
            if n >= 3 {
                at += 5000.0;
                ticks = [ticks[0] + client, ticks[1] + server];
            }
            let (c, s) = (1001 + n * 100, 9001 + n * 200);
            tape.c(at, say(ACK, c, s).len(100).options(stamped(ticks[0] / tick, 5)))
                .s(
                    at + 20.0,
                    say(ACK, s, c + 100).len(200).options(stamped((ticks[1] + 20) / tick, ticks[0] / tick)),
                )
                .c(
                    at + 20.1,
                    say(ACK, c + 100, s + 200).options(stamped((ticks[0] + 20) / tick, ticks[1] / tick)),
                );
        }
        tape
    };
    let found = pause(1, 0, 0).find("cap-clock-jump");
    assert_eq!((found.count, packets(&found)), (1, vec![13]));
    assert_eq!(pause(1, 0, 0).bad(), ["cap-clock-jump"]);
    // A real pause; clocks too slow to tell; an end that slept.
    for (tick, client, server) in
        [(1, 5000, 5000), (10, 5000, 5000), (500, 5000, 5000), (1, 0, 5000), (1, 5000, 0)]
    {
        assert!(!says(&pause(tick, client, server), "cap-clock-jump"), "{tick} {client} {server}");
    }
}

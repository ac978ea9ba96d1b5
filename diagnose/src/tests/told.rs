//! Rules for what is worth knowing and no fault, each beside a connection of which it must not be said.

use super::rare::{says, stamped};
use super::*;

#[test]
fn an_acknowledgment_is_lost_if_the_sender_had_time_to_hear_it() {
    // Near the receiver: the data comes again, a while after its acknowledgment left.
    let again = |after: f64| {
        let mut tape = Tape::new();
        tape.open_at_server();
        tape.c(21.0, say(ACK, 1001, 9001).len(100)).s(21.1, say(ACK, 9001, 1101));
        tape.c(21.1 + after, say(ACK, 1001, 9001).len(100)).s(21.2 + after, say(ACK, 9001, 1101));
        tape
    };
    let found = again(220.0).find("loss-ack-lost");
    assert_eq!(
        (packets(&found), found.end, found.alternatives[0].id),
        (vec![6], Place::Path, "loss-spurious")
    );
    assert_eq!(again(220.0).bad(), Vec::<&str>::new());
    // It may have crossed the acknowledgment.
    assert!(!says(&again(20.0), "loss-ack-lost") && says(&again(20.0), "loss-spurious"));
}

#[test]
fn a_dsack_of_data_that_nothing_acknowledged_tells_of_a_lost_acknowledgment() {
    // Near the sender: the answer to the repeated segment says that the first one had arrived.
    let repeated = |dsack: bool| {
        let mut tape = Tape::new();
        tape.open();
        tape.c(21.0, say(ACK, 1001, 9001).len(100)).c(321.0, say(ACK, 1001, 9001).len(100));
        let ack = say(ACK, 9001, 1101);
        tape.s(341.0, if dsack { ack.sack(1001, 1101) } else { ack });
        tape
    };
    assert_eq!(packets(&repeated(true).find("loss-ack-lost")), [6]);
    assert!(!says(&repeated(false), "loss-ack-lost"));
    // The acknowledgment came, and late: nothing was lost.
    let mut late = Tape::new();
    late.open();
    late.c(21.0, say(ACK, 1001, 9001).len(100)).c(321.0, say(ACK, 1001, 9001).len(100));
    late.s(330.0, say(ACK, 9001, 1101)).s(341.0, say(ACK, 9001, 1101).sack(1001, 1101));
    assert!(!says(&late, "loss-ack-lost"));
}

#[test]
fn a_ttl_that_stays_is_a_change_and_one_that_does_not_is_none() {
    let with = |segments: u32| {
        let mut tape = Tape::new();
        tape.open().exchange();
        for n in 0..segments {
            tape.ttl[1] = 51;
            tape.s(50.0 + f64::from(n), say(ACK, 9201 + n * 100, 1101).len(100));
        }
        tape.ttl[1] = 57;
        tape.s(60.0, say(ACK, 9201 + segments * 100, 1101).len(100));
        tape
    };
    let found = with(3).find("path-ttl-change");
    assert_eq!((packets(&found), found.text.contains("from 57 to 51")), (vec![10], true), "{}", found.text);
    assert!(!says(&with(2), "path-ttl-change"));
    assert_eq!(with(3).bad(), Vec::<&str>::new());
}

#[test]
fn other_bytes_with_another_ttl_are_injected() {
    let answers = |forged_first: bool, ttl: u8| {
        let mut tape = Tape::new();
        tape.open();
        tape.c(21.0, say(ACK, 1001, 9001).len(100));
        for (at, forged) in [(30.0, forged_first), (41.0, !forged_first)] {
            tape.ttl[1] = if forged { ttl } else { 57 };
            tape.s(at, say(ACK, 9001, 1101).len(200).fill(if forged { 9 } else { 7 }));
        }
        tape
    };
    for (first, evidence) in [(true, [5, 6]), (false, [6, 5])] {
        let tape = answers(first, 49);
        let found = tape.find("path-data-injected");
        assert_eq!(
            (packets(&found), found.end, found.severity),
            (evidence.to_vec(), Place::Path, Severity::Error)
        );
        assert!(!says(&tape, "path-overlap-differs"));
    }
    // A router more or less is no other host.
    let near = answers(true, 56);
    assert!(!says(&near, "path-data-injected") && says(&near, "path-overlap-differs"));
    // The same bytes again, by another way.
    let mut same = Tape::new();
    same.open();
    same.s(30.0, say(ACK, 9001, 1001).len(200));
    same.ttl[1] = 49;
    same.s(330.0, say(ACK, 9001, 1001).len(200));
    assert!(!says(&same, "path-data-injected"));
}

/// A SYN that a SYN answers. `both`: both ends send a SYN-ACK.
fn syns_from_both(both: bool) -> Tape {
    let mut tape = Tape::new();
    tape.c(0.0, say(SYN, 1000, 0).options(offer(1, 0))).s(20.0, say(SYN, 9000, 0).options(offer(5, 0)));
    tape.c(20.1, say(SYN_ACK, 1000, 9001).options(offer(21, 5)));
    if both {
        tape.s(40.2, say(SYN_ACK, 9000, 1001).options(offer(25, 21)));
    } else {
        tape.s(40.2, say(ACK, 9001, 1001));
    }
    tape.c(41.0, say(ACK, 1001, 9001).len(100)).s(61.0, say(ACK, 9001, 1101));
    tape
}

#[test]
fn a_syn_for_an_answer_is_a_split_handshake_unless_both_ends_send_a_syn_ack() {
    let found = syns_from_both(false).find("open-split-handshake");
    assert_eq!((packets(&found), found.end), (vec![2, 3], Place::Server));
    assert!(!says(&syns_from_both(false), "open-simultaneous"));
    let crossed = syns_from_both(true);
    assert!(says(&crossed, "open-simultaneous") && !says(&crossed, "open-split-handshake"));
}

#[test]
fn a_syn_with_data_may_vanish_where_one_without_passes() {
    let opened = |first: usize, second: usize| {
        let mut tape = Tape::new();
        tape.c(0.0, say(SYN, 1000, 0).len(first).options(offer(1, 0)));
        tape.c(1000.0, say(SYN, 1000, 0).len(second).options(offer(1001, 0)));
        tape.s(1020.0, say(SYN_ACK, 9000, 1001).options(offer(5, 1001))).c(1020.1, say(ACK, 1001, 9001));
        tape
    };
    let found = opened(100, 0).find("open-syn-data");
    assert_eq!((packets(&found), found.alternatives[0].id), (vec![1, 2, 3], "open-syn-lost"));
    assert!(!says(&opened(0, 0), "open-syn-data") && !says(&opened(100, 100), "open-syn-data"));
}

#[test]
fn fast_open_fails_where_the_answer_leaves_the_data_out() {
    let opened = |cookie: bool, acked: u32| {
        let fast_open = if cookie { Cookie::new(&[7; 8]) } else { None };
        let mut tape = Tape::new();
        tape.c(0.0, say(SYN, 1000, 0).len(100).options(TcpOptions { fast_open, ..offer(1, 0) }));
        tape.s(20.0, say(SYN_ACK, 9000, 1001 + acked).options(offer(5, 1)));
        tape.c(20.1, say(ACK, 1001 + acked, 9001));
        tape
    };
    let found = opened(true, 0).find("open-tfo-failed");
    assert_eq!((packets(&found), found.end), (vec![1, 2], Place::Server));
    assert!(!says(&opened(true, 0), "open-tfo-used"));
    for taken in [1, 100] {
        let tape = opened(true, taken);
        assert!(says(&tape, "open-tfo-used") && !says(&tape, "open-tfo-failed"), "{taken} bytes");
    }
    assert!(!says(&opened(false, 0), "open-tfo-failed"), "data without a cookie is another matter");
}

#[test]
fn a_client_is_slow_if_nothing_else_held_it_up() {
    let asks_again = |at: f64, acked: bool| {
        let mut tape = Tape::new();
        tape.open().exchange();
        if !acked {
            tape.s(43.0, say(ACK, 9201, 1101).len(100));
        }
        tape.c(at, say(ACK, 1101, 9201).len(100));
        tape
    };
    let found = asks_again(3000.0, true).find("app-slow-client");
    assert_eq!((packets(&found), found.end, found.severity), (vec![8], Place::Client, Severity::Info));
    assert!(found.text.contains("2.958 s in 1 pauses"), "{}", found.text);
    assert!(!says(&asks_again(1000.0, true), "app-slow-client"));
    // Data of the server is on its way.
    assert!(!says(&asks_again(3000.0, false), "app-slow-client"));
    // The server let it wait.
    let mut served = Tape::new();
    served.open().c(21.0, say(ACK, 1001, 9001).len(100)).s(41.0, say(ACK, 9001, 1101));
    served.s(3000.0, say(ACK, 9001, 1101).len(200)).c(3000.1, say(ACK, 1101, 9201).len(100));
    assert!(!says(&served, "app-slow-client") && says(&served, "app-slow-response"));
}

#[test]
fn connections_that_are_open_at_the_end_are_counted() {
    let mut open = Tape::new();
    open.open().exchange();
    let found = open.find("cap-end-open");
    assert_eq!((packets(&found), found.count, found.end), (vec![7], 1, Place::Capture));
    open.c(50.0, say(FIN_ACK, 1101, 9201)).s(70.0, say(FIN_ACK, 9201, 1102));
    assert!(!says(&open, "cap-end-open"));
    let mut silent = Tape::new();
    silent.c(0.0, say(SYN, 1000, 0).options(offer(1, 0)));
    assert!(!says(&silent, "cap-end-open"));
}

#[test]
fn the_place_of_the_capture_is_told_by_the_times_of_the_answers() {
    let text = |tape: &Tape| tape.find("cap-vantage").text;
    let (mut client, mut server, mut between) = (Tape::new(), Tape::new(), Tape::new());
    client.open();
    server.open_at_server();
    between.c(0.0, say(SYN, 1000, 0).options(offer(1, 0)));
    between.s(10.0, say(SYN_ACK, 9000, 1001).options(offer(5, 1))).c(22.0, say(ACK, 1001, 9001));
    assert!(
        text(&client).starts_with("Captured near the clients: 0.10 ms from the clients and back, 20.00 ms")
    );
    assert!(text(&server).starts_with("Captured near the servers: 19.90 ms"), "{}", text(&server));
    assert!(text(&between).starts_with("Captured between clients and servers"), "{}", text(&between));
    // Connections of both kinds: nothing is said.
    client.port += 1;
    client.open_at_server();
    assert!(!says(&client, "cap-vantage"));
}

#[test]
fn a_normal_close_is_told_only_if_all_is_asked_for() {
    let mut tape = Tape::new();
    tape.open().exchange();
    tape.c(50.0, say(FIN_ACK, 1101, 9201)).s(70.5, say(FIN_ACK, 9201, 1102));
    // The last acknowledgment is still to come.
    assert!(!says(&tape, "close-normal"));
    tape.c(70.6, say(ACK, 1102, 9202));
    let found = tape.find("close-normal");
    assert_eq!((packets(&found), found.end), (vec![8, 9], Place::Client));
    assert!(tape.report_with(false).connections.is_empty());
    tape.s(80.0, say(RST, 9202, 0).window(0));
    assert!(!says(&tape, "close-normal"));
}

#[test]
fn a_half_close_is_used_if_data_follows_and_is_not_reset() {
    let half = || {
        let mut tape = Tape::new();
        tape.open().exchange();
        tape.c(50.0, say(FIN_ACK, 1101, 9201)).s(70.0, say(ACK, 9201, 1102));
        tape
    };
    assert!(!says(&half(), "close-half-closed"));
    let mut used = half();
    used.s(500.0, say(ACK, 9201, 1102).len(200)).c(500.1, say(ACK, 1102, 9401));
    let found = used.find("close-half-closed");
    assert_eq!((packets(&found), found.end), (vec![8, 10], Place::Client));
    used.c(500.2, say(RST, 1102, 0).window(0));
    assert!(!says(&used, "close-half-closed"));
    // Data that crosses the FIN.
    let mut crossing = Tape::new();
    crossing.open().exchange();
    crossing.c(50.0, say(FIN_ACK, 1101, 9201)).s(51.0, say(ACK, 9201, 1101).len(200));
    assert!(!says(&crossing, "close-half-closed"));
}

/// A block of pcapng.
fn block(file: &mut Vec<u8>, kind: u32, words: &[u32], data: &[u8]) {
    let pad = data.len().next_multiple_of(4) - data.len();
    let len = (12 + 4 * words.len() + data.len() + pad) as u32;
    [kind, len].iter().chain(words).for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(data);
    file.extend(vec![0; pad]);
    file.extend(len.to_le_bytes());
}

/// A handshake that two interfaces of one section see, and how many routers each direction passes between them.
fn seen_twice(hops: [u8; 2]) -> Tape {
    let mut tape = Tape::new();
    let mut file = Vec::new();
    block(&mut file, 0x0a0d_0d0a, &[0x1a2b_3c4d, 1, u32::MAX, u32::MAX], &[]);
    for _ in 0..2 {
        block(&mut file, 1, &[101, 0], &[]);
    }
    let talk = [
        say(SYN, 1000, 0).options(offer(1, 0)),
        say(SYN_ACK, 9000, 1001).options(offer(5, 1)),
        say(ACK, 1001, 9001).options(stamped(2, 5)),
    ];
    for (step, what) in talk.into_iter().enumerate() {
        let way = step % 2;
        let first = tape.packet(way, what, None);
        let mut second = first.clone();
        second[8] -= hops[way];
        for (interface, packet, after) in [(way, first, 0), (1 - way, second, 9000)] {
            let (micros, len) = (step as u32 * 20_000 + after, packet.len() as u32);
            block(&mut file, 6, &[interface as u32, 0, micros, len, len], &packet);
        }
    }
    tape.file = file;
    tape
}

#[test]
fn two_interfaces_see_that_the_directions_take_different_ways() {
    let found = seen_twice([3, 5]).find("path-asymmetric");
    assert!(found.text.contains("client pass 3 routers, and those of the server 5"), "{}", found.text);
    assert!(!says(&seen_twice([4, 4]), "path-asymmetric") && says(&seen_twice([4, 4]), "cap-two-vantages"));
}

#[test]
fn json_lines_have_the_connections_one_by_one_and_then_the_rest() {
    let mut tape = Tape::new();
    for port in [4000, 4001] {
        tape.port = port;
        tape.open().exchange();
    }
    let report = tape.report();
    let mut whole = crate::json("x.pcap", &report);
    let mut lines: Vec<_> = crate::json_lines("x.pcap", &report).collect();
    let last = lines.pop().unwrap();
    let connections = whole.as_object_mut().unwrap().remove("connections").unwrap();
    assert_eq!(whole, last);
    assert_eq!((lines.len(), connections.as_array().unwrap().len()), (2, 2));
    for (line, connection) in lines.iter_mut().zip(connections.as_array().unwrap()) {
        assert_eq!(line.as_object_mut().unwrap().remove("file").unwrap(), "x.pcap");
        assert_eq!(line, connection);
    }
}

#[test]
fn large_segments_that_had_arrived_meet_no_black_hole() {
    let smaller_in_the_end = |dsack: bool| {
        let mut tape = Tape::new();
        tape.open().c(21.0, say(ACK, 1001, 9001).len(100)).s(41.0, say(ACK, 9001, 1101));
        for at in [50.0, 350.0, 950.0, 2150.0] {
            tape.c(at, say(ACK, 1101, 9001).len(1000));
        }
        tape.c(4550.0, say(ACK, 1101, 9001).len(500));
        let ack = say(ACK, 9001, if dsack { 2101 } else { 1601 });
        tape.s(4570.0, if dsack { ack.sack(1101, 1601) } else { ack });
        tape
    };
    assert!(says(&smaller_in_the_end(false), "path-mtu-blackhole"));
    let arrived = smaller_in_the_end(true);
    assert!(!says(&arrived, "path-mtu-blackhole") && says(&arrived, "loss-ack-lost"));
}

//! Rules on packets that the tests build.

mod rare;
mod told;

use std::net::SocketAddr;

use steadfast_capture::Reader;
use steadfast_wire::build;
use steadfast_wire::icmp::{ErrorKind, Message};
use steadfast_wire::seq::SeqNum;
use steadfast_wire::tcp::{Cookie, Flags, Header, Options as TcpOptions, Timestamps};

use crate::catalogue::{DIAGNOSES, diagnosis};
use crate::{Check, Finding, Options, Place, Report, Severity};

const SYN: Flags = Flags::SYN;
const ACK: Flags = Flags::ACK;
const SYN_ACK: Flags = Flags(Flags::SYN.0 | Flags::ACK.0);
const FIN_ACK: Flags = Flags(Flags::FIN.0 | Flags::ACK.0);
const RST: Flags = Flags::RST;

/// A capture that a test writes: raw IP, times in milliseconds. Client numbers begin at 1000, server numbers at 9000.
struct Tape {
    file: Vec<u8>,
    ids: [u16; 2],
    ttl: [u8; 2],
    port: u16,
    to: u16,
}

/// A segment of a tape.
#[derive(Clone, Copy)]
struct Say {
    flags: Flags,
    seq: u32,
    ack: u32,
    len: usize,
    window: u16,
    options: TcpOptions,
    fill: u8,
}

fn say(flags: Flags, seq: u32, ack: u32) -> Say {
    Say { flags, seq, ack, len: 0, window: 500, options: TcpOptions::default(), fill: 7 }
}

impl Say {
    fn len(self, len: usize) -> Say {
        Say { len, ..self }
    }

    fn window(self, window: u16) -> Say {
        Say { window, ..self }
    }

    fn options(self, options: TcpOptions) -> Say {
        Say { options, ..self }
    }

    fn fill(self, fill: u8) -> Say {
        Say { fill, ..self }
    }

    fn sack(mut self, left: u32, right: u32) -> Say {
        self.options.sack.push(SeqNum(left), SeqNum(right));
        self
    }
}

/// The options of a SYN.
fn offer(stamp: u32, echo: u32) -> TcpOptions {
    TcpOptions {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { val: stamp, ecr: echo }),
        ..TcpOptions::default()
    }
}

impl Tape {
    fn new() -> Tape {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 101] {
            file.extend(word.to_le_bytes());
        }
        Tape { file, ids: [100, 7000], ttl: [64, 57], port: 4000, to: 80 }
    }

    fn ends(&self) -> [SocketAddr; 2] {
        [SocketAddr::from(([192, 0, 2, 1], self.port)), SocketAddr::from(([198, 51, 100, 2], self.to))]
    }

    fn record(&mut self, millis: f64, bytes: &[u8]) {
        let micros = 1_700_000_000_000_000u64 + (millis * 1000.0) as u64;
        let len = bytes.len() as u32;
        for word in [(micros / 1_000_000) as u32, (micros % 1_000_000) as u32, len, len] {
            self.file.extend(word.to_le_bytes());
        }
        self.file.extend(bytes);
    }

    /// The packet of an end: 0 the client, 1 the server. The next identification unless `id` gives one.
    fn packet(&mut self, way: usize, what: Say, id: Option<u16>) -> Vec<u8> {
        let ends = self.ends();
        let header = Header {
            seq: SeqNum(what.seq),
            ack: SeqNum(what.ack),
            flags: what.flags,
            window: what.window,
            options: what.options,
            ..Header::default()
        };
        let mut packet = build::tcp(ends[way], ends[1 - way], header, &vec![what.fill; what.len]).unwrap();
        let id = id.unwrap_or_else(|| {
            self.ids[way] += 1;
            self.ids[way]
        });
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[8] = self.ttl[way];
        packet
    }

    fn c(&mut self, millis: f64, what: Say) -> &mut Tape {
        let packet = self.packet(0, what, None);
        self.record(millis, &packet);
        self
    }

    fn s(&mut self, millis: f64, what: Say) -> &mut Tape {
        let packet = self.packet(1, what, None);
        self.record(millis, &packet);
        self
    }

    /// A handshake near the client, 20 ms from the server. It ends at 20 ms.
    fn open(&mut self) -> &mut Tape {
        self.c(0.0, say(SYN, 1000, 0).window(64_240).options(offer(1, 0)))
            .s(20.0, say(SYN_ACK, 9000, 1001).window(65_160).options(offer(5, 1)))
            .c(20.1, say(ACK, 1001, 9001))
    }

    /// The same near the server.
    fn open_at_server(&mut self) -> &mut Tape {
        self.c(0.0, say(SYN, 1000, 0).window(64_240).options(offer(1, 0)))
            .s(0.1, say(SYN_ACK, 9000, 1001).window(65_160).options(offer(5, 1)))
            .c(20.0, say(ACK, 1001, 9001))
    }

    /// A request of 100 bytes and an answer of 200, after `open`.
    fn exchange(&mut self) -> &mut Tape {
        self.c(21.0, say(ACK, 1001, 9001).len(100))
            .s(41.5, say(ACK, 9001, 1101))
            .s(42.0, say(ACK, 9001, 1101).len(200))
            .c(42.1, say(ACK, 1101, 9201))
    }

    fn report(&self) -> Report {
        self.report_with(true)
    }

    fn report_with(&self, all: bool) -> Report {
        let mut reader = Reader::new(&self.file[..]).unwrap();
        let mut check = Check::new(Options { all, ..Options::default() });
        while let Some(record) = reader.next().unwrap() {
            check.record(&record);
        }
        check.finish(reader.format(), reader.position(), reader.interfaces(), reader.damage())
    }

    fn find(&self, id: &str) -> Finding {
        let report = self.report();
        let found = report.all().find(|finding| finding.id == id).cloned();
        found.unwrap_or_else(|| panic!("no {id} in {:?}", report.all().map(|f| f.id).collect::<Vec<_>>()))
    }

    /// The ids above an information.
    fn bad(&self) -> Vec<&'static str> {
        self.report()
            .all()
            .filter(|finding| finding.severity > Severity::Info)
            .map(|finding| finding.id)
            .collect()
    }
}

fn packets(finding: &Finding) -> Vec<u32> {
    finding.evidence.iter().map(|evidence| evidence.packet).collect()
}

#[test]
fn a_sound_connection_is_told_so_and_who_closed_first() {
    let mut tape = Tape::new();
    tape.open().exchange();
    tape.c(50.0, say(FIN_ACK, 1101, 9201)).s(70.5, say(FIN_ACK, 9201, 1102)).c(70.6, say(ACK, 1102, 9202));
    let report = tape.report();
    assert_eq!((tape.bad(), report.sound, report.connections_total), (vec![], 1, 1));
    let one = &report.connections[0];
    assert_eq!((one.first_to_close, one.ended, one.opened), ("client", "fin-both", "handshake"));
    assert_eq!((one.states, one.bytes), (["TIME-WAIT", "CLOSED"], [100, 200]));
}

#[test]
fn syns_without_an_answer_a_refusal_and_an_icmp_rejection_differ() {
    let mut silent = Tape::new();
    for at in [0.0, 1000.0, 3000.0, 7000.0] {
        silent.c(at, say(SYN, 1000, 0).options(offer(at as u32, 0)));
    }
    assert_eq!(
        (packets(&silent.find("open-no-answer")), silent.bad()),
        (vec![1, 2, 3, 4], vec!["open-no-answer"])
    );

    let mut refused = Tape::new();
    refused
        .c(0.0, say(SYN, 1000, 0).options(offer(1, 0)))
        .s(20.0, say(Flags(RST.0 | ACK.0), 0, 1001).window(0));
    let found = refused.find("open-refused");
    assert_eq!((found.end, packets(&found)[0], refused.bad()), (Place::Server, 2, vec!["open-refused"]));

    let mut rejected = Tape::new();
    let syn = rejected.packet(0, say(SYN, 1000, 0), None);
    rejected.record(0.0, &syn);
    let message = Message::Error { kind: ErrorKind::AdminProhibited, quoted: &syn[..40] };
    let icmp = build::icmp([203, 0, 113, 9].into(), [192, 0, 2, 1].into(), &message).unwrap();
    rejected.record(5.0, &icmp);
    let found = rejected.find("open-rejected-icmp");
    assert!(found.text.contains("administratively prohibited") && packets(&found)[0] == 2, "{}", found.text);
    assert_eq!(rejected.bad(), ["open-rejected-icmp"]);
}

#[test]
fn the_echoed_timestamp_tells_a_lost_syn_from_a_lost_answer() {
    for (echo, id) in [(3000, "open-syn-lost"), (1, "open-synack-lost")] {
        let mut tape = Tape::new();
        for (at, stamp) in [(0.0, 1), (1000.0, 1001), (3000.0, 3000)] {
            tape.c(at, say(SYN, 1000, 0).options(offer(stamp, 0)));
        }
        tape.s(3020.0, say(SYN_ACK, 9000, 1001).options(offer(9, echo))).c(3020.1, say(ACK, 1001, 9001));
        assert_eq!((tape.bad(), packets(&tape.find(id))), (vec![id], vec![1, 2, 3, 4]));
    }
}

#[test]
fn a_syn_ack_that_comes_again_means_different_things_at_both_ends() {
    let syn = |tape: &mut Tape| {
        tape.c(0.0, say(SYN, 1000, 0).options(offer(1, 0)))
            .s(0.1, say(SYN_ACK, 9000, 1001).options(offer(5, 1)));
    };
    // Near the server: the client's SYN comes again, so the answer was lost.
    let mut lost = Tape::new();
    syn(&mut lost);
    lost.c(1000.0, say(SYN, 1000, 0).options(offer(1001, 0)))
        .s(1000.1, say(SYN_ACK, 9000, 1001).options(offer(1005, 1)));
    lost.c(1020.0, say(ACK, 1001, 9001));
    assert_eq!(lost.bad(), ["open-synack-lost"]);
    // Nothing comes until the third: the third segment, or two answers, were lost.
    let mut silent = Tape::new();
    syn(&mut silent);
    silent
        .s(1000.0, say(SYN_ACK, 9000, 1001).options(offer(1005, 1)))
        .s(3000.0, say(SYN_ACK, 9000, 1001).options(offer(3005, 1)));
    silent.c(3020.0, say(ACK, 1001, 9001));
    assert_eq!(
        (silent.bad(), silent.find("open-ack-lost").alternatives[0].id),
        (vec!["open-ack-lost"], "open-synack-lost")
    );
}

#[test]
fn a_full_backlog_is_seen_from_several_connections() {
    let mut tape = Tape::new();
    for port in [4000, 4001] {
        tape.port = port;
        tape.open();
        for at in [1020.0, 3020.0] {
            tape.s(at, say(SYN_ACK, 9000, 1001).options(offer(at as u32, 1)))
                .c(at + 0.1, say(ACK, 1001, 9001));
        }
    }
    let found = tape.find("open-backlog-full");
    assert_eq!((found.end, found.count), (Place::Server, 2));
    assert!(!tape.bad().contains(&"open-ack-lost"));
}

#[test]
fn a_flood_and_a_scan_are_told_apart() {
    let mut flood = Tape::new();
    for n in 0..300u16 {
        flood.port = 2000 + n;
        flood.c(f64::from(n), say(SYN, 1000, 0));
    }
    assert_eq!(flood.bad(), ["open-syn-flood"]);
    let mut scan = Tape::new();
    for n in 0..300u16 {
        (scan.port, scan.to) = (2000, 1 + n);
        scan.c(f64::from(n), say(SYN, 1000, 0))
            .s(f64::from(n) + 0.5, say(Flags(RST.0 | ACK.0), 0, 1001).window(0));
    }
    assert_eq!(scan.bad(), ["open-scan"]);
}

#[test]
fn sack_repair_and_timeout_are_told_apart_near_the_sender() {
    let mut tape = Tape::new();
    tape.open();
    for n in 0..6 {
        tape.c(21.0, say(ACK, 1001 + n * 1000, 9001).len(1000));
    }
    tape.s(41.0, say(ACK, 9001, 2001))
        .s(41.1, say(ACK, 9001, 2001).sack(3001, 4001))
        .s(41.2, say(ACK, 9001, 2001).sack(3001, 7001));
    tape.c(41.3, say(ACK, 2001, 9001).len(1000)).s(61.5, say(ACK, 9001, 7001));
    let found = tape.find("loss-fast-retransmit");
    assert_eq!((packets(&found), tape.bad()), (vec![5, 13], vec!["loss-fast-retransmit"]));

    let mut tape = Tape::new();
    tape.open();
    tape.c(21.0, say(ACK, 1001, 9001).len(1000)).c(21.1, say(ACK, 2001, 9001).len(1000));
    tape.c(321.0, say(ACK, 1001, 9001).len(1000))
        .c(921.0, say(ACK, 1001, 9001).len(1000))
        .s(941.0, say(ACK, 9001, 3001));
    assert_eq!((tape.bad(), packets(&tape.find("loss-rto"))), (vec!["loss-rto"], vec![4, 6, 7]));
}

#[test]
fn late_originals_are_no_retransmissions_near_the_receiver() {
    let mut tape = Tape::new();
    tape.open_at_server();
    for n in 0..10 {
        tape.c(21.0 + f64::from(n), say(ACK, 1001 + n * 1000, 9001).len(1000));
    }
    let (early, late) = (
        tape.packet(0, say(ACK, 11_001, 9001).len(1000), None),
        tape.packet(0, say(ACK, 12_001, 9001).len(1000), None),
    );
    tape.record(40.0, &late);
    tape.s(40.1, say(ACK, 9001, 11_001).sack(12_001, 13_001));
    tape.record(46.0, &early);
    tape.s(46.1, say(ACK, 9001, 13_001));
    assert_eq!(packets(&tape.find("path-reorder")), [16]);
    assert!(tape.report().all().all(|finding| !finding.id.starts_with("loss-")));

    // The same hole, filled with a younger identification: it was lost before here.
    let mut tape = Tape::new();
    tape.open_at_server();
    for n in 0..10 {
        tape.c(21.0 + f64::from(n), say(ACK, 1001 + n * 1000, 9001).len(1000));
    }
    tape.ids[0] += 1;
    tape.c(40.0, say(ACK, 12_001, 9001).len(1000)).s(40.1, say(ACK, 9001, 11_001).sack(12_001, 13_001));
    tape.c(61.0, say(ACK, 11_001, 9001).len(1000)).s(61.1, say(ACK, 9001, 13_001));
    assert_eq!(
        (packets(&tape.find("loss-fast-retransmit")), packets(&tape.find("loss-before-here"))),
        (vec![14, 16], vec![16])
    );
}

#[test]
fn large_segments_that_vanish_are_a_black_hole_and_a_dead_path_is_not() {
    let repeat = |tape: &mut Tape, len: usize| {
        for at in [50.0, 300.0, 800.0, 1800.0, 3800.0] {
            tape.c(at, say(ACK, 1101, 9201).len(len));
        }
    };
    let mut hole = Tape::new();
    hole.open().exchange();
    repeat(&mut hole, 1448);
    assert_eq!(hole.bad(), ["path-mtu-blackhole"]);
    let mut dead = Tape::new();
    dead.open().exchange();
    repeat(&mut dead, 60);
    assert_eq!(dead.bad(), ["live-peer-vanished"]);
}

#[test]
fn probes_of_a_closed_window_are_no_keepalives() {
    let mut tape = Tape::new();
    tape.open().exchange();
    tape.s(50.0, say(ACK, 9201, 1101).window(0));
    for at in [300.0, 800.0, 1800.0] {
        tape.c(at, say(ACK, 1100, 9201)).s(at + 20.0, say(ACK, 9201, 1101).window(0));
    }
    tape.s(2500.0, say(ACK, 9201, 1101).window(500));
    let found = tape.find("window-zero");
    assert_eq!((found.end, tape.bad()), (Place::Server, vec!["window-zero"]));
    assert_eq!(packets(&found)[0], 8);

    let mut dead = Tape::new();
    dead.open().exchange();
    for at in [5000.0, 6000.0, 7000.0] {
        dead.c(at, say(ACK, 1100, 9201));
    }
    assert_eq!(dead.bad(), ["live-keepalive-dead"]);
}

#[test]
fn resets_are_told_apart_by_their_look_and_their_cause() {
    let stamps = TcpOptions { timestamps: Some(Timestamps { val: 9, ecr: 9 }), ..TcpOptions::default() };
    let mut abort = Tape::new();
    abort.open().exchange();
    abort.c(500.0, say(Flags(RST.0 | ACK.0), 1101, 9201).options(stamps));
    assert_eq!((abort.bad(), abort.find("reset-abort").end), (vec![], Place::Client));

    let mut late = Tape::new();
    late.open().exchange();
    late.c(50.0, say(FIN_ACK, 1101, 9201))
        .s(70.0, say(ACK, 9201, 1102))
        .s(500.0, say(ACK, 9201, 1102).len(60))
        .c(500.1, say(RST, 1102, 0).window(0));
    assert_eq!(late.bad(), ["reset-data-after-close"]);

    let mut race = Tape::new();
    race.open().exchange();
    race.c(3000.0, say(ACK, 1101, 9201).len(50))
        .s(3010.0, say(FIN_ACK, 9201, 1101))
        .s(3021.0, say(RST, 9201, 0).window(0));
    assert_eq!(race.bad(), ["app-idle-close-race"]);

    let mut forged = Tape::new();
    forged.open();
    forged.c(21.0, say(ACK, 1001, 9001).len(100));
    forged.ttl[1] = 118;
    forged.s(23.0, say(Flags(RST.0 | ACK.0), 9001, 1101).window(0));
    forged.ttl[1] = 57;
    forged.s(41.0, say(ACK, 9001, 1101));
    assert_eq!(forged.bad(), ["path-rst-injected"]);
}

#[test]
fn closings_go_wrong_in_known_ways() {
    let mut lost = Tape::new();
    lost.open().exchange();
    for at in [50.0, 300.0, 700.0] {
        lost.c(at, say(FIN_ACK, 1101, 9201));
    }
    lost.s(720.0, say(FIN_ACK, 9201, 1102)).c(720.1, say(ACK, 1102, 9202));
    assert_eq!(
        (lost.bad(), packets(&lost.find("close-fin-lost"))),
        (vec!["close-fin-lost"], vec![8, 9, 10, 11])
    );

    let mut last = Tape::new();
    last.open().exchange();
    last.c(50.0, say(FIN_ACK, 1101, 9201))
        .s(70.0, say(ACK, 9201, 1102))
        .s(80.0, say(FIN_ACK, 9201, 1102))
        .c(80.1, say(ACK, 1102, 9202));
    last.s(380.0, say(FIN_ACK, 9201, 1102)).c(380.1, say(ACK, 1102, 9202));
    assert_eq!(last.bad(), ["close-last-ack-lost"]);

    let mut leak = Tape::new();
    leak.open().exchange();
    leak.c(50.0, say(FIN_ACK, 1101, 9201)).s(70.0, say(ACK, 9201, 1102));
    // Another connection, much later, shows that the capture goes on.
    leak.port = 4001;
    leak.c(90_000.0, say(SYN, 1000, 0));
    let found = leak.find("close-wait-leak");
    assert_eq!((found.severity, found.end), (Severity::Warning, Place::Server));
}

#[test]
fn a_syn_into_a_living_connection_is_one_connection_more() {
    let mut tape = Tape::new();
    tape.open_at_server();
    tape.c(5000.0, say(SYN, 700_000, 0).options(offer(1, 0)))
        .s(5000.1, say(ACK, 9001, 1001))
        .c(5020.0, say(RST, 1001, 0).window(0));
    tape.c(5030.0, say(SYN, 700_000, 0).options(offer(31, 0)))
        .s(5030.1, say(SYN_ACK, 800_000, 700_001).options(offer(9, 31)))
        .c(5050.0, say(ACK, 700_001, 800_001));
    assert_eq!(
        (tape.report().connections_total, packets(&tape.find("open-syn-in-established"))),
        (2, vec![4, 5, 6, 7])
    );
}

#[test]
fn small_writes_that_wait_for_acknowledgments_are_seen_at_both_ends() {
    for near_client in [true, false] {
        let mut tape = Tape::new();
        if near_client {
            tape.open()
        } else {
            tape.open_at_server()
        };
        let (mut seq, mut ack, mut at) = (1001, 9001, 100.0);
        for _ in 0..5 {
            let (there, back) = if near_client { (20.0, 0.1) } else { (0.1, 20.0) };
            tape.c(at, say(ACK, seq, ack).len(100)).s(at + 40.0 + there, say(ACK, ack, seq + 100));
            tape.c(at + 40.0 + there + back, say(ACK, seq + 100, ack).len(100))
                .s(at + 40.0 + 2.0 * there + back, say(ACK, ack, seq + 200).len(50));
            (seq, ack, at) = (seq + 200, ack + 50, at + 200.0);
        }
        assert_eq!(
            (tape.bad(), tape.find("app-nagle-delack").end),
            (vec!["app-nagle-delack"], Place::Client)
        );
    }
}

#[test]
fn the_capture_itself_is_judged() {
    let mut twice = Tape::new();
    twice.open().exchange();
    for at in [60.0, 70.0] {
        let packet = twice.packet(0, say(ACK, 1101 + (at as u32 - 60) * 10, 9201).len(100), None);
        twice.record(at, &packet);
        twice.record(at + 0.2, &packet);
        twice.s(at + 21.0, say(ACK, 9201, 1201 + (at as u32 - 60) * 10));
    }
    assert_eq!(twice.bad(), ["cap-duplicates"]);

    let mut lacks = Tape::new();
    lacks.open().exchange();
    lacks.s(60.0, say(ACK, 10_201, 1101).len(200)).c(60.1, say(ACK, 1101, 10_401));
    assert_eq!(lacks.bad(), ["cap-loss"]);

    let mut one_way = Tape::new();
    one_way
        .c(0.0, say(SYN, 1000, 0))
        .c(20.0, say(ACK, 1001, 9001))
        .c(21.0, say(ACK, 1001, 9001).len(100))
        .c(42.0, say(ACK, 1101, 9201));
    assert_eq!(one_way.bad(), ["cap-one-way"]);

    let mut jump = Tape::new();
    jump.open().exchange();
    for n in 0..6 {
        jump.s(-5000.0 + f64::from(n), say(ACK, 9201 + n * 10, 1101).len(10));
    }
    assert_eq!(jump.bad(), ["cap-clock-jump"]);
}

#[test]
fn every_id_is_in_the_catalogue_once_and_is_said_by_a_rule() {
    let rules = [
        include_str!("rules/app.rs"),
        include_str!("rules/closing.rs"),
        include_str!("rules/liveness.rs"),
        include_str!("rules/loss.rs"),
        include_str!("rules/opening.rs"),
        include_str!("rules/options.rs"),
        include_str!("rules/path.rs"),
        include_str!("rules/quality.rs"),
        include_str!("rules/resets.rs"),
        include_str!("rules/window.rs"),
        include_str!("many.rs"),
        include_str!("check.rs"),
    ]
    .concat();
    for (index, one) in DIAGNOSES.iter().enumerate() {
        assert!(rules.contains(&format!("\"{}\"", one.id)), "no rule says {}", one.id);
        assert_eq!(DIAGNOSES.iter().position(|other| other.id == one.id), Some(index), "{}", one.id);
        assert!(!one.title.is_empty() && !one.shown_by.is_empty());
    }
    let said = rules.split('"').filter(|word| {
        ["cap-", "open-", "opt-", "path-", "loss-", "window-", "app-", "live-", "close-", "reset-"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
            && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            && !word.ends_with('-')
    });
    for id in said {
        assert!(diagnosis(id).is_some(), "{id} is not in the catalogue");
    }
}

#[test]
fn no_segments_panic_and_the_table_is_bounded() {
    let mut state = 3u64;
    let mut random = |below: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32 % below
    };
    let mut tape = Tape::new();
    for _ in 0..20_000 {
        tape.port = 4000 + random(20) as u16;
        let flags = Flags(random(64) as u16);
        let mut what = say(flags, 1000 + random(4000), 9000 + random(4000))
            .len(random(50) as usize)
            .window(random(3) as u16 * 300);
        if random(4) == 0 {
            let left = 1000 + random(4000);
            what = what.sack(left, left + random(500));
        }
        let packet = tape.packet(random(2) as usize, what, None);
        tape.record(f64::from(random(60_000)), &packet);
    }
    let report = tape.report();
    assert!(report.connections_total >= 20);

    let mut reader = Reader::new(&tape.file[..]).unwrap();
    let mut check = Check::new(Options { connections: 4, ..Options::default() });
    while let Some(record) = reader.next().unwrap() {
        check.record(&record);
    }
    assert!(check.finish(reader.format(), 0, reader.interfaces(), reader.damage()).connections_total >= 20);
}

#[test]
fn the_document_lists_the_catalogue() {
    const BEGIN: &str = "<!-- diagnoses: generated; UPDATE_DOCS=1 cargo test -p steadfast-diagnose -->\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/captures.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest) = text.split_once(BEGIN).unwrap();
    let (table, tail) = rest.split_once("<!-- end -->").unwrap();
    let row = |one: &crate::catalogue::Diagnosis| {
        format!("| `{}` | {} | {} |\n", one.id, one.title, one.cases.join(", "))
    };
    let rows = DIAGNOSES.iter().map(row).collect::<String>();
    let expected = format!("\n| id | meaning | scenarios of the lab |\n|---|---|---|\n{rows}\n");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{head}{BEGIN}{expected}<!-- end -->{tail}")).unwrap();
    } else {
        assert!(
            table == expected,
            "docs/captures.md is old: UPDATE_DOCS=1 cargo test -p steadfast-diagnose writes it"
        );
    }
}

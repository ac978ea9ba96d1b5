//! A timeline made of packets alone, without a simulated network, and its pictures.

use std::net::SocketAddr;

use bytes::Bytes;
use steadfast_core::Instant;
use steadfast_core::seq::SeqNum;
use steadfast_core::trace::State;
use steadfast_core::wire::tcp::{Flags, Header};
use steadfast_core::wire::{PROTOCOL_UDP, build, ipv6, udp};
use steadfast_testkit::packets;
use steadfast_timeline::page::{Chapter, Page};
use steadfast_timeline::{Fate, Host, Keep, Timeline, capture, ladder};

const C: usize = 0;
const S: usize = 1;

fn ends() -> [SocketAddr; 2] {
    [SocketAddr::from(([10, 0, 0, 1], 40_000)), SocketAddr::from(([10, 0, 0, 2], 80))]
}

fn packet(from: usize, flags: Flags, seq: u32, ack: u32, payload: &[u8]) -> Bytes {
    let (source, destination) = (ends()[from], ends()[1 - from]);
    let header = Header { flags, seq: SeqNum(seq), ack: SeqNum(ack), window: 1000, ..Header::default() };
    packets::segment(source, destination, header, payload).into()
}

/// A handshake, and a segment that is lost and sent again.
fn timeline() -> Timeline {
    let host = |name: &str, end: SocketAddr| Host { name: name.to_owned(), addresses: vec![end.ip()] };
    let [c, s] = ends();
    let mut timeline =
        Timeline::new(vec![host("C", c), host("S", s)], Keep { events: true, bytes: true, info: false });
    let ms = Instant::from_millis;
    timeline.call(ms(0), C, || "connect S:80".to_owned());
    let syn = packet(C, Flags::SYN, 7000, 0, b"");
    let sent = timeline.sent(ms(0), C, &syn);
    timeline.arrived(ms(10), S, &syn, sent);
    let syn_ack = packet(S, Flags::SYN | Flags::ACK, 9000, 7001, b"");
    let sent = timeline.sent(ms(10), S, &syn_ack);
    timeline.arrived(ms(20), C, &syn_ack, sent);
    timeline.state(ms(20), C, (c, s), (c, s), State::SynSent, State::Established);
    let data = packet(C, Flags::PSH | Flags::ACK, 7001, 9001, b"hello");
    let sent = timeline.sent(ms(20), C, &data);
    timeline.fate(sent, Fate::Lost("link down".to_owned()));
    let sent = timeline.sent(ms(220), C, &data);
    timeline.arrived(ms(230), S, &data, sent);
    timeline
}

#[test]
fn a_ladder_has_relative_numbers_and_shows_losses_and_retransmissions() {
    let text = ladder::draw(&timeline(), 100);
    let rows: Vec<&str> = text.lines().collect();
    let [top, call, syn, syn_ack, lost, retransmission] = rows[..] else { panic!("{text}") };
    assert!(top.contains("C 10.0.0.1") && top.ends_with("S 10.0.0.2"), "{text}");
    assert!(call.contains("C: connect S:80"), "{text}");
    assert!(syn.contains("|-- [S] seq 0 win 1000 --") && syn.contains(">|"), "{text}");
    assert!(syn_ack.contains("|<--") && syn_ack.contains("-- [S.] seq 0 ack 1 win 1000 --|"), "{text}");
    assert!(lost.contains("ESTABLISHED") && lost.contains("[P.] seq 1:6 ack 1"), "{text}");
    assert!(lost.contains('X') && !lost.contains('>') && lost.ends_with("lost: link down"), "{text}");
    assert!(retransmission.contains("[P.] seq 1:6 ack 1") && retransmission.ends_with("again"), "{text}");
}

#[test]
fn a_ladder_leaves_out_the_middle_of_many_rows() {
    let text = ladder::draw(&timeline(), 4);
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!(rows.len(), 6, "{text}");
    assert!(rows[4].contains("1 rows left out") && rows[5].ends_with("again"), "{text}");
}

#[test]
fn a_capture_has_each_packet_where_it_was_seen_with_its_fate() {
    let file = capture::section(&timeline(), "hello");
    let has = |text: &str| file.windows(text.len()).filter(|at| *at == text.as_bytes()).count();
    // C sends three packets and receives one; S receives two and sends one.
    assert_eq!(kinds(&file).iter().filter(|kind| **kind == 6).count(), 7);
    assert_eq!(kinds(&file).iter().filter(|kind| **kind == 1).count(), 2, "an interface for each host");
    assert_eq!(has("lost: link down"), 1);
    assert_eq!(has("SYN-SENT > ESTABLISHED"), 1);
    assert_eq!(has("C: connect S:80"), 1);
}

/// The types of the blocks of a capture.
fn kinds(mut file: &[u8]) -> Vec<u32> {
    let mut kinds = Vec::new();
    while let Some(head) = file.first_chunk::<8>() {
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        kinds.push(word(0));
        file = &file[word(4) as usize..];
    }
    kinds
}

#[test]
fn a_page_of_datagrams_has_their_addresses_and_their_bytes() {
    let addresses = [("10.0.0.1", "fd00::1"), ("10.0.0.2", "fd00::2")]
        .map(|(v4, v6)| (v4.parse().unwrap(), v6.parse::<std::net::Ipv6Addr>().unwrap()));
    let host = |name: &str, at: usize| Host {
        name: name.to_owned(),
        addresses: vec![addresses[at].0, addresses[at].1.into()],
    };
    let keep = Keep { events: true, ..Keep::default() };
    let mut timeline = Timeline::new(vec![host("C", C), host("S", S)], keep);
    let mut datagram = |from: usize, ports: (u16, u16), len: usize| {
        let mut bytes = vec![0; udp::HEADER_LEN + len];
        let (source_port, destination_port) = ports;
        udp::Header { source_port, destination_port, checksum: 0 }.emit(len, &mut bytes);
        let header = ipv6::Header::new(addresses[from].1, addresses[1 - from].1, PROTOCOL_UDP);
        let packet = Bytes::from(build::ipv6(&header, &bytes));
        timeline.sent(Instant::from_millis(1), from, &packet);
    };
    datagram(C, (5000, 53), 40);
    datagram(S, (53, 5000), 100);
    datagram(S, (53, 5000), 7);
    let page = Page { chapters: Chapter::all(&timeline, 1), ..Page::default() };
    let one = &page.json()["connections"][0];
    assert_eq!(one["ends"], serde_json::json!(["[fd00::1]:5000", "[fd00::2]:53"]));
    assert_eq!(one["bytes"], serde_json::json!([40, 107]));
}

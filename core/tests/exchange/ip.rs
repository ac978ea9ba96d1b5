//! The checks ahead of the tables: P0 to P5, the order of P8, addresses, fragments, ICMP.

use std::net::IpAddr;

use steadfast_core::counters::DropReason;
use steadfast_core::trace::State;
use steadfast_core::wire::icmp::{self, ErrorKind, Message};
use steadfast_core::wire::tcp::{self, Header};
use steadfast_core::wire::{Ecn, PROTOCOL_TCP, build, checksum, ipv4, ipv6};
use steadfast_core::{ConnectOptions, Duration, Error, Event, ListenOptions, Packet, PacketBytes};
use steadfast_testkit::packets::ip;

use crate::harness::{Test, each, each_with};
use crate::synchronized::{in_each, stays};

fn receive(t: &mut Test, packet: &[u8]) {
    t.stack.receive(t.now, packet);
    t.pump();
}

/// A segment whose options are these bytes, a multiple of four.
fn with_options(t: &Test, header: &Header, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let bare = Header { options: tcp::Options::default(), ..*header };
    let mut segment = vec![0; tcp::HEADER_LEN];
    bare.emit(&mut segment);
    segment[12] = ((20 + options.len()) * 4) as u8;
    segment.extend_from_slice(options);
    segment.extend_from_slice(payload);
    sum(t, &mut segment);
    ip(t.theirs(), t.ours(), PROTOCOL_TCP, &segment)
}

fn sum(t: &Test, segment: &mut [u8]) {
    tcp::write_checksum(t.theirs(), t.ours(), segment);
}

fn ip_header_len(t: &Test) -> usize {
    if t.v6 { 40 } else { 20 }
}

/// P0.
#[test]
fn a_broken_ip_header_is_dropped_p0() {
    each(|t| {
        t.listen();
        let good = t.packet("S seq 0");
        let mut cases = vec![vec![], good[..10].to_vec(), good[..good.len() - 1].to_vec()];
        let mut version = good.clone();
        version[0] = 0x55;
        cases.push(version);
        for case in &cases {
            receive(t, case);
        }
        t.recv_nothing();
        t.dropped(&[DropReason::IpHeader; 4]);
        if !t.v6 {
            let mut ttl = good.clone();
            ttl[8] ^= 1;
            receive(t, &ttl);
            t.dropped(&[DropReason::IpChecksum]);
        }
        t.recv_nothing();
        // Padding of the link is no payload.
        let mut padded = good;
        padded.extend([0; 6]);
        receive(t, &padded);
        t.recv("S. seq 0 ack 1 <mss 1460>");
    });
}

#[test]
fn what_is_not_ours_is_dropped_p0() {
    each(|t| {
        t.listen();
        let (header, _) = t.segment("S seq 0");
        let other: IpAddr = if t.v6 { "fd00::77" } else { "10.0.0.77" }.parse().unwrap();
        let packet = t.ip_packet(t.theirs(), other, &header, &[], Ecn::NotEct);
        receive(t, &packet);
        t.recv_nothing();
        t.dropped(&[DropReason::NotOurs]);
    });
}

/// MUST-51 to MUST-53, THREAT-64: source routes are dropped, other options skipped (MUST-50).
#[test]
fn source_routes_are_dropped_threat_64() {
    each(|t| {
        if t.v6 {
            return;
        }
        t.listen();
        let plain = t.packet("S seq 0");
        let with = |options: &[u8]| {
            let mut packet = plain[..20].to_vec();
            packet[0] = 0x45 + (options.len() / 4) as u8;
            packet[2..4].copy_from_slice(&((plain.len() + options.len()) as u16).to_be_bytes());
            packet.extend_from_slice(options);
            packet[10..12].fill(0);
            let mut sum = checksum::Sum::new();
            sum.add_bytes(&packet);
            packet[10..12].copy_from_slice(&sum.finish().to_be_bytes());
            packet.extend_from_slice(&plain[20..]);
            packet
        };
        receive(t, &with(&[131, 7, 4, 10, 0, 0, 1, 0]));
        receive(t, &with(&[137, 7, 4, 10, 0, 0, 1, 0]));
        t.recv_nothing();
        t.dropped(&[DropReason::SourceRoute; 2]);
        receive(t, &with(&[7, 7, 4, 0, 0, 0, 0, 0]));
        t.recv("S. seq 0 ack 1 <mss 1460>");
    });
}

/// P1, THREAT-58, THREAT-62.
#[test]
fn a_broken_tcp_header_is_dropped_p1() {
    each(|t| {
        t.listen();
        let good = t.packet("S seq 0");
        let segment = good[ip_header_len(t)..].to_vec();
        let patched = |t: &Test, at: usize, bytes: &[u8]| {
            let mut segment = segment.clone();
            segment[at..at + bytes.len()].copy_from_slice(bytes);
            sum(t, &mut segment);
            ip(t.theirs(), t.ours(), PROTOCOL_TCP, &segment)
        };
        let cases = [
            patched(t, 0, &[0, 0]),
            patched(t, 2, &[0, 0]),
            patched(t, 12, &[0x40]),
            patched(t, 12, &[0xf0]),
            ip(t.theirs(), t.ours(), PROTOCOL_TCP, &segment[..19]),
        ];
        for case in &cases {
            receive(t, case);
        }
        t.recv_nothing();
        t.dropped(&[DropReason::TcpHeader; 5]);
        // Reserved bits are ignored (9293-l).
        let reserved = patched(t, 12, &[segment[12] | 0x0e]);
        receive(t, &reserved);
        t.recv("S. seq 0 ack 1 <mss 1460>");
    });
}

/// MUST-3 on an established connection: it is as if the segment had not come.
#[test]
fn a_wrong_checksum_is_dropped_must_3() {
    each(|t| {
        t.reach(State::Established);
        for text in ["R seq 51", "P. seq 51:61 ack 101"] {
            let mut packet = t.packet(text);
            let at = ip_header_len(t) + tcp::CHECKSUM_AT;
            packet[at] ^= 0x10;
            receive(t, &packet);
        }
        t.recv_nothing();
        t.dropped(&[DropReason::TcpChecksum; 2]);
        assert_eq!(t.state(), State::Established);
        // Trusted from the device, it is not looked at.
        let mut packet = t.packet("P. seq 51:61 ack 101");
        let at = ip_header_len(t) + tcp::CHECKSUM_AT;
        packet[at] ^= 0x10;
        let bytes = steadfast_core::PacketBytes::Borrowed(&packet);
        t.stack.receive(t.now, steadfast_core::Packet::new(bytes, true));
        t.recv(". seq 101 ack 61");
    });
}

/// P2 in a synchronized state.
#[test]
fn flags_that_nobody_sends_are_dropped_p2() {
    each(|t| {
        t.reach(State::Established);
        for flags in ["none", "SF", "SR", "SF.", "SR.", "SFRPU.", "PU"] {
            let ack = if flags.contains('.') { " ack 101" } else { "" };
            t.send(&format!("{flags} seq 51{ack}"));
        }
        t.recv_nothing();
        t.dropped(&[DropReason::TcpFlags; 7]);
        assert_eq!(t.state(), State::Established);
    });
}

/// P3, THREAT-57: broken options cost the segment, never the connection; unknown ones are skipped (MUST-6), and options
/// may lie at any byte (MUST-64).
/// Known are EOL, NOP and MSS at least (MUST-4), an option may stand in any segment (MUST-5), but those of a SYN
/// count nowhere else (MUST-65, 7323-1).
#[test]
fn broken_options_drop_the_segment_p3() {
    each(|t| {
        t.listen();
        let (header, _) = t.segment("S seq 0");
        let broken: [&[u8]; 8] = [
            &[2, 0, 5, 180],
            &[2, 1, 5, 180],
            &[2, 5, 5, 180],
            &[1, 1, 1, 2],
            &[2, 3, 5, 0],
            &[3, 4, 1, 0],
            &[8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[99, 0, 0, 0],
        ];
        for options in broken {
            let packet = with_options(t, &header, options, &[]);
            receive(t, &packet);
        }
        t.recv_nothing();
        t.dropped(&[DropReason::TcpOptions; 8]);
        // Unknown, an odd place, a repetition of which the first counts, rubbish after the end.
        let packet = with_options(t, &header, &[99, 3, 7, 2, 4, 2, 88, 2, 4, 1, 1, 0, 2, 0, 0, 0], &[]);
        t.ts = false;
        receive(t, &packet);
        t.recv("S. seq 0 ack 1 <mss 1460>");
        t.send(". seq 1 ack 1");
        t.accept();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().snd_mss, 600);
        // On the connection: a broken option is dropped, a SYN's option ignored (MUST-5, MUST-65).
        let (header, payload) = t.segment("P. seq 1:11 ack 1");
        let packet = with_options(t, &header, &[2, 0, 5, 180], &payload);
        receive(t, &packet);
        t.recv_nothing();
        t.dropped(&[DropReason::TcpOptions]);
        let packet = with_options(t, &header, &[2, 4, 2, 44, 3, 3, 9, 1], &payload);
        receive(t, &packet);
        t.recv(". seq 1 ack 11");
        let info = t.stack.info(t.now, t.sock).unwrap();
        assert_eq!((info.snd_mss, info.snd_wnd), (600, 65_535));
    });
}

/// P5, THREAT-39.
#[test]
fn a_segment_from_ourselves_is_dropped_p5() {
    each(|t| {
        t.listen();
        let (mut header, _) = t.segment("S seq 0");
        for port in [80, 81] {
            (header.source_port, header.destination_port) = (port, port);
            let packet = t.ip_packet(t.ours(), t.ours(), &header, &[], Ecn::NotEct);
            receive(t, &packet);
        }
        t.recv_nothing();
        assert_eq!(t.stack.usage().half_open, 0);
        let counters = t.stack.counters();
        let dropped = counters.dropped(DropReason::Land) + counters.dropped(DropReason::BadSource);
        assert_eq!(dropped, 2);
    });
}

/// P8: RST, SYN, ACK, text, FIN, in this order. A segment that fails one check has no effect at a later one.
#[test]
fn the_checks_of_a_segment_come_in_their_order_p8() {
    each(|t| {
        t.reach(State::Established);
        let beyond = t.nxt + 1000;
        // SYN before the ACK, whose number is wrong: it is the SYN that is answered.
        t.send(&format!("S. seq 51 ack {beyond}"));
        t.recv_ack();
        t.dropped(&[DropReason::SynChallenged]);
        // ACK before URG, text and FIN: nothing of them counts.
        t.events(t.sock);
        t.send(&format!("FPU. seq 51:61 ack {beyond} urg 3"));
        t.recv_ack();
        t.dropped(&[DropReason::AckOfUnsent]);
        assert_eq!((t.state(), t.events(t.sock)), (State::Established, Event::default()));
        // ACK before text: what a segment acknowledges is gone when its text is answered.
        t.write(10);
        t.recv("P. seq 101:111 ack 51");
        t.send("FP. seq 51:61 ack 111");
        t.recv(". seq 111 ack 62");
        assert_eq!((t.state(), t.queued()), (State::CloseWait, 0));
        // Text before FIN: all of it can be read before the end.
        t.read(10);
        assert_eq!(t.read_end(), Ok(0));
    });
    each(|t| {
        t.reach(State::Established);
        // RST before the ACK, whose number is wrong.
        t.send(&format!("R. seq 51 ack {}", t.nxt + 1000));
        t.is_closed(Some(Error::ConnectionReset));
    });
}

/// MUST-43, MUST-45: a connect may say from where, and whatever the connection sends is from there. 1122-4: who is
/// asked at one of our addresses answers from it.
#[test]
fn a_connection_keeps_its_address_must_43_must_45() {
    each(|t| {
        let other: IpAddr = if t.v6 { "fd00::5" } else { "10.0.0.5" }.parse().unwrap();
        t.stack.add_address(other, 24);
        let sources = |t: &mut Test| {
            let mut frame = vec![0; 2000];
            let mut all = Vec::new();
            while let Some(sent) = t.stack.transmit(t.now, &mut frame) {
                let packet = &frame[..sent.len];
                all.push(if t.v6 {
                    IpAddr::V6(ipv6::parse(packet).unwrap().0.source)
                } else {
                    IpAddr::V4(ipv4::parse(packet).unwrap().0.source)
                });
            }
            all
        };
        let from = |address| ConnectOptions { local_address: Some(address), ..ConnectOptions::default() };
        let id = t.stack.connect(t.now, t.remote(), from(other)).unwrap();
        for _ in 0..3 {
            assert_eq!(sources(t), [other]);
            t.now += Duration::from_secs(1);
            t.stack.advance(t.now);
        }
        sources(t);
        t.stack.abort(t.now, id).unwrap();
        assert_eq!(t.stack.connect(t.now, t.remote(), from(t.theirs())), Err(Error::AddrNotAvailable));
        let any: IpAddr = if t.v6 { "::" } else { "0.0.0.0" }.parse().unwrap();
        let listener = t.stack.listen((any, 80).into(), ListenOptions::default()).unwrap();
        let (header, _) = t.segment("S seq 0");
        for address in [other, t.ours()] {
            let syn = t.ip_packet(t.theirs(), address, &header, &[], Ecn::NotEct);
            t.stack.receive(t.now, &syn[..]);
            assert_eq!(sources(t), [address]);
            // And so do its RST and its answer to a ping.
            let (mut stray, _) = t.segment(". seq 1 ack 1");
            stray.destination_port = 81;
            let stray = t.ip_packet(t.theirs(), address, &stray, &[], Ecn::NotEct);
            t.stack.receive(t.now, &stray[..]);
            assert_eq!(sources(t), [address]);
        }
        t.stack.close(t.now, listener).unwrap();
    });
}

/// The pieces of a packet, each with `size` bytes of payload but the last.
fn fragments(t: &Test, packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let payload = &packet[ip_header_len(t)..];
    let count = payload.chunks(size).count();
    let piece = |(n, chunk): (usize, &[u8])| {
        let (more, offset) = (n + 1 < count, (n * size) as u16);
        match (t.theirs(), t.ours()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = ipv4::Header {
                    identification: 77,
                    dont_fragment: false,
                    more_fragments: more,
                    fragment_offset: offset,
                    ..ipv4::Header::new(source, destination, PROTOCOL_TCP)
                };
                build::ipv4(&header, chunk)
            }
            _ => {
                let mut body = vec![PROTOCOL_TCP, 0];
                body.extend((offset | u16::from(more)).to_be_bytes());
                body.extend(77u32.to_be_bytes());
                body.extend_from_slice(chunk);
                ip(t.theirs(), t.ours(), 44, &body)
            }
        }
    };
    payload.chunks(size).enumerate().map(piece).collect()
}

#[test]
fn fragments_are_put_together_in_any_order_1122_2() {
    each(|t| {
        t.reach(State::Established);
        let packet = t.packet("P. seq 51:1051 ack 101");
        let mut pieces = fragments(t, &packet, 256);
        pieces.reverse();
        let last = pieces.pop().unwrap();
        for piece in &pieces {
            receive(t, piece);
        }
        t.recv_nothing();
        assert_eq!(t.stack.usage().fragments, 1);
        receive(t, &last);
        t.recv(". seq 101 ack 1051");
        t.read(1000);
        let usage = t.stack.usage();
        assert_eq!((usage.fragments, usage.fragment_bytes), (0, 0));
        assert_eq!(t.stack.counters().reasm_oks, 1);
    });
}

/// 8200-3, THREAT-65: an overlap discards the datagram.
#[test]
fn overlapping_fragments_are_discarded_8200_3() {
    each(|t| {
        t.reach(State::Established);
        let packet = t.packet("P. seq 51:551 ack 101");
        let pieces = fragments(t, &packet, 256);
        let other = fragments(t, &packet, 128);
        receive(t, &pieces[0]);
        receive(t, &other[1]);
        for piece in &pieces[1..] {
            receive(t, piece);
        }
        t.recv_nothing();
        assert_eq!(t.stack.info(t.now, t.sock).unwrap().bytes_received, 50);
        assert!(t.stack.counters().reasm_fails >= 1);
        t.wait(200_000);
        t.icmp.clear();
        assert_eq!(t.stack.usage().fragments, 0);
    });
}

/// 1122-2: incomplete datagrams go after a while, and their sender is told if the first piece was there.
#[test]
fn incomplete_datagrams_time_out_1122_2() {
    each(|t| {
        t.reach(State::Established);
        let packet = t.packet("P. seq 51:551 ack 101");
        let pieces = fragments(t, &packet, 256);
        receive(t, &pieces[0]);
        t.wait(120_000);
        assert_eq!(t.stack.usage().fragments, 0);
        assert_eq!(t.stack.counters().reasm_timeout, 1);
        let (to, body) = t.icmp.pop_front().expect("time exceeded");
        assert_eq!(to, t.theirs());
        let Some(Message::Error { kind, quoted }) = parse(t, &body) else { panic!() };
        assert_eq!(kind, ErrorKind::ReassemblyTimeExceeded);
        // Headers and eight bytes more: ports and sequence number, by which the sender knows what it is about.
        let ports = [t.cur().port.to_be_bytes(), t.port.to_be_bytes()].concat();
        let at = ip_header_len(t) + if t.v6 { 8 } else { 0 };
        assert_eq!(quoted.get(at..at + 4), Some(&ports[..]));
        assert!(quoted.len() >= at + 8);
    });
}

fn parse<'a>(t: &Test, body: &'a [u8]) -> Option<Message<'a>> {
    match (t.ours(), t.theirs()) {
        (IpAddr::V6(us), IpAddr::V6(peer)) => icmp::parse_v6(us, peer, body),
        _ => icmp::parse_v4(body),
    }
}

/// The device vouches for a fragment at most, and the buffer of the last one does not hold the datagram.
#[test]
fn a_datagram_of_fragments_is_summed_and_owns_its_bytes_must_3() {
    each(|t| {
        t.reach(State::Established);
        let packet = t.packet("P. seq 51:4051 ack 101");
        let mut broken = packet.clone();
        *broken.last_mut().unwrap() ^= 1;
        for (packet, dropped) in [(broken, 1), (packet, 0)] {
            for piece in fragments(t, &packet, 2048) {
                let packet = Packet::new(PacketBytes::Shared(piece.into()), true);
                t.stack.receive(t.now, packet);
            }
            t.dropped(&vec![DropReason::TcpChecksum; dropped]);
        }
        t.recv(". seq 101 ack 4051");
        t.read(4000);
    });
}

/// A fragmented datagram may begin with extension headers of its own (RFC 8200 §4.5).
#[test]
fn extension_headers_behind_the_fragment_header_are_skipped_8200_1() {
    each(|t| {
        if !t.v6 {
            return;
        }
        t.listen();
        let packet = t.packet("S seq 0:100 <sackOK, wscale 0>");
        let mut datagram = vec![PROTOCOL_TCP, 0, 1, 4, 0, 0, 0, 0];
        datagram.extend_from_slice(&packet[ipv6::HEADER_LEN..]);
        let (first, second) = datagram.split_at(64);
        for (offset, part) in [(1u16, first), (64, second)] {
            let mut body = vec![60, 0];
            body.extend(offset.to_be_bytes());
            body.extend(77u32.to_be_bytes());
            body.extend_from_slice(part);
            receive(t, &ip(t.theirs(), t.ours(), 44, &body));
        }
        t.recv("S. seq 0 ack 1 <mss 1460, sackOK, wscale 0>");
    });
}

#[test]
fn an_echo_request_is_answered() {
    each(|t| {
        t.icmp_message(&Message::EchoRequest { ident: 3, sequence: 9, data: b"hello" });
        let (to, body) = t.icmp.pop_front().expect("a reply");
        assert_eq!(to, t.theirs());
        assert_eq!(parse(t, &body), Some(Message::EchoReply { ident: 3, sequence: 9, data: b"hello" }));
        assert!(t.icmp.is_empty());
    });
}

/// As `net.ipv4.icmp_ratelimit` of Linux, and the other limits here.
#[test]
fn an_icmp_ratelimit_of_zero_is_no_limit() {
    for (limit, all) in [(1000, false), (0, true)] {
        each_with(
            |c| c.icmp_ratelimit = limit,
            |t| {
                for sequence in 0..500 {
                    t.icmp_message(&Message::EchoRequest { ident: 3, sequence, data: b"" });
                }
                assert_eq!(t.icmp.len() == 500, all, "{} replies", t.icmp.len());
                assert!(!t.icmp.is_empty());
                t.icmp.clear();
                let throttled = t.stack.counters().dropped(DropReason::ReplyThrottled);
                assert_eq!(throttled == 0, all);
                t.dropped(&vec![DropReason::ReplyThrottled; throttled as usize]);
            },
        );
    }
}

#[test]
fn an_unknown_protocol_is_unreachable() {
    each(|t| {
        let sctp = ip(t.theirs(), t.ours(), 132, &[0, 9, 0, 9, 0, 8, 0, 0]);
        receive(t, &sctp);
        let (_, body) = t.icmp.pop_front().expect("an error");
        let Some(Message::Error { kind, quoted }) = parse(t, &body) else { panic!() };
        assert_eq!((kind, quoted), (ErrorKind::ProtocolUnreachable, &sctp[..]));
        t.dropped(&[DropReason::UnknownProtocol]);
    });
}

/// RFC 8200 §4.7: nothing follows such a header, so that there is nothing to refuse.
#[test]
fn no_next_header_is_ignored() {
    each(|t| {
        if !t.v6 {
            return;
        }
        let packet = ip(t.theirs(), t.ours(), 59, b"leftover");
        receive(t, &packet);
        assert!(t.icmp.is_empty());
        t.dropped(&[DropReason::UnknownProtocol]);
    });
}

/// RFC 4443 §3.4: the pointer names the field that has the unknown protocol, behind extension headers too.
#[test]
fn a_parameter_problem_points_at_the_next_header_field() {
    each(|t| {
        if !t.v6 {
            return;
        }
        const DESTINATION_OPTIONS: u8 = 60;
        let padding = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        for (extensions, pointer) in [(0, 6), (1, 40), (2, 48)] {
            let mut payload = Vec::new();
            for nth in 0..extensions {
                payload.extend(padding(if nth + 1 < extensions { DESTINATION_OPTIONS } else { 200 }));
            }
            payload.extend([7; 40]);
            let first = if extensions > 0 { DESTINATION_OPTIONS } else { 200 };
            let packet = ip(t.theirs(), t.ours(), first, &payload);
            receive(t, &packet);
            let (_, body) = t.icmp.pop_front().expect("an error");
            let told = u32::from_be_bytes(*body[4..].first_chunk().unwrap());
            assert_eq!((body[0], body[1], told), (4, 1, pointer));
        }
    });
}

/// 5927-2: an error that quotes somebody else's segment, or nothing, is dropped.
#[test]
fn an_error_about_another_connection_is_dropped_5927_2() {
    each(|t| {
        t.reach(State::Established);
        t.write(10);
        t.recv("P. seq 101:111 ack 51");
        t.peer(5000);
        t.icmp_error(ErrorKind::PortUnreachable, 0);
        t.peer(4000);
        t.dropped(&[DropReason::IcmpUnmatched]);
        t.icmp_message(&Message::Error { kind: ErrorKind::PortUnreachable, quoted: &[0x45, 0, 0] });
        t.dropped(&[DropReason::IcmpInvalid]);
        let mut packet = t.icmp_packet(&Message::EchoRequest { ident: 1, sequence: 1, data: b"x" });
        let last = packet.len() - 1;
        packet[last] ^= 1;
        receive(t, &packet);
        assert!(t.icmp.is_empty());
        t.dropped(&[DropReason::IcmpInvalid]);
        assert_eq!(t.state(), State::Established);
    });
}

/// 8200-1: extension headers are skipped.
#[test]
fn extension_headers_are_skipped_8200_1() {
    each(|t| {
        if !t.v6 {
            return;
        }
        t.listen();
        let packet = t.packet("S seq 0");
        let mut body = vec![PROTOCOL_TCP, 0, 1, 4, 0, 0, 0, 0];
        body.extend_from_slice(&packet[ipv6::HEADER_LEN..]);
        let extended = ip(t.theirs(), t.ours(), 60, &body);
        receive(t, &extended);
        t.recv("S. seq 0 ack 1 <mss 1460>");
    });
}

/// SA-EST-27, SA-EST-28, SA-FIN_WAIT_1-28, SA-FIN_WAIT_1-29, SA-CLOSING-23, SA-CLOSING-24, SA-LAST_ACK-23,
/// SA-LAST_ACK-24 (5927-3): no ICMP error ends a synchronized connection.
/// SHLD-25; SHLD-26 under RFC 5927.
#[test]
fn icmp_errors_are_soft_sa_est_27() {
    in_each(&[State::Established, State::FinWait1, State::CloseWait, State::Closing, State::LastAck], |t| {
        let state = t.state();
        if matches!(state, State::Established | State::CloseWait) {
            t.write(1);
            t.recv_any().expect("a segment");
            t.nxt += 1;
        }
        let hard = [ErrorKind::PortUnreachable, ErrorKind::ProtocolUnreachable, ErrorKind::AdminProhibited];
        let soft = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable, ErrorKind::TimeExceeded];
        for kind in hard.into_iter().chain(soft) {
            t.icmp_error(kind, t.una);
            assert_eq!(t.events(t.sock), Event::SOFT_ERROR);
            assert!(t.stack.take_error(t.sock).unwrap().is_some(), "MUST-47");
            assert_eq!(t.state(), state);
        }
        // About what is not in flight: nothing (5927-1).
        for seq in [t.una - 1, t.nxt] {
            t.icmp_error(ErrorKind::PortUnreachable, seq);
            t.icmp_error(ErrorKind::PacketTooBig { mtu: 1280 }, seq);
        }
        t.dropped(&[DropReason::IcmpNotInFlight; 4]);
        stays(t, state);
    });
}

/// SA-FIN_WAIT_2-28, SA-FIN_WAIT_2-29, SA-CLOSE_WAIT-22, SA-CLOSE_WAIT-23: with nothing in flight, nothing can be
/// meant (5927-1).
#[test]
fn icmp_errors_about_nothing_in_flight_are_dropped_sa_fin_wait_2_28() {
    in_each(&[State::Established, State::FinWait2, State::CloseWait], |t| {
        let state = t.state();
        t.icmp_error(ErrorKind::PortUnreachable, t.una);
        t.icmp_error(ErrorKind::PacketTooBig { mtu: 1280 }, t.una);
        t.dropped(&[DropReason::IcmpNotInFlight; 2]);
        stays(t, state);
    });
}

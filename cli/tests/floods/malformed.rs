//! Malformed segments and packets: THREAT-57 … THREAT-62 and THREAT-64 … THREAT-66.

use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use etherparse::{IpNumber, TcpHeader};
use nix::sys::socket::{MsgFlags, send};

use crate::scene::{Client, Clients, ECHO, Scene};
use crate::segments::{Victim, forged};
use crate::wire::{OURS, anybody, checksum, ours, packet, segment, tcp_of};

const FLOOD: Duration = Duration::from_secs(3);
/// Incomplete datagrams are kept for a while, up to a limit.
const MEMORY: u64 = 8 << 20;
const CLOSED: u16 = 9999;
/// Length of the IPv4 header.
const IP: usize = 20;

/// Each has its own port, so that answers can be told apart and limits per network do not apply.
fn stranger(index: usize) -> SocketAddr {
    SocketAddr::from(([198, 18, (index % 200) as u8, 9], 10_000 + (index % 50_000) as u16))
}

fn syn(tcp: &mut TcpHeader) {
    (tcp.syn, tcp.sequence_number) = (true, 7);
}

/// Fixes the TCP checksum after a change of the header.
fn resum(packet: &mut [u8]) {
    packet[IP + 16..IP + 18].fill(0);
    let len = (packet.len() - IP) as u16;
    let pseudo = [&packet[12..20], &[0, 6], &len.to_be_bytes(), &packet[IP..]].concat();
    let sum = checksum(&pseudo);
    packet[IP + 16..IP + 18].copy_from_slice(&sum.to_be_bytes());
}

/// Fixes the checksum of the IPv4 header.
fn resum_ip(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let len = usize::from(packet[0] & 15) * 4;
    let sum = checksum(&packet[..len.min(packet.len())]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Eight bytes of options, one of which has a length below 2 or beyond their end.
fn broken_options() -> Vec<[u8; 8]> {
    let lens = (0..=40u8).filter(|len| !(2..=8).contains(len));
    let kinds = [2u8, 3, 4, 5, 8, 19, 34, 69, 253, 254, 255];
    lens.flat_map(|len| kinds.map(|kind| [kind, len, 0, 0, 0, 0, 0, 0])).collect()
}

/// THREAT-57: a SYN with an option of invalid length opens no connection, and on a live connection such a segment has
/// no effect.
#[test]
fn options_of_a_broken_length_are_dropped_with_their_segment_t57() {
    let Some(mut scene) = Scene::open(&[]) else { return };
    let mut victim = Victim::connect(&mut scene.wire);
    victim.client.ask(500).unwrap();
    let broken = broken_options();
    let opening = broken.iter().enumerate().map(|(index, options)| {
        segment(
            stranger(index),
            ours(ECHO),
            |tcp| {
                syn(tcp);
                tcp.set_options_raw(options).unwrap();
            },
            &[],
        )
    });
    let packets: Vec<_> = opening.collect();
    for part in packets.chunks(100) {
        let answers = scene.wire.answers(part.iter().map(Vec::as_slice));
        assert!(answers.is_empty(), "{} of {}: {:02x?}", answers.len(), part.len(), answers[0]);
    }
    let (next, ack) = (victim.first.wrapping_add(500), victim.server_first.wrapping_add(500));
    for options in &broken {
        let flags = |tcp: &mut TcpHeader| {
            (tcp.ack, tcp.psh, tcp.acknowledgment_number) = (true, true, ack);
            tcp.set_options_raw(options).unwrap();
        };
        scene.wire.send(&forged(victim.from, next, b"not so", flags));
    }
    victim.client.ask(500).unwrap();
    println!("{} broken options, on SYNs and on a connection", broken.len());
}

/// THREAT-58: a data offset below the minimum or beyond the segment, and impossible IP lengths.
#[test]
fn lengths_that_cannot_be_draw_no_answer_t58() {
    let Some(mut scene) = Scene::open(&[]) else { return };
    let whole = |port| segment(stranger(0), ours(port), syn, &[]);
    let mut packets = Vec::new();
    for port in [ECHO, CLOSED] {
        for offset in (0..5).chain(6..16) {
            let mut packet = whole(port);
            packet[IP + 12] = offset << 4;
            resum(&mut packet);
            packets.push(packet);
        }
        for len in 0..20 {
            packets.push(packet_of(&whole(port)[IP..IP + len]));
        }
        for total in [0u16, 19, 20, 39, 41, 1500, 65_535] {
            let mut packet = whole(port);
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            resum_ip(&mut packet);
            packets.push(packet);
        }
        for words in [0u8, 1, 4, 6, 15] {
            let mut packet = whole(port);
            packet[0] = 0x40 | words;
            resum_ip(&mut packet);
            packets.push(packet);
        }
    }
    let answers = scene.wire.answers(packets.iter().map(Vec::as_slice));
    assert!(answers.is_empty(), "{answers:02x?}");
    println!("{} packets of impossible lengths", packets.len());
}

fn packet_of(body: &[u8]) -> Vec<u8> {
    packet(stranger(0).ip(), OURS[0], IpNumber::TCP, body)
}

/// THREAT-59: a packet with a flipped bit gets no answer, not even a RST.
#[test]
fn a_wrong_bit_anywhere_draws_no_answer_t59() {
    let Some(mut scene) = Scene::open(&[]) else { return };
    let mut count = 0;
    for port in [ECHO, CLOSED] {
        let whole = segment(stranger(1), ours(port), syn, b"payload");
        let flipped = (0..whole.len() * 8).map(|bit| {
            let mut packet = whole.clone();
            packet[bit / 8] ^= 1 << (bit % 8);
            packet
        });
        let packets: Vec<_> = flipped.collect();
        count += packets.len();
        let answers = scene.wire.answers(packets.iter().map(Vec::as_slice));
        assert!(answers.is_empty(), "{answers:02x?}");
    }
    println!("{count} packets with one bit wrong");
}

/// THREAT-60, THREAT-62: every combination of flags without a meaning for the port is silently dropped, and so is every
/// segment from or to port 0.
#[test]
fn odd_flags_draw_no_answer_t60_t62() {
    let Some(mut scene) = Scene::open(&[]) else { return };
    const FIN: u16 = 1;
    const SYN: u16 = 2;
    const RST: u16 = 4;
    const ACK: u16 = 16;
    let with = |index: usize, port: u16, flags: u16| {
        let mut packet = segment(stranger(index), ours(port), syn, &[]);
        packet[IP + 12] = 5 << 4 | (flags >> 8) as u8;
        packet[IP + 13] = flags as u8;
        resum(&mut packet);
        packet
    };
    let silent = |flags: u16, listening: bool| {
        let nothing = flags & (SYN | ACK | RST | FIN) == 0;
        let both = flags & SYN != 0 && flags & (FIN | RST) != 0;
        flags & RST != 0 || nothing || both || (listening && flags & (SYN | ACK) == 0)
    };
    let mut count = 0;
    for (port, listening) in [(ECHO, true), (CLOSED, false)] {
        // The three reserved bits are included.
        for flags in (0..1 << 12u16).filter(|flags| silent(*flags, listening)).collect::<Vec<_>>().chunks(250)
        {
            let packets: Vec<_> =
                flags.iter().enumerate().map(|(index, flags)| with(index, port, *flags)).collect();
            count += packets.len();
            let answers = scene.wire.answers(packets.iter().map(Vec::as_slice));
            assert!(answers.is_empty(), "port {port}: {answers:02x?}");
        }
    }
    let port_zero = [
        segment(stranger(3), ours(0), syn, &[]),
        segment(SocketAddr::new(stranger(3).ip(), 0), ours(ECHO), syn, &[]),
        segment(SocketAddr::new(stranger(3).ip(), 0), ours(CLOSED), syn, &[]),
    ];
    assert!(scene.wire.answers(port_zero.iter().map(Vec::as_slice)).is_empty());
    println!("{count} segments with flags that mean nothing");
}

/// THREAT-64, THREAT-65, THREAT-66: source routes, overlapping and endless fragments, chains of extension headers.
#[test]
fn odd_packets_of_ip_draw_no_answer_t64_t65_t66() {
    let Some(mut scene) = Scene::open(&[]) else { return };
    let whole = segment(stranger(4), ours(ECHO), syn, &[0; 60]);
    let mut packets = Vec::new();
    for kind in [131u8, 137] {
        // Loose and strict source route through another host.
        packets.push(with_ip_options(&whole, &[kind, 7, 4, 198, 18, 0, 1, 0]));
    }
    // A datagram of 80 bytes in two overlapping fragments, in either order.
    packets.extend([fragment(&whole, 1, 0..48, true), fragment(&whole, 1, 40..80, false)]);
    packets.extend([fragment(&whole, 2, 40..80, false), fragment(&whole, 2, 0..48, true)]);
    // One fragment inside another, and one that would end beyond the maximum length of a datagram.
    packets.extend([fragment(&whole, 3, 0..80, true), fragment(&whole, 3, 24..48, true)]);
    let mut beyond = fragment(&whole, 4, 0..80, false);
    beyond[6..8].copy_from_slice(&0x1fffu16.to_be_bytes());
    resum_ip(&mut beyond);
    packets.push(beyond);
    // Nine option headers before TCP, and a first fragment without a whole TCP header.
    let (from, to) = (SocketAddr::new("fd09::50".parse().unwrap(), 40_000), SocketAddr::new(OURS[1], ECHO));
    let v6 = segment(from, to, syn, &[]);
    packets.push(with_headers(&v6, 60, &[1, 4, 0, 0, 0, 0], 9));
    packets.push(with_headers(&v6, 44, &[0, 1, 0, 0, 0, 5], 1)[..40 + 8 + 8].to_vec());
    for packet in &mut packets {
        fix_v6_length(packet);
    }
    let answers = scene.wire.answers(packets.iter().map(Vec::as_slice));
    assert!(answers.is_empty(), "{answers:02x?}");
    // The same datagram in proper fragments is answered, and so is a plain SYN over IPv6.
    let fine = [fragment(&whole, 9, 0..40, true), fragment(&whole, 9, 40..80, false), v6];
    let answers = scene.wire.answers(fine.iter().map(Vec::as_slice));
    assert_eq!(answers.len(), 2, "{answers:02x?}");
}

fn with_ip_options(whole: &[u8], options: &[u8]) -> Vec<u8> {
    let mut packet = [&whole[..IP], options, &whole[IP..]].concat();
    packet[0] = 0x40 | ((IP + options.len()) / 4) as u8;
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    resum_ip(&mut packet);
    packet
}

/// A fragment of an IPv4 datagram. The bounds of `range` are multiples of eight.
fn fragment(whole: &[u8], id: u16, range: std::ops::Range<usize>, more: bool) -> Vec<u8> {
    let mut packet = [&whole[..IP], &whole[IP..][range.clone()]].concat();
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    let field = (range.start / 8) as u16 | if more { 1 << 13 } else { 0 };
    packet[6..8].copy_from_slice(&field.to_be_bytes());
    resum_ip(&mut packet);
    packet
}

/// An IPv6 packet with `count` extension headers of eight bytes and of type `kind`.
fn with_headers(whole: &[u8], kind: u8, body: &[u8; 6], count: usize) -> Vec<u8> {
    let mut packet = whole[..40].to_vec();
    let last = std::mem::replace(&mut packet[6], kind);
    for index in 0..count {
        packet.extend([if index + 1 < count { kind } else { last }, 0]);
        packet.extend(body);
    }
    packet.extend(&whole[40..]);
    packet
}

fn fix_v6_length(packet: &mut [u8]) {
    if packet[0] >> 4 == 6 {
        let len = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
    }
}

/// THREAT-61: urgent data from the kernel is read in line, in its place, and echoed with the rest.
#[test]
fn urgent_data_is_read_in_line_t61() {
    let Some(_scene) = Scene::open(&[]) else { return };
    let mut client = Client::connect().unwrap();
    let mut said = Vec::new();
    for (turn, len) in (0..200).zip([1, 2, 100].into_iter().cycle()) {
        for (flags, byte) in [(MsgFlags::empty(), turn), (MsgFlags::MSG_OOB, !turn)] {
            let data = vec![byte; len];
            assert_eq!(send(client.stream.as_raw_fd(), &data, flags), Ok(len));
            said.extend(data);
        }
    }
    let mut heard = vec![0; said.len()];
    client.stream.read_exact(&mut heard).unwrap();
    assert!(heard == said);
}

/// THREAT-57 … THREAT-65 as a flood, mostly of endless fragments: clients are not affected, and memory stays bounded.
#[test]
fn a_flood_of_garbage_leaves_clients_and_memory_alone_t57_t65() {
    let Some(mut scene) = Scene::open(&[]) else { return };
    let mut rng = fastrand::Rng::with_seed(6);
    let clients = Clients::start();
    scene.wire.flood(FLOOD, || {
        let mut packet = segment(anybody(&mut rng, OURS[0]), ours(ECHO), syn, &[0; 40]);
        match rng.u8(..4) {
            0 => {
                let bit = rng.usize(..packet.len() * 8);
                packet[bit / 8] ^= 1 << (bit % 8);
                packet
            }
            1 => {
                packet[IP + 12] = rng.u8(..) & 0xf0;
                resum(&mut packet);
                packet
            }
            2 => {
                packet.truncate(rng.usize(1..packet.len()));
                packet
            }
            _ => fragment(&packet, rng.u16(..), 8..40, true),
        }
    });
    let tally = clients.end();
    let status = scene.status();
    println!("{} fragments kept", status.usage("fragments"));
    tally.all_went_well();
    let mut late = Client::connect().unwrap();
    late.ask(10_000).unwrap();
    assert!(scene.wire.drain().iter().all(|packet| tcp_of(packet).is_none_or(|tcp| !tcp.rst)));
    scene.took_at_most(MEMORY);
}

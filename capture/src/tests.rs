//! The reader and the link layers on files that the tests build.

use std::io::Write;

use pcap_parser::traits::PcapReaderIterator;

use crate::link::{self, Unread};
use crate::{Direction, Error, NAMES_LIMIT, Reader, Record};

/// A packet of a test file: seconds, fraction, captured bytes, length on the wire.
type Packet<'a> = (u32, u32, &'a [u8], u32);

fn words(big: bool, words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| if big { w.to_be_bytes() } else { w.to_le_bytes() }).collect()
}

fn pcap(magic: u32, big: bool, link: u32, packets: &[Packet<'_>]) -> Vec<u8> {
    let mut file = words(big, &[magic]);
    for half in [2u16, 4] {
        file.extend(if big { half.to_be_bytes() } else { half.to_le_bytes() });
    }
    file.extend(words(big, &[0, 0, 65_535, link]));
    for (seconds, fraction, data, len) in packets {
        file.extend(words(big, &[*seconds, *fraction, data.len() as u32, *len]));
        if magic == 0xa1b2_cd34 {
            file.extend([0, 0, 0, 7, 8, 0, 4, 0]);
        }
        file.extend(*data);
    }
    file
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = body.len() as u32 + 12;
    [words(false, &[kind, len]), body, words(false, &[len])].concat()
}

fn section() -> Vec<u8> {
    block(0x0a0d_0d0a, &[words(false, &[0x1a2b_3c4d, 1]), vec![0xff; 8]].concat())
}

fn interface(link: u32, options: &[u8]) -> Vec<u8> {
    block(1, &[words(false, &[link, 0]), options.to_vec()].concat())
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let mut out = [code.to_le_bytes(), (value.len() as u16).to_le_bytes()].concat();
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn enhanced(interface: u32, units: u64, data: &[u8], options: &[u8]) -> Vec<u8> {
    let len = data.len() as u32;
    let mut body = words(false, &[interface, (units >> 32) as u32, units as u32, len, len]);
    body.extend(data);
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend(options);
    block(6, &body)
}

/// Number, nanoseconds, data and length of each packet, and the problems.
type Read = (Vec<(u64, Option<i64>, Vec<u8>, u32)>, Vec<String>);

fn read(file: &[u8]) -> Read {
    let mut reader = Reader::new(file).unwrap();
    let mut packets = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        packets.push((record.number, record.nanos, record.data.to_vec(), record.len));
    }
    (packets, reader.damage().problems.iter().map(ToString::to_string).collect())
}

const A: &[u8] = b"the first packet of a test";
const B: &[u8] = b"and another one, odd";

#[test]
fn every_magic_and_byte_order_of_pcap_is_read() {
    for (magic, nanos) in [(0xa1b2_c3d4, 7_000), (0xa1b2_3c4d, 7), (0xa1b2_cd34, 7_000)] {
        for big in [false, true] {
            let file = pcap(magic, big, 1, &[(5, 7, A, 60), (6, 0, B, 20)]);
            let (packets, problems) = read(&file);
            assert_eq!(problems, [""; 0]);
            assert_eq!(packets[0], (1, Some(5_000_000_000 + nanos), A.to_vec(), 60));
            assert_eq!(packets[1], (2, Some(6_000_000_000), B.to_vec(), 20));
        }
    }
}

#[test]
fn the_modified_format_tells_the_direction() {
    let file = pcap(0xa1b2_cd34, false, 1, &[(5, 7, A, 60)]);
    let mut reader = Reader::new(&file[..]).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().direction, Some(Direction::Outbound));
}

#[test]
fn pcap_files_are_those_of_two_other_readers() {
    let file = pcap(0xa1b2_c3d4, true, 1, &[(5, 7, A, 60), (6, 999_999, B, B.len() as u32)]);
    let (ours, _) = read(&file);
    let mut theirs = pcap_file::pcap::PcapReader::new(&file[..]).unwrap();
    for (_, nanos, data, len) in &ours {
        let packet = theirs.next_packet().unwrap().unwrap();
        assert_eq!(packet.timestamp.as_nanos() as i64, nanos.unwrap());
        assert_eq!((packet.data.as_ref(), packet.orig_len), (&data[..], *len));
    }
    assert!(theirs.next_packet().is_none());
    let mut others = pcap_parser::LegacyPcapReader::new(65_536, &file[..]).unwrap();
    let mut lengths = Vec::new();
    while let Ok((offset, block)) = others.next() {
        if let pcap_parser::PcapBlockOwned::Legacy(packet) = block {
            lengths.push((packet.data.to_vec(), packet.origlen));
        }
        others.consume(offset);
    }
    assert_eq!(lengths, ours.iter().map(|(_, _, data, len)| (data.clone(), *len)).collect::<Vec<_>>());
}

#[test]
fn pcapng_times_flags_and_comments_are_read() {
    let flags =
        [option(1, b"hello"), option(2, &(2u32 | 1 << 9 | 1 << 11).to_le_bytes()), vec![0; 4]].concat();
    let file = [
        section(),
        interface(1, &[option(2, b"eth0"), option(9, &[9]), option(14, &3i64.to_le_bytes())].concat()),
        interface(101, &option(9, &[0x80 | 10])),
        enhanced(0, 7 << 32 | 9, A, &flags),
        enhanced(1, 3 << 10, B, &[]),
        // A simple packet has no time.
        block(3, &[words(false, &[B.len() as u32]), B.to_vec()].concat()),
    ]
    .concat();
    let mut reader = Reader::new(&file[..]).unwrap();
    let first = reader.next().unwrap().unwrap();
    assert_eq!(
        (first.nanos, first.data, first.direction),
        (Some((7 << 32) + 9 + 3_000_000_000), A, Some(Direction::Outbound))
    );
    assert!(first.checksum_not_ready && first.segmented_later);
    assert_eq!(first.comments().collect::<Vec<_>>(), ["hello"]);
    let second = reader.next().unwrap().unwrap();
    assert_eq!((second.nanos, second.link, second.interface), (Some(3_000_000_000), 101, 1));
    let third = reader.next().unwrap().unwrap();
    assert_eq!((third.nanos, third.data, third.number), (None, B, 3));
    assert_eq!(reader.next().unwrap(), None);
    assert_eq!((reader.interfaces()[0].name.as_str(), reader.damage().count), ("eth0", 0));
}

#[test]
fn names_of_addresses_are_read_and_limited() {
    let record = |kind: u16, address: &[u8], name: &[u8]| option(kind, &[address, name].concat());
    let six = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let names = |records: &[Vec<u8>]| {
        let file = [section(), block(4, &records.concat()), interface(101, &[])].concat();
        let mut reader = Reader::new(&file[..]).unwrap();
        assert_eq!(reader.next().unwrap(), None);
        assert!(reader.damage().is_empty());
        reader.names()
    };
    let found = names(&[
        record(1, &[192, 0, 2, 1], b"web\0www\0"),
        record(1, &[192, 0, 2, 1], b"late\0"),
        record(2, &six, b"a\x1bb"),
        record(9, &[1, 2, 3, 4], b"of another kind\0"),
        vec![0; 4],
        record(1, &[192, 0, 2, 2], b"behind the end\0"),
    ]);
    let found: Vec<(String, &str)> =
        found.iter().map(|(address, name)| (address.to_string(), name.as_str())).collect();
    assert_eq!(found, [("192.0.2.1".to_owned(), "web"), ("fd00::7".to_owned(), "a?b")]);
    // A record that is longer than its block.
    assert!(names(&[vec![1, 0, 0xff, 0xff, 192, 0, 2, 1]]).is_empty());
    let many: Vec<Vec<u8>> =
        (0..NAMES_LIMIT as u32 + 1).map(|n| record(1, &n.to_be_bytes(), b"x\0")).collect();
    assert_eq!(names(&many).len(), NAMES_LIMIT);
    assert_eq!(names(&[record(1, &[192, 0, 2, 1], &[b'x'; 200])]).values().next().unwrap().len(), 64);
}

#[test]
fn pcapng_packets_are_those_of_another_reader() {
    let name = [option(2, b"eth0"), vec![0; 4]].concat();
    let file = [section(), interface(1, &name), enhanced(0, 9, A, &[]), enhanced(0, 10, B, &[])].concat();
    let (ours, _) = read(&file);
    let mut theirs = pcap_file::pcapng::PcapNgReader::new(&file[..]).unwrap();
    let mut seen = Vec::new();
    while let Some(block) = theirs.next_block() {
        if let Some(packet) = block.unwrap().into_enhanced_packet() {
            seen.push(packet.data.to_vec());
        }
    }
    assert_eq!(seen, ours.into_iter().map(|(_, _, data, _)| data).collect::<Vec<_>>());
}

#[test]
fn gzip_is_unpacked_and_a_cut_file_gives_what_was_whole() {
    let file = pcap(0xa1b2_c3d4, false, 1, &[(5, 7, A, 60), (6, 0, B, 20)]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&file).unwrap();
    let packed = packed.finish().unwrap();
    assert_eq!(read(&packed).0, read(&file).0);
    assert!(Reader::new(&packed[..]).unwrap().is_gzip());
    let (_, problems) = read(&packed[..packed.len() - 10]);
    assert!(problems.iter().any(|problem| problem.contains("gzip")), "{problems:?}");
}

#[test]
fn a_file_that_is_no_capture_says_what_was_expected() {
    let error = |file: &[u8]| Reader::new(file).err().unwrap().to_string();
    assert!(error(b"hello world").contains("68 65 6c 6c, expected the magic"));
    assert!(matches!(Reader::new(&b""[..]), Err(Error::Empty)));
    assert!(error(&pcap(0xa1b2_c3d4, false, 1, &[])[..10]).contains("10 bytes, expected 24"));
}

#[test]
fn a_record_of_impossible_length_is_reported_and_the_next_is_found() {
    for length in [0xffff_fff0u32, 400_000] {
        let packet: Packet<'_> = (5, 7, A, A.len() as u32);
        let mut file = pcap(0xa1b2_c3d4, false, 1, &[packet]);
        let at = file.len();
        file.extend(words(false, &[5, 8, length, length]));
        file.extend([0xee; 37]);
        let tail = pcap(0xa1b2_c3d4, false, 1, &[packet, (6, 0, B, 20)]);
        file.extend(&tail[24..]);
        let (packets, problems) = read(&file);
        assert_eq!(packets.len(), 3);
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].starts_with(&format!("offset {at}: "))
                && problems[0].ends_with("53 bytes passed over"),
            "{problems:?}"
        );
    }
}

#[test]
fn odd_times_and_lengths_that_libpcap_reads_are_read() {
    let file = pcap(0xa1b2_c3d4, false, 1, &[(5, 2_000_000_000, A, 3), (5, 1, &[7; 262_144], 262_144)]);
    let (packets, problems) = read(&file);
    assert_eq!((packets.len(), problems.len()), (2, 0));
    assert_eq!(packets[0].3, A.len() as u32, "a packet is at least as long as what was captured");
}

#[test]
fn a_cut_file_gives_its_whole_packets_and_says_where_it_ends() {
    let file = pcap(0xa1b2_c3d4, false, 1, &[(5, 7, A, 60), (6, 0, B, 20)]);
    let (packets, problems) = read(&file[..file.len() - 3]);
    assert_eq!(packets.len(), 1);
    assert!(problems[0].starts_with("offset 66: cut short: 17 of 20 bytes"), "{problems:?}");
}

#[test]
fn damaged_blocks_are_passed_over() {
    let good = [section(), interface(1, &[])].concat();
    for length in [0u32, 8, 13, 0xffff_fff0] {
        let bad = [words(false, &[6, length]), vec![0xee; 30]].concat();
        let file = [good.clone(), bad, enhanced(0, 9, A, &[])].concat();
        let (packets, problems) = read(&file);
        assert_eq!((packets.len(), problems.len()), (1, 1), "{length}: {problems:?}");
    }
}

#[test]
fn a_large_unknown_block_is_skipped_and_unknown_interfaces_are_reported() {
    let file = [
        section(),
        interface(1, &[]),
        block(0x7777, &vec![1; 3_000_000]),
        enhanced(3, 0, B, &[]),
        enhanced(0, 1, A, &[]),
    ]
    .concat();
    let (packets, problems) = read(&file);
    assert_eq!((packets.len(), problems.len()), (1, 1));
    assert!(problems[0].contains("interface 3, which no block declares (1 declared)"));
}

#[test]
fn a_resolution_that_is_no_time_leaves_the_packets_without_times() {
    for resolution in [127u8, 255] {
        let file = [section(), interface(1, &option(9, &[resolution])), enhanced(0, 9, A, &[])].concat();
        let (packets, problems) = read(&file);
        assert_eq!((packets[0].1, problems.len()), (None, 0));
    }
}

#[test]
fn interfaces_are_limited() {
    let mut file = section();
    for _ in 0..crate::INTERFACE_LIMIT + 1 {
        file.extend(interface(1, &[]));
    }
    file.extend(enhanced(crate::INTERFACE_LIMIT as u32 - 1, 9, A, &[]));
    let (packets, problems) = read(&file);
    assert_eq!((packets.len(), problems.len()), (1, 1), "{problems:?}");
    assert!(problems[0].contains("beyond 65536"));
}

/// An IPv4 header without payload.
const IP: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];

#[test]
fn the_packet_is_found_in_every_link_layer() {
    let mac = [2u8; 12];
    let with = |head: &[u8]| [head, &IP].concat();
    let ethernet = |rest: &[u8]| with(&[&mac, rest].concat());
    let snap = [0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
    let data_frame = |control: &[u8], len: usize| {
        let mut head = control.to_vec();
        head.resize(len, 0);
        with(&[&head[..], &snap].concat())
    };
    let mut pktap = words(false, &[12, 0, 101]);
    pktap.extend(IP);
    let frames: Vec<(u16, Vec<u8>)> = vec![
        (1, ethernet(&[8, 0])),
        (1, ethernet(&[0x81, 0, 0, 5, 8, 0])),
        (1, ethernet(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0])),
        (1, ethernet(&[0x88, 0x47, 0, 0, 0x10, 64, 0, 0, 0x11, 64])),
        (1, ethernet(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 22, 0, 0x21])),
        (1, ethernet(&[&[0, 28], &snap[..]].concat())),
        (101, IP.to_vec()),
        (12, IP.to_vec()),
        (228, IP.to_vec()),
        (0, with(&[2, 0, 0, 0])),
        (108, with(&[0, 0, 0, 2])),
        (9, with(&[0xff, 3, 0, 0x21])),
        (9, with(&[0x21])),
        (113, with(&[0, 4, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0])),
        (276, with(&[8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 4, 6, 1, 2, 3, 4, 5, 6, 0, 0])),
        (105, data_frame(&[0x08, 0x01], 24)),
        (105, data_frame(&[0x88, 0x03], 32)),
        (127, [&[0, 0, 8, 0, 0, 0, 0, 0], &data_frame(&[0x08, 0x09], 24)[..]].concat()),
        // Radiotap with flags that say that the header is padded: a QoS header of 26 takes 28.
        (127, [&[0, 0, 9, 0, 2, 0, 0, 0, 0x20], &data_frame(&[0x88, 0x01], 28)[..]].concat()),
        (239, with(&[2, 0, 0, 0, 24, 0, 9, 0])),
        (258, pktap),
    ];
    for (link, frame) in frames {
        let found = link::ip(link, &frame);
        assert_eq!(found.map(|ip| ip.bytes), Ok(&IP[..]), "link type {link}: {frame:02x?}");
        // Cut anywhere, nothing panics, and nothing is found beyond the frame.
        for len in 0..frame.len() {
            let _ = link::ip(link, &frame[..len]);
        }
    }
}

#[test]
fn ethernet_with_tags_is_that_of_etherparse() {
    let builders = [
        etherparse::PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9),
        etherparse::PacketBuilder::ethernet2([1; 6], [2; 6])
            .single_vlan(etherparse::VlanId::try_new(5).unwrap())
            .ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9),
    ];
    for builder in builders {
        let mut frame = Vec::new();
        builder.tcp(1, 2, 3, 4).write(&mut frame, b"data").unwrap();
        let theirs = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = theirs.net else { panic!("IPv4") };
        let ours = link::ip(1, &frame).unwrap();
        assert_eq!(ours.bytes.len(), ip.header().slice().len() + ip.payload().payload.len());
    }
}

#[test]
fn remarks_of_the_link_layer_are_kept() {
    let mut frame = vec![0x08, 0x09];
    frame.resize(24, 0);
    frame.extend([0xaa, 0xaa, 3, 0, 0, 0, 8, 0]);
    frame.extend(IP);
    assert!(link::ip(105, &frame).unwrap().retry);
    frame[1] = 0x40;
    assert_eq!(link::ip(105, &frame), Err(Unread::Encrypted));
    assert_eq!(link::ip(1, &[0; 60]), Err(Unread::NotIp));
    assert_eq!(link::ip(10, &[0; 60]), Err(Unread::Unknown(10)));
    assert_eq!(link::name(10), Some("fddi"));
}

/// A record of an IP packet.
fn raw_record(data: &[u8]) -> Record<'_> {
    let order = crate::bytes::Order::Little;
    Record {
        number: 1,
        offset: 24,
        section: 0,
        interface: 0,
        link: 101,
        nanos: None,
        len: data.len() as u32,
        data,
        direction: None,
        checksum_not_ready: false,
        segmented_later: false,
        options: &[],
        order,
    }
}

#[test]
fn the_packet_inside_tunnels_is_found() {
    let ip = &IP[..];
    let ipv4 = |protocol: u8, payload: Vec<u8>| {
        let head = [0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2];
        [&head[..], &payload].concat()
    };
    let ipv6 = |protocol: u8, payload: Vec<u8>| {
        let mut head = [0; 40];
        (head[0], head[6]) = (0x60, protocol);
        [&head[..], &payload].concat()
    };
    let with = |head: &[u8]| [head, ip].concat();
    let ethernet = with(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    let udp = |port: u16, payload: &[u8]| {
        let [high, low] = port.to_be_bytes();
        [&[0x80, 0, high, low, 0, 0, 0, 0], payload].concat()
    };
    let vxlan = udp(4789, &[&[8, 0, 0, 0, 0, 0, 7, 0], &ethernet[..]].concat());
    let geneve = |options: u8, kind: [u8; 2], rest: &[u8]| {
        let head = [options, 0, kind[0], kind[1], 0, 0, 7, 0];
        udp(6081, &[&head[..], &vec![0; usize::from(options) * 4], rest].concat())
    };
    let limit = [&[4, 0, 4, 1, 4, 1, 0, 0], ip].concat();
    let opened = [
        ipv4(4, ip.to_vec()),
        ipv6(4, ip.to_vec()),
        ipv6(60, limit),
        ipv4(47, with(&[0, 0, 8, 0])),
        ipv4(47, with(&[0xb0, 0, 8, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3])),
        ipv4(47, [&[0, 0, 0x65, 0x58], &ethernet[..]].concat()),
        ipv4(17, vxlan.clone()),
        ipv6(17, vxlan.clone()),
        ipv4(17, geneve(0, [8, 0], ip)),
        ipv4(17, geneve(3, [0x65, 0x58], &ethernet)),
        // A tunnel in a tunnel.
        ipv4(47, [&[0, 0, 0x86, 0xdd], &ipv6(4, ip.to_vec())[..]].concat()),
    ];
    for packet in opened {
        let record = raw_record(&packet);
        let inner = record.inner();
        assert_eq!((inner.link, inner.data, inner.len), (101, ip, ip.len() as u32), "{packet:02x?}");
        // Cut anywhere, nothing panics, and nothing is found beyond the packet.
        for len in 0..packet.len() {
            assert!(raw_record(&packet[..len]).inner().data.len() <= len);
        }
    }
    let mut fragment = ipv4(4, ip.to_vec());
    fragment[6] = 0x20;
    let closed = [
        ip.to_vec(),
        fragment,
        // PPTP, a VXLAN header without its flag, the next version of Geneve, and another port.
        ipv4(47, with(&[0x20, 1, 0x88, 0x0b, 0, 0, 0, 0])),
        ipv4(17, udp(4789, &[&[0, 0, 0, 0, 0, 0, 7, 0], &ethernet[..]].concat())),
        ipv4(17, udp(6081, &with(&[0x40, 0, 8, 0, 0, 0, 7, 0]))),
        ipv4(17, udp(53, ip)),
    ];
    for packet in closed {
        let record = raw_record(&packet);
        assert_eq!(record.inner(), record, "{packet:02x?}");
    }
}

#[test]
fn no_bytes_panic() {
    // A generator of its own: the same bytes each time.
    let mut state = 1u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let good = [section(), interface(1, &[]), enhanced(0, 9, A, &[]), enhanced(0, 9, B, &[])].concat();
    let plain = pcap(0xa1b2_c3d4, false, 1, &[(5, 7, A, 60), (6, 0, B, 20)]);
    for round in 0..4000 {
        let mut file = if round % 2 == 0 { good.clone() } else { plain.clone() };
        for _ in 0..1 + round % 5 {
            let at = (usize::from(byte()) << 8 | usize::from(byte())) % file.len();
            file[at] = byte();
        }
        if let Ok(mut reader) = Reader::new(&file[..]) {
            while let Some(record) = reader.next().unwrap() {
                for link in [0, 1, 9, 51, 101, 104, 105, 108, 113, 119, 127, 163, 239, 258, 276] {
                    let _ = link::ip(link, record.data);
                }
                let _ = record.inner();
                let _ = record.comments().count();
            }
        }
    }
}

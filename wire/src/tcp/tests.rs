use super::*;
use etherparse::{PacketBuilder, TcpHeader, TcpOptionElement, TcpSlice};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Options that fit into a header together, of a SYN or of any other segment.
pub(super) fn option_sets() -> impl Strategy<Value = Options> {
    let timestamps = || option::of(any::<(u32, u32)>().prop_map(|(val, ecr)| Timestamps { val, ecr }));
    let cookie = (0usize..8, any::<[u8; 16]>()).prop_map(|(half, bytes)| {
        let len = if half == 0 { 0 } else { 2 + 2 * half };
        Cookie::new(&bytes[..len]).unwrap()
    });
    let syn =
        (option::of(any::<u16>()), option::of(any::<u8>()), any::<bool>(), timestamps(), option::of(cookie))
            .prop_map(|(mss, window_scale, sack_permitted, timestamps, fast_open)| Options {
                mss,
                window_scale,
                sack_permitted,
                timestamps,
                fast_open,
                ..Options::default()
            });
    let other = (timestamps(), vec(any::<(u32, u32)>(), 0..=4)).prop_map(|(timestamps, blocks)| {
        let mut sack = SackBlocks::new();
        let most = if timestamps.is_some() { 3 } else { 4 };
        for (left, right) in blocks.into_iter().take(most) {
            assert!(sack.push(SeqNum(left), SeqNum(right)));
        }
        Options { timestamps, sack, ..Options::default() }
    });
    prop_oneof![syn, other]
}

prop_compose! {
    fn headers()(
        (source_port, destination_port, window, urgent) in any::<(u16, u16, u16, u16)>(),
        (seq, ack) in any::<(u32, u32)>(),
        flags in (0..0x200u16).prop_map(Flags),
        options in option_sets(),
    ) -> Header {
        let ack = SeqNum(if flags.ack() { ack } else { 0 });
        Header { source_port, destination_port, seq: SeqNum(seq), ack, flags, window, urgent, options }
    }
}

fn emitted(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0xee; header.header_len()];
    header.emit(&mut segment);
    segment.extend(payload);
    segment
}

/// A segment with its checksum, between these addresses.
fn sealed(header: &Header, payload: &[u8], source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let mut segment = emitted(header, payload);
    let mut sum = pseudo_header(source, destination, PROTOCOL_TCP, segment.len() as u32);
    sum.add_bytes(&segment);
    set_checksum(&mut segment, sum.finish());
    segment
}

#[test]
fn flags_show_as_in_tcpdump() {
    let cases = [
        (Flags::default(), "none"),
        (Flags::SYN, "S"),
        (Flags::SYN | Flags::ACK, "S."),
        (Flags::ACK, "."),
        (Flags::FIN | Flags::ACK, "F."),
        (Flags::PSH | Flags::ACK, "P."),
        (Flags::FIN | Flags::PSH | Flags::ACK, "FP."),
        (Flags::RST, "R"),
        (Flags::RST | Flags::ACK, "R."),
        (Flags::SYN | Flags::ECE | Flags::CWR, "SEW"),
        (Flags::SYN | Flags::ACK | Flags::ECE, "S.E"),
        (Flags::PSH | Flags::ACK | Flags::URG, "P.U"),
        (Flags(0x1ff), "FSRP.UEWe"),
        (Flags(0xe00), "none"),
    ];
    for (flags, shown) in cases {
        assert_eq!((flags.to_string(), format!("{flags:?}")), (shown.to_owned(), shown.to_owned()));
    }
}

#[test]
fn a_flag_is_contained_where_all_its_bits_are() {
    let mut flags = Flags::SYN;
    assert!(flags.syn() && !flags.ack() && !flags.contains(Flags::SYN | Flags::ACK));
    flags |= Flags::ACK;
    assert!(flags.contains(Flags::SYN | Flags::ACK) && flags.contains(Flags::default()));
    let by_name = |f: Flags| [f.fin(), f.syn(), f.rst(), f.psh(), f.ack(), f.urg(), f.ece(), f.cwr()];
    for bit in 0..8 {
        let mut expected = [false; 8];
        expected[bit] = true;
        assert_eq!(by_name(Flags(1 << bit)), expected);
    }
}

#[test]
fn a_segment_shows_as_a_line_of_tcpdump() {
    let syn = Header {
        seq: SeqNum(100),
        flags: Flags::SYN,
        window: 65_535,
        options: Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { val: 1, ecr: 0 }),
            ..Options::default()
        },
        ..Header::default()
    };
    let options = "mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7";
    let expected = format!("Flags [S], seq 100, win 65535, options [{options}], length 0");
    assert_eq!(syn.tcpdump(0).to_string(), expected);

    let data = Header {
        seq: SeqNum(u32::MAX),
        ack: SeqNum(1),
        flags: Flags::PSH | Flags::ACK | Flags::URG,
        window: 512,
        urgent: 5,
        ..Header::default()
    };
    let expected = "Flags [P.U], seq 4294967295:99, ack 1, win 512, urg 5, length 100";
    assert_eq!(data.tcpdump(100).to_string(), expected);

    let mut ack =
        Header { seq: SeqNum(7), ack: SeqNum(1), flags: Flags::ACK, window: 9, ..Header::default() };
    assert!(ack.options.sack.push(SeqNum(20), SeqNum(30)) && ack.options.sack.push(SeqNum(40), SeqNum(50)));
    let expected = "Flags [.], ack 1, win 9, options [nop,nop,sack 2 {20:30}{40:50}], length 0";
    assert_eq!(ack.tcpdump(0).to_string(), expected);

    let fin = Header { flags: Flags::FIN | Flags::ACK, options: Options::default(), ..ack };
    assert_eq!(fin.tcpdump(0).to_string(), "Flags [F.], seq 7, ack 1, win 9, length 0");
    let rst = Header { seq: SeqNum(3), flags: Flags::RST, ..Header::default() };
    assert_eq!(rst.tcpdump(0).to_string(), "Flags [R], seq 3, win 0, length 0");
}

#[test]
fn every_data_offset_is_checked_against_every_length_threat_58() {
    for offset in 0..16u8 {
        for len in 0..=64usize {
            let mut segment = vec![0; len];
            if let Some(byte) = segment.get_mut(12) {
                *byte = offset << 4;
            }
            let header_len = usize::from(offset) * 4;
            match Header::parse(&segment) {
                Ok((_, payload)) => {
                    assert!(header_len >= 20 && header_len + payload.len() == len, "{offset}, {len}");
                }
                Err(Error::Truncated) => assert!(len < 20),
                Err(Error::DataOffset) => assert!(len >= 20 && (offset < 5 || header_len > len)),
                Err(Error::Options) => panic!("zeros are no options: {offset}, {len}"),
            }
        }
    }
}

#[test]
fn reserved_bits_are_ignored_and_sent_as_zero_threat_60() {
    for flags in 0..0x200u16 {
        let header = Header { flags: Flags(flags | 0xfe00), ..Header::default() };
        let mut segment = emitted(&header, b"");
        assert_eq!(u16_at(&segment, 12), 5 << 12 | flags);
        segment[12] |= 0x0e;
        assert_eq!(Header::parse(&segment).unwrap().0.flags, Flags(flags));
    }
}

#[test]
fn the_acknowledgment_is_zero_without_ack() {
    let header = Header { ack: SeqNum(7), flags: Flags::RST, ..Header::default() };
    let mut segment = emitted(&header, b"");
    assert_eq!(u32_at(&segment, 8), 0);
    segment[11] = 7;
    assert_eq!(Header::parse(&segment).unwrap().0.ack, SeqNum(0));
}

#[test]
fn malformed_options_cost_the_segment_threat_57() {
    let mut segment = emitted(&Header::default(), &[8, 0, 0, 0]);
    segment[12] = 0x60;
    assert_eq!(Header::parse(&segment), Err(Error::Options));
}

#[test]
fn every_flipped_bit_fails_the_checksum_must_3_threat_59() {
    let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let header = Header { source_port: 1, destination_port: 2, flags: Flags::ACK, ..Header::default() };
    let mut segment = sealed(&header, b"odd", a, b);
    assert!(checksum_ok(a, b, &segment));
    assert!(!checksum_ok(a, a, &segment), "the pseudo-header counts");
    for bit in 0..segment.len() * 8 {
        segment[bit / 8] ^= 1 << (bit % 8);
        assert!(!checksum_ok(a, b, &segment), "bit {bit}");
        segment[bit / 8] ^= 1 << (bit % 8);
    }
    segment.push(0);
    assert!(!checksum_ok(a, b, &segment), "the length counts");
}

/// In ones' complement both are zero, so a receiver accepts one for the other.
#[test]
fn checksums_0_and_0xffff_are_the_same_threat_59() {
    let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    // The urgent pointer cancels the sum, so the checksum is zero.
    let header = Header { flags: Flags::ACK, ..Header::default() };
    let urgent = u16_at(&sealed(&header, b"", a, b), CHECKSUM_AT);
    let mut segment = sealed(&Header { urgent, ..header }, b"", a, b);
    assert_eq!(u16_at(&segment, CHECKSUM_AT), 0);
    assert!(checksum_ok(a, b, &segment));
    set_checksum(&mut segment, 0xffff);
    assert!(checksum_ok(a, b, &segment));
    set_checksum(&mut segment, 1);
    assert!(!checksum_ok(a, b, &segment));
}

fn their_options(options: &Options) -> Vec<TcpOptionElement> {
    use TcpOptionElement::*;
    let mut elements = Vec::new();
    elements.extend(options.sack_permitted.then_some(SelectiveAcknowledgementPermitted));
    elements.extend(options.window_scale.map(WindowScale));
    if let [first, others @ ..] = options.sack.as_slice() {
        let mut rest = [None; 3];
        for (slot, (left, right)) in rest.iter_mut().zip(others) {
            *slot = Some((left.0, right.0));
        }
        elements.push(SelectiveAcknowledgement((first.0.0, first.1.0), rest));
    }
    elements.extend(options.timestamps.map(|timestamps| Timestamp(timestamps.val, timestamps.ecr)));
    elements.extend(options.mss.map(MaximumSegmentSize));
    elements
}

proptest! {
    #[test]
    fn what_emission_adds_is_the_sum_of_what_it_writes(header in headers(), before in vec(any::<u8>(), 0..2)) {
        let mut segment = vec![0xee; header.header_len()];
        let mut sum = Sum::new();
        sum.add_bytes(&before);
        header.emit_and_add(&mut segment, &mut sum);
        prop_assert_eq!(&segment, &emitted(&header, &[]));
        let mut of_bytes = Sum::new();
        of_bytes.add_bytes(&[&before[..], &segment].concat());
        prop_assert_eq!(sum.finish(), of_bytes.finish());
    }

    /// The options of a usual SYN take a shortcut; the same options with another one behind them do not.
    #[test]
    fn a_usual_syn_has_the_options_that_it_has_without_the_shortcut(
        (mss, shift, val, ecr) in any::<(u16, u8, u32, u32)>(),
        (at, flipped) in (0usize..20, any::<u8>()),
    ) {
        let usual = Options {
            mss: Some(mss),
            window_scale: Some(shift),
            sack_permitted: true,
            timestamps: Some(Timestamps { val, ecr }),
            ..Options::default()
        };
        let longer = Options { fast_open: Cookie::new(&[]), ..usual };
        let (mut short, mut long) = ([0xee; 20], [0xee; 24]);
        prop_assert_eq!((usual.emitted_len(), longer.emitted_len()), (20, 24));
        usual.emit(&mut short);
        longer.emit(&mut long);
        prop_assert_eq!(&short[..], &long[..20]);
        prop_assert_eq!(Options::parse(&short), Ok(usual));
        // Unchanged, and with one byte changed. NOPs in front have no effect; NOPs behind could complete an option.
        short[at] ^= flipped;
        prop_assert_eq!(Options::parse(&short), Options::parse(&[&[1; 4][..], &short[..]].concat()));
    }

    #[test]
    fn what_is_emitted_is_parsed(header in headers(), payload in vec(any::<u8>(), 0..60)) {
        let segment = emitted(&header, &payload);
        prop_assert_eq!(Header::parse(&segment), Ok((header, &payload[..])));
        prop_assert_eq!(u16_at(&segment, CHECKSUM_AT), 0);
        let quoted = parse_quoted(&segment[..8]);
        prop_assert_eq!(quoted, Some((header.source_port, header.destination_port, header.seq)));
        prop_assert_eq!(parse_quoted(&segment[..7]), None);
    }

    #[test]
    fn etherparse_reads_what_is_emitted(header in headers(), payload in vec(any::<u8>(), 0..60), v6: bool) {
        let (a, b): (IpAddr, IpAddr) = match v6 {
            true => (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into()),
            false => (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::BROADCAST.into()),
        };
        let segment = sealed(&header, &payload, a, b);
        prop_assert!(checksum_ok(a, b, &segment));
        let slice = TcpSlice::from_slice(&segment).unwrap();
        let theirs = slice.to_header();
        let checksum = match (a, b) {
            (IpAddr::V6(a), IpAddr::V6(b)) => slice.calc_checksum_ipv6(a.octets(), b.octets()).unwrap(),
            (IpAddr::V4(a), IpAddr::V4(b)) => slice.calc_checksum_ipv4(a.octets(), b.octets()).unwrap(),
            _ => unreachable!("both are of one family"),
        };
        prop_assert_eq!(theirs.checksum, checksum);
        prop_assert_eq!((theirs.source_port, theirs.destination_port), (header.source_port, header.destination_port));
        prop_assert_eq!((theirs.sequence_number, theirs.acknowledgment_number), (header.seq.0, header.ack.0));
        prop_assert_eq!((theirs.window_size, theirs.urgent_pointer), (header.window, header.urgent));
        let theirs_flags = [
            theirs.fin, theirs.syn, theirs.rst, theirs.psh, theirs.ack, theirs.urg, theirs.ece, theirs.cwr, theirs.ns,
        ];
        let ours = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|bit| header.flags.contains(Flags(1 << bit)));
        prop_assert_eq!(theirs_flags, ours);
        prop_assert_eq!(slice.payload(), &payload[..]);
        if header.options.fast_open.is_none() {
            // Etherparse does not know Fast Open and stops there.
            let mut read: Vec<_> = slice.options_iterator().map(Result::unwrap).collect();
            read.retain(|element| *element != TcpOptionElement::Noop);
            let expected = their_options(&header.options);
            prop_assert_eq!(read.len(), expected.len());
            prop_assert!(expected.iter().all(|element| read.contains(element)));
        }
    }

    #[test]
    fn segments_of_etherparse_are_parsed(header in headers(), payload in vec(any::<u8>(), 0..60)) {
        let options = Options { fast_open: None, ..header.options };
        let header = Header { options, ..header };
        let mut theirs = TcpHeader::new(header.source_port, header.destination_port, header.seq.0, header.window);
        theirs.acknowledgment_number = header.ack.0;
        theirs.urgent_pointer = header.urgent;
        let f = |flag| header.flags.contains(flag);
        (theirs.fin, theirs.syn, theirs.rst) = (f(Flags::FIN), f(Flags::SYN), f(Flags::RST));
        (theirs.psh, theirs.ack, theirs.urg) = (f(Flags::PSH), f(Flags::ACK), f(Flags::URG));
        (theirs.ece, theirs.cwr, theirs.ns) = (f(Flags::ECE), f(Flags::CWR), f(Flags::AE));
        // In another order than ours, not aligned, and padded with end-of-list.
        theirs.set_options(&their_options(&options)).unwrap();
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp_header(theirs);
        builder.write(&mut packet, &payload).unwrap();
        let (ip, segment) = crate::ipv4::parse(&packet).unwrap();
        prop_assert!(checksum_ok(ip.source.into(), ip.destination.into(), segment));
        prop_assert_eq!(Header::parse(segment), Ok((header, &payload[..])));
    }

    #[test]
    fn a_payload_copied_and_summed_gives_the_same_checksum(header in headers(), payload in vec(any::<u8>(), 0..200)) {
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut segment = vec![0xee; header.header_len() + payload.len()];
        header.emit(&mut segment);
        let mut sum: Sum = pseudo_header(a, b, PROTOCOL_TCP, segment.len() as u32);
        let (head, body) = segment.split_at_mut(header.header_len());
        sum.add_bytes(head);
        sum.copy_and_add(body, &payload);
        set_checksum(&mut segment, sum.finish());
        prop_assert_eq!(&segment, &sealed(&header, &payload, a, b));
    }

    #[test]
    fn no_bytes_panic(mut bytes in vec(any::<u8>(), 0..100), offset in option::of(5u8..16)) {
        if let (Some(offset), true) = (offset, bytes.len() > 12) {
            bytes[12] = offset << 4;
        }
        if let Ok((header, payload)) = Header::parse(&bytes) {
            prop_assert!(payload.len() <= bytes.len() - HEADER_LEN);
            let _ = header.tcpdump(payload.len()).to_string();
            // A parsed segment can be emitted, and is then stable.
            let again = emitted(&header, payload);
            let (read, _) = Header::parse(&again).unwrap();
            prop_assert_eq!(emitted(&read, payload), again);
        }
        let _ = parse_quoted(&bytes);
        let _ = checksum_ok(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into(), &bytes);
    }
}

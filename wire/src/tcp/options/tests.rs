use super::super::tests::option_sets;
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// The valid lengths of each known option (RFC 9293 §3.2, RFC 7323, RFC 2018). Fast Open is absent: a cookie of an
/// invalid length is ignored.
const LENGTHS: [(u8, &[usize]); 5] = [(2, &[4]), (3, &[3]), (4, &[2]), (5, &[10, 18, 26, 34]), (8, &[10])];

/// The rule as a reference parser: the options as kind and data, or `None` if the segment is dropped.
fn by_the_rule(bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() && bytes[at] != 0 {
        if bytes[at] == 1 {
            at += 1;
            continue;
        }
        let len = usize::from(*bytes.get(at + 1)?);
        let known = LENGTHS.iter().find(|(kind, _)| *kind == bytes[at]);
        if len < 2 || at + len > bytes.len() || known.is_some_and(|(_, lengths)| !lengths.contains(&len)) {
            return None;
        }
        found.push((bytes[at], &bytes[at + 2..at + len]));
        at += len;
    }
    Some(found)
}

/// Parses `bytes` and compares the outcome with the rule. Returns whether they were accepted.
fn check(bytes: &[u8]) -> bool {
    let Some(found) = by_the_rule(bytes) else {
        assert_eq!(Options::parse(bytes), Err(Error::Options), "{bytes:?}");
        return false;
    };
    let options = Options::parse(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    let first = |kind| found.iter().find(|(k, _)| *k == kind).map(|(_, data)| *data);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
    assert_eq!(options.mss.map(u32::from), first(2).map(number), "{bytes:?}");
    assert_eq!(options.window_scale.map(u32::from), first(3).map(number));
    assert_eq!(options.sack_permitted, first(4).is_some());
    let sack: Vec<_> = options.sack.iter().flat_map(|(left, right)| [left.0, right.0]).collect();
    let numbers: Vec<_> = first(5).unwrap_or_default().chunks(4).map(number).collect();
    assert_eq!(sack, numbers);
    let timestamps = options.timestamps.map(|timestamps| (timestamps.val, timestamps.ecr));
    assert_eq!(timestamps, first(8).map(|data| (number(&data[..4]), number(&data[4..]))));
    let allowed =
        |data: &&[u8]| data.is_empty() || data.len().is_multiple_of(2) && (4..=16).contains(&data.len());
    let cookie = found.iter().filter(|(kind, _)| *kind == 34).map(|(_, data)| *data).find(allowed);
    assert_eq!(options.fast_open.as_ref().map(Cookie::as_bytes), cookie);
    true
}

/// Filler bytes. None is the kind of a known option, so a wrong step shows.
fn filler(len: usize) -> Vec<u8> {
    (0..len).map(|n| 0xa0 + n as u8).collect()
}

/// All but EOL and NOP have a length (MUST-68).
#[test]
fn one_option_of_any_kind_and_length_in_any_room_threat_57() {
    let mut accepted = 0;
    for kind in 0..=255 {
        for len in 0..=41 {
            for room in 0..=40 {
                let mut bytes = filler(room);
                bytes.iter_mut().zip([kind, len]).for_each(|(byte, value)| *byte = value);
                if room > usize::from(len).max(2) {
                    // The rest is no concern of this test.
                    bytes[usize::from(len).max(2)] = 0;
                }
                accepted += usize::from(check(&bytes));
            }
        }
    }
    assert!(accepted > 100_000, "{accepted}");
}

#[test]
fn two_options_of_any_length_threat_57() {
    let kinds = [0, 1, 2, 3, 4, 5, 6, 8, 19, 30, 34, 253, 255];
    let mut accepted = 0;
    for (first, second) in kinds.iter().flat_map(|a| kinds.iter().map(move |b| (*a, *b))) {
        for (first_len, second_len) in (0..=40u8).flat_map(|a| (0..=40u8).map(move |b| (a, b))) {
            let mut bytes = filler(41);
            bytes[..2].copy_from_slice(&[first, first_len]);
            let at = if first == 1 { 1 } else { usize::from(first_len).max(2) };
            bytes.iter_mut().skip(at).zip([second, second_len]).for_each(|(byte, value)| *byte = value);
            let end = at + if second == 1 { 1 } else { usize::from(second_len).max(2) };
            if let Some(byte) = bytes.get_mut(end) {
                *byte = 0;
            }
            accepted += usize::from(check(&bytes[..40]));
        }
    }
    assert!(accepted > 50_000, "{accepted}");
}

#[test]
fn broken_lengths_cost_the_segment_threat_57() {
    let cases: [&[u8]; 14] = [
        &[8, 0, 0, 0],
        &[200, 0, 0, 0],
        &[200, 1, 0, 0],
        &[200, 5, 0, 0],
        &[1, 1, 1, 2],
        &[2, 3, 5],
        &[2, 4, 5],
        &[2, 5, 5, 6, 7],
        &[3, 2, 1, 1],
        &[4, 3, 1, 1],
        &[5, 2, 1, 1],
        &[5, 9, 0, 0, 0, 0, 0, 0, 0],
        &[8, 9, 0, 0, 0, 0, 0, 0, 0],
        &[1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in cases {
        assert_eq!(Options::parse(bytes), Err(Error::Options), "{bytes:?}");
    }
    let five_blocks = [&[5, 42][..], &[0; 40]].concat();
    assert_eq!(Options::parse(&five_blocks), Err(Error::Options));
}

#[test]
fn unknown_options_are_skipped_by_their_length_must_6() {
    for kind in (0..=255).filter(|kind| ![0, 1, 2, 3, 4, 5, 8, 34].contains(kind)) {
        let bytes = [kind, 5, 2, 4, 9, 2, 4, 5, 180, 0, 0, 0];
        let expected = Options { mss: Some(1460), ..Options::default() };
        assert_eq!(Options::parse(&bytes), Ok(expected), "kind {kind}");
    }
}

#[test]
fn options_begin_at_any_byte_must_64() {
    for nops in 0..8 {
        let mut bytes = vec![1; nops];
        bytes.extend([8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 3, 3, 14]);
        let options = Options::parse(&bytes).unwrap();
        assert_eq!(options.timestamps, Some(Timestamps { val: 7, ecr: 9 }));
        assert_eq!(options.window_scale, Some(14));
    }
}

#[test]
fn of_repeated_options_the_first_wins_threat_57() {
    let bytes = [2, 4, 0, 1, 3, 3, 1, 2, 4, 0, 2, 3, 3, 2];
    let options = Options::parse(&bytes).unwrap();
    assert_eq!((options.mss, options.window_scale), (Some(1), Some(1)));
    let twice = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 8, 10, 0, 0, 0, 3, 0, 0, 0, 4];
    assert_eq!(Options::parse(&twice).unwrap().timestamps, Some(Timestamps { val: 1, ecr: 2 }));
    assert_eq!(Options::parse(&[2, 4, 0, 1, 2, 3, 0]), Err(Error::Options), "but each length counts");
}

/// EOL (MUST-4).
#[test]
fn nothing_is_read_past_the_end_of_the_list_threat_57() {
    let bytes = [2, 4, 5, 180, 0, 8, 0, 255, 3, 3, 7, 0];
    assert_eq!(Options::parse(&bytes), Ok(Options { mss: Some(1460), ..Options::default() }));
}

#[test]
fn forty_nops_are_no_options_threat_57() {
    assert_eq!(Options::parse(&[1; 40]), Ok(Options::default()));
}

#[test]
fn cookies_of_other_lengths_are_as_if_absent_rfc_7413() {
    for len in 0..=38u8 {
        let bytes = [&[34, len + 2][..], &filler(usize::from(len))].concat();
        let allowed = [0, 4, 6, 8, 10, 12, 14, 16].contains(&len);
        let cookie = Options::parse(&bytes).unwrap().fast_open;
        assert_eq!(cookie.is_some(), allowed, "{len} bytes");
        assert_eq!(cookie.is_some_and(|cookie| cookie.is_request()), len == 0);
        assert_eq!(Cookie::new(&bytes[2..]), cookie);
    }
}

// DRILL-X32
#[test]
fn the_experimental_option_is_fast_open_only_under_its_identifier() {
    let read = |bytes: &[u8]| Options::parse(bytes).unwrap().fast_open;
    assert!(read(&[254, 4, 0xf9, 0x89]).is_some_and(|cookie| cookie.is_request() && cookie.is_experiment()));
    assert!(read(&[254, 8, 0xf9, 0x89, 1, 2, 3, 4]).is_some_and(|cookie| cookie.as_bytes() == [1, 2, 3, 4]));
    assert_eq!(read(&[254, 7, 0xf9, 0x89, 1, 2, 3]), None, "a length that no cookie has");
    assert_eq!(read(&[254, 4, 0xf9, 0x88]), None, "another experiment");
    assert_eq!(read(&[254, 3, 0xf9]), None);
}

#[test]
fn options_are_laid_out_as_linux_does() {
    let timestamps = Some(Timestamps { val: 1, ecr: 2 });
    let (mss, window_scale) = (Some(1460), Some(7));
    let none = Options::default();
    let mut sacks = none;
    assert!(sacks.sack.push(SeqNum(3), SeqNum(4)));
    let cookie = |bytes: &[u8]| Options { mss, fast_open: Cookie::new(bytes), ..none };
    let experiment = |bytes: &[u8]| {
        let cookie = Cookie::new(bytes).map(|cookie| cookie.carried_by_experiment(true));
        Options { mss, fast_open: cookie, ..none }
    };
    let cases = [
        (none, ""),
        (
            Options { mss, window_scale, sack_permitted: true, timestamps, ..none },
            "mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7",
        ),
        (Options { mss, window_scale, sack_permitted: true, ..none }, "mss 1460,nop,nop,sackOK,nop,wscale 7"),
        (Options { mss, window_scale, timestamps, ..none }, "mss 1460,nop,nop,TS val 1 ecr 2,nop,wscale 7"),
        (Options { timestamps, ..none }, "nop,nop,TS val 1 ecr 2"),
        (sacks, "nop,nop,sack 1 {3:4}"),
        (Options { timestamps, ..sacks }, "nop,nop,TS val 1 ecr 2,nop,nop,sack 1 {3:4}"),
        (cookie(&[]), "mss 1460,tfo  cookiereq,nop,nop"),
        (cookie(&[1, 2, 3, 255]), "mss 1460,tfo  cookie 010203ff,nop,nop"),
        (cookie(&[1, 2, 3, 4, 5, 6]), "mss 1460,tfo  cookie 010203040506"),
        // DRILL-X32
        (experiment(&[]), "mss 1460,exp-tfo cookiereq"),
        (experiment(&[1, 2, 3, 255]), "mss 1460,exp-tfo cookie 010203ff"),
        (experiment(&[1, 2, 3, 4, 5, 6]), "mss 1460,exp-tfo cookie 010203040506,nop,nop"),
    ];
    for (options, shown) in cases {
        assert_eq!(options.to_string(), shown);
    }
}

#[test]
fn the_bytes_of_a_syn_are_those_that_linux_sends() {
    let options = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { val: 0x0102_0304, ecr: 0 }),
        ..Options::default()
    };
    let mut bytes = [0xee; 24];
    options.emit(&mut bytes);
    let expected = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7, 0xee, 0xee, 0xee, 0xee];
    assert_eq!(bytes, expected);
}

#[test]
fn a_fifth_block_is_not_taken_and_a_fourth_gives_way_to_timestamps() {
    let mut options = Options::default();
    for n in 0..4 {
        assert!(options.sack.push(SeqNum(n), SeqNum(n + 1)));
    }
    assert!(!options.sack.push(SeqNum(9), SeqNum(10)));
    assert_eq!((options.sack.len(), options.emitted_len()), (4, 36));
    options.timestamps = Some(Timestamps::default());
    assert_eq!(options.emitted_len(), 40);
    let mut bytes = [0; 40];
    options.emit(&mut bytes);
    assert_eq!(Options::parse(&bytes).unwrap().sack.as_slice(), &options.sack.as_slice()[..3]);
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed(options in option_sets()) {
        let mut bytes = [0xee; 44];
        options.emit(&mut bytes);
        let (emitted, untouched) = bytes.split_at(options.emitted_len());
        prop_assert_eq!(emitted.len() % 4, 0);
        prop_assert!(untouched.iter().all(|byte| *byte == 0xee));
        prop_assert_eq!(Options::parse(emitted), Ok(options));
    }

    /// No set of options is longer than the room in a header, and an option is either whole or absent.
    #[test]
    fn any_set_of_options_fits_into_a_header(syn in option_sets(), other in option_sets()) {
        let options = Options { sack: other.sack, timestamps: other.timestamps, ..syn };
        let mut bytes = [0xee; MAX_OPTIONS_LEN];
        let len = options.emitted_len();
        prop_assert!(len <= MAX_OPTIONS_LEN && len.is_multiple_of(4));
        options.emit(&mut bytes);
        let read = Options::parse(&bytes[..len]).unwrap();
        let unlimited = Options { sack: read.sack, fast_open: read.fast_open, ..options };
        prop_assert_eq!(read, unlimited);
        prop_assert!(options.sack.as_slice().starts_with(read.sack.as_slice()));
        prop_assert_eq!(read.sack.is_empty(), options.sack.is_empty());
        prop_assert!(read.fast_open.is_none() || read.fast_open == options.fast_open);
    }

    #[test]
    fn any_bytes_follow_the_rule(bytes in vec(prop_oneof![0u8..12, Just(34u8), any::<u8>()], 0..=40)) {
        check(&bytes);
    }

    #[test]
    fn the_common_form_is_read_as_any_other(val: u32, ecr: u32) {
        let numbers = [val.to_be_bytes(), ecr.to_be_bytes()].concat();
        let common = [&[1, 1, 8, 10][..], &numbers].concat();
        let other = [&[8, 10][..], &numbers, &[1, 1]].concat();
        let expected = Options { timestamps: Some(Timestamps { val, ecr }), ..Options::default() };
        prop_assert_eq!(Options::parse(&common), Ok(expected));
        prop_assert_eq!(Options::parse(&other), Ok(expected));
    }
}

/// Only zeros follow EOL (MUST-69).
#[test]
fn the_layout_of_freebsd_orders_and_pads_a_syn_otherwise() {
    let all = Options {
        mss: Some(1460),
        window_scale: Some(6),
        sack_permitted: true,
        timestamps: Some(Timestamps { val: 1, ecr: 0 }),
        layout: OptionLayout::FreeBsd,
        ..Options::default()
    };
    assert_eq!(all.to_string(), "mss 1460,nop,wscale 6,sackOK,TS val 1 ecr 0");
    assert_eq!(all.emitted_len(), 20);
    let few = Options { window_scale: None, timestamps: None, ..all };
    assert_eq!(few.to_string(), "mss 1460,sackOK,eol,eol");
    let unscaled = Options { window_scale: None, sack_permitted: false, ..all };
    assert_eq!(unscaled.to_string(), "mss 1460,nop,nop,TS val 1 ecr 0");
    let mut buffer = [0; 40];
    few.emit(&mut buffer[..few.emitted_len()]);
    assert_eq!(buffer[..8], [2, 4, 5, 180, 4, 2, 0, 0]);
}

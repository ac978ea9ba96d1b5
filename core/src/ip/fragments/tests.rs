use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const BAD: Result<Option<Vec<u8>>, DropReason> = Err(DropReason::BadFragment);
const LIMIT: Result<Option<Vec<u8>>, DropReason> = Err(DropReason::FragmentLimit);
const QUOTE: &[u8] = &[0x45; 28];

fn v4(source: u32, identification: u32) -> Key {
    Key { source: IpAddr::V4(source.into()), destination: IpAddr::V4(1.into()), identification, protocol: 6 }
}

fn v6(identification: u32) -> Key {
    Key { source: IpAddr::V6(2.into()), destination: IpAddr::V6(1.into()), identification, protocol: 6 }
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// The bytes from `start` to `end` of `whole`.
fn cut(whole: &[u8], start: usize, end: usize, more: bool) -> Piece<'_> {
    Piece { offset: start, more, payload: &whole[start..end], quote: QUOTE }
}

/// A table with the settings and the time of its calls. Every step checks the accounting.
#[derive(Clone)]
struct Table {
    fragments: Fragments,
    config: Config,
    now: Instant,
}

impl Table {
    fn new() -> Table {
        Table { fragments: Fragments::default(), config: Config::default(), now: Instant::from_secs(100) }
    }

    fn insert(&mut self, key: Key, piece: Piece<'_>) -> Result<Option<Vec<u8>>, DropReason> {
        let result = self.fragments.insert(self.now, &self.config, key, piece);
        self.audit();
        result.map(|whole| {
            whole.map(|whole| {
                assert_eq!(&whole.quote[..], QUOTE);
                whole.payload
            })
        })
    }

    fn expire(&mut self) -> Option<Expired> {
        let result = self.fragments.expire(self.now);
        self.audit();
        result
    }

    fn audit(&self) {
        let f = &self.fragments;
        assert!(f.held <= self.config.ipfrag_high_thresh as usize);
        assert_eq!((f.by_age.len(), f.by_pair.len()), (f.datagrams.len(), f.datagrams.len()));
        let (mut held, mut usage) = (0, BTreeMap::<Pair, (usize, usize)>::new());
        for (key, datagram) in &f.datagrams {
            assert_eq!(f.by_age.get(&datagram.age), Some(key));
            assert!(f.by_pair.contains(&(key.pair(), datagram.age)));
            let pieces: usize = datagram.pieces.values().map(|piece| piece.len() + PIECE_OVERHEAD).sum();
            let quote = datagram.quote.as_ref().map_or(0, |quote| quote.len() + BLOCK);
            assert_eq!(datagram.cost, DATAGRAM_OVERHEAD + pieces + quote);
            held += datagram.cost;
            let of_pair = usage.entry(key.pair()).or_default();
            *of_pair = (of_pair.0 + 1, of_pair.1 + datagram.cost);
        }
        assert_eq!(f.held, held);
        assert!(usage.values().all(|(datagrams, _)| *datagrams <= self.config.ipfrag_max_datagrams as usize));
        assert_eq!(
            f.usage.iter().map(|(p, u)| (*p, (u.datagrams, u.held))).collect::<BTreeMap<_, _>>(),
            usage
        );
    }
}

#[test]
fn two_fragments_make_a_datagram_in_either_order() {
    let whole = data(21);
    for key in [v4(9, 1), v6(1)] {
        for pieces in [[(0, 16, true), (16, 21, false)], [(16, 21, false), (0, 16, true)]] {
            let mut table = Table::new();
            let [first, second] = pieces.map(|(start, end, more)| cut(&whole, start, end, more));
            assert_eq!(table.insert(key, first), Ok(None));
            assert_eq!(table.fragments.len(), 1);
            assert_eq!(table.insert(key, second), Ok(Some(whole.clone())));
            assert_eq!(
                (table.fragments.len(), table.fragments.held(), table.fragments.poll_at()),
                (0, 0, None)
            );
        }
    }
}

#[test]
fn fragments_of_different_datagrams_do_not_mix() {
    let whole = data(16);
    let base = v4(9, 1);
    let others = [
        Key { source: IpAddr::V4(8.into()), ..base },
        Key { destination: IpAddr::V4(8.into()), ..base },
        Key { identification: 2, ..base },
        Key { protocol: 17, ..base },
    ];
    let mut table = Table::new();
    assert_eq!(table.insert(base, cut(&whole, 0, 8, true)), Ok(None));
    for other in others {
        assert_eq!(table.insert(other, cut(&whole, 8, 16, false)), Ok(None));
    }
    assert_eq!(table.fragments.len(), 5);
    assert_eq!(table.insert(base, cut(&whole, 8, 16, false)), Ok(Some(whole)));
}

/// A reference that tracks every byte taken in, to judge one more piece.
#[derive(Default)]
struct Oracle {
    bytes: BTreeMap<usize, usize>,
    taken: Vec<(usize, usize, bool)>,
    dead: bool,
}

impl Oracle {
    /// The expected answer of the table, given only the extent of each piece.
    fn expect(&mut self, piece: (usize, usize, bool), whole: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
        let (start, end, more) = piece;
        if self.dead {
            return BAD;
        }
        if self.taken.contains(&piece) {
            return Ok(None);
        }
        let overlap = (start..end).any(|at| self.bytes.contains_key(&at));
        let past_an_end = self.taken.iter().any(|taken| !taken.2 && end > taken.1);
        let before_others = !more && self.bytes.keys().any(|at| *at >= end);
        let second_end = !more && self.taken.iter().any(|taken| !taken.2);
        if overlap || past_an_end || before_others || second_end {
            self.dead = true;
            return BAD;
        }
        self.bytes.extend((start..end).map(|at| (at, at)));
        self.taken.push(piece);
        let length = self.taken.iter().find(|taken| !taken.2).map(|taken| taken.1);
        if length.is_some_and(|length| (0..length).all(|at| self.bytes.contains_key(&at))) {
            return Ok(Some(whole[..length.unwrap_or(0)].to_vec()));
        }
        Ok(None)
    }
}

#[test]
fn every_overlap_of_a_datagram_of_four_fragments_condemns_it_threat_65_8200_3() {
    let whole = data(80);
    let four = [(0, 16, true), (16, 32, true), (32, 48, true), (48, 64, false)];
    let (mut condemned, mut completed) = (0, 0);
    for key in [v4(9, 1), v6(1)] {
        for (start, end) in (0..80).step_by(8).flat_map(|a| (a + 8..=80).step_by(8).map(move |b| (a, b))) {
            for more in [true, false] {
                // The odd piece arrives at each position among the four, and they begin with each of them.
                for (place, first, backwards) in
                    (0..5).flat_map(|p| (0..4).flat_map(move |f| [(p, f, false), (p, f, true)]))
                {
                    let mut order: Vec<_> = (0..4).map(|i| four[(first + i) % 4]).collect();
                    if backwards {
                        order.reverse();
                    }
                    order.insert(place, (start, end, more));
                    let (mut table, mut oracle) = (Table::new(), Oracle::default());
                    for piece in &order {
                        let expected = oracle.expect(*piece, &whole);
                        let got = table.insert(key, cut(&whole, piece.0, piece.1, piece.2));
                        assert_eq!(got, expected, "{piece:?} of {order:?}");
                        if let Ok(Some(_)) = got {
                            completed += 1;
                            break; // a later piece would begin another datagram
                        }
                    }
                    condemned += u32::from(oracle.dead);
                }
            }
        }
    }
    assert!(condemned > 3000, "{condemned}");
    assert!(completed > 300, "{completed}");
}

#[test]
fn the_same_place_with_other_bytes_or_another_flag_is_an_overlap_threat_65() {
    let (whole, mut forged) = (data(24), data(24));
    forged[3] ^= 1;
    forged[20] ^= 1;
    for odd in [
        cut(&forged, 0, 8, true),
        cut(&forged, 16, 24, false),
        cut(&whole, 16, 24, true),
        cut(&whole, 0, 8, false),
    ] {
        let mut table = Table::new();
        assert_eq!(table.insert(v4(9, 1), cut(&whole, 0, 8, true)), Ok(None));
        assert_eq!(table.insert(v4(9, 1), cut(&whole, 16, 24, false)), Ok(None));
        assert_eq!(table.insert(v4(9, 1), cut(&whole, 0, 8, true)), Ok(None), "a duplicate is none");
        assert_eq!(table.insert(v4(9, 1), odd), BAD);
        assert_eq!(table.insert(v4(9, 1), cut(&whole, 8, 16, true)), BAD);
    }
}

#[test]
fn a_condemned_datagram_swallows_its_fragments_until_its_deadline_and_then_goes_silently_threat_65() {
    let whole = data(24);
    let mut table = Table::new();
    let begun = table.now;
    assert_eq!(table.insert(v4(9, 1), cut(&whole, 0, 16, true)), Ok(None));
    let before = table.fragments.held();
    assert_eq!(table.insert(v4(9, 1), cut(&whole, 8, 16, true)), BAD);
    assert!(table.fragments.held() < before, "its pieces are gone");
    table.now = begun + Duration::from_secs(29);
    assert_eq!(table.insert(v4(9, 1), cut(&whole, 0, 16, true)), BAD);
    assert_eq!(table.insert(v4(9, 1), cut(&whole, 16, 24, false)), BAD);
    assert_eq!(table.insert(v4(9, 2), cut(&whole, 0, 16, true)), Ok(None), "another is not affected");
    table.now = begun + table.config.ipfrag_time;
    assert_eq!(table.fragments.poll_at(), Some(table.now));
    assert_eq!(table.expire(), None);
    assert_eq!(table.fragments.len(), 1);
    assert_eq!(table.insert(v4(9, 1), cut(&whole, 0, 16, true)), Ok(None));
    assert_eq!(table.insert(v4(9, 1), cut(&whole, 16, 24, false)), Ok(Some(whole)));
}

#[test]
fn malformed_fragments_are_dropped_and_leave_the_datagram_alone_threat_65() {
    let whole = data(48);
    let mut table = Table::new();
    let odd = Piece { offset: 4, ..cut(&whole, 0, 8, true) };
    let malformed = [
        cut(&whole, 8, 15, true),
        cut(&whole, 8, 17, true),
        cut(&whole, 8, 8, true),
        cut(&whole, 8, 8, false),
        cut(&whole, 0, 0, true),
        odd,
    ];
    for piece in malformed {
        assert_eq!(table.insert(v4(9, 1), piece), BAD);
    }
    assert_eq!((table.fragments.len(), table.fragments.held()), (0, 0));
    assert_eq!(table.insert(v4(9, 1), cut(&whole, 0, 8, true)), Ok(None));
    for piece in malformed {
        assert_eq!(table.insert(v4(9, 1), piece), BAD);
    }
    assert_eq!(table.insert(v4(9, 1), cut(&whole, 8, 17, false)), Ok(Some(whole[..17].to_vec())));
}

#[test]
fn nothing_is_longer_than_a_datagram_can_be_threat_65() {
    let whole = data(70_000);
    for (key, max) in [(v4(9, 1), 65_515), (v6(1), 65_535)] {
        let mut table = Table::new();
        let at = 65_000;
        assert_eq!(table.insert(key, cut(&whole, at, max + 1, false)), BAD);
        assert_eq!(table.fragments.len(), 0, "no state for it alone");
        assert_eq!(table.insert(key, cut(&whole, at, max, false)), Ok(None));
        assert_eq!(table.insert(key, cut(&whole, 0, at, true)), Ok(Some(whole[..max].to_vec())));

        assert_eq!(table.insert(key, cut(&whole, 0, at, true)), Ok(None));
        assert_eq!(table.insert(key, cut(&whole, at, max + 1, false)), BAD);
        assert_eq!(table.insert(key, cut(&whole, at, max, false)), BAD, "the whole datagram is condemned");
        let past = Piece { offset: usize::MAX - 7, more: true, payload: &whole[..8], quote: QUOTE };
        assert_eq!(table.insert(v4(7, 7), past), BAD);
    }
}

#[test]
fn a_datagram_expires_as_long_after_its_first_fragment_as_is_set_1122_2() {
    let whole = data(64);
    let mut table = Table::new();
    let begun = table.now;
    assert_eq!(table.fragments.poll_at(), None);
    assert_eq!(table.insert(v4(9, 1), cut(&whole, 8, 16, true)), Ok(None));
    table.now = begun + Duration::from_secs(10);
    assert_eq!(table.insert(v4(9, 2), cut(&whole, 0, 8, true)), Ok(None));
    table.now = begun + Duration::from_secs(20);
    assert_eq!(table.insert(v4(9, 1), cut(&whole, 16, 24, true)), Ok(None), "it does not prolong");
    assert_eq!(table.fragments.poll_at(), Some(begun + Duration::from_secs(30)));
    table.now = Instant::from_nanos((begun + Duration::from_secs(30)).as_nanos() - 1);
    assert_eq!(table.expire(), None);
    table.now = begun + Duration::from_secs(30);
    let late = table.clone().insert(v4(9, 1), cut(&whole, 24, 32, true));
    assert_eq!(late, Err(DropReason::FragmentTimeout));
    assert_eq!(table.expire(), Some(Expired { key: v4(9, 1), quote: None }), "without fragment zero");
    assert_eq!(table.expire(), None);
    table.now = begun + Duration::from_secs(99);
    assert_eq!(table.expire(), Some(Expired { key: v4(9, 2), quote: Some(QUOTE.to_vec()) }));
    assert_eq!((table.expire(), table.fragments.len(), table.fragments.held()), (None, 0, 0));
}

#[test]
fn as_many_fragments_as_the_limit_and_not_one_more_threat_18() {
    let whole = data(65 * 8);
    for count in [64, 65] {
        let mut table = Table::new();
        for i in (1..count).rev() {
            let piece = cut(&whole, i * 8, i * 8 + 8, i + 1 < count);
            assert_eq!(table.insert(v4(9, 1), piece), Ok(None));
        }
        let last = table.insert(v4(9, 1), cut(&whole, 0, 8, true));
        if count == 64 {
            assert_eq!(last, Ok(Some(whole[..64 * 8].to_vec())));
        } else {
            assert_eq!(last, LIMIT);
            assert_eq!(table.fragments.held(), DATAGRAM_OVERHEAD, "what can never be complete is freed");
            assert_eq!(table.insert(v4(9, 1), cut(&whole, 0, 8, true)), LIMIT);
        }
    }
}

#[test]
fn as_many_datagrams_of_a_pair_as_the_limit_and_the_oldest_makes_room_threat_18() {
    let whole = data(16);
    let mut table = Table::new();
    let first = cut(&whole, 0, 8, true);
    assert_eq!(table.insert(v4(7, 0), first), Ok(None));
    for id in 0..128 {
        assert_eq!(table.insert(v4(9, id), first), Ok(None));
    }
    assert_eq!((table.fragments.len(), table.fragments.evicted()), (129, 0));
    assert_eq!(table.insert(v4(9, 5), first), Ok(None), "a duplicate begins nothing");
    assert_eq!(table.insert(v4(9, 5), cut(&data(32), 24, 32, false)), Ok(None), "nor does a second piece");
    assert_eq!(table.fragments.evicted(), 0);
    assert_eq!(table.insert(v4(9, 128), first), Ok(None));
    assert_eq!((table.fragments.len(), table.fragments.evicted()), (129, 1));
    for id in [1, 127, 128] {
        assert_eq!(table.insert(v4(9, id), cut(&whole, 8, 16, false)), Ok(Some(whole.clone())), "{id}");
    }
    assert_eq!(table.insert(v4(9, 0), cut(&whole, 8, 16, false)), Ok(None), "the oldest is gone");
    assert_eq!(table.insert(v4(7, 0), cut(&whole, 8, 16, false)), Ok(Some(whole)), "another pair's is not");
}

/// The memory of a datagram with only this piece.
fn cost(piece: &Piece<'_>) -> u32 {
    (DATAGRAM_OVERHEAD + piece.cost()) as u32
}

#[test]
fn as_much_memory_as_the_limit_and_not_a_byte_more_threat_18() {
    let whole = data(16);
    let first = cut(&whole, 0, 8, true);
    for (limit, expected) in [(0, LIMIT), (cost(&first) - 1, LIMIT), (cost(&first), Ok(None))] {
        let mut table = Table::new();
        table.config.ipfrag_high_thresh = limit;
        assert_eq!(table.insert(v4(9, 1), first), expected);
        assert_eq!(table.fragments.held(), if expected.is_ok() { limit as usize } else { 0 });
        if expected.is_ok() {
            // A datagram is never evicted to make room for itself.
            assert_eq!(table.insert(v4(9, 1), cut(&whole, 8, 16, false)), LIMIT);
            assert_eq!((table.fragments.len(), table.fragments.evicted()), (1, 0));
        }
    }
    let mut table = Table::new();
    table.config.ipfrag_high_thresh = 3 * cost(&first);
    (0..3).for_each(|id| assert_eq!(table.insert(v4(9, id), first), Ok(None)));
    assert_eq!((table.fragments.evicted(), table.fragments.held()), (0, 3 * cost(&first) as usize));
    assert_eq!(table.insert(v4(9, 3), first), Ok(None));
    assert_eq!((table.fragments.evicted(), table.fragments.len()), (1, 3));
    assert_eq!(table.fragments.oldest_but(&v4(0, 0)), Some(v4(9, 1)));
}

#[test]
fn the_memory_counted_is_at_least_what_a_piece_of_one_byte_really_takes_threat_18() {
    assert!(PIECE_OVERHEAD >= size_of::<(usize, Box<[u8]>)>() + BLOCK);
    assert!(
        DATAGRAM_OVERHEAD >= size_of::<Datagram>() + 2 * size_of::<Key>() + 11 * 24,
        "{DATAGRAM_OVERHEAD}"
    );
}

#[test]
fn a_flood_by_one_source_is_at_its_own_expense_threat_18() {
    let whole = data(16);
    let mut table = Table::new();
    table.config.ipfrag_high_thresh = 64 << 10;
    table.config.ipfrag_max_datagrams = 65_536;
    assert_eq!(table.insert(v4(5, 0), cut(&whole, 0, 8, true)), Ok(None));
    for id in 0..1000 {
        assert_eq!(table.insert(v4(9, id), cut(&whole, 0, 8, true)), Ok(None));
    }
    assert!(table.fragments.evicted() > 500);
    assert_eq!(table.insert(v4(5, 0), cut(&whole, 8, 16, false)), Ok(Some(whole)), "though it is the oldest");
}

#[test]
fn a_flood_by_one_source_keeps_nobody_else_out_threat_18() {
    let whole = data(2048);
    let mut table = Table::new();
    table.config.ipfrag_high_thresh = 256 << 10;
    table.config.ipfrag_max_datagrams = 65_536;
    let (first, second) = (cut(&whole, 0, 1024, true), cut(&whole, 1024, 2048, false));
    let mut good = 0;
    for id in 0..5000 {
        assert_eq!(table.insert(v4(9, id), cut(&whole, 0, 8, true)), Ok(None));
        // Another source gets in and through while the memory is full.
        if id % 10 == 0 {
            assert_eq!(table.insert(v4(100 + id, id), first), Ok(None));
        }
        if id % 10 == 9 {
            good += u32::from(table.insert(v4(100 + id - 9, id - 9), second) == Ok(Some(whole.clone())));
        }
    }
    assert!(table.fragments.evicted() > 4000);
    assert_eq!(good, 500);
}

#[test]
fn a_flood_from_everywhere_leaves_time_to_complete_a_datagram_threat_18() {
    let whole = data(2048);
    let mut table = Table::new();
    table.config.ipfrag_high_thresh = 256 << 10;
    let (first, second) = (cut(&whole, 0, 1024, true), cut(&whole, 1024, 2048, false));
    let mut good = 0;
    for id in 0..5000 {
        assert_eq!(table.insert(v4(1000 + id, id), cut(&whole, 8, 16, true)), Ok(None));
        if id % 50 == 0 {
            // Two at a time: a pair that holds little does not displace its own.
            assert_eq!(table.insert(v4(7, id), first), Ok(None));
            assert_eq!(table.insert(v4(7, id + 1), first), Ok(None));
        }
        if id % 50 == 49 {
            good += u32::from(table.insert(v4(7, id - 49), second) == Ok(Some(whole.clone())));
            good += u32::from(table.insert(v4(7, id - 48), second) == Ok(Some(whole.clone())));
        }
    }
    assert_eq!(good, 200);
}

/// A split of `len` bytes at multiples of 8, as (start, end, more).
fn split(len: usize, cuts: &[usize]) -> Vec<(usize, usize, bool)> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut * 8).filter(|cut| (1..len).contains(cut)).collect();
    at.extend([0, len]);
    at.sort_unstable();
    at.dedup();
    at.windows(2).map(|pair| (pair[0], pair[1], pair[1] < len)).collect()
}

proptest! {
    #[test]
    fn any_split_in_any_order_with_duplicates_comes_together(
        len in 9_usize..20_000,
        cuts in prop::collection::vec(0_usize..2500, 0..60),
        keys in prop::collection::vec(any::<u64>(), 62),
        copies in prop::collection::vec((0_usize..62, any::<u64>()), 0..30),
    ) {
        let whole = data(len);
        let pieces = split(len, &cuts);
        let mut order: Vec<_> = (0..pieces.len()).map(|i| (keys[i], i)).collect();
        order.extend(copies.iter().filter(|(i, _)| *i < pieces.len()).map(|(i, key)| (*key, *i)));
        order.sort_unstable();
        let mut table = Table::new();
        let (mut missing, mut result) = (pieces.len(), Ok(None));
        let mut seen = vec![false; pieces.len()];
        for (_, i) in order {
            prop_assert_eq!(&result, &Ok(None), "complete while {} are missing", missing);
            let (start, end, more) = pieces[i];
            result = table.insert(v6(1), cut(&whole, start, end, more));
            missing -= usize::from(!std::mem::replace(&mut seen[i], true));
            if missing == 0 {
                break;
            }
        }
        prop_assert_eq!(result, Ok(Some(whole)));
        prop_assert_eq!(table.fragments.held(), 0);
    }

    #[test]
    fn whatever_arrives_the_books_are_right_and_the_limits_hold_threat_18_threat_65(
        steps in prop::collection::vec(
            (0_u32..4, 0_u32..6, 0_usize..12, 0_usize..40, any::<bool>(), 0_u64..3000), 1..300),
        thresh in 0_u32..20_000,
    ) {
        let whole = data(200);
        let mut table = Table::new();
        table.config.ipfrag_high_thresh = thresh;
        table.config.ipfrag_max_datagrams = 3;
        table.config.ipfrag_max_fragments = 4;
        for (source, id, start, len, more, wait) in steps {
            table.now += Duration::from_millis(wait);
            while table.expire().is_some() {}
            let start = start * 8;
            let len = if more { len / 8 * 8 } else { len };
            let _ = table.insert(v4(source, id), cut(&whole, start, start + len, more));
        }
        table.now += Duration::from_secs(30);
        while table.expire().is_some() {}
        prop_assert_eq!((table.fragments.len(), table.fragments.held()), (0, 0));
    }
}

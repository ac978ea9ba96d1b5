//! The model against the figures that its words promise.

use std::net::Ipv4Addr;

use bytes::Bytes;
use steadfast_core::seq::SeqNum;
use steadfast_core::wire::tcp::{Flags, Header};
use steadfast_timeline::view::{Kind, View};

use super::*;
use crate::mangle::{forged, is_whole};

const MS: u64 = 1_000_000;

fn ms(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// A segment of the flow to `port`: its sequence number and payload.
fn segment(port: u16, seq: u32, len: usize) -> Bytes {
    let (from, to) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let header = Header {
        source_port: 5000,
        destination_port: port,
        seq: SeqNum(seq),
        flags: Flags::ACK,
        ..Header::default()
    };
    forged(from.into(), to.into(), &header, &vec![b'x'; len])
}

/// A packet of `size` bytes.
fn packet(size: usize) -> Bytes {
    segment(80, 0, size - 40)
}

fn capable(bytes: Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[1] |= 2;
    bytes.into()
}

fn path(setup: &str) -> Path<u64> {
    Path::new(setup.parse().unwrap(), 7)
}

/// Offers packets of `size` bytes, one every `gap` nanoseconds, numbered from 0, and returns the arrivals in their
/// order: number and time.
fn stream(path: &mut Path<u64>, count: u64, gap: u64, make: impl Fn(u64) -> Bytes) -> Vec<(u64, Instant)> {
    for tag in 0..count {
        path.offer(Instant::from_nanos(tag * gap), Parcel { bytes: make(tag), tag });
    }
    arrivals(path)
}

fn arrivals(path: &mut Path<u64>) -> Vec<(u64, Instant)> {
    let (mut all, mut now) = (Vec::new(), Instant::ZERO);
    while let Some(next) = path.poll_at() {
        now = now.max(next);
        while let Some(fate) = path.poll(now) {
            if let Fate::Arrives { at, parcel, .. } = fate {
                all.push((parcel.tag, at));
            }
        }
    }
    all.sort_by_key(|(_, at)| *at);
    all
}

#[test]
fn a_rate_spaces_packets_and_a_full_queue_drops() {
    let mut path = path("delay 10ms rate 1mbit queue 1");
    assert_eq!(stream(&mut path, 3, 0, |_| packet(1250)), [(0, ms(20)), (1, ms(30))]);
    assert_eq!(path.stats().lost(Cause::Queue), 1);
    path.offer(ms(10), Parcel { bytes: packet(1250), tag: 3 });
    assert_eq!(arrivals(&mut path), [(3, ms(40))]);
}

#[test]
fn a_queue_in_bytes_holds_more_of_the_small_packets() {
    let mut large = path("rate 1mbit queue 3000 bytes");
    assert_eq!(stream(&mut large, 100, 0, |_| packet(1500)).len(), 2);
    let mut small = path("rate 1mbit queue 3000 bytes");
    assert_eq!(stream(&mut small, 100, 0, |_| packet(100)).len(), 30);
    // An empty queue takes a packet of any size.
    assert_eq!(stream(&mut path("rate 1mbit queue 1 bytes"), 2, 0, |_| packet(100)).len(), 1);
}

#[test]
fn the_samples_tell_how_long_packets_wait_and_behind_how_many() {
    let mut path = path("rate 1mbit");
    stream(&mut path, 4, 0, |_| packet(1250));
    let stats = path.stats();
    assert_eq!(stats.quantile(1000, |s| s.wait), Some(Duration::from_millis(30)));
    assert_eq!(stats.quantile(500, |s| s.packets), Some(1));
    assert_eq!(stats.quantile(1000, |s| s.bytes), Some(3750));
    assert_eq!(stats.mean_wait(), Duration::from_millis(15));
    assert_eq!(Stats::default().quantile(500, |s| s.bytes), None);
}

#[test]
fn single_losses_have_their_share_and_come_again_with_the_seed() {
    let lost = || {
        let mut path = path("loss 2%");
        let arrived = stream(&mut path, 20_000, 1000, |_| packet(100));
        (path.stats().lost(Cause::Loss), arrived)
    };
    let (count, arrived) = lost();
    assert!((320..480).contains(&count), "{count}");
    assert_eq!(lost().1, arrived);
}

#[test]
fn bursts_of_losses_have_their_share_and_their_length() {
    let mut path = path("burst-loss 1% 25%");
    let arrived = stream(&mut path, 50_000, 1000, |_| packet(100));
    let lost = path.stats().lost(Cause::Burst);
    // In the long run 1 / (1 + 25) of the packets, in bursts of four.
    assert!((1600..2300).contains(&lost), "{lost}");
    let bursts = arrived.windows(2).filter(|pair| pair[1].0 - pair[0].0 > 1).count() as u64;
    assert!((3 * bursts..5 * bursts).contains(&lost), "{lost} in {bursts}");
}

#[test]
fn jitter_keeps_the_order_unless_told_otherwise() {
    for (words, keeps) in [("jitter 0ms..15ms", true), ("jitter 0ms..15ms reorder", false)] {
        let mut path = path(&format!("delay 20ms {words}"));
        let arrived = stream(&mut path, 1000, MS, |_| packet(100));
        assert_eq!(arrived.len(), 1000);
        assert_eq!(arrived.is_sorted_by_key(|(tag, _)| *tag), keeps, "{words}");
        assert!(arrived.iter().all(|(tag, at)| (20..=35).contains(&(at.as_millis() - tag))), "{words}");
    }
}

#[test]
fn late_packets_are_overtaken_and_the_others_are_not() {
    let mut path = path("delay 20ms late 2% by 8ms");
    let arrived = stream(&mut path, 5000, MS, |_| packet(100));
    let took = |wanted: u64| arrived.iter().filter(|(tag, at)| at.as_millis() - tag == wanted).count();
    assert_eq!(took(20) + took(28), 5000);
    assert!((60..140).contains(&took(28)), "{}", took(28));
}

#[test]
fn a_policer_passes_its_burst_and_then_its_rate() {
    let mut path = path("police 8mbit 32K");
    // 16 Mbit/s for a second: 32 packets of the burst, and then half of them.
    let arrived = stream(&mut path, 2000, MS / 2, |_| packet(1000));
    assert!((1030..1036).contains(&arrived.len()), "{}", arrived.len());
    assert_eq!(arrived[..60].last().map(|(tag, _)| *tag), Some(59));
    assert_eq!(path.stats().lost(Cause::Policed), 2000 - arrived.len() as u64);
}

#[test]
fn aggregated_packets_leave_together() {
    let mut path = path("delay 1ms aggregate 4ms");
    let arrived = stream(&mut path, 10, MS, |_| packet(100));
    let at: Vec<u64> = arrived.iter().map(|(_, at)| at.as_millis()).collect();
    assert_eq!(at, [1, 5, 5, 5, 5, 9, 9, 9, 9, 13]);
}

#[test]
fn of_eight_acks_the_last_arrives_and_a_rest_after_a_while() {
    let mut path = path("delay 1ms thin 8");
    let arrived = stream(&mut path, 20, MS, |tag| segment(80, tag as u32, 0));
    assert_eq!(arrived, [(7, ms(8)), (15, ms(16)), (19, ms(27))]);
    assert_eq!(path.stats().lost(Cause::Thinned), 17);
}

#[test]
fn thinning_leaves_data_alone_and_keeps_its_order_with_acks() {
    let mut path = path("delay 1ms thin 8");
    let arrived = stream(&mut path, 3, MS, |tag| segment(80, 0, if tag == 2 { 10 } else { 0 }));
    assert_eq!(arrived.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [1, 2]);
    // Each flow has ACKs of its own.
    let arrived = stream(&mut path, 2, 0, |tag| segment(80 + tag as u16, 0, 0));
    assert_eq!(arrived.len(), 2);
}

#[test]
fn the_receiver_coalesces_what_continues_and_nothing_else() {
    let mut path = path("delay 1ms gro 2ms");
    let starts = [0, 1000, 2000, 7000];
    let sizes = [1000, 1000, 500, 1000];
    for tag in 0..4 {
        let bytes = segment(80, starts[tag], sizes[tag]);
        path.offer(Instant::ZERO, Parcel { bytes, tag: tag as u64 });
    }
    assert_eq!(path.poll_at(), Some(ms(3)));
    let mut seen = Vec::new();
    while let Some(fate) = path.poll(ms(3)) {
        let Fate::Arrives { at, parcel, merged, .. } = fate else { panic!("nothing is lost") };
        let Some(View { kind: Kind::Tcp { header, payload }, .. }) = View::new(&parcel.bytes) else {
            panic!()
        };
        assert!(is_whole(&parcel.bytes));
        seen.push((header.seq.0, payload.len(), parcel.tag, merged, at));
    }
    assert_eq!(seen, [(0, 2500, 0, vec![1, 2], ms(3)), (7000, 1000, 3, vec![], ms(3))]);
    assert_eq!(path.stats().delivered, 4);
}

#[test]
fn a_handover_holds_packets_up_and_loses_some() {
    let mut path = path("delay 1ms handover 1s 100ms 50%");
    let arrived = stream(&mut path, 2000, MS, |_| packet(100));
    let took = |tag: u64| arrived.iter().find(|(t, _)| *t == tag).map(|(_, at)| at.as_millis() - tag);
    assert_eq!((took(999), took(1100), took(1999)), (Some(1), Some(1), Some(1)));
    assert!(arrived.iter().all(|(tag, at)| !(1000..1100).contains(tag) || at.as_millis() == 1101));
    assert!((30..70).contains(&path.stats().lost(Cause::Handover)));
}

#[test]
fn a_rate_follows_its_list() {
    let mut path = path("delay 0s rate 8mbit 1s 80mbit 1s");
    let arrived = stream(&mut path, 4000, MS / 2, |_| packet(1000));
    let within = |from, to| arrived.iter().filter(|(_, at)| (from..to).contains(&at.as_millis())).count();
    assert!((999..1001).contains(&within(0, 1000)), "{}", within(0, 1000));
    assert!((2900..3002).contains(&within(1000, 2001)), "{}", within(1000, 2001));
}

/// Offers 1.2 times the rate of a link for ten seconds. Returns the path, with the samples of the last seconds alone
/// told by their waits.
fn overloaded(aqm: &str, ecn: bool) -> Path<u64> {
    let mut path = path(&format!("rate 12mbit queue 1000 {aqm}"));
    let make = |_| if ecn { capable(packet(1500)) } else { packet(1500) };
    stream(&mut path, 12_000, MS * 10 / 12, make);
    path
}

#[test]
fn codel_and_pie_keep_the_queue_shorter_than_a_full_one() {
    let wait = |aqm| overloaded(aqm, false).stats().mean_wait();
    let tail = wait("");
    for aqm in ["aqm codel", "aqm pie"] {
        let stats = overloaded(aqm, false).stats().clone();
        assert!(stats.mean_wait() * 3 < tail, "{aqm}: {:?}, {tail:?}", stats.mean_wait());
        // A sixth of the packets is too much for the link.
        assert!((1200..2400).contains(&stats.lost(Cause::Aqm)), "{aqm}: {}", stats.lost(Cause::Aqm));
        assert_eq!(stats.marked, 0);
    }
}

#[test]
fn an_aqm_marks_packets_that_allow_it() {
    for aqm in ["aqm codel ecn", "aqm pie ecn"] {
        // PIE drops in spite of it while this load lasts: RFC 8033 §5.1.
        assert!(overloaded(aqm, true).stats().marked > 0, "{aqm}");
        assert_eq!(overloaded(aqm, false).stats().marked, 0);
    }
    let bytes = marked(&capable(packet(100)));
    assert!(is_whole(&bytes) && bytes[1] & 3 == 3);
}

#[test]
fn codel_leaves_a_queue_alone_that_drains_within_its_interval() {
    let mut path = path("rate 12mbit aqm codel");
    // Ninety packets at once wait up to 89 ms.
    assert_eq!(stream(&mut path, 90, 0, |_| packet(1500)).len(), 90);
    assert_eq!(path.stats().lost(Cause::Aqm), 0);
}

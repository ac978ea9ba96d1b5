use super::*;
use proptest::prelude::*;

/// Ranges wrap inside of every test.
const UNA: SeqNum = SeqNum(u32::MAX - 5_000);
const MOST: u32 = 256;

fn at(micros: u32) -> SendTime {
    SendTime(micros)
}

/// A delivery at `now`, of a path with a round trip of at least 20.
fn delivery(now: u32, flight: &Flight) -> Delivery {
    Delivery::new(at(now), 20, None, flight.rack.fack)
}

/// A flight of `sizes`, sent one after the other from time 0 on.
fn flight(sizes: &[u32]) -> (Flight, SeqNum) {
    let mut nxt = UNA;
    let mut flight = Flight::new(UNA, at(0));
    for (now, size) in (0..).zip(sizes) {
        flight.extend_to(nxt);
        flight.sent(nxt, at(now), 1000);
        nxt += *size;
    }
    flight.extend_to(nxt);
    (flight, nxt)
}

fn sack(flight: &mut Flight, now: u32, left: u32, right: u32) -> bool {
    let mut delivery = delivery(now, flight);
    let news = flight.sack((UNA + left, UNA + right), UNA, MOST, &mut delivery);
    flight.rack.update(&delivery);
    news
}

fn lost(flight: &Flight, full: u32) -> Option<(u32, u32)> {
    flight.first_lost(UNA, full).map(|(start, len)| (start.since(UNA), len))
}

#[test]
fn data_of_one_send_time_is_one_range_8985_26() {
    let mut flight = Flight::new(UNA, at(0));
    flight.sent(UNA, at(0), 100);
    flight.sent(UNA + 1000, at(0), 100);
    flight.sent(UNA + 2000, at(1), 100);
    flight.extend_to(UNA + 3000);
    let ends: Vec<_> = flight.ranges.iter().map(|range| range.end.since(UNA)).collect();
    assert_eq!(ends, [2000, 3000]);
}

/// 8985-1: each range has its send time. The last one takes later data with the later time.
#[test]
fn the_number_of_ranges_is_bounded_8985_25() {
    let mut flight = Flight::new(UNA, at(0));
    for n in 0..50 {
        flight.sent(UNA + n * 10, at(n), 16);
    }
    flight.extend_to(UNA + 500);
    assert_eq!(flight.ranges.len(), 16);
    assert_eq!(flight.ranges.back().map(|range| range.sent), Some(at(49)));
}

/// 8985-15, 8985-18: nothing is lost before something was delivered.
#[test]
fn a_range_is_lost_when_later_data_was_delivered_and_the_window_has_passed_8985_15() {
    let (mut flight, _) = flight(&[1000, 1000, 1000]);
    assert_eq!(flight.detect(UNA, at(20), 0), Detected::default(), "nothing was delivered");
    // The second range, sent at 1, took 20; the first one was sent at 0.
    sack(&mut flight, 21, 1000, 2000);
    let detected = flight.detect(UNA, at(21), 5);
    assert_eq!((detected.wait, flight.lost()), (Some(4), 0));
    let detected = flight.detect(UNA, at(24), 5);
    assert_eq!((detected.wait, flight.lost()), (Some(1), 0));
    let detected = flight.detect(UNA, at(25), 5);
    assert_eq!((detected.wait, flight.lost()), (None, 1000), "not the third one, which was sent later");
    assert_eq!(lost(&flight, 400), Some((0, 400)));
}

#[test]
fn ranges_of_one_send_time_are_told_apart_by_their_sequence_numbers_8985_3() {
    let (mut flight, _) = flight(&[4000]);
    sack(&mut flight, 20, 1000, 2000);
    flight.detect(UNA, at(20), 0);
    assert_eq!((flight.lost(), lost(&flight, 9000)), (1000, Some((0, 1000))));
}

#[test]
fn a_lost_retransmission_is_detected_as_an_original_is_8985_16() {
    let (mut flight, nxt) = flight(&[1000, 3000]);
    sack(&mut flight, 21, 1000, 4000);
    flight.detect(UNA, at(21), 0);
    flight.episode = at(21);
    flight.resent(UNA, 1000, at(21));
    assert_eq!((flight.lost(), flight.in_network(UNA, nxt)), (0, 1000));
    // New data, sent after the retransmission.
    flight.sent(nxt, at(25), 1000);
    flight.extend_to(nxt + 500);
    sack(&mut flight, 45, 4000, 4500);
    let detected = flight.detect(UNA, at(45), 0);
    assert_eq!((detected.retransmission, detected.again, flight.lost()), (true, 1, 1000));
}

/// 8985-27: new data of the same instant must not condemn the retransmission.
#[test]
fn new_data_of_the_same_instant_is_sent_after_or_before_a_retransmission_8985_27() {
    let (mut flight, nxt) = flight(&[1000, 3000]);
    sack(&mut flight, 21, 1000, 4000);
    flight.sent(nxt, at(21), 1000);
    flight.extend_to(nxt + 500);
    flight.detect(UNA, at(21), 0);
    flight.resent(UNA, 1000, at(21));
    sack(&mut flight, 41, 4000, 4500);
    flight.detect(UNA, at(41), 0);
    assert_eq!(flight.lost(), 0, "the new data was sent before");
}

/// An ACK that may be that of the original indicates no round trip of the retransmission.
#[test]
fn a_retransmission_acknowledged_too_early_says_nothing_8985_3() {
    let (mut flight, _) = flight(&[1000, 1000, 1000]);
    flight.mark_all(UNA);
    flight.resent(UNA, 1000, at(50));
    let mut early = delivery(60, &flight);
    flight.acknowledge(UNA, UNA + 1000, &mut early);
    flight.rack.update(&early);
    assert!(flight.rack.newest.is_none());
}

#[test]
fn a_timeout_marks_the_head_and_what_is_old_8985_17() {
    let (mut flight, nxt) = flight(&[3000]);
    flight.sent(nxt, at(90), 1000);
    flight.extend_to(nxt + 2000);
    flight.mark_old(UNA, 1000, at(100), 20);
    assert_eq!(flight.lost(), 3000);
    let (mut flight, _) = self::flight(&[3000]);
    flight.mark_old(UNA, 1000, at(10), 20);
    assert_eq!(flight.lost(), 1000, "the first segment in any case");
}

#[test]
fn an_acknowledged_block_that_the_cumulative_ack_reaches_shows_reneging_2018_4() {
    let (mut flight, _) = flight(&[5000]);
    sack(&mut flight, 20, 1000, 2000);
    sack(&mut flight, 20, 3000, 4000);
    let ack = |flight: &mut Flight, from, to| {
        let mut delivery = delivery(30, flight);
        flight.acknowledge(UNA + from, UNA + to, &mut delivery)
    };
    assert!(!ack(&mut flight, 0, 500));
    assert!(!ack(&mut flight, 500, 2000));
    assert!(ack(&mut flight, 2000, 3000), "the peer held 3000..4000 and does not acknowledge it");
    assert_eq!((flight.sacked(), flight.sacked_ranges()), (0, 0));
}

#[test]
fn the_number_of_acknowledged_ranges_is_bounded_threat_15() {
    let (mut flight, _) = flight(&[10_000]);
    for i in 0..300 {
        sack(&mut flight, 20, i * 10 + 10, i * 10 + 11);
    }
    assert_eq!(flight.sacked_ranges(), MOST);
    assert!(!sack(&mut flight, 20, 9_000, 9_001));
    assert!(sack(&mut flight, 20, 11, 12), "one that extends a range still counts");
    assert!(flight.ranges.len() <= 2 * MOST as usize + 1);
}

/// THREAT-15: the cost of an ACK in visited ranges.
#[test]
fn the_cost_of_an_ack_is_the_number_of_ranges_not_its_square_threat_15() {
    for islands in [1, 16, 256] {
        let (mut flight, _) = flight(&[10_000]);
        for i in 0..islands {
            sack(&mut flight, 20, 10 + i * 10, 15 + i * 10);
        }
        flight.visited.set(0);
        sack(&mut flight, 20, 10, 16);
        flight.detect(UNA, at(20), 0);
        flight.first_lost(UNA, 1000);
        assert!(flight.visited.get() <= 2 * islands as usize + 4, "{}", flight.visited.get());
    }
}

/// One byte of the oracle.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Byte {
    sent: u32,
    fate: Fate,
    retransmitted: bool,
}

proptest! {
    /// The ranges are what a record of each byte would be.
    #[test]
    fn the_flight_is_a_record_of_each_byte(
        events in proptest::collection::vec((0u8..7, 0u32..400, 1u32..60), 0..40),
    ) {
        let mut bytes = vec![Byte { sent: 0, fate: Fate::InNetwork, retransmitted: false }; 5];
        let (mut una, mut now) = (0u32, 0u32);
        let mut flight = Flight::new(UNA, at(0));
        flight.extend_to(UNA + 5);
        let of = |bytes: &[Byte], fate| bytes.iter().filter(|byte| byte.fate == fate).count() as u32;
        for (event, from, len) in events {
            now += 7;
            let nxt = UNA + bytes.len() as u32;
            let end = (from + len).min(bytes.len() as u32);
            match event {
                0 | 1 => {
                    flight.sent(nxt, at(now), 1000);
                    let new = Byte { sent: now, fate: Fate::InNetwork, retransmitted: false };
                    bytes.extend(std::iter::repeat_n(new, len as usize));
                }
                2 if from > una && from < end => {
                    let range = &mut bytes[from as usize..end as usize];
                    let news = range.iter().any(|byte| byte.fate != Fate::Sacked);
                    range.iter_mut().for_each(|byte| byte.fate = Fate::Sacked);
                    let mut delivery = delivery(now, &flight);
                    let block = (UNA + from, UNA + end);
                    prop_assert_eq!(flight.sack(block, UNA + una, MOST, &mut delivery), news);
                }
                3 if end > una && end < bytes.len() as u32 && bytes[end as usize].fate != Fate::Sacked => {
                    let mut delivery = delivery(now, &flight);
                    prop_assert!(!flight.acknowledge(UNA + una, UNA + end, &mut delivery));
                    una = end;
                }
                4 => {
                    let age = from;
                    flight.mark_old(UNA + una, len, at(now), age);
                    for (index, byte) in bytes.iter_mut().enumerate().skip(una as usize) {
                        let head = index < (una + len) as usize;
                        if byte.fate == Fate::InNetwork && (head || now - byte.sent >= age) {
                            byte.fate = Fate::Lost;
                        }
                    }
                }
                5 => {
                    let expected = bytes.iter().enumerate().skip(una as usize).find(|(_, b)| b.fate == Fate::Lost);
                    let first = flight.first_lost(UNA + una, len);
                    prop_assert_eq!(first.map(|(start, _)| start.since(UNA) as usize), expected.map(|(i, _)| i));
                    if let Some((start, count)) = first {
                        flight.resent(start, count, at(now));
                        let start = start.since(UNA) as usize;
                        let again = Byte { sent: now, fate: Fate::InNetwork, retransmitted: true };
                        for byte in &mut bytes[start..start + count as usize] {
                            prop_assert_eq!(byte.fate, Fate::Lost);
                            *byte = again;
                        }
                        prop_assert!(count == len || bytes.get(start + count as usize).is_none_or(|b| b.fate != Fate::Lost));
                    }
                }
                6 if from >= una && from < end => {
                    let index = flight.ranges.partition_point(|range| range.end.le(UNA + from));
                    let end = end.min(flight.ranges[index].end.since(UNA));
                    flight.delay(UNA + una, (UNA + from, UNA + end), at(now));
                    let held = bytes[from as usize..end as usize].iter_mut();
                    held.filter(|byte| byte.fate == Fate::InNetwork).for_each(|byte| byte.sent = now);
                }
                _ => {}
            }
            let nxt = UNA + bytes.len() as u32;
            flight.extend_to(nxt);
            let rest = &bytes[una as usize..];
            prop_assert_eq!(flight.sacked(), of(rest, Fate::Sacked));
            prop_assert_eq!(flight.lost(), of(rest, Fate::Lost));
            prop_assert_eq!(flight.in_network(UNA + una, nxt), of(rest, Fate::InNetwork));
            let mut start = UNA + una;
            let mut islands = 0;
            for range in &flight.ranges {
                islands += u32::from(range.fate == Fate::Sacked);
                for byte in &bytes[start.since(UNA) as usize..range.end.since(UNA) as usize] {
                    prop_assert_eq!(range.fate, byte.fate);
                    if range.fate == Fate::InNetwork {
                        prop_assert_eq!((range.sent, range.retransmitted), (at(byte.sent), byte.retransmitted));
                    }
                }
                start = range.end;
            }
            prop_assert_eq!((start, islands), (nxt, flight.sacked_ranges()));
        }
    }
}

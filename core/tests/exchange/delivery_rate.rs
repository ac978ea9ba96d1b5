//! The delivery rate: what arrives at the peer in a round trip (draft-ietf-ccwg-bbr §4.1).

use crate::harness::{Test, each};
use crate::recovery::path;

/// Segments of 1000 bytes arrive one a millisecond, as at a bottleneck of 1 MB/s, and the application always has more.
/// Acknowledges bytes from `first` on for `millis`. Returns the last byte acknowledged.
fn bottleneck(t: &mut Test, first: u32, millis: u32, ack: impl Fn(u32) -> String) -> u32 {
    let mut end = first;
    for _ in 0..millis {
        t.wait(1);
        t.write(1000);
        t.drain();
        end += 1000;
        t.send(&ack(end));
        t.drain();
    }
    end
}

fn rate(t: &Test) -> (u64, bool) {
    let info = t.stack.info(t.now, t.sock).unwrap();
    (info.delivery_rate, info.delivery_rate_app_limited)
}

/// RATE-1: the rate is that of the bottleneck, however large the window grows.
#[test]
fn the_rate_is_that_of_the_bottleneck_rate_1() {
    each(|t| {
        path(t);
        assert_eq!(rate(t), (0, false));
        t.write(60_000);
        t.drain();
        t.wait(19);
        bottleneck(t, 1, 200, |end| format!(". seq 1 ack {end}"));
        assert_eq!(rate(t), (1_000_000, false));
    });
}

/// RATE-4: what is selectively acknowledged counts when it is, and not again when the gap before it is filled.
#[test]
fn a_filled_gap_does_not_count_what_lies_behind_it_again_rate_4() {
    each(|t| {
        path(t);
        t.write(60_000);
        t.drain();
        t.wait(19);
        let end = bottleneck(t, 1, 100, |end| format!(". seq 1 ack {end}"));
        // A segment is missing for five milliseconds.
        for n in 2..=5 {
            t.wait(1);
            t.send(&format!(". seq 1 ack {end} <sack {}:{}>", end + 1000, end + n * 1000));
            t.drain();
        }
        t.wait(1);
        t.send(&format!(". seq 1 ack {}", end + 5000));
        t.drain();
        bottleneck(t, end + 5000, 100, |end| format!(". seq 1 ack {end}"));
        let (bytes_per_second, _) = rate(t);
        assert!((900_000..=1_100_000).contains(&bytes_per_second), "{bytes_per_second}");
    });
}

/// RATE-5: an application that has less to send does not lower the rate.
#[test]
fn an_application_with_little_to_send_does_not_lower_the_rate_rate_5() {
    each(|t| {
        path(t);
        t.write(60_000);
        t.drain();
        t.wait(19);
        let mut end = bottleneck(t, 1, 200, |end| format!(". seq 1 ack {end}"));
        let unacked = t.stack.info(t.now, t.sock).unwrap().unacked;
        end += unacked;
        t.send(&format!(". seq 1 ack {end}"));
        t.drain();
        for _ in 0..5 {
            t.write(1000);
            t.drain();
            t.wait(20);
            end += 1000;
            t.send(&format!(". seq 1 ack {end}"));
        }
        assert!(rate(t).0 >= 1_000_000, "{:?}", rate(t));
    });
}

//! Losses, by the way they were repaired.

use super::quality::Gates;
use super::{by_cost, near_sender};
use crate::conn::{CLIENT, Conn, SERVER, Tally};
use crate::finding::{Finding, Place, Severity, seconds};

pub(super) fn judge(conn: &Conn, gates: &Gates, out: &mut Vec<Finding>) {
    for way in [CLIENT, SERVER] {
        let Some(trouble) = conn.troubled(way) else { continue };
        let many = u64::from(trouble.again) * 100 > conn.ways[way].bytes;
        let side = if trouble.before_here.count > 0 && !near_sender(conn, way) {
            "before the capture"
        } else {
            "behind the capture"
        };
        let mut say = |tally: &Tally, id: &'static str, what: &'static str, how: &str| {
            if tally.count == 0 {
                return;
            }
            let cost = tally.most;
            let severity = if many { Severity::Warning } else { by_cost(conn, cost) };
            // A file that lacks packets cannot tell what was lost.
            let severity = if gates.lossy { Severity::Info } else { severity };
            let text = format!(
                "{} segments were {how} ({side}); the longest wait was {}.",
                tally.count,
                seconds(cost)
            );
            let first = tally.packets.first().map_or(conn.start, |p| p.1);
            out.push(
                Finding::new(id, severity, Place::Path)
                    .see_all(tally.packets.iter().map(|p| p.0), what)
                    .at(first, tally.cost)
                    .cost(tally.cost)
                    .text(text)
                    .times(tally.count),
            );
        };
        say(&trouble.timeout, "loss-rto", "again: timeout", "repeated by a timeout");
        say(&trouble.fast, "loss-fast-retransmit", "again: duplicate ACKs", "repaired within a round trip");
        say(
            &trouble.tail,
            "loss-tlp",
            "again: tail probe or timeout",
            "repeated as a probe of the tail, or by a timeout",
        );
        let burst = &trouble.burst;
        if burst.segments > 3 {
            let text = format!(
                "{} segments in a row were lost ({side}), and repaired within {}.",
                burst.segments,
                seconds(burst.last_at - burst.first_at)
            );
            out.push(
                Finding::new("loss-burst", Severity::Info, Place::Path)
                    .see_all(burst.packets.iter().copied(), "in a row, again")
                    .at(burst.first_at, burst.last_at - burst.first_at)
                    .text(text)
                    .times(burst.segments)
                    .because(
                        "The repairs have consecutive numbers: a queue overflowed, or the path was away.",
                    ),
            );
        }
        if trouble.before_here.count > 0 {
            let lost = &trouble.before_here;
            let text =
                format!("{} segments were lost before they came by; only their repairs did.", lost.count);
            let first = lost.packets.first().map_or(conn.start, |p| p.1);
            out.push(
                Finding::new("loss-before-here", Severity::Info, Place::Path)
                    .see_all(lost.packets.iter().map(|p| p.0), "fills a hole")
                    .at(first, lost.most)
                    .text(text)
                    .times(lost.count),
            );
        }
        let unheard = &trouble.ack_lost;
        if unheard.count > 0 {
            let text = format!(
                "{} acknowledgments of the {} were lost: the data had arrived, and was sent again.",
                unheard.count,
                Place::of(1 - way).name()
            );
            out.push(
                Finding::new("loss-ack-lost", Severity::Info, Place::Path)
                    .see_all(unheard.packets.iter().map(|p| p.0), "again, or reported twice")
                    .at(unheard.packets.first().map_or(conn.start, |p| p.1), unheard.most)
                    .text(text)
                    .times(unheard.count)
                    .because("No acknowledgment of it reached the sender in the time that one needs.")
                    .or(
                        "loss-spurious",
                        format!("a capture at the {}: did they come late?", Place::of(way).name()),
                    ),
            );
        }
        if trouble.needless.count > 0 {
            let needless = &trouble.needless;
            let text =
                format!("{} segments were repeated though they had been acknowledged.", needless.count);
            let first = needless.packets.first().map_or(conn.start, |p| p.1);
            out.push(
                Finding::new("loss-spurious", Severity::Info, Place::Path)
                    .see_all(needless.packets.iter().map(|p| p.0), "again, needlessly")
                    .at(first, 0)
                    .text(text)
                    .times(needless.count),
            );
        }
    }
}

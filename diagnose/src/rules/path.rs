//! The path: its MTU, its silence after idle times, its damage and its order.

use super::Context;
use crate::conn::{CLIENT, Conn, Kind, Mark, SERVER, Stuck, Tally};
use crate::finding::{Confidence, Finding, Place, Severity, seconds};

const SECOND: i64 = 1_000_000_000;

pub(super) fn judge(conn: &Conn, context: &Context, out: &mut Vec<Finding>) {
    asymmetric(conn, out);
    for way in [CLIENT, SERVER] {
        lowered(conn, way, out);
        overlap(conn, way, out);
        other_way(conn, way, out);
        let Some(trouble) = conn.troubled(way) else { continue };
        // A large segment that had arrived fits the path.
        if trouble.ack_lost.count == 0 {
            black_hole(conn, way, &trouble.hole_of_size, true, out);
            if out.last().is_none_or(|last| last.id != "path-mtu-blackhole") {
                black_hole(conn, way, &trouble.stuck, false, out);
            }
        }
        one_way_dead(conn, way, &trouble.needless, context, out);
        if trouble.corrupt.count > 0 {
            let text = format!(
                "{} segments arrived with a wrong checksum, and the receiver did not take them.",
                trouble.corrupt.count
            );
            let finding =
                Finding::new("path-corruption", Severity::Warning, Place::Path).sure(Confidence::Certain);
            let first = trouble.corrupt.packets.first().map_or(conn.start, |p| p.1);
            out.push(finding.see_all(trouble.corrupt.packets.iter().map(|p| p.0), "wrong checksum").at(first, 0).text(text).times(trouble.corrupt.count)
                .because("Other segments of the same sender have right checksums, so its device does not compute them later."));
        }
        if trouble.late.count > 0 {
            let late = &trouble.late;
            let share = late.count * 100 / conn.ways[way].data_packets.max(1);
            let severity = if share >= 1 && late.count >= 2 { Severity::Warning } else { Severity::Info };
            let first = late.packets.first().map_or(conn.start, |p| p.1);
            let text = format!(
                "{} segments arrived after later ones, by up to {}. They were not lost.",
                late.count,
                seconds(late.most)
            );
            out.push(
                Finding::new("path-reorder", severity, Place::Path)
                    .see_all(late.packets.iter().map(|p| p.0), "late")
                    .at(first, late.most)
                    .text(text)
                    .times(late.count)
                    .because(
                        "Their identification or timestamp is older than that of the segments before them.",
                    ),
            );
        }
    }
}

/// An end repeats what the other has acknowledged, to the end: the acknowledgments do not reach it.
fn one_way_dead(conn: &Conn, way: usize, needless: &Tally, context: &Context, out: &mut Vec<Finding>) {
    let last = conn.marks_of(way, Kind::Needless).last();
    let to_the_end = last.is_some_and(|last| last.at >= conn.ways[way].data_at && context.end >= last.at);
    let spread =
        needless.packets.last().zip(needless.packets.first()).map_or(0, |(last, first)| last.1 - first.1);
    if needless.count < 3 || !to_the_end || spread < SECOND {
        return;
    }
    let text = format!(
        "The {} repeats data {} times that the other end acknowledges each time: the acknowledgments do not reach it.",
        Place::of(way).name(),
        needless.count
    );
    out.push(
        Finding::new("path-one-direction-dead", Severity::Error, Place::Path)
            .see_all(needless.packets.iter().map(|p| p.0), "again, though acknowledged")
            .at(needless.packets.first().map_or(conn.start, |p| p.1), spread)
            .text(text)
            .times(needless.count),
    );
}

/// Two interfaces see how many routers lie between them, in each direction.
fn asymmetric(conn: &Conn, out: &mut Vec<Finding>) {
    let Some([Some(client), Some(server)]) = conn.rare.as_ref().map(|rare| rare.hops) else { return };
    if client == server {
        return;
    }
    let text = format!(
        "Between the two interfaces, packets of the client pass {client} routers, and those of the server {server}."
    );
    out.push(
        Finding::new("path-asymmetric", Severity::Info, Place::Path)
            .sure(Confidence::Certain)
            .see(conn.first_packet, "seen twice")
            .at(conn.start, 0)
            .text(text)
            .because("Each router takes one from the TTL."),
    );
}

/// The TTL of an end changes and stays.
fn other_way(conn: &Conn, way: usize, out: &mut Vec<Finding>) {
    let changes: Vec<_> = conn.marks_of(way, Kind::TtlChange).collect();
    let Some(first) = changes.first() else { return };
    let name = Place::of(way).name();
    let text = format!(
        "The TTL of the {name}'s packets changes from {} to {}.",
        first.value >> 8,
        first.value & 255
    );
    out.push(
        Finding::new("path-ttl-change", Severity::Info, Place::Path)
            .see_all(changes.iter().map(|mark| mark.packet), "another TTL, for the third time")
            .at(first.at, 0)
            .text(text)
            .times(changes.len() as u32)
            .because(format!(
                "Its packets take another way, or another host speaks in the name of the {name}, such as a proxy that answers the SYN."
            )),
    );
}

/// The same numbers came with other bytes. Where the TTL of one of the two is not the sender's, that one is forged.
fn overlap(conn: &Conn, way: usize, out: &mut Vec<Finding>) {
    let odd = |packet: u32| conn.marks_of(way, Kind::OddTtl).find(|mark| mark.packet == packet);
    let (mut differ, mut forged) = (Vec::new(), Vec::new());
    for mark in conn.marks_of(way, Kind::Differs) {
        match odd(mark.packet).or(odd(mark.value)) {
            Some(odd) => forged.push((mark, odd)),
            None => differ.push(mark),
        }
    }
    injected(way, &forged, out);
    let Some(first) = differ.first() else { return };
    let text = format!(
        "{} segments in the name of the {} have other bytes than the ones before, under the same numbers.",
        differ.len(),
        Place::of(way).name()
    );
    let finding = differ
        .iter()
        .fold(Finding::new("path-overlap-differs", Severity::Error, Place::Path), |finding, mark| {
            finding.see(mark.value, "first bytes").see(mark.packet, "other bytes")
        });
    out.push(
        finding
            .at(first.at, 0)
            .text(text)
            .times(differ.len() as u32)
            .because("A sender repeats the same bytes, however it cuts them: one of the two is not from it.")
            .or("path-corruption", format!("a capture at the {}", Place::of(way).name())),
    );
}

/// Data that is not from the end in whose name it comes: the marks of other bytes, and of the TTL.
fn injected(way: usize, forged: &[(&Mark, &Mark)], out: &mut Vec<Finding>) {
    let Some((differs, odd)) = forged.first() else { return };
    let name = Place::of(way).name();
    let text = format!(
        "{} segments in the name of the {name} are not from it: other bytes for the same numbers, with a TTL of {}.",
        forged.len(),
        { odd.value }
    );
    let finding = Finding::new("path-data-injected", Severity::Error, Place::Path);
    let finding = forged.iter().fold(finding, |finding, (differs, odd)| {
        let own = if differs.packet == odd.packet { differs.value } else { differs.packet };
        finding.see(odd.packet, "forged").see(own, "the sender's own")
    });
    out.push(
        finding
            .at(differs.at, 0)
            .text(text)
            .times(forged.len() as u32)
            .because("A sender repeats the same bytes, and the TTL of its other segments is another.")
            .or("path-overlap-differs", format!("a capture at the {name}")),
    );
}

/// Routers told that packets are too big, and the sender obeyed.
fn lowered(conn: &Conn, way: usize, out: &mut Vec<Finding>) {
    let told: Vec<_> = conn.marks_of(way, Kind::TooBig).collect();
    let Some(first) = told.first() else { return };
    let recut = conn.troubled(way).map_or(0, |t| t.recut.count);
    let text = format!(
        "A router says that packets must not exceed {} bytes, and {} segments were cut again.",
        { first.value },
        recut
    );
    let again = conn.marks_of(way, Kind::Recut).map(|mark| mark.packet);
    out.push(
        Finding::new("path-pmtu-lowered", Severity::Info, Place::Path)
            .sure(Confidence::Certain)
            .see_all(told.iter().map(|mark| mark.packet), "ICMP: too big")
            .see_all(again, "cut again")
            .at(first.at, 0)
            .text(text),
    );
}

/// Large segments vanish, and small ones pass.
fn black_hole(conn: &Conn, way: usize, stuck: &Stuck, ended: bool, out: &mut Vec<Finding>) {
    let told = conn.marks_of(way, Kind::TooBig).next().is_some();
    let smaller_passes =
        stuck.passes > 0 && stuck.passes < stuck.len || stuck.passed > 0 && stuck.passed + 100 < stuck.len;
    if stuck.times < 3 || stuck.len < 500 || told || !smaller_passes {
        return;
    }
    let passed = stuck.passes.max(stuck.passed);
    let text = format!(
        "Segments of {} bytes were sent {} times without an acknowledgment, while those of up to {passed} bytes pass.",
        stuck.len,
        stuck.times + 1
    );
    let lasted = stuck.last_at - stuck.first_at;
    let confidence = if ended { Confidence::Certain } else { Confidence::Likely };
    let severity = if ended { Severity::Warning } else { Severity::Error };
    out.push(
        Finding::new("path-mtu-blackhole", severity, Place::Path)
            .sure(confidence)
            .see_all(stuck.packets.iter().map(|p| p.0), "large, not acknowledged")
            .at(stuck.first_at, lasted)
            .cost(lasted)
            .text(text)
            .because("No router said that the packets are too big (ICMP).")
            .or("live-peer-vanished", format!("ping -M do -s {} to the other end", stuck.len + 12)),
    );
}

/// The silence before a segment, in nanoseconds.
pub(super) fn idle_before(conn: &Conn, packet: u32) -> i64 {
    conn.marks
        .iter()
        .find(|mark| mark.kind == Kind::AfterIdle && mark.packet == packet)
        .map_or(0, |mark| i64::from(mark.value) * (SECOND / 1000))
}

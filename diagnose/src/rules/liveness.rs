//! Is the other end still there?

use super::path::idle_before;
use super::{Context, ended};
use crate::conn::{CLIENT, Conn, Kind, Mark, SERVER, fact};
use crate::finding::{Confidence, Finding, Place, Severity, seconds};

const SECOND: i64 = 1_000_000_000;
/// Silence after which translations are forgotten.
const FORGOTTEN: i64 = 9 * SECOND;

pub(super) fn judge(conn: &Conn, context: &Context, out: &mut Vec<Finding>) {
    for way in [CLIENT, SERVER] {
        keepalive(conn, way, out);
        exhausted(conn, way, context, out);
    }
}

/// Probes that were not answered to the end.
fn keepalive(conn: &Conn, way: usize, out: &mut Vec<Finding>) {
    let probes: Vec<&Mark> = conn.marks_of(way, Kind::Keepalive).collect();
    let last_answer = conn.ways[1 - way].last_at;
    let unanswered: Vec<&&Mark> = probes.iter().filter(|probe| probe.at > last_answer).collect();
    let (Some(first), Some(last)) = (unanswered.first(), unanswered.last()) else { return };
    if unanswered.len() < 2 || conn.ways[1 - way].is(fact::RST) || conn.ways[way].is(fact::CLOSED_WINDOW) {
        return;
    }
    let reset = conn.marks_of(way, Kind::Reset).next();
    let sure = if reset.is_some() { Confidence::Likely } else { Confidence::Possible };
    let text =
        format!("{} keepalive probes in {} got no answer.", unanswered.len(), seconds(last.at - first.at));
    let mut finding = Finding::new("live-keepalive-dead", Severity::Error, Place::Path)
        .sure(sure)
        .see_all(unanswered.iter().map(|mark| mark.packet), "keepalive, unanswered")
        .at(first.at, last.at - first.at)
        .text(text)
        .because("Nothing was in flight, and the probes repeat the last byte that was acknowledged.")
        .times(unanswered.len() as u32);
    if let Some(reset) = reset {
        finding = finding.see(reset.packet, "gives up");
    }
    out.push(finding);
}

/// Data that was repeated to the end.
fn exhausted(conn: &Conn, way: usize, context: &Context, out: &mut Vec<Finding>) {
    let Some(trouble) = conn.troubled(way) else { return };
    let stuck = &trouble.stuck;
    let peer = &conn.ways[1 - way];
    // A segment that comes after the end has given up is no answer.
    let gave_up = conn.marks_of(way, Kind::Reset).next().is_some_and(|reset| peer.last_at > reset.at);
    let answered = peer.last_at > stuck.first_at + conn.round_trip() && !gave_up;
    if stuck.times < 3 || answered || peer.is(fact::RST) && !gave_up || ended(conn) == "fin-both" {
        return;
    }
    let first = stuck.packets.first().map_or(0, |p| p.0);
    let idle = idle_before(conn, first);
    let lasted = stuck.last_at - stuck.first_at;
    // The next repetition would have come within twice the last wait.
    let over =
        context.end - stuck.last_at > 2 * stuck.wait || conn.ways[way].is(fact::RST) || stuck.times >= 5;
    let text = format!("Data was sent {} times in {} without any answer.", stuck.times + 1, seconds(lasted));
    let (id, because) = if idle >= FORGOTTEN {
        (
            "path-idle-drop",
            format!("The connection had been idle for {}; until then both ends answered.", seconds(idle)),
        )
    } else if over {
        ("live-retries-exhausted", "The waits double, and nothing comes back.".to_owned())
    } else {
        ("live-peer-vanished", "The capture ends before the last retry.".to_owned())
    };
    let mut finding = Finding::new(id, Severity::Error, Place::Path)
        .see_all(stuck.packets.iter().map(|p| p.0), "unanswered");
    if id == "path-idle-drop" {
        finding = finding.or("live-peer-vanished", "other connections to the same host in these seconds");
        if idle < 30 * SECOND {
            finding = finding.sure(Confidence::Possible);
        }
    }
    out.push(finding.at(stuck.first_at, lasted).cost(lasted).text(text).because(because).times(stuck.times));
}

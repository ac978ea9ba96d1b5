//! Windows: closed, small, never opened again.

use super::{Context, by_cost};
use crate::conn::{CLIENT, Conn, SERVER, fact, state};
use crate::finding::{Confidence, Finding, Place, Severity, seconds};

pub(super) fn judge(conn: &Conn, context: &Context, out: &mut Vec<Finding>) {
    for way in [CLIENT, SERVER] {
        zero(conn, way, context, out);
        limited(conn, way, out);
        update_lost(conn, way, out);
        shrunk(conn, way, out);
    }
}

/// The receiver of this direction closed its window.
fn zero(conn: &Conn, way: usize, context: &Context, out: &mut Vec<Finding>) {
    let Some(trouble) = conn.troubled(way) else { return };
    let zero = &trouble.zero;
    let open_at_end = conn.ways[way].is(fact::CLOSED_WINDOW);
    let until_end = if open_at_end { conn.last.max(zero.since) - zero.since } else { 0 };
    let longest = zero.longest.max(until_end);
    if zero.times == 0 || conn.is_closed() && zero.probes == 0 && open_at_end && until_end < 200_000_000 {
        return;
    }
    let receiver = Place::of(1 - way);
    let total = zero.total + until_end;
    let text = format!(
        "The {} closed its window {} times, for {} together, and was probed {} times.",
        receiver.name(),
        zero.times,
        seconds(total),
        zero.probes
    );
    let first = zero.packets.first().map_or(zero.since, |p| p.1);
    let finding = Finding::new("window-zero", by_cost(conn, longest), receiver)
        .sure(Confidence::Certain)
        .see_all(zero.packets.iter().map(|p| p.0), "window closed, or a probe of it")
        .at(first, longest)
        .cost(total)
        .text(text)
        .times(zero.times)
        .because("The window is the free part of its receive buffer: the application does not read.");
    out.push(finding);
    if open_at_end && (zero.probes >= 3 || context.end - zero.since > 30_000_000_000) {
        let text =
            format!("The {} never opened its window again, in {}.", receiver.name(), seconds(until_end));
        out.push(
            Finding::new("window-zero-dead", Severity::Error, receiver)
                .see_all(zero.packets.iter().map(|p| p.0), "window closed, or a probe of it")
                .at(zero.since, until_end)
                .text(text)
                .or("window-zero", "a longer capture"),
        );
    }
}

/// The window opened, and the sender went on with probes: it did not hear of it.
fn update_lost(conn: &Conn, way: usize, out: &mut Vec<Finding>) {
    let Some(trouble) = conn.troubled(way) else { return };
    let lost = &trouble.update_lost;
    let Some(last) = lost.packets.last() else { return };
    if conn.ways[way].data_at <= last.1 {
        return;
    }
    let text = format!(
        "The {} opened its window, and the {} probed it still {} later: the update was lost.",
        Place::of(1 - way).name(),
        Place::of(way).name(),
        seconds(lost.most)
    );
    out.push(
        Finding::new("window-update-lost", by_cost(conn, lost.most), Place::Path)
            .see(trouble.opened, "the window opens")
            .see_all(lost.packets.iter().map(|p| p.0), "a probe all the same")
            .at(last.1 - lost.most, lost.most)
            .cost(lost.most)
            .text(text)
            .times(lost.count)
            .because(
                "Data follows the answer to the probe at once, so the sender had waited for the window.",
            ),
    );
}

/// The receiver takes back window that it has offered.
fn shrunk(conn: &Conn, way: usize, out: &mut Vec<Finding>) {
    let Some(trouble) = conn.troubled(way) else { return };
    let shrunk = &trouble.shrunk;
    let Some(first) = shrunk.packets.first() else { return };
    let text = format!(
        "The {} took back {} bytes of window that it had offered, in {} acknowledgments.",
        Place::of(way).name(),
        shrunk.bytes,
        shrunk.count
    );
    out.push(
        Finding::new("window-shrunk", Severity::Info, Place::of(way))
            .see_all(shrunk.packets.iter().map(|p| p.0), "the right edge moves back")
            .at(first.1, 0)
            .text(text)
            .times(shrunk.count)
            .because("The acknowledgment is newer than the ones before, and its right edge is to the left of theirs."),
    );
}

/// The sender waits for the window once in a round trip.
fn limited(conn: &Conn, way: usize, out: &mut Vec<Finding>) {
    let limited = conn.rare.as_ref().and_then(|rare| rare.limited[way]);
    let Some(limited) = limited else { return };
    let w = &conn.ways[way];
    let lasted = w.data_at - conn.start;
    let leg = conn.leg(way);
    let share = if lasted > 0 { limited.blocked * 100 / lasted } else { 0 };
    if limited.times < 5 || share < 40 || leg < 1_000_000 || conn.is(state::OFFLOAD) {
        return;
    }
    let receiver = Place::of(1 - way);
    let text = format!(
        "The sender waited for the window of the {} in {} round trips, {share} % of the time.",
        receiver.name(),
        limited.times
    );
    let severity = if limited.blocked > 500_000_000 { Severity::Warning } else { Severity::Info };
    out.push(Finding::new("window-limited", severity, receiver).see_all(limited.packets, "fills the window").at(conn.start, lasted).cost(limited.blocked).text(text).times(limited.times)
        .because("It sends up to the right edge of the window, and goes on when an acknowledgment moves that edge."));
}

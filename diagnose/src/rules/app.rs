//! Applications: small writes that wait, and slow answers.

use crate::conn::Conn;
use crate::finding::{Confidence, Finding, Place, Severity, seconds};

pub(super) fn judge(conn: &Conn, out: &mut Vec<Finding>) {
    let turns = &conn.turns;
    let Some(waits) = turns.waits.as_deref() else { return };
    if waits.nagle >= 3 {
        let text = format!(
            "{} small segments waited for a delayed acknowledgment, {} together.",
            waits.nagle,
            seconds(waits.nagle_cost)
        );
        out.push(Finding::new("app-nagle-delack", Severity::Warning, Place::of(usize::from(waits.nagle_way)))
            .see_all(waits.nagle_first, "small segment, acknowledged late").at(conn.start, waits.nagle_cost).cost(waits.nagle_cost).text(text).times(u32::from(waits.nagle))
            .because("The next small segment leaves as soon as the last one is acknowledged, and the acknowledgment comes late and without data."));
    }
    if waits.pauses > 0 {
        let text = format!(
            "The client was silent for {} in {} pauses, with nothing in flight and the window open; the longest took {}.",
            seconds(waits.paused),
            waits.pauses,
            seconds(waits.pause)
        );
        out.push(
            Finding::new("app-slow-client", Severity::Info, Place::Client)
                .see(waits.pause_packet, "after the longest pause")
                .at(conn.start, waits.paused)
                .cost(waits.paused)
                .text(text)
                .times(u32::from(waits.pauses))
                .because("All data was acknowledged, and the server had no answer to give: neither it nor the path held the client up."),
        );
    }
    if waits.slow > 0 {
        let text = format!(
            "{} of {} answers took longer than a second, the slowest {}.",
            waits.slow,
            turns.answers,
            seconds(waits.slowest)
        );
        out.push(
            Finding::new("app-slow-response", Severity::Info, Place::Server)
                .sure(Confidence::Likely)
                .see(waits.slow_packets[0], "request")
                .see(waits.slow_packets[1], "answer")
                .at(conn.start, waits.slowest)
                .cost(waits.slowest)
                .text(text)
                .times(u32::from(waits.slow)),
        );
    }
}
